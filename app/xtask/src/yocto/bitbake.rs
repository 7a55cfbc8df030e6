//! BitBake on the layer, as far as a machine without Yocto's sources and without a board allows.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::layers::{Layers, Machine};
use super::{CRATES, crates_named, layer, read, write};
use crate::{cargo, packages, python, run};

/// What is done, and what it says about the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Parse,
    DryRun,
    Package,
    CheckLayer,
}

/// Recipes of ours that become packages of the virtual board.
const PACKAGED: &[&str] =
    &["kvs-edge", "kvs-edge-system", "kvs-edge-boot", "kvs-edge-commit", "kvs-edge-rauc-conf"];
/// Images, and what updates them.
const PLANNED: &[&str] = &["kvs-edge-image", "kvs-edge-image-dev", "kvs-edge-bundle"];

impl Step {
    pub(super) fn of(name: &str) -> Option<Self> {
        match name {
            "parse" => Some(Self::Parse),
            "dryrun" => Some(Self::DryRun),
            "package" => Some(Self::Package),
            "check-layer" => Some(Self::CheckLayer),
            _ => None,
        }
    }

    /// What is known after it went well, and what is still not.
    fn says(self) -> [&'static str; 2] {
        match self {
            Self::Parse => [
                "BitBake reads every recipe, ours with all that they inherit, and each file that a recipe names is there",
                "whether tasks have their providers: dryrun",
            ],
            Self::DryRun => [
                "each task of the image, of the one for developers and of the bundle has its provider, down to the compiler",
                "whether sources compile and the image boots: a build machine with the network, then a board",
            ],
            Self::Package => [
                "our recipes fetch, unpack, compile for arm64, install and package under BitBake, without the network",
                "Yocto's own compiler and libraries, the image, do_package_qa: a build machine; decoders, TensorRT, slots: a board",
            ],
            Self::CheckLayer => [
                "the layer changes no build that does not ask for it, and is documented as Yocto wants it",
                "what its images do: see dryrun, package and a board",
            ],
        }
    }
}

/// Where a step works, and with what.
struct Build {
    folder: PathBuf,
    machine: Machine,
    layers: Layers,
}

#[expect(clippy::disallowed_methods, reason = "times a program; nothing depends on it")]
pub(super) fn step(step: Step, layers: &Path, machine: Machine) -> Result<(), String> {
    let layers = Layers::find(layers, &layer(), machine)?;
    if step == Step::Package && machine != Machine::VirtualBoard {
        return Err(format!(
            "found package for {machine}, expected {}: a Jetson's recipes are the same, and its libraries cannot be had here",
            Machine::VirtualBoard
        ));
    }
    user_of(&output(Command::new("id").arg("-u"))?)?;
    packages::bitbake()?;
    let name = match step {
        Step::Package => "package".to_owned(),
        Step::CheckLayer => format!("check-{machine}-{}", layers.series),
        Step::Parse | Step::DryRun => format!("{machine}-{}", layers.series),
    };
    let build = Build { folder: python::target().join("yocto").join(name), machine, layers };
    let started = Instant::now();
    println!(
        "xtask: {} layers of {}, {machine}, in {}",
        build.layers.layers.len(),
        build.layers.series,
        build.folder.display()
    );
    build.configure(&format!("MACHINE = \"{machine}\"\nDISTRO = \"kvs-edge-os\"\n"))?;
    match step {
        Step::Parse => run(build.tool("bitbake").arg("--parse-only"))?,
        Step::DryRun => run(build.tool("bitbake").arg("--dry-run").args(PLANNED))?,
        Step::Package => build.package()?,
        Step::CheckLayer => build.check_layer()?,
    }
    let [proved, open] = step.says();
    println!("xtask: in {} s: {proved}", started.elapsed().as_secs());
    println!("xtask: not shown by this: {open}");
    Ok(())
}

/// BitBake's own refusal comes late and without a way out.
fn user_of(id: &str) -> Result<(), String> {
    match id.trim() {
        "0" => Err(
            "BitBake refuses to run as root: run this step as another user, who may write to the target folder (CARGO_TARGET_DIR)".to_owned(),
        ),
        _ => Ok(()),
    }
}

