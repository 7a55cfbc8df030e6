//! Where the real service was seen to differ from what one would guess. Evidence stands at each test.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{BEGIN_MS, Rig, name, names, persisted};
use crate::mkv::{block, body, chunks, cluster, end_of_fragment, head};
use media::mkv::write::cluster_start;

const HOUR_MS: u64 = 3_600_000;

fn invalid_argument() -> (u16, String) {
    (400, "InvalidArgumentException".to_owned())
}

/// All rows, by number.
async fn rows(rig: &Rig) -> Vec<Value> {
    let input = json!({ "StreamName": "cam1", "MaxResults": 1000 });
    let answer = rig.client.call("/listFragments", input).await.json();
    let mut rows = answer["Fragments"].as_array().expect("a list").clone();
    rows.sort_by_key(|row| row["FragmentNumber"].as_str().expect("text").to_owned());
    rows
}

async fn lengths(clusters: &[(u64, Vec<i16>)]) -> Vec<u64> {
    let rig = Rig::in_memory(1, |_| {}).await;
    let mut media = head(1);
    for (timecode, offsets) in clusters {
        media.extend_from_slice(&cluster_start(*timecode));
        offsets.iter().for_each(|offset| media.extend_from_slice(&block(1, *offset, b"picture")));
    }
    let mut session = rig.client.put_media_as("cam1", "RELATIVE", "1700000000.000").await.expect("accepted");
    session.send(&media).await;
    session.finish();
    assert_eq!(persisted(&session.rest().await).len(), clusters.len());
    let rows = rows(&rig).await;
    rows.iter().map(|row| row["FragmentLengthInMilliseconds"].as_u64().expect("a number")).collect()
}

/// Lists of a file with B pictures (a public PutMedia sample, 2023: starts 0, 5067, 8333, lengths 4933, 3233, 1634) and of
/// a camera (kinesis-client-nodejs issue 117: 1796 for 31 pictures in fragments that begin 1856 apart); one picture
/// gives 0 (producer-sdk-cpp issue 312).
#[tokio::test(start_paused = true)]
async fn a_fragment_is_as_long_as_from_its_timecode_to_its_latest_block() {
    let ms = |picture: i32| i16::try_from((picture * 100 + 1) / 3).expect("short"); // 30 a second, rounded
    let after = |picture: i32, begin: i32| ms(picture) - ms(begin);
    // The second fragment opens with a picture whose B pictures, shown before it, follow with negative offsets.
    let second = [152, 149, 150, 151].into_iter().chain(153..250);
    let file = [
        (0, (0..149).map(ms).collect()),
        (5_067, second.map(|picture| after(picture, 152)).collect()),
        (8_333, (250..300).map(|picture| after(picture, 250)).collect()),
    ];
    assert_eq!(lengths(&file).await, [4_933, 3_233, 1_634]);
    let pictures: Vec<i16> =
        (0..31_i32).map(|n| i16::try_from((n * 5_987 + 50) / 100).expect("short")).collect();
    let camera = [0, 1_856, 3_712].map(|begin| (begin, pictures.clone()));
    assert_eq!(lengths(&camera).await, [1_796; 3]);
    assert_eq!(lengths(&[(0, vec![0]), (4_000, vec![0])]).await, [0, 0]);
    assert_eq!(lengths(&[(1_000, vec![-100])]).await, [0], "no block at or behind the timecode");
}

/// The Java SDK 1.12 writes a date; a decimal comma got 400 (producer-sdk-java issue 32).
#[tokio::test(start_paused = true)]
async fn the_start_time_is_seconds_or_a_date() {
    let rig = Rig::in_memory(1, |_| {}).await;
    for (index, start) in
        ["1519423067.997", "2018-02-23T21:57:47.997Z", "2018-02-23T21:57:47Z"].into_iter().enumerate()
    {
        let mut session = rig.client.put_media_as("cam1", "RELATIVE", start).await.expect(start);
        session.send(&body(&[1_000])).await;
        session.finish();
        assert_eq!(persisted(&session.rest().await).len(), 1);
        let producer = rows(&rig).await[index]["ProducerTimestamp"].as_f64().expect("a number");
        let expected = if start.contains("47Z") { 1_519_423_068.0 } else { 1_519_423_068.997 };
        assert!((producer - expected).abs() < 0.000_5, "{start}: {producer}");
    }
    for start in
        ["1519423067,997", "2018-02-23T21:57:47,997Z", "2018-02-23", "2018-02-30T21:57:47.997Z", "now"]
    {
        let error = rig.client.put_media_as("cam1", "RELATIVE", start).await.err().expect("refused").error();
        assert_eq!(error, invalid_argument(), "{start}");
    }
}

