//! A Matroska document as the tree of its elements.

use std::io::{self, Write};

use bytes::Bytes;
use media::mkv::ebml::{Children, parse_header};
use media::mkv::read::{EventKind, Limits, read_all};
use media::mkv::{id, name_of};

/// Elements that have nothing but elements in them, below the children of a Segment.
const MASTERS: &[u32] = &[
    id::EBML,
    id::INFO,
    id::TRACKS,
    id::TRACK_ENTRY,
    id::VIDEO,
    id::AUDIO,
    id::TAGS,
    id::TAG,
    id::SIMPLE_TAG,
];
const TEXTS: &[u32] = &[
    id::DOC_TYPE,
    id::TITLE,
    id::MUXING_APP,
    id::WRITING_APP,
    id::NAME,
    id::CODEC_ID,
    id::TAG_NAME,
    id::TAG_STRING,
];
const NUMBERS: &[u32] = &[
    id::EBML_VERSION,
    id::EBML_READ_VERSION,
    id::EBML_MAX_ID_LENGTH,
    id::EBML_MAX_SIZE_LENGTH,
    id::DOC_TYPE_VERSION,
    id::DOC_TYPE_READ_VERSION,
    id::TIMECODE_SCALE,
    id::TRACK_NUMBER,
    id::TRACK_UID,
    id::TRACK_TYPE,
    id::PIXEL_WIDTH,
    id::PIXEL_HEIGHT,
    id::CHANNELS,
];

/// One line of it.
struct Element {
    depth: usize,
    offset: u64,
    /// Of the whole element; `None`: it says none, and lasts until something else begins.
    bytes: Option<u64>,
    name: String,
    value: Option<String>,
}

/// All elements of the document, in order; what is no Matroska ends it with an error.
pub(crate) fn print(document: &Bytes, json: bool, out: &mut impl Write) -> io::Result<()> {
    let (events, error) = read_all(Limits::default(), [document.clone()]);
    for event in events {
        let bytes = Some(event.raw.len() as u64);
        let line =
            |depth, bytes, name: String, value| Element { depth, offset: event.at, bytes, name, value };
        let element = match event.kind {
            EventKind::Ebml => {
                whole(&event.raw, event.at, 0, json, out)?;
                continue;
            }
            EventKind::Element { .. } => {
                whole(&event.raw, event.at, 1, json, out)?;
                continue;
            }
            EventKind::SegmentStart { size } => line(0, size, "Segment".to_owned(), None),
            EventKind::ClusterStart { size } => line(1, size, "Cluster".to_owned(), None),
            EventKind::Timecode { ms } => line(2, bytes, named(id::TIMECODE), Some(ms.to_string())),
            EventKind::Block { track, offset, key_frame, .. } => {
                let value =
                    format!("track {track}, {offset:+}{}", if key_frame { ", key frame" } else { "" });
                line(2, bytes, "Block".to_owned(), Some(value))
            }
            EventKind::ClusterElement { id } => line(2, bytes, named(id), None),
            EventKind::Skipped { id } => line(1, bytes, named(id), None),
            EventKind::ClusterEnd | EventKind::DocumentEnd => continue,
        };
        put(&element, json, out)?;
    }
    error.map_or(Ok(()), |error| Err(io::Error::other(error)))
}

fn named(id: u32) -> String {
    name_of(id).map_or_else(|| format!("0x{id:X}"), str::to_owned)
}

/// An element that is wholly there, and what is in it.
fn whole(raw: &[u8], at: u64, depth: usize, json: bool, out: &mut impl Write) -> io::Result<()> {
    let Ok(header) = parse_header(raw) else { return Ok(()) };
    let body = &raw[header.length..];
    let (name, bytes) = (named(header.id), Some(raw.len() as u64));
    let value = value(header.id, body);
    put(&Element { depth, offset: at, bytes, name, value }, json, out)?;
    if MASTERS.contains(&header.id) {
        inside(body, at + header.length as u64, depth + 1, json, out)?;
    }
    Ok(())
}

/// `at`: of the first byte of `body` in the document.
fn inside(body: &[u8], at: u64, depth: usize, json: bool, out: &mut impl Write) -> io::Result<()> {
    let mut begins = 0;
    for child in Children::new(body) {
        let child = child.map_err(io::Error::other)?;
        let end = child.body_at + child.body.len();
        let element = Element {
            depth,
            offset: at + begins as u64,
            bytes: Some((end - begins) as u64),
            name: named(child.id),
            value: value(child.id, child.body),
        };
        put(&element, json, out)?;
        if MASTERS.contains(&child.id) {
            inside(child.body, at + child.body_at as u64, depth + 1, json, out)?;
        }
        begins = end;
    }
    Ok(())
}

fn value(id: u32, body: &[u8]) -> Option<String> {
    if TEXTS.contains(&id) {
        return Some(String::from_utf8_lossy(body).into_owned());
    }
    let number = || body.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    (NUMBERS.contains(&id) && body.len() <= 8).then(|| number().to_string())
}

fn put(element: &Element, json: bool, out: &mut impl Write) -> io::Result<()> {
    let Element { depth, offset, bytes, name, value } = element;
    if json {
        let line = serde_json::json!({
            "depth": depth, "offset": offset, "bytes": bytes, "name": name, "value": value,
        });
        return writeln!(out, "{line}");
    }
    let size = bytes.map_or("unknown".to_owned(), |bytes| bytes.to_string());
    let value = value.as_deref().map(|value| format!(": {value}")).unwrap_or_default();
    writeln!(out, "{offset:>9} {size:>9} {}{name}{value}", "  ".repeat(*depth))
}
