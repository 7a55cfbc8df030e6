//! Where the shared library of ONNX Runtime is looked for.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Environment variable that names the library; the same that the `ort` crate and its documentation use.
const VARIABLE: &str = "ORT_DYLIB_PATH";

/// Directories of packages and of people who unpack archives; one level of folders below `/usr/lib` is looked at
/// too, because Debian keeps libraries in `/usr/lib/x86_64-linux-gnu`.
const DIRECTORIES: [&str; 5] = ["/usr/local/lib", "/opt/onnxruntime/lib", "/usr/lib", "/usr/lib64", "/lib"];

/// Where a library is, or everywhere that it is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Search {
    /// With the reason why this one.
    Found(PathBuf, &'static str),
    NotFound {
        searched: String,
    },
}

/// The one named in the configuration, else the one named in the environment, else the newest one installed. A named
/// one need not exist: opening it will say so.
pub(crate) fn search(named: Option<&Path>) -> Search {
    if let Some(path) = named {
        return Search::Found(path.to_owned(), "named in the configuration");
    }
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        return Search::Found(path.into(), "named by ORT_DYLIB_PATH");
    }
    search_in(&DIRECTORIES.map(Path::new))
}

fn search_in(directories: &[&Path]) -> Search {
    for directory in directories {
        let below = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut folders: Vec<PathBuf> = below.filter(|path| path.is_dir()).collect();
        folders.sort();
        folders.insert(0, directory.to_path_buf());
        if let Some(found) = folders.iter().find_map(|folder| newest(folder)) {
            return Search::Found(found, "found installed");
        }
    }
    let searched: Vec<String> = directories.iter().map(|path| path.display().to_string()).collect();
    Search::NotFound { searched: searched.join(", ") }
}

/// `libonnxruntime.so` if there is one, else the `libonnxruntime.so.1.31.1` with the highest numbers.
fn newest(folder: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let version = |path: &Path| -> Option<Vec<u32>> {
        let rest = path.file_name().and_then(OsStr::to_str)?.strip_prefix("libonnxruntime.so")?;
        if rest.is_empty() {
            return Some(vec![u32::MAX]);
        }
        rest.strip_prefix('.')?.split('.').map(|number| number.parse().ok()).collect()
    };
    files.filter_map(|path| Some((version(&path)?, path))).max().map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_library_of_the_first_directory_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let (first, second) = (root.path().join("first"), root.path().join("second"));
        let triplet = second.join("x86_64-linux-gnu");
        std::fs::create_dir_all(&first).unwrap();
        std::fs::create_dir_all(&triplet).unwrap();
        let directories = [root.path().join("missing"), first.clone(), second.clone()];
        let directories: Vec<&Path> = directories.iter().map(PathBuf::as_path).collect();
        let check = |expected: Option<PathBuf>| match (search_in(&directories), expected) {
            (Search::Found(found, _), Some(expected)) => assert_eq!(found, expected),
            (Search::NotFound { searched }, None) => assert!(searched.contains("second"), "{searched}"),
            other => panic!("{other:?}"),
        };
        check(None);
        let touch = |path: PathBuf| {
            std::fs::write(&path, "").unwrap();
            path
        };
        touch(first.join("libonnxruntime_providers_shared.so"));
        touch(first.join("libonnxruntime.so.backup"));
        check(None);
        touch(triplet.join("libonnxruntime.so.1.9.0"));
        let newest = touch(triplet.join("libonnxruntime.so.1.31.1"));
        check(Some(newest));
        check(Some(touch(triplet.join("libonnxruntime.so"))));
        check(Some(touch(first.join("libonnxruntime.so.1.20.1"))));
    }

    #[test]
    fn a_named_library_is_taken_as_it_is() {
        let path = Path::new("/nowhere/libonnxruntime.so");
        assert_eq!(search(Some(path)), Search::Found(path.to_owned(), "named in the configuration"));
    }
}
