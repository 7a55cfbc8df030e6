//! Who vouches for the box's wall clock, asked again and again; the clock that everybody has follows the verdict.
//!
//! ```text
//!  systemd-timesyncd: synchronised ---+
//!  Date of the service's answers -----+--> clock::WallJudge --> Clock (trust, correction), problem of the box
//!  cameras with sender reports -------+
//! ```
//!
//! Until somebody vouches, footage is held unstamped (`rtsp::source`) and stamped afterwards. So that somebody does, the
//! service is asked for its time while nobody has, also when nothing is uploaded.

use std::time::{Duration, Instant};

use clock::{Clock, Trust, Verdict, WallJudge, Witness};
use health::{Problem, Reason};
use kvs::api::StreamId;
use kvs_client::Client;
use tokio::sync::watch;

use crate::cameras::Views;

/// Between two judgements.
const LOOK: Duration = Duration::from_secs(1);
/// Between two questions for the service's time while nobody vouches.
const ASK: Duration = Duration::from_secs(5);
/// From the start until a clock that nobody vouches for is worth a word.
const PATIENCE: Duration = Duration::from_secs(15);
/// A wall clock that is off by less is corrected without a word.
const OFF_NOTICE_US: u64 = 2_000_000;

/// What is known of the wall clock.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WallClockReport {
    /// What the system says of it; absent where it says nothing.
    pub synced: Option<bool>,
    /// UTC minus the system's clock, as the witness has it; absent while there is none.
    pub offset_us: Option<i64>,
    pub problem: Option<Problem>,
}

/// Watches over the wall clock.
pub struct WallClock {
    pub clock: Clock,
    pub client: Client,
    pub cameras: watch::Receiver<Views>,
    /// Whether the system says that its clock is disciplined.
    pub synced: fn() -> Option<bool>,
}

impl WallClock {
    /// Until everybody who watches has gone.
    pub async fn run(self, report: watch::Sender<WallClockReport>) {
        let begun = self.clock.now();
        let mut judge = WallJudge::new(begun);
        let mut told: Option<Instant> = None;
        let mut next_ask = begun;
        while !report.is_closed() {
            let synced = (self.synced)();
            judge.system(synced);
            self.ask_service(&mut judge, &mut told);
            self.ask_cameras(&mut judge);
            let verdict = judge.judge(self.clock.reading());
            self.clock.follow(verdict);
            self.tell(&report, synced, verdict, begun);
            if verdict.trust == Trust::Pending && self.clock.now() >= next_ask {
                next_ask = self.clock.now() + ASK;
                self.provoke_answer().await;
            } else {
                self.clock.beat(LOOK).await;
            }
        }
    }

    /// Any answer, a refusal too, tells the service's time.
    async fn provoke_answer(&self) {
        let stream = self.cameras.borrow().first().map(|view| StreamId::name(&view.config.stream));
        let Some(stream) = stream else { return self.clock.beat(LOOK).await };
        let asked = self.client.describe_stream(&stream);
        if tokio::time::timeout(ASK, asked).await.is_err() || self.client.service_time().is_none() {
            self.clock.beat(LOOK).await;
        }
    }

    fn ask_service(&self, judge: &mut WallJudge, told: &mut Option<Instant>) {
        let Some(time) = self.client.service_time().filter(|time| *told != Some(time.observed)) else {
            return;
        };
        *told = Some(time.observed);
        let utc = time.now.checked_sub(self.clock.since(time.observed)).unwrap_or(time.now);
        judge.service(utc, time.error, time.observed);
    }

    fn ask_cameras(&self, judge: &mut WallJudge) {
        let views = self.cameras.borrow().clone();
        judge.retain_cameras(|name| views.iter().any(|view| view.config.id == name));
        for view in views.iter() {
            if let Some((utc, at)) = view.ingest.borrow().camera_time {
                judge.camera(&view.config.id, utc, at);
            }
        }
    }

    fn tell(
        &self,
        report: &watch::Sender<WallClockReport>,
        synced: Option<bool>,
        verdict: Verdict,
        begun: Instant,
    ) {
        let now = self.clock.wall();
        let problem = match verdict.trust {
            Trust::Pending if self.clock.since(begun) >= PATIENCE => Some(
                Problem::new(
                    Reason::BoxClock,
                    "nobody vouches for the clock of the box; footage is held until somebody does",
                    now,
                )
                .fix("let the box reach an NTP server, or the KVS endpoint"),
            ),
            _ if verdict.correction_us.unsigned_abs() > OFF_NOTICE_US => {
                let seconds = -verdict.correction_us / 1_000_000;
                let found = format!(
                    "the clock of the box is off by {seconds} s; footage is stamped with the right time"
                );
                Some(Problem::new(Reason::BoxClock, found, now).fix("let the box reach an NTP server"))
            }
            _ => None,
        };
        let offset_us = (verdict.witness != Witness::Nobody).then_some(verdict.correction_us);
        report.send_if_modified(|before| {
            let problem = problem.map(|problem| problem.again(before.problem.as_ref()));
            let fresh = WallClockReport { synced, offset_us, problem };
            let changed = *before != fresh;
            if changed
                && before.problem.is_none()
                && let Some(problem) = &fresh.problem
            {
                tracing::warn!(error = %problem, "clock of the box");
            }
            *before = fresh;
            changed
        });
    }
}
