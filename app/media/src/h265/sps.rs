//! Sequence parameter set (ITU-T H.265 7.3.2.2 and Annex E).

use crate::FormatError;
use crate::bits::{BitReader, BitsError, unescape};
use crate::h264::sps::{cropped, rate, video_signal};

/// What is of use from an SPS.
#[derive(Clone, PartialEq, Debug)]
pub struct Sps {
    /// general_profile_space (2 bits), general_tier_flag, general_profile_idc (5 bits).
    pub profile: u8,
    pub compatibility_flags: u32,
    /// 48 bits, the first flag is the highest.
    pub constraint_flags: [u8; 6],
    pub level_idc: u8,
    /// 1..=8.
    pub temporal_layers: u8,
    pub temporal_id_nesting: bool,
    /// 0 monochrome, 1 4:2:0, 2 4:2:2, 3 4:4:4.
    pub chroma_format_idc: u8,
    /// Bits per sample, 8..=15.
    pub bit_depth_luma: u8,
    pub bit_depth_chroma: u8,
    /// Pixels after cropping by the conformance window.
    pub width: u32,
    pub height: u32,
    /// Pictures per second.
    pub frame_rate: Option<f64>,
    /// How many pictures may precede a picture in decoding order and follow it in output order, of the highest layer.
    pub max_num_reorder_pics: u32,
}

impl Sps {
    /// Reads an SPS NAL unit with its 2-byte header and emulation prevention.
    ///
    /// Fails when a field up to the reordering is missing or out of range. What follows is read for the frame rate alone: if
    /// it is broken, there is none.
    pub fn parse(nal: &[u8]) -> Result<Sps, FormatError> {
        match nal {
            [first, _, ..] if first >> 1 & 0x3F == 33 => {}
            [first, _, ..] => {
                return Err(FormatError::NalType {
                    expected: "an H.265 SPS (type 33)",
                    found: first >> 1 & 0x3F,
                });
            }
            _ => return Err(FormatError::Short { what: "H.265 SPS", at: 0, needs: 2, found: nal.len() }),
        }
        let rbsp = unescape(&nal[2..]);
        parse_rbsp(&mut BitReader::new(&rbsp))
    }

    /// Whether pictures may be output in another order than decoded, that is, whether there may be B pictures.
    pub fn may_reorder(&self) -> bool {
        self.max_num_reorder_pics > 0
    }
}

fn parse_rbsp(bits: &mut BitReader<'_>) -> Result<Sps, FormatError> {
    let wrap = |error: BitsError| FormatError::Bits { what: "H.265 SPS", error };
    bits.skip(4).map_err(wrap)?; // sps_video_parameter_set_id
    let sub_layers = low_byte(bits.u(3).map_err(wrap)?); // minus 1
    let temporal_id_nesting = bits.bit().map_err(wrap)?;
    let level = profile_tier_level(bits, sub_layers).map_err(wrap)?;
    bits.ue().map_err(wrap)?; // sps_seq_parameter_set_id
    let chroma_format_idc = small(bits, "chroma_format_idc", 3)?;
    let separate_planes = chroma_format_idc == 3 && bits.bit().map_err(wrap)?;
    let (width, height) = dimensions(bits, if separate_planes { 0 } else { chroma_format_idc })?;
    // H.265 knows 16 bits too, but hvcC has 3 bits for this field.
    let bit_depth_luma = 8 + small(bits, "bit_depth_luma_minus8", 7)?;
    let bit_depth_chroma = 8 + small(bits, "bit_depth_chroma_minus8", 7)?;
    let poc_bits = 4 + u32::from(small(bits, "log2_max_pic_order_cnt_lsb_minus4", 12)?);
    let max_num_reorder_pics = reordering(bits, sub_layers).map_err(wrap)?;
    Ok(Sps {
        profile: level.profile,
        compatibility_flags: level.compatibility_flags,
        constraint_flags: level.constraint_flags,
        level_idc: level.level_idc,
        temporal_layers: sub_layers + 1,
        temporal_id_nesting,
        chroma_format_idc,
        bit_depth_luma,
        bit_depth_chroma,
        width,
        height,
        frame_rate: frame_rate(bits, poc_bits).ok().flatten(),
        max_num_reorder_pics,
    })
}

fn low_byte(value: u32) -> u8 {
    value.to_be_bytes()[3]
}

/// ue(v) that must not exceed `limit`.
fn small(bits: &mut BitReader<'_>, what: &'static str, limit: u8) -> Result<u8, FormatError> {
    let found = bits.ue().map_err(|error| FormatError::Bits { what, error })?;
    u8::try_from(found)
        .ok()
        .filter(|value| *value <= limit)
        .ok_or(FormatError::Value { what, found: found.into() })
}

struct Level {
    profile: u8,
    compatibility_flags: u32,
    constraint_flags: [u8; 6],
    level_idc: u8,
}

/// profile_tier_level() of 7.3.3: the general part; the sub-layers are read past.
fn profile_tier_level(bits: &mut BitReader<'_>, sub_layers: u8) -> Result<Level, BitsError> {
    let profile = low_byte(bits.u(8)?);
    let compatibility_flags = bits.u(32)?;
    let mut constraint_flags = [0; 6];
    for byte in &mut constraint_flags {
        *byte = low_byte(bits.u(8)?);
    }
    let level_idc = low_byte(bits.u(8)?);
    let mut present = Vec::new();
    for _ in 0..sub_layers {
        present.push((bits.bit()?, bits.bit()?));
    }
    if sub_layers > 0 {
        bits.skip(2 * (8 - u32::from(sub_layers)))?; // reserved_zero_2bits
    }
    for (has_profile, has_level) in present {
        bits.skip(if has_profile { 88 } else { 0 })?;
        bits.skip(if has_level { 8 } else { 0 })?;
    }
    Ok(Level { profile, compatibility_flags, constraint_flags, level_idc })
}

