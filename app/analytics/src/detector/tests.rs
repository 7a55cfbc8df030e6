//! The detector's thread with the real model, and with backends that fail as real ones do.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use camera_sim::ClipSpec;
use detect::{
    Backend, BackendChoice, BackendError, Input, InputSpec, LabelSource, LoadOptions, ModelSource, Output,
};
use media::{AccessUnit, ProducerTimestamp, VideoCodec, VideoFormat};

use super::supervisor::ERRORS;
use super::*;

/// Real pictures of the simulated scene, decoded.
fn frames(count: usize) -> Vec<Arc<Frame>> {
    let spec = ClipSpec { width: 640, height: 360, bitrate_kbps: 1_000, ..ClipSpec::small() };
    let clip = camera_sim::Clip::load(&spec, &camera_sim::default_cache_dir()).expect("a clip");
    let [sps, pps] = clip.parameter_sets() else { panic!("an SPS and a PPS") };
    let private = media::nal::avcc_from_sps_pps(&[&sps[..]], &[&pps[..]]).expect("parameter sets");
    let format = VideoFormat::from_codec_private(VideoCodec::H264, private).expect("a format");
    let format = Arc::new(format);
    let (sender, receiver) = std::sync::mpsc::channel();
    let options = decode::DecoderOptions { name: "test".into(), ..decode::DecoderOptions::default() };
    let decoder = decode::Decoder::start(options, move |frame| drop(sender.send(frame))).expect("a decoder");
    for (index, picture) in (0..).zip(clip.pictures()) {
        decoder.push(AccessUnit {
            data: media::nal::to_length_prefixed(picture.vcl(camera_sim::Codec::H264)),
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
        sizes: Vec::new(),
        core_share: 1e6, // admitted, however busy the machine is while the model is measured
        latency_budget: Duration::from_secs(3600),
        hang: HANG,
        clock: Clock::system(),
    }
}

fn demand(camera: &str, fps: f64) -> CameraDemand {
    CameraDemand { camera: camera.into(), rank: 0, fps, min_score: 0.5, iou: 0.5 }
}

async fn one_frame() -> Arc<Frame> {
    tokio::task::spawn_blocking(|| frames(1)).await.expect("no panic").remove(0)
}

/// The next result of a camera.
async fn next(results: &mut mpsc::Receiver<Detections>) -> Detections {
    let found = tokio::time::timeout(Duration::from_secs(60), results.recv()).await;
    found.expect("in time").expect("a result")
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
    let settings = config::Detect {
        model: config::Model::Scene,
        backend: config::DetectBackend::Rten,
        ..config::Detect::default()
    };
    let loader: Loader = crate::detector_options(&settings, Clock::system()).loader;
    let cancel = CancellationToken::new();
    let (handle, task) = start(options(loader), cancel.clone());
    let slot = handle.add(demand("gate", 5.0));
    let report = wait_for(&handle, running).await;
    let model = report.model_of(slot.id()).expect("a model");
    assert_eq!((model.backend, model.labels.len(), model.sha256.len()), ("rten", 2, 64));
    let allowance = Allowance {
        slot: slot.id(),
        camera: "gate".into(),
        size: 0,
        wanted_fps: 5.0,
        fps: 5.0,
        problem: None,
    };
    assert_eq!(*report.allowances, [allowance]);
    let mut results = slot.results();
    let frame = one_frame().await;
    slot.frames().offer(frame.clone());
    let found = next(&mut results).await;
    assert_eq!(found.frame.timestamp(), frame.timestamp());
    assert!(found.detections.iter().any(|detection| detection.score > 0.4), "{:?}", found.detections);
    let figures = slot.figures().figures();
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
    let loader: Loader = Box::new(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        let model = include_bytes!("../../../model/scene.onnx");
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
    let slot = handle.add(demand("gate", 5.0));
    wait_for(&handle, running).await;
    gone.store(true, Ordering::SeqCst);
    let frame = one_frame().await;
    let offers = async {
        loop {
            slot.frames().offer(frame.clone());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let failed = wait_for(&handle, |report| report.state == DetectorState::Failed);
    let report =
        tokio::select! { report = failed => report, () = offers => unreachable!("it offers for ever") };
    let problem = report.problem.expect("a problem");
    assert_eq!(problem.reason, health::Reason::DetectorFailed);
    assert!(problem.found.contains("the device is gone"), "{problem}");
    assert_eq!(slot.figures().figures().errors, u64::from(ERRORS));
    gone.store(false, Ordering::SeqCst);
    wait_for(&handle, running).await;
    assert!(loads.load(Ordering::SeqCst) >= 2);
    cancel.cancel();
    task.await.expect("ends");
}

#[tokio::test]
async fn a_model_that_does_not_load_says_why_and_is_tried_again() {
    let loader: Loader = Box::new(|_| Err("model /nowhere.onnx: no such file".to_owned()));
    let cancel = CancellationToken::new();
    let (handle, task) = start(options(loader), cancel.clone());
    let _slot = handle.add(demand("gate", 5.0));
    let report = wait_for(&handle, |report| report.state == DetectorState::Failed).await;
    let first = report.problem.expect("a problem");
    assert_eq!(
        (first.reason, first.found.as_str()),
        (health::Reason::DetectorFailed, "model /nowhere.onnx: no such file")
    );
    let report = wait_for(&handle, |report| report.restarts == 2).await;
    assert_eq!(report.problem, Some(first), "it goes on since the first time");
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
    let slot = handle.add(demand("gate", 5.0));
    wait_for(&handle, running).await;
    let mut results = slot.results();
    let frame = one_frame().await;
    HANGS.store(true, Ordering::SeqCst);
    slot.frames().offer(frame.clone());
    let report = wait_for(&handle, |report| report.state == DetectorState::Stuck).await;
    assert_eq!(report.problem.map(|problem| problem.reason), Some(health::Reason::DetectorStuck));
    let mut report = handle.report();
    let answered = async {
        loop {
            // To a slow machine the new one may seem to hang, too: the picture that it had is gone then.
            slot.frames().offer(frame.clone());
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

#[tokio::test]
async fn the_model_is_loaded_when_the_first_camera_comes() {
    let (loader, loads) = moody(|| Ok(()));
    let cancel = CancellationToken::new();
    let (handle, task) = start(options(loader), cancel.clone());
    tokio::task::yield_now().await;
    assert_eq!((handle.report().borrow().state, loads.load(Ordering::SeqCst)), (DetectorState::Off, 0));
    let slot = handle.add(demand("gate", 5.0));
    wait_for(&handle, running).await;
    drop(slot);
    let report = handle.report().borrow().clone();
    assert_eq!((report.state, report.allowances.len()), (DetectorState::Running, 0));
    cancel.cancel();
    task.await.expect("ends");
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}

/// One of several cameras is removed and replaced, and another one comes, while the detector works for a third.
#[tokio::test]
async fn cameras_come_and_go_while_the_others_lose_nothing() {
    let (loader, loads) = moody(|| Ok(()));
    let cancel = CancellationToken::new();
    let (handle, task) = start(options(loader), cancel.clone());
    let (stays, goes) = (handle.add(demand("stays", 5.0)), handle.add(demand("goes", 5.0)));
    let report = wait_for(&handle, running).await;
    let cameras = |report: &DetectorReport| -> Vec<String> {
        report.allowances.iter().map(|allowance| allowance.camera.clone()).collect()
    };
    assert_eq!(cameras(&report), ["stays", "goes"]);
    let frame = one_frame().await;
    let (mut of_stays, mut of_goes) = (stays.results(), goes.results());
    let count = |view: &FiguresView| view.figures().frames;

    // A picture of each, then one of them goes, with what it has of the detector.
    for (slot, results) in [(&stays, &mut of_stays), (&goes, &mut of_goes)] {
        slot.frames().offer(frame.clone());
        next(results).await;
    }
    let (late, gone) = (goes.frames(), goes.figures());
    drop(goes);
    assert_eq!(cameras(&handle.report().borrow()), ["stays"]);
    late.offer(frame.clone());
    assert!(of_goes.recv().await.is_none(), "its decoder may still have had a picture, which nobody wants");
    assert_eq!((count(&gone), count(&stays.figures())), (1, 1));

    // Another one takes its place; the first one's queue and counts are what they were.
    let replaced = handle.add(demand("goes", 2.0));
    let mut of_replaced = replaced.results();
    assert_eq!(cameras(&handle.report().borrow()), ["stays", "goes"]);
    assert_eq!(handle.report().borrow().allowance(replaced.id()).map(|allowance| allowance.fps), Some(2.0));
    for _ in 0..3 {
        stays.frames().offer(frame.clone());
        next(&mut of_stays).await;
        replaced.frames().offer(frame.clone());
        next(&mut of_replaced).await;
    }
    assert_eq!((count(&stays.figures()), count(&replaced.figures()), count(&gone)), (4, 3, 1));
    let total = handle.total();
    assert_eq!((total.frames, total.skipped, total.errors), (8, 0, 0), "with those of the one that has gone");
    assert_eq!(
        (handle.report().borrow().state, handle.report().borrow().restarts),
        (DetectorState::Running, 0)
    );
    cancel.cancel();
    task.await.expect("ends");
    assert_eq!(loads.load(Ordering::SeqCst), 1, "the model was never loaded again");
}

#[test]
fn a_camera_has_the_size_of_the_shape_nearest_to_its_own() {
    let sizes = [(416, 416), (640, 384)];
    for ((width, height), expected) in [
        ((1920, 1080), Some(1)),
        ((2560, 1920), Some(1)), // 4:3
        ((704, 576), Some(0)),
        ((1000, 1000), Some(0)),
        ((1080, 1920), Some(0)),
        ((5120, 1440), Some(1)),
        ((0, 1080), None),
    ] {
        assert_eq!(nearest(&sizes, width, height), expected, "{width}x{height}");
    }
    assert_eq!(nearest(&sizes[..1], 1920, 1080), None, "there is no choice");
    assert_eq!(nearest(&[], 1920, 1080), None);
}

/// A model of two sizes: each is loaded when a camera shows that it needs it, and only then.
#[tokio::test]
async fn each_camera_is_looked_at_by_the_size_that_fits_it() {
    let loaded = Arc::new(Mutex::new(Vec::new()));
    let (real, _) = moody(|| Ok(()));
    let list = loaded.clone();
    let loader: Loader = Box::new(move |size| {
        list.lock().expect("not poisoned").push(size);
        let (mut model, sha256) = real(size)?;
        model.model = format!("size {size}");
        Ok((model, sha256))
    });
    let loads = || loaded.lock().expect("not poisoned").clone();
    let cancel = CancellationToken::new();
    let options = DetectorOptions { sizes: vec![(192, 320), (320, 192)], ..options(loader) };
    let (handle, task) = start(options, cancel.clone());
    let (wide, upright) = (handle.add(demand("wide", 5.0)), handle.add(demand("upright", 5.0)));
    tokio::task::yield_now().await;
    assert_eq!((handle.report().borrow().state, loads()), (DetectorState::Off, Vec::new()));

    wide.pictures_are(1280, 720);
    let report = wait_for(&handle, running).await;
    let sizes = |report: &DetectorReport| -> Vec<(String, usize)> {
        report.allowances.iter().map(|allowance| (allowance.camera.clone(), allowance.size)).collect()
    };
    assert_eq!((sizes(&report), loads()), (vec![("wide".to_owned(), 1)], vec![1]));
    let (mut of_wide, mut of_upright) = (wide.results(), upright.results());
    let frame = one_frame().await;
    wide.frames().offer(frame.clone());
    next(&mut of_wide).await;

    upright.pictures_are(720, 1280);
    let report = wait_for(&handle, |report| report.allowances.len() == 2).await;
    assert_eq!((sizes(&report)[1].clone(), loads()), (("upright".to_owned(), 0), vec![1, 0]));
    let name = |slot: &CameraSlot| report.model_of(slot.id()).map(|model| model.name.clone());
    assert_eq!((name(&wide).as_deref(), name(&upright).as_deref()), (Some("size 1"), Some("size 0")));
    for _ in 0..3 {
        wide.frames().offer(frame.clone());
        upright.frames().offer(frame.clone());
        next(&mut of_wide).await;
        next(&mut of_upright).await;
    }
    // The camera is turned.
    upright.pictures_are(1280, 720);
    let report =
        wait_for(&handle, |report| report.allowances.iter().all(|allowance| allowance.size == 1)).await;
    assert_eq!(report.restarts, 0);
    upright.frames().offer(frame);
    next(&mut of_upright).await;
    cancel.cancel();
    task.await.expect("ends");
    assert_eq!(loads(), [1, 0], "nothing was loaded twice");
}
