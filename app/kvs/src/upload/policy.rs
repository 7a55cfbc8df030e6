//! Which fragment is sent next.

use super::source::Held;
use crate::FragmentId;

/// What to send first, and what to give up first when there is no more room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UploadPolicy {
    /// The order of recording: what waited longest goes first, and what is oldest is given up first.
    #[default]
    OldestFirst,
}

impl UploadPolicy {
    /// The next one of `waiting`, which come oldest first.
    pub fn next<'a>(self, mut waiting: impl Iterator<Item = Held<'a>>) -> Option<FragmentId> {
        match self {
            Self::OldestFirst => waiting.next().map(|held| held.id),
        }
    }

    /// The one of `held`, oldest first, that is worth least.
    pub fn give_up<'a>(self, mut held: impl Iterator<Item = Held<'a>>) -> Option<FragmentId> {
        match self {
            Self::OldestFirst => held.next().map(|held| held.id),
        }
    }
}
