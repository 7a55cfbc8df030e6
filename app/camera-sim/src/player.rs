//! One client's media: which packets leave at which moment. No IO; time comes in as ns since 1970.
//!
//! Pictures are numbered since 1970, and the clip's [`Timing`](crate::clip::Timing) says when each is taken, so every
//! client and every camera shows the picture of the moment, and timestamps run on over the end of the loop. With B pictures the camera
//! sends in coding order and is late by as many pictures as it has to look ahead.

use std::ops::Range;
use std::sync::Arc;

use crate::clip::{Audio, Clip, Codec, TICKS};
use crate::faults::{Fault, FaultPlan, Start};
use crate::rtp::sr::{RtpClock, SenderReport, ntp};
use crate::rtp::{FRAMING, HEADER, MAX_PAYLOAD, Packets, Stamp, aac, h264, h265, packetise};
use crate::rtsp::sdp;
use crate::stats::{Recorder, SentPicture};

const SECOND_NS: u64 = 1_000_000_000;
const REPORT_INTERVAL_NS: u64 = 2 * SECOND_NS;
/// A client that is further behind loses pictures up to the next random access point.
const LAG_LIMIT_NS: u64 = 5 * SECOND_NS;

/// Packets for one write or a few datagrams.
#[derive(Default)]
pub(crate) struct Output {
    /// Packets with interleaved framing, ready for TCP.
    pub bytes: Vec<u8>,
    /// Each of them.
    pub ranges: Vec<Range<usize>>,
}

impl Output {
    fn push(&mut self, packet: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(packet);
        self.ranges.push(start..self.bytes.len());
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.ranges.clear();
    }

    /// Channel and contents of each packet, without the framing.
    pub(crate) fn datagrams(&self) -> impl Iterator<Item = (u8, &[u8])> {
        self.ranges
            .iter()
            .map(|range| (self.bytes[range.start + 1], &self.bytes[range.start + FRAMING..range.end]))
    }
}

/// The RTP source of one track.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Channel of the RTP packets; RTCP takes the next.
    pub channel: u8,
    pub ssrc: u32,
    /// Of the next packet.
    pub sequence: u16,
    pub clock: RtpClock,
    packets: u32,
    octets: u32,
    report_due_ns: u64,
}

impl Source {
    pub(crate) fn new(channel: u8, rate: u32) -> Source {
        let clock = RtpClock { rate, offset: rand::random() };
        let (ssrc, sequence) = (rand::random(), rand::random());
        Source { channel, ssrc, sequence, clock, packets: 0, octets: 0, report_due_ns: 0 }
    }

    fn renew(&mut self) {
        *self = Source::new(self.channel, self.clock.rate);
    }

    fn rtcp(&self, packet: &[u8], output: &mut Output) {
        let [high, low] = u16::try_from(packet.len()).expect("reports are short").to_be_bytes();
        output.push(&[&[b'$', self.channel + 1, high, low], packet].concat());
    }
}

/// Everything that stays the same during PLAY.
pub(crate) struct Setting {
    pub clip: Arc<Clip>,
    pub plan: FaultPlan,
    pub session: u64,
    pub camera: usize,
    pub recorder: Arc<Recorder>,
    /// Packets per write when a picture is spread over its interval.
    pub slice: usize,
}

pub(crate) struct Player {
    setting: Setting,
    video: Option<Source>,
    audio: Option<Source>,
    /// Next picture, as a count of pictures in coding order since 1970.
    position: u64,
    /// Next audio frame since 1970.
    audio_frame: u64,
    in_flight: InFlight,
    /// When PLAY was answered.
    begun_ns: u64,
    random: u64,
    drop_next: u32,
    /// Packet that waits to be overtaken.
    held: Option<Vec<u8>>,
    scheduled: Vec<(u64, Fault)>,
    stall: Option<bool>,
    other_clip: Option<Arc<Clip>>,
    switch_pending: bool,
    switched: bool,
    pub hang_up: bool,
    /// The connection shall get the other clip and hand it over.
    pub wants_other_clip: bool,
}

