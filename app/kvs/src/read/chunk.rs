//! Reads what GetMedia and GetMediaForFragmentList answer: one Matroska document per fragment.
//!
//! ```text
//!  EBML, Segment, header elements      the producer's, the same in every chunk
//!  Tags: number, server, producer time written by KVS          -> Event::Start
//!  Cluster                             the uploaded bytes      -> Event::Block ...
//!  Tags, Cues ...                      the producer's, sent before its next cluster
//!  Tags: behind now, continuation      written by KVS          -> Event::End
//! ```
//!
//! (facts 3.2, from captures.) A chunk is handed out as soon as its closing tags are there, not when the next
//! one begins. GetMediaForFragmentList writes no closing tags: there, the next document or the end closes it.
//! An answer may be cut anywhere; [`ChunkReader::finish`] then gives the chunk with `complete: false`.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use media::mkv::read::{self, EventKind, Limits, Parser, ReadError};
use media::mkv::{elements, id};

use super::service_tags::{FailureTags, ServiceTag};
use crate::FragmentNumber;
use crate::cluster_sums::{ClusterHasher, ClusterSums};
use crate::identity::{self, FragmentIdentity};

/// Matroska's default: block and cluster times count milliseconds.
const DEFAULT_TIMECODE_SCALE_NS: u64 = 1_000_000;

#[derive(Clone, Debug)]
pub enum Event {
    /// The opening tags of a chunk were read.
    Start(ChunkStart),
    /// A block, as early as its last byte is here.
    Block(Block),
    /// The chunk is over.
    End(Chunk),
    /// The service says in-band that it cannot go on, or cannot give a fragment of the list.
    Failure(Failure),
}

#[derive(Clone, Debug, PartialEq)]
pub struct ChunkStart {
    pub number: Option<FragmentNumber>,
    pub server_timestamp_ms: Option<u64>,
    pub producer_timestamp_ms: Option<u64>,
    pub tracks: Arc<Vec<elements::TrackInfo>>,
}

#[derive(Clone, Debug)]
pub struct Block {
    pub track: u64,
    /// Timecode of its cluster, in ms.
    pub cluster_ms: u64,
    /// Cluster timecode plus block offset, in ms.
    pub time_ms: i64,
    pub key_frame: bool,
    pub payload: Bytes,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    pub start: ChunkStart,
    /// `None`: the answer ended behind the opening tags.
    pub cluster: Option<Cluster>,
    /// The producer's tags of this chunk in order, from before and behind the cluster.
    pub tags: Vec<(String, String)>,
    pub millis_behind_now: Option<u64>,
    /// Where the next GetMedia goes on.
    pub continuation_token: Option<String>,
    /// The cluster and what belongs behind it were read to their end.
    pub complete: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    pub timecode_ms: u64,
    pub blocks: u32,
    pub key_blocks: u32,
    /// First to last block time.
    pub duration_ms: u64,
    pub bytes: u64,
    /// Over the Cluster element, header included.
    pub sums: ClusterSums,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("KVS read failure {code}: {message}{}", .number.map(|n| format!(" (fragment {n})")).unwrap_or_default())]
