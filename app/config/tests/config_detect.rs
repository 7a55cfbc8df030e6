//! `[detect]` and `[camera.detect]` of the configuration file: defaults, inheritance, and every kind of mistake.

use std::time::Duration;

use config::*;
use proptest::prelude::*;
use vision::Point;
use vision::rules::{LabelRule, Line, Rules, Severity, Zone};

const CAMERA: &str = "[[camera]]\nid = \"door\"\nurl = \"rtsp://192.0.2.10/1\"\n";

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    let environment = Environment { file: "f".into(), ..Environment::default() };
    Config::parse(format!("aws.region = \"eu-west-1\"\n{text}").as_bytes(), &environment)
}

/// Cameras of a valid file.
#[track_caller]
fn cameras(text: &str) -> Vec<Camera> {
    parse(text).map_err(|errors| errors.to_string()).expect("valid").cameras
}

#[track_caller]
fn detect(text: &str) -> CameraDetect {
    cameras(text).remove(0).detect.expect("switched on")
}

/// One mistake in a file that is otherwise good; lines are counted without the first one.
#[track_caller]
fn check(text: &str, expected: &str) {
    let errors = parse(text).expect_err("a mistake");
    let line = |mistake: &Mistake| {
        let (line, _) = mistake.position.expect("in the file");
        mistake.to_string().replacen(&format!("f:{line}:"), &format!("{}:", line - 1), 1)
    };
    assert_eq!(errors.mistakes.iter().map(line).collect::<Vec<_>>(), [expected]);
}

/// Lines of `[detect]` begin at line 2.
#[track_caller]
fn check_all(lines: &str, expected: &str) {
    check(&format!("[detect]\n{lines}\n{CAMERA}"), expected);
}

/// Lines of `[camera.detect]` begin at line 6.
#[track_caller]
fn check_camera(lines: &str, expected: &str) {
    check(&format!("[detect]\n{CAMERA}[camera.detect]\n{lines}\n"), expected);
}

/// Lines of `[[camera.detect.zone]]` begin at line 6.
#[track_caller]
fn check_zone(lines: &str, expected: &str) {
    check(&format!("[detect]\n{CAMERA}[[camera.detect.zone]]\n{lines}\n"), expected);
}

#[track_caller]
fn check_line(lines: &str, expected: &str) {
    check(&format!("[detect]\n{CAMERA}[[camera.detect.line]]\n{lines}\n"), expected);
}

/// What an empty table says where nothing is installed.
fn by_default() -> Detect {
    let rules = Rules { labels: models::LABELS.map(str::to_owned).to_vec(), ..Rules::default() };
    Detect { camera: CameraDetect { rules, ..CameraDetect::default() }, ..Detect::default() }
}

#[test]
fn nothing_is_detected_without_the_table() {
    let config = parse(CAMERA).expect("valid");
    assert_eq!((config.detect, &config.cameras[0].detect), (None, &None));
    assert_eq!(config.warnings, []);
    assert_eq!(
        config.advice.as_deref(),
        Some(
            "detection is off: NanoDet-g, which knows people and vehicles, is not installed (looked for in nowhere); `cargo xtask model`, called in the source of kvs-edge, installs it"
        )
    );
    // A camera that expects it is told.
    let config = parse(&format!("{CAMERA}[camera.detect]\nfps = 2\n")).expect("valid, but");
    assert_eq!((config.detect, &config.cameras[0].detect), (None, &None));
    assert_eq!(
        config.warnings[0].to_string(),
        "f:5:1: camera[0].detect: found this table without [detect], expected both, or neither; fix: add the table [detect], which may be empty, above the first [[camera]], or install a model: `cargo xtask model`"
    );
}

#[test]
fn empty_table_is_the_defaults_and_a_word_about_the_model() {
    let config = parse(&format!("[detect]\n{CAMERA}")).expect("valid");
    assert_eq!(config.detect, Some(by_default()));
    assert_eq!(config.cameras[0].detect, Some(by_default().camera));
    assert_eq!(
        config.warnings.iter().map(Mistake::to_string).collect::<Vec<_>>(),
        [
            "f:2:1: detect.model: found nothing to detect with, expected an installed model, or another one; fix: NanoDet-g, which knows people and vehicles, is not installed (looked for in nowhere); `cargo xtask model`, called in the source of kvs-edge, installs it"
        ]
    );
    assert_eq!(config.advice, None);
}

