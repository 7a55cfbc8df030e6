//! The state of the box, judged in one place and watched by all outputs.
//!
//! ```text
//!  reports of the stages --> facts of a camera --health::judge--> BoxStatus --watch--> MQTT, page, metrics, commands
//!  broker, clock ----------> problems of the box ----------------^
//! ```
//!
//! The reports change with each picture, so they are looked at twice a second and not waited for, except for the state of
//! a camera's pictures, which is told at once; outputs wake only when the judgement changes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clock::Clock;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use health::{CameraFacts, CameraHealth, Pictures, Problem, Reason};
use mqtt::MqttHandle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::camera::CameraView;
use crate::cameras::Views;
use crate::record::proof::ProofReport;
use crate::record::{UploadReport, UploadState};
use crate::wall_clock::WallClockReport;
use kvs::proof::schedule::Verdict;
use rtsp::source::{IngestReport, IngestState};

/// How soon a change is noticed that nobody tells of.
const LOOK: Duration = Duration::from_millis(500);
/// A camera clock further off than this is worth a word.
const CLOCK_NOTICE_US: i64 = 1_000_000;
/// A camera's clock that is no further from the box's uncorrected one shows the same time.
const SAME_CLOCK_US: u64 = 10_000_000;
/// Lost packets are worth a word for this long.
const LOSS_NOTICE: Duration = Duration::from_secs(30);
/// Footage older than this that is not persisted makes the camera degraded.
const BACKLOG_NOTICE: Duration = Duration::from_secs(30);
const FIX_GOP: &str = "set a GOP of 1 to 4 s in the camera";
const FIX_CAMERA_CLOCK: &str = "set NTP in the camera";

/// The box and its cameras now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BoxStatus {
    /// In the order of the configuration.
    pub cameras: Vec<CameraStatus>,
    /// What is wrong with the box itself.
    pub problems: Vec<Problem>,
    pub wall_clock: WallClockReport,
    /// The daemon is being stopped.
    pub stopping: bool,
}

/// One camera now.
#[derive(Clone, Debug, PartialEq)]
pub struct CameraStatus {
    pub id: String,
    pub health: CameraHealth,
    /// When `health.state` began.
    pub since: SystemTime,
    /// Failed attempts to connect to the camera since its last picture, as of the same look as `health`.
    pub attempts: u32,
    pub upload: UploadState,
    pub upload_problem: Option<Reason>,
    pub fragments_lost: u64,
    pub verdict: Verdict,
    pub verify_problem: Option<Reason>,
    /// Number of the newest proof record.
    pub record: Option<u64>,
}

/// Judges again and again.
pub struct Judge {
    cameras: watch::Receiver<Views>,
    mqtt: Option<MqttHandle>,
    wall_clock: watch::Receiver<WallClockReport>,
    /// Of the spool.
    disk: Option<watch::Receiver<Option<Problem>>>,
    clock: Clock,
    stopping: CancellationToken,
    /// Of the last look.
    before: BoxStatus,
    /// Likewise, in the order of the views.
    pictures: Vec<IngestState>,
}

impl Judge {
    /// `stopping` fires when the daemon begins to stop.
    pub fn new(
        cameras: watch::Receiver<Views>,
        mqtt: Option<MqttHandle>,
        wall_clock: watch::Receiver<WallClockReport>,
        clock: Clock,
        stopping: CancellationToken,
    ) -> Self {
        let (before, pictures) = (BoxStatus::default(), Vec::new());
        let disk = None;
        Self { cameras, mqtt, wall_clock, disk, clock, stopping, before, pictures }
    }

    /// With what the spool says of its disk.
    #[must_use]
    pub fn disk(mut self, disk: Option<watch::Receiver<Option<Problem>>>) -> Self {
        self.disk = disk;
        self
    }

