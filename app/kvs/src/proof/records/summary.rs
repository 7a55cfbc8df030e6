//! What the rows of a minute show.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::book::{Context, MinuteRows};
use super::row::{Row, RowState};
use crate::identity::Sha256Sum;
use crate::proof::schedule::Verdict;

/// Blocks of one camera are never so far apart: a longer pause between two fragments is footage that was not recorded.
const HOLE_MS: u64 = 3000;
/// Holes that a record lists; more are counted in the last one.
const MOST_HOLES: usize = 32;
/// What is said of a hole is cut there.
const MOST_TEXT: usize = 200;

/// Why footage of a minute is not in KVS as it was sent. Names on disk and on the wire are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The camera delivered nothing, or the box did not run.
    NotRecorded,
    WindowFull,
    SpoolFull,
    SpoolDamaged,
    Refused,
    Crashed,
    Stopped,
    /// KVS said that it keeps it, and it is not there.
    Missing,
    /// It was read back and is different.
    Corrupt,
    /// The list of KVS states it otherwise.
    Misstated,
    /// Of a later release.
    #[serde(other)]
    Other,
}

impl Cause {
    pub const ALL: [Self; 10] = [
        Self::NotRecorded,
        Self::WindowFull,
        Self::SpoolFull,
        Self::SpoolDamaged,
        Self::Refused,
        Self::Crashed,
        Self::Stopped,
        Self::Missing,
        Self::Corrupt,
        Self::Misstated,
    ];

    /// KVS has something else than what was sent, where it said that it has that.
    pub fn is_mismatch(self) -> bool {
        matches!(self, Self::Missing | Self::Corrupt | Self::Misstated)
    }

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotRecorded => "not_recorded",
            Self::WindowFull => "window_full",
            Self::SpoolFull => "spool_full",
            Self::SpoolDamaged => "spool_damaged",
            Self::Refused => "refused",
            Self::Crashed => "crashed",
            Self::Stopped => "stopped",
            Self::Missing => "missing",
            Self::Corrupt => "corrupt",
            Self::Misstated => "misstated",
            Self::Other => "other",
        }
    }

    /// From its name; one of a later release is [`Cause::Other`].
    pub fn of(name: &str) -> Self {
        Self::ALL.into_iter().find(|cause| cause.name() == name).unwrap_or(Self::Other)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Producer time that is not in KVS as it was sent; both ends are times of blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    pub from_ms: u64,
    pub to_ms: u64,
    pub cause: Cause,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub text: Option<String>,
}

/// How long something took, in ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    pub p50: u64,
    pub p95: u64,
    pub max: u64,
}

impl Spread {
    /// By nearest rank; `None` of nothing.
    pub fn of(values: impl Iterator<Item = u64>) -> Option<Self> {
        let mut sorted: Vec<_> = values.collect();
        sorted.sort_unstable();
        let rank = |percent: usize| {
            let at = (sorted.len() * percent).div_ceil(100).max(1) - 1;
            sorted.get(at).copied()
        };
        Some(Self { p50: rank(50)?, p95: rank(95)?, max: sorted.last().copied()? })
    }
}

/// What is known of one minute, or of a stretch of minutes in which nothing was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub minute_ms: u64,
    /// Minutes that it is about: more than 1 only where nothing was recorded.
    pub minutes: u64,
    pub verdict: Verdict,
    /// Why the verdict is not `ok`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
    /// Fragments that were recorded.
    pub expected: u64,
    /// Of these, those that KVS keeps as they were sent, as far as anybody has looked.
    pub persisted: u64,
    /// Of these, those that ListFragments names as they were sent.
    pub listed: u64,
    /// Of these, those that were read back and are equal byte for byte.
    pub verified: u64,
    /// Of all clusters.
    pub bytes: u64,
    /// SHA-256 over timecode (8 bytes, big-endian), payload sum and heads sum of each fragment, in order of time.
    pub footage: String,
    pub gaps: Vec<Hole>,
    /// From the last byte sent to the PERSISTED ack.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ack_ms: Option<Spread>,
    /// From the completion of a fragment to the PERSISTED ack.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub persist_ms: Option<Spread>,
    /// From the completion of a fragment to its last byte read back.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub read_ms: Option<Spread>,
    /// A fragment of this minute was read back, taken apart and its key picture decoded.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub played: Option<Played>,
}

