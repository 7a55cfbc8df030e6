//! The analytics branch of one camera, with what publishes its results.

use std::sync::Arc;

use analytics::detector::{CameraDemand, FiguresView};
use analytics::{AnalyticsReport, AnnotatedFrame, Branch, Channels, DetectorHandle, Persisted};
use kvs::ledger::{Change, Entry};
use media::ClockSource;
use messages::Topics;
use mqtt::MqttHandle;
use rtsp::source::IngestReport;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::fanout::Fanout;
use crate::publish::{AnalyticsPublisher, Origin, Sequence};
use crate::record::{AroundEvents, SharedLedger};

/// What the analytics branches of all cameras share.
#[derive(Clone)]
pub struct AnalyticsShared {
    pub settings: config::Detect,
    pub detector: DetectorHandle,
    pub sequence: Sequence,
    pub mqtt: Option<MqttHandle>,
    pub topics: Topics,
    pub region: String,
}

/// What others see of a camera's analytics branch.
#[derive(Clone)]
pub struct AnalyticsView {
    pub report: watch::Receiver<AnalyticsReport>,
    /// Access units that the branch had no room for.
    pub left_out: watch::Receiver<u64>,
    pub figures: FiguresView,
    /// To draw what is found.
    pub frames: broadcast::Sender<AnnotatedFrame>,
}

/// The branch as one camera has it while it is enabled; its place at the detector is given up with it.
pub(super) struct Detection {
    branch: Branch,
    left_out: watch::Sender<u64>,
    publisher: AnalyticsPublisher,
}

impl Detection {
    /// `None`: nothing is to be detected.
    pub(super) fn new(
        camera: &config::Camera,
        rank: usize,
        ingest: watch::Receiver<IngestReport>,
        around: Option<AroundEvents>,
        shared: &Shared,
    ) -> Option<(Self, AnalyticsView)> {
        let (detect, analytics) = camera.detect.clone().zip(shared.analytics.as_ref())?;
        let (report, report_view) = watch::channel(AnalyticsReport::default());
        let (left_out, left_out_view) = watch::channel(0);
        let frames = analytics::annotated_frames();
        let settings = &analytics.settings;
        let slot = analytics.detector.add(CameraDemand::new(&camera.id, rank, &detect));
        let view = AnalyticsView {
            report: report_view,
            left_out: left_out_view,
            figures: slot.figures(),
            frames: frames.clone(),
        };
        let publisher = AnalyticsPublisher {
            origin: Origin {
                device: shared.device.clone(),
                camera: camera.id.clone(),
                stream: camera.stream.clone(),
                region: analytics.region.clone(),
            },
            mqtt: analytics.mqtt.clone(),
            topics: analytics.topics.clone(),
            sequence: analytics.sequence.clone(),
            snapshots: detect.snapshots,
            motion: detect.motion,
            records: settings.events_folder.clone().map(|folder| (folder, settings.events_keep)),
            clock: shared.clock.clone(),
            around,
        };
        let branch = Branch {
            camera: camera.id.clone(),
            wants_jpegs: detect.snapshots || settings.events_folder.is_some(),
            jpeg_limit_bytes: mqtt::BODY_LIMIT_BYTES,
            detect,
            decoder: settings.decoder.clone(),
            slot: Arc::new(slot),
            clock: shared.clock.clone(),
            clock_source: Arc::new(move || ingest.borrow().clock.unwrap_or(ClockSource::Receive)),
            report,
            frames,
        };
        Some((Self { branch, left_out, publisher }, view))
    }

    /// Starts the branch and its publisher among the camera's `stages`. Returns the fan-out that feeds it, and where it is to
    /// be told which fragments KVS has.
    pub(super) fn start(
        &self,
        fanout: Fanout,
        stages: &mut JoinSet<usize>,
        abort: &CancellationToken,
    ) -> (Fanout, mpsc::Sender<Persisted>) {
        let (feed, feed_out) = mpsc::channel(analytics::FEED_PLACES);
        let (output, output_out) = mpsc::channel(analytics::OUTPUT_PLACES);
        let (persisted, persisted_out) = mpsc::channel(analytics::PERSISTED_PLACES);
        let channels = Channels { feed: feed_out, persisted: persisted_out, output };
        let (branch, cancel) = (self.branch.clone(), abort.clone());
        stages.spawn(async move {
            cancel.run_until_cancelled(branch.supervise(channels)).await;
            0
        });
        let publisher = self.publisher.clone();
        stages.spawn(async move {
            publisher.run(output_out).await;
            0
        });
        (fanout.with_analytics(feed, self.left_out.clone()), persisted)
    }
}

/// Tells under which number each fragment of the ledger is kept, at the pace at which it is taken: the log waits for nobody.
/// Until `recorded` fires, and then what is left.
pub(super) async fn tell_persisted(
    ledger: SharedLedger,
    persisted: mpsc::Sender<Persisted>,
    recorded: CancellationToken,
) -> usize {
    let mut grown = ledger.watch();
    let mut cursor = ledger.with(|ledger| ledger.cursor());
    let kept = |entry: &Entry| match entry.change {
        Change::Persisted { number, end } => Some(Persisted { start: entry.timecode, end, number: number? }),
        _ => None,
    };
    loop {
        let last = recorded.run_until_cancelled(grown.changed()).await.is_none();
        let fragments: Vec<_> =
            ledger.with(|ledger| ledger.read(&mut cursor).entries.filter_map(kept).collect());
        for fragment in fragments {
            if persisted.send(fragment).await.is_err() {
                return 0; // the branch is being stopped
            }
        }
        if last {
            return 0;
        }
    }
}
