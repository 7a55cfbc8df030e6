//! Does anything move in the picture? Cheap enough for every picture, so that the detector can rest when nothing does.
//!
//! Luma is averaged over a coarse grid of cells (some rows of each) and compared with a background that follows slow
//! changes. What is not motion, and how it is told:
//!
//! * Exposure and gain, a lamp, a cloud: all cells change by the same rule. The rule (factor and offset) is fitted over
//!   the cells that follow it, and taken out.
//! * A switch between day and night, a camera that was turned: most cells change without a rule. The background is
//!   taken anew.
//! * Something left behind or taken away: cells that stay as they are for a while become background.
//! * Noise: single cells do not count, and one picture alone turns nothing on.

use media::ProducerTimestamp;

use crate::{Picture, Rect};

/// What is motion. Times are milliseconds of producer time.
#[derive(Clone, Debug, PartialEq)]
pub struct MotionConfig {
    /// A cell has changed by more than this many levels of luma, of 255.
    pub threshold: f32,
    /// Something moves when changed cells (with changed neighbours) cover this part of the picture, 0.0..=1.0.
    pub min_area: f32,
    /// Nothing moves after this long without.
    pub off_after_ms: u64,
}

impl Default for MotionConfig {
    fn default() -> MotionConfig {
        // 0.2 % of the picture: a person of a tenth of its height.
        MotionConfig { threshold: 8.0, min_area: 0.002, off_after_ms: 5_000 }
    }
}

const COLUMNS: usize = 64;
const ROWS: usize = 36;
/// Rows of luma that are read per row of cells.
const SAMPLED_ROWS: usize = 4;
/// The background follows calm cells with this time constant.
const CALM_MS: f32 = 5_000.0;
/// A changed cell that stays as it is for this long becomes background.
const SETTLED_MS: f32 = 5_000.0;
/// With more changed cells than this part it is another scene.
const OTHER_SCENE: f32 = 0.6;
/// After a longer gap the background says nothing.
const GAP_MS: u64 = 30_000;
const ON_PICTURES: u32 = 2;

/// Watches one camera.
#[derive(Clone, Debug)]
pub struct Motion {
    config: MotionConfig,
    /// Of the pictures compared so far: width, height, time.
    last: Option<(usize, usize, ProducerTimestamp)>,
    columns: usize,
    rows: usize,
    /// Mean luma by cell, rows of cells from the top; all of the same length.
    now: Vec<f32>,
    background: Vec<f32>,
    /// Where a changed cell has come to rest, and for how long it has been there.
    resting: Vec<(f32, f32)>,
    changed: Vec<bool>,
    scratch: Vec<f32>,
    moved_pictures: u32,
    moved_at: Option<ProducerTimestamp>,
    moving: bool,
    region: Option<Rect>,
}

impl Motion {
    pub fn new(config: MotionConfig) -> Motion {
        Motion {
            config,
            last: None,
            columns: 0,
            rows: 0,
            now: Vec::new(),
            background: Vec::new(),
            resting: Vec::new(),
            changed: Vec::new(),
            scratch: Vec::new(),
            moved_pictures: 0,
            moved_at: None,
            moving: false,
            region: None,
        }
    }

    /// Takes one picture; whether [`Motion::is_moving`] has changed. Another picture size, a long gap and time that
    /// runs back make a new start, with nothing moving. No allocation once the size is known.
    pub fn update(&mut self, at: ProducerTimestamp, picture: &Picture<'_>) -> bool {
        let was = self.moving;
        let size = (picture.width, picture.height);
        let elapsed_ms = self.last.and_then(|(width, height, last)| {
            let ms = at.checked_ms_since(last).filter(|ms| *ms <= GAP_MS)?;
            ((width, height) == size).then_some(ms)
        });
        self.last = Some((picture.width, picture.height, at));
        let Some(elapsed_ms) = elapsed_ms else {
            self.start(picture);
            return was;
        };
        self.average(picture);
        self.compare(elapsed_ms as f32);
        let cells = self.cells_together();
        let moved = cells > 0 && cells as f32 >= self.config.min_area * self.now.len() as f32;
        if moved {
            self.moved_pictures = self.moved_pictures.saturating_add(1);
            self.moved_at = Some(at);
            self.moving |= self.moved_pictures >= ON_PICTURES;
        } else {
            self.moved_pictures = 0;
            self.region = None;
            let still_ms = self.moved_at.and_then(|moved_at| at.checked_ms_since(moved_at));
            self.moving &= still_ms.is_some_and(|ms| ms < self.config.off_after_ms);
        }
        self.moving != was
    }

