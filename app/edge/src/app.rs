//! What runs, and in which order it stops.
//!
//! Start: client, MQTT, spool, cameras, judgement, publisher, watchdog. READY=1 is sent once every camera is supervised, whether
//! or not a camera, the cloud or the broker can be reached: the box works without a network.
//! Stop: ingest ends, the last fragments are completed and persisted within `stop_grace_s`, the last states are
//! published, then `offline`.

use std::sync::Arc;
use std::time::SystemTime;

use analytics::detector::{self, DetectorHandle};
use clock::{Clock, Trust};
use config::{Config, SpoolPolicy};
use kvs::api::StreamId;
use kvs_client::Client;
use messages::{Topics, WorkerSummary};
use mqtt::Mqtt;
use sd_notify::NotifyState;
use store::{Proofs, RealFiles, Spool, WhenFull};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::aws;
use crate::camera::{AnalyticsShared, Shared};
use crate::cameras::{Cameras, CamerasError, Views, upload_range};
use crate::fault;
use crate::order_desk;
use crate::publish::{DetectorPublisher, Device, Publisher, Sequence};
use crate::service_manager::ServiceManager;
use crate::status::{BoxStatus, Judge};
use crate::wall_clock::{WallClock, WallClockReport};
use crate::watchdog::{self, Pulses};

/// A running box.
pub struct App {
    cameras: Cameras,
    topics: Topics,
    publisher: JoinHandle<()>,
    publish_stop: CancellationToken,
    status: watch::Receiver<Arc<BoxStatus>>,
    worker: Option<MakeDetectorPublisher>,
    detector: Option<JoinHandle<()>>,
    detector_stop: CancellationToken,
    mqtt: Option<JoinHandle<()>>,
    mqtt_stop: CancellationToken,
    stop_reason: watch::Sender<Option<String>>,
    manager: ServiceManager,
    watchdog: JoinHandle<()>,
    checks: JoinHandle<()>,
    spool: Option<Spool>,
    desk: Option<JoinHandle<()>>,
    desk_stop: CancellationToken,
}

