//! What to fetch next, and when: the life of the session's URL, the place in the playlist, errors and back-off.
//!
//! ```text
//!             +--- 30 s before the URL expires, or it is refused ---+
//!             v                                                     |
//! resting -> Open -> Master -> Playlist -> Init -> Segment... -> waiting
//!    ^                  |         ^                    |            |
//!    +---- errors ------+---------+--------------------+   each s --+
//! ```
//!
//! In front of each segment comes its sound, where there is some (`sound`). A segment of another initialisation may be of
//! other tracks: the master playlist is read again in front of it.
//!
//! No segment is handed on twice, whatever sessions and playlists say: fragments have numbers. Between two that do not
//! follow each other stands a [`Skip`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use media::SourceState;

pub use super::config::{HlsConfig, HlsConfigError};
pub use crate::read::skip::{Skip, SkipReason};

use super::playlist::{self, Master, Media, Playlist, PlaylistError, Segment};
use super::sound::{PATIENCE, Sound, Step};
use crate::FragmentNumber;
use crate::api::{
    DiscontinuityMode, Display, FragmentSelectorType, GetHlsStreamingSessionUrlInput, PlaybackMode,
    PlaybackRange, PlaybackSelector, StreamId, seconds,
};

/// Fragments that are remembered as handed on: more than a playlist can list.
const REMEMBERED: usize = 6_000;
/// Between looks at a live playlist (HLS page: each second).
pub(super) const POLL: Duration = Duration::from_secs(1);
/// A playlist that goes back so often in a row: the session is given up.
const MOST_STALE: u32 = 3;
/// A segment that cannot be read so often is left out.
const MOST_READS: u32 = 2;

/// What is played, by producer time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Play {
    /// From the newest fragment on, as they come.
    Live,
    /// Fragments that start in this range, both ends included.
    Range { from_ms: u64, to_ms: u64 },
}

/// What the owner of the connections does; then it reports.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Ask for a session: then [`Hls::opened`] or [`Hls::failed`].
    Open(Box<GetHlsStreamingSessionUrlInput>),
    /// Fetch this path and query from the session's host: then [`Hls::text`], [`Hls::fetched`] or [`Hls::failed`].
    Get(Asked, String),
    /// Nothing before this time.
    Wait(Instant),
    /// All of the range was handed on.
    End,
    /// Too many errors without a fragment in between.
    GiveUp,
}

/// What is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asked {
    Master,
    Playlist,
    Init,
    Segment,
    /// Of the sound beside the pictures, as the next two.
    SoundPlaylist,
    SoundInit,
    /// Of the fragment that [`Hls::segment`] is, too.
    SoundSegment,
}

impl Asked {
    /// It is not of the pictures.
    pub fn is_sound(self) -> bool {
        matches!(self, Self::SoundPlaylist | Self::SoundInit | Self::SoundSegment)
    }
}

/// What an error means for what comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It may succeed soon.
    Soon,
    /// The service wants fewer calls, or somebody has to change something.
    Slower,
    /// The token is not accepted.
    Refused,
    /// There is no such fragment, or none to play.
    Gone,
    /// It came, and is not what it should be.
    Unreadable,
}

/// The player of one stream.
#[derive(Debug)]
pub struct Hls {
    config: HlsConfig,
    stream: StreamId,
    play: Play,
    session: Option<Session>,
    asked: Option<Asked>,
    resting_until: Option<Instant>,
    /// Since the last fragment.
    errors: u32,
    /// Some media came, ever.
    played: bool,
    over: Option<Action>,
    /// Numbers of the latest that were handed on.
    delivered: VecDeque<FragmentNumber>,
    /// Start of the last that was dealt with.
    last_begins_ms: Option<u64>,
    skips: VecDeque<Skip>,
    state: SourceState,
    url_refreshes: u64,
    reconnects: u64,
    /// For the sound: so often it may fail or be late until fragments go without.
    patience: u32,
    without_sound: u64,
}

