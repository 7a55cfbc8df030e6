//! Decoded pictures between the decoder's thread and whoever reads, and what is known of both.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clock::Clock;
use decode::DecodeReport;
use media::SourceState;
use tokio::sync::Notify;

use super::{Frame, FrameOptions, FramesError, WhenFull};
use crate::source::{HEALTHY, SourceFigures};

#[derive(Debug)]
pub(super) struct Queue {
    max_size: usize,
    max_bytes: usize,
    when_full: WhenFull,
    clock: Clock,
    stopped: AtomicBool,
    /// The same for the feeder, which may be waiting for the network.
    pub(super) stopping: Notify,
    held: Mutex<Held>,
    /// A picture came, or none will.
    filled: Condvar,
    /// A picture was taken, or none will be.
    emptied: Condvar,
}

#[derive(Debug)]
struct Held {
    frames: VecDeque<Frame>,
    bytes: usize,
    /// What comes behind the last picture.
    end: Option<FramesError>,
    status: Status,
    read: u64,
    dropped: u64,
    /// Of the last decoded picture: when, wall time then in ms, and how old it was.
    last: Option<(Instant, u64, u64)>,
}

/// As the feeder saw it last.
#[derive(Clone, Debug)]
pub(super) struct Status {
    pub(super) figures: SourceFigures,
    pub(super) healthy: bool,
    pub(super) last_error: Option<String>,
    pub(super) decoder: Option<DecodeReport>,
}

impl Queue {
    pub(super) fn new(options: &FrameOptions, figures: SourceFigures) -> Self {
        let status = Status { figures, healthy: false, last_error: None, decoder: None };
        let held =
            Held { frames: VecDeque::new(), bytes: 0, end: None, status, read: 0, dropped: 0, last: None };
        Self {
            max_size: options.max_size,
            max_bytes: options.max_bytes,
            when_full: options.when_full,
            clock: options.clock.clone(),
            stopped: AtomicBool::new(false),
            stopping: Notify::new(),
            held: Mutex::new(held),
            filled: Condvar::new(),
            emptied: Condvar::new(),
        }
    }

