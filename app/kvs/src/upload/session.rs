//! One PutMedia session: which bytes are next, what is owed by whom, and when its patience ends.
//!
//! ```text
//!  header --> fragment: pieces, identity tag --> fragment ... --> (end tag) --> draining: until all are PERSISTED
//! ```

use std::time::{Duration, Instant};

use bytes::Bytes;
use health::Reason;
use media::ProducerTimestamp;
use media::mkv::write;

use super::UploadConfig;
use super::driver::{NO_SESSION, PARKED};
use super::policy::UploadPolicy;
use super::source::{FragmentSource, Held};
use super::window::{InFlight, Sent, Window};
use crate::ack::AckError;
use crate::{FragmentId, tag};

/// What a connection may hold behind the place where it takes bytes from us, while the network is slower than we are.
const BUFFERS: u64 = 1 << 20;

/// So long a capped uplink may be used ahead of what it is owed.
const BURST: Duration = Duration::from_millis(500);

/// Why a session ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    #[error("all fragments are persisted, the upload is finished")]
    Finished,
    #[error("planned rotation of the connection")]
    Rotation,
    #[error("parameter sets or tracks changed")]
    HeaderChange,
    #[error("an earlier fragment is to be sent, which only another session may do")]
    Order,
    #[error("an earlier start may have sent the next fragment, which is asked for first")]
    Unasked,
    #[error("nothing is to be sent at this time of day")]
    Paused,
    #[error("nothing to send")]
    Idle,
    #[error("no ack for {waited_s} s while fragments are under way")]
    AckTimeout { waited_s: u64 },
    /// RECEIVED came, PERSISTED did not, nor for a later one: the stream may keep nothing.
    #[error("fragment {fragment} was received {waited_s} s ago and not reported as persisted")]
    NotPersisted { fragment: FragmentId, waited_s: u64 },
    #[error("the connection took no byte for {waited_s} s while some waited")]
    WriteStalled { waited_s: u64 },
    #[error("fragment {fragment} got no PERSISTED ack and is not there")]
    AckMissing { fragment: FragmentId },
    #[error("the window is full, the fragment under way had to be dropped")]
    WindowFull,
    #[error(transparent)]
    Refused(#[from] AckError),
}

impl CloseReason {
    /// What dashboards call it.
    pub fn health_reason(&self) -> Reason {
        match self {
            Self::AckTimeout { .. } | Self::WriteStalled { .. } => Reason::StaleConnection,
            Self::WindowFull => Reason::BacklogFull,
            Self::Refused(error) => error.health_reason(),
            _ => Reason::UploadFailed,
        }
    }

    /// What somebody can look at.
    pub(super) fn fix(&self) -> Option<&'static str> {
        match self {
            Self::AckTimeout { .. } | Self::WriteStalled { .. } => Some(
                "look at the uplink, and at a proxy or firewall that keeps connections open and passes nothing on",
            ),
            _ => None,
        }
    }

    /// Planned ends are followed by the next session at once and count as no failure.
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Finished
            | Self::Rotation
            | Self::HeaderChange
            | Self::Order
            | Self::Unasked
            | Self::Paused
            | Self::Idle => false,
            Self::AckTimeout { .. }
            | Self::NotPersisted { .. }
            | Self::WriteStalled { .. }
            | Self::AckMissing { .. }
            | Self::WindowFull => true,
            Self::Refused(error) => error.needs_attention(),
        }
    }
}

pub(super) struct Session {
    pub(super) id: u64,
    since: Instant,
    /// The service said yes, or may send its yes with its first ack: media flows.
    pub(super) accepted: bool,
    /// The Matroska header that this session opened with.
    header: Option<Bytes>,
    /// The fragment under way and its next piece.
    current: Option<(FragmentId, usize)>,
    last_timecode: Option<ProducerTimestamp>,
    last_start: Option<Instant>,
    /// The next fragment is due and its bytes are not here yet: they come by themselves.
    fetching: bool,
    last_sent: Instant,
    /// When the service last said something.
    last_heard: Option<Instant>,
    end_tag_due: bool,
    end_tag_sent: bool,
    pub(super) draining: Option<CloseReason>,
    pub(super) ended: Option<CloseReason>,
    /// The uplink is free again for what comes next.
    free_at: Instant,
    /// Something could be sent, and waits for that.
    paced: bool,
    /// Bytes were given out at this time that the connection has not taken yet.
    pending: Option<Instant>,
    /// The last piece had to wait for its place.
    congested: bool,
    /// Bytes that the connection took from us.
    handed: u64,
    /// Bytes that its socket took, head and framing included, where that is known.
    written: Option<u64>,
    /// The least that `handed` ever was ahead of `written`: then nothing waited. What framing adds makes it sink.
    least_ahead: i128,
    /// When either last moved on, or began to wait.
    moved_at: Instant,
    /// A look for missing acks is under way, and is waited for until then.
    pub(super) looking: Option<Instant>,
    pub(super) look_again_at: Option<Instant>,
}

