//! How well the whole daemon sees, and what that costs.
//!
//! `cargo bench -p kvs-edge --bench analytics [-- --help]`; `cargo xtask bench` also brings the Python package that judges.
//!
//! * Accuracy: rendered 1280x720 cameras, 25 pictures per second, 1 Mbit/s H.264 over TCP, with scenes that the model was
//!   not trained on. The daemon runs in this process with its real parts, upload included; each picture that it looked
//!   at says by a strip of black and white blocks which one it is, and thereby what can be seen in it. Tracks and events
//!   are written to files and judged by `judge.py` with py-motmetrics.
//! * Cost: the same cameras, the daemon as a child, which alone is measured; with detection and without.
//! * Cost of NanoDet-g on ONNX Runtime, likewise: 416x416 on real footage (`vtest.avi` of Debian's `opencv-doc`, 768x576, 10
//!   pictures per second), 640x384 on the rendered cameras. Left out, and said, where model, footage or library is missing.
//!
//! Cameras, KVS and broker run in this process, everything meets on loopback, and no limit is asserted.

mod cost;
mod events;
#[path = "../measured/mod.rs"]
#[expect(dead_code, reason = "the other bench looks at reading back, too")]
mod measured;
mod real;
mod record;
mod truth;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use camera_sim::ClipSpec;
use clap::Parser;
use kvs_edge::app::App;
use messages::Upload;
use tokio_util::sync::CancellationToken;

use cost::Load;
use events::Events;
use measured::{Bench, Error, Stored, stored};
use record::Recorded;

/// Has motmetrics 1.4 and trackers 2.6.
const PYTHON: &str = "KVS_EDGE_BENCH_PYTHON";

