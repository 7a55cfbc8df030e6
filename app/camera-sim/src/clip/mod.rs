//! The clip that a camera plays for ever: rendered and encoded once, or taken from a file, then kept in a cache folder.
//!
//! One folder per clip, named after all that went into it: `video.h264` or `video.h265` (Annex B, playable),
//! `audio.aac` or `audio.ulaw`, `truth.jsonl` (one [`FrameTruth`] a line) and `index.json`; of a file, `footage.json`
//! instead of sound and truth. It is made under another name and renamed when complete, so processes that race for the same clip do not harm each other.

mod annexb;
mod audio;
mod cache;
mod encode;
mod footage;
mod gdp;
mod timing;

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use footage::Facts;

use crate::scene::{FrameTruth, MIN_WIDTH, RENDERER_VERSION, SceneSpec};

pub use audio::AudioClip;
pub use cache::default_cache_dir;
pub use footage::Footage;
pub(crate) use timing::{TICKS, Timing};

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
    /// What is played instead of the rendered scene; see [`ClipSpec::of_file`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub footage: Option<Footage>,
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
            footage: None,
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
    #[error("{path}: {source}; expected a video file that this user may read")]
    File { path: String, source: std::io::Error },
    #[error(
        "{path} holds no video that GStreamer reads; `gst-discoverer-1.0` (gstreamer1.0-plugins-base-apps) lists what it holds"
    )]
    NoVideo { path: String },
    #[error("{path} is damaged, or no video file; GStreamer: {message}")]
    Footage { path: String, message: String },
    #[error(
        "{path} is {size_bytes} bytes of video, expected at most {largest_bytes}, since all is held in memory; cut it"
    )]
    TooLarge { path: String, size_bytes: u64, largest_bytes: u64 },
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

    /// These options for a video file: of any format that GStreamer reads, without its sound. Its H.264 or H.265 is
    /// played as it is, and so are size, rate and length; codec, bit rate, GOP and B pictures are for what has to be
    /// encoded. There is no ground truth.
    pub fn of_file(self, path: &std::path::Path) -> Result<ClipSpec, ClipError> {
        let footage = Some(Footage::open(path)?);
        Ok(ClipSpec { width: 0, height: 0, audio: Audio::None, footage, ..self })
    }

    /// This clip with another GOP, where one is asked for; of a file it is encoded then.
    pub(crate) fn coded(&self, b_frames: Option<u32>, gop: Option<u32>) -> ClipSpec {
        let mut spec = self.clone();
        if b_frames.is_some() || gop.is_some() {
            spec.b_frames = b_frames.unwrap_or(spec.b_frames);
            spec.gop = gop.unwrap_or(spec.gop);
            spec = spec.resized(self.width, self.height);
        }
        spec
    }

    fn resized(&self, width: u32, height: u32) -> ClipSpec {
        let mut spec = ClipSpec { width, height, ..self.clone() };
        if let Some(footage) = &mut spec.footage {
            footage.encode = true;
            (spec.width, spec.height) = (width & !1, height & !1);
        }
        spec
    }

    /// Number of pictures until the rendered scene repeats.
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
        let halved = self.resized(half(self.width), half(self.height));
        if halved.check().is_ok() {
            return halved;
        }
        self.resized(self.width * 2, self.height * 2)
    }

    pub(crate) fn check(&self) -> Result<(), ClipError> {
        let (from_file, unknown) = (self.footage.is_some(), self.width == 0 && self.height == 0);
        let small = if from_file {
            !unknown && (self.width < 32 || self.height < 32)
        } else {
            (self.width as usize) < MIN_WIDTH || self.height < 96
        };
        let size = || format!("{}x{}", self.width, self.height);
        let wrong = |option, found: String, expected| Err(ClipError::Option { option, found, expected });
        if small || self.width > 7680 || self.height > 4320 || (self.width | self.height) & 1 != 0 {
            return wrong("size", size(), "even sides between 192x96 and 7680x4320");
        }
        if !from_file && !(1..=120).contains(&self.fps) {
            return wrong("fps", self.fps.to_string(), "1 to 120");
        }
        if !from_file && (self.loop_seconds == 0 || !60_u32.is_multiple_of(self.loop_seconds)) {
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
        if self.footage.is_some() {
            return format!("file-{hash}");
        }
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
    timing: Timing,
    encoded: bool,
    /// Largest number of pictures by which one is coded ahead of its turn.
    reorder: u32,
}

impl Clip {
    /// Takes the clip from the cache, or makes it: seconds of work, so not for an asynchronous thread.
    pub fn load(spec: &ClipSpec, cache_dir: &std::path::Path) -> Result<Arc<Clip>, ClipError> {
        spec.check()?;
        let folder = cache::folder(spec, cache_dir)?;
        let facts = spec.footage.as_ref().map(|_| Facts::read(&folder)).transpose()?;
        let encoded = facts.as_ref().is_none_or(Facts::encoded);
        let (spec, timing) = match facts {
            Some(facts) => (&facts.spec(spec), facts.timing),
            None => (spec, Timing::of_scene(spec)),
        };
        let (bytes, index) = cache::read_video(spec.codec, &folder)?;
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
        let count = timing.pictures();
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
        let truth = if spec.footage.is_none() { cache::read_truth(&folder)? } else { Vec::new() };
        let spec = spec.clone();
        Ok(Arc::new(Clip {
            spec,
            pictures,
            by_index,
            parameter_sets,
            audio,
            truth,
            timing,
            encoded,
            reorder,
        }))
    }

    /// What was asked for; of a file codec, size and rate as they are.
    pub fn spec(&self) -> &ClipSpec {
        &self.spec
    }

    /// Whether the pictures were encoded here: always, except of a file whose own coding is played.
    pub fn encoded(&self) -> bool {
        self.encoded
    }

    /// All pictures in coding order, which is the order in which they are sent.
    pub fn pictures(&self) -> &[Picture] {
        &self.pictures
    }

    /// The picture that shows `index` (taken modulo the loop).
    pub fn access_unit(&self, index: u32) -> &Picture {
        let position = self.by_index[index as usize % self.by_index.len()];
        &self.pictures[position as usize]
    }

    /// H.264: SPS, PPS. H.265: VPS, SPS, PPS. Without start codes.
    pub fn parameter_sets(&self) -> &[Bytes] {
        &self.parameter_sets
    }

    pub fn audio(&self) -> Option<&AudioClip> {
        self.audio.as_ref()
    }

    /// Ground truth by presentation index; none of a file.
    pub fn truth(&self) -> &[FrameTruth] {
        &self.truth
    }

    pub(crate) fn timing(&self) -> &Timing {
        &self.timing
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
