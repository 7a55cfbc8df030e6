//! Pictures on their way to the upload, handed over a few at a time.
//!
//! A processor that sleeps between two pictures pays three times as much for each as one that finds a few together: its
//! caches are cold, and every write is a system call. A reader of the stream in the cloud is seconds behind, and does not
//! notice a fifth of one. So what is recorded waits here until another picture would wait for too long; a key picture waits
//! never, because it completes the fragment before it. Whoever looks at the pictures on the box gets them at once, and no
//! timestamp depends on when a picture is handed over.
//!
//! No timer: whether the next picture would be too late is told by the distance of the last two. Where a camera stops
//! sending its last pictures wait until its session ends, which hands on all.

use std::time::Duration;

use media::{Feed, ProducerTimestamp};
use tokio::sync::mpsc::{OwnedPermit, Sender};

/// Items that wait at most.
const MOST: usize = 16;

/// The end of a queue that is filled in groups.
pub(crate) struct Gather {
    queue: Sender<Feed>,
    /// How long an item waits at most.
    longest: Duration,
    waiting: Vec<(OwnedPermit<Feed>, Feed)>,
    /// Time of the first item that waits.
    first: Option<ProducerTimestamp>,
    picture: Option<ProducerTimestamp>,
}

impl Gather {
    pub(crate) fn new(queue: Sender<Feed>, longest: Duration) -> Self {
        Self { queue, longest, waiting: Vec::new(), first: None, picture: None }
    }

    /// False if there is no room for it: what was taken before has a place.
    pub(crate) fn send(&mut self, item: Feed) -> bool {
        let Ok(place) = self.queue.clone().try_reserve_owned() else { return false };
        let due = self.is_due(&item);
        self.waiting.push((place, item));
        if due || self.waiting.len() == MOST {
            self.hand_over();
        }
        true
    }

    /// Whether what waits would be too old when the one after this comes.
    fn is_due(&mut self, item: &Feed) -> bool {
        let (at, distance) = match item {
            Feed::Video(unit) => {
                let distance =
                    self.picture.replace(unit.timestamp).and_then(|last| since(unit.timestamp, last));
                match distance {
                    Some(distance) if !unit.random_access => (unit.timestamp, distance),
                    _ => return true,
                }
            }
            Feed::Audio(frame) => (frame.timestamp, Duration::ZERO),
            Feed::AudioTrack(_) | Feed::Break | Feed::NewTimeline => return true,
        };
        let first = *self.first.get_or_insert(at);
        since(at, first).is_none_or(|waited| waited + distance > self.longest)
    }

    fn hand_over(&mut self) {
        self.first = None;
        for (place, item) in self.waiting.drain(..) {
            place.send(item);
        }
    }
}

impl Drop for Gather {
    fn drop(&mut self) {
        self.hand_over();
    }
}

