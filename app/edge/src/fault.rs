//! Panics on demand, for tests: a stage of a camera panics once when it is told to. Only where debug assertions are on; of
//! programs that ship nothing of it is a part.
//!
//! In this process [`arm`] tells it; from outside, where `KVS_EDGE_PANICS` names a folder, a file `STAGE.CAMERA` in it does, and
//! is gone once the stage has panicked.

/// What can be made to panic, at the moment that costs the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// With a picture that it is about to feed.
    Ingest,
    /// With a fragment that is finished and that nobody has asked the disk for yet.
    Upload,
    /// In the middle of a write.
    Spool,
    Proof,
    Records,
}

#[cfg(debug_assertions)]
mod demand {
    use std::collections::BTreeSet;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Mutex, OnceLock, PoisonError};

    use super::Stage;

    static ARMED: Mutex<BTreeSet<(Stage, String)>> = Mutex::new(BTreeSet::new());
    static ANY: AtomicBool = AtomicBool::new(false);
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();

    /// The stage of this camera panics the next time it comes by.
    pub fn arm(stage: Stage, camera: &str) {
        ARMED.lock().unwrap_or_else(PoisonError::into_inner).insert((stage, camera.to_owned()));
        ANY.store(true, Ordering::Release);
    }

    pub(crate) fn panic_point(stage: Stage, camera: &str) {
        let folder = FOLDER.get_or_init(|| std::env::var_os("KVS_EDGE_PANICS").map(PathBuf::from)).as_ref();
        let mut due = folder.is_some_and(|folder| {
            let name = format!("{stage:?}.{camera}").to_lowercase();
            std::fs::remove_file(folder.join(name)).is_ok()
        });
        if ANY.load(Ordering::Acquire) {
            let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
            due |= armed.remove(&(stage, camera.to_owned()));
        }
        assert!(!due, "{stage:?} of {camera} panics on demand");
    }
}

#[cfg(debug_assertions)]
pub use demand::arm;
#[cfg(debug_assertions)]
pub(crate) use demand::panic_point;

#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn panic_point(_: Stage, _: &str) {}

/// The file system of the spool.
pub(crate) fn files() -> std::sync::Arc<dyn store::Files> {
    #[cfg(debug_assertions)]
    return std::sync::Arc::new(disk::Faulty(store::RealFiles));
    #[cfg(not(debug_assertions))]
    std::sync::Arc::new(store::RealFiles)
}

/// A disk whose thread panics in the middle of a write.
#[cfg(debug_assertions)]
mod disk {
    use std::io;
    use std::path::Path;

    use store::{Entry, Files, NewFile, RealFiles};

    use super::{Stage, panic_point};

    pub(super) struct Faulty(pub(super) RealFiles);

    struct FaultyFile {
        camera: String,
        file: Box<dyn NewFile>,
    }

    impl Files for Faulty {
        fn make_folder(&self, folder: &Path) -> io::Result<()> {
            self.0.make_folder(folder)
        }

        fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
            self.0.list(folder)
        }

        fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
            let file = self.0.create(path)?;
            let camera = path.parent().and_then(Path::file_name).unwrap_or_default();
            Ok(Box::new(FaultyFile { camera: camera.to_string_lossy().into_owned(), file }))
        }

        fn read(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
            self.0.read(path, offset, length)
        }

        fn truncate(&self, path: &Path, length: u64) -> io::Result<()> {
            self.0.truncate(path, length)
        }

        fn remove(&self, path: &Path) -> io::Result<()> {
            self.0.remove(path)
        }

        fn sync_folder(&self, folder: &Path) -> io::Result<()> {
            self.0.sync_folder(folder)
        }
    }

    impl NewFile for FaultyFile {
        fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
            let (first, second) = bytes.split_at(bytes.len() / 2);
            self.file.append(first)?;
            panic_point(Stage::Spool, &self.camera);
            self.file.append(second)
        }

        fn sync(&mut self) -> io::Result<()> {
            self.file.sync()
        }
    }
}
