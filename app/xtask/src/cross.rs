//! `cargo xtask cross`: the shipped binary for arm64, built and tried on this machine.
//!
//! ```text
//!  Debian's archive --apt-get download, dpkg -x--> target/cross/host     rustc, gcc and binutils for arm64, qemu
//!                                              --> target/cross/sysroot  what the binary is linked against
//!                                                  target/cross/bin      rustc, cc, ar, run: those, with their paths
//! ```
//!
//! Nothing is installed: apt has a state of its own, in which no package is there yet, so that it names all that is needed. The
//! compiler is Debian's `rustc-web`, because its standard library for arm64 is of the same build; cargo is the one that runs us.
//! Emulation proves build, linking and logic. It says nothing about speed, and no vendor's decoder is in it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::image::{self, Place};
use crate::{cargo, deb, python, run};

pub(crate) const USAGE: &str = "\
cargo xtask cross              the daemon as shipped for arm64; the pure crates' tests and the demo's daemon under emulation
cargo xtask cross build        only the daemon, in target/aarch64-unknown-linux-gnu/image";

const TARGET: &str = "aarch64-unknown-linux-gnu";
/// What runs here, and what the binary is linked against.
const HOST: &[&str] = &[
    "rustc-web",
    "libstd-rust-web-dev",
    "binutils-aarch64-linux-gnu",
    "gcc-12-aarch64-linux-gnu",
    "qemu-user-static",
];
const SYSROOT: &[&str] =
    &["libc6-dev", "libgstreamer1.0-dev", "libgstreamer-plugins-base1.0-dev", "libstd-rust-web-dev"];
/// Reads what is in a binary for arm64.
const READELF: &str = "aarch64-linux-gnu-readelf";
/// Crates without a runtime, socket or clock.
const PURE: &[&str] = &["media", "kvs", "health", "vision", "messages"];
/// The binary is for Debian 12 and later: the loader of glibc 2.36 is the first that knows packed relocations.
const GLIBC: (u32, u32) = (2, 36);

pub(crate) fn step(arguments: &[String]) -> Result<(), String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["build"] => build().map(|_| ()),
        [] => {
            let daemon = build()?;
            test()?;
            smoke(&daemon)
        }
        _ => Err(format!("found `cross {}`, expected one of\n\n{USAGE}", arguments.join(" "))),
    }
}

/// The daemon as in the image, looked at.
pub(crate) fn build() -> Result<PathBuf, String> {
    let tools = Tools::ensure()?;
    let daemon = image::build_in(&Place::here(), Some(TARGET), |cargo| tools.prepare(cargo))?;
    let elf = tools.readelf(&["--file-header", "--version-info", "--wide"], &daemon)?;
    if !elf.contains("AArch64") {
        return Err(format!("{} is no program for arm64:\n{elf}", daemon.display()));
    }
    let glibc = highest_glibc(&elf).ok_or_else(|| format!("{} needs no glibc", daemon.display()))?;
    if glibc > GLIBC {
        return Err(format!(
            "{} needs glibc {}.{}, Debian 12 has {}.{}",
            daemon.display(),
            glibc.0,
            glibc.1,
            GLIBC.0,
            GLIBC.1
        ));
    }
    println!("xtask: {}: for arm64, glibc {}.{} or later", daemon.display(), glibc.0, glibc.1);
    Ok(daemon)
}

/// The tests of the pure crates, under emulation.
fn test() -> Result<(), String> {
    let tools = Tools::ensure()?;
    let packages = PURE.iter().flat_map(|package| ["--package", package]);
    let mut cargo = cargo();
    tools.prepare(&mut cargo);
    run(cargo.args(["test", "--target", TARGET, "--lib", "--tests"]).args(packages))?;
    println!("xtask: the tests of {} pass on arm64, under emulation", PURE.join(", "));
    Ok(())
}

/// The demo with the arm64 daemon under emulation; camera, KVS and broker are this machine's own.
fn smoke(daemon: &Path) -> Result<(), String> {
    let tools = Tools::ensure()?;
    let wrapper = tools.emulated(daemon)?;
    run(cargo().args(["build", "--package", "kvs-edge"]))?;
    // GStreamer's plug-ins for arm64 are not in the sysroot: no detection.
    let demo = ["demo", "--seconds", "20", "--detect-fps", "0", "--daemon"];
    run(cargo().args(["run", "--quiet", "--package", "kvs-edge", "--"]).args(demo).arg(wrapper))?;
    println!("xtask: the arm64 daemon uploaded and proved all fragments, under emulation");
    Ok(())
}

/// The unpacked packages, and scripts that call what is in them.
pub(crate) struct Tools {
    folder: PathBuf,
}

