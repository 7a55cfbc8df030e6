//! RTSP in, access units out.
//!
//! ```text
//!  connecting --PLAY answered--> waiting for key --random access point--> live
//!      ^                              ^------------ packets lost ----------+
//!      |                                                                   |
//!  backing off <---- error, hang-up, no picture for stall_s ---------------+
//! ```
//!
//! retina does not reconnect and goes on with damaged pictures after a loss (measured), so the time without a picture and
//! the next random access point are watched here. The reader never waits for a consumer: when that has no room, the
//! rest of the GOP is dropped and counted. Time stamps come from one timeline that outlives the sessions.
//!
//! Until somebody vouches for the wall clock, everything is held as it came and stamped afterwards; of that the newest
//! `window_bytes` are kept.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use clock::{Clock, Trust};
use config::{Source, Transport};
use health::{Backoff, Problem, Reason, Recent};
use media::{AccessUnit, AudioFormat, AudioFrame, ClockSource, Feed, ProducerTimestamp, VideoFormat};
use retina::client::SessionGroup;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::error::SessionError;
use crate::held::{Held, Unstamped};
use crate::session::{Clocks, Described, Next, Picture, SenderReport, Session, Sound, Target};
use crate::timeline::{Arrival, Distrust, Stamp, Timeline, ntp_to_micros};

/// Places between a source and its consumer: about 2.5 s of video and audio. When it is full, pictures are dropped
/// until the next random access point, because the reader must never wait.
pub const FEED_PLACES: usize = 256;

const FIRST_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// A session of this length was a good one: the next failure starts with the shortest delay.
const HEALTHY: Duration = Duration::from_secs(30);
/// The session is given up after so many ticks without a picture; `stall_s` is as long as all of them.
const TICKS_BEFORE_STALL: u32 = 10;
const FIX_CLOCK: &str = "let the box reach its NTP server or the service";
/// Between attempts that only an operator's change can make succeed.
const OPERATOR_DELAY: Duration = Duration::from_secs(60);
/// Between looks at a clock that held items wait for, while no other item comes.
const CATCH_UP: Duration = Duration::from_millis(100);
/// The camera frees its session on TEARDOWN; some allow only one.
const TEARDOWN_LIMIT: Duration = Duration::from_secs(1);

/// Where one camera stands; counters run since start. Watchers are woken when the state changes and once a GOP.
#[derive(Clone, Debug)]
pub struct IngestReport {
    pub state: IngestState,
    pub since: SystemTime,
    pub problem: Option<Problem>,
    /// Failed attempts since the last picture.
    pub attempts: u32,
    /// The last attempt failed of something that only somebody's change can mend.
    pub needs_operator: bool,
    pub last_frame: Option<SystemTime>,
    pub format: Option<Arc<VideoFormat>>,
    pub audio: Option<Arc<AudioFormat>>,
    pub transport: Option<&'static str>,
    pub clock: Option<ClockSource>,
    pub clock_offset_us: Option<i64>,
    /// Millionths by which its clock is faster than that of the box, over the last hour.
    pub clock_drift_ppm: Option<f64>,
    /// What the camera's clock said in its latest sender report, and when that arrived.
    pub camera_time: Option<(SystemTime, Instant)>,
    /// Why the camera's clock is not used although it sends reports.
    pub clock_problem: Option<Problem>,
    pub frames: u64,
    pub bytes: u64,
    pub dropped_frames: u64,
    pub lost_packets: u64,
    /// The newest loss of pictures while the session went on.
    pub loss: Option<Loss>,
    pub gop_frames: Option<u32>,
    pub gop_ms: Option<u64>,
    pub reconnects: Recent,
    pub stalls: Recent,
}