/// Why the box did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Aws(#[from] aws::AwsError),
    #[error(transparent)]
    Cameras(#[from] CamerasError),
    #[error("proof records: {0}")]
    Proofs(#[from] store::StoreError),
}

/// How a stop went.
#[derive(Clone, Debug, PartialEq)]
pub struct Stopped {
    /// Fragments that were recorded and have no PERSISTED ack.
    pub unconfirmed: usize,
    /// What the detector did; absent where nothing was to be detected.
    pub worker: Option<WorkerSummary>,
}

impl App {
    /// Starts everything on the machine's own clock.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_at(config, Clock::system()).await
    }

    /// Likewise, on another clock.
    pub async fn start_at(config: Config, clock: Clock) -> Result<Self, StartError> {
        // Nothing is stamped until somebody vouches for the time.
        clock.set_trust(Trust::Pending);
        let client = aws::client(&config.aws, &config.upload, clock.clone()).await?;
        if let Some(advice) = aws::certificate_advice(&config.aws, clock.wall()) {
            tracing::warn!("{advice}");
        }
        let started = clock.wall();
        let prefix = config.mqtt.as_ref().map_or("kvs-edge", |mqtt| mqtt.prefix.as_str());
        let topics = Topics::new(prefix, &config.device.id);
        let mqtt_stop = CancellationToken::new();
        let connection = config.mqtt.clone();
        let connection = connection.map(|mqtt| Mqtt::start(mqtt, &topics, clock.clone(), mqtt_stop.clone()));
        let (mqtt, mqtt_task) = connection.unzip();

        let pulses = Pulses::new(clock.clone());
        let detector_stop = CancellationToken::new();
        let detector = config.detect.as_ref().map(|settings| {
            detector::start(analytics::detector_options(settings, clock.clone()), detector_stop.clone())
        });
        let (detector, detector_task) = detector.unzip();
        let analytics =
            config.detect.clone().zip(detector.clone()).map(|(settings, detector)| AnalyticsShared {
                settings,
                detector,
                sequence: Sequence::default(),
                mqtt: mqtt.clone(),
                topics: topics.clone(),
                region: config.aws.region.clone(),
            });
        let spool = spool(&config, &clock).await;
        let disk = spool.as_ref().map(Spool::problem);
        let shared = Shared {
            spool: spool.clone(),
            proofs: proofs(&config, spool.is_some()).await?,
            device: config.device.id.clone(),
            client: client.clone(),
            clock: clock.clone(),
            pulses: pulses.clone(),
            analytics,
        };
        let mut cameras = Cameras::new(shared);
        for camera in config.cameras.iter().cloned() {
            cameras.add(camera)?;
        }
        let views = cameras.views();
        let worker = worker(&config, &views, detector.as_ref(), started, &clock);

        let (wall_clock, wall_clock_view) = watch::channel(WallClockReport::default());
        let keeper = WallClock {
            clock: clock.clone(),
            client: client.clone(),
            cameras: views.clone(),
            // What the system says of its clock it does not say of another one.
            synced: if clock.is_system() { host::clock_synced } else { || None },
        };
        tokio::spawn(keeper.run(wall_clock));
        let desk_stop = CancellationToken::new();
        let desk = config.spool.as_ref().map(|spool| {
            let views = views.clone();
            let take = move |camera: &str, from, to| upload_range(&views.borrow(), camera, (from, to));
            let folder = order_desk::folder(&spool.folder);
            tokio::spawn(order_desk::run(folder, clock.clone(), desk_stop.clone(), take))
        });
        let (status, status_view) = watch::channel(Arc::default());
        let judge =
            Judge::new(views.clone(), mqtt.clone(), wall_clock_view, clock.clone(), cameras.stopping())
                .disk(disk);
        tokio::spawn(judge.run(status));
        let (margin, watchdog_margin) = watch::channel(None);
        let (stop_reason, stop_reason_view) = watch::channel(None);
        let publish_stop = CancellationToken::new();
        let publisher = Publisher {
            mqtt,
            topics: topics.clone(),
            device: Device {
                id: config.device.id.clone(),
                name: config.device.name.clone(),
                started,
                identity: host::identity(&clock),
            },
            cameras: views.clone(),
            status: status_view.clone(),
            interval: config.health.interval,
            watchdog_margin,
            stop_reason: stop_reason_view,
            worker: worker.as_ref().map(|worker| worker()),
            clock: clock.clone(),
        };
        let manager = ServiceManager::from_env();
        let app = Self {
            cameras,
            topics,
            publisher: tokio::spawn(publisher.run(publish_stop.clone())),
            publish_stop,
            status: status_view,
            worker,
            detector: detector_task,
            detector_stop,
            mqtt: mqtt_task,
            mqtt_stop,
            stop_reason,
            watchdog: {
                let limit = sd_notify::watchdog_enabled();
                tokio::spawn(watchdog::run(pulses, views.clone(), margin, manager.clone(), clock, limit))
            },
            manager,
            checks: tokio::spawn(check_streams(client, views)),
            spool,
            desk,
            desk_stop,
        };
        app.manager.tell(&NotifyState::Ready);
        Ok(app)
    }

    /// To add, remove or replace a camera.
    pub fn cameras(&mut self) -> &mut Cameras {
        &mut self.cameras
    }

    pub fn views(&self) -> Views {
        self.cameras.views().borrow().clone()
    }

    /// The state of the box, and each change of it.
    pub fn status(&self) -> watch::Receiver<Arc<BoxStatus>> {
        self.status.clone()
    }

    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// Ends everything in order. `hurry` (a second signal) gives up waiting for the cloud.
    pub async fn stop(mut self, reason: &str, hurry: CancellationToken) -> Stopped {
        self.manager.tell(&NotifyState::Stopping);
        tracing::info!(reason, "stopping");
        self.desk_stop.cancel();
        if let Some(desk) = self.desk.take() {
            let _ = desk.await;
        }
        let unconfirmed = self.cameras.stop(hurry).await;
        if let Some(spool) = self.spool.take() {
            // Its thread ends with what it was asked for.
            let _ = tokio::task::spawn_blocking(move || spool.close()).await;
        }
        let summary = self.worker.as_ref().map(|worker| worker().summary());
        self.detector_stop.cancel();
        if let Some(detector) = self.detector.take() {
            let _ = detector.await;
        }
        // The last states are told as the stop leaves them, however quick it was.
        let _ = self.status.wait_for(|status| status.stopping).await;
        self.stop_reason.send_replace(Some(reason.to_owned()));
        self.publish_stop.cancel();
        let _ = self.publisher.await;
        self.watchdog.abort();
        self.checks.abort();
        self.mqtt_stop.cancel();
        if let Some(mqtt) = self.mqtt.take() {
            let _ = mqtt.await; // it publishes `offline` last
        }
        if unconfirmed > 0 {
            tracing::warn!(fragments = unconfirmed, "stopped before these fragments were confirmed");
        }
        Stopped { unconfirmed, worker: summary }
    }
}

