//! The whole upload as one state machine: events and `now` go in, actions and the next deadline come out.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use health::{Backoff, Reason};

use super::pace::Pace;
use super::session::{Session, Step};
use super::source::{FragmentSource, Held};
use super::spool_source::SpoolSource;
use super::window::{InFlight, Window};
use super::{
    Action, Backlog, CloseReason, Doubt, Event, Failure, LookedUp, Loss, Retry, Unconfirmed, UploadConfig,
    UploadState,
};
use crate::ack::Reaction;
use crate::fragmenter::Part;
use crate::ledger::LossReason;
use crate::{FragmentId, FragmentNumber};

/// Attempts to ask what is there before everything is sent again: of what is in memory only, a duplicate is better than a gap.
const LOOK_TRIES: u32 = 3;
/// What is on disk can wait for the answer. All the rest waits with it for some ten minutes; from then on it waits alone,
/// [parked](PARKED), and is asked for beside the others: it is never sent twice.
const PATIENT_LOOK_TRIES: u32 = 20;
/// Between two questions about what is parked.
const PARKED_AGAIN: Duration = Duration::from_secs(60);

/// Sessions are counted from 1. In flight under this number is what an earlier life may have sent.
pub(super) const NO_SESSION: u64 = 0;
/// In flight under this number is what nobody knows of whether KVS has it: no session sends it before that is answered.
pub(super) const PARKED: u64 = u64::MAX;

/// Decides all that one camera's upload does.
///
/// After each input, and when [`next_deadline`](Self::next_deadline) has come, call [`poll`](Self::poll) until it returns
/// `None`, and take the events.
pub struct Driver<S = SpoolSource> {
    pub(super) config: UploadConfig,
    pub(super) source: S,
    pub(super) window: Window,
    pub(super) link: Link,
    sessions: u64,
    retry_at: Option<Instant>,
    /// What retry_at waits for, in the words of the report.
    resting: Option<Retry>,
    /// When the last session ended with fragments in flight.
    broke_at: Option<Instant>,
    backoff: Backoff,
    /// To be dealt with by the next poll.
    failed: Option<(Failure, Instant)>,
    problem: Option<Failure>,
    asked: Asked,
    look_tries: u32,
    /// Of what an earlier life recorded the last look found some.
    found_earlier: bool,
    /// When what is parked is asked for again.
    ask_parked_at: Option<Instant>,
    /// The last session took fragments and kept none: the next one looks at the stream's settings first.
    keeps_nothing: bool,
    /// Given up while it grows.
    discarding: Option<Loss>,
    pub(super) unknown_acks: BTreeSet<String>,
    pub(super) events: VecDeque<Event>,
    drop_due: bool,
    paused: bool,
    pace: Pace,
    stop_by: Option<Instant>,
    over: bool,
}

pub(super) enum Link {
    Away,
    Asking { asked: Vec<FragmentId>, until: Instant },
    Opening { until: Instant },
    Up { session: Box<Session>, last_words: Option<(Failure, Instant)> },
    Closing { until: Instant },
}

/// Whether it is known what an ended session left behind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    No,
    Yes,
    /// It cannot be known; everything is sent again.
    InVain,
}

impl Driver {
    /// With all bytes in memory.
    pub fn new(config: UploadConfig) -> Self {
        Self::with_source(config, SpoolSource::in_memory())
    }
}

impl<S: FragmentSource> Driver<S> {
    pub fn with_source(config: UploadConfig, source: S) -> Self {
        let backoff = Backoff::new(config.first_delay, config.longest_delay, config.healthy);
        Self {
            config,
            source,
            window: Window::default(),
            link: Link::Away,
            sessions: 0,
            retry_at: None,
            resting: None,
            broke_at: None,
            backoff,
            failed: None,
            problem: None,
            asked: Asked::No,
            look_tries: 0,
            found_earlier: false,
            ask_parked_at: None,
            keeps_nothing: false,
            discarding: None,
            unknown_acks: BTreeSet::new(),
            events: VecDeque::new(),
            drop_due: false,
            paused: false,
            pace: Pace::default(),
            stop_by: None,
            over: false,
        }
    }

