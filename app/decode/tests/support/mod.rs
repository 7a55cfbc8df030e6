//! Real coded pictures, and what comes out.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use camera_sim::{Clip, ClipSpec, Codec};
use media::{AccessUnit, ProducerTimestamp, VideoCodec, VideoFormat, nal};

/// A wait that takes longer has failed. No test depends on how long anything takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// 2026-11-20T14:47:53.633Z
pub(crate) const START_MS: u64 = 1_795_186_073_633;

pub(crate) fn spec() -> ClipSpec {
    ClipSpec {
        width: 320,
        height: 192,
        fps: 25,
        bitrate_kbps: 500,
        gop: 20,
        loop_seconds: 4,
        seed: 3,
        ..ClipSpec::default()
    }
}

/// A clip as access units, in coding order.
pub(crate) struct Units {
    pub(crate) clip: Arc<Clip>,
    pub(crate) format: Arc<VideoFormat>,
    pub(crate) units: Vec<AccessUnit>,
    /// The number in the strip of each unit's picture.
    pub(crate) indices: Vec<u32>,
}

pub(crate) fn units(spec: &ClipSpec) -> Units {
    let clip =
        Clip::load(spec, &camera_sim::default_cache_dir()).expect("GStreamer's encoders are installed");
    let sets = clip.parameter_sets();
    let (codec, record) = match spec.codec {
        Codec::H264 => (VideoCodec::H264, nal::avcc_from_sps_pps(&sets[..1], &sets[1..])),
        Codec::H265 => (VideoCodec::H265, nal::hvcc_from_vps_sps_pps(&sets[..1], &sets[1..2], &sets[2..])),
    };
    let record = record.expect("parameter sets of x264 and x265");
    let format = Arc::new(VideoFormat::from_codec_private(codec, record).expect("a valid SPS"));
    let mut units = Vec::new();
    let mut indices = Vec::new();
    for picture in clip.pictures() {
        units.push(AccessUnit {
            data: nal::to_length_prefixed(&picture.nal_units),
            timestamp: time_of(picture.index, spec.fps),
            random_access: picture.random_access,
            format: format.clone(),
        });
        indices.push(picture.index);
    }
    Units { clip, format, units, indices }
}

pub(crate) fn time_of(index: u32, fps: u32) -> ProducerTimestamp {
    ProducerTimestamp::from_millis(START_MS + u64::from(index) * 1000 / u64::from(fps))
}

/// The same picture, this much later.
pub(crate) fn later(unit: &AccessUnit, ms: u64) -> AccessUnit {
    AccessUnit { timestamp: unit.timestamp.checked_add_ms(ms).expect("in range"), ..unit.clone() }
}

/// What was handed on: (timestamp, number in the strip, width, height).
pub(crate) type Decoded = (ProducerTimestamp, Option<u32>, usize, usize);

#[derive(Clone, Default)]
pub(crate) struct Collector(Arc<(Mutex<Vec<Decoded>>, Condvar)>);

impl Collector {
    pub(crate) fn add(&self, at: ProducerTimestamp, picture: &vision::Picture<'_>) {
        let luma = picture.luma();
        let index = camera_sim::read_frame_index(luma.bytes, luma.stride, picture.width, picture.height);
        self.0.0.lock().unwrap().push((at, index, picture.width, picture.height));
        self.0.1.notify_all();
    }

    pub(crate) fn seen(&self) -> Vec<Decoded> {
        self.0.0.lock().unwrap().clone()
    }

    /// All that was handed on, once that holds.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, done: impl Fn(&[Decoded]) -> bool) -> Vec<Decoded> {
        let guard = self.0.0.lock().unwrap();
        let (seen, timeout) = self.0.1.wait_timeout_while(guard, DEADLINE, |seen| !done(seen)).unwrap();
        assert!(!timeout.timed_out(), "waited for {what}; {} pictures: {:?}", seen.len(), seen.last());
        seen.clone()
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, at: ProducerTimestamp) -> Vec<Decoded> {
        self.wait(&format!("the picture of {at}"), |seen| seen.iter().any(|seen| seen.0 == at))
    }

    #[track_caller]
    pub(crate) fn wait_for_count(&self, count: usize) -> Vec<Decoded> {
        self.wait(&format!("{count} pictures"), |seen| seen.len() >= count)
    }
}
