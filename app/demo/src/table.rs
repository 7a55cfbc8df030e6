//! The live table on the terminal: one line per camera, redrawn in place, or printed now and then into a file.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use clock::Clock;
use messages::{CameraState, ClockSource, ON, Percentiles};

use crate::published::PublishedCamera;

/// Into a file or pipe the table goes this often.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

pub(crate) struct Table {
    live: bool,
    drawn: usize,
    notes: Vec<String>,
    printed: Option<Instant>,
    clock: Clock,
}

impl Table {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { live: std::io::stdout().is_terminal(), drawn: 0, notes: Vec::new(), printed: None, clock }
    }

    /// A line that stays below the table.
    pub(crate) fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
        self.printed = None;
    }

    pub(crate) fn show(&mut self, elapsed: Duration, cameras: &[PublishedCamera], messages: u64) {
        if !self.live && self.printed.is_some_and(|at| self.clock.since(at) < PLAIN_EVERY) {
            return;
        }
        self.printed = Some(self.clock.now());
        let mut lines = vec![format!("{:>4} s   {messages} MQTT messages", elapsed.as_secs())];
        lines.extend(HEAD.map(str::to_owned));
        lines.extend(cameras.iter().map(row));
        let analytics: Vec<_> = cameras.iter().filter_map(analytics_row).collect();
        if !analytics.is_empty() {
            lines.push(ANALYTICS_HEAD.to_owned());
            lines.extend(analytics);
        }
        lines.extend(self.notes.iter().cloned());
        self.draw(&lines);
    }

    /// The table stays as it is, and the text goes below.
    pub(crate) fn finish(&mut self, text: &str) {
        self.drawn = 0;
        self.draw(&[text.to_owned()]);
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

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

/// `None` where nothing is to be detected.
fn analytics_row(camera: &PublishedCamera) -> Option<String> {
    let stats = camera.stats.as_ref()?;
    let detect = stats.detect.as_ref()?;
    let present = camera.counts.iter().filter(|(_, count)| **count > 0);
    let objects: Vec<_> = present.map(|(label, count)| format!("{count} {label}")).collect();
    let p95 = |times: Option<Percentiles>| or_dash(times.map(|times| format!("{:.1} ms", times.p95_ms)));
    Some(format!(
        "{:<8} {:<13} {:>9.1} {:>11.1} {:>14} {:>20}  {:<6}  {:<30} {:>7}",
        camera.id,
        or_dash(detect.decoder.clone()),
        stats.fps.decoded.unwrap_or_default(),
        stats.fps.inferred.unwrap_or_default(),
        p95(detect.inference),
        p95(detect.latency),
        camera.motion.as_ref().map_or("-", |motion| if motion == ON { "yes" } else { "no" }),
        objects.join(", "),
        detect.events,
    ))
}

fn row(camera: &PublishedCamera) -> String {
    let PublishedCamera { id, status, stats, upload, verify, .. } = camera;
    let (status, stats) = (status.as_ref(), stats.as_ref());
    let (upload, verify) = (upload.as_ref(), verify.as_ref());
    let state = match status.map(|status| status.state) {
        Some(CameraState::Online) => "online",
        Some(CameraState::Degraded) => "degraded",
        Some(CameraState::Offline) => "offline",
        Some(CameraState::Disabled) => "disabled",
        None => "-",
    };
    let clock = match stats.and_then(|stats| stats.clock) {
        Some(ClockSource::Rtcp) => "camera",
        Some(ClockSource::Receive) => "receive",
        Some(ClockSource::File) => "file",
        Some(ClockSource::Producer) => "producer",
        None => "-",
    };
    #[expect(clippy::cast_precision_loss, reason = "a bit rate")]
    let kbps = stats.map_or(0.0, |stats| stats.bitrate_bps as f64 / 1000.0);
    let latency = stats.and_then(|stats| stats.latency);
    let ms = |of: fn(Percentiles) -> f64| or_dash(latency.map(|latency| format!("{:.0}", of(latency))));
    let problem = status.and_then(|status| status.detail.clone());
    let problem = problem.or_else(|| upload?.detail.clone()).or_else(|| verify?.detail.clone());
    let problem: String = or_dash(problem).chars().take(60).collect();
    format!(
        "{:<8} {:<9} {:>4.1} {:>7.0} {:>6} {:>6} {:>7} {:>7} {:>8} {:>10}   {:<8} {:>5.1} s  {}",
        id,
        state,
        stats.map_or(0.0, |stats| stats.fps.input),
        kbps,
        upload.map_or(0, |upload| upload.fragments_sent),
        upload.map_or(0, |upload| upload.fragments_persisted),
        verify.map_or(0, |verify| verify.identical),
        or_dash(upload.and_then(|upload| Some(upload.ack_delay_ms?.to_string()))),
        ms(|latency| latency.p50_ms),
        ms(|latency| latency.p95_ms),
        clock,
        upload.map_or(0.0, |upload| upload.backlog_s),
        problem
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TS: &str = "2026-11-20T14:03:22.417Z";

    fn body<T: serde::de::DeserializeOwned>(body: serde_json::Value) -> Option<T> {
        Some(serde_json::from_value(body).expect("a body of the contract"))
    }

    fn camera() -> PublishedCamera {
        PublishedCamera {
            id: "cam0".to_owned(),
            status: body(json!({"v": 1, "ts": TS, "state": "online", "since": TS, "attempts": 0})),
            stats: body(json!({
                "v": 1, "ts": TS, "window_s": 1.0, "fps": {"in": 24.94, "dropped": 0.0, "decoded": 24.9, "inferred": 10.0},
                "bitrate_bps": 2_328_400, "clock": "rtcp", "lost_packets": 0, "dropped_frames": 0, "reconnects_1h": 0,
                "stalls_1h": 0, "latency": {"p50_ms": 6.2, "p95_ms": 473.6},
                "detect": {"detections": 9, "events": 46, "decoder": "avdec_h264", "damaged": 0, "rebuilt": 0,
                           "skipped": 0, "inference": {"p50_ms": 9.0, "p95_ms": 14.54}}
            })),
            upload: body(json!({
                "v": 1, "ts": TS, "state": "sending", "since": TS, "stream": "cam0", "ack_delay_ms": 35, "backlog_s": 1.25,
                "backlog_bytes": 9, "fragments_sent": 12, "fragments_persisted": 11, "fragments_lost": 0, "gaps_24h": 0,
                "gaps": [], "detail": "an error ack"
            })),
            verify: body(json!({
                "v": 1, "ts": TS, "verdict": "ok", "since": TS, "method": "continuous", "compared": 10, "identical": 10,
                "corrupt": 0, "missing": 0, "duplicate": 0, "listed": 9, "late": 0, "open_gaps": [], "detail": "later"
            })),
            motion: Some("ON".to_owned()),
            counts: [("bicycle", 0), ("person", 11), ("vehicle", 5)].map(|(l, n)| (l.to_owned(), n)).into(),
        }
    }

    #[test]
    fn a_camera_is_one_line_of_what_was_published() {
        let expected = "cam0     online    24.9    2328     12     11      10      35        6        474   camera     \
                        1.2 s  an error ack";
        assert_eq!(row(&camera()), expected);
        let expected = "cam0     avdec_h264         24.9        10.0        14.5 ms                    -  yes     \
                        11 person, 5 vehicle                46";
        assert_eq!(analytics_row(&camera()).as_deref(), Some(expected));
    }

    #[test]
    fn what_was_not_published_yet_is_a_dash() {
        let silent = PublishedCamera { id: "cam1".to_owned(), ..PublishedCamera::default() };
        let expected = "cam1     -          0.0       0      0      0       0       -        -          -   -          \
                        0.0 s  -";
        assert_eq!(row(&silent), expected);
        assert_eq!(analytics_row(&silent), None);
    }
}
