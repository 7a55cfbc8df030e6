//! ListFragments.

use std::sync::Arc;

use hyper::Response;
use kvs::FragmentNumber;
use kvs::api::{
    Fragment, FragmentSelector, FragmentSelectorType, ListFragmentsInput, ListFragmentsOutput, milliseconds,
    path, seconds,
};
use sha2::{Digest, Sha256};

use crate::control::admit;
use crate::errors::ServiceError;
use crate::server::{Body, json, parse};
use crate::service::Service;
use crate::session::keeps_data;
use crate::store::FragmentMeta;
use crate::stream::Place;

const MAX_RESULTS: u32 = 1000;
/// The service's default is not documented.
const DEFAULT_RESULTS: u32 = 100;

pub(crate) async fn list_fragments(
    service: &Arc<Service>,
    body: &[u8],
) -> Result<Response<Body>, ServiceError> {
    let input: ListFragmentsInput = parse(body)?;
    let stream = service.active_stream(&input.stream)?;
    admit(service, path::LIST_FRAGMENTS, &stream.name)?;
    let max_results = input.max_results.unwrap_or(DEFAULT_RESULTS);
    if !(1..=MAX_RESULTS).contains(&max_results) {
        return Err(ServiceError::invalid_argument("MaxResults must be from 1 to 1000."));
    }
    keeps_data(&stream)?;
    if !stream.rates.metadata_points.take(max_results.into(), service.now()) {
        return Err(ServiceError::client_limit(&format!(
            "fragment-metadata points of stream {}, {max_results} wanted",
            stream.name
        )));
    }
    let selector = input.fragment_selector.as_ref().map(Selector::read).transpose()?;
    let after = input.next_token.as_deref().map(parse_token).transpose()?;
    let (now, now_ms) = (service.now(), service.now_ms());
    let kept_ms = u64::from(stream.retention_hours()) * 3_600_000;
    if let Some(selector) = &selector
        && selector.kind == FragmentSelectorType::ServerTimestamp
        && selector.to_ms < now_ms.saturating_sub(kept_ms)
    {
        // Producer times may be anything, there the answer is an empty list.
        let message = "EndTimestamp lies before the retention of the stream.";
        return Err(ServiceError::invalid_argument(message));
    }
    stream.expire(&service.options.limits, now_ms).await;

    // The service gives no order, not even across pages. Ours is one that nobody can take for an order, and
    // that stays the same when fragments come and go between two pages.
    let mut found: Vec<_> = stream
        .all_stored()
        .into_iter()
        .filter(|stored| matches!(stored.place, Place::Disk(_)))
        .filter(|stored| stored.since.is_none_or(|since| now >= since + service.options.list_lag))
        .filter(|stored| selector.as_ref().is_none_or(|selector| selector.accepts(&stored.meta)))
        .map(|stored| (scattered(stored.meta.number), stored))
        .filter(|(key, _)| after.is_none_or(|after| *key > after))
        .collect();
    found.sort_unstable_by_key(|(key, _)| *key);
    let more = found.len() > max_results as usize;
    found.truncate(max_results as usize);
    let next_token = found
        .last()
        .filter(|_| more)
        .map(|((hash, _), stored)| format!("{hash:016x}.{}", stored.meta.number));
    let fragments = found.iter().map(|(_, stored)| row(&stored.meta)).collect();
    json(&ListFragmentsOutput { fragments, next_token })
}

/// Inclusive bounds on a fragment's start.
struct Selector {
    kind: FragmentSelectorType,
    from_ms: u64,
    to_ms: u64,
}

impl Selector {
    fn read(selector: &FragmentSelector) -> Result<Self, ServiceError> {
        let range = &selector.timestamp_range;
        let (from_ms, to_ms) = (milliseconds(range.start_timestamp), milliseconds(range.end_timestamp));
        if from_ms > to_ms {
            return Err(ServiceError::invalid_argument("StartTimestamp is after EndTimestamp."));
        }
        Ok(Self { kind: selector.fragment_selector_type, from_ms, to_ms })
    }

    fn accepts(&self, meta: &FragmentMeta) -> bool {
        let start_ms = match self.kind {
            FragmentSelectorType::ProducerTimestamp => meta.producer_ms,
            FragmentSelectorType::ServerTimestamp => meta.server_ms(),
        };
        (self.from_ms..=self.to_ms).contains(&start_ms)
    }
}

fn scattered(number: FragmentNumber) -> (u64, FragmentNumber) {
    let hash = Sha256::digest(number.to_string());
    (hash.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte)), number)
}

fn parse_token(token: &str) -> Result<(u64, FragmentNumber), ServiceError> {
    token
        .split_once('.')
        .and_then(|(hash, number)| Some((u64::from_str_radix(hash, 16).ok()?, number.parse().ok()?)))
        .ok_or_else(|| ServiceError::invalid_argument("NextToken is not one of ours."))
}

fn row(meta: &FragmentMeta) -> Fragment {
    Fragment {
        fragment_number: meta.number.to_string(),
        fragment_size_in_bytes: meta.size_bytes(),
        producer_timestamp: seconds(meta.producer_ms),
        server_timestamp: seconds(meta.server_ms()),
        fragment_length_in_milliseconds: meta.length_ms,
    }
}
