use proptest::prelude::*;

use super::*;
use crate::rules::{Line, Zone};
use crate::track::Tracker;
use crate::{Detection, Point};

const PERSON: u16 = 0;
const VEHICLE: u16 = 1;

fn ms(ms: u64) -> ProducerTimestamp {
    ProducerTimestamp::from_millis(ms)
}

fn labels() -> Vec<String> {
    ["person", "vehicle", "dog"].map(str::to_owned).to_vec()
}

/// The left half of the picture is "yard", a line in the middle runs upwards: to the right is out.
fn rules() -> Rules {
    let corners = [(0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)];
    Rules {
        labels: vec!["person".into(), "vehicle".into()],
        zones: vec![Zone {
            name: "yard".into(),
            polygon: corners.map(|(x, y)| Point { x, y }).to_vec(),
            labels: vec!["person".into()],
            dwell_ms: 0,
            severity: Some(Severity::Alert),
        }],
        lines: vec![Line {
            name: "middle".into(),
            from: Point { x: 0.5, y: 1.0 },
            to: Point { x: 0.5, y: 0.0 },
            labels: Vec::new(),
        }],
        lost_after_ms: 2_000,
        ..Rules::default()
    }
}

/// A tracker and the events of it.
struct Chain {
    tracker: Tracker,
    events: Events,
}

impl Chain {
    fn new(rules: Rules) -> Chain {
        let tracker = Tracker::new(rules.tracker(&labels()));
        Chain { tracker, events: Events::new(rules, &labels()).unwrap() }
    }

    fn see(&mut self, at: u64, boxes: &[Detection]) -> Outcome {
        self.events.update(ms(at), self.tracker.update(ms(at), boxes, None))
    }
}

/// A box whose foot is at (`x`, 0.6).
fn object(class: u16, x: f32, score: f32) -> Detection {
    Detection { class, score, rect: Rect { x: x - 0.05, y: 0.4, w: 0.1, h: 0.2 } }
}

fn zone(name: &str) -> Arc<str> {
    name.into()
}

/// Kind, reasons and time of each change.
fn told(changes: &[Change]) -> Vec<(ChangeKind, Vec<Why>, u64)> {
    changes.iter().map(|change| (change.kind, change.why.clone(), change.at.as_millis())).collect()
}

use ChangeKind::{End, New, Update};

#[test]
fn walk_through_the_yard() {
    let mut chain = Chain::new(rules());
    let (mut changes, mut better) = (Vec::new(), Vec::new());
    for n in 0..62_u64 {
        // From 0.8 to the left at 0.1 a second, gone after 4 s.
        let boxes = [object(PERSON, 0.8 - 0.01 * n as f32, 0.8)];
        let outcome = chain.see(10_000 + n * 100, if n < 40 { &boxes } else { &[] });
        changes.extend(outcome.changes);
        better.extend(outcome.better);
        if n == 35 {
            let one = |label: &str| Count { label: label.into(), count: u32::from(label == "person") };
            assert_eq!(chain.events.counts(), [one("person"), one("vehicle")]);
            let count = ZoneCount { zone: zone("yard"), label: "person".into(), count: 1 };
            assert_eq!(chain.events.zone_counts(), [count]);
        }
    }
    let entered = vec![Why::Entered { zone: zone("yard") }];
    let crossed = vec![Why::Crossed { line: zone("middle"), direction: Direction::In }];
    assert_eq!(
        told(&changes),
        [
            (New, vec![Why::Confirmed], 10_200),
            (Update, vec![Why::Due], 11_200),
            (Update, vec![Why::Due], 12_200),
            (Update, entered, 13_000),
            (Update, crossed, 13_100), // clearly over
            (End, vec![Why::Lost], 16_000),
        ]
    );
    assert_eq!(better, [1], "the picture in which it was told");
    let Event { start, end, zones, entered, severity, crossed, frames, .. } = &changes.last().unwrap().event;
    assert_eq!((*start, *end, *frames), (ms(10_000), Some(ms(13_900)), 40));
    assert_eq!((zones, entered, *severity), (&vec![zone("yard")], &vec![zone("yard")], Severity::Alert));
    assert_eq!(*crossed, [Crossed { line: zone("middle"), ins: 1, outs: 0 }]);
    assert_eq!(changes[0].event.severity, Severity::Detection);
    let count = |label: &str, ins| LineCount { line: zone("middle"), label: label.into(), ins, outs: 0 };
    assert_eq!(chain.events.crossings(), [count("person", 1), count("vehicle", 0)]);
    assert!(chain.events.counts().iter().all(|count| count.count == 0));
}

