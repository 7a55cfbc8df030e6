//! Everything that a camera can do wrong while it works: the daemon recovers by itself, says why, and what it
//! recorded is stored, proven and decodes. Each test is one daemon with a camera per fault.

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
    Breaking { camera: "bye", fault: Fault::Bye, reason: Reason::Stalled },
    Breaking { camera: "ssrc", fault: Fault::NewSource, reason: Reason::ProtocolError },
    Breaking { camera: "sequence", fault: Fault::SequenceJump(40_000), reason: Reason::ProtocolError },
];

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_breaks_is_begun_anew() {
    let mut rig = Rig::builder();
    for Breaking { camera, .. } in &BREAKING {
        rig = rig.camera(Camera::new(camera).set("timeouts.stall_s", "1"));
    }
    let Some(rig) = rig.start().await else { return };
    join_all(BREAKING.iter().map(|breaking| break_once(&rig, breaking))).await;
    rig.stop().await;
    for Breaking { camera, fault, .. } in &BREAKING {
        let footage = proven(&rig, camera).await;
        footage.expect_no_picture_missing();
        assert!(footage.sessions().len() >= 2, "{camera}: {:?}", footage.sessions());
        let stats = footage.stats.last().expect("each second");
        let stalls = u32::from(matches!(fault, Fault::Stall { .. } | Fault::Bye));
        assert!(stats.reconnects_1h >= 1 && stats.stalls_1h >= stalls, "{camera}: {stats:?}");
    }
}

