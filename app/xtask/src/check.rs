//! The tests, with one total at the end.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use crate::junit::{self, Case};
use crate::{cargo, deb, image, model, npm, python, run, supply, wheel, yocto};

/// What runs besides the default.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scope {
    /// Heavy foreign peers.
    pub(crate) peers: bool,
    /// What takes long.
    pub(crate) full: bool,
}

/// What some tests look at.
struct Folders {
    /// Installed NanoDet-g.
    models: Option<PathBuf>,
    /// Debian packages of this commit.
    packages: Option<PathBuf>,
    /// Reads what a binary is made of.
    cargo_audit: PathBuf,
    /// A player in a web page.
    hls_js: PathBuf,
    /// An interpreter that has the Python wheel.
    wheel: PathBuf,
}

/// What became of all tests.
#[derive(Debug, Default, PartialEq, Eq)]
struct Total {
    passed: u64,
    failed: u64,
    skipped: u64,
}

/// Lints, then every test. The last line on standard output is the total, which CI reads.
pub(crate) fn everything(scope: Scope) -> Result<ExitCode, String> {
    lints()?;
    supply::deny()?;
    // The tests start the real programs.
    run(cargo().args(["build", "--workspace", "--bins"]))?;
    let packages = [python::ONNXRUNTIME, python::NEXTEST, python::NUMPY, python::ONNX];
    let python = python::ensure(&packages)?;
    let wheel = wheel::installed("dev")?;
    let models = if scope.peers { Some(model::install(None)?) } else { model::installed() };
    let library = python::onnxruntime_library(&python)
        .ok_or_else(|| format!("no libonnxruntime.so in {}", python::ONNXRUNTIME))?;

    if scope.full {
        yocto::step(&["lint".to_owned()])?;
    }
    let packages = if scope.full { Some(deb::build(deb::Architecture::Native)?) } else { None };
    let cargo_audit = supply::cargo_audit()?;
    let mut total = Total::default();
    let folders = Folders { models, packages, cargo_audit, hls_js: npm::hls_js(&python)?, wheel };
    // First, since a test lists the public items by the same tool, which then finds all it needs.
    let documented = documented();
    let mut problems = nextest(scope, &python, &library, &folders, &mut total)?;
    // Examples in documentation, which nextest does not run.
    problems.extend(documentation(&mut total)?);
    problems.extend(documented);
    if scope.full {
        problems.extend(image::reproduce().err());
    }
    if total.passed == 0 {
        problems.push("no test was executed".to_owned());
    }
    for problem in &problems {
        println!("xtask: {problem}");
    }
    println!("\n{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn lints() -> Result<(), String> {
    if run(cargo().args(["fmt", "--version"]).stdout(Stdio::null()).stderr(Stdio::null())).is_ok() {
        run(cargo().args(["fmt", "--all", "--check"]))?;
    } else {
        println!("xtask: left out the format check: rustfmt is not installed");
    }
    if run(cargo().args(["clippy", "--version"]).stdout(Stdio::null()).stderr(Stdio::null())).is_ok() {
        run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    } else {
        println!("xtask: left out the lints: clippy is not installed");
    }
    // In the workspace its dependencies have features that others asked for.
    run(cargo().args(["check", "--package", "kvs-client", "--no-default-features"]))
}

/// Runs all tests but those in documentation; the answer is what went wrong.
fn nextest(
    scope: Scope,
    python: &Path,
    library: &Path,
    folders: &Folders,
    total: &mut Total,
) -> Result<Vec<String>, String> {
    // There wherever cargo builds: nextest's own folder is below the workspace.
    let report = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/nextest/default/junit.xml"));
    // A report of an earlier run says nothing about this one.
    let _ = std::fs::remove_file(report);
    let program = python.with_file_name("cargo-nextest");
    let mut command = std::process::Command::new(&program);
    command.args(["nextest", "run", "--workspace", "--no-fail-fast", "--profile", "default"]);
    command.env("KVS_EDGE_TEST_ONNXRUNTIME", library).env("KVS_EDGE_TEST_REQUIRE_PEERS", "1");
    command.env("KVS_EDGE_TEST_PYTHON", python).env("KVS_EDGE_TEST_HLS_JS", &folders.hls_js);
    command.env("KVS_EDGE_TEST_CARGO_AUDIT", &folders.cargo_audit);
    command.env("KVS_EDGE_TEST_WHEEL", &folders.wheel);
    for (folder, name) in
        [(&folders.models, "KVS_EDGE_TEST_MODELS"), (&folders.packages, "KVS_EDGE_TEST_DEB")]
    {
        match folder {
            Some(folder) => command.env(name, folder),
            None => command.env_remove(name),
        };
    }
    for (wanted, name) in [(scope.peers, "KVS_EDGE_TEST_PEERS"), (scope.full, "KVS_EDGE_TEST_FULL")] {
        if wanted {
            command.env(name, "1");
        } else {
            command.env_remove(name);
        }
    }
    let status = command.status().map_err(|error| format!("{}: {error}", program.display()))?;
    let xml = std::fs::read_to_string(report);
    let cases = junit::cases(
        &xml.map_err(|error| format!("{}: {error}: nextest ended with {status}", report.display()))?,
    );
    let mut problems = total.count(&cases);
    if !status.success() && problems.is_empty() {
        problems.push(format!("cargo nextest ended with {status}"));
    }
    Ok(problems)
}

fn documentation(total: &mut Total) -> Result<Option<String>, String> {
    let mut child = cargo()
        .args(["test", "--workspace", "--doc", "--no-fail-fast", "--quiet"])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cargo test does not start: {error}"))?;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            let says_nothing = line.is_empty() || line == "running 0 tests";
            if !total.add(&line) && !says_nothing {
                println!("{line}");
            }
        }
    }
    let status = child.wait().map_err(|error| format!("cargo test: {error}"))?;
    Ok((!status.success()).then(|| format!("examples in documentation: cargo test ended with {status}")))
}

