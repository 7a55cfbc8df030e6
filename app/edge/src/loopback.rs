//! Reads one camera's footage back from KVS and compares it with what was sent.
//!
//! ```text
//!  news of the upload --> expected ---------+
//!  GetMedia (continuous) --> chunks --------+--> verifier --> verdict
//!  GetMediaForFragmentList (samples, and    |
//!     a second look at what is overdue) ----+
//!  ListFragments (every list_every) --> listed
//! ```
//!
//! A GetMedia answer ends without any mark, after 40 minutes at the latest or when nothing new comes; the next
//! one goes on behind the last complete chunk by its continuation token. Nothing here can hold the upload up:
//! news arrives through a bounded queue that drops when full.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use health::Backoff;
use kvs::FragmentNumber;
use kvs::api::{Fragment, StartSelector, StreamId, milliseconds};
use kvs::fragmenter::FragmentSummary;
use kvs::proof::verifier::{Finding, Verifier, VerifyCounts};
use kvs::read::chunk::{Answer, Chunk, ChunkError, ChunkReader, Event};
use kvs_client::{Client, MediaStream, ServiceErrorKind};
use media::ProducerTimestamp;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::camera::News;
use crate::readback::{self, ReadBackError};
use crate::record::reason_of;
use config::VerifyMode;
use health::Samples;
use health::{Problem, Reason};

/// Pieces of news that may wait: half an hour of fragments.
pub const NEWS_PLACES: usize = 1024;
/// Persisted fragments that wait to be listed or sampled; older ones are forgotten by the list, not by the proof.
const MOST_PENDING: usize = 2048;
const FIRST_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(15);
/// A reader that gave media for this long was a good one.
const HEALTHY: Duration = Duration::from_secs(10);
/// GetMedia is renewed before the service ends it.
const READER_AGE: Duration = Duration::from_secs(38 * 60);
const TICK: Duration = Duration::from_millis(500);
/// How long a stop waits for what is still to be read back.
const STOP_LIMIT: Duration = Duration::from_secs(4);
/// How long a finding weighs on the verdict.
const VERDICT_MEMORY: Duration = Duration::from_secs(3600);
/// A fragment overdue for this many times `late_after` is no longer called late.
const LATE_FACTOR: u32 = 10;
/// From the beginning of a stop until what is not read back is asked for by number.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
/// KVS persists again after this long without: whatever failed meanwhile is tried again at once.
const PAUSE: Duration = Duration::from_secs(5);
/// Overdue fragments that are asked for at once, and how long their absence is believed.
const LOOK_BATCH: usize = 10;
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Latency samples kept: more than a minute of pictures.
const LATENCY_SAMPLES: usize = 2048;

/// The answer to "is my footage in the cloud as sent?".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything that was due has been read back and is identical.
    Ok,
    /// Something is overdue.
    Late,
    /// Something read back differs or is missing.
    Mismatch,
    /// Nothing to judge by yet, or verification is off.
    Unknown,
}

/// Where one camera's verification stands; counters run since start.
#[derive(Clone, Debug)]
pub struct VerifyReport {
    pub verdict: Verdict,
    pub since: SystemTime,
    pub problem: Option<Problem>,
    pub counts: VerifyCounts,
    /// Fragments found by ListFragments with the number and time of their ack.
    pub listed: u64,
    /// Producer times that ListFragments gave more than once.
    pub listed_twice: u64,
    /// Persisted, and not in the list although it is time.
    pub unlisted: u64,
    /// Overdue now.
    pub overdue: usize,
    /// Expected and not read back yet.
    pub waiting: usize,
    pub last_identical: Option<(ProducerTimestamp, Option<FragmentNumber>)>,
    /// From the last byte of a fragment leaving to the last one coming back, ms.
    pub delay: Samples,
    /// From the camera's (or receive) clock to the last byte of the same picture read back, ms.
    pub latency: Samples,
    /// GetMedia answers begun.
    pub readers: u64,
    pub failures: u64,
}