    /// Takes what the fragmenter made, in order.
    pub fn part(&mut self, part: Part) {
        let ended = match &part {
            Part::Start(_) => self.discarding.take(),
            Part::End(end) => {
                let same = self.discarding.take_if(|loss| loss.id == end.summary.id);
                same.map(|loss| Loss { end: end.summary.end(), ..loss })
            }
            Part::Block { .. } => None,
        };
        self.events.extend(ended.map(Event::Lost));
        self.pace.recorded(match &part {
            Part::Start(start) => start.head.len(),
            Part::Block { head, payload } => head.len() + payload.len(),
            Part::End(end) => end.tag.len(),
        });
        self.source.part(part);
        while self.source.bytes() > self.config.window_bytes && self.drop_one() {}
    }

    pub fn source(&self) -> &S {
        &self.source
    }

    pub fn source_mut(&mut self) -> &mut S {
        &mut self.source
    }

    /// These were recorded in an earlier life, which may have sent them: KVS is asked before they are. The `first` of them are
    /// asked for in any case; those behind them only where some of the ones before were there: an earlier life sent in order.
    pub fn doubt_of_earlier(&mut self, fragments: &[FragmentId], first: bool, now: Instant) {
        if !first && !self.found_earlier {
            return;
        }
        for id in fragments {
            if let Some(held) = self.source.get(*id) {
                self.window.begin(&held, NO_SESSION);
            }
        }
        if !fragments.is_empty() {
            (self.asked, self.look_tries, self.broke_at) = (Asked::No, 0, Some(now));
        }
    }

    /// It is gone for good.
    pub fn give_up(&mut self, id: FragmentId, reason: LossReason) {
        self.lose(id, reason);
    }

    /// Nothing is sent while it is paused: a running session completes its fragment and ends, and none begins.
    pub fn pause(&mut self, paused: bool) {
        self.paused = paused;
        if let Link::Up { session, .. } = &mut self.link
            && paused
            && session.draining.is_none()
        {
            session.drain(CloseReason::Paused);
        }
    }

    /// No more parts will come: the last fragments have the grace time to be persisted.
    pub fn finish(&mut self, now: Instant) {
        self.stop_by.get_or_insert(now + self.config.stop_grace);
        self.retry_at = self.retry_at.map(|at| at.min(now));
    }

    /// Everything is persisted or reported lost after [`finish`](Self::finish), or the grace time is over.
    pub fn is_over(&self) -> bool {
        let away = matches!(self.link, Link::Away) && !self.drop_due;
        self.over || (self.stop_by.is_some() && (self.is_empty() || self.paused) && away)
    }

    /// A connection is up, and its request is under way.
    pub fn opened(&mut self, now: Instant) {
        if matches!(self.link, Link::Opening { .. }) {
            self.sessions += 1;
            let session = Box::new(Session::new(self.sessions, now));
            self.link = Link::Up { session, last_words: None };
        }
    }

    /// The service accepted the request.
    pub fn accepted(&mut self, now: Instant) {
        if let Link::Up { session, .. } = &mut self.link
            && !session.accepted
        {
            session.heard(now);
            self.begun();
        }
    }

    /// No connection, or no request on it.
    pub fn not_opened(&mut self, failure: Failure, now: Instant) {
        if matches!(self.link, Link::Opening { .. }) {
            self.failed = Some((failure, now));
        }
    }

    /// The connection took the bytes of the last [`Action::Send`].
    pub fn taken(&mut self, now: Instant) {
        if let Link::Up { session, .. } = &mut self.link {
            session.taken(now, &self.config);
        }
    }

    /// The socket took `written` bytes of this connection so far, the last of them at `at`. Where nobody knows, what the
    /// connection takes counts.
    pub fn socket(&mut self, written: u64, at: Instant) {
        if let Link::Up { session, .. } = &mut self.link {
            session.socket(&mut self.window, written, at);
        }
    }

    /// Nothing more can be sent. What the service has to say about it is waited for, but not for long.
    pub fn sender_failed(&mut self, failure: Failure, now: Instant) {
        if let Link::Up { last_words, .. } = &mut self.link {
            last_words.get_or_insert((failure, now + self.config.last_words));
        }
    }

