//! Fragments of several streams at once, handed to callbacks as they arrive: what AWS's consumer library does.
//!
//! ```text
//!  GetMedia, GetMediaForFragmentList ---task---> FragmentStream --1 fragment--> thread ---> Callbacks
//!  another stream                    ---task---> FragmentStream --1 fragment--> thread --->   "
//! ```
//!
//! Each stream has a thread of its own, on which its callbacks are called one after the other: they may take their time, write
//! files and wait. Whoever takes longer than a fragment lasts falls behind the live edge, and no other stream with it; nothing is
//! left out, since the service waits.
//!
//! The names are those of AWS's Python library. Unlike there the last fragment of an answer arrives too, an answer that broke off
//! is told as an exception, and the connection is closed at the end of the answer.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use kvs::FragmentNumber;
use kvs::read::chunk::Failure;
use kvs::read::documents::Document;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::documents::{FragmentStream, FragmentStreamError};
use crate::media_stream::MediaStream;

/// Whole fragments between the connection and the callback. When it is full, the connection waits.
const WAITING: usize = 1;

/// Who is told. Called on the stream's own thread, of several streams at once.
pub trait Callbacks: Send + Sync + 'static {
    /// A fragment is here, whole.
    fn on_fragment_arrived(&self, stream_name: &str, fragment: &Fragment);

    /// The answer is over, in order: the producer stopped, the service ended it after 40 to 45 min, all fragments of the list
    /// came, or [`Consumer::stop`] was called. The last call for this answer.
    fn on_read_stream_complete(&self, stream_name: &str) {
        let _ = stream_name;
    }

    /// The answer broke, is no Matroska, or says itself why it ends. The last call for this answer.
    fn on_read_stream_exception(&self, stream_name: &str, error: &ConsumerError) {
        let _ = (stream_name, error);
    }
}

/// Why an answer ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// The call failed while its answer was read, or the answer is no Matroska.
    #[error(transparent)]
    Stream(#[from] FragmentStreamError),
    /// In the answer, in the words of the service: why it goes on no longer, or the first fragment of a list that it did not
    /// have. The other fragments of the list arrived.
    #[error(transparent)]
    InBand(Failure),
    /// No callback but this one was called.
    #[error("no thread for the callbacks: {0}")]
    Thread(std::io::Error),
    /// The fragment that was on its way when the answer ended; no part of it is handed on.
    #[error("the answer ended inside {}", .number.map_or("a fragment".to_owned(), |number| format!("fragment {number}")))]
    Cut {
        /// `None`: the answer ended before its number came.
        number: Option<FragmentNumber>,
    },
}

/// One fragment: its number, times, tags and bytes (by [`Document`]), and what can be made of them.
#[derive(Clone, Debug)]
pub struct Fragment {
    /// The fragment as it came.
    pub document: Document,
    /// From the arrival of the fragment before, or the begin of reading, to its own.
    pub receive_duration: Duration,
}

impl Fragment {
    /// Saves it as a Matroska file that any player opens. The file is there only when it is whole.
    pub fn save_mkv(&self, path: impl AsRef<Path>) -> std::io::Result<()> {
        save_mkv(&self.document, path)
    }

    /// Its decoded pictures: the first, and then each `one_in`-th; red first. Blocks until all of them are there, which
    /// takes a pipeline of GStreamer of its own.
    #[cfg(feature = "decode")]
    pub fn frames(&self, one_in: usize) -> Result<Vec<crate::frames::Frame>, crate::frames::FramesError> {
        use crate::frames::{ChannelOrder, FrameOptions, Frames, FramesError, WhenFull};

        let (documents, source) = crate::source::DocumentSource::channel(1);
        // There is room for it.
        let _ = documents.try_send(self.document.clone());
        drop(documents);
        let options = FrameOptions {
            name: "fragment".to_owned(),
            when_full: WhenFull::Wait,
            order: ChannelOrder::Rgb,
            ..FrameOptions::default()
        };
        let frames = Frames::start(source, options)?;
        let (mut found, mut number) = (Vec::new(), 0);
        loop {
            match frames.read() {
                Ok(Some(frame)) => {
                    if number % one_in.max(1) == 0 {
                        found.push(frame);
                    }
                    number += 1;
                }
                Ok(None) => {}
                Err(FramesError::Ended) => return Ok(found),
                Err(error) => return Err(error),
            }
        }
    }
}

impl Deref for Fragment {
    type Target = Document;

    fn deref(&self) -> &Document {
        &self.document
    }
}

