//! One clock for a camera's pictures: RTP time becomes UTC.
//!
//! ```text
//!            sender report within CAMERA_LIMIT
//!  receive ------------------------------------> camera
//!     ^                                            |
//!     +---- none for this RTP timeline (jump) -----+---- report far off: camera clock is wrong
//! ```
//!
//! * **camera**: the median of the last reports' `NTP - RTP`; pictures then carry the camera's own time.
//! * **receive**: the smallest `arrival - RTP` of the last half minute, so that network delay is left out as far
//!   as it can be seen.
//!
//! A change of the mapping (drift, the first report, a step of a clock) is not jumped to but approached by at
//! most 5 % of the time that passes, so that time never runs backwards; only a step ahead of more than a second
//! is taken at once. A jump of the RTP time itself is recognised by the arrival times: the stamps go on as if it
//! had not happened. A step back of more than half a minute is too long to be walked off and starts a new
//! timeline.

use std::collections::VecDeque;

use media::{ClockSource, ProducerTimestamp};

/// A camera whose clock is further off than this is not believed.
const CAMERA_LIMIT_US: i64 = 10_000_000;
/// Sender reports that the median is taken over; they come every 2 to 5 s.
const REPORTS: usize = 5;
/// Half of the time over which the smallest delay counts.
const DELAY_BUCKET_US: i64 = 15_000_000;
/// RTP time that runs ahead of arrival, or backwards, by more than this has jumped.
const JUMP_US: i64 = 1_500_000;
/// Differences above this are taken at once when they lead ahead.
const STEP_AHEAD_US: i64 = 1_000_000;
/// ... and begin a new timeline when they lead back.
const STEP_BACK_US: i64 = -30_000_000;

/// UTC microseconds since the Unix epoch.
pub(crate) type Micros = i64;

/// A stamped picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) timestamp: ProducerTimestamp,
    pub(crate) source: ClockSource,
    /// Time went back by more than can be walked off: what follows is another timeline.
    pub(crate) new_timeline: bool,
}

/// The clock of one track of one RTSP session.
#[derive(Debug)]
pub(crate) struct RtpClock {
    rate_hz: i64,
    reports: VecDeque<Micros>,
    camera_offset_us: Option<i64>,
    camera_is_wrong: bool,
    delay: SmallestDelay,
    applied: Option<Applied>,
}

#[derive(Clone, Copy, Debug)]
struct Applied {
    offset: Micros,
    rtp: Micros,
    received: Micros,
}

#[derive(Debug, Default)]
struct SmallestDelay {
    since_rtp: Option<Micros>,
    current: Option<Micros>,
    previous: Option<Micros>,
}

impl RtpClock {
    /// `rate_hz`: RTP ticks per second; 0 counts as 90000.
    pub(crate) fn new(rate_hz: u32) -> Self {
        Self {
            rate_hz: i64::from(if rate_hz == 0 { 90_000 } else { rate_hz }),
            reports: VecDeque::new(),
            camera_offset_us: None,
            camera_is_wrong: false,
            delay: SmallestDelay::default(),
            applied: None,
        }
    }

    /// Camera clock minus ours at the latest sender report, transport delay included.
    pub(crate) fn camera_offset_us(&self) -> Option<i64> {
        self.camera_offset_us
    }

    /// The latest report was too far from our clock to be believed.
    pub(crate) fn camera_is_wrong(&self) -> bool {
        self.camera_is_wrong
    }

    /// Takes a sender report: `rtp` ticks are at `ntp` on the camera's clock; it arrived at `received`.
    pub(crate) fn report(&mut self, rtp: i64, ntp: Micros, received: Micros) {
        let offset_us = ntp.saturating_sub(received);
        self.camera_offset_us = Some(offset_us);
        self.camera_is_wrong = offset_us.checked_abs().is_none_or(|off| off > CAMERA_LIMIT_US);
        if self.camera_is_wrong {
            self.reports.clear();
            return;
        }
        if self.reports.len() == REPORTS {
            self.reports.pop_front();
        }
        self.reports.push_back(ntp.saturating_sub(self.micros(rtp)));
    }