    pub fn is_moving(&self) -> bool {
        self.moving
    }

    /// Around all that moved in the last picture, to the next cell (1/64 of the width, 1/36 of the height).
    pub fn region(&self) -> Option<Rect> {
        self.region
    }

    fn start(&mut self, picture: &Picture<'_>) {
        (self.columns, self.rows) = (picture.width.min(COLUMNS), picture.height.min(ROWS));
        let cells = self.columns * self.rows;
        self.now.resize(cells, 0.0);
        self.background.resize(cells, 0.0);
        self.resting.resize(cells, (0.0, 0.0));
        self.changed.resize(cells, false);
        self.average(picture);
        self.rebase();
        (self.moved_pictures, self.moved_at, self.moving, self.region) = (0, None, false, None);
    }

    /// The scene as it is now is the background.
    fn rebase(&mut self) {
        self.background.copy_from_slice(&self.now);
        self.resting.fill((0.0, 0.0));
        self.changed.fill(false);
    }

    fn average(&mut self, picture: &Picture<'_>) {
        let luma = picture.luma();
        for row in 0..self.rows {
            let (top, bottom) = (row * picture.height / self.rows, (row + 1) * picture.height / self.rows);
            let sampled = (bottom - top).min(SAMPLED_ROWS);
            let cells = &mut self.now[row * self.columns..][..self.columns];
            cells.fill(0.0);
            for n in 0..sampled {
                let samples = luma.row(top + n * (bottom - top) / sampled, picture.width);
                for (column, cell) in cells.iter_mut().enumerate() {
                    let (left, right) =
                        (column * picture.width / self.columns, (column + 1) * picture.width / self.columns);
                    let sum: u32 = samples[left..right].iter().map(|sample| u32::from(*sample)).sum();
                    *cell += sum as f32 / ((right - left) * sampled) as f32;
                }
            }
        }
    }

    /// Marks the changed cells and lets the background follow.
    fn compare(&mut self, elapsed_ms: f32) {
        let threshold = self.config.threshold;
        let (factor, offset) = self.fit();
        let mut count = 0;
        for (n, changed) in self.changed.iter_mut().enumerate() {
            *changed = (self.now[n] - (factor * self.background[n] + offset)).abs() > threshold;
            count += usize::from(*changed);
        }
        if count as f32 > OTHER_SCENE * self.now.len() as f32 {
            return self.rebase();
        }
        let share = 1.0 - (-elapsed_ms / CALM_MS).exp();
        for (n, changed) in self.changed.iter().enumerate() {
            let now = self.now[n];
            let (level, rested_ms) = &mut self.resting[n];
            if !changed {
                self.background[n] += share * (now - self.background[n]);
                *rested_ms = 0.0;
            } else if (now - *level).abs() > threshold / 2.0 || *rested_ms == 0.0 {
                (*level, *rested_ms) = (now, elapsed_ms.max(1.0));
            } else {
                *rested_ms += elapsed_ms;
                if *rested_ms >= SETTLED_MS {
                    self.background[n] = now;
                    *rested_ms = 0.0;
                }
            }
        }
    }

    /// Factor and offset that make the background most alike to this picture, by the cells that have not changed.
    fn fit(&mut self) -> (f32, f32) {
        // First by the middle of the differences, which half of the cells cannot spoil; then twice by least squares
        // over the cells that are near the fit before.
        self.scratch.clear();
        self.scratch.extend(self.now.iter().zip(&self.background).map(|(now, background)| now - background));
        let middle = self.scratch.len() / 2;
        let (_, shift, _) = self.scratch.select_nth_unstable_by(middle, f32::total_cmp);
        let mut fit = (1.0, *shift);
        for near in [3.0, 1.0] {
            let near = near * self.config.threshold;
            let (mut n, mut x, mut y, mut xx, mut xy) = (0.0_f64, 0.0, 0.0, 0.0, 0.0);
            for (now, background) in self.now.iter().zip(&self.background) {
                if (now - (fit.0 * background + fit.1)).abs() <= near {
                    let (from, to) = (f64::from(*background), f64::from(*now));
                    n += 1.0;
                    x += from;
                    y += to;
                    xx += from * from;
                    xy += from * to;
                }
            }
            let spread = n * xx - x * x;
            // Too few cells, or a plain grey picture, say nothing about a factor.
            if n < 0.3 * self.now.len() as f64 || spread < 4.0 * n * n {
                return fit;
            }
            let factor = ((n * xy - x * y) / spread).clamp(0.5, 2.0);
            #[expect(clippy::cast_possible_truncation, reason = "levels of luma need no f64")]
            let next = (factor as f32, ((y - factor * x) / n) as f32);
            fit = next;
        }
        fit
    }

