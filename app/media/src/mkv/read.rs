//! Incremental reader of Matroska documents that follow one another, as GetMedia sends and PutMedia receives them.
//!
//! ```text
//!            EBML             Segment                Cluster
//!   between ------> document ---------> in segment ----------> in cluster
//!      ^                                  |     ^                   |
//!      +------ EBML again, end of a ------+     +-- a Segment child,+
//!              known size, finish()                 end of a known size
//! ```
//! Segment, Cluster and BlockGroup are looked into, everything else is opaque. Segment and Cluster may have unknown size:
//! they end at the first element that cannot be inside them, never by scanning, because payloads may contain any bytes.
//!
//! What is pushed is handed out as slices of itself. Only an element that straddles two pushes is copied, into a buffer that
//! grows with the bytes that really arrived, so a claimed size costs nothing.

mod input;

use std::ops::Range;

use bytes::Bytes;

use super::ebml::{self, Children, Header, HeaderError};
use super::id::{self, Named};
use input::Input;

/// Caps on what is held in memory at once. Both are far above what the service accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Largest body of the EBML header and of a Segment's or Cluster's child that is no block.
    pub header_element_bytes: usize,
    /// Largest body of a SimpleBlock or BlockGroup. A whole fragment may have 50 MB (KVS limits page).
    pub block_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { header_element_bytes: 1 << 20, block_bytes: 64 << 20 }
    }
}

/// One step through the input. Concatenating `raw` of all events gives exactly the input bytes.
///
/// The events do not depend on how the input was cut into pushes, except that `Skipped` comes in pieces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Offset of `raw` in the whole input, bytes.
    pub at: u64,
    /// Id, size and body of a whole element; of Segment and Cluster id and size; empty at an end.
    pub raw: Bytes,
    pub kind: EventKind,
    /// Where in `raw` the body lies: one shared buffer per event is one reference count, and these cost as much as parsing.
    body: Range<usize>,
}

impl Event {
    /// The frames of a block, of any other whole element what follows id and size; otherwise empty.
    #[inline]
    pub fn body(&self) -> &[u8] {
        &self.raw[self.body.clone()]
    }

    /// The same to keep, as a slice of `raw` that is not copied.
    #[inline]
    pub fn shared_body(&self) -> Bytes {
        self.raw.slice(self.body.clone())
    }

    /// What of `raw` stands in front of the body and behind it: a BlockGroup may go on behind its Block.
    #[inline]
    pub fn around_body(&self) -> [&[u8]; 2] {
        [&self.raw[..self.body.start], &self.raw[self.body.end..]]
    }
}

/// What an [`Event`] says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// A whole EBML header: a document begins.
    Ebml,
    /// Id and size of a Segment, `None` for unknown.
    SegmentStart { size: Option<u64> },
    /// A whole child of a Segment other than Cluster, or a Void between documents.
    Element { id: u32 },
    /// A piece of an element larger than the cap that nobody needs (Cues, Void, Attachments, unknown): first id and size,
    /// then the body as it arrives. Info, Tracks, Tags and blocks are never skipped; too large, they are an error.
    Skipped { id: u32 },
    /// Id and size of a Cluster, `None` for unknown.
    ClusterStart { size: Option<u64> },
    /// The Cluster's timecode in units of TimecodeScale (milliseconds in everything the service accepts by default).
    Timecode { ms: u64 },
    /// A SimpleBlock, or a BlockGroup, whose Block without any ReferenceBlock is a key frame.
    Block {
        track: u64,
        /// Presentation time relative to the Cluster's timecode, in the same units.
        offset: i16,
        key_frame: bool,
        /// 0 none, 1 Xiph, 2 fixed size, 3 EBML; other than 0 the body holds several frames and their sizes.
        lacing: u8,
    },
    /// Any other whole child of a Cluster: Position, PrevSize, CRC-32, Void, unknown.
    ClusterElement { id: u32 },
    /// `raw` is empty.
    ClusterEnd,
    /// `raw` is empty. At the next EBML header, or at the end of the input.
    DocumentEnd,
}

