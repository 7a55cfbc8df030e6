//! Decoded pictures of a stream, in the hands of Python.
//!
//! ```text
//!  start() --client, GetDataEndpoint--> Frames: threads of their own ----> read() --bytearray--> numpy
//!                 |                         |
//!                 +-- refused for good      +-- has given up: the read raises
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kvs_client::frames::{FrameOptions, Frames, FramesError, WhenFull};
use kvs_client::kvs::api::{ApiName, GetDataEndpointInput, StartSelector, StreamId, milliseconds};
use kvs_client::source::{
    FollowConfig, HlsConfig, Play, Source as UnitSource, SourceFigures, SourceMode, SourceOptions,
};
use kvs_client::{Action, Client};
use media::SourceState;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyDict};

use crate::client::{Keys, open, refused, selector_type, stream_id};
use crate::wait::{SIGNALS, runtime, wait};
use crate::{FrameSourceError, HLSStreamError, KVSConnectionError};

/// Whose stream.
#[derive(Clone, FromPyObject)]
#[pyo3(from_item_all)]
struct Account {
    stream: String,
    region: String,
    endpoint_url: Option<String>,
    keys: Option<Keys>,
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Hls {
    hls_session_seconds: u32,
    url_refresh_margin: f64,
    reconnect_delay: f64,
    max_reconnect_delay: f64,
    backoff_multiplier: f64,
    max_consecutive_errors: Option<u32>,
    /// Unix seconds, by producer time; neither is live.
    start: Option<f64>,
    end: Option<f64>,
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct GetMedia {
    start_selector_type: String,
    after_fragment_number: Option<String>,
    start_timestamp: Option<f64>,
    continuation_token: Option<String>,
    max_fragment_age_seconds: Option<f64>,
    chunk_size: usize,
    reconnect_delay_seconds: f64,
    max_reconnect_attempts: Option<u32>,
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Queue {
    name: String,
    max_size: usize,
    timeout_seconds: f64,
    target_fps: Option<f64>,
    /// Nothing is lost when it is full.
    waits: bool,
}

/// A stream, read in one way. Threads may share it.
#[pyclass(frozen, module = "kvs_client._native")]
pub(crate) struct Source {
    account: Account,
    options: SourceOptions,
    frames: FrameOptions,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: Option<Arc<Frames>>,
    /// It came to its end, or was stopped.
    over: bool,
    /// Of the times that it ran before.
    past: Option<SourceFigures>,
}

#[pymethods]
impl Source {
    /// One of `hls` and `get_media`. Raises ValueError for what is out of its range; nothing is asked for before `start`.
    #[new]
    #[pyo3(signature = (account, queue, hls=None, get_media=None))]
    fn new(account: Account, queue: Queue, hls: Option<Hls>, get_media: Option<GetMedia>) -> PyResult<Self> {
        let options = match (hls, get_media) {
            (Some(hls), _) => hls.options()?,
            (None, Some(get_media)) => get_media.options()?,
            (None, None) => return Err(PyValueError::new_err("expected one of hls and get_media")),
        };
        let frames = queue.options()?;
        Ok(Self { account, options, frames, state: Mutex::default() })
    }

    /// Begins to read. Raises KVSConnectionError where nothing but a change by somebody would help: no such stream, no
    /// permission, wrong keys. Anything else is tried again, as the options say.
    fn start(&self, py: Python<'_>) -> PyResult<()> {
        if self.lock().running.is_some() {
            return Ok(());
        }
        let Account { stream, region, endpoint_url, keys } = self.account.clone();
        let client = open(py, &region, endpoint_url.as_deref(), keys)?;
        let stream = stream_id(&stream);
        self.check(py, &client, &stream)?;
        let frames = py.detach(|| {
            let source = UnitSource::new(&client, &stream, &self.options)
                .map_err(|error| PyValueError::new_err(error.to_string()))?;
            Frames::start(source, self.frames.clone()).map_err(|error| self.failed(&error))
        })?;
        let mut state = self.lock();
        state.over = false;
        let second = state.running.replace(Arc::new(frames));
        drop(state);
        py.detach(|| drop(second));
        Ok(())
    }

    /// Ends it, from any thread: whoever reads gets nothing, at once. It may be started again; counts go on.
    fn stop(&self, py: Python<'_>) {
        let running = {
            let mut state = self.lock();
            state.over = true;
            let running = state.running.take();
            if let Some(frames) = &running {
                let figures = SourceFigures { state: SourceState::Disconnected, ..frames.figures() };
                state.past = Some(added(state.past.take(), figures));
            }
            running
        };
        py.detach(|| {
            if let Some(frames) = running {
                frames.stop();
            }
        });
    }

    /// Blue, green and red bytes of the next picture, height, width, Unix seconds; `None`: there was none in time, or there
    /// is none any more (`over`).
    #[pyo3(signature = (timeout_seconds=None))]
    fn read<'py>(&self, py: Python<'py>, timeout_seconds: Option<f64>) -> PyResult<Option<Picture<'py>>> {
        let frames = {
            let state = self.lock();
            match &state.running {
                Some(frames) => frames.clone(),
                None if state.over => return Ok(None),
                None => {
                    return Err(FrameSourceError::new_err(
                        "the source is not started: call start(), or use it by `with`",
                    ));
                }
            }
        };
        let mut rest = match timeout_seconds {
            None => self.frames.timeout,
            Some(seconds) => duration("timeout_seconds", seconds)?,
        };
        loop {
            let turn = rest.min(SIGNALS);
            rest -= turn;
            match py.detach(|| frames.read_within(turn)) {
                Ok(Some(frame)) => {
                    let bytes = PyByteArray::new(py, &frame.data);
                    return Ok(Some((bytes, frame.height, frame.width, frame.timestamp_seconds())));
                }
                Ok(None) if rest.is_zero() => return Ok(None),
                Ok(None) => py.check_signals()?,
                Err(FramesError::Ended | FramesError::Stopped) => {
                    self.lock().over = true;
                    return Ok(None);
                }
                Err(error) => return Err(self.failed(&error)),
            }
        }
    }

    /// It has come to its end, or was stopped: no picture comes any more.
    #[getter]
    fn over(&self) -> bool {
        self.lock().over
    }

    /// disconnected, connecting, connected, reconnecting or error.
    fn connection_state(&self) -> &'static str {
        self.figures().state_name()
    }

