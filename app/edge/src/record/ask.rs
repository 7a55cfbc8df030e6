//! Reads of one stream as `kvs::proof` asks for them: which fragments are listed, and the bytes of single ones.

use std::time::{Duration, Instant};

use clock::Clock;
use health::Reason;
use kvs::FragmentNumber;
use kvs::api::{
    Fragment, FragmentSelector, FragmentSelectorType, GetMediaForFragmentListInput, StreamId, TimestampRange,
    seconds,
};
use kvs::fragmenter::FragmentSummary;
use kvs::proof::fetches::Fetched;
use kvs::proof::listing::Span;
use kvs::proof::reconcile::{Reconcile, Reconciled, Step};
use kvs::read::chunk::{Answer, ChunkError, ChunkReader, Event};
use kvs::read::{ReadFailure, ReadFailureKind};
use kvs_client::{Action, Client, Error, ServiceErrorKind};

use super::failure::reason_of;

/// Longest silence within an answer.
const IDLE_LIMIT: Duration = Duration::from_secs(20);

/// The rows of ListFragments whose producer time lies in `span`, to the last page.
pub async fn list(client: &Client, stream: &StreamId, span: Span) -> Result<Vec<Fragment>, ReadFailure> {
    // The service compares in float seconds: a margin of 1 ms keeps both ends in.
    let timestamp_range = TimestampRange {
        start_timestamp: seconds(span.from_ms.saturating_sub(1)),
        end_timestamp: seconds(span.to_ms.saturating_add(1)),
    };
    let fragment_selector_type = FragmentSelectorType::ProducerTimestamp;
    let selector = FragmentSelector { fragment_selector_type, timestamp_range };
    client.list_all_fragments(stream, selector).await.map_err(|error| failure_of_read(&error, client, stream))
}

/// Reads fragments back by number. What was read before a failure is kept.
pub async fn fetch(client: &Client, stream: &StreamId, numbers: &[FragmentNumber]) -> Fetched {
    let mut fetched = Fetched::default();
    let failure = fetch_into(client, stream, numbers, &mut fetched).await.err();
    Fetched { failure, ..fetched }
}

async fn fetch_into(
    client: &Client,
    stream: &StreamId,
    numbers: &[FragmentNumber],
    fetched: &mut Fetched,
) -> Result<(), ReadFailure> {
    let fragments = numbers.iter().map(FragmentNumber::to_string).collect();
    let input = GetMediaForFragmentListInput { stream: stream.clone(), fragments };
    let failed = |error: Error| failure_of_read(&error, client, stream);
    let mut answer = client.get_media_for_fragment_list(&input).await.map_err(failed)?;
    answer.set_idle_limit(Some(IDLE_LIMIT));
    let mut reader = ChunkReader::new(Answer::FragmentList);
    let mut keep = |event| match event {
        Event::End(chunk) => fetched.chunks.push(chunk),
        Event::Failure(failure) => {
            tracing::debug!(error = %failure, "fragment could not be read back");
            fetched.notices.push(failure);
        }
        Event::Start(_) | Event::Block(_) => {}
    };
    while let Some(bytes) = answer.next_bytes().await.map_err(failed)? {
        reader.push(bytes);
        while let Some(event) = reader.next_event().map_err(unreadable)? {
            keep(event);
        }
    }
    while let Some(event) = reader.finish(true).map_err(unreadable)? {
        keep(event);
    }
    Ok(())
}

/// Which of these fragments KVS has, byte for byte; see [`Reconcile`]. `settled_at`: when a list lags no more.
pub async fn reconcile(
    client: &Client,
    stream: &StreamId,
    clock: &Clock,
    fragments: Vec<(FragmentSummary, Option<FragmentNumber>)>,
    settled_at: Instant,
) -> Reconciled {
    let mut reconcile = Reconcile::new(fragments, settled_at, clock.now());
    loop {
        match reconcile.next_step(clock.now()) {
            Step::Fetch(numbers) => reconcile.fetched(&fetch(client, stream, &numbers).await),
            Step::List(span) => reconcile.listed(list(client, stream, span).await),
            Step::Wait(until) => clock.sleep_until(until).await,
            Step::Done => return reconcile.finish(),
        }
    }
}

/// What an error of the client means for whoever reads.
pub fn failure_of_read(error: &Error, client: &Client, stream: &StreamId) -> ReadFailure {
    use ServiceErrorKind as Kind;
    let kind = match error.service_kind() {
        Some(Kind::InvalidArgument) => ReadFailureKind::Refused,
        Some(Kind::ConnectionLimitExceeded) => ReadFailureKind::TooManyReaders,
        _ => match error.action() {
            Action::Stop => ReadFailureKind::Operator,
            Action::RetrySlower => ReadFailureKind::Slower,
            _ => ReadFailureKind::Soon,
        },
    };
    let reason = match reason_of(error) {
        Reason::UploadFailed => Reason::VerifyFailed,
        reason => reason,
    };
    let failure = ReadFailure::new(reason, health::chain(error), kind);
    error.advice(client, Some(stream)).into_iter().fold(failure, ReadFailure::fix)
}

/// What came is no answer of KVS.
pub fn unreadable(error: ChunkError) -> ReadFailure {
    ReadFailure::new(Reason::VerifyFailed, health::chain(&error), ReadFailureKind::Unreadable)
}
