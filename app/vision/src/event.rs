//! Tracks into events: what somebody wants to be told about an object, and when.
//!
//! ```text
//!                confirm_frames pictures                lost_after_ms unseen, track gone,
//!                with enough score and area,            time ran back, finish()
//!                track confirmed
//!   sightings -----------------------------> New --+--------------------------------------> End
//!   (not told)                                     |
//!                                                  +--> Update  at once when a zone, line, label, stationarity or
//!                                                               the best shot (by a clear margin) changes;
//!                                                               else every update_every_ms, unless stationary
//! ```
//!
//! An event begins at the first sighting of its track, so zones, lines and stationarity are followed before it is
//! told; what happened by then is in New. After End a track is never told of again, even if it is still given. Memory
//! is that of the tracks given in the last update.

mod place;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use media::ProducerTimestamp;

use self::place::{Passage, Stay, Step, Still, slack};
use crate::Rect;
use crate::group;
use crate::rules::{Direction, LabelRule, Rules, RulesError, Severity, is_among};
use crate::track::Track;
use crate::zone::{Polygon, Segment};

/// The picture that shows an object best so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BestShot {
    pub rect: Rect,
    /// Timestamp of the picture.
    pub at: ProducerTimestamp,
    pub score: f32,
    /// Part of the picture that the box covers.
    pub area: f32,
}

/// How often an object crossed a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crossed {
    pub line: Arc<str>,
    pub ins: u32,
    pub outs: u32,
}

/// One object from its first sighting to its last.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Id of the track.
    pub track: u64,
    /// Index into the model's labels.
    pub class: u16,
    pub label: Arc<str>,
    /// Smoothed, 0.0..=1.0.
    pub score: f32,
    pub top_score: f32,
    /// Where it was last seen.
    pub rect: Rect,
    pub start: ProducerTimestamp,
    pub last_seen: ProducerTimestamp,
    /// Equal to `last_seen` once it has ended.
    pub end: Option<ProducerTimestamp>,
    /// In which it is, in the order of the rules.
    pub zones: Vec<Arc<str>>,
    /// In which it ever was, in the order of entering.
    pub entered: Vec<Arc<str>>,
    pub stationary: bool,
    /// The highest of its label and of the zones that it ever entered.
    pub severity: Severity,
    pub best: BestShot,
    /// Lines that it crossed, in the order of the first crossing.
    pub crossed: Vec<Crossed>,
    /// Pictures in which it was seen.
    pub frames: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    New,
    Update,
    End,
}

/// What made a change worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Seen in enough pictures.
    Confirmed,
    /// `update_every_ms` have passed.
    Due,
    Entered {
        zone: Arc<str>,
    },
    Left {
        zone: Arc<str>,
    },
    Crossed {
        line: Arc<str>,
        direction: Direction,
    },
    /// It has become stationary.
    Stopped,
    /// It was stationary and moves again.
    Started,
    /// It shows much better than in the best shot that was told last.
    BetterShot,
    /// It is something else than was told.
    Relabelled {
        from: Arc<str>,
    },
    /// Not seen for too long.
    Lost,
    /// The producer's time ran back.
    TimeRanBack,
    /// The camera was stopped.
    Finished,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub kind: ChangeKind,
    /// Timestamp of the picture that made it.
    pub at: ProducerTimestamp,
    /// At least one, in the order in which it happened.
    pub why: Vec<Why>,
    pub event: Event,
}

/// What one picture brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Ends of tracks that are gone first, then by track as given.
    pub changes: Vec<Change>,
    /// Tracks whose best shot is this very picture: the time to cut it out. Each New is among them.
    pub better: Vec<u64>,
}

/// Confirmed objects that have not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    pub label: Arc<str>,
    pub count: u32,
}

/// Confirmed objects that are in a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneCount {
    pub zone: Arc<str>,
    pub label: Arc<str>,
    pub count: u32,
}

/// Crossings by confirmed objects since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineCount {
    pub line: Arc<str>,
    pub label: Arc<str>,
    pub ins: u64,
    pub outs: u64,
}

