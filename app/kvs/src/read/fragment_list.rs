//! Reading given fragments, or all that begin in a range of time, over many GetMediaForFragmentList answers. No IO.
//!
//! ```text
//! List --rows--> queue, in order --batch--> Fetch --200--> reading --end--> the rest of the queue, until it is empty
//!   ^                                         |              |
//!   +--- resting <------- refused ------------+-- broken, unreadable
//! ```
//!
//! What is handed on is always the first of the queue. Whatever comes out of its turn is left to a later answer, in which
//! fragments are asked for one by one: so the order holds whatever the service does, and none is left out without a [`Skip`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use media::SourceState;

use super::ReadFailureKind;
use super::chunk::{Chunk, ChunkStart, Failure};
use super::skip::{Skip, SkipReason};
use crate::FragmentNumber;
use crate::api::{Fragment, FragmentSelector, FragmentSelectorType, TimestampRange, milliseconds, seconds};

/// A fragment that cannot be read so often is left out.
const MOST_READS: u32 = 2;

/// Which fragments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// These, in this order.
    Numbers(Vec<FragmentNumber>),
    /// All that are stored and begin in this range, both ends included, in the order of that time.
    Range {
        /// Whose time.
        by: FragmentSelectorType,
        /// In ms since the Unix epoch.
        from_ms: u64,
        /// In ms since the Unix epoch.
        to_ms: u64,
    },
}

/// How fragments are read.
#[derive(Clone, Debug, PartialEq)]
pub struct FragmentListConfig {
    /// Fragments in one call, 1 to 1000.
    pub batch: usize,
    /// After the first error; then `backoff_multiplier` times as long each time, up to `max_reconnect_delay`; each 80 to
    /// 120 % of it.
    pub reconnect_delay: Duration,
    /// The most it grows to; also between attempts that only somebody's change can make succeed.
    pub max_reconnect_delay: Duration,
    /// 1.0 to 10.0.
    pub backoff_multiplier: f64,
    /// So many errors without a fragment in between are fatal; `None`: it never gives up.
    pub max_consecutive_errors: Option<u32>,
    /// While others hold all five readers of lists that a stream has.
    pub readers_delay: Duration,
}

impl Default for FragmentListConfig {
    fn default() -> Self {
        Self {
            // The service's points for media are 500 a second for each stream.
            batch: 100,
            reconnect_delay: Duration::from_secs(2),
            max_reconnect_delay: Duration::from_secs(60),
            backoff_multiplier: 2.0,
            max_consecutive_errors: Some(10),
            readers_delay: Duration::from_secs(10),
        }
    }
}

/// Which value is out of its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FragmentListConfigError {
    /// Of [`FragmentListConfig::batch`].
    #[error("batch is {0}, expected 1 to 1000 fragments")]
    Batch(usize),
    /// Of [`FragmentListConfig::reconnect_delay`].
    #[error("reconnect_delay is {0:?}, expected more than 0 and at most max_reconnect_delay")]
    Delay(Duration),
    /// Of [`FragmentListConfig::backoff_multiplier`].
    #[error("backoff_multiplier is {0}, expected 1.0 to 10.0")]
    Multiplier(f64),
    /// Of [`FragmentListConfig::max_consecutive_errors`].
    #[error("max_consecutive_errors is 0, expected at least 1")]
    Errors,
    /// Of [`Wanted::Range`].
    #[error("the range begins at {from_ms} ms and ends before that, at {to_ms} ms")]
    Range {
        /// Its begin.
        from_ms: u64,
        /// Its end.
        to_ms: u64,
    },
}

