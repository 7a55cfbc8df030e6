//! One camera, wired from top to bottom. Read this first.
//!
//! ```text
//!                                 spool on disk
//!                                  |
//!             +--Feed, 256--> upload (PutMedia) --> ledger <--> proof (GetMedia, ListFragments)
//!  ingest ----+                                       |
//!  (RTSP) fan-out                                     | what is persisted
//!             +--FeedItem, 32--> analytics <----------+
//!                                (decode, detect, track, events) --Output, 64--> publish
//! ```
//!
//! A camera can be a KVS stream that somebody else uploads: then `kvs_pictures` stands where ingest does, and there is neither
//! upload nor proof.
//!
//! Each stage has one task, one queue in front of it that never makes the stage before it wait, and one published
//! report, from which come status, stats, upload and verify over MQTT and the table of the demo. A stage that panics is
//! begun anew, alone: ingest, upload, proof, records and the analytics branch each have a supervisor of their own. Should one
//! of those panic, the camera is begun anew, once the upload has brought to disk what is finished.

use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use health::Backoff;
use kvs::FragmentIds;
use kvs::api::StreamId;
use kvs_client::Client;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::fanout::Fanout;
use crate::record::proof::{self, Proof, ProofReport};
use crate::record::records::{self, RecordKeeper, RecordReport};
use crate::record::{AroundEvents, Orders, SharedLedger, UploadReport, Uploader};
use crate::watchdog::{Pulse, Pulses};
use rtsp::source::IngestReport;
use rtsp::{RtspSource, Timeline};
use store::{Proofs, Spool};

mod detection;
mod ingest;
mod kvs_pictures;

pub use detection::{AnalyticsShared, AnalyticsView};
use detection::{Detection, tell_persisted};
use ingest::Ingest;
use kvs_pictures::KvsPictures;

/// A proof that does not turn for so long is left behind, and another takes over.
const PROOF_STUCK: Duration = Duration::from_secs(60);
/// So long the other stages may take to end where one has crashed: the upload waits for the disk in it.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// What others see of a running camera.
#[derive(Clone)]
pub struct CameraView {
    pub config: Arc<config::Camera>,
    pub ingest: watch::Receiver<IngestReport>,
    pub upload: watch::Receiver<UploadReport>,
    /// The life of each fragment.
    pub ledger: SharedLedger,
    /// What is to be uploaded where not everything is.
    pub orders: Orders,
    pub verify: watch::Receiver<ProofReport>,
    /// What is written down of each minute.
    pub records: watch::Receiver<RecordReport>,
    /// Absent where nothing is to be detected.
    pub analytics: Option<AnalyticsView>,
}

/// What all cameras of the box share.
#[derive(Clone)]
pub struct Shared {
    pub device: String,
    pub client: Client,
    pub clock: Clock,
    pub pulses: Pulses,
    /// Absent where nothing is to be detected.
    pub analytics: Option<AnalyticsShared>,
    /// Absent: footage waits in memory only.
    pub spool: Option<Spool>,
    pub proofs: Proofs,
}

/// The two ways to end: `stop` ends ingest, and the rest follows within its grace time; `abort` ends all at once.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    pub stop: CancellationToken,
    pub abort: CancellationToken,
}

impl Ending {
    /// Ends with this one, or alone.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { stop: self.stop.child_token(), abort: self.abort.child_token() }
    }
}

struct Camera {
    config: Arc<config::Camera>,
    ids: FragmentIds,
    device: String,
    client: Client,
    clock: Clock,
    ingest: watch::Sender<IngestReport>,
    /// Of all sessions of this camera. A stage that crashes gives it back, and its stamps go on.
    timeline: Arc<Mutex<Timeline>>,
    upload: watch::Sender<UploadReport>,
    ledger: SharedLedger,
    orders: Orders,
    verify: watch::Sender<ProofReport>,
    records: watch::Sender<RecordReport>,
    proofs: Proofs,
    detection: Option<Detection>,
    /// Of the upload, or of the reader of a KVS stream.
    upload_pulse: Pulse,
    spool: Option<Spool>,
    ending: Ending,
}

