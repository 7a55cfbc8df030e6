//! Proof records from outside of the daemon, also while it runs: nothing is changed, and no lock is taken.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use kvs::proof::records::Head;
use kvs::proof::records::chain::{Line, LineError};

use super::{ledger, number_of};
use crate::files::{Files, RealFiles};

/// Bytes of a file, cut into lines.
pub(super) struct Split<'a> {
    /// Offset and text of each whole line, without its line feed.
    pub(super) whole: Vec<(u64, &'a [u8])>,
    /// Bytes behind the last line feed.
    pub(super) rest: u64,
}

pub(super) fn split(bytes: &[u8]) -> Split<'_> {
    let (mut whole, mut from) = (Vec::new(), 0);
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        whole.push((from as u64, &bytes[from..at]));
        from = at + 1;
    }
    Split { whole, rest: (bytes.len() - from) as u64 }
}

/// The proof records below a folder.
#[derive(Debug)]
pub struct ProofsAt {
    folder: PathBuf,
    /// Ids of cameras that have records, in order.
    pub cameras: Vec<String>,
    /// What the index says of each chain: camera, oldest record, newest.
    pub heads: Vec<(String, u64, Head)>,
    /// Why the index says nothing: whether the newest records are gone nobody can tell then.
    pub no_index: Option<String>,
    pub in_use: bool,
}

/// What is there.
pub fn proofs_at(folder: &Path) -> io::Result<ProofsAt> {
    let entries = RealFiles.list(&folder.join("cameras"))?;
    let cameras = entries.into_iter().filter(|entry| entry.is_folder).map(|entry| entry.name).collect();
    // Before the lines: they may grow meanwhile, and do not shrink.
    let (heads, no_index) = match ledger::heads(&folder.join("ledger.sqlite")) {
        Ok(heads) => (heads, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let lock = File::open(folder.join("lock"));
    let in_use = lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)));
    Ok(ProofsAt { folder: folder.to_owned(), cameras, heads, no_index, in_use })
}

/// What is done with each line: what it says, its file, and its number in it.
type TakeLine<'a> = dyn FnMut(Result<Line, LineError>, &str, u64) + 'a;

impl ProofsAt {
    /// Hands out each line of a camera in order: what it says or why it is none, the file, and the number of the line in it.
    /// Returns the files that end in the middle of a line: a power cut, or a line that is being written.
    pub fn lines(&self, camera: &str, take: &mut TakeLine<'_>) -> io::Result<Vec<PathBuf>> {
        let folder = self.folder.join("cameras").join(camera);
        let mut torn = Vec::new();
        for entry in RealFiles.list(&folder)? {
            if number_of(&entry.name).is_none() || entry.is_folder {
                continue;
            }
            let path = folder.join(&entry.name);
            let bytes = match RealFiles.read(&path, 0, usize::MAX) {
                // It was too old meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                read => read?,
            };
            let lines = split(&bytes);
            for (line, (_, text)) in lines.whole.iter().enumerate() {
                take(Line::parse(text), &entry.name, line as u64 + 1);
            }
            if lines.rest > 0 {
                torn.push(path);
            }
        }
        Ok(torn)
    }
}
