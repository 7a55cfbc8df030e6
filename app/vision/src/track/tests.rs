#![expect(clippy::cast_possible_truncation, reason = "test data is small")]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{Colour, Matrix, Plane, Planes};

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    /// 0.0..1.0
    fn roll(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1_u64 << 24) as f32
    }

    /// Mean 0, standard deviation 1, nearly Gaussian.
    fn noise(&mut self) -> f32 {
        ((0..12).map(|_| self.roll()).sum::<f32>() - 6.0).clamp(-3.0, 3.0)
    }
}

/// Moves at constant speed; the first in the list hides those behind it.
#[derive(Clone, Copy)]
struct Object {
    rect: Rect,
    speed: (f32, f32), // parts of the picture a second
    class: u16,
}

impl Object {
    fn person(x: f32, y: f32, speed: (f32, f32)) -> Object {
        Object { rect: Rect { x, y, w: 0.04, h: 0.16 }, speed, class: 0 }
    }

    fn at(&self, seconds: f32) -> Rect {
        let Rect { x, y, w, h } = self.rect;
        Rect { x: x + self.speed.0 * seconds, y: y + self.speed.1 * seconds, w, h }
    }
}

struct Scene {
    objects: Vec<Object>,
    fps: f32,
    /// Part of the boxes that the detector misses, and standard deviation of its boxes in parts of their size.
    missed: f32,
    jitter: f32,
    /// Seconds during which nothing is seen right of this x.
    dark: Option<(std::ops::Range<f32>, f32)>,
    dice: Dice,
}

impl Scene {
    fn new(objects: Vec<Object>, fps: f32) -> Scene {
        Scene { objects, fps, missed: 0.0, jitter: 0.02, dark: None, dice: Dice(7) }
    }

    fn detect(&mut self, seconds: f32) -> Vec<(usize, Detection)> {
        let mut found: Vec<(usize, Detection)> = Vec::new();
        for n in 0..self.objects.len() {
            let Object { class, .. } = self.objects[n];
            let truth = self.objects[n].at(seconds);
            let hidden = (0..n).map(|m| self.objects[m].at(seconds).iou(&truth)).fold(0.0, f32::max);
            let dark =
                self.dark.as_ref().is_some_and(|(when, right)| when.contains(&seconds) && truth.x > *right);
            let missed = self.dice.roll() < self.missed;
            let mut off = |size: f32| self.jitter * size * self.dice.noise();
            let (dx, dy, dw, dh) = (off(truth.w), off(truth.h), off(truth.w), off(truth.h));
            if hidden > 0.45 || dark || missed {
                continue; // as non-maximum suppression would
            }
            let rect = Rect { x: truth.x + dx, y: truth.y + dy, w: truth.w + dw, h: truth.h + dh };
            let score = if hidden > 0.2 { 0.3 } else { 0.7 + 0.2 * self.dice.roll() };
            found.push((n, Detection { class, score, rect }));
        }
        found
    }

    /// Ids that each object had, in order; only pictures in which the detector saw it.
    fn run(&mut self, seconds: f32) -> Vec<Vec<u64>> {
        let mut tracker = Tracker::new(TrackerConfig::default());
        let mut ids = vec![Vec::new(); self.objects.len()];
        let pictures = (seconds * self.fps) as u64;
        for picture in 0..pictures {
            let now = picture as f32 / self.fps;
            let found = self.detect(now);
            let boxes: Vec<Detection> = found.iter().map(|(_, detection)| *detection).collect();
            let tracks = tracker.update(ms(1_000_000 + (now * 1_000.0) as u64), &boxes, None);
            for (n, Detection { rect, .. }) in found {
                let nearest = tracks
                    .iter()
                    .filter(|track| track.seen_now)
                    .max_by(|a, b| a.rect.iou(&rect).total_cmp(&b.rect.iou(&rect)));
                if let Some(track) = nearest.filter(|track| track.rect.iou(&rect) > 0.3)
                    && ids[n].last() != Some(&track.id)
                {
                    ids[n].push(track.id);
                }
            }
        }
        ids
    }
}

