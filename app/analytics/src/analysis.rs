//! What becomes of one camera's pictures: decoder, tracks, events, counts, motion, best shots.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use decode::{DecodeReport, Decoder, DecoderOptions, Frame, Preference, Stage};
use health::{Problem, Reason};
use media::{AccessUnit, ProducerTimestamp};
use tokio::sync::watch;
use vision::event::{Change, ChangeKind, Count};
use vision::figures::Latencies;

use crate::branch::Branch;
use crate::detector::{Detections, DetectorReport, DetectorState, RECENT};
use crate::events::{FrameInfo, Ids, Persisted};
use crate::gate::Gate;
use crate::output::{AnnotatedFrame, Output};
use crate::scene::{Scene, Seen};
use crate::shots::{Cut, Shots};

/// Between two snapshots of one label.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(2);
/// So many counts start at zero; a model has up to a thousand labels.
const ANNOUNCED: usize = 32;
/// Without any picture for this long beyond `lost_after_ms`, all events end.
const NO_PICTURES: Duration = Duration::from_secs(3);

/// State of one camera's branch. Its methods never wait; what they found out stands in `outputs`.
pub(crate) struct Analysis {
    branch: Branch,
    pub(crate) outputs: Vec<Output>,
    decoder: Option<Decoder>,
    moving: watch::Sender<bool>,
    /// Width and height of the camera's pictures.
    size: Option<(u32, u32)>,
    /// The detector runs and has time for this camera: pictures are wanted.
    wanted: bool,
    /// Pictures per second that the detector takes.
    rate: f64,
    /// Why they are not, when that is not as it should be.
    refused: Option<Problem>,
    /// With the model that was loaded last; absent before the first one.
    scene: Option<Scene>,
    /// When a snapshot of a label was handed out last.
    snapshot_at: BTreeMap<String, Instant>,
    shots: Shots,
    frames: u64,
    last_result: Instant,
    /// Of the picture whose outputs are being handed over.
    handing_over: Option<ProducerTimestamp>,
    latency: Latencies,
}

impl Analysis {
    pub(crate) fn new(branch: Branch, moving: watch::Sender<bool>, shots: Shots) -> Self {
        Self {
            outputs: Vec::new(),
            decoder: None,
            moving,
            size: None,
            wanted: false,
            rate: 0.0,
            refused: None,
            scene: None,
            snapshot_at: BTreeMap::new(),
            shots,
            frames: 0,
            last_result: branch.clock.now(),
            handing_over: None,
            latency: Latencies::new(RECENT),
            branch,
        }
    }

    /// Another model, another state, another allowance: decides whether pictures are wanted.
    pub(crate) fn detector_changed(&mut self, report: &DetectorReport) {
        let allowance = report.allowance(self.branch.slot.id());
        self.refused = match report.state {
            DetectorState::Running => allowance.and_then(|allowance| allowance.problem.clone()),
            DetectorState::Stuck | DetectorState::Failed => report.problem.clone(),
            DetectorState::Off | DetectorState::Loading => None,
        };
        self.rate = allowance.map_or(0.0, |allowance| allowance.fps);
        self.wanted = report.state == DetectorState::Running && self.rate > 0.0;
        let model = report.model_of(self.branch.slot.id());
        self.wanted &= model.is_some();
        if let Some(model) = model.cloned().filter(|_| self.wanted)
            && self.scene.as_ref().is_none_or(|scene| scene.model != model)
        {
            self.finish_scene();
            match Scene::new(model, &self.branch.detect, Ids::Random) {
                Ok(scene) => {
                    self.scene = Some(scene);
                    self.announce();
                }
                Err(error) => {
                    tracing::error!(camera = self.branch.camera, %error, "rules do not fit the model");
                    self.refused = Some(self.problem(Reason::DetectorFailed, error.to_string()));
                    self.wanted = false;
                }
            }
        }
        if let Some(decoder) = &self.decoder {
            decoder.set_rate(self.rate);
            decoder.set_wanted(self.wanted);
        }
        self.report_problem();
    }

    /// A problem that begins now.
    fn problem(&self, reason: Reason, found: impl Into<String>) -> Problem {
        Problem::new(reason, found, self.branch.clock.wall())
    }

    /// Everything starts at nothing, also where somebody remembers an earlier run.
    fn announce(&mut self) {
        let Some(scene) = &mut self.scene else { return };
        let counts = scene.events.counts();
        scene.counts = counts.iter().take(ANNOUNCED).map(|count| (count.label.to_string(), 0)).collect();
        let zero = |label: &String| Output::Count { label: label.clone(), count: 0 };
        self.outputs.extend(scene.counts.keys().map(zero));
        if self.branch.detect.motion {
            self.moving(false);
        }
    }