#[test]
fn parked_car_is_told_once_and_then_left_alone() {
    let mut chain = Chain::new(rules());
    let mut changes = Vec::new();
    for n in 0..3_000_u64 {
        // Five minutes; boxes jitter by a tenth of the size, some are missed.
        let off = 0.01 * ((n * 7 % 11) as f32 / 5.0 - 1.0);
        let car = object(VEHICLE, 0.7 + off, 0.8 + off);
        let boxes = if n % 6 == 0 { vec![] } else { vec![car] };
        changes.extend(chain.see(n * 100, &boxes).changes);
    }
    let kinds = |kind| changes.iter().filter(|change| change.kind == kind).count();
    assert_eq!((kinds(New), kinds(End)), (1, 0), "{:?}", told(&changes));
    assert!(kinds(Update) <= 12, "{:?}", told(&changes));
    let last = changes.last().unwrap();
    assert_eq!((&last.why, last.event.stationary), (&vec![Why::Stopped], true));
    // It drives off.
    let mut changes = Vec::new();
    for n in 3_000..3_020_u64 {
        let x = 0.7 + 0.01 * (n - 3_000) as f32;
        changes.extend(chain.see(n * 100, &[object(VEHICLE, x, 0.8)]).changes);
    }
    assert_eq!(changes[0].why, [Why::Started]);
    assert!(!changes[0].event.stationary);
}

#[test]
fn loiterer_enters_though_stationary() {
    let mut rules = rules();
    rules.zones[0].dwell_ms = 30_000;
    let mut chain = Chain::new(rules);
    let mut changes = Vec::new();
    for n in 0..400_u64 {
        changes.extend(chain.see(n * 100, &[object(PERSON, 0.3, 0.8)]).changes);
    }
    let [before @ .., last] = &told(&changes)[..] else { panic!() };
    assert_eq!(before.last().unwrap().1, [Why::Stopped]);
    assert_eq!(*last, (Update, vec![Why::Entered { zone: zone("yard") }], 30_000));
    assert_eq!(changes.last().unwrap().event.severity, Severity::Alert);
}

#[test]
fn what_happened_before_new_is_in_new() {
    let mut chain = Chain::new(Rules { confirm_frames: 4, ..rules() });
    let mut changes = Vec::new();
    for (n, x) in (0..).zip([0.60, 0.54, 0.46, 0.40]) {
        changes.extend(chain.see(n * 200, &[object(PERSON, x, 0.8)]).changes);
    }
    let [change] = &changes[..] else { panic!("{changes:?}") };
    let crossed = Why::Crossed { line: zone("middle"), direction: Direction::In };
    assert_eq!(change.why, [Why::Confirmed, Why::Entered { zone: zone("yard") }, crossed]);
    assert_eq!((change.event.start, change.event.best.at), (ms(0), ms(600)));
    assert_eq!(chain.events.crossings()[0].ins, 1);
}