fn ms(ms: u64) -> ProducerTimestamp {
    ProducerTimestamp::from_millis(ms)
}

fn person(x: f32, score: f32) -> Detection {
    Detection { class: 0, score, rect: Rect { x, y: 0.5, w: 0.05, h: 0.15 } }
}

/// Each object had one id, and no two the same.
#[track_caller]
fn assert_one_id_each(ids: &[Vec<u64>], what: &str) {
    let mut all: Vec<u64> = ids.iter().flatten().copied().collect();
    assert!(ids.iter().all(|ids| ids.len() == 1), "{what}: {ids:?}");
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), ids.len(), "{what}: {ids:?}");
}

#[test]
fn people_who_cross_keep_their_ids() {
    for fps in [2.0, 5.0, 10.0, 15.0, 30.0] {
        // A metre or so a second, each hidden by the other for about 0.4 s.
        let cross = vec![
            Object::person(0.1, 0.5, (0.1, 0.0)),
            Object::person(0.87, 0.5, (-0.1, 0.0)),
            Object::person(0.3, 0.2, (0.05, 0.03)),
            Object::person(0.5, 0.44, (-0.03, -0.04)),
        ];
        assert_one_id_each(&Scene::new(cross.clone(), fps).run(8.0), &format!("{fps} fps"));
        let mut noisy = Scene::new(cross, fps);
        noisy.jitter = 0.05;
        // While one of two alike is hidden, noise may give the other's box to its track; but not for good.
        let ids = noisy.run(8.0);
        let ends: Vec<Vec<u64>> = ids.iter().map(|ids| vec![ids[0]]).collect();
        assert_one_id_each(&ends, &format!("{fps} fps, jitter"));
        assert!(ids.iter().all(|ids| ids.first() == ids.last()), "{fps} fps, jitter: {ids:?}");
    }
}

#[test]
fn ids_stay_when_three_boxes_of_ten_are_missed() {
    for (fps, seed) in [(5.0, 1), (10.0, 2), (10.0, 3), (15.0, 4), (30.0, 5)] {
        let row = (0..8).map(|n| {
            let n = n as f32;
            Object::person(0.05 + 0.1 * n, 0.1 + 0.05 * n, (0.02 + 0.005 * n, 0.01))
        });
        let mut scene = Scene::new(row.collect(), fps);
        (scene.missed, scene.jitter, scene.dice) = (0.3, 0.04, Dice(seed));
        assert_one_id_each(&scene.run(10.0), &format!("{fps} fps"));
    }
}

#[test]
fn ids_come_back_after_a_second_behind_a_lorry() {
    for fps in [2.0, 5.0, 10.0, 30.0] {
        let objects = vec![
            Object::person(0.1, 0.3, (0.1, 0.0)),
            Object::person(0.2, 0.6, (0.08, 0.0)),
            Object::person(0.9, 0.45, (-0.1, 0.0)),
        ];
        let mut scene = Scene::new(objects, fps);
        scene.dark = Some((2.9..4.1, 0.0));
        assert_one_id_each(&scene.run(7.0), &format!("{fps} fps"));
        scene.dark = Some((1.9..7.5, 0.0)); // longer than lost_after_ms: somebody else
        let ids = scene.run(9.0);
        assert!(ids.iter().all(|ids| ids.len() == 2 && ids[0] < ids[1]), "{ids:?}");
    }
}

