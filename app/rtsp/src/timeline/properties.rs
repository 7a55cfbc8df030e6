//! What holds for the stamps whatever a camera, its clock, the network and the box's clock do, and what the fragmenter makes
//! of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use kvs::fragmenter::{Fragmenter, FragmenterConfig, Part};
use kvs::{FragmentIds, RunId};
use media::{AccessUnit, AudioFormat, AudioFrame, VideoCodec, VideoFormat};
use proptest::prelude::*;

use super::*;

const SECOND: Micros = 1_000_000;
const START: Micros = 1_795_186_073 * SECOND;
const FRAGMENT_MS: u64 = 2_000;
const FRAGMENT_MAX_MS: u64 = 8_000;
/// Ticks of the audio track per second.
const SOUND_HZ: i64 = 8_000;

/// What happens to a camera.
#[derive(Clone, Debug)]
enum Event {
    /// Pictures with network delays of up to so many ms, which begin with the given seed.
    Pictures { count: u32, jitter_ms: u32, seed: u32 },
    /// The camera's clock is off by so much, and the RTP time of its report by that.
    Report { clock_ms: i64, rtp_ms: i64, audio: bool },
    /// Somebody sets the wall clock of the box.
    WallStep { ms: i64 },
    /// The camera's RTP clock jumps.
    RtpJump { ms: i64 },
    /// Nothing comes for so long, then it goes on with what is captured then.
    Stall { ms: i64 },
    /// Another session after so long, with another origin of RTP time.
    Reconnect { ms: i64, rtp: u32 },
}

#[derive(Clone, Debug)]
struct Script {
    fps: i64,
    /// Pictures from one random access point to the next.
    gop: u32,
    /// B pictures between two others.
    b_pictures: u32,
    sound: bool,
    events: Vec<Event>,
}

/// Small, middle and large times, before and behind.
fn time_ms() -> impl Strategy<Value = i64> {
    prop_oneof![
        -900_i64..900,
        -12_000_i64..12_000,
        -4_000_000_i64..4_000_000,
        -60_000_000_000_i64..60_000_000_000
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (1_u32..300, 0_u32..300, any::<u32>())
            .prop_map(|(count, jitter_ms, seed)| Event::Pictures { count, jitter_ms, seed }),
        3 => (prop_oneof![2 => Just(0), 1 => time_ms()], prop_oneof![3 => Just(0), 1 => time_ms()], any::<bool>())
            .prop_map(|(clock_ms, rtp_ms, audio)| Event::Report { clock_ms, rtp_ms, audio }),
        1 => time_ms().prop_map(|ms| Event::WallStep { ms }),
        // Shorter jumps back are taken for B pictures at first.
        1 => prop_oneof![-90_000_000_i64..-4_000, 4_000_i64..90_000_000].prop_map(|ms| Event::RtpJump { ms }),
        1 => (0_i64..12_000).prop_map(|ms| Event::Stall { ms }),
        2 => (0_i64..60_000, any::<u32>()).prop_map(|(ms, rtp)| Event::Reconnect { ms, rtp }),
    ]
}

fn script() -> impl Strategy<Value = Script> {
    let fps = prop_oneof![Just(5_i64), Just(10), Just(25), Just(30), Just(60)];
    let events = proptest::collection::vec(event(), 1..24);
    (fps, 1_u32..4, prop_oneof![3 => Just(0_u32), 1 => 1_u32..3], any::<bool>(), events).prop_map(
        |(fps, gop_s, b_pictures, sound, events)| {
            let gop = u32::try_from(fps).expect("small") * gop_s;
            Script { fps, gop, b_pictures, sound, events }
        },
    )
}

/// A stamped picture, in order of decoding.
#[derive(Clone, Copy, Debug)]
struct Stamped {
    /// Counts origins of RTP time.
    origin: u32,
    /// Counts new timelines.
    timeline: u32,
    /// Counts what may change the mapping: within one, only time passes.
    quiet: u32,
    /// Coded pictures since.
    since: u32,
    /// Presentation order in the session.
    shown: i64,
    ms: u64,
}

struct Run {
    timeline: Timeline,
    fragmenter: Fragmenter,
    format: Arc<VideoFormat>,
    stamped: Vec<Stamped>,
    sounds: Vec<(u32, u64)>,
    now: Micros,
    latest_arrival: Micros,
    wall_error: Micros,
    /// RTP time in microseconds of what is captured now, less true time.
    rtp_origin: Micros,
    sessions: u32,
    origin: u32,
    timelines: u32,
    quiet: u32,
    shown: i64,
    coded: u32,
}

