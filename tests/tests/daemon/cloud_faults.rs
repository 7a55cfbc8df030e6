//! KVS misbehaves: what is uploaded stays whole, and what cannot be is named.

use std::collections::{BTreeMap, BTreeSet};

use kvs::ack::{AckError, Reaction};
use kvs_edge_tests::{Camera, Rig, Stored, eventually};
use kvs_local::{AckKind, At, Connections, Fault, FaultKind, SentAck};
use messages::{CameraState, Reason, Upload, UploadState, Verdict, Verify, VerifyMethod};

/// Between two pictures of a small clip, and a little more.
const PICTURE_MS: u64 = 150;

fn inject(rig: &Rig, stream: &str, kind: FaultKind) {
    rig.kvs.local().faults().inject(Fault::on(stream, kind));
}

/// Waits until no fault of the stream is left.
async fn used_up(rig: &Rig, stream: &str) {
    let waits = || rig.kvs.local().faults().waiting();
    eventually(&format!("use of the fault on {stream}"), async || {
        waits().iter().all(|fault| fault.stream.as_deref() != Some(stream)).then_some(())
    })
    .await;
}

fn acks(rig: &Rig, stream: &str, kind: AckKind) -> Vec<SentAck> {
    let acks = rig.kvs.local().acks(stream).expect("the rig made the stream");
    acks.into_iter().filter(|ack| ack.event == kind).collect()
}

fn sessions(rig: &Rig, stream: &str) -> u64 {
    rig.kvs.local().connections(stream).expect("the rig made the stream").put_media_ever
}

fn connections(rig: &Rig, stream: &str) -> Connections {
    rig.kvs.local().connections(stream).expect("the rig made the stream")
}

fn uploads(rig: &Rig, camera: &str) -> Vec<Upload> {
    rig.mqtt.bodies(&rig.mqtt.topics.upload(camera))
}

