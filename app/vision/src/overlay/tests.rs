use proptest::prelude::*;

use super::*;

fn mark(rect: [f32; 4], class: u16) -> Mark<'static> {
    let [x, y, w, h] = rect;
    let rect = Rect { x, y, w, h };
    Mark { rect, class, label: "person", score: 0.87, track: Some(12), seen_now: true }
}

fn zone(corners: &[(f32, f32)]) -> Zone {
    Zone {
        name: "Einfahrt Süd".into(),
        polygon: corners.iter().map(|&(x, y)| Point { x, y }).collect(),
        labels: Vec::new(),
        dwell_ms: 0,
        severity: None,
    }
}

fn line(from: (f32, f32), to: (f32, f32)) -> Line {
    let point = |(x, y): (f32, f32)| Point { x, y };
    Line { name: "gate".into(), from: point(from), to: point(to), labels: Vec::new() }
}

fn grey(width: usize, height: usize) -> Rgb {
    let mut picture = Rgb::new(width, height);
    picture.bytes.fill(100);
    picture
}

#[test]
fn a_box_has_lines_on_its_edges_and_its_text_above() {
    let mut picture = grey(1280, 720);
    draw(&mut picture, &Scene { marks: &[mark([0.25, 0.5, 0.25, 0.25], 1)], ..Scene::default() });
    let colour = class_colour(1);
    for (x, y) in [(320, 360), (321, 450), (638, 450), (500, 361), (500, 538)] {
        assert_eq!(picture.pixel(x, y), colour, "{x}, {y}");
    }
    for (x, y) in [(319, 450), (323, 450), (500, 364), (636, 450), (642, 450), (500, 542)] {
        assert_eq!(picture.pixel(x, y), [100; 3], "{x}, {y}");
    }
    // "person #12 87%": 14 letters of 8 pixels on a ground of 118 by 15.
    let letters = (320..438).flat_map(|x| (345..360).map(move |y| (x, y)));
    let black = letters.clone().filter(|&(x, y)| picture.pixel(x, y) == [0; 3]).count();
    let ground = letters.filter(|&(x, y)| picture.pixel(x, y) == colour).count();
    assert_eq!(black + ground, 118 * 15);
    assert!((200..700).contains(&black), "{black}");
    assert_eq!(picture.pixel(438, 350), [100; 3]);
}

#[test]
fn a_text_without_room_above_stays_in_the_picture() {
    let mut picture = grey(640, 480);
    draw(&mut picture, &Scene { marks: &[mark([0.95, 0.0, 0.05, 0.25], 0)], ..Scene::default() });
    assert_eq!(picture.pixel(640 - 118, 0), class_colour(0));
    assert_eq!(picture.pixel(640 - 119, 0), [100; 3]);

    let mut picture = grey(640, 480);
    draw(
        &mut picture,
        &Scene { header: "yard", marks: &[mark([0.5, 0.0, 0.05, 0.25], 0)], ..Scene::default() },
    );
    assert_eq!(picture.pixel(322, 18), [41; 3]);
    assert_eq!(picture.pixel(322, 19), class_colour(0));
}

#[test]
fn what_the_detector_did_not_see_has_a_thin_line() {
    let mut picture = grey(1280, 720);
    let marks = [Mark { seen_now: false, ..mark([0.25, 0.5, 0.25, 0.25], 1) }];
    draw(&mut picture, &Scene { marks: &marks, ..Scene::default() });
    assert_eq!([picture.pixel(320, 450), picture.pixel(321, 450)], [class_colour(1), [100; 3]]);
}

#[test]
fn a_zone_is_tinted_inside_only() {
    let mut picture = grey(640, 480);
    // An L: its notch is outside.
    let corners = [(0.25, 0.25), (0.75, 0.25), (0.75, 0.5), (0.5, 0.5), (0.5, 0.75), (0.25, 0.75)];
    draw(&mut picture, &Scene { zones: &[zone(&corners)], ..Scene::default() });
    let tinted = [124, 116, 84]; // 216 of 256 of grey and 40 of yellow
    assert_eq!(picture.pixel(200, 200), tinted);
    assert_eq!(picture.pixel(200, 300), tinted);
    assert_eq!(picture.pixel(400, 200), tinted);
    assert_eq!(picture.pixel(400, 300), [100; 3]);
    assert_eq!(picture.pixel(100, 200), [100; 3]);
    assert_eq!(picture.pixel(160, 300), [255, 204, 0]);
}

#[test]
fn the_arrow_of_a_line_points_to_its_left() {
    let check = |from: (f32, f32), to: (f32, f32), tip: (usize, usize), opposite: (usize, usize)| {
        let mut picture = grey(640, 480);
        draw(&mut picture, &Scene { lines: &[line(from, to)], ..Scene::default() });
        assert_eq!(picture.pixel(tip.0, tip.1), [255; 3], "{from:?} to {to:?}");
        assert_eq!(picture.pixel(opposite.0, opposite.1), [100; 3], "{from:?} to {to:?}");
    };
    check((0.1, 0.5), (0.9, 0.5), (320, 225), (320, 255));
    check((0.9, 0.5), (0.1, 0.5), (320, 255), (320, 225));
    check((0.5, 0.1), (0.5, 0.9), (335, 240), (305, 240));
}

#[test]
fn the_header_darkens_what_is_below_it() {
    let mut picture = grey(640, 480);
    draw(&mut picture, &Scene { header: "yard 2025-03-01 12:00:00 é 漢", ..Scene::default() });
    let strip: Vec<[u8; 3]> =
        (0..640).flat_map(|x| (0..19).map(move |y| (x, y))).map(|(x, y)| picture.pixel(x, y)).collect();
    assert!(strip.iter().all(|pixel| [[41; 3], [255; 3]].contains(pixel)));
    assert!(strip.iter().filter(|pixel| **pixel == [255; 3]).count() > 300);
    assert_eq!(picture.pixel(5, 19), [100; 3]);
}

proptest! {
    #[test]
    fn anything_can_be_drawn_on_pictures_of_any_size(
        size in (0..50_usize, 0..50_usize),
        points in proptest::collection::vec((any::<f32>(), any::<f32>()), 4..9),
        near in proptest::collection::vec((-0.5..1.5_f32, -0.5..1.5_f32), 4..9),
        text in "\\PC{0,12}",
        class: u16,
        score: f32,
    ) {
        let mut picture = grey(size.0, size.1);
        for points in [&points, &near] {
            let (a, b) = (points[0], points[1]);
            let marks = [Mark { label: &text, score, ..mark([a.0, a.1, b.0, b.1], class) }];
            let (zones, lines) = ([zone(points), zone(&[])], [line(a, b), line(a, a)]);
            draw(&mut picture, &Scene { header: &text, zones: &zones, lines: &lines, marks: &marks });
        }
        prop_assert_eq!(picture.bytes.len(), 3 * size.0 * size.1);
    }
}
