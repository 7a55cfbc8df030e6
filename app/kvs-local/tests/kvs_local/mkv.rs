//! Small PutMedia bodies, and GetMedia answers taken apart.

use std::path::PathBuf;

use bytes::Bytes;
use media::AudioFormat;
use media::mkv::elements::tags;
use media::mkv::id;
use media::mkv::read::{EventKind, Limits, Parser};
use media::mkv::write::{Track, block_head, cluster_start, header, tags as write_tags};
use serde_json::Value;

/// Header with so many audio tracks, numbered from 1.
pub(crate) fn head(tracks: usize) -> Vec<u8> {
    let track = Track::Audio(AudioFormat::pcmu(8000, 1).into());
    header([7; 16], "test", &vec![track; tracks]).to_vec()
}

pub(crate) fn block(track: u8, offset_ms: i16, payload: &[u8]) -> Vec<u8> {
    [&block_head(track, offset_ms, true, payload.len())[..], payload].concat()
}

/// A cluster with blocks of track 1 at 0, 20 and 40 ms, 100 bytes each of a pattern of its own.
pub(crate) fn cluster(timecode_ms: u64) -> Vec<u8> {
    let pattern = timecode_ms.to_be_bytes().repeat(13);
    let blocks = [0, 20, 40].map(|offset| block(1, offset, &pattern[..100]));
    [cluster_start(timecode_ms).to_vec(), blocks.concat()].concat()
}

/// Header and one cluster per timecode.
pub(crate) fn body(timecodes_ms: &[u64]) -> Vec<u8> {
    let clusters: Vec<u8> = timecodes_ms.iter().flat_map(|timecode| cluster(*timecode)).collect();
    [head(1), clusters].concat()
}

pub(crate) fn tag(name: &str, value: &str) -> Vec<u8> {
    write_tags(&[(name, value)]).to_vec()
}

pub(crate) fn end_of_fragment() -> Vec<u8> {
    tag(kvs::tag::END_OF_FRAGMENT, "")
}

/// One document of a GetMedia answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Everything in front of the KVS tags.
    pub(crate) front: Vec<u8>,
    pub(crate) opening: Vec<(String, String)>,
    pub(crate) opening_raw: Vec<u8>,
    pub(crate) cluster: Vec<u8>,
    /// Between the cluster and the closing KVS tags.
    pub(crate) trailer: Vec<u8>,
    pub(crate) closing: Vec<(String, String)>,
    pub(crate) blocks: usize,
}

impl Chunk {
    pub(crate) fn number(&self) -> &str {
        &self.opening[0].1
    }
}

pub(crate) fn chunks(bytes: &[u8]) -> Vec<Chunk> {
    let mut parser = Parser::new(Limits::default());
    parser.push(Bytes::copy_from_slice(bytes));
    let mut events = Vec::new();
    while let Some(event) = parser.next_event().expect("valid Matroska") {
        events.push(event);
    }
    while let Some(event) = parser.finish().expect("whole elements") {
        events.push(event);
    }
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut in_cluster = false;
    for event in events {
        if event.kind == EventKind::Ebml {
            chunks.push(Chunk::default());
        }
        let chunk = chunks.last_mut().expect("begins with an EBML header");
        match &event.kind {
            EventKind::ClusterStart { .. } => in_cluster = true,
            EventKind::ClusterEnd => in_cluster = false,
            EventKind::Block { .. } => chunk.blocks += 1,
            _ => {}
        }
        let items = match &event.kind {
            EventKind::Element { id: id::TAGS } => tags::parse(event.body()).expect("tags"),
            _ => Vec::new(),
        };
        match items.first().map(|(name, _)| name.as_str()) {
            Some(kvs::tag::FRAGMENT_NUMBER) => {
                chunk.opening = items;
                chunk.opening_raw = event.raw.to_vec();
            }
            Some(kvs::tag::MILLIS_BEHIND_NOW) => chunk.closing = items,
            _ if in_cluster => chunk.cluster.extend_from_slice(&event.raw),
            _ if chunk.opening.is_empty() => chunk.front.extend_from_slice(&event.raw),
            _ => chunk.trailer.extend_from_slice(&event.raw),
        }
    }
    chunks
}

/// The clusters of a document, byte for byte.
pub(crate) fn clusters(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut parser = Parser::new(Limits::default());
    parser.push(Bytes::copy_from_slice(bytes));
    let mut clusters: Vec<Vec<u8>> = Vec::new();
    let mut in_cluster = false;
    while let Some(event) = parser.next_event().expect("valid Matroska") {
        match &event.kind {
            EventKind::ClusterStart { .. } => {
                in_cluster = true;
                clusters.push(Vec::new());
            }
            EventKind::ClusterEnd => in_cluster = false,
            _ => {}
        }
        if let Some(cluster) = clusters.last_mut().filter(|_| in_cluster) {
            cluster.extend_from_slice(&event.raw);
        }
    }
    clusters
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A recording of AWS's own producer.
pub(crate) fn recorded(name: &str) -> Vec<u8> {
    let path = recording(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn recording(name: &str) -> PathBuf {
    root().join("tests/data/kvssink-putmedia").join(name)
}

/// A third-party capture from the folder that `KVS_EDGE_TEST_CAPTURES` names; `None`, and a word about it, where it
/// names none.
pub(crate) fn captured(name: &str) -> Option<Vec<u8>> {
    third_party(&format!("parser-library/{name}"))
}

/// What a parse that shares nothing with ours says of the captures.
pub(crate) fn oracle() -> Option<Value> {
    third_party("expected.json").map(|text| serde_json::from_slice(&text).expect("JSON"))
}

fn third_party(name: &str) -> Option<Vec<u8>> {
    let Some(folder) = std::env::var_os("KVS_EDGE_TEST_CAPTURES") else {
        println!("skipped: KVS_EDGE_TEST_CAPTURES names no folder (a peer of cargo xtask test --peers)");
        return None;
    };
    let path = PathBuf::from(folder).join(name);
    Some(std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

pub(crate) fn cluster_timecodes(body: &[u8]) -> Vec<u64> {
    let (mut parser, mut timecodes) = (Parser::new(Limits::default()), Vec::new());
    parser.push(Bytes::copy_from_slice(body));
    while let Some(event) = parser.next_event().expect("valid Matroska") {
        if let EventKind::Timecode { ms } = event.kind {
            timecodes.push(ms);
        }
    }
    timecodes
}
