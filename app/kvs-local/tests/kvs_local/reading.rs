//! Where GetMedia begins and ends, fragment lists, and who may read.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::client::{BEGIN_MS, Reader, Rig, persisted};
use crate::mkv::{Chunk, body, chunks, cluster, end_of_fragment, head};

const HOUR_MS: u64 = 3_600_000;

/// A server whose clock a test moves, and a client that signs by it.
pub(crate) struct Timed {
    pub(crate) rig: Rig,
}

impl Timed {
    pub(crate) async fn new(retention: u32) -> Self {
        Self { rig: Rig::in_memory(retention, |_| {}).await }
    }

    pub(crate) fn at(&mut self, ms: u64) {
        self.rig.client.clock.step_to(UNIX_EPOCH + Duration::from_millis(ms));
    }

    /// One fragment, 40 ms from its first block to its last, received at this time.
    async fn put(&mut self, server_ms: u64, producer_ms: u64) -> String {
        self.at(server_ms);
        let acks = self.rig.client.put_whole("cam1", &body(&[producer_ms])).await;
        persisted(&acks)[0].to_string()
    }

    async fn numbers(&self, selector: Value) -> Vec<String> {
        let answer = self.rig.client.get_media("cam1", selector).await.end().await.expect("ends well");
        chunks(&answer).iter().map(|chunk| chunk.number().to_owned()).collect()
    }
}

fn seconds(ms: u64) -> f64 {
    kvs::api::seconds(ms)
}

