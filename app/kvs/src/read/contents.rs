//! What any Matroska bytes hold: tracks, tags and single frames with their times, however the bytes arrive.
//!
//! Unlike [`super::chunk`] it asks for nothing of KVS: a file may have one cluster or thousands, known sizes or none, several
//! frames in a block, and another unit of time than milliseconds.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use media::AudioCodec;
use media::mkv::elements::{self, ElementError, TrackFormat, TrackInfo};
use media::mkv::read::{Event, EventKind, Limits, Parser, ReadError};
use media::mkv::{id, lacing};

use super::chunk::Block;
use super::documents::Document;

/// Matroska's default: milliseconds.
const DEFAULT_TIMECODE_SCALE_NS: u64 = 1_000_000;
/// Samples in a frame of AAC (ISO/IEC 14496-3).
const AAC_SAMPLES: u64 = 1_024;

/// One thing that was found, in the order of the bytes.
#[derive(Clone, Debug)]
pub enum Item {
    /// A document's tracks. Each document has its own.
    Tracks(Arc<Vec<TrackInfo>>),
    /// (name, value) of one Tags element. `behind`: a cluster of this document came before it.
    Tags { tags: Vec<(String, String)>, behind: bool },
    /// One frame: of a block that holds several, each comes by itself.
    Block(Block),
    /// A document is over.
    End,
}

/// Why bytes could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentsError {
    #[error(transparent)]
    Matroska(#[from] ReadError),
    #[error("byte {at}: {source}")]
    Element { at: u64, source: ElementError },
    #[error("byte {at}: the frames of a block do not fit it (lacing {lacing})")]
    Lacing { at: u64, lacing: u8 },
}

impl ContentsError {
    /// The bytes end inside an element, and were right up to there.
    pub fn is_cut(&self) -> bool {
        matches!(self, Self::Matroska(ReadError::Truncated { .. }))
    }
}

/// Reads them; any number of documents one after the other.
pub struct BlockReader {
    parser: Parser,
    timecode_scale_ns: u64,
    tracks: Arc<Vec<TrackInfo>>,
    /// In units of the scale.
    timecode: u64,
    behind: bool,
    ready: VecDeque<Item>,
}

impl Default for BlockReader {
    fn default() -> Self {
        Self {
            parser: Parser::new(Limits::default()),
            timecode_scale_ns: DEFAULT_TIMECODE_SCALE_NS,
            tracks: Arc::default(),
            timecode: 0,
            behind: false,
            ready: VecDeque::new(),
        }
    }
}

impl BlockReader {
    /// Adds the next bytes.
    pub fn push(&mut self, bytes: Bytes) {
        self.parser.push(bytes);
    }

    /// The next item; `None` when more bytes are needed.
    pub fn next_item(&mut self) -> Result<Option<Item>, ContentsError> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            let Some(event) = self.parser.next_event()? else { return Ok(None) };
            self.take(&event)?;
        }
    }

    /// The same after the last byte. Bytes that end inside an element are an error, see [`ContentsError::is_cut`].
    pub fn finish(&mut self) -> Result<Option<Item>, ContentsError> {
        loop {
            if let Some(item) = self.next_item()? {
                return Ok(Some(item));
            }
            let Some(event) = self.parser.finish()? else { return Ok(None) };
            self.take(&event)?;
        }
    }

    fn take(&mut self, event: &Event) -> Result<(), ContentsError> {
        let at = event.at;
        let wrong = |source| ContentsError::Element { at, source };
        match event.kind {
            EventKind::Ebml => {
                (self.timecode_scale_ns, self.tracks) = (DEFAULT_TIMECODE_SCALE_NS, Arc::default());
                self.behind = false;
            }
            EventKind::Element { id: id::INFO } => {
                self.timecode_scale_ns = elements::Info::parse(event.body()).map_err(wrong)?.timecode_scale;
            }
            EventKind::Element { id: id::TRACKS } => {
                self.tracks = Arc::new(elements::tracks::parse(event.body()).map_err(wrong)?);
                self.ready.push_back(Item::Tracks(self.tracks.clone()));
            }
            EventKind::Element { id: id::TAGS } => {
                let tags = elements::tags::parse(event.body()).map_err(wrong)?;
                self.ready.push_back(Item::Tags { tags, behind: self.behind });
            }
            EventKind::ClusterStart { .. } => (self.timecode, self.behind) = (0, true),
            EventKind::Timecode { ms } => self.timecode = ms,
            EventKind::Block { track, offset, key_frame, lacing } => {
                let Some(frames) = lacing::frames(lacing, event.body()) else {
                    return Err(ContentsError::Lacing { at, lacing });
                };
                let cluster_ms = u64::try_from(self.ms(i128::from(self.timecode))).unwrap_or_default();
                let begins_ms = self.ms(i128::from(self.timecode) + i128::from(offset));
                let (body, mut bytes_before) = (event.shared_body(), 0);
                for (number, frame) in (0_u64..).zip(frames) {
                    let later_ms = if number == 0 { 0 } else { self.length_ms(track, number, bytes_before) };
                    bytes_before += frame.len();
                    let time_ms = begins_ms.saturating_add(later_ms);
                    let payload = body.slice(frame);
                    self.ready.push_back(Item::Block(Block {
                        track,
                        cluster_ms,
                        time_ms,
                        key_frame,
                        payload,
                    }));
                }
            }
            EventKind::DocumentEnd => self.ready.push_back(Item::End),
            _ => {}
        }
        Ok(())
    }

    fn ms(&self, ticks: i128) -> i64 {
        i64::try_from(ticks * i128::from(self.timecode_scale_ns) / 1_000_000).unwrap_or(i64::MAX)
    }

    /// How long so many frames and bytes of sound last; 0 where that is not known.
    fn length_ms(&self, track: u64, frames: u64, bytes: usize) -> i64 {
        let track = self.tracks.iter().find(|info| info.number == track);
        let Some(Ok(Some(TrackFormat::Audio(format)))) = track.map(TrackInfo::format) else { return 0 };
        let samples = match format.codec {
            AudioCodec::Aac => frames * AAC_SAMPLES,
            AudioCodec::Pcmu | AudioCodec::Pcma => bytes as u64 / u64::from(format.channels.max(1)),
        };
        i64::try_from(samples * 1_000 / u64::from(format.sample_rate.max(1))).unwrap_or(i64::MAX)
    }
}