/// What a session does next.
pub(super) enum Step {
    Begin(FragmentId, Bytes),
    Send(Bytes),
    /// Its last byte was taken.
    Sent(FragmentId),
    Wait,
}

impl Session {
    pub(super) fn new(id: u64, now: Instant) -> Self {
        Self {
            id,
            since: now,
            accepted: false,
            header: None,
            current: None,
            last_timecode: None,
            last_start: None,
            fetching: false,
            last_sent: now,
            last_heard: None,
            end_tag_due: false,
            end_tag_sent: false,
            draining: None,
            ended: None,
            free_at: now,
            paced: false,
            pending: None,
            congested: false,
            handed: 0,
            written: None,
            least_ahead: 0,
            moved_at: now,
            looking: None,
            look_again_at: None,
        }
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.accepted = true;
        self.last_heard = Some(now);
    }

    pub(super) fn gave(&mut self, bytes: &Bytes, config: &UploadConfig, now: Instant) {
        if let Some(bits) = config.uplink_bits {
            // A picture at a time may go faster: the mean of a moment counts.
            let from = now.checked_sub(BURST).map_or(now, |earliest| self.free_at.max(earliest));
            let nanos = (bytes.len() as u64).saturating_mul(8_000_000_000) / bits.max(1);
            self.free_at = from + Duration::from_nanos(nanos);
        }
        if !self.has_waiting() {
            self.moved_at = now;
        }
        self.last_sent = now;
        self.pending = Some(now);
        self.handed += bytes.len() as u64;
    }

    /// The connection took what was given out.
    pub(super) fn taken(&mut self, now: Instant, config: &UploadConfig) {
        if let Some(since) = self.pending.take() {
            self.congested = now.saturating_duration_since(since) >= config.congested_after;
            if self.written.is_none() {
                self.moved_at = self.moved_at.max(now);
            }
        }
    }

    /// Its socket took `written` bytes so far, the last of them at `at`.
    pub(super) fn socket(&mut self, window: &mut Window, written: u64, at: Instant) {
        if self.written.is_none_or(|before| before < written) {
            self.written = Some(written);
            self.moved_at = self.moved_at.max(at);
        }
        self.least_ahead = self.least_ahead.min(self.ahead());
        for (_, fragment) in window.of_mut(self.id) {
            if let Some(sent) = fragment.sent.as_mut().filter(|sent| sent.mark <= written) {
                sent.out.get_or_insert(at.max(sent.at));
            }
        }
    }

    /// Bytes that the network took, as far as anybody knows.
    pub(super) fn carried(&self) -> u64 {
        self.written.unwrap_or(self.handed)
    }

    /// Bytes wait that the socket has not taken.
    pub(super) fn has_waiting(&self) -> bool {
        self.pending.is_some() || self.ahead() > self.least_ahead
    }

    fn ahead(&self) -> i128 {
        self.written.map_or(self.least_ahead, |written| i128::from(self.handed) - i128::from(written))
    }

    pub(super) fn is_current(&self, id: FragmentId) -> bool {
        self.current.is_some_and(|(current, _)| current == id)
    }

    /// All its pieces were given out, whether or not the connection has taken the last.
    pub(super) fn is_wholly_sent(&self, id: FragmentId, held: &Held<'_>, fragment: &InFlight) -> bool {
        let pieces = held.pieces + usize::from(!fragment.treatment.without_tag);
        let given_out = self.current.is_none_or(|(current, piece)| current != id || piece >= pieces);
        held.end.is_some() && fragment.session == self.id && given_out
    }

