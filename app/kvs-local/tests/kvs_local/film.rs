//! Footage of the simulated camera: each picture has its number drawn into it.

use std::sync::Arc;

use camera_sim::{Clip, ClipSpec, Codec};
use media::mkv::write::{Track, block_head, cluster_start, header};
use media::{VideoCodec, VideoFormat, nal};

use crate::client::{Rig, persisted};

pub(crate) const WIDTH: u32 = 320;
pub(crate) const HEIGHT: u32 = 192;
const FPS: u32 = 25;
pub(crate) const PICTURE_MS: u64 = 40;
const CLIP_SECONDS: u32 = 4;

/// A clip of four seconds, cut into fragments of one GOP each.
pub(crate) struct Film {
    pub(crate) track: Track,
    /// Of one fragment.
    pictures: u64,
    /// In decoding order: offset in its fragment, whether it is a key frame, length-prefixed NAL units.
    fragments: Vec<Vec<(i16, bool, Vec<u8>)>>,
}

impl Film {
    /// `pictures` of a fragment; they divide 100.
    pub(crate) fn h264(pictures: u64, b_frames: u32) -> Self {
        Self::new(Codec::H264, pictures, b_frames)
    }

    pub(crate) fn new(codec: Codec, pictures: u64, b_frames: u32) -> Self {
        let spec = ClipSpec {
            width: WIDTH,
            height: HEIGHT,
            fps: FPS,
            codec,
            b_frames,
            gop: u32::try_from(pictures).expect("small"),
            bitrate_kbps: 500,
            loop_seconds: CLIP_SECONDS,
            ..ClipSpec::default()
        };
        let clip = Clip::load(&spec, &camera_sim::default_cache_dir()).expect("GStreamer's encoders");
        let sets = clip.parameter_sets();
        let (codec, record) = match codec {
            Codec::H264 => (VideoCodec::H264, nal::avcc_from_sps_pps(&sets[..1], &sets[1..])),
            Codec::H265 => {
                (VideoCodec::H265, nal::hvcc_from_vps_sps_pps(&sets[..1], &sets[1..2], &sets[2..]))
            }
        };
        let record = record.expect("parameter sets of x264 and x265");
        let format = VideoFormat::from_codec_private(codec, record).expect("a valid record");
        let mut fragments: Vec<Vec<_>> = Vec::new();
        for picture in clip.pictures() {
            if picture.random_access {
                fragments.push(Vec::new());
            }
            let offset = u64::from(picture.index) - (fragments.len() as u64 - 1) * pictures;
            let offset = i16::try_from(offset * PICTURE_MS).expect("within its fragment");
            let data = nal::to_length_prefixed(&picture.nal_units).to_vec();
            let fragment = fragments.last_mut().expect("it begins with a random access point");
            fragment.push((offset, picture.random_access, data));
        }
        assert!(fragments.iter().all(|fragment| fragment.len() as u64 == pictures), "one GOP each");
        Self { track: Track::Video(Arc::new(format)), pictures, fragments }
    }

    pub(crate) fn fragments(&self) -> u64 {
        self.fragments.len() as u64
    }

    /// Of one fragment.
    pub(crate) fn pictures(&self) -> u64 {
        self.pictures
    }

    pub(crate) fn fragment_ms(&self) -> u64 {
        self.pictures * PICTURE_MS
    }

    /// Sends one fragment, beginning at this time; the number that it got.
    pub(crate) async fn put(&self, rig: &Rig, fragment: u64, at_ms: u64) -> String {
        let mut cluster = cluster_start(at_ms).to_vec();
        for (offset, key_frame, data) in &self.fragments[usize::try_from(fragment).expect("small")] {
            cluster.extend_from_slice(&block_head(1, *offset, *key_frame, data.len()));
            cluster.extend_from_slice(data);
        }
        put(rig, &self.track, cluster).await
    }
}

/// Sends a cluster of one track; the number that it got.
pub(crate) async fn put(rig: &Rig, track: &Track, cluster: Vec<u8>) -> String {
    let header = header([7; 16], "test", std::slice::from_ref(track));
    let acks = rig.client.put_whole("cam1", &[&header[..], &cluster].concat()).await;
    persisted(&acks)[0].to_string()
}

/// Width, height, and the number that is drawn into the picture.
pub(crate) fn read_png(file: &[u8]) -> (u32, u32, Option<u32>) {
    let mut decoder = png::Decoder::new(std::io::Cursor::new(file));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("small")];
    let info = reader.next_frame(&mut pixels).expect("a whole PNG");
    let samples = match info.color_type {
        png::ColorType::Rgb => 3,
        png::ColorType::Rgba => 4,
        other => panic!("{other:?}"),
    };
    // Grey is as bright in green as in all.
    let luma: Vec<u8> = pixels.chunks_exact(samples).map(|pixel| pixel[1]).collect();
    let (width, height) = (info.width as usize, info.height as usize);
    (info.width, info.height, camera_sim::read_frame_index(&luma, width, width, height))
}