#[test]
fn who_comes_in_where_another_left_is_another() {
    for fps in [5.0, 10.0, 30.0] {
        let mut tracker = Tracker::new(TrackerConfig::default());
        let mut ids = Vec::new();
        for n in 0..(8.0 * fps) as u16 {
            let now = f32::from(n) / fps;
            // Out at the right edge after 3 s; 1 s later the next one comes in there.
            let x = if now < 3.0 { 0.4 + 0.2 * now } else { 1.8 - 0.2 * now };
            let boxes = [person(x, 0.8)];
            let tracks =
                tracker.update(ms(9_000 + (now * 1_000.0) as u64), if x < 0.99 { &boxes } else { &[] }, None);
            ids.extend(tracks.iter().filter(|track| track.seen_now).map(|track| track.id));
            if (3.5..4.0).contains(&now) {
                assert_eq!(tracks, [], "{fps} fps: gone without waiting for lost_after_ms");
            }
        }
        ids.dedup();
        assert_eq!(ids, [1, 2], "{fps} fps");
    }
}

/// 320 x 180, grey, with one colour for each box.
fn paint(boxes: &[(Rect, [u8; 3])]) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let mut planes = (vec![100; 320 * 180], vec![128; 160 * 90], vec![128; 160 * 90]);
    for (rect, [luma, u, v]) in boxes {
        let range =
            |begin: f32, len: f32, side: f32| (begin * side) as usize..((begin + len) * side) as usize;
        for y in range(rect.y, rect.h, 180.0) {
            for x in range(rect.x, rect.w, 320.0) {
                planes.0[y * 320 + x] = *luma;
                planes.1[y / 2 * 160 + x / 2] = *u;
                planes.2[y / 2 * 160 + x / 2] = *v;
            }
        }
    }
    planes
}

fn picture((y, u, v): &(Vec<u8>, Vec<u8>, Vec<u8>)) -> Picture<'_> {
    let plane = |bytes, stride| Plane { bytes, stride };
    let planes = Planes::I420 { y: plane(y, 320), u: plane(u, 160), v: plane(v, 160) };
    Picture::new(320, 180, planes, Colour { matrix: Matrix::Bt709, full_range: false }).unwrap()
}

/// Of different colours.
fn two_halves() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    paint(&[(Rect { x: 0.0, y: 0.0, w: 0.5, h: 1.0 }, [90, 110, 180])])
}

#[test]
fn who_turns_back_behind_something_is_known_by_his_looks() {
    // They walk towards each other, are hidden for a second where they would cross, and each comes out again where he
    // went in.
    let turns = |seconds: f32| if seconds < 2.5 { 0.1 * seconds } else { 0.1 * (5.0 - seconds) };
    let colours = [[90, 110, 180], [140, 160, 100]];
    for fps in [5.0, 10.0, 30.0] {
        let run = |with_picture: bool| {
            let mut tracker = Tracker::new(TrackerConfig::default());
            let mut ids: [Vec<u64>; 2] = Default::default();
            for n in 0..(5.0 * fps) as u16 {
                let now = f32::from(n) / fps;
                let rects = [0.2 + turns(now), 0.75 - turns(now)].map(|x| person(x, 0.8).rect);
                let hidden = (2.0..3.0).contains(&now);
                let boxes: Vec<Detection> = (rects.iter().filter(|_| !hidden))
                    .map(|rect| Detection { class: 0, score: 0.8, rect: *rect })
                    .collect();
                let planes = paint(&[(rects[0], colours[0]), (rects[1], colours[1])]);
                let picture = picture(&planes);
                let tracks = tracker.update(
                    ms(7_000 + (now * 1_000.0) as u64),
                    &boxes,
                    with_picture.then_some(&picture),
                );
                for (ids, rect) in ids.iter_mut().zip(rects) {
                    let here = tracks.iter().filter(|track| track.seen_now && track.rect.iou(&rect) > 0.3);
                    ids.extend(here.map(|track| track.id));
                    ids.dedup();
                }
            }
            ids
        };
        assert_eq!(run(true), [[1], [2]], "{fps} fps");
        assert_ne!(run(false), [[1], [2]], "{fps} fps: by their places alone they have crossed");
    }
}

