//! GetImages: pictures that say which they are go in, and come out as files. Time is simulated.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use camera_sim::Codec;
use kvs::api::{milliseconds, seconds};
use kvs_local::{Fault, FaultKind};
use media::mkv::write::{Track, block_head, cluster_start};
use media::{AudioFormat, VideoCodec, VideoFormat};
use serde_json::{Value, json};

use crate::client::{Answer, BEGIN_MS, Rig};
use crate::film::{Film, HEIGHT, PICTURE_MS, WIDTH, put, read_png};

/// Of one fragment.
const PICTURES: u64 = 50;
const FRAGMENT_MS: u64 = PICTURES * PICTURE_MS;

/// One fragment; time passes by as much as it lasts.
async fn record(rig: &Rig, film: &Film, fragment: u64, at_ms: u64) -> String {
    let number = film.put(rig, fragment, at_ms).await;
    rig.client.clock.sleep(Duration::from_millis(FRAGMENT_MS)).await;
    number
}

fn request(by: &str, from_ms: u64, to_ms: u64, format: &str) -> Value {
    json!({
        "StreamName": "cam1", "ImageSelectorType": by, "StartTimestamp": seconds(from_ms),
        "EndTimestamp": seconds(to_ms), "Format": format,
    })
}

async fn call(rig: &Rig, input: Value) -> Answer {
    rig.client.call("/getImages", input).await
}

/// Time, and the file or why there is none.
type Found = (u64, Result<Vec<u8>, String>);

fn images(answer: &Answer) -> Vec<Found> {
    let body = answer.json();
    assert_eq!(answer.status, 200, "{body}");
    let image = |image: &Value| {
        let at_ms = milliseconds(image["TimeStamp"].as_f64().expect("a time"));
        let result = match (image["ImageContent"].as_str(), image["Error"].as_str()) {
            (Some(content), None) => Ok(BASE64_STANDARD.decode(content).expect("Base64")),
            (None, Some(error)) => Err(error.to_owned()),
            _ => panic!("{image}"),
        };
        (at_ms, result)
    };
    body["Images"].as_array().expect("a list").iter().map(image).collect()
}

/// Width and height, by the frame header.
fn read_jpeg(file: &[u8]) -> (u16, u16) {
    assert_eq!((&file[..2], &file[file.len() - 2..]), (&[0xFF, 0xD8][..], &[0xFF, 0xD9][..]));
    let at = file.windows(2).position(|pair| pair == [0xFF, 0xC0]).expect("a baseline frame");
    let word = |at: usize| u16::from_be_bytes([file[at], file[at + 1]]);
    (word(at + 7), word(at + 5))
}

/// What each of these times shows: the number of its picture, or the error.
fn shown(answer: &Answer) -> Vec<(u64, Result<u32, String>)> {
    let number = |(at_ms, result): Found| (at_ms, result.map(|file| read_png(&file).2.expect("a strip")));
    images(answer).into_iter().map(number).collect()
}

#[tokio::test(start_paused = true)]
async fn each_time_has_the_picture_that_is_shown_then() {
    for (codec, b_frames) in [(Codec::H264, 0), (Codec::H264, 2), (Codec::H265, 2)] {
        let film = Film::new(codec, PICTURES, b_frames);
        let rig = Rig::in_memory(1, |_| {}).await;
        // The camera's clock is two days behind; half a second without footage between the two.
        let begin_ms = BEGIN_MS - 2 * 24 * 3_600_000;
        let second_ms = begin_ms + FRAGMENT_MS + 500;
        record(&rig, &film, 0, begin_ms).await;
        record(&rig, &film, 1, second_ms).await;
        let (from_ms, interval_ms) = (begin_ms - 230, 230);
        let mut input = request("PRODUCER_TIMESTAMP", from_ms, second_ms + FRAGMENT_MS, "PNG");
        input["SamplingInterval"] = json!(interval_ms);
        let found = shown(&call(&rig, input).await);
        let expected =
            (0..).map(|n| from_ms + n * interval_ms).take_while(|at| *at <= second_ms + FRAGMENT_MS);
        let of = |at_ms: u64| {
            let number = |begin_ms: u64, fragment: u64| {
                let offset = at_ms.checked_sub(begin_ms).filter(|offset| *offset < FRAGMENT_MS)?;
                u32::try_from(fragment * PICTURES + offset / PICTURE_MS).ok()
            };
            number(begin_ms, 0).or_else(|| number(second_ms, 1)).ok_or_else(|| "NO_MEDIA".to_owned())
        };
        assert_eq!(
            found,
            expected.map(|at_ms| (at_ms, of(at_ms))).collect::<Vec<_>>(),
            "{codec:?} {b_frames}"
        );
        assert_eq!(found.iter().filter(|(_, result)| result.is_err()).count(), 3);

        // By server time a fragment begins when it was received: the first one when time began here.
        let mut input = request("SERVER_TIMESTAMP", BEGIN_MS - 1, BEGIN_MS + FRAGMENT_MS, "PNG");
        input["SamplingInterval"] = json!(1_001);
        let found = shown(&call(&rig, input).await);
        let expected = [(BEGIN_MS - 1, Err("NO_MEDIA".to_owned())), (BEGIN_MS + 1_000, Ok(25))];
        assert_eq!(found[..2], expected, "{codec:?} {b_frames}");
        let second =
            shown(&call(&rig, request("SERVER_TIMESTAMP", BEGIN_MS + 2_040, BEGIN_MS + 2_040, "PNG")).await);
        assert_eq!(second, [(BEGIN_MS + 2_040, Ok(51))]);
    }
}

