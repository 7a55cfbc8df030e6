//! Models that are not what a detector is: every one is refused with a message that names what does not fit.

mod rig;

use detect::{LabelSource, LoadOptions, ModelSource};
use rig::{LABELS, load, model, ort, rten};

#[track_caller]
fn refused(source: &ModelSource, labels: &LabelSource, options: &LoadOptions, expected: &str) {
    match detect::load(source, labels, options) {
        Ok(loaded) => panic!("{source:?} loaded on {:?}", loaded.chosen),
        Err(error) => {
            let message = error.to_string();
            assert!(message.contains(expected), "{source:?}: {message:?}\n  lacks {expected:?}");
            assert!(message.len() < 700, "{message}");
        }
    }
}

#[test]
fn each_fault_of_a_model_has_its_message() {
    for options in [rten(), ort()] {
        for (name, expected) in [
            (
                "float64",
                "output \"output0\" has elements of float64, expected float32; export the model again: some",
            ),
            ("int64", "elements of int64"),
            (
                "float16",
                "input \"images\" has elements of float16, expected float32 or uint8; export with half=False",
            ),
            ("batch_of_four", "takes 4 pictures at a time"),
            ("segmentation", "it is for the task \"segment\""),
            ("rank2", "has the shape [6, 8], expected [1, 4 + classes, boxes]"),
            ("nan", "48 of 48 values for a grey picture are not finite numbers"),
            ("logits", "expected 0 to 1; export the model with its sigmoid"),
            ("unknown_operator", "Levitate"),
            ("channels_last", "has the shape [1, 32, 64, 3], expected [batch, 3, height, width]"),
            ("one_channel", "has the shape [1, 1, 32, 64]"),
            ("two_inputs", "it has 2 inputs (images, offset)"),
            ("two_outputs", "it has 2 outputs ("),
            ("external", "its weights are in another file, \"weights.bin\""),
            ("classes_80", "[84, 160], which is 80 classes, but 2 labels are given"),
            ("other_rows", "the model's output is [8, 8] with 2 labels"),
        ] {
            refused(&model(&format!("bad/{name}.onnx")), &LABELS, &options, expected);
        }
    }
}

#[test]
fn an_open_or_another_input_size_is_refused() {
    refused(
        &model("open_size.onnx"),
        &LABELS,
        &rten(),
        "[1, 3, height, width], which leaves its size open; export",
    );
    let sized = |width, height| LoadOptions { input_size: Some((width, height)), ..rten() };
    refused(&model("open_size.onnx"), &LABELS, &sized(8, 5000), "an input of 8x5000 pixels");
    refused(&model("patches.onnx"), &LABELS, &sized(64, 64), "is 64x32, the configured input size is 64x64");
}

#[test]
fn a_file_that_is_no_model_is_called_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        ModelSource::File(path)
    };
    let ModelSource::File(good) = model("patches.onnx") else { unreachable!() };
    let good = std::fs::read(good).unwrap();
    let missing = ModelSource::File(folder.path().join("missing.onnx"));
    for options in [rten(), ort()] {
        refused(&missing, &LABELS, &options, "missing.onnx: No such file");
        refused(&ModelSource::File(folder.path().to_owned()), &LABELS, &options, "Is a directory");
        refused(&file("empty.onnx", b""), &LABELS, &options, "it is empty");
        refused(&file("text.onnx", b"person\nvehicle\n"), &LABELS, &options, "it is text");
        refused(&file("torch.onnx", b"PK\x03\x04\x00\x00\x08"), &LABELS, &options, "PyTorch checkpoint");
        refused(
            &file("cut.onnx", &good[..good.len() / 2]),
            &LABELS,
            &options,
            "broken off or damaged at byte",
        );
        refused(&file("zeros.onnx", &[0; 1000]), &LABELS, &options, "damaged");
    }
    refused(&ModelSource::File("/dev/zero".into()), &LABELS, &rten(), "has more than 536870912 bytes");
}

#[test]
fn damage_anywhere_in_a_model_is_an_error_or_a_model_that_runs() {
    let ModelSource::File(path) = model("patches_batch.onnx") else { unreachable!() };
    let good = std::fs::read(path).unwrap();
    let mut refused = 0;
    for options in [rten(), ort()] {
        for at in (0..good.len()).step_by(3) {
            let mut bytes = good.clone();
            bytes[at] ^= 0x15;
            let bytes: &'static [u8] = bytes.leak();
            let source = ModelSource::BuiltIn { name: "damaged", bytes };
            refused += usize::from(detect::load(&source, &LABELS, &options).is_err());
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn labels_that_do_not_belong_to_the_model_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        LabelSource::File(path)
    };
    let check = |labels: LabelSource, expected: &str| {
        refused(&model("patches_batch.onnx"), &labels, &rten(), expected)
    };
    check(file("five", b"a\nb\nc\nd\ne\n"), "which is 2 classes, but 5 labels are given");
    check(file("empty", b"\n"), "empty: it has no label");
    check(file("twice", b"a\na\n"), "\"a\" stands on line 1 and again on line 2");
    check(file("binary", b"a\n\xff"), "not UTF-8");
    check(file("long", &[b'x'; 100]), "has 100 bytes, at most 64");
    check(file("huge", &[b'x'; 2 << 20]), "more than 4096 labels");
    check(LabelSource::File(folder.path().join("missing")), "missing: No such file");
    check(LabelSource::Model, "does not name its classes; give a label file");
    // End to end, the shape does not tell; its own names do.
    refused(&model("end_to_end.onnx"), &file("one", b"a"), &rten(), "names 2 classes, the labels");
}

#[test]
fn the_names_in_the_model_are_its_labels() {
    let loaded = detect::load(&model("patches.onnx"), &LabelSource::Model, &rten()).unwrap();
    assert_eq!(loaded.labels, ["person", "vehicle"]);
    assert_eq!(loaded.chosen.because, "named in the configuration");
}

#[test]
fn a_model_that_only_pretends_to_take_batches_runs_one_by_one() {
    for options in [rten(), ort()] {
        let loaded = load("bad/pretended_batch.onnx", &options).unwrap();
        assert_eq!(loaded.backend.input().max_batch, 1);
        assert!(loaded.notes[0].contains("but not two"), "{:?}", loaded.notes);
        assert_eq!(load("patches_batch.onnx", &options).unwrap().backend.input().max_batch, 8);
    }
}
