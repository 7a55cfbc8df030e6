//! The service's clock, as each of its answers tells it by the header `Date`.
//!
//! What is kept is a pair of service time and monotonic time, so that a step of this machine's wall clock changes
//! nothing about what is known of the service's.

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use clock::Clock;
use http::HeaderMap;

/// `Date` has a resolution of 1 s.
const RESOLUTION: Duration = Duration::from_secs(1);
/// A tighter observation counts more than a newer one for so long; afterwards the two clocks may have drifted.
const KEEP: Duration = Duration::from_secs(10 * 60);
/// From this difference on signatures take the service's time: far less than the 5 min that it accepts, and far
/// more than an answer can be late.
const SIGN_BY_SERVICE_FROM: Duration = Duration::from_secs(60);

/// What is known of the service's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceTime {
    /// The service's clock now.
    pub now: SystemTime,
    /// The service's clock minus this machine's wall clock, as that one stands now.
    pub offset_ms: i64,
    /// How far the true offset can be from it: the round trip of the answer, and 1 s of resolution.
    pub error: Duration,
    /// When the answer came that told it (monotonic).
    pub observed: Instant,
}

impl ServiceTime {
    /// Whether a wall clock this far off cannot be explained by how it was measured.
    pub fn is_off_by_more_than(&self, limit: Duration) -> bool {
        Duration::from_millis(self.offset_ms.unsigned_abs()) > limit + self.error
    }
}

#[derive(Clone, Copy, Debug)]
struct Observation {
    service: SystemTime,
    at: Instant,
    error: Duration,
}

impl Observation {
    fn service_at(&self, now: Instant) -> SystemTime {
        self.service + now.saturating_duration_since(self.at)
    }

    /// Whether both can be true.
    fn agrees_with(&self, newer: &Self) -> bool {
        difference(self.service_at(newer.at), newer.service).unsigned_abs()
            <= (self.error + newer.error).as_nanos()
    }
}

/// The latest observation worth keeping.
#[derive(Debug, Default)]
pub(crate) struct ServiceClock(Mutex<Option<Observation>>);

impl ServiceClock {
    /// Notes the `Date` of an answer that came just now to a request sent at `sent`.
    pub(crate) fn note(&self, headers: &HeaderMap, sent: Instant, clock: &Clock) {
        let date = headers.get(http::header::DATE).and_then(|date| date.to_str().ok());
        let Some(service) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else { return };
        let at = clock.now();
        let error = at.saturating_duration_since(sent) + RESOLUTION;
        let fresh = Observation { service, at, error };
        let mut kept = self.0.lock().expect("no panic while it is held");
        let stays = kept.as_ref().is_some_and(|old| {
            old.error < fresh.error && at.saturating_duration_since(old.at) < KEEP && old.agrees_with(&fresh)
        });
        if !stays {
            *kept = Some(fresh);
        }
    }

    pub(crate) fn read(&self, clock: &Clock) -> Option<ServiceTime> {
        let observation = (*self.0.lock().expect("no panic while it is held"))?;
        let now = observation.service_at(clock.now());
        let offset_ms = i64::try_from(difference(now, clock.wall()) / 1_000_000);
        let offset_ms = offset_ms.unwrap_or(i64::MAX);
        Some(ServiceTime { now, offset_ms, error: observation.error, observed: observation.at })
    }

    /// The time for signatures: this machine's, or the service's where the two are far apart.
    pub(crate) fn signing_time(&self, clock: &Clock) -> SystemTime {
        match self.read(clock) {
            Some(service) if service.is_off_by_more_than(SIGN_BY_SERVICE_FROM) => service.now,
            _ => clock.wall(),
        }
    }
}

/// `a - b` in ns.
fn difference(a: SystemTime, b: SystemTime) -> i128 {
    let nanos = |span: Duration| i128::try_from(span.as_nanos()).unwrap_or(i128::MAX);
    match a.duration_since(b) {
        Ok(ahead) => nanos(ahead),
        Err(behind) => -nanos(behind.duration()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: &str = "Sat, 21 Nov 2026 12:00:00 GMT";

    fn noon() -> SystemTime {
        httpdate::parse_http_date(NOON).expect("a date")
    }

    fn told(date: &str) -> HeaderMap {
        [(http::header::DATE, date.parse().expect("ASCII"))].into_iter().collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_offset_follows_a_step_of_the_wall_clock_and_the_signature_takes_the_better_time() {
        let (service, clock) = (ServiceClock::default(), Clock::simulated(SystemTime::UNIX_EPOCH));
        assert_eq!((service.read(&clock), service.signing_time(&clock)), (None, SystemTime::UNIX_EPOCH));
        let sent = clock.now();
        clock.sleep(Duration::from_millis(300)).await;
        service.note(&told(NOON), sent, &clock);
        clock.sleep(Duration::from_secs(10)).await;
        let known = service.read(&clock).expect("told");
        assert_eq!(known.now, noon() + Duration::from_secs(10));
        assert_eq!(known.error, Duration::from_millis(1300));
        assert_eq!(known.observed, sent + Duration::from_millis(300));
        let since_1970 = noon().duration_since(SystemTime::UNIX_EPOCH).expect("later").as_millis();
        assert_eq!(i128::from(known.offset_ms), i128::try_from(since_1970).expect("fits") - 300);
        assert_eq!(service.signing_time(&clock), known.now);

        // Somebody sets the clock: half a second off is nothing that could be measured.
        clock.step_to(known.now - Duration::from_millis(500));
        let known = service.read(&clock).expect("told");
        assert_eq!(known.offset_ms, 500);
        assert!(!known.is_off_by_more_than(Duration::ZERO));
        assert_eq!(service.signing_time(&clock), clock.wall());
        for (off_s, by_service) in [(60, false), (62, true)] {
            clock.step_to(known.now + Duration::from_secs(off_s));
            assert_eq!(service.signing_time(&clock) == known.now, by_service, "{off_s} s ahead");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_tight_observation_outlives_a_loose_one_that_agrees_with_it() {
        let (service, clock) = (ServiceClock::default(), Clock::simulated(noon()));
        let observe = async |answer_s: u64, date: SystemTime| {
            let sent = clock.now();
            clock.sleep(Duration::from_secs(answer_s)).await;
            service.note(&told(&httpdate::fmt_http_date(date)), sent, &clock);
            let known = service.read(&clock).expect("told");
            (known.offset_ms, known.error.as_secs())
        };
        assert_eq!(observe(0, noon()).await, (0, 1));
        assert_eq!(observe(20, noon() + Duration::from_secs(5)).await, (0, 1), "loose and in agreement");
        assert_eq!(observe(20, noon() + Duration::from_secs(400)).await, (360_000, 21), "not in agreement");
        let later = clock.wall() + Duration::from_secs(360);
        assert_eq!(observe(2, later).await, (358_000, 3), "tighter");
        clock.sleep(KEEP).await;
        let later = clock.wall() + Duration::from_secs(360);
        assert_eq!(observe(5, later).await, (355_000, 6), "the tight one is old");
        service.note(&told("yesterday"), clock.now(), &clock);
        assert_eq!(service.read(&clock).expect("kept").offset_ms, 355_000);
    }
}
