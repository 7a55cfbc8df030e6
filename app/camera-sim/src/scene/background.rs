//! What stands still: sky, hills, buildings, ground, roads, trees and poles. Drawn once per scene.

use super::canvas::{Paint, Picture420, Surface, ellipse, fill_run, limb, polygon, rectangle};
use super::number::{Random, fractal_noise, grain};
use super::view::{FOOTPATH, Line, ROAD_HALF, View};

pub(crate) struct Background {
    pub picture: Picture420,
    /// Per pixel the ground row (1 = top) on which a tree or pole stands that covers it; 0 where nothing does.
    /// A figure whose feet are on a smaller row is hidden there.
    pub standing: Vec<u16>,
}

pub(crate) fn draw(view: &View, roads: &[Line], seed: u64) -> Background {
    let mut random = Random::new(seed, 2);
    let picture = Picture420::new(view.width as usize, view.height as usize);
    let standing = vec![0; picture.luma().len()];
    let mut scenery = Scenery { into: Background { picture, standing }, row: 0 };
    sky_and_ground(view, roads, &mut random, &mut scenery.into.picture);
    hills(view, &mut random, &mut scenery);
    buildings(view, &mut random, &mut scenery);
    puddles(view, roads, &mut random, &mut scenery);
    let mut places: Vec<(f32, f32)> = Vec::new();
    for _ in 0..9 + random.next_u64() % 5 {
        let z = view.nearest() * random.between(1.15, 5.0);
        let x = random.between(-0.55, 0.55) * z * view.width / view.focal;
        if roads.iter().all(|road| road.locate(x, z).1.abs() > ROAD_HALF + 0.4) {
            places.push((x, z));
        }
    }
    places.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (x, z) in places {
        scenery.row = view.project(x, 0.0, z).1.clamp(1.0, 65535.0) as u16;
        match random.next_u64() % 5 {
            0 | 1 => tree(view, (x, z), &mut random, &mut scenery),
            2 => crate_box(view, (x, z), &mut random, &mut scenery),
            _ => pole(view, (x, z), &mut random, &mut scenery),
        }
    }
    scenery.into
}

/// Draws into the picture and notes where something stands.
struct Scenery {
    into: Background,
    row: u16,
}

impl Surface for Scenery {
    fn size(&self) -> (usize, usize) {
        (self.into.picture.width(), self.into.picture.height())
    }

    fn run(&mut self, y: usize, x0: usize, x1: usize, paint: Paint) {
        fill_run(&mut self.into.picture, y, x0, x1, paint);
        if self.row > 0 {
            let row = y * self.into.picture.width();
            self.into.standing[row + x0..row + x1].fill(self.row);
        }
    }
}

fn sky_and_ground(view: &View, roads: &[Line], random: &mut Random, picture: &mut Picture420) {
    let salt = random.next_u64() as u32;
    let overcast = random.unit();
    let ground = random.pick(&[
        Paint::rgb(96, 112, 70),
        Paint::rgb(122, 116, 104),
        Paint::rgb(134, 118, 92),
        Paint::rgb(104, 104, 106),
    ]);
    let asphalt = Paint::rgb(78, 79, 82).lighter(random.between(-16.0, 22.0) as i16);
    let pavement = Paint::rgb(142, 138, 132);
    let marking = Paint::rgb(205, 205, 196);
    let (width, height) = (picture.width(), picture.height());
    for y in 0..height {
        for x in 0..width {
            let (px, py) = (x as f32 + 0.5, y as f32 + 0.5);
            let (paint, contrast, noise);
            if py < view.horizon {
                let down = py / view.horizon;
                let cloud = fractal_noise(px / view.width * 7.0, down * 5.0, salt);
                let blue = (1.0 - overcast) * (1.0 - down * 0.8);
                let bright = 150.0 + 50.0 * down + 60.0 * (cloud - 0.4).max(0.0);
                let tint = |part: f32| (bright + blue * part).clamp(0.0, 255.0) as u8;
                paint = Paint::rgb(tint(-52.0), tint(-18.0), tint(34.0)).grain(1);
                (contrast, noise) = (0.0, 0.5);
            } else {
                let (gx, gz) = view.ground(px, py);
                (paint, contrast) = ground_at(roads, (gx, gz), [ground, asphalt, pavement, marking]);
                noise = fractal_noise(gx * 0.8, gz * 0.8, salt) * 0.6
                    + fractal_noise(gx * 6.0, gz * 6.0, salt) * 0.4;
            }
            // Far texture is finer than a pixel; fade it instead of letting it flicker.
            let fade = ((py - view.horizon) / view.height * 6.0).clamp(0.15, 1.0);
            let lift = (noise - 0.5) * contrast * fade;
            put(picture, x, y, paint.lighter(lift as i16));
        }
    }
}

