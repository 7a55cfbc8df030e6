//! The pictures of one fragment.

use std::collections::VecDeque;

use bytes::Bytes;
use jpeg_encoder::{ColorType, Encoder};
use kvs_client::frames::{ChannelOrder, Frame, FrameOptions, Frames, FramesError, WhenFull};
use kvs_client::kvs::read::chunk::{Answer, ChunkReader};
use kvs_client::kvs::read::units::{Origin, TrackError, Units};
use kvs_client::source::{SourceFigures, SourceMode, StreamSource};
use media::{Feed, SourceMetrics, SourceState, UnitSource};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes};

use crate::wait::SIGNALS;
use crate::{FrameSourceError, HLSStreamError};

/// As other programs write them where nobody asks for another one.
const JPEG_QUALITY: u8 = 75;
/// Decoded pictures that wait.
const WAITING: usize = 4;

/// Red, green and blue bytes, height, width of every `ratio`-th picture, the first one among them.
#[pyfunction]
pub(crate) fn pictures<'py>(
    py: Python<'py>,
    fragment: &Bound<'py, PyBytes>,
    ratio: usize,
) -> PyResult<Vec<(Bound<'py, PyByteArray>, usize, usize)>> {
    let picture = |frame: Frame| Ok((PyByteArray::new(py, &frame.data), frame.height, frame.width));
    every(py, fragment, ratio, picture)
}

/// The same as JPEG files.
#[pyfunction]
pub(crate) fn jpegs<'py>(
    py: Python<'py>,
    fragment: &Bound<'py, PyBytes>,
    ratio: usize,
) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    every(py, fragment, ratio, |frame| {
        let jpeg = py.detach(|| {
            let (width, height) = (u16::try_from(frame.width).ok()?, u16::try_from(frame.height).ok()?);
            let mut jpeg = Vec::new();
            let encoder = Encoder::new(&mut jpeg, JPEG_QUALITY);
            encoder.encode(&frame.data, width, height, ColorType::Rgb).ok()?;
            Some(jpeg)
        });
        let jpeg = jpeg.ok_or_else(|| {
            FrameSourceError::new_err(format!(
                "a picture of {}x{} makes no JPEG: a side has 1 to 65535 pixels",
                frame.width, frame.height
            ))
        })?;
        Ok(PyBytes::new(py, &jpeg))
    })
}

fn every<T>(
    py: Python<'_>,
    fragment: &Bound<'_, PyBytes>,
    ratio: usize,
    mut make: impl FnMut(Frame) -> PyResult<T>,
) -> PyResult<Vec<T>> {
    if ratio == 0 {
        return Err(PyValueError::new_err("one_in_frames_ratio is 0, expected at least 1"));
    }
    let source = Stored::of(Bytes::copy_from_slice(fragment.as_bytes()))?;
    if source.items.is_empty() {
        return Ok(Vec::new());
    }
    let options = FrameOptions {
        name: "fragment".to_owned(),
        order: ChannelOrder::Rgb,
        when_full: WhenFull::Wait,
        max_size: WAITING,
        ..FrameOptions::default()
    };
    let failed = |error: FramesError| FrameSourceError::new_err(health::chain(&error));
    let frames = py.detach(|| Frames::start(source, options)).map_err(failed)?;
    let (mut made, mut at) = (Vec::new(), 0_usize);
    loop {
        match py.detach(|| frames.read_within(SIGNALS)) {
            Ok(Some(frame)) => {
                if at.is_multiple_of(ratio) {
                    made.push(make(frame)?);
                }
                at += 1;
            }
            Ok(None) => py.check_signals()?,
            Err(FramesError::Ended) => break,
            Err(error) => return Err(failed(error)),
        }
    }
    let broken = frames.figures().decode_errors;
    let last = frames.last_error();
    py.detach(|| drop(frames));
    match last {
        Some(reason) if made.is_empty() => {
            Err(HLSStreamError::new_err(format!("{broken} pictures could not be decoded: {reason}")))
        }
        _ => Ok(made),
    }
}

/// What has come already, as a source.
struct Stored {
    items: VecDeque<(Feed, Origin)>,
    origin: Option<Origin>,
    metrics: SourceMetrics,
}

impl Stored {
    /// None in a fragment without pictures.
    fn of(bytes: Bytes) -> PyResult<Self> {
        let unreadable = |error: &dyn std::fmt::Display| {
            HLSStreamError::new_err(format!("the fragment cannot be read: {error}"))
        };
        let (mut chunks, mut units) = (ChunkReader::new(Answer::FragmentList), Units::default());
        let mut items = VecDeque::new();
        chunks.push(bytes);
        while let Some(event) = chunks.finish(true).map_err(|error| unreadable(&error))? {
            match units.take(event) {
                Ok(()) => {}
                Err(TrackError::NoVideo { .. }) => break,
                Err(error) => return Err(unreadable(&error)),
            }
            items.extend(std::iter::from_fn(|| units.next_item()));
        }
        items.retain(|(item, _)| matches!(item, Feed::Video(_)));
        Ok(Self { items, origin: None, metrics: SourceMetrics::default() })
    }
}

impl UnitSource for Stored {
    async fn next(&mut self) -> Option<Feed> {
        let (item, origin) = self.items.pop_front()?;
        self.metrics.count(&item);
        self.origin = Some(origin);
        Some(item)
    }

    fn state(&self) -> SourceState {
        if self.items.is_empty() { SourceState::Disconnected } else { SourceState::Connected }
    }

    fn metrics(&self) -> SourceMetrics {
        self.metrics
    }
}

impl StreamSource for Stored {
    fn origin(&self) -> Option<Origin> {
        self.origin
    }

    fn figures(&self) -> SourceFigures {
        SourceFigures {
            frames_read: self.metrics.pictures,
            bytes_received: self.metrics.bytes,
            ..SourceFigures::new(SourceMode::GetMedia, self.state())
        }
    }

    fn is_healthy(&self) -> bool {
        true
    }

    fn last_error(&self) -> Option<String> {
        None
    }
}
