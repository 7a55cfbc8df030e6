//! Following a stream over many GetMedia answers: when to open the next, where it begins, what of it is new. No IO.
//!
//! ```text
//! resting --due--> Open --200--> reading --38 min, at a fragment's end--> Close, Open at once
//!    ^                |             |
//!    +---- refused ---+-- ended, broken, unreadable
//! ```
//!
//! The next answer begins by the continuation token of the last whole chunk; where that is refused, at the server time of
//! that chunk; where there was none, or that is refused too, with the newest. A chunk that was cut comes again from its
//! start: what of it was handed on is left out, so that pictures go on as if nothing had happened. What cannot be read is asked
//! for once more; then it goes on with the newest, too.

use std::time::{Duration, Instant};

use media::SourceState;

use super::ReadFailureKind;
use super::chunk::{Chunk, ChunkStart};
use crate::FragmentNumber;
use crate::api::{StartSelector, StartSelectorType};

/// What could not be read is asked for again so often; then it is left out.
const MOST_READS: u32 = 2;

/// How a stream is followed. Names and defaults are those that users of KVS frame sources know.
#[derive(Clone, Debug, PartialEq)]
pub struct FollowConfig {
    /// Where it begins.
    pub start: StartSelector,
    /// From NOW on: a fragment that the service received longer ago is left out, and an answer after a pause of this
    /// length begins with the newest fragment. `None`: nothing is too old. Of no effect with other starts.
    pub max_fragment_age: Option<Duration>,
    /// After the first error; then `backoff_multiplier` times as long each time, up to `max_reconnect_delay`; each 80 to
    /// 120 % of it. Also between answers that end because nothing is uploaded.
    pub reconnect_delay: Duration,
    pub max_reconnect_delay: Duration,
    pub backoff_multiplier: f64,
    /// So many errors without a whole fragment in between are fatal; `None`: it never gives up. An answer that ends in
    /// order is no error.
    pub max_reconnect_attempts: Option<u32>,
    /// An answer is replaced before the service ends it, at 40 to 45 min.
    pub rotate_after: Duration,
    /// While others hold all three readers of the stream.
    pub readers_delay: Duration,
    /// Bytes that are read at once, 1024 to 16 MiB; at least 8192 are taken, so that the head of an answer fits.
    pub chunk_size: usize,
}

impl Default for FollowConfig {
    fn default() -> Self {
        Self {
            start: StartSelector::now(),
            max_fragment_age: Some(Duration::from_secs(30)),
            reconnect_delay: Duration::from_secs(2),
            max_reconnect_delay: Duration::from_secs(60),
            backoff_multiplier: 2.0,
            max_reconnect_attempts: Some(10),
            rotate_after: Duration::from_secs(38 * 60),
            readers_delay: Duration::from_secs(60),
            chunk_size: 65_536,
        }
    }
}

/// Which value is out of its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FollowConfigError {
    #[error("reconnect_delay is {0:?}, expected more than 0 and at most max_reconnect_delay")]
    Delay(Duration),
    #[error("backoff_multiplier is {0}, expected 1.0 to 10.0")]
    Multiplier(f64),
    #[error("max_reconnect_attempts is 0, expected at least 1")]
    Attempts,
    #[error("rotate_after is {0:?}, expected more than 0 and at most 40 min")]
    Rotation(Duration),
    #[error("chunk_size is {0}, expected 1024 to 16777216 bytes")]
    ChunkSize(usize),
}

impl FollowConfig {
    pub fn check(&self) -> Result<(), FollowConfigError> {
        if self.reconnect_delay.is_zero() || self.reconnect_delay > self.max_reconnect_delay {
            return Err(FollowConfigError::Delay(self.reconnect_delay));
        }
        if !(1.0..=10.0).contains(&self.backoff_multiplier) {
            return Err(FollowConfigError::Multiplier(self.backoff_multiplier));
        }
        if self.max_reconnect_attempts == Some(0) {
            return Err(FollowConfigError::Attempts);
        }
        if self.rotate_after.is_zero() || self.rotate_after > Duration::from_secs(40 * 60) {
            return Err(FollowConfigError::Rotation(self.rotate_after));
        }
        if !(1_024..=16 << 20).contains(&self.chunk_size) {
            return Err(FollowConfigError::ChunkSize(self.chunk_size));
        }
        Ok(())
    }