/// A whole fragment, taken apart.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    pub tracks: Arc<Vec<TrackInfo>>,
    /// From in front of the cluster: what was sent before it, and what KVS says of the fragment.
    pub tags_before: Vec<(String, String)>,
    /// From behind it. What the producer sent there is meant for the fragment that follows: KVS cuts where a cluster begins.
    pub tags_behind: Vec<(String, String)>,
    pub blocks: Vec<Block>,
}

impl Contents {
    /// Number of the track with this name. Numbers and the order of tracks may change from fragment to fragment.
    pub fn track_number(&self, name: &str) -> Option<u64> {
        self.tracks.iter().find(|track| track.name == name).map(|track| track.number)
    }

    /// The blocks of a track, in order.
    pub fn blocks_of(&self, track: u64) -> impl Iterator<Item = &Block> {
        self.blocks.iter().filter(move |block| block.track == track)
    }
}

impl Document {
    /// Its tracks, tags and frames. Payloads are not copied.
    pub fn contents(&self) -> Result<Contents, ContentsError> {
        let (mut reader, mut contents) = (BlockReader::default(), Contents::default());
        self.pieces().iter().for_each(|piece| reader.push(piece.clone()));
        while let Some(item) = reader.finish()? {
            match item {
                Item::Tracks(tracks) => contents.tracks = tracks,
                Item::Tags { tags, behind: false } => contents.tags_before.extend(tags),
                Item::Tags { tags, behind: true } => contents.tags_behind.extend(tags),
                Item::Block(block) => contents.blocks.push(block),
                Item::End => {}
            }
        }
        Ok(contents)
    }
}

#[cfg(test)]
mod tests {
    use media::AudioFormat;
    use media::mkv::write::{Track, block_head, cluster_start, header, tags};

    use super::*;

    fn sound() -> Track {
        Track::Audio(AudioFormat::pcmu(8_000, 1).into())
    }

    fn items(bytes: &[u8], step: usize) -> (Vec<String>, Option<ContentsError>) {
        let (mut reader, mut found) = (BlockReader::default(), Vec::new());
        let mut told = |item| {
            found.push(match item {
                Item::Tracks(tracks) => format!("{} tracks", tracks.len()),
                Item::Tags { tags, behind } => {
                    format!("{}{}", tags[0].0, if behind { " behind" } else { "" })
                }
                Item::Block(block) => {
                    format!("{}@{}: {}", block.track, block.time_ms, String::from_utf8_lossy(&block.payload))
                }
                Item::End => "end".to_owned(),
            });
        };
        let mut read = || -> Result<(), ContentsError> {
            for piece in bytes.chunks(step) {
                reader.push(Bytes::copy_from_slice(piece));
                while let Some(item) = reader.next_item()? {
                    told(item);
                }
            }
            while let Some(item) = reader.finish()? {
                told(item);
            }
            Ok(())
        };
        let error = read().err();
        (found, error)
    }

    #[test]
    fn many_clusters_lacing_and_tags_come_in_order_however_the_bytes_arrive() {
        let mut bytes = header([7; 16], "test", &[sound()]).to_vec();
        bytes.extend(tags(&[("front", "x")]));
        bytes.extend(cluster_start(1_000));
        bytes.extend(block_head(1, 5, true, 4));
        bytes.extend(b"word");
        bytes.extend(cluster_start(2_000));
        // Three frames of 16, 8 and 8 samples: 2 ms, then 1 ms.
        let laced = [&[2, 16, 8][..], &[b'a'; 16], &[b'b'; 8], &[b'c'; 8]].concat();
        let mut head = block_head(1, 0, true, laced.len()).to_vec();
        *head.last_mut().expect("flags") |= 1 << 1;
        bytes.extend(head);
        bytes.extend(&laced);
        bytes.extend(tags(&[("next", "y")]));
        let (a, b, c) = ("a".repeat(16), "b".repeat(8), "c".repeat(8));
        let expected = [
            "1 tracks",
            "front",
            "1@1005: word",
            &format!("1@2000: {a}"),
            &format!("1@2002: {b}"),
            &format!("1@2003: {c}"),
            "next behind",
            "end",
        ];
        for step in [1, 9, bytes.len()] {
            assert_eq!(items(&bytes, step), (expected.map(str::to_owned).to_vec(), None));
        }
    }

    #[test]
    fn what_was_cut_says_so_behind_what_is_whole() {
        let mut bytes = header([7; 16], "test", &[sound()]).to_vec();
        bytes.extend(cluster_start(1_000));
        for _ in 0..2 {
            bytes.extend(block_head(1, 0, true, 4));
            bytes.extend(b"word");
        }
        let (found, error) = items(&bytes[..bytes.len() - 1], 50);
        assert_eq!(found, ["1 tracks", "1@1000: word"]);
        assert!(error.expect("cut").is_cut());
        let (found, error) = items(b"no Matroska at all", 50);
        assert!(found.is_empty() && error.is_some_and(|error| !error.is_cut()));
    }
}
