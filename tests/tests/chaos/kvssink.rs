//! `cargo xtask chaos --kvssink PATH`: AWS's own producer beside ours, on the same camera, cloud and link. What does each keep of
//! an outage? The plug-in is built elsewhere, and `KVSSINK` names it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clock::Clock;
use kvs_edge_tests::{Camera, Link, Process, Rig, Weather, program, within};
use kvs_local::Credentials;
use messages::{Upload, UploadState};

const OURS: &str = "door";
const THEIRS: &str = "kvssink";
/// A fragment, and what is on its way.
const LIVE_MS: u64 = 8_000;
/// How long a producer may take to be live again; then what is stored by then counts.
const PATIENCE: Duration = Duration::from_secs(180);

/// An outage, and whether both producers are killed in the middle of it.
const SCENARIOS: [(&str, u64, bool); 3] = [
    ("link away for 10 s", 10, false),
    ("link away for 200 s", 200, false),
    ("both killed in the middle of an outage of 60 s", 60, true),
];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "with a plug-in that is built elsewhere: cargo xtask chaos --kvssink PATH"]
async fn what_is_kept_of_an_outage_beside_kvssink() {
    let Some(plugin) = std::env::var_os("KVSSINK").map(PathBuf::from) else { return };
    assert!(plugin.is_file(), "KVSSINK is {}, expected the file libgstkvssink.so", plugin.display());
    let Some(gst_launch) = program("gst-launch-1.0", "gstreamer1.0-tools") else { return };
    let link = Link::bind().await;
    let camera = Camera::new(OURS).clip(|clip| {
        (clip.width, clip.height, clip.fps, clip.gop) = (1280, 720, 25, 50);
        (clip.bitrate_kbps, clip.loop_seconds) = (4000, 20);
    });
    let builder = Rig::builder()
        .set("spool.folder", "\"spool\"")
        .set("aws.endpoint", &format!("{:?}", link.endpoint()))
        .set("upload.fragment_ms", "2000")
        .kvs_process(&["--data-endpoint", link.endpoint()])
        .camera(camera)
        .without_daemon();
    let Some(mut rig) = builder.start().await else { return };
    link.lead_to(&rig.kvs.endpoint());
    rig.start_daemon().await;
    let url = rig.sim(OURS).expect("simulated").url(0);
    let mut theirs = Theirs { gst_launch, plugin, url, endpoint: link.endpoint().to_owned(), process: None };
    let clock = Clock::system();
    for (name, outage_s, killed) in SCENARIOS {
        let both_live = async {
            while !(is_live(&rig, OURS, &clock).await && is_live(&rig, THEIRS, &clock).await) {
                theirs.keep_running();
                clock.sleep(Duration::from_secs(1)).await;
            }
        };
        within("both producers live", both_live).await;
        let from_ms = clock.wall_ms();
        link.set(Weather::Cut);
        for second in 0..outage_s {
            if killed && second == outage_s / 2 {
                rig.daemon().signal("KILL");
                rig.daemon().ended().await;
                theirs.kill().await;
                rig.spawn_daemon();
            }
            theirs.keep_running();
            clock.sleep(Duration::from_secs(1)).await;
        }
        let (to_ms, mark) = (clock.wall_ms(), rig.mqtt.mark());
        link.set(Weather::Fair);
        let drained = |upload: &Upload| {
            let newest_ms = upload.last_persisted.map_or(0, messages::UtcTime::as_millis);
            upload.state == UploadState::Sending && upload.backlog_s < 5.0 && newest_ms > to_ms
        };
        let (mut mark, topic) = (mark, rig.mqtt.topics.upload(OURS));
        // However long it takes, it says each second where it is.
        while !drained(&rig.mqtt.wait_after::<Upload>(mark, &topic, |_| true).await) {
            mark = rig.mqtt.mark();
        }
        let healed = clock.now();
        while !is_live(&rig, THEIRS, &clock).await && clock.since(healed) < PATIENCE {
            theirs.keep_running();
            clock.sleep(Duration::from_secs(1)).await;
        }
        let (ours, kvssink) =
            (kept(&rig, OURS, from_ms, to_ms).await, kept(&rig, THEIRS, from_ms, to_ms).await);
        println!(
            "kvssink: {name}: of {} s kvssink keeps {kvssink:.1} s, kvs-edge {ours:.1} s",
            (to_ms - from_ms) / 1000
        );
    }
    rig.stop().await;
}

/// The newest footage in the store is not older than what is being recorded.
async fn is_live(rig: &Rig, stream: &str, clock: &Clock) -> bool {
    let since_ms = clock.wall_ms().saturating_sub(3_600_000);
    let newest_ms = rig.kvs.newest_ms(stream, since_ms).await;
    newest_ms.is_some_and(|newest_ms| clock.wall_ms().saturating_sub(newest_ms) < LIVE_MS)
}

/// Seconds of this stretch that are stored.
async fn kept(rig: &Rig, stream: &str, from_ms: u64, to_ms: u64) -> f64 {
    let stored = rig.kvs.stretches(stream, from_ms.saturating_sub(60_000)).await.unwrap_or_default();
    let (mut kept_ms, mut to_here_ms) = (0, from_ms);
    for (start_ms, end_ms) in stored {
        let (start_ms, end_ms) = (start_ms.max(to_here_ms), end_ms.min(to_ms));
        kept_ms += end_ms.saturating_sub(start_ms);
        to_here_ms = to_here_ms.max(end_ms);
    }
    Duration::from_millis(kept_ms).as_secs_f64()
}

/// kvssink with its defaults behind rtspsrc, begun again whenever it has ended, as a service manager does.
struct Theirs {
    gst_launch: PathBuf,
    plugin: PathBuf,
    url: String,
    endpoint: String,
    process: Option<Process>,
}

impl Theirs {
    fn keep_running(&mut self) {
        if self.process.as_ref().is_some_and(Process::is_running) {
            return;
        }
        let keys = Credentials::local();
        let mut command = Command::new(&self.gst_launch);
        command.args(["-q", "rtspsrc", "protocols=tcp"]).arg(format!("location={}", self.url));
        command.args("! rtph264depay ! h264parse ! video/x-h264,stream-format=avc,alignment=au".split(' '));
        command.args(["!", "kvssink"]).arg(format!("stream-name={THEIRS}")).arg("aws-region=us-west-2");
        command.env("GST_PLUGIN_PATH", self.plugin.parent().unwrap_or(Path::new(".")));
        command.env("CONTROL_PLANE_URI", &self.endpoint);
        command.env("AWS_ACCESS_KEY_ID", keys.access_key).env("AWS_SECRET_ACCESS_KEY", keys.secret_key);
        command.env_remove("AWS_SESSION_TOKEN");
        self.process = Some(Process::spawn("kvssink", &mut command));
    }

    async fn kill(&self) {
        if let Some(process) = &self.process {
            process.signal("KILL");
            process.ended().await;
        }
    }
}
