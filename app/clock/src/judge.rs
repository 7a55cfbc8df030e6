//! Whether the wall clock may be written into footage, and by how much it has to be corrected. Pure: times come in as
//! arguments.
//!
//! ```text
//!  service's Date ----> bound on (UTC - monotonic), a second wide, narrower with each answer
//!  cameras -----------> where they lie within that bound: the exact value
//!  NTP state ---------> enough by itself while no answer of the service has come
//! ```
//!
//! The service has the last word: it refuses what lies too far from its own time, and its answers are authenticated.
//! Everything is held against monotonic time, so a step of the wall clock shows at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::Trust;

/// The bound of the service may be missed by so much: its `Date` is made before the answer is sent, on one of many machines.
const SLACK_US: i64 = 1_000_000;
/// A system that does not say whether its clock is disciplined, and a service that does not answer: after this wait the clock is
/// taken as it is, or an operator would never see why the service does not answer.
const PATIENCE_US: i64 = 15_000_000;
/// ... unless it is from before this was written: 2026-01-01 in UTC.
const PLAUSIBLE_US: i64 = 1_767_225_600_000_000;
/// A correction stays until it is off by more: reading two clocks one after the other makes some jitter.
const JITTER_US: i64 = 10_000;
/// Monotonic time of a board without discipline drifts by at most so many millionths.
const DRIFT_PPM: i64 = 200;

/// Both clocks at one moment; `wall` as the system has it, without correction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    pub monotonic: Instant,
    pub wall: SystemTime,
}

/// Collects what is known about the time.
#[derive(Clone, Debug)]
pub struct WallJudge {
    epoch: Instant,
    synchronised: Option<bool>,
    service: Option<Bound>,
    /// UTC minus monotonic time, by the camera's name.
    cameras: BTreeMap<String, i64>,
    /// The value inside the bound that was used last; it stays while it can.
    chosen: Option<i64>,
    correction: i64,
}

/// UTC minus monotonic time lies between these, as of monotonic time `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bound {
    low: i64,
    high: i64,
    at: i64,
}

/// What is to be done with the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Of the wall clock with the correction.
    pub trust: Trust,
    pub witness: Witness,
    /// Microseconds that are to be added to the system's wall time; 0 where that is right, or nobody knows.
    pub correction_us: i64,
}

/// Who vouches for the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witness {
    Nobody,
    /// The system says that its clock is disciplined.
    System,
    /// The service's `Date`, to half a second or so.
    Service,
    /// Cameras that agree with the service.
    Cameras,
}

impl WallJudge {
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            synchronised: None,
            service: None,
            cameras: BTreeMap::new(),
            chosen: None,
            correction: 0,
        }
    }

    /// What the system says of its clock: disciplined, not, or nothing.
    pub fn system(&mut self, synchronised: Option<bool>) {
        self.synchronised = synchronised;
    }

    /// The service's clock stood somewhere from `utc` to `error` later at monotonic time `at`. Each answer is told once.
    pub fn service(&mut self, utc: SystemTime, error: Duration, at: Instant) {
        let at = self.monotonic(at);
        let low = micros_since_1970(utc).saturating_sub(at);
        let fresh = Bound { low, high: low.saturating_add(micros(error)), at };
        // Where old and new contradict each other, somebody set the service's clock: the newest counts.
        let both = self.service.map(|old| old.at(at)).map(|old| Bound {
            low: old.low.max(fresh.low),
            high: old.high.min(fresh.high),
            at,
        });
        self.service = Some(both.filter(|both| both.low <= both.high).unwrap_or(fresh));
    }

    /// A camera's clock stood at `utc` at monotonic time `at`.
    pub fn camera(&mut self, name: &str, utc: SystemTime, at: Instant) {
        let offset = self.offset(Reading { monotonic: at, wall: utc });
        self.cameras.insert(name.to_owned(), offset);
    }

    /// Only these cameras still say what time it is.
    pub fn retain_cameras(&mut self, is_there: impl Fn(&str) -> bool) {
        self.cameras.retain(|name, _| is_there(name));
    }

    pub fn judge(&mut self, now: Reading) -> Verdict {
        let system = self.offset(now);
        let verdict = |trust, witness, correction_us| Verdict { trust, witness, correction_us };
        let Some(bound) = self.service.map(|bound| bound.at(self.monotonic(now.monotonic))) else {
            (self.chosen, self.correction) = (None, 0);
            return match self.synchronised {
                Some(true) => verdict(Trust::Trusted, Witness::System, 0),
                None if self.is_patience_over(now) => verdict(Trust::Unknown, Witness::Nobody, 0),
                _ => verdict(Trust::Pending, Witness::Nobody, 0),
            };
        };
        if bound.holds(system) {
            (self.chosen, self.correction) = (None, 0);
            let witness = if self.synchronised == Some(true) { Witness::System } else { Witness::Service };
            return verdict(Trust::Trusted, witness, 0);
        }
        let mut agreeing: Vec<_> = self.cameras.values().copied().filter(|at| bound.holds(*at)).collect();
        agreeing.sort_unstable();
        let camera = agreeing.get(agreeing.len() / 2).copied();
        let middle = bound.low.midpoint(bound.high);
        let chosen = match (self.chosen, camera) {
            // What is used already stays while nothing speaks against it: each change moves the footage's time.
            (Some(chosen), None) if bound.holds(chosen) => chosen,
            (Some(chosen), Some(camera)) if chosen.abs_diff(camera) < SLACK_US.unsigned_abs() / 2 => chosen,
            (_, camera) => camera.unwrap_or(middle),
        };
        self.chosen = Some(chosen);
        let witness = if camera.is_some() { Witness::Cameras } else { Witness::Service };
        let correction = chosen.saturating_sub(system);
        if self.correction.abs_diff(correction) > JITTER_US.unsigned_abs() {
            self.correction = correction;
        }
        verdict(Trust::Trusted, witness, self.correction)
    }

    fn is_patience_over(&self, now: Reading) -> bool {
        self.monotonic(now.monotonic) >= PATIENCE_US && micros_since_1970(now.wall) >= PLAUSIBLE_US
    }

    fn monotonic(&self, at: Instant) -> i64 {
        match at.checked_duration_since(self.epoch) {
            Some(since) => micros(since),
            None => -micros(self.epoch.saturating_duration_since(at)),
        }
    }

    /// Wall minus monotonic time.
    fn offset(&self, at: Reading) -> i64 {
        micros_since_1970(at.wall).saturating_sub(self.monotonic(at.monotonic))
    }
}

