//! Targets of the crate `media`.

use bytes::Bytes;
use media::h264::{self, AvcC};
use media::h265::{self, HvcC};
use media::mkv::elements::{Info, tags, tracks};
use media::mkv::read::{Event, EventKind, Limits, read_all};
use media::mp4::read::Movie;
use media::{AudioFormat, VideoCodec, VideoFormat, nal as nal_units};

/// The first byte says how the rest is cut into pushes: events must be the same as for one push, their raw parts must be the
/// input or, if there is an error, its beginning.
pub(crate) fn mkv_read(data: &[u8]) {
    let Some((&seed, input)) = data.split_first() else { return };
    let input = Bytes::copy_from_slice(input);
    let limits =
        Limits { header_element_bytes: if seed & 0x80 == 0 { 1 << 20 } else { 256 }, block_bytes: 1 << 20 };
    let (events, error) = read_all(limits, [input.clone()]);
    let raw: Vec<u8> = events.iter().flat_map(|event| event.raw.iter().copied()).collect();
    assert!(input.starts_with(&raw), "raw parts are not the input");
    assert!(error.is_some() || raw.len() == input.len(), "input without an event and without an error");

    let length = usize::from(seed & 0x7F) + 1;
    let chunks = (0..input.len()).step_by(length).map(|at| input.slice(at..input.len().min(at + length)));
    let (again, same_error) = read_all(limits, chunks);
    assert_eq!(error, same_error, "another error in chunks of {length}");
    assert_eq!(joined(events), joined(again), "other events in chunks of {length}");
}

/// Initialisation and media in one file. Samples lie in the input, and are no more than it has bytes.
pub(crate) fn fmp4(data: &[u8]) {
    let data = Bytes::copy_from_slice(data);
    let Ok(movie) = Movie::parse(&data) else { return };
    let Ok(samples) = movie.samples(&data) else { return };
    assert!(samples.len() <= data.len(), "{} samples in {} bytes", samples.len(), data.len());
    for sample in &samples {
        assert!(sample.data.is_empty() || data.as_ptr_range().contains(&sample.data.as_ptr()), "a copy");
        assert!(movie.track(sample.track).is_some(), "a sample of an unknown track");
    }
}

/// Adjacent pieces of a skipped element are one, because how it is cut depends on the pushes.
fn joined(events: Vec<Event>) -> Vec<Event> {
    let mut out: Vec<Event> = Vec::new();
    for event in events {
        match (out.last_mut(), &event.kind) {
            (Some(last), EventKind::Skipped { .. }) if last.kind == event.kind => {
                last.raw = [&last.raw[..], &event.raw[..]].concat().into();
            }
            _ => out.push(event),
        }
    }
    out
}

pub(crate) fn mkv_elements(data: &[u8]) {
    let _ = Info::parse(data);
    let _ = tags::parse(data);
    for track in tracks::parse(data).into_iter().flatten() {
        let _ = VideoFormat::from_codec_private(VideoCodec::H264, track.codec_private.clone());
        let _ = AudioFormat::aac(track.codec_private);
    }
}

/// What is split is not longer than the input, and Annex B survives the way to length prefixes and back.
pub(crate) fn nal(data: &[u8]) {
    for length_size in 1..=4 {
        let total: usize = nal_units::length_prefixed(data, length_size).flatten().map(<[u8]>::len).sum();
        assert!(total <= data.len());
    }
    for codec in [VideoCodec::H264, VideoCodec::H265] {
        let _ = nal_units::is_random_access(codec, data);
    }
    let prefixed = nal_units::annexb_to_length_prefixed(data);
    let annexb = nal_units::length_prefixed_to_annexb(&prefixed).expect("our own lengths are right");
    assert!(nal_units::annexb(data).eq(nal_units::annexb(&annexb)));
}

/// A record that is read and written is stable from then on.
pub(crate) fn avcc(data: &[u8]) {
    let record = Bytes::copy_from_slice(data);
    let _ = VideoFormat::from_codec_private(VideoCodec::H264, record.clone()).map(|format| format.rfc6381());
    if let Ok(parsed) = AvcC::parse(&record) {
        assert_eq!(AvcC::parse(&parsed.to_bytes()), Ok(parsed.clone()));
        let _ = AvcC::from_parameter_sets(&parsed.sps, &parsed.pps);
    }
}

/// A record that is read and written is stable from then on.
pub(crate) fn hvcc(data: &[u8]) {
    let record = Bytes::copy_from_slice(data);
    let _ = VideoFormat::from_codec_private(VideoCodec::H265, record.clone()).map(|format| format.rfc6381());
    if let Ok(parsed) = HvcC::parse(&record) {
        assert_eq!(HvcC::parse(&parsed.to_bytes()), Ok(parsed.clone()));
        let sps: Vec<&Bytes> = parsed.sps().collect();
        let _ = HvcC::from_parameter_sets(&sps, &sps, &sps);
    }
}

pub(crate) fn sps_h264(data: &[u8]) {
    if let Ok(sps) = h264::Sps::parse(data) {
        assert!(sps.width > 0 && sps.height > 0);
        assert!(sps.frame_rate.is_none_or(|rate| rate.is_finite() && rate > 0.0));
    }
}

pub(crate) fn sps_h265(data: &[u8]) {
    if let Ok(sps) = h265::Sps::parse(data) {
        assert!(sps.width > 0 && sps.height > 0);
        assert!(sps.frame_rate.is_none_or(|rate| rate.is_finite() && rate > 0.0));
    }
}
