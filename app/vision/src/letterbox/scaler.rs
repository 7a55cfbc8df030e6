//! A picture's planes at another size, row by row, and from there to red, green and blue.
//!
//! Luma is made at the wanted size, chroma at half of it (each sample stands for two by two pixels, as in the picture
//! itself). First down the columns, where all samples of a row have the same weights and the compiler makes vector
//! instructions of it, then along the row that came out. Samples are 8.8 fixed point in between, so that nothing is
//! rounded to whole grey levels before the end.

use super::taps::Taps;
use crate::picture::{Picture, Plane, Planes};
use crate::rgb::Order;
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
    /// Each result is the plain mean of a block of samples, as for the usual factors 2, 3, 4 and 6: rows are summed as
    /// they are, and the sum of a block is divided at the end.
    means: bool,
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
        let sides = |from: (usize, usize), to: (usize, usize)| {
            let (along, down) = (Taps::new(from.0, to.0, ratio.0), Taps::new(from.1, to.1, ratio.1));
            Sides { means: along.blocks && down.blocks, along, down }
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
            self.luma.down(picture.luma(), y, column_sums);
            self.luma.along(column_sums, luma);
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
                    self.chroma.down(plane, y, column_sums);
                    self.chroma.along(column_sums, chroma);
                }
            }
            Planes::Nv12 { uv, .. } => {
                let column_sums = &mut column_sums[..2 * width];
                self.chroma.down(uv, y, column_sums);
                let [u, v] = split;
                for ((pair, u), v) in column_sums.as_chunks::<2>().0.iter().zip(&mut *u).zip(&mut *v) {
                    [*u, *v] = *pair;
                }
                for (split, chroma) in split.iter().zip(chroma) {
                    self.chroma.along(split, chroma);
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
    pub(crate) fn write_u8(&self, order: Order, channels: &mut [Vec<f32>; 3], out: &mut [u8]) {
        for (channel, row) in channels.iter_mut().enumerate() {
            self.write(channel, 255.0, row);
        }
        let [red, green, blue] = &*channels;
        let (red, blue) = match order {
            Order::Rgb => (red, blue),
            Order::Bgr => (blue, red),
        };
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

impl Sides {
    /// Row `at` of the result, not yet resized along: weighted sum of the plane's rows, in 8.8 fixed point, or the plain
    /// sum of a block's rows.
    fn down(&self, plane: Plane<'_>, at: usize, out: &mut [u16]) {
        let (start, weights) = self.down.of(at);
        let len = out.len();
        let row = |tap: usize| plane.row(start + tap, len);
        let (triples, rest) = weights.as_chunks::<3>();
        let rest_at = 3 * triples.len();
        out.fill(0);
        for (at, &weights) in triples.iter().enumerate() {
            self.add([row(3 * at), row(3 * at + 1), row(3 * at + 2)], weights, out);
        }
        match *rest {
            [a, b] => self.add([row(rest_at), row(rest_at + 1)], [a, b], out),
            [a] => self.add([row(rest_at)], [a], out),
            _ => {}
        }
    }

    /// Adds `N` rows; several at once, because reading and writing the sums costs as much as the multiplications.
    fn add<const N: usize>(&self, rows: [&[u8]; N], weights: [u16; N], out: &mut [u16]) {
        let rows = rows.map(|row| &row[..out.len()]);
        for (x, out) in out.iter_mut().enumerate() {
            let mut sum = *out;
            // Indices: iterators over arrays are not taken apart by the compiler where overflow is checked.
            for tap in 0..N {
                let sample = rows[tap][x];
                let part = if self.means { u16::from(sample) } else { product(sample, weights[tap]) };
                sum = sum.wrapping_add(part);
            }
            *out = sum;
        }
    }

    /// A row of the result, in 8.8 fixed point, from what `down` made.
    fn along(&self, samples: &[u16], out: &mut [u16]) {
        let taps = &self.along;
        match (self.means, taps.each) {
            (true, 1) => self.blocks(samples.as_chunks::<1>().0, out),
            (true, 2) => self.blocks(samples.as_chunks::<2>().0, out),
            (true, 3) => self.blocks(samples.as_chunks::<3>().0, out),
            (true, 4) => self.blocks(samples.as_chunks::<4>().0, out),
            (true, 6) => self.blocks(samples.as_chunks::<6>().0, out),
            (true, each) => self.blocks(samples.chunks_exact(each), out),
            (false, 1) => spans(samples, taps, taps.weights.as_chunks::<1>().0, out),
            (false, 2) => spans(samples, taps, taps.weights.as_chunks::<2>().0, out),
            (false, 3) => spans(samples, taps, taps.weights.as_chunks::<3>().0, out),
            (false, 4) => spans(samples, taps, taps.weights.as_chunks::<4>().0, out),
            (false, 5) => spans(samples, taps, taps.weights.as_chunks::<5>().0, out),
            (false, 6) => spans(samples, taps, taps.weights.as_chunks::<6>().0, out),
            (false, each) => spans(samples, taps, taps.weights.chunks_exact(each), out),
        }
    }

    /// Means of blocks whose rows are summed already. Arrays of a known length are what the compiler unrolls.
    fn blocks<'a, B: AsRef<[u16]> + ?Sized + 'a>(
        &self,
        blocks: impl IntoIterator<Item = &'a B>,
        out: &mut [u16],
    ) {
        // At most 16 by 16 samples of 8 bits: neither the sums of rows nor the product overflow.
        let samples = u32::try_from(self.along.each * self.down.each).expect("taps are few");
        let scale = (1 << 24) / samples;
        for (out, block) in out.iter_mut().zip(blocks) {
            let sum: u32 = block.as_ref().iter().map(|&sample| u32::from(sample)).sum();
            *out = upper(sum.wrapping_mul(scale));
        }
    }
}

/// Weighted sums. Neither they nor the products overflow, since weights add up to 16 bits.
fn spans<'a, W: AsRef<[u16]> + ?Sized + 'a>(
    samples: &[u16],
    taps: &Taps,
    weights: impl IntoIterator<Item = &'a W>,
    out: &mut [u16],
) {
    for ((out, &start), weights) in out.iter_mut().zip(&taps.starts).zip(weights) {
        let weights = weights.as_ref();
        let span = &samples[usize::from(start)..][..weights.len()];
        let products =
            span.iter().zip(weights).map(|(&sample, &weight)| u32::from(sample) * u32::from(weight));
        *out = upper(products.fold(0, u32::wrapping_add));
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
