//! `cargo xtask help` lists the tasks: each installs the Debian packages that are missing, builds, runs.
//!
//! Only the standard library, so that it builds in seconds before anything else is there.

mod chaos;
mod check;
mod cross;
mod deb;
mod image;
mod junit;
mod model;
mod notes;
mod npm;
mod packages;
mod python;
mod supply;
mod wheel;
mod yocto;

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const USAGE: &str = "\
cargo xtask demo [ARGUMENTS]   the product on simulated cameras, a local KVS and a local broker;
                               ARGUMENTS go to `kvs-edge demo` (--cameras N, --seconds S, --fault NAME, --help)
cargo xtask demo --real        likewise on real footage (a street with people), by NanoDet-g; installs both
cargo xtask test               what CI runs: format, lints, all tests against what Debian has
cargo xtask test --peers       besides, tests against heavy programs of others
cargo xtask test --full        besides, tests that take long
cargo xtask chaos --minutes M [--seed S]   the daemon under faults drawn from a seed; what was sent, stored and claimed must agree
cargo xtask chaos --kills N    likewise N times kill -9, each at another moment; --cuts N: likewise the link; --outage M: 4 cameras at 4 Mbit/s, M minutes
cargo xtask bench              the benches behind the tables in app/README.md; installs real footage and NanoDet-g, too
cargo xtask model              a detector that knows people and vehicles: fetches NanoDet-g (144 MB), converts it, and
                               installs it where `kvs-edge` of this user finds it
cargo xtask model --folder DIR likewise into DIR, such as /usr/share/kvs-edge/models for all users
cargo xtask wheel              the Python wheel `kvs_client`, in target/wheels
cargo xtask api                records what callers of kvs-client see, in app/kvs-client/public-api.txt; refuses what breaks them
cargo xtask api --release      likewise as what this version promises

  --no-install                 refuse to install Debian packages: say which are missing, and stop";