#[test]
fn uneven_time_does_not_matter() {
    let mut tracker = Tracker::new(TrackerConfig::default());
    let (mut now, mut dice) = (0, Dice(3));
    while now < 8_000 {
        let x = 0.1 + 0.1 * now as f32 / 1_000.0;
        let tracks = tracker.update(ms(5_000 + now), &[person(x, 0.8)], None);
        assert_eq!(tracks.iter().map(|track| track.id).collect::<Vec<_>>(), [1], "at {now}");
        now += 33 + (dice.roll() * 700.0) as u64;
    }
    let [track] = tracker.tracks() else { panic!() };
    assert!((track.velocity.x - 0.1).abs() < 0.02, "{track:?}");
}

/// Seconds since a track was seen well, and whether it is there and seen now; one box in each picture.
fn lives_on(seen_well: &[f32], then: f32, fps: f32, seconds: f32) -> Vec<(f32, bool, bool)> {
    let mut tracker = Tracker::new(TrackerConfig::default());
    let mut at = 10_000.0;
    let mut step = |tracker: &mut Tracker, score: f32| {
        at += 1_000.0 / fps;
        let tracks = tracker.update(ms(at as u64), &[person(0.5, score)], None).to_vec();
        assert!(tracks.iter().all(|track| track.id == 1), "{tracks:?}");
        (!tracks.is_empty(), tracks.iter().any(|track| track.seen_now))
    };
    for score in seen_well {
        assert_eq!(step(&mut tracker, *score), (true, true), "{score}");
    }
    assert!(tracker.tracks()[0].confirmed);
    (1..=(seconds * fps) as u16)
        .map(|n| {
            let (there, seen) = step(&mut tracker, then);
            (f32::from(n) / fps, there, seen)
        })
        .collect()
}

#[test]
fn a_cone_that_once_looked_like_a_person_is_not_told_of_for_ever() {
    for fps in [2.0, 5.0, 10.0, 30.0] {
        for (after, there, seen) in lives_on(&[0.55, 0.51, 0.6], 0.3, fps, 20.0) {
            let known = after <= 0.3 || after >= 3.5;
            assert!(!known || seen == (after <= 0.3), "{fps} fps: {after} s");
            let known = after <= 5.0 || after >= 9.0;
            assert!(!known || there == (after <= 5.0), "{fps} fps: {after} s");
        }
    }
}

#[test]
fn a_cone_that_looks_like_a_person_now_and_then_is_not_confirmed() {
    for fps in [2.0, 5.0, 10.0, 30.0] {
        for often in [3, 4, 7, 20] {
            let mut tracker = Tracker::new(TrackerConfig::default());
            for n in 0..(60.0 * fps) as u64 {
                let score = if n % often == 0 { 0.55 } else { 0.45 };
                let at = ms(10_000 + (1_000.0 * n as f32 / fps) as u64);
                let tracks = tracker.update(at, &[person(0.5, score)], None);
                assert!(tracks.iter().all(|track| !track.confirmed), "{fps} fps, {often}: {tracks:?}");
            }
        }
    }
}

#[test]
fn who_was_seen_well_is_told_of_while_half_hidden() {
    for fps in [5.0, 10.0, 30.0] {
        let well = vec![0.85; (2.0 * fps) as usize];
        for (score, seconds) in [(0.45, 60.0), (0.3, 1.9), (0.15, 0.8)] {
            let seen = lives_on(&well, score, fps, seconds);
            assert!(seen.iter().all(|(_, there, seen)| *there && *seen), "{fps} fps, {score}: {seen:?}");
        }
    }
}

