//! What the daemon says of itself, gathered over the bench. No IO: messages go in.
//!
//! The daemon's figures are of windows. One that lies mostly before the bench is not taken, and a message older than the
//! bench (retained by the broker) only gives counters the value from which they grow.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::series::{Column, Merge, Series, Summary};
use config::Config;
use messages::{
    Detector, DetectorState, Health, Info, Reason, Spread, Stats, Topics, Upload, UploadState, UtcTime,
};

/// Changes, checks and stops that are remembered of each kind: a list is for people.
const NOTES: usize = 100;

pub(crate) mod detector_column {
    pub(crate) const FPS: usize = 0;
    pub(crate) const P95: usize = 2;
}

const DETECTOR: [Column; 5] = [
    ("fps", Merge::Mean),
    ("inference_mean_ms", Merge::Mean),
    ("inference_p95_ms", Merge::Peak),
    ("inference_max_ms", Merge::Peak),
    ("detections_per_s", Merge::Mean),
];

pub(crate) mod camera_column {
    pub(crate) const FPS_IN: usize = 0;
    pub(crate) const FPS_INFERRED: usize = 1;
    pub(crate) const LATENCY_P95: usize = 5;
    pub(crate) const READ_BACK_P95: usize = 7;
}

const CAMERA: [Column; 8] = [
    ("fps_in", Merge::Mean),
    ("fps_inferred", Merge::Mean),
    ("fps_decoded", Merge::Mean),
    ("fps_skipped", Merge::Mean),
    ("bitrate_kbps", Merge::Mean),
    ("latency_p95_ms", Merge::Peak),
    ("inference_p95_ms", Merge::Peak),
    ("read_back_p95_ms", Merge::Peak),
];

/// A counter that starts at 0 with each life of the daemon.
#[derive(Clone, Copy, Debug, Default)]
struct Counter {
    newest: Option<u64>,
    grown: u64,
    /// Whether it was read during the bench.
    fresh: bool,
}

impl Counter {
    fn read(&mut self, value: u64, fresh: bool) {
        if fresh && let Some(newest) = self.newest {
            self.grown += if value >= newest { value - newest } else { value };
        }
        self.newest = Some(value);
        self.fresh |= fresh;
    }

    fn grown(&self) -> Option<u64> {
        self.fresh.then_some(self.grown)
    }
}

/// Everything heard.
pub(crate) struct Figures {
    topics: Topics,
    begun: UtcTime,
    pub(crate) detector: DetectorFigures,
    pub(crate) cameras: Vec<CameraFigures>,
    /// Version of the daemon.
    pub(crate) version: Option<String>,
    /// When the daemon said that it stops, and why.
    pub(crate) stops: Vec<(f64, String)>,
    checks: BTreeMap<(String, Option<String>), FailedCheck>,
    pub(crate) messages: u64,
    /// Bodies that are not as documented, and what is wrong with the first one.
    pub(crate) unreadable: u64,
    pub(crate) first_unreadable: Option<String>,
}

/// The detector of all cameras.
pub(crate) struct DetectorFigures {
    /// Some camera is to be looked at.
    pub(crate) wanted: bool,
    pub(crate) series: Series<5>,
    /// The newest message, whenever it was sent.
    pub(crate) newest: Option<Detector>,
    frames: u64,
    detections: u64,
    errors: Counter,
    inference: Option<Inference>,
}

/// Of all windows.
#[derive(Clone, Copy)]
struct Inference {
    /// Mean of a window times its pictures.
    sum_ms: f64,
    frames: u64,
    min_ms: f64,
    max_ms: f64,
    worst_p95_ms: f64,
}

pub(crate) struct CameraFigures {
    pub(crate) id: String,
    /// Pictures per second that it is to be looked at, and whether fewer are allowed while nothing moves.
    pub(crate) detect: Option<(f64, bool)>,
    pub(crate) series: Series<8>,
    fragments_lost: Counter,
    fragments_persisted: Counter,
    lost_packets: Counter,
    dropped_frames: Counter,
    detections: Counter,
    events: Counter,
    skipped: Counter,
    damaged: Counter,
    rebuilt: Counter,
    uploads: Vec<UploadChange>,
    decoder: Option<String>,
}

