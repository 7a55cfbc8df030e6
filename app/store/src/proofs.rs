//! Proof records on disk: lines that are only ever appended, and an index of them in SQLite.
//!
//! ```text
//!  FOLDER/lock                                  one process at a time
//!  FOLDER/cameras/CAMERA/0000000001.proofs      lines of one chain, see `kvs::proof::records::chain`: the truth
//!  FOLDER/ledger.sqlite                         rows of fragments, where each line lies, how far each chain is
//! ```
//!
//! A line is there for good, with one write and one fsync, before anybody is told of it: one of each in a minute and camera, and
//! as many more as there are amendments. About 0.7 kB a line are 1 MB a day and camera.
//!
//! **A chain never silently begins anew.** What a power cut tore off at the end was never told to anybody, and is cut off. Where
//! lines are gone that the index knows, or cannot be read, the next line is a break that says which, and its number is behind
//! those that are gone. A lost or damaged index is made anew from the lines; then nothing but the heads in `verify` messages
//! can show that the newest lines are gone.
//!
//! **Without a disk** (no `[spool]`) records are kept in memory for a day, and a chain begins at each start. A folder that cannot be
//! opened is [tried again](Proofs::try_again); what is known of fragments by then goes with it, and their minutes are written there.

mod ledger;
mod look;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kvs::RunId;
use kvs::proof::records::{Chain, Entry, Head, Line, Minute, MinuteRows, Record, Row, Rows};

use crate::files::{Files, NewFile};
use crate::finding::Finding;
use crate::spool::{OpenError, take_lock};
use crate::store::{StoreError, io_error};

use ledger::{LedgerTables, Place};
pub use look::{ProofsAt, proofs_at};

const EXTENSION: &str = ".proofs";
/// A file ends at this size.
const LARGEST_FILE: u64 = 4 << 20;
/// Rows of fragments stay for so long.
const ROWS_STAY: Duration = Duration::from_secs(24 * 3600);
/// Likewise where something of their minute waits: longer than it may wait.
const WAITING_ROWS_STAY: Duration = Duration::from_secs(400 * 24 * 3600);
/// Lines between two times of tidying up.
const TIDY_EVERY: u64 = 60;
/// Between two attempts to open the folder.
const TRY_EVERY: Duration = Duration::from_secs(30);

/// What an operator decides about proof records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofOptions {
    pub folder: PathBuf,
    /// How long records stay.
    pub keep: Duration,
    pub file_bytes: u64,
}

impl ProofOptions {
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), keep: Duration::from_secs(90 * 24 * 3600), file_bytes: LARGEST_FILE }
    }

    fn cameras(&self) -> PathBuf {
        self.folder.join("cameras")
    }

    fn index(&self) -> PathBuf {
        self.folder.join("ledger.sqlite")
    }
}

/// The proof records of a box; clones are the same. Calls wait for the disk.
#[derive(Clone)]
pub struct Proofs(Arc<Mutex<Inner>>);

/// Those of one camera.
pub struct CameraProofs {
    proofs: Proofs,
    camera: String,
    key: i64,
    /// Of the folder that it was opened in.
    generation: u64,
}

/// Where the records of a camera go on.
#[derive(Debug)]
pub struct Resumed {
    pub chain: Chain,
    /// Behind the newest minute that was written down.
    pub next: Option<Minute>,
    /// Earlier ones that may still change.
    pub unfinished: Vec<Minute>,
    /// What the next line has to say before anything else.
    pub broken: Option<String>,
}

struct Inner {
    tables: LedgerTables,
    disk: Option<Disk>,
    cameras: BTreeMap<i64, Camera>,
    findings: Vec<Finding>,
    /// The folder that could not be opened.
    later: Option<Later>,
    /// Folders that were opened after the start.
    generation: u64,
}

struct Later {
    options: ProofOptions,
    files: Arc<dyn Files>,
    try_at: Option<Instant>,
}

struct Disk {
    files: Arc<dyn Files>,
    options: ProofOptions,
    /// Held for as long as they are open.
    _lock: Option<File>,
}

#[derive(Default)]
struct Camera {
    folder: PathBuf,
    active: Option<Active>,
    next_file: u64,
    lines: u64,
    /// Without a disk: the lines themselves.
    memory: BTreeMap<u64, String>,
}

