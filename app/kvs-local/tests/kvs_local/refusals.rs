//! Each ERROR id is raised for its cause, and whatever comes as a body, what was kept stays whole.

use std::time::Duration;

use kvs::ack::{Ack, AckEvent};
use kvs_local::{AckKind, Options};
use media::mkv::write::{block_head, cluster_start};
use serde_json::json;

use crate::client::{PutMedia, Rig, name, names, persisted};
use crate::mkv::{block, body, chunks, cluster, end_of_fragment, head, tag};

/// A body that is refused with `error` in or after the fragment with `timecode`; `kept` fragments stay.
async fn check(
    change: impl FnOnce(&mut Options),
    body: Vec<u8>,
    error: u32,
    timecode: Option<i64>,
    kept: usize,
) {
    let rig = Rig::with(1, change).await;
    let mut session = rig.client.put_media("cam1").await;
    session.send(&body).await;
    let acks = refused(&mut session, error).await;
    assert_eq!(acks.last().expect("one at least").timecode_ms, timecode, "{error}");
    assert_eq!(persisted(&acks).len(), kept, "{error}: {:?}", names(&acks));
    assert_eq!(rig.server.fragments("cam1").await.expect("listed").len(), kept);
    let log = rig.server.acks("cam1").expect("there");
    assert_eq!(log.last().expect("one at least").error_id, Some(error));
    assert!(log.last().expect("one at least").reason.is_some());
    // The stream takes the next session.
    drop(session);
    let acks = rig.client.put_whole("cam1", &crate::mkv::body(&[900_000])).await;
    assert_eq!(names(&acks), ["BUFFERING", "RECEIVED", "PERSISTED"]);
}

/// Reads to the end of the answer, which must be this error.
async fn refused(session: &mut crate::client::PutMedia, error: u32) -> Vec<Ack> {
    let acks = session.rest().await;
    assert_eq!(acks.last().map(name), Some(format!("ERROR {error}")), "{:?}", names(&acks));
    if let Some(AckEvent::Error(found)) = acks.last().map(|ack| &ack.event) {
        assert_eq!(*found, kvs::ack::AckError::from_id(error));
    }
    acks
}

fn unchanged(_: &mut Options) {}

#[tokio::test]
async fn a_fragment_too_large_is_4001() {
    let small = |options: &mut Options| options.limits.fragment_bytes = 1_000;
    let large = [cluster_start(2_000).to_vec(), block(1, 0, &[1; 600]), block(1, 20, &[2; 600])].concat();
    check(small, [body(&[1_000]), large].concat(), 4001, Some(2_000), 1).await;
    // One block that only claims its size: refused when the claim is seen.
    let claim = [cluster_start(2_000).to_vec(), block_head(1, 0, true, 1 << 20).to_vec()].concat();
    check(small, [body(&[1_000]), claim].concat(), 4001, Some(2_000), 1).await;
}

