//! The analytics of a camera over pictures that wait: of a file.
//!
//! Each picture goes through the same motion gate, model, tracks and events as a camera's ([`crate::Branch`]), one after
//! another on the caller's thread. None is ever skipped, and no clock is asked what to do: the outcome depends on the pictures and
//! their times alone.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use config::CameraDetect;
use decode::Frame;
use detect::{DetectError, Detector, Settings};
use media::ClockSource;
use tokio::sync::watch;
use vision::event::{Change, Count, LineCount};
use vision::rules::RulesError;

use crate::detector::{DetectorOptions, Model, nearest};
use crate::events::{FrameInfo, Ids};
use crate::gate::Gate;
use crate::model::detector_of;
use crate::output::{AnnotatedFrame, EventChange};
use crate::scene::{Scene, Seen};

#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    #[error("{0}")]
    Load(String),
    #[error("the rules do not fit the model: {0}")]
    Rules(#[from] RulesError),
    #[error("the model failed on a picture")]
    Detect(#[from] DetectError),
}

/// The model in those of its sizes that were needed so far; it serves one file after another.
pub struct Offline {
    options: DetectorOptions,
    loaded: BTreeMap<usize, (Detector, Arc<Model>)>,
}

/// What became of one picture.
pub struct Look {
    /// The picture with boxes and tracks.
    pub annotated: AnnotatedFrame,
    pub changes: Vec<EventChange>,
    /// Tracks of events that this picture shows best.
    pub better: Vec<u64>,
    /// Letterbox, network and boxes.
    pub inference: Duration,
}

/// What is known of one file. [`finish`](Self::finish) ends its events.
pub struct FileScene {
    /// Number of the size of the model.
    size: usize,
    scene: Scene,
    gate: Gate,
}

impl Offline {
    /// `settings`: model, backend and threads. Nothing is loaded yet.
    pub fn new(settings: &config::Detect, clock: Clock) -> Self {
        Self { options: crate::detector_options(settings, clock), loaded: BTreeMap::new() }
    }

    /// Begins a file: nothing is known of its scene. `size`: width and height of its pictures; of a model that comes in
    /// several sizes they choose. `name`: what makes the ids of its events its own.
    pub fn begin(
        &mut self,
        size: (u32, u32),
        detect: &CameraDetect,
        name: &str,
    ) -> Result<FileScene, OfflineError> {
        let size = nearest(&self.options.sizes, size.0, size.1).unwrap_or(0);
        let (detector, model) = match self.loaded.entry(size) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let new = (self.options.loader)(size).map_err(OfflineError::Load)?;
                let (detector, model) = detector_of(new, detect.iou, self.options.clock.clone());
                place.insert((detector, Arc::new(model)))
            }
        };
        detector.set_settings(Settings { nms_iou: detect.iou, ..detector.settings().clone() });
        let scene = Scene::new(model.clone(), detect, Ids::Of(name.to_owned()))?;
        // Nobody is told of motion; it is looked for where it decides.
        let watched = CameraDetect { motion: false, ..detect.clone() };
        let gate = Gate::new(&watched, watch::Sender::new(false));
        Ok(FileScene { size, scene, gate })
    }

    /// The next picture of the file. `None`: nothing moves, and the motion gate held it.
    pub fn look(&mut self, file: &mut FileScene, frame: &Arc<Frame>) -> Result<Option<Look>, OfflineError> {
        if !file.gate.passes(frame) {
            return Ok(None);
        }
        let (detector, model) = self.loaded.get_mut(&file.size).expect("loaded when the file was begun");
        let picture = frame.picture();
        let mut found = [Vec::new()];
        let timing = detector.detect(&[picture], &mut found)?;
        let [found] = found;
        let (at, size) = (frame.timestamp(), frame.source_size().into());
        let info = FrameInfo { at, clock: ClockSource::File, size };
        let Seen { detections, tracks, outcome } = file.scene.see(info, found, &picture);
        let changes = file.changes(&outcome.changes, info);
        let annotated = AnnotatedFrame { frame: frame.clone(), detections, tracks, model: model.clone() };
        Ok(Some(Look { annotated, changes, better: outcome.better, inference: timing.total() }))
    }
}

impl FileScene {
    pub fn model(&self) -> &Arc<Model> {
        &self.scene.model
    }

    /// Confirmed objects now.
    pub fn counts(&self) -> Vec<Count> {
        self.scene.events.counts()
    }

    /// Since the beginning.
    pub fn crossings(&self) -> Vec<LineCount> {
        self.scene.events.crossings()
    }

    /// Ends every event.
    pub fn finish(&mut self) -> Vec<EventChange> {
        let ended = self.scene.finish();
        ended.map(|(changes, info)| self.changes(&changes, info)).unwrap_or_default()
    }

    fn changes(&mut self, changes: &[Change], info: FrameInfo) -> Vec<EventChange> {
        changes.iter().map(|change| self.scene.log.change(change, info, false)).collect()
    }
}
