//! `cargo xtask chaos --outage M`: four cameras at 4 Mbit/s, M minutes without a network, and how the backlog drains.

use std::collections::BTreeMap;
use std::time::Duration;

use clock::Clock;
use kvs_edge_tests::{Camera, Link, Process, Rig, Weather, within};
use messages::{Upload, UploadState};

use crate::number;

const CAMERAS: [&str; 4] = ["north", "east", "south", "west"];
/// A fragment, and what is on its way.
const LIVE_S: f64 = 5.0;
const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "as long as it is asked to: cargo xtask chaos --outage MINUTES"]
async fn a_long_outage_drains_from_disk_beside_live() {
    let Some(minutes) = number("OUTAGE") else { return };
    let clock = Clock::system();
    let link = Link::bind().await;
    let mut builder = Rig::builder()
        .set("spool.folder", "\"spool\"")
        .set("aws.endpoint", &format!("{:?}", link.endpoint()))
        .set("upload.fragment_ms", "2000")
        .set("verify.mode", "\"sampled\"")
        .kvs_process(&["--data-endpoint", link.endpoint(), "--service-limits"])
        .without_daemon();
    for (name, seed) in CAMERAS.into_iter().zip(0..) {
        builder = builder.camera(Camera::new(name).clip(|clip| {
            (clip.width, clip.height, clip.fps, clip.gop) = (1280, 720, 25, 50);
            (clip.bitrate_kbps, clip.loop_seconds, clip.seed) = (4000, 20, seed);
        }));
    }
    let Some(mut rig) = builder.start().await else { return };
    link.lead_to(&rig.kvs.endpoint());
    rig.start_daemon().await;
    for name in CAMERAS {
        let flows = |upload: &Upload| upload.fragments_persisted > 5;
        let _: Upload = rig.mqtt.wait(&rig.mqtt.topics.upload(name), flows).await;
    }
    let before = Look::at(rig.daemon());
    let mark = rig.mqtt.mark();
    clock.sleep(Duration::from_secs(30)).await;
    let live = backlogs(&rig, mark);
    link.set(Weather::Cut);
    clock.sleep(Duration::from_secs(minutes * 60)).await;
    let away = Look::at(rig.daemon());
    let waiting: Vec<Upload> =
        CAMERAS.map(|name| rig.mqtt.last::<Upload>(&rig.mqtt.topics.upload(name))).into();
    let mark = rig.mqtt.mark();
    let healed = clock.now();
    link.set(Weather::Fair);
    let drained = CAMERAS.map(|name| {
        let rig = &rig;
        let clock = &clock;
        async move {
            let topic = rig.mqtt.topics.upload(name);
            let newer = |upload: &Upload| upload.state == UploadState::Sending;
            let _: Upload = within("a session", rig.mqtt.wait_after(mark, &topic, newer)).await;
            let connected = clock.since(healed);
            let done = |upload: &Upload| upload.state == UploadState::Sending && upload.backlog_s < LIVE_S;
            loop {
                let mark = rig.mqtt.mark();
                let any: Upload = rig.mqtt.wait_after(mark, &topic, |_| true).await;
                if done(&any) {
                    return (connected, clock.since(healed));
                }
            }
        }
    });
    let [a, b, c, d] = drained;
    let all = async { tokio::join!(a, b, c, d) };
    let ages = Ages { rig: &rig, clock: &clock, healed };
    let ((a, b, c, d), aged) = tokio::join!(all, ages.until_live());
    let behind = Look::at(rig.daemon());
    let mark = rig.mqtt.mark();
    clock.sleep(Duration::from_secs(20)).await;
    let live_again = backlogs(&rig, mark);
    for ((name, (connected, done)), waited) in CAMERAS.into_iter().zip([a, b, c, d]).zip(&waiting) {
        let draining = (done - connected).as_secs_f64();
        println!(
            "outage: {name}: {:.0} s ({} MiB) waited; connected after {:.1} s, drained in {draining:.1} s more: {:.1} times real \
             time, live included",
            waited.backlog_s,
            waited.backlog_bytes / MIB,
            connected.as_secs_f64(),
            (waited.backlog_s + done.as_secs_f64()) / draining,
        );
    }
    let worst = |all: &BTreeMap<&str, f64>| all.values().copied().fold(0.0, f64::max);
    println!(
        "outage: not yet persisted, live, worst camera: {:.1} s before, {:.1} s after",
        worst(&live),
        worst(&live_again)
    );
    let told = aged.iter().step_by(5).chain(aged.last());
    let told: Vec<_> = told.map(|(after_s, age_s)| format!("{age_s:.0} s at {after_s} s")).collect();
    println!(
        "outage: age of the newest stored footage, worst camera, since the network is back: {}",
        told.join(", ")
    );
    println!(
        "outage: memory {} MiB before, {} MiB at the end of the outage, {} MiB after, {} MiB at most",
        before.resident / 1024,
        away.resident / 1024,
        behind.resident / 1024,
        behind.most / 1024
    );
    let camera_hours = away.at.duration_since(before.at).as_secs_f64() / 3600.0 * 4.0;
    println!(
        "outage: per camera and hour: {:.1} s of processor for the spool, {:.1} for all; {:.0} MiB written by write(2), {:.0} MiB to \
         the disk",
        (away.spool_ticks - before.spool_ticks) as f64 / 100.0 / camera_hours,
        (away.ticks - before.ticks) as f64 / 100.0 / camera_hours,
        (away.written - before.written) as f64 / MIB as f64 / camera_hours,
        (away.to_disk - before.to_disk) as f64 / MIB as f64 / camera_hours,
    );
    rig.stop().await;
    let mut payload = 0;
    for name in CAMERAS {
        let stored = rig.kvs.stored(name).await;
        let mut names: Vec<_> =
            stored.iter().map(|one| one.chunk.identity().expect("it carries its tag").id.sequence).collect();
        payload += stored.iter().flat_map(|one| &one.blocks).map(|block| block.payload.len()).sum::<usize>();
        names.sort_unstable();
        let whole: Vec<u64> = (1..=names.len() as u64).collect();
        assert_eq!(names, whole, "{name}: each once, none missing");
        let last: Upload = rig.mqtt.last(&rig.mqtt.topics.upload(name));
        assert_eq!((last.fragments_lost, last.backlog_bytes), (0, 0), "{name}: {last:#?}");
    }
    println!("outage: {} MiB of pictures stored, each fragment once", payload as u64 / MIB);
}