impl FragmentListConfig {
    /// Whether all values are within their ranges.
    pub fn check(&self) -> Result<(), FragmentListConfigError> {
        if !(1..=1_000).contains(&self.batch) {
            return Err(FragmentListConfigError::Batch(self.batch));
        }
        if self.reconnect_delay.is_zero() || self.reconnect_delay > self.max_reconnect_delay {
            return Err(FragmentListConfigError::Delay(self.reconnect_delay));
        }
        if !(1.0..=10.0).contains(&self.backoff_multiplier) {
            return Err(FragmentListConfigError::Multiplier(self.backoff_multiplier));
        }
        if self.max_consecutive_errors == Some(0) {
            return Err(FragmentListConfigError::Errors);
        }
        Ok(())
    }
}

/// What the owner of the connection does.
#[derive(Clone, Debug, PartialEq)]
pub enum ListAction {
    /// Ask for all pages of this list: then [`FragmentList::listed`] or [`FragmentList::failed`].
    List(FragmentSelector),
    /// Ask for these fragments, once the old answer is let go of: then [`FragmentList::opened`] or
    /// [`FragmentList::failed`].
    Fetch(Vec<FragmentNumber>),
    /// Go on reading the open answer.
    Read,
    /// Nothing before this time.
    Wait(Instant),
    /// All were handed on or told.
    End,
    /// Too many errors without a fragment in between.
    GiveUp,
}

/// What is to be done with a chunk that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It follows what came before.
    Next,
    /// It does not follow what came before.
    Apart,
    /// It is the one that was cut: so many blocks of it were handed on.
    Again {
        /// How many.
        blocks: u64,
    },
    /// It is not its turn.
    No,
}

/// A row of a list that names no fragment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ListFragments names `{found}`, which is no fragment number")]
pub struct RowError {
    /// What it names.
    pub found: String,
}

/// The reader of a list.
#[derive(Debug)]
pub struct FragmentList {
    config: FragmentListConfig,
    wanted: Wanted,
    listed: bool,
    queue: VecDeque<FragmentNumber>,
    link: Link,
    /// Errors without a whole fragment in between.
    errors: u32,
    /// Of the first in the queue.
    reads: u32,
    /// Fragments are asked for one by one: until the first in the queue is dealt with, or for good.
    alone: bool,
    disordered: bool,
    last: Option<FragmentNumber>,
    /// The chunk that is being read, and how many of its blocks were handed on.
    open: Option<(FragmentNumber, u64)>,
    /// What comes next does not follow.
    jumped: bool,
    connected: bool,
    skips: VecDeque<Skip>,
    resets: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Idle,
    Resting {
        until: Instant,
    },
    /// For one fragment alone, or for more.
    Opening {
        alone: bool,
    },
    Reading {
        alone: bool,
        progress: bool,
    },
    Over,
    GivenUp,
}

impl FragmentList {
    /// Fails where a value is out of its range.
    pub fn new(wanted: Wanted, config: FragmentListConfig) -> Result<Self, FragmentListConfigError> {
        config.check()?;
        let (listed, queue) = match &wanted {
            Wanted::Numbers(numbers) => (true, numbers.iter().copied().collect()),
            Wanted::Range { from_ms, to_ms, .. } if from_ms > to_ms => {
                return Err(FragmentListConfigError::Range { from_ms: *from_ms, to_ms: *to_ms });
            }
            Wanted::Range { .. } => (false, VecDeque::new()),
        };
        Ok(Self {
            config,
            wanted,
            listed,
            queue,
            link: Link::Idle,
            errors: 0,
            reads: 0,
            alone: false,
            disordered: false,
            last: None,
            open: None,
            jumped: true,
            connected: false,
            skips: VecDeque::new(),
            resets: 0,
        })
    }

    /// How it stands.
    pub fn state(&self) -> SourceState {
        match self.link {
            Link::Over => SourceState::Disconnected,
            Link::Idle if !self.connected => SourceState::Disconnected,
            // Between two answers of which neither broke.
            Link::Idle if self.errors == 0 => SourceState::Connected,
            Link::Opening { .. } if self.connected && self.errors == 0 => SourceState::Connected,
            Link::Reading { .. } => SourceState::Connected,
            Link::GivenUp => SourceState::Failed,
            Link::Idle | Link::Resting { .. } | Link::Opening { .. } if self.connected => {
                SourceState::Reconnecting
            }
            Link::Idle | Link::Resting { .. } | Link::Opening { .. } => SourceState::Connecting,
        }
    }

