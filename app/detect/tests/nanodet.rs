//! NanoDet-g: its converter and installer by their own tests, and the real model where it is installed.

mod rig;

use std::path::{Path, PathBuf};
use std::process::Command;

use clock::Clock;
use detect::{Detector, Input, LabelSource, LoadOptions, Loaded, ModelSource, Output};
use rig::{ort, rten};
use vision::{Colour, Detection, Matrix, Picture, Plane, Planes, Rect};

const MODELS: [&str; 2] = ["nanodet-416x416", "nanodet-384x640"];

/// Says why a test does nothing.
fn skip<T>(why: &str) -> Option<T> {
    eprintln!("skipped: {why}");
    None
}

#[test]
fn converter_and_installer_pass_their_own_tests() {
    let Some(python) = std::env::var_os("KVS_EDGE_TEST_PYTHON") else {
        skip::<()>("no Python with numpy, onnx and onnxruntime in KVS_EDGE_TEST_PYTHON; cargo xtask test");
        return;
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/nanodet");
    let tests = Command::new(python).args(["-B", "-m", "unittest"]).current_dir(folder).output();
    let tests = tests.expect("Python starts");
    let said = String::from_utf8_lossy(&tests.stderr);
    assert!(tests.status.success(), "{said}");
    assert!(said.contains("\nOK") && !said.contains("Ran 0 tests"), "{said}");
}

/// Both models, each on both backends.
fn models() -> Option<Vec<[Loaded; 2]>> {
    let Some(folder) = std::env::var_os("KVS_EDGE_TEST_MODELS").map(PathBuf::from) else {
        return skip("NanoDet-g is not installed; cargo xtask test --peers");
    };
    let load = |name: &str, options: &LoadOptions| {
        let source = ModelSource::File(folder.join(name).with_extension("onnx"));
        detect::load(&source, &LabelSource::Model, options).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    Some(MODELS.iter().map(|name| [rten(), ort()].map(|options| load(name, &options))).collect())
}

#[test]
fn both_backends_compute_the_same() {
    for [mut rten, mut ort] in models().unwrap_or_default() {
        assert_eq!((&rten.labels, rten.labels.len()), (&ort.labels, 80));
        assert_eq!(rten.notes, Vec::<String>::new());
        let mut state = 1_u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f32::from(u8::try_from(state >> 24).expect("a byte")) / 255.0
        };
        let input: Vec<f32> = (0..rten.backend.input().picture_len()).map(|_| noise()).collect();
        let (mut a, mut b) = (Output::default(), Output::default());
        rten.backend.run(Input::F32(&input), 1, &mut a).expect("rten runs it");
        ort.backend.run(Input::F32(&input), 1, &mut b).expect("ONNX Runtime runs it");
        assert_eq!((a.rows, a.columns), (b.rows, b.columns));
        let boxes = 4 * a.columns;
        let worst = |range: std::ops::Range<usize>| {
            let pairs = a.values[range.clone()].iter().zip(&b.values[range]);
            pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        let (pixels, scores) = (worst(0..boxes), worst(boxes..a.values.len()));
        assert!(pixels < 0.01 && scores < 1e-4, "{}: {pixels} pixels, scores {scores}", rten.model);
    }
}

/// A picture of the clip of Debian's package opencv-doc: pedestrians, and two vehicles that are parked.
fn street(number: u32) -> Option<Vec<u8>> {
    let clip = Path::new("/usr/share/doc/opencv-doc/examples/data/vtest.avi");
    if !clip.exists() {
        return skip("no opencv-doc; cargo xtask test --peers");
    }
    let select = format!("select=eq(n\\,{number})");
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-i"]).arg(clip).args(["-vf", &select, "-frames:v", "1"]);
    let picture =
        ffmpeg.args(["-f", "rawvideo", "-pix_fmt", "yuv420p", "-"]).output().expect("ffmpeg starts");
    assert!(picture.status.success(), "{}", String::from_utf8_lossy(&picture.stderr));
    Some(picture.stdout)
}

#[test]
fn people_and_vehicles_of_a_real_picture_are_found_by_both_backends() {
    let (Some(models), Some(bytes)) = (models(), street(400)) else { return };
    let (width, height) = (768, 576);
    let (y, chroma) = bytes.split_at(width * height);
    let (u, v) = chroma.split_at(chroma.len() / 2);
    let half = width / 2;
    let plane = |bytes, stride| Plane { bytes, stride };
    let planes = Planes::I420 { y: plane(y, width), u: plane(u, half), v: plane(v, half) };
    let colour = Colour { matrix: Matrix::Bt601, full_range: false };
    let picture = Picture::new(width, height, planes, colour).expect("a picture");
    // By eye. The van is a car or a truck.
    let seen: [(&[&str], [f32; 4]); 5] = [
        (&["person"], [0.896, 0.520, 0.072, 0.194]),
        (&["person"], [0.355, 0.345, 0.040, 0.150]),
        (&["person"], [0.768, 0.240, 0.035, 0.115]),
        (&["car"], [0.957, 0.086, 0.044, 0.077]),
        (&["car", "truck"], [0.847, 0.077, 0.096, 0.095]),
    ];
    for backends in models {
        let mut found: Vec<Vec<Detection>> = Vec::new();
        let (model, labels) = (backends[0].model.clone(), backends[0].labels.clone());
        for loaded in backends {
            let mut detector = Detector::of(loaded, 0.35, Clock::system());
            let mut out = [Vec::new()];
            detector.detect(&[picture], &mut out).expect("it works");
            found.extend(out);
        }
        for (class, [x, y, w, h]) in seen {
            let rect = Rect { x, y, w, h };
            let is_it = |found: &Detection| {
                class.contains(&&*labels[usize::from(found.class)]) && found.rect.iou(&rect) > 0.7
            };
            assert!(found.iter().all(|found| found.iter().any(is_it)), "{model}, {class:?}: {found:#?}");
        }
        let [rten, ort] = &found[..] else { panic!("two backends") };
        assert_eq!(rten.len(), ort.len(), "{model}");
        for (a, b) in rten.iter().zip(ort) {
            let same = a.class == b.class && (a.score - b.score).abs() < 1e-3 && a.rect.iou(&b.rect) > 0.99;
            assert!(same, "{model}: {a:?} {b:?}");
        }
    }
}
