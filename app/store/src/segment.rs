//! Reads segment files: heads and metas one after the other, and what lies between them when something is damaged.

use std::io;
use std::path::Path;

use bytes::Bytes;

use crate::files::Files;
use crate::record::{
    self, Head, Meta, RECORD_HEAD, RECORD_MAGIC, SEGMENT_HEAD, SegmentHead, read_head, read_meta,
};
use crate::seal::{KeyId, Keys};

/// Enough for head and meta of a usual fragment.
const FIRST_READ: usize = 4096;
/// Of one search for the next record.
const SEARCH: usize = 256 << 10;
const EXTENSION: &str = ".seg";

/// What a folder's entry is, by its name.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(EXTENSION)?;
    (digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

pub(crate) fn name_of(number: u64) -> String {
    format!("{number:010}{EXTENSION}")
}

pub(crate) fn head_of(files: &dyn Files, path: &Path) -> io::Result<SegmentHead> {
    Ok(record::read_segment_head(&files.read(path, 0, SEGMENT_HEAD)?))
}

/// The key with which the records of a segment are sealed: all of them were written in one life.
pub(crate) fn key_of(files: &dyn Files, path: &Path) -> io::Result<Option<KeyId>> {
    let start = read_start(files, path, SEGMENT_HEAD as u64)?;
    Ok(start.and_then(|(head, bytes)| record::key_of(&head, &bytes)))
}

/// One record and where it lies.
pub(crate) struct Found {
    pub(crate) offset: u64,
    pub(crate) head: Head,
    pub(crate) meta: Meta,
}

/// What came of the search for the next record.
pub(crate) enum Next {
    Record(Found),
    /// Bytes that are no record, up to the next one.
    Damaged {
        from: u64,
        to: u64,
    },
    /// Bytes that are no record, up to the end of the file.
    Torn {
        from: u64,
    },
    End,
}

/// Goes through a segment from record to record.
pub(crate) struct Scan<'a> {
    files: &'a dyn Files,
    path: &'a Path,
    keys: &'a Keys,
    /// Of the file.
    length: u64,
    /// Of the next record.
    pub(crate) offset: u64,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(files: &'a dyn Files, path: &'a Path, keys: &'a Keys, length: u64, from: u64) -> Self {
        Self { files, path, keys, length, offset: from.max(SEGMENT_HEAD as u64) }
    }

    pub(crate) fn next(&mut self) -> io::Result<Next> {
        if self.offset >= self.length {
            return Ok(Next::End);
        }
        let from = self.offset;
        if let Some(found) = self.at(from)? {
            self.offset = from + found.head.length();
            return Ok(Next::Record(found));
        }
        // The heads have sums of their own: what looks like a record is one.
        let mut at = from + 1;
        while at < self.length {
            let window = self.files.read(self.path, at, SEARCH)?;
            if window.len() < RECORD_MAGIC.len() {
                break;
            }
            let starts = window.windows(RECORD_MAGIC.len());
            for start in
                starts.enumerate().filter(|(_, bytes)| *bytes == RECORD_MAGIC).map(|(start, _)| start)
            {
                if self.at(at + start as u64)?.is_some() {
                    self.offset = at + start as u64;
                    return Ok(Next::Damaged { from, to: self.offset });
                }
            }
            at += (window.len() - (RECORD_MAGIC.len() - 1)) as u64;
        }
        self.offset = self.length;
        Ok(Next::Torn { from })
    }

    /// The whole record at `offset`, if there is one.
    fn at(&self, offset: u64) -> io::Result<Option<Found>> {
        let Some((head, bytes)) = read_start(self.files, self.path, offset)? else { return Ok(None) };
        if offset + head.length() > self.length {
            return Ok(None);
        }
        Ok(read_meta(&head, &bytes, self.keys).map(|meta| Found { offset, head, meta }))
    }
}

/// Head and meta of the record at `offset`.
pub(crate) fn read_at(
    files: &dyn Files,
    path: &Path,
    keys: &Keys,
    offset: u64,
) -> io::Result<Option<(Head, Meta)>> {
    let start = read_start(files, path, offset)?;
    Ok(start.and_then(|(head, bytes)| Some((head, read_meta(&head, &bytes, keys)?))))
}

fn read_start(files: &dyn Files, path: &Path, offset: u64) -> io::Result<Option<(Head, Vec<u8>)>> {
    let mut bytes = files.read(path, offset, FIRST_READ)?;
    let Some(head) = read_head(&bytes) else { return Ok(None) };
    if bytes.len() < head.before_body() && bytes.len() >= FIRST_READ.max(RECORD_HEAD) {
        bytes = files.read(path, offset, head.before_body())?;
    }
    Ok(Some((head, bytes)))
}

/// The body of the record at `offset`; `None` where the disk does not return it as it was written.
pub(crate) fn body_at(files: &dyn Files, path: &Path, keys: &Keys, offset: u64) -> io::Result<Option<Bytes>> {
    let Some((head, start)) = read_start(files, path, offset)? else { return Ok(None) };
    if head.body == 0 {
        return Ok(Some(Bytes::new()));
    }
    let from = head.before_body() as u64 - 4;
    let length = usize::try_from(head.length() - from).unwrap_or(usize::MAX);
    let bytes = files.read(path, offset + from, length)?;
    Ok(record::read_body(&head, &start, bytes, keys))
}
