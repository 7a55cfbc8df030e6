//! Fragments to be fetched by number, in batches, so that one that is refused does not block the others.
//!
//! A request that is refused as a whole, or an answer that cannot be read, is asked again in halves, down to the one number
//! that is to blame. What an answer leaves out behind a failure notice is asked again without the failed one.

use std::collections::{BTreeMap, VecDeque};

use crate::read::chunk::{self, Chunk};
use crate::read::{ReadFailure, ReadFailureKind};
use crate::{FragmentId, FragmentNumber};

/// What one GetMediaForFragmentList returned.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    pub chunks: Vec<Chunk>,
    /// What the service could not return, in its own words.
    pub notices: Vec<chunk::Failure>,
    /// Why there is nothing more.
    pub failure: Option<ReadFailure>,
}

/// Fragments that an answer does not hold whole.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// The service does not have them.
    pub absent: Vec<FragmentId>,
    /// There is something of that number, and it cannot be read to its end.
    pub unread: Vec<FragmentId>,
}

/// The numbers of one round that are still to be asked for.
#[derive(Debug, Default)]
pub struct Fetches {
    ids: BTreeMap<FragmentNumber, FragmentId>,
    waiting: VecDeque<Vec<FragmentNumber>>,
    asked: Vec<FragmentNumber>,
}

impl Fetches {
    /// Adds fragments, `batch` of them to a request.
    pub fn add(&mut self, fragments: &[(FragmentId, FragmentNumber)], batch: usize) {
        self.ids.extend(fragments.iter().map(|(id, number)| (*number, *id)));
        let batches = fragments.chunks(batch.max(1));
        self.waiting.extend(batches.map(|batch| batch.iter().map(|(_, number)| *number).collect()));
    }

    /// The next numbers to ask for; then [`answered`](Self::answered).
    pub fn next_batch(&mut self) -> Option<Vec<FragmentNumber>> {
        self.asked = self.waiting.pop_front()?;
        Some(self.asked.clone())
    }

