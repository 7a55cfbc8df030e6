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
use crate::messages::{
    Clip, ClockSource, Crossing, Direction, Event, EventKind, EventModel, UtcTime, Version,
};

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

    /// The message of one change.
    pub(super) fn change(&mut self, change: &Change, moment: Moment) -> Event {
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
            clock: moment.clock,
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
            has_snapshot: false,
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

    /// Name of a class of the model.
    pub(super) fn label(&self, class: u16) -> String {
        self.model.labels.get(usize::from(class)).cloned().unwrap_or_else(|| class.to_string())
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
