use media::mkv::read::{EventKind, Limits, Parser};
use proptest::prelude::*;

use super::*;
use crate::fragmenter::{Fragmenter, Part};
use crate::proof::verify::is_identical;
use crate::read::chunk::{Answer, ChunkReader, Event};
use crate::testing::{self, config, format, unit, wholes};

const NOW: u64 = 1_795_186_073_000;

fn stretch(run: u64, boot: u128, (from_ms, to_ms): (u64, u64), after_ms: u64) -> Stretch {
    Stretch { run: RunId::new(run), boot: BootId(boot), from_ms, to_ms, after_ms }
}

/// In the present boot 9, which is `up_s` old.
fn trusted(up_s: i64) -> Trusted {
    Trusted { boot: BootId(9), offset_ms: NOW.cast_signed() - up_s * 1000, before_ms: NOW }
}

/// Where the stretches lie: begin, end, and how much earlier they may have been.
fn placed(stretches: &[Stretch], trusted: &Trusted) -> Vec<(u64, u64, Option<Estimate>)> {
    let stamps = stamp(stretches, trusted);
    assert_eq!(stamps.len(), stretches.len());
    let place = |(one, stamp): (&Stretch, &RunStamp)| {
        assert_eq!(one.run, stamp.run);
        (stamp.utc_ms(one.from_ms), stamp.utc_ms(one.to_ms), stamp.estimate)
    };
    stretches.iter().zip(&stamps).map(place).collect()
}

fn earlier(ms: u64) -> Option<Estimate> {
    Some(Estimate { earlier_ms: Some(ms) })
}

#[test]
fn footage_of_the_present_boot_is_exact_over_restarts_of_the_process() {
    let two = [stretch(1, 9, (30_000, 90_000), 0), stretch(2, 9, (95_000, 200_000), 0)];
    let placed = placed(&two, &trusted(300));
    assert_eq!(placed, [(NOW - 270_000, NOW - 210_000, None), (NOW - 205_000, NOW - 100_000, None)]);
}

#[test]
fn footage_of_an_earlier_boot_ends_before_the_present_one_began() {
    let last_real = NOW - 3_600_000;
    let one = [stretch(1, 7, (20_000, 80_000), last_real)];
    // The present boot began 100 s ago; at the earliest it was recorded right behind what has a real time.
    let end = NOW - 100_000 - 1;
    assert_eq!(placed(&one, &trusted(100)), [(end - 60_000, end, earlier(end - 60_000 - last_real - 1))]);
    let unknown = [stretch(1, 7, (20_000, 80_000), 0)];
    let estimate = Some(Estimate { earlier_ms: None });
    assert_eq!(placed(&unknown, &trusted(100)), [(end - 60_000, end, estimate)]);
}

#[test]
fn boots_without_a_clock_lie_one_behind_the_other_with_their_own_start_between_them() {
    let after = NOW - 7_200_000;
    let all = [
        stretch(1, 7, (20_000, 80_000), after),
        stretch(2, 8, (30_000, 50_000), after),
        stretch(3, 8, (60_000, 70_000), after),
        stretch(4, 9, (10_000, 90_000), after),
    ];
    let placed = placed(&all, &trusted(100));
    assert_eq!(placed[3], (NOW - 90_000, NOW - 10_000, None));
    assert_eq!(placed[2].1, NOW - 100_001, "before the present boot began");
    assert_eq!(placed[2].0 - placed[1].1, 10_000, "runs of one boot keep their distance");
    let began = placed[1].0 - 30_000;
    assert_eq!(placed[0].1, began - 1, "before the second boot began");
    assert!(placed[..3].iter().all(|one| one.2.is_some()));
}

#[test]
fn clocks_that_differ_by_seconds_make_no_overlap() {
    // A camera 8 s ahead stamped what lies before; the present boot is 4 s old.
    let last_real = NOW + 1_000;
    let one = [stretch(1, 7, (2_000, 5_000), last_real - 8_000)];
    let (from, to, _) = placed(&one, &trusted(4))[0];
    assert!(from > last_real - 8_000 && to < NOW, "{from} {to}");
    // The first real time that follows is that of a camera 5 s behind.
    let behind = Trusted { before_ms: NOW - 5_000, ..trusted(60) };
    let exact = [stretch(1, 9, (10_000, 58_000), 0)];
    assert_eq!(placed(&exact, &behind)[0].1, NOW - 5_001);
    // What lies before has a time that is hours ahead: the clock was wrong then, and nothing is stamped in the future.
    let wrong = NOW + 7_200_000;
    let future = [stretch(1, 7, (2_000, 5_000), wrong), stretch(2, 9, (10_000, 20_000), wrong)];
    let placed = placed(&future, &trusted(60));
    assert_eq!(placed[1], (NOW - 50_000, NOW - 40_000, None));
    assert!(placed[0].1 < placed[1].0, "{placed:?}");
    assert_eq!(placed[0].2, Some(Estimate { earlier_ms: None }), "it bounds nothing");
}

