//! What was seen: the life cycle of one tracked object, and the same as a file on disk.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{ClockSource, UtcTime, Version};

/// A score, a coordinate or a size as a part of one, 0.0..=1.0; four decimals on the wire, a tenth of a pixel at 1080p.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Part(f64);

impl Part {
    /// The nearest value that the wire can carry; what is outside of 0.0..=1.0 becomes its end, NaN becomes 0.
    pub fn new(value: f32) -> Part {
        Part::nearest(f64::from(value))
    }

    pub fn get(self) -> f64 {
        self.0
    }

    fn nearest(value: f64) -> Part {
        let finite = if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) };
        // Minus zero, which clamp lets pass, plus zero is zero.
        Part((finite * 1e4).round() / 1e4 + 0.0)
    }
}

impl From<f32> for Part {
    fn from(value: f32) -> Part {
        Part::new(value)
    }
}

impl Serialize for Part {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0)
    }
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Part, D::Error> {
        f64::deserialize(deserializer).map(Part::nearest)
    }
}

/// Left, top, width and height in parts of the picture; on the wire an array of these four.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BoxParts(pub [Part; 4]);

impl From<vision::Rect> for BoxParts {
    fn from(rect: vision::Rect) -> BoxParts {
        BoxParts([rect.x, rect.y, rect.w, rect.h].map(Part::new))
    }
}

/// Where in its life an event is. One `new`, any number of `update`, one `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    New,
    Update,
    /// Repeats everything a dashboard needs. Once its fragment is persisted one more `update` fills the clip.
    End,
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// For the record.
    #[default]
    Detection,
    /// Somebody should look.
    Alert,
}

impl From<vision::rules::Severity> for Severity {
    fn from(severity: vision::rules::Severity) -> Severity {
        match severity {
            vision::rules::Severity::Detection => Severity::Detection,
            vision::rules::Severity::Alert => Severity::Alert,
        }
    }
}

/// Which way a line was crossed; `vision::rules::Line` says which side is which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    In,
    Out,
}

/// A line that the object crossed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crossing {
    /// Its name in the configuration.
    pub line: String,
    pub direction: Direction,
}

/// Which model saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventModel {
    pub name: String,
    /// Of the model file, hexadecimal.
    pub sha256: String,
}

/// Where in the cloud recording it is. The same in all messages of an event, until its fragment is persisted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clip {
    pub kvs_stream: String,
    pub region: String,
    /// Producer timestamp of the event's first picture: where to begin to look.
    pub producer_ts_ms: u64,
    /// Number of the fragment that holds that picture; null until KVS has persisted it.
    #[serde(default)]
    pub fragment: Option<String>,
    /// That KVS has reported it as persisted.
    pub persisted: bool,
}

/// One object that the camera saw. `end` and `clip.fragment` are null while they are not known; readers take their
/// absence for the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub v: Version,
    /// Counts the events of the box.
    pub seq: u64,
    /// That it is sent late, after an outage of the broker.
    pub replayed: bool,
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// The same in all messages about one object, and unique among all boxes.
    pub id: String,
    pub device: String,
    pub camera: String,
    /// Producer time of the picture that this message is about.
    pub ts: UtcTime,
    /// What that time rests on.
    pub clock: ClockSource,
    pub label: String,
    /// In this picture, and the best so far.
    pub score: Part,
    pub top_score: Part,
    /// Number of the track within the camera since start.
    pub track: u64,
    #[serde(rename = "box")]
    pub rect: BoxParts,
    /// Width and height of the camera's picture in pixels, for those who want the box in pixels.
    pub frame: [u32; 2],
    /// Where it is now, and everywhere it has been; names from the configuration.
    pub zones: Vec<String>,
    pub entered: Vec<String>,
    pub stationary: bool,
    #[serde(default)]
    pub severity: Severity,
    /// Every line crossed so far, in order.
    #[serde(default)]
    pub crossed: Vec<Crossing>,
    /// That its best picture is (or was) at `snapshot/LABEL`.
    #[serde(default)]
    pub has_snapshot: bool,
    /// Producer times at which it was first seen, and last.
    pub start: UtcTime,
    #[serde(default)]
    pub end: Option<UtcTime>,
    pub model: EventModel,
    pub clip: Clip,
}

/// One box in a [`DetectionRecord`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    pub label: String,
    pub confidence: Part,
    #[serde(rename = "box")]
    pub rect: BoxParts,
    /// Absent for a box that belongs to no track yet.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub track: Option<u64>,
}

