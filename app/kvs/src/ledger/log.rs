//! The append-only log of a ledger, bounded, read by cursors.

use std::collections::VecDeque;

use super::Entry;

/// Where a reader stands. Of one ledger; each reader has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(u64);

/// What one reading found.
#[derive(Debug)]
pub struct Read<'a> {
    /// Entries that are gone: the reader came too late for them.
    pub missed: u64,
    /// Oldest first.
    pub entries: std::collections::vec_deque::Iter<'a, Entry>,
}

#[derive(Debug)]
pub(super) struct Log {
    most: usize,
    entries: VecDeque<Entry>,
    /// Number of the first entry that is still there.
    first: u64,
}

impl Log {
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), entries: VecDeque::new(), first: 0 }
    }

    pub(super) fn push(&mut self, entry: Entry) {
        if self.entries.len() == self.most {
            self.entries.pop_front();
            self.first += 1;
        }
        self.entries.push_back(entry);
    }

    pub(super) fn start(&self) -> Cursor {
        Cursor(self.first)
    }

    pub(super) fn end(&self) -> Cursor {
        Cursor(self.first + self.entries.len() as u64)
    }

    pub(super) fn read(&self, cursor: &mut Cursor) -> Read<'_> {
        let from = cursor.0.clamp(self.first, self.end().0);
        let missed = from - cursor.0.min(from);
        *cursor = self.end();
        let skip = usize::try_from(from - self.first).unwrap_or(usize::MAX);
        Read { missed, entries: self.entries.range(skip.min(self.entries.len())..) }
    }
}
