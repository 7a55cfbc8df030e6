//! What a probe found, as JSON and as a table for people.

use std::fmt;

use health::Problem;
use serde::Serialize;
use serde::ser::SerializeStruct as _;

/// Everything that was learnt about a camera.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Without the query, which may hold a password.
    pub url: String,
    /// `Server:` of the OPTIONS answer, or the tool of the session description.
    pub server: Option<String>,
    /// `Public:` of the OPTIONS answer; sessions are kept alive by GET_PARAMETER where it is there, else by OPTIONS.
    pub methods: Vec<String>,
    /// `tcp` or `udp`; absent when no track was set up.
    pub transport: Option<&'static str>,
    pub tracks: Vec<TrackReport>,
    pub video: Option<VideoReport>,
    pub audio: Option<AudioReport>,
    pub clock: Option<ClockReport>,
    pub steps: StepTimes,
    /// The worst first.
    #[serde(rename = "problems")]
    pub findings: Vec<Finding>,
}

/// One track of the session description.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrackReport {
    /// `video`, `audio`, `application`.
    pub media: String,
    /// As in the session description, lower case: `h264`, `mpeg4-generic`.
    pub encoding: String,
    pub clock_rate_hz: u32,
    pub payload_type: u8,
    /// Whether it would be uploaded.
    pub taken: bool,
}

/// Measured over the pictures that arrived.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VideoReport {
    /// RFC 6381; absent while parameter sets are.
    pub codec: Option<String>,
    /// Pixels after cropping.
    pub size: Option<[u32; 2]>,
    pub frames: u64,
    pub fps_measured: Option<f64>,
    /// By the session description, else by the parameter sets.
    pub fps_declared: Option<f64>,
    pub bitrate_bps: Option<u64>,
    pub largest_frame_bytes: usize,
    /// The longest whole GOP.
    pub gop_frames: Option<u32>,
    pub gop_s: Option<f64>,
    /// Where no GOP was seen whole: it is at least this long.
    pub gop_longer_than_s: Option<f64>,
    /// Pictures do not come in the order they are shown in: B-frames.
    pub reordered: bool,
    pub parameter_sets: ParameterSets,
    pub lost_packets: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ParameterSets {
    /// In the session description.
    Sdp,
    /// Only among the pictures.
    Inline,
    /// Nowhere.
    Missing,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AudioReport {
    /// Encoding name of the session description.
    pub codec: String,
    pub sample_rate_hz: u32,
    pub channels: u16,
    pub bitrate_bps: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClockReport {
    /// RTCP sender reports of the video track.
    pub sender_reports: u32,
    /// Camera clock minus ours, the median; includes the way here.
    pub offset_ms: Option<f64>,
}

/// How long each step took.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StepTimes {
    pub connect_ms: u64,
    pub describe_ms: u64,
    pub setup_ms: Option<u64>,
    pub play_ms: Option<u64>,
    /// From the answer to PLAY to the first picture, and to the first one that decoding can begin at.
    pub first_picture_ms: Option<u64>,
    pub first_key_ms: Option<u64>,
}

/// A problem, and how bad it is for recording this camera.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    pub problem: Problem,
}

/// As `{"severity", "code", "text", "fix"}`.
impl Serialize for Finding {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_struct("Finding", 4)?;
        map.serialize_field("severity", &self.severity)?;
        map.serialize_field("code", &self.problem.reason)?;
        map.serialize_field("text", &self.problem.found)?;
        map.serialize_field("fix", &self.problem.fix)?;
        map.end()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// This camera cannot be uploaded like this.
    Error,
    /// It works, less well than it could.
    Warning,
    /// Good to know.
    Note,
}

impl Report {
    /// Whether the daemon could upload this camera.
    pub fn is_usable(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity != Severity::Error)
    }
}

/// The table; several lines, the last without a line end.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_table(f, Vec::new())
    }
}

