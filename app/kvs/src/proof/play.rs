//! Whether a fragment can be played: its key picture as far as the bytes show it, and when one is to be played. No IO.

use std::sync::Arc;
use std::time::{Duration, Instant};

use media::mkv::elements::{TrackFormat, TrackInfo};
use media::nal::{self, NalError};
use media::{AccessUnit, FormatError, ProducerTimestamp};

use crate::read::chunk::Block;

/// Why a picture cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    #[error("the fragment has no picture")]
    NoPicture,
    #[error("the codec of track {track} is none that is known: {codec}")]
    Codec { track: u64, codec: String },
    #[error("the parameter sets cannot be read: {0}")]
    Format(#[from] FormatError),
    #[error("the key picture is cut into NAL units wrongly: {0}")]
    Nal(#[from] NalError),
    #[error("the first picture is none that decoding can begin at")]
    NoKeyPicture,
    #[error("the key picture has lost its beginning")]
    NoBeginning,
}

/// The first picture of a fragment, as a decoder takes it, if it can be one.
pub fn key_picture(tracks: &[TrackInfo], first: Option<&Block>) -> Result<AccessUnit, PlayError> {
    let block = first.ok_or(PlayError::NoPicture)?;
    let track = tracks.iter().find(|track| track.number == block.track).ok_or(PlayError::NoPicture)?;
    let (number, codec) = (track.number, track.codec_id.clone());
    let Some(TrackFormat::Video(format)) = track.format()? else {
        return Err(PlayError::Codec { track: number, codec });
    };
    let timestamp = ProducerTimestamp::from_millis(u64::try_from(block.time_ms).unwrap_or(0));
    let unit = AccessUnit {
        data: block.payload.clone(),
        timestamp,
        random_access: block.key_frame,
        format: Arc::new(format),
    };
    check(&unit)?;
    Ok(unit)
}

/// What can be seen of a picture without decoding it.
pub fn check(unit: &AccessUnit) -> Result<(), PlayError> {
    let codec = unit.format.codec;
    nal::length_prefixed(&unit.data, unit.format.nal_length_size()).try_for_each(|unit| unit.map(drop))?;
    if !nal::is_random_access(codec, &unit.data)? {
        return Err(PlayError::NoKeyPicture);
    }
    if !nal::begins_picture(codec, &unit.data) {
        return Err(PlayError::NoBeginning);
    }
    Ok(())
}

/// When a fragment is to be played: so often, and when footage of another format is seen.
#[derive(Debug)]
pub struct PlayTimer {
    every: Duration,
    next: Instant,
    format: Option<Vec<TrackInfo>>,
}

impl PlayTimer {
    /// The first time comes soon, so that a new installation shows one.
    pub fn new(every: Duration, soon: Duration, now: Instant) -> Self {
        Self { every, next: now + soon.min(every), format: None }
    }

    pub fn is_due(&self, now: Instant) -> bool {
        now >= self.next
    }

    pub fn next(&self) -> Instant {
        self.next
    }

    /// Footage with these tracks was read.
    pub fn seen(&mut self, tracks: &[TrackInfo], now: Instant) {
        let changed = self.format.as_deref().is_some_and(|before| before != tracks);
        if changed || self.format.is_none() {
            self.format = Some(tracks.to_vec());
        }
        if changed {
            self.next = now;
        }
    }

    /// One is played now; `after` it the next.
    pub fn begun(&mut self, now: Instant) {
        self.next = now + self.every;
    }

    /// It could not be fetched: tried again before long.
    pub fn failed(&mut self, now: Instant) {
        self.next = self.next.min(now + self.every.min(Duration::from_secs(60)));
    }

    /// Not now: there is no budget for it.
    pub fn wait(&mut self, until: Instant) {
        self.next = self.next.max(until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoch;
    use crate::read::chunk::{Answer, ChunkReader, Event};
    use crate::testing::{chunk_bytes, fragments};

    const S: Duration = Duration::from_secs(1);

    /// A fragment of a real producer (kvssink): its tracks and its first picture.
    fn real() -> (Vec<TrackInfo>, Block) {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/kvssink-putmedia/ok_put_001.mkv");
        let mut parser = media::mkv::read::Parser::new(media::mkv::read::Limits::default());
        parser.push(std::fs::read(path).expect("part of the project").into());
        let (mut tracks, mut cluster_ms) = (Vec::new(), 0);
        while let Some(event) = parser.finish().expect("Matroska") {
            use media::mkv::read::EventKind;
            match event.kind {
                EventKind::Element { id: media::mkv::id::TRACKS } => {
                    tracks = media::mkv::elements::tracks::parse(event.body()).expect("tracks");
                }
                EventKind::Timecode { ms } => cluster_ms = ms,
                EventKind::Block { track, key_frame, .. } => {
                    let payload = event.shared_body();
                    let time_ms = i64::try_from(cluster_ms).expect("small");
                    return (tracks, Block { track, cluster_ms, time_ms, key_frame, payload });
                }
                _ => {}
            }
        }
        panic!("no block");
    }

    #[test]
    fn the_key_picture_of_a_real_producer_is_one_and_a_damaged_one_is_none() {
        let (tracks, block) = real();
        let unit = key_picture(&tracks, Some(&block)).expect("it is one");
        assert!(unit.format.width > 0 && unit.random_access);
        let with = |payload: Vec<u8>| {
            key_picture(&tracks, Some(&Block { payload: payload.into(), ..block.clone() }))
        };
        let cut = block.payload[..block.payload.len() / 2].to_vec();
        assert!(matches!(with(cut), Err(PlayError::Nal(_))));
        let zeros = vec![0; block.payload.len()];
        assert!(with(zeros).is_err());
        assert!(matches!(key_picture(&tracks, None), Err(PlayError::NoPicture)));
        let mut odd = tracks.clone();
        odd[0].codec_private = bytes::Bytes::from_static(b"none");
        assert!(matches!(key_picture(&odd, Some(&block)), Err(PlayError::Format(_))));
        odd[0].codec_id = "V_VP9".to_owned();
        assert!(matches!(key_picture(&odd, Some(&block)), Err(PlayError::Codec { .. })));
    }

    #[test]
    fn a_picture_that_is_no_key_picture_is_told() {
        let mut reader = ChunkReader::new(Answer::FragmentList);
        reader.push(chunk_bytes(&fragments(1)[0], 1, false).into());
        let mut first = None;
        while let Some(event) = reader.finish(true).expect("valid") {
            if let Event::Block(block) = event {
                first.get_or_insert(block);
            }
        }
        let (tracks, _) = real();
        assert!(key_picture(&tracks, first.as_ref()).is_err(), "digits are no slice");
    }

    #[test]
    fn one_is_played_now_and_then_and_at_once_after_another_format() {
        let (tracks, _) = real();
        let mut timer = PlayTimer::new(S * 600, S * 10, epoch());
        assert!(!timer.is_due(epoch()) && timer.is_due(epoch() + S * 10));
        timer.begun(epoch() + S * 10);
        timer.seen(&tracks, epoch() + S * 11);
        timer.seen(&tracks, epoch() + S * 12);
        assert_eq!(timer.next(), epoch() + S * 610);
        let mut other = tracks.clone();
        other[0].width += 16;
        timer.seen(&other, epoch() + S * 20);
        assert!(timer.is_due(epoch() + S * 20));
        timer.begun(epoch() + S * 20);
        timer.failed(epoch() + S * 21);
        assert_eq!(timer.next(), epoch() + S * 81);
        timer.wait(epoch() + S * 90);
        assert_eq!(timer.next(), epoch() + S * 90);
    }
}
