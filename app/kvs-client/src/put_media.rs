//! PutMedia: media goes out while acknowledgements come in, on one connection.
//!
//! ```text
//!  PutMediaSender --frames--> channel of 8 --> hyper --> socket      each frame is written at once
//!  PutMediaAcks  <---acks---- parser <-------- hyper <-- socket      head first, then acks until the end
//! ```
//!
//! The two halves are used from two tasks, or from one `select!`. The request is under way as soon as
//! [`Client::put_media`] returns; whether the service accepts it, the acks half tells.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use kvs::ack::{Ack, AckParser};
use kvs::api::{StreamId, header};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::answer;
use crate::client::Client;
use crate::connection::{self, Connection, Progress};
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::operation::Operation;

/// Frames between [`PutMediaSender::send`] and the connection. When it is full, `send` waits: a slow network
/// is felt by the caller, who holds the media and decides what to drop. Behind it hyper holds at most
/// 16 frames or 400 kB, whichever comes first.
const WAITING_FRAMES: usize = 16;

/// Bytes of an answer kept to recognise an error in disguise; acks are shorter than this.
const MAX_DISGUISED_BYTES: usize = 4096;

/// How the cluster timecodes are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimecodeType {
    /// Milliseconds since the Unix epoch.
    Absolute,
    /// Milliseconds since the request's start time.
    Relative,
}

/// The head of a PutMedia.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutMediaInput {
    /// Where the media goes.
    pub stream: StreamId,
    /// How cluster timecodes are meant.
    pub timecode_type: TimecodeType,
    /// Milliseconds since the Unix epoch, UTC; the service wants it with absolute timecodes too.
    pub start_ms: u64,
    /// How long the socket may take not one byte while some wait; `None`: as the client's
    /// [`Timeouts::write_stall`](crate::Timeouts).
    pub write_timeout: Option<Duration>,
}

/// Both halves of a running PutMedia. Dropping either one (the sender: unless it finished) closes the
/// connection at once.
#[derive(Debug)]
pub struct PutMedia {
    /// Media goes in here.
    pub sender: PutMediaSender,
    /// What becomes of it comes out here.
    pub acks: PutMediaAcks,
}

/// The half that sends media.
#[derive(Debug)]
pub struct PutMediaSender {
    endpoint: Endpoint,
    frames: mpsc::Sender<Item>,
    progress: Progress,
    limit: Duration,
    finished: bool,
    connection: AbortHandle,
}

/// The half that hears of it.
pub struct PutMediaAcks {
    client: Client,
    stream: StreamId,
    endpoint: Endpoint,
    signed_at: SystemTime,
    state: Answer,
    request_id: Option<String>,
    parser: AckParser,
    connection: Option<Connection>,
}

type Head = Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;

enum Answer {
    Awaited { head: Head, since: Instant },
    Refused(Pin<Box<dyn Future<Output = Error> + Send>>),
    Acks { headers: HeaderMap, body: Incoming, start: Vec<u8> },
    Over,
}

#[derive(Debug)]
enum Item {
    Frame(Bytes),
    /// Answered when the connection has taken everything before it.
    End(oneshot::Sender<()>),
}

impl Client {
    /// Opens a connection and sends the request head. A stream has one such connection: finish or drop the
    /// old one first.
    pub async fn put_media(&self, input: &PutMediaInput) -> Result<PutMedia, Error> {
        let endpoint = self.data_endpoint(Operation::PutMedia, &input.stream).await?;
        let begun = self.begin(input, endpoint).await;
        begun.inspect_err(|error| self.learn(Operation::PutMedia, Some(&input.stream), error))
    }

    async fn begin(&self, input: &PutMediaInput, endpoint: Endpoint) -> Result<PutMedia, Error> {
        let operation = Operation::PutMedia;
        let mut headers = head(input)?;
        let signed_at = self.sign(operation, &endpoint, &mut headers, b"").await?;
        let timeouts = &self.shared.config.timeouts;
        let (mut sender, connection) = connection::open(self, &endpoint, operation).await?;
        let (frames, waiting) = mpsc::channel(WAITING_FRAMES);
        let response = sender.send_request(connection::request(operation, headers, Frames { waiting }));
        let sender = PutMediaSender {
            endpoint: endpoint.clone(),
            frames,
            progress: connection.progress.clone(),
            limit: input.write_timeout.unwrap_or(timeouts.write_stall),
            finished: false,
            connection: connection.abort_handle(),
        };
        let acks = PutMediaAcks {
            client: self.clone(),
            stream: input.stream.clone(),
            endpoint,
            signed_at,
            state: Answer::Awaited { head: Box::pin(response), since: self.shared.config.clock.now() },
            request_id: None,
            parser: AckParser::default(),
            connection: Some(connection),
        };
        Ok(PutMedia { sender, acks })
    }
}