/// A folder with files that have the names of NanoDet-g.
fn installed() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for file in models::nanodet() {
        std::fs::write(folder.path().join(file.name), b"x").expect("written");
    }
    folder
}

fn parse_installed(text: &str, models: &std::path::Path) -> Config {
    let environment =
        Environment { file: "f".into(), models: vec![models.to_owned()], ..Environment::default() };
    Config::parse(format!("aws.region = \"eu-west-1\"\n{text}").as_bytes(), &environment)
        .map_err(|errors| errors.to_string())
        .expect("valid")
}

#[test]
fn where_the_model_is_installed_detection_is_on() {
    let folder = installed();
    let on = Detect { model: Model::NanoDet { folders: vec![folder.path().to_owned()] }, ..by_default() };
    for text in
        [CAMERA.to_owned(), format!("[detect]\n{CAMERA}"), format!("detect.model = \"nanodet\"\n{CAMERA}")]
    {
        let config = parse_installed(&text, folder.path());
        assert_eq!(config.detect.as_ref(), Some(&on), "{text}");
        let rules = &config.cameras[0].detect.as_ref().expect("on").rules;
        assert_eq!(rules.labels, ["person", "bicycle", "car", "motorcycle", "bus", "truck", "dog", "cat"]);
        assert_eq!((config.warnings, config.advice), (vec![], None), "{text}");
    }
    // A camera needs no [detect] to say something of its own.
    let text = format!("{CAMERA}[camera.detect]\nlabels = [\"person\"]\n");
    let config = parse_installed(&text, folder.path());
    assert_eq!(config.cameras[0].detect.as_ref().expect("on").rules.labels, ["person"]);
    assert_eq!(config.warnings, []);
    // All of the model.
    let config = parse_installed(&format!("[detect]\nlabels = []\n{CAMERA}"), folder.path());
    assert_eq!(config.cameras[0].detect.as_ref().expect("on").rules.labels, Vec::<String>::new());
}

#[test]
fn detection_that_is_switched_off_is_off_with_and_without_a_model() {
    let folder = installed();
    for text in [
        format!("[detect]\nenabled = false\n{CAMERA}"),
        format!("{CAMERA}detect.enabled = false\n"),
        format!("[detect]\nmodel = \"scene\"\n{CAMERA}detect.enabled = false\n"),
    ] {
        let config = parse_installed(&text, folder.path());
        assert_eq!((config.detect, &config.cameras[0].detect, config.advice), (None, &None, None), "{text}");
    }
    let config = parse(&format!("[detect]\nenabled = false\n{CAMERA}")).expect("valid");
    assert_eq!((config.detect, config.warnings, config.advice), (None, vec![], None));
}

#[test]
fn models_are_named_or_files() {
    let folder = installed();
    let named = format!("[detect]\nmodels_folder = {:?}\n{CAMERA}", folder.path());
    let config = parse(&named).expect("valid");
    let model = |config: Config| config.detect.expect("on").model;
    assert_eq!(config.warnings, []);
    assert_eq!(model(config), Model::NanoDet { folders: vec![folder.path().to_owned()] });
    let config = parse(&format!("[detect]\nmodels_folder = \"/nowhere\"\n{CAMERA}")).expect("valid, but");
    let warning = config.warnings[0].to_string();
    assert!(warning.contains("(looked for in /nowhere); `cargo xtask model --folder /nowhere`"), "{warning}");

    let config = parse_installed(&format!("[detect]\nmodel = \"scene\"\n{CAMERA}"), folder.path());
    assert_eq!(
        config.warnings.iter().map(Mistake::to_string).collect::<Vec<_>>(),
        [
            "f:3:9: detect.model: found \"scene\", which knows the drawn figures of the demo, no real people or vehicles, expected a model for what the cameras see; fix: write model = \"nanodet\", or give model_file"
        ]
    );
    assert_eq!(config.cameras[0].detect.as_ref().expect("on").rules.labels, Vec::<String>::new());
    assert_eq!(model(config), Model::Scene);

    check_all(
        "model = \"yolo\"",
        "2:9: detect.model: found \"yolo\", expected \"nanodet\" or \"scene\"; fix: choose one of them",
    );
    check_all(
        "model = \"scene\"\nmodel_file = \"/proc/self/status\"",
        "2:9: detect.model: found model beside model_file, expected one of both; fix: remove model, or model_file and labels_file",
    );
    check_all(
        "model = \"scene\"\nmodels_folder = \"/x\"",
        "3:17: detect.models_folder: found models_folder beside another model than \"nanodet\", expected one of both; fix: remove models_folder: it is where NanoDet-g is looked for",
    );
}

