//! Sequence parameter set (ITU-T H.264 7.3.2.1.1 and Annex E).

use crate::FormatError;
use crate::bits::{BitReader, BitsError, unescape};

/// What is of use from an SPS.
#[derive(Clone, PartialEq, Debug)]
pub struct Sps {
    pub profile_idc: u8,
    /// The byte between profile_idc and level_idc.
    pub constraint_flags: u8,
    pub level_idc: u8,
    /// 0 monochrome, 1 4:2:0, 2 4:2:2, 3 4:4:4.
    pub chroma_format_idc: u8,
    /// Bits per sample, 8..=14.
    pub bit_depth_luma: u8,
    pub bit_depth_chroma: u8,
    /// Pixels after cropping.
    pub width: u32,
    pub height: u32,
    /// Pictures per second; two fields count as one picture.
    pub frame_rate: Option<f64>,
    /// How many pictures may precede a picture in decoding order and follow it in output order; `None` if not said.
    pub max_num_reorder_frames: Option<u32>,
    /// 2 means that output order is decoding order.
    pub pic_order_cnt_type: u32,
}

impl Sps {
    /// Reads an SPS NAL unit with its header byte and emulation prevention.
    ///
    /// Fails when a field up to the cropping is missing or out of range. The VUI behind it is optional help: a broken one,
    /// which cameras do send, leaves `frame_rate` and `max_num_reorder_frames` empty.
    pub fn parse(nal: &[u8]) -> Result<Sps, FormatError> {
        match nal.first().map(|first| first & 0x1F) {
            Some(7) => {}
            Some(found) => return Err(FormatError::NalType { expected: "an H.264 SPS (type 7)", found }),
            None => return Err(FormatError::Short { what: "H.264 SPS", at: 0, needs: 1, found: 0 }),
        }
        let rbsp = unescape(&nal[1..]);
        parse_rbsp(&mut BitReader::new(&rbsp))
    }

    /// Whether pictures may be output in another order than decoded, that is, whether there may be B pictures.
    pub fn may_reorder(&self) -> bool {
        self.pic_order_cnt_type != 2 && self.profile_idc != 66 && self.max_num_reorder_frames != Some(0)
    }
}

fn parse_rbsp(bits: &mut BitReader<'_>) -> Result<Sps, FormatError> {
    let wrap = |error: BitsError| FormatError::Bits { what: "H.264 SPS", error };
    let profile_idc = byte(bits).map_err(wrap)?;
    let constraint_flags = byte(bits).map_err(wrap)?;
    let level_idc = byte(bits).map_err(wrap)?;
    bits.ue().map_err(wrap)?; // seq_parameter_set_id
    let chroma = if has_chroma_fields(profile_idc) { chroma(bits)? } else { Chroma::default() };
    bits.ue().map_err(wrap)?; // log2_max_frame_num_minus4
    let pic_order_cnt_type = pic_order_cnt(bits)?;
    bits.ue().map_err(wrap)?; // max_num_ref_frames
    bits.skip(1).map_err(wrap)?; // gaps_in_frame_num_value_allowed_flag
    let (width, height) = dimensions(bits, chroma)?;
    let vui = vui(bits).unwrap_or_default();
    Ok(Sps {
        profile_idc,
        constraint_flags,
        level_idc,
        chroma_format_idc: chroma.format_idc,
        bit_depth_luma: chroma.bit_depth_luma,
        bit_depth_chroma: chroma.bit_depth_chroma,
        width,
        height,
        frame_rate: vui.frame_rate,
        max_num_reorder_frames: vui.max_num_reorder_frames,
        pic_order_cnt_type,
    })
}

fn byte(bits: &mut BitReader<'_>) -> Result<u8, BitsError> {
    Ok(bits.u(8)?.to_be_bytes()[3])
}

/// Profiles whose SPS carries chroma format, bit depths and scaling lists.
fn has_chroma_fields(profile_idc: u8) -> bool {
    matches!(profile_idc, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135)
}

#[derive(Clone, Copy)]
struct Chroma {
    format_idc: u8,
    separate_planes: bool,
    bit_depth_luma: u8,
    bit_depth_chroma: u8,
}