impl Bound {
    /// As wide as drift makes it by then.
    fn at(self, at: i64) -> Bound {
        let drift = at.saturating_sub(self.at).max(0) / (1_000_000 / DRIFT_PPM);
        Bound { low: self.low.saturating_sub(drift), high: self.high.saturating_add(drift), at }
    }

    fn holds(self, offset: i64) -> bool {
        (self.low.saturating_sub(SLACK_US)..=self.high.saturating_add(SLACK_US)).contains(&offset)
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn micros_since_1970(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => micros(since),
        Err(before) => -micros(before.duration()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UTC: Duration = Duration::from_secs(1_795_186_073);
    const SECOND: i64 = 1_000_000;

    /// A box whose wall clock is off by `error_us`.
    struct Rig {
        judge: WallJudge,
        begun: Instant,
        error_us: i64,
    }

    impl Rig {
        fn new(error_us: i64) -> Rig {
            let begun = crate::monotonic();
            Rig { judge: WallJudge::new(begun), begun, error_us }
        }

        fn at(&self, ms: u64) -> Instant {
            self.begun + Duration::from_millis(ms)
        }

        fn reading(&self, ms: u64) -> Reading {
            let utc = UNIX_EPOCH + UTC + Duration::from_millis(ms);
            let error = Duration::from_micros(self.error_us.unsigned_abs());
            let wall = if self.error_us < 0 { utc - error } else { utc + error };
            Reading { monotonic: self.at(ms), wall }
        }

        /// A request of 80 ms; the service's clock is off by `error_s`.
        fn service(&mut self, ms: u64, error_s: u64) {
            let date = UNIX_EPOCH + UTC + Duration::from_secs((ms + 40) / 1000 + error_s);
            self.judge.service(date, Duration::from_millis(1080), self.at(ms + 80));
        }

        /// A camera whose clock is off by `error_us`.
        fn camera(&mut self, name: &str, ms: u64, error_us: i64) {
            let honest = Rig { error_us, judge: self.judge.clone(), ..*self };
            let Reading { monotonic, wall } = honest.reading(ms);
            self.judge.camera(name, wall, monotonic);
        }

        fn judge(&mut self, ms: u64) -> Verdict {
            let now = self.reading(ms);
            self.judge.judge(now)
        }
    }

    #[track_caller]
    fn is(verdict: Verdict, trust: Trust, witness: Witness) {
        assert_eq!((verdict.trust, verdict.witness), (trust, witness), "{verdict:?}");
    }

    #[test]
    fn without_any_witness_footage_waits() {
        let mut rig = Rig::new(0);
        is(rig.judge(0), Trust::Pending, Witness::Nobody);
        rig.judge.system(Some(false));
        is(rig.judge(10), Trust::Pending, Witness::Nobody);
        rig.camera("cam", 20, 0);
        is(rig.judge(30), Trust::Pending, Witness::Nobody);
        rig.judge.system(Some(true));
        is(rig.judge(40), Trust::Trusted, Witness::System);
    }

    #[test]
    fn a_plausible_clock_of_which_nobody_says_anything_is_taken_after_a_while() {
        let mut rig = Rig::new(0);
        is(rig.judge(14_900), Trust::Pending, Witness::Nobody);
        is(rig.judge(15_000), Trust::Unknown, Witness::Nobody);
        rig.service(20_000, 600);
        is(rig.judge(20_100), Trust::Trusted, Witness::Service);
        let mut unsynchronised = Rig::new(0);
        unsynchronised.judge.system(Some(false));
        is(unsynchronised.judge(3_600_000), Trust::Pending, Witness::Nobody);
        let mut in_1970 = Rig::new(-1_795_186_000 * SECOND);
        is(in_1970.judge(3_600_000), Trust::Pending, Witness::Nobody);
    }

    #[test]
    fn the_service_vouches_for_a_clock_that_agrees_with_it() {
        for error_us in [0, 900_000, -900_000] {
            let mut rig = Rig::new(error_us);
            rig.service(100, 0);
            let verdict = rig.judge(200);
            is(verdict, Trust::Trusted, Witness::Service);
            assert_eq!(verdict.correction_us, 0);
        }
    }

    #[test]
    fn a_clock_that_is_off_is_corrected_by_the_service() {
        for error_us in [600 * SECOND, -600 * SECOND, -1_795_186_000 * SECOND] {
            let mut rig = Rig::new(error_us);
            is(rig.judge(0), Trust::Pending, Witness::Nobody);
            rig.judge.system(Some(true));
            for ms in [100, 1_370, 2_610, 5_930] {
                rig.service(ms, 0);
                let verdict = rig.judge(ms + 100);
                is(verdict, Trust::Trusted, Witness::Service);
                assert!((verdict.correction_us + error_us).abs() <= 600_000, "{verdict:?}");
            }
        }
    }

    #[test]
    fn cameras_that_agree_with_the_service_give_the_exact_value() {
        let mut rig = Rig::new(-600 * SECOND);
        rig.camera("right", 50, 3_000);
        rig.camera("in-1970", 50, -1_795_186_000 * SECOND);
        rig.camera("as-wrong-as-we", 50, -600 * SECOND);
        rig.service(100, 0);
        let verdict = rig.judge(200);
        is(verdict, Trust::Trusted, Witness::Cameras);
        assert_eq!(verdict.correction_us, 600 * SECOND + 3_000);
        rig.judge.retain_cameras(|name| name != "right");
        let verdict = rig.judge(400);
        is(verdict, Trust::Trusted, Witness::Service);
        assert_eq!(verdict.correction_us, 600 * SECOND + 3_000, "what is in use stays");
    }

    #[test]
    fn the_correction_does_not_tremble_and_ends_when_the_clock_is_set() {
        let mut rig = Rig::new(600 * SECOND);
        let mut corrections = std::collections::BTreeSet::new();
        for ms in (0..3_600_000).step_by(7_300) {
            rig.service(ms, 0);
            corrections.insert(rig.judge(ms + 100).correction_us);
        }
        assert_eq!(corrections.len(), 1, "{corrections:?}");
        rig.error_us = 5_000;
        let verdict = rig.judge(3_600_000);
        is(verdict, Trust::Trusted, Witness::Service);
        assert_eq!(verdict.correction_us, 0);
        rig.error_us = -30 * SECOND;
        let verdict = rig.judge(3_601_000);
        assert!((verdict.correction_us - 30 * SECOND).abs() <= 600_000, "a step shows at once: {verdict:?}");
    }

    #[test]
    fn two_clocks_read_one_after_the_other_change_no_correction() {
        let mut rig = Rig::new(600 * SECOND);
        rig.service(0, 0);
        let first = rig.judge(100).correction_us;
        for n in 0..100 {
            rig.error_us = 600 * SECOND + (n * 7919) % 9_000;
            assert_eq!(rig.judge(200).correction_us, first);
        }
    }

    #[test]
    fn a_service_whose_clock_is_set_is_followed() {
        let mut rig = Rig::new(0);
        rig.service(0, 0);
        assert_eq!(rig.judge(100).correction_us, 0);
        rig.service(10_000, 3600);
        let verdict = rig.judge(10_100);
        assert!((verdict.correction_us - 3600 * SECOND).abs() <= 600_000, "{verdict:?}");
    }

    #[test]
    fn an_old_answer_says_less() {
        let mut rig = Rig::new(0);
        rig.service(0, 0);
        rig.error_us = 10 * SECOND;
        assert_ne!(rig.judge(1_000).correction_us, 0);
        assert_eq!(rig.judge(24 * 3_600_000).correction_us, 0, "a day's drift explains it");
    }
}
