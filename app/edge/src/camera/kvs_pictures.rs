//! Pictures of a camera that is a KVS stream: read by the client's source, looked at as any camera's.
//!
//! ```text
//!  kvs_client::source::Source --Feed--> pace --> fan-out, without an upload
//!                    |--> IngestReport: state, problem, figures
//!                    +--> which picture is in which fragment, for the clip of an event
//! ```
//!
//! The source never gives up. A range comes faster than it was filmed, and is played at the speed of its pictures, so that
//! the detector's rates mean what they mean of a camera; gaps in it are passed over. What is live may come a fragment at a
//! time, by HLS always, and has to be caught up with after a delay: it is played at most twice as fast as it was filmed, or
//! the branch would have no place for most of a fragment's pictures.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use analytics::Persisted;
use clock::Clock;
use config::KvsSource;
use health::{Problem, Reason};
use kvs::FragmentNumber;
use kvs::api::StreamId;
use kvs_client::Client;
use kvs_client::source::{OptionsError, Source, SourceMode, SourceOptions, StreamSource};
use media::{AccessUnit, ClockSource, Feed, ProducerTimestamp, UnitSource};
use rtsp::source::{IngestReport, IngestState};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::fanout::Fanout;
use crate::record::reason_of;
use crate::watchdog::Pulse;

/// Between looks at the source while nothing comes.
const LOOK: Duration = Duration::from_millis(250);
/// A longer pause between two pictures is passed over.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Fragments that wait to be told; the oldest are forgotten.
const UNTOLD: usize = 256;

/// The reader of one camera.
pub(super) struct KvsPictures {
    pub(super) camera: Arc<config::Camera>,
    pub(super) source: KvsSource,
    pub(super) client: Client,
    pub(super) clock: Clock,
    pub(super) report: watch::Sender<IngestReport>,
    pub(super) pulse: Pulse,
    /// Absent where nothing is to be detected.
    pub(super) fragments: Option<mpsc::Sender<Persisted>>,
}

/// What a run keeps beside its source.
struct Run {
    fanout: Fanout,
    /// Of a range: monotonic and producer time of one picture.
    pace: Option<(Instant, ProducerTimestamp)>,
    /// The last picture, and when it was handed on.
    last: Option<(Instant, ProducerTimestamp)>,
    gop: Option<(ProducerTimestamp, u32)>,
    open: Option<Persisted>,
    untold: VecDeque<Persisted>,
    begun: Instant,
    resets: u64,
    /// Failed calls when the last picture came.
    errors: u64,
}

impl KvsPictures {
    /// Until `cancel`. Of a range also behind its end, so that the camera stays known.
    pub(super) async fn run(mut self, fanout: Fanout, cancel: CancellationToken) {
        let stream = StreamId::name(&self.camera.stream);
        let mut source = match Source::new(&self.client, &stream, &options(&self.source)) {
            Ok(source) => source,
            Err(error) => return self.refused(&error, cancel).await,
        };
        let begun = self.clock.now();
        let mut run = Run {
            fanout,
            pace: None,
            last: None,
            gop: None,
            open: None,
            untold: VecDeque::new(),
            begun,
            resets: 0,
            errors: 0,
        };
        tracing::info!(
            camera = self.camera.id,
            stream = self.camera.stream,
            mode = self.source.mode().name(),
            "reading a KVS stream"
        );
        loop {
            self.pulse.beat();
            let item = tokio::select! {
                item = source.next() => Some(item),
                () = self.clock.sleep(LOOK) => None,
                () = cancel.cancelled() => break,
            };
            match item {
                Some(Some(item)) => self.take(&mut run, &mut source, item, &cancel).await,
                Some(None) => {
                    self.tell(&mut run, true);
                    return self.over(source.figures().frames_read, cancel).await;
                }
                None => {}
            }
            self.tell(&mut run, false);
            self.publish(&mut run, &source);
        }
        self.state(IngestState::Stopped, None);
    }

