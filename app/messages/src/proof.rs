//! Proof records, alarms, and figures of the cloud's side under the names of CloudWatch.

use serde::{Deserialize, Serialize};

use crate::{Percentiles, UtcTime, Verdict, Version};

/// The newest record of what is proven: in `verify` and `upload`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// Start of the minute that it is about.
    pub minute: UtcTime,
    pub verdict: Verdict,
    /// Why the verdict is not `ok`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
    /// Fragments of that minute: recorded, kept by KVS, named by its list, equal byte for byte when they were read back.
    pub expected: u64,
    pub persisted: u64,
    pub listed: u64,
    pub verified: u64,
    /// Stretches of the minute that are not in KVS as they were recorded.
    pub gaps: u64,
    /// `N:SUM` of the newest record of the chain: `kvs-edge proof check --head CAMERA=N:SUM` holds the records to it.
    pub head: String,
    /// Records survive a restart of the box.
    pub on_disk: bool,
}

/// A fragment that was read back, taken apart and its key picture decoded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Played {
    /// When.
    pub at: UtcTime,
    /// Of its first picture, by the camera's (or receive) clock.
    pub picture: UtcTime,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fragment: Option<String>,
    pub way: PlayedWay,
    pub result: PlayedResult,
    /// Why it could not be played.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
    /// From the camera's (or receive) clock to here.
    pub latency_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlayedWay {
    GetMedia,
    Hls,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlayedResult {
    /// A picture came out of the decoder.
    Decoded,
    /// The box has no decoder: the bytes are those of a key picture.
    Parsed,
    Failed,
}

/// Something that somebody should look at; retained while it lasts, and cleared by an empty payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    pub v: Version,
    pub ts: UtcTime,
    /// The last level of its topic.
    pub code: String,
    pub severity: AlarmSeverity,
    /// For people: what is wrong, and what to change.
    pub text: String,
    pub since: UtcTime,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub camera: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlarmSeverity {
    /// Footage may still come.
    Warning,
    /// Footage is gone, or not what was sent.
    Critical,
}

/// Figures of one camera's stream as the box sees them, under the names that CloudWatch has for the same on the other side.
/// Counts are since start, times are of the newest fragments.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CloudMetrics {
    /// Of fragments that KVS keeps.
    #[serde(rename = "PutMedia.IncomingBytes")]
    pub incoming_bytes: u64,
    #[serde(rename = "PutMedia.IncomingFragments")]
    pub incoming_fragments: u64,
    #[serde(rename = "PutMedia.IncomingFrames")]
    pub incoming_frames: u64,
    #[serde(rename = "PutMedia.ActiveConnections")]
    pub active_connections: u64,
    /// Connections that failed, or could not be opened.
    #[serde(rename = "PutMedia.ConnectionErrors")]
    pub connection_errors: u64,
    #[serde(rename = "PutMedia.ErrorAckCount")]
    pub error_acks: u64,
    /// Part of all connections that were opened.
    #[serde(rename = "PutMedia.Success", skip_serializing_if = "Option::is_none", default)]
    pub success: Option<f64>,
    /// From the beginning of a fragment to each of its acks.
    #[serde(rename = "PutMedia.BufferingAckLatency", skip_serializing_if = "Option::is_none", default)]
    pub buffering_ack: Option<Percentiles>,
    /// From the last byte sent.
    #[serde(rename = "PutMedia.ReceivedAckLatency", skip_serializing_if = "Option::is_none", default)]
    pub received_ack: Option<Percentiles>,
    #[serde(rename = "PutMedia.PersistedAckLatency", skip_serializing_if = "Option::is_none", default)]
    pub persisted_ack: Option<Percentiles>,
    /// From the beginning of a fragment until KVS has received it.
    #[serde(rename = "PutMedia.FragmentIngestionLatency", skip_serializing_if = "Option::is_none", default)]
    pub ingestion: Option<Percentiles>,
    /// From the end of a fragment until KVS keeps it.
    #[serde(rename = "PutMedia.FragmentPersistLatency", skip_serializing_if = "Option::is_none", default)]
    pub persist: Option<Percentiles>,
    /// What was read back to prove it.
    #[serde(rename = "GetMedia.OutgoingBytes")]
    pub outgoing_bytes: u64,
    #[serde(rename = "GetMedia.OutgoingFragments")]
    pub outgoing_fragments: u64,
    /// As the newest answer said.
    #[serde(rename = "GetMedia.MillisBehindNow", skip_serializing_if = "Option::is_none", default)]
    pub millis_behind_now: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The wire form is a contract.
    #[test]
    fn proof_and_alarm_are_as_documented() {
        let at = UtcTime::from_millis(1_795_183_380_000);
        let proof = Proof {
            minute: at,
            verdict: Verdict::Gap,
            why: Some("no room".to_owned()),
            expected: 30,
            persisted: 28,
            listed: 28,
            verified: 1,
            gaps: 1,
            head: "18:00ff".to_owned(),
            on_disk: true,
        };
        let json = r#"{"minute":"2026-11-20T14:03:00.000Z","verdict":"gap","why":"no room","expected":30,"persisted":28,"listed":28,"verified":1,"gaps":1,"head":"18:00ff","on_disk":true}"#;
        assert_eq!(serde_json::to_string(&proof).expect("serialises"), json);
        assert_eq!(serde_json::from_str::<Proof>(json).expect("reads back"), proof);
        let alarm = Alarm {
            v: Version::default(),
            ts: at,
            code: "proof-dock-2".to_owned(),
            severity: AlarmSeverity::Critical,
            text: "footage is gone".to_owned(),
            since: at,
            camera: Some("dock-2".to_owned()),
        };
        let json = r#"{"v":1,"ts":"2026-11-20T14:03:00.000Z","code":"proof-dock-2","severity":"critical","text":"footage is gone","since":"2026-11-20T14:03:00.000Z","camera":"dock-2"}"#;
        assert_eq!(serde_json::to_string(&alarm).expect("serialises"), json);
        assert_eq!(serde_json::from_str::<Alarm>(json).expect("reads back"), alarm);
    }

    #[test]
    fn figures_have_the_names_of_cloudwatch_and_what_is_not_known_is_absent() {
        let figures = CloudMetrics { incoming_fragments: 5, ..CloudMetrics::default() };
        let json = serde_json::to_value(&figures).expect("serialises");
        assert_eq!(json["PutMedia.IncomingFragments"], 5);
        let names: Vec<_> = json.as_object().expect("an object").keys().cloned().collect();
        assert_eq!(names.len(), 8, "{names:?}");
        assert!(names.iter().all(|name| name.starts_with("PutMedia.") || name.starts_with("GetMedia.")));
    }
}
