//! Stored fragments, by number or by time. All decisions are those of [`kvs::read::fragment_list`]; this moves bytes.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use kvs::api::{Fragment, GetMediaForFragmentListInput, StreamId};
use kvs::read::ReadFailureKind;
use kvs::read::chunk::{Answer, ChunkReader, Event};
use kvs::read::fragment_list::{
    FragmentList, FragmentListConfig, FragmentListConfigError, ListAction, RowError, Turn, Wanted,
};
use kvs::read::skip::Skip;
use kvs::read::units::{Origin, Units};
use media::{Feed, SourceMetrics, SourceState, UnitSource};

use super::figures::{SourceFigures, StreamSource};
use super::follow::kind;
use super::get_media::SourceError;
use super::options::SourceMode;
use super::{HEALTHY, SKIPS_KEPT, random};
use crate::client::Client;
use crate::error::Error;
use crate::media_stream::MediaStream;

/// Pictures and sound of stored fragments, each once and in order.
///
/// It connects again by itself. One connection at a time, of the five that a stream has for lists. It ends with the last
/// fragment, or for good after `max_consecutive_errors`: then its state is [`SourceState::Failed`]. Fragments that are
/// not there any more, or cannot be read, are told by [`take_skips`](Self::take_skips), and stand as [`Feed::Break`] in what
/// it hands on.
pub struct FragmentListSource {
    client: Client,
    stream: StreamId,
    list: FragmentList,
    step: Option<Step>,
    answer: Option<Box<MediaStream>>,
    chunks: ChunkReader,
    units: Units,
    /// The chunk that is being read is not handed on.
    ignoring: bool,
    /// Blocks of it that were handed on before it was cut.
    known_blocks: u64,
    origin: Option<Origin>,
    skips: VecDeque<Skip>,
    last_error: Option<ListError>,
    counted: SourceMetrics,
    figures: SourceFigures,
    last_frame: Option<Instant>,
}

