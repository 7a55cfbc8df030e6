//! Figures of the detection: what is published, logged now and then, and said at the end.

use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use vision::figures::Histogram;

use super::detector::{self, DetectorHandle, DetectorState, Figures};
use crate::camera::SeeingView;
use crate::cameras::Views;
use messages::{
    self, CameraSummary, DetectStats, Detector, DetectorModel, LineCount, NotAdmitted, Percentiles, Reason,
    Spread, UtcTime, Version, WorkerFigures, WorkerSummary, rounded,
};

/// Watches the detector of the box.
pub struct Worker {
    detector: DetectorHandle,
    views: watch::Receiver<Views>,
    started: SystemTime,
    since: Instant,
    log_every: Duration,
    logged: (Instant, Figures),
    published: (Instant, Figures),
}

impl Worker {
    pub fn new(
        detector: DetectorHandle,
        views: watch::Receiver<Views>,
        log_every: Duration,
        started: SystemTime,
    ) -> Self {
        let since = Instant::now() - SystemTime::now().duration_since(started).unwrap_or_default();
        let nothing = (since, Figures::default());
        Self { detector, views, started, since, log_every, logged: nothing.clone(), published: nothing }
    }

    /// When the state of the detector began.
    pub fn state_since(&self) -> UtcTime {
        self.detector.report().borrow().since.into()
    }

    /// The state of the detector with the figures since the last call.
    pub fn message(&mut self) -> Detector {
        let (now, total) = (Instant::now(), self.total());
        let (before, published) = std::mem::replace(&mut self.published, (now, total.clone()));
        let window = now.duration_since(before);
        let report = self.detector.report().borrow().clone();
        let model = report.model.as_deref();
        let reason = match report.state {
            DetectorState::Failed => Some(Reason::DetectorFailed),
            DetectorState::Stuck => Some(Reason::DetectorStuck),
            DetectorState::Loading | DetectorState::Running => None,
        };
        let views = self.views.borrow().clone();
        let rooms = views.iter().filter_map(|view| Some((view, view.seeing.as_ref()?)));
        let not_admitted = rooms.filter_map(|(view, seeing)| {
            let room = report.rooms.get(seeing.number)?;
            Some(NotAdmitted {
                camera: view.config.id.clone(),
                fps: view.config.detect.as_ref()?.fps,
                fits_fps: (room.fps > 0.0).then_some(room.fps),
                detail: room.advice.clone()?,
            })
        });
        Detector {
            v: Version::default(),
            ts: SystemTime::now().into(),
            state: match report.state {
                DetectorState::Loading => messages::DetectorState::Loading,
                DetectorState::Running => messages::DetectorState::Running,
                DetectorState::Stuck => messages::DetectorState::Stuck,
                DetectorState::Failed => messages::DetectorState::Failed,
            },
            since: report.since.into(),
            reason,
            detail: report.problem.clone(),
            backend: model.map(|model| model.backend.to_owned()),
            why: model.map(|model| model.because.clone()),
            model: model.map(detector_model),
            window_s: rounded(window.as_secs_f64()),
            window: figures(&total, &published, &total.recent, window),
            total: figures(&total, &Figures::default(), &total.inference, now.duration_since(self.since)),
            not_admitted: not_admitted.collect(),
            ..Detector::default()
        }
    }

    /// Says in the log what was done since the last time, when it is time.
    pub fn log(&mut self) {
        let (before, logged) = &self.logged;
        let window = before.elapsed();
        if window < self.log_every {
            return;
        }
        let total = self.total();
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
        self.logged = (Instant::now(), total);
    }

    /// Of the whole run.
    pub fn summary(&self) -> WorkerSummary {
        let ended = SystemTime::now();
        let whole = self.since.elapsed();
        let report = self.detector.report().borrow().clone();
        let mut latency = Histogram::default();
        let (total, nothing) = (self.total(), Figures::default());
        let mut events = 0;
        let mut cameras = Vec::new();
        for (view, seeing) in
            self.views.borrow().iter().filter_map(|view| Some((view, view.seeing.as_ref()?)))
        {
            let report = seeing.report.borrow();
            let of_camera = seeing.detector.figures(seeing.number);
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
            backend: report.model.as_ref().map(|model| model.backend.to_owned()),
            model: report.model.as_ref().map(|model| model.name.clone()),
            figures: figures(&total, &nothing, &total.inference, whole),
            events,
            latency_ms: spread(&latency),
            cameras,
        }
    }

    fn total(&self) -> Figures {
        let mut total = Figures::default();
        for seeing in self.views.borrow().iter().filter_map(|view| view.seeing.as_ref()) {
            total.add(&seeing.detector.figures(seeing.number));
        }
        total
    }
}

/// What `stats` says of one camera's detection.
pub fn stats(seeing: &SeeingView) -> DetectStats {
    let report = seeing.report.borrow();
    let figures = seeing.detector.figures(seeing.number);
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

fn detector_model(model: &detector::Model) -> DetectorModel {
    let pixels = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
    DetectorModel {
        name: model.name.clone(),
        sha256: model.sha256.clone(),
        input: [pixels(model.input.0), pixels(model.input.1)],
        labels: model.labels.clone(),
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
