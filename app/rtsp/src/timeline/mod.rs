//! One time for all pictures and sounds of a camera, over all its RTSP sessions.
//!
//! ```text
//!   RTP time of a track --------+
//!   arrival, monotonic ---------+--> candidate (UTC) --> slew, step --> strictly increasing ms
//!   sender reports -------------+         per track          shared by the tracks of a session
//!   wall clock of the box ------+
//! ```
//!
//! **Candidate.** With sender reports that fit: the median of `NTP - RTP` over the last ones. Without: the smallest
//! `arrival - RTP` of the last half minute (network delay left out as far as it can be seen), carried to UTC by what
//! earlier reports of this camera said, else by the box's wall clock. Arrival is monotonic time, so a step of the
//! wall clock cannot change the distance of two pictures.
//!
//! **Slew.** A candidate that is up to [`STEP_AHEAD_US`] ahead or [`STEP_BACK_US`] behind is approached by at most 5 % of
//! the time that passes: order and spacing stay.
//!
//! **Step.** What is further off (a clock was set, the first report tells of a clock far from ours) is a real jump: all
//! tracks take it together, at a random access point, and it begins a new timeline. Only between two timelines may
//! time run back.
//!
//! **Order.** In a timeline no two pictures have the same millisecond, and pictures have the order of their RTP times (which with
//! B pictures is not the order in which they come). A new session goes on behind everything before it.
//!
//! A jump of the RTP time itself is recognised by the arrival times: the stamps go on as if it had not happened.

mod drift;
mod order;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
mod track;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use media::{ClockSource, ProducerTimestamp};

use drift::Drift;
use order::Order;
use track::Track;

/// A camera whose clock is further off than this is not believed.
const CAMERA_LIMIT_US: Micros = 10_000_000;
/// A candidate further ahead than this is a real jump.
const STEP_AHEAD_US: Micros = 1_000_000;
/// ... and one further behind than this.
const STEP_BACK_US: Micros = 5_000_000;
/// A real jump waits for a random access point, but in a camera that has none no longer than this.
const STEP_WAIT_US: Micros = 10_000_000;
/// From the last picture of a session to the first one of the next, where their clocks contradict each other.
const GAP_US: Micros = 40_000;
/// The wall clock is taken anew only when it is off by more: reading two clocks one after the other makes some jitter.
const WALL_JITTER_US: Micros = 20_000;
/// The smallest distance of two frames that is assumed where RTP time does not tell it.
const LEAST_US: Micros = 1_000;
/// Sender reports that medians are taken over; they come every 2 to 5 s.
const REPORTS: usize = 5;

/// Microseconds: of UTC since the Unix epoch, or of monotonic time since any fixed moment.
pub(crate) type Micros = i64;

/// When something arrived, by both clocks of the box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) monotonic: Micros,
    pub(crate) wall: Micros,
}

impl Arrival {
    pub(crate) fn wall_time(self) -> SystemTime {
        let since = Duration::from_micros(self.wall.unsigned_abs());
        let at = if self.wall < 0 { UNIX_EPOCH.checked_sub(since) } else { UNIX_EPOCH.checked_add(since) };
        at.unwrap_or(UNIX_EPOCH)
    }
}

/// The time of a picture or of the first sample of an audio frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) timestamp: ProducerTimestamp,
    pub(crate) source: ClockSource,
    /// This and what follows does not continue the time of what came before.
    pub(crate) new_timeline: bool,
}

/// The tracks of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Video,
    Audio,
}

/// Why sender reports of the camera are not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// The camera's clock is so many microseconds ahead of ours, or behind.
    Clock { off_us: i64 },
    /// The report's RTP time is so many microseconds ahead of that of the pictures that arrive, or behind: its NTP time may
    /// be right, but leads to wrong times of pictures.
    RtpTime { off_us: i64 },
}

/// The time of one camera; it outlives the sessions, and a crash of whoever reads them.
#[derive(Debug)]
pub struct Timeline {
    /// Where the monotonic microseconds of all its sessions count from.
    epoch: Option<Instant>,
    video: Track,
    audio: Track,
    /// Wall minus monotonic time of the box.
    wall: Option<Micros>,
    /// Camera clock minus monotonic time of the box, at the last reports that were believed.
    camera: Offsets,
    /// Camera clock minus ours at the latest report, transport delay included.
    camera_offset_us: Option<Micros>,
    camera_drift: Drift,
    distrust: Option<Distrust>,
    /// UTC of the stamps minus monotonic time at which the fastest pictures arrive.
    pace: Option<Micros>,
    /// RTP time of the first picture that a real jump waits at.
    step_since: Option<Micros>,
    order: Order,
}

