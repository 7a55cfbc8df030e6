//! The lasting GetMedia: when to open it, where, and when to let go of it. No IO.
//!
//! ```text
//!  idle --wanted--> opening --200--> reading --end, error, 38 min, notice--> resting --due--> opening
//!                      |                                                       ^
//!                      +-- refused: back-off, or the operator's delay ---------+
//! ```
//!
//! An answer ends without any mark: after 40 to 45 minutes, and soon when nothing new comes (facts 3.3). The next one goes
//! on behind the last whole chunk by its continuation token, so that a cut chunk is read again from its start. What cannot
//! be read is not asked for again and again: the next answer then begins with the newest fragment.

use std::time::{Duration, Instant};

use health::Backoff;

use super::{ReadFailure, ReadFailureKind};
use crate::api::StartSelector;
use crate::read::chunk::Chunk;

#[derive(Clone, Debug)]
pub struct GetMediaConfig {
    pub first_delay: Duration,
    pub longest_delay: Duration,
    /// An answer that gave media for so long was a good one.
    pub healthy: Duration,
    /// A reader is renewed before the service ends it.
    pub rotate_after: Duration,
    /// After the service asked for less.
    pub slower_delay: Duration,
    /// While others hold all readers of the stream: three, none of which ends soon.
    pub readers_delay: Duration,
    /// Between attempts that only an operator's change can make succeed.
    pub operator_delay: Duration,
    /// From the request to the head of the answer.
    pub open_limit: Duration,
}

impl Default for GetMediaConfig {
    fn default() -> Self {
        Self {
            first_delay: Duration::from_millis(500),
            longest_delay: Duration::from_secs(15),
            healthy: Duration::from_secs(10),
            rotate_after: Duration::from_secs(38 * 60),
            slower_delay: Duration::from_secs(2),
            readers_delay: Duration::from_secs(60),
            operator_delay: Duration::from_secs(120),
            open_limit: Duration::from_secs(60),
        }
    }
}

/// What the owner of the connection does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Ask for media from here on: then [`GetMedia::opened`] or [`GetMedia::failed`].
    Open(StartSelector),
    /// Let go of the answer, or of the request.
    Close,
}

/// The reader of one stream.
#[derive(Debug)]
pub struct GetMedia {
    config: GetMediaConfig,
    backoff: Backoff,
    state: State,
    /// Where an answer without a token begins.
    from_ms: Option<u64>,
    token: Option<String>,
    /// The owner still holds an answer that is of no use.
    to_close: bool,
    /// The last answer ended in order, as it does when nothing is uploaded.
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Resting { until: Option<Instant>, held: bool },
    Opening { by: Instant },
    Reading { until: Instant },
}

impl GetMedia {
    pub fn new(config: GetMediaConfig) -> Self {
        let backoff = Backoff::new(config.first_delay, config.longest_delay, config.healthy);
        let state = State::Resting { until: None, held: false };
        Self { config, backoff, state, from_ms: None, token: None, to_close: false, quiet: false }
    }

    /// There is something to read from this producer time on. The first call counts; later ones are where to begin when
    /// what lies between cannot be read.
    pub fn want(&mut self, from_ms: u64) {
        self.from_ms.get_or_insert(from_ms);
    }

    pub fn is_wanted(&self) -> bool {
        self.from_ms.is_some()
    }

    /// What to do now; call again until `None`. `random` in 0..1 spreads retries.
    pub fn next_action(&mut self, now: Instant, random: f64) -> Option<Action> {
        match self.state {
            State::Opening { by } if now >= by => {
                self.to_close = true;
                self.rest(now, random, Duration::ZERO, false);
            }
            State::Reading { until } if now >= until => {
                self.to_close = true;
                self.state = State::Resting { until: None, held: false };
            }
            _ => {}
        }
        if std::mem::take(&mut self.to_close) {
            return Some(Action::Close);
        }
        let State::Resting { until, .. } = self.state else { return None };
        let from_ms = self.from_ms.filter(|_| until.is_none_or(|until| now >= until))?;
        self.state = State::Opening { by: now + self.config.open_limit };
        Some(Action::Open(match &self.token {
            Some(token) => StartSelector::continuation(token),
            None => StartSelector::producer_timestamp_ms(from_ms),
        }))
    }

