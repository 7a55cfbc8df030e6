//! Writes short MPEG transport streams (ISO/IEC 13818-1): one segment of HLS each.
//!
//! ```text
//! PAT  PMT  { PES of one picture or audio frame, in packets of 188 bytes }*
//! ```
//! Small enough to be ours: one programme, at most one video and one AAC track, tables once in front.

use bytes::{BufMut, Bytes, BytesMut};

use crate::h264::AvcC;
use crate::h265::HvcC;
use crate::nal::{self, NalError};
use crate::{AudioCodec, AudioFormat, FormatError, VideoCodec, VideoFormat};

const PACKET: usize = 188;
const SYNC: u8 = 0x47;
const PAT_PID: u16 = 0;
const PMT_PID: u16 = 0x1000;
const VIDEO_PID: u16 = 0x100;
const AUDIO_PID: u16 = 0x101;
const VIDEO_STREAM: u8 = 0xE0;
const AUDIO_STREAM: u8 = 0xC0;
const START_CODE: [u8; 4] = [0, 0, 0, 1];
/// Times have 33 bits.
const TIME_MASK: u64 = (1 << 33) - 1;

/// One picture or audio frame, in the order in which it shall stand in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    pub kind: Kind,
    /// Pictures as NAL units behind their lengths, AAC frames without ADTS.
    pub data: Bytes,
    /// When it is decoded and when it is shown, 1/90000 s.
    pub decode_90k: u64,
    pub show_90k: u64,
    pub key_frame: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Video,
    Audio,
}

/// Why a segment cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TsError {
    #[error("the parameter sets: {0}")]
    Format(#[from] FormatError),
    #[error("picture {index}: {source}")]
    Picture { index: usize, source: NalError },
    #[error("{0:?} does not go into a transport stream here, only AAC does")]
    AudioCodec(AudioCodec),
    #[error("an AAC frame of {found} bytes, ADTS has room for {limit}")]
    LongFrame { found: usize, limit: usize },
    #[error("AAC at {sample_rate} Hz with {channels} channels cannot be said in ADTS")]
    Adts { sample_rate: u32, channels: u16 },
    #[error("a unit of a track that the segment does not have")]
    NoTrack,
}

/// A whole segment.
pub fn segment(
    video: Option<&VideoFormat>,
    audio: Option<&AudioFormat>,
    units: &[Unit],
) -> Result<Bytes, TsError> {
    let sets = video.map(parameter_sets).transpose()?;
    let adts = audio.map(Adts::new).transpose()?;
    let media: usize = units.iter().map(|unit| unit.data.len() + 2 * PACKET).sum();
    let mut out = Packets { out: BytesMut::with_capacity(media), video: 0, audio: 0 };
    out.tables(video.map(|format| format.codec), audio.is_some());
    for (index, unit) in units.iter().enumerate() {
        let payload = match (unit.kind, video, &sets, &adts) {
            (Kind::Video, Some(format), Some(sets), _) => {
                picture(format, sets, unit).map_err(|source| TsError::Picture { index, source })?
            }
            (Kind::Audio, _, _, Some(adts)) => adts.frame(&unit.data)?,
            _ => return Err(TsError::NoTrack),
        };
        out.pes(unit, &payload, video.is_none());
    }
    Ok(out.out.freeze())
}

/// Annex B: what a decoder needs in front of a key frame.
fn parameter_sets(format: &VideoFormat) -> Result<BytesMut, FormatError> {
    let mut out = BytesMut::new();
    let mut put = |unit: &Bytes| {
        out.put_slice(&START_CODE);
        out.put_slice(unit);
    };
    match format.codec {
        VideoCodec::H264 => {
            let record = AvcC::parse(&format.codec_private)?;
            record.sps.iter().chain(&record.pps).for_each(&mut put);
        }
        VideoCodec::H265 => {
            let record = HvcC::parse(&format.codec_private)?;
            record.arrays.iter().flat_map(|array| &array.units).for_each(&mut put);
        }
    }
    Ok(out)
}

/// Annex B with an access unit delimiter, which transport streams must have (ISO/IEC 13818-1 2.14.1, 2.17.1).
fn picture(format: &VideoFormat, sets: &[u8], unit: &Unit) -> Result<BytesMut, NalError> {
    let mut out = BytesMut::with_capacity(unit.data.len() + sets.len() + 16);
    out.put_slice(&START_CODE);
    let delimiter = match format.codec {
        VideoCodec::H264 => {
            out.put_slice(&[9, 0xF0]);
            9
        }
        VideoCodec::H265 => {
            out.put_slice(&[70, 1, 0x50]);
            35
        }
    };
    if unit.key_frame {
        out.put_slice(sets);
    }
    for found in nal::length_prefixed(&unit.data, format.nal_length_size()) {
        let found = found?;
        if nal::unit_type(format.codec, found) != Some(delimiter) {
            out.put_slice(&START_CODE);
            out.put_slice(found);
        }
    }
    Ok(out)
}

