//! The chunk reader against answers of the real service, judged by a parse that shares no code with ours.
//!
//! The captures are third-party files and stay outside this repository: `KVS_EDGE_TEST_CAPTURES` names their folder.

use std::path::PathBuf;

use bytes::Bytes;
use kvs::cluster_sums::{ClusterHasher, ClusterSums};
use kvs::read::chunk::{Answer, Chunk, ChunkReader, Event};
use kvs::read::documents::{Document, Documents};
use kvs::read::tree::tree;
use media::mkv::read::{EventKind, Limits, Parser};
use serde_json::Value;

fn data() -> Option<PathBuf> {
    let folder = std::env::var_os("KVS_EDGE_TEST_CAPTURES").map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: KVS_EDGE_TEST_CAPTURES names no folder (a peer of cargo xtask test --peers)");
    }
    folder
}

fn chunks(bytes: &[u8], size: usize, answer: Answer) -> Vec<Chunk> {
    let mut reader = ChunkReader::new(answer);
    let mut chunks = Vec::new();
    let mut keep = |event| {
        if let Event::End(chunk) = event {
            chunks.push(chunk);
        }
    };
    for piece in bytes.chunks(size) {
        reader.push(Bytes::copy_from_slice(piece));
        while let Some(event) = reader.next_event().expect("a real answer is understood") {
            keep(event);
        }
    }
    while let Some(event) = reader.finish(true).expect("a real answer is understood") {
        keep(event);
    }
    chunks
}

#[test]
fn real_get_media_answers_give_what_the_outside_parse_says() {
    let Some(folder) = data() else { return };
    let expected: Value =
        serde_json::from_slice(&std::fs::read(folder.join("expected.json")).expect("readable"))
            .expect("JSON");
    for name in [
        "output_get_media.mkv",
        "output_get_media_sparse_fragments.mkv",
        "kinesis_video_renderer_example_output.mkv",
        "empty-mkv-with-tags.mkv",
    ] {
        let path = format!("parser-library/{name}");
        let documents = expected[&path]["documents"].as_array().expect("documents");
        let bytes = std::fs::read(folder.join(&path)).expect("readable");
        for size in [1460, 64 * 1024, bytes.len()] {
            let found = chunks(&bytes, size, Answer::GetMedia);
            assert_eq!(found.len(), documents.len(), "{name}: no chunk is lost, the last one neither");
            found.iter().zip(documents).for_each(|(chunk, document)| compare(name, chunk, document));
        }
    }
}

fn documents(bytes: &[u8], size: usize) -> Vec<Document> {
    let (mut reader, mut found) = (Documents::default(), Vec::new());
    for piece in bytes.chunks(size) {
        reader.push(Bytes::copy_from_slice(piece));
        while let Some(document) = reader.next_document().expect("a real answer is understood") {
            found.push(document);
        }
    }
    while let Some(document) = reader.finish(true).expect("a real answer is understood") {
        found.push(document);
    }
    found
}

/// And each document is where that parse has it, with its tags, and has its elements at their places.
#[test]
fn real_answers_fall_into_the_documents_that_the_outside_parse_says() {
    let Some(folder) = data() else { return };
    let expected: Value =
        serde_json::from_slice(&std::fs::read(folder.join("expected.json")).expect("readable"))
            .expect("JSON");
    let files =
        expected.as_object().expect("by name").iter().filter(|(name, _)| name.starts_with("parser-library/"));
    let mut count = 0;
    for (path, file) in files {
        let bytes = std::fs::read(folder.join(path)).expect("readable");
        let expected = file["documents"].as_array().expect("documents");
        let number = |value: &Value| usize::try_from(value.as_u64().expect("an offset")).expect("small");
        let begins: Vec<usize> = expected.iter().map(|document| number(&document["offset"])).collect();
        let ends = begins.iter().skip(1).copied().chain([bytes.len()]);
        for size in [1460, bytes.len()] {
            let found = documents(&bytes, size);
            assert_eq!(found.len(), expected.len(), "{path}");
            for (index, (found, end)) in found.iter().zip(ends.clone()).enumerate() {
                assert!(found.bytes() == bytes[begins[index]..end], "{path}: document {index}");
            }
        }
        for (found, expected) in documents(&bytes, bytes.len()).iter().zip(expected) {
            let aws = |key: &str| expected["aws"][key].as_str();
            for key in [
                "FRAGMENT_NUMBER",
                "SERVER_TIMESTAMP",
                "PRODUCER_TIMESTAMP",
                "MILLIS_BEHIND_NOW",
                "CONTINUATION_TOKEN",
            ] {
                assert_eq!(found.tag(&format!("AWS_KINESISVIDEO_{key}")), aws(key), "{path}");
            }
            assert_eq!(
                found.number.map(|number| number.to_string()).as_deref(),
                aws("FRAGMENT_NUMBER"),
                "{path}"
            );
            let clusters = expected["clusters"].as_array().expect("clusters");
            let blocks: u64 =
                clusters.iter().map(|cluster| cluster["blocks"].as_u64().expect("a count")).sum();
            assert_eq!(found.blocks, blocks, "{path}");
            let (elements, error) = tree(found.bytes());
            assert_eq!(error, None, "{path}");
            let in_segment =
                elements.iter().skip_while(|one| one.name != "Segment").filter(|one| one.depth == 1);
            let top: Vec<&str> = in_segment.map(|one| &*one.name).collect();
            let expected_top: Vec<_> =
                expected["top"].as_array().expect("names").iter().map(|name| name.as_str()).collect();
            assert_eq!(top.into_iter().map(Some).collect::<Vec<_>>(), expected_top, "{path}");
            let begin = expected["offset"].as_u64().expect("an offset");
            let at = |cluster: &Value| cluster["offset"].as_u64().expect("an offset") - begin;
            let places = elements.iter().filter(|one| one.name == "Cluster").map(|one| one.offset);
            assert_eq!(places.collect::<Vec<_>>(), clusters.iter().map(at).collect::<Vec<_>>(), "{path}");
            count += 1;
        }
    }
    assert_eq!(count, 18, "documents of five files");
}