    /// The answer is over: in order, or with an error.
    pub fn ended(&mut self, outcome: Result<(), Failure>, now: Instant) {
        match &self.link {
            Link::Up { session, .. } if session.ended.is_none() => match outcome {
                Ok(()) if self.is_empty() => self.link = Link::Away,
                Ok(()) => {
                    let text = "KVS ended the session without a reason";
                    let failure = Failure::new(Reason::UploadFailed, text, Retry::Soon);
                    self.failed = Some((failure, now));
                    return;
                }
                Err(failure) => {
                    self.failed = Some((failure, now));
                    return;
                }
            },
            Link::Closing { .. } => self.link = Link::Away,
            _ => return, // an error ack told why
        }
        self.drop_due = true;
    }

    /// The orderly end is done, well or badly.
    pub fn closed(&mut self) {
        if matches!(self.link, Link::Closing { .. }) {
            self.link = Link::Away;
        }
    }

    /// The answer to [`Action::Reconcile`] or [`Action::LookUp`].
    pub fn looked_up(&mut self, outcome: LookedUp, now: Instant) {
        match &mut self.link {
            Link::Asking { asked, .. } => {
                let asked = std::mem::take(asked);
                self.link = Link::Away;
                self.reconciled(asked, outcome, now);
            }
            Link::Up { session, .. } if session.looking.is_some() => {
                session.looking = None;
                session.look_again_at = Some(now + self.config.look_every);
                match outcome {
                    LookedUp::Answer { found, absent } => {
                        let asked = found.len() + absent.len();
                        self.events.push_back(Event::LookedUp { asked, found: found.len(), unknown: 0 });
                        found.into_iter().for_each(|(id, number)| self.found(id, number, now));
                        absent.into_iter().for_each(|id| self.not_there(id));
                        self.asked_for_parked(now);
                    }
                    LookedUp::KeepsNothing => self.failed = Some((no_retention(), now)),
                    // The acks may still come; a session without any is ended by the ack timeout.
                    LookedUp::CouldNotAsk(failure) => {
                        self.events.push_back(Event::CouldNotAsk(failure));
                        self.asked_for_parked(now);
                    }
                }
            }
            _ => {}
        }
    }

    /// What to do now; call again until `None`. `random` in 0..1 spreads retries.
    pub fn poll(&mut self, now: Instant, random: f64) -> Option<Action> {
        loop {
            if let Some((failure, at)) = self.failed.take() {
                self.give_up_link(failure, at, random);
            }
            if std::mem::take(&mut self.drop_due) {
                return Some(Action::Drop);
            }
            if self.over || self.stop_by.is_some_and(|by| by <= now) {
                self.over = true;
                return None;
            }
            let late = |until: Instant, what: &str| {
                let failure = Failure::new(Reason::Timeout, what, Retry::Soon);
                (now >= until).then_some((failure, now))
            };
            match &self.link {
                Link::Away => return self.begin(now),
                Link::Asking { until, .. } => self.failed = late(*until, "no answer to what is in KVS"),
                Link::Opening { until } => self.failed = late(*until, "no connection to KVS"),
                Link::Closing { until } if now >= *until => {
                    self.link = Link::Away;
                    return Some(Action::Drop);
                }
                Link::Closing { .. } => return None,
                Link::Up { .. } => match self.stream(now, random) {
                    Turn::Act(action) => return Some(action),
                    Turn::Again => continue,
                    Turn::Wait => return None,
                },
            }
            self.failed.as_ref()?;
        }
    }