#[tokio::test]
async fn a_fragment_too_long_is_4002() {
    let long = [cluster_start(2_000).to_vec(), block(1, 0, b"a"), block(1, 20_001, b"b")].concat();
    check(unchanged, [body(&[1_000]), long].concat(), 4002, Some(2_000), 1).await;
    let rig = Rig::new(1).await;
    let just = [head(1), cluster_start(0).to_vec(), block(1, 0, b"a"), block(1, 20_000, b"b")].concat();
    assert_eq!(persisted(&rig.client.put_whole("cam1", &just).await).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_too_old_is_4003() {
    let rig = Rig::in_memory(1, |options| options.limits.put_media_idle_close = NEVER).await;
    let begin = rig.client.clock.now();
    let mut session = rig.client.put_media("cam1").await;
    session.send(&body(&[1_000, 2_000])).await;
    assert_eq!(persisted(&refused(&mut session, 4003).await).len(), 1);
    assert_eq!(rig.client.clock.since(begin).as_secs(), 45 * 60);
}

#[tokio::test]
async fn times_not_after_the_previous_fragment_are_4004() {
    check(unchanged, body(&[1_000, 1_000]), 4004, Some(1_000), 1).await;
    // Equal to the last block of the previous fragment, at 1,040.
    check(unchanged, body(&[1_000, 1_040]), 4004, Some(1_040), 1).await;
    let rig = Rig::new(1).await;
    assert_eq!(persisted(&rig.client.put_whole("cam1", &body(&[1_000, 1_041])).await).len(), 2);
    // The rule is about one session.
    assert_eq!(persisted(&rig.client.put_whole("cam1", &body(&[500])).await).len(), 1);

    // Over all tracks: late audio of the first fragment lies behind the second one's picture.
    let clusters = [
        [cluster_start(1_000).to_vec(), block(1, 0, b"v"), block(2, 500, b"a")].concat(),
        [cluster_start(1_400).to_vec(), block(1, 0, b"v"), block(2, 200, b"a")].concat(),
    ];
    check(unchanged, [head(2), clusters.concat()].concat(), 4004, Some(1_400), 1).await;
}

#[tokio::test]
async fn what_is_no_matroska_is_4006() {
    for (what, tail, kept) in [
        ("second Segment", head(1), 1),
        ("second Tracks", tracks(), 1),
        ("cluster without time", vec![0x1f, 0x43, 0xb6, 0x75, 0xff, 0xa3, 0x84, 0x81, 0, 0, 0x80], 1),
        ("garbage", b"GARBAGE".to_vec(), 0),
    ] {
        let end = if kept == 1 { end_of_fragment() } else { Vec::new() };
        let rig = Rig::new(1).await;
        let mut session = rig.client.put_media("cam1").await;
        session.send(&[body(&[1_000]), end, tail].concat()).await;
        // Inside a cluster garbage may look like an element of whose bytes some are missing.
        session.finish();
        let acks = refused(&mut session, 4006).await;
        assert_eq!(persisted(&acks).len(), kept, "{what}");
    }
    check(unchanged, b"GARBAGE IN FRONT OF ALL".to_vec(), 4006, None, 0).await;
    check(unchanged, b"{\"StreamName\": \"cam1\"}".to_vec(), 4006, None, 0).await;
    check(unchanged, vec![0; 100_000], 4006, None, 0).await;
    let no_tracks = [media::mkv::write::header([0; 16], "x", &[]).to_vec(), cluster(1_000)].concat();
    check(unchanged, no_tracks, 4006, None, 0).await;
}

fn tracks() -> Vec<u8> {
    let head = head(1);
    let at = head.windows(4).position(|window| window == [0x16, 0x54, 0xae, 0x6b]).expect("Tracks");
    head[at..].to_vec()
}

#[tokio::test]
async fn every_cut_of_a_body_keeps_whole_fragments_only() {
    let whole = body(&[1_000, 2_000]);
    const CLUSTER_START: usize = 12;
    let second = body(&[1_000]).len();
    let rig = Rig::new(1).await;
    let mut kept = 0;
    for length in (0..whole.len()).step_by(23).chain([second, second + 20]) {
        let acks = rig.client.put_whole("cam1", &whole[..length]).await;
        let new = persisted(&acks).len();
        // The first fragment has no end before the second one's cluster has begun.
        if length >= second + CLUSTER_START {
            assert!(new >= 1, "{length}: {:?}", names(&acks));
        }
        kept += new;
    }
    for fragment in rig.server.fragments("cam1").await.expect("listed") {
        kept -= 1;
        let (_, cluster, trailer) = rig.server.fragment("cam1", &fragment.number).await.expect("there");
        let expected = crate::mkv::cluster(fragment.timecode);
        // Cut at a block's border, at the end of a body that ended well, a fragment is whole though shorter.
        assert!(expected.starts_with(&cluster));
        assert!(trailer.is_empty());
    }
    assert_eq!(kept, 0);
}

#[tokio::test]
async fn a_bad_producer_timestamp_is_4007() {
    check(unchanged, body(&[253_402_300_800_000]), 4007, None, 0).await;
    let rig = Rig::new(1).await;
    let mut session =
        rig.client.put_media_as("cam1", "RELATIVE", "253402300799.000").await.expect("accepted");
    session.send(&body(&[0])).await;
    assert_eq!(names(&session.rest_of_one().await), ["BUFFERING"]);
    session.send(&cluster(2_000)).await;
    assert_eq!(persisted(&refused(&mut session, 4007).await).len(), 1);
}

#[tokio::test]
async fn a_stream_deleted_under_its_producer_is_4008() {
    let rig = Rig::new(1).await;
    let mut session = rig.client.put_media("cam1").await;
    session.send(&body(&[1_000, 2_000])).await;
    session.until("PERSISTED").await;
    let arn = rig.client.call("/describeStream", json!({ "StreamName": "cam1" })).await.json()["StreamInfo"]
        ["StreamARN"]
        .clone();
    assert_eq!(rig.client.call("/deleteStream", json!({ "StreamARN": arn })).await.status, 200);
    refused(&mut session, 4008).await;
    let (status, kind) = rig.client.put_media_as("cam1", "ABSOLUTE", "0").await.err().expect("gone").error();
    assert_eq!((status, kind.as_str()), (404, "ResourceNotFoundException"));
}

#[tokio::test]
async fn metadata_over_its_limits_is_4009() {
    let many: Vec<u8> = (0..11).flat_map(|index| tag(&format!("name{index}"), "value")).collect();
    for tags in [many, tag(&"n".repeat(129), "v"), tag("n", &"v".repeat(257)), tag("AWS_SOMETHING", "v")] {
        check(unchanged, [body(&[1_000]), tags, cluster(2_000)].concat(), 4009, Some(1_000), 0).await;
    }
    let full: Vec<u8> = (0..10).flat_map(|index| tag(&format!("{index:0128}"), &"v".repeat(256))).collect();
    let rig = Rig::new(1).await;
    let accepted =
        [head(1), full.clone(), cluster(1_000), full.clone(), cluster(2_000), end_of_fragment()].concat();
    assert_eq!(persisted(&rig.client.put_whole("cam1", &accepted).await).len(), 2);
    assert_eq!(chunks(&rig.client.read_all("cam1").await)[0].trailer, full);
}

#[tokio::test]
async fn an_undeclared_track_is_4010() {
    let foreign = [cluster_start(2_000).to_vec(), block(2, 0, b"x")].concat();
    check(unchanged, [body(&[1_000]), foreign].concat(), 4010, Some(2_000), 1).await;
}

#[tokio::test]
async fn a_silent_track_is_4011() {
    let both = [cluster_start(1_000).to_vec(), block(1, 0, b"v"), block(2, 0, b"a")].concat();
    let silent = [cluster_start(2_000).to_vec(), block(1, 0, b"v")].concat();
    check(unchanged, [head(2), both, silent, end_of_fragment()].concat(), 4011, Some(2_000), 1).await;
}

#[tokio::test]
async fn a_fourth_track_is_4012() {
    let blocks: Vec<u8> = (1..=3).flat_map(|track| block(track, 0, b"x")).collect();
    let rig = Rig::new(1).await;
    let three = [head(3), cluster_start(1_000).to_vec(), blocks].concat();
    assert_eq!(persisted(&rig.client.put_whole("cam1", &three).await).len(), 1);
    check(unchanged, head(4), 4012, None, 0).await;
}

#[tokio::test]
async fn a_full_disk_is_5001_and_spoils_nothing() {
    let one = {
        let rig = Rig::new(1).await;
        rig.client.put_whole("cam1", &body(&[1_000])).await;
        rig.server.disk_used_bytes()
    };
    let rig = Rig::with(1, |options| options.disk_limit_bytes = Some(one * 5 / 2)).await;
    let mut session = rig.client.put_media("cam1").await;
    session.send(&[body(&[1_000, 2_000, 3_000]), end_of_fragment()].concat()).await;
    let acks = refused(&mut session, 5001).await;
    let kept: Vec<_> = persisted(&acks).iter().map(ToString::to_string).collect();
    assert_eq!(kept.len(), 2);
    assert_eq!(acks.last().expect("an ack").timecode_ms, Some(3_000));
    let stored = rig.server.fragments("cam1").await.expect("listed");
    assert_eq!(stored.into_iter().map(|fragment| fragment.number).collect::<Vec<_>>(), kept);
    let read: Vec<_> =
        chunks(&rig.client.read_all("cam1").await).into_iter().map(|chunk| chunk.cluster).collect();
    assert_eq!(read, [cluster(1_000), cluster(2_000)]);
    // With room again, it goes on.
    rig.server.delete_fragment("cam1", &kept[0]).await.expect("there");
    drop(session);
    assert_eq!(persisted(&rig.client.put_whole("cam1", &body(&[4_000])).await).len(), 1);
}

/// A producer that falls silent in its second fragment, with times until an IDLE ack and until the end.
async fn quiet_producer(idle_ack: Duration, idle_close: Duration) -> (Rig, PutMedia) {
    let limits = move |options: &mut Options| {
        options.limits.put_media_idle_ack = idle_ack;
        options.limits.put_media_idle_close = idle_close;
    };
    let rig = Rig::in_memory(1, limits).await;
    let session = rig.client.put_media("cam1").await;
    session.send(&[body(&[1_000]), end_of_fragment(), cluster(2_000)].concat()).await;
    (rig, session)
}

const NEVER: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn a_quiet_producer_gets_idle_acks() {
    let (rig, mut session) = quiet_producer(Duration::from_secs(5), NEVER).await;
    let begin = rig.client.clock.now();
    for count in 1..=3 {
        assert_eq!(session.until("IDLE").await.timecode_ms, None);
        assert_eq!(rig.client.clock.since(begin), Duration::from_secs(count * 5));
    }
    let log = rig.server.acks("cam1").expect("there");
    assert_eq!(log.last().map(|ack| ack.event), Some(AckKind::Idle));
}

#[tokio::test(start_paused = true)]
async fn a_producer_that_stays_quiet_is_closed() {
    let (rig, mut session) = quiet_producer(NEVER, Duration::from_secs(30)).await;
    let begin = rig.client.clock.now();
    let acks = session.rest().await;
    assert_eq!(rig.client.clock.since(begin), Duration::from_secs(30));
    assert_eq!(persisted(&acks).len(), 1, "the open fragment is lost: {:?}", names(&acks));
}

#[tokio::test(start_paused = true)]
async fn the_newest_producer_is_refused() {
    let rig = Rig::in_memory(1, |_| {}).await;
    let mut session = rig.client.put_media("cam1").await;
    let (status, kind) =
        rig.client.put_media_as("cam1", "ABSOLUTE", "0").await.err().expect("refused").error();
    assert_eq!((status, kind.as_str()), (400, "ConnectionLimitExceededException"));
    session.send(&[body(&[1_000]), end_of_fragment()].concat()).await;
    session.until("PERSISTED").await;
    assert_eq!(rig.server.connections("cam1").expect("there").put_media, 1);

    // The old behaviour: sessions interleave.
    let rig = Rig::in_memory(1, |options| options.limits.put_media_per_stream = 2).await;
    let (mut first, mut second) = (rig.client.put_media("cam1").await, rig.client.put_media("cam1").await);
    first.send(&body(&[1_000])).await;
    second.send(&body(&[1_000])).await;
    first.finish();
    second.finish();
    assert_eq!(persisted(&first.rest().await).len() + persisted(&second.rest().await).len(), 2);
}

#[tokio::test]
async fn bad_put_media_headers_are_refused_by_http() {
    let rig = Rig::new(1).await;
    let good = [
        ("x-amzn-stream-name", "cam1"),
        ("x-amzn-fragment-timecode-type", "ABSOLUTE"),
        ("x-amzn-producer-start-timestamp", "1.5"),
    ];
    for (index, value) in [(0, "other"), (1, "absolute"), (1, ""), (2, "now"), (2, "-1")] {
        let mut headers = good;
        headers[index].1 = value;
        let error = rig.client.put_media_with(&headers).await.err().expect("refused").error();
        let expected =
            if index == 0 { (404, "ResourceNotFoundException") } else { (400, "InvalidArgumentException") };
        assert_eq!(error, (expected.0, expected.1.to_owned()), "{value}");
    }
    for missing in 0..3 {
        let mut headers = good.to_vec();
        headers.remove(missing);
        let error = rig.client.put_media_with(&headers).await.err().expect("refused").error();
        assert_eq!(error, (400, "InvalidArgumentException".to_owned()));
    }
    let arn = rig.client.call("/describeStream", json!({ "StreamName": "cam1" })).await.json()["StreamInfo"]
        ["StreamARN"]
        .as_str()
        .expect("text")
        .to_owned();
    let mut by_arn = good.to_vec();
    by_arn.push(("x-amzn-stream-arn", &arn));
    assert!(rig.client.put_media_with(&by_arn).await.is_err(), "name and ARN");
    by_arn.remove(0);
    assert!(rig.client.put_media_with(&by_arn).await.is_ok());
}
