//! Writes a PutMedia body: one header, then clusters and tags.
//!
//! Only element headers are made here. A block is sent as `block_head`, followed by the payload as it is, so that a picture
//! is never copied. The element set is that of AWS's own producer (kvssink 3.5.0, recorded), sizes are as short as possible:
//! ```text
//! EBML  Segment(unknown)  Info  Tracks  { Tags*  Cluster(unknown) { Timecode  SimpleBlock* } }*  Tags*
//! ```

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::ebml::{put_id, put_vint};
use super::id;
use crate::{AudioFormat, VideoFormat};

/// One track of the header. Track numbers count from 1 in the order of the slice given to [`header`].
#[derive(Clone, Debug)]
pub enum Track {
    Video(Arc<VideoFormat>),
    Audio(Arc<AudioFormat>),
}

/// Nanoseconds per timecode unit: all our timecodes are milliseconds.
const TIMECODE_SCALE_NS: u64 = 1_000_000;
/// Segment or Cluster size "unknown" in 8 bytes, the form in which the service itself writes it.
const UNKNOWN_SIZE: [u8; 8] = [0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
/// Id, 8-byte size, 2-byte track number, offset, flags.
const BLOCK_HEAD_MAX: usize = 1 + 8 + 2 + 2 + 1;
/// Track type of RFC 9559 5.1.4.1.3.
const VIDEO: u64 = 1;
const AUDIO: u64 = 2;

/// EBML header, Segment of unknown size, Info and Tracks. Sent once per PutMedia connection.
///
/// For playback the service wants video as track 1 and audio as track 2, at most 3 tracks (KVS limits page).
pub fn header(segment_uid: [u8; 16], writing_app: &str, tracks: &[Track]) -> Bytes {
    let mut out = BytesMut::with_capacity(512);
    put_master(&mut out, id::EBML, 1, |out| {
        put_uint(out, id::EBML_VERSION, 1);
        put_uint(out, id::EBML_READ_VERSION, 1);
        put_uint(out, id::EBML_MAX_ID_LENGTH, 4);
        put_uint(out, id::EBML_MAX_SIZE_LENGTH, 8);
        put_binary(out, id::DOC_TYPE, b"matroska", 1);
        put_uint(out, id::DOC_TYPE_VERSION, 2);
        put_uint(out, id::DOC_TYPE_READ_VERSION, 2);
    });
    put_id(&mut out, id::SEGMENT);
    out.put_slice(&UNKNOWN_SIZE);
    put_master(&mut out, id::INFO, 1, |out| {
        put_binary(out, id::SEGMENT_UID, &segment_uid, 1);
        put_uint_8(out, id::TIMECODE_SCALE, TIMECODE_SCALE_NS);
        put_binary(out, id::TITLE, writing_app.as_bytes(), 1);
        put_binary(out, id::MUXING_APP, writing_app.as_bytes(), 1);
        put_binary(out, id::WRITING_APP, writing_app.as_bytes(), 1);
    });
    put_master(&mut out, id::TRACKS, 1, |out| {
        for (number, track) in (1..).zip(tracks) {
            put_master(out, id::TRACK_ENTRY, 1, |out| put_track(out, number, track));
        }
    });
    out.freeze()
}

/// Start of a Cluster of unknown size and its Timecode. The Cluster lasts until the next Cluster or Tags.
pub fn cluster_start(timecode_ms: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(22);
    put_id(&mut out, id::CLUSTER);
    out.put_slice(&UNKNOWN_SIZE);
    put_uint_8(&mut out, id::TIMECODE, timecode_ms);
    out.freeze()
}

/// Everything of a SimpleBlock but its payload, which must follow with exactly `payload_len` bytes.
///
/// `offset_ms` is the presentation time relative to the cluster's timecode; `key_frame` marks a random access point.
pub fn block_head(track: u8, offset_ms: i16, key_frame: bool, payload_len: usize) -> Bytes {
    let track_length = if track < 0x7F { 1 } else { 2 };
    let mut head = [0; BLOCK_HEAD_MAX];
    let mut out = &mut head[..];
    put_id(&mut out, id::SIMPLE_BLOCK);
    put_vint(&mut out, (track_length + 3 + payload_len) as u64, 1);
    put_vint(&mut out, track.into(), track_length);
    out.put_i16(offset_ms);
    out.put_u8(if key_frame { 0x80 } else { 0 });
    let unused = out.len();
    Bytes::copy_from_slice(&head[..BLOCK_HEAD_MAX - unused])
}

/// One Tags element with one Tag (no Targets) that holds the (name, value) pairs in order.
pub fn tags(items: &[(&str, &str)]) -> Bytes {
    tags_with(items, 1)
}

/// The same with all sizes 4 bytes wide, as the service writes the tags that it adds to a GetMedia chunk.
pub fn tags_fixed4(items: &[(&str, &str)]) -> Bytes {
    tags_with(items, 4)
}

fn tags_with(items: &[(&str, &str)], size_length: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(
        64 + items.iter().map(|(name, value)| 24 + name.len() + value.len()).sum::<usize>(),
    );
    put_master(&mut out, id::TAGS, size_length, |out| {
        put_master(out, id::TAG, size_length, |out| {
            for (name, value) in items {
                put_master(out, id::SIMPLE_TAG, size_length, |out| {
                    put_binary(out, id::TAG_NAME, name.as_bytes(), size_length);
                    put_binary(out, id::TAG_STRING, value.as_bytes(), size_length);
                });
            }
        });
    });
    out.freeze()
}

/// Track names are those of kvssink; consumers look tracks up by them.
fn put_track(out: &mut BytesMut, number: u64, track: &Track) {
    let (kind, name, codec_id, codec_private) = match track {
        Track::Video(format) => (VIDEO, "kinesis_video", format.codec_id(), &format.codec_private),
        Track::Audio(format) => (AUDIO, "audio", format.codec_id(), &format.codec_private),
    };
    put_uint(out, id::TRACK_NUMBER, number);
    put_uint_8(out, id::TRACK_UID, number);
    put_uint(out, id::TRACK_TYPE, kind);
    put_binary(out, id::NAME, name.as_bytes(), 1);
    put_binary(out, id::CODEC_ID, codec_id.as_bytes(), 1);
    match track {
        Track::Video(format) => put_master(out, id::VIDEO, 1, |out| {
            put_uint(out, id::PIXEL_WIDTH, format.width.into());
            put_uint(out, id::PIXEL_HEIGHT, format.height.into());
        }),
        Track::Audio(format) => put_master(out, id::AUDIO, 1, |out| {
            put_binary(out, id::SAMPLING_FREQUENCY, &f64::from(format.sample_rate).to_be_bytes(), 1);
            put_uint(out, id::CHANNELS, format.channels.into());
        }),
    }
    put_binary(out, id::CODEC_PRIVATE, codec_private, 1);
}

fn put_master(out: &mut BytesMut, id: u32, size_length: usize, children: impl FnOnce(&mut BytesMut)) {
    let mut body = BytesMut::new();
    children(&mut body);
    put_binary(out, id, &body, size_length);
}

fn put_binary(out: &mut BytesMut, id: u32, body: &[u8], size_length: usize) {
    put_id(out, id);
    put_vint(out, body.len() as u64, size_length);
    out.put_slice(body);
}

/// An unsigned integer in as few bytes as it needs, at least one.
fn put_uint(out: &mut BytesMut, id: u32, value: u64) {
    let used = (8 - value.leading_zeros() as usize / 8).max(1);
    put_binary(out, id, &value.to_be_bytes()[8 - used..], 1);
}

fn put_uint_8(out: &mut BytesMut, id: u32, value: u64) {
    put_binary(out, id, &value.to_be_bytes(), 1);
}
