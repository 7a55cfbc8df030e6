//! Everything that a camera can do wrong while it works: the daemon recovers by itself, says why, and what it
//! recorded is stored, proven and decodes. Each test is one daemon with a camera per fault. What is decided by a clock
//! or a packet alone is tested without a daemon in `app/rtsp/tests`.

use std::collections::BTreeSet;

use camera_sim::{Audio, Fault, FaultPlan, HandshakeStep};
use futures_util::future::join_all;
use kvs_edge_tests::{Camera, Footage, Rig};
use messages::{CameraState, ClockSource, Health, Reason, Stats, Status, Verify};

/// A camera that fails once, and what the box says about it.
struct Breaking {
    camera: &'static str,
    fault: Fault,
    reason: Reason,
}

const BREAKING: [Breaking; 6] = [
    Breaking { camera: "hang-up", fault: Fault::HangUp, reason: Reason::Disconnected },
    Breaking { camera: "stall", fault: Fault::Stall { answer_keepalive: true }, reason: Reason::Stalled },
    Breaking { camera: "dead", fault: Fault::Stall { answer_keepalive: false }, reason: Reason::Stalled },
    Breaking { camera: "bye", fault: Fault::Bye, reason: Reason::Disconnected },
    Breaking { camera: "ssrc", fault: Fault::NewSource, reason: Reason::ProtocolError },
    Breaking { camera: "sequence", fault: Fault::SequenceJump(40_000), reason: Reason::ProtocolError },
];

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_breaks_or_hangs_is_begun_anew() {
    use HandshakeStep::{Connect, Describe, Play, Setup};
    let steps = [
        ("connect", Connect, "DESCRIBE"),
        ("describe", Describe, "DESCRIBE"),
        ("setup", Setup, "SETUP"),
        ("play", Play, "PLAY"),
    ];
    let mut rig = Rig::builder();
    for Breaking { camera, .. } in &BREAKING {
        rig = rig.camera(breaking(camera));
    }
    // Sound alone does not keep a session.
    rig = rig.camera(breaking("sound").clip(|clip| clip.audio = Audio::Pcmu));
    for (camera, step, _) in steps {
        let camera = Camera::new(camera).faults(|plan| plan.hang = Some(step));
        rig = rig.camera(camera.set("timeouts.handshake_s", "1"));
    }
    // No answer to keepalives is the same, later: the session is ended by retina.
    let mute = |plan: &mut FaultPlan| (plan.no_keepalive, plan.session_timeout_s) = (true, Some(2));
    let Some(rig) = rig.camera(Camera::new("mute").faults(mute)).start().await else { return };
    let silence = Breaking { camera: "sound", fault: Fault::DropPackets(u32::MAX), reason: Reason::Stalled };
    tokio::join!(
        join_all(BREAKING.iter().map(|breaking| break_once(&rig, breaking))),
        break_once(&rig, &silence),
        join_all(steps.iter().map(|(camera, _, step)| heal(&rig, camera, step))),
        async {
            rig.online("mute").await;
            let broken = rig.status(0, "mute", |status| status.reason == Some(Reason::ProtocolError)).await;
            assert_eq!(broken.state, CameraState::Offline);
            rig.faults("mute").set(FaultPlan::default());
            rig.more_fragments("mute", 2).await;
        },
    );
    rig.stop().await;
    for Breaking { camera, fault, .. } in &BREAKING {
        let footage = proven(&rig, camera).await;
        footage.expect_no_picture_missing();
        assert!(footage.sessions().len() >= 2, "{camera}: {:?}", footage.sessions());
        let stats = footage.stats.last().expect("each second");
        let stalls = u32::from(matches!(fault, Fault::Stall { .. }));
        assert!(stats.reconnects_1h >= 1 && stats.stalls_1h >= stalls, "{camera}: {stats:?}");
    }
    let verify: Verify = rig.mqtt.last(&rig.mqtt.topics.verify("sound"));
    assert!(verify.identical >= 3 && (verify.missing, verify.corrupt) == (0, 0), "{verify:#?}");
    for camera in ["connect", "describe", "setup", "play", "mute"] {
        proven(&rig, camera).await.expect_no_picture_missing();
    }
}

/// A camera whose session will break.
fn breaking(camera: &str) -> Camera {
    Camera::new(camera).set("timeouts.stall_s", "1").set("timeouts.handshake_s", "3")
}

