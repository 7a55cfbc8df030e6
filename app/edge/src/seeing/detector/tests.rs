//! The detector's thread with the real model, and with backends that fail as real ones do.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bytes::Bytes;
use camera_sim::ClipSpec;
use detect::{
    Backend, BackendChoice, BackendError, Input, InputSpec, LabelSource, LoadOptions, ModelSource, Output,
};
use media::{AccessUnit, ProducerTimestamp, VideoCodec, VideoFormat};

use super::*;

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

async fn wait_for(handle: &DetectorHandle, wanted: impl FnMut(&DetectorReport) -> bool) -> DetectorReport {
    let mut report = handle.report();
    let seen = tokio::time::timeout(Duration::from_secs(60), report.wait_for(wanted)).await;
    seen.expect("in time").expect("the detector lives").clone()
}

fn running(report: &DetectorReport) -> bool {
    report.state == DetectorState::Running
}

#[tokio::test]
async fn the_built_in_model_sees_the_figures_of_the_scene() {
    let settings = config::Detect { backend: config::DetectBackend::Rten, ..config::Detect::default() };
    let loader: Loader = super::super::model::options(&settings, &[]).loader;
    let cancel = CancellationToken::new();
    let (handle, task) = start(options(loader), cancel.clone());
    let report = wait_for(&handle, running).await;
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

/// The real backend, after what is to happen first.
struct Moody {
    real: Box<dyn Backend>,
    mood: Arc<Mood>,
}

type Mood = dyn Fn() -> Result<(), BackendError> + Send + Sync;

impl Backend for Moody {
    fn name(&self) -> &'static str {
        self.real.name()
    }

    fn input(&self) -> InputSpec {
        self.real.input()
    }

    fn run(&mut self, input: Input<'_>, batch: usize, output: &mut Output) -> Result<(), BackendError> {
        (self.mood)()?;
        self.real.run(input, batch, output)
    }
}

/// Loads such a backend, and counts how often.
fn moody(mood: impl Fn() -> Result<(), BackendError> + Send + Sync + 'static) -> (Loader, Arc<AtomicU32>) {
    let loads = Arc::new(AtomicU32::new(0));
    let count = loads.clone();
    let mood: Arc<Mood> = Arc::new(mood);
    let loader: Loader = Box::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
        let model = include_bytes!("../../../../model/scene.onnx");
        let options = LoadOptions { backend: BackendChoice::Rten, ..LoadOptions::default() };
        let source = ModelSource::BuiltIn { name: "scene", bytes: model };
        let mut loaded =
            detect::load(&source, &LabelSource::Model, &options).map_err(|error| error.to_string())?;
        loaded.backend = Box::new(Moody { real: loaded.backend, mood: mood.clone() });
        Ok((loaded, String::new()))
    });
    (loader, loads)
}

#[tokio::test]
async fn a_backend_that_fails_again_and_again_is_loaded_anew() {
    let gone = Arc::new(AtomicBool::new(false));
    let device = gone.clone();
    let (loader, loads) = moody(move || {
        let message = "the device is gone".to_owned();
        if device.load(Ordering::SeqCst) {
            Err(BackendError::Run { backend: "rten", message })
        } else {
            Ok(())
        }
    });
    let cancel = CancellationToken::new();
    let (handle, task) = start(options(loader), cancel.clone());
    wait_for(&handle, running).await;
    gone.store(true, Ordering::SeqCst);
    let frame = tokio::task::spawn_blocking(|| frames(1)).await.expect("no panic").remove(0);
    let offers = async {
        loop {
            handle.offer(0, frame.clone());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let failed = wait_for(&handle, |report| report.state == DetectorState::Failed);
    let report =
        tokio::select! { report = failed => report, () = offers => unreachable!("it offers for ever") };
    let problem = report.problem.expect("a problem");
    assert!(problem.contains("the device is gone"), "{problem}");
    assert_eq!(handle.figures(0).errors, u64::from(ERRORS));
    gone.store(false, Ordering::SeqCst);
    wait_for(&handle, running).await;
    assert!(loads.load(Ordering::SeqCst) >= 2);
    cancel.cancel();
    task.await.expect("ends");
}

#[tokio::test]
async fn a_model_that_does_not_load_says_why_and_is_tried_again() {
    let loader: Loader = Box::new(|| Err("model /nowhere.onnx: no such file".to_owned()));
    let cancel = CancellationToken::new();
    let (handle, task) = start(options(loader), cancel.clone());
    let report = wait_for(&handle, |report| report.state == DetectorState::Failed).await;
    assert_eq!(report.problem.as_deref(), Some("model /nowhere.onnx: no such file"));
    wait_for(&handle, |report| report.restarts == 2).await;
    cancel.cancel();
    task.await.expect("ends");
}

#[tokio::test]
async fn a_backend_that_hangs_is_left_and_replaced() {
    /// Whether the next call hangs, and where it hangs until the end of the test.
    static HANGS: AtomicBool = AtomicBool::new(false);
    static GATE: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());
    let (loader, loads) = moody(|| {
        if HANGS.swap(false, Ordering::SeqCst) {
            let open = GATE.0.lock().expect("not poisoned");
            drop(GATE.1.wait_while(open, |open| !*open).expect("not poisoned"));
        }
        Ok(())
    });
    let cancel = CancellationToken::new();
    let mut options = options(loader);
    options.hang = Duration::from_millis(700);
    let (handle, task) = start(options, cancel.clone());
    wait_for(&handle, running).await;
    let mut results = handle.results(0);
    let frame = tokio::task::spawn_blocking(|| frames(1)).await.expect("no panic").remove(0);
    HANGS.store(true, Ordering::SeqCst);
    handle.offer(0, frame.clone());
    wait_for(&handle, |report| report.state == DetectorState::Stuck).await;
    let mut report = handle.report();
    let answered = async {
        loop {
            // To a slow machine the new one may seem to hang, too: the picture that it had is gone then.
            handle.offer(0, frame.clone());
            tokio::select! {
                Some(_) = results.recv() => return,
                changed = report.changed() => changed.expect("the detector lives"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), answered).await.expect("another thread answers");
    assert!(loads.load(Ordering::SeqCst) >= 2);
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
