use proptest::prelude::*;

use super::*;
use crate::cluster_sums::ClusterSums;
use crate::identity::Sha256Sum;
use crate::{RunId, epoch};

const S: Duration = Duration::from_secs(1);

fn id(sequence: u64) -> FragmentId {
    FragmentId { run: RunId::new(7), sequence }
}

fn time(ms: u64) -> ProducerTimestamp {
    ProducerTimestamp::from_millis(ms)
}

fn number(n: u64) -> FragmentNumber {
    FragmentNumber::new(n, 1_795_186_073_633, 1)
}

/// Fragment `sequence` of two seconds.
fn summary(sequence: u64) -> FragmentSummary {
    let sum = Sha256Sum::of(&sequence.to_be_bytes());
    FragmentSummary {
        id: id(sequence),
        timecode: time(sequence * 2000),
        clock: crate::stamping::FootageClock::Utc,
        duration_ms: 1960,
        blocks: 50,
        audio_blocks: 0,
        cluster_bytes: 1000,
        around_bytes: 500,
        sums: ClusterSums { payload: sum, heads: sum },
        forced: false,
    }
}

fn mismatch() -> Mismatch {
    let sum = Sha256Sum::of(b"");
    Mismatch {
        timecode_ms: 2000,
        number: None,
        found_blocks: 1,
        expected_blocks: 2,
        found_bytes: 1,
        expected_bytes: None,
        found_sha256: sum,
        expected_sha256: sum,
    }
}

fn small() -> Ledger {
    Ledger::new(LedgerLimits { fragments: 8, log: 16, gaps: 4 })
}

fn recorded(ledger: &mut Ledger, sequences: std::ops::RangeInclusive<u64>) {
    for sequence in sequences {
        ledger.complete(summary(sequence), epoch());
    }
}

#[test]
fn a_good_life_climbs_each_rung_once() {
    let (t0, mut ledger) = (epoch(), small());
    let mut cursor = ledger.cursor();
    ledger.begin(id(1), time(2000), t0);
    ledger.begin(id(1), time(2000), t0 + S);
    ledger.complete(summary(1), t0 + S * 2);
    ledger.sending(id(1));
    ledger.sent(id(1), t0 + S * 2);
    ledger.received(id(1), Some(number(1)), t0 + S * 3);
    assert_eq!(
        ledger.get(id(1)).map(|record| (&record.stage, record.number)),
        Some((&Stage::Received, Some(number(1))))
    );
    ledger.sending(id(1));
    assert_eq!(ledger.get(id(1)).map(|record| &record.stage), Some(&Stage::Received), "never back by itself");
    ledger.persisted(id(1), None, t0 + S * 3);
    ledger.persisted(id(1), Some(number(1)), t0 + S * 4);
    ledger.listed(id(1), number(1), t0 + S * 5);
    ledger.identical(id(1), Some(number(1)), t0 + S * 6);
    ledger.listed(id(1), number(1), t0 + S * 7);
    ledger.missing(id(1), t0 + S * 8);
    ledger.corrupt(id(1), None, mismatch(), t0 + S * 8);
    let record = ledger.get(id(1)).expect("it is remembered");
    assert_eq!(
        (&record.stage, record.times.listed),
        (&Stage::Identical, Some(t0 + S * 5)),
        "proven stays proven"
    );
    let changes: Vec<_> = ledger.read(&mut cursor).entries.map(|entry| entry.change.clone()).collect();
    assert_eq!(
        changes,
        [
            Change::Begun,
            Change::Complete(summary(1)),
            Change::Persisted { number: Some(number(1)), end: time(3960) },
            Change::Listed,
            Change::Identical { delay: S * 4, healed: false },
        ]
    );
    let counts = Counts { begun: 1, complete: 1, persisted: 1, listed: 1, identical: 1, ..Counts::default() };
    assert_eq!(ledger.counts(), counts);
}

#[test]
fn a_break_sets_back_what_is_not_persisted() {
    let mut ledger = small();
    recorded(&mut ledger, 1..=2);
    for sequence in 1..=2 {
        ledger.sending(id(sequence));
        ledger.received(id(sequence), Some(number(sequence)), epoch());
    }
    ledger.persisted(id(1), None, epoch());
    ledger.interrupted(id(1));
    ledger.interrupted(id(2));
    let stages: Vec<_> = ledger.records().map(|record| record.stage.clone()).collect();
    assert_eq!(stages, [Stage::Persisted, Stage::Recorded]);
    assert_eq!(
        ledger.get(id(2)).and_then(|record| record.number),
        Some(number(2)),
        "by which it is asked for"
    );
    assert_eq!(ledger.unsettled().map(|record| record.id).collect::<Vec<_>>(), [id(2)]);
}