    /// Until everybody who watches has gone.
    pub async fn run(mut self, status: watch::Sender<Arc<BoxStatus>>) {
        while !status.is_closed() {
            let now = self.look();
            status.send_if_modified(|before| {
                let changed = **before != now;
                if changed {
                    *before = Arc::new(now);
                }
                changed
            });
            let views = self.cameras.borrow().clone();
            let looked_at = views.iter().map(|view| view.ingest.clone()).zip(self.pictures.drain(..));
            tokio::select! {
                () = self.clock.beat(LOOK) => {}
                () = change_of_pictures(looked_at.collect()) => {}
                () = self.stopping.cancelled(), if !self.before.stopping => {}
                () = status.closed() => return,
                _ = self.cameras.changed() => {}
            }
        }
    }

    fn look(&mut self) -> BoxStatus {
        // Once for all: who reads `stopping` finds every camera stopping.
        let stopping = self.stopping.is_cancelled();
        let views = self.cameras.borrow_and_update().clone();
        let now = self.clock.wall();
        // Before they are judged: what changes meanwhile is looked at again.
        self.pictures = views.iter().map(|view| view.ingest.borrow().state).collect();
        let cameras = views.iter().map(|view| self.look_at(view, stopping, now)).collect();
        let wall_clock = self.wall_clock.borrow().clone();
        let broker = self.mqtt.as_ref().and_then(MqttHandle::problem);
        let disk = self.disk.as_ref().and_then(|disk| disk.borrow().clone());
        let problems = [wall_clock.problem.clone(), disk, broker].into_iter().flatten().collect();
        self.before = BoxStatus { cameras, problems, wall_clock, stopping };
        self.before.clone()
    }

    fn look_at(&self, view: &CameraView, stopping: bool, now: SystemTime) -> CameraStatus {
        let id = view.config.id.clone();
        let before = self.before.cameras.iter().find(|camera| camera.id == id);
        let ingest = view.ingest.borrow();
        let mut health = health::judge(self.facts(view, &ingest, stopping, now), now);
        let began = |problem: Problem| {
            let checks = before.map(|before| before.health.checks.as_slice()).unwrap_or_default();
            let same = checks.iter().find(|check| check.reason == problem.reason);
            problem.again(same)
        };
        health.checks = health.checks.into_iter().map(began).collect();
        health.problem = health.problem.map(began);
        let since = match before {
            Some(before) if before.health.state == health.state => before.since,
            Some(_) => now,
            // Ingest knows since when.
            None => ingest.since,
        };
        let (upload, verify) = (view.upload.borrow(), view.verify.borrow());
        CameraStatus {
            id,
            health,
            since,
            attempts: ingest.attempts,
            upload: upload.state,
            upload_problem: upload.told().map(|problem| problem.reason),
            fragments_lost: upload.lost,
            verdict: verify.verdict,
            verify_problem: verify.problem.as_ref().map(|problem| problem.reason),
            record: view.records.borrow().last.as_ref().map(|last| last.head.n),
        }
    }

    /// What the stages of a camera say.
    fn facts(
        &self,
        view: &CameraView,
        ingest: &IngestReport,
        stopping: bool,
        now: SystemTime,
    ) -> CameraFacts {
        let (upload, verify) = (view.upload.borrow(), view.verify.borrow());
        let pictures = match ingest.state {
            IngestState::Live => Pictures::Live,
            IngestState::WaitingForKey => match self.long_wait(view, ingest, now) {
                Some(problem) => Pictures::Waiting(problem),
                None => Pictures::None(ingest.problem.clone()),
            },
            _ => Pictures::None(ingest.problem.clone()),
        };
        let live = ingest.state == IngestState::Live;
        let as_wrong_as_we = self.is_as_wrong_as_we(ingest);
        let recorded = [
            upload_problem(&upload),
            upload.slow_link.clone(),
            upload.in_doubt.clone(),
            verify_problem(&verify),
            view.records.borrow().problem.clone(),
            self.recent_loss(ingest),
            ingest.clock_problem.clone().filter(|_| !as_wrong_as_we),
            long_gop(view, ingest, &upload, now),
        ];
        let detection = view.analytics.as_ref().filter(|_| live);
        let detection = detection.and_then(|analytics| analytics.report.borrow().problem.clone());
        CameraFacts {
            enabled: view.config.enabled,
            stopping,
            pictures,
            problems: recorded.into_iter().chain([detection]).flatten().collect(),
            notices: camera_skew(ingest, now).filter(|_| !as_wrong_as_we).into_iter().collect(),
        }
    }

