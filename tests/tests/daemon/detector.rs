//! Models, labels, libraries, decoders and rules that are wrong: the box says what was found, what it takes and what to
//! change, and the recording goes on as if nothing were. Every file that does not load, by itself: `app/detect/tests`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use kvs_edge_tests::{Camera, Rig, RigBuilder, asked_for, skip};
use messages::{
    CameraState, Detector, DetectorState, Event, EventKind, Reason, Stats, Status, WorkerSummary,
};

use crate::analytics::{camera, detector_runs, event, rig_with_detection, summary};

const MODEL: &str = "detect.model_file";
const LABELS: &str = "detect.labels_file";
const NANODET: [&str; 2] = ["nanodet-416x416.onnx", "nanodet-384x640.onnx"];
const BACKEND: &str = "detect.backend";
const LIBRARY: &str = "detect.onnxruntime_file";

fn shipped_model() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../app/model/scene.onnx");
    path.canonicalize().expect("the shipped model is in the repository")
}

fn quoted(path: &Path) -> String {
    format!("{path:?}")
}

/// One daemon with one camera.
fn daemon(settings: &[(&str, &str)]) -> RigBuilder {
    let rig = Rig::builder().set("detect.core_share", "800").set("detect.latency_budget_ms", "60000");
    let rig = rig.file("model.onnx", "This is no model.\n").file("three.labels", "person\nvehicle\ntree\n");
    let rig = rig.file("libonnxruntime.so", "This is no library.\n").camera(Camera::new("cam"));
    settings.iter().fold(rig, |rig, (key, value)| rig.set(key, value))
}

async fn detector(rig: &Rig, state: DetectorState) -> Detector {
    rig.mqtt.wait(&rig.mqtt.topics.detector(), |detector: &Detector| detector.state == state).await
}

async fn degraded(rig: &Rig, camera: &str, reason: Reason) -> Status {
    let said = |status: &Status| status.reason == Some(reason);
    let status = rig.status(0, camera, said).await;
    assert_eq!(status.state, CameraState::Degraded, "{status:#?}");
    status
}

