//! The source of access units against simulated cameras, over real sockets.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use camera_sim::{Audio, CameraSim, ClipSpec, Fault, FaultPlan};
use clock::{Clock, Trust, Verdict, Witness};
use health::Reason;
use media::{ClockSource, Feed, SourceState, UnitSource};
use rtsp::source::{self, IngestReport, IngestState};
use rtsp::{RtspSource, Timeline};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Far beyond what any event takes; a test that reaches it has failed.
const DEADLINE: Duration = Duration::from_secs(60);

/// Small, with sound.
fn clip() -> ClipSpec {
    ClipSpec { audio: Audio::Pcmu, ..ClipSpec::small() }
}

/// What became of an item.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Item {
    Picture { ms: u64, key: bool },
    Sound { ms: u64 },
    Break,
    NewTimeline,
}

/// A camera, and the source that reads it.
struct Rig {
    sim: CameraSim,
    clock: Clock,
    camera: config::Camera,
    report_in: watch::Sender<IngestReport>,
    report: watch::Receiver<IngestReport>,
    items_in: mpsc::UnboundedSender<Item>,
    items: mpsc::UnboundedReceiver<Item>,
    all: Vec<Item>,
    /// Whether the feed has room.
    room: Arc<Mutex<bool>>,
    /// The consumer panics at the next item.
    crash: Arc<AtomicBool>,
    timeline: Arc<tokio::sync::Mutex<Timeline>>,
    cancel: CancellationToken,
    source: JoinHandle<()>,
}

impl Rig {
    async fn start(faults: &str, clock: Clock) -> Rig {
        let plan = FaultPlan::from_query(faults).expect("faults");
        let sim = CameraSim::builder().clip(clip()).faults(plan).start().await.expect("a simulated camera");
        let camera = config::Camera::new("cam", sim.url(0).parse().expect("a URL"));
        let (items_in, items) = mpsc::unbounded_channel();
        let (report_in, report) = watch::channel(IngestReport::new(clock.wall()));
        let mut rig = Rig {
            sim,
            clock,
            camera,
            report_in,
            report,
            items_in,
            items,
            all: Vec::new(),
            room: Arc::new(Mutex::new(true)),
            crash: Arc::default(),
            timeline: Arc::default(),
            cancel: CancellationToken::new(),
            source: tokio::spawn(async {}),
        };
        rig.read();
        rig
    }

    /// Begins to read the camera, on the timeline that is there.
    fn read(&mut self) {
        let (camera, send, report) = (self.camera.clone(), self.items_in.clone(), self.report_in.clone());
        let (stop, has_room, its_clock) = (self.cancel.clone(), self.room.clone(), self.clock.clone());
        let (crash, timeline) = (self.crash.clone(), self.timeline.clone());
        self.source = tokio::spawn(async move {
            let feed = move |item| {
                assert!(!crash.swap(false, Ordering::Relaxed), "as the test wants it");
                let item = match item {
                    Feed::Video(unit) => {
                        Item::Picture { ms: unit.timestamp.as_millis(), key: unit.random_access }
                    }
                    Feed::Audio(frame) => Item::Sound { ms: frame.timestamp.as_millis() },
                    Feed::Break => Item::Break,
                    Feed::NewTimeline => Item::NewTimeline,
                    Feed::AudioTrack(_) => return true,
                };
                *has_room.lock().expect("no test panics with it") && send.send(item).is_ok()
            };
            let mut timeline = timeline.lock().await;
            source::run(&camera, feed, &mut timeline, report, its_clock, stop).await;
        });
    }

    /// Takes items up to the first one that pleases.
    async fn until(&mut self, pleases: impl Fn(&Item) -> bool) -> Item {
        loop {
            let next = tokio::time::timeout(DEADLINE, self.items.recv()).await;
            let item = next.expect("it comes in time").expect("the source runs");
            self.all.push(item);
            if pleases(&item) {
                return item;
            }
        }
    }

