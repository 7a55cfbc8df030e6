//! GetImages: pictures of given times, as JPEG or PNG.
//!
//! ```text
//! times -> the fragment that is shown at each -> film: the pictures to decode -> develop: GStreamer, JPEG or PNG -> answer
//! ```
//!
//! A time's picture is the one that is shown then: the last at or before it in a fragment that has begun and not ended. By
//! server time a fragment begins when it was received.
//!
//! Ours, because the pages do not say: both ends of the range count; pictures are 3 s apart where the request says nothing
//! (the shortest interval that the page once had); a picture that is too large for an answer is a MEDIA_ERROR. Where the pages
//! contradict each other: a width alone is refused, a height alone keeps the shape. The two refusals by other names than
//! InvalidArgumentException are named as on the page, and are not in the public model.

mod develop;
mod film;

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::Response;
use kvs::api::{
    DEFAULT_JPEG_QUALITY, GetImagesInput, GetImagesOutput, IMAGE_CONTENT_BYTES, IMAGE_HEIGHT, IMAGE_WIDTH,
    IMAGES_PER_ANSWER, IMAGES_RANGE_SECONDS, IMAGES_RESULTS, Image, ImageError, ImageFormat, JPEG_QUALITY,
    LEAST_SAMPLING_INTERVAL_MS, milliseconds, path, seconds,
};

use crate::control::admit;
use crate::errors::ServiceError;
use crate::footage::{Footage, FootageError, Player};
use crate::playback::Range;
use crate::server::{Body, json, parse};
use crate::service::Service;
use crate::session::{in_order, keeps_data};
use crate::stream::Stored;
use develop::{Develop, Form, Size};
use film::Film;

const DEFAULT_SAMPLING_INTERVAL_MS: u64 = 3_000;
/// Fragment-metadata points of a call, besides one for each picture (limits page).
const METADATA_POINTS: u64 = 400;
/// What Base64 makes of three bytes.
const BASE64_OF_THREE: usize = 4;

pub(crate) async fn get_images(service: &Arc<Service>, body: &[u8]) -> Result<Response<Body>, ServiceError> {
    let input: GetImagesInput = parse(body)?;
    let stream = service.active_stream(&input.stream)?;
    admit(service, path::GET_IMAGES, &stream.name)?;
    let page = Page::read(&input)?;
    let form = form(&input)?;
    keeps_data(&stream)?;
    if !stream.rates.metadata_points.take(METADATA_POINTS + page.times_ms.len() as u64, service.now()) {
        return Err(ServiceError::client_limit(&format!(
            "fragment-metadata points of stream {}",
            stream.name
        )));
    }
    stream.expire(&service.options.limits, service.now_ms()).await;
    let by = input.image_selector_type;
    let to_ms = page.times_ms.last().copied();
    let range = Range { by, from_ms: None, to_ms };
    let fragments = in_order(&stream, service, range, service.now());
    let mut wanted: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    let mut found: BTreeMap<u64, Result<Vec<u8>, ImageError>> = BTreeMap::new();
    for at_ms in &page.times_ms {
        match fragments.partition_point(|stored| range.start_ms(&stored.meta) <= *at_ms).checked_sub(1) {
            Some(index) => wanted.entry(index).or_default().push(*at_ms),
            None => drop(found.insert(*at_ms, Err(ImageError::NoMedia))),
        }
    }
    for (index, times_ms) in wanted {
        let stored = &fragments[index];
        found.extend(of_fragment(service, stored, range.start_ms(&stored.meta), &times_ms, form).await?);
    }
    let images = page.times_ms.iter().map(|at_ms| {
        let result = found.remove(at_ms).unwrap_or(Err(ImageError::NoMedia));
        let too_large = |file: &Vec<u8>| file.len().div_ceil(3) * BASE64_OF_THREE > IMAGE_CONTENT_BYTES;
        let (error, image_content) = match result {
            Ok(file) if too_large(&file) => (Some(ImageError::MediaError), None),
            Ok(file) => (None, Some(file)),
            Err(error) => (Some(error), None),
        };
        Image { time_stamp: seconds(*at_ms), error, image_content }
    });
    json(&GetImagesOutput { images: images.collect(), next_token: page.next_token })
}

