//! Compares what was read back with what the ledger says was sent.
//!
//! A fragment is known by its timecode: KVS returns the producer's timecode unchanged, and it exists before any fragment
//! number does. Proof are the SHA-256 sums over the whole cluster as it left the box. What the ledger does not know (footage
//! from before a restart, somebody else's) is judged by its own identity tag.

use crate::cluster_sums::ClusterSums;
use crate::identity::Sha256Sum;
use crate::ledger::{Ledger, Record, Stage};
use crate::read::chunk::{Answer, Chunk, Cluster};
use crate::{FragmentId, FragmentNumber};

use std::time::Instant;

/// What reading one fragment back has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Equal byte for byte, for the first time or after a doubt.
    Identical(FragmentId),
    Corrupt(FragmentId, Mismatch),
    /// Known to be identical already. Nothing new.
    Again(FragmentId),
    /// Equal, under another number than the one that KVS keeps, and sent later: the stream holds it twice.
    Duplicate {
        id: FragmentId,
        second: FragmentNumber,
    },
    /// Another copy than the one that KVS keeps: a broken connection left it, whole or not.
    Stray(FragmentId),
    /// Not in the ledger, but its identity tag agrees with its payloads.
    SelfDescribed {
        timecode_ms: u64,
    },
    /// Not in the ledger, and its payloads are not what its identity tag says.
    Misdescribed(Mismatch),
    /// Not in the ledger, and without an identity tag.
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

/// Judges a whole chunk. `asked`: whose number it was fetched by, if it was. `None` for a chunk without a cluster or a cut one.
pub fn compare(ledger: &Ledger, chunk: &Chunk, asked: Option<FragmentId>) -> Option<Finding> {
    let cluster = chunk.cluster.as_ref().filter(|_| chunk.complete)?;
    let record = asked.and_then(|id| ledger.get(id)).or_else(|| ledger.at(cluster.timecode_ms));
    let known = record.and_then(|record| Some((record, record.summary.as_ref()?)));
    let Some((record, summary)) = known else { return Some(by_its_tag(cluster, chunk)) };
    let number = chunk.start.number;
    let kept = record.number.filter(|_| record.is_kept());
    let other = kept.zip(number).filter(|(kept, number)| kept != number);
    Some(match cluster.sums.difference(&summary.sums) {
        Some(_) if other.is_some() => Finding::Stray(record.id),
        Some(sums) => {
            let expected = (summary.blocks, Some(summary.cluster_bytes));
            Finding::Corrupt(record.id, mismatch(cluster, number, expected, sums))
        }
        None => match other {
            Some((kept, second)) if second > kept => Finding::Duplicate { id: record.id, second },
            Some(_) => Finding::Stray(record.id),
            None if record.stage == Stage::Identical => Finding::Again(record.id),
            None => Finding::Identical(record.id),
        },
    })
}

/// As [`compare`], and writes into the ledger what it shows. What an archive returns is kept there, also when it was given
/// up; what is read live may still be dropped.
pub fn note(
    ledger: &mut Ledger,
    chunk: &Chunk,
    answer: Answer,
    asked: Option<FragmentId>,
    now: Instant,
) -> Option<Finding> {
    let finding = compare(ledger, chunk, asked)?;
    let number = chunk.start.number;
    match &finding {
        Finding::Identical(id) => {
            let was_lost = |record: &Record| matches!(record.stage, Stage::Lost(_));
            if answer == Answer::FragmentList && ledger.get(*id).is_some_and(was_lost) {
                ledger.persisted(*id, number, now);
            }
            ledger.identical(*id, number, now);
        }
        // What an archive returns under the number that was kept is what it keeps, whatever was proven before.
        Finding::Corrupt(id, mismatch) if answer == Answer::FragmentList => {
            ledger.spoiled(*id, number, mismatch.clone(), now);
        }
        Finding::Corrupt(id, mismatch) => ledger.corrupt(*id, number, mismatch.clone(), now),
        Finding::Duplicate { id, second } => ledger.duplicate(*id, *second, now),
        _ => {}
    }
    Some(finding)
}

