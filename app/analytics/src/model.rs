//! Which model and backend the configuration means.

use std::io::Read;
use std::path::{Path, PathBuf};

use clock::Clock;
use config::models::{self, ModelFile};
use config::{DetectBackend, Model};
use detect::{BackendChoice, Detector, LabelSource, LoadOptions, Loaded, ModelSource, Settings};
use sha2::{Digest, Sha256};

use crate::detector::{DetectorOptions, HANG, Model as LoadedModel};

/// Knows the rendered figures of the simulated cameras, and nothing else.
const BUILT_IN: &[u8] = include_bytes!("../../model/scene.onnx");
const BUILT_IN_LABELS: &str = include_str!("../../model/scene.labels");
const BUILT_IN_NAME: &str = "scene";

/// Boxes below this are noise; what lies between it and a camera's own scores only continues tracks.
const LOW_SCORE: f32 = 0.1;

/// What looks at pictures, made of what a [`Loader`](crate::detector::Loader) has returned. Boxes of one label that overlap more
/// than `iou` are one.
pub(crate) fn detector_of(
    (loaded, sha256): (Loaded, String),
    iou: f32,
    clock: Clock,
) -> (Detector, LoadedModel) {
    for note in &loaded.notes {
        tracing::warn!(model = loaded.model, note, "the model could be better");
    }
    let input = loaded.backend.input();
    let model = LoadedModel {
        name: loaded.model,
        sha256,
        backend: loaded.chosen.backend,
        because: loaded.chosen.because,
        input: (input.width, input.height),
        labels: loaded.labels,
    };
    let settings = Settings { nms_iou: iou, ..Settings::new(model.labels.len(), LOW_SCORE) };
    (Detector::new(loaded.backend, loaded.head, settings, clock), model)
}

/// What the detector is started with.
pub fn detector_options(settings: &config::Detect, clock: Clock) -> DetectorOptions {
    let loader = settings.clone();
    let sizes = match settings.model {
        Model::NanoDet { .. } => models::nanodet().iter().map(|file| (file.width, file.height)).collect(),
        Model::Scene | Model::File { .. } => Vec::new(),
    };
    DetectorOptions {
        loader: Box::new(move |size| load(&loader, size)),
        sizes,
        core_share: f64::from(settings.core_share_percent) / 100.0,
        latency_budget: settings.latency_budget,
        hang: HANG,
        clock,
    }
}

/// The model in one of its sizes, and the SHA-256 of its file.
fn load(settings: &config::Detect, size: usize) -> Result<(Loaded, String), String> {
    let (source, labels, sha256) = match &settings.model {
        Model::File { model, labels } => {
            let labels = labels.clone().map_or(LabelSource::Model, LabelSource::File);
            (ModelSource::File(model.clone()), labels, sha256_of(model)?)
        }
        Model::Scene => {
            let source = ModelSource::BuiltIn { name: BUILT_IN_NAME, bytes: BUILT_IN };
            (source, LabelSource::BuiltIn(BUILT_IN_LABELS), hex(&Sha256::digest(BUILT_IN)))
        }
        Model::NanoDet { folders } => {
            let files = models::nanodet();
            let file = files.get(size).ok_or_else(|| format!("NanoDet-g has {} sizes", files.len()))?;
            let (path, sha256) = installed(file, folders)?;
            (ModelSource::File(path), LabelSource::Model, sha256)
        }
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
    if let ModelSource::File(path) = &source
        && let Some(name) = path.file_stem()
    {
        loaded.model = name.to_string_lossy().into_owned();
    }
    Ok((loaded, sha256))
}

/// Where this file of NanoDet-g is. Half of it, or another one, is refused.
fn installed(file: &ModelFile, folders: &[PathBuf]) -> Result<(PathBuf, String), String> {
    let path = folders.iter().map(|folder| folder.join(file.name)).find(|path| path.is_file());
    let path = path.ok_or_else(|| models::how_to_install(folders))?;
    let sha256 = sha256_of(&path)?;
    if sha256 != file.sha256 {
        return Err(format!(
            "model {} has the SHA-256 {sha256}, expected {}: it is damaged, half-written or of another version of kvs-edge; \
             `cargo xtask model` installs it anew",
            path.display(),
            file.sha256
        ));
    }
    Ok((path, sha256))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_is_not_there_or_not_whole_says_what_to_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = config::Detect {
            model: Model::NanoDet { folders: vec![folder.path().to_owned()] },
            ..config::Detect::default()
        };
        let error =
            |size| load(&settings, size).map(|(loaded, _)| loaded.model).expect_err("nothing is there");
        let missing = error(0);
        let command = format!("`cargo xtask model --folder {}`", folder.path().display());
        assert!(missing.contains("not installed") && missing.contains(&command), "{missing}");
        let file = &models::nanodet()[1];
        std::fs::write(folder.path().join(file.name), b"the first half of it").expect("written");
        let half = error(1);
        for word in [file.name, file.sha256, "half-written", "`cargo xtask model`"] {
            assert!(half.contains(word), "{word}: {half}");
        }
    }
}
