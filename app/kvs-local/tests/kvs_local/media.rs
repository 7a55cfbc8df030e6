//! What goes in by PutMedia comes out by GetMedia.

use serde_json::json;

use crate::client::{Rig, name, names, persisted};
use crate::mkv::{block, body, captured, chunks, cluster, clusters, end_of_fragment, head, recorded, tag};

#[tokio::test]
async fn one_fragment_goes_in_and_comes_out() {
    let rig = Rig::new(1).await;
    let acks = rig.client.put_whole("cam1", &body(&[5_000])).await;
    assert_eq!(names(&acks), ["BUFFERING", "RECEIVED", "PERSISTED"]);
    assert!(acks.iter().all(|ack| ack.timecode_ms == Some(5_000)));

    let chunks = chunks(&rig.client.read_all("cam1").await);
    assert_eq!(chunks.len(), 1);
    assert_eq!(chunks[0].cluster, cluster(5_000));
    assert_eq!(chunks[0].number(), persisted(&acks)[0].to_string());
}

/// The source clip and the real service's answer to its upload.
#[tokio::test]
async fn a_real_clip_comes_back_as_from_the_real_service() {
    let (Some(source), Some(real)) =
        (captured("clusters.mkv"), captured("kinesis_video_renderer_example_output.mkv"))
    else {
        return;
    };
    let rig = Rig::new(1).await;
    let mut session = rig.client.put_media_as("cam1", "RELATIVE", "1519423067.997").await.expect("accepted");
    session.send(&source).await;
    session.finish();
    let acks = session.rest().await;
    assert_eq!(persisted(&acks).len(), 8);

    let ours = chunks(&rig.client.read_all("cam1").await);
    let theirs = chunks(&real);
    assert_eq!(ours.len(), 8);
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours.cluster, theirs.cluster);
        assert_eq!(ours.trailer, theirs.trailer, "the clip's Cues end the last chunk");
        assert_eq!(ours.blocks, theirs.blocks);
        assert_eq!(ours.opening[2], theirs.opening[2], "producer timestamp");
        let names = |tags: &[(String, String)]| tags.iter().map(|tag| tag.0.clone()).collect::<Vec<_>>();
        assert_eq!(names(&ours.opening), names(&theirs.opening));
        assert_eq!(names(&ours.closing), names(&theirs.closing));
        assert_eq!(ours.closing[1].1, ours.number());
        // Same width of each element, so the same length as the service's own.
        assert_eq!(ours.opening_raw.len(), theirs.opening_raw.len());
    }
    // EBML header and Segment start, Info and Tracks are the service's, byte for byte. Between them the clip's
    // SeekHead differs: the file that was uploaded then had no tags. Ours come back in the first chunk only.
    let info = 282;
    for (index, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        assert_eq!(ours.front[..59], theirs.front[..59]);
        let (ours, theirs) = (&ours.front[info..], &theirs.front[info..]);
        assert_eq!(theirs[..4], [0x15, 0x49, 0xa9, 0x66]);
        assert!(ours.starts_with(theirs), "chunk {index}");
        assert_eq!(ours.len() > theirs.len(), index == 0, "chunk {index}");
    }
}

#[tokio::test]
async fn bodies_of_the_official_producer_are_accepted() {
    for (file, fragments) in
        [("ok_put_001.mkv", 5), ("hevc_put_001.mkv", 3), ("av_put_001.mkv", 3), ("err_put_002.mkv", 2)]
    {
        let rig = Rig::new(1).await;
        let source = recorded(file);
        // END_OF_FRAGMENT closes the last fragment: the body need not end for its acks to come.
        let mut session = rig.client.put_media("cam1").await;
        session.send(&source).await;
        let mut acks = Vec::new();
        while persisted(&acks).len() < fragments {
            acks.push(session.ack().await.expect("an ack"));
        }
        session.finish();
        assert_eq!(session.rest().await, []);
        assert_eq!(acks.len(), fragments * 3, "{file}");

        let chunks = chunks(&rig.client.read_all("cam1").await);
        let read: Vec<_> = chunks.iter().map(|chunk| chunk.cluster.clone()).collect();
        assert_eq!(read, clusters(&source), "{file}");
        assert_eq!(read.len(), fragments);
        assert_eq!(chunks[fragments - 1].trailer, end_of_fragment_of(&source));
        assert_same_as_oracle(file, &rig.server.fragments("cam1").await.expect("listed"));
    }
}