/// The picture that is being sent.
#[derive(Default)]
struct InFlight {
    packets: Packets,
    next: usize,
    due_ns: u64,
    gap_ns: u64,
    number: u64,
    index: u32,
    size_bytes: usize,
    dropped: u32,
}

impl Player {
    pub(crate) fn new(setting: Setting, video: Option<Source>, audio: Option<Source>, now_ns: u64) -> Player {
        let scheduled = setting.plan.scheduled.iter();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked seconds")]
        let mut scheduled: Vec<(u64, Fault)> =
            scheduled.map(|&(after_s, fault)| (now_ns + (after_s.max(0.0) * 1e9) as u64, fault)).collect();
        scheduled.sort_by_key(|(at, _)| *at);
        let random =
            setting.plan.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (setting.camera as u64) << 32 ^ 1;
        let audio_frame = match setting.clip.audio() {
            Some(clip) => {
                scale(now_ns, u64::from(clip.sample_rate), SECOND_NS) / u64::from(clip.samples_per_frame) + 1
            }
            None => 0,
        };
        let mut player = Player {
            video,
            audio,
            position: 0,
            audio_frame,
            in_flight: InFlight::default(),
            begun_ns: now_ns,
            random,
            drop_next: 0,
            held: None,
            scheduled,
            stall: None,
            other_clip: None,
            switch_pending: false,
            switched: false,
            hang_up: false,
            wants_other_clip: false,
            setting,
        };
        let idr = player.setting.plan.start.unwrap_or_default() == Start::Idr;
        player.position = player.entry(now_ns, idr);
        player
    }

    /// When the picture at a coding position is sent.
    fn due_ns(&self, position: u64) -> u64 {
        let clip = &self.setting.clip;
        scale(clip.timing().capture(position + u64::from(clip.reorder())), SECOND_NS, TICKS)
    }

    /// First position that is due from now on, or the first random access point from there.
    fn entry(&self, now_ns: u64, random_access: bool) -> u64 {
        let clip = &self.setting.clip;
        let number = clip.timing().first_from(scale(now_ns, TICKS, SECOND_NS));
        let mut position = number.saturating_sub(u64::from(clip.reorder()));
        while self.due_ns(position) < now_ns {
            position += 1;
        }
        // The first picture of every loop is a random access point, so this ends.
        while random_access && !clip.pictures()[within_loop(clip, position)].random_access {
            position += 1;
        }
        position
    }

    /// Number since 1970 in presentation order of the picture at a coding position.
    fn number(&self, position: u64) -> u64 {
        let clip = &self.setting.clip;
        let within = within_loop(clip, position);
        position - within as u64 + u64::from(clip.pictures()[within].index)
    }

    /// RTP time of the first packets of video and audio that will be sent.
    pub(crate) fn first_rtp_times(&self) -> (Option<u32>, Option<u32>) {
        let first = self.setting.clip.timing().capture(self.number(self.position));
        let video = self.video.as_ref().map(|source| source.clock.at_count(first, TICKS));
        let audio = self.audio.as_ref().zip(self.setting.clip.audio()).map(|(source, clip)| {
            source
                .clock
                .at_count(self.audio_frame * u64::from(clip.samples_per_frame), clip.sample_rate.into())
        });
        (video, audio)
    }

    pub(crate) fn sources(&self) -> (Option<&Source>, Option<&Source>) {
        (self.video.as_ref(), self.audio.as_ref())
    }

    fn sources_mut(&mut self) -> impl Iterator<Item = &mut Source> {
        self.video.iter_mut().chain(self.audio.iter_mut())
    }

    pub(crate) fn set_plan(&mut self, plan: FaultPlan) {
        self.setting.plan = plan;
    }

    /// Whether requests are answered while playing.
    pub(crate) fn answers(&self, keepalive: bool) -> bool {
        self.stall != Some(false) && !(keepalive && self.setting.plan.no_keepalive)
    }

    pub(crate) fn recorder(&self) -> &Recorder {
        &self.setting.recorder
    }

    /// The moment at which [`Player::poll`] has something to do.
    pub(crate) fn next_due_ns(&self) -> u64 {
        let scheduled = self.scheduled.first().map(|(at, _)| *at);
        [scheduled, self.video_due_ns(), self.audio_due_ns()].into_iter().flatten().min().unwrap_or(u64::MAX)
    }

