//! Footage that waits on disk: outages, sudden deaths of the box and a disk that fails, against a server in memory on paused
//! time. The disk is one on which nothing depends on a thread.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::Duration;

use health::Reason;
use kvs::ledger::LossReason;
use kvs::proof::schedule::ProofMode;
use kvs_local::{AckKind, FaultKind};

use crate::upload_rig::{Rig, Setting, Stored};

const SECOND: Duration = Duration::from_secs(1);
/// Of the window in memory: a dozen fragments.
const WINDOW: u64 = 20_000;

fn with_spool() -> Setting {
    Setting { window_bytes: WINDOW, spool: Some(|_| ()), ..Setting::default() }
}

fn away(rig: &Rig) {
    rig.inject(FaultKind::RefusePutMedia {
        error_type: "ServiceUnavailable".to_owned(),
        status: 503,
        count: 1_000_000,
    });
    rig.inject(FaultKind::CutPutMedia { after_bytes: 0 });
}

/// What was finished in all lives, by its time.
type Finished = BTreeMap<u64, (u64, u64)>;

fn note_finished(rig: &Rig, finished: &mut Finished) {
    for one in rig.summaries(|_| true) {
        finished.insert(one.timecode.as_millis(), (u64::from(one.blocks), one.cluster_bytes));
    }
}

fn expect_stored_once(stored: &[Stored], finished: &Finished, what: &str) {
    let kept: Vec<_> = stored.iter().map(|one| (one.timecode_ms, (one.blocks, one.cluster_bytes))).collect();
    let finished: Vec<_> = finished.iter().map(|(ms, one)| (*ms, *one)).collect();
    assert_eq!(kept, finished, "{what}: stored against finished");
}

#[tokio::test(start_paused = true)]
async fn an_outage_longer_than_the_window_waits_on_disk_and_drains_in_order() {
    for proof in [ProofMode::Off, ProofMode::Continuous] {
        let mut rig = Rig::start(Setting { proof, ..with_spool() }).await;
        rig.film(5).await;
        away(&rig);
        rig.film(900).await;
        let report = rig.report.borrow().clone();
        assert_eq!((report.lost, report.complete), (0, 904), "{report:?}");
        assert!(report.backlog.fragments > 890 && report.backlog.bytes as u64 > 40 * WINDOW, "{report:?}");
        let remembered = rig.ledger.with(|ledger| ledger.records().count());
        assert!(remembered < 600, "{remembered} records: what is on disk only needs no memory");
        rig.kvs.faults().clear();
        // At most 5 fragments a second, and one comes each second.
        rig.film(320).await;
        let report = rig.report.borrow().clone();
        assert!(report.backlog.fragments <= 3, "{report:?}");
        assert_eq!(report.problem, None);
        let mut finished = Finished::new();
        let stored = rig.end().await;
        note_finished(&rig, &mut finished);
        expect_stored_once(&stored, &finished, "drained");
        assert_eq!(stored.len(), 5 + 900 + 320);
        let counts = rig.ledger.with(|ledger| ledger.counts());
        assert_eq!((counts.begun, counts.complete, counts.persisted, counts.lost), (1225, 1225, 1225, 0));
        rig.expect_proven(&stored);
    }
}

