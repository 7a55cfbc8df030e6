//! Reads recordings and captures that others made, and compares with parses that others made.

mod support;

use std::collections::BTreeMap;

use bytes::Bytes;
use media::mkv::elements::{Info, tags, tracks};
use media::mkv::id;
use media::mkv::read::{Event, EventKind};
use media::{VideoCodec, VideoFormat};
use serde_json::{Value, json};

use support::{cut, raw, read, read_chunks, recorded, sha256_hex, shape, third_party, unhex};

const RECORDED: [&str; 5] =
    ["ok_put_001.mkv", "hevc_put_001.mkv", "av_put_001.mkv", "err_put_001.mkv", "err_put_002.mkv"];

#[test]
fn recorded_putmedia_bodies_read_as_the_independent_parse_says() {
    let expected: Value = serde_json::from_slice(&recorded("expected.json")).unwrap();
    for name in RECORDED {
        check_file(name, &recorded(name), &expected[name]);
    }
}

#[test]
fn real_getmedia_captures_read_as_the_independent_parse_says() {
    let Some(expected) = third_party("expected.json") else { return };
    let expected: BTreeMap<String, Value> = serde_json::from_slice(&expected).unwrap();
    for (name, expected) in expected.iter().filter(|(name, _)| name.starts_with("parser-library/")) {
        let Some(data) = third_party(name) else { continue };
        check_file(name, &data, expected);
    }
}

#[test]
fn a_put_cluster_comes_back_from_the_service_byte_for_byte() {
    let (Some(put), Some(got)) = (
        third_party("parser-library/clusters.mkv"),
        third_party("parser-library/kinesis_video_renderer_example_output.mkv"),
    ) else {
        return;
    };
    let clusters = |data: &Bytes| -> Vec<String> {
        let events = read(data);
        let mut clusters: Vec<Vec<u8>> = Vec::new();
        let mut inside = false;
        for event in &events {
            match event.kind {
                EventKind::ClusterStart { .. } => {
                    inside = true;
                    clusters.push(Vec::new());
                }
                EventKind::ClusterEnd => inside = false,
                _ => {}
            }
            if inside {
                clusters.last_mut().unwrap().extend_from_slice(&event.raw);
            }
        }
        clusters.iter().map(|cluster| sha256_hex(cluster)).collect()
    };
    assert_eq!(clusters(&put).len(), 8);
    assert_eq!(clusters(&put), clusters(&got));
}

/// Compares everything that the independent parse tells, and that three chunkings give the same events.
#[track_caller]
fn check_file(name: &str, data: &Bytes, expected: &Value) {
    assert_eq!(expected["sha256"], sha256_hex(data), "{name}: not the file that was parsed");
    let events = read(data);
    assert!(raw(&events) == data[..], "{name}: the raw parts are not the input");
    for length in [1, 1_460, 65_536] {
        let (again, error) = read_chunks(cut(data, length));
        assert!(again == events && error.is_none(), "{name}: other events in chunks of {length} bytes");
    }
    let documents: Vec<Value> = documents(&events).into_iter().map(describe).collect();
    let expected: Vec<Value> = expected["documents"].as_array().unwrap().iter().map(expectation).collect();
    assert_eq!(documents, expected, "{name}");
}

/// The events of each document, without its end.
fn documents(events: &[Event]) -> Vec<&[Event]> {
    let documents: Vec<&[Event]> = events
        .split(|event| event.kind == EventKind::DocumentEnd)
        .filter(|document| !document.is_empty())
        .collect();
    assert!(documents.iter().all(|document| document[0].kind == EventKind::Ebml));
    documents
}

/// The part of an expected document that `describe` makes, in the same form.
fn expectation(document: &Value) -> Value {
    let tracks: Vec<Value> = document["tracks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|track| {
            json!({"number": track["number"], "kind": track["TrackType"], "codec_id": track["CodecID"],
                   "name": track.get("Name").cloned().unwrap_or(json!("")),
                   "codec_private_sha256_16": track["codec_private_sha256_16"]})
        })
        .collect();
    let mut aws = serde_json::Map::new();
    for (name, value) in document.get("aws").and_then(Value::as_object).into_iter().flatten() {
        aws.insert(format!("AWS_KINESISVIDEO_{name}"), value.clone());
    }
    let producer_tags: Vec<Value> =
        document["producer_tags"].as_array().unwrap().iter().map(|tag| json!([tag[0], tag[1]])).collect();
    json!({"offset": document["offset"], "top": document["top"], "tracks": tracks, "clusters": document["clusters"],
           "segment_size": document["segment_size"], "aws": aws, "producer_tags": producer_tags})
}

fn describe(events: &[Event]) -> Value {
    let (mut top, mut all_tracks, mut clusters) = (Vec::new(), Vec::new(), Vec::new());
    let (mut aws, mut producer_tags) = (serde_json::Map::new(), Vec::new());
    let mut segment_size = Value::Null;
    for (index, event) in events.iter().enumerate() {
        match &event.kind {
            EventKind::SegmentStart { size } => segment_size = size_value(*size),
            EventKind::Element { id } => {
                top.push(media::mkv::name_of(*id).unwrap().to_owned());
                if *id == id::TRACKS {
                    all_tracks = tracks::parse(event.body()).unwrap();
                }
                if *id == id::TAGS {
                    for (name, value) in tags::parse(event.body()).unwrap() {
                        if name.starts_with("AWS_KINESISVIDEO_") {
                            aws.insert(name, value.into());
                        } else {
                            producer_tags.push(json!([name, value]));
                        }
                    }
                }
            }
            EventKind::ClusterStart { .. } => {
                top.push("Cluster".to_owned());
                clusters.push(describe_cluster(&events[index..]));
            }
            _ => {}
        }
    }
    let tracks: Vec<Value> = all_tracks
        .iter()
        .map(|track| {
            json!({"number": track.number, "kind": track.kind, "codec_id": track.codec_id, "name": track.name,
                   "codec_private_sha256_16": &sha256_hex(&track.codec_private)[..16]})
        })
        .collect();
    json!({"offset": events[0].at, "top": top, "tracks": tracks, "clusters": clusters,
           "segment_size": segment_size, "aws": aws, "producer_tags": producer_tags})
}