#[test]
fn what_ended_badly_heals_when_it_is_proven() {
    let (t0, mut ledger) = (epoch(), small());
    recorded(&mut ledger, 1..=4);
    for sequence in [1, 2, 3] {
        ledger.persisted(id(sequence), Some(number(sequence)), t0);
    }
    ledger.missing(id(1), t0);
    ledger.missing(id(2), t0);
    ledger.corrupt(id(3), None, mismatch(), t0);
    ledger.lost(id(4), time(0), LossReason::WindowFull, t0);
    let bad = ledger.counts();
    assert_eq!((bad.missing, bad.corrupt, bad.lost, ledger.gaps().count()), (2, 1, 1, 1));
    ledger.listed(id(1), number(1), t0 + S);
    ledger.identical(id(2), None, t0 + S);
    ledger.identical(id(3), None, t0 + S);
    ledger.persisted(id(4), Some(number(4)), t0 + S);
    let counts = ledger.counts();
    assert_eq!((counts.missing, counts.corrupt, counts.lost, ledger.gaps().count()), (0, 0, 0, 0));
    assert_eq!((counts.identical, counts.healed, counts.persisted), (2, 2, 4));
    assert_eq!(ledger.gaps_within(S * 3600, t0 + S), 0);
}

#[test]
fn what_a_list_states_wrongly_heals_with_a_list_that_is_right() {
    let (t0, mut ledger) = (epoch(), small());
    recorded(&mut ledger, 1..=1);
    ledger.persisted(id(1), Some(number(1)), t0);
    let misstated =
        |found| Misstated { timecode_ms: 2000, number: number(1), what: "a size of", found, expected: 1 };
    let mut cursor = ledger.cursor();
    for found in [7, 7, 8] {
        ledger.misstated(id(1), misstated(found), t0);
    }
    assert_eq!(
        (ledger.counts().misstated, ledger.read(&mut cursor).entries.len()),
        (1, 2),
        "what is new is told"
    );
    assert!(ledger.get(id(1)).is_some_and(Record::is_bad));
    ledger.listed(id(1), number(1), t0 + S);
    ledger.misstated(id(1), misstated(9), t0 + S);
    assert_eq!((ledger.counts().misstated, ledger.counts().listed), (0, 1));
}

#[test]
fn what_was_read_back_and_never_listed_may_be_missing_and_heals_either_way() {
    let (t0, mut ledger) = (epoch(), small());
    recorded(&mut ledger, 1..=3);
    for sequence in 1..=3 {
        ledger.persisted(id(sequence), Some(number(sequence)), t0);
        ledger.identical(id(sequence), None, t0);
    }
    ledger.listed(id(3), number(3), t0);
    (1..=3).for_each(|sequence| ledger.missing(id(sequence), t0 + S));
    assert_eq!((ledger.counts().missing, ledger.counts().identical), (2, 3), "what was listed too is proven");
    ledger.listed(id(1), number(1), t0 + S * 2);
    ledger.identical(id(2), None, t0 + S * 2);
    let counts = ledger.counts();
    assert_eq!((counts.missing, counts.identical, counts.healed), (0, 3, 2));
    assert!(ledger.records().all(|record| record.stage == Stage::Identical));
    assert_eq!(
        ledger.records_after(Some(id(1))).map(|record| record.id.sequence).collect::<Vec<_>>(),
        [2, 3]
    );
    (0..2).for_each(|_| ledger.unproven(id(2), t0));
    assert_eq!(ledger.counts().unproven, 1);
}