/// A shot this much better is taken; this much better than the last told one, it is told.
const TAKEN: f32 = 1.1;
const TOLD: f32 = 1.25;
/// Worth of a box that the edge of the picture cuts.
const CUT: f32 = 0.5;
const AT_EDGE: f32 = 0.005;

/// Judges the tracks of one camera.
#[derive(Clone, Debug)]
pub struct Events {
    judge: Judge,
    now: Option<ProducerTimestamp>,
    /// By id of the track; `None`: ended, but still given.
    open: BTreeMap<u64, Option<Box<Progress>>>,
    /// By line and class: in, out.
    crossings: BTreeMap<(usize, u16), (u64, u64)>,
}

impl Events {
    /// `labels` are the model's.
    pub fn new(rules: Rules, labels: &[String]) -> Result<Events, RulesError> {
        rules.check()?;
        rules.check_labels(labels)?;
        let judge = Judge::new(&rules, labels)?;
        Ok(Events { judge, now: None, open: BTreeMap::new(), crossings: BTreeMap::new() })
    }

    /// Takes all tracks as of one picture, as [`crate::track::Tracker::update`] returns them. Time that runs back
    /// ends all events.
    pub fn update(&mut self, at: ProducerTimestamp, tracks: &[Track]) -> Outcome {
        let mut outcome = Outcome::default();
        if let Some(now) = self.now.filter(|now| at < *now) {
            for progress in self.open.values_mut() {
                outcome.changes.extend(progress.take().and_then(|open| open.end(now, Why::TimeRanBack)));
            }
        }
        self.now = Some(at);

        let mut given: Vec<u64> = tracks.iter().map(|track| track.id).collect();
        given.sort_unstable();
        self.open.retain(|id, progress| {
            let stays = given.binary_search(id).is_ok();
            if !stays && let Some(progress) = progress.take() {
                outcome.changes.extend(progress.end(at, Why::Lost));
            }
            stays
        });
        for track in tracks {
            self.follow(at, track, &mut outcome);
        }
        outcome
    }

    /// Ends everything, at `at` or the last picture if that is later.
    pub fn finish(&mut self, at: ProducerTimestamp) -> Vec<Change> {
        let at = self.now.map_or(at, |now| now.max(at));
        let open = std::mem::take(&mut self.open);
        open.into_values().flatten().filter_map(|progress| progress.end(at, Why::Finished)).collect()
    }

    /// Events that were told and have not ended, by track.
    pub fn active(&self) -> impl Iterator<Item = &Event> {
        self.open
            .values()
            .flatten()
            .filter(|progress| progress.told.is_some())
            .map(|progress| &progress.event)
    }

    /// Of each label that is looked at, none too; then of each group of several of them.
    pub fn counts(&self) -> Vec<Count> {
        let mut counts = vec![0; self.judge.labels.len()];
        for event in self.active() {
            counts[usize::from(event.class)] += 1;
        }
        let labels = self.judge.labels.iter().zip(counts).filter(|(label, _)| label.wanted);
        let mut counts: Vec<Count> =
            labels.map(|(label, count)| Count { label: label.name.clone(), count }).collect();
        for group in &self.judge.groups {
            let of_group = counts.iter().filter(|count| group::group_of(&count.label) == Some(group));
            let count = of_group.map(|count| count.count).sum();
            counts.push(Count { label: group.clone(), count });
        }
        counts
    }

    /// Of each zone and each label that is looked at in it, none too.
    pub fn zone_counts(&self) -> Vec<ZoneCount> {
        let mut counts = BTreeMap::new();
        for progress in self.open.values().flatten().filter(|progress| progress.told.is_some()) {
            for (zone, _) in progress.inside.iter().enumerate().filter(|(_, inside)| **inside) {
                *counts.entry((zone, progress.event.class)).or_default() += 1;
            }
        }
        let shapes = self.judge.zones.iter().map(|zone| (&zone.name, &zone.classes)).enumerate();
        let counted = shapes.flat_map(|(zone, (name, classes))| {
            let counts = &counts;
            self.judge.labels_of(classes).map(move |(class, label)| ZoneCount {
                zone: name.clone(),
                label: label.clone(),
                count: counts.get(&(zone, class)).copied().unwrap_or_default(),
            })
        });
        counted.collect()
    }