    /// How many changed cells have a changed neighbour (a side in common); sets the region around them.
    fn cells_together(&mut self) -> usize {
        let (columns, rows) = (self.columns, self.rows);
        let changed = |column: usize, row: usize| self.changed[row * columns + column];
        let (mut left, mut top, mut right, mut bottom) = (columns, rows, 0, 0);
        let mut count = 0;
        for row in 0..rows {
            for column in 0..columns {
                let together = changed(column, row)
                    && ((column > 0 && changed(column - 1, row))
                        || (column + 1 < columns && changed(column + 1, row))
                        || (row > 0 && changed(column, row - 1))
                        || (row + 1 < rows && changed(column, row + 1)));
                if together {
                    count += 1;
                    (left, top) = (left.min(column), top.min(row));
                    (right, bottom) = (right.max(column + 1), bottom.max(row + 1));
                }
            }
        }
        self.region = (count > 0).then(|| Rect {
            x: left as f32 / columns as f32,
            y: top as f32 / rows as f32,
            w: (right - left) as f32 / columns as f32,
            h: (bottom - top) as f32 / rows as f32,
        });
        count
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "test data is small")]
mod tests {
    use super::*;
    use crate::{Colour, Matrix, Plane, Planes};

    const WIDTH: usize = 320;
    const HEIGHT: usize = 180;

    /// A scene with structure and noise; a box may stand in it.
    struct Scene {
        luma: Vec<u8>,
        noise: u32,
    }

    impl Scene {
        fn new() -> Scene {
            Scene { luma: vec![0; WIDTH * HEIGHT], noise: 1 }
        }

        /// `light` changes what the scene says: factor and offset.
        fn draw(&mut self, light: (f32, f32), box_at: Option<(usize, usize)>) {
            for y in 0..HEIGHT {
                for x in 0..WIDTH {
                    let structure = 60.0 + 40.0 * ((x / 20 + y / 15) % 3) as f32 + 0.1 * y as f32;
                    let within = |(left, top): (usize, usize)| {
                        (left..left + 16).contains(&x) && (top..top + 30).contains(&y)
                    };
                    let level = if box_at.is_some_and(within) { 220.0 } else { structure };
                    self.noise = self.noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let noise = (self.noise >> 24) as f32 / 16.0 - 8.0;
                    let sample = (light.0 * level + light.1 + noise).clamp(0.0, 255.0) as u8;
                    self.luma[y * WIDTH + x] = sample;
                }
            }
        }

        fn show(&self, motion: &mut Motion, at: u64) -> bool {
            show(&self.luma, WIDTH, HEIGHT, motion, at)
        }
    }

    fn show(luma: &[u8], width: usize, height: usize, motion: &mut Motion, at: u64) -> bool {
        let chroma = vec![128; width.div_ceil(2) * height.div_ceil(2)];
        let plane = |bytes, stride| Plane { bytes, stride };
        let (y, uv) = (plane(luma, width), plane(&chroma, width.div_ceil(2)));
        let colour = Colour { matrix: Matrix::Bt709, full_range: false };
        let picture = Picture::new(width, height, Planes::I420 { y, u: uv, v: uv }, colour).unwrap();
        motion.update(ProducerTimestamp::from_millis(at), &picture)
    }

