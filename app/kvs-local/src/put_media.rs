//! PutMedia: one producer's session, from its headers to its last ack.
//!
//! ```text
//!  body -> ingest -> live fragment -> persist (one at a time, beside the reading) -> acks -> answer
//! ```
//! The answer begins before any media. After an ERROR ack the connection closes. A fragment that is not
//! complete when the connection ends is lost.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Response};
use kvs::FragmentNumber;
use kvs::ack::{Ack, AckError, AckEvent};
use kvs::api::{StreamId, header, path};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;

use crate::control::admit;
use crate::dates;
use crate::errors::ServiceError;
use crate::faults::{AckKind, At};
use crate::ingest::{Ingest, Opened, Refused, Shape, Step};
use crate::inspect::SentAck;
use crate::live::{Live, LiveEnd};
use crate::server::{Body, BrokenOff, Connection};
use crate::service::Service;
use crate::store::StoreError;
use crate::stream::Stream;

/// Acks that wait because the producer does not read them; when full, its body is not read on either.
const ACK_QUEUE: usize = 256;
/// See [`linger`].
const LINGER: Duration = Duration::from_secs(1);
/// 9999-12-31T23:59:59.999Z, the last date that the service's JSON and its clients agree on.
const LATEST_PRODUCER_MS: u64 = 253_402_300_799_999;

/// A session that may begin.
pub(crate) struct Opening {
    start: Start,
    stream: Arc<Stream>,
    slot: OwnedSemaphorePermit,
    sequences: std::ops::Range<u64>,
}

/// Whether these headers, for whose signature somebody else answers, open a session.
pub(crate) async fn open(service: &Service, headers: &HeaderMap) -> Result<Opening, ServiceError> {
    let start = Start::read(headers)?;
    let stream = service.active_stream(&start.stream)?;
    admit(service, path::PUT_MEDIA, &stream.name)?;
    let slot = stream.put_media.take(service.options.limits.connection_grace).await.ok_or_else(|| {
        let message =
            format!("Stream {} has {} PutMedia connection(s).", stream.name, stream.put_media.open());
        ServiceError::connection_limit(message)
    })?;
    let sequences = stream.reserve_sequences().await?;
    Ok(Opening { start, stream, slot, sequences })
}

pub(crate) async fn begin(
    service: &Arc<Service>,
    opening: Opening,
    mut body: Incoming,
    connection: Connection,
) -> Response<Body> {
    let Opening { start, stream, slot, sequences } = opening;
    // Asking for the body makes hyper answer `Expect: 100-continue`; it must do so before it sees the answer.
    let first = poll_fn(|context| match Pin::new(&mut body).poll_frame(context) {
        Poll::Ready(frame) => Poll::Ready(Some(frame)),
        Poll::Pending => Poll::Ready(None),
    })
    .await;
    tokio::task::yield_now().await;

    let (out, answer) = mpsc::channel(8);
    let (acks, queue) = mpsc::channel(ACK_QUEUE);
    let number = stream.put_media.ever();
    let writer = AckWriter { service: service.clone(), stream: stream.clone(), session: number, out };
    let writer = service.tasks.spawn(writer.run(queue));
    let now = service.now();
    stream.touch();
    let limits = &service.options.limits;
    let session = Session {
        ingest: Ingest::new(limits.clone()),
        service: service.clone(),
        stream,
        start,
        sequences,
        acks,
        live: None,
        pending: None,
        due_error: None,
        received: 0,
        ends_at: now + limits.put_media_age,
        last_byte: now,
        read_at: now,
        idle_acks: 0,
    };
    tracing::info!(stream = %session.stream.name, session = number, "PutMedia begins");
    service.tasks.spawn(session.run(body, first, connection, slot, writer));

    let mut response = Response::new(Body::Channel(answer));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Listens for a little while to a producer that was refused and may not know it yet: a socket closed on its
/// bytes is reset, and takes the refusal along.
pub(crate) async fn linger(mut body: Incoming) {
    let drain = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = tokio::time::timeout(LINGER, drain).await;
}

/// What the request's headers say.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Start {
    stream: StreamId,
    /// Added to timecodes; `None` for ABSOLUTE.
    offset_ms: Option<u64>,
}

