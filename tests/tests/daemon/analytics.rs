//! What cameras show becomes events that are true and whose footage is in the cloud, and the recording loses nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use camera_sim::{ClipSpec, Fault, FaultPlan, HandshakeStep};
use futures_util::future::join_all;
use kvs_edge_tests::{Camera, FootageAndEvents, Life, Observer, Rig, RigBuilder, jpeg_size, program, within};
use messages::{
    CameraState, DetectionRecord, Detector, DetectorState, Direction, Event, EventKind, OFF, ON, Severity,
    Stats, WorkerSummary,
};
use sha2::{Digest, Sha256};

const EVERYWHERE: &str = r#"[{ name = "everywhere", polygon = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], severity = "alert" }]"#;
/// From the top of the picture to its bottom: who comes from the left, crosses it from its right.
const MIDDLE: &str = r#"[{ name = "middle", from = [0.5, 0.0], to = [0.5, 1.0] }]"#;

/// A street where vehicles go both ways within ten seconds, small enough for any machine.
fn street(clip: &mut ClipSpec) {
    (clip.width, clip.height, clip.bitrate_kbps) = (640, 360, 800);
    (clip.seed, clip.loop_seconds) = (2, 10);
}

pub(crate) fn camera(id: &str) -> Camera {
    Camera::new(id).clip(street)
}

/// Looks at five pictures per second. A slow machine looks at fewer, but no camera is refused for that.
pub(crate) fn rig_with_detection() -> RigBuilder {
    Rig::builder()
        .set("detect.backend", "\"rten\"")
        .set("detect.core_share", "800")
        .set("detect.latency_budget_ms", "60000")
        .set("detect.min_score", "0.35")
}

/// Waits for a message about an event of a camera.
pub(crate) async fn event(
    rig: &Rig,
    mark: usize,
    camera: &str,
    pleases: impl FnMut(&Event) -> bool,
) -> Event {
    rig.mqtt.wait_after(mark, &rig.mqtt.topics.events(camera), pleases).await
}

