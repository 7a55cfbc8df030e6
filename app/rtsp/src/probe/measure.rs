//! Arithmetic over what a camera sent, and the judgement on it.

use std::time::{Duration, Instant, SystemTime};

use config::Transport;
use health::{Problem, Reason};
use media::VideoFormat;

use super::report::{ClockReport, Finding, ParameterSets, Report, Severity, VideoReport};
use crate::session::Picture;
use crate::timeline::{Arrival, Distrust, Kind, Timeline, ntp_to_micros};

/// A camera clock further off than this makes pictures of several cameras hard to bring together.
const CLOCK_OFFSET_LIMIT_MS: f64 = 1000.0;
/// Deviation of measured from declared frame rate that is worth a word.
const FPS_DEVIATION: f64 = 0.2;

/// Between two ticks of the session.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// Everything counted over one session.
pub(super) struct Measured {
    clock_rate_hz: f64,
    in_sdp: bool,
    declared: Option<f64>,
    begun: Instant,
    /// `LOOK` each: time that the box saw go by.
    ticks: u32,
    pub(super) format: Option<VideoFormat>,
    pub(super) parameter_problem: Option<String>,
    frames: u64,
    bytes: u64,
    largest_bytes: usize,
    /// RTP time in ticks.
    first: Option<i64>,
    highest: i64,
    reordered: bool,
    lost_packets: u64,
    first_picture_ms: Option<u64>,
    first_key_ms: Option<u64>,
    first_key_after: Option<Duration>,
    /// RTP time of the newest random access point and the pictures since.
    key: Option<(i64, u32)>,
    longest_gop: Option<(u32, i64)>,
    sound_bytes: u64,
    /// RTP time in ticks of the first and the last frame.
    sound: Option<(i64, i64)>,
    sound_rate_hz: f64,
    offsets_ms: Vec<f64>,
    timeline: Timeline,
    /// Why the camera ended the session, if it did.
    pub(super) ended: Option<String>,
}

impl Measured {
    /// `rates_hz`: RTP ticks per second of video and audio; `begun`: when PLAY was answered.
    pub(super) fn new(rates_hz: (u32, u32), in_sdp: bool, declared: Option<f64>, begun: Instant) -> Measured {
        let mut timeline = Timeline::new();
        timeline.begin_session(rates_hz.0, rates_hz.1);
        Measured {
            clock_rate_hz: f64::from(rates_hz.0.max(1)),
            in_sdp,
            declared,
            begun,
            ticks: 0,
            format: None,
            parameter_problem: None,
            frames: 0,
            bytes: 0,
            largest_bytes: 0,
            first: None,
            highest: i64::MIN,
            reordered: false,
            lost_packets: 0,
            first_picture_ms: None,
            first_key_ms: None,
            first_key_after: None,
            key: None,
            longest_gop: None,
            sound_bytes: 0,
            sound: None,
            sound_rate_hz: f64::from(rates_hz.1.max(1)),
            offsets_ms: Vec::new(),
            timeline,
            ended: None,
        }
    }

    /// The next picture, which is here at `now`.
    pub(super) fn picture(&mut self, picture: &Picture, now: Instant) {
        let now_ms = u64::try_from(now.saturating_duration_since(self.begun).as_millis()).unwrap_or(u64::MAX);
        let ticks = picture.rtp;
        self.timeline.video(ticks, picture.arrival, picture.random_access);
        self.frames += 1;
        self.bytes += picture.data.len() as u64;
        self.largest_bytes = self.largest_bytes.max(picture.data.len());
        self.lost_packets += picture.lost;
        self.first_picture_ms.get_or_insert(now_ms);
        self.first.get_or_insert(ticks);
        self.reordered |= ticks < self.highest;
        self.highest = self.highest.max(ticks);
        if picture.random_access {
            self.first_key_ms.get_or_insert(now_ms);
            self.first_key_after.get_or_insert(self.watched());
            if let Some((start, frames)) = self.key {
                let length = ticks.saturating_sub(start);
                if self.longest_gop.is_none_or(|(_, longest)| length > longest) {
                    self.longest_gop = Some((frames, length));
                }
            }
            self.key = Some((ticks, 0));
        }
        if let Some((_, frames)) = &mut self.key {
            *frames += 1;
        }
    }

    pub(super) fn sound(&mut self, bytes: usize, rtp: i64) {
        self.sound_bytes += bytes as u64;
        self.sound = Some((self.sound.map_or(rtp, |(first, _)| first), rtp));
    }

    /// Of the video track. `ntp`: 32.32 fixed point seconds since 1900 (RFC 3550, 6.4.1).
    pub(super) fn sender_report(&mut self, rtp: i64, ntp: u64, arrival: Arrival) {
        let ntp = ntp_to_micros(ntp);
        self.offsets_ms.push(ntp.saturating_sub(arrival.wall) as f64 / 1000.0);
        self.timeline.report(Kind::Video, rtp, ntp, arrival);
    }

