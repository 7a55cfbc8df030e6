//! The reader against webm-iterable, which shares no code with it: both must tell the same of the same bytes.

mod support;

use bytes::{Bytes, BytesMut};
use media::mkv::elements::tags;
use media::mkv::id;
use media::mkv::read::{Event, EventKind};
use media::mkv::write;
use webm_iterable::WebmIterator;
use webm_iterable::matroska_spec::{Block, Master, MatroskaSpec, SimpleBlock};

use support::{cut, read_chunks, recorded, sha256_hex, unhex};

/// What both readers can tell.
#[derive(Clone, PartialEq, Debug)]
enum Told {
    Document { at: u64 },
    Cluster { at: u64 },
    Timecode(u64),
    Block { track: u64, offset: i16, key_frame: bool, laced: bool, bytes: usize, sha256: String },
    Tag { name: String, value: String },
}

fn block(track: u64, offset: i16, key_frame: bool, laced: bool, payload: &[u8]) -> Told {
    Told::Block { track, offset, key_frame, laced, bytes: payload.len(), sha256: sha256_hex(payload) }
}

fn told_by_us(events: &[Event]) -> Vec<Told> {
    let mut told = Vec::new();
    for event in events {
        match event.kind {
            EventKind::Ebml => told.push(Told::Document { at: event.at }),
            EventKind::ClusterStart { .. } => told.push(Told::Cluster { at: event.at }),
            EventKind::Timecode { ms } => told.push(Told::Timecode(ms)),
            EventKind::Block { track, offset, key_frame, lacing } => {
                told.push(block(track, offset, key_frame, lacing != 0, event.body()));
            }
            EventKind::Element { id: id::TAGS } => {
                let items = tags::parse(event.body()).unwrap();
                told.extend(items.into_iter().map(|(name, value)| Told::Tag { name, value }));
            }
            _ => {}
        }
    }
    told
}

fn told_by_webm_iterable(data: &[u8]) -> Vec<Told> {
    let (mut told, mut tag_name) = (Vec::new(), String::new());
    let mut reader = WebmIterator::new(data, &[]);
    while let Some(tag) = reader.next() {
        let tag = tag.unwrap();
        let at = u64::try_from(reader.last_emitted_tag_offset()).unwrap();
        match &tag {
            MatroskaSpec::Ebml(Master::Start) => told.push(Told::Document { at }),
            MatroskaSpec::Cluster(Master::Start) => told.push(Told::Cluster { at }),
            MatroskaSpec::Timestamp(ms) => told.push(Told::Timecode(*ms)),
            MatroskaSpec::SimpleBlock(_) => {
                let it = SimpleBlock::try_from(&tag).unwrap();
                let laced = it.lacing.is_some();
                told.push(block(it.track, it.timestamp, it.keyframe, laced, it.raw_frame_data()));
            }
            MatroskaSpec::Block(_) => {
                let it = Block::try_from(&tag).unwrap();
                told.push(block(it.track, it.timestamp, true, it.lacing.is_some(), it.raw_frame_data()));
            }
            MatroskaSpec::ReferenceBlock(_) => {
                let Some(Told::Block { key_frame, .. }) = told.last_mut() else { panic!("behind its Block") };
                *key_frame = false;
            }
            MatroskaSpec::TagName(name) => tag_name.clone_from(name),
            MatroskaSpec::TagString(value) => {
                told.push(Told::Tag { name: tag_name.clone(), value: value.clone() });
            }
            _ => {}
        }
    }
    told
}

/// Compares both; returns how many documents, clusters and blocks they agree on.
#[track_caller]
fn check(name: &str, data: &Bytes) -> (usize, usize, usize) {
    let expected = told_by_webm_iterable(data);
    for chunk_bytes in [data.len(), 1_460] {
        let (events, error) = read_chunks(cut(data, chunk_bytes));
        assert_eq!(error, None, "{name}");
        assert_eq!(told_by_us(&events), expected, "{name} in chunks of {chunk_bytes} bytes");
    }
    let count = |wanted: fn(&Told) -> bool| expected.iter().filter(|told| wanted(told)).count();
    (
        count(|told| matches!(told, Told::Document { .. })),
        count(|told| matches!(told, Told::Cluster { .. })),
        count(|told| matches!(told, Told::Block { .. })),
    )
}

/// Documents as GetMedia sends them, each of two clusters, payloads of all lengths around a change of the size's length.
fn generated(documents: u64) -> Bytes {
    let mut out = BytesMut::new();
    for document in 0..documents {
        out.extend_from_slice(&write::header([1; 16], "test", &[]));
        out.extend_from_slice(&write::tags_fixed4(&[(
            "AWS_KINESISVIDEO_FRAGMENT_NUMBER",
            "9134385233318143",
        )]));
        for cluster in 0..2 {
            out.extend_from_slice(&write::cluster_start(
                1_795_186_142_967 + document * 2_000 + cluster * 1_000,
            ));
            for offset in 0..40 {
                let length = 100 + usize::try_from(offset).unwrap();
                let payload: Vec<u8> =
                    (0..length).map(|byte| byte.to_le_bytes()[0] ^ document.to_le_bytes()[0]).collect();
                let track = 1 + u8::from(offset % 3 == 0);
                out.extend_from_slice(&write::block_head(track, offset - 20, offset == 0, length));
                out.extend_from_slice(&payload);
            }
        }
        out.extend_from_slice(&write::tags(&[
            ("AWS_KINESISVIDEO_MILLIS_BEHIND_NOW", "0"),
            ("SITE", "gate 4"),
        ]));
    }
    out.freeze()
}

#[test]
fn both_tell_the_same_of_generated_documents() {
    assert_eq!(check("generated", &generated(5)), (5, 10, 400));
}

#[test]
fn both_tell_the_same_of_known_sizes_and_block_groups() {
    let known = "1a45dfa3 84 42828131  18538067 af  1f43b675 a3 e7 81 05 a3 85 81 0001 80 aa
        a0 8b 9b 81 28 a1 86 4081 fffe 00 bb  a0 8a a1 85 82 0002 00 cc fb 81 ff  1254c367 80  ec 80";
    let data = [&unhex(known)[..], &generated(1)].concat().into();
    assert_eq!(check("known sizes", &data), (2, 3, 83));
}

#[test]
fn both_tell_the_same_of_recorded_putmedia_bodies() {
    for (name, expected) in [
        ("ok_put_001.mkv", (1, 5, 150)),
        ("hevc_put_001.mkv", (1, 3, 90)),
        ("av_put_001.mkv", (1, 3, 182)),
        ("err_put_001.mkv", (1, 3, 61)),
        ("err_put_002.mkv", (1, 2, 60)),
    ] {
        assert_eq!(check(name, &recorded(name)), expected, "{name}");
    }
}
