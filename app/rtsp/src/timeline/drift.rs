//! How fast a camera's clock runs against the monotonic clock of the box.
//!
//! A sender report says what the camera's clock showed when it left, and arrives later: delay makes the clock look slower, never
//! faster. Of each minute the report that was on its way for the shortest time counts; a straight line through the minutes is
//! the drift.

use std::collections::VecDeque;

use super::Micros;

const MINUTE_US: Micros = 60_000_000;
/// Through fewer minutes a line says little: a jitter of 1 ms over 5 minutes are 3 millionths.
const FEWEST_MINUTES: usize = 5;
const MOST_MINUTES: usize = 60;
/// A clock that moved by more than this, and a thousandth of the time that passed, was set: what was before says nothing of it.
const SET_US: u64 = 500_000;

/// Measures one clock.
#[derive(Clone, Debug, Default)]
pub(super) struct Drift {
    /// Of each minute the best report: when it came, and how far the camera's clock was ahead then.
    minutes: VecDeque<(Micros, Micros)>,
    newest: Option<(Micros, Micros)>,
}

impl Drift {
    /// The camera's clock showed `ntp` in a report that came at `monotonic`.
    pub(super) fn report(&mut self, ntp: Micros, monotonic: Micros) {
        let ahead = ntp.saturating_sub(monotonic);
        let was_set = self.newest.is_some_and(|(at, before)| {
            ahead.abs_diff(before) > SET_US.saturating_add(monotonic.abs_diff(at) / 1000)
        });
        if was_set {
            self.minutes.clear();
        }
        self.newest = Some((monotonic, ahead));
        let minute = |at: Micros| at.div_euclid(MINUTE_US);
        match self.minutes.back_mut() {
            Some((at, best)) if minute(*at) == minute(monotonic) => {
                if ahead > *best {
                    (*at, *best) = (monotonic, ahead);
                }
            }
            _ => self.minutes.push_back((monotonic, ahead)),
        }
        if self.minutes.len() > MOST_MINUTES {
            self.minutes.pop_front();
        }
    }

    /// Millionths by which it is faster than ours, of the last hour; absent until a few minutes are over.
    pub(super) fn ppm(&self) -> Option<f64> {
        // The newest minute may still bring a better report.
        let whole = self.minutes.len().checked_sub(1).filter(|whole| *whole >= FEWEST_MINUTES)?;
        let (first_at, first_ahead) = *self.minutes.front()?;
        // Seconds, and microseconds: their quotient is in millionths.
        let points = || {
            self.minutes.iter().take(whole).map(|(at, ahead)| {
                (at.saturating_sub(first_at) as f64 / 1e6, ahead.saturating_sub(first_ahead) as f64)
            })
        };
        let count = whole as f64;
        let (at, ahead) = points().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        let (at, ahead) = (at / count, ahead / count);
        let (mut both, mut square) = (0.0, 0.0);
        for point in points() {
            both += (point.0 - at) * (point.1 - ahead);
            square += (point.0 - at) * (point.0 - at);
        }
        (square > 0.0).then(|| both / square)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UTC: Micros = 1_795_186_073_000_000;

    /// A report each 5 s from `from_s` to `to_s`, of a clock that is `ppm` fast; it takes 1 to 40 ms, mostly long.
    fn reports(drift: &mut Drift, from_s: i64, to_s: i64, ppm: i64, ahead_us: i64) {
        for second in (from_s..to_s).step_by(5) {
            let shown = UTC + ahead_us + second * 1_000_000 + second * ppm;
            let delay_us = 1_000 + (second * 7919 % 40) * 1_000;
            drift.report(shown, second * 1_000_000 + delay_us);
        }
    }

    #[test]
    fn a_clock_is_measured_to_a_few_millionths_through_reports_that_are_late() {
        for ppm in [0, 20, -35, 180, -500] {
            let mut drift = Drift::default();
            reports(&mut drift, 0, 300, ppm, 0);
            assert_eq!(drift.ppm(), None, "five minutes are not over");
            reports(&mut drift, 300, 7_200, ppm, 0);
            let found = drift.ppm().expect("an hour");
            assert!((found - ppm as f64).abs() < 3.0, "{ppm}: {found}");
        }
    }

    #[test]
    fn a_clock_that_was_set_is_measured_anew_and_one_that_was_away_is_not() {
        let mut drift = Drift::default();
        reports(&mut drift, 0, 1_200, 50, 0);
        reports(&mut drift, 1_200, 1_300, 50, 60_000_000);
        assert_eq!(drift.ppm(), None);
        reports(&mut drift, 1_300, 3_000, 50, 60_000_000);
        let found = drift.ppm().expect("half an hour");
        assert!((found - 50.0).abs() < 5.0, "{found}");
        // A day without the camera: 4.3 s that it gained are no jump.
        reports(&mut drift, 90_000, 90_100, 50, 60_000_000);
        let found = drift.ppm().expect("what was before still counts");
        assert!((found - 50.0).abs() < 5.0, "{found}");
    }
}