    pub(crate) fn push(&mut self, unit: AccessUnit) {
        let size = (unit.format.width, unit.format.height);
        if self.size != Some(size) {
            self.size = Some(size);
            self.branch.slot.pictures_are(size.0, size.1);
        }
        if !self.wanted {
            return;
        }
        if self.decoder.is_none() {
            match self.start_decoder() {
                Ok(decoder) => self.decoder = Some(decoder),
                Err(error) => {
                    self.refused = Some(self.problem(Reason::DecoderFailed, error.to_string()));
                    self.wanted = false;
                    tracing::error!(camera = self.branch.camera, error = health::chain(&error), "no decoder");
                    return self.report_problem();
                }
            }
        }
        if let Some(decoder) = &mut self.decoder {
            decoder.push(unit);
        }
    }

    fn start_decoder(&self) -> Result<Decoder, decode::DecodeError> {
        let detect = &self.branch.detect;
        let forced = |name: &String| Preference::Only(vec![name.clone()]);
        let input = self.scene.as_ref().map(|scene| scene.model.input);
        let pixels = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
        let options = DecoderOptions {
            name: self.branch.camera.clone(),
            preference: self.branch.decoder.as_ref().map_or(Preference::Automatic, forced),
            scale_to: input.map(|(width, height)| (pixels(width), pixels(height))),
            rate: self.rate,
            key_frames_only: detect.key_frames_only,
            clock: self.branch.clock.clone(),
            ..DecoderOptions::default()
        };
        let frames = self.branch.slot.frames();
        let gate = Gate::new(detect, self.moving.clone());
        Decoder::start(options, move |frame: Arc<Frame>| {
            if gate.passes(&frame) {
                frames.offer(frame);
            }
        })
    }

    pub(crate) fn discontinuity(&mut self) {
        if let Some(decoder) = &mut self.decoder {
            decoder.discontinuity();
        }
    }

    /// A picture has been through the model.
    pub(crate) fn detected(&mut self, found: &Detections) {
        let Some(scene) = &mut self.scene else { return };
        let at = found.frame.timestamp();
        self.frames += 1;
        self.last_result = self.branch.clock.now();
        let info =
            FrameInfo { at, clock: (self.branch.clock_source)(), size: found.frame.source_size().into() };
        let Seen { detections, tracks, outcome } =
            scene.see(info, found.detections.clone(), &found.frame.picture());
        self.shots.take(&outcome.better, found, self.frames, &tracks, &scene.model);
        self.report_changes(&outcome.changes, info);
        self.count();
        let Some(scene) = &self.scene else { return };
        if self.branch.frames.receiver_count() > 0 {
            let (frame, model) = (found.frame.clone(), scene.model.clone());
            // An error means that whoever looked has gone.
            let _ = self.branch.frames.send(AnnotatedFrame { frame, detections, tracks, model });
        }
        self.handing_over = Some(at);
        self.report_decoder();
    }

    /// All outputs so far are with whoever publishes them.
    pub(crate) fn handed_over(&mut self) {
        let Some(at) = self.handing_over.take() else { return };
        let clock = &self.branch.clock;
        let since_epoch = clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        let latency = since_epoch.saturating_sub(Duration::from_millis(at.as_millis()));
        self.latency.record(clock.now(), latency);
    }

    fn report_changes(&mut self, changes: &[Change], info: FrameInfo) {
        let mut begun = 0;
        for change in changes {
            let Some(scene) = &mut self.scene else { return };
            let track = change.event.track;
            let change = scene.log.change(change, info, self.shots.has_jpeg(track));
            begun += u64::from(change.kind == ChangeKind::New);
            if change.kind != ChangeKind::Update {
                tracing::debug!(
                    camera = self.branch.camera,
                    event = change.id,
                    label = &*change.event.label,
                    top_score = change.event.top_score,
                    zones = change.event.entered.join(","),
                    kind = ?change.kind,
                    "event"
                );
            }
            let ended = change.kind == ChangeKind::End;
            let shot = if ended { self.shots.remove(track) } else { None };
            let snapshot = shot.as_ref().and_then(|shot| Some((shot.label.clone(), shot.jpeg.clone()?)));
            self.outputs.push(Output::Event { change: Box::new(change), shot: shot.map(Box::new) });
            if let Some((label, jpeg)) = snapshot {
                self.snapshot(label, jpeg);
            }
        }
        self.branch.report.send_modify(|report| report.events += begun);
    }

