//! The access units of a stream out of its chunks, as a [`media::UnitSource`] hands them on.
//!
//! ```text
//!  chunk::Event --> Start: tracks, number, times   Block: picture or sound   End: cut or whole
//!                      |                              |                         |
//!                      +--> AudioTrack, NewTimeline   +--> Video, Audio         +--> Break
//! ```
//!
//! The first H.264 or H.265 track and the first audio track that is understood are taken, other tracks are passed over; a
//! payload is passed on, never copied.
//! Pictures begin at a random access point, at the start and after each break. Times are the producer's: where a stream
//! has relative timecodes, the chunk's own tag says where its cluster lies.

use std::collections::VecDeque;
use std::sync::Arc;

use media::mkv::elements::{TrackFormat, TrackInfo};
use media::{AccessUnit, AudioFormat, AudioFrame, Feed, FormatError, ProducerTimestamp, VideoFormat};

use super::chunk::{Block, Chunk, ChunkStart, Event};
use crate::FragmentNumber;

/// Track type of Matroska.
const VIDEO: u8 = 1;
/// Lengths of NAL units in an access unit (see [`AccessUnit::data`]).
pub(super) const NAL_LENGTH_BYTES: u8 = 4;

/// The fragment that an item came from, in the words of KVS. What it does not say is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    pub number: Option<FragmentNumber>,
    /// When KVS had received the fragment.
    pub server_timestamp_ms: Option<u64>,
    /// When the fragment begins by the producer's clock.
    pub producer_timestamp_ms: Option<u64>,
}

/// Why a track cannot be handed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrackError {
    #[error("track {track}: {source}")]
    Format { track: u64, source: FormatError },
    #[error("track {track}: NAL units behind lengths of {found} bytes, expected {NAL_LENGTH_BYTES}")]
    NalLength { track: u64, found: u8 },
    #[error("no H.264 or H.265 track, found {found:?}")]
    NoVideo { found: Vec<String> },
}

/// Turns the events of one answer into items.
#[derive(Debug, Default)]
pub struct Units {
    ready: VecDeque<(Feed, Origin)>,
    tracks: Option<Arc<Vec<TrackInfo>>>,
    video: Option<(u64, Arc<VideoFormat>)>,
    audio: Option<(u64, Arc<AudioFormat>)>,
    origin: Origin,
    /// Begin of the newest chunk, in producer time.
    newest_ms: Option<i64>,
    /// The chunk is one that was handed on already.
    again: bool,
    /// The chunk has begun, and none of its blocks came yet.
    fresh: bool,
    /// Pictures may follow what came before.
    flows: bool,
}

impl Units {
    /// Takes the next event of the answer; failures in it are the reader's.
    pub fn take(&mut self, event: Event) -> Result<(), TrackError> {
        match event {
            Event::Start(start) => self.start(&start),
            Event::Block(block) => {
                self.block(block);
                Ok(())
            }
            Event::End(chunk) => {
                self.end_chunk(&chunk);
                Ok(())
            }
            Event::Failure(_) => Ok(()),
        }
    }

    /// The chunk that was cut comes again: whoever calls leaves out what of it was taken, and pictures go on behind that.
    pub fn again(&mut self) {
        (self.origin.number, self.newest_ms) = (None, None);
    }

    /// Nothing more comes, for now or for good.
    pub fn interrupt(&mut self) {
        if std::mem::take(&mut self.flows) {
            self.ready.push_back((Feed::Break, self.origin));
        }
    }

    /// The next item, and the fragment that it is from.
    pub fn next_item(&mut self) -> Option<(Feed, Origin)> {
        self.ready.pop_front()
    }

    fn start(&mut self, start: &ChunkStart) -> Result<(), TrackError> {
        let origin = Origin {
            number: start.number,
            server_timestamp_ms: start.server_timestamp_ms,
            producer_timestamp_ms: start.producer_timestamp_ms,
        };
        self.again = origin.number.is_some() && origin.number == self.origin.number;
        (self.origin, self.fresh) = (origin, true);
        if self.tracks.as_deref() != Some(&*start.tracks) {
            self.read_tracks(&start.tracks)?;
            self.tracks = Some(start.tracks.clone());
        }
        Ok(())
    }

