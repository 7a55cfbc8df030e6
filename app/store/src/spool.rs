//! The thread of the spool, and how a camera's upload talks to it.
//!
//! ```text
//!  upload --Request--> queue, 1024 --> thread: Store --Answer--> upload, one channel for each camera
//! ```
//!
//! Nobody waits for the thread: a request for which the queue has no place is answered at once, as one that failed. An upload
//! has one write, one list and a few reads under way at a time, so neither queue grows beyond that.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use clock::Clock;
use health::{Problem, Reason};
use kvs::RunId;
use kvs::upload::{Answer, Dropped, Request};
use tokio::sync::{mpsc, watch};

use crate::index::{Index, IndexError};
use crate::{Files, Finding, FindingKind, Options, RealFiles, Store, StoreError};

const QUEUE: usize = 1024;
/// What became of fragments is written down at least this often.
const FLUSH_EVERY: Duration = Duration::from_secs(2);

/// Why there is no spool.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("spool {folder}: {source}")]
    Store { folder: String, source: StoreError },
    #[error("spool {folder}: another kvs-edge has it")]
    Taken { folder: String },
    #[error("spool {folder}: the lock cannot be taken: {source}")]
    Lock { folder: String, source: std::io::Error },
}

impl OpenError {
    /// As the box reports it. Footage is recorded all the same.
    pub fn problem(&self, now: std::time::SystemTime) -> Problem {
        let fix = match self {
            Self::Store { source, .. } => source.fix(),
            Self::Taken { .. } => "stop the other one, or give each its own folder in [spool]",
            Self::Lock { .. } => "give kvs-edge's user the folder of [spool]",
        };
        let found = format!("{}; footage waits in memory only", health::chain(self));
        Problem::new(Reason::DiskFailed, found, now).fix(format!("{fix}, then restart kvs-edge"))
    }
}

/// The spool of a box; clones are the same.
#[derive(Clone)]
pub struct Spool {
    desk: Desk,
    problem: watch::Receiver<Option<Problem>>,
    newest_run: Option<RunId>,
    found: Arc<[Finding]>,
}

/// Who does the work.
#[derive(Clone)]
enum Desk {
    Thread {
        queue: SyncSender<Job>,
        thread: Arc<Mutex<Option<JoinHandle<()>>>>,
    },
    /// Whoever asks, at once: with it tests on paused time depend on no thread.
    Caller(Arc<Mutex<Worker>>),
}

enum Job {
    /// A camera's upload begins; what it asked for before is answered to nobody.
    Begin {
        camera: String,
        answers: mpsc::UnboundedSender<Answer>,
    },
    Request {
        camera: String,
        request: Request,
    },
    End,
}

/// What one camera's upload has of the spool.
pub struct CameraSpool {
    camera: String,
    desk: Desk,
    refused: mpsc::UnboundedSender<Answer>,
    answers: mpsc::UnboundedReceiver<Answer>,
}

impl Spool {
    /// Opens what is there, which takes a moment where much was recorded since the index was last written, and starts the
    /// thread.
    pub fn open(options: Options, files: Arc<dyn Files>, clock: Clock) -> Result<Self, OpenError> {
        let (worker, mut spool) = Worker::open(options, files, clock)?;
        let (queue, jobs) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new().name("spool".to_owned()).spawn(move || worker.run(&jobs));
        if let (Ok(thread), Desk::Thread { queue: own, thread: handle }) = (thread, &mut spool.desk) {
            *own = queue;
            *handle = Arc::new(Mutex::new(Some(thread)));
        }
        Ok(spool)
    }

    /// Likewise, without a thread: each request is done by whoever makes it.
    pub fn open_inline(options: Options, files: Arc<dyn Files>, clock: Clock) -> Result<Self, OpenError> {
        let (worker, mut spool) = Worker::open(options, files, clock)?;
        spool.desk = Desk::Caller(Arc::new(Mutex::new(worker)));
        Ok(spool)
    }

