//! Reads initialisation segments and media segments of others. Payloads share the memory of the segment.
//!
//! Every size and count is held against the bytes that are there before anything is made for it.

use std::sync::Arc;

use bytes::Bytes;

use super::boxes::{BoxError, Boxes, Fields, Found, FourCc};
use crate::mkv::elements::TrackFormat;
use crate::{AudioFormat, FormatError, VideoCodec, VideoFormat};

/// Why a segment is not what this reader accepts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mp4Error {
    #[error(transparent)]
    Box(#[from] BoxError),
    #[error("no {kind} in {within}")]
    Missing { kind: FourCc, within: &'static str },
    #[error("track {track}: {source}")]
    Format { track: u32, source: FormatError },
    #[error("track {track} counts 0 ticks per second")]
    Timescale { track: u32 },
    #[error("a fragment of track {track}, the initialisation segment has {known:?}")]
    UnknownTrack { track: u32, known: Vec<u32> },
    #[error("track {track}: {claims} samples in a segment of {bytes} bytes")]
    TooManySamples { track: u32, claims: u32, bytes: usize },
    #[error("track {track}, sample {index}: bytes {at} to {end} of a segment of {bytes} bytes")]
    SampleOutside { track: u32, index: usize, at: i64, end: i64, bytes: usize },
    #[error("track {track}: times beyond the range of 64 bits")]
    Time { track: u32 },
    #[error("descriptors of track {track}: {found} bytes, cut off or without an AudioSpecificConfig")]
    Descriptors { track: u32, found: usize },
}

/// The tracks of an initialisation segment.
#[derive(Clone, Debug, PartialEq)]
pub struct Movie {
    pub tracks: Vec<MovieTrack>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct MovieTrack {
    pub id: u32,
    /// Ticks per second.
    pub timescale: u32,
    pub format: MovieFormat,
    defaults: Defaults,
}

/// How to decode a track.
#[derive(Clone, Debug, PartialEq)]
pub enum MovieFormat {
    Known(TrackFormat),
    /// Coded in a way that is not known here.
    Other(FourCc),
}

/// What a sample has unless its run says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Defaults {
    duration: u32,
    size: u32,
    flags: u32,
}

/// One coded picture or audio frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    pub track: u32,
    pub data: Bytes,
    /// Ticks of the track's timescale.
    pub decode_time: u64,
    pub duration: u32,
    /// When it is shown, ticks; before the zero of the timeline it is negative.
    pub time: i64,
    pub key_frame: bool,
}

impl Movie {
    /// Reads an initialisation segment, or the first boxes of a file that has one in front.
    pub fn parse(data: &Bytes) -> Result<Movie, Mp4Error> {
        let moov = find(Boxes::all(data), b"moov", "the initialisation segment")?;
        let (mut tracks, mut defaults) = (Vec::new(), Vec::new());
        for child in moov.children(data) {
            let child = child?;
            if child.is(b"trak") {
                tracks.push(track(child, data)?);
            } else if child.is(b"mvex") {
                for child in child.children(data) {
                    let child = child?;
                    if child.is(b"trex") {
                        defaults.push(trex(child, data)?);
                    }
                }
            }
        }
        for track in &mut tracks {
            if let Some((_, found)) = defaults.iter().find(|(id, _)| *id == track.id) {
                track.defaults = *found;
            }
        }
        Ok(Movie { tracks })
    }

    pub fn track(&self, id: u32) -> Option<&MovieTrack> {
        self.tracks.iter().find(|track| track.id == id)
    }

    /// The samples of a media segment, run by run, in decoding order. Other boxes are passed over.
    pub fn samples(&self, data: &Bytes) -> Result<Vec<Sample>, Mp4Error> {
        let mut samples = Vec::new();
        let mut found_any = false;
        for found in Boxes::all(data) {
            let moof = found?;
            if moof.is(b"moof") {
                found_any = true;
                for child in moof.children(data) {
                    let child = child?;
                    if child.is(b"traf") {
                        self.fragment(moof.at, child, data, &mut samples)?;
                    }
                }
            }
        }
        if found_any { Ok(samples) } else { Err(missing(b"moof", "the media segment")) }
    }

