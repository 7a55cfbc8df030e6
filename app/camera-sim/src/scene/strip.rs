//! A row of black and white blocks in the lower left corner that says which frame this is, to a machine.
//!
//! From left to right: white, black (guards), 16 bits of the index with the highest first, 4 bits of parity
//! (the exclusive-or of the four nibbles, inverted), black, white (guards). A white block is a one. Blocks are
//! at least 8 pixels wide and aligned to 8, so that compression leaves them alone.

use super::canvas::Picture420;

const BLOCKS: usize = 24;

/// Narrower pictures have no room for the strip.
pub(crate) const MIN_WIDTH: usize = BLOCKS * 8;

fn block_size(width: usize) -> usize {
    (width / 80 / 8 * 8).max(8)
}

fn bits(index: u16) -> u32 {
    let parity = !(index ^ (index >> 4) ^ (index >> 8) ^ (index >> 12)) & 0xf;
    (0b10 << 22) | (u32::from(index) << 6) | (u32::from(parity) << 2) | 0b01
}

pub(crate) fn draw(picture: &mut Picture420, index: u16) {
    let (width, height) = (picture.width(), picture.height());
    let size = block_size(width);
    let bits = bits(index);
    let (luma, u, v) = picture.planes_mut();
    for y in height - size..height {
        for block in 0..BLOCKS {
            let white = bits & (1 << (BLOCKS - 1 - block)) != 0;
            let row = y * width + block * size;
            luma[row..row + size].fill(if white { 235 } else { 16 });
        }
        let row = y / 2 * (width / 2);
        u[row..row + BLOCKS * size / 2].fill(128);
        v[row..row + BLOCKS * size / 2].fill(128);
    }
}

/// Reads the index of a frame within its loop from a decoded luma plane.
///
/// `luma` holds `height` rows, `stride` bytes apart, of `width` pixels. `None` when there is no strip, or when
/// guards or parity do not fit, as in a badly damaged picture. The size must be the one that was encoded.
pub fn read_frame_index(luma: &[u8], stride: usize, width: usize, height: usize) -> Option<u32> {
    let size = block_size(width);
    if width < MIN_WIDTH || height < size || stride < width || luma.len() < stride * (height - 1) + width {
        return None;
    }
    let inner = size / 4..size - size / 4;
    let brightness = |block: usize| -> usize {
        let sum: usize = inner
            .clone()
            .map(|y| {
                let row = (height - size + y) * stride + block * size;
                luma[row + inner.start..row + inner.end].iter().map(|&l| usize::from(l)).sum::<usize>()
            })
            .sum();
        sum / (inner.len() * inner.len())
    };
    let (white, black) = (brightness(0).min(brightness(23)), brightness(1).max(brightness(22)));
    if white < black + 64 {
        return None;
    }
    let threshold = usize::midpoint(white, black);
    let read = (0..BLOCKS).fold(0_u32, |bits, block| bits << 1 | u32::from(brightness(block) > threshold));
    let index = (read >> 6) as u16;
    (bits(index) == read).then_some(u32::from(index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_drawn_is_read_through_noise(index: u16, wide in 0_usize..3, noise in 0_u8..40) {
            let width = [192, 640, 1280][wide];
            let mut picture = Picture420::new(width, 96);
            draw(&mut picture, index);
            let mut luma = picture.luma().to_vec();
            for (at, value) in luma.iter_mut().enumerate() {
                *value = if at % 3 == 0 { value.saturating_add(noise) } else { value.saturating_sub(noise) };
            }
            prop_assert_eq!(read_frame_index(&luma, width, width, 96), Some(u32::from(index)));
        }

        #[test]
        fn one_wrong_block_is_noticed(index: u16, block in 0_usize..24) {
            let mut picture = Picture420::new(192, 96);
            draw(&mut picture, index);
            let mut luma = picture.luma().to_vec();
            for y in 88..96 {
                for value in &mut luma[y * 192 + block * 8..][..8] {
                    *value = 251 - *value;
                }
            }
            prop_assert_eq!(read_frame_index(&luma, 192, 192, 96), None);
        }
    }

    #[test]
    fn a_picture_without_strip_has_no_index() {
        assert_eq!(read_frame_index(&[90; 320 * 180], 320, 320, 180), None);
        assert_eq!(read_frame_index(&[90; 100], 320, 320, 180), None);
    }
}
