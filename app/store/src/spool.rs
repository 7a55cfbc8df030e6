//! The thread of the spool, and how a camera's upload talks to it.
//!
//! ```text
//!  upload --Request--> queue, 1024 --> thread: Store --Answer--> upload, one channel for each camera
//! ```
//!
//! Nobody waits for the thread: a request for which the queue has no place is answered at once, as one that failed. An upload
//! has one write, one list and a few reads under way at a time, so neither queue grows beyond that. While there is no store
//! ([`keeper`](crate::keeper) opens it again by itself), requests are answered as failed too, and footage waits in memory.

use std::fs::{File, OpenOptions, TryLockError};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use clock::Clock;
use health::{Problem, Reason};
use kvs::RunId;
use kvs::upload::{Answer, Request};
use tokio::sync::{mpsc, watch};

use crate::index::Index;
use crate::keeper::{Keeper, Opened};
use crate::{Files, Finding, Options, RealFiles, Store, StoreError};

const QUEUE: usize = 1024;

/// Why there is no spool.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("spool {folder}: {source}")]
    Store { folder: String, source: StoreError },
    #[error("spool {folder}: another kvs-edge has it")]
    Taken { folder: String },
    #[error("spool {folder}: the lock cannot be taken: {source}")]
    Lock { folder: String, source: std::io::Error },
    #[error("spool {folder}: it crashed while it was opened")]
    Crashed { folder: String },
}

impl OpenError {
    /// As the box reports it. Footage is recorded all the same.
    pub fn problem(&self, now: std::time::SystemTime) -> Problem {
        let fix = match self {
            Self::Store { source, .. } => source.fix(),
            Self::Taken { .. } => "stop the other one, or give each its own folder in [spool]",
            Self::Lock { .. } => "give kvs-edge's user the folder of [spool]",
            Self::Crashed { .. } => "report it, with the log of this moment",
        };
        let found = format!("{}; footage waits in memory only", health::chain(self));
        Problem::new(Reason::DiskFailed, found, now).fix(fix)
    }
}

/// The spool of a box; clones are the same.
#[derive(Clone)]
pub struct Spool {
    desk: Desk,
    problem: watch::Receiver<Option<Problem>>,
    opened: watch::Receiver<Opened>,
    is_late: bool,
}

/// Who does the work.
#[derive(Clone)]
enum Desk {
    Thread {
        queue: SyncSender<Job>,
        thread: Arc<Mutex<Option<JoinHandle<()>>>>,
    },
    /// Whoever asks, at once: with it tests on paused time depend on no thread.
    Caller(Arc<Mutex<Keeper>>),
}

pub(crate) enum Job {
    /// A camera's upload begins; what it asked for before is answered to nobody.
    Begin {
        camera: String,
        answers: mpsc::UnboundedSender<Answer>,
    },
    Request {
        camera: String,
        request: Box<Request>,
    },
    End,
}

/// What is answered where a request cannot be done now. `None`: nobody waits for an answer.
pub(crate) fn refusal(request: &Request) -> Option<Answer> {
    match request {
        Request::Write(fragment) | Request::Keep(fragment) => Some(Answer::NotWritten { id: fragment.id() }),
        Request::Recall { .. } => Some(Answer::NotRecalled),
        Request::Stamp(_) => Some(Answer::NotStamped),
        Request::Read(id) => Some(Answer::NotRead { id: *id }),
        Request::List { .. } => Some(Answer::NotListed),
        Request::Settle(..) => None,
    }
}

/// What one camera's upload has of the spool.
pub struct CameraSpool {
    camera: String,
    desk: Desk,
    refused: mpsc::UnboundedSender<Answer>,
    answers: mpsc::UnboundedReceiver<Answer>,
    is_late: bool,
}

