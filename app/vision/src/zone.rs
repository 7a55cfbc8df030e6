//! Geometry of zones and lines.
//!
//! A foot that rests exactly on a border must not depend on rounding, and boxes that the picture's lower edge cuts
//! have their feet at exactly 1.0: so a polygon's boundary belongs to it, within [`ON_BORDER`].

use crate::Point;

/// Points this close to a polygon's edge are on it: some 1/100 of a sample of an 8K picture.
const ON_BORDER: f64 = 1e-6;

/// The least area of a polygon and the least length of a line, parts of the picture.
const LEAST_AREA: f64 = 1e-5;
const LEAST_LENGTH: f64 = 1e-3;

/// More corners than anybody draws; checking for crossing edges takes the square of it.
pub const MAX_CORNERS: usize = 128;

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ShapeError {
    #[error("{found} corners, expected 3 to {MAX_CORNERS}")]
    Corners { found: usize },
    #[error("corner {corner} is at ({x}, {y}), expected parts of the picture from 0.0 to 1.0")]
    Outside { corner: usize, x: f32, y: f32 },
    #[error("corner {corner} repeats corner {before}; name each corner once, the last edge closes by itself")]
    Repeated { corner: usize, before: usize },
    #[error("edges {first} and {second} cross or touch; list the corners in the order of the outline")]
    Crossing { first: usize, second: usize },
    #[error("an area of {found:.7} of the picture, expected at least {LEAST_AREA}")]
    Area { found: f64 },
    #[error("from ({x}, {y}) to the same place, expected two different points")]
    NoLength { x: f32, y: f32 },
}

/// A simple polygon (no edge meets another) that lies in the picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Polygon {
    corners: Vec<Point>,
}

impl Polygon {
    /// Corners and edges are counted from 1 in errors; edge n runs from corner n to the next one.
    pub fn new(corners: &[Point]) -> Result<Polygon, ShapeError> {
        if !(3..=MAX_CORNERS).contains(&corners.len()) {
            return Err(ShapeError::Corners { found: corners.len() });
        }
        check_inside(corners)?;
        let count = corners.len();
        for n in 0..count {
            let before = (n + count - 1) % count;
            if distance(corners[n], corners[before]) <= ON_BORDER {
                let (corner, before) = (n.max(before) + 1, n.min(before) + 1);
                return Err(ShapeError::Repeated { corner, before });
            }
        }
        let edge = |n: usize| (corners[n], corners[(n + 1) % count]);
        for first in 0..count {
            for second in first + 1..count {
                let meet = if second == first + 1 {
                    folds_back(edge(first), edge(second))
                } else if first == 0 && second == count - 1 {
                    folds_back(edge(second), edge(first))
                } else {
                    touch(edge(first), edge(second))
                };
                if meet {
                    return Err(ShapeError::Crossing { first: first + 1, second: second + 1 });
                }
            }
        }
        let polygon = Polygon { corners: corners.to_vec() };
        match polygon.area() {
            area if area < LEAST_AREA => Err(ShapeError::Area { found: area }),
            _ => Ok(polygon),
        }
    }

    pub fn corners(&self) -> &[Point] {
        &self.corners
    }

    /// Part of the picture that it covers.
    pub fn area(&self) -> f64 {
        let twice: f64 = self
            .edges()
            .map(|(a, b)| f64::from(a.x) * f64::from(b.y) - f64::from(b.x) * f64::from(a.y))
            .sum();
        twice.abs() / 2.0
    }

    /// Even-odd; the boundary is inside. Not for a point that is not finite.
    pub fn contains(&self, point: Point) -> bool {
        let (x, y) = (f64::from(point.x), f64::from(point.y));
        let mut inside = false;
        for (a, b) in self.edges() {
            if distance_to_segment(point, a, b) <= ON_BORDER {
                return true;
            }
            let (ax, ay, bx, by) = (f64::from(a.x), f64::from(a.y), f64::from(b.x), f64::from(b.y));
            if (ay > y) != (by > y) && x < ax + (y - ay) / (by - ay) * (bx - ax) {
                inside = !inside;
            }
        }
        inside && x.is_finite()
    }

    /// Distance to the boundary in parts of the picture (both axes alike), from inside or outside.
    pub fn distance(&self, point: Point) -> f64 {
        self.edges().map(|(a, b)| distance_to_segment(point, a, b)).fold(f64::INFINITY, f64::min)
    }

    fn edges(&self) -> impl Iterator<Item = (Point, Point)> {
        let next = self.corners.iter().cycle().skip(1);
        self.corners.iter().zip(next).map(|(a, b)| (*a, *b))
    }
}

/// Where a point is when looking from a line's `from` to its `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
}

/// A line from one point to another, both in the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Segment {
    from: Point,
    to: Point,
}

impl Segment {
    pub fn new(from: Point, to: Point) -> Result<Segment, ShapeError> {
        check_inside(&[from, to])?;
        if distance(from, to) < LEAST_LENGTH {
            return Err(ShapeError::NoLength { x: from.x, y: from.y });
        }
        Ok(Segment { from, to })
    }