#[test]
fn a_kernel_that_names_no_boot_makes_no_two_the_same() {
    let unknown = Trusted { boot: BootId::UNKNOWN, ..trusted(100) };
    let two = [stretch(1, 0, (20_000, 80_000), 0), stretch(2, 0, (30_000, 40_000), 0)];
    let placed = placed(&two, &unknown);
    assert!(placed.iter().all(|one| one.2.is_some()) && placed[0].1 < placed[1].0, "{placed:?}");
}

/// What happened to a box: lives of the machine, each with some runs; off times between them.
#[derive(Clone, Debug)]
struct Past {
    boots: Vec<(u64, Vec<(u64, u64)>)>,
    first_real: bool,
    skew_ms: i64,
}

fn past() -> impl Strategy<Value = Past> {
    let run = (1..60_000_u64, 1..600_000_u64);
    let boot = (0..3_600_000_u64, prop::collection::vec(run, 0..4));
    (prop::collection::vec(boot, 1..6), any::<bool>(), -9_000..9_000_i64)
        .prop_map(|(boots, first_real, skew_ms)| Past { boots, first_real, skew_ms })
}

proptest! {
    /// Whatever the box went through, the order of times is the order of recording, nothing is in the future, and what is
    /// stamped lies within its bounds, as far as clocks agree.
    #[test]
    fn order_of_times_is_order_of_recording(past in past()) {
        let first_real = 1_700_000_000_000_u64;
        let mut now = first_real + 1;
        let (mut stretches, mut truth, mut began) = (Vec::new(), Vec::new(), now);
        let after_ms = if past.first_real { first_real } else { 0 };
        for (boot, (off_ms, runs)) in (1..).zip(&past.boots) {
            now += off_ms;
            began = now;
            for (pause_ms, length_ms) in runs {
                now += pause_ms;
                let (from_ms, to_ms) = (now - began, now - began + length_ms);
                let run = stretches.len() as u64 + 1;
                stretches.push(stretch(run, boot, (from_ms, to_ms), after_ms));
                truth.push(now);
                now += length_ms + 1;
            }
        }
        let next = (now + 10_000).saturating_add_signed(past.skew_ms);
        let boot = BootId(past.boots.len() as u128);
        let trusted = Trusted { boot, offset_ms: began.cast_signed(), before_ms: next.min(now + 10_000) };
        let placed = placed(&stretches, &trusted);
        for pair in placed.windows(2) {
            prop_assert!(pair[0].1 < pair[1].0, "{placed:?}");
        }
        prop_assert!(placed.last().is_none_or(|last| last.1 < trusted.before_ms));
        prop_assert!(placed.iter().all(|one| one.0 > after_ms));
        for ((from, _, estimate), truth) in placed.iter().zip(&truth) {
            match estimate {
                None => prop_assert!(from.abs_diff(*truth) <= past.skew_ms.unsigned_abs()),
                Some(Estimate { earlier_ms }) => {
                    prop_assert!(from + 1 + past.skew_ms.unsigned_abs() >= *truth, "not later");
                    let earliest = earlier_ms.map_or(0, |ms| from.saturating_sub(ms));
                    prop_assert!(earliest <= *truth, "{earliest} {truth}");
                }
            }
        }
    }
}

/// A fragment of a box without a clock, and the heads of its cluster.
fn unstamped() -> (testing::Whole, Vec<u8>) {
    let mut fragmenter = Fragmenter::new(config());
    fragmenter.boot_timeline([3; 16], BootId(7));
    let format = format(640);
    for n in 0..5 {
        let mut unit = unit(&format, n * 200, n == 0);
        unit.timestamp = ProducerTimestamp::from_millis(61_500 + n * 200);
        fragmenter.video(&unit);
    }
    fragmenter.finish();
    let parts = testing::parts(&mut fragmenter);
    let heads = parts.iter().filter_map(|part| match part {
        Part::Start(start) => Some(&start.head),
        Part::Block { head, .. } => Some(head),
        Part::End(_) => None,
    });
    let heads = heads.flat_map(|head| head.to_vec()).collect();
    (wholes(parts).remove(0), heads)
}

/// What whoever reads the stream finds in it.
fn read(whole: &testing::Whole, end: &FragmentEnd, cluster: Bytes) -> (u64, Vec<(String, String)>) {
    let mut parser = Parser::new(Limits::default());
    for bytes in [whole.header.bytes.clone(), cluster, end.tag.clone()] {
        parser.push(bytes);
    }
    let (mut timecode_ms, mut tags) = (0, Vec::new());
    while let Some(event) = parser.finish().expect("our own Matroska") {
        match event.kind {
            EventKind::Timecode { ms } => timecode_ms = ms,
            EventKind::Element { id } if id == media::mkv::id::TAGS => {
                tags = elements::tags::parse(event.body()).expect("our own tags");
            }
            _ => {}
        }
    }
    (timecode_ms, tags)
}