    /// Our clock is corrected, and the camera has the same time as we without that: it took it from us, or from where we took
    /// ours. That is one problem, and the box has it.
    fn is_as_wrong_as_we(&self, ingest: &IngestReport) -> bool {
        let correction_us = self.wall_clock.borrow().offset_us.unwrap_or(0);
        let from_ours = ingest.clock_offset_us.map(|offset_us| offset_us.saturating_add(correction_us));
        correction_us != 0 && from_ours.is_some_and(|us| us.unsigned_abs() <= SAME_CLOCK_US)
    }

    /// Pictures arrive, but only the next random access point can be recorded.
    fn long_wait(&self, view: &CameraView, ingest: &IngestReport, now: SystemTime) -> Option<Problem> {
        let waited = now.duration_since(ingest.since).unwrap_or_default();
        let is_long = waited > view.config.upload.fragment_max;
        let arrive = ingest.last_frame.is_some_and(|last| last > ingest.since);
        let found = "pictures arrive, but no key frame to begin with";
        let long = || Problem::new(Reason::LongGop, found, now).fix(FIX_GOP);
        self.recent_loss(ingest).or((is_long && arrive).then(long))
    }

    fn recent_loss(&self, ingest: &IngestReport) -> Option<Problem> {
        let loss = ingest.loss.as_ref().filter(|loss| self.clock.since(loss.at) < LOSS_NOTICE)?;
        Some(loss.problem.clone())
    }
}

/// Waits until the state of a camera's pictures is another one than it was.
async fn change_of_pictures(cameras: Vec<(watch::Receiver<IngestReport>, IngestState)>) {
    let change = |(mut ingest, before): (watch::Receiver<IngestReport>, IngestState)| async move {
        ingest.wait_for(|report| report.state != before).await.is_ok()
    };
    let mut changes: FuturesUnordered<_> = cameras.into_iter().map(change).collect();
    while let Some(changed) = changes.next().await {
        if changed {
            return;
        }
    }
    std::future::pending().await
}

fn upload_problem(upload: &UploadReport) -> Option<Problem> {
    let failing = matches!(upload.state, UploadState::BackingOff | UploadState::Failed);
    upload.problem.clone().filter(|_| failing || backlog(upload) > BACKLOG_NOTICE)
}

fn verify_problem(verify: &ProofReport) -> Option<Problem> {
    let weighs = matches!(verify.verdict, Verdict::Late | Verdict::Mismatch) || verify.needs_somebody;
    verify.problem.clone().filter(|_| weighs)
}

/// Off, and used all the same.
fn camera_skew(ingest: &IngestReport, now: SystemTime) -> Option<Problem> {
    let skew_us = ingest.clock_offset_us?;
    let notable = skew_us.checked_abs().is_none_or(|skew_us| skew_us > CLOCK_NOTICE_US);
    let found = format!("the camera's clock is off by {} ms", skew_us / 1000);
    notable.then(|| Problem::new(Reason::CameraClock, found, now).fix(FIX_CAMERA_CLOCK))
}

fn long_gop(
    view: &CameraView,
    ingest: &IngestReport,
    upload: &UploadReport,
    now: SystemTime,
) -> Option<Problem> {
    let longest_ms = view.config.upload.fragment_max.as_millis();
    let is_long = upload.forced_cuts > 0 && ingest.gop_ms.is_none_or(|ms| u128::from(ms) > longest_ms);
    let found = "key frames are further apart than a fragment may be long";
    is_long.then(|| Problem::new(Reason::LongGop, found, now).fix(FIX_GOP))
}

/// Producer time between the oldest fragment that is not persisted and the newest.
pub fn backlog(upload: &UploadReport) -> Duration {
    let (Some(oldest), Some(newest)) = (upload.backlog.oldest, upload.newest) else { return Duration::ZERO };
    Duration::from_millis(newest.as_millis().saturating_sub(oldest.as_millis()))
}
