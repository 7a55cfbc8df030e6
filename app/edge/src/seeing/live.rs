//! Changes of tracks as the events that go out, each pointing into the cloud recording.
//!
//! `clip` points at the first picture of the event. Which fragment holds it is known once KVS has persisted it, a few
//! seconds later and sometimes after the event has ended: then one more `update` fills `fragment` and `persisted`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kvs::FragmentNumber;
use kvs::fragmenter::FragmentSummary;
use media::ProducerTimestamp;
use ulid::Ulid;
use vision::event::{Change, ChangeKind, Crossed};

use super::detector::Model;
use media::ClockSource;
use messages::{Clip, Crossing, Direction, Event, EventKind, EventModel, UtcTime, Version};

/// Persisted fragments that are remembered: an event is confirmed some pictures after its start, and the fragment of
/// that start may be there first. Two minutes at two seconds each.
const KEPT: usize = 64;
/// Ended events that still wait for their fragment; without an upload it never comes.
const WAITING: usize = 256;

/// Numbers of the messages of one box, without holes since start.
#[derive(Clone, Debug, Default)]
pub struct Sequence(Arc<AtomicU64>);

impl Sequence {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// What is the same in all events of a camera.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) device: String,
    pub(super) camera: String,
    pub(super) stream: String,
    pub(super) region: String,
}

/// What is the same in all events of one picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) at: ProducerTimestamp,
    pub(super) clock: ClockSource,
    /// Width and height of the camera's picture in pixels.
    pub(super) frame: [u32; 2],
}

struct Kept {
    start: ProducerTimestamp,
    end: ProducerTimestamp,
    number: FragmentNumber,
}

impl Kept {
    fn holds(&self, at: u64) -> bool {
        (self.start.as_millis()..=self.end.as_millis()).contains(&at)
    }
}

pub(super) struct LiveEvents {
    origin: Origin,
    sequence: Sequence,
    model: Arc<Model>,
    /// The newest body of each event that has not ended, by track.
    open: BTreeMap<u64, Event>,
    /// Ended, its fragment not persisted yet.
    waiting: VecDeque<Event>,
    kept: VecDeque<Kept>,
}

impl LiveEvents {
    pub(super) fn new(origin: Origin, sequence: Sequence, model: Arc<Model>) -> Self {
        Self {
            origin,
            sequence,
            model,
            open: BTreeMap::new(),
            waiting: VecDeque::new(),
            kept: VecDeque::new(),
        }
    }

    /// The message of one change. `has_snapshot`: a picture of it was published.
    pub(super) fn change(&mut self, change: &Change, moment: Moment, has_snapshot: bool) -> Event {
        let seen = &change.event;
        let before = self.open.remove(&seen.track);
        let start_ms = seen.start.as_millis();
        let kept = self.kept.iter().find(|kept| kept.holds(start_ms)).map(|kept| kept.number);
        let (id, clip) = match before {
            Some(before) => (before.id, before.clip),
            None => (
                Ulid::from_parts(start_ms, rand::random()).to_string(),
                Clip {
                    kvs_stream: self.origin.stream.clone(),
                    region: self.origin.region.clone(),
                    producer_ts_ms: start_ms,
                    fragment: kept.map(|number| number.to_string()),
                    persisted: kept.is_some(),
                },
            ),
        };
        let event = Event {
            v: Version::default(),
            seq: self.sequence.next(),
            replayed: false,
            kind: match change.kind {
                ChangeKind::New => EventKind::New,
                ChangeKind::Update => EventKind::Update,
                ChangeKind::End => EventKind::End,
            },
            id,
            device: self.origin.device.clone(),
            camera: self.origin.camera.clone(),
            ts: UtcTime::from_millis(moment.at.as_millis()),
            clock: moment.clock.into(),
            label: seen.label.to_string(),
            severity: seen.severity.into(),
            score: seen.score.into(),
            top_score: seen.top_score.into(),
            track: seen.track,
            rect: seen.rect.into(),
            frame: moment.frame,
            zones: seen.zones.iter().map(ToString::to_string).collect(),
            entered: seen.entered.iter().map(ToString::to_string).collect(),
            crossed: seen.crossed.iter().flat_map(crossings).collect(),
            stationary: seen.stationary,
            has_snapshot,
            start: UtcTime::from_millis(start_ms),
            end: seen.end.map(|end| UtcTime::from_millis(end.as_millis())),
            model: EventModel { name: self.model.name.clone(), sha256: self.model.sha256.clone() },
            clip,
        };
        if change.kind != ChangeKind::End {
            self.open.insert(seen.track, event.clone());
        } else if !event.clip.persisted {
            if self.waiting.len() == WAITING {
                self.waiting.pop_front();
            }
            self.waiting.push_back(event.clone());
        }
        event
    }

    /// KVS has a fragment: gives one more message for each event that begins in it.
    pub(super) fn persisted(&mut self, fragment: &FragmentSummary, number: FragmentNumber) -> Vec<Event> {
        let kept = Kept { start: fragment.timecode, end: fragment.end(), number };
        let mut updates = Vec::new();
        let text = number.to_string();
        for event in self.open.values_mut().chain(&mut self.waiting) {
            if !event.clip.persisted && kept.holds(event.clip.producer_ts_ms) {
                event.clip.fragment = Some(text.clone());
                event.clip.persisted = true;
                event.kind = EventKind::Update;
                event.seq = self.sequence.next();
                updates.push(event.clone());
            }
        }
        self.waiting.retain(|event| !event.clip.persisted);
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(kept);
        updates
    }
}

