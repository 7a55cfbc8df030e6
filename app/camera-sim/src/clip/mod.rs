//! The clip that a camera plays for ever: rendered and encoded once, then kept in a cache folder.
//!
//! One folder per clip, named after all that went into it: `video.h264` or `video.h265` (Annex B, playable),
//! `audio.aac` or `audio.ulaw`, `truth.jsonl` (one [`FrameTruth`] a line) and `index.json`. It is made under
//! another name and renamed when complete, so processes that race for the same clip do not harm each other.

mod annexb;
mod audio;
mod cache;
mod encode;
mod gdp;

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::scene::{FrameTruth, MIN_WIDTH, RENDERER_VERSION, SceneSpec};

pub use audio::AudioClip;
pub use cache::default_cache_dir;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    H264,
    H265,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Audio {
    None,
    /// AAC-LC, 16 kHz mono, 48 kbit/s.
    Aac,
    /// G.711 mu-law, 8 kHz mono.
    Pcmu,
}

/// What to render and how to encode it. Everything here is part of the cached clip's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ClipSpec {
    /// Pixels, even, at least 192 x 96.
    pub width: u32,
    pub height: u32,
    /// Pictures per second, 1..=120.
    pub fps: u32,
    pub bitrate_kbps: u32,
    /// Pictures from one random access point to the next.
    pub gop: u32,
    /// B pictures in a row, 0..=8.
    pub b_frames: u32,
    pub codec: Codec,
    /// H.265 only: the random access points after the first are CRA pictures (x265's open GOP).
    pub open_gop: bool,
    pub audio: Audio,
    pub seed: u64,
    /// Seconds until the clip repeats; must divide 60, so that the burnt-in second is true.
    pub loop_seconds: u32,
}

