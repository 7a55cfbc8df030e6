use proptest::prelude::*;

use super::*;
use crate::Rect;

/// A tensor of 100 by 100 in which the picture has its own size: pixels are hundredths.
fn letterbox() -> Letterbox {
    Letterbox::new(100, 100, 100, 100).unwrap()
}

/// A column of a scored output, or a row of an end-to-end one.
type Entry = Vec<f32>;

/// `[4 + classes, entries]` from entries of 4 + classes each.
fn turned(entries: &[Entry]) -> Vec<f32> {
    (0..entries[0].len()).flat_map(|row| entries.iter().map(move |entry| entry[row])).collect()
}

fn read_scored(entries: &[Entry], thresholds: &Thresholds) -> (Vec<Detection>, Ignored) {
    let (rows, columns) = (entries[0].len(), entries.len());
    let head = Head { layout: Layout::Scored, classes: u16::try_from(rows - 4).unwrap() };
    let mut detections = vec![Detection { class: 9, score: 0.9, rect: Rect::default() }];
    let ignored =
        head.read(&turned(entries), rows, columns, thresholds, &letterbox(), &mut detections).unwrap();
    (detections, ignored)
}

fn read_end_to_end(entries: &[[f32; 6]], classes: u16, thresholds: &Thresholds) -> (Vec<Detection>, Ignored) {
    let head = Head { layout: Layout::EndToEnd, classes };
    let mut detections = Vec::new();
    let ignored = head
        .read(entries.as_flattened(), entries.len(), 6, thresholds, &letterbox(), &mut detections)
        .unwrap();
    (detections, ignored)
}

fn found(detections: &[Detection]) -> Vec<(u16, f32, [f32; 4])> {
    let rounded = |part: f32| (part * 1000.0).round() / 1000.0;
    let entry = |d: &Detection| (d.class, d.score, [d.rect.x, d.rect.y, d.rect.w, d.rect.h].map(rounded));
    detections.iter().map(entry).collect()
}

#[test]
fn the_head_is_recognised_by_its_shape() {
    let check = |rows, columns, labels, expected: Layout| {
        let head = Head::detect(rows, columns, labels).unwrap();
        assert_eq!(head.layout(), expected, "[{rows}, {columns}], {labels} labels");
    };
    check(84, 8400, 80, Layout::Scored);
    check(6, 1260, 2, Layout::Scored);
    check(5, 21, 1, Layout::Scored);
    check(300, 6, 80, Layout::EndToEnd);
    check(300, 6, 296, Layout::EndToEnd);
    check(6, 6, 2, Layout::EndToEnd);
    check(1, 6, 1, Layout::EndToEnd);
}

#[test]
fn a_head_that_does_not_fit_is_refused_with_what_to_change() {
    let check = |rows, columns, labels, expected: &str| {
        let error = Head::detect(rows, columns, labels).unwrap_err().to_string();
        assert!(error.contains(expected), "[{rows}, {columns}], {labels} labels: {error}");
    };
    check(84, 8400, 2, "[84, 8400], which is 80 classes, but 2 labels are given");
    check(6, 1260, 80, "which is 2 classes, but 80 labels");
    check(116, 8400, 80, "which is 112 classes, but 80 labels"); // with masks
    check(8400, 84, 80, "turned round");
    check(25_200, 85, 80, "YOLOv5");
    check(1, 1000, 1000, "expected [1004, N] or [N, 6]");
    check(4, 8400, 80, "expected [84, N] or [N, 6]");
    check(0, 6, 2, "expected [6, N]");
    check(6, 0, 2, "expected [6, N]");
    check(0, 0, 2, "expected [6, N]");
    check(84, 8400, 0, "0 labels, expected 1 to 65535");
    check(84, 8400, 70_000, "70000 labels");
}

#[test]
fn an_output_of_another_shape_than_at_the_start_is_an_error() {
    let read = |head: Head, values: usize, rows, columns| {
        let thresholds = Thresholds::new(2, 0.5);
        head.read(&vec![0.0; values], rows, columns, &thresholds, &letterbox(), &mut Vec::new())
    };
    let scored = Head::detect(6, 21, 2).unwrap();
    let end_to_end = Head::detect(21, 6, 2).unwrap();
    assert_eq!(read(scored, 6 * 30, 6, 30), Ok(Ignored::default()));
    assert_eq!(read(scored, 0, 6, 0), Ok(Ignored::default()));
    assert_eq!(read(end_to_end, 30 * 6, 30, 6), Ok(Ignored::default()));
    assert!(read(scored, 7 * 21, 7, 21).is_err());
    assert!(read(scored, 6 * 21 - 1, 6, 21).is_err());
    assert!(read(scored, 6, 6, usize::MAX).is_err());
    assert!(read(end_to_end, 21 * 7, 21, 7).is_err());
}

