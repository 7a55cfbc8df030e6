//! Against a slow reference that is written from the definitions: every result is a sum over all samples.

use proptest::prelude::*;

use super::*;
use crate::{Colour, Matrix, Plane, Planes};

const GREY: f32 = 114.0 / 255.0;

/// A picture with the memory that it lies in. The columns beyond its width hold bytes that must not be seen.
#[derive(Clone, Debug)]
struct Owned {
    width: usize,
    height: usize,
    strides: [usize; 2],
    /// Y, U and V.
    samples: [Vec<u8>; 3],
    nv12: bool,
    colour: Colour,
    bytes: [Vec<u8>; 3],
}

impl Owned {
    /// `sample` gives the bytes of plane 0..=2 at column and row.
    fn new(
        (width, height): (usize, usize),
        nv12: bool,
        colour: Colour,
        mut sample: impl FnMut(usize, usize, usize) -> u8,
    ) -> Owned {
        let half = (width.div_ceil(2), height.div_ceil(2));
        let mut plane = |n: usize, (width, height): (usize, usize)| -> Vec<u8> {
            (0..width * height).map(|at| sample(n, at % width, at / width)).collect()
        };
        let samples = [plane(0, (width, height)), plane(1, half), plane(2, half)];
        let strides = [width + 3, if nv12 { 2 * half.0 + 5 } else { half.0 + 1 }];
        let laid = |rows: usize, stride: usize, row: &dyn Fn(usize) -> Vec<u8>| -> Vec<u8> {
            let mut bytes = Vec::new();
            for y in 0..rows {
                bytes.extend(row(y));
                bytes.resize(if y + 1 == rows { bytes.len() } else { (y + 1) * stride }, 0xAB);
            }
            bytes
        };
        let row = |n: usize, y: usize, width: usize| samples[n][y * width..(y + 1) * width].to_vec();
        let luma = laid(height, strides[0], &|y| row(0, y, width));
        let bytes = if nv12 {
            let pairs = |y: usize| {
                row(1, y, half.0).into_iter().zip(row(2, y, half.0)).flat_map(|(u, v)| [u, v]).collect()
            };
            [luma, laid(half.1, strides[1], &pairs), Vec::new()]
        } else {
            let chroma = |n: usize| laid(half.1, strides[1], &|y| row(n, y, half.0));
            [luma, chroma(1), chroma(2)]
        };
        Owned { width, height, strides, samples, nv12, colour, bytes }
    }

    fn picture(&self) -> Picture<'_> {
        let plane = |n: usize| Plane { bytes: &self.bytes[n], stride: self.strides[n.min(1)] };
        let planes = if self.nv12 {
            Planes::Nv12 { y: plane(0), uv: plane(1) }
        } else {
            Planes::I420 { y: plane(0), u: plane(1), v: plane(2) }
        };
        Picture::new(self.width, self.height, planes, self.colour).unwrap()
    }

    /// Red, green and blue, 0.0..=255.0, of pixel `x`, `y` of this picture at size `to`.
    fn reference(&self, to: (usize, usize), x: usize, y: usize) -> [f64; 3] {
        let ratio = (self.width as f64 / to.0 as f64, self.height as f64 / to.1 as f64);
        let half = (self.width.div_ceil(2), self.height.div_ceil(2));
        let mean = |n: usize, (width, height): (usize, usize), x: usize, y: usize| -> f64 {
            let (across, down) = (weights(width, x, ratio.0), weights(height, y, ratio.1));
            let row = |y: usize| -> f64 {
                across
                    .iter()
                    .enumerate()
                    .map(|(x, weight)| weight * f64::from(self.samples[n][y * width + x]))
                    .sum()
            };
            down.iter()
                .enumerate()
                .filter(|(_, weight)| **weight > 0.0)
                .map(|(y, weight)| weight * row(y))
                .sum()
        };
        let luma = mean(0, (self.width, self.height), x, y);
        rgb(self.colour, [luma, mean(1, half, x / 2, y / 2), mean(2, half, x / 2, y / 2)])
    }
}

