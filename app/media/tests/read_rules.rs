//! The reader's rules, each on the smallest document that shows it.

mod support;

use bytes::Bytes;
use media::mkv::id;
use media::mkv::read::{EventKind, Limits, Parser, ReadError, read_all};
use media::mkv::write;

use support::{cut, raw, read, read_chunks, shape, unhex};

const EBML: &str = "1a45dfa3 84 42828131 "; // 9 bytes
const SEGMENT: &str = "18538067 ff ";
const CLUSTER: &str = "1f43b675 ff ";
const TIME: &str = "e7 81 05 ";
const BLOCK: &str = "a3 85 81 0001 80 aa ";
const TAGS: &str = "1254c367 80 ";

fn document(parts: &[&str]) -> Bytes {
    unhex(&parts.concat())
}

#[track_caller]
fn check(parts: &[&str], expected: &str) {
    let data = document(parts);
    let events = read(&data);
    assert_eq!(shape(&events), expected);
    assert_eq!(raw(&events), data);
    for length in 1..data.len() {
        assert_eq!(read_chunks(cut(&data, length)), (events.clone(), None), "chunks of {length} bytes");
    }
}

#[track_caller]
fn check_error(parts: &[&str], expected: &str) {
    let data = document(parts);
    let (events, error) = read_chunks([data.clone()]);
    assert_eq!(
        error.as_ref().map(ToString::to_string).as_deref(),
        Some(expected),
        "after {}",
        shape(&events)
    );
    assert!(data.starts_with(&raw(&events)));
    for length in 1..data.len() {
        assert_eq!(
            read_chunks(cut(&data, length)),
            (events.clone(), error.clone()),
            "chunks of {length} bytes"
        );
    }
}

#[test]
fn an_unknown_size_cluster_ends_at_a_segment_child_or_an_ebml_header() {
    for next in ["1254c367", "1c53bb6b", "1549a966", "1654ae6b", "114d9b74", "1941a469", "1043a770"] {
        let name = media::mkv::name_of(u32::from_str_radix(next, 16).unwrap()).unwrap();
        let next = format!("{next} 80");
        check(
            &[EBML, SEGMENT, CLUSTER, TIME, BLOCK, &next],
            &format!("ebml segment( cluster( @5 b ) {name} )end"),
        );
    }
    check(
        &[EBML, SEGMENT, CLUSTER, TIME, CLUSTER, TIME, EBML, SEGMENT],
        "ebml segment( cluster( @5 ) cluster( @5 ) )end ebml segment( )end",
    );
}

#[test]
fn known_sizes_end_where_they_say() {
    check(
        &[EBML, "18538067 94", "1f43b675 8a", TIME, BLOCK, TAGS, "ec 81 00", EBML, SEGMENT],
        "ebml segment( cluster( @5 b ) Tags Void )end ebml segment( )end",
    );
    // A cluster of unknown size ends with its segment of known size.
    check(&[EBML, "18538067 88", CLUSTER, TIME, EBML], "ebml segment( cluster( @5 ) )end ebml )end");
    // Sizes need not be in their shortest form.
    check(&[EBML, SEGMENT, "1f43b675 01 00000000000003", TIME], "ebml segment( cluster( @5 ) )end");
}

#[test]
fn payload_that_looks_like_headers_is_not_scanned() {
    let payload = "a3 8c 81 0001 80 1a45dfa3 1f43b675 ";
    check(&[EBML, SEGMENT, CLUSTER, TIME, payload, TAGS], "ebml segment( cluster( @5 b ) Tags )end");
}

#[test]
fn unknown_elements_crc_and_void_are_passed_on() {
    let in_cluster = "bf 80 ec 80 58d7 81 09";
    check(
        &["ec 82 0000", EBML, "ec80", SEGMENT, "bf 84 01020304", "4fff 81 07", CLUSTER, TIME, in_cluster],
        "Void ebml Void segment( CRC-32 unknown cluster( @5 CRC-32 Void unknown ) )end",
    );
}

#[test]
fn a_block_group_is_a_block_and_a_key_frame_without_references() {
    let group = |children: &str, length: usize| format!("a0 {:02x} {children}", 0x80 | length);
    let key = group("9b 81 28 a1 86 4081 fffe 04 bb", 11);
    let predicted = group("a1 85 82 0002 00 cc fb 81 ff", 10);
    let data = document(&[EBML, SEGMENT, CLUSTER, &key, &predicted]);
    let blocks: Vec<_> =
        read(&data).into_iter().filter(|event| matches!(event.kind, EventKind::Block { .. })).collect();
    assert_eq!(blocks[0].kind, EventKind::Block { track: 129, offset: -2, key_frame: true, lacing: 2 });
    assert_eq!(blocks[1].kind, EventKind::Block { track: 2, offset: 2, key_frame: false, lacing: 0 });
    assert_eq!((blocks[0].body(), blocks[1].body()), (&[0xBB][..], &[0xCC][..]));
    assert_eq!(blocks[0].raw, unhex(&key));
}