/// Starts a camera in `tasks`; the task returns the number of fragments left unconfirmed at its end. `rank`: a lower one is
/// served before it where the detector has not enough for all.
pub fn start(
    config: config::Camera,
    rank: usize,
    ids: FragmentIds,
    shared: &Shared,
    ending: &Ending,
    tasks: &mut JoinSet<usize>,
) -> CameraView {
    let (ingest, ingest_view) = watch::channel(IngestReport::new(shared.clock.wall()));
    let (upload, upload_view) = watch::channel(UploadReport::new(shared.clock.wall()));
    let (verify, verify_view) = watch::channel(ProofReport::new(shared.clock.wall()));
    let (records, records_view) = watch::channel(RecordReport::default());
    let config = Arc::new(config);
    let mut view = CameraView {
        config: config.clone(),
        ingest: ingest_view.clone(),
        upload: upload_view,
        ledger: SharedLedger::default(),
        orders: Orders::default(),
        verify: verify_view,
        records: records_view,
        analytics: None,
    };
    if !config.enabled {
        return view;
    }
    let chosen = &config.upload;
    let around = (chosen.mode == config::UploadMode::Events)
        .then(|| AroundEvents::new(view.orders.clone(), chosen.event_pre, chosen.event_post));
    let (detection, analytics) = Detection::new(&config, rank, ingest_view, around, shared).unzip();
    view.analytics = analytics;
    let camera = Camera {
        ids,
        device: shared.device.clone(),
        client: shared.client.clone(),
        clock: shared.clock.clone(),
        ingest,
        timeline: Arc::default(),
        upload,
        ledger: view.ledger.clone(),
        orders: view.orders.clone(),
        verify,
        records,
        proofs: shared.proofs.clone(),
        detection,
        spool: shared.spool.clone(),
        upload_pulse: shared.pulses.add(match config.kvs {
            None => format!("upload of {}", config.id),
            Some(_) => format!("reader of {}", config.id),
        }),
        ending: ending.clone(),
        config,
    };
    tasks.spawn(camera.supervise());
    view
}

impl Camera {
    async fn supervise(self) -> usize {
        let mut backoff =
            Backoff::new(Duration::from_secs(1), Duration::from_secs(60), Duration::from_secs(60));
        loop {
            backoff.up(self.clock.now());
            match self.run_once().await {
                Ok(unconfirmed) => return unconfirmed,
                Err(panic) => {
                    let delay = backoff.failed(self.clock.now(), rand::random());
                    tracing::error!(camera = self.config.id, error = %panic, "a stage crashed, restarting the camera");
                    if self.ending.stop.run_until_cancelled(self.idle(delay)).await.is_none() {
                        return 0;
                    }
                }
            }
        }
    }

    /// Waiting is a sign of life too.
    async fn idle(&self, delay: Duration) {
        let until = self.clock.now() + delay;
        while self.clock.now() < until {
            self.upload_pulse.beat();
            self.clock.sleep(Duration::from_millis(250)).await;
        }
    }

    async fn run_once(&self) -> Result<usize, tokio::task::JoinError> {
        match &self.config.kvs {
            None => self.record().await,
            Some(source) => self.look_at(source).await,
        }
    }

    /// A KVS stream: its pictures are looked at, and that is all.
    async fn look_at(&self, source: &config::KvsSource) -> Result<usize, tokio::task::JoinError> {
        let stop = self.ending.stop.child_token();
        let abort = self.ending.abort.child_token();
        let mut stages = JoinSet::new();
        let (mut fanout, mut fragments) = (Fanout::unrecorded(), None);
        if let Some(detection) = &self.detection {
            let (with_analytics, persisted) = detection.start(fanout, &mut stages, &abort);
            (fanout, fragments) = (with_analytics, Some(persisted));
        }
        let pictures = KvsPictures {
            camera: self.config.clone(),
            source: source.clone(),
            client: self.client.clone(),
            clock: self.clock.clone(),
            report: self.ingest.clone(),
            pulse: self.upload_pulse.clone(),
            fragments,
        };
        let cancel = stop.clone();
        stages.spawn(async move {
            pictures.run(fanout, cancel).await;
            0
        });
        self.join(stages, &stop, &abort).await
    }

