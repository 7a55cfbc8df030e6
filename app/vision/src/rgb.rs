//! Pictures as red, green and blue, for what people look at: snapshots, best shots, annotated video.
//!
//! Same arithmetic as the detector's input (`letterbox`), so that a snapshot shows what the detector saw.

use crate::letterbox::{content, scaler::Scaler};
use crate::picture::MAX_SIDE;
use crate::{Picture, Rect};

/// Rows from top to bottom without gaps, three bytes a pixel: red, green, blue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rgb {
    pub width: usize,
    pub height: usize,
    /// 3 * `width` * `height`.
    pub bytes: Vec<u8>,
}

impl Rgb {
    /// All black.
    pub fn new(width: usize, height: usize) -> Rgb {
        Rgb { width, height, bytes: vec![0; 3 * width * height] }
    }

    /// Panics beyond the picture.
    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        assert!(x < self.width, "column {x} of {}", self.width);
        let at = 3 * (y * self.width + x);
        [self.bytes[at], self.bytes[at + 1], self.bytes[at + 2]]
    }
}

/// Which of the three bytes of a pixel comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Red, green, blue.
    #[default]
    Rgb,
    /// Blue, green, red, as OpenCV has it.
    Bgr,
}

/// Makes pictures of one size from pictures of another, many times. Keeps its tables and buffers.
#[derive(Clone, Debug)]
pub struct Resizer {
    to: (usize, usize),
    order: Order,
    /// For pictures of the size that came last.
    scaler: Option<Scaler>,
    channels: [Vec<f32>; 3],
}

impl Resizer {
    /// Sides are pixels, taken as 1..=8192.
    pub fn new(width: usize, height: usize) -> Resizer {
        let to = (width.clamp(1, MAX_SIDE), height.clamp(1, MAX_SIDE));
        let channels = std::array::from_fn(|_| vec![0.0; to.0]);
        Resizer { to, order: Order::Rgb, scaler: None, channels }
    }

    /// Bytes of each pixel come in this order; red first otherwise.
    #[must_use]
    pub fn in_order(mut self, order: Order) -> Resizer {
        self.order = order;
        self
    }

    /// Fills `out`, which takes this size; its memory is used again. The shape of the picture is not kept.
    pub fn fill(&mut self, picture: &Picture<'_>, out: &mut Rgb) {
        let from = (picture.width, picture.height);
        if self.scaler.as_ref().is_some_and(|scaler| scaler.from() != from) {
            self.scaler = None;
        }
        let scaler = self.scaler.get_or_insert_with(|| Scaler::new(from, self.to));
        let (width, height) = self.to;
        (out.width, out.height) = (width, height);
        out.bytes.resize(3 * width * height, 0);
        let (channels, order) = (&mut self.channels, self.order);
        scaler.rows(picture, 255.0, |y, row| {
            row.write_u8(order, channels, &mut out.bytes[3 * y * width..3 * (y + 1) * width]);
        });
    }
}

/// The picture at this size, each side 1..=8192 pixels, whatever its shape.
pub fn resize(picture: &Picture<'_>, width: usize, height: usize) -> Rgb {
    let mut out = Rgb::default();
    Resizer::new(width, height).fill(picture, &mut out);
    out
}

/// The picture in its shape, as large as it is or as large as fits; never enlarged.
pub fn fit(picture: &Picture<'_>, max_width: usize, max_height: usize) -> Rgb {
    let from = (picture.width, picture.height);
    let into = (max_width.clamp(1, MAX_SIDE), max_height.clamp(1, MAX_SIDE));
    let (width, height) = if from.0 <= into.0 && from.1 <= into.1 { from } else { content(from, into) };
    resize(picture, width, height)
}

