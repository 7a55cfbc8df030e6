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

/// Kinds of parameter sets by codec, in the order VPS, SPS, PPS.
pub(super) const PARAMETER_SETS: [&[u8]; 2] = [&[7, 8], &[32, 33, 34]];

pub(super) fn is_parameter_set(codec: Codec, nal: &[u8]) -> bool {
    PARAMETER_SETS[codec as usize].contains(&kind(codec, nal))
}

/// An access unit delimiter.
pub(super) fn is_delimiter(codec: Codec, nal: &[u8]) -> bool {
    kind(codec, nal) == if codec == Codec::H264 { 9 } else { 35 }
}

/// Whether the picture is certainly shown in coding order. H.264: it has no B slice (7.4.3, `slice_type` 1 or 6, after
/// `first_mb_in_slice`, both Exp-Golomb coded). H.265: not known without its parameter sets.
pub(super) fn in_order(codec: Codec, nal_units: &[Bytes]) -> bool {
    codec == Codec::H264
        && nal_units.iter().filter(|nal| is_vcl(codec, nal)).all(|nal| {
            let mut at = 8;
            let slice_type = exp_golomb(nal, &mut at).and_then(|_| exp_golomb(nal, &mut at));
            slice_type.is_some_and(|kind| kind % 5 != 1)
        })
}

/// An unsigned Exp-Golomb code (H.264 9.1) that begins at bit `at`.
fn exp_golomb(nal: &[u8], at: &mut usize) -> Option<u32> {
    let mut bit = || {
        let value = nal.get(*at / 8)? >> (7 - *at % 8) & 1;
        *at += 1;
        Some(u32::from(value))
    };
    let mut zeros = 0;
    while bit()? == 0 {
        zeros += 1;
    }
    if zeros > 31 {
        return None;
    }
    let mut value = 1;
    for _ in 0..zeros {
        value = value << 1 | bit()?;
    }
    Some(value - 1)
}

/// The first parameter set of each kind, in the order VPS, SPS, PPS.
pub(super) fn parameter_sets(codec: Codec, pictures: &[Picture]) -> Vec<Bytes> {
    let kinds = PARAMETER_SETS[codec as usize];
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

    #[test]
    fn b_slices_are_told_from_others() {
        // ue(v) of 0, 1, 2, 5, 6, 7: 1, 010, 011, 00110, 00111, 0001000; the first is first_mb_in_slice.
        for (bits, ordered) in [
            (0b1100_0000, true),
            (0b1010_0000, false),
            (0b1011_0000, true),
            (0b1001_1000, true),
            (0b1001_1100, false),
            (0b1000_1000, true),
            (0b1000_0000, false),
        ] {
            let nal = Bytes::from(vec![0x41, bits]);
            assert_eq!(in_order(Codec::H264, &[nal]), ordered, "{bits:#010b}");
        }
        assert!(!in_order(Codec::H264, &[Bytes::from_static(&[0x41])]), "cut");
        assert!(!in_order(Codec::H265, &[Bytes::from_static(&[0x26, 1, 0xff])]));
    }
}