    /// Of each line and each label that is looked at on it, none too.
    pub fn crossings(&self) -> Vec<LineCount> {
        let shapes = self.judge.lines.iter().map(|line| (&line.name, &line.classes)).enumerate();
        let counted = shapes.flat_map(|(line, (name, classes))| {
            self.judge.labels_of(classes).map(move |(class, label)| {
                let (ins, outs) = self.crossings.get(&(line, class)).copied().unwrap_or_default();
                LineCount { line: name.clone(), label: label.clone(), ins, outs }
            })
        });
        counted.collect()
    }

    fn follow(&mut self, at: ProducerTimestamp, track: &Track, outcome: &mut Outcome) {
        let Events { judge, open, crossings, .. } = self;
        let entry = match open.entry(track.id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) if track.seen_now && judge.wants(track.class) => {
                place.insert(Some(Box::new(Progress::new(judge, at, track))))
            }
            Entry::Vacant(_) => return,
        };
        let Some(progress) = entry else { return };
        if track.seen_now {
            outcome.changes.extend(progress.see(judge, at, track, crossings));
            if progress.told.is_some() && progress.event.best.at == at {
                outcome.better.push(track.id);
            }
        } else if at.checked_ms_since(progress.event.last_seen).is_some_and(|ms| ms > judge.lost_after_ms) {
            outcome.changes.extend(entry.take().and_then(|progress| progress.end(at, Why::Lost)));
        }
    }
}

/// The rules with labels as indexes and shapes checked.
#[derive(Clone, Debug)]
struct Judge {
    labels: Vec<Label>,
    /// Those of which several labels are looked at.
    groups: Vec<Arc<str>>,
    zones: Vec<ZoneRule>,
    lines: Vec<LineRule>,
    confirm_frames: u32,
    lost_after_ms: u64,
    stationary_after_ms: u64,
    update_every_ms: u64,
}

#[derive(Clone, Debug)]
struct Label {
    name: Arc<str>,
    wanted: bool,
    rule: LabelRule,
}

#[derive(Clone, Debug)]
struct ZoneRule {
    name: Arc<str>,
    polygon: Polygon,
    /// By class, whether it is for it.
    classes: Vec<bool>,
    dwell_ms: u64,
    severity: Option<Severity>,
}

#[derive(Clone, Debug)]
struct LineRule {
    name: Arc<str>,
    segment: Segment,
    classes: Vec<bool>,
}

impl Judge {
    fn new(rules: &Rules, labels: &[String]) -> Result<Judge, RulesError> {
        let classes = |only: &[String]| -> Vec<bool> {
            let applies = |label: &String| rules.wants(label) && is_among(label, only);
            labels.iter().map(applies).collect()
        };
        let zones = rules.zones.iter().map(|zone| {
            let error = |error| RulesError::Shape { kind: "zone", name: zone.name.clone(), error };
            Ok(ZoneRule {
                name: zone.name.as_str().into(),
                polygon: Polygon::new(&zone.polygon).map_err(error)?,
                classes: classes(&zone.labels),
                dwell_ms: zone.dwell_ms,
                severity: zone.severity,
            })
        });
        let lines = rules.lines.iter().map(|line| {
            let error = |error| RulesError::Shape { kind: "line", name: line.name.clone(), error };
            let segment = Segment::new(line.from, line.to).map_err(error)?;
            Ok(LineRule { name: line.name.as_str().into(), segment, classes: classes(&line.labels) })
        });
        let label = |name: &String| Label {
            name: name.as_str().into(),
            wanted: rules.wants(name),
            rule: rules.rule(name).clone(),
        };
        let of_group = |group: &str| {
            let wanted = labels.iter().filter(|label| rules.wants(label));
            wanted.filter(|label| group::group_of(label) == Some(group)).count()
        };
        Ok(Judge {
            groups: group::groups(labels).filter(|group| of_group(group) > 1).map(Arc::from).collect(),
            labels: labels.iter().map(label).collect(),
            zones: zones.collect::<Result<_, _>>()?,
            lines: lines.collect::<Result<_, _>>()?,
            confirm_frames: rules.confirm_frames,
            lost_after_ms: rules.lost_after_ms,
            stationary_after_ms: rules.stationary_after_ms,
            update_every_ms: rules.update_every_ms,
        })
    }

