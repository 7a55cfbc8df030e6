//! GetMedia and GetMediaForFragmentList: fragments as chunks.
//!
//! ```text
//! chunk = header | what came in front | KVS tags | cluster, and what came behind | closing KVS tags
//!         ------- as the producer sent it -------                                  (GetMedia only)
//! ```
//! One chunk is one Matroska document. A fragment that is still being received is passed on block by block;
//! older ones are read from the disk in pieces. An answer ends without a mark.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use kvs::FragmentNumber;
use kvs::api::{
    GetMediaForFragmentListInput, GetMediaInput, StartSelector, StartSelectorType, milliseconds, path,
};
use kvs::tag;
use media::mkv::write::{header, tags_fixed4};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

use crate::control::admit;
use crate::errors::ServiceError;
use crate::faults::ChunkFault;
use crate::fragment_reader::{self, payload_offset};
use crate::live::{Live, LiveEnd};
use crate::rate::Rate;
use crate::server::{Body, BrokenOff, Connection, parse};
use crate::service::Service;
use crate::stream::{Available, Place, Slots, Stored, Stream};

/// Pieces on their way to a reader; when full, nothing more is read for it.
const QUEUE: usize = 4;
/// Smaller pieces of a live cluster are no blocks.
const LEAST_BLOCK_BYTES: usize = 32;

pub(crate) async fn handle(
    service: &Arc<Service>,
    body: &[u8],
    connection: Connection,
) -> Result<Response<Body>, ServiceError> {
    let input: GetMediaInput = parse(body)?;
    let stream = service.active_stream(&input.stream)?;
    admit(service, path::GET_MEDIA, &stream.name)?;
    let start = Start::read(&input.start_selector)?;
    let slot = slot(service, &stream, &stream.get_media, "GetMedia").await?;
    stream.expire(&service.options.limits, service.now_ms()).await;
    let (mut answer, response) = Answer::new(service, stream, connection);
    let (limits, now) = (&service.options.limits, service.now());
    answer.bytes = Rate::new(limits.get_media_bytes_per_second, now);
    answer.fragments = Rate::new(limits.get_media_fragments_per_second, now);
    answer.cut_after = service.faults.get_media_cut(&answer.stream.name);
    service.tasks.spawn(async move {
        let end = answer.follow(start).await;
        answer.finish(end, slot).await;
    });
    Ok(response)
}

pub(crate) async fn handle_fragment_list(
    service: &Arc<Service>,
    body: &[u8],
    connection: Connection,
) -> Result<Response<Body>, ServiceError> {
    let input: GetMediaForFragmentListInput = parse(body)?;
    let stream = service.active_stream(&input.stream)?;
    admit(service, path::GET_MEDIA_FOR_FRAGMENT_LIST, &stream.name)?;
    if !(1..=1000).contains(&input.fragments.len()) {
        return Err(ServiceError::invalid_argument("Fragments must have 1 to 1000 numbers."));
    }
    let numbers = input.fragments.iter().map(|text| parse_number(text)).collect::<Result<Vec<_>, _>>()?;
    if !numbers.iter().all(|number| stream.has_given(*number)) {
        return Err(ServiceError::invalid_argument("Fragment numbers are invalid"));
    }
    if !stream.rates.media_points.take(numbers.len() as u64, service.now()) {
        return Err(ServiceError::client_limit(&format!(
            "fragment-media points of stream {}, {} wanted",
            stream.name,
            numbers.len()
        )));
    }
    let slot = slot(service, &stream, &stream.fragment_lists, "GetMediaForFragmentList").await?;
    stream.expire(&service.options.limits, service.now_ms()).await;
    let (mut answer, response) = Answer::new(service, stream, connection);
    answer.bytes = Rate::new(service.options.limits.fragment_list_bytes_per_second, service.now());
    service.tasks.spawn(async move {
        let end = answer.list(&numbers).await;
        answer.finish(end, slot).await;
    });
    Ok(response)
}

async fn slot(
    service: &Service,
    stream: &Stream,
    slots: &Slots,
    operation: &str,
) -> Result<OwnedSemaphorePermit, ServiceError> {
    slots.take(service.options.limits.connection_grace).await.ok_or_else(|| {
        let message = format!("Stream {} has {} {operation} connection(s).", stream.name, slots.open());
        ServiceError::connection_limit(message)
    })
}

