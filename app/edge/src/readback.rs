//! Reading single fragments back: which are listed, and are their bytes the ones we sent.

use std::sync::Arc;

use kvs::FragmentNumber;
use kvs::api::{
    Fragment, FragmentSelector, FragmentSelectorType, GetMediaForFragmentListInput, StreamId, TimestampRange,
    milliseconds, seconds,
};
use kvs::fragmenter::FragmentSummary;
use kvs::read::chunk::{Answer, Chunk, ChunkReader, Event};
use kvs_client::{Client, Error};

/// A read-back that could not be done or understood.
#[derive(Debug, thiserror::Error)]
pub enum ReadBackError {
    #[error(transparent)]
    Client(#[from] Error),
    #[error(transparent)]
    Chunk(#[from] kvs::read::chunk::ChunkError),
}

/// The rows of ListFragments whose producer time lies in `from_ms..=to_ms`.
pub async fn list(
    client: &Client,
    stream: &StreamId,
    from_ms: u64,
    to_ms: u64,
) -> Result<Vec<Fragment>, Error> {
    // The service compares in float seconds: a margin of 1 ms keeps both ends in.
    let timestamp_range = TimestampRange {
        start_timestamp: seconds(from_ms.saturating_sub(1)),
        end_timestamp: seconds(to_ms.saturating_add(1)),
    };
    let fragment_selector_type = FragmentSelectorType::ProducerTimestamp;
    let selector = FragmentSelector { fragment_selector_type, timestamp_range };
    client.list_all_fragments(stream, selector).await
}

/// Reads fragments back by number. In-band failure notices and cut chunks are left out: what is absent from the
/// answer was not read back.
pub async fn fetch(
    client: &Client,
    stream: &StreamId,
    numbers: Vec<FragmentNumber>,
) -> Result<Vec<Chunk>, ReadBackError> {
    let mut chunks = Vec::new();
    if numbers.is_empty() {
        return Ok(chunks);
    }
    let fragments = numbers.iter().map(FragmentNumber::to_string).collect();
    let input = GetMediaForFragmentListInput { stream: stream.clone(), fragments };
    let mut answer = client.get_media_for_fragment_list(&input).await?;
    answer.set_idle_limit(Some(std::time::Duration::from_secs(20)));
    let mut reader = ChunkReader::new(Answer::FragmentList);
    let mut keep = |event| match event {
        Event::End(chunk) => chunks.push(chunk),
        Event::Failure(failure) => tracing::warn!(error = %failure, "fragment could not be read back"),
        Event::Start(_) | Event::Block(_) => {}
    };
    while let Some(bytes) = answer.next_bytes().await? {
        reader.push(bytes);
        while let Some(event) = reader.next_event()? {
            keep(event);
        }
    }
    while let Some(event) = reader.finish(true)? {
        keep(event);
    }
    Ok(chunks)
}

/// Which of `summaries` the service has, byte for byte: (sequence, number).
pub async fn find_identical(
    client: &Client,
    stream: &StreamId,
    summaries: &[Arc<FragmentSummary>],
) -> Result<Vec<(u64, FragmentNumber)>, ReadBackError> {
    let times = || summaries.iter().map(|summary| summary.timecode.as_millis());
    let (Some(from_ms), Some(to_ms)) = (times().min(), times().max()) else { return Ok(Vec::new()) };
    let rows = list(client, stream, from_ms, to_ms).await?;
    let wanted = |row: &&Fragment| times().any(|ms| ms == milliseconds(row.producer_timestamp));
    let numbers = rows.iter().filter(wanted).filter_map(|row| row.fragment_number.parse().ok()).collect();
    let chunks = fetch(client, stream, numbers).await?;
    let same = |chunk: &Chunk| {
        let cluster = chunk.cluster.as_ref().filter(|_| chunk.complete)?;
        let summary = summaries.iter().find(|summary| summary.sums == cluster.sums)?;
        Some((summary.id.sequence, chunk.start.number?))
    };
    Ok(chunks.iter().filter_map(same).collect())
}