    /// Fragments that are still to come; `None` before they were listed.
    pub fn left(&self) -> Option<usize> {
        self.listed.then_some(self.queue.len())
    }

    /// Answers that broke, and had to be replaced.
    pub fn connection_resets(&self) -> u64 {
        self.resets
    }

    /// The next report of a fragment that is not handed on.
    pub fn next_skip(&mut self) -> Option<Skip> {
        self.skips.pop_front()
    }

    /// What to do now.
    pub fn next_action(&mut self, now: Instant) -> ListAction {
        match self.link {
            Link::Over => ListAction::End,
            Link::GivenUp => ListAction::GiveUp,
            Link::Resting { until } if now < until => ListAction::Wait(until),
            Link::Reading { .. } if !self.queue.is_empty() => ListAction::Read,
            // An owner that asks while it opens has let go of the request.
            _ => self.ask(),
        }
    }

    fn ask(&mut self) -> ListAction {
        if !self.listed
            && let Wanted::Range { by, from_ms, to_ms } = self.wanted
        {
            self.link = Link::Opening { alone: false };
            return ListAction::List(FragmentSelector {
                fragment_selector_type: by,
                timestamp_range: TimestampRange {
                    start_timestamp: seconds(from_ms),
                    end_timestamp: seconds(to_ms),
                },
            });
        }
        if self.queue.is_empty() {
            self.link = Link::Over;
            return ListAction::End;
        }
        let alone = self.alone || self.disordered || self.config.batch == 1;
        self.link = Link::Opening { alone };
        let count = if alone { 1 } else { self.config.batch };
        ListAction::Fetch(self.queue.iter().take(count).copied().collect())
    }

