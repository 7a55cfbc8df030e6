//! Boxes: a size of 32 or 64 bits, four letters, a body (ISO/IEC 14496-12 4.2).

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

/// A box's type.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FourCc(pub [u8; 4]);

impl fmt::Display for FourCc {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for FourCc {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Why boxes could not be read. Offsets count from the start of the segment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BoxError {
    #[error("the box at byte {at} claims {claims} bytes, {left} are left")]
    Overrun { at: usize, claims: u64, left: usize },
    #[error("the box at byte {at} claims {claims} bytes, fewer than its own header")]
    Undersized { at: usize, claims: u64 },
    #[error("{kind} ends at byte {at}, {needs} more bytes are needed")]
    Short { kind: FourCc, at: usize, needs: usize },
}

/// Appends a box whose body `children` writes.
pub(super) fn put_box(out: &mut BytesMut, kind: &[u8; 4], children: impl FnOnce(&mut BytesMut)) {
    let at = out.len();
    out.put_u32(0);
    out.put_slice(kind);
    children(out);
    let size = u32::try_from(out.len() - at).expect("only heads are written, never media");
    out[at..at + 4].copy_from_slice(&size.to_be_bytes());
}

/// The same with version and flags in front of the body.
pub(super) fn put_full_box(
    out: &mut BytesMut,
    kind: &[u8; 4],
    version: u8,
    flags: u32,
    children: impl FnOnce(&mut BytesMut),
) {
    put_box(out, kind, |out| {
        out.put_u32(u32::from(version) << 24 | flags);
        children(out);
    });
}

/// One box as it was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) kind: FourCc,
    /// Of its first byte.
    pub(super) at: usize,
    /// Of the first byte of its body, and behind the last.
    pub(super) body: usize,
    pub(super) end: usize,
}

impl Found {
    pub(super) fn is(&self, kind: &[u8; 4]) -> bool {
        self.kind.0 == *kind
    }

    pub(super) fn fields<'a>(&self, data: &'a Bytes) -> Fields<'a> {
        Fields { kind: self.kind, data, at: self.body, end: self.end }
    }

    /// The boxes inside.
    pub(super) fn children<'a>(&self, data: &'a [u8]) -> Boxes<'a> {
        Boxes { data, at: self.body, end: self.end }
    }
}

/// Walks over the boxes of a range; ends after the first error.
#[derive(Clone, Debug)]
pub(super) struct Boxes<'a> {
    data: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Boxes<'a> {
    pub(super) fn all(data: &'a [u8]) -> Self {
        Self { data, at: 0, end: data.len() }
    }

    /// The boxes from `at`, which lies inside `within`, to its end.
    pub(super) fn rest_of(within: Found, at: usize, data: &'a [u8]) -> Self {
        Self { data, at: at.min(within.end), end: within.end }
    }

    fn read(&mut self) -> Result<Found, BoxError> {
        let (at, left) = (self.at, self.end - self.at);
        let overrun = |claims| BoxError::Overrun { at, claims, left };
        let Some(head) = self.data[at..self.end].first_chunk::<8>() else { return Err(overrun(8)) };
        let [a, b, c, d, kind @ ..] = *head;
        let (size, header) = match u32::from_be_bytes([a, b, c, d]) {
            0 => (left as u64, 8), // to the end
            1 => match self.data[at..self.end].get(8..16) {
                Some(long) => (long.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)), 16),
                None => return Err(overrun(16)),
            },
            size => (size.into(), 8),
        };
        if size < header as u64 {
            return Err(BoxError::Undersized { at, claims: size });
        }
        let size = usize::try_from(size).ok().filter(|size| *size <= left).ok_or(overrun(size))?;
        self.at += size;
        Ok(Found { kind: FourCc(kind), at, body: at + header, end: at + size })
    }
}

impl Iterator for Boxes<'_> {
    type Item = Result<Found, BoxError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let found = self.read();
        if found.is_err() {
            self.at = self.end;
        }
        Some(found)
    }
}

/// Reads fields of one box.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a> {
    kind: FourCc,
    data: &'a Bytes,
    at: usize,
    end: usize,
}

impl Fields<'_> {
    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn left(&self) -> usize {
        self.end - self.at
    }

    pub(super) fn skip(&mut self, needs: usize) -> Result<(), BoxError> {
        if self.left() < needs {
            return Err(BoxError::Short { kind: self.kind, at: self.end, needs: needs - self.left() });
        }
        self.at += needs;
        Ok(())
    }

    /// What is left; shares the memory of the segment.
    pub(super) fn rest(&mut self) -> Bytes {
        let at = std::mem::replace(&mut self.at, self.end);
        self.data.slice(at..self.end)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BoxError> {
        let at = self.at;
        self.skip(N)?;
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.data[at..at + N]);
        Ok(bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, BoxError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, BoxError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, BoxError> {
        self.array().map(u64::from_be_bytes)
    }

    /// Version and flags of a full box.
    pub(super) fn version_and_flags(&mut self) -> Result<(u8, u32), BoxError> {
        let word = self.u32()?;
        Ok((word.to_be_bytes()[0], word & 0x00FF_FFFF))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(data: &[u8]) -> Vec<Result<(String, usize), BoxError>> {
        Boxes::all(data)
            .map(|found| found.map(|found| (found.kind.to_string(), found.end - found.body)))
            .collect()
    }

    #[test]
    fn sizes_come_in_three_forms() {
        let mut data = BytesMut::new();
        put_box(&mut data, b"free", |out| out.put_slice(b"abc"));
        data.put_slice(&[0, 0, 0, 1, b'm', b'd', b'a', b't', 0, 0, 0, 0, 0, 0, 0, 18, 1, 2]);
        data.put_slice(&[0, 0, 0, 0, b'f', b'r', b'e', b'e', 9]);
        let named = |kind: &str, body| Ok((kind.to_owned(), body));
        assert_eq!(walk(&data), [named("free", 3), named("mdat", 2), named("free", 1)]);
    }

    #[test]
    fn a_wrong_size_is_named_and_ends_the_walk() {
        let overrun = |claims, left| Err(BoxError::Overrun { at: 0, claims, left });
        assert_eq!(walk(&[0, 0, 0, 9, b'f', b'r', b'e', b'e']), [overrun(9, 8)]);
        assert_eq!(walk(&[0, 0, 0]), [overrun(8, 3)]);
        assert_eq!(walk(&[0, 0, 0, 1, b'f', b'r', b'e', b'e', 0]), [overrun(16, 9)]);
        let mut long = vec![0, 0, 0, 1, b'm', b'd', b'a', b't'];
        long.extend([0xFF; 8]);
        assert_eq!(walk(&long), [overrun(u64::MAX, 16)]);
        let undersized = Err(BoxError::Undersized { at: 0, claims: 7 });
        assert_eq!(walk(&[0, 0, 0, 7, b'f', b'r', b'e', b'e', 0, 0]), [undersized]);
    }
}
