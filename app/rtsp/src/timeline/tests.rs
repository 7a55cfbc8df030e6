use super::*;

const START: Micros = 1_795_186_073_000_000;
const SECOND: Micros = 1_000_000;
/// Pictures from one random access point to the next.
const GOP: usize = 50;

/// A camera at 90 kHz and 25 fps with sound at 8 kHz and 50 frames a second, and the box that receives it.
struct Rig {
    timeline: Timeline,
    /// True time of the newest picture.
    now: Micros,
    rtp: i64,
    /// What the box's wall clock is off by.
    wall_error: Micros,
    pictures: usize,
    sound: bool,
    stamps: Vec<(Micros, Stamp)>,
    sounds: Vec<(Micros, Stamp)>,
}

impl Rig {
    fn new() -> Self {
        let mut timeline = Timeline::new();
        timeline.begin_session(90_000, 8_000);
        Self {
            timeline,
            now: START,
            rtp: 1_000_000,
            wall_error: 0,
            pictures: 0,
            sound: false,
            stamps: Vec::new(),
            sounds: Vec::new(),
        }
    }

    fn with_sound(mut self) -> Self {
        self.sound = true;
        self
    }

    fn arrival(&self, delay: Micros) -> Arrival {
        let monotonic = self.now - START + 77 * SECOND + delay;
        Arrival { monotonic, wall: self.now + self.wall_error + delay }
    }

    fn pictures(&mut self, count: u32, delay: impl Fn(u32) -> Micros) {
        for n in 0..count {
            let random_access = self.pictures.is_multiple_of(GOP);
            let stamp = self.timeline.video(self.rtp, self.arrival(delay(n)), random_access);
            self.stamps.push((self.now, stamp));
            self.pictures += 1;
            if self.sound {
                // Half a picture later, twice; its own RTP clock stands elsewhere.
                for part in 0..2 {
                    let at = self.now + part * SECOND / 50;
                    let rtp = (at - START) * 8_000 / SECOND + 555;
                    let stamp = self.timeline.audio(rtp, self.arrival(delay(n) + part * SECOND / 50));
                    self.sounds.extend(stamp.map(|stamp| (at, stamp)));
                }
            }
            self.now += SECOND / 25;
            self.rtp += 3600;
        }
    }

    fn report(&mut self, camera_error: Micros) {
        self.report_with(camera_error, 0);
    }

    /// RTP time of the report off by `rtp_error`.
    fn report_with(&mut self, camera_error: Micros, rtp_error: Micros) {
        let rtp = self.rtp + rtp_error * 90_000 / SECOND;
        self.timeline.report(Kind::Video, rtp, self.now + camera_error, self.arrival(5_000));
    }

    fn audio_report(&mut self, camera_error: Micros) {
        let rtp = (self.now - START) * 8_000 / SECOND + 555;
        self.timeline.report(Kind::Audio, rtp, self.now + camera_error, self.arrival(5_000));
    }

    /// The camera is gone for `gap`; its RTP time begins elsewhere.
    fn reconnect(&mut self, gap: Micros) {
        self.now += gap;
        self.rtp = self.rtp.wrapping_mul(31) % 4_000_000_000;
        self.pictures = 0;
        self.timeline.begin_session(90_000, 8_000);
    }

    /// Error of the newest stamp in ms.
    fn error_ms(&self) -> i64 {
        error_ms(self.stamps[self.stamps.len() - 1])
    }

    fn never_back(&self) -> bool {
        self.stamps.windows(2).all(|two| two[0].1.timestamp < two[1].1.timestamp)
    }

    fn new_timelines(&self) -> usize {
        self.stamps.iter().filter(|(_, stamp)| stamp.new_timeline).count()
    }

    /// Within each timeline stamps increase, by the time that passed give or take 5 %, but for what lies between sessions.
    fn check(&self) {
        for two in self.stamps.windows(2) {
            if two[1].1.new_timeline {
                continue;
            }
            let passed = (two[1].0 - two[0].0) / 1000;
            let stamped = two[1].1.timestamp.as_millis() as i64 - two[0].1.timestamp.as_millis() as i64;
            let same_session = passed == 40;
            assert!(stamped > 0, "{stamped} ms at {}", two[1].1.timestamp);
            assert!(!same_session || (38..=42).contains(&stamped), "{stamped} ms at {}", two[1].1.timestamp);
        }
    }
}

