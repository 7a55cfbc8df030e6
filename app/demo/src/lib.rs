//! `kvs-edge demo`: the product as it ships between simulated cameras, a local KVS and a broker.
//!
//! ```text
//!  camera-sim --RTSP--> kvs-edge run --config FILE --PutMedia--> kvs-local
//!   (here)               (a child process)   |                    (here)
//!                                            +-----MQTT-----> broker (here) --> observer --> table, summary
//! ```
//!
//! Nothing of the daemon is linked here: what is shown is what it publishes, and what the local KVS holds.

pub mod broker;
pub mod daemon;
mod fault;
pub mod observer;
mod published;
pub mod rig;
mod summary;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use camera_sim::{Audio, ClipSpec, Codec, SimError};
use clap::{Args, ValueEnum};
use clock::Clock;
use config::{Config, ConfigErrors};
use messages::OFFLINE;
use mqtt::ListenError;
use tokio::signal::unix::{Signal, SignalKind, signal};

use daemon::{Daemon, DaemonError};
pub use fault::DemoFault;
use observer::{BodyError, Observer};
use published::PublishedCamera;
use rig::{Rig, RigError, RigOptions};
use summary::Summary;
use table::Table;

/// How the demo is asked for.
#[derive(Args, Clone, Debug)]
pub struct DemoArguments {
    /// Number of simulated cameras.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub cameras: u16,
    /// How long to run; 0: until Ctrl-C.
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// Show a recovery: this goes wrong on the first camera after a third of the time.
    #[arg(long, value_enum)]
    pub fault: Option<DemoFault>,
    /// Play this video file instead of the drawn scene; the installed model looks at it (`cargo xtask model`).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["size", "fps", "audio"])]
    pub clip: Option<PathBuf>,
    /// Video codec of the cameras.
    #[arg(long, value_enum, default_value_t = DemoCodec::H264)]
    pub codec: DemoCodec,
    /// Picture size of the cameras.
    #[arg(long, default_value = "1280x720", value_parser = size)]
    pub size: (u32, u32),
    #[arg(long, default_value_t = 25)]
    pub fps: u32,
    #[arg(long, default_value_t = 2000)]
    pub bitrate_kbps: u32,
    /// Give the cameras an AAC track.
    #[arg(long)]
    pub audio: bool,
    /// Pictures per second and camera that the detector looks at; 0: no detection. 10 by default, with --clip 5.
    #[arg(long, value_parser = detect_fps)]
    pub detect_fps: Option<f64>,
    /// Write what the first camera's detector sees, with boxes, track ids and zones, into this MP4 file.
    #[arg(long, value_name = "FILE")]
    pub save_video: Option<PathBuf>,
    /// Show this daemon instead of the one in this program, such as one built for another processor.
    #[arg(long, value_name = "PROGRAM")]
    pub daemon: Option<PathBuf>,
    /// How fragments are read back.
    #[arg(long, value_enum, default_value_t = DemoVerify::Continuous)]
    pub verify: DemoVerify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DemoCodec {
    H264,
    H265,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DemoVerify {
    Continuous,
    Sampled,
}

/// The daemon's log, in the folder of the run.
const LOG: &str = "kvs-edge.log";
/// Lines of it that are shown when something went wrong.
const LAST_WORDS: usize = 40;
/// The daemon publishes its last figures and ends this long after its own `stop_grace_s` at the latest.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// From the daemon's end to its last message here.
const LAST_MESSAGE_LIMIT: Duration = Duration::from_secs(10);

/// Different scenes are rendered for this many cameras; the others repeat them.
const DISTINCT_SCENES: usize = 2;
/// What every camera looks out for: who comes near, and who crosses the middle.
const SCENE_RULES: &str = "\
[[camera.detect.zone]]
name = \"near\"
polygon = [[0.0, 0.55], [1.0, 0.55], [1.0, 1.0], [0.0, 1.0]]
severity = \"alert\"

[[camera.detect.line]]
name = \"middle\"
from = [0.5, 0.0]
to = [0.5, 1.0]
";

fn size(text: &str) -> Result<(u32, u32), String> {
    let parsed = text.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    parsed.ok_or_else(|| format!("found `{text}`, expected WIDTHxHEIGHT such as 1280x720"))
}

fn detect_fps(text: &str) -> Result<f64, String> {
    let fps = text.parse().ok().filter(|fps| *fps == 0.0 || (0.1..=30.0).contains(fps));
    fps.ok_or_else(|| format!("found `{text}`, expected 0, or 0.1 to 30"))
}

/// Why the demo could not be shown to its end.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error(transparent)]
    Rig(#[from] RigError),
    #[error("the configuration cannot be written: {0}")]
    Write(std::io::Error),
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    #[error("the configuration of the demo has no [mqtt]")]
    NoMqtt,
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    #[error("this program's own file is not found: {0}")]
    Program(std::io::Error),
    #[error("signals cannot be handled: {0}")]
    Signals(std::io::Error),
    #[error("the daemon ended by itself with {0}")]
    Ended(std::process::ExitStatus),
    #[error("the daemon's last message (offline) did not come within {} s of its end", LAST_MESSAGE_LIMIT.as_secs())]
    NoLastMessage,
    #[error(transparent)]
    Body(#[from] BodyError),
}

/// Runs the demo with the daemon of this same program; fails if any fragment is unaccounted for.
pub async fn run(arguments: DemoArguments) -> ExitCode {
    let clock = Clock::system();
    say("kvs-edge demo: simulated cameras -> kvs-edge -> local KVS -> read back");
    say(match arguments.clip {
        Some(_) => "  cameras  reading the file (encoded once where it has to be) ...",
        None => "  cameras  rendering the scene (once; kept in the cache) ...",
    });
    let rig = match start(&arguments).await {
        Ok(rig) => rig,
        Err(error) => {
            say(&format!("the demo does not start: {}", health::chain(&error)));
            return ExitCode::FAILURE;
        }
    };
    let shown = show(&arguments, &rig, &clock).await;
    if let Err(error) = &shown {
        say(&format!("the demo failed: {}", health::chain(error)));
    }
    let good = matches!(shown, Ok(true));
    if !good {
        say(&format!(
            "the daemon's last words:\n{}",
            daemon::last_lines(&rig.folder().join(LOG), LAST_WORDS)
        ));
        say(&format!("configuration, log and fragments are kept in {}", rig.folder().display()));
    }
    rig.stop(!good).await;
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::print_stdout, reason = "this is what the demo is for")]
fn say(text: &str) {
    println!("{text}");
}

async fn start(arguments: &DemoArguments) -> Result<Rig, RigError> {
    let mut clip = clip(arguments);
    if let Some(file) = &arguments.clip {
        clip = clip.of_file(file).map_err(SimError::from)?;
    }
    let cameras = usize::from(arguments.cameras);
    Rig::start(RigOptions { device: "demo".to_owned(), cameras, scenes: DISTINCT_SCENES, clip }).await
}

async fn show(arguments: &DemoArguments, rig: &Rig, clock: &Clock) -> Result<bool, DemoError> {
    let mut signals = Signals::new().map_err(DemoError::Signals)?;
    let (settings, of_each_camera) = settings(arguments);
    let file = rig.write_config(&settings, of_each_camera).map_err(DemoError::Write)?;
    let config = Config::load(&file)?;
    announce(rig, &file);
    let observer = Observer::connect(&config, config.mqtt.clone().ok_or(DemoError::NoMqtt)?).await?;
    let program = match &arguments.daemon {
        Some(program) => program.clone(),
        None => std::env::current_exe().map_err(DemoError::Program)?,
    };
    let save_video = arguments.save_video.iter().flat_map(|file| {
        // The first camera; a `=` in the file's name is the file's.
        ["--save-video".into(), format!("{}={}", rig.cameras()[0], file.display())]
    });
    let save_video: Vec<String> = save_video.collect();
    let mut daemon = Daemon::start(&program, &file, &save_video, &rig.folder().join(LOG))?;

    let mut table = watch(arguments, rig, clock, &observer, &mut daemon, &mut signals).await?;
    table.finish("stopping: the last fragments are completed, persisted and read back ...");
    daemon.terminate();
    let limit = config.upload.stop_grace + STOP_LIMIT;
    let deadline = clock.now() + limit;
    loop {
        let left = deadline.saturating_duration_since(clock.now());
        tokio::select! {
            finished = daemon.finish(left) => break finished?,
            // Whoever asks again does not wait for the cloud.
            () = signals.any() => daemon.terminate(),
        }
    }
    let availability = observer.topics().availability();
    let offline = observer.wait_for(&availability, OFFLINE);
    tokio::time::timeout(LAST_MESSAGE_LIMIT, offline).await.map_err(|_| DemoError::NoLastMessage)?;
    if let Some(file) = &arguments.save_video {
        say(&format!("  video    {}", file.display()));
    }
    let mut stored = Vec::new();
    for camera in rig.cameras() {
        let fragments = rig.kvs.fragments(&camera).await.map_or(0, |fragments| fragments.len() as u64);
        stored.push((camera, fragments));
    }
    let summary = Summary::new(arguments, &stored, &observer)?;
    observer.stop().await;
    say(&serde_json::to_string_pretty(&summary).unwrap_or_default());
    say(&summary.verdict());
    Ok(summary.all_accounted)
}

fn announce(rig: &Rig, config: &Path) {
    let broker = rig.broker.address();
    say(&format!("  cameras  {} ... {}", rig.sim.url(0), rig.sim.cameras()));
    say(&format!("  KVS      {} (stream of each camera: its name)", rig.kvs.endpoint()));
    say(&format!("  config   {}", config.display()));
    say(&format!("  log      {}", rig.folder().join(LOG).display()));
    say(&format!("  MQTT     {broker}"));
    say("Watch it from another terminal:");
    say(&format!("  mosquitto_sub -V 5 -h 127.0.0.1 -p {} -v -t 'kvs-edge/#'\n", broker.port()));
}

/// Shows what the daemon publishes until the time is over or a signal comes, and does what goes wrong in between.
async fn watch(
    arguments: &DemoArguments,
    rig: &Rig,
    clock: &Clock,
    observer: &Observer,
    daemon: &mut Daemon,
    signals: &mut Signals,
) -> Result<Table, DemoError> {
    let mut table = Table::new(clock.clone());
    let started = clock.now();
    let end = (arguments.seconds > 0).then(|| Duration::from_secs(arguments.seconds));
    let whole = end.unwrap_or(Duration::from_secs(30));
    let mut fault = arguments.fault;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = signals.any() => return Ok(table),
            status = daemon.ended() => return Err(DemoError::Ended(status?)),
        }
        let elapsed = clock.since(started);
        if let Some(fault) = fault.take_if(|_| elapsed >= whole / 3) {
            fault.inject(&rig.sim, &rig.kvs);
            table.note(&format!("{:>4} s  fault: {}", elapsed.as_secs(), fault.describe()));
        }
        let cameras: Vec<_> = rig.cameras().iter().map(|id| PublishedCamera::of(id, observer)).collect();
        table.show(elapsed, &cameras, observer.messages());
        if end.is_some_and(|end| elapsed >= end) {
            return Ok(table);
        }
    }
}