    fn is_live(&self) -> bool {
        self.start.start_selector_type == StartSelectorType::Now
    }
}

/// What the owner of the connection does.
#[derive(Clone, Debug, PartialEq)]
pub enum FollowAction {
    /// Ask for media from here on, once the old answer is let go of: then [`Follow::opened`] or [`Follow::failed`].
    Open(StartSelector),
    /// Go on reading the open answer.
    Read,
    /// Nothing before this time.
    Wait(Instant),
    /// Too many errors without a fragment in between.
    GiveUp,
}

/// What is to be done with a chunk that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// It follows what came before.
    Next,
    /// It does not follow what came before.
    Apart,
    /// It is the one that was cut: so many blocks of it were handed on.
    Again { blocks: u64 },
    /// It was handed on.
    Known,
    /// It is too old to be handed on.
    Old,
}

/// The reader of one stream.
#[derive(Debug)]
pub struct Follow {
    config: FollowConfig,
    link: Link,
    /// Errors without a whole chunk in between.
    errors: u32,
    /// Answers in a row that ended in order and gave nothing.
    quiet: u32,
    /// Answers that could not be read, without a whole chunk in between.
    unreadable: u32,
    resume: Resume,
    /// The last whole chunk.
    last: Option<(FragmentNumber, u64)>,
    /// The chunk that is being read, and how many of its blocks were handed on.
    open: Option<(FragmentNumber, u64)>,
    /// The next chunk may lie anywhere.
    jumped: bool,
    /// An answer was opened, ever.
    connected: bool,
    resets: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Idle,
    Resting { until: Instant },
    Opening,
    Reading { rotate_at: Instant, gave_media: bool },
    GivenUp,
}

/// Where the next answer begins.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Resume {
    Start,
    Token(String),
    /// Server time.
    Time(u64),
    Now,
}

impl Follow {
    pub fn new(config: FollowConfig) -> Result<Self, FollowConfigError> {
        config.check()?;
        Ok(Self {
            config,
            link: Link::Idle,
            errors: 0,
            quiet: 0,
            unreadable: 0,
            resume: Resume::Start,
            last: None,
            open: None,
            jumped: true,
            connected: false,
            resets: 0,
        })
    }

    pub fn state(&self) -> SourceState {
        match self.link {
            Link::Idle => SourceState::Disconnected,
            Link::Reading { .. } => SourceState::Connected,
            Link::GivenUp => SourceState::Failed,
            Link::Resting { .. } | Link::Opening if self.connected => SourceState::Reconnecting,
            Link::Resting { .. } | Link::Opening => SourceState::Connecting,
        }
    }

    /// Errors without a whole fragment in between.
    pub fn consecutive_errors(&self) -> u32 {
        self.errors
    }

    /// Answers that broke off, or ended, and had to be replaced; planned replacements are not counted.
    pub fn connection_resets(&self) -> u64 {
        self.resets
    }

    /// What to do now; `wall_ms` is the service's clock as well as it is known.
    pub fn next_action(&mut self, now: Instant, wall_ms: u64) -> FollowAction {
        match self.link {
            Link::GivenUp => FollowAction::GiveUp,
            Link::Resting { until } if now < until => FollowAction::Wait(until),
            Link::Reading { rotate_at, .. } if now < rotate_at || self.open.is_some() => FollowAction::Read,
            // An owner that asks while it opens has let go of the request.
            Link::Idle | Link::Resting { .. } | Link::Reading { .. } | Link::Opening => {
                self.link = Link::Opening;
                FollowAction::Open(self.selector(wall_ms))
            }
        }
    }