fn error_ms((truth, stamp): (Micros, Stamp)) -> i64 {
    stamp.timestamp.as_millis() as i64 - truth / 1000
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
    assert_eq!(rig.timeline.camera_offset_us(), Some(-5_000));
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
        let mut timeline = Timeline::new();
        timeline.begin_session(90_000, 8_000);
        let arrival = |us| Arrival { monotonic: us, wall: START + us };
        // As a camera writes it: both times rounded down, to 11 us and to 2^-32 s.
        let seconds = ((START / SECOND + 2_208_988_800 + late_us / SECOND) as u64) << 32;
        let fraction = ((late_us % SECOND) as u64 * (1 << 32)) / SECOND as u64;
        let ntp = ntp_to_micros(seconds + fraction);
        timeline.report(Kind::Video, late_us * 90_000 / SECOND, ntp, arrival(late_us));
        for n in 0..20 {
            let stamp = timeline.video(n * 9000, arrival(n * 100_000), true);
            let ms = stamp.timestamp.as_millis() as i64;
            assert_eq!(ms, START / 1000 + n * 100, "report at {late_us} us");
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
    let off_us = 3600 * SECOND - 5_000;
    assert_eq!(rig.timeline.distrust(), Some(Distrust::Clock { off_us }));
    assert_eq!(rig.timeline.camera_offset_us(), Some(off_us));
}

#[test]
fn a_report_whose_rtp_time_is_wrong_is_refused_and_named() {
    for rtp_error in [3600 * SECOND, -3600 * SECOND, 6 * SECOND, -6 * SECOND] {
        let mut rig = Rig::new();
        rig.report_with(0, rtp_error); // before the first picture
        rig.pictures(50, |_| 10_000);
        assert!(matches!(rig.timeline.distrust(), Some(Distrust::RtpTime { .. })), "{rtp_error}");
        for _ in 0..5 {
            rig.report_with(0, rtp_error);
            rig.pictures(50, |_| 10_000);
        }
        let Some(Distrust::RtpTime { off_us }) = rig.timeline.distrust() else {
            panic!("believed {rtp_error}")
        };
        assert!((off_us - rtp_error).abs() < SECOND, "{off_us} for {rtp_error}");
        assert_eq!((rig.error_ms(), rig.new_timelines()), (10, 0), "{rtp_error}");
        assert_eq!(rig.stamps[299].1.source, ClockSource::Receive);

        rig.report(0);
        rig.pictures(50, |_| 10_000);
        assert_eq!(rig.timeline.distrust(), None, "the camera has mended its ways");
        assert!(rig.error_ms().abs() <= 1);
        rig.check();
    }
}

#[test]
fn one_misfit_among_good_reports_changes_nothing() {
    let mut rig = Rig::new();
    for rtp_error in [0, 0, 3600 * SECOND, 0] {
        rig.report_with(0, rtp_error);
        rig.pictures(50, |_| 10_000);
        assert_eq!((rig.error_ms(), rig.timeline.distrust()), (0, None));
    }
}

#[test]
fn late_pictures_and_late_reports_of_a_stalled_network_are_no_misfit() {
    let mut rig = Rig::new();
    rig.pictures(50, |_| 10_000);
    // Held back for four seconds, the report among them, and then all at once.
    rig.pictures(1, |_| 4_000_000);
    rig.timeline.report(Kind::Video, rig.rtp, rig.now, rig.arrival(3_960_000));
    rig.pictures(99, |n| 3_960_000 - i64::from(n) * 40_000);
    rig.pictures(25, |_| 10_000);
    assert_eq!((rig.timeline.distrust(), rig.error_ms().abs() <= 10), (None, true));
    rig.check();
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
fn a_short_jump_back_is_told_from_b_pictures() {
    let mut rig = Rig::new();
    rig.pictures(51, |_| 10_000);
    rig.rtp -= 90_000;
    rig.pictures(199, |_| 10_000);
    assert!((0..=40).contains(&rig.error_ms()), "{}", rig.error_ms());
    let after: Vec<_> = rig.stamps[80..].iter().map(|(_, stamp)| stamp.timestamp).collect();
    assert!(after.is_sorted() && rig.new_timelines() == 0);
    let all: std::collections::BTreeSet<_> =
        rig.stamps.iter().map(|(_, s)| s.timestamp.as_millis()).collect();
    assert_eq!(all.len(), 250, "no millisecond twice");
}

#[test]
fn a_random_access_point_is_never_a_reordered_picture() {
    let mut rig = Rig::new();
    rig.pictures(50, |_| 10_000);
    rig.rtp -= 90_000;
    rig.pictures(100, |_| 10_000);
    assert!((0..=40).contains(&rig.error_ms()) && rig.never_back(), "{}", rig.error_ms());
}

#[test]
fn a_network_stall_and_its_burst_keep_the_capture_times() {
    let mut rig = Rig::new();
    rig.report(0);
    rig.pictures(50, |_| 10_000);
    rig.pictures(75, |n| 3_000_000 - i64::from(n) * 40_000); // held back, then all at once
    rig.pictures(25, |_| 10_000);
    let worst = rig.stamps.iter().map(|stamped| error_ms(*stamped).abs()).max();
    assert!(worst <= Some(1), "{worst:?}");
}

#[test]
fn our_clock_stepping_far_back_starts_a_new_timeline() {
    let mut rig = Rig::new();
    rig.pictures(50, |_| 10_000);
    rig.wall_error = -3600 * SECOND;
    rig.pictures(800, |_| 10_000);
    assert_eq!(rig.new_timelines(), 1);
    assert_eq!(rig.error_ms(), 10 - 3_600_000);
    rig.check();
}

#[test]
fn a_real_jump_waits_for_a_random_access_point() {
    for step in [60 * SECOND, -60 * SECOND] {
        let mut rig = Rig::new().with_sound();
        rig.pictures(60, |_| 10_000);
        rig.wall_error = step;
        rig.pictures(140, |_| 10_000);
        let jumps: Vec<_> = (0..200).filter(|n| rig.stamps[*n].1.new_timeline).collect();
        assert_eq!(jumps, [100], "{step}");
        assert_eq!((error_ms(rig.stamps[99]), rig.error_ms()), (10, 10 + step / 1000));
        assert_eq!((error_ms(rig.sounds[199]), error_ms(rig.sounds[202])), (10, 10 + step / 1000), "in step");
        rig.check();
    }
    let mut rig = Rig::new();
    rig.pictures(1, |_| 10_000);
    rig.pictures = 1_000_001; // and no random access point for long
    rig.wall_error = -60 * SECOND;
    for _ in 0..300 {
        rig.pictures(1, |_| 10_000);
        rig.pictures = 1_000_001;
    }
    let jumps: Vec<_> = (0..301).filter(|n| rig.stamps[*n].1.new_timeline).collect();
    assert_eq!(jumps, [252], "after ten seconds of waiting");
}

/// Seen live: 150 pictures in one millisecond.
#[test]
fn a_camera_8_s_ahead_that_reports_late_reconnects_without_a_fold_in_time() {
    let mut rig = Rig::new().with_sound();
    rig.pictures(60, |_| 30_000);
    rig.report(8 * SECOND);
    rig.pictures(200, |_| 30_000);
    rig.audio_report(8 * SECOND);
    rig.pictures(100, |_| 30_000);
    assert!((rig.error_ms() - 8000).abs() <= 1, "{}", rig.error_ms());
    assert_eq!(rig.new_timelines(), 1, "the report was a real jump");
    for _ in 0..3 {
        let last = rig.stamps[rig.stamps.len() - 1].1.timestamp;
        rig.reconnect(700_000);
        let begun = rig.stamps.len();
        rig.pictures(60, |_| 30_000); // the first report is late again
        let first = rig.stamps[begun].1.timestamp;
        assert!((735..=745).contains(&(first.as_millis() - last.as_millis())), "{first} behind {last}");
        rig.report(8 * SECOND);
        rig.pictures(150, |_| 30_000);
        assert!((rig.error_ms() - 8000).abs() <= 1, "{}", rig.error_ms());
    }
    assert_eq!(rig.new_timelines(), 1);
    rig.check();
    assert!(rig.sounds.windows(2).all(|two| two[0].1.timestamp < two[1].1.timestamp));
    let off: Vec<_> =
        rig.sounds.iter().map(|stamped| error_ms(*stamped)).filter(|ms| (100..7900).contains(ms)).collect();
    assert_eq!(off, [0; 0], "sound stays with its pictures");
}

#[test]
fn a_session_that_ends_in_a_stalled_network_is_no_jump() {
    let mut rig = Rig::new();
    rig.report(0);
    rig.pictures(100, |_| 10_000);
    rig.pictures(5, |_| 4_000_000);
    rig.reconnect(5 * SECOND);
    rig.pictures(50, |_| 10_000);
    assert_eq!((rig.new_timelines(), rig.error_ms().abs() <= 10), (0, true), "{}", rig.error_ms());
    rig.check();
}

/// Seen live: 30 s in one fragment.
#[test]
fn a_new_session_whose_time_is_27_s_earlier_is_a_new_timeline() {
    let mut rig = Rig::new();
    rig.pictures(100, |_| 10_000);
    rig.wall_error = -27 * SECOND;
    rig.reconnect(SECOND);
    rig.pictures(750, |_| 10_000);
    assert_eq!(rig.new_timelines(), 1);
    assert!(rig.stamps[100].1.new_timeline, "with its first picture");
    assert_eq!(rig.error_ms(), 10 - 27_000);
    rig.check();
}

#[test]
fn a_new_session_whose_time_is_a_little_earlier_goes_on_behind_the_old_one() {
    let mut rig = Rig::new();
    rig.pictures(100, |_| 10_000);
    rig.wall_error = -3 * SECOND;
    rig.reconnect(SECOND);
    rig.pictures(2000, |_| 10_000);
    assert_eq!((rig.new_timelines(), rig.error_ms()), (0, 10 - 3000));
    rig.check();
}

#[test]
fn a_wall_clock_that_trembles_moves_no_picture() {
    let mut rig = Rig::new();
    for n in 0..200 {
        rig.wall_error = (n * 7919) % 15_000 - 7_500;
        rig.pictures(1, |_| 10_000);
    }
    let spacings: std::collections::BTreeSet<_> = rig
        .stamps
        .windows(2)
        .map(|two| two[1].1.timestamp.as_millis() - two[0].1.timestamp.as_millis())
        .collect();
    assert_eq!(spacings.into_iter().collect::<Vec<_>>(), [40]);
}

#[test]
fn b_frames_keep_their_order_of_presentation() {
    let mut timeline = Timeline::new();
    timeline.begin_session(90_000, 8_000);
    let order = [0, 3, 1, 2, 6, 4, 5];
    let stamps: Vec<_> = order
        .iter()
        .enumerate()
        .map(|(n, picture)| {
            let at = n as i64 * 40_000;
            timeline.video(picture * 3600, Arrival { monotonic: at, wall: START + at }, n == 0).timestamp
        })
        .collect();
    let mut sorted = stamps.clone();
    sorted.sort_unstable();
    let ranks: Vec<_> = stamps.iter().map(|s| sorted.binary_search(s).expect("itself") as i64).collect();
    assert_eq!(ranks, order);
}

#[test]
fn pictures_with_one_rtp_time_get_a_millisecond_each() {
    let mut timeline = Timeline::new();
    timeline.begin_session(90_000, 8_000);
    let stamps: std::collections::BTreeSet<_> = (0..100)
        .map(|n| timeline.video(9000, Arrival { monotonic: n * 40_000, wall: START + n * 40_000 }, n == 0))
        .map(|stamp| stamp.timestamp.as_millis())
        .collect();
    assert_eq!(stamps.len(), 100);
}

#[test]
fn extreme_numbers_do_not_overflow() {
    let mut timeline = Timeline::new();
    timeline.begin_session(0, 0);
    for value in [i64::MIN, 0, i64::MAX, -1] {
        for kind in [Kind::Video, Kind::Audio] {
            timeline.report(kind, value, i64::MAX, Arrival { monotonic: i64::MAX, wall: i64::MIN });
            timeline.report(kind, value, value, Arrival { monotonic: value, wall: value });
        }
        for (rtp, monotonic, wall) in
            [(value, i64::MAX, 0), (i64::MAX, value, value), (value, i64::MIN, i64::MIN)]
        {
            timeline.video(rtp, Arrival { monotonic, wall }, true);
            timeline.audio(rtp, Arrival { monotonic, wall });
            timeline.video(rtp, Arrival { monotonic, wall }, false);
        }
        timeline.begin_session(1, 1);
    }
}

#[test]
fn ntp_conversion() {
    assert_eq!(ntp_to_micros(2_208_988_800 << 32), 0);
    assert_eq!(ntp_to_micros((2_208_988_800 + 10) << 32 | 0x8000_0000), 10_500_000);
    assert!(ntp_to_micros(u64::MAX) > 0 && ntp_to_micros(0) < 0);
}
