//! Simulated RTSP cameras from the command line.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use camera_sim::{Audio, AuthKind, CameraSim, ClipSpec, Codec, FaultPlan, faults};
use clap::{Parser, ValueEnum};

/// Serves simulated cameras over RTSP; ends with Ctrl-C.
#[derive(Parser)]
#[command(name = "camera-sim", version)]
struct Arguments {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:8554")]
    listen: String,
    /// Number of cameras: cam0, cam1, ...
    #[arg(long, default_value_t = 1)]
    cameras: usize,
    /// Render at most so many different clips
    #[arg(long)]
    distinct: Option<usize>,
    /// Play this video file: H.264 and H.265 as they are, else encoded once. Without its sound
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "distinct", "size", "fps", "audio", "seed", "loop_seconds", "ground_truth",
    ])]
    clip: Option<PathBuf>,
    /// Width and height in pixels
    #[arg(long, default_value = "1280x720", value_parser = parse_size)]
    size: (u32, u32),
    /// Pictures per second
    #[arg(long, default_value_t = 25)]
    fps: u32,
    /// Video bitrate in kbit/s
    #[arg(long, default_value_t = 2000)]
    bitrate: u32,
    /// Pictures from one random access point to the next
    #[arg(long, default_value_t = 50)]
    gop: u32,
    /// B pictures in a row
    #[arg(long, default_value_t = 0)]
    b_frames: u32,
    #[arg(long, value_enum, default_value = "h264")]
    codec: CodecName,
    /// H.265: CRA instead of IDR pictures at random access points
    #[arg(long)]
    open_gop: bool,
    #[arg(long, value_enum, default_value = "none")]
    audio: AudioName,
    #[arg(long, requires = "password")]
    user: Option<String>,
    #[arg(long, requires = "user")]
    password: Option<String>,
    #[arg(long, value_enum, default_value = "digest")]
    auth: AuthName,
    /// Seed of the first camera's scene; the next cameras get the next seeds
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Length of the loop; must divide 60
    #[arg(long, default_value_t = 20)]
    loop_seconds: u32,
    /// Folder for encoded clips
    #[arg(long)]
    cache: Option<PathBuf>,
    /// Faults of all cameras, written as a URL query: "drop=0.001&no_sr"
    #[arg(long, default_value = "", value_parser = FaultPlan::from_query)]
    faults: FaultPlan,
    /// Write the ground truth of all cameras here, as JSON lines
    #[arg(long)]
    ground_truth: Option<PathBuf>,
    /// List the faults that a URL can ask for, and end
    #[arg(long)]
    print_faults: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum CodecName {
    H264,
    H265,
}

#[derive(Clone, Copy, ValueEnum)]
enum AudioName {
    None,
    Aac,
    Pcmu,
}

#[derive(Clone, Copy, ValueEnum)]
enum AuthName {
    Basic,
    Digest,
}

fn parse_size(text: &str) -> Result<(u32, u32), String> {
    let sides =
        text.split_once('x').and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    sides.ok_or_else(|| format!("`{text}` is not WIDTHxHEIGHT"))
}

#[tokio::main]
async fn main() -> ExitCode {
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(ansi).init();
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout();
    if arguments.print_faults {
        return Ok(out.write_all(faults::TABLE.as_bytes())?);
    }
    let (width, height) = arguments.size;
    let mut clip = ClipSpec {
        width,
        height,
        fps: arguments.fps,
        bitrate_kbps: arguments.bitrate,
        gop: arguments.gop,
        b_frames: arguments.b_frames,
        codec: match arguments.codec {
            CodecName::H264 => Codec::H264,
            CodecName::H265 => Codec::H265,
        },
        open_gop: arguments.open_gop,
        audio: match arguments.audio {
            AudioName::None => Audio::None,
            AudioName::Aac => Audio::Aac,
            AudioName::Pcmu => Audio::Pcmu,
        },
        seed: arguments.seed,
        loop_seconds: arguments.loop_seconds,
        footage: None,
    };
    if let Some(file) = &arguments.clip {
        clip = clip.of_file(file)?;
    }
    let mut builder = CameraSim::builder().clip(clip).cameras(arguments.cameras).bind(arguments.listen);
    builder = builder.faults(arguments.faults);
    if let Some(distinct) = arguments.distinct {
        builder = builder.distinct(distinct);
    }
    if let (Some(user), Some(password)) = (&arguments.user, &arguments.password) {
        let kind = match arguments.auth {
            AuthName::Basic => AuthKind::Basic,
            AuthName::Digest => AuthKind::Digest,
        };
        builder = builder.auth(user, password, kind);
    }
    if let Some(cache) = arguments.cache {
        builder = builder.cache_dir(cache);
    }
    let sim = builder.start().await?;
    if let Some(path) = &arguments.ground_truth {
        write_ground_truth(&sim, path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if arguments.clip.is_some() {
        let (clip, how) = (sim.clip(0), if sim.clip(0).encoded() { "encoded" } else { "as it is" });
        let ClipSpec { codec, width, height, .. } = clip.spec();
        let (codec, pictures) = (codec.name(), clip.pictures().len());
        tracing::info!("the file is {pictures} pictures of {width}x{height}, {codec}, {how}");
    }
    for camera in 0..sim.cameras() {
        writeln!(out, "{}", sim.url(camera))?;
    }
    out.flush()?;
    stop_signal().await?;
    sim.shutdown().await;
    Ok(())
}

/// One line per camera and frame: `{"camera":"cam0","frame":0,"objects":[...]}`.
fn write_ground_truth(sim: &CameraSim, path: &std::path::Path) -> std::io::Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    for camera in 0..sim.cameras() {
        for truth in sim.ground_truth(camera) {
            let line = serde_json::json!({
                "camera": format!("cam{camera}"),
                "frame": truth.frame,
                "objects": truth.objects,
            });
            writeln!(file, "{line}")?;
        }
    }
    file.flush()
}

async fn stop_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}
