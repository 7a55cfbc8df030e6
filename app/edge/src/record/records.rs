//! Writes down, minute by minute, what the ledger shows: moves rows and lines for `kvs::proof::records`, which decides.
//!
//! ```text
//!  ledger --log, by its own cursor--> rows --> Book --lines--> store::Proofs
//!                                       what the upload and the proof report --^        --> last record, for the outputs
//! ```
//!
//! It is supervised apart: when it panics another one goes on, from the log and from what is on disk. The disk is asked on
//! threads of its own, so neither the upload nor the proof waits for it.

use std::time::{Duration, Instant, SystemTime};

use clock::{Clock, Trust};
use health::{Backoff, Problem, Reason};
use kvs::RunId;
use kvs::api::StreamId;
use kvs::fragmenter::FragmentSummary;
use kvs::ledger::{Cursor, Ledger};
use kvs::proof::records::{
    Book, BookConfig, Cause, Context, Head, Line, Played, Row, RowState, RowTimes, Summary,
};
use kvs_client::Client;
use media::ProducerTimestamp;
use store::{CameraProofs, Proofs, StoreError};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::ask;
use super::proof::{self, ProofReport};
use super::{SharedLedger, UploadReport};
use crate::fault::{self, Stage};

/// What the log has is written down so often.
const TURN: Duration = Duration::from_secs(5);
/// After a disk that refused.
const REST: Duration = Duration::from_secs(30);
/// For what an earlier life left.
const LONGEST_QUESTION: Duration = Duration::from_secs(60);

/// Everything that the records of one camera need; each new life of it gets a clone.
#[derive(Clone)]
pub struct RecordKeeper {
    pub device: String,
    pub camera: String,
    pub verify: config::Verify,
    /// Of this life of the camera: what an earlier one left unconfirmed and nobody holds any more is lost.
    pub run: RunId,
    pub clock: Clock,
    pub ledger: SharedLedger,
    pub upload: watch::Receiver<UploadReport>,
    pub proof: watch::Receiver<ProofReport>,
    pub proofs: Proofs,
    /// Asked about what an earlier life left unconfirmed.
    pub client: Client,
    pub stream: StreamId,
    pub report: watch::Sender<RecordReport>,
    /// Fires when the proof has said its last word.
    pub proof_ended: CancellationToken,
}

/// What is written down of one camera.
#[derive(Clone, Debug, Default)]
pub struct RecordReport {
    /// The newest record about a minute.
    pub last: Option<LastRecord>,
    /// Lines that this process has written.
    pub written: u64,
    /// Records survive the process.
    pub is_on_disk: bool,
    pub problem: Option<Problem>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastRecord {
    pub summary: Summary,
    /// The newest line of the chain, which may be about another minute.
    pub head: Head,
    pub at: SystemTime,
}

impl RecordKeeper {
    /// How long after its end a minute is written down in any case: two sweeps, and what a fragment may be late.
    fn settle(&self) -> Duration {
        BookConfig::default().settle.max(self.verify.late_after + self.verify.list_every * 2)
    }

    fn context(&self) -> Context {
        let (upload, proof) = (self.upload.borrow(), self.proof.borrow());
        let of = |problem: &Option<Problem>, reason| {
            problem.as_ref().filter(|problem| problem.reason == reason).map(|problem| problem.found.clone())
        };
        let mode = self.verify.mode;
        Context {
            looks: mode != config::VerifyMode::Off,
            reads_all: mode == config::VerifyMode::Continuous,
            samples: mode == config::VerifyMode::Sampled
                && self.verify.sample_every <= Duration::from_secs(60),
            keeps_nothing: of(&upload.problem, Reason::StreamSettings),
            unable: of(&proof.problem, Reason::VerifyFailed),
            played: proof.played.as_ref().map(played),
            now_ms: self.clock.wall_ms(),
        }
    }

    /// Until the proof has ended, and then once more.
    async fn run(self) {
        let mut opened = None;
        let (mut judged, mut ask_at) = (Vec::new(), self.clock.now());
        // What an earlier life of this task has read is read again: it changes nothing.
        let mut cursor = self.ledger.with(|ledger| ledger.cursor_at_start());
        let mut all = false;
        loop {
            let last = self.proof_ended.is_cancelled();
            fault::panic_point(Stage::Records, &self.camera);
            let mut pause = TURN;
            // Without a time that somebody vouches for nothing is stamped, and no minute is over.
            if self.clock.trust() != Trust::Pending {
                let mut rows = self.rows(&mut cursor, all);
                rows.append(&mut judged);
                let (keeper, context) = (self.clone(), self.context());
                let now = self.clock.now();
                let own = Some(self.run).filter(|_| self.is_settled() && now >= ask_at);
                let turn = tokio::task::spawn_blocking(move || {
                    keeper.proofs.try_again(now);
                    let mut open = match opened {
                        Some(open) => open,
                        None => Open::new(&keeper, context.now_ms)?,
                    };
                    let turned = open.turn(rows, &context);
                    let orphans = match own.filter(|_| !open.settled && turned.is_ok()) {
                        Some(own) => open.proofs.waiting_before(own)?,
                        None => Vec::new(),
                    };
                    open.settled |= own.is_some() && orphans.is_empty();
                    Ok::<_, StoreError>((open, turned, orphans))
                });
                let mut moved = false;
                let (open, error) = match turn.await {
                    Ok(Ok((_, Err((_, StoreError::Reopened)), _)) | Err(StoreError::Reopened)) => {
                        moved = true;
                        (None, None)
                    }
                    Ok(Ok((open, Ok(lines), orphans))) => {
                        self.written(&lines, &open);
                        if !orphans.is_empty() {
                            judged = self.ask_for(orphans).await;
                            // What could not be asked for is asked for again.
                            ask_at = self.clock.now() + REST;
                        }
                        (Some(open), None)
                    }
                    Ok(Ok((open, Err((lines, error)), _))) => {
                        self.written(&lines, &open);
                        (Some(open), Some(error))
                    }
                    Ok(Err(error)) => (None, Some(error)),
                    Err(crash) => std::panic::resume_unwind(crash.into_panic()),
                };
                opened = open;
                all = error.is_some() || moved;
                pause = if error.is_some() { REST } else { TURN };
                self.judge(error);
            }
            if last {
                return;
            }
            self.proof_ended.run_until_cancelled(self.clock.sleep(pause)).await;
        }
    }

