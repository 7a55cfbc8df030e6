//! What the daemon costs: CPU per camera against `ffmpeg -c copy -f null` on the same feeds at the same time, memory,
//! pictures lost, and the time from the camera's clock to the same picture read back. Where `KVS_EDGE_BENCH_KVSSINK` names
//! AWS's GStreamer plugin, also against that: `gst-launch-1.0 rtspsrc ! ... ! kvssink`, which uploads the same feeds to the
//! same server.
//!
//! `cargo bench -p kvs-edge --bench upload [-- --help]`. The cameras (one rendered 1920x1080 clip, 30 pictures per
//! second, 6 Mbit/s H.264 over TCP), the local KVS and the broker run in this process, the daemon and ffmpeg are
//! children: only the children are measured. Everything meets on loopback, and no limit is asserted.

#[path = "../measured/mod.rs"]
#[expect(dead_code, reason = "the other bench looks at detection, too")]
mod measured;
mod peers;

use std::path::PathBuf;
use std::time::Duration;

use camera_sim::ClipSpec;
use clap::Parser;
use demo::daemon::Daemon;
use messages::Percentiles;

use measured::process::Used;
use measured::{Bench, Error, Figures, Memory, Process};
use peers::Peer;

/// What the daemon costs, against ffmpeg.
#[derive(Parser)]
struct Arguments {
    /// Seconds that are measured
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Seconds before that, in which both start up
    #[arg(long, default_value_t = 5)]
    warm_up: u64,
    /// Numbers of cameras
    #[arg(long, value_delimiter = ',', default_value = "1,4,16")]
    cameras: Vec<usize>,
    /// How the daemon reads back
    #[arg(long, value_delimiter = ',', default_value = "off,sampled,continuous")]
    verify: Vec<String>,
    /// Each measurement is made so often; the table shows medians
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    /// Do not run ffmpeg beside the daemon
    #[arg(long)]
    no_ffmpeg: bool,
    /// Do not run AWS's kvssink beside the daemon, even where it is named
    #[arg(long)]
    no_kvssink: bool,
    /// Another build of the daemon, to compare
    #[arg(long, default_value = env!("CARGO_BIN_EXE_kvs-edge"))]
    daemon: PathBuf,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// One run of the daemon.
struct Run {
    /// CPU time per camera in the measured window, percent of one core.
    daemon_percent: f64,
    ffmpeg_percent: Option<f64>,
    /// The same from the start of the process to the end of the window.
    daemon_whole_percent: f64,
    ffmpeg_whole_percent: Option<f64>,
    at_begin: Memory,
    at_end: Memory,
    ffmpeg_memory: Option<Memory>,
    kvssink_percent: Option<f64>,
    /// Of its first process.
    kvssink_memory: Option<Memory>,
    figures: Figures,
    /// Of the camera with the median p50.
    latency: Option<Percentiles>,
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the table is what this is for")]
fn main() -> Result<(), Error> {
    let arguments = Arguments::parse();
    if !arguments.bench {
        println!("nothing is measured: this takes minutes, run it with cargo bench");
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut rows = Vec::new();
    for &cameras in &arguments.cameras {
        for verify in &arguments.verify {
            let mut runs = Vec::new();
            for turn in 1..=arguments.repeat {
                eprintln!("{cameras} cameras, verify {verify}, {turn} of {} ...", arguments.repeat);
                runs.push(runtime.block_on(measure(&arguments, cameras, verify))?);
            }
            rows.push((cameras, verify.as_str(), runs));
        }
    }
    println!("{}", cpu_table(&rows));
    println!("{}", loss_table(&rows));
    println!("{}", memory_table(&rows));
    match kvssink(&arguments) {
        Some(_) => println!("{}", kvssink_table(&rows)),
        None if arguments.no_kvssink => {}
        None => println!("kvssink was skipped: {} does not name its plugin", peers::KVSSINK),
    }
    Ok(())
}

fn kvssink(arguments: &Arguments) -> Option<PathBuf> {
    peers::kvssink_plugin().filter(|_| !arguments.no_kvssink)
}

/// 1080p30, 6 Mbit/s.
fn clip() -> ClipSpec {
    ClipSpec {
        width: 1920,
        height: 1080,
        fps: 30,
        bitrate_kbps: 6000,
        gop: 60,
        loop_seconds: 10,
        ..ClipSpec::default()
    }
}

async fn measure(arguments: &Arguments, cameras: usize, verify: &str) -> Result<Run, Error> {
    let bench = Bench::start(
        cameras,
        1,
        clip(),
        &format!("[verify]\nmode = \"{verify}\"\n\n[detect]\nenabled = false\n"),
    )
    .await?;
    let log = bench.rig.folder().join("kvs-edge.log");
    let daemon = Daemon::start(&arguments.daemon, &bench.file, &[], &log)?;
    let process = Process::begun(daemon.pid());
    // The daemon's session comes first, so that it can be told from ffmpeg's.
    bench.all_play().await?;
    let mut others = Vec::new();
    if !arguments.no_ffmpeg {
        for camera in 0..cameras {
            others.push(Peer::ffmpeg(&bench.rig.sim.url(camera))?);
        }
    }
    let mut sinks = Vec::new();
    if let Some(plugin) = kvssink(arguments) {
        for camera in 0..cameras {
            sinks.push(Peer::kvssink(&plugin, &bench.rig, camera)?);
        }
    }
    tokio::time::sleep(Duration::from_secs(arguments.warm_up)).await;
    let (begin, at_begin) = (process.used()?, process.memory()?);
    let used = |others: &[Peer]| others.iter().map(|peer| peer.process.used()).collect::<Result<Vec<_>, _>>();
    let (others_begin, sinks_begin) = (used(&others)?, used(&sinks)?);
    tokio::time::sleep(Duration::from_secs(arguments.seconds)).await;
    let (end, at_end) = (process.used()?, process.memory()?);
    let (others_end, sinks_end) = (used(&others)?, used(&sinks)?);
    let memory = |peers: &[Peer]| peers.first().map(|peer| peer.process.memory()).transpose();
    let (ffmpeg_memory, kvssink_memory) = (memory(&others)?, memory(&sinks)?);

    #[expect(clippy::cast_precision_loss, reason = "a number of cameras")]
    let count = cameras as f64;
    let percent = |begin: &[Used], end: &[Used]| {
        let window = begin.iter().zip(end).map(|(begin, end)| end.percent_since(begin));
        (!begin.is_empty()).then(|| window.sum::<f64>() / count)
    };
    let ffmpeg_percent = percent(&others_begin, &others_end);
    let kvssink_percent = percent(&sinks_begin, &sinks_end);
    for camera in (0..cameras).filter(|_| !sinks.is_empty()) {
        // A figure of something that does not upload would be no comparison.
        if bench.rig.kvs.fragments(&peers::kvssink_stream(camera)).await?.is_empty() {
            return Err(format!("kvssink stored nothing of camera {camera}").into());
        }
    }
    let whole = others_end.iter().map(Used::percent);
    let ffmpeg_whole_percent = (!others.is_empty()).then(|| whole.sum::<f64>() / count);
    drop((others, sinks));
    bench.end(daemon).await?;
    let figures = Figures::of(&bench).await?;
    bench.stop().await;
    Ok(Run {
        daemon_percent: end.percent_since(&begin) / count,
        ffmpeg_percent,
        daemon_whole_percent: end.percent() / count,
        ffmpeg_whole_percent,
        at_begin,
        at_end,
        ffmpeg_memory,
        kvssink_percent,
        kvssink_memory,
        latency: figures.read_back_latency(),
        figures,
    })
}

type Row<'a> = (usize, &'a str, Vec<Run>);

fn cpu_table(rows: &[Row]) -> String {
    let mut table = "| cameras | verify | daemon, % of a core per camera | ffmpeg, % per camera | ratio | \
                     whole process: daemon | ffmpeg | ratio |\n|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for (cameras, verify, runs) in rows {
        // Each ratio is of two that ran side by side.
        let ratio = |run: &Run| Some(run.daemon_percent / run.ffmpeg_percent?);
        let whole_ratio = |run: &Run| Some(run.daemon_whole_percent / run.ffmpeg_whole_percent?);
        table += &format!(
            "| {cameras} | {verify} | {} | {} | {} | {} | {} | {} |\n",
            median(runs, |run| Some(run.daemon_percent)),
            median(runs, |run| run.ffmpeg_percent),
            median(runs, ratio),
            median(runs, |run| Some(run.daemon_whole_percent)),
            median(runs, |run| run.ffmpeg_whole_percent),
            median(runs, whole_ratio),
        );
    }
    table
}

fn kvssink_table(rows: &[Row]) -> String {
    let mut table = "| cameras | verify | daemon, % of a core per camera | kvssink, % per camera | ratio | \
                     daemon, MiB per camera | kvssink, MiB, one process | ratio |\n|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for (cameras, verify, runs) in rows {
        #[expect(clippy::cast_precision_loss, reason = "a number of cameras")]
        let mib = |run: &Run| run.at_end.resident_mib / *cameras as f64;
        table += &format!(
            "| {cameras} | {verify} | {} | {} | {} | {} | {} | {} |\n",
            median(runs, |run| Some(run.daemon_percent)),
            median(runs, |run| run.kvssink_percent),
            median(runs, |run| Some(run.daemon_percent / run.kvssink_percent?)),
            median(runs, |run| Some(mib(run))),
            median(runs, |run| Some(run.kvssink_memory?.resident_mib)),
            median(runs, |run| Some(mib(run) / run.kvssink_memory?.resident_mib)),
        );
    }
    table
}

