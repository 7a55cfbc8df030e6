//! Draws one figure after the other and keeps account of who covers whom, pixel by pixel.

use super::canvas::{Paint, Picture420, Surface, fill_run};

/// Planes as large as the picture. Figures are drawn from the farthest to the nearest, so a later one covers
/// earlier ones; trees and poles are compared by the ground row on which they stand.
pub(crate) struct Layers {
    width: usize,
    /// Number of the figure that is seen at each pixel, 0 for none.
    owner: Vec<u8>,
    /// Number of the figure that was drawn last at each pixel, hidden or not.
    touched: Vec<u8>,
    /// By figure number.
    visible: Vec<u32>,
}

/// The account of one figure after all have been drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Visibility {
    /// Box of the visible pixels: left, top, right, bottom, the last two exclusive.
    pub bounds: [usize; 4],
    /// Part of the whole figure that can be seen, 0.0..=1.0.
    pub visible: f32,
}

/// What is known of a figure as soon as it has been drawn.
pub(crate) struct Drawn {
    number: u8,
    extent: [f32; 4],
    covered: u32,
}

pub(crate) struct Figure<'a> {
    picture: &'a mut Picture420,
    standing: &'a [u16],
    layers: &'a mut Layers,
    row: u16,
    drawn: Drawn,
}

impl Layers {
    pub(crate) fn new(width: usize, height: usize) -> Layers {
        Layers { width, owner: vec![0; width * height], touched: vec![0; width * height], visible: vec![0] }
    }

    pub(crate) fn clear(&mut self) {
        self.owner.fill(0);
        self.touched.fill(0);
        self.visible.truncate(1);
    }

    /// The surface for the next figure, whose feet are at `row`; `None` when all 255 numbers are used up.
    pub(crate) fn figure<'a>(
        &'a mut self,
        picture: &'a mut Picture420,
        standing: &'a [u16],
        row: f32,
    ) -> Option<Figure<'a>> {
        let number = u8::try_from(self.visible.len()).ok()?;
        self.visible.push(0);
        let drawn = Drawn { number, extent: [f32::MAX, f32::MAX, f32::MIN, f32::MIN], covered: 0 };
        Some(Figure { picture, standing, layers: self, row: row.clamp(1.0, 65535.0) as u16, drawn })
    }

    /// What is left to see of a figure; `None` when nothing is.
    pub(crate) fn visibility(&self, drawn: &Drawn) -> Option<Visibility> {
        let visible = self.visible[usize::from(drawn.number)];
        if visible == 0 {
            return None;
        }
        let height = self.owner.len() / self.width;
        let [l, t, r, b] = drawn.extent;
        let columns = (l.max(0.0) as usize)..(r.ceil().max(0.0) as usize + 1).min(self.width);
        let rows = (t.max(0.0) as usize)..(b.ceil().max(0.0) as usize + 1).min(height);
        let mut bounds = [usize::MAX, usize::MAX, 0, 0];
        for y in rows {
            let row = &self.owner[y * self.width..][columns.clone()];
            let Some(first) = row.iter().position(|&owner| owner == drawn.number) else { continue };
            let last = row.iter().rposition(|&owner| owner == drawn.number).unwrap_or(first);
            bounds[0] = bounds[0].min(columns.start + first);
            bounds[1] = bounds[1].min(y);
            bounds[2] = bounds[2].max(columns.start + last + 1);
            bounds[3] = y + 1;
        }
        // The part beyond the borders has no pixels to count; the extent tells how large it is.
        let (width, height) = (self.width as f32, height as f32);
        let inside = (r.min(width) - l.max(0.0)).max(0.0) * (b.min(height) - t.max(0.0)).max(0.0);
        let inside = inside / ((r - l) * (b - t)).max(1e-3);
        Some(Visibility { bounds, visible: (visible as f32 / drawn.covered as f32 * inside).clamp(0.0, 1.0) })
    }
}

impl Figure<'_> {
    pub(crate) fn finish(self) -> Drawn {
        self.drawn
    }
}

impl Surface for Figure<'_> {
    fn size(&self) -> (usize, usize) {
        (self.picture.width(), self.picture.height())
    }

    fn extent(&mut self, [l, t, r, b]: [f32; 4]) {
        let extent = &mut self.drawn.extent;
        *extent = [extent[0].min(l), extent[1].min(t), extent[2].max(r), extent[3].max(b)];
    }

    fn run(&mut self, y: usize, x0: usize, x1: usize, paint: Paint) {
        let number = self.drawn.number;
        let row = y * self.layers.width;
        let mut start = x0;
        for x in x0..x1 {
            let at = row + x;
            if self.layers.touched[at] != number {
                self.layers.touched[at] = number;
                self.drawn.covered += 1;
            }
            if self.standing[at] > self.row {
                if start < x {
                    fill_run(self.picture, y, start, x, paint);
                }
                start = x + 1;
                continue;
            }
            let before = std::mem::replace(&mut self.layers.owner[at], number);
            if before != number {
                if before != 0 {
                    self.layers.visible[usize::from(before)] -= 1;
                }
                self.layers.visible[usize::from(number)] += 1;
            }
        }
        if start < x1 {
            fill_run(self.picture, y, start, x1, paint);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::canvas::rectangle;
    use super::*;

    const GREY: Paint = Paint { y: 90, u: 128, v: 128, grain: 0 };

    fn square(layers: &mut Layers, standing: &[u16], row: f32, bounds: [f32; 4]) -> Drawn {
        let mut picture = Picture420::new(40, 20);
        let mut figure = layers.figure(&mut picture, standing, row).unwrap();
        rectangle(&mut figure, bounds, GREY);
        figure.finish()
    }

    #[test]
    fn a_nearer_figure_takes_pixels_from_the_one_behind() {
        let (mut layers, standing) = (Layers::new(40, 20), vec![0; 800]);
        let behind = square(&mut layers, &standing, 12.0, [0.0, 0.0, 10.0, 10.0]);
        let before = square(&mut layers, &standing, 14.0, [6.0, 0.0, 16.0, 10.0]);
        assert_eq!(layers.visibility(&behind), Some(Visibility { bounds: [0, 0, 6, 10], visible: 0.6 }));
        assert_eq!(layers.visibility(&before), Some(Visibility { bounds: [6, 0, 16, 10], visible: 1.0 }));
    }

    #[test]
    fn a_pole_hides_what_is_behind_it_and_not_what_is_before_it() {
        let mut standing = vec![0; 800];
        (0..20).for_each(|y| standing[y * 40..y * 40 + 5].fill(13));
        let mut layers = Layers::new(40, 20);
        let behind = square(&mut layers, &standing, 12.0, [0.0, 0.0, 10.0, 10.0]);
        assert_eq!(layers.visibility(&behind), Some(Visibility { bounds: [5, 0, 10, 10], visible: 0.5 }));
        layers.clear();
        let before = square(&mut layers, &standing, 14.0, [0.0, 0.0, 10.0, 10.0]);
        assert_eq!(layers.visibility(&before), Some(Visibility { bounds: [0, 0, 10, 10], visible: 1.0 }));
    }

    #[test]
    fn what_lies_outside_of_the_picture_counts_as_hidden() {
        let (mut layers, standing) = (Layers::new(40, 20), vec![0; 800]);
        let drawn = square(&mut layers, &standing, 12.0, [-30.0, 0.0, 10.0, 10.0]);
        assert_eq!(layers.visibility(&drawn), Some(Visibility { bounds: [0, 0, 10, 10], visible: 0.25 }));
    }
}
