//! When the pictures of a loop are taken.

use serde::{Deserialize, Serialize};

use super::ClipSpec;

/// Ticks of the RTP clock of video in a second (RFC 6184 8.2.1).
pub(crate) const TICKS: u64 = 90_000;

/// Moments within the loop, in ticks of 90 kHz. Loops follow one another since 1970 without a gap, so a picture's
/// capture time is exact in RTP time, and each is later than the one before whatever the loop's length is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Timing {
    /// By presentation index; begins with 0, strictly increasing.
    ticks: Vec<u64>,
    /// More than the last of them.
    length: u64,
}

impl Timing {
    /// Evenly over the loop, which is whole seconds.
    pub(super) fn of_scene(spec: &ClipSpec) -> Timing {
        let fps = u64::from(spec.fps);
        let ticks = (0..u64::from(spec.pictures())).map(|index| index * TICKS / fps).collect();
        Timing { ticks, length: u64::from(spec.loop_seconds) * TICKS }
    }

    /// Of pictures with these times, in coding order, at least one; also the presentation index of each. The last lasts as
    /// long as they do on average.
    pub(super) fn of_file(times_ns: &[u64]) -> (Vec<u32>, Timing) {
        let first = times_ns.iter().min().copied().unwrap_or_default();
        let mut shown: Vec<usize> = (0..times_ns.len()).collect();
        shown.sort_by_key(|&position| times_ns[position]); // stable: what has the same time stays in coding order
        let mut order = vec![0; times_ns.len()];
        let mut ticks: Vec<u64> = Vec::with_capacity(times_ns.len());
        for (index, &position) in (0..).zip(&shown) {
            order[position] = index;
            let since_ns = u128::from(times_ns[position] - first);
            let tick = (since_ns * u128::from(TICKS) + 500_000_000) / 1_000_000_000;
            let earliest = ticks.last().map_or(0, |last| last + 1);
            ticks.push(u64::try_from(tick).unwrap_or(u64::MAX / 4).max(earliest));
        }
        let intervals = ticks.len().saturating_sub(1) as u64;
        let last = ticks.last().copied().unwrap_or_default();
        let average = (last + intervals / 2).checked_div(intervals).unwrap_or(TICKS / 25);
        (order, Timing { ticks, length: last + average.max(1) })
    }

    pub(crate) fn pictures(&self) -> usize {
        self.ticks.len()
    }

    /// Rounded, at least 1.
    pub(crate) fn pictures_per_second(&self) -> u32 {
        let rate = (self.ticks.len() as u64 * TICKS + self.length / 2) / self.length;
        u32::try_from(rate).unwrap_or(u32::MAX).max(1)
    }

    /// Ticks since 1970 at which the picture with a presentation number since 1970 is taken.
    pub(crate) fn capture(&self, number: u64) -> u64 {
        let count = self.ticks.len() as u64;
        let within = usize::try_from(number % count).expect("less than a vector's length");
        number / count * self.length + self.ticks[within]
    }

    /// The number since 1970 of the first picture that is taken at a tick or later.
    pub(crate) fn first_from(&self, tick: u64) -> u64 {
        let within = self.ticks.partition_point(|&at| at < tick % self.length);
        tick / self.length * self.ticks.len() as u64 + within as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_of_a_file_are_taken_in_the_order_of_their_times() {
        let ms = |ms: u64| 5_000_000_000 + ms * 1_000_000;
        let (order, timing) = Timing::of_file(&[ms(0), ms(120), ms(40), ms(40), ms(240)]);
        assert_eq!(order, [0, 3, 1, 2, 4]);
        assert_eq!(timing.ticks, [0, 3600, 3601, 10_800, 21_600], "two with one time are a tick apart");
        assert_eq!((timing.length, timing.pictures_per_second()), (27_000, 17));
        assert_eq!(Timing::of_file(&[ms(7)]).1, Timing { ticks: vec![0], length: 3600 });
    }

    #[test]
    fn every_picture_of_every_loop_is_later_than_the_one_before() {
        // 7 pictures in 0.7007 s: no minute, and no second, is a whole number of loops.
        let times: Vec<u64> = (0..7).map(|n| n * 100_100_000).collect();
        let (_, timing) = Timing::of_file(&times);
        let day = timing.first_from(20_000 * 86_400 * TICKS);
        for number in day..day + 10_000 {
            let (at, next) = (timing.capture(number), timing.capture(number + 1));
            assert_eq!(next - at, 9009, "the end of a loop is no seam");
            assert_eq!(timing.first_from(at), number);
            assert_eq!(timing.first_from(at + 1), number + 1);
        }
    }

    #[test]
    fn the_scene_is_taken_on_the_whole_second() {
        let timing = Timing::of_scene(&ClipSpec { fps: 30, loop_seconds: 4, ..ClipSpec::small() });
        let number = 1_700_000_000 * 30;
        assert_eq!(timing.capture(number), 1_700_000_000 * TICKS);
        assert_eq!(timing.capture(number + 1) - timing.capture(number), 3000);
    }
}