    fn selector(&mut self, wall_ms: u64) -> StartSelector {
        let age = self.config.max_fragment_age.filter(|_| self.config.is_live());
        if let (Some(age), Some((_, server_ms))) = (age, self.last)
            && u128::from(wall_ms.saturating_sub(server_ms)) > age.as_millis()
        {
            self.resume = Resume::Now;
        }
        self.jumped |= matches!(self.resume, Resume::Now);
        match &self.resume {
            Resume::Start => self.config.start.clone(),
            Resume::Token(token) => StartSelector::continuation(token),
            Resume::Time(ms) => StartSelector::server_timestamp_ms(*ms),
            Resume::Now => StartSelector::now(),
        }
    }

    pub fn opened(&mut self, now: Instant) {
        self.connected = true;
        self.link = Link::Reading { rotate_at: now + self.config.rotate_after, gave_media: false };
    }

    /// A chunk begins.
    pub fn chunk_begins(&mut self, start: &ChunkStart, wall_ms: u64) -> Beginning {
        if let Link::Reading { gave_media, .. } = &mut self.link {
            *gave_media = true;
        }
        let Some(number) = start.number else {
            // It cannot be told apart from any other.
            self.open = None;
            return if std::mem::take(&mut self.jumped) { Beginning::Apart } else { Beginning::Next };
        };
        if self.last.is_some_and(|(last, _)| number <= last) {
            return Beginning::Known;
        }
        let age = self.config.max_fragment_age.filter(|_| self.config.is_live());
        let server_ms = start.server_timestamp_ms.unwrap_or_else(|| number.server_time_ms());
        if age.is_some_and(|age| u128::from(wall_ms.saturating_sub(server_ms)) > age.as_millis()) {
            self.jumped = true;
            return Beginning::Old;
        }
        let cut = self.open.replace((number, 0));
        match cut {
            Some((before, blocks)) if before == number => {
                self.jumped = false;
                self.open = Some((number, blocks));
                Beginning::Again { blocks }
            }
            // Pictures of the one that was cut are missing, or a whole one is.
            Some((_, 1..)) => Beginning::Apart,
            _ if self.last.is_some_and(|(last, _)| last.misses_some_before(number)) => Beginning::Apart,
            _ => {
                if std::mem::take(&mut self.jumped) {
                    Beginning::Apart
                } else {
                    Beginning::Next
                }
            }
        }
    }

    /// A block of it was handed on.
    pub fn block(&mut self) {
        if let Some((_, blocks)) = &mut self.open {
            *blocks += 1;
        }
    }

    /// A chunk is over.
    pub fn chunk_ends(&mut self, chunk: &Chunk) {
        if !chunk.complete {
            return;
        }
        self.open = None;
        (self.errors, self.quiet, self.unreadable) = (0, 0, 0);
        if let Some(number) = chunk.start.number {
            let server_ms = chunk.start.server_timestamp_ms.unwrap_or_else(|| number.server_time_ms());
            if self.last.is_none_or(|(last, _)| number > last) {
                self.last = Some((number, server_ms));
            }
        }
        match (&chunk.continuation_token, self.last) {
            (Some(token), _) => self.resume = Resume::Token(token.clone()),
            (None, Some((_, server_ms))) => self.resume = Resume::Time(server_ms),
            (None, None) => {}
        }
    }

    /// The answer ended in order: nothing is uploaded, or it was old. `random` in 0..1 spreads retries.
    pub fn ended(&mut self, now: Instant, random: f64) {
        self.resets += 1;
        let gave_media = matches!(self.link, Link::Reading { gave_media: true, .. });
        self.quiet = if gave_media { 0 } else { self.quiet.saturating_add(1) };
        let delay = self.delay(self.quiet, random);
        self.link = Link::Resting { until: now + delay };
    }