async fn break_once(rig: &Rig, &Breaking { camera, fault, reason }: &Breaking) {
    rig.online(camera).await;
    rig.fragments(camera, 1).await;
    rig.key_picture(camera).await;
    let mark = rig.mqtt.mark();
    // It lets nobody in until the box has said what happened, however long that takes.
    rig.faults(camera).set(FaultPlan { hang: Some(HandshakeStep::Connect), ..FaultPlan::default() });
    assert_eq!(rig.faults(camera).inject(fault), 1);
    let offline = rig.status(mark, camera, |status| status.state == CameraState::Offline).await;
    assert_eq!(offline.reason, Some(reason), "{camera}: {offline:?}");
    assert!(offline.attempts >= 1 && offline.detail.is_some(), "{camera}: {offline:?}");
    let mark = rig.mqtt.mark();
    rig.faults(camera).set(FaultPlan::default());
    let well = |status: &Status| status.state == CameraState::Online && status.attempts == 0;
    let online = rig.status(mark, camera, well).await;
    assert_eq!(online.reason, None, "{camera}: {online:?}");
    rig.more_fragments(camera, 2).await;
}

async fn heal(rig: &Rig, camera: &str, step: &str) {
    let offline = rig.status(0, camera, |status| status.reason != Some(Reason::Starting)).await;
    assert_eq!((offline.state, offline.reason), (CameraState::Offline, Some(Reason::Timeout)), "{offline:?}");
    rig.mqtt.wait(&rig.mqtt.topics.stats(camera), |stats: &Stats| stats.reconnects_1h >= 2).await;
    let detail = offline.detail.unwrap_or_default();
    assert!(detail.contains(step), "{camera}: {detail}");
    rig.faults(camera).set(FaultPlan::default());
    rig.online(camera).await;
    rig.fragments(camera, 1).await;
}

/// Cameras whose peculiarity must neither end the session nor cost a picture.
fn odd_cameras() -> Vec<Camera> {
    vec![
        Camera::new("no-reports").faults(|plan| plan.no_sr = true),
        Camera::new("no-rtp-info")
            .faults(|plan| plan.no_rtp_info = true)
            .clip(|clip| clip.audio = Audio::Aac),
        Camera::new("no-sprop").faults(|plan| plan.no_sprop = true),
        Camera::new("no-sprop-h265").h265().faults(|plan| plan.no_sprop = true),
        Camera::new("burst").faults(|plan| plan.burst = true),
        Camera::new("only-tcp").faults(|plan| plan.refuse_udp = true).set("transport", "\"auto\""),
        Camera::new("auto").set("transport", "\"auto\""),
        Camera::new("go2rtc")
            .faults(|plan| plan.go2rtc = true)
            .clip(|clip| clip.audio = Audio::Aac)
            .set("source", "\"go2rtc\""),
        Camera::new("b-frames").clip(|clip| clip.b_frames = 2),
        Camera::new("open-gop").h265().clip(|clip| clip.open_gop = true),
        Camera::new("back"),
        Camera::new("forward"),
        Camera::new("days"),
        Camera::new("switch"),
        Camera::new("switch-h265").h265(),
    ]
}

/// Cameras that an operator should look after.
fn askew_cameras() -> Vec<Camera> {
    vec![
        Camera::new("hour-ahead").faults(|plan| plan.clock_offset_s = 3600.0),
        Camera::new("hour-behind").faults(|plan| plan.clock_offset_s = -3600.0),
        Camera::new("bit-ahead").faults(|plan| plan.clock_offset_s = 1.5),
        Camera::new("long-gop").clip(|clip| clip.gop = 40).set("upload.fragment_max_ms", "2000"),
    ]
}

const LOSSY: [&str; 5] = ["drop-tcp", "drop-udp", "drop-h265", "swap-tcp", "swap-udp"];