#[derive(Debug)]
struct Session {
    /// Path and query of the URL.
    master: String,
    media: Option<String>,
    refresh_at: Instant,
    ends_at: Instant,
    poll_at: Option<Instant>,
    /// First and last sequence number of the playlist as it was seen last.
    seen: Option<(u64, u64)>,
    /// Fragments that it listed altogether.
    listed: usize,
    stale: u32,
    complete: bool,
    queue: VecDeque<Segment>,
    /// The initialisation that is there.
    init: Option<Arc<str>>,
    /// Absent where the stream has none, or none is wanted.
    sound: Option<Sound>,
    /// The initialisation in front of which the master playlist was read again.
    tracks_of: Option<Arc<str>>,
    /// How often the first in the queue could not be read.
    reads: u32,
    gave_media: bool,
}

impl Hls {
    pub fn new(config: HlsConfig, stream: StreamId, play: Play) -> Result<Self, HlsConfigError> {
        config.check()?;
        Ok(Self {
            config,
            stream,
            play,
            session: None,
            asked: None,
            resting_until: None,
            errors: 0,
            played: false,
            over: None,
            delivered: VecDeque::new(),
            last_begins_ms: None,
            skips: VecDeque::new(),
            state: SourceState::Disconnected,
            url_refreshes: 0,
            reconnects: 0,
            patience: PATIENCE,
            without_sound: 0,
        })
    }

    pub fn state(&self) -> SourceState {
        self.state
    }

    /// Errors since the last fragment.
    pub fn consecutive_errors(&self) -> u32 {
        self.errors
    }

    /// URLs that were asked for because the one before was about to expire.
    pub fn url_refreshes(&self) -> u64 {
        self.url_refreshes
    }

    /// URLs that were asked for after an error.
    pub fn reconnects(&self) -> u64 {
        self.reconnects
    }

    /// Fragments handed on without their sound, which was there and could not be had.
    pub fn without_sound(&self) -> u64 {
        self.without_sound
    }

    /// The segment that [`Action::Get`] fetches, or whose sound it fetches.
    pub fn segment(&self) -> Option<&Segment> {
        self.session.as_ref()?.queue.front()
    }

    /// The next report of fragments that are not handed on, in front of the segment that follows.
    pub fn next_skip(&mut self) -> Option<Skip> {
        self.skips.pop_front()
    }

    /// What to do now.
    pub fn next_action(&mut self, now: Instant) -> Action {
        if let Some(over) = &self.over {
            return over.clone();
        }
        if let Some(until) = self.resting_until.filter(|until| now < *until) {
            return Action::Wait(until);
        }
        self.resting_until = None;
        if self.session.as_ref().is_some_and(|session| self.is_due(session, now)) {
            self.session = None;
            self.url_refreshes += 1;
        }
        let Some(session) = &mut self.session else {
            if self.state == SourceState::Disconnected {
                self.state = SourceState::Connecting;
            }
            self.asked = None;
            return Action::Open(Box::new(self.request()));
        };
        let (asked, uri) = match (&session.media, session.queue.front()) {
            (None, _) => (Asked::Master, session.master.clone()),
            (Some(media), None) if !session.complete => {
                if let Some(at) = session.poll_at.filter(|at| now < *at) {
                    return Action::Wait(at.min(session.refresh_at));
                }
                (Asked::Playlist, media.clone())
            }
            (Some(_), None) => return self.complete(now),
            (Some(_), Some(segment)) if self.config.sound && session.may_have_other_tracks(segment) => {
                (Asked::Master, session.master.clone())
            }
            (Some(media), Some(segment)) => {
                let sound = session.sound.as_mut();
                let step = sound.map(|sound| sound.next(&session.queue, now, &mut self.patience));
                match step {
                    Some(Step::Get(asked, uri)) => (asked, uri),
                    Some(Step::Wait(until)) => return Action::Wait(until.min(session.ends_at)),
                    Some(Step::Settled) | None => {
                        let init = segment.init.as_ref().filter(|init| session.init.as_ref() != Some(init));
                        let (asked, uri) = match init {
                            Some(init) => (Asked::Init, &**init),
                            None => (Asked::Segment, &*segment.uri),
                        };
                        match playlist::resolve(media, uri) {
                            Some(uri) => (asked, uri),
                            // Held against the host when it was listed.
                            None => return Action::GiveUp,
                        }
                    }
                }
            }
        };
        self.asked = Some(asked);
        Action::Get(asked, uri)
    }

    /// A new URL shall be asked for. A live queue is handed on first, as long as the token holds: the next playlist may
    /// not list it any more.
    fn is_due(&self, session: &Session, now: Instant) -> bool {
        let waits = self.play == Play::Live && !session.queue.is_empty();
        if session.complete && session.queue.is_empty() {
            return false;
        }
        now >= if waits { session.ends_at } else { session.refresh_at }
    }

