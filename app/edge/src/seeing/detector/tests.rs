//! The detector's thread with the real model, and with backends that fail as real ones do.

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use camera_sim::ClipSpec;
use detect::{
    Backend, BackendChoice, BackendError, Input, InputSpec, LabelSource, LoadOptions, ModelSource, Output,
};
use media::{AccessUnit, ProducerTimestamp, VideoCodec, VideoFormat};

use super::*;
use crate::config;

/// Real pictures of the simulated scene, decoded.
fn frames(count: usize) -> Vec<Arc<Frame>> {
    let spec = ClipSpec {
        width: 640,
        height: 360,
        fps: 10,
        gop: 10,
        bitrate_kbps: 1_000,
        loop_seconds: 4,
        ..ClipSpec::default()
    };
    let clip = camera_sim::Clip::load(&spec, &camera_sim::default_cache_dir()).expect("a clip");
    let [sps, pps] = clip.parameter_sets() else { panic!("an SPS and a PPS") };
    let private = media::nal::avcc_from_sps_pps(&[&sps[..]], &[&pps[..]]).expect("parameter sets");
    let format = VideoFormat::from_codec_private(VideoCodec::H264, private).expect("a format");
    let format = Arc::new(format);
    let (sender, receiver) = std::sync::mpsc::channel();
    let options = decode::DecoderOptions { name: "test".into(), ..decode::DecoderOptions::default() };
    let decoder = decode::Decoder::start(options, move |frame| drop(sender.send(frame))).expect("a decoder");
    for (index, picture) in (0..).zip(clip.pictures()) {
        let data = picture.vcl(camera_sim::Codec::H264).fold(Vec::new(), |mut data, nal| {
            data.extend_from_slice(&u32::try_from(nal.len()).expect("short").to_be_bytes());
            data.extend_from_slice(nal);
            data
        });
        decoder.push(AccessUnit {
            data: Bytes::from(data),
            timestamp: ProducerTimestamp::from_millis(1_000_000 + index * 100),
            random_access: picture.random_access,
            format: format.clone(),
        });
    }
    let next = || receiver.recv_timeout(Duration::from_secs(30)).expect("a decoded picture");
    std::iter::repeat_with(next).take(count).collect()
}

fn options(loader: Loader) -> DetectorOptions {
    DetectorOptions {
        loader,
        demands: vec![Demand { id: "gate".into(), fps: 5.0 }],
        min_scores: vec![0.5],
        core_share: 8.0,
        iou: 0.5,
        latency_budget: Duration::from_secs(3600),
        hang: HANG,
    }
}

async fn wait_for(handle: &DetectorHandle, state: DetectorState) -> DetectorReport {
    let mut report = handle.report();
    let limit = Duration::from_secs(60);
    let seen = tokio::time::timeout(limit, report.wait_for(|report| report.state == state)).await;
    seen.expect("in time").expect("the detector lives").clone()
}

#[tokio::test]
async fn the_built_in_model_sees_the_figures_of_the_scene() {
    let settings = config::Detect { backend: config::DetectBackend::Rten, ..config::Detect::default() };
    let loader: Loader = super::super::model::options(&settings, &[]).loader;
    let cancel = CancellationToken::new();
    let (handle, task) = start(options(loader), cancel.clone());
    let report = wait_for(&handle, DetectorState::Running).await;
    let model = report.model.expect("a model");
    assert_eq!((model.backend, model.labels.len(), model.sha256.len()), ("rten", 2, 64));
    assert_eq!(*report.rooms, [Room { fps: 5.0, advice: None }]);
    let mut results = handle.results(0);
    let frame = tokio::task::spawn_blocking(|| frames(1)).await.expect("no panic").remove(0);
    handle.offer(0, frame.clone());
    let seen = tokio::time::timeout(Duration::from_secs(60), results.recv()).await.expect("in time");
    let seen = seen.expect("a result");
    assert_eq!(seen.frame.timestamp(), frame.timestamp());
    assert!(seen.detections.iter().any(|detection| detection.score > 0.4), "{:?}", seen.detections);
    let figures = handle.figures(0);
    assert_eq!((figures.frames, figures.errors, figures.skipped), (1, 0, 0));
    assert_eq!(figures.inference.count(), 1);
    cancel.cancel();
    task.await.expect("ends");
}

/// The real backend, which does as it is told at the n-th call.
struct Moody {
    real: Box<dyn Backend>,
    calls: Arc<AtomicU32>,
    mood: fn(u32) -> Result<(), BackendError>,
}

impl Backend for Moody {
    fn name(&self) -> &'static str {
        self.real.name()
    }

    fn input(&self) -> InputSpec {
        self.real.input()
    }

    fn run(&mut self, input: Input<'_>, batch: usize, output: &mut Output) -> Result<(), BackendError> {
        (self.mood)(self.calls.fetch_add(1, Ordering::SeqCst))?;
        self.real.run(input, batch, output)
    }
}

