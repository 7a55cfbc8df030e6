//! What was found in one file, as numbers: for people and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use analytics::EventChange;
use analytics::detector::Model;
use decode::file::{About, Progress};
use messages::rounded;
use serde::Serialize;
use vision::event::{ChangeKind, Count, LineCount};
use vision::rules::Severity;

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// The whole file was looked at.
    Whole,
    /// Somebody stopped it.
    Interrupted,
    /// It could not be read, or not to its end; `error` says why.
    Broken,
}

/// One file. Times are seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FileReport {
    pub file: PathBuf,
    pub ended: Ended,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Width and height of the pictures as they are shown.
    pub size: (u32, u32),
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codec: Option<String>,
    /// By the file's header, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_s: Option<f64>,
    /// How far it was read.
    pub read_s: f64,
    /// Pictures that were decoded; of these, known to be wrong and left out; looked at; held by the motion gate.
    pub decoded: u64,
    pub damaged: u64,
    pub looked_at: u64,
    pub still: u64,
    /// Pictures per second of the file that are looked at, if it has so many.
    pub fps: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelReport>,
    pub events: u64,
    /// Those of which there was any.
    pub labels: Vec<LabelReport>,
    pub zones: Vec<ZoneReport>,
    pub lines: Vec<LineReport>,
    pub notes: Vec<String>,
    /// Files that were written.
    pub outputs: Vec<PathBuf>,
    /// How long it took.
    pub wall_s: f64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelReport {
    pub name: String,
    pub sha256: String,
    pub backend: &'static str,
    /// Width and height.
    pub input: (usize, usize),
}

/// Events of one label.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LabelReport {
    pub label: String,
    pub events: u64,
    /// Of these.
    pub alerts: u64,
    pub most_at_once: u32,
    /// From first to last sighting: of all, and of the longest.
    pub seen_s: f64,
    pub longest_s: f64,
    pub best_score: f64,
}

/// Events that entered a zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ZoneReport {
    pub zone: String,
    pub events: u64,
}

/// Crossings of a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LineReport {
    pub line: String,
    pub label: String,
    pub ins: u64,
    pub outs: u64,
}

impl FileReport {
    pub(super) fn new(file: &Path, fps: f64) -> Self {
        Self {
            file: file.to_owned(),
            ended: Ended::Broken,
            error: None,
            size: (0, 0),
            codec: None,
            duration_s: None,
            read_s: 0.0,
            decoded: 0,
            damaged: 0,
            looked_at: 0,
            still: 0,
            fps,
            model: None,
            events: 0,
            labels: Vec::new(),
            zones: Vec::new(),
            lines: Vec::new(),
            notes: Vec::new(),
            outputs: Vec::new(),
            wall_s: 0.0,
        }
    }

    pub(super) fn begins(&mut self, size: (u32, u32), model: &Model, about: &About) {
        self.size = size;
        self.codec.clone_from(&about.codec);
        self.duration_s = about.duration.map(|duration| rounded(duration.as_secs_f64()));
        self.model = Some(ModelReport {
            name: model.name.clone(),
            sha256: model.sha256.clone(),
            backend: model.backend,
            input: model.input,
        });
    }

    pub(super) fn reads(&mut self, progress: &Progress) {
        (self.decoded, self.damaged) = (progress.decoded, progress.damaged);
        self.read_s = rounded(progress.position.as_secs_f64());
    }

    pub(super) fn ended(&mut self, ended: Ended, error: Option<String>) {
        (self.ended, self.error) = (ended, error);
    }

    pub(super) fn tallied(&mut self, tally: Tally) {
        self.events = tally.begun;
        self.labels = tally.labels.into_values().filter(|label| label.events > 0).collect();
        let zone = |(zone, events)| ZoneReport { zone, events };
        self.zones = tally.zones.into_iter().map(zone).collect();
        self.lines = tally.lines;
    }
}

/// Position in a file: `0:12.4`, `1:02:03.0`.
pub(super) fn clock(position: Duration) -> String {
    let tenths = position.as_millis() / 100;
    let (tenth, seconds) = (tenths % 10, tenths / 10);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}.{tenth}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}.{tenth}"),
    }
}