    /// Everything of the playlist was handed on, and nothing will be added to it.
    fn complete(&mut self, now: Instant) -> Action {
        let listed = self.session.as_ref().map_or(0, |session| session.listed);
        let most = self.config.playlist_fragments.unwrap_or(1_000) as usize;
        if self.play != Play::Live && listed >= most {
            // The range may go on behind the longest playlist.
            self.session = None;
            return self.next_action(now);
        }
        self.end(Action::End, SourceState::Disconnected)
    }

    fn end(&mut self, over: Action, state: SourceState) -> Action {
        self.session = None;
        self.state = state;
        self.over = Some(over.clone());
        over
    }

    fn request(&self) -> GetHlsStreamingSessionUrlInput {
        let range = match self.play {
            Play::Live => None,
            Play::Range { from_ms, to_ms } => Some(PlaybackRange {
                start_timestamp: Some(seconds(self.last_begins_ms.map_or(from_ms, |last| last + 1))),
                end_timestamp: Some(seconds(to_ms)),
            }),
        };
        GetHlsStreamingSessionUrlInput {
            stream: self.stream.clone(),
            playback_mode: Some(if range.is_some() { PlaybackMode::OnDemand } else { PlaybackMode::Live }),
            fragment_selector: Some(PlaybackSelector {
                fragment_selector_type: Some(FragmentSelectorType::ProducerTimestamp),
                timestamp_range: range,
            }),
            container_format: None,
            discontinuity_mode: Some(DiscontinuityMode::OnDiscontinuity),
            display_fragment_timestamp: Some(Display::Always),
            expires: Some(self.config.asked_seconds()),
            max_media_playlist_fragment_results: self.config.playlist_fragments,
        }
    }

    /// There is a session: path and query of its URL, asked for at `asked_at`.
    pub fn opened(&mut self, master: String, asked_at: Instant) {
        if self.errors > 0 && self.played {
            self.reconnects += 1;
        }
        self.session = Some(Session {
            master,
            media: None,
            refresh_at: asked_at + self.config.lasts() - self.config.url_refresh_margin,
            ends_at: asked_at + Duration::from_secs(self.config.asked_seconds().into()),
            poll_at: None,
            seen: None,
            listed: 0,
            stale: 0,
            complete: false,
            queue: VecDeque::new(),
            init: None,
            sound: None,
            tracks_of: None,
            reads: 0,
            gave_media: false,
        });
    }

    /// The playlist that was asked for. An error is reported with [`Self::failed`], as any other.
    pub fn text(&mut self, text: &str, now: Instant) -> Result<(), TextError> {
        let found = Playlist::parse(text)?;
        let asked = self.asked;
        let Some(session) = &mut self.session else { return Ok(()) };
        if asked == Some(Asked::Master) {
            return session.tracks(&found.into_master()?, self.config.sound);
        }
        if asked == Some(Asked::SoundPlaylist) {
            return session.sound.as_mut().map_or(Ok(()), |sound| sound.listed(found.into_media()?, now));
        }
        let media = found.into_media()?;
        let Some(base) = &session.media else { return Ok(()) };
        for segment in &media.segments {
            let leads = |uri: &str| playlist::resolve(base, uri).is_some();
            if !leads(&segment.uri) || !segment.init.as_deref().is_none_or(leads) {
                return Err(TextError::OtherHost);
            }
            if segment.begins_ms.is_none() {
                return Err(TextError::NoTime { sequence: segment.sequence });
            }
        }
        self.playlist(media, now)
    }