    /// It is connected, and its last picture is at most 30 s old.
    fn is_healthy(&self) -> bool {
        self.lock().running.as_ref().is_some_and(|frames| frames.is_healthy())
    }

    /// The last thing that went wrong, if anything has since the last whole fragment.
    fn last_error(&self) -> Option<String> {
        self.lock().running.as_ref().and_then(|frames| frames.last_error())
    }

    /// Since it was made, under the names of both kinds of sources.
    fn metrics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let figures = self.figures();
        let all = PyDict::new(py);
        for (name, value) in [
            ("frames_total", figures.frames_read),
            ("reconnects_total", figures.connection_resets),
            ("url_refreshes_total", figures.url_refreshes),
            ("read_errors_total", figures.read_errors),
            ("frames_read", figures.frames_read),
            ("frames_dropped", figures.frames_dropped),
            ("fragments_processed", figures.fragments_processed),
            ("fragments_skipped", figures.fragments_skipped),
            ("bytes_received", figures.bytes_received),
            ("parse_errors", figures.parse_errors),
            ("decode_errors", figures.decode_errors),
            ("connection_resets", figures.connection_resets),
        ] {
            all.set_item(name, value)?;
        }
        all.set_item("last_frame_timestamp", figures.last_frame_timestamp)?;
        all.set_item("latency_ms", figures.latency_ms)?;
        Ok(all)
    }
}

/// Bytes, height, width, Unix seconds.
type Picture<'py> = (Bound<'py, PyByteArray>, usize, usize, f64);

impl Source {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn figures(&self) -> SourceFigures {
        let state = self.lock();
        match (&state.running, &state.past) {
            (Some(frames), past) => added(past.clone(), frames.figures()),
            (None, Some(past)) => past.clone(),
            (None, None) => SourceFigures::new(self.options.mode, SourceState::Disconnected),
        }
    }

    /// Asks for the endpoint that will be read from.
    fn check(&self, py: Python<'_>, client: &Client, stream: &StreamId) -> PyResult<()> {
        let api_name = match self.options.mode {
            SourceMode::Hls => ApiName::GetHlsStreamingSessionUrl,
            _ => ApiName::GetMedia,
        };
        let input = GetDataEndpointInput { stream: stream.clone(), api_name };
        match wait(py, &runtime()?, client.get_data_endpoint(&input))? {
            Err(error) if error.action() == Action::Stop => Err(refused(client, stream, &error)),
            _ => Ok(()),
        }
    }

