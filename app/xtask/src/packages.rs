//! Debian packages that a task needs, and how they get onto the machine.

use std::process::{Command, Stdio};

/// Headers to build against GStreamer; what encodes the simulated scene and decodes it again; `mosquitto_sub` is what
/// the demo tells people to run.
const DEMO: &[&str] = &[
    "pkg-config",
    "libgstreamer1.0-dev",
    "libgstreamer-plugins-base1.0-dev",
    "gstreamer1.0-tools",
    "gstreamer1.0-plugins-base",
    "gstreamer1.0-plugins-good",
    "gstreamer1.0-plugins-bad",
    "gstreamer1.0-plugins-ugly",
    "gstreamer1.0-libav",
    "mosquitto-clients",
];

/// Besides, the real peers of the tests: a broker, an RTSP server (which draws the time into its pictures by an element
/// of gstreamer1.0-x), readers of Matroska, a browser, an AWS SDK, a clock that can be set, what tries the image's scripts and bundles, ONNX Runtime and nextest (by pip).
const PEERS: &[&str] = &[
    "mosquitto",
    "ffmpeg",
    "mkvtoolnix",
    "openssl",
    "python3-boto3",
    "python3-venv",
    "python3-gst-1.0",
    "gir1.2-gst-rtsp-server-1.0",
    "gstreamer1.0-x",
    "libfaketime",
    "systemd",
    "chromium",
    "bats",
    "shellcheck",
    "git",
    "rauc",
    "squashfs-tools",
    "grub-common",
];

/// What converts a model.
const MODEL: &[&str] = &["python3", "python3-venv"];

/// What builds and checks Debian packages.
const DEB: &[&str] = &["dpkg-dev", "debhelper", "lintian"];

/// What BitBake calls, and what stands in for what it would build first.
const BITBAKE: &[&str] = &[
    "chrpath",
    "cpio",
    "diffstat",
    "file",
    "g++",
    "gawk",
    "git",
    "libpseudo",
    "locales",
    "lz4",
    "make",
    "openssl",
    "pkg-config",
    "pseudo",
    "python3",
    "rpcsvc-proto",
    "rpm",
    "socat",
    "wget",
    "zstd",
];

/// What installs the packages in a Debian of their own and boots it.
const BOOT: &[&str] = &["mmdebstrap", "systemd-container"];

/// What builds and runs AWS's libraries for Java, of the tests against heavy peers.
const JAVA: &[&str] = &["maven", "default-jdk-headless"];

/// Real footage, for tests and the demo with the real model.
const HEAVY: &[&str] = &["opencv-doc"];
/// People in a street, 768x576, 79.5 s.
pub(crate) const FOOTAGE: &str = "/usr/share/doc/opencv-doc/examples/data/vtest.avi";

pub(crate) fn model(install: bool) -> Result<(), String> {
    ensure(MODEL, install)
}

pub(crate) fn deb(install: bool) -> Result<(), String> {
    ensure(&[DEMO, MODEL, DEB].concat(), install)
}

/// What runs BitBake on the layer. Its user is not root and may have no sudo: it is told what is missing.
pub(crate) fn bitbake() -> Result<(), String> {
    ensure(BITBAKE, false)
}

/// What builds the Python wheel.
pub(crate) fn wheel(install: bool) -> Result<(), String> {
    ensure(&[DEMO, MODEL].concat(), install)
}

/// `real`: on real footage, by the real model.
pub(crate) fn demo(install: bool, real: bool) -> Result<(), String> {
    ensure(&[DEMO, if real { HEAVY } else { &[] }, if real { MODEL } else { &[] }].concat(), install)
}

/// `heavy`: what `--peers` asks for, too; `full`: what `--full` does.
pub(crate) fn test(install: bool, heavy: bool, full: bool) -> Result<(), String> {
    let wanted = |wanted, packages: &'static [&str]| if wanted { packages } else { &[] };
    let heavy = [wanted(heavy, HEAVY), wanted(heavy, JAVA)].concat();
    ensure(&[DEMO, PEERS, &heavy, wanted(full, DEB), wanted(full, BOOT)].concat(), install)
}

/// What the benches compare with.
pub(crate) fn bench(install: bool) -> Result<(), String> {
    ensure(&[DEMO, PEERS, HEAVY].concat(), install)
}

/// Installs what is missing, as root or by sudo, and says so. Not on Debian: names what is needed and goes on.
fn ensure(wanted: &[&str], install: bool) -> Result<(), String> {
    if !runs("dpkg-query", &["--version"]) {
        println!("xtask: this is no Debian; needed are the equivalents of: {}", wanted.join(" "));
        return Ok(());
    }
    let missing: Vec<&str> = wanted.iter().copied().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !install {
        return Err(format!(
            "missing Debian packages: {list}\n  install them with: sudo apt-get install {list}"
        ));
    }
    let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout.trim_ascii() == b"0");
    println!(
        "xtask: installing {} Debian packages {}: {list}",
        missing.len(),
        if root { "as root" } else { "by sudo" }
    );
    let install = || apt(root, &["install", "--yes", "--no-install-recommends"], &missing);
    // An index that is stale or not there is the usual reason for a first failure; any other one comes again, and is shown.
    if crate::run(install().stderr(Stdio::null())).is_err() {
        crate::run(&mut apt(root, &["update"], &[]))?;
        crate::run(&mut install())?;
    }
    Ok(())
}

fn installed(package: &str) -> bool {
    let query =
        Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status}", package]).output();
    query.is_ok_and(|query| query.stdout == b"installed")
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn apt(root: bool, action: &[&str], packages: &[&str]) -> Command {
    let mut command = Command::new(if root { "apt-get" } else { "sudo" });
    if !root {
        command.arg("apt-get");
    }
    command.arg("--quiet").args(action).args(packages).env("DEBIAN_FRONTEND", "noninteractive");
    command.stdout(Stdio::null()).stdin(Stdio::null());
    command
}
