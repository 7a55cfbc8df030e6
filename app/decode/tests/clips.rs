//! Real H.264 and H.265 through real decoders: each picture comes out once, under its own time.

mod support;

use std::sync::Arc;

use camera_sim::{ClipSpec, Codec};
use decode::{DecodeError, Decoder, DecoderOptions, Frame, Preference, Stage};
use media::AccessUnit;

use support::{Collector, DEADLINE, Decoded, START_MS, Units, later, spec, time_of, units};

fn options() -> DecoderOptions {
    DecoderOptions {
        name: "test".into(),
        queue_units: 1000,
        preference: Preference::Only(vec!["avdec_h264".into(), "avdec_h265".into()]),
        ..DecoderOptions::default()
    }
}

fn start(options: DecoderOptions) -> (Decoder, Collector) {
    let collector = Collector::default();
    let to = collector.clone();
    let callback = move |frame: Arc<Frame>| to.add(frame.timestamp(), &frame.picture());
    (Decoder::start(options, callback).expect("GStreamer is installed"), collector)
}

/// Every picture from `first` to `last` is there once, in order, with its own strip.
#[track_caller]
fn check_run(seen: &[Decoded], first: u32, last: u32, spec: &ClipSpec) {
    let expected: Vec<Decoded> = (first..=last)
        .map(|index| {
            (
                time_of(index, spec.fps),
                Some(index % spec.pictures()),
                spec.width as usize,
                spec.height as usize,
            )
        })
        .collect();
    assert_eq!(seen.iter().take(expected.len()).copied().collect::<Vec<_>>(), expected);
}

fn round(units: &Units, round: u64) -> impl Iterator<Item = AccessUnit> + '_ {
    let length = u64::from(units.clip.spec().loop_seconds) * 1000;
    units.units.iter().map(move |unit| later(unit, round * length))
}

#[test]
fn each_picture_comes_out_under_the_time_of_its_access_unit() {
    let h264 = spec();
    let h265 = ClipSpec { codec: Codec::H265, ..spec() };
    let cases = [
        (h264.clone(), "avdec_h264", 0),
        (ClipSpec { b_frames: 2, ..h264.clone() }, "avdec_h264", 4),
        (h264.clone(), "openh264dec", 1),
        (h265.clone(), "avdec_h265", 0),
        (ClipSpec { b_frames: 2, ..h265.clone() }, "avdec_h265", 4),
        (ClipSpec { b_frames: 2, open_gop: true, ..h265.clone() }, "avdec_h265", 4),
        (ClipSpec { b_frames: 2, ..h265 }, "libde265dec", 4),
    ];
    // The last pictures stay inside until more comes: that many.
    for (spec, name, kept_back) in cases {
        let units = units(&spec);
        let (decoder, collector) =
            start(DecoderOptions { preference: Preference::Only(vec![name.into()]), ..options() });
        round(&units, 0).chain(round(&units, 1)).for_each(|unit| decoder.push(unit));
        let last = 2 * spec.pictures() - 1 - kept_back;
        let seen = collector.wait_for(time_of(last, spec.fps));
        check_run(&seen, 0, last, &spec);
        let report = decoder.report();
        assert_eq!((report.stage, report.decoder.as_deref()), (Stage::Running, Some(name)));
        assert_eq!(
            (report.damaged, report.dropped, report.left_out, report.unknown),
            (0, 0, 0, 0),
            "{report:?}"
        );
        assert_eq!(report.pushed, 2 * u64::from(spec.pictures()));
        assert_eq!(report.last_problem, None);
    }
}