    fn fragment(
        &self,
        moof_at: usize,
        traf: Found,
        data: &Bytes,
        samples: &mut Vec<Sample>,
    ) -> Result<(), Mp4Error> {
        let header = find(traf.children(data), b"tfhd", "a track fragment")?;
        let mut fields = header.fields(data);
        let (_, flags) = fields.version_and_flags()?;
        let id = fields.u32()?;
        let track = self.track(id).ok_or_else(|| Mp4Error::UnknownTrack {
            track: id,
            known: self.tracks.iter().map(|track| track.id).collect(),
        })?;
        let mut defaults = track.defaults;
        let base = if flags & 0x01 != 0 { fields.u64()? } else { moof_at as u64 };
        let mut optional = |bit: u32, value: &mut u32| -> Result<(), BoxError> {
            if flags & bit != 0 {
                *value = fields.u32()?;
            }
            Ok(())
        };
        optional(0x02, &mut 0)?; // sample description: there is one
        optional(0x08, &mut defaults.duration)?;
        optional(0x10, &mut defaults.size)?;
        optional(0x20, &mut defaults.flags)?;
        let mut place = Place { at: i64::try_from(base).unwrap_or(i64::MAX), time: 0 };
        for child in traf.children(data) {
            let child = child?;
            let mut fields = child.fields(data);
            if child.is(b"tfdt") {
                let (version, _) = fields.version_and_flags()?;
                place.time = if version == 0 { fields.u32()?.into() } else { fields.u64()? };
            } else if child.is(b"trun") {
                run(id, base, defaults, fields, data, &mut place, samples)?;
            }
        }
        Ok(())
    }
}

/// Where the next sample lies, and when it is decoded.
struct Place {
    at: i64,
    time: u64,
}

fn run(
    track: u32,
    base: u64,
    defaults: Defaults,
    mut fields: Fields<'_>,
    data: &Bytes,
    place: &mut Place,
    samples: &mut Vec<Sample>,
) -> Result<(), Mp4Error> {
    let (version, flags) = fields.version_and_flags()?;
    let has = |bit: u32| flags & bit != 0;
    let count = fields.u32()?;
    if has(0x01) {
        let offset = i64::from(fields.u32()?.cast_signed());
        place.at = i64::try_from(base).unwrap_or(i64::MAX).saturating_add(offset);
    }
    let first_flags = if has(0x04) { Some(fields.u32()?) } else { None };
    // A sample without a byte of its own, neither here nor in the media, is none.
    if count as usize > data.len() {
        return Err(Mp4Error::TooManySamples { track, claims: count, bytes: data.len() });
    }
    for index in 0..count as usize {
        let duration = if has(0x100) { fields.u32()? } else { defaults.duration };
        let size = if has(0x200) { fields.u32()? } else { defaults.size };
        let own = if has(0x400) { fields.u32()? } else { defaults.flags };
        let flags = first_flags.filter(|_| index == 0).unwrap_or(own);
        let offset = match (has(0x800), version) {
            (false, _) => 0,
            (true, 0) => i64::from(fields.u32()?),
            (true, _) => i64::from(fields.u32()?.cast_signed()),
        };
        let (at, end) = (place.at, place.at.saturating_add(size.into()));
        let outside = Mp4Error::SampleOutside { track, index, at, end, bytes: data.len() };
        let range = match (usize::try_from(at), usize::try_from(end)) {
            (Ok(at), Ok(end)) if end <= data.len() => at..end,
            _ => return Err(outside),
        };
        let time = i64::try_from(place.time).ok().and_then(|time| time.checked_add(offset));
        samples.push(Sample {
            track,
            data: data.slice(range),
            decode_time: place.time,
            duration,
            time: time.ok_or(Mp4Error::Time { track })?,
            key_frame: flags & 0x0001_0000 == 0,
        });
        place.at = end;
        place.time = place.time.checked_add(duration.into()).ok_or(Mp4Error::Time { track })?;
    }
    Ok(())
}

