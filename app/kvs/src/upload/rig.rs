//! A connection and a service for the tests of the driver: what is sent is read and remembered, each answer is the test's.

use std::time::{Duration, Instant};

use media::mkv::read::{EventKind, Limits, Parser};
use media::mkv::write;

use super::*;
use crate::ack::AckEvent;
use crate::fragmenter::Part;
use crate::ledger::LedgerLimits;
use crate::testing::START_MS;
use crate::{epoch, tag};

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) struct Rig {
    pub(super) driver: Driver,
    pub(super) ledger: Ledger,
    pub(super) now: Instant,
    /// All bytes of the running connection.
    pub(super) wire: Vec<u8>,
    pub(super) opened: u32,
    /// Whether connections come up, and are accepted, at once.
    pub(super) opens: bool,
    pub(super) accepts: bool,
    /// Whether the connection takes bytes.
    pub(super) reads: bool,
    /// What it has not taken.
    pub(super) pending: Option<Bytes>,
    pub(super) connected: bool,
    /// What was asked for last and has no answer yet.
    pub(super) asked: Option<Vec<Doubt>>,
    pub(super) asked_retention: bool,
    /// Whether each question before a session is answered at once: nothing is there.
    pub(super) answers: bool,
    pub(super) reasons: Vec<CloseReason>,
    pub(super) events: Vec<Event>,
    pub(super) polls: usize,
}

/// As the product has it, but without the pause between fragments, and doubts only where a test has them.
pub(super) fn config() -> UploadConfig {
    UploadConfig { start_interval: Duration::ZERO, doubt_after: SECOND * 86_400, ..UploadConfig::default() }
}

impl Rig {
    pub(super) fn new(config: UploadConfig) -> Self {
        Self {
            driver: Driver::new(config),
            ledger: Ledger::new(LedgerLimits::default()),
            now: epoch(),
            wire: Vec::new(),
            opened: 0,
            opens: true,
            accepts: true,
            reads: true,
            pending: None,
            connected: false,
            asked: None,
            asked_retention: false,
            answers: true,
            reasons: Vec::new(),
            events: Vec::new(),
            polls: 0,
        }
    }

    pub(super) fn with(parts: impl IntoIterator<Item = Part>) -> Self {
        let mut rig = Self::new(config());
        rig.parts(parts);
        rig
    }

    /// The camera goes on.
    pub(super) fn parts(&mut self, parts: impl IntoIterator<Item = Part>) {
        for part in parts {
            match &part {
                Part::Start(start) => self.ledger.begin(start.id, start.timecode, self.now),
                Part::End(end) => self.ledger.complete(end.summary.clone(), self.now),
                Part::Block { .. } => {}
            }
            self.driver.part(part);
            self.run();
        }
    }

