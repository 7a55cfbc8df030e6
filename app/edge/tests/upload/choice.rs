//! What is uploaded and when: on demand, around events, at some hours, no faster than it may.

use std::num::NonZeroU64;
use std::time::Duration;

use config::{QuietHours, UploadMode};
use kvs_edge::cameras::UploadRangeError;
use kvs_edge::order_desk;
use kvs_edge::record::{AroundEvents, UploadState};
use kvs_local::FaultKind;
use media::ProducerTimestamp;
use tokio_util::sync::CancellationToken;

use crate::upload_rig::{Rig, Setting, Stored};

const SECOND: Duration = Duration::from_secs(1);
/// Of the first picture; 14:47:53 UTC.
const START_S: u64 = 1_795_186_073;

/// So many seconds after the first picture.
fn at(seconds: u64) -> ProducerTimestamp {
    ProducerTimestamp::from_millis((START_S + seconds) * 1000)
}

fn seconds(stored: &[Stored]) -> Vec<u64> {
    stored.iter().map(|one| one.timecode_ms / 1000 - START_S).collect()
}

fn selective() -> Setting {
    Setting {
        window_bytes: 20_000,
        spool: Some(|_| ()),
        upload: |upload| upload.mode = UploadMode::OnDemand,
        ..Setting::default()
    }
}

#[tokio::test(start_paused = true)]
async fn on_demand_only_what_is_asked_for_is_uploaded_past_and_to_come() {
    let mut rig = Rig::start(selective()).await;
    rig.film(60).await;
    assert_eq!((rig.sessions(), rig.report.borrow().backlog.fragments), (0, 0));
    assert!(rig.orders.want(at(20), at(29)));
    rig.film(10).await;
    // What is being recorded, and what is not yet.
    assert!(rig.orders.want(at(68), at(75)));
    rig.film(30).await;
    let report = rig.report.borrow().clone();
    assert_eq!((report.complete, report.persisted, report.lost), (18, 18, 0), "{report:?}");
    let stored = rig.end().await;
    assert_eq!(seconds(&stored), (20..=29).chain(68..=75).collect::<Vec<_>>());
    rig.expect_proven(&stored);
}