    /// The next packets of the picture in flight, or the next picture.
    fn video_due_ns(&self) -> Option<u64> {
        self.video.as_ref()?;
        let in_flight = self.in_flight.next < self.in_flight.packets.len();
        Some(if in_flight { self.in_flight.due_ns } else { self.due_ns(self.position) })
    }

    /// A frame of sound is sent when its last sample has been taken.
    fn audio_due_ns(&self) -> Option<u64> {
        self.audio.as_ref()?;
        let clip = self.setting.clip.audio()?;
        let samples = (self.audio_frame + 1) * u64::from(clip.samples_per_frame);
        Some(scale(samples, SECOND_NS, clip.sample_rate.into()))
    }

    pub(crate) fn apply(&mut self, fault: Fault, output: &mut Output) {
        match fault {
            Fault::HangUp => self.hang_up = true,
            Fault::Stall { answer_keepalive } => self.stall = Some(answer_keepalive),
            Fault::Resume => self.stall = None,
            Fault::Bye => {
                for source in self.video.iter().chain(&self.audio) {
                    let mut bye = vec![0x81, 203, 0, 1];
                    bye.extend(source.ssrc.to_be_bytes());
                    source.rtcp(&bye, output);
                }
                self.stall = Some(true);
            }
            Fault::NewSource => self.sources_mut().for_each(Source::renew),
            Fault::SequenceJump(by) => {
                self.sources_mut().for_each(|source| source.sequence = source.sequence.wrapping_add(by));
            }
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "RTP time is modulo 2^32"
            )]
            Fault::TimestampJumpMs(by) => self.sources_mut().for_each(|source| {
                let ticks = i64::from(by) * i64::from(source.clock.rate) / 1000;
                source.clock.offset = source.clock.offset.wrapping_add(ticks as u32);
            }),
            Fault::SwitchParameters => {
                self.switch_pending = true;
                self.wants_other_clip = self.other_clip.is_none();
            }
            Fault::DropPackets(count) => self.drop_next = self.drop_next.saturating_add(count),
        }
    }

    /// The clip for [`Fault::SwitchParameters`]. One whose pictures are not taken at the same moments, as may come out of
    /// a damaged file, is not used.
    pub(crate) fn set_other_clip(&mut self, clip: Arc<Clip>) {
        if clip.timing() == self.setting.clip.timing() {
            self.other_clip = Some(clip);
        } else {
            tracing::warn!("no parameter switch: not every picture of the file could be encoded again");
        }
    }

    /// Appends all packets that are due, in the order in which they are: also after a pause the tracks stay
    /// interleaved.
    pub(crate) fn poll(&mut self, now_ns: u64, output: &mut Output) {
        while let Some(&(at, fault)) = self.scheduled.first()
            && at <= now_ns
        {
            self.scheduled.remove(0);
            self.apply(fault, output);
        }
        let is_due = |due: Option<u64>| due.is_some_and(|at| at <= now_ns);
        while !self.hang_up {
            let (video, audio) = (self.video_due_ns(), self.audio_due_ns());
            if is_due(audio) && video.is_none_or(|video| audio < Some(video)) {
                self.send_sound(now_ns, output);
            } else if !is_due(video) {
                break;
            } else if self.in_flight.next < self.in_flight.packets.len() {
                self.send_slice(now_ns, output);
            } else {
                self.take_picture(now_ns);
            }
        }
    }

    /// Makes the packets of the next picture.
    fn take_picture(&mut self, now_ns: u64) {
        let due_ns = self.due_ns(self.position);
        if now_ns - due_ns > LAG_LIMIT_NS {
            let entry = self.entry(now_ns, true);
            let skipped = entry - self.position;
            self.setting.recorder.record(|stats| stats.pictures_skipped += skipped);
            self.position = entry;
            return;
        }
        let within = within_loop(&self.setting.clip, self.position);
        if self.switch_pending
            && let Some(other) = &mut self.other_clip
            && let (picture, now) = (&other.pictures()[within], &self.setting.clip.pictures()[within])
            && picture.random_access
            && now.random_access
            && picture.index == now.index
        {
            std::mem::swap(other, &mut self.setting.clip);
            self.switch_pending = false;
            self.switched = !self.switched;
        }
        let number = self.number(self.position);
        self.position += 1;
        let next_due_ns = self.due_ns(self.position);
        let (clip, Some(source)) = (&self.setting.clip, &mut self.video) else { return };
        if self.stall.is_some() || self.setting.plan.foreign.is_some() {
            return;
        }
        let picture = &clip.pictures()[within];
        let flight = &mut self.in_flight;
        flight.packets.clear();
        match clip.spec().codec {
            Codec::H264 => packetise::<h264::H264>(&mut flight.packets, &picture.nal_units, MAX_PAYLOAD),
            Codec::H265 => packetise::<h265::H265>(&mut flight.packets, &picture.nal_units, MAX_PAYLOAD),
        }
        let timestamp = source.clock.at_count(clip.timing().capture(number), TICKS);
        let stamp =
            Stamp { payload_type: sdp::VIDEO_TYPE, timestamp, ssrc: source.ssrc, channel: source.channel };
        flight.packets.finish(&stamp, true, || next_sequence(&mut source.sequence));
        let slices = flight.packets.len().div_ceil(self.setting.slice) as u64;
        // Seven tenths of the interval, so that a picture is complete before the next one comes.
        let interval_ns = next_due_ns.saturating_sub(due_ns).min(SECOND_NS);
        flight.gap_ns = if self.setting.plan.burst { 0 } else { interval_ns * 7 / 10 / slices.max(1) };
        (flight.next, flight.due_ns, flight.number, flight.dropped) = (0, due_ns, number, 0);
        (flight.index, flight.size_bytes) = (picture.index, picture.size_bytes());
    }

    fn send_slice(&mut self, now_ns: u64, output: &mut Output) {
        self.report(true, now_ns, output);
        let flight = std::mem::take(&mut self.in_flight);
        let end = (flight.next + self.setting.slice).min(flight.packets.len());
        let mut dropped = flight.dropped;
        for position in flight.next..end {
            let packet = flight.packets.framed(position);
            if let Some(source) = &mut self.video {
                source.count(packet);
            }
            dropped += u32::from(!self.send(packet, output));
        }
        self.in_flight = InFlight { next: end, due_ns: flight.due_ns + flight.gap_ns, dropped, ..flight };
        if end == self.in_flight.packets.len() {
            let flight = &self.in_flight;
            self.setting.recorder.picture(SentPicture {
                session: self.setting.session,
                number: flight.number,
                index: flight.index,
                capture_utc_ms: scale(self.setting.clip.timing().capture(flight.number), 1000, TICKS),
                size_bytes: flight.size_bytes,
                packets: u32::try_from(end).unwrap_or(u32::MAX),
                packets_dropped: dropped,
                switched: self.switched,
            });
        }
    }

    fn send_sound(&mut self, now_ns: u64, output: &mut Output) {
        let frame = self.audio_frame;
        self.audio_frame += 1;
        let clip = self.setting.clip.clone();
        let (Some(sound), None) = (clip.audio(), self.stall) else { return };
        self.report(false, now_ns, output);
        let Some(source) = &mut self.audio else { return };
        #[expect(clippy::cast_possible_truncation, reason = "a remainder of a vector's length")]
        let data = &sound.frames[(frame % sound.frames.len() as u64) as usize];
        let mut packets = Packets::default();
        let payload_type = if sound.codec == Audio::Aac {
            aac::packetise(&mut packets, data);
            sdp::AAC_TYPE
        } else {
            packets.push(&[data]);
            sdp::PCMU_TYPE
        };
        let timestamp =
            source.clock.at_count(frame * u64::from(sound.samples_per_frame), sound.sample_rate.into());
        let stamp = Stamp { payload_type, timestamp, ssrc: source.ssrc, channel: source.channel };
        packets.finish(&stamp, sound.codec == Audio::Aac, || next_sequence(&mut source.sequence));
        source.count(packets.framed(0));
        let dropped = !self.send(packets.framed(0), output);
        self.setting.recorder.record(|stats| {
            stats.packets += 1;
            stats.packets_dropped += u64::from(dropped);
        });
    }

    /// Sends, loses or holds back one packet; false when it was lost.
    fn send(&mut self, packet: &[u8], output: &mut Output) -> bool {
        let (lose, swap) = (self.chance(self.setting.plan.drop), self.chance(self.setting.plan.reorder));
        let is_video = self.video.as_ref().is_some_and(|source| source.channel == packet[1]);
        if lose || (is_video && self.drop_next > 0) {
            self.drop_next = self.drop_next.saturating_sub(u32::from(is_video));
            return false;
        }
        if let Some(held) = self.held.take() {
            output.push(packet);
            output.push(&held);
        } else if swap {
            self.setting.recorder.record(|stats| stats.packets_reordered += 1);
            self.held = Some(packet.to_vec());
        } else {
            output.push(packet);
        }
        true
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.random = self.random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let high = u32::try_from(self.random >> 32).unwrap_or(0);
        f64::from(high) < probability * 4_294_967_296.0
    }

    /// A sender report before the first packet of a track (or as late as the plan says) and every two seconds.
    fn report(&mut self, video: bool, now_ns: u64, output: &mut Output) {
        let plan = &self.setting.plan;
        let Some(source) = (if video { &mut self.video } else { &mut self.audio }) else { return };
        if plan.no_sr || plan.go2rtc || source.report_due_ns > now_ns {
            return;
        }
        if now_ns < shifted(self.begun_ns, plan.first_report_after_s) {
            return;
        }
        source.report_due_ns = now_ns + REPORT_INTERVAL_NS;
        let report = SenderReport {
            ssrc: source.ssrc,
            ntp: ntp(shifted(now_ns, plan.clock_offset_s)),
            rtp: source.clock.at(shifted(now_ns, plan.report_rtp_offset_s)),
            packets: source.packets,
            octets: source.octets,
        };
        source.rtcp(&report.to_bytes("camera-sim"), output);
        self.setting.recorder.record(|stats| stats.sender_reports += 1);
    }
}

