//! Reads decoder configuration records (avcC, hvcC) piece by piece.

use bytes::Bytes;

use crate::FormatError;

/// Walks through a record; what is read of it shares its memory.
pub(crate) struct RecordReader<'a> {
    /// The record's name, for errors.
    what: &'static str,
    record: &'a Bytes,
    at: usize,
}

impl<'a> RecordReader<'a> {
    /// Reads `record` from byte `at` on.
    pub(crate) fn new(what: &'static str, record: &'a Bytes, at: usize) -> Self {
        Self { what, record, at }
    }

    /// Bytes that are left.
    pub(crate) fn left(&self) -> usize {
        self.record.len() - self.at
    }

    pub(crate) fn bytes(&mut self, needs: usize) -> Result<Bytes, FormatError> {
        let (at, found) = (self.at, self.record.len());
        if found - at < needs {
            return Err(FormatError::Short { what: self.what, at, needs, found });
        }
        self.at += needs;
        Ok(self.record.slice(at..at + needs))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(self.bytes(1)?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, FormatError> {
        let bytes = self.bytes(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// NAL units, each behind its length in 2 bytes.
    pub(crate) fn units(&mut self, count: u16) -> Result<Vec<Bytes>, FormatError> {
        let mut unit = || {
            let length = self.u16()?;
            self.bytes(length.into())
        };
        (0..count).map(|_| unit()).collect()
    }
}
