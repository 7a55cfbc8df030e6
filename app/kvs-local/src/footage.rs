//! A stored fragment as a player gets it: its tracks, its pictures and sound with their times, as fMP4 or MPEG-TS.
//!
//! A fragment's place on the timeline is its producer time, in milliseconds since the epoch. Matroska says when a picture
//! is shown; pictures are decoded in the order in which they stand, at their sorted times of showing. The last picture
//! lasts as long as the others in the mean.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use kvs::FragmentNumber;
use media::mkv::elements::{TrackFormat, TrackInfo, tracks};
use media::mkv::id;
use media::mkv::read::{EventKind, Limits, Parser, ReadError};
use media::mp4::write::{Run, Sample, Track, VIDEO_TIMESCALE};
#[cfg(feature = "images")]
use media::mp4::write::{init_segment, media_segment};
use media::{AudioCodec, AudioFormat, FormatError, VideoFormat, nal, ts};

use crate::errors::ServiceError;
use crate::fragment_reader::whole;
use crate::stream::Stored;

/// Samples in an AAC frame.
const AAC_FRAME: u32 = 1_024;
/// How long a picture is shown that stands alone, where its format says nothing.
const LONE_PICTURE_MS: u64 = 40;
/// Track type of Matroska.
const VIDEO: u8 = 1;

/// Why a fragment cannot be played.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FootageError {
    #[error("the fragment cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("the fragment is no Matroska: {0}")]
    Matroska(#[from] ReadError),
    #[error("{0}")]
    Unsupported(String),
    #[error("track {track} has no CodecPrivate")]
    NoCodecPrivate { track: u64 },
    #[error("CodecPrivate of track {track}: {source}")]
    CodecPrivate { track: u64, source: FormatError },
    #[error("a frame of track {track}: {reason}")]
    Frame { track: u64, reason: String },
}

impl From<FootageError> for ServiceError {
    fn from(error: FootageError) -> Self {
        let kind = match &error {
            FootageError::Io(_) => {
                let message = "The requested fragment is not there any more.";
                return Self::operation("ResourceNotFoundException", 404, message);
            }
            FootageError::Unsupported(_) => "UnsupportedStreamMediaTypeException",
            FootageError::NoCodecPrivate { .. } => "MissingCodecPrivateDataException",
            FootageError::CodecPrivate { .. } => "InvalidCodecPrivateDataException",
            FootageError::Matroska(_) | FootageError::Frame { .. } => "InvalidMediaFrameException",
        };
        Self::operation(kind, 400, error.to_string())
    }
}

/// Who wants to play it: not each takes the same sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Player {
    Hls,
    /// DASH and GetClip, which take G.711 too.
    Other,
}

/// The tracks of a fragment that a player gets. Two fragments with the same ones need no other initialisation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tracks {
    video: Option<(u64, VideoFormat)>,
    audio: Option<(u64, AudioFormat)>,
}

impl Tracks {
    /// The first track is H.264 or H.265, or AAC alone; the second is sound.
    fn read(tracks: &[TrackInfo], player: Player) -> Result<Self, FootageError> {
        let mut found = Self { video: None, audio: None };
        for (index, track) in tracks.iter().take(2).enumerate() {
            let number = track.number;
            if track.codec_private.is_empty() && (track.kind == VIDEO || track.codec_id == "A_AAC") {
                return Err(FootageError::NoCodecPrivate { track: number });
            }
            let format = track.format();
            match format.map_err(|source| FootageError::CodecPrivate { track: number, source })? {
                Some(TrackFormat::Video(format)) if index == 0 => found.video = Some((number, format)),
                Some(TrackFormat::Audio(format))
                    if found.audio.is_none()
                        && (format.codec == AudioCodec::Aac || player == Player::Other) =>
                {
                    found.audio = Some((number, format));
                }
                _ => {
                    let text = format!("track {} is {}, which is not played here", index + 1, track.codec_id);
                    return Err(FootageError::Unsupported(text));
                }
            }
        }
        if tracks.is_empty() {
            return Err(FootageError::Unsupported("no track".to_owned()));
        }
        Ok(found)
    }

