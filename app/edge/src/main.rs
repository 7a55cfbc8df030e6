//! Arguments, signals and the exit code.

mod cli;
#[cfg(any(test, feature = "documents"))]
mod documents;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use clock::Clock;
use config::{Config, EXAMPLE, Login, Secret, Transport};
use kvs_edge::app::App;
use kvs_edge::overlay_video::{OverlayVideo, SaveVideo, VideoError};
use kvs_edge::probe;
use rtsp::probe::ProbeOptions;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use url::Url;

/// Camera box firmware: RTSP cameras to Amazon Kinesis Video Streams, proven by reading back.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Log lines as JSON objects (the default when the journal reads them is text).
    #[arg(long, global = true)]
    log_json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon until SIGTERM or SIGINT.
    Run {
        /// TOML file; `kvs-edge check --print-defaults` prints a complete one.
        #[arg(long, default_value_os_t = config::default_path())]
        config: PathBuf,
        /// Draw what a camera's detector finds, with boxes, track ids, zones and lines, into an MP4 file. Can be given
        /// several times.
        #[arg(long, value_name = "CAMERA=FILE.mp4")]
        save_video: Vec<SaveVideo>,
    },
    /// Check a configuration file and print every error with line, found, expected and fix.
    Check {
        #[arg(long, default_value_os_t = config::default_path())]
        config: PathBuf,
        /// Print the complete sample configuration with all defaults, and stop.
        #[arg(long)]
        print_defaults: bool,
    },
    /// Look at what a camera offers: codecs, size, fps, GOP, clock, transport, problems.
    Probe {
        /// rtsp://HOST[:PORT]/PATH, without user and password.
        url: Url,
        #[arg(long, requires = "password_file")]
        username: Option<String>,
        /// File with the password on one line.
        #[arg(long, requires = "username")]
        password_file: Option<PathBuf>,
        #[arg(long, value_enum, default_value_t = ProbeTransport::Tcp)]
        transport: ProbeTransport,
        /// How long pictures are watched.
        #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=600))]
        seconds: u64,
        /// Print the report as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Look at video files as a camera's pictures are looked at: events as JSON lines on standard output.
    ///
    /// Of any format that GStreamer reads, with model, zones, lines, scores and rate of a camera of the configuration, or with the
    /// defaults. The lines are those of the MQTT topic `events`; their `camera` is the file's name without ending, their times
    /// are positions behind the first picture, counted from 1970-01-01T00:00:00Z or `--start`. The same file makes the same lines
    /// again.
    ///
    /// Ctrl-C stops: what is done so far is complete (exit code 130). The exit code is 1 where a file could not be read to its
    /// end; what was found up to there is kept as well.
    Analyze(cli::analyze::AnalyzeArguments),
    /// Make ready in AWS what the configuration names.
    #[command(subcommand)]
    Provision(cli::provision::Provision),
    /// Look at the footage on disk, mend what a power cut broke, or take a clip out of it.
    #[command(subcommand)]
    Spool(cli::spool::Spool),
    /// Show, export and check what was written down of each minute: is the footage in KVS, byte for byte, or which seconds are not?
    ///
    /// Also while the daemon runs.
    #[command(subcommand)]
    Proof(cli::proof::Proof),
    /// Upload footage of a time that lies on disk as a local recording ([upload] mode = "on-demand" or "events").
    ///
    /// Whole fragments, oldest first, beside what else is uploaded. Where no kvs-edge runs the order waits for the next start. What
    /// has not begun when the box is killed is to be ordered again; what was uploaded already is not uploaded twice.
    UploadRange(cli::upload_range::UploadRangeArguments),
    /// Look at what a stream holds: list it, copy it, take it apart, play it.
    #[command(subcommand)]
    Kvs(cli::kvs::Kvs),
    /// Measure a running daemon (CPU, memory, fps, latency), draw it, and judge it by criteria.
    ///
    /// Processor and memory come from /proc, everything else from the daemon's own MQTT messages. Each criterion takes
    /// a number, or `off`. The defaults: no crash, at least 5 pictures per second, inference p95 of at most 100 ms, at
    /// most 1024 MiB, no failed call of the model, no lost fragment.
    ///
    /// The exit code is 0 only when all judged criteria pass. What could not be measured is named, and fails only if its
    /// criterion was given on the command line.
    #[cfg(feature = "bench")]
    Bench(bench::BenchArguments),
    /// Show the product on simulated cameras, a local KVS and a local broker, and check that nothing got lost.
    ///
    /// The daemon is `kvs-edge run` of this same program, as a process of its own; what is shown is what it publishes over
    /// MQTT and what the local KVS holds. Its configuration, its log (`kvs-edge.log`) and the fragments are in a folder
    /// `kvs-edge-demo-...` of the system's folder for temporary files (TMPDIR, else /tmp), which is kept when the demo fails.
    #[cfg(feature = "demo")]
    Demo(demo::DemoArguments),
}

