//! AVCDecoderConfigurationRecord, the body of avcC (ISO/IEC 14496-15 5.3.3.1).

use bytes::{BufMut, Bytes, BytesMut};

use super::Sps;
use crate::FormatError;
use crate::record::RecordReader;

const RECORD: &str = "avcC";

/// The record in parts. `parse` and `to_bytes` are inverse for records with all reserved bits set as the standard wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AvcC {
    pub profile_idc: u8,
    /// constraint_set0..5 flags, as the byte behind profile_idc in the SPS.
    pub constraint_flags: u8,
    pub level_idc: u8,
    /// Bytes of the length in front of each NAL unit: 1, 2 or 4.
    pub length_size: u8,
    /// NAL units with their header byte.
    pub sps: Vec<Bytes>,
    pub pps: Vec<Bytes>,
    /// What follows the PPS in records of the High profiles; encoders may leave it out.
    pub high: Option<High>,
}

/// Chroma format, bit depths and SPS extensions of a High profile record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct High {
    /// 0 monochrome, 1 4:2:0, 2 4:2:2, 3 4:4:4.
    pub chroma_format_idc: u8,
    pub bit_depth_luma: u8,
    pub bit_depth_chroma: u8,
    pub sps_extensions: Vec<Bytes>,
}

impl AvcC {
    /// Reads a record. Fails when it is cut or of another version; bytes behind it are ignored.
    pub fn parse(record: &Bytes) -> Result<AvcC, FormatError> {
        let mut rest = RecordReader::new(RECORD, record, 0);
        match rest.u8()? {
            1 => {}
            found => return Err(FormatError::Value { what: "avcC version", found: found.into() }),
        }
        let (profile_idc, constraint_flags, level_idc) = (rest.u8()?, rest.u8()?, rest.u8()?);
        let length_size = (rest.u8()? & 3) + 1;
        if length_size == 3 {
            return Err(FormatError::Value { what: "avcC NAL unit length size", found: 3 });
        }
        let sps_count = rest.u8()? & 0x1F;
        let sps = rest.units(sps_count.into())?;
        let pps_count = rest.u8()?;
        let pps = rest.units(pps_count.into())?;
        let high =
            if has_high_fields(profile_idc) && rest.left() >= 4 { Some(read_high(&mut rest)?) } else { None };
        Ok(AvcC { profile_idc, constraint_flags, level_idc, length_size, sps, pps, high })
    }

    /// A record with 4-byte lengths for these NAL units; profile, level and chroma format are those of the first SPS.
    ///
    /// Fails without an SPS, with units of another type, and with more or longer units than the record has room for.
    pub fn from_parameter_sets<S: AsRef<[u8]>, P: AsRef<[u8]>>(
        sps: &[S],
        pps: &[P],
    ) -> Result<AvcC, FormatError> {
        let sps = units(sps, 7, "an H.264 SPS (type 7)", 31)?;
        let pps = units(pps, 8, "an H.264 PPS (type 8)", 255)?;
        let parsed = Sps::parse(sps.first().ok_or(FormatError::NoSps { record: RECORD })?)?;
        let high = has_high_fields(parsed.profile_idc).then(|| High {
            chroma_format_idc: parsed.chroma_format_idc,
            bit_depth_luma: parsed.bit_depth_luma,
            bit_depth_chroma: parsed.bit_depth_chroma,
            sps_extensions: Vec::new(),
        });
        Ok(AvcC {
            profile_idc: parsed.profile_idc,
            constraint_flags: parsed.constraint_flags,
            level_idc: parsed.level_idc,
            length_size: 4,
            sps,
            pps,
            high,
        })
    }

    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        out.put_slice(&[
            1,
            self.profile_idc,
            self.constraint_flags,
            self.level_idc,
            0xFC | self.length_size.saturating_sub(1),
        ]);
        put_units(&mut out, 0xE0, &self.sps);
        put_units(&mut out, 0, &self.pps);
        if let Some(high) = &self.high {
            out.put_u8(0xFC | high.chroma_format_idc);
            out.put_u8(0xF8 | high.bit_depth_luma.saturating_sub(8));
            out.put_u8(0xF8 | high.bit_depth_chroma.saturating_sub(8));
            put_units(&mut out, 0, &high.sps_extensions);
        }
        out.freeze()
    }

    /// `avc1.` and profile, constraint flags and level in hexadecimal (RFC 6381 3.3).
    pub fn rfc6381(&self) -> String {
        format!("avc1.{:02x}{:02x}{:02x}", self.profile_idc, self.constraint_flags, self.level_idc)
    }
}

/// Profiles whose record carries chroma format and bit depths.
fn has_high_fields(profile_idc: u8) -> bool {
    matches!(profile_idc, 100 | 110 | 122 | 144 | 244)
}

/// Copies the units, checking type, count and length.
fn units<U: AsRef<[u8]>>(
    given: &[U],
    kind: u8,
    expected: &'static str,
    limit: usize,
) -> Result<Vec<Bytes>, FormatError> {
    if given.len() > limit {
        return Err(FormatError::TooMany { what: RECORD, unit: "parameter sets", found: given.len(), limit });
    }
    given.iter().map(|unit| unit_of_type(unit.as_ref(), kind, expected)).collect()
}

fn unit_of_type(unit: &[u8], kind: u8, expected: &'static str) -> Result<Bytes, FormatError> {
    let limit = usize::from(u16::MAX);
    match unit.first().map(|first| first & 0x1F) {
        Some(found) if found != kind => Err(FormatError::NalType { expected, found }),
        None => Err(FormatError::Short { what: expected, at: 0, needs: 1, found: 0 }),
        Some(_) if unit.len() > limit => {
            Err(FormatError::TooMany { what: expected, unit: "bytes", found: unit.len(), limit })
        }
        Some(_) => Ok(Bytes::copy_from_slice(unit)),
    }
}

/// Count byte (with `reserved` bits), then each unit behind its 16-bit length.
#[expect(clippy::cast_possible_truncation, reason = "both constructors keep counts and lengths in range")]
fn put_units(out: &mut BytesMut, reserved: u8, units: &[Bytes]) {
    out.put_u8(reserved | units.len() as u8);
    for unit in units {
        out.put_u16(unit.len() as u16);
        out.put_slice(unit);
    }
}

fn read_high(rest: &mut RecordReader<'_>) -> Result<High, FormatError> {
    let chroma_format_idc = rest.u8()? & 3;
    let bit_depth_luma = (rest.u8()? & 7) + 8;
    let bit_depth_chroma = (rest.u8()? & 7) + 8;
    let count = rest.u8()?;
    let sps_extensions = rest.units(count.into())?;
    Ok(High { chroma_format_idc, bit_depth_luma, bit_depth_chroma, sps_extensions })
}