#[test]
fn doubted_for_a_while_is_the_same_track_when_seen_well_again() {
    let mut tracker = Tracker::new(TrackerConfig::default());
    let scores = [[0.8; 20].as_slice(), &[0.2; 40], &[0.8; 20]].concat();
    let mut seen = Vec::new();
    for (n, score) in (0..).zip(&scores) {
        // It walks on meanwhile.
        let tracks = tracker.update(ms(10_000 + 100 * n), &[person(0.2 + 0.005 * n as f32, *score)], None);
        let [track] = tracks else { panic!("{n}: {tracks:?}") };
        assert_eq!(track.id, 1);
        assert!((track.rect.x - 0.2 - 0.005 * n as f32).abs() < 0.01, "{n}: followed, {track:?}");
        seen.push(track.seen_now);
    }
    let seen_again = seen.iter().rposition(|seen| !seen).expect("it was doubted") - 60;
    assert!(!seen[40] && !seen[59] && seen_again < 5 && seen[70], "{seen:?}");
}

#[test]
fn life_of_a_track() {
    let mut tracker = Tracker::new(TrackerConfig { lost_after_ms: 2_000, ..TrackerConfig::default() });
    let mut at = 10_000;
    let mut step = |tracker: &mut Tracker, boxes: &[Detection]| {
        at += 100;
        tracker.update(ms(at), boxes, None).to_vec()
    };
    assert_eq!(step(&mut tracker, &[person(0.5, 0.4)]), []); // too unsure to begin
    let [track] = step(&mut tracker, &[person(0.5, 0.8)])[..] else { panic!() };
    assert!(track.id == 1 && track.seen_now && !track.confirmed && track.first == ms(10_200));
    assert_eq!(step(&mut tracker, &[])[0].hits, 1); // tentative ones survive a miss
    assert!(!step(&mut tracker, &[person(0.5, 0.9)])[0].confirmed);
    let [track] = step(&mut tracker, &[person(0.5, 0.7)])[..] else { panic!() };
    assert!(track.confirmed && track.hits == 3 && track.top_score == 0.9 && track.score == 0.7);
    assert!((0.7..0.9).contains(&track.smoothed_score));
    let [track] = step(&mut tracker, &[person(0.5, 0.2)])[..] else { panic!() };
    assert!(track.seen_now && track.id == 1 && track.score == 0.2, "a low score rescues");
    for _ in 0..20 {
        let [track] = step(&mut tracker, &[])[..] else { panic!() };
        assert!(!track.seen_now && track.confirmed && track.last_seen == ms(10_600));
    }
    assert_eq!(step(&mut tracker, &[]), []); // 2.1 s
    let [track] = step(&mut tracker, &[person(0.5, 0.8)])[..] else { panic!() };
    assert_eq!(track.id, 2);
    for _ in 0..10 {
        assert_eq!(step(&mut tracker, &[]).len(), 1);
    }
    assert_eq!(step(&mut tracker, &[]), [], "a tentative one ends after a second");
}

#[test]
fn time_that_runs_back_ends_all_tracks() {
    let mut tracker = Tracker::new(TrackerConfig::default());
    for n in 0..5 {
        tracker.update(ms(50_000 + n * 100), &[person(0.5, 0.8)], None);
    }
    assert_eq!(
        tracker.update(ms(50_400), &[person(0.5, 0.8)], None)[0].id,
        1,
        "the same time again is no jump"
    );
    assert_eq!(tracker.update(ms(50_399), &[person(0.5, 0.8)], None)[0].id, 2);
    assert_eq!(tracker.update(ms(60_000), &[person(0.5, 0.8)], None)[0].id, 3);
    assert_eq!(tracker.update(ms(u64::MAX), &[person(0.5, 0.8)], None)[0].id, 4);
    assert_eq!(tracker.update(ms(0), &[person(0.5, 0.8)], None)[0].id, 5);
}

