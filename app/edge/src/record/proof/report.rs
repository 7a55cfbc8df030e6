//! What the proof of one camera tells.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use health::{Percentiles, Problem, Samples};
use kvs::FragmentNumber;
use kvs::ledger::Counts;
use kvs::proof::schedule::{OthersCounts, Verdict};
use kvs::read::chunk::Chunk;
use media::ProducerTimestamp;

use super::play::Played;

/// Samples kept: more than a minute of pictures.
const SAMPLES: usize = 2048;

/// Where the proof of one camera stands; counters run since start.
#[derive(Clone, Debug)]
pub struct ProofReport {
    pub verdict: Verdict,
    /// When this verdict began.
    pub since: SystemTime,
    pub problem: Option<Problem>,
    /// It ends only when somebody changes something, whatever the verdict is.
    pub needs_somebody: bool,
    pub counts: Counts,
    pub others: OthersCounts,
    /// Fragments that should have been read back by now.
    pub overdue: usize,
    pub last_identical: Option<(ProducerTimestamp, Option<FragmentNumber>)>,
    /// From a fragment's completion to its last byte coming back, ms.
    pub delay: Samples,
    pub latency: LatencySamples,
    /// Fragments and bytes of them that were read back.
    pub read_fragments: u64,
    pub read_bytes: u64,
    /// How far the newest answer of GetMedia was behind.
    pub behind_ms: Option<u64>,
    /// What was played last.
    pub played: Option<Played>,
    /// GetMedia answers begun.
    pub readers: u64,
    pub failures: u64,
}

impl ProofReport {
    /// Nothing is proven yet, as of `since`.
    pub fn new(since: SystemTime) -> Self {
        Self {
            verdict: Verdict::Unknown,
            since,
            problem: None,
            needs_somebody: false,
            counts: Counts::default(),
            others: OthersCounts::default(),
            overdue: 0,
            last_identical: None,
            delay: Samples::new(SAMPLES),
            latency: LatencySamples::default(),
            read_fragments: 0,
            read_bytes: 0,
            behind_ms: None,
            played: None,
            readers: 0,
            failures: 0,
        }
    }
}

impl ProofReport {
    /// A chunk was read back.
    pub(super) fn count_read(&mut self, chunk: &Chunk) {
        self.behind_ms = chunk.millis_behind_now.or(self.behind_ms);
        if let Some(cluster) = &chunk.cluster {
            self.read_fragments += 1;
            self.read_bytes += cluster.bytes;
        }
    }
}

/// From the camera's (or receive) clock to the last byte of the same picture read back, ms. They come with every picture, so
/// they are looked at and not waited for: nobody wakes. Clones share them.
#[derive(Clone, Debug)]
pub struct LatencySamples(Arc<Mutex<Samples>>);

impl Default for LatencySamples {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Samples::new(SAMPLES))))
    }
}

impl LatencySamples {
    pub fn add(&self, values_ms: impl IntoIterator<Item = f64>) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        values_ms.into_iter().for_each(|value| samples.add(value));
    }

    /// Values ever added.
    pub fn total(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).total()
    }

    pub fn percentiles(&self) -> Option<Percentiles> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).percentiles()
    }
}