#[derive(Clone, Copy, ValueEnum)]
enum ProbeTransport {
    Tcp,
    Udp,
    /// UDP, and TCP if the camera refuses that.
    Auto,
}

fn main() -> ExitCode {
    #[cfg(feature = "documents")]
    if let Some(folder) = std::env::var_os("KVS_EDGE_DOCUMENTS") {
        let written = documents::write(&<Arguments as clap::CommandFactory>::command(), folder.as_ref());
        return written.map_or_else(|error| fail(&error.to_string()), |()| ExitCode::SUCCESS);
    }
    let arguments = Arguments::parse();
    let quiet = !matches!(arguments.command, Command::Run { .. });
    start_log(arguments.log_json, quiet);
    let mut runtime = if matches!(arguments.command, Command::Run { .. }) {
        // One thread carries 16 cameras with a few percent of a core, and waking a second one for each picture only
        // costs. The work between awaits is short; what is not has a thread of its own.
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = runtime.enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("the runtime does not start: {error}")),
    };
    let code = runtime.block_on(async {
        match arguments.command {
            Command::Run { config, save_video } => run(config, save_video).await,
            Command::Check { config, print_defaults } => check(&config, print_defaults),
            Command::Probe { url, username, password_file, transport, seconds, json } => {
                probe_camera(url, username.zip(password_file), transport, seconds, json).await
            }
            Command::Analyze(arguments) => cli::analyze::run(arguments).await,
            Command::Provision(command) => cli::provision::run(command).await,
            Command::Spool(command) => cli::spool::run(command),
            Command::Proof(command) => cli::proof::run(command),
            Command::UploadRange(arguments) => cli::upload_range::run(arguments).await,
            Command::Kvs(command) => cli::kvs::run(command).await,
            #[cfg(feature = "bench")]
            Command::Bench(arguments) => bench::run(arguments).await,
            #[cfg(feature = "demo")]
            Command::Demo(arguments) => demo::run(arguments).await,
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

/// To standard error. The level comes from RUST_LOG (`info`, `kvs_edge=debug`), default `info` for the daemon.
fn start_log(json: bool, quiet: bool) {
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;
    let default = if quiet { "error,rumqttd=off" } else { "info" };
    let wanted = std::env::var("RUST_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let filter = wanted.unwrap_or_else(|| default.parse().expect("a valid filter"));
    // The journal has its own clock.
    let in_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    if json {
        registry.with(layer.json().flatten_event(true)).init();
    } else if in_journal {
        registry.with(layer.without_time().with_ansi(false)).init();
    } else {
        registry.with(layer.with_ansi(std::io::stderr().is_terminal())).init();
    }
}

async fn run(path: PathBuf, save_video: Vec<SaveVideo>) -> ExitCode {
    let config = match Config::load(&path) {
        Ok(config) => config,
        Err(errors) => return fail(&errors.to_string()),
    };
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    if let Some(advice) = &config.advice {
        tracing::info!("{advice}");
    }
    for video in &save_video {
        if let Err(error) = video.check(&config) {
            return fail(&error.to_string());
        }
    }
    // Before anything is started: a signal during the start is not lost.
    let (Ok(mut term), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return fail("signals cannot be handled");
    };
    tracing::info!(
        device = config.device.id,
        cameras = config.cameras.len(),
        "kvs-edge {}",
        env!("CARGO_PKG_VERSION")
    );
    let app = match App::start(config).await {
        Ok(app) => app,
        Err(error) => return fail(&health::chain(&error)),
    };
    let videos = save_video.iter().filter_map(|video| {
        let views = app.views();
        let camera = views.iter().find(|view| view.config.id == video.camera)?;
        Some(OverlayVideo::start(&video.file, camera))
    });
    let videos: Vec<_> = videos.collect();
    let reason = first(&mut term, &mut interrupt).await;
    let hurry = CancellationToken::new();
    let second = hurry.clone();
    let again = tokio::spawn(async move {
        first(&mut term, &mut interrupt).await;
        second.cancel();
    });
    let stopped = app.stop(reason, hurry).await;
    again.abort();
    print_summary(stopped.worker.as_ref());
    let mut code = ExitCode::SUCCESS;
    for video in videos {
        if let Err(error) = finish(video).await {
            tracing::error!(error = health::chain(&error), "the video is not complete");
            code = ExitCode::FAILURE;
        }
    }
    code
}

async fn finish(video: Result<OverlayVideo, VideoError>) -> Result<(), VideoError> {
    let video = video?;
    let file = video.path().to_owned();
    let pictures = video.finish().await?;
    tracing::info!(file = %file.display(), pictures, "video");
    Ok(())
}

/// The last word about what was detected, one line of JSON on standard output.
#[expect(clippy::print_stdout, reason = "the log is on standard error")]
fn print_summary(worker: Option<&messages::WorkerSummary>) {
    if let Some(json) = worker.and_then(|worker| serde_json::to_string(worker).ok()) {
        println!("{json}");
    }
}

async fn first(term: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

#[expect(clippy::print_stdout, reason = "the answer of the command")]
fn check(path: &std::path::Path, print_defaults: bool) -> ExitCode {
    if print_defaults {
        print!("{EXAMPLE}");
        return ExitCode::SUCCESS;
    }
    match Config::load(path) {
        Ok(config) => {
            config.warnings.iter().for_each(|warning| println!("warning: {warning}"));
            let certificate = kvs_edge::aws::certificate_advice(&config.aws, clock::Clock::system().wall());
            certificate.iter().for_each(|advice| println!("warning: {}: {advice}", path.display()));
            if let Some(advice) = &config.advice {
                println!("{advice}");
            }
            println!("{}: fine, {} cameras", path.display(), config.cameras.len());
            ExitCode::SUCCESS
        }
        Err(errors) => fail(&errors.to_string()),
    }
}

#[expect(clippy::print_stdout, reason = "the answer of the command")]
async fn probe_camera(
    url: Url,
    login: Option<(String, PathBuf)>,
    transport: ProbeTransport,
    seconds: u64,
    json: bool,
) -> ExitCode {
    let mut options = ProbeOptions::new(url);
    options.watch = Duration::from_secs(seconds);
    options.transport = match transport {
        ProbeTransport::Tcp => Transport::Tcp,
        ProbeTransport::Udp => Transport::Udp,
        ProbeTransport::Auto => Transport::Auto,
    };
    if let Some((username, file)) = login {
        match Secret::read(&file) {
            Ok(password) => options.login = Some(Login { username, password }),
            Err(error) => return fail(&error.to_string()),
        }
    }
    let clock = Clock::system();
    match probe::run(options, clock.clone()).await {
        Ok(report) => {
            if json {
                println!("{}", serde_json::to_string_pretty(&report).unwrap_or_default());
            } else {
                println!("{report}");
            }
            if report.camera.is_usable() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => fail(&error.problem(clock.wall()).to_string()), // it has its cause in its words
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a failed command")]
fn fail(text: &str) -> ExitCode {
    eprintln!("{}", text.trim_end());
    ExitCode::FAILURE
}