impl Default for Chroma {
    fn default() -> Chroma {
        Chroma { format_idc: 1, separate_planes: false, bit_depth_luma: 8, bit_depth_chroma: 8 }
    }
}

fn chroma(bits: &mut BitReader<'_>) -> Result<Chroma, FormatError> {
    let wrap = |error: BitsError| FormatError::Bits { what: "H.264 SPS chroma format", error };
    let format_idc = small(bits, "chroma_format_idc", 3)?;
    let separate_planes = format_idc == 3 && bits.bit().map_err(wrap)?;
    let bit_depth_luma = 8 + small(bits, "bit_depth_luma_minus8", 6)?;
    let bit_depth_chroma = 8 + small(bits, "bit_depth_chroma_minus8", 6)?;
    bits.skip(1).map_err(wrap)?; // qpprime_y_zero_transform_bypass_flag
    if bits.bit().map_err(wrap)? {
        for list in 0..if format_idc == 3 { 12 } else { 8 } {
            if bits.bit().map_err(wrap)? {
                scaling_list(bits, if list < 6 { 16 } else { 64 }).map_err(wrap)?;
            }
        }
    }
    Ok(Chroma { format_idc, separate_planes, bit_depth_luma, bit_depth_chroma })
}

/// ue(v) that must not exceed `limit`.
fn small(bits: &mut BitReader<'_>, what: &'static str, limit: u8) -> Result<u8, FormatError> {
    let found = bits.ue().map_err(|error| FormatError::Bits { what, error })?;
    u8::try_from(found)
        .ok()
        .filter(|value| *value <= limit)
        .ok_or(FormatError::Value { what, found: found.into() })
}

/// scaling_list() of 7.3.2.1.1.1, read past.
fn scaling_list(bits: &mut BitReader<'_>, size: u32) -> Result<(), BitsError> {
    let (mut last, mut next) = (8i64, 8i64);
    for _ in 0..size {
        if next != 0 {
            next = (last + bits.se()?).rem_euclid(256);
        }
        last = if next == 0 { last } else { next };
    }
    Ok(())
}

/// Reads the picture order count fields: the type.
fn pic_order_cnt(bits: &mut BitReader<'_>) -> Result<u32, FormatError> {
    let wrap = |error: BitsError| FormatError::Bits { what: "H.264 SPS picture order count", error };
    let kind = bits.ue().map_err(wrap)?;
    match kind {
        0 => {
            bits.ue().map_err(wrap)?; // log2_max_pic_order_cnt_lsb_minus4
        }
        1 => {
            bits.skip(1).map_err(wrap)?; // delta_pic_order_always_zero_flag
            bits.se().map_err(wrap)?; // offset_for_non_ref_pic
            bits.se().map_err(wrap)?; // offset_for_top_to_bottom_field
            for _ in 0..small(bits, "num_ref_frames_in_pic_order_cnt_cycle", 255)? {
                bits.se().map_err(wrap)?;
            }
        }
        2 => {}
        found => return Err(FormatError::Value { what: "pic_order_cnt_type", found: found.into() }),
    }
    Ok(kind)
}

/// Picture size in pixels after cropping: (width, height).
fn dimensions(bits: &mut BitReader<'_>, chroma: Chroma) -> Result<(u32, u32), FormatError> {
    let wrap = |error: BitsError| FormatError::Bits { what: "H.264 SPS picture size", error };
    let width_mbs = u64::from(bits.ue().map_err(wrap)?) + 1;
    let height_map_units = u64::from(bits.ue().map_err(wrap)?) + 1;
    let frame_mbs_only = bits.bit().map_err(wrap)?;
    if !frame_mbs_only {
        bits.skip(1).map_err(wrap)?; // mb_adaptive_frame_field_flag
    }
    bits.skip(1).map_err(wrap)?; // direct_8x8_inference_flag
    let mut crop = [0; 4]; // left, right, top, bottom
    if bits.bit().map_err(wrap)? {
        for side in &mut crop {
            *side = u64::from(bits.ue().map_err(wrap)?);
        }
    }
    let fields = if frame_mbs_only { 1 } else { 2 };
    let chroma_array_type = if chroma.separate_planes { 0 } else { chroma.format_idc };
    let unit_x = if matches!(chroma_array_type, 1 | 2) { 2 } else { 1 };
    let unit_y = if chroma_array_type == 1 { 2 } else { 1 } * fields;
    let width = cropped(width_mbs * 16, (crop[0] + crop[1]) * unit_x, "H.264 SPS width after cropping")?;
    let height = cropped(
        height_map_units * 16 * fields,
        (crop[2] + crop[3]) * unit_y,
        "H.264 SPS height after cropping",
    )?;
    Ok((width, height))
}

