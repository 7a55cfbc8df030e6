//! GetImages: pictures that say which they are go in, and come out as files. Time is simulated.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use camera_sim::{Clip, ClipSpec, Codec};
use kvs::api::{milliseconds, seconds};
use kvs_local::{Fault, FaultKind};
use media::mkv::write::{Track, block_head, cluster_start, header};
use media::{AudioFormat, VideoCodec, VideoFormat, nal};
use serde_json::{Value, json};

use crate::client::{Answer, BEGIN_MS, Rig, persisted};

const WIDTH: usize = 320;
const HEIGHT: usize = 192;
const PICTURE_MS: u64 = 40;
/// Of one fragment.
const PICTURES: u64 = 50;
const FRAGMENT_MS: u64 = PICTURES * PICTURE_MS;
/// Fragments of the clip.
const FRAGMENTS: u64 = 2;

/// A camera's footage, two fragments of 50 pictures, 25 a second.
struct Film {
    track: Track,
    fragments: Vec<Vec<(i16, bool, Vec<u8>)>>,
}

fn film(codec: Codec, b_frames: u32) -> Film {
    let (width, height) = (320, 192);
    let gop = u32::try_from(PICTURES).expect("small");
    let spec = ClipSpec {
        width,
        height,
        codec,
        b_frames,
        gop,
        bitrate_kbps: 500,
        loop_seconds: 4,
        ..ClipSpec::default()
    };
    let clip = Clip::load(&spec, &camera_sim::default_cache_dir()).expect("GStreamer's encoders");
    let sets = clip.parameter_sets();
    let (codec, record) = match codec {
        Codec::H264 => (VideoCodec::H264, nal::avcc_from_sps_pps(&sets[..1], &sets[1..])),
        Codec::H265 => (VideoCodec::H265, nal::hvcc_from_vps_sps_pps(&sets[..1], &sets[1..2], &sets[2..])),
    };
    let record = record.expect("parameter sets of x264 and x265");
    let format = VideoFormat::from_codec_private(codec, record).expect("a valid record");
    let mut fragments: Vec<Vec<_>> = Vec::new();
    for picture in clip.pictures() {
        if picture.random_access {
            fragments.push(Vec::new());
        }
        let fragment = fragments.len() as u64 - 1;
        let offset = u64::from(picture.index) - fragment * PICTURES;
        let offset = i16::try_from(offset * PICTURE_MS).expect("within its fragment");
        let data = nal::to_length_prefixed(&picture.nal_units).to_vec();
        fragments.last_mut().expect("it begins with a random access point").push((
            offset,
            picture.random_access,
            data,
        ));
    }
    assert_eq!(fragments.iter().map(Vec::len).collect::<Vec<_>>(), [50, 50]);
    Film { track: Track::Video(Arc::new(format)), fragments }
}

impl Film {
    fn cluster(&self, fragment: u64, at_ms: u64) -> Vec<u8> {
        let mut cluster = cluster_start(at_ms).to_vec();
        for (offset, key_frame, data) in &self.fragments[usize::try_from(fragment).expect("small")] {
            cluster.extend_from_slice(&block_head(1, *offset, *key_frame, data.len()));
            cluster.extend_from_slice(data);
        }
        cluster
    }
}

async fn put(rig: &Rig, track: &Track, cluster: Vec<u8>) -> String {
    let header = header([7; 16], "test", std::slice::from_ref(track));
    let acks = rig.client.put_whole("cam1", &[&header[..], &cluster].concat()).await;
    persisted(&acks)[0].to_string()
}

/// One fragment; time passes by as much as it lasts.
async fn record(rig: &Rig, film: &Film, fragment: u64, at_ms: u64) -> String {
    let number = put(rig, &film.track, film.cluster(fragment, at_ms)).await;
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

/// Width, height, and the number that the scene has drawn into its picture.
fn read_png(file: &[u8]) -> (u32, u32, Option<u32>) {
    let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().expect("a PNG");
    let mut rgb = vec![0; reader.output_buffer_size().expect("small")];
    let info = reader.next_frame(&mut rgb).expect("a whole PNG");
    assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
    let luma: Vec<u8> = rgb.chunks_exact(3).map(|rgb| rgb[1]).collect();
    let (width, height) = (info.width as usize, info.height as usize);
    (info.width, info.height, camera_sim::read_frame_index(&luma, width, width, height))
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
        let film = film(codec, b_frames);
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
    let (rig, film) = (Rig::in_memory(1, |_| {}).await, film(Codec::H264, 0));
    record(&rig, &film, 0, 5_000).await;
    let one = async |format: &str, change: Value| {
        let mut input = request("PRODUCER_TIMESTAMP", 5_000, 5_000, format);
        for (key, value) in change.as_object().expect("an object") {
            input[key] = value.clone();
        }
        images(&call(&rig, input).await).remove(0).1.expect("a picture")
    };
    let own = (u32::try_from(WIDTH).expect("small"), u32::try_from(HEIGHT).expect("small"));
    let (width, height, number) = read_png(&one("PNG", json!({})).await);
    assert_eq!(((width, height), number), (own, Some(0)));
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
    assert_eq!(read_jpeg(&jpeg), (320, 192));
    let quality = async |value: &str| one("JPEG", json!({ "FormatConfig": { "JPEGQuality": value } })).await;
    assert_eq!(quality("80").await, jpeg, "the default");
    let (worst, best) = (quality("1").await, quality("100").await);
    assert!(worst.len() < jpeg.len() && jpeg.len() < best.len());
}

#[tokio::test(start_paused = true)]
async fn pages_follow_each_other_to_the_end() {
    let (rig, film) = (Rig::in_memory(1, |_| {}).await, film(Codec::H264, 0));
    for fragment in 0..FRAGMENTS {
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
    let (rig, film) = (Rig::in_memory(1, |_| {}).await, film(Codec::H264, 0));
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