fn loss_table(rows: &[Row]) -> String {
    let mut table = "| cameras | verify | pictures sent | stored | missing between the first and the last stored | \
                     RTP packets lost | pictures dropped | fragments | persisted | camera to read back, p50 ms | \
                     p95 ms |\n|---|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for (cameras, verify, runs) in rows {
        let sum = |figure: fn(&Run) -> u64| runs.iter().map(figure).sum::<u64>();
        table += &format!(
            "| {cameras} | {verify} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
            sum(|run| run.figures.stored.sent),
            sum(|run| run.figures.stored.pictures),
            sum(|run| run.figures.stored.missing),
            sum(|run| run.figures.lost_packets),
            sum(|run| run.figures.dropped_frames),
            sum(|run| run.figures.fragments),
            sum(|run| run.figures.persisted),
            median(runs, |run| Some(run.latency?.p50_ms)),
            median(runs, |run| Some(run.latency?.p95_ms)),
        );
    }
    table
}

fn memory_table(rows: &[Row]) -> String {
    let mut table =
        "| cameras | verify | resident after start-up, MiB | at the end | peak | per further camera | \
                     ffmpeg, one process |\n|---|---|---|---|---|---|---|\n"
            .to_owned();
    for (cameras, verify, runs) in rows {
        let one = rows.iter().find(|(count, mode, _)| *count == 1 && mode == verify).filter(|_| *cameras > 1);
        #[expect(clippy::cast_precision_loss, reason = "a number of cameras")]
        let further = one.and_then(|(_, _, one)| {
            let rss = |runs: &[Run]| middle(runs, |run| Some(run.at_end.resident_mib));
            Some((rss(runs)? - rss(one)?) / (cameras - 1) as f64)
        });
        table += &format!(
            "| {cameras} | {verify} | {} | {} | {} | {} | {} |\n",
            median(runs, |run| Some(run.at_begin.resident_mib)),
            median(runs, |run| Some(run.at_end.resident_mib)),
            median(runs, |run| Some(run.at_end.peak_mib)),
            further.map_or_else(|| "-".to_owned(), |mib| format!("{mib:.2}")),
            median(runs, |run| Some(run.ffmpeg_memory?.resident_mib)),
        );
    }
    table
}

fn middle(runs: &[Run], figure: impl Fn(&Run) -> Option<f64>) -> Option<f64> {
    let mut figures: Vec<_> = runs.iter().filter_map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

fn median(runs: &[Run], figure: impl Fn(&Run) -> Option<f64>) -> String {
    middle(runs, figure).map_or_else(|| "-".to_owned(), |figure| format!("{figure:.2}"))
}