/// The pictures of these times in one fragment, which begins at or before each and may have ended.
async fn of_fragment(
    service: &Service,
    stored: &Stored,
    start_ms: u64,
    times_ms: &[u64],
    form: Form,
) -> Result<Vec<(u64, Result<Vec<u8>, ImageError>)>, ServiceError> {
    let footage = match Footage::read(stored, Player::Other).await {
        Ok(footage) => footage,
        Err(error) => {
            // What cannot be played has a length all the same: behind it there is no footage. Nor is there any where the
            // fragment was removed meanwhile.
            let removed = matches!(error, FootageError::Io(_));
            let error = |at_ms: u64| match removed || at_ms > start_ms + stored.meta.length_ms {
                true => ImageError::NoMedia,
                false => ImageError::MediaError,
            };
            return Ok(times_ms.iter().map(|at_ms| (*at_ms, Err(error(*at_ms)))).collect());
        }
    };
    let ends_ms = start_ms + footage.duration_ms();
    let (within, behind): (Vec<u64>, Vec<u64>) = times_ms.iter().partition(|at_ms| **at_ms < ends_ms);
    let mut found: Vec<_> = behind.into_iter().map(|at_ms| (at_ms, Err(ImageError::NoMedia))).collect();
    let offsets: Vec<u64> = within.iter().map(|at_ms| at_ms - start_ms).collect();
    let film = Film::of(&footage, &offsets);
    let shown: Vec<Option<u64>> = film.as_ref().map_or_else(Vec::new, |film| film.shown_ms.clone());
    let developed = match film {
        None => BTreeMap::new(),
        Some(film) => {
            let _alone = service.developing.lock().await;
            let develop = Develop { form, wanted: film.shown_ms.iter().flatten().copied().collect() };
            let work = tokio::task::spawn_blocking(move || develop.run(&film.movie));
            let done = work.await.map_err(|error| ServiceError::internal(error.to_string()))?;
            done.map_err(|problem| ServiceError::internal(format!("No picture can be decoded: {problem}")))?
        }
    };
    for (index, at_ms) in within.into_iter().enumerate() {
        let file = shown.get(index).copied().flatten().and_then(|shown_ms| developed.get(&shown_ms));
        found.push((at_ms, file.cloned().ok_or(ImageError::MediaError)));
    }
    Ok(found)
}

/// The times of one answer.
#[derive(Debug, PartialEq, Eq)]
struct Page {
    times_ms: Vec<u64>,
    next_token: Option<String>,
}

impl Page {
    fn read(input: &GetImagesInput) -> Result<Self, ServiceError> {
        let invalid = |what: &str| Err(ServiceError::invalid_argument(what));
        let (from_ms, to_ms) = (milliseconds(input.start_timestamp), milliseconds(input.end_timestamp));
        if to_ms < from_ms {
            return invalid("EndTimestamp must not be before StartTimestamp.");
        }
        if to_ms - from_ms > IMAGES_RANGE_SECONDS * 1_000 {
            let message = "EndTimestamp must be within 300 seconds of StartTimestamp.";
            return Err(ServiceError::operation("IllegalArgumentException", 400, message));
        }
        let interval_ms = input.sampling_interval.unwrap_or(DEFAULT_SAMPLING_INTERVAL_MS);
        if interval_ms < LEAST_SAMPLING_INTERVAL_MS {
            return invalid("SamplingInterval must be at least 200 ms.");
        }
        if input.max_results.is_some_and(|most| !IMAGES_RESULTS.contains(&most)) {
            return invalid("MaxResults must be from 1 to 100.");
        }
        let most = input.max_results.unwrap_or(IMAGES_PER_ANSWER).min(IMAGES_PER_ANSWER);
        let first = match &input.next_token {
            None => 0,
            Some(token) => match read_token(token, interval_ms) {
                Some(index) if index <= (to_ms - from_ms) / interval_ms => index,
                _ => return invalid("NextToken is none of this request."),
            },
        };
        let last = (to_ms - from_ms) / interval_ms;
        let behind = (first + u64::from(most)).min(last + 1);
        let times_ms = (first..behind).map(|index| from_ms + index * interval_ms).collect();
        Ok(Self { times_ms, next_token: (behind <= last).then(|| token(behind, interval_ms)) })
    }
}

/// Letters, digits, `+`, `/` and `=` only, as the model wants it.
fn token(index: u64, interval_ms: u64) -> String {
    BASE64_STANDARD.encode(format!("{index}.{interval_ms}"))
}

fn read_token(token: &str, interval_ms: u64) -> Option<u64> {
    let text = String::from_utf8(BASE64_STANDARD.decode(token).ok()?).ok()?;
    let (index, interval) = text.split_once('.')?;
    (interval.parse() == Ok(interval_ms)).then(|| index.parse().ok()).flatten()
}

