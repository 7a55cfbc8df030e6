//! Peers that come as npm packages, fetched by `npm.py` without npm, below the target folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::python;

/// The player that most web pages play HLS by. Pinned by the SHA-256 of the file.
const HLS_JS: [&str; 4] = [
    "hls.js",
    "1.7.4",
    "cfc70cc9e9fc63d071919e087670abc760c8fd1bc889b88588026e4d22193bbe",
    "package/dist/hls.min.js",
];

/// hls.js as one file.
pub(crate) fn hls_js(python: &Path) -> Result<PathBuf, String> {
    let folder = python::target().join("npm");
    let [.., file] = HLS_JS;
    let name = file.rsplit('/').next().unwrap_or(file);
    let mut fetch = Command::new(python);
    fetch.arg("-B").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/npm.py")).arg(&folder).args(HLS_JS);
    crate::run(&mut fetch)?;
    Ok(folder.join(name))
}
