//! The upload of one stream: a window of fragments that are not persisted yet, and the session that sends them.
//!
//! ```text
//!            connect            border of another header, rotation due, idle, finish
//!  offline ----------> streaming -----------------------------------> draining
//!     ^                   |  error ack, ack timeout                      |  all sent are PERSISTED
//!     +---- disconnected -+------------------------<---------------------+
//! ```
//!
//! Only a PERSISTED ack (or a read-back that found the fragment identical, see [`PutMedia::unconfirmed`])
//! releases a fragment. A new session begins with the oldest one that is not released, so a lost connection
//! costs nothing but the bytes sent twice. There is one session at a time: the service refuses the second
//! PutMedia of a stream. Fragments leave the window otherwise only when it is full (oldest first) or when the
//! service says that it will never take this one; both are reported as [`Event::Lost`], never silently.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use media::ProducerTimestamp;
use media::mkv::write;

use crate::ack::{Ack, AckError, AckEvent, Reaction};
use crate::fragmenter::{FragmentEnd, FragmentStart, FragmentSummary, Part, StreamHeader};
use crate::{FragmentNumber, tag};

#[derive(Clone, Debug)]
pub struct PutMediaConfig {
    /// Payload bytes kept for sending again.
    pub window_bytes: usize,
    /// Planned end of a session, at a fragment border. The service closes at 45 min.
    pub rotate_after: Duration,
    /// Longest silence of the service while it owes us an ack, and longest time from RECEIVED to PERSISTED.
    pub ack_timeout: Duration,
    /// A fragment without its PERSISTED ack is asked for after this, although the session is alive: the ack of
    /// one fragment can be missing among others.
    pub doubt_after: Duration,
    /// A session without anything to send is closed after this long; the service would at 30 s.
    pub idle_close: Duration,
    /// Shortest time between two fragment starts; the service takes 5 fragments a second.
    pub start_interval: Duration,
}

impl Default for PutMediaConfig {
    fn default() -> Self {
        Self {
            window_bytes: 64 << 20,
            rotate_after: Duration::from_secs(40 * 60),
            ack_timeout: Duration::from_secs(60),
            doubt_after: Duration::from_secs(5),
            idle_close: Duration::from_secs(20),
            start_interval: Duration::from_millis(200),
        }
    }
}

/// A fragment is refused this often for its tags or its tracks before it is given up.
const MAX_REFUSALS: u32 = 3;

/// What the owner of the connection does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    Send(Bytes),
    /// Until the next part, ack or timeout.
    Wait,
    /// End the body, drop the connection, call [`PutMedia::disconnected`].
    Close(CloseReason),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    #[error("all fragments are persisted, the upload is finished")]
    Finished,
    #[error("planned rotation of the connection")]
    Rotation,
    #[error("parameter sets or tracks changed")]
    HeaderChange,
    #[error("nothing to send")]
    Idle,
    #[error("no ack for {waited_s} s while fragments are under way")]
    AckTimeout { waited_s: u64 },
    /// RECEIVED came, PERSISTED did not, nor for a later one: the stream may keep nothing.
    #[error("fragment {sequence} was received {waited_s} s ago and not reported as persisted")]
    NotPersisted { sequence: u64, waited_s: u64 },
    #[error("fragment {sequence} got no PERSISTED ack and is not there")]
    AckMissing { sequence: u64 },
    #[error("the window is full, the fragment under way had to be dropped")]
    WindowFull,
    #[error(transparent)]
    Refused(#[from] AckError),
}