impl Default for VerifyReport {
    fn default() -> Self {
        Self {
            verdict: Verdict::Unknown,
            since: SystemTime::now(),
            problem: None,
            counts: VerifyCounts::default(),
            listed: 0,
            listed_twice: 0,
            unlisted: 0,
            overdue: 0,
            waiting: 0,
            last_identical: None,
            delay: Samples::new(LATENCY_SAMPLES),
            latency: Samples::new(LATENCY_SAMPLES),
            readers: 0,
            failures: 0,
        }
    }
}

/// Everything that one loopback needs from outside.
pub struct Loopback {
    pub camera: config::Camera,
    pub client: Client,
    pub report: watch::Sender<VerifyReport>,
    pub pulse: crate::watchdog::Pulse,
}

impl Loopback {
    /// Verifies until the news end, then until nothing is waited for or `stop_grace` is over.
    pub async fn run(self, mut news: mpsc::Receiver<News>, abort: CancellationToken) {
        let mut running = Running::new(self);
        abort.run_until_cancelled(running.run(&mut news)).await;
        running.this.pulse.rest();
    }
}

type Opening = Pin<Box<dyn Future<Output = Result<MediaStream, kvs_client::Error>> + Send>>;
type Asking = Pin<Box<dyn Future<Output = Asked> + Send>>;

enum Asked {
    Fetched(Result<Vec<Chunk>, ReadBackError>),
    Listed(Result<Vec<Fragment>, kvs_client::Error>),
}

/// A persisted fragment that is still to be listed.
struct Persisted {
    number: FragmentNumber,
    at: Instant,
}

/// A fragment that was not read back in time.
struct Overdue {
    since: Instant,
    /// When it is asked for by its number; `None` once an answer had it.
    look_at: Option<Instant>,
}

struct Running {
    this: Loopback,
    stream: StreamId,
    verifier: Verifier,
    reader: Reader,
    /// One call to the archive at a time: the service takes 5 a second and stream.
    asking: Option<Asking>,
    to_list: BTreeMap<u64, Persisted>,
    /// Numbers of what is expected, for the second look.
    numbers: BTreeMap<u64, FragmentNumber>,
    overdue: BTreeMap<u64, Overdue>,
    /// One, after an answer that could not be read: so the rest does not suffer from one fragment.
    look_batch: usize,
    newest_started_ms: u64,
    last_persisted: Option<Instant>,
    newest: Option<(FragmentSummary, FragmentNumber)>,
    next_sample: Instant,
    next_list: Instant,
    last_bad: Option<Instant>,
    stop_by: Option<Instant>,
    /// While it stops: when what is still not read back is asked for by number.
    last_look: Option<Instant>,
}

/// The lasting GetMedia.
struct Reader {
    opening: Option<Opening>,
    open: Option<(MediaStream, ChunkReader)>,
    since: Instant,
    retry_at: Option<Instant>,
    backoff: Backoff,
    /// The last answer ended in order, as it does when nothing is uploaded.
    quiet: bool,
    /// Where the first answer begins.
    from_ms: Option<u64>,
    token: Option<String>,
}

enum Wake {
    News(Option<News>),
    Opened(Result<MediaStream, kvs_client::Error>),
    Bytes(Result<Option<bytes::Bytes>, kvs_client::Error>),
    Asked(Asked),
    Time,
}

impl Running {
    fn new(this: Loopback) -> Self {
        let verify = &this.camera.verify;
        let now = Instant::now();
        Self {
            stream: StreamId::name(&this.camera.stream),
            verifier: Verifier::new(verify.late_after),
            reader: Reader {
                opening: None,
                open: None,
                since: now,
                retry_at: None,
                backoff: Backoff::new(FIRST_DELAY, LONGEST_DELAY, HEALTHY),
                quiet: false,
                from_ms: None,
                token: None,
            },
            asking: None,
            to_list: BTreeMap::new(),
            numbers: BTreeMap::new(),
            overdue: BTreeMap::new(),
            look_batch: LOOK_BATCH,
            newest_started_ms: 0,
            last_persisted: None,
            newest: None,
            // The first sample and list come early, so that a new installation shows a verdict soon.
            next_sample: now + verify.sample_every.min(Duration::from_secs(10)),
            next_list: now + verify.list_every.min(Duration::from_secs(10)),
            last_bad: None,
            stop_by: None,
            last_look: None,
            this,
        }
    }

