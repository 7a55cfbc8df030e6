//! How much may be read back: a part of an hour's bytes at once, the rest evenly.

use std::time::{Duration, Instant};

const HOUR: Duration = Duration::from_secs(3600);

/// Bytes that may be read. In no hour more than `per_hour` are, but for the rest of a fragment that was begun.
#[derive(Clone, Debug)]
pub struct Budget {
    per_hour: u64,
    /// Below 0 after a fragment that was larger than expected.
    left: i64,
    at: Instant,
}

impl Budget {
    pub fn new(per_hour: u64, now: Instant) -> Self {
        Self { per_hour, left: signed(burst(per_hour)), at: now }
    }

    /// Whether so many may be read now. What is larger than is ever allowed at once is, when all of that is left.
    pub fn allows(&mut self, bytes: u64, now: Instant) -> bool {
        self.refill(now);
        self.left >= signed(bytes.min(burst(self.per_hour)))
    }

    pub fn spend(&mut self, bytes: u64, now: Instant) {
        self.refill(now);
        self.left = self.left.saturating_sub(signed(bytes));
    }

    /// When so many may be read.
    pub fn ready_at(&self, bytes: u64) -> Instant {
        let missing = signed(bytes.min(burst(self.per_hour))).saturating_sub(self.left);
        let missing = u64::try_from(missing).unwrap_or(0);
        let ms = u128::from(missing) * HOUR.as_millis() / u128::from(rate(self.per_hour).max(1));
        self.at + Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX).saturating_add(1))
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        let bytes = u128::from(rate(self.per_hour)) * passed.as_millis() / HOUR.as_millis();
        // Less than a byte's time is not forgotten.
        if bytes > 0 {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            self.left = self.left.saturating_add(bytes).min(signed(burst(self.per_hour)));
            self.at = now;
        }
    }
}

/// At once.
fn burst(per_hour: u64) -> u64 {
    per_hour / 4
}

/// Evenly over an hour.
fn rate(per_hour: u64) -> u64 {
    per_hour - burst(per_hour)
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::epoch;

    proptest! {
        /// However often and for whatever it is asked, no hour has more than it may, and waiting as long as told is enough.
        #[test]
        fn no_hour_has_more_than_it_may(
            per_hour in 4_u64..1 << 40,
            asks in prop::collection::vec((0_u64..1 << 32, 0_u64..600_000), 1..200),
        ) {
            let mut budget = Budget::new(per_hour, epoch());
            let (mut now, mut spent) = (epoch(), Vec::<(Instant, u64)>::new());
            for (bytes, pause_ms) in asks {
                now += Duration::from_millis(pause_ms);
                let bytes = bytes % (per_hour / 4).max(1);
                if budget.allows(bytes, now) {
                    budget.spend(bytes, now);
                    spent.push((now, bytes));
                } else {
                    prop_assert!(budget.ready_at(bytes) > now);
                    prop_assert!(budget.clone().allows(bytes, budget.ready_at(bytes) + Duration::from_millis(1000)));
                }
                let hour = spent.iter().filter(|(at, _)| now.saturating_duration_since(*at) < HOUR);
                prop_assert!(hour.map(|(_, bytes)| bytes).sum::<u64>() <= per_hour);
            }
        }
    }

    #[test]
    fn what_is_larger_than_all_of_it_is_read_when_all_is_there() {
        let mut budget = Budget::new(1000, epoch());
        assert!(budget.allows(1 << 40, epoch()));
        budget.spend(5000, epoch());
        assert!(!budget.allows(1, epoch() + HOUR));
        assert!(budget.allows(1 << 40, epoch() + HOUR * 8));
    }
}