/// Why the input is not what this reader accepts. `at` is the offset of the element in the whole input.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    #[error("byte {at}: found {found:#04x}, which starts no element id, expected {expected}")]
    NotAnElement { at: u64, found: u8, expected: &'static str },
    #[error("byte {at}: found {}, expected {expected}", Named(*.id))]
    Unexpected { at: u64, id: u32, expected: &'static str },
    #[error("byte {at}: the size of {} starts with byte 0x00, expected a size of 1 to 8 bytes", Named(*.id))]
    BadSize { at: u64, id: u32 },
    #[error("byte {at}: {} has unknown size, which only Segment and Cluster may have", Named(*.id))]
    UnknownSize { at: u64, id: u32 },
    #[error("byte {at}: {} has {size} bytes, the limit is {limit}", Named(*.id))]
    TooLarge { at: u64, id: u32, size: u64, limit: u64 },
    #[error("byte {at}: {} claims {size} bytes, its parent that starts at byte {parent_at} has {left} left", Named(*.id))]
    Overrun { at: u64, id: u32, size: u64, parent_at: u64, left: u64 },
    #[error("byte {at}: {} {reason}", Named(*.id))]
    BadBody { at: u64, id: u32, reason: &'static str },
    #[error(
        "input ends at byte {ends} inside the {what} that starts at byte {at}, at least {missing} bytes are missing"
    )]
    Truncated { at: u64, what: &'static str, ends: u64, missing: u64 },
}

/// Longest unsigned integer (RFC 8794 7.2).
const TIMECODE_BYTES: usize = 8;

const EBML_HEADER: &str = "an EBML header";
const SEGMENT: &str = "a Segment after the EBML header";
const SEGMENT_CHILD: &str = "a child of Segment or the next EBML header";
const CLUSTER_CHILD: &str = "a child of Cluster";

/// An open Segment or Cluster.
#[derive(Clone, Copy, Debug)]
struct Open {
    at: u64,
    /// `None` for unknown size.
    end: Option<u64>,
}

/// Where the reader stands, see the picture above.
#[derive(Clone, Copy, Debug)]
enum State {
    /// Before the first document, or behind a document whose known-size Segment has ended.
    Between {
        document_open: bool,
    },
    Document,
    InSegment {
        segment: Open,
    },
    InCluster {
        segment: Open,
        cluster: Open,
    },
}

/// The rest of an element that is passed on in pieces.
#[derive(Clone, Copy, Debug)]
struct Skip {
    id: u32,
    at: u64,
    left: u64,
}

/// All events of an input that is in memory in these pieces, and the error that ended it, if one did.
pub fn read_all(limits: Limits, pieces: impl IntoIterator<Item = Bytes>) -> (Vec<Event>, Option<ReadError>) {
    let (mut parser, mut events) = (Parser::new(limits), Vec::new());
    let read = pieces.into_iter().try_for_each(|piece| {
        parser.push(piece);
        parser.read_pushed(&mut events)
    });
    let read = read.and_then(|()| parser.read_to_end(&mut events));
    (events, read.err())
}

/// The reader. Push bytes, then take events until there are none; at the end of the input call `finish` likewise.
///
/// Holds at most one incomplete element and what was pushed and not yet taken. After an error it repeats that error.
#[derive(Debug)]
pub struct Parser {
    limits: Limits,
    input: Input,
    state: State,
    skip: Option<Skip>,
    failed: Option<ReadError>,
}

impl Parser {
    pub fn new(limits: Limits) -> Parser {
        Parser {
            limits,
            input: Input::default(),
            state: State::Between { document_open: false },
            skip: None,
            failed: None,
        }
    }

    /// Adds the next bytes of the input, any number of them.
    pub fn push(&mut self, bytes: Bytes) {
        self.input.push(bytes);
    }

    /// Offset of the first byte that no event has carried yet.
    pub fn position(&self) -> u64 {
        self.input.position
    }

    /// The next event, `None` when it needs more input.
    pub fn next_event(&mut self) -> Result<Option<Event>, ReadError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.step();
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        result
    }

    /// The next event, now that no more input follows; `None` when all is told.
    ///
    /// Fails with `Truncated` when the input ended inside an element, or inside a Segment or Cluster of known size.
    pub fn finish(&mut self) -> Result<Option<Event>, ReadError> {
        if let Some(event) = self.next_event()? {
            return Ok(Some(event));
        }
        self.end_of_input().inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// Appends all events up to where it needs more input.
    pub fn read_pushed(&mut self, events: &mut Vec<Event>) -> Result<(), ReadError> {
        while let Some(event) = self.next_event()? {
            events.push(event);
        }
        Ok(())
    }

    /// Appends all events that are left, now that no more input follows; fails as `finish` does.
    pub fn read_to_end(&mut self, events: &mut Vec<Event>) -> Result<(), ReadError> {
        while let Some(event) = self.finish()? {
            events.push(event);
        }
        Ok(())
    }

    fn step(&mut self) -> Result<Option<Event>, ReadError> {
        if let Some(skip) = self.skip {
            return Ok(self.skip_piece(skip));
        }
        match self.state {
            State::Between { document_open } => self.between(document_open),
            State::Document => self.document(),
            State::InSegment { segment } => self.in_segment(segment),
            State::InCluster { segment, cluster } => self.in_cluster(segment, cluster),
        }
    }

    fn between(&mut self, document_open: bool) -> Result<Option<Event>, ReadError> {
        let Some(header) = self.peek(EBML_HEADER)? else { return Ok(None) };
        match header.id {
            id::EBML if document_open => Ok(Some(self.document_end())),
            id::EBML => {
                let whole = self.whole(header, None, self.limits.header_element_bytes)?;
                let Some(length) = whole else { return Ok(None) };
                self.state = State::Document;
                Ok(Some(self.event(length, header.length..length, EventKind::Ebml)))
            }
            id::VOID => self.opaque(header, None),
            id => Err(ReadError::Unexpected { at: self.position(), id, expected: EBML_HEADER }),
        }
    }

    fn document(&mut self) -> Result<Option<Event>, ReadError> {
        let Some(header) = self.peek(SEGMENT)? else { return Ok(None) };
        match header.id {
            id::SEGMENT => {
                let segment = self.open(header);
                self.state = State::InSegment { segment };
                Ok(Some(
                    self.event_without_body(header.length, EventKind::SegmentStart { size: header.size }),
                ))
            }
            id::VOID => self.opaque(header, None),
            id => Err(ReadError::Unexpected { at: self.position(), id, expected: SEGMENT }),
        }
    }

    fn in_segment(&mut self, segment: Open) -> Result<Option<Event>, ReadError> {
        if segment.end == Some(self.position()) {
            self.state = State::Between { document_open: true };
            return self.between(true);
        }
        let Some(header) = self.peek(SEGMENT_CHILD)? else { return Ok(None) };
        match header.id {
            id::EBML if segment.end.is_none() => Ok(Some(self.document_end())),
            id::CLUSTER => {
                self.check_fits(header, header.size.unwrap_or(0), Some(segment))?;
                let cluster = self.open(header);
                self.state = State::InCluster { segment, cluster };
                Ok(Some(
                    self.event_without_body(header.length, EventKind::ClusterStart { size: header.size }),
                ))
            }
            id if id == id::EBML || id == id::SEGMENT || id::is_cluster_child(id) => {
                Err(ReadError::Unexpected { at: self.position(), id, expected: SEGMENT_CHILD })
            }
            _ => self.opaque(header, Some(segment)),
        }
    }

    fn in_cluster(&mut self, segment: Open, cluster: Open) -> Result<Option<Event>, ReadError> {
        let position = Some(self.position());
        if cluster.end == position || segment.end == position {
            return Ok(Some(self.cluster_end(segment)));
        }
        let Some(header) = self.peek(CLUSTER_CHILD)? else { return Ok(None) };
        if header.id == id::EBML || header.id == id::SEGMENT || id::is_segment_child(header.id) {
            return match cluster.end {
                None => Ok(Some(self.cluster_end(segment))),
                Some(_) => {
                    Err(ReadError::Unexpected { at: self.position(), id: header.id, expected: CLUSTER_CHILD })
                }
            };
        }
        let parent = Some(if cluster.end.is_some() { cluster } else { segment });
        match header.id {
            id::TIMECODE => self.timecode(header, parent),
            id::SIMPLE_BLOCK | id::BLOCK_GROUP => self.block(header, parent),
            _ => self.opaque(header, parent),
        }
    }

    fn timecode(&mut self, header: Header, parent: Option<Open>) -> Result<Option<Event>, ReadError> {
        let Some(length) = self.whole(header, parent, TIMECODE_BYTES)? else { return Ok(None) };
        let body = header.length..length;
        let ms = ebml::uint(&self.input.head()[body.clone()]).expect("it has at most 8 bytes");
        Ok(Some(self.event(length, body, EventKind::Timecode { ms })))
    }

    /// A SimpleBlock or a BlockGroup.
    fn block(&mut self, header: Header, parent: Option<Open>) -> Result<Option<Event>, ReadError> {
        let Some(length) = self.whole(header, parent, self.limits.block_bytes)? else { return Ok(None) };
        let body = &self.input.head()[header.length..length];
        let parsed = if header.id == id::SIMPLE_BLOCK { simple_block(body) } else { block_group(body) };
        let Block { track, offset, flags, key_frame, payload } =
            parsed.map_err(|reason| ReadError::BadBody { at: self.position(), id: header.id, reason })?;
        let payload = header.length + payload.start..header.length + payload.end;
        let kind = EventKind::Block { track, offset, key_frame, lacing: flags >> 1 & 3 };
        Ok(Some(self.event(length, payload, kind)))
    }

    /// An element that is passed on as it is: whole below the cap, above it in pieces.
    fn opaque(&mut self, header: Header, parent: Option<Open>) -> Result<Option<Event>, ReadError> {
        let size = self.check_size(header, parent)?;
        let limit = self.limits.header_element_bytes;
        let needed = matches!(header.id, id::INFO | id::TRACKS | id::TAGS);
        if needed || size <= limit as u64 {
            let Some(length) = self.whole(header, parent, limit)? else { return Ok(None) };
            let kind = match self.state {
                State::InCluster { .. } => EventKind::ClusterElement { id: header.id },
                _ => EventKind::Element { id: header.id },
            };
            return Ok(Some(self.event(length, header.length..length, kind)));
        }
        self.skip = Some(Skip { id: header.id, at: self.position(), left: size });
        Ok(Some(self.event_without_body(header.length, EventKind::Skipped { id: header.id })))
    }

    /// As much of the body of a skipped element as is at hand.
    fn skip_piece(&mut self, skip: Skip) -> Option<Event> {
        let available = self.input.available();
        if available == 0 {
            return None;
        }
        let length = usize::try_from(skip.left).unwrap_or(usize::MAX).min(available);
        let left = skip.left - length as u64;
        self.skip = (left > 0).then_some(Skip { left, ..skip });
        Some(self.event_without_body(length, EventKind::Skipped { id: skip.id }))
    }

    /// Makes a whole element contiguous whose body has at most `limit` bytes: its length, `None` if it is not all there yet.
    fn whole(
        &mut self,
        header: Header,
        parent: Option<Open>,
        limit: usize,
    ) -> Result<Option<usize>, ReadError> {
        let size = self.check_size(header, parent)?;
        let Some(body) = usize::try_from(size).ok().filter(|body| *body <= limit) else {
            return Err(ReadError::TooLarge {
                at: self.position(),
                id: header.id,
                size,
                limit: limit as u64,
            });
        };
        let length = header.length.saturating_add(body);
        Ok(self.input.join(length).then_some(length))
    }

    /// The header of the element at the current position, `None` if it is not all there yet.
    fn peek(&mut self, expected: &'static str) -> Result<Option<Header>, ReadError> {
        let at = self.position();
        loop {
            match ebml::parse_header(self.input.head()) {
                Ok(header) => return Ok(Some(header)),
                Err(HeaderError::Short { needs }) if self.input.join(needs) => {}
                Err(HeaderError::Short { .. }) => return Ok(None),
                Err(HeaderError::BadId { first }) => {
                    return Err(ReadError::NotAnElement { at, found: first, expected });
                }
                Err(HeaderError::BadSize { id }) => return Err(ReadError::BadSize { at, id }),
            }
        }
    }

    /// The size of an element that must have one and must fit its parent.
    fn check_size(&self, header: Header, parent: Option<Open>) -> Result<u64, ReadError> {
        let size = header.size.ok_or(ReadError::UnknownSize { at: self.position(), id: header.id })?;
        self.check_fits(header, size, parent)?;
        Ok(size)
    }

    fn check_fits(&self, header: Header, size: u64, parent: Option<Open>) -> Result<(), ReadError> {
        let (at, id) = (self.position(), header.id);
        match parent {
            Some(Open { end: Some(end), at: parent_at, .. }) if size + header.length as u64 > end - at => {
                Err(ReadError::Overrun { at, id, size, parent_at, left: end - at })
            }
            _ => Ok(()),
        }
    }

    /// The Segment or Cluster whose header stands at the current position.
    fn open(&self, header: Header) -> Open {
        let at = self.position();
        Open { at, end: header.size.map(|size| at + header.length as u64 + size) }
    }

    fn cluster_end(&mut self, segment: Open) -> Event {
        self.state = State::InSegment { segment };
        self.event_without_body(0, EventKind::ClusterEnd)
    }

    fn document_end(&mut self) -> Event {
        self.state = State::Between { document_open: false };
        self.event_without_body(0, EventKind::DocumentEnd)
    }

    /// An event that carries the next `length` bytes, which must be at hand.
    #[inline] // with `Input::take`: the event is built where it is returned, not moved there
    fn event(&mut self, length: usize, body: Range<usize>, kind: EventKind) -> Event {
        let at = self.position();
        Event { at, raw: self.input.take(length), kind, body }
    }

    fn event_without_body(&mut self, length: usize, kind: EventKind) -> Event {
        self.event(length, length..length, kind)
    }

    /// What is left to say when `next_event` has nothing more and no input follows.
    fn end_of_input(&mut self) -> Result<Option<Event>, ReadError> {
        let (at, held) = (self.position(), self.input.head().len() as u64);
        let truncated = |what, at, ends, missing| Err(ReadError::Truncated { at, what, ends, missing });
        if let Some(skip) = self.skip {
            return truncated("element", skip.at, at, skip.left);
        }
        if held > 0 {
            let needs = match ebml::parse_header(self.input.head()) {
                Ok(header) => header.length as u64 + header.size.unwrap_or(0),
                Err(HeaderError::Short { needs }) => needs as u64,
                Err(_) => held, // cannot be: `next_event` would have failed
            };
            return truncated("element", at, at + held, needs.saturating_sub(held));
        }
        match self.state {
            State::InCluster { cluster: Open { at: start, end: Some(end) }, .. } => {
                truncated("Cluster", start, at, end - at)
            }
            State::InSegment { segment: Open { at: start, end: Some(end) } }
            | State::InCluster { segment: Open { at: start, end: Some(end) }, .. } => {
                truncated("Segment", start, at, end - at)
            }
            State::InCluster { segment, .. } => Ok(Some(self.cluster_end(segment))),
            State::Document | State::InSegment { .. } | State::Between { document_open: true } => {
                Ok(Some(self.document_end()))
            }
            State::Between { document_open: false } => Ok(None),
        }
    }
}

/// The fields of a SimpleBlock or Block.
struct Block {
    track: u64,
    offset: i16,
    flags: u8,
    key_frame: bool,
    /// Where the payload lies in the body of the SimpleBlock or BlockGroup.
    payload: Range<usize>,
}

/// Body of a SimpleBlock: track number, 16-bit offset, flags, payload (RFC 9559 10.2).
fn simple_block(body: &[u8]) -> Result<Block, &'static str> {
    let (track, used) = ebml::parse_vint(body).ok_or("has no valid track number")?;
    let &[high, low, flags] =
        body[used..].first_chunk().ok_or("is too short for track number, time and flags")?;
    let offset = i16::from_be_bytes([high, low]);
    Ok(Block { track, offset, flags, key_frame: flags & 0x80 != 0, payload: used + 3..body.len() })
}

/// Body of a BlockGroup: one Block, which has the form of a SimpleBlock but for the key frame flag. Here the absence of
/// references tells a key frame (RFC 9559 10.1).
fn block_group(body: &[u8]) -> Result<Block, &'static str> {
    let (mut found, mut references) = (None, false);
    for child in Children::new(body) {
        let child = child.map_err(|_| "has malformed children")?;
        match child.id {
            id::BLOCK => found = Some(child),
            id::REFERENCE_BLOCK => references = true,
            _ => {}
        }
    }
    let child = found.ok_or("has no Block in it")?;
    let block = simple_block(child.body)?;
    let payload = child.body_at + block.payload.start..child.body_at + block.payload.end;
    Ok(Block { key_frame: !references, payload, ..block })
}
