//! HEVCDecoderConfigurationRecord, the body of hvcC (ISO/IEC 14496-15 8.3.3.1).

use bytes::{BufMut, Bytes, BytesMut};

use super::Sps;
use crate::FormatError;
use crate::record::RecordReader;

const RECORD: &str = "hvcC";
/// NAL unit types of ITU-T H.265 Table 7-1.
const VPS: u8 = 32;
const SPS: u8 = 33;
const PPS: u8 = 34;

/// The record in parts. `parse` and `to_bytes` are inverse for records with all reserved bits set as the standard wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HvcC {
    /// general_profile_space (2 bits), general_tier_flag, general_profile_idc (5 bits).
    pub profile: u8,
    pub compatibility_flags: u32,
    /// 48 bits, the first flag is the highest.
    pub constraint_flags: [u8; 6],
    pub level_idc: u8,
    /// 12 bits.
    pub min_spatial_segmentation: u16,
    /// 2 bits.
    pub parallelism_type: u8,
    /// 0 monochrome, 1 4:2:0, 2 4:2:2, 3 4:4:4.
    pub chroma_format_idc: u8,
    pub bit_depth_luma: u8,
    pub bit_depth_chroma: u8,
    /// Pictures per 256 seconds, 0 for unspecified.
    pub average_frame_rate: u16,
    /// constantFrameRate (2 bits), numTemporalLayers (3 bits), temporalIdNested (1 bit).
    pub temporal: u8,
    /// Bytes of the length in front of each NAL unit: 1, 2 or 4.
    pub length_size: u8,
    pub arrays: Vec<Array>,
}

/// NAL units of one type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Array {
    /// The stream itself carries no further units of this type.
    pub complete: bool,
    pub unit_type: u8,
    pub units: Vec<Bytes>,
}

impl HvcC {
    /// Reads a record. Fails when it is cut or of another version; bytes behind it are ignored.
    pub fn parse(record: &Bytes) -> Result<HvcC, FormatError> {
        let head: &[u8; 23] = record.first_chunk().ok_or(FormatError::Short {
            what: RECORD,
            at: 0,
            needs: 23,
            found: record.len(),
        })?;
        if head[0] != 1 {
            return Err(FormatError::Value { what: "hvcC version", found: head[0].into() });
        }
        let length_size = (head[21] & 3) + 1;
        if length_size == 3 {
            return Err(FormatError::Value { what: "hvcC NAL unit length size", found: 3 });
        }
        let mut rest = RecordReader::new(RECORD, record, head.len());
        Ok(HvcC {
            profile: head[1],
            compatibility_flags: u32::from_be_bytes([head[2], head[3], head[4], head[5]]),
            constraint_flags: [head[6], head[7], head[8], head[9], head[10], head[11]],
            level_idc: head[12],
            min_spatial_segmentation: u16::from_be_bytes([head[13], head[14]]) & 0x0FFF,
            parallelism_type: head[15] & 3,
            chroma_format_idc: head[16] & 3,
            bit_depth_luma: (head[17] & 7) + 8,
            bit_depth_chroma: (head[18] & 7) + 8,
            average_frame_rate: u16::from_be_bytes([head[19], head[20]]),
            temporal: head[21] >> 2,
            length_size,
            arrays: (0..head[22]).map(|_| read_array(&mut rest)).collect::<Result<_, _>>()?,
        })
    }

    /// A record with 4-byte lengths for these NAL units; profile, level and formats are those of the first SPS.
    ///
    /// Fails without an SPS, with units of another type, and with more or longer units than the record has room for.
    pub fn from_parameter_sets<V: AsRef<[u8]>, S: AsRef<[u8]>, P: AsRef<[u8]>>(
        vps: &[V],
        sps: &[S],
        pps: &[P],
    ) -> Result<HvcC, FormatError> {
        let arrays = vec![
            array(vps, VPS, "an H.265 VPS (type 32)")?,
            array(sps, SPS, "an H.265 SPS (type 33)")?,
            array(pps, PPS, "an H.265 PPS (type 34)")?,
        ];
        let first = arrays[1].units.first().ok_or(FormatError::NoSps { record: RECORD })?;
        let parsed = Sps::parse(first)?;
        Ok(HvcC {
            profile: parsed.profile,
            compatibility_flags: parsed.compatibility_flags,
            constraint_flags: parsed.constraint_flags,
            level_idc: parsed.level_idc,
            min_spatial_segmentation: 0,
            parallelism_type: 0,
            chroma_format_idc: parsed.chroma_format_idc,
            bit_depth_luma: parsed.bit_depth_luma,
            bit_depth_chroma: parsed.bit_depth_chroma,
            average_frame_rate: 0,
            temporal: parsed.temporal_layers << 1 | u8::from(parsed.temporal_id_nesting),
            length_size: 4,
            arrays,
        })
    }

