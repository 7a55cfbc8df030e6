//! Who holds the store, and to whom it answers: opens it, opens it again after a panic or while it cannot be opened, and
//! refuses what is asked for meanwhile.
//!
//! ```text
//!  absent --opened--> open --panic--> absent: tried again at once, then after 1 s, doubled up to 60 s
//! ```
//!
//! What became of fragments since it was last written down is remembered here, so that a new store of the same process knows
//! it too.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clock::Clock;
use health::{Backoff, Problem, Reason};
use kvs::upload::{Answer, Dropped, Request, Settled};
use kvs::{FragmentId, RunId};
use tokio::sync::{mpsc, watch};

use crate::finding::{Finding, FindingKind};
use crate::index::{Index, IndexError};
use crate::spool::{Job, OpenError, refusal, take_lock};
use crate::{Files, Options, Store, StoreError};

/// What became of fragments is written down at least this often.
const FLUSH_EVERY: Duration = Duration::from_secs(2);
/// Between two attempts to open the store, but for the first after a panic.
const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// A disk that fails to read a fragment this often is not asked for it again.
const MOST_READS: u32 = 3;
/// What became of fragments while it cannot be written down.
const MOST_UNSAVED: usize = 16 << 10;

/// What is known since the store was opened last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Opened {
    pub(crate) newest_run: Option<RunId>,
    /// Cameras of which something was recorded without a clock, and has no time yet.
    pub(crate) undated: Arc<BTreeSet<String>>,
    pub(crate) found: Arc<[Finding]>,
}

pub(crate) struct Keeper {
    options: Options,
    files: Arc<dyn Files>,
    clock: Clock,
    /// Held from the first opening on.
    lock: Option<File>,
    store: Option<Store>,
    /// While there is no store.
    retry_at: Option<Instant>,
    backoff: Backoff,
    problem: watch::Sender<Option<Problem>>,
    opened: watch::Sender<Opened>,
    cameras: BTreeMap<String, mpsc::UnboundedSender<Answer>>,
    /// What is lost and nobody was told of yet.
    dropped: BTreeMap<String, Vec<Dropped>>,
    /// What became of fragments since it was last written down.
    unsaved: VecDeque<(String, FragmentId, Settled)>,
    failed_reads: BTreeMap<(String, FragmentId), u32>,
}

impl Keeper {
    pub(crate) fn new(options: Options, files: Arc<dyn Files>, clock: Clock) -> Self {
        Self {
            options,
            files,
            clock,
            lock: None,
            store: None,
            retry_at: None,
            backoff: Backoff::new(FIRST_DELAY, LONGEST_DELAY, LONGEST_DELAY),
            problem: watch::Sender::new(None),
            opened: watch::Sender::new(Opened::default()),
            cameras: BTreeMap::new(),
            dropped: BTreeMap::new(),
            unsaved: VecDeque::new(),
            failed_reads: BTreeMap::new(),
        }
    }

    /// What is wrong, until it works again.
    pub(crate) fn problem(&self) -> watch::Receiver<Option<Problem>> {
        self.problem.subscribe()
    }

    pub(crate) fn problems(&self) -> watch::Sender<Option<Problem>> {
        self.problem.clone()
    }

    pub(crate) fn opened(&self) -> watch::Receiver<Opened> {
        self.opened.subscribe()
    }

    /// How long to wait for the next job before [`tend`](Self::tend).
    pub(crate) fn patience(&self) -> Duration {
        let left = self.retry_at.map(|at| at.saturating_duration_since(self.clock.now()));
        left.map_or(FLUSH_EVERY, |left| left.clamp(Duration::from_millis(1), FLUSH_EVERY))
    }

    /// Nobody asked for anything for a while.
    pub(crate) fn tend(&mut self) {
        self.open_if_due();
        self.guard("writing down what became of fragments", Self::flush);
        self.pass_on();
    }

    /// False at the end.
    pub(crate) fn work(&mut self, job: Job) -> bool {
        match job {
            Job::Begin { camera, answers } => {
                self.cameras.insert(camera, answers);
            }
            Job::Request { camera, request } => {
                self.open_if_due();
                let refused = refusal(&request);
                if let Request::Settle(id, settled) = &*request {
                    self.remember(&camera, *id, *settled);
                }
                let what = "working for an upload";
                if !self.guard(what, |keeper| keeper.answer(&camera, *request)) {
                    refused.into_iter().for_each(|refused| self.send(&camera, refused));
                }
            }
            Job::End => {
                self.guard("writing down what became of fragments", Self::flush);
                return false;
            }
        }
        self.pass_on();
        true
    }

