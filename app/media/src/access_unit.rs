//! What travels through the appliance: coded pictures and audio frames with their formats and times.

use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::bits::{BitReader, BitsError};
use crate::h264::AvcC;
use crate::h265::HvcC;
use crate::{h264, h265};

/// Coding of a video track.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum VideoCodec {
    H264,
    H265,
}

/// Coding of an audio track. `Pcmu` and `Pcma` are G.711 mu-law and A-law.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AudioCodec {
    Aac,
    Pcmu,
    Pcma,
}

/// Wall time that the producer puts on a picture: milliseconds since the Unix epoch, UTC, no leap seconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProducerTimestamp(u64);

impl ProducerTimestamp {
    pub const fn from_millis(ms: u64) -> ProducerTimestamp {
        ProducerTimestamp(ms)
    }

    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This time plus `ms`, or `None` past the end of the range.
    pub const fn checked_add_ms(self, ms: u64) -> Option<ProducerTimestamp> {
        match self.0.checked_add(ms) {
            Some(sum) => Some(ProducerTimestamp(sum)),
            None => None,
        }
    }

    /// This time minus `ms`, or `None` before the epoch.
    pub const fn checked_sub_ms(self, ms: u64) -> Option<ProducerTimestamp> {
        match self.0.checked_sub(ms) {
            Some(difference) => Some(ProducerTimestamp(difference)),
            None => None,
        }
    }

    /// Milliseconds from `earlier` to this time, or `None` if `earlier` is later.
    pub const fn checked_ms_since(self, earlier: ProducerTimestamp) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }
}

impl ProducerTimestamp {
    /// Reads a date and time of RFC 3339, in any time zone, with any fraction (digits behind the milliseconds are cut).
    /// `None` for another form, a date that does not exist, and times before the epoch.
    pub fn parse_rfc3339(text: &str) -> Option<ProducerTimestamp> {
        let (date, time) = text.split_once(['T', 't', ' '])?;
        let zone_at = time.find(['Z', 'z', '+', '-'])?;
        let (time, zone) = time.split_at(zone_at);
        let (time, fraction) = time.split_once('.').map_or((time, "0"), |(time, fraction)| (time, fraction));
        let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
        let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
        let ahead_minutes = match zone.split_at_checked(1)? {
            ("Z" | "z", "") => 0,
            (sign, zone) => {
                let [hours, minutes] = numbers(zone, ':', [2, 2])?;
                let ahead =
                    i64::try_from(hours * 60 + minutes).ok().filter(|_| hours < 24 && minutes < 60)?;
                if sign == "-" { -ahead } else { ahead }
            }
        };
        if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let ms =
            fraction.bytes().chain(*b"00").take(3).fold(0, |ms, digit| ms * 10 + i64::from(digit - b'0'));
        let days = days_from_civil(year, month, day)?;
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let seconds = i64::try_from(((days * 24 + hour) * 60 + minute) * 60 + second).ok()?;
        u64::try_from((seconds - ahead_minutes * 60) * 1_000 + ms).ok().map(ProducerTimestamp)
    }
}

/// Decimal numbers of exactly so many digits.
fn numbers<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[u64; N]> {
    let mut parts = text.split(separator);
    let mut found = [0; N];
    for (number, digits) in found.iter_mut().zip(digits) {
        let part = parts.next()?;
        *number =
            part.parse().ok().filter(|_| part.len() == digits && part.bytes().all(|b| b.is_ascii_digit()))?;
    }
    parts.next().is_none().then_some(found)
}

/// The inverse of [`civil_from_days`]; `None` for a day that does not exist or lies before 1970.
fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let (from_march, month_from_march) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = from_march / 4 - from_march / 100 + from_march / 400;
    let days = from_march * 365 + leap_days + (153 * month_from_march + 2) / 5 + day - 1 - 719_468;
    (civil_from_days(days) == (year, month, day)).then_some(days)
}

/// RFC 3339 in UTC with milliseconds: `2026-11-20T10:01:13.633Z`.
impl fmt::Display for ProducerTimestamp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, ms) = (self.0 / 1_000, self.0 % 1_000);
        let (year, month, day) = civil_from_days(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
        write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    }
}