fn main() -> ExitCode {
    let mut arguments: Vec<String> = env::args().skip(1).collect();
    let install = !take(&mut arguments, "--no-install");
    let task = if arguments.is_empty() { String::new() } else { arguments.remove(0) };
    let mut scope = check::Scope::default();
    if task == "test" {
        scope.peers = take(&mut arguments, "--peers");
        scope.full = take(&mut arguments, "--full");
    }
    let done = match task.as_str() {
        "test" | "bench" | "wheel" if !arguments.is_empty() => {
            Err(format!("found `{}` after {task}, expected nothing there\n\n{USAGE}", arguments.join(" ")))
        }
        "demo" => prepare_demo(install, &mut arguments).and_then(|()| demo(&arguments)),
        "test" => packages::test(install, scope.peers, scope.full).and_then(|()| check::everything(scope)),
        "chaos" => chaos::Chaos::read(&arguments)
            .map_err(|error| format!("{error}\n\n{USAGE}"))
            .and_then(|chaos| packages::test(install, false, false).and_then(|()| chaos.run())),
        "bench" => packages::bench(install).and_then(|()| bench()),
        "model" => folder(&arguments).and_then(|folder| {
            packages::model(install)?;
            model::install(folder)?;
            Ok(ExitCode::SUCCESS)
        }),
        "deb" => packages::deb(install).and_then(|()| deb::step(&arguments)).map(|()| ExitCode::SUCCESS),
        "cross" => {
            packages::demo(install, false).and_then(|()| cross::step(&arguments)).map(|()| ExitCode::SUCCESS)
        }
        "wheel" => packages::wheel(install).and_then(|()| wheel::build()),
        "api" => packages::test(install, false, false).and_then(|()| api(&arguments)),
        "deny" => packages::model(install)
            .and_then(|()| supply::step(&task, &arguments))
            .map(|()| ExitCode::SUCCESS),
        "sbom" => packages::wheel(install)
            .and_then(|()| supply::step(&task, &arguments))
            .map(|()| ExitCode::SUCCESS),
        "reproduce" => {
            packages::demo(install, false).and_then(|()| image::step(&arguments)).map(|()| ExitCode::SUCCESS)
        }
        "notes" => notes::step(&arguments).map(|()| ExitCode::SUCCESS),
        "yocto" => {
            packages::model(install).and_then(|()| yocto::step(&arguments)).map(|()| ExitCode::SUCCESS)
        }
        "" | "help" | "--help" | "-h" => {
            let more = [deb::USAGE, cross::USAGE, supply::USAGE, image::USAGE, notes::USAGE, yocto::USAGE];
            println!("{USAGE}\n\n{}", more.join("\n"));
            return ExitCode::SUCCESS;
        }
        other => Err(format!(
            "found `{other}`, expected demo, test, chaos, bench, model, deb, cross, wheel, api, deny, sbom, reproduce, notes or yocto\n\n{USAGE}"
        )),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn take(arguments: &mut Vec<String>, flag: &str) -> bool {
    let before = arguments.len();
    arguments.retain(|argument| argument != flag);
    arguments.len() < before
}

fn folder(arguments: &[String]) -> Result<Option<PathBuf>, String> {
    match arguments {
        [] => Ok(None),
        [flag, folder] if flag == "--folder" => Ok(Some(PathBuf::from(folder))),
        other => Err(format!(
            "found `{}` after model, expected nothing or --folder DIR\n\n{USAGE}",
            other.join(" ")
        )),
    }
}

/// Installs what the demo needs; with `--real` also footage and model, and asks for them.
fn prepare_demo(install: bool, arguments: &mut Vec<String>) -> Result<(), String> {
    let real = take(arguments, "--real");
    packages::demo(install, real)?;
    if real {
        model::install(None)?;
        arguments.splice(0..0, ["--clip".to_owned(), packages::FOOTAGE.to_owned()]);
    }
    Ok(())
}

fn demo(arguments: &[String]) -> Result<ExitCode, String> {
    println!("xtask: building kvs-edge (the first time takes some minutes)");
    run(cargo().args(["build", "--package", "kvs-edge"]))?;
    run(cargo().args(["run", "--quiet", "--package", "kvs-edge", "--", "demo"]).args(arguments))?;
    Ok(ExitCode::SUCCESS)
}

/// The test that compares writes, too.
fn api(arguments: &[String]) -> Result<ExitCode, String> {
    let what = match arguments {
        [] => "changes",
        [flag] if flag == "--release" => "release",
        other => {
            return Err(format!(
                "found `{}` after api, expected nothing or --release\n\n{USAGE}",
                other.join(" ")
            ));
        }
    };
    let test = ["test", "--quiet", "--package", "kvs-client", "--test", "public_api", "--", "callers"];
    run(cargo().args(test).env("KVS_EDGE_RECORD_API", what))?;
    Ok(ExitCode::SUCCESS)
}

fn bench() -> Result<ExitCode, String> {
    let python = python::ensure(&[python::ONNXRUNTIME, python::MOTMETRICS, python::TRACKERS])?;
    let models = model::install(None)?;
    let wheel = wheel::installed("release")?;
    let daemon = image::build()?;
    for (package, bench) in [
        ("media", "mkv_read"),
        ("vision", "letterbox"),
        ("vision", "track"),
        ("decode", "decode"),
        ("detect", "backends"),
        ("detect", "footage"),
        ("kvs-client", "reading"),
        ("kvs-client-py", "consumer"),
        ("kvs-edge", "upload"),
        ("kvs-edge", "analytics"),
    ] {
        let mut cargo = cargo();
        cargo.args(["bench", "--package", package, "--bench", bench]);
        if bench == "upload" {
            cargo.arg("--").arg("--daemon").arg(&daemon);
        }
        if bench == "backends" {
            let scene = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/scene.onnx");
            cargo.arg("--").arg(scene).args(model::files(&models));
        }
        run(cargo.env("KVS_EDGE_BENCH_PYTHON", &python).env("KVS_EDGE_BENCH_WHEEL", &wheel))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The cargo that runs us.
fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|error| format!("{program} does not start: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{program} ended with {status}")) }
}

/// Something about the commit that is built, as `git log --format` writes it.
fn commit(format: &str) -> Result<String, String> {
    let mut log = Command::new("git");
    log.args(["log", "-1"]).arg(format!("--format={format}")).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = log.output().map_err(|error| format!("git does not start: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(format!("git log: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// The folder of the workspace.
fn top() -> PathBuf {
    let top = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    top.canonicalize().unwrap_or_else(|_| top.to_owned())
}