#[test]
fn a_group_of_labels_is_named_like_a_label() {
    let text = format!(
        "[detect]\nlabels = [\"person\", \"vehicle\"]\nmin_score = 0.6\n[detect.label.vehicle]\nmin_score = 0.4\n\
         min_area = 0.01\n[detect.label.truck]\nmax_area = 0.5\n{CAMERA}[[camera.detect.zone]]\nname = \"gate\"\n\
         polygon = [[0, 0.5], [1, 0.5], [0.5, 1]]\nlabels = [\"car\"]\n"
    );
    let config = parse(&text).map_err(|errors| errors.to_string()).expect("valid");
    let rules = &config.cameras[0].detect.as_ref().expect("on").rules;
    let found = |label: &str| {
        let LabelRule { min_score, min_area, max_area, .. } = *rules.rule(label);
        (min_score, min_area, max_area)
    };
    assert_eq!(found("car"), (0.4, 0.01, 1.0));
    assert_eq!(found("truck"), (0.4, 0.01, 0.5), "what is said of vehicles is said of trucks");
    assert_eq!(found("person"), (0.6, 0.0, 1.0));
    let about_labels = config.warnings.iter().filter(|warning| warning.to_string().contains("label"));
    assert_eq!(about_labels.count(), 0, "{:?}", config.warnings);
}

/// What the sample shows behind `#` as a default is the default.
#[test]
fn sample_shows_the_real_defaults() {
    let begin = EXAMPLE.find("# [detect]").expect("there");
    let end = EXAMPLE.find("# Once for each label that differs").expect("there");
    let without =
        ["model_file", "labels_file", "models_folder", "onnxruntime_file", "events_folder", "events_keep"];
    let keys: Vec<_> = (EXAMPLE[begin..end].lines())
        .filter_map(|line| line.strip_prefix("# "))
        .filter(|line| {
            line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ') && !without.contains(&key))
        })
        .collect();
    assert_eq!(keys.len(), 23);
    let text = format!("[detect]\n{}\n{CAMERA}", keys.join("\n"));
    let config = parse(&text).map_err(|errors| errors.to_string()).expect("valid");
    assert_eq!(config.detect, Some(by_default()));
    assert!(EXAMPLE.contains(&format!("\n# events_keep = {}\n", Detect::default().events_keep)));
}

/// The sample's tables about one camera's detection, with `#` taken off.
fn sample_of_a_camera() -> String {
    let begin = EXAMPLE.find("# [camera.detect]").expect("there");
    let is_toml = |line: &&str| {
        let is_key = || line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
        line.starts_with('[') && line.ends_with(']') || is_key()
    };
    let lines: Vec<_> =
        EXAMPLE[begin..].lines().filter_map(|line| line.strip_prefix("# ")).filter(is_toml).collect();
    format!("[detect]\n{CAMERA}{}", lines.join("\n"))
}

#[test]
fn sample_of_a_camera_is_valid() {
    let found = detect(&sample_of_a_camera());
    assert_eq!((found.rules.zones.len(), found.rules.lines.len()), (1, 1));
    assert_eq!(found.rules.by_label["person"].min_score, 0.4);
}

#[test]
fn box_level_keys_arrive() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["site.onnx", "site.labels", "libonnxruntime.so"] {
        std::fs::write(folder.path().join(name), b"x").expect("written");
    }
    let text = format!(
        "aws.region = \"eu-west-1\"\n[detect]\nmodel_file = \"site.onnx\"\nlabels_file = \"site.labels\"\n\
         backend = \"ort\"\nonnxruntime_file = \"libonnxruntime.so\"\nthreads = 2\ndecoder = \"openh264dec\"\n\
         latency_budget_ms = 200\ncore_share = 150\nevents_folder = \"events\"\nevents_keep = 10\n\
         figures_every_s = 5\n{CAMERA}"
    );
    let environment = Environment { folder: folder.path().to_owned(), ..Environment::default() };
    let config = Config::parse(text.as_bytes(), &environment).expect("valid");
    let expected = Detect {
        model: Model::File {
            model: folder.path().join("site.onnx"),
            labels: Some(folder.path().join("site.labels")),
        },
        backend: DetectBackend::Ort,
        onnxruntime_file: Some(folder.path().join("libonnxruntime.so")),
        threads: 2,
        decoder: Some("openh264dec".into()),
        latency_budget: Duration::from_millis(200),
        core_share_percent: 150,
        events_folder: Some(folder.path().join("events")),
        events_keep: 10,
        figures_every: Duration::from_secs(5),
        camera: CameraDetect::default(),
    };
    assert_eq!(config.detect, Some(expected));
    assert_eq!(config.warnings, []);
}

