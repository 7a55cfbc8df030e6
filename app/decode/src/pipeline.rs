//! One running pipeline: access units in at one end, frames out to the callback on GStreamer's thread.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clock::Clock;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;

use crate::bitstream::Coded;
use crate::choose::error_text;
use crate::decoder::DecoderOptions;
use crate::figures::{Figures, count};
use crate::frame::{Frame, Layout};
use crate::ledger::{Entry, Ledger};
use crate::pace::Pace;
use crate::plan::{DECODER, Plan, SINK};
use crate::{DecodeError, init};

/// Bytes that may wait in front of a decoder, whatever the number of access units.
const QUEUE_BYTES: u64 = 32 << 20;
/// Access units without an answer before it is called silence: more than any codec keeps back (16 pictures).
const SILENT_UNITS: u32 = 24;
/// Access units within a decoder at most, those that will never come out included.
const DECODER_PLACES: usize = 64;
/// A wait looks at least this often, since silence has no event.
const LOOK: Duration = Duration::from_millis(500);
/// Pictures between decoder and callback; there is one, or none.
const DUE_PLACES: usize = 4;

/// What outlives pipelines: where pictures go, at which rate, and what is counted.
pub(crate) struct Outlet {
    pub(crate) callback: Box<dyn Fn(Arc<Frame>) + Send + Sync>,
    pub(crate) figures: Figures,
    pub(crate) pace: Mutex<Pace>,
    pub(crate) turns: Turns,
}

/// Wakes whoever waits for a decoder to go on. Costs nothing while nobody does.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    waiting: AtomicUsize,
    turn: Mutex<u64>,
    turned: Condvar,
}

impl Turns {
    /// Something has changed.
    pub(crate) fn turn(&self) {
        if self.waiting.load(SeqCst) > 0 {
            let mut turn = lock(&self.turn);
            *turn = turn.wrapping_add(1);
            self.turned.notify_all();
        }
    }

    /// Until that holds, or nothing has turned for this long; whether it holds. It is asked without a lock of this type.
    pub(crate) fn wait(&self, limit: Duration, holds: impl Fn() -> bool) -> bool {
        self.waiting.fetch_add(1, SeqCst);
        let mut left = limit;
        let held = loop {
            // A turn after this look counts, even one before the wait.
            let seen = *lock(&self.turn);
            if holds() {
                break true;
            }
            let slice = left.min(LOOK);
            if slice.is_zero() {
                break false;
            }
            let turn = lock(&self.turn);
            let waited = self.turned.wait_timeout_while(turn, slice, |turn| *turn == seen);
            let (turn, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            drop(turn);
            if waited.timed_out() {
                left -= slice;
            }
        };
        self.waiting.fetch_sub(1, SeqCst);
        held
    }
}

pub(crate) struct Pipeline {
    pipeline: gst::Pipeline,
    input: gst_app::AppSrc,
    pub(crate) plan: Plan,
    flow: Arc<Flow>,
}

/// Shared with GStreamer's threads.
struct Flow {
    decoder: String,
    /// Cleared when the pipeline is given up: nothing is handed on from then on.
    live: AtomicBool,
    /// Everything has come out, after [`Pipeline::finish`].
    ended: AtomicBool,
    /// Access units that wait in `appsrc`.
    queued: AtomicUsize,
    places: usize,
    clock: Clock,
    books: Mutex<Books>,
    problem: Mutex<Option<DecodeError>>,
}

struct Books {
    ledger: Ledger,
    /// Decoded pictures that are wanted, on their way to the callback.
    due: VecDeque<(u64, Entry)>,
    /// Access units since a picture came out, and when the first of them went in.
    unanswered: u32,
    since: Instant,
}

/// What became of an access unit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fed {
    Taken,
    /// The queue is full: the decoder is behind.
    Full,
    /// Its time does not belong to this run.
    Astray,
    /// The pipeline has failed.
    Failed,
}