#[test]
fn whoever_waits_for_room_and_finishes_gets_every_picture_whatever_the_decoder_keeps_back() {
    let h264 = ClipSpec { b_frames: 2, ..spec() };
    let cases = [(h264.clone(), "avdec_h264"), (ClipSpec { codec: Codec::H265, ..h264 }, "avdec_h265")];
    for (spec, name) in cases {
        let units = units(&spec);
        let preference = Preference::Only(vec![name.into()]);
        let (decoder, collector) = start(DecoderOptions { preference, queue_units: 2, ..options() });
        let last = spec.pictures() - 1;
        for n in 0..2 {
            for unit in round(&units, n) {
                assert!(decoder.wait_for_room(DEADLINE), "{:?}", decoder.report());
                decoder.push(unit);
            }
            assert!(decoder.finish(DEADLINE), "{:?}", decoder.report());
            // Nothing is left inside, and what comes next begins anew.
            let n = u32::try_from(n).expect("small");
            check_run(&collector.seen(), 0, last + n * spec.pictures(), &spec);
            assert_eq!(decoder.report().stage, Stage::Waiting);
        }
        let report = decoder.report();
        assert_eq!((report.handed_on, report.damaged, report.dropped), (report.pushed, 0, 0), "{report:?}");
        assert!(decoder.finish(DEADLINE), "nothing is left to do");
    }
}

#[test]
fn a_picture_comes_out_before_the_next_goes_in() {
    for codec in [Codec::H264, Codec::H265] {
        let spec = ClipSpec { codec, ..spec() };
        let units = units(&spec);
        let (decoder, collector) = start(options());
        for (n, unit) in units.units.iter().enumerate() {
            decoder.push(unit.clone());
            collector.wait_for_count(n + 1);
        }
        check_run(&collector.seen(), 0, spec.pictures() - 1, &spec);
    }
}

#[test]
fn decoding_begins_at_a_random_access_point() {
    let spec = spec();
    let units = units(&spec);
    let (decoder, collector) = start(options());
    units.units[7..].iter().for_each(|unit| decoder.push(unit.clone()));
    let seen = collector.wait_for(time_of(spec.pictures() - 1, spec.fps));
    check_run(&seen, 20, spec.pictures() - 1, &spec);
    assert_eq!(decoder.report().left_out, 13);
}

#[test]
fn what_is_shown_before_the_first_random_access_point_is_left_out() {
    // The leading pictures of a CRA refer to what came before it.
    let spec = ClipSpec { codec: Codec::H265, b_frames: 2, open_gop: true, ..spec() };
    let units = units(&spec);
    let first = units.units.iter().skip(1).position(|unit| unit.random_access).expect("a second GOP") + 1;
    let leading =
        units.units[first..].iter().filter(|unit| unit.timestamp < units.units[first].timestamp).count();
    assert!(leading > 0, "the clip has leading pictures");
    let (decoder, collector) = start(options());
    units.units[first..].iter().chain(&[]).for_each(|unit| decoder.push(unit.clone()));
    let last = spec.pictures() - 9;
    let seen = collector.wait_for(time_of(last, spec.fps));
    check_run(&seen, units.indices[first], last, &spec);
    let report = decoder.report();
    assert_eq!((report.left_out, report.damaged), (leading as u64, 0));
}

#[test]
fn after_a_discontinuity_it_waits_for_a_random_access_point() {
    let spec = spec();
    let units = units(&spec);
    let (decoder, collector) = start(options());
    units.units[..30].iter().for_each(|unit| decoder.push(unit.clone()));
    collector.wait_for_count(30);
    decoder.discontinuity();
    units.units[33..].iter().for_each(|unit| decoder.push(unit.clone()));
    let seen = collector.wait_for(time_of(spec.pictures() - 1, spec.fps));
    check_run(&seen[..30], 0, 29, &spec);
    check_run(&seen[30..], 40, spec.pictures() - 1, &spec);
    assert_eq!(decoder.report().left_out, 7);
}

#[test]
fn time_may_run_back_at_a_discontinuity() {
    let spec = spec();
    let units = units(&spec);
    let (decoder, collector) = start(options());
    let hour = 3_600_000;
    units.units.iter().for_each(|unit| decoder.push(later(unit, hour)));
    collector.wait_for_count(100);
    decoder.discontinuity();
    units.units.iter().for_each(|unit| decoder.push(unit.clone()));
    let count = spec.pictures() as usize;
    let seen = collector.wait_for_count(2 * count);
    check_run(&seen[count..], 0, spec.pictures() - 1, &spec);
    assert_eq!(seen[0].0.as_millis(), START_MS + hour);
    assert_eq!(decoder.report().unknown, 0);
}