impl CloseReason {
    /// Planned ends are followed by the next session at once and count as no failure.
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Finished | Self::Rotation | Self::HeaderChange | Self::Idle => false,
            Self::AckTimeout { .. }
            | Self::NotPersisted { .. }
            | Self::AckMissing { .. }
            | Self::WindowFull => true,
            Self::Refused(error) => error.needs_attention(),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The service keeps this fragment.
    Persisted { summary: FragmentSummary, number: Option<FragmentNumber>, ack_delay: Duration },
    /// This fragment is gone for good: a gap. It comes once the fragment is complete, so that its end is known.
    Lost {
        sequence: u64,
        timecode: ProducerTimestamp,
        end: ProducerTimestamp,
        bytes: usize,
        reason: LossReason,
    },
    /// The service sent an error ack.
    Refused(AckError),
    /// An ack that fits nothing we sent; it released nothing.
    StrayAck(Ack),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LossReason {
    #[error("the memory window was full while KVS could not be reached")]
    WindowFull,
    #[error("refused for good: {0}")]
    Refused(AckError),
}

/// A fragment that was handed to an earlier connection and got no PERSISTED ack: it may or may not be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unconfirmed {
    pub summary: FragmentSummary,
}

/// Where the window stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    pub fragments: usize,
    pub bytes: usize,
    /// Producer time of the oldest fragment that is not persisted.
    pub oldest: Option<ProducerTimestamp>,
}

pub struct PutMedia {
    config: PutMediaConfig,
    window: VecDeque<Entry>,
    window_bytes: usize,
    session: Option<Session>,
    sessions: u64,
    finishing: bool,
    events: VecDeque<Event>,
}

struct Entry {
    sequence: u64,
    timecode: ProducerTimestamp,
    header: Arc<StreamHeader>,
    video_only: bool,
    without_tag: bool,
    pieces: Vec<Bytes>,
    bytes: usize,
    end: Option<FragmentEnd>,
    /// The last session that sent its first byte.
    session: Option<u64>,
    sent_at: Option<Instant>,
    /// RECEIVED came in this session.
    received_at: Option<Instant>,
    /// PERSISTED came for a later fragment of this session; acks come in order.
    overtaken: bool,
    refusals: u32,
    /// Given up while it grows: why, and its bytes until then. Its remaining parts are thrown away as they come.
    lost: Option<(LossReason, usize)>,
}

struct Session {
    id: u64,
    since: Instant,
    /// The Matroska header that this session opened with.
    header: Option<Bytes>,
    next_sequence: u64,
    next_piece: usize,
    last_start: Option<Instant>,
    last_sent: Instant,
    /// When the service last said something, or when we began to owe it an ack.
    last_heard: Instant,
    end_tag_due: bool,
    end_tag_sent: bool,
    draining: Option<CloseReason>,
    ended: Option<CloseReason>,
}

impl PutMedia {
    pub fn new(config: PutMediaConfig) -> Self {
        Self {
            config,
            window: VecDeque::new(),
            window_bytes: 0,
            session: None,
            sessions: 0,
            finishing: false,
            events: VecDeque::new(),
        }
    }

    /// Takes what the fragmenter made, in order.
    pub fn part(&mut self, part: Part) {
        match part {
            Part::Start(start) => {
                self.window_bytes += start.head.len();
                self.window.push_back(Entry::new(start));
            }
            Part::Block { head, payload } => {
                let Some(entry) = self.window.back_mut().filter(|entry| entry.end.is_none()) else { return };
                if !entry.is_lost() {
                    self.window_bytes += entry.add(head) + entry.add(payload);
                }
            }
            Part::End(end) => {
                let Some(entry) = self.window.back_mut().filter(|entry| entry.end.is_none()) else { return };
                if let Some((reason, bytes)) = entry.lost.take() {
                    let (sequence, timecode) = (entry.sequence, entry.timecode);
                    self.window.pop_back();
                    let end = end.summary.end();
                    self.events.push_back(Event::Lost { sequence, timecode, end, bytes, reason });
                } else {
                    entry.end = Some(end);
                }
            }
        }
        while self.window_bytes > self.config.window_bytes && self.drop_oldest() {}
    }

    /// Something waits for a session, and there is none.
    pub fn wants_session(&self) -> bool {
        self.session.is_none() && self.window.iter().any(|entry| !entry.is_lost())
    }

