//! A person, drawn as a flat figure that faces the camera's mast and walks.

use super::canvas::{Paint, Surface, ellipse, limb, polygon, rectangle};
use super::number::{Random, cos_turns, sin_turns};

#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// Body height in metres.
    pub height: f32,
    breadth: f32,
    skin: Paint,
    hair: Paint,
    top: Paint,
    trousers: Paint,
    shoes: Paint,
    cap: Option<Paint>,
    bag: Option<(Paint, bool)>,
    skirt: bool,
}

/// How a person stands at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pose {
    /// Between the feet, in pixels.
    pub foot: (f32, f32),
    /// Pixels per metre.
    pub scale: f32,
    /// Progress of the gait in turns; one turn is two steps.
    pub gait: f32,
    /// 0.0 standing .. 1.0 walking.
    pub stride: f32,
    /// -1.0 walks left .. 0.0 to or from the camera .. 1.0 walks right.
    pub heading: f32,
    /// Whether the face points to the camera.
    pub towards: bool,
}

const CLOTHES: [(u8, u8, u8); 12] = [
    (36, 40, 48),
    (180, 40, 44),
    (40, 84, 160),
    (226, 224, 216),
    (44, 110, 66),
    (226, 178, 40),
    (110, 60, 120),
    (120, 122, 126),
    (220, 120, 40),
    (92, 70, 52),
    (128, 170, 206),
    (24, 26, 30),
];

impl Look {
    pub(crate) fn new(random: &mut Random) -> Look {
        let mut cloth = || {
            let (r, g, b) = random.pick(&CLOTHES);
            Paint::rgb(r, g, b)
        };
        let (top, trousers, cap, bag) = (cloth(), cloth().lighter(-12), cloth(), cloth());
        let skin = random.pick(&[(236, 196, 168), (206, 156, 120), (150, 104, 74), (96, 66, 50)]);
        let hair = random.pick(&[(32, 26, 22), (84, 58, 36), (170, 140, 84), (140, 138, 134)]);
        Look {
            height: random.between(1.5, 1.92),
            breadth: random.between(0.88, 1.2),
            skin: Paint::rgb(skin.0, skin.1, skin.2).grain(3),
            hair: Paint::rgb(hair.0, hair.1, hair.2),
            top: top.grain(15),
            trousers,
            shoes: Paint::rgb(38, 34, 32),
            cap: random.chance(0.3).then_some(cap),
            bag: random.chance(0.45).then(|| (bag, random.chance(0.5))),
            skirt: random.chance(0.2),
        }
    }

    pub(crate) fn draw<S: Surface>(&self, surface: &mut S, pose: &Pose) {
        let m = pose.scale * self.height / 1.75;
        let (x, y) = pose.foot;
        let side = pose.heading.abs();
        let facing = if pose.heading < 0.0 { -1.0 } else { 1.0 };
        // Hips and shoulders bob with each step.
        let bob = 0.025 * m * pose.stride * cos_turns(2.0 * pose.gait);
        let (hip, shoulder, head) = (y - 0.86 * m + bob, y - 1.42 * m + bob, y - 1.62 * m + bob);
        let half = m * self.breadth * (0.21 - 0.07 * side);
        let swing = sin_turns(pose.gait) * pose.stride;

        self.arm(surface, (x + facing * half * 0.6, shoulder), -swing, m, pose, self.top.lighter(-24));
        self.leg(surface, (x - facing * 0.06 * m, hip, y), -swing, m, pose, -16);
        self.leg(surface, (x + facing * 0.06 * m, hip, y), swing, m, pose, 0);
        if self.skirt {
            let hem = hip + 0.42 * m;
            let skirt = [
                (x - half * 0.9, hip - 0.1 * m),
                (x + half * 0.9, hip - 0.1 * m),
                (x + half * 1.35, hem),
                (x - half * 1.35, hem),
            ];
            polygon(surface, &skirt, self.top.lighter(-14));
        }
        if let Some((paint, true)) = self.bag {
            // A backpack: behind a walker, over the back of one who walks away.
            let back = x - facing * half * (0.9 * side);
            let wide = 0.15 * m;
            rectangle(surface, [back - wide, shoulder, back + wide, shoulder + 0.46 * m], paint);
        }
        let torso = [
            (x - half, shoulder + 0.05 * m),
            (x - half * 0.6, shoulder - 0.04 * m),
            (x + half * 0.6, shoulder - 0.04 * m),
            (x + half, shoulder + 0.05 * m),
            (x + half * 0.86, hip + 0.06 * m),
            (x - half * 0.86, hip + 0.06 * m),
        ];
        polygon(surface, &torso, self.top);
        limb(surface, (x, shoulder), (x, head), (0.055 * m, 0.05 * m), self.skin.lighter(-14));
        self.head(surface, (x + facing * 0.02 * m * side, head), facing * side, m, pose.towards);
        self.arm(surface, (x - facing * half * 0.85, shoulder), swing, m, pose, self.top.lighter(10));
        if let Some((paint, false)) = self.bag {
            let hand = (x - facing * half - swing * 0.16 * m * side, shoulder + 0.66 * m);
            rectangle(surface, [hand.0 - 0.13 * m, hand.1, hand.0 + 0.13 * m, hand.1 + 0.26 * m], paint);
        }
    }

