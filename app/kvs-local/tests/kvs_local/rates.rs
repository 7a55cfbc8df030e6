//! Rates and quotas, on paused time: a second passes when everybody waits, and not before.

use std::time::Duration;

use kvs_local::Limits;
use serde_json::{Value, json};

use crate::client::{Client, Rig, persisted};
use crate::mkv::{body, chunks};

const THROTTLED: (u16, &str) = (400, "ClientLimitExceededException");

/// So many calls pass at once, the next one is throttled, and a second later one passes again.
async fn check(client: &Client, path: &str, input: Value, passing: usize) {
    for call in 0..passing {
        assert_eq!(client.call(path, input.clone()).await.status, 200, "{path}, call {call}");
    }
    let (status, kind) = client.call(path, input.clone()).await.error();
    assert_eq!((status, kind.as_str()), THROTTLED, "{path}");
    client.clock.sleep(Duration::from_secs(1)).await;
    assert_eq!(client.call(path, input).await.status, 200, "{path}, a second later");
}

#[tokio::test(start_paused = true)]
async fn calls_beyond_the_rate_are_throttled() {
    let rig = Rig::in_memory(1, |options| options.limits.calls_per_second = Some(2)).await;
    for path in ["/describeStream", "/listTagsForStream", "/listFragments"] {
        check(&rig.client, path, json!({ "StreamName": "cam1" }), 2).await;
    }
    // Of the account, not of a stream.
    for _ in 0..10 {
        assert_eq!(rig.client.call("/listStreams", json!({})).await.status, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn control_calls_of_the_account_are_throttled_over_all_streams() {
    let rig = Rig::in_memory(1, |options| {
        options.limits.account_calls_per_second = Some(1);
        options.limits.account_lookups_per_second = Some(2);
        *options = options.clone().stream("cam2", 1);
    })
    .await;
    check(&rig.client, "/listStreams", json!({}), 1).await;
    let describe = |name: &str| {
        let input = json!({ "StreamName": name });
        let client = rig.client.clone();
        async move { client.call("/describeStream", input).await.error() }
    };
    let answers = [describe("cam1").await, describe("cam2").await, describe("cam1").await];
    assert_eq!([answers[0].0, answers[1].0], [200, 200]);
    assert_eq!((answers[2].0, answers[2].1.as_str()), THROTTLED);
    // Media calls are no control calls.
    for _ in 0..10 {
        assert_eq!(rig.client.call("/listFragments", json!({ "StreamName": "cam1" })).await.status, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn an_account_full_of_streams_takes_no_more() {
    let rig = Rig::in_memory(1, |options| options.limits.streams_per_account = Some(2)).await;
    let create = |name: &str| {
        let (client, input) = (rig.client.clone(), json!({ "StreamName": name }));
        async move { client.call("/createStream", input).await.error() }
    };
    assert_eq!(create("cam2").await.0, 200);
    assert_eq!(create("cam3").await, (400, "AccountStreamLimitExceededException".to_owned()));
    assert_eq!(create("cam2").await, (400, "ResourceInUseException".to_owned()));
    assert_eq!(rig.client.call("/deleteStream", json!({ "StreamName": "cam1" })).await.status, 200);
    assert_eq!(create("cam3").await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn list_fragments_costs_its_max_results() {
    let rig = Rig::in_memory(1, |options| options.limits.metadata_points_per_second = Some(1000)).await;
    let list = |max_results: u32| json!({ "StreamName": "cam1", "MaxResults": max_results });
    check(&rig.client, "/listFragments", list(500), 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_fragment_list_costs_one_point_for_each_fragment() {
    let rig = Rig::in_memory(1, |options| options.limits.media_points_per_second = Some(4)).await;
    let kept = persisted(&rig.client.put_whole("cam1", &body(&[1_000, 2_000])).await);
    let numbers: Vec<_> = kept.iter().map(ToString::to_string).collect();
    check(&rig.client, "/getMediaForFragmentList", json!({ "StreamName": "cam1", "Fragments": numbers }), 2)
        .await;
    // More than a second's worth passes once everything is back, as 1000 fragments must.
    let many = [&numbers[..]; 4].concat();
    let many = json!({ "StreamName": "cam1", "Fragments": many });
    let ask = async || rig.client.call("/getMediaForFragmentList", many.clone()).await.status;
    rig.client.clock.sleep(Duration::from_secs(1)).await;
    assert_eq!(ask().await, 200, "8 fragments at 4 per second, nothing spent");
    rig.client.clock.sleep(Duration::from_millis(1_999)).await;
    assert_eq!(ask().await, 400);
    rig.client.clock.sleep(Duration::from_millis(1)).await;
    assert_eq!(ask().await, 200);
}

/// Fragments 1 s apart.
fn media(fragments: u64) -> Vec<u8> {
    body(&(1..=fragments).map(|second| second * 1_000).collect::<Vec<_>>())
}

/// What the part of `amount` that does not pass at once takes; timers round it up to a millisecond.
fn least(amount: usize, per_second: usize) -> Duration {
    Duration::from_nanos(((amount - per_second) as u64 * 1_000_000_000).div_ceil(per_second as u64))
}

fn assert_takes(rig: &Rig, begin: std::time::Instant, least: Duration) {
    let taken = rig.client.clock.since(begin);
    assert!((least..=least + Duration::from_millis(2)).contains(&taken), "{taken:?}, expected {least:?}");
}

#[tokio::test(start_paused = true)]
async fn a_producer_beyond_its_bytes_per_second_is_read_slowly_and_loses_nothing() {
    let (rate, media) = (20_000, media(80));
    let rig =
        Rig::in_memory(1, |options| options.limits.put_media_bytes_per_second = Some(rate as u64)).await;
    let begin = rig.client.clock.now();
    assert_eq!(persisted(&rig.client.put_whole("cam1", &media).await).len(), 80);
    assert_takes(&rig, begin, least(media.len(), rate));
}

/// The quota is the stream's, so that the second session finds it spent.
#[tokio::test(start_paused = true)]
async fn a_producer_beyond_its_fragments_per_second_is_read_slowly_and_loses_nothing() {
    let rig = Rig::in_memory(1, |options| options.limits.put_media_fragments_per_second = Some(40)).await;
    let begin = rig.client.clock.now();
    for _ in 0..2 {
        assert_eq!(persisted(&rig.client.put_whole("cam1", &media(26)).await).len(), 26);
    }
    assert_takes(&rig, begin, least(52, 40));
}

#[tokio::test(start_paused = true)]
async fn answers_are_paced_and_whole() {
    let rate = 20_000;
    let rig = Rig::in_memory(1, |options| {
        options.limits.get_media_bytes_per_second = Some(rate as u64);
        options.limits.fragment_list_bytes_per_second = Some(rate as u64);
    })
    .await;
    let kept = persisted(&rig.client.put_whole("cam1", &media(40)).await);
    let begin = rig.client.clock.now();
    let answer = rig.client.read_all("cam1").await;
    assert_eq!(chunks(&answer).len(), 40);
    assert_takes(&rig, begin, least(answer.len(), rate));

    let numbers: Vec<_> = kept.iter().map(ToString::to_string).collect();
    let begin = rig.client.clock.now();
    let input = json!({ "StreamName": "cam1", "Fragments": numbers });
    let answer = rig.client.call("/getMediaForFragmentList", input).await.body;
    assert_eq!(chunks(&answer).len(), 40);
    assert_takes(&rig, begin, least(answer.len(), rate));
}

#[tokio::test(start_paused = true)]
async fn get_media_sends_no_more_fragments_than_its_rate() {
    let rig = Rig::in_memory(1, |options| options.limits.get_media_fragments_per_second = Some(20)).await;
    rig.client.put_whole("cam1", &media(26)).await;
    let begin = rig.client.clock.now();
    assert_eq!(chunks(&rig.client.read_all("cam1").await).len(), 26);
    assert_takes(&rig, begin, least(26, 20));
}

#[tokio::test(start_paused = true)]
async fn ordinary_use_stays_within_the_limits_of_the_service() {
    let rig = Rig::in_memory(1, |options| {
        let idle_end = options.limits.get_media_idle_end;
        options.limits = Limits { get_media_idle_end: idle_end, ..Limits::service() };
    })
    .await;
    let kept = persisted(&rig.client.put_whole("cam1", &media(5)).await);
    assert_eq!(kept.len(), 5);
    assert_eq!(chunks(&rig.client.read_all("cam1").await).len(), 5);
    let listed = rig.client.call("/listFragments", json!({ "StreamName": "cam1" })).await.json();
    assert_eq!(listed["Fragments"].as_array().map(Vec::len), Some(5));
    check(&rig.client, "/describeStream", json!({ "StreamName": "cam1" }), 5).await;
}