/// The headers of the operation itself (PutMedia API page).
fn head(input: &PutMediaInput) -> Result<HeaderMap, Error> {
    let value = |what: &str, text: &str| {
        HeaderValue::try_from(text)
            .ok()
            .filter(|value| value.to_str().is_ok() && !text.is_empty())
            .ok_or_else(|| Error::BadRequest {
                operation: Operation::PutMedia,
                what: format!("{what} {text:?} cannot be a header"),
            })
    };
    let mut headers = HeaderMap::new();
    match (&input.stream.stream_name, &input.stream.stream_arn) {
        (Some(name), None) => headers.insert(header::STREAM_NAME, value("stream name", name)?),
        (None, Some(arn)) => headers.insert(header::STREAM_ARN, value("stream ARN", arn)?),
        _ => {
            let what = "a stream has either a name or an ARN".to_owned();
            return Err(Error::BadRequest { operation: Operation::PutMedia, what });
        }
    };
    let timecode_type = match input.timecode_type {
        TimecodeType::Absolute => "ABSOLUTE",
        TimecodeType::Relative => "RELATIVE",
    };
    headers.insert(header::FRAGMENT_TIMECODE_TYPE, HeaderValue::from_static(timecode_type));
    let start = kvs::tag::format_seconds(input.start_ms);
    headers.insert(header::PRODUCER_START_TIMESTAMP, value("start time", &start)?);
    headers.insert(header::FRAGMENT_ACKNOWLEDGMENT_REQUIRED, HeaderValue::from_static("1"));
    Ok(headers)
}

impl PutMediaSender {
    /// Hands `frame` over to the connection, as it is and without a copy; waits while 8 frames wait already.
    ///
    /// [`Error::Stalled`]: while it waited, the socket took no byte for the limit
    /// ([`Timeouts::write_stall`](crate::Timeouts)). [`Error::Closed`]: the connection is gone; ask the acks
    /// half why. Safe to cancel: a cancelled frame is not sent.
    pub async fn send(&mut self, frame: Bytes) -> Result<(), Error> {
        if frame.is_empty() {
            return Ok(()); // in HTTP an empty chunk would end the body
        }
        self.hand_over(Item::Frame(frame)).await
    }

    /// As [`send`](Self::send), but where `send` would wait it returns the frame.
    pub fn try_send(&mut self, frame: Bytes) -> Result<Option<Bytes>, Error> {
        if frame.is_empty() {
            return Ok(None);
        }
        match self.frames.try_send(Item::Frame(frame)) {
            Ok(()) => Ok(None),
            Err(mpsc::error::TrySendError::Full(Item::Frame(frame))) => Ok(Some(frame)),
            Err(_) => Err(self.closed()),
        }
    }

    /// Bytes that the socket took since it was opened, head and framing included, and when it took the last of them.
    pub fn written(&self) -> (u64, Instant) {
        self.progress.written()
    }

    /// Ends the body in order, and returns once the connection has taken all of it. The acks half goes on
    /// until the service has said everything.
    pub async fn finish(mut self) -> Result<(), Error> {
        let (taken, end_taken) = oneshot::channel();
        self.hand_over(Item::End(taken)).await?;
        let end_taken = self.with_progress(end_taken).await?;
        end_taken.map_err(|_| self.closed())?;
        self.finished = true;
        Ok(())
    }

    async fn hand_over(&mut self, item: Item) -> Result<(), Error> {
        let sent = self.with_progress(self.frames.send(item)).await?.is_ok();
        if sent { Ok(()) } else { Err(self.closed()) }
    }

    /// Waits as long as the socket takes bytes.
    async fn with_progress<T>(&self, waiting: impl Future<Output = T>) -> Result<T, Error> {
        let since = self.progress.now();
        let mut waiting = std::pin::pin!(waiting);
        loop {
            let quiet_since = self.progress.last().max(since);
            if let Ok(done) = tokio::time::timeout_at((quiet_since + self.limit).into(), &mut waiting).await {
                return Ok(done);
            }
            if self.progress.last() <= quiet_since {
                let (operation, endpoint) = (Operation::PutMedia, self.endpoint.clone());
                return Err(Error::Stalled { operation, endpoint, after: self.limit });
            }
        }
    }

    /// The connection may still hold the reason for the acks half, so this sender no longer closes it.
    fn closed(&mut self) -> Error {
        self.finished = true;
        Error::Closed { operation: Operation::PutMedia, endpoint: self.endpoint.clone() }
    }
}

impl Drop for PutMediaSender {
    fn drop(&mut self) {
        if !self.finished {
            self.connection.abort();
        }
    }
}

/// The request body. Without [`Item::End`] it breaks off, so that the service never takes a dropped sender
/// for an orderly end.
struct Frames {
    waiting: mpsc::Receiver<Item>,
}

