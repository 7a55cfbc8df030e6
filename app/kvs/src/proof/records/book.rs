//! When which minute is written down. No IO: rows and lines are kept by whoever implements [`Rows`].

use std::collections::BTreeMap;
use std::time::Duration;

use super::Minute;
use super::chain::{Chain, Entry, Head, Line, Record};
use super::row::Row;
use super::summary::{Played, Summary};

/// Minutes looked at in one turn: what an outage left is worked off in several.
const MOST_IN_A_TURN: usize = 64;
/// A minute that changes and never comes to rest is amended this long after the change.
const RESTLESS: Duration = Duration::from_secs(600);
/// Without a new fragment for so long nobody waits for the next one.
const SILENT: Duration = Duration::from_secs(90);
/// Minutes without footage that one record tells of at most: a year, so that a clock that jumped writes no book full.
const MOST_EMPTY: u64 = 366 * 24 * 60;

/// Keeps rows and lines.
pub trait Rows {
    type Error;

    /// Merges what is known of fragments into what was known; see [`Row::merge`].
    fn put(&mut self, rows: &[Row]) -> Result<(), Self::Error>;

    fn minute(&mut self, minute: Minute) -> Result<MinuteRows, Self::Error>;

    /// The first minute from this one on in which a fragment begins.
    fn first_from(&mut self, minute: Minute) -> Result<Option<Minute>, Self::Error>;

    /// The newest line about a minute.
    fn newest(&mut self, minute: Minute) -> Result<Option<Record>, Self::Error>;

    /// Puts a line behind the others, for good. `is_final`: nothing about its minute will change by itself.
    fn append(&mut self, line: &Line, is_final: bool) -> Result<(), Self::Error>;
}

/// The fragments that begin in a minute, and what lies around them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MinuteRows {
    pub rows: Vec<Row>,
    /// Latest time of any block of an earlier fragment.
    pub before_ms: Option<u64>,
    /// Start of the next fragment.
    pub after_ms: Option<u64>,
    /// Nobody waits for a next fragment any more.
    pub is_over: bool,
}

#[derive(Clone, Debug)]
pub struct BookConfig {
    /// From the end of a minute until its record is written, whatever is known by then.
    pub settle: Duration,
}

impl Default for BookConfig {
    /// Two sweeps of a minute each, and what a fragment may be late.
    fn default() -> Self {
        Self { settle: Duration::from_secs(150) }
    }
}

/// What a verdict depends on besides the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Somebody looks at what KVS has: verification is on.
    pub looks: bool,
    /// Everything is read back.
    pub reads_all: bool,
    /// A part of each minute is read back.
    pub samples: bool,
    /// The stream keeps nothing, in words: nothing is ever persisted or listed.
    pub keeps_nothing: Option<String>,
    /// Why nobody can look at what KVS has.
    pub unable: Option<String>,
    /// What was played last.
    pub played: Option<Played>,
    /// Wall time in ms.
    pub now_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Changed {
    since_ms: u64,
    /// When it is looked at.
    due_ms: u64,
}

/// Writes the minutes of one camera down.
#[derive(Debug)]
pub struct Book {
    config: BookConfig,
    chain: Chain,
    /// The first minute that was not written down yet.
    next: Option<Minute>,
    /// Minutes that changed since they were written down.
    changed: BTreeMap<Minute, Changed>,
    newest_ms: u64,
    /// When the newest fragment was first heard of.
    grown_ms: u64,
}

impl Book {
    /// `next`: behind the newest minute that was written down; `unfinished`: earlier ones that may still change.
    pub fn new(
        config: BookConfig,
        chain: Chain,
        next: Option<Minute>,
        unfinished: impl IntoIterator<Item = Minute>,
        now_ms: u64,
    ) -> Self {
        let first = Changed { since_ms: now_ms, due_ms: now_ms };
        let changed = unfinished.into_iter().map(|minute| (minute, first)).collect();
        Self { config, chain, next, changed, newest_ms: 0, grown_ms: now_ms }
    }

    pub fn head(&self) -> Option<Head> {
        self.chain.head()
    }

    /// Minutes that were written down and changed since.
    pub fn changed(&self) -> usize {
        self.changed.len()
    }

    /// Takes what is known of fragments, and writes down what is due. Returns the lines that were written; after an error the
    /// rest is tried again at the next turn.
    pub fn turn<R: Rows>(
        &mut self,
        rows: &[Row],
        store: &mut R,
        context: &Context,
    ) -> Result<Vec<Line>, (Vec<Line>, R::Error)> {
        let mut lines = Vec::new();
        match self.take(rows, store, context).and_then(|()| self.write(store, context, &mut lines)) {
            Ok(()) => Ok(lines),
            Err(error) => Err((lines, error)),
        }
    }

    fn take<R: Rows>(&mut self, rows: &[Row], store: &mut R, context: &Context) -> Result<(), R::Error> {
        if rows.is_empty() {
            return Ok(());
        }
        store.put(rows)?;
        let now_ms = context.now_ms;
        let minutes = || rows.iter().map(|row| Minute::of(row.timecode_ms));
        self.next = self.next.or(minutes().min());
        let newest_ms = rows.iter().map(|row| row.timecode_ms).max().unwrap_or(0);
        if newest_ms > self.newest_ms {
            (self.newest_ms, self.grown_ms) = (newest_ms, now_ms);
        }
        for minute in minutes().filter(|minute| self.next.is_some_and(|next| *minute < next)) {
            let first = Changed { since_ms: now_ms, due_ms: now_ms };
            self.changed.entry(minute).or_insert(first).due_ms = now_ms;
        }
        Ok(())
    }