/// What the ADTS headers of a track have in common (ISO/IEC 14496-3 1.A.2.2).
struct Adts {
    profile: u8,
    rate_index: u8,
    channels: u8,
}

impl Adts {
    fn new(format: &AudioFormat) -> Result<Self, TsError> {
        if format.codec != AudioCodec::Aac {
            return Err(TsError::AudioCodec(format.codec));
        }
        let beyond = TsError::Adts { sample_rate: format.sample_rate, channels: format.channels };
        let (object_type, rate_index, channels) = match *format.codec_private {
            [a, b, ..] => (a >> 3, (a & 7) << 1 | b >> 7, b >> 3 & 0xF),
            _ => return Err(beyond),
        };
        // Object types 1 to 4 have two bits here, others (HE-AAC as such) none; the rate is one of a table.
        if !(1..=4).contains(&object_type) || rate_index > 12 || !(1..=7).contains(&channels) {
            return Err(beyond);
        }
        Ok(Self { profile: object_type - 1, rate_index, channels })
    }

    fn frame(&self, data: &[u8]) -> Result<BytesMut, TsError> {
        const HEADER: usize = 7;
        const LIMIT: usize = (1 << 13) - 1 - HEADER;
        let size = u16::try_from(data.len() + HEADER).ok().filter(|_| data.len() <= LIMIT);
        let size = size.ok_or(TsError::LongFrame { found: data.len(), limit: LIMIT })?;
        let [high, low] = size.to_be_bytes();
        let mut out = BytesMut::with_capacity(usize::from(size));
        out.put_slice(&[
            0xFF,
            0xF1, // MPEG-4, no checksum
            self.profile << 6 | self.rate_index << 2 | self.channels >> 2,
            self.channels << 6 | high >> 3,
            high << 5 | low >> 3,
            low << 5 | 0x1F, // buffer fullness: variable rate
            0xFC,
        ]);
        out.put_slice(data);
        Ok(out)
    }
}

/// Packets with the counter of each stream.
struct Packets {
    out: BytesMut,
    video: u8,
    audio: u8,
}

impl Packets {
    fn tables(&mut self, video: Option<VideoCodec>, audio: bool) {
        let mut pat = BytesMut::new();
        pat.put_u16(1); // programme
        pat.put_u16(0xE000 | PMT_PID);
        self.table(PAT_PID, 0, &pat);
        let mut pmt = BytesMut::new();
        pmt.put_u16(0xE000 | if video.is_some() { VIDEO_PID } else { AUDIO_PID }); // carries the clock
        pmt.put_u16(0xF000);
        let mut stream = |kind: u8, pid: u16| {
            pmt.put_u8(kind);
            pmt.put_u16(0xE000 | pid);
            pmt.put_u16(0xF000);
        };
        match video {
            Some(VideoCodec::H264) => stream(0x1B, VIDEO_PID),
            Some(VideoCodec::H265) => stream(0x24, VIDEO_PID),
            None => {}
        }
        if audio {
            stream(0x0F, AUDIO_PID);
        }
        self.table(PMT_PID, 2, &pmt);
    }

    /// A table of programme 1 in one packet.
    fn table(&mut self, pid: u16, table: u8, body: &[u8]) {
        let mut section = BytesMut::new();
        section.put_u8(table);
        let size = u16::try_from(body.len() + 9).expect("a table of at most two streams");
        section.put_u16(0xB000 | size);
        section.put_u16(1); // transport stream or programme
        section.put_slice(&[0xC1, 0, 0]); // version 0, current, the only section
        section.put_slice(body);
        let sum = crc32(&section);
        section.put_u32(sum);
        self.out.put_u8(SYNC);
        self.out.put_u16(0x4000 | pid);
        self.out.put_slice(&[0x10, 0]); // payload only, counter 0; the section begins at once
        self.out.put_slice(&section);
        self.out.put_bytes(0xFF, PACKET - 5 - section.len());
    }