    /// When [`poll`](Self::poll) may have something to do although nothing happened; never before now, once it was polled.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.over {
            return None;
        }
        let at = match &self.link {
            Link::Away => self.wants_session().then(|| self.start_at()).flatten(),
            Link::Asking { until, .. } | Link::Opening { until } | Link::Closing { until } => Some(*until),
            Link::Up { last_words: Some((_, until)), .. } => Some(*until),
            Link::Up { session, .. } => {
                let at = session.next_deadline(&self.source, &self.window, &self.config);
                let parked = self.ask_parked_at.filter(|_| session.looking.is_none());
                [at, parked].into_iter().flatten().min()
            }
        };
        [at, self.stop_by].into_iter().flatten().min()
    }

    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub fn state(&self) -> UploadState {
        match (&self.link, self.resting) {
            (Link::Asking { .. } | Link::Opening { .. }, _) => UploadState::Connecting,
            (Link::Up { session, .. }, _) if !session.accepted => UploadState::Connecting,
            (Link::Up { .. }, _) => UploadState::Sending,
            (Link::Away, Some(Retry::Operator)) => UploadState::Failed,
            (Link::Away, Some(_)) => UploadState::BackingOff,
            (Link::Away, None) | (Link::Closing { .. }, _) => UploadState::Idle,
        }
    }

    /// Why the last connection was given up, until a fragment is persisted again.
    pub fn problem(&self) -> Option<&Failure> {
        self.problem.as_ref()
    }

    /// Everything is persisted or was reported lost.
    pub fn is_empty(&self) -> bool {
        self.source.all().0 == 0 && self.discarding.is_none()
    }

    pub fn backlog(&self) -> Backlog {
        let (fragments, bytes) = self.source.all();
        let fragments = fragments + usize::from(self.discarding.is_some());
        let oldest = self.source.held().next().map(|held| held.timecode);
        Backlog { fragments, bytes, oldest }
    }

    /// All that it answers for, oldest first: what is lost if it comes to an end now.
    pub fn unconfirmed(&self) -> Vec<Unconfirmed> {
        let held = self.source.held().chain(self.source.behind()).map(|held| Unconfirmed {
            id: held.id,
            start: held.timecode,
            end: held.end.map(|end| end.summary.end()),
            bytes: held.bytes,
        });
        let growing = self.discarding.iter();
        let growing =
            growing.map(|loss| Unconfirmed { id: loss.id, start: loss.start, end: None, bytes: loss.bytes });
        held.chain(growing).collect()
    }

    fn wants_session(&self) -> bool {
        self.source.held().len() > 0 && !self.paused
    }

    fn is_parked(&self, id: FragmentId) -> bool {
        self.window.get(id).is_some_and(|fragment| fragment.session == PARKED)
    }

    /// Fragments that KVS does not say of whether it has them. They are on disk, and sent once it is known that they are not
    /// there.
    pub fn parked(&self) -> usize {
        self.window.of(PARKED).count()
    }

    /// Nothing else waits.
    fn only_parked(&self) -> bool {
        self.source.held().all(|held| self.is_parked(held.id))
    }

    fn park(&mut self, ids: impl IntoIterator<Item = FragmentId>, now: Instant) {
        for id in ids {
            if let Some(fragment) = self.window.get_mut(id) {
                // Those behind them may have been sent too.
                self.found_earlier |= fragment.session == NO_SESSION;
                fragment.session = PARKED;
            }
        }
        self.asked_for_parked(now);
    }

    fn asked_for_parked(&mut self, now: Instant) {
        self.ask_parked_at = (self.parked() > 0).then(|| now + PARKED_AGAIN);
    }

    /// Fragments that ended sessions left in doubt, oldest first.
    fn in_doubt(&self) -> Vec<Doubt> {
        self.window.iter().filter_map(|(id, _)| self.doubt(id)).collect()
    }

    fn doubt(&self, id: FragmentId) -> Option<Doubt> {
        let summary = self.source.get(id)?.end?.summary.clone();
        Some(Doubt { summary, number: self.window.get(id)?.number })
    }

    /// The earliest time for the next attempt; what is in doubt is not asked for before a list would name it.
    fn start_at(&self) -> Option<Instant> {
        if self.only_parked() {
            return self.retry_at.max(self.ask_parked_at);
        }
        let doubts = || self.window.iter().filter(|(_, fragment)| fragment.session != PARKED);
        let ask = self.asked == Asked::No && doubts().any(|(id, _)| self.doubt(id).is_some());
        let settled = self.broke_at.filter(|_| ask).map(|at| at + self.config.list_lag);
        self.retry_at.max(settled)
    }

    fn begin(&mut self, now: Instant) -> Option<Action> {
        if !self.wants_session() || self.start_at().is_some_and(|at| now < at) {
            return None;
        }
        (self.retry_at, self.resting) = (None, None);
        if self.only_parked() {
            // One question, and nobody waits for it.
            (self.asked, self.look_tries) = (Asked::No, PATIENT_LOOK_TRIES - 1);
        }
        if self.asked == Asked::No {
            let (mut fragments, retention) = (self.in_doubt(), self.keeps_nothing);
            // What is parked holds nobody else up; it is asked for beside the session.
            if !self.only_parked() && fragments.iter().all(|doubt| self.is_parked(doubt.summary.id)) {
                fragments.clear();
            }
            if retention || !fragments.is_empty() {
                let asked = fragments.iter().map(|doubt| doubt.summary.id).collect();
                self.link = Link::Asking { asked, until: now + self.config.look_limit };
                return Some(Action::Reconcile { fragments, retention });
            }
        }
        self.link = Link::Opening { until: now + self.config.open_limit };
        Some(Action::Open)
    }

    fn reconciled(&mut self, asked: Vec<FragmentId>, outcome: LookedUp, now: Instant) {
        self.look_tries += 1;
        let on_disk = asked.iter().all(|id| self.source.get(*id).is_none_or(|held| held.stored));
        let last_try = self.look_tries >= if on_disk { PATIENT_LOOK_TRIES } else { LOOK_TRIES };
        match outcome {
            LookedUp::Answer { found, absent } => {
                let known =
                    |id: &FragmentId| absent.contains(id) || found.iter().any(|(there, _)| there == id);
                let unknown = asked.iter().filter(|id| !known(id)).count();
                self.events.push_back(Event::LookedUp { asked: asked.len(), found: found.len(), unknown });
                let earlier = |id: &FragmentId| {
                    self.window.get(*id).is_some_and(|fragment| fragment.session == NO_SESSION)
                };
                if asked.iter().any(earlier) {
                    self.found_earlier = found.iter().any(|(id, _)| earlier(id));
                }
                let in_the_dark: Vec<_> = asked.iter().copied().filter(|id| !known(id)).collect();
                found.into_iter().for_each(|(id, number)| self.found(id, number, now));
                absent.iter().for_each(|id| self.window.forget(*id));
                match unknown {
                    0 => self.asked = Asked::Yes,
                    _ if last_try && on_disk => {
                        self.park(in_the_dark, now);
                        self.asked = Asked::Yes;
                    }
                    _ if last_try => self.asked = Asked::InVain,
                    _ if self.look_tries >= LOOK_TRIES => {
                        let text = format!("KVS does not say of {unknown} fragments whether it has them");
                        self.failed = Some((Failure::new(Reason::UploadFailed, text, Retry::Soon), now));
                    }
                    _ => self.retry_at = Some(now + self.config.first_delay),
                }
            }
            LookedUp::KeepsNothing => self.failed = Some((no_retention(), now)),
            LookedUp::CouldNotAsk(failure) if last_try && on_disk && failure.retry != Retry::Operator => {
                self.events.push_back(Event::CouldNotAsk(failure));
                self.park(asked, now);
                self.asked = Asked::Yes;
            }
            LookedUp::CouldNotAsk(failure) if last_try || failure.retry == Retry::Operator => {
                // Whoever may not ask will never know: then a duplicate is better than a gap.
                asked.into_iter().for_each(|id| self.window.forget(id));
                self.events.push_back(Event::CouldNotAsk(failure));
                self.asked = Asked::InVain;
            }
            LookedUp::CouldNotAsk(failure) => self.failed = Some((failure, now)),
        }
    }

    /// One turn of a running session.
    fn stream(&mut self, now: Instant, random: f64) -> Turn {
        let Link::Up { session, last_words } = &mut self.link else { return Turn::Wait };
        if !session.accepted && now >= session.accept_by(&self.config) {
            session.accepted = true;
            self.begun();
            return Turn::Again;
        }
        let ended = session.ended.clone();
        if let Some(reason) = ended.or_else(|| session.overdue(&self.window, &self.config, now)) {
            return self.close(reason, now, random);
        }
        if let Some((failure, until)) = last_words {
            if now >= *until {
                self.failed = Some((failure.clone(), now));
                return Turn::Again;
            }
            return session
                .drained(&self.window)
                .map_or(Turn::Wait, |reason| self.close(reason, now, random));
        }
        if session.looking.is_some_and(|until| now >= until) {
            session.looking = None;
            session.look_again_at = Some(now + self.config.look_every);
        }
        let mut unanswered = session.unanswered(&self.window, &self.config, now);
        if session.looking.is_none() && self.ask_parked_at.is_some_and(|at| now >= at) {
            self.ask_parked_at = Some(now + PARKED_AGAIN);
            unanswered.extend(self.window.of(PARKED).map(|(id, _)| id));
        }
        if !unanswered.is_empty() {
            session.looking = Some(now + self.config.look_limit);
            let fragments = unanswered.into_iter().filter_map(|id| self.doubt(id)).collect();
            return Turn::Act(Action::LookUp { fragments });
        }
        let finishing = self.stop_by.is_some();
        let of_others = |fragment: &InFlight| fragment.session != session.id && fragment.session != PARKED;
        let waits = |held: &Held<'_>| held.end.is_some() && self.window.get(held.id).is_none_or(of_others);
        let behind = self.source.held().any(|held| waits(&held));
        let behind = behind || session.has_waiting();
        self.events.extend(self.pace.look(behind, session.carried(), now).map(Event::Pace));
        let (policy, config) = (self.config.policy, &self.config);
        let bytes = match session.step(&self.source, &mut self.window, policy, config, finishing, now) {
            Step::Begin(id, bytes) => {
                self.events.push_back(Event::Sending(id));
                bytes
            }
            Step::Send(bytes) => bytes,
            Step::Sent(id) => {
                self.events.push_back(Event::Sent(id));
                return Turn::Again;
            }
            Step::Wait => {
                let drained = session.drained(&self.window);
                return drained.map_or(Turn::Wait, |reason| self.close(reason, now, random));
            }
        };
        session.gave(&bytes, &self.config, now);
        Turn::Act(Action::Send(bytes))
    }

    pub(super) fn begun(&mut self) {
        if self.asked == Asked::InVain {
            self.window.forget_earlier(None);
        }
        self.asked = Asked::No;
        self.look_tries = 0;
        self.events.push_back(Event::SessionBegun);
    }

    /// Ends the running session for a reason of its own.
    fn close(&mut self, reason: CloseReason, now: Instant, random: f64) -> Turn {
        self.keeps_nothing |= matches!(reason, CloseReason::NotPersisted { .. });
        self.events.push_back(Event::SessionEnded(reason.clone()));
        if reason.is_failure() {
            let operator =
                matches!(&reason, CloseReason::Refused(error) if error.reaction() == Reaction::Stop);
            let retry = if operator { Retry::Operator } else { Retry::Soon };
            let failure = Failure::new(reason.health_reason(), reason.to_string(), retry);
            self.give_up_link(reason.fix().into_iter().fold(failure, Failure::fix), now, random);
            return Turn::Again;
        }
        self.interrupt(now);
        if matches!(reason, CloseReason::Refused(_)) {
            // Whatever makes the service say so each time, it is not asked without end.
            self.retry_at = Some(now + self.config.first_delay);
        }
        let until = now + self.config.close_limit;
        match std::mem::replace(&mut self.link, Link::Closing { until }) {
            // Nothing can be ended in order any more.
            Link::Up { last_words: Some(_), .. } => {
                self.link = Link::Away;
                Turn::Act(Action::Drop)
            }
            _ => Turn::Act(Action::CloseInOrder),
        }
    }

    /// Lets go of the connection and tries again later.
    fn give_up_link(&mut self, failure: Failure, at: Instant, random: f64) {
        self.interrupt(at);
        self.drop_due |= !matches!(std::mem::replace(&mut self.link, Link::Away), Link::Away);
        if self.asked == Asked::InVain {
            (self.asked, self.look_tries) = (Asked::No, 0);
        }
        let least = match failure.retry {
            Retry::Soon => self.config.first_delay / 2,
            Retry::Slower => self.config.slower_delay,
            Retry::Operator => self.config.operator_delay,
        };
        let mut retry_in = self.backoff.failed(at, random).max(least);
        if self.stop_by.is_some() {
            retry_in = retry_in.min(self.config.first_delay);
        }
        (self.retry_at, self.resting) = (Some(at + retry_in), Some(failure.retry));
        self.problem = Some(failure.clone());
        self.events.push_back(Event::Failed { failure, retry_in });
    }

    /// What the running session has in flight is in doubt from now on.
    fn interrupt(&mut self, now: Instant) {
        let Link::Up { session, .. } = &self.link else { return };
        self.pace.interrupted();
        let before = self.events.len();
        self.events.extend(self.window.of(session.id).map(|(id, _)| Event::Interrupted(id)));
        if self.events.len() > before {
            self.broke_at = Some(now);
        }
    }

    /// A look found it in KVS, byte for byte.
    fn found(&mut self, id: FragmentId, number: FragmentNumber, now: Instant) {
        if self.source.get(id).is_some() {
            self.persisted(id, Some(number), now);
        } else {
            self.events.push_back(Event::FoundAfterLoss { id, number });
        }
    }

    /// A look did not find it. If a later one is kept, the session ends, and the next one sends it again; otherwise it may
    /// still be on its way over a slow network.
    fn not_there(&mut self, id: FragmentId) {
        if self.is_parked(id) {
            // The next session sends it: it is older than what this one has sent.
            self.window.remove(id);
        }
        let Link::Up { session, .. } = &mut self.link else { return };
        let overtaken =
            self.window.get(id).is_some_and(|fragment| fragment.session == session.id && fragment.overtaken);
        if overtaken {
            session.ended.get_or_insert(CloseReason::AckMissing { fragment: id });
        }
    }

    pub(super) fn persisted(&mut self, id: FragmentId, number: Option<FragmentNumber>, now: Instant) {
        let end = self.source.get(id).and_then(|held| held.end.cloned());
        let (Some(end), Some(fragment)) = (end, self.window.remove(id)) else { return };
        self.source.release(id);
        let ack_delay = fragment.sent.map(|sent| now.saturating_duration_since(sent.at)).unwrap_or_default();
        let number = number.or(fragment.number);
        self.events.push_back(Event::Persisted { summary: end.summary, number, ack_delay });
        self.backoff.up(now);
        self.problem = None;
        self.keeps_nothing = false;
    }

    /// Makes room; the fragment that is being sent right now goes last.
    fn drop_one(&mut self) -> bool {
        let session = match &self.link {
            Link::Up { session, .. } => Some(session),
            _ => None,
        };
        let current = |held: &Held<'_>| session.is_some_and(|session| session.is_current(held.id));
        // What this session has sent only waits for its ack: the service most likely keeps it, it is no loss yet.
        let sent = |held: &Held<'_>| {
            let fragment = self.window.get(held.id);
            session.is_some_and(|session| fragment.is_some_and(|fragment| fragment.session == session.id))
        };
        let policy = self.config.policy;
        let whole = |held: &Held<'_>| held.end.is_some() && !current(held);
        // What is on disk does not take this room.
        let held = || self.source.held().chain(self.source.behind()).filter(|held| !held.stored);
        let id = policy
            .give_up(held().filter(|held| whole(held) && !sent(held)))
            .or_else(|| policy.give_up(held().filter(whole)))
            .or_else(|| policy.give_up(held()));
        let Some(id) = id else { return false };
        if let Link::Up { session, .. } = &mut self.link
            && session.is_current(id)
        {
            // Half of it is on the wire: the service must not get the rest of nothing.
            session.ended.get_or_insert(CloseReason::WindowFull);
        }
        self.lose(id, LossReason::WindowFull);
        true
    }

    /// Gives a fragment up.
    pub(super) fn lose(&mut self, id: FragmentId, reason: LossReason) {
        let Some(held) = self.source.get(id) else { return };
        let (start, end) = (held.timecode, held.end.map(|end| end.summary.end()));
        let no_room = matches!(reason, LossReason::WindowFull | LossReason::SpoolFull);
        let because = no_room.then(|| self.why_not_sent());
        let bytes = self.source.release(id).unwrap_or_default();
        self.window.remove(id);
        let loss = Loss { id, start, end: end.unwrap_or(start), bytes, reason, because };
        match end {
            Some(_) => self.events.push_back(Event::Lost(loss)),
            None => self.discarding = Some(loss),
        }
    }

    fn why_not_sent(&self) -> String {
        match (&self.problem, &self.link) {
            (Some(problem), _) => problem.text.clone(),
            (None, Link::Up { .. }) => "KVS takes less than the camera delivers".to_owned(),
            (None, _) => "there is no connection yet".to_owned(),
        }
    }
}

enum Turn {
    Act(Action),
    Again,
    Wait,
}

fn no_retention() -> Failure {
    let text = "the stream keeps nothing (retention 0 h): no fragment is ever persisted";
    Failure::new(Reason::StreamSettings, text, Retry::Operator).fix("set its data retention")
}