    /// For the upload of a camera. One that begins again takes over.
    pub fn camera(&self, camera: &str) -> CameraSpool {
        // What is under way at a time bounds it.
        let (sender, answers) = mpsc::unbounded_channel();
        self.desk.give(Job::Begin { camera: camera.to_owned(), answers: sender.clone() });
        CameraSpool { camera: camera.to_owned(), desk: self.desk.clone(), refused: sender, answers }
    }

    /// What is wrong with the disk, until it works again.
    pub fn problem(&self) -> watch::Receiver<Option<Problem>> {
        self.problem.clone()
    }

    /// The greatest run of any fragment that was there at the opening.
    pub fn newest_run(&self) -> Option<RunId> {
        self.newest_run
    }

    /// What was found at the opening.
    pub fn found(&self) -> &[Finding] {
        &self.found
    }

    /// Does what was asked for so far, and ends the thread.
    pub fn close(&self) {
        self.desk.give(Job::End);
        if let Desk::Thread { thread, .. } = &self.desk {
            let thread = thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            let _ = thread.map(JoinHandle::join);
        }
    }
}

impl CameraSpool {
    /// Asks; the answer comes by [`next`](Self::next). False: there is no place for it, and no answer will come.
    pub fn ask(&self, request: Request) -> bool {
        let refused = match &request {
            Request::Write(fragment) => Some(Answer::NotWritten { id: fragment.id() }),
            Request::List { .. } => Some(Answer::NotListed),
            Request::Read(_) | Request::Settle(..) => None,
        };
        let taken = self.desk.give(Job::Request { camera: self.camera.clone(), request });
        taken || refused.is_some_and(|refused| self.refused.send(refused).is_ok())
    }

    pub async fn next(&mut self) -> Answer {
        match self.answers.recv().await {
            Some(answer) => answer,
            // It holds a sender itself.
            None => std::future::pending().await,
        }
    }

    /// What has come already.
    pub fn try_next(&mut self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }
}

impl Desk {
    fn give(&self, job: Job) -> bool {
        match self {
            Self::Thread { queue, .. } => queue.try_send(job).is_ok(),
            Self::Caller(worker) => {
                let mut worker = worker.lock().unwrap_or_else(PoisonError::into_inner);
                worker.work(job);
                true
            }
        }
    }
}

/// The store, and to whom it answers.
struct Worker {
    store: Store,
    clock: Clock,
    problem: watch::Sender<Option<Problem>>,
    cameras: BTreeMap<String, mpsc::UnboundedSender<Answer>>,
    /// What is lost and nobody was told of yet.
    dropped: BTreeMap<String, Vec<Dropped>>,
    /// Held for as long as the spool is open.
    _lock: File,
}

impl Worker {
    fn open(options: Options, files: Arc<dyn Files>, clock: Clock) -> Result<(Self, Spool), OpenError> {
        let folder = options.folder.display().to_string();
        let lock = take_lock(&options, &folder)?;
        let store_error = |source| OpenError::Store { folder: folder.clone(), source };
        let (index, finding) = open_index(&options).map_err(|error| store_error(error.into()))?;
        let mut store = Store::open(files, options, index).map_err(store_error)?;
        let found: Vec<_> = finding.into_iter().chain(store.findings()).collect();
        found.iter().for_each(tell);
        let (problem, watch) = watch::channel(None);
        let newest_run = store.newest_run();
        let spool = Spool {
            desk: Desk::Thread { queue: sync_channel(0).0, thread: Arc::default() },
            problem: watch,
            newest_run,
            found: found.into(),
        };
        let (cameras, dropped) = (BTreeMap::new(), BTreeMap::new());
        Ok((Self { store, clock, problem, cameras, dropped, _lock: lock }, spool))
    }

    fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            let job = match jobs.recv_timeout(FLUSH_EVERY) {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => {
                    self.flush();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => Job::End,
            };
            if !self.work(job) {
                return;
            }
        }
    }

    /// False at the end.
    fn work(&mut self, job: Job) -> bool {
        match job {
            Job::Begin { camera, answers } => {
                self.cameras.insert(camera, answers);
            }
            Job::Request { camera, request } => self.answer(&camera, request),
            Job::End => {
                self.flush();
                return false;
            }
        }
        self.store.findings().iter().for_each(tell);
        for (camera, fragment) in self.store.dropped() {
            self.dropped.entry(camera).or_default().push(fragment);
        }
        // Who has not begun yet is told when it does.
        let told: Vec<_> =
            self.dropped.keys().filter(|camera| self.cameras.contains_key(*camera)).cloned().collect();
        for camera in told {
            let fragments = self.dropped.remove(&camera).unwrap_or_default();
            tracing::error!(camera, fragments = fragments.len(), "footage had to leave the spool unsent");
            self.send(&camera, Answer::Dropped(fragments));
        }
        true
    }

    fn answer(&mut self, camera: &str, request: Request) {
        match request {
            Request::Write(fragment) => {
                let id = fragment.id();
                let written = self.store.write(camera, &fragment, self.clock.now());
                self.judge(written.as_ref().err());
                let answer = match written {
                    Ok(place) => Answer::Written { id, place },
                    Err(_) => Answer::NotWritten { id },
                };
                self.send(camera, answer);
            }
            Request::Settle(id, settled) => {
                if let Err(error) = self.store.settle(camera, id, settled) {
                    self.judge(Some(&error));
                }
            }
            Request::Read(id) => {
                let cluster = match self.store.read(camera, id) {
                    Ok(cluster) => cluster,
                    Err(error) => {
                        self.judge(Some(&error));
                        None
                    }
                };
                if cluster.is_none() {
                    tracing::error!(camera, fragment = %id, "the disk does not return it as it was written");
                }
                self.send(camera, Answer::Read { id, cluster });
            }
            Request::List { after, most } => {
                let listed = self.store.list(camera, after, most);
                self.judge(listed.as_ref().err());
                let answer = match listed {
                    Ok((fragments, left)) => Answer::Listed { fragments, left },
                    Err(_) => Answer::NotListed,
                };
                self.send(camera, answer);
            }
        }
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
        let problem = error.map(|error| {
            let found = format!("the spool does not take footage: {}", health::chain(error));
            Problem::new(reason, found, self.clock.wall()).fix(error.fix())
        });
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
        if self.store.is_dirty()
            && let Err(error) = self.store.flush()
        {
            tracing::debug!(error = health::chain(&error), "what became of fragments is not written down");
        }
    }
}

/// Opens the spool with a new index, and tells what was found.
pub(crate) fn repair(options: &Options) -> Result<Vec<Finding>, OpenError> {
    let folder = options.folder.display().to_string();
    let _lock = take_lock(options, &folder)?;
    let store_error = |source| OpenError::Store { folder: folder.clone(), source };
    let (index, _) = Index::anew(&options.index()).map_err(|error| store_error(error.into()))?;
    let mut store = Store::open(Arc::new(RealFiles), options.clone(), index).map_err(store_error)?;
    store.flush().map_err(store_error)?;
    Ok(store.findings())
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

fn take_lock(options: &Options, folder: &str) -> Result<File, OpenError> {
    let lock_error = |source| OpenError::Lock { folder: folder.to_owned(), source };
    std::fs::create_dir_all(&options.folder).map_err(lock_error)?;
    // The file stays: one that is removed could be locked by one process and made anew by another.
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(options.lock());
    let file = file.map_err(lock_error)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Taken { folder: folder.to_owned() }),
        Err(TryLockError::Error(source)) => Err(lock_error(source)),
    }
}

fn tell(finding: &Finding) {
    match finding.kind {
        FindingKind::Torn => tracing::info!("{finding}"),
        FindingKind::Foreign | FindingKind::Later | FindingKind::Index => tracing::warn!("{finding}"),
        FindingKind::Damaged | FindingKind::Disk => tracing::error!("{finding}"),
    }
}
