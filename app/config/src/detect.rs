//! `[detect]` and `[camera.detect]`.

use std::path::PathBuf;
use std::time::Duration;

use vision::rules::Rules;

/// `[detect]`: what all cameras share.
#[derive(Clone, Debug, PartialEq)]
pub struct Detect {
    pub model: Model,
    pub backend: DetectBackend,
    /// Absent: looked for where the system keeps its libraries.
    pub onnxruntime_file: Option<PathBuf>,
    /// Threads of one call of the model, 1..=64.
    pub threads: usize,
    /// Name of a GStreamer element. Absent: the best that works.
    pub decoder: Option<String>,
    /// From a picture's arrival to its detections.
    pub latency_budget: Duration,
    /// How much of one core inference may take, in percent; two cores are 200.
    pub core_share_percent: u32,
    /// Where each event is written as a JSON file; absent: nowhere. It need not exist.
    pub events_folder: Option<PathBuf>,
    /// At most this many events of each camera, the oldest go.
    pub events_keep: usize,
    /// Between two sets of worker figures, in the log and over MQTT.
    pub figures_every: Duration,
    /// For all cameras; each camera has its own copy with its overrides.
    pub camera: CameraDetect,
}

impl Default for Detect {
    fn default() -> Detect {
        Detect {
            model: Model::default(),
            backend: DetectBackend::Auto,
            onnxruntime_file: None,
            threads: 1,
            decoder: None,
            latency_budget: Duration::from_secs(1),
            core_share_percent: 80,
            events_folder: None,
            events_keep: 10_000,
            figures_every: Duration::from_secs(60),
            camera: CameraDetect::default(),
        }
    }
}

/// What finds things in pictures.
#[derive(Clone, Debug, PartialEq)]
pub enum Model {
    /// NanoDet-g, in the first of these folders that has it. See [`crate::models`].
    NanoDet { folders: Vec<PathBuf> },
    /// Built in: knows the drawn figures of the demo, and nothing else.
    Scene,
    /// ONNX. Labels, one in each line, come from the other file, or from the model's metadata.
    File { model: PathBuf, labels: Option<PathBuf> },
}

impl Default for Model {
    fn default() -> Model {
        Model::NanoDet { folders: Vec::new() }
    }
}

/// What runs the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DetectBackend {
    /// ONNX Runtime where its library is found, else rten.
    #[default]
    Auto,
    Rten,
    Ort,
}

/// `[camera.detect]`
#[derive(Clone, Debug, PartialEq)]
pub struct CameraDetect {
    /// At most so many pictures per second go through the model, 0.1..=30.0.
    pub fps: f64,
    /// Only key frames are decoded.
    pub key_frames_only: bool,
    /// Boxes of one label that overlap more than this are one, 0.0..=1.0.
    pub iou: f32,
    /// Publish the best picture of each event.
    pub snapshots: bool,
    /// Publish whether anything moves.
    pub motion: bool,
    /// While nothing moves, only one picture per second goes through the model.
    pub motion_gate: bool,
    /// What becomes an event. Its times are milliseconds of producer time.
    pub rules: Rules,
}

impl Default for CameraDetect {
    fn default() -> CameraDetect {
        CameraDetect {
            fps: 5.0,
            key_frames_only: false,
            iou: 0.5,
            snapshots: true,
            motion: true,
            motion_gate: false,
            rules: Rules::default(),
        }
    }
}
