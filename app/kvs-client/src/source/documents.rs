//! Fragments at hand as a source: what came as whole documents, from an answer, a callback or a file.

use kvs::read::chunk::{Chunk, ChunkStart, Event};
use kvs::read::contents::ContentsError;
use kvs::read::documents::Document;
use kvs::read::units::{Origin, TrackError, Units};
use media::{Feed, SourceMetrics, SourceState, UnitSource};
use tokio::sync::mpsc;

use super::figures::{SourceFigures, StreamSource};
use super::options::SourceMode;

/// Why a fragment has no pictures.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// It cannot be read to its end.
    #[error(transparent)]
    Contents(#[from] ContentsError),
    /// Its tracks are not understood.
    #[error(transparent)]
    Track(#[from] TrackError),
}

/// Pictures and sound of documents that somebody sends. It ends when no sender is left, and fails at the first document that
/// cannot be read.
#[derive(Debug)]
pub struct DocumentSource {
    documents: mpsc::Receiver<Document>,
    units: Units,
    origin: Option<Origin>,
    metrics: SourceMetrics,
    fragments: u64,
    bytes: u64,
    failure: Option<DocumentError>,
    over: bool,
}

impl DocumentSource {
    /// A source, and where its documents go; so many may wait for it.
    pub fn channel(waiting: usize) -> (mpsc::Sender<Document>, Self) {
        let (sender, documents) = mpsc::channel(waiting.max(1));
        let source = Self {
            documents,
            units: Units::default(),
            origin: None,
            metrics: SourceMetrics::default(),
            fragments: 0,
            bytes: 0,
            failure: None,
            over: false,
        };
        (sender, source)
    }

    /// Why it has failed, once its state says so.
    pub fn failure(&self) -> Option<&DocumentError> {
        self.failure.as_ref()
    }

    fn take(&mut self, document: &Document) -> Result<(), DocumentError> {
        let contents = document.contents()?;
        let start = ChunkStart {
            number: document.number,
            server_timestamp_ms: document.server_timestamp_ms,
            producer_timestamp_ms: document.producer_timestamp_ms,
            tracks: contents.tracks,
        };
        self.units.take(Event::Start(start.clone()))?;
        for block in contents.blocks {
            self.units.take(Event::Block(block))?;
        }
        let (cluster, tags) = (None, Vec::new());
        let end = Chunk {
            start,
            cluster,
            tags,
            millis_behind_now: None,
            continuation_token: None,
            complete: document.complete,
        };
        self.units.take(Event::End(end))?;
        self.fragments += 1;
        self.bytes += document.size_bytes() as u64;
        Ok(())
    }
}

impl UnitSource for DocumentSource {
    async fn next(&mut self) -> Option<Feed> {
        loop {
            if let Some((item, origin)) = self.units.next_item() {
                self.metrics.count(&item);
                self.origin = Some(origin);
                return Some(item);
            }
            if self.over {
                return None;
            }
            let Some(document) = self.documents.recv().await else {
                self.over = true;
                continue;
            };
            if let Err(error) = self.take(&document) {
                (self.over, self.failure) = (true, Some(error));
                self.documents.close();
            }
        }
    }

    fn state(&self) -> SourceState {
        match (self.over, &self.failure) {
            (_, Some(_)) => SourceState::Failed,
            (true, None) => SourceState::Disconnected,
            (false, None) => SourceState::Connected,
        }
    }

    fn metrics(&self) -> SourceMetrics {
        self.metrics
    }
}

impl StreamSource for DocumentSource {
    fn origin(&self) -> Option<Origin> {
        self.origin
    }

    fn figures(&self) -> SourceFigures {
        SourceFigures {
            frames_read: self.metrics.pictures,
            fragments_processed: self.fragments,
            bytes_received: self.bytes,
            parse_errors: self.failure.is_some().into(),
            ..SourceFigures::new(SourceMode::GetMedia, self.state())
        }
    }

    fn is_healthy(&self) -> bool {
        !self.over
    }

    fn last_error(&self) -> Option<String> {
        self.failure.as_ref().map(ToString::to_string)
    }
}
