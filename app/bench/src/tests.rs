//! The bench without a daemon: what is heard, judged, shown and drawn, and how it refuses.

use super::*;
use crate::criteria::judge_all;
use crate::judge::{Judged, Verdict};
use config::Environment;
use messages::{
    DetectStats, Detector, DetectorState, Fps, Percentiles, Spread, Stats, Upload, UploadState, Version,
    WorkerFigures,
};

const BEGUN_MS: u64 = 1_795_183_402_417;

fn at(seconds: i64) -> UtcTime {
    UtcTime::from_millis(BEGUN_MS.checked_add_signed(seconds * 1000).expect("after 1970"))
}

fn config(detect: bool) -> Config {
    let text = format!(
        "[aws]\nregion = \"eu-west-1\"\n[device]\nid = \"box\"\n[mqtt]\nhost = \"127.0.0.1\"\n{}\
         [[camera]]\nid = \"a\"\nurl = \"rtsp://192.0.2.1/x\"\n[[camera]]\nid = \"b\"\nurl = \"rtsp://192.0.2.2/x\"\n",
        if detect { "[detect]\n" } else { "" }
    );
    Config::parse(text.as_bytes(), &Environment::default()).expect("a configuration")
}

fn run_of(config: &Config) -> Run {
    let topics = Topics::new("kvs-edge", "box");
    Run {
        config: "/etc/box.toml".into(),
        device: "box".into(),
        pid: 42,
        begun: at(0),
        ended: at(60),
        measured_s: 60.0,
        asked_s: 60,
        ended_by: EndedBy::Time,
        process: Series::new(PROCESS),
        crashes: Vec::new(),
        figures: Figures::new(config, topics, at(0)),
        interruptions: 0,
        health_s: 10,
        figures_s: 20,
    }
}

impl Run {
    fn told(&mut self, topic: &str, body: &impl serde::Serialize, at_s: f64) {
        let body = serde_json::to_vec(body).expect("serialises");
        self.figures.take(&format!("kvs-edge/box/{topic}"), &body, at_s);
    }

    fn found(&self, name: &str) -> Judged {
        let judged = judge_all(&LimitArguments::default(), self);
        judged.into_iter().find(|judged| judged.criterion == name).expect("a criterion of this name")
    }
}

fn detector(written_s: i64, frames: u64, total: u64, p95: f64, errors: u64) -> Detector {
    let inference_ms = (frames > 0).then(|| Spread::new(p95 / 2.0, 4.0, p95 * 2.0, p95));
    Detector {
        ts: at(written_s),
        state: DetectorState::Running,
        window_s: 20.0,
        window: WorkerFigures {
            frames,
            detections: frames * 2,
            fps: frames as f64 / 20.0,
            errors: 0,
            inference_ms,
        },
        total: WorkerFigures { frames: total, errors, ..WorkerFigures::default() },
        ..Detector::default()
    }
}

fn stats(written_s: i64, inferred: Option<f64>, p95_ms: f64) -> Stats {
    let detect = inferred.map(|_| DetectStats {
        latency: Some(Percentiles { p50_ms: 1.0, p95_ms }),
        ..DetectStats::default()
    });
    Stats {
        v: Version::default(),
        ts: at(written_s),
        window_s: 10.0,
        fps: Fps { input: 25.0, inferred, ..Fps::default() },
        bitrate_bps: 2_000_000,
        gop_frames: None,
        gop_s: None,
        codec: None,
        size: None,
        audio_codec: None,
        transport: None,
        clock: None,
        clock_offset_ms: None,
        clock_drift_ppm: None,
        lost_packets: 0,
        dropped_frames: 0,
        reconnects_1h: 0,
        stalls_1h: 0,
        frames: None,
        latency_samples: None,
        latency: None,
        cloud: None,
        detect,
    }
}

fn upload(written_s: i64, lost: u64) -> Upload {
    Upload {
        v: Version::default(),
        ts: at(written_s),
        state: UploadState::Sending,
        since: at(0),
        stream: "a".into(),
        run: None,
        reason: None,
        detail: None,
        last_persisted: None,
        last_fragment: None,
        ack_delay_ms: None,
        backlog_s: 0.0,
        backlog_bytes: 0,
        fragments_sent: 9,
        fragments_persisted: 9,
        fragments_lost: lost,
        sessions: None,
        error_acks: None,
        gaps_24h: 0,
        gaps: Vec::new(),
        proof: None,
    }
}