    fn read_tracks(&mut self, tracks: &[TrackInfo]) -> Result<(), TrackError> {
        let (mut video, mut audio) = (None, None);
        for track in tracks {
            let number = track.number;
            match track.format() {
                Ok(Some(TrackFormat::Video(format))) if video.is_none() => video = Some((number, format)),
                Ok(Some(TrackFormat::Audio(format))) if audio.is_none() => audio = Some((number, format)),
                Err(source) if track.kind == VIDEO => {
                    return Err(TrackError::Format { track: number, source });
                }
                Ok(_) | Err(_) => {}
            }
        }
        let Some((number, format)) = video else {
            let found = tracks.iter().map(|track| track.codec_id.clone()).collect();
            return Err(TrackError::NoVideo { found });
        };
        let found = format.nal_length_size();
        if found != NAL_LENGTH_BYTES {
            return Err(TrackError::NalLength { track: number, found });
        }
        self.video = Some((number, kept(self.video.take(), format)));
        let before = self.audio.take();
        self.audio = audio.map(|(number, format)| (number, kept(before.clone(), format)));
        let is_new = |(_, format): &&(u64, Arc<AudioFormat>)| {
            before.as_ref().is_none_or(|(_, before)| !Arc::ptr_eq(before, format))
        };
        if let Some((_, format)) = self.audio.as_ref().filter(is_new) {
            self.ready.push_back((Feed::AudioTrack(format.clone()), self.origin));
        }
        Ok(())
    }

    fn block(&mut self, block: Block) {
        if self.again {
            return;
        }
        let cluster_ms = i64::try_from(block.cluster_ms).unwrap_or(i64::MAX);
        let begin_ms =
            self.origin.producer_timestamp_ms.map_or(cluster_ms, |ms| i64::try_from(ms).unwrap_or(i64::MAX));
        if std::mem::take(&mut self.fresh) {
            let before = self.newest_ms.replace(begin_ms);
            if before.is_some_and(|before| begin_ms <= before) {
                self.flows = false;
                self.ready.push_back((Feed::NewTimeline, self.origin));
            }
        }
        let at_ms = block.time_ms.saturating_sub(cluster_ms).saturating_add(begin_ms);
        let timestamp = ProducerTimestamp::from_millis(u64::try_from(at_ms).unwrap_or(0));
        let item = match (&self.video, &self.audio) {
            (Some((number, format)), _) if *number == block.track => {
                self.flows |= block.key_frame;
                if !self.flows {
                    return;
                }
                let (data, random_access, format) = (block.payload, block.key_frame, format.clone());
                Feed::Video(AccessUnit { data, timestamp, random_access, format })
            }
            (_, Some((number, format))) if *number == block.track => {
                Feed::Audio(AudioFrame { data: block.payload, timestamp, format: format.clone() })
            }
            _ => return,
        };
        self.ready.push_back((item, self.origin));
    }

    fn end_chunk(&mut self, chunk: &Chunk) {
        if !chunk.complete {
            self.interrupt();
        }
    }
}