#[test]
fn what_is_read_live_counts_once_it_is_kept_under_that_number() {
    let (t0, mut ledger) = (epoch(), small());
    recorded(&mut ledger, 1..=3);
    ledger.identical(id(1), Some(number(1)), t0 + S);
    ledger.corrupt(id(2), Some(number(2)), mismatch(), t0 + S);
    ledger.identical(id(3), Some(number(3)), t0 + S);
    assert_eq!((ledger.counts().identical, ledger.counts().corrupt), (0, 0));
    assert!(ledger.records().all(|record| record.stage == Stage::Recorded));
    let mut cursor = ledger.cursor();
    ledger.persisted(id(1), Some(number(1)), t0 + S * 3);
    ledger.persisted(id(2), Some(number(2)), t0 + S * 3);
    ledger.persisted(id(3), Some(number(9)), t0 + S * 3);
    let stages: Vec<_> = ledger.records().map(|record| record.stage.clone()).collect();
    assert_eq!(stages, [Stage::Identical, Stage::Corrupt(mismatch()), Stage::Persisted]);
    let delay = ledger.read(&mut cursor).entries.find_map(|entry| match entry.change {
        Change::Identical { delay, .. } => Some(delay),
        _ => None,
    });
    assert_eq!(delay, Some(S), "as it was read, not as it was acknowledged");
}

#[test]
fn lost_in_a_row_is_one_gap_that_closes_when_later_footage_is_kept() {
    let (t0, mut ledger) = (epoch(), small());
    recorded(&mut ledger, 1..=7);
    for sequence in [2, 3, 4, 6] {
        ledger.lost(id(sequence), time(sequence * 2000 + 1960), LossReason::WindowFull, t0 + S);
    }
    let open: Vec<_> = ledger.gaps().map(|gap| (gap.start, gap.end, gap.fragments, gap.closed)).collect();
    assert_eq!(open, [(time(4000), time(9960), 3, false), (time(12_000), time(13_960), 1, false)]);
    ledger.persisted(id(5), None, t0 + S * 2);
    assert_eq!(ledger.gaps().map(|gap| gap.closed).collect::<Vec<_>>(), [true, false]);
    ledger.lost(id(7), time(15_960), LossReason::Crashed, t0 + S * 10);
    assert_eq!(ledger.gaps().count(), 3, "another reason is another gap");
    assert_eq!(ledger.gaps_within(S * 9, t0 + S * 10), 1);
    assert_eq!(ledger.gaps_within(S * 86_400, t0 + S * 10), 3);
}

#[test]
fn a_gap_says_what_lies_behind_its_reason_now() {
    let (t0, mut ledger) = (epoch(), small());
    recorded(&mut ledger, 1..=4);
    let causes = [None, Some("no connection yet"), Some("connection refused"), None];
    for (sequence, because) in (1..).zip(causes) {
        let end = time(sequence * 2000 + 1960);
        ledger.lost_because(id(sequence), end, LossReason::WindowFull, because, t0);
    }
    let gaps: Vec<_> = ledger.gaps().map(|gap| (gap.fragments, gap.because.as_deref())).collect();
    assert_eq!(gaps, [(4, Some("connection refused"))], "one gap, however often the cause changes");
}

#[test]
fn gaps_of_a_day_are_counted_beyond_those_that_are_kept() {
    let (t0, mut ledger) = (epoch(), small());
    for sequence in (1..=80).step_by(2) {
        ledger.complete(summary(sequence), t0);
        ledger.lost(id(sequence), time(0), LossReason::WindowFull, t0);
    }
    assert_eq!((ledger.gaps().count(), ledger.gaps_within(S * 86_400, t0 + S)), (4, 40));
}

#[test]
fn a_slow_reader_is_told_what_it_missed_and_holds_nobody_up() {
    let mut ledger = small();
    let (mut slow, mut late) = (ledger.cursor(), ledger.cursor_at_start());
    recorded(&mut ledger, 1..=20);
    let read = ledger.read(&mut slow);
    assert_eq!((read.missed, read.entries.len()), (40 + ledger_unproven(&ledger) - 16, 16));
    let read = ledger.read(&mut slow);
    assert_eq!((read.missed, read.entries.len()), (0, 0));
    assert_eq!(ledger.read(&mut late).entries.len(), 16);
    let mut fresh = ledger.cursor();
    recorded(&mut ledger, 21..=21);
    assert_eq!(ledger.read(&mut fresh).entries.len(), 2);
}

fn ledger_unproven(ledger: &Ledger) -> u64 {
    ledger.counts().unproven
}

