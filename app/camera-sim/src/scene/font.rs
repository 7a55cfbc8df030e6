//! A 5x7 bitmap font, just large enough for the burnt-in clock.

use super::canvas::Picture420;

/// Rows of a glyph from top to bottom, bit 4 is the leftmost column.
fn glyph(letter: char) -> [u8; 7] {
    match letter {
        '0' => [14, 17, 19, 21, 25, 17, 14],
        '1' => [4, 12, 4, 4, 4, 4, 14],
        '2' => [14, 17, 1, 2, 4, 8, 31],
        '3' => [31, 2, 4, 2, 1, 17, 14],
        '4' => [2, 6, 10, 18, 31, 2, 2],
        '5' => [31, 16, 30, 1, 1, 17, 14],
        '6' => [6, 8, 16, 30, 17, 17, 14],
        '7' => [31, 1, 2, 4, 8, 8, 8],
        '8' => [14, 17, 17, 14, 17, 17, 14],
        '9' => [14, 17, 17, 15, 1, 2, 12],
        'C' => [14, 17, 16, 16, 16, 17, 14],
        'D' => [28, 18, 17, 17, 17, 18, 28],
        'E' => [31, 16, 16, 30, 16, 16, 31],
        'F' => [31, 16, 16, 30, 16, 16, 16],
        'M' => [17, 27, 21, 21, 17, 17, 17],
        'O' => [14, 17, 17, 17, 17, 17, 14],
        'R' => [30, 17, 17, 30, 20, 18, 17],
        'S' => [15, 16, 16, 14, 1, 1, 30],
        'T' => [31, 4, 4, 4, 4, 4, 4],
        'U' => [17, 17, 17, 17, 17, 17, 14],
        '.' => [0, 0, 0, 0, 0, 12, 12],
        '/' => [0, 1, 2, 4, 8, 16, 0],
        ' ' => [0; 7],
        _ => [31, 17, 17, 17, 17, 17, 31],
    }
}

/// Draws white text on a black box with its left top corner at `left`, `top`; `scale` pixels per font pixel.
/// What does not fit is cut off.
pub(crate) fn draw(picture: &mut Picture420, left: usize, top: usize, scale: usize, text: &str) {
    let (width, height) = (picture.width(), picture.height());
    let columns = (text.chars().count() * 6 + 1) * scale;
    let (right, bottom) = ((left + columns).min(width), (top + 9 * scale).min(height));
    let (luma, u, v) = picture.planes_mut();
    for y in top..bottom {
        luma[y * width + left..y * width + right].fill(16);
        let chroma = y / 2 * (width / 2);
        u[chroma + left / 2..chroma + right / 2].fill(128);
        v[chroma + left / 2..chroma + right / 2].fill(128);
    }
    for (position, letter) in text.chars().enumerate() {
        let glyph = glyph(letter);
        for y in top + scale..(top + 8 * scale).min(bottom) {
            let bits = glyph[(y - top - scale) / scale];
            for column in (0..5).filter(|column| bits & (16 >> column) != 0) {
                let x0 = (left + (position * 6 + 1 + column) * scale).min(right);
                luma[y * width + x0..y * width + (x0 + scale).min(right)].fill(235);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_readable_and_cut_at_the_border() {
        let mut picture = Picture420::new(16, 16);
        draw(&mut picture, 0, 0, 1, "1UTC");
        let row = |y: usize| -> String {
            picture.luma()[y * 16..y * 16 + 7].iter().map(|&y| if y > 128 { '#' } else { '.' }).collect()
        };
        assert_eq!([row(1), row(2), row(7)], ["...#...", "..##...", "..###.."]);
    }
}
