//! What happened lately: how often, and how long it took.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// More marks than this in the window are not told apart.
const MOST: usize = 10_000;

/// Median and 95th percentile, ms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percentiles {
    pub p50_ms: f64,
    pub p95_ms: f64,
}

/// Counts events inside a sliding window.
#[derive(Clone, Debug)]
pub struct Recent {
    window: Duration,
    marks: VecDeque<Instant>,
}

impl Recent {
    pub fn hour() -> Self {
        Self { window: Duration::from_secs(3600), marks: VecDeque::new() }
    }

    pub fn add(&mut self, now: Instant) {
        self.forget(now);
        if self.marks.len() == MOST {
            self.marks.pop_front();
        }
        self.marks.push_back(now);
    }

    pub fn count(&self, now: Instant) -> u32 {
        let fresh = self.marks.iter().filter(|mark| now.saturating_duration_since(**mark) < self.window);
        u32::try_from(fresh.count()).unwrap_or(u32::MAX)
    }

    fn forget(&mut self, now: Instant) {
        while self.marks.front().is_some_and(|mark| now.saturating_duration_since(*mark) >= self.window) {
            self.marks.pop_front();
        }
    }
}

/// The newest values of a quantity, for percentiles.
#[derive(Clone, Debug)]
pub struct Samples {
    most: usize,
    values: VecDeque<f32>,
    total: u64,
}

impl Samples {
    /// Keeps the newest `most` values.
    pub fn new(most: usize) -> Self {
        Self { most, values: VecDeque::new(), total: 0 }
    }

    #[expect(clippy::cast_possible_truncation, reason = "milliseconds need no more than f32's 24 bits")]
    pub fn add(&mut self, value: f64) {
        if self.values.len() == self.most {
            self.values.pop_front();
        }
        self.values.push_back(value as f32);
        self.total += 1;
    }

    /// Values ever added.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Median and 95th percentile (nearest rank); `None` while empty.
    pub fn percentiles(&self) -> Option<Percentiles> {
        let mut sorted: Vec<_> = self.values.iter().copied().collect();
        sorted.sort_unstable_by(f32::total_cmp);
        let rank =
            |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        // A tenth of a millisecond is finer than any of the clocks involved.
        let round = |value: f32| (f64::from(value) * 10.0).round() / 10.0;
        Some(Percentiles { p50_ms: round(rank(50)?), p95_ms: round(rank(95)?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank_over_the_newest() {
        let mut samples = Samples::new(100);
        assert_eq!(samples.percentiles(), None);
        samples.add(7.0);
        assert_eq!(samples.percentiles(), Some(Percentiles { p50_ms: 7.0, p95_ms: 7.0 }));
        (1..=100).rev().for_each(|value| samples.add(f64::from(value)));
        assert_eq!(samples.percentiles(), Some(Percentiles { p50_ms: 50.0, p95_ms: 95.0 }));
        assert_eq!(samples.total(), 101);
    }

    #[test]
    fn marks_leave_the_window() {
        let (mut recent, start) = (Recent::hour(), crate::epoch());
        recent.add(start);
        recent.add(start + Duration::from_secs(3000));
        assert_eq!(recent.count(start + Duration::from_secs(3599)), 2);
        assert_eq!(recent.count(start + Duration::from_secs(3600)), 1);
        (0..MOST + 5).for_each(|_| recent.add(start + Duration::from_secs(9000)));
        assert_eq!(recent.marks.len(), MOST);
    }
}