type MakeDetectorPublisher = Box<dyn Fn() -> DetectorPublisher + Send + Sync>;

fn worker(
    config: &Config,
    views: &watch::Receiver<Views>,
    detector: Option<&DetectorHandle>,
    started: SystemTime,
    clock: &Clock,
) -> Option<MakeDetectorPublisher> {
    let (every, detector) = (config.detect.as_ref()?.figures_every, detector?.clone());
    let (views, clock) = (views.clone(), clock.clone());
    Some(Box::new(move || {
        DetectorPublisher::new(detector.clone(), views.clone(), every, started, clock.clone())
    }))
}

/// The spool, where one is configured. One that cannot be opened is a problem of the box until it can, and footage is recorded
/// all the same.
async fn spool(config: &Config, clock: &Clock) -> Option<Spool> {
    let settings = config.spool.as_ref()?;
    let mut options = store::Options::new(&settings.folder, settings.bytes, config.cameras.len());
    (options.keep, options.backlog) = (settings.keep, settings.backlog);
    options.key_file = settings.key_file.clone();
    options.when_full = match settings.policy {
        SpoolPolicy::DropOldest => WhenFull::DropOldest,
        SpoolPolicy::StopRecording => WhenFull::StopRecording,
    };
    let clock = clock.clone();
    let start = move || Spool::start(options, fault::files(), clock);
    tokio::task::spawn_blocking(start).await.ok()
}

/// Where records of what is proven are kept: beside the spool, once that can be opened, or in memory where there is none.
async fn proofs(config: &Config, is_spooling: bool) -> Result<Proofs, store::StoreError> {
    let Some(settings) = config.spool.as_ref().filter(|_| is_spooling) else { return Proofs::in_memory() };
    let mut options = store::ProofOptions::new(settings.folder.join("proofs"));
    options.keep = settings.proofs;
    let open = move || Proofs::open_or_later(options, Arc::new(RealFiles));
    match tokio::task::spawn_blocking(open).await {
        Ok(opened) => opened,
        Err(crash) => {
            tracing::error!(error = %crash, "proof records are kept in memory only");
            Proofs::in_memory()
        }
    }
}

/// Says at start what an operator should know about the streams: missing, or without retention.
async fn check_streams(client: Client, cameras: watch::Receiver<Views>) {
    let cameras = cameras.borrow().clone();
    for view in cameras.iter().filter(|view| view.config.enabled) {
        let (camera, stream) = (&view.config.id, &view.config.stream);
        match client.describe_stream(&StreamId::name(stream)).await {
            Ok(info) if info.data_retention_in_hours == 0 => tracing::warn!(
                camera,
                stream,
                "the stream keeps nothing (retention 0 h): no fragment will ever be persisted; set its data retention"
            ),
            Ok(info) => {
                tracing::info!(camera, stream, retention_h = info.data_retention_in_hours, "stream found")
            }
            Err(error) => {
                tracing::warn!(
                    camera,
                    stream,
                    error = health::chain(&error),
                    "stream could not be looked at"
                );
            }
        }
    }
}