fn end_of_fragment_of(source: &[u8]) -> Vec<u8> {
    let end: usize = clusters(source).iter().map(Vec::len).sum();
    let first = source.windows(4).position(|window| window == [0x1f, 0x43, 0xb6, 0x75]).expect("a cluster");
    source[first + end..].to_vec()
}

/// Timecodes and block counts as an independent parser found them.
fn assert_same_as_oracle(file: &str, fragments: &[kvs_local::StoredFragment]) {
    let oracle: serde_json::Value = serde_json::from_slice(&recorded("expected.json")).expect("JSON");
    let key = oracle
        .as_object()
        .expect("an object")
        .keys()
        .find(|key| key.ends_with(file))
        .expect("listed")
        .clone();
    let expected: Vec<_> = oracle[&key]["documents"][0]["clusters"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|cluster| (cluster["timecode"].as_u64(), cluster["blocks"].as_u64()))
        .collect();
    let found: Vec<_> =
        fragments.iter().map(|fragment| (Some(fragment.timecode), Some(fragment.blocks))).collect();
    assert_eq!(found, expected, "{file}");
}

/// The recording ends where its connection was cut, at an element's border: only the break tells.
#[tokio::test]
async fn a_fragment_cut_by_a_dropped_connection_is_discarded() {
    let rig = Rig::new(1).await;
    let mut session = rig.client.put_media("cam1").await;
    session.send(&recorded("err_put_001.mkv")).await;
    let mut acks = Vec::new();
    while names(&acks).iter().filter(|name| *name == "BUFFERING").count() < 3 || persisted(&acks).len() < 2 {
        acks.push(session.ack().await.expect("an ack"));
    }
    session.hang_up();

    // The next producer waits for the old session to be gone.
    let again = rig.client.put_whole("cam1", &recorded("err_put_002.mkv")).await;
    let numbers: Vec<_> = persisted(&acks).into_iter().chain(persisted(&again)).collect();
    assert_eq!(numbers.len(), 4);
    let stored = rig.server.fragments("cam1").await.expect("listed");
    let stored: Vec<_> = stored.into_iter().map(|fragment| fragment.number).collect();
    assert_eq!(stored, numbers.iter().map(ToString::to_string).collect::<Vec<_>>());
}

#[tokio::test]
async fn acks_come_in_the_order_of_the_service() {
    let rig = Rig::new(1).await;
    let acks = rig.client.put_whole("cam1", &body(&[1_000, 2_000, 3_000])).await;
    let told: Vec<_> = acks.iter().map(|ack| (name(ack), ack.timecode_ms.expect("has one"))).collect();
    for timecode in [1_000, 2_000, 3_000] {
        let at =
            |event: &str| told.iter().position(|told| *told == (event.to_owned(), timecode)).expect(event);
        assert!(at("BUFFERING") < at("RECEIVED") && at("RECEIVED") < at("PERSISTED"), "{told:?}");
    }
    // What the whole body told at once: the next fragment begins before the last one is on disk.
    assert_eq!(told[2], ("BUFFERING".to_owned(), 2_000));

    // Sequence numbers: one more each, and a jump to the next session.
    let numbers = persisted(&acks);
    let again = persisted(&rig.client.put_whole("cam1", &body(&[4_000])).await);
    assert_eq!(numbers[1].sequence(), numbers[0].sequence() + 1);
    assert_eq!(numbers[2].sequence(), numbers[0].sequence() + 2);
    assert_eq!(again[0].sequence(), numbers[0].sequence() + 1000);
    assert!(again[0] > numbers[2]);
}

