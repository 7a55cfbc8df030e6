//! Files in memory that remember what was synced: at any operation a test lets the power fail, or the disk.
//!
//! Kept apart are what a file holds and what of it was synced, and the names of a folder and which of them were synced. After
//! a power cut there is at least what was synced; of the rest some may be there, torn in any place or overwritten with zeros.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use kvs::cluster_sums::ClusterHasher;
use kvs::fragmenter::{FragmentEnd, FragmentSummary, StreamHeader};
use kvs::identity::{self, FragmentIdentity};
use kvs::stamping::{BootId, FootageClock};
use kvs::upload::Whole;
use kvs::{FragmentId, RunId};
use media::ProducerTimestamp;
use media::mkv::write::{self, block_head, cluster_start};

use crate::files::{Entry, Files, NewFile};

/// What a disk does at some operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The power goes: this operation may be done in part, and all later ones fail until [`TestFiles::power_on`].
    PowerCut,
    /// This operation fails so.
    Once(io::ErrorKind),
    /// This operation and all later changes fail so, until [`TestFiles::mend`].
    FromNow(io::ErrorKind),
    /// Whoever asks for it panics, as by a mistake in the program.
    Panic,
}

/// Files in memory; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct TestFiles(Arc<Mutex<Disk>>);

#[derive(Debug, Default)]
struct Disk {
    files: BTreeMap<PathBuf, Contents>,
    /// Names that a power cut would bring back: removed, and the folder not synced.
    removed: BTreeMap<PathBuf, Contents>,
    folders: Vec<PathBuf>,
    changes: u64,
    syncs: u64,
    written: u64,
    plan: BTreeMap<u64, Trouble>,
    broken: Option<io::ErrorKind>,
    unreadable: bool,
    is_off: bool,
}

#[derive(Clone, Debug, Default)]
struct Contents {
    bytes: Vec<u8>,
    /// Of these, those that were synced.
    synced: usize,
    /// The folder was synced since it was made.
    named: bool,
}

impl TestFiles {
    /// At the `change`-th change of the disk from its beginning, counted from 0.
    pub fn plan(&self, change: u64, trouble: Trouble) {
        self.disk().plan.insert(change, trouble);
    }

    /// Changes of the disk so far.
    pub fn changes(&self) -> u64 {
        self.disk().changes
    }

    /// Syncs of files and folders so far, and bytes written.
    pub fn costs(&self) -> (u64, u64) {
        let disk = self.disk();
        (disk.syncs, disk.written)
    }

    pub fn is_off(&self) -> bool {
        self.disk().is_off
    }

    /// Nothing fails any more.
    pub fn mend(&self) {
        let mut disk = self.disk();
        disk.plan.clear();
        disk.broken = None;
    }

    /// Everything fails so from now on.
    pub fn break_with(&self, kind: io::ErrorKind) {
        self.disk().broken = Some(kind);
    }

    /// Whether no file can be read.
    pub fn unreadable(&self, unreadable: bool) {
        self.disk().unreadable = unreadable;
    }

    /// After a power cut: what was not synced is gone, or not, as `random` says.
    pub fn power_on(&self, random: &mut dyn FnMut() -> u64) {
        let mut disk = self.disk();
        disk.is_off = false;
        disk.plan.clear();
        disk.broken = None;
        for (path, contents) in std::mem::take(&mut disk.removed) {
            if random().is_multiple_of(2) {
                disk.files.entry(path).or_insert(contents);
            }
        }
        disk.files.retain(|_, contents| contents.named || random().is_multiple_of(2));
        for contents in disk.files.values_mut() {
            let unsynced = contents.bytes.len() - contents.synced;
            let kept = usize::try_from(random() % (unsynced as u64 + 1)).unwrap_or(0);
            contents.bytes.truncate(contents.synced + kept);
            if kept > 0 && random().is_multiple_of(3) {
                // The length was written, and of the blocks not all.
                let from = contents.synced + usize::try_from(random() % kept as u64).unwrap_or(0);
                contents.bytes[from..].fill(0);
            }
            (contents.synced, contents.named) = (contents.bytes.len(), true);
        }
    }

