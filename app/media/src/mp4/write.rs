//! Writes initialisation segments and media segments.
//!
//! Only heads are made here: a media segment comes as its head and the payloads as they are, so that none is copied.

use bytes::{BufMut, Bytes, BytesMut};

use super::boxes::{put_box, put_full_box};
use crate::mkv::elements::TrackFormat;
use crate::{AudioCodec, AudioFormat, VideoCodec, VideoFormat};

/// Ticks per second of pictures: their times are milliseconds.
pub const VIDEO_TIMESCALE: u32 = 1_000;
/// Of the movie header alone.
const MOVIE_TIMESCALE: u32 = 1_000;
/// sample_depends_on = 2: a key frame (ISO/IEC 14496-12 8.6.4.3).
const KEY_FRAME: u32 = 0x0200_0000;
/// sample_depends_on = 1, sample_is_non_sync_sample.
const OTHER_FRAME: u32 = 0x0101_0000;
/// data-offset, then duration, size, flags and composition offset of each sample.
const TRUN_FLAGS: u32 = 0x0000_0001 | 0x0100 | 0x0200 | 0x0400 | 0x0800;
const DEFAULT_BASE_IS_MOOF: u32 = 0x02_0000;
/// 3x3 identity of 16.16 and 2.30 fixed point numbers.
const MATRIX: [u32; 9] = [0x0001_0000, 0, 0, 0, 0x0001_0000, 0, 0, 0, 0x4000_0000];
/// `und` in three times 5 bits.
const UNDETERMINED_LANGUAGE: u16 = 0x55C4;

/// A track of a movie.
#[derive(Clone, Debug, PartialEq)]
pub struct Track {
    /// From 1 on.
    pub id: u32,
    pub format: TrackFormat,
}

impl Track {
    /// Ticks per second: milliseconds for pictures, samples for sound.
    pub fn timescale(&self) -> u32 {
        match &self.format {
            TrackFormat::Video(_) => VIDEO_TIMESCALE,
            TrackFormat::Audio(format) => format.sample_rate.max(1),
        }
    }
}

/// One coded picture or audio frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// As in the track: pictures as NAL units behind their lengths, AAC frames without ADTS.
    pub data: Bytes,
    /// Ticks of the track's timescale until the next sample is decoded.
    pub duration: u32,
    /// Ticks from decoding to showing; negative where pictures are reordered, since decoding times are the sorted
    /// times of showing.
    pub composition_offset: i32,
    pub key_frame: bool,
}

/// Samples of one track, in decoding order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub track: u32,
    /// When the first sample is decoded, ticks of the track's timescale.
    pub decode_time: u64,
    pub samples: Vec<Sample>,
}

/// The ftyp and moov of a movie whose media come in fragments.
pub fn init_segment(tracks: &[Track]) -> Bytes {
    let mut out = BytesMut::with_capacity(1_024);
    put_box(&mut out, b"ftyp", |out| {
        out.put_slice(b"iso5");
        out.put_u32(1);
        out.put_slice(b"iso5iso6mp41");
    });
    put_box(&mut out, b"moov", |out| {
        put_full_box(out, b"mvhd", 0, 0, |out| {
            put_zeros(out, 2); // created, changed
            out.put_u32(MOVIE_TIMESCALE);
            out.put_u32(0); // the fragments say how long it is
            out.put_u32(0x0001_0000); // rate 1.0
            out.put_u16(0x0100); // volume 1.0
            out.put_slice(&[0; 10]);
            put_matrix(out);
            put_zeros(out, 6);
            out.put_u32(tracks.iter().map(|track| track.id).max().unwrap_or(0).saturating_add(1));
        });
        for track in tracks {
            put_box(out, b"trak", |out| put_track(out, track));
        }
        put_box(out, b"mvex", |out| {
            for track in tracks {
                put_full_box(out, b"trex", 0, 0, |out| {
                    out.put_u32(track.id);
                    out.put_u32(1); // the only sample description
                    put_zeros(out, 3); // each run says duration, size and flags itself
                });
            }
        });
    });
    out.freeze()
}