/// True if a complete chunk is this cluster, byte for byte.
pub fn is_identical(chunk: &Chunk, sums: &ClusterSums) -> bool {
    chunk.complete && chunk.cluster.as_ref().is_some_and(|cluster| cluster.sums == *sums)
}

fn by_its_tag(cluster: &Cluster, chunk: &Chunk) -> Finding {
    let timecode_ms = cluster.timecode_ms;
    match chunk.identity() {
        Some(identity) if identity.payload_sha256 == cluster.sums.payload => {
            Finding::SelfDescribed { timecode_ms }
        }
        Some(identity) => {
            let sums = (cluster.sums.payload, identity.payload_sha256);
            Finding::Misdescribed(mismatch(cluster, chunk.start.number, (identity.blocks, None), sums))
        }
        None => Finding::Foreign { timecode_ms },
    }
}

fn mismatch(
    cluster: &Cluster,
    number: Option<FragmentNumber>,
    (expected_blocks, expected_bytes): (u32, Option<u64>),
    (found_sha256, expected_sha256): (Sha256Sum, Sha256Sum),
) -> Mismatch {
    Mismatch {
        timecode_ms: cluster.timecode_ms,
        number,
        found_blocks: cluster.blocks,
        expected_blocks,
        found_bytes: cluster.bytes,
        expected_bytes,
        found_sha256,
        expected_sha256,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::epoch;
    use crate::ledger::LedgerLimits;
    use crate::ledger::LossReason;
    use crate::read::chunk::{ChunkReader, Event};
    use crate::testing::{Whole, chunk_bytes, fragments};

    const S: Duration = Duration::from_secs(1);

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

    /// One payload byte is another.
    fn damaged(fragment: &Whole, sequence: u64) -> Chunk {
        let mut bytes = chunk_bytes(fragment, sequence, true);
        let payload_at = bytes.windows(4).position(|w| w == b"0000").expect("a payload");
        bytes[payload_at] ^= 1;
        chunk(bytes)
    }

    fn good(fragment: &Whole, sequence: u64) -> Chunk {
        chunk(chunk_bytes(fragment, sequence, true))
    }

    fn sent() -> (Ledger, Vec<Whole>) {
        let sent = fragments(2);
        let mut ledger = Ledger::new(LedgerLimits::default());
        sent.iter().for_each(|fragment| ledger.complete(fragment.summary.clone(), epoch()));
        (ledger, sent)
    }

    fn live(ledger: &mut Ledger, chunk: &Chunk) -> Option<Finding> {
        note(ledger, chunk, Answer::GetMedia, None, epoch() + S)
    }

    #[test]
    fn an_equal_fragment_is_identical_once_and_a_later_copy_is_a_duplicate() {
        let (mut ledger, sent) = sent();
        let (first, second) = (good(&sent[0], 5), good(&sent[0], 1001));
        let id = sent[0].summary.id;
        ledger.persisted(id, first.start.number, epoch());
        assert_eq!(live(&mut ledger, &first), Some(Finding::Identical(id)));
        assert_eq!(live(&mut ledger, &first), Some(Finding::Again(id)));
        let twice = Finding::Duplicate { id, second: second.start.number.expect("numbered") };
        assert_eq!(live(&mut ledger, &second), Some(twice.clone()));
        assert_eq!(live(&mut ledger, &second), Some(twice));
        assert_eq!((ledger.counts().identical, ledger.counts().duplicate), (1, 1));
    }

    #[test]
    fn a_copy_that_a_broken_connection_left_proves_nothing_and_blames_nobody() {
        let (mut ledger, sent) = sent();
        let id = sent[0].summary.id;
        ledger.persisted(id, good(&sent[0], 1001).start.number, epoch());
        for stray in [good(&sent[0], 1), damaged(&sent[0], 1), damaged(&sent[0], 2001)] {
            assert_eq!(live(&mut ledger, &stray), Some(Finding::Stray(id)));
        }
        let counts = ledger.counts();
        assert_eq!((counts.identical, counts.corrupt, counts.duplicate), (0, 0, 0));
        assert_eq!(live(&mut ledger, &good(&sent[0], 1001)), Some(Finding::Identical(id)));
    }

    #[test]
    fn any_flipped_byte_of_the_cluster_is_corrupt() {
        let (ledger, sent) = sent();
        let whole = chunk_bytes(&sent[0], 1, true);
        let cluster = &sent[0].cluster;
        let at = whole.windows(cluster.len()).position(|window| window == cluster).expect("inside");
        let mut corrupt = 0;
        for at in at..at + cluster.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            let mut reader = ChunkReader::new(Answer::GetMedia);
            reader.push(bytes.into());
            // A flip in a length or an id may break the Matroska structure instead: an error, or a cut chunk.
            while let Ok(Some(event)) = reader.finish(true) {
                if let Event::End(chunk) = event {
                    let finding = compare(&ledger, &chunk, None);
                    assert!(!matches!(finding, Some(Finding::Identical(_))), "flip at {at}: {finding:?}");
                    corrupt += u32::from(matches!(finding, Some(Finding::Corrupt(..))));
                    // Fetched by its number it is ours whatever its timecode says.
                    let finding = compare(&ledger, &chunk, Some(sent[0].summary.id));
                    assert!(
                        matches!(finding, None | Some(Finding::Corrupt(..))),
                        "flip at {at}: {finding:?}"
                    );
                }
            }
        }
        assert!(corrupt > 50, "payload flips are found as such: {corrupt}");
    }

    #[test]
    fn a_cut_chunk_shows_nothing() {
        let (mut ledger, sent) = sent();
        let cut = Chunk { complete: false, ..good(&sent[0], 1) };
        assert_eq!(live(&mut ledger, &cut), None);
        let empty = Chunk { cluster: None, ..good(&sent[0], 1) };
        assert_eq!(live(&mut ledger, &empty), None);
    }

    #[test]
    fn a_corrupt_fragment_heals_when_it_is_read_well() {
        let (mut ledger, sent) = sent();
        let id = sent[0].summary.id;
        ledger.persisted(id, good(&sent[0], 1).start.number, epoch());
        for _ in 0..2 {
            assert!(matches!(live(&mut ledger, &damaged(&sent[0], 1)), Some(Finding::Corrupt(..))));
            assert_eq!(ledger.counts().corrupt, 1);
        }
        assert_eq!(live(&mut ledger, &good(&sent[0], 1)), Some(Finding::Identical(id)));
        let counts = ledger.counts();
        assert_eq!((counts.corrupt, counts.identical, counts.healed), (0, 1, 1));
    }

    #[test]
    fn what_was_given_up_and_is_in_the_archive_was_not_lost() {
        let (mut ledger, sent) = sent();
        let (id, end) = (sent[0].summary.id, sent[0].summary.end());
        ledger.lost(id, end, LossReason::WindowFull, epoch());
        live(&mut ledger, &good(&sent[0], 1));
        assert_eq!(ledger.counts().lost, 1, "live it may still be dropped");
        note(&mut ledger, &good(&sent[0], 1), Answer::FragmentList, None, epoch());
        let counts = ledger.counts();
        assert_eq!((counts.lost, counts.persisted, counts.identical), (0, 1, 1));
    }

    #[test]
    fn a_fragment_of_an_earlier_run_proves_itself_by_its_tag() {
        let sent = fragments(1);
        let timecode_ms = sent[0].summary.timecode.as_millis();
        let ledger = Ledger::new(LedgerLimits::default());
        let judge = |chunk: &Chunk| compare(&ledger, chunk, None);
        assert_eq!(judge(&good(&sent[0], 1)), Some(Finding::SelfDescribed { timecode_ms }));
        assert!(matches!(judge(&damaged(&sent[0], 1)), Some(Finding::Misdescribed(_))));
        let anonymous = Whole { tag: bytes::Bytes::new(), ..fragments(1).remove(0) };
        assert_eq!(judge(&good(&anonymous, 1)), Some(Finding::Foreign { timecode_ms }));
    }
}
