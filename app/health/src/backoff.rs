//! How long to wait before the next try: doubling, capped, jittered, forgotten after a healthy while.

use std::time::{Duration, Instant};

/// Delays of a supervised thing that keeps failing.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    /// A run of at least this length counts as healthy and resets the delay.
    healthy: Duration,
    failures: u32,
    up_since: Option<Instant>,
}

impl Backoff {
    pub fn new(first: Duration, cap: Duration, healthy: Duration) -> Self {
        Self { first, cap, healthy, failures: 0, up_since: None }
    }

    /// The supervised thing works since `now`. Further calls keep the first time.
    pub fn up(&mut self, now: Instant) {
        self.up_since.get_or_insert(now);
    }

    /// It failed at `now`; wait this long. `random` in 0..1 spreads many boxes that lost the same peer: the
    /// delay is 50 % to 100 % of the step.
    pub fn failed(&mut self, now: Instant, random: f64) -> Duration {
        if self.up_since.take().is_some_and(|since| now.saturating_duration_since(since) >= self.healthy) {
            self.failures = 0;
        }
        let step =
            self.first.saturating_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(self.cap);
        self.failures = self.failures.saturating_add(1);
        let random = if random.is_finite() { random.clamp(0.0, 1.0) } else { 0.0 };
        step.mul_f64(0.5 + random / 2.0)
    }

    /// Failures since the last healthy run.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoch;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn doubles_to_the_cap_and_resets_after_a_healthy_run() {
        let mut backoff = Backoff::new(500 * MS, 4000 * MS, 60_000 * MS);
        let now = epoch();
        let delays: Vec<_> = (0..5).map(|_| backoff.failed(now, 1.0).as_millis()).collect();
        assert_eq!(delays, [500, 1000, 2000, 4000, 4000]);
        backoff.up(now);
        assert_eq!(backoff.failed(now + 59_000 * MS, 1.0), 4000 * MS, "a short run is no recovery");
        backoff.up(now);
        backoff.up(now + 59_000 * MS);
        assert_eq!(backoff.failed(now + 60_000 * MS, 0.0), 250 * MS);
    }

    #[test]
    fn never_overflows() {
        let mut backoff = Backoff::new(500 * MS, 30_000 * MS, 60_000 * MS);
        assert!((0..100).all(|_| backoff.failed(epoch(), f64::NAN) <= 30_000 * MS));
    }
}
