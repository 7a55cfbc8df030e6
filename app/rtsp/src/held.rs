//! What came before anybody vouched for the wall clock: kept without stamps, and stamped afterwards.

use std::collections::VecDeque;
use std::sync::Arc;

use media::{AudioFormat, VideoFormat};

use crate::session::{Picture, SenderReport, Sound};

/// Reports that are kept of pictures that are not: the timeline needs no more.
const REPORTS: usize = 5;

/// What a session says, before it has times.
pub(crate) enum Unstamped {
    /// Another session begins.
    Begin {
        rates_hz: (u32, u32),
        audio: Option<Arc<AudioFormat>>,
    },
    Picture {
        picture: Picture,
        format: Arc<VideoFormat>,
    },
    Sound(Sound),
    SenderReport(SenderReport),
    /// The session ended.
    End,
}

/// Items in order, the oldest whole GOPs left out once they are too many.
#[derive(Default)]
pub(crate) struct Held {
    items: VecDeque<Unstamped>,
    bytes: u64,
}

impl Unstamped {
    fn bytes(&self) -> u64 {
        // Besides what it carries, each item takes room itself.
        64 + match self {
            Unstamped::Picture { picture, .. } => picture.data.len() as u64,
            Unstamped::Sound(sound) => sound.data.len() as u64,
            _ => 0,
        }
    }
}

impl Held {
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(crate) fn pictures(&self) -> u64 {
        self.items.iter().filter(|item| matches!(item, Unstamped::Picture { .. })).count() as u64
    }

    /// Keeps `item`, and at most `limit` bytes of all; returns how many pictures had to go for it.
    pub(crate) fn push(&mut self, item: Unstamped, limit: u64) -> u64 {
        self.bytes += item.bytes();
        self.items.push_back(item);
        if self.bytes > limit { self.shorten(limit) } else { 0 }
    }

    pub(crate) fn pop(&mut self) -> Option<Unstamped> {
        let item = self.items.pop_front()?;
        self.bytes -= item.bytes();
        Some(item)
    }

    /// Drops the oldest pictures and sounds up to a random access point. What their session began with and its last reports
    /// stay for the rest of it.
    fn shorten(&mut self, limit: u64) -> u64 {
        let (mut begin, mut reports, mut dropped) = (None, VecDeque::new(), 0);
        while let Some(front) = self.items.front() {
            let key = matches!(front, Unstamped::Picture { picture, .. } if picture.random_access);
            if key && self.bytes <= limit && dropped > 0 {
                break;
            }
            let Some(item) = self.pop() else { break };
            match item {
                Unstamped::Begin { .. } => {
                    begin = Some(item);
                    reports.clear();
                }
                Unstamped::SenderReport(_) => {
                    reports.push_back(item);
                    if reports.len() > REPORTS {
                        reports.pop_front();
                    }
                }
                Unstamped::Picture { .. } => dropped += 1,
                Unstamped::Sound(_) | Unstamped::End => {}
            }
        }
        for item in begin.into_iter().chain(reports).rev() {
            self.bytes += item.bytes();
            self.items.push_front(item);
        }
        dropped
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::timeline::{Arrival, Kind};

    fn at(us: i64) -> Arrival {
        Arrival { monotonic: us, wall: us }
    }

    fn begin() -> Unstamped {
        Unstamped::Begin { rates_hz: (90_000, 0), audio: None }
    }

    fn report(rtp: i64) -> Unstamped {
        Unstamped::SenderReport(SenderReport { kind: Kind::Video, rtp, ntp: 0, arrival: at(rtp) })
    }

    /// A picture of 1000 bytes.
    fn picture(rtp: i64, random_access: bool) -> Unstamped {
        let format = media::VideoFormat {
            codec: media::VideoCodec::H264,
            codec_private: Bytes::new(),
            width: 64,
            height: 64,
            frame_rate: None,
        };
        let data = Bytes::from_static(&[0; 1000]);
        let picture = Picture { rtp, arrival: at(rtp), lost: 0, random_access, data };
        Unstamped::Picture { picture, format: Arc::new(format) }
    }

    /// `B`egin, `R`eport, `K`ey or `p`icture, `E`nd, with RTP times.
    fn shape(mut held: Held) -> String {
        let mut shape = Vec::new();
        while let Some(item) = held.pop() {
            shape.push(match item {
                Unstamped::Begin { .. } => "B".to_owned(),
                Unstamped::SenderReport(report) => format!("R{}", report.rtp),
                Unstamped::Picture { picture, .. } => {
                    format!("{}{}", if picture.random_access { "K" } else { "p" }, picture.rtp)
                }
                Unstamped::Sound(_) => "s".to_owned(),
                Unstamped::End => "E".to_owned(),
            });
        }
        assert_eq!(held.bytes, 0);
        shape.join(" ")
    }

    #[test]
    fn the_oldest_gops_go_and_their_session_stays() {
        let mut held = Held::default();
        let mut dropped = held.push(begin(), 5_000) + held.push(report(0), 5_000);
        for rtp in 1..=9 {
            dropped += held.push(picture(rtp, rtp % 3 == 1), 5_000);
        }
        assert_eq!(dropped, 6);
        assert_eq!(shape(held), "B R0 K7 p8 p9");
    }

    #[test]
    fn a_session_that_is_gone_altogether_leaves_nothing() {
        let mut held = Held::default();
        for item in [begin(), report(0), picture(1, true), picture(2, false), Unstamped::End] {
            assert_eq!(held.push(item, 4_000), 0);
        }
        for item in [begin(), report(10), picture(11, true)] {
            assert_eq!(held.push(item, 4_000), 0);
        }
        assert_eq!(held.push(picture(12, false), 4_000), 2);
        assert_eq!(shape(held), "B R10 K11 p12");
    }

    #[test]
    fn reports_without_end_do_not_pile_up() {
        let mut held = Held::default();
        held.push(begin(), 5_000);
        for rtp in 0..1000 {
            held.push(report(rtp), 5_000);
            held.push(picture(rtp, rtp % 2 == 0), 5_000);
        }
        assert!(held.items.len() < 15 && held.bytes <= 6_000, "{} bytes", held.bytes);
        assert!(shape(held).starts_with("B R"));
    }
}