    async fn run(&mut self, news: &mut mpsc::Receiver<News>) {
        loop {
            self.this.pulse.beat();
            let now = Instant::now();
            self.judge(now);
            // What was never persisted is not waited for.
            let proven = self.verifier.next_timeout().is_none() && self.overdue.is_empty();
            let done = proven && self.to_list.is_empty() && self.asking.is_none();
            if self.stop_by.is_some_and(|stop_by| now >= stop_by || done) {
                return;
            }
            self.start_work(now);
            let wake = {
                let reader = &mut self.reader;
                let stopping = self.stop_by.is_some();
                tokio::select! {
                    // News first: what was sent is known before its bytes can come back.
                    biased;
                    item = news.recv(), if !stopping => Wake::News(item),
                    outcome = optional(&mut reader.opening), if reader.opening.is_some() => Wake::Opened(outcome),
                    outcome = optional(&mut self.asking), if self.asking.is_some() => Wake::Asked(outcome),
                    outcome = next_bytes(&mut reader.open), if reader.open.is_some() => Wake::Bytes(outcome),
                    () = tokio::time::sleep(TICK) => Wake::Time,
                }
            };
            match wake {
                Wake::News(Some(item)) => self.heard(item),
                Wake::News(None) => {
                    // What is persisted by now is listed once more before the end.
                    self.next_list = Instant::now();
                    self.last_look = Some(Instant::now() + STOP_PATIENCE);
                    self.stop_by = Some(Instant::now() + self.this.camera.upload.stop_grace.min(STOP_LIMIT));
                    if self.this.camera.verify.mode == VerifyMode::Off {
                        return;
                    }
                }
                Wake::Opened(outcome) => self.opened(outcome),
                Wake::Bytes(outcome) => self.bytes(outcome),
                Wake::Asked(outcome) => self.asked(outcome),
                Wake::Time => {}
            }
        }
    }

    fn heard(&mut self, news: News) {
        let (now, mode) = (Instant::now(), self.this.camera.verify.mode);
        match news {
            // Reading begins with the first fragment, not when it is complete: it comes back while it grows.
            News::Started(timecode) => {
                self.newest_started_ms = timecode.as_millis();
                self.reader.from_ms.get_or_insert(self.newest_started_ms);
            }
            News::Complete(summary) => {
                if mode == VerifyMode::Continuous {
                    self.verifier.expect(summary, now);
                }
            }
            News::Persisted(summary, number) => {
                let timecode_ms = summary.timecode.as_millis();
                self.verifier.due_from(timecode_ms, number, now);
                let last = self.last_persisted.replace(now);
                if self.reader.quiet || last.is_none_or(|at| now.saturating_duration_since(at) >= PAUSE) {
                    self.reader.retry_at = None;
                }
                let Some(number) = number else { return };
                self.to_list.insert(timecode_ms, Persisted { number, at: now });
                self.numbers.insert(timecode_ms, number);
                if self.to_list.len() > MOST_PENDING {
                    self.to_list.pop_first();
                }
                if self.numbers.len() > MOST_PENDING {
                    self.numbers.pop_first();
                }
                self.newest = Some((summary, number));
            }
            News::Lost(timecode) => self.verifier.forget(timecode.as_millis()),
        }
    }

    /// Begins whatever is due and not under way.
    fn start_work(&mut self, now: Instant) {
        let mode = self.this.camera.verify.mode;
        if mode == VerifyMode::Off {
            return;
        }
        if mode == VerifyMode::Continuous {
            self.open_reader(now);
        }
        if self.asking.is_some() {
            return;
        }
        let (client, stream) = (self.this.client.clone(), self.stream.clone());
        if let Some(numbers) = self.second_look(now) {
            self.asking =
                Some(Box::pin(
                    async move { Asked::Fetched(readback::fetch(&client, &stream, numbers).await) },
                ));
        } else if mode == VerifyMode::Sampled && now >= self.next_sample && self.newest.is_some() {
            self.next_sample = now + self.this.camera.verify.sample_every;
            if let Some((summary, number)) = self.newest.take() {
                let timecode_ms = summary.timecode.as_millis();
                self.verifier.expect(summary, now);
                self.verifier.due_from(timecode_ms, Some(number), now);
                self.asking = Some(Box::pin(async move {
                    Asked::Fetched(readback::fetch(&client, &stream, vec![number]).await)
                }));
            }
        } else if now >= self.next_list && !self.to_list.is_empty() {
            let every = self.this.camera.verify.list_every;
            self.next_list = now + if self.stop_by.is_some() { every.min(TICK) } else { every };
            let first = self.to_list.first_key_value().map_or(0, |(ms, _)| *ms);
            let last = self.to_list.last_key_value().map_or(0, |(ms, _)| *ms);
            self.asking =
                Some(Box::pin(
                    async move { Asked::Listed(readback::list(&client, &stream, first, last).await) },
                ));
        }
    }