struct Active {
    number: u64,
    file: Box<dyn NewFile>,
    length: u64,
}

impl Proofs {
    /// Opens what is there.
    pub fn open(options: ProofOptions, files: Arc<dyn Files>) -> Result<Self, OpenError> {
        Ok(Self(Arc::new(Mutex::new(Inner::open(options, files)?))))
    }

    /// Likewise; where that fails records are kept in memory until it can be opened, see [`try_again`](Self::try_again).
    pub fn open_or_later(options: ProofOptions, files: Arc<dyn Files>) -> Result<Self, StoreError> {
        let error = match Inner::open(options.clone(), files.clone()) {
            Ok(inner) => return Ok(Self(Arc::new(Mutex::new(inner)))),
            Err(error) => error,
        };
        let error = health::chain(&error);
        tracing::error!(error, "proof records are kept in memory until their folder can be opened");
        let proofs = Self::in_memory()?;
        proofs.inner().later = Some(Later { options, files, try_at: None });
        Ok(proofs)
    }

    /// For as long as this process lives.
    pub fn in_memory() -> Result<Self, StoreError> {
        Ok(Self(Arc::new(Mutex::new(Inner::with(LedgerTables::in_memory()?, None)))))
    }

    /// Opens a folder that could not be opened before, if it is time. Then whoever writes is told [`StoreError::Reopened`], asks
    /// for its [camera](Self::camera) again, and goes on behind what is there.
    pub fn try_again(&self, now: Instant) {
        let mut inner = self.inner();
        let is_due = |later: &&mut Later| later.try_at.is_none_or(|at| at <= now);
        let Some(later) = inner.later.as_mut().filter(is_due) else { return };
        later.try_at = Some(now + TRY_EVERY);
        let Ok(fresh) = Inner::open(later.options.clone(), later.files.clone()) else { return };
        match inner.move_to(fresh) {
            Ok(()) => tracing::info!("the folder of proof records is open"),
            Err(error) => tracing::error!(error = health::chain(&error), "proof records stay in memory"),
        }
    }

    pub fn is_on_disk(&self) -> bool {
        self.inner().disk.is_some()
    }

    /// What was found since this was asked last.
    pub fn findings(&self) -> Vec<Finding> {
        std::mem::take(&mut self.inner().findings)
    }