/// Footage of a camera, all of it; what the worker did.
async fn stop_and_prove(rig: &Rig, camera: &str) -> WorkerSummary {
    rig.more_fragments(camera, 2).await;
    rig.stop().await;
    let footage = rig.expect_everything_proven(camera).await;
    footage.expect_no_picture_missing();
    assert_eq!(footage.sessions().len(), 1);
    let stats: &Stats = footage.stats.last().expect("each second");
    assert_eq!((stats.lost_packets, stats.dropped_frames, stats.reconnects_1h), (0, 0, 0), "{stats:#?}");
    let lines = rig.daemon().stdout();
    let [line] = &lines[..] else { panic!("one line of JSON on standard output: {lines:#?}") };
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[track_caller]
fn says(detail: Option<&str>, words: &[&str]) {
    let detail = detail.unwrap_or_default();
    assert!(words.iter().all(|word| detail.contains(word)), "{detail:?} says all of {words:?}");
    assert!(!detail.contains('\n'), "{detail:?} is one line");
    let parts: Vec<_> = detail.split(": ").collect();
    let unique: BTreeSet<_> = parts.iter().collect();
    assert_eq!(unique.len(), parts.len(), "{detail:?} says things twice");
}

/// What does not load, and what the box has to say about it.
struct Bad {
    settings: Vec<(&'static str, String)>,
    environment: Option<(&'static str, &'static str)>,
    says: &'static [&'static str],
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_load_is_said_and_costs_no_footage() {
    let (model, ort) = (quoted(&shipped_model()), "\"ort\"".to_owned());
    let bad = |settings: &[(&'static str, &str)], says| {
        let settings = settings.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        Bad { settings, environment: None, says }
    };
    let nowhere = Some(("ORT_DYLIB_PATH", "/nowhere/libonnxruntime.so.1"));
    let cases = [
        bad(&[(MODEL, "\"model.onnx\""), (BACKEND, "\"rten\"")], &["model.onnx", "ONNX"]),
        bad(
            &[(MODEL, &model), (LABELS, "\"three.labels\"")],
            &["scene.onnx", "2 classes", "three.labels", "3"],
        ),
        bad(&[(MODEL, &model), (LABELS, "\"model.onnx\"")], &["2 classes", "model.onnx", "are 1"]),
        bad(&[(BACKEND, &ort), (LIBRARY, "\"libonnxruntime.so\"")], &["ONNX Runtime", "libonnxruntime.so"]),
        Bad { environment: nowhere, ..bad(&[(BACKEND, &ort)], &["/nowhere/libonnxruntime.so.1"]) },
    ];
    tokio::join!(
        join_all(cases.iter().map(check_bad)),
        a_decoder_that_is_not_there(),
        an_installed_model_that_is_half_there(),
        a_model_that_is_not_installed(),
    );
}

/// Nothing in the configuration asks for it: detection is on because the model's files are there.
async fn an_installed_model_that_is_half_there() {
    let mut rig = Rig::builder().without_daemon().camera(Camera::new("cam"));
    for name in NANODET {
        rig = rig.file(name, "the first half\n");
    }
    let Some(mut rig) = rig.start().await else { return };
    rig.in_daemons_environment("KVS_EDGE_MODELS", rig.folder().to_path_buf());
    rig.start_daemon().await;
    let failed = detector(&rig, DetectorState::Failed).await;
    says(failed.detail.as_deref(), &["nanodet-384x640.onnx", "half-written", "`cargo xtask model`"]);
    degraded(&rig, "cam", Reason::DetectorFailed).await;
    let summary = stop_and_prove(&rig, "cam").await;
    assert_eq!((summary.figures.frames, summary.events), (0, 0));
}

async fn a_model_that_is_not_installed() {
    let rig = daemon(&[("detect.model", "\"nanodet\"")]);
    let Some(rig) = rig.start().await else { return };
    rig.daemon().line("nothing to detect with").await;
    let failed = detector(&rig, DetectorState::Failed).await;
    says(failed.detail.as_deref(), &["is not installed", "/models", "`cargo xtask model --folder"]);
    degraded(&rig, "cam", Reason::DetectorFailed).await;
    stop_and_prove(&rig, "cam").await;
}

/// Each camera with the size that fits its pictures. That it is on where it is installed is `config`'s to test.
#[tokio::test(flavor = "multi_thread")]
async fn the_installed_model_looks_at_every_camera() {
    let Some(models) = std::env::var_os("KVS_EDGE_TEST_MODELS").map(PathBuf::from) else {
        if asked_for("--peers") {
            skip("NanoDet-g is not installed: KVS_EDGE_TEST_MODELS names no folder");
        }
        return;
    };
    let square = Camera::new("square").clip(|clip| (clip.width, clip.height) = (240, 240));
    // Both have a rate, however busy the machine is.
    let rig = Rig::builder().without_daemon().set("detect.core_share", "800");
    let rig = rig.set("detect.model", "\"nanodet\"").camera(Camera::new("wide")).camera(square);
    let Some(mut rig) = rig.start().await else { return };
    rig.in_daemons_environment("KVS_EDGE_MODELS", models);
    rig.start_daemon().await;
    let both = |detector: &Detector| {
        detector.models.len() == 2 && detector.models.iter().all(|model| !model.cameras.is_empty())
    };
    let running = rig.mqtt.wait(&rig.mqtt.topics.detector(), both).await;
    assert_eq!((running.state, running.reason), (DetectorState::Running, None), "{running:#?}");
    let by_camera: Vec<_> =
        running.models.iter().map(|model| (&*model.name, model.input, &*model.cameras[0])).collect();
    let expected = [("nanodet-416x416", [416, 416], "square"), ("nanodet-384x640", [640, 384], "wide")];
    assert_eq!(by_camera, expected, "{running:#?}");
    let pinned = include_str!("../../../app/model/nanodet/models.sha256");
    for model in &running.models {
        assert_eq!(model.cameras.len(), 1, "{running:#?}");
        assert!(pinned.contains(&format!("{}  {}.onnx", model.sha256, model.name)), "{running:#?}");
    }
    for camera in ["wide", "square"] {
        let looked_at = |stats: &Stats| stats.fps.inferred.is_some_and(|fps| fps > 0.0);
        rig.mqtt.wait(&rig.mqtt.topics.stats(camera), looked_at).await;
        let counted = rig.mqtt.topics.count(camera, "vehicle");
        rig.mqtt.wait_text(0, &counted, "0").await;
    }
    let summary = stop_and_prove(&rig, "wide").await;
    assert_eq!(summary.figures.errors, 0, "{summary:#?}");
    rig.expect_everything_proven("square").await.expect_no_picture_missing();
}

async fn check_bad(bad: &Bad) {
    let settings: Vec<_> = bad.settings.iter().map(|(key, value)| (*key, &**value)).collect();
    let mut rig = daemon(&settings);
    if let Some((name, value)) = bad.environment {
        rig = rig.env(name, value);
    }
    let Some(rig) = rig.start().await else { return };
    let failed = detector(&rig, DetectorState::Failed).await;
    assert_eq!((failed.reason, failed.backend.as_ref()), (Some(Reason::DetectorFailed), None), "{failed:#?}");
    says(failed.detail.as_deref(), bad.says);
    let status = degraded(&rig, "cam", Reason::DetectorFailed).await;
    says(status.detail.as_deref(), bad.says);
    // Whoever repairs the file need not restart the daemon.
    rig.daemon().line("retry_in_ms").await;
    let summary = stop_and_prove(&rig, "cam").await;
    assert_eq!((summary.figures.frames, summary.events, summary.backend), (0, 0, None));
    let events: Vec<Event> = rig.mqtt.bodies(&rig.mqtt.topics.events("cam"));
    assert_eq!(events, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_repaired_is_loaded_without_a_restart_and_rules_that_do_not_fit_fail_their_camera_alone()
 {
    let zone = r#"[{ name = "lawn", polygon = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]], labels = ["cat"] }]"#;
    let rig = daemon(&[(MODEL, "\"model.onnx\""), (BACKEND, "\"rten\""), ("detect.min_score", "0.3")])
        .camera(Camera::new("zone").set("detect.zone", zone))
        .camera(Camera::new("labels").set("detect.labels", r#"["dog"]"#));
    let Some(rig) = rig.start().await else { return };
    detector(&rig, DetectorState::Failed).await;
    degraded(&rig, "cam", Reason::DetectorFailed).await;
    let mark = rig.mqtt.mark();
    let part = rig.folder().join("model.part");
    std::fs::copy(shipped_model(), &part).expect("the folder can be written to");
    std::fs::rename(part, rig.folder().join("model.onnx")).expect("the folder can be written to");
    let running = detector(&rig, DetectorState::Running).await;
    let models: Vec<_> = running.models.iter().map(|model| (&*model.name, model.labels.len())).collect();
    assert_eq!(models, [("model", 2)]);
    assert_eq!((running.reason, running.detail), (None, None));
    assert_eq!(running.not_admitted, []);
    rig.status(mark, "cam", |status| status.state == CameraState::Online).await;
    for (camera, words) in
        [("zone", ["`lawn`", "`cat`", "person, vehicle"]), ("labels", ["`dog`", "labels", "person"])]
    {
        let said = |status: &Status| status.detail.as_ref().is_some_and(|text| text.contains(words[0]));
        let status = rig.status(mark, camera, said).await;
        assert_eq!((status.state, status.reason), (CameraState::Degraded, Some(Reason::DetectorFailed)));
        says(status.detail.as_deref(), &words);
    }
    let new = |event: &Event| event.kind == EventKind::New;
    let new = rig.mqtt.wait_after(mark, &rig.mqtt.topics.events("cam"), new).await;
    assert_eq!(new.model.name, "model");
    rig.fragments("zone", 2).await;
    rig.fragments("labels", 2).await;
    let summary = stop_and_prove(&rig, "cam").await;
    let frames: Vec<_> = summary.cameras.iter().map(|camera| camera.figures.frames > 0).collect();
    assert_eq!(frames, [true, false, false]);
    rig.expect_events_proven("cam").await;
    for camera in ["zone", "labels"] {
        rig.expect_everything_proven(camera).await.expect_no_picture_missing();
    }
}

const NOWHERE: &str = "no libonnxruntime found in";

#[tokio::test(flavor = "multi_thread")]
async fn onnx_runtime_is_taken_where_it_opens_and_finds_the_same_else_the_built_in_backend_is() {
    let auto = (BACKEND, "\"auto\"");
    let named = daemon(&[auto, (LIBRARY, "\"libonnxruntime.so\"")]);
    let environment = daemon(&[auto]).env("ORT_DYLIB_PATH", "/nowhere/libonnxruntime.so.1");
    let none = daemon(&[auto]);
    let check = async |rig: RigBuilder, words: &[&str]| {
        let Some(rig) = rig.start().await else { return };
        let running = detector(&rig, DetectorState::Running).await;
        if running.why.as_deref() == Some("its library is found installed") {
            // There is one on this machine, which nothing named.
            assert_eq!((running.backend.as_deref(), words[0]), (Some("ort"), NOWHERE), "{running:#?}");
            return;
        }
        assert_eq!((running.backend.as_deref(), running.reason), (Some("rten"), None), "{running:#?}");
        says(running.why.as_deref(), words);
        rig.online("cam").await;
        let summary = stop_and_prove(&rig, "cam").await;
        assert_eq!(summary.backend.as_deref(), Some("rten"));
    };
    tokio::join!(
        check(named, &["named in the configuration does not open", "libonnxruntime.so: "]),
        check(environment, &["named by ORT_DYLIB_PATH does not open", "/nowhere/libonnxruntime.so.1: "]),
        check(none, &[NOWHERE, "/usr/lib"]),
        onnx_runtime_finds_the_same(),
    );
}

/// The one that `KVS_EDGE_TEST_ONNXRUNTIME` names, else the one in `target/onnxruntime`.
fn onnxruntime() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("KVS_EDGE_TEST_ONNXRUNTIME") {
        return Some(named.into());
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/onnxruntime/onnxruntime/capi");
    let files = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_it = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libonnxruntime.so"))
    };
    let found = files.filter(is_it).max();
    if found.is_none() {
        skip(&format!("no libonnxruntime in {} or KVS_EDGE_TEST_ONNXRUNTIME", folder.display()));
    }
    found
}

async fn onnx_runtime_finds_the_same() {
    let Some(library) = onnxruntime() else { return };
    let library = library.canonicalize().expect("it exists");
    let started = rig_with_detection()
        .set("detect.backend", "\"ort\"")
        .set("detect.onnxruntime_file", &format!("{library:?}"))
        .camera(camera("plain"))
        .start();
    let Some(rig) = started.await else { return };
    let running = detector_runs(&rig).await;
    assert_eq!(running.backend.as_deref(), Some("ort"), "{running:#?}");
    event(&rig, 0, "plain", |event| event.kind == EventKind::End).await;
    rig.stop().await;
    let found = rig.expect_events_proven("plain").await;
    found.footage.expect_no_picture_missing();
    assert_eq!(summary(&rig).backend.as_deref(), Some("ort"));
}

async fn a_decoder_that_is_not_there() {
    let rig = daemon(&[(BACKEND, "\"rten\""), ("detect.decoder", "\"no_such_decoder\"")]);
    let Some(rig) = rig.start().await else { return };
    detector(&rig, DetectorState::Running).await;
    let status = degraded(&rig, "cam", Reason::DecoderFailed).await;
    says(status.detail.as_deref(), &["`no_such_decoder`", "installed", "there is"]);
    let summary = stop_and_prove(&rig, "cam").await;
    assert_eq!((summary.figures.frames, summary.events), (0, 0));
    assert_eq!(summary.cameras[0].decoder, None);
}
