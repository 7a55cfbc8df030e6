//! Cars, vans and trucks: a few boxes in space, projected, with windows, lights and wheels.

use super::canvas::{Paint, Surface, polygon};
use super::number::{Random, cos_turns, sin_turns};
use super::view::View;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Car,
    Van,
    Truck,
}

#[derive(Clone, Debug)]
pub(crate) struct Look {
    kind: Kind,
    /// Length, width, height in metres.
    pub length: f32,
    width: f32,
    height: f32,
    paint: Paint,
    cargo: Paint,
}

/// Where a vehicle stands: middle of its ground and unit direction of travel, in world coordinates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub x: f32,
    pub z: f32,
    pub dx: f32,
    pub dz: f32,
}

type Point = [f32; 3];

/// A block that may taper to its top: (back, front, half width, height) of the lower and of the upper face.
struct Block {
    lower: [f32; 4],
    upper: [f32; 4],
}

/// Corners of one face in vehicle coordinates (forward, left, up): lower back, lower front, upper front, upper back
/// for the sides; lower left, lower right, upper right, upper left for front and back.
struct Face {
    corners: [Point; 4],
    outward: Point,
    shade: i16,
}

const GLASS: (u8, u8, u8) = (44, 54, 66);
const TYRE: (u8, u8, u8) = (26, 26, 28);

impl Look {
    pub(crate) fn new(random: &mut Random) -> Look {
        let kind = random.pick(&[Kind::Car, Kind::Car, Kind::Car, Kind::Van, Kind::Truck]);
        let colours = [
            (196, 198, 200),
            (232, 232, 228),
            (30, 32, 36),
            (164, 30, 32),
            (36, 66, 130),
            (96, 100, 104),
            (40, 84, 62),
            (206, 164, 44),
            (120, 76, 44),
        ];
        let (r, g, b) = random.pick(&colours);
        let (cr, cg, cb) = random.pick(&[(214, 212, 204), (72, 104, 140), (150, 144, 60), (170, 84, 50)]);
        let (length, width, height) = match kind {
            Kind::Car => (random.between(3.8, 4.7), 1.78, random.between(1.4, 1.62)),
            Kind::Van => (random.between(4.8, 5.6), 1.95, random.between(2.0, 2.4)),
            Kind::Truck => (random.between(6.8, 8.2), 2.35, random.between(2.9, 3.3)),
        };
        Look {
            kind,
            length,
            width,
            height,
            paint: Paint::rgb(r, g, b).grain(3),
            cargo: Paint::rgb(cr, cg, cb),
        }
    }

    /// `travelled` metres turn the wheels.
    pub(crate) fn draw<S: Surface>(&self, surface: &mut S, view: &View, place: &Place, travelled: f32) {
        let mut brush = Brush { surface, view, place };
        let (half, w) = (self.length / 2.0, self.width / 2.0);
        let glass = Paint::rgb(GLASS.0, GLASS.1, GLASS.2).grain(3);
        match self.kind {
            Kind::Car => {
                let belt = self.height * 0.58;
                brush.block(
                    &Block { lower: [-half, half, w, 0.28], upper: [-half * 0.97, half * 0.96, w, belt] },
                    self.paint,
                );
                brush.ends(half, w, belt);
                brush.wheels(self.length, w, 0.33, travelled);
                let cabin = Block {
                    lower: [-half * 0.82, half * 0.36, w * 0.96, belt],
                    upper: [-half * 0.52, half * 0.06, w * 0.78, self.height],
                };
                brush.block(&cabin, self.paint.lighter(6));
                brush.windows(&cabin, glass, &[(0.06, 0.46), (0.52, 0.94)], (0.12, 0.86));
            }
            Kind::Van => {
                let belt = self.height * 0.55;
                brush.block(
                    &Block { lower: [-half, half, w, 0.3], upper: [-half, half * 0.9, w, belt] },
                    self.paint,
                );
                brush.ends(half, w, belt);
                brush.wheels(self.length, w, 0.35, travelled);
                let top = Block {
                    lower: [-half, half * 0.9, w, belt],
                    upper: [-half * 0.97, half * 0.62, w * 0.9, self.height],
                };
                brush.block(&top, self.paint);
                brush.windows(&top, glass, &[(0.72, 0.95)], (0.14, 0.8));
            }
            Kind::Truck => {
                let (cab, bed) = (half - 2.1, 0.95);
                brush.block(
                    &Block { lower: [-half, half, w * 0.8, 0.5], upper: [-half, half, w * 0.8, bed] },
                    Paint::rgb(52, 52, 54),
                );
                brush.wheels(self.length, w, 0.48, travelled);
                let cargo =
                    Block { lower: [-half, cab - 0.15, w, bed], upper: [-half, cab - 0.15, w, self.height] };
                let cabin = Block {
                    lower: [cab, half, w * 0.98, 0.55],
                    upper: [cab, half - 0.25, w * 0.92, self.height * 0.84],
                };
                // The nearer of the two is drawn last.
                let cargo_first =
                    place.z + place.dz * half < place.z - place.dz * half || place.dz.abs() < 0.2;
                let draw_cabin = |brush: &mut Brush<'_, S>| {
                    brush.block(&cabin, self.paint);
                    brush.windows(&cabin, glass, &[(0.3, 0.85)], (0.5, 0.9));
                    brush.ends(half, w, 1.2);
                };
                if !cargo_first {
                    draw_cabin(&mut brush);
                }
                brush.block(&cargo, self.cargo.grain(15));
                brush.stripes(&cargo, self.cargo.lighter(-34));
                if cargo_first {
                    draw_cabin(&mut brush);
                }
            }
        }
    }
}

