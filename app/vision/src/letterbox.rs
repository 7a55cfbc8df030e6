//! Pictures into the input tensor of a detector: resized with their shape kept, the rest grey.
//!
//! Resizing, colour and normalisation are one pass over the sampled pictures only. The planes are resized before their
//! colours are mixed, which is cheaper than the reverse by more than half; see `scaler`. The border is grey 114 because
//! detectors of the YOLO family are trained with it (black costs our own model 0.014 of mAP50).

use crate::rgb::Order;
use crate::{Picture, Rect};

pub(crate) mod scaler;
mod taps;

use scaler::Scaler;

/// Grey of the border, 0..=255.
pub const PADDING: u8 = 114;

/// Largest side of a tensor.
pub const MAX_NET_SIDE: usize = 8192;

/// Places pictures of one size in tensors of another. Keeps its buffers from picture to picture.
#[derive(Clone, Debug)]
pub struct Letterbox {
    net_width: usize,
    net_height: usize,
    /// Columns to the left of the picture in the tensor, rows above it.
    left: usize,
    top: usize,
    scaler: Scaler,
    /// One row each of red, green and blue; only for 8 bit tensors.
    channels: [Vec<f32>; 3],
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LetterboxError {
    #[error(
        "{width}x{height} pictures into a {net_width}x{net_height} tensor, expected sides of 1 to {MAX_NET_SIDE}"
    )]
    Size { width: usize, height: usize, net_width: usize, net_height: usize },
    #[error("a picture of {found_width}x{found_height}, expected {width}x{height}; sizes changed in between")]
    Picture { found_width: usize, found_height: usize, width: usize, height: usize },
    #[error("a tensor of {found} elements, expected 3 x {net_width} x {net_height}")]
    Tensor { found: usize, net_width: usize, net_height: usize },
}

impl Letterbox {
    /// For pictures of `width` x `height` and a detector that wants `net_width` x `net_height`, all in pixels, each
    /// 1..=8192. Small pictures are enlarged.
    pub fn new(
        width: usize,
        height: usize,
        net_width: usize,
        net_height: usize,
    ) -> Result<Letterbox, LetterboxError> {
        if [width, height, net_width, net_height].iter().any(|side| !(1..=MAX_NET_SIDE).contains(side)) {
            return Err(LetterboxError::Size { width, height, net_width, net_height });
        }
        let (content_width, content_height) = content((width, height), (net_width, net_height));
        Ok(Letterbox {
            net_width,
            net_height,
            left: (net_width - content_width) / 2,
            top: (net_height - content_height) / 2,
            scaler: Scaler::new((width, height), (content_width, content_height)),
            channels: std::array::from_fn(|_| vec![0.0; content_width]),
        })
    }

    /// Whether pictures of this size fit this letterbox.
    pub fn takes(&self, picture: &Picture<'_>) -> bool {
        self.scaler.from() == (picture.width, picture.height)
    }

    /// Fills `[3, net_height, net_width]`, red, green, blue, 0.0..=1.0.
    pub fn fill_f32(&mut self, picture: &Picture<'_>, tensor: &mut [f32]) -> Result<(), LetterboxError> {
        self.check(picture, tensor.len())?;
        let grey = f32::from(PADDING) / 255.0;
        let (net_width, left, top) = (self.net_width, self.left, self.top);
        let (width, height) = self.scaler.to();
        let plane_len = net_width * self.net_height;
        for plane in tensor.chunks_exact_mut(plane_len) {
            plane[..top * net_width].fill(grey);
            plane[(top + height) * net_width..].fill(grey);
        }
        self.scaler.rows(picture, 1.0, |y, row| {
            for (channel, plane) in tensor.chunks_exact_mut(plane_len).enumerate() {
                let out = &mut plane[(top + y) * net_width..][..net_width];
                let (before, out) = out.split_at_mut(left);
                let (out, after) = out.split_at_mut(width);
                before.fill(grey);
                row.write(channel, 1.0, out);
                after.fill(grey);
            }
        });
        Ok(())
    }

    /// Fills `[net_height, net_width, 3]`, red, green, blue, 0..=255.
    pub fn fill_u8(&mut self, picture: &Picture<'_>, tensor: &mut [u8]) -> Result<(), LetterboxError> {
        self.check(picture, tensor.len())?;
        let (left, top) = (self.left, self.top);
        let (width, height) = self.scaler.to();
        let row_len = 3 * self.net_width;
        tensor[..top * row_len].fill(PADDING);
        tensor[(top + height) * row_len..].fill(PADDING);
        let channels = &mut self.channels;
        self.scaler.rows(picture, 255.0, |y, row| {
            let out = &mut tensor[(top + y) * row_len..][..row_len];
            let (before, out) = out.split_at_mut(3 * left);
            let (out, after) = out.split_at_mut(3 * width);
            before.fill(PADDING);
            row.write_u8(Order::Rgb, channels, out);
            after.fill(PADDING);
        });
        Ok(())
    }

    /// The place in the picture of a box in the tensor, given as its centre and size in pixels of the tensor. What lies
    /// outside of the picture is cut off; a box that lies outside as a whole has no area.
    pub fn to_picture(&self, cx: f32, cy: f32, w: f32, h: f32) -> Rect {
        let (width, height) = self.scaler.to();
        let part = |at: f32, before: usize, len: usize| ((at - side(before)) / side(len)).clamp(0.0, 1.0);
        let (x1, x2) = (part(cx - w / 2.0, self.left, width), part(cx + w / 2.0, self.left, width));
        let (y1, y2) = (part(cy - h / 2.0, self.top, height), part(cy + h / 2.0, self.top, height));
        Rect { x: x1, y: y1, w: (x2 - x1).max(0.0), h: (y2 - y1).max(0.0) }
    }

    /// The reverse of `to_picture`: centre x and y, width and height in pixels of the tensor.
    pub fn to_net(&self, rect: Rect) -> [f32; 4] {
        let (width, height) = self.scaler.to();
        let centre = rect.centre();
        [
            side(self.left) + centre.x * side(width),
            side(self.top) + centre.y * side(height),
            rect.w * side(width),
            rect.h * side(height),
        ]
    }

    fn check(&self, picture: &Picture<'_>, tensor_len: usize) -> Result<(), LetterboxError> {
        if !self.takes(picture) {
            let (width, height) = self.scaler.from();
            let (found_width, found_height) = (picture.width, picture.height);
            return Err(LetterboxError::Picture { found_width, found_height, width, height });
        }
        let (net_width, net_height) = (self.net_width, self.net_height);
        if tensor_len != 3 * net_width * net_height {
            return Err(LetterboxError::Tensor { found: tensor_len, net_width, net_height });
        }
        Ok(())
    }
}

/// The largest size of the picture's shape that fits, at least one pixel, sides rounded as Ultralytics does.
pub(crate) fn content(from: (usize, usize), into: (usize, usize)) -> (usize, usize) {
    // Compared as products of integers: which side limits is exact.
    if from.0 * into.1 >= from.1 * into.0 {
        (into.0, scaled(from.1, into.0, from.0, into.1))
    } else {
        (scaled(from.0, into.1, from.1, into.0), into.1)
    }
}

/// `side * by / of` rounded to the nearest, 1..=`max`.
fn scaled(side: usize, by: usize, of: usize, max: usize) -> usize {
    ((2 * side * by + of) / (2 * of)).clamp(1, max)
}

/// Exact: sides are at most 8192.
#[expect(clippy::cast_precision_loss, reason = "sides have 13 bits")]
fn side(pixels: usize) -> f32 {
    pixels as f32
}

#[cfg(test)]
mod tests;
