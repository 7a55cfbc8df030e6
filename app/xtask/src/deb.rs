//! `cargo xtask deb`: the daemon, its units and the detector as Debian packages, by debhelper and checked by lintian.
//!
//! ```text
//!  packaging/debian/ --+                                     +--> kvs-edge_VERSION_ARCH.deb
//!  systemd/          --+--> target/deb/kvs-edge-VERSION/ ----+
//!  binary of the image-+        dpkg-buildpackage            +--> kvs-edge-model_VERSION_all.deb
//!  installed NanoDet-g-+
//! ```
//!
//! Times in the packages are those of the commit, so that two builds of one commit are equal.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{daemon_of_the_image, model, python, run};

/// Who answers for the packages, unless `DEBFULLNAME` and `DEBEMAIL` say so, as for all Debian tools.
const MAINTAINER: (&str, &str) = ("The kvs-edge authors", "kvs-edge@packages.invalid");
/// What lintian says of that address, and of a first release that closes no bug of Debian's.
const SUPPRESSED: &str = "bogus-mail-host,bogus-mail-host-in-debian-changelog,initial-upload-closes-no-bugs";

/// Builds both packages; returns the folder in which they are.
pub(crate) fn build() -> Result<PathBuf, String> {
    let version = env!("CARGO_PKG_VERSION");
    let folder = python::target().join("deb");
    let tree = folder.join(format!("kvs-edge-{version}"));
    let binary = daemon_of_the_image()?;
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    fs::create_dir_all(&tree).map_err(|error| format!("{}: {error}", tree.display()))?;
    copy(&packaging().join("debian"), &tree.join("debian"))?;
    for unit in ["kvs-edge.service", "kvs-edge.sysusers", "kvs-edge.tmpfiles"] {
        copy(&top().join("systemd").join(unit), &tree.join("debian").join(unit))?;
    }
    copy(&binary, &tree.join("kvs-edge"))?;
    copy(&top().join("app/config/kvs-edge.example.toml"), &tree.join("kvs-edge.example.toml"))?;
    copy(&top().join("README.md"), &tree.join("README.md"))?;
    copy(&top().join("app/CHANGELOG.md"), &tree.join("WHATS-NEW.md"))?;
    model::install(Some(tree.join("models")))?;

    let environment = |name: &str, default: &str| {
        std::env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
    };
    let maintainer =
        format!("{} <{}>", environment("DEBFULLNAME", MAINTAINER.0), environment("DEBEMAIL", MAINTAINER.1));
    let control = tree.join("debian/control");
    write(&control, &read(&control)?.replace("@MAINTAINER@", &maintainer))?;
    write(&tree.join("debian/changelog"), &changelog(version, &maintainer, &commit("%aD")?))?;

    let mut package = Command::new("dpkg-buildpackage");
    package.args(["--build=binary", "--unsigned-changes", "--no-check-builddeps"]).current_dir(&tree);
    run(package.env("SOURCE_DATE_EPOCH", commit("%at")?))?;
    let packages = packages(&folder)?;
    run(Command::new("lintian")
        .args(["--allow-root", "--fail-on=error,warning", "--suppress-tags", SUPPRESSED])
        .args(&packages))?;
    for package in &packages {
        println!("xtask: {}", package.display());
    }
    Ok(folder)
}

/// One entry: what changed stands in the changelog that the package brings along.
fn changelog(version: &str, maintainer: &str, date: &str) -> String {
    format!(
        "kvs-edge ({version}) stable; urgency=medium\n\n  * See WHATS-NEW.md.\n\n -- {maintainer}  {date}\n"
    )
}

fn packages(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut packages: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    packages.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    packages.sort();
    Ok(packages)
}

/// Something about the commit that is built, as `git log --format` writes it.
fn commit(format: &str) -> Result<String, String> {
    let mut log = Command::new("git");
    log.args(["log", "-1"]).arg(format!("--format={format}")).current_dir(top());
    let output = log.output().map_err(|error| format!("git does not start: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(format!("git log: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// A file, or a folder with all that is in it.
fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let mut command = Command::new("cp");
    run(command.args(["--recursive", "--preserve=mode", "--no-target-directory"]).arg(from).arg(to))
}

fn read(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

fn packaging() -> PathBuf {
    top().join("packaging")
}

fn top() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
