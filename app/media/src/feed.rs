//! What every source of coded pictures hands on, in the order in which it came.

use std::sync::Arc;

use crate::{AccessUnit, AudioFormat, AudioFrame};

/// One item from a camera or another source.
#[derive(Clone, Debug)]
pub enum Feed {
    /// The next coded picture.
    Video(AccessUnit),
    /// The source has this audio track.
    AudioTrack(Arc<AudioFormat>),
    Audio(AudioFrame),
    /// No more pictures for now, or the next one does not follow the last: stalled, disconnected, or data was lost.
    Break,
    /// What follows has its own time: it may lie before, or far behind, what came until now.
    NewTimeline,
}
