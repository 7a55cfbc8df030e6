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
use std::time::{Duration, Instant};

use health::Backoff;
use kvs_client::Client;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::fanout::{Fanout, SEEING_PLACES};
use crate::health::{Pulse, Pulses};
use crate::ingest::{self, FEED_PLACES, IngestReport};
use crate::loopback::{Loopback, NEWS_PLACES, VerifyReport};
use crate::seeing::detector::DetectorHandle;
use crate::seeing::{self, Seeing, SeeingReport, Sequence, Shown};
use crate::upload::{UploadReport, Uploader};
use messages::Topics;
use mqtt::MqttHandle;

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
pub struct Surroundings<'a> {
    pub device: &'a str,
    pub client: &'a Client,
    pub ending: &'a Ending,
    pub seeing: Option<SeeingSurroundings<'a>>,
}

/// What the seeing branches share.
#[derive(Clone, Copy)]
pub struct SeeingSurroundings<'a> {
    pub settings: &'a config::Detect,
    pub detector: &'a DetectorHandle,
    pub sequence: &'a Sequence,
    pub mqtt: Option<&'a MqttHandle>,
    pub topics: &'a Topics,
    pub region: &'a str,
}

/// The two ways to end: `stop` ends ingest, and the rest follows within its grace time; `abort` ends all at once.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    pub stop: CancellationToken,
    pub abort: CancellationToken,
}

struct Camera {
    config: Arc<config::Camera>,
    device: String,
    client: Client,
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
    around: &Surroundings<'_>,
    pulses: &mut Pulses,
    tasks: &mut JoinSet<usize>,
) -> CameraView {
    let (ingest, ingest_view) = watch::channel(IngestReport::default());
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
    if let Some((detect, shared)) = config.detect.clone().zip(around.seeing) {
        let (report, report_view) = watch::channel(SeeingReport::default());
        let (left_out, left_out_view) = watch::channel(0);
        let shown = seeing::shown();
        view.seeing = Some(SeeingView {
            report: report_view,
            left_out: left_out_view,
            detector: shared.detector.clone(),
            number,
            shown: shown.clone(),
        });
        let branch = Seeing {
            camera: config.clone(),
            detect,
            settings: shared.settings.clone(),
            device: around.device.to_owned(),
            region: shared.region.to_owned(),
            number,
            detector: shared.detector.clone(),
            mqtt: shared.mqtt.cloned(),
            topics: shared.topics.clone(),
            sequence: shared.sequence.clone(),
            ingest: ingest_view,
            report,
            shown,
        };
        seeing = Some((branch, left_out));
    }
    let camera = Camera {
        device: around.device.to_owned(),
        client: around.client.clone(),
        ingest,
        upload,
        verify,
        seeing,
        upload_pulse: pulses.add(format!("upload of {}", config.id)),
        loopback_pulse: pulses.add(format!("loopback of {}", config.id)),
        ending: around.ending.clone(),
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
            backoff.up(Instant::now());
            match self.run_once().await {
                Ok(unconfirmed) => return unconfirmed,
                Err(panic) => {
                    let delay = backoff.failed(Instant::now(), rand::random());
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
        let until = tokio::time::Instant::now() + delay;
        while tokio::time::Instant::now() < until {
            self.upload_pulse.beat();
            self.loopback_pulse.beat();
            tokio::time::sleep(Duration::from_millis(250)).await;
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
        stages.spawn(async move {
            ingest::run(&config, fanout, report, cancel).await;
            0
        });
        let uploader = Uploader {
            camera: (*self.config).clone(),
            device: self.device.clone(),
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
