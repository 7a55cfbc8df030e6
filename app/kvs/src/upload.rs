//! The upload of one stream: what to send, to ask and to wait for, and when patience ends. No IO.
//!
//! ```text
//!                        spool on disk
//!                             |
//!  fragmenter --parts--> source (bytes) --policy--> session --bytes--> connection
//!                             ^                        |
//!                             |      window (in flight)<--acks, looks
//!                             +--released by PERSISTED, or found there
//!
//!  away --wants to send--> asking --answered--> opening --accepted--> sending --planned end--> closing --> away
//!   ^       (after a break: what is there?)                              |
//!   +---- back-off ------------------------------------------------------+ error, refusal, silence, stall
//! ```
//!
//! Only a PERSISTED ack, or a look that found the fragment there, releases it. A session begins with the oldest fragment
//! that is not released, so a lost connection costs nothing but the bytes sent twice. There is one session at a time: the
//! service refuses the second PutMedia of a stream. Otherwise a fragment goes only when the window is full or when the
//! service says that it will never take it; both are told as [`Event::Lost`].

mod acks;
mod driver;
mod pace;
mod policy;
mod selection;
mod session;
mod source;
mod spool;
mod spool_source;
mod window;

use std::time::{Duration, Instant};

use bytes::Bytes;
use health::Reason;
use media::ProducerTimestamp;

use crate::ack::{Ack, AckError};
use crate::fragmenter::FragmentSummary;
use crate::ledger::{Ledger, LossReason};
use crate::{FragmentId, FragmentNumber};

pub use driver::Driver;
pub use pace::Rates;
pub use policy::UploadPolicy;
pub use session::CloseReason;
pub use source::{FragmentSource, Held};
pub use spool::{Answer, Dropped, Place, Request, Settled, Spooled, Waiting, Whole};
pub use spool_source::{News, SpoolSource};

/// Limits of one camera's upload.
#[derive(Clone, Debug)]
pub struct UploadConfig {
    pub policy: UploadPolicy,
    /// Payload bytes kept for sending again.
    pub window_bytes: usize,
    /// Planned end of a session, at a fragment border. The service closes at 45 min.
    pub rotate_after: Duration,
    /// Longest silence of the service while it owes an ack, and longest time from RECEIVED to PERSISTED.
    pub ack_timeout: Duration,
    /// Longest time in which the connection takes no byte while some wait.
    pub write_timeout: Duration,
    /// A fragment without its PERSISTED ack is looked for after this, although the session is alive: the ack of one
    /// fragment can be missing among others.
    pub doubt_after: Duration,
    /// Between two such looks.
    pub look_every: Duration,
    /// ListFragments may lag so far behind (AWS: eventually consistent, normally under 1 s): what it does not name before
    /// then is not absent yet.
    pub list_lag: Duration,
    /// A session without anything to send is closed after this long; the service would at 30 s.
    pub idle_close: Duration,
    /// Shortest time between two fragment starts; the service takes 5 fragments a second.
    pub start_interval: Duration,
    /// Bits a second that a session sends at most, in the mean.
    pub uplink_bits: Option<u64>,
    /// From a request to its 200. Some proxies hold the head back until the first ack: then sending decides.
    pub accept_limit: Duration,
    /// For the connection itself, name and TLS included.
    pub open_limit: Duration,
    /// For a look at what is there.
    pub look_limit: Duration,
    /// For the orderly end of a session that has nothing more to say.
    pub close_limit: Duration,
    /// After the sending side failed, for what the service has to say about it.
    pub last_words: Duration,
    /// A piece that waited so long for its place found the buffers in front of the network full.
    pub congested_after: Duration,
    pub first_delay: Duration,
    pub longest_delay: Duration,
    /// After so long without a failure delays begin small again.
    pub healthy: Duration,
    /// After the service asked for less.
    pub slower_delay: Duration,
    /// Between attempts that only an operator's change can make succeed.
    pub operator_delay: Duration,
    /// How long a stop waits for the last fragments.
    pub stop_grace: Duration,
}

impl Default for UploadConfig {
    fn default() -> Self {
        Self {
            policy: UploadPolicy::default(),
            window_bytes: 64 << 20,
            rotate_after: Duration::from_secs(40 * 60),
            ack_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(30),
            doubt_after: Duration::from_secs(5),
            look_every: Duration::from_secs(5),
            list_lag: Duration::from_secs(2),
            idle_close: Duration::from_secs(20),
            start_interval: Duration::from_millis(200),
            uplink_bits: None,
            accept_limit: Duration::from_secs(15),
            open_limit: Duration::from_secs(60),
            look_limit: Duration::from_secs(60),
            close_limit: Duration::from_secs(2),
            last_words: Duration::from_secs(2),
            congested_after: Duration::from_millis(100),
            first_delay: Duration::from_millis(500),
            longest_delay: Duration::from_secs(30),
            healthy: Duration::from_secs(60),
            slower_delay: Duration::from_secs(2),
            operator_delay: Duration::from_secs(30),
            stop_grace: Duration::from_secs(10),
        }
    }
}

impl UploadConfig {
    /// When a fragment without its ack is looked for: never before a list would name it.
    fn doubt(&self) -> Duration {
        self.doubt_after.max(self.list_lag)
    }
}

