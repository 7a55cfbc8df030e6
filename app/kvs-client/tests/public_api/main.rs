//! What callers see of this crate changes only where somebody means it, and breaks them only with a version that says so.
//!
//! `app/kvs-client/public-api.txt` has every public item of the crate, and of what it re-exports the modules whose types it names.
//! A change shows there, in the commit that makes it: `cargo xtask api` writes the file, and refuses a change that breaks callers
//! of the version that it is of, until the version of the crate is the next one that may.
//!
//! A listing kept here and not cargo-semver-checks: that would be ten minutes of building on two cores in every new environment, and
//! there is no release in a registry to compare with. What a listing alone would leave out is added to its lines: which methods
//! of a trait are required, which structures have private fields. It looks at names and types, as that does: what a function
//! does is a matter of the tests. A type of another crate that moves to another private module counts as changed.

mod listing;
mod promise;

use std::path::{Path, PathBuf};
use std::process::Command;

use listing::{Part, of_crates, of_json};
use promise::{Promise, Version};

const PARTS: [Part; 5] = [
    Part { name: "kvs-client", modules: &[] },
    Part { name: "kvs", modules: &["ack", "api", "fragment_number", "read", "tag"] },
    Part { name: "media", modules: &["access_unit", "feed", "source", "mkv::elements", "mkv::read"] },
    Part { name: "decode", modules: &["DecodeError", "choose::Preference", "figures::DecodeReport"] },
    Part { name: "clock", modules: &[] },
];