fn missing(kind: &[u8; 4], within: &'static str) -> Mp4Error {
    Mp4Error::Missing { kind: FourCc(*kind), within }
}

fn find(boxes: Boxes<'_>, kind: &[u8; 4], within: &'static str) -> Result<Found, Mp4Error> {
    for found in boxes {
        let found = found?;
        if found.is(kind) {
            return Ok(found);
        }
    }
    Err(missing(kind, within))
}

fn trex(trex: Found, data: &Bytes) -> Result<(u32, Defaults), Mp4Error> {
    let mut fields = trex.fields(data);
    fields.skip(4)?;
    let id = fields.u32()?;
    fields.skip(4)?;
    Ok((id, Defaults { duration: fields.u32()?, size: fields.u32()?, flags: fields.u32()? }))
}

fn track(trak: Found, data: &Bytes) -> Result<MovieTrack, Mp4Error> {
    const WITHIN: &str = "a track";
    let mut header = find(trak.children(data), b"tkhd", WITHIN)?.fields(data);
    let (version, _) = header.version_and_flags()?;
    header.skip(if version == 0 { 8 } else { 16 })?;
    let id = header.u32()?;
    let media = find(trak.children(data), b"mdia", WITHIN)?;
    let mut header = find(media.children(data), b"mdhd", WITHIN)?.fields(data);
    let (version, _) = header.version_and_flags()?;
    header.skip(if version == 0 { 8 } else { 16 })?;
    let timescale = header.u32()?;
    if timescale == 0 {
        return Err(Mp4Error::Timescale { track: id });
    }
    let info = find(media.children(data), b"minf", WITHIN)?;
    let table = find(info.children(data), b"stbl", WITHIN)?;
    let descriptions = find(table.children(data), b"stsd", WITHIN)?;
    let mut fields = descriptions.fields(data);
    fields.skip(8)?;
    let mut entries = Boxes::rest_of(descriptions, fields.position(), data);
    let entry = entries.next().ok_or_else(|| missing(b"stsd", WITHIN))??;
    let format = sample_entry(id, timescale, entry, data)?;
    Ok(MovieTrack { id, timescale, format, defaults: Defaults::default() })
}

fn sample_entry(id: u32, timescale: u32, entry: Found, data: &Bytes) -> Result<MovieFormat, Mp4Error> {
    let wrong = |source| Mp4Error::Format { track: id, source };
    let known = |format| Ok(MovieFormat::Known(format));
    let mut fields = entry.fields(data);
    match &entry.kind.0 {
        b"avc1" | b"avc3" | b"hvc1" | b"hev1" => {
            fields.skip(78)?;
            let (codec, record) = match &entry.kind.0 {
                b"avc1" | b"avc3" => (VideoCodec::H264, b"avcC"),
                _ => (VideoCodec::H265, b"hvcC"),
            };
            let record = find(Boxes::rest_of(entry, fields.position(), data), record, "a sample entry")?;
            let record = record.fields(data).rest();
            known(TrackFormat::Video(VideoFormat::from_codec_private(codec, record).map_err(wrong)?))
        }
        b"mp4a" | b"ulaw" | b"alaw" => {
            fields.skip(8 + 8)?;
            let channels = fields.u16()?;
            fields.skip(10)?;
            let format = match &entry.kind.0 {
                b"ulaw" => AudioFormat::pcmu(timescale, channels),
                b"alaw" => AudioFormat::pcma(timescale, channels),
                _ => {
                    let rest = Boxes::rest_of(entry, fields.position(), data);
                    let mut esds = find(rest, b"esds", "a sample entry")?.fields(data);
                    esds.skip(4)?;
                    let descriptors = esds.rest();
                    let config = audio_specific_config(&descriptors)
                        .ok_or(Mp4Error::Descriptors { track: id, found: descriptors.len() })?;
                    AudioFormat::aac(config).map_err(wrong)?
                }
            };
            known(TrackFormat::Audio(format))
        }
        _ => Ok(MovieFormat::Other(entry.kind)),
    }
}