    fn playlist(&mut self, media: Media, now: Instant) -> Result<(), TextError> {
        let Some(session) = &mut self.session else { return Ok(()) };
        let (first, length) = (media.sequence, media.segments.len() as u64);
        // An empty one ends in front of its first.
        let last = (first + length).saturating_sub(1);
        if let Some((seen_first, seen_last)) = session.seen
            && (first < seen_first || last < seen_last)
        {
            return Err(TextError::Backwards { seen: seen_last, found: last });
        }
        session.stale = 0;
        session.poll_at = Some(now + POLL);
        session.complete = media.ended;
        let before = session.seen;
        if length > 0 {
            session.seen = Some((first, last));
        }
        let mut new: VecDeque<Segment> = media
            .segments
            .into_iter()
            .filter(|segment| before.is_none_or(|(_, seen)| segment.sequence > seen))
            .collect();
        session.listed += new.len();
        let after = self.delivered.back().copied();
        // Outer: whether some are missing; inner: how many, if that is known.
        let mut missing =
            before.map(|(_, seen)| first.saturating_sub(seen + 1)).filter(|missing| *missing > 0).map(Some);
        match (before, after) {
            (None, None) if self.play == Play::Live => {
                // It begins with the newest.
                new.drain(..new.len().saturating_sub(1));
            }
            (None, Some(after)) => {
                if let Some(at) = new.iter().position(|segment| segment.number == after) {
                    new.drain(..=at);
                } else {
                    new.retain(|segment| !self.delivered.contains(&segment.number));
                    missing = new.front().and_then(|next| self.between(after, next.number));
                }
            }
            _ => {}
        }
        if let (Some(missing), Some(next)) = (missing, new.front()) {
            self.skips.push_back(Skip {
                after,
                before: next.number,
                fragments: missing,
                why: SkipReason::NotListed,
            });
        }
        new.retain(|segment| !self.delivered.contains(&segment.number));
        let Some(session) = &mut self.session else { return Ok(()) };
        if let Some(sound) = session.sound.as_mut().filter(|_| !new.is_empty()) {
            sound.look_again();
        }
        session.queue.append(&mut new);
        self.state = SourceState::Connected;
        Ok(())
    }

    /// How many lie between two that different sessions of ours listed, if that is known; outer `None`: none. A range lists
    /// all there is.
    fn between(&self, after: FragmentNumber, next: FragmentNumber) -> Option<Option<u64>> {
        match (self.play, after.missing_before(next)) {
            (Play::Range { .. }, _) | (_, Some(0)) => None,
            (Play::Live, missing) => Some(missing),
        }
    }

    /// The initialisation or the segment that was asked for, of pictures or sound, came, and could be read.
    pub fn fetched(&mut self) {
        let Some(session) = &mut self.session else { return };
        match self.asked {
            Some(Asked::Init) => {
                session.init = session.queue.front().and_then(|segment| segment.init.clone())
            }
            Some(Asked::Segment) => {
                session.gave_media = true;
                (self.errors, self.played) = (0, true);
                self.state = SourceState::Connected;
                let goes_without = session.sound.as_ref().is_some_and(Sound::goes_without);
                self.without_sound += u64::from(goes_without);
                self.pass();
            }
            Some(Asked::SoundInit) => {
                let number = session.queue.front().map(|segment| segment.number);
                session.sound.iter_mut().zip(number).for_each(|(sound, number)| sound.initialised(number));
            }
            Some(Asked::SoundSegment) => {
                session.sound.iter_mut().for_each(Sound::fetched);
                self.patience = PATIENCE;
            }
            _ => {}
        }
    }

    /// The first in the queue is dealt with.
    fn pass(&mut self) {
        let Some(session) = &mut self.session else { return };
        session.reads = 0;
        session.sound.iter_mut().for_each(Sound::pass);
        if let Some(segment) = session.queue.pop_front() {
            self.last_begins_ms = segment.begins_ms.or(self.last_begins_ms);
            self.delivered.push_back(segment.number);
            if self.delivered.len() > REMEMBERED {
                self.delivered.pop_front();
            }
        }
    }