    fn leg<S: Surface>(
        &self,
        surface: &mut S,
        (x, hip, ground): (f32, f32, f32),
        swing: f32,
        m: f32,
        pose: &Pose,
        shade: i16,
    ) {
        let forward = swing * 0.34 * m * pose.heading;
        // The foot that comes forward is off the ground, and its knee bends.
        let lift = (swing.max(0.0) * (1.0 - swing.max(0.0))) * 0.3 * m + swing.abs() * 0.02 * m;
        let foot = (x + forward, ground - lift - 0.05 * m);
        let knee = (x + forward * 0.5 + 0.06 * m * pose.heading * pose.stride, (hip + foot.1) / 2.0);
        let paint = if self.skirt { self.skin } else { self.trousers };
        let paint = paint.lighter(shade);
        limb(surface, (x, hip), knee, (0.095 * m * self.breadth, 0.07 * m), paint);
        limb(surface, knee, foot, (0.07 * m, 0.05 * m), paint);
        let toe = foot.0 + 0.1 * m * pose.heading;
        limb(
            surface,
            (foot.0, foot.1 + 0.015 * m),
            (toe, foot.1 + 0.02 * m),
            (0.045 * m, 0.04 * m),
            self.shoes,
        );
    }

    fn arm<S: Surface>(
        &self,
        surface: &mut S,
        (x, shoulder): (f32, f32),
        swing: f32,
        m: f32,
        pose: &Pose,
        sleeve: Paint,
    ) {
        let reach = swing * 0.26 * m * pose.heading;
        let elbow = (x + reach * 0.5, shoulder + 0.3 * m);
        let hand = (x + reach + 0.05 * m * pose.heading, shoulder + 0.57 * m - swing.abs() * 0.05 * m);
        limb(surface, (x, shoulder + 0.05 * m), elbow, (0.06 * m, 0.05 * m), sleeve);
        limb(surface, elbow, hand, (0.048 * m, 0.038 * m), sleeve);
        ellipse(surface, hand, (0.045 * m, 0.05 * m), self.skin);
    }

    fn head<S: Surface>(&self, surface: &mut S, (x, y): (f32, f32), facing: f32, m: f32, towards: bool) {
        let (wide, tall) = (0.095 * m, 0.125 * m);
        ellipse(surface, (x, y), (wide, tall), self.hair);
        if towards || facing.abs() > 0.4 {
            ellipse(surface, (x + facing * 0.03 * m, y + 0.025 * m), (wide * 0.82, tall * 0.84), self.skin);
        }
        if let Some(cap) = self.cap {
            ellipse(surface, (x, y - 0.06 * m), (wide * 1.05, tall * 0.6), cap);
            let brim = x + facing * 0.12 * m;
            rectangle(
                surface,
                [x.min(brim) - wide * 0.4, y - 0.05 * m, x.max(brim) + wide * 0.4, y - 0.02 * m],
                cap,
            );
        }
    }
}
