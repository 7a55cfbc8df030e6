//! Cameras that cannot work until somebody changes something: the box says what, does not hammer them, and the
//! healthy camera beside them is unaffected.

use std::net::TcpListener;
use std::time::Duration;

use camera_sim::{Audio, AuthKind, ForeignCodec};
use futures_util::future::join_all;
use kvs_edge_tests::{Camera, Rig, free_port};
use messages::{CameraState, Health, Reason, Stats, Status, Upload, UploadState, Verdict, Verify};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Bad {
    camera: &'static str,
    reason: Reason,
    /// Words of the detail: what was found, and what to change.
    says: &'static [&'static str],
}

const BAD: [Bad; 12] = [
    Bad { camera: "wrong-password", reason: Reason::Unauthorized, says: &["401", "password_file"] },
    Bad { camera: "wrong-basic", reason: Reason::Unauthorized, says: &["401", "password_file"] },
    Bad { camera: "no-password", reason: Reason::Unauthorized, says: &["401", "username"] },
    Bad { camera: "no-path", reason: Reason::NotFound, says: &["404", "url"] },
    Bad { camera: "audio-only", reason: Reason::NoVideo, says: &["audio mpeg4-generic", "url"] },
    Bad { camera: "jpeg", reason: Reason::UnsupportedCodec, says: &["video jpeg", "H.264 or H.265"] },
    Bad { camera: "vp8", reason: Reason::UnsupportedCodec, says: &["video vp8", "H.264 or H.265"] },
    Bad { camera: "no-udp", reason: Reason::ProtocolError, says: &["461", "transport = \"tcp\""] },
    Bad { camera: "nobody", reason: Reason::ConnectionRefused, says: &["refused"] },
    Bad { camera: "silent", reason: Reason::Timeout, says: &["DESCRIBE", "1 s"] },
    Bad { camera: "web-server", reason: Reason::ProtocolError, says: &["DESCRIBE"] },
    Bad { camera: "no-name", reason: Reason::DnsFailed, says: &["does not resolve"] },
];

