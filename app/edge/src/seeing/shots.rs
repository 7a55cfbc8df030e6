//! The best picture of each event that has not ended, and what was seen in it.
//!
//! Cutting a JPEG takes milliseconds, so it happens on the runtime's threads for blocking work, a few at a time. An
//! event for which there was no place gets its picture from one of the next ones that show it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use media::ProducerTimestamp;
use tokio::sync::mpsc;
use vision::Rect;
use vision::track::Track;

use super::detector::{Model, Seen};
use super::snapshot;
use messages::Prediction;

/// Pictures being cut at a time.
const PLACES: usize = 2;

/// A JPEG of this track; absent when it fits no message.
pub(super) type Cut = (u64, Option<Bytes>);

/// The best picture of an event.
pub(super) struct Shot {
    pub(super) label: String,
    /// Number of the picture since start.
    pub(super) frame: u64,
    pub(super) at: ProducerTimestamp,
    pub(super) predictions: Vec<Prediction>,
    pub(super) inference: Duration,
    pub(super) jpeg: Option<Bytes>,
}

pub(super) struct Shots {
    /// By track.
    open: BTreeMap<u64, Shot>,
    cutting: BTreeSet<u64>,
    places: mpsc::Sender<Cut>,
    /// Whether anybody wants JPEGs.
    wanted: bool,
}

impl Shots {
    /// Cut pictures come out of the receiver; give them to [`Shots::cut`].
    pub(super) fn new(wanted: bool) -> (Self, mpsc::Receiver<Cut>) {
        let (places, cuts) = mpsc::channel(PLACES);
        (Self { open: BTreeMap::new(), cutting: BTreeSet::new(), places, wanted }, cuts)
    }

    /// Takes picture `frame` for the tracks that it shows best, and for those that have no JPEG yet.
    pub(super) fn take(&mut self, better: &[u64], seen: &Seen, frame: u64, tracks: &[Track], model: &Model) {
        let missing = self.open.iter().filter(|(id, shot)| shot.jpeg.is_none() && !self.cutting.contains(id));
        let mut due: Vec<u64> = if self.wanted { missing.map(|(id, _)| *id).collect() } else { Vec::new() };
        due.retain(|id| !better.contains(id));
        for id in better.iter().chain(&due) {
            let Some(track) = tracks.iter().find(|track| track.id == *id && track.seen_now) else { continue };
            let shot = Shot {
                label: label(model, track.class),
                frame,
                at: seen.frame.timestamp(),
                predictions: predictions(tracks, model),
                inference: seen.inference,
                // The older picture until the new one is cut.
                jpeg: self.open.get_mut(id).and_then(|older| older.jpeg.take()),
            };
            self.open.insert(*id, shot);
            self.start_cutting(*id, seen, track.seen);
        }
    }

    fn start_cutting(&mut self, track: u64, seen: &Seen, rect: Rect) {
        if !self.wanted || self.cutting.contains(&track) {
            return;
        }
        if let Ok(place) = self.places.clone().try_reserve_owned() {
            self.cutting.insert(track);
            let frame = seen.frame.clone();
            tokio::task::spawn_blocking(move || {
                place.send((track, snapshot::jpeg(&frame.picture(), rect)));
            });
        }
    }

    /// A picture has been cut: its label and itself, and whether it is the first of its event. Nothing once that has
    /// ended.
    pub(super) fn cut(&mut self, (track, jpeg): Cut) -> Option<(String, Bytes, bool)> {
        self.cutting.remove(&track);
        let shot = self.open.get_mut(&track)?;
        let jpeg = jpeg?;
        let first = shot.jpeg.replace(jpeg.clone()).is_none();
        Some((shot.label.clone(), jpeg, first))
    }

    pub(super) fn has_jpeg(&self, track: u64) -> bool {
        self.open.get(&track).is_some_and(|shot| shot.jpeg.is_some())
    }

    /// The event has ended.
    pub(super) fn remove(&mut self, track: u64) -> Option<Shot> {
        self.open.remove(&track)
    }
}

fn predictions(tracks: &[Track], model: &Model) -> Vec<Prediction> {
    let seen = tracks.iter().filter(|track| track.seen_now && track.confirmed);
    seen.map(|track| Prediction {
        label: label(model, track.class),
        confidence: track.score.into(),
        rect: track.rect.into(),
        track: Some(track.id),
    })
    .collect()
}

/// Name of a class of the model.
fn label(model: &Model, class: u16) -> String {
    model.labels.get(usize::from(class)).cloned().unwrap_or_else(|| class.to_string())
}