    /// Puts a file there, for good.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let contents = Contents { bytes: bytes.to_vec(), synced: bytes.len(), named: true };
        self.disk().files.insert(path.to_owned(), contents);
    }

    /// Changes what a file holds, as a failing disk would.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(contents) = self.disk().files.get_mut(path) {
            change(&mut contents.bytes);
            contents.synced = contents.bytes.len();
        }
    }

    /// All files, in order.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.disk().files.keys().cloned().collect()
    }

    /// Takes a file away, for good.
    pub fn take(&self, path: &Path) {
        self.disk().files.remove(path);
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    /// Before each change. `Ok(true)`: it is done in part, and then the power is off.
    fn begin(&mut self) -> io::Result<bool> {
        if self.is_off {
            return Err(io::Error::other("the power is off"));
        }
        let change = self.changes;
        self.changes += 1;
        match self.plan.get(&change) {
            Some(Trouble::PowerCut) => {
                self.is_off = true;
                return Ok(true);
            }
            Some(Trouble::Once(kind)) => return Err((*kind).into()),
            Some(Trouble::FromNow(kind)) => self.broken = Some(*kind),
            Some(Trouble::Panic) => panic!("change {change} of the disk"),
            None => {}
        }
        self.broken.map_or(Ok(false), |kind| Err(kind.into()))
    }

    fn file(&mut self, path: &Path) -> io::Result<&mut Contents> {
        self.files.get_mut(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn off<T>() -> io::Result<T> {
    Err(io::Error::other("the power is off"))
}

impl Files for TestFiles {
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        if !disk.folders.iter().any(|known| known == folder) {
            if disk.begin()? {
                return off();
            }
            disk.folders.push(folder.to_owned());
        }
        Ok(())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        let disk = self.disk();
        if disk.is_off {
            return off();
        }
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let inside = |path: &&PathBuf| path.parent() == Some(folder);
        let folders = disk
            .folders
            .iter()
            .filter(inside)
            .filter_map(|path| Some(Entry { name: name(path)?, bytes: 0, is_folder: true }));
        let files = disk.files.iter().filter(|(path, _)| inside(path)).filter_map(|(path, contents)| {
            Some(Entry { name: name(path)?, bytes: contents.bytes.len() as u64, is_folder: false })
        });
        Ok(folders.chain(files).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        let mut disk = self.disk();
        if disk.files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if disk.begin()? {
            return off();
        }
        disk.files.insert(path.to_owned(), Contents::default());
        Ok(Box::new(TestFile { files: self.clone(), path: path.to_owned() }))
    }

    fn read(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut disk = self.disk();
        if disk.is_off {
            return off();
        }
        if disk.unreadable {
            return Err(io::Error::other("a sector cannot be read"));
        }
        let bytes = &disk.file(path)?.bytes;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        Ok(bytes[from..from.saturating_add(length).min(bytes.len())].to_vec())
    }

    fn truncate(&self, path: &Path, length: u64) -> io::Result<()> {
        let mut disk = self.disk();
        if disk.begin()? {
            return off();
        }
        let contents = disk.file(path)?;
        contents.bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        contents.synced = contents.bytes.len();
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        if disk.begin()? {
            return off();
        }
        let contents = disk.files.remove(path).ok_or(io::ErrorKind::NotFound)?;
        disk.removed.insert(path.to_owned(), contents);
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        if disk.begin()? {
            return off();
        }
        disk.syncs += 1;
        disk.removed.retain(|path, _| path.parent() != Some(folder));
        for (_, contents) in disk.files.iter_mut().filter(|(path, _)| path.parent() == Some(folder)) {
            contents.named = true;
        }
        Ok(())
    }
}

struct TestFile {
    files: TestFiles,
    path: PathBuf,
}

impl NewFile for TestFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.files.disk();
        let begun = disk.begin();
        // A write that fails may have been done in part.
        let part = if matches!(begun, Ok(false)) { bytes.len() } else { bytes.len() / 2 };
        if !disk.is_off || begun.is_ok() {
            disk.file(&self.path)?.bytes.extend_from_slice(&bytes[..part]);
            disk.written += part as u64;
        }
        if begun? { off() } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut disk = self.files.disk();
        if disk.begin()? {
            return off();
        }
        disk.syncs += 1;
        let contents = disk.file(&self.path)?;
        contents.synced = contents.bytes.len();
        Ok(())
    }
}

/// A fragment of about `bytes` bytes whose content follows from its name, a second long.
pub fn fragment(run: u64, sequence: u64, bytes: usize) -> Whole {
    let id = FragmentId { run: RunId::new(run), sequence };
    let seed = run.wrapping_mul(31).wrapping_add(sequence);
    let byte = |n: u64| u8::try_from((seed + n * 7) % 251).unwrap_or(0);
    let payload: Vec<u8> = (0..bytes as u64).map(byte).collect();
    let head = Bytes::from(format!("cluster {id}").into_bytes());
    let mut hasher = ClusterHasher::default();
    hasher.head(&head);
    hasher.payload(&payload);
    let (sums, cluster_bytes) = hasher.finish();
    let timecode = ProducerTimestamp::from_millis(1_795_186_073_000 + sequence * 1000);
    let header = StreamHeader {
        bytes: Bytes::from(format!("header of run {run}").into_bytes()),
        video_only: Bytes::from_static(b"video only"),
        has_audio: sequence.is_multiple_of(2),
    };
    let summary = FragmentSummary {
        id,
        timecode,
        clock: FootageClock::Utc,
        duration_ms: 960,
        blocks: 25,
        audio_blocks: 0,
        cluster_bytes,
        around_bytes: 90,
        sums,
        forced: sequence.is_multiple_of(3),
    };
    let tag = Bytes::from(format!("tag of {id}").into_bytes());
    let end = FragmentEnd { summary, tag, closing: sequence.is_multiple_of(5) };
    Whole { header: Arc::new(header), pieces: vec![head, payload.into()], end }
}

/// A fragment that was recorded without a clock: a second long, `sequence` seconds and a minute after boot.
pub fn fragment_of_boot(run: u64, sequence: u64, bytes: usize, boot: BootId) -> Whole {
    let whole = fragment(run, sequence, bytes);
    let timecode_ms = 60_000 + sequence * 1000;
    let head = Bytes::from([&*cluster_start(timecode_ms), &*block_head(1, 0, true, bytes)].concat());
    let payload = whole.pieces[1].clone();
    let mut hasher = ClusterHasher::default();
    hasher.head(&head);
    hasher.payload(&payload);
    let (sums, cluster_bytes) = hasher.finish();
    let id = whole.id();
    let identity = FragmentIdentity {
        device: "box".to_owned(),
        camera: "cam".to_owned(),
        id,
        timecode_ms,
        blocks: 1,
        payload_sha256: sums.payload,
    };
    let tag = write::tags(&[(identity::NAME, &identity.to_string())]);
    let summary = FragmentSummary {
        timecode: ProducerTimestamp::from_millis(timecode_ms),
        clock: FootageClock::Boot(boot),
        blocks: 1,
        cluster_bytes,
        sums,
        ..whole.end.summary
    };
    let end = FragmentEnd { summary, tag, closing: whole.end.closing };
    Whole { header: whole.header, pieces: vec![head, Bytes::new(), payload], end }
}