impl Build {
    fn configure(&self, local: &str) -> Result<(), String> {
        let conf = self.folder.join("conf");
        fs::create_dir_all(&conf).map_err(|error| format!("{}: {error}", conf.display()))?;
        let layers: Vec<_> = self.layers.layers.iter().map(|layer| layer.display().to_string()).collect();
        write(
            &conf.join("bblayers.conf"),
            &format!(
                "BBPATH = \"${{TOPDIR}}\"\nBBFILES ?= \"\"\nLCONF_VERSION = \"7\"\nBBLAYERS = \"{}\"\n",
                layers.join(" ")
            ),
        )?;
        write(
            &conf.join("local.conf"),
            &format!("{local}BB_NO_NETWORK ?= \"1\"\nCONNECTIVITY_CHECK_URIS = \"\"\n"),
        )
    }

    /// A program of BitBake's or of OE-core's, in the build folder.
    fn tool(&self, name: &str) -> Command {
        let folders = [
            self.folder.join("bin"),
            self.layers.folder.join("bitbake/bin"),
            self.layers.folder.join("openembedded-core/scripts"),
        ];
        let program = folders.iter().map(|folder| folder.join(name)).find(|file| file.exists());
        let mut command = Command::new(program.unwrap_or_else(|| name.into()));
        let path = env::var_os("PATH").unwrap_or_default();
        let path: Vec<PathBuf> = folders.into_iter().chain(env::split_paths(&path)).collect();
        let path = env::join_paths(path).unwrap_or_else(|_| OsString::from("/usr/bin:/bin"));
        command.current_dir(&self.folder).env("PATH", path);
        command.env("BUILDDIR", &self.folder).env("BBPATH", &self.folder);
        command
            .env("BB_ENV_PASSTHROUGH_ADDITIONS", "BB_NUMBER_THREADS BB_NUMBER_PARSE_THREADS PARALLEL_MAKE");
        command
    }

