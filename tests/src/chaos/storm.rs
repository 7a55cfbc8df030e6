//! Does to the box what a schedule says, and keeps what has to be known afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use camera_sim::{Audio, Fault as CameraFault, SentPicture};
use clock::Clock;
use kvs::ack::{AckError, Reaction};
use kvs_local::{Fault, FaultKind};
use messages::{Upload, UploadState, Verify};
use serde_json::Value;

use super::schedule::{Action, CAMERAS, Moment, Random, Schedule};
use crate::link::{Link, Weather};
use crate::process::{Process, binary, program, skip};
use crate::rig::{Camera, Rig};

/// Where Debian has it.
const FAKETIME: &str = "/usr/lib/*/faketime/libfaketime.so.1";
/// Lives after the storm until all that waits on disk is in KVS: the first one may still have to wait for an operator.
const LIVES_TO_SETTLE: u32 = 5;

/// What is being recorded, and on its way.
const LIVE_S: f64 = 3.0;

/// A box in a storm.
pub struct Storm {
    pub(super) rig: Rig,
    link: Link,
    clock: Clock,
    clock_file: PathBuf,
    /// A file in it makes a stage panic, which removes it.
    panics: PathBuf,
    seed: u64,
    pub(super) notes: Notes,
}

/// What is known of the past of the storm.
#[derive(Default)]
pub(super) struct Notes {
    /// Everything that each camera sent, in order.
    pub(super) sent: BTreeMap<&'static str, Vec<SentPicture>>,
    /// Sessions of each camera in which packets were lost or the stream jumped: their GOPs need not be whole.
    pub(super) disturbed: BTreeSet<(&'static str, u64)>,
    /// By camera: refusals for good, and refusals of the tag.
    pub(super) refused: BTreeMap<&'static str, usize>,
    pub(super) untagged: BTreeMap<&'static str, usize>,
    /// By camera: panics of the upload, each of which costs the fragment that grows.
    pub(super) crashed: BTreeMap<&'static str, usize>,
    pub(super) panics: usize,
    /// The end of the newest fragment on disk at each kill, by camera.
    pub(super) on_disk: Vec<(&'static str, u64)>,
    pub(super) kills: u64,
    pub(super) cuts: u64,
    /// From the start of a process, or the end of a cut, to the first fragment that KVS has persisted since.
    pub(super) recoveries: Vec<Duration>,
    disk_refuses: bool,
    pub(super) records: Records,
}

/// What `kvs-edge proof` says in the end.
#[derive(Default)]
pub(super) struct Records {
    /// As `proof export --format json` writes them.
    pub(super) minutes: Vec<Value>,
    /// What `proof check` found, given all heads that were told over MQTT.
    pub(super) faults: Vec<String>,
}

impl Storm {
    /// `None`, and a word to stderr, where Mosquitto or libfaketime is not installed.
    pub async fn start(seed: u64) -> Option<Storm> {
        eprintln!("chaos: seed {seed}; cargo xtask chaos --seed {seed} does the same again");
        let faketime = faketime()?;
        program("prlimit", "util-linux")?;
        let link = Link::bind().await;
        let quoted = |text: &str| format!("{text:?}");
        let mut builder = Rig::builder()
            .set("spool.folder", "\"spool\"")
            .set("aws.endpoint", &quoted(link.endpoint()))
            // A connection that froze is noticed by these alone.
            .set("upload.ack_timeout_s", "5")
            .set("upload.write_timeout_s", "5")
            .set("upload.stop_grace_s", "5")
            .kvs_process(&["--data-endpoint", link.endpoint()])
            .through_a_shell("trap '' XFSZ; exec \"$0\" \"$@\"")
            .env("LD_PRELOAD", &faketime.display().to_string())
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1")
            .env("FAKETIME_CACHE_DURATION", "1")
            .without_daemon();
        for name in CAMERAS {
            let camera = Camera::new(name);
            builder = builder.camera(match name {
                "gate" => camera.h265(),
                "yard" => camera.clip(|clip| clip.audio = Audio::Aac),
                _ => camera,
            });
        }
        let mut rig = builder.start().await?;
        link.lead_to(&rig.kvs.endpoint());
        let clock_file = rig.folder().join("clock");
        rig.in_daemons_environment("FAKETIME_TIMESTAMP_FILE", clock_file.as_os_str());
        let panics = rig.folder().join("panics");
        std::fs::create_dir(&panics).expect("the rig's folder can be written to");
        rig.in_daemons_environment("KVS_EDGE_PANICS", panics.as_os_str());
        if std::env::var_os("KVS_EDGE_CHAOS_LOG").is_some() {
            rig.in_daemons_environment("RUST_LOG", "info,kvs_edge=debug");
        }
        let (clock, notes) = (Clock::system(), Notes::default());
        let mut storm = Storm { rig, link, clock, clock_file, panics, seed, notes };
        // So that the other clip of a camera is there when it is asked for.
        for name in CAMERAS {
            let sim = storm.rig.sim(name).expect("simulated");
            sim.preload(&sim.clip(0).spec().switched()).await.expect("it can be made");
        }
        storm.set_clock(0);
        storm.rig.start_daemon().await;
        Some(storm)
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Everything of the schedule, at its times.
    pub async fn suffer(&mut self, schedule: &Schedule) {
        let begun = self.clock.now();
        for Moment { at_ms, action } in &schedule.moments {
            // The weather lasts as long as it lasts; nothing is concluded from it.
            self.clock.sleep_until(begun + Duration::from_millis(*at_ms)).await;
            eprintln!("chaos: {:>6} ms: {action:?}", self.clock.since(begun).as_millis());
            self.act(action).await;
            self.listen_to_cameras();
        }
    }

    async fn act(&mut self, action: &Action) {
        match action {
            Action::KillDaemon => self.kill_daemon().await,
            Action::StopDaemon => {
                if self.is_up() {
                    self.rig.daemon().signal("TERM");
                    self.rig.daemon().ended().await;
                    self.keep_log();
                }
            }
            Action::StartDaemon => {
                if !self.is_up() {
                    self.spawn_daemon();
                }
            }
            Action::KillCloud => {
                if self.rig.kvs.process().process.is_running() {
                    self.rig.kvs.process().kill().await;
                }
            }
            Action::StartCloud => {
                if !self.rig.kvs.process().process.is_running() {
                    self.rig.kvs.process().start_again().await;
                }
            }
            Action::Weather(weather) => {
                self.notes.cuts += u64::from(*weather == Weather::Cut);
                self.link.set(*weather);
            }
            Action::Freeze => self.link.freeze(),
            Action::Camera(camera, fault) => self.disturb(camera, *fault),
            Action::Clock { offset_s } => self.set_clock(*offset_s),
            Action::DiskRefuses(refuses) => {
                self.notes.disk_refuses = *refuses;
                self.limit_disk();
            }
            Action::Cloud(camera, kind) => self.inject(camera, kind).await,
            Action::EndFaults => {
                if self.rig.kvs.process().process.is_running() {
                    self.rig.kvs.process().admin("DELETE", "faults", &Value::Null).await;
                }
            }
            Action::Panic(camera, stage) => self.panic(camera, stage),
            Action::BrokerAway => self.rig.broker.stop().await,
            Action::BrokerBack => {
                if !self.rig.broker.process.is_running() {
                    let folder = self.rig.folder().to_owned();
                    self.rig.broker.start_again(&folder).await;
                }
            }
        }
    }

    fn is_up(&self) -> bool {
        self.rig.daemon.as_ref().is_some_and(Process::is_running)
    }

    fn spawn_daemon(&mut self) {
        self.rig.spawn_daemon();
        self.limit_disk();
    }

    /// kill -9, and a look at what it leaves on disk.
    async fn kill_daemon(&mut self) {
        if !self.is_up() {
            return;
        }
        self.rig.daemon().signal("KILL");
        self.rig.daemon().ended().await;
        self.keep_log();
        self.notes.kills += 1;
        for camera in self.spool().await {
            let name = CAMERAS.iter().find(|name| camera["camera"] == **name);
            let end = camera["to"].as_str().and_then(messages_time);
            if let (Some(name), Some(end)) = (name, end) {
                self.notes.on_disk.push((name, end));
            }
        }
    }

    /// What the box said in a life goes to the file that `KVS_EDGE_CHAOS_LOG` names, for whoever looks for a cause.
    fn keep_log(&self) {
        use std::io::Write as _;
        let Some(path) = std::env::var_os("KVS_EDGE_CHAOS_LOG") else { return };
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        let text = format!("---- a life ends\n{}\n", self.rig.daemon().output().join("\n"));
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// What `kvs-edge spool check` says of each camera.
    async fn spool(&self) -> Vec<Value> {
        // What a kill tore off is told, and no mistake.
        let said = self.ask(&["spool", "check", "--json"]).await;
        assert_eq!(said["in_use"], Value::Bool(false), "{said:#}");
        said["cameras"].as_array().cloned().unwrap_or_default()
    }

    /// What a command of `kvs-edge` answers in JSON.
    async fn ask(&self, arguments: &[&str]) -> Value {
        let mut command = Command::new(binary("kvs-edge"));
        command.args(arguments).arg("--config").arg(self.rig.config_file());
        let process = Process::spawn("kvs-edge", &mut command);
        process.ended().await;
        serde_json::from_str(&process.stdout().join("\n"))
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {:#?}", process.output()))
    }

    /// What is written down of each minute, and whether that is as it was told.
    pub async fn read_records(&mut self) {
        let mut heads = BTreeSet::new();
        for name in CAMERAS {
            let told: Vec<Verify> = self.rig.mqtt.bodies(&self.rig.mqtt.topics.verify(name));
            let told = told.into_iter().filter_map(|verify| verify.proof);
            heads.extend(told.map(|proof| format!("{name}={}", proof.head)));
        }
        let mut check = vec!["proof", "check", "--json"];
        heads.iter().for_each(|head| check.extend(["--head", head]));
        let said = self.ask(&check).await;
        let chains = said["chains"].as_array().cloned().unwrap_or_default();
        let faults = chains.iter().flat_map(|chain| chain["faults"].as_array().into_iter().flatten());
        self.notes.records.faults = faults.map(ToString::to_string).collect();
        let from = ["proof", "export", "--format", "json", "--from", "2020-01-01T00:00:00Z"];
        let minutes = self.ask(&from).await;
        self.notes.records.minutes = minutes.as_array().cloned().unwrap_or_default();
    }

    fn limit_disk(&self) {
        if !self.is_up() {
            return;
        }
        let limit = if self.notes.disk_refuses { "--fsize=0:" } else { "--fsize=unlimited:" };
        let pid = self.rig.daemon().pid().to_string();
        // Of a process that ends just now nothing has to be limited.
        let _ = Command::new("prlimit").args(["--pid", &pid, limit]).output();
    }

    fn set_clock(&self, offset_s: i64) {
        let new = self.clock_file.with_extension("new");
        // Never half written when it is read.
        std::fs::write(&new, format!("{offset_s:+}\n"))
            .and_then(|()| std::fs::rename(&new, &self.clock_file))
            .expect("the rig's folder can be written to");
    }

    fn disturb(&mut self, camera: &'static str, fault: CameraFault) {
        let sim = self.rig.sim(camera).expect("simulated");
        let shakes = matches!(
            fault,
            CameraFault::DropPackets(_)
                | CameraFault::NewSource
                | CameraFault::TimestampJumpMs(_)
                | CameraFault::SequenceJump(_)
                | CameraFault::SwitchParameters
        );
        if shakes {
            // The one that plays, one that the box has left and that plays on, and one that is about to begin.
            let newest = sim.stats(0).sessions;
            self.notes.disturbed.extend((newest.saturating_sub(2)..=newest + 1).map(|at| (camera, at)));
        }
        sim.faults(0).inject(fault);
    }

    fn panic(&mut self, camera: &'static str, stage: &str) {
        let file = self.panics.join(format!("{stage}.{camera}"));
        // One that it has not come by yet is one.
        if !file.exists() {
            std::fs::write(&file, "").expect("the rig's folder can be written to");
            self.notes.panics += 1;
            *self.notes.crashed.entry(camera).or_default() += usize::from(stage == "upload");
        }
    }

    /// Until every stage that was to panic has.
    async fn panicked(&self) {
        let left = || {
            let files = std::fs::read_dir(&self.panics).expect("a folder");
            files.flatten().map(|entry| entry.file_name()).collect::<Vec<_>>()
        };
        let gone = async {
            while !left().is_empty() {
                self.pass(50).await;
            }
        };
        if tokio::time::timeout(crate::DEADLINE, gone).await.is_err() {
            panic!("seed {}: these did not panic: {:?}", self.seed, left());
        }
    }

    async fn inject(&mut self, camera: &'static str, kind: &FaultKind) {
        if !self.rig.kvs.process().process.is_running() {
            return;
        }
        if let FaultKind::AckError { id, .. } = kind {
            let account = match AckError::from_id(*id).reaction() {
                Reaction::Skip | Reaction::ResendWithoutSilentTracks => Some(&mut self.notes.refused),
                Reaction::ResendWithoutTags => Some(&mut self.notes.untagged),
                Reaction::Resend | Reaction::Rotate | Reaction::Stop => None,
            };
            if let Some(account) = account {
                *account.entry(camera).or_default() += 1;
            }
        }
        let fault = serde_json::to_value(Fault::on(camera, kind.clone())).expect("it has a JSON form");
        self.rig.kvs.process().admin("POST", "faults", &fault).await;
    }

    /// Keeps what the cameras sent since this was asked last: they remember only the newest.
    pub(super) fn listen_to_cameras(&mut self) {
        for name in CAMERAS {
            let stats = self.rig.sim(name).expect("simulated").stats(0);
            let kept = self.notes.sent.entry(name).or_default();
            let new = usize::try_from(stats.pictures).expect("it fits") - kept.len();
            assert!(new <= stats.sent.len(), "{name}: the camera forgot pictures that nobody noted");
            kept.extend(stats.sent.iter().skip(stats.sent.len() - new));
        }
    }

    /// `count` kills -9, each at a moment of its own, some in an outage and some right behind the start.
    pub async fn kills(&mut self, count: u64, seed: u64) {
        let mut random = Random::new(seed);
        let mut mark = 0;
        let mut begun = self.clock.now();
        for kill in 1..=count {
            match random.below(4) {
                0 => self.pass(random.below(900)).await,
                1 => {
                    self.pass(random.below(900)).await;
                    self.link.set(Weather::Cut);
                    self.pass(random.below(2_500)).await;
                }
                _ => {
                    self.recovered(mark, begun).await;
                    self.pass(random.below(1_600)).await;
                }
            }
            self.kill_daemon().await;
            self.link.set(Weather::Fair);
            self.listen_to_cameras();
            mark = self.rig.mqtt.mark();
            begun = self.clock.now();
            self.spawn_daemon();
            progress("kills", kill, count);
        }
        self.recovered(mark, begun).await;
    }

    /// `count` cuts of the link, each at a moment of its own.
    pub async fn cuts(&mut self, count: u64, seed: u64) {
        let mut random = Random::new(seed);
        for cut in 1..=count {
            self.pass(random.below(1_500)).await;
            self.act(&Action::Weather(Weather::Cut)).await;
            self.pass(random.below(3_000)).await;
            let (mark, begun) = (self.rig.mqtt.mark(), self.clock.now());
            self.link.set(Weather::Fair);
            self.listen_to_cameras();
            self.recovered(mark, begun).await;
            progress("cuts", cut, count);
        }
    }

    async fn pass(&self, ms: u64) {
        self.clock.sleep(Duration::from_millis(ms)).await;
    }

    /// Waits until a fragment of each camera was persisted since `mark`, and the upload goes on.
    async fn recovered(&mut self, mark: usize, begun: Instant) {
        for name in CAMERAS {
            let topic = self.rig.mqtt.topics.upload(name);
            let before = self.rig.mqtt.newest_before::<Upload>(mark, &topic);
            let newer = |upload: &Upload| {
                let known = before.as_ref().and_then(|before| before.last_fragment.clone());
                upload.state == UploadState::Sending
                    && upload.last_fragment.is_some()
                    && upload.last_fragment != known
            };
            let _: Upload = self.rig.mqtt.wait_after(mark, &topic, newer).await;
        }
        self.notes.recoveries.push(self.clock.since(begun));
    }

    /// Waits until a camera's backlog is sent, for as long as it gets smaller.
    async fn drained(&self, name: &str) {
        let topic = self.rig.mqtt.topics.upload(name);
        let mut left_s = f64::MAX;
        while left_s >= LIVE_S {
            let mark = self.rig.mqtt.mark();
            let less = |upload: &Upload| {
                upload.state == UploadState::Sending
                    && (upload.backlog_s < LIVE_S || upload.backlog_s + 1.0 < left_s)
            };
            left_s = self.rig.mqtt.wait_after::<Upload>(mark, &topic, less).await.backlog_s;
        }
    }

    /// The storm is over: waits until everything that the box has is in KVS, and ends it.
    pub async fn settle(&mut self) {
        self.link.set(Weather::Fair);
        for action in [Action::StartCloud, Action::EndFaults, Action::BrokerBack, Action::DiskRefuses(false)]
        {
            self.act(&action).await;
        }
        for name in CAMERAS {
            self.disturb(name, CameraFault::Resume);
        }
        for life in 1.. {
            if !self.is_up() {
                self.rig.start_daemon().await;
                self.limit_disk();
            }
            self.panicked().await;
            for name in CAMERAS {
                self.drained(name).await;
            }
            self.listen_to_cameras();
            self.rig.stop().await;
            self.keep_log();
            self.listen_to_cameras();
            let waiting = CAMERAS.map(|name| {
                let said: Upload = self.rig.mqtt.last(&self.rig.mqtt.topics.upload(name));
                said.backlog_bytes
            });
            if waiting == [0; 3] {
                return;
            }
            assert!(life < LIVES_TO_SETTLE, "seed {}: so many bytes wait for ever: {waiting:?}", self.seed);
        }
    }
}

/// Every hundredth, for whoever watches.
fn progress(what: &str, now: u64, of: u64) {
    if now.is_multiple_of(50) || now == of {
        eprintln!("chaos: {now} of {of} {what}");
    }
}

pub(super) fn messages_time(text: &str) -> Option<u64> {
    text.parse::<messages::UtcTime>().ok().map(messages::UtcTime::as_millis)
}

fn faketime() -> Option<PathBuf> {
    let (above, below) = FAKETIME.split_once('*').expect("a pattern");
    let folders = std::fs::read_dir(above).into_iter().flatten().flatten();
    let found = folders
        .map(|folder| PathBuf::from(format!("{}{below}", folder.path().display())))
        .find(|path| Path::exists(path));
    if found.is_none() {
        skip("no libfaketime here; install the Debian package libfaketime");
    }
    found
}