/// That a fragment was played, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Played {
    /// Time of its first picture.
    pub at_ms: u64,
    /// `get_media` or `hls`.
    pub way: String,
    /// `decoded`; `parsed` where the box has no decoder; or `failed`.
    pub result: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub text: Option<String>,
    /// From the camera (or receipt) to here.
    pub latency_ms: u64,
}

impl Summary {
    /// Of the minute that `minute` holds.
    pub(super) fn of(minute: super::Minute, found: &MinuteRows, context: &Context) -> Self {
        let mut rows: Vec<_> = found.rows.iter().collect();
        rows.sort_by_key(|row| (row.timecode_ms, row.id));
        let count = |wanted: fn(&Row) -> bool| rows.iter().filter(|row| wanted(row)).count() as u64;
        let took = |from: fn(&Row) -> Option<u64>, to: fn(&Row) -> Option<u64>| {
            let pairs = rows.iter().filter_map(|row| Some(to(row)?.saturating_sub(from(row)?)));
            Spread::of(pairs)
        };
        let mut summary = Self {
            minute_ms: minute.start_ms(),
            minutes: 1,
            verdict: Verdict::Unknown,
            why: None,
            expected: rows.len() as u64,
            persisted: count(Row::is_persisted),
            listed: count(|row| row.is_persisted() && row.times.listed.is_some()),
            verified: count(Row::is_identical),
            bytes: rows.iter().filter_map(|row| row.bytes).sum(),
            footage: footage(&rows).to_string(),
            gaps: holes(minute, &rows, found),
            ack_ms: took(|row| row.times.sent, |row| row.times.persisted),
            persist_ms: took(|row| row.times.complete, |row| row.times.persisted),
            read_ms: took(|row| row.times.complete, |row| row.times.identical),
            played: context.played.clone().filter(|played| super::Minute::of(played.at_ms) == minute),
        };
        (summary.verdict, summary.why) = summary.judge(context);
        summary
    }

    /// Nothing was recorded from `minute` on for so long.
    pub(super) fn nothing(minute: super::Minute, minutes: u64) -> Self {
        let (from_ms, to_ms) = (minute.start_ms(), minute.later(minutes).start_ms());
        let gap = Hole { from_ms, to_ms, cause: Cause::NotRecorded, text: None };
        Self {
            minute_ms: from_ms,
            minutes,
            verdict: Verdict::Gap,
            why: Some("nothing was recorded".to_owned()),
            expected: 0,
            persisted: 0,
            listed: 0,
            verified: 0,
            bytes: 0,
            footage: footage(&[]).to_string(),
            gaps: vec![gap],
            ack_ms: None,
            persist_ms: None,
            read_ms: None,
            played: None,
        }
    }

    /// Nothing about it will change by itself any more.
    pub(super) fn is_final(&self, rows: &[Row], context: &Context) -> bool {
        let proven = |row: &Row| {
            let listed = row.times.listed.is_some() && (!context.reads_all || row.is_identical());
            match row.state {
                RowState::Waiting => false,
                RowState::Persisted => listed || !context.looks,
                RowState::Bad(cause) => !cause.is_mismatch(),
            }
        };
        rows.iter().all(proven)
    }

