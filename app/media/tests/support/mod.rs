//! What several test files of this crate need.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of this")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use media::mkv::read::{Event, EventKind, Limits, ReadError, read_all};
use sha2::{Digest, Sha256};

/// All events of an input given in these chunks, and the error that stopped it, if one did.
pub fn read_chunks(chunks: impl IntoIterator<Item = Bytes>) -> (Vec<Event>, Option<ReadError>) {
    read_all(Limits::default(), chunks)
}

/// All events of a whole input that must be without error.
#[track_caller]
pub fn read(input: &Bytes) -> Vec<Event> {
    let (events, error) = read_chunks([input.clone()]);
    assert_eq!(error, None);
    events
}

/// `input` in pieces of `length` bytes, the last one shorter.
pub fn cut(input: &Bytes, length: usize) -> Vec<Bytes> {
    (0..input.len()).step_by(length).map(|at| input.slice(at..input.len().min(at + length))).collect()
}

pub fn raw(events: &[Event]) -> Vec<u8> {
    events.iter().flat_map(|event| event.raw.iter().copied()).collect()
}

/// One word per event, blocks as `b`, for comparing shapes.
pub fn shape(events: &[Event]) -> String {
    let words: Vec<String> = events
        .iter()
        .map(|event| match &event.kind {
            EventKind::Ebml => "ebml".into(),
            EventKind::SegmentStart { .. } => "segment(".into(),
            EventKind::Element { id, .. } => media::mkv::name_of(*id).unwrap_or("unknown").into(),
            EventKind::Skipped { .. } => "skipped".into(),
            EventKind::ClusterStart { .. } => "cluster(".into(),
            EventKind::Timecode { ms } => format!("@{ms}"),
            EventKind::Block { .. } => "b".into(),
            EventKind::ClusterElement { id, .. } => media::mkv::name_of(*id).unwrap_or("unknown").into(),
            EventKind::ClusterEnd => ")".into(),
            EventKind::DocumentEnd => ")end".into(),
        })
        .collect();
    words.join(" ")
}

pub fn sha256_hex(data: &[u8]) -> String {
    hex(&Sha256::digest(data))
}

pub fn hex(data: &[u8]) -> String {
    data.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Bytes of hexadecimal text; blanks and line ends do not count.
#[track_caller]
pub fn unhex(text: &str) -> Bytes {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A file of `tests/data/kvssink-putmedia`, which is part of the project.
#[track_caller]
pub fn recorded(name: &str) -> Bytes {
    let path = workspace().join("tests/data/kvssink-putmedia").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).into()
}

/// A third-party file from the folder that `KVS_EDGE_TEST_CAPTURES` names, or `None` after saying that it names none.
#[track_caller]
pub fn third_party(name: &str) -> Option<Bytes> {
    let Some(folder) = std::env::var_os("KVS_EDGE_TEST_CAPTURES") else {
        eprintln!("skipped: KVS_EDGE_TEST_CAPTURES names no folder (a peer of cargo xtask test --peers)");
        return None;
    };
    let path = Path::new(&folder).join(name);
    Some(std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).into())
}
