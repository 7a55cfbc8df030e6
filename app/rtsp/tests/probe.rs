//! The probe against simulated cameras, good and bad.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use camera_sim::{Audio, AuthKind, CameraSim, ClipSpec, Codec};
use clock::Clock;
use config::{Login, Secret, Transport};
use rtsp::SessionError;
use rtsp::probe::{self, ParameterSets, ProbeOptions, Report};

async fn camera(clip: ClipSpec) -> CameraSim {
    CameraSim::builder().clip(clip).start().await.expect("a simulated camera")
}

fn options(sim: &CameraSim, query: &str) -> ProbeOptions {
    let url = format!("{}{query}", sim.url(0)).parse().expect("a URL");
    // Sender reports come every two seconds.
    let watch = Duration::from_millis(3500);
    ProbeOptions { watch, gop_limit: Duration::from_millis(2500), ..ProbeOptions::new(url) }
}

async fn run(options: ProbeOptions) -> Result<Report, SessionError> {
    probe::run(options, Clock::system()).await
}

async fn look(sim: &CameraSim, query: &str) -> Report {
    run(options(sim, query)).await.expect("a report")
}

fn codes(report: &Report) -> Vec<String> {
    report.findings.iter().map(|finding| finding.problem.reason.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn good_camera_has_no_problem() {
    let sim = camera(ClipSpec { audio: Audio::Aac, ..ClipSpec::small() }).await;
    let report = look(&sim, "").await;
    assert_eq!(codes(&report), [""; 0], "{report}");
    assert!(report.is_usable());
    assert_eq!(report.transport, Some("tcp"));
    assert!(report.methods.iter().any(|method| method == "GET_PARAMETER"), "{report:?}");
    let video = report.video.as_ref().expect("video");
    assert!(video.codec.as_ref().is_some_and(|codec| codec.starts_with("avc1.")), "{video:?}");
    assert_eq!((video.size, video.gop_frames), (Some([320, 192]), Some(10)));
    assert!(video.fps_measured.is_some_and(|fps| (fps - 10.0).abs() < 0.5), "{video:?}");
    assert!(video.gop_s.is_some_and(|gop| (gop - 1.0).abs() < 0.05), "{video:?}");
    assert_eq!((video.parameter_sets, video.lost_packets, video.reordered), (ParameterSets::Sdp, 0, false));
    assert_eq!(report.audio.as_ref().map(|audio| (audio.sample_rate_hz, audio.channels)), Some((16_000, 1)));
    let clock = report.clock.as_ref().expect("clock");
    assert!(
        clock.sender_reports >= 1 && clock.offset_ms.is_some_and(|offset| offset.abs() < 1000.0),
        "{clock:?}"
    );
    let table = report.to_string();
    for line in
        ["track       video h264 at 90000 Hz", "gop         10 pictures, 1.00 s", "verdict     usable"]
    {
        assert!(table.lines().any(|have| have == line), "{table}");
    }
    let json = serde_json::to_value(&report).expect("JSON");
    assert_eq!(json["video"]["parameter_sets"], "sdp");
}

#[tokio::test(flavor = "multi_thread")]
async fn h265_with_b_frames_and_udp() {
    let sim = camera(ClipSpec { codec: Codec::H265, b_frames: 2, ..ClipSpec::small() }).await;
    let report =
        run(ProbeOptions { transport: Transport::Udp, ..options(&sim, "") }).await.expect("a report");
    assert_eq!(report.transport, Some("udp"));
    let video = report.video.as_ref().expect("video");
    assert!(video.codec.as_ref().is_some_and(|codec| codec.starts_with("hvc1.")), "{video:?}");
    assert!(video.reordered && codes(&report).contains(&"b_frames".to_owned()), "{report}");
    assert!(report.is_usable(), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_oddity_is_a_problem_with_a_fix() {
    let sim = camera(ClipSpec { audio: Audio::Pcmu, ..ClipSpec::small() }).await;
    let cases = [
        ("?no_sr", vec!["no_sender_reports"]),
        ("?no_sprop", vec!["parameter_sets_inline"]),
        ("?clock_offset=-7200", vec!["camera_clock"]),
        ("?go2rtc", vec!["no_sender_reports"]),
        ("?hangup_after=2.5", vec!["session_ended"]),
        ("?stall_after=0", vec!["no_pictures"]),
        ("?audio_only", vec!["no_video"]),
        ("?foreign=jpeg", vec!["unsupported_codec"]),
    ];
    // All at once: what takes time is watching.
    let looks = cases.iter().map(|(query, _)| look(&sim, query));
    let reports = futures_util::future::join_all(looks).await;
    for ((query, expected), report) in cases.iter().zip(&reports) {
        assert_eq!(codes(report), *expected, "{query}\n{report}");
        let unusable = ["session_ended", "no_pictures", "no_video", "unsupported_codec"];
        assert_eq!(report.is_usable(), !unusable.contains(&expected[0]), "{query}");
        assert!(!report.url.contains('?'), "{}", report.url);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_packets_are_counted() {
    let sim = camera(ClipSpec::small()).await;
    let report = look(&sim, "?drop=0.2&fault_seed=1").await;
    assert!(codes(&report).contains(&"packet_loss".to_owned()), "{report}");
    assert!(report.video.as_ref().is_some_and(|video| video.lost_packets > 0), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn gop_that_is_too_long_is_waited_for() {
    let sim = camera(ClipSpec { gop: 30, loop_seconds: 3, ..ClipSpec::small() }).await;
    // Wherever in the GOP the probe comes in, and whether the camera begins with a key picture or not.
    let (at_key, anywhere) = tokio::join!(look(&sim, "?start=idr"), look(&sim, "?start=now"));
    for report in [at_key, anywhere] {
        assert_eq!(codes(&report), ["long_gop"], "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn camera_without_any_track_is_an_error() {
    let sim = camera(ClipSpec::small()).await;
    let error = run(options(&sim, "?audio_only")).await.expect_err("it has no audio either");
    assert!(matches!(error, SessionError::NoTracks), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn udp_is_refused_and_tcp_taken_when_allowed() {
    let sim = camera(ClipSpec::small()).await;
    let with = |transport| ProbeOptions { transport, ..options(&sim, "?refuse_udp") };
    let error = run(with(Transport::Udp)).await.expect_err("refused");
    assert!(matches!(error, SessionError::TransportRefused { step: "SETUP" }), "{error}");
    let report = run(with(Transport::Auto)).await.expect("a report");
    assert_eq!((report.transport, codes(&report)), (Some("tcp"), vec!["udp_refused".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn login_is_asked_for_and_checked() {
    for kind in [AuthKind::Digest, AuthKind::Basic] {
        let sim = CameraSim::builder()
            .clip(ClipSpec::small())
            .auth("viewer", "right", kind)
            .start()
            .await
            .expect("a camera");
        let login = |password: &str| {
            let login = Login { username: "viewer".into(), password: Secret::new(password) };
            ProbeOptions { login: Some(login), watch: Duration::from_millis(500), ..options(&sim, "") }
        };
        let error = run(options(&sim, "")).await.expect_err("a login is needed");
        assert!(matches!(error, SessionError::LoginNeeded { step: "DESCRIBE", status: 401 }), "{error}");
        let error = run(login("hunter2")).await.expect_err("a wrong one");
        assert!(matches!(error, SessionError::LoginRefused { status: 401, .. }), "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
        run(login("right")).await.expect("the right one");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_path_is_said_to_be_unknown() {
    let sim = camera(ClipSpec::small()).await;
    let error = run(options(&sim, "?not_found")).await.expect_err("404");
    assert!(error.to_string().contains("no path \"/cam0\" (RTSP 404)"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_has_a_deadline() {
    let sim = camera(ClipSpec::small()).await;
    for (query, expected) in
        [("?hang=describe", "DESCRIBE"), ("?hang=setup", "SETUP"), ("?hang=play", "PLAY")]
    {
        let options = ProbeOptions { step_limit: Duration::from_millis(300), ..options(&sim, query) };
        let error = run(options).await.expect_err("it hangs");
        assert!(matches!(error, SessionError::Timeout { step, .. } if step == expected), "{query}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_camera_is_told_apart() {
    let closed =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).expect("a port").port();
    let run = |url: String| {
        run(ProbeOptions {
            step_limit: Duration::from_secs(5),
            ..ProbeOptions::new(url.parse().expect("a URL"))
        })
    };
    let error = run(format!("rtsp://127.0.0.1:{closed}/x")).await.expect_err("nobody listens");
    assert!(
        matches!(&error, SessionError::Connect { .. }) && error.to_string().contains("refused"),
        "{error}"
    );
    // Longer than a label may be (RFC 1035, 2.3.4), so no name server is asked.
    let error = run(format!("rtsp://{}/x", "a".repeat(64))).await.expect_err("no such name");
    assert!(matches!(error, SessionError::Dns { .. }), "{error}");
    // A web server answers, in another language.
    let web = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = web.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for socket in web.incoming() {
            let Ok(mut socket) = socket else { return };
            let _ = socket.read(&mut [0; 1024]);
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let error = run(format!("rtsp://127.0.0.1:{port}/x")).await.expect_err("not RTSP");
    assert!(matches!(error, SessionError::Protocol { step: "DESCRIBE", .. }), "{error}");
    assert_eq!(error.to_string().lines().count(), 1, "{error}");
}
