//! Changes of tracks as events, each pointing into the cloud recording.
//!
//! A clip points at the first picture of its event. Which fragment holds it is known once KVS has persisted it, a few
//! seconds later and sometimes after the event has ended: then one more update fills in the number.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use kvs::FragmentNumber;
use media::{ClockSource, ProducerTimestamp};
use sha2::{Digest, Sha256};
use ulid::Ulid;
use vision::event::{Change, ChangeKind};

use crate::detector::Model;
use crate::output::{Clip, EventChange};

/// Persisted fragments that are remembered: an event is confirmed some pictures after its start, and the fragment of
/// that start may be there first. Two minutes at two seconds each.
const REMEMBERED: usize = 64;
/// Ended events that still wait for their fragment; without an upload it never comes.
const WAITING: usize = 256;

/// A fragment that KVS has persisted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persisted {
    /// Producer times of its first block and of its last one.
    pub start: ProducerTimestamp,
    pub end: ProducerTimestamp,
    pub number: FragmentNumber,
}

impl Persisted {
    fn holds(&self, at: ProducerTimestamp) -> bool {
        (self.start..=self.end).contains(&at)
    }
}

/// What makes the id of an event unique besides its time.
#[derive(Clone, Debug)]
pub(crate) enum Ids {
    Random,
    /// The name of a recording: the same event of it has the same id each time.
    Of(String),
}

impl Ids {
    fn id(&self, start: ProducerTimestamp, track: u64) -> String {
        let unique = match self {
            Self::Random => rand::random(),
            Self::Of(name) => {
                let digest = Sha256::digest(format!("{track} {name}"));
                digest.iter().take(16).fold(0, |unique, byte| unique << 8 | u128::from(*byte))
            }
        };
        Ulid::from_parts(start.as_millis(), unique).to_string()
    }
}

/// What is the same in all changes that one picture makes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameInfo {
    pub(crate) at: ProducerTimestamp,
    pub(crate) clock: ClockSource,
    /// Width and height of the camera's picture in pixels.
    pub(crate) size: [u32; 2],
}

/// Knows each event by its track, and which fragments are persisted.
pub(crate) struct EventLog {
    model: Arc<Model>,
    ids: Ids,
    /// The newest change of each event that has not ended, by track.
    open: BTreeMap<u64, EventChange>,
    /// Ended, its fragment not persisted yet.
    waiting: VecDeque<EventChange>,
    persisted: VecDeque<Persisted>,
}

impl EventLog {
    pub(crate) fn new(model: Arc<Model>, ids: Ids) -> Self {
        Self { model, ids, open: BTreeMap::new(), waiting: VecDeque::new(), persisted: VecDeque::new() }
    }

    /// One change as it is handed out. `has_snapshot`: a JPEG of it was handed out.
    pub(crate) fn change(&mut self, change: &Change, frame: FrameInfo, has_snapshot: bool) -> EventChange {
        let event = &change.event;
        let (id, clip) = match self.open.remove(&event.track) {
            Some(before) => (before.id, before.clip),
            None => {
                let fragment = self.persisted.iter().find(|fragment| fragment.holds(event.start));
                let id = self.ids.id(event.start, event.track);
                (id, Clip { start: event.start, fragment: fragment.map(|fragment| fragment.number) })
            }
        };
        let change = EventChange {
            id,
            kind: change.kind,
            at: frame.at,
            clock: frame.clock,
            frame_size: frame.size,
            event: event.clone(),
            has_snapshot,
            model: self.model.clone(),
            clip,
        };
        if change.kind != ChangeKind::End {
            self.open.insert(change.event.track, change.clone());
        } else if change.clip.fragment.is_none() {
            if self.waiting.len() == WAITING {
                self.waiting.pop_front();
            }
            self.waiting.push_back(change.clone());
        }
        change
    }

    /// Returns one more update for each event that begins in this fragment.
    pub(crate) fn persisted(&mut self, fragment: Persisted) -> Vec<EventChange> {
        let mut updates = Vec::new();
        for change in self.open.values_mut().chain(&mut self.waiting) {
            if change.clip.fragment.is_none() && fragment.holds(change.clip.start) {
                change.clip.fragment = Some(fragment.number);
                change.kind = ChangeKind::Update;
                updates.push(change.clone());
            }
        }
        self.waiting.retain(|change| change.clip.fragment.is_none());
        if self.persisted.len() == REMEMBERED {
            self.persisted.pop_front();
        }
        self.persisted.push_back(fragment);
        updates
    }
}

#[cfg(test)]
mod tests {
    use vision::Rect;
    use vision::event::{BestShot, Crossed, Event, Why};
    use vision::rules;

    use super::*;

    fn time(ms: u64) -> ProducerTimestamp {
        ProducerTimestamp::from_millis(ms)
    }

    fn log() -> EventLog {
        log_of(Ids::Random)
    }

