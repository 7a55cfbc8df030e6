//! What the detector, the tracker and the rules see, drawn into a picture for people: boxes with labels and track
//! numbers, zones, lines and a header.
//!
//! For annotated video and snapshots; nothing that is sent to the cloud recording passes here. Colours stand for
//! classes. Fonts are the fixed ones of embedded-graphics (Latin-1; other characters become question marks), chosen by
//! the height of the picture, so that no font file is needed. Whatever lies outside of the picture is cut off.

mod canvas;
pub mod sheet;

use embedded_graphics::mono_font::iso_8859_1::{FONT_6X10, FONT_8X13_BOLD, FONT_10X20};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::prelude::{Drawable, Point as Pixel, Primitive, Size};
use embedded_graphics::primitives::{
    Line as Stroke, PrimitiveStyle, PrimitiveStyleBuilder, Rectangle, StrokeAlignment, Triangle,
};
use embedded_graphics::text::{Baseline, Text};

use crate::rgb::Rgb;
use crate::rules::{Line, Zone};
use crate::{Point, Rect};
use canvas::Canvas;

/// By class, in turns: far apart in hue, bright enough for dark pictures.
const CLASS_COLOURS: [Rgb888; 10] = [
    Rgb888::new(64, 224, 80),
    Rgb888::new(72, 160, 255),
    Rgb888::new(255, 120, 64),
    Rgb888::new(240, 96, 224),
    Rgb888::new(64, 224, 224),
    Rgb888::new(255, 88, 96),
    Rgb888::new(176, 144, 255),
    Rgb888::new(160, 208, 48),
    Rgb888::new(255, 176, 192),
    Rgb888::new(208, 160, 112),
];
const ZONE_COLOUR: Rgb888 = Rgb888::new(255, 204, 0);
const LINE_COLOUR: Rgb888 = Rgb888::new(255, 255, 255);

/// Part of a zone's colour in its area, of 256.
const ZONE_TINT: u16 = 40;
/// Part of black behind the header, of 256.
const HEADER_SHADE: u16 = 150;

/// One box with its text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mark<'a> {
    pub rect: Rect,
    pub class: u16,
    pub label: &'a str,
    /// 0.0..=1.0.
    pub score: f32,
    /// Number of its track.
    pub track: Option<u64>,
    /// False draws a thinner line: the tracker believes that it is there, the detector did not see it.
    pub seen_now: bool,
}

/// Everything that is drawn on one picture. Coordinates are parts of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scene<'a> {
    /// Camera and time, say; empty: no header.
    pub header: &'a str,
    pub zones: &'a [Zone],
    pub lines: &'a [Line],
    pub marks: &'a [Mark<'a>],
}

/// Colour of a class, red, green and blue.
pub fn class_colour(class: u16) -> [u8; 3] {
    let colour = CLASS_COLOURS[usize::from(class) % CLASS_COLOURS.len()];
    [colour.r(), colour.g(), colour.b()]
}

/// Draws the header, zones and lines, then boxes. Texts keep out of the header.
pub fn draw(picture: &mut Rgb, scene: &Scene<'_>) {
    let mut pen = Pen::new(Canvas::new(picture));
    pen.header(scene.header);
    for zone in scene.zones {
        pen.zone(zone);
    }
    for line in scene.lines {
        pen.line(line);
    }
    // The best last, so that it is on top.
    let mut marks: Vec<&Mark<'_>> = scene.marks.iter().collect();
    marks.sort_by(|a, b| a.score.total_cmp(&b.score));
    for mark in marks {
        pen.mark(mark);
    }
}

struct Pen<'a> {
    canvas: Canvas<'a>,
    font: &'static MonoFont<'static>,
    thickness: u32,
    /// First row below the header.
    top: i32,
}

