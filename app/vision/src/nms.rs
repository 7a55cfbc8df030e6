//! Of the boxes that a detector puts around one thing, keeps the best one.
//!
//! Greedy and per class, as everywhere: the best box stays, boxes of its class that overlap it go, and so on. Boxes of
//! different classes do not touch each other, unless they are of one kind ([`crate::group`]). Equal scores are ordered by class and place, so that the same boxes in
//! another order give the same result.

use std::cmp::Ordering;

use crate::Detection;

/// Keeps at most `max` detections, best first, none of which overlaps a better one of its class by more than `iou`.
///
/// `iou` is 0.0..=1.0; 1.0 keeps all. Costs at most `detections.len() * max` comparisons of two boxes, allocates
/// nothing.
pub fn suppress(detections: &mut Vec<Detection>, iou: f32, max: usize) {
    suppress_kinds(detections, &[], iou, max);
}

/// Likewise among classes of one kind, see [`crate::group::kinds`]. Classes beyond the end are a kind of their own.
pub fn suppress_kinds(detections: &mut Vec<Detection>, kinds: &[u16], iou: f32, max: usize) {
    let kind = |class: u16| kinds.get(usize::from(class)).copied().unwrap_or(class);
    detections.sort_unstable_by(best_first);
    let mut kept = 0;
    for at in 0..detections.len() {
        if kept == max {
            break;
        }
        let candidate = detections[at];
        let covered = |better: &Detection| {
            kind(better.class) == kind(candidate.class) && better.rect.iou(&candidate.rect) > iou
        };
        if !detections[..kept].iter().any(covered) {
            detections[kept] = candidate;
            kept += 1;
        }
    }
    detections.truncate(kept);
}

/// A total order: higher scores first, then lower classes, then by place and size.
pub(crate) fn best_first(a: &Detection, b: &Detection) -> Ordering {
    let place = |detection: &Detection| {
        let rect = detection.rect;
        [rect.x, rect.y, rect.w, rect.h]
    };
    let by_place = || {
        let pairs = place(a).into_iter().zip(place(b));
        pairs.map(|(a, b)| a.total_cmp(&b)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    };
    b.score.total_cmp(&a.score).then(a.class.cmp(&b.class)).then_with(by_place)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Rect;

    fn detection(class: u16, score: f32, [x, y, w, h]: [f32; 4]) -> Detection {
        Detection { class, score, rect: Rect { x, y, w, h } }
    }

    #[test]
    fn the_best_of_each_heap_stays() {
        let check = |iou: f32, max: usize, expected: &[usize]| {
            let boxes = [
                detection(0, 0.6, [0.10, 0.1, 0.2, 0.4]),
                detection(0, 0.9, [0.11, 0.1, 0.2, 0.4]),
                detection(1, 0.7, [0.10, 0.1, 0.2, 0.4]),
                detection(0, 0.5, [0.60, 0.1, 0.2, 0.4]),
                detection(0, 0.5, [0.60, 0.1, 0.2, 0.4]),
                detection(0, 0.4, [0.70, 0.1, 0.2, 0.4]),
            ];
            let mut found = boxes.to_vec();
            suppress(&mut found, iou, max);
            let expected: Vec<Detection> = expected.iter().map(|&at| boxes[at]).collect();
            assert_eq!(found, expected, "iou {iou}, max {max}");
        };
        check(0.5, 100, &[1, 2, 3, 5]); // the last overlaps by a third only
        check(0.3, 100, &[1, 2, 3]);
        check(1.0, 100, &[1, 2, 0, 3, 4, 5]);
        check(0.0, 100, &[1, 2, 3]);
        check(0.5, 2, &[1, 2]);
        check(0.5, 0, &[]);
    }

    #[test]
    fn of_boxes_of_one_kind_the_best_stays() {
        let van = [0.1, 0.1, 0.2, 0.2];
        let boxes = [
            detection(1, 0.48, van),
            detection(2, 0.44, [0.11, 0.1, 0.2, 0.2]),
            detection(0, 0.6, van),
            detection(3, 0.3, van),
        ];
        let mut found = boxes.to_vec();
        suppress_kinds(&mut found, &[0, 1, 1], 0.5, 100);
        assert_eq!(found, [boxes[2], boxes[0], boxes[3]]);
        let mut found = boxes.to_vec();
        suppress_kinds(&mut found, &[0, 1, 2], 0.5, 100);
        assert_eq!(found.len(), 4);
    }

    prop_compose! {
        /// Few different values, so that ties and overlaps are many.
        fn any_detection()(class in 0..3_u16, score in 0..8_u8, x in 0..8_u8, y in 0..8_u8, w in 1..5_u8, h in 1..5_u8)
            -> Detection {
            let part = |value: u8| f32::from(value) / 12.0;
            detection(class, f32::from(score) / 8.0, [part(x), part(y), part(w), part(h)])
        }
    }

    proptest! {
        #[test]
        fn what_stays_is_free_of_overlap_and_what_goes_was_covered(
            boxes in proptest::collection::vec(any_detection(), 0..60),
            tenths in 0..=10_u8,
            turn in any::<prop::sample::Index>(),
        ) {
            let iou = f32::from(tenths) / 10.0;
            let mut kept = boxes.clone();
            suppress(&mut kept, iou, usize::MAX);
            let covers = |better: &Detection, other: &Detection| {
                better.class == other.class && better.rect.iou(&other.rect) > iou
            };
            for (at, detection) in kept.iter().enumerate() {
                prop_assert!(kept[..at].iter().all(|better| better.score >= detection.score));
                prop_assert!(!kept[..at].iter().any(|better| covers(better, detection)));
            }
            for detection in boxes.iter().filter(|detection| !kept.contains(detection)) {
                prop_assert!(kept.iter().any(|better| better.score >= detection.score && covers(better, detection)));
            }

            let mut turned = boxes.clone();
            turned.rotate_left(if boxes.is_empty() { 0 } else { turn.index(boxes.len()) });
            suppress(&mut turned, iou, usize::MAX);
            prop_assert_eq!(&kept, &turned, "the order of the boxes matters");

            suppress(&mut turned, iou, 5);
            prop_assert_eq!(&kept[..kept.len().min(5)], &turned[..]);
        }
    }
}
