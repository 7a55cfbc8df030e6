//! The simulator against clients that are not its own.

mod client;
mod clips;
mod faults;
mod files;
mod media;
mod other_clients;

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use camera_sim::{CameraSim, CameraSimBuilder, ClipSpec};

/// Encoded clips are kept here between test runs.
fn cache_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("camera-sim")
}

/// Small, and a random access point every second.
fn small_clip() -> ClipSpec {
    ClipSpec { height: 180, bitrate_kbps: 400, seed: 1, ..ClipSpec::small() }
}

fn sim() -> CameraSimBuilder {
    CameraSim::builder().clip(small_clip()).cache_dir(cache_dir())
}

/// A deadline that only a broken simulator meets.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("this should have happened long ago")
}
