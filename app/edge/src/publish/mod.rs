//! What the stages report, as MQTT messages: state topics when the judgement changes, figures at each interval.
//!
//! The wire bodies are made here and nowhere else, out of the stages' own types. Nothing inside the box works with them.

mod alarm;
mod analytics;
mod camera;
mod detector;
mod device;
mod records;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clock::Clock;
use messages::{Topics, UtcTime};
use mqtt::{MqttHandle, Qos};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::camera::CameraView;
use crate::cameras::Views;
use crate::status::{BoxStatus, CameraStatus};
use alarm::Tell;
pub(crate) use analytics::event;
pub use analytics::{AnalyticsPublisher, Origin, Sequence};
use camera::Counters;
pub use detector::DetectorPublisher;
pub use device::Device;
use kvs::proof::schedule::Verdict;

/// State topics with moving figures in them are sent again with the other figures without a change of state, and at this
/// distance if those come more rarely.
const REFRESH: Duration = Duration::from_secs(10);
/// The first figures come early, so that whoever starts the box sees some.
const FIRST_FIGURES: Duration = Duration::from_secs(2);

/// Publishes what the cameras and the box do.
pub struct Publisher {
    pub mqtt: Option<MqttHandle>,
    pub topics: Topics,
    pub device: Device,
    pub cameras: watch::Receiver<Views>,
    pub status: watch::Receiver<Arc<BoxStatus>>,
    pub interval: Duration,
    pub watchdog_margin: watch::Receiver<Option<Duration>>,
    /// Set before the end: why this run ended.
    pub stop_reason: watch::Receiver<Option<String>>,
    /// Absent where nothing is to be detected.
    pub worker: Option<DetectorPublisher>,
    pub clock: Clock,
}

/// What was published last.
#[derive(Default)]
struct Published {
    cameras: BTreeMap<String, PublishedCamera>,
    detector: Option<UtcTime>,
    sampler: host::Sampler,
}

#[derive(Default)]
struct PublishedCamera {
    status: Option<CameraStatus>,
    refreshed: Option<Instant>,
    stats: Option<Counters>,
    alarm: alarm::Watch,
}

