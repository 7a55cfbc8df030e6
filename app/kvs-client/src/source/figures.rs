//! What every source of a stream tells of itself, whichever way it reads.

use kvs::read::units::Origin;
use media::{SourceState, UnitSource};

use super::metrics::{Exposition, state_number};
use super::options::SourceMode;

/// A source of pictures that says which fragment they are from, and how it fares.
pub trait StreamSource: UnitSource {
    /// The fragment that the last item is from; `None` before the first one, and where there are no fragments.
    fn origin(&self) -> Option<Origin>;

    /// Since it was made.
    fn figures(&self) -> SourceFigures;

    /// It is connected, and a picture came within the last 30 s.
    fn is_healthy(&self) -> bool;

    /// The last thing that went wrong, with its cause, if anything has since the last whole fragment.
    fn last_error(&self) -> Option<String>;
}

/// One struct for all sources; names are those that users of KVS frame sources know.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceFigures {
    /// How the stream is read.
    pub mode: SourceMode,
    /// How it stands.
    pub state: SourceState,
    /// Pictures handed on: coded ones by a source, decoded ones by `frames::Frames`.
    pub frames_read: u64,
    /// Decoded pictures that newer ones replaced in the queue; 0 of a source.
    pub frames_dropped: u64,
    /// Whole fragments handed on.
    pub fragments_processed: u64,
    /// Fragments left out, as far as their number is known.
    pub fragments_skipped: u64,
    /// Of answers, playlists and media, with what pictures are packed in.
    pub bytes_received: u64,
    /// Calls and fetches that failed, those that could not be read included.
    pub read_errors: u64,
    /// What came and could not be read.
    pub parse_errors: u64,
    /// Coded pictures that gave no decoded one because they are damaged, too large, or a decoder failed; 0 of a source.
    pub decode_errors: u64,
    /// Connections, or sessions, that had to be replaced; planned replacements are not counted.
    pub connection_resets: u64,
    /// URLs of sessions asked for because the one before was about to expire; 0 but with HLS.
    pub url_refreshes: u64,
    /// When the last picture was handed on, Unix seconds.
    pub last_frame_timestamp: Option<f64>,
    /// From its producer timestamp to then, in ms; 0 where the producer's clock is ahead.
    pub latency_ms: Option<u64>,
}

impl SourceFigures {
    /// All zero.
    pub fn new(mode: SourceMode, state: SourceState) -> Self {
        Self {
            mode,
            state,
            frames_read: 0,
            frames_dropped: 0,
            fragments_processed: 0,
            fragments_skipped: 0,
            bytes_received: 0,
            read_errors: 0,
            parse_errors: 0,
            decode_errors: 0,
            connection_resets: 0,
            url_refreshes: 0,
            last_frame_timestamp: None,
            latency_ms: None,
        }
    }

    /// 0 disconnected, 1 connecting, 2 connected, 3 reconnecting, 4 error.
    pub fn connection_state(&self) -> u8 {
        state_number(self.state)
    }

    /// The state in the word that users of KVS frame sources know.
    pub fn state_name(&self) -> &'static str {
        match self.state {
            SourceState::Disconnected => "disconnected",
            SourceState::Connecting => "connecting",
            SourceState::Connected => "connected",
            SourceState::Reconnecting => "reconnecting",
            SourceState::Failed => "error",
        }
    }

    /// In the text form of Prometheus, each labelled `camera_id`, under the names that dashboards have.
    pub fn prometheus(&self, camera_id: &str) -> String {
        let mut text = Exposition::new(self.mode.metrics_prefix(), camera_id);
        text.counter("reconnects_total", self.connection_resets);
        text.counter("frames_total", self.frames_read);
        if self.mode == SourceMode::Hls {
            text.counter("url_refreshes_total", self.url_refreshes);
        } else {
            text.counter("fragments_total", self.fragments_processed);
        }
        text.counter("read_errors_total", self.read_errors);
        text.gauge("last_frame_timestamp", self.last_frame_timestamp);
        text.gauge("connection_state", Some(self.connection_state().into()));
        text.finish()
    }
}

/// Any other source, such as a camera's, beside those of KVS: it has no fragments.
#[derive(Debug)]
pub struct Plain<S>(
    /// The source.
    pub S,
);

impl<S: UnitSource> UnitSource for Plain<S> {
    fn next(&mut self) -> impl Future<Output = Option<media::Feed>> + Send {
        self.0.next()
    }

    fn state(&self) -> SourceState {
        self.0.state()
    }

    fn metrics(&self) -> media::SourceMetrics {
        self.0.metrics()
    }
}

impl<S: UnitSource> StreamSource for Plain<S> {
    fn origin(&self) -> Option<Origin> {
        None
    }

    fn figures(&self) -> SourceFigures {
        let metrics = self.0.metrics();
        SourceFigures {
            frames_read: metrics.pictures,
            bytes_received: metrics.bytes,
            connection_resets: metrics.breaks,
            ..SourceFigures::new(SourceMode::Rtsp, self.0.state())
        }
    }

    fn is_healthy(&self) -> bool {
        self.0.state() == SourceState::Connected
    }

    fn last_error(&self) -> Option<String> {
        None
    }
}
