//! The last word of the demo: what became of every fragment, by what the daemon published last and by what the local KVS
//! holds.

use std::collections::BTreeMap;

use messages::{ClockSource, Percentiles, Stats, Topics, Upload, Verdict, Verify};
use serde::Serialize;

use crate::observer::{BodyError, Observer};
use crate::{DemoArguments, DemoFault, DemoVerify};

#[derive(Serialize)]
pub(crate) struct Summary {
    pub(crate) all_accounted: bool,
    fault: Option<String>,
    unconfirmed_at_stop: u64,
    cameras: Vec<CameraSummary>,
    mqtt_messages: BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct CameraSummary {
    camera: String,
    frames_received: Option<u64>,
    frames_dropped: u64,
    packets_lost: u64,
    camera_reconnects: u32,
    /// Fragments that left the fragmenter.
    fragments: u64,
    persisted: u64,
    /// Read back and equal, byte for byte.
    identical: u64,
    listed: u64,
    corrupt: u64,
    missing: u64,
    duplicate: u64,
    lost: u64,
    /// Fragments that the server itself says it holds.
    stored_by_kvs: u64,
    put_media_sessions: Option<u64>,
    error_acks: Option<u64>,
    ack_delay_ms: Option<u64>,
    read_back_latency: Option<Percentiles>,
    read_back_latency_samples: Option<u64>,
    clock: Option<ClockSource>,
    verdict: Verdict,
    accounted: bool,
}

impl Summary {
    /// `stored_by_kvs`: camera, and how many fragments its stream holds. The daemon has ended.
    pub(crate) fn new(
        arguments: &DemoArguments,
        stored_by_kvs: &[(String, u64)],
        observer: &Observer,
    ) -> Result<Self, BodyError> {
        let every_fragment = arguments.verify == DemoVerify::Continuous;
        let mut cameras = Vec::new();
        for (camera, stored) in stored_by_kvs {
            let bodies = Bodies::of(camera, observer.topics(), observer)?;
            cameras.push(CameraSummary::new(camera, &bodies, *stored, every_fragment));
        }
        let unconfirmed = cameras.iter().map(CameraSummary::unconfirmed).sum();
        Ok(Self {
            all_accounted: unconfirmed == 0 && cameras.iter().all(|camera| camera.accounted),
            fault: arguments.fault.map(DemoFault::describe),
            unconfirmed_at_stop: unconfirmed,
            cameras,
            mqtt_messages: observer.by_topic(),
        })
    }

    pub(crate) fn verdict(&self) -> String {
        let total: u64 = self.cameras.iter().map(|camera| camera.fragments).sum();
        if self.all_accounted {
            return format!("OK: all {total} fragments are persisted and were proven by reading back.");
        }
        let bad = self.cameras.iter().filter(|camera| !camera.accounted).map(|camera| camera.camera.as_str());
        format!("FAILED: not every fragment is accounted for ({}).", bad.collect::<Vec<_>>().join(", "))
    }
}

/// The last bodies of one camera that its fragments are counted by; `corrupt` counts what was ever told so.
struct Bodies {
    stats: Stats,
    upload: Upload,
    verify: Verify,
}

impl Bodies {
    fn of(camera: &str, topics: &Topics, observer: &Observer) -> Result<Self, BodyError> {
        let told = topics.verify(camera);
        let mut verify: Verify = observer.newest(&told)?;
        verify.corrupt = verify.corrupt.max(observer.most_corrupt(&told));
        Ok(Self {
            stats: observer.newest(&topics.stats(camera))?,
            upload: observer.newest(&topics.upload(camera))?,
            verify,
        })
    }
}

impl CameraSummary {
    fn new(camera: &str, bodies: &Bodies, stored_by_kvs: u64, every_fragment: bool) -> Self {
        let Bodies { stats, upload, verify } = bodies;
        let fragments = upload.fragments_sent;
        let proven = if every_fragment { verify.identical == fragments } else { verify.identical > 0 };
        let clean =
            verify.corrupt == 0 && verify.missing == 0 && verify.duplicate == 0 && upload.fragments_lost == 0;
        let whole = fragments > 0 && upload.fragments_persisted == fragments && stored_by_kvs == fragments;
        Self {
            camera: camera.to_owned(),
            frames_received: stats.frames,
            frames_dropped: stats.dropped_frames,
            packets_lost: stats.lost_packets,
            camera_reconnects: stats.reconnects_1h,
            fragments,
            persisted: upload.fragments_persisted,
            identical: verify.identical,
            listed: verify.listed,
            corrupt: verify.corrupt,
            missing: verify.missing,
            duplicate: verify.duplicate,
            lost: upload.fragments_lost,
            stored_by_kvs,
            put_media_sessions: upload.sessions,
            error_acks: upload.error_acks,
            ack_delay_ms: upload.ack_delay_ms,
            read_back_latency: stats.latency,
            read_back_latency_samples: stats.latency_samples,
            clock: stats.clock,
            verdict: verify.verdict,
            accounted: proven && clean && whole,
        }
    }

