//! Element headers: an id of 1 to 4 bytes, then the size of the body in 1 to 8 bytes (RFC 8794 4 to 6).

use bytes::BufMut;

/// Longest id plus longest size.
const HEADER_MAX: usize = 12;

/// Id and size of one element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub id: u32,
    /// Bytes of the body, `None` for "unknown" (all bits set).
    pub size: Option<u64>,
    /// Bytes of id and size together, 2..=12.
    pub length: usize,
}

/// Why the bytes at hand do not start with an element header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderError {
    /// So many bytes are needed before more can be said; at most 12.
    Short { needs: usize },
    /// The first byte announces an id of more than 4 bytes, or the id is not in its shortest form.
    BadId { first: u8 },
    /// The first byte of the size announces more than 8 bytes.
    BadSize { id: u32 },
}

/// Whether the value bits are neither all zeros nor all ones and do not fit a shorter id (RFC 8794 5).
fn is_shortest(id: u32, length: usize) -> bool {
    let all_ones = (1u32 << (7 * length)) - 1;
    let all_ones_of_shorter = (1u32 << (7 * (length - 1))) - 1;
    let value = id & all_ones;
    value != 0 && value != all_ones && value >= all_ones_of_shorter
}

/// Reads an element header at the start of `data`.
pub fn parse_header(data: &[u8]) -> Result<Header, HeaderError> {
    // A window of fixed length makes this straight-line code: it runs once per element of every stream.
    let mut padded = [0; HEADER_MAX];
    let window = match data.first_chunk() {
        Some(window) => window,
        None => {
            padded[..data.len()].copy_from_slice(data);
            &padded
        }
    };
    let (id, id_length) = parse_id(window, data.len())?;
    if data.len() <= id_length {
        return Err(HeaderError::Short { needs: id_length + 1 });
    }
    let size_length = window[id_length].leading_zeros() as usize + 1;
    if size_length > 8 {
        return Err(HeaderError::BadSize { id });
    }
    let length = id_length + size_length;
    if data.len() < length {
        return Err(HeaderError::Short { needs: length });
    }
    let bytes = window[id_length..].first_chunk().expect("an id leaves 8 of the 12 bytes");
    let unused_bits = 64 - 8 * size_length;
    let mask = (1u64 << (7 * size_length)) - 1;
    let value = u64::from_be_bytes(*bytes) >> unused_bits & mask;
    Ok(Header { id, size: (value != mask).then_some(value), length })
}

/// The id at the start of a window, of which `available` bytes are real: (id, bytes used).
fn parse_id(window: &[u8; HEADER_MAX], available: usize) -> Result<(u32, usize), HeaderError> {
    let first = window[0];
    let length = first.leading_zeros() as usize + 1;
    if available == 0 {
        return Err(HeaderError::Short { needs: 1 });
    }
    if length > 4 {
        return Err(HeaderError::BadId { first });
    }
    if available < length {
        return Err(HeaderError::Short { needs: length });
    }
    let id = u32::from_be_bytes([first, window[1], window[2], window[3]]) >> (32 - 8 * length);
    if !is_shortest(id, length) {
        return Err(HeaderError::BadId { first });
    }
    Ok((id, length))
}

/// Value of a whole variable-length integer of 1 to 8 bytes, `None` if all value bits are set.
fn vint_value(bytes: &[u8]) -> Option<u64> {
    let value_bits = 7 * bytes.len();
    let raw = bytes.iter().fold(0, |value, &byte| value << 8 | u64::from(byte));
    let mask = (1u64 << value_bits) - 1;
    (raw & mask != mask).then_some(raw & mask)
}

/// Reads a variable-length integer, as the track number of a block: (value, bytes used). `None` if malformed or cut.
pub(crate) fn parse_vint(data: &[u8]) -> Option<(u64, usize)> {
    let first = *data.first().filter(|&&byte| byte != 0)?;
    let length = first.leading_zeros() as usize + 1;
    Some((vint_value(data.get(..length)?)?, length))
}

/// Unsigned integer of up to 8 bytes, big-endian; no bytes mean 0. `None` if longer.
pub(crate) fn uint(body: &[u8]) -> Option<u64> {
    (body.len() <= 8).then(|| body.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

/// One child element inside a body that is wholly in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Child<'a> {
    pub id: u32,
    pub body: &'a [u8],
    /// Offset of `body` in the parent's body.
    pub body_at: usize,
}

/// Why the children of a body could not be walked. Offsets count from the start of that body.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChildError {
    #[error("no element starts at offset {at}: found byte {found:#04x}")]
    NoElement { at: usize, found: u8 },
    #[error("the element at offset {at} does not fit its parent of {parent} bytes")]
    Overrun { at: usize, parent: usize },
    #[error("element {id:#x} at offset {at} has unknown size, which only Segment and Cluster may have")]
    UnknownSize { at: usize, id: u32 },
}