#[test]
fn class_is_what_most_boxes_say() {
    let mut tracker = Tracker::new(TrackerConfig::default());
    let classes = [2, 7, 2, 2, 7, 2, 7, 7, 7, 7, 7, 7];
    let mut told = Vec::new();
    for (n, class) in (0..).zip(classes) {
        let detection = Detection { class, ..person(0.5, 0.8) };
        let [track] = tracker.update(ms(n * 100), &[detection], None) else { panic!() };
        assert_eq!(track.id, 1);
        told.push(track.class);
    }
    assert_eq!(told[..7], [2; 7]);
    assert_eq!(told[11], 7);
    for n in 0..200 {
        // Votes for many classes are bounded.
        let detection = Detection { class: 100 + n, ..person(0.5, 0.8) };
        tracker.update(ms(2_000 + u64::from(n) * 10), &[detection], None);
        assert!(tracker.states[0].votes.len() <= MOST_CLASSES);
    }
}

#[test]
fn same_object_twice_is_one_track() {
    let mut tracker = Tracker::new(TrackerConfig::default());
    let other = Detection { class: 3, ..person(0.501, 0.7) };
    for n in 0..10 {
        let tracks = tracker.update(ms(n * 100), &[other, person(0.5, 0.8), person(0.502, 0.6)], None);
        assert_eq!(tracks.iter().map(|track| (track.id, track.class)).collect::<Vec<_>>(), [(1, 0)]);
    }
    // Two that become one: the older stays.
    let mut tracker = Tracker::new(TrackerConfig::default());
    for n in 0..20 {
        let x = 0.5 + 0.1 * (1.0 - n.min(10) as f32 / 10.0);
        tracker.update(ms(n * 100), &[person(0.5, 0.8), person(x, 0.7)], None);
    }
    assert_eq!(tracker.tracks().iter().map(|track| track.id).collect::<Vec<_>>(), [1]);
}

#[test]
fn boxes_of_other_classes_and_sizes_are_ignored() {
    let rule = ClassRule { min_area: 0.005, max_area: 0.02, ..ClassRule::default() };
    let other = ClassRule { wanted: false, ..ClassRule::default() };
    let mut tracker = Tracker::new(TrackerConfig { classes: vec![rule, other], ..TrackerConfig::default() });
    let sized = |w, h, class| Detection { class, score: 0.9, rect: Rect { x: 0.1, y: 0.1, w, h } };
    let boxes = [
        sized(0.1, 0.1, 0),
        sized(0.05, 0.05, 0),
        sized(0.5, 0.5, 0),
        sized(0.1, 0.1, 1),
        sized(0.4, 0.3, 9),
    ];
    let tracks = tracker.update(ms(0), &boxes, None);
    assert_eq!(tracks.iter().map(|track| track.class).collect::<Vec<_>>(), [0, 9]);
}

#[test]
fn boxes_that_are_no_boxes_are_ignored() {
    let mut tracker = Tracker::new(TrackerConfig::default());
    let rect = |x, y, w, h| Detection { class: 0, score: 0.9, rect: Rect { x, y, w, h } };
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let wrong = [
        rect(nan, 0.1, 0.1, 0.1),
        rect(0.1, nan, 0.1, 0.1),
        rect(0.1, 0.1, nan, 0.1),
        rect(0.1, 0.1, 0.1, nan),
        rect(0.1, 0.1, inf, 0.1),
        rect(-inf, 0.1, 0.1, 0.1),
        rect(0.1, 0.1, -0.1, 0.1),
        rect(0.1, 0.1, 0.0, 0.1),
        rect(1.5, 0.1, 0.2, 0.2),
        Detection { score: nan, ..person(0.5, 0.0) },
    ];
    assert_eq!(tracker.update(ms(0), &wrong, None), []);
    let tracks = tracker.update(ms(100), &[rect(0.9, 0.9, 0.5, 0.5), wrong[0]], None);
    assert_eq!(tracks.len(), 1);
    assert!(tracks[0].rect.x + tracks[0].rect.w <= 1.0 + 1e-6, "{tracks:?}");
}