#[test]
fn another_size_goes_on_in_the_same_pipeline() {
    for codec in [Codec::H264, Codec::H265] {
        let small = ClipSpec { codec, ..spec() };
        let large = ClipSpec { width: 640, height: 384, ..small.clone() };
        let (small_units, large_units) = (units(&small), units(&large));
        let (decoder, collector) = start(options());
        round(&small_units, 0).for_each(|unit| decoder.push(unit));
        collector.wait_for_count(1);
        round(&large_units, 1).for_each(|unit| decoder.push(unit));
        round(&small_units, 2).for_each(|unit| decoder.push(unit));
        let count = small.pictures();
        let seen = collector.wait_for_count(3 * count as usize);
        let part = |n: u32| &seen[(n * count) as usize..];
        check_run(part(0), 0, count - 1, &small);
        check_run(part(1), count, 2 * count - 1, &large);
        check_run(part(2), 2 * count, 3 * count - 1, &small);
        let report = decoder.report();
        assert_eq!(
            (report.rebuilt, report.dropped, report.damaged, report.unknown),
            (0, 0, 0, 0),
            "{report:?}"
        );
    }
}

#[test]
fn another_codec_gets_another_pipeline() {
    let (h264, h265) = (spec(), ClipSpec { codec: Codec::H265, ..spec() });
    let (first, second) = (units(&h264), units(&h265));
    let (decoder, collector) = start(options());
    round(&first, 0).for_each(|unit| decoder.push(unit));
    collector.wait_for_count(100);
    round(&second, 1).for_each(|unit| decoder.push(unit));
    let seen = collector.wait_for_count(200);
    check_run(&seen[100..], 100, 199, &h265);
    let report = decoder.report();
    assert_eq!((report.decoder.as_deref(), report.rebuilt), (Some("avdec_h265"), 0));
}

#[test]
fn the_wanted_rate_is_evenly_spaced_and_can_be_changed() {
    let spec = spec();
    let units = units(&spec);
    let (decoder, collector) = start(DecoderOptions { rate: 5.0, ..options() });
    round(&units, 0).for_each(|unit| decoder.push(unit));
    // 25 to 5: every fifth.
    let seen = collector.wait_for_count(20);
    let indices: Vec<_> = seen.iter().filter_map(|seen| seen.1).collect();
    assert_eq!(indices, (0..20).map(|n| n * 5).collect::<Vec<_>>());
    support_wait(&decoder, |report| report.decoded == 100);
    decoder.set_rate(12.5);
    round(&units, 1).for_each(|unit| decoder.push(unit));
    let seen = collector.wait_for_count(70);
    let indices: Vec<_> = seen[20..].iter().filter_map(|seen| seen.1).collect();
    assert_eq!(indices, (0..50).map(|n| n * 2).collect::<Vec<_>>());
    assert_eq!(decoder.report().damaged, 0);
}

/// Reports change on another thread, without a signal to wait for.
#[track_caller]
fn support_wait(decoder: &Decoder, done: impl Fn(&decode::DecodeReport) -> bool) {
    let clock = clock::Clock::system();
    let start = clock.now();
    while !done(&decoder.report()) {
        assert!(clock.since(start) < support::DEADLINE, "{:?}", decoder.report());
        std::thread::yield_now();
    }
}

#[test]
fn key_frames_only_decodes_nothing_else_and_can_be_switched() {
    let spec = spec();
    let units = units(&spec);
    let (decoder, collector) = start(DecoderOptions { key_frames_only: true, ..options() });
    round(&units, 0).for_each(|unit| decoder.push(unit));
    let seen = collector.wait_for_count(5);
    assert_eq!(seen.iter().filter_map(|seen| seen.1).collect::<Vec<_>>(), [0, 20, 40, 60, 80]);
    let report = decoder.report();
    assert_eq!((report.decoded, report.left_out), (5, 95));
    decoder.set_key_frames_only(false);
    // In the middle of a GOP: the pictures that the next one refers to were not decoded.
    round(&units, 1).skip(10).for_each(|unit| decoder.push(unit));
    let seen = collector.wait_for_count(5 + 80);
    check_run(&seen[5..], 120, 199, &spec);
}