/// A change of an upload's state.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct UploadChange {
    t_s: f64,
    state: UploadState,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
}

/// A failing check of the health report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct FailedCheck {
    code: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    camera: Option<String>,
    text: String,
    first_s: f64,
    last_s: f64,
}

impl FailedCheck {
    pub(crate) fn words(&self) -> String {
        let camera = self.camera.as_ref().map_or(String::new(), |camera| format!(" ({camera})"));
        let (first, last) = (self.first_s, self.last_s);
        format!("health: {}{camera} from {first:.0} s to {last:.0} s: {}", self.code, self.text)
    }
}

impl Figures {
    /// `begun`: bodies written before this are of before the bench.
    pub(crate) fn new(config: &Config, topics: Topics, begun: UtcTime) -> Figures {
        let cameras: Vec<_> = (config.cameras.iter().filter(|camera| camera.enabled))
            .map(|camera| CameraFigures {
                id: camera.id.clone(),
                detect: camera.detect.as_ref().map(|detect| (detect.fps, detect.motion_gate)),
                series: Series::new(CAMERA),
                fragments_lost: Counter::default(),
                fragments_persisted: Counter::default(),
                lost_packets: Counter::default(),
                dropped_frames: Counter::default(),
                detections: Counter::default(),
                events: Counter::default(),
                skipped: Counter::default(),
                damaged: Counter::default(),
                rebuilt: Counter::default(),
                uploads: Vec::new(),
                decoder: None,
            })
            .collect();
        let detector = DetectorFigures {
            wanted: cameras.iter().any(|camera| camera.detect.is_some()),
            series: Series::new(DETECTOR),
            newest: None,
            frames: 0,
            detections: 0,
            errors: Counter::default(),
            inference: None,
        };
        Figures {
            topics,
            begun,
            detector,
            cameras,
            version: None,
            stops: Vec::new(),
            checks: BTreeMap::new(),
            messages: 0,
            unreadable: 0,
            first_unreadable: None,
        }
    }

    /// What must be subscribed to.
    pub(crate) fn filters(topics: &Topics) -> Vec<String> {
        vec![topics.detector(), topics.health(), topics.info(), topics.stats("+"), topics.upload("+")]
    }

    /// One message, received `at_s` after the start of the bench.
    pub(crate) fn take(&mut self, topic: &str, payload: &[u8], at_s: f64) {
        self.messages += 1;
        let taken = if topic == self.topics.detector() {
            read(payload).map(|body| self.detector.take(body, self.begun, at_s))
        } else if topic == self.topics.health() {
            read(payload).map(|body| self.health(body, at_s))
        } else if topic == self.topics.info() {
            read(payload).map(|body| self.info(body, at_s))
        } else {
            let (topics, begun) = (&self.topics, self.begun);
            let mut cameras = self.cameras.iter_mut();
            cameras.try_for_each(|camera| {
                if topic == topics.stats(&camera.id) {
                    read(payload).map(|body| camera.stats(&body, begun, at_s))
                } else if topic == topics.upload(&camera.id) {
                    read(payload).map(|body| camera.upload(&body, begun, at_s))
                } else {
                    Ok(())
                }
            })
        };
        if let Err(error) = taken {
            self.unreadable += 1;
            self.first_unreadable.get_or_insert_with(|| format!("{topic}: {error}"));
        }
    }

    /// A row without values in every series.
    pub(crate) fn interrupt(&mut self, at_s: f64) {
        self.detector.series.push(at_s, [None; 5]);
        for camera in &mut self.cameras {
            camera.series.push(at_s, [None; 8]);
        }
    }

