//! A stream followed over many GetMedia answers. All decisions are those of [`kvs::read::follow`]; this moves bytes.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use kvs::api::StreamId;
use kvs::read::ReadFailureKind;
use kvs::read::chunk::Answer;
use kvs::read::follow::{Follow, FollowAction, FollowConfig, FollowConfigError};
use kvs::read::units::Origin;
use media::{Feed, SourceMetrics, SourceState, UnitSource};

use super::figures::{SourceFigures, StreamSource};
use super::get_media::SourceError;
use super::handed::Handed;
use super::intake::{Following, Intake};
use super::metrics::{GetMediaMetrics, state_number};
use super::options::SourceMode;
use super::random;
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
    intake: Intake,
    handed: Handed,
    last_error: Option<SourceError>,
    fragments_skipped: u64,
    read_errors: u64,
    parse_errors: u64,
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
            intake: Intake::new(Answer::GetMedia),
            handed: Handed::new(&client.shared.config.clock),
            last_error: None,
            fragments_skipped: 0,
            read_errors: 0,
            parse_errors: 0,
        })
    }

    /// The fragment that the last item is from; `None` before the first one.
    pub fn origin(&self) -> Option<Origin> {
        self.handed.origin
    }

    /// The last thing that went wrong, if anything has since the last whole fragment.
    pub fn last_error(&self) -> Option<&SourceError> {
        self.last_error.as_ref()
    }

    /// It is connected, and a picture came within the last 30 s.
    pub fn is_healthy(&self) -> bool {
        self.handed.is_healthy(self.state())
    }

    /// Since it was made, in the names of GetMedia; [`StreamSource::figures`] is the same of any source.
    pub fn get_media_metrics(&self) -> GetMediaMetrics {
        GetMediaMetrics {
            frames_read: self.handed.counted.pictures,
            fragments_processed: self.intake.whole,
            fragments_skipped: self.fragments_skipped,
            bytes_received: self.intake.bytes,
            parse_errors: self.parse_errors,
            read_errors: self.read_errors,
            connection_resets: self.follow.connection_resets(),
            last_frame_timestamp: self.handed.last_frame_timestamp,
            latency_ms: self.handed.latency_ms,
            connection_state: state_number(self.state()),
        }
    }

    fn now(&self) -> Instant {
        self.client.shared.config.clock.now()
    }

    fn wall_ms(&self) -> u64 {
        self.client.shared.config.clock.wall_ms()
    }

    fn failed(&mut self, error: SourceError) {
        self.answer = None;
        self.read_errors += 1;
        let kind = kind(&error);
        self.parse_errors += u64::from(kind == ReadFailureKind::Unreadable);
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
        let (wall_ms, whole) = (self.wall_ms(), self.intake.whole);
        let Self { follow, fragments_skipped: skipped, intake, .. } = self;
        let came = intake.came(bytes, &mut Following { follow, wall_ms, skipped });
        if self.intake.whole > whole {
            self.last_error = None;
        }
        match came {
            Ok(false) => {}
            Ok(true) => {
                self.answer = None;
                self.follow.ended(self.now(), random());
            }
            Err(error) => self.failed(error),
        }
    }
}

impl UnitSource for FollowSource {
    async fn next(&mut self) -> Option<Feed> {
        loop {
            if let Some(item) = self.handed.on(self.intake.next_item()) {
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
                    self.intake.begin();
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
                    self.intake.interrupt();
                    return self.handed.on(self.intake.next_item());
                }
            }
        }
    }

    fn state(&self) -> SourceState {
        self.follow.state()
    }

    fn metrics(&self) -> SourceMetrics {
        self.handed.counted
    }
}

impl StreamSource for FollowSource {
    fn origin(&self) -> Option<Origin> {
        self.handed.origin
    }

    fn figures(&self) -> SourceFigures {
        let metrics = self.get_media_metrics();
        SourceFigures {
            frames_read: metrics.frames_read,
            fragments_processed: metrics.fragments_processed,
            fragments_skipped: metrics.fragments_skipped,
            bytes_received: metrics.bytes_received,
            read_errors: metrics.read_errors,
            parse_errors: metrics.parse_errors,
            connection_resets: metrics.connection_resets,
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
