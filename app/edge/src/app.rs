//! What runs, and in which order it stops.
//!
//! Start: client, MQTT, cameras, reports, watchdog. READY=1 is sent once every camera is supervised, whether or
//! not a camera, the cloud or the broker can be reached: the box works without a network.
//! Stop: ingest ends, the last fragments are completed and persisted within `stop_grace_s`, the last states are
//! published, then `offline`.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clock::Clock;
use kvs::api::StreamId;
use kvs_client::Client;
use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::camera::{self, CameraView, Ending, SeeingSurroundings, Surroundings};
use crate::health::Pulses;
use crate::report::Reporter;
use crate::seeing::detector::{self, DetectorHandle};
use crate::seeing::worker::Worker;
use crate::seeing::{Sequence, model};
use crate::{aws, host};
use config::Config;
use messages::{Info, InfoCamera, Topics, Version, WorkerSummary};
use mqtt::{Mqtt, MqttHandle, Qos};

/// Without a watchdog in the unit, the stillness of a loop is still looked at this often.
const LOOK: Duration = Duration::from_secs(1);
/// What a stop may take beyond `stop_grace_s`: TEARDOWN to the cameras, the last look at what is verified.
const STOP_MARGIN: Duration = Duration::from_secs(5);
/// A loop that is still for this long is stuck: its own tick is half a second.
const STUCK: Duration = Duration::from_secs(10);

/// A running box.
pub struct App {
    config: Config,
    topics: Topics,
    started: SystemTime,
    views: Vec<CameraView>,
    cameras: JoinSet<usize>,
    ending: Ending,
    reporter: Option<JoinHandle<()>>,
    report_stop: CancellationToken,
    detector: Option<(DetectorHandle, JoinHandle<()>)>,
    detector_stop: CancellationToken,
    mqtt: Option<(MqttHandle, JoinHandle<()>)>,
    mqtt_stop: CancellationToken,
    watchdog: JoinHandle<()>,
    checks: JoinHandle<()>,
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
    pub async fn start(config: Config) -> Result<Self, aws::AwsError> {
        let client = aws::client(&config.aws, &config.upload).await?;
        let started = SystemTime::now();
        let prefix = config.mqtt.as_ref().map_or("kvs-edge", |mqtt| mqtt.prefix.as_str());
        let topics = Topics::new(prefix, &config.device.id);
        let mqtt_stop = CancellationToken::new();
        let mqtt =
            config.mqtt.clone().map(|mqtt| Mqtt::start(mqtt, &topics, Clock::system(), mqtt_stop.clone()));

        let ending = Ending::default();
        let mut pulses = Pulses::default();
        let detector_stop = CancellationToken::new();
        let detector = config.detect.as_ref().map(|settings| {
            detector::start(model::options(settings, &config.cameras), detector_stop.clone())
        });
        let sequence = Sequence::default();
        let seeing = config.detect.as_ref().zip(detector.as_ref()).map(|(settings, (detector, _))| {
            let (mqtt, region) = (mqtt.as_ref().map(|(handle, _)| handle), &config.aws.region);
            SeeingSurroundings { settings, detector, sequence: &sequence, mqtt, topics: &topics, region }
        });
        let around = Surroundings { device: &config.device.id, client: &client, ending: &ending, seeing };
        let mut cameras = JoinSet::new();
        let numbered = config.cameras.iter().cloned().enumerate();
        let views: Vec<_> = numbered
            .map(|(number, camera)| camera::start(camera, number, &around, &mut pulses, &mut cameras))
            .collect();

        let (margin, watchdog_margin) = watch::channel(None);
        let report_stop = CancellationToken::new();
        let reporter = Reporter {
            mqtt: mqtt.as_ref().map(|(handle, _)| handle.clone()),
            topics: topics.clone(),
            cameras: views.clone(),
            interval: config.health.interval,
            watchdog_margin,
            worker: worker(&config, &views, detector.as_ref(), started),
        };
        let reporter = Some(tokio::spawn(reporter.run(report_stop.clone())));
        let watchdog = tokio::spawn(watchdog(pulses, views.clone(), margin));
        let checks = tokio::spawn(check_streams(client, views.clone()));
        let app = Self {
            config,
            topics,
            started,
            views,
            cameras,
            ending,
            reporter,
            report_stop,
            detector,
            detector_stop,
            mqtt,
            mqtt_stop,
            watchdog,
            checks,
        };
        app.publish_info(None);
        notify(&[NotifyState::Ready]);
        Ok(app)
    }