/// A panic of the callback leaves nothing half-done in what the locks guard.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pipeline {
    /// Builds and starts. May take long where a device is opened.
    pub(crate) fn start(
        plan: Plan,
        outlet: Arc<Outlet>,
        options: &DecoderOptions,
    ) -> Result<Pipeline, DecodeError> {
        let places = options.queue_units;
        init()?;
        let failed = |message: String| DecodeError::Build {
            decoder: plan.decoder.clone(),
            description: plan.description.clone(),
            message,
        };
        let missing = |what: &str| failed(format!("it has no {what}"));
        let element = gst::parse::launch(&plan.description).map_err(|error| failed(error.to_string()))?;
        let pipeline = element.downcast::<gst::Pipeline>().map_err(|_| missing("pipeline"))?;
        let input =
            pipeline.by_name(&plan.source).and_then(|source| source.downcast::<gst_app::AppSrc>().ok());
        let input = input.ok_or_else(|| missing("appsrc"))?;
        let sink = pipeline.by_name(SINK).and_then(|sink| sink.downcast::<gst_app::AppSink>().ok());
        let sink = sink.ok_or_else(|| missing("appsink"))?;
        let decoder = pipeline.by_name(DECODER).ok_or_else(|| missing("decoder"))?;
        let pad = |element: &gst::Element, name: &str| element.static_pad(name).ok_or_else(|| missing("pad"));

        let books = Books {
            ledger: Ledger::new(places.saturating_add(DECODER_PLACES)),
            due: VecDeque::new(),
            unanswered: 0,
            since: options.clock.now(),
        };
        let flow = Arc::new(Flow {
            decoder: plan.decoder.clone(),
            live: AtomicBool::new(true),
            ended: AtomicBool::new(false),
            queued: AtomicUsize::new(0),
            places,
            clock: options.clock.clone(),
            books: Mutex::new(books),
            problem: Mutex::new(None),
        });
        let (fed, to) = (flow.clone(), outlet.clone());
        pad(input.upcast_ref(), "src")?.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            fed.queued.fetch_sub(1, SeqCst);
            to.turns.turn();
            gst::PadProbeReturn::Ok
        });
        let (decoded, to) = (flow.clone(), outlet.clone());
        pad(&decoder, "src")?.add_probe(gst::PadProbeType::BUFFER, move |_, info| match info.buffer() {
            Some(buffer) if !decoded.decoded(buffer, &to) => gst::PadProbeReturn::Drop,
            _ => gst::PadProbeReturn::Ok,
        });
        let (taken, ended, to) = (flow.clone(), flow.clone(), outlet.clone());
        let mut layout = None;
        let pull = move |sink: &gst_app::AppSink| {
            // None: flushing.
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Flushing)?;
            taken.take(&sample, &mut layout, &outlet);
            Ok(gst::FlowSuccess::Ok)
        };
        let end = move |_: &gst_app::AppSink| {
            ended.ended.store(true, SeqCst);
            to.turns.turn();
        };
        sink.set_callbacks(gst_app::AppSinkCallbacks::builder().new_sample(pull).eos(end).build());
        let bus = pipeline.bus().ok_or_else(|| missing("bus"))?;
        let reported = flow.clone();
        bus.set_sync_handler(move |_, message| {
            if message.type_() == gst::MessageType::Error {
                reported.problem(error_text(message));
            }
            // Nobody reads the bus.
            gst::BusSyncReply::Drop
        });

        let pipeline = Pipeline { pipeline, input, plan: plan.clone(), flow };
        if pipeline.pipeline.set_state(gst::State::Playing).is_err() {
            let problem = lock(&pipeline.flow.problem).take();
            let message =
                problem.map_or_else(|| "it gives no reason".to_owned(), |problem| problem.to_string());
            return Err(failed(message));
        }
        Ok(pipeline)
    }

    /// The next unit begins a run. See [`Ledger::begin`].
    pub(crate) fn begin(&self, at: media::ProducerTimestamp) {
        lock(&self.flow.books).ledger.begin(at);
    }

    /// See [`Ledger::continues`].
    pub(crate) fn continues(&self, at: media::ProducerTimestamp) -> bool {
        lock(&self.flow.books).ledger.continues(at)
    }

    /// A unit would be taken.
    pub(crate) fn has_room(&self) -> bool {
        self.flow.queued.load(SeqCst) < self.flow.places && self.input.current_level_bytes() <= QUEUE_BYTES
    }

    /// Nothing more comes: what the decoder keeps back comes out. Whether it did.
    pub(crate) fn finish(&self, asked: bool) -> bool {
        if !asked && let Err(error) = self.input.end_of_stream() {
            self.flow.problem(format!("appsrc takes no end: {error}"));
        }
        self.flow.ended.load(SeqCst)
    }

    /// Passes a unit to the decoder; never waits.
    pub(crate) fn feed(&self, coded: Coded, entry: Entry, flags: gst::BufferFlags, outlet: &Outlet) -> Fed {
        if !self.has_room() {
            return Fed::Full;
        }
        let key = {
            let mut books = lock(&self.flow.books);
            let Some((key, lost)) = books.ledger.add(entry) else { return Fed::Astray };
            count(&outlet.figures.damaged, lost);
            if books.unanswered == 0 {
                books.since = self.flow.clock.now();
            }
            books.unanswered = books.unanswered.saturating_add(1);
            key
        };
        let mut buffer = gst::Buffer::from_mut_slice(coded.bytes);
        let head = buffer.get_mut().expect("a new buffer has one owner");
        head.set_pts(gst::ClockTime::from_nseconds(key));
        head.set_flags(flags);
        self.flow.queued.fetch_add(1, SeqCst);
        match self.input.push_buffer(buffer) {
            Ok(_) => Fed::Taken,
            Err(error) => {
                self.flow.queued.fetch_sub(1, SeqCst);
                self.flow.problem(format!("appsrc takes nothing: {error}"));
                Fed::Failed
            }
        }
    }

    /// What makes this pipeline useless, if anything does.
    pub(crate) fn problem(&self, now: Instant, silence_limit: Duration) -> Option<DecodeError> {
        if let Some(problem) = lock(&self.flow.problem).clone() {
            return Some(problem);
        }
        let books = lock(&self.flow.books);
        let silent = now.saturating_duration_since(books.since);
        let decoder = self.plan.decoder.clone();
        (books.unanswered >= SILENT_UNITS && silent >= silence_limit).then(|| DecodeError::Silent {
            decoder,
            units: books.unanswered,
            seconds: silent.as_secs(),
        })
    }

    /// Hands nothing on any more; returns the number of intact units that are still on their way.
    pub(crate) fn mute(&self) -> u64 {
        self.flow.live.store(false, SeqCst);
        lock(&self.flow.books).ledger.in_flight()
    }

    #[cfg(test)]
    pub(crate) fn elements(&self) -> &gst::Pipeline {
        &self.pipeline
    }
}

