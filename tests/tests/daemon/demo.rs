//! The demo as a user starts it.

use std::process::Command;

use kvs_edge_tests::{Process, asked_for, binary, clip_cache};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_accounts_for_everything_and_fails_when_it_cannot() {
    play(&["", "corrupt"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_accounts_for_everything_under_each_fault() {
    if asked_for("--full") {
        play(&[
            "cut-upload",
            "ack-error",
            "refuse",
            "lost-ack",
            "cut-readback",
            "camera-hangup",
            "packet-loss",
        ])
        .await;
    }
}

/// One demo after the other.
async fn play(faults: &[&str]) {
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
        let fine = *fault != "corrupt";
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
