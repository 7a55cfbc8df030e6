//! A PutMedia body cut into fragments, and every rule that the service has for it. No IO.
//!
//! ```text
//!   header --Cluster--> waiting for its Timecode --Timecode--> open
//!                              ^                                 |
//!                              +---------- Cluster --------------+
//!                              +-- Cluster -- closed <-- END_OF_FRAGMENT tag
//! ```
//! One cluster is one fragment. What stands between two clusters belongs to the first of them, as in real
//! GetMedia answers. A fragment is complete at the next cluster, at an END_OF_FRAGMENT tag or at the end of the
//! body; one that the body breaks off inside an element is refused.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use media::mkv::elements::{Info, tags, tracks};
use media::mkv::id;
use media::mkv::read::{self, Event, EventKind, Parser, ReadError};

use crate::options::Limits;

/// How the service writes a Segment's start: with an unknown size of 8 bytes (facts 3.2).
const SEGMENT_UNKNOWN: [u8; 12] = [0x18, 0x53, 0x80, 0x67, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
/// SeekHead, Void, Info and Tracks of any real muxer stay far below.
const HEADER_BYTES: usize = 4 << 20;
/// Tags with the reserved prefix that producers may send (metadata page).
const PRODUCER_RESERVED: [&str; 4] = [
    kvs::tag::END_OF_FRAGMENT,
    "AWS_KINESISVIDEO_IMAGE_GENERATION",
    "AWS_KINESISVIDEO_IMAGE_PREFIX",
    "AWS_KINESISVIDEO_NOTIFICATION",
];

/// What the bytes so far mean. The `Data` of a fragment, concatenated, are its cluster and what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Open(Opened),
    Data(Bytes),
    Close(Shape),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    /// As in the cluster.
    pub(crate) timecode: u64,
    pub(crate) timecode_ms: u64,
    /// EBML header, Segment start and header elements, the same for each fragment of the session.
    pub(crate) header: Bytes,
    /// What the producer sent in front of this cluster alone.
    pub(crate) lead: Bytes,
}

/// A whole fragment in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// From the cluster's timecode to the latest block: neither how long the last picture is shown nor pictures in front
    /// of the timecode count, and a single picture has none.
    pub(crate) length_ms: u64,
    pub(crate) blocks: u64,
    pub(crate) cluster_bytes: u64,
    pub(crate) trailer_bytes: u64,
}

/// The session is over: an ERROR ack with this id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{id}: {reason}")]
pub(crate) struct Refused {
    pub(crate) id: u32,
    pub(crate) reason: String,
}

impl Refused {
    pub(crate) fn new(id: u32, reason: impl Into<String>) -> Self {
        Self { id, reason: reason.into() }
    }
}

impl From<ReadError> for Refused {
    fn from(error: ReadError) -> Self {
        let oversized_block =
            matches!(error, ReadError::TooLarge { id: id::SIMPLE_BLOCK | id::BLOCK_GROUP | id::BLOCK, .. });
        Self::new(if oversized_block { 4001 } else { 4006 }, error.to_string())
    }
}

pub(crate) struct Ingest {
    parser: Parser,
    limits: Limits,
    steps: VecDeque<Step>,
    ebml_seen: bool,
    segment_seen: bool,
    info_seen: bool,
    /// TimecodeScale, ns per unit.
    scale: u64,
    /// Numbers of the declared tracks, in order.
    tracks: Vec<u64>,
    header: BytesMut,
    /// `header`, from the first cluster on.
    frozen_header: Option<Bytes>,
    lead: BytesMut,
    /// Metadata items since the last cluster began.
    items: usize,
    fragment: Option<Open>,
    /// Latest block time of the session's earlier fragments, in units of TimecodeScale.
    previous_latest: Option<i128>,
}

/// The fragment that is being received.
#[derive(Debug, Default)]
struct Open {
    /// `None` until it was read; until then `waiting` holds the cluster's bytes.
    timecode: Option<u64>,
    waiting: Vec<Bytes>,
    in_trailer: bool,
    cluster_bytes: u64,
    trailer_bytes: u64,
    /// One per declared track, in that order.
    tracks: Vec<TrackTimes>,
}

/// Block times of one track in units of TimecodeScale.
#[derive(Clone, Copy, Debug, Default)]
struct TrackTimes {
    blocks: u64,
    earliest: i128,
    latest: i128,
}

impl TrackTimes {
    fn add(&mut self, time: i128) {
        self.earliest = if self.blocks == 0 { time } else { self.earliest.min(time) };
        self.latest = if self.blocks == 0 { time } else { self.latest.max(time) };
        self.blocks += 1;
    }
}