    /// The records of a camera, and where they go on. `chain`: its name in the records.
    pub fn camera(&self, camera: &str, chain: &str) -> Result<(CameraProofs, Resumed), StoreError> {
        let mut inner = self.inner();
        let key = inner.tables.camera(camera)?;
        let resumed = inner.resume(camera, key, chain)?;
        let generation = inner.generation;
        Ok((CameraProofs { proofs: self.clone(), camera: camera.to_owned(), key, generation }, resumed))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic in here leaves lines as they were told last.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The index, or a new one where it cannot be used.
fn open_tables(path: &Path) -> Result<(LedgerTables, Option<Finding>), crate::index::IndexError> {
    let error = match LedgerTables::open(path) {
        Ok(tables) => return Ok((tables, None)),
        Err(error) => error,
    };
    match LedgerTables::anew(path) {
        Ok((tables, aside)) => Ok((tables, Some(Finding::index_anew(path.to_owned(), &error, aside)))),
        Err(error) => {
            Ok((LedgerTables::in_memory()?, Some(Finding::index_in_memory(path.to_owned(), &error))))
        }
    }
}

fn tell(finding: &Finding) {
    tracing::warn!("{finding}");
}

impl Inner {
    fn with(tables: LedgerTables, disk: Option<Disk>) -> Self {
        let (cameras, findings) = (BTreeMap::new(), Vec::new());
        Self { tables, disk, cameras, findings, later: None, generation: 0 }
    }

    fn open(options: ProofOptions, files: Arc<dyn Files>) -> Result<Self, OpenError> {
        let folder = options.folder.display().to_string();
        let lock = take_lock(&crate::Options::new(&options.folder, u64::MAX, 1), &folder)?;
        let store_error = |source| OpenError::Store { folder: folder.clone(), source };
        let cameras = options.cameras();
        files.make_folder(&cameras).map_err(|error| store_error(io_error("make folder", &cameras)(error)))?;
        let (tables, finding) = open_tables(&options.index()).map_err(|error| store_error(error.into()))?;
        let mut inner = Self::with(tables, Some(Disk { files, options, _lock: Some(lock) }));
        finding.into_iter().for_each(|finding| inner.find(finding));
        Ok(inner)
    }

    /// Goes on in another folder with what is known of fragments.
    fn move_to(&mut self, mut fresh: Self) -> Result<(), StoreError> {
        for (key, name) in self.tables.cameras()? {
            let rows = self.tables.between(key, 0, u64::MAX)?;
            let key = fresh.tables.camera(&name)?;
            fresh.tables.put(key, &rows)?;
        }
        fresh.generation = self.generation + 1;
        *self = fresh;
        Ok(())
    }

    fn find(&mut self, finding: Finding) {
        tell(&finding);
        self.findings.push(finding);
    }

    fn resume(&mut self, name: &str, key: i64, chain: &str) -> Result<Resumed, StoreError> {
        let known = self.tables.chain(key)?.map(|(_, head)| head);
        let mut camera = Camera { next_file: 1, ..Camera::default() };
        let (mut broken, mut found) = (None, known);
        if self.disk.is_some() {
            (camera, broken, found) = self.scan(name, key)?;
        } else if let Some(before) = self.cameras.remove(&key) {
            camera = before;
        }
        let mut chain = Chain::new(chain, found);
        if let Some(known) = known.filter(|known| found.is_none_or(|found| found.n < known.n)) {
            let from = found.map_or(0, |found| found.n + 1);
            let text = format!("records {from} to {} were written, and are gone", known.n);
            broken = Some(broken.map_or(text.clone(), |before: String| format!("{before}; {text}")));
            chain.skip_to(known.n);
        }
        self.cameras.insert(key, camera);
        let (next, unfinished) = self.tables.open_minutes(key)?;
        let minute = |number| Minute::of(0).later(number);
        let unfinished = unfinished.into_iter().map(minute).collect();
        let next = match next {
            Some(next) => Some(minute(next)),
            // Fragments are known, and nothing is written of them yet.
            None => self.tables.first_from(key, 0)?.map(Minute::of),
        };
        Ok(Resumed { chain, next, unfinished, broken })
    }

    /// Brings the index up to what the lines say. Returns what is wrong with them, and the newest.
    fn scan(&mut self, name: &str, key: i64) -> Result<(Camera, Option<String>, Option<Head>), StoreError> {
        let Some(Disk { files, options, .. }) = &self.disk else { return Ok(Default::default()) };
        let (files, folder) = (files.clone(), options.cameras().join(name));
        files.make_folder(&folder).map_err(io_error("make folder", &folder))?;
        let mut camera = Camera { folder: folder.clone(), next_file: 1, ..Camera::default() };
        let (mut broken, mut newest) = (None::<String>, None::<Head>);
        let known = self.tables.chain(key)?.map(|(_, head)| head);
        // The newest record in a file that the index knows whole.
        let mut indexed = None;
        for entry in files.list(&folder).map_err(io_error("list", &folder))? {
            let path = folder.join(&entry.name);
            let Some(number) = number_of(&entry.name).filter(|_| !entry.is_folder) else {
                self.find(Finding::foreign(path));
                continue;
            };
            camera.next_file = camera.next_file.max(number + 1);
            let mut from = self.tables.scanned_to(key, number)?;
            if from > entry.bytes {
                self.find(Finding::shortened(path.clone(), from, entry.bytes));
                self.tables.forget_file(key, number)?;
                from = 0;
            }
            if from == entry.bytes
                && let Some(n) = self.tables.newest_n(key, number)?
            {
                indexed = Some((n, path));
                continue;
            }
            let bytes = files.read(&path, 0, usize::MAX).map_err(io_error("read", &path))?;
            let lines = look::split(&bytes);
            let mut unreadable = 0;
            for (offset, text) in lines.whole {
                let length = text.len() as u64 + 1;
                match Line::parse(text) {
                    Ok(line) if line.is_whole() => {
                        if offset >= from {
                            let at = Place { file: number, offset, length };
                            self.tables.add(key, &line, at, false)?;
                        }
                        newest = Some(line.head());
                    }
                    _ => unreadable += u64::from(offset >= from),
                }
            }
            if unreadable > 0 {
                let text = format!("{unreadable} lines of {} cannot be read", entry.name);
                self.find(Finding::damaged_lines(path.clone(), unreadable));
                broken = Some(broken.map_or(text.clone(), |before| format!("{before}; {text}")));
            }
            if lines.rest > 0 {
                let good = bytes.len() as u64 - lines.rest;
                self.find(Finding::torn(path.clone(), good, bytes.len() as u64));
                // Where it cannot be cut off, it is the end of a file that is not written to again.
                let cut = files.truncate(&path, good).is_ok();
                self.tables.scanned(key, number, if cut { good } else { bytes.len() as u64 })?;
            } else {
                self.tables.scanned(key, number, bytes.len() as u64)?;
            }
        }
        if let Some((n, path)) = indexed.filter(|(n, _)| newest.is_none_or(|newest| newest.n < *n)) {
            newest = match known.filter(|known| known.n == n) {
                Some(known) => Some(known),
                None => {
                    let bytes = files.read(&path, 0, usize::MAX).map_err(io_error("read", &path))?;
                    let lines = look::split(&bytes).whole;
                    lines.iter().rev().find_map(|(_, text)| Line::parse(text).ok()).map(|line| line.head())
                }
            };
        }
        Ok((camera, broken, newest))
    }

    fn append(&mut self, key: i64, line: &Line, is_final: bool) -> Result<(), StoreError> {
        let Some(camera) = self.cameras.get_mut(&key) else { return Ok(()) };
        let bytes = line.to_bytes();
        let length = bytes.len() as u64;
        let at = match &self.disk {
            None => {
                camera.memory.insert(line.record.n, line.to_string());
                Place { file: 0, offset: line.record.n, length }
            }
            Some(disk) => camera.append(disk, &bytes)?,
        };
        self.tables.add(key, line, at, is_final)?;
        camera.lines += 1;
        if camera.lines.is_multiple_of(TIDY_EVERY) {
            let now_ms = line.record.at_ms;
            self.tidy(key, now_ms)?;
        }
        Ok(())
    }

    /// What is too old goes: whole files, whose newest line is.
    fn tidy(&mut self, key: i64, now_ms: u64) -> Result<(), StoreError> {
        let ago = |span: Duration| now_ms.saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
        self.tables.forget_rows(key, ago(ROWS_STAY), ago(WAITING_ROWS_STAY))?;
        let Some(camera) = self.cameras.get_mut(&key) else { return Ok(()) };
        let Some(Disk { files, options, .. }) = &self.disk else {
            let first = camera.memory.keys().next_back().map_or(0, |last| last.saturating_sub(24 * 60));
            camera.memory = camera.memory.split_off(&first);
            return Ok(());
        };
        let (oldest_ms, active) = (ago(options.keep), camera.active.as_ref().map(|active| active.number));
        let folder = camera.folder.clone();
        for entry in files.list(&folder).map_err(io_error("list", &folder))? {
            let Some(number) = number_of(&entry.name).filter(|number| Some(*number) != active) else {
                continue;
            };
            let path = folder.join(&entry.name);
            let bytes = files.read(&path, 0, usize::MAX).map_err(io_error("read", &path))?;
            let lines = look::split(&bytes);
            let newest = lines.whole.iter().rev().find_map(|(_, text)| Line::parse(text).ok());
            let Some(newest) = newest.filter(|line| line.record.at_ms < oldest_ms) else { return Ok(()) };
            files.remove(&path).map_err(io_error("remove", &path))?;
            files.sync_folder(&folder).map_err(io_error("sync", &folder))?;
            self.tables.forget_file(key, number)?;
            self.tables.begins_at(key, newest.record.n + 1)?;
        }
        Ok(())
    }
}

impl Camera {
    fn append(&mut self, disk: &Disk, bytes: &[u8]) -> Result<Place, StoreError> {
        let length = bytes.len() as u64;
        let fits = |active: &Active| active.length + length <= disk.options.file_bytes;
        let (mut active, first) = match self.active.take().filter(fits) {
            Some(active) => (active, false),
            None => {
                let number = self.next_file;
                // Whatever comes of it, no other file has this number.
                self.next_file += 1;
                let path = self.folder.join(name_of(number));
                let file = disk.files.create(&path).map_err(io_error("create", &path))?;
                (Active { number, file, length: 0 }, true)
            }
        };
        let path = self.folder.join(name_of(active.number));
        let written = active
            .file
            .append(bytes)
            .map_err(io_error("write", &path))
            .and_then(|()| active.file.sync().map_err(io_error("sync", &path)))
            .and_then(|()| {
                let folder = &self.folder;
                if first { disk.files.sync_folder(folder).map_err(io_error("sync", folder)) } else { Ok(()) }
            });
        if let Err(error) = written {
            // What the file holds behind its lines nobody knows: it is not written to again. The same line may be written
            // into the next one, so nothing of it shall stay here.
            let tidied =
                if first { disk.files.remove(&path) } else { disk.files.truncate(&path, active.length) };
            tidied.unwrap_or_else(|error| tracing::debug!(%error, "what was not written cannot be cut off"));
            return Err(error);
        }
        let at = Place { file: active.number, offset: active.length, length };
        active.length += length;
        self.active = Some(active);
        Ok(at)
    }
}

impl CameraProofs {
    fn inner(&self) -> Result<MutexGuard<'_, Inner>, StoreError> {
        let inner = self.proofs.inner();
        if inner.generation == self.generation { Ok(inner) } else { Err(StoreError::Reopened) }
    }

    /// Id of the camera.
    pub fn camera(&self) -> &str {
        &self.camera
    }

    /// Fragments of runs before this one of which nobody knows what became.
    pub fn waiting_before(&self, run: RunId) -> Result<Vec<Row>, StoreError> {
        Ok(self.inner()?.tables.waiting_before(self.key, run)?)
    }

    /// Says in the chain that something before it is gone.
    pub fn tell_break(&mut self, chain: &mut Chain, text: String, now_ms: u64) -> Result<(), StoreError> {
        let line = chain.next(Entry::Break { text }, now_ms);
        self.append(&line, true)?;
        chain.add(&line);
        Ok(())
    }
}

impl Rows for CameraProofs {
    type Error = StoreError;