/// Walks the children of a body, in order. After an error it ends.
#[derive(Clone, Debug)]
pub struct Children<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Children<'a> {
    pub fn new(body: &'a [u8]) -> Children<'a> {
        Children { body, at: 0 }
    }

    fn child(&self) -> Result<Child<'a>, ChildError> {
        let (at, parent) = (self.at, self.body.len());
        let rest = &self.body[at..];
        let header = parse_header(rest).map_err(|error| match error {
            HeaderError::Short { .. } => ChildError::Overrun { at, parent },
            HeaderError::BadId { first } => ChildError::NoElement { at, found: first },
            HeaderError::BadSize { .. } => ChildError::NoElement { at, found: rest[0] },
        })?;
        let size = header.size.ok_or(ChildError::UnknownSize { at, id: header.id })?;
        let body = usize::try_from(size)
            .ok()
            .and_then(|size| rest[header.length..].get(..size))
            .ok_or(ChildError::Overrun { at, parent })?;
        Ok(Child { id: header.id, body, body_at: at + header.length })
    }
}

impl<'a> Iterator for Children<'a> {
    type Item = Result<Child<'a>, ChildError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.body.len() {
            return None;
        }
        let child = self.child();
        self.at = child.as_ref().map_or(self.body.len(), |child| child.body_at + child.body.len());
        Some(child)
    }
}

/// Appends an id.
pub(crate) fn put_id(out: &mut impl BufMut, id: u32) {
    let bytes = id.to_be_bytes();
    out.put_slice(&bytes[id.leading_zeros() as usize / 8..]);
}

/// Appends a size (or another variable-length integer) in as few bytes as it needs, but at least `min_length`.
///
/// `value` must be below 2^56 - 1, which holds for every length of something in memory.
pub(crate) fn put_vint(out: &mut impl BufMut, value: u64, min_length: usize) {
    let length = (min_length..=8)
        .find(|length| value < (1u64 << (7 * length)) - 1)
        .expect("nothing in memory is 2^56 bytes long");
    let marked = value | 1u64 << (7 * length);
    out.put_slice(&marked.to_be_bytes()[8 - length..]);
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    #[test]
    fn a_header_is_read_as_rfc_8794_writes_it() {
        #[track_caller]
        fn check(data: &[u8], expected: Result<Header, HeaderError>) {
            assert_eq!(parse_header(data), expected, "{data:02x?}");
        }
        check(&[0xEC, 0x81, 0], Ok(Header { id: 0xEC, size: Some(1), length: 2 }));
        check(&[0xEC, 0xFF], Ok(Header { id: 0xEC, size: None, length: 2 }));
        check(&[0xEC, 0x40, 0x01], Ok(Header { id: 0xEC, size: Some(1), length: 3 }));
        check(&[0x42, 0x86, 0x81], Ok(Header { id: 0x4286, size: Some(1), length: 3 }));
        let segment = [0x18, 0x53, 0x80, 0x67, 1, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
        check(&segment, Ok(Header { id: 0x1853_8067, size: None, length: 12 }));
        check(&segment[..11], Err(HeaderError::Short { needs: 12 }));
        check(&segment[..3], Err(HeaderError::Short { needs: 4 }));
        check(&[], Err(HeaderError::Short { needs: 1 }));
        check(&[0x08, 0, 0, 0, 0], Err(HeaderError::BadId { first: 8 }));
        check(&[0x80, 0x81], Err(HeaderError::BadId { first: 0x80 })); // value bits all zero
        check(&[0xFF, 0x81], Err(HeaderError::BadId { first: 0xFF })); // value bits all one
        check(&[0x40, 0x6C, 0x80], Err(HeaderError::BadId { first: 0x40 })); // Void in two bytes
        check(&[0xEC, 0], Err(HeaderError::BadSize { id: 0xEC }));
    }

    #[test]
    fn sizes_are_written_shortest_and_never_as_unknown() {
        #[track_caller]
        fn check(value: u64, min_length: usize, expected: &[u8]) {
            let mut out = BytesMut::new();
            put_vint(&mut out, value, min_length);
            assert_eq!(out, expected);
            assert_eq!(parse_vint(&out), Some((value, expected.len())));
        }
        check(0, 1, &[0x80]);
        check(126, 1, &[0xFE]);
        check(127, 1, &[0x40, 0x7F]);
        check(235, 4, &[0x10, 0, 0, 0xEB]);
        check((1 << 28) - 1, 4, &[0x08, 0x0F, 0xFF, 0xFF, 0xFF]);
        check((1 << 56) - 2, 1, &[1, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFE]);
    }
}