    async fn record(&self) -> Result<usize, tokio::task::JoinError> {
        let (feed, pictures) = RtspSource::channel(self.ingest.subscribe());
        // One child per run: a crash of one stage stops the other two, not the other cameras.
        let stop = self.ending.stop.child_token();
        let abort = self.ending.abort.child_token();
        let mut stages = JoinSet::new();

        let mut fanout = Fanout::new(feed, self.config.upload.gather);
        let recorded = CancellationToken::new();
        if let Some(detection) = &self.detection {
            let (with_analytics, persisted) = detection.start(fanout, &mut stages, &abort);
            fanout = with_analytics;
            stages.spawn(tell_persisted(self.ledger.clone(), persisted, recorded.clone()));
        }
        let ingest = Ingest {
            camera: self.config.clone(),
            report: self.ingest.clone(),
            clock: self.clock.clone(),
            timeline: self.timeline.clone(),
        };
        let cancel = stop.clone();
        stages.spawn(async move {
            ingest.supervise(fanout, cancel).await;
            0
        });
        let uploader = Uploader {
            camera: self.config.clone(),
            device: self.device.clone(),
            ids: self.ids.clone(),
            client: self.client.clone(),
            clock: self.clock.clone(),
            ledger: self.ledger.clone(),
            report: self.upload.clone(),
            pulse: self.upload_pulse.clone(),
            spool: self.spool.clone(),
            orders: self.orders.clone(),
        };
        let uploading = Ending { stop: stop.clone(), abort: abort.clone() };
        let upload_ended = recorded.clone();
        stages.spawn(async move {
            let unconfirmed = uploader.supervise(pictures, uploading).await;
            upload_ended.cancel();
            unconfirmed
        });
        let proof = Proof {
            camera: self.config.id.clone(),
            stream: StreamId::name(&self.config.stream),
            config: Proof::config_of(&self.config.verify),
            play: Proof::play_of(&self.config.verify),
            decode: self.config.detect.is_some(),
            stop_grace: self.config.upload.stop_grace,
            client: self.client.clone(),
            clock: self.clock.clone(),
            ledger: self.ledger.clone(),
            report: self.verify.clone(),
            upload_ended: recorded.clone(),
        };
        let (cancel, proof_ended) = (abort.clone(), CancellationToken::new());
        let keeper = RecordKeeper {
            device: self.device.clone(),
            camera: self.config.id.clone(),
            verify: self.config.verify.clone(),
            run: self.ids.run(),
            clock: self.clock.clone(),
            ledger: self.ledger.clone(),
            upload: self.upload.subscribe(),
            proof: self.verify.subscribe(),
            proofs: self.proofs.clone(),
            client: self.client.clone(),
            stream: StreamId::name(&self.config.stream),
            report: self.records.clone(),
            proof_ended: proof_ended.clone(),
        };
        stages.spawn(async move {
            proof::supervise(proof, PROOF_STUCK, cancel).await;
            proof_ended.cancel();
            0
        });
        let cancel = abort.clone();
        stages.spawn(async move {
            records::supervise(keeper, cancel).await;
            0
        });
        self.join(stages, &stop, &abort).await
    }

    /// Until all stages have ended; when one crashes the others are ended, too.
    async fn join(
        &self,
        mut stages: JoinSet<usize>,
        stop: &CancellationToken,
        abort: &CancellationToken,
    ) -> Result<usize, tokio::task::JoinError> {
        let mut unconfirmed = 0;
        while let Some(ended) = stages.join_next().await {
            match ended {
                Ok(count) => unconfirmed += count,
                Err(panic) => {
                    stop.cancel();
                    abort.cancel();
                    let others = async { while stages.join_next().await.is_some() {} };
                    tokio::select! {
                        () = others => {}
                        () = self.clock.sleep(LAST_WORDS) => {}
                    }
                    stages.shutdown().await;
                    return Err(panic);
                }
            }
        }
        Ok(unconfirmed)
    }
}
