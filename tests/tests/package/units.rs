//! The units as systemd itself reads them, without running them.

use std::path::Path;
use std::process::Command;

use kvs_edge_tests::program;

/// Points of `systemd-analyze security`, in tenths: 0 is a service that may do nothing, 100 one that may do all.
const EXPOSED_AT_MOST: &str = "--threshold=20";

fn unit() -> String {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../systemd/kvs-edge.service"));
    // The one thing that is not here: the installed program.
    let text = std::fs::read_to_string(path)
        .unwrap()
        .replace("ExecStart=/usr/bin/kvs-edge ", "ExecStart=/bin/true ");
    assert!(text.contains("ExecStart=/bin/true run --config /etc/kvs-edge/kvs-edge.toml"), "{text}");
    text
}

/// What `systemd-analyze ARGUMENTS` says about `text`, and whether it is content; `None` where systemd is not installed.
fn analyze(arguments: &[&str], text: &str) -> Option<(bool, String)> {
    let program = program("systemd-analyze", "systemd")?;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kvs-edge.service");
    std::fs::write(&file, text).unwrap();
    let output = Command::new(program).args(arguments).arg(&file).output().unwrap();
    // Units of other packages on this machine are not ours to judge.
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let about_ours: Vec<_> = said.lines().filter(|line| line.contains("kvs-edge.service")).collect();
    Some((output.status.success(), about_ours.join("\n")))
}

#[test]
fn systemd_understands_every_line_of_the_unit() {
    let Some((fine, said)) = analyze(&["verify", "--man=no"], &unit()) else { return };
    assert!(fine && said.is_empty(), "{said}");
}

#[test]
fn a_unit_edited_to_something_invalid_is_found() {
    for (right, wrong) in [
        ("WatchdogSec=30", "WatchdogSec=often"),
        ("NoNewPrivileges=yes", "NoNewPrivilege=yes"),
        ("ExecStart=/bin/true", "ExecStart=/bin/not-there"),
        ("Type=notify", "Type=notifies"),
    ] {
        let text = unit();
        assert!(text.contains(right), "{right}");
        let Some((_, said)) = analyze(&["verify", "--man=no"], &text.replace(right, wrong)) else { return };
        assert!(!said.is_empty(), "{wrong} passes");
    }
}

#[test]
fn the_daemon_is_shut_in() {
    let arguments = ["security", "--offline=true", "--no-pager", EXPOSED_AT_MOST];
    let Some((fine, said)) = analyze(&arguments, &unit()) else { return };
    assert!(fine, "more exposed than {EXPOSED_AT_MOST}: {said}");
    let (fine, _) = analyze(&arguments, "[Service]\nExecStart=/bin/true\n").unwrap();
    assert!(!fine, "the threshold judges nothing");
}
