//! Footage that was recorded before anybody vouched for the wall clock, and how it gets its time afterwards.
//!
//! ```text
//!  boot A: real times ... L |power cut| boot B: no clock ever [U] |power cut| boot C: no clock yet [V] set: real times T ...
//!                                                              |                ^                   |
//!                                          ends before C began-+    C's start = trusted now - uptime +-V: exact
//! ```
//!
//! Such footage carries the time since its boot. Its order is known in any case: boots come one after the other, and within a
//! boot that time only grows.
//!
//! * **The same boot** in which the clock is set, by this process or a later one: UTC is the trusted now less the time that has
//!   passed since. This is exact, and marked in no way.
//! * **An earlier boot**, of which nobody knows how long the machine was off behind it: the footage is placed as late as it can
//!   have been. Its boot ended before the next one began, so its last block lies 1 ms before the start of that boot. It is not
//!   earlier than what was stamped before it (L). Such footage is [estimated](FootageClock::Estimated): marked in a tag of its
//!   own, in the ledger and in the proof, with how much earlier it may have been.
//!
//! In either case what is stamped ends before the footage that follows, and before now. Where a camera's clock that differs from
//! that of the box would make it overlap what lies before it, it is moved behind that as far as there is room. One stamp is for
//! all fragments of a run, so that it can be written down at once (`store`), and reading a fragment with it always has the same
//! result: the timecode of its cluster, the sum of the cluster's heads and the tags are made anew, its payloads stay.

use bytes::Bytes;
use media::ProducerTimestamp;
use media::mkv::{ebml, elements, write};

use crate::cluster_sums::ClusterSums;
use crate::fragmenter::{FragmentEnd, FragmentSummary};
use crate::identity::{self, FragmentIdentity, Sha256Sum};
use crate::{FragmentId, RunId};

/// Name of the tag that an estimated fragment has beside its identity.
pub const CLOCK_TAG: &str = "KVS_EDGE_CLOCK";
/// A camera's clock is believed up to 10 s from that of the box; a box that corrects its own by the service is right to a second.
const MOST_SKEW_MS: i64 = 15_000;

/// A life of the machine, drawn by its kernel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootId(pub u128);

impl BootId {
    /// The kernel did not say. Two of these need not be the same.
    pub const UNKNOWN: Self = Self(0);
}

impl std::fmt::Debug for BootId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What the times of a fragment are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FootageClock {
    /// UTC.
    #[default]
    Utc,
    /// Time since this boot: to be stamped before anybody else sees it.
    Boot(BootId),
    /// UTC by the rule for footage of an earlier boot.
    Estimated(Estimate),
}

/// How far an estimated time may be off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Estimate {
    /// The true time is at most so much earlier, and not later. Absent: nothing is known that lies before it.
    pub earlier_ms: Option<u64>,
}

impl FootageClock {
    pub fn is_boot(self) -> bool {
        matches!(self, Self::Boot(_))
    }

    pub fn estimate(self) -> Option<Estimate> {
        match self {
            Self::Estimated(estimate) => Some(estimate),
            Self::Utc | Self::Boot(_) => None,
        }
    }
}

/// Footage of one run that waits for its stamp, in order of recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub run: RunId,
    pub boot: BootId,
    /// Time since that boot of its first block and of its last.
    pub from_ms: u64,
    pub to_ms: u64,
    /// The latest real time that was known when it was recorded; 0: none.
    pub after_ms: u64,
}

/// What is known once the clock is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trusted {
    /// The present boot.
    pub boot: BootId,
    /// UTC less time since that boot.
    pub offset_ms: i64,
    /// The first real time that follows, or now: what is stamped ends before it.
    pub before_ms: u64,
}

/// The stamp of all footage of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunStamp {
    pub run: RunId,
    /// UTC less time since its boot.
    pub offset_ms: i64,
    /// Absent: it is exact.
    pub estimate: Option<Estimate>,
}

