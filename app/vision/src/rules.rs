//! By what one camera's tracks are judged; as the configuration gives it, with labels by name.

use std::collections::BTreeMap;

use crate::Point;

/// How much an event matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// For the record.
    #[default]
    Detection,
    /// Somebody should look.
    Alert,
}

/// Rules of one label.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelRule {
    /// Boxes below this score never begin or confirm a track, 0.0..=1.0.
    pub min_score: f32,
    /// Boxes that cover less (or more) of the picture are ignored, 0.0..=1.0.
    pub min_area: f32,
    pub max_area: f32,
    pub severity: Severity,
}

impl Default for LabelRule {
    fn default() -> LabelRule {
        LabelRule { min_score: 0.5, min_area: 0.0, max_area: 1.0, severity: Severity::Detection }
    }
}

/// A part of the picture with a name. A track is in it when the foot of its box is.
#[derive(Clone, Debug, PartialEq)]
pub struct Zone {
    pub name: String,
    /// At least three corners in order, parts of the picture.
    pub polygon: Vec<Point>,
    /// Only these labels; empty: all.
    pub labels: Vec<String>,
    /// A track has entered after being in for this long, milliseconds of producer time.
    pub dwell_ms: u64,
    /// Severity of events that enter it; absent: that of the label.
    pub severity: Option<Severity>,
}

/// A line that tracks cross; feet that come from its left side when looking from `from` to `to` go `out`, the
/// others `in`.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub name: String,
    pub from: Point,
    pub to: Point,
    /// Only these labels; empty: all.
    pub labels: Vec<String>,
}

/// Everything that one camera's tracks are judged by. Times are milliseconds of producer time.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Only these labels are looked at; empty: all of the model.
    pub labels: Vec<String>,
    /// For labels that `by_label` does not name.
    pub label: LabelRule,
    pub by_label: BTreeMap<String, LabelRule>,
    /// A track becomes an event after being seen in this many pictures, at least 1.
    pub confirm_frames: u32,
    /// A track that is not seen for this long has ended.
    pub lost_after_ms: u64,
    /// A track that did not move for this long is stationary: it makes no more updates until it moves again.
    pub stationary_after_ms: u64,
    /// Between two updates of one event, unless something besides its box changed.
    pub update_every_ms: u64,
    pub zones: Vec<Zone>,
    pub lines: Vec<Line>,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            labels: Vec::new(),
            label: LabelRule::default(),
            by_label: BTreeMap::new(),
            confirm_frames: 3,
            lost_after_ms: 2_000,
            stationary_after_ms: 10_000,
            update_every_ms: 1_000,
            zones: Vec::new(),
            lines: Vec::new(),
        }
    }
}
