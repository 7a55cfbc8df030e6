//! The best picture of each event that has not ended, and what was found in it.
//!
//! Cutting a JPEG takes milliseconds, so it happens on the runtime's threads for blocking work, a few at a time. An
//! event for which there was no place gets its picture from one of the next ones that show it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tokio::sync::mpsc;
use vision::Rect;
use vision::track::Track;

use crate::detector::{Detections, Model};
use crate::output::{LabelledBox, Shot};
use crate::snapshot;

/// Pictures being cut at a time.
const PLACES: usize = 2;

/// A JPEG of this track; absent when none fits the limit.
pub(crate) type Cut = (u64, Option<Bytes>);

pub(crate) struct Shots {
    /// By track.
    open: BTreeMap<u64, Shot>,
    cutting: BTreeSet<u64>,
    places: mpsc::Sender<Cut>,
    /// Whether anybody wants JPEGs.
    wanted: bool,
    limit_bytes: usize,
}

impl Shots {
    /// Cut pictures come out of the receiver; they go to [`Shots::cut`].
    pub(crate) fn new(wanted: bool, limit_bytes: usize) -> (Self, mpsc::Receiver<Cut>) {
        let (places, cuts) = mpsc::channel(PLACES);
        (Self { open: BTreeMap::new(), cutting: BTreeSet::new(), places, wanted, limit_bytes }, cuts)
    }

    /// Takes picture number `frame` for the tracks that it shows best, and for those that have no JPEG yet.
    pub(crate) fn take(
        &mut self,
        better: &[u64],
        found: &Detections,
        frame: u64,
        tracks: &[Track],
        model: &Model,
    ) {
        let missing = self.open.iter().filter(|(id, shot)| shot.jpeg.is_none() && !self.cutting.contains(id));
        let mut due: Vec<u64> = if self.wanted { missing.map(|(id, _)| *id).collect() } else { Vec::new() };
        due.retain(|id| !better.contains(id));
        for id in better.iter().chain(&due) {
            let Some(track) = tracks.iter().find(|track| track.id == *id && track.seen_now) else { continue };
            let shot = Shot {
                label: label(model, track.class),
                frame,
                at: found.frame.timestamp(),
                boxes: boxes(tracks, model),
                inference: found.inference,
                // The older picture until the new one is cut.
                jpeg: self.open.get_mut(id).and_then(|older| older.jpeg.take()),
            };
            self.open.insert(*id, shot);
            self.start_cutting(*id, found, track.seen);
        }
    }

    fn start_cutting(&mut self, track: u64, found: &Detections, rect: Rect) {
        if !self.wanted || self.cutting.contains(&track) {
            return;
        }
        if let Ok(place) = self.places.clone().try_reserve_owned() {
            self.cutting.insert(track);
            let (frame, limit_bytes) = (found.frame.clone(), self.limit_bytes);
            tokio::task::spawn_blocking(move || {
                place.send((track, snapshot::jpeg(&frame.picture(), rect, limit_bytes)));
            });
        }
    }

    /// A picture has been cut: returns its label and itself, and whether it is the first of its event. Nothing once that
    /// has ended.
    pub(crate) fn cut(&mut self, (track, jpeg): Cut) -> Option<(String, Bytes, bool)> {
        self.cutting.remove(&track);
        let shot = self.open.get_mut(&track)?;
        let jpeg = jpeg?;
        let first = shot.jpeg.replace(jpeg.clone()).is_none();
        Some((shot.label.clone(), jpeg, first))
    }

    pub(crate) fn has_jpeg(&self, track: u64) -> bool {
        self.open.get(&track).is_some_and(|shot| shot.jpeg.is_some())
    }

    /// The event has ended.
    pub(crate) fn remove(&mut self, track: u64) -> Option<Shot> {
        self.open.remove(&track)
    }
}

fn boxes(tracks: &[Track], model: &Model) -> Vec<LabelledBox> {
    let found = tracks.iter().filter(|track| track.seen_now && track.confirmed);
    found
        .map(|track| LabelledBox {
            label: label(model, track.class),
            score: track.score,
            rect: track.rect,
            track: track.id,
        })
        .collect()
}

/// Name of a class of the model.
fn label(model: &Model, class: u16) -> String {
    model.labels.get(usize::from(class)).cloned().unwrap_or_else(|| class.to_string())
}
