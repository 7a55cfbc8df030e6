//! Proof records of a box and a KVS in memory, on paused time: what is written down of each minute, whatever happens.

use std::path::Path;
use std::time::Duration;

use kvs::ack::AckEvent;
use kvs::proof::records::{Cause, Checker, Fault, Line, Summary};
use kvs::proof::schedule::{ProofMode, Verdict};
use kvs_local::{AckKind, FaultKind};

use crate::upload_rig::{Rig, Setting};

const SECOND: Duration = Duration::from_secs(1);

fn setting(proof: ProofMode) -> Setting {
    Setting { proof, records: true, spool: Some(|_| ()), ..Setting::default() }
}

/// All lines below a folder, and what is wrong with them.
fn read(folder: &Path) -> (Vec<Line>, Vec<Fault>) {
    let (mut lines, mut checker) = (Vec::new(), Checker::new());
    let at = store::proofs_at(folder).expect("it is there");
    assert_eq!((at.cameras.as_slice(), at.no_index.as_deref()), (&["cam".to_owned()][..], None));
    let torn = at.lines("cam", &mut |line, place, number| {
        checker.line(line.as_ref(), place, number);
        lines.extend(line.ok());
    });
    assert_eq!(torn.expect("it can be read").len(), 0);
    let (_, first, head) = at.heads.into_iter().next().expect("one chain");
    (lines, checker.finish(Some(first), &[head]))
}

fn folder(rig: &Rig) -> &Path {
    rig.proof_folder.as_deref().expect("it is on disk")
}

/// The newest record of each minute with footage, oldest first, of a chain that is whole.
fn minutes(rig: &Rig) -> Vec<Summary> {
    let (lines, faults) = read(folder(rig));
    assert_eq!(faults, []);
    let mut newest = std::collections::BTreeMap::new();
    for line in lines {
        if let Some(summary) = line.record.summary() {
            newest.insert(summary.minute_ms, summary.clone());
        }
    }
    newest.into_values().collect()
}

fn verdicts(minutes: &[Summary]) -> Vec<Verdict> {
    minutes.iter().map(|minute| minute.verdict).collect()
}