/// As the Java SDK sends it: the absolute request target, and the marker of a signed stream in front of a body that is
/// plain.
#[tokio::test(start_paused = true)]
async fn an_absolute_target_and_the_marker_of_a_signed_stream_are_accepted() {
    let rig = Rig::in_memory(1, |_| {}).await;
    let headers = [
        ("x-amzn-stream-name", "cam1"),
        ("x-amzn-fragment-timecode-type", "RELATIVE"),
        ("x-amzn-producer-start-timestamp", "2018-02-23T21:57:47.997Z"),
        ("transfer-encoding", "chunked"),
    ];
    const MARKER: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
    for (marker, target) in [(false, true), (true, false), (true, true)] {
        let mut headers = headers.to_vec();
        if marker {
            headers.push(("x-amz-content-sha256", MARKER));
        }
        let hash = if marker { MARKER.to_owned() } else { crate::client::hash(b"") };
        let media = crate::client::Sent::whole(body(&[1_000, 2_000]));
        let mut request = rig.client.request_with("/putMedia", &headers, &hash, media);
        if target {
            *request.uri_mut() = "http://kvs-local.test/putMedia".parse().expect("a URI");
        }
        let response = rig.client.connect().await.send_request(request).await.expect("an answer");
        assert_eq!(response.status(), 200, "{marker} {target}");
        let acks = http_body_util::BodyExt::collect(response.into_body()).await.expect("whole").to_bytes();
        let acks = String::from_utf8(acks.to_vec()).expect("text");
        assert_eq!(acks.matches("PERSISTED").count(), 2, "{acks}");
    }
    assert_eq!(rows(&rig).await.len(), 6);
}

/// voicemail-express issues 25 and 28 (400), aws-sdk-js issue 4102 (empty).
#[tokio::test(start_paused = true)]
async fn a_list_that_ends_before_the_retention_is_refused_by_server_time_and_empty_by_producer_time() {
    let rig = Rig::in_memory(1, |_| {}).await;
    rig.client.put_whole("cam1", &body(&[BEGIN_MS - 2_000])).await;
    let now_ms = rig.client.clock.wall_ms();
    let ask = async |kind: &str, from_ms: u64, to_ms: u64| {
        let range =
            json!({ "StartTimestamp": kvs::api::seconds(from_ms), "EndTimestamp": kvs::api::seconds(to_ms) });
        let selector = json!({ "FragmentSelectorType": kind, "TimestampRange": range });
        let input = json!({ "StreamName": "cam1", "FragmentSelector": selector });
        let answer = rig.client.call("/listFragments", input).await;
        if answer.status == 200 {
            Ok(answer.json()["Fragments"].as_array().expect("a list").len())
        } else {
            Err(answer.error())
        }
    };
    assert_eq!(
        ask("SERVER_TIMESTAMP", now_ms - 3 * HOUR_MS, now_ms - 2 * HOUR_MS).await,
        Err(invalid_argument())
    );
    assert_eq!(ask("SERVER_TIMESTAMP", 0, now_ms - HOUR_MS - 1).await, Err(invalid_argument()));
    assert_eq!(
        ask("SERVER_TIMESTAMP", now_ms - 3 * HOUR_MS, now_ms - HOUR_MS).await,
        Ok(0),
        "the border is kept"
    );
    assert_eq!(ask("PRODUCER_TIMESTAMP", now_ms - 3 * HOUR_MS, now_ms - 2 * HOUR_MS).await, Ok(0));
    assert_eq!(ask("SERVER_TIMESTAMP", 0, now_ms + 1_000).await, Ok(1));
}