#[test]
fn camera_inherits_and_overrides() {
    let text = format!(
        "[detect]\nfps = 10\nlabels = [\"person\", \"vehicle\"]\nmin_score = 0.4\nmin_area = 0.01\nmotion = false\n\
         stationary_after_s = 1.5\n\
         [detect.label.person]\nmin_score = 0.7\nseverity = \"alert\"\n\
         {CAMERA}[camera.detect]\nfps = 2.5\nmin_area = 0.02\nsnapshots = false\n\
         [camera.detect.label.person]\nmin_score = 0.8\n[camera.detect.label.vehicle]\nmax_area = 0.5\n\
         [[camera]]\nid = \"gate\"\nurl = \"rtsp://192.0.2.11/1\"\n\
         [[camera]]\nid = \"yard\"\nurl = \"rtsp://192.0.2.12/1\"\ndetect.enabled = false\n"
    );
    let cameras = cameras(&text);
    let label = LabelRule { min_score: 0.4, min_area: 0.02, max_area: 1.0, severity: Severity::Detection };
    let rules = Rules {
        labels: vec!["person".into(), "vehicle".into()],
        by_label: [
            // The severity from the box, the area of the camera for all its labels, the score of its own table.
            ("person".into(), LabelRule { min_score: 0.8, severity: Severity::Alert, ..label.clone() }),
            ("vehicle".into(), LabelRule { max_area: 0.5, ..label.clone() }),
        ]
        .into(),
        label,
        stationary_after_ms: 1500,
        ..Rules::default()
    };
    let door = CameraDetect { fps: 2.5, motion: false, snapshots: false, rules, ..CameraDetect::default() };
    assert_eq!(cameras[0].detect, Some(door));
    let gate = cameras[1].detect.as_ref().expect("switched on");
    assert_eq!((gate.fps, gate.snapshots, gate.rules.label.min_area), (10.0, true, 0.01));
    assert_eq!(gate.rules.by_label["person"].min_score, 0.7);
    assert!(!gate.rules.by_label.contains_key("vehicle"));
    assert_eq!(cameras[2].detect, None);
}

#[test]
fn switched_off_for_all_and_on_for_one() {
    let text = format!(
        "[detect]\nenabled = false\n{CAMERA}[camera.detect]\nenabled = true\n\
         [[camera]]\nid = \"gate\"\nurl = \"rtsp://192.0.2.11/1\"\n"
    );
    let cameras = cameras(&text);
    assert!(cameras[0].detect.is_some() && cameras[1].detect.is_none());
}

#[test]
fn zones_and_lines_arrive() {
    let text = format!(
        "[detect]\n{CAMERA}[[camera.detect.zone]]\nname = \"gate\"\npolygon = [[0, 0.5], [1, 0.5], [0.5, 1]]\n\
         labels = [\"person\"]\ndwell_s = 2.5\nseverity = \"alert\"\n\
         [[camera.detect.zone]]\nname = \"lawn\"\npolygon = [[0.1, 0.1], [0.2, 0.1], [0.2, 0.2], [0.1, 0.2]]\n\
         [[camera.detect.line]]\nname = \"gate\"\nfrom = [0, 0.25]\nto = [1, 0.25]\n"
    );
    let rules = detect(&text).rules;
    let points = |points: &[(f32, f32)]| points.iter().map(|&(x, y)| Point { x, y }).collect();
    let gate = Zone {
        name: "gate".into(),
        polygon: points(&[(0.0, 0.5), (1.0, 0.5), (0.5, 1.0)]),
        labels: vec!["person".into()],
        dwell_ms: 2500,
        severity: Some(Severity::Alert),
    };
    let lawn = Zone {
        name: "lawn".into(),
        polygon: points(&[(0.1, 0.1), (0.2, 0.1), (0.2, 0.2), (0.1, 0.2)]),
        labels: vec![],
        dwell_ms: 0,
        severity: None,
    };
    assert_eq!(rules.zones, [gate, lawn]);
    let (from, to) = (Point { x: 0.0, y: 0.25 }, Point { x: 1.0, y: 0.25 });
    assert_eq!(rules.lines, [Line { name: "gate".into(), from, to, labels: vec![] }]);
}

