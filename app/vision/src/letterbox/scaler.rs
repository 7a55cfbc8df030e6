//! A picture's planes at another size, row by row, and from there to red, green and blue.
//!
//! Luma is made at the wanted size, chroma at half of it (each sample stands for two by two pixels, as in the picture
//! itself). First down the columns, where all samples of a row have the same weights and the compiler makes vector
//! instructions of it, then along the row that came out. Samples are 8.8 fixed point in between, so that nothing is
//! rounded to whole grey levels before the end.

use super::taps::Taps;
use crate::picture::{Picture, Plane, Planes};
use crate::{Colour, Matrix};

/// Makes rows of one size from pictures of another.
#[derive(Clone, Debug)]
pub(crate) struct Scaler {
    from: (usize, usize),
    to: (usize, usize),
    luma: Sides,
    chroma: Sides,
    scratch: Scratch,
}

#[derive(Clone, Debug)]
struct Sides {
    along: Taps,
    down: Taps,
}

/// Buffers that live from picture to picture. Samples are 8.8 fixed point.
#[derive(Clone, Debug, Default)]
struct Scratch {
    /// One row as wide as the source's (U and V in turns: twice the chroma width).
    column_sums: Vec<u16>,
    split: [Vec<u16>; 2],
    /// One row as wide as the result.
    luma: Vec<u16>,
    chroma: [Vec<u16>; 2],
    /// What chroma adds to red, green and blue, two equal ones side by side.
    tint: [Vec<f32>; 3],
}

/// One row of the result, before luma and chroma meet. All slices have the width of the result.
pub(crate) struct Row<'a> {
    luma: &'a [u16],
    tint: [&'a [f32]; 3],
    gain: f32,
}

impl Scaler {
    /// All sides are 1..=65535.
    pub(crate) fn new(from: (usize, usize), to: (usize, usize)) -> Scaler {
        let ratio = (from.0 as f64 / to.0 as f64, from.1 as f64 / to.1 as f64);
        let half = |side: usize| side.div_ceil(2);
        let sides = |from: (usize, usize), to: (usize, usize)| Sides {
            along: Taps::new(from.0, to.0, ratio.0),
            down: Taps::new(from.1, to.1, ratio.1),
        };
        let (from_half, to_half) = ((half(from.0), half(from.1)), (half(to.0), half(to.1)));
        let scratch = Scratch {
            column_sums: vec![0; from.0.max(2 * from_half.0)],
            split: [vec![0; from_half.0], vec![0; from_half.0]],
            luma: vec![0; to.0],
            chroma: [vec![0; to_half.0], vec![0; to_half.0]],
            tint: std::array::from_fn(|_| vec![0.0; 2 * to_half.0]),
        };
        Scaler { from, to, luma: sides(from, to), chroma: sides(from_half, to_half), scratch }
    }

    pub(crate) fn from(&self) -> (usize, usize) {
        self.from
    }

    pub(crate) fn to(&self) -> (usize, usize) {
        self.to
    }

    /// Hands out the rows from top to bottom; `white` is the value of full red, green or blue. The picture must have the
    /// size that this was made for.
    pub(crate) fn rows(&mut self, picture: &Picture<'_>, white: f32, mut sink: impl FnMut(usize, &Row<'_>)) {
        assert_eq!((picture.width, picture.height), self.from, "callers check the picture's size");
        let mix = Mix::new(picture.colour, white);
        for y in 0..self.to.1 {
            if y % 2 == 0 {
                self.chroma_row(picture, y / 2);
                mix.tint(&self.scratch.chroma, &mut self.scratch.tint);
            }
            let Scratch { column_sums, luma, .. } = &mut self.scratch;
            let column_sums = &mut column_sums[..self.from.0];
            down(picture.luma(), &self.luma.down, y, column_sums);
            along(column_sums, &self.luma.along, luma);
            let tint = self.scratch.tint.each_ref().map(|tint| &tint[..self.to.0]);
            sink(y, &Row { luma: &self.scratch.luma, tint, gain: mix.gain });
        }
    }

    fn chroma_row(&mut self, picture: &Picture<'_>, y: usize) {
        let Scratch { column_sums, split, chroma, .. } = &mut self.scratch;
        let width = self.from.0.div_ceil(2);
        match picture.planes {
            Planes::I420 { u, v, .. } => {
                for (plane, chroma) in [u, v].into_iter().zip(chroma) {
                    let column_sums = &mut column_sums[..width];
                    down(plane, &self.chroma.down, y, column_sums);
                    along(column_sums, &self.chroma.along, chroma);
                }
            }
            Planes::Nv12 { uv, .. } => {
                let column_sums = &mut column_sums[..2 * width];
                down(uv, &self.chroma.down, y, column_sums);
                let [u, v] = split;
                for ((pair, u), v) in column_sums.as_chunks::<2>().0.iter().zip(&mut *u).zip(&mut *v) {
                    [*u, *v] = *pair;
                }
                for (split, chroma) in split.iter().zip(chroma) {
                    along(split, &self.chroma.along, chroma);
                }
            }
        }
    }
}