/// The newest of some values, for their median.
#[derive(Clone, Debug, Default)]
struct Offsets(std::collections::VecDeque<Micros>);

impl Offsets {
    fn push(&mut self, value: Micros) {
        if self.0.len() == REPORTS {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }

    fn median(&self) -> Option<Micros> {
        let mut sorted: Vec<_> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }

    fn clear(&mut self) {
        self.0.clear();
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Default for Timeline {
    fn default() -> Self {
        Self::new()
    }
}

impl Timeline {
    pub(crate) fn new() -> Self {
        Self {
            epoch: None,
            video: Track::new(90_000),
            audio: Track::new(90_000),
            wall: None,
            camera: Offsets::default(),
            camera_offset_us: None,
            camera_drift: Drift::default(),
            distrust: None,
            pace: None,
            step_since: None,
            order: Order::default(),
        }
    }

    /// Where its monotonic time counts from: the first `now` that it is asked with.
    pub(crate) fn epoch(&mut self, now: Instant) -> Instant {
        *self.epoch.get_or_insert(now)
    }

    /// A session with these RTP ticks per second begins; 0 counts as 90000.
    pub(crate) fn begin_session(&mut self, video_rate_hz: u32, audio_rate_hz: u32) {
        self.video.begin_session(video_rate_hz);
        self.audio.begin_session(audio_rate_hz);
        self.distrust = None;
        self.step_since = None;
        self.order.begin_session();
    }

    /// Camera clock minus ours at the latest sender report, transport delay included.
    pub(crate) fn camera_offset_us(&self) -> Option<Micros> {
        self.camera_offset_us
    }

    /// Millionths by which the camera's clock is faster than the monotonic clock of the box, of the last hour; absent until a few
    /// minutes are over, and where there are no sender reports.
    pub(crate) fn camera_drift_ppm(&self) -> Option<f64> {
        self.camera_drift.ppm()
    }

    /// Why the latest sender reports are not used.
    pub(crate) fn distrust(&self) -> Option<Distrust> {
        self.distrust
    }

    /// Takes a sender report: `rtp` ticks are at `ntp` on the camera's clock.
    pub(crate) fn report(&mut self, kind: Kind, rtp: i64, ntp: Micros, arrival: Arrival) {
        let off_us = ntp.saturating_sub(arrival.wall);
        self.camera_offset_us = Some(off_us);
        self.camera_drift.report(ntp, arrival.monotonic);
        if off_us.checked_abs().is_none_or(|off| off > CAMERA_LIMIT_US) {
            self.distrust = Some(Distrust::Clock { off_us });
            self.camera.clear();
            self.video.forget_reports();
            self.audio.forget_reports();
            return;
        }
        self.track(kind).keep_report(rtp, ntp, arrival.monotonic);
        self.judge_report(kind);
    }

    /// Believes or refuses the report that waits, as soon as there is anything to hold against it.
    fn judge_report(&mut self, kind: Kind) {
        match self.track(kind).judge_report() {
            None => {}
            Some(Ok(camera)) => {
                self.camera.push(camera);
                self.distrust = None;
            }
            Some(Err(off_us)) => self.distrust = Some(Distrust::RtpTime { off_us }),
        }
    }

    /// The time of the picture with RTP time `rtp` (unwrapped ticks).
    pub(crate) fn video(&mut self, rtp: i64, arrival: Arrival, random_access: bool) -> Stamp {
        self.read_wall(arrival);
        let rtp_us = self.video.micros(rtp);
        if self.video.is_jump(rtp_us, arrival.monotonic) || self.order.is_jump_back(rtp_us, random_access) {
            let instead = self.order.expected_rtp(arrival.monotonic).unwrap_or(rtp_us);
            self.video.move_origin(instead, rtp_us);
            self.order.rtp_jumped();
        }
        self.video.arrived(rtp_us, arrival.monotonic);
        self.judge_report(Kind::Video);
        let (target, source) = self.target(Kind::Video);
        let mut new_timeline = false;
        match self.video.applied() {
            None => {
                let candidate = rtp_us.saturating_add(target);
                let earliest = self.order.floor_us().map(|floor| floor.saturating_add(GAP_US));
                let short_of = earliest.map_or(0, |earliest| earliest.saturating_sub(candidate));
                let ahead = self
                    .pace
                    .map_or(0, |pace| candidate.saturating_sub(arrival.monotonic.saturating_add(pace)));
                new_timeline = short_of > STEP_BACK_US || ahead > STEP_AHEAD_US.saturating_add(GAP_US);
                let offset = if new_timeline { target } else { target.saturating_add(short_of.max(0)) };
                self.video.apply(offset, rtp_us, arrival.monotonic);
            }
            Some(offset) => {
                let difference = target.saturating_sub(offset);
                if (-STEP_BACK_US..=STEP_AHEAD_US).contains(&difference) {
                    self.step_since = None;
                    self.video.slew_to(target, rtp_us, arrival.monotonic);
                } else {
                    let since = *self.step_since.get_or_insert(rtp_us);
                    new_timeline = random_access || rtp_us.saturating_sub(since) > STEP_WAIT_US;
                    let step = if new_timeline { difference } else { 0 };
                    self.video.apply(offset.saturating_add(step), rtp_us, arrival.monotonic);
                    self.audio.step(step);
                }
            }
        }
        if new_timeline {
            self.step_since = None;
            self.order.new_timeline();
        }
        let offset = self.video.applied().unwrap_or(target);
        self.pace = Some(offset.saturating_sub(self.video.by_arrival()));
        let at_us = rtp_us.saturating_add(offset);
        let ms = self.order.picture(rtp_us, millis(at_us), arrival.monotonic);
        Stamp { timestamp: timestamp(ms), source, new_timeline }
    }

    /// The time of the audio frame with RTP time `rtp` (unwrapped ticks); `None` before the session's first picture.
    pub(crate) fn audio(&mut self, rtp: i64, arrival: Arrival) -> Option<Stamp> {
        self.read_wall(arrival);
        let rtp_us = self.audio.micros(rtp);
        if self.audio.is_jump(rtp_us, arrival.monotonic) || self.audio.is_not_ahead(rtp_us) {
            let instead = self.audio.expected_rtp(arrival.monotonic).unwrap_or(rtp_us);
            self.audio.move_origin(instead, rtp_us);
        }
        self.audio.arrived(rtp_us, arrival.monotonic);
        self.judge_report(Kind::Audio);
        let pictures = self.video.applied()?;
        // What the pictures are still off by, the sound is off by too.
        let off = pictures.saturating_sub(self.target(Kind::Video).0);
        let (target, source) = self.target(Kind::Audio);
        self.audio.slew_to(target.saturating_add(off), rtp_us, arrival.monotonic);
        let at_us = rtp_us.saturating_add(self.audio.applied().unwrap_or(target));
        let ms = self.order.sound(millis(at_us));
        Some(Stamp { timestamp: timestamp(ms), source, new_timeline: false })
    }

    fn track(&mut self, kind: Kind) -> &mut Track {
        match kind {
            Kind::Video => &mut self.video,
            Kind::Audio => &mut self.audio,
        }
    }

    fn read_wall(&mut self, arrival: Arrival) {
        let now = arrival.wall.saturating_sub(arrival.monotonic);
        if self.wall.is_none_or(|held| now.abs_diff(held) > WALL_JITTER_US.unsigned_abs()) {
            self.wall = Some(now);
        }
    }

    /// Where the track's RTP time leads to in UTC, as offset, and by which clock.
    fn target(&mut self, kind: Kind) -> (Micros, ClockSource) {
        let camera = self.camera.median();
        let wall = self.wall.unwrap_or(0);
        let track = self.track(kind);
        match (track.by_reports(), camera) {
            (Some(offset), camera) => {
                track.learn_latency(camera, offset);
                (offset, ClockSource::Rtcp)
            }
            (None, Some(camera)) => {
                (track.by_arrival().saturating_add(camera).saturating_sub(track.latency()), ClockSource::Rtcp)
            }
            (None, None) => (track.by_arrival().saturating_add(wall), ClockSource::Receive),
        }
    }
}

/// The nearest one: a microsecond's rounding on the way shall not make another millisecond of it. Not before 1970.
fn millis(us: Micros) -> i64 {
    us.saturating_add(500).div_euclid(1000).max(0)
}

fn timestamp(ms: i64) -> ProducerTimestamp {
    ProducerTimestamp::from_millis(ms.unsigned_abs())
}

/// NTP 32.32 fixed point since 1900 (RFC 3550 section 4) to [`Micros`].
pub(crate) fn ntp_to_micros(ntp: u64) -> Micros {
    const SECONDS_1900_TO_1970: i64 = 2_208_988_800;
    let seconds = i64::from((ntp >> 32) as u32) - SECONDS_1900_TO_1970;
    let micros = (((ntp & 0xffff_ffff) * 1_000_000) >> 32) as i64;
    seconds * 1_000_000 + micros
}
