//! One camera's decoder: what is let in, when a pipeline is built, and when it is given up.
//!
//! ```text
//!             random access point              built
//!  Waiting ------------------------> Starting -------> Running
//!   ^   ^                                |                |
//!   |   +--- back-off is over            | fails          | error, silence
//!   |                                    v                v
//!   +------------------------------- BackOff <------------+      three times in a row: the next decoder of the list
//! ```
//!
//! Whatever state it is in, a unit is either taken, or left out together with all that follow it up to the next
//! random access point. There is no timer: a pipeline is looked after when a unit is pushed, because only then is there
//! something to decode.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clock::Clock;
use gstreamer as gst;
use media::{AccessUnit, ProducerTimestamp, VideoFormat};

use crate::DecodeError;
use crate::bitstream::{Refused, Stream, byte_stream};
use crate::choose::{Choice, Preference, Skipped, check_names, choose_except};
use crate::figures::{self, DecodeReport, Figures, count};
use crate::frame::Frame;
use crate::ledger::Entry;
use crate::pace::Pace;
use crate::pipeline::{Fed, Outlet, Pipeline, Turns, lock};
use crate::plan::plan;

/// Failures in a row before a decoder is passed over.
const FAILURES: u32 = 3;
/// A pipeline that ran so long counts as sound: its failure is the first one.
const HEALTHY: Duration = Duration::from_secs(60);
/// A build that takes longer hangs.
const BUILD_LIMIT: Duration = Duration::from_secs(20);
/// Threads that build or stop, at most: beyond that a driver hangs, and another try would only cost memory.
const HELPERS: usize = 4;

/// See each field. [`DecoderOptions::default`] has the values that fit most cameras.
#[derive(Clone, Debug)]
pub struct DecoderOptions {
    /// The camera, for names of threads.
    pub name: String,
    pub preference: Preference,
    /// Size of the network's input, in pixels: where hardware scales (Jetson), pictures come in the largest size of their
    /// shape within it. Elsewhere they come as they are.
    pub scale_to: Option<(u32, u32)>,
    /// Pictures to hand on per second of the producer's time; every picture if that is no positive finite number.
    pub rate: f64,
    /// Decode random access points only. If the stream has B pictures, one may come out only when the next
    /// goes in.
    pub key_frames_only: bool,
    /// Larger pictures are refused: 4096 x 2304 by default.
    pub max_pixels: u64,
    /// Access units that may wait for the decoder: 48 by default, the length of a burst after a stalled network. When it
    /// is full, units are dropped up to the next random access point.
    pub queue_units: usize,
    /// How long no picture may come out while units go in, 5 s by default.
    pub silence_limit: Duration,
    /// Before a failed pipeline is built again: the first time, and the most it grows to by doubling. 1 s and 60 s.
    pub back_off: (Duration, Duration),
    /// How long dropping the decoder waits for GStreamer, 2 s by default.
    pub stop_limit: Duration,
    /// Silence and back-off are measured by it.
    pub clock: Clock,
}

impl Default for DecoderOptions {
    fn default() -> DecoderOptions {
        DecoderOptions {
            name: String::new(),
            preference: Preference::Automatic,
            scale_to: None,
            rate: f64::INFINITY,
            key_frames_only: false,
            max_pixels: 4096 * 2304,
            queue_units: 48,
            silence_limit: Duration::from_secs(5),
            back_off: (Duration::from_secs(1), Duration::from_secs(60)),
            stop_limit: Duration::from_secs(2),
            clock: Clock::system(),
        }
    }
}

/// Decodes the access units of one camera. All methods return at once, and may be called from any thread.
///
/// Dropping it stops everything: no callback begins afterwards, unless a driver hangs longer than `stop_limit`.
pub struct Decoder {
    shared: Arc<Shared>,
}

struct Shared {
    options: DecoderOptions,
    outlet: Arc<Outlet>,
    state: Mutex<State>,
    /// Threads that build or stop a pipeline.
    helpers: Mutex<usize>,
    helper_ended: Condvar,
}