    /// Nothing is left half-done under it, whoever panics.
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(SeqCst)
    }

    pub(super) fn stop(&self) {
        let mut held = self.lock();
        self.stopped.store(true, SeqCst);
        held.frames.clear();
        held.bytes = 0;
        held.end = Some(FramesError::Stopped);
        self.filled.notify_all();
        self.emptied.notify_all();
        self.stopping.notify_one();
    }

    /// Nothing comes any more.
    pub(super) fn end(&self, end: FramesError) {
        self.lock().end.get_or_insert(end);
        self.filled.notify_all();
    }

    /// A picture of so many bytes has no room.
    fn is_full(&self, held: &Held, bytes: usize) -> bool {
        let too_many = held.frames.len() >= self.max_size;
        too_many || (!held.frames.is_empty() && held.bytes.saturating_add(bytes) > self.max_bytes)
    }

    /// Waits for room where that is what was asked for.
    pub(super) fn put(&self, frame: Frame) {
        let bytes = frame.data.len();
        let mut held = self.lock();
        let (now, now_ms) = (self.clock.now(), self.clock.wall_ms());
        held.last = Some((now, now_ms, now_ms.saturating_sub(frame.producer_timestamp.as_millis())));
        if self.when_full == WhenFull::Wait {
            let waits = |held: &mut Held| !self.is_stopped() && self.is_full(held, bytes);
            held = self.emptied.wait_while(held, waits).unwrap_or_else(PoisonError::into_inner);
        }
        if self.is_stopped() {
            return;
        }
        while self.is_full(&held, bytes) {
            let Some(oldest) = held.frames.pop_front() else { break };
            held.bytes -= oldest.data.len();
            held.dropped += 1;
        }
        held.bytes += bytes;
        held.frames.push_back(frame);
        self.filled.notify_one();
    }

    pub(super) fn read(&self, timeout: Duration) -> Result<Option<Frame>, FramesError> {
        let nothing = |held: &mut Held| held.frames.is_empty() && held.end.is_none();
        let held = self.filled.wait_timeout_while(self.lock(), timeout, nothing);
        let (mut held, _) = held.unwrap_or_else(PoisonError::into_inner);
        match (held.frames.pop_front(), &held.end) {
            (Some(frame), _) => {
                held.bytes -= frame.data.len();
                held.read += 1;
                self.emptied.notify_all();
                Ok(Some(frame))
            }
            (None, Some(end)) => Err(end.clone()),
            (None, None) => Ok(None),
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.lock().frames.len()
    }

    pub(super) fn publish(&self, status: Status) {
        self.lock().status = status;
    }

    pub(super) fn status(&self) -> Status {
        self.lock().status.clone()
    }

    pub(super) fn is_healthy(&self) -> bool {
        let held = self.lock();
        let recent = held.last.is_some_and(|(at, ..)| self.clock.since(at) <= HEALTHY);
        held.status.healthy && held.status.figures.state == SourceState::Connected && recent
    }

    pub(super) fn figures(&self) -> SourceFigures {
        let held = self.lock();
        let report = held.status.decoder.as_ref();
        SourceFigures {
            frames_read: held.read,
            frames_dropped: held.dropped,
            decode_errors: report
                .map_or(0, |found| found.damaged + found.refused + found.unknown + found.dropped),
            last_frame_timestamp: held.last.map(|(_, wall_ms, _)| kvs::api::seconds(wall_ms)),
            latency_ms: held.last.map(|(.., latency_ms)| latency_ms),
            ..held.status.figures.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use media::ProducerTimestamp;

    use super::*;
    use crate::frames::ChannelOrder;
    use crate::source::SourceMode;

    fn queue(change: impl FnOnce(&mut FrameOptions)) -> Queue {
        let mut options = FrameOptions { max_size: 3, ..FrameOptions::default() };
        change(&mut options);
        Queue::new(&options, SourceFigures::new(SourceMode::GetMedia, SourceState::Connected))
    }

    /// Six bytes each.
    fn frame(n: u64) -> Frame {
        Frame {
            data: vec![0; 6],
            width: 2,
            height: 1,
            order: ChannelOrder::Bgr,
            producer_timestamp: ProducerTimestamp::from_millis(n),
            server_timestamp_ms: None,
            fragment: None,
        }
    }

    fn read(queue: &Queue) -> Option<u64> {
        queue.read(Duration::ZERO).expect("not over").map(|frame| frame.producer_timestamp.as_millis())
    }

    #[test]
    fn the_newest_win_by_number_and_by_bytes_and_one_always_fits() {
        let check = |max_size, max_bytes, expected: &[u64]| {
            let queue = queue(|options| (options.max_size, options.max_bytes) = (max_size, max_bytes));
            (0..5).for_each(|n| queue.put(frame(n)));
            let found: Vec<u64> = std::iter::from_fn(|| read(&queue)).collect();
            assert_eq!(found, expected, "{max_size} pictures, {max_bytes} bytes");
            let figures = queue.figures();
            let kept = expected.len() as u64;
            assert_eq!((figures.frames_read, figures.frames_dropped), (kept, 5 - kept));
        };
        check(3, 1_000, &[2, 3, 4]);
        check(100, 12, &[3, 4]);
        check(100, 1, &[4]);
        check(1, 1_000, &[4]);
    }

    #[test]
    fn a_queue_that_waits_loses_nothing() {
        let queue = Arc::new(queue(|options| options.when_full = WhenFull::Wait));
        let filler = std::thread::spawn({
            let queue = queue.clone();
            move || {
                (0..50).for_each(|n| queue.put(frame(n)));
                queue.end(FramesError::Ended);
            }
        });
        let mut found = Vec::new();
        let end = loop {
            match queue.read(Duration::from_secs(60)) {
                Ok(frame) => found.push(frame.expect("one comes").producer_timestamp.as_millis()),
                Err(end) => break end,
            }
            assert!(queue.waiting() <= 3);
        };
        assert_eq!((found, end), ((0..50).collect(), FramesError::Ended));
        assert_eq!(queue.figures().frames_dropped, 0);
        filler.join().expect("it ended");
    }

    #[test]
    fn whoever_waits_is_woken_by_the_end_and_by_a_stop() {
        let queue = Arc::new(queue(|options| (options.when_full, options.max_size) = (WhenFull::Wait, 1)));
        assert_eq!(queue.read(Duration::ZERO), Ok(None));
        queue.put(frame(1));
        let filler = std::thread::spawn({
            let queue = queue.clone();
            move || queue.put(frame(2))
        });
        queue.stop();
        filler.join().expect("it does not wait any more");
        assert_eq!(queue.read(Duration::from_secs(60)), Err(FramesError::Stopped));
        queue.end(FramesError::Ended);
        assert_eq!(queue.read(Duration::ZERO), Err(FramesError::Stopped), "the first end counts");
    }
}