/// Picture size in pixels after cropping: (width, height).
fn dimensions(bits: &mut BitReader<'_>, chroma_array_type: u8) -> Result<(u32, u32), FormatError> {
    let wrap = |error: BitsError| FormatError::Bits { what: "H.265 SPS picture size", error };
    let width = u64::from(bits.ue().map_err(wrap)?);
    let height = u64::from(bits.ue().map_err(wrap)?);
    let mut window = [0; 4]; // left, right, top, bottom
    if bits.bit().map_err(wrap)? {
        for side in &mut window {
            *side = u64::from(bits.ue().map_err(wrap)?);
        }
    }
    let unit_x = if matches!(chroma_array_type, 1 | 2) { 2 } else { 1 };
    let unit_y = if chroma_array_type == 1 { 2 } else { 1 };
    Ok((
        cropped(width, (window[0] + window[1]) * unit_x, "H.265 SPS width after cropping")?,
        cropped(height, (window[2] + window[3]) * unit_y, "H.265 SPS height after cropping")?,
    ))
}

/// sps_max_num_reorder_pics of the highest sub-layer.
fn reordering(bits: &mut BitReader<'_>, sub_layers: u8) -> Result<u32, BitsError> {
    let all_layers = bits.bit()?;
    let mut reorder = 0;
    for _ in 0..if all_layers { sub_layers + 1 } else { 1 } {
        bits.ue()?; // sps_max_dec_pic_buffering_minus1
        reorder = bits.ue()?;
        bits.ue()?; // sps_max_latency_increase_plus1
    }
    Ok(reorder)
}

/// The rest of the SPS up to the timing information of the VUI.
fn frame_rate(bits: &mut BitReader<'_>, poc_bits: u32) -> Result<Option<f64>, BitsError> {
    for _ in 0..6 {
        bits.ue()?; // four block sizes, two transform hierarchy depths
    }
    if bits.bit()? && bits.bit()? {
        scaling_list_data(bits)?;
    }
    bits.skip(2)?; // amp_enabled_flag, sample_adaptive_offset_enabled_flag
    if bits.bit()? {
        bits.skip(8)?; // pcm bit depths
        bits.ue()?;
        bits.ue()?;
        bits.skip(1)?;
    }
    short_term_ref_pic_sets(bits)?;
    if bits.bit()? {
        for _ in 0..bits.ue()?.min(32) {
            bits.skip(poc_bits + 1)?; // lt_ref_pic_poc_lsb_sps, used_by_curr_pic_lt_sps_flag
        }
    }
    bits.skip(2)?; // sps_temporal_mvp_enabled_flag, strong_intra_smoothing_enabled_flag
    if !bits.bit()? {
        return Ok(None);
    }
    video_signal(bits)?;
    bits.skip(3)?; // neutral_chroma_indication_flag, field_seq_flag, frame_field_info_present_flag
    if bits.bit()? {
        for _ in 0..4 {
            bits.ue()?; // default display window
        }
    }
    if !bits.bit()? {
        return Ok(None);
    }
    let (units_in_tick, time_scale) = (bits.u(32)?, bits.u(32)?);
    Ok(rate(time_scale.into(), units_in_tick.into()))
}

/// scaling_list_data() of 7.3.4, read past.
fn scaling_list_data(bits: &mut BitReader<'_>) -> Result<(), BitsError> {
    for size in 0..4u32 {
        for _ in 0..if size == 3 { 2 } else { 6 } {
            if !bits.bit()? {
                bits.ue()?; // scaling_list_pred_matrix_id_delta
                continue;
            }
            if size > 1 {
                bits.se()?; // scaling_list_dc_coef_minus8
            }
            for _ in 0..64.min(1 << (4 + (size << 1))) {
                bits.se()?;
            }
        }
    }
    Ok(())
}

/// The SPS's list of st_ref_pic_set() of 7.3.7, read past.
fn short_term_ref_pic_sets(bits: &mut BitReader<'_>) -> Result<(), BitsError> {
    let mut delta_pocs = 0; // of the set before
    for set in 0..bits.ue()?.min(64) {
        delta_pocs = if set > 0 && bits.bit()? {
            bits.skip(1)?; // delta_rps_sign
            bits.ue()?; // abs_delta_rps_minus1
            predicted_delta_pocs(bits, delta_pocs)?
        } else {
            let (negative, positive) = (bits.ue()?.min(16), bits.ue()?.min(16));
            for _ in 0..negative + positive {
                bits.ue()?; // delta_poc_minus1
                bits.skip(1)?; // used_by_curr_pic_flag
            }
            negative + positive
        };
    }
    Ok(())
}

/// Size of a set that is predicted from a set of `reference` entries.
fn predicted_delta_pocs(bits: &mut BitReader<'_>, reference: u32) -> Result<u32, BitsError> {
    let mut count = 0;
    for _ in 0..=reference {
        let used_by_curr_pic = bits.bit()?;
        if used_by_curr_pic || bits.bit()? {
            count += 1; // used, or use_delta_flag
        }
    }
    Ok(count)
}
