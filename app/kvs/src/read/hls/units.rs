//! Media segments as access units.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use media::mp4::read::{Movie, Mp4Error, Sample};
use media::{AccessUnit, Feed, ProducerTimestamp, VideoFormat};

use super::playlist::Segment;
use crate::read::units::{NAL_LENGTH_BYTES, Origin, TrackError, kept};

/// Why a segment cannot be handed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitsError {
    #[error(transparent)]
    Mp4(#[from] Mp4Error),
    #[error(transparent)]
    Track(#[from] TrackError),
    #[error("a segment without its initialisation")]
    NoInit,
    #[error("a segment without a picture")]
    Empty,
    #[error("picture {index}: {reason}")]
    Picture { index: usize, reason: String },
}

/// Turns segments into items; pictures only, since sound is a playlist of its own.
#[derive(Debug, Default)]
pub struct HlsUnits {
    ready: VecDeque<(Feed, Origin)>,
    movie: Option<(Movie, u32, u64)>,
    format: Option<Arc<VideoFormat>>,
    origin: Origin,
    newest_ms: Option<u64>,
    flows: bool,
}

impl HlsUnits {
    /// An initialisation segment: for the segments that follow.
    pub fn init(&mut self, data: &Bytes) -> Result<(), UnitsError> {
        let movie = Movie::parse(data)?;
        let Some((id, format)) = movie.formats().video else {
            let found = movie.tracks.iter().map(|track| format!("{:?}", track.format)).collect();
            return Err(TrackError::NoVideo { found }.into());
        };
        let found = format.nal_length_size();
        if found != NAL_LENGTH_BYTES {
            return Err(TrackError::NalLength { track: id.into(), found }.into());
        }
        let timescale = movie.track(id).map_or(1, |track| track.timescale.into());
        let before = self.format.take().map(|before| (0, before));
        self.format = Some(kept(before, (*format).clone()));
        self.movie = Some((movie, id, timescale));
        Ok(())
    }

    /// The pictures of a segment: all of them, or none and an error.
    pub fn segment(&mut self, segment: &Segment, data: &Bytes) -> Result<(), UnitsError> {
        let (Some((movie, id, timescale)), Some(format)) = (&self.movie, &self.format) else {
            return Err(UnitsError::NoInit);
        };
        let (id, timescale, format) = (*id, *timescale, format.clone());
        let mut samples = movie.samples(data)?;
        samples.retain(|sample| sample.track == id);
        let first = samples.iter().map(|sample| sample.time).min().ok_or(UnitsError::Empty)?;
        for (index, sample) in samples.iter().enumerate() {
            let wrong =
                |error: media::nal::NalError| UnitsError::Picture { index, reason: error.to_string() };
            media::nal::is_random_access(format.codec, &sample.data).map_err(wrong)?;
            media::nal::length_prefixed(&sample.data, NAL_LENGTH_BYTES)
                .try_for_each(|unit| unit.map(drop))
                .map_err(wrong)?;
        }
        let begins_ms = segment.begins_ms.unwrap_or(0);
        self.origin = Origin {
            number: Some(segment.number),
            server_timestamp_ms: Some(segment.number.server_time_ms()),
            producer_timestamp_ms: Some(begins_ms),
        };
        if self.newest_ms.replace(begins_ms).is_some_and(|before| begins_ms <= before) {
            self.flows = false;
            self.ready.push_back((Feed::NewTimeline, self.origin));
        }
        for Sample { data, time, key_frame, .. } in samples {
            self.flows |= key_frame;
            if !self.flows {
                continue;
            }
            let behind_ms =
                time.abs_diff(first).saturating_mul(1_000).saturating_add(timescale / 2) / timescale;
            let timestamp = ProducerTimestamp::from_millis(begins_ms.saturating_add(behind_ms));
            let unit = AccessUnit { data, timestamp, random_access: key_frame, format: format.clone() };
            self.ready.push_back((Feed::Video(unit), self.origin));
        }
        Ok(())
    }

    /// What follows does not follow what came before.
    pub fn interrupt(&mut self) {
        if std::mem::take(&mut self.flows) {
            self.ready.push_back((Feed::Break, self.origin));
        }
    }

    /// The next item, and the fragment that it is from.
    pub fn next_item(&mut self) -> Option<(Feed, Origin)> {
        self.ready.pop_front()
    }
}
