//! A library that says that it is ONNX Runtime and is not. On its own, because it stays in the process.

use std::process::Command;

use detect::{BackendChoice, LabelSource, LoadOptions, ModelSource};

#[test]
fn a_library_that_lies_about_its_version_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let (source, library) = (folder.path().join("lie.c"), folder.path().join("libonnxruntime.so"));
    let code = "static const void *api(unsigned version) { (void)version; return 0; }\n\
        static const char *version(void) { return \"1.31.0\"; }\n\
        static struct { const void *(*api)(unsigned); const char *(*version)(void); } base = { api, version };\n\
        const void *OrtGetApiBase(void) { return &base; }\n";
    std::fs::write(&source, code).unwrap();
    let compiler = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    assert!(compiler.expect("cc is installed, as it links this test").success());

    let model = ModelSource::File(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/patches.onnx").into());
    let load = |backend| {
        let options = LoadOptions { backend, library: Some(library.clone()), ..LoadOptions::default() };
        detect::load(&model, &LabelSource::Model, &options)
    };
    for _ in 0..2 {
        let error = load(BackendChoice::Ort).err().unwrap().to_string();
        assert!(error.contains("libonnxruntime.so: the library panicked"), "{error}");
        let chosen = load(BackendChoice::Auto).unwrap().chosen;
        assert_eq!(chosen.backend, "rten");
        assert!(chosen.because.contains("the library panicked"), "{}", chosen.because);
    }
    let other = LoadOptions {
        backend: BackendChoice::Ort,
        library: Some(folder.path().join("other.so")),
        ..LoadOptions::default()
    };
    let error = detect::load(&model, &LabelSource::Model, &other).err().unwrap().to_string();
    assert!(error.contains("takes a restart"), "{error}");
}