    /// Another `LOOK` has gone by.
    pub(super) fn tick(&mut self) {
        self.ticks = self.ticks.saturating_add(1);
    }

    fn watched(&self) -> Duration {
        LOOK * self.ticks
    }

    /// Whether the camera was watched for long enough: at least `watch`, and as long as it is worth to wait for a whole
    /// GOP.
    pub(super) fn is_enough(&self, watch: Duration, gop_limit: Duration) -> bool {
        self.watched() >= self.patience(gop_limit).unwrap_or_default().max(watch)
    }

    /// How long it is worth to wait for a whole GOP: until a first key picture should have come, then until it is
    /// known that the next one is too late. `None`: nothing left to wait for.
    fn patience(&self, gop_limit: Duration) -> Option<Duration> {
        let margin = Duration::from_millis(500);
        match (self.longest_gop, self.first_key_after) {
            (Some(_), _) => None,
            (None, None) => Some(gop_limit + margin),
            (None, Some(first_key)) => Some(first_key + gop_limit + margin),
        }
    }

    fn seconds(&self, ticks: i64) -> f64 {
        ticks as f64 / self.clock_rate_hz
    }

    fn video(&self) -> VideoReport {
        // A whole number of picture intervals: with n pictures there are n - 1.
        let span_s = self.first.map_or(0.0, |first| self.seconds(self.highest.saturating_sub(first)));
        let fps = (self.frames > 1 && span_s > 0.0).then(|| (self.frames - 1) as f64 / span_s);
        let bitrate = fps.map(|fps| self.bytes as f64 * 8.0 * fps / self.frames as f64);
        let of_parameters = self.format.as_ref().and_then(|format| format.frame_rate);
        VideoReport {
            codec: self.format.as_ref().map(VideoFormat::rfc6381),
            size: self.format.as_ref().map(|format| [format.width, format.height]),
            frames: self.frames,
            fps_measured: fps,
            fps_declared: self.declared.or(of_parameters),
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "positive and far below u64::MAX"
            )]
            bitrate_bps: bitrate.map(|rate| rate as u64),
            largest_frame_bytes: self.largest_bytes,
            gop_frames: self.longest_gop.map(|(frames, _)| frames),
            gop_s: self.longest_gop.map(|(_, ticks)| self.seconds(ticks)),
            gop_longer_than_s: (self.longest_gop.is_none() && self.frames > 0).then(|| {
                // A camera that began at a key picture let us wait for it.
                let waited_s = self.first_key_ms.map_or(0.0, |ms| Duration::from_millis(ms).as_secs_f64());
                waited_s.max(
                    self.key.map_or(span_s, |(start, _)| self.seconds(self.highest.saturating_sub(start))),
                )
            }),
            reordered: self.reordered,
            parameter_sets: match (self.in_sdp, &self.format) {
                (true, _) => ParameterSets::Sdp,
                (false, Some(_)) => ParameterSets::Inline,
                (false, None) => ParameterSets::Missing,
            },
            lost_packets: self.lost_packets,
        }
    }

    fn offset_ms(&self) -> Option<f64> {
        let mut offsets = self.offsets_ms.clone();
        offsets.sort_by(f64::total_cmp);
        offsets.get(offsets.len() / 2).copied()
    }
}

impl Report {
    /// Fills in what was measured and judges it at wall time `now`.
    pub(super) fn take(
        &mut self,
        measured: Measured,
        transport: Transport,
        gop_limit: Duration,
        now: SystemTime,
    ) {
        let video = measured.video();
        self.steps.first_picture_ms = measured.first_picture_ms;
        self.steps.first_key_ms = measured.first_key_ms;
        if let (Some(audio), Some((first, last))) = (&mut self.audio, measured.sound)
            && last > first
        {
            let seconds = last.saturating_sub(first) as f64 / measured.sound_rate_hz;
            let rate = measured.sound_bytes as f64 * 8.0 / seconds;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "positive and far below u64::MAX"
            )]
            let rate = rate as u64;
            audio.bitrate_bps = Some(rate);
        }
        let sender_reports = u32::try_from(measured.offsets_ms.len()).unwrap_or(u32::MAX);
        self.clock = Some(ClockReport { sender_reports, offset_ms: measured.offset_ms() });
        self.findings.extend(judge(&measured, &video, transport, gop_limit, now));
        self.video = Some(video);
    }
}