#[test]
fn thousands_of_boxes_are_bounded() {
    let mut tracker = Tracker::new(TrackerConfig::default());
    let mut dice = Dice(1);
    for n in 0..20 {
        let boxes: Vec<Detection> = (0..5_000)
            .map(|_| {
                let rect =
                    Rect { x: dice.roll(), y: dice.roll(), w: dice.roll() * 0.3, h: dice.roll() * 0.3 };
                Detection { class: (dice.roll() * 80.0) as u16, score: dice.roll(), rect }
            })
            .collect();
        assert!(tracker.update(ms(n * 100), &boxes, None).len() <= 500);
    }
}

fn any_detection() -> impl Strategy<Value = Detection> {
    let number = || prop_oneof![20 => -0.2_f32..1.2, 1 => any::<f32>()];
    (0..3_u16, number(), number(), number(), number(), number()).prop_map(|(class, score, x, y, w, h)| {
        Detection { class, score, rect: Rect { x, y, w: w * 0.3, h: h * 0.3 } }
    })
}

proptest! {
    #[test]
    fn whatever_comes_ids_rise_and_boxes_stay_in_the_picture(
        pictures in proptest::collection::vec(
            (prop_oneof![9 => 0..500_i64, 1 => -9_000..9_000_i64], proptest::collection::vec(any_detection(), 0..12)),
            0..40,
        ),
    ) {
        let planes = two_halves();
        let mut tracker = Tracker::new(TrackerConfig { max_tracks: 9, ..TrackerConfig::default() });
        let mut seen: BTreeMap<u64, Track> = BTreeMap::new();
        let (mut now, mut highest) = (1_000_000_i64, 0);
        for (step, boxes) in pictures {
            let back = step < 0;
            now += step;
            let tracks = tracker.update(ms(now as u64), &boxes, Some(&picture(&planes)));
            prop_assert!(tracks.len() <= 9);
            prop_assert!(tracks.windows(2).all(|two| two[0].id < two[1].id));
            let mut current = BTreeMap::new();
            for track in tracks {
                match seen.get(&track.id) {
                    Some(before) => {
                        prop_assert!(!back);
                        prop_assert_eq!(track.hits, before.hits + u32::from(track.seen_now));
                        prop_assert!(track.last_seen >= before.last_seen && track.first == before.first);
                        prop_assert!(track.top_score >= before.top_score);
                        prop_assert!(track.confirmed || !before.confirmed);
                    }
                    None => {
                        prop_assert!(track.id > highest, "{} was used before", track.id);
                        highest = track.id;
                    }
                }
                let Rect { x, y, w, h } = track.rect;
                prop_assert!(x >= 0.0 && y >= 0.0 && w >= 0.0 && h >= 0.0, "{:?}", track);
                prop_assert!(x + w <= 1.0001 && y + h <= 1.0001, "{:?}", track);
                prop_assert!((0.0..=1.0).contains(&track.score) && (0.0..=1.0).contains(&track.smoothed_score));
                prop_assert_eq!(track.seen_now, track.last_seen == ms(now as u64) && track.seen_now);
                current.insert(track.id, *track);
            }
            seen = current;
        }
    }

    #[test]
    fn order_of_the_boxes_does_not_matter(
        pictures in proptest::collection::vec(proptest::collection::vec(any_detection(), 0..12), 0..20),
        turn in 0..12_usize,
    ) {
        let planes = two_halves();
        let mut trackers = [(); 2].map(|()| Tracker::new(TrackerConfig::default()));
        for (n, mut boxes) in (0..).zip(pictures) {
            let tracks = trackers[0].update(ms(n * 100), &boxes, Some(&picture(&planes))).to_vec();
            boxes.reverse();
            let by = turn % boxes.len().max(1);
            boxes.rotate_left(by);
            prop_assert_eq!(&tracks, trackers[1].update(ms(n * 100), &boxes, Some(&picture(&planes))));
        }
    }
}
