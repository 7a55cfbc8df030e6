//! One feed to two consumers that know nothing of each other.
//!
//! The upload decides: when its queue is full, ingest drops the rest of the GOP and counts it. The seeing branch gets the
//! same access units as far as its queue takes them: when that is full, its pictures are left out up to the next
//! random access point, and nobody else notices.

use media::{AccessUnit, Feed};
use tokio::sync::mpsc::Sender;
use tokio::sync::watch;

/// Places in front of the decoder: about a second. A decoder that is further behind cannot keep up.
pub const SEEING_PLACES: usize = 32;

/// What the seeing branch gets.
#[derive(Clone, Debug)]
pub enum Sight {
    Video(AccessUnit),
    /// The next picture does not follow the last one.
    Break,
}

/// The ends of one camera's feed.
pub struct Fanout {
    upload: Sender<Feed>,
    seeing: Option<Seeing>,
}

struct Seeing {
    feed: Sender<Sight>,
    /// Access units left out since start because the decoder is behind.
    left_out: watch::Sender<u64>,
    waiting_for_key: bool,
}

impl Fanout {
    pub fn new(upload: Sender<Feed>) -> Self {
        Self { upload, seeing: None }
    }

    #[must_use]
    pub fn with_seeing(mut self, feed: Sender<Sight>, left_out: watch::Sender<u64>) -> Self {
        self.seeing = Some(Seeing { feed, left_out, waiting_for_key: true });
        self
    }

    /// False if the upload did not take it; never waits.
    pub fn send(&mut self, feed: Feed) -> bool {
        if let Some(seeing) = &mut self.seeing {
            match &feed {
                Feed::Video(unit) => seeing.video(unit),
                Feed::Break | Feed::NewTimeline => seeing.interrupted(),
                Feed::AudioTrack(_) | Feed::Audio(_) => {}
            }
        }
        self.upload.try_send(feed).is_ok()
    }
}

impl Seeing {
    fn video(&mut self, unit: &AccessUnit) {
        self.waiting_for_key &= !unit.random_access;
        if self.waiting_for_key || self.feed.try_send(Sight::Video(unit.clone())).is_err() {
            self.waiting_for_key = true;
            self.left_out.send_modify(|count| *count += 1);
        }
    }

    fn interrupted(&mut self) {
        self.waiting_for_key = true;
        // A full queue has no place for it; then pictures are missing anyway, and the next one sent is a key picture.
        let _ = self.feed.try_send(Sight::Break);
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

    fn seen(feed: &mut mpsc::Receiver<Sight>) -> Vec<Option<u64>> {
        let mut seen = Vec::new();
        while let Ok(sight) = feed.try_recv() {
            seen.push(match sight {
                Sight::Video(unit) => Some(unit.timestamp.as_millis()),
                Sight::Break => None,
            });
        }
        seen
    }

    #[test]
    fn a_slow_decoder_loses_whole_gops_and_the_upload_nothing() {
        let (upload, mut uploaded) = mpsc::channel(64);
        let (feed, mut sights) = mpsc::channel(3);
        let (left_out, count) = watch::channel(0);
        let mut fanout = Fanout::new(upload).with_seeing(feed, left_out);
        for ms in 0..10 {
            assert!(fanout.send(unit(ms, ms % 5 == 0)));
        }
        assert_eq!(seen(&mut sights), [Some(0), Some(1), Some(2)]);
        assert_eq!(*count.borrow(), 7, "also the key picture at 5 had no place");
        assert!(fanout.send(unit(10, false)));
        assert_eq!(seen(&mut sights), [], "there is room, but nothing to begin with");
        assert!(fanout.send(unit(11, true)) && fanout.send(Feed::Break) && fanout.send(unit(12, false)));
        assert_eq!(seen(&mut sights), [Some(11), None]);
        drop(sights);
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
        let mut fanout = Fanout::new(upload);
        assert!(fanout.send(unit(0, true)));
        assert!(!fanout.send(unit(1, false)));
    }
}
