//! The reader allocates per push at most, never per block.

mod support;

use bytes::{Bytes, BytesMut};
use media::mkv::read::{EventKind, Limits, Parser};
use media::mkv::write;

use support::cut;

const TOTAL_BYTES: usize = 4 << 20;

/// A document of about `TOTAL_BYTES` in blocks of this payload: the bytes, and how many blocks.
fn document(payload_bytes: usize) -> (Bytes, usize) {
    let mut out = BytesMut::from(&write::header([1; 16], "test", &[])[..]);
    out.extend_from_slice(&write::cluster_start(0));
    let payload = vec![0x5A; payload_bytes];
    let mut blocks = 0;
    while out.len() < TOTAL_BYTES {
        out.extend_from_slice(&write::block_head(1, 0, false, payload_bytes));
        out.extend_from_slice(&payload);
        blocks += 1;
    }
    (out.freeze(), blocks)
}

/// Reads all chunks: allocations made, blocks seen.
fn measure(chunks: &[Bytes]) -> (u64, usize) {
    let mut parser = Parser::new(Limits::default());
    let mut blocks = 0;
    let allocations = allocation_counter::measure(|| {
        for chunk in chunks {
            parser.push(chunk.clone());
            while let Some(event) = parser.next_event().unwrap() {
                blocks += usize::from(matches!(event.kind, EventKind::Block { .. }));
            }
        }
    });
    (allocations.count_total, blocks)
}

#[test]
fn one_push_allocates_the_same_whatever_the_number_of_blocks() {
    let counts: Vec<u64> = [100, 1_000, 10_000, 100_000]
        .map(|payload_bytes| {
            let (data, blocks) = document(payload_bytes);
            let data = Bytes::from(data.to_vec()); // exactly full: cloning it does not allocate for sharing
            let _shared = data.clone();
            let (allocations, seen) = measure(&[data]);
            assert_eq!(seen, blocks);
            allocations
        })
        .into();
    assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
    assert!(counts[0] <= 1, "{counts:?}");
}

#[test]
fn allocations_follow_the_pushes_not_the_blocks() {
    const CHUNK: usize = 64 * 1024;
    for payload_bytes in [100, 1_000, 10_000] {
        let (data, blocks) = document(payload_bytes);
        let chunks = cut(&data, CHUNK);
        let (allocations, seen) = measure(&chunks);
        assert_eq!(seen, blocks);
        // One element straddles each border; it has its memory from a larger piece, or it is one and makes two allocations.
        assert!(allocations <= 2 * chunks.len() as u64, "{allocations} allocations, {} pushes", chunks.len());
    }
}

#[test]
fn a_claimed_size_reserves_nothing() {
    let mut data = write::header([1; 16], "test", &[]).to_vec();
    data.extend_from_slice(&write::cluster_start(0));
    data.extend_from_slice(&write::block_head(1, 0, true, 60 << 20));
    data.extend_from_slice(&[0; 100]);
    let mut parser = Parser::new(Limits::default());
    let usage = allocation_counter::measure(|| {
        for chunk in cut(&Bytes::from(data.clone()), 7) {
            parser.push(chunk);
            while parser.next_event().unwrap().is_some() {}
        }
    });
    assert!(usage.bytes_max < 64 * 1024, "{usage:?}");
}
