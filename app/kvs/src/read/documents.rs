//! An answer as what it consists of: one Matroska document for each fragment, byte for byte, with what its tags say.
//!
//! Each document stands alone: written to a file of its own, every player opens it.

use bytes::Bytes;
use media::mkv::elements::tags;
use media::mkv::id;
use media::mkv::read::{Event, EventKind, Limits, Parser, ReadError};

use super::chunk::Failure;
use super::service_tags::{FailureTags, ServiceTag};
use crate::FragmentNumber;

/// One fragment as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    pub number: Option<FragmentNumber>,
    pub server_timestamp_ms: Option<u64>,
    pub producer_timestamp_ms: Option<u64>,
    /// All of them in order, those of KVS too.
    pub tags: Vec<(String, String)>,
    pub blocks: u64,
    /// The answer went on behind it, or ended in order.
    pub complete: bool,
    pieces: Vec<Bytes>,
    /// A cluster of it was seen.
    clustered: bool,
    /// Behind that came the token with which the service closes a fragment.
    closed: bool,
}

impl Document {
    /// The whole Matroska document.
    pub fn bytes(&self) -> Bytes {
        self.pieces.concat().into()
    }

    /// The same in the pieces in which it came, without a copy.
    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    /// Value of the first tag with this name.
    pub fn tag(&self, name: &str) -> Option<&str> {
        self.tags.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// In place of a fragment the service may say, inside its answer, why there is none.
    pub fn failure(&self) -> Option<Failure> {
        let mut found = FailureTags::default();
        self.tags.iter().for_each(|(name, value)| found.take(name, value));
        found.failure(self.number)
    }

    pub fn size_bytes(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    fn take(&mut self, event: Event) {
        match event.kind {
            EventKind::ClusterStart { .. } => self.clustered = true,
            EventKind::Block { .. } => self.blocks += 1,
            EventKind::Element { id: id::TAGS } => {
                // What is no tag is a part of the document all the same.
                for (name, value) in tags::parse(event.body()).unwrap_or_default() {
                    match ServiceTag::read(&name, &value) {
                        Some(ServiceTag::Number(number)) => self.number = number,
                        Some(ServiceTag::ServerTimestamp(ms)) => self.server_timestamp_ms = ms,
                        Some(ServiceTag::ProducerTimestamp(ms)) => self.producer_timestamp_ms = ms,
                        // In front of the cluster it closes nothing.
                        Some(ServiceTag::ContinuationToken) => self.closed = self.clustered,
                        Some(ServiceTag::MillisBehindNow(_) | ServiceTag::Failure) | None => {}
                    }
                    self.tags.push((name, value));
                }
            }
            _ => {}
        }
        if !event.raw.is_empty() {
            self.pieces.push(event.raw);
        }
    }
}

/// Cuts an answer into documents, however its bytes arrive.
pub struct Documents {
    parser: Parser,
    open: Option<Document>,
    over: bool,
}

impl Default for Documents {
    fn default() -> Self {
        Self { parser: Parser::new(Limits::default()), open: None, over: false }
    }
}

impl Documents {
    pub fn push(&mut self, bytes: Bytes) {
        self.parser.push(bytes);
    }

    /// The next whole document; `None` when more bytes are needed. One that the service closes by its tags comes with
    /// these, any other when the next one begins.
    pub fn next_document(&mut self) -> Result<Option<Document>, ReadError> {
        while let Some(event) = self.parser.next_event()? {
            if let Some(document) = self.take(event) {
                return Ok(Some(document));
            }
        }
        Ok(None)
    }

    /// The same after the last byte; `regular`: the body ended as HTTP says it should, and not by a broken connection.
    pub fn finish(&mut self, regular: bool) -> Result<Option<Document>, ReadError> {
        if self.over {
            return Ok(None);
        }
        if let Some(document) = self.next_document()? {
            return Ok(Some(document));
        }
        let mut whole = regular;
        while !self.over {
            match self.parser.finish() {
                Ok(Some(event)) if event.kind == EventKind::DocumentEnd => self.over = true,
                Ok(Some(event)) => {
                    if let Some(document) = self.take(event) {
                        return Ok(Some(document));
                    }
                }
                Ok(None) => self.over = true,
                Err(ReadError::Truncated { .. }) => (self.over, whole) = (true, false),
                Err(error) => return Err(error),
            }
        }
        Ok(self.open.take().map(|document| Document { complete: whole, ..document }))
    }

    fn take(&mut self, event: Event) -> Option<Document> {
        if event.kind == EventKind::DocumentEnd {
            return self.open.take().map(|document| Document { complete: true, ..document });
        }
        if event.kind == EventKind::Ebml {
            self.open = Some(Document::default());
        }
        let document = self.open.as_mut()?;
        document.take(event);
        if document.closed {
            self.open.take().map(|document| Document { complete: true, ..document })
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use media::AudioFormat;
    use media::mkv::write::{Track, block_head, cluster_start, header, tags_fixed4};

    use super::*;
    use crate::tag;

    fn number(n: u64) -> FragmentNumber {
        FragmentNumber::new(n, 1_795_186_073_000, 7)
    }

    fn document(n: u64, closed: bool) -> Vec<u8> {
        let number = number(n).to_string();
        let opening = [
            (tag::FRAGMENT_NUMBER, number.as_str()),
            (tag::SERVER_TIMESTAMP, "1795186073.000"),
            (tag::PRODUCER_TIMESTAMP, "1795186072.500"),
        ];
        let mut bytes = header([7; 16], "test", &[Track::Audio(AudioFormat::pcmu(8_000, 1).into())]).to_vec();
        bytes.extend(tags_fixed4(&opening));
        bytes.extend(cluster_start(1_000));
        for offset in [0, 20] {
            bytes.extend(block_head(1, offset, true, 4));
            bytes.extend(b"word");
        }
        bytes.extend(tags_fixed4(&[("place", "gate")]));
        if closed {
            bytes.extend(tags_fixed4(&[(tag::CONTINUATION_TOKEN, &number)]));
        }
        bytes
    }

    fn read(pieces: &[&[u8]], regular: bool) -> Vec<Document> {
        let (mut documents, mut found) = (Documents::default(), Vec::new());
        for piece in pieces {
            documents.push(Bytes::copy_from_slice(piece));
            while let Some(document) = documents.next_document().expect("Matroska") {
                found.push(document);
            }
        }
        while let Some(document) = documents.finish(regular).expect("Matroska") {
            found.push(document);
        }
        found
    }

    #[test]
    fn each_fragment_comes_out_byte_for_byte_however_the_answer_arrives() {
        for closed in [false, true] {
            let parts: Vec<Vec<u8>> = (1..4).map(|n| document(n, closed)).collect();
            let answer = parts.concat();
            for length in [1, 7, 100, answer.len()] {
                let found = read(&answer.chunks(length).collect::<Vec<_>>(), true);
                assert_eq!(found.iter().map(|one| one.bytes().to_vec()).collect::<Vec<_>>(), parts);
                for (n, one) in (1..).zip(&found) {
                    assert_eq!((one.number, one.blocks, one.complete), (Some(number(n)), 2, true));
                    assert_eq!(one.producer_timestamp_ms, Some(1_795_186_072_500));
                    assert_eq!(one.tags[3], ("place".to_owned(), "gate".to_owned()));
                }
            }
        }
    }

    #[test]
    fn a_token_in_front_of_the_cluster_closes_nothing() {
        let whole = document(1, true);
        let cluster = cluster_start(1_000);
        let at = whole.windows(4).position(|four| four == &cluster[..4]).expect("a cluster");
        let token = tags_fixed4(&[(tag::CONTINUATION_TOKEN, "x")]);
        let odd = [&whole[..at], &token, &whole[at..]].concat();
        let found = read(&[&odd, &whole], true);
        assert_eq!(
            found.iter().map(|one| (one.blocks, one.size_bytes())).collect::<Vec<_>>(),
            [(2, odd.len()), (2, whole.len())]
        );
    }

    #[test]
    fn one_that_is_closed_comes_at_once_and_one_that_was_cut_says_so() {
        let mut documents = Documents::default();
        documents.push(document(1, true).into());
        assert!(documents.next_document().expect("Matroska").is_some_and(|document| document.complete));
        let cut = document(2, true);
        let found = read(&[&document(1, true), &cut[..cut.len() - 90]], false);
        assert_eq!(found.iter().map(|one| one.complete).collect::<Vec<_>>(), [true, false]);
        assert_eq!(found[1].number, Some(number(2)));
        assert_eq!(read(&[], true), []);
    }
}
