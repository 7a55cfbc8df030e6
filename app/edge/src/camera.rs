//! One camera, wired from top to bottom. Read this first.
//!
//! ```text
//!  ingest --Feed--> upload --News--> loopback
//!  (RTSP)   256     (PutMedia)  1024  (GetMedia, ListFragments)
//!     |                |                 |
//!     +--- report -----+---- report -----+---> status, stats, upload, verify over MQTT; demo table
//! ```
//!
//! Each stage has one task, one queue in front of it that never makes the stage before it wait, and one published
//! report. A stage that panics takes the camera down to a restart and nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kvs::backoff::Backoff;
use kvs_client::Client;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::fanout::Fanout;
use crate::health::{Pulse, Pulses};
use crate::ingest::{self, FEED_PLACES, IngestReport};
use crate::loopback::{Loopback, NEWS_PLACES, VerifyReport};
use crate::upload::{UploadReport, Uploader};

/// What others see of a running camera.
#[derive(Clone)]
pub struct CameraView {
    pub config: Arc<config::Camera>,
    pub ingest: watch::Receiver<IngestReport>,
    pub upload: watch::Receiver<UploadReport>,
    pub verify: watch::Receiver<VerifyReport>,
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
    upload_pulse: Pulse,
    loopback_pulse: Pulse,
    ending: Ending,
}

/// Starts a camera in `tasks`; the task gives the number of fragments left unconfirmed at its end.
pub fn start(
    config: config::Camera,
    device: &str,
    client: &Client,
    pulses: &mut Pulses,
    ending: &Ending,
    tasks: &mut JoinSet<usize>,
) -> CameraView {
    let (ingest, ingest_view) = watch::channel(IngestReport::default());
    let (upload, upload_view) = watch::channel(UploadReport::default());
    let (verify, verify_view) = watch::channel(VerifyReport::default());
    let config = Arc::new(config);
    let view =
        CameraView { config: config.clone(), ingest: ingest_view, upload: upload_view, verify: verify_view };
    if config.enabled {
        let upload_pulse = pulses.add(format!("upload of {}", config.id));
        let loopback_pulse = pulses.add(format!("loopback of {}", config.id));
        let (device, client, ending) = (device.to_owned(), client.clone(), ending.clone());
        let camera =
            Camera { config, device, client, ingest, upload, verify, upload_pulse, loopback_pulse, ending };
        tasks.spawn(camera.supervise());
    }
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

        let (config, report, cancel) = (self.config.clone(), self.ingest.clone(), stop.clone());
        stages.spawn(async move {
            ingest::run(&config, Fanout::new(feed), report, cancel).await;
            0
        });
        let uploader = Uploader {
            camera: (*self.config).clone(),
            device: self.device.clone(),
            client: self.client.clone(),
            news,
            persisted: None,
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