/// The table for people.
impl fmt::Display for FileReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = clock(Duration::try_from_secs_f64(self.read_s).unwrap_or_default());
        let looked_at = self.looked_at;
        write!(f, "{}: {looked_at} of {} pictures looked at in {read}", self.file.display(), self.decoded)?;
        if let Some(model) = &self.model {
            let (width, height) = self.size;
            write!(f, ", {width}x{height}; {} on {}", model.name, model.backend)?;
        }
        if self.wall_s > 0.0 {
            write!(f, "; {:.0} a second", looked_at as f64 / self.wall_s)?;
        }
        writeln!(f)?;
        if self.labels.is_empty() && self.model.is_some() {
            writeln!(f, "  nothing was found")?;
        }
        if !self.labels.is_empty() {
            let [label, events, alerts] = ["label", "events", "alerts"];
            writeln!(
                f,
                "  {label:<16} {events:>7} {alerts:>7}  most at once    seen, s  longest, s  best score"
            )?;
        }
        for LabelReport { label, events, alerts, most_at_once, seen_s, longest_s, best_score } in &self.labels
        {
            writeln!(
                f,
                "  {label:<16} {events:>7} {alerts:>7}  {most_at_once:>12}  {seen_s:>9.1}  {longest_s:>10.1}  {best_score:>10.2}"
            )?;
        }
        for ZoneReport { zone, events } in &self.zones {
            writeln!(f, "  zone {zone}: entered by {events}")?;
        }
        for LineReport { line, label, ins, outs } in &self.lines {
            writeln!(f, "  line {line}: {label} {ins} in, {outs} out")?;
        }
        if self.damaged > 0 {
            writeln!(f, "  {} damaged pictures were left out", self.damaged)?;
        }
        for output in &self.outputs {
            writeln!(f, "  {}", output.display())?;
        }
        match (self.ended, &self.error) {
            (Ended::Interrupted, _) => {
                writeln!(f, "  interrupted at {read}; what was found up to there is complete")
            }
            (_, Some(error)) => writeln!(f, "  error: {error}"),
            _ => Ok(()),
        }
    }
}

/// Counts while a file is looked at.
#[derive(Default)]
pub(super) struct Tally {
    begun: u64,
    labels: BTreeMap<String, LabelReport>,
    zones: BTreeMap<String, u64>,
    lines: Vec<LineReport>,
}

impl Tally {
    pub(super) fn begun(&self) -> u64 {
        self.begun
    }

    pub(super) fn counts(&mut self, counts: &[Count]) {
        for Count { label, count } in counts.iter().filter(|count| count.count > 0) {
            let known = self.label(label);
            known.most_at_once = known.most_at_once.max(*count);
        }
    }

    pub(super) fn change(&mut self, change: &EventChange) {
        let event = &change.event;
        match change.kind {
            ChangeKind::New => self.begun += 1,
            ChangeKind::Update => {}
            ChangeKind::End => {
                let seen_ms = event.last_seen.checked_ms_since(event.start).unwrap_or(0);
                let seen_s = Duration::from_millis(seen_ms).as_secs_f64();
                let known = self.label(&event.label);
                known.events += 1;
                known.alerts += u64::from(event.severity == Severity::Alert);
                known.seen_s = rounded(known.seen_s + seen_s);
                known.longest_s = known.longest_s.max(rounded(seen_s));
                known.best_score = known.best_score.max(rounded(event.top_score.into()));
                for zone in &event.entered {
                    *self.zones.entry(zone.to_string()).or_default() += 1;
                }
            }
        }
    }

    pub(super) fn crossings(&mut self, crossings: &[LineCount]) {
        let crossed = crossings.iter().filter(|count| count.ins + count.outs > 0);
        let line = |count: &LineCount| LineReport {
            line: count.line.to_string(),
            label: count.label.to_string(),
            ins: count.ins,
            outs: count.outs,
        };
        self.lines = crossed.map(line).collect();
    }

    fn label(&mut self, label: &str) -> &mut LabelReport {
        let new = || LabelReport { label: label.to_owned(), ..LabelReport::default() };
        self.labels.entry(label.to_owned()).or_insert_with(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_on_a_player() {
        for (ms, expected) in [(0, "0:00.0"), (12_449, "0:12.4"), (3_723_000, "1:02:03.0")] {
            assert_eq!(clock(Duration::from_millis(ms)), expected);
        }
    }
}
