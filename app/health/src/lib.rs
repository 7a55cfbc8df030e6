//! What is wrong, since when, and what to change: the words in which all stages say it. No IO, no clock.
//!
//! ```text
//!  stage --Problem { reason, found, since, fix }--> its report --> judgement of the camera --> status, checks
//! ```

pub mod backoff;
mod judge;
mod problem;
mod recent;

pub use backoff::Backoff;
pub use judge::{CameraFacts, CameraHealth, CameraState, Pictures, judge};
pub use problem::{Problem, Reason, chain};
pub use recent::{Percentiles, Recent, Samples};

/// Where the tests of this crate begin to count monotonic time.
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the one place where tests of this crate take an Instant from")]
pub(crate) fn epoch() -> std::time::Instant {
    std::time::Instant::now()
}
