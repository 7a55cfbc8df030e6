//! A camera as any consumer of coded pictures sees it.
//!
//! ```text
//!  source::run --Feed, 256--> RtspSource --next()--> consumer
//!  never waits    |                at the consumer's own pace
//!                 +-- no room: pictures are dropped up to the next random access point
//! ```
//!
//! The queue stands between a socket that must be read at once and a consumer that may be slow; an item goes through it
//! once and is not copied. Whoever wants to see the items on their way in (a fan-out) runs [`source::run`] himself and
//! passes them on into [`RtspSource::channel`].

use clock::Clock;
use media::{Feed, SourceMetrics, SourceState, UnitSource};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::source::{self, FEED_PLACES, IngestReport, IngestState};
use crate::timeline::Timeline;

/// The feed of one camera. It ends when its sender is dropped, which a source made by [`open`](Self::open) never does by
/// itself: it connects again for as long as it is held.
#[derive(Debug)]
pub struct RtspSource {
    items: mpsc::Receiver<Feed>,
    report: watch::Receiver<IngestReport>,
    metrics: SourceMetrics,
    /// What reads the camera; nothing where the owner does so himself.
    reading: JoinSet<()>,
    stop: CancellationToken,
}

impl RtspSource {
    /// Reads `camera` on a task of its own, until it is dropped or [closed](Self::close).
    pub fn open(camera: config::Camera, clock: Clock) -> Self {
        let (report, reports) = watch::channel(IngestReport::new(clock.wall()));
        let (feed, mut source) = Self::channel(reports);
        let stop = source.stop.clone();
        source.reading.spawn(async move {
            let send = |item| feed.try_send(item).is_ok();
            source::run(&camera, send, &mut Timeline::default(), report, clock, stop).await;
        });
        source
    }

    /// What `source::run` feeds with its items, and the source that hands them on; `report` is the one that it writes.
    pub fn channel(report: watch::Receiver<IngestReport>) -> (mpsc::Sender<Feed>, Self) {
        let (feed, items) = mpsc::channel(FEED_PLACES);
        let (reading, stop) = (JoinSet::new(), CancellationToken::new());
        (feed, Self { items, report, metrics: SourceMetrics::default(), reading, stop })
    }

    /// Where the camera stands, in all that is known of it.
    pub fn report(&self) -> watch::Receiver<IngestReport> {
        self.report.clone()
    }

    /// Ends the session in order: some cameras allow only one, and free it when they are told. A source that is dropped
    /// only closes the connection.
    pub async fn close(mut self) {
        self.stop.cancel();
        while self.reading.join_next().await.is_some() {}
    }
}

impl UnitSource for RtspSource {
    async fn next(&mut self) -> Option<Feed> {
        let item = self.items.recv().await?;
        self.metrics.count(&item);
        Some(item)
    }

    fn state(&self) -> SourceState {
        state_of(&self.report.borrow())
    }

    fn metrics(&self) -> SourceMetrics {
        self.metrics
    }
}

fn state_of(report: &IngestReport) -> SourceState {
    match report.state {
        IngestState::WaitingForKey | IngestState::WaitingForClock | IngestState::Live => {
            SourceState::Connected
        }
        IngestState::Stopped => SourceState::Disconnected,
        IngestState::Connecting | IngestState::BackingOff if report.needs_operator => SourceState::Failed,
        IngestState::Connecting | IngestState::BackingOff if report.last_frame.is_some() => {
            SourceState::Reconnecting
        }
        IngestState::Connecting | IngestState::BackingOff => SourceState::Connecting,
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_state_is_told_from_the_camera_s_report() {
        use IngestState::{BackingOff, Connecting, Live, Stopped, WaitingForClock, WaitingForKey};
        let cases = [
            (Connecting, false, false, SourceState::Connecting),
            (BackingOff, false, false, SourceState::Connecting),
            (BackingOff, false, true, SourceState::Failed),
            (Connecting, false, true, SourceState::Failed),
            (WaitingForKey, false, true, SourceState::Connected),
            (WaitingForClock, true, false, SourceState::Connected),
            (Live, true, false, SourceState::Connected),
            (BackingOff, true, false, SourceState::Reconnecting),
            (Connecting, true, false, SourceState::Reconnecting),
            (BackingOff, true, true, SourceState::Failed),
            (Stopped, true, true, SourceState::Disconnected),
        ];
        for (state, had_pictures, needs_operator, expected) in cases {
            let last_frame = had_pictures.then_some(UNIX_EPOCH);
            let report = IngestReport { state, last_frame, needs_operator, ..IngestReport::new(UNIX_EPOCH) };
            assert_eq!(state_of(&report), expected, "{state:?}, pictures {had_pictures}, {needs_operator}");
        }
    }
}
