//! By what one camera's tracks are judged; as the configuration has it, with labels by name.

use std::collections::{BTreeMap, BTreeSet};

use crate::Point;
use crate::group;
use crate::head::Thresholds;
use crate::track::{ClassRule, TrackerConfig};
use crate::zone::{Polygon, Segment, ShapeError};

/// How much an event matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// For the record.
    #[default]
    Detection,
    /// Somebody should look.
    Alert,
}

/// Rules of one label, or of a group ([`crate::group`]).
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
    /// Only these labels, or groups of them; empty: all.
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
    /// Only these labels, or groups of them; empty: all.
    pub labels: Vec<String>,
}

/// Which way a line was crossed, see [`Line`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    In,
    Out,
}

/// Everything that one camera's tracks are judged by. Times are milliseconds of producer time.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Only these labels, or groups of them, are looked at; empty: all of the model.
    pub labels: Vec<String>,
    /// For labels that `by_label` does not name, nor their group.
    pub label: LabelRule,
    /// That of a label wins over that of its group.
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
            lost_after_ms: 5_000,
            stationary_after_ms: 10_000,
            update_every_ms: 1_000,
            zones: Vec::new(),
            lines: Vec::new(),
        }
    }
}

/// More zones, or lines, than anybody draws for one camera; each track is judged by all of them.
pub const MAX_SHAPES: usize = 64;

