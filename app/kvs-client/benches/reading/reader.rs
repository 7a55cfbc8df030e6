//! The readers that are measured.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clock::Clock;
use kvs_client::consumer::Fragment;
use kvs_client::frames::{FrameOptions, Frames, WhenFull};
use kvs_client::kvs::api::{StartSelector, StreamId};
use kvs_client::source::{Source, SourceMode, SourceOptions};
use kvs_client::{Callbacks, Consumer, ConsumerError};
use media::{Feed, UnitSource};

use crate::process::Process;
use crate::{Error, client, stream};

/// Counts what arrives, and looks at the tags and the bytes of each as AWS's example does.
struct Count {
    fragments: Arc<AtomicU64>,
}

impl Callbacks for Count {
    fn on_fragment_arrived(&self, _: &str, fragment: &Fragment) {
        let whole = fragment.bytes();
        if fragment.number.is_some() && fragment.blocks > 0 && !whole.is_empty() {
            self.fragments.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[expect(clippy::print_stderr, reason = "the last word of a reader that failed")]
    fn on_read_stream_exception(&self, _: &str, error: &ConsumerError) {
        eprintln!("{error}");
    }
}

/// Prints fragments, CPU seconds and peak MiB.
#[expect(clippy::print_stdout, reason = "what it tells whoever measures")]
pub(crate) async fn consumer(endpoint: &str) -> Result<(), Error> {
    let fragments = Arc::new(AtomicU64::new(0));
    let mut consumer = Consumer::new(Count { fragments: fragments.clone() });
    let answer = client(endpoint)?.get_media(&StreamId::name(stream(0)), StartSelector::earliest()).await?;
    consumer.read(stream(0), answer);
    consumer.finished().await;
    let (count, own) = (fragments.load(Ordering::Relaxed), Process::own());
    println!("{count} {:.2} {:.1}", own.cpu_s()?, own.peak_mib()?);
    Ok(())
}

/// Reads so many streams until standard input ends; prints pictures a second of the slowest, and how far behind the last ones
/// were, in ms.
#[expect(clippy::print_stdout, reason = "what it tells whoever measures")]
pub(crate) fn streams(
    runtime: &tokio::runtime::Runtime,
    endpoint: &str,
    count: usize,
    decode: bool,
) -> Result<(), Error> {
    let client = client(endpoint)?;
    // Pictures so far, and how far behind the newest was.
    let seen: Vec<Arc<[AtomicU64; 2]>> = (0..count).map(|_| Arc::default()).collect();
    let clock = Clock::system();
    let mut held = Vec::new();
    for (n, seen) in seen.iter().enumerate() {
        let source =
            Source::new(&client, &StreamId::name(stream(n)), &SourceOptions::new(SourceMode::GetMedia))?;
        let (seen, clock) = (seen.clone(), clock.clone());
        let note = move |taken_ms: u64| {
            seen[0].fetch_add(1, Ordering::Relaxed);
            seen[1].store(clock.wall_ms().saturating_sub(taken_ms), Ordering::Relaxed);
        };
        if decode {
            let options = FrameOptions { when_full: WhenFull::Wait, max_size: 4, ..FrameOptions::default() };
            let frames = Arc::new(Frames::start(source, options)?);
            held.push(frames.clone());
            std::thread::spawn(move || {
                while let Ok(frame) = frames.read() {
                    frame.iter().for_each(|frame| note(frame.producer_timestamp.as_millis()));
                }
            });
        } else {
            let mut source = source;
            runtime.spawn(async move {
                while let Some(item) = source.next().await {
                    if let Feed::Video(unit) = item {
                        note(unit.timestamp.as_millis());
                    }
                }
            });
        }
    }
    let clock = Clock::system();
    // The measured time: from when all have pictures on.
    while seen.iter().any(|seen| seen[0].load(Ordering::Relaxed) == 0) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let (begun, before): (Instant, Vec<u64>) =
        (clock.now(), seen.iter().map(|seen| seen[0].load(Ordering::Relaxed)).collect());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    let seconds = clock.since(begun).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "thousands of pictures")]
    let rates = seen
        .iter()
        .zip(before)
        .map(|(seen, before)| (seen[0].load(Ordering::Relaxed).saturating_sub(before)) as f64 / seconds);
    let slowest = rates.fold(f64::INFINITY, f64::min);
    let behind = seen.iter().map(|seen| seen[1].load(Ordering::Relaxed)).max().unwrap_or(0);
    println!("{slowest:.1} {behind}");
    held.iter().for_each(|frames| frames.stop());
    Ok(())
}