impl Run {
    fn new() -> Run {
        let mut timeline = Timeline::new();
        timeline.begin_session(90_000, 8_000);
        let config = FragmenterConfig {
            fragment_ms: FRAGMENT_MS,
            fragment_max_ms: FRAGMENT_MAX_MS,
            ids: FragmentIds::new(RunId::new(1)),
            device: "box".to_owned(),
            camera: "cam".to_owned(),
            writing_app: "test".to_owned(),
            segment_uid: [1; 16],
        };
        let codec_private = Bytes::from_static(b"\x01\x42\xc0\x1e\xff\xe1\x00\x00\x01\x00\x00");
        let format =
            VideoFormat { codec: VideoCodec::H264, codec_private, width: 640, height: 480, frame_rate: None };
        Run {
            timeline,
            fragmenter: Fragmenter::new(config),
            format: Arc::new(format),
            stamped: Vec::new(),
            sounds: Vec::new(),
            now: START,
            latest_arrival: 0,
            wall_error: 0,
            rtp_origin: -START,
            sessions: 1,
            origin: 0,
            timelines: 0,
            quiet: 0,
            shown: 0,
            coded: 0,
        }
    }

    /// What was captured at `now` arrives `delay` later, but never before what was sent before it.
    fn arrival(&mut self, delay: Micros) -> Arrival {
        let at = (self.now + delay).max(self.latest_arrival);
        self.latest_arrival = at;
        Arrival { monotonic: at - START + 5 * SECOND, wall: at + self.wall_error }
    }

    fn ticks(&self, at: Micros) -> i64 {
        (at + self.rtp_origin) * 9 / 100
    }

    fn play(&mut self, script: &Script) {
        for event in &script.events {
            match *event {
                Event::Pictures { count, jitter_ms, seed } => self.pictures(script, count, jitter_ms, seed),
                Event::Report { clock_ms, rtp_ms, audio } => {
                    let arrival = self.arrival(5_000);
                    let (kind, ticks) = match audio && script.sound {
                        true => (Kind::Audio, (self.now + rtp_ms * 1000) / (SECOND / SOUND_HZ)),
                        false => (Kind::Video, self.ticks(self.now + rtp_ms * 1000)),
                    };
                    self.timeline.report(kind, ticks, self.now + clock_ms * 1000, arrival);
                    self.quiet += 1;
                }
                Event::WallStep { ms } => {
                    self.wall_error = ms * 1000;
                    self.quiet += 1;
                }
                Event::RtpJump { ms } => {
                    self.rtp_origin += ms * 1000;
                    (self.origin, self.quiet) = (self.origin + 1, self.quiet + 1);
                }
                Event::Stall { ms } => {
                    self.now += ms * 1000;
                    self.quiet += 1;
                }
                Event::Reconnect { ms, rtp } => {
                    self.fragmenter.finish();
                    self.now += ms * 1000;
                    self.rtp_origin = i64::from(rtp) * 11 - self.now;
                    (self.sessions, self.origin, self.quiet) =
                        (self.sessions + 1, self.origin + 1, self.quiet + 1);
                    (self.shown, self.coded) = (0, 0);
                    self.timeline.begin_session(90_000, 8_000);
                }
            }
        }
        self.fragmenter.finish();
    }

    fn pictures(&mut self, script: &Script, count: u32, jitter_ms: u32, seed: u32) {
        let mut random = seed;
        let group = script.b_pictures + 1;
        for sent in 0.. {
            // A camera does not stop between a picture and the B pictures that are shown before it.
            let in_gop = self.coded % script.gop;
            let whole = in_gop == 0
                || (in_gop - 1).is_multiple_of(group)
                || in_gop > (script.gop - 1) / group * group;
            if sent >= count && whole {
                break;
            }
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let delay = Micros::from((random >> 8) % (jitter_ms + 1)) * 1000;
            let random_access = self.coded.is_multiple_of(script.gop);
            // In a GOP: the first picture, then groups of one that is shown last and the B pictures before it.
            let (in_gop, group) = (i64::from(in_gop), i64::from(group));
            let last_group = i64::from(script.gop - 1) / group * group;
            let ahead = match in_gop {
                0 => 0,
                n if n > last_group => 0,
                n if (n - 1) % group == 0 => group - 1,
                _ => -1,
            };
            let frame = SECOND / script.fps;
            let captured = self.now + ahead * frame;
            let (arrival, rtp) = (self.arrival(delay), self.ticks(captured));
            let stamp = self.timeline.video(rtp, arrival, random_access);
            if stamp.new_timeline {
                self.timelines += 1;
                self.fragmenter.new_timeline([2; 16]);
            }
            self.stamped.push(Stamped {
                origin: self.origin,
                timeline: self.timelines,
                quiet: self.quiet,
                since: sent,
                shown: self.shown + ahead,
                ms: stamp.timestamp.as_millis(),
            });
            let format = self.format.clone();
            let data = Bytes::from_static(&[0, 0, 0, 1, 0x65]);
            self.fragmenter.video(&AccessUnit { data, timestamp: stamp.timestamp, random_access, format });
            if script.sound {
                let sound_rtp = self.now / (SECOND / SOUND_HZ);
                if let Some(Stamp { timestamp, .. }) = self.timeline.audio(sound_rtp, arrival) {
                    self.sounds.push((self.timelines, timestamp.as_millis()));
                    let (data, format) = (Bytes::from_static(&[0; 8]), Arc::new(AudioFormat::pcmu(8000, 1)));
                    self.fragmenter.audio(AudioFrame { data, timestamp, format });
                }
            }
            self.now += frame;
            self.shown += 1;
            self.coded += 1;
        }
    }

