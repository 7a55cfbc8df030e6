//! The demo as a user starts it.

use std::path::{Path, PathBuf};
use std::process::Command;

use kvs_edge_tests::{Process, asked_for, binary, clip_cache, skip};
use serde_json::Value;

/// One demo.
struct Demo {
    fault: Option<String>,
    /// A video file instead of the scene.
    clip: Option<PathBuf>,
    seconds: u64,
    /// By the installed model: somebody is to be seen.
    model: Option<PathBuf>,
}

impl Demo {
    fn with(fault: Option<&str>) -> Demo {
        Demo { fault: fault.map(str::to_owned), clip: None, seconds: 8, model: None }
    }
}

/// Without a fault, and with one that has to be found, on a video file; under `--full` with each that the program knows.
#[tokio::test(flavor = "multi_thread")]
async fn the_demo_accounts_for_everything_and_fails_when_it_cannot() {
    let folder = tempfile::tempdir().expect("a folder");
    let clip = video_file(folder.path());
    let mut demos = vec![Demo::with(None), Demo { clip: Some(clip), ..Demo::with(Some("corrupt")) }];
    if asked_for("--full") {
        let others = all_faults().await.into_iter().filter(|fault| fault != "corrupt");
        // Each comes after a third of the time, when there shall be more than one fragment, also on a busy machine.
        demos.extend(others.map(|fault| Demo { seconds: 15, ..Demo::with(Some(&fault)) }));
        demos.extend(street());
    }
    play(&demos).await;
}

/// Four seconds of a ball, H.264 in MP4.
fn video_file(folder: &Path) -> PathBuf {
    let file = folder.join("our own.mp4");
    let pipeline = "videotestsrc pattern=ball num-buffers=40 ! video/x-raw,width=320,height=240,framerate=10/1 \
                    ! x264enc key-int-max=10 bitrate=200 ! mp4mux ! filesink";
    let mut command = Command::new("gst-launch-1.0");
    command.arg("-q").args(pipeline.split_whitespace()).arg(format!("location={}", file.display()));
    let output = command.output().expect("gst-launch-1.0 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    file
}

/// What `cargo xtask demo --real` plays.
fn street() -> Option<Demo> {
    let clip = PathBuf::from("/usr/share/doc/opencv-doc/examples/data/vtest.avi");
    let model = std::env::var_os("KVS_EDGE_TEST_MODELS").map(PathBuf::from);
    if !clip.exists() || model.is_none() {
        if asked_for("--peers") {
            skip("no opencv-doc, or KVS_EDGE_TEST_MODELS names no NanoDet-g");
        }
        return None;
    }
    Some(Demo { clip: Some(clip), seconds: 20, model, ..Demo::with(None) })
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
async fn play(demos: &[Demo]) {
    for Demo { fault, clip, seconds, model } in demos {
        let mut command = Command::new(binary("kvs-edge"));
        command.args(["demo", "--bitrate-kbps", "300", "--seconds", &seconds.to_string()]);
        let what = format!("{fault:?}, {clip:?}");
        match clip {
            Some(file) => command.arg("--clip").arg(file),
            None => command.args(["--size", "320x180", "--fps", "10"]),
        };
        match model {
            Some(folder) => command.env("KVS_EDGE_MODELS", folder),
            None if clip.is_some() => command.args(["--detect-fps", "0"]),
            None => &mut command,
        };
        if let Some(fault) = fault {
            command.args(["--fault", fault]);
        }
        command.env("KVS_EDGE_SIM_CACHE", clip_cache()).env_remove("RUST_LOG");
        let demo = Process::spawn("kvs-edge demo", &mut command);
        let status = demo.ended().await;
        let output = demo.output();
        let from =
            output.iter().position(|line| line == "{").unwrap_or_else(|| panic!("{what}: {output:#?}"));
        let to = output.iter().rposition(|line| line == "}").expect("it ends");
        let summary: Value = serde_json::from_str(&output[from..=to].join("\n")).expect("it is JSON");
        let fine = fault.as_deref() != Some("corrupt");
        assert_eq!(summary["all_accounted"], fine, "{what}: {summary:#}");
        assert_eq!(status.success(), fine, "{what}: {status}: {summary:#}");
        let camera = &summary["cameras"][0];
        assert_eq!(camera["corrupt"], u64::from(!fine), "{what}: {summary:#}");
        assert!(camera["fragments"].as_u64() > Some(1), "{what}: {summary:#}");
        if fine {
            assert_eq!(camera["stored_by_kvs"], camera["identical"], "{what}: {summary:#}");
        }
        let topics = summary["mqtt_messages"].as_object().expect("numbers by topic");
        let seen = topics.keys().any(|topic| topic.ends_with("/cam/cam0/events"));
        assert!(model.is_none() || seen, "{what}: nobody was seen: {summary:#}");
    }
}
