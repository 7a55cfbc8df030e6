//! Where a box is, how fast it moves, and how sure that is.
//!
//! A Kalman filter for each coordinate on its own: the usual 8 x 8 filter of box trackers has no noise that couples
//! the coordinates, so it is these four, without a matrix. The centre moves with constant velocity and random
//! acceleration; width and height only drift, because a size that is extrapolated through an occlusion soon is
//! nonsense. All noise is in parts of the box's own size (the root of its area), so near and far objects are treated
//! alike, and in real seconds, so any frame rate is.

use crate::{Point, Rect};

/// Standard deviations in sizes of the box. Chosen for walking people and urban traffic seen at 2 to 30 pictures a
/// second: a person walks at about 1 size a second and starts or stops within a second. Boxes are far steadier than
/// `CENTRE_NOISE` while nothing is in front of them; but what comes in front moves their centre, and a filter that takes
/// that for speed goes astray: 0.06 costs 0.02 of IDF1 in camera-sim's scenes, an acceleration of 1.5 costs 0.01.
const START_SPEED: f64 = 2.0; // per second, of an object seen for the first time
const ACCELERATION: f64 = 1.0; // white, per s^1.5
const CENTRE_NOISE: f64 = 0.15; // of one box that the detector is sure of
const SIZE_NOISE: f64 = 0.08;
const SIZE_DRIFT: f64 = 0.2; // per root of a second
/// Boxes with a low score are partly hidden or blurred.
const UNSURE_FACTOR: f64 = 2.0;

/// Least size that is reckoned with; some 4 samples of a 720p picture.
const LEAST_SIZE: f64 = 0.005;

/// Place and speed on one axis; variances and the covariance between them.
#[derive(Clone, Copy, Debug)]
struct Moving {
    at: f64,
    speed: f64,
    var_at: f64,
    cov: f64,
    var_speed: f64,
}

impl Moving {
    fn predict(&mut self, seconds: f64, acceleration: f64) {
        let t = seconds;
        self.at += self.speed * t;
        self.var_at += 2.0 * t * self.cov + t * t * self.var_speed + acceleration * t * t * t / 3.0;
        self.cov += t * self.var_speed + acceleration * t * t / 2.0;
        self.var_speed += acceleration * t;
    }

    fn correct(&mut self, found: f64, noise: f64) {
        let gain = self.var_at / (self.var_at + noise);
        let speed_gain = self.cov / (self.var_at + noise);
        let off = found - self.at;
        self.at += gain * off;
        self.speed += speed_gain * off;
        self.var_speed -= speed_gain * self.cov;
        self.var_at *= 1.0 - gain;
        self.cov *= 1.0 - gain;
    }
}

/// A length that changes slowly.
#[derive(Clone, Copy, Debug)]
struct Drifting {
    length: f64,
    var: f64,
}