/// The part of the picture that `rect` touches, as `fit` returns it. See `Picture::crop` for its edges.
pub fn crop(picture: &Picture<'_>, rect: Rect, max_width: usize, max_height: usize) -> Rgb {
    fit(&picture.crop(rect), max_width, max_height)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Colour, Matrix, Plane, Planes};

    const COLOUR: Colour = Colour { matrix: Matrix::Bt601, full_range: true };

    /// Luma is the column plus three times the row; chroma is grey, apart from one block that is red.
    fn with_picture(width: usize, height: usize, nv12: bool, run: impl FnOnce(Picture<'_>)) {
        let luma: Vec<u8> = (0..width * height)
            .map(|at| u8::try_from((at % width + 3 * (at / width)) % 256).unwrap())
            .collect();
        let half = (width.div_ceil(2), height.div_ceil(2));
        let mut u = vec![128; half.0 * half.1];
        let mut v = u.clone();
        (u[0], v[0]) = (85, 255);
        let uv: Vec<u8> = u.iter().zip(&v).flat_map(|(&u, &v)| [u, v]).collect();
        let plane = |bytes, stride| Plane { bytes, stride };
        let y = plane(&luma, width);
        let planes = if nv12 {
            Planes::Nv12 { y, uv: plane(&uv, 2 * half.0) }
        } else {
            Planes::I420 { y, u: plane(&u, half.0), v: plane(&v, half.0) }
        };
        run(Picture::new(width, height, planes, COLOUR).unwrap());
    }

    #[test]
    fn a_picture_of_its_own_size_keeps_every_sample() {
        for nv12 in [false, true] {
            with_picture(31, 21, nv12, |picture| {
                let rgb = fit(&picture, 1000, 1000);
                assert_eq!((rgb.width, rgb.height, rgb.bytes.len()), (31, 21, 3 * 31 * 21));
                assert_eq!(rgb.pixel(1, 1), [182, 0, 0]); // luma 4; u -43, v 127
                assert_eq!(rgb.pixel(2, 1), [5; 3]);
                assert_eq!(rgb.pixel(30, 20), [90; 3]);
            });
        }
    }

    #[test]
    fn the_other_order_is_the_same_picture_with_blue_first() {
        with_picture(33, 20, true, |picture| {
            let (red_first, mut blue_first) = (resize(&picture, 33, 20), Rgb::default());
            Resizer::new(33, 20).in_order(Order::Bgr).fill(&picture, &mut blue_first);
            assert_ne!(blue_first, red_first);
            for pixel in blue_first.bytes.as_chunks_mut::<3>().0 {
                pixel.reverse();
            }
            assert_eq!(blue_first, red_first);
        });
    }

    #[test]
    fn a_crop_is_the_part_that_the_box_touches() {
        let check = |nv12: bool, rect: [f32; 4], size: (usize, usize), first: usize| {
            with_picture(40, 20, nv12, |picture| {
                let [x, y, w, h] = rect;
                let rgb = crop(&picture, Rect { x, y, w, h }, 1000, 1000);
                assert_eq!((rgb.width, rgb.height), size, "{rect:?}");
                let luma = if first == 0 { 178 } else { u8::try_from(first).unwrap() };
                assert_eq!(rgb.pixel(0, 0)[0], luma, "{rect:?}");
            });
        };
        for nv12 in [false, true] {
            check(nv12, [0.0, 0.0, 1.0, 1.0], (40, 20), 0);
            check(nv12, [0.25, 0.5, 0.5, 0.25], (20, 5), 10 + 30);
            check(nv12, [0.28, 0.56, 0.2, 0.1], (10, 4), 10 + 30); // pixels 11.2 and 11.2: from 10 on
            check(nv12, [0.99, 0.99, 0.5, 0.5], (2, 2), 38 + 54);
            check(nv12, [2.0, 2.0, 1.0, 1.0], (2, 2), 38 + 54);
            check(nv12, [-1.0, -1.0, 0.5, 0.5], (1, 1), 0);
            check(nv12, [f32::NAN, 0.0, f32::INFINITY, 0.1], (1, 2), 0);
        }
    }

    #[test]
    fn what_is_too_large_is_made_smaller_in_its_shape() {
        let check = |from: (usize, usize), max: (usize, usize), expected: (usize, usize)| {
            with_picture(from.0, from.1, false, |picture| {
                let rgb = fit(&picture, max.0, max.1);
                assert_eq!((rgb.width, rgb.height), expected, "{from:?} into {max:?}");
                assert_eq!(rgb.bytes.len(), 3 * expected.0 * expected.1);
            });
        };
        check((192, 108), (64, 64), (64, 36));
        check((108, 192), (64, 64), (36, 64));
        check((192, 108), (192, 108), (192, 108));
        check((192, 108), (500, 54), (96, 54));
        check((192, 2), (64, 64), (64, 1));
        check((9, 9), (0, 0), (1, 1));
    }

    #[test]
    fn a_resizer_takes_pictures_of_changing_size() {
        let mut resizer = Resizer::new(16, 12);
        let mut out = Rgb::default();
        for size in [(32, 24), (5, 3), (33, 25)] {
            with_picture(size.0, size.1, true, |picture| {
                resizer.fill(&picture, &mut out);
                assert_eq!(out, resize(&picture, 16, 12));
            });
        }
    }

    proptest! {
        #[test]
        fn a_crop_equals_the_same_part_of_the_whole(
            size in (1..60_usize, 1..60_usize),
            nv12: bool,
            rect in (-0.2..1.2_f32, -0.2..1.2_f32, 0.0..1.2_f32, 0.0..1.2_f32),
        ) {
            with_picture(size.0, size.1, nv12, |picture| {
                let rect = Rect { x: rect.0, y: rect.1, w: rect.2, h: rect.3 };
                let (whole, part) = (fit(&picture, 100, 100), crop(&picture, rect, 100, 100));
                let even = |begin: f32, side: usize| {
                    (0..side).rev().find(|at| at % 2 == 0 && *at as f32 <= begin * side as f32).unwrap_or(0)
                };
                let (left, top) = (even(rect.x, size.0), even(rect.y, size.1));
                for (x, y) in (0..part.height).flat_map(|y| (0..part.width).map(move |x| (x, y))) {
                    assert_eq!(part.pixel(x, y), whole.pixel(left + x, top + y));
                }
            });
        }
    }
}
