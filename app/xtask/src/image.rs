//! The daemon as it is shipped: the profile `image`, without the demo, with the list of its crates inside (cargo-auditable), and
//! without a path of the machine that built it. So two builds of the same sources are equal, wherever they are made; the compiler
//! and the C compiler must be the same.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{commit, python, run, top};

pub(crate) const USAGE: &str = "\
cargo xtask reproduce          builds the shipped daemon in a second folder, too: both must be equal, byte for byte";

const AUDITABLE: &str = "cargo-auditable@0.7.7";
/// What the image has room for.
const SIZE_LIMIT: u64 = 25 << 20;

/// Where sources are, and where what is built of them goes.
pub(crate) struct Place {
    pub(crate) sources: PathBuf,
    pub(crate) target: PathBuf,
}

impl Place {
    pub(crate) fn here() -> Self {
        Self { sources: top(), target: python::target() }
    }
}

/// For this machine.
pub(crate) fn build() -> Result<PathBuf, String> {
    build_in(&Place::here(), None, |_| {})
}

/// For `triple`, else for this machine; `prepare` tells cargo of a compiler.
pub(crate) fn build_in(
    place: &Place,
    triple: Option<&str>,
    prepare: impl FnOnce(&mut Command),
) -> Result<PathBuf, String> {
    println!("xtask: building kvs-edge as in the image (link-time optimisation takes some minutes)");
    let mut cargo = auditable()?;
    cargo.args(["build", "--locked", "--profile", "image", "--package", "kvs-edge"]);
    cargo.args(["--no-default-features", "--features", "bench,relr"]);
    cargo.args(triple.into_iter().flat_map(|triple| ["--target", triple]));
    cargo.current_dir(&place.sources).env("CARGO_TARGET_DIR", &place.target);
    prepare(&mut cargo);
    without_paths(&mut cargo, place)?;
    run(&mut cargo)?;
    let daemon = place.target.join(triple.unwrap_or_default()).join("image/kvs-edge");
    let daemon = daemon.canonicalize().map_err(|error| format!("{}: {error}", daemon.display()))?;
    let size = fs::metadata(&daemon).map_err(|error| format!("{}: {error}", daemon.display()))?.len();
    if size > SIZE_LIMIT {
        return Err(format!("{} has {size} bytes, the image has room for {SIZE_LIMIT}", daemon.display()));
    }
    println!("xtask: {}: {size} bytes", daemon.display());
    Ok(daemon)
}

/// Paths in messages of panics and assertions begin at names of ours.
fn without_paths(cargo: &mut Command, place: &Place) -> Result<(), String> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let home = home.ok_or("neither CARGO_HOME nor HOME is set")?;
    // The last one that fits counts: the target folder may be one of the sources.
    let names = [(&home, "/cargo"), (&place.sources, "/kvs-edge"), (&place.target, "/target")];
    let map = |flag: &str| names.map(|(path, name)| format!("{flag}={}={name}", path.display()));
    cargo.env("CARGO_ENCODED_RUSTFLAGS", map("--remap-path-prefix").join("\x1f"));
    cargo.env("CFLAGS", map("-ffile-prefix-map").join(" "));
    cargo.env("SOURCE_DATE_EPOCH", commit("%at")?);
    Ok(())
}

/// `cargo auditable`, installed below the target folder.
fn auditable() -> Result<Command, String> {
    let tools = python::target().join("tools");
    let program = tools.join("bin/cargo-auditable");
    if !program.exists() {
        println!("xtask: installing {AUDITABLE} into {}", tools.display());
        let mut install = crate::cargo();
        install.args(["install", "--quiet", "--locked", "--root"]).arg(&tools).arg(AUDITABLE);
        // What it is built in goes with it.
        install.env("CARGO_TARGET_DIR", tools.join("build"));
        run(&mut install)?;
        let _ = fs::remove_dir_all(tools.join("build"));
    }
    let mut auditable = Command::new(program);
    auditable.arg("auditable");
    Ok(auditable)
}