pub struct Failure {
    pub number: Option<FragmentNumber>,
    /// Name or number, as given.
    pub code: String,
    pub message: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ChunkError {
    #[error("GetMedia answer: {0}")]
    Matroska(#[from] ReadError),
    #[error("GetMedia answer, byte {at}: {source}")]
    Element { at: u64, source: elements::ElementError },
    #[error("GetMedia answer, byte {at}: a second cluster in one chunk, expected one")]
    SecondCluster { at: u64 },
}

impl Chunk {
    /// What the producer says of this very cluster, if it is ours: the tag names the timecode it is about.
    pub fn identity(&self) -> Option<FragmentIdentity> {
        let timecode_ms = self.cluster.as_ref()?.timecode_ms;
        let values = self.tags.iter().filter(|(name, _)| name == identity::NAME);
        values
            .filter_map(|(_, value)| value.parse::<FragmentIdentity>().ok())
            .find(|i| i.timecode_ms == timecode_ms)
    }
}

/// Which operation answered: they end a chunk differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Closing tags with a continuation token; without them the chunk was cut.
    GetMedia,
    /// No closing tags; the next document or the regular end of the answer closes the chunk.
    FragmentList,
}

/// Push-style reader; any chunking of the input gives the same events.
pub struct ChunkReader {
    answer: Answer,
    parser: Parser,
    document: Option<Document>,
    /// At most a few events are ready at once.
    ready: VecDeque<Event>,
    /// The end of the input was seen.
    finished: bool,
}

struct Document {
    timecode_scale_ns: u64,
    tracks: Arc<Vec<elements::TrackInfo>>,
    number: Option<FragmentNumber>,
    server_timestamp_ms: Option<u64>,
    producer_timestamp_ms: Option<u64>,
    started: bool,
    open: Option<OpenCluster>,
    cluster: Option<Cluster>,
    tags: Vec<(String, String)>,
    millis_behind_now: Option<u64>,
    continuation_token: Option<String>,
    failure: FailureTags,
    ended: bool,
}

struct OpenCluster {
    timecode: u64,
    timecode_ms: u64,
    first_ms: Option<i64>,
    last_ms: i64,
    blocks: u32,
    key_blocks: u32,
    hasher: ClusterHasher,
}

impl ChunkReader {
    pub fn new(answer: Answer) -> Self {
        Self {
            answer,
            parser: Parser::new(Limits::default()),
            document: None,
            ready: VecDeque::new(),
            finished: false,
        }
    }

    pub fn push(&mut self, bytes: Bytes) {
        self.parser.push(bytes);
    }

    /// Bytes read so far, over all chunks.
    pub fn position(&self) -> u64 {
        self.parser.position()
    }

    /// The next event; `None` when more bytes are needed.
    pub fn next_event(&mut self) -> Result<Option<Event>, ChunkError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let Some(event) = self.parser.next_event()? else { return Ok(None) };
            self.element(&event)?;
        }
    }

    /// The input is over; call until `None` for the remaining events. A cut inside an element is not an error
    /// here, the last chunk is then handed out as incomplete. `regular`: the body ended as HTTP says it should,
    /// not by a broken connection.
    pub fn finish(&mut self, regular: bool) -> Result<Option<Event>, ChunkError> {
        if self.finished {
            return Ok(self.ready.pop_front());
        }
        if let Some(event) = self.next_event()? {
            return Ok(Some(event));
        }
        let whole = match self.parser.finish() {
            // The parser's own word for the end of an unfinished document; only we know whether it is regular.
            Ok(Some(event)) if matches!(event.kind, EventKind::DocumentEnd) => regular,
            Ok(Some(event)) => {
                self.element(&event)?;
                return self.finish(regular);
            }
            Ok(None) => regular,
            Err(ReadError::Truncated { .. }) => false,
            Err(error) => return Err(error.into()),
        };
        self.finished = true;
        if let Some(document) = self.document.take() {
            self.ready.extend(document.end(whole && self.answer == Answer::FragmentList));
        }
        Ok(self.ready.pop_front())
    }

    fn element(&mut self, event: &read::Event) -> Result<(), ChunkError> {
        let (at, raw) = (event.at, &event.raw);
        if event.kind == EventKind::Ebml {
            self.document = Some(Document::new());
            return Ok(());
        }
        let Some(document) = &mut self.document else { return Ok(()) };
        let wrong = |source| ChunkError::Element { at, source };
        match event.kind {
            EventKind::Element { id: id::INFO } => {
                let info = elements::Info::parse(event.body()).map_err(wrong)?;
                document.timecode_scale_ns = info.timecode_scale;
            }
            EventKind::Element { id: id::TRACKS } => {
                document.tracks = Arc::new(elements::tracks::parse(event.body()).map_err(wrong)?);
            }
            EventKind::Element { id: id::TAGS } => {
                for (name, value) in elements::tags::parse(event.body()).map_err(wrong)? {
                    document.tag(name, value);
                }
                self.ready.extend(document.after_tags());
            }
            EventKind::ClusterStart { .. } => {
                if document.cluster.is_some() {
                    return Err(ChunkError::SecondCluster { at });
                }
                self.ready.extend(document.start());
                document.open = Some(OpenCluster::new(raw));
            }
            EventKind::Timecode { ms } => document.timecode(ms, raw),
            EventKind::Block { track, offset, key_frame, .. } => {
                self.ready.extend(document.block(event, track, offset, key_frame));
            }
            EventKind::ClusterElement { .. } | EventKind::Skipped { .. } => document.cluster_bytes(raw),
            EventKind::ClusterEnd => document.close_cluster(),
            EventKind::DocumentEnd => {
                if let Some(document) = self.document.take() {
                    self.ready.extend(document.end(self.answer == Answer::FragmentList));
                }
            }
            EventKind::Ebml | EventKind::SegmentStart { .. } | EventKind::Element { .. } => {}
        }
        Ok(())
    }
}

