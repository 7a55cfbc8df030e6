//! `Rgb` as something that embedded-graphics can draw on.

use std::convert::Infallible;

use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::prelude::{Dimensions, DrawTarget, OriginDimensions, Pixel, Point, Size};
use embedded_graphics::primitives::Rectangle;

use crate::rgb::Rgb;

/// Pixels outside of the picture are left out, as embedded-graphics asks of every target.
pub(super) struct Canvas<'a> {
    rgb: &'a mut Rgb,
    size: Size,
}

impl<'a> Canvas<'a> {
    pub(super) fn new(rgb: &'a mut Rgb) -> Canvas<'a> {
        let side = |side: usize| u32::try_from(side).unwrap_or(0);
        let size = Size::new(side(rgb.width), side(rgb.height));
        Canvas { rgb, size }
    }

    pub(super) fn width(&self) -> u32 {
        self.size.width
    }

    pub(super) fn height(&self) -> u32 {
        self.size.height
    }

    /// Mixes `part` of 256 of black into an area.
    pub(super) fn shade(&mut self, area: Rectangle, part: u16) {
        self.rows(area, |bytes| mix(bytes, Rgb888::BLACK, part));
    }

    /// Mixes `part` of 256 of a colour into a polygon; where it crosses itself, in turns (even-odd).
    pub(super) fn tint(&mut self, corners: &[Point], colour: Rgb888, part: u16) {
        let mut crossings = Vec::new();
        for y in 0..i32::try_from(self.size.height).unwrap_or(i32::MAX) {
            let middle = y as f32 + 0.5;
            crossings.clear();
            for (a, b) in corners.iter().zip(corners.iter().cycle().skip(1)) {
                if (a.y as f32 > middle) != (b.y as f32 > middle) {
                    let along = (middle - a.y as f32) / (b.y - a.y) as f32;
                    crossings.push(a.x as f32 + along * (b.x - a.x) as f32);
                }
            }
            crossings.sort_by(f32::total_cmp);
            for &[begin, end] in crossings.as_chunks::<2>().0 {
                let (first, after) = (super::rounded(begin), super::rounded(end));
                let width = u32::try_from(after - first).unwrap_or(0);
                let span = Rectangle::new(Point::new(first, y), Size::new(width, 1));
                self.rows(span, |bytes| mix(bytes, colour, part));
            }
        }
    }

    /// Runs `change` on the bytes of each row of the part of `area` that lies in the picture.
    fn rows(&mut self, area: Rectangle, mut change: impl FnMut(&mut [u8])) {
        let area = area.intersection(&self.bounding_box());
        let index = |value: i32| usize::try_from(value).expect("it lies in the picture");
        let (left, top) = (index(area.top_left.x), index(area.top_left.y));
        let (width, height) = (area.size.width as usize, area.size.height as usize);
        for y in top..top + height {
            let begin = 3 * (y * self.rgb.width + left);
            change(&mut self.rgb.bytes[begin..begin + 3 * width]);
        }
    }
}

fn mix(bytes: &mut [u8], colour: Rgb888, part: u16) {
    let colour = [colour.r(), colour.g(), colour.b()];
    for pixel in bytes.as_chunks_mut::<3>().0 {
        for (byte, colour) in pixel.iter_mut().zip(colour) {
            let mixed = u16::from(*byte) * (256 - part) + u16::from(colour) * part;
            *byte = mixed.to_be_bytes()[0];
        }
    }
}

impl OriginDimensions for Canvas<'_> {
    fn size(&self) -> Size {
        self.size
    }
}

impl DrawTarget for Canvas<'_> {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(Point { x, y }, colour) in pixels {
            let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { continue };
            if x < self.rgb.width && y < self.rgb.height {
                let at = 3 * (y * self.rgb.width + x);
                self.rgb.bytes[at..at + 3].copy_from_slice(&[colour.r(), colour.g(), colour.b()]);
            }
        }
        Ok(())
    }

    fn fill_solid(&mut self, area: &Rectangle, colour: Rgb888) -> Result<(), Infallible> {
        let colour = [colour.r(), colour.g(), colour.b()];
        self.rows(*area, |bytes| bytes.as_chunks_mut::<3>().0.fill(colour));
        Ok(())
    }
}