struct State {
    closed: bool,
    wanted: bool,
    key_frames_only: bool,
    /// Nothing is taken before the next random access point.
    waiting: bool,
    /// Where taking began: what is shown before it refers to pictures that are not there.
    begun_at: Option<ProducerTimestamp>,
    line: Line,
    /// Raised whenever a build in progress has become pointless.
    generation: u64,
    /// Of the last random access point.
    stream: Option<(Arc<VideoFormat>, Stream)>,
    choice: Option<Choice>,
    /// Decoders that failed in use.
    failed: Vec<Skipped>,
    failures: u32,
    back_off: Duration,
    retry_at: Option<Instant>,
    last_problem: Option<DecodeError>,
}

enum Line {
    Off,
    Starting { since: Instant, units: VecDeque<AccessUnit>, trying: Arc<Mutex<String>> },
    Running { pipeline: Pipeline, since: Instant, finishing: bool },
}

impl Decoder {
    /// Starts GStreamer if need be; a pipeline comes with the first random access point.
    ///
    /// `callback` runs on GStreamer's thread for each picture that is handed on, and should only put it somewhere.
    /// Fails when GStreamer does not start, or `preference` names an element that is no H.264 or H.265 decoder.
    pub fn start(
        options: DecoderOptions,
        callback: impl Fn(Arc<Frame>) + Send + Sync + 'static,
    ) -> Result<Decoder, DecodeError> {
        check_names(&options.preference)?;
        let outlet = Outlet {
            callback: Box::new(callback),
            figures: Figures::default(),
            pace: Mutex::new(Pace::new(options.rate)),
            turns: Turns::default(),
        };
        let state = State {
            closed: false,
            wanted: true,
            key_frames_only: options.key_frames_only,
            waiting: true,
            begun_at: None,
            line: Line::Off,
            generation: 0,
            stream: None,
            choice: None,
            failed: Vec::new(),
            failures: 0,
            back_off: options.back_off.0,
            retry_at: None,
            last_problem: None,
        };
        let shared = Shared {
            options,
            outlet: Arc::new(outlet),
            state: Mutex::new(state),
            helpers: Mutex::new(0),
            helper_ended: Condvar::new(),
        };
        Ok(Decoder { shared: Arc::new(shared) })
    }

    /// Takes the next access unit in decoding order.
    pub fn push(&self, unit: AccessUnit) {
        let shared = &self.shared;
        let mut state = lock(&shared.state);
        count(&shared.outlet.figures.pushed, 1);
        let now = shared.options.clock.now();
        shared.look_after(&mut state, now);
        shared.take(&mut state, unit, now);
    }

    /// Waits until a unit would be taken and not dropped for want of room, or until nothing has moved for this long; whether
    /// it would. For whoever has time, such as the reader of what is stored: a camera's pictures do not wait.
    pub fn wait_for_room(&self, limit: Duration) -> bool {
        let shared = &self.shared;
        shared.outlet.turns.wait(limit, || {
            let mut state = lock(&shared.state);
            shared.look_after(&mut state, shared.options.clock.now());
            match &state.line {
                Line::Off => true,
                Line::Starting { units, .. } => units.len() < shared.options.queue_units,
                Line::Running { pipeline, .. } => pipeline.has_room(),
            }
        })
    }

    /// Nothing more comes: lets out what the decoder keeps back, and gives the pipeline up. Waits until nothing has moved for
    /// this long; whether it is done. May be called again, and the next random access point begins anew.
    pub fn finish(&self, limit: Duration) -> bool {
        let shared = &self.shared;
        shared.outlet.turns.wait(limit, || {
            let mut state = lock(&shared.state);
            shared.look_after(&mut state, shared.options.clock.now());
            let done = match &mut state.line {
                Line::Off => return true,
                Line::Starting { .. } => false,
                Line::Running { pipeline, finishing, .. } => {
                    pipeline.finish(std::mem::replace(finishing, true))
                }
            };
            if done {
                shared.stop_line(&mut state);
            }
            done
        })
    }

    /// The next unit does not follow the last one: decoding goes on at the next random access point.
    pub fn discontinuity(&self) {
        lock(&self.shared.state).waiting = true;
    }

    /// Pictures to hand on per second, see [`DecoderOptions::rate`].
    pub fn set_rate(&self, rate: f64) {
        lock(&self.shared.outlet.pace).set_rate(rate);
    }

    pub fn set_key_frames_only(&self, only: bool) {
        let mut state = lock(&self.shared.state);
        if state.key_frames_only && !only {
            state.waiting = true; // the pictures that the next one refers to were left out
        }
        state.key_frames_only = only;
    }