#[test]
fn labels_scores_and_areas_decide_what_is_told() {
    let check = |rule: LabelRule, class, score, expected: usize| {
        let mut rules = rules();
        rules.by_label.insert("person".into(), rule.clone());
        // Tracks as of a tracker that lets everything through.
        let mut tracker = Tracker::new(crate::track::TrackerConfig {
            classes: vec![crate::track::ClassRule { begin_score: 0.1, ..Default::default() }; 4],
            ..Default::default()
        });
        let mut events = Events::new(rules, &labels()).unwrap();
        let mut changes = Vec::new();
        for n in 0..5 {
            changes.extend(
                events
                    .update(ms(n * 100), tracker.update(ms(n * 100), &[object(class, 0.8, score)], None))
                    .changes,
            );
        }
        let told = changes.iter().filter(|change| change.kind == New).count();
        assert_eq!(told, expected, "{rule:?} {class} {score}");
    };
    let rule = LabelRule { min_score: 0.6, ..LabelRule::default() };
    check(rule.clone(), PERSON, 0.7, 1);
    check(rule.clone(), PERSON, 0.5, 0);
    check(rule.clone(), VEHICLE, 0.55, 1); // the rule for all labels
    check(rule.clone(), 2, 0.9, 0); // not looked at
    check(rule.clone(), 3, 0.9, 0); // unknown to the model
    check(LabelRule { min_area: 0.03, ..rule.clone() }, PERSON, 0.7, 0);
    check(LabelRule { max_area: 0.01, ..rule.clone() }, PERSON, 0.7, 0);
    check(LabelRule { min_area: 0.01, max_area: 0.03, ..rule }, PERSON, 0.7, 1);
}

#[test]
fn best_shot_gets_better_in_steps() {
    let mut chain = Chain::new(rules());
    let (mut better, mut changes) = (Vec::new(), Vec::new());
    for n in 0..50_u64 {
        // Comes nearer, to four times the size.
        let size = 0.05 * (1.0 + 3.0 * n as f32 / 50.0);
        let rect = Rect { x: 0.75 - size / 2.0, y: 0.5 - size, w: size, h: 2.0 * size };
        let outcome = chain.see(n * 100, &[Detection { class: PERSON, score: 0.8, rect }]);
        if !outcome.better.is_empty() {
            better.push(n);
        }
        changes.extend(outcome.changes);
    }
    assert_eq!(better[0], 2);
    assert!((8..=15).contains(&better.len()), "{better:?}");
    let told_better = changes.iter().filter(|change| change.why.contains(&Why::BetterShot)).count();
    assert!((2..=6).contains(&told_better), "{:?}", told(&changes));
    let last = &changes.last().unwrap().event;
    assert!(last.best.area > 0.05 && last.best.at >= ms(4_000), "{last:?}");
    // A larger box, but the edge of the picture cuts it.
    let rect = Rect { x: 0.76, y: 0.2, w: 0.24, h: 0.45 };
    assert_eq!(chain.see(5_000, &[Detection { class: PERSON, score: 0.8, rect }]).better, [0; 0]);
    assert_eq!(
        chain.events.active().next().map(|event| event.last_seen),
        Some(ms(5_000)),
        "it is still the same"
    );
}

#[test]
fn time_that_runs_back_and_finish_end_everything() {
    let mut chain = Chain::new(rules());
    let boxes = [object(PERSON, 0.3, 0.8), object(VEHICLE, 0.8, 0.8)];
    for n in 0..5 {
        chain.see(50_000 + n * 100, &boxes);
    }
    let outcome = chain.see(20_000, &boxes);
    let back = || (End, vec![Why::TimeRanBack], 50_400);
    assert_eq!(told(&outcome.changes), [back(), back()]);
    assert!(outcome.changes.iter().all(|change| change.event.end == Some(ms(50_400))));
    for n in 1..5 {
        chain.see(20_000 + n * 100, &boxes);
    }
    assert_eq!(chain.events.active().map(|event| event.track).collect::<Vec<_>>(), [3, 4]);
    let ends = chain.events.finish(ms(20_450));
    assert_eq!(told(&ends), vec![(End, vec![Why::Finished], 20_450); 2]);
    assert!(ends.iter().all(|change| change.event.end == Some(ms(20_400))));
    assert_eq!(chain.events.finish(ms(20_500)), []);
    // Ended by the events alone: a track that is still given is not told of again.
    let mut events = Events::new(rules(), &labels()).unwrap();
    let mut tracks = chain.tracker.tracks().to_vec();
    for n in 0..4 {
        events.update(ms(90_000 + n), &tracks);
    }
    assert_eq!(events.active().count(), 2);
    assert_eq!(events.update(ms(10), &tracks).changes.len(), 2);
    for n in 0..10 {
        assert_eq!(events.update(ms(20 + n), &tracks), Outcome::default());
    }
    tracks.clear();
    events.update(ms(40), &tracks);
    assert!(events.open.is_empty());
}

