//! Starts, stops and sudden deaths, of the daemon and of the cloud.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use kvs::identity::Sha256Sum;
use kvs_edge_tests::{Camera, Process, Rig, Stored, binary, clip_cache, eventually, within};
use messages::{Health, OFFLINE, Upload, UploadState, Verdict, Verify};
use serde_json::Value;
use tokio::net::UnixDatagram;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_cloud_keeps_what_it_called_persisted_and_gets_the_rest_once() {
    let Some(mut rig) = Rig::builder().camera(Camera::new("cam")).kvs_process(&[]).start().await else {
        return;
    };
    for count in [2, 5] {
        // Each time in the middle of an upload: the camera sends all the while.
        let topic = rig.mqtt.topics.upload("cam");
        rig.mqtt.wait(&topic, |upload: &Upload| upload.state == UploadState::Sending).await;
        let process = rig.kvs.process();
        persisted(process, count).await;
        process.kill().await;
        let mark = rig.mqtt.mark();
        rig.mqtt.wait_after(mark, &topic, |upload: &Upload| upload.state == UploadState::BackingOff).await;
        rig.kvs.process().start_again().await;
    }
    persisted(rig.kvs.process(), 8).await;
    rig.stop().await;
    rig.expect_everything_proven("cam").await.expect_no_picture_missing();
}