impl Row<'_> {
    /// Red, green or blue of this row into `out`, 0.0..=`white`.
    pub(crate) fn write(&self, channel: usize, white: f32, out: &mut [f32]) {
        for ((out, &luma), &tint) in out.iter_mut().zip(self.luma).zip(self.tint[channel]) {
            *out = (f32::from(luma) * self.gain + tint).clamp(0.0, white);
        }
    }

    /// Red, green and blue in turns, rounded. `white` must be 255; `channels` have the width of the row.
    pub(crate) fn write_u8(&self, channels: &mut [Vec<f32>; 3], out: &mut [u8]) {
        for (channel, row) in channels.iter_mut().enumerate() {
            self.write(channel, 255.0, row);
        }
        let [red, green, blue] = &*channels;
        let pixels = out.as_chunks_mut::<3>().0.iter_mut();
        for (((out, &red), &green), &blue) in pixels.zip(red).zip(green).zip(blue) {
            *out = [red, green, blue].map(whole);
        }
    }
}

/// The nearest whole number to 0.0..=255.0. At 2^23 the lowest bit of a float's fraction is one, so that adding this
/// leaves the number in the lowest byte: vectors have an instruction for that, and none for saturating casts.
fn whole(value: f32) -> u8 {
    (value + 8_388_608.0).to_bits().to_le_bytes()[0]
}

/// How luma and chroma in 8.8 fixed point mix to red, green and blue of 0.0..=white.
struct Mix {
    gain: f32,
    /// Added to all; with the offsets of luma and chroma in it.
    base: [f32; 3],
    /// For U and V.
    chroma: [[f32; 2]; 3],
}

impl Mix {
    /// ITU-T H.273, equations for `MatrixCoefficients` 1 and 6, ranges as there.
    fn new(colour: Colour, white: f32) -> Mix {
        let (kr, kb) = match colour.matrix {
            Matrix::Bt601 => (0.299, 0.114),
            Matrix::Bt709 => (0.2126, 0.0722),
        };
        let kg = 1.0 - kr - kb;
        let (black, luma_span, chroma_span) =
            if colour.full_range { (0.0, 255.0, 255.0) } else { (16.0, 219.0, 224.0) };
        let luma_gain = white / luma_span;
        let chroma_gain = white / chroma_span;
        let red = 2.0 * (1.0 - kr) * chroma_gain;
        let blue = 2.0 * (1.0 - kb) * chroma_gain;
        let chroma = [[0.0, red], [-blue * kb / kg, -red * kr / kg], [blue, 0.0]];
        let base = chroma.map(|[u, v]| -black * luma_gain - 128.0 * (u + v));
        Mix { gain: luma_gain / 256.0, base, chroma: chroma.map(|pair| pair.map(|part| part / 256.0)) }
    }

    fn tint(&self, [u, v]: &[Vec<u16>; 2], tint: &mut [Vec<f32>; 3]) {
        for (channel, tint) in tint.iter_mut().enumerate() {
            let ([from_u, from_v], base) = (self.chroma[channel], self.base[channel]);
            for ((out, &u), &v) in tint.as_chunks_mut::<2>().0.iter_mut().zip(u).zip(v) {
                *out = [f32::from(u) * from_u + f32::from(v) * from_v + base; 2];
            }
        }
    }
}

