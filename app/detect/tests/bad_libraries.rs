//! Libraries that are not ONNX Runtime. One test, because a process opens one library for good.

mod rig;

use std::path::{Path, PathBuf};
use std::process::Command;

use detect::{BackendChoice, LoadOptions};
use rig::{load, onnxruntime};

/// A library with the one function by which ONNX Runtime is entered, which tells `version`.
fn pretender(folder: &Path, name: &str, version: &str) -> PathBuf {
    let (source, library) = (folder.join(name).with_extension("c"), folder.join(name));
    let code = format!(
        "static const void *api(unsigned version) {{ (void)version; return 0; }}\n\
         static const char *version(void) {{ return \"{version}\"; }}\n\
         static struct {{ const void *(*api)(unsigned); const char *(*version)(void); }} base = {{ api, version }};\n\
         const void *OrtGetApiBase(void) {{ return &base; }}\n"
    );
    std::fs::write(&source, code).unwrap();
    let compiler = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    assert!(compiler.expect("cc is installed, as it links this test").success());
    library
}

#[test]
fn a_wrong_library_is_an_error_when_forced_and_a_reason_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let options = |backend, library: &Path| LoadOptions {
        backend,
        library: Some(library.to_owned()),
        ..LoadOptions::default()
    };
    let check = |library: &Path, expected: &str| {
        let Err(error) = load("patches.onnx", &options(BackendChoice::Ort, library)) else {
            panic!("{} was taken", library.display())
        };
        let error = error.to_string();
        assert!(error.contains(expected) && error.contains(&library.display().to_string()), "{error}");
        let loaded = load("patches.onnx", &options(BackendChoice::Auto, library)).unwrap();
        assert_eq!(loaded.chosen.backend, "rten");
        let because = loaded.chosen.because;
        assert!(
            because.starts_with("the libonnxruntime named in the configuration does not open: "),
            "{because}"
        );
        assert!(because.contains(expected), "{because}");
    };
    let text = folder.path().join("libonnxruntime.so");
    std::fs::write(&text, "this is not a library\n".repeat(100)).unwrap();
    check(&text, "invalid ELF header");
    std::fs::write(&text, "").unwrap();
    check(&text, "file too short");
    check(&folder.path().join("missing.so"), "No such file");
    check(folder.path(), "");
    check(Path::new("libm.so.6"), "does not export `OrtGetApiBase`");
    check(&pretender(folder.path(), "old.so", "1.16.3"), "got '1.16.3'");
    check(&pretender(folder.path(), "odd.so", "unknown"), "got 'unknown'");

    // None of them is in the way of the right one, after which another one takes a restart.
    let real = onnxruntime();
    let loaded = load("patches.onnx", &options(BackendChoice::Auto, &real)).unwrap();
    assert_eq!(loaded.chosen.backend, "ort");
    assert_eq!(loaded.chosen.because, "its library is named in the configuration");
    assert_eq!(loaded.chosen.library.as_ref().map(|(path, _)| path), Some(&real));
    check(&text, "is open already");
    assert_eq!(load("patches.onnx", &options(BackendChoice::Ort, &real)).unwrap().chosen.backend, "ort");
    // A model that only rten takes, or neither, is not the library's fault.
    let error = load("bad/unknown_operator.onnx", &options(BackendChoice::Auto, &real)).err().unwrap();
    assert!(error.to_string().contains("rten: the model does not load"), "{error}");
}
