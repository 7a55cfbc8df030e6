//! Compares what was sent with what was read back.
//!
//! ```text
//!  expect --> waiting --read back in time, equal--> identical
//!                |    --read back, different------> corrupt
//!                |    --limit over----------------> missing --read back after all, equal--> late
//!  read back again under another number: a duplicate if KVS keeps the first one (its PERSISTED ack), else the
//!  service dropped the first one after it was read live, and ours was sent again
//!  not expected: judged by its own identity tag --> self-described, or foreign
//! ```
//!
//! A fragment is known by its timecode: KVS hands the producer's timecode back unchanged, and it exists before
//! any fragment number does. Proof are the SHA-256 sums over the whole cluster as it left the box.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::FragmentNumber;
use crate::fragmenter::FragmentSummary;
use crate::identity::Sha256Sum;
use crate::read::chunk::Chunk;

/// What reading back one fragment showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Equal byte for byte. `delay`: from `expect` to here.
    Identical {
        sequence: u64,
        delay: Duration,
    },
    /// Equal, but after it was already reported missing.
    Late {
        sequence: u64,
        delay: Duration,
    },
    Corrupt(Mismatch),
    /// The limit is over and it was not read back.
    Missing {
        sequence: u64,
        timecode_ms: u64,
    },
    /// The stream holds it twice.
    Duplicate {
        sequence: u64,
        timecode_ms: u64,
        first: Option<FragmentNumber>,
        second: Option<FragmentNumber>,
    },
    /// The same fragment number once more: another answer covered it again. Nothing new.
    Again,
    /// Not waited for (sent before a restart, say), but its identity tag agrees with its payloads.
    SelfDescribed {
        timecode_ms: u64,
    },
    /// Not ours, or of a time before this program ran and without an identity tag.
    Foreign {
        timecode_ms: u64,
    },
}

/// Two descriptions of one fragment that should agree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "fragment at {timecode_ms} ms: read back {found_blocks} blocks, {found_bytes} bytes, sha256 {found_sha256}; \
     sent {expected_blocks} blocks, {} sha256 {expected_sha256}",
    .expected_bytes.map(|n| format!("{n} bytes,")).unwrap_or_default()
)]
pub struct Mismatch {
    pub timecode_ms: u64,
    pub number: Option<FragmentNumber>,
    pub found_blocks: u32,
    pub expected_blocks: u32,
    pub found_bytes: u64,
    /// `None`: only the identity tag is known, which does not say it.
    pub expected_bytes: Option<u64>,
    /// Over the payloads, or over the heads where only these differ.
    pub found_sha256: Sha256Sum,
    pub expected_sha256: Sha256Sum,
}

/// Totals since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyCounts {
    pub identical: u64,
    pub late: u64,
    pub corrupt: u64,
    pub missing: u64,
    pub duplicate: u64,
    pub self_described: u64,
    pub foreign: u64,
}

pub struct Verifier {
    limit: Duration,
    /// Fragments whose fate is known stay this many entries long, to recognise duplicates and latecomers.
    keep: usize,
    fragments: BTreeMap<u64, Expected>,
    counts: VerifyCounts,
}

struct Expected {
    summary: FragmentSummary,
    since: Instant,
    due: Option<Instant>,
    /// What the PERSISTED ack said.
    kept: Option<FragmentNumber>,
    /// It was read back different at least once.
    corrupt: bool,
    state: State,
}

enum State {
    Waiting,
    Missing,
    Read { number: Option<FragmentNumber> },
}

impl Verifier {
    /// `limit`: from [`due_from`](Self::due_from) to "missing".
    pub fn new(limit: Duration) -> Self {
        Self { limit, keep: 1024, fragments: BTreeMap::new(), counts: VerifyCounts::default() }
    }

