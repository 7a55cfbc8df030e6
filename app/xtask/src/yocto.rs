//! `cargo xtask yocto ...`: the Yocto layer, looked at as far as a machine without a board allows.
//!
//! | step | needs | proves |
//! |---|---|---|
//! | `crates` | nothing | writes the recipe's list of crates from Cargo.lock |
//! | `lint` | PyPI | that list is in step, recipes by oelint-adv, kas files by kas's own schema |
//! | `parse --layers DIR` | the public layers below DIR, a user who is not root | BitBake reads every recipe, ours with all that they inherit |
//! | `dryrun --layers DIR` | likewise | every task of the image has its provider, down to the compiler |

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{python, run};

pub(crate) const USAGE: &str = "\
cargo xtask yocto crates       writes the list of crates of the recipe from Cargo.lock
cargo xtask yocto lint         the layer by oelint-adv, its kas files by kas's schema, its list of crates by Cargo.lock
cargo xtask yocto parse|dryrun --layers DIR [--machine NAME]
                               BitBake reads all recipes, or also plans every task of the image; DIR holds bitbake,
                               openembedded-core, meta-openembedded, meta-rust-bin (and meta-tegra)";

/// Machines that need no layer of a vendor.
const VIRTUAL_BOARD: &str = "kvs-edge-qemuarm64";
/// What oelint-adv says of every recipe whose sources are beside it, and what needs the network.
const SUPPRESSED: &[&str] = &[
    "oelint.var.suggestedvar.BUGTRACKER",
    "oelint.vars.homepageping",
    "oelint.vars.homepageping.SRC_URI",
    "oelint.var.mandatoryvar.HOMEPAGE",
    "oelint.var.suggestedvar.CVE_PRODUCT",
    "oelint.var.bbclassextend",
    // Image and package group names have no version.
    "oelint.file.underscores",
];
/// What of PyPI looks at the layer. Pinned: a new release finds new things.
const OELINT: &str = "oelint-adv==9.11.2";
const KAS: &str = "kas==5.5";

pub(crate) fn step(arguments: &[String]) -> Result<(), String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["crates"] => write(&layer().join(CRATES), &crates()?),
        ["lint"] => lint(),
        [step, "--layers", layers] => bitbake(step, Path::new(layers), VIRTUAL_BOARD),
        [step, "--layers", layers, "--machine", machine] => bitbake(step, Path::new(layers), machine),
        _ => Err(format!("found `yocto {}`, expected one of\n\n{USAGE}", arguments.join(" "))),
    }
}

const CRATES: &str = "recipes-kvs/kvs-edge/kvs-edge-crates.inc";

/// The list that Cargo.lock asks for.
fn crates() -> Result<String, String> {
    let lock = top().join("Cargo.lock");
    crates_of(&read(&lock)?).map_err(|error| format!("{}: {error}", lock.display()))
}

fn crates_of(lock: &str) -> Result<String, String> {
    let mut uris = String::new();
    let mut sums = String::new();
    for package in lock.split("[[package]]\n").skip(1) {
        let field = |name: &str| {
            package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \"")?.strip_suffix('"'))
        };
        let name = field("name").ok_or("a package without a name")?;
        // What has no source is of this workspace.
        let Some(source) = field("source") else { continue };
        if source != "registry+https://github.com/rust-lang/crates.io-index" {
            return Err(format!("{name} comes from {source}; BitBake fetches crates of crates.io only"));
        }
        let (Some(version), Some(sum)) = (field("version"), field("checksum")) else {
            return Err(format!("{name} has no version or no checksum"));
        };
        let _ = writeln!(uris, "    crate://crates.io/{name}/{version} \\");
        let _ = writeln!(sums, "SRC_URI[{name}-{version}.sha256sum] = \"{sum}\"");
    }
    Ok(format!(
        "# Written by `cargo xtask yocto crates` from Cargo.lock; not by hand.\n\nSRC_URI += \"\\\n{uris}\"\n\n{sums}"
    ))
}

fn lint() -> Result<(), String> {
    let python = python::ensure_apart("yocto", &[OELINT, KAS])?;
    if read(&layer().join(CRATES))? != crates()? {
        return Err(format!("{CRATES} lags behind Cargo.lock: run cargo xtask yocto crates, and commit it"));
    }
    println!("xtask: {CRATES} is in step with Cargo.lock");
    let mut oelint = Command::new(python.with_file_name("oelint-adv"));
    oelint.args(["--quiet", "--release", "scarthgap"]);
    oelint.arg(format!("--constantmods=+{}", layer().join("oelint.json").display()));
    oelint.args(SUPPRESSED.iter().map(|rule| format!("--suppress={rule}")));
    run(oelint.args(recipes(layer())?))?;
    println!("xtask: oelint-adv has nothing to say");
    let mut schema = Command::new(&python);
    schema.arg("-B").arg(layer().join("kas/check.py")).args(files(&layer().join("kas"), "yml")?);
    run(&mut schema)?;
    println!("xtask: the kas files keep to kas's schema");
    Ok(())
}

