//! Which pictures are handed on, so that they come at the wanted rate: judged by their times, not by counting.

use media::ProducerTimestamp;

#[derive(Debug)]
pub(crate) struct Pace {
    /// Zero: every picture.
    interval_ms: f64,
    /// When the next picture should come, in milliseconds since the epoch.
    due_ms: Option<f64>,
    previous_ms: f64,
}

impl Pace {
    /// Pictures per second; every picture if that is no positive finite number.
    pub(crate) fn new(rate: f64) -> Pace {
        let mut pace = Pace { interval_ms: 0.0, due_ms: None, previous_ms: f64::INFINITY };
        pace.set_rate(rate);
        pace
    }

    pub(crate) fn set_rate(&mut self, rate: f64) {
        self.interval_ms = if rate.is_finite() && rate > 0.0 { 1000.0 / rate } else { 0.0 };
        self.due_ms = None;
    }

    /// Whether the picture of this time is to be handed on. Times rise, but for breaks.
    pub(crate) fn wants(&mut self, at: ProducerTimestamp) -> bool {
        // 2^53 ms are 285,000 years.
        let at = at.as_millis() as f64;
        let interval = self.interval_ms;
        if interval == 0.0 {
            return true;
        }
        let due = match self.due_ms {
            // Time ran back, so the old plan says nothing.
            Some(due) if due <= at + 2.0 * interval => due,
            _ => at,
        };
        // The picture nearest to the time that is due, so that a camera with jitter at the wanted rate loses none.
        let early = (at - self.previous_ms).clamp(0.0, interval) / 2.0;
        self.previous_ms = at;
        if at + early < due {
            return false;
        }
        // From the time that was due, so that the average is the wanted rate; after a gap, from now.
        self.due_ms = Some(if at - due < interval { due + interval } else { at + interval });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handed_on(rate: f64, times: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut pace = Pace::new(rate);
        let start = 1_795_186_073_633;
        let wants = |at: &u64| pace.wants(ProducerTimestamp::from_millis(start + at));
        times.into_iter().filter(wants).collect()
    }

    #[test]
    fn the_wanted_rate_is_met_evenly() {
        #[track_caller]
        fn check(
            camera_fps: u64,
            rate: f64,
            seconds: u64,
            expected: usize,
            spacing: std::ops::RangeInclusive<u64>,
        ) {
            let times = (0..camera_fps * seconds).map(|n| n * 1000 / camera_fps);
            let chosen = handed_on(rate, times);
            assert!(chosen.len().abs_diff(expected) <= 1, "{camera_fps} to {rate}: {}", chosen.len());
            for pair in chosen.windows(2) {
                assert!(spacing.contains(&(pair[1] - pair[0])), "{camera_fps} to {rate}: {pair:?}");
            }
        }
        check(25, 10.0, 20, 200, 80..=120);
        check(30, 10.0, 20, 200, 99..=101);
        check(30, 5.0, 20, 100, 199..=201);
        check(15, 10.0, 20, 200, 66..=134);
        check(30, 30.0, 20, 600, 33..=34);
        check(30, 0.5, 20, 10, 1999..=2001);
        check(8, 10.0, 20, 160, 125..=125); // of a slower camera every picture
        check(25, f64::INFINITY, 20, 500, 40..=40);
        check(25, f64::NAN, 20, 500, 40..=40);
        check(25, -1.0, 20, 500, 40..=40);
    }

    #[test]
    fn jitter_at_the_wanted_rate_loses_nothing() {
        let times: Vec<u64> = (0..200).map(|n: u64| n * 100 + n * 7 % 15).collect();
        assert_eq!(handed_on(10.0, times.clone()), times);
    }

    #[test]
    fn a_gap_and_a_step_back_begin_anew() {
        assert_eq!(handed_on(10.0, [0, 40, 80, 5000, 5040, 5080, 5120]), [0, 80, 5000, 5080]);
        assert_eq!(handed_on(1.0, [9000, 9500, 10_000, 100, 600, 1100]), [9000, 10_000, 100, 1100]);
    }
}