/// A minute of two cameras with detection.
fn measured() -> Run {
    let mut run = run_of(&config(true));
    run.told("detector", &detector(-5, 100, 1000, 500.0, 3), 0.1); // retained
    for (number, written_s) in [(1_u32, 15), (2, 35), (3, 55)] {
        let total = 1000 + u64::from(number) * 100;
        run.told(
            "detector",
            &detector(written_s, 100, total, 10.0 * f64::from(number), 3),
            f64::from(number) * 20.0,
        );
    }
    for second in [0, 10, 20] {
        run.told("cam/a/stats", &stats(second + 6, Some(10.0), 30.0), second as f64);
        run.told("cam/b/stats", &stats(second + 6, Some(8.0 - second as f64 / 10.0), 40.0), second as f64);
        run.told("cam/a/upload", &upload(second - 5, 2), second as f64);
        run.told("cam/b/upload", &upload(second - 5, 0), second as f64);
    }
    for second in 0..60 {
        let value = f64::from(second);
        run.process.push(value, [(second > 0).then_some(40.0), Some(90.0 + value), Some(50.0)]);
    }
    run
}

#[test]
fn figures_of_the_daemon_become_criteria() {
    let mut run = measured();
    let check = |run: &Run, name: &str, found, verdict| {
        let judged = run.found(name);
        assert_eq!((judged.found, judged.verdict), (found, verdict), "{judged:?}");
    };
    check(&run, "max-crashes", Some(0.0), Verdict::Passed);
    check(&run, "min-fps", Some(7.0), Verdict::Passed);
    assert_eq!(run.found("min-fps").what, "pictures through the model, slowest camera (b, set to 5)");
    check(&run, "max-fps", Some(10.0), Verdict::Off);
    // The retained message, of before the bench, is in none of them.
    check(&run, "max-inference-p95-ms", Some(30.0), Verdict::Passed);
    check(&run, "max-latency-p95-ms", Some(40.0), Verdict::Off);
    check(&run, "max-memory-mib", Some(149.0), Verdict::Passed);
    check(&run, "max-cpu-percent", Some(40.0), Verdict::Off);
    check(&run, "max-errors", Some(0.0), Verdict::Passed);
    check(&run, "max-lost-fragments", Some(0.0), Verdict::Passed);
    let summary = run.figures.detector.summary().expect("figures");
    assert_eq!((summary.frames, summary.detections), (300, 600));
    assert_eq!(summary.inference_ms, Some(Spread::new(10.0, 4.0, 60.0, 30.0)));

    run.told("cam/a/stats", &stats(40, Some(4.96 * 4.0 - 30.0), 30.0), 40.0);
    check(&run, "min-fps", Some(5.0), Verdict::Passed); // 4.96
    // A change of state repeats the window; a new life of the daemon counts from 0.
    run.told("detector", &detector(56, 100, 1300, 300.0, 3), 56.0);
    check(&run, "max-inference-p95-ms", Some(30.0), Verdict::Passed);
    run.told("detector", &detector(58, 0, 0, 0.0, 2), 58.0);
    check(&run, "max-errors", Some(2.0), Verdict::Failed);
    run.told("cam/a/upload", &upload(59, 5), 59.0);
    check(&run, "max-lost-fragments", Some(3.0), Verdict::Failed);
    run.died(42, 59.5);
    check(&run, "max-crashes", Some(1.0), Verdict::Failed);
}

#[test]
fn a_window_of_before_the_bench_is_not_taken() {
    let mut run = run_of(&config(true));
    run.told("detector", &detector(9, 100, 100, 50.0, 0), 9.0);
    assert_eq!(run.found("max-inference-p95-ms").found, None);
    run.told("detector", &detector(10, 100, 200, 40.0, 0), 10.0);
    assert_eq!(run.found("max-inference-p95-ms").found, Some(40.0));
}