    /// A JPEG has been made.
    pub(crate) fn cut(&mut self, cut: Cut) {
        let Some((label, jpeg, first)) = self.shots.cut(cut) else { return };
        let since = |at: &Instant| self.branch.clock.since(*at);
        let due = self.snapshot_at.get(&label).is_none_or(|at| since(at) >= SNAPSHOT_EVERY);
        if first || due {
            self.snapshot(label, jpeg);
        }
    }

    fn snapshot(&mut self, label: String, jpeg: bytes::Bytes) {
        self.snapshot_at.insert(label.clone(), self.branch.clock.now());
        self.outputs.push(Output::Snapshot { label, jpeg });
    }

    /// Hands out how many of each label there are, where that has changed.
    fn count(&mut self) {
        let Some(scene) = &mut self.scene else { return };
        let mut changed = false;
        for Count { label, count } in scene.events.counts() {
            let before = scene.counts.get(&*label).copied();
            // A label beyond those announced begins when there is one.
            if before.unwrap_or(0) != count {
                scene.counts.insert(label.to_string(), count);
                self.outputs.push(Output::Count { label: label.to_string(), count });
                changed = true;
            }
        }
        if changed {
            let counts = scene.counts.clone();
            self.branch.report.send_modify(|report| report.counts = counts);
        }
    }

    pub(crate) fn moving(&mut self, moving: bool) {
        self.branch.report.send_modify(|report| report.moving = Some(moving));
        self.outputs.push(Output::Motion(moving));
    }

    pub(crate) fn persisted(&mut self, fragment: Persisted) {
        let Some(scene) = &mut self.scene else { return };
        for change in scene.log.persisted(fragment) {
            self.outputs.push(Output::Event { change: Box::new(change), shot: None });
        }
    }

    pub(crate) fn tick(&mut self) {
        self.report_decoder();
        self.report_figures();
        // Tracks end by the time of pictures; when none come, nobody is left in front of the camera either.
        let lost_after = Duration::from_millis(self.branch.detect.rules.lost_after_ms);
        if self.branch.clock.since(self.last_result) > lost_after + NO_PICTURES {
            self.finish_scene();
        }
        self.report_problem();
    }

    /// Logs which decoder is used and why none before it; and what goes wrong, once.
    fn log_decoder(&self, decode: &DecodeReport) {
        let before = self.branch.report.borrow();
        let before = before.decode.as_ref();
        let camera = &self.branch.camera;
        if decode.decoder.is_some() && before.is_none_or(|before| before.decoder != decode.decoder) {
            let skipped: Vec<_> =
                decode.skipped.iter().map(|skipped| format!("{} {}", skipped.name, skipped.reason)).collect();
            tracing::info!(camera, decoder = decode.decoder, skipped = skipped.join("; "), "decoder");
        }
        let problem = decode.last_problem.as_ref();
        if let Some(error) =
            problem.filter(|_| before.and_then(|before| before.last_problem.as_ref()) != problem)
        {
            tracing::warn!(camera, %error, rebuilt = decode.rebuilt, "decoding was interrupted");
        }
    }

    fn report_decoder(&self) {
        let Some(decoder) = &self.decoder else { return };
        let decode = decoder.report();
        self.log_decoder(&decode);
        self.branch.report.send_modify(|report| report.decode = Some(decode));
    }

    fn report_figures(&mut self) {
        let now = self.branch.clock.now();
        let (total, recent) = (self.latency.total().clone(), self.latency.window(now));
        let crossings = self.scene.as_ref().map(|scene| scene.events.crossings()).unwrap_or_default();
        self.branch.report.send_modify(|report| {
            (report.latency, report.recent_latency) = (total, recent);
            report.crossings = crossings;
        });
    }

    fn report_problem(&self) {
        let failing = self.branch.report.borrow().decode.as_ref().and_then(|decode| {
            let found = decode.last_problem.as_ref().filter(|_| decode.stage != Stage::Running)?;
            Some(self.problem(Reason::DecoderFailed, found.to_string()))
        });
        let found = self.refused.clone().or(failing);
        self.branch.report.send_if_modified(|report| {
            let problem = found.map(|problem| problem.again(report.problem.as_ref()));
            let changed = report.problem != problem;
            report.problem = problem;
            changed
        });
    }

    /// Ends every event.
    fn finish_scene(&mut self) {
        let Some(scene) = &mut self.scene else { return };
        let Some((changes, last)) = scene.finish() else { return };
        if !changes.is_empty() {
            self.report_changes(&changes, last);
        }
        self.count();
    }

    /// The feed has ended.
    pub(crate) fn finish(&mut self) {
        self.tick();
        self.decoder = None;
        self.finish_scene();
        if self.branch.report.borrow().moving == Some(true) {
            self.moving(false);
        }
    }
}