    /// One PES packet. `clock`: this stream carries the programme's clock though it is sound.
    fn pes(&mut self, unit: &Unit, payload: &[u8], clock: bool) {
        let is_video = unit.kind == Kind::Video;
        let (show, decode) = (unit.show_90k & TIME_MASK, unit.decode_90k & TIME_MASK);
        let mut head = BytesMut::with_capacity(19);
        head.put_slice(&[0, 0, 1, if is_video { VIDEO_STREAM } else { AUDIO_STREAM }]);
        let times: usize = if show == decode { 5 } else { 10 };
        // 0: not said, which is allowed for video.
        let size = u16::try_from(3 + times + payload.len()).ok().filter(|_| !is_video);
        head.put_u16(size.unwrap_or(0));
        head.put_slice(&[0x84, if show == decode { 0x80 } else { 0xC0 }]); // aligned
        head.put_u8(if show == decode { 5 } else { 10 });
        put_time(&mut head, if show == decode { 2 } else { 3 }, show);
        if show != decode {
            put_time(&mut head, 1, decode);
        }
        let pid = if is_video { VIDEO_PID } else { AUDIO_PID };
        let whole = [&head[..], payload].concat();
        let mut rest = &whole[..];
        let mut first = true;
        while !rest.is_empty() {
            let with_clock = first && (is_video || clock);
            let adaptation = first.then(|| adaptation_field(unit.key_frame, with_clock.then_some(decode)));
            rest = self.packet(pid, first, adaptation.as_deref().unwrap_or_default(), rest);
            first = false;
        }
    }

    /// Puts as much of `rest` into one packet as it has room for. Returns what is left.
    fn packet<'a>(&mut self, pid: u16, first: bool, adaptation: &[u8], rest: &'a [u8]) -> &'a [u8] {
        let counter = if pid == VIDEO_PID { &mut self.video } else { &mut self.audio };
        let count = *counter & 0x0F;
        *counter = counter.wrapping_add(1);
        let room = PACKET - 4 - adaptation.len();
        let (now, later) = rest.split_at(rest.len().min(room));
        let stuffing = room - now.len();
        self.out.put_u8(SYNC);
        self.out.put_u16(if first { 0x4000 } else { 0 } | pid);
        let has_adaptation = !adaptation.is_empty() || stuffing > 0;
        self.out.put_u8(if has_adaptation { 0x30 } else { 0x10 } | count);
        if has_adaptation {
            // The field's own length, then what it says, then what fills it.
            let length = u8::try_from((adaptation.len() + stuffing).max(1) - 1).expect("inside a packet");
            self.out.put_u8(length);
            if length > 0 {
                self.out.put_u8(adaptation.get(1).copied().unwrap_or(0));
                self.out.put_slice(adaptation.get(2..).unwrap_or_default());
                let written = 1 + adaptation.len().saturating_sub(2);
                self.out.put_bytes(0xFF, usize::from(length) - written);
            }
        }
        self.out.put_slice(now);
        later
    }
}

/// Length (without itself), flags, clock.
fn adaptation_field(random_access: bool, clock_90k: Option<u64>) -> Vec<u8> {
    let flags = if random_access { 0x40 } else { 0 } | if clock_90k.is_some() { 0x10 } else { 0 };
    let mut field = vec![1, flags];
    if let Some(clock) = clock_90k {
        // 33 bits of 1/90000 s, 6 reserved, 9 of 1/27000000 s.
        let clock = (clock & TIME_MASK) << 15 | 0x7E00;
        field.extend(&clock.to_be_bytes()[2..]);
        field[0] = 7;
    }
    field
}

fn put_time(out: &mut BytesMut, prefix: u8, time: u64) {
    let part = |shift: u32, bits: u64| (time >> shift & bits).to_be_bytes();
    out.put_u8(prefix << 4 | part(30, 7)[7] << 1 | 1);
    let [.., high, low] = part(15, 0x7FFF);
    out.put_u16(u16::from_be_bytes([high, low]) << 1 | 1);
    let [.., high, low] = part(0, 0x7FFF);
    out.put_u16(u16::from_be_bytes([high, low]) << 1 | 1);
}