/// Days since 1970-01-01 to (year, month 1..=12, day 1..=31) in the Gregorian calendar.
///
/// Counts in eras of 400 years (146 097 days) that begin on a 1st of March, so that the leap day is the last of a year.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468; // days since 0000-03-01
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// How to decode the pictures of a video track.
#[derive(Clone, PartialEq, Debug)]
pub struct VideoFormat {
    pub codec: VideoCodec,
    /// Body of avcC or hvcC (ISO/IEC 14496-15 5.3.3 and 8.3.3), also Matroska's CodecPrivate.
    pub codec_private: Bytes,
    /// Pixels after cropping.
    pub width: u32,
    pub height: u32,
    /// Pictures per second as the parameter sets declare it; cameras often declare none, or a wrong one.
    pub frame_rate: Option<f64>,
}

impl VideoFormat {
    /// Reads size and frame rate from the first SPS of an avcC (H.264) or hvcC (H.265) body.
    ///
    /// Fails when the record or the SPS is malformed, or when the record holds no SPS.
    pub fn from_codec_private(codec: VideoCodec, codec_private: Bytes) -> Result<VideoFormat, FormatError> {
        let (width, height, frame_rate) = match codec {
            VideoCodec::H264 => {
                let record = AvcC::parse(&codec_private)?;
                let sps = h264::Sps::parse(record.sps.first().ok_or(FormatError::NoSps { record: "avcC" })?)?;
                (sps.width, sps.height, sps.frame_rate)
            }
            VideoCodec::H265 => {
                let record = HvcC::parse(&codec_private)?;
                let sps =
                    h265::Sps::parse(record.sps().next().ok_or(FormatError::NoSps { record: "hvcC" })?)?;
                (sps.width, sps.height, sps.frame_rate)
            }
        };
        Ok(VideoFormat { codec, codec_private, width, height, frame_rate })
    }

    /// Matroska CodecID.
    pub fn codec_id(&self) -> &'static str {
        match self.codec {
            VideoCodec::H264 => "V_MPEG4/ISO/AVC",
            VideoCodec::H265 => "V_MPEGH/ISO/HEVC",
        }
    }

    /// The `codecs` parameter of RFC 6381, as in `avc1.64001f` (ISO/IEC 14496-15 Annex E).
    ///
    /// A format whose `codec_private` is not a valid record (possible only if the field was set by hand) gives the bare
    /// sample entry name, `avc1` or `hvc1`.
    pub fn rfc6381(&self) -> String {
        match self.codec {
            VideoCodec::H264 => {
                AvcC::parse(&self.codec_private).map_or("avc1".into(), |record| record.rfc6381())
            }
            VideoCodec::H265 => {
                HvcC::parse(&self.codec_private).map_or("hvc1".into(), |record| record.rfc6381())
            }
        }
    }

    /// Bytes of the length in front of each NAL unit (1, 2 or 4) according to `codec_private`.
    pub fn nal_length_size(&self) -> u8 {
        let at = match self.codec {
            VideoCodec::H264 => 4,
            VideoCodec::H265 => 21,
        };
        self.codec_private.get(at).map_or(4, |byte| (byte & 3) + 1)
    }
}

/// How to decode the frames of an audio track.
#[derive(Clone, PartialEq, Debug)]
pub struct AudioFormat {
    pub codec: AudioCodec,
    /// AudioSpecificConfig for AAC, an 18-byte WAVEFORMATEX for G.711.
    pub codec_private: Bytes,
    /// Samples per second and channel. For AAC with SBR the rate of the core coder, as Matroska's SamplingFrequency.
    pub sample_rate: u32,
    pub channels: u16,
}

impl AudioFormat {
    /// AAC from its AudioSpecificConfig (ISO/IEC 14496-3 1.6.2.1).
    ///
    /// Fails when it is too short, uses a reserved sampling frequency, or leaves the channels to a program config element.
    pub fn aac(audio_specific_config: Bytes) -> Result<AudioFormat, FormatError> {
        const RATES: [u32; 13] = [
            96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000,
            7_350,
        ];
        // By channelConfiguration (Table 1.19); 0 marks those that do not say it.
        const CHANNELS: [u16; 15] = [0, 1, 2, 3, 4, 5, 6, 8, 0, 0, 0, 7, 8, 0, 8];
        let mut bits = BitReader::new(&audio_specific_config);
        let wrap = |error| FormatError::Bits { what: "AudioSpecificConfig", error };
        if bits.u(5).map_err(wrap)? == 31 {
            bits.u(6).map_err(wrap)?; // extended audioObjectType
        }
        let index = bits.u(4).map_err(wrap)?;
        let sample_rate = match RATES.get(index as usize) {
            Some(rate) => *rate,
            None if index == 15 => bits.u(24).map_err(wrap)?,
            None => {
                return Err(FormatError::Value {
                    what: "AudioSpecificConfig sampling frequency index",
                    found: index.into(),
                });
            }
        };
        let configuration = bits.u(4).map_err(wrap)?;
        let channels = match CHANNELS.get(configuration as usize) {
            Some(channels @ 1..) => *channels,
            _ => {
                let what = "AudioSpecificConfig channel configuration";
                return Err(FormatError::Value { what, found: configuration.into() });
            }
        };
        Ok(AudioFormat {
            codec: AudioCodec::Aac,
            codec_private: audio_specific_config,
            sample_rate,
            channels,
        })
    }

