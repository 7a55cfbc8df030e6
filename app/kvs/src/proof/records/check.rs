//! Finds what was done to a chain after it was written.

use std::collections::BTreeMap;

use super::chain::{Entry, Head, Line, LineError};
use crate::identity::Sha256Sum;

/// Faults that are told one by one; more are counted.
const MOST_FAULTS: usize = 1000;

/// What is wrong with a chain, and with which record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Fault {
    #[error("record {n} was changed: its sum is not that of its text")]
    Changed { n: u64 },
    #[error("record {n} was replaced: record {} holds on to another one of this number", n + 1)]
    Replaced { n: u64 },
    #[error("records {from} to {to} were removed")]
    Removed { from: u64, to: u64 },
    #[error("record {n} was moved: it stands behind record {behind}")]
    Moved { n: u64, behind: u64 },
    #[error("record {n} was added: there is another one of this number")]
    Added { n: u64 },
    #[error("line {line} of {place} is no record: {error}")]
    NoRecord { place: String, line: u64, error: String },
    #[error("the newest records are gone: the chain ends with {found}, and record {expected} was written")]
    Shortened { found: u64, expected: u64 },
    #[error("record {n} is not the one that was told: sum {found}, expected {expected}")]
    OtherHead { n: u64, found: String, expected: String },
    #[error("record {n} belongs to the chain of {found}, expected {expected}")]
    OtherChain { n: u64, found: String, expected: String },
}

#[derive(Clone, Copy)]
struct Seen {
    sum: Sha256Sum,
    prev: Sha256Sum,
    whole: bool,
    /// It says itself that something before it is gone.
    is_break: bool,
}

/// Reads a chain from its beginning, file by file, and tells at the end.
#[derive(Default)]
pub struct Checker {
    seen: BTreeMap<u64, Seen>,
    last: Option<u64>,
    name: Option<String>,
    faults: Vec<Fault>,
    lines: u64,
    breaks: u64,
}

impl Checker {
    pub fn new() -> Self {
        Self::default()
    }

    /// The next line, of the file `place`, where it is line `line`.
    pub fn line(&mut self, parsed: Result<&Line, &LineError>, place: &str, line: u64) {
        self.lines += 1;
        let found = match parsed {
            Ok(found) => found,
            Err(error) => {
                return self.tell(Fault::NoRecord {
                    place: place.to_owned(),
                    line,
                    error: error.to_string(),
                });
            }
        };
        let record = &found.record;
        let n = record.n;
        let name = self.name.get_or_insert_with(|| record.chain.clone()).clone();
        if name != record.chain {
            self.tell(Fault::OtherChain { n, found: record.chain.clone(), expected: name });
        }
        let whole = found.is_whole();
        if !whole {
            self.tell(Fault::Changed { n });
        }
        let is_break = matches!(record.entry, Entry::Break { .. });
        self.breaks += u64::from(is_break && whole);
        let prev = record.prev.parse().unwrap_or(Sha256Sum([0xff; 32]));
        if self.seen.contains_key(&n) {
            return self.tell(Fault::Added { n });
        }
        if let Some(behind) = self.last.filter(|last| *last > n) {
            self.tell(Fault::Moved { n, behind });
        }
        self.last = Some(self.last.map_or(n, |last| last.max(n)));
        self.seen.insert(n, Seen { sum: found.sum, prev, whole, is_break });
    }

    /// Breaks that the chain itself tells of.
    pub fn breaks(&self) -> u64 {
        self.breaks
    }

    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// The first and the newest record.
    pub fn ends(&self) -> Option<(u64, Head)> {
        let (first, (n, last)) = (self.seen.first_key_value()?.0, self.seen.last_key_value()?);
        Some((*first, Head { n: *n, sum: last.sum }))
    }

    /// What is wrong, in order of the records. `first`: the oldest that has to be there; `told`: heads that somebody was told.
    pub fn finish(mut self, first: Option<u64>, told: &[Head]) -> Vec<Fault> {
        let seen = std::mem::take(&mut self.seen);
        let begin = seen.first_key_value().map(|(n, _)| *n);
        if let (Some(first), Some(begin)) = (first, begin)
            && first < begin
        {
            self.tell(Fault::Removed { from: first, to: begin - 1 });
        }
        for ((n, one), (next_n, next)) in seen.iter().zip(seen.iter().skip(1)) {
            if *next_n > n + 1 {
                // A break tells of it, and holds on to the last one that could be read.
                if !(next.is_break && next.whole && next.prev == one.sum) {
                    self.tell(Fault::Removed { from: n + 1, to: next_n - 1 });
                }
            } else if next.prev != one.sum && next.whole && one.whole {
                self.tell(Fault::Replaced { n: *n });
            }
        }
        for head in told {
            match seen.get(&head.n) {
                Some(one) if one.sum == head.sum => {}
                Some(one) => {
                    let (found, expected) = (one.sum.to_string(), head.sum.to_string());
                    self.tell(Fault::OtherHead { n: head.n, found, expected });
                }
                None if seen.last_key_value().is_none_or(|(n, _)| *n < head.n) => {
                    let found = seen.last_key_value().map_or(0, |(n, _)| *n);
                    self.tell(Fault::Shortened { found, expected: head.n });
                }
                // Told above as removed, or gone because of its age.
                None => {}
            }
        }
        self.faults.sort();
        self.faults.dedup();
        self.faults
    }

    fn tell(&mut self, fault: Fault) {
        if self.faults.len() < MOST_FAULTS {
            self.faults.push(fault);
        }
    }
}
