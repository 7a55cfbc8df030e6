//! `cargo xtask model`: NanoDet-g for the daemon, by `app/model/nanodet/install.py` with packages of its own.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::python;

/// Installs it into `folder`, or where the daemon of this user looks; leaves alone what is there already.
pub(crate) fn install(folder: Option<PathBuf>) -> Result<PathBuf, String> {
    let folder = folder.map_or_else(of_user, Ok)?;
    let python = python::ensure(&[python::NUMPY, python::ONNX])?;
    let mut script = Command::new(python);
    script.arg("-B").arg(source().join("install.py")).arg(&folder);
    crate::run(&mut script)?;
    Ok(folder)
}

/// The one of `KVS_EDGE_MODELS`, else that of the user's data: the first that `kvs-edge` looks into.
fn of_user() -> Result<PathBuf, String> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = || variable("XDG_DATA_HOME").or_else(|| Some(variable("HOME")?.join(".local/share")));
    variable("KVS_EDGE_MODELS")
        .or_else(|| Some(data()?.join("kvs-edge/models")))
        .ok_or_else(|| "neither HOME nor XDG_DATA_HOME is set; name a folder with --folder".to_owned())
}

/// Absolute paths of its files in `folder`.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    names().map(|name| absolute.join(name)).collect()
}

/// The folder, when NanoDet-g seems to be in it already.
pub(crate) fn installed() -> Option<PathBuf> {
    let folder = of_user().ok()?;
    names().all(|name| folder.join(name).is_file()).then_some(folder)
}

/// Of its files; behind the SHA-256 of each in this list.
fn names() -> impl Iterator<Item = &'static str> {
    include_str!("../../model/nanodet/models.sha256")
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
}

fn source() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../model/nanodet"))
}
