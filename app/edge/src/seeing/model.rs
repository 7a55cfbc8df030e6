//! Which model and backend the configuration means.

use std::io::Read;
use std::path::Path;

use detect::capacity::Demand;
use detect::{BackendChoice, LabelSource, LoadOptions, Loaded, ModelSource};
use sha2::{Digest, Sha256};

use super::detector::{DetectorOptions, HANG};
use config::DetectBackend;

/// Knows the rendered figures of the simulated cameras, and nothing else.
const BUILT_IN: &[u8] = include_bytes!("../../../model/scene.onnx");
const BUILT_IN_LABELS: &str = include_str!("../../../model/scene.labels");
const BUILT_IN_NAME: &str = "scene";

/// What the detector is started with, for these cameras in this order.
pub fn options(settings: &config::Detect, cameras: &[config::Camera]) -> DetectorOptions {
    let demands = cameras
        .iter()
        .map(|camera| Demand { id: camera.id.clone(), fps: wanted(camera).map_or(0.0, |detect| detect.fps) });
    let iou = cameras.iter().filter_map(wanted).map(|detect| detect.iou).fold(0.0, f32::max);
    let loader = settings.clone();
    DetectorOptions {
        loader: Box::new(move || load(&loader)),
        demands: demands.collect(),
        min_scores: cameras.iter().map(min_score).collect(),
        core_share: f64::from(settings.core_share_percent) / 100.0,
        iou,
        latency_budget: settings.latency_budget,
        hang: HANG,
    }
}

/// The model, and the SHA-256 of its file.
fn load(settings: &config::Detect) -> Result<(Loaded, String), String> {
    let (source, sha256) = match &settings.model_file {
        Some(path) => (ModelSource::File(path.clone()), sha256_of(path)?),
        None => {
            let source = ModelSource::BuiltIn { name: BUILT_IN_NAME, bytes: BUILT_IN };
            (source, hex(&Sha256::digest(BUILT_IN)))
        }
    };
    let labels = match (&settings.labels_file, &settings.model_file) {
        (Some(path), _) => LabelSource::File(path.clone()),
        (None, Some(_)) => LabelSource::Model,
        (None, None) => LabelSource::BuiltIn(BUILT_IN_LABELS),
    };
    let options = LoadOptions {
        backend: match settings.backend {
            DetectBackend::Auto => BackendChoice::Auto,
            DetectBackend::Rten => BackendChoice::Rten,
            DetectBackend::Ort => BackendChoice::Ort,
        },
        library: settings.onnxruntime_file.clone(),
        threads: settings.threads,
        // A processor runs a batch no faster than its pictures one by one, and the first of them waits for the last.
        max_batch: 1,
        ..LoadOptions::default()
    };
    let mut loaded = detect::load(&source, &labels, &options).map_err(|error| health::chain(&error))?;
    // The folder of the model is nobody's business on a dashboard.
    if let Some(name) = settings.model_file.as_deref().and_then(Path::file_stem) {
        loaded.model = name.to_string_lossy().into_owned();
    }
    Ok((loaded, sha256))
}

fn sha256_of(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("model {}: {error}", path.display());
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut part = vec![0; 1 << 16];
    loop {
        match file.read(&mut part).map_err(failed)? {
            0 => return Ok(hex(&hasher.finalize())),
            length => hasher.update(&part[..length]),
        }
    }
}

/// The least score that any label of the camera needs.
fn min_score(camera: &config::Camera) -> f32 {
    let Some(detect) = &camera.detect else { return f32::INFINITY };
    let by_label = detect.rules.by_label.values().map(|rule| rule.min_score);
    by_label.fold(detect.rules.label.min_score, f32::min)
}

fn wanted(camera: &config::Camera) -> Option<&config::CameraDetect> {
    camera.detect.as_ref().filter(|_| camera.enabled)
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