    /// Numbers of overdue fragments whose turn it is to be asked for.
    fn second_look(&mut self, now: Instant) -> Option<Vec<FragmentNumber>> {
        let again = now + self.this.camera.verify.late_after.max(LOOK_AGAIN);
        let due = self.overdue.iter_mut().filter(|(_, overdue)| overdue.look_at.is_some_and(|at| at <= now));
        let mut numbers: Vec<_> = due
            .filter_map(|(ms, overdue)| {
                let number = self.numbers.get(ms).copied();
                overdue.look_at = number.map(|_| again);
                number
            })
            .take(self.look_batch)
            .collect();
        // While it stops, there is no time to wait for the lasting answer.
        if numbers.is_empty() && self.last_look.is_some_and(|at| now >= at) {
            self.last_look = Some(now + TICK);
            let due = self.verifier.due().filter_map(|ms| self.numbers.get(&ms).copied());
            numbers = due.take(self.look_batch).collect();
        }
        (!numbers.is_empty()).then_some(numbers)
    }

    fn open_reader(&mut self, now: Instant) {
        let reader = &mut self.reader;
        if reader.open.is_some() && now.saturating_duration_since(reader.since) >= READER_AGE {
            reader.open = None;
        }
        let Some(from_ms) = reader.from_ms else { return };
        let busy = reader.open.is_some() || reader.opening.is_some();
        if busy || reader.retry_at.is_some_and(|at| at > now) {
            return;
        }
        let start = match &reader.token {
            Some(token) => StartSelector::continuation(token),
            None => StartSelector::producer_timestamp_ms(from_ms),
        };
        let (client, stream) = (self.this.client.clone(), self.stream.clone());
        reader.opening = Some(Box::pin(async move { client.get_media(&stream, start).await }));
    }

    fn opened(&mut self, outcome: Result<MediaStream, kvs_client::Error>) {
        self.reader.opening = None;
        match outcome {
            Ok(stream) => {
                self.reader.open = Some((stream, ChunkReader::new(Answer::GetMedia)));
                self.reader.since = Instant::now();
                self.this.report.send_modify(|report| report.readers += 1);
            }
            Err(error) => {
                if error.service_kind() == Some(&ServiceErrorKind::InvalidArgument) {
                    self.skip_ahead();
                }
                self.reader_failed(Some((reason_of(&error), health::chain(&error))));
            }
        }
    }

    /// What follows the last good chunk cannot be read: the next answer begins with the newest fragment, and
    /// what lies between is asked for by number once it is overdue.
    fn skip_ahead(&mut self) {
        self.reader.token = None;
        self.reader.from_ms = Some(self.newest_started_ms);
    }

    fn bytes(&mut self, outcome: Result<Option<bytes::Bytes>, kvs_client::Error>) {
        match outcome {
            Ok(Some(bytes)) => {
                let Some((_, chunks)) = &mut self.reader.open else { return };
                chunks.push(bytes);
                if let Err(error) = self.read_events() {
                    self.skip_ahead();
                    self.reader_failed(Some((Reason::VerifyFailed, error.to_string())));
                }
            }
            // The ordinary end; a cut last chunk is read again from its start by the token.
            Ok(None) => self.reader_failed(None),
            Err(error) => self.reader_failed(Some((reason_of(&error), health::chain(&error)))),
        }
    }

