//! What the detector does: for the whole box, for one camera, and over the whole life of the daemon.

use serde::{Deserialize, Serialize};

use super::{Percentiles, Reason, UtcTime, Version};

/// What the detector that all cameras share is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DetectorState {
    /// No camera wants it.
    #[default]
    Off,
    /// The model is read, tried and timed.
    Loading,
    Running,
    /// A picture has been in it for far too long; it is replaced when it comes back.
    Stuck,
    /// It does not work: see `reason`. Recording goes on.
    Failed,
}

/// Mean, ends and 95th percentile of a time in milliseconds, to a thousandth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub mean: f64,
    pub min: f64,
    pub max: f64,
    pub p95: f64,
}

impl Spread {
    /// Rounds; what is not finite (there is no such time) becomes 0.
    pub fn new(mean: f64, min: f64, max: f64, p95: f64) -> Spread {
        let [mean, min, max, p95] = [mean, min, max, p95].map(rounded);
        Spread { mean, min, max, p95 }
    }
}

/// To three decimals, for milliseconds and rates; what is not finite becomes 0, because JSON has no word for it.
pub fn rounded(value: f64) -> f64 {
    let thousandths = (value * 1e3).round() / 1e3;
    if thousandths.is_finite() { thousandths } else { 0.0 }
}

/// Figures of the worker over a stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerFigures {
    /// Pictures that went through the model.
    pub frames: u64,
    /// Boxes found in them, above their scores and after suppression.
    pub detections: u64,
    /// Pictures per second, of all cameras together.
    pub fps: f64,
    /// Calls of the model that failed.
    pub errors: u64,
    /// One call of the model for one picture; absent where there was none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub inference_ms: Option<Spread>,
}

/// A backend that could have been used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedBackend {
    pub name: String,
    pub why: String,
}

/// The model as loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetectorModel {
    pub name: String,
    /// Of the file, hexadecimal.
    pub sha256: String,
    /// Width and height in pixels.
    pub input: [u32; 2],
    /// In the order of the model's classes.
    pub labels: Vec<String>,
}

/// A camera that the detector has no time for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NotAdmitted {
    pub camera: String,
    /// Pictures per second that it was to have.
    pub fps: f64,
    /// How many would fit beside the other cameras; absent when none do.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fits_fps: Option<f64>,
    /// For people: what it would take, what is there, what to change (rate, input size, model).
    pub detail: String,
}

/// The detector of the box; published at each change of `state` and with every set of figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Detector {
    pub v: Version,
    pub ts: UtcTime,
    pub state: DetectorState,
    /// When `state` began.
    pub since: UtcTime,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Reason>,
    /// For people: found, expected, what to change.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
    /// `rten`, `ort`; absent until one works.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub backend: Option<String>,
    /// Why this one, and why none of those that come before it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
    pub skipped: Vec<SkippedBackend>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub model: Option<DetectorModel>,
    /// Length of the stretch that `window` is taken over.
    pub window_s: f64,
    pub window: WorkerFigures,
    /// Since start.
    pub total: WorkerFigures,
    pub not_admitted: Vec<NotAdmitted>,
}

/// Detection of one camera, in its [`Stats`](super::Stats). Counters are since start, percentiles of the newest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DetectStats {
    /// Boxes found.
    pub detections: u64,
    /// Events begun.
    pub events: u64,
    /// The element that decodes, such as `avdec_h264`; absent until one does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub decoder: Option<String>,
    /// From a picture's producer time to the hand-over of what was seen in it to MQTT.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub latency: Option<Percentiles>,
    /// One call of the model.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub inference: Option<Percentiles>,
    /// Pictures that the decoder gave up or marked as damaged.
    pub damaged: u64,
    /// Times the decoder was built anew after an error or silence.
    pub rebuilt: u64,
    /// Pictures due for the detector that a newer one replaced.
    pub skipped: u64,
}

/// One camera in a [`WorkerSummary`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CameraSummary {
    pub camera: String,
    #[serde(flatten)]
    pub figures: WorkerFigures,
    pub events: u64,
    /// Pictures decoded, and due but replaced by a newer one.
    pub decoded: u64,
    pub skipped: u64,
    pub damaged: u64,
    pub rebuilt: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub decoder: Option<String>,
    /// From a picture's producer time to the hand-over of what was seen in it to MQTT.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub latency_ms: Option<Spread>,
}

/// The last word of the worker, one JSON object when the daemon stops.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerSummary {
    pub v: Version,
    pub started: UtcTime,
    pub ended: UtcTime,
    pub duration_s: f64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub backend: Option<String>,
    /// Name of the model.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub model: Option<String>,
    #[serde(flatten)]
    pub figures: WorkerFigures,
    pub events: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub latency_ms: Option<Spread>,
    pub cameras: Vec<CameraSummary>,
}