/// The format as it was held before, where it is the same: consumers compare by address.
pub(super) fn kept<F: PartialEq>(before: Option<(u64, Arc<F>)>, format: F) -> Arc<F> {
    before.map(|(_, before)| before).filter(|before| **before == format).unwrap_or_else(|| Arc::new(format))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::testing::bare_chunk;

    const T0: u64 = 1_795_186_073_000;
    /// 640x360 of x264: avcC with one SPS and one PPS.
    const AVCC: &[u8] = b"\x01\x64\x00\x1e\xff\xe1\x00\x1e\x67\x64\x00\x1e\xac\xd9\x40\xa0\x2f\xf9\x70\x16\xa0\xc0\xc0\xd4\xa0\x00\x00\x03\x00\x20\x00\x00\x07\x91\xe2\xc5\xb2\xc0\x01\x00\x05\x68\xeb\xec\xb2\x2c\xfd\xf8\xf8\x00";

    fn track(number: u64, kind: u8, codec_id: &str, codec_private: &'static [u8]) -> TrackInfo {
        TrackInfo {
            number,
            uid: number,
            kind,
            name: String::new(),
            codec_id: codec_id.to_owned(),
            codec_private: Bytes::from_static(codec_private),
            width: 640,
            height: 360,
            sample_rate: 0.0,
            channels: 0,
        }
    }

    fn video() -> TrackInfo {
        track(1, VIDEO, "V_MPEG4/ISO/AVC", AVCC)
    }

    fn start(n: u64, producer_ms: Option<u64>, tracks: Vec<TrackInfo>) -> Event {
        Event::Start(ChunkStart {
            number: Some(FragmentNumber::new(n, T0, 1)),
            server_timestamp_ms: Some(T0 + 500),
            producer_timestamp_ms: producer_ms,
            tracks: Arc::new(tracks),
        })
    }

    fn block(track: u64, cluster_ms: u64, time_ms: u64, key_frame: bool) -> Event {
        let time_ms = time_ms.cast_signed();
        Event::Block(Block { track, cluster_ms, time_ms, key_frame, payload: Bytes::from_static(&[0; 5]) })
    }

    fn end(complete: bool) -> Event {
        let Event::Start(start) = start(1, None, vec![]) else { unreachable!("it makes one") };
        Event::End(bare_chunk(start, complete))
    }

    /// The items in short: pictures with times behind `T0` and K for a random access point.
    #[track_caller]
    fn check(events: Vec<Event>, expected: &[&str]) {
        let mut units = Units::default();
        events.into_iter().for_each(|event| units.take(event).expect("it is understood"));
        let items = std::iter::from_fn(|| units.next_item());
        let items: Vec<_> = items
            .map(|(item, _)| match item {
                Feed::Video(unit) => {
                    let key = if unit.random_access { "K" } else { "" };
                    format!("{key}{}", unit.timestamp.as_millis() - T0)
                }
                Feed::Audio(frame) => format!("a{}", frame.timestamp.as_millis() - T0),
                Feed::AudioTrack(format) => format!("{:?}", format.codec),
                Feed::Break => "break".to_owned(),
                Feed::NewTimeline => "new".to_owned(),
            })
            .collect();
        assert_eq!(items, expected);
    }

    #[test]
    fn times_are_the_producers_also_where_timecodes_are_relative() {
        let absolute =
            [start(1, Some(T0), vec![video()]), block(1, T0, T0, true), block(1, T0, T0 + 40, false)];
        check(absolute.into(), &["K0", "40"]);
        let relative = [
            start(1, Some(T0 + 7), vec![video()]),
            block(1, 2_000, 2_000, true),
            block(1, 2_000, 2_040, false),
        ];
        check(relative.into(), &["K7", "47"]);
        check(vec![start(1, None, vec![video()]), block(1, T0, T0 + 3, true)], &["K3"]);
    }

    #[test]
    fn pictures_begin_at_a_random_access_point_at_the_start_and_behind_what_was_cut() {
        let events = vec![
            start(1, None, vec![video()]),
            block(1, T0, T0, false),
            block(1, T0, T0 + 40, true),
            end(true),
            start(2, None, vec![video()]),
            block(1, T0 + 80, T0 + 80, false),
            end(false),
            start(3, None, vec![video()]),
            block(1, T0 + 120, T0 + 120, false),
            block(1, T0 + 120, T0 + 160, true),
        ];
        check(events, &["K40", "80", "break", "K160"]);
    }

    #[test]
    fn time_that_goes_back_is_a_new_timeline_and_a_fragment_that_comes_twice_is_left_out() {
        let events = vec![
            start(1, None, vec![video()]),
            block(1, T0 + 5_000, T0 + 5_000, true),
            start(1, None, vec![video()]),
            block(1, T0 + 5_000, T0 + 5_000, true),
            start(2, None, vec![video()]),
            block(1, T0, T0, true),
        ];
        check(events, &["K5000", "new", "K0"]);
    }

    #[test]
    fn the_first_tracks_that_are_understood_are_taken_and_told_once() {
        let pcmu = b"\x07\0\x01\0\x40\x1f\0\0\x40\x1f\0\0\x01\0\x08\0\0\0";
        let tracks = || {
            let other = track(2, 2, "A_OPUS", b"");
            let sound = track(3, 2, "A_MS/ACM", pcmu);
            vec![video(), other, track(4, 2, "A_MS/ACM", b"\x07\0"), sound]
        };
        let events = vec![
            start(1, None, tracks()),
            block(1, T0, T0, true),
            block(2, T0, T0 + 10, true),
            block(3, T0, T0 + 20, true),
            start(2, None, tracks()),
            block(3, T0 + 1_000, T0 + 1_000, true),
        ];
        check(events, &["Pcmu", "K0", "a20", "a1000"]);
    }

    #[test]
    fn a_stream_whose_pictures_are_not_understood_says_why() {
        let refused =
            |tracks: Vec<TrackInfo>| Units::default().take(start(1, None, tracks)).expect_err("refused");
        let error = refused(vec![track(1, VIDEO, "V_VP9", b"")]).to_string();
        assert!(error.contains("V_VP9"), "{error}");
        let error = refused(vec![track(1, VIDEO, "V_MPEG4/ISO/AVC", b"\x01")]).to_string();
        assert!(error.starts_with("track 1: avcC"), "{error}");
        let mut short: Vec<u8> = AVCC.to_vec();
        short[4] = 0xfd;
        let short = TrackInfo { codec_private: short.into(), ..video() };
        assert_eq!(refused(vec![short]), TrackError::NalLength { track: 1, found: 2 });
    }
}
