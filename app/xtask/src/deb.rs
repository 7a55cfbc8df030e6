//! `cargo xtask deb`: the daemon, its units and the detector as Debian packages, by debhelper and checked by lintian.
//!
//! ```text
//!  packaging/debian/ --+                                     +--> kvs-edge_VERSION_ARCH.deb
//!  systemd/          --+--> target/deb/kvs-edge-VERSION/ ----+
//!  binary of the image-+        dpkg-buildpackage            +--> kvs-edge-model_VERSION_all.deb
//!  installed NanoDet-g-+
//! ```
//!
//! For arm64 the binary comes from `cargo xtask cross`, and so does what tells its dependencies.
//!
//! Times in the packages are those of the commit, so that two builds of one commit are equal.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{cargo, commit, cross, image, model, python, run, supply};

pub(crate) const USAGE: &str = "\
cargo xtask deb                Debian packages of the daemon with its units and of the detector, in target/deb
cargo xtask deb --arm64        likewise for arm64, built here (see cross), in target/deb-arm64";

/// Who answers for the packages, unless `DEBFULLNAME` and `DEBEMAIL` say so, as for all Debian tools.
const MAINTAINER: (&str, &str) = ("The kvs-edge authors", "kvs-edge@packages.invalid");
/// What lintian says of that address, and of a first release that closes no bug of Debian's.
const SUPPRESSED: &str = "bogus-mail-host,bogus-mail-host-in-debian-changelog,initial-upload-closes-no-bugs";

/// For which processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Architecture {
    /// This machine's.
    Native,
    Arm64,
}

pub(crate) fn step(arguments: &[String]) -> Result<(), String> {
    let architecture = match arguments {
        [] => Architecture::Native,
        [flag] if flag == "--arm64" => Architecture::Arm64,
        other => return Err(format!("found `deb {}`, expected one of\n\n{USAGE}", other.join(" "))),
    };
    build(architecture).map(|_| ())
}

/// Builds both packages; returns the folder in which they are.
pub(crate) fn build(architecture: Architecture) -> Result<PathBuf, String> {
    let version = env!("CARGO_PKG_VERSION");
    let (name, binary) = match architecture {
        Architecture::Native => ("deb", image::build()?),
        Architecture::Arm64 => ("deb-arm64", cross::build()?),
    };
    let folder = python::target().join(name);
    let tree = folder.join(format!("kvs-edge-{version}"));
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
    documents(&tree.join("documents"))?;
    supply::sbom(&binary, &tree.join("kvs-edge.cdx.json"))?;
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
    package.env("SOURCE_DATE_EPOCH", commit("%at")?);
    if architecture == Architecture::Arm64 {
        for_arm64(&mut package, &tree)?;
    }
    run(&mut package)?;
    let packages = packages(&folder)?;
    run(Command::new("lintian")
        .args(["--allow-root", "--fail-on=error,warning", "--suppress-tags", SUPPRESSED])
        .args(&packages))?;
    for package in &packages {
        println!("xtask: {}", package.display());
    }
    Ok(folder)
}

/// Man pages, completions and the schema of the configuration, written by a program with the arguments of the shipped one.
fn documents(folder: &Path) -> Result<(), String> {
    let mut writer = cargo();
    writer.args(["run", "--quiet", "--package", "kvs-edge", "--no-default-features"]);
    writer.args(["--features", "bench,documents"]).env("KVS_EDGE_DOCUMENTS", folder);
    run(&mut writer)?;
    // bash finds completions by the name of the program alone.
    let completions = folder.join("completions");
    fs::rename(completions.join("kvs-edge.bash"), completions.join("kvs-edge"))
        .map_err(|error| format!("{}: {error}", completions.display()))
}

/// The package manager of this machine knows no library of arm64: the sysroot's packages tell which has which.
fn for_arm64(package: &mut Command, tree: &Path) -> Result<(), String> {
    let tools = cross::Tools::ensure()?;
    copy(&tools.shlibs(), &tree.join("debian/shlibs.local"))?;
    let [loader, others] = tools.libraries();
    let folders = format!("-l{}:{}", loader.display(), others.display());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([tools.bin()].into_iter().chain(std::env::split_paths(&path)));
    package.arg("--host-arch=arm64").env("KVS_EDGE_SHLIBDEPS", folders);
    package.env("PATH", path.map_err(|error| format!("PATH: {error}"))?);
    Ok(())
}

/// One entry: what changed stands in the changelog that the package brings along.
fn changelog(version: &str, maintainer: &str, date: &str) -> String {
    format!(
        "kvs-edge ({version}) stable; urgency=medium\n\n  * See WHATS-NEW.md.\n\n -- {maintainer}  {date}\n"
    )
}

/// The `.deb` files in a folder, in order.
pub(crate) fn packages(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut packages: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    packages.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    packages.sort();
    Ok(packages)
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