#[test]
fn memory_is_bounded_and_what_is_forgotten_unproven_is_counted() {
    let (t0, mut ledger) = (epoch(), small());
    recorded(&mut ledger, 1..=8);
    ledger.persisted(id(3), None, t0);
    ledger.identical(id(3), None, t0);
    ledger.persisted(id(1), None, t0);
    recorded(&mut ledger, 9..=9);
    assert!(ledger.get(id(3)).is_none() && ledger.at(6000).is_none(), "its life was over");
    assert_eq!(ledger.counts().unproven, 0);
    recorded(&mut ledger, 10..=10);
    assert!(ledger.get(id(1)).is_none());
    assert_eq!(ledger.counts().unproven, 1);
    recorded(&mut ledger, 11..=30);
    assert_eq!(ledger.records().count(), 28, "what is still to be sent is never forgotten");
}

#[test]
fn whoever_held_fragments_and_is_gone_leaves_a_gap() {
    let mut ledger = small();
    recorded(&mut ledger, 1..=3);
    ledger.persisted(id(1), None, epoch());
    ledger.begin(id(4), time(8000), epoch());
    assert_eq!(ledger.abandon(&LossReason::Crashed, epoch()), 3);
    assert_eq!(ledger.abandon(&LossReason::Crashed, epoch()), 0);
    let gap = ledger.gaps().next().expect("a gap");
    assert_eq!((gap.start, gap.end, &gap.reason), (time(4000), time(8000), &LossReason::Crashed));
    assert_eq!(ledger.counts().lost, 3);
}

#[test]
fn a_duplicate_is_told_once() {
    let mut ledger = small();
    recorded(&mut ledger, 1..=1);
    ledger.persisted(id(1), Some(number(1)), epoch());
    for second in [1, 2, 2, 3] {
        ledger.duplicate(id(1), number(second), epoch());
    }
    assert_eq!(ledger.counts().duplicate, 1);
    assert_eq!(ledger.get(id(1)).and_then(|record| record.duplicate), Some(number(2)));
}

proptest! {
    /// Whatever is said in whatever order: counts are those of the records, and each fragment has one stage.
    #[test]
    fn counts_agree_with_the_records(steps in prop::collection::vec((0_u8..10, 1_u64..6), 0..200)) {
        let mut ledger = Ledger::new(LedgerLimits::default());
        for (step, sequence) in steps {
            let (id, now) = (id(sequence), epoch());
            match step {
                0 => ledger.begin(id, time(sequence * 2000), now),
                1 => ledger.complete(summary(sequence), now),
                2 => ledger.sending(id),
                3 => ledger.received(id, Some(number(sequence)), now),
                4 => ledger.persisted(id, Some(number(sequence)), now),
                5 => ledger.listed(id, number(sequence), now),
                6 => ledger.identical(id, None, now),
                7 => ledger.corrupt(id, None, mismatch(), now),
                8 => ledger.missing(id, now),
                9 if sequence % 2 == 0 => {
                    let (timecode_ms, number, what) = (1, number(sequence), "a size of");
                    let misstated = Misstated { timecode_ms, number, what, found: 1, expected: 2 };
                    ledger.misstated(id, misstated, now);
                }
                _ => ledger.lost(id, time(sequence * 2000 + 1960), LossReason::WindowFull, now),
            }
        }
        let count = |wanted: fn(&Record) -> bool| ledger.records().filter(|record| wanted(record)).count() as u64;
        let counts = ledger.counts();
        prop_assert_eq!(counts.begun, count(|_| true));
        prop_assert_eq!(counts.complete, count(|record| record.summary.is_some()));
        prop_assert_eq!(counts.persisted, count(|record| record.times.persisted.is_some()));
        prop_assert_eq!(counts.listed, count(|record| record.times.listed.is_some()));
        prop_assert_eq!(counts.identical, count(|record| record.times.identical.is_some()));
        prop_assert_eq!(counts.misstated, count(|record| record.misstated.is_some()));
        prop_assert_eq!(counts.bad, count(Record::is_bad));
        prop_assert_eq!(counts.missing, count(|record| record.stage == Stage::Missing));
        prop_assert_eq!(counts.corrupt, count(|record| matches!(record.stage, Stage::Corrupt(_))));
        prop_assert_eq!(counts.lost, count(|record| matches!(record.stage, Stage::Lost(_))));
        let in_gaps: u64 = ledger.gaps().map(|gap| gap.fragments).sum();
        prop_assert_eq!(in_gaps, counts.lost);
    }
}