impl Report {
    /// Writes the table with `more` rows (name and value) behind those of the camera.
    pub fn write_table(&self, f: &mut fmt::Formatter<'_>, more: Vec<(&'static str, String)>) -> fmt::Result {
        let mut rows = self.rows();
        rows.extend(more);
        rows.push(("keepalive", self.keepalive().to_owned()));
        rows.push(("timing", self.steps.to_string()));
        for (name, value) in rows {
            writeln!(f, "{name:<12}{value}")?;
        }
        for finding in &self.findings {
            let severity = match finding.severity {
                Severity::Error => "ERROR",
                Severity::Warning => "warning",
                Severity::Note => "note",
            };
            writeln!(f, "{severity:<12}{}", finding.problem)?;
        }
        write!(f, "{:<12}{}", "verdict", if self.is_usable() { "usable" } else { "not usable" })
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows: Vec<(&'static str, String)> = vec![("camera", self.url.clone())];
        rows.extend(self.server.clone().map(|server| ("server", server)));
        rows.extend(self.transport.map(|transport| ("transport", transport.to_owned())));
        for track in &self.tracks {
            let taken = if track.taken { "" } else { ", not taken" };
            rows.push((
                "track",
                format!("{} {} at {} Hz{taken}", track.media, track.encoding, track.clock_rate_hz),
            ));
        }
        if let Some(video) = &self.video {
            rows.extend(video.rows());
        }
        if let Some(audio) = &self.audio {
            let rate = audio.bitrate_bps.map_or(String::new(), |rate| format!(", {}", bitrate(rate)));
            rows.push((
                "audio",
                format!("{} {} Hz, {} channel(s){rate}", audio.codec, audio.sample_rate_hz, audio.channels),
            ));
        }
        if let Some(clock) = &self.clock {
            rows.push((
                "clock",
                match clock.offset_ms {
                    Some(offset) => {
                        format!("{} sender reports, camera {offset:+.1} ms from ours", clock.sender_reports)
                    }
                    None => "no sender reports: our receive time is used".to_owned(),
                },
            ));
        }
        rows
    }

    fn keepalive(&self) -> &'static str {
        match self.methods.iter().any(|method| method == "GET_PARAMETER") {
            true => "GET_PARAMETER",
            false => "OPTIONS",
        }
    }
}

impl VideoReport {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut video = vec![self.codec.clone().unwrap_or_else(|| "codec unknown".to_owned())];
        video.extend(self.size.map(|[width, height]| format!("{width}x{height}")));
        video.extend(self.bitrate_bps.map(bitrate));
        video.push(format!("{} pictures", self.frames));
        let fps = match (self.fps_measured, self.fps_declared) {
            (Some(measured), Some(declared)) => format!("{measured:.2} measured, {declared:.2} declared"),
            (Some(measured), None) => format!("{measured:.2} measured, none declared"),
            (None, Some(declared)) => format!("not measured, {declared:.2} declared"),
            (None, None) => "not measured, none declared".to_owned(),
        };
        let gop = match (self.gop_frames, self.gop_s, self.gop_longer_than_s) {
            (Some(frames), Some(seconds), _) => format!("{frames} pictures, {seconds:.2} s"),
            (_, _, Some(seconds)) => format!("longer than {seconds:.1} s"),
            _ => "not seen".to_owned(),
        };
        let order = if self.reordered { "reordered (B-frames)" } else { "as shown (no B-frames)" };
        let sets = match self.parameter_sets {
            ParameterSets::Sdp => "in the session description",
            ParameterSets::Inline => "only among the pictures",
            ParameterSets::Missing => "missing",
        };
        vec![
            ("video", video.join(", ")),
            ("fps", fps),
            ("gop", gop),
            ("order", order.to_owned()),
            ("parameters", sets.to_owned()),
            ("loss", format!("{} RTP packets", self.lost_packets)),
        ]
    }
}

fn bitrate(bps: u64) -> String {
    if bps >= 1_000_000 {
        format!("{:.2} Mbit/s", bps as f64 / 1e6)
    } else {
        format!("{:.1} kbit/s", bps as f64 / 1e3)
    }
}

impl fmt::Display for StepTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connect {} ms, DESCRIBE {} ms", self.connect_ms, self.describe_ms)?;
        let steps = [
            ("SETUP", self.setup_ms),
            ("PLAY", self.play_ms),
            ("first picture", self.first_picture_ms),
            ("first key picture", self.first_key_ms),
        ];
        for (name, ms) in steps {
            if let Some(ms) = ms {
                write!(f, ", {name} {ms} ms")?;
            }
        }
        Ok(())
    }
}
