//! Which picture belongs to which access unit.
//!
//! A unit enters the pipeline under an invented time, its key: whole milliseconds from the start of the run, in
//! presentation order. The run's start is moved on after each break, so that keys never go back, whatever the camera's
//! clock does. Pictures leave decoders in the order of their keys: a key that is passed over will never come out.

use std::collections::BTreeMap;

use media::ProducerTimestamp;

/// Between two runs, and in front of the first: room for pictures that are shown before the one that comes first.
const GAP_MS: u64 = 10_000;
/// Longest run of a stream without a break: beyond that the camera's time has jumped.
const RUN_MS: u64 = 10 * 365 * 86_400_000;
const NS_PER_MS: u64 = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) timestamp: ProducerTimestamp,
    /// Width and height of the coded picture.
    pub(crate) source: (u32, u32),
    /// Damaged before it was decoded, and counted then.
    pub(crate) broken: bool,
}

#[derive(Debug)]
pub(crate) struct Ledger {
    /// Entries at most.
    places: usize,
    /// By key, in nanoseconds.
    pending: BTreeMap<u64, Entry>,
    /// Producer time and key of the run's first unit, both in milliseconds.
    run: Option<(u64, u64)>,
    /// Latest key and producer time so far, in milliseconds.
    latest_key: u64,
    latest: u64,
}

impl Ledger {
    /// For this many units in flight at most; when there are more, the first are lost.
    pub(crate) fn new(places: usize) -> Ledger {
        Ledger { places: places.max(1), pending: BTreeMap::new(), run: None, latest_key: 0, latest: 0 }
    }

    /// The next unit begins a run: what it says about time has nothing to do with what was before.
    pub(crate) fn begin(&mut self, at: ProducerTimestamp) {
        let key = self.latest_key.saturating_add(GAP_MS);
        self.run = Some((at.as_millis(), key));
        self.latest = at.as_millis();
    }

    /// Whether the time of this random access point lies behind all times of its run.
    pub(crate) fn continues(&self, at: ProducerTimestamp) -> bool {
        self.run.is_some() && at.as_millis() > self.latest
    }

    /// Takes a unit; returns its key, and the number of intact units that had to give way.
    ///
    /// `None` when its time is too far from the start of the run, or no run has begun.
    pub(crate) fn add(&mut self, entry: Entry) -> Option<(u64, u64)> {
        let at = entry.timestamp.as_millis();
        let (start, start_key) = self.run?;
        let key = match at.checked_sub(start) {
            Some(after) if after <= RUN_MS => start_key.checked_add(after)?,
            Some(_) => return None,
            None => start_key.checked_sub(start - at).filter(|key| start_key - key < GAP_MS)?,
        };
        self.latest_key = self.latest_key.max(key);
        self.latest = self.latest.max(at);
        let mut key = key.checked_mul(NS_PER_MS)?;
        // Two pictures of one time: the second gets a key of its own, within the millisecond.
        while self.pending.contains_key(&key) {
            key += 1;
        }
        let mut lost = 0;
        while self.pending.len() >= self.places {
            lost += u64::from(self.pending.pop_first().is_some_and(|(_, entry)| !entry.broken));
        }
        self.pending.insert(key, entry);
        Some((key, lost))
    }

    /// Intact units whose pictures have not come out.
    pub(crate) fn in_flight(&self) -> u64 {
        intact(self.pending.values())
    }

    /// The unit whose picture came out, and the number of intact units in front of it that gave no picture.
    pub(crate) fn take(&mut self, key: Option<u64>) -> Option<(Entry, u64)> {
        let key = key?;
        let entry = self.pending.remove(&key)?;
        let later = self.pending.split_off(&key);
        let passed_over = std::mem::replace(&mut self.pending, later);
        Some((entry, intact(passed_over.values())))
    }
}

fn intact<'a>(entries: impl Iterator<Item = &'a Entry>) -> u64 {
    entries.map(|entry| u64::from(!entry.broken)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(ms: u64) -> Entry {
        Entry { timestamp: ProducerTimestamp::from_millis(ms), source: (320, 192), broken: false }
    }

    fn begun(ms: u64) -> Ledger {
        let mut ledger = Ledger::new(256);
        ledger.begin(ProducerTimestamp::from_millis(ms));
        ledger
    }

    fn key(ledger: &mut Ledger, ms: u64) -> u64 {
        ledger.add(entry(ms)).expect("within the run").0
    }

    #[test]
    fn pictures_get_their_units_in_presentation_order() {
        let mut ledger = begun(1_000);
        let keys = [1_000, 1_120, 1_040, 1_080].map(|ms| (ms, key(&mut ledger, ms)));
        let mut sorted = keys;
        sorted.sort_unstable();
        assert!(sorted.windows(2).all(|pair| pair[0].1 < pair[1].1));
        for (ms, key) in sorted {
            assert_eq!(ledger.take(Some(key)), Some((entry(ms), 0)));
            assert_eq!(ledger.take(Some(key)), None, "only once");
        }
        assert_eq!(ledger.take(None), None);
    }

    #[test]
    fn units_that_are_passed_over_are_lost() {
        let mut ledger = begun(0);
        let keys = [0, 40, 80, 120].map(|ms| key(&mut ledger, ms));
        ledger.add(Entry { broken: true, ..entry(60) });
        assert_eq!(ledger.take(Some(keys[2])), Some((entry(80), 2)));
        assert_eq!(ledger.take(Some(keys[3])), Some((entry(120), 0)));
    }

    #[test]
    fn keys_rise_where_time_runs_back() {
        let mut ledger = begun(u64::MAX - 5);
        let last = key(&mut ledger, u64::MAX);
        assert!(!ledger.continues(ProducerTimestamp::from_millis(7)));
        ledger.begin(ProducerTimestamp::from_millis(7));
        assert!(key(&mut ledger, 7) > last);
        assert!(key(&mut ledger, 3) > last, "shown before the first of its run");
        assert!(ledger.continues(ProducerTimestamp::from_millis(8)));
    }

    #[test]
    fn times_far_from_the_run_are_refused_and_equal_ones_kept_apart() {
        let mut ledger = begun(100_000);
        assert_ne!(key(&mut ledger, 100_000), key(&mut ledger, 100_000));
        assert_eq!(ledger.add(entry(80_000)), None);
        assert_eq!(ledger.add(entry(u64::MAX)), None);
        assert_eq!(Ledger::new(256).add(entry(0)), None);
    }

    #[test]
    fn it_is_bounded() {
        let mut ledger = begun(0);
        let lost: u64 = (0..1_000).map(|ms| ledger.add(entry(ms)).expect("within the run").1).sum();
        assert_eq!(lost, 1_000 - 256);
    }
}