    /// What KVS has of fragments that an earlier life left unconfirmed, and that are on no disk. Of those that it does not say
    /// anything about nothing is known yet.
    async fn ask_for(&self, orphans: Vec<Row>) -> Vec<Row> {
        let now_ms = self.clock.wall_ms();
        let fragments: Vec<_> =
            orphans.iter().filter_map(|row| Some((summary_of(row)?, row.number))).collect();
        let asking = ask::reconcile(&self.client, &self.stream, &self.clock, fragments, self.clock.now());
        let answer = tokio::time::timeout(LONGEST_QUESTION, asking).await.unwrap_or_default();
        if let Some(failure) = &answer.failure {
            let (camera, error) = (&self.camera, &failure.text);
            tracing::warn!(camera, error, "cannot ask KVS for what an earlier start left unconfirmed");
        }
        let judge = |row: Row| {
            let number = answer.found.iter().find(|(id, _)| *id == row.id).map(|(_, number)| *number);
            if let Some(number) = number {
                let times = RowTimes { persisted: Some(now_ms), identical: Some(now_ms), ..row.times };
                return Some(Row { state: RowState::Persisted, number: Some(number), times, ..row });
            }
            let cannot_be_asked = summary_of(&row).is_none();
            (cannot_be_asked || answer.absent.contains(&row.id)).then(|| Row {
                state: RowState::Bad(Cause::Crashed),
                text: Some(
                    "the daemon ended before it was confirmed, and neither disk nor KVS has it".to_owned(),
                ),
                ..row
            })
        };
        orphans.into_iter().filter_map(judge).collect()
    }

    /// What the log says of fragments since the last call; `all`: of all that the ledger remembers.
    fn rows(&self, cursor: &mut Cursor, all: bool) -> Vec<Row> {
        let (now, now_ms) = (self.clock.now(), self.clock.wall_ms());
        let wall_ms = move |at: Instant| {
            let ago = now.saturating_duration_since(at).as_millis();
            now_ms.saturating_sub(u64::try_from(ago).unwrap_or(u64::MAX))
        };
        self.ledger.with(|ledger| rows_of(ledger, cursor, all, &wall_ms))
    }

    /// Nothing that was recorded waits to be sent: what an earlier life left unconfirmed is nowhere any more.
    fn is_settled(&self) -> bool {
        let upload = self.upload.borrow();
        upload.persisted > 0 && upload.backlog.fragments <= 1
    }

    fn written(&self, lines: &[Line], open: &Open) {
        let is_on_disk = self.proofs.is_on_disk();
        let (head, at) = (open.book.head(), self.clock.wall());
        for line in lines {
            let record = &line.record;
            if let Some(summary) = record.summary() {
                let (camera, minute_ms, n) = (&self.camera, summary.minute_ms, record.n);
                let (verdict, why) = (summary.verdict, summary.why.as_deref());
                tracing::debug!(
                    camera,
                    minute_ms,
                    n,
                    ?verdict,
                    why,
                    amends = record.amends(),
                    "proof record"
                );
            }
        }
        self.report.send_if_modified(|report| {
            let newest = lines.iter().rev().filter(|line| line.record.amends().is_none());
            let newest = newest.filter_map(|line| line.record.summary()).next();
            // An amendment of the minute that was told last is told again.
            let told = report.last.as_ref().map(|last| last.summary.minute_ms);
            let mut amended = lines.iter().rev().filter_map(|line| line.record.summary());
            let amended = amended.find(|summary| Some(summary.minute_ms) == told);
            let summary =
                newest.or(amended).cloned().or_else(|| report.last.as_ref().map(|last| last.summary.clone()));
            let changed = !lines.is_empty() || report.is_on_disk != is_on_disk;
            report.is_on_disk = is_on_disk;
            report.written += lines.len() as u64;
            if let (Some(summary), Some(head), false) = (summary, head, lines.is_empty()) {
                report.last = Some(LastRecord { summary, head, at });
            }
            changed
        });
    }

