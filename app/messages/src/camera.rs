//! State and figures of one camera.

use health::Reason;
use serde::{Deserialize, Serialize};

use crate::{CloudMetrics, DetectStats, UtcTime, Version};

/// Whether the camera's picture arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CameraState {
    /// Pictures arrive and are uploaded.
    Online,
    /// Pictures arrive, something else is wrong: see `reason`.
    Degraded,
    /// No pictures.
    Offline,
    /// Switched off by configuration.
    Disabled,
}

/// The state of one camera.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub v: Version,
    pub ts: UtcTime,
    pub state: CameraState,
    /// When `state` began.
    pub since: UtcTime,
    /// Absent when all is well.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Reason>,
    /// For people: found, expected, what to change.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
    /// Failed attempts to connect since the last picture.
    pub attempts: u32,
    /// When the last access unit arrived; absent when none did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_frame: Option<UtcTime>,
}

/// Where the producer timestamps of a camera come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockSource {
    /// The camera's clock, by its RTCP sender reports.
    Rtcp,
    /// Our clock at arrival, smoothed.
    Receive,
    /// Positions in a file: what `kvs-edge analyze` finds, no camera.
    File,
    /// The clock of whoever uploaded: of a camera that is a KVS stream.
    Producer,
}

/// What one camera delivered in the last `window_s`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    pub v: Version,
    pub ts: UtcTime,
    /// Length of the window that rates and percentiles are taken over.
    pub window_s: f64,
    pub fps: Fps,
    /// Of the access units, without RTP overhead.
    pub bitrate_bps: u64,
    /// Pictures and seconds from one random access point to the next, newest.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gop_frames: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gop_s: Option<f64>,
    /// RFC 6381, such as `avc1.64001F`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub codec: Option<String>,
    /// Width and height in pixels, cropped.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<[u32; 2]>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub audio_codec: Option<String>,
    /// `tcp` or `udp`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub transport: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub clock: Option<ClockSource>,
    /// Camera clock minus ours, where there are sender reports.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub clock_offset_ms: Option<f64>,
    /// Millionths by which the camera's clock is faster than the monotonic clock of the box, over the last hour; absent in the
    /// first minutes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub clock_drift_ppm: Option<f64>,
    /// Access units received since start.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub frames: Option<u64>,
    /// RTP packets lost since start.
    pub lost_packets: u64,
    /// Access units thrown away since start, waiting for a random access point after a loss.
    pub dropped_frames: u64,
    pub reconnects_1h: u32,
    pub stalls_1h: u32,
    /// From the camera's (or our receive) clock to the last byte read back from KVS.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub latency: Option<Percentiles>,
    /// Pictures read back since start that have such a time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub latency_samples: Option<u64>,
    /// The stream under the names of CloudWatch.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cloud: Option<CloudMetrics>,
    /// Absent when detection is off.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detect: Option<DetectStats>,
}

/// Pictures per second. Those of detection are absent when it is off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fps {
    /// Access units per second from the camera.
    #[serde(rename = "in")]
    pub input: f64,
    /// Access units per second thrown away.
    pub dropped: f64,
    /// Pictures out of the decoder.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub decoded: Option<f64>,
    /// Pictures through the model.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub inferred: Option<f64>,
    /// Pictures due for the model that a newer one replaced.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub skipped: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    pub p50_ms: f64,
    pub p95_ms: f64,
}

impl From<health::Percentiles> for Percentiles {
    fn from(percentiles: health::Percentiles) -> Percentiles {
        let health::Percentiles { p50_ms, p95_ms } = percentiles;
        Percentiles { p50_ms, p95_ms }
    }
}

impl From<health::CameraState> for CameraState {
    fn from(state: health::CameraState) -> CameraState {
        match state {
            health::CameraState::Online => CameraState::Online,
            health::CameraState::Degraded => CameraState::Degraded,
            health::CameraState::Offline => CameraState::Offline,
            health::CameraState::Disabled => CameraState::Disabled,
        }
    }
}

impl From<media::ClockSource> for ClockSource {
    fn from(source: media::ClockSource) -> ClockSource {
        match source {
            media::ClockSource::Rtcp => ClockSource::Rtcp,
            media::ClockSource::Receive => ClockSource::Receive,
            media::ClockSource::File => ClockSource::File,
            media::ClockSource::Producer => ClockSource::Producer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The wire form is a contract: what is absent stays absent, names and spelling do not change under `v` = 1.
    #[test]
    fn status_body_is_as_documented() {
        let since = UtcTime::from_millis(1_795_183_402_417);
        let status = Status {
            v: Version::default(),
            ts: since,
            state: CameraState::Offline,
            since,
            reason: Some(Reason::ConnectionRefused),
            detail: None,
            attempts: 3,
            last_frame: None,
        };
        let json = serde_json::to_string(&status).expect("serialises");
        assert_eq!(
            json,
            r#"{"v":1,"ts":"2026-11-20T14:03:22.417Z","state":"offline","since":"2026-11-20T14:03:22.417Z","reason":"connection_refused","attempts":3}"#
        );
        assert_eq!(serde_json::from_str::<Status>(&json).expect("reads back"), status);
        let newer = json.replace(r#""v":1"#, r#""v":1,"invented_later":[1]"#);
        assert_eq!(serde_json::from_str::<Status>(&newer).expect("unknown fields are ignored"), status);
    }

    #[test]
    fn rates_of_detection_are_absent_when_it_is_off() {
        let off = Fps { input: 25.0, dropped: 0.5, ..Fps::default() };
        let on = Fps { decoded: Some(25.0), inferred: Some(5.0), skipped: Some(0.0), ..off };
        for (fps, expected) in [
            (off, r#"{"in":25.0,"dropped":0.5}"#),
            (on, r#"{"in":25.0,"dropped":0.5,"decoded":25.0,"inferred":5.0,"skipped":0.0}"#),
        ] {
            let json = serde_json::to_string(&fps).expect("serialises");
            assert_eq!(json, expected);
            assert_eq!(serde_json::from_str::<Fps>(&json).expect("reads back"), fps);
        }
    }
}