    /// SPS NAL units in order.
    pub fn sps(&self) -> impl Iterator<Item = &Bytes> {
        self.arrays.iter().filter(|array| array.unit_type == SPS).flat_map(|array| &array.units)
    }

    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(128);
        out.put_slice(&[1, self.profile]);
        out.put_u32(self.compatibility_flags);
        out.put_slice(&self.constraint_flags);
        out.put_u8(self.level_idc);
        out.put_u16(0xF000 | self.min_spatial_segmentation);
        out.put_u8(0xFC | self.parallelism_type);
        out.put_u8(0xFC | self.chroma_format_idc);
        out.put_u8(0xF8 | self.bit_depth_luma.saturating_sub(8));
        out.put_u8(0xF8 | self.bit_depth_chroma.saturating_sub(8));
        out.put_u16(self.average_frame_rate);
        out.put_u8(self.temporal << 2 | self.length_size.saturating_sub(1));
        put_arrays(&mut out, &self.arrays);
        out.freeze()
    }

    /// The `codecs` parameter, as in `hvc1.1.6.L93.B0` (ISO/IEC 14496-15 E.3).
    pub fn rfc6381(&self) -> String {
        let space = ["", "A", "B", "C"][usize::from(self.profile >> 6)];
        let tier = if self.profile & 0x20 == 0 { 'L' } else { 'H' };
        let flags = self.compatibility_flags.reverse_bits();
        let mut text = format!("hvc1.{space}{}.{flags:X}.{tier}{}", self.profile & 0x1F, self.level_idc);
        let used = self.constraint_flags.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        for byte in &self.constraint_flags[..used] {
            text.push_str(&format!(".{byte:X}"));
        }
        text
    }
}

fn array<U: AsRef<[u8]>>(given: &[U], unit_type: u8, expected: &'static str) -> Result<Array, FormatError> {
    let limit = usize::from(u16::MAX);
    if given.len() > limit {
        return Err(FormatError::TooMany { what: RECORD, unit: "parameter sets", found: given.len(), limit });
    }
    let copy = |unit: &[u8]| match unit {
        [first, _, ..] if first >> 1 & 0x3F != unit_type => {
            Err(FormatError::NalType { expected, found: first >> 1 & 0x3F })
        }
        [_, _, ..] if unit.len() <= limit => Ok(Bytes::copy_from_slice(unit)),
        [_, _, ..] => Err(FormatError::TooMany { what: expected, unit: "bytes", found: unit.len(), limit }),
        _ => Err(FormatError::Short { what: expected, at: 0, needs: 2, found: unit.len() }),
    };
    let units = given.iter().map(|unit| copy(unit.as_ref())).collect::<Result<_, _>>()?;
    Ok(Array { complete: false, unit_type, units })
}

#[expect(clippy::cast_possible_truncation, reason = "both constructors keep counts and lengths in range")]
fn put_arrays(out: &mut BytesMut, arrays: &[Array]) {
    out.put_u8(arrays.len() as u8);
    for array in arrays {
        out.put_u8(u8::from(array.complete) << 7 | array.unit_type);
        out.put_u16(array.units.len() as u16);
        for unit in &array.units {
            out.put_u16(unit.len() as u16);
            out.put_slice(unit);
        }
    }
}

fn read_array(rest: &mut RecordReader<'_>) -> Result<Array, FormatError> {
    let kind = rest.u8()?;
    let count = rest.u16()?;
    Ok(Array { complete: kind & 0x80 != 0, unit_type: kind & 0x3F, units: rest.units(count)? })
}
