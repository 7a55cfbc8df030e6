//! Typed views of the Segment's elements that matter here: Info, Tracks and Tags.
//!
//! Each takes the body of a whole element, as the reader's `Element` event carries it. Unknown children are passed over.

pub mod tags;
pub mod tracks;

pub use tracks::{TrackFormat, TrackInfo};

use super::ebml::{self, ChildError, Children};
use super::id;

/// Why a body could not be understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ElementError {
    #[error("{parent}: {error}")]
    Child { parent: &'static str, error: ChildError },
    #[error("{element} in {parent} has {found} bytes, expected {expected}")]
    Length { parent: &'static str, element: &'static str, found: usize, expected: &'static str },
    #[error("{element} in {parent} is {found}, at most {limit} makes sense")]
    Value { parent: &'static str, element: &'static str, found: u64, limit: u64 },
    #[error("{parent} is nested more than {limit} levels deep")]
    TooDeep { parent: &'static str, limit: usize },
}

/// The Info element of a Segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Info {
    /// Nanoseconds per timecode unit, 1 000 000 if absent (RFC 9559 5.1.2.9).
    pub timecode_scale: u64,
    pub title: String,
    pub muxing_app: String,
    pub writing_app: String,
    /// `None` if absent or not 16 bytes long.
    pub segment_uid: Option<[u8; 16]>,
}

impl Info {
    /// Reads the body of an Info element; absent texts are empty, invalid UTF-8 is replaced.
    pub fn parse(body: &[u8]) -> Result<Info, ElementError> {
        let mut info = Info {
            timecode_scale: 1_000_000,
            title: String::new(),
            muxing_app: String::new(),
            writing_app: String::new(),
            segment_uid: None,
        };
        for child in children("Info", body) {
            let child = child?;
            match child.id {
                id::TIMECODE_SCALE => info.timecode_scale = uint("Info", "TimestampScale", child.body)?,
                id::TITLE => info.title = text(child.body),
                id::MUXING_APP => info.muxing_app = text(child.body),
                id::WRITING_APP => info.writing_app = text(child.body),
                id::SEGMENT_UID => info.segment_uid = child.body.try_into().ok(),
                _ => {}
            }
        }
        Ok(info)
    }
}

fn children<'a>(
    parent: &'static str,
    body: &'a [u8],
) -> impl Iterator<Item = Result<ebml::Child<'a>, ElementError>> {
    Children::new(body).map(move |child| child.map_err(|error| ElementError::Child { parent, error }))
}

fn uint(parent: &'static str, element: &'static str, body: &[u8]) -> Result<u64, ElementError> {
    ebml::uint(body).ok_or(ElementError::Length { parent, element, found: body.len(), expected: "at most 8" })
}

fn uint32(parent: &'static str, element: &'static str, body: &[u8]) -> Result<u32, ElementError> {
    let found = uint(parent, element, body)?;
    found.try_into().map_err(|_| ElementError::Value { parent, element, found, limit: u32::MAX.into() })
}

/// A float of 0, 4 or 8 bytes.
fn float(parent: &'static str, element: &'static str, body: &[u8]) -> Result<f64, ElementError> {
    if let Ok(bytes) = body.try_into() {
        return Ok(f64::from_be_bytes(bytes));
    }
    if let Ok(bytes) = body.try_into() {
        return Ok(f32::from_be_bytes(bytes).into());
    }
    match body {
        [] => Ok(0.0),
        _ => Err(ElementError::Length { parent, element, found: body.len(), expected: "0, 4 or 8" }),
    }
}

/// Text up to its first zero byte, which pads (RFC 8794 7.4); invalid UTF-8 is replaced.
fn text(body: &[u8]) -> String {
    let end = body.iter().position(|&byte| byte == 0).unwrap_or(body.len());
    String::from_utf8_lossy(&body[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_hold_where_elements_are_absent() {
        let info = Info::parse(&[]).unwrap();
        assert_eq!((info.timecode_scale, info.segment_uid), (1_000_000, None));
    }

    #[test]
    fn a_child_that_overruns_is_named_with_its_offset() {
        let error = Info::parse(&[0x7B, 0xA9, 0x81, b'x', 0x7B, 0xA9, 0x85, b'y']).unwrap_err();
        assert_eq!(error.to_string(), "Info: the element at offset 4 does not fit its parent of 8 bytes");
    }

    #[test]
    fn floats_come_in_three_lengths() {
        assert_eq!(float("Audio", "x", &16_000f64.to_be_bytes()), Ok(16_000.0));
        assert_eq!(float("Audio", "x", &8_000f32.to_be_bytes()), Ok(8_000.0));
        assert_eq!(float("Audio", "x", &[]), Ok(0.0));
        assert!(float("Audio", "x", &[0; 3]).is_err());
    }
}