impl Publisher {
    /// Runs until `cancel`; the last states are published once more before it returns, and why it ends.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut published = Published::default();
        let mut next_figures = self.clock.now() + self.interval.min(FIRST_FIGURES);
        let mut next_refresh = self.clock.now();
        published.cameras =
            self.views().iter().map(|view| (view.config.id.clone(), Default::default())).collect();
        self.info(None);
        loop {
            let due = next_figures.min(next_refresh);
            let last = tokio::select! {
                () = cancel.cancelled() => true,
                () = self.clock.sleep_until(due) => false,
                Ok(()) = self.status.changed() => false,
                Ok(()) = self.cameras.changed() => false,
            };
            self.forget_removed(&mut published);
            let now = self.clock.now();
            if now >= next_refresh {
                next_refresh = now + self.refresh();
            }
            let status = self.status.borrow_and_update().clone();
            let views = self.views();
            for camera in &status.cameras {
                let Some(view) = views.iter().find(|view| view.config.id == camera.id) else { continue };
                let published = published.cameras.entry(camera.id.clone()).or_default();
                self.states(view, camera, published, last);
            }
            let figures_are_due = now >= next_figures || last;
            if figures_are_due {
                next_figures = now + self.interval;
                for view in views.iter().filter(|view| view.config.enabled) {
                    let published = published.cameras.entry(view.config.id.clone()).or_default();
                    self.stats(view, published);
                }
                self.health(&status, &mut published.sampler);
            }
            self.detector(&mut published.detector, figures_are_due);
            if last {
                let reason = self.stop_reason.borrow().clone();
                return self.info(reason.as_deref());
            }
        }
    }

    fn refresh(&self) -> Duration {
        self.interval.min(REFRESH)
    }

    fn views(&self) -> Views {
        self.cameras.borrow().clone()
    }

    /// The broker shall not go on telling of a camera that is no more.
    fn forget_removed(&mut self, published: &mut Published) {
        let views = self.cameras.borrow_and_update().clone();
        let removed = |id: &String| views.iter().all(|view| view.config.id != **id);
        let gone: Vec<_> = published.cameras.keys().filter(|id| removed(id)).cloned().collect();
        for id in &gone {
            published.cameras.remove(id);
            if let Some(mqtt) = &self.mqtt {
                mqtt.clear_retained_below(&self.topics.camera(id));
                mqtt.clear_retained(&self.topics.alarm(&self.topics.proof_alarm(id)));
            }
        }
        let ids: Vec<_> = views.iter().map(|view| view.config.id.clone()).collect();
        if !gone.is_empty() || ids.iter().any(|id| !published.cameras.contains_key(id)) {
            for id in ids {
                published.cameras.entry(id).or_default();
            }
            self.info(None);
        }
    }

    fn states(&self, view: &CameraView, status: &CameraStatus, published: &mut PublishedCamera, force: bool) {
        let now = self.clock.now();
        let due =
            force || published.refreshed.is_none_or(|at| now.saturating_duration_since(at) >= self.refresh());
        let before = published.status.replace(status.clone());
        let changed = |same: fn(&CameraStatus, &CameraStatus) -> bool| {
            due || before.as_ref().is_none_or(|before| !same(before, status))
        };
        let (id, wall) = (&view.config.id, self.clock.wall());
        let same_state = |a: &CameraStatus, b: &CameraStatus| {
            let reason = |status: &CameraStatus| status.health.problem.as_ref().map(|problem| problem.reason);
            (a.health.state, reason(a)) == (b.health.state, reason(b))
        };
        if changed(same_state) {
            self.retained(self.topics.status(id), &camera::status(view, status, wall), Qos::AtLeastOnce);
        }
        // Of a camera that is a KVS stream nothing is uploaded or proven here.
        let records = view.config.kvs.is_none();
        if records
            && changed(|a, b| {
                let upload = |status: &CameraStatus| {
                    (status.upload, status.upload_problem, status.fragments_lost, status.record)
                };
                upload(a) == upload(b)
            })
        {
            let body = camera::upload(view, now, wall);
            self.retained(self.topics.upload(id), &body, Qos::AtLeastOnce);
        }
        if records
            && changed(|a, b| {
                (a.verdict, a.verify_problem, a.record) == (b.verdict, b.verify_problem, b.record)
            })
        {
            let body = camera::verify(view, wall);
            self.retained(self.topics.verify(id), &body, Qos::AtLeastOnce);
        }
        self.alarm(view, status.verdict, published);
        if due {
            published.refreshed = Some(now);
        }
    }

    /// A verdict that stays bad is an alarm, until it is good.
    fn alarm(&self, view: &CameraView, verdict: Verdict, published: &mut PublishedCamera) {
        let (after, now, wall) = (view.config.verify.alarm_after, self.clock.now(), self.clock.wall());
        let Some(tell) = published.alarm.look(verdict, after, now, wall) else { return };
        let code = self.topics.proof_alarm(&view.config.id);
        let topic = self.topics.alarm(&code);
        match tell {
            Tell::Raise { since } => {
                let body = camera::alarm(view, code, since, wall);
                tracing::warn!(camera = view.config.id, text = body.text, "alarm");
                self.retained(topic, &body, Qos::AtLeastOnce);
            }
            Tell::Clear => self.mqtt.iter().for_each(|mqtt| mqtt.clear_retained(&topic)),
        }
    }

    fn stats(&self, view: &CameraView, published: &mut PublishedCamera) {
        let ingest = view.ingest.borrow();
        let counters = Counters::of(self.clock.now(), &ingest, view.analytics.as_ref());
        let Some(before) = published.stats.replace(counters) else { return };
        let Some(mqtt) = &self.mqtt else { return };
        let mut stats = camera::stats(&ingest, &view.verify.borrow(), before, counters, self.clock.wall());
        stats.cloud = Some(camera::cloud(view));
        stats.detect = view.analytics.as_ref().map(detector::stats);
        mqtt.publish(self.topics.stats(&view.config.id), &stats, Qos::AtMostOnce);
    }

    fn health(&self, status: &BoxStatus, sampler: &mut host::Sampler) {
        let mqtt = self.mqtt.as_ref().map(MqttHandle::health).unwrap_or_default();
        let margin = *self.watchdog_margin.borrow();
        let health = device::health(status, sampler.sample(), mqtt, margin, self.clock.wall());
        self.retained(self.topics.health(), &health, Qos::AtMostOnce);
    }

    /// At each change of state, and when figures are due.
    fn detector(&mut self, published: &mut Option<UtcTime>, due: bool) {
        let Some(worker) = &mut self.worker else { return };
        worker.log();
        if due || *published != Some(worker.state_since()) {
            let message = worker.message();
            *published = Some(message.since);
            self.retained(self.topics.detector(), &message, Qos::AtMostOnce);
        }
    }

    /// Says what the box is; `stop_reason` in the last words of this run.
    fn info(&self, stop_reason: Option<&str>) {
        let body = self.device.info(&self.views(), stop_reason, self.clock.wall());
        self.retained(self.topics.info(), &body, Qos::AtLeastOnce);
    }

    fn retained(&self, topic: String, body: &impl serde::Serialize, qos: Qos) {
        if let Some(mqtt) = &self.mqtt {
            mqtt.publish_retained(topic, body, qos);
        }
    }
}