    /// Fragments that a broken connection left in doubt, oldest first. Before the next session, ask the service
    /// which of them it has and [`confirm`](Self::confirm) those: then there is neither a gap nor a duplicate.
    pub fn unconfirmed(&self) -> Vec<Unconfirmed> {
        let sent = self.window.iter().filter(|entry| entry.session.is_some() && !entry.is_lost());
        sent.filter_map(|entry| Some(Unconfirmed { summary: entry.end.as_ref()?.summary.clone() })).collect()
    }

    /// Fragments of the running session that were wholly sent `doubt_after` ago and have no PERSISTED ack, oldest
    /// first: to be looked up as after a break.
    pub fn doubtful(&self, now: Instant) -> Vec<Unconfirmed> {
        let Some(session) = &self.session else { return Vec::new() };
        let long_ago = |sent: Instant| now.saturating_duration_since(sent) >= self.config.doubt_after;
        let doubtful =
            self.window.iter().filter(|entry| entry.session == Some(session.id) && !entry.is_lost());
        doubtful
            .filter(|entry| entry.sent_at.is_some_and(long_ago))
            .filter_map(|entry| Some(Unconfirmed { summary: entry.end.as_ref()?.summary.clone() }))
            .collect()
    }

    /// A doubtful fragment was looked for and is not there. If a later one is, the session ends, and the next one
    /// sends it again; otherwise it may still be on its way over a slow network.
    pub fn not_there(&mut self, sequence: u64) {
        let waits = self.window.iter().any(|entry| entry.sequence == sequence && entry.overtaken);
        if let Some(session) = self.session.as_mut().filter(|_| waits) {
            session.ended.get_or_insert(CloseReason::AckMissing { sequence });
        }
    }

    /// The fragment was read back and is identical.
    pub fn confirm(&mut self, sequence: u64, number: FragmentNumber, now: Instant) {
        if let Some(index) = self.window.iter().position(|entry| entry.sequence == sequence) {
            self.persisted(index, Some(number), now);
        }
    }

    /// A connection is up and its head was accepted.
    pub fn connected(&mut self, now: Instant) {
        self.sessions += 1;
        self.session = Some(Session {
            id: self.sessions,
            since: now,
            header: None,
            next_sequence: 0,
            next_piece: 0,
            last_start: None,
            last_sent: now,
            last_heard: now,
            end_tag_due: false,
            end_tag_sent: false,
            draining: None,
            ended: None,
        });
    }

    /// The connection is gone, for whatever reason.
    pub fn disconnected(&mut self) {
        self.session = None;
    }

    pub fn is_connected(&self) -> bool {
        self.session.is_some()
    }

    /// No more parts will come; once everything is persisted the session closes with [`CloseReason::Finished`].
    pub fn finish(&mut self) {
        self.finishing = true;
    }

    /// Everything is persisted (or was reported lost).
    pub fn is_empty(&self) -> bool {
        self.window.is_empty()
    }