    pub fn ends(&self) -> (Point, Point) {
        (self.from, self.to)
    }

    /// `None` within `slack` (parts of the picture) of the line or of its lengthening.
    pub fn side(&self, point: Point, slack: f64) -> Option<Side> {
        let off = turn(self.from, self.to, point) / distance(self.from, self.to);
        match off {
            off if off < -slack => Some(Side::Left), // y points down
            off if off > slack => Some(Side::Right),
            _ => None,
        }
    }

    /// Whether the straight way from `a` to `b` meets it. Ends count on both.
    pub fn meets(&self, a: Point, b: Point) -> bool {
        touch((self.from, self.to), (a, b))
    }
}

fn check_inside(points: &[Point]) -> Result<(), ShapeError> {
    for (n, Point { x, y }) in points.iter().enumerate() {
        if !(0.0..=1.0).contains(x) || !(0.0..=1.0).contains(y) {
            return Err(ShapeError::Outside { corner: n + 1, x: *x, y: *y });
        }
    }
    Ok(())
}

/// Twice the signed area of the triangle: positive when `c` is to the right of the way from `a` to `b`, on a screen.
/// Differences of `f32` in parts of the picture are exact in `f64`, and so nearly are their products.
fn turn(a: Point, b: Point, c: Point) -> f64 {
    let d = |from: f32, to: f32| f64::from(to) - f64::from(from);
    d(a.x, b.x) * d(a.y, c.y) - d(a.y, b.y) * d(a.x, c.x)
}

fn distance(a: Point, b: Point) -> f64 {
    (f64::from(a.x) - f64::from(b.x)).hypot(f64::from(a.y) - f64::from(b.y))
}

fn distance_to_segment(point: Point, a: Point, b: Point) -> f64 {
    let (x, y) = (f64::from(point.x) - f64::from(a.x), f64::from(point.y) - f64::from(a.y));
    let (dx, dy) = (f64::from(b.x) - f64::from(a.x), f64::from(b.y) - f64::from(a.y));
    let along = ((x * dx + y * dy) / (dx * dx + dy * dy)).clamp(0.0, 1.0);
    (x - along * dx).hypot(y - along * dy)
}

/// Whether two segments share a point.
fn touch((a, b): (Point, Point), (c, d): (Point, Point)) -> bool {
    let (c_side, d_side) = (turn(a, b, c), turn(a, b, d));
    let (a_side, b_side) = (turn(c, d, a), turn(c, d, b));
    if c_side * d_side < 0.0 && a_side * b_side < 0.0 {
        return true;
    }
    let within = |p: Point, q: Point, r: Point| {
        p.x.min(q.x) <= r.x && r.x <= p.x.max(q.x) && p.y.min(q.y) <= r.y && r.y <= p.y.max(q.y)
    };
    (c_side == 0.0 && within(a, b, c))
        || (d_side == 0.0 && within(a, b, d))
        || (a_side == 0.0 && within(c, d, a))
        || (b_side == 0.0 && within(c, d, b))
}

