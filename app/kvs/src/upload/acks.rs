//! What an ack means for the fragments in flight.

use std::time::Instant;

use super::driver::{Driver, Link};
use super::source::FragmentSource;
use super::{CloseReason, Event};
use crate::FragmentId;
use crate::ack::{Ack, AckError, AckEvent, Reaction};
use crate::ledger::LossReason;

/// A fragment is refused this often for its tags or its tracks before it is given up.
const MAX_REFUSALS: u32 = 3;
/// The service could not read what it got. Where it names no fragment, the connection may be the cause: the service says so of
/// one that broke or was quiet, whatever was sent.
const INVALID_MKV_DATA: u32 = 4006;
/// Kinds of unknown acks that are told.
const UNKNOWN_ACKS: usize = 16;

impl<S: FragmentSource> Driver<S> {
    /// Takes what the service said.
    pub fn ack(&mut self, ack: &Ack, now: Instant) {
        let Link::Up { session, .. } = &mut self.link else { return };
        let first = !session.accepted;
        session.heard(now);
        let session_id = session.id;
        if first {
            self.begun();
        }
        let id = self.named(ack, session_id);
        match &ack.event {
            AckEvent::Idle => {}
            AckEvent::Buffering => {
                self.numbered(id, ack);
                self.events.extend(id.map(Event::Buffering));
            }
            AckEvent::Received => {
                self.numbered(id, ack);
                if let Some(id) = id.filter(|id| self.is_whole(*id))
                    && let Some(fragment) = self.window.get_mut(id)
                {
                    fragment.received_at.get_or_insert(now);
                    self.events.push_back(Event::Received { id, number: fragment.number });
                }
            }
            AckEvent::Persisted => match id.filter(|id| self.is_whole(*id)) {
                Some(id) => {
                    let before = self.window.of_mut(session_id).take_while(|(other, _)| *other < id);
                    before.for_each(|(_, fragment)| fragment.overtaken = true);
                    self.persisted(id, ack.number, now);
                }
                None => self.events.push_back(Event::StrayAck(ack.clone())),
            },
            AckEvent::Error(error) => {
                let names_one = ack.timecode_ms.is_some() || id.is_some();
                self.refused(error, names_one.then_some(id));
            }
            AckEvent::Unknown(name) => {
                if self.unknown_acks.len() < UNKNOWN_ACKS && self.unknown_acks.insert(name.clone()) {
                    self.events.push_back(Event::UnknownAck(name.clone()));
                }
            }
        }
    }

    /// The fragment of this session that an ack is about.
    fn named(&self, ack: &Ack, session: u64) -> Option<FragmentId> {
        let mut ours = self.window.of(session);
        let found = match ack.timecode_ms {
            Some(ms) => {
                ours.find(|(_, fragment)| Some(fragment.timecode.as_millis()) == u64::try_from(ms).ok())
            }
            None => ours.find(|(_, fragment)| ack.number.is_some() && fragment.number == ack.number),
        };
        found.map(|(id, _)| id)
    }

    fn is_whole(&self, id: FragmentId) -> bool {
        let Link::Up { session, .. } = &self.link else { return false };
        let found = self.source.get(id).zip(self.window.get(id));
        found.is_some_and(|(held, fragment)| session.is_wholly_sent(id, &held, fragment))
    }

    /// By this number it can be asked for after a break.
    fn numbered(&mut self, id: Option<FragmentId>, ack: &Ack) {
        if let Some(fragment) = id.and_then(|id| self.window.get_mut(id)) {
            fragment.number = ack.number.or(fragment.number);
        }
    }

    /// `about`: the fragment that the ack names, `Some(None)` if it is none of ours any more.
    fn refused(&mut self, error: &AckError, about: Option<Option<FragmentId>>) {
        let Link::Up { session, .. } = &mut self.link else { return };
        session.ended = Some(CloseReason::Refused(error.clone()));
        let session = session.id;
        self.events.push_back(Event::Refused(error.clone()));
        let named = about.is_some();
        let Some(id) = about.unwrap_or_else(|| self.suspect(error, session)) else { return };
        let held = self.source.get(id);
        let end = held.as_ref().and_then(|held| held.end);
        let silent = end.is_some_and(|end| end.summary.audio_blocks == 0);
        let Some(fragment) = self.window.get_mut(id) else { return };
        let treatment = &mut fragment.treatment;
        if error.id == INVALID_MKV_DATA && !named && !treatment.suspected {
            treatment.suspected = true;
            return;
        }
        let again = match error.reaction() {
            Reaction::Resend | Reaction::Rotate | Reaction::Stop => return,
            Reaction::Skip => false,
            Reaction::ResendWithoutTags => !std::mem::replace(&mut treatment.without_tag, true),
            Reaction::ResendWithoutSilentTracks => {
                treatment.video_only = silent;
                silent
            }
        };
        treatment.refusals += 1;
        if !again || treatment.refusals >= MAX_REFUSALS {
            self.lose(id, LossReason::Refused(error.clone()));
        }
    }

    /// Which fragment a refusal means that names none: the service reads in order, so it is the oldest that it has not
    /// received; for a track without frames the oldest of those that has such a track.
    fn suspect(&self, error: &AckError, session: u64) -> Option<FragmentId> {
        let unread = || self.window.of(session).filter(|(_, fragment)| fragment.received_at.is_none());
        let has_silent_track = |id: &FragmentId| {
            let held = self.source.get(*id);
            held.is_some_and(|held| {
                held.header.has_audio && held.end.is_some_and(|end| end.summary.audio_blocks == 0)
            })
        };
        let silent = (error.reaction() == Reaction::ResendWithoutSilentTracks)
            .then(|| unread().map(|(id, _)| id).find(has_silent_track))
            .flatten();
        silent.or_else(|| unread().map(|(id, _)| id).next())
    }
}