fn judge(
    measured: &Measured,
    video: &VideoReport,
    transport: Transport,
    gop_limit: Duration,
    now: SystemTime,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut say = |severity, reason, found: String, fix: &str| {
        findings.push(Finding { severity, problem: Problem::new(reason, found, now).fix(fix) });
    };
    if let Some(ended) = &measured.ended {
        let fix = "look into the camera's log; a full camera closes the newest session";
        say(Severity::Error, Reason::SessionEnded, format!("the session ended early: {ended}"), fix);
    }
    if video.frames == 0 {
        let fix = match transport {
            Transport::Tcp => "restart the camera, or lower the number of its viewers",
            _ => "use --transport tcp: a firewall may hold UDP back",
        };
        let text =
            format!("the camera plays but sent no picture for {:.1} s", measured.watched().as_secs_f64());
        say(Severity::Error, Reason::NoPictures, text, fix);
    } else if measured.first_key_ms.is_none() {
        let fix = "set the camera's I-frame interval to 2 seconds";
        say(Severity::Error, Reason::NoKeyPicture, "no picture that decoding can begin at".into(), fix);
    }
    if let Some(problem) = &measured.parameter_problem {
        let fix = "update the camera's firmware, or change its profile";
        say(
            Severity::Error,
            Reason::ParameterSets,
            format!("parameter sets that cannot be read: {problem}"),
            fix,
        );
    } else if video.frames > 0 && video.parameter_sets == ParameterSets::Missing {
        let fix = "update the camera's firmware";
        say(
            Severity::Error,
            Reason::ParameterSets,
            "no parameter sets, so nobody can decode this".into(),
            fix,
        );
    } else if video.parameter_sets == ParameterSets::Inline {
        let fix = "nothing to do: upload begins with the first key picture";
        say(
            Severity::Note,
            Reason::ParameterSetsInline,
            "parameter sets come only among the pictures".into(),
            fix,
        );
    }
    let limit_s = gop_limit.as_secs_f64();
    let gop_s = video.gop_s.or(video.gop_longer_than_s).unwrap_or(0.0);
    if measured.first_key_ms.is_some() && gop_s > limit_s {
        let text =
            format!("{gop_s:.1} s or more between key pictures, and a fragment holds at most {limit_s} s");
        let fix = "set the camera's I-frame interval to 2 seconds; until then fragments are cut between key pictures";
        say(Severity::Warning, Reason::LongGop, text, fix);
    }
    match measured.offset_ms() {
        None if video.frames > 0 => {
            let fix = "switch RTCP on in the camera; behind go2rtc there are none, write source = \"go2rtc\"";
            let text = "no RTCP sender reports, so pictures get our receive time".into();
            say(Severity::Warning, Reason::NoSenderReports, text, fix);
        }
        Some(offset) if offset.abs() > CLOCK_OFFSET_LIMIT_MS => {
            let text = format!("the camera's clock is {:+.1} s from ours", offset / 1000.0);
            say(
                Severity::Warning,
                Reason::CameraClock,
                text,
                "give the camera an NTP server, and check our own clock",
            );
        }
        _ => {}
    }
    if let Some(distrust @ Distrust::RtpTime { .. }) = measured.timeline.distrust() {
        findings.push(Finding { severity: Severity::Warning, problem: distrust.problem(now) });
    }
    let mut say = |severity, reason, found: String, fix: &str| {
        findings.push(Finding { severity, problem: Problem::new(reason, found, now).fix(fix) });
    };
    if video.lost_packets > 0 {
        let fix = match transport {
            Transport::Tcp => "the camera drops data itself: lower its bitrate or the number of its viewers",
            _ => "use transport = \"tcp\"",
        };
        say(Severity::Warning, Reason::PacketLoss, format!("{} RTP packets lost", video.lost_packets), fix);
    }
    if video.reordered {
        let fix = "switch them off (baseline profile, or \"smart codec\" off) for the least delay";
        say(
            Severity::Note,
            Reason::BFrames,
            "B-frames: pictures arrive in another order than shown".into(),
            fix,
        );
    }
    if let (Some(fps), Some(declared)) = (video.fps_measured, video.fps_declared)
        && declared > 0.0
        && (fps / declared - 1.0).abs() > FPS_DEVIATION
    {
        let text = format!("{fps:.1} pictures a second, {declared:.1} declared");
        say(
            Severity::Note,
            Reason::FrameRate,
            text,
            "often low light or a busy camera; nothing depends on it",
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(8);

    /// A coded picture of six bytes.
    fn picture(rtp: i64, lost: u64, random_access: bool) -> Picture {
        let data = bytes::Bytes::from_static(&[0, 0, 0, 2, 0x65, 0x80]);
        Picture { rtp, arrival: at(rtp.clamp(0, 1 << 40) * 100 / 9), lost, random_access, data }
    }

    fn at(us: i64) -> Arrival {
        Arrival { monotonic: us, wall: us }
    }

    fn begun() -> Instant {
        clock::Clock::system().now()
    }

    /// 25 fps at 90 kHz, an IDR picture every `gop` pictures.
    fn measure(frames: u32, gop: u32) -> Measured {
        let mut measured = Measured::new((90_000, 8_000), true, None, begun());
        for i in 0..frames {
            measured.picture(&picture(i64::from(i) * 3600, 0, i % gop == 0), begun());
        }
        measured
    }

    fn codes(measured: &Measured, transport: Transport) -> Vec<String> {
        let found = judge(measured, &measured.video(), transport, LIMIT, SystemTime::UNIX_EPOCH);
        found.iter().map(|finding| finding.problem.reason.to_string()).collect()
    }

    #[test]
    fn rates_and_gops_come_from_rtp_time() {
        let measured = measure(101, 25);
        let video = measured.video();
        assert_eq!((video.fps_measured, video.frames), (Some(25.0), 101));
        assert_eq!((video.gop_frames, video.gop_s), (Some(25), Some(1.0)));
        assert_eq!(video.bitrate_bps, Some(6 * 8 * 25));
        assert!(!video.reordered && measured.patience(LIMIT).is_none());
    }

    #[test]
    fn long_gop_is_told_even_if_no_end_was_seen() {
        let measured = measure(226, 1000);
        let video = measured.video();
        assert_eq!((video.gop_s, video.gop_longer_than_s), (None, Some(9.0)));
        assert!(measured.patience(LIMIT).is_some());
        assert!(codes(&measured, Transport::Tcp).contains(&"long_gop".to_owned()));
        assert!(!codes(&measure(101, 25), Transport::Tcp).contains(&"long_gop".to_owned()));
    }

    #[test]
    fn reordered_pictures_are_recognised() {
        let mut measured = measure(3, 25);
        for ticks in [5, 3, 4] {
            measured.picture(&picture(ticks * 3600, 0, false), begun());
        }
        assert!(measured.video().reordered);
        assert_eq!(measured.video().fps_measured, Some(25.0));
    }

    #[test]
    fn clock_offset_is_the_median() {
        let mut measured = measure(30, 10);
        let now_s = 1_795_186_073;
        for ahead_s in [5, 3600, 5] {
            let ntp = (now_s + ahead_s + 2_208_988_800) << 32;
            measured.sender_report(
                29 * 3600,
                ntp,
                Arrival { monotonic: 1_160_000, wall: now_s as i64 * 1_000_000 },
            );
        }
        let offset = measured.offset_ms().expect("three reports");
        assert!((3000.0..=5000.0).contains(&offset), "{offset}");
        assert!(codes(&measured, Transport::Tcp).contains(&"camera_clock".to_owned()));
    }

    #[test]
    fn a_report_that_does_not_fit_its_pictures_is_told() {
        let mut measured = measure(30, 10);
        let ntp = (1_795_186_073 + 2_208_988_800) << 32;
        for rtp in [29 * 3600, 29 * 3600 + 3600 * 90_000] {
            let wall = 1_795_186_073_000_000;
            measured.sender_report(rtp, ntp, Arrival { monotonic: 1_160_000, wall });
            measured.sender_report(rtp, ntp, Arrival { monotonic: 1_160_000, wall });
            let expected = rtp != 29 * 3600;
            assert_eq!(codes(&measured, Transport::Tcp).contains(&"sender_report".to_owned()), expected);
        }
    }

    #[test]
    fn nothing_at_all_is_an_error_for_each_transport() {
        let silent = Measured::new((90_000, 8_000), true, None, begun());
        assert_eq!(codes(&silent, Transport::Tcp), ["no_pictures"]);
        assert_eq!(codes(&silent, Transport::Udp), ["no_pictures"]);
        let mut lossy = Measured::new((90_000, 8_000), false, Some(50.0), begun());
        for i in 0..10 {
            lossy.picture(&picture(i * 3600, 1, false), begun());
        }
        let expected = ["no_key_picture", "parameter_sets", "no_sender_reports", "packet_loss", "frame_rate"];
        assert_eq!(codes(&lossy, Transport::Udp), expected);
    }

    #[test]
    fn odd_values_do_not_overflow() {
        let mut measured = Measured::new((0, 0), true, Some(0.0), begun());
        for ticks in [i64::MIN, i64::MAX, 0] {
            measured.picture(&picture(ticks, u64::from(u16::MAX), false), begun());
        }
        measured.sender_report(i64::MIN, u64::MAX, at(i64::MAX));
        measured.sender_report(0, 0, at(0));
        judge(&measured, &measured.video(), Transport::Auto, LIMIT, SystemTime::UNIX_EPOCH);
    }
}