#[test]
fn garbage_between_documents_is_an_error_with_its_offset() {
    check_error(&["00"], "byte 0: found 0x00, which starts no element id, expected an EBML header");
    check_error(
        &[EBML, "18538067 80", "3c68746d6c3e"],
        "byte 14: found unknown element 0x3C6874, expected an EBML header",
    );
    check_error(&[EBML, EBML], "byte 9: found EBML (0x1A45DFA3), expected a Segment after the EBML header");
    check_error(
        &[EBML, SEGMENT, TAGS, "0a0d"],
        "byte 19: found 0x0a, which starts no element id, expected a child of Segment or the next EBML header",
    );
    check_error(
        &[EBML, SEGMENT, "18538067 ff"],
        "byte 14: found Segment (0x18538067), expected a child of Segment or the next EBML header",
    );
}

#[test]
fn blocks_behind_a_cluster_that_is_too_short_are_an_error() {
    check_error(
        &[EBML, SEGMENT, "1f43b675 83", TIME, BLOCK],
        "byte 22: found SimpleBlock (0xA3), expected a child of Segment or the next EBML header",
    );
}

#[test]
fn a_child_must_fit_its_parent() {
    check_error(
        &[EBML, SEGMENT, "1f43b675 86", TIME, BLOCK],
        "byte 22: SimpleBlock (0xA3) claims 5 bytes, its parent that starts at byte 14 has 3 left",
    );
    check_error(
        &[EBML, "18538067 86", "1f43b675 82 0000"],
        "byte 14: Cluster (0x1F43B675) claims 2 bytes, its parent that starts at byte 9 has 6 left",
    );
    check_error(
        &[EBML, "18538067 89", CLUSTER, BLOCK],
        "byte 19: SimpleBlock (0xA3) claims 5 bytes, its parent that starts at byte 9 has 4 left",
    );
    check_error(
        &[EBML, SEGMENT, "1f43b675 88", TIME, "1254c367 80"],
        "byte 22: found Tags (0x1254C367), expected a child of Cluster",
    );
}

#[test]
fn sizes_are_checked() {
    check_error(
        &[EBML, SEGMENT, "1549a966 ff"],
        "byte 14: Info (0x1549A966) has unknown size, which only Segment and Cluster may have",
    );
    check_error(
        &[EBML, SEGMENT, CLUSTER, "a3 ff 00"],
        "byte 19: SimpleBlock (0xA3) has unknown size, which only Segment and Cluster may have",
    );
    check_error(
        &["1a45dfa3 ff 00"],
        "byte 0: EBML (0x1A45DFA3) has unknown size, which only Segment and Cluster may have",
    );
    check_error(
        &[EBML, SEGMENT, "1549a966 00 00"],
        "byte 14: the size of Info (0x1549A966) starts with byte 0x00, expected a size of 1 to 8 bytes",
    );
    check_error(
        &[EBML, SEGMENT, CLUSTER, "a3 01 fffffffffffffe 00"],
        "byte 19: SimpleBlock (0xA3) has 72057594037927934 bytes, the limit is 67108864",
    );
    check_error(
        &[EBML, SEGMENT, "1254c367 01 fffffffffffffe"],
        "byte 14: Tags (0x1254C367) has 72057594037927934 bytes, the limit is 1048576",
    );
    check_error(
        &[EBML, SEGMENT, CLUSTER, "e7 89 000000000000000001"],
        "byte 19: Timestamp (0xE7) has 9 bytes, the limit is 8",
    );
}

#[test]
fn malformed_blocks_are_errors() {
    let cases = [
        ("a3 80", "SimpleBlock (0xA3) has no valid track number"),
        ("a3 84 00 0001 80", "SimpleBlock (0xA3) has no valid track number"),
        ("a3 83 81 0001", "SimpleBlock (0xA3) is too short for track number, time and flags"),
        ("a0 82 9b80", "BlockGroup (0xA0) has no Block in it"),
        ("a0 82 a185", "BlockGroup (0xA0) has malformed children"),
    ];
    for (block, reason) in cases {
        check_error(&[EBML, SEGMENT, CLUSTER, block], &format!("byte 19: {reason}"));
    }
}

