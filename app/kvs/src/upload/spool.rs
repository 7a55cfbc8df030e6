//! What the upload asks of a spool on disk, and what the spool answers. The crate `store` is one.
//!
//! Answers to one camera come in the order of its requests, and a fragment is written before anything asked for later is done.

use std::sync::Arc;

use bytes::Bytes;
use media::ProducerTimestamp;

use crate::fragmenter::{FragmentEnd, StreamHeader};
use crate::stamping::{RunStamp, Trusted};
use crate::{FragmentId, FragmentNumber};

/// Where a fragment lies in the spool of its camera; those recorded later lie behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub segment: u64,
    pub offset: u64,
}

/// A complete fragment with its bytes.
#[derive(Clone, Debug)]
pub struct Whole {
    pub header: Arc<StreamHeader>,
    /// Its cluster, in order.
    pub pieces: Vec<Bytes>,
    pub end: FragmentEnd,
}

impl Whole {
    pub fn id(&self) -> FragmentId {
        self.end.summary.id
    }

    /// All of its cluster but the payloads, where the pieces are those of the fragmenter.
    pub fn heads(&self) -> Vec<u8> {
        let is_head = |at: usize| at == 0 || !at.is_multiple_of(2);
        let heads = self.pieces.iter().enumerate().filter(|(at, _)| is_head(*at));
        heads.flat_map(|(_, head)| head.iter().copied()).collect()
    }
}

/// A fragment on disk, without its bytes.
#[derive(Clone, Debug)]
pub struct Spooled {
    pub place: Place,
    pub header: Arc<StreamHeader>,
    pub end: FragmentEnd,
}

/// A fragment that is gone from the disk although it was not in KVS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    pub id: FragmentId,
    pub place: Place,
    pub start: ProducerTimestamp,
    /// Time of its last block.
    pub end: ProducerTimestamp,
    /// Of its cluster.
    pub bytes: u64,
}

/// What became of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// KVS keeps it.
    Persisted(Option<FragmentNumber>),
    /// KVS will never take it: it is set aside.
    Refused,
    /// It was a local recording, and is to be sent.
    Wanted,
}

/// Fragments that wait on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    pub fragments: usize,
    pub bytes: u64,
}

/// To the spool of one camera.
#[derive(Clone, Debug)]
pub enum Request {
    /// Keep it; with times since boot it waits for its [stamp](Self::Stamp). [`Answer::Written`] once it is on disk for good, or [`Answer::NotWritten`].
    Write(Whole),
    /// Likewise, as a local recording: it is not to be sent, unless it is [recalled](Self::Recall).
    Keep(Whole),
    /// Of the local recordings with a block from `from_ms` to `to_ms`, both included, the first `most` are to be sent from now
    /// on: [`Answer::Recalled`], or [`Answer::NotRecalled`].
    Recall { from_ms: u64, to_ms: u64, most: usize },
    /// The clock is set: whatever was recorded without one gets its time ([`stamping`](crate::stamping)), and waits to be sent,
    /// or is a local recording, from now on. [`Answer::Stamped`] once that is on disk for good, or [`Answer::NotStamped`].
    Stamp(Trusted),
    /// It need not be sent any more; no answer.
    Settle(FragmentId, Settled),
    /// [`Answer::Read`], or [`Answer::NotRead`].
    Read(FragmentId),
    /// What waits behind `after`, in order of recording, `most` at most: [`Answer::Listed`].
    List { after: Option<Place>, most: usize },
}

/// From the spool of one camera.
#[derive(Clone, Debug)]
pub enum Answer {
    Written {
        id: FragmentId,
        place: Place,
    },
    NotWritten {
        id: FragmentId,
    },
    /// Its cluster; absent where the disk does not return it as it was written.
    Read {
        id: FragmentId,
        cluster: Option<Bytes>,
    },
    /// It cannot be said now.
    NotRead {
        id: FragmentId,
    },
    /// `left`: what waits behind the last of them.
    Listed {
        fragments: Vec<Spooled>,
        left: Waiting,
    },
    /// What waits cannot be said now.
    NotListed,
    /// `left`: so many more are asked for in the same stretch.
    Recalled {
        fragments: Vec<Spooled>,
        left: usize,
    },
    /// What was asked for cannot be said now.
    NotRecalled,
    /// With how many fragments each stamp is for.
    Stamped(Vec<(RunStamp, usize)>),
    /// It cannot be written down now.
    NotStamped,
    /// Not asked for: room had to be made.
    Dropped(Vec<Dropped>),
}