#[test]
fn without_detection_what_is_missing_is_said() {
    let mut run = run_of(&config(false));
    let judged = run.found("min-fps");
    assert_eq!(judged.verdict, Verdict::NotMeasured);
    assert_eq!(
        judged.note.as_deref(),
        Some("no figures of a came: does the daemon run with this file, and does it reach the broker?")
    );
    run.measured_s = 12.0;
    let note = run.found("min-fps").note.expect("a reason");
    assert_eq!(note, "no figures of a came: they come every 10 s, so measure for 20 s at least");
    for camera in ["cam/a/stats", "cam/b/stats"] {
        run.told(camera, &stats(10, None, 0.0), 10.0);
    }
    let judged = run.found("min-fps");
    assert_eq!((judged.verdict, judged.found), (Verdict::Passed, Some(25.0)));
    assert_eq!(judged.what, "pictures received (no detection), slowest camera (a)");
    for name in ["max-inference-p95-ms", "max-errors"] {
        let judged = run.found(name);
        assert_eq!(judged.verdict, Verdict::NotMeasured);
        assert_eq!(judged.note.as_deref(), Some("detection is off in this configuration"));
    }
    let asked = LimitArguments { max_errors: Some(Limit::At(0.0)), ..LimitArguments::default() };
    assert!(!report::passed(&judge_all(&asked, &run)));
    let machine = Machine::default();
    let judged = judge_all(&LimitArguments::default(), &run);
    let table = report::table(&run, &machine, &judged);
    assert!(
        table.contains("not measured: --max-errors: detection is off in this configuration\n"),
        "{table}"
    );
    let last = table.lines().last().expect("a verdict");
    let missing = "max-inference-p95-ms, max-memory-mib, max-errors, max-lost-fragments";
    assert_eq!(last, format!("PASSED: 2 criteria; not measured: {missing}"));
}

#[test]
fn bodies_from_outside_never_hurt() {
    let mut run = run_of(&config(true));
    for body in ["", "{", "[]", "null", r#"{"v":1,"ts":"yesterday"}"#] {
        for topic in ["detector", "health", "info", "cam/a/stats", "cam/b/upload"] {
            run.figures.take(&format!("kvs-edge/box/{topic}"), body.as_bytes(), 1.0);
        }
    }
    run.figures.take("kvs-edge/box/cam/unknown/stats", b"x", 1.0);
    assert_eq!((run.figures.messages, run.figures.unreadable), (26, 25));
    let mut odd = stats(20, Some(f64::MAX), 0.0);
    odd.window_s = -1.0;
    run.told("cam/a/stats", &odd, 1.0);
    assert_eq!(run.found("min-fps").found, None);
    let table = report::table(&run, &Machine::default(), &judge_all(&LimitArguments::default(), &run));
    assert!(
        table.contains("25 messages could not be read, the first: kvs-edge/box/detector: EOF"),
        "{table}"
    );
}

#[test]
fn table_and_report_say_what_was_found() {
    let mut run = measured();
    run.ended_by = EndedBy::Signal;
    run.measured_s = 31.5;
    run.died(42, 12.0);
    run.figures.stops.push((11.8, "SIGTERM".into()));
    run.explain_crashes();
    run.crashes[0].back = Some((15.0, 43));
    let limits = LimitArguments { max_latency_p95_ms: Some(Limit::At(39.5)), ..LimitArguments::default() };
    let judged = judge_all(&limits, &run);
    let table = report::table(&run, &Machine { cores: 2, ..Machine::default() }, &judged);
    let expected = concat!(
        "  machine    2 cores\n",
        "  daemon     kvs-edge of unknown version, device box, process 42\n",
        "  detector   no model on no backend: 300 pictures, 600 boxes, inference mean 10.0 min 4.0 max 60.0 ms\n",
        "  CPU        mean 40.0  p95 40.0  max 40.0 % of one core\n",
        "  memory     mean 119.5  p95 146.0  max 149.0 MiB\n",
        "\n",
        "criterion                                                          limit         found  verdict\n",
        "ends and restarts of the daemon                                     <= 0             1  FAIL\n",
        "pictures through the model, slowest camera (b, set to 5)        >= 5 fps       7.0 fps  pass\n",
        "pictures through the model, fastest camera (a, set to 5)               -      10.0 fps  not judged\n",
        "inference p95, worst set of figures                            <= 100 ms       30.0 ms  pass\n",
        "picture to MQTT p95, worst of b                               <= 39.5 ms       40.0 ms  FAIL\n",
        "largest resident memory                                      <= 1024 MiB     149.0 MiB  pass\n",
        "mean CPU, of one core                                                  -        40.0 %  not judged\n",
        "failed calls of the model                                           <= 0             0  pass\n",
        "fragments lost for KVS                                              <= 0             0  pass\n",
        "daemon: process 42 ended after 12.0 s (SIGTERM) and came back after 15.0 s as process 43\n",
        "FAILED: max-crashes, max-latency-p95-ms (interrupted after 31.5 s of 60 s)",
    );
    assert_eq!(table, expected, "\n{table}");
    let mut json = report::summary(&run, &Machine::default(), &judged);
    json["samples"] = report::samples(&run);
    assert_eq!((&json["passed"], &json["ended_by"]), (&false.into(), &"signal".into()));
    assert_eq!(json["samples"]["process"]["rss_mib"].as_array().map(Vec::len), Some(61));
    assert_eq!(json["samples"]["detector"]["inference_p95_ms"], serde_json::json!([10.0, 20.0, 30.0, null]));
    assert_eq!(json["samples"]["cameras"]["b"]["fps_inferred"], serde_json::json!([8.0, 7.0, 6.0, null]));
    assert_eq!(json["daemon"]["crashes"][0]["back"], serde_json::json!([15.0, 43]));
    assert_eq!(report::stamp(at(0)), "20261120T140322Z");
}

