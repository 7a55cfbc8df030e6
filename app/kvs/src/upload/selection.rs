//! Which footage is wanted, where not all of it is: stretches of time, of what is on disk and of what is still to come.

use std::collections::VecDeque;

/// Stretches that are remembered for footage to come; a longer list gives up the oldest.
const MOST: usize = 256;
/// A stretch is remembered so long after footage behind it was seen: a fragment lasts 10 s at most.
const LATE_MS: u64 = 60_000;

/// From and to, producer time in ms, both included.
pub(super) type Stretch = (u64, u64);

/// What is wanted of the footage of a camera.
#[derive(Debug, Default)]
pub(super) struct Selection {
    wanted: VecDeque<Stretch>,
    /// Of these, what is on disk is still to be asked for.
    recalls: VecDeque<Stretch>,
    /// Asked for, and not answered.
    pub(super) recalling: Option<Stretch>,
}

impl Selection {
    pub(super) fn want(&mut self, (from, to): Stretch) {
        if from > to || self.wanted.iter().any(|one| one.0 <= from && to <= one.1) {
            return;
        }
        self.recalls.push_back((from, to));
        // One stretch of what is told bit by bit.
        let (mut from, mut to) = (from, to);
        self.wanted.retain(|one| {
            let apart = one.1 < from || to < one.0;
            if !apart {
                (from, to) = (from.min(one.0), to.max(one.1));
            }
            apart
        });
        self.wanted.push_back((from, to));
        if self.wanted.len() > MOST {
            self.wanted.pop_front();
        }
    }

    /// Whether footage of this time is wanted. What is long past is forgotten by it.
    pub(super) fn wants(&mut self, start: u64, end: u64) -> bool {
        self.wanted.retain(|one| one.1.saturating_add(LATE_MS) >= start);
        self.wanted.iter().any(|one| one.0 <= end && start <= one.1)
    }

    /// The next to ask the disk for.
    pub(super) fn next_recall(&mut self) -> Option<Stretch> {
        if self.recalling.is_none() {
            self.recalling = self.recalls.pop_front();
            return self.recalling;
        }
        None
    }

    /// The disk has answered; with `again` it has more, or could not say.
    pub(super) fn recalled(&mut self, again: bool) {
        let recalling = self.recalling.take().filter(|_| again);
        recalling.into_iter().for_each(|stretch| self.recalls.push_front(stretch));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_grow_together_and_each_is_asked_for_once() {
        let mut selection = Selection::default();
        selection.want((10_000, 20_000));
        selection.want((12_000, 18_000));
        assert_eq!(selection.next_recall(), Some((10_000, 20_000)));
        assert_eq!(selection.next_recall(), None, "one at a time");
        selection.recalled(true);
        assert_eq!(selection.next_recall(), Some((10_000, 20_000)), "there is more");
        selection.recalled(false);
        assert!(selection.recalls.is_empty(), "the second lies in the first");
        selection.want((15_000, 30_000));
        selection.want((31_000, 32_000));
        assert_eq!(selection.wanted, [(10_000, 30_000), (31_000, 32_000)]);
        for (start, end, wanted) in [
            (8_000, 9_999, false),
            (8_000, 10_000, true),
            (29_000, 31_000, true),
            (32_000, 33_000, true),
            (32_001, 33_000, false),
        ] {
            assert_eq!(selection.wants(start, end), wanted, "{start} to {end}");
        }
        assert!(!selection.wants(91_000, 92_000));
        assert_eq!(selection.wanted, [(31_000, 32_000)], "who is long past is forgotten");
        selection.want((9, 3));
        assert_eq!(selection.wanted.len(), 1);
        (0..1000).for_each(|n| selection.want((100_000 + n * 10, 100_001 + n * 10)));
        assert_eq!(selection.wanted.len(), MOST);
    }
}