/// CRC-32 of MPEG-2 (ISO/IEC 13818-1 Annex A): not reflected, no final inversion.
fn crc32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| {
            if crc & 0x8000_0000 == 0 { crc << 1 } else { crc << 1 ^ 0x04C1_1DB7 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 640x360 of x264.
    const AVCC: &[u8] = b"\x01\x64\x00\x1e\xff\xe1\x00\x1e\x67\x64\x00\x1e\xac\xd9\x40\xa0\x2f\xf9\x70\x16\xa0\xc0\xc0\xd4\xa0\x00\x00\x03\x00\x20\x00\x00\x07\x91\xe2\xc5\xb2\xc0\x01\x00\x05\x68\xeb\xec\xb2\x2c\xfd\xf8\xf8\x00";

    fn video() -> VideoFormat {
        VideoFormat::from_codec_private(VideoCodec::H264, Bytes::from_static(AVCC)).expect("a record")
    }

    fn unit(kind: Kind, data: Vec<u8>, decode_90k: u64, show_90k: u64) -> Unit {
        Unit { kind, data: data.into(), decode_90k, show_90k, key_frame: decode_90k == 0 }
    }

    fn nal(bytes: usize) -> Vec<u8> {
        let length = u32::try_from(bytes).expect("short").to_be_bytes();
        [&length[..], &vec![0x65; bytes]].concat()
    }

    /// Payload of one PID, with its adaptation fields taken off; checks sync bytes and counters.
    fn payload(stream: &[u8], wanted: u16) -> Vec<Vec<u8>> {
        let (mut units, mut next) = (Vec::<Vec<u8>>::new(), 0);
        assert_eq!(stream.len() % PACKET, 0);
        for packet in stream.chunks(PACKET) {
            assert_eq!(packet[0], SYNC);
            let pid = u16::from_be_bytes([packet[1] & 0x1F, packet[2]]);
            if pid != wanted {
                continue;
            }
            assert_eq!(packet[3] & 0x0F, next);
            next = (next + 1) & 0x0F;
            let at = if packet[3] & 0x20 == 0 { 4 } else { 5 + usize::from(packet[4]) };
            if packet[1] & 0x40 != 0 {
                units.push(Vec::new());
            }
            units.last_mut().expect("begins with a start").extend(&packet[at..]);
        }
        units
    }

    #[test]
    fn every_length_of_a_picture_comes_through() {
        for bytes in 1..600 {
            let units =
                [unit(Kind::Video, nal(bytes), 0, 3_600), unit(Kind::Video, nal(bytes), 3_600, 3_600)];
            let stream = segment(Some(&video()), None, &units).expect("written");
            let found = payload(&stream, VIDEO_PID);
            assert_eq!(found.len(), 2, "{bytes}");
            for pes in &found {
                assert!(pes.ends_with(&[&START_CODE[..], &vec![0x65; bytes]].concat()), "{bytes}");
            }
            assert_eq!(found[0][7], 0xC0, "two times where they differ");
            assert_eq!(found[1][7], 0x80);
            let sets = [&START_CODE[..], &[0x67, 0x64]].concat();
            let has_sets = |pes: &[u8]| pes.windows(6).any(|window| window == sets);
            assert!(has_sets(&found[0]) && !has_sets(&found[1]), "parameter sets before key frames only");
        }
    }

    #[test]
    fn sound_gets_headers_and_what_cannot_be_said_is_refused() {
        let aac = AudioFormat::aac(Bytes::from_static(&[0x14, 0x08])).expect("a config");
        let units = [unit(Kind::Audio, vec![7; 300], 90_000, 90_000)];
        let stream = segment(None, Some(&aac), &units).expect("written");
        let found = payload(&stream, AUDIO_PID);
        let size = 307_u16;
        assert_eq!(found[0][..4], [0, 0, 1, AUDIO_STREAM]);
        assert_eq!(u16::from_be_bytes([found[0][4], found[0][5]]), size + 8);
        let adts = &found[0][14..];
        assert_eq!(adts[..3], [0xFF, 0xF1, 1 << 6 | 8 << 2]);
        assert_eq!(u16::from_be_bytes([adts[3] & 3, adts[4]]) << 3 | u16::from(adts[5] >> 5), size);
        assert_eq!(adts[7..], [7; 300]);
        let long = [unit(Kind::Audio, vec![7; 8_185], 0, 0)];
        assert_eq!(segment(None, Some(&aac), &long), Err(TsError::LongFrame { found: 8_185, limit: 8_184 }));
        let pcm = AudioFormat::pcmu(8_000, 1);
        assert_eq!(segment(None, Some(&pcm), &[]), Err(TsError::AudioCodec(AudioCodec::Pcmu)));
        assert_eq!(segment(None, Some(&aac), &[unit(Kind::Video, nal(5), 0, 0)]), Err(TsError::NoTrack));
        let cut = [unit(Kind::Video, vec![0, 0, 0, 9, 1], 0, 0)];
        assert!(matches!(segment(Some(&video()), None, &cut), Err(TsError::Picture { index: 0, .. })));
    }

    #[test]
    fn times_have_their_marker_bits() {
        let mut out = BytesMut::new();
        put_time(&mut out, 2, TIME_MASK);
        assert_eq!(out[..], [0x2F, 0xFF, 0xFF, 0xFF, 0xFF]);
        out.clear();
        put_time(&mut out, 3, 0);
        assert_eq!(out[..], [0x31, 0, 1, 0, 1]);
    }

    /// The check value of the catalogue of CRC algorithms.
    #[test]
    fn the_sum_is_that_of_mpeg_2() {
        assert_eq!(crc32(b"123456789"), 0x0376_E6E7);
    }
}
