//! Where the bytes of fragments come from: the seam between recording and sending.
//!
//! The upload asks a source for what it holds and for single pieces, and tells it what need not be held any longer. A
//! fragment may still grow while it is sent. [`MemorySource`] keeps everything in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use media::ProducerTimestamp;

use crate::FragmentId;
use crate::fragmenter::{FragmentEnd, FragmentStart, Part, StreamHeader};

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
}

/// Holds fragments until they are released.
pub trait FragmentSource {
    /// Takes what the fragmenter made, in order. Parts of a fragment that was released while it grew are thrown away.
    fn part(&mut self, part: Part);

    /// All that it holds, oldest first.
    fn held(&self) -> impl DoubleEndedIterator<Item = Held<'_>> + ExactSizeIterator;

    fn get(&self, id: FragmentId) -> Option<Held<'_>>;

    /// Piece `index` of the cluster, without a copy; absent where the fragment has not grown so far, or where the bytes are
    /// still being fetched.
    fn piece(&self, id: FragmentId, index: usize) -> Option<Bytes>;

    /// It is not needed any longer. Returns the bytes that this freed; `None` if it was not held.
    fn release(&mut self, id: FragmentId) -> Option<usize>;

    /// Of all clusters.
    fn bytes(&self) -> usize;
}

/// All bytes in memory, as the camera's own buffers.
#[derive(Debug, Default)]
pub struct MemorySource {
    /// Of one run, so in the order of their names.
    fragments: VecDeque<Fragment>,
    bytes: usize,
}

#[derive(Debug)]
struct Fragment {
    id: FragmentId,
    timecode: ProducerTimestamp,
    header: Arc<StreamHeader>,
    pieces: Vec<Bytes>,
    bytes: usize,
    end: Option<FragmentEnd>,
}

impl MemorySource {
    fn place(&self, id: FragmentId) -> Option<usize> {
        self.fragments.binary_search_by_key(&id, |fragment| fragment.id).ok()
    }

    /// The one that grows: only the newest can.
    fn growing(&mut self) -> Option<&mut Fragment> {
        self.fragments.back_mut().filter(|fragment| fragment.end.is_none())
    }
}

impl FragmentSource for MemorySource {
    fn part(&mut self, part: Part) {
        match part {
            Part::Start(FragmentStart { id, timecode, header, head, .. }) => {
                // A name that does not follow would break the order; names of one run always do.
                if self.fragments.back().is_some_and(|newest| newest.id >= id) {
                    return;
                }
                let (bytes, pieces) = (head.len(), vec![head]);
                self.bytes += bytes;
                self.fragments.push_back(Fragment { id, timecode, header, pieces, bytes, end: None });
            }
            Part::Block { head, payload } => {
                if let Some(fragment) = self.growing() {
                    let length = head.len() + payload.len();
                    fragment.pieces.extend([head, payload]);
                    fragment.bytes += length;
                    self.bytes += length;
                }
            }
            Part::End(end) => {
                if let Some(fragment) = self.growing().filter(|fragment| fragment.id == end.summary.id) {
                    fragment.end = Some(end);
                }
            }
        }
    }

    fn held(&self) -> impl DoubleEndedIterator<Item = Held<'_>> + ExactSizeIterator {
        self.fragments.iter().map(Fragment::held)
    }

    fn get(&self, id: FragmentId) -> Option<Held<'_>> {
        Some(self.fragments[self.place(id)?].held())
    }

    fn piece(&self, id: FragmentId, index: usize) -> Option<Bytes> {
        self.fragments[self.place(id)?].pieces.get(index).cloned()
    }

    fn release(&mut self, id: FragmentId) -> Option<usize> {
        let fragment = self.fragments.remove(self.place(id)?)?;
        self.bytes -= fragment.bytes;
        Some(fragment.bytes)
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Fragment {
    fn held(&self) -> Held<'_> {
        let Self { id, timecode, header, pieces, bytes, end } = self;
        let (pieces, end) = (pieces.len(), end.as_ref());
        Held { id: *id, timecode: *timecode, header, bytes: *bytes, pieces, end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::stream;

    #[test]
    fn pieces_are_the_cameras_own_buffers_and_bytes_add_up() {
        let parts = stream(3);
        let mut source = MemorySource::default();
        parts.iter().cloned().for_each(|part| source.part(part));
        let sent: Vec<_> = parts
            .iter()
            .flat_map(|part| match part {
                Part::Start(start) => vec![&start.head],
                Part::Block { head, payload } => vec![head, payload],
                Part::End(_) => vec![],
            })
            .collect();
        let ids: Vec<_> = source.held().map(|held| (held.id, held.pieces)).collect();
        let pieces = ids.iter().flat_map(|&(id, pieces)| (0..pieces).map(move |index| (id, index)));
        let kept: Vec<_> = pieces.map(|(id, index)| source.piece(id, index).expect("it is there")).collect();
        assert_eq!(
            kept.iter().map(|bytes| bytes.as_ptr()).collect::<Vec<_>>(),
            sent.iter().map(|bytes| bytes.as_ptr()).collect::<Vec<_>>()
        );
        assert_eq!(source.bytes(), sent.iter().map(|bytes| bytes.len()).sum::<usize>());
        for (id, _) in ids {
            assert!(source.release(id).is_some());
            assert_eq!(source.release(id), None);
        }
        assert_eq!((source.bytes(), source.held().count()), (0, 0));
    }

    #[test]
    fn the_rest_of_a_fragment_that_was_released_while_it_grew_is_thrown_away() {
        let mut parts = stream(2).into_iter();
        let mut source = MemorySource::default();
        parts.by_ref().take(3).for_each(|part| source.part(part));
        let first = source.held().next().map(|held| held.id).expect("one grows");
        source.release(first);
        parts.for_each(|part| source.part(part));
        assert_eq!(source.held().map(|held| held.id.sequence).collect::<Vec<_>>(), [first.sequence + 1]);
        assert_eq!(source.bytes(), source.held().map(|held| held.bytes).sum::<usize>());
    }
}