/// May take long, or for ever, where a driver hangs: not for a thread that has other things to do.
impl Drop for Pipeline {
    fn drop(&mut self) {
        self.flow.live.store(false, SeqCst);
        // An error here means that an element could not be stopped in order; there is nothing left to do with it.
        let _ = self.pipeline.set_state(gst::State::Null);
        if let Some(bus) = self.pipeline.bus() {
            bus.unset_sync_handler();
        }
    }
}

impl Flow {
    fn problem(&self, message: String) {
        let decoder = self.decoder.clone();
        lock(&self.problem).get_or_insert(DecodeError::Pipeline { decoder, message });
    }

    /// A picture came out of the decoder. Whether it is wanted.
    fn decoded(&self, buffer: &gst::Buffer, outlet: &Outlet) -> bool {
        let figures = &outlet.figures;
        if !self.live.load(SeqCst) {
            return false;
        }
        count(&figures.decoded, 1);
        let key = buffer.pts().map(gst::ClockTime::nseconds);
        let mut books = lock(&self.books);
        books.unanswered = 0;
        let Some((entry, lost)) = books.ledger.take(key) else {
            count(&figures.unknown, 1);
            return false;
        };
        count(&figures.damaged, lost);
        if buffer.flags().contains(gst::BufferFlags::CORRUPTED) {
            count(&figures.damaged, u64::from(!entry.broken));
            return false;
        }
        if !lock(&outlet.pace).wants(entry.timestamp) {
            return false;
        }
        if books.due.len() >= DUE_PLACES {
            books.due.pop_front();
        }
        books.due.push_back((key.unwrap_or_default(), entry));
        true
    }

    /// A wanted picture has reached the end.
    fn take(&self, sample: &gst::Sample, layout: &mut Option<(gst::Caps, Layout)>, outlet: &Outlet) {
        let (Some(buffer), Some(caps)) = (sample.buffer_owned(), sample.caps_owned()) else { return };
        let entry = {
            let mut books = lock(&self.books);
            let key = buffer.pts().map(gst::ClockTime::nseconds);
            let at = books.due.iter().position(|(due, _)| Some(*due) == key);
            at.and_then(|at| books.due.drain(..=at).next_back())
        };
        let Some((_, entry)) = entry else {
            count(&outlet.figures.unknown, 1);
            return;
        };
        let wrong = |found: String| {
            let decoder = self.decoder.clone();
            lock(&self.problem).get_or_insert(DecodeError::Format { decoder, found });
        };
        if layout.as_ref().is_none_or(|(known, _)| *known != caps) {
            *layout = match Layout::of(&caps) {
                Ok(new) => Some((caps, new)),
                Err(found) => return wrong(found),
            };
        }
        let Some((_, layout)) = layout else { return };
        match Frame::new(buffer, layout, &entry) {
            Ok(frame) if self.live.load(SeqCst) => {
                outlet.figures.handed_on.fetch_add(1, Relaxed);
                (outlet.callback)(Arc::new(frame));
            }
            Ok(_) => {}
            Err(found) => wrong(found),
        }
    }
}
