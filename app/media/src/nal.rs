//! NAL units: behind lengths (as in MP4 and Matroska) or behind start codes (Annex B).

use bytes::{BufMut, Bytes, BytesMut};

use crate::h264::AvcC;
use crate::h265::HvcC;
use crate::{FormatError, VideoCodec};

/// Why length-prefixed data could not be split. `at` is the offset of the length field.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NalError {
    #[error("byte {at}: the length of a NAL unit needs {needs} bytes, {left} are left")]
    CutLength { at: usize, needs: usize, left: usize },
    #[error("byte {at}: a NAL unit claims {claims} bytes, {left} are left")]
    Overrun { at: usize, claims: usize, left: usize },
    #[error("byte {at}: a NAL unit of {found} bytes is too short for its {needs}-byte header")]
    Empty { at: usize, found: usize, needs: usize },
}

/// NAL units of `data`, each behind a big-endian length of `length_size` bytes (1..=4). After an error it ends.
pub fn length_prefixed(data: &[u8], length_size: u8) -> LengthPrefixed<'_> {
    LengthPrefixed { data, at: 0, length_size: usize::from(length_size.clamp(1, 4)) }
}

/// See [`length_prefixed`].
#[derive(Clone, Debug)]
pub struct LengthPrefixed<'a> {
    data: &'a [u8],
    at: usize,
    length_size: usize,
}

impl<'a> LengthPrefixed<'a> {
    fn unit(&self) -> Result<&'a [u8], NalError> {
        let (at, rest) = (self.at, &self.data[self.at..]);
        let (length, rest) = rest.split_at_checked(self.length_size).ok_or(NalError::CutLength {
            at,
            needs: self.length_size,
            left: rest.len(),
        })?;
        let claims = length.iter().fold(0, |value, &byte| value << 8 | usize::from(byte));
        rest.get(..claims).ok_or(NalError::Overrun { at, claims, left: rest.len() })
    }
}

impl<'a> Iterator for LengthPrefixed<'a> {
    type Item = Result<&'a [u8], NalError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.data.len() {
            return None;
        }
        let unit = self.unit();
        self.at = unit.map_or(self.data.len(), |unit| self.at + self.length_size + unit.len());
        Some(unit)
    }
}

/// NAL units of an Annex B byte stream, without start codes and trailing zero bytes (ITU-T H.264 Annex B.1).
///
/// Bytes in front of the first start code are passed over, and so are empty units.
pub fn annexb(data: &[u8]) -> AnnexB<'_> {
    let start = start_code(data, 0).map_or(data.len(), |at| at + 3);
    AnnexB { data, start }
}

/// See [`annexb`].
#[derive(Clone, Debug)]
pub struct AnnexB<'a> {
    data: &'a [u8],
    /// Behind the start code of the next unit.
    start: usize,
}

impl<'a> Iterator for AnnexB<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while self.start < self.data.len() {
            let code = start_code(self.data, self.start);
            let unit = &self.data[self.start..code.unwrap_or(self.data.len())];
            self.start = code.map_or(self.data.len(), |at| at + 3);
            let used = unit.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            if used > 0 {
                return Some(&unit[..used]);
            }
        }
        None
    }
}

/// Offset of the first 00 00 01 at or behind `from`.
fn start_code(data: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    // The third byte decides how far the window may move: above 1 it can be no part of a start code.
    while let Some(&third) = data.get(at + 2) {
        match third {
            0 => at += 1,
            1 if data[at..at + 2] == [0, 0] => return Some(at),
            _ => at += 3,
        }
    }
    None
}

/// The same NAL units behind 4-byte start codes, given behind 4-byte lengths.
pub fn length_prefixed_to_annexb(data: &[u8]) -> Result<Bytes, NalError> {
    let mut out = BytesMut::with_capacity(data.len());
    for unit in length_prefixed(data, 4) {
        out.put_slice(&[0, 0, 0, 1]);
        out.put_slice(unit?);
    }
    Ok(out.freeze())
}

