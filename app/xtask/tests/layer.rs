//! What of the image can be tried without Yocto: scripts against stand-ins, bundles by the real RAUC, units by the real systemd.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// `cargo xtask test` installs the programs; whoever runs these tests otherwise is told.
fn run(package: &str, command: &mut Command) -> Output {
    let program = command.get_program().to_string_lossy().into_owned();
    command.output().unwrap_or_else(|error| {
        panic!("{program}: {error}; it is in the Debian package {package}: sudo apt-get install {package}")
    })
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn bats(file: &str) {
    for (package, program) in [
        ("rauc", "rauc"),
        ("squashfs-tools", "mksquashfs"),
        ("openssl", "openssl"),
        ("grub-common", "grub-editenv"),
    ] {
        run(package, Command::new(program).arg("--version"));
    }
    let output =
        run("bats", Command::new("bats").arg("--tap").arg(top().join("meta-kvs-edge/tests").join(file)));
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.lines().filter(|line| line.starts_with("ok ")).count() >= 3, "{said}");
}

#[test]
fn slots_of_a_jetson_are_switched_confirmed_and_ruled_out() {
    bats("slots.bats");
}

#[test]
fn bundles_of_the_development_pki_are_accepted_and_others_refused() {
    bats("bundle.bats");
}

#[test]
fn the_flash_layout_gets_a_data_partition() {
    bats("layout.bats");
}

#[test]
fn the_virtual_board_s_grub_chooses_a_slot() {
    bats("boot.bats");
}

#[test]
fn shellcheck_has_nothing_to_say() {
    let layer = top().join("meta-kvs-edge");
    let output = run(
        "shellcheck",
        Command::new("shellcheck")
            .arg(layer.join("dynamic-layers/tegra/recipes-bsp/kvs-edge-slots/files/kvs-edge-slots"))
            .arg(layer.join("scripts/make-development-pki"))
            .arg(layer.join("tests/stand-ins/nvbootctrl"))
            .arg(top().join("systemd/image/kvs-edge-data")),
    );
    assert!(output.status.success(), "{}", said(&output));
}

/// The units of the image in a folder of their own, as on a box but for the programs, which are not here.
fn units(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("kvs-edge.service.d")).unwrap();
    let systemd = top().join("systemd");
    let mut count = 0;
    for entry in fs::read_dir(systemd.join("image")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.ends_with(".service") || name.ends_with(".mount") {
            fs::write(folder.join(name), without_programs(&fs::read_to_string(&path).unwrap())).unwrap();
            count += 1;
        }
    }
    assert_eq!(count, 5);
    let unit = fs::read_to_string(systemd.join("kvs-edge.service")).unwrap();
    fs::write(folder.join("kvs-edge.service"), without_programs(&unit)).unwrap();
    fs::copy(systemd.join("image/kvs-edge.conf"), folder.join("kvs-edge.service.d/50-image.conf")).unwrap();
    folder
}

fn without_programs(unit: &str) -> String {
    unit.replace("=/usr/bin/kvs-edge ", "=/bin/true ")
        .replace("=/usr/libexec/kvs-edge-data", "=/bin/true")
        .replace("=/usr/bin/rauc ", "=/bin/true ")
}

/// What systemd says of ours: other packages' units on this machine are not ours to judge.
fn verify(folder: &Path) -> String {
    let ours: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    let mut command = Command::new("systemd-analyze");
    command
        .args(["verify", "--man=no"])
        .args(&ours)
        .env("SYSTEMD_UNIT_PATH", format!("{}:", folder.display()));
    let output = run("systemd", &mut command);
    let said = said(&output);
    let about_ours = said.lines().filter(|line| {
        ours.iter().any(|unit| line.contains(unit.file_name().unwrap().to_str().unwrap()))
            || line.contains("50-image.conf")
    });
    about_ours.map(|line| format!("{line}\n")).collect()
}

#[test]
fn systemd_understands_every_unit_of_the_image() {
    let folder = units("units");
    assert_eq!(verify(&folder), "");
    for (unit, right, wrong) in [
        ("data.mount", "Where=/data", "Where=/somewhere"),
        ("data.mount", "Type=ext4", "Typ=ext4"),
        ("kvs-edge-commit.service", "Type=oneshot", "Type=once"),
        ("kvs-edge-data.service", "ExecStart=/bin/true", "ExecStart=/bin/not-there"),
        ("kvs-edge.service.d/50-image.conf", "RequiresMountsFor=", "RequireMountsFor="),
    ] {
        let file = folder.join(unit);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(right), "{unit}: {right}");
        fs::write(&file, text.replace(right, wrong)).unwrap();
        assert_ne!(verify(&folder), "", "{unit}: {wrong} passes");
        fs::write(&file, text).unwrap();
    }
}