impl Ingest {
    pub(crate) fn new(limits: Limits) -> Self {
        let block_bytes = usize::try_from(limits.fragment_bytes).unwrap_or(usize::MAX);
        let parser = Parser::new(read::Limits { block_bytes, ..read::Limits::default() });
        Self {
            parser,
            limits,
            steps: VecDeque::new(),
            ebml_seen: false,
            segment_seen: false,
            info_seen: false,
            scale: 1_000_000,
            tracks: Vec::new(),
            header: BytesMut::new(),
            frozen_header: None,
            lead: BytesMut::new(),
            items: 0,
            fragment: None,
            previous_latest: None,
        }
    }

    pub(crate) fn push(&mut self, bytes: Bytes) {
        self.parser.push(bytes);
    }

    /// The next step; `None` when more bytes are needed.
    pub(crate) fn next(&mut self) -> Result<Option<Step>, Refused> {
        self.step(Parser::next_event)
    }

    /// The same after the last byte of the body.
    pub(crate) fn finish(&mut self) -> Result<Option<Step>, Refused> {
        self.step(Parser::finish)
    }

    fn step(
        &mut self,
        mut next: impl FnMut(&mut Parser) -> Result<Option<Event>, ReadError>,
    ) -> Result<Option<Step>, Refused> {
        loop {
            if let Some(step) = self.steps.pop_front() {
                return Ok(Some(step));
            }
            match next(&mut self.parser)? {
                Some(event) => self.take(event)?,
                None => return Ok(None),
            }
        }
    }

    fn take(&mut self, event: Event) -> Result<(), Refused> {
        let Event { at, kind, .. } = event;
        match kind {
            EventKind::Ebml if self.ebml_seen => {
                Err(Refused::new(4006, format!("byte {at}: a second EBML header")))
            }
            EventKind::Ebml => {
                self.ebml_seen = true;
                self.extend_header(&event.raw)
            }
            EventKind::SegmentStart { .. } if self.segment_seen => {
                Err(Refused::new(4006, format!("byte {at}: a second Segment")))
            }
            EventKind::SegmentStart { .. } => {
                self.segment_seen = true;
                self.extend_header(&SEGMENT_UNKNOWN)
            }
            EventKind::Element { id } => self.element(id, event),
            EventKind::Skipped { .. } => self.outside(event.raw),
            EventKind::ClusterStart { .. } => self.cluster(at, event.raw),
            EventKind::Timecode { ms } => self.timecode(at, ms, event.raw),
            EventKind::Block { track, offset, .. } => self.block(at, track, offset, event.raw),
            EventKind::ClusterElement { .. } => self.data(event.raw),
            EventKind::ClusterEnd => {
                if let Some(open) = &mut self.fragment {
                    open.in_trailer = true;
                }
                Ok(())
            }
            EventKind::DocumentEnd => self.close(),
        }
    }

    fn extend_header(&mut self, raw: &[u8]) -> Result<(), Refused> {
        self.header.extend_from_slice(raw);
        if self.header.len() > HEADER_BYTES {
            return Err(Refused::new(
                4006,
                format!("more than {HEADER_BYTES} bytes in front of the first cluster"),
            ));
        }
        Ok(())
    }

    /// A child of the Segment that is no cluster.
    fn element(&mut self, element: u32, event: Event) -> Result<(), Refused> {
        let at = event.at;
        let invalid =
            |error: &dyn std::fmt::Display| Refused::new(4006, format!("element at byte {at}: {error}"));
        match element {
            id::TRACKS if !self.tracks.is_empty() => Err(invalid(&"a second Tracks")),
            id::INFO if self.info_seen => Err(invalid(&"a second Info")),
            id::INFO | id::TRACKS if self.frozen_header.is_some() => Err(invalid(&"after the first cluster")),
            id::TRACKS => {
                self.tracks = tracks::parse(event.body())
                    .map_err(|error| invalid(&error))?
                    .iter()
                    .map(|track| track.number)
                    .collect();
                if self.tracks.is_empty() {
                    return Err(invalid(&"Tracks without a track"));
                }
                if self.tracks.len() > self.limits.tracks {
                    let reason = format!("{} tracks, at most {}", self.tracks.len(), self.limits.tracks);
                    return Err(Refused::new(4012, reason));
                }
                self.extend_header(&event.raw)
            }
            id::INFO => {
                self.info_seen = true;
                self.scale = Info::parse(event.body()).map_err(|error| invalid(&error))?.timecode_scale;
                if self.scale == 0 {
                    return Err(invalid(&"a TimecodeScale of 0"));
                }
                self.extend_header(&event.raw)
            }
            id::TAGS => self.tags(event),
            _ => self.outside(event.raw),
        }
    }

    /// Something of the producer's outside of clusters: part of the header, of the fragment in front of it, or
    /// of the next one.
    fn outside(&mut self, raw: Bytes) -> Result<(), Refused> {
        if self.fragment.is_some() {
            return self.data(raw);
        }
        if self.frozen_header.is_none() {
            return self.extend_header(&raw);
        }
        self.extend_lead(&raw)
    }