    fn judge(&self, context: &Context) -> (Verdict, Option<String>) {
        let of = |mismatch: bool| self.gaps.iter().filter(move |gap| gap.cause.is_mismatch() == mismatch);
        let told = |mismatch: bool| {
            let gap = of(mismatch).next()?;
            let what = gap.text.clone().unwrap_or_else(|| words(gap.cause).to_owned());
            let more = of(mismatch).count() - 1;
            Some(if more > 0 { format!("{what}, and {more} more") } else { what })
        };
        if let Some(why) = told(true) {
            return (Verdict::Mismatch, Some(why));
        }
        if let Some(why) = told(false) {
            return (Verdict::Gap, Some(why));
        }
        let unlisted = self.persisted - self.listed;
        let unread = self.persisted - self.verified;
        let unknown = |why: &String| (Verdict::Unknown, Some(why.clone()));
        if let Some(why) = context.keeps_nothing.as_ref().filter(|_| self.persisted < self.expected) {
            return unknown(why);
        }
        if self.persisted < self.expected {
            let why = format!(
                "{} of {} fragments are not in KVS yet",
                self.expected - self.persisted,
                self.expected
            );
            return (Verdict::Late, Some(why));
        }
        if !context.looks {
            return (Verdict::Unknown, Some("verification is off".to_owned()));
        }
        let open = unlisted > 0 || context.reads_all && unread > 0;
        if let Some(why) = context.unable.as_ref().filter(|_| open) {
            return unknown(why);
        }
        if unlisted > 0 {
            (Verdict::Late, Some(format!("{unlisted} fragments are not listed yet")))
        } else if context.reads_all && unread > 0 {
            (Verdict::Late, Some(format!("{unread} fragments are not read back yet")))
        } else {
            (Verdict::Ok, None)
        }
    }
}

fn words(cause: Cause) -> &'static str {
    match cause {
        Cause::NotRecorded => "nothing was recorded",
        Cause::Missing => "persisted, and not to be found",
        other => other.name(),
    }
}

fn footage(rows: &[&Row]) -> Sha256Sum {
    let mut sum = Sha256::new();
    for row in rows {
        sum.update(row.timecode_ms.to_be_bytes());
        if let Some(sums) = row.sums {
            sum.update(sums.payload.0);
            sum.update(sums.heads.0);
        }
    }
    Sha256Sum(sum.finalize().into())
}

/// What is bad, and pauses in which nothing was recorded; in order of time, neighbours of one cause together.
fn holes(minute: super::Minute, rows: &[&Row], found: &MinuteRows) -> Vec<Hole> {
    let (start_ms, end_ms) = (minute.start_ms(), minute.end_ms());
    let mut holes: Vec<Hole> = Vec::new();
    let mut add = |hole: Hole| match holes.last_mut() {
        Some(last) if last.cause == hole.cause && hole.from_ms <= last.to_ms.saturating_add(HOLE_MS) => {
            last.to_ms = last.to_ms.max(hole.to_ms);
        }
        _ => holes.push(hole),
    };
    let pause = |from_ms: u64, to_ms: u64| {
        let is_long = to_ms.saturating_sub(from_ms) > HOLE_MS;
        let (from_ms, to_ms) = (from_ms.max(start_ms), to_ms.min(end_ms));
        (is_long && from_ms < to_ms).then_some(Hole { from_ms, to_ms, cause: Cause::NotRecorded, text: None })
    };
    // Before the first fragment ever nothing is missed.
    let mut covered_ms = found.before_ms;
    for row in rows {
        let hole = covered_ms.and_then(|covered_ms| pause(covered_ms, row.timecode_ms));
        hole.into_iter().for_each(&mut add);
        covered_ms = Some(covered_ms.unwrap_or(0).max(row.end_ms));
        if let RowState::Bad(cause) = row.state {
            let text = row.text.as_deref().map(|text| text[..text.floor_char_boundary(MOST_TEXT)].to_owned());
            add(Hole { from_ms: row.timecode_ms, to_ms: row.end_ms, cause, text });
        }
    }
    let last = covered_ms.zip(found.after_ms.or(Some(end_ms).filter(|_| found.is_over)));
    let hole = last.and_then(|(covered_ms, after_ms)| pause(covered_ms, after_ms));
    hole.into_iter().for_each(&mut add);
    if holes.len() > MOST_HOLES {
        let rest = holes.split_off(MOST_HOLES);
        if let (Some(last), Some(end)) = (holes.last_mut(), rest.iter().map(|hole| hole.to_ms).max()) {
            last.text = Some(format!("and {} more up to here", rest.len()));
            last.to_ms = end;
        }
    }
    holes
}