    pub(crate) fn video(&self) -> Option<&VideoFormat> {
        self.video.as_ref().map(|(_, format)| format)
    }

    pub(crate) fn audio(&self) -> Option<&AudioFormat> {
        self.audio.as_ref().map(|(_, format)| format)
    }

    /// As players number them: pictures are 1, sound follows.
    pub(crate) fn numbered(&self) -> Vec<Track> {
        let video = self.video().cloned().map(TrackFormat::Video);
        let formats = video.into_iter().chain(self.audio().cloned().map(TrackFormat::Audio));
        (1..).zip(formats).map(|(id, format)| Track { id, format }).collect()
    }

    /// The `codecs` parameter of RFC 6381.
    pub(crate) fn codecs(track: &Track) -> String {
        match &track.format {
            TrackFormat::Video(format) => format.rfc6381(),
            TrackFormat::Audio(format) => match format.codec {
                AudioCodec::Aac => {
                    format!("mp4a.40.{}", format.codec_private.first().map_or(2, |byte| byte >> 3))
                }
                AudioCodec::Pcmu => "ulaw".to_owned(),
                AudioCodec::Pcma => "alaw".to_owned(),
            },
        }
    }
}

/// What a playlist says of a fragment.
#[derive(Clone, Debug)]
pub(crate) struct Outline {
    pub(crate) number: FragmentNumber,
    pub(crate) producer_ms: u64,
    pub(crate) duration_ms: u64,
    pub(crate) bytes: u64,
    pub(crate) pictures: u64,
    pub(crate) tracks: Arc<Tracks>,
}

/// A fragment's media.
#[derive(Debug)]
pub(crate) struct Footage {
    producer_ms: u64,
    tracks: Arc<Tracks>,
    video: Vec<Frame>,
    audio: Vec<Frame>,
}

/// When a picture is shown, and whether decoding can begin with it.
#[cfg(feature = "images")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Behind the fragment's producer time.
    pub(crate) at_ms: i64,
    pub(crate) key_frame: bool,
}

#[derive(Clone, Debug)]
struct Frame {
    /// Behind the fragment's producer time.
    offset_ms: i64,
    key_frame: bool,
    data: Bytes,
}

impl Footage {
    pub(crate) async fn read(stored: &Stored, player: Player) -> Result<Self, FootageError> {
        let (front, cluster, _) = whole(stored).await?;
        let meta = &stored.meta;
        let mut parser = Parser::new(Limits::default());
        // Only the header: what stands between it and the cluster are tags.
        let header = usize::try_from(meta.header_bytes).unwrap_or(usize::MAX).min(front.len());
        parser.push(front.slice(..header));
        parser.push(cluster);
        let (mut found, mut scale, mut timecode) = (None, 1_000_000, 0);
        let (mut video, mut audio) = (Vec::new(), Vec::new());
        while let Some(event) = parser.next_event()? {
            match event.kind {
                EventKind::Element { id: id::INFO } => {
                    let info = media::mkv::elements::Info::parse(event.body());
                    scale =
                        info.map_err(|error| FootageError::Unsupported(error.to_string()))?.timecode_scale;
                }
                EventKind::Element { id: id::TRACKS } => {
                    let tracks = tracks::parse(event.body());
                    let tracks = tracks.map_err(|error| FootageError::Unsupported(error.to_string()))?;
                    found = Some(Tracks::read(&tracks, player)?);
                }
                EventKind::Timecode { ms } => timecode = ms,
                EventKind::Block { track, offset, key_frame, lacing } => {
                    let of = |wanted: Option<u64>| wanted == Some(track);
                    let tracks = found.as_ref();
                    let is_video =
                        of(tracks.and_then(|tracks| tracks.video.as_ref()).map(|(number, _)| *number));
                    let is_audio =
                        of(tracks.and_then(|tracks| tracks.audio.as_ref()).map(|(number, _)| *number));
                    if !is_video && !is_audio {
                        continue;
                    }
                    if lacing != 0 {
                        return Err(FootageError::Frame { track, reason: "several in one block".to_owned() });
                    }
                    let frame = Frame {
                        offset_ms: scaled(offset, timecode, scale),
                        key_frame,
                        data: event.shared_body(),
                    };
                    if is_video { video.push(frame) } else { audio.push(frame) }
                }
                _ => {}
            }
        }
        let tracks = found.ok_or_else(|| FootageError::Unsupported("no track".to_owned()))?;
        Ok(Self { producer_ms: meta.producer_ms, tracks: Arc::new(tracks), video, audio })
    }