    fn failed(&self, error: &FramesError) -> PyErr {
        let text = format!("{}: {}", self.account.stream, health::chain(error));
        match (error, self.options.mode) {
            (FramesError::Options { .. }, _) => PyValueError::new_err(health::chain(error)),
            (FramesError::Failed { .. }, SourceMode::Hls) => HLSStreamError::new_err(text),
            (FramesError::Failed { .. }, _) => KVSConnectionError::new_err(text),
            _ => FrameSourceError::new_err(text),
        }
    }
}

impl Hls {
    fn options(self) -> PyResult<SourceOptions> {
        let hls = HlsConfig {
            hls_session_seconds: self.hls_session_seconds,
            url_refresh_margin: duration("url_refresh_margin", self.url_refresh_margin)?,
            reconnect_delay: duration("reconnect_delay", self.reconnect_delay)?,
            max_reconnect_delay: duration("max_reconnect_delay", self.max_reconnect_delay)?,
            backoff_multiplier: self.backoff_multiplier,
            max_consecutive_errors: self.max_consecutive_errors,
            // What it hands on are pictures.
            sound: false,
            ..HlsConfig::default()
        };
        hls.check().map_err(|error| PyValueError::new_err(error.to_string()))?;
        let play = match (self.start, self.end) {
            (None, None) => Play::Live,
            (Some(start), Some(end)) if start <= end => {
                Play::Range { from_ms: milliseconds(start), to_ms: milliseconds(end) }
            }
            _ => {
                return Err(PyValueError::new_err(
                    "expected both start_timestamp and end_timestamp, in this order, or neither: live",
                ));
            }
        };
        Ok(SourceOptions { hls, play, ..SourceOptions::new(SourceMode::Hls) })
    }
}

impl GetMedia {
    fn options(self) -> PyResult<SourceOptions> {
        let start = StartSelector {
            start_selector_type: selector_type(&self.start_selector_type)?,
            after_fragment_number: self.after_fragment_number,
            start_timestamp: self.start_timestamp,
            continuation_token: self.continuation_token,
        };
        let age = self.max_fragment_age_seconds;
        let get_media = FollowConfig {
            start,
            max_fragment_age: age.map(|seconds| duration("max_fragment_age_seconds", seconds)).transpose()?,
            chunk_size: self.chunk_size,
            reconnect_delay: duration("reconnect_delay_seconds", self.reconnect_delay_seconds)?,
            max_reconnect_attempts: self.max_reconnect_attempts,
            ..FollowConfig::default()
        };
        get_media.check().map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(SourceOptions { get_media, ..SourceOptions::new(SourceMode::GetMedia) })
    }
}

impl Queue {
    fn options(self) -> PyResult<FrameOptions> {
        let wrong = |what: &str| Err(PyValueError::new_err(what.to_owned()));
        if self.max_size == 0 {
            return wrong("max_size is 0, expected at least 1");
        }
        if let Some(rate) = self.target_fps.filter(|rate| !rate.is_finite() || *rate <= 0.0) {
            return wrong(&format!("target_fps is {rate}, expected more than 0, or None"));
        }
        Ok(FrameOptions {
            name: self.name,
            target_fps: self.target_fps,
            max_size: self.max_size,
            timeout: duration("timeout_seconds", self.timeout_seconds)?,
            when_full: if self.waits { WhenFull::Wait } else { WhenFull::NewestWins },
            ..FrameOptions::default()
        })
    }
}

fn duration(what: &str, seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| PyValueError::new_err(format!("{what} is {seconds}, expected 0 or more seconds")))
}

/// Counts add up; the rest is as it is now, or was last.
fn added(past: Option<SourceFigures>, now: SourceFigures) -> SourceFigures {
    let Some(past) = past else { return now };
    SourceFigures {
        frames_read: past.frames_read + now.frames_read,
        frames_dropped: past.frames_dropped + now.frames_dropped,
        fragments_processed: past.fragments_processed + now.fragments_processed,
        fragments_skipped: past.fragments_skipped + now.fragments_skipped,
        bytes_received: past.bytes_received + now.bytes_received,
        read_errors: past.read_errors + now.read_errors,
        parse_errors: past.parse_errors + now.parse_errors,
        decode_errors: past.decode_errors + now.decode_errors,
        connection_resets: past.connection_resets + now.connection_resets,
        url_refreshes: past.url_refreshes + now.url_refreshes,
        last_frame_timestamp: now.last_frame_timestamp.or(past.last_frame_timestamp),
        latency_ms: now.latency_ms.or(past.latency_ms),
        ..now
    }
}