/// A default that is shorter than the time between two pictures would end every track at once.
#[test]
fn tracks_outlive_the_time_between_pictures() {
    for (keys, lost_after_ms) in [
        ("fps = 30", 5_000),
        ("fps = 1", 5_000),
        ("fps = 0.1", 30_000),
        ("fps = 0.3", 10_002),
        ("motion_gate = true", 5_000),
        ("key_frames_only = true", 10_000),
        ("fps = 0.1\nlost_after_ms = 12000", 12_000),
    ] {
        let inherited = detect(&format!("[detect]\n{keys}\n{CAMERA}")).rules.lost_after_ms;
        let own = detect(&format!("[detect]\n{CAMERA}[camera.detect]\n{keys}\n")).rules.lost_after_ms;
        assert_eq!((inherited, own), (lost_after_ms, lost_after_ms), "{keys}");
    }
    let expected = "fix: write lost_after_ms = 6000, or raise fps";
    check_camera(
        "fps = 0.5\nlost_after_ms = 1500",
        &format!(
            "7:17: camera[0].detect.lost_after_ms: found 1500, less than the 2000 ms from one picture to the next, expected time for several pictures; {expected}"
        ),
    );
    // Said once, where it was written; and for the camera that makes it wrong.
    check_all(
        "fps = 0.5\nlost_after_ms = 1500",
        &format!(
            "3:17: detect.lost_after_ms: found 1500, less than the 2000 ms from one picture to the next, expected time for several pictures; {expected}"
        ),
    );
    check(
        &format!("[detect]\nlost_after_ms = 1500\n{CAMERA}[camera.detect]\nfps = 0.5\n"),
        &format!(
            "6:1: camera[0].detect.lost_after_ms: found 1500, less than the 2000 ms from one picture to the next, expected time for several pictures; {expected}"
        ),
    );
}

#[test]
fn numbers_out_of_range_and_no_numbers() {
    let score = "a number from 0 to 1; fix: choose a value in the range; the default is 0.5";
    check_all("min_score = 50", &format!("2:13: detect.min_score: found 50, expected {score}"));
    check_all("min_score = nan", &format!("2:13: detect.min_score: found nan, expected {score}"));
    check_all("min_score = -inf", &format!("2:13: detect.min_score: found -inf, expected {score}"));
    check_all("min_score = 1e999", &format!("2:13: detect.min_score: found 1e999, expected {score}"));
    check_all(
        "min_score = 99999999999999999999",
        &format!("2:13: detect.min_score: found 99999999999999999999, expected {score}"),
    );
    check_all("min_score = 1.000001", &format!("2:13: detect.min_score: found 1.000001, expected {score}"));
    check_all(
        "min_score = \"0.5\"",
        "2:13: detect.min_score: found a string, expected a number from 0 to 1; fix: write min_score = 0.5",
    );
    check_camera(
        "fps = 0",
        "6:7: camera[0].detect.fps: found 0, expected a number from 0.1 to 30; fix: choose a value in the range; the default is 5",
    );
    check_camera(
        "confirm_frames = 2.5",
        "6:18: camera[0].detect.confirm_frames: found a floating-point number, expected an integer from 1 to 100; fix: write confirm_frames = 3",
    );
    check_all(
        "core_share = 801",
        "2:14: detect.core_share: found 801, expected an integer from 1 to 800; fix: choose a value in the range; the default is 80",
    );
    // What is told as default is what would be inherited.
    check(
        &format!("[detect]\niou = 0.7\n{CAMERA}[camera.detect]\niou = 7\n"),
        "7:7: camera[0].detect.iou: found 7, expected a number from 0 to 1; fix: choose a value in the range; the default is 0.7",
    );
}