    /// Whom the open question is about.
    pub fn asked(&self) -> impl Iterator<Item = FragmentId> {
        self.asked.iter().filter_map(|number| self.id(*number))
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whose number it is.
    pub fn id(&self, number: FragmentNumber) -> Option<FragmentId> {
        self.ids.get(&number).copied()
    }

    /// What the answer says of fragments that it does not hold whole. A failure that is not about single fragments ends the
    /// round: what was not read then is neither found nor absent.
    pub fn answered(&mut self, fetched: &Fetched) -> Answered {
        let mut rest = std::mem::take(&mut self.asked);
        let before = rest.len();
        let whole: Vec<_> =
            fetched.chunks.iter().filter(|chunk| chunk.complete).filter_map(|c| c.start.number).collect();
        let refused: Vec<_> = fetched.notices.iter().filter_map(|notice| notice.number).collect();
        let mut absent: Vec<_> = rest.iter().copied().filter(|number| refused.contains(number)).collect();
        rest.retain(|number| !whole.contains(number) && !refused.contains(number));
        let mut unread = None;
        let failure = fetched.failure.as_ref();
        if failure.is_some_and(|failure| !failure.is_about_fragments()) {
            self.waiting.clear();
        } else {
            match rest[..] {
                [] => {}
                _ if rest.len() < before => self.waiting.push_front(rest),
                [number] => {
                    let broken = failure.is_some_and(|failure| failure.kind == ReadFailureKind::Unreadable);
                    if broken || !fetched.chunks.is_empty() {
                        unread = Some(number);
                    } else {
                        absent.push(number);
                    }
                }
                _ => {
                    let second = rest.split_off(rest.len() / 2);
                    self.waiting.push_front(second);
                    self.waiting.push_front(rest);
                }
            }
        }
        let ids = |numbers: &[FragmentNumber]| numbers.iter().filter_map(|number| self.id(*number)).collect();
        let answered = Answered { absent: ids(&absent), unread: ids(unread.as_slice()) };
        if self.waiting.is_empty() {
            self.ids.clear();
        }
        answered
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use health::Reason;
    use proptest::prelude::*;

    use super::*;
    use crate::RunId;
    use crate::read::chunk::ChunkStart;
    use crate::testing::bare_chunk;

    fn fragment(n: u64) -> (FragmentId, FragmentNumber) {
        (FragmentId { run: RunId::new(1), sequence: n }, FragmentNumber::new(n, 5, 1))
    }

    fn chunk(number: FragmentNumber, complete: bool) -> Chunk {
        let (number, tracks) = (Some(number), Arc::default());
        let start = ChunkStart { number, server_timestamp_ms: None, producer_timestamp_ms: None, tracks };
        bare_chunk(start, complete)
    }

    fn failure(kind: ReadFailureKind) -> Option<ReadFailure> {
        Some(ReadFailure::new(Reason::VerifyFailed, "no", kind))
    }

    /// How a service may answer for a number that it does not have.
    #[derive(Clone, Copy, Debug)]
    enum Manner {
        RefusesAll,
        NoticeAndGoesOn,
        NoticeAndEnds,
        LeavesOut,
        EndsWithoutAWord,
    }

    fn answer(batch: &[FragmentNumber], gone: &BTreeSet<u64>, manner: Manner) -> Fetched {
        let is_gone = |number: &FragmentNumber| gone.contains(&number.sequence());
        let mut fetched = Fetched::default();
        if matches!(manner, Manner::RefusesAll) && batch.iter().any(is_gone) {
            fetched.failure = failure(ReadFailureKind::Refused);
            return fetched;
        }
        for number in batch {
            if !is_gone(number) {
                fetched.chunks.push(chunk(*number, true));
                continue;
            }
            let notice =
                chunk::Failure { number: Some(*number), code: "4000".to_owned(), message: String::new() };
            match manner {
                Manner::NoticeAndGoesOn => fetched.notices.push(notice),
                Manner::NoticeAndEnds => {
                    fetched.notices.push(notice);
                    break;
                }
                Manner::EndsWithoutAWord => break,
                Manner::LeavesOut | Manner::RefusesAll => {}
            }
        }
        fetched
    }

    proptest! {
        /// However the service refuses, exactly what is gone is called absent, and everything else is read.
        #[test]
        fn what_is_gone_does_not_block_what_is_there(
            gone in prop::collection::btree_set(0_u64..10, 0..10),
            batch in 1_usize..12,
            manner in prop::sample::select(&[
                Manner::RefusesAll, Manner::NoticeAndGoesOn, Manner::NoticeAndEnds, Manner::LeavesOut, Manner::EndsWithoutAWord,
            ][..]),
        ) {
            let mut fetches = Fetches::default();
            fetches.add(&(0..10).map(fragment).collect::<Vec<_>>(), batch);
            let (mut read, mut absent, mut calls) = (BTreeSet::new(), BTreeSet::new(), 0);
            while let Some(batch) = fetches.next_batch() {
                let fetched = answer(&batch, &gone, manner);
                read.extend(fetched.chunks.iter().filter_map(|chunk| Some(chunk.start.number?.sequence())));
                absent.extend(fetches.answered(&fetched).absent.iter().map(|id| id.sequence));
                calls += 1;
                prop_assert!(calls < 40);
            }
            prop_assert_eq!(&absent, &gone);
            prop_assert_eq!(read.len(), 10 - gone.len());
        }
    }

    #[test]
    fn a_failure_that_is_not_about_fragments_ends_the_round_and_calls_nothing_absent() {
        for kind in [
            ReadFailureKind::Soon,
            ReadFailureKind::Slower,
            ReadFailureKind::Operator,
            ReadFailureKind::TooManyReaders,
        ] {
            let mut fetches = Fetches::default();
            fetches.add(&[1, 2, 3].map(fragment), 2);
            fetches.next_batch();
            let fetched = Fetched { failure: failure(kind), ..Fetched::default() };
            assert_eq!(fetches.answered(&fetched), Answered::default());
            assert!(fetches.is_empty(), "{kind:?}");
        }
    }

    #[test]
    fn what_is_cut_or_unreadable_is_not_absent() {
        let (_, number) = fragment(1);
        let cut = Fetched { chunks: vec![chunk(number, false)], ..Fetched::default() };
        let unreadable = Fetched { failure: failure(ReadFailureKind::Unreadable), ..Fetched::default() };
        for fetched in [cut, unreadable] {
            let mut fetches = Fetches::default();
            fetches.add(&[fragment(1)], 10);
            fetches.next_batch();
            let unread = Answered { absent: Vec::new(), unread: vec![fragment(1).0] };
            assert_eq!((fetches.answered(&fetched), fetches.next_batch()), (unread, None));
        }
    }

    #[test]
    fn an_unreadable_answer_is_asked_for_one_by_one() {
        let mut fetches = Fetches::default();
        fetches.add(&[1, 2].map(fragment), 10);
        fetches.next_batch();
        let unreadable = Fetched { failure: failure(ReadFailureKind::Unreadable), ..Fetched::default() };
        fetches.answered(&unreadable);
        assert_eq!(fetches.next_batch(), Some(vec![fragment(1).1]));
        fetches.answered(&unreadable);
        assert_eq!(fetches.next_batch(), Some(vec![fragment(2).1]));
    }
}