    fn health(&mut self, health: Health, at_s: f64) {
        if health.ts < self.begun {
            return;
        }
        for check in health.checks {
            let key = (check.code.clone(), check.camera.clone());
            if let Some(check) = self.checks.get_mut(&key) {
                check.last_s = at_s;
            } else if self.checks.len() < NOTES {
                let check = FailedCheck {
                    code: check.code,
                    camera: check.camera,
                    text: check.text,
                    first_s: at_s,
                    last_s: at_s,
                };
                self.checks.insert(key, check);
            }
        }
    }

    fn info(&mut self, info: Info, at_s: f64) {
        if let Some(reason) = info.stop_reason
            && info.ts >= self.begun
            && self.stops.len() < NOTES
        {
            self.stops.push((at_s, reason));
        }
        self.version = Some(info.version);
    }

    pub(crate) fn checks(&self) -> impl Iterator<Item = &FailedCheck> {
        self.checks.values()
    }
}

fn read<'a, T: serde::Deserialize<'a>>(payload: &'a [u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(payload)
}

/// Whether a window is of the bench: at least half of it lies after `begun`.
fn is_ours(written: UtcTime, window_s: f64, begun: UtcTime) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are far below 2^53")]
    let after_s = (written.as_millis() as f64 - begun.as_millis() as f64) / 1000.0;
    window_s > 0.0 && after_s >= window_s / 2.0
}

#[expect(clippy::cast_precision_loss, reason = "counts of pictures and boxes")]
fn float(count: u64) -> f64 {
    count as f64
}

impl DetectorFigures {
    fn take(&mut self, body: Detector, begun: UtcTime, at_s: f64) {
        // A change of state repeats the newest window.
        let repeated = body.window.frames > 0
            && self.newest.as_ref().is_some_and(|newest| newest.total.frames == body.total.frames);
        self.errors.read(body.total.errors, body.ts >= begun);
        if is_ours(body.ts, body.window_s, begun) && !repeated {
            let window = &body.window;
            self.frames += window.frames;
            self.detections += window.detections;
            let spread = window.inference_ms;
            if let Some(spread) = spread {
                self.inference = Some(Inference::with(self.inference, spread, window.frames.max(1)));
            }
            let values = [
                Some(window.fps),
                spread.map(|spread| spread.mean),
                spread.map(|spread| spread.p95),
                spread.map(|spread| spread.max),
                Some(float(window.detections) / body.window_s),
            ];
            self.series.push(at_s, values);
        }
        self.newest = Some(body);
    }

    pub(crate) fn errors(&self) -> Option<u64> {
        self.errors.grown()
    }

    /// The largest p95 of a window, which the p95 of the whole run cannot exceed.
    pub(crate) fn worst_p95_ms(&self) -> Option<f64> {
        self.inference.map(|inference| inference.worst_p95_ms)
    }

    pub(crate) fn summary(&self) -> Option<DetectorSummary> {
        let newest = self.newest.as_ref()?;
        Some(DetectorSummary {
            state: newest.state,
            backend: newest.backend.clone(),
            models: newest.models.iter().map(|model| model.name.clone()).collect(),
            inputs: newest.models.iter().map(|model| model.input).collect(),
            windows: self.series.summary(detector_column::FPS).map_or(0, |summary| summary.samples),
            frames: self.frames,
            detections: self.detections,
            errors: self.errors(),
            fps: self.series.summary(detector_column::FPS),
            inference_ms: self.inference.map(|inference| {
                let mean = inference.sum_ms / float(inference.frames);
                Spread::new(mean, inference.min_ms, inference.max_ms, inference.worst_p95_ms)
            }),
        })
    }
}

impl Inference {
    fn with(before: Option<Inference>, spread: Spread, frames: u64) -> Inference {
        let one = Inference {
            sum_ms: spread.mean * float(frames),
            frames,
            min_ms: spread.min,
            max_ms: spread.max,
            worst_p95_ms: spread.p95,
        };
        let Some(before) = before else { return one };
        Inference {
            sum_ms: before.sum_ms + one.sum_ms,
            frames: before.frames + one.frames,
            min_ms: before.min_ms.min(one.min_ms),
            max_ms: before.max_ms.max(one.max_ms),
            worst_p95_ms: before.worst_p95_ms.max(one.worst_p95_ms),
        }
    }
}

