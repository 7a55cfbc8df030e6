//! KVS as a source of coded pictures: what reads a stream and hands on [`media::Feed`] items by [`media::UnitSource`],
//! as a camera's own source does, so that a consumer does not see the difference.
//!
//! | source | what | state |
//! |---|---|---|
//! | [`GetMediaSource`] | GetMedia from a start selector on | one answer; whoever wants to go on begins another with [`GetMediaSource::resume`] |
//! | `HlsSource` (feature `hls`) | what is archived, live or a range of time | connects again by itself |
//! | fragment list | | to come |
//!
//! Each item is of a fragment; [`GetMediaSource::origin`] says which, with its producer and server timestamps. To come
//! for GetMedia ([`kvs::read::get_media::GetMedia`] has its rules): resuming by itself, the planned hand-over before
//! the service ends an answer, a bounded age of fragments, and a second audio track.

mod get_media;
#[cfg(feature = "hls")]
mod hls;
#[cfg(feature = "hls")]
mod hls_metrics;

pub use get_media::{GetMediaSource, SourceError};
#[cfg(feature = "hls")]
pub use hls::{HlsError, HlsSource};
#[cfg(feature = "hls")]
pub use hls_metrics::HlsMetrics;
#[cfg(feature = "hls")]
pub use kvs::read::hls::session::SkipReason;
#[cfg(feature = "hls")]
pub use kvs::read::hls::{HlsConfig, HlsConfigError, Play, Skip};
pub use kvs::read::units::Origin;