fn put(picture: &mut Picture420, x: usize, y: usize, paint: Paint) {
    fill_run(picture, y, x, x + 1, paint);
}

/// What the ground is at a place, and how strong its texture is (peak to peak, in luma steps).
fn ground_at(
    roads: &[Line],
    (x, z): (f32, f32),
    [ground, asphalt, pavement, marking]: [Paint; 4],
) -> (Paint, f32) {
    let placed = roads.iter().map(|road| road.locate(x, z));
    let mut found = (ground, 90.0);
    for (along, aside) in placed.clone() {
        let aside = aside.abs();
        if (ROAD_HALF..FOOTPATH + 1.2).contains(&aside) {
            let kerb = aside < ROAD_HALF + 0.18;
            let joint = (along / 1.5).rem_euclid(1.0) < 0.05;
            found = (
                pavement.lighter(if kerb {
                    22
                } else if joint {
                    -26
                } else {
                    0
                }),
                34.0,
            );
        }
    }
    let crossings = placed.clone().filter(|(_, aside)| aside.abs() < ROAD_HALF).count();
    for (along, aside) in placed {
        if aside.abs() < ROAD_HALF {
            let middle = aside.abs() < 0.09 && along.rem_euclid(6.0) < 3.0;
            let edge = (aside.abs() - 3.25).abs() < 0.07;
            let zebra = (9.0..11.6).contains(&along) && aside.rem_euclid(1.0) < 0.5;
            let marked = crossings == 1 && (middle || edge || zebra);
            return if marked { (marking, 44.0) } else { (asphalt, 40.0) };
        }
    }
    found
}

fn hills(view: &View, random: &mut Random, scenery: &mut Scenery) {
    let salt = random.next_u64() as u32;
    let paint =
        random.pick(&[Paint::rgb(92, 108, 96), Paint::rgb(112, 122, 130), Paint::rgb(84, 96, 72)]).grain(15);
    for x in 0..view.width as usize {
        let top = view.horizon * (1.0 - 0.28 * fractal_noise(x as f32 / view.width * 6.0, 0.0, salt));
        rectangle(scenery, [x as f32, top, x as f32 + 1.0, view.horizon + 1.0], paint);
    }
}

fn buildings(view: &View, random: &mut Random, scenery: &mut Scenery) {
    let distance = view.nearest() * 5.2;
    let scale = view.scale(distance);
    let base = view.project(0.0, 0.0, distance).1;
    let mut left = -random.between(0.0, 12.0) * scale;
    while left < view.width {
        let right = left + random.between(7.0, 22.0) * scale;
        if random.chance(0.72) {
            let storeys = 2 + random.next_u64() % 4;
            let wall = random.pick(&[
                Paint::rgb(158, 132, 112),
                Paint::rgb(172, 168, 158),
                Paint::rgb(136, 98, 82),
                Paint::rgb(120, 124, 132),
                Paint::rgb(190, 178, 142),
            ]);
            let top = base - (storeys as f32 * 3.0 + 1.0) * scale;
            rectangle(scenery, [left, top, right, base], wall.grain(15));
            rectangle(scenery, [left, top, right, top + 0.4 * scale], wall.lighter(-40));
            for storey in 0..storeys {
                let sill = base - (storey as f32 * 3.0 + 0.9) * scale;
                let mut window = left + 0.8 * scale;
                while window + 1.3 * scale < right {
                    let lit = random.chance(0.2);
                    let glass = if lit { Paint::rgb(226, 208, 150) } else { Paint::rgb(52, 62, 74) };
                    rectangle(scenery, [window, sill - 1.4 * scale, window + 1.2 * scale, sill], glass);
                    rectangle(
                        scenery,
                        [window, sill, window + 1.2 * scale, sill + 0.2 * scale],
                        wall.lighter(26),
                    );
                    window += 2.4 * scale;
                }
            }
        }
        left = right + random.between(0.0, 6.0) * scale;
    }
}

