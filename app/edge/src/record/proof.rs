//! Reads one camera's footage back from KVS: moves the bytes for `kvs::proof` and `kvs::read`, which decide.
//!
//! ```text
//!  ledger --log, by its cursor--> schedule --what to ask--> ListFragments, GetMediaForFragmentList --+
//!     ^                                                                                             |
//!     +--listed, identical, corrupt, missing <--- chunks, rows <---- GetMedia (continuous) <--------+
//! ```
//!
//! It is supervised apart from the upload: when it panics or stands still, a new one goes on from the ledger, and no footage
//! is lost. It sleeps to its own next deadline.

mod play;
mod report;
mod supervise;

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant, UNIX_EPOCH};

use clock::Clock;
use health::{Problem, Reason};
use kvs::api::{Fragment, StartSelector, StreamId};
use kvs::ledger::{Change, Cursor, Entry};
use kvs::proof::fetches::Fetched;
use kvs::proof::play::PlayTimer;
use kvs::proof::schedule::{Ask, ProofConfig, ProofMode, Schedule, Verdict};
use kvs::read::chunk::{Answer, Block, Chunk, ChunkReader, Event};
use kvs::read::get_media::{self, GetMedia, GetMediaConfig};
use kvs::read::{ReadFailure, ReadFailureKind};
use kvs_client::{Client, MediaStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::SharedLedger;
use super::ask;
use crate::fault::{self, Stage};

pub use play::{Looked, Played, Way};
pub use report::{LatencySamples, ProofReport};
pub use supervise::{Liveness, supervise};

/// From the start until a fragment is played for the first time.
const FIRST_PLAY: Duration = Duration::from_secs(20);
/// Without a live edge it is not tried.
const NOT_LIVE: Duration = Duration::from_secs(10);

/// Everything that the proof of one camera needs from outside; each new life of it gets a clone.
#[derive(Clone)]
pub struct Proof {
    pub camera: String,
    pub stream: StreamId,
    pub config: ProofConfig,
    /// A fragment is played so often, and by which way; `None`: never.
    pub play: Option<(Duration, Way)>,
    /// Its key picture is decoded, by GStreamer, which stays in the process; else its bytes are looked at.
    pub decode: bool,
    /// How long a stop may take.
    pub stop_grace: Duration,
    pub client: Client,
    pub clock: Clock,
    pub ledger: SharedLedger,
    pub report: watch::Sender<ProofReport>,
    /// Fires when the upload has said its last word.
    pub upload_ended: CancellationToken,
}

impl Proof {
    /// Of a camera as it is configured.
    pub fn config_of(verify: &config::Verify) -> ProofConfig {
        ProofConfig {
            mode: match verify.mode {
                config::VerifyMode::Continuous => ProofMode::Continuous,
                config::VerifyMode::Sampled => ProofMode::Sampled,
                config::VerifyMode::Off => ProofMode::Off,
            },
            sample_every: verify.sample_every,
            list_every: verify.list_every,
            late_after: verify.late_after,
            read_back_per_hour: (verify.mode == config::VerifyMode::Sampled)
                .then_some(verify.read_back_bytes_per_hour),
            ..ProofConfig::default()
        }
    }

    /// When a fragment is played, as it is configured.
    pub fn play_of(verify: &config::Verify) -> Option<(Duration, Way)> {
        let way = match verify.play_by {
            config::PlayBy::GetMedia => Way::GetMedia,
            config::PlayBy::Hls => Way::Hls,
        };
        (verify.mode != config::VerifyMode::Off).then_some((verify.play_every, way))
    }

    /// Until the upload has ended, and then until nothing more is to be proven or the time is over.
    pub(crate) async fn run(self, liveness: Liveness) {
        Running::new(self).run(&liveness).await;
    }
}

type Job<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

enum Asked {
    Fetched(Fetched),
    Listed(Result<Vec<Fragment>, ReadFailure>),
}

struct Running {
    proof: Proof,
    schedule: Schedule,
    cursor: Cursor,
    grown: watch::Receiver<Cursor>,
    reader: GetMedia,
    opening: Job<Result<MediaStream, kvs_client::Error>>,
    open: Option<(MediaStream, ChunkReader)>,
    asking: Job<Asked>,
    playing: Job<Result<play::Outcome, ReadFailure>>,
    timer: Option<PlayTimer>,
    /// The first picture of the chunk that is being read, while one is to be played.
    first: Option<Block>,
    /// Why the lasting GetMedia does not work, as of its last attempt.
    reader_failure: Option<ReadFailure>,
    /// What was found wrong last.
    bad: Option<String>,
    stopping: bool,
    /// Latencies of pictures that were read and are not yet in the report.
    latencies: Vec<f64>,
}

enum Wake {
    Ledger,
    Opened(Result<MediaStream, kvs_client::Error>),
    Bytes(Result<Option<bytes::Bytes>, kvs_client::Error>),
    Asked(Asked),
    Played(Box<Result<play::Outcome, ReadFailure>>),
    UploadEnded,
    Time,
}

impl Running {
    fn new(proof: Proof) -> Self {
        let now = proof.clock.now();
        let grown = proof.ledger.watch();
        // What stands in the log was told by the life before; what is still to be proven stands in the ledger.
        let cursor = proof.ledger.with(|ledger| ledger.cursor());
        Self {
            schedule: Schedule::new(proof.config.clone(), now),
            cursor,
            grown,
            reader: GetMedia::new(GetMediaConfig::default()),
            opening: None,
            open: None,
            asking: None,
            playing: None,
            timer: proof.play.map(|(every, _)| PlayTimer::new(every, FIRST_PLAY, now)),
            first: None,
            reader_failure: None,
            bad: None,
            stopping: false,
            latencies: Vec::new(),
            proof,
        }
    }

    async fn run(&mut self, liveness: &Liveness) {
        loop {
            let now = self.proof.clock.now();
            liveness.beat(now);
            fault::panic_point(Stage::Proof, &self.proof.camera);
            self.follow();
            let (schedule, ledger) = (&mut self.schedule, &self.proof.ledger);
            if ledger.with(|ledger| schedule.is_done(ledger, now)) {
                self.publish(now);
                return;
            }
            self.act(now);
            self.publish(now);
            let deadline = [
                self.schedule.next_deadline(),
                self.reader.next_deadline(),
                self.next_play(),
                Some(liveness.next(now)),
            ];
            let deadline = deadline.into_iter().flatten().min().unwrap_or(now);
            let wake = tokio::select! {
                // The ledger first: what was sent is known before its bytes can come back.
                biased;
                outcome = self.grown.changed() => match outcome {
                    Ok(()) => Wake::Ledger,
                    Err(_) => Wake::UploadEnded,
                },
                () = self.proof.upload_ended.cancelled(), if !self.stopping => Wake::UploadEnded,
                outcome = finish(&mut self.opening) => Wake::Opened(outcome),
                outcome = finish(&mut self.asking) => Wake::Asked(outcome),
                outcome = finish(&mut self.playing) => Wake::Played(Box::new(outcome)),
                outcome = next_bytes(&mut self.open) => Wake::Bytes(outcome),
                () = self.proof.clock.sleep_until(deadline) => Wake::Time,
            };
            self.woken(wake);
        }
    }

    fn woken(&mut self, wake: Wake) {
        let now = self.proof.clock.now();
        match wake {
            Wake::Ledger | Wake::Time => {}
            Wake::UploadEnded => {
                self.stopping = true;
                self.schedule.stop(self.proof.stop_grace, now);
            }
            Wake::Opened(Ok(stream)) => {
                self.opening = None;
                self.open = Some((stream, ChunkReader::new(Answer::GetMedia)));
                self.reader.opened(now);
                self.proof.report.send_modify(|report| report.readers += 1);
            }
            Wake::Opened(Err(error)) => {
                self.opening = None;
                self.reader_failed(ask::failure_of_read(&error, &self.proof.client, &self.proof.stream), now);
            }
            Wake::Bytes(Ok(Some(bytes))) => self.read(bytes, now),
            // The ordinary end; a cut last chunk is read again from its start by the token.
            Wake::Bytes(Ok(None)) => {
                self.open = None;
                self.reader.ended(now, rand::random());
            }
            Wake::Bytes(Err(error)) => {
                self.open = None;
                self.reader_failed(ask::failure_of_read(&error, &self.proof.client, &self.proof.stream), now);
            }
            Wake::Asked(asked) => {
                self.asking = None;
                self.asked(asked, now);
            }
            Wake::Played(outcome) => {
                self.playing = None;
                self.played(*outcome, now);
            }
        }
    }

    /// Hears what happened to the fragments, and says it where somebody should know.
    fn follow(&mut self) {
        let (schedule, cursor) = (&mut self.schedule, &mut self.cursor);
        let (kept_again, kept, entries) = self.proof.ledger.with(|ledger| {
            let mut from = *cursor;
            let kept_again = schedule.follow(ledger.read(cursor));
            let read = ledger.read(&mut from);
            let worth_telling = |entry: &&Entry| !matches!(entry.change, Change::Begun | Change::Complete(_));
            let entries: Vec<_> = read.entries.filter(worth_telling).cloned().collect();
            let kept = entries.iter().any(|entry| matches!(entry.change, Change::Persisted { .. }));
            (kept_again, kept, entries)
        });
        if kept {
            self.reader.kept(kept_again);
        }
        for entry in entries {
            self.tell(&entry);
        }
    }

    fn tell(&mut self, entry: &Entry) {
        let (camera, fragment, at) = (&self.proof.camera, entry.id, entry.timecode);
        match &entry.change {
            Change::Identical { delay, .. } => {
                let number =
                    self.proof.ledger.with(|ledger| ledger.get(entry.id).and_then(|record| record.number));
                let delay_ms = delay.as_secs_f64() * 1000.0;
                self.proof.report.send_modify(|report| {
                    report.last_identical = Some((at, number));
                    report.delay.add(delay_ms);
                });
            }
            Change::Corrupt(mismatch) => {
                tracing::error!(camera, %fragment, error = %mismatch, "read back differs from what was sent");
                self.bad = Some(mismatch.to_string());
            }
            Change::Misstated(misstated) => {
                tracing::error!(camera, %fragment, error = %misstated, "listed otherwise than it was sent");
                self.bad = Some(misstated.to_string());
            }
            Change::Missing => {
                tracing::error!(camera, %fragment, %at, "persisted, and not to be found");
                self.bad = Some(format!("fragment {fragment} at {at} was persisted and is not to be found"));
            }
            Change::Duplicate(second) => {
                tracing::warn!(camera, %fragment, %second, "the stream holds a fragment twice");
            }
            Change::Unproven => tracing::warn!(camera, %fragment, %at, "could not be proven in time"),
            Change::Begun
            | Change::Complete(_)
            | Change::Persisted { .. }
            | Change::Listed
            | Change::Lost { .. } => {}
        }
    }

    /// Begins whatever is due.
    fn act(&mut self, now: Instant) {
        if self.proof.config.mode == ProofMode::Continuous && !self.reader.is_wanted() {
            let from_ms = self.proof.ledger.with(|ledger| self.schedule.read_from_ms(ledger));
            from_ms.into_iter().for_each(|from_ms| self.reader.want(from_ms));
        }
        while let Some(action) = self.reader.next_action(now, rand::random()) {
            match action {
                get_media::Action::Open(start) => self.open_reader(start),
                get_media::Action::Close => (self.opening, self.open) = (None, None),
            }
        }
        self.begin_to_play(now);
        let (schedule, ledger) = (&mut self.schedule, &self.proof.ledger);
        let Some(asked) = ledger.with(|ledger| schedule.next_ask(ledger, rand::random(), now)) else {
            return;
        };
        let (client, stream) = (self.proof.client.clone(), self.proof.stream.clone());
        self.asking = Some(match asked {
            Ask::Fetch(numbers) => {
                Box::pin(async move { Asked::Fetched(ask::fetch(&client, &stream, &numbers).await) })
            }
            Ask::List(span) => {
                Box::pin(async move { Asked::Listed(ask::list(&client, &stream, span).await) })
            }
        });
    }

    fn open_reader(&mut self, start: StartSelector) {
        let (client, stream) = (self.proof.client.clone(), self.proof.stream.clone());
        self.opening = Some(Box::pin(async move { client.get_media(&stream, start).await }));
    }

    fn read(&mut self, bytes: bytes::Bytes, now: Instant) {
        let Some((_, chunks)) = &mut self.open else { return };
        chunks.push(bytes);
        while let Some((_, chunks)) = &mut self.open {
            match chunks.next_event() {
                Ok(Some(event)) => self.read_event(event, now),
                Ok(None) => break,
                Err(error) => {
                    self.tell_failure(ask::unreadable(error));
                    self.skip_ahead(now);
                }
            }
        }
        let latency = self.proof.report.borrow().latency.clone();
        latency.add(self.latencies.drain(..));
    }

    fn read_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Start(_) => {
                self.reader.chunk_begins(now);
                self.first = None;
                self.reader_failure = None;
            }
            Event::Block(block) if block.track == 1 => {
                let unix = self.proof.clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default();
                #[expect(clippy::cast_precision_loss, reason = "times in ms are below 2^53")]
                let latency_ms = unix.as_secs_f64() * 1000.0 - block.time_ms as f64;
                self.latencies.push(latency_ms);
                if self.timer.is_some() {
                    self.first.get_or_insert(block);
                }
            }
            Event::Block(_) => {}
            Event::End(chunk) => {
                self.reader.chunk_ends(&chunk);
                self.read_back(&chunk);
                let (schedule, ledger) = (&mut self.schedule, &self.proof.ledger);
                ledger.with(|ledger| schedule.read_live(ledger, &chunk, now));
                self.play_what_was_read(chunk, now);
            }
            Event::Failure(failure) => {
                tracing::warn!(camera = self.proof.camera, error = %failure, "GetMedia");
                self.skip_ahead(now);
            }
        }
    }

    /// What follows the last good chunk cannot be read: what lies between is asked for by number once it is late.
    fn skip_ahead(&mut self, now: Instant) {
        self.open = None;
        self.reader.unreadable(self.newest_ms(), now, rand::random());
    }

    fn newest_ms(&self) -> u64 {
        let newest = |record: &kvs::ledger::Record| record.timecode.as_millis();
        self.proof.ledger.with(|ledger| ledger.records().next_back().map_or(0, newest))
    }

    fn asked(&mut self, asked: Asked, now: Instant) {
        let (schedule, ledger, random) = (&mut self.schedule, &self.proof.ledger, rand::random());
        let failure = match asked {
            Asked::Fetched(fetched) => {
                let chunks = &fetched.chunks;
                self.timer.iter_mut().for_each(|timer| {
                    chunks.iter().for_each(|chunk| timer.seen(&chunk.start.tracks, now));
                });
                self.proof
                    .report
                    .send_modify(|report| chunks.iter().for_each(|chunk| report.count_read(chunk)));
                ledger.with(|ledger| schedule.fetched(ledger, &fetched, random, now));
                fetched.failure.filter(|failure| failure.kind != ReadFailureKind::Refused)
            }
            Asked::Listed(rows) => {
                let failure = rows.as_ref().err().cloned();
                ledger.with(|ledger| schedule.listed(ledger, rows, random, now));
                failure
            }
        };
        failure.into_iter().for_each(|failure| self.tell_failure(failure));
    }

    /// When a fragment is to be played, if that waits for the time.
    fn next_play(&self) -> Option<Instant> {
        let waits = self.playing.is_none() && !self.stopping && self.reads_apart();
        self.timer.as_ref().filter(|_| waits).map(PlayTimer::next)
    }

    /// What is played is fetched for that: nothing is read anyhow, or not by that way.
    fn reads_apart(&self) -> bool {
        let by_hls = self.proof.play.is_some_and(|(_, way)| way == Way::Hls);
        by_hls || self.proof.config.mode != ProofMode::Continuous
    }

    fn begin_to_play(&mut self, now: Instant) {
        let apart = self.reads_apart() && self.playing.is_none() && !self.stopping;
        let Some(timer) = self.timer.as_mut().filter(|timer| apart && timer.is_due(now)) else { return };
        if !self.schedule.is_live(now) {
            return timer.wait(now + NOT_LIVE);
        }
        // The one that is live and the one behind it.
        let bytes = self.proof.ledger.with(|ledger| {
            let sizes =
                ledger.records().rev().filter_map(|record| Some(record.summary.as_ref()?.cluster_bytes));
            sizes.take(2).sum()
        });
        if !self.schedule.may_read(bytes, now) {
            return timer.wait(self.schedule.may_read_at(bytes, now).max(now + NOT_LIVE));
        }
        timer.begun(now);
        let (client, stream, clock) =
            (self.proof.client.clone(), self.proof.stream.clone(), self.proof.clock.clone());
        let way = self.proof.play.map_or(Way::GetMedia, |(_, way)| way);
        self.playing = Some(Box::pin(play::play(client, stream, clock, way, self.proof.decode)));
    }

    /// Everything is read anyhow: what came last is played.
    fn play_what_was_read(&mut self, chunk: Chunk, now: Instant) {
        let (first, apart) = (self.first.take(), self.reads_apart());
        let Some(timer) = &mut self.timer else { return };
        timer.seen(&chunk.start.tracks, now);
        let whole = chunk.complete && chunk.cluster.is_some();
        if apart || !whole || self.playing.is_some() || !timer.is_due(now) {
            return;
        }
        timer.begun(now);
        let latency_ms = self.latencies.last().map_or(0.0, |ms| ms.max(0.0));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "milliseconds, not negative"
        )]
        let latency_ms = latency_ms as u64;
        let wall = self.proof.clock.wall();
        let read = play::Read { tracks: chunk.start.tracks.clone(), first, chunk, latency_ms };
        let decode = self.proof.decode;
        self.playing = Some(Box::pin(async move { Ok(play::look(read, wall, decode).await) }));
    }

    fn played(&mut self, outcome: Result<play::Outcome, ReadFailure>, now: Instant) {
        let play::Outcome { played, chunks, bytes } = match outcome {
            Ok(outcome) => outcome,
            Err(failure) => {
                self.timer.iter_mut().for_each(|timer| timer.failed(now));
                return self.tell_failure(failure);
            }
        };
        self.schedule.read(bytes, now);
        for chunk in &chunks {
            self.read_back(chunk);
            self.timer.iter_mut().for_each(|timer| timer.seen(&chunk.start.tracks, now));
            let (schedule, ledger) = (&mut self.schedule, &self.proof.ledger);
            ledger.with(|ledger| schedule.read_live(ledger, chunk, now));
        }
        let (camera, at, latency_ms) = (&self.proof.camera, played.at, played.latency_ms);
        match &played.result {
            Ok(looked) => tracing::debug!(camera, %at, latency_ms, ?looked, "played"),
            Err(error) => tracing::error!(camera, %at, error, "a fragment of KVS cannot be played"),
        }
        self.proof.report.send_modify(|report| report.played = Some(played));
    }

    fn read_back(&self, chunk: &Chunk) {
        self.proof.report.send_modify(|report| report.count_read(chunk));
    }

    fn reader_failed(&mut self, failure: ReadFailure, now: Instant) {
        self.reader.failed(&failure, self.newest_ms(), now, rand::random());
        self.tell_failure(failure.clone());
        self.reader_failure = Some(failure);
    }

    fn tell_failure(&self, failure: ReadFailure) {
        tracing::warn!(
            camera = self.proof.camera,
            error = failure.text,
            fix = failure.fix,
            "read-back failed"
        );
        self.proof.report.send_modify(|report| report.failures += 1);
    }

    /// Shows where the proof stands; nobody wakes if nothing changed.
    fn publish(&mut self, now: Instant) {
        let (schedule, ledger) = (&mut self.schedule, &self.proof.ledger);
        let (verdict, counts) = ledger.with(|ledger| (schedule.verdict(ledger, now), ledger.counts()));
        let (others, overdue) = (self.schedule.others(), self.schedule.overdue());
        let wall = self.proof.clock.wall();
        let failure = self.reader_failure.as_ref().or(self.schedule.failure());
        let failed = failure.map(|failure| {
            // Whatever the cause is: the upload has its own problem.
            let problem = Problem::new(Reason::VerifyFailed, failure.text.clone(), wall);
            failure.fix.iter().fold(problem, |problem, fix| problem.fix(fix.clone()))
        });
        let held = |failure: &ReadFailure| {
            matches!(failure.kind, ReadFailureKind::Operator | ReadFailureKind::TooManyReaders)
        };
        let unplayable =
            self.proof.report.borrow().played.as_ref().is_some_and(|played| played.result.is_err());
        let needs_somebody = failure.is_some_and(held) || unplayable;
        if verdict != Verdict::Mismatch {
            self.bad = None;
        }
        let problem = match verdict {
            Verdict::Mismatch => {
                let found =
                    self.bad.clone().unwrap_or_else(|| "footage in KVS is not what was sent".to_owned());
                Some(Problem::new(Reason::VerifyMismatch, found, wall))
            }
            Verdict::Late => failed.or_else(|| {
                let late_s = self.proof.config.late_after.as_secs();
                let found =
                    format!("{overdue} fragments are not read back {late_s} s after they were persisted");
                Some(Problem::new(Reason::VerifyLate, found, wall))
            }),
            Verdict::Gap => ledger.with(|ledger| {
                let gap = ledger.gaps().next_back()?;
                let found =
                    format!("footage from {} to {} is not in KVS: {}", gap.start, gap.end, gap.reason);
                Some(Problem::new(super::reason_of_loss(&gap.reason), found, wall))
            }),
            Verdict::Ok | Verdict::Unknown => failed.or_else(|| {
                let report = self.proof.report.borrow();
                let played = report.played.as_ref()?;
                let error = played.result.as_ref().err()?;
                let found = format!("the fragment at {} cannot be played: {error}", played.at);
                let fix = "look at the camera's picture, and at its encoder settings";
                Some(Problem::new(Reason::DecoderFailed, found, wall).fix(fix))
            }),
        };
        self.proof.report.send_if_modified(|report| {
            let problem = problem.map(|problem| problem.again(report.problem.as_ref()));
            let before =
                (report.verdict, report.counts, report.others, report.overdue, report.needs_somebody);
            let changed =
                before != (verdict, counts, others, overdue, needs_somebody) || report.problem != problem;
            if report.verdict != verdict {
                (report.verdict, report.since) = (verdict, wall);
            }
            (report.counts, report.others, report.overdue) = (counts, others, overdue);
            (report.problem, report.needs_somebody) = (problem, needs_somebody);
            changed
        });
    }
}

/// Never, while there is nothing under way.
async fn finish<T>(job: &mut Job<T>) -> T {
    match job {
        Some(job) => job.await,
        None => std::future::pending().await,
    }
}

async fn next_bytes(
    open: &mut Option<(MediaStream, ChunkReader)>,
) -> Result<Option<bytes::Bytes>, kvs_client::Error> {
    match open {
        Some((stream, _)) => stream.next_bytes().await,
        None => std::future::pending().await,
    }
}