/// Whether the second of two edges that share a corner runs back over the first.
fn folds_back((a, b): (Point, Point), (_, c): (Point, Point)) -> bool {
    let d = |from: f32, to: f32| f64::from(to) - f64::from(from);
    turn(a, b, c) == 0.0 && d(a.x, b.x) * d(b.x, c.x) + d(a.y, b.y) * d(b.y, c.y) < 0.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn points<const N: usize>(points: [(f32, f32); N]) -> Vec<Point> {
        points.iter().map(|&(x, y)| Point { x, y }).collect()
    }

    #[test]
    fn boundary_belongs_to_the_polygon() {
        // An L: the square without its right upper quarter.
        let corners = points([(0.2, 0.2), (0.6, 0.2), (0.6, 0.6), (1.0, 0.6), (1.0, 1.0), (0.2, 1.0)]);
        let polygon = Polygon::new(&corners).unwrap();
        let check = |x, y, expected| assert_eq!(polygon.contains(Point { x, y }), expected, "({x}, {y})");
        check(0.4, 0.4, true);
        check(0.8, 0.8, true);
        check(0.8, 0.4, false);
        check(0.1, 0.6, false);
        check(0.1, 0.2, false); // level with corners
        check(0.1, 1.0, false);
        check(0.2, 0.2, true); // corner
        check(0.6, 0.6, true); // inner corner
        check(0.6, 0.4, true); // edges
        check(0.8, 0.6, true);
        check(0.5, 1.0, true); // lower edge of the picture
        check(0.60001, 0.4, false);
        check(f32::NAN, 0.4, false);
        check(0.4, f32::NAN, false);
        check(f32::INFINITY, 0.4, false);
        assert!((polygon.area() - 0.48).abs() < 1e-6);
        assert!((polygon.distance(Point { x: 0.4, y: 0.5 }) - 0.2).abs() < 1e-6);
        assert!((polygon.distance(Point { x: 0.1, y: 0.5 }) - 0.1).abs() < 1e-6);
    }

    #[test]
    fn wrong_polygons_are_told_apart() {
        let check = |corners: Vec<Point>, expected: &str| {
            assert_eq!(Polygon::new(&corners).unwrap_err().to_string(), expected);
        };
        check(points([(0.0, 0.0), (1.0, 1.0)]), "2 corners, expected 3 to 128");
        check(vec![Point::default(); 129], "129 corners, expected 3 to 128");
        let outside = "corner 2 is at (1.5, 0), expected parts of the picture from 0.0 to 1.0";
        check(points([(0.0, 0.0), (1.5, 0.0), (1.0, 1.0)]), outside);
        let nan = "corner 3 is at (1, NaN), expected parts of the picture from 0.0 to 1.0";
        check(points([(0.0, 0.0), (0.5, 0.0), (1.0, f32::NAN)]), nan);
        let closed = "corner 4 repeats corner 1; name each corner once, the last edge closes by itself";
        check(points([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 0.0)]), closed);
        let bow = "edges 1 and 3 cross or touch; list the corners in the order of the outline";
        check(points([(0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0)]), bow);
        let flat = "edges 1 and 2 cross or touch; list the corners in the order of the outline";
        check(points([(0.0, 0.0), (1.0, 0.0), (0.5, 0.0)]), flat);
        let spike = "edges 1 and 3 cross or touch; list the corners in the order of the outline";
        check(points([(0.5, 0.0), (0.5, 1.0), (1.0, 1.0), (0.5, 0.5)]), spike);
        let thin = points([(0.0, 0.0), (1.0, 0.0), (1.0, 0.000_005)]);
        check(thin, "an area of 0.0000025 of the picture, expected at least 0.00001");
    }

    #[test]
    fn sides_are_as_seen_along_the_line() {
        let line = Segment::new(Point { x: 0.2, y: 0.5 }, Point { x: 0.8, y: 0.5 }).unwrap();
        let side = |x, y, slack| line.side(Point { x, y }, slack);
        assert_eq!(side(0.5, 0.4, 0.0), Some(Side::Left)); // looking to the right, up is left
        assert_eq!(side(0.5, 0.6, 0.0), Some(Side::Right));
        assert_eq!(side(0.5, 0.5, 0.0), None);
        assert_eq!(side(0.5, 0.48, 0.03), None);
        assert_eq!(side(0.9, 0.46, 0.03), Some(Side::Left)); // beside its end too
        assert_eq!(side(f32::NAN, 0.4, 0.0), None);
        let meets =
            |a: (f32, f32), b: (f32, f32)| line.meets(Point { x: a.0, y: a.1 }, Point { x: b.0, y: b.1 });
        assert!(meets((0.5, 0.4), (0.6, 0.6)));
        assert!(meets((0.8, 0.4), (0.8, 0.6))); // through its end
        assert!(meets((0.5, 0.4), (0.5, 0.5))); // up to it
        assert!(!meets((0.9, 0.4), (0.9, 0.6)));
        assert!(!meets((0.5, 0.4), (0.5, 0.49)));
        assert!(!meets((0.9, 0.5), (1.0, 0.5))); // in line with it
        let point = Point { x: 0.3, y: 0.3 };
        assert_eq!(Segment::new(point, point), Err(ShapeError::NoLength { x: 0.3, y: 0.3 }));
        assert!(matches!(
            Segment::new(point, Point { x: 0.3, y: -0.1 }),
            Err(ShapeError::Outside { corner: 2, .. })
        ));
    }

    proptest! {
        /// Stars around a centre are simple polygons; what is nearer than the inner radius is inside, what is
        /// farther than the outer one is not.
        #[test]
        fn inside_is_inside_however_the_outline_runs(
            radii in proptest::collection::vec(0.2_f32..0.4, 5..40),
            angle in 0.0_f32..6.2,
            backwards: bool,
        ) {
            let n = radii.len() as f32;
            let at = |radius: f32, angle: f32| Point { x: 0.5 + radius * angle.cos(), y: 0.5 + radius * angle.sin() };
            let mut corners: Vec<Point> =
                radii.iter().enumerate().map(|(i, radius)| at(*radius, i as f32 / n * std::f32::consts::TAU)).collect();
            if backwards {
                corners.reverse();
            }
            let polygon = Polygon::new(&corners).unwrap();
            // The edge between two corners comes no nearer than radius * cos(half the angle between them).
            prop_assert!(polygon.contains(at(0.2 * (std::f32::consts::PI / n).cos() * 0.99, angle)));
            prop_assert!(!polygon.contains(at(0.401, angle)));
        }

        #[test]
        fn any_corners_give_a_polygon_or_an_error(
            corners in proptest::collection::vec((-0.2_f32..1.2, -0.2_f32..1.2), 0..8),
        ) {
            let corners: Vec<Point> = corners.into_iter().map(|(x, y)| Point { x, y }).collect();
            if let Ok(polygon) = Polygon::new(&corners) {
                prop_assert!(corners.iter().all(|corner| polygon.contains(*corner)));
                prop_assert!(polygon.area() > 0.0);
            }
        }
    }
}