/// What the owner of the connection does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Ask which of these are in KVS, by number where there is one; if `retention`, also whether the stream keeps anything.
    /// Then [`Driver::looked_up`].
    Reconcile { fragments: Vec<Doubt>, retention: bool },
    /// Open a connection: [`Driver::opened`], then [`Driver::accepted`]; or [`Driver::not_opened`].
    Open,
    /// Hand these bytes to the connection: [`Driver::taken`], or [`Driver::sender_failed`].
    Send(Bytes),
    /// End the body and wait for the end of the answer: [`Driver::closed`].
    CloseInOrder,
    /// Let go of the connection and of whatever else is under way, at once.
    Drop,
    /// As `Reconcile`, beside the running session; it replaces a look that is still under way.
    LookUp { fragments: Vec<Doubt> },
}

/// A fragment that may or may not be in KVS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    pub summary: FragmentSummary,
    /// What an ack called it.
    pub number: Option<FragmentNumber>,
}

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookedUp {
    /// What is in neither list could not be asked for.
    Answer {
        found: Vec<(FragmentId, FragmentNumber)>,
        absent: Vec<FragmentId>,
    },
    /// The stream's data retention is 0 h.
    KeepsNothing,
    CouldNotAsk(Failure),
}

/// Why something did not work, and when to try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub reason: Reason,
    /// What was found.
    pub text: String,
    /// What to change.
    pub fix: Option<String>,
    pub retry: Retry,
}

/// When an attempt may succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// After the back-off.
    Soon,
    /// The service asked for less.
    Slower,
    /// Once somebody has changed something.
    Operator,
}

impl Failure {
    pub fn new(reason: Reason, text: impl Into<String>, retry: Retry) -> Self {
        Self { reason, text: text.into(), fix: None, retry }
    }

    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

/// What the upload does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadState {
    /// No connection wanted: the camera delivers nothing.
    Idle,
    Connecting,
    /// Media flows.
    Sending,
    /// Waiting before the next attempt.
    BackingOff,
    /// Will not heal without somebody's action: see the problem.
    Failed,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Media flows in a new session.
    SessionBegun,
    SessionEnded(CloseReason),
    /// A session begins to send it.
    Sending(FragmentId),
    /// Its last byte was taken.
    Sent(FragmentId),
    /// The service begins to take it.
    Buffering(FragmentId),
    Received {
        id: FragmentId,
        number: Option<FragmentNumber>,
    },
    /// Its connection ended before it was persisted.
    Interrupted(FragmentId),
    /// The service keeps it.
    Persisted {
        summary: FragmentSummary,
        number: Option<FragmentNumber>,
        ack_delay: Duration,
    },
    /// It had to be given up, and was found there after all.
    FoundAfterLoss {
        id: FragmentId,
        number: FragmentNumber,
    },
    /// It is gone for good: a gap. It comes once the fragment is complete, so that its end is known.
    Lost(Loss),
    /// The service sent an error ack.
    Refused(AckError),
    /// An ack that fits nothing that was sent; it released nothing.
    StrayAck(Ack),
    /// An event type that this version does not know, told once each.
    UnknownAck(String),
    /// A look was answered; what could not be asked for is `unknown`.
    LookedUp {
        asked: usize,
        found: usize,
        unknown: usize,
    },
    CouldNotAsk(Failure),
    /// The link carries less than the camera delivers, and how much of it; or it carries it again.
    Pace(Option<Rates>),
    /// The connection is given up.
    Failed {
        failure: Failure,
        retry_in: Duration,
    },
}

/// Footage that will not be in KVS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    pub id: FragmentId,
    pub start: ProducerTimestamp,
    /// Time of its last block.
    pub end: ProducerTimestamp,
    pub bytes: usize,
    pub reason: LossReason,
    /// Why KVS could not be reached in time.
    pub because: Option<String>,
}

/// A fragment that is not confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unconfirmed {
    pub id: FragmentId,
    pub start: ProducerTimestamp,
    /// Absent while it grows.
    pub end: Option<ProducerTimestamp>,
    pub bytes: usize,
}

/// Where the window stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    pub fragments: usize,
    pub bytes: usize,
    /// Producer time of the oldest fragment that is not persisted.
    pub oldest: Option<ProducerTimestamp>,
}

impl Event {
    /// Writes it into the life of its fragment. That a fragment begins and is complete, the recorder writes.
    pub fn note(&self, ledger: &mut Ledger, now: Instant) {
        match self {
            Self::Sending(id) => ledger.sending(*id),
            Self::Sent(id) => ledger.sent(*id, now),
            Self::Buffering(id) => ledger.buffering(*id, now),
            Self::Received { id, number } => ledger.received(*id, *number, now),
            Self::Interrupted(id) => ledger.interrupted(*id),
            Self::Persisted { summary, number, .. } => ledger.persisted(summary.id, *number, now),
            Self::FoundAfterLoss { id, number } => ledger.persisted(*id, Some(*number), now),
            Self::Lost(Loss { id, end, reason, because, .. }) => {
                ledger.lost_because(*id, *end, reason.clone(), because.as_deref(), now);
            }
            Self::SessionBegun
            | Self::SessionEnded(_)
            | Self::Refused(_)
            | Self::StrayAck(_)
            | Self::UnknownAck(_)
            | Self::LookedUp { .. }
            | Self::CouldNotAsk(_)
            | Self::Pace(_)
            | Self::Failed { .. } => {}
        }
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod tests;
