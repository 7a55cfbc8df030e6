//! The last word of the demo: what became of every fragment.

use std::collections::BTreeMap;

use kvs_local::KvsLocal;
use serde::Serialize;

use super::{DemoArguments, DemoVerify};
use crate::app::Stopped;
use crate::camera::CameraView;
use messages::{ClockSource, Percentiles, Verdict};

#[derive(Serialize)]
pub(super) struct Summary {
    pub(super) all_accounted: bool,
    fault: Option<String>,
    unconfirmed_at_stop: usize,
    cameras: Vec<CameraSummary>,
    mqtt_messages: BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct CameraSummary {
    camera: String,
    frames_received: u64,
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
    put_media_sessions: u64,
    error_acks: u64,
    ack_delay_ms: Option<u128>,
    read_back_latency: Option<Percentiles>,
    read_back_latency_samples: u64,
    clock: Option<ClockSource>,
    verdict: Verdict,
    accounted: bool,
}

impl Summary {
    pub(super) async fn new(
        arguments: &DemoArguments,
        cameras: &[CameraView],
        stopped: Stopped,
        kvs: &KvsLocal,
        mqtt_messages: BTreeMap<String, u64>,
    ) -> Self {
        let every_fragment = arguments.verify == DemoVerify::Continuous;
        let mut summaries = Vec::new();
        for camera in cameras {
            let stored = kvs.fragments(&camera.config.stream).await.map_or(0, |fragments| fragments.len());
            summaries.push(CameraSummary::new(camera, stored as u64, every_fragment));
        }
        let cameras = summaries;
        Self {
            all_accounted: stopped.unconfirmed == 0 && cameras.iter().all(|camera| camera.accounted),
            fault: arguments.fault.map(super::DemoFault::describe),
            unconfirmed_at_stop: stopped.unconfirmed,
            cameras,
            mqtt_messages,
        }
    }

    pub(super) fn verdict(&self) -> String {
        let total: u64 = self.cameras.iter().map(|camera| camera.fragments).sum();
        if self.all_accounted {
            return format!("OK: all {total} fragments are persisted and were proven by reading back.");
        }
        let bad = self.cameras.iter().filter(|camera| !camera.accounted).map(|camera| camera.camera.as_str());
        format!("FAILED: not every fragment is accounted for ({}).", bad.collect::<Vec<_>>().join(", "))
    }
}

impl CameraSummary {
    fn new(camera: &CameraView, stored_by_kvs: u64, every_fragment: bool) -> Self {
        let (ingest, upload, verify) =
            (camera.ingest.borrow(), camera.upload.borrow(), camera.verify.borrow());
        let counts = verify.counts;
        let identical = counts.identical + counts.late;
        let missing = counts.missing.saturating_sub(counts.late) + verify.unlisted;
        let proven = if every_fragment { identical == upload.complete } else { identical > 0 };
        let duplicate = counts.duplicate.max(verify.listed_twice);
        let clean = counts.corrupt == 0 && missing == 0 && duplicate == 0 && upload.lost == 0;
        let whole =
            upload.complete > 0 && upload.persisted == upload.complete && stored_by_kvs == upload.complete;
        Self {
            camera: camera.config.id.clone(),
            frames_received: ingest.frames,
            frames_dropped: ingest.dropped_frames,
            packets_lost: ingest.lost_packets,
            camera_reconnects: ingest.reconnects.count(std::time::Instant::now()),
            fragments: upload.complete,
            persisted: upload.persisted,
            identical,
            listed: verify.listed,
            corrupt: counts.corrupt,
            missing,
            duplicate,
            lost: upload.lost,
            stored_by_kvs,
            put_media_sessions: upload.sessions,
            error_acks: upload.error_acks,
            ack_delay_ms: upload.ack_delay.map(|delay| delay.as_millis()),
            read_back_latency: verify.latency.percentiles().map(Into::into),
            read_back_latency_samples: verify.latency.total(),
            clock: ingest.clock.map(Into::into),
            verdict: verify.verdict.into(),
            accounted: proven && clean && whole,
        }
    }
}