/// The head of a media segment (styp, moof, head of mdat), then all payloads in order.
///
/// `sequence` counts the segments of a movie from 1.
pub fn media_segment(sequence: u32, runs: &[Run]) -> Vec<Bytes> {
    let media: usize = runs.iter().map(bytes_of).sum();
    let mut out =
        BytesMut::with_capacity(256 + runs.iter().map(|run| 64 + run.samples.len() * 16).sum::<usize>());
    put_box(&mut out, b"styp", |out| {
        out.put_slice(b"msdh");
        out.put_u32(0);
        out.put_slice(b"msdhmsix");
    });
    let moof_at = out.len();
    let mut offsets_at = Vec::with_capacity(runs.len());
    put_box(&mut out, b"moof", |out| {
        put_full_box(out, b"mfhd", 0, 0, |out| out.put_u32(sequence));
        for run in runs {
            put_box(out, b"traf", |out| {
                put_full_box(out, b"tfhd", 0, DEFAULT_BASE_IS_MOOF, |out| out.put_u32(run.track));
                put_full_box(out, b"tfdt", 1, 0, |out| out.put_u64(run.decode_time));
                put_full_box(out, b"trun", 1, TRUN_FLAGS, |out| {
                    out.put_u32(length(run.samples.len()));
                    offsets_at.push(out.len());
                    out.put_u32(0);
                    run.samples.iter().for_each(|sample| put_sample(out, sample));
                });
            });
        }
    });
    // The long form only where it is needed: not every player reads it.
    match u32::try_from(media + 8) {
        Ok(size) => {
            out.put_u32(size);
            out.put_slice(b"mdat");
        }
        Err(_) => {
            out.put_u32(1);
            out.put_slice(b"mdat");
            out.put_u64(media as u64 + 16);
        }
    }
    let mut offset = out.len() - moof_at;
    for (run, at) in runs.iter().zip(offsets_at) {
        out[at..at + 4].copy_from_slice(&length(offset).to_be_bytes());
        offset += bytes_of(run);
    }
    let mut parts = vec![out.freeze()];
    parts.extend(runs.iter().flat_map(|run| run.samples.iter().map(|sample| sample.data.clone())));
    parts
}

fn bytes_of(run: &Run) -> usize {
    run.samples.iter().map(|sample| sample.data.len()).sum()
}

