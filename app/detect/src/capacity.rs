//! How many pictures the backend manages, and which cameras fit into that.
//!
//! Cameras are admitted in the order of the configuration: those that stand first are the ones that matter most, and
//! a camera that does not fit never takes away from one before it. The estimate is the median time of a picture alone;
//! batches only improve on it. The part of the time that is left over (a fifth by default) is for what measuring at
//! start cannot see: other cameras' decoders, the upload, heat.

use std::fmt;
use std::time::Duration;

/// Share of the detector thread's time that cameras may book.
pub const DEFAULT_BUDGET: f64 = 0.8;

/// Times of calls with one number of pictures, per picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchCost {
    pub batch: usize,
    pub p50: Duration,
    pub p95: Duration,
    /// Calls that were measured.
    pub rounds: usize,
}

impl BatchCost {
    /// From the times of whole calls; absent without any.
    pub fn of(batch: usize, calls: &mut [Duration]) -> Option<BatchCost> {
        calls.sort_unstable();
        let pictures = u32::try_from(batch).ok().filter(|&batch| batch > 0)?;
        let at =
            |share: usize| calls.get(calls.len() * share / 100).or(calls.last()).map(|time| *time / pictures);
        Some(BatchCost { batch, p50: at(50)?, p95: at(95)?, rounds: calls.len() })
    }
}

/// What a picture costs, from the decoded picture to its boxes.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// By growing batch; the first is for one picture.
    pub by_batch: Vec<BatchCost>,
    /// Pixels of the model's input.
    pub input: (usize, usize),
}

impl Measured {
    /// Median time of one picture alone.
    pub fn picture(&self) -> Duration {
        self.by_batch.first().map_or(Duration::ZERO, |cost| cost.p50)
    }
}

/// What one camera wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Demand<'a> {
    pub id: &'a str,
    /// Detections a second.
    pub fps: f64,
    /// What one of its pictures costs: cameras may have models of different sizes.
    pub measured: &'a Measured,
}

/// A camera that does not fit, and what would.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    pub id: String,
    pub fps: f64,
    /// Share of the budgeted time that it asks for, and that was left when it came to its turn.
    pub wants: f64,
    pub left: f64,
    /// Rate at which it would fit, rounded down to a tenth; absent when below one in ten seconds.
    pub fits_at_fps: Option<f64>,
    /// Input size of the model (width, height) with which all cameras up to this one would fit at their rates, when
    /// time goes with pixels; absent when that would be too small to see anything.
    pub fits_at_input: Option<(usize, usize)>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Admission {
    /// Cameras that fit, with the share of the thread's time that each takes.
    pub admitted: Vec<(String, f64)>,
    pub refused: Vec<Refused>,
    /// Sum of the admitted shares.
    pub load: f64,
    pub budget: f64,
}

/// Smallest height of an input that is ever proposed, pixels.
const MIN_PROPOSED_SIDE: usize = 96;

