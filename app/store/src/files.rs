//! The few things that the spool asks of a file system, so that a test can stand between: let operations fail, and drop what
//! was never synced.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

/// A file system.
pub trait Files: Send + Sync {
    /// Makes a folder and those above it, for good.
    fn make_folder(&self, folder: &Path) -> io::Result<()>;

    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>>;

    /// A new file; there must be none of this name. Its name is there for good after [`sync_folder`](Self::sync_folder).
    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>>;

    /// Up to `length` bytes from `offset` on; fewer at the end of the file.
    fn read(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>>;

    /// Cuts a file off, for good.
    fn truncate(&self, path: &Path, length: u64) -> io::Result<()>;

    /// Gone for good after [`sync_folder`](Self::sync_folder).
    fn remove(&self, path: &Path) -> io::Result<()>;

    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// A file that grows.
pub trait NewFile: Send {
    /// One write.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// What was appended is there for good.
    fn sync(&mut self) -> io::Result<()>;
}

/// One name in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub bytes: u64,
    pub is_folder: bool,
}

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFiles;

impl Files for RealFiles {
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
        if let Some(above) = above {
            self.make_folder(above)?;
        }
        match fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.sync_folder(above.unwrap_or(Path::new(".")))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            // Gone since it was listed: somebody else tidies up.
            let Ok(metadata) = entry.metadata() else { continue };
            let name = entry.file_name().to_string_lossy().into_owned();
            entries.push(Entry { name, bytes: metadata.len(), is_folder: metadata.is_dir() });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        Ok(Box::new(RealFile(OpenOptions::new().create_new(true).append(true).open(path)?)))
    }

    fn read(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut file = fs::File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(length as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn truncate(&self, path: &Path, length: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(length)?;
        file.sync_all()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        fs::File::open(folder)?.sync_all()
    }
}

struct RealFile(fs::File);

impl NewFile for RealFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        // The new length is synced too: without it the bytes could not be found (fdatasync(2)).
        self.0.sync_data()
    }
}