    /// G.711 mu-law.
    pub fn pcmu(sample_rate: u32, channels: u16) -> AudioFormat {
        AudioFormat {
            codec: AudioCodec::Pcmu,
            codec_private: wave_format_ex(7, sample_rate, channels),
            sample_rate,
            channels,
        }
    }

    /// G.711 A-law.
    pub fn pcma(sample_rate: u32, channels: u16) -> AudioFormat {
        AudioFormat {
            codec: AudioCodec::Pcma,
            codec_private: wave_format_ex(6, sample_rate, channels),
            sample_rate,
            channels,
        }
    }

    /// Matroska CodecID.
    pub fn codec_id(&self) -> &'static str {
        match self.codec {
            AudioCodec::Aac => "A_AAC",
            AudioCodec::Pcmu | AudioCodec::Pcma => "A_MS/ACM",
        }
    }
}

/// WAVEFORMATEX (mmreg.h): little-endian, 8 bits per sample, no extra bytes.
fn wave_format_ex(tag: u16, sample_rate: u32, channels: u16) -> Bytes {
    let mut out = BytesMut::with_capacity(18);
    out.put_u16_le(tag);
    out.put_u16_le(channels);
    out.put_u32_le(sample_rate);
    out.put_u32_le(sample_rate.saturating_mul(channels.into())); // bytes per second
    out.put_u16_le(channels); // bytes per sample of all channels
    out.put_u16_le(8);
    out.put_u16_le(0);
    out.freeze()
}

/// Where the producer timestamps of a camera come from, or of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClockSource {
    /// The camera's clock, by its RTCP sender reports.
    Rtcp,
    /// Our clock at arrival, smoothed.
    Receive,
    /// Positions in a file, behind a time that somebody named, or 1970.
    File,
    /// The clock of whoever uploaded: what stands in the fragments of a KVS stream.
    Producer,
}

/// One coded picture.
#[derive(Clone, PartialEq, Debug)]
pub struct AccessUnit {
    /// NAL units as the camera sent them, each behind its length in 4 bytes, big-endian.
    pub data: Bytes,
    /// When the picture is to be shown. Units travel in decoding order, so with B pictures this goes back and forth.
    pub timestamp: ProducerTimestamp,
    /// Decoding may begin here.
    pub random_access: bool,
    pub format: Arc<VideoFormat>,
}

/// One coded audio frame.
#[derive(Clone, PartialEq, Debug)]
pub struct AudioFrame {
    /// A raw AAC frame (no ADTS header) or G.711 samples.
    pub data: Bytes,
    /// Time of the first sample.
    pub timestamp: ProducerTimestamp,
    pub format: Arc<AudioFormat>,
}

