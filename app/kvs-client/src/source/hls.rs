//! What is archived, played by HLS. All decisions are those of [`kvs::read::hls`]; this moves bytes.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use bytes::Bytes;
use kvs::api::StreamId;
use kvs::read::hls::session::TextError;
use kvs::read::hls::{
    Action, Asked, Failure, Hls, HlsConfig, HlsConfigError, HlsUnits, Play, Skip, UnitsError,
};
use kvs::read::units::Origin;
use media::{Feed, SourceMetrics, SourceState, UnitSource};

use super::figures::{SourceFigures, StreamSource};
use super::handed::{Handed, Skips};
use super::hls_metrics::HlsMetrics;
use super::metrics::state_number;
use super::options::SourceMode;
use super::random;
use crate::client::Client;
use crate::endpoint::Endpoint;
use crate::error::{Action as ErrorAction, Error};
use crate::fetch::split_url;
use crate::operation::Operation;

/// 5000 segments of 350 bytes, twice.
const PLAYLIST_BYTES: usize = 4 << 20;
const INIT_BYTES: usize = 1 << 20;
/// A fragment has at most 50 MB (KVS limits page).
const SEGMENT_BYTES: usize = 64 << 20;

/// Why something that was asked for could not be used.
#[derive(Debug, thiserror::Error)]
pub enum HlsError {
    /// A call or a fetch failed.
    #[error(transparent)]
    Call(#[from] Error),
    /// It came, and cannot be used.
    #[error("the playlist: {0}")]
    Playlist(#[from] TextError),
    /// It came, and cannot be used.
    #[error("the media: {0}")]
    Media(#[from] UnitsError),
}

/// Pictures and sound of a stream, live or from a range of time, by producer time.
///
/// Sound is what HLS plays, AAC, and comes with the pictures of its fragment, both in the order of their times; a fragment whose
/// sound cannot be had is handed on without ([`HlsMetrics::fragments_without_sound`]). [`HlsConfig::sound`] leaves it out.
///
/// It connects again by itself. It ends with the range, or for good after `max_consecutive_errors`: then its state is
/// [`SourceState::Failed`]. Fragments that it leaves out are told by [`take_skips`](Self::take_skips), and stand as
/// [`Feed::Break`] in what it hands on.
pub struct HlsSource {
    client: Client,
    hls: Hls,
    units: HlsUnits,
    step: Option<Step>,
    endpoint: Option<Endpoint>,
    handed: Handed,
    skips: Skips,
    last_error: Option<HlsError>,
    fragments: u64,
    bytes: u64,
    read_errors: u64,
    parse_errors: u64,
}

type Failed = Box<(Failure, HlsError)>;

fn failed(failure: Failure, error: impl Into<HlsError>) -> Failed {
    Box::new((failure, error.into()))
}

type Step = Pin<Box<dyn Future<Output = Done> + Send>>;

enum Done {
    Opened { asked_at: Instant, url: Result<String, Error> },
    Fetched { asked: Asked, body: Result<Bytes, Error> },
    Waited,
}

impl HlsSource {
    /// Nothing is asked for before the first call of `next`.
    pub fn new(
        client: &Client,
        stream: &StreamId,
        play: Play,
        config: HlsConfig,
    ) -> Result<Self, HlsConfigError> {
        Ok(Self {
            client: client.clone(),
            hls: Hls::new(config, stream.clone(), play)?,
            units: HlsUnits::default(),
            step: None,
            endpoint: None,
            handed: Handed::new(&client.shared.config.clock),
            skips: Skips::default(),
            last_error: None,
            fragments: 0,
            bytes: 0,
            read_errors: 0,
            parse_errors: 0,
        })
    }

    /// The fragment that the last item is from; `None` before the first one.
    pub fn origin(&self) -> Option<Origin> {
        self.handed.origin
    }

    /// What was left out since this was asked last, oldest first; at most the newest 1000.
    pub fn take_skips(&mut self) -> Vec<Skip> {
        self.skips.take()
    }

    /// The last thing that went wrong, if anything has since the last fragment.
    pub fn last_error(&self) -> Option<&HlsError> {
        self.last_error.as_ref()
    }

    /// It is connected, and a picture came within the last 30 s.
    pub fn is_healthy(&self) -> bool {
        self.handed.is_healthy(self.state())
    }

    /// Since it was made, in the names of HLS; [`StreamSource::figures`] is the same of any source.
    pub fn hls_metrics(&self) -> HlsMetrics {
        HlsMetrics {
            frames_total: self.handed.counted.pictures,
            fragments_processed: self.fragments,
            bytes_received: self.bytes,
            read_errors_total: self.read_errors,
            parse_errors: self.parse_errors,
            fragments_skipped: self.skips.fragments,
            fragments_without_sound: self.hls.without_sound(),
            reconnects_total: self.hls.reconnects(),
            url_refreshes_total: self.hls.url_refreshes(),
            last_frame_timestamp: self.handed.last_frame_timestamp,
            latency_ms: self.handed.latency_ms,
            connection_state: state_number(self.state()),
        }
    }

    /// `None`: it is over.
    fn begin(&mut self) -> Option<Step> {
        let clock = self.client.shared.config.clock.clone();
        let client = self.client.clone();
        Some(match self.hls.next_action(clock.now()) {
            Action::Open(input) => Box::pin(async move {
                let asked_at = clock.now();
                let url = client.get_hls_streaming_session_url(&input).await;
                Done::Opened { asked_at, url }
            }),
            Action::Get(asked, path) => {
                let endpoint = self.endpoint.clone()?;
                Box::pin(async move {
                    Done::Fetched { asked, body: fetch(&client, &endpoint, asked, &path).await }
                })
            }
            Action::Wait(until) => Box::pin(async move {
                clock.sleep_until(until).await;
                Done::Waited
            }),
            Action::End | Action::GiveUp => return None,
        })
    }

    fn take(&mut self, done: Done) {
        let outcome = match done {
            Done::Waited => return,
            Done::Opened { asked_at, url } => self.opened(asked_at, url),
            Done::Fetched { asked, body } => self.fetched(asked, body),
        };
        if let Err(failed) = outcome {
            let (failure, error) = *failed;
            self.read_errors += 1;
            self.parse_errors += u64::from(failure == Failure::Unreadable);
            self.last_error = Some(error);
            self.hls.failed(failure, self.client.shared.config.clock.now(), random());
        }
        while let Some(skip) = self.hls.next_skip() {
            self.units.interrupt();
            self.skips.note(skip);
        }
    }

    fn opened(&mut self, asked_at: Instant, url: Result<String, Error>) -> Result<(), Failed> {
        let operation = Operation::GetHlsStreamingSessionUrl;
        let url = url.map_err(|error| failed(failure(None, &error), error))?;
        let control = self.client.control();
        let bad = |what: &str| {
            let what = what.to_owned();
            let error = Error::BadResponse { operation, endpoint: control.clone(), what, request_id: None };
            failed(Failure::Soon, error)
        };
        let (endpoint, path) = split_url(&url).ok_or_else(|| bad("the session's URL is none"))?;
        if control.is_tls() && !endpoint.is_tls() {
            return Err(bad("the session's URL is without TLS, the control endpoint is with"));
        }
        self.endpoint = Some(endpoint);
        self.hls.opened(path, asked_at);
        Ok(())
    }

    fn fetched(&mut self, asked: Asked, body: Result<Bytes, Error>) -> Result<(), Failed> {
        let body = body.map_err(|error| failed(failure(Some(asked), &error), error))?;
        self.bytes += body.len() as u64;
        match asked {
            Asked::Master | Asked::Playlist | Asked::SoundPlaylist => {
                let text = String::from_utf8_lossy(&body);
                let now = self.client.shared.config.clock.now();
                return self.hls.text(&text, now).map_err(|error| failed(Failure::Unreadable, error));
            }
            Asked::Init => self.units.init(&body).map_err(|error| failed(Failure::Unreadable, error))?,
            Asked::SoundInit => {
                self.units.sound_init(&body).map_err(|error| failed(Failure::Unreadable, error))?;
            }
            Asked::SoundSegment => {
                let Some(number) = self.hls.segment().map(|segment| segment.number) else { return Ok(()) };
                self.units.sound(number, &body).map_err(|error| failed(Failure::Unreadable, error))?;
            }
            Asked::Segment => {
                let Some(segment) = self.hls.segment() else { return Ok(()) };
                self.units.segment(segment, &body).map_err(|error| failed(Failure::Unreadable, error))?;
                self.fragments += 1;
                self.last_error = None;
            }
        }
        self.hls.fetched();
        Ok(())
    }
}

impl UnitSource for HlsSource {
    async fn next(&mut self) -> Option<Feed> {
        loop {
            if let Some(item) = self.handed.on(self.units.next_item()) {
                return Some(item);
            }
            if self.step.is_none() {
                self.step = self.begin();
            }
            let Some(step) = &mut self.step else {
                self.units.interrupt();
                return self.handed.on(self.units.next_item());
            };
            let done = step.as_mut().await;
            self.step = None;
            self.take(done);
        }
    }

    fn state(&self) -> SourceState {
        self.hls.state()
    }

    fn metrics(&self) -> SourceMetrics {
        self.handed.counted
    }
}

impl StreamSource for HlsSource {
    fn origin(&self) -> Option<Origin> {
        self.handed.origin
    }

    fn figures(&self) -> SourceFigures {
        let metrics = self.hls_metrics();
        SourceFigures {
            frames_read: metrics.frames_total,
            fragments_processed: metrics.fragments_processed,
            fragments_skipped: metrics.fragments_skipped,
            bytes_received: metrics.bytes_received,
            read_errors: metrics.read_errors_total,
            parse_errors: metrics.parse_errors,
            connection_resets: metrics.reconnects_total,
            url_refreshes: metrics.url_refreshes_total,
            last_frame_timestamp: metrics.last_frame_timestamp,
            latency_ms: metrics.latency_ms,
            ..SourceFigures::new(SourceMode::Hls, self.state())
        }
    }

    fn is_healthy(&self) -> bool {
        self.is_healthy()
    }

    fn last_error(&self) -> Option<String> {
        self.last_error.as_ref().map(|error| health::chain(error))
    }
}

async fn fetch(client: &Client, endpoint: &Endpoint, asked: Asked, path: &str) -> Result<Bytes, Error> {
    const PLAYLIST: &[&str] = &["application/x-mpegurl", "application/vnd.apple.mpegurl", "audio/mpegurl"];
    const MEDIA: &[&str] = &["video/mp4", "video/iso.segment", "application/octet-stream"];
    const SOUND: &[&str] = &["audio/mp4", "video/mp4", "video/iso.segment", "application/octet-stream"];
    let (operation, expected, limit_bytes) = match asked {
        Asked::Master => (Operation::GetHlsMasterPlaylist, PLAYLIST, PLAYLIST_BYTES),
        Asked::Playlist | Asked::SoundPlaylist => (Operation::GetHlsMediaPlaylist, PLAYLIST, PLAYLIST_BYTES),
        Asked::Init => (Operation::GetMp4InitFragment, MEDIA, INIT_BYTES),
        Asked::Segment => (Operation::GetMp4MediaFragment, MEDIA, SEGMENT_BYTES),
        Asked::SoundInit => (Operation::GetMp4InitFragment, SOUND, INIT_BYTES),
        Asked::SoundSegment => (Operation::GetMp4MediaFragment, SOUND, SEGMENT_BYTES),
    };
    client.fetch(operation, endpoint, path, expected, limit_bytes).await
}

/// `asked`: by the session's URL; `None`: the call that gives it.
fn failure(asked: Option<Asked>, error: &Error) -> Failure {
    let status = match error {
        Error::Service { status, .. } => *status,
        _ => 0,
    };
    match (asked, status, error.action()) {
        (_, 404, _) => Failure::Gone,
        (Some(_), 401 | 403, _) => Failure::Refused,
        (_, _, ErrorAction::RetrySlower) => Failure::Slower,
        // The fragment has no such track.
        (Some(Asked::SoundInit | Asked::SoundSegment), 400, _) => Failure::Gone,
        // The service itself says that the fragment cannot be played.
        (Some(Asked::Segment | Asked::Init), 400, _) => Failure::Unreadable,
        _ if asked.is_some() && matches!(error, Error::BadResponse { .. }) => Failure::Unreadable,
        (_, _, ErrorAction::Stop) => Failure::Slower,
        _ => Failure::Soon,
    }
}

impl fmt::Debug for HlsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HlsSource")
            .field("state", &self.state())
            .field("metrics", &self.hls_metrics())
            .field("last_error", &self.last_error)
            .finish_non_exhaustive()
    }
}