impl Default for ClipSpec {
    fn default() -> ClipSpec {
        ClipSpec {
            width: 1280,
            height: 720,
            fps: 25,
            bitrate_kbps: 2000,
            gop: 50,
            b_frames: 0,
            codec: Codec::H264,
            open_gop: false,
            audio: Audio::None,
            seed: 0,
            loop_seconds: 20,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ClipError {
    #[error("clip option `{option}` is {found}, expected {expected}")]
    Option { option: &'static str, found: String, expected: &'static str },
    #[error("no program `gst-launch-1.0` found; install the Debian package gstreamer1.0-tools")]
    NoGstLaunch,
    #[error("GStreamer has no element `{element}`; install the Debian package {package}")]
    NoElement { element: String, package: &'static str },
    #[error("encoding with `{pipeline}` failed: {message}")]
    Encode { pipeline: String, message: String },
    #[error("encoder output is not usable: {0}")]
    Output(String),
    #[error("{path}: {source}; choose another cache folder with KVS_EDGE_SIM_CACHE")]
    Cache { path: String, source: std::io::Error },
}

impl ClipSpec {
    /// 320x192, 10 pictures per second, a random access point each second, a loop of 4 s: made in a moment, for tests.
    pub fn small() -> ClipSpec {
        ClipSpec {
            width: 320,
            height: 192,
            fps: 10,
            bitrate_kbps: 200,
            gop: 10,
            loop_seconds: 4,
            ..ClipSpec::default()
        }
    }

    /// Number of pictures until the clip repeats.
    pub fn pictures(&self) -> u32 {
        self.fps * self.loop_seconds
    }

    pub fn scene(&self) -> SceneSpec {
        SceneSpec {
            width: self.width as usize,
            height: self.height as usize,
            fps: self.fps,
            loop_seconds: self.loop_seconds,
            seed: self.seed,
        }
    }

    /// The clip after [`Fault::SwitchParameters`](crate::Fault::SwitchParameters): half the size where that is
    /// possible, else twice.
    #[must_use]
    pub fn switched(&self) -> ClipSpec {
        let half = |side: u32| side / 4 * 2;
        let halved = ClipSpec { width: half(self.width), height: half(self.height), ..self.clone() };
        if halved.check().is_ok() {
            return halved;
        }
        ClipSpec { width: self.width * 2, height: self.height * 2, ..self.clone() }
    }

    pub(crate) fn check(&self) -> Result<(), ClipError> {
        let narrow = (self.width as usize) < MIN_WIDTH;
        let size = || format!("{}x{}", self.width, self.height);
        let wrong = |option, found: String, expected| Err(ClipError::Option { option, found, expected });
        if narrow
            || self.height < 96
            || self.width > 7680
            || self.height > 4320
            || (self.width | self.height) & 1 != 0
        {
            return wrong("size", size(), "even sides between 192x96 and 7680x4320");
        }
        if !(1..=120).contains(&self.fps) {
            return wrong("fps", self.fps.to_string(), "1 to 120");
        }
        if self.loop_seconds == 0 || !60_u32.is_multiple_of(self.loop_seconds) {
            return wrong("loop-seconds", self.loop_seconds.to_string(), "a divisor of 60");
        }
        if self.gop == 0 || self.b_frames > 8 || self.b_frames >= self.gop.max(2) {
            let found = format!("{} with {} B pictures", self.gop, self.b_frames);
            return wrong("gop", found, "at least 1, with at most 8 B pictures and fewer than the GOP has");
        }
        if !(16..=200_000).contains(&self.bitrate_kbps) {
            return wrong("bitrate", self.bitrate_kbps.to_string(), "16 to 200000 kbit/s");
        }
        Ok(())
    }

    /// Name of the folder of this clip within the cache.
    pub(crate) fn key(&self) -> String {
        let spec = serde_json::to_string(self).expect("a struct of numbers and names serialises");
        let digest = Sha256::digest(format!("{RENDERER_VERSION} {} {spec}", encode::VERSION));
        let hash: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let codec = self.codec.name();
        format!("{codec}-{}x{}-{}fps-{hash}", self.width, self.height, self.fps)
    }
}

impl Codec {
    pub fn name(self) -> &'static str {
        match self {
            Codec::H264 => "h264",
            Codec::H265 => "h265",
        }
    }
}

/// One coded picture.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Place in presentation order within the loop; the number that strip and burnt-in counter show.
    pub index: u32,
    /// An IDR, CRA or BLA picture.
    pub random_access: bool,
    /// NAL units without start codes, parameter sets and SEI included.
    pub nal_units: Vec<Bytes>,
}

impl Picture {
    /// The NAL units that carry the picture itself: no parameter sets, no SEI, no delimiters.
    pub fn vcl(&self, codec: Codec) -> impl Iterator<Item = &Bytes> {
        self.nal_units.iter().filter(move |nal| annexb::is_vcl(codec, nal))
    }

    /// Bytes of all NAL units without start codes.
    pub fn size_bytes(&self) -> usize {
        self.nal_units.iter().map(Bytes::len).sum()
    }
}

/// An encoded loop with its parameter sets, sound and ground truth.
#[derive(Debug)]
pub struct Clip {
    spec: ClipSpec,
    pictures: Vec<Picture>,
    /// Position in `pictures` by presentation index.
    by_index: Vec<u32>,
    parameter_sets: Vec<Bytes>,
    audio: Option<AudioClip>,
    truth: Vec<FrameTruth>,
    /// Largest number of pictures by which one is coded ahead of its turn.
    reorder: u32,
}

impl Clip {
    /// Takes the clip from the cache, or makes it: seconds of work, so not for an asynchronous thread.
    pub fn load(spec: &ClipSpec, cache_dir: &std::path::Path) -> Result<Arc<Clip>, ClipError> {
        spec.check()?;
        let folder = cache::folder(spec, cache_dir)?;
        let (bytes, index) = cache::read_video(spec, &folder)?;
        let mut pictures = Vec::with_capacity(index.len());
        let mut rest = bytes;
        for (presentation, size) in index {
            if size > rest.len() {
                return Err(ClipError::Output(format!("{} ends early", folder.display())));
            }
            let unit = rest.split_to(size);
            let nal_units = annexb::nal_units(&unit);
            let random_access = nal_units.iter().any(|nal| annexb::is_random_access(spec.codec, nal));
            pictures.push(Picture { index: presentation, random_access, nal_units });
        }
        let parameter_sets = annexb::parameter_sets(spec.codec, &pictures);
        let count = spec.pictures() as usize;
        let mut by_index = vec![u32::MAX; count];
        for (position, picture) in (0..).zip(&pictures) {
            if let Some(slot) = by_index.get_mut(picture.index as usize) {
                *slot = position;
            }
        }
        if pictures.len() != count || by_index.contains(&u32::MAX) || !pictures[0].random_access {
            let found = pictures.len();
            return Err(ClipError::Output(format!(
                "{found} pictures of {count}, or the first is no key picture"
            )));
        }
        let ahead = (0..).zip(&pictures).map(|(position, picture)| picture.index.saturating_sub(position));
        let reorder = ahead.max().unwrap_or(0);
        let audio = audio::read(spec, &folder)?;
        let truth = cache::read_truth(&folder)?;
        Ok(Arc::new(Clip { spec: spec.clone(), pictures, by_index, parameter_sets, audio, truth, reorder }))
    }

    pub fn spec(&self) -> &ClipSpec {
        &self.spec
    }

    /// All pictures in coding order, which is the order in which they are sent.
    pub fn pictures(&self) -> &[Picture] {
        &self.pictures
    }

    /// The picture that shows `index` (taken modulo the loop).
    pub fn access_unit(&self, index: u32) -> &Picture {
        let position = self.by_index[(index % self.spec.pictures()) as usize];
        &self.pictures[position as usize]
    }

    /// H.264: SPS, PPS. H.265: VPS, SPS, PPS. Without start codes.
    pub fn parameter_sets(&self) -> &[Bytes] {
        &self.parameter_sets
    }

    pub fn audio(&self) -> Option<&AudioClip> {
        self.audio.as_ref()
    }

    /// Ground truth by presentation index.
    pub fn truth(&self) -> &[FrameTruth] {
        &self.truth
    }

    pub(crate) fn reorder(&self) -> u32 {
        self.reorder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_cannot_work_are_named() {
        let check = |change: fn(&mut ClipSpec), option: &str| {
            let mut spec = ClipSpec::default();
            change(&mut spec);
            let message = spec.check().expect_err(option).to_string();
            assert!(message.contains(option), "{message}");
        };
        assert!(ClipSpec::default().check().is_ok());
        check(|spec| spec.width = 321, "size");
        check(|spec| spec.height = 20, "size");
        check(|spec| spec.fps = 0, "fps");
        check(|spec| spec.loop_seconds = 7, "loop-seconds");
        check(|spec| spec.gop = 0, "gop");
        check(|spec| spec.bitrate_kbps = 1, "bitrate");
    }

    #[test]
    fn each_option_gives_another_cache_folder() {
        let base = ClipSpec::default();
        let others = [
            ClipSpec { seed: 1, ..base.clone() },
            ClipSpec { gop: 25, ..base.clone() },
            ClipSpec { audio: Audio::Aac, ..base.clone() },
            ClipSpec { b_frames: 2, ..base.clone() },
        ];
        assert_eq!(base.key(), ClipSpec::default().key());
        for other in others {
            assert_ne!(base.key(), other.key());
        }
    }
}
