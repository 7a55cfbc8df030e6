//! The one place that asks the system for the time.
//!
//! Drivers get a [`Clock`] handed in and ask nothing else, so that a test decides what time it is. Monotonic time is
//! tokio's: under `tokio::time::pause` it stands still until the runtime is idle, and then jumps to the next deadline.
//! Wall time is the system's, or in a test one that runs with monotonic time and can be stepped.
//!
//! ```text
//!              now()  monotonic: deadlines, back-off, ages     never steps
//!  Clock ------wall() UTC: stamps, tags, logs, signatures      steps when somebody sets it
//!              trust() whether wall() may be written into footage
//!              boot() which life of the machine this is, and its age   one for all processes of it
//! ```

#![expect(clippy::disallowed_methods, reason = "this is the one place")]

mod boot;
mod judge;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use boot::Boot;
pub use judge::{Reading, Verdict, WallJudge, Witness};

/// A clock that drivers ask; clones are the same clock.
#[derive(Clone)]
pub struct Clock {
    wall: Wall,
    trust: Arc<AtomicU8>,
    /// Its judge has vouched for it once.
    vouched: Arc<AtomicBool>,
    /// Microseconds to add to the wall's time.
    correction: Arc<AtomicI64>,
    /// Monotonic time when this clock was made.
    begun: Instant,
}

/// Whether wall time may be written into footage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Nobody judges it: it is taken as it is.
    Unknown,
    /// It is judged, and nobody has vouched for it yet.
    Pending,
    /// It is disciplined, or a witness agrees with it.
    Trusted,
    /// Known to be wrong.
    Wrong,
}

#[derive(Clone)]
enum Wall {
    System,
    Simulated(Arc<Mutex<Simulated>>),
}

/// Wall time `wall` was at monotonic time `at`, and the machine was `boot.up` old.
struct Simulated {
    at: Instant,
    wall: SystemTime,
    boot: Boot,
}

impl Clock {
    /// The machine's own clocks.
    pub fn system() -> Self {
        Self::with(Wall::System)
    }

    /// Wall time begins at `start` and runs with monotonic time; [`step_to`](Self::step_to) sets it. For tests: on a
    /// runtime with paused time nothing in it depends on the machine.
    pub fn simulated(start: SystemTime) -> Self {
        let boot = Boot { id: 1, up: Duration::from_secs(60) };
        let simulated = Simulated { at: monotonic(), wall: start, boot };
        Self::with(Wall::Simulated(Arc::new(Mutex::new(simulated))))
    }

    fn with(wall: Wall) -> Self {
        let trust = Arc::new(AtomicU8::new(Trust::Unknown as u8));
        let (vouched, correction) = (Arc::default(), Arc::default());
        Self { wall, trust, vouched, correction, begun: monotonic() }
    }

    /// The same clocks, as another process begins with them: nobody has judged them yet. For tests.
    #[must_use]
    pub fn for_another_process(&self) -> Self {
        Self::with(self.wall.clone())
    }

    /// The machine of a simulated clock has started anew, or was `boot.up` old at this moment. For tests.
    pub fn rebooted(&self, boot: Boot) {
        if let Wall::Simulated(simulated) = &self.wall {
            let mut simulated = simulated.lock().unwrap_or_else(PoisonError::into_inner);
            let at = monotonic();
            let wall = simulated.wall + at.saturating_duration_since(simulated.at);
            *simulated = Simulated { at, wall, boot };
        }
    }

    /// Which life of the machine this is, and how long it has lasted.
    pub fn boot(&self) -> Boot {
        match &self.wall {
            Wall::System => Boot::of_machine(),
            Wall::Simulated(simulated) => {
                let simulated = simulated.lock().unwrap_or_else(PoisonError::into_inner);
                let since = monotonic().saturating_duration_since(simulated.at);
                Boot { up: simulated.boot.up + since, ..simulated.boot }
            }
        }
    }

    /// Whether wall time is the machine's own: what the system says of its clock is said of this one.
    pub fn is_system(&self) -> bool {
        matches!(self.wall, Wall::System)
    }

    /// Of all clones.
    pub fn trust(&self) -> Trust {
        match self.trust.load(Ordering::Relaxed) {
            trust if trust == Trust::Trusted as u8 => Trust::Trusted,
            trust if trust == Trust::Wrong as u8 => Trust::Wrong,
            trust if trust == Trust::Pending as u8 => Trust::Pending,
            _ => Trust::Unknown,
        }
    }

