//! Figures of detection: what is published, logged now and then, and printed at the end.

use std::time::{Duration, Instant, SystemTime};

use analytics::detector::{DetectorHandle, DetectorReport, DetectorState, Figures, Model};
use clock::Clock;
use messages::{
    self, CameraSummary, DetectStats, Detector, DetectorModel, LineCount, NotAdmitted, Percentiles, Spread,
    UtcTime, Version, WorkerFigures, WorkerSummary, rounded,
};
use tokio::sync::watch;
use vision::figures::Histogram;

use crate::camera::AnalyticsView;
use crate::cameras::Views;

/// Watches the detector of the box.
pub struct DetectorPublisher {
    detector: DetectorHandle,
    views: watch::Receiver<Views>,
    started: SystemTime,
    since: Instant,
    log_every: Duration,
    logged: (Instant, Figures),
    published: (Instant, Figures),
    clock: Clock,
}

impl DetectorPublisher {
    pub fn new(
        detector: DetectorHandle,
        views: watch::Receiver<Views>,
        log_every: Duration,
        started: SystemTime,
        clock: Clock,
    ) -> Self {
        let (now, up) = (clock.now(), clock.wall().duration_since(started).unwrap_or_default());
        let since = now.checked_sub(up).unwrap_or(now);
        let nothing = (since, Figures::default());
        Self {
            detector,
            views,
            started,
            since,
            log_every,
            logged: nothing.clone(),
            published: nothing,
            clock,
        }
    }

    /// When the state of the detector began.
    pub fn state_since(&self) -> UtcTime {
        self.detector.report().borrow().since.into()
    }

    /// The state of the detector with the figures since the last call.
    pub fn message(&mut self) -> Detector {
        let (now, total) = (self.clock.now(), self.detector.total());
        let (before, published) = std::mem::replace(&mut self.published, (now, total.clone()));
        let window = now.saturating_duration_since(before);
        let report = self.detector.report().borrow().clone();
        let not_admitted = report.allowances.iter().filter_map(|allowance| {
            Some(NotAdmitted {
                camera: allowance.camera.clone(),
                fps: allowance.wanted_fps,
                fits_fps: (allowance.fps > 0.0).then_some(allowance.fps),
                detail: allowance.problem.as_ref()?.to_string(),
            })
        });
        Detector {
            v: Version::default(),
            ts: self.clock.wall().into(),
            state: match report.state {
                DetectorState::Off => messages::DetectorState::Off,
                DetectorState::Loading => messages::DetectorState::Loading,
                DetectorState::Running => messages::DetectorState::Running,
                DetectorState::Stuck => messages::DetectorState::Stuck,
                DetectorState::Failed => messages::DetectorState::Failed,
            },
            since: report.since.into(),
            reason: report.problem.as_ref().map(|problem| problem.reason),
            detail: report.problem.as_ref().map(ToString::to_string),
            backend: each_once(&report, ", ", |model| model.backend),
            why: each_once(&report, "; ", |model| &model.because),
            models: report.models.iter().map(|(size, model)| detector_model(&report, *size, model)).collect(),
            window_s: rounded(window.as_secs_f64()),
            window: figures(&total, &published, &total.recent, window),
            total: figures(
                &total,
                &Figures::default(),
                &total.inference,
                now.saturating_duration_since(self.since),
            ),
            not_admitted: not_admitted.collect(),
            ..Detector::default()
        }
    }

    /// Logs what was done since the last time, when it is time.
    pub fn log(&mut self) {
        let (before, logged) = &self.logged;
        let window = self.clock.since(*before);
        if window < self.log_every {
            return;
        }
        let total = self.detector.total();
        let WorkerFigures { frames, detections, fps, errors, inference_ms } =
            figures(&total, logged, &total.recent, window);
        let spread = inference_ms.unwrap_or_default();
        tracing::info!(
            frames,
            detections,
            fps,
            errors,
            inference_mean_ms = spread.mean,
            inference_min_ms = spread.min,
            inference_max_ms = spread.max,
            inference_p95_ms = spread.p95,
            "detection"
        );
        self.logged = (self.clock.now(), total);
    }