/// Each direction once, however often it went to and fro.
fn crossings(crossed: &Crossed) -> impl Iterator<Item = Crossing> {
    let directions = [(crossed.ins, Direction::In), (crossed.outs, Direction::Out)];
    let line = crossed.line.to_string();
    directions
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(move |(_, direction)| Crossing { line: line.clone(), direction })
}

#[cfg(test)]
mod tests {
    use vision::Rect;
    use vision::event::{BestShot, Event as Seen, Why};
    use vision::rules;

    use super::*;

    fn time(ms: u64) -> ProducerTimestamp {
        ProducerTimestamp::from_millis(ms)
    }

    fn live() -> LiveEvents {
        let model = Model {
            name: "scene".into(),
            sha256: "ab".into(),
            labels: vec!["person".into()],
            backend: "rten",
            because: String::new(),
            input: (320, 192),
        };
        let origin = Origin {
            device: "box".into(),
            camera: "gate".into(),
            stream: "gate-stream".into(),
            region: "eu-west-1".into(),
        };
        LiveEvents::new(origin, Sequence::default(), Arc::new(model))
    }

    fn change(kind: ChangeKind, track: u64, start: u64, at: u64) -> Change {
        let rect = Rect { x: 0.1, y: 0.2, w: 0.3, h: 0.4 };
        let event = Seen {
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

    fn moment(at: u64) -> Moment {
        Moment { at: time(at), clock: ClockSource::Rtcp, frame: [1280, 720] }
    }

    fn fragment(start: u64, duration_ms: u64) -> FragmentSummary {
        let sum = kvs::identity::Sha256Sum::of(b"");
        FragmentSummary {
            id: kvs::FragmentId { run: kvs::RunId::UNKNOWN, sequence: 1 },
            timecode: time(start),
            duration_ms,
            blocks: 50,
            audio_blocks: 0,
            cluster_bytes: 1,
            sums: kvs::cluster_sums::ClusterSums { payload: sum, heads: sum },
            forced: false,
        }
    }

    fn number(n: u8) -> FragmentNumber {
        format!("9134385233318144231600941759542834739790552{n:04}").parse().expect("a fragment number")
    }

    #[test]
    fn a_fragment_persisted_later_fills_the_clip_once_even_after_the_end() {
        let mut live = live();
        let new = live.change(&change(ChangeKind::New, 7, 5_000, 5_200), moment(5_200), false);
        assert_eq!((new.kind, new.seq, new.clip.persisted), (EventKind::New, 1, false));
        assert_eq!((new.clip.producer_ts_ms, new.clip.kvs_stream.as_str()), (5_000, "gate-stream"));
        assert_eq!(new.crossed, [Crossing { line: "kerb".into(), direction: Direction::In }]);
        assert!(live.persisted(&fragment(2_000, 1_960), number(1)).is_empty(), "another one's");
        let end = live.change(&change(ChangeKind::End, 7, 5_000, 6_000), moment(8_000), true);
        assert_eq!((end.kind, end.id == new.id, end.clip.persisted), (EventKind::End, true, false));
        let filled = live.persisted(&fragment(4_000, 1_960), number(2));
        let [filled] = filled.as_slice() else { panic!("{filled:?}") };
        assert_eq!((filled.kind, &filled.id, filled.seq), (EventKind::Update, &new.id, 3));
        assert_eq!(filled.clip.fragment, Some(number(2).to_string()));
        assert!(!new.has_snapshot && filled.has_snapshot);
        assert_eq!(filled.end, end.end, "it repeats what a dashboard needs");
        assert!(live.persisted(&fragment(4_000, 1_960), number(2)).is_empty(), "told once");
    }

    #[test]
    fn an_event_that_is_confirmed_late_finds_its_fragment_already_there() {
        let mut live = live();
        assert!(live.persisted(&fragment(4_000, 1_960), number(1)).is_empty());
        let new = live.change(&change(ChangeKind::New, 1, 5_960, 7_000), moment(7_000), true);
        assert_eq!((new.clip.fragment, new.clip.persisted), (Some(number(1).to_string()), true));
        let other = live.change(&change(ChangeKind::New, 2, 6_000, 7_000), moment(7_000), true);
        assert!(!other.clip.persisted, "the first picture of the next fragment");
        assert_ne!(new.id, other.id);
        let update = live.change(&change(ChangeKind::Update, 1, 5_960, 8_000), moment(8_000), true);
        assert_eq!((update.id, update.clip.persisted), (new.id, true));
    }

    #[test]
    fn without_an_upload_memory_stays_bounded() {
        let mut live = live();
        for track in 0..2_000 {
            live.change(&change(ChangeKind::New, track, track, track), moment(track), true);
            live.change(&change(ChangeKind::End, track, track, track), moment(track), true);
            live.persisted(&fragment(1_000_000 + track, 1), number(1));
        }
        assert!(live.open.is_empty());
        assert_eq!((live.waiting.len(), live.kept.len()), (WAITING, KEPT));
    }
}
