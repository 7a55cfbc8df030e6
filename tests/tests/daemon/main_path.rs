//! A camera's footage goes to KVS and is proven back; the box tells about it, its service manager too.

use std::collections::BTreeSet;
use std::process::Command;

use camera_sim::{Audio, AuthKind};
use kvs_edge_tests::{Camera, Footage, Rig, decode_errors, program};
use messages::{
    CameraState, ClockSource, Health, Info, OFFLINE, ONLINE, Reason, Stats, Status, Upload, UploadState,
    Verdict, Verify, VerifyMethod,
};

use crate::service_manager::ServiceManager;

/// The cameras: what differs between them, and what has to be seen of it.
const CAMERAS: [Expected; 3] = [
    Expected { camera: "h264", codec: "avc1.64", probed: "h264", size: (320, 180), sound: false },
    Expected { camera: "h265", codec: "hvc1.1", probed: "hevc", size: (256, 144), sound: true },
    Expected { camera: "udp", codec: "avc1.64", probed: "h264", size: (320, 180), sound: true },
];

struct Expected {
    camera: &'static str,
    codec: &'static str,
    probed: &'static str,
    size: (u32, u32),
    sound: bool,
}

async fn rig(manager: &ServiceManager) -> Option<Rig> {
    let h265 = |camera: Camera| {
        camera.h265().clip(|clip| {
            clip.audio = Audio::Aac;
            (clip.width, clip.height) = (256, 144);
        })
    };
    Rig::builder()
        .camera(Camera::new("h264"))
        .camera(h265(Camera::new("h265")).set("stream", "\"another.name\""))
        .camera(
            Camera::new("udp")
                .clip(|clip| clip.audio = Audio::Pcmu)
                .login("viewer", "a \"secret\"", AuthKind::Digest)
                .set("transport", "\"udp\"")
                .set("username", "\"viewer\"")
                .set("password_file", "\"camera-password\""),
        )
        .file("camera-password", "a \"secret\"\n")
        .kvs(|options| options.create_streams.push(("another.name".to_owned(), 24)))
        .env("NOTIFY_SOCKET", &manager.address())
        .env("WATCHDOG_USEC", "1000000")
        .start()
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn footage_is_stored_proven_and_told_of_and_a_stop_completes_it() {
    let mut manager = ServiceManager::new();
    let Some(rig) = rig(&manager).await else { return };
    let first = manager.until("READY=1").await;
    assert!(!first.iter().any(|line| line.starts_with("STOPPING")), "{first:?}");
    manager.until("STATUS=3 of 3 cameras live").await;
    for _ in 0..4 {
        manager.until("WATCHDOG=1").await;
    }
    for expected in &CAMERAS {
        check_figures(&rig, expected).await;
        rig.fragments(expected.camera, 4).await;
    }
    check_box(&rig).await;
    check_that_nothing_is_decoded(&rig);

    let stopped_at = rig.mqtt.mark();
    rig.stop().await;
    manager.until("STOPPING=1").await;
    let topics = &rig.mqtt.topics;
    assert_eq!(rig.mqtt.texts(&topics.availability()), [ONLINE, OFFLINE]);
    let info: Info = rig.mqtt.last(&topics.info());
    assert_eq!(info.stop_reason.as_deref(), Some("SIGTERM"));
    let after: Vec<_> =
        rig.mqtt.all().split_off(stopped_at).into_iter().map(|message| message.topic).collect();
    assert_eq!(after[after.len() - 2..], [topics.info(), topics.availability()], "offline is the last word");

    for expected in &CAMERAS {
        let footage = rig.expect_everything_proven(expected.camera).await;
        check_footage(&footage, expected);
        check_read_back(&rig, expected, footage.pictures.len()).await;
    }
    // Nobody had to act: no log line above INFO, but where a busy machine lost packets.
    let excused = !rig.expect_everything_proven("udp").await.is_whole();
    let loud = |line: &&String| {
        let loud = line.contains(" WARN ") || line.contains("ERROR");
        loud && !(excused && line.contains("udp"))
    };
    let output = rig.daemon().output();
    assert_eq!(output.iter().find(loud), None);
    assert_eq!(output.iter().find(|line| line.contains("secret")), None, "no secret in the log");
}

/// What the box says about one camera while it runs.
async fn check_figures(rig: &Rig, expected: &Expected) {
    let (topics, camera) = (&rig.mqtt.topics, expected.camera);
    let online = rig.online(camera).await;
    assert_eq!((online.reason, online.attempts), (None, 0));
    assert!(online.last_frame.is_some_and(|last| last <= online.ts && online.since <= online.ts));
    let settled = |stats: &Stats| {
        (9.0..=11.0).contains(&stats.fps.input)
            && stats.latency.is_some()
            && (stats.gop_frames, stats.gop_s) == (Some(10), Some(1.0))
            && stats.clock == Some(ClockSource::Rtcp)
            && stats.clock_offset_ms.is_some_and(|ms| ms.abs() < 1000.0)
            && (50_000..1_000_000).contains(&stats.bitrate_bps)
    };
    let stats: Stats = rig.mqtt.wait(&topics.stats(camera), settled).await;
    let codec = stats.codec.clone().unwrap_or_default();
    assert!(codec.starts_with(expected.codec), "{stats:?}");
    assert_eq!(stats.size, Some(expected.size.into()));
    assert_eq!(stats.audio_codec.is_some(), expected.sound, "{stats:?}");
    assert_eq!(stats.transport.as_deref(), Some(if camera == "udp" { "udp" } else { "tcp" }));
    assert_eq!(stats.reconnects_1h, 0);
    if camera != "udp" {
        assert_eq!((stats.lost_packets, stats.dropped_frames), (0, 0));
    }
    let latency = stats.latency.expect("asked for");
    // Milliseconds, whatever the machine does: no minute.
    assert!(
        latency.p50_ms >= 0.0 && latency.p50_ms <= latency.p95_ms && latency.p95_ms < 60_000.0,
        "{latency:?}"
    );

    let named = |upload: &Upload| upload.state == UploadState::Sending && upload.run.is_some();
    let upload: Upload = rig.mqtt.wait(&topics.upload(camera), named).await;
    let run: kvs::RunId = upload.run.as_deref().unwrap_or_default().parse().expect("ten hexadecimal digits");
    assert_ne!(run, kvs::RunId::UNKNOWN);
    let stream = if camera == "h265" { "another.name" } else { camera };
    assert_eq!((upload.stream.as_str(), upload.reason), (stream, None));
    let verify: Verify =
        rig.mqtt.wait(&topics.verify(camera), |verify: &Verify| verify.verdict == Verdict::Ok).await;
    assert_eq!((verify.method, verify.reason), (VerifyMethod::Continuous, None));
}

/// What it says about itself.
async fn check_box(rig: &Rig) {
    let topics = &rig.mqtt.topics;
    let info: Info = rig.mqtt.last(&topics.info());
    assert_eq!((info.device.as_str(), info.stop_reason.as_deref()), ("box", None));
    assert_eq!(info.version, env!("CARGO_PKG_VERSION"));
    let cameras: Vec<_> = info.cameras.iter().map(|camera| (&*camera.id, &*camera.stream)).collect();
    assert_eq!(cameras, [("h264", "h264"), ("h265", "another.name"), ("udp", "udp")]);
    let well = |health: &Health| {
        // No margin is left in a second in which the machine did something else.
        let margin = health.watchdog_margin_ms.is_some_and(|ms| ms > 0);
        health.ok && health.host.process_cpu_percent.is_some() && margin
    };
    let health: Health = rig.mqtt.wait(&topics.health(), well).await;
    assert!(health.watchdog_margin_ms.is_some_and(|ms| ms <= 1000), "{health:#?}");
    assert_eq!(health.checks, []);
    assert!(health.host.process_rss_bytes.is_some_and(|rss| rss > 1 << 20), "{health:?}");
    assert_eq!((health.mqtt.dropped, health.mqtt.reconnects), (0, 0));
}

/// The configuration has no `[detect]`.
fn check_that_nothing_is_decoded(rig: &Rig) {
    let threads = std::fs::read_dir(format!("/proc/{}/task", rig.daemon().pid())).expect("it runs");
    let names =
        threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok());
    let names: Vec<_> = names.map(|name| name.trim().to_owned()).collect();
    assert!(!names.is_empty() && !names.contains(&"detector".to_owned()), "{names:?}");
    let topics = &rig.mqtt.topics;
    let told: BTreeSet<_> = rig.mqtt.all().into_iter().map(|message| message.topic).collect();
    assert!(!told.contains(&topics.detector()), "{told:?}");
    for Expected { camera, .. } in &CAMERAS {
        let of_camera = format!("/cam/{camera}/");
        assert_eq!(told.iter().filter(|topic| topic.contains(&of_camera)).count(), 4, "{told:?}");
        let stats: Stats = rig.mqtt.last(&topics.stats(camera));
        assert!(stats.detect.is_none() && stats.fps.decoded.is_none() && stats.fps.inferred.is_none());
    }
    assert_eq!(rig.daemon().stdout(), Vec::<String>::new());
    let said = rig.daemon().output();
    assert!(said.iter().any(|line| line.contains("detection is off") && line.contains("`cargo xtask model")));
}