/// Pictures that came, or nearly so, and are not recorded.
#[derive(Clone, Debug)]
pub struct Loss {
    pub at: Instant,
    pub problem: Problem,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IngestState {
    Connecting,
    WaitingForKey,
    /// Pictures come, and are held until somebody vouches for the wall clock.
    WaitingForClock,
    Live,
    BackingOff,
    Stopped,
}

impl IngestReport {
    /// Of a camera that is not connected yet, at wall time `now`.
    pub fn new(now: SystemTime) -> Self {
        Self {
            state: IngestState::Connecting,
            since: now,
            problem: None,
            attempts: 0,
            needs_operator: false,
            last_frame: None,
            format: None,
            audio: None,
            transport: None,
            clock: None,
            clock_offset_us: None,
            clock_drift_ppm: None,
            camera_time: None,
            clock_problem: None,
            frames: 0,
            bytes: 0,
            dropped_frames: 0,
            lost_packets: 0,
            loss: None,
            gop_frames: None,
            gop_ms: None,
            reconnects: Recent::hour(),
            stalls: Recent::hour(),
        }
    }
}

/// Keeps one camera's feed alive until `cancel`. `feed` takes each item at once and returns false if it had no room.
/// `timeline` is the camera's: lent again after a crash, it goes on where the stamps were.
pub async fn run(
    camera: &config::Camera,
    feed: impl FnMut(Feed) -> bool + Send,
    timeline: &mut Timeline,
    report: watch::Sender<IngestReport>,
    clock: Clock,
    cancel: CancellationToken,
) {
    let group = Arc::new(SessionGroup::default().named(camera.id.clone()));
    let mut udp_refused = false;
    let mut intake = Intake {
        camera,
        feed,
        report,
        clocks: Clocks::new(clock.clone(), timeline.epoch(clock.now())),
        timeline,
        backoff: Backoff::new(FIRST_DELAY, LONGEST_DELAY, HEALTHY),
        format: None,
        waiting_for_key: true,
        owed: None,
        held: Held::default(),
        trusted: false,
        unsent: VecDeque::new(),
        patient: false,
        audio: None,
        gop: Gop::default(),
    };
    loop {
        intake.set_state(IngestState::Connecting);
        let transport = match camera.transport {
            Transport::Tcp => Transport::Tcp,
            _ if camera.source == Source::Go2rtc || udp_refused => Transport::Tcp,
            other => other,
        };
        let ended = cancel.run_until_cancelled(intake.session(transport, &group)).await;
        intake.take(Unstamped::End);
        let Some(Err(error)) = ended else { break };
        if matches!(error, SessionError::TransportRefused { .. }) && camera.transport == Transport::Auto {
            tracing::info!(camera = camera.id, "the camera refuses UDP, going on with TCP");
            udp_refused = true;
            continue;
        }
        let delay = intake.failed(&error);
        if cancel.run_until_cancelled(intake.wait(delay)).await.is_none() {
            break;
        }
    }
    intake.give_up_held();
    intake.set_state(IngestState::Stopped);
    let _ = tokio::time::timeout(TEARDOWN_LIMIT, group.await_teardown()).await;
}

/// What is kept of a camera over its sessions.
struct Intake<'a, F> {
    camera: &'a config::Camera,
    feed: F,
    report: watch::Sender<IngestReport>,
    clocks: Clocks,
    timeline: &'a mut Timeline,
    backoff: Backoff,
    format: Option<Arc<VideoFormat>>,
    waiting_for_key: bool,
    /// An interruption for which the feed had no room yet; nothing may overtake it.
    owed: Option<Feed>,
    held: Held,
    /// Somebody has vouched for the wall clock. It may still be set: that is a jump in the timeline.
    trusted: bool,
    /// Stamped items of what was held, for which the feed had no room yet.
    unsent: VecDeque<Feed>,
    /// What is stamped now was held.
    patient: bool,
    /// Of the session whose items are stamped now.
    audio: Option<Arc<AudioFormat>>,
    gop: Gop,
}

/// Measures from one random access point to the next.
#[derive(Default)]
struct Gop {
    frames: u32,
    start: Option<ProducerTimestamp>,
    /// Pictures and milliseconds of the last whole one.
    last: Option<(u32, u64)>,
}

