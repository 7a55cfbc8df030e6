//! The public layers below a folder: all there, and all of one series.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// What a machine needs besides this repository's own layer: folders below the one that is given.
const ALWAYS: &[&str] = &["openembedded-core/meta", "meta-rust-bin", "meta-rauc"];
/// Likewise for a Jetson.
const JETSON: &[&str] = &["meta-tegra"];
/// Our machines, which Yocto wants apart from a distribution.
pub(super) const BSP: &str = "bsp";
/// Series that the layer speaks for.
const SERIES: &[&str] = &["scarthgap", "wrynose"];

/// Machines of the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Machine {
    /// Needs no layer of a vendor.
    VirtualBoard,
    Jetson,
}

impl Machine {
    pub(super) fn of(name: &str) -> Result<Self, String> {
        match name {
            "kvs-edge-qemuarm64" => Ok(Self::VirtualBoard),
            "kvs-edge-orin-nano" => Ok(Self::Jetson),
            _ => Err(format!("found machine `{name}`, expected {} or {}", Self::VirtualBoard, Self::Jetson)),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VirtualBoard => "kvs-edge-qemuarm64",
            Self::Jetson => "kvs-edge-orin-nano",
        })
    }
}

/// Layers that fit together.
#[derive(Debug)]
pub(super) struct Layers {
    /// Holds bitbake and the layers.
    pub(super) folder: PathBuf,
    pub(super) series: String,
    /// Ours last.
    pub(super) layers: Vec<PathBuf>,
}

impl Layers {
    pub(super) fn find(folder: &Path, own: &Path, machine: Machine) -> Result<Self, String> {
        let folder = folder.canonicalize().map_err(|error| format!("{}: {error}", folder.display()))?;
        let wanted = ALWAYS.iter().chain(if machine == Machine::Jetson { JETSON } else { &[] });
        let wanted: Vec<PathBuf> = wanted.map(|layer| folder.join(layer)).collect();
        let bitbake = folder.join("bitbake/bin/bitbake");
        for path in [&bitbake].into_iter().chain(&wanted) {
            if !path.exists() {
                return Err(format!(
                    "found no {} in {}, which must hold the repositories of meta-kvs-edge/kas/{}.yml at the commits of its locks",
                    path.strip_prefix(&folder).unwrap_or(path).display(),
                    folder.display(),
                    if machine == Machine::Jetson { "orin-nano" } else { "qemuarm64" },
                ));
            }
        }
        let core = read(&wanted[0].join("conf/layer.conf"))?;
        let series = words(&core, "LAYERSERIES_CORENAMES").join(" ");
        if !SERIES.contains(&series.as_str()) {
            return Err(format!(
                "openembedded-core in {} is {}, expected {}",
                folder.display(),
                if series.is_empty() { "of no series" } else { &series },
                SERIES.join(" or ")
            ));
        }
        let mut layers = wanted;
        layers.extend([own.to_path_buf(), own.join(BSP)]);
        for layer in &layers[1..] {
            let speaks_for = words(&read(&layer.join("conf/layer.conf"))?, "LAYERSERIES_COMPAT_");
            if !speaks_for.contains(&series) {
                return Err(format!(
                    "{} is for {}, openembedded-core beside it for {series}: expected all of one series, as in meta-kvs-edge/kas",
                    layer.display(),
                    if speaks_for.is_empty() { "no series".to_owned() } else { speaks_for.join(", ") },
                ));
            }
        }
        Ok(Self { folder, series, layers })
    }
}

/// The words of a variable of a layer.conf, whose name begins so.
fn words(conf: &str, variable: &str) -> Vec<String> {
    let joined = conf.replace("\\\n", " ");
    let line = joined.lines().find(|line| line.starts_with(variable));
    let value = line.and_then(|line| line.split('"').nth(1)).unwrap_or_default();
    value.split_whitespace().map(str::to_owned).collect()
}