impl Start {
    fn read(headers: &HeaderMap) -> Result<Self, ServiceError> {
        let text = |name: &str| match headers.get(name) {
            None => Ok(None),
            Some(value) => match value.to_str() {
                Ok(text) => Ok(Some(text.trim().to_owned())),
                Err(_) => Err(ServiceError::invalid_argument(format!("Header {name} is not plain ASCII."))),
            },
        };
        let stream =
            StreamId { stream_name: text(header::STREAM_NAME)?, stream_arn: text(header::STREAM_ARN)? };
        let timestamp = text(header::PRODUCER_START_TIMESTAMP)?;
        // The C SDKs write seconds, the Java SDK a date.
        let read = |text: &str| kvs::tag::parse_seconds(text).or_else(|| dates::parse_extended(text));
        let start_ms = timestamp.as_deref().and_then(read).ok_or_else(|| {
            let name = header::PRODUCER_START_TIMESTAMP;
            ServiceError::invalid_argument(format!(
                "Header {name} must be epoch seconds or YYYY-MM-DDTHH:MM:SS.mmmZ, found {timestamp:?}."
            ))
        })?;
        let offset_ms = match text(header::FRAGMENT_TIMECODE_TYPE)?.as_deref() {
            Some("ABSOLUTE") => None,
            Some("RELATIVE") => Some(start_ms),
            found => {
                let name = header::FRAGMENT_TIMECODE_TYPE;
                let message = format!("Header {name} must be ABSOLUTE or RELATIVE, found {found:?}.");
                return Err(ServiceError::invalid_argument(message));
            }
        };
        Ok(Self { stream, offset_ms })
    }

    fn producer_ms(&self, timecode_ms: u64) -> Result<u64, Refused> {
        self.offset_ms
            .unwrap_or(0)
            .checked_add(timecode_ms)
            .filter(|ms| *ms <= LATEST_PRODUCER_MS)
            .ok_or_else(|| Refused::new(4007, format!("timecode {timecode_ms} ms is beyond the year 9999")))
    }
}

/// Which fragment an ack is about.
#[derive(Clone, Copy, Debug)]
struct About {
    timecode: u64,
    number: FragmentNumber,
}

/// Why a session is over.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("body ended")]
    Finished,
    /// An ERROR ack says so; about the open fragment, or about this one.
    #[error("refused: {0}")]
    Refused(Refused, Option<About>),
    /// The connection broke, or was too quiet, or the server stops.
    #[error("{0}")]
    Quiet(&'static str),
    #[error("cut by a fault")]
    Cut,
}

impl From<Refused> for End {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused, None)
    }
}

/// A fragment on its way to the disk.
struct Pending {
    about: About,
    stored: JoinHandle<Result<bool, StoreError>>,
}

struct Session {
    service: Arc<Service>,
    stream: Arc<Stream>,
    start: Start,
    sequences: std::ops::Range<u64>,
    ingest: Ingest,
    acks: mpsc::Sender<(Ack, Option<String>)>,
    live: Option<Arc<Live>>,
    pending: Option<Pending>,
    /// A fault for the open fragment.
    due_error: Option<(u32, At)>,
    received: u64,
    ends_at: Instant,
    last_byte: Instant,
    /// Nothing is read before; later than `last_byte` while the producer is too fast.
    read_at: Instant,
    idle_acks: u32,
}

type Arrived = Option<Result<Frame<Bytes>, hyper::Error>>;

impl Session {
    async fn run(
        mut self,
        mut body: Incoming,
        first: Option<Arrived>,
        connection: Connection,
        slot: OwnedSemaphorePermit,
        writer: JoinHandle<()>,
    ) {
        let mut end = self.receive(&mut body, first).await;
        let open = self.live.take();
        let about = open.as_deref().map(|live| About { timecode: live.timecode, number: live.number });
        if let Some(live) = open {
            live.end(LiveEnd::Dropped);
            self.stream.forget(live.number);
        }
        if let Err(failed) = self.settle().await
            && !matches!(end, End::Refused(..))
        {
            end = failed;
        }
        tracing::info!(stream = %self.stream.name, received = self.received, reason = %end, "PutMedia ends");
        if let End::Refused(refused, which) = &end {
            let error = AckEvent::Error(AckError::from_id(refused.id));
            let _ = self.send(error, which.or(about), Some(refused.reason.clone())).await;
        }
        if !matches!(end, End::Finished) {
            connection.close.cancel();
        }
        // A producer that saw the end of the answer may connect again at once.
        drop(slot);
        drop(self);
        if matches!(end, End::Cut) {
            connection.abort.cancel();
            return;
        }
        let _ = writer.await;
        linger(body).await;
    }

