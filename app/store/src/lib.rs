//! The spool: finished fragments on disk, so that neither a restart nor a long outage costs one.
//!
//! ```text
//!  FOLDER/lock                              one process at a time
//!  FOLDER/cameras/CAMERA/0000000017.seg     fragments, appended: the truth
//!  FOLDER/cameras/CAMERA/0000000003.gone    what of a segment that had to go was not in KVS, until somebody was told
//!  FOLDER/stamps/CAMERA/0000000002.stamps   times of what was recorded without a clock, until nothing of that is left
//!  FOLDER/index.sqlite                      where each lies, and what became of it: made anew from the segments
//!  FOLDER/proofs                            records of what was proven, see `proofs.rs`
//! ```
//!
//! **Segments, not a file for each fragment.** A fragment is appended to its camera's segment with one write and is safe after
//! one fsync. A file of its own would need a second fsync, of its folder, for its name; a segment needs that once in 16 MiB.
//! Old footage goes by removing a segment. Each record has lengths and sums of its own, so a damaged one costs itself, and what
//! a power cut tore off is recognised. Behind a start, and after a write that failed, a new segment begins: a file whose end
//! is in doubt is never written to again.
//!
//! **What KVS has is written with the next fragment**, in the same write, or within a few seconds without an fsync. What a
//! power cut costs of that, the upload asks KVS for at the next start.
//!
//! **SQLite is the index and never the truth**: it finds what waits in order, without all names in memory. It is committed
//! some rows at a time and never waited for.
//!
//! **What it costs the flash.** With fragments of 2 s: 1,800 writes and as many fsyncs per camera and hour, and 2 fsyncs for
//! each segment of 16 MiB. Each fragment brings its bytes, a few hundred more (sums, tag, stream header; a test bounds them),
//! and its rows of the index, which are written some at a time.
//!
//! **Room.** `bytes` bounds all segments. What is in KVS gives way first, the oldest first; then, by
//! [`WhenFull::DropOldest`], the oldest of all, each fragment told as [`Dropped`](kvs::upload::Dropped); by
//! [`WhenFull::StopRecording`] new fragments are not taken any more, and wait in memory. What is in KVS stays for `keep`, what
//! waits is given up after `backlog`.
//!
//! **Without a clock** footage has times since boot, in a record of a kind that an older release leaves alone. Once the clock is
//! set, one small file says what is to be added to the times of each run ([`kvs::stamping`]): it is there for good before anybody
//! gets the footage with its time. Whoever reads a fragment gets it stamped; it is never written again, so a power cut at any
//! moment leaves it either without a time or with the one that it keeps. While it has no time it counts as being as old as the latest real time before it, and is never too old.
//!
//! Before a segment goes that holds what is not in KVS, its names are written down beside it, so that neither a power cut nor
//! a lost index makes a gap that nobody knows of.
//!
//! **Footage can be sealed** (`seal.rs`) with a key that is not on this disk. Behind a switch, plain and sealed segments stand side
//! by side. Without the key of what is there the spool does not open, rather than give up what it cannot read.
//!
//! Everything works on a [`Files`], where tests cut the power at any operation (`power_cuts.rs`). One thread does all of it;
//! whoever asks waits for nothing.

mod files;
mod finding;
mod gone;
mod index;
mod keeper;
mod look;
mod proofs;
mod record;
mod seal;
mod segment;
mod spool;
mod stamps;
mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

use std::path::PathBuf;
use std::time::Duration;

pub use files::{Entry, Files, NewFile, RealFiles};
pub use finding::{Finding, FindingKind};
pub use look::{Checked, CheckedCamera, Footage, Handed, check, footage, repair};
pub use proofs::{CameraProofs, ProofOptions, Proofs, ProofsAt, Resumed, proofs_at};
pub use seal::{KeyError, KeyId, Keys};
pub use spool::{CameraSpool, OpenError, Spool};
pub use store::{Store, StoreError};

/// A segment ends at this size.
const LARGEST_SEGMENT: u64 = 16 << 20;

/// What an operator decides about a spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub folder: PathBuf,
    /// Of all segments together.
    pub bytes: u64,
    /// How long what is in KVS stays as a local recording.
    pub keep: Duration,
    /// How long what is not in KVS waits for it.
    pub backlog: Duration,
    pub when_full: WhenFull,
    /// A segment ends here.
    pub segment_bytes: u64,
    /// Keys with which footage is sealed; absent: it is not.
    pub key_file: Option<PathBuf>,
}

/// What gives way when there is no more room for what is not in KVS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The oldest footage.
    DropOldest,
    /// The newest.
    StopRecording,
}

impl Options {
    /// For so many cameras. Each of them has a segment that grows and cannot go.
    pub fn new(folder: impl Into<PathBuf>, bytes: u64, cameras: usize) -> Self {
        let each = bytes / (8 * cameras.max(1) as u64);
        Self {
            folder: folder.into(),
            bytes,
            keep: Duration::from_secs(24 * 3600),
            backlog: Duration::from_secs(168 * 3600),
            when_full: WhenFull::DropOldest,
            segment_bytes: each.clamp(256 << 10, LARGEST_SEGMENT),
            key_file: None,
        }
    }

    fn cameras(&self) -> PathBuf {
        self.folder.join("cameras")
    }

    /// Times of what a camera recorded without a clock.
    fn stamps(&self, camera: &str) -> PathBuf {
        self.folder.join("stamps").join(camera)
    }

    fn index(&self) -> PathBuf {
        self.folder.join("index.sqlite")
    }

    fn lock(&self) -> PathBuf {
        self.folder.join("lock")
    }
}

#[cfg(test)]
mod keeper_tests;
#[cfg(test)]
mod power_cuts;
#[cfg(test)]
mod seal_tests;
#[cfg(test)]
mod tests;
