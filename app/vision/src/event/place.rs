//! Where one object is and goes: its stay in a zone, its passage over a line, whether it stands still.
//!
//! Boxes jitter, so each has a hysteresis: a foot counts as out of a zone, or on a side of a line, only when it is
//! off the border by [`SLACK`], and an object has moved only when its box says so in several pictures.

use media::ProducerTimestamp;

use crate::rules::Direction;
use crate::zone::{Polygon, Segment, Side};
use crate::{Point, Rect};

/// In heights of the box.
const SLACK: f32 = 0.05;
/// Pictures in a row in which an object must be out of a zone to have left it.
const OUT_PICTURES: u32 = 2;
/// Pictures in a row in which an object must be away from where it stood to have moved.
const MOVED_PICTURES: u32 = 3;
/// Where an object stands is the mean of its first boxes there.
const ANCHOR_PICTURES: u32 = 8;

pub(super) fn slack(rect: &Rect) -> f64 {
    f64::from(SLACK * rect.h)
}

/// One object and one zone.
#[derive(Clone, Debug, Default)]
pub(super) struct Stay {
    /// Inside since, with short times outside.
    since: Option<ProducerTimestamp>,
    outside: u32,
    entered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Entered,
    Left,
}

impl Stay {
    /// Where the foot is in this picture. `dwell_ms`: inside for this long is entered.
    pub(super) fn see(
        &mut self,
        at: ProducerTimestamp,
        foot: Point,
        slack: f64,
        zone: &Polygon,
        dwell_ms: u64,
    ) -> Option<Step> {
        if zone.contains(foot) {
            self.outside = 0;
            let since = *self.since.get_or_insert(at);
            let long_enough = at.checked_ms_since(since).is_some_and(|ms| ms >= dwell_ms);
            return (long_enough && !std::mem::replace(&mut self.entered, long_enough))
                .then_some(Step::Entered);
        }
        if zone.distance(foot) <= slack {
            self.outside = 0;
            return None;
        }
        self.outside += 1;
        if self.outside < OUT_PICTURES { None } else { self.leave() }
    }

    /// The zone is not for this object (any more).
    pub(super) fn leave(&mut self) -> Option<Step> {
        std::mem::take(self).entered.then_some(Step::Left)
    }
}

/// One object and one line.
#[derive(Clone, Debug, Default)]
pub(super) struct Passage {
    /// Where it was last clearly on one side.
    clear: Option<(Side, Point)>,
}

impl Passage {
    pub(super) fn see(&mut self, foot: Point, slack: f64, line: &Segment) -> Option<Direction> {
        let side = line.side(foot, slack)?;
        let (before, from) = self.clear.replace((side, foot))?;
        (before != side && line.meets(from, foot)).then_some(match before {
            Side::Left => Direction::Out,
            Side::Right => Direction::In,
        })
    }
}

/// Whether one object stands still.
#[derive(Clone, Debug)]
pub(super) struct Still {
    anchor: Rect,
    since: ProducerTimestamp,
    boxes: u32,
    moved: u32,
    stationary: bool,
}

impl Still {
    pub(super) fn new(at: ProducerTimestamp, rect: Rect) -> Still {
        Still { anchor: rect, since: at, boxes: 1, moved: 0, stationary: false }
    }

    pub(super) fn is_stationary(&self) -> bool {
        self.stationary
    }

    /// Where it stands.
    pub(super) fn anchor(&self) -> &Rect {
        &self.anchor
    }

    /// Whether it became stationary (`Some(true)`) or moves again.
    pub(super) fn see(&mut self, at: ProducerTimestamp, rect: Rect, after_ms: u64) -> Option<bool> {
        if is_elsewhere(&self.anchor, &rect) {
            self.moved += 1;
            if self.moved < MOVED_PICTURES {
                return None;
            }
            let was = self.stationary;
            *self = Still::new(at, rect);
            return was.then_some(false);
        }
        self.moved = 0;
        if self.boxes < ANCHOR_PICTURES {
            self.boxes += 1;
            let share = 1.0 / self.boxes as f32;
            let towards = |from: &mut f32, to: f32| *from += share * (to - *from);
            towards(&mut self.anchor.x, rect.x);
            towards(&mut self.anchor.y, rect.y);
            towards(&mut self.anchor.w, rect.w);
            towards(&mut self.anchor.h, rect.h);
        }
        let long_enough = at.checked_ms_since(self.since).is_some_and(|ms| ms >= after_ms);
        (long_enough && !std::mem::replace(&mut self.stationary, long_enough)).then_some(true)
    }
}