/// Saves a fragment as a Matroska file that any player opens. The file is there only when it is whole: it is written beside
/// its place, under the name with a dot in front and `.part` behind.
pub fn save_mkv(document: &Document, path: impl AsRef<Path>) -> std::io::Result<()> {
    use std::io::Write;

    let path = path.as_ref();
    let name = path.file_name().ok_or_else(|| std::io::Error::other("this names no file"))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".part");
    let part = path.with_file_name(hidden);
    let write = || {
        let mut file = std::fs::File::create(&part)?;
        document.pieces().iter().try_for_each(|piece| file.write_all(piece))?;
        std::fs::rename(&part, path)
    };
    write().inspect_err(|_| {
        // What is left of it is of no use to anybody; that it cannot be removed adds nothing to the error.
        let _ = std::fs::remove_file(&part);
    })
}

/// Reads answers and calls back. Dropping it ends all of them after the callback that is under way.
pub struct Consumer {
    callbacks: Arc<dyn Callbacks>,
    clock: Clock,
    readers: JoinSet<()>,
    stops: BTreeMap<u64, (String, watch::Sender<bool>)>,
    answers: u64,
}

enum Told {
    Fragment(Fragment),
    Over(Result<(), ConsumerError>),
}

impl Consumer {
    /// Calls back here.
    pub fn new(callbacks: impl Callbacks) -> Self {
        Self::with_clock(callbacks, Clock::system())
    }

    /// The same with another clock for [`Fragment::receive_duration`].
    pub fn with_clock(callbacks: impl Callbacks, clock: Clock) -> Self {
        let callbacks = Arc::new(callbacks);
        Self { callbacks, clock, readers: JoinSet::new(), stops: BTreeMap::new(), answers: 0 }
    }

    /// Begins to read an answer of GetMedia or GetMediaForFragmentList; `stream_name` is what the callbacks are told. Call it
    /// inside a Tokio runtime.
    pub fn read(&mut self, stream_name: impl Into<String>, answer: MediaStream) {
        let stream_name = stream_name.into();
        let (stop, stopped) = watch::channel(false);
        self.answers += 1;
        self.stops.retain(|_, (_, stop)| !stop.is_closed());
        self.stops.insert(self.answers, (stream_name.clone(), stop));
        let (callbacks, clock) = (self.callbacks.clone(), self.clock.clone());
        self.readers.spawn(read(stream_name, answer, callbacks, clock, stopped));
    }

    /// Ends what is read under this name; `on_read_stream_complete` follows.
    pub fn stop(&self, stream_name: &str) {
        for (_, stop) in self.stops.values().filter(|(name, _)| name == stream_name) {
            stop.send_replace(true);
        }
    }

    /// How many answers are still read.
    pub fn reading(&self) -> usize {
        self.stops.values().filter(|(_, stop)| !stop.is_closed()).count()
    }

    /// Waits until all answers are over and their last callbacks have returned. Safe to cancel.
    pub async fn finished(&mut self) {
        while self.readers.join_next().await.is_some() {}
        self.stops.clear();
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("reading", &self.reading()).finish_non_exhaustive()
    }
}

async fn read(
    stream_name: String,
    answer: MediaStream,
    callbacks: Arc<dyn Callbacks>,
    clock: Clock,
    mut stopped: watch::Receiver<bool>,
) {
    let (told, mut tell) = mpsc::channel(WAITING);
    let (done, over) = oneshot::channel::<()>();
    let (name, caller) = (stream_name.clone(), callbacks.clone());
    let call = move || {
        let _done = done; // dropped at the end, whatever that is
        while let Some(told) = tell.blocking_recv() {
            match told {
                Told::Fragment(fragment) => caller.on_fragment_arrived(&name, &fragment),
                Told::Over(Ok(())) => caller.on_read_stream_complete(&name),
                Told::Over(Err(error)) => caller.on_read_stream_exception(&name, &error),
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("kvs-consumer".to_owned()).spawn(call) {
        return callbacks.on_read_stream_exception(&stream_name, &ConsumerError::Thread(error));
    }
    let hand_on = async {
        let (mut fragments, mut since) = (FragmentStream::new(answer), clock.now());
        let mut refused = None;
        while let Some(document) = fragments.next().await? {
            if let Some(failure) = document.failure() {
                // Of a list the others still come.
                refused.get_or_insert(failure);
                continue;
            }
            if !document.complete {
                // The error that broke the answer, if there is one, says more.
                let number = document.number;
                fragments.next().await?;
                return Err(ConsumerError::Cut { number });
            }
            // An answer may end behind the tags that open a fragment.
            if document.blocks > 0 {
                let now = clock.now();
                let receive_duration = now.saturating_duration_since(since);
                since = now;
                if told.send(Told::Fragment(Fragment { document, receive_duration })).await.is_err() {
                    break; // a callback panicked
                }
            }
        }
        refused.map_or(Ok(()), |failure| Err(ConsumerError::InBand(failure)))
    };
    let outcome = tokio::select! {
        outcome = hand_on => outcome,
        _ = stopped.wait_for(|stopped| *stopped) => Ok(()),
    };
    let _ = told.send(Told::Over(outcome)).await; // unless a callback panicked
    drop(told);
    let _ = over.await;
}