    fn wants(&self, class: u16) -> bool {
        self.labels.get(usize::from(class)).is_some_and(|label| label.wanted)
    }

    fn label(&self, class: u16) -> &Label {
        &self.labels[usize::from(class)]
    }

    fn labels_of<'a>(&'a self, classes: &'a [bool]) -> impl Iterator<Item = (u16, &'a Arc<str>)> {
        let numbered = (0_u16..).zip(self.labels.iter().zip(classes));
        numbered.filter(|(_, (_, applies))| **applies).map(|(class, (label, _))| (class, &label.name))
    }
}

/// One track on its way to being an event, or as one.
#[derive(Clone, Debug)]
struct Progress {
    event: Event,
    /// Pictures in which it was seen with enough score and area.
    sure_frames: u32,
    /// When it was last told, and how good the best shot was then.
    told: Option<(ProducerTimestamp, f32)>,
    why: Vec<Why>,
    still: Still,
    stays: Vec<Stay>,
    inside: Vec<bool>,
    passages: Vec<Passage>,
    /// Not yet in the totals: line, direction.
    uncounted: Vec<(usize, Direction)>,
}

impl Progress {
    fn new(judge: &Judge, at: ProducerTimestamp, track: &Track) -> Progress {
        let label = judge.label(track.class);
        let event = Event {
            track: track.id,
            class: track.class,
            label: label.name.clone(),
            score: track.smoothed_score,
            top_score: track.top_score,
            rect: track.rect,
            start: track.first.min(at),
            last_seen: at,
            end: None,
            zones: Vec::new(),
            entered: Vec::new(),
            stationary: false,
            severity: label.rule.severity,
            best: shot(at, track),
            crossed: Vec::new(),
            frames: 0,
        };
        Progress {
            event,
            sure_frames: 0,
            told: None,
            why: Vec::new(),
            still: Still::new(at, track.rect),
            stays: vec![Stay::default(); judge.zones.len()],
            inside: vec![false; judge.zones.len()],
            passages: vec![Passage::default(); judge.lines.len()],
            uncounted: Vec::new(),
        }
    }

    fn see(
        &mut self,
        judge: &Judge,
        at: ProducerTimestamp,
        track: &Track,
        crossings: &mut BTreeMap<(usize, u16), (u64, u64)>,
    ) -> Option<Change> {
        let event = &mut self.event;
        event.rect = track.rect;
        event.score = track.smoothed_score;
        event.top_score = event.top_score.max(track.top_score);
        event.last_seen = at;
        event.frames = event.frames.saturating_add(1);
        if track.class != event.class && judge.wants(track.class) {
            let label = judge.label(track.class).name.clone();
            event.class = track.class;
            self.why.push(Why::Relabelled { from: std::mem::replace(&mut event.label, label) });
        }
        let rule = &judge.label(event.class).rule;
        let enough = (rule.min_area..=rule.max_area).contains(&track.rect.area());
        self.sure_frames = self.sure_frames.saturating_add((track.score >= rule.min_score && enough).into());

        if let Some(stationary) = self.still.see(at, track.rect, judge.stationary_after_ms) {
            event.stationary = stationary;
            self.why.push(if stationary { Why::Stopped } else { Why::Started });
        }
        self.place(judge, at);
        self.event.severity = self.severity(judge);

        let shot = shot(at, track);
        if self.told.is_none() {
            // Only pictures from here on are kept.
            self.event.best = shot;
            if self.sure_frames < judge.confirm_frames || !track.confirmed {
                self.why.retain(|why| !matches!(why, Why::Relabelled { .. })); // nobody knew
                self.why.truncate(MOST_REASONS);
                return None;
            }
        } else if !self.event.stationary && worth(&shot) > TAKEN * worth(&self.event.best) {
            self.event.best = shot;
        }
        let best = worth(&self.event.best);
        let kind = match self.told {
            None => {
                self.why.insert(0, Why::Confirmed);
                ChangeKind::New
            }
            Some((told_at, told_best)) => {
                if best > TOLD * told_best {
                    self.why.push(Why::BetterShot);
                }
                let due = at.checked_ms_since(told_at).is_some_and(|ms| ms >= judge.update_every_ms);
                if self.why.is_empty() && due && !self.event.stationary {
                    self.why.push(Why::Due);
                }
                ChangeKind::Update
            }
        };
        for (line, direction) in self.uncounted.drain(..) {
            let (ins, outs) = crossings.entry((line, self.event.class)).or_default();
            *match direction {
                Direction::In => ins,
                Direction::Out => outs,
            } += 1;
        }
        if self.why.is_empty() {
            return None;
        }
        self.told = Some((at, best));
        Some(Change { kind, at, why: std::mem::take(&mut self.why), event: self.event.clone() })
    }

