//! One thin fuzz target per parser of outside bytes; the corpora run as plain tests.
//!
//! A target takes any bytes and panics if a promise of the parser is broken. The same functions are run by libFuzzer
//! (`fuzz_targets/`, see `README.md`) and, on the corpus and on damaged copies of it, by `tests/corpus.rs`.

mod detect_targets;
mod kvs_targets;
mod media_targets;
mod vision_targets;

/// Takes any bytes; panics if a promise of the parser is broken.
pub type Target = fn(&[u8]);

/// Every target by the name of its file in `fuzz_targets/` and its folder in `corpus/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("mkv_read", media_targets::mkv_read),
    ("mkv_elements", media_targets::mkv_elements),
    ("nal", media_targets::nal),
    ("avcc", media_targets::avcc),
    ("hvcc", media_targets::hvcc),
    ("sps_h264", media_targets::sps_h264),
    ("sps_h265", media_targets::sps_h265),
    ("acks", kvs_targets::acks),
    ("chunks", kvs_targets::chunks),
    ("units", kvs_targets::units),
    ("documents", kvs_targets::documents),
    ("tags", kvs_targets::tags),
    ("kvs_texts", kvs_targets::kvs_texts),
    ("playlist", kvs_targets::playlist),
    ("fmp4", media_targets::fmp4),
    ("heads", vision_targets::heads),
    ("models", detect_targets::models),
];

/// Runs the target of this name. Panics if there is none, or if a promise is broken.
pub fn run(target: &str, data: &[u8]) {
    let found = TARGETS.iter().find(|(name, _)| *name == target);
    let (_, function) = found.unwrap_or_else(|| panic!("no target named {target} in TARGETS"));
    function(data);
}

#[cfg(feature = "libfuzzer")]
pub use libfuzzer_sys;

/// The whole body of a file in `fuzz_targets/`.
#[cfg(feature = "libfuzzer")]
#[macro_export]
macro_rules! libfuzzer {
    ($target:ident) => {
        $crate::libfuzzer_sys::fuzz_target!(|data: &[u8]| $crate::run(stringify!($target), data));
    };
}
