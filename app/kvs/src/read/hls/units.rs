//! Media segments as access units and audio frames.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use media::mp4::read::{Movie, Mp4Error, Sample};
use media::{AccessUnit, AudioFormat, AudioFrame, Feed, ProducerTimestamp, VideoFormat};

use super::playlist::Segment;
use crate::FragmentNumber;
use crate::read::units::{NAL_LENGTH_BYTES, Origin, TrackError, kept};

/// Sound that lies further from the pictures of its own fragment, which lasts 20 s at most (KVS limits page), goes by another
/// clock.
const MOST_APART_MS: i128 = 30_000;

/// Why a segment cannot be handed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitsError {
    #[error(transparent)]
    Mp4(#[from] Mp4Error),
    #[error(transparent)]
    Track(#[from] TrackError),
    #[error("the initialisation of the sound has no AAC or G.711 track, found {found:?}")]
    NoSound { found: Vec<String> },
    #[error("a segment without its initialisation")]
    NoInit,
    #[error("a segment without a picture")]
    Empty,
    #[error("picture {index}: {reason}")]
    Picture { index: usize, reason: String },
}

/// Turns segments into items: the pictures of a fragment in decoding order, and its sound between them by time.
///
/// Sound is a playlist of its own; its segment comes before that of the pictures of the same fragment.
#[derive(Debug, Default)]
pub struct HlsUnits {
    ready: VecDeque<(Feed, Origin)>,
    video: Option<Track<VideoFormat>>,
    audio: Option<Track<AudioFormat>>,
    /// The sound of the fragment whose pictures come next.
    sound: Option<(FragmentNumber, Vec<Sample>)>,
    /// The sound that was told of.
    told: Option<Arc<AudioFormat>>,
    origin: Origin,
    newest_ms: Option<u64>,
    flows: bool,
}

/// One track of an initialisation segment.
#[derive(Debug)]
struct Track<F> {
    movie: Movie,
    id: u32,
    /// Ticks per second.
    timescale: u32,
    format: Arc<F>,
}

impl<F: PartialEq> Track<F> {
    fn new(before: Option<Self>, movie: Movie, id: u32, format: F) -> Self {
        let timescale = movie.track(id).map_or(1, |track| track.timescale);
        Self { movie, id, timescale, format: kept(before.map(|before| (0, before.format)), format) }
    }

    fn samples(&self, data: &Bytes) -> Result<Vec<Sample>, UnitsError> {
        let mut samples = self.movie.samples(data)?;
        samples.retain(|sample| sample.track == self.id);
        Ok(samples)
    }
}

impl HlsUnits {
    /// An initialisation segment: for the segments that follow.
    pub fn init(&mut self, data: &Bytes) -> Result<(), UnitsError> {
        let movie = Movie::parse(data)?;
        let Some((id, format)) = movie.formats().video else {
            return Err(TrackError::NoVideo { found: names(&movie) }.into());
        };
        let found = format.nal_length_size();
        if found != NAL_LENGTH_BYTES {
            return Err(TrackError::NalLength { track: id.into(), found }.into());
        }
        self.video = Some(Track::new(self.video.take(), movie, id, Arc::unwrap_or_clone(format)));
        Ok(())
    }

    /// The same of the sound.
    pub fn sound_init(&mut self, data: &Bytes) -> Result<(), UnitsError> {
        let movie = Movie::parse(data)?;
        let Some((id, format)) = movie.formats().audio else {
            return Err(UnitsError::NoSound { found: names(&movie) });
        };
        self.audio = Some(Track::new(self.audio.take(), movie, id, Arc::unwrap_or_clone(format)));
        Ok(())
    }

    /// The sound of a fragment, which is handed on with its pictures.
    pub fn sound(&mut self, number: FragmentNumber, data: &Bytes) -> Result<(), UnitsError> {
        let track = self.audio.as_ref().ok_or(UnitsError::NoInit)?;
        self.sound = Some((number, track.samples(data)?));
        Ok(())
    }

    /// The pictures of a segment: all of them, or none and an error.
    pub fn segment(&mut self, segment: &Segment, data: &Bytes) -> Result<(), UnitsError> {
        let video = self.video.as_ref().ok_or(UnitsError::NoInit)?;
        let (timescale, format) = (video.timescale, video.format.clone());
        let samples = video.samples(data)?;
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
        let mut sound = self.frames(segment.number, begins_ms, (first, timescale)).into_iter().peekable();
        if let Some(frame) = sound.peek()
            && !self.told.as_ref().is_some_and(|told| Arc::ptr_eq(told, &frame.format))
        {
            self.told = Some(frame.format.clone());
            self.ready.push_back((Feed::AudioTrack(frame.format.clone()), self.origin));
        }
        let times = samples.iter().map(|sample| at(begins_ms, (sample.time, timescale), (first, timescale)));
        let times: Vec<ProducerTimestamp> = times.collect();
        // Pictures go back where they are reordered: sound stands in front of those that are all shown later.
        let mut earliest = times.clone();
        for index in (1..earliest.len()).rev() {
            earliest[index - 1] = earliest[index - 1].min(earliest[index]);
        }
        for ((sample, timestamp), earliest) in samples.into_iter().zip(times).zip(earliest) {
            while let Some(frame) = sound.next_if(|frame| frame.timestamp < earliest) {
                self.ready.push_back((Feed::Audio(frame), self.origin));
            }
            let Sample { data, key_frame, .. } = sample;
            self.flows |= key_frame;
            if !self.flows {
                continue;
            }
            let unit = AccessUnit { data, timestamp, random_access: key_frame, format: format.clone() };
            self.ready.push_back((Feed::Video(unit), self.origin));
        }
        self.ready.extend(sound.map(|frame| (Feed::Audio(frame), self.origin)));
        Ok(())
    }

    /// The sound of this fragment, if it is there; `first`: of its pictures, in ticks of so many a second.
    fn frames(&mut self, number: FragmentNumber, begins_ms: u64, first: (i64, u32)) -> Vec<AudioFrame> {
        let Some((_, samples)) = self.sound.take().filter(|(of, _)| *of == number) else { return Vec::new() };
        let Some(Track { timescale, format, .. }) = &self.audio else { return Vec::new() };
        let own = samples.first().map_or(0, |sample| sample.time);
        let apart = behind_ms((own, *timescale), first).abs();
        let first = if apart > MOST_APART_MS { (own, *timescale) } else { first };
        let frame = |sample: Sample| AudioFrame {
            timestamp: at(begins_ms, (sample.time, *timescale), first),
            data: sample.data,
            format: format.clone(),
        };
        samples.into_iter().map(frame).collect()
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

fn names(movie: &Movie) -> Vec<String> {
    movie.tracks.iter().map(|track| format!("{:?}", track.format)).collect()
}

/// Between two times in ticks of so many a second, to the nearest millisecond.
fn behind_ms((time, timescale): (i64, u32), (first, of_first): (i64, u32)) -> i128 {
    let (timescale, of_first) = (i128::from(timescale.max(1)), i128::from(of_first.max(1)));
    let ticks = i128::from(time) * of_first - i128::from(first) * timescale;
    let both = timescale * of_first;
    (ticks * 1_000 + both / 2).div_euclid(both)
}

/// When a sample is shown, in a fragment that begins then with `first`.
fn at(begins_ms: u64, time: (i64, u32), first: (i64, u32)) -> ProducerTimestamp {
    let behind = i64::try_from(behind_ms(time, first)).unwrap_or(i64::MAX);
    ProducerTimestamp::from_millis(begins_ms.saturating_add_signed(behind))
}
