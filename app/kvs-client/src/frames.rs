//! Decoded pictures of any source, for whoever works with arrays: width, height, red-green-blue bytes, times.
//!
//! ```text
//!  thread `frames`                                   GStreamer's thread            the caller's
//!  StreamSource --Feed--> origins, waits for room --> decoder --rate--> RGB --> queue --read()--> Frame
//! ```
//!
//! The handle is for blocking code: [`Frames::read`] may be called from any thread, and waits at most as long as it is told.
//! From async code, call it in `spawn_blocking`, or with no timeout.
//!
//! **When the queue is full** ([`WhenFull`]): either the newest wins, so that whoever looks is never behind, or everything
//! waits, so that no picture is lost; then the source is not read on, the service waits, and of a live stream whole
//! fragments that got too old are left out and counted (`max_fragment_age`). The decoder itself never drops a picture
//! for want of room: the source waits for it.
//!
//! What cannot be decoded is counted ([`SourceFigures::decode_errors`]) and left out, and pictures go on at the next
//! random access point.

mod feeder;
mod queue;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use clock::Clock;
pub use decode::{DecodeError, DecodeReport, Preference};
use kvs::FragmentNumber;
use media::{ProducerTimestamp, SourceState};

use crate::source::{SourceFigures, StreamSource};
use queue::Queue;

/// One decoded picture.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// Rows from top to bottom without gaps, three bytes a pixel in [`order`](Self::order): `3 * width * height`.
    pub data: Vec<u8>,
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// Which of the three bytes comes first.
    pub order: ChannelOrder,
    /// When the picture was taken, by the producer's clock.
    pub producer_timestamp: ProducerTimestamp,
    /// When KVS had received its fragment, in ms since the Unix epoch; `None` of a source without fragments.
    pub server_timestamp_ms: Option<u64>,
    /// The fragment that it is from.
    pub fragment: Option<FragmentNumber>,
}

impl Frame {
    /// [`producer_timestamp`](Self::producer_timestamp) as Unix seconds.
    pub fn timestamp_seconds(&self) -> f64 {
        kvs::api::seconds(self.producer_timestamp.as_millis())
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frame({}x{} {:?} at {})", self.width, self.height, self.order, self.producer_timestamp)
    }
}

/// Which of the three bytes of a pixel comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelOrder {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red, as OpenCV has it.
    #[default]
    Bgr,
}

/// What happens to a picture that finds the queue full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// The oldest one in the queue gives way, and is counted ([`SourceFigures::frames_dropped`]).
    #[default]
    NewestWins,
    /// It waits, and everything before it: no picture is lost here.
    Wait,
}

/// How pictures are decoded and kept.
#[derive(Clone, Debug)]
pub struct FrameOptions {
    /// For the names of threads.
    pub name: String,
    /// Pictures per second of the producer's time, at most; `None`: every picture. All are decoded, only these are handed on.
    pub target_fps: Option<f64>,
    /// Pictures that wait for whoever reads: 100, of at least 1.
    pub max_size: usize,
    /// Their memory, whatever their number: 256 MiB, which are 43 pictures of 1920x1080. One picture always fits.
    pub max_bytes: usize,
    /// How long [`Frames::read`] waits: 1 s.
    pub timeout: Duration,
    /// When the queue is full: the newest wins.
    pub when_full: WhenFull,
    /// Blue first, as OpenCV has it.
    pub order: ChannelOrder,
    /// Which decoder; the best that works, unless it is named.
    pub decoder: Preference,
    /// Latencies are measured by it. That of the client.
    pub clock: Clock,
}

impl Default for FrameOptions {
    fn default() -> Self {
        Self {
            name: String::new(),
            target_fps: None,
            max_size: 100,
            max_bytes: 256 << 20,
            timeout: Duration::from_secs(1),
            when_full: WhenFull::NewestWins,
            order: ChannelOrder::Bgr,
            decoder: Preference::Automatic,
            clock: Clock::system(),
        }
    }
}

/// Why there are no (more) pictures.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FramesError {
    /// A value is out of its range.
    #[error("{what} is {found}, expected {expected}")]
    Options {
        /// Its name.
        what: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
    /// No decoder.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A thread or its runtime.
    #[error("pictures cannot be read: {reason}")]
    Thread {
        /// In the words of the system.
        reason: String,
    },
    /// The source has given up; it says why.
    #[error("the source has given up: {reason}")]
    Failed {
        /// The last thing that went wrong.
        reason: String,
    },
    /// The source has come to its end, and all its pictures were read.
    #[error("the stream has come to its end")]
    Ended,
    /// [`Frames::stop`] was called.
    #[error("stopped")]
    Stopped,
}

/// A source whose pictures are decoded on threads of its own.
///
/// Dropping it stops everything, and waits for the threads (2 s at most where a decoder's driver hangs).
#[derive(Debug)]
pub struct Frames {
    queue: Arc<Queue>,
    timeout: Duration,
    feeder: Option<JoinHandle<()>>,
}

impl Frames {
    /// Begins to read at once.
    ///
    /// GStreamer is started if need be (see `decode::init`).
    pub fn start(source: impl StreamSource + 'static, options: FrameOptions) -> Result<Self, FramesError> {
        let wrong = |what, found: String, expected| Err(FramesError::Options { what, found, expected });
        if options.max_size == 0 {
            return wrong("max_size", "0".to_owned(), "at least 1");
        }
        if let Some(rate) = options.target_fps.filter(|rate| !rate.is_finite() || *rate <= 0.0) {
            return wrong("target_fps", rate.to_string(), "more than 0");
        }
        let timeout = options.timeout;
        let queue = Arc::new(Queue::new(&options, source.figures()));
        let feeder = feeder::start(source, options, queue.clone())?;
        Ok(Self { queue, timeout, feeder: Some(feeder) })
    }

    /// The next picture; `None` when there was none within [`FrameOptions::timeout`]. An error is the end.
    pub fn read(&self) -> Result<Option<Frame>, FramesError> {
        self.read_within(self.timeout)
    }

    /// The next picture; `None` when there was none within this time: at once if it is zero. An error is the end.
    pub fn read_within(&self, timeout: Duration) -> Result<Option<Frame>, FramesError> {
        self.queue.read(timeout)
    }

    /// Pictures that wait to be read.
    pub fn waiting(&self) -> usize {
        self.queue.waiting()
    }

    /// How the source stands, at most a tenth of a second ago.
    pub fn state(&self) -> SourceState {
        self.queue.status().figures.state
    }

    /// The source is connected, and its last decoded picture is at most 30 s old.
    pub fn is_healthy(&self) -> bool {
        self.queue.is_healthy()
    }

    /// What the source last found wrong, or else the decoder; `None` once a whole fragment has come since.
    pub fn last_error(&self) -> Option<String> {
        self.queue.status().last_error
    }

    /// Since it was started; pictures are the decoded ones that were read.
    pub fn figures(&self) -> SourceFigures {
        self.queue.figures()
    }

    /// Of the decoder, at most a tenth of a second ago; `None` before the first look.
    pub fn decoder(&self) -> Option<DecodeReport> {
        self.queue.status().decoder
    }

    /// Ends it: whoever reads gets [`FramesError::Stopped`] at once. May be called from any thread.
    pub fn stop(&self) {
        self.queue.stop();
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.stop();
        if let Some(feeder) = self.feeder.take() {
            // Its panic was printed where it happened.
            let _ = feeder.join();
        }
    }
}