/// The same NAL units behind 4-byte lengths, given behind start codes.
pub fn annexb_to_length_prefixed(data: &[u8]) -> Bytes {
    to_length_prefixed(annexb(data))
}

/// NAL units, each put behind its length in 4 bytes.
pub fn to_length_prefixed(units: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Bytes {
    let mut out = BytesMut::new();
    for unit in units {
        let unit = unit.as_ref();
        out.put_u32(u32::try_from(unit.len()).expect("a NAL unit in memory is below 4 GiB"));
        out.put_slice(unit);
    }
    out.freeze()
}

/// Type of a NAL unit from its header, `None` if the unit is shorter than the header (1 byte for H.264, 2 for H.265).
pub fn unit_type(codec: VideoCodec, unit: &[u8]) -> Option<u8> {
    match (codec, unit) {
        (VideoCodec::H264, [first, ..]) => Some(first & 0x1F),
        (VideoCodec::H265, [first, _, ..]) => Some(first >> 1 & 0x3F),
        _ => None,
    }
}

/// Whether decoding may begin at this access unit, given behind 4-byte lengths.
///
/// The first slice decides: H.264 IDR (type 5), H.265 BLA, IDR or CRA (types 16..=21, ITU-T H.265 Table 7-1). Without any
/// slice the answer is no.
pub fn is_random_access(codec: VideoCodec, access_unit: &[u8]) -> Result<bool, NalError> {
    let mut at = 0;
    for unit in length_prefixed(access_unit, 4) {
        let unit = unit?;
        let needs = if codec == VideoCodec::H264 { 1 } else { 2 };
        let kind = unit_type(codec, unit).ok_or(NalError::Empty { at, found: unit.len(), needs })?;
        match codec {
            VideoCodec::H264 if matches!(kind, 1..=5) => return Ok(kind == 5),
            VideoCodec::H265 if kind < 32 => return Ok(matches!(kind, 16..=21)),
            _ => at += 4 + unit.len(),
        }
    }
    Ok(false)
}

/// Whether the first slice of this access unit, given behind 4-byte lengths, is the first one of its picture: otherwise
/// the picture lost its beginning on the way.
///
/// H.264 `first_mb_in_slice` = 0 is a single 1 bit (ITU-T H.264 7.3.3, 9.1), H.265 has the flag
/// `first_slice_segment_in_pic_flag` (7.3.6.1); both stand right behind the header.
pub fn begins_picture(codec: VideoCodec, access_unit: &[u8]) -> bool {
    let header = if codec == VideoCodec::H264 { 1 } else { 2 };
    for unit in length_prefixed(access_unit, 4).map_while(Result::ok) {
        match (codec, unit_type(codec, unit)) {
            (VideoCodec::H264, Some(1 | 2 | 5)) | (VideoCodec::H265, Some(0..32)) => {
                return unit.get(header).is_some_and(|byte| byte & 0x80 != 0);
            }
            _ => {}
        }
    }
    false
}

/// avcC body from NAL units without start code, see [`AvcC::from_parameter_sets`].
pub fn avcc_from_sps_pps<S: AsRef<[u8]>, P: AsRef<[u8]>>(sps: &[S], pps: &[P]) -> Result<Bytes, FormatError> {
    Ok(AvcC::from_parameter_sets(sps, pps)?.to_bytes())
}

/// hvcC body from NAL units without start code, see [`HvcC::from_parameter_sets`].
pub fn hvcc_from_vps_sps_pps<V: AsRef<[u8]>, S: AsRef<[u8]>, P: AsRef<[u8]>>(
    vps: &[V],
    sps: &[S],
    pps: &[P],
) -> Result<Bytes, FormatError> {
    Ok(HvcC::from_parameter_sets(vps, sps, pps)?.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annex_b_is_split_at_three_and_four_byte_start_codes() {
        #[track_caller]
        fn check(data: &[u8], expected: &[&[u8]]) {
            assert_eq!(annexb(data).collect::<Vec<_>>(), expected, "{data:02x?}");
        }
        check(&[0, 0, 0, 1, 9, 0x10, 0, 0, 1, 0x67, 1, 0, 0, 0, 1, 0x68], &[&[9, 0x10], &[0x67, 1], &[0x68]]);
        check(&[0, 0, 1, 5, 1, 0, 0, 0, 0], &[&[5, 1]]); // trailing zero bytes
        check(&[7, 7, 0, 0, 1, 5, 0, 1, 1], &[&[5, 0, 1, 1]]); // a lead, and 00 01 alone is no start code
        check(&[0, 0, 1, 0, 0, 1, 5], &[&[5]]);
        check(&[0, 0, 1], &[]);
        check(&[5, 6], &[]);
        check(&[], &[]);
    }

    #[test]
    fn lengths_are_checked_against_what_is_left() {
        #[track_caller]
        fn check(data: &[u8], size: u8, expected: &[Result<&[u8], NalError>]) {
            assert_eq!(length_prefixed(data, size).collect::<Vec<_>>(), expected, "{data:02x?}");
        }
        check(&[0, 0, 0, 1, 5, 0, 0, 0, 2, 6, 7], 4, &[Ok(&[5]), Ok(&[6, 7])]);
        check(&[1, 5, 0, 2, 6, 7], 1, &[Ok(&[5]), Ok(&[]), Ok(&[6, 7])]);
        check(&[0, 1, 5, 0], 2, &[Ok(&[5]), Err(NalError::CutLength { at: 3, needs: 2, left: 1 })]);
        check(&[0, 0, 0, 9, 5], 4, &[Err(NalError::Overrun { at: 0, claims: 9, left: 1 })]);
        check(&[], 4, &[]);
    }

    #[test]
    fn a_picture_without_its_first_slice_is_recognised() {
        #[track_caller]
        fn check(codec: VideoCodec, units: &[&[u8]], expected: bool) {
            let annexb: Vec<u8> = units.iter().flat_map(|unit| [&[0, 0, 1], *unit].concat()).collect();
            let data = annexb_to_length_prefixed(&annexb);
            assert_eq!(begins_picture(codec, &data), expected, "{codec:?} {units:02x?}");
        }
        let (h264, h265) = (VideoCodec::H264, VideoCodec::H265);
        check(h264, &[&[6, 0x05], &[0x65, 0x88, 0x80], &[0x65, 0x04]], true);
        check(h264, &[&[6, 0x85], &[0x65, 0x04], &[0x65, 0x88]], false);
        check(h264, &[&[0x65]], false);
        check(h264, &[&[6, 0x85]], false);
        check(h265, &[&[0x4e, 1, 0x05], &[0x26, 1, 0xaf], &[0x26, 1, 0x10]], true);
        check(h265, &[&[0x4e, 1, 0x85], &[0x26, 1, 0x10]], false);
        check(h265, &[&[0x26]], false);
    }

    #[test]
    fn decoding_may_begin_where_the_first_slice_says_so() {
        #[track_caller]
        fn check(codec: VideoCodec, units: &[&[u8]], expected: bool) {
            let data = to_length_prefixed(units);
            assert_eq!(is_random_access(codec, &data), Ok(expected), "{codec:?} {units:02x?}");
        }
        let (h264, h265) = (VideoCodec::H264, VideoCodec::H265);
        check(h264, &[&[9, 0x10], &[0x67, 0], &[0x68], &[0x65, 1]], true);
        check(h264, &[&[0x41, 1], &[0x65]], false);
        check(h264, &[&[0x67, 0]], false);
        for kind in 0..40u8 {
            check(h265, &[&[35 << 1, 1, 0], &[kind << 1, 1]], (16..=21).contains(&kind));
        }
        assert_eq!(
            is_random_access(h265, &[0, 0, 0, 1, 0x26]),
            Err(NalError::Empty { at: 0, found: 1, needs: 2 })
        );
    }
}