#[test]
fn scored_columns_become_detections() {
    let check =
        |thresholds: &Thresholds, entry: [f32; 7], expected: &[(u16, f32, [f32; 4])], bad: [usize; 2]| {
            let quiet = vec![50.0, 50.0, 10.0, 10.0, 0.01, 0.02, 0.03];
            let (detections, ignored) = read_scored(&[quiet.clone(), entry.to_vec(), quiet], thresholds);
            assert_eq!(found(&detections), expected, "{entry:?}");
            assert_eq!(ignored, Ignored { scores: bad[0], boxes: bad[1], surplus: 0 }, "{entry:?}");
        };
    let half = Thresholds::new(3, 0.5);
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    check(&half, [50.0, 40.0, 20.0, 10.0, 0.1, 0.9, 0.2], &[(1, 0.9, [0.4, 0.35, 0.2, 0.1])], [0, 0]);
    check(&half, [50.0, 40.0, 20.0, 10.0, 0.1, 0.49, 0.2], &[], [0, 0]);
    check(&half, [50.0, 40.0, 20.0, 10.0, 0.5, 0.5, 0.2], &[(0, 0.5, [0.4, 0.35, 0.2, 0.1])], [0, 0]);
    // Cut off at the edge; outside; without an area.
    check(&half, [0.0, 95.0, 20.0, 20.0, 0.1, 0.9, 0.2], &[(1, 0.9, [0.0, 0.85, 0.1, 0.15])], [0, 0]);
    check(&half, [-30.0, 40.0, 20.0, 10.0, 0.1, 0.9, 0.2], &[], [0, 0]);
    check(&half, [50.0, 40.0, 0.0, 10.0, 0.1, 0.9, 0.2], &[], [0, 0]);
    check(&half, [50.0, 40.0, 10.0, -10.0, 0.1, 0.9, 0.2], &[], [0, 0]);
    // Numbers that are none.
    check(&half, [nan, 40.0, 20.0, 10.0, 0.1, 0.9, 0.2], &[], [0, 1]);
    check(&half, [50.0, 40.0, inf, 10.0, 0.1, 0.9, 0.2], &[], [0, 1]);
    check(&half, [inf, 40.0, 20.0, 10.0, 0.1, 0.1, 0.2], &[], [0, 0]); // nobody asks for its place
    check(&half, [50.0, 40.0, 20.0, 10.0, nan, 0.9, inf], &[(1, 0.9, [0.4, 0.35, 0.2, 0.1])], [2, 0]);
    check(&half, [50.0, 40.0, 20.0, 10.0, nan, nan, nan], &[], [3, 0]);
    check(&half, [50.0, 40.0, 20.0, 10.0, -inf, 0.9, 4.2], &[(1, 0.9, [0.4, 0.35, 0.2, 0.1])], [1, 0]);
    check(&half, [50.0, 40.0, 20.0, 10.0, 0.1, 1.0005, 0.2], &[(1, 1.0, [0.4, 0.35, 0.2, 0.1])], [0, 0]);

    let mut own = Thresholds::new(3, 0.5);
    own.set(1, 0.25);
    own.set(7, 0.0); // does not exist
    own.exclude(2);
    check(&own, [50.0, 40.0, 20.0, 10.0, 0.1, 0.3, 0.2], &[(1, 0.3, [0.4, 0.35, 0.2, 0.1])], [0, 0]);
    check(&own, [50.0, 40.0, 20.0, 10.0, 0.4, 0.3, 0.2], &[], [0, 0]); // it is a 0, if anything
    check(&own, [50.0, 40.0, 20.0, 10.0, 0.8, 0.3, 0.9], &[], [0, 0]); // it is a 2
}

#[test]
fn end_to_end_rows_become_detections() {
    let half = Thresholds::new(3, 0.5);
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let check = |entry: [f32; 6], expected: &[(u16, f32, [f32; 4])], bad: [usize; 2]| {
        let (detections, ignored) = read_end_to_end(&[[0.0; 6], entry, [0.0; 6]], 3, &half);
        assert_eq!(found(&detections), expected, "{entry:?}");
        assert_eq!(ignored, Ignored { scores: bad[0], boxes: bad[1], surplus: 0 }, "{entry:?}");
    };
    check([10.0, 20.0, 40.0, 60.0, 0.9, 2.0], &[(2, 0.9, [0.1, 0.2, 0.3, 0.4])], [0, 0]);
    check([10.0, 20.0, 40.0, 60.0, 0.4, 2.0], &[], [0, 0]);
    check([-10.0, 20.0, 40.0, 160.0, 0.9, 0.0], &[(0, 0.9, [0.0, 0.2, 0.4, 0.8])], [0, 0]);
    check([40.0, 20.0, 10.0, 60.0, 0.9, 2.0], &[], [0, 0]);
    check([10.0, 20.0, 40.0, 60.0, 0.9, 3.0], &[], [1, 0]);
    check([10.0, 20.0, 40.0, 60.0, 0.9, -1.0], &[], [1, 0]);
    check([10.0, 20.0, 40.0, 60.0, 0.9, nan], &[], [1, 0]);
    check([10.0, 20.0, 40.0, 60.0, nan, 2.0], &[], [1, 0]);
    check([10.0, 20.0, 40.0, 60.0, inf, 2.0], &[], [1, 0]);
    check([10.0, nan, 40.0, 60.0, 0.9, 2.0], &[], [0, 1]);
    check([f32::MIN, 20.0, f32::MAX, 60.0, 0.9, 2.0], &[], [0, 1]);
}