/// Decides which cameras fit. `budget` is a share of one thread's time, above 0.0.
pub fn admit(cameras: &[Demand<'_>], budget: f64) -> Admission {
    let mut admission = Admission { budget, ..Admission::default() };
    for Demand { id, fps, measured } in cameras {
        let picture_s = measured.picture().as_secs_f64();
        let wants = fps * picture_s;
        let left = (budget - admission.load).max(0.0);
        // The sum of shares that fill the budget exactly may miss it by a rounding.
        if wants <= left + 1e-9 {
            admission.load += wants;
            admission.admitted.push(((*id).to_owned(), wants));
            continue;
        }
        let fits_fps = (left / picture_s * 10.0 + 1e-6).floor() / 10.0;
        admission.refused.push(Refused {
            id: (*id).to_owned(),
            fps: *fps,
            wants,
            left,
            fits_at_fps: (fits_fps >= 0.1).then_some(fits_fps),
            fits_at_input: smaller(measured.input, budget / (admission.load + wants)),
        });
    }
    admission
}

/// `input` shrunk to `share` of its pixels, in steps of 32 as detectors want it.
fn smaller((width, height): (usize, usize), share: f64) -> Option<(usize, usize)> {
    (1..width / 32)
        .rev()
        .map(|steps| {
            let new_width = steps * 32;
            // Keeps the shape, to the next step of 32.
            (new_width, ((new_width * height).div_ceil(width)).div_ceil(32) * 32)
        })
        .find(|&(new_width, new_height)| {
            let pixels = |width: usize, height: usize| as_f64(width) * as_f64(height);
            pixels(new_width, new_height) <= pixels(width, height) * share
        })
        .filter(|&(width, height)| width.min(height) >= MIN_PROPOSED_SIDE)
}

fn as_f64(size: usize) -> f64 {
    u32::try_from(size).map_or(f64::MAX, f64::from)
}

impl Refused {
    /// What it asks for, and what is left.
    pub fn found(&self) -> String {
        let Refused { id, fps, wants, left, .. } = self;
        format!(
            "camera {id}: detection at {fps} fps takes {:.0} % of the detector's time, {:.0} % are left",
            wants * 100.0,
            left * 100.0
        )
    }

    /// What would fit.
    pub fn fix(&self) -> String {
        let rate = self.fits_at_fps.map_or_else(
            || "it fits at no rate beside the cameras before it".to_owned(),
            |fps| format!("it would fit at {fps} fps"),
        );
        let input = self.fits_at_input.map_or_else(String::new, |(width, height)| {
            format!(", or with a model of {width}x{height} input")
        });
        format!("{rate}{input}, or with a smaller model or a faster backend")
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.found(), self.fix())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(picture_ms: u64) -> Measured {
        let time = Duration::from_millis(picture_ms);
        let cost = BatchCost { batch: 1, p50: time, p95: time * 2, rounds: 20 };
        Measured { by_batch: vec![cost], input: (640, 384) }
    }

    fn demands<'a>(measured: &'a Measured, rates: &[f64]) -> Vec<Demand<'a>> {
        let ids = ["cam0", "cam1", "cam2", "cam3"];
        ids.into_iter().zip(rates).map(|(id, &fps)| Demand { id, fps, measured }).collect()
    }

    #[test]
    fn cameras_fit_in_the_order_of_the_configuration() {
        let check = |picture_ms: u64, rates: &[f64], admitted: &[&str], fits: &[Option<f64>]| {
            let found = admit(&demands(&measured(picture_ms), rates), 0.8);
            let ids: Vec<&str> = found.admitted.iter().map(|(id, _)| id.as_str()).collect();
            assert_eq!(ids, admitted, "{picture_ms} ms, {rates:?}");
            let rates: Vec<Option<f64>> = found.refused.iter().map(|refused| refused.fits_at_fps).collect();
            assert_eq!(rates, fits, "{picture_ms} ms");
            assert!(found.load <= 0.8 + 1e-6);
        };
        check(5, &[5.0, 5.0, 5.0, 5.0], &["cam0", "cam1", "cam2", "cam3"], &[]);
        // Exactly full.
        check(20, &[10.0, 10.0, 10.0, 10.0], &["cam0", "cam1", "cam2", "cam3"], &[]);
        check(50, &[10.0, 10.0], &["cam0"], &[Some(6.0)]);
        // A camera that does not fit leaves its place to a smaller one behind it.
        check(50, &[10.0, 10.0, 5.0], &["cam0", "cam2"], &[Some(6.0)]);
        check(100, &[8.0, 1.0], &["cam0"], &[None]);
        check(2_000, &[1.0], &[], &[Some(0.4)]);
        check(0, &[1000.0], &["cam0"], &[]);
        check(5, &[], &[], &[]);
    }

    #[test]
    fn each_camera_costs_what_its_own_model_does() {
        let (small, large) = (measured(20), measured(50));
        let demand = |id, measured| Demand { id, fps: 10.0, measured };
        let found = admit(&[demand("a", &large), demand("b", &small), demand("c", &large)], 0.8);
        let shares: Vec<_> = found.admitted.iter().map(|(id, share)| (id.as_str(), *share)).collect();
        assert_eq!(shares, [("a", 0.5), ("b", 0.2)]);
        assert_eq!(found.refused[0].fits_at_fps, Some(2.0));
    }

    #[test]
    fn a_smaller_input_is_proposed_with_its_shape_kept() {
        let check =
            |share: f64, expected: Option<(usize, usize)>| assert_eq!(smaller((640, 384), share), expected);
        check(0.99, Some((608, 384)));
        check(0.5, Some((416, 256)));
        check(0.25, Some((320, 192)));
        check(0.01, None);
    }

    #[test]
    fn the_refusal_says_what_would_fit() {
        let found = admit(&demands(&measured(50), &[10.0, 10.0]), 0.8);
        assert_eq!(
            found.refused[0].to_string(),
            "camera cam1: detection at 10 fps takes 50 % of the detector's time, 30 % are left; it would fit at 6 fps, \
             or with a model of 544x352 input, or with a smaller model or a faster backend"
        );
    }

    #[test]
    fn times_become_times_of_a_picture() {
        let mut calls: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        let cost = BatchCost::of(2, &mut calls).unwrap();
        assert_eq!((cost.p50, cost.p95), (Duration::from_micros(25_500), Duration::from_micros(48_000)));
        assert_eq!(BatchCost::of(1, &mut []), None);
    }
}
