//! A stream followed over many GetMedia answers. All decisions are those of [`kvs::read::follow`]; this moves bytes.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use kvs::api::StreamId;
use kvs::read::ReadFailureKind;
use kvs::read::chunk::{Answer, ChunkReader, Event};
use kvs::read::follow::{Beginning, Follow, FollowAction, FollowConfig, FollowConfigError};
use kvs::read::units::{Origin, Units};
use media::{Feed, SourceMetrics, SourceState, UnitSource};

use super::figures::{SourceFigures, StreamSource};
use super::get_media::SourceError;
use super::metrics::{GetMediaMetrics, state_number};
use super::options::SourceMode;
use super::{HEALTHY, random};
use crate::client::Client;
use crate::error::{Action, Error, ServiceErrorKind};
use crate::media_stream::MediaStream;

/// Pictures and sound of a stream for as long as one likes.
///
/// It connects again by itself: after the service ended an answer, before it would, and after errors; no picture comes twice.
/// One connection at a time. It ends for good after `max_reconnect_attempts`: then its state is [`SourceState::Failed`].
pub struct FollowSource {
    client: Client,
    stream: StreamId,
    follow: Follow,
    opening: Option<Opening>,
    answer: Option<Box<MediaStream>>,
    chunks: ChunkReader,
    units: Units,
    /// The chunk that is being read is not handed on.
    ignoring: bool,
    /// Blocks of it that were handed on before it was cut.
    known_blocks: u64,
    origin: Option<Origin>,
    last_error: Option<SourceError>,
    counted: SourceMetrics,
    metrics: GetMediaMetrics,
    last_frame: Option<Instant>,
}

type Opening = Pin<Box<dyn Future<Output = Result<MediaStream, Error>> + Send>>;

impl FollowSource {
    /// Nothing is asked for before the first call of `next`.
    pub fn new(client: &Client, stream: &StreamId, config: FollowConfig) -> Result<Self, FollowConfigError> {
        Ok(Self {
            client: client.with_chunk_size(config.chunk_size),
            stream: stream.clone(),
            follow: Follow::new(config)?,
            opening: None,
            answer: None,
            chunks: ChunkReader::new(Answer::GetMedia),
            units: Units::default(),
            ignoring: false,
            known_blocks: 0,
            origin: None,
            last_error: None,
            counted: SourceMetrics::default(),
            metrics: GetMediaMetrics::default(),
            last_frame: None,
        })
    }

    /// The fragment that the last item is from; `None` before the first one.
    pub fn origin(&self) -> Option<Origin> {
        self.origin
    }

    /// The last thing that went wrong, if anything has since the last whole fragment.
    pub fn last_error(&self) -> Option<&SourceError> {
        self.last_error.as_ref()
    }

    /// It is connected, and a picture came within the last 30 s.
    pub fn is_healthy(&self) -> bool {
        let clock = &self.client.shared.config.clock;
        self.state() == SourceState::Connected && self.last_frame.is_some_and(|at| clock.since(at) <= HEALTHY)
    }

    /// Since it was made, in the names of GetMedia; [`StreamSource::figures`] is the same of any source.
    pub fn get_media_metrics(&self) -> GetMediaMetrics {
        GetMediaMetrics {
            connection_resets: self.follow.connection_resets(),
            connection_state: state_number(self.state()),
            ..self.metrics.clone()
        }
    }

    fn now(&self) -> Instant {
        self.client.shared.config.clock.now()
    }

    fn wall_ms(&self) -> u64 {
        self.client.shared.config.clock.wall_ms()
    }

