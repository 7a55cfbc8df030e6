//! NanoDet-g on ONNX Runtime, as a user has it after `cargo xtask model`.

use std::path::{Path, PathBuf};
use std::process::Command;

use camera_sim::ClipSpec;

use crate::PYTHON;
use crate::cost::Load;

/// People in a street, 768x576, 10 pictures a second, 79.5 s.
const FOOTAGE: &str = "/usr/share/doc/opencv-doc/examples/data/vtest.avi";
const SQUARE: &str = "nanodet-416x416.onnx";
const LIBRARY: &str = "
import glob, os, onnxruntime
print(glob.glob(os.path.dirname(onnxruntime.__file__) + '/capi/libonnxruntime.so*')[0])
";

/// Each number of cameras with its rate: real footage at 416x416, and `scenes` by the size that their shape asks for. The
/// error says what is missing.
pub(crate) fn loads(wanted: &[(usize, u32)], scenes: &ClipSpec) -> Result<Vec<Load>, String> {
    let square = model()?;
    let library = library()?;
    let footage = Path::new(FOOTAGE);
    if !footage.exists() {
        return Err(format!("{FOOTAGE} is missing; apt-get install opencv-doc"));
    }
    let footage = ClipSpec::default().of_file(footage).map_err(|error| error.to_string())?;
    let library = format!("backend = \"ort\"\nonnxruntime_file = \"{}\"\n", library.display());
    // As it is set with `model = "nanodet"`, which would choose the other size for these pictures.
    let of_square =
        format!("model_file = \"{}\"\nlabels = {:?}\n{library}", square.display(), config::models::LABELS);
    let by_shape = format!("model = \"nanodet\"\n{library}");
    let kinds = [
        ("576p footage, NanoDet-g 416x416", footage, of_square),
        ("720p scenes, NanoDet-g 640x384", scenes.clone(), by_shape),
    ];
    let load = |(what, clip, detect): &(&str, ClipSpec, String), (cameras, fps)| Load {
        what: (*what).to_owned(),
        clip: clip.clone(),
        detect: detect.clone(),
        cameras,
        fps,
    };
    Ok(kinds.iter().flat_map(|kind| wanted.iter().map(|&wanted| load(kind, wanted))).collect())
}

/// The one that the daemon finds, too.
fn model() -> Result<PathBuf, String> {
    let folders = config::Environment::of(Path::new("")).models;
    let folder = config::models::installed(&folders);
    folder.map(|folder| folder.join(SQUARE)).ok_or_else(|| config::models::how_to_install(&folders))
}

/// Of the Python package.
fn library() -> Result<PathBuf, String> {
    let python = std::env::var_os(PYTHON)
        .ok_or_else(|| format!("{PYTHON} is not set: name a Python with onnxruntime"))?;
    let asked = Command::new(&python).args(["-c", LIBRARY]).output();
    let asked = asked.map_err(|error| format!("{}: {error}", Path::new(&python).display()))?;
    let path = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
    if path.is_empty() {
        return Err(format!("{} has no package onnxruntime", Path::new(&python).display()));
    }
    Ok(path.into())
}