/// The stamps of all that waits, in the same order. `stretches` come in order of recording, each run once.
pub fn stamp(stretches: &[Stretch], trusted: &Trusted) -> Vec<RunStamp> {
    let mut stamps = Vec::with_capacity(stretches.len());
    let present = |boot: BootId| boot == trusted.boot && boot != BootId::UNKNOWN;
    // What is stamped next ends before `follows`, and its boot before `begins`.
    let mut follows = signed(trusted.before_ms);
    let mut begins = trusted.offset_ms.min(follows);
    let mut end = stretches.len();
    while let Some(last) = stretches[..end].last() {
        // Runs of one boot share its clock.
        let same = |one: &&Stretch| one.boot == last.boot && one.boot != BootId::UNKNOWN;
        let count = stretches[..end].iter().rev().take_while(same).count().max(1);
        let group = &stretches[end - count..end];
        let (from, to) = (signed(group[0].from_ms), signed(last.to_ms));
        let most = follows.saturating_sub(1).saturating_sub(to);
        let least = (group[0].after_ms > 0).then(|| signed(group[0].after_ms).saturating_add(1) - from);
        let is_exact = present(last.boot);
        let latest = if is_exact { trusted.offset_ms } else { begins.saturating_sub(1).saturating_sub(to) };
        let wanted = match least {
            Some(least) if least > latest && (!is_exact || least - latest <= MOST_SKEW_MS) => least,
            _ => latest,
        };
        // Nothing lies before 1970.
        let offset_ms = wanted.min(most).max(-from);
        // Where it does not lie behind what was stamped before it, that had a wrong time, and bounds nothing.
        let earlier = |least: i64| u64::try_from(offset_ms.saturating_sub(least)).ok();
        let estimate = (!is_exact).then(|| Estimate { earlier_ms: least.and_then(earlier) });
        stamps.extend(group.iter().rev().map(|one| RunStamp { run: one.run, offset_ms, estimate }));
        follows = offset_ms.saturating_add(from);
        begins = begins.min(offset_ms);
        end -= count;
    }
    stamps.reverse();
    stamps
}

impl RunStamp {
    /// UTC of a moment of its boot.
    pub fn utc_ms(&self, boot_ms: u64) -> u64 {
        boot_ms.saturating_add_signed(self.offset_ms)
    }

    /// A fragment with times since boot as it is with UTC. `heads`: all of its cluster but the payloads. `None`: it is not one
    /// of ours.
    pub fn end(&self, end: &FragmentEnd, heads: &[u8]) -> Option<FragmentEnd> {
        let summary = &end.summary;
        if !summary.clock.is_boot() || summary.id.run != self.run {
            return None;
        }
        let timecode_ms = self.utc_ms(summary.timecode.as_millis());
        let heads = set_timecode(heads, summary.timecode.as_millis(), timecode_ms)?;
        let clock = self.estimate.map_or(FootageClock::Utc, FootageClock::Estimated);
        let tag = self.tag(&end.tag, summary.id, timecode_ms)?;
        let around_bytes = summary.around_bytes.saturating_sub(end.tag.len() as u64) + tag.len() as u64;
        let summary = FragmentSummary {
            timecode: ProducerTimestamp::from_millis(timecode_ms),
            sums: ClusterSums { heads: Sha256Sum::of(&heads), ..summary.sums },
            around_bytes,
            clock,
            ..summary.clone()
        };
        Some(FragmentEnd { summary, tag, closing: end.closing })
    }

    /// Its cluster with UTC; `None`: it does not begin as one of ours of that time.
    pub fn cluster(&self, cluster: &[u8], boot_ms: u64) -> Option<Bytes> {
        set_timecode(cluster, boot_ms, self.utc_ms(boot_ms)).map(Bytes::from)
    }

    fn tag(&self, tag: &[u8], id: FragmentId, timecode_ms: u64) -> Option<Bytes> {
        let head = ebml::parse_header(tag).ok()?;
        let pairs = elements::tags::parse(tag.get(head.length..)?).ok()?;
        let value = pairs.iter().find_map(|(name, value)| (name == identity::NAME).then_some(value))?;
        let found: FragmentIdentity = value.parse().ok()?;
        if found.id != id {
            return None;
        }
        let identity = FragmentIdentity { timecode_ms, ..found }.to_string();
        let Some(estimate) = self.estimate else { return Some(write::tags(&[(identity::NAME, &identity)])) };
        let mark = clock_tag(timecode_ms, estimate);
        Some(write::tags(&[(identity::NAME, &identity), (CLOCK_TAG, &mark)]))
    }
}

/// What the tag of an estimated fragment says: when its first block may have been, in ms since 1970.
fn clock_tag(timecode_ms: u64, estimate: Estimate) -> String {
    match estimate.earlier_ms {
        Some(earlier_ms) => {
            format!("estimated from={} to={timecode_ms}", timecode_ms.saturating_sub(earlier_ms))
        }
        None => format!("estimated to={timecode_ms}"),
    }
}

/// Bytes that begin as a cluster of the one time, with the other.
fn set_timecode(bytes: &[u8], from_ms: u64, to_ms: u64) -> Option<Vec<u8>> {
    let rest = bytes.strip_prefix(&*write::cluster_start(from_ms))?;
    let mut set = write::cluster_start(to_ms).to_vec();
    set.extend_from_slice(rest);
    Some(set)
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "stamping_tests.rs"]
mod tests;