#[tokio::test(start_paused = true)]
async fn a_box_killed_in_an_outage_sends_what_waited_once_and_goes_on() {
    for proof in [ProofMode::Off, ProofMode::Continuous] {
        for fragments in [3, 40, 700] {
            let mut rig = Rig::start(Setting { proof, ..with_spool() }).await;
            let mut finished = Finished::new();
            rig.film(10).await;
            away(&rig);
            rig.film(fragments).await;
            note_finished(&rig, &mut finished);
            rig.kill().await;
            rig.kvs.faults().clear();
            rig.begin_again();
            rig.film(20 + fragments / 3).await;
            note_finished(&rig, &mut finished);
            let stored = rig.end().await;
            note_finished(&rig, &mut finished);
            expect_stored_once(&stored, &finished, &format!("{fragments}"));
            assert_eq!((rig.unconfirmed, rig.report.borrow().lost), (Some(0), 0));
            let counts = rig.ledger.with(|ledger| ledger.counts());
            // Some were in KVS before the outage; whoever was not is counted in the life that sends it.
            assert!(counts.persisted >= fragments + 20 + fragments / 3, "{counts:?}");
            assert_eq!((counts.complete, counts.lost), (counts.persisted, 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_kill_loses_a_finished_fragment_or_stores_one_twice() {
    for (late_disk, kills) in [(false, 150), (true, 60)] {
        // Some kills hit a drain, some an outage, some a session whose acks are gone.
        let mut rig = Rig::start(Setting { late_disk, ..with_spool() }).await;
        let (mut finished, mut random) = (Finished::new(), 0x9e37_79b9_7f4a_7c15_u64);
        for kill in 0..kills {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let pick = |below: u64| (random >> 33) % below;
            match pick(5) {
                0 => rig.inject(FaultKind::DropAck { ack: Some(AckKind::Persisted), count: 3 }),
                1 => rig.inject(FaultKind::CutPutMedia { after_bytes: pick(7000) }),
                2 => away(&rig),
                _ => {}
            }
            rig.film_pictures(1 + pick(90)).await;
            note_finished(&rig, &mut finished);
            rig.kill().await;
            if pick(3) > 0 {
                rig.kvs.faults().clear();
            }
            rig.begin_again();
            assert!(rig.spool.as_ref().is_some_and(|spool| spool.found().is_empty()), "kill {kill}");
        }
        rig.kvs.faults().clear();
        rig.film(300).await;
        note_finished(&rig, &mut finished);
        let stored = rig.end().await;
        note_finished(&rig, &mut finished);
        expect_stored_once(&stored, &finished, &format!("after {kills} kills"));
        assert_eq!(rig.report.borrow().lost, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_of_the_upload_costs_what_was_not_on_disk() {
    let mut rig = Rig::start(with_spool()).await;
    rig.film(10).await;
    rig.network.crash_next();
    rig.inject(FaultKind::CutPutMedia { after_bytes: 0 });
    rig.film(30).await;
    let report = rig.report.borrow().clone();
    assert_eq!(report.crashes, 1, "{report:?}");
    let stored = rig.end().await;
    let lost = rig.lost();
    assert_eq!(lost.len(), 1, "the one that grew");
    assert_eq!(rig.report.borrow().lost, 1);
    let gaps: Vec<_> = rig.ledger.with(|ledger| ledger.gaps().map(|gap| gap.reason.clone()).collect());
    assert_eq!(gaps, [LossReason::Crashed]);
    let mut finished = Finished::new();
    note_finished(&rig, &mut finished);
    expect_stored_once(&stored, &finished, "after the crash");
}

#[cfg(debug_assertions)]
#[tokio::test(start_paused = true)]
async fn a_crash_of_the_upload_loses_no_fragment_that_is_finished_and_not_on_disk_yet() {
    let camera = "armed";
    let mut rig = Rig::start(Setting { camera, ..with_spool() }).await;
    rig.film(10).await;
    away(&rig);
    let mut finished = Finished::new();
    for crash in 1..=3 {
        rig.film(70).await;
        // At the end of the next fragment, before anybody asks the disk for it.
        kvs_edge::fault::arm(kvs_edge::fault::Stage::Upload, camera);
        rig.film(20).await;
        assert_eq!(rig.report.borrow().crashes, crash);
    }
    rig.kvs.faults().clear();
    rig.film(200).await;
    let stored = rig.end().await;
    note_finished(&rig, &mut finished);
    expect_stored_once(&stored, &finished, "after the crashes");
    assert_eq!(rig.lost().len(), 3, "each time the one that grew");
    let gaps: Vec<_> = rig.ledger.with(|ledger| ledger.gaps().map(|gap| gap.reason.clone()).collect());
    assert_eq!(gaps, [LossReason::Crashed, LossReason::Crashed, LossReason::Crashed]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_without_a_network_leaves_the_rest_on_disk_and_calls_nothing_lost() {
    let mut rig = Rig::start(with_spool()).await;
    let mut finished = Finished::new();
    rig.film(10).await;
    away(&rig);
    rig.film(60).await;
    rig.end_upload().await;
    assert_eq!((rig.unconfirmed, rig.ledger.with(|ledger| ledger.gaps().count())), (Some(0), 0));
    note_finished(&rig, &mut finished);
    rig.kill().await;
    rig.kvs.faults().clear();
    rig.begin_again();
    rig.film(40).await;
    let stored = rig.end().await;
    note_finished(&rig, &mut finished);
    expect_stored_once(&stored, &finished, "after the stop");
    // The last fragment of a stop is finished too.
    assert_eq!(stored.iter().map(|one| one.blocks).sum::<u64>(), 110 * 5);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_is_told_and_the_upload_goes_on_from_memory() {
    for kind in [ErrorKind::StorageFull, ErrorKind::ReadOnlyFilesystem, ErrorKind::Other] {
        let mut rig = Rig::start(with_spool()).await;
        let problem = rig.spool.as_ref().expect("there is one").problem();
        rig.film(10).await;
        assert_eq!(*problem.borrow(), None);
        rig.disk.break_with(kind);
        rig.film(30).await;
        let told = problem.borrow().clone().expect("told");
        assert_eq!(told.reason, Reason::DiskFailed);
        assert!(told.fix.is_some() && told.found.contains("0000000"), "what, where, and what to do: {told}");
        assert_eq!((rig.report.borrow().lost, rig.sessions()), (0, 1), "{kind}");
        rig.disk.mend();
        rig.film(80).await;
        assert_eq!(*problem.borrow(), None, "{kind}");
        rig.expect_all_kept().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_in_an_outage_costs_what_memory_does_not_hold_and_nothing_that_it_took() {
    let mut rig = Rig::start(with_spool()).await;
    rig.film(5).await;
    away(&rig);
    rig.film(50).await;
    rig.disk.break_with(ErrorKind::ReadOnlyFilesystem);
    rig.film(100).await;
    let report = rig.report.borrow().clone();
    assert!(report.lost > 50 && report.lost < 100, "{report:?}");
    rig.disk.mend();
    rig.kvs.faults().clear();
    rig.film(100).await;
    let stored = rig.end().await;
    let lost = rig.lost();
    rig.expect_gaps(&stored, &LossReason::WindowFull, &lost);
}

#[tokio::test(start_paused = true)]
async fn a_full_spool_gives_the_oldest_up_and_tells_which_and_why() {
    let full: fn(&mut store::Options) = |options| (options.bytes, options.segment_bytes) = (100_000, 10_000);
    for outage in [200, 900] {
        let mut rig = Rig::start(Setting { spool: Some(full), ..with_spool() }).await;
        rig.film(5).await;
        away(&rig);
        rig.film(outage).await;
        let report = rig.report.borrow().clone();
        assert!(report.lost > 50 && report.backlog.fragments > 20, "{report:?}");
        let counted = report.lost + report.backlog.fragments as u64 + report.persisted;
        // The backlog is told with each end of a fragment and with each attempt to connect; then it has the one that grows.
        let begun = rig.ledger.with(|ledger| ledger.counts()).begun;
        assert!([report.complete, begun].contains(&counted), "{counted} of {begun}: {report:?}");
        rig.kvs.faults().clear();
        rig.film(150).await;
        let stored = rig.end().await;
        let counts = rig.ledger.with(|ledger| ledger.counts());
        assert_eq!(counts.persisted, stored.len() as u64, "nothing twice");
        assert_eq!(counts.persisted + counts.lost, counts.complete);
        let gaps: Vec<_> = rig.ledger.with(|ledger| ledger.gaps().cloned().collect());
        assert!(gaps.iter().all(|gap| gap.reason == LossReason::SpoolFull), "{gaps:?}");
        assert_eq!(gaps.iter().map(|gap| gap.fragments).sum::<u64>(), counts.lost);
        let inside = |one: &Stored| {
            gaps.iter().any(|gap| (gap.start.as_millis()..=gap.end.as_millis()).contains(&one.timecode_ms))
        };
        assert!(!stored.iter().any(inside), "a gap holds nothing that is stored");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stopped_recording_leaves_the_oldest_on_disk() {
    let full: fn(&mut store::Options) = |options| {
        (options.bytes, options.segment_bytes) = (60_000, 10_000);
        options.when_full = store::WhenFull::StopRecording;
    };
    let mut rig = Rig::start(Setting { spool: Some(full), ..with_spool() }).await;
    let problem = rig.spool.as_ref().expect("there is one").problem();
    rig.film(5).await;
    away(&rig);
    rig.film(200).await;
    assert_eq!(problem.borrow().clone().map(|problem| problem.reason), Some(Reason::BacklogFull));
    rig.kvs.faults().clear();
    rig.film(100).await;
    assert_eq!(*problem.borrow(), None);
    let stored = rig.end().await;
    // The first of the outage are there, and what came after it.
    let start = stored[0].timecode_ms;
    let kept: Vec<_> = stored.iter().map(|one| (one.timecode_ms - start) / 1000).collect();
    assert!((0..25).all(|second| kept.contains(&second)), "{kept:?}");
    // Half a minute passes until the next attempt to connect.
    assert!((240..305).all(|second| kept.contains(&second)), "{kept:?}");
    let lost = rig.lost();
    rig.expect_gaps(&stored, &LossReason::WindowFull, &lost);
}

#[tokio::test(start_paused = true)]
async fn footage_that_rots_on_disk_is_a_gap_with_its_reason_and_costs_only_itself() {
    let mut rig = Rig::start(with_spool()).await;
    let mut finished = Finished::new();
    rig.film(5).await;
    away(&rig);
    rig.film(60).await;
    note_finished(&rig, &mut finished);
    rig.kill().await;
    let segments: Vec<_> = rig.disk.paths();
    rig.disk.damage(&segments[0], |bytes| {
        // The body of a record in the middle: its last bytes stand in front of the next record.
        let at = bytes
            .windows(4)
            .enumerate()
            .filter(|(_, four)| four == b"\xf7KSR")
            .nth(30)
            .expect("30 of them")
            .0;
        bytes[at - 3] ^= 0x40;
    });
    rig.kvs.faults().clear();
    rig.begin_again();
    rig.film(SECOND.as_secs() * 40).await;
    let stored = rig.end().await;
    note_finished(&rig, &mut finished);
    let lost = rig.lost();
    assert_eq!(lost.len(), 1, "{lost:?}");
    finished.remove(&lost[0]);
    expect_stored_once(&stored, &finished, "all but one");
    let gaps: Vec<_> = rig.ledger.with(|ledger| ledger.gaps().map(|gap| gap.reason.clone()).collect());
    assert_eq!(gaps, [LossReason::SpoolDamaged]);
}

#[tokio::test(start_paused = true)]
async fn confirmations_that_nobody_could_write_down_make_no_duplicate_however_many_they_are() {
    let mut rig = Rig::start(Setting { window_bytes: 64 << 20, ..with_spool() }).await;
    let mut finished = Finished::new();
    rig.film(5).await;
    away(&rig);
    rig.film(900).await;
    note_finished(&rig, &mut finished);
    // The disk can be read, and takes nothing more: what KVS confirms is known to this process alone.
    rig.disk.break_with(ErrorKind::ReadOnlyFilesystem);
    rig.kvs.faults().clear();
    rig.clock.sleep(170 * SECOND).await;
    let sent = rig.ledger.with(|ledger| ledger.counts()).persisted;
    assert!(sent > 660 && sent < 890, "{sent}");
    rig.kill().await;
    rig.lose_index();
    rig.disk.mend();
    rig.begin_again();
    rig.film(80).await;
    note_finished(&rig, &mut finished);
    let stored = rig.end().await;
    note_finished(&rig, &mut finished);
    expect_stored_once(&stored, &finished, "confirmed and forgotten");
    assert_eq!(rig.report.borrow().lost, 0);
}

#[tokio::test(start_paused = true)]
async fn a_spool_that_panics_or_does_not_open_at_first_costs_nothing_while_kvs_is_there() {
    let mut rig = Rig::start(with_spool()).await;
    rig.film(10).await;
    for _ in 0..3 {
        rig.disk.plan(rig.disk.changes(), store::testing::Trouble::Panic);
        rig.film(20).await;
    }
    let problem = rig.spool.as_ref().expect("there is one").problem();
    assert_eq!(*problem.borrow(), None, "open again");
    let mut finished = Finished::new();
    note_finished(&rig, &mut finished);
    rig.kill().await;
    rig.disk.unreadable(true);
    rig.begin_again();
    let problem = rig.spool.as_ref().expect("there is one").problem();
    rig.film(10).await;
    assert_eq!(problem.borrow().as_ref().map(|problem| problem.reason), Some(Reason::DiskFailed));
    rig.disk.unreadable(false);
    rig.film(60).await;
    assert_eq!(*problem.borrow(), None);
    let before = rig.sessions();
    note_finished(&rig, &mut finished);
    let stored = rig.end().await;
    note_finished(&rig, &mut finished);
    expect_stored_once(&stored, &finished, "in the end");
    assert_eq!(rig.report.borrow().lost, 0);
    assert!(before <= 3, "{before}");
}

#[tokio::test(start_paused = true)]
async fn a_fragment_that_kvs_will_never_take_is_set_aside_told_and_exported_and_never_sent_again() {
    // Nothing stays that KVS has.
    let spool = |options: &mut store::Options| {
        options.keep = Duration::ZERO;
        options.segment_bytes = 5_000;
    };
    let mut rig =
        Rig::start(Setting { window_bytes: WINDOW, spool: Some(spool), ..Setting::default() }).await;
    rig.film(20).await;
    rig.inject(FaultKind::AckError { id: 4002, fragment: 1, at: kvs_local::At::End });
    rig.film(30).await;
    let refused = rig.acks(AckKind::Error)[0].timecode.expect("it is named").unsigned_abs();
    let gaps: Vec<_> = rig.ledger.with(|ledger| ledger.gaps().cloned().collect());
    assert_eq!(gaps.len(), 1);
    assert!(gaps[0].reason.to_string().contains("4002"), "{gaps:?}");
    let sessions = rig.sessions();
    // Over a restart without an index, too.
    rig.kill().await;
    rig.lose_index();
    rig.begin_again();
    rig.film(120).await;
    assert_eq!(rig.acks(AckKind::Error).len(), 1, "it is not tried again");
    assert!(rig.sessions() <= sessions + 2, "{}", rig.sessions());
    rig.end().await;
    let (on_disk, set_aside) = rig.disk_footage();
    assert_eq!(set_aside, 1);
    assert!(on_disk.contains(&refused), "{refused}: {on_disk:?}");
    assert!(on_disk.len() < 20, "all else is gone but for its segment: {on_disk:?}");
}
