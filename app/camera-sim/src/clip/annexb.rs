//! NAL units in an Annex B byte stream (ITU-T H.264 and H.265, Annex B), and what kind they are.

use bytes::Bytes;

use super::{Codec, Picture};

/// NAL units between the start codes, without trailing zeros.
pub(super) fn nal_units(stream: &Bytes) -> Vec<Bytes> {
    let mut starts = Vec::new();
    let mut at = 0;
    while let Some(found) = stream[at..].windows(3).position(|window| window == [0, 0, 1]) {
        starts.push(at + found);
        at += found + 3;
    }
    let ends = starts.iter().skip(1).copied().chain([stream.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(&start, end)| {
            let body = &stream[start + 3..end];
            let length = body.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            stream.slice(start + 3..start + 3 + length)
        })
        .filter(|nal| !nal.is_empty())
        .collect()
}

/// `nal_unit_type`: H.264 7.3.1, H.265 7.3.1.2.
pub(crate) fn kind(codec: Codec, nal: &[u8]) -> u8 {
    match (codec, nal.first()) {
        (Codec::H264, Some(byte)) => byte & 0x1f,
        (Codec::H265, Some(byte)) => byte >> 1 & 0x3f,
        (_, None) => 0,
    }
}

pub(super) fn is_vcl(codec: Codec, nal: &[u8]) -> bool {
    match codec {
        Codec::H264 => matches!(kind(codec, nal), 1..=5),
        Codec::H265 => kind(codec, nal) < 32,
    }
}

pub(super) fn is_random_access(codec: Codec, nal: &[u8]) -> bool {
    match codec {
        Codec::H264 => kind(codec, nal) == 5,
        Codec::H265 => matches!(kind(codec, nal), 16..=21),
    }
}

/// The first parameter set of each kind, in the order VPS, SPS, PPS.
pub(super) fn parameter_sets(codec: Codec, pictures: &[Picture]) -> Vec<Bytes> {
    let kinds: &[u8] = match codec {
        Codec::H264 => &[7, 8],
        Codec::H265 => &[32, 33, 34],
    };
    let all = || pictures.iter().flat_map(|picture| &picture.nal_units);
    kinds.iter().filter_map(|&wanted| all().find(|nal| kind(codec, nal) == wanted).cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_codes_of_three_and_four_bytes_separate_nal_units() {
        let stream = Bytes::from_static(&[0, 0, 0, 1, 0x67, 1, 0, 0, 1, 0x68, 0, 0, 3, 0, 0, 0, 1, 0x65, 9]);
        assert_eq!(nal_units(&stream), [&[0x67, 1][..], &[0x68, 0, 0, 3], &[0x65, 9]]);
        assert!(nal_units(&Bytes::from_static(&[1, 2, 3])).is_empty());
    }
}