    /// Without interest in pictures nothing is decoded and the pipeline's memory is given back; with it, decoding goes on
    /// at the next random access point.
    pub fn set_wanted(&self, wanted: bool) {
        let mut state = lock(&self.shared.state);
        if !wanted {
            self.shared.stop_line(&mut state);
        }
        state.wanted = wanted;
    }

    pub fn report(&self) -> DecodeReport {
        let state = lock(&self.shared.state);
        let now = self.shared.options.clock.now();
        let stage = match &state.line {
            _ if !state.wanted => figures::Stage::Unwanted,
            Line::Off if state.retry_at.is_some_and(|at| at > now) => figures::Stage::BackOff,
            Line::Off => figures::Stage::Waiting,
            Line::Starting { .. } => figures::Stage::Starting,
            Line::Running { .. } => figures::Stage::Running,
        };
        let mut report = self.shared.outlet.figures.report(stage);
        if let Some(choice) = &state.choice {
            report.decoder = Some(choice.chosen.clone());
            report.skipped.clone_from(&choice.skipped);
        }
        report.last_problem.clone_from(&state.last_problem);
        report.stuck = u64::from(matches!(&state.last_problem, Some(DecodeError::Stuck { .. })))
            * u64::try_from(*lock(&self.shared.helpers)).unwrap_or(u64::MAX);
        report
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        {
            let mut state = lock(&self.shared.state);
            state.closed = true;
            self.shared.stop_line(&mut state);
        }
        let helpers = lock(&self.shared.helpers);
        let limit = self.shared.options.stop_limit;
        let _ = self.shared.helper_ended.wait_timeout_while(helpers, limit, |helpers| *helpers > 0);
    }
}

impl Shared {
    /// Drops a pipeline that has failed.
    fn look_after(self: &Arc<Self>, state: &mut State, now: Instant) {
        match &state.line {
            Line::Off => {}
            Line::Starting { since, trying, .. } => {
                if now.saturating_duration_since(*since) >= BUILD_LIMIT {
                    let (decoder, seconds) = (lock(trying).clone(), BUILD_LIMIT.as_secs());
                    // Once is enough: each further try would leave another thread behind.
                    self.pass_over(state, decoder.clone(), format!("was not ready within {seconds} s"));
                    self.fail(state, DecodeError::BuildHangs { decoder, seconds }, now);
                }
            }
            Line::Running { pipeline, .. } => {
                if let Some(problem) = pipeline.problem(now, self.options.silence_limit) {
                    self.fail(state, problem, now);
                }
            }
        }
    }

    fn take(self: &Arc<Self>, state: &mut State, unit: AccessUnit, now: Instant) {
        let figures = &self.outlet.figures;
        if matches!(state.line, Line::Running { finishing: true, .. }) {
            self.stop_line(state);
        }
        let left_out = !state.wanted
            || state.closed
            || (!unit.random_access && (state.key_frames_only || state.waiting))
            || (matches!(state.line, Line::Off) && state.retry_at.is_some_and(|at| at > now));
        if left_out {
            return count(&figures.left_out, 1);
        }
        let (width, height) = (unit.format.width, unit.format.height);
        if u64::from(width) * u64::from(height) > self.options.max_pixels {
            return self.refuse(state, width, height);
        }
        if unit.random_access {
            self.new_format(state, &unit.format);
            if state.waiting {
                state.waiting = false;
                state.begun_at = Some(unit.timestamp);
                match &mut state.line {
                    Line::Off => {}
                    // What waits is not followed by this unit, and older.
                    Line::Starting { units, .. } => {
                        count(&figures.dropped, units.len() as u64);
                        units.clear();
                    }
                    Line::Running { pipeline, .. } => pipeline.begin(unit.timestamp),
                }
            }
        }
        match &mut state.line {
            Line::Off if !unit.random_access => {
                state.waiting = true;
                count(&figures.left_out, 1);
            }
            Line::Off => self.build(state, unit, now),
            Line::Starting { units, .. } if units.len() < self.options.queue_units => units.push_back(unit),
            Line::Starting { .. } => {
                state.waiting = true;
                count(&figures.dropped, 1);
            }
            Line::Running { .. } => self.feed(state, &unit, now),
        }
    }

