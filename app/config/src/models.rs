//! The detector that is installed beside the program: its files, and where they are looked for.

use std::path::{Path, PathBuf};

/// One file of NanoDet-g.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelFile {
    pub name: &'static str,
    /// Of the file as `cargo xtask model` makes it, in hexadecimal.
    pub sha256: &'static str,
    /// Of its input, pixels.
    pub width: usize,
    pub height: usize,
}

/// Lines of `SHA-256  nanodet-HEIGHTxWIDTH.onnx`.
const PINNED: &str = include_str!("../../model/nanodet/models.sha256");

/// What people look for with a model that knows eighty kinds of things.
pub const LABELS: [&str; 8] = ["person", "bicycle", "car", "motorcycle", "bus", "truck", "dog", "cat"];

/// NanoDet-g, in each of its sizes.
pub fn nanodet() -> Vec<ModelFile> {
    PINNED.lines().filter_map(model_file).collect()
}

fn model_file(line: &'static str) -> Option<ModelFile> {
    let (sha256, name) = line.split_once("  ")?;
    let (height, width) = name.strip_suffix(".onnx")?.rsplit_once('-')?.1.split_once('x')?;
    Some(ModelFile { name, sha256, width: width.parse().ok()?, height: height.parse().ok()? })
}

/// The first of the folders in which all files of NanoDet-g are.
pub fn installed(folders: &[PathBuf]) -> Option<&Path> {
    let all = |folder: &&PathBuf| nanodet().iter().all(|file| folder.join(file.name).is_file());
    folders.iter().find(all).map(PathBuf::as_path)
}

/// What an operator calls to have it in one of these folders.
pub fn how_to_install(folders: &[PathBuf]) -> String {
    let looked = match folders {
        [] => "nowhere".to_owned(),
        folders => folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", "),
    };
    // The one folder was named; else the command knows the first as well.
    let folder = match folders {
        [folder] => format!(" --folder {}", folder.display()),
        _ => String::new(),
    };
    format!(
        "NanoDet-g, which knows people and vehicles, is not installed (looked for in {looked}); `cargo xtask model{folder}`, \
         called in the source of kvs-edge, installs it"
    )
}

/// Where models are looked for: `KVS_EDGE_MODELS` alone where it is set, else in the user's data and in the system's.
pub(crate) fn folders(variable: impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    if let Some(folder) = variable("KVS_EDGE_MODELS") {
        return vec![folder];
    }
    let data = variable("XDG_DATA_HOME").or_else(|| Some(variable("HOME")?.join(".local/share")));
    let user = data.map(|data| data.join("kvs-edge/models"));
    user.into_iter().chain([PathBuf::from("/usr/share/kvs-edge/models")]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sizes_are_pinned() {
        let files = nanodet();
        let sizes: Vec<_> = files.iter().map(|file| (file.name, file.width, file.height)).collect();
        assert_eq!(sizes, [("nanodet-416x416.onnx", 416, 416), ("nanodet-384x640.onnx", 640, 384)]);
        assert!(files.iter().all(|file| file.sha256.len() == 64));
    }

    #[test]
    fn the_users_own_folder_comes_before_that_of_the_system() {
        let check = |set: &[(&str, &str)], expected: &[&str]| {
            let variable = |name: &str| {
                set.iter().find(|(known, _)| *known == name).map(|(_, value)| PathBuf::from(value))
            };
            let expected: Vec<_> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(folders(variable), expected, "{set:?}");
        };
        let system = "/usr/share/kvs-edge/models";
        check(&[], &[system]);
        check(&[("HOME", "/home/me")], &["/home/me/.local/share/kvs-edge/models", system]);
        check(&[("HOME", "/home/me"), ("XDG_DATA_HOME", "/data")], &["/data/kvs-edge/models", system]);
        check(&[("HOME", "/home/me"), ("KVS_EDGE_MODELS", "/models")], &["/models"]);
    }

    #[test]
    fn it_is_installed_where_all_of_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let [half, whole] = ["half", "whole"].map(|name| folder.path().join(name));
        for (folder, count) in [(&half, 1), (&whole, 2)] {
            std::fs::create_dir(folder).expect("made");
            for file in &nanodet()[..count] {
                std::fs::write(folder.join(file.name), "x").expect("written");
            }
        }
        assert_eq!(installed(&[]), None);
        assert_eq!(installed(std::slice::from_ref(&half)), None);
        assert_eq!(installed(&[half.clone(), whole.clone()]), Some(&*whole));
        let said = how_to_install(std::slice::from_ref(&half));
        assert!(said.contains(&format!("`cargo xtask model --folder {}`", half.display())), "{said}");
        assert!(how_to_install(&[half, whole]).contains("`cargo xtask model`"));
    }
}
