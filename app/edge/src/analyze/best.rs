//! Best shots of a file's events, for its contact sheet.

use std::collections::BTreeMap;
use std::time::Duration;

use analytics::{AnnotatedFrame, EventChange};
use vision::event::ChangeKind;
use vision::overlay::class_colour;
use vision::overlay::sheet::{CELL, Cell, sheet};
use vision::rgb::Rgb;

use super::report::clock;

/// Shots on a sheet, at most: six in each of eight rows.
pub(super) const MOST: usize = 48;
const QUALITY: u8 = 85;

/// The best picture of each open event, and of those that have ended the [`MOST`] with the best scores.
pub(super) struct BestShots {
    title: String,
    /// The time of the file's first picture.
    start_ms: u64,
    /// By track.
    open: BTreeMap<u64, Rgb>,
    kept: Vec<Kept>,
    events: u64,
}

struct Kept {
    picture: Rgb,
    class: u16,
    score: f32,
    start_ms: u64,
    name: String,
    note: String,
}

impl BestShots {
    pub(super) fn new(title: String, start_ms: u64) -> Self {
        Self { title, start_ms, open: BTreeMap::new(), kept: Vec::new(), events: 0 }
    }

    /// A picture that shows these tracks best.
    pub(super) fn better(&mut self, tracks: &[u64], annotated: &AnnotatedFrame) {
        for id in tracks {
            let Some(track) = annotated.tracks.iter().find(|track| track.id == *id) else { continue };
            self.open.insert(*id, analytics::cut(&annotated.frame.picture(), track.seen, CELL));
        }
    }

    pub(super) fn change(&mut self, change: &EventChange) {
        if change.kind != ChangeKind::End {
            return;
        }
        self.events += 1;
        let event = &change.event;
        let Some(picture) = self.open.remove(&event.track) else { return };
        let best_ms = event.best.at.as_millis().saturating_sub(self.start_ms);
        let zones = event.entered.iter().map(|zone| format!("  {zone}"));
        self.kept.push(Kept {
            picture,
            class: event.class,
            score: event.best.score,
            start_ms: event.start.as_millis(),
            name: format!("{} #{}  {:.0} %", event.label, event.track, event.best.score * 100.0),
            note: clock(Duration::from_millis(best_ms)) + &zones.collect::<String>(),
        });
        if self.kept.len() > MOST {
            let worst =
                (0..self.kept.len()).min_by(|a, b| self.kept[*a].score.total_cmp(&self.kept[*b].score));
            worst.map(|worst| self.kept.swap_remove(worst));
        }
    }

    /// The sheet in the order of the events. `None`: nothing was seen.
    pub(super) fn jpeg(mut self) -> Option<Vec<u8>> {
        if self.kept.is_empty() {
            return None;
        }
        self.kept.sort_by_key(|kept| (kept.start_ms, kept.class));
        let title = &self.title;
        let shown = match usize::try_from(self.events) {
            Ok(events) if events == self.kept.len() => format!("{title}  {events} events"),
            _ => format!("{title}  the best {} of {} events", self.kept.len(), self.events),
        };
        let cells: Vec<_> = self
            .kept
            .iter()
            .map(|kept| Cell {
                picture: &kept.picture,
                colour: class_colour(kept.class),
                name: &kept.name,
                note: &kept.note,
            })
            .collect();
        analytics::encode(&sheet(&shown, &cells), QUALITY)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use analytics::Clip;
    use analytics::detector::Model;
    use media::{ClockSource, ProducerTimestamp};
    use vision::Rect;
    use vision::event::{BestShot, Event};
    use vision::rules::Severity;

    use super::*;

    fn end(track: u64, score: f32) -> EventChange {
        let rect = Rect { x: 0.1, y: 0.2, w: 0.3, h: 0.4 };
        let at = ProducerTimestamp::from_millis(1_000 + track);
        EventChange {
            id: track.to_string(),
            kind: ChangeKind::End,
            at,
            clock: ClockSource::File,
            frame_size: [640, 360],
            event: Event {
                track,
                class: 0,
                label: "person".into(),
                score,
                top_score: score,
                rect,
                start: at,
                last_seen: at,
                end: Some(at),
                zones: Vec::new(),
                entered: vec!["path".into()],
                stationary: false,
                severity: Severity::Detection,
                best: BestShot { rect, at, score, area: 0.12 },
                crossed: Vec::new(),
                frames: 3,
            },
            has_snapshot: false,
            model: Arc::new(Model {
                name: "scene".into(),
                sha256: "ab".into(),
                labels: vec!["person".into()],
                backend: "rten",
                because: String::new(),
                input: (320, 192),
            }),
            clip: Clip { start: at, fragment: None },
        }
    }

    #[test]
    fn the_best_of_any_number_of_events_are_kept() {
        let mut shots = BestShots::new("street".into(), 1_000);
        assert!(BestShots::new("nobody".into(), 0).jpeg().is_none());
        for track in 0..2_000_u64 {
            shots.open.insert(track, Rgb::new(8, 8));
            // Fifty are good.
            shots.change(&end(track, if track % 40 == 0 { 0.9 } else { 0.5 }));
            assert!(shots.kept.len() <= MOST && shots.open.is_empty());
        }
        assert_eq!((shots.events, shots.kept.len()), (2_000, MOST));
        assert!(shots.kept.iter().all(|kept| kept.score > 0.8));
        let last = shots.kept.iter().max_by_key(|kept| kept.start_ms).expect("one of them");
        assert_eq!((&*last.name, &*last.note), ("person #1960  90 %", "0:01.9  path"));
        assert!(shots.jpeg().is_some_and(|jpeg| jpeg.starts_with(&[0xff, 0xd8])));
    }
}
