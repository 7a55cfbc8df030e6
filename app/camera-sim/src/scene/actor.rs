//! Who moves where and when. Every journey begins and ends out of sight, so that a loop has no seam.

use super::number::Random;
use super::view::{FOOTPATH, Line, View};
use super::{person, vehicle};

pub(crate) enum Look {
    Person(person::Look),
    Vehicle(vehicle::Look),
}

/// One figure on one journey, repeated with every loop.
pub(crate) struct Actor {
    pub look: Look,
    line: Line,
    aside: f32,
    /// Start and end along the line in metres.
    journey: (f32, f32),
    start_s: f32,
    moving_s: f32,
    /// A rest of so many seconds after this part of the way.
    rest: Option<(f32, f32)>,
}

/// Where an actor is at one time, and how it moves.
pub(crate) struct Placement {
    pub x: f32,
    pub z: f32,
    /// Unit direction of travel.
    pub dx: f32,
    pub dz: f32,
    pub travelled: f32,
    /// Metres per second.
    pub speed: f32,
}

impl Actor {
    /// How many of this actor's journeys overlap when one starts with every loop.
    pub(crate) fn instances(&self, loop_s: f32) -> u32 {
        (self.duration() / loop_s).ceil() as u32
    }

    /// Where its instance is `now` seconds after the start of the loop; `None` when it is not on its way.
    pub(crate) fn at(&self, now: f32, instance: u32, loop_s: f32) -> Option<Placement> {
        let local = (now - self.start_s).rem_euclid(loop_s) + instance as f32 * loop_s;
        if local >= self.duration() {
            return None;
        }
        let (start, end) = self.journey;
        let length = (end - start).abs();
        let sign = (end - start).signum();
        let travelled = self.progress(local) * length;
        let ahead = self.progress(local + 0.1) * length;
        let (x, z) = self.line.at(start + sign * travelled, self.aside);
        let speed = (ahead - travelled) / 0.1;
        Some(Placement { x, z, dx: self.line.dx * sign, dz: self.line.dz * sign, travelled, speed })
    }

    fn duration(&self) -> f32 {
        self.moving_s + self.rest.map_or(0.0, |(_, rest_s)| rest_s)
    }

    /// Part of the way after `local` seconds.
    fn progress(&self, local: f32) -> f32 {
        // Runs from 0 to 1 and arrives with speed 0.
        let arrive = |t: f32| 1.5 * t - 0.5 * t * t * t;
        let Some((part, rest_s)) = self.rest else { return (local / self.moving_s).min(1.0) };
        let arrival = self.moving_s * part;
        if local < arrival {
            part * arrive(local / arrival)
        } else if local < arrival + rest_s {
            part
        } else {
            let t = ((local - arrival - rest_s) / (self.moving_s - arrival)).min(1.0);
            part + (1.0 - part) * (1.0 - arrive(1.0 - t))
        }
    }
}

/// Enough figures that on average a handful of each kind is in sight.
pub(crate) fn cast(view: &View, roads: &[Line], loop_s: f32, random: &mut Random) -> Vec<Actor> {
    let share = (loop_s / 20.0).clamp(0.1, 3.0);
    let people = (random.between(8.0, 13.0) * share).round().max(2.0) as usize;
    let vehicles = (random.between(6.0, 10.0) * share).round().max(2.0) as usize;
    let mut actors = Vec::new();
    for index in 0..people {
        let look = Look::Person(person::Look::new(random));
        let (line, aside) = if random.chance(0.45) {
            let z = view.nearest() * random.between(1.12, 2.6);
            (Line::new(random.between(-3.0, 3.0), z, random.between(-0.09, 0.09)), 0.0)
        } else {
            (random.pick(roads), random.between(FOOTPATH - 0.9, FOOTPATH + 0.7) * random.pick(&[-1.0, 1.0]))
        };
        let pace = random.between(1.1, 1.9);
        actors.push(journey(view, look, (line, aside, 1.0), pace, (index, people), loop_s, random));
    }
    for index in 0..vehicles {
        let look = vehicle::Look::new(random);
        let radius = look.length;
        let keep_right = random.pick(&[-1.0, 1.0]);
        let lane = (random.pick(roads), 1.8 * keep_right, radius);
        let pace = random.between(5.0, 10.0);
        let mut actor = journey(view, Look::Vehicle(look), lane, pace, (index, vehicles), loop_s, random);
        if (actor.journey.1 > actor.journey.0) != (keep_right < 0.0) {
            actor.journey = (actor.journey.1, actor.journey.0);
        }
        actors.push(actor);
    }
    actors
}

fn journey(
    view: &View,
    look: Look,
    (line, aside, radius): (Line, f32, f32),
    pace: f32,
    (index, of): (usize, usize),
    loop_s: f32,
    random: &mut Random,
) -> Actor {
    let (from, to) = line.travel(view, aside, radius);
    let journey = if random.chance(0.5) { (from, to) } else { (to, from) };
    let moving_s = ((to - from) / pace).max(2.0);
    let rest = random.chance(0.5).then(|| (random.between(0.3, 0.7), random.between(1.5, 5.0)));
    // Starts are spread over the loop, so that no moment is empty.
    let start_s = (index as f32 + random.unit()) / of as f32 * loop_s;
    Actor { look, line, aside, journey, start_s, moving_s, rest }
}
