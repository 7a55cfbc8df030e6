//! One feed to two consumers that know nothing of each other.
//!
//! The upload decides: when its queue is full, ingest drops the rest of the GOP and counts it. The analytics branch gets
//! the same access units as far as its queue takes them: when that is full, its pictures are left out up to the next
//! random access point, and nobody else notices.

use std::time::Duration;

use analytics::FeedItem;
use media::{AccessUnit, Feed};
use tokio::sync::mpsc::Sender;
use tokio::sync::watch;

use crate::gather::Gather;

/// The ends of one camera's feed.
pub struct Fanout {
    /// Absent where nothing is recorded.
    upload: Option<Gather>,
    analytics: Option<Analytics>,
}

struct Analytics {
    feed: Sender<FeedItem>,
    /// Access units left out since start because the decoder is behind.
    left_out: watch::Sender<u64>,
    waiting_for_key: bool,
}

impl Fanout {
    /// The upload gets what it is handed within `gather`.
    pub fn new(upload: Sender<Feed>, gather: Duration) -> Self {
        Self { upload: Some(Gather::new(upload, gather)), analytics: None }
    }

    /// Of a camera whose footage is in the cloud already.
    pub fn unrecorded() -> Self {
        Self { upload: None, analytics: None }
    }

    #[must_use]
    pub fn with_analytics(mut self, feed: Sender<FeedItem>, left_out: watch::Sender<u64>) -> Self {
        self.analytics = Some(Analytics { feed, left_out, waiting_for_key: true });
        self
    }

    /// False if the upload did not take it; never waits.
    pub fn send(&mut self, feed: Feed) -> bool {
        if let Some(analytics) = &mut self.analytics {
            match &feed {
                Feed::Video(unit) => analytics.video(unit),
                Feed::Break | Feed::NewTimeline => analytics.interrupted(),
                Feed::AudioTrack(_) | Feed::Audio(_) => {}
            }
        }
        self.upload.as_mut().is_none_or(|upload| upload.send(feed))
    }
}

impl Analytics {
    fn video(&mut self, unit: &AccessUnit) {
        self.waiting_for_key &= !unit.random_access;
        if self.waiting_for_key || self.feed.try_send(FeedItem::Picture(unit.clone())).is_err() {
            self.waiting_for_key = true;
            self.left_out.send_modify(|count| *count += 1);
        }
    }

    fn interrupted(&mut self) {
        self.waiting_for_key = true;
        // A full queue has no place for it; then pictures are missing anyway, and the next one sent is a key picture.
        let _ = self.feed.try_send(FeedItem::Discontinuity);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use media::{ProducerTimestamp, VideoCodec, VideoFormat};
    use tokio::sync::mpsc;

    use super::*;

    fn unit(ms: u64, random_access: bool) -> Feed {
        let format = VideoFormat {
            codec: VideoCodec::H264,
            codec_private: Bytes::new(),
            width: 64,
            height: 64,
            frame_rate: None,
        };
        let timestamp = ProducerTimestamp::from_millis(ms);
        Feed::Video(AccessUnit { data: Bytes::new(), timestamp, random_access, format: Arc::new(format) })
    }

    fn received(feed: &mut mpsc::Receiver<FeedItem>) -> Vec<Option<u64>> {
        let mut received = Vec::new();
        while let Ok(item) = feed.try_recv() {
            received.push(match item {
                FeedItem::Picture(unit) => Some(unit.timestamp.as_millis()),
                FeedItem::Discontinuity => None,
            });
        }
        received
    }

    #[test]
    fn a_slow_decoder_loses_whole_gops_and_the_upload_nothing() {
        let (upload, mut uploaded) = mpsc::channel(64);
        let (feed, mut items) = mpsc::channel(3);
        let (left_out, count) = watch::channel(0);
        let mut fanout = Fanout::new(upload, Duration::ZERO).with_analytics(feed, left_out);
        for ms in 0..10 {
            assert!(fanout.send(unit(ms, ms % 5 == 0)));
        }
        assert_eq!(received(&mut items), [Some(0), Some(1), Some(2)]);
        assert_eq!(*count.borrow(), 7, "also the key picture at 5 had no place");
        assert!(fanout.send(unit(10, false)));
        assert_eq!(received(&mut items), [], "there is room, but nothing to begin with");
        assert!(fanout.send(unit(11, true)) && fanout.send(Feed::Break) && fanout.send(unit(12, false)));
        assert_eq!(received(&mut items), [Some(11), None]);
        drop(items);
        assert!(fanout.send(unit(13, true)), "a branch that is gone does not matter");
        let mut arrived = 0;
        while uploaded.try_recv().is_ok() {
            arrived += 1;
        }
        assert_eq!(arrived, 15);
    }

    #[test]
    fn a_full_upload_is_told() {
        let (upload, _uploaded) = mpsc::channel(1);
        let mut fanout = Fanout::new(upload, Duration::ZERO);
        assert!(fanout.send(unit(0, true)));
        assert!(!fanout.send(unit(1, false)));
    }
}
