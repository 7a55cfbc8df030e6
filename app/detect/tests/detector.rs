//! Real models on real backends: what is painted is what is detected.

mod rig;

use std::time::Duration;

use clock::Clock;
use detect::{Detector, LabelSource, LoadOptions, ModelSource, Settings};
use rig::{BLUE, Canvas, RED, WHITE, load, ort, rten};
use vision::{Detection, Rect};

/// Each model on each backend.
fn everywhere(models: &[&str], check: impl Fn(&str, Detector)) {
    for options in [rten(), ort()] {
        for name in models {
            let loaded = load(name, &options).unwrap_or_else(|error| panic!("{name}: {error}"));
            check(
                &format!("{name} on {}", loaded.chosen.backend),
                Detector::of(loaded, 0.5, Clock::system()),
            );
        }
    }
}

#[track_caller]
fn same(found: &[Detection], expected: &[(u16, [f32; 4])], what: &str) {
    let mut found = found.to_vec();
    found.sort_by_key(|detection| detection.class);
    assert_eq!(found.len(), expected.len(), "{what}: {found:?}");
    for (detection, (class, [x, y, w, h])) in found.iter().zip(expected) {
        let iou = detection.rect.iou(&Rect { x: *x, y: *y, w: *w, h: *h });
        assert!(detection.class == *class && iou > 0.95 && detection.score > 0.9, "{what}: {found:?}");
    }
}

const MODELS: [&str; 4] = ["patches.onnx", "patches_batch.onnx", "end_to_end.onnx", "bytes.onnx"];

#[test]
fn painted_patches_are_found_where_they_are() {
    everywhere(&MODELS, |what, mut detector| {
        for (width, height) in [(64, 32), (320, 160), (1280, 640)] {
            let canvas = Canvas::new(width, height).patch(1, 0, RED).patch(3, 1, BLUE);
            for picture in [canvas.i420(), canvas.nv12()] {
                let mut out = [Vec::new()];
                let timing = detector.detect(&[picture], &mut out).unwrap();
                assert_eq!(timing.batches, 1);
                same(&out[0], &[(0, [0.25, 0.0, 0.25, 0.5]), (1, [0.75, 0.5, 0.25, 0.5])], what);
            }
        }
    });
}

#[test]
fn boxes_of_a_letterboxed_picture_are_places_in_the_picture() {
    everywhere(&MODELS, |what, mut detector| {
        // Square: the middle half of the input. Its left half is one patch wide.
        let canvas = Canvas::new(160, 160).paint([0, 0, 80, 80], RED);
        let mut out = [Vec::new()];
        detector.detect(&[canvas.i420()], &mut out).unwrap();
        same(&out[0], &[(0, [0.0, 0.0, 0.5, 0.5])], what);
    });
}

#[test]
fn many_pictures_of_many_sizes_go_through_in_batches() {
    everywhere(&MODELS, |what, mut detector| {
        let canvases: Vec<Canvas> = (0..11)
            .map(|n| {
                let canvas = Canvas::new(64 * (1 + n % 3), 32 * (1 + n % 3));
                canvas.patch(n % 4, n / 4 % 2, if n % 2 == 0 { RED } else { BLUE })
            })
            .collect();
        let pictures: Vec<_> = canvases.iter().map(Canvas::i420).collect();
        // Old detections do not survive.
        let old = Detection { class: 0, score: 1.0, rect: Rect { x: 0.0, y: 0.0, w: 1.0, h: 1.0 } };
        let mut out = vec![vec![old]; pictures.len()];
        let timing = detector.detect(&pictures, &mut out).unwrap();
        assert_eq!(timing.batches, if detector.input().max_batch == 1 { 11 } else { 2 }, "{what}");
        for (n, found) in (0_u16..).zip(&out) {
            let at = [f32::from(n % 4) / 4.0, f32::from(n / 4 % 2) / 2.0, 0.25, 0.5];
            same(found, &[(n % 2, at)], what);
        }
        assert!(detector.detect(&pictures, &mut out[1..]).is_err());
        assert!(out[1..].iter().all(Vec::is_empty));
    });
}

#[test]
fn both_backends_give_the_same_numbers_with_one_thread_and_with_two() {
    let canvas = Canvas::new(320, 160).patch(0, 0, RED).patch(2, 1, WHITE);
    let found: Vec<Vec<Detection>> = [rten(), ort()]
        .into_iter()
        .flat_map(|options| [1, 2].map(|threads| LoadOptions { threads, ..options.clone() }))
        .map(|options| {
            let mut out = [Vec::new()];
            let mut detector = Detector::of(load("patches.onnx", &options).unwrap(), 0.01, Clock::system());
            detector.detect(&[canvas.i420()], &mut out).unwrap();
            out[0].clone()
        })
        .collect();
    assert!(found[0].len() >= 2);
    for other in &found[1..] {
        assert_eq!(other.len(), found[0].len());
        for (a, b) in found[0].iter().zip(other) {
            assert!(a.class == b.class && (a.score - b.score).abs() < 1e-5 && a.rect.iou(&b.rect) > 0.9999);
        }
    }
}