/// A JSON file in `detect.events_folder`: everything seen in the picture that made an event, and the event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DetectionRecord {
    /// Wall time of writing.
    pub timestamp: UtcTime,
    /// Number of the picture within the camera since start.
    pub frame_id: u64,
    /// Its producer time.
    pub frame_timestamp: UtcTime,
    /// The camera.
    pub source_id: String,
    pub predictions: Vec<Prediction>,
    /// Of this picture; of a batch its even share.
    pub inference_time_ms: f64,
    pub event: Event,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::approx_constant, reason = "a height, by chance")]
    fn event() -> Event {
        let at = UtcTime::from_millis(1_795_183_402_417);
        Event {
            v: Version::default(),
            seq: 18233,
            replayed: false,
            kind: EventKind::Update,
            id: "01J".into(),
            device: "box-7f3a".into(),
            camera: "dock-2".into(),
            ts: at,
            clock: ClockSource::Rtcp,
            label: "person".into(),
            score: Part::new(0.83),
            top_score: Part::new(0.91),
            track: 412,
            rect: vision::Rect { x: 0.412, y: 0.233, w: 0.071, h: 0.318 }.into(),
            frame: [1920, 1080],
            zones: vec!["gate".into()],
            entered: vec!["gate".into()],
            stationary: false,
            severity: vision::rules::Severity::Alert.into(),
            crossed: vec![Crossing { line: "kerb".into(), direction: Direction::In }],
            has_snapshot: true,
            start: UtcTime::from_millis(1_795_183_399_883),
            end: None,
            model: EventModel { name: "yolo11s".into(), sha256: "9c1e".into() },
            clip: Clip {
                kvs_stream: "dock-2".into(),
                region: "eu-west-1".into(),
                producer_ts_ms: at.as_millis(),
                fragment: None,
                persisted: false,
            },
        }
    }

    const WIRE: &str = concat!(
        r#"{"v":1,"seq":18233,"replayed":false,"type":"update","id":"01J","device":"box-7f3a","camera":"dock-2","#,
        r#""ts":"2026-11-20T14:03:22.417Z","clock":"rtcp","label":"person","score":0.83,"top_score":0.91,"#,
        r#""track":412,"box":[0.412,0.233,0.071,0.318],"frame":[1920,1080],"zones":["gate"],"entered":["gate"],"#,
        r#""stationary":false,"severity":"alert","crossed":[{"line":"kerb","direction":"in"}],"has_snapshot":true,"#,
        r#""start":"2026-11-20T14:03:19.883Z","end":null,"model":{"name":"yolo11s","sha256":"9c1e"},"#,
        r#""clip":{"kvs_stream":"dock-2","region":"eu-west-1","producer_ts_ms":1795183402417,"fragment":null,"#,
        r#""persisted":false}}"#
    );

    #[test]
    fn event_body_is_as_documented() {
        let json = serde_json::to_string(&event()).expect("serialises");
        assert_eq!(json, WIRE);
        assert_eq!(serde_json::from_str::<Event>(&json).expect("reads back"), event());
        let shorter = json.replace(r#""end":null,"#, "").replace(r#""fragment":null,"#, "");
        assert_eq!(serde_json::from_str::<Event>(&shorter).expect("absent is null"), event());
        // The sample of the contract, which has none of what came later.
        let first = shorter.replace(
            r#""severity":"alert","crossed":[{"line":"kerb","direction":"in"}],"has_snapshot":true,"#,
            "",
        );
        let first: Event = serde_json::from_str(&first).expect("reads the least body");
        assert_eq!((first.severity, first.crossed, first.has_snapshot), (Severity::Detection, vec![], false));
        let ended = Event {
            kind: EventKind::End,
            end: Some(event().ts),
            clip: Clip { fragment: Some("9134".into()), persisted: true, ..event().clip },
            ..event()
        };
        let json = serde_json::to_string(&ended).expect("serialises");
        assert!(
            json.contains(r#""type":"end""#) && json.contains(r#""end":"2026-11-20T14:03:22.417Z""#),
            "{json}"
        );
        assert!(json.contains(r#""fragment":"9134","persisted":true"#), "{json}");
        assert_eq!(serde_json::from_str::<Event>(&json).expect("reads back"), ended);
    }

    #[test]
    fn record_is_in_its_documented_form() {
        let record = DetectionRecord {
            timestamp: UtcTime::from_millis(1_795_183_402_520),
            frame_id: 181,
            frame_timestamp: event().ts,
            source_id: "dock-2".into(),
            predictions: vec![
                Prediction {
                    label: "person".into(),
                    confidence: Part::new(0.83),
                    rect: event().rect,
                    track: Some(412),
                },
                Prediction {
                    label: "vehicle".into(),
                    confidence: Part::new(0.5),
                    rect: vision::Rect { x: 0.0, y: 0.5, w: 0.25, h: 0.5 }.into(),
                    track: None,
                },
            ],
            inference_time_ms: 4.8,
            event: event(),
        };
        let json = serde_json::to_string(&record).expect("serialises");
        let expected = concat!(
            r#"{"timestamp":"2026-11-20T14:03:22.520Z","frame_id":181,"#,
            r#""frame_timestamp":"2026-11-20T14:03:22.417Z","source_id":"dock-2","predictions":["#,
            r#"{"label":"person","confidence":0.83,"box":[0.412,0.233,0.071,0.318],"track":412},"#,
            r#"{"label":"vehicle","confidence":0.5,"box":[0.0,0.5,0.25,0.5]}],"inference_time_ms":4.8,"event":"#
        );
        assert_eq!(json, format!("{expected}{WIRE}}}"));
        assert_eq!(serde_json::from_str::<DetectionRecord>(&json).expect("reads back"), record);
    }

    #[test]
    fn parts_have_four_decimals() {
        let check = |value: f32, wire: &str| {
            assert_eq!(serde_json::to_string(&Part::new(value)).expect("serialises"), wire, "{value}");
        };
        check(0.1, "0.1");
        check(1.0 / 3.0, "0.3333");
        check(0.999_96, "1.0");
        check(1.5, "1.0");
        check(-0.0, "0.0");
        check(-0.000_01, "0.0");
        check(f32::NAN, "0.0");
        check(f32::INFINITY, "1.0");
        check(f32::NEG_INFINITY, "0.0");
        assert_eq!(serde_json::from_str::<Part>("1").expect("an integer is a number"), Part::new(1.0));
    }
}
