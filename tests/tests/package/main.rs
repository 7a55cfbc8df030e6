//! The Debian packages under a real systemd: installed, configured, bitten by the watchdog, upgraded, purged. A Debian is made
//! by mmdebstrap and booted by systemd-nspawn; `booted.sh` looks around in there.
//!
//! Needs root, and the packages that `cargo xtask deb` built: `cargo xtask test --full` sees to both.

use std::path::{Path, PathBuf};
use std::process::Command;

use kvs_edge_tests::asked_for;

mod supply;
mod units;

#[test]
fn packages_install_run_upgrade_and_go_under_a_real_systemd() {
    if !asked_for("--full") {
        return;
    }
    let packages =
        std::env::var_os("KVS_EDGE_TEST_DEB").expect("KVS_EDGE_TEST_DEB names the folder of the packages");
    let packages = PathBuf::from(packages);
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let debs = debs(&packages);
    debian(&root, &debs);
    put_in(&root.join("packages/1"), &debs);
    next_version(folder.path(), &debs, &root.join("packages/2"));
    boot(&root);

    let result = std::fs::read_to_string(root.join("result")).expect("nothing was checked");
    let log = std::fs::read_to_string(root.join("result.log")).unwrap_or_default();
    println!("{result}");
    let wrong: Vec<_> = result.lines().filter(|line| line.starts_with("not ok")).collect();
    assert!(wrong.is_empty(), "{}\n\n{log}", wrong.join("\n"));
    assert!(result.ends_with("end\n"), "it did not come to its end:\n{result}\n{log}");
    let script = include_str!("booted.sh");
    assert!(result.lines().count() > script.matches("\ncheck ").count(), "checks were left out:\n{result}");
}

fn debs(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut debs: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    debs.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    debs.sort();
    assert_eq!(debs.len(), 2, "{debs:?}");
    debs
}

/// A small Debian with systemd and what the packages depend on.
fn debian(root: &Path, debs: &[PathBuf]) {
    // The shells read their completions.
    let mut wanted = ["systemd", "systemd-sysv", "dbus", "zsh", "fish"].map(str::to_owned).to_vec();
    for deb in debs {
        let depends = output(Command::new("dpkg-deb").arg("--field").arg(deb).arg("Depends"));
        // The first of alternatives, without its version.
        let names = depends.split(',').filter_map(|one| one.split_whitespace().next());
        wanted.extend(names.map(str::to_owned));
    }
    // How this machine reaches its mirror, proxies included.
    let options = output(Command::new("apt-config").arg("dump"));
    let options =
        options.lines().filter(|line| line.starts_with("Acquire::http") && !line.ends_with("\"\";"));
    let mut make = Command::new("mmdebstrap");
    make.args(["--quiet", "--mode=root", "--variant=minbase"]).arg(format!("--include={}", wanted.join(",")));
    make.args(options.map(|option| format!("--aptopt={option}")));
    let sources: Vec<_> = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"]
        .iter()
        .filter(|file| Path::new(file).is_file())
        .take(1)
        .collect();
    run(make.arg("bookworm").arg(root).args(sources));
}

fn put_in(folder: &Path, debs: &[PathBuf]) {
    std::fs::create_dir_all(folder).unwrap();
    for deb in debs {
        std::fs::copy(deb, folder.join(deb.file_name().unwrap())).unwrap();
    }
}

/// The same packages as a later version.
fn next_version(scratch: &Path, debs: &[PathBuf], to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for (index, deb) in debs.iter().enumerate() {
        let tree = scratch.join(format!("next{index}"));
        run(Command::new("dpkg-deb").arg("--raw-extract").arg(deb).arg(&tree));
        let control = tree.join("DEBIAN/control");
        let text = std::fs::read_to_string(&control).unwrap();
        let version = text.lines().find(|line| line.starts_with("Version: ")).unwrap();
        std::fs::write(&control, text.replace(version, &format!("{version}+next"))).unwrap();
        run(Command::new("dpkg-deb").args(["--root-owner-group", "-Zgzip", "--build"]).arg(&tree).arg(to));
    }
}

/// Boots it, and waits until the unit that looks around has switched it off again.
fn boot(root: &Path) {
    std::fs::write(root.join("booted.sh"), include_str!("booted.sh")).unwrap();
    let unit = "[Unit]\nSuccessAction=poweroff\nFailureAction=poweroff\nAfter=dbus.service\n\
                [Service]\nType=oneshot\nExecStart=/bin/bash /booted.sh\nTimeoutStartSec=900\n";
    std::fs::write(root.join("etc/systemd/system/looks-around.service"), unit).unwrap();
    let mut nspawn = Command::new("systemd-nspawn");
    nspawn.args([
        "--quiet",
        "--boot",
        "--register=no",
        "--keep-unit",
        "--private-network",
        "--console=read-only",
    ]);
    let status =
        nspawn.arg("--directory").arg(root).args(["--", "systemd.wants=looks-around.service"]).status();
    println!("systemd-nspawn ended with {status:?}");
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?} ended with {status}");
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