/// Counts and offsets inside a fragment, which has at most 50 MB (KVS limits page).
fn length(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn put_sample(out: &mut BytesMut, sample: &Sample) {
    out.put_u32(sample.duration);
    out.put_u32(length(sample.data.len()));
    out.put_u32(if sample.key_frame { KEY_FRAME } else { OTHER_FRAME });
    out.put_i32(sample.composition_offset);
}

fn put_track(out: &mut BytesMut, track: &Track) {
    let video = match &track.format {
        TrackFormat::Video(format) => Some(format),
        TrackFormat::Audio(_) => None,
    };
    put_full_box(out, b"tkhd", 0, 3, |out| {
        put_zeros(out, 2);
        out.put_u32(track.id);
        put_zeros(out, 2); // reserved, duration
        put_zeros(out, 2);
        put_zeros(out, 1); // layer, group
        out.put_u16(if video.is_some() { 0 } else { 0x0100 }); // volume
        out.put_u16(0);
        put_matrix(out);
        let (width, height) = video.map_or((0, 0), |format| (format.width, format.height));
        out.put_u32(width << 16); // 16.16
        out.put_u32(height << 16);
    });
    put_box(out, b"mdia", |out| {
        put_full_box(out, b"mdhd", 0, 0, |out| {
            put_zeros(out, 2);
            out.put_u32(track.timescale());
            out.put_u32(0);
            out.put_u16(UNDETERMINED_LANGUAGE);
            out.put_u16(0);
        });
        put_full_box(out, b"hdlr", 0, 0, |out| {
            out.put_u32(0);
            out.put_slice(if video.is_some() { b"vide" } else { b"soun" });
            put_zeros(out, 3);
            out.put_slice(if video.is_some() { b"video\0" } else { b"sound\0" });
        });
        put_box(out, b"minf", |out| {
            match video {
                Some(_) => put_full_box(out, b"vmhd", 0, 1, |out| out.put_slice(&[0; 8])),
                None => put_full_box(out, b"smhd", 0, 0, |out| out.put_u32(0)),
            }
            put_box(out, b"dinf", |out| {
                put_full_box(out, b"dref", 0, 0, |out| {
                    out.put_u32(1);
                    put_full_box(out, b"url ", 0, 1, |_| {}); // in this file
                });
            });
            put_box(out, b"stbl", |out| {
                put_full_box(out, b"stsd", 0, 0, |out| {
                    out.put_u32(1);
                    match &track.format {
                        TrackFormat::Video(format) => put_video_entry(out, format),
                        TrackFormat::Audio(format) => put_audio_entry(out, format),
                    }
                });
                // All samples are in fragments.
                put_full_box(out, b"stts", 0, 0, |out| out.put_u32(0));
                put_full_box(out, b"stsc", 0, 0, |out| out.put_u32(0));
                put_full_box(out, b"stsz", 0, 0, |out| put_zeros(out, 2));
                put_full_box(out, b"stco", 0, 0, |out| out.put_u32(0));
            });
        });
    });
}

/// VisualSampleEntry (ISO/IEC 14496-12 12.1.3) with the record of ISO/IEC 14496-15.
fn put_video_entry(out: &mut BytesMut, format: &VideoFormat) {
    let (entry, record) = match format.codec {
        VideoCodec::H264 => (b"avc1", b"avcC"),
        VideoCodec::H265 => (b"hvc1", b"hvcC"),
    };
    put_box(out, entry, |out| {
        out.put_slice(&[0; 6]);
        out.put_u16(1); // data reference
        put_zeros(out, 4);
        out.put_u16(u16::try_from(format.width).unwrap_or(u16::MAX));
        out.put_u16(u16::try_from(format.height).unwrap_or(u16::MAX));
        out.put_u32(0x0048_0000); // 72 dpi
        out.put_u32(0x0048_0000);
        out.put_u32(0);
        out.put_u16(1); // one frame per sample
        out.put_slice(&[0; 32]); // compressor's name
        out.put_u16(0x0018); // colour, no alpha
        out.put_i16(-1);
        put_box(out, record, |out| out.put_slice(&format.codec_private));
    });
}

/// AudioSampleEntry (ISO/IEC 14496-12 12.2.3); G.711 by the names that QuickTime gave it.
fn put_audio_entry(out: &mut BytesMut, format: &AudioFormat) {
    let entry = match format.codec {
        AudioCodec::Aac => b"mp4a",
        AudioCodec::Pcmu => b"ulaw",
        AudioCodec::Pcma => b"alaw",
    };
    put_box(out, entry, |out| {
        out.put_slice(&[0; 6]);
        out.put_u16(1);
        put_zeros(out, 2);
        out.put_u16(format.channels);
        out.put_u16(16); // bits when decoded
        out.put_u32(0);
        out.put_u32(u32::from(u16::try_from(format.sample_rate).unwrap_or(0)) << 16); // 16.16; mdhd has the rate
        if format.codec == AudioCodec::Aac {
            put_full_box(out, b"esds", 0, 0, |out| put_es_descriptor(out, &format.codec_private));
        }
    });
}

/// ES_Descriptor of ISO/IEC 14496-1 7.2.6.5 with one DecoderConfigDescriptor.
fn put_es_descriptor(out: &mut BytesMut, audio_specific_config: &[u8]) {
    const ES: u8 = 3;
    const DECODER_CONFIG: u8 = 4;
    const DECODER_SPECIFIC: u8 = 5;
    const SL_CONFIG: u8 = 6;
    let specific = descriptor(DECODER_SPECIFIC, audio_specific_config);
    let mut config = BytesMut::new();
    config.put_u8(0x40); // MPEG-4 audio
    config.put_u8(0x15); // audio stream, upstream 0, reserved 1
    config.put_slice(&[0; 3 + 4 + 4]); // buffer size, greatest and mean bit rate: not known
    config.put_slice(&specific);
    let mut es = BytesMut::new();
    es.put_u16(0);
    es.put_u8(0);
    es.put_slice(&descriptor(DECODER_CONFIG, &config));
    es.put_slice(&descriptor(SL_CONFIG, &[2]));
    out.put_slice(&descriptor(ES, &es));
}

/// Tag, size in four groups of 7 bits, body.
fn descriptor(tag: u8, body: &[u8]) -> BytesMut {
    let size = length(body.len()).min(0x0FFF_FFFF);
    let mut out = BytesMut::with_capacity(5 + body.len());
    out.put_u8(tag);
    let group = |shift: u32| (size >> shift & 0x7F).to_be_bytes()[3];
    out.put_slice(&[0x80 | group(21), 0x80 | group(14), 0x80 | group(7), group(0)]);
    out.put_slice(body);
    out
}

fn put_matrix(out: &mut BytesMut) {
    MATRIX.iter().for_each(|word| out.put_u32(*word));
}

fn put_zeros(out: &mut BytesMut, words: usize) {
    out.put_bytes(0, words * 4);
}