    /// Does what the driver wants until it waits; it never wants to be asked again at once.
    pub(super) fn run(&mut self) {
        while let Some(action) = self.driver.poll(self.now, 1.0) {
            self.polls += 1;
            assert!(self.polls < 1_000_000, "it spins: {action:?}");
            self.act(action);
        }
        while let Some(event) = self.driver.next_event() {
            event.note(&mut self.ledger, self.now);
            if let Event::SessionEnded(reason) = &event {
                self.reasons.push(reason.clone());
            }
            self.events.push(event);
        }
        let deadline = self.driver.next_deadline();
        assert!(
            deadline.is_none_or(|at| at > self.now),
            "in the past: {:?}",
            self.now - deadline.unwrap_or(self.now)
        );
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Open => {
                assert!(!self.connected, "one session at a time");
                self.opened += 1;
                if self.opens {
                    self.open();
                }
            }
            Action::Send(bytes) => {
                assert!(self.connected && !bytes.is_empty());
                assert!(self.pending.replace(bytes).is_none(), "one after the other");
                if self.reads {
                    self.take();
                }
            }
            Action::Reconcile { fragments, retention } => {
                assert!(!self.connected);
                self.asked_retention = retention;
                self.asked = Some(fragments);
                if self.answers {
                    self.answer(&[]);
                }
            }
            Action::LookUp { fragments } => {
                assert!(self.connected);
                self.asked = Some(fragments);
            }
            Action::CloseInOrder => {
                assert!(self.connected);
                (self.connected, self.pending) = (false, None);
                self.driver.closed();
            }
            Action::Drop => (self.connected, self.pending, self.asked) = (false, None, None),
        }
    }

    /// The connection takes what waits.
    pub(super) fn take(&mut self) {
        if let Some(bytes) = self.pending.take() {
            self.wire.extend_from_slice(&bytes);
            self.driver.taken(self.now);
        }
    }

    pub(super) fn open(&mut self) {
        self.wire.clear();
        self.connected = true;
        self.driver.opened(self.now);
        if self.accepts {
            self.driver.accepted(self.now);
        }
    }

    /// Answers the last question: these sequences are there.
    pub(super) fn answer(&mut self, there: &[u64]) {
        let asked = self.asked.take().expect("something was asked");
        let (found, absent): (Vec<_>, Vec<_>) =
            asked.iter().map(|doubt| doubt.summary.id).partition(|id| there.contains(&id.sequence));
        let found = found.into_iter().map(|id| (id, number(id.sequence))).collect();
        self.driver.looked_up(LookedUp::Answer { found, absent }, self.now);
    }

    /// Lets time pass, with a poll at each deadline in it.
    pub(super) fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.driver.next_deadline().filter(|at| *at <= until) {
            self.now = at;
            self.run();
        }
        self.now = until;
        self.run();
    }

    /// The service says this of the fragment that begins `timecode_ms` after the start.
    pub(super) fn ack(&mut self, event: AckEvent, timecode_ms: Option<u64>) {
        let number = timecode_ms.map(|ms| number(ms / 1000 + 1));
        let timecode_ms = timecode_ms.map(|ms| i64::try_from(START_MS + ms).expect("small"));
        self.driver.ack(&Ack { event, timecode_ms, number }, self.now);
        self.run();
    }

    pub(super) fn error(&mut self, id: u32, timecode_ms: Option<u64>) {
        self.ack(AckEvent::Error(AckError::from_id(id)), timecode_ms);
    }

    /// The connection breaks.
    pub(super) fn cut(&mut self) {
        self.driver.ended(Err(broken()), self.now);
        self.run();
    }

    pub(super) fn reason(&self) -> Option<&CloseReason> {
        self.reasons.last()
    }

    pub(super) fn persisted(&self) -> Vec<u64> {
        let sequence = |event: &Event| match event {
            Event::Persisted { summary, .. } => Some(summary.id.sequence),
            _ => None,
        };
        self.events.iter().filter_map(sequence).collect()
    }

    pub(super) fn losses(&self) -> Vec<Loss> {
        let loss = |event: &Event| match event {
            Event::Lost(loss) => Some(loss.clone()),
            _ => None,
        };
        self.events.iter().filter_map(loss).collect()
    }

    pub(super) fn lost(&self) -> Vec<u64> {
        self.losses().iter().map(|loss| loss.id.sequence).collect()
    }

    pub(super) fn asked(&self) -> Vec<u64> {
        self.asked.iter().flatten().map(|doubt| doubt.summary.id.sequence).collect()
    }

    /// Timecodes of the clusters on the wire, relative to the start.
    pub(super) fn clusters(&self) -> Vec<u64> {
        let mut parser = Parser::new(Limits::default());
        parser.push(self.wire.clone().into());
        let mut found = Vec::new();
        while let Ok(Some(event)) = parser.next_event() {
            if let EventKind::Timecode { ms } = event.kind {
                found.push(ms - START_MS);
            }
        }
        found
    }

    pub(super) fn ends_with_end_of_fragment(&self) -> bool {
        self.wire.ends_with(&write::tags(&[(tag::END_OF_FRAGMENT, "")]))
    }
}

pub(super) fn number(n: u64) -> FragmentNumber {
    FragmentNumber::new(n, START_MS, 0)
}

pub(super) fn broken() -> Failure {
    Failure::new(Reason::UploadFailed, "connection broken", Retry::Soon)
}
