//! Which model and backend the configuration means.

use std::io::Read;
use std::path::Path;

use clock::Clock;
use config::DetectBackend;
use detect::{BackendChoice, LabelSource, LoadOptions, Loaded, ModelSource};
use sha2::{Digest, Sha256};

use crate::detector::{DetectorOptions, HANG};

/// Knows the rendered figures of the simulated cameras, and nothing else.
const BUILT_IN: &[u8] = include_bytes!("../../model/scene.onnx");
const BUILT_IN_LABELS: &str = include_str!("../../model/scene.labels");
const BUILT_IN_NAME: &str = "scene";

/// What the detector is started with.
pub fn detector_options(settings: &config::Detect, clock: Clock) -> DetectorOptions {
    let loader = settings.clone();
    DetectorOptions {
        loader: Box::new(move || load(&loader)),
        core_share: f64::from(settings.core_share_percent) / 100.0,
        latency_budget: settings.latency_budget,
        hang: HANG,
        clock,
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

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