async fn break_once(rig: &Rig, &Breaking { camera, fault, reason }: &Breaking) {
    rig.online(camera).await;
    rig.fragments(camera, 1).await;
    // The next random access point is a second away: the box has to say that it is offline until then.
    rig.key_picture(camera).await;
    let mark = rig.mqtt.mark();
    assert_eq!(rig.faults(camera).inject(fault), 1);
    let offline = rig.status(mark, camera, |status| status.state == CameraState::Offline).await;
    assert_eq!(offline.reason, Some(reason), "{camera}: {offline:?}");
    assert!(offline.attempts == 1 && offline.detail.is_some(), "{camera}: {offline:?}");
    let online = rig.status(mark, camera, |status| status.state == CameraState::Online).await;
    assert_eq!((online.reason, online.attempts), (None, 0), "{camera}: {online:?}");
    rig.more_fragments(camera, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sound_alone_does_not_keep_a_session() {
    let camera = Camera::new("sound").set("timeouts.stall_s", "1").clip(|clip| clip.audio = Audio::Pcmu);
    let Some(rig) = Rig::builder().camera(camera).start().await else { return };
    let breaking = Breaking { camera: "sound", fault: Fault::DropPackets(u32::MAX), reason: Reason::Stalled };
    break_once(&rig, &breaking).await;
    rig.stop().await;
    let verify: Verify = rig.mqtt.last(&rig.mqtt.topics.verify("sound"));
    assert!(verify.identical >= 3 && (verify.missing, verify.corrupt) == (0, 0), "{verify:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_hangs_is_given_up_and_tried_again() {
    use HandshakeStep::{Connect, Describe, Play, Setup};
    let steps = [("connect", Connect), ("describe", Describe), ("setup", Setup), ("play", Play)];
    let mut rig = Rig::builder();
    for (camera, step) in steps {
        let camera = Camera::new(camera).faults(|plan| plan.hang = Some(step));
        rig = rig.camera(camera.set("timeouts.handshake_s", "1"));
    }
    // No answer to keepalives is the same, later: the session is ended by retina.
    let mute = |plan: &mut FaultPlan| (plan.no_keepalive, plan.session_timeout_s) = (true, Some(2));
    let Some(rig) = rig.camera(Camera::new("mute").faults(mute)).start().await else { return };
    let heal = async |camera: &str, step: &str| {
        let offline = rig.status(0, camera, |status| status.reason != Some(Reason::Starting)).await;
        assert_eq!(
            (offline.state, offline.reason),
            (CameraState::Offline, Some(Reason::Timeout)),
            "{offline:?}"
        );
        rig.mqtt.wait(&rig.mqtt.topics.stats(camera), |stats: &Stats| stats.reconnects_1h >= 2).await;
        let detail = offline.detail.unwrap_or_default();
        assert!(detail.contains(step), "{camera}: {detail}");
        rig.faults(camera).set(FaultPlan::default());
        rig.online(camera).await;
        rig.fragments(camera, 1).await;
    };
    let mute = async {
        rig.online("mute").await;
        let broken = rig.status(0, "mute", |status| status.reason == Some(Reason::ProtocolError)).await;
        assert_eq!(broken.state, CameraState::Offline);
        rig.faults("mute").set(FaultPlan::default());
        rig.more_fragments("mute", 2).await;
    };
    tokio::join!(
        mute,
        heal("connect", "DESCRIBE"),
        heal("describe", "DESCRIBE"),
        heal("setup", "SETUP"),
        heal("play", "PLAY")
    );
    rig.stop().await;
    for camera in ["connect", "describe", "setup", "play", "mute"] {
        proven(&rig, camera).await.expect_no_picture_missing();
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn oddities_and_jumps_cost_no_picture() {
    let mut rig = Rig::builder();
    for camera in odd_cameras() {
        rig = rig.camera(camera);
    }
    let Some(rig) = rig.start().await else { return };
    let once = async |camera: &str, fault: Fault| {
        rig.online(camera).await;
        rig.fragments(camera, 1).await;
        assert_eq!(rig.faults(camera).inject(fault), 1);
        rig.more_fragments(camera, 3).await;
    };
    tokio::join!(
        once("back", Fault::TimestampJumpMs(-5_000)),
        once("forward", Fault::TimestampJumpMs(7_000)),
        once("days", Fault::TimestampJumpMs(400_000_000)),
        once("switch", Fault::SwitchParameters),
        once("switch-h265", Fault::SwitchParameters),
    );
    let cameras = odd_cameras();
    let ids: Vec<_> = cameras.iter().map(Camera::id).collect();
    join_all(ids.iter().map(|id| rig.fragments(id, 3))).await;
    rig.stop().await;

    for &id in &ids {
        let footage = proven(&rig, id).await;
        footage.expect_no_picture_missing();
        assert_eq!(footage.sessions().len(), 1, "{id}");
        let never_degraded = |status: &Status| status.state != CameraState::Degraded;
        assert!(statuses(&rig, id).iter().all(never_degraded), "{id}: {:#?}", statuses(&rig, id));
        let stats = footage.stats.last().expect("each second");
        assert_eq!(
            (stats.lost_packets, stats.dropped_frames, stats.reconnects_1h),
            (0, 0, 0),
            "{id}: {stats:?}"
        );
        let without_reports = ["no-reports", "go2rtc"].contains(&id);
        let clock = if without_reports { ClockSource::Receive } else { ClockSource::Rtcp };
        assert_eq!(stats.clock, Some(clock), "{id}");
        assert_eq!(stats.transport.as_deref(), Some(if id == "auto" { "udp" } else { "tcp" }), "{id}");
        assert!(footage.worst_time_error_ms() < 1000, "{id}: {} ms", footage.worst_time_error_ms());
        assert!(footage.stored.iter().all(|fragment| fragment.starts_with_key()), "{id}");
        let sizes: Vec<_> = footage.stored.iter().map(|fragment| fragment.size()).collect();
        let switched = sizes.iter().any(|size| *size != (320, 180));
        assert_eq!((switched, sizes[0]), (id.starts_with("switch"), (320, 180)), "{id}: {sizes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_should_change_in_the_camera_is_said() {
    let rig = Rig::builder()
        .set("upload.fragment_max_ms", "2000")
        .camera(Camera::new("hour-ahead").faults(|plan| plan.clock_offset_s = 3600.0))
        .camera(Camera::new("hour-behind").faults(|plan| plan.clock_offset_s = -3600.0))
        .camera(Camera::new("bit-ahead").faults(|plan| plan.clock_offset_s = 1.5))
        .camera(Camera::new("long-gop").clip(|clip| clip.gop = 40))
        .camera(Camera::new("fine"))
        .start();
    let Some(rig) = rig.await else { return };
    let clock = |status: &Status| status.reason == Some(Reason::CameraClock);
    let gop = |status: &Status| status.reason == Some(Reason::LongGop);
    let (ahead, behind, long) = tokio::join!(
        rig.status(0, "hour-ahead", clock),
        rig.status(0, "hour-behind", clock),
        rig.status(0, "long-gop", gop),
    );
    for (status, word) in [(&ahead, "3599 s"), (&behind, "-3600 s"), (&long, "GOP")] {
        assert_eq!(status.state, CameraState::Degraded);
        let detail = status.detail.clone().unwrap_or_default();
        // The delay of the network is part of what can be measured.
        let near = detail.replace("3600 s", "3599 s").replace("-3599", "-3600");
        assert!(detail.contains(word) || near.contains(word), "{detail}");
    }
    let all = |health: &Health| health.checks.iter().any(|check| check.code == "long_gop");
    let health: Health = rig.mqtt.wait(&rig.mqtt.topics.health(), all).await;
    let mut checks: Vec<_> =
        health.checks.iter().map(|check| (check.camera.as_deref().unwrap_or("-"), &*check.code)).collect();
    checks.sort();
    let camera_clock = "camera_clock";
    let expected = [
        ("bit-ahead", camera_clock),
        ("hour-ahead", camera_clock),
        ("hour-behind", camera_clock),
        ("long-gop", "long_gop"),
    ];
    assert_eq!((checks, health.ok), (expected.to_vec(), false));
    for camera in ["bit-ahead", "hour-ahead", "hour-behind", "long-gop", "fine"] {
        rig.fragments(camera, 5).await;
    }
    rig.stop().await;

    for camera in ["hour-ahead", "hour-behind", "bit-ahead", "long-gop", "fine"] {
        let footage = proven(&rig, camera).await;
        footage.expect_no_picture_missing();
        let (believed, error_ms) = (!camera.starts_with("hour"), footage.worst_time_error_ms());
        let stats = footage.stats.last().expect("each second");
        let clock = if believed { ClockSource::Rtcp } else { ClockSource::Receive };
        assert_eq!(stats.clock, Some(clock), "{camera}");
        let expected_ms = if camera == "bit-ahead" { 1400..1600 } else { 0..1000 };
        assert!(expected_ms.contains(&error_ms), "{camera}: {error_ms} ms");
        let forced = footage.stored.iter().any(|fragment| !fragment.starts_with_key());
        assert_eq!(forced, camera == "long-gop", "{camera}");
    }
    let degraded = |status: &Status| status.state == CameraState::Degraded;
    assert!(!statuses(&rig, "fine").iter().any(degraded));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_loss_nothing_is_recorded_that_does_not_decode() {
    let lossy = |plan: &mut FaultPlan| (plan.drop, plan.seed) = (0.02, 7);
    let swapping = |plan: &mut FaultPlan| (plan.reorder, plan.seed) = (0.01, 3);
    let rig = Rig::builder()
        .camera(Camera::new("drop-tcp").faults(lossy))
        .camera(Camera::new("drop-udp").faults(lossy).set("transport", "\"udp\""))
        .camera(Camera::new("drop-h265").h265().clip(|clip| clip.open_gop = true).faults(lossy))
        .camera(Camera::new("swap-tcp").faults(swapping))
        .camera(Camera::new("swap-udp").faults(swapping).set("transport", "\"udp\""))
        .start();
    let Some(rig) = rig.await else { return };
    let cameras = ["drop-tcp", "drop-udp", "drop-h265", "swap-tcp", "swap-udp"];
    join_all(cameras.iter().map(async |camera| {
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
    }))
    .await;
    rig.stop().await;

    for camera in cameras {
        let footage = proven(&rig, camera).await;
        footage.expect_nothing_behind_a_loss();
        assert!(footage.stored.iter().all(|fragment| fragment.starts_with_key()), "{camera}");
        let stats: &Stats = footage.stats.last().expect("each second");
        if camera.starts_with("drop") {
            expect_only_lost_gops_missing(camera, &footage);
            assert_eq!(footage.sessions().len(), 1, "{camera}");
            let dropped = rig.sim(camera).expect("simulated").stats(0).packets_dropped;
            // retina counts too few where two losses hit one picture.
            assert!((1..=dropped).contains(&stats.lost_packets), "{camera}: {dropped} dropped, {stats:?}");
            let said = |status: &Status| status.reason == Some(Reason::PacketLoss);
            assert!(statuses(&rig, camera).iter().any(said), "{camera}: {:#?}", statuses(&rig, camera));
        }
        if camera == "swap-tcp" {
            // TCP keeps the order, so a camera that does not is broken: another session.
            assert!(footage.sessions().len() >= 2, "{camera}");
        }
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
