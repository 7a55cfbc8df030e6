//! The demo as a user starts it.

use std::process::Command;

use kvs_edge_tests::{Process, asked_for, binary, clip_cache};
use serde_json::Value;

/// Without a fault and with one that has to be found; under `--full` with each that the program knows.
#[tokio::test(flavor = "multi_thread")]
async fn the_demo_accounts_for_everything_and_fails_when_it_cannot() {
    let mut faults = vec![String::new(), "corrupt".to_owned()];
    if asked_for("--full") {
        faults.extend(all_faults().await.into_iter().filter(|fault| fault != "corrupt"));
    }
    play(&faults).await;
}

/// The names that `--fault` takes, as the program lists them to who gives none of them.
async fn all_faults() -> Vec<String> {
    let mut command = Command::new(binary("kvs-edge"));
    let process = Process::spawn("kvs-edge demo", command.args(["demo", "--fault", "none-of-them"]));
    process.ended().await;
    let line = process.line("possible values: ").await;
    let names = line.split_once("possible values: ").expect("it was found in it").1.trim_end_matches(']');
    names.split(", ").map(str::to_owned).collect()
}

/// One demo after the other.
async fn play(faults: &[String]) {
    for fault in faults {
        let mut command = Command::new(binary("kvs-edge"));
        command.args(["demo", "--seconds", "8", "--size", "320x180", "--fps", "10", "--bitrate-kbps", "300"]);
        if !fault.is_empty() {
            command.args(["--fault", fault]);
        }
        command.env("KVS_EDGE_SIM_CACHE", clip_cache()).env_remove("RUST_LOG");
        let demo = Process::spawn("kvs-edge demo", &mut command);
        let status = demo.ended().await;
        let output = demo.output();
        let from =
            output.iter().position(|line| line == "{").unwrap_or_else(|| panic!("{fault}: {output:#?}"));
        let to = output.iter().rposition(|line| line == "}").expect("it ends");
        let summary: Value = serde_json::from_str(&output[from..=to].join("\n")).expect("it is JSON");
        let fine = fault != "corrupt";
        assert_eq!(summary["all_accounted"], fine, "{fault}: {summary:#}");
        assert_eq!(status.success(), fine, "{fault}: {status}: {summary:#}");
        let camera = &summary["cameras"][0];
        assert_eq!(camera["corrupt"], u64::from(!fine), "{fault}: {summary:#}");
        if fine {
            assert!(camera["fragments"].as_u64() > Some(1), "{fault}: {summary:#}");
            assert_eq!(camera["stored_by_kvs"], camera["identical"], "{fault}: {summary:#}");
        }
    }
}