/// Somebody who walks past a parked car hides half of it: half the overlap is left and the centre is off by a
/// quarter. So both must be worse than that, or the boxes nearly apart.
fn is_elsewhere(anchor: &Rect, rect: &Rect) -> bool {
    let overlap = anchor.iou(rect);
    let (from, to) = (anchor.centre(), rect.centre());
    let off = ((to.x - from.x).abs() / anchor.w).max((to.y - from.y).abs() / anchor.h);
    overlap < 0.3 || (overlap < 0.5 && off > 0.25)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> ProducerTimestamp {
        ProducerTimestamp::from_millis(ms)
    }

    fn at(x: f32) -> Point {
        Point { x, y: 0.5 }
    }

    #[test]
    fn stay_begins_after_the_dwell_and_ends_after_two_pictures_out() {
        let corner = |x, y| Point { x, y };
        let zone =
            Polygon::new(&[corner(0.2, 0.2), corner(0.8, 0.2), corner(0.8, 0.8), corner(0.2, 0.8)]).unwrap();
        let check = |dwell_ms, feet: &[f32], expected: &[(usize, Step)]| {
            let mut stay = Stay::default();
            let found: Vec<(usize, Step)> = feet
                .iter()
                .enumerate()
                .filter_map(|(n, x)| Some((n, stay.see(ms(n as u64 * 100), at(*x), 0.01, &zone, dwell_ms)?)))
                .collect();
            assert_eq!(found, expected, "{dwell_ms} ms, {feet:?}");
        };
        use Step::{Entered, Left};
        check(0, &[0.1, 0.5, 0.5, 0.1, 0.1, 0.1], &[(1, Entered), (4, Left)]);
        check(0, &[0.5, 0.1, 0.5, 0.1, 0.5, 0.1], &[(0, Entered)]); // every other picture
        check(0, &[0.2, 0.195, 0.193, 0.199, 0.191], &[(0, Entered)]); // on the border and just off it
        check(300, &[0.5, 0.5, 0.5, 0.5, 0.5], &[(3, Entered)]);
        check(300, &[0.5, 0.5, 0.1, 0.5, 0.5], &[(3, Entered)]); // one picture out does not matter
        check(300, &[0.5, 0.5, 0.1, 0.1, 0.5, 0.5, 0.5], &[]); // two do
        check(100, &[0.5, 0.5, 0.9, 0.9, 0.5, 0.5], &[(1, Entered), (3, Left), (5, Entered)]);
    }

    #[test]
    fn passage_is_counted_once_and_by_direction() {
        // Upwards in the middle: left of it is the left half.
        let line = Segment::new(Point { x: 0.5, y: 0.9 }, Point { x: 0.5, y: 0.1 }).unwrap();
        let check = |feet: &[(f32, f32)], expected: &[(usize, Direction)]| {
            let mut passage = Passage::default();
            let found: Vec<(usize, Direction)> = feet
                .iter()
                .enumerate()
                .filter_map(|(n, &(x, y))| Some((n, passage.see(Point { x, y }, 0.01, &line)?)))
                .collect();
            assert_eq!(found, expected, "{feet:?}");
        };
        use Direction::{In, Out};
        check(&[(0.3, 0.5), (0.4, 0.5), (0.6, 0.5), (0.7, 0.5)], &[(2, Out)]);
        check(&[(0.7, 0.5), (0.3, 0.5)], &[(1, In)]);
        check(&[(0.7, 0.5), (0.3, 0.5), (0.7, 0.5)], &[(1, In), (2, Out)]);
        check(&[(0.48, 0.5), (0.505, 0.5), (0.495, 0.5), (0.505, 0.5), (0.52, 0.5)], &[(4, Out)]); // jitter
        check(&[(0.4, 0.95), (0.6, 0.95)], &[]); // past its end
        check(&[(0.4, 0.95), (0.6, 0.95), (0.4, 0.5)], &[(2, In)]);
        check(&[(0.5, 0.5), (0.6, 0.5)], &[]); // began on it
    }

    #[test]
    fn parked_car_stays_parked_while_someone_walks_past() {
        let car = Rect { x: 0.4, y: 0.4, w: 0.2, h: 0.1 };
        let mut still = Still::new(ms(0), car);
        let mut flips = Vec::new();
        for n in 1..400_u64 {
            let sign = if n % 2 == 0 { 1.0 } else { -1.0 };
            let rect = match n {
                200..210 => Rect { w: 0.1, ..car }, // right half hidden
                250..252 => Rect { x: 0.1, ..car }, // two wrong boxes
                300.. => Rect { x: 0.4 + 0.01 * (n - 300) as f32, ..car }, // drives off
                _ => Rect { x: car.x + sign * 0.01, w: car.w + sign * 0.01, ..car },
            };
            flips.extend(still.see(ms(n * 100), rect, 10_000).map(|stationary| (n, stationary)));
        }
        assert_eq!(flips, [(100, true), (309, false)]);
    }
}