fn puddles(view: &View, roads: &[Line], random: &mut Random, scenery: &mut Scenery) {
    for _ in 0..random.next_u64() % 5 {
        let road = random.pick(roads);
        let (x, z) = road.at(random.between(-10.0, 10.0), random.between(-3.0, 3.0));
        if z > view.nearest() * 0.9 {
            let at = view.project(x, 0.0, z);
            let scale = view.scale(z);
            let across = random.between(0.5, 1.2) * scale;
            ellipse(scenery, at, (across, across * 0.22), Paint::rgb(120, 130, 142).grain(3));
        }
    }
}

fn tree(view: &View, (x, z): (f32, f32), random: &mut Random, scenery: &mut Scenery) {
    let (scale, (px, py)) = (view.scale(z), view.project(x, 0.0, z));
    let height = random.between(3.4, 6.5) * scale;
    let trunk = random.between(0.12, 0.22) * scale;
    limb(scenery, (px, py), (px, py - height * 0.6), (trunk, trunk * 0.7), Paint::rgb(84, 66, 50).grain(15));
    let leaves = random.pick(&[Paint::rgb(62, 92, 48), Paint::rgb(86, 112, 52), Paint::rgb(122, 96, 44)]);
    for _ in 0..26 {
        let centre = (px + random.normal() * 0.16 * height, py - height * random.between(0.55, 1.0));
        let radius = height * random.between(0.06, 0.13);
        let paint = leaves.lighter(random.between(-26.0, 26.0) as i16).grain(31);
        ellipse(scenery, centre, (radius, radius * 0.85), paint);
    }
}

fn pole(view: &View, (x, z): (f32, f32), random: &mut Random, scenery: &mut Scenery) {
    let (scale, (px, py)) = (view.scale(z), view.project(x, 0.0, z));
    let height = random.between(3.0, 6.0) * scale;
    let half = (0.07 * scale).max(0.8);
    let metal = Paint::rgb(112, 114, 116);
    rectangle(scenery, [px - half, py - height, px + half, py], metal);
    rectangle(scenery, [px - half, py - height, px, py], metal.lighter(24));
    match random.next_u64() % 3 {
        0 => {
            let sign = Paint::rgb(176, 40, 36);
            ellipse(scenery, (px, py - height), (0.4 * scale, 0.4 * scale), sign);
            ellipse(scenery, (px, py - height), (0.28 * scale, 0.28 * scale), Paint::rgb(216, 214, 208));
        }
        1 => {
            let side = random.pick(&[-1.0, 1.0]);
            limb(
                scenery,
                (px, py - height),
                (px + side * 1.2 * scale, py - height * 1.06),
                (half, half),
                metal,
            );
        }
        _ => rectangle(
            scenery,
            [px - 0.5 * scale, py - height, px + 0.5 * scale, py - height + 0.7 * scale],
            Paint::rgb(44, 84, 148),
        ),
    }
}

fn crate_box(view: &View, (x, z): (f32, f32), random: &mut Random, scenery: &mut Scenery) {
    let (scale, (px, py)) = (view.scale(z), view.project(x, 0.0, z));
    let (half, height) = (random.between(0.3, 0.7) * scale, random.between(0.5, 1.3) * scale);
    let paint = random.pick(&[Paint::rgb(92, 108, 72), Paint::rgb(128, 96, 62), Paint::rgb(72, 84, 98)]);
    rectangle(scenery, [px - half, py - height, px + half, py], paint.grain(15));
    let lid = half * 0.35;
    let top = [
        (px - half, py - height),
        (px + half, py - height),
        (px + half - lid * 0.5, py - height - lid),
        (px - half + lid * 0.5, py - height - lid),
    ];
    polygon(scenery, &top, paint.lighter(30));
    let slats = 2 + grain(px as i32, py as i32, 3) % 3;
    for slat in 1..slats {
        let y = py - height * slat as f32 / slats as f32;
        rectangle(scenery, [px - half, y, px + half, y + (0.05 * scale).max(1.0)], paint.lighter(-30));
    }
}