fn check_footage(footage: &Footage, expected: &Expected) {
    footage.expect_only_lost_packets_to_matter();
    assert_eq!(footage.sessions().len(), 1);
    assert!(footage.worst_time_error_ms() < 500, "{} ms", footage.worst_time_error_ms());
    assert_eq!(footage.audio_frames > 0, expected.sound);
    assert!(
        footage.stored.iter().all(|fragment| fragment.starts_with_key() && fragment.size() == expected.size)
    );
    let newest = footage.stored.last().expect("there are fragments");
    assert_eq!(footage.upload.last_fragment, Some(newest.number()));
    assert_eq!(footage.upload.last_persisted.map(|at| at.as_millis()), Some(newest.timecode_ms()));
    assert_eq!(footage.upload.backlog_s, 0.0);
    assert!(footage.upload.ack_delay_ms.is_some_and(|ms| ms < 60_000));
    assert_eq!(footage.verify.last_fragment, Some(newest.number()));
    assert!(footage.verify.delay.is_some());
    // The stop took the pictures with it that were on their way: the last fragment is cut, not dropped.
    let status: &Status = &footage.status;
    assert_eq!((status.state, status.reason), (CameraState::Offline, Some(Reason::Stopping)), "{status:?}");
    let last_sent = status.last_frame.map_or(0, |at| at.as_millis());
    let last_stored = footage.pictures.last().map_or(0, |picture| picture.time_ms);
    assert!(
        last_sent.saturating_sub(last_stored) < 1000,
        "{last_stored} is the last stored, {last_sent} came"
    );
}

/// Programs that are not ours read what GetMedia gives back.
async fn check_read_back(rig: &Rig, expected: &Expected, pictures: usize) {
    let stream = if expected.camera == "h265" { "another.name" } else { expected.camera };
    let media = rig.kvs.get_media(stream).await;
    if let Some(errors) = decode_errors(&media) {
        assert_eq!(errors, "", "{stream}");
    }
    let Some(ffprobe) = program("ffprobe", "ffmpeg") else { return };
    let file = rig.folder().join(format!("{stream}.mkv"));
    std::fs::write(&file, &media).expect("the folder can be written to");
    let entries = "stream=codec_name,width,height,nb_read_packets";
    let arguments = ["-v", "error", "-count_packets", "-show_entries", entries, "-of", "csv=p=0"];
    let output = Command::new(ffprobe).args(arguments).arg(file).output().expect("ffprobe starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (width, height) = expected.size;
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some(&*format!("{},{width},{height},{pictures}", expected.probed)), "{text}");
    let sound = lines.next().and_then(|line| line.split(',').next());
    let codec = if expected.camera == "udp" { "pcm_mulaw" } else { "aac" };
    assert_eq!(sound, expected.sound.then_some(codec), "{text}");
}