fn parse_number(text: &str) -> Result<FragmentNumber, ServiceError> {
    text.parse().map_err(|error| ServiceError::invalid_argument(format!("Fragment number: {error}")))
}

/// Which fragment is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Latest,
    Earliest,
    After(FragmentNumber),
    /// Contains this time or is next at it.
    ServerMs(u64),
    ProducerMs(u64),
}

impl Start {
    fn read(selector: &StartSelector) -> Result<Self, ServiceError> {
        let missing = |name: &str| {
            let kind = selector.start_selector_type;
            ServiceError::invalid_argument(format!("StartSelectorType {kind:?} needs {name}."))
        };
        let time = || selector.start_timestamp.map(milliseconds).ok_or_else(|| missing("StartTimestamp"));
        Ok(match selector.start_selector_type {
            StartSelectorType::Now => Self::Latest,
            StartSelectorType::Earliest => Self::Earliest,
            StartSelectorType::FragmentNumber => {
                let number = selector.after_fragment_number.as_deref();
                Self::After(parse_number(number.ok_or_else(|| missing("AfterFragmentNumber"))?)?)
            }
            StartSelectorType::ContinuationToken => {
                let token = selector.continuation_token.as_deref();
                Self::After(parse_number(token.ok_or_else(|| missing("ContinuationToken"))?)?)
            }
            StartSelectorType::ServerTimestamp => Self::ServerMs(time()?),
            StartSelectorType::ProducerTimestamp => Self::ProducerMs(time()?),
        })
    }

    fn accepts(self, available: &Available) -> bool {
        // A live fragment has no end yet: it contains every time from its start on.
        let (number, producer_ms, length_ms) = match available {
            Available::Stored(stored) => (stored.meta.number, stored.meta.producer_ms, stored.meta.length_ms),
            Available::Live(live) => (live.number, live.producer_ms, u64::MAX),
        };
        match self {
            Self::ServerMs(at) => number.server_time_ms().saturating_add(length_ms) >= at,
            Self::ProducerMs(at) => producer_ms.saturating_add(length_ms) >= at,
            Self::Latest | Self::Earliest | Self::After(_) => true,
        }
    }
}

/// Why an answer is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Ends like a whole one.
    Silent,
    /// Breaks off.
    Broken,
    /// Nobody reads it any more.
    Gone,
}

struct Answer {
    service: Arc<Service>,
    stream: Arc<Stream>,
    connection: Connection,
    out: mpsc::Sender<Result<Bytes, BrokenOff>>,
    /// Fires when a test ends all answers.
    ended: CancellationToken,
    ends_at: Instant,
    sent: u64,
    cut_after: Option<u64>,
    bytes: Rate,
    fragments: Rate,
}