fn lossy_cameras() -> Vec<Camera> {
    let drop = |plan: &mut FaultPlan| (plan.drop, plan.seed) = (0.02, 7);
    let swap = |plan: &mut FaultPlan| (plan.reorder, plan.seed) = (0.01, 3);
    vec![
        Camera::new("drop-tcp").faults(drop),
        Camera::new("drop-udp").faults(drop).set("transport", "\"udp\""),
        Camera::new("drop-h265").h265().clip(|clip| clip.open_gop = true).faults(drop),
        Camera::new("swap-tcp").faults(swap),
        Camera::new("swap-udp").faults(swap).set("transport", "\"udp\""),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_cameras_cost_no_picture_wrong_ones_are_named_and_losses_end_with_their_gop() {
    let mut rig = Rig::builder();
    for camera in odd_cameras().into_iter().chain(askew_cameras()).chain(lossy_cameras()) {
        rig = rig.camera(camera);
    }
    let Some(rig) = rig.start().await else { return };
    let once = async |camera: &str, fault: Fault| {
        rig.online(camera).await;
        rig.fragments(camera, 1).await;
        assert_eq!(rig.faults(camera).inject(fault), 1);
        rig.more_fragments(camera, 3).await;
    };
    let odd = odd_cameras();
    let ids: Vec<_> = odd.iter().map(Camera::id).collect();
    tokio::join!(
        once("back", Fault::TimestampJumpMs(-5_000)),
        once("forward", Fault::TimestampJumpMs(7_000)),
        once("days", Fault::TimestampJumpMs(400_000_000)),
        once("switch", Fault::SwitchParameters),
        once("switch-h265", Fault::SwitchParameters),
        join_all(ids.iter().map(|id| rig.fragments(id, 3))),
        wait_for_advice(&rig),
        join_all(LOSSY.iter().map(|camera| lose_packets(&rig, camera))),
    );
    rig.stop().await;
    for id in ids {
        check_odd(&rig, id).await;
    }
    for camera in askew_cameras() {
        check_askew(&rig, camera.id()).await;
    }
    for camera in LOSSY {
        check_lossy(&rig, camera).await;
    }
}

async fn check_odd(rig: &Rig, id: &str) {
    let footage = proven(rig, id).await;
    footage.expect_only_lost_packets_to_matter();
    assert_eq!(footage.sessions().len(), 1, "{id}");
    let stats = footage.stats.last().expect("each second");
    if footage.is_whole() {
        let never_degraded = |status: &Status| status.state != CameraState::Degraded;
        assert!(statuses(rig, id).iter().all(never_degraded), "{id}: {:#?}", statuses(rig, id));
        assert_eq!((stats.lost_packets, stats.dropped_frames), (0, 0), "{id}: {stats:?}");
    }
    assert_eq!(stats.reconnects_1h, 0, "{id}: {stats:?}");
    let without_reports = ["no-reports", "go2rtc"].contains(&id);
    let clock = if without_reports { ClockSource::Receive } else { ClockSource::Rtcp };
    assert_eq!(stats.clock, Some(clock), "{id}");
    assert_eq!(stats.transport.as_deref(), Some(if id == "auto" { "udp" } else { "tcp" }), "{id}");
    if !without_reports {
        assert!(footage.worst_time_error_ms() < 1000, "{id}: {} ms", footage.worst_time_error_ms());
    }
    assert!(footage.stored.iter().all(|fragment| fragment.starts_with_key()), "{id}");
    let sizes: Vec<_> = footage.stored.iter().map(|fragment| fragment.size()).collect();
    let switched = sizes.iter().any(|size| *size != (320, 180));
    assert_eq!((switched, sizes[0]), (id.starts_with("switch"), (320, 180)), "{id}: {sizes:?}");
}

async fn wait_for_advice(rig: &Rig) {
    let clock = |status: &Status| status.reason == Some(Reason::CameraClock);
    let gop = |status: &Status| status.reason == Some(Reason::LongGop);
    let (ahead, behind, long) = tokio::join!(
        rig.status(0, "hour-ahead", clock),
        rig.status(0, "hour-behind", clock),
        rig.status(0, "long-gop", gop),
    );
    for status in [&ahead, &behind, &long] {
        assert_eq!(status.state, CameraState::Degraded);
    }
    assert!(long.detail.as_ref().is_some_and(|text| text.contains("GOP")), "{long:?}");
    // The delay of the network is part of what can be measured.
    for (status, hour) in [(&ahead, 3600), (&behind, -3600)] {
        let detail = status.detail.clone().unwrap_or_default();
        let words: Vec<_> = detail.split_whitespace().collect();
        let seconds = words.windows(2).filter(|two| two[1].starts_with('s'));
        let seconds: Vec<i64> = seconds.filter_map(|two| two[0].parse().ok()).collect();
        assert!(seconds.iter().any(|found| (hour - 30..=hour).contains(found)), "{detail}");
    }
    let expected = BTreeSet::from([
        ("bit-ahead", "camera_clock"),
        ("hour-ahead", "camera_clock"),
        ("hour-behind", "camera_clock"),
        ("long-gop", "long_gop"),
    ]);
    let all = |health: &Health| {
        let checks = health.checks.iter().map(|check| (check.camera.as_deref().unwrap_or("-"), &*check.code));
        expected.is_subset(&checks.collect()) && !health.ok
    };
    let _: Health = rig.mqtt.wait(&rig.mqtt.topics.health(), all).await;
    join_all(askew_cameras().iter().map(|camera| rig.fragments(camera.id(), 5))).await;
}

async fn check_askew(rig: &Rig, camera: &str) {
    let footage = proven(rig, camera).await;
    footage.expect_no_picture_missing();
    let (believed, error_ms) = (!camera.starts_with("hour"), footage.worst_time_error_ms());
    let stats = footage.stats.last().expect("each second");
    let clock = if believed { ClockSource::Rtcp } else { ClockSource::Receive };
    assert_eq!(stats.clock, Some(clock), "{camera}");
    match camera {
        "bit-ahead" => assert!((1400..1600).contains(&error_ms), "{camera}: {error_ms} ms"),
        "long-gop" => assert!(error_ms < 1000, "{camera}: {error_ms} ms"),
        // Stamped by arrival, which an hour of error would be seen in.
        _ => assert!(error_ms < 60_000, "{camera}: {error_ms} ms"),
    }
    let forced = footage.stored.iter().any(|fragment| !fragment.starts_with_key());
    assert_eq!(forced, camera == "long-gop", "{camera}");
}

async fn lose_packets(rig: &Rig, camera: &str) {
    let sim = rig.sim(camera).expect("simulated");
    rig.fragments(camera, 2).await;
    // One GOP loses what follows its key picture, whatever chance does.
    if camera.starts_with("drop") {
        rig.key_picture(camera).await;
        rig.faults(camera).inject(Fault::DropPackets(1));
    }
    let enough = sim.wait_stats(0, |stats| stats.packets_dropped >= 3 || stats.packets_reordered >= 2);
    kvs_edge_tests::within("faults", enough).await;
    rig.faults(camera).set(FaultPlan::default());
    rig.more_fragments(camera, 2).await;
}

async fn check_lossy(rig: &Rig, camera: &str) {
    let footage = proven(rig, camera).await;
    footage.expect_nothing_behind_a_loss();
    assert!(footage.stored.iter().all(|fragment| fragment.starts_with_key()), "{camera}");
    let stats: &Stats = footage.stats.last().expect("each second");
    if camera.starts_with("drop") {
        assert_eq!(footage.sessions().len(), 1, "{camera}");
        let dropped = rig.sim(camera).expect("simulated").stats(0).packets_dropped;
        assert!(stats.lost_packets >= 1, "{camera}: {dropped} dropped, {stats:?}");
        // Over UDP the machine may lose more than the camera.
        if camera != "drop-udp" {
            expect_only_lost_gops_missing(camera, &footage);
            // retina counts too few where two losses hit one picture.
            assert!(stats.lost_packets <= dropped, "{camera}: {dropped} dropped, {stats:?}");
        }
        let said = |status: &Status| status.reason == Some(Reason::PacketLoss);
        assert!(statuses(rig, camera).iter().any(said), "{camera}: {:#?}", statuses(rig, camera));
    }
    if camera == "swap-tcp" {
        // TCP keeps the order, so a camera that does not is broken: another session.
        assert!(footage.sessions().len() >= 2, "{camera}");
    }
}

/// Whatever lost no packet, and refers to nothing that did, is stored. A random access point may lose packets and be
/// whole: these were parameter sets, which are known.
fn expect_only_lost_gops_missing(camera: &str, footage: &Footage) {
    let mut damaged = false;
    for sent in &footage.sent {
        let whole = sent.picture.packets_dropped == 0 || sent.random_access && sent.stored;
        damaged = !whole || damaged && !sent.random_access;
        assert_eq!(sent.stored, !damaged, "{camera}: {sent:?}");
    }
}

/// Proven, and ffmpeg has nothing against it.
async fn proven(rig: &Rig, camera: &str) -> Footage {
    let footage = rig.expect_everything_proven(camera).await;
    assert_eq!(rig.decode_errors(camera).await, "", "{camera}");
    footage
}

fn statuses(rig: &Rig, camera: &str) -> Vec<Status> {
    rig.mqtt.bodies(&rig.mqtt.topics.status(camera))
}
