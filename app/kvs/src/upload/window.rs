//! What is in flight: fragments that a session began to send and that are not confirmed yet. Their bytes stay in the source.

use std::collections::BTreeMap;
use std::time::Instant;

use media::ProducerTimestamp;

use super::driver::{NO_SESSION, PARKED};
use super::source::Held;
use crate::{FragmentId, FragmentNumber};

/// Fragments in flight by name, which is the order in which one run recorded them.
#[derive(Debug, Default)]
pub(super) struct Window {
    fragments: BTreeMap<FragmentId, InFlight>,
}

/// One fragment that some session began to send.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) timecode: ProducerTimestamp,
    /// The last session that sent its first byte.
    pub(super) session: u64,
    /// The connection took its last byte.
    pub(super) sent: Option<Sent>,
    /// RECEIVED came in this session.
    pub(super) received_at: Option<Instant>,
    /// PERSISTED came for a later fragment of this session; acks come in order.
    pub(super) overtaken: bool,
    /// By any ack of any session.
    pub(super) number: Option<FragmentNumber>,
    pub(super) treatment: Treatment,
}

/// When the last byte of a fragment went out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) at: Instant,
    /// Once the socket took this many bytes of the session, nothing of the fragment waits in a buffer of ours.
    pub(super) mark: u64,
    /// When that was.
    pub(super) out: Option<Instant>,
}

/// What refusals taught about a fragment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Treatment {
    pub(super) refusals: u32,
    /// Under the header without audio.
    pub(super) video_only: bool,
    pub(super) without_tag: bool,
    /// It was refused by a word that named no fragment; the connection may have been the cause.
    pub(super) suspected: bool,
}

impl Window {
    /// A session begins to send it. What is known from earlier sessions stays.
    pub(super) fn begin(&mut self, held: &Held<'_>, session: u64) {
        let before = self.fragments.remove(&held.id);
        let number = before.as_ref().and_then(|before| before.number);
        let treatment = before.as_ref().map(|before| before.treatment).unwrap_or_default();
        let fragment = InFlight {
            timecode: held.timecode,
            session,
            sent: None,
            received_at: None,
            overtaken: false,
            number,
            treatment,
        };
        self.fragments.insert(held.id, fragment);
    }

    pub(super) fn get(&self, id: FragmentId) -> Option<&InFlight> {
        self.fragments.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: FragmentId) -> Option<&mut InFlight> {
        self.fragments.get_mut(&id)
    }

    pub(super) fn remove(&mut self, id: FragmentId) -> Option<InFlight> {
        self.fragments.remove(&id)
    }

    /// What an earlier life may have sent, it has not; or nobody can say: this one, or all.
    pub(super) fn forget_earlier(&mut self, id: Option<FragmentId>) {
        let about = |other: &FragmentId| id.is_none_or(|id| id == *other);
        self.fragments.retain(|id, fragment| fragment.session != NO_SESSION || !about(id));
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (FragmentId, &InFlight)> {
        self.fragments.iter().map(|(id, fragment)| (*id, fragment))
    }

    /// It is known that it is not there: what was only in doubt is as if it had never been sent.
    pub(super) fn forget(&mut self, id: FragmentId) {
        self.forget_earlier(Some(id));
        if self.get(id).is_some_and(|fragment| fragment.session == PARKED) {
            self.fragments.remove(&id);
        }
    }

    /// Those of one session, oldest first.
    pub(super) fn of(&self, session: u64) -> impl DoubleEndedIterator<Item = (FragmentId, &InFlight)> {
        self.iter().filter(move |(_, fragment)| fragment.session == session)
    }

    pub(super) fn of_mut(&mut self, session: u64) -> impl Iterator<Item = (FragmentId, &mut InFlight)> {
        let all = self.fragments.iter_mut().map(|(id, fragment)| (*id, fragment));
        all.filter(move |(_, fragment)| fragment.session == session)
    }

    pub(super) fn treatment(&self, id: FragmentId) -> Treatment {
        self.get(id).map(|fragment| fragment.treatment).unwrap_or_default()
    }
}