    /// UTC of the picture with RTP time `rtp` (unwrapped ticks) that arrived at `received`.
    pub(crate) fn stamp(&mut self, rtp: i64, received: Micros) -> Stamp {
        let rtp = self.micros(rtp);
        let passed =
            self.applied.map(|last| (rtp.saturating_sub(last.rtp), received.saturating_sub(last.received)));
        if let (Some((rtp_passed, wall_passed)), Some(last)) = (passed, &mut self.applied)
            && (rtp_passed < -JUMP_US || rtp_passed > wall_passed.max(0).saturating_add(JUMP_US))
        {
            last.offset = last.offset.saturating_add(wall_passed.max(0)).saturating_sub(rtp_passed);
            self.reports.clear();
            self.delay = SmallestDelay::default();
        }
        self.delay.add(rtp, received.saturating_sub(rtp));
        let (target, source) = match self.median_report() {
            Some(offset) => (offset, ClockSource::Rtcp),
            None => (self.delay.smallest().unwrap_or(received.saturating_sub(rtp)), ClockSource::Receive),
        };
        let mut new_timeline = false;
        let offset = match self.applied {
            None => target,
            Some(last) => {
                let difference = target.saturating_sub(last.offset);
                new_timeline = difference < STEP_BACK_US;
                if new_timeline || difference > STEP_AHEAD_US {
                    target
                } else {
                    let step = rtp.saturating_sub(last.rtp).clamp(0, JUMP_US) / 20;
                    last.offset + difference.clamp(-step, step)
                }
            }
        };
        self.applied = Some(Applied { offset, rtp, received });
        // The nearest one: a microsecond's rounding on the way shall not make another millisecond of it.
        let ms = rtp.saturating_add(offset).saturating_add(500).div_euclid(1000);
        let timestamp = ProducerTimestamp::from_millis(u64::try_from(ms).unwrap_or(0));
        Stamp { timestamp, source, new_timeline }
    }

    fn median_report(&self) -> Option<Micros> {
        let mut sorted: Vec<_> = self.reports.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }

    fn micros(&self, ticks: i64) -> Micros {
        let wide = i128::from(ticks) * 1_000_000 / i128::from(self.rate_hz);
        i64::try_from(wide).unwrap_or(i64::MAX)
    }
}

impl SmallestDelay {
    fn add(&mut self, rtp: Micros, delay: Micros) {
        let since = *self.since_rtp.get_or_insert(rtp);
        if rtp.saturating_sub(since) >= DELAY_BUCKET_US {
            self.previous = self.current.take();
            self.since_rtp = Some(rtp);
        }
        self.current = Some(self.current.map_or(delay, |smallest| smallest.min(delay)));
    }

    fn smallest(&self) -> Option<Micros> {
        [self.previous, self.current].into_iter().flatten().min()
    }
}