    pub fn backlog(&self) -> Backlog {
        let oldest = self.window.iter().find(|entry| !entry.is_lost()).map(|entry| entry.timecode);
        Backlog { fragments: self.window.len(), bytes: self.window_bytes, oldest }
    }

    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`next_bytes`](Self::next_bytes) may give something else than `Wait` without a new part or ack.
    pub fn next_timeout(&self) -> Option<Instant> {
        let session = self.session.as_ref()?;
        let stale = self.owes_ack(session).then(|| session.last_heard + self.config.ack_timeout);
        let not_kept = self.oldest_received(session).map(|(at, _)| at + self.config.ack_timeout);
        let idle = session.draining.is_none().then(|| session.last_sent + self.config.idle_close);
        let start = session.last_start.map(|start| start + self.config.start_interval);
        let start =
            start.filter(|_| session.next_piece == 0 && self.entry_at(session.next_sequence).is_some());
        [stale, not_kept, idle, start].into_iter().flatten().min()
    }

    /// What the connection does now. Call again after each `Send`.
    pub fn next_bytes(&mut self, now: Instant) -> Output {
        let Some(session) = &self.session else { return Output::Wait };
        if let Some(reason) = &session.ended {
            return Output::Close(reason.clone());
        }
        if self.owes_ack(session) {
            let waited = now.saturating_duration_since(session.last_heard);
            if waited >= self.config.ack_timeout {
                return Output::Close(CloseReason::AckTimeout { waited_s: waited.as_secs() });
            }
        }
        if let Some((at, sequence)) = self.oldest_received(session) {
            let waited = now.saturating_duration_since(at);
            if waited >= self.config.ack_timeout {
                return Output::Close(CloseReason::NotPersisted { sequence, waited_s: waited.as_secs() });
            }
        }
        match self.streaming(now) {
            Some(bytes) => {
                if let Some(session) = &mut self.session {
                    session.last_sent = now;
                }
                Output::Send(bytes)
            }
            None => self.draining_done().map_or(Output::Wait, Output::Close),
        }
    }

    /// Takes what the service said.
    pub fn ack(&mut self, ack: &Ack, now: Instant) {
        let Some(session) = &mut self.session else { return };
        session.last_heard = now;
        let (id, timecode_ms) = (session.id, ack.timecode_ms.and_then(|ms| u64::try_from(ms).ok()));
        let index =
            timecode_ms.and_then(|ms| self.window.iter().position(|entry| entry.timecode.as_millis() == ms));
        let whole = index.filter(|index| self.is_wholly_sent(*index));
        match (&ack.event, whole) {
            (AckEvent::Buffering | AckEvent::Idle | AckEvent::Unknown(_), _) | (AckEvent::Received, None) => {
            }
            (AckEvent::Received, Some(index)) => {
                self.window[index].received_at.get_or_insert(now);
            }
            (AckEvent::Persisted, Some(index)) => {
                let before = self.window.iter_mut().take(index).filter(|entry| entry.session == Some(id));
                before.for_each(|entry| entry.overtaken = true);
                self.persisted(index, ack.number, now);
            }
            (AckEvent::Persisted, None) => self.events.push_back(Event::StrayAck(ack.clone())),
            (AckEvent::Error(error), _) => self.refused(error, timecode_ms.map(|_| index)),
        }
    }

    /// Advances through header, fragments and end tag; `None` if nothing may be sent now.
    fn streaming(&mut self, now: Instant) -> Option<Bytes> {
        let rotate_after = self.config.rotate_after;
        let start_interval = self.config.start_interval;
        let owes_ack = self.session.as_ref().is_some_and(|session| self.owes_ack(session));
        loop {
            let session = self.session.as_mut()?;
            if session.end_tag_due {
                session.end_tag_due = false;
                session.end_tag_sent = true;
                return Some(write::tags(&[(tag::END_OF_FRAGMENT, "")]));
            }
            if session.draining.is_some() {
                return None;
            }
            let from = session.next_sequence;
            let Some(entry) = self.window.iter_mut().find(|entry| entry.sequence >= from && !entry.is_lost())
            else {
                let idle = now.saturating_duration_since(session.last_sent) >= self.config.idle_close;
                if self.finishing || idle {
                    session.drain(if self.finishing { CloseReason::Finished } else { CloseReason::Idle });
                    continue;
                }
                return None;
            };
            if entry.sequence != session.next_sequence {
                session.next_sequence = entry.sequence;
                session.next_piece = 0;
            }
            if session.next_piece == 0 {
                let Some(header) = &session.header else {
                    session.header = Some(entry.header().clone());
                    return session.header.clone();
                };
                if header != entry.header() {
                    session.drain(CloseReason::HeaderChange);
                    continue;
                }
                if now.saturating_duration_since(session.since) >= rotate_after {
                    session.drain(CloseReason::Rotation);
                    continue;
                }
                if session.last_start.is_some_and(|start| now < start + start_interval) {
                    return None;
                }
                session.last_start = Some(now);
                session.end_tag_sent = false;
                entry.session = Some(session.id);
                entry.sent_at = None;
                entry.received_at = None;
                entry.overtaken = false;
            }
            if let Some(bytes) = entry.piece(session.next_piece) {
                session.next_piece += 1;
                return Some(bytes);
            }
            let Some(end) = &entry.end else { return None }; // still growing
            if entry.sent_at.is_none() {
                entry.sent_at = Some(now);
                if !owes_ack {
                    session.last_heard = now; // until now it had nothing to say
                }
            }
            session.end_tag_due = end.closing;
            session.next_sequence += 1;
            session.next_piece = 0;
        }
    }

    fn draining_done(&self) -> Option<CloseReason> {
        let session = self.session.as_ref()?;
        session.draining.clone().filter(|_| !self.has_outstanding(session))
    }

    fn has_outstanding(&self, session: &Session) -> bool {
        self.window.iter().any(|entry| entry.session == Some(session.id) && !entry.is_lost())
    }

    /// An ack is due only for fragments, and a growing fragment that waits for the camera is no reason either.
    fn owes_ack(&self, session: &Session) -> bool {
        self.window.iter().any(|entry| entry.session == Some(session.id) && entry.sent_at.is_some())
    }

    /// Since when the service has a fragment of this session without having kept it, and which.
    fn oldest_received(&self, session: &Session) -> Option<(Instant, u64)> {
        let ours = self.window.iter().filter(|entry| entry.session == Some(session.id));
        let kept_back = ours.filter(|entry| !entry.overtaken);
        kept_back.filter_map(|entry| Some((entry.received_at?, entry.sequence))).min()
    }

    fn entry_at(&self, sequence: u64) -> Option<&Entry> {
        self.window.iter().find(|entry| entry.sequence >= sequence && !entry.is_lost())
    }

    fn is_wholly_sent(&self, index: usize) -> bool {
        let Some(session) = &self.session else { return false };
        let entry = &self.window[index];
        let handed_out = entry.sequence < session.next_sequence
            || (entry.sequence == session.next_sequence && session.next_piece >= entry.piece_count());
        entry.end.is_some() && entry.session == Some(session.id) && handed_out
    }

    fn persisted(&mut self, index: usize, number: Option<FragmentNumber>, now: Instant) {
        let Some(entry) = self.remove(index) else { return };
        let Some(end) = entry.end else { return };
        let ack_delay = entry.sent_at.map_or(Duration::ZERO, |sent| now.saturating_duration_since(sent));
        self.events.push_back(Event::Persisted { summary: end.summary, number, ack_delay });
    }

    /// `about`: where the fragment is that the ack names, `Some(None)` if it is none of ours any more.
    fn refused(&mut self, error: &AckError, about: Option<Option<usize>>) {
        let Some(session) = &mut self.session else { return };
        session.ended = Some(error.clone().into());
        let id = session.id;
        self.events.push_back(Event::Refused(error.clone()));
        // Without a timecode the service means what it is reading: the newest that we began to send.
        let newest = || self.window.iter().rposition(|entry| entry.session == Some(id));
        let Some(index) = about.unwrap_or_else(newest) else { return };
        let entry = &mut self.window[index];
        if entry.is_lost() {
            return;
        }
        let again = match error.reaction() {
            Reaction::Resend | Reaction::Rotate | Reaction::Stop => return,
            Reaction::Skip => false,
            Reaction::ResendWithoutTags => !std::mem::replace(&mut entry.without_tag, true),
            Reaction::ResendWithoutSilentTracks => {
                let silent = entry.end.as_ref().is_some_and(|end| end.summary.audio_blocks == 0);
                entry.video_only = silent;
                silent
            }
        };
        entry.refusals += 1;
        if !again || entry.refusals >= MAX_REFUSALS {
            self.give_up(index, LossReason::Refused(error.clone()));
        }
    }

    fn give_up(&mut self, index: usize, reason: LossReason) {
        let entry = &mut self.window[index];
        let Some(end) = &entry.end else {
            self.window_bytes -= entry.bytes;
            entry.lost = Some((reason, std::mem::take(&mut entry.bytes)));
            entry.pieces.clear();
            return;
        };
        let (sequence, timecode) = (entry.sequence, entry.timecode);
        let (end, bytes) = (end.summary.end(), entry.bytes);
        self.events.push_back(Event::Lost { sequence, timecode, end, bytes, reason });
        self.remove(index);
    }

    fn remove(&mut self, index: usize) -> Option<Entry> {
        let entry = self.window.remove(index)?;
        self.window_bytes -= entry.bytes;
        Some(entry)
    }

    /// Makes room; the fragment that is being sent right now goes last.
    fn drop_oldest(&mut self) -> bool {
        let begun = self.session.as_ref().filter(|session| session.next_piece > 0);
        let sending = begun.map(|session| session.next_sequence);
        let whole = |entry: &Entry| entry.end.is_some() && !entry.is_lost();
        // What this session has sent only waits for its ack: the service most likely keeps it, it is no loss yet.
        let session = self.session.as_ref().map(|session| session.id);
        let sent = |entry: &Entry| session.is_some() && entry.session == session;
        let index = self
            .window
            .iter()
            .position(|entry| whole(entry) && !sent(entry) && Some(entry.sequence) != sending)
            .or_else(|| self.window.iter().position(|entry| whole(entry) && Some(entry.sequence) != sending))
            .or_else(|| self.window.iter().position(|entry| !entry.is_lost()));
        let Some(index) = index else { return false };
        if self.session.as_ref().is_some_and(|session| session.id == self.window[index].session.unwrap_or(0))
            && Some(self.window[index].sequence) == sending
            && let Some(session) = &mut self.session
        {
            // Half of it is on the wire: the service must not get the rest of nothing.
            session.ended = Some(CloseReason::WindowFull);
        }
        self.give_up(index, LossReason::WindowFull);
        true
    }
}

