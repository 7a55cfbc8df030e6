//! What shows that the box works, and the one place that feeds the watchdog.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clock::Clock;
use sd_notify::NotifyState;
use tokio::sync::watch;

use crate::cameras::Views;
use crate::service_manager::ServiceManager;
use rtsp::source::IngestState;

/// Without a watchdog in the unit, the stillness of a loop is still looked at this often.
const LOOK: Duration = Duration::from_secs(1);
/// A loop that is still for this long is stuck: each turns at least every two seconds.
const STUCK: Duration = Duration::from_secs(10);

/// A sign of life that a loop gives each time it turns. It is missed no more once all its clones are gone.
#[derive(Clone, Debug)]
pub struct Pulse {
    beats: Arc<Beats>,
    clock: Clock,
}

#[derive(Debug)]
struct Beats {
    name: String,
    start: Instant,
    last_ms: AtomicU64,
}

/// The loops that must turn for the watchdog to be fed.
#[derive(Clone, Debug)]
pub struct Pulses {
    clock: Clock,
    all: Arc<Mutex<Vec<std::sync::Weak<Beats>>>>,
}

impl Pulse {
    pub fn beat(&self) {
        let ms = u64::try_from(self.clock.since(self.beats.start).as_millis()).unwrap_or(u64::MAX);
        self.beats.last_ms.store(ms, Ordering::Relaxed);
    }

    /// The loop has ended in order: it is not missed until it beats again.
    pub fn rest(&self) {
        self.beats.last_ms.store(u64::MAX, Ordering::Relaxed);
    }
}

impl Beats {
    /// Since the last beat.
    fn age(&self, clock: &Clock) -> Duration {
        let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        clock.since(self.start).saturating_sub(last)
    }
}

impl Pulses {
    pub fn new(clock: Clock) -> Self {
        Self { clock, all: Arc::default() }
    }

    /// One more loop; it counts as having just turned.
    pub fn add(&self, name: impl Into<String>) -> Pulse {
        let beats = Beats { name: name.into(), start: self.clock.now(), last_ms: AtomicU64::new(0) };
        let pulse = Pulse { beats: Arc::new(beats), clock: self.clock.clone() };
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|beats| beats.strong_count() > 0);
        all.push(Arc::downgrade(&pulse.beats));
        pulse
    }

    /// The loop that has been still for longest, and for how long.
    pub fn oldest(&self) -> Option<(String, Duration)> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let living = all.iter().filter_map(std::sync::Weak::upgrade);
        living.map(|beats| (beats.name.clone(), beats.age(&self.clock))).max_by_key(|(_, age)| *age)
    }
}

/// Feeds the watchdog only while every loop turns, and says how many cameras are live. `limit`: that of the watchdog in the unit.
pub async fn run(
    pulses: Pulses,
    cameras: watch::Receiver<Views>,
    margin: watch::Sender<Option<Duration>>,
    manager: ServiceManager,
    clock: Clock,
    limit: Option<Duration>,
) {
    let every = limit.map_or(LOOK, |limit| (limit / 4).min(LOOK));
    let mut fed = clock.now();
    let mut said = String::new();
    loop {
        clock.beat(every).await;
        match pulses.oldest() {
            Some((name, age)) if age >= STUCK => {
                tracing::error!(task = name, still_s = age.as_secs(), "stuck: the watchdog is not fed");
            }
            _ => {
                if let Some(limit) = limit {
                    margin.send_replace(Some(limit.saturating_sub(clock.since(fed))));
                }
                if limit.is_none() || manager.feed() {
                    fed = clock.now();
                }
            }
        }
        let views = cameras.borrow().clone();
        let live = views.iter().filter(|view| view.ingest.borrow().state == IngestState::Live);
        let status = format!("{} of {} cameras live", live.count(), views.len());
        if status != said {
            manager.tell(&NotifyState::Status(&status));
            said = status;
        } else {
            manager.catch_up();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::time::UNIX_EPOCH;

    use super::*;

    /// systemd kills what has not fed its watchdog for the limit in the unit: a daemon of which one loop hangs, though all others
    /// turn.
    #[tokio::test(start_paused = true)]
    async fn while_one_loop_hangs_the_watchdog_is_not_fed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let fed = || {
            let mut buffer = [0; 4096];
            let mut lines = 0;
            while let Ok(bytes) = socket.recv(&mut buffer) {
                lines += String::from_utf8_lossy(&buffer[..bytes]).matches("WATCHDOG=1\n").count();
            }
            lines
        };
        let clock = Clock::simulated(UNIX_EPOCH);
        let pulses = Pulses::new(clock.clone());
        let (turns, hangs) = (pulses.add("camera a"), pulses.add("camera b"));
        let seconds = async |number: u64, both: bool| {
            let mut times = 0;
            for _ in 0..number {
                clock.sleep(Duration::from_secs(1)).await;
                turns.beat();
                if both {
                    hangs.beat();
                }
                times += fed();
            }
            times
        };
        let (_views, cameras) = watch::channel(Views::default());
        let manager = ServiceManager::at(&path.into_os_string()).unwrap();
        let limit = Some(Duration::from_secs(30));
        let margin = watch::channel(None).0;
        let watchdog = tokio::spawn(run(pulses.clone(), cameras, margin, manager, clock.clone(), limit));

        assert!(seconds(20, true).await >= 15, "it is fed while both turn");
        seconds(STUCK.as_secs() + 1, false).await;
        assert_eq!(seconds(40, false).await, 0, "longer than the limit, and nothing comes");
        assert!(seconds(20, true).await >= 15, "both turn again");
        watchdog.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_pulse_decides_and_who_is_gone_is_not_missed() {
        let clock = Clock::simulated(UNIX_EPOCH);
        let pulses = Pulses::new(clock.clone());
        assert!(pulses.oldest().is_none());
        let first = pulses.add("first");
        clock.sleep(Duration::from_secs(3)).await;
        let second = pulses.add("second");
        clock.sleep(Duration::from_secs(1)).await;
        assert_eq!(pulses.oldest(), Some(("first".to_owned(), Duration::from_secs(4))));
        first.beat();
        assert_eq!(pulses.oldest(), Some(("second".to_owned(), Duration::from_secs(1))));
        second.rest();
        clock.sleep(Duration::from_secs(20)).await;
        let clone = first.clone();
        drop(first);
        assert_eq!(
            pulses.oldest(),
            Some(("first".to_owned(), Duration::from_secs(20))),
            "the other one rests"
        );
        drop(clone);
        assert_eq!(pulses.oldest(), Some(("second".to_owned(), Duration::ZERO)));
    }
}