/// What others build upon has its documentation without a warning; the answer is what went wrong.
fn documented() -> Option<String> {
    let arguments = ["doc", "--quiet", "--no-deps", "--package", "kvs-client", "--all-features"];
    let done = run(cargo().args(arguments).env("RUSTDOCFLAGS", "--deny warnings"));
    done.err().map(|error| format!("documentation of kvs-client: {error}"))
}

impl Total {
    /// Adds nextest's cases and lists what a reader of a green run should know; the answer is what went wrong.
    fn count(&mut self, cases: &[Case]) -> Vec<String> {
        let mut problems = Vec::new();
        for case in cases {
            match &case.skipped {
                _ if case.failed => {
                    self.failed += 1;
                    problems.push(format!("failed: {}", case.name));
                }
                Some(why) if is_optional(why) => {
                    self.skipped += 1;
                    println!("xtask: skipped: {}: {why}", case.name);
                }
                // What the default needs is installed by this program: it may not be missing.
                Some(why) => {
                    self.failed += 1;
                    problems.push(format!("failed, for it did nothing: {}: {why}", case.name));
                }
                None => self.passed += 1,
            }
            if !case.failed && case.retried > 0 {
                println!("xtask: passed only after {} more tries: {}", case.retried, case.name);
            }
        }
        problems
    }

    /// `test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`
    fn add(&mut self, line: &str) -> bool {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return false;
        };
        for count in counts.split("; ") {
            match count.split_once(' ') {
                Some((number, "passed")) => self.passed += number.parse().unwrap_or(0),
                Some((number, "failed")) => self.failed += number.parse().unwrap_or(0),
                Some((number, "ignored")) => self.skipped += number.parse().unwrap_or(0),
                _ => {}
            }
        }
        true
    }
}

/// A test may leave itself out for what only `--peers` or `--full` asks for, and says so.
fn is_optional(why: &str) -> bool {
    ["--peers", "--full"].iter().any(|flag| why.contains(flag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_add_up_and_other_lines_do_not_count() {
        let mut total = Total::default();
        let lines = [
            ("running 3 tests", false),
            (
                "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
                true,
            ),
            (
                "test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s",
                true,
            ),
            ("test test_result ... ok", false),
        ];
        for (line, counts) in lines {
            assert_eq!(total.add(line), counts, "{line}");
        }
        assert_eq!(total, Total { passed: 14, failed: 3, skipped: 1 });
    }

    #[test]
    fn a_skip_passes_only_where_nobody_asked_for_it() {
        let case = |failed, retried, skipped: Option<&str>| Case {
            name: "a b".to_owned(),
            failed,
            retried,
            skipped: skipped.map(str::to_owned),
        };
        let mut total = Total::default();
        let problems = total.count(&[
            case(false, 0, None),
            case(false, 1, None),
            case(true, 2, None),
            case(false, 0, Some("Java; cargo xtask test --peers")),
            case(false, 0, Some("no mosquitto here")),
        ]);
        assert_eq!(total, Total { passed: 2, failed: 2, skipped: 1 });
        assert_eq!(problems, ["failed: a b", "failed, for it did nothing: a b: no mosquitto here"]);
    }
}