    async fn receive(&mut self, body: &mut Incoming, mut first: Option<Arrived>) -> End {
        loop {
            let frame = match first.take() {
                Some(frame) => frame,
                None => match self.wait(body).await {
                    Ok(Some(frame)) => frame,
                    Ok(None) => continue,
                    Err(end) => return end,
                },
            };
            let result = match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.take(data).await,
                    Err(_trailers) => Ok(()),
                },
                Some(Err(error)) => {
                    tracing::debug!(stream = %self.stream.name, %error, "PutMedia body broke off");
                    return End::Quiet("connection lost");
                }
                None => match self.advance(Ingest::finish).await {
                    Ok(()) => return End::Finished,
                    Err(end) => Err(end),
                },
            };
            if let Err(end) = result {
                return end;
            }
        }
    }

    /// The next piece of the body; `None` after something else was dealt with.
    async fn wait(&mut self, body: &mut Incoming) -> Result<Option<Arrived>, End> {
        let limits = &self.service.options.limits;
        let quiet_since = self.last_byte.max(self.read_at);
        let close_at = quiet_since + limits.put_media_idle_close;
        let idle_at = quiet_since + limits.put_media_idle_ack * (self.idle_acks + 1);
        let frame = async {
            tokio::time::sleep_until(self.read_at.into()).await;
            body.frame().await
        };
        tokio::select! {
            biased;
            () = self.stream.deleted.cancelled() => Err(Refused::new(4008, "the stream was deleted").into()),
            () = self.service.stopping.cancelled() => Err(End::Quiet("server stops")),
            () = tokio::time::sleep_until(self.ends_at.into()) => {
                Err(Refused::new(4003, format!("older than {:?}", limits.put_media_age)).into())
            }
            stored = stored(&mut self.pending) => self.stored(stored).await.map(|()| None),
            frame = frame => Ok(Some(frame)),
            () = tokio::time::sleep_until(close_at.into()) => Err(End::Quiet("idle for too long")),
            () = tokio::time::sleep_until(idle_at.into()) => {
                self.idle_acks += 1;
                self.send(AckEvent::Idle, None, None).await?;
                Ok(None)
            }
        }
    }

    async fn take(&mut self, mut data: Bytes) -> Result<(), End> {
        let now = self.service.now();
        self.last_byte = now;
        let wait = self.stream.rates.put_media_bytes.book(data.len() as u64, now);
        self.read_at = self.read_at.max(now + wait);
        self.idle_acks = 0;
        self.stream.touch();
        let before = self.received;
        self.received += data.len() as u64;
        let faults = self.service.faults.clone();
        let cut_after = faults.put_media_cut(&self.stream.name, self.received);
        if let Some(after) = cut_after {
            data.truncate(usize::try_from(after.saturating_sub(before)).unwrap_or(usize::MAX));
        }
        self.ingest.push(data);
        self.advance(Ingest::next).await?;
        if cut_after.is_some() {
            return Err(End::Cut);
        }
        if let Some(pause_ms) = faults.read_pause_ms(&self.stream.name) {
            let pause = tokio::time::sleep(Duration::from_millis(pause_ms));
            self.service.stopping.run_until_cancelled(pause).await;
        }
        Ok(())
    }

    async fn advance(
        &mut self,
        mut next: impl FnMut(&mut Ingest) -> Result<Option<Step>, Refused>,
    ) -> Result<(), End> {
        while let Some(step) = next(&mut self.ingest)? {
            match step {
                Step::Open(opened) => self.open(opened).await?,
                Step::Data(piece) => {
                    if let Some(live) = &self.live {
                        live.push(piece);
                    }
                }
                Step::Close(shape) => self.close(shape).await?,
            }
        }
        Ok(())
    }

    async fn open(&mut self, opened: Opened) -> Result<(), End> {
        let Opened { timecode, timecode_ms, header, lead } = opened;
        let producer_ms = self.start.producer_ms(timecode_ms)?;
        let sequence = match self.sequences.next() {
            Some(sequence) => sequence,
            None => {
                self.sequences = self.stream.reserve_sequences().await.map_err(internal)?;
                self.sequences.next().ok_or_else(|| Refused::new(5000, "no sequence numbers left"))?
            }
        };
        let now = self.service.now();
        let wait = self.stream.rates.put_media_fragments.book(1, now);
        self.read_at = self.read_at.max(now + wait);
        let now_ms = self.service.now_ms();
        let number = self.stream.fragment_number(sequence, now_ms);
        let live = Arc::new(Live::new(number, producer_ms, timecode, header, lead));
        self.live = Some(live.clone());
        self.stream.begin(live);
        self.send(AckEvent::Buffering, Some(About { timecode, number }), None).await?;
        self.due_error = self.service.faults.fragment_error(&self.stream.name);
        if let Some(ahead) = self.service.options.refuse_ahead
            && Duration::from_millis(producer_ms.saturating_sub(now_ms)) > ahead
        {
            let ahead_ms = producer_ms - now_ms;
            let reason = format!("a producer time {ahead_ms} ms ahead of the service, at most {ahead:?}");
            return Err(Refused::new(4007, reason).into());
        }
        self.fail_if_due(At::Start)
    }

    async fn close(&mut self, shape: Shape) -> Result<(), End> {
        self.fail_if_due(At::End)?;
        // At most one fragment is on its way to the disk.
        self.settle().await?;
        let Some(live) = self.live.take() else { return Ok(()) };
        let about = About { timecode: live.timecode, number: live.number };
        live.end(LiveEnd::Complete(shape));
        self.send(AckEvent::Received, Some(about), None).await?;
        if let Err(End::Refused(refused, _)) = self.fail_if_due(At::Persist) {
            self.stream.forget(live.number);
            return Err(End::Refused(refused, Some(about)));
        }
        if self.stream.retention_hours() == 0 {
            self.stream.keep(&live, shape, &self.service.options.limits, self.service.now_ms());
            return Ok(());
        }
        let stream = self.stream.clone();
        let stored = self.service.tasks.spawn(async move { stream.persist(&live, shape).await });
        self.pending = Some(Pending { about, stored });
        Ok(())
    }

    fn fail_if_due(&mut self, place: At) -> Result<(), End> {
        match self.due_error.take_if(|(_, at)| *at == place) {
            None => Ok(()),
            Some((id, _)) => Err(Refused::new(id, "injected fault").into()),
        }
    }

    /// Waits for the fragment that is on its way to the disk.
    async fn settle(&mut self) -> Result<(), End> {
        if self.pending.is_none() {
            return Ok(());
        }
        let result = stored(&mut self.pending).await;
        self.stored(result).await
    }

    async fn stored(&mut self, (about, result): (About, Result<bool, StoreError>)) -> Result<(), End> {
        let refused = match result {
            Ok(true) => return self.send(AckEvent::Persisted, Some(about), None).await,
            Ok(false) => Refused::new(4008, "the stream was deleted"),
            Err(error) => {
                tracing::warn!(stream = %self.stream.name, %error, full = error.is_full(), "fragment not stored");
                Refused::new(5001, error.to_string())
            }
        };
        Err(End::Refused(refused, Some(about)))
    }

    async fn send(
        &mut self,
        event: AckEvent,
        about: Option<About>,
        reason: Option<String>,
    ) -> Result<(), End> {
        let ack = Ack {
            event,
            timecode_ms: about.and_then(|about| i64::try_from(about.timecode).ok()),
            number: about.map(|about| about.number),
        };
        self.acks.send((ack, reason)).await.map_err(|_| End::Quiet("connection lost"))
    }
}

