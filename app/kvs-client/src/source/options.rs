//! Which way a stream is read, chosen by a value, with everything that the ways can be told.

use std::fmt;
use std::str::FromStr;

use kvs::api::{FragmentSelectorType, StreamId};
use kvs::read::follow::{FollowConfig, FollowConfigError};
use kvs::read::fragment_list::{FragmentListConfig, FragmentListConfigError, Wanted};
use kvs::read::hls::{HlsConfig, HlsConfigError, Play};
use kvs::read::units::Origin;
use media::{Feed, SourceMetrics, SourceState, UnitSource};

use super::figures::{SourceFigures, StreamSource};
use super::follow::FollowSource;
use super::fragment_list::FragmentListSource;
use super::get_media::SourceError;
#[cfg(feature = "hls")]
use super::hls::{HlsError, HlsSource};
use crate::client::Client;
use crate::error::Error;

/// The ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SourceMode {
    /// Live, 1 to 3 s behind, by GetMedia; needs no retention. `GETMEDIA`.
    #[default]
    GetMedia,
    /// What is archived, by HLS: live, some fragments behind, or a range of time. `HLS`.
    Hls,
    /// What is archived, whole fragments by number or by time, as they were uploaded. `FRAGMENT_LIST`.
    FragmentList,
    /// A camera itself, which is no matter of this crate: see [`Plain`](super::Plain). `RTSP`.
    Rtsp,
}

impl SourceMode {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::GetMedia, Self::Hls, Self::FragmentList, Self::Rtsp];

    /// As configurations have it: `GETMEDIA`, `HLS`, `FRAGMENT_LIST`, `RTSP`.
    pub fn name(self) -> &'static str {
        match self {
            Self::GetMedia => "GETMEDIA",
            Self::Hls => "HLS",
            Self::FragmentList => "FRAGMENT_LIST",
            Self::Rtsp => "RTSP",
        }
    }

    /// In front of the names of its figures.
    pub fn metrics_prefix(self) -> &'static str {
        match self {
            Self::GetMedia => "kvs_getmedia",
            Self::Hls => "kvs_hls",
            Self::FragmentList => "kvs_fragment_list",
            Self::Rtsp => "kvs_rtsp",
        }
    }
}

impl fmt::Display for SourceMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SourceMode {
    type Err = OptionsError;

    /// In any case of letters.
    fn from_str(text: &str) -> Result<Self, OptionsError> {
        let found = Self::ALL.into_iter().find(|mode| mode.name().eq_ignore_ascii_case(text));
        found.ok_or_else(|| OptionsError::Mode { found: text.to_owned() })
    }
}

/// How a stream is read: the mode, and what each mode can be told. Those of the other modes are of no effect.
///
/// | known as | here | default | accepted |
/// |---|---|---|---|
/// | `start_selector` | [`get_media.start`](FollowConfig::start) | NOW | all of KVS |
/// | `max_fragment_age_seconds` | [`get_media.max_fragment_age`](FollowConfig::max_fragment_age) | 30 s | any, or none |
/// | `chunk_size` | [`get_media.chunk_size`](FollowConfig::chunk_size) | 65536 | 1024 to 16777216 |
/// | `reconnect_delay_seconds` | [`get_media.reconnect_delay`](FollowConfig::reconnect_delay) | 2 s | above 0, up to `max_reconnect_delay` |
/// | `max_reconnect_attempts` | [`get_media.max_reconnect_attempts`](FollowConfig::max_reconnect_attempts) | 10 | 1 and more, or none: for ever |
/// | `hls_session_seconds` | [`hls.hls_session_seconds`](HlsConfig::hls_session_seconds) | 300 | 60 to 43200; the service is asked for 300 at least |
/// | `url_refresh_margin` | [`hls.url_refresh_margin`](HlsConfig::url_refresh_margin) | 30 s | less than the session |
/// | `reconnect_delay` | [`hls.reconnect_delay`](HlsConfig::reconnect_delay) | 5 s | above 0, up to `max_reconnect_delay` |
/// | `max_reconnect_delay` | [`hls.max_reconnect_delay`](HlsConfig::max_reconnect_delay) | 60 s | |
/// | `backoff_multiplier` | [`hls.backoff_multiplier`](HlsConfig::backoff_multiplier) | 2.0 | 1.0 to 10.0 |
/// | `max_consecutive_errors` | [`hls.max_consecutive_errors`](HlsConfig::max_consecutive_errors) | 10 | 1 and more, or none: for ever |
///
/// The queue of decoded pictures is `frames::FrameOptions`.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceOptions {
    /// Which way.
    pub mode: SourceMode,
    /// Of [`SourceMode::GetMedia`].
    pub get_media: FollowConfig,
    /// Of [`SourceMode::Hls`].
    pub hls: HlsConfig,
    /// What HLS plays: live, or a range of producer time.
    pub play: Play,
    /// Of [`SourceMode::FragmentList`].
    pub fragment_list: FragmentListConfig,
    /// What it reads; `None`: the range of [`play`](Self::play).
    pub wanted: Option<Wanted>,
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self {
            mode: SourceMode::GetMedia,
            get_media: FollowConfig::default(),
            hls: HlsConfig::default(),
            play: Play::Live,
            fragment_list: FragmentListConfig::default(),
            wanted: None,
        }
    }
}