    /// Of the whole run.
    pub fn summary(&self) -> WorkerSummary {
        let ended = self.clock.wall();
        let whole = self.clock.since(self.since);
        let report = self.detector.report().borrow().clone();
        let mut latency = Histogram::default();
        let (total, nothing) = (self.detector.total(), Figures::default());
        let mut events = 0;
        let mut cameras = Vec::new();
        for (view, analytics) in
            self.views.borrow().iter().filter_map(|view| Some((view, view.analytics.as_ref()?)))
        {
            let report = analytics.report.borrow();
            let of_camera = analytics.figures.figures();
            latency.merge(&report.latency);
            events += report.events;
            let decode = report.decode.as_ref();
            cameras.push(CameraSummary {
                camera: view.config.id.clone(),
                figures: figures(&of_camera, &nothing, &of_camera.inference, whole),
                events: report.events,
                decoded: decode.map_or(0, |decode| decode.decoded),
                skipped: of_camera.skipped,
                damaged: decode.map_or(0, |decode| decode.damaged),
                rebuilt: decode.map_or(0, |decode| decode.rebuilt),
                decoder: decode.and_then(|decode| decode.decoder.clone()),
                latency_ms: spread(&report.latency),
            });
        }
        WorkerSummary {
            v: Version::default(),
            started: self.started.into(),
            ended: ended.into(),
            duration_s: rounded(whole.as_secs_f64()),
            backend: each_once(&report, ", ", |model| model.backend),
            models: report.models.values().map(|model| model.name.clone()).collect(),
            figures: figures(&total, &nothing, &total.inference, whole),
            events,
            latency_ms: spread(&latency),
            cameras,
        }
    }
}

/// What `stats` has of one camera's detection.
pub(super) fn stats(analytics: &AnalyticsView) -> DetectStats {
    let report = analytics.report.borrow();
    let figures = analytics.figures.figures();
    let decode = report.decode.as_ref();
    DetectStats {
        detections: figures.detections,
        events: report.events,
        decoder: decode.and_then(|decode| decode.decoder.clone()),
        latency: percentiles(&report.recent_latency),
        inference: percentiles(&figures.recent),
        damaged: decode.map_or(0, |decode| decode.damaged),
        rebuilt: decode.map_or(0, |decode| decode.rebuilt),
        skipped: figures.skipped,
        lines: report.crossings.iter().map(line_count).collect(),
    }
}

fn line_count(count: &vision::event::LineCount) -> LineCount {
    let vision::event::LineCount { line, label, ins, outs } = count;
    LineCount { line: line.to_string(), label: label.to_string(), ins: *ins, outs: *outs }
}

/// What the loaded models have to say, the same thing once; nothing without any.
fn each_once<'a>(
    report: &'a DetectorReport,
    between: &str,
    said: impl Fn(&'a Model) -> &'a str,
) -> Option<String> {
    let mut all: Vec<&str> = report.models.values().map(|model| said(model)).collect();
    all.dedup();
    (!all.is_empty()).then(|| all.join(between))
}

fn detector_model(report: &DetectorReport, size: usize, model: &Model) -> DetectorModel {
    let pixels = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
    let cameras = report.allowances.iter().filter(|allowance| allowance.size == size);
    DetectorModel {
        name: model.name.clone(),
        sha256: model.sha256.clone(),
        input: [pixels(model.input.0), pixels(model.input.1)],
        labels: model.labels.clone(),
        cameras: cameras.map(|allowance| allowance.camera.clone()).collect(),
    }
}

/// What was done between two states, and how long it took.
#[expect(clippy::cast_precision_loss, reason = "pictures of a camera's life")]
fn figures(now: &Figures, before: &Figures, times: &Histogram, window: Duration) -> WorkerFigures {
    let frames = now.frames.saturating_sub(before.frames);
    WorkerFigures {
        frames,
        detections: now.detections.saturating_sub(before.detections),
        fps: rounded(frames as f64 / window.as_secs_f64().max(0.001)),
        errors: now.errors.saturating_sub(before.errors),
        inference_ms: spread(times),
    }
}

fn spread(times: &Histogram) -> Option<Spread> {
    let summary = times.summary()?;
    Some(Spread::new(ms(summary.mean), ms(summary.min), ms(summary.max), ms(summary.p95)))
}

fn percentiles(times: &Histogram) -> Option<Percentiles> {
    let summary = times.summary()?;
    Some(Percentiles { p50_ms: rounded(ms(summary.p50)), p95_ms: rounded(ms(summary.p95)) })
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