    fn read_events(&mut self) -> Result<(), ChunkError> {
        loop {
            let Some((_, chunks)) = &mut self.reader.open else { return Ok(()) };
            let Some(event) = chunks.next_event()? else { return Ok(()) };
            let now = Instant::now();
            match event {
                Event::Start(_) => self.reader.backoff.up(now),
                Event::Block(block) if block.track == 1 => {
                    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                    #[expect(clippy::cast_precision_loss, reason = "times in ms are below 2^53")]
                    let latency_ms = unix.as_secs_f64() * 1000.0 - block.time_ms as f64;
                    self.this.report.send_modify(|report| report.latency.add(latency_ms));
                }
                Event::Block(_) => {}
                Event::End(chunk) => {
                    if chunk.continuation_token.is_some() {
                        self.reader.token.clone_from(&chunk.continuation_token);
                    }
                    self.compare(&chunk, now);
                }
                Event::Failure(failure) => {
                    tracing::warn!(camera = self.this.camera.id, error = %failure, "GetMedia");
                    self.skip_ahead();
                }
            }
        }
    }

    fn reader_failed(&mut self, problem: Option<(Reason, String)>) {
        let now = Instant::now();
        self.reader.quiet = problem.is_none();
        self.reader.open = None;
        let delay = self.reader.backoff.failed(now, rand::random());
        self.reader.retry_at = Some(now + delay);
        if let Some(problem) = problem {
            self.failed(problem);
        }
    }

    fn failed(&self, (reason, detail): (Reason, String)) {
        tracing::warn!(camera = self.this.camera.id, error = detail, "read-back failed");
        self.this.report.send_modify(|report| {
            report.failures += 1;
            report.problem = Some(Problem::new(reason, detail, SystemTime::now()));
        });
    }

    fn asked(&mut self, asked: Asked) {
        self.asking = None;
        let now = Instant::now();
        match asked {
            Asked::Fetched(Ok(chunks)) => {
                self.look_batch = LOOK_BATCH;
                for chunk in &chunks {
                    let timecode_ms = chunk.cluster.as_ref().map(|cluster| cluster.timecode_ms);
                    if let Some(overdue) = timecode_ms.and_then(|ms| self.overdue.get_mut(&ms)) {
                        overdue.look_at = None; // whatever it is, it stays so
                    }
                    self.compare(chunk, now);
                }
            }
            Asked::Fetched(Err(ReadBackError::Client(error))) => {
                self.failed((reason_of(&error), health::chain(&error)))
            }
            Asked::Fetched(Err(error)) => {
                self.look_batch = 1;
                self.failed((Reason::VerifyFailed, health::chain(&error)));
            }
            Asked::Listed(Ok(rows)) => self.listed(&rows, now),
            Asked::Listed(Err(error)) => self.failed((reason_of(&error), health::chain(&error))),
        }
    }

    fn listed(&mut self, rows: &[Fragment], now: Instant) {
        let before = self.to_list.len();
        let mut seen = BTreeMap::new();
        let mut duplicates = 0;
        // Rows first, removals after: a second row of the same time must still find the first.
        for row in rows {
            let timecode_ms = milliseconds(row.producer_timestamp);
            if let Some(other) = seen.insert(timecode_ms, &row.fragment_number)
                && self.to_list.contains_key(&timecode_ms)
            {
                let camera = &self.this.camera.id;
                tracing::warn!(
                    camera,
                    timecode_ms,
                    first = other,
                    second = row.fragment_number,
                    "stored twice"
                );
                duplicates += 1;
            }
        }
        for row in rows {
            let timecode_ms = milliseconds(row.producer_timestamp);
            let agrees = |p: &Persisted| row.fragment_number.parse() == Ok(p.number);
            if self.to_list.get(&timecode_ms).is_some_and(agrees) {
                self.to_list.remove(&timecode_ms);
            }
        }
        let listed = before - self.to_list.len();
        // Listing trails the ack by about a second; only what is long overdue is called missing.
        let late_after = self.this.camera.verify.late_after;
        let late: Vec<_> = self
            .to_list
            .iter()
            .filter(|(_, p)| now.saturating_duration_since(p.at) >= late_after)
            .map(|(ms, _)| *ms)
            .collect();
        for timecode_ms in &late {
            let Some(persisted) = self.to_list.remove(timecode_ms) else { continue };
            let (camera, number) = (&self.this.camera.id, persisted.number);
            tracing::error!(camera, timecode_ms, fragment = %number, "persisted, but not in the list of fragments");
            self.last_bad = Some(now);
        }
        self.this.report.send_modify(|report| {
            report.listed += listed as u64;
            report.listed_twice += duplicates;
            report.unlisted += late.len() as u64;
            if !late.is_empty() {
                let text = format!("{} persisted fragments are not in the list of fragments", late.len());
                report.problem = Some(Problem::new(Reason::VerifyMismatch, text, SystemTime::now()));
            }
        });
    }

