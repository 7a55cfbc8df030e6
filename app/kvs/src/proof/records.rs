//! Proof records: what is known of each camera and minute, written down for good.
//!
//! ```text
//!  ledger --log--> rows, one for each fragment --minute by minute--> summary, verdict --> record --> chain
//!                    ^                                                    |
//!                    +---- a change after the record: an amendment -------+   a new record that names the minute
//! ```
//!
//! A minute is one of producer time: it holds the fragments that begin in it. Its record is written once everything about it is
//! proven, or once that is overdue. Nothing that was written is written again: what is repaired later is a new record about
//! the same minute, and the newest one counts.
//!
//! Each camera has a chain of its own, so that it can be handed out and checked alone, and a camera more or less breaks none.
//! See [`chain`] for its bytes.

mod book;
pub mod chain;
mod check;
mod row;
mod summary;

pub use book::{Book, BookConfig, Context, MinuteRows, Rows};
pub use chain::{Chain, Entry, Head, Line, Record};
pub use check::{Checker, Fault};
pub use row::{Row, RowState, RowTimes};
pub use summary::{Cause, Hole, Played, Spread, Summary};

/// A minute of producer time, counted from 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Minute(u64);

impl Minute {
    const MS: u64 = 60_000;

    /// The one that holds this time.
    pub fn of(ms: u64) -> Self {
        Self(ms / Self::MS)
    }

    pub fn start_ms(self) -> u64 {
        self.0 * Self::MS
    }

    /// Where the next one begins.
    pub fn end_ms(self) -> u64 {
        self.start_ms() + Self::MS
    }

    #[must_use]
    pub fn later(self, minutes: u64) -> Self {
        // Times of real footage are far below: u64::MAX ms stays what it is.
        Self(self.0.saturating_add(minutes).min(u64::MAX / Self::MS - 1))
    }

    /// Minutes from `earlier` to this one; 0 where it is not earlier.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
