//! Answers of chunks as units: what is the same whoever decides which chunk has its turn.
//!
//! ```text
//! bytes --> ChunkReader --Event--> Order: its turn? --yes--> Units --> Feed
//! ```

use bytes::Bytes;
use kvs::read::chunk::{Answer, Chunk, ChunkReader, ChunkStart, Event, Failure};
use kvs::read::follow::{Beginning, Follow};
use kvs::read::fragment_list::{FragmentList, Turn};
use kvs::read::units::{Origin, Units};
use media::Feed;

use super::get_media::SourceError;
use crate::error::Error;

/// Decides what is handed on of the chunks that come.
pub(super) trait Order {
    fn chunk_begins(&mut self, start: &ChunkStart) -> Turn;

    /// A block of the chunk whose turn it is was handed on.
    fn block(&mut self);

    fn chunk_ends(&mut self, chunk: &Chunk);

    /// Whether what the service says in the answer is dealt with; it is an error otherwise.
    fn notices(&mut self, failure: &Failure) -> bool;
}

impl Order for FragmentList {
    fn chunk_begins(&mut self, start: &ChunkStart) -> Turn {
        self.chunk_begins(start)
    }

    fn block(&mut self) {
        self.block();
    }

    fn chunk_ends(&mut self, chunk: &Chunk) {
        self.chunk_ends(chunk);
    }

    fn notices(&mut self, failure: &Failure) -> bool {
        self.noticed(failure)
    }
}

/// Follows at this wall time; counts what is too old.
pub(super) struct Following<'a> {
    pub(super) follow: &'a mut Follow,
    pub(super) wall_ms: u64,
    pub(super) skipped: &'a mut u64,
}

impl Order for Following<'_> {
    fn chunk_begins(&mut self, start: &ChunkStart) -> Turn {
        match self.follow.chunk_begins(start, self.wall_ms) {
            Beginning::Next => Turn::Next,
            Beginning::Apart => Turn::Apart,
            Beginning::Again { blocks } => Turn::Again { blocks },
            Beginning::Known => Turn::No,
            Beginning::Old => {
                *self.skipped += 1;
                Turn::No
            }
        }
    }

    fn block(&mut self) {
        self.follow.block();
    }

    fn chunk_ends(&mut self, chunk: &Chunk) {
        self.follow.chunk_ends(chunk);
    }

    fn notices(&mut self, _: &Failure) -> bool {
        false
    }
}

/// Whatever comes of one answer, as it comes.
#[derive(Debug, Default)]
pub(super) struct AsItComes {
    /// Where another answer goes on behind the last chunk that came whole.
    pub(super) token: Option<String>,
    cut: bool,
}

impl Order for AsItComes {
    fn chunk_begins(&mut self, _: &ChunkStart) -> Turn {
        if std::mem::take(&mut self.cut) { Turn::Apart } else { Turn::Next }
    }

    fn block(&mut self) {}

    fn chunk_ends(&mut self, chunk: &Chunk) {
        self.cut = !chunk.complete;
        if chunk.complete && chunk.continuation_token.is_some() {
            self.token.clone_from(&chunk.continuation_token);
        }
    }

    fn notices(&mut self, _: &Failure) -> bool {
        false
    }
}

/// Takes answers in, one after the other.
pub(super) struct Intake {
    kind: Answer,
    chunks: ChunkReader,
    units: Units,
    /// The chunk that is being read is not handed on.
    ignoring: bool,
    /// Blocks of it that were handed on before it was cut.
    known_blocks: u64,
    /// Chunks that were handed on whole.
    pub(super) whole: u64,
    pub(super) bytes: u64,
}

impl Intake {
    pub(super) fn new(kind: Answer) -> Self {
        Self {
            kind,
            chunks: ChunkReader::new(kind),
            units: Units::default(),
            ignoring: false,
            known_blocks: 0,
            whole: 0,
            bytes: 0,
        }
    }

    /// Another answer begins.
    pub(super) fn begin(&mut self) {
        self.chunks = ChunkReader::new(self.kind);
    }

    /// What a read of the answer gave; whether it has ended, in order.
    pub(super) fn came(
        &mut self,
        bytes: Result<Option<Bytes>, Error>,
        order: &mut impl Order,
    ) -> Result<bool, SourceError> {
        match bytes {
            Ok(Some(bytes)) => {
                self.bytes += bytes.len() as u64;
                self.chunks.push(bytes);
                while let Some(event) = self.chunks.next_event()? {
                    self.take(event, order)?;
                }
                Ok(false)
            }
            Ok(None) => self.finish(true, order).map(|()| true),
            Err(error) => self.finish(false, order).and(Err(error.into())),
        }
    }

    /// `regular` as HTTP ends a body, or by a broken connection.
    fn finish(&mut self, regular: bool, order: &mut impl Order) -> Result<(), SourceError> {
        while let Some(event) = self.chunks.finish(regular)? {
            self.take(event, order)?;
        }
        Ok(())
    }

    fn take(&mut self, event: Event, order: &mut impl Order) -> Result<(), SourceError> {
        match event {
            Event::Failure(failure) => {
                if !order.notices(&failure) {
                    return Err(SourceError::InBand(failure));
                }
            }
            Event::Start(ref start) => {
                let turn = order.chunk_begins(start);
                (self.ignoring, self.known_blocks) = (turn == Turn::No, 0);
                match turn {
                    Turn::No => return Ok(()),
                    Turn::Apart => self.units.interrupt(),
                    Turn::Again { blocks } => {
                        self.known_blocks = blocks;
                        self.units.again();
                    }
                    Turn::Next => {}
                }
                self.units.take(event)?;
            }
            Event::Block(_) if self.ignoring => {}
            Event::Block(_) if self.known_blocks > 0 => self.known_blocks -= 1,
            Event::Block(_) => {
                order.block();
                self.units.take(event)?;
            }
            Event::End(ref chunk) => {
                order.chunk_ends(chunk);
                // A cut chunk comes again, and may go on as if nothing had happened.
                if chunk.complete && !self.ignoring {
                    self.whole += 1;
                    self.units.take(event)?;
                }
            }
        }
        Ok(())
    }

    /// Nothing more comes, for now or for good.
    pub(super) fn interrupt(&mut self) {
        self.units.interrupt();
    }

    /// The next item, and the fragment that it is from.
    pub(super) fn next_item(&mut self) -> Option<(Feed, Origin)> {
        self.units.next_item()
    }
}
