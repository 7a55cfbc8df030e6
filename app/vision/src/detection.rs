//! Boxes.

/// A place in the picture, in parts of its width and height.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    pub x: f32,
    pub y: f32,
}

/// A rectangle in parts of the picture's width and height; `x`, `y` is its left top corner.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rect {
    pub x: f32,
    pub y: f32,
    pub w: f32,
    pub h: f32,
}

impl Rect {
    /// Part of the picture that it covers, 0.0..=1.0 when it lies within.
    pub fn area(&self) -> f32 {
        self.w * self.h
    }

    pub fn centre(&self) -> Point {
        Point { x: self.x + self.w / 2.0, y: self.y + self.h / 2.0 }
    }

    /// Middle of the lower edge: where a thing that stands on the ground touches it.
    pub fn foot(&self) -> Point {
        Point { x: self.x + self.w / 2.0, y: self.y + self.h }
    }

    /// Area of the intersection over area of the union, 0.0..=1.0; 0 when either has no area.
    pub fn iou(&self, other: &Rect) -> f32 {
        let both = self.shared(other);
        if both <= 0.0 { 0.0 } else { both / (self.area() + other.area() - both) }
    }

    /// Area of the intersection.
    pub fn shared(&self, other: &Rect) -> f32 {
        let w = (self.x + self.w).min(other.x + other.w) - self.x.max(other.x);
        let h = (self.y + self.h).min(other.y + other.h) - self.y.max(other.y);
        w.max(0.0) * h.max(0.0)
    }
}

/// What a detector saw in one picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// Index into the model's labels.
    pub class: u16,
    /// 0.0..=1.0, finite.
    pub score: f32,
    /// Within the picture, with an area.
    pub rect: Rect,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iou_is_the_shared_part() {
        let check = |a: [f32; 4], b: [f32; 4], expected: f32| {
            let rect = |[x, y, w, h]: [f32; 4]| Rect { x, y, w, h };
            let found = rect(a).iou(&rect(b));
            assert!((found - expected).abs() < 1e-6, "{a:?} {b:?}: {found}");
        };
        check([0.1, 0.1, 0.2, 0.2], [0.1, 0.1, 0.2, 0.2], 1.0);
        check([0.0, 0.0, 0.2, 0.2], [0.1, 0.0, 0.2, 0.2], 1.0 / 3.0);
        check([0.0, 0.0, 0.2, 0.2], [0.2, 0.0, 0.2, 0.2], 0.0);
        check([0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], 0.0);
    }
}