    /// What was asked for did not come, or could not be read. `random` in 0..1 spreads retries.
    pub fn failed(&mut self, failure: Failure, now: Instant, random: f64) {
        let opening = self.session.is_none();
        let asked = self.asked.take();
        if opening && failure == Failure::Gone && self.last_begins_ms.is_some() && self.play != Play::Live {
            // Nothing behind what was handed on.
            self.end(Action::End, SourceState::Disconnected);
            return;
        }
        if asked == Some(Asked::Segment) && failure == Failure::Gone {
            // The service answers, and has no more to say of it.
            self.leave_out(SkipReason::Gone);
            return;
        }
        if asked.is_some_and(Asked::is_sound) && self.goes_without(asked, failure) {
            return;
        }
        self.errors = self.errors.saturating_add(1);
        if self.config.max_consecutive_errors.is_some_and(|most| self.errors >= most) {
            self.end(Action::GiveUp, SourceState::Failed);
            return;
        }
        self.state = if self.played { SourceState::Reconnecting } else { SourceState::Connecting };
        let mut delay = self.delay(random);
        match (asked, failure) {
            (Some(Asked::Segment | Asked::Init), Failure::Unreadable) => {
                let reads = self.session.as_mut().map_or(0, |session| {
                    session.reads += 1;
                    session.reads
                });
                if reads >= MOST_READS {
                    self.leave_out(SkipReason::Unreadable);
                    delay = Duration::ZERO;
                }
            }
            (_, Failure::Refused) => {
                // A token that has served is worn out; one that never did is not helped by haste.
                let worn_out = self.session.take().is_some_and(|session| session.gave_media);
                delay = if worn_out { Duration::ZERO } else { delay };
            }
            (_, Failure::Gone) => self.session = None,
            (Some(Asked::Master | Asked::Playlist), Failure::Unreadable) => {
                let stale = self.session.as_mut().map_or(0, |session| {
                    session.stale += 1;
                    session.stale
                });
                if stale >= MOST_STALE {
                    self.session = None;
                }
            }
            (_, Failure::Slower) => delay = delay.max(self.config.reconnect_delay),
            _ => {}
        }
        self.resting_until = (!delay.is_zero()).then(|| now + delay);
    }

    /// Whether the next fragment is handed on without its sound, which failed: pictures never end for its sake.
    fn goes_without(&mut self, asked: Option<Asked>, failure: Failure) -> bool {
        let Some(session) = &mut self.session else { return false };
        let (Some(sound), Some(front)) = (&mut session.sound, session.queue.front()) else { return false };
        match (asked, failure) {
            (Some(Asked::SoundInit), Failure::Gone) => {
                sound.has_no_init(front.number);
                return true;
            }
            (Some(Asked::SoundSegment), Failure::Gone) => {
                sound.go_without();
                return true;
            }
            _ => {}
        }
        let most = self.config.max_consecutive_errors;
        let would_be_fatal = most.is_some_and(|most| self.errors.saturating_add(1) >= most);
        if self.patience == 0 || would_be_fatal {
            sound.go_without();
            return true;
        }
        self.patience -= 1;
        false
    }

    fn leave_out(&mut self, why: SkipReason) {
        let Some(number) = self.segment().map(|segment| segment.number) else { return };
        let after = self.delivered.back().copied();
        self.skips.push_back(Skip { after, before: number, fragments: Some(1), why });
        self.pass();
    }

    fn delay(&self, random: f64) -> Duration {
        crate::read::retry_delay(
            self.config.reconnect_delay,
            self.config.max_reconnect_delay,
            self.config.backoff_multiplier,
            self.errors.saturating_sub(1),
            random,
        )
    }
}

impl Session {
    /// An initialisation that is new says that tracks came, went or changed.
    fn may_have_other_tracks(&self, segment: &Segment) -> bool {
        self.init.is_some() && self.init != segment.init && self.tracks_of != segment.init
    }

    /// Which media playlists there are.
    fn tracks(&mut self, master: &Master, wants_sound: bool) -> Result<(), TextError> {
        let resolve = |uri: &str| playlist::resolve(&self.master, uri).ok_or(TextError::OtherHost);
        let variants = master.variants.iter().filter(|variant| variant.has_video());
        let variant = variants.max_by_key(|variant| variant.bandwidth).ok_or(TextError::NoVideo)?;
        let media = resolve(&variant.uri)?;
        let sound = master.sound_of(variant).filter(|_| wants_sound).map(resolve).transpose()?;
        if self.sound.as_ref().map(Sound::playlist) != sound.as_deref() {
            self.sound = sound.map(Sound::new);
        }
        self.tracks_of = self.queue.front().and_then(|segment| segment.init.clone());
        self.media = Some(media);
        Ok(())
    }
}

/// Why a text is not the playlist that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    #[error(transparent)]
    Playlist(#[from] PlaylistError),
    #[error("no variant with pictures")]
    NoVideo,
    #[error("it leads to another host")]
    OtherHost,
    #[error("segment {sequence} has no EXT-X-PROGRAM-DATE-TIME, which was asked for")]
    NoTime { sequence: u64 },
    #[error("it ends with segment {found}, before it ended with {seen}: it has gone back")]
    Backwards { seen: u64, found: u64 },
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
