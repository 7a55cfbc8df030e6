//! Fragments shaped like those of Amazon Connect, made by others, and the element events that they expect.
//!
//! The files are third-party and stay outside this repository: `KVS_EDGE_TEST_CAPTURES` names their folder. What they show is
//! also in the tests of `kvs::read::connect`, by fixtures of our own.

#![cfg(feature = "connect-audio")]

use std::path::PathBuf;

use bytes::Bytes;
use kvs::read::connect::{FROM_CUSTOMER, Gaps, Recordings, TO_CUSTOMER};
use kvs::read::contents::Contents;
use kvs::read::documents::{Document, Documents};
use kvs::read::tree::tree;
use media::mkv::name_of;

fn folder() -> Option<PathBuf> {
    let folder =
        std::env::var_os("KVS_EDGE_TEST_CAPTURES").map(|folder| PathBuf::from(folder).join("connect-shapes"));
    if folder.is_none() {
        println!("skipped: KVS_EDGE_TEST_CAPTURES names no folder (a peer of cargo xtask test --peers)");
    }
    folder
}

fn bytes(name: &str) -> Option<Bytes> {
    let path = folder()?.join(format!("{name}.ebml.hex"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let digits: String = text.lines().filter(|line| !line.starts_with('#')).collect();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal");
    Some((0..digits.len()).step_by(2).map(byte).collect())
}

fn documents(name: &str) -> Option<Vec<Document>> {
    let (mut documents, mut found) = (Documents::default(), Vec::new());
    documents.push(bytes(name)?);
    while let Some(document) = documents.finish(true).expect("Matroska") {
        found.push(document);
    }
    Some(found)
}

fn contents(name: &str) -> Option<Vec<Contents>> {
    Some(documents(name)?.iter().map(|document| document.contents().expect("whole")).collect())
}

const NAMES: [&str; 10] = [
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
];

/// The elements of a golden event log: offset, name, size of the whole.
fn golden(name: &str) -> Vec<(u64, String, Option<u64>)> {
    let path = folder().expect("asked before").join("golden").join(format!("{name}.jsonl"));
    let text = std::fs::read_to_string(&path).expect("the log");
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let elements =
        lines.filter(|line| line["op"] == "peek" && line["kind"] != "end_master" && line["id"].is_string());
    elements
        .map(|line| {
            let id = u32::from_str_radix(line["id"].as_str().expect("a string"), 16).expect("an id");
            let name = match name_of(id) {
                Some("SimpleBlock") => "Block".to_owned(),
                Some(name) => name.to_owned(),
                None => format!("0x{id:X}"),
            };
            let header = line["header_len"].as_u64().expect("a length");
            let whole = u64::try_from(line["size"].as_i64().expect("a size")).ok().map(|size| size + header);
            (line["offset"].as_u64().expect("an offset"), name, whole)
        })
        .collect()
}

#[test]
fn every_element_is_where_the_golden_logs_have_it() {
    for name in NAMES {
        let Some(bytes) = bytes(name) else { return };
        let (elements, error) = tree(bytes);
        assert_eq!(error, None, "{name}");
        let golden = golden(name);
        assert!(golden.len() > 20, "{name}: the log is read");
        // Beside what the log looks into: it leaves some masters closed.
        let ours: Vec<_> = elements
            .into_iter()
            .map(|element| (element.offset, element.name.into_owned(), element.bytes))
            .collect();
        for element in &golden {
            assert!(ours.contains(element), "{name}: {element:?}");
        }
        let (first, last) = (golden[0].0, golden[golden.len() - 1].0);
        let missing = ours.iter().filter(|(at, ..)| (first..=last).contains(at)).count();
        assert!(missing >= golden.len(), "{name}");
    }
}

#[test]
fn sides_come_by_name_in_both_orders() {
    for (name, from_first) in
        [("connect_real_shape", true), ("track_order_swapped", false), ("two_tracks", true)]
    {
        let Some(found) = contents(name) else { return };
        let [one] = found.as_slice() else { panic!("{name}: one fragment") };
        let names: Vec<&str> = one.tracks.iter().map(|track| track.name.as_str()).collect();
        let expected = if from_first { [FROM_CUSTOMER, TO_CUSTOMER] } else { [TO_CUSTOMER, FROM_CUSTOMER] };
        if name != "two_tracks" {
            assert_eq!(names, expected, "{name}");
        }
        for track in one.tracks.iter() {
            let blocks: Vec<u8> =
                one.blocks_of(track.number).flat_map(|block| block.payload.iter().copied()).collect();
            assert_eq!(one.pcm(&track.name), Some(blocks), "{name} {}", track.name);
        }
    }
}

#[test]
fn a_short_block_in_the_middle_shifts_nothing() {
    let Some(found) = contents("short_block_mid_track") else { return };
    let lengths = |side| found[0].pcm(side).expect("the track").len();
    let (short, long) = (1_024 + 192 + 1_024, 3 * 1_024);
    let sides = [lengths(FROM_CUSTOMER), lengths(TO_CUSTOMER)];
    assert!(sides == [short, long] || sides == [long, short], "{sides:?}");
    let pieces = Recordings::new(Gaps::Silence).take(&found[0], &[FROM_CUSTOMER, TO_CUSTOMER]);
    for side in [FROM_CUSTOMER, TO_CUSTOMER] {
        let of_side = pieces.iter().filter(|piece| piece.track == side);
        let bytes: u64 = of_side.map(|piece| piece.silence_bytes + piece.samples.len() as u64).sum();
        assert_eq!(bytes, long as u64, "{side}: 192 ms");
    }
}

#[test]
fn fragments_with_some_tags_and_with_none_go_on_with_the_call() {
    for (name, fragments) in [("partial_tags", 2), ("tagless_single", 3), ("gap", 3)] {
        let Some(found) = contents(name) else { return };
        assert_eq!(found.len(), fragments, "{name}");
        let track = found[0].tracks[0].name.clone();
        let mut recordings = Recordings::new(Gaps::Joined);
        let pieces: Vec<_> = found.iter().flat_map(|one| recordings.take(one, &[&track])).collect();
        assert_eq!(pieces.len(), fragments, "{name}");
        for piece in pieces {
            let contact = piece.recording.contact.as_deref();
            assert_eq!(contact, Some("00000000-0000-4000-8000-000000000001"), "{name}");
        }
    }
}
