//! What the whole daemon costs with detection and without: a child process, which alone is measured.

use std::path::Path;
use std::time::Duration;

use camera_sim::ClipSpec;
use demo::daemon::Daemon;
use messages::{CameraSummary, Detector, NotAdmitted, Percentiles, WorkerSummary};

use crate::Arguments;
use crate::measured::{Bench, Error, Figures, Memory, Process};

/// What a daemon is given to do.
pub(crate) struct Load {
    /// Feeds and model, for people.
    pub(crate) what: String,
    pub(crate) clip: ClipSpec,
    /// Lines of `[detect]`, without the rate.
    pub(crate) detect: String,
    pub(crate) cameras: usize,
    /// Pictures per second and camera; 0: no detection.
    pub(crate) fps: u32,
}

/// One run of the daemon.
pub(crate) struct Run {
    what: String,
    cameras: usize,
    /// Pictures per second and camera; 0: no detection.
    fps: u32,
    /// CPU time in the measured window, percent of one core, all cameras together.
    percent: f64,
    memory: Memory,
    /// Pictures detected in per second in the window, all cameras together.
    detected_per_second: f64,
    summary: Option<WorkerSummary>,
    /// Cameras that get less than their rate, at the end.
    not_admitted: Vec<NotAdmitted>,
    /// Of the camera with the median p50.
    latency: Option<Percentiles>,
    figures: Figures,
}

pub(crate) async fn measure(arguments: &Arguments, load: &Load) -> Result<Run, Error> {
    let Load { what, clip, detect, cameras, fps } = load;
    let (cameras, fps, clip) = (*cameras, *fps, clip.clone());
    let detect = if fps > 0 { format!("{detect}fps = {fps}\n") } else { "enabled = false\n".to_owned() };
    let settings = format!("[health]\ninterval_s = 1\n\n[detect]\n{detect}");
    let bench = Bench::start(cameras, cameras, clip, &settings).await?;
    let output = bench.rig.folder().join("output");
    let daemon = Daemon::start(&arguments.daemon, &bench.file, &[], &output)?;
    let process = Process::begun(daemon.pid());
    bench.all_play().await?;
    tokio::time::sleep(Duration::from_secs(arguments.warm_up)).await;
    let detector = bench.observer.topics().detector();
    let detected = || (fps > 0).then(|| bench.observer.newest::<Detector>(&detector)).transpose();
    let (begin, detected_begin) = (process.used()?, detected()?);
    tokio::time::sleep(Duration::from_secs(arguments.cost_seconds)).await;
    let (end, detected_end, memory) = (process.used()?, detected()?, process.memory()?);
    bench.end(daemon).await?;

    let figures = Figures::of(&bench).await?;
    let summary = (fps > 0).then(|| last_word(&output)).transpose()?;
    bench.stop().await;
    Ok(Run {
        what: what.clone(),
        cameras,
        fps,
        percent: end.percent_since(&begin),
        memory,
        detected_per_second: detected_begin
            .zip(detected_end.as_ref())
            .map_or(0.0, |(begin, end)| rate(&begin, end)),
        not_admitted: detected_end.map(|end| end.not_admitted).unwrap_or_default(),
        summary,
        latency: figures.detection_latency(),
        figures,
    })
}

fn last_word(output: &Path) -> Result<WorkerSummary, Error> {
    let text = std::fs::read_to_string(output)?;
    Ok(serde_json::from_str(
        text.lines()
            .rfind(|line| line.starts_with('{'))
            .ok_or("the daemon said nothing about its detection")?,
    )?)
}

#[expect(clippy::cast_precision_loss, reason = "pictures and milliseconds of minutes")]
fn rate(begin: &Detector, end: &Detector) -> f64 {
    let frames = end.total.frames.saturating_sub(begin.total.frames) as f64;
    let ms = end.ts.as_millis().saturating_sub(begin.ts.as_millis()) as f64;
    1000.0 * frames / ms.max(1.0)
}

pub(crate) fn speed_table(runs: &[Run]) -> String {
    let mut table = "| feeds, model | cameras | detection, pictures per second and camera | reached | with their rate | CPU, % of a core | \
                     resident, MiB | peak, MiB | inference mean, ms | min | max | p95 | \
                     camera to MQTT p50, ms | p95 |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for run in runs {
        let spread = run.summary.as_ref().and_then(|summary| summary.figures.inference_ms);
        let ms = |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"));
        #[expect(clippy::cast_precision_loss, reason = "a number of cameras")]
        let reached = (run.fps > 0).then(|| run.detected_per_second / run.cameras as f64);
        table += &format!(
            "| {} | {} | {} | {} | {} | {:.1} | {:.1} | {:.1} | {} | {} | {} | {} | {} | {} |\n",
            run.what,
            run.cameras,
            if run.fps > 0 { run.fps.to_string() } else { "off".to_owned() },
            ms(reached),
            run.cameras - run.not_admitted.len(),
            run.percent,
            run.memory.resident_mib,
            run.memory.peak_mib,
            ms(spread.map(|spread| spread.mean)),
            ms(spread.map(|spread| spread.min)),
            ms(spread.map(|spread| spread.max)),
            ms(spread.map(|spread| spread.p95)),
            ms(run.latency.map(|latency| latency.p50_ms)),
            ms(run.latency.map(|latency| latency.p95_ms)),
        );
    }
    for run in runs {
        for camera in &run.not_admitted {
            let gets =
                camera.fits_fps.map_or_else(|| "nothing".to_owned(), |fps| format!("{fps:.1} a second"));
            table += &format!(
                "\n{}, {} cameras: {} gets {gets}: {}\n",
                run.what, run.cameras, camera.camera, camera.detail
            );
        }
    }
    table
}

pub(crate) fn loss_table(runs: &[Run]) -> String {
    let mut table = "| feeds, model | cameras | detection | pictures sent | stored | missing between the first and the last stored | \
                     RTP packets lost | pictures dropped | fragments sent | persisted | lost | pictures decoded | \
                     looked at | skipped | damaged |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for run in runs {
        let cameras = run.summary.iter().flat_map(|summary| &summary.cameras);
        let sum = |figure: fn(&CameraSummary) -> u64| cameras.clone().map(figure).sum::<u64>();
        table += &format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
            run.what,
            run.cameras,
            run.fps,
            run.figures.stored.sent,
            run.figures.stored.pictures,
            run.figures.stored.missing,
            run.figures.lost_packets,
            run.figures.dropped_frames,
            run.figures.fragments,
            run.figures.persisted,
            run.figures.lost,
            sum(|camera| camera.decoded),
            sum(|camera| camera.figures.frames),
            sum(|camera| camera.skipped),
            sum(|camera| camera.damaged),
        );
    }
    table
}