#[test]
fn files_and_choices_of_the_box() {
    check_all(
        "backend = \"onnx\"",
        "2:11: detect.backend: found \"onnx\", expected \"auto\" or \"rten\" or \"ort\"; fix: choose one of them",
    );
    check_all(
        "decoder = \"avdec h264 ! x\"",
        "2:11: detect.decoder: found \"avdec h264 ! x\", expected 1 to 64 characters of A-Z a-z 0-9 _ -; fix: for example \"avdec-h264---x\"",
    );
    check_all(
        "model_file = \"/nonexistent/site.onnx\"",
        "2:14: detect.model_file: found /nonexistent/site.onnx (No such file or directory (os error 2)), expected a readable ONNX file; fix: check path and permissions",
    );
    check_all(
        "model_file = \"/\"",
        "2:14: detect.model_file: found / (not a regular file), expected a readable ONNX file; fix: check path and permissions",
    );
    check_all(
        "labels_file = \"/proc/self/status\"",
        "1:1: detect.model_file: found nothing, expected the model that these labels are for; fix: give model_file too, or remove labels_file: the other models have their labels",
    );
    check_all(
        "backend = \"rten\"\nonnxruntime_file = \"/proc/self/status\"",
        "2:11: detect.backend: found \"rten\" beside onnxruntime_file, expected one of both; fix: remove onnxruntime_file, or write backend = \"auto\" or \"ort\"",
    );
    check_all(
        "events_folder = \"/proc/self/status\"",
        "2:17: detect.events_folder: found /proc/self/status, which is not a folder, expected a folder; fix: give a folder of its own, which the daemon may write to; it is made when it is not there",
    );
    check_all(
        "events_keep = 5",
        "1:1: detect.events_folder: found nothing, expected a folder beside events_keep; fix: give events_folder too, or remove events_keep",
    );
    check_all(
        "models = \"a.onnx\"",
        "2:1: detect.models: found an unknown key, expected a known one; fix: did you mean model?",
    );
    check(
        &format!("detect = true\n{CAMERA}"),
        "1:10: detect: found a boolean, expected a table; fix: write [detect]",
    );
    // Keys of the box are not those of a camera, and the reverse.
    check_camera(
        "decoder = \"auto\"",
        "6:1: camera[0].detect.decoder: found an unknown key, expected a known one; fix: remove it; known here: confirm_frames, enabled, fps, iou, key_frames_only, label, labels, line, lost_after_ms, max_area, min_area, min_score, motion, motion_gate, severity, snapshots, stationary_after_s, update_every_ms, zone",
    );
    check_all(
        "zone = []",
        "2:1: detect.zone: found an unknown key, expected a known one; fix: each camera has its own: write [[camera.detect.zone]] or [[camera.detect.line]] below its [[camera]]",
    );
}

#[test]
fn labels_that_cannot_be() {
    let bytes = "expected a label of 1 to 64 bytes; fix: copy it from the model's list of labels, which `kvs-edge` logs when it loads the model";
    check_all("labels = [\"\"]", &format!("2:11: detect.labels[0]: found \"\", {bytes}"));
    check_all(
        &format!("labels = [\"a\", \"{}\"]", "b".repeat(65)),
        &format!("2:16: detect.labels[1]: found \"{}\", {bytes}", "b".repeat(65)),
    );
    check_all(
        "labels = [\"a\", \"b\", \"a\"]",
        "2:21: detect.labels: found \"a\" again, expected each label once; fix: remove one of them",
    );
    check_all(
        "labels = \"person\"",
        "2:10: detect.labels: found a string, expected a list of strings; fix: write labels = [\"...\", \"...\"]",
    );
    check_all(
        "labels = [\"person\", 1]",
        "2:21: detect.labels[1]: found an integer, expected a string; fix: write labels = [\"...\", \"...\"]",
    );
    check_all(
        "label.person = 0.5",
        "2:16: detect.label.person: found a floating-point number, expected a table; fix: write [detect.label.person]",
    );
    check_camera(
        "label.person.min_scor = 0.5",
        "6:14: camera[0].detect.label.person.min_scor: found an unknown key, expected a known one; fix: did you mean min_score?",
    );
    check_camera(
        "[camera.detect.label.\"traffic light\"]\nmin_score = 2",
        "7:13: camera[0].detect.label.\"traffic light\".min_score: found 2, expected a number from 0 to 1; fix: choose a value in the range; the default is 0.5",
    );
    let text =
        format!("[detect]\nlabels = [\"person\"]\n{CAMERA}[camera.detect.label.vehicle]\nmin_score = 0.4\n");
    let warnings = parse(&text).expect("valid, but").warnings;
    assert_eq!(
        warnings[1].to_string(),
        "f:7:22: camera[0].detect.label.vehicle: found a label that is not in labels, expected one of those; fix: add it to labels, or remove the table"
    );
}