impl Document {
    fn new() -> Self {
        Self {
            timecode_scale_ns: DEFAULT_TIMECODE_SCALE_NS,
            tracks: Arc::default(),
            number: None,
            server_timestamp_ms: None,
            producer_timestamp_ms: None,
            started: false,
            open: None,
            cluster: None,
            tags: Vec::new(),
            millis_behind_now: None,
            continuation_token: None,
            failure: FailureTags::default(),
            ended: false,
        }
    }

    fn tag(&mut self, name: String, value: String) {
        match ServiceTag::read(&name, &value) {
            Some(ServiceTag::Number(number)) => self.number = number,
            Some(ServiceTag::ServerTimestamp(ms)) => self.server_timestamp_ms = ms,
            Some(ServiceTag::ProducerTimestamp(ms)) => self.producer_timestamp_ms = ms,
            Some(ServiceTag::MillisBehindNow(ms)) => self.millis_behind_now = ms,
            Some(ServiceTag::ContinuationToken) => self.continuation_token = Some(value),
            Some(ServiceTag::Failure) => self.failure.take(&name, &value),
            None => self.tags.push((name, value)),
        }
    }

    /// Tags decide where a chunk starts, where it ends and whether it failed.
    fn after_tags(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        if let Some(failure) = std::mem::take(&mut self.failure).failure(self.number) {
            self.ended = true; // a notice, not a fragment
            events.push(Event::Failure(failure));
        } else if self.number.is_some() && self.cluster.is_none() {
            events.extend(self.start());
        }
        // In front of the cluster a token closes nothing.
        if self.continuation_token.is_some() && self.cluster.is_some() && !self.ended {
            self.ended = true;
            events.push(Event::End(self.chunk(true)));
        }
        events
    }

    fn start(&mut self) -> Option<Event> {
        let first = !std::mem::replace(&mut self.started, true);
        first.then(|| Event::Start(self.chunk_start()))
    }

    fn chunk_start(&self) -> ChunkStart {
        ChunkStart {
            number: self.number,
            server_timestamp_ms: self.server_timestamp_ms,
            producer_timestamp_ms: self.producer_timestamp_ms,
            tracks: self.tracks.clone(),
        }
    }

    fn to_ms(&self, ticks: i128) -> i64 {
        let ms = ticks * i128::from(self.timecode_scale_ns) / 1_000_000;
        i64::try_from(ms).unwrap_or(i64::MAX)
    }

    fn timecode(&mut self, timecode: u64, raw: &[u8]) {
        let timecode_ms = u64::try_from(self.to_ms(i128::from(timecode))).unwrap_or_default();
        if let Some(open) = &mut self.open {
            open.timecode = timecode;
            open.timecode_ms = timecode_ms;
        }
        self.cluster_bytes(raw);
    }

    fn block(&mut self, block: &read::Event, track: u64, offset: i16, key_frame: bool) -> Option<Event> {
        let ticks = i128::from(self.open.as_ref()?.timecode) + i128::from(offset);
        let time_ms = self.to_ms(ticks);
        let open = self.open.as_mut()?;
        let [before, behind] = block.around_body();
        open.hasher.head(before);
        open.hasher.payload(block.body());
        open.hasher.head(behind);
        open.blocks += 1;
        open.key_blocks += u32::from(key_frame);
        open.first_ms = Some(open.first_ms.map_or(time_ms, |first| first.min(time_ms)));
        open.last_ms = open.last_ms.max(time_ms);
        let (cluster_ms, payload) = (open.timecode_ms, block.shared_body());
        Some(Event::Block(Block { track, cluster_ms, time_ms, key_frame, payload }))
    }