/// Every tag is closed by its own name, attributes are quoted, and text holds no bare `<` or `&`. Tags in their order.
fn well_formed(svg: &str) -> Vec<&str> {
    let (mut open, mut tags, mut rest) = (Vec::new(), Vec::new(), svg);
    while let Some((text, tail)) = rest.split_once('<') {
        assert!(
            text.replace("&lt;", "").replace("&gt;", "").replace("&amp;", "").find('&').is_none(),
            "{text}"
        );
        let (tag, tail) = tail.split_once('>').expect("the tag ends");
        rest = tail;
        if tag.starts_with(['?', '!']) {
            continue;
        }
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
            continue;
        }
        let name = tag.split([' ', '/']).next().expect("a name");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        tags.push(name);
        if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert_eq!((open.len(), rest.trim()), (0, ""));
    tags
}

#[test]
fn picture_has_four_panels_with_their_limits() {
    let mut run = measured();
    run.died(42, 30.0);
    run.device = "<b&x>\u{0}\u{7}".into();
    let svg = plot::draw(&run, &judge_all(&LimitArguments::default(), &run)).expect("a picture");
    assert_eq!(well_formed(&svg).first(), Some(&"svg"));
    for words in [
        "kvs-edge bench of &lt;b&amp;x&gt;, 2026-11-20T14:03:22.417Z: failed",
        "CPU, %",
        "resident memory, MiB   (limit: max-memory-mib 1024 MiB, far above)",
        "pictures through the model, fps",
        "limit: min-fps 5 fps",
        "time, ms",
        "inference p95",
        "b picture to MQTT p95",
        "limit: max-inference-p95-ms 100 ms",
        "the daemon ended",
    ] {
        assert!(svg.contains(words), "{words} is not in\n{svg}");
    }
    // Curves: machine and daemon, memory, two cameras, inference and two latencies.
    let wide = |line: &&str| line.starts_with("<polyline") && line.contains("stroke-width=\"2\"");
    assert_eq!(svg.lines().filter(wide).count(), 2 * 8, "each with its line in the legend");
    assert!(!svg.contains("NaN") && !svg.contains("inf\""), "{svg}");
}

#[test]
fn an_empty_run_can_be_drawn() {
    let mut run = run_of(&config(false));
    run.measured_s = 0.0;
    let svg = plot::draw(&run, &judge_all(&LimitArguments::default(), &run)).expect("a picture");
    well_formed(&svg);
    assert_eq!(svg.matches("(nothing measured)").count(), 4);
}

fn arguments(config: &Path, out: &Path) -> BenchArguments {
    BenchArguments {
        config: config.to_owned(),
        duration: 1,
        pid: None,
        out: out.to_owned(),
        interval_s: 1.0,
        client_id: None,
        json: false,
        limits: LimitArguments::default(),
    }
}

/// A folder with a configuration file and a /proc in which a daemon runs with it.
fn box_with(mqtt: &str) -> (tempfile::TempDir, BenchArguments) {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("box.toml");
    let text = format!(
        "[aws]\nregion = \"eu-west-1\"\n[device]\nid = \"box\"\n{mqtt}\n\
         [[camera]]\nid = \"a\"\nurl = \"rtsp://192.0.2.1/x\"\n"
    );
    std::fs::write(&config, text).expect("a file");
    let process = folder.path().join("7");
    std::fs::create_dir(&process).expect("a folder");
    std::fs::write(process.join("cmdline"), format!("kvs-edge\0run\0--config\0{}\0", config.display()))
        .expect("a file");
    std::fs::write(process.join("stat"), "7 (kvs-edge) S 1 1 1 0 0 0 0 0 0 0 1 1 0 0 20 0 1 0 5 1 1")
        .expect("a file");
    let arguments = arguments(&config, &folder.path().join("out"));
    (folder, arguments)
}