    /// Opens the store; where that fails, it is [tried again](Self::tend) later.
    pub(crate) fn open(&mut self) -> Result<(), OpenError> {
        self.retry_at = None;
        let opened = catch_unwind(AssertUnwindSafe(|| self.try_open()));
        let now = self.clock.now();
        let problem = match opened {
            Ok(Ok(())) => {
                self.backoff.up(now);
                self.report(None);
                return Ok(());
            }
            Ok(Err(error)) => {
                let problem = error.problem(self.clock.wall());
                self.rest(problem);
                return Err(error);
            }
            Err(panic) => self.crash("opening the spool", &*panic),
        };
        self.rest(problem);
        let folder = self.options.folder.display().to_string();
        Err(OpenError::Crashed { folder })
    }

    fn try_open(&mut self) -> Result<(), OpenError> {
        let folder = self.options.folder.display().to_string();
        if self.lock.is_none() {
            self.lock = Some(take_lock(&self.options, &folder)?);
        }
        let store_error = |source| OpenError::Store { folder: folder.clone(), source };
        let (index, finding) = open_index(&self.options).map_err(|error| store_error(error.into()))?;
        let store = Store::open(self.files.clone(), self.options.clone(), index).map_err(store_error)?;
        let store = self.store.insert(store);
        for (camera, id, settled) in &self.unsaved {
            store.settle(camera, *id, *settled).map_err(store_error)?;
        }
        let found: Vec<_> = finding.into_iter().chain(store.findings()).collect();
        found.iter().for_each(tell);
        let (newest_run, undated) = (store.newest_run(), Arc::new(store.undated()));
        self.opened.send_replace(Opened { newest_run, undated, found: found.into() });
        Ok(())
    }

    fn open_if_due(&mut self) {
        if self.retry_at.is_some_and(|at| at <= self.clock.now()) {
            // What is wrong stands in the problem.
            let _ = self.open();
        }
    }

    /// Without a store for a while.
    fn rest(&mut self, problem: Problem) {
        self.store = None;
        let now = self.clock.now();
        // There is one spool in a box: nobody else does the same at the same moment.
        self.retry_at = Some(now + self.backoff.failed(now, 1.0));
        self.report(Some(problem));
    }

