//! A whole branch with its real parts: decoder, built-in model, tracks and events, on pictures of the simulated scene.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use analytics::detector::{self, CameraDemand, DetectorOptions, DetectorState};
use analytics::{
    AnalyticsReport, AnnotatedFrame, Branch, Channels, DetectorHandle, EventChange, FeedItem, Output,
    Persisted,
};
use camera_sim::{Clip, ClipSpec, Codec};
use clock::Clock;
use config::CameraDetect;
use health::Reason;
use media::{AccessUnit, ClockSource, ProducerTimestamp, VideoCodec, VideoFormat};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use vision::event::ChangeKind;

const DEADLINE: Duration = Duration::from_secs(60);
const JPEG_LIMIT: usize = 20_000;
const STEP_MS: u64 = 100;
const START_MS: u64 = 1_795_186_000_000;

/// Pictures of the scene for ever, with rising times.
struct Camera {
    clip: Arc<Clip>,
    format: Arc<VideoFormat>,
    next: u64,
}

impl Camera {
    fn new() -> Self {
        let spec = ClipSpec { width: 640, height: 360, bitrate_kbps: 1_000, ..ClipSpec::small() };
        let clip = Clip::load(&spec, &camera_sim::default_cache_dir()).expect("a clip");
        let [sps, pps] = clip.parameter_sets() else { panic!("an SPS and a PPS") };
        let private = media::nal::avcc_from_sps_pps(&[&sps[..]], &[&pps[..]]).expect("parameter sets");
        let format = VideoFormat::from_codec_private(VideoCodec::H264, private).expect("a format");
        Self { clip, format: Arc::new(format), next: 0 }
    }

    fn picture(&mut self) -> AccessUnit {
        let pictures = self.clip.pictures();
        let picture = &pictures[usize::try_from(self.next).expect("few") % pictures.len()];
        let data = media::nal::to_length_prefixed(picture.vcl(Codec::H264));
        let timestamp = ProducerTimestamp::from_millis(START_MS + self.next * STEP_MS);
        self.next += 1;
        AccessUnit { data, timestamp, random_access: picture.random_access, format: self.format.clone() }
    }
}

/// A branch that runs, and all ends of it.
struct Rig {
    feed: mpsc::Sender<FeedItem>,
    persisted: mpsc::Sender<Persisted>,
    outputs: mpsc::Receiver<Output>,
    frames: broadcast::Receiver<AnnotatedFrame>,
    report: watch::Receiver<AnalyticsReport>,
    task: JoinHandle<()>,
}

impl Rig {
    fn start(detector: &DetectorHandle) -> Self {
        let (feed, feed_out) = mpsc::channel(analytics::FEED_PLACES);
        let (persisted, persisted_out) = mpsc::channel(analytics::PERSISTED_PLACES);
        let (output, outputs) = mpsc::channel(analytics::OUTPUT_PLACES);
        let (report, view) = watch::channel(AnalyticsReport::default());
        let mut detect = CameraDetect { fps: 30.0, ..CameraDetect::default() };
        detect.rules.label.min_score = 0.35;
        let frames = analytics::annotated_frames();
        let receiver = frames.subscribe();
        let branch = Branch {
            camera: "gate".into(),
            decoder: None,
            wants_jpegs: true,
            jpeg_limit_bytes: JPEG_LIMIT,
            slot: Arc::new(detector.add(CameraDemand::new("gate", 0, &detect))),
            detect,
            clock: Clock::system(),
            clock_source: Arc::new(|| ClockSource::Rtcp),
            report,
            frames,
        };
        let channels = Channels { feed: feed_out, persisted: persisted_out, output };
        let task = tokio::spawn(branch.supervise(channels));
        Self { feed, persisted, outputs, frames: receiver, report: view, task }
    }

    async fn next_output(&mut self) -> Option<Output> {
        tokio::time::timeout(DEADLINE, self.outputs.recv()).await.expect("in time")
    }

    /// Waits until the result of a picture as late as this one has come.
    async fn wait_for_result(&mut self, at_ms: u64) {
        let results = async {
            loop {
                match self.frames.recv().await {
                    Ok(annotated) if annotated.frame.timestamp().as_millis() >= at_ms => return,
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => panic!("the branch has ended"),
                }
            }
        };
        tokio::time::timeout(DEADLINE, results).await.expect("in time");
    }
}

fn event(output: &Output) -> Option<&EventChange> {
    match output {
        Output::Event { change, .. } => Some(change),
        _ => None,
    }
}