    /// Zones and lines, by where its foot is; what stands still has its foot where it stands.
    fn place(&mut self, judge: &Judge, at: ProducerTimestamp) {
        let rect = if self.still.is_stationary() { *self.still.anchor() } else { self.event.rect };
        let (foot, slack) = (rect.foot(), slack(&rect));
        let class = usize::from(self.event.class);
        for (n, zone) in judge.zones.iter().enumerate() {
            let stay = &mut self.stays[n];
            let step = if zone.classes[class] {
                stay.see(at, foot, slack, &zone.polygon, zone.dwell_ms)
            } else {
                stay.leave()
            };
            let name = || zone.name.clone();
            match step {
                Some(Step::Entered) => {
                    self.inside[n] = true;
                    if !self.event.entered.contains(&zone.name) {
                        self.event.entered.push(name());
                    }
                    self.why.push(Why::Entered { zone: name() });
                }
                Some(Step::Left) => {
                    self.inside[n] = false;
                    self.why.push(Why::Left { zone: name() });
                }
                None => {}
            }
        }
        let zones = judge.zones.iter().zip(&self.inside);
        self.event.zones = zones.filter(|(_, inside)| **inside).map(|(zone, _)| zone.name.clone()).collect();

        for (n, line) in judge.lines.iter().enumerate().filter(|(_, line)| line.classes[class]) {
            let Some(direction) = self.passages[n].see(foot, slack, &line.segment) else { continue };
            self.uncounted.push((n, direction));
            let crossed = &mut self.event.crossed;
            let known = crossed.iter().position(|crossed| crossed.line == line.name);
            let known = known.unwrap_or_else(|| {
                crossed.push(Crossed { line: line.name.clone(), ins: 0, outs: 0 });
                crossed.len() - 1
            });
            let count = match direction {
                Direction::In => &mut crossed[known].ins,
                Direction::Out => &mut crossed[known].outs,
            };
            *count = count.saturating_add(1);
            self.why.push(Why::Crossed { line: line.name.clone(), direction });
        }
        self.uncounted.truncate(MOST_REASONS);
    }

    fn severity(&self, judge: &Judge) -> Severity {
        let zones = judge.zones.iter().filter(|zone| self.event.entered.contains(&zone.name));
        let label = judge.label(self.event.class).rule.severity;
        zones.filter_map(|zone| zone.severity).fold(label, Severity::max)
    }

    /// `None` if nobody was told of it.
    fn end(mut self: Box<Self>, at: ProducerTimestamp, why: Why) -> Option<Change> {
        self.told?;
        self.event.end = Some(self.event.last_seen);
        Some(Change { kind: ChangeKind::End, at, why: vec![why], event: self.event })
    }
}

/// What happened before New is kept up to this many; a track that is never sure may cross a line for hours.
const MOST_REASONS: usize = 4 * crate::rules::MAX_SHAPES;

fn shot(at: ProducerTimestamp, track: &Track) -> BestShot {
    BestShot { rect: track.seen, at, score: track.score, area: track.seen.area() }
}

/// Sure, large and whole is good.
fn worth(shot: &BestShot) -> f32 {
    let Rect { x, y, w, h } = shot.rect;
    let cut = x < AT_EDGE || y < AT_EDGE || x + w > 1.0 - AT_EDGE || y + h > 1.0 - AT_EDGE;
    shot.score * shot.area.max(0.0).sqrt() * if cut { CUT } else { 1.0 }
}
