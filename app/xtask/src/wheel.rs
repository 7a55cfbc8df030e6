//! The Python wheel, `kvs_client`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::{python, run};

const PACKAGES: [&str; 3] = [python::MATURIN, python::NUMPY, python::BOTO3];

/// The wheel as it is handed out.
pub(crate) fn build() -> Result<ExitCode, String> {
    let python = python::ensure_apart("wheel", &PACKAGES)?;
    let wheel = with_maturin(&python, "release", &python::target().join("wheels"))?;
    println!("xtask: {}", wheel.display());
    println!("xtask: install it with: pip install {}", wheel.display());
    Ok(ExitCode::SUCCESS)
}

/// An interpreter of its own that has it, built as the tests are or as it is handed out.
pub(crate) fn installed(profile: &str) -> Result<PathBuf, String> {
    let python = python::ensure_apart("wheel", &[&PACKAGES[..], &[python::MYPY]].concat())?;
    let wheel = with_maturin(&python, profile, &python::target().join("wheels").join(profile))?;
    // The version is the same, whatever has changed.
    let pip =
        ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--force-reinstall"];
    run(Command::new(&python).args(pip).arg(wheel))?;
    Ok(python)
}

fn with_maturin(python: &Path, profile: &str, folder: &Path) -> Result<PathBuf, String> {
    let name = |error: std::io::Error| format!("{}: {error}", folder.display());
    let wheels = || {
        let entries = folder.read_dir().map_err(name)?.flatten().map(|entry| entry.path());
        let wheels = entries.filter(|path| path.extension().is_some_and(|extension| extension == "whl"));
        Ok::<_, String>(wheels.collect::<Vec<_>>())
    };
    std::fs::create_dir_all(folder).map_err(name)?;
    for old in wheels()? {
        std::fs::remove_file(&old).map_err(|error| format!("{}: {error}", old.display()))?;
    }
    let mut maturin = Command::new(python.with_file_name("maturin"));
    maturin.args(["build", "--quiet", "--locked", "--profile", profile]);
    maturin.arg("--manifest-path").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../kvs-client-py/Cargo.toml"));
    maturin.arg("--interpreter").arg(python).arg("--out").arg(folder);
    if profile != "dev" {
        maturin.arg("--strip");
    }
    run(&mut maturin)?;
    wheels()?.pop().ok_or_else(|| format!("maturin made no wheel in {}", folder.display()))
}
