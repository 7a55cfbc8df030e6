//! The real daemon against real peers on loopback: `target/debug/kvs-edge run` as a process, simulated cameras,
//! kvs-local, Mosquitto.
//!
//! ```text
//!  Rig::builder() -> cameras (camera-sim) -> daemon (process) -> kvs-local (in here, or a process)
//!                                              |                    |
//!                    observer <- Mosquitto <---+        footage: read back, compared with what the camera sent
//! ```
//! Everything waits for an event with a deadline; nothing sleeps for a fixed time. A failing test prints what the
//! processes wrote.

mod broker;
pub mod chaos;
mod cloud;
mod events;
mod footage;
mod link;
mod observer;
mod process;
mod rig;

pub use broker::Mosquitto;
pub use cloud::{Kvs, KvsProcess, REGION, Stored, StoredBlock, documents, free_port};
pub use events::{FootageAndEvents, Life, jpeg_size};
pub use footage::{Footage, PictureBack, Sent};
pub use link::{Link, Weather};
pub use observer::{Message, Observer};
pub use process::{Process, asked_for, binary, decode_errors, program, skip};
pub use rig::{Camera, Rig, RigBuilder, clip_cache, small_clip};

use std::time::Duration;

/// Far beyond what any event takes, even on a busy machine; a test that reaches it has failed.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Waits for `work`, or panics with `what` after [`DEADLINE`].
pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, work).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not within {} s", DEADLINE.as_secs()),
    }
}

/// Looks again and again until `look` returns something, or panics with `what` after [`DEADLINE`]. For peers that
/// do not say when they change.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let clock = clock::Clock::system();
    let end = clock.now() + DEADLINE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(clock.now() < end, "{what}: not within {} s", DEADLINE.as_secs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