    /// Does it, unless there is no store. False: it was not done. A panic costs the store, and the first one in a while only
    /// as long as it takes to open it again.
    fn guard(&mut self, what: &str, work: impl FnOnce(&mut Self)) -> bool {
        if self.store.is_none() {
            return false;
        }
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(self))) else { return true };
        let problem = self.crash(what, &*panic);
        self.rest(problem);
        if self.backoff.failures() == 1 {
            self.retry_at = Some(self.clock.now());
        }
        false
    }

    fn crash(&self, what: &str, panic: &(dyn std::any::Any + Send)) -> Problem {
        let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        let found =
            format!("the spool crashed while {what}: {text}; footage waits in memory until it is open again");
        Problem::new(Reason::Crashed, found, self.clock.wall()).fix("report it, with the log of this moment")
    }

    fn remember(&mut self, camera: &str, id: FragmentId, settled: Settled) {
        if self.unsaved.len() >= MOST_UNSAVED {
            self.unsaved.pop_front();
        }
        self.unsaved.push_back((camera.to_owned(), id, settled));
    }

    /// Tells what was found, and whose footage had to go.
    fn pass_on(&mut self) {
        let Some(store) = &mut self.store else { return };
        store.findings().iter().for_each(tell);
        for (camera, fragment) in store.dropped() {
            self.dropped.entry(camera).or_default().push(fragment);
        }
        // Who has not begun yet is told when it does.
        let told: Vec<_> =
            self.dropped.keys().filter(|camera| self.cameras.contains_key(*camera)).cloned().collect();
        for camera in told {
            let fragments = self.dropped.remove(&camera).unwrap_or_default();
            tracing::error!(camera, fragments = fragments.len(), "footage had to leave the spool unsent");
            self.send(&camera, Answer::Dropped(fragments));
            self.guard("tidying up", |keeper| {
                keeper.store.iter_mut().for_each(|store| store.told(&camera));
            });
        }
    }

    fn answer(&mut self, camera: &str, request: Request) {
        let now = self.clock.now();
        let Some(store) = &mut self.store else { return };
        match request {
            Request::Write(_) | Request::Keep(_) => {
                let local = matches!(request, Request::Keep(_));
                let (Request::Write(fragment) | Request::Keep(fragment)) = request else { return };
                let id = fragment.id();
                let written = store.write_as(camera, &fragment, local, now);
                self.judge(written.as_ref().err());
                let answer = match written {
                    Ok(place) => Answer::Written { id, place },
                    Err(_) => Answer::NotWritten { id },
                };
                self.send(camera, answer);
            }
            Request::Settle(id, settled) => {
                if let Err(error) = store.settle(camera, id, settled) {
                    self.judge(Some(&error));
                }
            }
            Request::Stamp(trusted) => {
                let stamped = store.stamp(camera, &trusted);
                self.judge(stamped.as_ref().err());
                self.send(camera, stamped.map_or(Answer::NotStamped, Answer::Stamped));
            }
            Request::Read(id) => {
                let read = store.read(camera, id);
                let answer = self.after_read(camera, id, read);
                self.send(camera, answer);
            }
            Request::Recall { from_ms, to_ms, most } => {
                let recalled = store.recall(camera, (from_ms, to_ms), most);
                self.judge(recalled.as_ref().err());
                let answer = match recalled {
                    Ok((fragments, left)) => {
                        let ids = fragments.iter().map(|spooled| spooled.end.summary.id);
                        ids.for_each(|id| self.remember(camera, id, Settled::Wanted));
                        Answer::Recalled { fragments, left }
                    }
                    Err(_) => Answer::NotRecalled,
                };
                self.send(camera, answer);
            }
            Request::List { after, most } => {
                let listed = store.list(camera, after, most);
                self.judge(listed.as_ref().err());
                let answer = match listed {
                    Ok((fragments, left)) => Answer::Listed { fragments, left },
                    Err(_) => Answer::NotListed,
                };
                self.send(camera, answer);
            }
        }
    }

    /// A disk that fails to answer may do so later; one that does so again and again never will.
    fn after_read(
        &mut self,
        camera: &str,
        id: FragmentId,
        read: Result<Option<bytes::Bytes>, StoreError>,
    ) -> Answer {
        let key = (camera.to_owned(), id);
        let cluster = match read {
            Ok(cluster) => cluster,
            Err(error) => {
                self.judge(Some(&error));
                let failed = self.failed_reads.entry(key.clone()).or_default();
                *failed += 1;
                if *failed < MOST_READS {
                    return Answer::NotRead { id };
                }
                None
            }
        };
        self.failed_reads.remove(&key);
        if cluster.is_none() {
            tracing::error!(camera, fragment = %id, "the disk does not return it as it was written");
        }
        Answer::Read { id, cluster }
    }

    fn send(&self, camera: &str, answer: Answer) {
        if let Some(answers) = self.cameras.get(camera) {
            let _ = answers.send(answer);
        }
    }

    /// The box has a problem with its disk, or has it no longer.
    fn judge(&self, error: Option<&StoreError>) {
        if matches!(error, Some(StoreError::Resting { .. })) {
            return;
        }
        let reason = match error {
            Some(StoreError::Full { .. }) => Reason::BacklogFull,
            _ => Reason::DiskFailed,
        };
        self.report(error.map(|error| {
            let found = format!("the spool does not take footage: {}", health::chain(error));
            Problem::new(reason, found, self.clock.wall()).fix(error.fix())
        }));
    }

    fn report(&self, problem: Option<Problem>) {
        self.problem.send_if_modified(|before| {
            let same = match (&problem, &*before) {
                (Some(problem), Some(before)) => problem.found == before.found,
                (None, None) => true,
                _ => false,
            };
            if !same {
                match &problem {
                    Some(problem) => tracing::error!("{problem}"),
                    None => tracing::info!("the spool takes footage again"),
                }
                *before = problem.map(|problem| problem.again(before.as_ref()));
            }
            !same
        });
    }

    fn flush(&mut self) {
        let Some(store) = &mut self.store else { return };
        if !store.is_dirty() {
            return self.unsaved.clear();
        }
        match store.flush() {
            Ok(()) => self.unsaved.clear(),
            Err(error) => {
                tracing::debug!(
                    error = health::chain(&error),
                    "what became of fragments is not written down"
                );
            }
        }
    }
}

/// The index, or a new one where it cannot be used.
fn open_index(options: &Options) -> Result<(Index, Option<Finding>), IndexError> {
    let path = options.index();
    let error = match Index::open(&path) {
        Ok(index) => return Ok((index, None)),
        Err(error) => error,
    };
    match Index::anew(&path) {
        Ok((index, aside)) => Ok((index, Some(Finding::index_anew(path, &error, aside)))),
        Err(error) => Ok((Index::in_memory()?, Some(Finding::index_in_memory(path, &error)))),
    }
}

fn tell(finding: &Finding) {
    match finding.kind {
        FindingKind::Torn => tracing::info!("{finding}"),
        FindingKind::Foreign | FindingKind::Later | FindingKind::Locked | FindingKind::Index => {
            tracing::warn!("{finding}")
        }
        FindingKind::Damaged | FindingKind::Disk => tracing::error!("{finding}"),
    }
}
