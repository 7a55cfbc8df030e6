//! What the box says over MQTT: topic names and JSON bodies, version 1.
//!
//! Rules of the contract: every body has `v`; times are RFC 3339 UTC with milliseconds; readers ignore fields they do
//! not know; a field whose value is not known is absent; a change that breaks readers raises `v`. Topics never hold more
//! than seven slashes (the limit of AWS IoT Core).

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Version of every body in this file, its field `v`.
pub const VERSION: u32 = 1;

/// The two payloads of [`Topics::availability`]; nothing else is ever published there.
pub const ONLINE: &str = "online";
pub const OFFLINE: &str = "offline";

/// The names of all topics of one box: `PREFIX/DEVICE/...`.
///
/// Prefix, device and camera ids are checked by the configuration: one level each, no wildcard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    base: String,
}

impl Topics {
    pub fn new(prefix: &str, device: &str) -> Topics {
        Topics { base: format!("{prefix}/{device}") }
    }

    /// `online` or `offline`; QoS 1, retained, last will.
    pub fn availability(&self) -> String {
        format!("{}/availability", self.base)
    }

    /// [`Info`]; QoS 1, retained.
    pub fn info(&self) -> String {
        format!("{}/info", self.base)
    }

    /// [`Health`]; QoS 0, retained, every `health.interval_s`.
    pub fn health(&self) -> String {
        format!("{}/health", self.base)
    }

    /// [`Status`]; QoS 1, retained, at each change.
    pub fn status(&self, camera: &str) -> String {
        format!("{}/cam/{camera}/status", self.base)
    }

    /// [`Stats`]; QoS 0, not retained, every `health.interval_s`.
    pub fn stats(&self, camera: &str) -> String {
        format!("{}/cam/{camera}/stats", self.base)
    }

    /// [`Upload`]; QoS 1, retained.
    pub fn upload(&self, camera: &str) -> String {
        format!("{}/cam/{camera}/upload", self.base)
    }

    /// [`Verify`]; QoS 1, retained.
    pub fn verify(&self, camera: &str) -> String {
        format!("{}/cam/{camera}/verify", self.base)
    }

    /// The subscription that receives everything of this box.
    pub fn everything(&self) -> String {
        format!("{}/#", self.base)
    }
}

/// A UTC time with milliseconds; on the wire `2026-11-20T14:03:22.417Z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UtcTime(i64);

impl UtcTime {
    /// The last millisecond RFC 3339 can write (year 9999).
    const MAX_MS: i64 = 253_402_300_799_999;

    /// From milliseconds since the Unix epoch; later than the year 9999 becomes its last millisecond.
    pub fn from_millis(ms: u64) -> UtcTime {
        UtcTime(i64::try_from(ms).unwrap_or(Self::MAX_MS).min(Self::MAX_MS))
    }

    /// Milliseconds since the Unix epoch.
    pub fn as_millis(self) -> u64 {
        self.0.unsigned_abs()
    }
}

/// A time before 1970 (a clock that was never set) becomes 1970.
impl From<SystemTime> for UtcTime {
    fn from(time: SystemTime) -> UtcTime {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        UtcTime::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for UtcTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = OffsetDateTime::from_unix_timestamp(self.0.div_euclid(1000)).map_err(|_| fmt::Error)?;
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second(),
            self.0.rem_euclid(1000)
        )
    }
}

impl fmt::Debug for UtcTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an RFC 3339 time between 1970 and 9999")]
pub struct TimeError {
    pub text: String,
}

impl FromStr for UtcTime {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<UtcTime, TimeError> {
        let failed = || TimeError { text: text.chars().take(64).collect() };
        let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| failed())?;
        let ms = u64::try_from(at.unix_timestamp_nanos().div_euclid(1_000_000)).map_err(|_| failed())?;
        Ok(UtcTime::from_millis(ms))
    }
}

impl Serialize for UtcTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UtcTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<UtcTime, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The fixed field `v`: writes [`VERSION`], reads any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version(pub u32);

impl Default for Version {
    fn default() -> Version {
        Version(VERSION)
    }
}