#[derive(Debug, thiserror::Error)]
#[error("dropped before its end")]
struct Dropped;

impl Body for Frames {
    type Data = Bytes;
    type Error = Dropped;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Dropped>>> {
        self.waiting.poll_recv(cx).map(|item| match item {
            Some(Item::Frame(bytes)) => Some(Ok(Frame::data(bytes))),
            Some(Item::End(taken)) => {
                let _ = taken.send(()); // the sender may be gone by now
                None
            }
            None => Some(Err(Dropped)),
        })
    }
}

impl PutMediaAcks {
    /// Waits until the service has accepted the request, which it does before it has seen any media. Calling it
    /// is optional. A refusal is [`Error::Service`]. Safe to cancel.
    pub async fn accepted(&mut self) -> Result<(), Error> {
        let outcome = self.await_head().await;
        outcome.map_err(|error| self.end_with(error))
    }

    /// The service's name for this session, once it has accepted it.
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// The next acknowledgement; `None` once the service has ended the answer in order. After an error, `None`.
    ///
    /// It waits for as long as the connection lives, since acks come only for media that was sent: how long
    /// one may be missing, the caller knows. Safe to cancel.
    pub async fn next_ack(&mut self) -> Result<Option<Ack>, Error> {
        let outcome = match self.await_head().await {
            Ok(()) => self.read_ack().await,
            Err(error) => Err(error),
        };
        if let Ok(None) = outcome {
            self.end();
        }
        outcome.map_err(|error| self.end_with(error))
    }

    async fn await_head(&mut self) -> Result<(), Error> {
        let (operation, limit) = (Operation::PutMedia, self.client.shared.config.timeouts.head);
        let endpoint = || self.endpoint.clone();
        if let Answer::Awaited { head, since } = &mut self.state {
            let response = tokio::time::timeout_at((*since + limit).into(), head)
                .await
                .map_err(|_| Error::Timeout {
                    operation,
                    endpoint: endpoint(),
                    what: "answer",
                    after: limit,
                })?
                .map_err(|source| Error::Interrupted {
                    operation,
                    endpoint: endpoint(),
                    request_id: None,
                    source,
                })?;
            self.client.note_answer(response.headers(), *since);
            self.state = if response.status().is_success() {
                let (head, body) = response.into_parts();
                self.request_id = answer::request_id(&head.headers);
                Answer::Acks { headers: head.headers, body, start: Vec::new() }
            } else {
                let (client, signed_at) = (self.client.clone(), self.signed_at);
                Answer::Refused(Box::pin(async move { client.refusal(operation, response, signed_at).await }))
            };
        }
        match &mut self.state {
            Answer::Refused(reading) => Err(reading.await),
            _ => Ok(()),
        }
    }

    async fn read_ack(&mut self) -> Result<Option<Ack>, Error> {
        let Answer::Acks { headers, body, start } = &mut self.state else { return Ok(None) };
        let (operation, endpoint) = (Operation::PutMedia, &self.endpoint);
        loop {
            let disguised = || answer::hidden_error(operation, endpoint, headers, start);
            match self.parser.next_ack() {
                Ok(Some(ack)) => return Ok(Some(ack)),
                Ok(None) => {}
                Err(source) => {
                    return Err(disguised().unwrap_or_else(|| Error::BadAck {
                        endpoint: endpoint.clone(),
                        request_id: self.request_id.clone(),
                        source,
                    }));
                }
            }
            let Some(frame) = body.frame().await else {
                if self.parser.is_at_border() {
                    return Ok(None);
                }
                let what = "the answer ends in the middle of an ack".to_owned();
                let request_id = self.request_id.clone();
                return Err(Error::BadResponse { operation, endpoint: endpoint.clone(), what, request_id });
            };
            let frame = frame.map_err(|source| Error::Interrupted {
                operation,
                endpoint: endpoint.clone(),
                request_id: self.request_id.clone(),
                source,
            })?;
            if let Some(bytes) = frame.data_ref() {
                self.parser.push(bytes);
                let room = MAX_DISGUISED_BYTES.saturating_sub(start.len()).min(bytes.len());
                start.extend_from_slice(&bytes[..room]);
            }
        }
    }

    /// Nothing more will come: the connection closes, so that a waiting sender hears of it too.
    fn end(&mut self) {
        self.state = Answer::Over;
        self.connection = None;
    }

    fn end_with(&mut self, error: Error) -> Error {
        self.end();
        self.client.learn(Operation::PutMedia, Some(&self.stream), &error);
        error
    }
}

impl std::fmt::Debug for PutMediaAcks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PutMediaAcks")
            .field("stream", &self.stream)
            .field("endpoint", &self.endpoint)
            .field("request_id", &self.request_id)
            .finish_non_exhaustive()
    }
}