    fn package(&self) -> Result<(), String> {
        let cross = python::target().join("cross");
        if !cross.join("packages").exists() {
            return Err(format!(
                "found no compiler for arm64 in {}: run `cargo xtask cross build` first",
                cross.display()
            ));
        }
        let pseudo = output(Command::new("dpkg-query").args(["--listfiles", "libpseudo"]))?;
        let pseudo = pseudo.lines().find_map(|file| file.strip_suffix("/libpseudo.so"));
        let pseudo = pseudo.ok_or("the Debian package libpseudo has no libpseudo.so")?;
        let class = include_str!("stand-ins.bbclass").replace("@PSEUDO@", pseudo);
        let class = class.replace("@CROSS@", &cross.display().to_string());
        let classes = self.folder.join("classes");
        let bin = self.folder.join("bin");
        for folder in [&classes, &bin] {
            fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        write(&classes.join("stand-ins.bbclass"), &class)?;
        let link = bin.join("cargo");
        let _ = fs::remove_file(&link);
        symlink(cargo().get_program(), &link).map_err(|error| format!("{}: {error}", link.display()))?;
        let downloads = self.folder.join("downloads");
        seed(&downloads)?;
        // Recipes of others are not even read: that takes minutes, and nothing of them is built.
        self.configure(&format!(
            "MACHINE = \"{}\"\nDISTRO = \"kvs-edge-os\"\nINHERIT += \"stand-ins\"\nINHERIT:remove = \"uninative\"\n\
             PACKAGE_CLASSES = \"package_deb\"\nDL_DIR = \"{}\"\nBB_DANGLINGAPPENDS_WARNONLY = \"1\"\n\
             BBMASK = \"/openembedded-core/meta/recipes- /meta-rust-bin/recipes- /meta-rauc/recipes-\"\n",
            Machine::VirtualBoard,
            downloads.display()
        ))?;
        let mut bitbake = self.tool("bitbake");
        run(bitbake.args(["--runall", "package_write_deb"]).args(PACKAGED))?;
        self.look_at(&cross)
    }

    /// What came out: files, their owner, and a program for arm64 that runs.
    fn look_at(&self, cross: &Path) -> Result<(), String> {
        let found = output(Command::new("find").arg(&self.folder).args(["-path", "*/deploy/deb/*.deb"]))?;
        for recipe in PACKAGED {
            let package = found.lines().find(|file| {
                file.rsplit('/').next().is_some_and(|name| name.starts_with(&format!("{recipe}_")))
            });
            let package = package
                .ok_or_else(|| format!("found no package of {recipe} in {}", self.folder.display()))?;
            let files = output(Command::new("dpkg-deb").args(["--contents", package]))?;
            let files: Vec<_> = files.lines().filter(|line| !line.starts_with('d')).collect();
            if files.is_empty() {
                return Err(format!("{package} holds no file"));
            }
            println!("xtask: {package}: {} files", files.len());
        }
        let unpacked = self.folder.join("unpacked");
        let _ = fs::remove_dir_all(&unpacked);
        let package = found.lines().find(|file| file.contains("/kvs-edge_"));
        run(Command::new("dpkg-deb").arg("--extract").args(package).arg(&unpacked))?;
        let version = output(
            Command::new(cross.join("bin/run")).arg(unpacked.join("usr/bin/kvs-edge")).arg("--version"),
        )?;
        println!("xtask: the daemon in it says, under emulation: {}", version.trim());
        Ok(())
    }

    fn check_layer(&self) -> Result<(), String> {
        // What a layer may need by itself, and no distribution of ours: where systemd is on, our recipes are not skipped.
        self.configure("MACHINE = \"qemuarm64\"\nINIT_MANAGER = \"systemd\"\n")?;
        let layers = self.layers.layers.iter();
        write(
            &self.folder.join("conf/bblayers.conf"),
            &format!(
                "BBPATH = \"${{TOPDIR}}\"\nBBFILES ?= \"\"\nLCONF_VERSION = \"7\"\nBBLAYERS = \"{}\"\n",
                self.layers.layers[0].display()
            ),
        )?;
        // A layer for boards may change what their vendor's does, the distribution nothing that does not ask for it.
        let [needs, layer]: [&[&str]; 2] = match self.machine {
            Machine::VirtualBoard => [&["meta-rust-bin"], &["meta-kvs-edge"]],
            Machine::Jetson => [&["meta-rust-bin", "meta-tegra", "meta-kvs-edge"], &["meta-kvs-edge/bsp"]],
        };
        let named = |names: &[&str]| -> Vec<&PathBuf> {
            layers.clone().filter(|layer| names.iter().any(|name| layer.ends_with(name))).collect()
        };
        let mut check = self.tool("yocto-check-layer");
        check.args(["--no-auto", "--no-auto-dependency", "--dependency"]).args(named(needs)).arg("--");
        run(check.args(named(layer)))
    }
}

/// Crates that cargo has, or fetches, under the names that BitBake looks for: it needs no network, and compares each with its sum.
fn seed(downloads: &Path) -> Result<(), String> {
    fs::create_dir_all(downloads).map_err(|error| format!("{}: {error}", downloads.display()))?;
    run(cargo().args(["fetch", "--locked"]))?;
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let caches = home.ok_or("neither CARGO_HOME nor HOME is set")?.join("registry/cache");
    let registries: Vec<_> = fs::read_dir(&caches)
        .map_err(|error| format!("{}: {error}", caches.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    for (name, version) in crates_named(&read(&layer().join(CRATES))?) {
        let file = format!("{name}-{version}.crate");
        let to = downloads.join(&file);
        if to.exists() {
            continue;
        }
        let from = registries.iter().map(|registry| registry.join(&file)).find(|from| from.exists());
        let from = from
            .ok_or_else(|| format!("found no {file} in {}, although cargo fetched all", caches.display()))?;
        fs::copy(&from, &to).map_err(|error| format!("{}: {error}", to.display()))?;
    }
    Ok(())
}

fn output(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{program} does not start: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!(
            "{program} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_sent_away_before_bitbake_does() {
        assert!(user_of("0\n").unwrap_err().starts_with("BitBake refuses to run as root"));
        assert_eq!(user_of("1000\n"), Ok(()));
    }

    #[test]
    fn each_packaged_and_planned_recipe_is_in_the_layer() {
        let recipes = super::super::recipes(layer()).unwrap();
        for name in PACKAGED.iter().chain(PLANNED) {
            let of = |path: &PathBuf| {
                let file = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
                file.split('_').next() == Some(name)
                    && path.extension().is_some_and(|extension| extension == "bb")
            };
            assert!(recipes.iter().any(of), "{name}");
        }
    }
}