/// What the box is and runs; published at start, at a clean stop (with `stop_reason`) and when it changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Info {
    pub v: Version,
    pub ts: UtcTime,
    pub device: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// Of the hardware, from the device tree or the firmware.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub serial: Option<String>,
    /// Of kvs-edge.
    pub version: String,
    /// `PRETTY_NAME` of os-release.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub os: Option<String>,
    /// `IMAGE_VERSION` of os-release, where the system is an image.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub image_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub boot_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub boot_time: Option<UtcTime>,
    /// When this run of the daemon began.
    pub started: UtcTime,
    /// Why this run ended, in the last message before `offline`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stop_reason: Option<String>,
    pub cameras: Vec<InfoCamera>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InfoCamera {
    pub id: String,
    /// The KVS stream it is uploaded to.
    pub stream: String,
    pub enabled: bool,
}

/// The box now. Quantities that could not be read are absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    pub v: Version,
    pub ts: UtcTime,
    /// True when `checks` is empty.
    pub ok: bool,
    /// Everything that fails now, oldest first.
    pub checks: Vec<Check>,
    pub host: HostHealth,
    pub clock: ClockHealth,
    pub mqtt: MqttHealth,
    /// Time left before the watchdog would have fired, at its last feeding.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub watchdog_margin_ms: Option<u64>,
}

/// One failing check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Stable name for machines, such as `camera_stalled`.
    pub code: String,
    /// For people: what is wrong and what to do.
    pub text: String,
    pub since: UtcTime,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub camera: Option<String>,
}

/// Load of machine and process; percent of one core may exceed 100.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostHealth {
    /// Of all cores, 0 to 100, since the last sample.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cpu_percent: Option<f64>,
    /// Of this process in percent of one core, since the last sample.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub process_cpu_percent: Option<f64>,
    /// Resident memory of this process.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub process_rss_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub memory_total_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub memory_available_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub load_1m: Option<f64>,
    /// Hottest thermal zone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub temperature_c: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub disk_total_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub disk_free_bytes: Option<u64>,
    /// Of the machine.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub uptime_s: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClockHealth {
    /// Whether the system clock is disciplined; absent where the system does not say.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub synced: Option<bool>,
    /// System clock minus reference, where known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub offset_ms: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MqttHealth {
    /// Messages waiting for the broker.
    pub queue: u64,
    /// Messages given up since start because the queue was full.
    pub dropped: u64,
    pub reconnects: u64,
}

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

/// Why a camera, an upload or a verification is not as it should be; stable names for machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// First connection since start, nothing wrong yet.
    Starting,
    /// The name of the host does not resolve.
    DnsFailed,
    /// No route, or the host is down.
    Unreachable,
    /// The host is there, nothing listens on the port.
    ConnectionRefused,
    /// A handshake step was not answered in time; `detail` names it.
    Timeout,
    /// Wrong or missing user name or password (RTSP 401, 403).
    Unauthorized,
    /// The path of the URL does not exist on the camera (RTSP 404).
    NotFound,
    /// The camera offers no video.
    NoVideo,
    /// The camera offers no codec that can be uploaded.
    UnsupportedCodec,
    /// Connected, but no picture within `stall_s`.
    Stalled,
    /// The camera closed the connection.
    Disconnected,
    /// The camera broke RTSP or RTP rules; `detail` has the words.
    ProtocolError,
    /// Packets are lost; whole GOPs are dropped.
    PacketLoss,
    /// The camera's clock is absent or far from ours; receive time is used.
    CameraClock,
    /// GOPs longer than a fragment may be; fragments are cut between key frames.
    LongGop,
    /// KVS or the network behind it refuses or does not answer.
    UploadFailed,
    /// AWS credentials are missing, wrong or expired.
    Credentials,
    /// The KVS stream does not exist.
    StreamMissing,
    /// The KVS stream's settings do not fit (no retention, wrong media type).
    StreamSettings,
    /// KVS limits the rate of calls or bytes.
    Throttled,
    /// The system clock is too wrong for signing.
    ClockSkew,
    /// The upload window is full: fragments are being lost.
    BacklogFull,
    /// Fragments were not read back in time.
    VerifyLate,
    /// A fragment read back differs from what was sent.
    VerifyMismatch,
    /// Fragments could not be read back at all.
    VerifyFailed,
    /// The daemon stops.
    Stopping,
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
    /// RTP packets lost since start.
    pub lost_packets: u64,
    /// Access units thrown away since start, waiting for a random access point after a loss.
    pub dropped_frames: u64,
    pub reconnects_1h: u32,
    pub stalls_1h: u32,
    /// From the camera's (or our receive) clock to the last byte read back from KVS.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub latency: Option<Percentiles>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fps {
    /// Access units per second from the camera.
    #[serde(rename = "in")]
    pub input: f64,
    /// Access units per second thrown away.
    pub dropped: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    pub p50_ms: f64,
    pub p95_ms: f64,
}