/// NTP 32.32 fixed point since 1900 (RFC 3550 section 4) to [`Micros`].
pub(crate) fn ntp_to_micros(ntp: u64) -> Micros {
    const SECONDS_1900_TO_1970: i64 = 2_208_988_800;
    let seconds = i64::from((ntp >> 32) as u32) - SECONDS_1900_TO_1970;
    let micros = (((ntp & 0xffff_ffff) * 1_000_000) >> 32) as i64;
    seconds * 1_000_000 + micros
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Micros = 1_795_186_073_000_000;
    const SECOND: Micros = 1_000_000;

    /// A camera at 90 kHz and 25 fps; `delay` is how long a picture takes to us.
    struct Rig {
        clock: RtpClock,
        /// True time of the newest picture.
        now: Micros,
        rtp: i64,
        stamps: Vec<(Micros, Stamp)>,
    }

    impl Rig {
        fn new() -> Self {
            Self { clock: RtpClock::new(90_000), now: START, rtp: 1_000_000, stamps: Vec::new() }
        }

        fn pictures(&mut self, count: u32, delay: impl Fn(u32) -> Micros) {
            for n in 0..count {
                let stamp = self.clock.stamp(self.rtp, self.now + delay(n));
                self.stamps.push((self.now, stamp));
                self.now += SECOND / 25;
                self.rtp += 3600;
            }
        }

        fn report(&mut self, camera_error: Micros) {
            self.clock.report(self.rtp, self.now + camera_error, self.now + 5_000);
        }

        /// Error of the newest stamp in ms.
        fn error_ms(&self) -> i64 {
            let (truth, stamp) = self.stamps[self.stamps.len() - 1];
            stamp.timestamp.as_millis() as i64 - truth / 1000
        }

        fn never_back(&self) -> bool {
            self.stamps.windows(2).all(|two| two[0].1.timestamp < two[1].1.timestamp)
        }
    }

    #[test]
    fn receive_time_leaves_the_varying_part_of_the_delay_out() {
        let mut rig = Rig::new();
        rig.pictures(200, |n| 20_000 + i64::from(n * 7919 % 50) * 1000);
        assert!((15..=35).contains(&rig.error_ms()), "{}", rig.error_ms());
        assert_eq!(rig.stamps[199].1.source, ClockSource::Receive);
        assert!(rig.never_back());
    }

    #[test]
    fn sender_reports_give_the_cameras_own_time() {
        let mut rig = Rig::new();
        rig.report(0);
        rig.pictures(100, |n| 20_000 + i64::from(n % 7) * 30_000);
        assert!(rig.error_ms().abs() <= 1);
        assert_eq!(rig.stamps[0].1.source, ClockSource::Rtcp);
        assert_eq!(rig.clock.camera_offset_us(), Some(-5_000));
    }

    #[test]
    fn the_first_report_and_drift_are_walked_to_never_back() {
        let mut rig = Rig::new();
        rig.pictures(25, |_| 300_000);
        assert_eq!(rig.error_ms(), 300);
        for _ in 0..10 {
            rig.report(0);
            rig.pictures(25, |_| 300_000);
        }
        assert!(rig.error_ms().abs() <= 1, "{}", rig.error_ms());
        assert!(rig.never_back());
    }

    #[test]
    fn the_coarseness_of_rtp_and_ntp_changes_no_millisecond() {
        for late_us in (0..2_000_000).step_by(33_300) {
            let mut clock = RtpClock::new(90_000);
            // As a camera writes it: both times rounded down, to 11 us and to 2^-32 s.
            let seconds = ((START / SECOND + 2_208_988_800 + late_us / SECOND) as u64) << 32;
            let fraction = ((late_us % SECOND) as u64 * (1 << 32)) / SECOND as u64;
            clock.report(late_us * 90_000 / SECOND, ntp_to_micros(seconds + fraction), START + late_us);
            for n in 0..20 {
                let stamp = clock.stamp(n * 9000, START + n * 100_000);
                assert_eq!(
                    stamp.timestamp.as_millis() as i64,
                    START / 1000 + n * 100,
                    "report at {late_us} us"
                );
            }
        }
    }

    #[test]
    fn one_wild_report_does_not_move_the_median() {
        let mut rig = Rig::new();
        for error in [0, 0, 0, 400_000, 0] {
            rig.report(error);
            rig.pictures(5, |_| 10_000);
        }
        assert!(rig.error_ms().abs() <= 1);
    }

    #[test]
    fn a_camera_with_a_wrong_clock_is_not_believed() {
        let mut rig = Rig::new();
        rig.report(3600 * SECOND);
        rig.pictures(50, |_| 10_000);
        assert_eq!(rig.error_ms(), 10);
        assert!(rig.clock.camera_is_wrong());
        assert_eq!(rig.clock.camera_offset_us(), Some(3600 * SECOND - 5_000));
    }

    #[test]
    fn a_jump_of_the_rtp_time_does_not_reach_the_stamps() {
        for jump in [-5 * 90_000, 5 * 90_000, 100_000 * 90_000, -100_000 * 90_000] {
            let mut rig = Rig::new();
            rig.report(0);
            rig.pictures(50, |_| 10_000);
            rig.rtp += jump;
            rig.pictures(50, |_| 10_000);
            assert!(rig.error_ms().abs() <= 40, "jump {jump}: {}", rig.error_ms());
            assert!(rig.never_back(), "jump {jump}");
            rig.report(0);
            rig.pictures(50, |_| 10_000);
            assert!(rig.error_ms().abs() <= 1, "jump {jump}: {}", rig.error_ms());
        }
    }

    #[test]
    fn a_network_stall_and_its_burst_keep_the_capture_times() {
        let mut rig = Rig::new();
        rig.report(0);
        rig.pictures(50, |_| 10_000);
        rig.pictures(75, |n| 3_000_000 - i64::from(n) * 40_000); // held back, then all at once
        rig.pictures(25, |_| 10_000);
        let worst =
            rig.stamps.iter().map(|(truth, s)| (s.timestamp.as_millis() as i64 - truth / 1000).abs()).max();
        assert!(worst <= Some(1), "{worst:?}");
    }

    #[test]
    fn our_clock_stepping_far_back_starts_a_new_timeline() {
        let mut rig = Rig::new();
        rig.pictures(50, |_| 10_000);
        rig.pictures(800, |_| 10_000 - 3600 * SECOND);
        assert_eq!(rig.stamps.iter().filter(|(_, stamp)| stamp.new_timeline).count(), 1);
        assert_eq!(rig.error_ms(), 10 - 3_600_000);
    }

    #[test]
    fn b_frames_keep_their_order_of_presentation() {
        let mut clock = RtpClock::new(90_000);
        let order = [0, 3, 1, 2, 6, 4, 5];
        let stamps: Vec<_> = order
            .iter()
            .enumerate()
            .map(|(n, picture)| clock.stamp(picture * 3600, START + n as i64 * 40_000).timestamp.as_millis())
            .collect();
        let mut sorted = stamps.clone();
        sorted.sort_unstable();
        let ranks: Vec<_> = stamps.iter().map(|s| sorted.binary_search(s).expect("itself") as i64).collect();
        assert_eq!(ranks, order);
    }

    #[test]
    fn extreme_numbers_do_not_overflow() {
        let mut clock = RtpClock::new(0);
        for value in [i64::MIN, 0, i64::MAX, -1] {
            clock.report(value, i64::MAX, i64::MIN);
            clock.report(value, value, value);
            clock.stamp(value, i64::MAX);
            clock.stamp(i64::MAX, value);
            clock.stamp(value, i64::MIN);
        }
    }

    #[test]
    fn ntp_conversion() {
        assert_eq!(ntp_to_micros(2_208_988_800 << 32), 0);
        assert_eq!(ntp_to_micros((2_208_988_800 + 10) << 32 | 0x8000_0000), 10_500_000);
        assert!(ntp_to_micros(u64::MAX) > 0 && ntp_to_micros(0) < 0);
    }
}