#[test]
fn the_shipped_model_loads_in_batches_and_both_backends_agree_on_it() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../model");
    let source = ModelSource::File(format!("{folder}/scene.onnx").into());
    let labels = LabelSource::File(format!("{folder}/scene.labels").into());
    let canvas = Canvas::new(320, 160).paint([40, 30, 60, 90], WHITE).paint([200, 80, 90, 50], RED);
    let mut found = Vec::new();
    for options in [rten(), ort()] {
        let loaded = detect::load(&source, &labels, &options).unwrap();
        assert_eq!(loaded.labels, ["person", "vehicle"]);
        assert_eq!(loaded.backend.input().max_batch, options.max_batch);
        let mut detector = Detector::of(loaded, 0.001, Clock::system());
        let mut out = vec![Vec::new(); 3];
        detector.detect(&[canvas.i420(); 3], &mut out).unwrap();
        // A picture in a batch gives the same as alone.
        let close = |a: &[Detection], b: &[Detection]| {
            let near =
                |(a, b): (&Detection, &Detection)| a.class == b.class && (a.score - b.score).abs() < 1e-4;
            a.len() == b.len() && a.iter().zip(b).take(5).all(near)
        };
        assert!(close(&out[0], &out[2]), "{out:?}");
        found.push(out.swap_remove(0));
        assert!(close(&found[0], found.last().unwrap()), "{found:?}");
    }
}

#[test]
fn unwanted_classes_and_low_scores_are_left_out() {
    everywhere(&MODELS, |what, mut detector| {
        let mut settings = Settings::new(2, 0.5);
        settings.thresholds.exclude(1);
        detector.set_settings(settings);
        let canvas = Canvas::new(64, 32).patch(1, 0, RED).patch(3, 1, BLUE);
        let mut out = [Vec::new()];
        detector.detect(&[canvas.i420()], &mut out).unwrap();
        same(&out[0], &[(0, [0.25, 0.0, 0.25, 0.5])], what);
        let mut settings = Settings::new(2, 0.5);
        settings.thresholds.set(0, 1.1);
        detector.set_settings(settings);
        detector.detect(&[canvas.i420()], &mut out).unwrap();
        same(&out[0], &[(1, [0.75, 0.5, 0.25, 0.5])], what);
    });
}

#[test]
fn an_open_input_size_is_taken_from_the_options() {
    for options in [rten(), ort()] {
        let options = LoadOptions { input_size: Some((96, 48)), ..options };
        let loaded = load("open_size.onnx", &options).unwrap();
        assert_eq!((loaded.rows, loaded.columns), (6, 1));
        let detector = Detector::of(loaded, 0.5, Clock::system());
        assert_eq!((detector.input().width, detector.input().height), (96, 48));
    }
}

#[test]
fn scores_that_are_no_numbers_do_not_spoil_the_others() {
    everywhere(&["sometimes_nan.onnx"], |what, mut detector| {
        // Bright is not a number here, black scores best.
        let canvas = Canvas::new(64, 32).patch(0, 0, WHITE).patch(1, 0, WHITE);
        let mut out = [Vec::new()];
        detector.detect(&[canvas.i420()], &mut out).unwrap();
        assert_eq!(out[0].len(), 6, "{what}: {out:?}");
        assert!(out[0].iter().all(|found| found.score.is_finite() && found.rect.area() > 0.0));
        assert!(detector.ignored().scores >= 2, "{what}: {:?}", detector.ignored());
    });
}

#[test]
fn thousands_of_certain_boxes_are_cut_to_the_best() {
    everywhere(&["crowd.onnx"], |what, mut detector| {
        let canvas = Canvas::new(64, 32);
        let mut out = [Vec::new()];
        for _ in 0..2 {
            detector.detect(&[canvas.i420()], &mut out).unwrap();
            assert!((1..=300).contains(&out[0].len()), "{what}: {}", out[0].len());
        }
        assert!(detector.ignored().surplus > 0);
        detector.set_settings(Settings { max_detections: 3, ..detector.settings().clone() });
        detector.detect(&[canvas.i420()], &mut out).unwrap();
        assert_eq!(out[0].len(), 3, "{what}");
    });
}

#[test]
fn measuring_tells_the_cost_by_batch() {
    everywhere(&["patches_batch.onnx"], |what, mut detector| {
        let measured = detector.measure((160, 90), 5, Duration::from_secs(60)).unwrap();
        let batches: Vec<(usize, usize)> =
            measured.by_batch.iter().map(|cost| (cost.batch, cost.rounds)).collect();
        assert_eq!(batches, [(1, 5), (2, 5), (4, 5), (8, 5)], "{what}");
        assert!(measured.picture() > Duration::ZERO);
        // No time at all is three calls of each: their median is not spoilt by one.
        let measured = detector.measure((160, 90), 5, Duration::ZERO).unwrap();
        assert!(measured.by_batch.iter().all(|cost| cost.rounds == 3), "{what}");
        assert!(detector.measure((0, 90), 1, Duration::ZERO).is_err());
    });
}
