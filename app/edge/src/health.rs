//! What shows that the box works, and the one place that feeds the watchdog.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A sign of life that a loop gives each time it turns.
#[derive(Clone, Debug)]
pub struct Pulse {
    name: Arc<str>,
    start: Instant,
    last_ms: Arc<AtomicU64>,
}

impl Pulse {
    /// Counts as just beaten.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        let pulse = Self { name: name.into(), start: Instant::now(), last_ms: Arc::default() };
        pulse.beat();
        pulse
    }

    pub fn beat(&self) {
        let ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(ms, Ordering::Relaxed);
    }

    /// The loop has ended in order: it is not missed until it beats again.
    pub fn rest(&self) {
        self.last_ms.store(u64::MAX, Ordering::Relaxed);
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Since the last beat.
    pub fn age(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(self.last_ms.load(Ordering::Relaxed)))
    }
}

/// The loops that must turn for the watchdog to be fed.
#[derive(Clone, Debug, Default)]
pub struct Pulses {
    all: Vec<Pulse>,
}

impl Pulses {
    pub fn add(&mut self, name: impl Into<Arc<str>>) -> Pulse {
        let pulse = Pulse::new(name);
        self.all.push(pulse.clone());
        pulse
    }

    /// The loop that has been still for longest, and for how long.
    pub fn oldest(&self) -> Option<(&str, Duration)> {
        self.all.iter().map(|pulse| (pulse.name(), pulse.age())).max_by_key(|(_, age)| *age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_pulse_decides() {
        let mut pulses = Pulses::default();
        assert!(pulses.oldest().is_none());
        let first = pulses.add("first");
        first.last_ms.store(0, Ordering::Relaxed);
        let mut second = pulses.add("second");
        second.start = Instant::now() + Duration::from_secs(3600);
        second.beat();
        assert_eq!(second.age(), Duration::ZERO);
        assert_eq!(pulses.oldest().map(|(name, _)| name), Some("first"));
        first.rest();
        assert_eq!(first.age(), Duration::ZERO);
    }
}