/// Part of every sample of a row in result `at`: a tent up to a factor of two, else what is covered.
fn weights(from: usize, at: usize, ratio: f64) -> Vec<f64> {
    let centre = (at as f64 + 0.5) * ratio;
    let weights: Vec<f64> = if ratio < 2.0 {
        let position = (centre - 0.5).clamp(0.0, from as f64 - 1.0);
        (0..from).map(|sample| (1.0 - (sample as f64 - position).abs()).max(0.0)).collect()
    } else {
        let half = ratio.min(16.0) / 2.0;
        let covered = |begin: f64, end: f64| ((centre + half).min(end) - (centre - half).max(begin)).max(0.0);
        (0..from).map(|sample| covered(sample as f64, sample as f64 + 1.0)).collect()
    };
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

/// ITU-R BT.601-7, section 2.5 and BT.709-6, section 3.
fn rgb(colour: Colour, [y, u, v]: [f64; 3]) -> [f64; 3] {
    let (y, u, v) = if colour.full_range {
        (y / 255.0, (u - 128.0) / 255.0, (v - 128.0) / 255.0)
    } else {
        ((y - 16.0) / 219.0, (u - 128.0) / 224.0, (v - 128.0) / 224.0)
    };
    let rgb = match colour.matrix {
        Matrix::Bt601 => [y + 1.402 * v, y - 0.344_136 * u - 0.714_136 * v, y + 1.772 * u],
        Matrix::Bt709 => [y + 1.5748 * v, y - 0.187_324 * u - 0.468_124 * v, y + 1.8556 * u],
    };
    rgb.map(|part| part.clamp(0.0, 1.0) * 255.0)
}

/// Both tensors of one picture, compared with the reference everywhere.
fn check(owned: &Owned, net: (usize, usize)) {
    let mut letterbox = Letterbox::new(owned.width, owned.height, net.0, net.1).unwrap();
    let mut floats = vec![f32::NAN; 3 * net.0 * net.1];
    let mut bytes = vec![1; 3 * net.0 * net.1];
    letterbox.fill_f32(&owned.picture(), &mut floats).unwrap();
    letterbox.fill_u8(&owned.picture(), &mut bytes).unwrap();
    let (width, height) = content((owned.width, owned.height), net);
    assert!(width == net.0 || height == net.1, "{width}x{height} fills neither side");
    let (left, top) = ((net.0 - width) / 2, (net.1 - height) / 2);
    for at in 0..net.0 * net.1 {
        let (x, y) = (at % net.0, at / net.0);
        let float = [0, 1, 2].map(|channel| floats[channel * net.0 * net.1 + at]);
        let byte = [0, 1, 2].map(|channel| bytes[3 * at + channel]);
        if (left..left + width).contains(&x) && (top..top + height).contains(&y) {
            let expected = owned.reference((width, height), x - left, y - top);
            for channel in 0..3 {
                let (float, byte) = (f64::from(float[channel]) * 255.0, f64::from(byte[channel]));
                let where_ = format!("{x}, {y}, channel {channel}: expected {}", expected[channel]);
                assert!((float - expected[channel]).abs() < 0.25, "{where_}, found {float}");
                assert!((byte - expected[channel]).abs() < 0.75, "{where_}, found {byte}");
            }
        } else {
            assert_eq!((float, byte), ([GREY; 3], [114; 3]), "border at {x}, {y}");
        }
    }
}

/// Bytes that look like noise, the same for each seed.
fn noise(seed: u32) -> impl FnMut(usize, usize, usize) -> u8 {
    let mut state = seed | 1;
    move |_, _, _| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        // Full black and white are the hardest.
        match state >> 24 {
            0..64 => 0,
            64..128 => 255,
            value => u8::try_from(value).unwrap(),
        }
    }
}

