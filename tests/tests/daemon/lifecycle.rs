//! Starts, stops and sudden deaths, of the daemon and of the cloud.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use kvs::identity::Sha256Sum;
use kvs_edge_tests::{Camera, Process, Rig, Stored, binary, eventually};
use messages::{OFFLINE, ONLINE, Upload, UploadState, Verdict, Verify};
use serde_json::Value;

use crate::broker::{availability, newcomer};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_cloud_keeps_what_it_called_persisted_and_gets_the_rest_once() {
    let Some(mut rig) = Rig::builder().camera(Camera::new("cam")).kvs_process(&[]).start().await else {
        return;
    };
    for count in [2, 5] {
        // Each time in the middle of an upload: the camera sends all the while.
        let topic = rig.mqtt.topics.upload("cam");
        rig.mqtt.wait(&topic, |upload: &Upload| upload.state == UploadState::Sending).await;
        persisted(rig.kvs.process(), count).await;
        let mark = rig.mqtt.mark();
        rig.kvs.process().kill().await;
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
async fn a_killed_box_is_called_offline_starts_again_and_what_it_had_persisted_stays() {
    let Some(mut rig) = Rig::builder().camera(Camera::new("cam")).start().await else { return };
    rig.fragments("cam", 3).await;
    let mark = rig.mqtt.mark();
    rig.daemon().signal("KILL");
    rig.daemon().ended().await;
    let topic = rig.mqtt.topics.availability();
    rig.mqtt.wait_text(mark, &topic, OFFLINE).await;
    let newcomer = newcomer(&rig, &[]).await;
    newcomer.wait_text(0, &topic, OFFLINE).await;
    let before = rig.kvs.stored("cam").await;
    rig.start_daemon().await;
    newcomer.wait_text(0, &topic, ONLINE).await;
    assert_eq!(availability(&rig, mark), [OFFLINE, ONLINE]);
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
async fn a_stop_without_the_cloud_waits_for_its_grace_or_a_second_signal_and_says_what_is_unconfirmed() {
    let rig =
        Rig::builder().set("upload.stop_grace_s", "2").camera(Camera::new("cam")).kvs_process(&[]).start();
    let Some(mut rig) = rig.await else { return };
    persisted(rig.kvs.process(), 2).await;
    rig.kvs.process().kill().await;
    let mark = rig.mqtt.mark();
    let behind = |upload: &Upload| upload.backlog_bytes > 0 && upload.state == UploadState::BackingOff;
    rig.mqtt.wait_after(mark, &rig.mqtt.topics.upload("cam"), behind).await;
    rig.stop().await;
    let line = rig.daemon().line("stopped before these fragments were confirmed").await;
    let upload: Upload = rig.mqtt.last(&rig.mqtt.topics.upload("cam"));
    let unconfirmed = upload.fragments_sent - upload.fragments_persisted;
    assert!(unconfirmed > 0 && line.contains(&format!("fragments={unconfirmed}")), "{unconfirmed}: {line}");

    // Far longer than anything waits here: only a second signal ends it.
    rig.set("upload.stop_grace_s", "300");
    let mark = rig.mqtt.mark();
    rig.start_daemon().await;
    rig.mqtt.wait_after(mark, &rig.mqtt.topics.upload("cam"), behind).await;
    rig.daemon().signal("TERM");
    rig.daemon().line("stopping").await;
    assert!(rig.daemon().is_running(), "it waits for the cloud");
    let mark = rig.mqtt.mark();
    rig.daemon().signal("INT");
    assert!(rig.daemon().ended().await.success());
    rig.mqtt.wait_text(mark, &rig.mqtt.topics.availability(), OFFLINE).await;
}

fn payload(stored: &Stored) -> Vec<u8> {
    stored.blocks.iter().flat_map(|block| block.payload.iter().copied()).collect()
}

#[tokio::test]
async fn a_broken_configuration_is_refused_with_each_mistake_its_line_and_each_missing_file() {
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
    // Files that the configuration names are looked for before the start.
    let model = folder.path().join("model.onnx");
    std::fs::write(&model, "This is no model.\n").expect("it can be written");
    let whole = "[aws]\nregion = \"us-west-2\"\n\n[[camera]]\nid = \"cam\"\nurl = \"rtsp://127.0.0.1/x\"\n\n[detect]\n";
    for (key, name, further) in [
        ("model_file", "missing.onnx", ""),
        ("labels_file", "missing.labels", "model_file = \"model.onnx\"\n"),
        ("onnxruntime_file", "missing.so", ""),
    ] {
        std::fs::write(&file, format!("{whole}{further}{key} = \"{name}\"\n")).expect("it can be written");
        let text = fails("check", &file).await.join("\n");
        let words = [&format!("detect.{key}"), name, "fix"];
        assert!(words.iter().all(|word| text.contains(*word)), "{text}");
    }
}

#[tokio::test]
async fn check_names_the_command_that_installs_a_detector_where_there_is_none() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (file, models) = (folder.path().join("good.toml"), folder.path().join("models"));
    let check = async |detect: &str| {
        let text =
            "[aws]\nregion = \"us-west-2\"\n\n[[camera]]\nid = \"cam\"\nurl = \"rtsp://127.0.0.1/x\"\n";
        std::fs::write(&file, format!("{text}{detect}")).expect("it can be written");
        let mut kvs_edge = Command::new(binary("kvs-edge"));
        kvs_edge.arg("check").arg("--config").arg(&file).env("KVS_EDGE_MODELS", &models);
        let process = Process::spawn("kvs-edge", &mut kvs_edge);
        assert!(process.ended().await.success(), "{:#?}", process.output());
        process.stdout()
    };
    let command = format!("`cargo xtask model --folder {}`", models.display());
    let (absent, asked) = (check("").await, check("[detect]\n").await);
    assert!(absent[0].starts_with("detection is off: ") && absent[0].contains(&command), "{absent:#?}");
    assert!(asked[0].starts_with("warning: ") && asked[0].contains(&command), "{asked:#?}");
    assert_eq!(check("[detect]\nenabled = false\n").await.len(), 1, "nobody misses it");
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
async fn a_box_killed_in_an_outage_sends_what_was_on_disk_once_and_its_footage_can_be_taken_out() {
    let rig =
        Rig::builder().set("spool.folder", "\"spool\"").camera(Camera::new("cam")).kvs_process(&[]).start();
    let Some(mut rig) = rig.await else { return };
    let topic = rig.mqtt.topics.upload("cam");
    persisted(rig.kvs.process(), 2).await;
    rig.kvs.process().kill().await;
    let mark = rig.mqtt.mark();
    // Six fragments and more that KVS does not have, on disk.
    let spooled = eventually("six fragments on disk", async || {
        let checked = spool(&rig, &["check", "--json"]).await;
        let checked: Value = serde_json::from_str(&checked.join("\n")).expect("JSON and nothing else");
        assert_eq!((&checked["in_use"], &checked["findings"]), (&Value::Bool(true), &serde_json::json!([])));
        let camera = checked["cameras"][0].clone();
        (camera["waiting"].as_u64()? >= 6).then_some(camera)
    })
    .await;
    rig.mqtt.wait_after(mark, &topic, |upload: &Upload| upload.state == UploadState::BackingOff).await;
    let clip = rig.folder().join("clip.mkv");
    let times = [
        "--from",
        spooled["from"].as_str().expect("a time"),
        "--to",
        spooled["to"].as_str().expect("a time"),
    ];
    export(&rig, &clip, &times).await;
    if let Some(errors) = kvs_edge_tests::decode_errors(&std::fs::read(&clip).expect("the clip")) {
        assert_eq!(errors, "", "the clip plays");
    }
    rig.daemon().signal("KILL");
    rig.daemon().ended().await;
    let checked = spool(&rig, &["check", "--json"]).await;
    let checked: Value = serde_json::from_str(&checked.join("\n")).expect("JSON and nothing else");
    assert_eq!(checked["in_use"], Value::Bool(false));
    let on_disk = checked["cameras"][0]["fragments"].as_u64().expect("a number");
    assert!(on_disk >= spooled["fragments"].as_u64().expect("a number"), "{checked}");

    rig.kvs.process().start_again().await;
    let mark = rig.mqtt.mark();
    rig.start_daemon().await;
    let caught_up =
        |upload: &Upload| upload.state == UploadState::Sending && upload.fragments_persisted > on_disk;
    rig.mqtt.wait_after(mark, &topic, caught_up).await;
    rig.stop().await;
    let mut sequences = std::collections::BTreeMap::<_, Vec<u64>>::new();
    for stored in rig.kvs.stored("cam").await {
        let identity = stored.chunk.identity().expect("each fragment carries its tag");
        assert_eq!(identity.payload_sha256, Sha256Sum::of(&payload(&stored)));
        sequences.entry(identity.id.run).or_default().push(identity.id.sequence);
    }
    let sequences: Vec<_> = sequences.into_values().collect();
    let [first, second] = &sequences[..] else {
        panic!("two lives, in the order of their runs: {sequences:?}")
    };
    assert_eq!(first.len() as u64, on_disk, "what was on disk is in KVS: {first:?}");
    for sequences in [first, second] {
        let mut sequences = sequences.clone();
        sequences.sort_unstable();
        let whole: Vec<u64> = (1..=sequences.len() as u64).collect();
        assert_eq!(sequences, whole, "each once, none missing");
    }
    let upload: Upload = rig.mqtt.last(&topic);
    assert_eq!((upload.fragments_lost, upload.backlog_bytes), (0, 0), "{upload:#?}");
}

/// Standard output of `kvs-edge spool ...`, which has nothing to complain about.
async fn spool(rig: &Rig, arguments: &[&str]) -> Vec<String> {
    let mut kvs_edge = Command::new(binary("kvs-edge"));
    kvs_edge.arg("spool").args(arguments).arg("--config").arg(rig.config_file());
    let process = Process::spawn("kvs-edge spool", &mut kvs_edge);
    assert!(process.ended().await.success(), "{:#?}", process.output());
    process.stdout()
}

async fn export(rig: &Rig, clip: &Path, times: &[&str]) {
    let command = format!("exec \"$0\" spool export \"$@\" > {}", clip.display());
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command).arg(binary("kvs-edge"));
    shell.arg("--config").arg(rig.config_file()).args(times).arg("cam");
    let process = Process::spawn("kvs-edge spool export", &mut shell);
    assert!(process.ended().await.success(), "{:#?}", process.output());
    assert!(process.output().iter().any(|line| line.contains("fragments from")), "{:#?}", process.output());
}
