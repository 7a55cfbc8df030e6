//! What was found wrong in the folder of a spool: what, where, and what to do about it.

use std::fmt;
use std::path::PathBuf;

use kvs::FragmentId;

use crate::seal::KeyId;

/// One thing that is not as it should be. It costs what it says, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub path: PathBuf,
    pub kind: FindingKind,
    /// What was found, against what was expected.
    pub found: String,
    /// What to do; absent where nothing is to be done.
    pub fix: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// No file of ours; left alone.
    Foreign,
    /// Of a later release; left alone.
    Later,
    /// The end of a file that a power cut tore off; nothing in it was ever called written.
    Torn,
    /// Sealed with a key that is not there; left alone.
    Locked,
    /// Footage that was written is damaged or missing.
    Damaged,
    /// The index was damaged or missing, and made anew from the segments.
    Index,
    /// The disk does not do as it is told.
    Disk,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.found)?;
        match self.fix {
            Some(fix) => write!(f, "; {fix}"),
            None => Ok(()),
        }
    }
}

const DAMAGED: &str = "look at the disk; it may be worn out";

impl Finding {
    fn new(kind: FindingKind, path: PathBuf, found: impl Into<String>, fix: Option<&'static str>) -> Self {
        Self { path, kind, found: found.into(), fix }
    }

    pub(crate) fn foreign(path: PathBuf) -> Self {
        let fix = "move it elsewhere: this folder belongs to the spool";
        Self::new(FindingKind::Foreign, path, "no file of the spool, left alone", Some(fix))
    }

    pub(crate) fn later_segment(path: PathBuf, version: u32) -> Self {
        let found = format!("a segment of version {version}, this release reads up to 2; left alone");
        Self::new(FindingKind::Later, path, found, Some("install the release that wrote it"))
    }

    pub(crate) fn no_segment(path: PathBuf) -> Self {
        let found = "does not begin as a segment, left alone";
        Self::new(FindingKind::Damaged, path, found, Some("move it elsewhere, and look at the disk"))
    }

    pub(crate) fn torn(path: PathBuf, from: u64, length: u64) -> Self {
        let found = format!(
            "the write at byte {from} was never finished, {} bytes of it are dropped",
            length.saturating_sub(from)
        );
        Self::new(FindingKind::Torn, path, found, None)
    }

    pub(crate) fn damaged(path: PathBuf, from: u64, to: u64) -> Self {
        Self::new(FindingKind::Damaged, path, format!("bytes {from} to {to} are no record"), Some(DAMAGED))
    }

    pub(crate) fn damaged_lines(path: PathBuf, lines: u64) -> Self {
        let found = format!("{lines} lines are no proof records; the next record says so");
        Self::new(FindingKind::Damaged, path, found, Some("run kvs-edge proof check, and look at the disk"))
    }

    pub(crate) fn shortened(path: PathBuf, known: u64, length: u64) -> Self {
        let found = format!("has {length} bytes, of which {known} were in the index");
        Self::new(FindingKind::Damaged, path, found, Some(DAMAGED))
    }

    pub(crate) fn missing(path: PathBuf) -> Self {
        let found = "is missing, and held footage that is not in KVS";
        Self::new(FindingKind::Damaged, path, found, Some("nobody but kvs-edge may remove files in here"))
    }

    pub(crate) fn unreadable(path: PathBuf, id: FragmentId, because: Option<String>) -> Self {
        let because = because.unwrap_or_else(|| "it is not as it was written".to_owned());
        let found = format!("fragment {id} cannot be read: {because}");
        Self::new(FindingKind::Damaged, path, found, Some(DAMAGED))
    }

    pub(crate) fn index_anew(path: PathBuf, because: &dyn std::error::Error, aside: Option<PathBuf>) -> Self {
        let aside =
            aside.map(|aside| format!("; the old one is now {}", aside.display())).unwrap_or_default();
        let found = format!("{}, made anew from the segments{aside}", health::chain(because));
        Self::new(FindingKind::Index, path, found, None)
    }

    pub(crate) fn index_damaged(path: PathBuf, because: &dyn std::error::Error) -> Self {
        let found = health::chain(because);
        Self::new(FindingKind::Index, path, found, Some("the next start of kvs-edge makes it anew"))
    }

    pub(crate) fn index_in_memory(path: PathBuf, because: &dyn std::error::Error) -> Self {
        let found = format!("{}, kept in memory until the next start", health::chain(because));
        Self::new(FindingKind::Index, path, found, Some("free space on the disk, or look at it"))
    }

    pub(crate) fn locked(path: PathBuf, id: KeyId) -> Self {
        let found = format!("is sealed with key {id}, which was not given: nobody can say what is in it");
        let fix = "give it by key_file in [spool], or --key-file";
        Self::new(FindingKind::Locked, path, found, Some(fix))
    }

    pub(crate) fn cannot_tidy(error: &crate::StoreError) -> Self {
        let path = match error {
            crate::StoreError::Io { path, .. } => path.clone(),
            _ => PathBuf::new(),
        };
        Self::new(
            FindingKind::Disk,
            path,
            format!("old footage cannot be removed: {}", health::chain(error)),
            Some(error.fix()),
        )
    }
}
