//! What of a segment that has to go is not in KVS: written down beside it before it is removed, and kept until somebody was
//! told. So a gap is told however the power fails, and whatever becomes of the index.
//!
//! ```text
//!  "KVSSGONE" version count | run sequence offset start_ms end_ms bytes | ... | crc
//! ```
//!
//! Numbers are little-endian, of 64 bits but for version, count and sum, which have 32.

use std::io;
use std::path::Path;

use kvs::upload::{Dropped, Place};
use kvs::{FragmentId, RunId};
use media::ProducerTimestamp;

use crate::files::Files;

const EXTENSION: &str = ".gone";
const MAGIC: &[u8; 8] = b"KVSSGONE";
const VERSION: u32 = 1;
/// Of one fragment.
const ROW: usize = 48;
/// No segment holds more fragments than that.
const LARGEST: usize = 16 << 20;

pub(crate) fn name_of(segment: u64) -> String {
    format!("{segment:010}{EXTENSION}")
}

/// The segment that a file is about, by its name.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(EXTENSION)?;
    (digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Writes it down for good.
pub(crate) fn write(files: &dyn Files, path: &Path, gone: &[Dropped]) -> io::Result<()> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(u32::try_from(gone.len()).unwrap_or(u32::MAX).to_le_bytes());
    for Dropped { id, place, start, end, bytes: size } in gone {
        let numbers = [id.run.as_u64(), id.sequence, place.offset, start.as_millis(), end.as_millis(), *size];
        numbers.iter().for_each(|number| bytes.extend(number.to_le_bytes()));
    }
    let sum = crc32fast::hash(&bytes);
    bytes.extend(sum.to_le_bytes());
    // Of an attempt that failed half-way.
    match files.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = files.create(path)?;
    file.append(&bytes)?;
    file.sync()?;
    files.sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// `None`: it was never finished, so the segment is still there.
pub(crate) fn read(files: &dyn Files, path: &Path, segment: u64) -> io::Result<Option<Vec<Dropped>>> {
    let bytes = files.read(path, 0, LARGEST)?;
    Ok(parse(&bytes, segment))
}

fn parse(bytes: &[u8], segment: u64) -> Option<Vec<Dropped>> {
    let (body, sum) = bytes.split_last_chunk::<4>()?;
    let rows = body.strip_prefix(MAGIC)?;
    let (version, rows) = rows.split_first_chunk::<4>()?;
    let (count, rows) = rows.split_first_chunk::<4>()?;
    let is_whole = crc32fast::hash(body) == u32::from_le_bytes(*sum)
        && u32::from_le_bytes(*version) == VERSION
        && rows.len() == u32::from_le_bytes(*count) as usize * ROW;
    let dropped = |row: &[u8]| {
        let number = |at: usize| {
            let bytes = row.get(at * 8..at * 8 + 8)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?))
        };
        let id = FragmentId { run: RunId::from_u64(number(0)?)?, sequence: number(1)? };
        let place = Place { segment, offset: number(2)? };
        let (start, end) = (number(3)?, number(4)?);
        let at = ProducerTimestamp::from_millis;
        Some(Dropped { id, place, start: at(start), end: at(end), bytes: number(5)? })
    };
    is_whole.then(|| rows.chunks_exact(ROW).map(dropped).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestFiles;

    #[test]
    fn what_is_written_comes_back_and_what_was_torn_says_nothing() {
        let (files, path) = (TestFiles::default(), Path::new("/spool/cameras/cam/0000000017.gone"));
        let gone: Vec<_> = (1..=3)
            .map(|n| Dropped {
                id: FragmentId { run: RunId::new(7), sequence: n },
                place: Place { segment: 17, offset: n * 1000 },
                start: ProducerTimestamp::from_millis(n * 10),
                end: ProducerTimestamp::from_millis(n * 10 + 8),
                bytes: n,
            })
            .collect();
        for _ in 0..2 {
            write(&files, path, &gone).expect("it is written, again too");
            assert_eq!(read(&files, path, 17).expect("it is there"), Some(gone.clone()));
        }
        let mut whole = Vec::new();
        files.damage(path, |bytes| whole.clone_from(bytes));
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length], 17), None, "{length}");
        }
        for at in 0..whole.len() {
            let mut rotten = whole.clone();
            rotten[at] ^= 0x10;
            assert_eq!(parse(&rotten, 17), None, "{at}");
        }
        assert_eq!(number_of(&name_of(17)), Some(17));
        assert_eq!((number_of("0000000017.seg"), number_of("17.gone")), (None, None));
    }
}
