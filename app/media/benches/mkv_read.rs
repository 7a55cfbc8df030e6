//! Speed and allocations of the reader beside webm-iterable, on GetMedia-like input in memory.
//!
//! Run with `cargo bench -p media --bench mkv_read`. Concatenated documents, everything of unknown size, 25 blocks per
//! cluster. Both readers see the same chunks and must agree on documents, blocks and payload bytes. The input fits the
//! processor's cache, as bytes do that a socket has just delivered. Best of many runs.

use std::collections::VecDeque;
use std::hint::black_box;
use std::io::{Read, Result};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use media::mkv::read::{EventKind, Limits, Parser};
use media::mkv::write;
use webm_iterable::WebmIterator;
use webm_iterable::matroska_spec::{Master, MatroskaSpec, SimpleBlock};

const TOTAL_BYTES: usize = 512 << 10;
const BLOCKS_PER_CLUSTER: i16 = 25;
const RUNS: usize = 3_000;

/// What a reader found; equal for both, or the comparison is void.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Totals {
    documents: u64,
    blocks: u64,
    payload_bytes: u64,
}

fn main() {
    println!(
        "{:>8} {:>8} {:>10} | {:>9} {:>12} | {:>13} {:>12} | {:>5}",
        "payload", "chunk", "blocks", "ours GB/s", "allocations", "webm-iterable", "allocations", "ratio"
    );
    for payload_bytes in [1_000, 10_000] {
        let data = documents(payload_bytes);
        for chunk_bytes in [64 * 1024, 1_460] {
            compare(&data, payload_bytes, chunk_bytes);
        }
    }
}

fn compare(data: &Bytes, payload_bytes: usize, chunk_bytes: usize) {
    let chunks: VecDeque<Bytes> = (0..data.len())
        .step_by(chunk_bytes)
        .map(|at| data.slice(at..data.len().min(at + chunk_bytes)))
        .collect();
    // In turns, so that a busy moment of the machine hits both; the shortest time counts.
    let (mut our_time, mut their_time) = (Duration::MAX, Duration::MAX);
    let (mut ours, mut theirs) = (Totals::default(), Totals::default());
    for _ in 0..RUNS {
        our_time = our_time.min(time(|| ours = black_box(read_ours(&chunks))));
        their_time = their_time.min(time(|| theirs = black_box(read_webm_iterable(chunks.clone()))));
    }
    assert_eq!(ours, theirs);
    let our_allocations = allocations(|| read_ours(&chunks));
    let their_allocations = allocations(|| read_webm_iterable(chunks.clone()));
    println!(
        "{payload_bytes:>8} {chunk_bytes:>8} {:>10} | {:>9.2} {our_allocations:>12} | {:>13.2} {their_allocations:>12} | {:>5.1}",
        ours.blocks,
        gigabytes_per_second(data.len(), our_time),
        gigabytes_per_second(data.len(), their_time),
        their_time.as_secs_f64() / our_time.as_secs_f64(),
    );
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn time(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

fn allocations(read: impl Fn() -> Totals) -> u64 {
    let info = allocation_counter::measure(|| {
        black_box(read());
    });
    info.count_total
}

#[expect(clippy::cast_precision_loss, reason = "for print")]
fn gigabytes_per_second(bytes: usize, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64() / 1e9
}

/// Documents of one cluster each, with the tags that the service adds.
fn documents(payload_bytes: usize) -> Bytes {
    let payload = vec![0x5A; payload_bytes];
    let mut out = BytesMut::with_capacity(TOTAL_BYTES + (1 << 20));
    for number in 0.. {
        if out.len() >= TOTAL_BYTES {
            break;
        }
        out.extend_from_slice(&write::header([1; 16], "bench", &[]));
        out.extend_from_slice(&write::tags_fixed4(&[(
            "AWS_KINESISVIDEO_FRAGMENT_NUMBER",
            "91343852333181432392682062",
        )]));
        out.extend_from_slice(&write::cluster_start(number * 1_000));
        for block in 0..BLOCKS_PER_CLUSTER {
            out.extend_from_slice(&write::block_head(1, block * 40, block == 0, payload_bytes));
            out.extend_from_slice(&payload);
        }
        out.extend_from_slice(&write::tags_fixed4(&[("AWS_KINESISVIDEO_MILLIS_BEHIND_NOW", "0")]));
    }
    out.freeze()
}

fn read_ours(chunks: &VecDeque<Bytes>) -> Totals {
    let mut parser = Parser::new(Limits::default());
    let mut totals = Totals::default();
    for chunk in chunks {
        parser.push(chunk.clone());
        while let Some(event) = parser.next_event().expect("the input is valid") {
            match event.kind {
                EventKind::Ebml => totals.documents += 1,
                EventKind::Block { .. } => {
                    totals.blocks += 1;
                    totals.payload_bytes += black_box(event.body()).len() as u64;
                }
                _ => {}
            }
        }
    }
    totals
}

fn read_webm_iterable(chunks: VecDeque<Bytes>) -> Totals {
    let mut totals = Totals::default();
    for tag in WebmIterator::new(Chunks(chunks), &[]) {
        match tag.expect("the input is valid") {
            MatroskaSpec::Ebml(Master::Start) => totals.documents += 1,
            ref tag @ MatroskaSpec::SimpleBlock(_) => {
                let block = SimpleBlock::try_from(tag).expect("the block is valid");
                totals.blocks += 1;
                totals.payload_bytes += black_box(block.raw_frame_data()).len() as u64;
            }
            _ => {}
        }
    }
    totals
}

/// The chunks as a `Read` that hands out one at a time.
struct Chunks(VecDeque<Bytes>);

impl Read for Chunks {
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        let Some(first) = self.0.front_mut() else { return Ok(0) };
        let length = first.len().min(out.len());
        first.copy_to_slice(&mut out[..length]);
        if first.is_empty() {
            self.0.pop_front();
        }
        Ok(length)
    }
}
