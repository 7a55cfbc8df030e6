//! Whether a session carries what the camera delivers, or falls behind for good.
//!
//! A link that is slow breaks nothing, so no session ends by it; the backlog grows until something is lost. A backlog that
//! shrinks, after an outage, is no slow link.

use std::time::{Duration, Instant};

/// So long is looked at each time.
const STRETCH: Duration = Duration::from_secs(30);

/// What the link carries against what is recorded, in bits a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    pub carried: u64,
    pub recorded: u64,
}

#[derive(Debug, Default)]
pub(super) struct Pace {
    recorded_bytes: u64,
    begun: Option<Begun>,
    slow: Option<Rates>,
}

/// Where the stretch that is looked at began.
#[derive(Clone, Copy, Debug)]
struct Begun {
    at: Instant,
    recorded_bytes: u64,
    carried_bytes: u64,
}

impl Pace {
    pub(super) fn recorded(&mut self, bytes: usize) {
        self.recorded_bytes += bytes as u64;
    }

    /// What one session carried says nothing of the next.
    pub(super) fn interrupted(&mut self) {
        self.begun = None;
    }

    /// `behind`: something waits that the link has not taken; `carried_bytes`: what it took of this session. Returns what is
    /// new: it falls behind, or no longer.
    pub(super) fn look(&mut self, behind: bool, carried_bytes: u64, now: Instant) -> Option<Option<Rates>> {
        let here = Begun { at: now, recorded_bytes: self.recorded_bytes, carried_bytes };
        if !behind {
            self.begun = None;
            return self.slow.take().map(|_| None);
        }
        let begun = *self.begun.get_or_insert(here);
        let took = now.saturating_duration_since(begun.at);
        if took < STRETCH {
            return None;
        }
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let rate = |from: u64, to: u64| to.saturating_sub(from).saturating_mul(8_000) / took_ms;
        let rates = Rates {
            carried: rate(begun.carried_bytes, carried_bytes),
            recorded: rate(begun.recorded_bytes, self.recorded_bytes),
        };
        self.begun = Some(here);
        let before = self.slow.is_some();
        self.slow = (rates.carried < rates.recorded).then_some(rates);
        (before || self.slow.is_some()).then_some(self.slow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoch;

    #[test]
    fn who_carries_less_than_is_recorded_is_slow_until_that_changes() {
        let (mut pace, mut now, mut carried) = (Pace::default(), epoch(), 0);
        let mut stretch = |recorded: usize, carries: u64, behind: bool| {
            let mut told = None;
            for _ in 0..31 {
                told = pace.look(behind, carried, now).or(told);
                pace.recorded(recorded);
                carried += carries;
                now += Duration::from_secs(1);
            }
            told
        };
        assert_eq!(stretch(1000, 1000, false), None, "nothing waits");
        let slow = stretch(1000, 250, true).flatten().expect("it falls behind");
        assert_eq!((slow.recorded, slow.carried), (8_000, 2_000));
        assert_eq!(stretch(1000, 5000, true), Some(None), "a backlog that shrinks is none");
        assert_eq!(stretch(1000, 5000, true), None, "told once");
        assert!(matches!(stretch(1000, 0, true), Some(Some(_))));
        assert_eq!(stretch(1000, 0, false), Some(None), "nothing waits any more");
    }
}