const BT709: Colour = Colour { matrix: Matrix::Bt709, full_range: false };

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn noise_of_any_size_is_within_a_quarter_of_a_grey_level(
        size in (1..90_usize, 1..60_usize),
        net in (1..40_usize, 1..40_usize),
        nv12: bool,
        bt709: bool,
        full_range: bool,
        seed: u32,
    ) {
        let matrix = if bt709 { Matrix::Bt709 } else { Matrix::Bt601 };
        check(&Owned::new(size, nv12, Colour { matrix, full_range }, noise(seed)), net);
    }

    #[test]
    fn boxes_return_to_where_they_were(
        size in (1..=8192_usize, 1..=8192_usize),
        net in (32..=1280_usize, 32..=1280_usize),
        place in (0.0..1.0_f32, 0.0..1.0_f32, 0.0..1.0_f32, 0.0..1.0_f32),
    ) {
        let letterbox = Letterbox::new(size.0, size.1, net.0, net.1).unwrap();
        let (x, y) = (place.0, place.1);
        let rect = Rect { x, y, w: (1.0 - x) * place.2, h: (1.0 - y) * place.3 };
        let [cx, cy, w, h] = letterbox.to_net(rect);
        let back = letterbox.to_picture(cx, cy, w, h);
        // A float has 24 bits; the picture may be one pixel of a thousand in the tensor.
        for (expected, found) in [(rect.x, back.x), (rect.y, back.y), (rect.w, back.w), (rect.h, back.h)] {
            prop_assert!((expected - found).abs() < 2e-4, "{rect:?} {back:?}");
        }
    }

    #[test]
    fn any_box_ends_within_the_picture(
        size in (1..=8192_usize, 1..=8192_usize),
        place in (any::<f32>(), any::<f32>(), any::<f32>(), any::<f32>()),
    ) {
        prop_assume!([place.0, place.1, place.2, place.3].iter().all(|value| value.is_finite()));
        let letterbox = Letterbox::new(size.0, size.1, 640, 384).unwrap();
        let rect = letterbox.to_picture(place.0, place.1, place.2, place.3);
        for value in [rect.x, rect.y, rect.w, rect.h, rect.x + rect.w, rect.y + rect.h] {
            prop_assert!((0.0..=1.000_001).contains(&value), "{rect:?}");
        }
    }
}

#[test]
fn sizes_at_the_limits() {
    for (size, net) in [
        ((1, 1), (64, 64)),
        ((1, 1), (1, 1)),
        ((2, 2), (33, 17)),
        ((8192, 1), (64, 32)),
        ((1, 8192), (64, 32)),
        ((8192, 3), (300, 2)),
        ((8191, 31), (7, 5)),
        ((1921, 31), (640, 16)),
        ((96, 54), (32, 32)),   // blocks of 3
        ((128, 72), (32, 24)),  // blocks of 4
        ((192, 108), (32, 24)), // blocks of 6
        ((160, 90), (32, 24)),  // blocks of 5
        ((256, 256), (16, 16)), // blocks of 16
        ((272, 272), (16, 16)), // 16 of 17
        ((64, 36), (64, 64)),   // as it is
    ] {
        for nv12 in [false, true] {
            check(&Owned::new(size, nv12, BT709, noise(7)), net);
        }
    }
}

#[test]
fn known_colours_keep_their_red_green_and_blue() {
    let check = |matrix: Matrix, full_range: bool, yuv: [u8; 3], expected: [u8; 3]| {
        let owned = Owned::new((16, 16), false, Colour { matrix, full_range }, |plane, _, _| yuv[plane]);
        let mut letterbox = Letterbox::new(16, 16, 8, 8).unwrap();
        let mut bytes = vec![0; 3 * 64];
        letterbox.fill_u8(&owned.picture(), &mut bytes).unwrap();
        for pixel in bytes.chunks(3) {
            let near = pixel.iter().zip(expected).all(|(&found, expected)| found.abs_diff(expected) <= 1);
            assert!(near, "{matrix:?} {full_range} {yuv:?}: {pixel:?}, expected {expected:?}");
        }
    };
    // 100 % colour bars, as every video text prints them.
    check(Matrix::Bt601, false, [81, 90, 240], [255, 0, 0]);
    check(Matrix::Bt601, false, [145, 54, 34], [0, 255, 0]);
    check(Matrix::Bt601, false, [41, 240, 110], [0, 0, 255]);
    check(Matrix::Bt709, false, [63, 102, 240], [255, 0, 0]);
    check(Matrix::Bt709, false, [173, 42, 26], [0, 255, 0]);
    check(Matrix::Bt709, false, [32, 240, 118], [0, 0, 255]);
    check(Matrix::Bt709, false, [16, 128, 128], [0, 0, 0]);
    check(Matrix::Bt709, false, [235, 128, 128], [255, 255, 255]);
    check(Matrix::Bt709, false, [255, 128, 128], [255, 255, 255]);
    check(Matrix::Bt601, true, [76, 85, 255], [254, 0, 0]);
    check(Matrix::Bt601, true, [255, 128, 128], [255, 255, 255]);
    check(Matrix::Bt709, true, [54, 99, 255], [254, 0, 0]);
}

