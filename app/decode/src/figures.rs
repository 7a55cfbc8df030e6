//! What a decoder has done so far.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{DecodeError, Skipped};

/// What a [`Decoder`](crate::Decoder) does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nobody wants pictures: there is no pipeline.
    Unwanted,
    /// The next random access point begins a pipeline.
    Waiting,
    /// As before, but not yet: the last pipeline failed.
    BackOff,
    /// A pipeline is being built; access units wait for it.
    Starting,
    Running,
}

/// A snapshot; numbers count since [`Decoder::start`](crate::Decoder::start).
///
/// Each pushed access unit is in at most one of `left_out`, `dropped` and `refused`, and the rest is decoded, or
/// `damaged`, or still on its way.
#[derive(Clone, Debug, PartialEq)]
pub struct DecodeReport {
    pub stage: Stage,
    /// Element name of the decoder in use, or of the last one.
    pub decoder: Option<String>,
    /// Decoders that come before it and are not used, with reasons.
    pub skipped: Vec<Skipped>,
    /// Access units given to [`Decoder::push`](crate::Decoder::push).
    pub pushed: u64,
    /// Pictures that came out of the decoder.
    pub decoded: u64,
    /// Pictures given to the callback.
    pub handed_on: u64,
    /// Access units that arrived cut, that gave no picture, or gave one that the decoder calls corrupt.
    pub damaged: u64,
    /// Access units left out because the decoder is behind, up to the next random access point, and those that were on
    /// their way when a pipeline was given up.
    pub dropped: u64,
    /// Access units left out on purpose: nobody wants pictures, they precede the first random access point, key frames
    /// only, a pipeline failed a moment ago.
    pub left_out: u64,
    /// Access units whose pictures are larger than the limit.
    pub refused: u64,
    /// Pictures that came out with a time that no access unit had. They are not handed on.
    pub unknown: u64,
    /// Pipelines given up because of an error or silence; a new one follows each.
    pub rebuilt: u64,
    /// Pipelines that do not stop.
    pub stuck: u64,
    pub last_problem: Option<DecodeError>,
}

#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) pushed: AtomicU64,
    pub(crate) decoded: AtomicU64,
    pub(crate) handed_on: AtomicU64,
    pub(crate) damaged: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) left_out: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) rebuilt: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Relaxed);
}

impl Figures {
    /// A report of these numbers, the rest empty.
    pub(crate) fn report(&self, stage: Stage) -> DecodeReport {
        DecodeReport {
            stage,
            decoder: None,
            skipped: Vec::new(),
            pushed: self.pushed.load(Relaxed),
            decoded: self.decoded.load(Relaxed),
            handed_on: self.handed_on.load(Relaxed),
            damaged: self.damaged.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            left_out: self.left_out.load(Relaxed),
            refused: self.refused.load(Relaxed),
            unknown: self.unknown.load(Relaxed),
            rebuilt: self.rebuilt.load(Relaxed),
            stuck: 0,
            last_problem: None,
        }
    }
}