    fn put(&mut self, rows: &[Row]) -> Result<(), StoreError> {
        Ok(self.inner()?.tables.put(self.key, rows)?)
    }

    fn minute(&mut self, minute: Minute) -> Result<MinuteRows, StoreError> {
        let inner = self.inner()?;
        Ok(MinuteRows {
            rows: inner.tables.between(self.key, minute.start_ms(), minute.end_ms())?,
            before_ms: inner.tables.end_before(self.key, minute.start_ms())?,
            after_ms: inner.tables.first_from(self.key, minute.end_ms())?,
            is_over: false,
        })
    }

    fn first_from(&mut self, minute: Minute) -> Result<Option<Minute>, StoreError> {
        let found = self.inner()?.tables.first_from(self.key, minute.start_ms())?;
        Ok(found.map(Minute::of))
    }

    fn newest(&mut self, minute: Minute) -> Result<Option<Record>, StoreError> {
        let inner = self.inner()?;
        let Some(at) = inner.tables.newest(self.key, minute.since(Minute::of(0)))? else { return Ok(None) };
        let Some(camera) = inner.cameras.get(&self.key) else { return Ok(None) };
        let bytes = match &inner.disk {
            None => camera.memory.get(&at.offset).map(|text| text.clone().into_bytes()).unwrap_or_default(),
            Some(disk) => {
                let path = camera.folder.join(name_of(at.file));
                let length = usize::try_from(at.length).unwrap_or(usize::MAX);
                match disk.files.read(&path, at.offset, length) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    read => read.map_err(io_error("read", &path))?,
                }
            }
        };
        // One that was changed on disk counts no more than one that is gone.
        let line = Line::parse(bytes.trim_ascii_end()).ok().filter(Line::is_whole);
        Ok(line.map(|line| line.record))
    }

    fn append(&mut self, line: &Line, is_final: bool) -> Result<(), StoreError> {
        self.inner()?.append(self.key, line, is_final)
    }
}

fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(EXTENSION)?;
    (digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

fn name_of(number: u64) -> String {
    format!("{number:010}{EXTENSION}")
}

#[cfg(test)]
mod tests;