    fn extend_lead(&mut self, raw: &[u8]) -> Result<(), Refused> {
        self.lead.extend_from_slice(raw);
        if self.lead.len() > HEADER_BYTES {
            return Err(Refused::new(4006, format!("more than {HEADER_BYTES} bytes in front of a cluster")));
        }
        Ok(())
    }

    fn tags(&mut self, event: Event) -> Result<(), Refused> {
        let items = tags::parse(event.body())
            .map_err(|error| Refused::new(4006, format!("Tags at byte {}: {error}", event.at)))?;
        let ends = items.iter().any(|(name, _)| name == kvs::tag::END_OF_FRAGMENT);
        for (name, value) in items.iter().filter(|(name, _)| name != kvs::tag::END_OF_FRAGMENT) {
            self.items += 1;
            self.check_item(name, value)?;
        }
        if self.fragment.is_none() {
            // Tags come back with one chunk only, so they are no part of the header that each chunk repeats.
            return if ends { Ok(()) } else { self.extend_lead(&event.raw) };
        }
        self.data(event.raw)?;
        if ends { self.close() } else { Ok(()) }
    }

    fn check_item(&self, name: &str, value: &str) -> Result<(), Refused> {
        let limits = &self.limits;
        let reason = if self.items > limits.metadata_items {
            format!("more than {} metadata items", limits.metadata_items)
        } else if name.len() > limits.metadata_name_bytes {
            format!("a metadata name of {} bytes, at most {}", name.len(), limits.metadata_name_bytes)
        } else if value.len() > limits.metadata_value_bytes {
            format!("a metadata value of {} bytes, at most {}", value.len(), limits.metadata_value_bytes)
        } else if name.starts_with(kvs::tag::RESERVED_PREFIX) && !PRODUCER_RESERVED.contains(&name) {
            format!("metadata name `{name}` begins with the reserved AWS")
        } else {
            return Ok(());
        };
        Err(Refused::new(4009, reason))
    }

    fn cluster(&mut self, at: u64, raw: Bytes) -> Result<(), Refused> {
        if self.tracks.is_empty() {
            return Err(Refused::new(4006, format!("byte {at}: a Cluster before Tracks")));
        }
        self.close()?;
        if self.frozen_header.is_none() {
            self.frozen_header = Some(self.header.split().freeze());
        }
        self.items = 0;
        let tracks = vec![TrackTimes::default(); self.tracks.len()];
        self.fragment = Some(Open { tracks, ..Open::default() });
        self.data(raw)
    }

    fn timecode(&mut self, at: u64, timecode: u64, raw: Bytes) -> Result<(), Refused> {
        let timecode_ms =
            u64::try_from(u128::from(timecode) * u128::from(self.scale) / 1_000_000).map_err(|_| {
                Refused::new(4007, format!("timecode {timecode} at byte {at} is beyond any date"))
            })?;
        let Some(open) = self.fragment.as_mut().filter(|open| open.timecode.is_none()) else {
            return Err(Refused::new(4006, format!("byte {at}: a second Timecode in one Cluster")));
        };
        open.timecode = Some(timecode);
        let waiting = std::mem::take(&mut open.waiting);
        let header = self.frozen_header.clone().unwrap_or_default();
        let lead = self.lead.split().freeze();
        self.steps.push_back(Step::Open(Opened { timecode, timecode_ms, header, lead }));
        self.steps.extend(waiting.into_iter().map(Step::Data));
        self.data(raw)
    }

    fn block(&mut self, at: u64, track: u64, offset: i16, raw: Bytes) -> Result<(), Refused> {
        let Some(open) = &mut self.fragment else {
            return Err(Refused::new(4006, format!("byte {at}: a block outside of a Cluster")));
        };
        let Some(timecode) = open.timecode else {
            return Err(Refused::new(4006, format!("byte {at}: a block before its Cluster's Timecode")));
        };
        let Some(index) = self.tracks.iter().position(|number| *number == track) else {
            let reason = format!("block at byte {at} is of track {track}, declared are {:?}", self.tracks);
            return Err(Refused::new(4010, reason));
        };
        let time = i128::from(timecode) + i128::from(offset);
        if let Some(previous) = self.previous_latest.filter(|previous| time <= *previous) {
            let reason =
                format!("block at byte {at} has time {time}, the previous fragment ends at {previous}");
            return Err(Refused::new(4004, reason));
        }
        open.tracks[index].add(time);
        let (earliest, latest) = open.bounds();
        let duration_ms = to_ms(latest - earliest, self.scale);
        if duration_ms > self.limits.fragment_duration_ms {
            let reason =
                format!("a fragment of {duration_ms} ms, at most {}", self.limits.fragment_duration_ms);
            return Err(Refused::new(4002, reason));
        }
        self.data(raw)
    }