async fn persisted(process: &kvs_edge_tests::KvsProcess, count: usize) {
    eventually(&format!("{count} fragments"), async || {
        let stream = process.admin("GET", "streams/cam", &Value::Null).await;
        (stream["fragments"].as_array().map_or(0, Vec::len) >= count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_box_starts_again_and_what_it_had_persisted_stays() {
    let Some(mut rig) = Rig::builder().camera(Camera::new("cam")).start().await else { return };
    rig.fragments("cam", 3).await;
    rig.daemon().signal("KILL");
    rig.daemon().ended().await;
    let before = rig.kvs.stored("cam").await;
    rig.start_daemon().await;
    rig.more_fragments("cam", 3).await;
    rig.stop().await;

    let after = rig.kvs.stored("cam").await;
    let bytes = |stored: &Stored| (stored.number(), payload(stored));
    let kept: BTreeSet<_> = after.iter().map(bytes).collect();
    assert!(before.iter().map(bytes).all(|stored| kept.contains(&stored)), "what was persisted is gone");
    let times: BTreeSet<_> = after.iter().map(Stored::timecode_ms).collect();
    assert_eq!(times.len(), after.len(), "stored twice");
    let topics = &rig.mqtt.topics;
    let upload: Upload = rig.mqtt.last(&topics.upload("cam"));
    let verify: Verify = rig.mqtt.last(&topics.verify("cam"));
    let new = (after.len() - before.len()) as u64;
    let counts = [upload.fragments_sent, upload.fragments_persisted, verify.identical];
    assert_eq!(counts, [new; 3], "sent, persisted, identical of the second run: {upload:#?} {verify:#?}");
    assert_eq!((verify.verdict, verify.corrupt, verify.duplicate), (Verdict::Ok, 0, 0), "{verify:#?}");
    // Old and new prove themselves to whoever reads them.
    for stored in &after {
        let identity = stored.chunk.identity().expect("each fragment carries its tag");
        assert_eq!((&*identity.camera, &*identity.device), ("cam", "box"));
        assert_eq!(identity.payload_sha256, Sha256Sum::of(&payload(stored)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_without_the_cloud_ends_within_its_grace_and_says_what_is_unconfirmed() {
    let rig =
        Rig::builder().set("upload.stop_grace_s", "2").camera(Camera::new("cam")).kvs_process(&[]).start();
    let Some(mut rig) = rig.await else { return };
    persisted(rig.kvs.process(), 2).await;
    rig.kvs.process().kill().await;
    let mark = rig.mqtt.mark();
    let behind = |upload: &Upload| upload.backlog_bytes > 0 && upload.state == UploadState::BackingOff;
    rig.mqtt.wait_after(mark, &rig.mqtt.topics.upload("cam"), behind).await;
    let asked = Instant::now();
    rig.stop().await;
    // The grace time, and the time that MQTT gets after it; far below TimeoutStopSec= of the unit.
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    let line = rig.daemon().line("stopped before these fragments were confirmed").await;
    let upload: Upload = rig.mqtt.last(&rig.mqtt.topics.upload("cam"));
    let unconfirmed = upload.fragments_sent - upload.fragments_persisted;
    assert!(unconfirmed > 0 && line.contains(&format!("fragments={unconfirmed}")), "{unconfirmed}: {line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_does_not_wait_for_the_cloud() {
    let rig =
        Rig::builder().set("upload.stop_grace_s", "300").camera(Camera::new("cam")).kvs_process(&[]).start();
    let Some(mut rig) = rig.await else { return };
    persisted(rig.kvs.process(), 1).await;
    rig.kvs.process().kill().await;
    let mark = rig.mqtt.mark();
    rig.daemon().signal("TERM");
    rig.daemon().line("stopping").await;
    rig.daemon().signal("INT");
    // Far sooner than after 300 s.
    assert!(rig.daemon().ended().await.success());
    rig.mqtt.wait_text(mark, &rig.mqtt.topics.availability(), OFFLINE).await;
}

fn payload(stored: &Stored) -> Vec<u8> {
    stored.blocks.iter().flat_map(|block| block.payload.iter().copied()).collect()
}

/// What the daemon tells its service manager.
struct Manager {
    folder: tempfile::TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Manager {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("a socket in it");
        Manager { folder, socket }
    }

    fn address(&self) -> String {
        self.folder.path().join("notify").display().to_string()
    }

    /// Reads until a line begins with `wanted`; gives all lines read.
    async fn until(&self, wanted: &str) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        let read = async {
            let mut buffer = [0; 4096];
            while !lines.iter().any(|line| line.starts_with(wanted)) {
                let length = self.socket.recv(&mut buffer).await.expect("datagrams come");
                lines.extend(String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned));
            }
        };
        within(wanted, read).await;
        lines
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_hears_ready_status_watchdog_and_stopping() {
    let manager = Manager::new();
    let rig = Rig::builder()
        .camera(Camera::new("cam"))
        .env("NOTIFY_SOCKET", &manager.address())
        .env("WATCHDOG_USEC", "1000000")
        .start();
    let Some(rig) = rig.await else { return };
    let first = manager.until("READY=1").await;
    assert!(!first.iter().any(|line| line.starts_with("STOPPING")), "{first:?}");
    manager.until("STATUS=1 of 1 cameras live").await;
    for _ in 0..4 {
        manager.until("WATCHDOG=1").await;
    }
    // None is left in a second in which the machine did something else.
    let some = |health: &Health| health.watchdog_margin_ms.is_some_and(|ms| ms > 0);
    let _: Health = rig.mqtt.wait_after(rig.mqtt.mark(), &rig.mqtt.topics.health(), some).await;
    rig.stop().await;
    manager.until("STOPPING=1").await;
    let last: Health = rig.mqtt.last(&rig.mqtt.topics.health());
    assert!(last.watchdog_margin_ms.is_some_and(|ms| ms <= 1000), "{last:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_box_is_ready_and_stops_in_order_with_nothing_around_it() {
    let manager = Manager::new();
    let rig = Rig::builder()
        .camera(Camera::at("cam", "rtsp://127.0.0.1:1/none"))
        .set("aws.endpoint", "\"http://127.0.0.1:1\"")
        .set("mqtt.port", "1")
        .env("NOTIFY_SOCKET", &manager.address())
        .without_daemon()
        .start();
    let Some(mut rig) = rig.await else { return };
    rig.spawn_daemon();
    manager.until("READY=1").await;
    manager.until("STATUS=0 of 1 cameras live").await;
    rig.daemon().signal("TERM");
    manager.until("STOPPING=1").await;
    assert!(rig.daemon().ended().await.success());
}

#[tokio::test]
async fn a_broken_configuration_is_refused_with_each_mistake_and_its_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("broken.toml");
    let text = "[aws]\nregionn = \"x\"\n\n[upload]\nfragment_ms = 50\n\n[[camera]]\nid = \"a b\"\nurl = \"http://x/\"\n";
    std::fs::write(&file, text).expect("it can be written");
    let mistakes = [
        ("2:1", "aws.regionn", "did you mean region?"),
        ("5:15", "upload.fragment_ms", "found 50, expected an integer from 1000 to 9000"),
        ("8:6", "camera[0].id", "found \"a b\""),
        ("9:7", "camera[0].url", "expected rtsp://"),
    ];
    for command in ["check", "run"] {
        let output = fails(command, &file).await;
        for (place, key, words) in mistakes {
            let place = format!("{}:{place}: {key}: ", file.display());
            let line = output.iter().find(|line| line.starts_with(&place));
            let line = line.unwrap_or_else(|| panic!("{command}: nothing at {place}: {output:#?}"));
            assert!(line.contains(words) && line.contains("fix:"), "{command}: {line}");
        }
        // A missing region, besides.
        assert_eq!(output.len(), mistakes.len() + 1, "{command}: {output:#?}");
    }
    std::fs::write(&file, "[aws\n").expect("it can be written");
    for command in ["check", "run"] {
        assert!(fails(command, &file).await[0].contains("broken.toml:1:"), "{command}");
        let missing = folder.path().join("missing.toml");
        assert!(fails(command, &missing).await[0].contains("missing.toml"), "{command}");
    }
}

/// What `kvs-edge COMMAND --config FILE` has to say when it fails.
async fn fails(command: &str, file: &Path) -> Vec<String> {
    let mut kvs_edge = Command::new(binary("kvs-edge"));
    let process = Process::spawn("kvs-edge", kvs_edge.arg(command).arg("--config").arg(file));
    let status = process.ended().await;
    assert_eq!(status.code(), Some(1), "{command}: {:#?}", process.output());
    process.output()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_accounts_for_everything_and_fails_when_it_cannot() {
    let faults = [
        "",
        "cut-upload",
        "ack-error",
        "refuse",
        "lost-ack",
        "cut-readback",
        "camera-hangup",
        "packet-loss",
        "corrupt",
    ];
    let mut demos = Vec::new();
    for fault in faults {
        let mut command = Command::new(binary("kvs-edge"));
        command.args(["demo", "--seconds", "8", "--size", "320x180", "--fps", "10", "--bitrate-kbps", "300"]);
        if !fault.is_empty() {
            command.args(["--fault", fault]);
        }
        command.env("KVS_EDGE_SIM_CACHE", clip_cache()).env_remove("RUST_LOG");
        demos.push((fault, Process::spawn("kvs-edge demo", &mut command)));
    }
    for (fault, demo) in demos {
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