/// Never comes back without something pending.
async fn stored(pending: &mut Option<Pending>) -> (About, Result<bool, StoreError>) {
    let Some(waiting) = pending else { return std::future::pending().await };
    let result = (&mut waiting.stored).await;
    let about = waiting.about;
    *pending = None;
    match result {
        Ok(result) => (about, result),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn internal(error: StoreError) -> Refused {
    tracing::error!(%error, "store failed");
    Refused::new(5000, error.to_string())
}

/// Passes acks on, in order, and does to them what faults ask for.
struct AckWriter {
    service: Arc<Service>,
    stream: Arc<Stream>,
    session: u64,
    out: mpsc::Sender<Result<Bytes, BrokenOff>>,
}

impl AckWriter {
    async fn run(self, mut queue: mpsc::Receiver<(Ack, Option<String>)>) {
        let faults = &self.service.faults;
        while let Some((ack, reason)) = queue.recv().await {
            let (stream, kind) = (&self.stream.name, kind(&ack.event));
            if let Some(delay_ms) = faults.ack_delay_ms(stream, kind) {
                let delay = tokio::time::sleep(Duration::from_millis(delay_ms));
                self.service.stopping.run_until_cancelled(delay).await;
            }
            if let Some(garbage) = faults.garbage(stream)
                && self.out.send(Ok(garbage.into())).await.is_err()
            {
                return;
            }
            if faults.drops_ack(stream, kind) {
                continue;
            }
            let times = if faults.duplicates_ack(stream, kind) { 2 } else { 1 };
            for _ in 0..times {
                self.stream.log_ack(self.sent(&ack, kind, reason.clone()));
                if self.out.send(Ok(ack.to_line().into())).await.is_err() {
                    return;
                }
            }
        }
    }

    fn sent(&self, ack: &Ack, kind: AckKind, reason: Option<String>) -> SentAck {
        let error_id = match &ack.event {
            AckEvent::Error(error) => Some(error.id),
            _ => None,
        };
        SentAck {
            session: self.session,
            at_ms: self.service.now_ms(),
            event: kind,
            timecode: ack.timecode_ms,
            number: ack.number.map(|number| number.to_string()),
            error_id,
            reason,
        }
    }
}

fn kind(event: &AckEvent) -> AckKind {
    match event {
        AckEvent::Buffering => AckKind::Buffering,
        AckEvent::Received => AckKind::Received,
        AckEvent::Persisted => AckKind::Persisted,
        AckEvent::Error(_) => AckKind::Error,
        AckEvent::Idle | AckEvent::Unknown(_) => AckKind::Idle,
    }
}
