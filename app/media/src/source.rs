//! What every source of coded pictures is to its consumer, wherever the pictures come from.

use std::future::Future;

use crate::Feed;

/// Hands on coded pictures and sound in decoding order, and connects again by itself for as long as that makes sense.
pub trait UnitSource: Send {
    /// The next item; `None` once the source has ended for good. Safe to cancel: nothing is lost.
    fn next(&mut self) -> impl Future<Output = Option<Feed>> + Send;

    fn state(&self) -> SourceState;

    /// Since it was made.
    fn metrics(&self) -> SourceMetrics;
}

/// How a source stands to where its pictures come from.
///
/// ```text
/// Disconnected -> Connecting -> Connected -> Reconnecting -> Connected
///                     |                          |
///                     +--------> Failed <--------+     until somebody changes something
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceState {
    /// Not started, or ended.
    Disconnected,
    /// For the first time.
    Connecting,
    Connected,
    Reconnecting,
    Failed,
}

/// What a source handed on; see [`SourceMetrics::count`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceMetrics {
    pub pictures: u64,
    /// Pictures at which decoding may begin.
    pub key_pictures: u64,
    pub audio_frames: u64,
    /// Of pictures and sound, without what they were packed in.
    pub bytes: u64,
    /// How often the pictures broke off.
    pub breaks: u64,
    pub timelines: u64,
}

impl SourceMetrics {
    /// Counts an item that is handed on, so that all sources count alike.
    pub fn count(&mut self, item: &Feed) {
        match item {
            Feed::Video(unit) => {
                self.pictures += 1;
                self.key_pictures += u64::from(unit.random_access);
                self.bytes += unit.data.len() as u64;
            }
            Feed::Audio(frame) => {
                self.audio_frames += 1;
                self.bytes += frame.data.len() as u64;
            }
            Feed::AudioTrack(_) => {}
            Feed::Break => self.breaks += 1,
            Feed::NewTimeline => self.timelines += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};

    use bytes::Bytes;

    use super::*;
    use crate::{AccessUnit, AudioFormat, AudioFrame, ProducerTimestamp, VideoCodec, VideoFormat};

    /// Plays what it was given.
    struct Recorded {
        items: VecDeque<Feed>,
        metrics: SourceMetrics,
    }

    impl UnitSource for Recorded {
        async fn next(&mut self) -> Option<Feed> {
            let item = self.items.pop_front()?;
            self.metrics.count(&item);
            Some(item)
        }

        fn state(&self) -> SourceState {
            if self.items.is_empty() { SourceState::Disconnected } else { SourceState::Connected }
        }

        fn metrics(&self) -> SourceMetrics {
            self.metrics
        }
    }

    /// As a consumer sees any source; returns how many items came.
    async fn consume(source: &mut impl UnitSource) -> usize {
        let mut items = 0;
        while source.next().await.is_some() {
            items += 1;
        }
        items
    }

    fn ready<T>(future: impl Future<Output = T>) -> T {
        match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("it waits for nothing"),
        }
    }

    #[test]
    fn a_source_is_read_to_its_end_and_counts_what_it_handed_on() {
        let format = Arc::new(VideoFormat {
            codec: VideoCodec::H264,
            codec_private: Bytes::from_static(&[1, 0x42, 0xc0, 0x1e, 0xff, 0xe0, 0]),
            width: 640,
            height: 360,
            frame_rate: None,
        });
        let picture = |random_access, bytes| {
            Feed::Video(AccessUnit {
                data: Bytes::from(vec![0; bytes]),
                timestamp: ProducerTimestamp::from_millis(1_000),
                random_access,
                format: format.clone(),
            })
        };
        let audio = Arc::new(AudioFormat::pcmu(8_000, 1));
        let sound = AudioFrame {
            data: Bytes::from_static(&[0; 20]),
            timestamp: ProducerTimestamp::from_millis(1_000),
            format: audio.clone(),
        };
        let items = [
            Feed::AudioTrack(audio),
            picture(true, 100),
            picture(false, 50),
            Feed::Audio(sound),
            Feed::Break,
            Feed::NewTimeline,
            picture(true, 7),
        ];
        let mut source = Recorded { items: items.into(), metrics: SourceMetrics::default() };
        assert_eq!((source.state(), source.metrics()), (SourceState::Connected, SourceMetrics::default()));
        assert_eq!(ready(consume(&mut source)), 7);
        let expected = SourceMetrics {
            pictures: 3,
            key_pictures: 2,
            audio_frames: 1,
            bytes: 177,
            breaks: 1,
            timelines: 1,
        };
        assert_eq!((source.state(), source.metrics()), (SourceState::Disconnected, expected));
    }
}