impl Spool {
    /// Opens what is there, which takes a moment where much was recorded since the index was last written, and starts the
    /// thread. Where it cannot be opened it is tried again, and [`problem`](Self::problem) says why meanwhile; so it is when
    /// the thread panics.
    pub fn start(options: Options, files: Arc<dyn Files>, clock: Clock) -> Self {
        let mut keeper = Keeper::new(options, files, clock);
        // What is wrong stands in the problem.
        let _ = keeper.open();
        let (queue, jobs) = sync_channel(QUEUE);
        let (problem, opened) = (keeper.problem(), keeper.opened());
        let unable = keeper.problems();
        let thread = std::thread::Builder::new().name("spool".to_owned()).spawn(move || run(keeper, &jobs));
        let thread = thread
            .map_err(|error| {
                let found =
                    format!("the thread of the spool does not start: {error}; footage waits in memory only");
                let problem = Problem::new(Reason::DiskFailed, found, std::time::SystemTime::UNIX_EPOCH);
                unable.send_replace(Some(problem.fix("raise the limit of threads of kvs-edge's user")));
            })
            .ok();
        Self {
            desk: Desk::Thread { queue, thread: Arc::new(Mutex::new(thread)) },
            problem,
            opened,
            is_late: false,
        }
    }

    /// Likewise, without a thread: each request is done by whoever makes it.
    pub fn start_inline(options: Options, files: Arc<dyn Files>, clock: Clock) -> Self {
        let mut keeper = Keeper::new(options, files, clock);
        let _ = keeper.open();
        Self::inline(keeper)
    }

    /// Likewise, where it can be opened.
    pub fn open_inline(options: Options, files: Arc<dyn Files>, clock: Clock) -> Result<Self, OpenError> {
        let mut keeper = Keeper::new(options, files, clock);
        keeper.open()?;
        Ok(Self::inline(keeper))
    }

    fn inline(keeper: Keeper) -> Self {
        let (problem, opened) = (keeper.problem(), keeper.opened());
        Self { desk: Desk::Caller(Arc::new(Mutex::new(keeper))), problem, opened, is_late: false }
    }

    /// For tests: no answer is there at once, as with a thread that has much to do; each has to be [waited](CameraSpool::next)
    /// for.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn late(self) -> Self {
        Self { is_late: true, ..self }
    }

    /// For the upload of a camera. One that begins again takes over.
    pub fn camera(&self, camera: &str) -> CameraSpool {
        // What is under way at a time bounds it.
        let (sender, answers) = mpsc::unbounded_channel();
        self.desk.give(Job::Begin { camera: camera.to_owned(), answers: sender.clone() });
        let (desk, is_late) = (self.desk.clone(), self.is_late);
        CameraSpool { camera: camera.to_owned(), desk, refused: sender, answers, is_late }
    }

    /// What is wrong with the disk, until it works again.
    pub fn problem(&self) -> watch::Receiver<Option<Problem>> {
        self.problem.clone()
    }

    /// The greatest run of any fragment that was there when it was opened; absent until it was.
    pub fn newest_run(&self) -> Option<RunId> {
        self.opened.borrow().newest_run
    }

    /// Whether footage of this camera was there when it was opened that was recorded without a clock and has no time yet.
    pub fn has_undated(&self, camera: &str) -> bool {
        self.opened.borrow().undated.contains(camera)
    }

    /// What was found when it was opened last.
    pub fn found(&self) -> Arc<[Finding]> {
        self.opened.borrow().found.clone()
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
        let refused = refusal(&request).filter(|refused| !matches!(refused, Answer::NotRead { .. }));
        let request = Box::new(request);
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
        if self.is_late { None } else { self.answers.try_recv().ok() }
    }
}

impl Desk {
    fn give(&self, job: Job) -> bool {
        match self {
            Self::Thread { queue, .. } => queue.try_send(job).is_ok(),
            Self::Caller(keeper) => {
                let mut keeper = keeper.lock().unwrap_or_else(PoisonError::into_inner);
                keeper.work(job);
                true
            }
        }
    }
}

/// The thread.
fn run(mut keeper: Keeper, jobs: &Receiver<Job>) {
    loop {
        let job = match jobs.recv_timeout(keeper.patience()) {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout) => {
                keeper.tend();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => Job::End,
        };
        if !keeper.work(job) {
            return;
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

pub(crate) fn take_lock(options: &Options, folder: &str) -> Result<File, OpenError> {
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
