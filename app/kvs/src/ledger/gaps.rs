//! Producer time that is not in KVS: lost fragments in a row are one gap.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use media::ProducerTimestamp;

use super::LossReason;

/// Lost fragments that are no further apart are one gap; the shortest fragment lasts a second.
const ONE_GAP_MS: u64 = 500;
/// Notes of when gaps began; more in a day are not told apart.
const MOST_NOTES: usize = 100_000;

/// A stretch of producer time that is not in KVS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    pub start: ProducerTimestamp,
    /// Time of the last block that is lost.
    pub end: ProducerTimestamp,
    pub reason: LossReason,
    /// What lay behind the reason when its newest fragment was given up, such as why KVS could not be reached.
    pub because: Option<String>,
    /// When its first fragment was given up.
    pub noted: Instant,
    /// Footage behind it has been persisted: it grows no more.
    pub closed: bool,
    /// Fragments in it.
    pub fragments: u64,
}

#[derive(Debug)]
pub(super) struct Gaps {
    most: usize,
    gaps: VecDeque<Gap>,
    notes: VecDeque<Instant>,
}

impl Gaps {
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), gaps: VecDeque::new(), notes: VecDeque::new() }
    }

    pub(super) fn lost(
        &mut self,
        start: ProducerTimestamp,
        end: ProducerTimestamp,
        reason: LossReason,
        because: Option<&str>,
        now: Instant,
    ) {
        let follows = |gap: &Gap| {
            gap.start <= start && start.as_millis() <= gap.end.as_millis().saturating_add(ONE_GAP_MS)
        };
        if let Some(gap) = self.gaps.back_mut().filter(|gap| gap.reason == reason && follows(gap)) {
            gap.end = gap.end.max(end);
            gap.fragments += 1;
            gap.because = because.map(str::to_owned).or_else(|| gap.because.take());
            return;
        }
        if self.gaps.len() == self.most {
            self.gaps.pop_front();
        }
        if self.notes.len() == MOST_NOTES {
            self.notes.pop_front();
        }
        self.notes.push_back(now);
        let because = because.map(str::to_owned);
        self.gaps.push_back(Gap { start, end, reason, because, noted: now, closed: false, fragments: 1 });
    }

    /// A fragment that was given up is there after all. A gap of several keeps its times.
    pub(super) fn heal(&mut self, timecode: ProducerTimestamp) {
        let Some(at) = self.gaps.iter().position(|gap| (gap.start..=gap.end).contains(&timecode)) else {
            return;
        };
        self.gaps[at].fragments -= 1;
        if self.gaps[at].fragments == 0 {
            let noted = self.gaps[at].noted;
            self.gaps.remove(at);
            if let Some(at) = self.notes.iter().position(|note| *note == noted) {
                self.notes.remove(at);
            }
        }
    }

    /// Footage of this time is in KVS: gaps before it are closed.
    pub(super) fn persisted(&mut self, timecode: ProducerTimestamp) {
        for gap in self.gaps.iter_mut().rev().take_while(|gap| !gap.closed) {
            gap.closed = timecode > gap.end;
        }
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Gap> {
        self.gaps.iter()
    }

    pub(super) fn within(&self, within: Duration, now: Instant) -> u64 {
        let recent = self.notes.iter().rev();
        recent.take_while(|note| now.saturating_duration_since(**note) < within).count() as u64
    }
}
