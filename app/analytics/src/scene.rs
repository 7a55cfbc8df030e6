//! What becomes of the boxes of one picture after another: tracks, events, counts. The same for a camera's branch and for a
//! file.

use std::collections::BTreeMap;
use std::sync::Arc;

use config::CameraDetect;
use vision::event::{Change, Events, Outcome};
use vision::rules::RulesError;
use vision::track::{Track, Tracker};
use vision::{Detection, Picture};

use crate::detector::Model;
use crate::events::{EventLog, FrameInfo, Ids};

/// What is known of the scene, in the labels of one model.
pub(crate) struct Scene {
    pub(crate) model: Arc<Model>,
    pub(crate) events: Events,
    pub(crate) log: EventLog,
    /// Of the last picture that went through the model.
    pub(crate) last: Option<FrameInfo>,
    /// What was said last of how many there are.
    pub(crate) counts: BTreeMap<String, u32>,
    tracker: Tracker,
    /// Which of the model's classes are of one kind.
    kinds: Vec<u16>,
    /// Overlap beyond which boxes of one kind are one.
    iou: f32,
}

/// What one picture shows.
pub(crate) struct Seen {
    /// What the tracks were made of.
    pub(crate) detections: Vec<Detection>,
    pub(crate) tracks: Vec<Track>,
    pub(crate) outcome: Outcome,
}

impl Scene {
    /// Fails where the rules name what the model does not know.
    pub(crate) fn new(model: Arc<Model>, detect: &CameraDetect, ids: Ids) -> Result<Self, RulesError> {
        let rules = &detect.rules;
        Ok(Self {
            tracker: Tracker::new(rules.tracker(&model.labels)),
            events: Events::new(rules.clone(), &model.labels)?,
            kinds: rules.kinds(&model.labels),
            iou: detect.iou,
            log: EventLog::new(model.clone(), ids),
            model,
            last: None,
            counts: BTreeMap::new(),
        })
    }

    /// A picture has been through the model, which found these boxes.
    pub(crate) fn see(
        &mut self,
        info: FrameInfo,
        mut detections: Vec<Detection>,
        picture: &Picture<'_>,
    ) -> Seen {
        self.last = Some(info);
        vision::nms::suppress_kinds(&mut detections, &self.kinds, self.iou, usize::MAX);
        let tracks = self.tracker.update(info.at, &detections, Some(picture)).to_vec();
        let outcome = self.events.update(info.at, &tracks);
        Seen { detections, tracks, outcome }
    }

    /// Ends every event; nothing where no picture has been seen. The tracker forgets by itself what it does not see, and goes
    /// on counting its tracks.
    pub(crate) fn finish(&mut self) -> Option<(Vec<Change>, FrameInfo)> {
        let last = self.last?;
        Some((self.events.finish(last.at), last))
    }
}