/// `size - crop` as a picture size, at least 1 and at most 65 535, beyond any level's limit.
pub(crate) fn cropped(size: u64, crop: u64, what: &'static str) -> Result<u32, FormatError> {
    match size.checked_sub(crop) {
        Some(pixels @ 1..=0xFFFF) => Ok(u32::try_from(pixels).expect("it is below 65536")),
        found => Err(FormatError::Value { what, found: found.unwrap_or(0) }),
    }
}

#[derive(Default)]
struct Vui {
    frame_rate: Option<f64>,
    max_num_reorder_frames: Option<u32>,
}

/// vui_parameters() of E.1.1, if present.
fn vui(bits: &mut BitReader<'_>) -> Result<Vui, BitsError> {
    if !bits.bit()? {
        return Ok(Vui::default());
    }
    video_signal(bits)?;
    let mut vui = Vui::default();
    if bits.bit()? {
        let (units_in_tick, time_scale) = (bits.u(32)?, bits.u(32)?);
        bits.skip(1)?; // fixed_frame_rate_flag
        // A tick is a field (E.2.1), hence the 2.
        vui.frame_rate = rate(f64::from(time_scale), 2.0 * f64::from(units_in_tick));
    }
    let nal_hrd = bits.bit()?;
    if nal_hrd {
        hrd(bits)?;
    }
    let vcl_hrd = bits.bit()?;
    if vcl_hrd {
        hrd(bits)?;
    }
    if nal_hrd || vcl_hrd {
        bits.skip(1)?; // low_delay_hrd_flag
    }
    bits.skip(1)?; // pic_struct_present_flag
    if bits.bit()? {
        bits.skip(1)?; // motion_vectors_over_pic_boundaries_flag
        for _ in 0..4 {
            bits.ue()?; // max_bytes_per_pic_denom .. log2_max_mv_length_vertical
        }
        vui.max_num_reorder_frames = Some(bits.ue()?);
    }
    Ok(vui)
}

/// The VUI fields from aspect ratio to chroma location, the same in H.264 and H.265.
pub(crate) fn video_signal(bits: &mut BitReader<'_>) -> Result<(), BitsError> {
    const EXTENDED_SAR: u32 = 255;
    if bits.bit()? && bits.u(8)? == EXTENDED_SAR {
        bits.skip(32)?;
    }
    if bits.bit()? {
        bits.skip(1)?; // overscan_appropriate_flag
    }
    if bits.bit()? {
        bits.skip(4)?; // video_format, video_full_range_flag
        if bits.bit()? {
            bits.skip(24)?; // colour primaries, transfer, matrix
        }
    }
    if bits.bit()? {
        bits.ue()?; // chroma_sample_loc_type_top_field
        bits.ue()?; // chroma_sample_loc_type_bottom_field
    }
    Ok(())
}

/// Pictures per second, if both numbers make sense.
pub(crate) fn rate(ticks_per_second: f64, ticks_per_picture: f64) -> Option<f64> {
    (ticks_per_second > 0.0 && ticks_per_picture > 0.0).then(|| ticks_per_second / ticks_per_picture)
}

/// hrd_parameters() of E.1.2, read past.
fn hrd(bits: &mut BitReader<'_>) -> Result<(), BitsError> {
    let count = bits.ue()?.min(31) + 1;
    bits.skip(8)?; // bit_rate_scale, cpb_size_scale
    for _ in 0..count {
        bits.ue()?;
        bits.ue()?;
        bits.skip(1)?;
    }
    bits.skip(20) // three delay lengths and time_offset_length
}
