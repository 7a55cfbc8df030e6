//! What the whole daemon costs with detection and without: a child process, which alone is measured.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use camera_sim::ClipSpec;
use messages::{CameraSummary, Detector, Percentiles, Stats, Upload, WorkerSummary};

use crate::process::{Child, Memory};
use crate::proof::{self, Stored};
use crate::surroundings::Surroundings;
use crate::{Arguments, Error};

/// One run of the daemon.
pub(crate) struct Run {
    cameras: usize,
    /// Pictures per second and camera; 0: no detection.
    fps: u32,
    /// CPU time in the measured window, percent of one core, all cameras together.
    percent: f64,
    memory: Memory,
    /// Pictures looked at per second in the window, all cameras together.
    looked_per_second: f64,
    summary: Option<WorkerSummary>,
    /// Of the camera with the median p50.
    latency: Option<Percentiles>,
    /// Sums over the cameras.
    stored: Stored,
    lost_packets: u64,
    dropped_frames: u64,
    fragments: u64,
    persisted: u64,
    lost: u64,
}

pub(crate) async fn measure(
    arguments: &Arguments,
    clip: ClipSpec,
    cameras: usize,
    fps: u32,
) -> Result<Run, Error> {
    let around = Surroundings::start(cameras, clip).await?;
    let output = around.folder().join("output");
    let detect = if fps > 0 { format!("[detect]\nfps = {fps}\n") } else { String::new() };
    let config = around.write_config(&detect)?;
    let mut daemon = Child::daemon(&arguments.daemon, &config, File::create(&output)?)?;
    for camera in 0..cameras {
        let playing = around.sim.wait_stats(camera, |stats| stats.sessions > 0);
        tokio::time::timeout(Duration::from_secs(20), playing).await?;
    }
    tokio::time::sleep(Duration::from_secs(arguments.warm_up)).await;
    let looked = || (fps > 0).then(|| around.newest::<Detector>(&around.topics.detector())).transpose();
    let (begin, looked_begin) = (daemon.used()?, looked()?);
    tokio::time::sleep(Duration::from_secs(arguments.cost_seconds)).await;
    let (end, looked_end, memory) = (daemon.used()?, looked()?, daemon.memory()?);
    // The daemon completes its last fragments, publishes its last figures and ends.
    daemon.stop(Duration::from_secs(20)).await?;
    tokio::time::timeout(Duration::from_secs(5), around.offline()).await?;

    let mut stored = Stored::default();
    let (mut lost_packets, mut dropped_frames, mut fragments, mut persisted, mut lost) = (0, 0, 0, 0, 0);
    let mut latencies = Vec::new();
    for camera in 0..cameras {
        stored += proof::look(&around, camera).await?;
        let name = format!("cam{camera}");
        let stats: Stats = around.newest(&around.topics.stats(&name))?;
        let upload: Upload = around.newest(&around.topics.upload(&name))?;
        lost_packets += stats.lost_packets;
        dropped_frames += stats.dropped_frames;
        fragments += upload.fragments_sent;
        persisted += upload.fragments_persisted;
        lost += upload.fragments_lost;
        latencies.extend(stats.detect.and_then(|detect| detect.latency));
    }
    latencies.sort_by(|a, b| a.p50_ms.total_cmp(&b.p50_ms));
    let summary = (fps > 0).then(|| last_word(&output)).transpose()?;
    around.stop().await;
    Ok(Run {
        cameras,
        fps,
        percent: end.percent_since(&begin),
        memory,
        looked_per_second: looked_begin.zip(looked_end).map_or(0.0, |(begin, end)| rate(&begin, &end)),
        summary,
        latency: latencies.get(latencies.len() / 2).copied(),
        stored,
        lost_packets,
        dropped_frames,
        fragments,
        persisted,
        lost,
    })
}

fn last_word(output: &Path) -> Result<WorkerSummary, Error> {
    let text = std::fs::read_to_string(output)?;
    Ok(serde_json::from_str(text.lines().last().ok_or("the daemon said nothing about its detection")?)?)
}

#[expect(clippy::cast_precision_loss, reason = "pictures and milliseconds of minutes")]
fn rate(begin: &Detector, end: &Detector) -> f64 {
    let frames = end.total.frames.saturating_sub(begin.total.frames) as f64;
    let ms = end.ts.as_millis().saturating_sub(begin.ts.as_millis()) as f64;
    1000.0 * frames / ms.max(1.0)
}

pub(crate) fn speed_table(runs: &[Run]) -> String {
    let mut table = "| cameras | detection, pictures per second and camera | reached | CPU, % of a core | \
                     resident, MiB | peak, MiB | inference mean, ms | min | max | p95 | \
                     camera to MQTT p50, ms | p95 |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for run in runs {
        let spread = run.summary.as_ref().and_then(|summary| summary.figures.inference_ms);
        let ms = |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"));
        #[expect(clippy::cast_precision_loss, reason = "a number of cameras")]
        let reached = (run.fps > 0).then(|| run.looked_per_second / run.cameras as f64);
        table += &format!(
            "| {} | {} | {} | {:.1} | {:.1} | {:.1} | {} | {} | {} | {} | {} | {} |\n",
            run.cameras,
            if run.fps > 0 { run.fps.to_string() } else { "off".to_owned() },
            ms(reached),
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
    table
}

pub(crate) fn loss_table(runs: &[Run]) -> String {
    let mut table = "| cameras | detection | pictures sent | stored | missing between the first and the last stored | \
                     RTP packets lost | pictures dropped | fragments sent | persisted | lost | pictures decoded | \
                     looked at | skipped | damaged |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for run in runs {
        let cameras = run.summary.iter().flat_map(|summary| &summary.cameras);
        let sum = |figure: fn(&CameraSummary) -> u64| cameras.clone().map(figure).sum::<u64>();
        table += &format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
            run.cameras,
            run.fps,
            run.stored.sent,
            run.stored.pictures,
            run.stored.missing,
            run.lost_packets,
            run.dropped_frames,
            run.fragments,
            run.persisted,
            run.lost,
            sum(|camera| camera.decoded),
            sum(|camera| camera.figures.frames),
            sum(|camera| camera.skipped),
            sum(|camera| camera.damaged),
        );
    }
    table
}