pub(crate) fn step(arguments: &[String]) -> Result<(), String> {
    match arguments {
        [] => reproduce(),
        other => Err(format!("found `reproduce {}`, expected\n\n{USAGE}", other.join(" "))),
    }
}

/// A second build, of the same sources in another folder with a longer name.
pub(crate) fn reproduce() -> Result<(), String> {
    let first = build()?;
    let other = Place {
        sources: python::target().join("reproduce/a-copy-of-the-sources"),
        target: python::target().join("reproduce/where-it-is-built"),
    };
    let _ = fs::remove_dir_all(python::target().join("reproduce"));
    copy_sources(&other.sources)?;
    let second = build_in(&other, None, |_| {})?;
    let differ = first_difference(&first, &second)?;
    if let Some(at) = differ {
        return Err(format!(
            "{} and {} differ from byte {at} on: a path, a time or an order of the building machine is in it",
            first.display(),
            second.display()
        ));
    }
    println!("xtask: two builds in two folders are equal");
    fs::remove_dir_all(python::target().join("reproduce")).map_err(|error| format!("reproduce: {error}"))
}

/// All files, as they are now.
fn copy_sources(to: &Path) -> Result<(), String> {
    for file in sources()? {
        let copy = to.join(file.strip_prefix(top()).unwrap_or(&file));
        let folder = copy.parent().unwrap_or(to);
        // With its mode.
        let copied = fs::create_dir_all(folder).and_then(|()| fs::copy(&file, &copy));
        copied.map_err(|error| format!("{}: {error}", copy.display()))?;
    }
    Ok(())
}

/// Every file of the tree that is not built from others: also where git is not there, or does not trust the folder.
pub(crate) fn sources() -> Result<Vec<PathBuf>, String> {
    let (mut files, mut folders) = (Vec::new(), vec![top()]);
    while let Some(folder) = folders.pop() {
        let named = |error| format!("{}: {error}", folder.display());
        for entry in fs::read_dir(&folder).map_err(named)? {
            let entry = entry.map_err(named)?;
            let name = entry.file_name();
            let built = name.as_encoded_bytes().starts_with(b"target") && folder == top();
            if built || name == ".git" || name == "__pycache__" {
                continue;
            }
            let kind = entry.file_type().map_err(named)?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Where two files differ first.
fn first_difference(one: &Path, other: &Path) -> Result<Option<usize>, String> {
    let read = |path: &Path| {
        let mut bytes = Vec::new();
        let read = fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
        read.map(|_| bytes).map_err(|error| format!("{}: {error}", path.display()))
    };
    let (one, other) = (read(one)?, read(other)?);
    let at = one.iter().zip(&other).position(|(one, other)| one != other);
    Ok(at.or((one.len() != other.len()).then(|| one.len().min(other.len()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_differ_at_their_first_byte_that_does_or_where_one_ends() {
        let folder = std::env::temp_dir().join(format!("xtask-image-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = |name: &str, text: &str| {
            fs::write(folder.join(name), text).unwrap();
            folder.join(name)
        };
        let one = file("one", "abcd");
        assert_eq!(first_difference(&one, &file("same", "abcd")).unwrap(), None);
        assert_eq!(first_difference(&one, &file("other", "abxd")).unwrap(), Some(2));
        assert_eq!(first_difference(&one, &file("longer", "abcde")).unwrap(), Some(4));
        assert!(first_difference(&one, &folder.join("gone")).unwrap_err().contains("gone"));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_copy_has_what_a_build_needs_and_nothing_that_was_built() {
        let folder = std::env::temp_dir().join(format!("xtask-copy-{}", std::process::id()));
        copy_sources(&folder).unwrap();
        assert!(folder.join("Cargo.lock").is_file() && folder.join("app/xtask/src/image.rs").is_file());
        assert!(!folder.join("target").exists());
        fs::remove_dir_all(&folder).unwrap();
    }
}