/// `KVS_EDGE_RECORD_API=changes` writes the file, `=release` as what this version promises.
#[test]
fn callers_see_what_is_recorded_and_what_breaks_them_has_a_new_version() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("public-api.txt");
    let version = Version::parse(env!("CARGO_PKG_VERSION")).expect("three numbers");
    let items = of_crates(&PARTS);
    let recorded = || {
        let text = std::fs::read_to_string(&path).expect("readable");
        Promise::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let record = |promise: &Promise| std::fs::write(&path, promise.record(&items)).expect("written");
    match std::env::var("KVS_EDGE_RECORD_API").as_deref() {
        Ok("release") => record(&Promise::of(version, &items)),
        Ok("changes") => {
            let promise = recorded();
            promise.keeps(&items, version).unwrap_or_else(|error| panic!("{error}"));
            record(&promise);
        }
        Ok(other) => panic!("KVS_EDGE_RECORD_API is `{other}`, expected changes or release"),
        Err(_) => {
            let kept = recorded().keeps(&items, version).and_then(|()| recorded().is_of(&items));
            kept.unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

/// Lists the public items of a source text by the compiler itself.
fn items(folder: &Path, source: &str) -> Vec<String> {
    let file = folder.join("a.rs");
    std::fs::write(&file, source).expect("written");
    let rustdoc = std::env::var_os("RUSTDOC").map_or_else(|| PathBuf::from("rustdoc"), PathBuf::from);
    let mut command = Command::new(rustdoc);
    command.args([
        "--edition",
        "2024",
        "--crate-type",
        "lib",
        "-Zunstable-options",
        "--output-format",
        "json",
    ]);
    command.arg("--out-dir").arg(folder).arg(&file).env("RUSTC_BOOTSTRAP", "1");
    let output = command.output().expect("rustdoc starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    of_json(&folder.join("a.json"), &[])
}

const BEFORE: &str = "
pub struct Open { pub a: u8 }
pub struct Closed { pub a: u8, b: u8 }
pub struct Pair(pub u8, pub u8);
pub enum Way { By, In { depth: u8 } }
#[non_exhaustive] pub enum Some { One }
pub trait Job { fn must(&self); fn may(&self) {} }
#[derive(Clone, PartialEq)] pub struct Held { a: Vec<u8> }
impl Closed { pub fn new(a: u8) -> Self { Self { a, b: a } } }
pub const fn twice(a: u8) -> u8 { a * 2 }
";

#[test]
fn what_breaks_callers_is_found_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let promise = Promise::of(Version::parse("0.3.1").expect("a version"), &items(folder.path(), BEFORE));
    let [same, next] = ["0.3.9", "0.4.0"].map(|text| Version::parse(text).expect("a version"));
    let cases = [
        // Nothing for callers.
        ("nothing", BEFORE.to_owned(), &[][..]),
        (
            "a name within",
            BEFORE.replace(
                "new(a: u8) -> Self { Self { a, b: a } }",
                "new(x: u8) -> Self { Self { a: x, b: x } }",
            ),
            &[],
        ),
        ("a private item", format!("{BEFORE}fn hidden() {{}}"), &[]),
        // More for callers.
        ("a function", format!("{BEFORE}pub fn thrice() {{}}"), &[]),
        ("a field beside private ones", BEFORE.replace("b: u8 }", "b: u8, pub c: u8 }"), &[]),
        ("a variant of an open list", BEFORE.replace("{ One }", "{ One, Two { a: u8 } }"), &[]),
        ("a method with a body", BEFORE.replace("fn may", "fn can(&self) {} fn may"), &[]),
        ("a trait", format!("{BEFORE}pub trait New {{ type A; fn must(&self); }}"), &[]),
        // What callers trip over.
        (
            "a function gone",
            BEFORE.replace("pub const fn twice", "const fn twice"),
            &["- pub const fn a::twice(u8) -> u8"],
        ),
        (
            "a type changed",
            BEFORE.replace("new(a: u8)", "new(a: u16)"),
            &["- pub fn a::Closed::new(u8) -> Self", "+"],
        ),
        ("no longer const", BEFORE.replace("const fn", "fn"), &["- pub const fn a::twice(u8) -> u8"]),
        (
            "a field more",
            BEFORE.replace("{ pub a: u8 }", "{ pub a: u8, pub c: u8 }"),
            &["+ pub a::Open::c: u8"],
        ),
        (
            "a private field",
            BEFORE.replace("{ pub a: u8 }", "{ pub a: u8, c: u8 }"),
            &["- pub struct a::Open"],
        ),
        ("a variant more", BEFORE.replace("By,", "By, At(u8),"), &["+ pub a::Way::At(u8)"]),
        (
            "a field of a variant",
            BEFORE.replace("depth: u8", "depth: u8, width: u8"),
            &["+ pub a::Way::In::width: u8"],
        ),
        (
            "a list closed to callers",
            BEFORE.replace("#[non_exhaustive] ", ""),
            &["- #[non_exhaustive] pub enum a::Some"],
        ),
        (
            "a method required",
            BEFORE.replace("may(&self) {}", "may(&self);"),
            &["- pub fn a::Job::may(&self)"],
        ),
        (
            "a method more to write",
            BEFORE.replace("fn may", "fn can(&self); fn may"),
            &["+ pub fn a::Job::can(&self) // required"],
        ),
        (
            "a type more to name",
            BEFORE.replace("fn may", "type A; fn may"),
            &["+ pub type a::Job::A // required"],
        ),
        ("no clones", BEFORE.replace("Clone, ", ""), &["- impl core::clone::Clone for a::Held"]),
        (
            "not to other threads",
            BEFORE.replace("Vec<u8>", "std::rc::Rc<u8>"),
            &["- impl core::marker::Send for a::Held"],
        ),
    ];
    for (name, source, breaks) in cases {
        let now = items(folder.path(), &source);
        // A later version may do anything.
        assert_eq!(promise.keeps(&now, next), Ok(()), "{name}");
        match promise.keeps(&now, same) {
            Ok(()) => assert_eq!(breaks, &[] as &[&str], "{name}: found nothing"),
            Err(told) => {
                assert!(!breaks.is_empty(), "{name}: {told}");
                let lines: Vec<&str> = told.lines().collect();
                for found in breaks.iter().filter(|found| **found != "+") {
                    assert!(lines.contains(found), "{name}: {told}");
                }
                assert!(told.contains("make the version of kvs-client 0.4.0"), "{told}");
            }
        }
    }
}

#[test]
fn what_changed_is_told_and_the_file_keeps_what_was_promised() {
    let texts = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<String>>();
    let version = |text: &str| Version::parse(text).expect("a version");
    let first = Promise::of(version("1.2.0"), &texts(&["pub fn a::b()", "pub fn a::c()"]));
    let text = first.record(&texts(&["pub fn a::b()", "pub fn a::c()"]));
    assert_eq!(Promise::parse(&text), Ok(first));
    assert!(text.ends_with("since 1.2.0\n  pub fn a::b()\n  pub fn a::c()\n"), "{text}");

    let now = texts(&["pub fn a::c()", "pub fn a::d()"]);
    let promise = Promise::parse(&text).expect("written above");
    let told = promise.is_of(&now).expect_err("changed");
    assert!(told.contains("+ pub fn a::d()\n- pub fn a::b()\n"), "{told}");
    assert!(promise.keeps(&now, version("1.9.9")).expect_err("b is gone").contains("- pub fn a::b()\n"));
    assert_eq!(promise.keeps(&now, version("2.0.0")), Ok(()));

    // Recorded: that it was promised is not forgotten.
    let text = promise.record(&now);
    assert!(text.ends_with("  pub fn a::c()\n+ pub fn a::d()\n- pub fn a::b()\n"), "{text}");
    let again = Promise::parse(&text).expect("written above");
    assert_eq!((again.is_of(&now), again.record(&now)), (Ok(()), text));
    assert!(again.keeps(&now, version("1.9.9")).is_err());
    // What came and went between two versions was promised to nobody.
    assert_eq!(again.keeps(&texts(&["pub fn a::b()", "pub fn a::c()"]), version("1.2.1")), Ok(()));

    for (text, expected) in
        [("  pub fn a::b()\n", "which version"), ("since 1.0.0\npub fn a::b()\n", "line 2")]
    {
        let error = Promise::parse(text).expect_err(text);
        assert!(error.contains(expected), "{error}");
    }
}
