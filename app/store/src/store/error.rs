//! Why the spool did not do what it was asked for.

use std::io;
use std::path::{Path, PathBuf};

use crate::index::IndexError;
use crate::seal::{KeyError, KeyId};

/// Why a fragment is not on disk.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Index(#[from] Box<dyn std::error::Error + Send + Sync>),
    #[error("the spool holds {bytes} bytes, as many as it may")]
    Full { bytes: u64 },
    #[error("the disk failed a moment ago and is left alone for {left_s} s")]
    Resting { left_s: u64 },
    #[error("the folder of proof records was opened meanwhile, and they go on there")]
    Reopened,
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("{path} is sealed with key {id}, which the box does not have")]
    Locked { path: PathBuf, id: KeyId },
}

impl From<IndexError> for StoreError {
    fn from(error: IndexError) -> Self {
        Self::Index(Box::new(error))
    }
}

pub(crate) fn io_error<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |source| StoreError::Io { what, path: path.to_owned(), source }
}

impl StoreError {
    pub(super) fn is_no_space(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    /// What to change.
    pub fn fix(&self) -> &'static str {
        match self {
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "free space on this disk, or lower bytes in [spool]"
                }
                io::ErrorKind::ReadOnlyFilesystem => "mount the disk for writing; it may be worn out",
                io::ErrorKind::PermissionDenied => "give kvs-edge's user the folder of [spool]",
                _ => "look at the disk; it may be worn out",
            },
            Self::Index(_) => "look at the disk, and run kvs-edge spool check",
            Self::Full { .. } => "raise bytes in [spool], or choose when_full = \"drop-oldest\"",
            Self::Resting { .. } => "look at the disk",
            Self::Reopened => "nothing: it is written again",
            Self::Key(error) => error.fix(),
            Self::Locked { .. } => {
                "add that key as a further line to the file of key_file or key_credential in [spool]; where it is gone, so is this \
                 footage: then move the folder elsewhere"
            }
        }
    }
}