#[tokio::test]
async fn a_chunk_has_the_shape_of_the_service() {
    let rig = Rig::new(1).await;
    let producer =
        [head(1), tag("A", "1"), cluster(1_000), tag("B", "2"), tag("C", "3"), cluster(2_000)].concat();
    rig.client.put_whole("cam1", &producer).await;
    let answer = rig.client.read_all("cam1").await;
    let chunks = chunks(&answer);
    assert_eq!(chunks.len(), 2);
    // Ours is written with an 8-byte unknown Segment size already, so nothing is rewritten.
    assert_eq!(chunks[0].front, [head(1), tag("A", "1")].concat());
    assert_eq!(chunks[1].front, head(1));
    assert_eq!(
        chunks[0].trailer,
        [tag("B", "2"), tag("C", "3")].concat(),
        "tags of the next come with this one"
    );
    assert_eq!(chunks[1].trailer, b"");
    for (chunk, producer) in chunks.iter().zip(["1.000", "2.000"]) {
        let number: kvs::FragmentNumber = chunk.number().parse().expect("a number");
        let server = kvs::tag::format_seconds(number.server_time_ms());
        let names: Vec<_> = chunk.opening.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [kvs::tag::FRAGMENT_NUMBER, kvs::tag::SERVER_TIMESTAMP, kvs::tag::PRODUCER_TIMESTAMP]
        );
        assert_eq!(chunk.opening[1].1, server);
        assert_eq!(chunk.opening[2].1, producer);
        let names: Vec<_> = chunk.closing.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, [kvs::tag::MILLIS_BEHIND_NOW, kvs::tag::CONTINUATION_TOKEN]);
        assert!(chunk.closing[0].1.parse::<u64>().is_ok());
        assert_eq!(chunk.closing[1].1, chunk.number());
        assert_eq!(chunk.opening_raw[..5], [0x12, 0x54, 0xc3, 0x67, 0x10], "sizes are 4 bytes wide");
    }
}

#[tokio::test]
async fn the_segment_size_is_rewritten_and_known_cluster_sizes_stay() {
    let rig = Rig::new(1).await;
    let mut header = head(1);
    let at =
        header.windows(12).position(|window| window[..4] == [0x18, 0x53, 0x80, 0x67]).expect("a Segment");
    header.splice(at + 4..at + 12, [0xff]);
    let open = cluster(1_000);
    let size = u32::try_from(open.len() - 12).expect("small") | 0x1000_0000;
    let sized = [&open[..4], &size.to_be_bytes(), &open[12..]].concat();
    rig.client.put_whole("cam1", &[header, sized.clone()].concat()).await;
    let chunks = chunks(&rig.client.read_all("cam1").await);
    assert_eq!(chunks[0].front, head(1));
    assert_eq!(chunks[0].cluster, sized);
}

#[tokio::test]
async fn bytes_come_out_while_the_fragment_is_still_going_in() {
    let rig = Rig::with(1, |options| options.limits.get_media_idle_end = None).await;
    let mut session = rig.client.put_media("cam1").await;
    let whole = cluster(1_000);
    let (begin, rest) = whole.split_at(whole.len() - block(1, 40, &[0; 100]).len());
    session.send(&[head(1), begin.to_vec()].concat()).await;
    session.until("BUFFERING").await;
    let mut reader = rig.client.get_media("cam1", json!({ "StartSelectorType": "NOW" })).await;
    let contains = |bytes: &[u8]| bytes.windows(begin.len()).any(|window| window == begin);
    while !contains(&reader.bytes) {
        assert!(reader.more().await.expect("no break"));
    }
    session.send(&[rest.to_vec(), end_of_fragment()].concat()).await;
    session.until("PERSISTED").await;
    while !reader.bytes.windows(28).any(|window| window == b"AWS_KINESISVIDEO_CONTINUATIO") {
        assert!(reader.more().await.expect("no break"));
    }
    rig.server.end_get_media("cam1").expect("there");
    let chunks = chunks(&reader.end().await.expect("ends silently"));
    assert_eq!(chunks[0].cluster, whole);
    assert_eq!(chunks[0].trailer, end_of_fragment());
}

#[tokio::test]
async fn whole_fragments_only_if_so_wanted() {
    let rig = Rig::with(1, |options| options.stream_while_receiving = false).await;
    let mut session = rig.client.put_media("cam1").await;
    session.send(&body(&[1_000, 2_000])).await;
    session.until("PERSISTED").await;
    // The second fragment is open: the answer ends without it.
    let found = chunks(&rig.client.read_all("cam1").await);
    assert_eq!(found.len(), 1);
    // One is always open while a producer is there: the newest is the newest whole one.
    let mut reader = rig.client.get_media("cam1", json!({ "StartSelectorType": "NOW" })).await;
    let newest = chunks(&reader.end().await.expect("ends silently"));
    assert_eq!((newest.len(), &newest[0].cluster), (1, &found[0].cluster));
    session.finish();
    session.until("PERSISTED").await;
}