#[test]
fn areas_that_leave_nothing() {
    let rest =
        "expected at least min_area; fix: nothing could be between them: raise max_area or lower min_area";
    check_all(
        "min_area = 0.5\nmax_area = 0.25",
        &format!("3:12: detect.max_area: found 0.25, below min_area = 0.5, {rest}"),
    );
    check_camera(
        "max_area = 0.25\nlabel.person.min_area = 0.5",
        &format!("7:7: camera[0].detect.label.person.max_area: found 0.25, below min_area = 0.5, {rest}"),
    );
    // The label's table is right for the box and wrong for this camera.
    check(
        &format!("[detect]\nlabel.person.min_area = 0.5\n{CAMERA}[camera.detect]\nmax_area = 0.25\n"),
        &format!("2:7: camera[0].detect.label.person.max_area: found 0.25, below min_area = 0.5, {rest}"),
    );
}

#[test]
fn zones_that_are_none() {
    const GOOD: &str = "polygon = [[0, 0], [1, 0], [1, 1]]";
    let outside = "expected [x, y], both from 0 to 1; fix: write parts of the picture from its left top corner: x in pixels / width, y in pixels / height";
    let name = "name = \"z\"";
    for (corner, found) in [
        ("[640, 360]", "[640, 360]"),
        ("[0.5, -0.1]", "[0.5, -0.1]"),
        ("[0.5, nan]", "[0.5, nan]"),
        ("[inf, 0.5]", "[inf, 0.5]"),
        ("[0.5]", "an array of length 1"),
        ("[0, 0, 0]", "an array of length 3"),
        ("[\"0\", 0]", "an array with other things than numbers"),
        ("0.5", "a floating-point number"),
    ] {
        check_zone(
            &format!("{name}\npolygon = [[0, 0], {corner}, [1, 1]]"),
            &format!("7:20: camera[0].detect.zone[0].polygon[1]: found {found}, {outside}"),
        );
    }
    check_zone(
        &format!("{name}\npolygon = 0.5"),
        "7:11: camera[0].detect.zone[0].polygon: found a floating-point number, expected a list of corners; fix: write polygon = [[0.1, 0.5], [0.9, 0.5], [0.5, 0.9]]",
    );
    check_zone(
        name,
        "5:1: camera[0].detect.zone[0].polygon: found nothing, expected three corners or more; fix: write polygon = [[0.1, 0.5], [0.9, 0.5], [0.5, 0.9]], parts of the picture from its left top corner",
    );
    check_zone(
        GOOD,
        "5:1: camera[0].detect.zone[0].name: found nothing, expected a name for messages; fix: write name = \"gate\"",
    );
    check_zone(
        &format!("name = \"front gate\"\n{GOOD}"),
        "6:8: camera[0].detect.zone[0].name: found \"front gate\", expected 1 to 48 characters of A-Z a-z 0-9 _ -; fix: for example \"front-gate\"",
    );
    check_zone(
        &format!("{name}\n{GOOD}\n[[camera.detect.zone]]\n{name}\n{GOOD}"),
        "9:8: camera[0].detect.zone[1].name: found \"z\" again, expected another name than camera[0].detect.zone[0] has; fix: give each its own name: messages know them by nothing else",
    );
    check_zone(
        &format!("{name}\n{GOOD}\ndwell_s = 3600.5"),
        "8:11: camera[0].detect.zone[0].dwell_s: found 3600.5, expected a number from 0 to 3600; fix: choose a value in the range; the default is 0",
    );
    check_zone(
        &format!("{name}\n{GOOD}\nseverity = \"high\""),
        "8:12: camera[0].detect.zone[0].severity: found \"high\", expected \"detection\" or \"alert\"; fix: choose one of them",
    );
    check(
        &format!(
            "[detect]\nlabels = [\"person\"]\n{CAMERA}[[camera.detect.zone]]\n{name}\n{GOOD}\nlabels = [\"vehicle\"]\n"
        ),
        "9:10: camera[0].detect.zone[0].labels: found \"vehicle\", which this camera does not look for, expected among [\"person\"]; fix: add it to the labels of the camera, or remove it here",
    );
    check_camera(
        "zone = { name = \"z\" }",
        "6:8: camera[0].detect.zone: found a table, expected an array of tables; fix: write [[camera.detect.zone]] with two brackets before each one",
    );
    let many: String =
        (0..65).map(|i| format!("[[camera.detect.zone]]\nname = \"z{i}\"\n{GOOD}\n")).collect();
    check(
        &format!("[detect]\n{CAMERA}{many}"),
        "197:1: camera[0].detect.zone: found 65 of them, expected at most 64; fix: put neighbours that mean the same into one",
    );
}

