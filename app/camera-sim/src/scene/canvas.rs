//! I420 pictures and the few shapes that everything is drawn with.

use super::number::grain;

/// One picture in I420: full-size luma, then the two chroma planes at half width and half height.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture420 {
    width: usize,
    height: usize,
    planes: Vec<u8>,
}

impl Picture420 {
    /// A black picture. `width` and `height` in pixels, both even.
    pub fn new(width: usize, height: usize) -> Picture420 {
        assert!(
            width.is_multiple_of(2) && height.is_multiple_of(2),
            "I420 needs even sides: {width}x{height}"
        );
        let mut planes = vec![16; width * height];
        planes.resize(width * height * 3 / 2, 128);
        Picture420 { width, height, planes }
    }

    pub fn width(&self) -> usize {
        self.width
    }

    pub fn height(&self) -> usize {
        self.height
    }

    /// All three planes one after the other, without padding: `width * height * 3 / 2` bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.planes
    }

    /// `height` rows of `width` bytes.
    pub fn luma(&self) -> &[u8] {
        &self.planes[..self.width * self.height]
    }

    /// Luma, Cb, Cr.
    pub(crate) fn planes_mut(&mut self) -> (&mut [u8], &mut [u8], &mut [u8]) {
        let luma = self.width * self.height;
        let (y, chroma) = self.planes.split_at_mut(luma);
        let (u, v) = chroma.split_at_mut(luma / 4);
        (y, u, v)
    }

    pub(crate) fn copy_from(&mut self, other: &Picture420) {
        self.planes.copy_from_slice(&other.planes);
    }
}

/// A colour in BT.709 limited range, with a texture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint {
    pub y: u8,
    pub u: u8,
    pub v: u8,
    /// Power of two minus one: how much grain is added to the luma.
    pub grain: u8,
}

impl Paint {
    pub(crate) fn rgb(r: u8, g: u8, b: u8) -> Paint {
        let (r, g, b) = (i32::from(r), i32::from(g), i32::from(b));
        let y = 16 + (47 * r + 157 * g + 16 * b + 128) / 256;
        let u = 128 + (-26 * r - 87 * g + 112 * b) / 256;
        let v = 128 + (112 * r - 102 * g - 10 * b) / 256;
        Paint { y: y as u8, u: u as u8, v: v as u8, grain: 7 }
    }

    pub(crate) fn lighter(self, by: i16) -> Paint {
        Paint { y: (i16::from(self.y) + by).clamp(16, 235) as u8, ..self }
    }

    pub(crate) fn grain(self, grain: u8) -> Paint {
        Paint { grain, ..self }
    }
}

/// Something that takes horizontal runs of pixels. `x0..x1` and `y` lie inside the picture.
pub(crate) trait Surface {
    fn size(&self) -> (usize, usize);
    fn run(&mut self, y: usize, x0: usize, x1: usize, paint: Paint);
    /// Told the whole extent of each shape before it is cut at the borders: left, top, right, bottom.
    fn extent(&mut self, _bounds: [f32; 4]) {}
}

fn clipped_run<S: Surface + ?Sized>(surface: &mut S, y: usize, left: f32, right: f32, paint: Paint) {
    let (width, _) = surface.size();
    // A pixel belongs to the shape when its centre does.
    let x0 = (left - 0.5).ceil().max(0.0) as usize;
    let x1 = ((right - 0.5).ceil().max(0.0) as usize).min(width);
    if x0 < x1 {
        surface.run(y, x0, x1, paint);
    }
}

fn rows<S: Surface + ?Sized>(surface: &S, top: f32, bottom: f32) -> std::ops::Range<usize> {
    let (_, height) = surface.size();
    let y0 = (top - 0.5).ceil().max(0.0) as usize;
    let y1 = ((bottom - 0.5).ceil().max(0.0) as usize).min(height);
    y0..y1
}

/// Fills a polygon (even-odd rule, at most 16 corners), corners in pixels.
pub(crate) fn polygon<S: Surface + ?Sized>(surface: &mut S, corners: &[(f32, f32)], paint: Paint) {
    let mut bounds = [f32::MAX, f32::MAX, f32::MIN, f32::MIN];
    for &(x, y) in corners {
        bounds = [bounds[0].min(x), bounds[1].min(y), bounds[2].max(x), bounds[3].max(y)];
    }
    surface.extent(bounds);
    for y in rows(surface, bounds[1], bounds[3]) {
        let centre = y as f32 + 0.5;
        let mut crossings = [0.0_f32; 16];
        let mut count = 0;
        for (index, &(x0, y0)) in corners.iter().enumerate() {
            let (x1, y1) = corners[(index + 1) % corners.len()];
            if (y0 <= centre) != (y1 <= centre) && count < crossings.len() {
                crossings[count] = x0 + (centre - y0) / (y1 - y0) * (x1 - x0);
                count += 1;
            }
        }
        crossings[..count].sort_by(f32::total_cmp);
        for pair in crossings[..count].chunks_exact(2) {
            clipped_run(surface, y, pair[0], pair[1], paint);
        }
    }
}