#[tokio::test(start_paused = true)]
async fn an_order_from_outside_is_taken_answered_and_uploaded_once() {
    let mut rig = Rig::start(selective()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let desk = folder.path().join("orders");
    let (orders, stop) = (rig.orders.clone(), CancellationToken::new());
    let take = move |camera: &str, from, to| match camera {
        "cam" => {
            assert!(orders.want(from, to));
            Ok(())
        }
        other => Err(UploadRangeError::Unknown { id: other.to_owned() }),
    };
    let task = tokio::spawn(order_desk::run(desk.clone(), rig.clock.clone(), stop.clone(), take));
    rig.film(60).await;
    let order = |camera: &str, from, to| order_desk::Order {
        camera: camera.to_owned(),
        from_ms: at(from).as_millis(),
        to_ms: at(to).as_millis(),
    };
    let good = order_desk::place(&desk, &order("cam", 20, 29), 1).expect("placed");
    let unknown = order_desk::place(&desk, &order("yard", 20, 29), 2).expect("placed");
    rig.film(30).await;
    assert_eq!(order_desk::fetch(&good), Some(order_desk::Answer::Taken));
    assert!(
        matches!(order_desk::fetch(&unknown), Some(order_desk::Answer::Refused(why)) if why.contains("yard"))
    );
    stop.cancel();
    task.await.expect("it ends");
    let stored = rig.end().await;
    assert_eq!(seconds(&stored), (20..=29).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_for_is_uploaded_after_an_outage_and_a_kill_and_once() {
    let mut rig = Rig::start(selective()).await;
    rig.film(900).await;
    rig.inject(FaultKind::CutPutMedia { after_bytes: 3000 });
    rig.inject(FaultKind::RefusePutMedia {
        error_type: "ServiceUnavailable".to_owned(),
        status: 503,
        count: 1_000_000,
    });
    assert!(rig.orders.want(at(40), at(779)), "more than are looked at at once");
    rig.film(30).await;
    rig.kill().await;
    rig.kvs.faults().clear();
    rig.lose_index();
    rig.begin_again();
    rig.film(150).await;
    // The rest of it was not on the way yet when the box was killed; it is asked for again.
    assert!(rig.orders.want(at(40), at(779)));
    rig.film(150).await;
    let stored = rig.end().await;
    assert_eq!(seconds(&stored), (40..=779).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn around_an_event_what_came_before_and_what_comes_after_is_uploaded() {
    let mut rig = Rig::start(selective()).await;
    let mut around = AroundEvents::new(rig.orders.clone(), 5 * SECOND, 10 * SECOND);
    rig.film(100).await;
    around.change("one", at(99), false);
    rig.film(50).await;
    around.change("one", at(140), true);
    rig.film(60).await;
    let stored = rig.end().await;
    assert_eq!(seconds(&stored), (94..=150).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_uploaded_in_quiet_hours_and_everything_after_them() {
    let mut rig = Rig::start(Setting {
        spool: Some(|_| ()),
        window_bytes: 20_000,
        upload: |upload| upload.quiet_hours = QuietHours::parse("14:49-14:52"),
        ..Setting::default()
    })
    .await;
    rig.film(60).await;
    let sent = rig.report.borrow().persisted;
    assert!(sent >= 57, "{sent}");
    rig.film(30).await;
    let before = rig.sessions();
    rig.film(150).await;
    let report = rig.report.borrow().clone();
    assert_eq!((report.state, report.problem.clone(), rig.sessions()), (UploadState::Idle, None, before));
    assert!(report.backlog.fragments > 165, "{report:?}");
    rig.film(60).await;
    assert!(rig.report.borrow().backlog.fragments <= 3, "{:?}", rig.report.borrow());
    rig.expect_all_kept().await;
}

#[tokio::test(start_paused = true)]
async fn a_capped_uplink_is_never_exceeded_while_a_backlog_drains() {
    const BITS: u64 = 32_000;
    let mut rig = Rig::start(Setting {
        spool: Some(|_| ()),
        upload: |upload| upload.uplink_max_kbps = NonZeroU64::new(BITS / 1000),
        ..Setting::default()
    })
    .await;
    rig.film(5).await;
    rig.inject(FaultKind::RefusePutMedia {
        error_type: "ServiceUnavailable".to_owned(),
        status: 503,
        count: 1_000_000,
    });
    rig.inject(FaultKind::CutPutMedia { after_bytes: 0 });
    rig.film(120).await;
    rig.kvs.faults().clear();
    rig.film(30).await;
    let mut before = rig.kvs.fragments("cam").await.expect("the stream").len() as u64;
    let begun = before;
    for _ in 0..12 {
        rig.film(5).await;
        let stored = rig.kvs.fragments("cam").await.expect("the stream").len() as u64;
        // 1,577 bytes of a cluster, its tag, and the fragment that was on its way.
        assert!((stored - before) * 1577 * 8 <= BITS * 5 + BITS / 2 + 1577 * 8, "{}", stored - before);
        before = stored;
    }
    assert!(before - begun > 60, "faster than the camera: {}", before - begun);
    rig.film(120).await;
    rig.expect_all_kept().await;
}

#[tokio::test(start_paused = true)]
async fn credentials_that_end_again_and_again_cost_no_fragment() {
    let mut rig = Rig::start(Setting {
        credentials_last: Some(120 * SECOND),
        upload: |upload| upload.rotate = 45 * SECOND,
        ..Setting::default()
    })
    .await;
    rig.film(900).await;
    assert!(rig.sessions() >= 19, "{}", rig.sessions());
    let report = rig.report.borrow().clone();
    assert_eq!((report.problem.clone(), report.reconnects.count(rig.clock.now())), (None, 0), "{report:?}");
    rig.expect_all_kept().await;
}