impl SourceOptions {
    /// Defaults of this mode.
    pub fn new(mode: SourceMode) -> Self {
        Self { mode, ..Self::default() }
    }
}

/// Why there is no such source.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OptionsError {
    /// No mode has this name.
    #[error("mode is `{found}`, expected GETMEDIA, HLS, FRAGMENT_LIST or RTSP")]
    Mode {
        /// What was asked for.
        found: String,
    },
    /// A value of GetMedia is out of its range.
    #[error(transparent)]
    GetMedia(#[from] FollowConfigError),
    /// A value of HLS is out of its range.
    #[error(transparent)]
    Hls(#[from] HlsConfigError),
    /// A value of lists is out of its range.
    #[error(transparent)]
    FragmentList(#[from] FragmentListConfigError),
    /// A list without an end.
    #[error(
        "FRAGMENT_LIST reads a range of time or given fragments, found neither; for what comes live take GETMEDIA or HLS"
    )]
    NothingWanted,
    /// The mode is no matter of this crate, or was left out of this build.
    #[error("mode {mode} is not here: {fix}")]
    Absent {
        /// What was asked for.
        mode: SourceMode,
        /// What to change.
        fix: &'static str,
    },
}

/// A stream as a source of pictures, read in the way that a value says.
#[derive(Debug)]
pub enum Source {
    /// By GetMedia.
    GetMedia(Box<FollowSource>),
    /// By HLS.
    #[cfg(feature = "hls")]
    Hls(Box<HlsSource>),
    /// By GetMediaForFragmentList.
    FragmentList(Box<FragmentListSource>),
}

impl Source {
    /// Nothing is asked for before the first call of `next`.
    pub fn new(client: &Client, stream: &StreamId, options: &SourceOptions) -> Result<Self, OptionsError> {
        let absent = |fix| OptionsError::Absent { mode: options.mode, fix };
        match options.mode {
            SourceMode::GetMedia => {
                let source = FollowSource::new(client, stream, options.get_media.clone())?;
                Ok(Self::GetMedia(Box::new(source)))
            }
            #[cfg(feature = "hls")]
            SourceMode::Hls => {
                let source = HlsSource::new(client, stream, options.play, options.hls.clone())?;
                Ok(Self::Hls(Box::new(source)))
            }
            #[cfg(not(feature = "hls"))]
            SourceMode::Hls => Err(absent("build kvs-client with its feature `hls`")),
            SourceMode::FragmentList => {
                let by = FragmentSelectorType::ProducerTimestamp;
                let wanted = match (&options.wanted, options.play) {
                    (Some(wanted), _) => wanted.clone(),
                    (None, Play::Range { from_ms, to_ms }) => Wanted::Range { by, from_ms, to_ms },
                    (None, Play::Live) => return Err(OptionsError::NothingWanted),
                };
                let config = options.fragment_list.clone();
                Ok(Self::FragmentList(Box::new(FragmentListSource::new(client, stream, wanted, config)?)))
            }
            SourceMode::Rtsp => Err(absent("a camera's own source is handed on by `Plain`")),
        }
    }
}

