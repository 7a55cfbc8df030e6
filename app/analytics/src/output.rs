//! What a branch reports and hands out, in its own types.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use decode::{DecodeReport, Frame};
use health::Problem;
use kvs::FragmentNumber;
use media::{ClockSource, ProducerTimestamp};
use tokio::sync::broadcast;
use vision::event::{ChangeKind, Event, LineCount};
use vision::figures::Histogram;
use vision::track::Track;
use vision::{Detection, Rect};

use crate::detector::Model;

/// Annotated frames for whoever draws them; the slow lose the oldest.
const ANNOTATED_PLACES: usize = 8;

/// One thing that a branch found out, in the order in which it did.
#[derive(Clone, Debug)]
pub enum Output {
    /// The life of an object goes on. With the end of an event comes its best shot, if there is one.
    Event { change: Box<EventChange>, shot: Option<Box<Shot>> },
    /// So many confirmed objects of this label are in the picture from now on.
    Count { label: String, count: u32 },
    /// Whether anything moves from now on.
    Motion(bool),
    /// A new best picture of this label, JPEG.
    Snapshot { label: String, jpeg: Bytes },
}

/// A change in the life of one object.
#[derive(Clone, Debug, PartialEq)]
pub struct EventChange {
    /// The same in all changes of one event, and unique among all boxes: a ULID.
    pub id: String,
    pub kind: ChangeKind,
    /// Producer time of the picture that made the change, and what that time rests on.
    pub at: ProducerTimestamp,
    pub clock: ClockSource,
    /// Width and height of the camera's picture in pixels.
    pub frame_size: [u32; 2],
    pub event: Event,
    /// Whether a JPEG of it was handed out as [`Output::Snapshot`].
    pub has_snapshot: bool,
    pub model: Arc<Model>,
    pub clip: Clip,
}

/// Where in the cloud recording an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clip {
    /// Producer time of the event's first picture: where to begin to look.
    pub start: ProducerTimestamp,
    /// Number of the fragment that holds that picture; absent until KVS has persisted it.
    pub fragment: Option<FragmentNumber>,
}

/// The best picture of an event, and what else was found in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Shot {
    pub label: String,
    /// Number of the picture since the branch began.
    pub frame: u64,
    pub at: ProducerTimestamp,
    pub boxes: Vec<LabelledBox>,
    /// Share of this picture in the time that the model took.
    pub inference: Duration,
    /// Absent where nobody wants JPEGs, or none fits the limit.
    pub jpeg: Option<Bytes>,
}

/// One confirmed object in a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledBox {
    pub label: String,
    pub score: f32,
    pub rect: Rect,
    pub track: u64,
}

/// A decoded picture with what was found in it.
#[derive(Clone)]
pub struct AnnotatedFrame {
    pub frame: Arc<Frame>,
    /// What the tracks were made of.
    pub detections: Vec<Detection>,
    pub tracks: Vec<Track>,
    pub model: Arc<Model>,
}

/// A channel for those who draw. Without a receiver it costs nothing.
pub fn annotated_frames() -> broadcast::Sender<AnnotatedFrame> {
    broadcast::channel(ANNOTATED_PLACES).0
}

/// Where the branch of one camera stands; counters run since start.
#[derive(Clone, Debug, Default)]
pub struct AnalyticsReport {
    pub problem: Option<Problem>,
    pub decode: Option<DecodeReport>,
    pub moving: Option<bool>,
    /// Confirmed objects in the picture now, by label.
    pub counts: BTreeMap<String, u32>,
    /// How many crossed each line.
    pub crossings: Vec<LineCount>,
    /// Events begun.
    pub events: u64,
    /// From the camera's clock to the hand-over of what was found in a picture: since start, and in the last minute.
    pub latency: Histogram,
    pub recent_latency: Histogram,
}