fn form(input: &GetImagesInput) -> Result<Form, ServiceError> {
    let invalid = |what: &str| Err(ServiceError::invalid_argument(what));
    if input.width_pixels.is_some_and(|width| !IMAGE_WIDTH.contains(&width)) {
        return invalid("WidthPixels must be from 1 to 3840.");
    }
    if input.height_pixels.is_some_and(|height| !IMAGE_HEIGHT.contains(&height)) {
        return invalid("HeightPixels must be from 1 to 2160.");
    }
    let size = match (input.width_pixels, input.height_pixels) {
        (Some(width), Some(height)) => Size::Stretched { width, height },
        (None, Some(height)) => Size::Height(height),
        (None, None) => Size::Own,
        (Some(_), None) => {
            let message = "WidthPixels needs HeightPixels beside it.";
            return Err(ServiceError::operation("ValidationException", 400, message));
        }
    };
    let quality = input.format_config.get(JPEG_QUALITY);
    if input.format_config.len() > usize::from(quality.is_some()) {
        return invalid("FormatConfig has JPEGQuality only.");
    }
    let quality = quality.map_or(Ok(DEFAULT_JPEG_QUALITY), |text| text.parse());
    match quality {
        Ok(quality @ 1..=100) => {
            Ok(Form { jpeg_quality: (input.format == ImageFormat::Jpeg).then_some(quality), size })
        }
        _ => invalid("JPEGQuality must be from 1 to 100."),
    }
}

#[cfg(test)]
mod tests {
    use kvs::api::{FragmentSelectorType, StreamId};

    use super::*;

    fn input(from_ms: u64, to_ms: u64) -> GetImagesInput {
        let by = FragmentSelectorType::ProducerTimestamp;
        GetImagesInput::new(StreamId::name("cam1"), by, from_ms, to_ms, ImageFormat::Jpeg)
    }

    fn pages(mut input: GetImagesInput) -> Vec<Vec<u64>> {
        let mut pages = Vec::new();
        loop {
            let page = Page::read(&input).expect("a page");
            pages.push(page.times_ms);
            match page.next_token {
                Some(token) => input.next_token = Some(token),
                None => return pages,
            }
        }
    }

    #[test]
    fn both_ends_count_and_a_range_below_the_interval_has_its_start() {
        assert_eq!(pages(input(1_000, 10_000)), [[1_000, 4_000, 7_000, 10_000]]);
        assert_eq!(pages(input(1_000, 9_999)), [[1_000, 4_000, 7_000]]);
        assert_eq!(pages(input(1_000, 1_500)), [[1_000]]);
        assert_eq!(pages(input(1_000, 1_000)), [[1_000]]);
    }

    #[test]
    fn pages_have_25_times_or_fewer_and_together_all() {
        let every = |most| GetImagesInput {
            sampling_interval: Some(200),
            max_results: most,
            ..input(5_000, 5_000 + 300_000)
        };
        for (most, length) in [(None, 25), (Some(1), 1), (Some(7), 7), (Some(25), 25), (Some(100), 25)] {
            let found = pages(every(most));
            assert!(found.iter().rev().skip(1).all(|page| page.len() == length), "{most:?}");
            assert_eq!(found.concat(), (0..=1_500).map(|n| 5_000 + n * 200).collect::<Vec<_>>());
        }
        // It fits exactly: no empty page behind it.
        let exact = GetImagesInput { sampling_interval: Some(1_000), ..input(0, 24_000) };
        assert_eq!(pages(exact).len(), 1);
    }

    #[test]
    fn a_token_of_another_request_is_refused() {
        let refused = |token: &str, change: fn(&mut GetImagesInput)| {
            let mut input = GetImagesInput { next_token: Some(token.to_owned()), ..input(0, 100_000) };
            change(&mut input);
            Page::read(&input).expect_err("none of this request").kind
        };
        let good = Page::read(&input(0, 100_000)).expect("a page").next_token.expect("more");
        assert!(good.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte)), "{good}");
        for (token, change) in [
            ("?", (|_| {}) as fn(&mut GetImagesInput)),
            ("AAAA", |_| {}),
            (&good, |input| input.sampling_interval = Some(200)),
            (&good, |input| input.end_timestamp = 10.0),
        ] {
            assert_eq!(refused(token, change), "InvalidArgumentException", "{token}");
        }
    }
}