    /// Whoever judges the wall clock says so here.
    pub fn set_trust(&self, trust: Trust) {
        if matches!(trust, Trust::Unknown | Trust::Trusted) {
            self.vouched.store(true, Ordering::Relaxed);
        }
        self.trust.store(trust as u8, Ordering::Relaxed);
    }

    /// Whether wall time may be written into footage: nobody judges it, or somebody has vouched for it once in this process. It
    /// may still be set: then all that follows has another time.
    pub fn is_vouched_for(&self) -> bool {
        self.vouched.load(Ordering::Relaxed) || matches!(self.trust(), Trust::Unknown | Trust::Trusted)
    }

    /// Of all clones: what the judge found.
    pub fn follow(&self, verdict: Verdict) {
        self.correction.store(verdict.correction_us, Ordering::Relaxed);
        self.set_trust(verdict.trust);
    }

    /// Both clocks, the wall's time without correction.
    pub fn reading(&self) -> Reading {
        Reading { monotonic: monotonic(), wall: self.uncorrected() }
    }

    /// Monotonic time.
    pub fn now(&self) -> Instant {
        monotonic()
    }

    /// UTC as far as this machine knows, corrected by what its judge found.
    pub fn wall(&self) -> SystemTime {
        let correction = self.correction.load(Ordering::Relaxed);
        let (wall, by) = (self.uncorrected(), Duration::from_micros(correction.unsigned_abs()));
        let corrected = if correction < 0 { wall.checked_sub(by) } else { wall.checked_add(by) };
        corrected.unwrap_or(wall)
    }

    fn uncorrected(&self) -> SystemTime {
        match &self.wall {
            Wall::System => SystemTime::now(),
            Wall::Simulated(simulated) => {
                let simulated = simulated.lock().unwrap_or_else(PoisonError::into_inner);
                simulated.wall + monotonic().saturating_duration_since(simulated.at)
            }
        }
    }

    /// Milliseconds since the Unix epoch; 0 before it.
    pub fn wall_ms(&self) -> u64 {
        let since = self.wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Time that passed since `earlier`, zero if that lies ahead.
    pub fn since(&self, earlier: Instant) -> Duration {
        self.now().saturating_duration_since(earlier)
    }

    /// Sets simulated wall time, ahead or back, as somebody who sets the system's clock would; the system's own clock is
    /// never set.
    pub fn step_to(&self, wall: SystemTime) {
        if let Wall::Simulated(simulated) = &self.wall {
            let mut simulated = simulated.lock().unwrap_or_else(PoisonError::into_inner);
            let at = monotonic();
            let up = simulated.boot.up + at.saturating_duration_since(simulated.at);
            *simulated = Simulated { at, wall, boot: Boot { up, ..simulated.boot } };
        }
    }

    /// Waits until monotonic time `at`.
    pub async fn sleep_until(&self, at: Instant) {
        tokio::time::sleep_until(tokio::time::Instant::from_std(at)).await;
    }

    /// When somebody who looks at something each `every` looks next: at multiples of it since this clock was made, so that
    /// all who do wake the processor together. A beat that would come within a quarter of `every` after the last one, because
    /// that came late, is left out: whoever counts beats sees no more time than there was.
    pub fn next_beat(&self, every: Duration) -> Instant {
        let every = every.max(Duration::from_millis(1));
        let earliest = self.since(self.begun) + every * 3 / 4;
        let beats = earliest.as_nanos().div_ceil(every.as_nanos());
        self.begun + u32::try_from(beats).map_or(earliest, |beats| every * beats)
    }

    /// Waits for the [next beat](Self::next_beat).
    pub async fn beat(&self, every: Duration) {
        self.sleep_until(self.next_beat(every)).await;
    }

    /// Waits for `duration` of monotonic time.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.wall {
            Wall::System => "Clock(system)",
            Wall::Simulated(_) => "Clock(simulated)",
        })
    }
}