/// `None` if it is before that.
fn since(at: ProducerTimestamp, earlier: ProducerTimestamp) -> Option<Duration> {
    at.checked_ms_since(earlier).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use media::{AccessUnit, AudioCodec, AudioFormat, AudioFrame, VideoCodec, VideoFormat};
    use tokio::sync::mpsc;

    use super::*;

    fn picture(ms: u64, random_access: bool) -> Feed {
        let codec_private = Bytes::new();
        let format =
            VideoFormat { codec: VideoCodec::H264, codec_private, width: 64, height: 64, frame_rate: None };
        let timestamp = ProducerTimestamp::from_millis(ms);
        Feed::Video(AccessUnit { data: Bytes::new(), timestamp, random_access, format: Arc::new(format) })
    }

    fn sound(ms: u64) -> Feed {
        let format = AudioFormat {
            codec: AudioCodec::Pcma,
            codec_private: Bytes::new(),
            sample_rate: 8000,
            channels: 1,
        };
        let timestamp = ProducerTimestamp::from_millis(ms);
        Feed::Audio(AudioFrame { data: Bytes::new(), timestamp, format: Arc::new(format) })
    }

    /// Times of what has come; a break has none.
    fn received(queue: &mut mpsc::Receiver<Feed>) -> Vec<Option<u64>> {
        std::iter::from_fn(|| queue.try_recv().ok())
            .map(|item| match item {
                Feed::Video(unit) => Some(unit.timestamp.as_millis()),
                Feed::Audio(frame) => Some(frame.timestamp.as_millis()),
                Feed::AudioTrack(_) | Feed::Break | Feed::NewTimeline => None,
            })
            .collect()
    }

    fn gather(longest_ms: u64, places: usize) -> (Gather, mpsc::Receiver<Feed>) {
        let (queue, received) = mpsc::channel(places);
        (Gather::new(queue, Duration::from_millis(longest_ms)), received)
    }

    #[test]
    fn pictures_come_in_groups_and_none_waits_for_longer_than_it_may() {
        let (mut gather, mut queue) = gather(100, 64);
        let mut groups = Vec::new();
        for ms in (0..400).step_by(40) {
            assert!(gather.send(picture(ms, ms % 320 == 0)));
            groups.push(received(&mut queue));
        }
        let group = |ms: &[u64]| ms.iter().copied().map(Some).collect::<Vec<_>>();
        let expected = [
            group(&[0]),
            vec![],
            vec![],
            group(&[40, 80, 120]),
            vec![],
            vec![],
            group(&[160, 200, 240]),
            vec![],
            group(&[280, 320]),
            vec![],
        ];
        assert_eq!(groups, expected, "the first and the key picture at 320 wait for nothing");
        drop(gather);
        assert_eq!(received(&mut queue), [Some(360)], "nothing stays behind");
    }

    #[test]
    fn a_slow_camera_s_pictures_do_not_wait() {
        let (mut gather, mut queue) = gather(100, 64);
        for ms in [0, 120, 240, 241, 600] {
            assert!(gather.send(picture(ms, ms == 0)));
        }
        assert_eq!(received(&mut queue), [Some(0), Some(120), Some(240), Some(241), Some(600)]);
        let (mut gather, mut queue) = super::tests::gather(0, 64);
        for ms in [0, 1, 2] {
            assert!(
                gather.send(picture(ms, ms == 0)) && received(&mut queue) == [Some(ms)],
                "0: no gathering"
            );
        }
    }

    #[test]
    fn order_is_kept_across_sound_and_breaks() {
        let (mut gather, mut queue) = gather(100, 64);
        assert!(gather.send(picture(0, true)) && gather.send(sound(10)) && gather.send(picture(33, false)));
        assert_eq!(received(&mut queue), [Some(0)]);
        assert!(gather.send(Feed::Break));
        assert_eq!(received(&mut queue), [Some(10), Some(33), None]);
        for ms in [40, 90, 141] {
            assert!(gather.send(sound(ms)));
        }
        assert_eq!(received(&mut queue), [Some(40), Some(90), Some(141)], "sound alone is handed on, too");
        // Time that runs backwards is not gathered.
        assert!(gather.send(picture(20, false)));
        assert_eq!(received(&mut queue), [Some(20)]);
    }

    #[test]
    fn what_was_taken_has_a_place() {
        let (mut gather, mut queue) = gather(1000, 3);
        assert!(
            gather.send(picture(0, true))
                && gather.send(picture(10, false))
                && gather.send(picture(20, false))
        );
        assert!(!gather.send(picture(30, false)), "the queue has no fourth place");
        drop(gather);
        assert_eq!(received(&mut queue), [Some(0), Some(10), Some(20)]);
        let (mut gather, queue) = super::tests::gather(1000, 3);
        drop(queue);
        assert!(!gather.send(picture(0, true)), "nobody takes it");
    }

    #[test]
    fn not_too_many_wait() {
        let (mut gather, mut queue) = gather(10_000, 64);
        for ms in 0..20 {
            assert!(gather.send(picture(ms, ms == 0)));
        }
        assert_eq!(received(&mut queue).len(), 1 + MOST);
    }
}
