//! The cache folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{Audio, ClipError, ClipSpec, Codec, audio, encode, footage};
use crate::scene::FrameTruth;

pub(super) const INDEX: &str = "index.json";
pub(super) const TRUTH: &str = "truth.jsonl";

/// `$KVS_EDGE_SIM_CACHE`, else `$XDG_CACHE_HOME/kvs-edge/camera-sim`, else `~/.cache/kvs-edge/camera-sim`.
pub fn default_cache_dir() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = variable("KVS_EDGE_SIM_CACHE") {
        return folder;
    }
    let caches = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    caches.unwrap_or_else(std::env::temp_dir).join("kvs-edge").join("camera-sim")
}

pub(super) fn failed(path: &Path) -> impl FnOnce(io::Error) -> ClipError {
    let path = path.display().to_string();
    move |source| ClipError::Cache { path, source }
}

pub(super) fn video_name(codec: Codec) -> String {
    format!("video.{}", codec.name())
}

/// The complete folder of a clip; makes it if need be.
pub(super) fn folder(spec: &ClipSpec, cache_dir: &Path) -> Result<PathBuf, ClipError> {
    let folder = cache_dir.join(spec.key());
    if folder.join(INDEX).exists() {
        return Ok(folder);
    }
    fs::create_dir_all(cache_dir).map_err(failed(cache_dir))?;
    let unique = format!(".{}-{}-{:08x}", spec.key(), std::process::id(), rand::random::<u32>());
    let unfinished = Unfinished(cache_dir.join(unique));
    fs::create_dir(&unfinished.0).map_err(failed(&unfinished.0))?;
    match &spec.footage {
        Some(file) => footage::make(spec, file, &unfinished.0)?,
        None => encode::video(spec, &unfinished.0)?,
    }
    if spec.audio != Audio::None {
        audio::make(spec, &unfinished.0)?;
    }
    match fs::rename(&unfinished.0, &folder) {
        Ok(()) => Ok(folder),
        // Somebody else was faster, and a folder that is not empty cannot be replaced; theirs is as good.
        Err(_) if folder.join(INDEX).exists() => Ok(folder),
        Err(error) => Err(failed(&folder)(error)),
    }
}

/// Removed again unless it was renamed.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Presentation index and size in bytes of each picture, in coding order.
pub(super) type Index = Vec<(u32, usize)>;

pub(super) fn read_video(codec: Codec, folder: &Path) -> Result<(Bytes, Index), ClipError> {
    let path = folder.join(video_name(codec));
    let video = fs::read(&path).map_err(failed(&path))?;
    let path = folder.join(INDEX);
    let index = fs::read(&path).map_err(failed(&path))?;
    let index = serde_json::from_slice(&index).map_err(|error| failed(&path)(error.into()))?;
    Ok((Bytes::from(video), index))
}

pub(super) fn read_truth(folder: &Path) -> Result<Vec<FrameTruth>, ClipError> {
    let path = folder.join(TRUTH);
    let text = fs::read_to_string(&path).map_err(failed(&path))?;
    let lines: Result<_, _> = text.lines().map(serde_json::from_str).collect();
    lines.map_err(|error| failed(&path)(error.into()))
}
