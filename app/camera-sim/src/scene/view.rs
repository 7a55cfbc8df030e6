//! The fixed virtual camera, and the ground that it looks at.
//!
//! World coordinates in metres: `x` to the right, `z` away from the camera, `height` above flat ground.

use super::number::{Random, cos_turns, sin_turns};

#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub width: f32,
    pub height: f32,
    /// Row of the horizon in pixels.
    pub horizon: f32,
    /// Height of the camera above ground in metres.
    pub mast: f32,
    /// Focal length in pixels.
    pub focal: f32,
}

impl View {
    pub(crate) fn new(width: usize, height: usize, random: &mut Random) -> View {
        let (width, height) = (width as f32, height as f32);
        View {
            width,
            height,
            horizon: height * random.between(0.26, 0.36),
            mast: random.between(4.2, 6.2),
            focal: width * random.between(0.9, 1.1),
        }
    }

    /// Pixels per metre at distance `z`.
    pub(crate) fn scale(&self, z: f32) -> f32 {
        self.focal / z
    }

    pub(crate) fn project(&self, x: f32, height: f32, z: f32) -> (f32, f32) {
        let scale = self.scale(z);
        (self.width / 2.0 + scale * x, self.horizon + scale * (self.mast - height))
    }

    /// The point of the ground that is seen at a pixel below the horizon.
    pub(crate) fn ground(&self, px: f32, py: f32) -> (f32, f32) {
        let z = self.focal * self.mast / (py - self.horizon).max(0.01);
        ((px - self.width / 2.0) * z / self.focal, z)
    }

    /// Distance of the ground that is seen at the lower border.
    pub(crate) fn nearest(&self) -> f32 {
        self.focal * self.mast / (self.height - self.horizon)
    }

    /// Whether something of `radius` metres at this place cannot be seen because it is left or right of the picture.
    fn beside(&self, x: f32, z: f32, radius: f32) -> bool {
        let scale = self.scale(z);
        (scale * x).abs() - scale * radius > self.width / 2.0
    }
}

/// A straight line on the ground: a road's middle, or a footpath.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    pub x: f32,
    pub z: f32,
    /// Unit direction.
    pub dx: f32,
    pub dz: f32,
}

impl Line {
    pub(crate) fn new(x: f32, z: f32, turns: f32) -> Line {
        Line { x, z, dx: cos_turns(turns), dz: sin_turns(turns) }
    }

    pub(crate) fn at(&self, along: f32, aside: f32) -> (f32, f32) {
        (self.x + along * self.dx - aside * self.dz, self.z + along * self.dz + aside * self.dx)
    }

    /// Distance along the line and to its left, in metres.
    pub(crate) fn locate(&self, x: f32, z: f32) -> (f32, f32) {
        let (rx, rz) = (x - self.x, z - self.z);
        (rx * self.dx + rz * self.dz, rz * self.dx - rx * self.dz)
    }

    /// From where to where one has to travel, `aside` metres left of the line, to enter and leave unseen.
    pub(crate) fn travel(&self, view: &View, aside: f32, radius: f32) -> (f32, f32) {
        let mut ends = [0.0_f32; 2];
        for (end, step) in ends.iter_mut().zip([-0.5, 0.5]) {
            // 400 steps of half a metre; a road that recedes almost straight away ends far off instead.
            for _ in 0..400 {
                let (x, z) = self.at(*end, aside);
                let (_, next_z) = self.at(*end + step, aside);
                if view.beside(x, z, radius) || next_z < 7.0 {
                    break;
                }
                *end += step;
            }
        }
        (ends[0], ends[1])
    }
}

/// Half the width of every road, in metres; two lanes.
pub(crate) const ROAD_HALF: f32 = 3.6;
/// Footpaths lie this far from the middle of a road, in metres.
pub(crate) const FOOTPATH: f32 = 5.0;

/// One to three roads.
pub(crate) fn roads(view: &View, random: &mut Random) -> Vec<Line> {
    let near = view.nearest();
    let mut roads = vec![Line::new(0.0, near * random.between(1.45, 1.8), random.between(-0.02, 0.02))];
    if random.chance(0.6) {
        roads.push(Line::new(0.0, near * random.between(3.0, 3.8), random.between(-0.015, 0.015)));
    }
    if random.chance(0.6) {
        let turns = random.between(0.08, 0.125) * random.pick(&[1.0, -1.0]);
        roads.push(Line::new(random.between(-4.0, 4.0), near * random.between(1.8, 2.4), turns));
    }
    roads
}
