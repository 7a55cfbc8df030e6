//! Reading a stream: the chunks of an answer, the access units in them, the answer that lasts (of the
//! proof, and of a consumer: `follow`), lists of fragments, and HLS; and its fragments as documents, taken apart.

pub mod chunk;
#[cfg(feature = "connect-audio")]
pub mod connect;
pub mod contents;
pub mod documents;
pub mod follow;
pub mod fragment_list;
pub mod get_media;
pub mod hls;
mod service_tags;
pub mod skip;
pub mod tree;
pub mod units;

use std::time::Duration;

use health::Reason;

/// Why a call that reads did not give what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadFailure {
    pub reason: Reason,
    /// What was found, with its cause.
    pub text: String,
    /// What to change, such as the permission that is missing.
    pub fix: Option<String>,
    pub kind: ReadFailureKind,
}

/// When reading may succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFailureKind {
    /// After the back-off.
    Soon,
    /// The service asked for fewer calls.
    Slower,
    /// All readers that the service allows to a stream are taken by others.
    TooManyReaders,
    /// Once somebody has changed a permission, a key or the stream.
    Operator,
    /// What was asked for does not exist: a fragment, or the place where reading shall begin.
    Refused,
    /// It is no Matroska, or ends in the middle.
    Unreadable,
}

impl ReadFailure {
    pub fn new(reason: Reason, text: impl Into<String>, kind: ReadFailureKind) -> Self {
        Self { reason, text: text.into(), fix: None, kind }
    }

    /// It says something of the fragments that were asked for, not of the service or the way to it.
    pub fn is_about_fragments(&self) -> bool {
        matches!(self.kind, ReadFailureKind::Refused | ReadFailureKind::Unreadable)
    }

    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

/// The wait after a failure that came after `before` others: `multiplier` times as long each time, up to `most`; 80 to
/// 120 % of it by `random` in 0..1.
fn retry_delay(first: Duration, most: Duration, multiplier: f64, before: u32, random: f64) -> Duration {
    let random = if random.is_finite() { random.clamp(0.0, 1.0) } else { 0.5 };
    let step = first.as_secs_f64() * multiplier.powi(i32::try_from(before).unwrap_or(i32::MAX));
    Duration::from_secs_f64(step.min(most.as_secs_f64()) * (0.8 + 0.4 * random))
}