#[test]
fn boxes_in_the_tensor_are_where_they_were_drawn() {
    let check = |size: (usize, usize), net: (usize, usize), [cx, cy, w, h]: [f32; 4], expected: [f32; 4]| {
        let rect = Letterbox::new(size.0, size.1, net.0, net.1).unwrap().to_picture(cx, cy, w, h);
        let found = [rect.x, rect.y, rect.w, rect.h];
        let near = found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6);
        assert!(near, "{size:?} in {net:?}, {:?}: {found:?}, expected {expected:?}", [cx, cy, w, h]);
    };
    // The picture covers rows 140..500.
    check((1920, 1080), (640, 640), [320.0, 320.0, 640.0, 360.0], [0.0, 0.0, 1.0, 1.0]);
    check((1920, 1080), (640, 640), [160.0, 230.0, 64.0, 36.0], [0.2, 0.2, 0.1, 0.1]);
    check((1920, 1080), (640, 640), [0.0, 140.0, 128.0, 72.0], [0.0, 0.0, 0.1, 0.1]);
    check((1920, 1080), (640, 640), [320.0, 60.0, 100.0, 100.0], [0.421_875, 0.0, 0.156_25, 0.0]);
    // Columns 106..214 (108 of 320, for 9 to 16).
    check((1080, 1920), (320, 192), [160.0, 96.0, 54.0, 96.0], [0.25, 0.25, 0.5, 0.5]);
    check((1, 1), (64, 32), [32.0, 16.0, 16.0, 16.0], [0.25, 0.25, 0.5, 0.5]);
}

#[test]
fn what_does_not_fit_is_refused() {
    for (width, height, net_width, net_height) in
        [(0, 1, 1, 1), (1, 8193, 1, 1), (1, 1, 0, 1), (1, 1, 1, 9000)]
    {
        let found = Letterbox::new(width, height, net_width, net_height).map(|_| ());
        assert_eq!(found, Err(LetterboxError::Size { width, height, net_width, net_height }));
    }
    let mut letterbox = Letterbox::new(8, 6, 4, 4).unwrap();
    let owned = Owned::new((8, 6), false, BT709, noise(1));
    let other = Owned::new((6, 8), false, BT709, noise(1));
    let tensor = &mut [0.0; 48];
    assert_eq!(letterbox.fill_f32(&owned.picture(), tensor), Ok(()));
    let error = letterbox.fill_f32(&owned.picture(), &mut tensor[..47]).unwrap_err();
    assert_eq!(error.to_string(), "a tensor of 47 elements, expected 3 x 4 x 4");
    let error = letterbox.fill_f32(&other.picture(), tensor).unwrap_err();
    assert_eq!(error.to_string(), "a picture of 6x8, expected 8x6; sizes changed in between");
}

#[test]
fn nothing_is_allocated_per_picture() {
    let owned = Owned::new((320, 180), false, BT709, noise(3));
    let mut letterbox = Letterbox::new(320, 180, 64, 64).unwrap();
    let (mut floats, mut bytes) = (vec![0.0; 3 * 64 * 64], vec![0; 3 * 64 * 64]);
    let picture = owned.picture();
    let info = allocation_counter::measure(|| {
        letterbox.fill_f32(&picture, &mut floats).unwrap();
        letterbox.fill_u8(&picture, &mut bytes).unwrap();
    });
    assert_eq!(info.count_total, 0);
}
