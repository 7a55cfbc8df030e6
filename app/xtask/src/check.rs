//! Everything that CI runs, with one total at the end.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::{cargo, python, run};

/// Sums of cargo's own `test result:` lines.
#[derive(Debug, Default, PartialEq, Eq)]
struct Total {
    passed: u64,
    failed: u64,
    ignored: u64,
}

fn lints() -> Result<(), String> {
    if run(cargo().args(["fmt", "--version"]).stdout(Stdio::null()).stderr(Stdio::null())).is_ok() {
        run(cargo().args(["fmt", "--all", "--check"]))?;
    } else {
        println!("xtask: skipped the format check: rustfmt is not installed");
    }
    if run(cargo().args(["clippy", "--version"]).stdout(Stdio::null()).stderr(Stdio::null())).is_ok() {
        run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    } else {
        println!("xtask: skipped the lints: clippy is not installed");
    }
    Ok(())
}

pub(crate) fn everything() -> Result<(), String> {
    lints()?;
    // The tests start the real programs.
    run(cargo().args(["build", "--workspace", "--bins"]))?;
    let mut tests = cargo();
    tests.args(["test", "--workspace", "--no-fail-fast"]);
    let library = python::ensure(&[python::ONNXRUNTIME]).map(|python| python::onnxruntime_library(&python));
    match library {
        Ok(Some(library)) => {
            tests.env("KVS_EDGE_TEST_ONNXRUNTIME", library);
        }
        Ok(None) => println!("xtask: no library in {}", python::ONNXRUNTIME),
        Err(error) => println!("xtask: tests with ONNX Runtime are left out: {error}"),
    }
    let mut child = tests
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cargo test does not start: {error}"))?;
    let mut total = Total::default();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            total.add(&line);
        }
    }
    let status = child.wait().map_err(|error| format!("cargo test: {error}"))?;
    println!("\n{} passed, {} failed, {} skipped", total.passed, total.failed, total.ignored);
    if !status.success() {
        return Err(format!("cargo test ended with {status}"));
    }
    if total.passed == 0 {
        return Err("no test was executed".to_owned());
    }
    Ok(())
}

impl Total {
    /// `test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for count in counts.split("; ") {
            match count.split_once(' ') {
                Some((number, "passed")) => self.passed += number.parse().unwrap_or(0),
                Some((number, "failed")) => self.failed += number.parse().unwrap_or(0),
                Some((number, "ignored")) => self.ignored += number.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_add_up_and_other_lines_do_not_count() {
        let mut total = Total::default();
        for line in [
            "running 3 tests",
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.25s",
            "test test_result ... ok",
        ] {
            total.add(line);
        }
        assert_eq!(total, Total { passed: 14, failed: 3, ignored: 1 });
    }
}
