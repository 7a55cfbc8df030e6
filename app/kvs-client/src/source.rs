//! KVS as a source of coded pictures: what reads a stream and hands on [`media::Feed`] items by [`media::UnitSource`],
//! as a camera's own source does, so that a consumer does not see the difference.
//!
//! | source | what | state |
//! |---|---|---|
//! | [`GetMediaSource`] | GetMedia from a start selector on | one answer |
//! | [`FollowSource`] | the same over many answers, live for as long as one likes | connects again by itself |
//! | `HlsSource` (feature `hls`) | what is archived, live or a range of time | connects again by itself |
//! | [`FragmentListSource`] | stored fragments, by number or by time, each whole | connects again by itself |
//! | [`DocumentSource`] | whole fragments that somebody has | ends with them |
//!
//! [`Source`] is any of them, chosen by [`SourceOptions::mode`]; all of them tell the same [`SourceFigures`]. Decoded pictures
//! out of any of them: `frames` (feature `decode`).
//!
//! Each item is of a fragment; `origin` says which, with its producer and server timestamps. No source has a queue: who
//! reads slowly is behind, and the service waits (see [`FollowConfig::max_fragment_age`] for what is then left out). To
//! come: a second audio track.

use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

mod documents;
mod figures;
mod follow;
mod fragment_list;
mod get_media;
mod handed;
#[cfg(feature = "hls")]
mod hls;
#[cfg(feature = "hls")]
mod hls_metrics;
mod intake;
mod metrics;
mod options;

pub use documents::{DocumentError, DocumentSource};
pub use figures::{Plain, SourceFigures, StreamSource};
pub use follow::FollowSource;
pub use fragment_list::{FragmentListSource, ListError};
pub use get_media::{GetMediaSource, SourceError};
#[cfg(feature = "hls")]
pub use hls::{HlsError, HlsSource};
#[cfg(feature = "hls")]
pub use hls_metrics::HlsMetrics;
pub use kvs::read::follow::{FollowConfig, FollowConfigError};
pub use kvs::read::fragment_list::{FragmentListConfig, FragmentListConfigError, Wanted};
pub use kvs::read::hls::{HlsConfig, HlsConfigError, Play};
pub use kvs::read::skip::{Skip, SkipReason};
pub use kvs::read::units::Origin;
pub use metrics::GetMediaMetrics;
pub use options::{OptionsError, Source, SourceMode, SourceOptions};

/// Without a picture for so long a source is not healthy.
pub(crate) const HEALTHY: Duration = Duration::from_secs(30);

/// In 0..1, spreads retries; good for nothing else.
#[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
fn random() -> f64 {
    let bits = std::hash::RandomState::new().build_hasher().finish() >> 11;
    bits as f64 / (1_u64 << 53) as f64
}
