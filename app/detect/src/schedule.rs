//! Which cameras' pictures go into the next call of the backend.
//!
//! Decisions:
//! * One picture waits per camera, the newest: an older one is worth nothing once a newer one is there.
//! * Turns go to the camera that was served longest ago, so a fast camera cannot starve a slow one; among cameras that
//!   are equal in that, to the picture that waits longest, whose deadline is the nearest.
//! * A picture that waited longer than the latency budget is dropped: its boxes would describe the past, and each late
//!   picture makes the next one late.
//! * A batch is what waits now. With `gather` it may wait a little for more, which pays only on backends that run a
//!   batch in less time than its pictures one by one; on a processor it does not.
//!
//! No clock, no lock, no thread: `now` comes in. Every picture that came in is counted once as taken, replaced, expired
//! or withdrawn, or is waiting.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pictures that waited longer are dropped.
    pub max_age: Duration,
    /// How long a picture may wait for others to share a batch with; zero: not at all.
    pub gather: Duration,
}

impl Default for Limits {
    /// A quarter of a second: a picture that old is behind at 4 pictures a second already.
    fn default() -> Limits {
        Limits { max_age: Duration::from_millis(250), gather: Duration::ZERO }
    }
}

/// What became of one camera's pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub offered: u64,
    /// Handed out for detection.
    pub taken: u64,
    /// Skipped: a newer picture of the same camera came first.
    pub replaced: u64,
    /// Skipped: waited longer than `max_age`.
    pub expired: u64,
    /// Skipped: the camera was withdrawn.
    pub withdrawn: u64,
}

impl Counters {
    pub fn skipped(&self) -> u64 {
        self.replaced + self.expired + self.withdrawn
    }
}

struct Slot<T> {
    /// With the instant at which it came.
    waiting: Option<(Instant, T)>,
    /// Number of the turn in which it was last served; 0: never.
    served: u64,
    counters: Counters,
}

/// Pictures `T` of cameras, known by their numbers. Memory: one picture per camera.
pub struct Scheduler<T> {
    limits: Limits,
    cameras: BTreeMap<usize, Slot<T>>,
    turn: u64,
}

