//! What a source has handed on, and what it has left out.

use std::collections::VecDeque;
use std::time::Instant;

use clock::Clock;
use kvs::read::skip::Skip;
use kvs::read::units::Origin;
use media::{Feed, SourceMetrics, SourceState};

use super::HEALTHY;

/// Reports that nobody asks for are forgotten.
const SKIPS_KEPT: usize = 1_000;

pub(super) struct Handed {
    clock: Clock,
    /// The fragment that the last item is from.
    pub(super) origin: Option<Origin>,
    pub(super) counted: SourceMetrics,
    /// Of the last picture, Unix seconds.
    pub(super) last_frame_timestamp: Option<f64>,
    /// From its producer timestamp to then.
    pub(super) latency_ms: Option<u64>,
    last_frame: Option<Instant>,
}

impl Handed {
    pub(super) fn new(clock: &Clock) -> Self {
        Self {
            clock: clock.clone(),
            origin: None,
            counted: SourceMetrics::default(),
            last_frame_timestamp: None,
            latency_ms: None,
            last_frame: None,
        }
    }

    /// The next item on its way to the consumer.
    pub(super) fn on(&mut self, next: Option<(Feed, Origin)>) -> Option<Feed> {
        let (item, origin) = next?;
        self.counted.count(&item);
        self.origin = Some(origin);
        if let Feed::Video(unit) = &item {
            let now_ms = self.clock.wall_ms();
            self.last_frame_timestamp = Some(kvs::api::seconds(now_ms));
            self.latency_ms = Some(now_ms.saturating_sub(unit.timestamp.as_millis()));
            self.last_frame = Some(self.clock.now());
        }
        Some(item)
    }

    /// It is connected, and a picture came within the last 30 s.
    pub(super) fn is_healthy(&self, state: SourceState) -> bool {
        state == SourceState::Connected && self.last_frame.is_some_and(|at| self.clock.since(at) <= HEALTHY)
    }
}

/// Reports of fragments that were left out.
#[derive(Debug, Default)]
pub(super) struct Skips {
    kept: VecDeque<Skip>,
    /// Fragments, as far as their number is known.
    pub(super) fragments: u64,
}

impl Skips {
    pub(super) fn note(&mut self, skip: Skip) {
        self.fragments += skip.fragments.unwrap_or(0);
        if self.kept.len() == SKIPS_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(skip);
    }

    /// Since this was asked last, oldest first.
    pub(super) fn take(&mut self) -> Vec<Skip> {
        self.kept.drain(..).collect()
    }
}
