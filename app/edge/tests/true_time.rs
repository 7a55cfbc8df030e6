//! A box whose clock is wrong: footage waits for the service's word, and is stored under the true time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use camera_sim::{CameraSim, ClipSpec};
use clock::Clock;
use config::{Aws, Config, Device, Secret};
use health::Reason;
use kvs_edge::app::App;
use kvs_local::{Credentials, KvsLocal, Options};
use tokio_util::sync::CancellationToken;

/// Far beyond what any event takes; a test that reaches it has failed.
const DEADLINE: Duration = Duration::from_secs(60);
/// The service's `Date` has whole seconds, and the way here takes time.
const COARSE: Duration = Duration::from_secs(5);

/// `faults` of the camera; the wall clock of the box begins at `start`.
async fn records_the_true_time(faults: &str, start: SystemTime) {
    let sim = CameraSim::builder().clip(ClipSpec::small()).start().await.expect("a camera");
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options::new(folder.path()).stream("cam0", 24);
    let kvs = KvsLocal::start(options).await.expect("a server");
    let keys = Credentials::local();
    let endpoint = kvs.endpoint().parse().ok();
    let url = format!("{}?{faults}", sim.url(0)).parse().expect("a URL");
    let mut camera = config::Camera::new("cam0", url);
    camera.upload.fragment = Duration::from_secs(1);
    let config = Config {
        device: Device { id: "box".into(), name: None },
        aws: Aws {
            region: kvs.region().to_owned(),
            endpoint: endpoint.clone(),
            data_endpoint: endpoint,
            ca_file: None,
            credentials: config::Credentials::Files {
                access_key_id: Secret::new(&keys.access_key),
                secret_access_key: Secret::new(&keys.secret_key),
                session_token: None,
            },
            proxy: None,
        },
        mqtt: None,
        upload: camera.upload.clone(),
        spool: None,
        verify: camera.verify.clone(),
        health: config::Health::default(),
        detect: None,
        cameras: vec![camera],
        warnings: Vec::new(),
        advice: None,
    };

    let truth = Clock::system();
    let begun = truth.wall();
    let app = App::start_at(config, Clock::simulated(start)).await.expect("it starts");
    let mut status = app.status();
    let boxs_own = |status: &kvs_edge::status::BoxStatus| {
        status
            .problems
            .iter()
            .any(|problem| problem.reason == Reason::BoxClock && problem.found.contains("is off by"))
    };
    tokio::time::timeout(DEADLINE, status.wait_for(|status| boxs_own(status)))
        .await
        .expect("it is told in time that the box's clock is off")
        .expect("it runs");
    let mut upload = app.views()[0].upload.clone();
    tokio::time::timeout(DEADLINE, upload.wait_for(|report| report.persisted >= 3))
        .await
        .expect("footage is kept in time")
        .expect("it runs");
    let camera = app.views()[0].ingest.borrow().clone();
    assert_eq!(camera.clock_problem, None, "the camera is not blamed");
    app.stop("test", CancellationToken::new()).await;

    let stored = kvs.fragments("cam0").await.expect("the stream");
    let times: Vec<_> = stored.iter().map(|f| UNIX_EPOCH + Duration::from_millis(f.producer_ms)).collect();
    let (first, last) = (begun - COARSE, truth.wall() + COARSE);
    assert!(times.iter().all(|time| (first..last).contains(time)), "{times:?}, recorded from {begun:?} on");
    assert_eq!(upload.borrow().lost, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_wakes_up_in_1970_and_its_camera_without_a_clock() {
    records_the_true_time("no_sr", UNIX_EPOCH).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_ten_minutes_ahead_of_everybody() {
    records_the_true_time("", Clock::system().wall() + Duration::from_secs(600)).await;
}
