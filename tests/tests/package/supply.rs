//! What the daemon is made of, as others see it: advisories of a database, and the list that is in the packaged binary.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use kvs_edge_tests::{asked_for, binary};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{debs, run};

const TOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A database as RustSec has it, with one advisory: all versions of the package before `patched` are bad.
fn database(folder: &Path, package: &str, patched: &str) {
    let crates = folder.join("crates").join(package);
    std::fs::create_dir_all(&crates).unwrap();
    let advisory = format!(
        "```toml\n[advisory]\nid = \"RUSTSEC-2026-9999\"\npackage = \"{package}\"\ndate = \"2026-01-01\"\n\n\
         [versions]\npatched = [\">= {patched}\"]\n```\n\n# A hole that a test has made\n\nNot there.\n"
    );
    std::fs::write(crates.join("RUSTSEC-2026-9999.md"), advisory).unwrap();
    let git = |arguments: &[&str]| {
        let identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"];
        run(Command::new("git").args(identity).args(arguments).current_dir(folder));
    };
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message", "an advisory"]);
}

fn deny(database: &Path) -> Output {
    let mut xtask = Command::new(binary("xtask"));
    xtask.args(["--no-install", "deny", "--advisories"]).arg(database);
    xtask.current_dir(TOP).output().unwrap()
}

#[test]
fn an_advisory_about_a_crate_of_ours_fails_the_check_and_another_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let (bad, fine) = (folder.path().join("bad"), folder.path().join("fine"));
    database(&bad, "rustls", "99.0.0");
    database(&fine, "rustls", "0.1.0");
    let refused = deny(&bad);
    let said = String::from_utf8_lossy(&refused.stdout) + String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("A hole that a test has made"), "{said}");
    let passed = deny(&fine);
    let said = String::from_utf8_lossy(&passed.stdout) + String::from_utf8_lossy(&passed.stderr);
    assert!(passed.status.success() && said.contains("advisories ok"), "{said}");
}

/// Names and versions in Cargo.lock.
fn locked() -> BTreeSet<(String, String)> {
    let lock = std::fs::read_to_string(Path::new(TOP).join("Cargo.lock")).unwrap();
    let packages = lock.split("[[package]]\n").skip(1).map(|package| {
        let field = |name: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \""));
            line.unwrap().trim_end_matches('"').to_owned()
        };
        (field("name"), field("version"))
    });
    packages.collect()
}

/// The binary tells what it is made of: our list of it (CycloneDX) is that of Cargo.lock without what only demo and tests need, and
/// a program of others (cargo-audit) reads it, too.
#[test]
fn the_packaged_binary_lists_its_crates() {
    if !asked_for("--full") {
        return;
    }
    let packages =
        std::env::var_os("KVS_EDGE_TEST_DEB").expect("KVS_EDGE_TEST_DEB names the folder of the packages");
    let audit =
        std::env::var_os("KVS_EDGE_TEST_CARGO_AUDIT").expect("KVS_EDGE_TEST_CARGO_AUDIT names the program");
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    run(Command::new("dpkg-deb").arg("--extract").args([&debs(Path::new(&packages))[1], &tree]));
    let program = tree.join("usr/bin/kvs-edge");

    let list = tree.join("usr/share/doc/kvs-edge/kvs-edge.cdx.json.gz");
    let list = Command::new("zcat").arg(list).output().unwrap().stdout;
    let list: Value = serde_json::from_slice(&list).unwrap();
    let sum: String =
        Sha256::digest(std::fs::read(&program).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(list["metadata"]["component"]["hashes"][0]["content"], sum, "the list is of another binary");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let listed: BTreeSet<_> = (list["components"].as_array().unwrap().iter())
        .map(|one| (text(&one["name"]), text(&one["version"])))
        .filter(|(name, _)| name != "sqlite")
        .collect();
    let unknown: Vec<_> = listed.difference(&locked()).cloned().collect();
    assert!(unknown.is_empty(), "not in Cargo.lock: {unknown:?}");
    let has = |name: &str| listed.iter().any(|(listed, _)| listed == name);
    for name in ["ring", "rustls", "tokio", "retina", "rumqttc", "rusqlite", "kvs", "media"] {
        assert!(has(name), "{name} is not listed");
    }
    for name in ["rumqttd", "camera-sim", "kvs-local", "proptest", "openssl-sys"] {
        assert!(!has(name), "{name} is listed");
    }
    for one in list["components"].as_array().unwrap() {
        assert!(!one["licenses"][0]["expression"].is_null(), "no licence: {one}");
    }

    for (package, found) in [("ring", true), ("rumqttd", false)] {
        let advisories = folder.path().join(package);
        database(&advisories, package, "99.0.0");
        let mut command = Command::new(&audit);
        command.args(["audit", "--no-fetch", "--stale", "--no-yanked", "--db"]).arg(&advisories);
        let output = command.arg("bin").arg(&program).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("Found 'cargo auditable' data"), "{said}");
        assert_eq!(said.contains("RUSTSEC-2026-9999"), found, "{package}: {said}");
    }
}