    /// Advances through header, fragments and end tag.
    pub(super) fn step<S: FragmentSource>(
        &mut self,
        source: &S,
        window: &mut Window,
        policy: UploadPolicy,
        config: &UploadConfig,
        finishing: bool,
        now: Instant,
    ) -> Step {
        if self.pending.is_some() || !self.accepted {
            return Step::Wait;
        }
        self.paced = config.uplink_bits.is_some() && now < self.free_at;
        if self.paced {
            return Step::Wait;
        }
        loop {
            if self.end_tag_due {
                self.end_tag_due = false;
                self.end_tag_sent = true;
                return Step::Send(write::tags(&[(tag::END_OF_FRAGMENT, "")]));
            }
            if let Some((id, piece)) = self.current {
                // Given up while it was under way: the session ends for that reason.
                let Some(held) = source.get(id) else {
                    self.current = None;
                    continue;
                };
                match self.piece(source, &held, window, piece) {
                    Next::Bytes(bytes) => {
                        self.current = Some((id, piece + 1));
                        return Step::Send(bytes);
                    }
                    Next::NotYet => return Step::Wait,
                    Next::Over { closing } => {
                        self.current = None;
                        self.end_tag_due = closing;
                        let congested = u64::from(self.congested) * BUFFERS;
                        let mark = self.written.map_or(0, |written| written.saturating_add(congested));
                        if let Some(fragment) = window.get_mut(id) {
                            let out = (congested == 0 || mark == 0).then_some(now);
                            fragment.sent = Some(Sent { at: now, mark, out });
                        }
                        return Step::Sent(id);
                    }
                }
            }
            if self.draining.is_some() {
                return Step::Wait;
            }
            let in_flight = |held: &Held<'_>| {
                window
                    .get(held.id)
                    .is_some_and(|fragment| fragment.session == self.id || fragment.session == PARKED)
            };
            let next = policy.next(source.held().filter(|held| !in_flight(held)));
            let Some(held) = next.and_then(|id| source.get(id)) else {
                if finishing {
                    self.drain(CloseReason::Finished);
                } else if now >= self.last_sent + config.idle_close {
                    self.drain(CloseReason::Idle);
                } else {
                    return Step::Wait;
                }
                continue;
            };
            if window.get(held.id).is_some_and(|fragment| fragment.session == NO_SESSION) {
                self.drain(CloseReason::Unasked);
                continue;
            }
            let wanted = header(&held, window);
            let Some(header) = &self.header else {
                self.header = Some(wanted.clone());
                return Step::Send(wanted);
            };
            let reason = if *header != wanted {
                Some(CloseReason::HeaderChange)
            } else if now >= self.since + config.rotate_after {
                Some(CloseReason::Rotation)
            } else if self.last_timecode.is_some_and(|last| held.timecode <= last) {
                Some(CloseReason::Order)
            } else {
                None
            };
            if let Some(reason) = reason {
                self.drain(reason);
                continue;
            }
            if self.last_start.is_some_and(|start| now < start + config.start_interval) {
                return Step::Wait;
            }
            let Some(bytes) = source.piece(held.id, 0) else {
                self.fetching = true;
                return Step::Wait;
            };
            self.fetching = false;
            self.last_start = Some(now);
            self.last_timecode = Some(held.timecode);
            self.end_tag_sent = false;
            self.current = Some((held.id, 1));
            window.begin(&held, self.id);
            return Step::Begin(held.id, bytes);
        }
    }

    /// The identity tag counts as the last piece.
    fn piece<S: FragmentSource>(&self, source: &S, held: &Held<'_>, window: &Window, piece: usize) -> Next {
        match (piece.checked_sub(held.pieces), held.end) {
            (None, _) => source.piece(held.id, piece).map_or(Next::NotYet, Next::Bytes),
            (Some(_), None) => Next::NotYet,
            (Some(0), Some(end)) if !window.treatment(held.id).without_tag => Next::Bytes(end.tag.clone()),
            (Some(_), Some(end)) => Next::Over { closing: end.closing },
        }
    }

    /// Tells the service that the fragment before is whole, then waits for its acks.
    pub(super) fn drain(&mut self, reason: CloseReason) {
        self.end_tag_due = self.header.is_some() && self.last_start.is_some() && !self.end_tag_sent;
        self.draining = Some(reason);
    }

    /// Everything was said from both sides.
    pub(super) fn drained(&self, window: &Window) -> Option<CloseReason> {
        let quiet = self.pending.is_none() && !self.end_tag_due && self.current.is_none();
        self.draining.clone().filter(|_| quiet && window.of(self.id).next().is_none())
    }

    /// The limit that passed, if one did.
    pub(super) fn overdue(
        &self,
        window: &Window,
        config: &UploadConfig,
        now: Instant,
    ) -> Option<CloseReason> {
        let waited_s = |since: Instant| now.saturating_duration_since(since).as_secs();
        if let Some(since) = self.stalled_since().filter(|since| now >= *since + config.write_timeout) {
            return Some(CloseReason::WriteStalled { waited_s: waited_s(since) });
        }
        if let Some(since) = self.owed_since(window).filter(|since| now >= *since + config.ack_timeout) {
            return Some(CloseReason::AckTimeout { waited_s: waited_s(since) });
        }
        let (since, fragment) = self.oldest_received(window)?;
        (now >= since + config.ack_timeout)
            .then(|| CloseReason::NotPersisted { fragment, waited_s: waited_s(since) })
    }

    fn stalled_since(&self) -> Option<Instant> {
        self.has_waiting().then_some(self.moved_at)
    }

    /// Since when an ack is owed. It is due only for what is wholly sent, and not while the socket still takes what waits
    /// in front of it.
    fn owed_since(&self, window: &Window) -> Option<Instant> {
        let oldest = window.of(self.id).find_map(|(_, fragment)| fragment.sent)?;
        let out = oldest.out.unwrap_or(self.moved_at.max(oldest.at));
        Some(self.last_heard.map_or(out, |heard| heard.max(out)))
    }

    /// Since when the service has a fragment of this session without having kept it, and which.
    fn oldest_received(&self, window: &Window) -> Option<(Instant, FragmentId)> {
        let kept_back = window.of(self.id).filter(|(_, fragment)| !fragment.overtaken);
        kept_back.filter_map(|(id, fragment)| Some((fragment.received_at?, id))).min()
    }

    /// Fragments that were wholly sent so long ago that their ack may have been lost, oldest first.
    pub(super) fn unanswered(&self, window: &Window, config: &UploadConfig, now: Instant) -> Vec<FragmentId> {
        if self.looking.is_some() || self.look_again_at.is_some_and(|at| now < at) {
            return Vec::new();
        }
        let old = |sent: Sent| now >= sent.at + config.doubt();
        let of = window.of(self.id).filter(|(_, fragment)| fragment.sent.is_some_and(old));
        of.map(|(id, _)| id).collect()
    }

    /// When [`step`](Self::step), [`overdue`](Self::overdue) or [`unanswered`](Self::unanswered) may say something else
    /// although nothing happens.
    pub(super) fn next_deadline<S: FragmentSource>(
        &self,
        source: &S,
        window: &Window,
        config: &UploadConfig,
    ) -> Option<Instant> {
        let accept = (!self.accepted).then(|| self.accept_by(config));
        let stall = self.stalled_since().map(|since| since + config.write_timeout);
        let owed = self.owed_since(window).map(|since| since + config.ack_timeout);
        let received = self.oldest_received(window).map(|(at, _)| at + config.ack_timeout);
        let free =
            self.accepted && self.pending.is_none() && self.draining.is_none() && self.current.is_none();
        let waits = free
            && source.held().any(|held| {
                window
                    .get(held.id)
                    .is_none_or(|fragment| fragment.session != self.id && fragment.session != PARKED)
            });
        let idle = (free && !waits).then(|| self.last_sent + config.idle_close);
        let start =
            self.last_start.filter(|_| waits && !self.fetching).map(|start| start + config.start_interval);
        let look = window.of(self.id).find_map(|(_, fragment)| fragment.sent).map(|sent| {
            let at = sent.at + config.doubt();
            self.look_again_at.map_or(at, |again| again.max(at))
        });
        let look = self.looking.or(look);
        let pace = Some(self.free_at).filter(|_| self.paced);
        // While it is paced, nothing else is looked at.
        let (idle, start) = (idle.filter(|_| !self.paced), start.filter(|_| !self.paced));
        [accept, stall, owed, received, idle, start, look, pace].into_iter().flatten().min()
    }

    /// When the yes of the service is no longer waited for.
    pub(super) fn accept_by(&self, config: &UploadConfig) -> Instant {
        self.since + config.accept_limit
    }
}

enum Next {
    Bytes(Bytes),
    NotYet,
    /// `closing`: nothing follows for now.
    Over {
        closing: bool,
    },
}

fn header(held: &Held<'_>, window: &Window) -> Bytes {
    let video_only = window.treatment(held.id).video_only;
    if video_only { held.header.video_only.clone() } else { held.header.bytes.clone() }
}