/// (end of the fragment before, start of the one behind) of each stretch that is not stored.
fn holes(stored: &[Stored]) -> Vec<(u64, u64)> {
    let end = |fragment: &Stored| fragment.blocks.iter().map(|block| block.time_ms).max().unwrap_or(0);
    let ends: Vec<_> = stored.iter().map(|fragment| (end(fragment), fragment.timecode_ms())).collect();
    let holes = ends.windows(2).map(|two| (two[0].0, two[1].1));
    holes.filter(|(end, start)| *start > end + PICTURE_MS).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn acks_that_fail_or_are_odd_and_connections_that_break_cost_nothing_and_store_nothing_twice() {
    let (ids, cases) = (error_ids(), broken());
    let mut builder = Rig::builder();
    for id in &ids {
        builder = builder.camera(Camera::new(&of_error(*id)));
    }
    for case in &cases {
        // The connection is given up once nothing at all is heard for so long, and one missing ack is asked for.
        let camera = Camera::new(case.camera);
        builder = builder.camera(match case.ack_timeout_s {
            Some(seconds) => camera.set("upload.ack_timeout_s", &seconds.to_string()),
            None => camera,
        });
    }
    let Some(rig) = builder.start().await else { return };
    let (refused, ()) = tokio::join!(inject_errors(&rig, &ids), break_connections(&rig, &cases));
    rig.stop().await;
    for (id, timecode_ms) in refused {
        check_error(&rig, id, timecode_ms).await;
    }
    for case in &cases {
        rig.expect_everything_proven(case.camera).await.expect_no_picture_missing();
        assert_eq!(sessions(&rig, case.camera) == 1, case.one_session, "{}", case.camera);
    }
}

fn error_ids() -> Vec<u32> {
    AckError::known_ids().collect()
}

fn of_error(id: u32) -> String {
    format!("e{id}")
}

/// Timecodes of the fragments that were refused, by error; returns when the upload went on.
async fn inject_errors(rig: &Rig, ids: &[u32]) -> BTreeMap<u32, u64> {
    for id in ids {
        rig.fragments(&of_error(*id), 2).await;
        inject(rig, &of_error(*id), FaultKind::AckError { id: *id, fragment: 1, at: At::End });
    }
    let mut refused = BTreeMap::new();
    for id in ids {
        let what = format!("error ack {id}");
        let error =
            eventually(&what, async || acks(rig, &of_error(*id), AckKind::Error).into_iter().next()).await;
        assert_eq!(error.error_id, Some(*id));
        refused
            .insert(*id, u64::try_from(error.timecode.expect("it names its fragment")).expect("after 1970"));
    }
    for (id, timecode_ms) in &refused {
        if AckError::from_id(*id).reaction() == Reaction::Stop {
            // Tried again seldom, and once more at a stop.
            let failed = |upload: &Upload| upload.state == UploadState::Failed;
            let failed: Upload = rig.mqtt.wait(&rig.mqtt.topics.upload(&of_error(*id)), failed).await;
            assert_eq!(failed.reason, Some(Reason::UploadFailed), "{failed:#?}");
            continue;
        }
        // Two later ones: the first may have been under way.
        eventually(&format!("upload after error {id}"), async || {
            let persisted = acks(rig, &of_error(*id), AckKind::Persisted);
            let later = |ack: &&SentAck| ack.timecode.unwrap_or(0).unsigned_abs() > *timecode_ms;
            (persisted.iter().filter(later).count() >= 2).then_some(())
        })
        .await;
    }
    refused
}

async fn check_error(rig: &Rig, id: u32, timecode_ms: u64) {
    let (camera, error) = (of_error(id), AckError::from_id(id));
    let said = uploads(rig, &camera);
    let told = said.iter().any(|upload| {
        upload.detail.as_ref().is_some_and(|detail| detail.contains(&format!("{id} {}", error.code)))
    });
    let failed = said.iter().any(|upload| upload.state == UploadState::Failed);
    assert_eq!(failed, error.reaction() == Reaction::Stop, "{id}: {said:#?}");
    // What belongs to normal operation is nobody's business; everything else is told.
    assert_eq!(told, error.needs_attention(), "{id} in a message: {said:#?}");
    if error.reaction() == Reaction::Skip {
        expect_one_lost(rig, &camera, timecode_ms).await;
        return;
    }
    let footage = rig.expect_everything_proven(&camera).await;
    footage.expect_no_picture_missing();
    let without_tag: BTreeSet<_> =
        footage.stored.iter().filter(|s| s.chunk.identity().is_none()).map(Stored::timecode_ms).collect();
    let expected = BTreeSet::from_iter((id == 4009).then_some(timecode_ms));
    assert_eq!(without_tag, expected, "{id}: fragments without their tag");
}

/// Exactly the fragment at `timecode_ms` is not stored, and the last message says so.
async fn expect_one_lost(rig: &Rig, camera: &str, timecode_ms: u64) {
    let stored = rig.kvs.stored(camera).await;
    let upload: Upload = rig.mqtt.last(&rig.mqtt.topics.upload(camera));
    let counts = (upload.fragments_lost, upload.fragments_sent, upload.fragments_persisted);
    let persisted = stored.len() as u64;
    assert_eq!(counts, (1, persisted + 1, persisted), "{camera}: lost, sent, persisted: {upload:#?}");
    let [gap] = &upload.gaps[..] else { panic!("{camera}: {upload:#?}") };
    assert_eq!((gap.start.as_millis(), gap.reason), (timecode_ms, Reason::UploadFailed), "{camera}");
    let holes = holes(&stored);
    let [(before, behind)] = holes[..] else { panic!("{camera}: {holes:?}") };
    let end = gap.end.expect("the fragment is over").as_millis();
    assert!((1..=PICTURE_MS).contains(&(timecode_ms - before)), "{camera}: {before} .. {timecode_ms}");
    assert!((1..=PICTURE_MS).contains(&(behind - end)), "{camera}: {end} .. {behind}");
    let verify: Verify = rig.mqtt.last(&rig.mqtt.topics.verify(camera));
    let counts = (verify.verdict, verify.corrupt, verify.missing, verify.duplicate, verify.late);
    assert_eq!(counts, (Verdict::Ok, 0, 0, 0, 0), "{camera}: {verify:#?}");
}

struct Broken {
    camera: &'static str,
    faults: Vec<FaultKind>,
    /// `None`: the default of a minute, which no test waits for.
    ack_timeout_s: Option<u32>,
    one_session: bool,
}

fn broken() -> Vec<Broken> {
    let persisted = Some(AckKind::Persisted);
    let refused =
        FaultKind::RefusePutMedia { error_type: "InternalFailure".to_owned(), status: 500, count: 3 };
    let cut = || FaultKind::CutPutMedia { after_bytes: 0 };
    let breaks = |camera, faults, ack_timeout_s| Broken { camera, faults, ack_timeout_s, one_session: false };
    let goes_on = |camera, faults, ack_timeout_s| Broken { camera, faults, ack_timeout_s, one_session: true };
    vec![
        breaks("cut", vec![cut()], None),
        breaks("cut-before-ack", vec![FaultKind::DropAck { ack: persisted, count: 1 }], None),
        goes_on("ack-lost", vec![FaultKind::DropAck { ack: persisted, count: 1 }], Some(10)),
        breaks("acks-lost", vec![FaultKind::DropAck { ack: None, count: 24 }], Some(5)),
        goes_on("acks-late", vec![FaultKind::DelayAck { ack: persisted, delay_ms: 3000, count: 2 }], None),
        goes_on("acks-twice", vec![FaultKind::DuplicateAck { ack: None, count: 6 }], None),
        breaks("garbage", vec![FaultKind::GarbageAck { bytes: b"<html>502</html>".to_vec() }], None),
        breaks(
            "half-ack",
            vec![FaultKind::GarbageAck { bytes: b"{\"EventType\":\"PERSI".to_vec() }],
            Some(5),
        ),
        breaks("refused", vec![refused, cut()], None),
    ]
}

async fn break_connections(rig: &Rig, cases: &[Broken]) {
    for Broken { camera, faults, .. } in cases {
        rig.fragments(camera, 2).await;
        faults.iter().for_each(|fault| inject(rig, camera, fault.clone()));
    }
    // The fragment is stored and its ack gone: now the connection breaks, before anything else is said of it.
    used_up(rig, "cut-before-ack").await;
    inject(rig, "cut-before-ack", FaultKind::CutPutMedia { after_bytes: 0 });
    for Broken { camera, .. } in cases {
        used_up(rig, camera).await;
        rig.more_fragments(camera, 3).await;
    }
    // The lost ack is asked for after some seconds, without ending the session.
    eventually("a look for the lost ack", async || {
        let calls = rig.kvs.local().connections("ack-lost").expect("it is there").fragment_list_ever;
        (calls > 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_or_absent_service_and_bad_read_backs_are_told_and_hurt_no_other_camera() {
    let big = |clip: &mut camera_sim::ClipSpec| {
        (clip.width, clip.height, clip.bitrate_kbps) = (640, 360, 4000);
    };
    // A fragment of two seconds is about 1 MB: one fits always, with its successor under way, two do not.
    let full = Camera::new("full").clip(big).set("upload.window_bytes", "1600000");
    let mut builder = Rig::builder().camera(Camera::new("slow")).camera(full);
    for (camera, _) in read_backs() {
        builder = builder.camera(Camera::new(camera).set("verify.late_after_s", "2"));
    }
    for camera in ["fine", "damaged", "gone"] {
        let mut camera = Camera::new(camera).set("verify.mode", "\"sampled\"");
        for (key, value) in [("sample_every_s", "2"), ("list_every_s", "1"), ("late_after_s", "2")] {
            camera = camera.set(&format!("verify.{key}"), value);
        }
        builder = builder.camera(camera);
    }
    let Some(rig) = builder.start().await else { return };
    tokio::join!(slow_then_full(&rig), spoil_read_backs(&rig), spoil_the_store(&rig));
    rig.stop().await;
    check_slow(&rig).await;
    check_full(&rig).await;
    check_read_backs(&rig).await;
    check_samples(&rig).await;
}

/// One after the other: ending a fault ends all of them.
async fn slow_then_full(rig: &Rig) {
    let topics = &rig.mqtt.topics;
    rig.fragments("slow", 2).await;
    let mark = rig.mqtt.mark();
    inject(rig, "slow", FaultKind::SlowReader { pause_ms: 300 });
    let behind: Upload =
        rig.mqtt.wait_after(mark, &topics.upload("slow"), |u: &Upload| u.backlog_s > 5.0).await;
    assert!(behind.backlog_bytes > 0, "{behind:#?}");
    rig.kvs.local().faults().end("slow");
    rig.caught_up("slow").await;

    rig.fragments("full", 2).await;
    // In the middle of a fragment: one that KVS stored without our having its ack would count as lost, which it is not.
    rig.key_picture("full").await;
    let sim = rig.sim("full").expect("a simulated camera");
    let pictures = sim.stats(0).pictures;
    sim.wait_stats(0, |stats| stats.pictures >= pictures + 3).await;
    let error_type = "ServiceUnavailable".to_owned();
    inject(rig, "full", FaultKind::RefusePutMedia { error_type, status: 503, count: 10_000 });
    inject(rig, "full", FaultKind::CutPutMedia { after_bytes: 0 });
    let away: Upload = rig.mqtt.wait(&topics.upload("full"), |u: &Upload| u.fragments_lost >= 2).await;
    assert_eq!(away.reason, Some(Reason::UploadFailed), "the cause, not the effect: {away:#?}");
    assert!(away.backlog_bytes <= 1_600_000, "{away:#?}");
    rig.status(0, "full", |status| status.state == CameraState::Degraded).await;
    rig.kvs.local().faults().end("full");
    rig.more_fragments("full", 4).await;
    rig.caught_up("full").await;
}

async fn check_slow(rig: &Rig) {
    let footage = rig.expect_everything_proven("slow").await;
    footage.expect_no_picture_missing();
    assert_eq!(sessions(rig, "slow"), 1, "slow is not broken");
    let [.., last] = &footage.stats[..] else { panic!("one report at least") };
    assert_eq!((last.dropped_frames, last.reconnects_1h, last.lost_packets), (0, 0, 0), "{last:#?}");
}

async fn check_full(rig: &Rig) {
    let topics = &rig.mqtt.topics;
    let stored = rig.kvs.stored("full").await;
    let upload: Upload = rig.mqtt.last(&topics.upload("full"));
    let persisted = stored.len() as u64;
    assert_eq!(upload.fragments_persisted, persisted, "{upload:#?}");
    assert_eq!(upload.fragments_sent, persisted + upload.fragments_lost, "{upload:#?}");
    // Until the backlog is worked off the window may overflow again: each gap is a hole, and each hole a gap.
    let holes = holes(&stored);
    assert_eq!(upload.gaps.len(), holes.len(), "{upload:#?} {holes:?}");
    assert!(!holes.is_empty());
    for (gap, (before, behind)) in upload.gaps.iter().zip(holes) {
        assert_eq!(gap.reason, Reason::BacklogFull);
        let (start, end) = (gap.start.as_millis(), gap.end.expect("it is over").as_millis());
        assert!((1..=PICTURE_MS).contains(&(start - before)), "{before} .. {start}");
        assert!((1..=PICTURE_MS).contains(&(behind - end)), "{end} .. {behind}");
    }
    let verify: Verify = rig.mqtt.last(&topics.verify("full"));
    assert_eq!(
        (verify.verdict, verify.duplicate, verify.identical),
        (Verdict::Ok, 0, persisted),
        "{verify:#?}"
    );
}

fn read_backs() -> [(&'static str, Option<FaultKind>); 5] {
    [
        ("cut", Some(FaultKind::CutGetMedia { after_bytes: 20_000 })),
        ("ended", None),
        ("skipped", Some(FaultKind::SkipChunk { count: 1 })),
        ("twice", Some(FaultKind::DuplicateChunk { count: 1 })),
        ("corrupt", Some(FaultKind::CorruptChunk { count: 1 })),
    ]
}

async fn spoil_read_backs(rig: &Rig) {
    let topics = &rig.mqtt.topics;
    for (camera, fault) in read_backs() {
        rig.mqtt.wait(&topics.verify(camera), |verify: &Verify| verify.verdict == Verdict::Ok).await;
        match fault {
            Some(fault) => inject(rig, camera, fault),
            None => rig.kvs.local().end_get_media(camera).expect("the rig made the stream"),
        }
    }
    // A cut is for the next GetMedia.
    rig.kvs.local().end_get_media("cut").expect("the rig made the stream");
    let wrong = |verify: &Verify| verify.verdict == Verdict::Mismatch;
    let wrong: Verify = rig.mqtt.wait(&topics.verify("corrupt"), wrong).await;
    assert_eq!(wrong.reason, Some(Reason::VerifyMismatch), "{wrong:#?}");
    let detail = wrong.detail.clone().unwrap_or_default();
    assert!(detail.contains("read back") && detail.contains("sha256"), "{detail}");
    let degraded = rig.status(0, "corrupt", |status| status.state == CameraState::Degraded).await;
    assert_eq!(degraded.reason, Some(Reason::VerifyMismatch), "{degraded:#?}");
    for (camera, _) in read_backs() {
        used_up(rig, camera).await;
        rig.more_fragments(camera, 2).await;
    }
    for camera in ["skipped", "corrupt"] {
        eventually(&format!("second look at {camera}"), async || {
            (connections(rig, camera).fragment_list_ever > 0).then_some(())
        })
        .await;
    }
}

async fn check_read_backs(rig: &Rig) {
    for camera in ["cut", "ended", "skipped", "twice"] {
        rig.expect_everything_proven(camera).await.expect_no_picture_missing();
    }
    assert!(connections(rig, "cut").get_media_ever >= 3, "{:?}", connections(rig, "cut"));
    assert!(connections(rig, "ended").get_media_ever >= 2, "{:?}", connections(rig, "ended"));
    // What is stored is right: only the answer was wrong, and the second look proved that.
    let verify: Verify = rig.mqtt.last(&rig.mqtt.topics.verify("corrupt"));
    let stored = rig.kvs.stored("corrupt").await.len() as u64;
    let counts = (verify.corrupt, verify.missing, verify.identical, verify.verdict);
    assert_eq!(counts, (0, 0, stored, Verdict::Ok), "{verify:#?}");
}

/// What samples and lists have to notice: damaged and gone.
async fn spoil_the_store(rig: &Rig) {
    let topics = &rig.mqtt.topics;
    let ok = |verify: &Verify| verify.verdict == Verdict::Ok && verify.listed > 0;
    for camera in ["fine", "damaged", "gone"] {
        rig.mqtt.wait(&topics.verify(camera), ok).await;
    }
    let bad = |camera: &str| {
        let verify: Verify = rig.mqtt.last(&topics.verify(camera));
        (verify.verdict == Verdict::Mismatch).then_some(verify)
    };
    // Which fragment the next sample is, only the box knows: so it is any.
    let local = rig.kvs.local();
    let mut done = BTreeSet::new();
    let damaged = eventually("a verdict on damaged fragments", async || {
        for fragment in local.fragments("damaged").await.expect("they can be read") {
            if done.insert(fragment.number.clone()) {
                local.corrupt_fragment("damaged", &fragment.number).await.expect("it is there");
            }
        }
        for fragment in local.fragments("gone").await.expect("they can be read") {
            local.delete_fragment("gone", &fragment.number).await.expect("it is there");
        }
        bad("damaged")
    });
    let damaged = damaged.await;
    assert_eq!((damaged.reason, damaged.method), (Some(Reason::VerifyMismatch), VerifyMethod::Sampled));
    assert!(damaged.corrupt > 0, "{damaged:#?}");
    let gone = eventually("a verdict on missing fragments", async || {
        for fragment in local.fragments("gone").await.expect("they can be read") {
            local.delete_fragment("gone", &fragment.number).await.expect("it is there");
        }
        bad("gone")
    });
    let gone = gone.await;
    assert_eq!(gone.reason, Some(Reason::VerifyMismatch), "{gone:#?}");
    assert!(gone.missing > 0, "{gone:#?}");
    rig.status(0, "gone", |status| status.reason == Some(Reason::VerifyMismatch)).await;
    rig.mqtt.wait(&topics.verify("fine"), |verify: &Verify| verify.identical > 1).await;
}

async fn check_samples(rig: &Rig) {
    let fine: Verify = rig.mqtt.last(&rig.mqtt.topics.verify("fine"));
    assert_eq!(
        (fine.verdict, fine.reason, fine.corrupt, fine.missing),
        (Verdict::Ok, None, 0, 0),
        "{fine:#?}"
    );
    let stored = rig.kvs.stored("fine").await.len() as u64;
    assert_eq!(fine.listed, stored, "{fine:#?}");
    assert!(fine.identical > 1 && fine.identical < stored, "{fine:#?}");
    assert_eq!(connections(rig, "fine").get_media_ever, 0, "sampling needs no lasting connection");
}
