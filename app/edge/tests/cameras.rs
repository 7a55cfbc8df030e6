//! Cameras are added, replaced and removed while another one goes on: it loses no picture and keeps its sessions.

use std::time::Duration;

use camera_sim::{CameraSim, ClipSpec};
use clock::Clock;
use kvs_client::{Client, Config, Endpoints, static_credentials};
use kvs_edge::camera::{CameraView, Shared};
use kvs_edge::cameras::{Cameras, CamerasError};
use kvs_edge::watchdog::Pulses;
use kvs_local::{Credentials, KvsLocal, Options};
use rtsp::source::IngestState;
use tokio_util::sync::CancellationToken;

/// Far beyond what any event takes; a test that reaches it has failed.
const DEADLINE: Duration = Duration::from_secs(60);
const CAMERAS: usize = 3;

fn camera(sim: &CameraSim, number: usize) -> config::Camera {
    let url = sim.url(number).parse().expect("a URL");
    let mut camera = config::Camera::new(format!("cam{number}"), url);
    camera.upload.fragment = Duration::from_secs(1);
    camera
}

fn client(kvs: &KvsLocal) -> Client {
    let keys = Credentials::local();
    let credentials = static_credentials(&keys.access_key, &keys.secret_key, None);
    let mut config = Config::new(kvs.region(), credentials);
    let endpoint = kvs.endpoint().parse().ok();
    config.endpoints = Endpoints { control: endpoint.clone(), media: endpoint.clone(), archived: endpoint };
    Client::new(config).expect("a client")
}

/// The view of camera `id`, once it is live and KVS has kept one more fragment of it than `persisted`.
async fn recorded(cameras: &Cameras, id: &str, persisted: u64) -> CameraView {
    let views = cameras.views().borrow().clone();
    let view = views.iter().find(|view| view.config.id == id).expect("the camera is there").clone();
    let mut upload = view.upload.clone();
    let kept = upload.wait_for(|report| report.persisted > persisted);
    tokio::time::timeout(DEADLINE, kept).await.expect("in time").expect("it runs");
    assert_eq!(view.ingest.borrow().state, IngestState::Live);
    view
}