    /// Drops the pipeline if it is not the one for this format.
    fn new_format(self: &Arc<Self>, state: &mut State, format: &Arc<VideoFormat>) {
        if state.stream.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, format) || known == format) {
            return;
        }
        let stream = Stream::of(format);
        if state.stream.as_ref().is_some_and(|(_, known)| *known != stream) {
            // What a decoder could not do with the last stream says nothing about this one.
            state.failed.clear();
            state.failures = 0;
            let fits = match &state.line {
                Line::Running { pipeline, .. } => self.plan(&pipeline.plan.decoder, &stream) == pipeline.plan,
                Line::Starting { .. } => false,
                Line::Off => true,
            };
            if !fits {
                self.stop_line(state);
            }
        }
        state.stream = Some((format.clone(), stream));
    }

    fn plan(&self, decoder: &str, stream: &Stream) -> crate::plan::Plan {
        let has = |element: &str, property: &str| {
            // `has_property` of a factory needs its plugin loaded, which making an element does.
            use gst::prelude::*;
            gst::ElementFactory::make(element).build().is_ok_and(|element| element.has_property(property))
        };
        plan(&self.options.name, decoder, stream, self.options.scale_to, &has)
    }

    fn refuse(&self, state: &mut State, width: u32, height: u32) {
        count(&self.outlet.figures.refused, 1);
        state.waiting = true;
        let (pixels, max_pixels) = (u64::from(width) * u64::from(height), self.options.max_pixels);
        state.last_problem = Some(DecodeError::TooLarge { width, height, pixels, max_pixels });
    }

    /// Passes a unit to the running pipeline.
    fn feed(self: &Arc<Self>, state: &mut State, unit: &AccessUnit, now: Instant) {
        let figures = &self.outlet.figures;
        let Line::Running { pipeline, .. } = &state.line else { return };
        match state.begun_at {
            Some(begin) if unit.timestamp < begin => return count(&figures.left_out, 1),
            Some(begin) if unit.timestamp > begin => state.begun_at = None,
            _ => {}
        }
        let coded = match byte_stream(unit, self.options.max_pixels) {
            Ok(coded) => coded,
            Err(Refused::NoPicture) => {
                state.waiting |= unit.random_access; // what follows refers to this one
                return count(&figures.damaged, 1);
            }
            Err(Refused::TooLarge { width, height }) => return self.refuse(state, width, height),
        };
        if unit.random_access && !pipeline.continues(unit.timestamp) {
            pipeline.begin(unit.timestamp);
        }
        let broken = coded.broken;
        let source = (unit.format.width, unit.format.height);
        let entry = Entry { timestamp: unit.timestamp, source, broken };
        let mut flags = gst::BufferFlags::empty();
        flags.set(gst::BufferFlags::DELTA_UNIT, !unit.random_access);
        flags.set(gst::BufferFlags::DISCONT, state.begun_at == Some(unit.timestamp));
        match pipeline.feed(coded, entry, flags, &self.outlet) {
            Fed::Taken => count(&figures.damaged, u64::from(broken)),
            Fed::Full => {
                state.waiting = true;
                count(&figures.dropped, 1);
            }
            Fed::Astray => {
                state.waiting = true;
                count(&figures.damaged, 1);
            }
            Fed::Failed => {
                count(&figures.dropped, 1);
                self.look_after(state, now);
            }
        }
    }

    /// Builds a pipeline on a thread of its own; `unit` will be the first that it gets.
    fn build(self: &Arc<Self>, state: &mut State, unit: AccessUnit, now: Instant) {
        let Some((_, stream)) = state.stream else { return };
        let stuck = *lock(&self.helpers);
        if stuck >= HELPERS {
            return self.fail(state, DecodeError::Stuck { stuck }, now);
        }
        state.generation += 1;
        state.retry_at = None;
        let generation = state.generation;
        let failed = state.failed.clone();
        let shared = self.clone();
        let trying = Arc::new(Mutex::new(String::new()));
        state.line = Line::Starting { since: now, units: VecDeque::from([unit]), trying: trying.clone() };
        let spawned = self.help(move || {
            let tries = |name: &str| name.clone_into(&mut lock(&trying));
            let choice = choose_except(stream.codec, &shared.options.preference, &failed, &tries);
            let built = choice.map(|choice| {
                let plan = shared.plan(&choice.chosen, &stream);
                (Pipeline::start(plan, shared.outlet.clone(), &shared.options), choice)
            });
            let mut state = lock(&shared.state);
            // If the build has become pointless, the pipeline is stopped here, without the lock.
            if state.generation != generation {
                drop(state);
                drop(built);
                return;
            }
            shared.built(&mut state, built);
            drop(state);
            shared.outlet.turns.turn();
        });
        if let Err(message) = spawned {
            self.fail(state, DecodeError::Pipeline { decoder: "new thread".to_owned(), message }, now);
        }
    }

    /// A build has ended in time.
    fn built(
        self: &Arc<Self>,
        state: &mut State,
        built: Result<(Result<Pipeline, DecodeError>, Choice), DecodeError>,
    ) {
        let now = self.options.clock.now();
        let (pipeline, choice) = match built {
            Ok(built) => built,
            Err(problem) => {
                // The list is exhausted; the next try begins with the best decoder again.
                state.failed.clear();
                state.choice = None;
                return self.fail(state, problem, now);
            }
        };
        state.choice = Some(choice);
        match pipeline {
            Ok(pipeline) => {
                let line = std::mem::replace(
                    &mut state.line,
                    Line::Running { pipeline, since: now, finishing: false },
                );
                let Line::Starting { units, .. } = line else { return };
                // Set if the next unit does not follow these, the first of which begins a run.
                let waiting = std::mem::replace(&mut state.waiting, true);
                units.into_iter().for_each(|unit| self.take(state, unit, now));
                state.waiting |= waiting;
            }
            Err(problem) => self.fail(state, problem, now),
        }
    }

    /// Drops the pipeline, and decides when the next one may be built.
    fn fail(self: &Arc<Self>, state: &mut State, problem: DecodeError, now: Instant) {
        if let Line::Running { since, .. } = &state.line
            && now.saturating_duration_since(*since) >= HEALTHY
        {
            state.failures = 0;
            state.back_off = self.options.back_off.0;
        }
        count(&self.outlet.figures.rebuilt, 1);
        self.stop_line(state);
        state.retry_at = now.checked_add(state.back_off);
        state.back_off = (state.back_off * 2).min(self.options.back_off.1);
        state.failures += 1;
        if state.failures >= FAILURES
            && let Some(Choice { chosen, .. }) = &state.choice
        {
            let reason = format!("failed {FAILURES} times in a row, at last: {problem}");
            self.pass_over(state, chosen.clone(), reason);
        }
        state.last_problem = Some(problem);
    }

    /// Leaves a decoder out from now on, until all others have failed too or the stream changes.
    fn pass_over(&self, state: &mut State, name: String, reason: String) {
        if !name.is_empty() {
            state.failed.push(Skipped { name, reason });
        }
        state.failures = 0;
        state.back_off = self.options.back_off.0;
    }

    /// Stops the pipeline, or the building of one. The next comes with a random access point.
    fn stop_line(self: &Arc<Self>, state: &mut State) {
        state.waiting = true;
        state.begun_at = None;
        state.generation += 1;
        let figures = &self.outlet.figures;
        match std::mem::replace(&mut state.line, Line::Off) {
            Line::Off => {}
            Line::Starting { units, .. } => count(&figures.dropped, units.len() as u64),
            Line::Running { pipeline, .. } => {
                count(&figures.dropped, pipeline.mute());
                // If there is no thread to be had, the closure is dropped here, and the pipeline with it.
                let _ = self.help(move || drop(pipeline));
            }
        }
    }

    /// Runs `work` on a thread of its own, because a driver may hang in it.
    fn help(self: &Arc<Self>, work: impl FnOnce() + Send + 'static) -> Result<(), String> {
        let helper = Helper::new(self.clone());
        let name = format!(
            "dec-{}-aux",
            self.options.name.chars().filter(char::is_ascii_alphanumeric).collect::<String>()
        );
        let run = move || {
            work();
            drop(helper);
        };
        thread::Builder::new().name(name).spawn(run).map(drop).map_err(|error| error.to_string())
    }
}

/// One thread at work, counted even if it panics.
struct Helper(Arc<Shared>);

impl Helper {
    fn new(shared: Arc<Shared>) -> Helper {
        *lock(&shared.helpers) += 1;
        Helper(shared)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let mut helpers: MutexGuard<'_, usize> =
            self.0.helpers.lock().unwrap_or_else(PoisonError::into_inner);
        *helpers -= 1;
        self.0.helper_ended.notify_all();
    }
}

#[cfg(test)]
mod tests;