impl CameraFigures {
    fn stats(&mut self, body: &Stats, begun: UtcTime, at_s: f64) {
        let fresh = body.ts >= begun;
        self.lost_packets.read(body.lost_packets, fresh);
        self.dropped_frames.read(body.dropped_frames, fresh);
        let detect = body.detect.as_ref();
        if let Some(detect) = detect {
            self.detections.read(detect.detections, fresh);
            self.events.read(detect.events, fresh);
            self.skipped.read(detect.skipped, fresh);
            self.damaged.read(detect.damaged, fresh);
            self.rebuilt.read(detect.rebuilt, fresh);
            self.decoder = detect.decoder.clone().or(self.decoder.take());
        }
        if is_ours(body.ts, body.window_s, begun) {
            let values = [
                Some(body.fps.input),
                body.fps.inferred.or(detect.map(|_| 0.0)),
                body.fps.decoded,
                body.fps.skipped,
                Some(float(body.bitrate_bps) / 1000.0),
                detect.and_then(|detect| Some(detect.latency?.p95_ms)),
                detect.and_then(|detect| Some(detect.inference?.p95_ms)),
                body.latency.map(|latency| latency.p95_ms),
            ];
            self.series.push(at_s, values);
        }
    }

    fn upload(&mut self, body: &Upload, begun: UtcTime, at_s: f64) {
        let fresh = body.ts >= begun;
        self.fragments_lost.read(body.fragments_lost, fresh);
        self.fragments_persisted.read(body.fragments_persisted, fresh);
        let changed = |last: &UploadChange| (last.state, last.reason) != (body.state, body.reason);
        if self.uploads.last().is_none_or(changed) && self.uploads.len() < NOTES {
            self.uploads.push(UploadChange { t_s: at_s, state: body.state, reason: body.reason });
        }
    }

    pub(crate) fn fragments_lost(&self) -> Option<u64> {
        self.fragments_lost.grown()
    }

    pub(crate) fn summary(&self) -> CameraSummary<'_> {
        CameraSummary {
            camera: &self.id,
            decoder: self.decoder.as_deref(),
            columns: (CAMERA.iter().enumerate())
                .filter_map(|(column, (name, _))| Some((*name, self.series.summary(column)?)))
                .collect(),
            fragments_persisted: self.fragments_persisted.grown(),
            fragments_lost: self.fragments_lost.grown(),
            lost_packets: self.lost_packets.grown(),
            dropped_frames: self.dropped_frames.grown(),
            detections: self.detections.grown(),
            events: self.events.grown(),
            skipped: self.skipped.grown(),
            damaged: self.damaged.grown(),
            rebuilt: self.rebuilt.grown(),
            upload: &self.uploads,
        }
    }
}

/// The detector over the bench.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DetectorSummary {
    state: DetectorState,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) backend: Option<String>,
    /// Names, and width and height of what each takes.
    pub(crate) models: Vec<String>,
    inputs: Vec<[u32; 2]>,
    /// Sets of figures that the rest is made of.
    windows: u64,
    pub(crate) frames: u64,
    pub(crate) detections: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<u64>,
    /// All cameras together.
    #[serde(skip_serializing_if = "Option::is_none")]
    fps: Option<Summary>,
    /// Its p95 is the largest of a window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) inference_ms: Option<Spread>,
}

/// One camera over the bench; counters are what they grew by.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CameraSummary<'a> {
    camera: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    decoder: Option<&'a str>,
    #[serde(flatten)]
    columns: BTreeMap<&'static str, Summary>,
    fragments_persisted: Option<u64>,
    fragments_lost: Option<u64>,
    lost_packets: Option<u64>,
    dropped_frames: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detections: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    damaged: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rebuilt: Option<u64>,
    upload: &'a [UploadChange],
}
