//! What one camera's analytics found out, as MQTT messages and as files.
//!
//! ```text
//!  Output, 64 --> event, count, motion, snapshot --> mqtt (never waits)
//!            +--> event that ended, best shot -----> records (threads for blocking work, 16 at most)
//! ```

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use analytics::{EventChange, LabelledBox, Output, Shot};
use bytes::Bytes;
use clock::Clock;
use media::ProducerTimestamp;
use messages::{
    Clip, Crossing, DetectionRecord, Direction, Event, EventKind, EventModel, OFF, ON, Prediction, Topics,
    UtcTime, Version, rounded,
};
use mqtt::{MqttHandle, Qos};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use vision::event::{ChangeKind, Crossed};

use super::records::Records;
use crate::record::AroundEvents;

/// Files being written at a time; a disk that is slower than the events costs files.
const WRITES: usize = 16;
/// How long the end of a camera waits for them.
const WRITE_LIMIT: Duration = Duration::from_secs(2);

/// Numbers of the events of one box, without holes since start.
#[derive(Clone, Debug, Default)]
pub struct Sequence(Arc<AtomicU64>);

impl Sequence {
    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// What is the same in all messages about one camera's events.
#[derive(Clone, Debug)]
pub struct Origin {
    pub device: String,
    pub camera: String,
    pub stream: String,
    pub region: String,
}

/// Publishes what one camera's analytics hand out.
#[derive(Clone)]
pub struct AnalyticsPublisher {
    pub origin: Origin,
    pub mqtt: Option<MqttHandle>,
    pub topics: Topics,
    pub sequence: Sequence,
    /// Which of it the configuration wants.
    pub snapshots: bool,
    pub motion: bool,
    /// Where events are written as files, and how many are kept.
    pub records: Option<(PathBuf, usize)>,
    pub clock: Clock,
    /// Where only the footage around events is uploaded.
    pub around: Option<AroundEvents>,
}

impl AnalyticsPublisher {
    /// Runs until the branch has gone.
    pub async fn run(self, mut outputs: mpsc::Receiver<Output>) {
        let (mut files, mut around) = (Files::new(&self), self.around.clone());
        while let Some(output) = outputs.recv().await {
            match output {
                Output::Event { change, shot } => {
                    if let Some(around) = &mut around {
                        around.change(&change.id, change.at, change.kind == ChangeKind::End);
                    }
                    let event = event(&change, &self.origin, self.sequence.next(), self.snapshots);
                    if let Some(mqtt) = &self.mqtt {
                        mqtt.publish(self.topics.events(&self.origin.camera), &event, Qos::AtLeastOnce);
                    }
                    if let Some(shot) = shot {
                        files.write(*shot, event);
                    }
                }
                Output::Count { label, count } => {
                    self.word(self.topics.count(&self.origin.camera, &label), &count.to_string());
                }
                Output::Motion(moving) if self.motion => {
                    self.word(self.topics.motion(&self.origin.camera), if moving { ON } else { OFF });
                }
                Output::Snapshot { label, jpeg } if self.snapshots => {
                    self.retained(self.topics.snapshot(&self.origin.camera, &label), jpeg);
                }
                Output::Motion(_) | Output::Snapshot { .. } => {}
            }
        }
        files.finish().await;
    }

    fn word(&self, topic: String, word: &str) {
        self.retained(topic, Bytes::copy_from_slice(word.as_bytes()));
    }

    fn retained(&self, topic: String, body: Bytes) {
        if let Some(mqtt) = &self.mqtt {
            mqtt.publish_retained_bytes(topic, body, Qos::AtMostOnce);
        }
    }
}

/// Events on disk.
struct Files {
    records: Option<Arc<Mutex<Records>>>,
    writes: JoinSet<()>,
    behind: bool,
    camera: String,
    clock: Clock,
}

impl Files {
    fn new(publisher: &AnalyticsPublisher) -> Self {
        let camera = publisher.origin.camera.clone();
        let records = publisher.records.as_ref().map(|(folder, keep)| Records::new(folder, &camera, *keep));
        Self {
            records: records.map(|records| Arc::new(Mutex::new(records))),
            writes: JoinSet::new(),
            behind: false,
            camera,
            clock: publisher.clock.clone(),
        }
    }

