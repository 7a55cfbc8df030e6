//! The upload of one camera against a server in memory, on paused time: minutes of footage and of trouble in milliseconds.

#[path = "upload/choice.rs"]
mod choice;
#[path = "upload/records.rs"]
mod records;
#[path = "upload/spool.rs"]
mod spool;
#[path = "upload/troubles.rs"]
mod troubles;
mod upload_rig;

use std::collections::BTreeSet;
use std::time::Duration;

use health::Reason;
use kvs::ack::{AckError, Reaction};
use kvs::ledger::LossReason;
use kvs::proof::schedule::ProofMode;
use kvs_edge::record::UploadState;
use kvs_local::{AckKind, At, FaultKind};
use upload_rig::{Rig, Setting};

const SECOND: Duration = Duration::from_secs(1);

/// The upload has to do without the proof, and beside it.
const BOTH: [ProofMode; 2] = [ProofMode::Off, ProofMode::Continuous];

#[tokio::test(start_paused = true)]
async fn everything_is_kept_as_it_was_recorded() {
    let mut rig = Rig::start(Setting::default()).await;
    rig.film(30).await;
    let report = rig.report.borrow().clone();
    assert_eq!((report.state, report.sessions, report.problem), (UploadState::Sending, 1, None));
    rig.expect_all_kept().await;
}