#[tokio::test(start_paused = true)]
async fn all_six_selectors_begin_where_they_say() {
    let mut timed = Timed::new(24).await;
    let mut put = Vec::new();
    for index in 0..4 {
        put.push(timed.put(BEGIN_MS + index * 1_000, 50_000 + index * 2_000).await);
    }
    let select = |kind: &str, rest: Value| {
        let mut selector = json!({ "StartSelectorType": kind });
        selector.as_object_mut().expect("an object").extend(rest.as_object().expect("an object").clone());
        selector
    };
    let time = |ms: u64| json!({ "StartTimestamp": seconds(ms) });
    for (kind, rest, first) in [
        ("EARLIEST", json!({}), 0),
        ("NOW", json!({}), 3),
        ("FRAGMENT_NUMBER", json!({ "AfterFragmentNumber": put[1] }), 2),
        ("CONTINUATION_TOKEN", json!({ "ContinuationToken": put[0] }), 1),
        ("FRAGMENT_NUMBER", json!({ "AfterFragmentNumber": put[3] }), 4),
        ("SERVER_TIMESTAMP", time(0), 0),
        ("SERVER_TIMESTAMP", time(BEGIN_MS + 1_000), 1),
        ("SERVER_TIMESTAMP", time(BEGIN_MS + 1_040), 1),
        ("SERVER_TIMESTAMP", time(BEGIN_MS + 1_041), 2),
        ("SERVER_TIMESTAMP", time(BEGIN_MS + 9_000), 4),
        ("PRODUCER_TIMESTAMP", time(50_001), 0),
        ("PRODUCER_TIMESTAMP", time(51_000), 1),
        ("PRODUCER_TIMESTAMP", time(56_040), 3),
        ("PRODUCER_TIMESTAMP", time(56_041), 4),
    ] {
        assert_eq!(timed.numbers(select(kind, rest.clone())).await, put[first..], "{kind} {rest}");
    }
    for (kind, rest) in [
        ("FRAGMENT_NUMBER", json!({})),
        ("FRAGMENT_NUMBER", json!({ "AfterFragmentNumber": "12" })),
        ("CONTINUATION_TOKEN", json!({ "ContinuationToken": "not-a-token" })),
        ("SERVER_TIMESTAMP", json!({})),
        ("LATEST", json!({})),
    ] {
        let input = json!({ "StreamName": "cam1", "StartSelector": select(kind, rest) });
        let error = timed.rig.client.call("/getMedia", input).await.error();
        assert_eq!(error, (400, "InvalidArgumentException".to_owned()), "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn millis_behind_now_is_the_servers_clock_less_the_fragments() {
    let mut timed = Timed::new(24).await;
    timed.put(BEGIN_MS, 1_000).await;
    timed.at(BEGIN_MS + 12_345);
    let chunks = chunks(&timed.rig.client.read_all("cam1").await);
    assert_eq!(chunks[0].closing[0].1, "12345");
    assert_eq!(chunks[0].opening[1].1, "1795187314.000");
}

#[tokio::test(start_paused = true)]
async fn retention_removes_what_is_older_and_a_restart_does_not_bring_it_back() {
    let mut timed = Timed::new(2).await;
    let early = timed.put(BEGIN_MS, 1_000).await;
    let late = timed.put(BEGIN_MS + HOUR_MS, 2_000).await;
    timed.at(BEGIN_MS + 2 * HOUR_MS);
    assert_eq!(
        timed.numbers(json!({ "StartSelectorType": "EARLIEST" })).await,
        [early.clone(), late.clone()]
    );
    timed.at(BEGIN_MS + 2 * HOUR_MS + 1);
    assert_eq!(timed.numbers(json!({ "StartSelectorType": "EARLIEST" })).await, std::slice::from_ref(&late));

    // Decreasing it drops old data at once; the version is wanted.
    let describe = timed.rig.client.call("/describeStream", json!({ "StreamName": "cam1" })).await.json();
    let mut change = json!({
        "StreamName": "cam1", "CurrentVersion": "old", "Operation": "DECREASE_DATA_RETENTION",
        "DataRetentionChangeInHours": 1,
    });
    let refused = timed.rig.client.call("/updateDataRetention", change.clone()).await.error();
    assert_eq!(refused, (400, "VersionMismatchException".to_owned()));
    change["CurrentVersion"] = describe["StreamInfo"]["Version"].clone();
    assert_eq!(timed.rig.client.call("/updateDataRetention", change).await.status, 200);
    assert_eq!(timed.rig.server.fragments("cam1").await.expect("listed"), []);
    assert_eq!(timed.rig.server.disk_used_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn retention_is_enforced_even_if_nobody_asks() {
    let rig = Rig::in_memory(1, |_| {}).await;
    assert_eq!(persisted(&rig.client.put_whole("cam1", &body(&[1_000])).await).len(), 1);
    for (wait_s, there) in [(3_600, true), (122, false)] {
        rig.client.clock.sleep(Duration::from_secs(wait_s)).await;
        assert_eq!(rig.server.disk_used_bytes() > 0, there, "after {wait_s} s more");
    }
}

#[tokio::test(start_paused = true)]
async fn without_retention_nothing_is_persisted_but_the_latest_can_be_read() {
    let mut timed = Timed::new(0).await;
    let acks = timed.rig.client.put_whole("cam1", &body(&[1_000, 2_000])).await;
    assert_eq!(crate::client::names(&acks), ["BUFFERING", "RECEIVED", "BUFFERING", "RECEIVED"]);
    assert_eq!(timed.numbers(json!({ "StartSelectorType": "EARLIEST" })).await.len(), 2);
    assert_eq!(timed.rig.server.disk_used_bytes(), 0);
    let error = timed.rig.client.call("/listFragments", json!({ "StreamName": "cam1" })).await.error();
    assert_eq!(error, (400, "NoDataRetentionException".to_owned()));
    timed.at(BEGIN_MS + 5 * 60 * 1000 + 1);
    assert_eq!(timed.numbers(json!({ "StartSelectorType": "EARLIEST" })).await, [""; 0]);

    let rig = Rig::in_memory(0, |options| options.limits.buffer_bytes = 1_000).await;
    rig.client.put_whole("cam1", &body(&[1_000, 2_000, 3_000])).await;
    let chunks = chunks(&rig.client.read_all("cam1").await);
    assert_eq!(chunks.len(), 1, "the newest that fits");
    assert_eq!(chunks[0].cluster, cluster(3_000));
}

async fn list(timed: &Timed, mut input: Value) -> Vec<Value> {
    let mut rows = Vec::new();
    loop {
        let page = timed.rig.client.call("/listFragments", input.clone()).await.json();
        rows.extend(page["Fragments"].as_array().expect("a list").clone());
        match &page["NextToken"] {
            Value::Null => return rows,
            token => input["NextToken"] = token.clone(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn fragments_are_listed_by_their_start_in_pages_without_order() {
    let mut timed = Timed::new(24).await;
    let mut put = Vec::new();
    for index in 0..20 {
        put.push(timed.put(BEGIN_MS + index * 1_000, 50_000 + index * 1_000).await);
    }
    let number = |row: &Value| row["FragmentNumber"].as_str().expect("text").to_owned();
    let all: Vec<_> =
        list(&timed, json!({ "StreamName": "cam1", "MaxResults": 3 })).await.iter().map(number).collect();
    let mut sorted = all.clone();
    sorted.sort();
    assert_eq!(sorted, put);
    assert_ne!(sorted, all, "a client that counts on an order must notice");

    for kind in ["SERVER_TIMESTAMP", "PRODUCER_TIMESTAMP"] {
        let base = if kind == "SERVER_TIMESTAMP" { BEGIN_MS } else { 50_000 };
        let select = |from: u64, to: u64| {
            json!({ "StreamName": "cam1", "FragmentSelector": {
                "FragmentSelectorType": kind,
                "TimestampRange": { "StartTimestamp": seconds(from), "EndTimestamp": seconds(to) },
            } })
        };
        let mut rows = list(&timed, select(base + 5_000, base + 7_000)).await;
        rows.sort_by_key(number);
        assert_eq!(rows.iter().map(number).collect::<Vec<_>>(), put[5..=7], "both ends belong to it");
        assert_eq!(list(&timed, select(base + 5_001, base + 5_999)).await, [json!(null); 0]);
        assert_eq!(rows[0]["FragmentLengthInMilliseconds"], 40);
        assert_eq!(rows[0]["FragmentSizeInBytes"], body(&[1_000]).len());
        assert_eq!(rows[0]["ServerTimestamp"], seconds(BEGIN_MS + 5_000));
        assert_eq!(rows[0]["ProducerTimestamp"], 55.0);
        let error = timed.rig.client.call("/listFragments", select(2_000, 1_000)).await.error();
        assert_eq!(error, (400, "InvalidArgumentException".to_owned()));
    }
    for bad in [json!({ "MaxResults": 0 }), json!({ "MaxResults": 1001 }), json!({ "NextToken": "x" })] {
        let mut input = json!({ "StreamName": "cam1" });
        input.as_object_mut().expect("an object").extend(bad.as_object().expect("an object").clone());
        let error = timed.rig.client.call("/listFragments", input).await.error();
        assert_eq!(error, (400, "InvalidArgumentException".to_owned()), "{bad}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fragment_list_comes_in_the_order_asked_for_with_a_notice_for_what_is_missing() {
    let mut timed = Timed::new(24).await;
    let first = timed.put(BEGIN_MS, 1_000).await;
    let second = timed.put(BEGIN_MS + 1_000, 2_000).await;
    let gone = timed.put(BEGIN_MS + 2_000, 3_000).await;
    timed.rig.server.delete_fragment("cam1", &gone).await.expect("there");
    let ask = |numbers: &[&str]| json!({ "StreamName": "cam1", "Fragments": numbers });
    let answer = timed.rig.client.call("/getMediaForFragmentList", ask(&[&second, &gone, &first])).await;
    assert_eq!(answer.headers["content-type"], "video/webm");
    let found: Vec<Chunk> = chunks(&answer.body);
    assert_eq!(found.len(), 3);
    assert_eq!((found[0].number(), &found[0].cluster), (second.as_str(), &cluster(2_000)));
    assert_eq!((found[2].number(), &found[2].cluster), (first.as_str(), &cluster(1_000)));
    assert_eq!(found[0].front, head(1));
    assert!(found.iter().all(|chunk| chunk.closing.is_empty()));
    let names: Vec<_> = found[1].opening.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [kvs::tag::FRAGMENT_NUMBER, kvs::tag::EXCEPTION_ERROR_CODE, kvs::tag::EXCEPTION_MESSAGE]
    );
    assert_eq!(found[1].number(), gone);
    for bad in [ask(&[]), ask(&["12"]), ask(&vec![first.as_str(); 1001])] {
        let error = timed.rig.client.call("/getMediaForFragmentList", bad).await.error();
        assert_eq!(error, (400, "InvalidArgumentException".to_owned()));
    }
}

#[tokio::test]
async fn three_readers_may_read_and_a_slot_comes_free_when_one_leaves() {
    let rig = Rig::with(1, |options| options.limits.get_media_idle_end = None).await;
    let earliest = || json!({ "StartSelectorType": "EARLIEST" });
    let mut readers: Vec<Reader> = Vec::new();
    for _ in 0..3 {
        readers.push(rig.client.get_media("cam1", earliest()).await);
    }
    let input = json!({ "StreamName": "cam1", "StartSelector": earliest() });
    let error = rig.client.call("/getMedia", input).await.error();
    assert_eq!(error, (400, "ConnectionLimitExceededException".to_owned()));
    readers.pop();
    // Closing and opening at once must work: the server waits a moment for the close.
    readers.push(rig.client.get_media("cam1", earliest()).await);
    assert_eq!(rig.server.connections("cam1").expect("there").get_media_ever, 4);
}

/// 40 MB of fragments and a reader that takes nothing: what the server holds for it is a few pieces.
#[tokio::test]
async fn a_reader_that_stands_still_holds_up_nobody() {
    let rig = Rig::new(1).await;
    let large = |timecode: u64| {
        let block = crate::mkv::block(1, 0, &vec![0x55; 4 << 20]);
        [media::mkv::write::cluster_start(timecode).to_vec(), block].concat()
    };
    let stuck = {
        rig.client.put_whole("cam1", &[head(1), large(1_000), large(2_000)].concat()).await;
        rig.client.get_media("cam1", json!({ "StartSelectorType": "EARLIEST" })).await
    };
    let more: Vec<u8> = (3..11).flat_map(|index| large(index * 1_000)).collect();
    let acks = rig.client.put_whole("cam1", &[head(1), more].concat()).await;
    assert_eq!(persisted(&acks).len(), 8, "the producer is not slowed down");
    let mut other = rig.client.get_media("cam1", json!({ "StartSelectorType": "EARLIEST" })).await;
    assert_eq!(chunks(&other.end().await.expect("ends well")).len(), 10);
    let mut stuck = stuck;
    assert_eq!(chunks(&stuck.end().await.expect("ends well")).len(), 10, "it gets all when it reads again");
}

#[tokio::test]
async fn an_answer_follows_the_producer_over_its_sessions() {
    let rig = Rig::with(1, |options| options.limits.get_media_idle_end = None).await;
    let mut reader = rig.client.get_media("cam1", json!({ "StartSelectorType": "NOW" })).await;
    for timecode in [1_000, 2_000, 3_000] {
        rig.client.put_whole("cam1", &[body(&[timecode]), end_of_fragment()].concat()).await;
    }
    let whole = 3 * (body(&[1_000]).len() + end_of_fragment().len() + 200);
    reader.until(whole).await;
    while chunk_ends(&reader.bytes) < 3 {
        assert!(reader.more().await.expect("no break"));
    }
    rig.server.end_get_media("cam1").expect("there");
    let found = chunks(&reader.end().await.expect("ends well"));
    let found: Vec<_> = found.into_iter().map(|chunk| chunk.cluster).collect();
    assert_eq!(found, [1_000, 2_000, 3_000].map(cluster));
}

fn chunk_ends(bytes: &[u8]) -> usize {
    bytes.windows(35).filter(|window| window == b"AWS_KINESISVIDEO_CONTINUATION_TOKEN").count()
}

#[tokio::test]
async fn an_answer_ends_in_the_middle_of_a_fragment_whose_producer_is_lost() {
    let rig = Rig::with(1, |options| options.limits.get_media_idle_end = None).await;
    let mut session = rig.client.put_media("cam1").await;
    session.send(&body(&[1_000, 2_000])).await;
    session.until("PERSISTED").await;
    let mut reader = rig.client.get_media("cam1", json!({ "StartSelectorType": "EARLIEST" })).await;
    while chunk_ends(&reader.bytes) < 1 {
        assert!(reader.more().await.expect("no break"));
    }
    session.hang_up();
    let answer = reader.end().await.expect("ends without a mark");
    let found = chunks(&answer);
    assert!(found[1..].iter().all(|chunk| chunk.closing.is_empty()), "no closing tags for what was lost");
    assert_eq!(rig.server.fragments("cam1").await.expect("listed").len(), 1);
}
