//! The branch of one camera: its task, what it is fed with, and what happens when it crashes.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use config::CameraDetect;
use futures_util::FutureExt;
use health::{Problem, Reason};
use media::ClockSource;
use tokio::sync::{broadcast, mpsc, watch};

use crate::FeedItem;
use crate::analysis::Analysis;
use crate::detector::CameraSlot;
use crate::events::Persisted;
use crate::output::{AnalyticsReport, AnnotatedFrame, Output};
use crate::shots::Shots;

/// After a crash of the branch.
const CRASH_DELAY: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(500);

/// Everything that one camera's branch needs, and where it reports.
#[derive(Clone)]
pub struct Branch {
    /// Its id, for logs and names of threads.
    pub camera: String,
    pub detect: CameraDetect,
    /// Name of the GStreamer element that decodes; absent: the best that works.
    pub decoder: Option<String>,
    /// Whether anybody wants JPEGs of the best shots, and the size of the largest one.
    pub wants_jpegs: bool,
    pub jpeg_limit_bytes: usize,
    pub slot: Arc<CameraSlot>,
    pub clock: Clock,
    /// What the camera's producer times rest on at the moment.
    pub clock_source: Arc<dyn Fn() -> ClockSource + Send + Sync>,
    pub report: watch::Sender<AnalyticsReport>,
    pub frames: broadcast::Sender<AnnotatedFrame>,
}

/// What goes into a branch and comes out of it.
pub struct Channels {
    pub feed: mpsc::Receiver<FeedItem>,
    pub persisted: mpsc::Receiver<Persisted>,
    /// When it is full the branch waits; when its receiver is gone, what it would have got is lost.
    pub output: mpsc::Sender<Output>,
}

impl Branch {
    /// Runs until the feed has ended, and the upload has said what it has persisted. A panic in here is nobody else's
    /// concern: the branch begins anew.
    pub async fn supervise(self, mut channels: Channels) {
        loop {
            let run = AssertUnwindSafe(self.clone().run(&mut channels));
            if run.catch_unwind().await.is_ok() {
                return;
            }
            tracing::error!(camera = self.camera, "the analytics branch crashed, beginning anew");
            let problem = Problem::new(
                Reason::Crashed,
                "the analytics branch crashed and begins anew",
                self.clock.wall(),
            );
            self.report.send_modify(|report| report.problem = Some(problem));
            self.clock.sleep(CRASH_DELAY).await;
        }
    }

    async fn run(self, channels: &mut Channels) {
        let clock = self.clock.clone();
        let mut results = self.slot.results();
        let mut detector = self.slot.report();
        let (moving, mut motion) = watch::channel(false);
        let (shots, mut cuts) = Shots::new(self.wants_jpegs, self.jpeg_limit_bytes);
        let mut analysis = Analysis::new(self, moving, shots);
        analysis.detector_changed(&detector.borrow_and_update().clone());
        let mut next_tick = clock.now();
        let (mut feeding, mut uploading) = (true, true);
        while feeding || uploading {
            tokio::select! {
                item = channels.feed.recv(), if feeding => match item {
                    Some(FeedItem::Picture(unit)) => analysis.push(unit),
                    Some(FeedItem::Discontinuity) => analysis.discontinuity(),
                    None => {
                        feeding = false;
                        analysis.finish();
                    }
                },
                Some(detections) = results.recv() => if feeding {
                    analysis.detected(&detections);
                },
                fragment = channels.persisted.recv(), if uploading => match fragment {
                    Some(fragment) => analysis.persisted(fragment),
                    None => uploading = false,
                },
                Some(cut) = cuts.recv() => analysis.cut(cut),
                Ok(()) = motion.changed() => analysis.moving(*motion.borrow_and_update()),
                Ok(()) = detector.changed() => {
                    let report = detector.borrow_and_update().clone();
                    analysis.detector_changed(&report);
                }
                () = clock.sleep_until(next_tick) => {
                    analysis.tick();
                    next_tick = clock.now() + TICK;
                }
            }
            for output in analysis.outputs.drain(..) {
                // Nobody listens any more: the camera is being stopped.
                let _ = channels.output.send(output).await;
            }
            analysis.handed_over();
        }
    }
}