#[tokio::test(start_paused = true)]
async fn each_error_ack_gets_its_reaction_and_the_upload_goes_on() {
    for (id, proof) in AckError::known_ids().flat_map(|id| BOTH.map(|proof| (id, proof))) {
        let error = AckError::from_id(id);
        let mut rig = Rig::start(Setting { proof, ..Setting::default() }).await;
        rig.film(5).await;
        rig.inject(FaultKind::AckError { id, fragment: 1, at: At::End });
        let mut states = BTreeSet::new();
        let mut told = false;
        let operator = error.reaction() == Reaction::Stop;
        for _ in 0..if operator { 40 } else { 8 } {
            rig.film(1).await;
            let report = rig.report.borrow().clone();
            states.insert(format!("{:?}", report.state));
            told |=
                report.problem.is_some_and(|problem| problem.found.contains(&format!("{id} {}", error.code)));
        }
        assert_eq!(rig.report.borrow().error_acks, 1, "{id}");
        assert_eq!(states.contains("Failed"), operator, "{id}: {states:?}");
        // What belongs to normal operation is nobody's business; everything else is told.
        assert_eq!(told, error.needs_attention(), "{id}");
        let refused = rig.acks(AckKind::Error)[0].timecode.expect("it names its fragment").unsigned_abs();
        if error.reaction() == Reaction::Skip {
            let stored = rig.end().await;
            rig.expect_gaps(&stored, &LossReason::Refused(error), &[refused]);
        } else {
            let without_tag = rig.expect_all_kept().await.into_iter().filter(|stored| !stored.has_tag);
            let without_tag: Vec<_> = without_tag.map(|stored| stored.timecode_ms).collect();
            assert_eq!(without_tag, Vec::from_iter((id == 4009).then_some(refused)), "{id}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn broken_connections_and_odd_acks_cost_nothing_and_store_nothing_twice() {
    let persisted = Some(AckKind::Persisted);
    let cut = || FaultKind::CutPutMedia { after_bytes: 0 };
    let garbage = |text: &str| FaultKind::GarbageAck { bytes: text.as_bytes().to_vec() };
    let refuse = |error_type: &str, status, count| FaultKind::RefusePutMedia {
        error_type: error_type.to_owned(),
        status,
        count,
    };
    let cases = [
        ("cut", vec![cut()], false),
        ("cut in the middle", vec![FaultKind::CutPutMedia { after_bytes: 4_321 }], false),
        (
            "cut again and again",
            (0..6).map(|n| FaultKind::CutPutMedia { after_bytes: n * 700 }).collect(),
            false,
        ),
        (
            "ack lost, then cut",
            vec![
                FaultKind::DropAck { ack: persisted, count: 1 },
                FaultKind::CutPutMedia { after_bytes: 6_000 },
            ],
            false,
        ),
        (
            "acks lost, then cut",
            vec![FaultKind::DropAck { ack: None, count: 9 }, FaultKind::CutPutMedia { after_bytes: 9_000 }],
            false,
        ),
        ("ack lost", vec![FaultKind::DropAck { ack: persisted, count: 1 }], true),
        ("acks lost", vec![FaultKind::DropAck { ack: None, count: 60 }], false),
        ("acks late", vec![FaultKind::DelayAck { ack: persisted, delay_ms: 3000, count: 2 }], true),
        ("acks twice", vec![FaultKind::DuplicateAck { ack: None, count: 6 }], true),
        ("garbage", vec![garbage("<html>502</html>")], false),
        ("half an ack", vec![garbage("{\"EventType\":\"PERSI")], false),
        ("an unknown ack", vec![garbage("{\"EventType\":\"ARCHIVED\",\"FragmentTimecode\":1}\n")], true),
        ("refused", vec![refuse("InternalFailure", 500, 3), cut()], false),
        ("another is connected", vec![refuse("ConnectionLimitExceededException", 400, 5), cut()], false),
    ];
    for ((case, faults, one_session), proof) in cases.iter().flat_map(|case| BOTH.map(|proof| (case, proof)))
    {
        let mut rig = Rig::start(Setting { ack_timeout: SECOND * 5, proof, ..Setting::default() }).await;
        rig.film(5).await;
        faults.iter().for_each(|fault| rig.inject(fault.clone()));
        rig.film(50).await;
        assert_eq!(rig.kvs.faults().waiting(), [], "{case}");
        assert_eq!(rig.sessions() == 1, *one_session, "{case}: {} sessions", rig.sessions());
        if (*case, proof) == ("ack lost", ProofMode::Off) {
            assert!(rig.looks() > 0, "the upload asks whether the fragment is there, in the same session");
        }
        rig.expect_all_kept().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_reading_is_given_up_and_nothing_is_lost() {
    for (write_timeout, ack_timeout, limit) in [(5, 60, 5), (600, 30, 30)] {
        let (write_timeout, ack_timeout) = (SECOND * write_timeout, SECOND * ack_timeout);
        let mut rig = Rig::start(Setting { write_timeout, ack_timeout, ..Setting::default() }).await;
        rig.film(5).await;
        rig.network.freeze();
        let begun = rig.clock.now();
        // Pictures go on all the time: something is always pending.
        while rig.report.borrow().reconnects.count(rig.clock.now()) == 0 {
            rig.film(1).await;
            assert!(rig.clock.since(begun) < SECOND * (limit + 10), "still the same connection");
        }
        let problem = rig.report.borrow().problem.clone().expect("it is told");
        assert!(problem.found.contains("took no byte") || problem.found.contains("no ack"), "{problem}");
        rig.film(30).await;
        assert_eq!(rig.report.borrow().state, UploadState::Sending);
        rig.expect_all_kept().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_service_fills_the_window_and_is_not_broken() {
    for proof in BOTH {
        let mut rig = Rig::start(Setting { proof, ..Setting::default() }).await;
        rig.film(5).await;
        rig.inject(FaultKind::SlowReader { pause_ms: 900 });
        rig.film(40).await;
        assert!(rig.report.borrow().backlog.fragments > 5, "{:?}", rig.report.borrow().backlog);
        assert!(rig.report.borrow().backlog.bytes > 0, "{:?}", rig.report.borrow().backlog);
        rig.kvs.faults().clear();
        rig.film(20).await;
        assert_eq!((rig.sessions(), rig.dropped), (1, 0), "slow is not broken, and the camera never waits");
        assert_eq!(rig.report.borrow().reconnects.count(rig.clock.now()), 0);
        rig.expect_all_kept().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_window_loses_the_oldest_footage_and_tells_which_and_why() {
    for proof in BOTH {
        let mut rig = Rig::start(Setting { window_bytes: 20_000, proof, ..Setting::default() }).await;
        rig.film(5).await;
        rig.inject(FaultKind::RefusePutMedia {
            error_type: "ServiceUnavailable".to_owned(),
            status: 503,
            count: 10_000,
        });
        rig.inject(FaultKind::CutPutMedia { after_bytes: 0 });
        rig.film(60).await;
        let report = rig.report.borrow().clone();
        assert!(report.lost > 10 && report.backlog.bytes <= 20_000, "{report:?}");
        let problem = report.problem.expect("told");
        assert_eq!(problem.reason, Reason::UploadFailed, "the cause, not the effect: {problem}");
        rig.kvs.faults().clear();
        rig.film(60).await;
        let stored = rig.end().await;
        let lost = rig.lost();
        rig.expect_gaps(&stored, &LossReason::WindowFull, &lost);
        assert_eq!(rig.ledger.with(|ledger| ledger.gaps().filter(|gap| !gap.closed).count()), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_lags_stores_nothing_twice() {
    for proof in BOTH {
        let mut rig = Rig::start(Setting { list_lag: SECOND * 3 / 2, proof, ..Setting::default() }).await;
        for _ in 0..4 {
            rig.film(5).await;
            // The fragment is kept and its ack gone; then the connection breaks.
            rig.inject(FaultKind::DropAck { ack: Some(AckKind::Persisted), count: 1 });
            rig.film(2).await;
            rig.inject(FaultKind::CutPutMedia { after_bytes: 0 });
            rig.film(8).await;
        }
        assert!(rig.sessions() >= 5, "{}", rig.sessions());
        rig.expect_all_kept().await;
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_refuses_is_named_and_taken_once_it_is_right() {
    let wrong_key = Setting { secret: "not-the-secret".to_owned(), ..Setting::default() };
    let unknown_key = Setting { access_key: "AKIDNOBODY".to_owned(), ..Setting::default() };
    let missing = Setting { retention_h: None, ..Setting::default() };
    let keeps_nothing = Setting { retention_h: Some(0), ack_timeout: SECOND * 5, ..Setting::default() };
    let skewed = Setting { clock_ahead: SECOND * 3600, ..Setting::default() };
    let cases = [
        (wrong_key, Reason::Credentials, "signature", UploadState::Failed),
        (unknown_key, Reason::Credentials, "key", UploadState::BackingOff),
        (missing, Reason::StreamMissing, "cam", UploadState::Failed),
        (keeps_nothing, Reason::StreamSettings, "retention", UploadState::Failed),
        (skewed, Reason::ClockSkew, "RequestTimeTooSkewed", UploadState::BackingOff),
    ];
    let cases = cases.into_iter().flat_map(|case| BOTH.map(|proof| (case.clone(), proof)));
    for ((setting, reason, word, state), proof) in cases {
        let mut rig = Rig::start(Setting { proof, ..setting }).await;
        let mut seen = None;
        for _ in 0..60 {
            rig.film(1).await;
            let report = rig.report.borrow().clone();
            seen = seen.or(report
                .problem
                .filter(|problem| problem.reason == reason)
                .map(|problem| (problem, report.state)));
            if seen.is_some() {
                break;
            }
        }
        let (problem, found) = seen.unwrap_or_else(|| panic!("{reason}: {:?}", rig.report.borrow()));
        assert!(problem.to_string().contains(word), "{problem}");
        assert!(rig.report.borrow().persisted == 0 || reason == Reason::ClockSkew, "{reason}");
        assert!(found == state || reason == Reason::ClockSkew, "{problem}: {found:?}");
        rig.make_right().await;
        // What only an operator can mend is tried again each two minutes.
        rig.film(150).await;
        assert_eq!(rig.report.borrow().problem, None, "{reason}");
        rig.expect_all_kept().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_in_the_cloud_holds_the_upload_up_and_loses_nothing() {
    let mut rig = Rig::start(Setting { disk_limit_bytes: Some(45_000), ..Setting::default() }).await;
    rig.film(25).await;
    let problem = rig.report.borrow().problem.clone().expect("told");
    assert!(problem.found.contains("5001") && problem.reason == Reason::UploadFailed, "{problem}");
    let removed = rig.remove_all_stored().await;
    rig.film(10).await;
    let stored = rig.end().await.len() as u64;
    let counts = rig.ledger.with(|ledger| ledger.counts());
    assert_eq!((counts.complete, counts.persisted, counts.lost), (35, 35, 0));
    assert_eq!(counts.persisted, removed + stored, "nothing is stored twice");
}

#[tokio::test(start_paused = true)]
async fn a_network_that_is_away_costs_nothing_that_fits_the_window() {
    let mut rig = Rig::start(Setting::default()).await;
    rig.network.down(true);
    rig.film(120).await;
    let problem = rig.report.borrow().problem.clone().expect("told");
    assert!(problem.found.contains("no connection"), "{problem}");
    rig.network.down(false);
    rig.film(60).await;
    rig.expect_all_kept().await;
}

#[tokio::test(start_paused = true)]
async fn a_step_of_the_wall_clock_breaks_no_session() {
    let mut rig = Rig::start(Setting::default()).await;
    rig.film(10).await;
    for step_s in [-40_i64, 200, -3600] {
        let wall = rig.clock.wall();
        let step = SECOND * u32::try_from(step_s.unsigned_abs()).expect("small");
        rig.clock.step_to(if step_s < 0 { wall - step } else { wall + step });
        rig.film(10).await;
    }
    assert_eq!((rig.sessions(), rig.report.borrow().reconnects.count(rig.clock.now())), (1, 0));
    rig.expect_all_kept().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_of_the_upload_is_a_gap_and_the_camera_goes_on() {
    for proof in BOTH {
        let mut rig = Rig::start(Setting { proof, ..Setting::default() }).await;
        rig.film(10).await;
        rig.network.crash_next();
        rig.inject(FaultKind::CutPutMedia { after_bytes: 0 });
        rig.film(30).await;
        let report = rig.report.borrow().clone();
        assert_eq!((report.crashes, report.state, report.problem), (1, UploadState::Sending, None));
        let stored = rig.end().await;
        let lost = rig.lost();
        assert!(!lost.is_empty() && report.lost == lost.len() as u64, "{lost:?}");
        let counts = rig.ledger.with(|ledger| ledger.counts());
        assert_eq!(
            (counts.begun, counts.persisted),
            (stored.len() as u64 + report.lost, stored.len() as u64)
        );
        let gaps = rig.ledger.with(|ledger| ledger.gaps().map(|gap| gap.reason.clone()).collect::<Vec<_>>());
        assert_eq!(gaps, [LossReason::Crashed], "one gap, and it has a reason");
        rig.expect_proven(&stored);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_without_a_network_ends_within_its_grace_and_tells_the_gap() {
    let mut rig = Rig::start(Setting::default()).await;
    rig.film(10).await;
    rig.network.down(true);
    rig.film(10).await;
    let begun = rig.clock.now();
    rig.end_upload().await;
    assert!(rig.clock.since(begun) <= SECOND * 11, "{:?}", rig.clock.since(begun));
    let gaps = rig
        .ledger
        .with(|ledger| ledger.gaps().map(|gap| (gap.reason.clone(), gap.fragments)).collect::<Vec<_>>());
    assert_eq!(gaps, [(LossReason::Stopped, rig.unconfirmed.expect("it ended") as u64)]);
    assert_eq!(rig.ledger.with(|ledger| ledger.unsettled().count()), 0);
}

#[tokio::test(start_paused = true)]
async fn the_pulse_beats_while_nothing_happens() {
    let rig = Rig::start(Setting::default()).await;
    for _ in 0..20 {
        rig.clock.sleep(SECOND * 7).await;
        let (name, age) = rig.pulses.oldest().expect("one pulse");
        assert!(age <= SECOND * 2, "{name}: {age:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_deleted_in_mid_upload_is_told_and_what_comes_is_kept_once_it_is_there_again() {
    for spool in [None, Some((|_| ()) as fn(&mut store::Options))] {
        let mut rig = Rig::start(Setting { spool, ..Setting::default() }).await;
        rig.film(20).await;
        rig.delete_stream().await;
        rig.film(40).await;
        let problem = rig.report.borrow().told().cloned().expect("told");
        assert_eq!(problem.reason, Reason::StreamMissing, "{problem}");
        assert!(problem.to_string().contains("stream"), "{problem}");
        assert_eq!(rig.report.borrow().state, UploadState::Failed);
        rig.make_right().await;
        rig.film(150).await;
        assert_eq!(rig.report.borrow().told(), None);
        let stored = rig.end().await;
        // What was there is gone with the stream, and nobody calls what waited lost.
        let counts = rig.ledger.with(|ledger| ledger.counts());
        assert_eq!((counts.persisted, counts.lost), (counts.complete, 0));
        let kept_before = counts.persisted - stored.len() as u64;
        assert!((15..=22).contains(&kept_before), "{kept_before}");
        assert!(stored.is_sorted_by(|a, b| a.timecode_ms < b.timecode_ms));
    }
}
