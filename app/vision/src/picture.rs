//! Decoded pictures as decoders leave them in memory: 8 bit, 4:2:0, planes with strides.

use crate::Rect;

/// Rows of samples; row `n` begins at `n * stride`.
#[derive(Clone, Copy, Debug)]
pub struct Plane<'a> {
    pub bytes: &'a [u8],
    pub stride: usize,
}

impl<'a> Plane<'a> {
    /// Row `n`, `len` bytes of it. The picture that holds this plane has checked that they are there.
    pub fn row(&self, n: usize, len: usize) -> &'a [u8] {
        &self.bytes[n * self.stride..n * self.stride + len]
    }
}

/// The two layouts that decoders return. Chroma planes are half as wide and high, rounded up.
#[derive(Clone, Copy, Debug)]
pub enum Planes<'a> {
    /// Three planes; what software decoders return.
    I420 { y: Plane<'a>, u: Plane<'a>, v: Plane<'a> },
    /// Luma, then U and V in turns; what hardware decoders return.
    Nv12 { y: Plane<'a>, uv: Plane<'a> },
}

/// How luma and chroma make red, green and blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matrix {
    Bt601,
    Bt709,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour {
    pub matrix: Matrix,
    /// 0..=255 instead of 16..=235 (luma) and 16..=240 (chroma).
    pub full_range: bool,
}

/// One decoded picture; `width` x `height` samples of luma are visible.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    pub width: usize,
    pub height: usize,
    pub planes: Planes<'a>,
    pub colour: Colour,
}

/// Largest side that is taken: 8K and a margin.
pub const MAX_SIDE: usize = 8192;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PictureError {
    #[error("a picture of {width}x{height}, expected sides of 1 to {MAX_SIDE}")]
    Size { width: usize, height: usize },
    #[error("plane {plane} has {found} bytes with a stride of {stride}, expected {rows} rows of {row_bytes}")]
    Plane { plane: &'static str, found: usize, stride: usize, rows: usize, row_bytes: usize },
}

impl<'a> Picture<'a> {
    /// Checks that every visible sample is there.
    pub fn new(
        width: usize,
        height: usize,
        planes: Planes<'a>,
        colour: Colour,
    ) -> Result<Picture<'a>, PictureError> {
        if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
            return Err(PictureError::Size { width, height });
        }
        let (half_width, half_height) = (width.div_ceil(2), height.div_ceil(2));
        match planes {
            Planes::I420 { y, u, v } => {
                check("Y", y, height, width)?;
                check("U", u, half_height, half_width)?;
                check("V", v, half_height, half_width)?;
            }
            Planes::Nv12 { y, uv } => {
                check("Y", y, height, width)?;
                check("UV", uv, half_height, 2 * half_width)?;
            }
        }
        Ok(Picture { width, height, planes, colour })
    }

    /// The part of the picture that `rect` touches, without a copy. Its left and upper edge move outwards to where a
    /// chroma sample begins; at least one pixel, and never beyond the picture.
    pub fn crop(&self, rect: Rect) -> Picture<'a> {
        let (x, width) = pixels(rect.x, rect.w, self.width);
        let (y, height) = pixels(rect.y, rect.h, self.height);
        let part = |plane: Plane<'a>, x: usize, y: usize| Plane {
            bytes: &plane.bytes[y * plane.stride + x..],
            stride: plane.stride,
        };
        let planes = match self.planes {
            Planes::I420 { y: luma, u, v } => {
                Planes::I420 { y: part(luma, x, y), u: part(u, x / 2, y / 2), v: part(v, x / 2, y / 2) }
            }
            Planes::Nv12 { y: luma, uv } => Planes::Nv12 { y: part(luma, x, y), uv: part(uv, x, y / 2) },
        };
        Picture { width, height, planes, colour: self.colour }
    }

    pub fn luma(&self) -> Plane<'a> {
        match self.planes {
            Planes::I420 { y, .. } | Planes::Nv12 { y, .. } => y,
        }
    }
}

/// First pixel, even, and number of pixels of a part of a side, within the side.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "saturates"
)]
fn pixels(begin: f32, len: f32, side: usize) -> (usize, usize) {
    let first = (begin * side as f32).floor() as usize;
    let first = first.min(side - 1) & !1;
    let end = ((begin + len) * side as f32).ceil() as usize;
    (first, end.clamp(first + 1, side) - first)
}

fn check(name: &'static str, plane: Plane<'_>, rows: usize, row_bytes: usize) -> Result<(), PictureError> {
    let Plane { bytes, stride } = plane;
    // The last row need not have its padding.
    let needed = (rows - 1).checked_mul(stride).and_then(|before| before.checked_add(row_bytes));
    if stride < row_bytes || needed.is_none_or(|needed| bytes.len() < needed) {
        return Err(PictureError::Plane { plane: name, found: bytes.len(), stride, rows, row_bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLOUR: Colour = Colour { matrix: Matrix::Bt709, full_range: false };

    #[test]
    fn planes_that_are_too_short_are_refused() {
        let bytes = [0; 64];
        let plane = |len: usize, stride: usize| Plane { bytes: &bytes[..len], stride };
        let picture = |y: Plane<'static>, uv: Plane<'static>| {
            Picture::new(5, 3, Planes::Nv12 { y, uv }, COLOUR).map(|picture| picture.luma().row(2, 5).len())
        };
        let leaked: &'static [u8] = &[0; 64];
        let plane_of = |len: usize, stride: usize| Plane { bytes: &leaked[..len], stride };
        assert_eq!(picture(plane_of(8 * 2 + 5, 8), plane_of(8 + 6, 8)), Ok(5));
        assert!(matches!(
            picture(plane_of(8 * 2 + 4, 8), plane_of(14, 8)),
            Err(PictureError::Plane { plane: "Y", .. })
        ));
        assert!(matches!(
            picture(plane_of(24, 8), plane_of(12, 5)),
            Err(PictureError::Plane { plane: "UV", .. })
        ));
        let huge = Picture::new(9000, 1, Planes::Nv12 { y: plane(0, 0), uv: plane(0, 0) }, COLOUR);
        assert!(matches!(huge, Err(PictureError::Size { .. })));
        let wraps = plane(64, usize::MAX);
        assert!(Picture::new(5, 3, Planes::Nv12 { y: wraps, uv: wraps }, COLOUR).is_err());
    }
}