    fn compare(&mut self, chunk: &Chunk, now: Instant) {
        let Some(finding) = self.verifier.read_back(chunk, now) else { return };
        let camera = &self.this.camera.id;
        let timecode_ms = chunk.cluster.as_ref().map_or(0, |cluster| cluster.timecode_ms);
        match &finding {
            Finding::Identical { delay, .. } | Finding::Late { delay, .. } => {
                self.overdue.remove(&timecode_ms);
                self.numbers.remove(&timecode_ms);
                let delay_ms = delay.as_secs_f64() * 1000.0;
                self.this.report.send_modify(|report| {
                    report.last_identical =
                        Some((ProducerTimestamp::from_millis(timecode_ms), chunk.start.number));
                    report.delay.add(delay_ms);
                });
            }
            Finding::Corrupt(mismatch) => {
                tracing::error!(camera, error = %mismatch, "read back differs from what was sent");
                self.last_bad = Some(now);
                let problem = Problem::new(Reason::VerifyMismatch, mismatch.to_string(), SystemTime::now());
                self.this.report.send_modify(|report| report.problem = Some(problem));
            }
            Finding::Duplicate { sequence, first, second, .. } => {
                tracing::warn!(
                    camera,
                    fragment = sequence,
                    ?first,
                    ?second,
                    "the stream holds a fragment twice"
                );
            }
            Finding::Missing { .. }
            | Finding::Again
            | Finding::SelfDescribed { .. }
            | Finding::Foreign { .. } => {}
        }
    }

    /// Notes what became overdue and forms the verdict.
    fn judge(&mut self, now: Instant) {
        for finding in self.verifier.handle_timeout(now) {
            if let Finding::Missing { sequence, timecode_ms } = finding {
                tracing::warn!(
                    camera = self.this.camera.id,
                    fragment = sequence,
                    timecode_ms,
                    "not read back in time"
                );
                self.overdue.insert(timecode_ms, Overdue { since: now, look_at: Some(now) });
                if self.overdue.len() > MOST_PENDING {
                    self.overdue.pop_first();
                }
            }
        }
        let counts = self.verifier.counts();
        let long = self.this.camera.verify.late_after * LATE_FACTOR;
        let is_long = |overdue: &Overdue| now.saturating_duration_since(overdue.since) >= long;
        let bad = self.last_bad.is_some_and(|at| now.saturating_duration_since(at) < VERDICT_MEMORY);
        let verdict = if bad || self.overdue.values().any(is_long) {
            Verdict::Mismatch
        } else if !self.overdue.is_empty() {
            Verdict::Late
        } else if counts.identical + counts.late > 0 {
            Verdict::Ok
        } else {
            Verdict::Unknown
        };
        let (overdue, waiting) = (self.overdue.len(), self.verifier.waiting());
        self.this.report.send_if_modified(|report| {
            let unchanged = (report.counts, report.overdue, report.waiting, report.verdict)
                == (counts, overdue, waiting, verdict);
            if report.verdict != verdict {
                report.verdict = verdict;
                report.since = SystemTime::now();
            }
            if verdict == Verdict::Ok && report.counts != counts {
                report.problem = None;
            }
            (report.counts, report.overdue, report.waiting) = (counts, overdue, waiting);
            !unchanged
        });
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
/// For a branch of `select!` that is switched off while there is no future.
async fn optional<T>(future: &mut Option<std::pin::Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