fn read(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of layers, each with its layer.conf.
    fn folder(name: &str, confs: &[(&str, &str)]) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("xtask-layers-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        for (layer, conf) in confs {
            fs::create_dir_all(folder.join(layer).join("conf")).unwrap();
            fs::write(folder.join(layer).join("conf/layer.conf"), conf).unwrap();
        }
        fs::create_dir_all(folder.join("bitbake/bin")).unwrap();
        fs::write(folder.join("bitbake/bin/bitbake"), "").unwrap();
        folder
    }

    const CORE: (&str, &str) = ("openembedded-core/meta", "LAYERSERIES_CORENAMES = \"scarthgap\"\n");
    const RUST: (&str, &str) = (
        "meta-rust-bin",
        "LAYERSERIES_COMPAT_rust-bin-layer = \" \\\n    kirkstone \\\n    scarthgap \\\n\"\n",
    );
    const RAUC: (&str, &str) = ("meta-rauc", "LAYERSERIES_COMPAT_rauc = \"nanbield scarthgap\"\n");

    fn own() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../meta-kvs-edge")
    }

    #[test]
    fn layers_of_one_series_are_taken_ours_last() {
        let folder = folder("whole", &[CORE, RUST, RAUC]);
        let layers = Layers::find(&folder, &own(), Machine::VirtualBoard).unwrap();
        assert_eq!(layers.series, "scarthgap");
        assert_eq!(layers.layers.len(), 5);
        assert!(layers.layers[4].ends_with("meta-kvs-edge/bsp"));
        let error = Layers::find(&folder, &own(), Machine::Jetson).unwrap_err();
        assert!(error.starts_with("found no meta-tegra in "), "{error}");
        assert!(error.contains("kas/orin-nano.yml"), "{error}");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_layer_that_is_missing_is_named() {
        let whole = folder("missing", &[CORE, RAUC]);
        let error = Layers::find(&whole, &own(), Machine::VirtualBoard).unwrap_err();
        assert!(error.starts_with("found no meta-rust-bin in "), "{error}");
        fs::remove_file(whole.join("bitbake/bin/bitbake")).unwrap();
        let error = Layers::find(&whole, &own(), Machine::VirtualBoard).unwrap_err();
        assert!(error.starts_with("found no bitbake/bin/bitbake in "), "{error}");
        fs::remove_dir_all(whole).unwrap();
        let error = Layers::find(Path::new("/not/there"), &own(), Machine::VirtualBoard).unwrap_err();
        assert!(error.starts_with("/not/there: "), "{error}");
    }

    #[test]
    fn layers_of_another_series_are_refused() {
        let core = |series| ("openembedded-core/meta", series);
        for (name, confs, wanted) in [
            (
                "newer",
                [core("LAYERSERIES_CORENAMES = \"wrynose\"\n"), RUST, RAUC],
                "meta-rust-bin is for kirkstone, scarthgap, openembedded-core beside it for wrynose",
            ),
            (
                "older",
                [core("LAYERSERIES_CORENAMES = \"kirkstone\"\n"), RUST, RAUC],
                "is kirkstone, expected scarthgap or wrynose",
            ),
            ("none", [core("\n"), RUST, RAUC], "is of no series, expected scarthgap or wrynose"),
            ("silent", [CORE, RUST, ("meta-rauc", "\n")], "meta-rauc is for no series"),
        ] {
            let folder = folder(name, &confs);
            let error = Layers::find(&folder, &own(), Machine::VirtualBoard).unwrap_err();
            assert!(error.contains(wanted), "{name}: {error}");
            fs::remove_dir_all(folder).unwrap();
        }
    }

    #[test]
    fn machines_are_those_of_the_layer() {
        for machine in [Machine::VirtualBoard, Machine::Jetson] {
            assert!(own().join(format!("bsp/conf/machine/{machine}.conf")).exists());
            assert_eq!(Machine::of(&machine.to_string()), Ok(machine));
        }
        let error = Machine::of("qemuarm64").unwrap_err();
        assert_eq!(error, "found machine `qemuarm64`, expected kvs-edge-qemuarm64 or kvs-edge-orin-nano");
    }
}