#[test]
fn nothing_is_decoded_while_nobody_wants_it() {
    let spec = spec();
    let units = units(&spec);
    let (decoder, collector) = start(options());
    round(&units, 0).for_each(|unit| decoder.push(unit));
    collector.wait_for_count(100);
    decoder.set_wanted(false);
    assert_eq!(decoder.report().stage, Stage::Unwanted);
    round(&units, 1).for_each(|unit| decoder.push(unit));
    let report = decoder.report();
    assert_eq!((report.decoded, report.left_out, report.damaged), (100, 100, 0));
    decoder.set_wanted(true);
    round(&units, 2).skip(5).for_each(|unit| decoder.push(unit));
    let seen = collector.wait_for_count(180);
    check_run(&seen[100..], 220, 299, &spec);
    assert_eq!(decoder.report().rebuilt, 0);
}

#[test]
fn a_full_queue_drops_up_to_the_next_random_access_point() {
    let spec = spec();
    let units = units(&spec);
    let gate = Arc::new((std::sync::Mutex::new(false), std::sync::Condvar::new()));
    let collector = Collector::default();
    let (to, closed) = (collector.clone(), gate.clone());
    let callback = move |frame: Arc<Frame>| {
        to.add(frame.timestamp(), &frame.picture());
        // A consumer that holds GStreamer's thread, as a decoder that is too slow would.
        drop(closed.1.wait_while(closed.0.lock().unwrap(), |open| !*open).unwrap());
    };
    let decoder =
        Decoder::start(DecoderOptions { queue_units: 10, ..options() }, callback).expect("installed");
    decoder.push(units.units[0].clone());
    collector.wait_for_count(1);
    units.units[1..].iter().for_each(|unit| decoder.push(unit.clone())); // must not block
    assert_eq!(
        decoder.report().dropped,
        1 + 4,
        "the 11th, and each random access point: {:?}",
        decoder.report()
    );
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    collector.wait_for_count(11);
    round(&units, 1).skip(3).take(30).for_each(|unit| decoder.push(unit));
    let seen = collector.wait_for(time_of(125, spec.fps));
    check_run(&seen[..11], 0, 10, &spec);
    check_run(&seen[11..], 120, 125, &spec);
}

/// A linear congruential generator (Knuth, MMIX): the same damage in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

#[test]
fn damage_is_survived_and_ends_with_the_next_intact_gop() {
    for codec in [Codec::H264, Codec::H265] {
        let spec = ClipSpec { codec, ..spec() };
        let units = units(&spec);
        let mut dice = Dice(0x5eed);
        let (decoder, collector) = start(options());
        let rounds = 6_u64;
        for number in 0..rounds {
            for (n, mut unit) in round(&units, number).enumerate() {
                // GOPs 0 and 4 of each round are intact.
                if (20..80).contains(&n) {
                    let mut data = unit.data.to_vec();
                    match number {
                        // Flipped bits anywhere, lengths and headers included.
                        0..3 if n % 3 == 0 => (0..4).for_each(|_| {
                            let at = dice.below(data.len());
                            data[at] ^= 1 << dice.below(8);
                        }),
                        3 if n % 2 == 1 => data.truncate(dice.below(data.len())),
                        4 if n % 2 == 1 => {
                            data = vec![u8::try_from(dice.below(256)).unwrap(); dice.below(300)]
                        }
                        5 if n % 7 == 0 => continue, // lost without a word
                        _ => {}
                    }
                    unit.data = data.into();
                }
                decoder.push(unit);
            }
        }
        let last = u32::try_from(rounds).unwrap() * 100 - 1;
        let seen = collector.wait_for(time_of(last, spec.fps));
        for number in 0..u32::try_from(rounds).unwrap() {
            for index in (0..20).chain(80..100).map(|n| number * 100 + n) {
                let of: Vec<_> = seen.iter().filter(|seen| seen.0 == time_of(index, spec.fps)).collect();
                assert_eq!(of.len(), 1, "{codec:?}: picture {index}");
                assert_eq!(of[0].1, Some(index % 100), "{codec:?}: picture {index} is intact");
            }
        }
        assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0), "{codec:?}: in order, none twice");
        let report = decoder.report();
        // What is cut is always noticed; flipped bits only where the decoder does not conceal them.
        assert!((60..=120).contains(&report.damaged), "{report:?}");
        assert_eq!((report.stage, report.rebuilt), (Stage::Running, 0), "{report:?}");
    }
}