    #[test]
    fn something_that_moves_turns_it_on_and_off_later() {
        let (mut scene, mut motion) = (Scene::new(), Motion::new(MotionConfig::default()));
        let mut flips = Vec::new();
        for n in 0..200_u64 {
            let at = (50..100).contains(&n).then_some((20 + 5 * (n.saturating_sub(50)) as usize, 60));
            scene.draw((1.0, 0.0), at);
            if scene.show(&mut motion, 1_000 + n * 100) {
                flips.push((n, motion.is_moving()));
            }
            assert_eq!(motion.region().is_some(), at.is_some(), "at {n}");
            if let (Some(region), Some((left, top))) = (motion.region(), at) {
                let cell = (1.0 / 64.0, 1.0 / 36.0);
                assert!((region.x - left as f32 / WIDTH as f32).abs() <= cell.0, "{region:?} {left}");
                assert!((region.y - top as f32 / HEIGHT as f32).abs() <= cell.1, "{region:?} {top}");
            }
        }
        assert_eq!(flips, [(51, true), (149, false)]);
    }

    #[test]
    fn light_is_not_motion() {
        let check = |name: &str, light: &dyn Fn(u64) -> (f32, f32)| {
            let (mut scene, mut motion) = (Scene::new(), Motion::new(MotionConfig::default()));
            for n in 0..200 {
                scene.draw(light(n), None);
                assert!(!scene.show(&mut motion, n * 100), "{name} at {n}");
            }
            // It still sees something that moves.
            for n in 0..3 {
                scene.draw(light(199), Some((100 + 10 * n, 60)));
                scene.show(&mut motion, 20_000 + n as u64 * 100);
            }
            assert!(motion.is_moving(), "{name}");
        };
        check("the same", &|_| (1.0, 0.0));
        check("sunset", &|n| (1.0 - n as f32 / 400.0, 0.0));
        check("brighter at once", &|n| (1.0, if n < 100 { 0.0 } else { 30.0 }));
        check("more gain at once", &|n| (if n < 100 { 1.0 } else { 1.35 }, 0.0));
        check("exposure that hunts", &|n| (1.0 + 0.15 * (n as f32).sin(), 5.0 * (n as f32).cos()));
        check("other contrast", &|n| if n < 100 { (1.0, 0.0) } else { (0.5, 80.0) });
    }

    #[test]
    fn another_scene_is_not_motion() {
        let (mut scene, mut motion) = (Scene::new(), Motion::new(MotionConfig::default()));
        for n in 0..40 {
            scene.draw((1.0, 0.0), None);
            if n >= 20 {
                scene.luma.reverse();
                scene.luma.iter_mut().for_each(|sample| *sample = 255 - *sample);
            }
            assert!(!scene.show(&mut motion, n * 100), "at {n}");
        }
    }

    #[test]
    fn what_was_left_behind_becomes_background() {
        let (mut scene, mut motion) = (Scene::new(), Motion::new(MotionConfig::default()));
        let mut flips = Vec::new();
        for n in 0..300_u64 {
            scene.draw((1.0, 0.0), (n >= 50).then_some((100, 60)));
            if scene.show(&mut motion, n * 100) {
                flips.push((n, motion.is_moving()));
            }
        }
        let [(51, true), (off, false)] = flips[..] else { panic!("{flips:?}") };
        assert!((140..=160).contains(&off), "{off}");
    }

    #[test]
    fn new_start_after_another_size_a_gap_or_time_that_ran_back() {
        let (mut scene, mut motion) = (Scene::new(), Motion::new(MotionConfig::default()));
        let move_it = |motion: &mut Motion, scene: &mut Scene, from: u64| {
            for n in 0..5 {
                scene.draw((1.0, 0.0), (n > 1).then_some((100 + 10 * n, 60)));
                scene.show(motion, from + n as u64 * 100);
            }
            assert!(motion.is_moving());
        };
        move_it(&mut motion, &mut scene, 100_000);
        assert!(scene.show(&mut motion, 50_000), "time ran back");
        move_it(&mut motion, &mut scene, 50_100);
        assert!(scene.show(&mut motion, 90_000), "a gap");
        move_it(&mut motion, &mut scene, 90_100);
        assert!(show(&scene.luma, WIDTH / 2, HEIGHT, &mut motion, 90_700), "another size");
        assert!(!motion.is_moving() && motion.region().is_none());
        for (width, height) in [(1, 1), (3, 2), (64, 1), (1, 36), (65, 37)] {
            for n in 0..4_u64 {
                let luma = vec![if n % 2 == 0 { 0 } else { 255 }; width * height];
                show(&luma, width, height, &mut motion, 100_000 + n);
            }
        }
    }
}
