//! A Matroska document as the tree of its elements.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use media::mkv::ebml::{ChildError, Children, parse_header};
use media::mkv::read::{EventKind, Limits, ReadError, read_all};
use media::mkv::{id, name_of};
use serde::Serialize;

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

/// What is nested deeper is not taken apart: nothing that makes sense is.
const DEPTH_LIMIT: usize = 16;

/// One element. Its text form is one line; as JSON it has these fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Element {
    /// 0 for EBML and Segment.
    pub depth: usize,
    /// Of its first byte in the document.
    pub offset: u64,
    /// Of the whole element, id and size included; `None`: it says none, and lasts until something else begins.
    pub bytes: Option<u64>,
    /// As in RFC 9559, or the id in hexadecimal.
    pub name: Cow<'static, str>,
    /// Of texts, numbers and blocks.
    pub value: Option<String>,
}

/// Why a document has no more elements.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    #[error(transparent)]
    Matroska(#[from] ReadError),
    #[error("byte {at}: {source}")]
    Child { at: u64, source: ChildError },
}

/// All elements, in order, and the error that ended them, if one did.
pub fn tree(document: Bytes) -> (Vec<Element>, Option<TreeError>) {
    let (events, error) = read_all(Limits::default(), [document]);
    let mut elements = Vec::new();
    for event in events {
        let length = event.raw.len() as u64;
        let mut put = |depth, bytes, name, value| {
            elements.push(Element { depth, offset: event.at, bytes, name, value });
        };
        let whole = |size: Option<u64>| size.map(|size| size.saturating_add(length));
        let taken = match event.kind {
            EventKind::Ebml => whole_element(&event.raw, event.at, 0, &mut elements),
            EventKind::Element { .. } => whole_element(&event.raw, event.at, 1, &mut elements),
            EventKind::SegmentStart { size } => {
                put(0, whole(size), named(id::SEGMENT), None);
                Ok(())
            }
            EventKind::ClusterStart { size } => {
                put(1, whole(size), named(id::CLUSTER), None);
                Ok(())
            }
            EventKind::Timecode { ms } => {
                put(2, Some(length), named(id::TIMECODE), Some(ms.to_string()));
                Ok(())
            }
            EventKind::Block { track, offset, key_frame, .. } => {
                let key_frame = if key_frame { ", key frame" } else { "" };
                let value = format!("track {track}, {offset:+}{key_frame}");
                put(2, Some(length), "Block".into(), Some(value));
                Ok(())
            }
            EventKind::ClusterElement { id } => {
                put(2, Some(length), named(id), None);
                Ok(())
            }
            EventKind::Skipped { id } => {
                put(1, Some(length), named(id), None);
                Ok(())
            }
            EventKind::ClusterEnd | EventKind::DocumentEnd => Ok(()),
        };
        if let Err(error) = taken {
            return (elements, Some(error));
        }
    }
    (elements, error.map(TreeError::Matroska))
}

fn named(id: u32) -> Cow<'static, str> {
    name_of(id).map_or_else(|| format!("0x{id:X}").into(), Cow::Borrowed)
}

/// An element that is wholly there, and what is in it.
fn whole_element(raw: &[u8], at: u64, depth: usize, elements: &mut Vec<Element>) -> Result<(), TreeError> {
    let Ok(header) = parse_header(raw) else { return Ok(()) };
    let body = &raw[header.length..];
    let value = value(header.id, body);
    elements.push(Element {
        depth,
        offset: at,
        bytes: Some(raw.len() as u64),
        name: named(header.id),
        value,
    });
    if MASTERS.contains(&header.id) {
        inside(body, at + header.length as u64, depth + 1, elements)?;
    }
    Ok(())
}

/// `at`: of the first byte of `body` in the document.
fn inside(body: &[u8], at: u64, depth: usize, elements: &mut Vec<Element>) -> Result<(), TreeError> {
    let mut begins = 0;
    for child in Children::new(body) {
        let child = child.map_err(|source| TreeError::Child { at, source })?;
        let end = child.body_at + child.body.len();
        elements.push(Element {
            depth,
            offset: at + begins as u64,
            bytes: Some((end - begins) as u64),
            name: named(child.id),
            value: value(child.id, child.body),
        });
        if MASTERS.contains(&child.id) && depth < DEPTH_LIMIT {
            inside(child.body, at + child.body_at as u64, depth + 1, elements)?;
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

/// Offset, size, and the name indented by the depth.
impl fmt::Display for Element {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { depth, offset, bytes, name, value } = self;
        let size = bytes.map_or("unknown".to_owned(), |bytes| bytes.to_string());
        let value = value.as_deref().map(|value| format!(": {value}")).unwrap_or_default();
        write!(out, "{offset:>9} {size:>9} {}{name}{value}", "  ".repeat(*depth))
    }
}

#[cfg(test)]
mod tests {
    use media::mkv::write::{Track, block_head, cluster_start, header, tags};

    use super::*;

    #[test]
    fn every_byte_is_in_an_element_and_texts_are_shown() {
        let sound = Track::Audio(media::AudioFormat::pcmu(8_000, 1).into());
        let mut bytes = header([7; 16], "test", &[sound]).to_vec();
        bytes.extend(cluster_start(1_000));
        bytes.extend(block_head(1, -5, true, 4));
        bytes.extend(b"word");
        bytes.extend(tags(&[("place", "gate")]));
        let (elements, error) = tree(bytes.clone().into());
        assert_eq!(error, None);
        let lines: Vec<String> = elements.iter().map(Element::to_string).collect();
        for line in ["      Name: audio", "    Block: track 1, -5, key frame", "        TagString: gate"] {
            assert!(lines.iter().any(|found| found.ends_with(line)), "{line}: {lines:#?}");
        }
        // Elements without children follow one another without a hole.
        let mut at = 0;
        for (n, element) in elements.iter().enumerate() {
            assert_eq!(element.offset, at, "{element}");
            let has_children = elements.get(n + 1).is_some_and(|next| next.depth > element.depth);
            let next = elements.get(n + 1).map_or(bytes.len() as u64, |next| next.offset);
            at = if has_children { next } else { at + element.bytes.expect("it has no children") };
        }
        assert_eq!(at, bytes.len() as u64);
        let (whole, error) = tree(bytes[..bytes.len() - 3].to_vec().into());
        assert!(error.is_some() && whole.len() < elements.len());
    }

    #[test]
    fn elements_nested_beyond_reason_stay_closed() {
        let mut body = Vec::new();
        for _ in 0..40_000 {
            let length = u32::try_from(body.len()).expect("short") | 0x1000_0000;
            body = [&[0x67, 0xC8][..], &length.to_be_bytes(), &body].concat();
        }
        let mut bytes = header([7; 16], "test", &[]).to_vec();
        let length = u32::try_from(body.len()).expect("short") | 0x1000_0000;
        bytes.extend([&[0x12, 0x54, 0xC3, 0x67][..], &length.to_be_bytes(), &body].concat());
        let (elements, error) = tree(bytes.into());
        assert_eq!(error, None);
        assert_eq!(elements.iter().map(|element| element.depth).max(), Some(DEPTH_LIMIT));
    }
}
