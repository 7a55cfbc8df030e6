//! GetClip: a range of time as one MP4.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hyper::Response;
use kvs::api::{GetClipInput, milliseconds, path};
use media::mp4::write::{init_segment, media_segment};

use crate::control::admit;
use crate::errors::ServiceError;
use crate::footage::{Footage, Player};
use crate::playback::{LONGEST_RANGE_MS, Range};
use crate::player::answer;
use crate::server::{Body, parse};
use crate::service::Service;
use crate::session::{in_order, keeps_data, no_fragments};

/// Of media, or so many fragments, whichever is less; what is beyond is left out (API page).
const MOST_BYTES: usize = 100_000_000;
const MOST_FRAGMENTS: usize = 200;

pub(crate) async fn get_clip(service: &Arc<Service>, body: &[u8]) -> Result<Response<Body>, ServiceError> {
    let input: GetClipInput = parse(body)?;
    let stream = service.active_stream(&input.stream)?;
    admit(service, path::GET_CLIP, &stream.name)?;
    let selector = &input.clip_fragment_selector;
    let (from, to) = (
        milliseconds(selector.timestamp_range.start_timestamp),
        milliseconds(selector.timestamp_range.end_timestamp),
    );
    if to < from || to - from > LONGEST_RANGE_MS {
        let message = "EndTimestamp must be at most 24 hours after StartTimestamp.";
        return Err(ServiceError::invalid_argument(message));
    }
    keeps_data(&stream)?;
    stream.expire(&service.options.limits, service.now_ms()).await;
    let range = Range { by: selector.fragment_selector_type, from_ms: Some(from), to_ms: Some(to) };
    let mut fragments = in_order(&stream, service, range, service.now());
    fragments.truncate(MOST_FRAGMENTS);
    if fragments.is_empty() {
        return Err(no_fragments());
    }
    if !stream.rates.media_points.take(fragments.len() as u64, service.now()) {
        return Err(ServiceError::client_limit(&format!("fragment-media points of stream {}", stream.name)));
    }
    let (mut clip, mut first) = (BytesMut::new(), None);
    for (sequence, stored) in (1..).zip(&fragments) {
        let footage = Footage::read(stored, Player::Other).await?;
        let tracks = footage.tracks().clone();
        if *first.get_or_insert_with(|| tracks.clone()) != tracks {
            let message = "The codec private data changed inside the clip.";
            return Err(ServiceError::operation("InvalidCodecPrivateDataException", 400, message));
        }
        let init = if clip.is_empty() { init_segment(&tracks.numbered()) } else { Bytes::new() };
        let media = media_segment(sequence, &footage.runs(|_| true)?);
        let bytes = clip.len() + media.iter().map(Bytes::len).sum::<usize>();
        if bytes > MOST_BYTES && !clip.is_empty() {
            break;
        }
        clip.extend_from_slice(&init);
        media.iter().for_each(|part| clip.extend_from_slice(part));
    }
    Ok(answer("video/mp4", clip.freeze()))
}