fn compare(name: &str, chunk: &Chunk, document: &Value) {
    let aws = |key: &str| document["aws"][key].as_str().map(str::to_owned);
    assert_eq!(chunk.start.number.map(|n| n.to_string()), aws("FRAGMENT_NUMBER"), "{name}");
    assert_eq!(
        chunk.start.server_timestamp_ms.map(kvs::tag::format_seconds),
        aws("SERVER_TIMESTAMP"),
        "{name}"
    );
    assert_eq!(
        chunk.start.producer_timestamp_ms.map(kvs::tag::format_seconds),
        aws("PRODUCER_TIMESTAMP"),
        "{name}"
    );
    assert_eq!(chunk.continuation_token, aws("CONTINUATION_TOKEN"), "{name}");
    assert_eq!(chunk.millis_behind_now.map(|ms| ms.to_string()), aws("MILLIS_BEHIND_NOW"), "{name}");
    assert_eq!(chunk.complete, chunk.continuation_token.is_some(), "{name}");
    let number = chunk.start.number.expect("every chunk has one");
    assert_eq!(
        Some(number.server_time_ms()),
        chunk.start.server_timestamp_ms,
        "{name}: the number holds the time"
    );
    let clusters = document["clusters"].as_array().expect("clusters");
    let Some(expected) = clusters.first() else {
        assert!(chunk.cluster.is_none(), "{name}");
        return;
    };
    let cluster = chunk.cluster.as_ref().expect("a cluster");
    assert_eq!(u64::from(cluster.blocks), expected["blocks"], "{name}");
    assert_eq!(u64::from(cluster.key_blocks), expected["key_blocks"], "{name}");
    assert_eq!(cluster.timecode_ms, expected["timecode"], "{name}");
    assert_eq!(cluster.sums.payload.to_string(), expected["payload_sha256"], "{name}");
    let offset = |key: &str| expected[key].as_u64().expect("an offset");
    assert_eq!(cluster.bytes, offset("end") - offset("offset"), "{name}");
}

/// What went in came out: the clusters of the uploaded clip and of the real answer hash alike.
#[test]
fn an_uploaded_cluster_comes_back_byte_for_byte() {
    let Some(folder) = data() else { return };
    let read = |name: &str| std::fs::read(folder.join("parser-library").join(name)).expect("readable");
    let answer = chunks(&read("kinesis_video_renderer_example_output.mkv"), 4096, Answer::GetMedia);
    let put = read("clusters.mkv");
    for chunk in answer {
        let cluster = chunk.cluster.expect("a cluster");
        let sums = sums(&put, cluster.timecode_ms);
        assert_eq!(sums, (cluster.sums, cluster.bytes), "cluster at {} ms", cluster.timecode_ms);
    }
}

/// Sums and length of the cluster with this timecode in the uploaded file.
fn sums(put: &[u8], timecode_ms: u64) -> (ClusterSums, u64) {
    let mut parser = Parser::new(Limits::default());
    parser.push(Bytes::copy_from_slice(put));
    let (mut hasher, mut wanted) = (ClusterHasher::default(), false);
    while let Ok(Some(event)) = parser.next_event() {
        match event.kind {
            EventKind::ClusterStart { .. } => hasher = ClusterHasher::default(),
            EventKind::ClusterEnd if wanted => return hasher.finish(),
            EventKind::Timecode { ms } => wanted = ms == timecode_ms,
            _ => {}
        }
        if matches!(event.kind, EventKind::Block { .. }) {
            let [before, behind] = event.around_body();
            hasher.head(before);
            hasher.payload(event.body());
            hasher.head(behind);
        } else {
            hasher.head(&event.raw);
        }
    }
    panic!("no cluster at {timecode_ms} ms");
}