    async fn take(&mut self, run: &mut Run, source: &mut Source, item: Feed, cancel: &CancellationToken) {
        match &item {
            Feed::Video(unit) => {
                self.wait(run, unit.timestamp, cancel).await;
                self.picture(run, unit);
                run.last = Some((self.clock.now(), unit.timestamp));
                run.errors = source.figures().read_errors;
                run.note(unit.timestamp, source.origin().and_then(|origin| origin.number));
            }
            Feed::Break | Feed::NewTimeline => run.pace = None,
            Feed::Audio(_) | Feed::AudioTrack(_) => {}
        }
        run.fanout.send(item);
    }

    /// Until this picture is due.
    async fn wait(&self, run: &mut Run, at: ProducerTimestamp, cancel: &CancellationToken) {
        let mut due = self.clock.now();
        let since_last = run.last.and_then(|(sent, last)| {
            let pause = Duration::from_millis(at.checked_ms_since(last)?);
            Some((sent, pause)).filter(|_| pause <= LONGEST_PAUSE)
        });
        // B pictures go back a little; what goes on after a gap, or begins anew, sets the pace anew.
        if since_last.is_none() && run.last.is_none_or(|(_, last)| at > last) {
            run.pace = None;
        }
        if self.source.is_range() {
            let (base, base_at) = *run.pace.get_or_insert((due, at));
            due = base + Duration::from_millis(at.checked_ms_since(base_at).unwrap_or(0));
        }
        if let Some((sent, pause)) = since_last {
            due = due.max(sent + pause / 2);
        }
        while let Some(left) = due.checked_duration_since(self.clock.now())
            && !left.is_zero()
        {
            self.pulse.beat();
            let slept = cancel.run_until_cancelled(self.clock.sleep(left.min(LOOK))).await;
            if slept.is_none() {
                return;
            }
        }
    }

    fn picture(&self, run: &mut Run, unit: &AccessUnit) {
        let mut gop = None;
        if unit.random_access {
            let before = run.gop.replace((unit.timestamp, 0));
            gop = before
                .and_then(|(begin, pictures)| Some((pictures, unit.timestamp.checked_ms_since(begin)?)));
        }
        if let Some((_, pictures)) = &mut run.gop {
            *pictures += 1;
        }
        let wall = self.clock.wall();
        // As of a camera: watchers are woken once a GOP.
        self.report.send_if_modified(|report| {
            report.frames += 1;
            report.bytes += unit.data.len() as u64;
            report.last_frame = Some(wall);
            report.format = Some(unit.format.clone());
            report.transport = Some(self.source.mode().name());
            report.clock = Some(ClockSource::Producer);
            report.attempts = 0;
            report.needs_operator = false;
            if let Some((pictures, ms)) = gop {
                (report.gop_frames, report.gop_ms) = (Some(pictures), Some(ms));
            }
            gop.is_some()
        });
    }

    /// State and problem, as the source and the last picture say.
    fn publish(&self, run: &mut Run, source: &Source) {
        let now = self.clock.now();
        let figures = source.figures();
        let resets = figures.connection_resets.saturating_sub(run.resets);
        run.resets = figures.connection_resets;
        let failed = figures.read_errors.saturating_sub(run.errors);
        let (wall, stall) = (self.clock.wall(), self.camera.stall);
        let since_last = self.clock.since(run.last.map_or(run.begun, |(at, _)| at));
        let (state, problem) = if run.last.is_some() && since_last < stall {
            (IngestState::Live, None)
        } else if let Some(problem) = self.problem(source) {
            (IngestState::BackingOff, Some(problem))
        } else if since_last < stall {
            (IngestState::Connecting, None)
        } else {
            let found = format!("no picture in stream `{}` for {} s", self.camera.stream, stall.as_secs());
            let problem = Problem::new(Reason::Stalled, found, wall);
            (IngestState::BackingOff, Some(problem.fix("see whether anything is uploaded into it")))
        };
        self.report.send_if_modified(|report| {
            for _ in 0..resets.min(1_000) {
                report.reconnects.add(now);
            }
            report.attempts = u32::try_from(failed).unwrap_or(u32::MAX);
            let reason = |problem: &Option<Problem>| problem.as_ref().map(|problem| problem.reason);
            let changed = report.state != state || reason(&report.problem) != reason(&problem);
            if report.state != state {
                report.since = wall;
            }
            report.state = state;
            report.problem = problem.map(|problem| problem.again(report.problem.as_ref()));
            changed
        });
    }

