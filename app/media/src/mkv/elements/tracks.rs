//! The Tracks element.

use bytes::Bytes;

use crate::access_unit::{AudioCodec, AudioFormat, FormatError, VideoCodec, VideoFormat};

use super::{ElementError, children, float, text, uint, uint32};
use crate::mkv::id;

/// Without what an extension appends.
const WAVE_FORMAT_EX_BYTES: usize = 18;

/// One TrackEntry. What the entry does not say is 0 or empty.
#[derive(Clone, PartialEq, Debug)]
pub struct TrackInfo {
    pub number: u64,
    pub uid: u64,
    /// 1 video, 2 audio (RFC 9559 5.1.4.1.3); more than a byte can hold becomes 255.
    pub kind: u8,
    pub name: String,
    pub codec_id: String,
    pub codec_private: Bytes,
    /// Pixels.
    pub width: u32,
    pub height: u32,
    /// Hz. Amazon Connect writes no Audio element at all; then this is 0.
    pub sample_rate: f64,
    pub channels: u32,
}

/// How to decode a track.
#[derive(Clone, PartialEq, Debug)]
pub enum TrackFormat {
    Video(VideoFormat),
    Audio(AudioFormat),
}

impl TrackInfo {
    /// `None`: coded in a way that is not known here.
    pub fn format(&self) -> Result<Option<TrackFormat>, FormatError> {
        let codec_private = self.codec_private.clone();
        let video =
            |codec| VideoFormat::from_codec_private(codec, codec_private.clone()).map(TrackFormat::Video);
        Ok(Some(match &*self.codec_id {
            "V_MPEG4/ISO/AVC" => video(VideoCodec::H264)?,
            "V_MPEGH/ISO/HEVC" => video(VideoCodec::H265)?,
            "A_AAC" => TrackFormat::Audio(AudioFormat::aac(codec_private)?),
            "A_MS/ACM" => match self.g711()? {
                Some(format) => TrackFormat::Audio(format),
                None => return Ok(None),
            },
            _ => return Ok(None),
        }))
    }

    /// By the WAVEFORMATEX that CodecPrivate is then; `None` for another tag in it.
    fn g711(&self) -> Result<Option<AudioFormat>, FormatError> {
        let Some((head, _)) = self.codec_private.split_first_chunk::<WAVE_FORMAT_EX_BYTES>() else {
            let (needs, found) = (WAVE_FORMAT_EX_BYTES, self.codec_private.len());
            return Err(FormatError::Short { what: "WAVEFORMATEX", at: 0, needs, found });
        };
        let [tag, tag_high, channels, channels_high, r0, r1, r2, r3, ..] = *head;
        let codec = match u16::from_le_bytes([tag, tag_high]) {
            7 => AudioCodec::Pcmu,
            6 => AudioCodec::Pcma,
            _ => return Ok(None),
        };
        Ok(Some(AudioFormat {
            codec,
            codec_private: self.codec_private.clone(),
            sample_rate: u32::from_le_bytes([r0, r1, r2, r3]),
            channels: u16::from_le_bytes([channels, channels_high]),
        }))
    }
}

/// Reads the body of a Tracks element, entries in order.
pub fn parse(body: &[u8]) -> Result<Vec<TrackInfo>, ElementError> {
    let mut tracks = Vec::new();
    for child in children("Tracks", body) {
        let child = child?;
        if child.id == id::TRACK_ENTRY {
            tracks.push(entry(child.body)?);
        }
    }
    Ok(tracks)
}

fn entry(body: &[u8]) -> Result<TrackInfo, ElementError> {
    const PARENT: &str = "TrackEntry";
    let mut track = TrackInfo {
        number: 0,
        uid: 0,
        kind: 0,
        name: String::new(),
        codec_id: String::new(),
        codec_private: Bytes::new(),
        width: 0,
        height: 0,
        sample_rate: 0.0,
        channels: 0,
    };
    for child in children(PARENT, body) {
        let child = child?;
        match child.id {
            id::TRACK_NUMBER => track.number = uint(PARENT, "TrackNumber", child.body)?,
            id::TRACK_UID => track.uid = uint(PARENT, "TrackUID", child.body)?,
            id::TRACK_TYPE => {
                track.kind = uint(PARENT, "TrackType", child.body)?.try_into().unwrap_or(u8::MAX)
            }
            id::NAME => track.name = text(child.body),
            id::CODEC_ID => track.codec_id = text(child.body),
            id::CODEC_PRIVATE => track.codec_private = Bytes::copy_from_slice(child.body),
            id::VIDEO => video(child.body, &mut track)?,
            id::AUDIO => audio(child.body, &mut track)?,
            _ => {}
        }
    }
    Ok(track)
}

fn video(body: &[u8], track: &mut TrackInfo) -> Result<(), ElementError> {
    for child in children("Video", body) {
        let child = child?;
        match child.id {
            id::PIXEL_WIDTH => track.width = uint32("Video", "PixelWidth", child.body)?,
            id::PIXEL_HEIGHT => track.height = uint32("Video", "PixelHeight", child.body)?,
            _ => {}
        }
    }
    Ok(())
}

fn audio(body: &[u8], track: &mut TrackInfo) -> Result<(), ElementError> {
    (track.sample_rate, track.channels) = (8_000.0, 1); // defaults of RFC 9559 5.1.4.1.29
    for child in children("Audio", body) {
        let child = child?;
        match child.id {
            id::SAMPLING_FREQUENCY => track.sample_rate = float("Audio", "SamplingFrequency", child.body)?,
            id::CHANNELS => track.channels = uint32("Audio", "Channels", child.body)?,
            _ => {}
        }
    }
    Ok(())
}
