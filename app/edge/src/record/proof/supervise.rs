//! Keeps a camera's proof alive, apart from everything else of the camera.
//!
//! A proof that panics is begun anew after a back-off; one that stands still is left behind and another takes over. What is
//! known stands in the ledger, so nothing is lost but time, and no footage in any case.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use health::Backoff;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Proof;

const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(60);
const HEALTHY: Duration = Duration::from_secs(60);

/// The last sign of life of a loop.
#[derive(Clone, Debug)]
pub struct Liveness {
    /// A loop that lives turns at least this often.
    every: Duration,
    start: Instant,
    last_ms: Arc<AtomicU64>,
}

impl Liveness {
    fn new(every: Duration, start: Instant) -> Self {
        Self { every, start, last_ms: Arc::default() }
    }

    pub(super) fn beat(&self, now: Instant) {
        let ms = u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(ms, Ordering::Relaxed);
    }

    /// When the loop has to turn again, whether there is something to do or not.
    pub(super) fn next(&self, now: Instant) -> Instant {
        now + self.every
    }

    fn last(&self) -> Instant {
        self.start + Duration::from_millis(self.last_ms.load(Ordering::Relaxed))
    }
}

/// Ends what it holds when it is dropped: nothing is detached.
struct Life(JoinHandle<()>);

impl Drop for Life {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs until the proof has ended in order, or `abort` fires. `stuck_after`: without a sign of life for so long, it stands
/// still.
pub async fn supervise(proof: Proof, stuck_after: Duration, abort: CancellationToken) {
    abort.run_until_cancelled(keep_alive(proof, stuck_after)).await;
}

async fn keep_alive(proof: Proof, stuck_after: Duration) {
    let clock = proof.clock.clone();
    let mut backoff = Backoff::new(FIRST_DELAY, LONGEST_DELAY, HEALTHY);
    loop {
        backoff.up(clock.now());
        let liveness = Liveness::new(stuck_after / 3, clock.now());
        let mut life = Life(tokio::spawn(proof.clone().run(liveness.clone())));
        let why = loop {
            tokio::select! {
                ended = &mut life.0 => match ended {
                    Ok(()) => return,
                    Err(error) => break error.to_string(),
                },
                () = clock.sleep_until(liveness.last() + stuck_after) => {
                    if clock.now() >= liveness.last() + stuck_after {
                        break format!("no turn for {} s", stuck_after.as_secs_f64());
                    }
                }
            }
        };
        drop(life);
        let delay = backoff.failed(clock.now(), rand::random());
        tracing::error!(camera = proof.camera, error = why, "verification crashed, it begins anew");
        proof.report.send_modify(|report| report.failures += 1);
        // At a stop there is one more try, and no time to wait for it.
        if proof.upload_ended.is_cancelled() {
            return;
        }
        proof.upload_ended.run_until_cancelled(clock.sleep(delay)).await;
    }
}