    pub fn cameras(&self) -> &[CameraView] {
        &self.views
    }

    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// Ends everything in order. `hurry` (a second signal) gives up waiting for the cloud.
    pub async fn stop(mut self, reason: &str, hurry: CancellationToken) -> Stopped {
        notify(&[NotifyState::Stopping]);
        tracing::info!(reason, "stopping");
        self.ending.stop.cancel();
        let mut unconfirmed = 0;
        let cameras = async {
            while let Some(ended) = self.cameras.join_next().await {
                unconfirmed += ended.unwrap_or(0);
            }
        };
        let limit = self.config.upload.stop_grace + STOP_MARGIN;
        let done = hurry.run_until_cancelled(tokio::time::timeout(limit, cameras)).await;
        if !matches!(done, Some(Ok(()))) {
            self.ending.abort.cancel();
            while let Some(ended) = self.cameras.join_next().await {
                unconfirmed += ended.unwrap_or(0);
            }
        }
        let summary = worker(&self.config, &self.views, self.detector.as_ref(), self.started);
        let summary = summary.map(|worker| worker.summary());
        self.detector_stop.cancel();
        if let Some((_, detector)) = self.detector.take() {
            let _ = detector.await;
        }
        self.report_stop.cancel();
        if let Some(reporter) = self.reporter.take() {
            let _ = reporter.await;
        }
        self.watchdog.abort();
        self.checks.abort();
        self.publish_info(Some(reason));
        self.mqtt_stop.cancel();
        if let Some((_, actor)) = self.mqtt.take() {
            let _ = actor.await; // it publishes `offline` last
        }
        if unconfirmed > 0 {
            tracing::warn!(fragments = unconfirmed, "stopped before these fragments were confirmed");
        }
        Stopped { unconfirmed, worker: summary }
    }

    fn publish_info(&self, stop_reason: Option<&str>) {
        let Some((mqtt, _)) = &self.mqtt else { return };
        let host::Identity { model, serial, os, image_version, boot_id, boot_time } = host::identity();
        let camera = |view: &CameraView| InfoCamera {
            id: view.config.id.clone(),
            stream: view.config.stream.clone(),
            enabled: view.config.enabled,
        };
        let info = Info {
            v: Version::default(),
            ts: SystemTime::now().into(),
            device: self.config.device.id.clone(),
            name: self.config.device.name.clone(),
            model,
            serial,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            os,
            image_version,
            boot_id,
            boot_time,
            started: self.started.into(),
            stop_reason: stop_reason.map(str::to_owned),
            cameras: self.views.iter().map(camera).collect(),
        };
        mqtt.publish_retained(self.topics.info(), &info, Qos::AtLeastOnce);
    }
}

fn worker(
    config: &Config,
    views: &[CameraView],
    detector: Option<&(DetectorHandle, JoinHandle<()>)>,
    started: SystemTime,
) -> Option<Worker> {
    let (settings, (detector, _)) = config.detect.as_ref().zip(detector)?;
    Some(Worker::new(detector.clone(), views.to_vec(), settings.figures_every, started))
}

/// Without a service manager this does nothing.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "service manager not told");
    }
}

/// Feeds the watchdog only while every loop turns.
async fn watchdog(pulses: Pulses, cameras: Vec<CameraView>, margin: watch::Sender<Option<Duration>>) {
    let limit = sd_notify::watchdog_enabled();
    let every = limit.map_or(LOOK, |limit| (limit / 4).min(LOOK));
    let mut fed = tokio::time::Instant::now();
    let mut said = String::new();
    loop {
        tokio::time::sleep(every).await;
        match pulses.oldest() {
            Some((name, age)) if age >= STUCK => {
                tracing::error!(task = name, still_s = age.as_secs(), "stuck: the watchdog is not fed");
            }
            _ => {
                if let Some(limit) = limit {
                    margin.send_replace(Some(limit.saturating_sub(fed.elapsed())));
                    notify(&[NotifyState::Watchdog]);
                }
                fed = tokio::time::Instant::now();
            }
        }
        let live =
            cameras.iter().filter(|view| view.ingest.borrow().state == crate::ingest::IngestState::Live);
        let status = format!("{} of {} cameras live", live.count(), cameras.len());
        if status != said {
            notify(&[NotifyState::Status(&status)]);
            said = status;
        }
    }
}

/// Says at start what an operator should know about the streams: missing, or without retention.
async fn check_streams(client: Client, cameras: Vec<CameraView>) {
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

/// Where `run` finds its configuration unless told otherwise.
pub fn default_config() -> PathBuf {
    PathBuf::from("/etc/kvs-edge/kvs-edge.toml")
}
