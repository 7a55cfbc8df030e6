//! Access units, H.264 and H.265 parameter sets, Matroska write and incremental read, fragmented MP4 write and read,
//! MPEG transport stream write. No IO.
//!
//! Bytes come in as arguments and go out as values. Payloads are `Bytes` and are passed on, never copied.
//! Nothing here knows a clock, a socket or a runtime, and nothing that comes from outside panics.

pub mod access_unit;
mod bits;
mod feed;
pub mod h264;
pub mod h265;
pub mod mkv;
pub mod mp4;
pub mod nal;
mod record;
mod source;
pub mod ts;

pub use access_unit::{
    AccessUnit, AudioCodec, AudioFormat, AudioFrame, ClockSource, FormatError, ProducerTimestamp, VideoCodec,
    VideoFormat,
};
pub use bits::BitsError;
pub use feed::Feed;
pub use source::{SourceMetrics, SourceState, UnitSource};