/// Why something that was asked for could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// A call, or what it answered.
    #[error(transparent)]
    Media(#[from] SourceError),
    /// The list.
    #[error(transparent)]
    Row(#[from] RowError),
}

type Step = Pin<Box<dyn Future<Output = Done> + Send>>;

enum Done {
    Listed(Result<Vec<Fragment>, Error>),
    Opened(Result<Box<MediaStream>, Error>),
}

impl FragmentListSource {
    /// Nothing is asked for before the first call of `next`.
    pub fn new(
        client: &Client,
        stream: &StreamId,
        wanted: Wanted,
        config: FragmentListConfig,
    ) -> Result<Self, FragmentListConfigError> {
        Ok(Self {
            client: client.clone(),
            stream: stream.clone(),
            list: FragmentList::new(wanted, config)?,
            step: None,
            answer: None,
            chunks: ChunkReader::new(Answer::FragmentList),
            units: Units::default(),
            ignoring: false,
            known_blocks: 0,
            origin: None,
            skips: VecDeque::new(),
            last_error: None,
            counted: SourceMetrics::default(),
            figures: SourceFigures::new(SourceMode::FragmentList, SourceState::Disconnected),
            last_frame: None,
        })
    }

    /// Fragments that are still to come; `None` before a range was listed.
    pub fn left(&self) -> Option<usize> {
        self.list.left()
    }

    /// What was left out since this was asked last, oldest first; at most the newest 1000.
    pub fn take_skips(&mut self) -> Vec<Skip> {
        self.skips.drain(..).collect()
    }

    pub(super) fn last_call_error(&self) -> Option<&Error> {
        match self.last_error.as_ref()? {
            ListError::Media(SourceError::Call(error)) => Some(error),
            _ => None,
        }
    }

    fn begin(&mut self, action: ListAction) -> Option<Step> {
        let (client, stream) = (self.client.clone(), self.stream.clone());
        match action {
            ListAction::List(selector) => {
                Some(Box::pin(
                    async move { Done::Listed(client.list_all_fragments(&stream, selector).await) },
                ))
            }
            ListAction::Fetch(numbers) => {
                self.answer = None;
                self.chunks = ChunkReader::new(Answer::FragmentList);
                let fragments = numbers.iter().map(ToString::to_string).collect();
                Some(Box::pin(async move {
                    let input = GetMediaForFragmentListInput { stream, fragments };
                    Done::Opened(client.get_media_for_fragment_list(&input).await.map(Box::new))
                }))
            }
            ListAction::Read | ListAction::Wait(_) | ListAction::End | ListAction::GiveUp => None,
        }
    }

    fn done(&mut self, done: Done) {
        let outcome = match done {
            Done::Listed(Ok(rows)) => self.list.listed(&rows).map_err(ListError::from),
            Done::Opened(Ok(answer)) => {
                self.answer = Some(answer);
                self.list.opened();
                Ok(())
            }
            Done::Listed(Err(error)) | Done::Opened(Err(error)) => {
                Err(ListError::Media(SourceError::Call(error)))
            }
        };
        self.settle(outcome);
    }

    fn settle(&mut self, outcome: Result<(), ListError>) {
        if let Err(error) = outcome {
            self.answer = None;
            self.figures.read_errors += 1;
            let kind = match &error {
                ListError::Media(error) => kind(error),
                ListError::Row(_) => ReadFailureKind::Unreadable,
            };
            self.figures.parse_errors += u64::from(kind == ReadFailureKind::Unreadable);
            self.last_error = Some(error);
            self.list.failed(kind, self.client.shared.config.clock.now(), random());
        }
        while let Some(skip) = self.list.next_skip() {
            self.figures.fragments_skipped += skip.fragments.unwrap_or(0);
            if self.skips.len() == SKIPS_KEPT {
                self.skips.pop_front();
            }
            self.skips.push_back(skip);
        }
    }

    fn take(&mut self, event: Event) -> Result<(), SourceError> {
        match event {
            Event::Failure(failure) => {
                if !self.list.noticed(&failure) {
                    return Err(SourceError::InBand(failure));
                }
            }
            Event::Start(ref start) => {
                let turn = self.list.chunk_begins(start);
                self.ignoring = turn == Turn::No;
                self.known_blocks = 0;
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
                self.list.block();
                self.units.take(event)?;
            }
            Event::End(ref chunk) => {
                self.list.chunk_ends(chunk);
                // A cut chunk comes again, and may go on as if nothing had happened.
                if chunk.complete && !self.ignoring {
                    self.figures.fragments_processed += 1;
                    self.last_error = None;
                    self.units.take(event)?;
                }
            }
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), SourceError> {
        while let Some(event) = self.chunks.next_event()? {
            self.take(event)?;
        }
        Ok(())
    }

    fn finish(&mut self, regular: bool) -> Result<(), SourceError> {
        while let Some(event) = self.chunks.finish(regular)? {
            self.take(event)?;
        }
        Ok(())
    }

    fn bytes(&mut self, bytes: Result<Option<bytes::Bytes>, Error>) {
        let outcome = match bytes {
            Ok(Some(bytes)) => {
                self.figures.bytes_received += bytes.len() as u64;
                self.chunks.push(bytes);
                self.read()
            }
            Ok(None) => {
                let outcome = self.finish(true);
                if outcome.is_ok() {
                    self.answer = None;
                    self.list.ended();
                }
                outcome
            }
            Err(error) => self.finish(false).and(Err(error.into())),
        };
        self.settle(outcome.map_err(ListError::from));
    }

    fn hand_on(&mut self) -> Option<Feed> {
        let (item, origin) = self.units.next_item()?;
        self.counted.count(&item);
        self.origin = Some(origin);
        if let Feed::Video(unit) = &item {
            let clock = &self.client.shared.config.clock;
            let now_ms = clock.wall_ms();
            self.figures.frames_read += 1;
            self.figures.last_frame_timestamp = Some(kvs::api::seconds(now_ms));
            self.figures.latency_ms = Some(now_ms.saturating_sub(unit.timestamp.as_millis()));
            self.last_frame = Some(clock.now());
        }
        Some(item)
    }
}

impl UnitSource for FragmentListSource {
    async fn next(&mut self) -> Option<Feed> {
        loop {
            if let Some(item) = self.hand_on() {
                return Some(item);
            }
            if let Some(step) = &mut self.step {
                let done = step.as_mut().await;
                self.step = None;
                self.done(done);
                continue;
            }
            let action = self.list.next_action(self.client.shared.config.clock.now());
            match action {
                ListAction::Read => {
                    let answer = self.answer.as_mut().expect("the machine reads what was opened");
                    let bytes = answer.next_bytes().await;
                    self.bytes(bytes);
                }
                ListAction::Wait(until) => self.client.shared.config.clock.sleep_until(until).await,
                ListAction::End | ListAction::GiveUp => {
                    self.answer = None;
                    self.units.interrupt();
                    return self.hand_on();
                }
                action => self.step = self.begin(action),
            }
        }
    }

    fn state(&self) -> SourceState {
        self.list.state()
    }

    fn metrics(&self) -> SourceMetrics {
        self.counted
    }
}

impl StreamSource for FragmentListSource {
    fn origin(&self) -> Option<Origin> {
        self.origin
    }

    fn figures(&self) -> SourceFigures {
        SourceFigures {
            state: self.state(),
            connection_resets: self.list.connection_resets(),
            ..self.figures.clone()
        }
    }

    fn is_healthy(&self) -> bool {
        let clock = &self.client.shared.config.clock;
        self.state() == SourceState::Connected && self.last_frame.is_some_and(|at| clock.since(at) <= HEALTHY)
    }

    fn last_error(&self) -> Option<String> {
        self.last_error.as_ref().map(|error| health::chain(error))
    }
}

impl fmt::Debug for FragmentListSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FragmentListSource")
            .field("figures", &self.figures())
            .field("left", &self.left())
            .field("last_error", &self.last_error)
            .finish_non_exhaustive()
    }
}