/// How well the daemon sees, and what that costs.
#[derive(Parser)]
struct Arguments {
    /// Seconds that each camera is judged by; the scenes repeat after 60
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Cameras to judge by, each with a scene of its own; 0: do not judge
    #[arg(long, default_value_t = 5)]
    cameras: usize,
    /// Pictures per second and camera that are judged
    #[arg(long, default_value_t = 10)]
    fps: u32,
    /// Seconds over which the cost is measured; 0: not at all
    #[arg(long, default_value_t = 60)]
    cost_seconds: u64,
    /// Seconds before that
    #[arg(long, default_value_t = 5)]
    warm_up: u64,
    /// Cost is measured with these numbers of cameras and pictures per second, as CAMERASxFPS
    #[arg(long, value_delimiter = ',', default_value = "1x0,1x10,4x0,4x5", value_parser = load)]
    loads: Vec<(usize, u32)>,
    /// The same with NanoDet-g
    #[arg(long, value_delimiter = ',', default_value = "1x5,2x5,4x5", value_parser = load)]
    real_loads: Vec<(usize, u32)>,
    /// Keep what is judged in this folder
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Another build of the daemon, to compare its cost
    #[arg(long, default_value = env!("CARGO_BIN_EXE_kvs-edge"))]
    daemon: PathBuf,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn load(text: &str) -> Result<(usize, u32), String> {
    let parsed =
        text.split_once('x').and_then(|(cameras, fps)| Some((cameras.parse().ok()?, fps.parse().ok()?)));
    parsed.ok_or_else(|| format!("found `{text}`, expected CAMERASxFPS such as 4x5"))
}

fn clip() -> ClipSpec {
    ClipSpec { bitrate_kbps: 1000, loop_seconds: 60, ..ClipSpec::default() }
}

fn of_scene((cameras, fps): (usize, u32)) -> Load {
    let (what, detect) = ("720p scenes, scene".to_owned(), "model = \"scene\"\n".to_owned());
    Load { what, clip: clip(), detect, cameras, fps }
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the tables are what this is for")]
fn main() -> Result<(), Error> {
    let arguments = Arguments::parse();
    if !arguments.bench {
        println!("nothing is measured: this takes minutes, run it with cargo bench");
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if arguments.cameras > 0 {
        let python = std::env::var_os(PYTHON);
        let python = python.ok_or_else(|| {
            format!("{PYTHON} is not set: name a Python with motmetrics 1.4 and trackers 2.6, or run cargo xtask bench")
        })?;
        let scratch = tempfile::tempdir()?;
        let folder = arguments.keep.as_deref().unwrap_or(scratch.path());
        std::fs::create_dir_all(folder)?;
        eprintln!("judging {} cameras for {} s ...", arguments.cameras, arguments.seconds);
        println!("{}", runtime.block_on(watch(&arguments, folder))?);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/analytics/judge.py");
        let mut judge = Command::new(python);
        judge.arg(script).arg(folder).arg(arguments.fps.to_string());
        if !judge.status()?.success() {
            return Err("judge.py failed".into());
        }
    }
    if arguments.cost_seconds > 0 {
        let mut loads: Vec<Load> = arguments.loads.iter().map(|&load| of_scene(load)).collect();
        match real::loads(&arguments.real_loads, &clip()) {
            Ok(real) => loads.extend(real),
            Err(missing) => println!("NanoDet-g is skipped: {missing}\n"),
        }
        let mut runs = Vec::new();
        for load in &loads {
            let Load { what, cameras, fps, .. } = load;
            eprintln!("{what}: {cameras} cameras, detection at {fps} pictures per second ...");
            runs.push(runtime.block_on(cost::measure(&arguments, load))?);
        }
        println!("{}", cost::speed_table(&runs));
        println!("{}", cost::loss_table(&runs));
    }
    Ok(())
}

/// Runs the daemon in this process and writes down what it detects; returns what the figures rest on.
async fn watch(arguments: &Arguments, folder: &Path) -> Result<String, Error> {
    let cameras = arguments.cameras;
    // The cameras, the encoder's output and the cloud take their share of the same cores: every camera shall have its
    // rate, whatever one picture took when the detector was measured.
    let detect = format!(
        "[health]\ninterval_s = 1\n\n[detect]\nmodel = \"scene\"\nfps = {}\ncore_share = 800\n",
        arguments.fps
    );
    let bench = Bench::start(cameras, cameras, clip(), &detect).await?;
    let events = Events::subscribe(&bench).await?;
    let app = App::start(bench.config.clone()).await?;
    let mut recorders = Vec::new();
    for (number, view) in app.views().iter().enumerate() {
        let frames = view.analytics.as_ref().ok_or("a camera without detection")?.frames.subscribe();
        let (clip, folder, name) =
            (bench.rig.sim.clip(number).clone(), folder.to_owned(), view.config.id.clone());
        recorders.push(tokio::spawn(async move { record::record(frames, clip, &folder, &name).await }));
    }
    for view in app.views().iter() {
        let mut report = view.analytics.as_ref().ok_or("a camera without detection")?.report.clone();
        let looks = report.wait_for(|report| report.latency.count() > 0);
        tokio::time::timeout(Duration::from_secs(60), looks)
            .await
            .map_err(|_| "nothing is detected in a minute")??;
    }
    tokio::time::sleep(Duration::from_secs(arguments.seconds)).await;
    let names: Vec<String> = app.views().iter().map(|view| view.config.id.clone()).collect();
    let stopped = app.stop("the bench is over", CancellationToken::new()).await;
    bench.last_message().await?;

    let mut total = Recorded::default();
    for recorder in recorders {
        let Recorded { pictures, unread, missed } = recorder.await??;
        total.pictures += pictures;
        total.unread += unread;
        total.missed += missed;
    }
    let events = tokio::time::timeout(Duration::from_secs(20), events.finish()).await??;
    let (mut in_kvs, mut lost) = (Stored::default(), 0);
    for (camera, name) in names.iter().enumerate() {
        record::write_events(&events, folder, name)?;
        in_kvs += stored(&bench.rig, camera).await?;
        lost += bench.observer.newest::<Upload>(&bench.observer.topics().upload(name))?.fragments_lost;
    }
    bench.stop().await;
    let skipped: u64 =
        stopped.worker.iter().flat_map(|worker| &worker.cameras).map(|camera| camera.skipped).sum();
    Ok(format!(
        "{cameras} cameras: {} pictures judged, {} not readable, {} not recorded in time, {skipped} skipped by the \
         detector; {} pictures sent, {} stored in KVS, {} missing in between, {lost} fragments lost.\n",
        total.pictures, total.unread, total.missed, in_kvs.sent, in_kvs.pictures, in_kvs.missing,
    ))
}