    fn data(&mut self, raw: Bytes) -> Result<(), Refused> {
        let Some(open) = &mut self.fragment else { return Ok(()) };
        let counter = if open.in_trailer { &mut open.trailer_bytes } else { &mut open.cluster_bytes };
        *counter += raw.len() as u64;
        if open.cluster_bytes + open.trailer_bytes > self.limits.fragment_bytes {
            return Err(Refused::new(
                4001,
                format!("a fragment of more than {} bytes", self.limits.fragment_bytes),
            ));
        }
        if open.timecode.is_none() {
            open.waiting.push(raw);
        } else {
            self.steps.push_back(Step::Data(raw));
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), Refused> {
        let Some(open) = self.fragment.take() else { return Ok(()) };
        let Some(timecode) = open.timecode else {
            return Err(Refused::new(4006, "a Cluster without Timecode"));
        };
        if let Some(index) = open.tracks.iter().position(|track| track.blocks == 0) {
            return Err(Refused::new(4011, format!("no frame of track {}", self.tracks[index])));
        }
        let (_, latest) = open.bounds();
        self.previous_latest = Some(latest);
        self.steps.push_back(Step::Close(Shape {
            length_ms: to_ms(latest - i128::from(timecode), self.scale),
            blocks: open.tracks.iter().map(|track| track.blocks).sum(),
            cluster_bytes: open.cluster_bytes,
            trailer_bytes: open.trailer_bytes,
        }));
        Ok(())
    }
}

impl Open {
    /// Earliest and latest block time over all tracks; 0 and 0 without blocks.
    fn bounds(&self) -> (i128, i128) {
        let used = || self.tracks.iter().filter(|track| track.blocks > 0);
        (used().map(|t| t.earliest).min().unwrap_or(0), used().map(|t| t.latest).max().unwrap_or(0))
    }
}

fn to_ms(units: i128, scale: u64) -> u64 {
    u64::try_from(units.saturating_mul(i128::from(scale)) / 1_000_000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODIES: [(&[u8], usize); 3] = [
        (include_bytes!("../../../tests/data/kvssink-putmedia/ok_put_001.mkv"), 5),
        (include_bytes!("../../../tests/data/kvssink-putmedia/av_put_001.mkv"), 3),
        (include_bytes!("../../../tests/data/kvssink-putmedia/err_put_001.mkv"), 3),
    ];

    fn steps(body: &[u8], piece_bytes: usize) -> Vec<Step> {
        let mut ingest = Ingest::new(Limits::default());
        let mut steps = Vec::new();
        for piece in body.chunks(piece_bytes) {
            ingest.push(Bytes::copy_from_slice(piece));
            while let Some(step) = ingest.next().expect("valid") {
                steps.push(step);
            }
        }
        while let Some(step) = ingest.finish().expect("whole") {
            steps.push(step);
        }
        steps
    }

    #[test]
    fn steps_do_not_depend_on_how_the_body_arrives() {
        for (body, _) in BODIES {
            let whole = steps(body, body.len());
            for piece_bytes in [1, 2, 7, 1_000, 65_536] {
                assert!(steps(body, piece_bytes) == whole, "pieces of {piece_bytes}");
            }
        }
    }

    #[test]
    fn header_and_data_are_the_body_and_shapes_count_it() {
        for (body, fragments) in BODIES {
            let (mut bytes, mut shapes, mut sizes) = (Vec::new(), Vec::new(), 0);
            for step in steps(body, 10_000) {
                match step {
                    Step::Open(opened) if shapes.is_empty() => bytes.extend_from_slice(&opened.header),
                    Step::Open(_) => {}
                    Step::Data(data) => {
                        sizes += data.len() as u64;
                        bytes.extend_from_slice(&data);
                    }
                    Step::Close(shape) => shapes.push(shape),
                }
            }
            // Only the producer's 1-byte Segment size became 8 bytes wide.
            let at = bytes.windows(12).position(|window| window == SEGMENT_UNKNOWN).expect("a Segment");
            bytes.splice(at + 4..at + 12, [0xff]);
            assert!(bytes == body);
            assert_eq!(shapes.len(), fragments);
            assert_eq!(
                shapes.iter().map(|shape| shape.cluster_bytes + shape.trailer_bytes).sum::<u64>(),
                sizes
            );
        }
        let first = steps(BODIES[0].0, 10_000).into_iter().find_map(|step| match step {
            Step::Close(shape) => Some(shape),
            _ => None,
        });
        let first = first.expect("a fragment");
        // 30 pictures at 15 per second, timecodes rounded to milliseconds.
        assert_eq!((first.blocks, first.length_ms), (30, 1_933));
    }
}