    fn cluster_bytes(&mut self, raw: &[u8]) {
        if let Some(open) = &mut self.open {
            open.hasher.head(raw);
        }
    }

    fn close_cluster(&mut self) {
        self.cluster = self.open.take().map(OpenCluster::close);
    }

    fn chunk(&mut self, complete: bool) -> Chunk {
        Chunk {
            start: self.chunk_start(),
            cluster: self.cluster.clone(),
            tags: std::mem::take(&mut self.tags),
            millis_behind_now: self.millis_behind_now,
            continuation_token: self.continuation_token.clone(),
            complete,
        }
    }

    /// The document is over without closing tags: regularly (`whole`, or its token came early), or it was cut.
    fn end(mut self, whole: bool) -> Option<Event> {
        if self.ended || !self.started {
            return None;
        }
        let whole = whole || (self.continuation_token.is_some() && self.open.is_none());
        if self.open.is_some() {
            self.close_cluster();
        }
        let complete = whole && self.cluster.is_some();
        Some(Event::End(self.chunk(complete)))
    }
}

impl OpenCluster {
    fn new(raw: &[u8]) -> Self {
        let mut open = Self {
            timecode: 0,
            timecode_ms: 0,
            first_ms: None,
            last_ms: i64::MIN,
            blocks: 0,
            key_blocks: 0,
            hasher: ClusterHasher::default(),
        };
        open.hasher.head(raw);
        open
    }

