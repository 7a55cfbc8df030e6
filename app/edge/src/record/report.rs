//! What one upload tells of itself.

use std::time::{Duration, SystemTime};

use health::{Problem, Reason, Recent};
use kvs::FragmentNumber;
use kvs::ledger::{Ledger, LossReason};
use kvs::upload::{Backlog, Failure};
use media::ProducerTimestamp;

pub use kvs::upload::UploadState;

/// Where one camera's upload stands; counters run since start. Gaps stand in the ledger.
#[derive(Clone, Debug)]
pub struct UploadReport {
    pub state: UploadState,
    pub since: SystemTime,
    pub problem: Option<Problem>,
    /// The uplink carries less than the camera delivers: nothing breaks, and the backlog grows.
    pub slow_link: Option<Problem>,
    /// KVS does not say of some fragments whether it has them: they wait on disk, and the others go on.
    pub in_doubt: Option<Problem>,
    /// Fragments completed by the fragmenter.
    pub complete: u64,
    pub persisted: u64,
    pub lost: u64,
    pub sessions: u64,
    pub error_acks: u64,
    /// Connections that failed or could not be opened.
    pub failures: u64,
    /// Of the clusters that are persisted; and their blocks.
    pub persisted_bytes: u64,
    pub persisted_frames: u64,
    pub last_persisted: Option<(ProducerTimestamp, Option<FragmentNumber>)>,
    pub ack_delay: Option<Duration>,
    pub backlog: Backlog,
    /// End of the newest complete fragment, producer time.
    pub newest: Option<ProducerTimestamp>,
    pub reconnects: Recent,
    pub forced_cuts: u64,
    /// Crashes of the upload itself.
    pub crashes: u64,
}

impl UploadReport {
    pub fn new(now: SystemTime) -> Self {
        Self {
            state: UploadState::Idle,
            since: now,
            problem: None,
            slow_link: None,
            in_doubt: None,
            complete: 0,
            persisted: 0,
            lost: 0,
            sessions: 0,
            error_acks: 0,
            failures: 0,
            persisted_bytes: 0,
            persisted_frames: 0,
            last_persisted: None,
            ack_delay: None,
            backlog: Backlog::default(),
            newest: None,
            reconnects: Recent::hour(),
            forced_cuts: 0,
            crashes: 0,
        }
    }

    /// Takes the counts over from the ledger, which outlives the upload.
    pub(super) fn count(&mut self, ledger: &Ledger) {
        let counts = ledger.counts();
        (self.complete, self.persisted, self.lost) = (counts.complete, counts.persisted, counts.lost);
    }

    pub(super) fn enter(&mut self, state: UploadState, now: SystemTime) {
        if self.state != state {
            (self.state, self.since) = (state, now);
        }
    }

    /// The most telling of what is wrong.
    pub fn told(&self) -> Option<&Problem> {
        self.problem.as_ref().or(self.slow_link.as_ref()).or(self.in_doubt.as_ref())
    }

    pub(super) fn in_doubt(&mut self, parked: usize, now: SystemTime) {
        let found = format!("KVS does not say of {parked} fragments whether it has them");
        let fix = "allow this box kinesisvideo:ListFragments on the stream; they wait on disk, and are sent once it is known";
        let problem = (parked > 0).then(|| Problem::new(Reason::UploadFailed, found, now).fix(fix));
        self.in_doubt = problem.map(|problem| problem.again(self.in_doubt.as_ref()));
    }

    pub(super) fn slow_link(&mut self, found: Option<String>, now: SystemTime) {
        let fix = "give this box more uplink, or lower the camera's bit rate; where uplink_max_kbps is set, raise it";
        let problem = found.map(|found| Problem::new(Reason::SlowLink, found, now).fix(fix));
        self.slow_link = problem.map(|problem| problem.again(self.slow_link.as_ref()));
    }

    pub(super) fn fail(&mut self, failure: &Failure, now: SystemTime) {
        let mut problem = Problem::new(failure.reason, failure.text.clone(), now);
        problem.fix.clone_from(&failure.fix);
        self.problem = Some(problem.again(self.problem.as_ref()));
    }

    /// Why KVS could not be reached says more than that the window is full.
    pub(super) fn lose(&mut self, reason: &LossReason, because: Option<&str>, now: SystemTime) {
        if matches!(reason, LossReason::WindowFull | LossReason::SpoolFull) && self.problem.is_some() {
            return;
        }
        let found = because.map_or(reason.to_string(), |because| format!("{reason}: {because}"));
        let problem = Problem::new(reason_of_loss(reason), found, now);
        self.problem = Some(problem.again(self.problem.as_ref()));
    }
}

/// What dashboards call it.
pub fn reason_of_loss(reason: &LossReason) -> Reason {
    match reason {
        LossReason::WindowFull | LossReason::SpoolFull => Reason::BacklogFull,
        LossReason::SpoolDamaged => Reason::DiskFailed,
        LossReason::Refused(_) => Reason::FragmentRefused,
        LossReason::Crashed => Reason::Crashed,
        LossReason::Stopped => Reason::Stopping,
    }
}