pub(crate) async fn detector_runs(rig: &Rig) -> Detector {
    let running = |detector: &Detector| detector.state == DetectorState::Running;
    rig.mqtt.wait(&rig.mqtt.topics.detector(), running).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cameras_show_is_told_as_events_whose_footage_is_in_the_cloud() {
    let started = rig_with_detection()
        .set("detect.events_folder", "\"events\"")
        .arguments(&["--save-video", "plain=plain.mp4"])
        .camera(camera("plain"))
        .camera(camera("h265").h265())
        .camera(camera("guarded").set("detect.zone", EVERYWHERE).set("detect.line", MIDDLE))
        .camera(camera("blind").set("detect.enabled", "false"))
        .start();
    let Some(rig) = started.await else { return };
    let cameras = ["plain", "h265", "guarded"];
    check_detector(&rig, &detector_runs(&rig).await);
    join_all(cameras.iter().map(async |id| {
        event(&rig, 0, id, |event| event.kind == EventKind::New).await;
        event(&rig, 0, id, |event| event.kind == EventKind::Update && event.clip.persisted).await;
        event(&rig, 0, id, |event| event.kind == EventKind::End).await;
        let motion = rig.mqtt.topics.motion(id);
        rig.mqtt.wait_text(0, &motion, ON).await;
    }))
    .await;
    // Somebody of whom was told before, on one side of the line.
    let mut known = BTreeSet::new();
    let crosses = |event: &Event| {
        if event.crossed.is_empty() {
            known.insert(event.id.clone());
        }
        !event.crossed.is_empty() && known.contains(&event.id)
    };
    event(&rig, 0, "guarded", crosses).await;
    check_figures(&rig, &cameras).await;
    rig.stop().await;

    let mut all = Vec::new();
    for camera in cameras {
        let found = rig.expect_events_proven(camera).await;
        found.footage.expect_no_picture_missing();
        check_pictures(&rig, camera, &found).await;
        check_files(&rig, camera, &found);
        assert!(found.lives.iter().all(|life| life.first().zones.is_empty()) || camera == "guarded");
        if camera == "guarded" {
            check_rules(&found.lives);
        }
        all.push(found);
    }
    let blind = rig.expect_everything_proven("blind").await;
    blind.expect_no_picture_missing();
    let mut numbers: Vec<u64> =
        all.iter().flat_map(|found| &found.lives).flat_map(|life| &life.messages).map(|e| e.seq).collect();
    numbers.sort_unstable();
    let count = numbers.len() as u64;
    assert_eq!(numbers, (1..=count).collect::<Vec<_>>(), "numbers of events have holes");
    check_summary(&rig, &cameras, &all);
    check_video(&rig, "plain").await;
    let loud: Vec<_> = rig.daemon().output().into_iter().filter(|line| line.contains("ERROR")).collect();
    assert!(loud.is_empty(), "{loud:#?}");
}

fn check_detector(rig: &Rig, detector: &Detector) {
    let found = (detector.backend.as_deref(), detector.reason, &detector.not_admitted[..]);
    assert_eq!(found, (Some("rten"), None, &[][..]), "{detector:#?}");
    assert!(detector.why.as_ref().is_some_and(|why| why.contains("configuration")), "{detector:#?}");
    let [model] = &detector.models[..] else { panic!("one model: {detector:#?}") };
    assert_eq!((&*model.name, model.input), ("scene", [320, 192]));
    assert_eq!(model.labels, ["person", "vehicle"]);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../app/model/scene.onnx");
    let digest = Sha256::digest(std::fs::read(file).expect("the shipped model is in the repository"));
    assert_eq!(model.sha256, digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let first: Detector = rig.mqtt.bodies(&rig.mqtt.topics.detector()).swap_remove(0);
    assert!(matches!(first.state, DetectorState::Loading | DetectorState::Running), "{first:#?}");
}

/// Figures of a running daemon; those that are not looked at have none.
async fn check_figures(rig: &Rig, cameras: &[&str]) {
    let topics = &rig.mqtt.topics;
    for camera in cameras {
        let settled = |stats: &Stats| {
            let looked_at = stats.fps.inferred.is_some_and(|fps| fps > 0.0);
            let told = stats.detect.as_ref().is_some_and(|detect| {
                detect.events > 0 && detect.inference.is_some() && detect.latency.is_some()
            });
            looked_at && told
        };
        let stats: Stats = rig.mqtt.wait(&topics.stats(camera), settled).await;
        let detect = stats.detect.clone().unwrap_or_default();
        assert!(detect.detections >= detect.events && detect.decoder.is_some(), "{stats:#?}");
        assert_eq!((detect.damaged, detect.rebuilt), (0, 0), "{stats:#?}");
        assert!(stats.fps.decoded.is_some_and(|fps| fps > 0.0), "{stats:#?}");
    }
    let busy = |detector: &Detector| detector.total.frames > 0 && detector.total.inference_ms.is_some();
    let detector: Detector = rig.mqtt.wait(&topics.detector(), busy).await;
    assert_eq!(detector.total.errors, 0, "{detector:#?}");
    rig.mqtt.wait(&topics.stats("blind"), |stats: &Stats| stats.fps.input > 0.0).await;
    let blind: Vec<Stats> = rig.mqtt.bodies(&topics.stats("blind"));
    assert!(blind.iter().all(|stats| stats.detect.is_none()), "{blind:#?}");
    assert!(blind.iter().all(|stats| stats.fps.decoded.is_none() && stats.fps.inferred.is_none()));
    let told = rig.mqtt.all().into_iter().map(|message| message.topic);
    let of_blind: BTreeSet<_> = told.filter(|topic| topic.contains("/cam/blind/")).collect();
    assert_eq!(of_blind.len(), 4, "status, stats, upload, verify: {of_blind:?}");
}

/// Snapshots, counts and motion, as they are and as the broker keeps them.
async fn check_pictures(rig: &Rig, camera: &str, found: &FootageAndEvents) {
    let topics = &rig.mqtt.topics;
    let late = Observer::start(rig.broker.port, topics.clone()).await;
    let labels: BTreeSet<_> = found
        .lives
        .iter()
        .filter(|life| life.end().has_snapshot)
        .map(|life| life.end().label.clone())
        .collect();
    assert!(!labels.is_empty(), "{camera}: no event has a snapshot");
    for label in &labels {
        let kept = late.wait_message(0, &topics.snapshot(camera, label), |message| message.retained).await;
        let (width, height) = jpeg_size(&kept.body);
        assert!((16..=640).contains(&width) && (16..=640).contains(&height), "{width}x{height}");
    }
    for label in ["person", "vehicle"] {
        let topic = topics.count(camera, label);
        late.wait_message(0, &topic, |message| message.retained && message.body == "0").await;
    }
    late.wait_message(0, &topics.motion(camera), |message| message.retained && message.body == OFF).await;
    let motion = rig.mqtt.texts(&topics.motion(camera));
    assert!(motion.iter().all(|word| [ON, OFF].contains(&&**word)), "{motion:?}");
}

/// Zone and line of the camera that has them.
fn check_rules(lives: &[Life]) {
    let foot = |event: &Event| event.rect.0[0].get() + event.rect.0[2].get() / 2.0;
    let mut crossings = 0;
    for life in lives {
        let end = life.end();
        assert_eq!((&end.entered[..], end.severity), (&["everywhere".to_owned()][..], Severity::Alert));
        assert!(end.crossed.iter().all(|crossing| crossing.line == "middle"), "{end:#?}");
        let Some(at) = life.messages.iter().position(|event| !event.crossed.is_empty()) else { continue };
        // Told at once: the message before it, if it is not the first, is from the other side.
        let Some(before) = at.checked_sub(1).map(|before| foot(&life.messages[before])) else { continue };
        let (event, after) = (&life.messages[at], foot(&life.messages[at]));
        let expected = if before < after { Direction::In } else { Direction::Out };
        assert_eq!(event.crossed[0].direction, expected, "from {before} to {after}: {life:#?}");
        assert!(before.min(after) <= 0.5 && before.max(after) >= 0.5, "from {before} to {after}");
        crossings += 1;
    }
    assert!(crossings > 0, "nobody was seen on both sides of the line");
}

/// The JSON files of a camera by name, with the JPEG beside it.
fn files(rig: &Rig, camera: &str) -> Vec<(String, DetectionRecord, Option<Vec<u8>>)> {
    let folder = rig.folder().join("events").join(camera);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let names = entries.map(|entry| entry.expect("readable").path());
    let (mut jsons, others): (Vec<PathBuf>, Vec<PathBuf>) =
        names.partition(|path| path.extension().is_some_and(|ending| ending == "json"));
    jsons.sort();
    let orphans: Vec<_> = others
        .iter()
        .filter(|path| {
            let is_jpeg = path.extension().is_some_and(|ending| ending == "jpg");
            !is_jpeg || !path.with_extension("json").exists()
        })
        .collect();
    assert!(orphans.is_empty(), "{orphans:?}");
    let read = |path: PathBuf| {
        let text = std::fs::read(&path).expect("just listed");
        let record = serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let name = path.file_stem().expect("it has a name").to_string_lossy().into_owned();
        (name, record, std::fs::read(path.with_extension("jpg")).ok())
    };
    jsons.into_iter().map(read).collect()
}

/// Each event is one file, in which it stands as its last message told it.
fn check_files(rig: &Rig, camera: &str, found: &FootageAndEvents) {
    let files = files(rig, camera);
    assert_eq!(files.len(), found.lives.len(), "{camera}: files and events");
    let times: BTreeSet<_> = found.footage.pictures.iter().map(|picture| picture.time_ms).collect();
    let mut jpegs = 0;
    for (name, record, jpeg) in &files {
        let life = found.lives.iter().find(|life| life.first().id == record.event.id);
        let life = life.unwrap_or_else(|| panic!("{name} is of no event that was told"));
        assert_eq!(record.event, *life.end());
        assert!(name.ends_with(&record.event.id) && record.source_id == camera, "{name}");
        assert!(times.contains(&record.frame_timestamp.as_millis()), "{record:#?}");
        let within_life = life.first().start..=life.end().ts;
        assert!(within_life.contains(&record.frame_timestamp), "{record:#?}");
        assert!(record.frame_id > 0 && record.inference_time_ms > 0.0, "{record:#?}");
        let own = record.predictions.iter().find(|found| found.track == Some(record.event.track));
        assert!(own.is_some_and(|own| own.label == record.event.label), "{record:#?}");
        if let Some(jpeg) = jpeg {
            jpeg_size(jpeg);
            jpegs += 1;
        }
    }
    assert!(jpegs > 0, "{camera}: no picture beside any of {} files", files.len());
}

/// The last line on standard output.
pub(crate) fn summary(rig: &Rig) -> WorkerSummary {
    let lines = rig.daemon().stdout();
    let [line] = &lines[..] else { panic!("one line of JSON on standard output: {lines:#?}") };
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

fn check_summary(rig: &Rig, cameras: &[&str], found: &[FootageAndEvents]) {
    let summary = summary(rig);
    let by_camera: Vec<_> = summary.cameras.iter().map(|camera| (&*camera.camera, camera.events)).collect();
    let expected: Vec<_> =
        cameras.iter().zip(found).map(|(camera, found)| (*camera, found.lives.len() as u64)).collect();
    assert_eq!(by_camera, expected);
    assert_eq!((summary.backend.as_deref(), &summary.models[..]), (Some("rten"), &["scene".to_owned()][..]));
    assert_eq!(summary.events, by_camera.iter().map(|(_, events)| events).sum::<u64>());
    assert!(summary.started < summary.ended && summary.duration_s > 0.0, "{summary:#?}");
    let frames: u64 = summary.cameras.iter().map(|camera| camera.figures.frames).sum();
    assert_eq!((summary.figures.frames, summary.figures.errors), (frames, 0));
    assert!(summary.latency_ms.is_some_and(|latency| latency.p95 > 0.0), "{summary:#?}");
    for (camera, found) in summary.cameras.iter().zip(found) {
        let inference = camera.figures.inference_ms.unwrap_or_default();
        let ordered =
            0.0 < inference.min && inference.min <= inference.mean && inference.mean <= inference.max;
        assert!(ordered && inference.p95 <= inference.max * 1.1, "{camera:#?}");
        assert!(camera.figures.frames <= camera.decoded, "{camera:#?}");
        // Five pictures per second of ten.
        let sent = found.footage.sent.len() as u64;
        assert!(
            camera.figures.frames > 0 && camera.figures.frames <= sent * 6 / 10 + 5,
            "{sent}: {camera:#?}"
        );
        assert_eq!((camera.damaged, camera.rebuilt), (0, 0), "{camera:#?}");
        assert!(camera.decoder.is_some() && camera.figures.detections > 0, "{camera:#?}");
    }
}

/// `--save-video`: the pictures that the detector looked at, as a file that others can play.
async fn check_video(rig: &Rig, camera: &str) {
    let file = format!("{camera}.mp4");
    let line = rig.daemon().line(&format!("file={file}")).await;
    let pictures = line.split_once("pictures=").map_or("", |(_, rest)| rest).trim();
    let summary = summary(rig);
    let of_camera = summary.cameras.iter().find(|of| of.camera == camera).expect("it has detection");
    let most = of_camera.figures.frames;
    assert!((1..=most).contains(&pictures.parse().unwrap_or(0)), "of {most} that were looked at: {line}");
    let Some(ffprobe) = program("ffprobe", "ffmpeg") else { return };
    let entries = "stream=codec_name,width,height,r_frame_rate,nb_read_frames";
    let arguments = ["-v", "error", "-count_frames", "-show_entries", entries, "-of", "csv=p=0"];
    let output = Command::new(ffprobe).args(arguments).arg(rig.folder().join(&file)).output();
    let output = output.expect("ffprobe starts");
    let found = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert_eq!(found, format!("h264,640,360,5/1,{pictures}"), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_cameras_that_go_away_change_their_size_or_lose_packets_end_and_new_ones_begin() {
    let started = rig_with_detection()
        .set("detect.events_folder", "\"events\"")
        .set("detect.events_keep", &KEPT.to_string())
        .set("detect.lost_after_ms", "500")
        .camera(camera("gone").set("timeouts.handshake_s", "1"))
        .camera(camera("switch"))
        .camera(camera("switch-h265").h265())
        .camera(camera("lossy").faults(|plan| (plan.drop, plan.seed) = (0.02, 7)))
        .start();
    let Some(rig) = started.await else { return };
    tokio::join!(go_away(&rig), switch(&rig, "switch"), switch(&rig, "switch-h265"), lose_packets(&rig));
    rig.stop().await;

    let found = rig.expect_events_proven("gone").await;
    let tracks: BTreeSet<_> = found.lives.iter().map(|life| life.first().track).collect();
    assert_eq!(tracks.len(), found.lives.len(), "numbers of tracks are used twice");
    assert!(found.footage.sessions().len() >= 2);
    for camera in ["switch", "switch-h265"] {
        let found = rig.expect_events_proven(camera).await;
        found.footage.expect_no_picture_missing();
        check_newest_kept(&rig, camera, &found, KEPT);
    }
    let lossy = rig.expect_events_proven("lossy").await;
    lossy.footage.expect_nothing_behind_a_loss();
    check_newest_kept(&rig, "lossy", &lossy, KEPT);
    let stats = lossy.footage.stats.last().expect("each second");
    assert!(stats.lost_packets > 0 && stats.dropped_frames > 0, "{stats:#?}");
    assert!(stats.detect.as_ref().is_some_and(|detect| detect.rebuilt == 0), "{stats:#?}");
}

const KEPT: usize = 2;

async fn go_away(rig: &Rig) {
    let topics = &rig.mqtt.topics;
    let somebody = |count: &u32| *count > 0;
    rig.mqtt.wait(&topics.count("gone", "person"), somebody).await;
    rig.fragments("gone", 2).await;
    let mark = rig.mqtt.mark();
    rig.faults("gone").set(FaultPlan { hang: Some(HandshakeStep::Connect), ..FaultPlan::default() });
    assert_eq!(rig.faults("gone").inject(Fault::HangUp), 1);
    rig.status(mark, "gone", |status| status.state == CameraState::Offline).await;
    rig.mqtt.wait_after(mark, &topics.count("gone", "person"), |count: &u32| *count == 0).await;
    let of_first =
        |events: Vec<Event>| -> BTreeSet<String> { events.into_iter().map(|event| event.id).collect() };
    let before = of_first(rig.mqtt.bodies(&topics.events("gone")));

    let mark = rig.mqtt.mark();
    rig.faults("gone").set(FaultPlan::default());
    rig.status(mark, "gone", |status| status.state == CameraState::Online).await;
    let new = event(rig, mark, "gone", |event| event.kind == EventKind::New).await;
    assert!(!before.contains(&new.id));
    rig.mqtt.wait_after(mark, &topics.count("gone", "person"), somebody).await;
}

async fn switch(rig: &Rig, camera: &str) {
    let ended = |event: &Event| event.kind == EventKind::End;
    let large = event(rig, 0, camera, |event| event.kind == EventKind::New).await;
    assert_eq!(large.frame, [640, 360]);
    let mark = rig.mqtt.mark();
    assert_eq!(rig.faults(camera).inject(Fault::SwitchParameters), 1);
    event(rig, mark, camera, |event| event.kind == EventKind::New && event.frame == [320, 180]).await;
    for _ in 0..KEPT {
        event(rig, mark, camera, ended).await;
    }
}

async fn lose_packets(rig: &Rig) {
    let sim = rig.sim("lossy").expect("simulated");
    within("losses", sim.wait_stats(0, |stats| stats.packets_dropped >= 3)).await;
    event(rig, 0, "lossy", |event| event.kind == EventKind::New).await;
    rig.faults("lossy").set(FaultPlan::default());
    let mark = rig.mqtt.mark();
    event(rig, mark, "lossy", |event| event.kind == EventKind::New).await;
    rig.more_fragments("lossy", 2).await;
}

fn check_newest_kept(rig: &Rig, camera: &str, found: &FootageAndEvents, keep: usize) {
    let files = files(rig, camera);
    assert_eq!(files.len(), keep.min(found.lives.len()), "{camera}");
    for (name, record, _) in &files {
        assert!(found.lives.iter().any(|life| *life.end() == record.event), "{name}");
    }
}
