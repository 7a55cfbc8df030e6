//! Which of these fragments does KVS have? Asked before anything is sent again.
//!
//! ```text
//!  by number, where an ack named one --identical--> found
//!       | not there                                   ^
//!  by list, over bounded spans --bytes compared-------+
//!       | not there, and the list may not lag any more
//!       +--> absent
//! ```
//!
//! ListFragments is eventually consistent: what it does not name is asked for again until the lag is over, and only then
//! absent. What could not be read is neither.

use std::time::{Duration, Instant};

use super::fetches::{Fetched, Fetches};
use super::listing::{Listing, Span};
use super::verify::is_identical;
use crate::api::Fragment;
use crate::fragmenter::FragmentSummary;
use crate::read::ReadFailure;
use crate::{FragmentId, FragmentNumber};

/// Fragments of one request, and the longest time that one list covers.
const BATCH: usize = 10;
const SPAN: Duration = Duration::from_secs(15 * 60);
/// Between two rounds while the list may lag.
const AGAIN: Duration = Duration::from_millis(500);

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask GetMediaForFragmentList for these: then [`Reconcile::fetched`].
    Fetch(Vec<FragmentNumber>),
    /// Ask ListFragments, to its last page: then [`Reconcile::listed`].
    List(Span),
    Wait(Instant),
    Done,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    pub found: Vec<(FragmentId, FragmentNumber)>,
    pub absent: Vec<FragmentId>,
    /// Why the others could not be asked for.
    pub failure: Option<ReadFailure>,
}

/// Asks for some fragments until each is found or absent.
#[derive(Debug)]
pub struct Reconcile {
    open: Vec<Open>,
    fetches: Fetches,
    spans: Vec<Span>,
    phase: Phase,
    /// A list asked for from here on lags no more.
    settled_at: Instant,
    /// This round began when nothing lagged any more.
    is_last: bool,
    result: Reconciled,
}

#[derive(Debug)]
struct Open {
    summary: FragmentSummary,
    number: Option<FragmentNumber>,
    /// There is something of its name or time that could not be read to its end.
    unread: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    ByNumber,
    ByList,
    Bytes,
    Waiting(Instant),
    Done,
}

impl Reconcile {
    /// `settled_at`: when a list names all that was kept before it was in doubt.
    pub fn new(
        fragments: impl IntoIterator<Item = (FragmentSummary, Option<FragmentNumber>)>,
        settled_at: Instant,
        now: Instant,
    ) -> Self {
        let open = |(summary, number)| Open { summary, number, unread: false };
        let mut new = Self {
            open: fragments.into_iter().map(open).collect(),
            fetches: Fetches::default(),
            spans: Vec::new(),
            phase: Phase::Done,
            settled_at,
            is_last: false,
            result: Reconciled::default(),
        };
        new.begin_round(now);
        new
    }

    /// Call again after each answer, and when the time of a wait has come.
    pub fn next_step(&mut self, now: Instant) -> Step {
        loop {
            match self.phase {
                Phase::ByNumber | Phase::Bytes => {
                    if let Some(numbers) = self.fetches.next_batch() {
                        return Step::Fetch(numbers);
                    }
                    if self.phase == Phase::Bytes {
                        self.end_round(now);
                    } else {
                        self.spans = self.spans_of_open();
                        self.phase = Phase::ByList;
                    }
                }
                Phase::ByList => match self.spans.last() {
                    Some(span) => return Step::List(*span),
                    None => self.phase = Phase::Bytes,
                },
                Phase::Waiting(until) if now < until => return Step::Wait(until),
                Phase::Waiting(_) => self.begin_round(now),
                Phase::Done => return Step::Done,
            }
        }
    }

    /// The answer to [`Step::Fetch`].
    pub fn fetched(&mut self, fetched: &Fetched) {
        // By the number or by the bytes: a copy of a broken connection has another number.
        for chunk in &fetched.chunks {
            let Some(number) = chunk.start.number else { continue };
            let same = self.open.iter().position(|open| is_identical(chunk, &open.summary.sums));
            if let Some(at) = same {
                self.result.found.push((self.open.remove(at).summary.id, number));
            }
        }
        let answer = self.fetches.answered(fetched);
        for open in self.open.iter_mut().filter(|open| answer.unread.contains(&open.summary.id)) {
            open.unread = true;
        }
        self.failed(fetched.failure.as_ref().filter(|failure| !failure.is_about_fragments()));
    }

    /// The answer to [`Step::List`].
    pub fn listed(&mut self, rows: Result<Vec<Fragment>, ReadFailure>) {
        self.spans.pop();
        match rows {
            Ok(rows) => {
                let listing = Listing::new(rows);
                let found: Vec<_> = self
                    .open
                    .iter()
                    .flat_map(|open| {
                        let numbers = listing.at(open.summary.timecode.as_millis());
                        numbers.iter().map(|number| (open.summary.id, *number))
                    })
                    .collect();
                self.fetches.add(&found, BATCH);
            }
            Err(failure) => self.failed(Some(&failure)),
        }
    }

    /// What is known by now; complete once [`next_step`](Self::next_step) is [`Step::Done`].
    pub fn finish(self) -> Reconciled {
        self.result
    }

    fn begin_round(&mut self, now: Instant) {
        if self.open.is_empty() {
            self.phase = Phase::Done;
            return;
        }
        let numbered: Vec<_> =
            self.open.iter().filter_map(|open| Some((open.summary.id, open.number?))).collect();
        self.open.iter_mut().for_each(|open| open.unread = false);
        self.fetches.add(&numbered, BATCH);
        self.is_last = now >= self.settled_at;
        self.phase = Phase::ByNumber;
    }

    fn end_round(&mut self, now: Instant) {
        if self.open.is_empty() {
            self.phase = Phase::Done;
        } else if self.is_last {
            let absent = self.open.iter().filter(|open| !open.unread).map(|open| open.summary.id);
            self.result.absent.extend(absent);
            self.phase = Phase::Done;
        } else {
            self.phase = Phase::Waiting((now + AGAIN).min(self.settled_at));
        }
    }

    /// A failure that is not about single fragments ends the whole: who asks again later asks for less.
    fn failed(&mut self, failure: Option<&ReadFailure>) {
        if let Some(failure) = failure {
            self.result.failure = Some(failure.clone());
            self.phase = Phase::Done;
        }
    }

    fn spans_of_open(&self) -> Vec<Span> {
        let mut times: Vec<_> = self.open.iter().map(|open| open.summary.timecode.as_millis()).collect();
        let mut spans = Vec::new();
        while let Some(span) = Span::of(times.iter().copied(), SPAN) {
            times.retain(|ms| !span.contains(*ms));
            spans.push(span);
        }
        spans
    }
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
