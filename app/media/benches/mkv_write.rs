//! Speed of the writer. A payload is never touched, so this counts heads, not bytes.
//!
//! Run with `cargo bench -p media --bench mkv_write`. Best of some runs.

use std::hint::black_box;
use std::time::{Duration, Instant};

use media::mkv::write;

const CALLS: u32 = 1_000_000;
const RUNS: usize = 5;

fn main() {
    println!("{:>14} {:>10} {:>12}", "what", "ns/call", "allocations");
    report("block_head", |number| write::block_head(1, 40, number % 25 == 0, 10_000));
    report("cluster_start", |number| write::cluster_start(number.into()));
    report("tags, 1 item", |_| write::tags(&[("KVS_EDGE_FRAGMENT", "camera 1, fragment 17")]));
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn report<T>(what: &str, call: impl Fn(u32) -> T) {
    let mut shortest = Duration::MAX;
    for _ in 0..RUNS {
        let start = Instant::now();
        for number in 0..CALLS {
            black_box(call(black_box(number)));
        }
        shortest = shortest.min(start.elapsed());
    }
    let allocations = allocation_counter::measure(|| {
        black_box(call(0));
    });
    println!(
        "{what:>14} {:>10.1} {:>12}",
        shortest.as_secs_f64() * 1e9 / f64::from(CALLS),
        allocations.count_total
    );
}