/// Row `at` of the result, not yet resized along: weighted sum of the plane's rows, in 8.8 fixed point.
fn down(plane: Plane<'_>, taps: &Taps, at: usize, out: &mut [u16]) {
    let (start, weights) = taps.of(at);
    let len = out.len();
    let row = |tap: usize| plane.row(start + tap, len);
    let (triples, rest) = weights.as_chunks::<3>();
    let rest_at = 3 * triples.len();
    out.fill(0);
    for (at, &weights) in triples.iter().enumerate() {
        add(std::array::from_fn(|tap| row(3 * at + tap)), weights, out);
    }
    match *rest {
        [a, b] => add([row(rest_at), row(rest_at + 1)], [a, b], out),
        [a] => add([row(rest_at)], [a], out),
        _ => {}
    }
}

/// Adds `N` rows; several at once, because reading and writing the sums costs as much as the multiplications.
fn add<const N: usize>(rows: [&[u8]; N], weights: [u16; N], out: &mut [u16]) {
    let rows = rows.map(|row| &row[..out.len()]);
    for (x, out) in out.iter_mut().enumerate() {
        let mut sum = *out;
        for tap in 0..N {
            // The upper half of a 16 by 16 bit product is one vector instruction.
            sum = sum.wrapping_add(product(rows[tap][x], weights[tap]));
        }
        *out = sum;
    }
}

/// `sample` times `weight` in 8.8 fixed point. In two halves, so that vectors of 16 bits are wide enough.
fn product(sample: u8, weight: u16) -> u16 {
    let [sample, high, low] = [u16::from(sample), weight >> 8, weight & 0xFF];
    (sample * high).wrapping_add((sample * low) >> 8)
}

fn upper(product: u32) -> u16 {
    (product >> 16) as u16
}

/// A row of the result from one of the source.
fn along(samples: &[u16], taps: &Taps, out: &mut [u16]) {
    match (taps.blocks, taps.each) {
        (true, 1) => out.copy_from_slice(samples),
        (true, 2) => blocks::<2>(samples, out),
        (true, 3) => blocks::<3>(samples, out),
        (true, 4) => blocks::<4>(samples, out),
        (true, 6) => blocks::<6>(samples, out),
        (_, 1) => spans::<1>(samples, taps, out),
        (_, 2) => spans::<2>(samples, taps, out),
        (_, 3) => spans::<3>(samples, taps, out),
        (_, 4) => spans::<4>(samples, taps, out),
        (_, 5) => spans::<5>(samples, taps, out),
        (_, 6) => spans::<6>(samples, taps, out),
        _ => spans_of_any_length(samples, taps, out),
    }
}

fn blocks<const N: usize>(samples: &[u16], out: &mut [u16]) {
    let inverse = 65_536 / u32::try_from(N).expect("a handful of samples");
    for (out, block) in out.iter_mut().zip(samples.as_chunks::<N>().0) {
        let sum: u32 = block.iter().map(|&sample| u32::from(sample)).sum();
        *out = upper(sum * inverse);
    }
}

fn spans<const N: usize>(samples: &[u16], taps: &Taps, out: &mut [u16]) {
    let weights = taps.weights.as_chunks::<N>().0;
    for ((out, &start), weights) in out.iter_mut().zip(&taps.starts).zip(weights) {
        let span = &samples[usize::from(start)..][..N];
        let sum: u32 =
            span.iter().zip(weights).map(|(&sample, &weight)| u32::from(sample) * u32::from(weight)).sum();
        *out = upper(sum);
    }
}

fn spans_of_any_length(samples: &[u16], taps: &Taps, out: &mut [u16]) {
    let weights = taps.weights.chunks_exact(taps.each);
    for ((out, &start), weights) in out.iter_mut().zip(&taps.starts).zip(weights) {
        let span = &samples[usize::from(start)..][..taps.each];
        let sum: u32 =
            span.iter().zip(weights).map(|(&sample, &weight)| u32::from(sample) * u32::from(weight)).sum();
        *out = upper(sum);
    }
}