impl<T> Scheduler<T> {
    pub fn new(limits: Limits) -> Scheduler<T> {
        Scheduler { limits, cameras: BTreeMap::new(), turn: 0 }
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The newest picture of `camera`, which came at `at`. Returns the one that waited until now, if any, so that
    /// the caller drops it outside of its lock.
    pub fn offer(&mut self, camera: usize, picture: T, at: Instant) -> Option<T> {
        let turn = self.turn;
        let slot = self.cameras.entry(camera).or_insert_with(|| {
            // A new camera begins in line with the others, not with a credit for the time before.
            Slot { waiting: None, served: turn, counters: Counters::default() }
        });
        slot.counters.offered += 1;
        let replaced = slot.waiting.replace((at, picture));
        slot.counters.replaced += u64::from(replaced.is_some());
        replaced.map(|(_, picture)| picture)
    }

    /// Takes at most `max` pictures, one of a camera, in the order of their turns. Empty when none waits, or when
    /// those that wait may wait for more: see `ready_at`.
    pub fn take(&mut self, now: Instant, max: usize) -> Vec<(usize, T)> {
        self.expire(now);
        if self.ready_at(max).is_none_or(|ready| ready > now) {
            return Vec::new();
        }
        let mut order: Vec<(u64, Instant, usize)> = self
            .cameras
            .iter()
            .filter_map(|(&camera, slot)| slot.waiting.as_ref().map(|(at, _)| (slot.served, *at, camera)))
            .collect();
        order.sort_unstable();
        let mut taken = Vec::with_capacity(max.min(order.len()));
        for (_, _, camera) in order.into_iter().take(max) {
            if let Some(slot) = self.cameras.get_mut(&camera)
                && let Some((_, picture)) = slot.waiting.take()
            {
                self.turn += 1;
                slot.served = self.turn;
                slot.counters.taken += 1;
                taken.push((camera, picture));
            }
        }
        taken
    }

    /// When `take` with this `max` next has a picture to return, which may have passed; absent while none waits.
    pub fn ready_at(&self, max: usize) -> Option<Instant> {
        let mut waiting = 0;
        let mut oldest: Option<Instant> = None;
        for (at, _) in self.cameras.values().filter_map(|slot| slot.waiting.as_ref()) {
            waiting += 1;
            oldest = Some(oldest.map_or(*at, |oldest| oldest.min(*at)));
        }
        // Nobody is missing: waiting on would be for nothing.
        let full = waiting >= max || waiting == self.cameras.len();
        let gather = if full { Duration::ZERO } else { self.limits.gather.min(self.limits.max_age) };
        oldest.map(|at| at + gather)
    }

    /// Forgets `camera`; returns its counters as they were and the picture that waited, absent if it never offered one.
    pub fn withdraw(&mut self, camera: usize) -> Option<(Counters, Option<T>)> {
        let slot = self.cameras.remove(&camera)?;
        let withdrawn = u64::from(slot.waiting.is_some());
        Some((Counters { withdrawn, ..slot.counters }, slot.waiting.map(|(_, picture)| picture)))
    }

    pub fn counters(&self, camera: usize) -> Counters {
        self.cameras.get(&camera).map(|slot| slot.counters).unwrap_or_default()
    }

    fn expire(&mut self, now: Instant) {
        for slot in self.cameras.values_mut() {
            let age = |at: Instant| now.saturating_duration_since(at);
            if slot.waiting.as_ref().is_some_and(|(at, _)| age(*at) > self.limits.max_age) {
                slot.waiting = None;
                slot.counters.expired += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn scheduler(gather_ms: u64) -> (Scheduler<&'static str>, Instant) {
        (Scheduler::new(Limits { max_age: ms(250), gather: ms(gather_ms) }), clock::Clock::system().now())
    }

    #[test]
    fn the_newest_picture_of_a_camera_wins() {
        let (mut scheduler, t0) = scheduler(0);
        assert_eq!(scheduler.take(t0, 4), []);
        assert_eq!(scheduler.offer(1, "old", t0), None);
        assert_eq!(scheduler.offer(1, "new", t0 + ms(1)), Some("old"));
        assert_eq!(scheduler.take(t0 + ms(2), 4), [(1, "new")]);
        assert_eq!(scheduler.take(t0 + ms(3), 4), []);
        let expected = Counters { offered: 2, taken: 1, replaced: 1, ..Counters::default() };
        assert_eq!(scheduler.counters(1), expected);
    }

    #[test]
    fn a_picture_older_than_the_budget_is_dropped_and_counted() {
        let (mut scheduler, t0) = scheduler(0);
        scheduler.offer(1, "late", t0);
        scheduler.offer(2, "in time", t0 + ms(1));
        assert_eq!(scheduler.take(t0 + ms(251), 1), [(2, "in time")]);
        assert_eq!(scheduler.counters(1).expired, 1);
        assert_eq!(scheduler.counters(1).skipped(), 1);
    }

    #[test]
    fn turns_go_round_whatever_the_rates() {
        let (mut scheduler, t0) = scheduler(0);
        let mut served = [0; 3];
        for step in 0..300 {
            // Camera 0 has a new picture each time, the others every third; the backend manages one.
            let now = t0 + ms(10) * step;
            scheduler.offer(0, "fast", now);
            if step % 3 == 0 {
                scheduler.offer(1, "slow", now);
                scheduler.offer(2, "slow", now);
            }
            for (camera, _) in scheduler.take(now, 1) {
                served[camera] += 1;
            }
        }
        assert_eq!(served, [100, 100, 100]);
    }

    #[test]
    fn among_equals_the_picture_that_waits_longest_is_first() {
        let (mut scheduler, t0) = scheduler(0);
        for camera in 0..3 {
            scheduler.offer(camera, "first", t0 + ms(3) - ms(1) * u32::try_from(camera).unwrap());
        }
        assert_eq!(scheduler.take(t0 + ms(3), 2), [(2, "first"), (1, "first")]);
        assert_eq!(scheduler.take(t0 + ms(3), 2), [(0, "first")]);
    }

    #[test]
    fn a_new_camera_does_not_push_the_others_aside() {
        let (mut scheduler, t0) = scheduler(0);
        for _ in 0..10 {
            scheduler.offer(1, "a", t0);
            scheduler.take(t0, 1);
        }
        scheduler.offer(2, "b", t0);
        scheduler.offer(1, "a", t0);
        // Served last, camera 1 is in line with the new one; the next turn is the other's.
        let first = scheduler.take(t0, 1)[0].0;
        scheduler.offer(first, "again", t0);
        assert_ne!(scheduler.take(t0, 1)[0].0, first);
    }

    #[test]
    fn a_batch_waits_for_others_only_as_long_as_it_may() {
        let (mut scheduler, t0) = scheduler(20);
        for camera in 0..3 {
            scheduler.offer(camera, "seen once", t0);
        }
        assert_eq!(scheduler.take(t0, 8).len(), 3, "all are there");
        scheduler.offer(0, "a", t0 + ms(100));
        assert_eq!(scheduler.ready_at(8), Some(t0 + ms(120)));
        assert_eq!(scheduler.take(t0 + ms(110), 8), []);
        scheduler.offer(1, "b", t0 + ms(110));
        assert_eq!(scheduler.ready_at(2), Some(t0 + ms(100)), "a full batch waits no longer");
        assert_eq!(scheduler.take(t0 + ms(120), 8), [(0, "a"), (1, "b")]);
        assert_eq!(scheduler.ready_at(8), None);
    }

    #[test]
    fn a_withdrawn_camera_is_forgotten() {
        let (mut scheduler, t0) = scheduler(0);
        scheduler.offer(1, "a", t0);
        let expected = Counters { offered: 1, withdrawn: 1, ..Counters::default() };
        assert_eq!(scheduler.withdraw(1), Some((expected, Some("a"))));
        assert_eq!(scheduler.withdraw(1), None);
        assert_eq!(scheduler.take(t0, 1), []);
    }

    proptest! {
        #[test]
        fn every_picture_is_counted_once(steps: Vec<(u8, u8, bool)>) {
            let (mut scheduler, mut now) = scheduler(15);
            for (camera, wait, take) in steps {
                now += ms(u64::from(wait));
                scheduler.offer(usize::from(camera % 5), "picture", now);
                if take {
                    let taken = scheduler.take(now, 2);
                    prop_assert!(taken.len() <= 2);
                    prop_assert!(taken.len() < 2 || taken[0].0 != taken[1].0);
                }
            }
            for camera in 0..5 {
                let counters = scheduler.withdraw(camera).unwrap_or_default().0;
                prop_assert_eq!(counters.offered, counters.taken + counters.skipped());
            }
        }
    }
}