pub(crate) fn rectangle<S: Surface + ?Sized>(surface: &mut S, [l, t, r, b]: [f32; 4], paint: Paint) {
    surface.extent([l, t, r, b]);
    for y in rows(surface, t, b) {
        clipped_run(surface, y, l, r, paint);
    }
}

pub(crate) fn ellipse<S: Surface + ?Sized>(
    surface: &mut S,
    (cx, cy): (f32, f32),
    (rx, ry): (f32, f32),
    paint: Paint,
) {
    surface.extent([cx - rx, cy - ry, cx + rx, cy + ry]);
    for y in rows(surface, cy - ry, cy + ry) {
        let t = (y as f32 + 0.5 - cy) / ry;
        let half = rx * (1.0 - t * t).max(0.0).sqrt();
        clipped_run(surface, y, cx - half, cx + half, paint);
    }
}

/// A limb: two discs and what lies between them.
pub(crate) fn limb<S: Surface + ?Sized>(
    surface: &mut S,
    (x0, y0): (f32, f32),
    (x1, y1): (f32, f32),
    (r0, r1): (f32, f32),
    paint: Paint,
) {
    let (dx, dy) = (x1 - x0, y1 - y0);
    let length = (dx * dx + dy * dy).sqrt().max(1e-3);
    let (nx, ny) = (-dy / length, dx / length);
    let corners = [
        (x0 + nx * r0, y0 + ny * r0),
        (x1 + nx * r1, y1 + ny * r1),
        (x1 - nx * r1, y1 - ny * r1),
        (x0 - nx * r0, y0 - ny * r0),
    ];
    polygon(surface, &corners, paint);
    ellipse(surface, (x0, y0), (r0, r0), paint);
    ellipse(surface, (x1, y1), (r1, r1), paint);
}

/// Darkens an ellipse of the ground: a shadow. `keep` of 256 parts of the light remain.
pub(crate) fn shade(picture: &mut Picture420, (cx, cy): (f32, f32), (rx, ry): (f32, f32), keep: u32) {
    struct Shade<'a>(&'a mut Picture420, u32);
    impl Surface for Shade<'_> {
        fn size(&self) -> (usize, usize) {
            (self.0.width, self.0.height)
        }
        fn run(&mut self, y: usize, x0: usize, x1: usize, _: Paint) {
            let row = y * self.0.width;
            for luma in &mut self.0.planes[row + x0..row + x1] {
                *luma = ((u32::from(*luma) * self.1) >> 8) as u8;
            }
        }
    }
    ellipse(&mut Shade(picture, keep), (cx, cy), (rx, ry), Paint { y: 0, u: 0, v: 0, grain: 0 });
}

/// Writes one run of a textured colour; chroma at the even pixels of even rows.
pub(crate) fn fill_run(picture: &mut Picture420, y: usize, x0: usize, x1: usize, paint: Paint) {
    let width = picture.width;
    let (luma, u, v) = picture.planes_mut();
    for x in x0..x1 {
        luma[y * width + x] = textured(paint, x, y);
    }
    if y.is_multiple_of(2) {
        let row = y / 2 * (width / 2);
        let (c0, c1) = (row + x0.div_ceil(2), row + x1.div_ceil(2));
        u[c0..c1].fill(paint.u);
        v[c0..c1].fill(paint.v);
    }
}

pub(crate) fn textured(paint: Paint, x: usize, y: usize) -> u8 {
    if paint.grain == 0 {
        return paint.y;
    }
    let noise = (grain(x as i32, y as i32, 77) & u32::from(paint.grain)) as u8;
    paint.y.saturating_add(noise).saturating_sub(paint.grain / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Plain(Picture420);
    impl Surface for Plain {
        fn size(&self) -> (usize, usize) {
            (self.0.width, self.0.height)
        }
        fn run(&mut self, y: usize, x0: usize, x1: usize, paint: Paint) {
            fill_run(&mut self.0, y, x0, x1, paint);
        }
    }

    #[test]
    fn shapes_partly_or_wholly_outside_are_cut_at_the_borders() {
        let mut plain = Plain(Picture420::new(32, 16));
        let white = Paint { y: 200, u: 128, v: 128, grain: 0 };
        rectangle(&mut plain, [-10.0, -10.0, 2.0, 2.0], white);
        ellipse(&mut plain, (500.0, 500.0), (9.0, 9.0), white);
        polygon(&mut plain, &[(-5.0, -5.0), (-1.0, 300.0), (-9.0, 4.0)], white);
        assert_eq!(plain.0.luma().iter().filter(|&&y| y == 200).count(), 4);
    }

    #[test]
    fn a_triangle_covers_half_of_its_rectangle() {
        let mut plain = Plain(Picture420::new(64, 64));
        let white = Paint { y: 200, u: 128, v: 128, grain: 0 };
        polygon(&mut plain, &[(0.0, 0.0), (64.0, 0.0), (0.0, 64.0)], white);
        let filled = plain.0.luma().iter().filter(|&&y| y == 200).count();
        assert!((1984..=2112).contains(&filled), "{filled} of 4096");
    }
}