#[test]
fn of_thousands_of_boxes_the_best_remain() {
    let count = 5_000_u16;
    let score = |at: u16| f32::from(u16::try_from(u32::from(at) * 7_919 % 5_003).unwrap()) / 10_000.0 + 0.3;
    let entries: Vec<Entry> = (0..count)
        .map(|at| vec![50.0 + f32::from(at % 40), 50.0, 10.0 + f32::from(at) / 1_000.0, 10.0, score(at)])
        .collect();
    let thresholds = Thresholds::new(1, 0.0);
    let (mut detections, ignored) = read_scored(&entries, &thresholds);
    assert_eq!((detections.len(), ignored.surplus), (MAX_CANDIDATES, 5_000 - MAX_CANDIDATES));
    let mut scores: Vec<f32> = (0..count).map(score).collect();
    scores.sort_by(|a, b| b.total_cmp(a));
    detections.sort_by(best_first);
    let kept: Vec<f32> = detections.iter().map(|detection| detection.score).collect();
    assert_eq!(kept, scores[..MAX_CANDIDATES]);

    let backwards: Vec<Entry> = entries.into_iter().rev().collect();
    let (mut again, _) = read_scored(&backwards, &thresholds);
    again.sort_by(best_first);
    assert_eq!(detections, again, "the order in the tensor matters");
}

fn any_score() -> impl Strategy<Value = f32> {
    prop_oneof![
        8 => (0..=20_u8).prop_map(|score| f32::from(score) / 20.0),
        1 => prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.5, 1.5]),
    ]
}

fn any_place() -> impl Strategy<Value = f32> {
    prop_oneof![8 => -20.0..120.0_f32, 1 => prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::MAX, 0.0])]
}

proptest! {
    #[test]
    fn scored_outputs_are_read_as_one_would_by_hand(
        entries in (1..5_usize).prop_flat_map(|classes| proptest::collection::vec(
            (proptest::collection::vec(any_place(), 4), proptest::collection::vec(any_score(), classes))
                .prop_map(|(place, scores)| [place, scores].concat()),
            1..40,
        )),
        repeat in prop::sample::select(vec![1, 60]), // 60: more than one block
        tenths in proptest::collection::vec(0..12_u8, 5),
    ) {
        let classes = entries[0].len() - 4;
        let entries: Vec<Entry> = entries.iter().cycle().take(entries.len() * repeat).cloned().collect();
        let mut thresholds = Thresholds::new(classes, 0.0);
        for (class, &tenths) in (0..).zip(&tenths) {
            thresholds.set(class, f32::from(tenths) / 10.0);
        }
        let letterbox = letterbox();
        let mut expected = Vec::new();
        let mut bad = Ignored::default();
        for entry in &entries {
            let (place, scores) = entry.split_at(4);
            bad.scores += scores.iter().filter(|score| score.is_nan() || **score > 1.1).count();
            let usable = scores.iter().enumerate().filter(|(_, score)| **score >= 0.0 && **score <= 1.0);
            let best = usable.fold(None, |best: Option<(usize, f32)>, (class, &score)| {
                Some(best.filter(|best| best.1 >= score).unwrap_or((class, score)))
            });
            let Some((class, score)) = best.filter(|&(class, score)| score >= f32::from(tenths[class]) / 10.0) else {
                continue;
            };
            if !place.iter().all(|value| value.is_finite()) {
                bad.boxes += 1;
                continue;
            }
            let rect = letterbox.to_picture(place[0], place[1], place[2], place[3]);
            if rect.area() > 0.0 {
                expected.push(Detection { class: u16::try_from(class).unwrap(), score, rect });
            }
        }
        let (detections, ignored) = read_scored(&entries, &thresholds);
        prop_assert_eq!(detections, expected);
        prop_assert_eq!(ignored, bad);
    }
}
