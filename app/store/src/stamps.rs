//! The times of what a camera recorded without a clock, in small files of their own: nothing that makes room takes them along.
//!
//! ```text
//!  FOLDER/stamps/CAMERA/0000000003.stamps    one record, see `record.rs`
//! ```
//!
//! Each is written once and for good before anybody is told what it says. Of two that name the same run the last counts: the
//! first was never told of, because its write failed. A file that was torn off was never told of either. It stays until nothing
//! of its runs is left.

use std::io;
use std::path::{Path, PathBuf};

use kvs::stamping::RunStamp;

use crate::files::Files;
use crate::record::{self, Meta, read_head, read_meta};
use crate::seal::Keys;

const EXTENSION: &str = ".stamps";
/// No file is longer: a run has 25 bytes.
const LARGEST: usize = 1 << 20;

/// Of one file.
#[derive(Debug)]
pub(crate) struct StampFile {
    pub(crate) path: PathBuf,
    pub(crate) number: u64,
    /// Nothing where it was torn off.
    pub(crate) stamps: Vec<RunStamp>,
}

fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(EXTENSION)?;
    (digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Writes them down for good, in the folder of their camera.
pub(crate) fn write(files: &dyn Files, folder: &Path, number: u64, stamps: &[RunStamp]) -> io::Result<()> {
    let mut bytes = Vec::new();
    record::write_stamps(&mut bytes, stamps);
    files.make_folder(folder.parent().unwrap_or(folder))?;
    files.make_folder(folder)?;
    let path = folder.join(format!("{number:010}{EXTENSION}"));
    let mut file = files.create(&path)?;
    file.append(&bytes)?;
    file.sync()?;
    files.sync_folder(folder)
}

/// All that are there, in the order in which they were written.
pub(crate) fn read(files: &dyn Files, folder: &Path) -> io::Result<Vec<StampFile>> {
    let entries = match files.list(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let Some(number) = number_of(&entry.name).filter(|_| !entry.is_folder) else { continue };
        let path = folder.join(&entry.name);
        let bytes = files.read(&path, 0, LARGEST)?;
        // Nothing in it is footage: it is never sealed.
        let meta = read_head(&bytes).and_then(|head| read_meta(&head, &bytes, &Keys::default()));
        let stamps = if let Some(Meta::Stamps(stamps)) = meta { stamps } else { Vec::new() };
        found.push(StampFile { path, number, stamps });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use kvs::RunId;
    use kvs::stamping::Estimate;

    use super::*;
    use crate::testing::TestFiles;

    #[test]
    fn what_is_written_comes_back_in_order_and_what_was_torn_says_nothing() {
        let (files, folder) = (TestFiles::default(), Path::new("/spool/stamps/cam"));
        assert!(read(&files, folder).expect("nothing is there").is_empty());
        let stamp = |run, estimate| RunStamp { run: RunId::new(run), offset_ms: -5, estimate };
        let first = [
            stamp(1, None),
            stamp(2, Some(Estimate { earlier_ms: Some(9) })),
            stamp(3, Some(Estimate { earlier_ms: None })),
        ];
        write(&files, folder, 1, &first).expect("it is written");
        write(&files, folder, 2, &first[..1]).expect("it is written");
        let found = read(&files, folder).expect("they are there");
        let all: Vec<_> = found.iter().map(|file| (file.number, file.stamps.clone())).collect();
        assert_eq!(all, [(1, first.to_vec()), (2, first[..1].to_vec())]);
        let mut whole = Vec::new();
        files.damage(&found[0].path, |bytes| whole.clone_from(bytes));
        for length in 0..whole.len() {
            files.damage(&found[0].path, |bytes| *bytes = whole[..length].to_vec());
            assert!(read(&files, folder).expect("it is there")[0].stamps.is_empty(), "{length}");
        }
        assert_eq!((number_of("0000000017.stamps"), number_of("17.stamps")), (Some(17), None));
    }
}
