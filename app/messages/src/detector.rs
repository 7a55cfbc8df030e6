//! What the detector does: for the whole box, for one camera, and over the whole life of the daemon.

use health::Reason;
use serde::{Deserialize, Serialize};

use crate::{Percentiles, UtcTime, Version};

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

/// A model as loaded; one that comes in two sizes is two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetectorModel {
    pub name: String,
    /// Of the file, hexadecimal.
    pub sha256: String,
    /// Width and height in pixels.
    pub input: [u32; 2],
    /// In the order of the model's classes.
    pub labels: Vec<String>,
    /// Whose pictures it looks at, in the order of the configuration; also those for which it has no time.
    pub cameras: Vec<String>,
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
    /// `rten`, `ort`; absent until one works. Both, where one size of the model works on one alone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub backend: Option<String>,
    /// Why this one, and why none of those that come before it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
    pub skipped: Vec<SkippedBackend>,
    /// What was loaded so far, by sizes as the model lists them.
    pub models: Vec<DetectorModel>,
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
    /// How many crossed each line of the configuration, by label.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub lines: Vec<LineCount>,
}

/// Crossings of one line by objects of one label since start; see `vision::rules::Line` for the directions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineCount {
    pub line: String,
    pub label: String,
    #[serde(rename = "in")]
    pub ins: u64,
    #[serde(rename = "out")]
    pub outs: u64,
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
    /// Names of the models that were loaded.
    pub models: Vec<String>,
    #[serde(flatten)]
    pub figures: WorkerFigures,
    pub events: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub latency_ms: Option<Spread>,
    pub cameras: Vec<CameraSummary>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIGURES: WorkerFigures = WorkerFigures {
        frames: 600,
        detections: 1212,
        fps: 10.0,
        errors: 0,
        inference_ms: Some(Spread { mean: 4.8, min: 4.1, max: 9.25, p95: 5.5 }),
    };
    const WIRE: &str = r#""frames":600,"detections":1212,"fps":10.0,"errors":0,"inference_ms":{"mean":4.8,"min":4.1,"max":9.25,"p95":5.5}"#;

    #[track_caller]
    fn check<T>(body: &T, expected: &str)
    where
        T: Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        let json = serde_json::to_string(body).expect("serialises");
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_str::<T>(&json).expect("reads back"), *body);
        let newer = json.replacen('{', r#"{"invented_later":[1],"#, 1);
        assert_eq!(serde_json::from_str::<T>(&newer).expect("unknown fields are ignored"), *body);
    }

    #[test]
    fn detector_body_is_as_documented() {
        let at = UtcTime::from_millis(1_795_183_402_417);
        let detector = Detector {
            ts: at,
            state: DetectorState::Running,
            since: at,
            backend: Some("rten".into()),
            why: Some("built in".into()),
            skipped: vec![SkippedBackend { name: "ort".into(), why: "no libonnxruntime.so".into() }],
            models: vec![DetectorModel {
                name: "scene".into(),
                sha256: "9c1e".into(),
                input: [320, 192],
                labels: vec!["person".into(), "vehicle".into()],
                cameras: vec!["door".into()],
            }],
            window_s: 60.0,
            window: FIGURES,
            not_admitted: vec![NotAdmitted {
                camera: "yard".into(),
                fps: 10.0,
                fits_fps: Some(2.5),
                detail: "80 % of a core".into(),
            }],
            ..Detector::default()
        };
        let head =
            r#"{"v":1,"ts":"2026-11-20T14:03:22.417Z","state":"running","since":"2026-11-20T14:03:22.417Z""#;
        let model = r#""models":[{"name":"scene","sha256":"9c1e","input":[320,192],"labels":["person","vehicle"],"cameras":["door"]}]"#;
        let total = r#""total":{"frames":0,"detections":0,"fps":0.0,"errors":0}"#;
        check(
            &detector,
            &format!(
                r#"{head},"backend":"rten","why":"built in","skipped":[{{"name":"ort","why":"no libonnxruntime.so"}}],{model},"window_s":60.0,"window":{{{WIRE}}},{total},"not_admitted":[{{"camera":"yard","fps":10.0,"fits_fps":2.5,"detail":"80 % of a core"}}]}}"#
            ),
        );
        let failed = Detector {
            ts: at,
            since: at,
            state: DetectorState::Failed,
            reason: Some(Reason::DetectorFailed),
            detail: Some("not ONNX".into()),
            ..Detector::default()
        };
        let head = head.replace("running", "failed");
        check(
            &failed,
            &format!(
                r#"{head},"reason":"detector_failed","detail":"not ONNX","skipped":[],"models":[],"window_s":0.0,{},{total},"not_admitted":[]}}"#,
                total.replace("total", "window")
            ),
        );
    }

    #[test]
    fn summary_has_the_figures_at_its_root_and_at_each_camera() {
        let latency_ms = Some(Spread::new(61.000_04, 40.0, f64::INFINITY, 80.123_46));
        let summary = WorkerSummary {
            started: UtcTime::from_millis(0),
            ended: UtcTime::from_millis(60_000),
            duration_s: 60.0,
            backend: Some("rten".into()),
            models: vec!["scene".into()],
            figures: FIGURES,
            events: 7,
            latency_ms,
            cameras: vec![CameraSummary {
                camera: "door".into(),
                figures: FIGURES,
                events: 7,
                decoded: 1800,
                skipped: 3,
                damaged: 1,
                rebuilt: 0,
                decoder: Some("avdec_h264".into()),
                latency_ms: None,
            }],
            ..WorkerSummary::default()
        };
        check(
            &summary,
            &format!(
                r#"{{"v":1,"started":"1970-01-01T00:00:00.000Z","ended":"1970-01-01T00:01:00.000Z","duration_s":60.0,"backend":"rten","models":["scene"],{WIRE},"events":7,"latency_ms":{{"mean":61.0,"min":40.0,"max":0.0,"p95":80.123}},"cameras":[{{"camera":"door",{WIRE},"events":7,"decoded":1800,"skipped":3,"damaged":1,"rebuilt":0,"decoder":"avdec_h264"}}]}}"#
            ),
        );
    }

    #[test]
    fn statistics_of_a_camera_have_what_is_known() {
        check(&DetectStats::default(), r#"{"detections":0,"events":0,"damaged":0,"rebuilt":0,"skipped":0}"#);
        let stats = DetectStats {
            decoder: Some("openh264dec".into()),
            latency: Some(Percentiles { p50_ms: 61.0, p95_ms: 80.5 }),
            inference: Some(Percentiles { p50_ms: 4.8, p95_ms: 5.5 }),
            lines: vec![LineCount { line: "kerb".into(), label: "person".into(), ins: 2, outs: 1 }],
            ..DetectStats::default()
        };
        check(
            &stats,
            r#"{"detections":0,"events":0,"decoder":"openh264dec","latency":{"p50_ms":61.0,"p95_ms":80.5},"inference":{"p50_ms":4.8,"p95_ms":5.5},"damaged":0,"rebuilt":0,"skipped":0,"lines":[{"line":"kerb","label":"person","in":2,"out":1}]}"#,
        );
    }
}
