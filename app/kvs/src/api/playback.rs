//! Bodies of the operations that play what is archived: HLS and DASH sessions, clips.

use serde::{Deserialize, Serialize};

use super::{FragmentSelector, FragmentSelectorType, StreamId};

/// Paths of what a session's URL leads to. They are fetched by GET, and the token in the query is all the authority.
pub mod session {
    pub const HLS_MASTER: &str = "/hls/v1/getHLSMasterPlaylist.m3u8";
    pub const HLS_MEDIA: &str = "/hls/v1/getHLSMediaPlaylist.m3u8";
    pub const HLS_INIT: &str = "/hls/v1/getMP4InitFragment.mp4";
    pub const HLS_FRAGMENT: &str = "/hls/v1/getMP4MediaFragment.mp4";
    pub const HLS_TS: &str = "/hls/v1/getTSFragment.ts";
    pub const DASH_MANIFEST: &str = "/dash/v1/getDASHManifest.mpd";
    pub const DASH_INIT: &str = "/dash/v1/getMP4InitFragment.mp4";
    pub const DASH_FRAGMENT: &str = "/dash/v1/getMP4MediaFragment.mp4";
}

/// Seconds that a session may last, and how long it does by default.
pub const SESSION_SECONDS: std::ops::RangeInclusive<u32> = 300..=43_200;
/// See [`SESSION_SECONDS`].
pub const DEFAULT_SESSION_SECONDS: u32 = 300;
/// Fragments that a playlist or manifest may list.
pub const PLAYLIST_RESULTS: std::ops::RangeInclusive<u32> = 1..=5_000;

/// What of a stream is played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PlaybackMode {
    /// The newest fragments, as they come.
    #[default]
    Live,
    /// From a start time on, one fragment after the other as time passes.
    LiveReplay,
    /// A range of time, all at once.
    OnDemand,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ContainerFormat {
    #[default]
    FragmentedMp4,
    MpegTs,
}

/// Between which fragments a playlist says that they do not follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DiscontinuityMode {
    /// All. The default by server time.
    Always,
    /// None. The default by producer time.
    Never,
    /// Those with a gap or an overlap of more than 50 ms.
    OnDiscontinuity,
}

/// Whether a playlist says something of each fragment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Display {
    #[default]
    Never,
    Always,
}

/// Epoch seconds; a fragment counts by its start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PlaybackRange {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_timestamp: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_timestamp: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PlaybackSelector {
    /// Server time by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fragment_selector_type: Option<FragmentSelectorType>,
    /// Forbidden for LIVE; else with a start, and for ON_DEMAND with an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp_range: Option<PlaybackRange>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetHlsStreamingSessionUrlInput {
    #[serde(flatten)]
    pub stream: StreamId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub playback_mode: Option<PlaybackMode>,
    #[serde(default, rename = "HLSFragmentSelector", skip_serializing_if = "Option::is_none")]
    pub fragment_selector: Option<PlaybackSelector>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_format: Option<ContainerFormat>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discontinuity_mode: Option<DiscontinuityMode>,
    /// As EXT-X-PROGRAM-DATE-TIME, of the time that the selector goes by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_fragment_timestamp: Option<Display>,
    /// Seconds, see [`SESSION_SECONDS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u32>,
    /// See [`PLAYLIST_RESULTS`]; 5 by default, 1000 for ON_DEMAND.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_media_playlist_fragment_results: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetHlsStreamingSessionUrlOutput {
    #[serde(rename = "HLSStreamingSessionURL")]
    pub url: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetDashStreamingSessionUrlInput {
    #[serde(flatten)]
    pub stream: StreamId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub playback_mode: Option<PlaybackMode>,
    #[serde(default, rename = "DASHFragmentSelector", skip_serializing_if = "Option::is_none")]
    pub fragment_selector: Option<PlaybackSelector>,
    /// As `kvs:ts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_fragment_timestamp: Option<Display>,
    /// As `kvs:fn`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_fragment_number: Option<Display>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_manifest_fragment_results: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetDashStreamingSessionUrlOutput {
    #[serde(rename = "DASHStreamingSessionURL")]
    pub url: String,
}

/// One MP4 of at most 200 fragments or 100 MB, from a range of at most 24 hours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetClipInput {
    #[serde(flatten)]
    pub stream: StreamId,
    pub clip_fragment_selector: FragmentSelector,
}