    /// The whole list, in any order. An error is reported with [`Self::failed`], as any other.
    pub fn listed(&mut self, rows: &[Fragment]) -> Result<(), RowError> {
        let by = match self.wanted {
            Wanted::Range { by, .. } => by,
            Wanted::Numbers(_) => return Ok(()),
        };
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            let number: FragmentNumber = row
                .fragment_number
                .parse()
                .map_err(|_| RowError { found: row.fragment_number.chars().take(60).collect() })?;
            let at = match by {
                FragmentSelectorType::ProducerTimestamp => row.producer_timestamp,
                FragmentSelectorType::ServerTimestamp => row.server_timestamp,
            };
            found.push((milliseconds(at), number));
        }
        found.sort_unstable();
        found.dedup();
        (self.listed, self.link) = (true, Link::Idle);
        for (n, (at_ms, number)) in found.iter().enumerate() {
            let next = found.get(n + 1);
            // As the service does for players: the one that came last counts.
            let doubled = by == FragmentSelectorType::ProducerTimestamp
                && next.is_some_and(|(next_ms, _)| next_ms == at_ms);
            if doubled {
                let after = self.queue.back().copied();
                let why = SkipReason::Duplicate;
                self.skips.push_back(Skip { after, before: *number, fragments: Some(1), why });
            } else {
                self.queue.push_back(*number);
            }
        }
        Ok(())
    }

    /// The answer to [`ListAction::Fetch`] begins.
    pub fn opened(&mut self) {
        self.connected = true;
        let alone = matches!(self.link, Link::Opening { alone: true });
        self.link = Link::Reading { alone, progress: false };
    }

    /// A chunk begins.
    pub fn chunk_begins(&mut self, start: &ChunkStart) -> Turn {
        let Some(number) = start.number.filter(|number| self.queue.front() == Some(number)) else {
            // Behind one that was not given it has its turn later.
            self.disordered |= start.number.is_some_and(|number| self.queue.contains(&number));
            return Turn::No;
        };
        let cut = self.open.replace((number, 0));
        match cut {
            Some((before, blocks)) if before == number => {
                self.open = Some((number, blocks));
                Turn::Again { blocks }
            }
            _ if std::mem::take(&mut self.jumped) => Turn::Apart,
            _ if self.last.is_some_and(|last| last.misses_some_before(number)) => Turn::Apart,
            _ => Turn::Next,
        }
    }

    /// A block of the chunk whose turn it is was handed on.
    pub fn block(&mut self) {
        if let Some((_, blocks)) = &mut self.open {
            *blocks += 1;
        }
    }

    /// A chunk is over.
    pub fn chunk_ends(&mut self, chunk: &Chunk) {
        let front = self.queue.front().copied();
        if !chunk.complete || front.is_none() || chunk.start.number != front || self.open.is_none() {
            return;
        }
        self.pass();
        (self.last, self.errors) = (front, 0);
        if let Link::Reading { progress, .. } = &mut self.link {
            *progress = true;
        }
    }

    /// The first in the queue is dealt with.
    fn pass(&mut self) {
        self.queue.pop_front();
        (self.open, self.reads, self.alone) = (None, 0, false);
    }

    fn leave_out(&mut self, why: SkipReason) {
        let Some(number) = self.queue.front().copied() else { return };
        self.skips.push_back(Skip { after: self.last, before: number, fragments: Some(1), why });
        self.pass();
        self.jumped = true;
    }

    /// The service says in the answer that it has no such fragment; whether that settles it. Any other notice is an error of
    /// the answer.
    pub fn noticed(&mut self, failure: &Failure) -> bool {
        if failure.code != "4000" && failure.message != "4000" {
            return false;
        }
        if failure.number.is_some() && failure.number == self.queue.front().copied() {
            self.leave_out(SkipReason::Gone);
            if let Link::Reading { progress, .. } = &mut self.link {
                *progress = true;
            }
        }
        true
    }

    /// The answer ended in order.
    pub fn ended(&mut self) {
        let Link::Reading { alone, progress } = self.link else { return };
        self.link = Link::Idle;
        if progress || self.queue.is_empty() {
            return;
        }
        if alone {
            self.leave_out(SkipReason::Gone);
        } else {
            self.alone = true;
        }
    }

    /// It was refused, broke, or cannot be read. `random` in 0..1 spreads retries.
    pub fn failed(&mut self, kind: ReadFailureKind, now: Instant, random: f64) {
        let (alone, reading) = match self.link {
            Link::Reading { alone, .. } => (alone, true),
            Link::Opening { alone } => (alone, false),
            _ => (false, false),
        };
        self.resets += u64::from(reading);
        if kind == ReadFailureKind::Refused && self.listed && !self.queue.is_empty() {
            // One of the numbers is none of this stream's.
            self.link = Link::Idle;
            if alone {
                self.leave_out(SkipReason::Gone);
            } else {
                self.alone = true;
            }
            return;
        }
        self.errors = self.errors.saturating_add(1);
        if self.config.max_consecutive_errors.is_some_and(|most| self.errors >= most) {
            self.link = Link::GivenUp;
            return;
        }
        let config = &self.config;
        let delay = super::retry_delay(
            config.reconnect_delay,
            config.max_reconnect_delay,
            config.backoff_multiplier,
            self.errors - 1,
            random,
        );
        let delay = match kind {
            ReadFailureKind::TooManyReaders => delay.max(config.readers_delay),
            ReadFailureKind::Operator => delay.max(config.max_reconnect_delay),
            _ => delay,
        };
        if kind == ReadFailureKind::Unreadable && self.listed {
            // Whatever lies behind it in the same answer is not to blame.
            self.reads += 1;
            self.alone = true;
            if alone && self.reads >= MOST_READS {
                self.leave_out(SkipReason::Unreadable);
            }
        }
        self.link = Link::Resting { until: now + delay };
    }
}

#[cfg(test)]
#[path = "fragment_list_tests.rs"]
mod tests;
