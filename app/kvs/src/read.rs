//! Reading a stream: the chunks of an answer, the access units in them, the answer that lasts, and HLS.

pub mod chunk;
pub mod get_media;
pub mod hls;
pub mod units;

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