#[tokio::test(start_paused = true)]
async fn size_format_and_quality_are_as_asked_for() {
    let (rig, film) = (Rig::in_memory(1, |_| {}).await, Film::h264(PICTURES, 0));
    record(&rig, &film, 0, 5_000).await;
    let one = async |format: &str, change: Value| {
        let mut input = request("PRODUCER_TIMESTAMP", 5_000, 5_000, format);
        for (key, value) in change.as_object().expect("an object") {
            input[key] = value.clone();
        }
        images(&call(&rig, input).await).remove(0).1.expect("a picture")
    };
    let (width, height, number) = read_png(&one("PNG", json!({})).await);
    assert_eq!((width, height, number), (WIDTH, HEIGHT, Some(0)));
    for (change, size) in [
        (json!({ "WidthPixels": 64, "HeightPixels": 200 }), (64, 200)),
        (json!({ "HeightPixels": 96 }), (160, 96)),
        (json!({ "WidthPixels": 3_840, "HeightPixels": 1 }), (3_840, 1)),
    ] {
        let (width, height, _) = read_png(&one("PNG", change.clone()).await);
        assert_eq!((width, height), size, "{change}");
        let (width, height) = read_jpeg(&one("JPEG", change.clone()).await);
        assert_eq!((u32::from(width), u32::from(height)), size, "{change}");
    }
    let jpeg = one("JPEG", json!({})).await;
    let (width, height) = read_jpeg(&jpeg);
    assert_eq!((u32::from(width), u32::from(height)), (WIDTH, HEIGHT));
    let quality = async |value: &str| one("JPEG", json!({ "FormatConfig": { "JPEGQuality": value } })).await;
    assert_eq!(quality("80").await, jpeg, "the default");
    let (worst, best) = (quality("1").await, quality("100").await);
    assert!(worst.len() < jpeg.len() && jpeg.len() < best.len());
}

#[tokio::test(start_paused = true)]
async fn pages_follow_each_other_to_the_end() {
    let (rig, film) = (Rig::in_memory(1, |_| {}).await, Film::h264(PICTURES, 0));
    for fragment in 0..2 {
        record(&rig, &film, fragment, 5_000 + fragment * FRAGMENT_MS).await;
    }
    let mut input = request("PRODUCER_TIMESTAMP", 5_000, 8_960, "PNG");
    (input["SamplingInterval"], input["MaxResults"]) = (json!(440), json!(4));
    let (mut pages, mut found) = (0, Vec::new());
    loop {
        let answer = call(&rig, input.clone()).await;
        found.extend(shown(&answer));
        pages += 1;
        match answer.json()["NextToken"].as_str() {
            Some(token) => input["NextToken"] = json!(token),
            None => break,
        }
    }
    let expected: Vec<_> = (0..10).map(|n| (5_000 + u64::from(n) * 440, Ok(n * 11))).collect();
    assert_eq!((pages, found), (3, expected));
}

#[tokio::test(start_paused = true)]
async fn what_has_no_pictures_is_a_media_error_and_what_is_not_there_none() {
    let (rig, film) = (Rig::in_memory(1, |_| {}).await, Film::h264(PICTURES, 0));
    let record_of = |bytes: &'static [u8]| {
        VideoFormat::from_codec_private(VideoCodec::H264, bytes.into())
            .map(|format| Track::Video(Arc::new(format)))
    };
    assert!(record_of(b"no record").is_err(), "the fragments below are written by hand");
    let sound = Track::Audio(Arc::new(AudioFormat::pcmu(8_000, 1)));
    let block = |data: &[u8]| [&block_head(1, 0, true, data.len())[..], data].concat();
    let cluster = |at_ms: u64, data: &[u8]| [&cluster_start(at_ms)[..], &block(data)].concat();
    put(&rig, &sound, cluster(1_000_000, &[0xD5; 160])).await;
    // NAL units that do not fit, and such that fit and are no picture.
    put(&rig, &film.track, cluster(2_000_000, &[0, 0, 0, 9, 0x65])).await;
    put(&rig, &film.track, cluster(3_000_000, &[0, 0, 0, 4, 0x65, 0, 0, 0])).await;
    let gone = record(&rig, &film, 0, 4_000_000).await;
    record(&rig, &film, 1, 5_000_000).await;
    let one = async |at_ms: u64| {
        let input = request("PRODUCER_TIMESTAMP", at_ms, at_ms, "PNG");
        shown(&call(&rig, input).await).remove(0).1
    };
    let (no_media, media_error) = (Err("NO_MEDIA".to_owned()), Err("MEDIA_ERROR".to_owned()));
    for at_ms in [1_000_000, 2_000_000, 3_000_000] {
        assert_eq!(one(at_ms).await, media_error, "{at_ms}");
    }
    assert_eq!(one(1_000_000 + 60_000).await, no_media);
    assert_eq!(one(999_999).await, no_media);
    assert_eq!(one(4_000_040).await, Ok(1));
    rig.server.delete_fragment("cam1", &gone).await.expect("there");
    assert_eq!(one(4_000_040).await, no_media);
    // Others are served as before.
    assert_eq!(one(5_000_000).await, Ok(50));
}

