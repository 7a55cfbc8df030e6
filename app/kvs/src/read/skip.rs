//! What a reader of archived fragments leaves out, and tells.

use crate::FragmentNumber;

/// Fragments that are not handed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    /// The last one that was handed on before.
    pub after: Option<FragmentNumber>,
    /// The next one there is; for a fragment that is left out, that fragment.
    pub before: FragmentNumber,
    /// How many; `None`: not known, as between two sessions of a producer.
    pub fragments: Option<u64>,
    pub why: SkipReason,
}

/// Why they are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// They had left the playlist when it was looked at, or never stood in it.
    NotListed,
    /// The service has it no more.
    Gone,
    /// Twice it could not be read.
    Unreadable,
    /// Another one begins at the same time, and came later.
    Duplicate,
}
