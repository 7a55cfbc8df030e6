//! One server per data folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

const NAME: &str = "lock";

/// Held until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct FolderLock(File);

impl FolderLock {
    /// `Ok(None)`: somebody else has it.
    pub(crate) fn take(folder: &Path) -> io::Result<Option<Self>> {
        // The file stays: one that is removed could be locked by one server and made anew by another.
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(NAME))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Closing is not enough: a process that is being started may still have a copy of the file.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_holder_at_a_time() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let take = || FolderLock::take(folder.path()).expect("locks work here");
        let held = take().expect("free");
        assert!(take().is_none());
        drop(held);
        assert!(take().is_some());
    }
}