    /// In each timeline no millisecond twice, and the order is that of presentation.
    fn check_order(&self, script: &Script) -> Result<(), TestCaseError> {
        for timeline in 0..=self.timelines {
            let mut of: Vec<_> = self.stamped.iter().filter(|stamped| stamped.timeline == timeline).collect();
            let distinct: BTreeSet<_> = of.iter().map(|stamped| stamped.ms).collect();
            prop_assert_eq!(distinct.len(), of.len());
            of.sort_by_key(|stamped| (stamped.origin, stamped.shown));
            for two in of.windows(2) {
                // B pictures before the first picture behind a jump have only what room there is.
                let room = script.b_pictures == 0 || two[0].since.min(two[1].since) > 2;
                prop_assert!(!room || two[0].ms < two[1].ms, "{:?} and {:?}", two[0], two[1]);
            }
            let sounds = || self.sounds.iter().filter(|sound| sound.0 == timeline);
            prop_assert!(sounds().zip(sounds().skip(1)).all(|(before, after)| before.1 < after.1));
        }
        Ok(())
    }

    /// While nothing happens, the time from one picture to the next is that between their RTP times, within 5 % and the
    /// rounding to milliseconds.
    fn check_spacing(&self, fps: i64) -> Result<(), TestCaseError> {
        let frame_ms = 1000.0 / fps as f64;
        let mut shown = self.stamped.clone();
        shown.sort_by_key(|stamped| (stamped.origin, stamped.shown));
        for two in shown.windows(2) {
            let next = two[0].shown + 1 == two[1].shown && two[0].since.min(two[1].since) > 2;
            if next && (two[0].timeline, two[0].quiet) == (two[1].timeline, two[1].quiet) {
                let passed = two[1].ms as f64 - two[0].ms as f64;
                let most = frame_ms * 0.05 * f64::from(1 + 2 * 3) + 2.0;
                prop_assert!((passed - frame_ms).abs() <= most, "{passed} ms at {:?}", two[1]);
            }
        }
        Ok(())
    }

    fn check_fragments(&mut self, script: &Script) -> Result<(), TestCaseError> {
        let frame_ms = (1000 / script.fps).unsigned_abs() + 3;
        let mut closings = 0;
        while let Some(part) = self.fragmenter.next_part() {
            let Part::End(end) = part else { continue };
            let ms = end.summary.duration_ms;
            prop_assert!(ms <= FRAGMENT_MAX_MS, "a fragment of {ms} ms");
            closings += u32::from(end.closing);
            if !end.closing {
                let stalls = script.events.iter().any(|event| matches!(event, Event::Stall { .. }));
                prop_assert!(stalls || ms + frame_ms * 4 >= FRAGMENT_MS, "a fragment of {ms} ms");
            }
        }
        prop_assert!(closings <= self.sessions + self.timelines);
        Ok(())
    }

    /// Only what happens makes new timelines: each event one, and one more when a report of the next session tells.
    fn check_timelines(&self) -> Result<(), TestCaseError> {
        prop_assert!(self.timelines <= 2 * self.quiet, "{} after {} events", self.timelines, self.quiet);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn stamps_hold_whatever_comes(script in script()) {
        let mut run = Run::new();
        run.play(&script);
        run.check_order(&script)?;
        run.check_spacing(script.fps)?;
        run.check_timelines()?;
        run.check_fragments(&script)?;
    }
}