    fn log_of(ids: Ids) -> EventLog {
        let model = Arc::new(Model {
            name: "scene".into(),
            sha256: "ab".into(),
            labels: vec!["person".into()],
            backend: "rten",
            because: String::new(),
            input: (320, 192),
        });
        EventLog::new(model, ids)
    }

    #[test]
    fn ids_of_a_recording_are_its_own_and_the_same_each_time() {
        let id = |name: &str, track, start| Ids::Of(name.to_owned()).id(time(start), track);
        assert_eq!(id("a.mp4", 1, 5_000), id("a.mp4", 1, 5_000));
        let others = [id("b.mp4", 1, 5_000), id("a.mp4", 2, 5_000), id("a.mp4", 1, 5_001)];
        assert!(!others.contains(&id("a.mp4", 1, 5_000)), "{others:?}");
        assert_eq!(others[0][..10], others[1][..10], "the time");
    }

    fn change(kind: ChangeKind, track: u64, start: u64, at: u64) -> Change {
        let rect = Rect { x: 0.1, y: 0.2, w: 0.3, h: 0.4 };
        let event = Event {
            track,
            class: 0,
            label: "person".into(),
            score: 0.7,
            top_score: 0.9,
            rect,
            start: time(start),
            last_seen: time(at),
            end: (kind == ChangeKind::End).then(|| time(at)),
            zones: Vec::new(),
            entered: vec!["near".into()],
            stationary: false,
            severity: rules::Severity::Alert,
            best: BestShot { rect, at: time(at), score: 0.9, area: 0.12 },
            crossed: vec![Crossed { line: "kerb".into(), ins: 2, outs: 0 }],
            frames: 3,
        };
        Change { kind, at: time(at), why: vec![Why::Confirmed], event }
    }

    fn frame(at: u64) -> FrameInfo {
        FrameInfo { at: time(at), clock: ClockSource::Rtcp, size: [1280, 720] }
    }

    fn fragment(start: u64, duration_ms: u64, number: u8) -> Persisted {
        let number = format!("9134385233318144231600941759542834739790552{number:04}");
        let number = number.parse().expect("a fragment number");
        Persisted { start: time(start), end: time(start + duration_ms), number }
    }

    #[test]
    fn a_fragment_persisted_later_fills_the_clip_once_even_after_the_end() {
        let mut log = log();
        let new = log.change(&change(ChangeKind::New, 7, 5_000, 5_200), frame(5_200), false);
        assert_eq!(
            (new.kind, new.at, new.clip),
            (ChangeKind::New, time(5_200), Clip { start: time(5_000), fragment: None })
        );
        assert_eq!((new.clock, new.frame_size, new.id.len()), (ClockSource::Rtcp, [1280, 720], 26));
        assert!(log.persisted(fragment(2_000, 1_960, 1)).is_empty(), "another one's");
        let end = log.change(&change(ChangeKind::End, 7, 5_000, 6_000), frame(8_000), true);
        assert_eq!((end.kind, end.id == new.id, end.clip.fragment), (ChangeKind::End, true, None));
        let second = fragment(4_000, 1_960, 2);
        let filled = log.persisted(second);
        let [filled] = filled.as_slice() else { panic!("{filled:?}") };
        assert_eq!((filled.kind, &filled.id), (ChangeKind::Update, &new.id));
        assert_eq!(filled.clip, Clip { start: time(5_000), fragment: Some(second.number) });
        assert!(!new.has_snapshot && filled.has_snapshot);
        assert_eq!(filled.event, end.event, "it repeats what a dashboard needs");
        assert!(log.persisted(second).is_empty(), "told once");
    }

    #[test]
    fn an_event_that_is_confirmed_late_finds_its_fragment_already_there() {
        let mut log = log();
        let first = fragment(4_000, 1_960, 1);
        assert!(log.persisted(first).is_empty());
        let new = log.change(&change(ChangeKind::New, 1, 5_960, 7_000), frame(7_000), true);
        assert_eq!(new.clip.fragment, Some(first.number));
        let other = log.change(&change(ChangeKind::New, 2, 6_000, 7_000), frame(7_000), true);
        assert_eq!(other.clip.fragment, None, "the first picture of the next fragment");
        assert_ne!(new.id, other.id);
        let update = log.change(&change(ChangeKind::Update, 1, 5_960, 8_000), frame(8_000), true);
        assert_eq!((update.id, update.clip.fragment), (new.id, Some(first.number)));
    }

    #[test]
    fn without_an_upload_memory_stays_bounded() {
        let mut log = log();
        for track in 0..2_000 {
            log.change(&change(ChangeKind::New, track, track, track), frame(track), true);
            log.change(&change(ChangeKind::End, track, track, track), frame(track), true);
            log.persisted(fragment(1_000_000 + track, 1, 1));
        }
        assert!(log.open.is_empty());
        assert_eq!((log.waiting.len(), log.persisted.len()), (WAITING, REMEMBERED));
    }
}