impl Answer {
    fn new(service: &Arc<Service>, stream: Arc<Stream>, connection: Connection) -> (Self, Response<Body>) {
        let (out, body) = mpsc::channel(QUEUE);
        let ends_at = service.now() + service.options.limits.get_media_age;
        let (service, ended) = (service.clone(), stream.get_media_end());
        let answer = Self {
            service,
            stream,
            connection,
            out,
            ended,
            ends_at,
            sent: 0,
            cut_after: None,
            bytes: Rate::unlimited(),
            fragments: Rate::unlimited(),
        };
        let mut response = Response::new(Body::Channel(body));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("video/webm"));
        (answer, response)
    }

    async fn finish(self, end: End, slot: OwnedSemaphorePermit) {
        tracing::info!(stream = %self.stream.name, sent = self.sent, ?end, "GetMedia ends");
        // A reader that saw the end may connect again at once.
        drop(slot);
        if end != End::Broken {
            return;
        }
        // What was sent before should arrive: wait until it has left the queue and gone out.
        while self.out.capacity() < QUEUE && !self.out.is_closed() {
            tokio::task::yield_now().await;
        }
        for _ in 0..16 {
            tokio::task::yield_now().await;
        }
        let _ = self.out.send(Err(BrokenOff)).await;
        self.connection.close.cancel();
    }

    /// Sends fragment after fragment, and waits for new ones while the producer is there.
    async fn follow(&mut self, start: Start) -> End {
        let mut after = match start {
            Start::After(number) => Some(number),
            _ => None,
        };
        let mut first = true;
        let mut quiet_since = self.service.now();
        loop {
            let mut changed = self.stream.subscribe();
            let next = match start {
                Start::Latest if first => self.stream.latest(|next| self.may_send(next)),
                _ => self
                    .stream
                    .next_available(after, |next| self.may_send(next) && (!first || start.accepts(next))),
            };
            let end = match next {
                Some(next) => {
                    (first, after) = (false, Some(next.number()));
                    let sent = self.chunk_with_faults(&next).await;
                    quiet_since = self.service.now();
                    sent
                }
                None => {
                    let since = quiet_since.max(self.stream.last_media());
                    let end_at = self.service.options.limits.get_media_idle_end.map(|idle| since + idle);
                    let wait = async {
                        match end_at {
                            Some(end_at) => {
                                tokio::time::timeout_at(end_at.into(), changed.changed()).await.is_ok()
                            }
                            None => changed.changed().await.is_ok(),
                        }
                    };
                    let changed = self.unless_over(wait).await;
                    match changed {
                        Ok(false) if self.stream.last_media() <= since => Err(End::Silent),
                        other => other.map(|_| ()),
                    }
                }
            };
            if let Err(end) = end {
                return end;
            }
        }
    }

    fn may_send(&self, available: &Available) -> bool {
        match available {
            Available::Stored(_) => true,
            Available::Live(live) => self.service.options.stream_while_receiving || live.is_complete(),
        }
    }

    async fn chunk_with_faults(&mut self, available: &Available) -> Result<(), End> {
        let fault = self.service.faults.chunk(&self.stream.name);
        let (times, corrupt) = match fault {
            None => (1, false),
            Some(ChunkFault::Skip) => (0, false),
            Some(ChunkFault::Duplicate) => (2, false),
            Some(ChunkFault::Corrupt) => (1, true),
            Some(ChunkFault::Fail(id)) => {
                let id = id.to_string();
                let notice = [(tag::ERROR_CODE, "Injected"), (tag::ERROR_ID, id.as_str())];
                self.send(header([0; 16], "kvs-local", &[])).await?;
                self.send(tags_fixed4(&notice)).await?;
                return Err(End::Silent);
            }
            Some(ChunkFault::Garbage) => {
                self.send(Bytes::from_static(&[0; 64])).await?;
                return Err(End::Silent);
            }
        };
        for _ in 0..times {
            self.pause(self.fragments.book(1, self.service.now())).await?;
            match available {
                Available::Live(live) => self.live_chunk(live, corrupt).await?,
                Available::Stored(stored) => {
                    // Removed by the retention just now: it is as if it had never been listed.
                    if let Err(error) = self.stored_chunk(stored, corrupt).await? {
                        tracing::info!(stream = %self.stream.name, %error, "fragment not readable, left out");
                        continue;
                    }
                }
            }
            self.closing_tags(available.number()).await?;
        }
        Ok(())
    }

    async fn live_chunk(&mut self, live: &Live, mut corrupt: bool) -> Result<(), End> {
        self.send(live.header.clone()).await?;
        self.send(live.lead.clone()).await?;
        self.opening_tags(live.number, live.producer_ms).await?;
        let mut position = 0;
        loop {
            let mut changed = live.subscribe();
            let (pieces, end) = live.after(position);
            position += pieces.len();
            for piece in pieces {
                let hit = corrupt && piece.len() >= LEAST_BLOCK_BYTES;
                corrupt &= !hit;
                let piece = if hit { flipped(&piece, piece.len() - 1) } else { piece };
                self.send(piece).await?;
            }
            match end {
                Some(LiveEnd::Complete(_)) => return Ok(()),
                // The rest will never come, and the reader could not tell where it stopped.
                Some(LiveEnd::Dropped) => return Err(End::Silent),
                None => {
                    self.unless_over(changed.changed()).await?.map_err(|_| End::Silent)?;
                }
            }
        }
    }

    /// The inner error: nothing was sent, the fragment cannot be read.
    async fn stored_chunk(&mut self, stored: &Stored, corrupt: bool) -> Result<std::io::Result<()>, End> {
        let (front, mut reader) = match fragment_reader::open(stored).await {
            Ok(opened) => opened,
            Err(error) => return Ok(Err(error)),
        };
        self.send(front.clone()).await?;
        self.opening_tags(stored.meta.number, stored.meta.producer_ms).await?;
        if corrupt {
            return self.corrupt_rest(stored, &front).await.map(Ok);
        }
        loop {
            match reader.next().await {
                Ok(Some(piece)) => self.send(piece).await?,
                Ok(None) => return Ok(Ok(())),
                Err(error) => {
                    let number = stored.meta.number;
                    tracing::warn!(stream = %self.stream.name, %number, %error, "fragment broke off");
                    return Err(End::Broken);
                }
            }
        }
    }

    async fn corrupt_rest(&mut self, stored: &Stored, front: &Bytes) -> Result<(), End> {
        let (_, cluster, trailer) = fragment_reader::whole(stored).await.map_err(|_| End::Broken)?;
        let at = payload_offset(&stored.meta, front, &cluster).unwrap_or(cluster.len() / 2);
        self.send(flipped(&cluster, at)).await?;
        self.send(trailer).await
    }

    async fn list(&mut self, numbers: &[FragmentNumber]) -> End {
        for number in numbers {
            let stored = self.stream.stored(*number).filter(|stored| matches!(stored.place, Place::Disk(_)));
            let result = match stored {
                Some(stored) => self.stored_chunk(&stored, false).await,
                None => Ok(Err(std::io::ErrorKind::NotFound.into())),
            };
            let sent = match result {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => self.failure_notice(*number).await,
                Err(end) => Err(end),
            };
            if let Err(end) = sent {
                return end;
            }
        }
        End::Silent
    }

    /// In place of a fragment that is not there: a document without tracks and media.
    async fn failure_notice(&mut self, number: FragmentNumber) -> Result<(), End> {
        self.send(header([0; 16], "kvs-local", &[])).await?;
        let number = number.to_string();
        let notice = [
            (tag::FRAGMENT_NUMBER, number.as_str()),
            (tag::EXCEPTION_ERROR_CODE, "4000"),
            (tag::EXCEPTION_MESSAGE, "Fragment not found"),
        ];
        self.send(tags_fixed4(&notice)).await
    }

    async fn opening_tags(&mut self, number: FragmentNumber, producer_ms: u64) -> Result<(), End> {
        let (server, producer) =
            (tag::format_seconds(number.server_time_ms()), tag::format_seconds(producer_ms));
        let number = number.to_string();
        let tags = [
            (tag::FRAGMENT_NUMBER, number.as_str()),
            (tag::SERVER_TIMESTAMP, server.as_str()),
            (tag::PRODUCER_TIMESTAMP, producer.as_str()),
        ];
        self.send(tags_fixed4(&tags)).await
    }

    async fn closing_tags(&mut self, number: FragmentNumber) -> Result<(), End> {
        let behind_ms = self.service.now_ms().saturating_sub(number.server_time_ms()).to_string();
        let number = number.to_string();
        let tags = [(tag::MILLIS_BEHIND_NOW, behind_ms.as_str()), (tag::CONTINUATION_TOKEN, number.as_str())];
        self.send(tags_fixed4(&tags)).await
    }

    async fn send(&mut self, mut bytes: Bytes) -> Result<(), End> {
        let sent = self.sent + bytes.len() as u64;
        let cut = self.cut_after.filter(|cut| sent >= *cut);
        if let Some(cut) = cut {
            bytes.truncate(usize::try_from(cut.saturating_sub(self.sent)).unwrap_or(usize::MAX));
        }
        self.sent += bytes.len() as u64;
        if !bytes.is_empty() {
            self.pause(self.bytes.book(bytes.len() as u64, self.service.now())).await?;
            self.unless_over(self.out.send(Ok(bytes))).await?.map_err(|_| End::Gone)?;
        }
        if cut.is_some() { Err(End::Broken) } else { Ok(()) }
    }

    async fn pause(&self, wait: Duration) -> Result<(), End> {
        if wait.is_zero() { Ok(()) } else { self.unless_over(tokio::time::sleep(wait)).await }
    }

    async fn unless_over<T>(&self, work: impl Future<Output = T>) -> Result<T, End> {
        tokio::select! {
            biased;
            () = self.out.closed() => Err(End::Gone),
            () = self.ended.cancelled() => Err(End::Silent),
            () = self.stream.deleted.cancelled() => Err(End::Silent),
            () = self.service.stopping.cancelled() => Err(End::Silent),
            () = tokio::time::sleep_until(self.ends_at.into()) => Err(End::Silent),
            value = work => Ok(value),
        }
    }
}

fn flipped(bytes: &Bytes, at: usize) -> Bytes {
    let mut bytes = BytesMut::from(&bytes[..]);
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 0xff;
    }
    bytes.freeze()
}
