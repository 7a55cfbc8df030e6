//! Best shots: the part of a picture that shows one object, as JPEG.

use bytes::Bytes;
use jpeg_encoder::{ColorType, Encoder};
use vision::rgb::Rgb;
use vision::{Picture, Rect, rgb};

/// What is shown around the object, in parts of its sides.
const MARGIN: f32 = 0.3;
/// The cut is never smaller than this part of the picture: a lone head says nothing about where it is.
const LEAST: f32 = 0.15;
/// Largest side in pixels and quality, tried in this order until the JPEG fits. Even noise takes less than 100 kB in the last.
const TRIES: [(usize, u8); 4] = [(640, 85), (640, 70), (640, 50), (320, 40)];

/// Cuts the object at `rect` out of `picture`; milliseconds of work. `None`: it is larger than `limit_bytes` whatever is
/// tried, or has no area.
pub(crate) fn jpeg(picture: &Picture<'_>, rect: Rect, limit_bytes: usize) -> Option<Bytes> {
    TRIES.iter().find_map(|(max_side, quality)| {
        let jpeg = encode(&cut(picture, rect, *max_side), *quality)?;
        (jpeg.len() <= limit_bytes).then(|| Bytes::from(jpeg))
    })
}

/// The object at `rect` with something around it, at most so many pixels wide and high.
pub fn cut(picture: &Picture<'_>, rect: Rect, max_side: usize) -> Rgb {
    rgb::crop(picture, with_margin(rect), max_side, max_side)
}

/// As JPEG of this quality, 1..=100. `None`: it has no area, or a side above 65,535 pixels.
pub fn encode(rgb: &Rgb, quality: u8) -> Option<Vec<u8>> {
    let (width, height) = (u16::try_from(rgb.width).ok()?, u16::try_from(rgb.height).ok()?);
    let mut jpeg = Vec::new();
    Encoder::new(&mut jpeg, quality).encode(&rgb.bytes, width, height, ColorType::Rgb).ok()?;
    Some(jpeg)
}

/// The rectangle with its margin, within the picture.
fn with_margin(rect: Rect) -> Rect {
    let side = |at: f32, length: f32| {
        let wanted = (length * (1.0 + 2.0 * MARGIN)).clamp(LEAST, 1.0);
        let start = (at + length / 2.0 - wanted / 2.0).clamp(0.0, 1.0 - wanted);
        (start, wanted)
    };
    let ((x, w), (y, h)) = (side(rect.x, rect.w), side(rect.y, rect.h));
    Rect { x, y, w, h }
}

#[cfg(test)]
mod tests {
    use vision::{Colour, Matrix, Plane, Planes};

    use super::*;

    #[test]
    fn the_cut_has_a_margin_and_stays_inside() {
        let check = |[x, y, w, h]: [f32; 4], expected: [f32; 4]| {
            let cut = with_margin(Rect { x, y, w, h });
            let found = [cut.x, cut.y, cut.w, cut.h];
            let close = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5);
            assert!(close, "{found:?}, expected {expected:?}");
        };
        check([0.4, 0.4, 0.2, 0.2], [0.34, 0.34, 0.32, 0.32]);
        check([0.0, 0.9, 0.01, 0.1], [0.0, 0.84, 0.15, 0.16]);
        check([0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn even_noise_fits_the_limit_of_a_message() {
        let mut state = 1_u32;
        let mut noise = |len: usize| -> Vec<u8> {
            std::iter::repeat_with(|| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_be_bytes()[0]
            })
            .take(len)
            .collect()
        };
        let (y, uv) = (noise(640 * 640), noise(640 * 320));
        let planes =
            Planes::Nv12 { y: Plane { bytes: &y, stride: 640 }, uv: Plane { bytes: &uv, stride: 640 } };
        let colour = Colour { matrix: Matrix::Bt709, full_range: true };
        let picture = Picture::new(640, 640, planes, colour).expect("whole planes");
        let whole = Rect { x: 0.0, y: 0.0, w: 1.0, h: 1.0 };
        let jpeg = |limit| super::jpeg(&picture, whole, limit);
        let small = jpeg(100_000).expect("a JPEG");
        assert_eq!(&small[..3], [0xff, 0xd8, 0xff]);
        assert!(small.len() <= 100_000, "{}", small.len());
        assert!(jpeg(usize::MAX).is_some_and(|jpeg| jpeg.len() > 100_000), "the limit decides");
        assert_eq!(jpeg(100), None);
    }
}