/// parser-library issue 50. What is known of a number that this stream once gave is less: a notice inside the answer.
#[tokio::test(start_paused = true)]
async fn fragment_numbers_of_another_stream_are_invalid() {
    let rig = Rig::in_memory(1, |options| *options = options.clone().stream("cam2", 1)).await;
    let mut numbers = Vec::new();
    for stream in ["cam1", "cam2"] {
        numbers.push(persisted(&rig.client.put_whole(stream, &body(&[1_000])).await)[0].to_string());
    }
    let ask = async |stream: &str, wanted: &[&String]| {
        let input = json!({ "StreamName": stream, "Fragments": wanted });
        let answer = rig.client.call("/getMediaForFragmentList", input).await;
        if answer.status == 200 { Ok(chunks(&answer.body).len()) } else { Err(answer.error()) }
    };
    let never = kvs::FragmentNumber::new(1, BEGIN_MS, 5).to_string();
    assert_eq!(ask("cam1", &[&numbers[0]]).await, Ok(1));
    assert_eq!(ask("cam1", &[&numbers[1]]).await, Err(invalid_argument()));
    assert_eq!(ask("cam1", &[&numbers[0], &numbers[1]]).await, Err(invalid_argument()), "one is enough");
    assert_eq!(ask("cam2", &[&never]).await, Err(invalid_argument()));
    rig.server.delete_fragment("cam2", &numbers[1]).await.expect("there");
    assert_eq!(ask("cam2", &[&numbers[1]]).await, Ok(1), "a notice");
    let message = rig
        .client
        .call("/getMediaForFragmentList", json!({ "StreamName": "cam1", "Fragments": [&numbers[1]] }))
        .await;
    assert_eq!(message.json()["Message"], "Fragment numbers are invalid");
}

/// ListFragments is documented as eventually consistent; reading by number is not said to be.
#[tokio::test(start_paused = true)]
async fn a_list_can_lag_behind_the_persisted_ack() {
    let rig = Rig::in_memory(1, |options| options.list_lag = Duration::from_secs(2)).await;
    let number = persisted(&rig.client.put_whole("cam1", &body(&[1_000])).await)[0].to_string();
    assert_eq!(rows(&rig).await.len(), 0);
    let input = json!({ "StreamName": "cam1", "Fragments": [&number] });
    let read = rig.client.call("/getMediaForFragmentList", input).await;
    assert_eq!(chunks(&read.body)[0].cluster, cluster(1_000));
    rig.client.clock.sleep(Duration::from_millis(1_999)).await;
    assert_eq!(rows(&rig).await.len(), 0);
    rig.client.clock.sleep(Duration::from_millis(1)).await;
    assert_eq!(rows(&rig).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_producer_time_too_far_ahead_can_be_refused() {
    let rig = Rig::in_memory(1, |options| options.refuse_ahead = Some(Duration::from_secs(60))).await;
    let now_ms = rig.client.clock.wall_ms();
    let mut session = rig.client.put_media("cam1").await;
    session.send(&body(&[now_ms, now_ms + 60_000, now_ms + 60_001])).await;
    let acks = session.rest().await;
    assert_eq!(persisted(&acks).len(), 2, "{:?}", names(&acks));
    let last = acks.last().expect("an error");
    assert_eq!((name(last).as_str(), last.timecode_ms), ("ERROR 4007", i64::try_from(now_ms + 60_001).ok()));
    assert!(last.number.is_some());
    let log = rig.server.acks("cam1").expect("there");
    let reason = log.last().and_then(|ack| ack.reason.clone()).expect("told");
    assert_eq!(reason, "a producer time 60001 ms ahead of the service, at most 60s");
    // Off by default.
    let rig = Rig::in_memory(1, |_| {}).await;
    let ahead = [body(&[now_ms + 100 * 365 * 24 * HOUR_MS]), end_of_fragment()].concat();
    assert_eq!(persisted(&rig.client.put_whole("cam1", &ahead).await).len(), 1);
}

/// However long the disk takes, simulated time stands still until it is done.
#[tokio::test(start_paused = true)]
async fn time_does_not_pass_while_fragments_are_written_and_read() {
    let rig = Rig::in_memory(1, |options| options.limits.connection_grace = Duration::from_secs(3600)).await;
    let begin = rig.client.clock.now();
    for session in 0..5_u64 {
        let timecodes: Vec<u64> = (0..20).map(|n| session * 100_000 + n * 1_000).collect();
        assert_eq!(persisted(&rig.client.put_whole("cam1", &body(&timecodes)).await).len(), 20);
    }
    assert_eq!(chunks(&rig.client.read_all("cam1").await).len(), 100);
    assert_eq!(rig.client.clock.since(begin), Duration::ZERO);
}
