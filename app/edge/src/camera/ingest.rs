//! Reads the camera, and goes on after a crash: for those behind it that is a break like any other.

use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use health::{Backoff, Problem, Reason};
use media::Feed;
use rtsp::Timeline;
use rtsp::source::{self, IngestReport, IngestState};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::fanout::Fanout;
use crate::fault::{self, Stage};

/// Everything that reading one camera needs from outside; each new life of it gets a clone.
#[derive(Clone)]
pub(super) struct Ingest {
    pub(super) camera: Arc<config::Camera>,
    pub(super) report: watch::Sender<IngestReport>,
    pub(super) clock: Clock,
    /// Stamps go on where they were.
    pub(super) timeline: Arc<Mutex<Timeline>>,
}

/// Where pictures go, over all lives.
struct Exit {
    fanout: Fanout,
    /// What was fed before the crash ends here; nothing may overtake that word.
    owes_break: bool,
}

impl Exit {
    fn send(&mut self, item: Feed) -> bool {
        self.pay() && self.fanout.send(item)
    }

    fn pay(&mut self) -> bool {
        if self.owes_break {
            self.owes_break = !self.fanout.send(Feed::Break);
        }
        !self.owes_break
    }
}

impl Ingest {
    /// Until `cancel`. A crash costs the pictures up to the next random access point behind a reconnection: what was recorded
    /// is finished at once, and goes on to disk and KVS.
    pub(super) async fn supervise(self, fanout: Fanout, cancel: CancellationToken) {
        let exit = Arc::new(Mutex::new(Exit { fanout, owes_break: false }));
        let minute = Duration::from_secs(60);
        let mut backoff = Backoff::new(Duration::from_secs(1), minute, minute);
        loop {
            backoff.up(self.clock.now());
            let mut life = JoinSet::new();
            life.spawn(self.clone().run(exit.clone(), cancel.clone()));
            let Some(Err(crash)) = life.join_next().await else { return };
            {
                let mut exit = exit.lock().await;
                exit.owes_break = true;
                exit.pay();
            }
            let delay = backoff.failed(self.clock.now(), rand::random());
            tracing::error!(camera = self.camera.id, error = %crash, "reading the camera crashed, it begins anew");
            self.tell(&crash.to_string());
            if cancel.run_until_cancelled(self.clock.sleep(delay)).await.is_none() {
                return;
            }
        }
    }

    async fn run(self, exit: Arc<Mutex<Exit>>, cancel: CancellationToken) {
        let (mut exit, mut timeline) = (exit.lock().await, self.timeline.lock().await);
        let feed = |item| {
            fault::panic_point(Stage::Ingest, &self.camera.id);
            exit.send(item)
        };
        source::run(&self.camera, feed, &mut timeline, self.report.clone(), self.clock.clone(), cancel).await;
    }

    fn tell(&self, crash: &str) {
        let wall = self.clock.wall();
        let found = format!("reading the camera crashed: {crash}");
        let problem =
            Problem::new(Reason::Crashed, found, wall).fix("report it, with the log of this moment");
        self.report.send_modify(|report| {
            (report.state, report.since) = (IngestState::BackingOff, wall);
            report.problem = Some(problem);
            report.attempts += 1;
        });
    }
}
