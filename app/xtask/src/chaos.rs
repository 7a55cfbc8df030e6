//! Long storms: the test of `tests/tests/chaos` that is left out by default, with its numbers.

use std::process::ExitCode;

use crate::{cargo, run};

/// What to do to the daemon.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Chaos {
    /// Each with the name that the test knows it by.
    numbers: Vec<(&'static str, u64)>,
    /// AWS's producer beside ours: the plug-in, `libgstkvssink.so`.
    kvssink: Option<String>,
}

const KVSSINK: &str = "--kvssink";

const OPTIONS: [(&str, &str); 5] = [
    ("--seed", "KVS_EDGE_CHAOS_SEED"),
    ("--minutes", "KVS_EDGE_CHAOS_MINUTES"),
    ("--kills", "KVS_EDGE_CHAOS_KILLS"),
    ("--cuts", "KVS_EDGE_CHAOS_CUTS"),
    ("--outage", "KVS_EDGE_CHAOS_OUTAGE"),
];

impl Chaos {
    pub(crate) fn read(arguments: &[String]) -> Result<Chaos, String> {
        let (mut numbers, mut kvssink) = (Vec::new(), None);
        for pair in arguments.chunks(2) {
            if let [KVSSINK, path] = [pair[0].as_str(), pair.get(1).map_or("", String::as_str)]
                && !path.is_empty()
            {
                kvssink = Some(path.to_owned());
                continue;
            }
            let known = OPTIONS.iter().find(|(option, _)| *option == pair[0]);
            let number = pair.get(1).and_then(|text| text.parse().ok());
            match (known, number) {
                (Some((_, name)), Some(number)) => numbers.push((*name, number)),
                _ => {
                    let known = OPTIONS.map(|(option, _)| format!("{option} N")).join(", ");
                    let found = pair.join(" ");
                    return Err(format!("found `{found}` after chaos, expected {known}, {KVSSINK} PATH"));
                }
            }
        }
        if kvssink.is_none() && numbers.iter().all(|(name, _)| *name == OPTIONS[0].1) {
            numbers.push((OPTIONS[1].1, 5));
        }
        Ok(Chaos { numbers, kvssink })
    }

    pub(crate) fn run(self) -> Result<ExitCode, String> {
        run(cargo().args(["build", "--package", "kvs-edge", "--package", "kvs-local", "--bins"]))?;
        let mut test = cargo();
        test.args([
            "test",
            "--package",
            "kvs-edge-tests",
            "--test",
            "chaos",
            "--",
            "--ignored",
            "--nocapture",
        ]);
        test.env("KVS_EDGE_TEST_REQUIRE_PEERS", "1")
            .envs(self.numbers.iter().map(|(name, n)| (*name, n.to_string())))
            .envs(self.kvssink.map(|path| ("KVSSINK", path)));
        run(&mut test).map(|()| ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(&'static str, u64)>, String> {
        let arguments: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        Chaos::read(&arguments).map(|chaos| chaos.numbers)
    }

    #[test]
    fn numbers_reach_the_test_and_without_any_there_are_five_minutes() {
        let numbers = vec![("KVS_EDGE_CHAOS_MINUTES", 60), ("KVS_EDGE_CHAOS_SEED", 7)];
        assert_eq!(read("--minutes 60 --seed 7"), Ok(numbers));
        assert_eq!(read("--kills 1000"), Ok(vec![("KVS_EDGE_CHAOS_KILLS", 1000)]));
        assert_eq!(read("--seed 7"), Ok(vec![("KVS_EDGE_CHAOS_SEED", 7), ("KVS_EDGE_CHAOS_MINUTES", 5)]));
        let arguments = ["--kvssink", "/opt/libgstkvssink.so"].map(str::to_owned);
        let beside = Chaos::read(&arguments).expect("an option");
        assert_eq!((beside.numbers, beside.kvssink), (vec![], Some("/opt/libgstkvssink.so".to_owned())));
        for wrong in ["--minutes", "--minutes x", "7", "--hours 3", "--kvssink"] {
            assert!(read(wrong).is_err_and(|error| error.contains("--seed N, --minutes N")), "{wrong}");
        }
    }
}
