//! Stored fragments, by number or by time. All decisions are those of [`kvs::read::fragment_list`]; this moves bytes.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use kvs::api::{Fragment, GetMediaForFragmentListInput, StreamId};
use kvs::read::ReadFailureKind;
use kvs::read::chunk::Answer;
use kvs::read::fragment_list::{
    FragmentList, FragmentListConfig, FragmentListConfigError, ListAction, RowError, Wanted,
};
use kvs::read::skip::Skip;
use kvs::read::units::Origin;
use media::{Feed, SourceMetrics, SourceState, UnitSource};

use super::figures::{SourceFigures, StreamSource};
use super::follow::kind;
use super::get_media::SourceError;
use super::handed::{Handed, Skips};
use super::intake::Intake;
use super::options::SourceMode;
use super::random;
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
    intake: Intake,
    handed: Handed,
    skips: Skips,
    last_error: Option<ListError>,
    read_errors: u64,
    parse_errors: u64,
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
            intake: Intake::new(Answer::FragmentList),
            handed: Handed::new(&client.shared.config.clock),
            skips: Skips::default(),
            last_error: None,
            read_errors: 0,
            parse_errors: 0,
        })
    }

    /// Fragments that are still to come; `None` before a range was listed.
    pub fn left(&self) -> Option<usize> {
        self.list.left()
    }

    /// What was left out since this was asked last, oldest first; at most the newest 1000.
    pub fn take_skips(&mut self) -> Vec<Skip> {
        self.skips.take()
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
                self.intake.begin();
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
            self.read_errors += 1;
            let kind = match &error {
                ListError::Media(error) => kind(error),
                ListError::Row(_) => ReadFailureKind::Unreadable,
            };
            self.parse_errors += u64::from(kind == ReadFailureKind::Unreadable);
            self.last_error = Some(error);
            self.list.failed(kind, self.client.shared.config.clock.now(), random());
        }
        while let Some(skip) = self.list.next_skip() {
            self.skips.note(skip);
        }
    }

    fn bytes(&mut self, bytes: Result<Option<bytes::Bytes>, Error>) {
        let whole = self.intake.whole;
        let came = self.intake.came(bytes, &mut self.list);
        if self.intake.whole > whole {
            self.last_error = None;
        }
        if let Ok(true) = came {
            self.answer = None;
            self.list.ended();
        }
        self.settle(came.map(drop).map_err(ListError::from));
    }
}

impl UnitSource for FragmentListSource {
    async fn next(&mut self) -> Option<Feed> {
        loop {
            if let Some(item) = self.handed.on(self.intake.next_item()) {
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
                    self.intake.interrupt();
                    return self.handed.on(self.intake.next_item());
                }
                action => self.step = self.begin(action),
            }
        }
    }

    fn state(&self) -> SourceState {
        self.list.state()
    }

    fn metrics(&self) -> SourceMetrics {
        self.handed.counted
    }
}

impl StreamSource for FragmentListSource {
    fn origin(&self) -> Option<Origin> {
        self.handed.origin
    }

    fn figures(&self) -> SourceFigures {
        SourceFigures {
            frames_read: self.handed.counted.pictures,
            fragments_processed: self.intake.whole,
            fragments_skipped: self.skips.fragments,
            bytes_received: self.intake.bytes,
            read_errors: self.read_errors,
            parse_errors: self.parse_errors,
            connection_resets: self.list.connection_resets(),
            last_frame_timestamp: self.handed.last_frame_timestamp,
            latency_ms: self.handed.latency_ms,
            ..SourceFigures::new(SourceMode::FragmentList, self.state())
        }
    }

    fn is_healthy(&self) -> bool {
        self.handed.is_healthy(self.state())
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