/// With one picture measured at start, whatever the machine.
fn moody(mood: fn(u32) -> Result<(), BackendError>) -> (Loader, Arc<AtomicU32>) {
    let loads = Arc::new(AtomicU32::new(0));
    let count = loads.clone();
    let calls = Arc::new(AtomicU32::new(0));
    let loader: Loader = Box::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
        let model = include_bytes!("../../../../model/scene.onnx");
        let options = LoadOptions { backend: BackendChoice::Rten, ..LoadOptions::default() };
        let source = ModelSource::BuiltIn { name: "scene", bytes: model };
        let mut loaded =
            detect::load(&source, &LabelSource::Model, &options).map_err(|error| error.to_string())?;
        let calls = calls.clone();
        loaded.backend = Box::new(Moody { real: loaded.backend, calls, mood });
        Ok((loaded, String::new()))
    });
    (loader, loads)
}

#[tokio::test]
async fn a_backend_that_fails_again_and_again_is_loaded_anew() {
    fn mood(call: u32) -> Result<(), BackendError> {
        // The first load measures up to 31 pictures; after that nothing works for a while.
        let message = "the device is gone".to_owned();
        if (40..60).contains(&call) { Err(BackendError::Run { backend: "rten", message }) } else { Ok(()) }
    }
    let (loader, loads) = moody(mood);
    let cancel = CancellationToken::new();
    let (handle, task) = start(options(loader), cancel.clone());
    wait_for(&handle, DetectorState::Running).await;
    let mut results = handle.results(0);
    let frame = tokio::task::spawn_blocking(|| frames(1)).await.expect("no panic").remove(0);
    // Offers until it has failed; each result or failure makes room for the next.
    let mut report = handle.report();
    let failed = async {
        loop {
            handle.offer(0, frame.clone());
            tokio::select! {
                _ = results.recv() => {}
                changed = report.changed() => {
                    changed.expect("the detector lives");
                    if report.borrow_and_update().state == DetectorState::Failed {
                        return;
                    }
                }
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), failed).await.expect("it fails");
    let problem = handle.report().borrow().problem.clone().expect("a problem");
    assert!(problem.contains("the device is gone"), "{problem}");
    assert!(handle.figures(0).errors >= u64::from(ERRORS));
    cancel.cancel();
    task.await.expect("ends");
    assert!(loads.load(Ordering::SeqCst) >= 1);
}

#[tokio::test]
async fn a_model_that_does_not_load_says_why_and_is_tried_again() {
    let loader: Loader = Box::new(|| Err("model /nowhere.onnx: no such file".to_owned()));
    let cancel = CancellationToken::new();
    let (handle, task) = start(options(loader), cancel.clone());
    let report = wait_for(&handle, DetectorState::Failed).await;
    assert_eq!(report.problem.as_deref(), Some("model /nowhere.onnx: no such file"));
    wait_for(&handle, DetectorState::Loading).await;
    cancel.cancel();
    task.await.expect("ends");
}

#[tokio::test]
async fn a_backend_that_hangs_is_left_and_replaced() {
    static GATE: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());
    fn mood(call: u32) -> Result<(), BackendError> {
        if call == 100 {
            let mut open = GATE.0.lock().expect("not poisoned");
            while !*open {
                open = GATE.1.wait(open).expect("not poisoned");
            }
        }
        Ok(())
    }
    let (loader, loads) = moody(mood);
    let cancel = CancellationToken::new();
    let mut options = options(loader);
    options.hang = Duration::from_millis(700);
    let (handle, task) = start(options, cancel.clone());
    wait_for(&handle, DetectorState::Running).await;
    let mut results = handle.results(0);
    let frame = tokio::task::spawn_blocking(|| frames(1)).await.expect("no panic").remove(0);
    let mut report = handle.report();
    let mut stuck = false;
    let replaced = async {
        loop {
            handle.offer(0, frame.clone());
            tokio::select! {
                Some(_) = results.recv() => {
                    if stuck {
                        return; // another thread answers
                    }
                }
                changed = report.changed() => {
                    changed.expect("the detector lives");
                    stuck |= report.borrow_and_update().state == DetectorState::Stuck;
                }
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), replaced).await.expect("it is replaced");
    assert_eq!(loads.load(Ordering::SeqCst), 2);
    *GATE.0.lock().expect("not poisoned") = true;
    GATE.1.notify_all();
    cancel.cancel();
    task.await.expect("ends");
}

#[test]
fn rates_go_to_the_first_cameras_first() {
    let cost = |ms| detect::capacity::BatchCost {
        batch: 1,
        p50: Duration::from_millis(ms),
        p95: Duration::from_millis(ms),
        rounds: 1,
    };
    let check = |ms: u64, wanted: &[f64], expected: &[f64]| {
        let measured = Measured { by_batch: vec![cost(ms)], input: (320, 192) };
        let demands: Vec<_> = wanted.iter().map(|fps| Demand { id: "c".into(), fps: *fps }).collect();
        let rooms = rooms(&measured, &demands, 0.8);
        let found: Vec<_> = rooms.iter().map(|room| room.fps).collect();
        assert_eq!(found, expected, "{ms} ms, {wanted:?}");
        for (room, wanted) in rooms.iter().zip(wanted) {
            assert_eq!(room.advice.is_some(), room.fps < *wanted);
        }
    };
    check(5, &[10.0, 10.0], &[10.0, 10.0]);
    check(50, &[10.0, 10.0, 5.0], &[10.0, 6.0, 0.0]);
    check(50, &[0.0, 20.0], &[0.0, 16.0]);
}