/// On a runtime with paused time that time, else the system's.
fn monotonic() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1_795_186_073);

    #[tokio::test(start_paused = true)]
    async fn simulated_wall_time_runs_with_paused_time_and_can_be_stepped() {
        let clock = Clock::simulated(UNIX_EPOCH + START);
        let (begun, same) = (clock.now(), clock.clone());
        clock.sleep(Duration::from_secs(3600)).await;
        assert_eq!(clock.since(begun), Duration::from_secs(3600));
        assert_eq!(same.wall(), UNIX_EPOCH + START + Duration::from_secs(3600));
        clock.step_to(UNIX_EPOCH);
        clock.sleep_until(clock.now() + Duration::from_millis(250)).await;
        assert_eq!(same.wall_ms(), 250);
        assert_eq!(clock.since(begun + Duration::from_secs(9000)), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn who_looks_regularly_looks_together_and_never_twice_in_a_row() {
        let clock = Clock::simulated(UNIX_EPOCH + START);
        let (begun, half, ms) = (clock.now(), Duration::from_millis(500), Duration::from_millis);
        clock.sleep(ms(40)).await;
        assert_eq!(clock.next_beat(half), begun + half);
        assert_eq!(clock.next_beat(2 * half), begun + 2 * half);
        for turn in 1..=4 {
            clock.beat(half).await;
            assert_eq!(clock.since(begun), half * turn);
            clock.sleep(ms(3)).await;
        }
        clock.sleep(ms(400)).await;
        assert_eq!(clock.next_beat(half), begun + ms(3000), "the one at 2500 would be 97 ms away");
        assert_eq!(clock.next_beat(Duration::ZERO), clock.now() + ms(1));
    }

    #[test]
    fn all_clones_share_one_trust() {
        let clock = Clock::system();
        let same = clock.clone();
        assert_eq!(same.trust(), Trust::Unknown);
        for trust in [Trust::Wrong, Trust::Trusted, Trust::Pending, Trust::Unknown] {
            clock.set_trust(trust);
            assert_eq!(same.trust(), trust);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_verdict_corrects_the_wall_time_of_all_clones() {
        let clock = Clock::simulated(UNIX_EPOCH + START);
        let same = clock.clone();
        for correction_us in [600_000_000, -3_600_000_000, 0] {
            clock.follow(Verdict { trust: Trust::Trusted, witness: Witness::Service, correction_us });
            let start_s = START.as_secs().cast_signed();
            assert_eq!(same.wall_ms().cast_signed() / 1000 - start_s, correction_us / 1_000_000);
            assert_eq!((same.trust(), same.reading().wall), (Trust::Trusted, UNIX_EPOCH + START));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_grows_older_whatever_its_wall_clock_does() {
        let clock = Clock::simulated(UNIX_EPOCH);
        let first = clock.boot();
        clock.sleep(Duration::from_secs(10)).await;
        clock.step_to(UNIX_EPOCH + START);
        clock.sleep(Duration::from_secs(5)).await;
        assert_eq!(clock.boot(), Boot { up: first.up + Duration::from_secs(15), ..first });
        assert_eq!(clock.wall(), UNIX_EPOCH + START + Duration::from_secs(5));
        let next = Boot { id: 2, up: Duration::from_secs(20) };
        clock.rebooted(next);
        clock.sleep(Duration::from_secs(1)).await;
        assert_eq!(clock.boot(), Boot { up: Duration::from_secs(21), ..next });
        assert_eq!(clock.wall(), UNIX_EPOCH + START + Duration::from_secs(6), "the wall clock went on");
    }

    #[test]
    fn who_was_vouched_for_once_stays_so_in_this_process() {
        let clock = Clock::simulated(UNIX_EPOCH + START);
        assert!(clock.is_vouched_for(), "nobody judges it");
        clock.set_trust(Trust::Pending);
        assert!(!clock.is_vouched_for());
        clock.set_trust(Trust::Trusted);
        clock.set_trust(Trust::Pending);
        assert!(clock.is_vouched_for() && clock.clone().is_vouched_for());
        let next = clock.for_another_process();
        next.set_trust(Trust::Pending);
        assert!(!next.is_vouched_for());
        assert_eq!(next.boot().id, clock.boot().id);
    }

    #[test]
    fn the_system_clock_is_never_stepped() {
        let clock = Clock::system();
        clock.step_to(UNIX_EPOCH);
        assert!(clock.wall() > UNIX_EPOCH + START);
        assert!(clock.now() <= clock.now(), "also outside of a runtime");
    }
}
