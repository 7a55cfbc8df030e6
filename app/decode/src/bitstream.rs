//! From an access unit to the bytes that decoders take, and what is worth knowing before they get them.

use bytes::Bytes;
use media::h264::{self, AvcC};
use media::h265::{self, HvcC};
use media::{AccessUnit, VideoCodec, VideoFormat, nal};

/// What a pipeline depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) codec: VideoCodec,
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// 8 bit 4:2:0, or not known: decoders return I420 or NV12.
    pub(crate) plain: bool,
    /// There may be B pictures.
    pub(crate) reorders: bool,
}

impl Stream {
    pub(crate) fn of(format: &VideoFormat) -> Stream {
        let sps = parameter_sets(format).into_iter().find_map(|unit| read_sps(format.codec, &unit));
        let VideoFormat { codec, width, height, .. } = *format;
        let (plain, reorders) = sps.map_or((true, true), |sps| (sps.plain, sps.reorders));
        Stream { codec, width, height, plain, reorders }
    }
}

struct Sps {
    width: u32,
    height: u32,
    plain: bool,
    reorders: bool,
}

fn read_sps(codec: VideoCodec, unit: &[u8]) -> Option<Sps> {
    match codec {
        VideoCodec::H264 => h264::Sps::parse(unit).ok().map(|sps| Sps {
            width: sps.width,
            height: sps.height,
            plain: (sps.chroma_format_idc, sps.bit_depth_luma, sps.bit_depth_chroma) == (1, 8, 8),
            reorders: sps.may_reorder(),
        }),
        VideoCodec::H265 => h265::Sps::parse(unit).ok().map(|sps| Sps {
            width: sps.width,
            height: sps.height,
            plain: (sps.chroma_format_idc, sps.bit_depth_luma, sps.bit_depth_chroma) == (1, 8, 8),
            reorders: sps.may_reorder(),
        }),
    }
}

/// VPS, SPS and PPS of a format, in this order; none if the record is broken.
fn parameter_sets(format: &VideoFormat) -> Vec<Bytes> {
    match format.codec {
        VideoCodec::H264 => AvcC::parse(&format.codec_private)
            .map_or_else(|_| Vec::new(), |record| record.sps.into_iter().chain(record.pps).collect()),
        VideoCodec::H265 => {
            let mut arrays =
                HvcC::parse(&format.codec_private).map_or_else(|_| Vec::new(), |record| record.arrays);
            arrays.retain(|array| (32..=34).contains(&array.unit_type));
            arrays.sort_by_key(|array| array.unit_type);
            arrays.into_iter().flat_map(|array| array.units).collect()
        }
    }
}

/// An access unit as a decoder takes it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Coded {
    /// Annex B.
    pub(crate) bytes: Vec<u8>,
    /// Something is missing or wrong; what is whole has been kept.
    pub(crate) broken: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// An SPS within the unit declares a picture above the limit.
    TooLarge { width: u32, height: u32 },
    /// No slice is left.
    NoPicture,
}

/// The unit behind start codes; a random access point with the parameter sets of its format in front.
///
/// A NAL unit that is cut off, or an SPS that cannot be read, is left out; a start code within a NAL unit, which only
/// damage can put there, ends it: otherwise the rest would be taken for NAL units of any kind.
pub(crate) fn byte_stream(unit: &AccessUnit, max_pixels: u64) -> Result<Coded, Refused> {
    let codec = unit.format.codec;
    let mut kept: Vec<&[u8]> = Vec::with_capacity(8);
    let mut broken = !nal::begins_picture(codec, &unit.data);
    let mut slices = 0;
    for found in nal::length_prefixed(&unit.data, 4) {
        let Ok(mut bytes) = found else {
            broken = true;
            break;
        };
        if let Some(end) = start_code(bytes) {
            bytes = &bytes[..end];
            broken = true;
        }
        let Some(kind) = nal::unit_type(codec, bytes) else {
            broken = true;
            continue;
        };
        let (sps, slice) = match codec {
            VideoCodec::H264 => (kind == 7, matches!(kind, 1..=5)),
            VideoCodec::H265 => (kind == 33, kind < 32),
        };
        if sps {
            match read_sps(codec, bytes) {
                Some(Sps { width, height, .. }) if u64::from(width) * u64::from(height) > max_pixels => {
                    return Err(Refused::TooLarge { width, height });
                }
                Some(_) => {}
                None => {
                    broken = true;
                    continue;
                }
            }
        }
        slices += u32::from(slice);
        kept.push(bytes);
    }
    if slices == 0 {
        return Err(Refused::NoPicture);
    }
    let sets = if unit.random_access { parameter_sets(&unit.format) } else { Vec::new() };
    let missing = sets.iter().map(|set| &set[..]).filter(|set| !kept.contains(set));
    let mut bytes = Vec::with_capacity(unit.data.len() + 256);
    // A delimiter must stay the first NAL unit.
    let delimiter = if codec == VideoCodec::H264 { 9 } else { 35 };
    let head = usize::from(nal::unit_type(codec, kept[0]) == Some(delimiter));
    for unit in kept[..head].iter().copied().chain(missing).chain(kept[head..].iter().copied()) {
        bytes.extend_from_slice(&[0, 0, 0, 1]);
        bytes.extend_from_slice(unit);
    }
    Ok(Coded { bytes, broken })
}

