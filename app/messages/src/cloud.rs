//! Whether one camera's footage reaches KVS, and is there as it was sent.

use health::Reason;
use serde::{Deserialize, Serialize};

use crate::{Percentiles, Played, Proof, UtcTime, Version};

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
    /// Names this run of the camera: with its sequence the name of each fragment, as in its tag. Absent before the first.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub run: Option<String>,
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
    /// PutMedia connections and ERROR acks since start.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sessions: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error_acks: Option<u64>,
    /// How many gaps of the last 24 h; the newest of them in `gaps`.
    pub gaps_24h: u32,
    pub gaps: Vec<Gap>,
    /// The newest record of what is proven.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub proof: Option<Proof>,
}

/// A stretch of producer time that is not in KVS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    pub start: UtcTime,
    /// Absent while it lasts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub end: Option<UtcTime>,
    pub reason: Reason,
    /// In words, with what lies behind it: why KVS could not be reached, or what it refused.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
}

/// The answer to "is my footage in the cloud as sent?".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that was due has been read back and is identical.
    Ok,
    /// Something is overdue.
    Late,
    /// Some footage is not in KVS and never will be: see `open_gaps`, and the gaps of `upload`.
    Gap,
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
    /// Since start: fragments compared, identical, twice, listed with the right number, size, length and times. What is
    /// different or absent is so now: it is taken back when a later look proves it.
    pub compared: u64,
    pub identical: u64,
    pub corrupt: u64,
    pub missing: u64,
    pub duplicate: u64,
    pub listed: u64,
    /// Listed otherwise than they were sent, now.
    #[serde(default)]
    pub misstated: u64,
    /// Since start: could not be proven while even the shortest retention keeps them.
    #[serde(default)]
    pub unproven: u64,
    /// Overdue now.
    pub late: u64,
    /// Camera (or receive) time to read-back.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub delay: Option<Percentiles>,
    /// Gaps that may still close.
    pub open_gaps: Vec<Gap>,
    /// The newest record of what is proven.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub proof: Option<Proof>,
    /// The fragment that was played last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub played: Option<Played>,
}