    /// What went wrong last, with what to change.
    fn problem(&self, source: &Source) -> Option<Problem> {
        let wall = self.clock.wall();
        let Some(error) = source.last_call_error() else {
            return Some(Problem::new(Reason::ProtocolError, source.last_error()?, wall));
        };
        let reason = match reason_of(error) {
            Reason::UploadFailed => Reason::Unreachable,
            reason => reason,
        };
        let problem = Problem::new(reason, health::chain(error), wall);
        let advice = error.advice(&self.client, Some(&StreamId::name(&self.camera.stream)));
        Some(advice.into_iter().fold(problem, Problem::fix))
    }

    fn state(&self, state: IngestState, problem: Option<Problem>) {
        let wall = self.clock.wall();
        self.report.send_modify(|report| {
            if report.state != state {
                report.since = wall;
            }
            (report.state, report.problem) = (state, problem);
        });
    }

    /// Fragments whose pictures have all come, as far as the branch takes them.
    fn tell(&self, run: &mut Run, last: bool) {
        if last {
            run.untold.extend(run.open.take());
        }
        let Some(fragments) = &self.fragments else { return run.untold.clear() };
        while let Some(fragment) = run.untold.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(fragment)) = fragments.try_send(fragment) {
                run.untold.push_front(fragment);
                return;
            }
        }
    }

    /// All of a range was played.
    async fn over(&self, pictures: u64, cancel: CancellationToken) {
        let found = format!("all of the range was played: {pictures} pictures");
        tracing::info!(camera = self.camera.id, found, "the range has come to its end");
        let problem = Problem::new(Reason::SessionEnded, found, self.clock.wall());
        self.state(IngestState::Stopped, Some(problem.fix("give the camera another range, or remove it")));
        self.idle(cancel).await;
    }

    /// The configuration was checked, and still it is refused.
    async fn refused(&self, error: &OptionsError, cancel: CancellationToken) {
        tracing::error!(camera = self.camera.id, %error, "its KVS stream cannot be read");
        let problem = Problem::new(Reason::StreamSettings, error.to_string(), self.clock.wall());
        self.state(IngestState::Stopped, Some(problem.fix("correct [camera.kvs]")));
        self.idle(cancel).await;
    }

    async fn idle(&self, cancel: CancellationToken) {
        while cancel.run_until_cancelled(self.clock.sleep(LOOK)).await.is_some() {
            self.pulse.beat();
        }
        self.state(IngestState::Stopped, None);
    }
}

impl Run {
    /// A picture of this fragment has come.
    fn note(&mut self, at: ProducerTimestamp, number: Option<FragmentNumber>) {
        let Some(number) = number else { return };
        match &mut self.open {
            Some(open) if open.number == number => {
                (open.start, open.end) = (open.start.min(at), open.end.max(at));
            }
            _ => {
                let before = self.open.replace(Persisted { start: at, end: at, number });
                if self.untold.len() == UNTOLD {
                    self.untold.pop_front();
                }
                self.untold.extend(before);
            }
        }
    }
}

fn options(source: &KvsSource) -> SourceOptions {
    let mut options = SourceOptions::default();
    match source.clone() {
        KvsSource::GetMedia(config) => {
            (options.mode, options.get_media) = (SourceMode::GetMedia, config);
        }
        KvsSource::Hls { config, play } => {
            (options.mode, options.hls, options.play) = (SourceMode::Hls, config, play);
        }
        KvsSource::FragmentList { config, wanted } => {
            (options.mode, options.fragment_list) = (SourceMode::FragmentList, config);
            options.wanted = Some(wanted);
        }
    }
    options
}

#[cfg(test)]
#[path = "kvs_pictures_tests.rs"]
mod tests;