    /// It was refused, broke, or cannot be read.
    pub fn failed(&mut self, kind: ReadFailureKind, now: Instant, random: f64) {
        self.resets += u64::from(matches!(self.link, Link::Reading { .. }));
        self.errors = self.errors.saturating_add(1);
        if self.config.max_reconnect_attempts.is_some_and(|most| self.errors >= most) {
            self.link = Link::GivenUp;
            return;
        }
        let delay = self.delay(self.errors - 1, random);
        let delay = match kind {
            ReadFailureKind::Soon | ReadFailureKind::Slower => delay,
            ReadFailureKind::TooManyReaders => delay.max(self.config.readers_delay),
            ReadFailureKind::Operator => delay.max(self.config.max_reconnect_delay),
            ReadFailureKind::Refused => {
                self.resume = match (&self.resume, self.last) {
                    (Resume::Token(_), Some((_, server_ms))) => Resume::Time(server_ms),
                    // What it began with may become right, such as a stream that is created.
                    (Resume::Start, _) => Resume::Start,
                    _ => Resume::Now,
                };
                delay
            }
            ReadFailureKind::Unreadable => {
                // Once it may have been the way that the bytes took.
                self.unreadable = self.unreadable.saturating_add(1);
                if self.unreadable >= MOST_READS && self.resume != Resume::Start {
                    self.resume = Resume::Now;
                }
                delay
            }
        };
        self.link = Link::Resting { until: now + delay };
    }