impl Session {
    /// Tells the service that the fragment before is whole, then waits for its acks.
    fn drain(&mut self, reason: CloseReason) {
        self.end_tag_due = self.header.is_some() && self.last_start.is_some() && !self.end_tag_sent;
        self.draining = Some(reason);
    }
}

impl Entry {
    fn new(start: FragmentStart) -> Self {
        Self {
            sequence: start.id.sequence,
            timecode: start.timecode,
            header: start.header,
            video_only: false,
            without_tag: false,
            bytes: start.head.len(),
            pieces: vec![start.head],
            end: None,
            session: None,
            sent_at: None,
            received_at: None,
            overtaken: false,
            refusals: 0,
            lost: None,
        }
    }

    fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    fn add(&mut self, piece: Bytes) -> usize {
        let length = piece.len();
        self.bytes += length;
        self.pieces.push(piece);
        length
    }

    fn header(&self) -> &Bytes {
        if self.video_only { &self.header.video_only } else { &self.header.bytes }
    }

    /// The identity tag counts as the last piece.
    fn piece(&self, index: usize) -> Option<Bytes> {
        let tag = || self.end.as_ref().filter(|_| !self.without_tag).map(|end| end.tag.clone());
        match index.checked_sub(self.pieces.len()) {
            None => self.pieces.get(index).cloned(),
            Some(0) => tag(),
            Some(_) => None,
        }
    }

    fn piece_count(&self) -> usize {
        self.pieces.len() + usize::from(self.end.is_some() && !self.without_tag)
    }
}

#[cfg(test)]
mod tests;