impl Source {
    fn count(&mut self, packet: &[u8]) {
        let payload = packet.len() - FRAMING - HEADER;
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(u32::try_from(payload).unwrap_or(0));
    }
}

/// A time, or one before or after it.
#[expect(clippy::cast_possible_truncation, reason = "bounded by the query to 1e9 seconds")]
fn shifted(at_ns: u64, by_s: f64) -> u64 {
    at_ns.saturating_add_signed((by_s * 1e9) as i64)
}

fn next_sequence(sequence: &mut u16) -> u16 {
    let current = *sequence;
    *sequence = current.wrapping_add(1);
    current
}

#[expect(clippy::cast_possible_truncation, reason = "a remainder of a vector's length")]
fn within_loop(clip: &Clip, position: u64) -> usize {
    (position % clip.pictures().len() as u64) as usize
}

/// `value * to / from` without overflow on the way, rounded down.
fn scale(value: u64, to: u64, from: u64) -> u64 {
    u64::try_from(u128::from(value) * u128::from(to) / u128::from(from)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clip::ClipSpec;

    const START_NS: u64 = 1000 * SECOND_NS;

    /// Plays 10 pictures and 50 frames of sound a second.
    fn player() -> Player {
        let spec = ClipSpec {
            width: 192,
            height: 108,
            fps: 10,
            bitrate_kbps: 100,
            gop: 10,
            loop_seconds: 1,
            audio: Audio::Pcmu,
            ..ClipSpec::default()
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let clip = Clip::load(&spec, folder.path()).expect("GStreamer encodes");
        let setting = Setting {
            clip,
            plan: FaultPlan::default(),
            session: 1,
            camera: 0,
            recorder: Arc::default(),
            slice: 4,
        };
        let source =
            |channel, rate| Source { clock: RtpClock { rate, offset: 0 }, ..Source::new(channel, rate) };
        Player::new(setting, Some(source(0, 90_000)), Some(source(2, 8_000)), START_NS)
    }

    #[test]
    fn lost_video_packets_spare_the_sound() {
        let (mut player, mut output) = (player(), Output::default());
        player.apply(Fault::DropPackets(u32::MAX), &mut output);
        player.poll(START_NS + SECOND_NS, &mut output);
        let of = |wanted| output.datagrams().filter(|(channel, _)| *channel == wanted).count();
        assert_eq!((of(0), of(2)), (0, 49));
    }

    /// Milliseconds from the start to each sender report of the video, by its NTP and by its RTP time, and the pictures
    /// before it.
    fn reports(player: &mut Player, seconds: u64) -> Vec<(i64, i64, usize)> {
        let (mut output, mut pictures, mut found) = (Output::default(), 0, Vec::new());
        for step in 0..seconds * 100 {
            player.poll(START_NS + step * SECOND_NS / 100, &mut output);
            for (channel, packet) in output.datagrams() {
                if channel == 0 {
                    pictures += usize::from(packet[1] & 0x80 != 0);
                } else if channel == 1 {
                    let word =
                        |at: usize| u32::from_be_bytes(packet[at..at + 4].try_into().expect("four bytes"));
                    let ntp_ms = (i64::from(word(8)) - 2_208_988_800 - 1000) * 1000
                        + ((i64::from(word(12)) * 1000) >> 32);
                    found.push((ntp_ms, i64::from(word(16)) / 90 - 1_000_000, pictures));
                }
            }
            output.clear();
        }
        found
    }

    #[test]
    fn sender_reports_come_first_and_say_the_truth() {
        let found = reports(&mut player(), 5);
        let begins: Vec<_> = found.iter().map(|(ntp, _, _)| ntp / 100 * 100).collect();
        assert_eq!((begins, found[0].2), (vec![0, 2000, 4000], 0));
        assert!(found.iter().all(|(ntp, rtp, _)| (ntp - rtp).abs() <= 1), "{found:?}");
    }

    #[test]
    fn sender_reports_are_as_late_and_as_wrong_as_asked() {
        let mut late = player();
        late.set_plan(FaultPlan::from_query("sr_after=2.5&clock_offset=8").expect("a plan"));
        let found = reports(&mut late, 5);
        assert_eq!(found.len(), 2, "{found:?}");
        let (ntp, rtp, pictures) = found[0];
        assert!((10_500..10_700).contains(&ntp) && (24..=26).contains(&pictures), "{found:?}");
        assert!((ntp - rtp - 8000).abs() <= 1, "{found:?}");

        let mut wrong = player();
        wrong.set_plan(FaultPlan::from_query("sr_rtp_offset=-600").expect("a plan"));
        let (ntp, rtp, pictures) = reports(&mut wrong, 1)[0];
        assert_eq!((ntp, rtp, pictures), (0, -600_000, 0));
    }

    #[test]
    fn after_a_pause_both_tracks_come_in_the_order_of_time() {
        let (mut player, mut output) = (player(), Output::default());
        player.poll(START_NS + 3 * SECOND_NS, &mut output);

        // Moments at which each packet was due, in ms from the start; a picture's packets are due until the next one.
        let rtp: Vec<_> = output.datagrams().filter(|(channel, _)| channel % 2 == 0).collect();
        let ms = |packet: &[u8], rate: u64| {
            let timestamp = u32::from_be_bytes(packet[4..8].try_into().expect("four bytes"));
            u64::from(timestamp) * 1000 / rate - 1_000_000
        };
        let (mut pictures, mut sounds, mut latest) = (0, 0, 0);
        for (channel, packet) in rtp {
            let due = if channel == 0 {
                pictures += u32::from(packet[1] & 0x80 != 0);
                ms(packet, 90_000)..ms(packet, 90_000) + 100
            } else {
                sounds += 1;
                let end = ms(packet, 8_000) + 20;
                end..end + 1
            };
            assert!(due.end > latest, "due in {due:?}, after one that was due at {latest} ms");
            latest = latest.max(due.start);
        }
        assert_eq!((pictures, sounds), (30, 149), "the last picture is still being sent");
    }
}