#[tokio::test]
async fn what_walks_through_the_scene_becomes_events_that_point_into_the_recording() {
    let settings = config::Detect {
        model: config::Model::Scene,
        backend: config::DetectBackend::Rten,
        latency_budget: Duration::from_secs(3600),
        ..config::Detect::default()
    };
    let cancel = CancellationToken::new();
    let mut options = analytics::detector_options(&settings, Clock::system());
    options.core_share = 1e6; // admitted, however busy the machine is while the model is measured
    let (handle, detector) = detector::start(options, cancel.clone());
    let mut camera = tokio::task::spawn_blocking(Camera::new).await.expect("no panic");
    let mut rig = Rig::start(&handle);

    // Once the model is known everything starts at nothing.
    let mut outputs = Vec::new();
    while !matches!(outputs.last(), Some(Output::Motion(false))) {
        outputs.push(rig.next_output().await.expect("the branch runs"));
    }
    for label in ["person", "vehicle"] {
        let zero = |output: &Output| matches!(output, Output::Count { label: of, count: 0 } if of == label);
        assert!(outputs.iter().any(zero), "{label}: {outputs:?}");
    }

    // Never more than a few pictures ahead of the detector, until somebody is there.
    let begun = |outputs: &[Output]| {
        let events = outputs.iter().filter_map(event);
        events.clone().find(|change| change.kind == ChangeKind::New).cloned()
    };
    while begun(&outputs).is_none() {
        assert!(camera.next < 400, "nobody in ten rounds of the scene");
        let unit = camera.picture();
        let behind_ms = unit.timestamp.as_millis() - 4 * STEP_MS;
        rig.feed.send(FeedItem::Picture(unit)).await.expect("the branch runs");
        if behind_ms >= START_MS {
            rig.wait_for_result(behind_ms).await;
        }
        while let Ok(output) = rig.outputs.try_recv() {
            outputs.push(output);
        }
    }
    let new = begun(&outputs).expect("just seen");
    assert_eq!((new.clock, new.frame_size, new.clip.fragment), (ClockSource::Rtcp, [640, 360], None));
    assert!(new.clip.start.as_millis() >= START_MS && new.at >= new.clip.start, "{new:?}");

    // KVS has the fragment in which it begins: one more change of the same event says which.
    let number = "91343852333181442316009417595428347397905520001".parse().expect("a fragment number");
    let end = ProducerTimestamp::from_millis(new.clip.start.as_millis() + 1);
    let fragment = Persisted { start: new.clip.start, end, number };
    rig.persisted.send(fragment).await.expect("the branch runs");
    loop {
        outputs.push(rig.next_output().await.expect("the branch runs"));
        let filled = outputs.last().and_then(event).filter(|change| change.clip.fragment.is_some());
        if let Some(filled) = filled.filter(|change| change.id == new.id) {
            assert_eq!((filled.kind, filled.clip.fragment), (ChangeKind::Update, Some(number)));
            break;
        }
    }

    // The camera goes: every event ends, and nothing is left.
    let Rig { feed, persisted, outputs: mut rest, report, task, .. } = rig;
    drop((feed, persisted));
    while let Some(output) = tokio::time::timeout(DEADLINE, rest.recv()).await.expect("in time") {
        outputs.push(output);
    }
    task.await.expect("no panic");
    let mut lives: BTreeMap<&str, Vec<ChangeKind>> = BTreeMap::new();
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    let mut moving = false;
    for output in &outputs {
        match output {
            Output::Event { change, shot } => {
                lives.entry(&change.id).or_default().push(change.kind);
                assert_eq!(shot.is_some(), change.kind == ChangeKind::End, "{change:?}");
                let own = shot.as_ref().is_none_or(|shot| {
                    shot.boxes.iter().any(|found| found.track == change.event.track) && shot.frame > 0
                });
                assert!(own, "{shot:?}");
            }
            Output::Count { label, count } => drop(counts.insert(label, *count)),
            Output::Motion(now) => moving = *now,
            Output::Snapshot { jpeg, .. } => assert!(jpeg.len() <= JPEG_LIMIT, "{}", jpeg.len()),
        }
    }
    for (id, kinds) in &lives {
        let (first, last) = (kinds.first(), kinds.last());
        assert_eq!((first, last), (Some(&ChangeKind::New), Some(&ChangeKind::End)), "{id}: {kinds:?}");
    }
    assert!(counts.values().all(|count| *count == 0) && !moving, "{counts:?}");
    let report = report.borrow().clone();
    assert_eq!((report.events, report.problem), (lives.len() as u64, None));
    assert!(report.latency.count() > 0 && report.decode.is_some_and(|decode| decode.decoded > 0));
    assert_eq!(handle.report().borrow().allowances.len(), 0, "its slot is free again");
    cancel.cancel();
    detector.await.expect("ends");
}

#[tokio::test]
async fn without_a_detector_nothing_is_decoded() {
    let options = DetectorOptions {
        loader: Box::new(|_| Err("model /nowhere.onnx: no such file".to_owned())),
        sizes: Vec::new(),
        core_share: 1.0,
        latency_budget: Duration::from_secs(1),
        hang: detector::HANG,
        clock: Clock::system(),
    };
    let cancel = CancellationToken::new();
    let (handle, detector) = detector::start(options, cancel.clone());
    let mut rig = Rig::start(&handle);
    let mut report = handle.report();
    let failed = report.wait_for(|report| report.state == DetectorState::Failed);
    tokio::time::timeout(DEADLINE, failed).await.expect("in time").expect("the detector lives");
    let told = rig.report.wait_for(|report| report.problem.is_some());
    let problem =
        tokio::time::timeout(DEADLINE, told).await.expect("in time").expect("it runs").problem.clone();
    let problem = problem.expect("just seen");
    assert_eq!(
        (problem.reason, &*problem.found),
        (Reason::DetectorFailed, "model /nowhere.onnx: no such file")
    );
    let mut camera = tokio::task::spawn_blocking(Camera::new).await.expect("no panic");
    for _ in 0..20 {
        rig.feed.send(FeedItem::Picture(camera.picture())).await.expect("the branch takes them all");
    }
    let Rig { feed, persisted, mut outputs, report, task, .. } = rig;
    drop((feed, persisted));
    task.await.expect("no panic");
    assert!(outputs.recv().await.is_none(), "nothing was found");
    assert!(report.borrow().decode.is_none(), "there never was a pipeline");
    cancel.cancel();
    detector.await.expect("ends");
}