    /// Takes so many more pictures; returns the last one's stamp.
    async fn pictures(&mut self, count: usize) -> u64 {
        let mut last = 0;
        for _ in 0..count {
            if let Item::Picture { ms, .. } = self.until(|item| matches!(item, Item::Picture { .. })).await {
                last = ms;
            }
        }
        last
    }

    async fn reported(&mut self, pleases: impl FnMut(&IngestReport) -> bool) -> IngestReport {
        let waited = tokio::time::timeout(DEADLINE, self.report.wait_for(pleases)).await;
        waited.expect("it is reported in time").expect("the source runs").clone()
    }

    async fn stop(self) -> Vec<Item> {
        self.cancel.cancel();
        tokio::time::timeout(DEADLINE, self.source).await.expect("it ends").expect("without a panic");
        assert_eq!(self.report.borrow().state, IngestState::Stopped);
        self.all
    }
}

fn wall_ms(clock: &Clock) -> i64 {
    clock.wall_ms().cast_signed()
}

/// The stamps of the pictures, each timeline for itself.
fn timelines(all: &[Item]) -> Vec<Vec<u64>> {
    let mut timelines = vec![Vec::new()];
    for item in all {
        match item {
            Item::NewTimeline => timelines.push(Vec::new()),
            Item::Picture { ms, .. } => timelines.last_mut().expect("never empty").push(*ms),
            Item::Sound { .. } | Item::Break => {}
        }
    }
    timelines
}