struct Brush<'a, S: Surface> {
    surface: &'a mut S,
    view: &'a View,
    place: &'a Place,
}

impl<S: Surface> Brush<'_, S> {
    fn world(&self, [forward, left, up]: Point) -> Point {
        let Place { x, z, dx, dz } = *self.place;
        [x + forward * dx - left * dz, up, z + forward * dz + left * dx]
    }

    fn fill(&mut self, corners: &[Point], paint: Paint) {
        let mut pixels = [(0.0, 0.0); 16];
        for (pixel, corner) in pixels.iter_mut().zip(corners) {
            let [x, up, z] = self.world(*corner);
            *pixel = self.view.project(x, up, z.max(1.0));
        }
        polygon(self.surface, &pixels[..corners.len()], paint);
    }

    /// Whether the camera looks at the outer side of a face.
    fn faces_camera(&self, face: &Face) -> bool {
        let middle = self.world(between(&face.corners, 0.5, 0.5));
        let tip = {
            let at = between(&face.corners, 0.5, 0.5);
            self.world([at[0] + face.outward[0], at[1] + face.outward[1], at[2] + face.outward[2]])
        };
        let outward = [tip[0] - middle[0], tip[1] - middle[1], tip[2] - middle[2]];
        let to_camera = [-middle[0], self.view.mast - middle[1], -middle[2]];
        outward.iter().zip(to_camera).map(|(a, b)| a * b).sum::<f32>() > 0.0
    }

    fn block(&mut self, block: &Block, paint: Paint) {
        for face in block.faces() {
            if self.faces_camera(&face) {
                self.fill(&face.corners, paint.lighter(face.shade));
            }
        }
    }

    fn patch(&mut self, face: &Face, (u0, u1): (f32, f32), (v0, v1): (f32, f32), paint: Paint) {
        if self.faces_camera(face) {
            let corners = [(u0, v0), (u1, v0), (u1, v1), (u0, v1)].map(|(u, v)| between(&face.corners, u, v));
            self.fill(&corners, paint);
        }
    }

    /// Side windows at the given parts of the length, and a whole one in front and back.
    fn windows(&mut self, block: &Block, glass: Paint, along: &[(f32, f32)], up: (f32, f32)) {
        for (index, face) in block.faces().iter().enumerate() {
            match index {
                0 | 1 => along.iter().for_each(|&span| self.patch(face, span, up, glass)),
                2 | 3 => self.patch(face, (0.08, 0.92), up, glass.lighter(if index == 2 { 16 } else { 0 })),
                _ => {}
            }
        }
    }

    fn stripes(&mut self, block: &Block, paint: Paint) {
        for face in &block.faces()[..2] {
            for stripe in 0..5_u8 {
                let at = 0.1 + 0.2 * f32::from(stripe);
                self.patch(face, (at, at + 0.015), (0.03, 0.97), paint);
            }
            self.patch(face, (0.25, 0.75), (0.4, 0.6), paint.lighter(70));
        }
    }

    /// Lamps, bumpers and number plates.
    fn ends(&mut self, half: f32, w: f32, belt: f32) {
        let ends = Block { lower: [-half - 0.02, half + 0.02, w, 0.3], upper: [-half - 0.02, half, w, belt] };
        let faces = ends.faces();
        for (face, lamp) in [(&faces[2], Paint::rgb(244, 240, 210)), (&faces[3], Paint::rgb(170, 24, 24))] {
            self.patch(face, (0.0, 1.0), (0.0, 0.2), Paint::rgb(40, 40, 42));
            self.patch(face, (0.05, 0.26), (0.5, 0.78), lamp.grain(0));
            self.patch(face, (0.74, 0.95), (0.5, 0.78), lamp.grain(0));
            self.patch(face, (0.36, 0.64), (0.22, 0.42), Paint::rgb(222, 220, 210));
        }
    }

    fn wheels(&mut self, length: f32, w: f32, radius: f32, travelled: f32) {
        let turned = travelled / (std::f32::consts::TAU * radius);
        for (side, at) in [(-1.0, -0.31), (-1.0, 0.31), (1.0, -0.31), (1.0, 0.31)] {
            let (left, at) = (side * w * 1.01, at * length);
            let disc = |part: f32| {
                let mut corners = [[0.0; 3]; 12];
                for (corner, index) in corners.iter_mut().zip(0_u8..) {
                    let turns = f32::from(index) / 12.0 - turned;
                    let reach = radius * part;
                    *corner = [at + cos_turns(turns) * reach, left, radius + sin_turns(turns) * reach];
                }
                corners
            };
            let tyre = disc(1.0);
            let corners = [tyre[0], tyre[3], tyre[6], tyre[9]];
            if self.faces_camera(&Face { corners, outward: [0.0, side, 0.0], shade: 0 }) {
                self.fill(&tyre, Paint::rgb(TYRE.0, TYRE.1, TYRE.2));
                self.fill(&disc(0.6), Paint::rgb(150, 152, 154));
                let rim = disc(0.5);
                self.fill(&[rim[0], rim[1], rim[6], rim[7]], Paint::rgb(70, 72, 74));
            }
        }
    }
}