    fn write(&mut self, shot: Shot, event: Event) {
        let Some(records) = self.records.clone() else { return };
        while self.writes.try_join_next().is_some() {}
        let behind = self.writes.len() >= WRITES;
        if behind && !self.behind {
            tracing::warn!(camera = self.camera, "the disk is too slow for the events, some are not written");
        }
        self.behind = behind;
        if behind {
            return;
        }
        let jpeg = shot.jpeg.clone();
        let record = record(shot, event, self.clock.wall().into());
        self.writes.spawn_blocking(move || {
            records.lock().unwrap_or_else(PoisonError::into_inner).write(&record, jpeg.as_ref());
        });
    }

    async fn finish(&mut self) {
        let all = async { while self.writes.join_next().await.is_some() {} };
        if tokio::time::timeout(WRITE_LIMIT, all).await.is_err() {
            tracing::warn!(camera = self.camera, "the disk does not answer, the last events are not written");
        }
        self.writes.detach_all(); // a write that hangs cannot be ended
    }
}

fn time(at: ProducerTimestamp) -> UtcTime {
    UtcTime::from_millis(at.as_millis())
}

/// The body of a message. `snapshots`: whether they are published at all.
pub(crate) fn event(change: &EventChange, origin: &Origin, seq: u64, snapshots: bool) -> Event {
    let seen = &change.event;
    Event {
        v: Version::default(),
        seq,
        replayed: false,
        kind: match change.kind {
            ChangeKind::New => EventKind::New,
            ChangeKind::Update => EventKind::Update,
            ChangeKind::End => EventKind::End,
        },
        id: change.id.clone(),
        device: origin.device.clone(),
        camera: origin.camera.clone(),
        ts: time(change.at),
        clock: change.clock.into(),
        label: seen.label.to_string(),
        severity: seen.severity.into(),
        score: seen.score.into(),
        top_score: seen.top_score.into(),
        track: seen.track,
        rect: seen.rect.into(),
        frame: change.frame_size,
        zones: seen.zones.iter().map(ToString::to_string).collect(),
        entered: seen.entered.iter().map(ToString::to_string).collect(),
        crossed: seen.crossed.iter().flat_map(crossings).collect(),
        stationary: seen.stationary,
        has_snapshot: snapshots && change.has_snapshot,
        start: time(seen.start),
        end: seen.end.map(time),
        model: EventModel { name: change.model.name.clone(), sha256: change.model.sha256.clone() },
        clip: Clip {
            kvs_stream: origin.stream.clone(),
            region: origin.region.clone(),
            producer_ts_ms: change.clip.start.as_millis(),
            fragment: change.clip.fragment.map(|number| number.to_string()),
            persisted: change.clip.fragment.is_some(),
        },
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

fn record(shot: Shot, event: Event, now: UtcTime) -> DetectionRecord {
    let prediction = |found: LabelledBox| Prediction {
        label: found.label,
        confidence: found.score.into(),
        rect: found.rect.into(),
        track: Some(found.track),
    };
    DetectionRecord {
        timestamp: now,
        frame_id: shot.frame,
        frame_timestamp: time(shot.at),
        source_id: event.camera.clone(),
        predictions: shot.boxes.into_iter().map(prediction).collect(),
        inference_time_ms: rounded(shot.inference.as_secs_f64() * 1000.0),
        event,
    }
}

#[cfg(test)]
mod tests {
    use analytics::detector::Model;
    use media::ClockSource;
    use messages::Severity;
    use vision::Rect;
    use vision::event::BestShot;

    use super::*;

    fn change() -> EventChange {
        let rect = Rect { x: 0.1, y: 0.2, w: 0.3, h: 0.4 };
        let time = ProducerTimestamp::from_millis;
        EventChange {
            id: "01J".into(),
            kind: ChangeKind::End,
            at: time(8_000),
            clock: ClockSource::Rtcp,
            frame_size: [1280, 720],
            event: vision::event::Event {
                track: 7,
                class: 0,
                label: "person".into(),
                score: 0.7,
                top_score: 0.9,
                rect,
                start: time(5_000),
                last_seen: time(6_000),
                end: Some(time(6_000)),
                zones: Vec::new(),
                entered: vec!["near".into()],
                stationary: false,
                severity: vision::rules::Severity::Alert,
                best: BestShot { rect, at: time(6_000), score: 0.9, area: 0.12 },
                crossed: vec![
                    Crossed { line: "kerb".into(), ins: 2, outs: 0 },
                    Crossed { line: "gate".into(), ins: 1, outs: 1 },
                ],
                frames: 3,
            },
            has_snapshot: true,
            model: Arc::new(Model {
                name: "scene".into(),
                sha256: "ab".into(),
                labels: vec!["person".into()],
                backend: "rten",
                because: String::new(),
                input: (320, 192),
            }),
            clip: analytics::Clip { start: time(5_000), fragment: None },
        }
    }

    fn origin() -> Origin {
        Origin {
            device: "box".into(),
            camera: "gate".into(),
            stream: "gate-stream".into(),
            region: "eu-west-1".into(),
        }
    }

    fn shot() -> Shot {
        let found = LabelledBox {
            label: "person".into(),
            score: 0.9,
            rect: Rect { x: 0.1, y: 0.2, w: 0.3, h: 0.4 },
            track: 7,
        };
        Shot {
            label: "person".into(),
            frame: 12,
            at: ProducerTimestamp::from_millis(6_000),
            boxes: vec![found],
            inference: Duration::from_micros(4_800),
            jpeg: Some(Bytes::from_static(b"jpeg")),
        }
    }

    #[test]
    fn an_event_is_told_with_its_place_in_the_recording() {
        let mut change = change();
        let told = event(&change, &origin(), 3, true);
        assert_eq!((told.seq, told.kind, told.replayed, &*told.id), (3, EventKind::End, false, "01J"));
        assert_eq!((told.ts, told.start, told.end), (time_ms(8_000), time_ms(5_000), Some(time_ms(6_000))));
        assert_eq!((told.frame, told.severity, told.has_snapshot), ([1280, 720], Severity::Alert, true));
        let crossing = |line: &str, direction| Crossing { line: line.into(), direction };
        assert_eq!(
            told.crossed,
            [
                crossing("kerb", Direction::In),
                crossing("gate", Direction::In),
                crossing("gate", Direction::Out)
            ]
        );
        let clip = Clip {
            kvs_stream: "gate-stream".into(),
            region: "eu-west-1".into(),
            producer_ts_ms: 5_000,
            fragment: None,
            persisted: false,
        };
        assert_eq!(told.clip, clip);
        let number = "91343852333181442316009417595428347397905520001";
        change.clip.fragment = Some(number.parse().expect("a fragment number"));
        let told = event(&change, &origin(), 4, false);
        assert_eq!((told.clip.fragment.as_deref(), told.clip.persisted), (Some(number), true));
        assert!(!told.has_snapshot, "none is published");
    }

    fn time_ms(ms: u64) -> UtcTime {
        UtcTime::from_millis(ms)
    }

    #[tokio::test]
    async fn events_are_numbered_without_holes_and_those_that_end_are_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let sequence = Sequence::default();
        let publisher = AnalyticsPublisher {
            origin: origin(),
            mqtt: None,
            topics: Topics::new("kvs-edge", "box"),
            sequence: sequence.clone(),
            snapshots: true,
            motion: true,
            records: Some((folder.path().to_owned(), 10)),
            clock: Clock::simulated(std::time::UNIX_EPOCH + Duration::from_secs(9)),
            around: None,
        };
        let (outputs, receiver) = mpsc::channel(8);
        let new = EventChange { kind: ChangeKind::New, ..change() };
        let events = [(new, None), (change(), Some(Box::new(shot())))];
        for (change, shot) in events {
            let output = Output::Event { change: Box::new(change), shot };
            outputs.send(output).await.expect("there is room");
        }
        outputs.send(Output::Motion(true)).await.expect("there is room");
        drop(outputs);
        publisher.run(receiver).await;
        assert_eq!(sequence.next(), 3);
        let file = |ending: &str| folder.path().join(format!("gate/1970-01-01T000005.000Z-01J.{ending}"));
        let text = std::fs::read(file("json")).expect("the record");
        let record: DetectionRecord = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(record.event, event(&change(), &origin(), 2, true), "as it was published");
        assert_eq!((record.frame_id, record.frame_timestamp), (12, time_ms(6_000)));
        assert_eq!((&*record.source_id, record.inference_time_ms), ("gate", 4.8));
        assert_eq!((record.predictions.len(), record.predictions[0].track), (1, Some(7)));
        assert_eq!(std::fs::read(file("jpg")).expect("the picture"), b"jpeg");
    }
}