/// All recipes and appends below a folder, in order.
fn recipes(folder: PathBuf) -> Result<Vec<PathBuf>, String> {
    let (mut found, mut left) = (Vec::new(), vec![folder]);
    while let Some(folder) = left.pop() {
        let entries = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            match path.extension().and_then(|extension| extension.to_str()) {
                _ if path.is_dir() => left.push(path),
                Some("bb" | "bbappend") => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    Ok(found)
}

fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.sort();
    Ok(files)
}

/// BitBake reads everything for one machine, or plans its image. The build folder is `target/yocto/MACHINE`.
fn bitbake(step: &str, layers: &Path, machine: &str) -> Result<(), String> {
    let what: &[&str] = match step {
        "parse" => &["--parse-only"],
        "dryrun" => &["--dry-run", "kvs-edge-image"],
        _ => return Err(format!("found `yocto {step}`, expected one of\n\n{USAGE}")),
    };
    let layers = layers.canonicalize().map_err(|error| format!("{}: {error}", layers.display()))?;
    let mut wanted = vec![
        "openembedded-core/meta",
        "meta-openembedded/meta-oe",
        "meta-openembedded/meta-python",
        "meta-openembedded/meta-multimedia",
        "meta-rust-bin",
    ];
    if machine != VIRTUAL_BOARD {
        wanted.push("meta-tegra");
    }
    for layer in wanted.iter().copied().chain(["bitbake/bin/bitbake"]) {
        if !layers.join(layer).exists() {
            return Err(format!(
                "found no {layer} in {}, which must hold the repositories of meta-kvs-edge/kas/base.yml at their commits",
                layers.display()
            ));
        }
    }
    let build = python::target().join("yocto").join(machine);
    let conf = build.join("conf");
    fs::create_dir_all(&conf).map_err(|error| format!("{}: {error}", conf.display()))?;
    let mut folders: Vec<_> = wanted.iter().map(|layer| layers.join(layer)).collect();
    folders.push(layer());
    let list: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
    write(
        &conf.join("bblayers.conf"),
        &format!(
            "BBPATH = \"${{TOPDIR}}\"\nBBFILES ?= \"\"\nLCONF_VERSION = \"7\"\nBBLAYERS = \"{}\"\n",
            list.join(" ")
        ),
    )?;
    write(
        &conf.join("local.conf"),
        &format!(
            "MACHINE = \"{machine}\"\nDISTRO = \"kvs-edge-os\"\nBB_NO_NETWORK ?= \"1\"\nCONNECTIVITY_CHECK_URIS = \"\"\n"
        ),
    )?;
    let mut bitbake = Command::new(layers.join("bitbake/bin/bitbake"));
    bitbake.args(what).current_dir(&build).env("BUILDDIR", &build).env("BBPATH", &build);
    let path = std::env::var("PATH").unwrap_or_default();
    let tools = [layers.join("bitbake/bin"), layers.join("openembedded-core/scripts")];
    bitbake.env("PATH", format!("{}:{}:{path}", tools[0].display(), tools[1].display()));
    run(&mut bitbake)
}

fn read(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

fn layer() -> PathBuf {
    top().join("meta-kvs-edge").canonicalize().unwrap_or_else(|_| top().join("meta-kvs-edge"))
}

fn top() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recipe_s_crates_are_those_of_the_lock_file() {
        let written = read(&layer().join(CRATES)).unwrap();
        assert!(
            written == crates().unwrap(),
            "{CRATES} lags behind Cargo.lock: run cargo xtask yocto crates"
        );
        assert!(written.matches("crate://").count() > 100);
    }

    #[test]
    fn a_lock_file_is_read_or_refused_with_the_package() {
        let lock = |source: &str| {
            format!(
                "version = 4\n\n[[package]]\nname = \"ours\"\nversion = \"0.1.0\"\n\n[[package]]\nname = \"bytes\"\n\
                 version = \"1.10.0\"\nsource = \"{source}\"\nchecksum = \"ab12\"\n"
            )
        };
        let written = crates_of(&lock("registry+https://github.com/rust-lang/crates.io-index")).unwrap();
        assert!(written.contains("    crate://crates.io/bytes/1.10.0 \\\n"), "{written}");
        assert!(written.contains("SRC_URI[bytes-1.10.0.sha256sum] = \"ab12\"\n"), "{written}");
        assert!(!written.contains("ours"), "{written}");
        let error = crates_of(&lock("git+https://example.com/bytes")).unwrap_err();
        assert_eq!(
            error,
            "bytes comes from git+https://example.com/bytes; BitBake fetches crates of crates.io only"
        );
    }

    #[test]
    fn a_missing_layer_is_named() {
        let error = bitbake("parse", Path::new(env!("CARGO_MANIFEST_DIR")), VIRTUAL_BOARD).unwrap_err();
        assert!(error.starts_with("found no openembedded-core/meta in "), "{error}");
        let error = bitbake("dryrun", Path::new("/not/there"), VIRTUAL_BOARD).unwrap_err();
        assert!(error.starts_with("/not/there: "), "{error}");
        let words = ["bake", "--layers", "/"].map(str::to_owned);
        assert!(step(&words).unwrap_err().contains("found `yocto bake`"));
        assert!(step(&["bake".to_owned()]).unwrap_err().contains("found `yocto bake`"));
    }
}