/// Ctrl-C, and what a service manager sends.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, std::io::Error> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn clip(arguments: &DemoArguments) -> ClipSpec {
    ClipSpec {
        width: arguments.size.0,
        height: arguments.size.1,
        fps: arguments.fps,
        bitrate_kbps: arguments.bitrate_kbps,
        gop: arguments.fps * 2,
        codec: match arguments.codec {
            DemoCodec::H264 => Codec::H264,
            DemoCodec::H265 => Codec::H265,
        },
        audio: if arguments.audio { Audio::Aac } else { Audio::None },
        ..ClipSpec::default()
    }
}

/// The sections of the configuration beside box, cloud, broker and cameras, and what follows each camera.
fn settings(arguments: &DemoArguments) -> (String, &'static str) {
    let mode = match arguments.verify {
        DemoVerify::Continuous => "continuous",
        DemoVerify::Sampled => "sampled",
    };
    let record = format!(
        "[verify]\nmode = \"{mode}\"\nsample_every_s = 10\nlist_every_s = 10\n\n[health]\ninterval_s = 1\n"
    );
    let fps = arguments.detect_fps.unwrap_or(if arguments.clip.is_some() { 5.0 } else { 10.0 });
    if fps == 0.0 {
        return (record + "\n[detect]\nenabled = false\n", "");
    }
    let model = match arguments.clip {
        Some(_) => "model = \"nanodet\"",
        None => "model = \"scene\"\nmin_score = 0.35",
    };
    let detect = format!("\n[detect]\n{model}\nfps = {fps}\nevents_folder = \"events\"\n");
    (record + &detect, SCENE_RULES)
}