    fn close(self) -> Cluster {
        let duration_ms = self.first_ms.map_or(0, |first| self.last_ms.abs_diff(first));
        let (sums, bytes) = self.hasher.finish();
        Cluster {
            timecode_ms: self.timecode_ms,
            blocks: self.blocks,
            key_blocks: self.key_blocks,
            duration_ms,
            bytes,
            sums,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tag;
    use crate::testing::{chunk_bytes, fragments};

    fn events(answer: Answer, bytes: &[u8], size: usize) -> Result<Vec<Event>, ChunkError> {
        let mut reader = ChunkReader::new(answer);
        let mut events = Vec::new();
        for piece in bytes.chunks(size) {
            reader.push(Bytes::copy_from_slice(piece));
            while let Some(event) = reader.next_event()? {
                events.push(event);
            }
        }
        while let Some(event) = reader.finish(true)? {
            events.push(event);
        }
        Ok(events)
    }

    fn chunks(answer: Answer, bytes: &[u8], size: usize) -> Vec<Chunk> {
        let only_ends = |event| if let Event::End(chunk) = event { Some(chunk) } else { None };
        events(answer, bytes, size).expect("valid").into_iter().filter_map(only_ends).collect()
    }

    #[test]
    fn a_token_in_front_of_the_cluster_closes_nothing() {
        let sent = fragments(2);
        let token = media::mkv::write::tags_fixed4(&[(tag::CONTINUATION_TOKEN, "x")]);
        for closed in [false, true] {
            let odd = chunk_bytes(&sent[0], 0, closed);
            let cluster = [0x1F, 0x43, 0xB6, 0x75];
            let at = odd.windows(4).position(|four| four == cluster).expect("a cluster");
            let answer = [&odd[..at], &token, &odd[at..], &chunk_bytes(&sent[1], 1, true)].concat();
            let found = chunks(Answer::GetMedia, &answer, 100);
            let sums: Vec<_> =
                found.iter().map(|chunk| (chunk.cluster.as_ref().map(|c| c.sums), chunk.complete)).collect();
            let expected: Vec<_> = sent.iter().map(|fragment| (Some(fragment.summary.sums), true)).collect();
            assert_eq!(sums, expected, "closed: {closed}");
            assert!(found[0].identity().is_some(), "what stands behind the cluster is of this chunk");
        }
    }

    #[test]
    fn chunks_come_back_with_hash_identity_and_token_in_any_chunking() {
        let sent = fragments(3);
        let answer: Vec<u8> =
            sent.iter().enumerate().flat_map(|(n, f)| chunk_bytes(f, n as u64, true)).collect();
        for size in [1, 5, 100, 1460, answer.len()] {
            let found = chunks(Answer::GetMedia, &answer, size);
            assert_eq!(found.len(), 3);
            for (chunk, fragment) in found.iter().zip(&sent) {
                let cluster = chunk.cluster.as_ref().expect("has a cluster");
                assert!(chunk.complete);
                assert_eq!(cluster.sums, fragment.summary.sums);
                assert_eq!(cluster.bytes, fragment.summary.cluster_bytes);
                assert_eq!(cluster.duration_ms, fragment.summary.duration_ms);
                let identity = chunk.identity().expect("carries our tag");
                assert_eq!(identity.id, fragment.summary.id);
                assert_eq!(chunk.continuation_token, chunk.start.number.map(|n| n.to_string()));
                assert_eq!(chunk.start.tracks[0].codec_id, "V_MPEG4/ISO/AVC");
            }
        }
    }

    #[test]
    fn a_chunk_ends_with_its_closing_tags_not_with_the_next_chunk() {
        let bytes = chunk_bytes(&fragments(1)[0], 1, true);
        let mut reader = ChunkReader::new(Answer::GetMedia);
        reader.push(bytes.into());
        let mut last = None;
        while let Some(event) = reader.next_event().expect("valid") {
            last = Some(event);
        }
        assert!(matches!(last, Some(Event::End(_))));
        assert!(reader.finish(true).expect("valid").is_none(), "handed out once");
    }

    #[test]
    fn list_answers_without_closing_tags_end_at_the_border() {
        let sent = fragments(2);
        let answer: Vec<u8> = sent.iter().flat_map(|f| chunk_bytes(f, 1, false)).collect();
        let found = chunks(Answer::FragmentList, &answer, 999);
        assert_eq!(found.len(), 2, "the last one too");
        assert!(found.iter().all(|chunk| chunk.complete && chunk.continuation_token.is_none()));
    }

    #[test]
    fn every_cut_gives_an_incomplete_chunk_or_none_and_never_an_error() {
        let bytes = chunk_bytes(&fragments(1)[0], 1, true);
        for end in 0..bytes.len() {
            let found = chunks(Answer::GetMedia, &bytes[..end], 64);
            let whole = found.iter().filter(|chunk| chunk.complete);
            assert!(whole.filter_map(|chunk| chunk.cluster.as_ref()).all(|c| c.blocks == 5), "cut at {end}");
        }
    }

    #[test]
    fn both_tag_spellings_and_failure_notices_are_read() {
        let document = |tags: &[(&str, &str)]| {
            let mut bytes = crate::testing::header_bytes().to_vec();
            bytes.extend_from_slice(&media::mkv::write::tags_fixed4(tags));
            bytes
        };
        let number = FragmentNumber::new(4, 5_000, 6);
        let text = number.to_string();
        let opening = [
            (tag::FRAGMENT_NUMBER, text.as_str()),
            (tag::SERVER_TIMESTAMP_DOCUMENTED, "5.000"),
            (tag::PRODUCER_TIMESTAMP_DOCUMENTED, "4.500"),
        ];
        let start = match &events(Answer::FragmentList, &document(&opening), 7).expect("valid")[0] {
            Event::Start(start) => start.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            (start.number, start.server_timestamp_ms, start.producer_timestamp_ms),
            (Some(number), Some(5000), Some(4500))
        );

        let notice = [
            (tag::FRAGMENT_NUMBER, text.as_str()),
            (tag::EXCEPTION_ERROR_CODE, "ResourceNotFoundException"),
            (tag::EXCEPTION_MESSAGE, "gone"),
        ];
        match &events(Answer::FragmentList, &document(&notice), 7).expect("valid")[..] {
            [Event::Failure(failure)] => {
                assert_eq!(
                    failure.to_string(),
                    format!("KVS read failure ResourceNotFoundException: gone (fragment {text})")
                );
            }
            other => panic!("{other:?}"),
        }
        match &events(
            Answer::FragmentList,
            &document(&[(tag::ERROR_ID, "4000"), (tag::ERROR_CODE, "FRAGMENT_NOT_FOUND")]),
            9,
        )
        .expect("valid")[..]
        {
            [Event::Failure(failure)] => assert_eq!(failure.code, "FRAGMENT_NOT_FOUND"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn garbage_is_an_error_with_its_place() {
        let error = events(Answer::GetMedia, b"HTTP/1.1 400 Bad Request", 4).unwrap_err().to_string();
        assert!(error.contains("byte 0"), "{error}");
    }
}
