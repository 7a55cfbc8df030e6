//! When a bad verdict is worth an alarm.
//!
//! ```text
//!  quiet --bad--> waiting --bad for alarm_after_s--> raised --good--> quiet
//!    ^               |                                  |
//!    +-----good------+          unknown changes nothing +
//! ```

use std::time::{Duration, Instant, SystemTime};

use kvs::proof::schedule::Verdict;

/// Of one camera.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watch {
    /// Since when the verdict is bad, by both clocks.
    bad: Option<(Instant, SystemTime)>,
    /// What the broker was told last; `None`: what a life before this one has told.
    raised: Option<bool>,
}

/// What to tell the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tell {
    Raise { since: SystemTime },
    Clear,
}

impl Watch {
    /// What the verdict of now changes.
    pub(super) fn look(
        &mut self,
        verdict: Verdict,
        after: Duration,
        now: Instant,
        wall: SystemTime,
    ) -> Option<Tell> {
        match verdict {
            Verdict::Late | Verdict::Gap | Verdict::Mismatch => {
                let (began, since) = *self.bad.get_or_insert((now, wall));
                let is_long = now.saturating_duration_since(began) >= after;
                (is_long && self.raised.replace(true) != Some(true)).then_some(Tell::Raise { since })
            }
            Verdict::Ok => {
                self.bad = None;
                (self.raised.replace(false) != Some(false)).then_some(Tell::Clear)
            }
            // Nothing was repaired by it.
            Verdict::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const AFTER: Duration = Duration::from_secs(300);

    #[test]
    fn an_alarm_is_raised_once_when_it_stays_bad_and_cleared_once_when_it_is_good() {
        let start = clock::Clock::system().now();
        let at = |s: u64| (start + Duration::from_secs(s), UNIX_EPOCH + Duration::from_secs(s));
        let raise = |s| Some(Tell::Raise { since: at(s).1 });
        let steps = [
            (0, Verdict::Unknown, None),
            // A life before may have raised it.
            (10, Verdict::Ok, Some(Tell::Clear)),
            (20, Verdict::Ok, None),
            (30, Verdict::Late, None),
            (200, Verdict::Mismatch, None),
            (250, Verdict::Ok, None),
            (300, Verdict::Late, None),
            (500, Verdict::Gap, None),
            // Bad is bad, whatever it is called; unknown is no repair.
            (550, Verdict::Unknown, None),
            (600, Verdict::Mismatch, raise(300)),
            (700, Verdict::Mismatch, None),
            (800, Verdict::Unknown, None),
            (900, Verdict::Ok, Some(Tell::Clear)),
            (1000, Verdict::Gap, None),
            (1300, Verdict::Gap, raise(1000)),
        ];
        let mut watch = Watch::default();
        for (s, verdict, expected) in steps {
            let (now, wall) = at(s);
            assert_eq!(watch.look(verdict, AFTER, now, wall), expected, "at {s} s: {verdict:?}");
        }
    }
}