async fn refusal(mqtt: &str, change: impl FnOnce(&mut BenchArguments)) -> String {
    let (folder, mut arguments) = box_with(mqtt);
    change(&mut arguments);
    bench(&arguments, folder.path(), &Clock::system()).await.expect_err("it refuses").to_string()
}

#[tokio::test]
async fn what_stands_in_the_way_is_said_before_the_bench() {
    let text = refusal("", |_| {}).await;
    assert!(text.contains("box.toml: no [mqtt] section") && text.contains("add [mqtt]"), "{text}");
    let mqtt = "[mqtt]\nhost = \"127.0.0.1\"";
    let text = refusal(mqtt, |arguments| arguments.client_id = Some("kvs-edge-box".into())).await;
    assert!(text.starts_with("--client-id is the daemon's own (kvs-edge-box)"), "{text}");
    let text = refusal(mqtt, |arguments| arguments.pid = Some(9)).await;
    assert!(text.starts_with("no process 9;"), "{text}");
    let text = refusal(mqtt, |arguments| arguments.out = "/proc/nowhere".into()).await;
    assert!(text.starts_with("/proc/nowhere cannot be written: "), "{text}");
    // A port that nobody listens on.
    let port = {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        socket.local_addr().expect("an address").port()
    };
    let text = refusal(&format!("{mqtt}\nport = {port}"), |_| {}).await;
    assert!(text.starts_with(&format!("no connection to the broker 127.0.0.1:{port}: ")), "{text}");
}

/// Answers every CONNECT with `answer`.
async fn broker(answer: &'static [u8]) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut connect = [0; 512];
            let _ = socket.read(&mut connect).await;
            let _ = socket.write_all(answer).await;
            // Until the client has read it and hangs up.
            let _ = socket.read(&mut connect).await;
        }
    });
    port
}

#[tokio::test]
async fn a_broker_that_refuses_is_quoted_with_what_to_change() {
    // CONNACK of MQTT 5, section 3.2: bad user name or password.
    let port = broker(&[0x20, 3, 0, 0x86, 0]).await;
    let text = refusal(&format!("[mqtt]\nhost = \"127.0.0.1\"\nport = {port}"), |_| {}).await;
    let client_id = format!("kvs-edge-box-bench-{}", std::process::id());
    let expected = format!("the broker 127.0.0.1:{port} refuses this reader (client id {client_id}): ");
    assert!(text.starts_with(&expected), "{text}");
    assert!(
        text.ends_with("check mqtt.username and mqtt.password_file against the users of the broker"),
        "{text}"
    );
}

/// A real broker, a real subscription, and a process that ends.
#[tokio::test]
async fn a_daemon_that_ends_fails_the_bench() {
    let broker = demo::broker::Broker::start().expect("a broker");
    let mqtt = format!("[mqtt]\nhost = \"127.0.0.1\"\nport = {}", broker.address().port());
    let (folder, mut arguments) = box_with(&mqtt);
    // The broker's thread may not listen yet.
    while tokio::net::TcpStream::connect(broker.address()).await.is_err() {
        tokio::task::yield_now().await;
    }
    arguments.interval_s = 0.1;
    std::fs::remove_file(folder.path().join("7/stat")).expect("it ends");
    let error = bench(&arguments, folder.path(), &Clock::system()).await.expect_err("no daemon").to_string();
    assert!(error.starts_with("no process `kvs-edge run"), "{error}");
    std::fs::write(folder.path().join("7/stat"), "7 (kvs-edge) S 1 1 1 0 0 0 0 0 0 0 1 1 0 0 20 0 1 0 5 1 1")
        .expect("a file");
    let daemon = process::find(folder.path(), &arguments.config).expect("a daemon");
    let config = Config::load(&arguments.config).expect("a configuration");
    let topics = Topics::new("kvs-edge", "box");
    let mut mqtt = config.mqtt.clone().expect("a broker");
    mqtt.client_id.push_str("-bench");
    let listener = Listener::connect(mqtt, Figures::filters(&topics)).await.expect("a subscription");
    std::fs::remove_file(folder.path().join("7/stat")).expect("it ends");
    let run = measure(&arguments, folder.path(), &Clock::system(), &config, daemon, topics, listener)
        .await
        .expect("a run");
    assert_eq!((run.crashes.len(), run.ended_by), (1, EndedBy::Time));
    assert_eq!(run.found("max-crashes").verdict, Verdict::Failed);
}