/// What PutMedia of one camera does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UploadState {
    /// No connection wanted: the camera delivers nothing.
    Idle,
    Connecting,
    /// Media flows.
    Sending,
    /// Waiting before the next attempt.
    BackingOff,
    /// Will not heal without somebody's action: see `reason`.
    Failed,
}

/// Whether one camera's footage reaches KVS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Upload {
    pub v: Version,
    pub ts: UtcTime,
    pub state: UploadState,
    pub since: UtcTime,
    /// The KVS stream.
    pub stream: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
    /// Producer time of the newest fragment that KVS reported as persisted, and its number.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_persisted: Option<UtcTime>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_fragment: Option<String>,
    /// From the last byte of a fragment sent to its persisted ack, newest.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ack_delay_ms: Option<u64>,
    /// Footage recorded and not yet persisted.
    pub backlog_s: f64,
    pub backlog_bytes: u64,
    /// Since start.
    pub fragments_sent: u64,
    pub fragments_persisted: u64,
    pub fragments_lost: u64,
    /// How many gaps of the last 24 h; the newest of them in `gaps`.
    pub gaps_24h: u32,
    pub gaps: Vec<Gap>,
}

/// A stretch of producer time that is not in KVS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    pub start: UtcTime,
    /// Absent while it lasts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub end: Option<UtcTime>,
    pub reason: Reason,
}

/// The answer to "is my footage in the cloud as sent?".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that was due has been read back and is identical.
    Ok,
    /// Something is overdue.
    Late,
    /// Something read back differs or is missing.
    Mismatch,
    /// Nothing to judge by yet, or verification is off.
    Unknown,
}

/// How the verdict was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifyMethod {
    /// Every fragment is read back by one lasting GetMedia.
    Continuous,
    /// One fragment each `sample_every_s` is read back.
    Sampled,
    Off,
}

/// Whether one camera's footage was read back from KVS as it was sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verify {
    pub v: Version,
    pub ts: UtcTime,
    pub verdict: Verdict,
    /// When `verdict` began.
    pub since: UtcTime,
    pub method: VerifyMethod,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
    /// Number and producer time of the newest fragment proven identical.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_fragment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_verified: Option<UtcTime>,
    /// Since start: fragments compared, identical, different, absent, twice, listed with the right size and times.
    pub compared: u64,
    pub identical: u64,
    pub corrupt: u64,
    pub missing: u64,
    pub duplicate: u64,
    pub listed: u64,
    /// Overdue now.
    pub late: u64,
    /// Camera (or receive) time to read-back.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub delay: Option<Percentiles>,
    /// Gaps that may still close.
    pub open_gaps: Vec<Gap>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc3339_utc_with_milliseconds() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_795_183_402_417, "2026-11-20T14:03:22.417Z"),
            (951_782_400_005, "2000-02-29T00:00:00.005Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(UtcTime::from_millis(ms).to_string(), text);
            assert_eq!(text.parse(), Ok(UtcTime::from_millis(ms)));
        }
        assert_eq!(UtcTime::from_millis(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
        let (local, utc) = ("2026-11-20T15:03:22.417+01:00", "2026-11-20T14:03:22.417Z");
        assert_eq!(local.parse::<UtcTime>(), utc.parse());
        assert!("1969-12-31T23:59:59Z".parse::<UtcTime>().is_err());
        assert!("yesterday".parse::<UtcTime>().is_err());
    }

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
    fn topics_stay_within_seven_slashes() {
        let topics = Topics::new("kvs-edge", "box-7f3a");
        assert_eq!(topics.availability(), "kvs-edge/box-7f3a/availability");
        assert_eq!(topics.status("dock-2"), "kvs-edge/box-7f3a/cam/dock-2/status");
        for topic in
            [topics.info(), topics.health(), topics.stats("c"), topics.upload("c"), topics.verify("c")]
        {
            assert!(topic.matches('/').count() <= 7, "{topic}");
        }
    }
}
