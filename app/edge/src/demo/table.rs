//! The live table on the terminal: one line per camera, redrawn in place, or printed now and then into a file.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use vision::figures::Histogram;

use crate::camera::CameraView;
use crate::status::{BoxStatus, backlog};
use health::CameraState;
use media::ClockSource;

/// Into a file or pipe the table goes this often.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

pub(super) struct Table {
    live: bool,
    drawn: usize,
    notes: Vec<String>,
    before: Vec<[u64; 4]>,
    looked: Instant,
    rates: Vec<[f64; 4]>,
    printed: Option<Instant>,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            live: std::io::stdout().is_terminal(),
            drawn: 0,
            notes: Vec::new(),
            before: Vec::new(),
            looked: Instant::now(),
            rates: Vec::new(),
            printed: None,
        }
    }

    /// A line that stays below the table.
    pub(super) fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
        self.printed = None;
    }

    pub(super) fn show(
        &mut self,
        elapsed: Duration,
        cameras: &[CameraView],
        status: &BoxStatus,
        messages: u64,
    ) {
        self.measure(cameras);
        if !self.live && self.printed.is_some_and(|at| at.elapsed() < PLAIN_EVERY) {
            return;
        }
        self.printed = Some(Instant::now());
        let mut lines = vec![format!("{:>4} s   {messages} MQTT messages", elapsed.as_secs())];
        lines.extend(HEAD.map(str::to_owned));
        lines.extend(cameras.iter().zip(&self.rates).map(|(camera, rates)| row(camera, rates, status)));
        let analytics =
            cameras.iter().zip(&self.rates).filter_map(|(camera, rates)| analytics_row(camera, rates));
        let analytics: Vec<_> = analytics.collect();
        if !analytics.is_empty() {
            lines.push(ANALYTICS_HEAD.to_owned());
            lines.extend(analytics);
        }
        lines.extend(self.notes.iter().cloned());
        self.draw(&lines);
    }

    /// The table stays as it is, and the text goes below.
    pub(super) fn finish(&mut self, text: &str) {
        self.drawn = 0;
        self.draw(&[text.to_owned()]);
    }

    fn measure(&mut self, cameras: &[CameraView]) {
        let now: Vec<_> = cameras.iter().map(counters).collect();
        let seconds = self.looked.elapsed().as_secs_f64();
        if self.before.len() == now.len() && seconds < 0.2 {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "counts of one second")]
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds.max(0.001);
        let before = if self.before.len() == now.len() { self.before.clone() } else { now.clone() };
        self.rates = now
            .iter()
            .zip(&before)
            .map(|(now, before)| std::array::from_fn(|n| rate(now[n], before[n])))
            .collect();
        self.before = now;
        self.looked = Instant::now();
    }

    fn draw(&mut self, lines: &[String]) {
        let mut text = String::new();
        if self.live && self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A", self.drawn));
        }
        for line in lines {
            text.push_str(line);
            text.push_str(if self.live { "\x1b[K\n" } else { "\n" });
        }
        self.drawn = lines.len();
        let mut out = std::io::stdout();
        // A closed terminal is no reason to stop the demo.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

const HEAD: [&str; 2] = [
    "camera   state      fps  kbit/s   sent  pers.  verif.  ack ms  camera to read-back  clock     backlog  last problem",
    "                                                               p50 ms     p95 ms",
];

const ANALYTICS_HEAD: &str = "camera   decoder       decoded/s  detected/s  inference p95  picture to MQTT p95  motion  \
     objects now                     events";

/// Pictures and bytes received, pictures decoded, pictures looked at.
fn counters(camera: &CameraView) -> [u64; 4] {
    let (pictures, bytes) = (camera.ingest.borrow().frames, camera.ingest.borrow().bytes);
    let analytics = camera.analytics.as_ref();
    let decoded = analytics.and_then(|analytics| Some(analytics.report.borrow().decode.as_ref()?.decoded));
    let detected = analytics.map(|analytics| analytics.figures.figures().frames);
    [pictures, bytes, decoded.unwrap_or(0), detected.unwrap_or(0)]
}

fn analytics_row(camera: &CameraView, rates: &[f64; 4]) -> Option<String> {
    let analytics = camera.analytics.as_ref()?;
    let report = analytics.report.borrow();
    let figures = analytics.figures.figures();
    let present = report.counts.iter().filter(|(_, count)| **count > 0);
    let objects: Vec<_> = present.map(|(label, count)| format!("{count} {label}")).collect();
    let ms = |times: &Histogram| {
        let p95 = times.quantile(0.95);
        p95.map_or("-".to_owned(), |p95| format!("{:.1} ms", p95.as_secs_f64() * 1000.0))
    };
    Some(format!(
        "{:<8} {:<13} {:>9.1} {:>11.1} {:>14} {:>20}  {:<6}  {:<30} {:>7}",
        camera.config.id,
        report.decode.as_ref().and_then(|decode| decode.decoder.clone()).unwrap_or_else(|| "-".to_owned()),
        rates[2],
        rates[3],
        ms(&figures.recent),
        ms(&report.recent_latency),
        match report.moving {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        },
        objects.join(", "),
        report.events,
    ))
}

fn row(camera: &CameraView, rates: &[f64; 4], status: &BoxStatus) -> String {
    let (fps, kbps) = (rates[0], rates[1] * 8.0 / 1000.0);
    let health =
        status.cameras.iter().find(|status| status.id == camera.config.id).map(|status| &status.health);
    let (ingest, upload, verify) = (camera.ingest.borrow(), camera.upload.borrow(), camera.verify.borrow());
    let name = match health.map(|health| health.state) {
        Some(CameraState::Online) => "online",
        Some(CameraState::Degraded) => "degraded",
        Some(CameraState::Offline) => "offline",
        Some(CameraState::Disabled) => "disabled",
        None => "-",
    };
    let clock = match ingest.clock {
        Some(ClockSource::Rtcp) => "camera",
        Some(ClockSource::Receive) => "receive",
        None => "-",
    };
    let latency = verify.latency.percentiles();
    let ms = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.0}"));
    let problem = health
        .and_then(|health| Some(health.problem.as_ref()?.to_string()))
        .or_else(|| upload.problem.clone().map(|problem| problem.to_string()))
        .or_else(|| verify.problem.clone().map(|problem| problem.to_string()));
    let problem: String = problem.unwrap_or_else(|| "-".to_owned()).chars().take(60).collect();
    format!(
        "{:<8} {:<9} {:>4.1} {:>7.0} {:>6} {:>6} {:>7} {:>7} {:>8} {:>10}   {:<8} {:>5.1} s  {}",
        camera.config.id,
        name,
        fps,
        kbps,
        upload.complete,
        upload.persisted,
        verify.counts.identical + verify.counts.late,
        upload.ack_delay.map_or("-".to_owned(), |delay| delay.as_millis().to_string()),
        ms(latency.map(|l| l.p50_ms)),
        ms(latency.map(|l| l.p95_ms)),
        clock,
        backlog(&upload).as_secs_f64(),
        problem
    )
}
