//! The product on simulated surroundings: rendered cameras, `kvs-local`, an MQTT broker, and the real daemon with
//! a real configuration file between them, all in this process and on loopback.

mod fault;
mod summary;
mod table;

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use camera_sim::{Audio, CameraSim, ClipSpec, Codec};
use clap::{Args, ValueEnum};
use kvs_local::{KvsLocal, Options};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::overlay_video::OverlayVideo;
use config::Config;
use demo::broker::Broker;
pub use fault::DemoFault;
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
    /// Pictures per second and camera that the detector looks at; 0: no detection.
    #[arg(long, default_value_t = 10.0, value_parser = detect_fps)]
    pub detect_fps: f64,
    /// Write what the first camera's detector sees, with boxes, track ids and zones, into this MP4 file.
    #[arg(long, value_name = "FILE")]
    pub save_video: Option<std::path::PathBuf>,
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

/// Different scenes are rendered for this many cameras; the others repeat them.
const DISTINCT_SCENES: usize = 2;
const REGION: &str = "local-1";
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

/// Runs the demo; fails if any fragment is unaccounted for.
pub async fn run(arguments: DemoArguments) -> ExitCode {
    match show(&arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("the demo does not start: {}", health::chain(error.as_ref())));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "this is what the demo is for")]
fn say(text: &str) {
    println!("{text}");
}

async fn show(arguments: &DemoArguments) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    let folder = tempfile::Builder::new().prefix("kvs-edge-demo-").tempdir()?;
    say("kvs-edge demo: simulated cameras -> kvs-edge -> local KVS -> read back");
    say("  cameras  rendering the scene (once; kept in the cache) ...");
    let sim = CameraSim::builder()
        .clip(clip(arguments))
        .cameras(usize::from(arguments.cameras))
        .distinct(DISTINCT_SCENES)
        .start()
        .await?;
    let kvs = start_kvs(folder.path(), arguments).await?;
    let broker = Broker::start()?;
    let file = write_config(folder.path(), arguments, &sim, &kvs, &broker)?;
    let config = Config::load(&file)?;
    say(&format!("  cameras  {} ... {}", sim.url(0), arguments.cameras));
    say(&format!("  KVS      {} (stream of each camera: its name)", kvs.endpoint()));
    say(&format!("  config   {}", file.display()));
    say(&format!("  MQTT     {}", broker.address()));
    say("Watch it from another terminal:");
    say(&format!(
        "  mosquitto_sub -V 5 -h 127.0.0.1 -p {} -v -t '{}'\n",
        broker.address().port(),
        "kvs-edge/#"
    ));

    let app = App::start(config).await?;
    let views = app.views();
    let video = arguments.save_video.as_deref().map(|file| OverlayVideo::start(file, &views[0]));
    let video = video.transpose()?;
    let seen = broker.observe(&app.topics().everything())?;
    let mut table = Table::new();
    let started = tokio::time::Instant::now();
    let end = (arguments.seconds > 0).then(|| started + Duration::from_secs(arguments.seconds));
    let whole = if arguments.seconds > 0 { arguments.seconds } else { 30 };
    let mut fault = arguments.fault.map(|fault| (fault, started + Duration::from_secs(whole) / 3));
    let mut clock = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = clock.tick() => {}
            _ = tokio::signal::ctrl_c() => break,
        }
        if let Some((fault, _)) = fault.take_if(|(_, at)| *at <= tokio::time::Instant::now()) {
            fault.inject(&sim, &kvs);
            table.note(&format!("{:>4} s  fault: {}", started.elapsed().as_secs(), fault.describe()));
        }
        table.show(started.elapsed(), &views, &app.status().borrow().clone(), seen.count());
        if end.is_some_and(|end| tokio::time::Instant::now() >= end) {
            break;
        }
    }
    table.finish("stopping: the last fragments are completed, persisted and read back ...");
    let stopped = app.stop("demo is over", CancellationToken::new()).await;
    if let Some(video) = video {
        let path = video.path().display().to_string();
        say(&format!("  video    {path} ({} pictures)", video.finish().await?));
    }
    let summary = Summary::new(arguments, &views, stopped, &kvs, seen.all()).await;
    say(&serde_json::to_string_pretty(&summary)?);
    say(&summary.verdict());
    sim.shutdown().await;
    kvs.shutdown().await;
    Ok(summary.all_accounted)
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

async fn start_kvs(folder: &Path, arguments: &DemoArguments) -> Result<KvsLocal, kvs_local::StartError> {
    let mut options = Options::new(folder.join("kvs"));
    REGION.clone_into(&mut options.region);
    options.credentials = vec![kvs_local::Credentials::local()];
    for number in 0..arguments.cameras {
        options = options.stream(format!("cam{number}"), 24);
    }
    KvsLocal::start(options).await
}

/// A configuration as an installer would write it.
fn write_config(
    folder: &Path,
    arguments: &DemoArguments,
    sim: &CameraSim,
    kvs: &KvsLocal,
    broker: &Broker,
) -> Result<std::path::PathBuf, std::io::Error> {
    let keys = kvs_local::Credentials::local();
    write_secret(&folder.join("aws-key-id"), &keys.access_key)?;
    write_secret(&folder.join("aws-secret"), &keys.secret_key)?;
    let mode = match arguments.verify {
        DemoVerify::Continuous => "continuous",
        DemoVerify::Sampled => "sampled",
    };
    let mut text = format!(
        "[device]\nid = \"demo-box\"\n\n\
         [aws]\nregion = \"{REGION}\"\nendpoint = \"{}\"\n\
         access_key_id_file = \"aws-key-id\"\nsecret_access_key_file = \"aws-secret\"\n\n\
         [mqtt]\nhost = \"127.0.0.1\"\nport = {}\n\n\
         [verify]\nmode = \"{mode}\"\nsample_every_s = 10\nlist_every_s = 10\n\n\
         [health]\ninterval_s = 5\n",
        kvs.endpoint(),
        broker.address().port(),
    );
    if arguments.detect_fps > 0.0 {
        let _ = write!(
            text,
            "\n[detect]\nfps = {}\nmin_score = 0.35\nevents_folder = \"events\"\n",
            arguments.detect_fps
        );
    }
    for number in 0..usize::from(arguments.cameras) {
        let _ = write!(text, "\n[[camera]]\nid = \"cam{number}\"\nurl = \"{}\"\n", sim.url(number));
        if arguments.detect_fps > 0.0 {
            text.push_str(SCENE_RULES);
        }
    }
    let file = folder.join("kvs-edge.toml");
    std::fs::write(&file, text)?;
    Ok(file)
}

fn write_secret(path: &Path, secret: &str) -> Result<(), std::io::Error> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(secret.as_bytes())
}