    /// When [`next_action`](Self::next_action) has something to do, as far as time alone decides.
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.state {
            State::Resting { until, .. } => until.filter(|_| self.is_wanted()),
            State::Opening { by } => Some(by),
            State::Reading { until } => Some(until),
        }
    }

    pub fn opened(&mut self, now: Instant) {
        if matches!(self.state, State::Opening { .. }) {
            self.state = State::Reading { until: now + self.config.rotate_after };
        }
    }

    /// A chunk begins: the answer gives media.
    pub fn chunk_begins(&mut self, now: Instant) {
        self.backoff.up(now);
    }

    /// A chunk is over; the next answer begins behind it.
    pub fn chunk_ends(&mut self, chunk: &Chunk) {
        if chunk.complete && chunk.continuation_token.is_some() {
            self.token.clone_from(&chunk.continuation_token);
        }
    }

    /// The answer ended in order.
    pub fn ended(&mut self, now: Instant, random: f64) {
        self.rest(now, random, Duration::ZERO, false);
        self.quiet = true;
    }

    /// It was refused, or broke. `newest_ms`: where to go on if the place to begin is what was refused.
    pub fn failed(&mut self, failure: &ReadFailure, newest_ms: u64, now: Instant, random: f64) {
        let (least, held) = match failure.kind {
            ReadFailureKind::Soon => (Duration::ZERO, false),
            ReadFailureKind::Slower => (self.config.slower_delay, false),
            ReadFailureKind::TooManyReaders => (self.config.readers_delay, true),
            ReadFailureKind::Operator => (self.config.operator_delay, true),
            ReadFailureKind::Refused | ReadFailureKind::Unreadable => {
                self.skip_to(newest_ms);
                (Duration::ZERO, false)
            }
        };
        self.rest(now, random, least, held);
    }

    /// What follows the last whole chunk is no Matroska, or the service says in its words that it cannot go on: the next
    /// answer begins at `newest_ms`, and what lies between is left to looks by number.
    pub fn unreadable(&mut self, newest_ms: u64, now: Instant, random: f64) {
        self.skip_to(newest_ms);
        self.to_close = matches!(self.state, State::Reading { .. });
        self.rest(now, random, Duration::ZERO, false);
    }

    /// KVS keeps footage again: whatever failed meanwhile is tried again at once, except what only others can change.
    pub fn kept(&mut self, after_a_pause: bool) {
        if let State::Resting { until, held: false } = &mut self.state
            && (self.quiet || after_a_pause)
        {
            *until = None;
        }
    }

    fn skip_to(&mut self, newest_ms: u64) {
        self.token = None;
        self.from_ms = Some(newest_ms);
    }

    fn rest(&mut self, now: Instant, random: f64, least: Duration, held: bool) {
        let delay = self.backoff.failed(now, random).max(least);
        self.state = State::Resting { until: Some(now + delay), held };
        self.quiet = false;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use health::Reason;

    use super::*;
    use crate::epoch;
    use crate::read::chunk::ChunkStart;
    use crate::testing::bare_chunk;

    const S: Duration = Duration::from_secs(1);

    fn chunk(token: Option<&str>, complete: bool) -> Chunk {
        let start = ChunkStart {
            number: None,
            server_timestamp_ms: None,
            producer_timestamp_ms: None,
            tracks: Arc::default(),
        };
        Chunk { continuation_token: token.map(str::to_owned), ..bare_chunk(start, complete) }
    }

    fn failure(kind: ReadFailureKind) -> ReadFailure {
        ReadFailure::new(Reason::VerifyFailed, "no", kind)
    }

    fn open(reader: &mut GetMedia, now: Instant) -> StartSelector {
        match reader.next_action(now, 1.0) {
            Some(Action::Open(selector)) => selector,
            other => panic!("{other:?}"),
        }
    }

    /// A reader with an open answer, begun at 4000 ms.
    fn reading(now: Instant) -> GetMedia {
        let mut reader = GetMedia::new(GetMediaConfig::default());
        reader.want(4000);
        open(&mut reader, now);
        reader.opened(now);
        reader
    }

    #[test]
    fn it_begins_with_the_first_fragment_and_resumes_behind_the_last_whole_chunk() {
        let t0 = epoch();
        let mut reader = GetMedia::new(GetMediaConfig::default());
        assert_eq!((reader.next_action(t0, 1.0), reader.next_deadline()), (None, None), "nothing to read");
        reader.want(4000);
        reader.want(6000);
        assert_eq!(open(&mut reader, t0), StartSelector::producer_timestamp_ms(4000));
        reader.opened(t0);
        reader.chunk_begins(t0);
        reader.chunk_ends(&chunk(Some("a"), true));
        reader.chunk_ends(&chunk(Some("b"), false));
        reader.ended(t0 + S, 1.0);
        assert_eq!(reader.next_deadline(), Some(t0 + S + S / 2));
        assert_eq!(reader.next_action(t0 + S, 1.0), None);
        assert_eq!(open(&mut reader, t0 + S * 2), StartSelector::continuation("a"));
    }

    #[test]
    fn it_rotates_before_the_service_ends_it() {
        let (t0, rotate) = (epoch(), S * 38 * 60);
        let mut reader = reading(t0);
        reader.chunk_ends(&chunk(Some("a"), true));
        assert_eq!(reader.next_deadline(), Some(t0 + rotate));
        assert_eq!(reader.next_action(t0 + rotate - S, 1.0), None);
        assert_eq!(
            reader.next_action(t0 + rotate, 1.0),
            Some(Action::Close),
            "three a stream: the old one first"
        );
        assert_eq!(open(&mut reader, t0 + rotate), StartSelector::continuation("a"));
    }

    #[test]
    fn what_cannot_be_read_is_skipped() {
        let t0 = epoch();
        let mut reader = reading(t0);
        reader.chunk_ends(&chunk(Some("a"), true));
        reader.unreadable(20_000, t0, 1.0);
        assert_eq!(reader.next_action(t0, 1.0), Some(Action::Close));
        assert_eq!(open(&mut reader, t0 + S), StartSelector::producer_timestamp_ms(20_000));
        // A token that has expired is an invalid argument.
        reader.opened(t0 + S);
        reader.chunk_ends(&chunk(Some("b"), true));
        reader.ended(t0 + S * 2, 1.0);
        assert_eq!(open(&mut reader, t0 + S * 4), StartSelector::continuation("b"));
        reader.failed(&failure(ReadFailureKind::Refused), 30_000, t0 + S * 4, 1.0);
        assert_eq!(open(&mut reader, t0 + S * 9), StartSelector::producer_timestamp_ms(30_000));
    }

    #[test]
    fn each_failure_has_its_delay() {
        let t0 = epoch();
        let cases = [
            (ReadFailureKind::Soon, S / 2),
            (ReadFailureKind::Slower, S * 2),
            (ReadFailureKind::TooManyReaders, S * 60),
            (ReadFailureKind::Operator, S * 120),
            (ReadFailureKind::Refused, S / 2),
        ];
        for (kind, delay) in cases {
            let mut reader = reading(t0);
            reader.failed(&failure(kind), 0, t0, 1.0);
            assert_eq!(reader.next_deadline(), Some(t0 + delay), "{kind:?}");
            reader.kept(true);
            let held = matches!(kind, ReadFailureKind::TooManyReaders | ReadFailureKind::Operator);
            let soon = reader.next_action(t0, 1.0).is_some();
            assert_eq!(soon, !held, "{kind:?}: footage that is kept does not give a permission");
        }
    }

    #[test]
    fn delays_grow_and_footage_that_is_kept_again_ends_them() {
        let t0 = epoch();
        let mut reader = reading(t0);
        for (n, half_seconds) in [1_u32, 2, 4, 8, 16, 30, 30].into_iter().enumerate() {
            reader.ended(t0, 1.0);
            assert_eq!(reader.next_deadline(), Some(t0 + S / 2 * half_seconds), "failure {n}");
            open(&mut reader, t0 + S * 20);
            reader.opened(t0);
        }
        reader.failed(&failure(ReadFailureKind::Soon), 0, t0, 1.0);
        reader.kept(false);
        assert_eq!(reader.next_action(t0, 1.0), None, "a failure is waited out while footage flows as ever");
        reader.kept(true);
        open(&mut reader, t0);
        reader.opened(t0);
        reader.ended(t0, 1.0);
        reader.kept(false);
        open(&mut reader, t0);
    }

    #[test]
    fn a_request_without_an_answer_is_given_up() {
        let t0 = epoch();
        let mut reader = GetMedia::new(GetMediaConfig::default());
        reader.want(0);
        open(&mut reader, t0);
        assert_eq!(reader.next_action(t0 + S * 59, 1.0), None);
        assert_eq!(reader.next_action(t0 + S * 60, 1.0), Some(Action::Close));
        reader.opened(t0 + S * 60);
        assert_eq!(reader.next_deadline(), Some(t0 + S * 60 + S / 2), "what comes too late is not taken");
    }
}