fn size_value(size: Option<u64>) -> Value {
    size.map_or(json!("unknown"), |size| json!(size))
}

fn describe_cluster(events: &[Event]) -> Value {
    let EventKind::ClusterStart { size } = events[0].kind else { panic!("no cluster starts here") };
    let (mut timecode, mut key_blocks, mut payloads) = (None, 0, Vec::new());
    let mut per_track = BTreeMap::<String, u64>::new();
    let mut end = 0;
    for event in events {
        match &event.kind {
            EventKind::Timecode { ms } => timecode = Some(*ms),
            EventKind::Block { track, key_frame, lacing, .. } => {
                assert_eq!(*lacing, 0);
                key_blocks += u64::from(*key_frame);
                *per_track.entry(track.to_string()).or_default() += 1;
                payloads.extend_from_slice(event.body());
            }
            EventKind::ClusterEnd => {
                end = event.at;
                break;
            }
            _ => {}
        }
    }
    json!({"offset": events[0].at, "size": size_value(size), "timecode": timecode, "end": end,
           "blocks": per_track.values().sum::<u64>(), "key_blocks": key_blocks, "per_track": per_track,
           "payload_bytes": payloads.len(), "payload_sha256": sha256_hex(&payloads)})
}

#[test]
fn a_recorded_body_has_the_shape_of_the_put_media_element_set() {
    let events = read(&recorded("hevc_put_001.mkv"));
    let fragment = format!("Position {}", ["b"; 30].join(" "));
    assert_eq!(
        shape(&events),
        format!(
            "ebml segment( Info Tracks cluster( @1795186142967 {fragment} ) cluster( @1795186144967 {fragment} ) \
             cluster( @1795186146967 {fragment} ) Tags )end"
        )
    );
    assert_eq!(events[2].kind, EventKind::Element { id: id::INFO });
    let info = Info::parse(events[2].body()).unwrap();
    assert_eq!((info.timecode_scale, info.title.as_str()), (1_000_000, "Kinesis Video SDK"));
    assert_eq!(info.writing_app, "Kinesis Video SDK 1.1.0");
    assert!(info.segment_uid.is_some());
}

#[test]
fn recorded_tracks_give_formats_that_agree_with_the_track_entry() {
    for (name, codec) in [("ok_put_001.mkv", VideoCodec::H264), ("hevc_put_001.mkv", VideoCodec::H265)] {
        let events = read(&recorded(name));
        assert_eq!(events[3].kind, EventKind::Element { id: id::TRACKS });
        let track = &tracks::parse(events[3].body()).unwrap()[0];
        let format = VideoFormat::from_codec_private(codec, track.codec_private.clone()).unwrap();
        assert_eq!((format.width, format.height), (track.width, track.height), "{name}");
        assert_eq!((format.width, format.height, format.frame_rate), (320, 240, Some(15.0)), "{name}");
        assert_eq!(format.codec_id(), track.codec_id);
        assert_eq!(format.nal_length_size(), 4);
    }
}

/// The elements of a golden log that this reader tells one by one: (offset, id in hexadecimal, size or -1 for unknown).
fn golden_elements(log: &str) -> Vec<(u64, String, i64)> {
    let (mut elements, mut parent) = (Vec::new(), String::new());
    for line in log.lines() {
        let step: Value = serde_json::from_str(line).unwrap();
        let (Some("peek"), Some(id)) = (step["op"].as_str(), step["id"].as_str()) else { continue };
        let told = match step["depth"].as_u64().unwrap() {
            0 => true,
            1 => parent != "1a45dfa3",
            2 => parent == "1f43b675",
            _ => false,
        };
        if step["depth"].as_u64() <= Some(1) && told {
            parent = id.to_owned();
        }
        if told {
            elements.push((step["offset"].as_u64().unwrap(), id.to_owned(), step["size"].as_i64().unwrap()));
        }
    }
    elements
}

#[test]
fn connect_shaped_documents_give_the_elements_of_their_golden_logs() {
    for name in [
        "connect_real_shape",
        "gap",
        "known_size_cluster",
        "partial_tags",
        "scaled_timestamps",
        "short_block_mid_track",
        "tagless_single",
        "topology_basic",
        "track_order_swapped",
        "two_tracks",
    ] {
        let (Some(text), Some(golden)) = (
            third_party(&format!("connect-shapes/{name}.ebml.hex")),
            third_party(&format!("connect-shapes/golden/{name}.jsonl")),
        ) else {
            return;
        };
        let text = std::str::from_utf8(&text).unwrap();
        let data = unhex(&text.lines().filter(|line| !line.starts_with('#')).collect::<String>());
        let events = read(&data);
        assert_eq!(raw(&events), data, "{name}");
        let found: Vec<_> = events.iter().filter(|event| !event.raw.is_empty()).map(element_of).collect();
        assert_eq!(found, golden_elements(std::str::from_utf8(&golden).unwrap()), "{name}");
    }
}

/// (offset, id in hexadecimal, size or -1) from the event's own bytes.
fn element_of(event: &Event) -> (u64, String, i64) {
    let header = media::mkv::ebml::parse_header(&event.raw).unwrap();
    let size = header.size.map_or(-1, |size| i64::try_from(size).unwrap());
    (event.at, format!("{:x}", header.id), size)
}