#[track_caller]
fn assert_increasing(all: &[Item]) {
    for timeline in timelines(all) {
        assert!(timeline.windows(2).all(|two| two[0] < two[1]), "{timeline:?}");
    }
    let mut sounds: Vec<u64> = Vec::new();
    for item in all {
        match item {
            Item::NewTimeline => sounds.clear(),
            Item::Sound { ms } => {
                assert!(sounds.last().is_none_or(|last| last < ms), "{sounds:?}, then {ms}");
                sounds.push(*ms);
            }
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_ahead_of_us_that_reports_late_does_not_fold_time_at_a_reconnect() {
    let mut rig = Rig::start("clock_offset=8&sr_after=1.5", Clock::system()).await;
    rig.pictures(5).await;
    assert!(!rig.all.contains(&Item::NewTimeline));
    // The first report is a real jump, at a random access point.
    rig.until(|item| *item == Item::NewTimeline).await;
    let next = rig.until(|item| matches!(item, Item::Picture { .. })).await;
    assert!(matches!(next, Item::Picture { key: true, .. }), "{next:?}");
    let last = rig.pictures(10).await;
    assert_eq!(rig.sim.faults(0).inject(Fault::HangUp), 1);
    rig.until(|item| *item == Item::Break).await;
    let before = rig.all.len();
    let first = rig.pictures(1).await;
    assert!(first > last, "{first} is behind {last}, though no report came yet");
    // It would be a jump of 8 s, and another one at the next report, if the camera's clock had been forgotten.
    assert!(!rig.all[before..].contains(&Item::NewTimeline));
    rig.pictures(40).await;
    let all = rig.stop().await;
    assert_increasing(&all);
    assert_eq!(timelines(&all).len(), 2);
}

/// As above, but what ends the session is a crash of whoever reads it.
#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_a_camera_outlives_a_crash_of_its_reader() {
    let mut rig = Rig::start("clock_offset=8&sr_after=1.5", Clock::system()).await;
    rig.until(|item| *item == Item::NewTimeline).await;
    let last = rig.pictures(10).await;
    rig.crash.store(true, Ordering::Relaxed);
    let crashed = tokio::time::timeout(DEADLINE, &mut rig.source).await.expect("it ends");
    assert!(crashed.expect_err("it panics").is_panic());
    rig.read();
    let before = rig.all.len();
    rig.until(|item| matches!(item, Item::Picture { key: true, .. })).await;
    rig.pictures(30).await;
    let all = rig.stop().await;
    assert!(!all[before..].contains(&Item::NewTimeline), "the camera's clock was forgotten");
    assert_increasing(&all);
    let stamps = timelines(&all);
    assert!(stamps[1].contains(&last), "one timeline before the crash and behind it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_says_goodbye_and_stays_connected_is_left_at_once() {
    let mut rig = Rig::start("", Clock::system()).await;
    rig.pictures(12).await;
    assert_eq!(rig.sim.faults(0).inject(Fault::Bye), 1);
    rig.until(|item| *item == Item::Break).await;
    rig.pictures(12).await;
    let report = rig.report.borrow().clone();
    let (reconnects, stalls) =
        (report.reconnects.count(rig.clock.now()), report.stalls.count(rig.clock.now()));
    assert_eq!((reconnects, stalls), (1, 0), "nobody waited for pictures");
    assert_increasing(&rig.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_is_read_as_any_other_source() {
    let sim = CameraSim::builder().clip(clip()).start().await.expect("a simulated camera");
    let camera = config::Camera::new("cam", sim.url(0).parse().expect("a URL"));
    let mut source = RtspSource::open(camera, Clock::system());
    let mut items = Vec::new();
    while source.metrics().pictures < 12 || source.metrics().audio_frames == 0 {
        let next = tokio::time::timeout(DEADLINE, source.next()).await.expect("it comes in time");
        items.push(next.expect("it never ends by itself"));
    }
    assert_eq!(source.state(), SourceState::Connected);
    let first = items.iter().find_map(|item| if let Feed::Video(unit) = item { Some(unit) } else { None });
    assert!(first.expect("12 came").random_access);
    let bytes = items.iter().map(|item| match item {
        Feed::Video(unit) => unit.data.len(),
        Feed::Audio(frame) => frame.data.len(),
        _ => 0,
    });
    assert_eq!(source.metrics().bytes, bytes.sum::<usize>() as u64);
    assert_eq!(sim.faults(0).inject(Fault::HangUp), 1);
    while source.metrics().breaks == 0 {
        tokio::time::timeout(DEADLINE, source.next()).await.expect("it comes in time").expect("it goes on");
    }
    let report = source.report();
    tokio::time::timeout(DEADLINE, source.close()).await.expect("it ends");
    assert_eq!(report.borrow().state, IngestState::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_with_a_wrong_rtp_time_is_named_and_not_used() {
    let mut rig = Rig::start("sr_rtp_offset=3600", Clock::system()).await;
    let report = rig.reported(|report| report.clock_problem.is_some()).await;
    let problem = report.clock_problem.expect("it is there");
    assert_eq!(problem.reason, Reason::SenderReport);
    assert!(problem.found.contains("RTP time does not fit its pictures"), "{problem}");
    let error = rig.pictures(30).await.cast_signed() - wall_ms(&rig.clock);
    assert!((-30_000..2_000).contains(&error), "{error} ms");
    assert_eq!(rig.report.borrow().clock, Some(ClockSource::Receive));
    rig.sim.faults(0).set(FaultPlan::default());
    rig.reported(|report| report.clock_problem.is_none() && report.clock == Some(ClockSource::Rtcp)).await;
    let all = rig.stop().await;
    assert_increasing(&all);
    assert_eq!(timelines(&all).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn our_clock_that_goes_back_an_hour_during_a_reconnect_is_one_new_timeline() {
    let clock = Clock::simulated(UNIX_EPOCH + Duration::from_secs(1_795_186_073));
    let mut rig = Rig::start("no_sr", clock.clone()).await;
    let last = rig.pictures(15).await;
    assert_eq!(rig.sim.faults(0).inject(Fault::HangUp), 1);
    rig.until(|item| *item == Item::Break).await;
    clock.step_to(clock.wall() - Duration::from_secs(3600));
    rig.until(|item| *item == Item::NewTimeline).await;
    let first = rig.pictures(1).await;
    assert!(first < last, "{first} follows {last}");
    rig.pictures(40).await;
    let all = rig.stop().await;
    assert_increasing(&all);
    let timelines = timelines(&all);
    assert_eq!(timelines.len(), 2);
    let off: Vec<_> =
        timelines[1].windows(2).map(|two| two[1] - two[0]).filter(|ms| !(94..=106).contains(ms)).collect();
    assert_eq!(off, [0; 0], "distances in ms of pictures that are 100 ms apart");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_without_room_is_the_boxs_own_trouble_and_loses_whole_gops() {
    let mut rig = Rig::start("", Clock::system()).await;
    rig.pictures(12).await;
    *rig.room.lock().expect("no panic") = false;
    let report = rig.reported(|report| report.loss.is_some()).await;
    assert_eq!(report.loss.expect("it is there").problem.reason, Reason::BoxOverloaded);
    *rig.room.lock().expect("no panic") = true;
    rig.until(|item| *item == Item::Break).await;
    let next = rig.until(|item| matches!(item, Item::Picture { .. })).await;
    assert!(matches!(next, Item::Picture { key: true, .. }), "{next:?}");
    let report = rig.report.borrow().clone();
    assert!(report.dropped_frames >= 1, "{report:?}");
    assert_increasing(&rig.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_that_come_before_the_clock_is_trusted_are_stamped_afterwards() {
    // A box that woke up in 1970.
    let clock = Clock::simulated(UNIX_EPOCH);
    clock.set_trust(Trust::Pending);
    let mut rig = Rig::start("", clock.clone()).await;
    let report = rig.reported(|report| report.state == IngestState::WaitingForClock).await;
    assert_eq!(report.problem.map(|problem| problem.reason), Some(Reason::BoxClock));
    let (said, _) = report.camera_time.expect("a report comes before the first picture");
    let apart = Clock::system().wall().duration_since(said).expect("it is past");
    assert!(apart < DEADLINE, "the camera knows what the box does not: {apart:?}");
    // A reconnect in between: both sessions are held.
    rig.sim.wait_stats(0, |stats| stats.pictures >= 15).await;
    assert_eq!(rig.sim.faults(0).inject(Fault::HangUp), 1);
    rig.sim.wait_stats(0, |stats| stats.pictures >= 30).await;
    assert!(rig.items.try_recv().is_err(), "nothing leaves without a time");

    let truth = Clock::system().wall().duration_since(clock.wall()).expect("1970 is long ago");
    let correction_us = i64::try_from(truth.as_micros()).expect("fits");
    let trusted_at = Clock::system().wall_ms();
    clock.follow(Verdict { trust: Trust::Trusted, witness: Witness::Service, correction_us });
    rig.reported(|report| report.state == IngestState::Live && report.problem.is_none()).await;
    rig.pictures(35).await;
    let sent: Vec<u64> = rig.sim.stats(0).sent.iter().map(|picture| picture.capture_utc_ms).collect();
    let all = rig.stop().await;
    assert_increasing(&all);
    let stamps = timelines(&all).concat();
    assert_eq!(timelines(&all).len(), 1);
    assert!(stamps[0] + 1000 < trusted_at, "{} is not before {trusted_at}", stamps[0]);
    let wrong: Vec<_> =
        stamps.iter().filter(|ms| !sent.iter().any(|sent| sent.abs_diff(**ms) <= 1)).collect();
    assert_eq!(wrong, [&0; 0], "stamps that are no picture's time of capture");
    let missing: Vec<_> = sent
        .iter()
        .filter(|sent| **sent <= stamps[stamps.len() - 1])
        .filter(|sent| !stamps.iter().any(|ms| ms.abs_diff(**sent) <= 1))
        .collect();
    assert_eq!(missing, [&0; 0], "pictures that were sent");
}