impl<'a> Pen<'a> {
    fn new(canvas: Canvas<'a>) -> Pen<'a> {
        let (font, thickness) = match canvas.height() {
            0..400 => (&FONT_6X10, 1),
            400..900 => (&FONT_8X13_BOLD, 2),
            _ => (&FONT_10X20, 3),
        };
        Pen { canvas, font, thickness, top: 0 }
    }

    fn zone(&mut self, zone: &Zone) {
        let corners: Vec<Pixel> = zone.polygon.iter().map(|&corner| self.pixel(corner)).collect();
        let Some(&first) = corners.iter().min_by_key(|corner| (corner.y, corner.x)) else { return };
        self.canvas.tint(&corners, ZONE_COLOUR, ZONE_TINT);
        for (&from, &to) in corners.iter().zip(corners.iter().cycle().skip(1)) {
            self.stroke(from, to, ZONE_COLOUR);
        }
        self.tag(&zone.name, first, ZONE_COLOUR);
    }

    /// With an arrow from its middle to its left side, the way of those that come in.
    fn line(&mut self, line: &Line) {
        let (from, to) = (self.pixel(line.from), self.pixel(line.to));
        self.stroke(from, to, LINE_COLOUR);
        let middle = (from + to) / 2;
        if let Some(left) = unit(Pixel::new(to.y - from.y, from.x - to.x)) {
            let long = self.font.character_size.height as f32 * 1.5;
            let place = |ahead: f32, aside: f32| {
                let along = [left[0] * ahead - left[1] * aside, left[1] * ahead + left[0] * aside];
                middle + Pixel::new(rounded(along[0]), rounded(along[1]))
            };
            let head = Triangle::new(
                place(long, 0.0),
                place(long * 0.5, long * 0.4),
                place(long * 0.5, -long * 0.4),
            );
            let Ok(()) = head.into_styled(PrimitiveStyle::with_fill(LINE_COLOUR)).draw(&mut self.canvas);
            self.stroke(middle, place(long * 0.6, 0.0), LINE_COLOUR);
        }
        self.tag(&line.name, from, LINE_COLOUR);
    }

    fn mark(&mut self, mark: &Mark<'_>) {
        let Rect { x, y, w, h } = mark.rect;
        let (first, last) = (self.pixel(Point { x, y }), self.pixel(Point { x: x + w, y: y + h }));
        let last = (last - Pixel::new(1, 1)).component_max(first);
        let colour = CLASS_COLOURS[usize::from(mark.class) % CLASS_COLOURS.len()];
        let style = PrimitiveStyleBuilder::new()
            .stroke_color(colour)
            .stroke_width(if mark.seen_now { self.thickness } else { 1 })
            .stroke_alignment(StrokeAlignment::Inside)
            .build();
        let Ok(()) = Rectangle::with_corners(first, last).into_styled(style).draw(&mut self.canvas);
        let percent = rounded(mark.score * 100.0).clamp(0, 100);
        let text = match mark.track {
            Some(track) => format!("{} #{track} {percent}%", mark.label),
            None => format!("{} {percent}%", mark.label),
        };
        self.tag(&text, first, colour);
    }

    fn header(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        let strip = Size::new(self.canvas.width(), self.font.character_size.height + 6);
        self.canvas.shade(Rectangle::new(Pixel::zero(), strip), HEADER_SHADE);
        self.top = signed(strip.height);
        self.text(text, Pixel::new(6, 3), Rgb888::WHITE);
    }

    /// Text on a filled ground, above `place` where there is room for it, else below, and within the picture's width.
    fn tag(&mut self, text: &str, place: Pixel, ground: Rgb888) {
        if text.is_empty() {
            return;
        }
        let font = self.font.character_size;
        let letters = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
        let size = Size::new(font.width.saturating_mul(letters).saturating_add(6), font.height + 2);
        let room = signed(self.canvas.width()).saturating_sub(signed(size.width));
        let above = place.y - signed(size.height);
        let corner = Pixel::new(
            place.x.min(room).max(0),
            if above >= self.top { above } else { place.y.max(self.top) },
        );
        let Ok(()) = Rectangle::new(corner, size)
            .into_styled(PrimitiveStyle::with_fill(ground))
            .draw(&mut self.canvas);
        // All grounds are bright.
        self.text(text, corner + Pixel::new(3, 1), Rgb888::BLACK);
    }

    fn text(&mut self, text: &str, corner: Pixel, colour: Rgb888) {
        let style = MonoTextStyle::new(self.font, colour);
        let Ok(_) = Text::with_baseline(text, corner, style, Baseline::Top).draw(&mut self.canvas);
    }

    fn stroke(&mut self, from: Pixel, to: Pixel, colour: Rgb888) {
        let style = PrimitiveStyle::with_stroke(colour, self.thickness);
        let Ok(()) = Stroke::new(from, to).into_styled(style).draw(&mut self.canvas);
    }

    /// Of parts of the picture; beyond the picture by no more than its size, which bounds the work of drawing.
    fn pixel(&self, point: Point) -> Pixel {
        let at = |part: f32, side: u32| rounded(part.clamp(-1.0, 2.0) * side as f32).min(2 * signed(side));
        Pixel::new(at(point.x, self.canvas.width()), at(point.y, self.canvas.height()))
    }
}

/// The same direction with a length of 1; `None` for no direction.
fn unit(direction: Pixel) -> Option<[f32; 2]> {
    let [x, y] = [direction.x as f32, direction.y as f32];
    let length = x.hypot(y);
    (length > 0.0).then_some([x / length, y / length])
}

#[expect(clippy::cast_possible_truncation, reason = "saturates")]
fn rounded(value: f32) -> i32 {
    value.round() as i32
}

fn signed(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