/// Walks from ES_Descriptor over DecoderConfigDescriptor to DecoderSpecificInfo (ISO/IEC 14496-1 7.2.6).
fn audio_specific_config(descriptors: &Bytes) -> Option<Bytes> {
    let (tag, es) = first_descriptor(descriptors)?;
    let flags = *es.get(2).filter(|_| tag == 3)?;
    let mut at = 3;
    if flags & 0x80 != 0 {
        at += 2;
    }
    if flags & 0x40 != 0 {
        at += 1 + usize::from(*es.get(at)?);
    }
    if flags & 0x20 != 0 {
        at += 2;
    }
    let (tag, config) = first_descriptor(&tail(&es, at)?)?;
    let (specific, found) = first_descriptor(&tail(&config, 13).filter(|_| tag == 4)?)?;
    Some(found).filter(|_| specific == 5)
}

fn tail(bytes: &Bytes, at: usize) -> Option<Bytes> {
    (at <= bytes.len()).then(|| bytes.slice(at..))
}

/// Tag and body.
fn first_descriptor(bytes: &Bytes) -> Option<(u8, Bytes)> {
    let tag = *bytes.first()?;
    let (mut size, mut at) = (0, 1);
    loop {
        let byte = *bytes.get(at).filter(|_| at <= 4)?;
        size = size << 7 | usize::from(byte & 0x7F);
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let body = tail(bytes, at)?;
    (size <= body.len()).then(|| (tag, body.slice(..size)))
}

/// The formats of the first video and the first audio track, by address, so that consumers can compare them.
#[derive(Clone, Debug, Default)]
pub struct Formats {
    pub video: Option<(u32, Arc<VideoFormat>)>,
    pub audio: Option<(u32, Arc<AudioFormat>)>,
}

impl Movie {
    pub fn formats(&self) -> Formats {
        let mut formats = Formats::default();
        for track in &self.tracks {
            match &track.format {
                MovieFormat::Known(TrackFormat::Video(format)) if formats.video.is_none() => {
                    formats.video = Some((track.id, Arc::new(format.clone())));
                }
                MovieFormat::Known(TrackFormat::Audio(format)) if formats.audio.is_none() => {
                    formats.audio = Some((track.id, Arc::new(format.clone())));
                }
                _ => {}
            }
        }
        formats
    }
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};
    use proptest::prelude::*;

    use super::*;
    use crate::mp4::boxes::{put_box, put_full_box};
    use crate::mp4::write::{self, Run, Track, init_segment, media_segment};

    /// 640x360 of x264.
    const AVCC: &[u8] = b"\x01\x64\x00\x1e\xff\xe1\x00\x1e\x67\x64\x00\x1e\xac\xd9\x40\xa0\x2f\xf9\x70\x16\xa0\xc0\xc0\xd4\xa0\x00\x00\x03\x00\x20\x00\x00\x07\x91\xe2\xc5\xb2\xc0\x01\x00\x05\x68\xeb\xec\xb2\x2c\xfd\xf8\xf8\x00";

    fn video() -> TrackFormat {
        let record = Bytes::from_static(AVCC);
        TrackFormat::Video(VideoFormat::from_codec_private(VideoCodec::H264, record).expect("a record"))
    }

    fn aac() -> TrackFormat {
        TrackFormat::Audio(AudioFormat::aac(Bytes::from_static(&[0x14, 0x08])).expect("a config"))
    }

    fn tracks() -> Vec<Track> {
        vec![
            Track { id: 1, format: video() },
            Track { id: 2, format: aac() },
            Track { id: 3, format: TrackFormat::Audio(AudioFormat::pcmu(8_000, 1)) },
            Track { id: 4, format: TrackFormat::Audio(AudioFormat::pcma(16_000, 2)) },
        ]
    }

    fn joined(parts: &[Bytes]) -> Bytes {
        parts.concat().into()
    }

    fn sample(data: &'static [u8], duration: u32, composition_offset: i32, key_frame: bool) -> write::Sample {
        write::Sample { data: Bytes::from_static(data), duration, composition_offset, key_frame }
    }

    fn segment() -> Bytes {
        let pictures = vec![
            sample(b"key frame", 40, 40, true),
            sample(b"p", 40, 80, false),
            sample(b"b-pic", 41, -40, false),
        ];
        let sound = vec![sample(b"aac", 1_024, 0, true), sample(b"", 1_024, 0, true)];
        joined(&media_segment(
            7,
            &[
                Run { track: 1, decode_time: 1_795_186_073_633, samples: pictures },
                Run { track: 2, decode_time: 28_722_977_178_128, samples: sound },
                Run { track: 3, decode_time: 5, samples: Vec::new() },
            ],
        ))
    }

    #[test]
    fn what_is_written_is_read_back() {
        let movie = Movie::parse(&init_segment(&tracks())).expect("ours");
        let found: Vec<_> =
            movie.tracks.iter().map(|track| (track.id, track.timescale, track.format.clone())).collect();
        let expected: Vec<_> = tracks()
            .into_iter()
            .map(|track| (track.id, track.timescale(), MovieFormat::Known(track.format)))
            .collect();
        assert_eq!(found, expected);

        let found = movie.samples(&segment()).expect("ours");
        let of = |sample: &Sample| {
            let Sample { track, data, decode_time, duration, time, key_frame } = sample.clone();
            (track, data, decode_time, duration, time, key_frame)
        };
        let (t0, s0) = (1_795_186_073_633_u64, 28_722_977_178_128_u64);
        let expected = [
            (1, &b"key frame"[..], t0, 40, 1_795_186_073_673, true),
            (1, b"p", t0 + 40, 40, 1_795_186_073_753, false),
            (1, b"b-pic", t0 + 80, 41, 1_795_186_073_673, false),
            (2, b"aac", s0, 1_024, 28_722_977_178_128, true),
            (2, b"", s0 + 1_024, 1_024, 28_722_977_179_152, true),
        ];
        let expected: Vec<_> = expected
            .map(|(track, data, at, duration, time, key)| (track, Bytes::from(data), at, duration, time, key))
            .into();
        assert_eq!(found.iter().map(of).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn payloads_are_neither_copied_by_the_writer_nor_by_the_reader() {
        let data = Bytes::from(vec![9; 5_000]);
        let samples =
            vec![write::Sample { data: data.clone(), duration: 1, composition_offset: 0, key_frame: true }];
        let parts = media_segment(1, &[Run { track: 1, decode_time: 0, samples }]);
        assert_eq!(parts[1].as_ptr(), data.as_ptr());
        let whole = joined(&parts);
        let movie = Movie::parse(&init_segment(&tracks())).expect("ours");
        let read = movie.samples(&whole).expect("ours");
        assert!(whole.as_ptr_range().contains(&read[0].data.as_ptr()));
    }

    /// As others write them: defaults in trex and tfhd, the first sample's flags apart, an absolute base, offsets of
    /// version 0, a tfdt of 32 bits, two runs, boxes that say nothing here.
    #[test]
    fn the_forms_of_other_writers_are_read() {
        let movie = Movie::parse(&init_segment(&tracks())).expect("ours");
        let mut out = BytesMut::new();
        put_box(&mut out, b"free", |out| out.put_slice(b"............"));
        put_box(&mut out, b"moof", |out| {
            put_full_box(out, b"mfhd", 0, 0, |out| out.put_u32(1));
            put_box(out, b"traf", |out| {
                put_full_box(out, b"tfhd", 0, 0x01 | 0x02 | 0x08 | 0x10 | 0x20, |out| {
                    out.put_u32(1); // track
                    out.put_slice(b"<offset>");
                    out.put_u32(1); // description
                    out.put_u32(33);
                    out.put_u32(2);
                    out.put_u32(0x0101_0000);
                });
                put_full_box(out, b"tfdt", 0, 0, |out| out.put_u32(1_000));
                put_full_box(out, b"trun", 0, 0x01 | 0x04, |out| {
                    out.put_u32(2);
                    out.put_u32(0);
                    out.put_u32(0x0200_0000);
                });
                put_full_box(out, b"trun", 0, 0x800, |out| {
                    out.put_u32(1);
                    out.put_u32(66);
                });
            });
        });
        put_box(&mut out, b"mdat", |out| out.put_slice(b"aabbcc"));
        let find = |text: &[u8]| out.windows(text.len()).position(|window| window == text).expect("there");
        let (at, media) = (find(b"<offset>"), find(b"aabbcc") as u64);
        let mut data = out.to_vec();
        data[at..at + 8].copy_from_slice(&media.to_be_bytes());
        let found = movie.samples(&data.into()).expect("well formed");
        let found: Vec<_> = found
            .iter()
            .map(|sample| (&sample.data[..], sample.decode_time, sample.time, sample.key_frame))
            .collect();
        let expected =
            [(&b"aa"[..], 1_000, 1_000, true), (b"bb", 1_033, 1_033, false), (b"cc", 1_066, 1_132, false)];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_does_not_fit_is_an_error_that_says_where() {
        let movie = Movie::parse(&init_segment(&tracks()[..1])).expect("ours");
        let segment = segment();
        let error = movie.samples(&segment).expect_err("tracks 2 and 3 are not there");
        assert_eq!(error, Mp4Error::UnknownTrack { track: 2, known: vec![1] });
        assert_eq!(
            movie.samples(&Bytes::new()).expect_err("empty").to_string(),
            "no moof in the media segment"
        );
        let error = Movie::parse(&segment).expect_err("no movie");
        assert_eq!(error.to_string(), "no moov in the initialisation segment");
        let all = Movie::parse(&init_segment(&tracks())).expect("ours");
        let cut = all.samples(&segment.slice(..segment.len() - 1)).expect_err("cut");
        assert!(
            matches!(cut, Mp4Error::SampleOutside { track: 2, index: 0, .. } | Mp4Error::Box(_)),
            "{cut}"
        );
        let at = segment.windows(4).position(|window| window == b"trun").expect("there") + 8;
        let mut many = segment.to_vec();
        many[at..at + 4].copy_from_slice(&u32::MAX.to_be_bytes());
        let error = all.samples(&many.into()).expect_err("too many");
        assert_eq!(error, Mp4Error::TooManySamples { track: 1, claims: u32::MAX, bytes: segment.len() });
    }

    proptest! {
        #[test]
        fn nothing_that_was_damaged_panics(at in 0_usize..2_000, byte: u8, cut in 0_usize..2_000) {
            let (init, segment) = (init_segment(&tracks()), segment());
            let damaged = |data: &Bytes| {
                let mut data = data.to_vec();
                let length = data.len();
                data[at % length] = byte;
                data.truncate(cut.max(1));
                Bytes::from(data)
            };
            let movie = Movie::parse(&init).expect("ours");
            let _ = movie.samples(&damaged(&segment));
            if let Ok(movie) = Movie::parse(&damaged(&init)) {
                let _ = movie.samples(&segment);
            }
        }
    }
}