/// What does not fit in [`Rules`], and where.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RulesError {
    #[error("{place}: {found}, expected 0.0 to 1.0")]
    Part { place: String, found: f32 },
    #[error("{place}: min_area {min} is above max_area {max}, so nothing is left")]
    Areas { place: String, min: f32, max: f32 },
    #[error("confirm_frames is 0, expected at least 1")]
    NoConfirmation,
    #[error("{place} names the label `{label}`, which the model does not have; it has: {known}")]
    UnknownLabel { place: String, label: String, known: String },
    #[error("{kind} {n} has no name")]
    NoName { kind: &'static str, n: usize },
    #[error("two of the {kind}s are called `{name}`")]
    SameName { kind: &'static str, name: String },
    #[error("{kind} `{name}`: {error}")]
    Shape { kind: &'static str, name: String, error: ShapeError },
    #[error("{found} {kind}s, expected at most {MAX_SHAPES}")]
    TooMany { kind: &'static str, found: usize },
}

impl Rules {
    /// Everything but the names of labels, which need a model: see [`Rules::check_labels`].
    pub fn check(&self) -> Result<(), RulesError> {
        if self.confirm_frames == 0 {
            return Err(RulesError::NoConfirmation);
        }
        self.label.check("the rule for all labels")?;
        for (label, rule) in &self.by_label {
            rule.check(&format!("the rule for `{label}`"))?;
        }
        check_names("zone", self.zones.iter().map(|zone| &zone.name))?;
        for zone in &self.zones {
            Polygon::new(&zone.polygon).map_err(|error| RulesError::shape("zone", &zone.name, error))?;
        }
        check_names("line", self.lines.iter().map(|line| &line.name))?;
        for line in &self.lines {
            Segment::new(line.from, line.to).map_err(|error| RulesError::shape("line", &line.name, error))?;
        }
        Ok(())
    }

    /// Whether the model has every label that is named anywhere, or labels of that group.
    pub fn check_labels(&self, labels: &[String]) -> Result<(), RulesError> {
        let groups = group::groups(labels).map(str::to_owned);
        let known: Vec<String> = labels.iter().cloned().chain(groups).collect();
        let named =
            |place: String, labels: &[String]| match labels.iter().find(|label| !known.contains(label)) {
                Some(label) => {
                    Err(RulesError::UnknownLabel { place, label: label.clone(), known: known.join(", ") })
                }
                None => Ok(()),
            };
        named("the list of labels".into(), &self.labels)?;
        for label in self.by_label.keys() {
            named("a rule".into(), std::slice::from_ref(label))?;
        }
        for zone in &self.zones {
            named(format!("zone `{}`", zone.name), &zone.labels)?;
        }
        for line in &self.lines {
            named(format!("line `{}`", line.name), &line.labels)?;
        }
        Ok(())
    }

    pub fn rule(&self, label: &str) -> &LabelRule {
        let of_group = || self.by_label.get(group::group_of(label)?);
        self.by_label.get(label).or_else(of_group).unwrap_or(&self.label)
    }

    /// Whether this label is looked at.
    pub fn wants(&self, label: &str) -> bool {
        is_among(label, &self.labels)
    }

    /// For each class of the model the first one of its kind: see [`group::kinds`].
    pub fn kinds(&self, labels: &[String]) -> Vec<u16> {
        group::kinds(labels, |label| self.wants(label))
    }

    /// The tracker that these rules need, for a model with `labels`. It ignores boxes of other labels and of areas
    /// out of range, so that an object that has become too small ends like one that has left.
    pub fn tracker(&self, labels: &[String]) -> TrackerConfig {
        let class = |(label, kind): (&String, u16)| {
            let LabelRule { min_score, min_area, max_area, .. } = *self.rule(label);
            ClassRule {
                wanted: self.wants(label),
                begin_score: min_score,
                min_area,
                max_area,
                kind: Some(kind),
            }
        };
        TrackerConfig {
            classes: labels.iter().zip(self.kinds(labels)).map(class).collect(),
            confirm_hits: self.confirm_frames,
            lost_after_ms: self.lost_after_ms,
            ..TrackerConfig::default()
        }
    }

    /// What the detector's head has to let through for [`Rules::tracker`]: low scores too, for they continue tracks.
    pub fn thresholds(&self, labels: &[String]) -> Thresholds {
        let mut thresholds = Thresholds::new(labels.len(), TrackerConfig::default().low_score);
        for (class, label) in (0_u16..).zip(labels) {
            let LabelRule { min_score, .. } = self.rule(label);
            if !self.wants(label) {
                thresholds.exclude(class);
            } else if *min_score < TrackerConfig::default().low_score {
                thresholds.set(class, *min_score);
            }
        }
        thresholds
    }
}

/// Whether a list of labels and groups names this label; an empty one names all.
pub(crate) fn is_among(label: &str, names: &[String]) -> bool {
    names.is_empty() || names.iter().any(|name| group::covers(name, label))
}

impl LabelRule {
    fn check(&self, place: &str) -> Result<(), RulesError> {
        let parts = [("min_score", self.min_score), ("min_area", self.min_area), ("max_area", self.max_area)];
        for (key, found) in parts {
            if !(0.0..=1.0).contains(&found) {
                return Err(RulesError::Part { place: format!("{place}, {key}"), found });
            }
        }
        if self.min_area > self.max_area {
            let (min, max) = (self.min_area, self.max_area);
            return Err(RulesError::Areas { place: place.into(), min, max });
        }
        Ok(())
    }
}

impl RulesError {
    fn shape(kind: &'static str, name: &str, error: ShapeError) -> RulesError {
        RulesError::Shape { kind, name: name.into(), error }
    }
}

fn check_names<'a>(
    kind: &'static str,
    names: impl ExactSizeIterator<Item = &'a String>,
) -> Result<(), RulesError> {
    if names.len() > MAX_SHAPES {
        return Err(RulesError::TooMany { kind, found: names.len() });
    }
    let mut seen = BTreeSet::new();
    for (n, name) in names.enumerate() {
        if name.is_empty() {
            return Err(RulesError::NoName { kind, n: n + 1 });
        }
        if !seen.insert(name) {
            return Err(RulesError::SameName { kind, name: name.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str, polygon: &[(f32, f32)]) -> Zone {
        let polygon = polygon.iter().map(|&(x, y)| Point { x, y }).collect();
        Zone { name: name.into(), polygon, labels: vec!["person".into()], dwell_ms: 0, severity: None }
    }

    #[test]
    fn rules_that_do_not_fit_say_what_and_where() {
        let good = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)];
        let check = |change: &dyn Fn(&mut Rules), expected: &str| {
            let mut rules = Rules::default();
            change(&mut rules);
            let labels = ["person".to_owned(), "vehicle".to_owned()];
            let error = rules.check().and_then(|()| rules.check_labels(&labels)).unwrap_err();
            assert_eq!(error.to_string(), expected);
        };
        check(&|rules| rules.confirm_frames = 0, "confirm_frames is 0, expected at least 1");
        check(
            &|rules| rules.label.min_score = f32::NAN,
            "the rule for all labels, min_score: NaN, expected 0.0 to 1.0",
        );
        check(
            &|rules| {
                let rule = LabelRule { min_area: 0.5, max_area: 0.1, ..LabelRule::default() };
                rules.by_label.insert("person".into(), rule);
            },
            "the rule for `person`: min_area 0.5 is above max_area 0.1, so nothing is left",
        );
        check(
            &|rules| rules.labels = vec!["persn".into()],
            "the list of labels names the label `persn`, which the model does not have; it has: person, vehicle",
        );
        check(&|rules| rules.zones = vec![zone("", &good)], "zone 1 has no name");
        check(
            &|rules| rules.zones = vec![zone("gate", &good), zone("gate", &good)],
            "two of the zones are called `gate`",
        );
        check(
            &|rules| rules.zones = vec![zone("gate", &good[..2])],
            "zone `gate`: 2 corners, expected 3 to 128",
        );
        check(
            &|rules| {
                let (from, to) = (Point { x: 0.5, y: 0.5 }, Point { x: 0.5, y: 0.5 });
                rules.lines = vec![Line { name: "door".into(), from, to, labels: Vec::new() }];
            },
            "line `door`: from (0.5, 0.5) to the same place, expected two different points",
        );
        check(
            &|rules| rules.zones = (0..65).map(|n| zone(&n.to_string(), &good)).collect(),
            "65 zones, expected at most 64",
        );
        let rules = Rules { zones: vec![zone("gate", &good)], ..Rules::default() };
        assert_eq!(rules.check(), Ok(()));
        let labels = ["cat".to_owned()];
        assert!(matches!(rules.check_labels(&labels), Err(RulesError::UnknownLabel { .. })));
    }

    #[test]
    fn a_group_stands_for_its_labels() {
        let labels = ["person", "car", "truck", "dog"].map(str::to_owned);
        let mut rules = Rules { labels: vec!["person".into(), "vehicle".into()], ..Rules::default() };
        rules.zones = vec![Zone { labels: vec!["vehicle".into()], ..zone("gate", &[]) }];
        let rule = |min_score| LabelRule { min_score, ..LabelRule::default() };
        rules.by_label.insert("vehicle".into(), rule(0.4));
        rules.by_label.insert("truck".into(), rule(0.6));
        assert_eq!(rules.check_labels(&labels), Ok(()));
        let config = rules.tracker(&labels);
        let of_class =
            |n: usize| (config.classes[n].wanted, config.classes[n].begin_score, config.classes[n].kind);
        assert_eq!(
            [0, 1, 2, 3].map(of_class),
            [(true, 0.5, Some(0)), (true, 0.4, Some(1)), (true, 0.6, Some(1)), (false, 0.5, Some(3))]
        );
        let error = rules.check_labels(&["person".to_owned(), "dog".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("`vehicle`"), "{error}");
        let rules = Rules { labels: vec!["bus".into()], ..Rules::default() };
        let error = rules.check_labels(&labels).unwrap_err();
        assert!(error.to_string().ends_with("it has: person, car, truck, dog, vehicle"), "{error}");
    }

    #[test]
    fn tracker_begins_by_the_label() {
        let mut rules = Rules { labels: vec!["person".into()], ..Rules::default() };
        rules.by_label.insert("person".into(), LabelRule { min_score: 0.7, ..LabelRule::default() });
        let config = rules.tracker(&["person".into(), "vehicle".into()]);
        assert_eq!(config.classes[0].begin_score, 0.7);
        assert!(config.classes[0].wanted && !config.classes[1].wanted);
    }
}