impl Drifting {
    fn correct(&mut self, found: f64, noise: f64) {
        let gain = self.var / (self.var + noise);
        self.length += gain * (found - self.length);
        self.var *= 1.0 - gain;
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct BoxFilter {
    x: Moving,
    y: Moving,
    width: Drifting,
    height: Drifting,
}

impl BoxFilter {
    pub(super) fn new(rect: &Rect) -> BoxFilter {
        let size = size_of(f64::from(rect.w), f64::from(rect.h));
        let centre = centre(rect);
        let moving = |at: f64| Moving {
            at,
            speed: 0.0,
            var_at: square(CENTRE_NOISE * size),
            cov: 0.0,
            var_speed: square(START_SPEED * size),
        };
        let drifting = |length: f32| Drifting { length: f64::from(length), var: square(SIZE_NOISE * size) };
        BoxFilter {
            x: moving(centre.0),
            y: moving(centre.1),
            width: drifting(rect.w),
            height: drifting(rect.h),
        }
    }

    pub(super) fn predict(&mut self, seconds: f64) {
        let size = self.size();
        let acceleration = square(ACCELERATION * size);
        self.x.predict(seconds, acceleration);
        self.y.predict(seconds, acceleration);
        let drift = square(SIZE_DRIFT * size) * seconds;
        self.width.var += drift;
        self.height.var += drift;
    }

    /// `rect` has an area; `sure` tells boxes with a high score.
    pub(super) fn correct(&mut self, rect: &Rect, sure: bool) {
        let size = self.size() * if sure { 1.0 } else { UNSURE_FACTOR };
        let centre = centre(rect);
        let (centre_noise, size_noise) = (square(CENTRE_NOISE * size), square(SIZE_NOISE * size));
        self.x.correct(centre.0, centre_noise);
        self.y.correct(centre.1, centre_noise);
        self.width.correct(f64::from(rect.w), size_noise);
        self.height.correct(f64::from(rect.h), size_noise);
    }

    /// May lie outside the picture.
    #[expect(clippy::cast_possible_truncation, reason = "parts of the picture need no f64")]
    pub(super) fn rect(&self) -> Rect {
        let (w, h) = (self.width.length, self.height.length);
        Rect { x: (self.x.at - w / 2.0) as f32, y: (self.y.at - h / 2.0) as f32, w: w as f32, h: h as f32 }
    }

    /// Parts of the picture a second.
    #[expect(clippy::cast_possible_truncation, reason = "parts of the picture need no f64")]
    pub(super) fn velocity(&self) -> Point {
        Point { x: self.x.speed as f32, y: self.y.speed as f32 }
    }

    /// Standard deviation of the centre, in sizes of the box; the larger one of both axes.
    pub(super) fn doubt(&self) -> f64 {
        self.x.var_at.max(self.y.var_at).sqrt() / self.size()
    }

    pub(super) fn size(&self) -> f64 {
        size_of(self.width.length, self.height.length)
    }
}

fn centre(rect: &Rect) -> (f64, f64) {
    let middle = |from: f32, length: f32| f64::from(from) + f64::from(length) / 2.0;
    (middle(rect.x, rect.w), middle(rect.y, rect.h))
}

fn size_of(w: f64, h: f64) -> f64 {
    (w * h).max(0.0).sqrt().max(LEAST_SIZE)
}

fn square(value: f64) -> f64 {
    value * value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(x: f64) -> Rect {
        #[expect(clippy::cast_possible_truncation, reason = "test data")]
        let x = x as f32;
        Rect { x, y: 0.4, w: 0.05, h: 0.1 }
    }

    #[test]
    fn speed_is_learnt_at_any_frame_rate() {
        for (fps, pictures) in [(2.0, 6), (5.0, 10), (30.0, 30)] {
            let mut filter = BoxFilter::new(&at(0.1));
            for n in 1..pictures {
                filter.predict(1.0 / fps);
                filter.correct(&at(0.1 + 0.1 * f64::from(n) / fps), true);
            }
            let Point { x, y } = filter.velocity();
            assert!((x - 0.1).abs() < 0.01 && y.abs() < 0.01, "{fps} fps: {x} {y}");
        }
    }

    #[test]
    fn doubt_grows_unseen_and_falls_when_seen() {
        let mut filter = BoxFilter::new(&at(0.1));
        filter.predict(0.1);
        filter.correct(&at(0.1), true);
        let seen = filter.doubt();
        filter.predict(0.5);
        let unseen = filter.doubt();
        filter.correct(&at(0.1), false);
        assert!(
            seen < CENTRE_NOISE && unseen > 0.4 && filter.doubt() < UNSURE_FACTOR * CENTRE_NOISE,
            "{seen} {unseen} {}",
            filter.doubt()
        );
    }

    proptest! {
        /// One long step says the same as many short ones.
        #[test]
        fn prediction_does_not_depend_on_the_steps(steps in 1..50_u32, seconds in 0.0..3.0_f64) {
            let mut start = BoxFilter::new(&at(0.1));
            start.predict(0.2);
            start.correct(&at(0.12), true);
            let (mut once, mut often) = (start, start);
            once.predict(seconds);
            for _ in 0..steps {
                often.predict(seconds / f64::from(steps));
            }
            prop_assert!((once.doubt() - often.doubt()).abs() < 1e-6);
            prop_assert!((once.rect().x - often.rect().x).abs() < 1e-6);
        }
    }
}