impl Tools {
    /// Downloads and unpacks what is not there yet (430 MB, 2 GB unpacked).
    pub(crate) fn ensure() -> Result<Self, String> {
        let tools = Self { folder: python::target().join("cross") };
        let stamp = tools.folder.join("packages");
        let wanted = format!("{} / {}\n", HOST.join(" "), SYSROOT.join(" "));
        if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
            return Ok(tools);
        }
        println!(
            "xtask: fetching a compiler, an emulator and libraries for arm64 into {}",
            tools.folder.display()
        );
        if tools.folder.exists() {
            fs::remove_dir_all(&tools.folder)
                .map_err(|error| format!("{}: {error}", tools.folder.display()))?;
        }
        unpack("amd64", HOST, &tools.host(), &tools.folder.join("apt-amd64"))?;
        let libraries = unpack("arm64", SYSROOT, &tools.sysroot(), &tools.folder.join("apt-arm64"))?;
        write(&tools.shlibs(), &libraries)?;
        // Links from the package's own root would lead to this machine's libraries.
        relink(&tools.sysroot().join("usr/lib/aarch64-linux-gnu"), &tools.sysroot())?;
        let library = Path::new("usr/lib/rustlib").join(TARGET);
        run(Command::new("cp")
            .arg("--archive")
            .args([tools.sysroot().join(&library), tools.host().join(&library)]))?;
        tools.scripts()?;
        write(&stamp, &wanted)?;
        Ok(tools)
    }

    fn host(&self) -> PathBuf {
        self.folder.join("host")
    }

    fn sysroot(&self) -> PathBuf {
        self.folder.join("sysroot")
    }

    /// What finds shared libraries of the host's tools, and none of the C library: that is this machine's.
    fn with_libraries(&self) -> String {
        format!("LD_LIBRARY_PATH={}", self.host().join("usr/lib/x86_64-linux-gnu").display())
    }

    fn emulator(&self) -> String {
        format!(
            "{} -L {}",
            self.host().join("usr/bin/qemu-aarch64-static").display(),
            self.sysroot().display()
        )
    }

    /// Which package has which shared library of the sysroot.
    pub(crate) fn shlibs(&self) -> PathBuf {
        self.folder.join("shlibs")
    }

    /// Folders of the sysroot's shared libraries.
    pub(crate) fn libraries(&self) -> [PathBuf; 2] {
        ["lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu"].map(|folder| self.sysroot().join(folder))
    }

    /// Folder of programs under the names that Debian's tools call.
    pub(crate) fn bin(&self) -> PathBuf {
        self.folder.join("bin")
    }

    /// A program that runs the daemon under emulation.
    pub(crate) fn emulated(&self, daemon: &Path) -> Result<PathBuf, String> {
        self.script("kvs-edge", &format!("exec {} {} \"$@\"\n", self.emulator(), daemon.display()))
    }

    fn scripts(&self) -> Result<(), String> {
        let tool = |name: &str| {
            format!("{} exec {}", self.with_libraries(), self.host().join("usr/bin").join(name).display())
        };
        self.script("rustc", &format!("{} \"$@\"\n", tool("rustc")))?;
        let sysroot = format!("--sysroot={}", self.sysroot().display());
        self.script("cc", &format!("{} {sysroot} \"$@\"\n", tool("aarch64-linux-gnu-gcc-12")))?;
        self.script("ar", &format!("{} \"$@\"\n", tool("aarch64-linux-gnu-ar")))?;
        for name in [READELF, "aarch64-linux-gnu-objdump"] {
            self.script(name, &format!("{} \"$@\"\n", tool(name)))?;
        }
        self.script("run", &format!("exec {} \"$@\"\n", self.emulator()))?;
        Ok(())
    }

    fn script(&self, name: &str, text: &str) -> Result<PathBuf, String> {
        let file = self.bin().join(name);
        write(&file, &format!("#!/bin/sh\n{text}"))?;
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&file, executable).map_err(|error| format!("{}: {error}", file.display()))?;
        Ok(file)
    }

    /// Tells cargo of this compiler and linker.
    fn prepare(&self, cargo: &mut Command) {
        let bin = self.bin();
        let libraries = self.sysroot().join("usr/lib/aarch64-linux-gnu/pkgconfig");
        cargo.env("RUSTC", bin.join("rustc"));
        cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", bin.join("cc"));
        cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", bin.join("run"));
        cargo.env("CC_aarch64_unknown_linux_gnu", bin.join("cc"));
        cargo.env("AR_aarch64_unknown_linux_gnu", bin.join("ar"));
        cargo.env("PKG_CONFIG_ALLOW_CROSS", "1");
        cargo.env("PKG_CONFIG_SYSROOT_DIR_aarch64_unknown_linux_gnu", self.sysroot());
        cargo.env("PKG_CONFIG_LIBDIR_aarch64_unknown_linux_gnu", libraries);
    }

    fn readelf(&self, arguments: &[&str], file: &Path) -> Result<String, String> {
        let mut readelf = Command::new(self.bin().join(READELF));
        let output = readelf.args(arguments).arg(file).stderr(Stdio::inherit()).output();
        let output = output.map_err(|error| format!("readelf does not start: {error}"))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(format!("readelf {}: {}", file.display(), output.status)),
        }
    }
}