impl<F: FnMut(Feed) -> bool> Intake<'_, F> {
    async fn session(&mut self, transport: Transport, group: &Arc<SessionGroup>) -> Result<(), SessionError> {
        self.format = None;
        let target = Target {
            url: &self.camera.url,
            login: self.camera.login.as_ref(),
            transport,
            step_limit: self.camera.handshake,
            group,
        };
        let mut described = Described::ask(&target).await?;
        let tracks = described.choose(self.camera.audio)?;
        described.set_up(tracks).await?;
        let look = self.camera.stall / TICKS_BEFORE_STALL;
        let mut session = described.play(tracks, look, &self.clocks).await?;

        let audio = session.audio_format().map(Arc::new);
        self.report.send_modify(|report| {
            report.transport = Some(if transport == Transport::Tcp { "tcp" } else { "udp" });
            report.audio.clone_from(&audio);
        });
        self.set_state(IngestState::WaitingForKey);
        self.take(Unstamped::Begin { rates_hz: session.rates_hz(), audio });
        let mut ticks = 0;
        loop {
            match session.next().await? {
                Next::Picture(picture) => {
                    ticks = 0;
                    self.read_format(&session)?;
                    if let Some(format) = self.format.clone() {
                        self.take(Unstamped::Picture { picture, format });
                    }
                }
                Next::Sound(sound) => self.take(Unstamped::Sound(sound)),
                Next::SenderReport(sent) => {
                    let time = Arrival { wall: ntp_to_micros(sent.ntp), ..sent.arrival }.wall_time();
                    let at = self.clocks.instant(sent.arrival);
                    self.report.send_if_modified(|report| {
                        report.camera_time = Some((time, at));
                        false
                    });
                    self.take(Unstamped::SenderReport(sent));
                }
                Next::Tick => {
                    self.catch_up();
                    ticks += 1;
                    if ticks > TICKS_BEFORE_STALL {
                        return Err(SessionError::Stalled { after: self.camera.stall });
                    }
                }
            }
        }
    }

    fn read_format(&mut self, session: &Session) -> Result<(), SessionError> {
        let newest = session.format().map_err(|error| SessionError::Parameters(error.clone()))?;
        let Some(newest) = newest else { return Ok(()) };
        if self.format.as_ref().is_none_or(|format| !Arc::ptr_eq(format, newest)) {
            tracing::info!(
                camera = self.camera.id,
                codec = newest.rfc6381(),
                width = newest.width,
                height = newest.height,
                "parameter sets"
            );
            self.format = Some(newest.clone());
            self.report.send_modify(|report| report.format = Some(newest.clone()));
        }
        Ok(())
    }

    /// Stamps the next item and sends it, or holds it.
    fn take(&mut self, item: Unstamped) {
        if self.is_trusted() && self.held.is_empty() && self.unsent.is_empty() {
            self.stamp(item);
            return;
        }
        if !self.trusted && matches!(item, Unstamped::Picture { .. }) {
            self.wait_for_clock();
        }
        let dropped = self.held.push(item, self.camera.upload.window_bytes);
        if dropped > 0 {
            let found =
                "nobody vouches for the box's clock yet: the oldest pictures that wait for it are dropped";
            self.lost(Problem::new(Reason::BoxClock, found, self.clocks.clock.wall()).fix(FIX_CLOCK));
            self.report.send_modify(|report| report.dropped_frames += dropped);
        }
        self.catch_up();
    }

    fn is_trusted(&mut self) -> bool {
        self.trusted |= matches!(self.clocks.clock.trust(), Trust::Unknown | Trust::Trusted);
        self.trusted
    }

    /// Stamps what was held, as soon as the clock is trusted and as far as the feed has room for it.
    fn catch_up(&mut self) {
        while self.is_trusted() {
            while let Some(item) = self.unsent.front() {
                if !(self.feed)(item.clone()) {
                    return;
                }
                self.unsent.pop_front();
            }
            match self.held.pop() {
                Some(item) => self.stamp_held(item),
                None => return,
            }
        }
    }

    fn stamp_held(&mut self, mut item: Unstamped) {
        match &mut item {
            Unstamped::Picture { picture: Picture { arrival, .. }, .. }
            | Unstamped::Sound(Sound { arrival, .. })
            | Unstamped::SenderReport(SenderReport { arrival, .. }) => {
                *arrival = self.clocks.by_now(arrival.monotonic)
            }
            Unstamped::Begin { .. } | Unstamped::End => {}
        }
        self.patient = true;
        self.stamp(item);
        self.patient = false;
    }

    /// Waits for `delay` without forgetting what is held.
    async fn wait(&mut self, delay: Duration) {
        let clock = self.clocks.clock.clone();
        let until = clock.now() + delay;
        while clock.now() < until {
            self.catch_up();
            let holds = !self.held.is_empty() || !self.unsent.is_empty();
            let next = if holds { (clock.now() + CATCH_UP).min(until) } else { until };
            clock.sleep_until(next).await;
        }
    }

    fn give_up_held(&mut self) {
        self.catch_up();
        let dropped =
            self.held.pictures() + self.unsent.iter().filter(|i| matches!(i, Feed::Video(_))).count() as u64;
        if dropped > 0 {
            tracing::warn!(
                camera = self.camera.id,
                dropped,
                "stopped before pictures that waited for the clock were sent"
            );
            self.report.send_modify(|report| report.dropped_frames += dropped);
        }
    }

    fn wait_for_clock(&mut self) {
        if self.report.borrow().state != IngestState::WaitingForClock {
            let wall = self.clocks.clock.wall();
            let found = "nobody vouches for the box's clock yet: pictures are held until somebody does";
            let problem = Problem::new(Reason::BoxClock, found, wall).fix(FIX_CLOCK);
            tracing::warn!(camera = self.camera.id, "{problem}");
            self.report.send_modify(|report| {
                (report.state, report.since) = (IngestState::WaitingForClock, wall);
                report.problem = Some(problem);
            });
        }
    }

    fn stamp(&mut self, item: Unstamped) {
        match item {
            Unstamped::Begin { rates_hz: (video_hz, audio_hz), audio } => {
                (self.waiting_for_key, self.gop) = (true, Gop::default());
                self.timeline.begin_session(video_hz, audio_hz);
                if let Some(format) = &audio {
                    self.send(Feed::AudioTrack(format.clone())); // the first audio frame says it again
                }
                self.audio = audio;
            }
            Unstamped::Picture { picture, format } => self.picture(picture, format),
            Unstamped::Sound(Sound { rtp, arrival, data }) => {
                let stamp = self.timeline.audio(rtp, arrival);
                if let Some((Stamp { timestamp, .. }, format)) = stamp.zip(self.audio.clone()) {
                    self.send(Feed::Audio(AudioFrame { data, timestamp, format }));
                }
            }
            Unstamped::SenderReport(SenderReport { kind, rtp, ntp, arrival }) => {
                self.timeline.report(kind, rtp, ntp_to_micros(ntp), arrival);
            }
            Unstamped::End => self.interrupt(Feed::Break),
        }
    }

    fn picture(&mut self, picture: Picture, format: Arc<VideoFormat>) {
        let Picture { rtp, arrival, lost, random_access, data } = picture;
        if lost > 0 {
            // Pictures after a loss refer to what is not there; the next random access point heals.
            self.wait_for_key();
        }
        let stamp = self.timeline.video(rtp, arrival, random_access);
        if stamp.new_timeline {
            tracing::warn!(camera = self.camera.id, at = %stamp.timestamp, "time jumped, a new timeline begins");
            self.interrupt(Feed::NewTimeline);
        }
        self.gop.count(random_access, stamp.timestamp);
        self.waiting_for_key &= !random_access;
        let size = data.len() as u64;
        let unit = AccessUnit { data, timestamp: stamp.timestamp, random_access, format };
        let dropped = self.waiting_for_key || !self.send_picture(unit);
        if !dropped {
            self.backoff.up(self.clocks.clock.now());
        }
        self.report_picture(stamp, arrival, lost, size, dropped);
        let waiting = self.waiting_for_key;
        self.set_state(if waiting { IngestState::WaitingForKey } else { IngestState::Live });
    }

    fn report_picture(&mut self, stamp: Stamp, arrival: Arrival, lost: u64, size: u64, dropped: bool) {
        let gop = self.gop.last;
        let clock_offset_us = self.timeline.camera_offset_us();
        let (clock, distrust) = (&self.clocks.clock, self.timeline.distrust());
        // Of the whole GOP once, so that nobody is woken for each picture.
        let begins = self.gop.frames == 1;
        self.report.send_if_modified(|report| {
            report.frames += 1;
            report.bytes += size;
            report.lost_packets += lost;
            report.dropped_frames += u64::from(dropped);
            let now = arrival.wall_time();
            if lost > 0 {
                let found = format!(
                    "{} packets lost since start, each time the pictures up to the next key frame",
                    report.lost_packets
                );
                let problem = Problem::new(Reason::PacketLoss, found, now).fix("check the network");
                report.loss = Some(Loss { at: clock.now(), problem });
            }
            report.last_frame = Some(now);
            report.clock = Some(stamp.source);
            report.clock_offset_us = clock_offset_us;
            if begins {
                report.clock_drift_ppm = self.timeline.camera_drift_ppm();
            }
            let clock_problem =
                distrust.map(|distrust| distrust.problem(now).again(report.clock_problem.as_ref()));
            let changed = report.clock_problem.is_some() != clock_problem.is_some();
            report.clock_problem = clock_problem;
            if let Some((frames, ms)) = gop {
                (report.gop_frames, report.gop_ms) = (Some(frames), Some(ms));
            }
            let works = !dropped && (report.attempts, &report.problem) != (0, &None);
            if works {
                (report.attempts, report.needs_operator, report.problem) = (0, false, None);
            }
            begins || changed || works || lost > 0 || dropped
        });
    }

    /// Returns false if the picture was dropped because the feed has no room.
    fn send_picture(&mut self, unit: AccessUnit) -> bool {
        let taken = self.send(Feed::Video(unit));
        if !taken {
            self.wait_for_key();
            let found = "the box is too slow for this camera: pictures up to the next key frame are dropped";
            let problem = Problem::new(Reason::BoxOverloaded, found, self.clocks.clock.wall());
            self.lost(problem.fix("lower the camera's bitrate, or the number of cameras on this box"));
        }
        taken
    }

    fn lost(&self, problem: Problem) {
        let loss = Loss { at: self.clocks.clock.now(), problem };
        self.report.send_modify(|report| report.loss = Some(loss));
    }

    fn wait_for_key(&mut self) {
        if !self.waiting_for_key {
            self.waiting_for_key = true;
            self.interrupt(Feed::Break);
        }
    }

    /// Tells that the next picture does not follow the last one, now or as soon as there is room.
    fn interrupt(&mut self, interruption: Feed) {
        // A new timeline is a break too.
        if !matches!(self.owed, Some(Feed::NewTimeline)) {
            self.owed = Some(interruption);
        }
        self.pay();
    }

    fn pay(&mut self) -> bool {
        if let Some(owed) = self.owed.take()
            && !self.hand_over(owed.clone())
        {
            self.owed = Some(owed);
        }
        self.owed.is_none()
    }

    fn send(&mut self, item: Feed) -> bool {
        self.pay() && self.hand_over(item)
    }

    /// What was held waits for room; what comes live does not.
    fn hand_over(&mut self, item: Feed) -> bool {
        if self.patient {
            self.unsent.push_back(item);
            return true;
        }
        (self.feed)(item)
    }

    /// Begins to back off; returns for how long.
    fn failed(&mut self, error: &SessionError) -> Duration {
        let now = self.clocks.clock.now();
        let mut delay = self.backoff.failed(now, rand::random());
        if error.needs_operator() {
            delay = delay.max(OPERATOR_DELAY);
        }
        let problem = error.problem(self.clocks.clock.wall());
        tracing::warn!(camera = self.camera.id, error = %problem, retry_in_ms = delay.as_millis(), "camera lost");
        let wall = self.clocks.clock.wall();
        self.report.send_modify(|report| {
            (report.state, report.since) = (IngestState::BackingOff, wall);
            report.attempts += 1;
            report.needs_operator = error.needs_operator();
            report.problem = Some(problem.again(report.problem.as_ref()));
            report.reconnects.add(now);
            if matches!(error, SessionError::Stalled { .. }) {
                report.stalls.add(now);
            }
        });
        delay
    }

    fn set_state(&self, state: IngestState) {
        self.report.send_if_modified(|report| {
            let changed = report.state != state;
            if changed {
                (report.state, report.since) = (state, self.clocks.clock.wall());
            }
            changed
        });
    }
}

impl Distrust {
    pub(crate) fn problem(self, now: SystemTime) -> Problem {
        match self {
            Distrust::Clock { off_us } => {
                let found =
                    format!("the camera's clock is off by {} s, receive time is used", off_us / 1_000_000);
                Problem::new(Reason::CameraClock, found, now).fix("set NTP in the camera")
            }
            Distrust::RtpTime { off_us } => {
                let found = format!(
                    "the sender report's RTP time does not fit its pictures: it is {:.1} s from theirs, receive time is used",
                    off_us as f64 / 1e6
                );
                Problem::new(Reason::SenderReport, found, now).fix("update the camera's firmware")
            }
        }
    }
}

impl Gop {
    fn count(&mut self, random_access: bool, timestamp: ProducerTimestamp) {
        if random_access {
            if let Some(start) = self.start {
                self.last = Some((self.frames, timestamp.as_millis().saturating_sub(start.as_millis())));
            }
            self.start = Some(timestamp);
            self.frames = 0;
        }
        self.frames = self.frames.saturating_add(1);
    }
}
