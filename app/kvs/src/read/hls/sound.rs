//! The sound of the fragments that are played: a playlist of its own, whose segments are those of the same fragments. No IO.
//!
//! ```text
//! next fragment --listed--> SoundInit, SoundSegment --> settled, with sound
//!      ^   |------ not yet --> SoundPlaylist, again after 1 s, as often as patience allows
//!      |   +------ never, or it fails -----------------> settled, without
//!      |   +------ the service has no such track ------> settled, there is none
//!      +------------------------ its pictures came -------------+
//! ```
//!
//! Pictures do not end for the sake of sound: once it was late or failed three times in a row, each fragment asks once, and
//! waits for nothing, until a sound comes again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::playlist::{self, Media, Segment};
use super::session::{Asked, POLL, TextError};
use crate::FragmentNumber;

/// So often sound is waited for, or tried again.
pub(super) const PATIENCE: u32 = 2;

/// The sound of one session.
#[derive(Debug)]
pub(super) struct Sound {
    /// Path and query of its playlist.
    playlist: String,
    /// As it was listed last.
    listed: Vec<Segment>,
    /// Nothing will be added.
    complete: bool,
    /// It was listed since the pictures were.
    looked: bool,
    /// Not listed again before this time.
    look_at: Option<Instant>,
    /// The initialisation that is there.
    init: Option<Arc<str>>,
    /// One that the service does not have: fragments that go by it have no sound.
    no_init: Option<Arc<str>>,
    next: Next,
}

/// How it stands with the sound of the next fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Open,
    With,
    Without,
    /// The fragment has none.
    None,
}

/// What is to be done before the pictures of the next fragment are fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Get(Asked, String),
    Wait(Instant),
    Settled,
}

impl Sound {
    pub(super) fn new(playlist: String) -> Self {
        Self {
            playlist,
            listed: Vec::new(),
            complete: false,
            looked: false,
            look_at: None,
            init: None,
            no_init: None,
            next: Next::Open,
        }
    }

    pub(super) fn playlist(&self) -> &str {
        &self.playlist
    }

    /// `queue`: the fragments that are to be played, the next one first.
    pub(super) fn next(&mut self, queue: &VecDeque<Segment>, now: Instant, patience: &mut u32) -> Step {
        let Some(front) = queue.front().filter(|_| self.next == Next::Open) else { return Step::Settled };
        if let Some(found) = self.of(front.number) {
            let init = found.init.as_ref().filter(|init| self.init.as_ref() != Some(init));
            let (asked, uri) = match init {
                Some(init) if self.no_init.as_ref() == Some(init) => {
                    self.next = Next::None;
                    return Step::Settled;
                }
                Some(init) => (Asked::SoundInit, &**init),
                None => (Asked::SoundSegment, &*found.uri),
            };
            if let Some(uri) = playlist::resolve(&self.playlist, uri) {
                return Step::Get(asked, uri);
            }
        }
        if self.looked {
            let is_passed = queue.iter().skip(1).any(|later| self.of(later.number).is_some());
            if self.complete || is_passed || *patience == 0 {
                self.next = Next::Without;
                return Step::Settled;
            }
            if let Some(at) = self.look_at.filter(|at| now < *at) {
                return Step::Wait(at);
            }
            *patience -= 1;
        }
        Step::Get(Asked::SoundPlaylist, self.playlist.clone())
    }

    fn of(&self, number: FragmentNumber) -> Option<&Segment> {
        self.listed.iter().find(|segment| segment.number == number)
    }

    /// Its playlist came.
    pub(super) fn listed(&mut self, media: Media, now: Instant) -> Result<(), TextError> {
        let leads = |uri: &str| playlist::resolve(&self.playlist, uri).is_some();
        let is_ours = |segment: &Segment| leads(&segment.uri) && segment.init.as_deref().is_none_or(leads);
        if !media.segments.iter().all(is_ours) {
            return Err(TextError::OtherHost);
        }
        (self.listed, self.complete, self.looked) = (media.segments, media.ended, true);
        self.look_at = Some(now + POLL);
        Ok(())
    }

    /// More pictures are listed.
    pub(super) fn look_again(&mut self) {
        self.looked = false;
    }

    /// The initialisation for this fragment came.
    pub(super) fn initialised(&mut self, number: FragmentNumber) {
        self.init = self.of(number).and_then(|segment| segment.init.clone());
    }

    /// The sound of the next fragment came.
    pub(super) fn fetched(&mut self) {
        self.next = Next::With;
    }

    /// The service has no such initialisation.
    pub(super) fn has_no_init(&mut self, number: FragmentNumber) {
        self.no_init = self.of(number).and_then(|segment| segment.init.clone());
        self.next = Next::None;
    }

    /// It does not come.
    pub(super) fn go_without(&mut self) {
        (self.next, self.looked) = (Next::Without, true);
    }

    pub(super) fn goes_without(&self) -> bool {
        self.next == Next::Without
    }

    /// The next fragment is another one.
    pub(super) fn pass(&mut self) {
        self.next = Next::Open;
    }
}

#[cfg(test)]
#[path = "sound_tests.rs"]
mod tests;