impl Source {
    /// The call that failed last, where that is what went wrong last: it says what to do ([`Error::action`]) and what to
    /// change ([`Error::advice`]).
    pub fn last_call_error(&self) -> Option<&Error> {
        match self {
            Self::GetMedia(source) => match source.last_error()? {
                SourceError::Call(error) => Some(error),
                _ => None,
            },
            #[cfg(feature = "hls")]
            Self::Hls(source) => match source.last_error()? {
                HlsError::Call(error) => Some(error),
                _ => None,
            },
            Self::FragmentList(source) => source.last_call_error(),
        }
    }
}

/// The same of whichever it is.
macro_rules! each {
    ($source:expr, $inner:ident => $result:expr) => {
        match $source {
            Source::GetMedia($inner) => $result,
            #[cfg(feature = "hls")]
            Source::Hls($inner) => $result,
            Source::FragmentList($inner) => $result,
        }
    };
}

impl UnitSource for Source {
    async fn next(&mut self) -> Option<Feed> {
        each!(self, source => source.next().await)
    }

    fn state(&self) -> SourceState {
        each!(self, source => source.state())
    }

    fn metrics(&self) -> SourceMetrics {
        each!(self, source => source.metrics())
    }
}

impl StreamSource for Source {
    fn origin(&self) -> Option<Origin> {
        each!(self, source => source.origin())
    }

    fn figures(&self) -> SourceFigures {
        each!(self, source => source.figures())
    }

    fn is_healthy(&self) -> bool {
        each!(self, source => source.is_healthy())
    }

    fn last_error(&self) -> Option<String> {
        each!(self, source => StreamSource::last_error(&**source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_known_by_its_name_in_any_case() {
        for mode in SourceMode::ALL {
            assert_eq!(mode.name().parse(), Ok(mode));
            assert_eq!(mode.to_string().to_lowercase().parse(), Ok(mode));
        }
        let error = "WEBRTC".parse::<SourceMode>().expect_err("unknown").to_string();
        assert_eq!(error, "mode is `WEBRTC`, expected GETMEDIA, HLS, FRAGMENT_LIST or RTSP");
    }

    #[test]
    fn defaults_are_those_that_users_have_today() {
        let options = SourceOptions::default();
        let seconds = |duration: std::time::Duration| duration.as_secs_f64();
        let get_media = &options.get_media;
        assert_eq!(options.mode, SourceMode::GetMedia);
        assert_eq!(get_media.start, kvs::api::StartSelector::now());
        assert_eq!(get_media.max_fragment_age.map(seconds), Some(30.0));
        assert_eq!((get_media.chunk_size, seconds(get_media.reconnect_delay)), (65_536, 2.0));
        assert_eq!(get_media.max_reconnect_attempts, Some(10));
        let hls = &options.hls;
        assert_eq!((hls.hls_session_seconds, seconds(hls.url_refresh_margin)), (300, 30.0));
        assert_eq!((seconds(hls.reconnect_delay), seconds(hls.max_reconnect_delay)), (5.0, 60.0));
        assert_eq!((hls.backoff_multiplier, hls.max_consecutive_errors), (2.0, Some(10)));
        for preset in [HlsConfig::conservative(), HlsConfig::aggressive(), HlsConfig::default()] {
            assert_eq!(preset.check(), Ok(()));
        }
    }

    #[test]
    fn ranges_are_those_that_users_have_today() {
        let check =
            |seconds| HlsConfig { hls_session_seconds: seconds, ..HlsConfig::default() }.check().is_ok();
        assert_eq!([59, 60, 43_200, 43_201].map(check), [false, true, true, false]);
        let check = |bytes| FollowConfig { chunk_size: bytes, ..FollowConfig::default() }.check().is_ok();
        assert_eq!([1_023, 1_024, 16 << 20, (16 << 20) + 1].map(check), [false, true, true, false]);
    }
}