#[test]
fn relabelled_object_is_told_and_counted_anew() {
    let mut chain = Chain::new(rules());
    let mut changes = Vec::new();
    for n in 0..20_u64 {
        let class = if n < 5 { PERSON } else { VEHICLE };
        changes.extend(chain.see(n * 100, &[object(class, 0.3, 0.8)]).changes);
    }
    let relabelled =
        changes.iter().find(|change| change.why.contains(&Why::Relabelled { from: "person".into() }));
    let Change { event, why, .. } = relabelled.expect("told");
    assert_eq!(&*event.label, "vehicle");
    // The yard is for persons only.
    assert!(why.contains(&Why::Left { zone: zone("yard") }) && event.zones.is_empty());
    assert_eq!(chain.events.counts()[1].count, 1);
}

#[test]
fn rules_that_do_not_fit_the_model_are_refused() {
    let error = Events::new(rules(), &["cat".into()]).unwrap_err().to_string();
    assert_eq!(
        error,
        "the list of labels names the label `person`, which the model does not have; it has: cat"
    );
    assert!(matches!(
        Events::new(Rules { confirm_frames: 0, ..rules() }, &labels()),
        Err(RulesError::NoConfirmation)
    ));
}

fn any_box() -> impl Strategy<Value = Detection> {
    let class = 0..4_u16;
    (class, 0..12_u8, 0.05_f32..1.0, -0.02_f32..0.02).prop_map(|(class, place, score, off)| {
        let (x, y) = (f32::from(place % 4) * 0.25, f32::from(place / 4) * 0.3);
        Detection { class, score, rect: Rect { x: x + off, y: y + off, w: 0.15, h: 0.2 } }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn each_new_has_one_end_and_time_only_goes_on(
        pictures in proptest::collection::vec(
            (
                prop_oneof![20 => 20..400_i64, 1 => 2_000..9_000_i64, 1 => -9_000..0_i64],
                proptest::collection::vec(any_box(), 0..8),
            ),
            0..80,
        ),
        confirm_frames in 1..4_u32,
        stationary_after_ms in 0..2_000_u64,
        dwell_ms in 0..500_u64,
    ) {
        let mut rules = Rules { confirm_frames, stationary_after_ms, ..rules() };
        rules.zones[0].dwell_ms = dwell_ms;
        let mut chain = Chain::new(rules);
        let mut open: BTreeMap<u64, Event> = BTreeMap::new();
        let mut ended = std::collections::BTreeSet::new();
        let mut now = 1_000_000;
        let mut crossed = 0;
        let mut check = |change: &Change, earliest: u64| -> Result<(), TestCaseError> {
            let Change { kind, at, why, event } = change;
            let id = event.track;
            prop_assert!(!why.is_empty() && !ended.contains(&id));
            prop_assert!(at.as_millis() >= earliest && event.start <= event.last_seen && event.last_seen <= *at);
            prop_assert!(event.best.at >= event.start && event.best.at <= event.last_seen);
            prop_assert!(event.score <= event.top_score && event.frames >= confirm_frames);
            prop_assert!(event.zones.iter().all(|zone| event.entered.contains(zone)));
            prop_assert_eq!(event.end, (*kind == End).then_some(event.last_seen));
            crossed += why.iter().filter(|why| matches!(why, Why::Crossed { .. })).count() as u64;
            match (kind, open.remove(&id)) {
                (New, None) => {
                    prop_assert_eq!(&why[0], &Why::Confirmed);
                    open.insert(id, event.clone());
                }
                (kind, Some(before)) if *kind != New => {
                    prop_assert!(event.start == before.start && event.last_seen >= before.last_seen);
                    prop_assert!(event.frames >= before.frames && event.severity >= before.severity || event.class != before.class);
                    prop_assert!(event.entered.starts_with(&before.entered));
                    if *kind == Update {
                        open.insert(id, event.clone());
                    } else {
                        ended.insert(id);
                    }
                }
                (kind, before) => prop_assert!(false, "{:?} after {:?}", kind, before),
            }
            Ok(())
        };
        for (step, boxes) in pictures {
            now += step;
            let outcome = chain.see(now as u64, &boxes);
            for change in &outcome.changes {
                check(change, now as u64)?;
            }
            for id in &outcome.better {
                let best = chain.events.active().find(|event| event.track == *id).map(|event| event.best.at);
                prop_assert_eq!(best, Some(ms(now as u64)));
            }
            for change in outcome.changes.iter().filter(|change| change.kind == New) {
                prop_assert!(outcome.better.contains(&change.event.track));
            }
            let counted: u32 = chain.events.counts().iter().map(|count| count.count).sum();
            prop_assert_eq!(counted as usize, chain.events.active().count());
        }
        for change in chain.events.finish(ms(0)) {
            check(&change, now as u64)?;
        }
        prop_assert!(open.is_empty(), "{:?}", open);
        prop_assert_eq!(crossed, chain.events.crossings().iter().map(|count| count.ins + count.outs).sum::<u64>());
    }

    #[test]
    fn any_tracks_are_taken(
        pictures in proptest::collection::vec((0..4_000_u64, proptest::collection::vec(any_track(), 0..6)), 0..30),
    ) {
        let mut events = Events::new(rules(), &labels()).unwrap();
        for (at, tracks) in pictures {
            events.update(ms(at), &tracks);
            prop_assert!(events.open.len() <= tracks.len());
        }
    }
}

fn any_track() -> impl Strategy<Value = Track> {
    let rect =
        (any::<f32>(), any::<f32>(), any::<f32>(), any::<f32>()).prop_map(|(x, y, w, h)| Rect { x, y, w, h });
    (0..5_u64, any::<u16>(), rect, any::<f32>(), any::<bool>(), any::<u64>()).prop_map(
        |(id, class, rect, score, seen_now, at)| Track {
            id,
            class: class % 4,
            rect,
            seen: rect,
            score,
            smoothed_score: score,
            top_score: score,
            seen_now,
            confirmed: true,
            hits: 1,
            first: ms(at),
            last_seen: ms(at),
            velocity: Point::default(),
        },
    )
}

/// A van that the detector sees as a car, as a truck, or as both at once.
#[test]
fn what_is_seen_under_two_labels_of_a_group_is_one_event() {
    let labels = ["person", "car", "truck"].map(str::to_owned);
    let rules = Rules { labels: vec!["person".into(), "vehicle".into()], ..Rules::default() };
    let kinds = rules.kinds(&labels);
    let mut tracker = Tracker::new(rules.tracker(&labels));
    let mut events = Events::new(rules, &labels).unwrap();
    let mut told = Vec::new();
    for n in 0..40_u16 {
        let x = 0.2 + f32::from(n) * 0.01;
        let (car, truck) = if n % 4 < 2 { (0.6, 0.3) } else { (0.3, 0.55) };
        let mut boxes = vec![object(1, x, car), object(2, x + 0.002, truck)];
        if n % 3 == 0 {
            boxes.remove(usize::from(car > truck)); // the other one is not seen at all
        }
        crate::nms::suppress_kinds(&mut boxes, &kinds, 0.5, usize::MAX);
        assert_eq!(boxes.len(), 1);
        let at = ms(u64::from(n) * 200);
        told.extend(events.update(at, tracker.update(at, &boxes, None)).changes);
        let counts: Vec<(String, u32)> =
            events.counts().into_iter().map(|count| (count.label.to_string(), count.count)).collect();
        let sum = |names: &[&str]| -> u32 {
            let of_names = counts.iter().filter(|(name, _)| names.contains(&&**name));
            of_names.map(|(_, count)| count).sum()
        };
        assert_eq!(counts.len(), 4, "{counts:?}");
        assert_eq!((sum(&["vehicle"]), sum(&["car", "truck"])), (u32::from(n >= 2), u32::from(n >= 2)));
    }
    let new: Vec<_> = told.iter().filter(|change| change.kind == ChangeKind::New).collect();
    assert_eq!(new.len(), 1, "{told:#?}");
    assert_eq!(tracker.tracks().len(), 1);
}
