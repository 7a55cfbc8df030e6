//! A small camera and a small service for the tests of this crate.

use std::sync::Arc;

use bytes::Bytes;
use media::mkv::read::{EventKind, Limits, Parser};
use media::mkv::write;
use media::{AccessUnit, AudioFormat, AudioFrame, ProducerTimestamp, VideoCodec, VideoFormat};

use crate::fragmenter::{FragmentSummary, Fragmenter, FragmenterConfig, Part, StreamHeader};
use crate::read::chunk::{Chunk, ChunkStart};
use crate::tag;
use crate::{FragmentIds, FragmentNumber, RunId};

pub(crate) const START_MS: u64 = 1_795_186_073_633;
pub(crate) const RUN: u64 = 0x009f_3c2a_1b04;

pub(crate) fn format(width: u32) -> Arc<VideoFormat> {
    let codec_private = Bytes::from_static(b"\x01\x42\xc0\x1e\xff\xe1\x00\x00\x01\x00\x00");
    Arc::new(VideoFormat { codec: VideoCodec::H264, codec_private, width, height: 480, frame_rate: None })
}

/// A picture of a few bytes that say which one it is.
pub(crate) fn unit(format: &Arc<VideoFormat>, at_ms: u64, random_access: bool) -> AccessUnit {
    let data = Bytes::from(format!("\0\0\0\x0e{:014}", at_ms));
    let timestamp = ProducerTimestamp::from_millis(START_MS + at_ms);
    AccessUnit { data, timestamp, random_access, format: format.clone() }
}

pub(crate) fn audio(at_ms: u64) -> AudioFrame {
    let format = Arc::new(AudioFormat::pcmu(8000, 1));
    let timestamp = ProducerTimestamp::from_millis(START_MS + at_ms);
    AudioFrame { data: Bytes::from_static(&[0xff; 160]), timestamp, format }
}

pub(crate) fn config() -> FragmenterConfig {
    FragmenterConfig {
        fragment_ms: 1000,
        fragment_max_ms: 4000,
        ids: FragmentIds::new(RunId::new(RUN)),
        device: "box".to_owned(),
        camera: "cam".to_owned(),
        writing_app: "kvs-edge test".to_owned(),
        segment_uid: [7; 16],
    }
}

pub(crate) fn parts(fragmenter: &mut Fragmenter) -> Vec<Part> {
    std::iter::from_fn(|| fragmenter.next_part()).collect()
}

/// `count` whole fragments of 5 pictures, 200 ms apart; the last one is closing.
pub(crate) fn stream(count: u64) -> Vec<Part> {
    let mut fragmenter = Fragmenter::new(config());
    let format = format(640);
    (0..count * 5).for_each(|n| fragmenter.video(&unit(&format, n * 200, n % 5 == 0)));
    fragmenter.finish();
    parts(&mut fragmenter)
}

/// A fragment put together from its parts.
pub(crate) struct Whole {
    pub(crate) header: Arc<StreamHeader>,
    pub(crate) cluster: Vec<u8>,
    pub(crate) tag: Bytes,
    pub(crate) summary: FragmentSummary,
}

pub(crate) fn wholes(parts: impl IntoIterator<Item = Part>) -> Vec<Whole> {
    let mut wholes = Vec::new();
    let mut open: Option<(Arc<StreamHeader>, Vec<u8>)> = None;
    for part in parts {
        match part {
            Part::Start(start) => open = Some((start.header, start.head.to_vec())),
            Part::Block { head, payload } => {
                let (_, cluster) = open.as_mut().expect("a start before each block");
                cluster.extend_from_slice(&head);
                cluster.extend_from_slice(&payload);
            }
            Part::End(end) => {
                let (header, cluster) = open.take().expect("a start before each end");
                wholes.push(Whole { header, cluster, tag: end.tag, summary: end.summary });
            }
        }
    }
    wholes
}

/// Track and time in ms of each block, in stored order.
pub(crate) fn block_times(whole: &Whole) -> Vec<(u64, u64)> {
    let mut parser = Parser::new(Limits::default());
    parser.push(whole.header.bytes.clone());
    parser.push(whole.cluster.clone().into());
    let (mut times, mut timecode_ms) = (Vec::new(), 0);
    while let Some(event) = parser.finish().expect("our own Matroska") {
        match event.kind {
            EventKind::Timecode { ms } => timecode_ms = ms,
            EventKind::Block { track, offset, .. } => {
                times.push((track, timecode_ms.saturating_add_signed(offset.into())));
            }
            _ => {}
        }
    }
    times
}

pub(crate) fn fragments(count: u64) -> Vec<Whole> {
    wholes(stream(count))
}

pub(crate) fn header_bytes() -> Bytes {
    fragments(1)[0].header.bytes.clone()
}

/// What GetMedia (`closing`) or GetMediaForFragmentList answers for a fragment.
pub(crate) fn chunk_bytes(fragment: &Whole, sequence: u64, closing: bool) -> Vec<u8> {
    let timecode_ms = fragment.summary.timecode.as_millis();
    let number = FragmentNumber::new(sequence, timecode_ms + 100, 1).to_string();
    let (server, producer) = (tag::format_seconds(timecode_ms + 100), tag::format_seconds(timecode_ms));
    let opening = [
        (tag::FRAGMENT_NUMBER, number.as_str()),
        (tag::SERVER_TIMESTAMP, server.as_str()),
        (tag::PRODUCER_TIMESTAMP, producer.as_str()),
    ];
    let mut bytes = fragment.header.bytes.to_vec();
    bytes.extend_from_slice(&write::tags_fixed4(&opening));
    bytes.extend_from_slice(&fragment.cluster);
    bytes.extend_from_slice(&fragment.tag);
    if closing {
        let tags = [(tag::MILLIS_BEHIND_NOW, "0"), (tag::CONTINUATION_TOKEN, number.as_str())];
        bytes.extend_from_slice(&write::tags_fixed4(&tags));
    }
    bytes
}

/// The end of a chunk of which nothing was kept but its start.
pub(crate) fn bare_chunk(start: ChunkStart, complete: bool) -> Chunk {
    let (cluster, tags, millis_behind_now, continuation_token) = (None, Vec::new(), None, None);
    Chunk { start, cluster, tags, millis_behind_now, continuation_token, complete }
}