    /// The camera has a problem with the disk of its records, or has it no longer.
    fn judge(&self, error: Option<StoreError>) {
        let problem = error.map(|error| {
            let found = format!("proof records are not written: {}", health::chain(&error));
            Problem::new(Reason::DiskFailed, found, self.clock.wall()).fix(error.fix())
        });
        self.report.send_if_modified(|report| {
            let found = |problem: &Option<Problem>| problem.as_ref().map(|problem| problem.found.clone());
            if found(&problem) == found(&report.problem) {
                return false;
            }
            match &problem {
                Some(problem) => tracing::error!(camera = self.camera, "{problem}"),
                None => tracing::info!(camera = self.camera, "proof records are written again"),
            }
            report.problem = problem.map(|problem| problem.again(report.problem.as_ref()));
            true
        });
    }
}

/// The records of one camera while they are written.
struct Open {
    book: Book,
    proofs: CameraProofs,
    /// What earlier lives left was looked for.
    settled: bool,
}

impl Open {
    fn new(keeper: &RecordKeeper, now_ms: u64) -> Result<Self, StoreError> {
        let chain = format!("{}/{}", keeper.device, keeper.camera);
        let (mut proofs, resumed) = keeper.proofs.camera(&keeper.camera, &chain)?;
        let mut chain = resumed.chain;
        if let Some(text) = resumed.broken {
            tracing::error!(camera = keeper.camera, error = text, "proof records");
            proofs.tell_break(&mut chain, text, now_ms)?;
        }
        let config = BookConfig { settle: keeper.settle() };
        let book = Book::new(config, chain, resumed.next, resumed.unfinished, now_ms);
        Ok(Self { book, proofs, settled: false })
    }

    fn turn(&mut self, rows: Vec<Row>, context: &Context) -> Result<Vec<Line>, (Vec<Line>, StoreError)> {
        self.book.turn(&rows, &mut self.proofs, context)
    }
}

/// As a look asks for it, which needs no more of it than its row has.
fn summary_of(row: &Row) -> Option<FragmentSummary> {
    Some(FragmentSummary {
        id: row.id,
        timecode: ProducerTimestamp::from_millis(row.timecode_ms),
        clock: kvs::stamping::FootageClock::Utc,
        duration_ms: row.end_ms.saturating_sub(row.timecode_ms),
        blocks: row.blocks?,
        audio_blocks: 0,
        cluster_bytes: row.bytes?,
        around_bytes: 0,
        sums: row.sums?,
        forced: false,
    })
}

fn played(played: &proof::Played) -> Played {
    Played {
        at_ms: played.at.as_millis(),
        way: match played.way {
            proof::Way::GetMedia => "get_media",
            proof::Way::Hls => "hls",
        }
        .to_owned(),
        result: match played.result {
            Ok(proof::Looked::Decoded) => "decoded",
            Ok(proof::Looked::Parsed) => "parsed",
            Err(_) => "failed",
        }
        .to_owned(),
        text: played.result.as_ref().err().cloned(),
        latency_ms: played.latency_ms,
    }
}

fn rows_of(ledger: &Ledger, cursor: &mut Cursor, all: bool, wall_ms: &dyn Fn(Instant) -> u64) -> Vec<Row> {
    let read = ledger.read(cursor);
    // One that grows is not there yet: a crash leaves no trace of it but a pause.
    let known = |record: &&kvs::ledger::Record| record.summary.is_some() || record.is_settled();
    if all || read.missed > 0 {
        return ledger.records().filter(known).map(|record| Row::of(record, wall_ms)).collect();
    }
    let mut rows = std::collections::BTreeMap::<_, Row>::new();
    for entry in read.entries {
        let row = match ledger.get(entry.id) {
            Some(record) => known(&record).then(|| Row::of(record, wall_ms)),
            None => Row::of_entry(entry, wall_ms),
        };
        let Some(row) = row else { continue };
        let merged = match rows.remove(&entry.id) {
            Some(before) => before.merge(row),
            None => row,
        };
        rows.insert(entry.id, merged);
    }
    rows.into_values().collect()
}

/// Runs until the records have ended in order, or `abort` fires.
pub async fn supervise(keeper: RecordKeeper, abort: CancellationToken) {
    abort.run_until_cancelled(keep_alive(keeper)).await;
}

async fn keep_alive(keeper: RecordKeeper) {
    let minute = Duration::from_secs(60);
    let mut backoff = Backoff::new(Duration::from_secs(1), minute, minute);
    loop {
        backoff.up(keeper.clock.now());
        let mut life = JoinSet::new();
        life.spawn(keeper.clone().run());
        let Some(Err(crash)) = life.join_next().await else { return };
        let delay = backoff.failed(keeper.clock.now(), rand::random());
        tracing::error!(camera = keeper.camera, error = %crash, "proof records crashed, they go on");
        if keeper.proof_ended.is_cancelled() {
            return;
        }
        keeper.proof_ended.run_until_cancelled(keeper.clock.sleep(delay)).await;
    }
}