#[test]
fn a_picture_above_the_limit_is_refused_before_it_is_decoded() {
    let (small, large) = (spec(), ClipSpec { width: 640, height: 384, ..spec() });
    let (small_units, large_units) = (units(&small), units(&large));
    let (decoder, collector) = start(DecoderOptions { max_pixels: 320 * 192, ..options() });
    round(&large_units, 0).for_each(|unit| decoder.push(unit));
    let report = decoder.report();
    assert_eq!((report.decoder, report.decoded, report.refused, report.left_out), (None, 0, 5, 95));
    let problem = report.last_problem.expect("told");
    let expected = DecodeError::TooLarge { width: 640, height: 384, pixels: 245_760, max_pixels: 61_440 };
    assert_eq!(problem, expected);
    assert!(problem.to_string().contains("640x384 has 245760 pixels, the limit is 61440"), "{problem}");
    // In-band parameter sets that say something else than the format are no way around it.
    let format = small_units.format.clone();
    round(&large_units, 1).for_each(|unit| decoder.push(AccessUnit { format: format.clone(), ..unit }));
    round(&small_units, 2).for_each(|unit| decoder.push(unit));
    let seen = collector.wait_for_count(100);
    check_run(&seen, 200, 299, &small);
    assert!(decoder.report().refused > 5);
}

#[test]
fn an_unknown_decoder_is_told_at_start() {
    let preference = Preference::Only(vec!["avdec_h246".into()]);
    let result = Decoder::start(DecoderOptions { preference, ..options() }, |_| {});
    let text = result.err().expect("no such decoder").to_string();
    assert!(text.contains("`avdec_h246`") && text.contains("avdec_h265"), "{text}");
}

#[test]
fn dropping_while_units_come_in_stops_at_once() {
    let spec = spec();
    let units = units(&spec);
    for count in [0, 1, 5, 30, 100] {
        let (decoder, collector) = start(options());
        let decoder = Arc::new(decoder);
        let pusher = {
            let (decoder, units) = (Arc::downgrade(&decoder), units.units.clone());
            std::thread::spawn(move || {
                for unit in units.iter().cycle() {
                    let Some(decoder) = decoder.upgrade() else { break };
                    decoder.push(unit.clone());
                }
            })
        };
        collector.wait_for_count(count);
        drop(decoder);
        pusher.join().unwrap();
        let seen = collector.seen().len();
        std::thread::yield_now();
        assert_eq!(collector.seen().len(), seen, "nothing is handed on afterwards");
    }
}

#[test]
fn frames_outlive_their_decoder() {
    let units = units(&spec());
    let (to, frames) = std::sync::mpsc::sync_channel(100);
    let decoder = Decoder::start(options(), move |frame| to.send(frame).unwrap()).expect("installed");
    units.units[..3].iter().for_each(|unit| decoder.push(unit.clone()));
    let kept: Vec<Arc<Frame>> = frames.iter().take(3).collect();
    drop(decoder);
    for (n, frame) in (0..).zip(&kept) {
        let luma = frame.picture().luma();
        assert_eq!(camera_sim::read_frame_index(luma.bytes, luma.stride, 320, 192), Some(n));
        assert_eq!(frame.source_size(), (320, 192));
    }
}