#[test]
fn outlines_that_enclose_nothing() {
    for (polygon, found) in [
        ("[]", "found 0 corners, expected 3 to 128; fix: "),
        ("[[0, 0], [1, 1]]", "found 2 corners, expected 3 to 128; fix: "),
        ("[[0, 0], [1, 0], [1, 0], [1, 1]]", "found corner 3 repeats corner 2, expected an outline"),
        ("[[0, 0], [1, 0], [1, 1], [0, 0]]", "found corner 4 repeats corner 1, expected an outline"),
        ("[[0, 0], [1, 1], [1, 0], [0, 1]]", "found edges 1 and 3 cross or touch, expected an outline"),
        ("[[0.1, 0.1], [0.5, 0.5], [0.9, 0.9]]", "found edges "),
    ] {
        let text = format!("[detect]\n{CAMERA}[[camera.detect.zone]]\nname = \"z\"\npolygon = {polygon}\n");
        let errors = parse(&text).expect_err(polygon);
        assert_eq!(errors.mistakes.len(), 1, "{errors}");
        let mistake = &errors.mistakes[0];
        assert_eq!(mistake.position, Some((8, 11)), "{errors}");
        assert_eq!(mistake.key, "camera[0].detect.zone[0].polygon");
        assert!(mistake.to_string().contains(found) && !mistake.fix.is_empty(), "{errors}");
    }
}

#[test]
fn lines_that_are_none() {
    check_line(
        "name = \"l\"\nfrom = [0.5, 0.5]",
        "5:1: camera[0].detect.line[0].to: found nothing, expected an end of the line; fix: write from = [0.1, 0.5] and to = [0.9, 0.5], parts of the picture from its left top corner",
    );
    check_line(
        "name = \"l\"\nfrom = [0.5, 0.5]\nto = [0.5, 0.5]",
        "8:6: camera[0].detect.line[0].to: found from (0.5, 0.5) to the same place, expected two different points; fix: draw it again; corners are parts of the picture, in order",
    );
    check_line(
        "name = \"l\"\nfrom = [0.5, 0.5]\nto = [1.5, 0.5]",
        "8:6: camera[0].detect.line[0].to: found [1.5, 0.5], expected [x, y], both from 0 to 1; fix: write parts of the picture from its left top corner: x in pixels / width, y in pixels / height",
    );
    check_line(
        "name = \"l\"\nfrom = [0, 0.5]\nto = [1, 0.5]\ndwell_s = 1",
        "9:1: camera[0].detect.line[0].dwell_s: found an unknown key, expected a known one; fix: remove it; known here: from, labels, name, to",
    );
}

proptest! {
    /// Damage to a good file: an answer, and rules that arithmetic accepts where the answer is yes.
    #[test]
    fn damaged_sample_gives_an_answer(
        at in 0..2000_usize,
        length in 0..20_usize,
        text in "[\\[\\]{}=\".,#\n +-a-z0-9_\u{e9}]{0,8}",
    ) {
        let mut sample = sample_of_a_camera().into_bytes();
        let at = at % sample.len();
        let end = (at + length).min(sample.len());
        sample.splice(at..end, text.into_bytes());
        let sample = String::from_utf8(sample).expect("the sample is ASCII");
        match parse(&sample) {
            Ok(config) => for detect in config.cameras.iter().filter_map(|camera| camera.detect.as_ref()) {
                prop_assert_eq!(detect.rules.check(), Ok(()));
            },
            Err(errors) => prop_assert!(!errors.mistakes.is_empty()),
        }
    }
}
