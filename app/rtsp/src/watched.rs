//! Time in which a camera could be seen.

use std::time::{Duration, Instant};

/// A box that stands still (starved, its virtual machine paused) sees nothing meanwhile, and shall not judge a camera by it. Whoever watches looks at the clock at least each `look`; of a step that took longer than twice
/// that only so much counts.
#[derive(Debug)]
pub(crate) struct Watched {
    longest_step: Duration,
    last: Option<Instant>,
    total: Duration,
}

impl Watched {
    pub(crate) fn new(look: Duration) -> Watched {
        Watched { longest_step: look * 2, last: None, total: Duration::ZERO }
    }

    /// Counts the time since the last call, or nothing with the first one, and returns the total.
    pub(crate) fn until(&mut self, now: Instant) -> Duration {
        let passed =
            self.last.replace(now).map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.total += passed.min(self.longest_step);
        self.total
    }

    /// As of the last call.
    pub(crate) fn total(&self) -> Duration {
        self.total
    }

    /// Counts from `now` on.
    pub(crate) fn restart(&mut self, now: Instant) {
        (self.last, self.total) = (Some(now), Duration::ZERO);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_standstill_two_looks_count() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut watched = Watched::new(Duration::from_millis(100));
        assert_eq!(watched.until(begun), Duration::ZERO);
        assert_eq!(watched.until(at(100)), Duration::from_millis(100));
        assert_eq!(watched.until(at(5000)), Duration::from_millis(300));
        assert_eq!(watched.until(at(4000)), Duration::from_millis(300));
        assert_eq!(watched.until(at(4050)), Duration::from_millis(350));
        assert_eq!(watched.total(), Duration::from_millis(350));
    }

    #[test]
    fn it_begins_anew() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut watched = Watched::new(Duration::from_secs(1));
        watched.restart(begun);
        assert_eq!(watched.until(at(700)), Duration::from_millis(700));
        watched.restart(at(800));
        assert_eq!(watched.until(at(1300)), Duration::from_millis(500));
    }
}
