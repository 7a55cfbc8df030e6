//! `cargo xtask yocto ...`: the Yocto layer, looked at as far as a machine without a board allows.
//!
//! | step | needs | proves |
//! |---|---|---|
//! | `crates` | nothing | writes the recipe's list of crates from Cargo.lock |
//! | `lint` | PyPI | that list is in step, recipes by oelint-adv, kas files by kas's own schema, a commit for each repository |
//! | `parse --layers DIR` | the public layers below DIR, a user who is not root | BitBake reads every recipe, ours with all that they inherit |
//! | `dryrun --layers DIR` | likewise | every task of images and bundle has its provider, down to the compiler |
//! | `package --layers DIR` | besides, what `cargo xtask cross` fetches | our recipes are really fetched, compiled, installed and packaged |
//! | `check-layer --layers DIR` | likewise without that | Yocto's own judgement of a layer |

mod bitbake;
mod layers;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{python, run};
use bitbake::Step;
use layers::Machine;

pub(crate) const USAGE: &str = "\
cargo xtask yocto crates       writes the list of crates of the recipe from Cargo.lock
cargo xtask yocto lint         the layer by oelint-adv, its kas files by kas's schema, its list of crates by Cargo.lock
cargo xtask yocto parse|dryrun|package|check-layer --layers DIR [--machine NAME]
                               BitBake reads all recipes; plans every task of the images and the bundle; compiles and packages
                               our recipes; Yocto's own check of a layer. DIR holds bitbake, openembedded-core, meta-rust-bin
                               and meta-rauc (and meta-tegra for kvs-edge-orin-nano), all of scarthgap or all of wrynose";

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
        [step, "--layers", layers] => bitbake_step(step, layers, "kvs-edge-qemuarm64"),
        [step, "--layers", layers, "--machine", machine] => bitbake_step(step, layers, machine),
        _ => Err(format!("found `yocto {}`, expected one of\n\n{USAGE}", arguments.join(" "))),
    }
}

fn bitbake_step(step: &str, layers: &str, machine: &str) -> Result<(), String> {
    let step = Step::of(step).ok_or_else(|| format!("found `yocto {step}`, expected one of\n\n{USAGE}"))?;
    bitbake::step(step, Path::new(layers), Machine::of(machine)?)
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

/// Whether the list is the one that Cargo.lock asks for; which crates it lacks and has for nothing.
fn in_step(list: &str, wanted: &str) -> Result<(), String> {
    if list == wanted {
        return Ok(());
    }
    let names = |of: &str, without: &str| {
        let without = crates_named(without);
        let mut names: Vec<_> =
            crates_named(of).into_iter().filter(|named| !without.contains(named)).collect();
        names.truncate(5);
        names.iter().map(|(name, version)| format!("{name} {version}")).collect::<Vec<_>>().join(", ")
    };
    let (lacks, extra) = (names(wanted, list), names(list, wanted));
    Err(format!(
        "{CRATES} lags behind Cargo.lock (lacks: {}; has for nothing: {}): run cargo xtask yocto crates, and commit it",
        if lacks.is_empty() { "nothing" } else { &lacks },
        if extra.is_empty() { "nothing" } else { &extra },
    ))
}

fn lint() -> Result<(), String> {
    let python = python::ensure_apart("yocto", &[OELINT, KAS])?;
    in_step(&read(&layer().join(CRATES))?, &crates()?)?;
    println!("xtask: {CRATES} is in step with Cargo.lock");
    let mut oelint = Command::new(python.with_file_name("oelint-adv"));
    oelint.args(["--quiet", "--release", "scarthgap"]);
    oelint.arg(format!("--constantmods=+{}", layer().join("oelint.json").display()));
    oelint.args(SUPPRESSED.iter().map(|rule| format!("--suppress={rule}")));
    run(oelint.args(recipes(layer())?))?;
    println!("xtask: oelint-adv has nothing to say");
    let mut schema = Command::new(&python);
    schema.arg("-B").arg(layer().join("kas/check.py")).arg(layer().join("kas"));
    run(&mut schema)?;
    println!("xtask: the kas files keep to kas's schema, and each repository of both series has its commit");
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

/// Names and versions in that list.
fn crates_named(list: &str) -> Vec<(&str, &str)> {
    let words = list.split_whitespace();
    words.filter_map(|word| word.strip_prefix("crate://crates.io/")?.rsplit_once('/')).collect()
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
    fn a_list_that_lags_says_in_what() {
        let list = |crates: &[(&str, &str)]| -> String {
            crates
                .iter()
                .map(|(name, version)| format!("    crate://crates.io/{name}/{version} \\\n"))
                .collect()
        };
        let wanted = list(&[("bytes", "1.10.0"), ("http", "1.3.1")]);
        assert_eq!(in_step(&wanted, &wanted), Ok(()));
        let error = in_step(&list(&[("bytes", "1.9.0"), ("http", "1.3.1")]), &wanted).unwrap_err();
        assert!(
            error.contains("lags behind Cargo.lock (lacks: bytes 1.10.0; has for nothing: bytes 1.9.0)"),
            "{error}"
        );
        // A sum that was edited changes no name.
        let error =
            in_step(&format!("{wanted}SRC_URI[bytes-1.10.0.sha256sum] = \"00\"\n"), &wanted).unwrap_err();
        assert!(
            error.contains("(lacks: nothing; has for nothing: nothing): run cargo xtask yocto crates"),
            "{error}"
        );
    }

    #[test]
    fn a_step_or_machine_that_is_not_there_is_answered_with_those_that_are() {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        for wrong in [&["bake"][..], &["bake", "--layers", "/"], &["parse"], &["parse", "--layer", "/"]] {
            let error = step(&words(wrong)).unwrap_err();
            assert!(error.starts_with("found `yocto "), "{error}");
            assert!(error.contains("parse|dryrun|package|check-layer --layers DIR"), "{error}");
        }
        let error = step(&words(&["parse", "--layers", "/", "--machine", "pi"])).unwrap_err();
        assert!(error.starts_with("found machine `pi`, expected "), "{error}");
        let error = step(&words(&["dryrun", "--layers", env!("CARGO_MANIFEST_DIR")])).unwrap_err();
        assert!(error.starts_with("found no bitbake/bin/bitbake in "), "{error}");
    }
}
