//! Where the bytes of fragments come from: the seam between recording and sending.
//!
//! The upload asks a source for what it holds and for single pieces, and tells it what need not be held any longer. A
//! fragment may still grow while it is sent. The one source is [`SpoolSource`](super::SpoolSource), with a spool on disk
//! behind it or without.

use std::sync::Arc;

use bytes::Bytes;
use media::ProducerTimestamp;

use crate::FragmentId;
use crate::fragmenter::{FragmentEnd, Part, StreamHeader};

/// A fragment that a source holds.
#[derive(Clone, Copy, Debug)]
pub struct Held<'a> {
    pub id: FragmentId,
    pub timecode: ProducerTimestamp,
    pub header: &'a Arc<StreamHeader>,
    /// Of its cluster, so far.
    pub bytes: usize,
    /// Pieces of its cluster, so far.
    pub pieces: usize,
    /// Absent while it grows.
    pub end: Option<&'a FragmentEnd>,
    /// It is on disk: to give it up makes no room in memory.
    pub stored: bool,
}

/// Holds fragments until they are released.
pub trait FragmentSource {
    /// Takes what the fragmenter made, in order. Parts of a fragment that was released while it grew are thrown away.
    fn part(&mut self, part: Part);

    /// What is to be sent now, oldest first; more may wait [behind](Self::behind) it.
    fn held(&self) -> impl DoubleEndedIterator<Item = Held<'_>> + ExactSizeIterator;

    /// What is in memory and not to be sent yet, because something older waits elsewhere; oldest first.
    fn behind(&self) -> impl Iterator<Item = Held<'_>>;

    fn get(&self, id: FragmentId) -> Option<Held<'_>>;

    /// Piece `index` of the cluster, without a copy; absent where the fragment has not grown so far, or where the bytes are
    /// still being fetched.
    fn piece(&self, id: FragmentId, index: usize) -> Option<Bytes>;

    /// It is not needed any longer. Returns the bytes of its cluster; `None` if it was not held.
    fn release(&mut self, id: FragmentId) -> Option<usize>;

    /// Of all clusters in memory.
    fn bytes(&self) -> usize;

    /// Fragments and bytes that wait for their upload, wherever they lie.
    fn all(&self) -> (usize, usize);
}