/// Offset of the first 00 00 01.
fn start_code(data: &[u8]) -> Option<usize> {
    let mut at = 2;
    // The third byte decides how far the window may move: above 1 it can be no part of a start code.
    while let Some(&third) = data.get(at) {
        match third {
            0 => at += 1,
            1 if data[at - 2..at] == [0, 0] => return Some(at - 2),
            _ => at += 3,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use media::ProducerTimestamp;

    use super::*;

    // 1280x720, x264enc bframes=0, profile=main.
    const SPS: &[u8] = &[
        0x67, 0x4d, 0x40, 0x1f, 0xd9, 0x00, 0x50, 0x05, 0xbb, 0x01, 0x6a, 0x02, 0x02, 0x02, 0x80, 0x00, 0x01,
        0xf4, 0x80, 0x00, 0x75, 0x30, 0x47, 0x8c, 0x19, 0x24,
    ];
    const PPS: &[u8] = &[0x68, 0xeb, 0xcc, 0xb2];
    const IDR: &[u8] = &[0x65, 0x88, 0x84, 1, 2, 3];

    fn unit(data: Vec<u8>, random_access: bool) -> AccessUnit {
        let codec_private = nal::avcc_from_sps_pps(&[SPS], &[PPS]).expect("valid sets");
        let format = VideoFormat {
            codec: VideoCodec::H264,
            codec_private,
            width: 1280,
            height: 720,
            frame_rate: None,
        };
        let timestamp = ProducerTimestamp::from_millis(0);
        AccessUnit { data: data.into(), timestamp, random_access, format: Arc::new(format) }
    }

    fn prefixed(units: &[&[u8]]) -> Vec<u8> {
        let with_length =
            |unit: &&[u8]| [&u32::try_from(unit.len()).unwrap().to_be_bytes()[..], unit].concat();
        units.iter().flat_map(with_length).collect()
    }

    #[track_caller]
    fn check(data: Vec<u8>, random_access: bool, expected: &[&[u8]], broken: bool) {
        let coded = byte_stream(&unit(data, random_access), 1 << 23).expect("has a slice");
        assert_eq!(nal::annexb(&coded.bytes).collect::<Vec<_>>(), expected);
        assert_eq!(coded.broken, broken);
    }

    #[test]
    fn a_random_access_point_carries_its_parameter_sets_once() {
        let aud: &[u8] = &[9, 0x10];
        check(prefixed(&[IDR]), true, &[SPS, PPS, IDR], false);
        check(prefixed(&[SPS, PPS, IDR]), true, &[SPS, PPS, IDR], false);
        check(prefixed(&[aud, PPS, IDR]), true, &[aud, SPS, PPS, IDR], false);
        let delta: &[u8] = &[0x41, 0x9a, 1];
        check(prefixed(&[delta]), false, &[delta], false);
    }

    #[test]
    fn what_is_whole_is_kept() {
        let mut cut = prefixed(&[IDR, &[0x65, 0x10, 7, 7]]);
        cut.truncate(cut.len() - 1);
        check(cut, true, &[SPS, PPS, IDR], true);
        check(prefixed(&[IDR, &[]]), true, &[SPS, PPS, IDR], true);
        check(prefixed(&[&[0x67, 0xff], IDR]), true, &[SPS, PPS, IDR], true);
        check(prefixed(&[&[0x65, 0x88, 5, 0, 0, 1, 0x67, 9]]), true, &[SPS, PPS, &[0x65, 0x88, 5]], true);
        check(prefixed(&[&[0x65, 0x10, 7]]), true, &[SPS, PPS, &[0x65, 0x10, 7]], true); // not the first slice
    }

    #[test]
    fn units_without_a_slice_or_with_a_huge_picture_are_refused() {
        for data in [vec![], vec![0, 0], vec![0xff; 64], prefixed(&[&[6, 1, 2]]), prefixed(&[&[]])] {
            assert_eq!(byte_stream(&unit(data, true), 1 << 23), Err(Refused::NoPicture));
        }
        let result = byte_stream(&unit(prefixed(&[SPS, IDR]), true), 1000);
        assert!(matches!(result, Err(Refused::TooLarge { .. })), "{result:?}");
    }
}
