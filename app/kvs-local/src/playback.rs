//! What a session or a clip was asked for, checked.

use std::time::Duration;

use kvs::api::{
    ContainerFormat, DEFAULT_SESSION_SECONDS, DiscontinuityMode, Display, FragmentSelectorType,
    GetDashStreamingSessionUrlInput, GetHlsStreamingSessionUrlInput, PLAYLIST_RESULTS, PlaybackMode,
    PlaybackSelector, SESSION_SECONDS, milliseconds,
};

use crate::errors::ServiceError;
use crate::footage::Player;
use crate::store::FragmentMeta;

/// The longest range, in milliseconds.
pub(crate) const LONGEST_RANGE_MS: u64 = 24 * 3_600_000;

/// A session's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Playback {
    pub(crate) player: Player,
    pub(crate) mode: PlaybackMode,
    pub(crate) range: Range,
    pub(crate) container: ContainerFormat,
    pub(crate) discontinuity: DiscontinuityMode,
    pub(crate) show_timestamp: bool,
    pub(crate) show_number: bool,
    pub(crate) lasts: Duration,
    /// Fragments in one playlist.
    pub(crate) most: usize,
}

/// Which fragments, by which of their times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) by: FragmentSelectorType,
    pub(crate) from_ms: Option<u64>,
    pub(crate) to_ms: Option<u64>,
}

impl Range {
    /// When a fragment starts, by the time that counts here.
    pub(crate) fn start_ms(&self, meta: &FragmentMeta) -> u64 {
        match self.by {
            FragmentSelectorType::ProducerTimestamp => meta.producer_ms,
            FragmentSelectorType::ServerTimestamp => meta.server_ms(),
        }
    }

    pub(crate) fn accepts(&self, meta: &FragmentMeta) -> bool {
        let start = self.start_ms(meta);
        self.from_ms.is_none_or(|from| start >= from) && self.to_ms.is_none_or(|to| start <= to)
    }
}

impl Playback {
    pub(crate) fn hls(input: &GetHlsStreamingSessionUrlInput) -> Result<Self, ServiceError> {
        let mode = input.playback_mode.unwrap_or_default();
        let range = range(mode, input.fragment_selector.as_ref(), "HLSFragmentSelector")?;
        let by_default = match range.by {
            FragmentSelectorType::ServerTimestamp => DiscontinuityMode::Always,
            FragmentSelectorType::ProducerTimestamp => DiscontinuityMode::Never,
        };
        Ok(Self {
            player: Player::Hls,
            mode,
            range,
            container: input.container_format.unwrap_or_default(),
            discontinuity: input.discontinuity_mode.unwrap_or(by_default),
            show_timestamp: input.display_fragment_timestamp == Some(Display::Always),
            show_number: false,
            lasts: lasts(input.expires)?,
            most: most(
                mode,
                input.max_media_playlist_fragment_results,
                5,
                "MaxMediaPlaylistFragmentResults",
            )?,
        })
    }

    pub(crate) fn dash(input: &GetDashStreamingSessionUrlInput) -> Result<Self, ServiceError> {
        let mode = input.playback_mode.unwrap_or_default();
        Ok(Self {
            player: Player::Other,
            mode,
            range: range(mode, input.fragment_selector.as_ref(), "DASHFragmentSelector")?,
            container: ContainerFormat::FragmentedMp4,
            discontinuity: DiscontinuityMode::Never,
            show_timestamp: input.display_fragment_timestamp == Some(Display::Always),
            show_number: input.display_fragment_number == Some(Display::Always),
            lasts: lasts(input.expires)?,
            most: most(mode, input.max_manifest_fragment_results, 5, "MaxManifestFragmentResults")?,
        })
    }
}

fn range(mode: PlaybackMode, selector: Option<&PlaybackSelector>, name: &str) -> Result<Range, ServiceError> {
    let invalid = |what: &str| Err(ServiceError::invalid_argument(format!("{name}: {what}")));
    let by = selector.and_then(|selector| selector.fragment_selector_type);
    let by = by.unwrap_or(FragmentSelectorType::ServerTimestamp);
    let times = selector.and_then(|selector| selector.timestamp_range.as_ref());
    let from = times.and_then(|times| times.start_timestamp).map(milliseconds);
    let to = times.and_then(|times| times.end_timestamp).map(milliseconds);
    match (mode, from, to) {
        (PlaybackMode::Live, None, None) if times.is_none() => {}
        (PlaybackMode::Live, ..) => return invalid("TimestampRange must not be specified for LIVE."),
        (_, None, _) => return invalid("StartTimestamp must be specified unless the mode is LIVE."),
        (PlaybackMode::OnDemand, _, None) => return invalid("EndTimestamp must be specified for ON_DEMAND."),
        (_, Some(from), Some(to)) if to <= from => {
            return invalid("EndTimestamp must be after StartTimestamp.");
        }
        (_, Some(from), Some(to)) if to - from > LONGEST_RANGE_MS => {
            return invalid("EndTimestamp must be within 24 hours of StartTimestamp.");
        }
        _ => {}
    }
    Ok(Range { by, from_ms: from, to_ms: to })
}

fn lasts(expires: Option<u32>) -> Result<Duration, ServiceError> {
    let seconds = expires.unwrap_or(DEFAULT_SESSION_SECONDS);
    if !SESSION_SECONDS.contains(&seconds) {
        return Err(ServiceError::invalid_argument("Expires must be from 300 to 43200 seconds."));
    }
    Ok(Duration::from_secs(seconds.into()))
}

fn most(mode: PlaybackMode, asked: Option<u32>, live: u32, name: &str) -> Result<usize, ServiceError> {
    let most = asked.unwrap_or(if mode == PlaybackMode::OnDemand { 1_000 } else { live });
    if !PLAYLIST_RESULTS.contains(&most) {
        return Err(ServiceError::invalid_argument(format!("{name} must be from 1 to 5000.")));
    }
    Ok(most as usize)
}