    /// This fragment was sent and shall come back.
    pub fn expect(&mut self, summary: FragmentSummary, now: Instant) {
        let timecode_ms = summary.timecode.as_millis();
        self.fragments.insert(
            timecode_ms,
            Expected { summary, since: now, due: None, kept: None, corrupt: false, state: State::Waiting },
        );
        while self.fragments.len() > self.keep {
            let settled = self.fragments.iter().find(|(_, e)| !matches!(e.state, State::Waiting));
            let Some(&oldest) = settled.map(|(timecode_ms, _)| timecode_ms) else { break };
            self.fragments.remove(&oldest);
        }
    }

    /// The service says it has the fragment: from now on the limit runs.
    pub fn due_from(&mut self, timecode_ms: u64, number: Option<FragmentNumber>, now: Instant) {
        if let Some(expected) = self.fragments.get_mut(&timecode_ms) {
            expected.due.get_or_insert(now + self.limit);
            expected.kept = expected.kept.or(number);
        }
    }

    /// The fragment will never arrive and that is known already (a gap of the upload).
    pub fn forget(&mut self, timecode_ms: u64) {
        self.fragments.remove(&timecode_ms);
    }

    /// Judges one whole chunk; `None` for a chunk without a cluster or a cut one.
    pub fn read_back(&mut self, chunk: &Chunk, now: Instant) -> Option<Finding> {
        let cluster = chunk.cluster.as_ref().filter(|_| chunk.complete)?;
        let timecode_ms = cluster.timecode_ms;
        let number = chunk.start.number;
        let mut known = false;
        let finding = match self.fragments.get_mut(&timecode_ms) {
            Some(expected) => {
                let finding = expected.judge(cluster, number, now);
                let corrupt = matches!(finding, Finding::Corrupt(_));
                known = corrupt && std::mem::replace(&mut expected.corrupt, true);
                finding
            }
            None => match chunk.identity() {
                Some(identity) if identity.payload_sha256 == cluster.sums.payload => {
                    Finding::SelfDescribed { timecode_ms }
                }
                Some(identity) => Finding::Corrupt(Mismatch {
                    timecode_ms,
                    number,
                    found_blocks: cluster.blocks,
                    expected_blocks: identity.blocks,
                    found_bytes: cluster.bytes,
                    expected_bytes: None,
                    found_sha256: cluster.sums.payload,
                    expected_sha256: identity.payload_sha256,
                }),
                None => Finding::Foreign { timecode_ms },
            },
        };
        if !known {
            self.count(&finding);
        }
        Some(finding)
    }

    /// When [`handle_timeout`](Self::handle_timeout) has work to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        let waiting = self.fragments.values().filter(|e| matches!(e.state, State::Waiting));
        waiting.filter_map(|e| e.due).min()
    }

    /// Each fragment that is overdue at `now`, once.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (&timecode_ms, expected) in &mut self.fragments {
            if matches!(expected.state, State::Waiting) && expected.due.is_some_and(|due| due <= now) {
                expected.state = State::Missing;
                findings.push(Finding::Missing { sequence: expected.summary.id.sequence, timecode_ms });
            }
        }
        findings.iter().for_each(|finding| self.count(finding));
        findings
    }

    pub fn counts(&self) -> VerifyCounts {
        self.counts
    }

    /// Fragments that are expected and not read back yet.
    pub fn waiting(&self) -> usize {
        self.fragments.values().filter(|e| matches!(e.state, State::Waiting)).count()
    }

    /// Timecodes of what the service has and was not read back yet, oldest first.
    pub fn due(&self) -> impl Iterator<Item = u64> {
        let waits = |expected: &Expected| matches!(expected.state, State::Waiting) && expected.due.is_some();
        self.fragments
            .iter()
            .filter(move |(_, expected)| waits(expected))
            .map(|(timecode_ms, _)| *timecode_ms)
    }

    fn count(&mut self, finding: &Finding) {
        let counts = &mut self.counts;
        match finding {
            Finding::Identical { .. } => counts.identical += 1,
            Finding::Late { .. } => counts.late += 1,
            Finding::Corrupt(_) => counts.corrupt += 1,
            Finding::Missing { .. } => counts.missing += 1,
            Finding::Duplicate { .. } => counts.duplicate += 1,
            Finding::SelfDescribed { .. } => counts.self_described += 1,
            Finding::Foreign { .. } => counts.foreign += 1,
            Finding::Again => {}
        }
    }
}