#[test]
fn input_that_ends_inside_an_element_is_reported() {
    let cut_inside = |parts: &[&str], expected: &str| {
        check_error(parts, &format!("input ends at byte {expected} bytes are missing"));
    };
    cut_inside(&["1a45"], "2 inside the element that starts at byte 0, at least 2");
    cut_inside(
        &[EBML, SEGMENT, CLUSTER, "a3 85 81 00"],
        "23 inside the element that starts at byte 19, at least 3",
    );
    cut_inside(
        &[EBML, SEGMENT, "1f43b675 90", TIME],
        "22 inside the Cluster that starts at byte 14, at least 13",
    );
    cut_inside(&[EBML, "18538067 90", TAGS], "19 inside the Segment that starts at byte 9, at least 11");
    let skipped = document(&[EBML, SEGMENT, "1c53bb6b 10400000 00"]);
    let (_, error) = read_all(Limits { header_element_bytes: 16, block_bytes: 16 }, [skipped]);
    assert_eq!(
        error,
        Some(ReadError::Truncated { at: 14, what: "element", ends: 23, missing: 0x40_0000 - 1 })
    );
}

#[test]
fn no_input_is_no_document() {
    assert_eq!(read_chunks([]), (vec![], None));
    assert_eq!(read_chunks([Bytes::new(), Bytes::new()]), (vec![], None));
}

#[test]
fn what_is_too_large_and_not_needed_is_passed_on_in_pieces() {
    let limits = Limits { header_element_bytes: 8, block_bytes: 16 };
    let cues = format!("1c53bb6b 8a {}", "07".repeat(10));
    let data = document(&[EBML, SEGMENT, &cues, CLUSTER, TIME, "ec 89 000000000000000000", BLOCK]);
    for length in [1, 4, 7, data.len()] {
        let (events, error) = read_all(limits, cut(&data, length));
        assert_eq!(error, None);
        assert_eq!(raw(&events), data);
        assert_eq!(events[2].kind, EventKind::Skipped { id: id::CUES });
        assert!(shape(&events).contains("@5 skipped"), "{}", shape(&events));
        assert!(shape(&events).ends_with("skipped b ) )end"), "{}", shape(&events));
    }
}

#[test]
fn needed_elements_and_blocks_above_their_cap_are_errors() {
    let limits = Limits { header_element_bytes: 4, block_bytes: 4 };
    let error = |parts: &[&str]| read_all(limits, [document(parts)]).1;
    assert_eq!(
        error(&[EBML, SEGMENT, "1254c367 85 0000000000"]),
        Some(ReadError::TooLarge { at: 14, id: id::TAGS, size: 5, limit: 4 })
    );
    assert_eq!(
        error(&[EBML, SEGMENT, CLUSTER, BLOCK]),
        Some(ReadError::TooLarge { at: 19, id: id::SIMPLE_BLOCK, size: 5, limit: 4 })
    );
}

#[test]
fn an_error_is_repeated_and_position_stays() {
    let mut parser = Parser::new(Limits::default());
    parser.push(document(&[EBML, "00"]));
    assert!(matches!(parser.next_event(), Ok(Some(_))));
    let error = parser.next_event().unwrap_err();
    parser.push(document(&[SEGMENT]));
    assert_eq!(parser.next_event(), Err(error.clone()));
    assert_eq!(parser.finish(), Err(error));
    assert_eq!(parser.position(), 9);
}

#[test]
fn events_are_slices_of_what_was_pushed() {
    let payload = Bytes::from(vec![7; 10_000]);
    let mut data = document(&[EBML, SEGMENT, CLUSTER]).to_vec();
    data.extend_from_slice(&write::block_head(1, 0, true, payload.len()));
    data.extend_from_slice(&payload);
    let data = Bytes::from(data);
    let events = read(&data);
    for event in events.iter().filter(|event| !event.raw.is_empty()) {
        let at = usize::try_from(event.at).unwrap();
        assert_eq!(event.raw.as_ptr(), data[at..].as_ptr(), "{:?}", event.kind);
    }
    assert_eq!(events[3].shared_body(), payload);
    assert_eq!(events[3].shared_body().as_ptr(), data[data.len() - payload.len()..].as_ptr());
}

#[test]
fn several_pushes_before_the_first_event_are_kept() {
    let data = document(&[EBML, SEGMENT, CLUSTER, TIME, BLOCK, TAGS]);
    let mut parser = Parser::new(Limits::default());
    for chunk in cut(&data, 2) {
        parser.push(chunk);
    }
    let mut events = Vec::new();
    while let Some(event) = parser.finish().unwrap() {
        events.push(event);
    }
    assert_eq!(events, read(&data));
}