    fn unconfirmed(&self) -> u64 {
        self.fragments.saturating_sub(self.persisted + self.lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TS: &str = "2026-11-20T14:03:22.417Z";

    /// Of a camera with 10 fragments, all of which are proven.
    fn bodies() -> Bodies {
        Bodies {
            stats: serde_json::from_value(json!({
                "v": 1, "ts": TS, "window_s": 1.0, "fps": {"in": 25.0, "dropped": 0.0}, "bitrate_bps": 2_000_000,
                "lost_packets": 0, "dropped_frames": 0, "reconnects_1h": 0, "stalls_1h": 0, "frames": 500
            }))
            .expect("a body of the contract"),
            upload: serde_json::from_value(json!({
                "v": 1, "ts": TS, "state": "idle", "since": TS, "stream": "cam0", "backlog_s": 0.0, "backlog_bytes": 0,
                "fragments_sent": 10, "fragments_persisted": 10, "fragments_lost": 0, "gaps_24h": 0, "gaps": []
            }))
            .expect("a body of the contract"),
            verify: serde_json::from_value(json!({
                "v": 1, "ts": TS, "verdict": "ok", "since": TS, "method": "continuous", "compared": 10, "identical": 10,
                "corrupt": 0, "missing": 0, "duplicate": 0, "listed": 10, "late": 0, "open_gaps": []
            }))
            .expect("a body of the contract"),
        }
    }

    fn accounted(change: impl FnOnce(&mut Bodies), stored: u64, every_fragment: bool) -> bool {
        let mut bodies = bodies();
        change(&mut bodies);
        CameraSummary::new("cam0", &bodies, stored, every_fragment).accounted
    }

    #[test]
    fn every_fragment_must_be_stored_and_proven() {
        assert!(accounted(|_| {}, 10, true));
        assert!(!accounted(|_| {}, 9, true), "KVS itself holds one less");
        assert!(!accounted(|_| {}, 11, true), "KVS itself holds one more");
        assert!(!accounted(|bodies| bodies.upload.fragments_persisted = 9, 10, true));
        assert!(!accounted(|bodies| bodies.upload.fragments_lost = 1, 10, true));
        assert!(!accounted(|bodies| bodies.verify.corrupt = 1, 10, true));
        assert!(!accounted(|bodies| bodies.verify.missing = 1, 10, true));
        assert!(!accounted(|bodies| bodies.verify.duplicate = 1, 10, true));
        assert!(!accounted(|bodies| bodies.verify.identical = 9, 10, true));
        assert!(accounted(|bodies| bodies.verify.identical = 1, 10, false), "sampled");
        assert!(!accounted(|bodies| bodies.verify.identical = 0, 10, false), "sampled, but none");
        assert!(!accounted(|bodies| bodies.upload.fragments_sent = 0, 0, false), "nothing was recorded");
    }

    #[test]
    fn unconfirmed_is_what_is_neither_persisted_nor_lost() {
        let mut bodies = bodies();
        (bodies.upload.fragments_persisted, bodies.upload.fragments_lost) = (7, 1);
        assert_eq!(CameraSummary::new("cam0", &bodies, 7, true).unconfirmed(), 2);
    }
}