    fn delay(&self, before: u32, random: f64) -> Duration {
        super::retry_delay(
            self.config.reconnect_delay,
            self.config.max_reconnect_delay,
            self.config.backoff_multiplier,
            before,
            random,
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::epoch;
    use crate::testing::bare_chunk;

    const S: Duration = Duration::from_secs(1);
    const T0: u64 = 1_795_186_073_000;

    fn number(n: u64) -> FragmentNumber {
        FragmentNumber::new(n, T0 + n * 2_000, 7)
    }

    fn start(n: u64) -> ChunkStart {
        ChunkStart {
            number: Some(number(n)),
            server_timestamp_ms: Some(T0 + n * 2_000),
            producer_timestamp_ms: Some(T0 + n * 2_000),
            tracks: Arc::default(),
        }
    }

    fn whole(n: u64) -> Chunk {
        Chunk { continuation_token: Some(format!("token{n}")), ..bare_chunk(start(n), true) }
    }

    struct Rig {
        follow: Follow,
        now: Instant,
        wall_ms: u64,
    }

    impl Rig {
        fn new(change: impl FnOnce(&mut FollowConfig)) -> Self {
            let mut config = FollowConfig::default();
            change(&mut config);
            Self { follow: Follow::new(config).expect("valid"), now: epoch(), wall_ms: T0 }
        }

        fn open(&mut self) -> StartSelector {
            match self.follow.next_action(self.now, self.wall_ms) {
                FollowAction::Open(selector) => {
                    self.follow.opened(self.now);
                    selector
                }
                other => panic!("{other:?}"),
            }
        }

        fn begin(&mut self, n: u64) -> Beginning {
            self.wall_ms = self.wall_ms.max(T0 + n * 2_000);
            self.follow.chunk_begins(&start(n), self.wall_ms)
        }

        fn chunk(&mut self, n: u64) -> Beginning {
            let beginning = self.begin(n);
            self.follow.chunk_ends(&whole(n));
            beginning
        }

        fn wait(&mut self) -> Duration {
            match self.follow.next_action(self.now, self.wall_ms) {
                FollowAction::Wait(until) => {
                    let wait = until - self.now;
                    self.now = until;
                    self.wall_ms += u64::try_from(wait.as_millis()).expect("minutes");
                    wait
                }
                other => panic!("{other:?}"),
            }
        }

        fn fail(&mut self, kind: ReadFailureKind) {
            self.follow.failed(kind, self.now, 0.5);
        }
    }

    #[test]
    fn answers_follow_each_other_by_token_then_time_then_now() {
        let mut rig = Rig::new(|_| {});
        assert_eq!(rig.follow.state(), SourceState::Disconnected);
        assert_eq!(rig.open(), StartSelector::now());
        assert_eq!(rig.chunk(1), Beginning::Apart, "the first follows nothing");
        assert_eq!(rig.chunk(2), Beginning::Next);
        rig.follow.ended(rig.now, 0.5);
        assert_eq!((rig.follow.state(), rig.wait()), (SourceState::Reconnecting, S * 2));
        assert_eq!(rig.open(), StartSelector::continuation("token2"));
        rig.fail(ReadFailureKind::Refused);
        rig.wait();
        assert_eq!(rig.open(), StartSelector::server_timestamp_ms(T0 + 4_000));
        assert_eq!(rig.chunk(2), Beginning::Known, "the time is that of the last one");
        assert_eq!(rig.chunk(3), Beginning::Next);
        rig.fail(ReadFailureKind::Refused);
        rig.wait();
        rig.open();
        rig.fail(ReadFailureKind::Refused);
        rig.wait();
        assert_eq!(rig.open(), StartSelector::now());
        assert_eq!(rig.chunk(9), Beginning::Apart);
    }

    #[test]
    fn a_chunk_that_was_cut_goes_on_where_it_was_cut() {
        let mut rig = Rig::new(|_| {});
        rig.open();
        rig.chunk(1);
        assert_eq!(rig.begin(2), Beginning::Next);
        (0..3).for_each(|_| rig.follow.block());
        rig.follow.chunk_ends(&Chunk { complete: false, ..whole(2) });
        rig.fail(ReadFailureKind::Soon);
        rig.wait();
        assert_eq!(rig.open(), StartSelector::continuation("token1"));
        assert_eq!(rig.begin(2), Beginning::Again { blocks: 3 });
        rig.follow.block();
        rig.fail(ReadFailureKind::Soon);
        rig.wait();
        rig.open();
        assert_eq!(rig.chunk(2), Beginning::Again { blocks: 4 });
        assert_eq!(rig.chunk(3), Beginning::Next);
        // One that is gone when it is asked for again.
        rig.begin(4);
        rig.follow.block();
        rig.fail(ReadFailureKind::Soon);
        rig.wait();
        rig.open();
        assert_eq!(rig.chunk(5), Beginning::Apart);
    }

    #[test]
    fn what_cannot_be_read_is_asked_for_once_more_and_then_left_out() {
        let mut rig = Rig::new(|_| {});
        rig.open();
        rig.chunk(1);
        rig.fail(ReadFailureKind::Unreadable);
        rig.wait();
        assert_eq!(rig.open(), StartSelector::continuation("token1"));
        rig.chunk(2);
        for expected in [StartSelector::continuation("token2"), StartSelector::now()] {
            rig.fail(ReadFailureKind::Unreadable);
            rig.wait();
            assert_eq!(rig.open(), expected);
        }
        // What it was told to begin with stays right.
        let mut rig = Rig::new(|config| config.start = StartSelector::earliest());
        for _ in 0..3 {
            assert_eq!(rig.open(), StartSelector::earliest());
            rig.fail(ReadFailureKind::Unreadable);
            rig.wait();
        }
    }

    #[test]
    fn a_number_that_is_missing_inside_a_session_is_a_gap() {
        let mut rig = Rig::new(|_| {});
        rig.open();
        rig.chunk(1);
        assert_eq!((rig.chunk(3), rig.chunk(4)), (Beginning::Apart, Beginning::Next));
        assert_eq!(rig.chunk(1_001), Beginning::Next, "another session of the producer");
        assert_eq!((rig.chunk(1_001), rig.chunk(4)), (Beginning::Known, Beginning::Known));
    }

    #[test]
    fn it_is_replaced_before_the_service_ends_it_and_at_a_fragment_s_end() {
        let mut rig = Rig::new(|_| {});
        rig.open();
        rig.chunk(1);
        rig.now += S * 38 * 60 - S;
        rig.wall_ms += 38 * 60_000;
        assert_eq!(rig.follow.next_action(rig.now, rig.wall_ms), FollowAction::Read);
        let n = 1_141;
        rig.begin(n);
        rig.now += S;
        assert_eq!(rig.follow.next_action(rig.now, rig.wall_ms), FollowAction::Read, "in the middle of one");
        rig.follow.chunk_ends(&whole(n));
        assert_eq!(rig.open(), StartSelector::continuation(format!("token{n}")));
        assert_eq!((rig.follow.connection_resets(), rig.follow.consecutive_errors()), (0, 0));
        assert_eq!(rig.chunk(n + 1), Beginning::Next);
    }

    #[test]
    fn what_is_too_old_is_left_out_when_it_is_live() {
        let mut rig = Rig::new(|_| {});
        rig.open();
        rig.chunk(1);
        rig.wall_ms = T0 + 2_000 + 30_001;
        assert_eq!(rig.begin(2), Beginning::Next);
        rig.follow.chunk_ends(&whole(2));
        rig.wall_ms = T0 + 6_000 + 30_001;
        assert_eq!(rig.chunk(3), Beginning::Old);
        assert_eq!(rig.chunk(18), Beginning::Apart);
        // After a pause it begins with the newest.
        rig.follow.ended(rig.now, 0.5);
        rig.now += S * 31;
        rig.wall_ms += 31_000;
        assert_eq!(rig.open(), StartSelector::now());
        let mut rig = Rig::new(|config| config.start = StartSelector::earliest());
        rig.open();
        rig.wall_ms = T0 + 86_400_000;
        assert_eq!((rig.chunk(1), rig.chunk(2)), (Beginning::Apart, Beginning::Next));
        rig.follow.ended(rig.now, 0.5);
        rig.wait();
        assert_eq!(rig.open(), StartSelector::continuation("token2"));
    }

    #[test]
    fn errors_are_counted_to_the_last_attempt_and_quiet_answers_are_none() {
        let mut rig = Rig::new(|_| {});
        for expected in [2, 4, 8, 16, 32, 60, 60, 60, 60] {
            assert_eq!(rig.open(), StartSelector::now());
            rig.fail(ReadFailureKind::Soon);
            assert_eq!(rig.wait(), S * expected);
        }
        rig.open();
        rig.fail(ReadFailureKind::Soon);
        let action = rig.follow.next_action(rig.now, rig.wall_ms);
        assert_eq!((action, rig.follow.state()), (FollowAction::GiveUp, SourceState::Failed));

        let mut rig = Rig::new(|_| {});
        for expected in [4, 8, 16, 32, 60].into_iter().chain([60; 100]) {
            rig.open();
            rig.follow.ended(rig.now, 0.5);
            assert_eq!(rig.wait(), S * expected);
        }
        assert_eq!(rig.follow.consecutive_errors(), 0);
        for (kind, expected) in [(ReadFailureKind::TooManyReaders, 60), (ReadFailureKind::Operator, 60)] {
            rig.open();
            rig.fail(kind);
            assert_eq!(rig.wait(), S * expected, "{kind:?}");
        }
    }

    #[test]
    fn values_are_held_against_their_ranges() {
        let check = |change: &dyn Fn(&mut FollowConfig), expected: Option<FollowConfigError>| {
            let mut config = FollowConfig::default();
            change(&mut config);
            assert_eq!(config.check().err(), expected);
        };
        check(&|_| {}, None);
        check(&|config| config.reconnect_delay = S * 61, Some(FollowConfigError::Delay(S * 61)));
        check(
            &|config| config.backoff_multiplier = f64::NAN.max(11.0),
            Some(FollowConfigError::Multiplier(11.0)),
        );
        check(&|config| config.max_reconnect_attempts = Some(0), Some(FollowConfigError::Attempts));
        check(&|config| config.rotate_after = S * 2_401, Some(FollowConfigError::Rotation(S * 2_401)));
    }
}