#[tokio::test(start_paused = true)]
async fn each_minute_is_written_down_with_what_is_proven_of_it() {
    for (mode, verified) in [(ProofMode::Continuous, 60), (ProofMode::Sampled, 1)] {
        let mut rig = Rig::start(setting(mode)).await;
        rig.film(300).await;
        let last = rig.records.borrow().last.clone().expect("some minutes are over");
        assert_eq!((last.summary.verdict, rig.records.borrow().is_on_disk), (Verdict::Ok, true));
        rig.expect_all_kept_but_proof().await;
        let minutes = minutes(&rig);
        assert!(minutes.len() >= 3, "{minutes:#?}");
        // It began within its first minute.
        for minute in &minutes[1..minutes.len() - 1] {
            assert_eq!((minute.verdict, minute.why.as_deref()), (Verdict::Ok, None), "{minute:#?}");
            let counts = (minute.expected, minute.persisted, minute.listed);
            assert_eq!(counts, (60, 60, 60), "{minute:#?}");
            assert!(minute.verified >= verified && minute.gaps.is_empty(), "{minute:#?}");
            assert!(minute.persist_ms.is_some() && minute.read_ms.is_some() && minute.bytes > 60 * 1000);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_late_then_amended_and_survives_the_death_of_the_box() {
    let mut rig = Rig::start(setting(ProofMode::Sampled)).await;
    rig.film(70).await;
    rig.network.down(true);
    rig.film(300).await;
    let late = verdicts(&minutes(&rig));
    assert!(late.contains(&Verdict::Late), "{late:?}");
    rig.kill().await;
    rig.begin_again();
    rig.network.down(false);
    rig.film(420).await;
    rig.end().await;
    let minutes = minutes(&rig);
    let verdicts = verdicts(&minutes);
    let whole = verdicts.len() - 2;
    // The fragment that was being recorded at the end of the first life is not there, and nothing else is missing.
    assert!(verdicts[..whole].iter().all(|verdict| *verdict == Verdict::Ok), "{minutes:#?}");
    let (lines, _) = read(folder(&rig));
    assert!(lines.iter().any(|line| line.record.amends().is_some()), "amended, not rewritten");
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_is_a_gap_with_its_cause_and_without_a_disk_it_is_told_all_the_same() {
    let small =
        Setting { window_bytes: 40_000, proof: ProofMode::Sampled, records: true, ..Setting::default() };
    let mut rig = Rig::start(small).await;
    rig.film(61).await;
    rig.network.down(true);
    rig.film(200).await;
    rig.network.down(false);
    rig.film(400).await;
    let report = rig.records.borrow().clone();
    assert!(!report.is_on_disk && report.written > 4, "{report:#?}");
    let gaps: Vec<_> = rig.ledger.with(|ledger| ledger.gaps().cloned().collect());
    assert!(!gaps.is_empty());
    let mut seen = rig.records.clone();
    assert_eq!(seen.borrow_and_update().last.as_ref().map(|last| last.summary.verdict), Some(Verdict::Ok));
}

#[tokio::test(start_paused = true)]
async fn lost_footage_is_told_in_the_records_of_its_minutes() {
    let spool = |options: &mut store::Options| {
        options.bytes = 200_000;
        options.segment_bytes = 20_000;
    };
    let mut rig =
        Rig::start(Setting { window_bytes: 20_000, spool: Some(spool), ..setting(ProofMode::Sampled) }).await;
    rig.film(61).await;
    rig.network.down(true);
    rig.film(400).await;
    rig.network.down(false);
    rig.film(400).await;
    rig.end().await;
    let lost = rig.ledger.with(|ledger| ledger.counts().lost);
    let minutes = minutes(&rig);
    let told: u64 = minutes.iter().map(|minute| minute.expected - minute.persisted).sum();
    assert_eq!(told, lost, "{minutes:#?}");
    let causes: Vec<_> = minutes.iter().flat_map(|minute| &minute.gaps).map(|gap| gap.cause).collect();
    assert!(
        causes.contains(&Cause::SpoolFull) && causes.iter().all(|cause| *cause == Cause::SpoolFull),
        "{causes:?}"
    );
    assert!(verdicts(&minutes).contains(&Verdict::Gap));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_keeps_nothing_is_told_to_be_unknown_and_why() {
    let nothing = Setting { retention_h: Some(0), ack_timeout: SECOND * 5, ..setting(ProofMode::Sampled) };
    let mut rig = Rig::start(nothing).await;
    rig.film(420).await;
    let last = rig.records.borrow().last.clone().expect("minutes are over");
    assert_eq!((last.summary.verdict, last.summary.persisted), (Verdict::Unknown, 0), "{last:#?}");
    let why = last.summary.why.expect("it is said");
    assert!(why.contains("retention"), "{why}");
    // The operator sets a retention: what waited is kept, and the minutes are amended.
    rig.make_right().await;
    rig.film(200).await;
    rig.end().await;
    let minutes = minutes(&rig);
    assert_eq!(minutes[1].verdict, Verdict::Ok, "{minutes:#?}");
}

#[tokio::test(start_paused = true)]
async fn acks_for_fragments_that_nobody_sent_change_no_record() {
    let mut rig = Rig::start(setting(ProofMode::Sampled)).await;
    rig.film(30).await;
    let stray = |event: AckEvent, timecode_ms: u64| {
        let number = kvs::FragmentNumber::new(77, timecode_ms, 5).to_string();
        let event = match event {
            AckEvent::Persisted => "PERSISTED",
            _ => "RECEIVED",
        };
        format!(r#"{{"EventType":"{event}","FragmentTimecode":{timecode_ms},"FragmentNumber":"{number}"}}"#)
            + "\n"
    };
    for _ in 0..20 {
        let bytes =
            (stray(AckEvent::Received, 5) + &stray(AckEvent::Persisted, 1_795_186_073_001)).into_bytes();
        rig.inject(FaultKind::GarbageAck { bytes });
        rig.film(10).await;
    }
    rig.inject(FaultKind::DropAck { ack: Some(AckKind::Persisted), count: 2 });
    rig.film(200).await;
    rig.expect_all_kept_but_proof().await;
    let minutes = minutes(&rig);
    for minute in &minutes[1..minutes.len() - 1] {
        assert_eq!((minute.verdict, minute.expected, minute.persisted), (Verdict::Ok, 60, 60), "{minute:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_box_left_unconfirmed_on_no_disk_is_asked_for_before_it_is_called_lost() {
    for (arrives, says) in [(true, None), (false, Some(Cause::Crashed))] {
        let mut rig = Rig::start(Setting { window_bytes: 4 << 20, ..setting(ProofMode::Sampled) }).await;
        rig.film(125).await;
        // The disk takes nothing any more; what is sent arrives, and no ack says so. Or nothing arrives.
        rig.disk.break_with(std::io::ErrorKind::ReadOnlyFilesystem);
        match arrives {
            true => rig.inject(FaultKind::DropAck { ack: None, count: 1_000_000 }),
            false => rig.network.down(true),
        }
        rig.refuse_looks();
        rig.film(30).await;
        rig.kill().await;
        rig.disk.mend();
        rig.network.down(false);
        rig.kvs.faults().clear();
        rig.begin_again();
        rig.film(400).await;
        rig.end().await;
        let minutes = minutes(&rig);
        let causes: Vec<_> = minutes.iter().flat_map(|minute| &minute.gaps).map(|gap| gap.cause).collect();
        assert_eq!(causes.contains(&Cause::Crashed), says.is_some(), "{arrives}: {minutes:#?}");
        // The 30 s before the death, but for what was being recorded.
        let kept: u64 = minutes.iter().map(|minute| minute.persisted).sum();
        let expected: u64 = minutes.iter().map(|minute| minute.expected).sum();
        assert!(if arrives { kept == expected } else { expected - kept >= 20 }, "{kept} of {expected}");
    }
}