    pub(crate) fn outline(&self, stored: &Stored) -> Outline {
        Outline {
            number: stored.meta.number,
            producer_ms: self.producer_ms,
            duration_ms: self.duration_ms(),
            bytes: stored.meta.size_bytes(),
            pictures: self.video.len() as u64,
            tracks: self.tracks.clone(),
        }
    }

    pub(crate) fn tracks(&self) -> &Tracks {
        &self.tracks
    }

    /// The pictures in decoding order.
    #[cfg(feature = "images")]
    pub(crate) fn shown(&self) -> Vec<Shown> {
        self.video.iter().map(|frame| Shown { at_ms: frame.offset_ms, key_frame: frame.key_frame }).collect()
    }

    /// Some of the pictures, by their places in decoding order, as an MP4 that begins at 0.
    #[cfg(feature = "images")]
    pub(crate) fn movie(&self, wanted: impl Fn(usize) -> bool) -> Result<Bytes, FootageError> {
        let chosen = self.video.iter().enumerate().filter(|(index, _)| wanted(*index));
        let mut video: Vec<Frame> = chosen.map(|(_, frame)| frame.clone()).collect();
        let begin_ms = video.iter().map(|frame| frame.offset_ms).min().unwrap_or(0);
        video.iter_mut().for_each(|frame| frame.offset_ms -= begin_ms);
        let tracks = Arc::new(Tracks { video: self.tracks.video.clone(), audio: None });
        let movie = Self { producer_ms: 0, tracks, video, audio: Vec::new() };
        let mut parts = vec![init_segment(&movie.tracks.numbered())];
        parts.extend(media_segment(1, &movie.runs(|_| true)?));
        Ok(parts.concat().into())
    }

    /// By the pictures where there are any.
    pub(crate) fn duration_ms(&self) -> u64 {
        let times = decode_times(if self.video.is_empty() { &self.audio } else { &self.video });
        match (times.first(), times.last()) {
            (Some(first), Some(last)) => last.abs_diff(*first) + self.last_lasts_ms(&times),
            _ => 0,
        }
    }

    /// `times` of a track, sorted.
    fn last_lasts_ms(&self, times: &[i64]) -> u64 {
        let gaps = times.len().saturating_sub(1) as u64;
        match (times.first(), times.last()) {
            (Some(first), Some(last)) if gaps > 0 => (last.abs_diff(*first) + gaps / 2) / gaps,
            _ => self.lone_ms(),
        }
    }

    fn lone_ms(&self) -> u64 {
        let rate = self.tracks.video().and_then(|format| format.frame_rate);
        let Some(rate) = rate.filter(|rate| (1.0..=240.0).contains(rate)) else { return LONE_PICTURE_MS };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 4 and 1000")]
        let ms = (1_000.0 / rate).round() as u64;
        ms
    }

    /// The run of each wanted track: its number as in [`Tracks::numbered`].
    pub(crate) fn runs(&self, wanted: impl Fn(u32) -> bool) -> Result<Vec<Run>, FootageError> {
        let tracks = self.tracks.numbered().into_iter().filter(|track| wanted(track.id));
        tracks
            .map(|track| match &track.format {
                TrackFormat::Video(format) => self.pictures(track.id, format),
                TrackFormat::Audio(_) => Ok(self.sound(&track)),
            })
            .collect()
    }

