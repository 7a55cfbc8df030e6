//! A contact sheet: small pictures in a grid, each with two lines of text, for people.

use embedded_graphics::mono_font::iso_8859_1::{FONT_6X10, FONT_10X20};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::prelude::{Drawable, Point as Pixel, Primitive, Size};
use embedded_graphics::primitives::{PrimitiveStyle, Rectangle};
use embedded_graphics::text::{Baseline, Text};

use super::canvas::Canvas;
use super::signed;
use crate::rgb::Rgb;

/// Largest side of a cell's picture, pixels.
pub const CELL: usize = 192;
/// Cells in a row, and around each some ground.
const COLUMNS: usize = 6;
const GAP: usize = 8;
const TEXT: usize = 26;
const TITLE: usize = 36;
const GROUND: Rgb888 = Rgb888::new(24, 26, 30);
const FAINT: Rgb888 = Rgb888::new(168, 172, 180);

/// One picture with what is said of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell<'a> {
    /// At most [`CELL`] pixels wide and high; what is larger is cut off.
    pub picture: &'a Rgb,
    /// Of the line beside its name, red, green, blue: see [`super::class_colour`].
    pub colour: [u8; 3],
    pub name: &'a str,
    pub note: &'a str,
}

/// Draws the cells in their order, row by row, below the title.
pub fn sheet(title: &str, cells: &[Cell<'_>]) -> Rgb {
    let columns = cells.len().clamp(1, COLUMNS);
    let rows = cells.len().div_ceil(columns);
    let width = (GAP + columns * (CELL + GAP)).max(3 * CELL);
    let height = TITLE + rows * (CELL + TEXT + GAP) + GAP;
    let ground = [GROUND.r(), GROUND.g(), GROUND.b()];
    let mut sheet = Rgb { width, height, bytes: ground.repeat(width * height) };
    for (number, cell) in cells.iter().enumerate() {
        let corner = corner(number, columns);
        paste(&mut sheet, cell.picture, inner(corner, cell.picture));
    }
    let mut canvas = Canvas::new(&mut sheet);
    write(&mut canvas, title, (GAP, GAP), &FONT_10X20, Rgb888::WHITE);
    for (number, cell) in cells.iter().enumerate() {
        let (x, y) = corner(number, columns);
        let [red, green, blue] = cell.colour;
        let mark = Rectangle::new(pixel((x, y + CELL + 2)), Size::new(3, signed_side(TEXT - 6)));
        let style = PrimitiveStyle::with_fill(Rgb888::new(red, green, blue));
        let Ok(()) = mark.into_styled(style).draw(&mut canvas);
        write(&mut canvas, cell.name, (x + 8, y + CELL + 2), &FONT_6X10, Rgb888::WHITE);
        write(&mut canvas, cell.note, (x + 8, y + CELL + 13), &FONT_6X10, FAINT);
    }
    sheet
}

fn corner(number: usize, columns: usize) -> (usize, usize) {
    let (row, column) = (number / columns, number % columns);
    (GAP + column * (CELL + GAP), TITLE + row * (CELL + TEXT + GAP))
}

/// In the middle of its cell, at the foot.
fn inner((x, y): (usize, usize), picture: &Rgb) -> (usize, usize) {
    (x + CELL.saturating_sub(picture.width) / 2, y + CELL.saturating_sub(picture.height))
}

fn paste(sheet: &mut Rgb, picture: &Rgb, (x, y): (usize, usize)) {
    let (width, height) = (picture.width.min(CELL), picture.height.min(CELL));
    for row in 0..height {
        let from = 3 * row * picture.width;
        let to = 3 * ((y + row) * sheet.width + x);
        sheet.bytes[to..to + 3 * width].copy_from_slice(&picture.bytes[from..from + 3 * width]);
    }
}

fn write(canvas: &mut Canvas<'_>, text: &str, place: (usize, usize), font: &MonoFont<'_>, colour: Rgb888) {
    let style = MonoTextStyle::new(font, colour);
    let Ok(_) = Text::with_baseline(text, pixel(place), style, Baseline::Top).draw(canvas);
}

fn pixel((x, y): (usize, usize)) -> Pixel {
    Pixel::new(signed(signed_side(x)), signed(signed_side(y)))
}

fn signed_side(side: usize) -> u32 {
    u32::try_from(side).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(width: usize, height: usize, value: u8) -> Rgb {
        Rgb { width, height, bytes: vec![value; 3 * width * height] }
    }

    #[test]
    fn cells_stand_row_by_row_each_at_the_foot_of_its_place() {
        let (wide, high, large) = (grey(CELL, 20, 100), grey(10, CELL, 200), grey(CELL + 50, CELL + 50, 60));
        let pictures = [&wide, &high, &large, &wide, &wide, &wide, &high];
        let cell = |picture| Cell { picture, colour: [255, 0, 0], name: "person", note: "0:01" };
        let cells: Vec<_> = pictures.into_iter().map(cell).collect();
        let drawn = sheet("street.mp4", &cells);
        assert_eq!(drawn.width, GAP + 6 * (CELL + GAP));
        assert_eq!(drawn.height, TITLE + 2 * (CELL + TEXT + GAP) + GAP);
        for (number, picture) in pictures.into_iter().enumerate() {
            let (x, y) = corner(number, 6);
            let value = picture.bytes[0];
            assert_eq!(drawn.pixel(x + CELL / 2, y + CELL - 1), [value; 3], "{number}");
            assert_eq!(drawn.pixel(x, y + CELL + 3), [255, 0, 0], "{number}: its colour");
        }
        assert_eq!(drawn.pixel(GAP, TITLE), [24, 26, 30], "ground above the first");
    }

    #[test]
    fn few_cells_make_a_small_sheet() {
        assert_eq!(sheet("nobody", &[]).height, TITLE + GAP);
        let one = grey(5, 5, 1);
        let cells = [Cell { picture: &one, colour: [0; 3], name: "a", note: "" }];
        assert_eq!(sheet("one", &cells).width, 3 * CELL);
    }
}