impl Expected {
    fn judge(
        &mut self,
        cluster: &crate::read::chunk::Cluster,
        number: Option<FragmentNumber>,
        now: Instant,
    ) -> Finding {
        let sequence = self.summary.id.sequence;
        let timecode_ms = cluster.timecode_ms;
        if let Some((found_sha256, expected_sha256)) = cluster.sums.difference(&self.summary.sums) {
            return Finding::Corrupt(Mismatch {
                timecode_ms,
                number,
                found_blocks: cluster.blocks,
                expected_blocks: self.summary.blocks,
                found_bytes: cluster.bytes,
                expected_bytes: Some(self.summary.cluster_bytes),
                found_sha256,
                expected_sha256,
            });
        }
        let delay = now.saturating_duration_since(self.since);
        match std::mem::replace(&mut self.state, State::Read { number }) {
            State::Waiting => Finding::Identical { sequence, delay },
            State::Missing => Finding::Late { sequence, delay },
            State::Read { number: first } if first == number || first != self.kept => Finding::Again,
            State::Read { number: first } => {
                self.state = State::Read { number: first };
                Finding::Duplicate { sequence, timecode_ms, first, second: number }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoch;
    use crate::read::chunk::{Answer, ChunkReader, Event};
    use crate::testing::{Whole, chunk_bytes, fragments};

    const LIMIT: Duration = Duration::from_secs(30);

    fn chunk(bytes: Vec<u8>) -> Chunk {
        let mut reader = ChunkReader::new(Answer::GetMedia);
        reader.push(bytes.into());
        loop {
            match reader.finish(true).expect("valid") {
                Some(Event::End(chunk)) => return chunk,
                Some(_) => {}
                None => panic!("no chunk"),
            }
        }
    }

    fn rig() -> (Verifier, Vec<Whole>) {
        let sent = fragments(2);
        let mut verifier = Verifier::new(LIMIT);
        sent.iter().for_each(|f| verifier.expect(f.summary.clone(), epoch()));
        (verifier, sent)
    }

    #[test]
    fn an_equal_fragment_is_identical_once_and_a_second_number_is_a_duplicate() {
        let (mut verifier, sent) = rig();
        let now = epoch() + Duration::from_millis(700);
        let first = chunk(chunk_bytes(&sent[0], 1, true));
        let finding = verifier.read_back(&first, now);
        assert_eq!(finding, Some(Finding::Identical { sequence: 1, delay: Duration::from_millis(700) }));
        assert_eq!(verifier.read_back(&first, now), Some(Finding::Again));
        let copy = chunk(chunk_bytes(&sent[0], 1001, true));
        assert_eq!(
            verifier.read_back(&copy, now),
            Some(Finding::Again),
            "the first one may have been dropped"
        );
        verifier.read_back(&first, now);
        verifier.due_from(sent[0].summary.timecode.as_millis(), first.start.number, now);
        assert!(matches!(verifier.read_back(&copy, now), Some(Finding::Duplicate { sequence: 1, .. })));
        let counts = verifier.counts();
        assert_eq!((counts.identical, counts.duplicate, verifier.waiting()), (1, 1, 1));
    }

    #[test]
    fn any_flipped_byte_of_the_cluster_is_corrupt() {
        let sent = fragments(1);
        let good = chunk_bytes(&sent[0], 1, true);
        let cluster_at =
            good.windows(sent[0].cluster.len()).position(|w| w == sent[0].cluster).expect("inside");
        let mut corrupt = 0;
        for at in cluster_at..cluster_at + sent[0].cluster.len() {
            let mut verifier = Verifier::new(LIMIT);
            verifier.expect(sent[0].summary.clone(), epoch());
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            let mut reader = ChunkReader::new(Answer::GetMedia);
            reader.push(bytes.into());
            // A flip in a length or an id may break the Matroska structure instead: an error, or a cut chunk.
            while let Ok(Some(event)) = reader.finish(true) {
                if let Event::End(chunk) = event {
                    let finding = verifier.read_back(&chunk, epoch());
                    assert!(!matches!(finding, Some(Finding::Identical { .. })), "flip at {at}: {finding:?}");
                    corrupt += u32::from(matches!(finding, Some(Finding::Corrupt(_))));
                }
            }
        }
        assert!(corrupt > 50, "payload flips are found as such: {corrupt}");
    }

    #[test]
    fn a_corrupt_fragment_counts_once_however_often_it_is_read() {
        let (mut verifier, sent) = rig();
        let good = chunk_bytes(&sent[0], 1, true);
        let mut bad = good.clone();
        let payload_at = good.windows(4).position(|w| w == b"0000").expect("a payload");
        bad[payload_at] ^= 1;
        for _ in 0..2 {
            let finding = verifier.read_back(&chunk(bad.clone()), epoch());
            assert!(matches!(finding, Some(Finding::Corrupt(_))), "{finding:?}");
        }
        verifier.read_back(&chunk(good), epoch());
        let counts = verifier.counts();
        assert_eq!((counts.corrupt, counts.identical), (1, 1));
    }

    #[test]
    fn missing_is_reported_once_at_the_limit_and_may_turn_late() {
        let (mut verifier, sent) = rig();
        assert_eq!(verifier.next_timeout(), None, "the limit runs from the service's word");
        let timecode_ms = sent[0].summary.timecode.as_millis();
        verifier.due_from(timecode_ms, None, epoch());
        assert_eq!(verifier.next_timeout(), Some(epoch() + LIMIT));
        assert_eq!(verifier.handle_timeout(epoch() + LIMIT), [Finding::Missing { sequence: 1, timecode_ms }]);
        assert_eq!(verifier.handle_timeout(epoch() + LIMIT * 2), []);
        let finding = verifier.read_back(&chunk(chunk_bytes(&sent[0], 1, true)), epoch() + LIMIT * 3);
        assert_eq!(finding, Some(Finding::Late { sequence: 1, delay: LIMIT * 3 }));
    }

    #[test]
    fn a_fragment_of_an_earlier_run_proves_itself_by_its_tag() {
        let sent = fragments(1);
        let timecode_ms = sent[0].summary.timecode.as_millis();
        let mut verifier = Verifier::new(LIMIT);
        let good = chunk_bytes(&sent[0], 1, true);
        assert_eq!(
            verifier.read_back(&chunk(good.clone()), epoch()),
            Some(Finding::SelfDescribed { timecode_ms })
        );
        let mut bad = good.clone();
        let payload_at = good.windows(4).position(|w| w == b"0000").expect("a payload");
        bad[payload_at] ^= 1;
        assert!(matches!(verifier.read_back(&chunk(bad), epoch()), Some(Finding::Corrupt(_))));
        let anonymous = Whole { tag: bytes::Bytes::new(), ..fragments(1).remove(0) };
        let finding = verifier.read_back(&chunk(chunk_bytes(&anonymous, 1, true)), epoch());
        assert_eq!(finding, Some(Finding::Foreign { timecode_ms }));
    }

    #[test]
    fn memory_is_bounded_by_what_waits() {
        let mut verifier = Verifier::new(LIMIT);
        verifier.keep = 2;
        for fragment in fragments(6) {
            verifier.expect(fragment.summary.clone(), epoch());
            verifier.read_back(&chunk(chunk_bytes(&fragment, 1, true)), epoch());
        }
        assert!(verifier.fragments.len() <= 3);
        assert_eq!(verifier.counts().identical, 6);
    }
}
