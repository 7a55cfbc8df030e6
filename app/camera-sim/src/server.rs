//! What all connections share, and the task that accepts them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use clock::Clock;
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clip::{Clip, ClipError, ClipSpec};
use crate::connection::Connection;
use crate::faults::Faults;
use crate::rtsp::auth::Auth;
use crate::stats::Recorder;

pub(crate) struct Shared {
    pub cameras: Vec<Camera>,
    pub auth: Option<Auth>,
    pub clips: ClipStore,
    pub clock: WallClock,
}

pub(crate) struct Camera {
    /// First part of the URL's path.
    pub path: String,
    pub clip: Arc<Clip>,
    pub faults: Faults,
    pub recorder: Arc<Recorder>,
}

/// UTC as of the start, carried on by the monotonic clock: it never steps.
pub(crate) struct WallClock {
    clock: Clock,
    started: Instant,
    started_ns: u64,
}

impl WallClock {
    pub(crate) fn new() -> WallClock {
        let clock = Clock::system();
        let since_1970 = clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallClock { started: clock.now(), clock, started_ns: nanoseconds(since_1970) }
    }

    /// Monotonic time.
    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// ns since 1970.
    pub(crate) fn now_ns(&self) -> u64 {
        self.started_ns + nanoseconds(self.clock.since(self.started))
    }

    /// The instant of a moment; the start for earlier ones, `None` if it is too far off.
    pub(crate) fn instant(&self, utc_ns: u64) -> Option<Instant> {
        self.started.checked_add(Duration::from_nanos(utc_ns.saturating_sub(self.started_ns)))
    }
}

/// Good until the year 2554.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Clips in memory; each is read or made once, whoever asks.
pub(crate) struct ClipStore {
    cache_dir: PathBuf,
    clips: Mutex<HashMap<ClipSpec, Arc<OnceCell<Arc<Clip>>>>>,
}

impl ClipStore {
    pub(crate) fn new(cache_dir: PathBuf) -> ClipStore {
        ClipStore { cache_dir, clips: Mutex::default() }
    }

    pub(crate) async fn get(&self, spec: &ClipSpec) -> Result<Arc<Clip>, ClipError> {
        let cell = self
            .clips
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(spec.clone())
            .or_default()
            .clone();
        let load = || async {
            let (spec, cache_dir) = (spec.clone(), self.cache_dir.clone());
            let load = tokio::task::spawn_blocking(move || Clip::load(&spec, &cache_dir));
            load.await.unwrap_or_else(|error| Err(ClipError::Output(error.to_string())))
        };
        cell.get_or_try_init(load).await.cloned()
    }
}

/// Accepts clients until `cancel` fires; their tasks end with it.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>, cancel: CancellationToken) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let shared = shared.clone();
                    clients.spawn(async move {
                        let served = match Connection::new(shared, stream, peer) {
                            Ok(connection) => connection.run().await,
                            Err(error) => Err(error),
                        };
                        if let Err(error) = served {
                            tracing::debug!(%peer, %error, "connection ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client");
                    // Out of file descriptors, most likely; some will be free again soon.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = clients.join_next() => {}
        }
    }
    clients.shutdown().await;
}
