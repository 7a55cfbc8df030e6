//! One camera, wired from top to bottom. Read this first.
//!
//! ```text
//!             +--Feed, 256--> upload --News, 1024--> loopback
//!  ingest ----+               (PutMedia) |           (GetMedia, ListFragments)
//!  (RTSP) fan-out                        | persisted
//!             +--Sight, 32--> seeing <---+
//!                             (decode, detect, track, events)
//! ```
//!
//! Each stage has one task, one queue in front of it that never makes the stage before it wait, and one published
//! report, from which come status, stats, upload and verify over MQTT and the table of the demo. A stage that panics
//! takes the camera down to a restart and nothing else; a panic of the seeing branch restarts that alone.

use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use health::Backoff;
use kvs::FragmentIds;
use kvs_client::Client;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::fanout::{Fanout, SEEING_PLACES};
use crate::loopback::{Loopback, NEWS_PLACES, VerifyReport};
use crate::seeing::detector::DetectorHandle;
use crate::seeing::{self, Seeing, SeeingReport, Sequence, Shown};
use crate::upload::{UploadReport, Uploader};
use crate::watchdog::{Pulse, Pulses};
use messages::Topics;
use mqtt::MqttHandle;
use rtsp::source::{self, FEED_PLACES, IngestReport};

/// Fragments in front of the seeing branch: it only copies numbers into events.
const NUMBER_PLACES: usize = 64;

/// What others see of a running camera.
#[derive(Clone)]
pub struct CameraView {
    pub config: Arc<config::Camera>,
    pub ingest: watch::Receiver<IngestReport>,
    pub upload: watch::Receiver<UploadReport>,
    pub verify: watch::Receiver<VerifyReport>,
    /// Absent where nothing is to be detected.
    pub seeing: Option<SeeingView>,
}

/// What others see of a camera's seeing branch.
#[derive(Clone)]
pub struct SeeingView {
    pub report: watch::Receiver<SeeingReport>,
    /// Access units that the branch had no room for.
    pub left_out: watch::Receiver<u64>,
    pub detector: DetectorHandle,
    /// Of the camera at the detector.
    pub number: usize,
    /// To draw what is seen.
    pub shown: broadcast::Sender<Shown>,
}

/// What all cameras of the box share.
#[derive(Clone)]
pub struct Shared {
    pub device: String,
    pub client: Client,
    pub clock: Clock,
    pub pulses: Pulses,
    pub seeing: Option<SeeingShared>,
}

/// What the seeing branches share.
#[derive(Clone)]
pub struct SeeingShared {
    pub settings: config::Detect,
    pub detector: DetectorHandle,
    pub sequence: Sequence,
    pub mqtt: Option<MqttHandle>,
    pub topics: Topics,
    pub region: String,
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
    upload: watch::Sender<UploadReport>,
    verify: watch::Sender<VerifyReport>,
    seeing: Option<(Seeing, watch::Sender<u64>)>,
    upload_pulse: Pulse,
    loopback_pulse: Pulse,
    ending: Ending,
}

/// Starts a camera in `tasks`, number `number` at the detector; the task gives the number of fragments left unconfirmed
/// at its end.
pub fn start(
    config: config::Camera,
    number: usize,
    ids: FragmentIds,
    shared: &Shared,
    ending: &Ending,
    tasks: &mut JoinSet<usize>,
) -> CameraView {
    let (ingest, ingest_view) = watch::channel(IngestReport::new(shared.clock.wall()));
    let (upload, upload_view) = watch::channel(UploadReport::default());
    let (verify, verify_view) = watch::channel(VerifyReport::default());
    let config = Arc::new(config);
    let mut view = CameraView {
        config: config.clone(),
        ingest: ingest_view.clone(),
        upload: upload_view,
        verify: verify_view,
        seeing: None,
    };
    if !config.enabled {
        return view;
    }
    let mut seeing = None;
    if let Some((detect, branch)) = config.detect.clone().zip(shared.seeing.as_ref()) {
        let (report, report_view) = watch::channel(SeeingReport::default());
        let (left_out, left_out_view) = watch::channel(0);
        let shown = seeing::shown();
        view.seeing = Some(SeeingView {
            report: report_view,
            left_out: left_out_view,
            detector: branch.detector.clone(),
            number,
            shown: shown.clone(),
        });
        let seeing_branch = Seeing {
            camera: config.clone(),
            detect,
            settings: branch.settings.clone(),
            device: shared.device.clone(),
            region: branch.region.clone(),
            number,
            detector: branch.detector.clone(),
            mqtt: branch.mqtt.clone(),
            topics: branch.topics.clone(),
            sequence: branch.sequence.clone(),
            ingest: ingest_view,
            report,
            shown,
        };
        seeing = Some((seeing_branch, left_out));
    }
    let camera = Camera {
        ids,
        device: shared.device.clone(),
        client: shared.client.clone(),
        clock: shared.clock.clone(),
        ingest,
        upload,
        verify,
        seeing,
        upload_pulse: shared.pulses.add(format!("upload of {}", config.id)),
        loopback_pulse: shared.pulses.add(format!("loopback of {}", config.id)),
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
            self.loopback_pulse.beat();
            self.clock.sleep(Duration::from_millis(250)).await;
        }
    }

    async fn run_once(&self) -> Result<usize, tokio::task::JoinError> {
        let (feed, feed_out) = mpsc::channel(FEED_PLACES);
        let (news, news_out) = mpsc::channel(NEWS_PLACES);
        // One child per run: a crash of one stage stops the other two, not the other cameras.
        let stop = self.ending.stop.child_token();
        let abort = self.ending.abort.child_token();
        let mut stages = JoinSet::new();

        let mut fanout = Fanout::new(feed);
        let mut persisted = None;
        if let Some((seeing, left_out)) = &self.seeing {
            let (sights, sights_out) = mpsc::channel(SEEING_PLACES);
            let (numbers, numbers_out) = mpsc::channel(NUMBER_PLACES);
            fanout = fanout.with_seeing(sights, left_out.clone());
            persisted = Some(numbers);
            let (seeing, cancel) = (seeing.clone(), abort.clone());
            stages.spawn(async move {
                cancel.run_until_cancelled(seeing.supervise(sights_out, numbers_out)).await;
                0
            });
        }
        let (config, report, cancel) = (self.config.clone(), self.ingest.clone(), stop.clone());
        let clock = self.clock.clone();
        stages.spawn(async move {
            source::run(&config, |item| fanout.send(item), report, clock, cancel).await;
            0
        });
        let uploader = Uploader {
            camera: (*self.config).clone(),
            device: self.device.clone(),
            ids: self.ids.clone(),
            client: self.client.clone(),
            news,
            persisted,
            report: self.upload.clone(),
            pulse: self.upload_pulse.clone(),
        };
        stages.spawn(uploader.run(feed_out, abort.clone()));
        let loopback = Loopback {
            camera: (*self.config).clone(),
            client: self.client.clone(),
            report: self.verify.clone(),
            pulse: self.loopback_pulse.clone(),
        };
        let cancel = abort.clone();
        stages.spawn(async move {
            loopback.run(news_out, cancel).await;
            0
        });

        let mut unconfirmed = 0;
        while let Some(ended) = stages.join_next().await {
            match ended {
                Ok(count) => unconfirmed += count,
                Err(panic) => {
                    stop.cancel();
                    abort.cancel();
                    stages.shutdown().await;
                    return Err(panic);
                }
            }
        }
        Ok(unconfirmed)
    }
}