    fn pictures(&self, track: u32, format: &VideoFormat) -> Result<Run, FootageError> {
        let times = decode_times(&self.video);
        let last_lasts = self.last_lasts_ms(&times);
        let mut samples = Vec::with_capacity(self.video.len());
        for (index, (frame, time)) in self.video.iter().zip(&times).enumerate() {
            check_picture(format, frame)
                .map_err(|reason| FootageError::Frame { track: track.into(), reason })?;
            let duration = times.get(index + 1).map_or(last_lasts, |next| next.abs_diff(*time));
            samples.push(Sample {
                data: frame.data.clone(),
                duration: u32::try_from(duration).unwrap_or(u32::MAX),
                composition_offset: i32::try_from(frame.offset_ms - time).unwrap_or(0),
                key_frame: frame.key_frame,
            });
        }
        let begin = self.at_ms(times.first().copied().unwrap_or(0));
        Ok(Run { track, decode_time: begin * u64::from(VIDEO_TIMESCALE) / 1_000, samples })
    }

    fn sound(&self, track: &Track) -> Run {
        let (timescale, is_aac, channels) = match &track.format {
            TrackFormat::Audio(format) => (
                u64::from(track.timescale()),
                format.codec == AudioCodec::Aac,
                usize::from(format.channels.max(1)),
            ),
            TrackFormat::Video(_) => unreachable!("asked for sound only"),
        };
        let samples = self.audio.iter().map(|frame| Sample {
            data: frame.data.clone(),
            duration: if is_aac {
                AAC_FRAME
            } else {
                u32::try_from(frame.data.len() / channels).unwrap_or(u32::MAX)
            },
            composition_offset: 0,
            key_frame: true,
        });
        let begin = self.at_ms(self.audio.first().map_or(0, |frame| frame.offset_ms));
        Run {
            track: track.id,
            decode_time: begin.saturating_mul(timescale) / 1_000,
            samples: samples.collect(),
        }
    }

    /// The whole fragment as a transport stream.
    pub(crate) fn transport_stream(&self) -> Result<Bytes, FootageError> {
        let times = decode_times(&self.video);
        let unit = |kind, frame: &Frame, decode: i64| {
            let (decode_90k, show_90k) = (self.at_ms(decode) * 90, self.at_ms(frame.offset_ms) * 90);
            ts::Unit { kind, data: frame.data.clone(), decode_90k, show_90k, key_frame: frame.key_frame }
        };
        // A player may not be shown a picture before it was decoded: all times of showing move by the greatest lead.
        let lead = self.video.iter().zip(&times).map(|(frame, time)| time - frame.offset_ms).max();
        let lead = u64::try_from(lead.unwrap_or(0)).unwrap_or(0) * 90;
        let mut units: Vec<_> = self
            .video
            .iter()
            .zip(&times)
            .map(|(frame, time)| unit(ts::Kind::Video, frame, *time))
            .map(|unit| ts::Unit { decode_90k: unit.decode_90k.saturating_sub(lead), ..unit })
            .chain(self.audio.iter().map(|frame| unit(ts::Kind::Audio, frame, frame.offset_ms)))
            .collect();
        units.sort_by_key(|unit| unit.decode_90k);
        ts::segment(self.tracks.video(), self.tracks.audio(), &units)
            .map_err(|error| FootageError::Frame { track: 1, reason: error.to_string() })
    }

    fn at_ms(&self, offset_ms: i64) -> u64 {
        self.producer_ms.saturating_add_signed(offset_ms)
    }
}

/// Block offset in milliseconds behind its cluster, both rounded as players of the whole do.
fn scaled(offset: i16, timecode: u64, scale: u64) -> i64 {
    let ms = |units: i128| units * i128::from(scale) / 1_000_000;
    let timecode = i128::from(timecode);
    i64::try_from(ms(timecode + i128::from(offset)) - ms(timecode)).unwrap_or(0)
}

fn decode_times(frames: &[Frame]) -> Vec<i64> {
    let mut times: Vec<i64> = frames.iter().map(|frame| frame.offset_ms).collect();
    times.sort_unstable();
    times
}

fn check_picture(format: &VideoFormat, frame: &Frame) -> Result<(), String> {
    for unit in nal::length_prefixed(&frame.data, format.nal_length_size()) {
        unit.map_err(|error| format!("{} ms: {error}", frame.offset_ms))?;
    }
    Ok(())
}
