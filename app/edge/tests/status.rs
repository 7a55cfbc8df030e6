//! How the box judges a camera by what its stages report, on paused time.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use clock::Clock;
use health::{CameraState, Problem, Reason};
use kvs::proof::schedule::Verdict;
use kvs_edge::camera::CameraView;
use kvs_edge::cameras::Views;
use kvs_edge::record::proof::ProofReport;
use kvs_edge::record::{SharedLedger, UploadReport, UploadState};
use kvs_edge::status::{BoxStatus, CameraStatus, Judge};
use kvs_edge::wall_clock::WallClockReport;
use media::ProducerTimestamp;
use rtsp::source::{IngestReport, IngestState};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Longer than from one look to the next.
const NOTICED: Duration = Duration::from_secs(1);

/// A camera whose reports the test writes, and what the box makes of them.
struct Rig {
    clock: Clock,
    ingest: watch::Sender<IngestReport>,
    upload: watch::Sender<UploadReport>,
    proof: watch::Sender<ProofReport>,
    status: watch::Receiver<Arc<BoxStatus>>,
    _views: watch::Sender<Views>,
    _judge: JoinSet<()>,
}

impl Rig {
    /// A camera that is live.
    fn start() -> Rig {
        let clock = Clock::simulated(UNIX_EPOCH + Duration::from_secs(1_795_187_314));
        let (ingest, ingest_view) = watch::channel(IngestReport::new(clock.wall()));
        let (upload, upload_view) = watch::channel(UploadReport::new(clock.wall()));
        let (proof, verify) = watch::channel(ProofReport::new(clock.wall()));
        ingest.send_modify(|report| report.state = IngestState::Live);
        upload.send_modify(|report| report.state = UploadState::Sending);
        let url = "rtsp://192.0.2.10/stream1".parse().expect("a URL");
        let view = CameraView {
            config: Arc::new(config::Camera::new("gate", url)),
            ingest: ingest_view,
            upload: upload_view,
            ledger: SharedLedger::default(),
            orders: Default::default(),
            verify,
            records: watch::channel(Default::default()).1,
            analytics: None,
        };
        let (views, views_out) = watch::channel(Views::new(vec![view]));
        let wall_clock = watch::channel(WallClockReport::default()).1;
        let judge = Judge::new(views_out, None, wall_clock, clock.clone(), CancellationToken::new());
        let (status, status_out) = watch::channel(Arc::default());
        let mut judging = JoinSet::new();
        judging.spawn(judge.run(status));
        Rig { clock, ingest, upload, proof, status: status_out, _views: views, _judge: judging }
    }

    async fn look(&self) -> CameraStatus {
        self.clock.sleep(NOTICED).await;
        self.status.borrow().cameras[0].clone()
    }

    /// The state, and the reasons of all failing checks, the most telling first.
    async fn expect(&self, state: CameraState, reasons: &[Reason], what: &str) {
        let status = self.look().await;
        let found: Vec<_> = status.health.checks.iter().map(|check| check.reason).collect();
        assert_eq!((status.health.state, &found[..]), (state, reasons), "{what}");
        assert_eq!(status.health.problem.map(|problem| problem.reason), reasons.first().copied(), "{what}");
    }

    fn problem(&self, reason: Reason) -> Option<Problem> {
        Some(Problem::new(reason, "found", self.clock.wall()))
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_fails_degrades_its_camera_until_it_goes_on() {
    use CameraState::{Degraded, Online};
    let rig = Rig::start();
    rig.expect(Online, &[], "all is well").await;
    for (state, reason) in [
        (UploadState::BackingOff, Reason::UploadFailed),
        (UploadState::Failed, Reason::StreamMissing),
        (UploadState::Failed, Reason::Credentials),
    ] {
        rig.upload.send_modify(|report| (report.state, report.problem) = (state, rig.problem(reason)));
        rig.expect(Degraded, &[reason], "it does not send").await;
        let status = rig.look().await;
        assert_eq!((status.upload, status.upload_problem), (state, Some(reason)));
    }
    // It sends again; its last problem is told until the backlog is gone, and weighs only while that is long.
    let at = ProducerTimestamp::from_millis;
    rig.upload.send_modify(|report| {
        (report.state, report.problem) = (UploadState::Sending, rig.problem(Reason::BacklogFull));
        (report.backlog.oldest, report.newest) = (Some(at(10_000)), Some(at(50_000)));
    });
    rig.expect(Degraded, &[Reason::BacklogFull], "forty seconds behind").await;
    rig.upload.send_modify(|report| report.backlog.oldest = Some(at(40_000)));
    rig.expect(Online, &[], "ten seconds behind").await;
}

#[tokio::test(start_paused = true)]
async fn footage_that_is_not_proven_degrades_its_camera_until_it_is() {
    use CameraState::{Degraded, Online};
    let rig = Rig::start();
    let prove = |verdict, reason: Option<Reason>, needs_somebody| {
        rig.proof.send_modify(|report| {
            report.verdict = verdict;
            report.problem = reason.and_then(|reason| rig.problem(reason));
            report.needs_somebody = needs_somebody;
        });
    };
    prove(Verdict::Mismatch, Some(Reason::VerifyMismatch), false);
    rig.expect(Degraded, &[Reason::VerifyMismatch], "other bytes").await;
    let status = rig.look().await;
    assert_eq!((status.verdict, status.verify_problem), (Verdict::Mismatch, Some(Reason::VerifyMismatch)));
    prove(Verdict::Late, Some(Reason::VerifyLate), false);
    rig.expect(Degraded, &[Reason::VerifyLate], "not in time").await;
    prove(Verdict::Ok, Some(Reason::VerifyFailed), false);
    rig.expect(Online, &[], "one attempt failed, and nothing is late").await;
    prove(Verdict::Ok, Some(Reason::VerifyFailed), true);
    rig.expect(Degraded, &[Reason::VerifyFailed], "a permission is missing").await;
    prove(Verdict::Ok, None, false);
    rig.expect(Online, &[], "all is proven").await;
}

#[tokio::test(start_paused = true)]
async fn the_upload_is_told_before_its_proof_and_a_camera_without_pictures_before_both() {
    let rig = Rig::start();
    rig.upload.send_modify(|report| {
        (report.state, report.problem) = (UploadState::BackingOff, rig.problem(Reason::UploadFailed));
    });
    rig.proof.send_modify(|report| {
        (report.verdict, report.problem) = (Verdict::Late, rig.problem(Reason::VerifyLate));
    });
    let both = [Reason::UploadFailed, Reason::VerifyLate];
    rig.expect(CameraState::Degraded, &both, "the cause before the effect").await;
    let began = rig.look().await.health.checks[0].since;
    rig.ingest.send_modify(|report| {
        (report.state, report.problem) = (IngestState::BackingOff, rig.problem(Reason::Stalled));
    });
    let all = [Reason::Stalled, Reason::UploadFailed, Reason::VerifyLate];
    rig.expect(CameraState::Offline, &all, "no pictures").await;
    assert_eq!(rig.look().await.health.checks[1].since, began, "a problem that lasts keeps its beginning");
}