impl Block {
    /// Left, right, front, back, top.
    fn faces(&self) -> [Face; 5] {
        let [back, front, w, low] = self.lower;
        let [upper_back, upper_front, upper_w, high] = self.upper;
        let side = |s: f32| {
            [
                [back, s * w, low],
                [front, s * w, low],
                [upper_front, s * upper_w, high],
                [upper_back, s * upper_w, high],
            ]
        };
        let end = |at: f32, upper_at: f32| {
            [[at, w, low], [at, -w, low], [upper_at, -upper_w, high], [upper_at, upper_w, high]]
        };
        let top = [
            [upper_back, upper_w, high],
            [upper_front, upper_w, high],
            [upper_front, -upper_w, high],
            [upper_back, -upper_w, high],
        ];
        let rise = (high - low).max(0.01);
        [
            Face { corners: side(1.0), outward: [0.0, 1.0, (w - upper_w) / rise], shade: 0 },
            Face { corners: side(-1.0), outward: [0.0, -1.0, (w - upper_w) / rise], shade: 0 },
            Face {
                corners: end(front, upper_front),
                outward: [1.0, 0.0, (front - upper_front) / rise],
                shade: -12,
            },
            Face {
                corners: end(back, upper_back),
                outward: [-1.0, 0.0, (upper_back - back) / rise],
                shade: -18,
            },
            Face { corners: top, outward: [0.0, 0.0, 1.0], shade: 22 },
        ]
    }
}

/// A point of a face: `u` along its lower edge, `v` upwards.
fn between(corners: &[Point; 4], u: f32, v: f32) -> Point {
    let mut point = [0.0; 3];
    for (axis, value) in point.iter_mut().enumerate() {
        let lower = corners[0][axis] + (corners[1][axis] - corners[0][axis]) * u;
        let upper = corners[3][axis] + (corners[2][axis] - corners[3][axis]) * u;
        *value = lower + (upper - lower) * v;
    }
    point
}
