//! How much per second: a token bucket that holds one second's worth and begins full. Time comes in as
//! arguments.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Amounts are kept in billionths, so that an amount per second times nanoseconds is exact.
const ONE: u128 = 1_000_000_000;

/// One limit, shared by all that it is for.
#[derive(Debug)]
pub(crate) struct Rate(Option<Mutex<Bucket>>);

impl Rate {
    /// `None`: not limited. Zero counts as one.
    pub(crate) fn new(per_second: Option<impl Into<u64>>, now: Instant) -> Self {
        Self(per_second.map(|per_second| Mutex::new(Bucket::new(per_second.into(), now))))
    }

    pub(crate) fn unlimited() -> Self {
        Self(None)
    }

    /// See [`Bucket::book`].
    pub(crate) fn book(&self, amount: u64, now: Instant) -> Duration {
        self.with(Duration::ZERO, |bucket| bucket.book(amount, now))
    }

    /// See [`Bucket::take`].
    pub(crate) fn take(&self, amount: u64, now: Instant) -> bool {
        self.with(true, |bucket| bucket.take(amount, now))
    }

    fn with<T>(&self, unlimited: T, work: impl FnOnce(&mut Bucket) -> T) -> T {
        let Some(bucket) = &self.0 else { return unlimited };
        work(&mut bucket.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug)]
pub(crate) struct Bucket {
    per_second: u128,
    /// Taken out and not yet flowed back, in billionths; more than the bucket holds if it was overdrawn.
    owed: u128,
    at: Instant,
}

impl Bucket {
    pub(crate) fn new(per_second: u64, now: Instant) -> Self {
        Self { per_second: per_second.max(1).into(), owed: 0, at: now }
    }

    /// Takes out `amount` whatever is left. How long to wait until the bucket has it.
    pub(crate) fn book(&mut self, amount: u64, now: Instant) -> Duration {
        self.flow_back(now);
        self.owed = self.owed.saturating_add(u128::from(amount) * ONE);
        let nanos = self.owed.saturating_sub(self.per_second * ONE).div_ceil(self.per_second);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Takes out `amount` if the bucket has it; `false`: takes nothing. More than it can hold is given when it
    /// is full, and nothing more until that has flowed back.
    pub(crate) fn take(&mut self, amount: u64, now: Instant) -> bool {
        self.flow_back(now);
        let owed = self.owed.saturating_add(u128::from(amount) * ONE);
        let given = self.owed == 0 || owed <= self.per_second * ONE;
        if given {
            self.owed = owed;
        }
        given
    }

    fn flow_back(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at);
        self.at += elapsed;
        self.owed = self.owed.saturating_sub(elapsed.as_nanos().saturating_mul(self.per_second));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A fixed time and a full bucket.
    fn bucket(per_second: u64) -> (Instant, Bucket) {
        let t0 = clock::Clock::system().now();
        (t0, Bucket::new(per_second, t0))
    }

    #[test]
    fn a_second_s_worth_is_given_at_once_and_then_one_after_the_other() {
        for rate in [1, 3, 5, 7, 300] {
            let (t0, mut bucket) = bucket(rate);
            for _ in 0..rate {
                assert!(bucket.take(1, t0));
            }
            assert!(!bucket.take(1, t0));
            // The next one is there after 1/rate seconds, and not before.
            let gap = Duration::from_nanos(1_000_000_000_u64.div_ceil(rate));
            assert!(!bucket.take(1, t0 + gap - Duration::from_nanos(1)), "{rate} per second");
            assert!(bucket.take(1, t0 + gap), "{rate} per second");
            assert!(!bucket.take(1, t0 + gap));
        }
    }

    #[test]
    fn no_more_than_a_second_s_worth_is_saved_up() {
        let (t0, mut bucket) = bucket(5);
        let later = t0 + SECOND * 3600;
        assert_eq!((0..100).filter(|_| bucket.take(1, later)).count(), 5);
    }

    #[test]
    fn what_is_refused_costs_nothing() {
        let (t0, mut bucket) = bucket(10);
        assert!(bucket.take(8, t0));
        assert!(!bucket.take(3, t0));
        assert!(bucket.take(2, t0));
    }

    #[test]
    fn more_than_the_bucket_holds_is_given_from_a_full_one_and_paid_back() {
        let (t0, mut bucket) = bucket(500);
        assert!(bucket.take(1000, t0));
        assert!(!bucket.take(1, t0 + SECOND));
        assert!(bucket.take(1, t0 + SECOND + Duration::from_millis(2)));
        assert!(!bucket.take(1000, t0 + SECOND * 2));
        assert!(bucket.take(1000, t0 + SECOND * 3));
    }

    #[test]
    fn bookings_wait_until_their_amount_has_flowed_in() {
        let (t0, mut bucket) = bucket(1000);
        assert_eq!(bucket.book(1000, t0), Duration::ZERO);
        assert_eq!(bucket.book(1, t0), Duration::from_millis(1));
        assert_eq!(bucket.book(4999, t0), SECOND * 5);
        assert_eq!(bucket.book(0, t0 + SECOND), SECOND * 4);
        assert_eq!(bucket.book(500, t0 + SECOND * 6), Duration::from_millis(0));
    }

    #[test]
    fn a_stream_of_bookings_keeps_the_rate() {
        let (t0, mut bucket) = bucket(12_500_000);
        let mut now = t0;
        for _ in 0..1000 {
            now += bucket.book(100_000, now);
        }
        // 100 MB, of which 12.5 MB were in the bucket.
        assert_eq!(now - t0, SECOND * 7);
    }

    #[test]
    fn extremes_neither_panic_nor_pass() {
        let (t0, mut bucket) = bucket(0);
        assert!(bucket.take(1, t0));
        assert!(!bucket.take(1, t0));
        assert_eq!(bucket.book(u64::MAX, t0), Duration::from_nanos(u64::MAX));
        let (t0, mut bucket) = self::bucket(u64::MAX);
        assert_eq!(bucket.book(u64::MAX, t0), Duration::ZERO);
        assert_eq!(bucket.book(1, t0), Duration::from_nanos(1));
        assert!(bucket.take(1, t0 + SECOND * u32::MAX));
        // A clock that went back takes nothing away and gives nothing.
        assert!(bucket.take(1, t0));
    }

    #[test]
    fn no_limit_gives_everything() {
        let now = clock::Clock::system().now();
        let rate = Rate::unlimited();
        assert!(rate.take(u64::MAX, now) && rate.take(1, now));
        assert_eq!(rate.book(u64::MAX, now), Duration::ZERO);
    }
}