/// How old the newest footage in the store is, while the backlog drains.
struct Ages<'a> {
    rig: &'a Rig,
    clock: &'a Clock,
    healed: std::time::Instant,
}

impl Ages<'_> {
    /// Of the worst camera, each with the seconds since the network is back, until it is as young as live footage is.
    async fn until_live(&self) -> Vec<(u64, f64)> {
        let mut ages = Vec::new();
        let mut newest = [self.clock.wall_ms().saturating_sub(24 * 3_600_000); CAMERAS.len()];
        loop {
            for (name, newest) in CAMERAS.into_iter().zip(&mut newest) {
                // Of an answer that does not come the last one counts.
                *newest = self.rig.kvs.newest_ms(name, *newest).await.unwrap_or(*newest);
            }
            let oldest = newest.into_iter().min().unwrap_or(0);
            let age_s = Duration::from_millis(self.clock.wall_ms().saturating_sub(oldest)).as_secs_f64();
            ages.push((self.clock.since(self.healed).as_secs(), age_s));
            if age_s < LIVE_S {
                return ages;
            }
            self.clock.sleep(Duration::from_secs(2)).await;
        }
    }
}

/// The greatest backlog that each camera told since `mark`.
fn backlogs(rig: &Rig, mark: usize) -> BTreeMap<&'static str, f64> {
    let told = rig.mqtt.all();
    CAMERAS
        .into_iter()
        .map(|name| {
            let topic = rig.mqtt.topics.upload(name);
            let bodies = told[mark..].iter().filter(|message| message.topic == topic);
            let uploads = bodies.filter_map(|message| serde_json::from_slice::<Upload>(&message.body).ok());
            (name, uploads.map(|upload| upload.backlog_s).fold(0.0, f64::max))
        })
        .collect()
}

/// What the kernel says of a process.
struct Look {
    at: std::time::Instant,
    /// KiB.
    resident: u64,
    most: u64,
    /// Hundredths of a second.
    ticks: u64,
    spool_ticks: u64,
    written: u64,
    to_disk: u64,
}

impl Look {
    fn at(process: &Process) -> Look {
        let folder = format!("/proc/{}", process.pid());
        let read =
            |path: String| std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let field = |text: &str, name: &str| -> u64 {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
        };
        let (status, io) = (read(format!("{folder}/status")), read(format!("{folder}/io")));
        let threads = std::fs::read_dir(format!("{folder}/task")).expect("its threads");
        let spool = threads.flatten().map(|entry| entry.path().display().to_string()).find(|thread| {
            std::fs::read_to_string(format!("{thread}/comm")).is_ok_and(|name| name.trim() == "spool")
        });
        Look {
            at: Clock::system().now(),
            resident: field(&status, "VmRSS:"),
            most: field(&status, "VmHWM:"),
            ticks: ticks(&read(format!("{folder}/stat"))),
            spool_ticks: spool.map_or(0, |thread| ticks(&read(format!("{thread}/stat")))),
            written: field(&io, "wchar:"),
            to_disk: field(&io, "write_bytes:"),
        }
    }
}

/// User and system time of `/proc/PID/stat`: the 14th and 15th field, counted behind the name in brackets.
fn ticks(stat: &str) -> u64 {
    let behind = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
    behind.split_whitespace().skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum()
}