#[test]
fn a_stamped_fragment_is_one_as_if_it_had_been_recorded_so() {
    let (whole, heads) = unstamped();
    let end = FragmentEnd { summary: whole.summary.clone(), tag: whole.tag.clone(), closing: true };
    assert_eq!(end.summary.clock, FootageClock::Boot(BootId(7)));
    let run = end.summary.id.run;
    let stamp = RunStamp { run, offset_ms: NOW.cast_signed(), estimate: None };
    let stamped = stamp.end(&end, &heads).expect("it is ours");
    let cluster = stamp.cluster(&whole.cluster, 61_500).expect("it is ours");
    assert_eq!(cluster.len() as u64, stamped.summary.cluster_bytes);
    let sum = &whole.summary.sums;
    assert_eq!((stamped.summary.sums.payload, stamped.summary.clock), (sum.payload, FootageClock::Utc));
    assert_ne!(stamped.summary.sums.heads, sum.heads);
    let (timecode_ms, tags) = read(&whole, &stamped, cluster.clone());
    assert_eq!(timecode_ms, NOW + 61_500);
    let identity: FragmentIdentity = tags[0].1.parse().expect("ours");
    assert_eq!((identity.timecode_ms, identity.id, tags.len()), (timecode_ms, end.summary.id, 1));
    assert_eq!(stamped.summary.around_bytes, (whole.header.bytes.len() + stamped.tag.len()) as u64);
    // What is read back is judged by these sums.
    let stamped_whole = testing::Whole {
        header: whole.header.clone(),
        cluster: cluster.to_vec(),
        tag: stamped.tag.clone(),
        summary: stamped.summary.clone(),
    };
    let mut reader = ChunkReader::new(Answer::GetMedia);
    reader.push(testing::chunk_bytes(&stamped_whole, 1, true).into());
    let mut chunk = None;
    while let Some(event) = reader.finish(true).expect("a chunk") {
        if let Event::End(end) = event {
            chunk = Some(end);
        }
    }
    assert!(is_identical(&chunk.expect("one"), &stamped.summary.sums));
}

#[test]
fn an_estimated_fragment_says_so_in_a_tag_within_the_limits_of_the_service() {
    let (whole, heads) = unstamped();
    let end = FragmentEnd { summary: whole.summary.clone(), tag: whole.tag.clone(), closing: true };
    let run = end.summary.id.run;
    for (earlier_ms, expected) in [
        (Some(5_000), format!("estimated from={} to={}", NOW + 56_500, NOW + 61_500)),
        (None, format!("estimated to={}", NOW + 61_500)),
    ] {
        let estimate = Estimate { earlier_ms };
        let stamp = RunStamp { run, offset_ms: NOW.cast_signed(), estimate: Some(estimate) };
        let stamped = stamp.end(&end, &heads).expect("it is ours");
        assert_eq!(stamped.summary.clock, FootageClock::Estimated(estimate));
        let cluster = stamp.cluster(&whole.cluster, 61_500).expect("it is ours");
        let (_, tags) = read(&whole, &stamped, cluster);
        assert_eq!((tags[1].0.as_str(), &tags[1].1, tags.len()), (CLOCK_TAG, &expected, 2));
    }
    assert!(clock_tag(u64::MAX, Estimate { earlier_ms: Some(0) }).len() <= crate::tag::MAX_VALUE_BYTES);
}

#[test]
fn what_is_not_ours_is_not_stamped() {
    let (whole, heads) = unstamped();
    let end = FragmentEnd { summary: whole.summary.clone(), tag: whole.tag.clone(), closing: true };
    let stamp = RunStamp { run: end.summary.id.run, offset_ms: 1_000, estimate: None };
    assert_eq!(stamp.cluster(&whole.cluster, 61_501), None, "of another time");
    assert_eq!(stamp.cluster(&whole.cluster[1..], 61_500), None);
    let other = RunStamp { run: RunId::new(99), ..stamp };
    let is_none = |end: &FragmentEnd, heads: &[u8], stamp: &RunStamp| stamp.end(end, heads).is_none();
    assert!(is_none(&end, &heads, &other) && is_none(&end, &heads[1..], &stamp));
    for length in 0..whole.tag.len() {
        let torn = FragmentEnd { tag: whole.tag.slice(..length), ..end.clone() };
        assert!(is_none(&torn, &heads, &stamp), "{length}");
    }
    let stamped = stamp.end(&end, &heads).expect("it is ours");
    assert!(is_none(&stamped, &heads, &stamp), "once");
}