    fn take(&mut self, event: Event) -> Result<(), SourceError> {
        match event {
            Event::Failure(failure) => return Err(SourceError::InBand(failure)),
            Event::Start(ref start) => {
                let beginning = self.follow.chunk_begins(start, self.wall_ms());
                self.ignoring = matches!(beginning, Beginning::Known | Beginning::Old);
                self.known_blocks = 0;
                match beginning {
                    Beginning::Known => return Ok(()),
                    Beginning::Old => {
                        self.metrics.fragments_skipped += 1;
                        return Ok(());
                    }
                    Beginning::Apart => self.units.interrupt(),
                    Beginning::Again { blocks } => {
                        self.known_blocks = blocks;
                        self.units.again();
                    }
                    Beginning::Next => {}
                }
                self.units.take(event)?;
            }
            Event::Block(_) if self.ignoring => {}
            Event::Block(_) if self.known_blocks > 0 => self.known_blocks -= 1,
            Event::Block(_) => {
                self.follow.block();
                self.units.take(event)?;
            }
            Event::End(ref chunk) => {
                self.follow.chunk_ends(chunk);
                // A cut chunk comes again, and may go on as if nothing had happened.
                if chunk.complete && !self.ignoring {
                    self.metrics.fragments_processed += 1;
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

    /// `regular` as HTTP ends a body, or by a broken connection.
    fn finish(&mut self, regular: bool) -> Result<(), SourceError> {
        while let Some(event) = self.chunks.finish(regular)? {
            self.take(event)?;
        }
        Ok(())
    }

    fn failed(&mut self, error: SourceError) {
        self.answer = None;
        self.metrics.read_errors += 1;
        let kind = kind(&error);
        self.metrics.parse_errors += u64::from(kind == ReadFailureKind::Unreadable);
        self.last_error = Some(error);
        self.follow.failed(kind, self.now(), random());
    }

    fn opened(&mut self, opened: Result<MediaStream, Error>) {
        match opened {
            Ok(answer) => {
                self.answer = Some(Box::new(answer));
                self.follow.opened(self.now());
            }
            Err(error) => self.failed(error.into()),
        }
    }

    fn bytes(&mut self, bytes: Result<Option<bytes::Bytes>, Error>) {
        let outcome = match bytes {
            Ok(Some(bytes)) => {
                self.metrics.bytes_received += bytes.len() as u64;
                self.chunks.push(bytes);
                self.read()
            }
            Ok(None) => {
                let outcome = self.finish(true);
                if outcome.is_ok() {
                    self.answer = None;
                    self.follow.ended(self.now(), random());
                }
                outcome
            }
            Err(error) => self.finish(false).and(Err(error.into())),
        };
        if let Err(error) = outcome {
            self.failed(error);
        }
    }

    fn hand_on(&mut self) -> Option<Feed> {
        let (item, origin) = self.units.next_item()?;
        self.counted.count(&item);
        self.origin = Some(origin);
        if let Feed::Video(unit) = &item {
            let now_ms = self.wall_ms();
            self.metrics.frames_read += 1;
            self.metrics.last_frame_timestamp = Some(kvs::api::seconds(now_ms));
            self.metrics.latency_ms = Some(now_ms.saturating_sub(unit.timestamp.as_millis()));
            self.last_frame = Some(self.now());
        }
        Some(item)
    }
}

impl UnitSource for FollowSource {
    async fn next(&mut self) -> Option<Feed> {
        loop {
            if let Some(item) = self.hand_on() {
                return Some(item);
            }
            if let Some(opening) = &mut self.opening {
                let opened = opening.as_mut().await;
                self.opening = None;
                self.opened(opened);
                continue;
            }
            match self.follow.next_action(self.now(), self.wall_ms()) {
                FollowAction::Open(selector) => {
                    // A stream has three readers: the old one goes first.
                    self.answer = None;
                    self.chunks = ChunkReader::new(Answer::GetMedia);
                    let (client, stream) = (self.client.clone(), self.stream.clone());
                    self.opening = Some(Box::pin(async move { client.get_media(&stream, selector).await }));
                }
                FollowAction::Read => {
                    let answer = self.answer.as_mut().expect("the machine reads what was opened");
                    let bytes = answer.next_bytes().await;
                    self.bytes(bytes);
                }
                FollowAction::Wait(until) => self.client.shared.config.clock.sleep_until(until).await,
                FollowAction::GiveUp => {
                    self.units.interrupt();
                    return self.hand_on();
                }
            }
        }
    }

    fn state(&self) -> SourceState {
        self.follow.state()
    }

    fn metrics(&self) -> SourceMetrics {
        self.counted
    }
}

impl StreamSource for FollowSource {
    fn origin(&self) -> Option<Origin> {
        self.origin
    }

    fn figures(&self) -> SourceFigures {
        let metrics = &self.metrics;
        SourceFigures {
            frames_read: metrics.frames_read,
            fragments_processed: metrics.fragments_processed,
            fragments_skipped: metrics.fragments_skipped,
            bytes_received: metrics.bytes_received,
            read_errors: metrics.read_errors,
            parse_errors: metrics.parse_errors,
            connection_resets: self.follow.connection_resets(),
            last_frame_timestamp: metrics.last_frame_timestamp,
            latency_ms: metrics.latency_ms,
            ..SourceFigures::new(SourceMode::GetMedia, self.state())
        }
    }

    fn is_healthy(&self) -> bool {
        self.is_healthy()
    }

    fn last_error(&self) -> Option<String> {
        self.last_error.as_ref().map(|error| health::chain(error))
    }
}

pub(super) fn kind(error: &SourceError) -> ReadFailureKind {
    let error = match error {
        SourceError::Call(error) => error,
        // The place to go on from, or anything else.
        SourceError::InBand(failure) if failure.code == "4000" || failure.message == "4000" => {
            return ReadFailureKind::Refused;
        }
        SourceError::InBand(_) => return ReadFailureKind::Soon,
        SourceError::Chunk(_) | SourceError::Track(_) => return ReadFailureKind::Unreadable,
    };
    match (error.service_kind(), error.action()) {
        (Some(ServiceErrorKind::InvalidArgument), _) => ReadFailureKind::Refused,
        (Some(ServiceErrorKind::ConnectionLimitExceeded), _) => ReadFailureKind::TooManyReaders,
        (_, Action::RetrySlower) => ReadFailureKind::Slower,
        (_, Action::Stop) => ReadFailureKind::Operator,
        _ => ReadFailureKind::Soon,
    }
}

impl fmt::Debug for FollowSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FollowSource")
            .field("state", &self.state())
            .field("metrics", &self.get_media_metrics())
            .field("last_error", &self.last_error)
            .finish_non_exhaustive()
    }
}
