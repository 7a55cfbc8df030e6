//! One GetMedia answer as a source.
//!
//! ```text
//!  Disconnected --first next()--> Connecting --200--> Connected --end, in order--> Disconnected
//!                                     |                   |
//!                                     +---- refused ------+--- broken, unreadable ---> Failed
//! ```

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use kvs::api::{StartSelector, StreamId};
use kvs::read::chunk::{Answer, ChunkError, Failure};
use kvs::read::units::{Origin, TrackError};
use media::{Feed, SourceMetrics, SourceState, UnitSource};

use super::handed::Handed;
use super::intake::{AsItComes, Intake};
use crate::client::Client;
use crate::error::Error;
use crate::media_stream::MediaStream;

/// Pictures and sound of a stream, from a start selector on, live as they are uploaded.
///
/// It ends with the answer: some seconds after the producer stopped, after 40 to 45 min, or by a failure, which
/// [`failure`](Self::failure) then tells. What is complete of the last fragment is handed on in any case.
pub struct GetMediaSource {
    link: Link,
    intake: Intake,
    order: AsItComes,
    handed: Handed,
    failure: Option<SourceError>,
}

/// Why a source has failed.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A call was refused, or its answer broke.
    #[error(transparent)]
    Call(#[from] Error),
    /// The answer is no Matroska.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// The pictures are of no kind that is understood.
    #[error(transparent)]
    Track(#[from] TrackError),
    /// In the answer, in the words of the service.
    #[error(transparent)]
    InBand(Failure),
}

type Opening = Pin<Box<dyn Future<Output = Result<MediaStream, Error>> + Send>>;

enum Link {
    Opening {
        opening: Opening,
        /// `next` was called.
        begun: bool,
    },
    Open(Box<MediaStream>),
    Over,
}

impl GetMediaSource {
    /// Nothing is asked for before the first call of `next`.
    pub fn new(client: &Client, stream: &StreamId, start: StartSelector) -> Self {
        let handed = Handed::new(&client.shared.config.clock);
        let (client, stream) = (client.clone(), stream.clone());
        Self {
            link: Link::Opening {
                opening: Box::pin(async move { client.get_media(&stream, start).await }),
                begun: false,
            },
            intake: Intake::new(Answer::GetMedia),
            order: AsItComes::default(),
            handed,
            failure: None,
        }
    }

    /// The fragment that the last item is from; `None` before the first one.
    pub fn origin(&self) -> Option<Origin> {
        self.handed.origin
    }

    /// Where another source goes on behind the last fragment that came whole; `None` before there was one.
    pub fn resume(&self) -> Option<StartSelector> {
        self.order.token.as_ref().map(StartSelector::continuation)
    }

    /// Why it has failed, once its state says so.
    pub fn failure(&self) -> Option<&SourceError> {
        self.failure.as_ref()
    }

    fn over(&mut self, outcome: Result<(), SourceError>) {
        self.link = Link::Over;
        self.intake.interrupt();
        self.failure = outcome.err();
    }
}

impl UnitSource for GetMediaSource {
    async fn next(&mut self) -> Option<Feed> {
        loop {
            if let Some(item) = self.handed.on(self.intake.next_item()) {
                return Some(item);
            }
            match &mut self.link {
                Link::Opening { opening, begun } => {
                    *begun = true;
                    match opening.await {
                        Ok(stream) => self.link = Link::Open(Box::new(stream)),
                        Err(error) => self.over(Err(error.into())),
                    }
                }
                Link::Open(stream) => {
                    let bytes = stream.next_bytes().await;
                    match self.intake.came(bytes, &mut self.order) {
                        Ok(false) => {}
                        Ok(true) => self.over(Ok(())),
                        Err(error) => self.over(Err(error)),
                    }
                }
                Link::Over => return None,
            }
        }
    }

    fn state(&self) -> SourceState {
        match &self.link {
            Link::Opening { begun: false, .. } => SourceState::Disconnected,
            Link::Opening { begun: true, .. } => SourceState::Connecting,
            Link::Open(_) => SourceState::Connected,
            Link::Over if self.failure.is_some() => SourceState::Failed,
            Link::Over => SourceState::Disconnected,
        }
    }

    fn metrics(&self) -> SourceMetrics {
        self.handed.counted
    }
}

impl fmt::Debug for GetMediaSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetMediaSource")
            .field("state", &self.state())
            .field("metrics", &self.handed.counted)
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}