/// Fetches packages with all that they depend on, and unpacks them below `root`; `state` is apt's own.
/// The answer is which package has which shared library, as in Debian's `shlibs` files.
fn unpack(architecture: &str, packages: &[&str], root: &Path, state: &Path) -> Result<String, String> {
    let lists = state.join("lists/partial");
    let archives = state.join("cache/archives");
    for folder in [&lists, &archives.join("partial"), root] {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    // No package is installed there.
    let status = state.join("status");
    write(&status, "")?;
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.arg("--quiet=2").stdout(Stdio::null());
        let folders = [("Dir::State", state), ("Dir::State::status", &status), ("Dir::Log", state)];
        for (key, path) in folders {
            apt.arg(format!("--option={key}={}", path.display()));
        }
        apt.arg(format!("--option=Dir::Cache={}", state.join("cache").display()));
        // Only Debian's own archive: others need not have this architecture.
        let sources = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"];
        let sources = sources.into_iter().find(|file| Path::new(file).exists()).unwrap_or(sources[1]);
        apt.arg(format!("--option=Dir::Etc::sourcelist={sources}"))
            .arg("--option=Dir::Etc::sourceparts=/dev/null");
        apt.arg(format!("--option=APT::Architecture={architecture}"));
        apt.arg(format!("--option=APT::Architectures={architecture}"));
        // Whoever apt downloads as need not be able to write here.
        apt.arg("--option=APT::Sandbox::User=");
        apt
    };
    let hint = |error| {
        format!("{error}; packages for {architecture} come from Debian 12's archive and its security updates")
    };
    run(apt().arg("update")).map_err(hint)?;
    run(apt().args(["install", "--download-only", "--yes", "--no-install-recommends"]).args(packages))
        .map_err(hint)?;
    let mut shlibs = String::new();
    for package in deb::packages(&archives)? {
        run(Command::new("dpkg-deb").arg("--extract").args([package.as_path(), root]))?;
        // Only libraries have such a file.
        let info = Command::new("dpkg-deb").arg("--info").arg(&package).arg("shlibs").output();
        let info = info.map_err(|error| format!("dpkg-deb does not start: {error}"))?;
        if info.status.success() {
            shlibs.push_str(&String::from_utf8_lossy(&info.stdout));
        }
    }
    fs::remove_dir_all(state).map_err(|error| format!("{}: {error}", state.display()))?;
    Ok(shlibs)
}

/// Leads absolute links in `folder` to where they mean, below `root`.
fn relink(folder: &Path, root: &Path) -> Result<(), String> {
    let failed = |path: &Path, error| format!("{}: {error}", path.display());
    for entry in fs::read_dir(folder).map_err(|error| failed(folder, error))? {
        let link = entry.map_err(|error| failed(folder, error))?.path();
        let Ok(target) = fs::read_link(&link) else { continue };
        let Ok(below) = target.strip_prefix("/") else { continue };
        fs::remove_file(&link)
            .and_then(|()| symlink(root.join(below), &link))
            .map_err(|error| failed(&link, error))?;
    }
    Ok(())
}

/// The highest version among `GLIBC_2.17` and the like in what readelf prints. Packed relocations have a name instead.
fn highest_glibc(elf: &str) -> Option<(u32, u32)> {
    let versions = elf.split("GLIBC_").skip(1).filter_map(|text| {
        if text.starts_with("ABI_DT_RELR") {
            return Some((2, 36));
        }
        let version = text.split(|letter: char| !letter.is_ascii_digit() && letter != '.').next()?;
        let (major, minor) = version.split_once('.')?;
        Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
    });
    versions.max()
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(file, text));
    written.map_err(|error| format!("{}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_glibc_is_by_number_and_not_by_letter() {
        let elf = "Name: GLIBC_2.17  Flags\n Name: GLIBC_2.9 \n GLIBC_2.34\n GLIBC_2.4.1)";
        assert_eq!(highest_glibc(elf), Some((2, 34)));
        assert_eq!(highest_glibc(&format!("{elf} GLIBC_ABI_DT_RELR")), Some((2, 36)));
        assert_eq!(highest_glibc("statically linked"), None);
    }

    #[test]
    fn links_from_the_root_stay_in_the_sysroot() {
        let root = std::env::temp_dir().join(format!("xtask-relink-{}", std::process::id()));
        let folder = root.join("usr/lib");
        fs::create_dir_all(&folder).unwrap();
        symlink("/lib/libz.so.1", folder.join("libz.so")).unwrap();
        symlink("libm.so.6", folder.join("libm.so")).unwrap();
        relink(&folder, &root).unwrap();
        assert_eq!(fs::read_link(folder.join("libz.so")).unwrap(), root.join("lib/libz.so.1"));
        assert_eq!(fs::read_link(folder.join("libm.so")).unwrap(), Path::new("libm.so.6"));
        fs::remove_dir_all(&root).unwrap();
    }
}