fn ids(cameras: &Cameras) -> Vec<(String, bool)> {
    let views = cameras.views().borrow().clone();
    views.iter().map(|view| (view.config.id.clone(), view.config.enabled)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_camera_changes_and_the_others_lose_nothing() {
    let sim = CameraSim::builder().clip(ClipSpec::small()).cameras(CAMERAS).start().await.expect("cameras");
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = Options::new(folder.path());
    options.credentials = vec![Credentials::local()];
    for number in 0..CAMERAS {
        options = options.stream(format!("cam{number}"), 24);
    }
    let kvs = KvsLocal::start(options).await.expect("a server");
    let clock = Clock::system();
    let pulses = Pulses::new(clock.clone());
    let shared = Shared {
        device: "box".into(),
        client: client(&kvs),
        clock,
        pulses,
        analytics: None,
        spool: None,
        proofs: store::Proofs::in_memory().expect("in memory"),
    };
    let mut cameras = Cameras::new(shared);

    cameras.add(camera(&sim, 0)).expect("added");
    cameras.add(camera(&sim, 1)).expect("added");
    let steady = recorded(&cameras, "cam0", 1).await;
    recorded(&cameras, "cam1", 0).await;

    // What cannot be done changes nothing.
    let again = cameras.add(camera(&sim, 1)).expect_err("it is there");
    assert_eq!(
        again.to_string(),
        "there is a camera `cam1` already; give the new one another id, or replace it"
    );
    let mut double = camera(&sim, 2);
    double.stream = "cam0".into();
    let taken = cameras.add(double).expect_err("its stream is taken");
    assert!(matches!(taken, CamerasError::StreamTaken { ref other, .. } if other == "cam0"), "{taken}");
    let unknown = cameras.remove("cam9").await.expect_err("nobody knows it");
    assert_eq!(unknown.to_string(), "no camera `cam9`; there are: cam0, cam1");
    assert_eq!(cameras.replace(camera(&sim, 0)).await, Ok(0), "the same configuration changes nothing");

    cameras.add(camera(&sim, 2)).expect("added");
    recorded(&cameras, "cam2", 0).await;
    let mut shorter = camera(&sim, 1);
    shorter.upload.ack_timeout = Duration::from_secs(50);
    assert_eq!(
        cameras.replace(shorter.clone()).await,
        Ok(0),
        "the last fragment was completed and persisted"
    );
    let anew = recorded(&cameras, "cam1", 0).await;
    assert_eq!(*anew.config, shorter);
    shorter.enabled = false;
    assert_eq!(cameras.replace(shorter).await, Ok(0));
    assert_eq!(ids(&cameras), [("cam0".into(), true), ("cam1".into(), false), ("cam2".into(), true)]);
    sim.wait_stats(1, |stats| stats.playing == 0).await;
    assert_eq!(cameras.remove("cam2").await, Ok(0));
    assert_eq!(ids(&cameras), [("cam0".into(), true), ("cam1".into(), false)]);

    // Meanwhile the first one went on as if it were alone.
    let kept = steady.upload.borrow().persisted;
    recorded(&cameras, "cam0", kept).await;
    assert_eq!(cameras.stop(CancellationToken::new()).await, 0);
    let (ingest, upload) = (steady.ingest.borrow().clone(), steady.upload.borrow().clone());
    assert_eq!(
        (ingest.dropped_frames, ingest.lost_packets, ingest.reconnects.count(Clock::system().now())),
        (0, 0, 0)
    );
    assert_eq!(sim.stats(0).sessions, 1, "one RTSP session from the first picture to the last");
    assert_eq!((upload.sessions, upload.lost, upload.error_acks), (1, 0, 0));
    assert_eq!(upload.persisted, upload.complete);
    let stored = kvs.fragments("cam0").await.expect("the stream");
    let pictures: u64 = stored.iter().map(|fragment| fragment.blocks).sum();
    assert_eq!(pictures, ingest.frames, "every picture that came is in the cloud");
    for number in [1, 2] {
        let stream = format!("cam{number}");
        assert!(!kvs.fragments(&stream).await.expect("the stream").is_empty(), "{stream}");
    }
}

#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_a_stage_restarts_that_stage_alone_and_loses_nothing_that_is_finished() {
    use kvs_edge::fault::{Stage, arm};

    let sim = CameraSim::builder().clip(ClipSpec::small()).start().await.expect("a camera");
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = Options::new(folder.path()).stream("armed", 24);
    options.credentials = vec![Credentials::local()];
    let kvs = KvsLocal::start(options).await.expect("a server");
    let clock = Clock::system();
    let shared = Shared {
        device: "box".into(),
        client: client(&kvs),
        pulses: Pulses::new(clock.clone()),
        clock,
        analytics: None,
        spool: None,
        proofs: store::Proofs::in_memory().expect("in memory"),
    };
    let mut cameras = Cameras::new(shared);
    let mut armed = config::Camera::new("armed", sim.url(0).parse().expect("a URL"));
    armed.upload.fragment = Duration::from_secs(1);
    armed.verify.mode = config::VerifyMode::Continuous;
    cameras.add(armed).expect("added");
    let view = recorded(&cameras, "armed", 0).await;
    let mut ingest = view.ingest.clone();
    for lives in 2..=3 {
        arm(Stage::Ingest, "armed");
        sim.wait_stats(0, |stats| stats.sessions == lives).await;
        let live = ingest.wait_for(|report| report.state == IngestState::Live && report.problem.is_none());
        tokio::time::timeout(DEADLINE, live).await.expect("in time").expect("it runs");
        let kept = view.upload.borrow().persisted;
        recorded(&cameras, "armed", kept + 1).await;
    }
    let failures = view.verify.borrow().failures;
    arm(Stage::Proof, "armed");
    arm(Stage::Records, "armed");
    let (mut verify, mut upload) = (view.verify.clone(), view.upload.clone());
    let failed = verify.wait_for(|report| report.failures > failures);
    tokio::time::timeout(DEADLINE, failed).await.expect("in time").expect("it runs");
    let kept = upload.borrow_and_update().persisted;
    let more = upload.wait_for(|report| report.persisted > kept + 1);
    tokio::time::timeout(DEADLINE, more).await.expect("in time").expect("it runs");
    assert_eq!(cameras.stop(CancellationToken::new()).await, 0);
    let upload = view.upload.borrow().clone();
    assert_eq!((upload.sessions, upload.crashes, upload.lost), (1, 0, 0), "the upload went on");
    assert_eq!(upload.persisted, upload.complete);
    let stored = kvs.fragments("armed").await.expect("the stream");
    assert_eq!(stored.len() as u64, upload.complete);
    assert_eq!(view.ledger.with(|ledger| ledger.gaps().count()), 0);
}
