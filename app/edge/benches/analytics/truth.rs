//! Whose pass through the scene each box of the ground truth shows.
//!
//! The renderer numbers a figure `base + instance`, and the scene repeats: the same number comes again in each loop, and
//! a figure whose way takes longer than a loop changes from one number to the next on its way. A tracker must be judged
//! by something else: one identity for each pass, from its first picture to its last.
//!
//! * Number `n + 1` goes on with the way of number `n` where it appears at the place of number `n` from one picture to
//!   the next, and for a second neither has number `n + 1` been seen before nor is number `n` seen after. (Without that
//!   second, a figure that comes out from behind the other one would do.)
//! * Otherwise a number is one pass per loop, which begins where the figure jumps furthest: ways are straight, so while it
//!   is hidden behind something it cannot move as far as from the end of its way back to its beginning.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use camera_sim::{FrameTruth, Label, TruthBox};
use vision::Rect;

use crate::measured::Error;

/// Least overlap from one picture to the next where a figure changes its number.
const SAME: f32 = 0.5;

/// Of one number within the scene.
#[derive(Clone, Copy, Debug)]
struct Number {
    /// The number that the figure has at the beginning of its way.
    figure: u32,
    /// How many loops ago this one's way began, at least.
    instance: i64,
    /// First picture of the way, within the loop.
    begin: usize,
}

/// The passes of one scene.
pub(crate) struct Passes {
    numbers: BTreeMap<u32, Number>,
    loop_length: i64,
}

/// One pass of one figure through the scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pass {
    figure: u32,
    round: i64,
}

/// Where a number is seen: pictures of the loop in order.
type Sightings = Vec<(usize, Rect, Label)>;

impl Passes {
    /// `truth` of one whole loop.
    pub(crate) fn new(truth: &[FrameTruth], fps: usize) -> Result<Self, Error> {
        let mut sightings: BTreeMap<u32, Sightings> = BTreeMap::new();
        for (at, frame) in truth.iter().enumerate() {
            for object in &frame.objects {
                sightings.entry(object.track).or_default().push((at, rect(object), object.label));
            }
        }
        let mut numbers: BTreeMap<u32, Number> = BTreeMap::new();
        for (&number, seen) in &sightings {
            let before = number.checked_sub(1).and_then(|before| Some((before, sightings.get(&before)?)));
            let Some((before, begin)) =
                before.and_then(|(before, earlier)| Some((before, change(earlier, seen, truth.len(), fps)?)))
            else {
                let begin = furthest_jump(seen);
                numbers.insert(number, Number { figure: number, instance: 0, begin });
                continue;
            };
            if let Entry::Occupied(mut before) = numbers.entry(before) {
                let Number { figure, instance, .. } = *before.get();
                // The way of the first of them begins where all of them change.
                before.get_mut().begin = begin;
                numbers.insert(number, Number { figure, instance: instance + 1, begin });
            }
        }
        Ok(Self { numbers, loop_length: i64::try_from(truth.len())? })
    }

    /// The pass that `number` belongs to in picture `picture`, counted through all loops.
    pub(crate) fn of(&self, number: u32, picture: i64) -> Result<Pass, Error> {
        let found = self.numbers.get(&number).ok_or("a number that is nowhere in the loop")?;
        let loops = (picture - i64::try_from(found.begin)?).div_euclid(self.loop_length);
        Ok(Pass { figure: found.figure, round: loops - found.instance })
    }
}

/// The picture in which a figure changes from the number that is seen `before` to the one seen `after`.
fn change(before: &Sightings, after: &Sightings, loop_length: usize, fps: usize) -> Option<usize> {
    let seen = |number: &Sightings, mut pictures: std::ops::Range<usize>| {
        pictures.any(|at| number.binary_search_by_key(&(at % loop_length), |sighting| sighting.0).is_ok())
    };
    let begins = after.iter().filter(|(at, place, label)| {
        let last = (at + loop_length - 1) % loop_length;
        let last = before.binary_search_by_key(&last, |sighting| sighting.0).map(|found| &before[found]);
        last.is_ok_and(|(_, old, old_label)| old_label == label && old.iou(place) > SAME)
            && !seen(after, at + loop_length - fps..at + loop_length)
            && !seen(before, *at..at + fps)
    });
    begins.map(|(at, ..)| *at).next()
}

/// The picture after the furthest jump from one sighting to the next, the first one following the last.
fn furthest_jump(sightings: &Sightings) -> usize {
    let before = sightings.iter().cycle().skip(sightings.len() - 1);
    let jumps = before.zip(sightings).map(|((_, from, _), (at, to, _))| {
        let (from, to) = (from.centre(), to.centre());
        ((to.x - from.x).hypot(to.y - from.y), *at)
    });
    jumps.max_by(|a, b| a.0.total_cmp(&b.0)).map_or(0, |(_, at)| at)
}

pub(crate) fn rect(object: &TruthBox) -> Rect {
    Rect { x: object.x, y: object.y, w: object.w, h: object.h }
}