fn camera(bad: &Bad, silent: u16, web: u16) -> Camera {
    let id = bad.camera;
    let camera = Camera::new(id).set("timeouts.handshake_s", "1");
    let at = |url: String| Camera::at(id, url).set("timeouts.handshake_s", "1");
    match id {
        "wrong-password" | "wrong-basic" => {
            let kind = if id == "wrong-basic" { AuthKind::Basic } else { AuthKind::Digest };
            let camera = camera.login("viewer", "right", kind);
            camera.set("username", "\"viewer\"").set("password_file", "\"wrong-password\"")
        }
        "no-password" => camera.login("viewer", "right", AuthKind::Digest),
        "no-path" => camera.faults(|plan| plan.not_found = true),
        "audio-only" => camera.faults(|plan| plan.audio_only = true).clip(|clip| clip.audio = Audio::Aac),
        "jpeg" => camera.faults(|plan| plan.foreign = Some(ForeignCodec::Jpeg)),
        "vp8" => camera.faults(|plan| plan.foreign = Some(ForeignCodec::Vp8)),
        "no-udp" => camera.faults(|plan| plan.refuse_udp = true).set("transport", "\"udp\""),
        "nobody" => at(format!("rtsp://127.0.0.1:{}/x", free_port())),
        "silent" => at(format!("rtsp://127.0.0.1:{silent}/x")),
        "web-server" => at(format!("rtsp://127.0.0.1:{web}/x")),
        // Nothing has to be asked to know that there is no such name.
        "no-name" => at("rtsp://no..name/x".to_owned()),
        _ => camera,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_camera_gets_its_reason_and_the_good_one_its_footage() {
    // The kernel takes connections for a listener that never looks at them.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let silent_port = silent.local_addr().expect("bound").port();
    let web = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let web_port = web.local_addr().expect("bound").port();
    let web = tokio::spawn(web_server(web));
    let mut rig = Rig::builder()
        .file("wrong-password", "wrong\n")
        .camera(Camera::new("good"))
        .camera(Camera::new("off").set("enabled", "false"));
    for bad in &BAD {
        rig = rig.camera(camera(bad, silent_port, web_port));
    }
    let clock = clock::Clock::system();
    let began = clock.now();
    let Some(rig) = rig.start().await else { return };
    join_all(BAD.iter().map(|bad| check(&rig, bad))).await;
    let off = rig.status(0, "off", |_| true).await;
    assert_eq!((off.state, off.reason), (CameraState::Disabled, None));
    // Those that are worth another try get one.
    for camera in ["nobody", "silent", "web-server", "no-name", "no-udp"] {
        rig.mqtt.wait(&rig.mqtt.topics.stats(camera), |stats: &Stats| stats.reconnects_1h >= 2).await;
    }
    rig.fragments("good", 4).await;
    let all = |health: &Health| health.checks.len() == BAD.len();
    let health: Health = rig.mqtt.wait(&rig.mqtt.topics.health(), all).await;
    assert!(!health.ok && health.checks.iter().all(|check| check.camera.is_some()), "{health:#?}");
    rig.stop().await;
    web.abort();

    let good = rig.expect_everything_proven("good").await;
    good.expect_no_picture_missing();
    let before =
        |status: &Status| [None, Some(Reason::Starting), Some(Reason::Stopping)].contains(&status.reason);
    let statuses: Vec<Status> = rig.mqtt.bodies(&rig.mqtt.topics.status("good"));
    assert!(statuses.iter().all(|status| before(status) && status.attempts == 0), "{statuses:#?}");
    for Bad { camera, reason, .. } in &BAD {
        check_the_end(&rig, camera, *reason, clock.since(began));
    }
    let off = rig.sim("off").expect("simulated").stats(0);
    assert_eq!((off.sessions, off.pictures), (0, 0));
}

async fn check(rig: &Rig, bad: &Bad) {
    let status = rig.status(0, bad.camera, |status| status.reason != Some(Reason::Starting)).await;
    let Bad { camera, reason, says } = bad;
    assert_eq!((status.state, status.reason), (CameraState::Offline, Some(*reason)), "{camera}: {status:?}");
    assert!(status.attempts >= 1 && status.last_frame.is_none(), "{camera}: {status:?}");
    let detail = status.detail.unwrap_or_default();
    assert!(says.iter().all(|word| detail.contains(word)), "{camera}: {detail:?} says all of {says:?}");
    assert!(!detail.contains("wrong\n") && !detail.contains('\n'), "{camera}: {detail:?}");
}

fn check_the_end(rig: &Rig, camera: &str, reason: Reason, ran: Duration) {
    let topics = &rig.mqtt.topics;
    let (upload, verify): (Upload, Verify) =
        (rig.mqtt.last(&topics.upload(camera)), rig.mqtt.last(&topics.verify(camera)));
    assert_eq!(
        (upload.state, upload.reason, upload.fragments_sent),
        (UploadState::Idle, None, 0),
        "{camera}"
    );
    assert_eq!((verify.verdict, verify.reason), (Verdict::Unknown, None), "{camera}");
    let connections = rig.kvs.local().connections(camera).expect("the rig made the stream");
    assert_eq!(connections.put_media_ever, 0, "{camera}");
    let last: Status = rig.mqtt.last(&topics.status(camera));
    // What only an operator can mend is asked once a minute: no locked account, no full log.
    let for_an_operator =
        [Reason::Unauthorized, Reason::NotFound, Reason::NoVideo, Reason::UnsupportedCodec].contains(&reason);
    let minutes = u32::try_from(ran.as_secs() / 60).expect("no such test");
    assert_eq!(last.attempts <= 1 + minutes, for_an_operator, "{camera}: {last:?}");
    if reason == Reason::Unauthorized {
        let refused = rig.sim(camera).expect("simulated").stats(0).unauthorized;
        assert!(refused <= 2 * u64::from(1 + minutes), "{camera}: {refused} answers with 401");
    }
}

/// Answers everything as a web server does that is asked for RTSP.
async fn web_server(listener: tokio::net::TcpListener) {
    while let Ok((mut socket, _)) = listener.accept().await {
        let mut request = [0; 1024];
        let _ = socket.read(&mut request).await;
        let _ = socket
            .write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .await;
    }
}
