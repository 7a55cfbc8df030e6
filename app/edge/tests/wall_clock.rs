//! The wall clock of a box, and who vouches for it: on paused time, with kvs-local in memory.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clock::{Clock, Trust};
use health::Reason;
use kvs_client::{Client, Config, Endpoints, SharedDialler, static_credentials};
use kvs_edge::camera::CameraView;
use kvs_edge::cameras::Views;
use kvs_edge::record::proof::ProofReport;
use kvs_edge::record::{SharedLedger, UploadReport};
use kvs_edge::wall_clock::{WallClock, WallClockReport};
use kvs_local::{Credentials, KvsLocal, Options};
use rtsp::source::IngestReport;
use tokio::sync::watch;

const UTC: Duration = Duration::from_secs(1_795_186_073);

struct Rig {
    /// The box's.
    clock: Clock,
    /// The service's, which is right.
    right: Clock,
    /// Whether the network is there.
    online: Arc<AtomicBool>,
    report: watch::Receiver<WallClockReport>,
    _cameras: watch::Sender<Views>,
    _kvs: KvsLocal,
    _folder: tempfile::TempDir,
}

impl Rig {
    async fn new(box_wall: SystemTime, online: bool, synced: fn() -> Option<bool>) -> Rig {
        let (clock, right) = (Clock::simulated(box_wall), Clock::simulated(UNIX_EPOCH + UTC));
        clock.set_trust(Trust::Pending);
        let folder = tempfile::tempdir().expect("a folder");
        let mut options = Options::new(folder.path()).stream("gate", 24);
        options.credentials = vec![Credentials::local()];
        options.clock = right.clone();
        let kvs = KvsLocal::start_in_memory(options).await.expect("a server");
        let online = Arc::new(AtomicBool::new(online));
        let keys = Credentials::local();
        let mut config =
            Config::new(kvs.region(), static_credentials(&keys.access_key, &keys.secret_key, None));
        let endpoint = kvs.endpoint().parse().ok();
        config.endpoints =
            Endpoints { control: endpoint.clone(), media: endpoint.clone(), archived: endpoint };
        config.clock = clock.clone();
        let (connector, there) = (kvs.connector(), online.clone());
        config.dialler = SharedDialler::from_fn(move |_, _| {
            let stream = match there.load(Ordering::Relaxed) {
                true => connector.connect(64 << 10),
                false => Err(io::ErrorKind::NetworkUnreachable.into()),
            };
            async move { stream }
        });
        let url = "rtsp://192.0.2.10/stream1".parse().expect("a URL");
        let view = CameraView {
            config: Arc::new(config::Camera::new("gate", url)),
            ingest: watch::channel(IngestReport::new(box_wall)).1,
            upload: watch::channel(UploadReport::new(SystemTime::UNIX_EPOCH)).1,
            ledger: SharedLedger::default(),
            orders: Default::default(),
            verify: watch::channel(ProofReport::new(SystemTime::UNIX_EPOCH)).1,
            records: watch::channel(Default::default()).1,
            analytics: None,
        };
        let (cameras, views) = watch::channel(Views::new(vec![view]));
        let client = Client::new(config).expect("a client");
        let keeper = WallClock { clock: clock.clone(), client, cameras: views, synced };
        let (sender, report) = watch::channel(WallClockReport::default());
        tokio::spawn(keeper.run(sender));
        Rig { clock, right, online, report, _cameras: cameras, _kvs: kvs, _folder: folder }
    }

    /// How far the box's corrected clock is from the right time.
    fn error(&self) -> Duration {
        let (ours, right) = (self.clock.wall(), self.right.wall());
        ours.duration_since(right).or_else(|_| right.duration_since(ours)).expect("one of them is later")
    }

    async fn trusted(&mut self) {
        while self.clock.trust() != Trust::Trusted {
            self.clock.sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_box_that_booted_in_1970_learns_the_time_from_the_service() {
    let mut rig = Rig::new(UNIX_EPOCH + Duration::from_secs(7), true, || None).await;
    rig.trusted().await;
    assert!(rig.error() < Duration::from_secs(2), "{:?}", rig.error());
    let report = rig.report.wait_for(|report| report.problem.is_some()).await.expect("it runs").clone();
    let problem = report.problem.clone().expect("waited for");
    assert_eq!(problem.reason, Reason::BoxClock);
    assert!(problem.found.contains("is off by -1795186066 s"), "{problem}");
    assert!(report.offset_us.is_some_and(|us| us.unsigned_abs() > 1_795_000_000_000_000), "{report:?}");
    // Whoever sets the clock right ends it.
    rig.clock.step_to(rig.right.wall());
    rig.report.wait_for(|report| report.problem.is_none()).await.expect("it runs");
    assert!(rig.error() < Duration::from_secs(2));
    assert_eq!(rig.clock.trust(), Trust::Trusted);
}

#[tokio::test(start_paused = true)]
async fn a_box_that_nobody_vouches_for_waits_and_says_so() {
    let mut rig = Rig::new(UNIX_EPOCH + UTC, false, || Some(false)).await;
    let report = rig.report.wait_for(|report| report.problem.is_some()).await.expect("it runs").clone();
    let problem = report.problem.expect("waited for");
    assert!(problem.to_string().contains("nobody vouches for the clock"), "{problem}");
    assert_eq!((rig.clock.trust(), report.synced, report.offset_us), (Trust::Pending, Some(false), None));
    rig.online.store(true, Ordering::Relaxed);
    rig.trusted().await;
    rig.report.wait_for(|report| report.problem.is_none()).await.expect("it runs");
}

#[tokio::test(start_paused = true)]
async fn a_disciplined_clock_needs_no_network() {
    let mut rig = Rig::new(UNIX_EPOCH + UTC, false, || Some(true)).await;
    rig.trusted().await;
    rig.clock.sleep(Duration::from_secs(60)).await;
    let report = rig.report.borrow().clone();
    assert_eq!((report.synced, report.offset_us, report.problem), (Some(true), Some(0), None));
}