    fn write<R: Rows>(
        &mut self,
        store: &mut R,
        context: &Context,
        lines: &mut Vec<Line>,
    ) -> Result<(), R::Error> {
        if self.chain.head().is_none() && self.next.is_some() {
            let text = "the first record of this chain".to_owned();
            self.append(Entry::Begin { text }, true, store, context, lines)?;
        }
        for _ in 0..MOST_IN_A_TURN {
            if !self.write_next(store, context, lines)? {
                break;
            }
        }
        let due = |changed: &Changed| changed.due_ms <= context.now_ms;
        let due = self.changed.iter().filter(|(_, changed)| due(changed)).take(MOST_IN_A_TURN);
        let due: Vec<_> = due.map(|(minute, changed)| (*minute, changed.since_ms)).collect();
        for (minute, since_ms) in due {
            if self.amend(minute, since_ms, store, context, lines)? {
                self.changed.remove(&minute);
            } else {
                let due_ms = since_ms.saturating_add(millis(RESTLESS));
                self.changed.insert(minute, Changed { since_ms, due_ms });
            }
        }
        Ok(())
    }

    /// True if there may be more.
    fn write_next<R: Rows>(
        &mut self,
        store: &mut R,
        context: &Context,
        lines: &mut Vec<Line>,
    ) -> Result<bool, R::Error> {
        let Some(minute) = self.next else { return Ok(false) };
        let now_ms = context.now_ms;
        // A camera's time may lag behind ours: as long as footage comes, it says when a minute is over.
        let silent = now_ms.saturating_sub(self.grown_ms) >= millis(SILENT);
        let over = self.newest_ms >= minute.end_ms() || silent && now_ms >= minute.end_ms();
        if !over {
            return Ok(false);
        }
        let settled = now_ms >= minute.end_ms().saturating_add(millis(self.config.settle));
        let mut found = store.minute(minute)?;
        found.is_over = silent;
        if found.rows.is_empty() {
            let footage = store.first_from(minute)?;
            let last = Minute::of(now_ms.saturating_sub(millis(self.config.settle)).max(self.newest_ms));
            let to = footage.unwrap_or(last);
            let minutes = to.since(minute).min(MOST_EMPTY);
            if minutes == 0 || footage.is_none() && !settled {
                return Ok(false);
            }
            let summary = Box::new(Summary::nothing(minute, minutes));
            self.append(Entry::Minute { amends: None, summary }, true, store, context, lines)?;
            self.next = Some(minute.later(minutes));
            return Ok(true);
        }
        let summary = Summary::of(minute, &found, context);
        let is_final = summary.is_final(&found.rows, context);
        let sampled = !context.samples || summary.verified > 0;
        if !(is_final && sampled || settled) {
            return Ok(false);
        }
        self.append(
            Entry::Minute { amends: None, summary: Box::new(summary) },
            is_final,
            store,
            context,
            lines,
        )?;
        self.next = Some(minute.later(1));
        Ok(true)
    }

    /// True if nothing is left to be written about the minute until something changes.
    fn amend<R: Rows>(
        &mut self,
        minute: Minute,
        since_ms: u64,
        store: &mut R,
        context: &Context,
        lines: &mut Vec<Line>,
    ) -> Result<bool, R::Error> {
        let mut found = store.minute(minute)?;
        if found.rows.is_empty() {
            return Ok(true);
        }
        found.is_over = true;
        let before = store.newest(minute)?;
        let told = before.as_ref().and_then(Record::summary);
        let summary = Summary::of(minute, &found, context);
        // What was known of the minute may be gone for its age: the record that was written with it says more.
        let says_less = |told: &Summary| told.minutes == 1 && summary.expected < told.expected;
        if told.is_some_and(|told| is_same(told, &summary) || says_less(told)) {
            return Ok(true);
        }
        let is_final = summary.is_final(&found.rows, context);
        // What is bad is told at once; what is being repaired, when it is, or when that takes long.
        let mismatch = summary.gaps.iter().any(|gap| gap.cause.is_mismatch());
        let worse = mismatch && told.is_none_or(|told| told.gaps != summary.gaps);
        let restless = context.now_ms.saturating_sub(since_ms) >= millis(RESTLESS);
        if !(is_final || worse || restless || told.is_none()) {
            return Ok(false);
        }
        let amends = before.as_ref().map(|record| record.n);
        self.append(Entry::Minute { amends, summary: Box::new(summary) }, is_final, store, context, lines)?;
        Ok(true)
    }

    fn append<R: Rows>(
        &mut self,
        entry: Entry,
        is_final: bool,
        store: &mut R,
        context: &Context,
        lines: &mut Vec<Line>,
    ) -> Result<(), R::Error> {
        let line = self.chain.next(entry, context.now_ms);
        store.append(&line, is_final)?;
        self.chain.add(&line);
        lines.push(line);
        Ok(())
    }
}

/// They say the same of the footage; how long it took is not compared.
fn is_same(a: &Summary, b: &Summary) -> bool {
    let of = |one: &Summary| {
        (
            one.verdict,
            one.expected,
            one.persisted,
            one.listed,
            one.verified,
            one.footage.clone(),
            one.gaps.clone(),
        )
    };
    of(a) == of(b)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