#[tokio::test(start_paused = true)]
async fn arguments_are_held_against_their_ranges() {
    let rig = Rig::in_memory(1, |_| {}).await;
    let refused = async |change: Value| {
        let mut input = request("PRODUCER_TIMESTAMP", 10_000, 20_000, "JPEG");
        for (key, value) in change.as_object().expect("an object") {
            match value {
                Value::Null => drop(input.as_object_mut().expect("an object").remove(key)),
                value => input[key] = value.clone(),
            }
        }
        let answer = call(&rig, input).await;
        if answer.status == 200 { (200, String::new()) } else { answer.error() }
    };
    let invalid = (400, "InvalidArgumentException".to_owned());
    for change in [
        json!({ "EndTimestamp": 9.999 }),
        json!({ "SamplingInterval": 199 }),
        json!({ "MaxResults": 0 }),
        json!({ "MaxResults": 101 }),
        json!({ "WidthPixels": 0, "HeightPixels": 1 }),
        json!({ "WidthPixels": 3_841, "HeightPixels": 1 }),
        json!({ "HeightPixels": 0 }),
        json!({ "HeightPixels": 2_161 }),
        json!({ "FormatConfig": { "JPEGQuality": "0" } }),
        json!({ "FormatConfig": { "JPEGQuality": "101" } }),
        json!({ "FormatConfig": { "JPEGQuality": "high" } }),
        json!({ "FormatConfig": { "Quality": "80" } }),
        json!({ "FormatConfig": { "JPEGQuality": "80", "Quality": "80" } }),
        json!({ "NextToken": "any" }),
        json!({ "Format": "GIF" }),
        json!({ "Format": null }),
        json!({ "ImageSelectorType": null }),
        json!({ "StartTimestamp": null }),
        json!({ "StreamARN": "arn:x" }),
        json!({ "StreamName": null }),
    ] {
        assert_eq!(refused(change.clone()).await, invalid, "{change}");
    }
    // By the names of the API page.
    assert_eq!(refused(json!({ "WidthPixels": 64 })).await, (400, "ValidationException".to_owned()));
    assert_eq!(
        refused(json!({ "EndTimestamp": 310.001 })).await,
        (400, "IllegalArgumentException".to_owned())
    );
    let missing = json!({ "StreamName": "nobody" });
    assert_eq!(refused(missing).await, (404, "ResourceNotFoundException".to_owned()));
    for change in [
        json!({ "EndTimestamp": 310.0, "SamplingInterval": 200 }),
        json!({ "MaxResults": 100, "WidthPixels": 3_840, "HeightPixels": 2_160 }),
        json!({ "FormatConfig": { "JPEGQuality": "1" } }),
    ] {
        assert_eq!(refused(change.clone()).await.0, 200, "{change}");
    }

    let none = Rig::in_memory(0, |_| {}).await;
    let answer = call(&none, request("PRODUCER_TIMESTAMP", 0, 1, "PNG")).await;
    assert_eq!(answer.error(), (400, "NoDataRetentionException".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn calls_cost_points_and_faults_reach_them() {
    let rig = Rig::in_memory(1, |options| options.limits.metadata_points_per_second = Some(850)).await;
    let one = || request("PRODUCER_TIMESTAMP", 0, 0, "PNG");
    let limited = (400, "ClientLimitExceededException".to_owned());
    assert_eq!([call(&rig, one()).await.status, call(&rig, one()).await.status], [200, 200]);
    assert_eq!(call(&rig, one()).await.error(), limited, "each costs 401");
    rig.client.clock.sleep(Duration::from_secs(1)).await;
    let fault = FaultKind::Refuse {
        path: kvs::api::path::GET_IMAGES.to_owned(),
        error_type: "NotAuthorizedException".to_owned(),
        status: 401,
        count: 1,
    };
    rig.server.faults().inject(Fault::any(fault));
    assert_eq!(call(&rig, one()).await.error(), (401, "NotAuthorizedException".to_owned()));
    assert_eq!(call(&rig, one()).await.status, 200);
}