/// Why codec data was refused. All offsets count from the start of the thing named by `what`.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FormatError {
    #[error("{what} ends after {found} bytes, the field at byte {at} needs {needs}")]
    Short { what: &'static str, at: usize, needs: usize, found: usize },
    #[error("{what} has value {found}, which is not allowed or not supported")]
    Value { what: &'static str, found: u64 },
    #[error("{what}: {error}")]
    Bits { what: &'static str, error: BitsError },
    #[error("{what} holds {found} {unit}, at most {limit} can be written")]
    TooMany { what: &'static str, unit: &'static str, found: usize, limit: usize },
    #[error("{record} holds no SPS; the picture size is unknown until the camera sends one")]
    NoSps { record: &'static str },
    #[error("expected {expected}, found a NAL unit of type {found}")]
    NalType { expected: &'static str, found: u8 },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_rfc_3339() {
        #[track_caller]
        fn check(ms: u64, expected: &str) {
            assert_eq!(ProducerTimestamp::from_millis(ms).to_string(), expected);
        }
        check(0, "1970-01-01T00:00:00.000Z");
        check(951_782_399_999, "2000-02-28T23:59:59.999Z");
        check(951_782_400_000, "2000-02-29T00:00:00.000Z");
        check(1_709_251_199_001, "2024-02-29T23:59:59.001Z");
        check(1_735_689_599_000, "2024-12-31T23:59:59.000Z");
        check(1_795_186_073_633, "2026-11-20T14:47:53.633Z");
        check(4_107_542_400_000, "2100-03-01T00:00:00.000Z"); // 2100 is no leap year
    }

    #[test]
    fn dates_of_rfc_3339_are_read_in_every_zone() {
        #[track_caller]
        fn check(text: &str, expected: Option<u64>) {
            let found = ProducerTimestamp::parse_rfc3339(text).map(ProducerTimestamp::as_millis);
            assert_eq!(found, expected, "{text}");
        }
        for ms in
            [0, 951_782_399_999, 951_782_400_000, 1_709_251_199_001, 1_795_186_073_633, 4_107_542_400_000]
        {
            check(&ProducerTimestamp::from_millis(ms).to_string(), Some(ms));
        }
        check("2026-11-20T14:47:53Z", Some(1_795_186_073_000));
        check("2026-11-20T16:47:53.6339+02:00", Some(1_795_186_073_633));
        check("2026-11-20T09:17:53.6-05:30", Some(1_795_186_073_600));
        for text in [
            "",
            "yesterday",
            "2026-11-20",
            "2026-11-20T14:47:53",
            "2026-11-20T14:47:53.Z",
            "2026-11-20T14:47:53.6x3Z",
            "2026-11-31T14:47:53Z",
            "2026-02-29T14:47:53Z",
            "2026-11-20T24:00:00Z",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+01:00",
            "2026-11-20T14:47:53+2:00",
            "2026-1-20T14:47:53Z",
            "+026-11-20T14:47:53Z",
            "2026-11-20T14:47:53Zé",
            "2026-11-20T14:47:53é",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn every_time_can_be_shown() {
        assert!(ProducerTimestamp::from_millis(u64::MAX).to_string().ends_with('Z'));
    }

    #[test]
    fn time_arithmetic_stays_in_range() {
        let time = ProducerTimestamp::from_millis(1_000);
        assert_eq!(time.checked_add_ms(5).and_then(|later| later.checked_ms_since(time)), Some(5));
        assert_eq!(time.checked_sub_ms(1_001), None);
        assert_eq!(time.checked_ms_since(ProducerTimestamp::from_millis(1_001)), None);
        assert_eq!(ProducerTimestamp::from_millis(u64::MAX).checked_add_ms(1), None);
    }

    #[test]
    fn audio_specific_config_tells_rate_and_channels() {
        #[track_caller]
        fn check(config: &'static [u8], expected: Option<(u32, u16)>) {
            let format = AudioFormat::aac(Bytes::from_static(config));
            assert_eq!(
                format.ok().map(|format| (format.sample_rate, format.channels)),
                expected,
                "{config:02x?}"
            );
        }
        check(&[0x14, 0x08], Some((16_000, 1))); // as kvssink recorded it
        check(&[0x11, 0x90], Some((48_000, 2))); // as Amazon Connect claims
        check(&[0x12, 0x38], Some((44_100, 8))); // configuration 7
        check(&[0x17, 0x80, 0x1F, 0x40, 0x08], Some((16_000, 1))); // index 15, rate in 24 bits
        check(&[0x16, 0x88], None); // reserved index 13
        check(&[0x14, 0x00], None); // program config element
        check(&[0x14], None);
        check(&[], None);
    }

    #[test]
    fn g711_carries_a_wave_format_ex() {
        let format = AudioFormat::pcma(8_000, 1);
        let expected = [6, 0, 1, 0, 0x40, 0x1F, 0, 0, 0x40, 0x1F, 0, 0, 1, 0, 8, 0, 0, 0];
        assert_eq!((format.codec_id(), &format.codec_private[..]), ("A_MS/ACM", &expected[..]));
        assert_eq!(AudioFormat::pcmu(8_000, 1).codec_private[0], 7);
    }
}
