//! The second branch of a camera: decode, detect, track, tell. It may skip pictures and never delays the first one.
//!
//! ```text
//!  fan-out --Sight, 32--> decoder --newest--> detector --Seen, 8--> tracks, events --> events, count, motion, snapshot
//!                         (its threads)       (one thread for all)      ^
//!                                              upload --persisted-------+ number of the fragment that shows it
//! ```
//!
//! One task per camera drives it; pictures are decoded on GStreamer's threads and looked at on the detector's. While
//! the detector does not run, nothing is decoded. The watchdog does not ask for this branch: a restart of the box for the
//! sake of detection would cost footage.

pub mod detector;
mod gate;
mod live;
pub mod model;
mod records;
mod shots;
mod snapshot;
pub mod worker;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use decode::{DecodeReport, Decoder, DecoderOptions, Frame, Preference, Stage};
use futures_util::FutureExt;
use kvs::FragmentNumber;
use kvs::fragmenter::FragmentSummary;
use media::ProducerTimestamp;
use tokio::sync::{broadcast, mpsc, watch};
use vision::Detection;
use vision::event::{Change, ChangeKind, Count, Events, LineCount};
use vision::figures::{Histogram, Latencies};
use vision::rules::RulesError;
use vision::track::{Track, Tracker};

use crate::fanout::Sight;
use config::CameraDetect;
use detector::{DetectorHandle, DetectorReport, DetectorState, Model, Seen};
use gate::Gate;
use health::{Problem, Reason};
pub use live::Sequence;
use live::{LiveEvents, Moment, Origin};
use media::ClockSource;
use messages::{DetectionRecord, Topics, UtcTime, rounded};
use mqtt::{MqttHandle, Qos};
use records::Records;
use rtsp::source::IngestReport;
use shots::{Cut, Shot, Shots};

/// After a crash of the branch.
const CRASH_DELAY: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(500);
/// Between two snapshots of one label.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(2);
/// So many counts start at zero; a model has up to a thousand labels.
const ANNOUNCED: usize = 32;
/// Without any picture for this long beyond `lost_after_ms`, all events end.
const NO_PICTURES: Duration = Duration::from_secs(3);
/// Pictures with their tracks for whoever draws them; the slow lose the oldest.
const SHOWN_PLACES: usize = 8;

/// A picture with what was seen in it.
#[derive(Clone)]
pub struct Shown {
    pub frame: Arc<Frame>,
    /// What the tracks were made of.
    pub detections: Vec<Detection>,
    pub tracks: Vec<Track>,
    pub model: Arc<Model>,
}

/// Where the branch of one camera stands; counters run since start.
#[derive(Clone, Debug, Default)]
pub struct SeeingReport {
    pub problem: Option<Problem>,
    pub decode: Option<DecodeReport>,
    pub moving: Option<bool>,
    /// Confirmed objects in the picture now, by label.
    pub counts: BTreeMap<String, u32>,
    /// How many crossed each line.
    pub crossings: Vec<LineCount>,
    pub events: u64,
    /// From the camera's clock to the messages about a picture handed to MQTT: since start, and in the last minute.
    pub latency: Histogram,
    pub recent_latency: Histogram,
}

/// Everything that one camera's branch needs from outside.
#[derive(Clone)]
pub struct Seeing {
    pub camera: Arc<config::Camera>,
    pub detect: CameraDetect,
    pub settings: config::Detect,
    pub device: String,
    pub region: String,
    /// Number of the camera at the detector.
    pub number: usize,
    pub detector: DetectorHandle,
    pub mqtt: Option<MqttHandle>,
    pub topics: Topics,
    pub sequence: Sequence,
    pub ingest: watch::Receiver<IngestReport>,
    pub report: watch::Sender<SeeingReport>,
    pub shown: broadcast::Sender<Shown>,
}

/// A problem that begins now.
fn problem(reason: Reason, found: impl Into<String>) -> Problem {
    Problem::new(reason, found, SystemTime::now())
}

/// A channel for those who draw.
pub fn shown() -> broadcast::Sender<Shown> {
    broadcast::channel(SHOWN_PLACES).0
}

/// What woke the loop.
enum Wake {
    Sight(Option<Sight>),
    Seen(Seen),
    Persisted(Option<(FragmentSummary, FragmentNumber)>),
    Cut(Cut),
    Moving(bool),
    Time,
}

impl Seeing {
    /// Runs until the feed has ended, and the upload has said what it has persisted. A panic in here is nobody else's
    /// concern: the branch begins anew.
    pub async fn supervise(
        self,
        mut sights: mpsc::Receiver<Sight>,
        mut persisted: mpsc::Receiver<(FragmentSummary, FragmentNumber)>,
    ) {
        loop {
            let run = AssertUnwindSafe(self.clone().run(&mut sights, &mut persisted));
            if run.catch_unwind().await.is_ok() {
                return;
            }
            tracing::error!(camera = self.camera.id, "the seeing branch crashed, beginning anew");
            let problem = problem(Reason::DetectorFailed, "the seeing branch crashed and begins anew");
            self.report.send_modify(|report| report.problem = Some(problem));
            tokio::time::sleep(CRASH_DELAY).await;
        }
    }

    async fn run(
        self,
        sights: &mut mpsc::Receiver<Sight>,
        persisted: &mut mpsc::Receiver<(FragmentSummary, FragmentNumber)>,
    ) {
        let mut seen = self.detector.results(self.number);
        let mut detector = self.detector.report();
        let (moving, mut motion) = watch::channel(false);
        let (shots, mut cuts) = Shots::new(self.detect.snapshots || self.settings.events_folder.is_some());
        let mut running = Running::new(self, moving, shots);
        running.detector_changed(&detector.borrow_and_update().clone());
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let (mut feeding, mut uploading) = (true, true);
        while feeding || uploading {
            let wake = tokio::select! {
                sight = sights.recv(), if feeding => Wake::Sight(sight),
                Some(seen) = seen.recv() => Wake::Seen(seen),
                fragment = persisted.recv(), if uploading => Wake::Persisted(fragment),
                Some(cut) = cuts.recv() => Wake::Cut(cut),
                Ok(()) = motion.changed() => Wake::Moving(*motion.borrow_and_update()),
                Ok(()) = detector.changed() => {
                    let report = detector.borrow_and_update().clone();
                    running.detector_changed(&report);
                    continue;
                }
                _ = tick.tick() => Wake::Time,
            };
            match wake {
                Wake::Sight(Some(Sight::Video(unit))) => running.push(unit),
                Wake::Sight(Some(Sight::Break)) => running.interrupted(),
                Wake::Sight(None) => {
                    feeding = false;
                    running.finish();
                }
                Wake::Seen(seen) if feeding => running.seen(&seen),
                Wake::Seen(_) => {}
                Wake::Persisted(Some((fragment, number))) => running.persisted(&fragment, number),
                Wake::Persisted(None) => uploading = false,
                Wake::Cut(cut) => running.cut(cut),
                Wake::Moving(moving) => running.moving(moving),
                Wake::Time => running.tick(),
            }
        }
    }
}

struct Running {
    this: Seeing,
    decoder: Option<Decoder>,
    moving: watch::Sender<bool>,
    /// The detector runs and has room for this camera: pictures are wanted.
    wanted: bool,
    /// Pictures per second that the detector takes.
    rate: f64,
    /// Why they are not, when that is not as it should be.
    refused: Option<Problem>,
    /// With the model that was loaded last; absent before the first one.
    scene: Option<Scene>,
    records: Option<Arc<Mutex<Records>>>,
    /// When a snapshot of a label was published last.
    published: BTreeMap<String, Instant>,
    shots: Shots,
    frames: u64,
    looked: Instant,
    latency: Latencies,
}

/// What is known of the scene, in the labels of one model.
struct Scene {
    model: Arc<Model>,
    tracker: Tracker,
    events: Events,
    live: LiveEvents,
    last: ProducerTimestamp,
    counts: BTreeMap<String, u32>,
}

impl Running {
    fn new(this: Seeing, moving: watch::Sender<bool>, shots: Shots) -> Self {
        let records = this.settings.events_folder.as_ref().map(|folder| {
            let records = Records::open(folder, &this.camera.id, this.settings.events_keep);
            Arc::new(Mutex::new(records))
        });
        Self {
            this,
            decoder: None,
            moving,
            wanted: false,
            rate: 0.0,
            refused: None,
            scene: None,
            records,
            published: BTreeMap::new(),
            shots,
            frames: 0,
            looked: Instant::now(),
            latency: Latencies::new(detector::RECENT),
        }
    }

    /// Another model, another state: decides whether pictures are wanted.
    fn detector_changed(&mut self, report: &DetectorReport) {
        let room = report.rooms.get(self.this.number);
        self.refused = match (report.state, room.and_then(|room| room.advice.clone())) {
            (DetectorState::Running, Some(advice)) => Some(problem(Reason::DetectorOverloaded, advice)),
            (DetectorState::Stuck, _) => {
                report.problem.clone().map(|found| problem(Reason::DetectorStuck, found))
            }
            (DetectorState::Failed, _) => {
                report.problem.clone().map(|found| problem(Reason::DetectorFailed, found))
            }
            _ => None,
        };
        self.rate = room.map_or(0.0, |room| room.fps);
        self.wanted = report.state == DetectorState::Running && self.rate > 0.0;
        if let Some(model) = report.model.clone().filter(|_| self.wanted)
            && self.scene.as_ref().is_none_or(|scene| scene.model != model)
        {
            self.finish_scene();
            match self.scene(model) {
                Ok(scene) => {
                    self.scene = Some(scene);
                    self.announce();
                }
                Err(error) => {
                    tracing::error!(camera = self.this.camera.id, %error, "rules do not fit the model");
                    self.refused = Some(problem(Reason::DetectorFailed, error.to_string()));
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

    fn scene(&self, model: Arc<Model>) -> Result<Scene, RulesError> {
        let rules = &self.this.detect.rules;
        let origin = Origin {
            device: self.this.device.clone(),
            camera: self.this.camera.id.clone(),
            stream: self.this.camera.stream.clone(),
            region: self.this.region.clone(),
        };
        Ok(Scene {
            tracker: Tracker::new(rules.tracker(&model.labels)),
            events: Events::new(rules.clone(), &model.labels)?,
            live: LiveEvents::new(origin, self.this.sequence.clone(), model.clone()),
            model,
            last: ProducerTimestamp::from_millis(0),
            counts: BTreeMap::new(),
        })
    }

    /// Everything starts at nothing, also on a broker that remembers an earlier run.
    fn announce(&mut self) {
        let Some(scene) = &mut self.scene else { return };
        let labels = &self.this.detect.rules.labels;
        let labels = if labels.is_empty() { &scene.model.labels } else { labels };
        scene.counts = labels.iter().take(ANNOUNCED).map(|label| (label.clone(), 0)).collect();
        for label in scene.counts.keys() {
            self.this.publish(self.this.topics.count(&self.this.camera.id, label), "0");
        }
        if self.this.detect.motion {
            self.moving(false);
        }
    }

    fn push(&mut self, unit: media::AccessUnit) {
        if !self.wanted {
            return;
        }
        if self.decoder.is_none() {
            match self.start_decoder() {
                Ok(decoder) => self.decoder = Some(decoder),
                Err(error) => {
                    self.refused = Some(problem(Reason::DecoderFailed, error.to_string()));
                    self.wanted = false;
                    tracing::error!(
                        camera = self.this.camera.id,
                        error = health::chain(&error),
                        "no decoder"
                    );
                    return self.report_problem();
                }
            }
        }
        if let Some(decoder) = &mut self.decoder {
            decoder.push(unit);
        }
    }

    fn start_decoder(&self) -> Result<Decoder, decode::DecodeError> {
        let detect = &self.this.detect;
        let forced = |name: &String| Preference::Only(vec![name.clone()]);
        let input = self.scene.as_ref().map(|scene| scene.model.input);
        let pixels = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
        let options = DecoderOptions {
            name: self.this.camera.id.clone(),
            preference: self.this.settings.decoder.as_ref().map_or(Preference::Automatic, forced),
            scale_to: input.map(|(width, height)| (pixels(width), pixels(height))),
            rate: self.rate,
            key_frames_only: detect.key_frames_only,
            ..DecoderOptions::default()
        };
        let (detector, number) = (self.this.detector.clone(), self.this.number);
        let gate = Gate::new(detect, self.moving.clone());
        Decoder::start(options, move |frame: Arc<Frame>| {
            if gate.passes(&frame) {
                detector.offer(number, frame);
            }
        })
    }

    fn interrupted(&mut self) {
        if let Some(decoder) = &mut self.decoder {
            decoder.discontinuity();
        }
    }

    fn seen(&mut self, seen: &Seen) {
        let Some(scene) = &mut self.scene else { return };
        let at = seen.frame.timestamp();
        self.frames += 1;
        self.looked = Instant::now();
        let clock = self.this.ingest.borrow().clock.unwrap_or(ClockSource::Receive);
        let moment = Moment { at, clock, frame: seen.frame.source_size().into() };
        scene.last = at;
        let mut detections = seen.detections.clone();
        vision::nms::suppress(&mut detections, self.this.detect.iou, usize::MAX);
        let tracks = scene.tracker.update(at, &detections, Some(&seen.frame.picture())).to_vec();
        let step = scene.events.update(at, &tracks);
        self.shots.take(&step.better, seen, self.frames, &tracks, &scene.model);
        self.tell(&step.changes, moment);
        self.count();
        let Some(scene) = &self.scene else { return };
        if self.this.shown.receiver_count() > 0 {
            let (frame, model) = (seen.frame.clone(), scene.model.clone());
            let shown = Shown { frame, detections, tracks, model };
            let _ = self.this.shown.send(shown); // whoever looked has gone
        }
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let latency = since_epoch.saturating_sub(Duration::from_millis(at.as_millis()));
        self.latency.record(Instant::now(), latency);
        self.report_decoder();
    }

    /// Publishes changes, and writes those that end to disk.
    fn tell(&mut self, changes: &[Change], moment: Moment) {
        let Some(scene) = &mut self.scene else { return };
        let (mut begun, mut ended) = (0, Vec::new());
        let camera = &self.this.camera.id;
        for change in changes {
            let has_snapshot = self.this.detect.snapshots && self.shots.has_jpeg(change.event.track);
            let event = scene.live.change(change, moment, has_snapshot);
            begun += u64::from(change.kind == ChangeKind::New);
            if change.kind != ChangeKind::Update {
                tracing::debug!(
                    camera,
                    event = event.id,
                    label = event.label,
                    top_score = event.top_score.get(),
                    zones = event.entered.join(","),
                    kind = ?event.kind,
                    "seen"
                );
            }
            if let Some(mqtt) = &self.this.mqtt {
                mqtt.publish(self.this.topics.events(camera), &event, Qos::AtLeastOnce);
            }
            if change.kind == ChangeKind::End {
                ended.push((self.shots.remove(event.track), event));
            }
        }
        self.this.report.send_modify(|report| report.events += begun);
        for (shot, event) in ended {
            let Some(shot) = shot else { continue };
            if let Some(jpeg) = &shot.jpeg {
                self.publish_snapshot(&shot.label, jpeg.clone());
            }
            self.write_record(shot, event);
        }
    }

    fn write_record(&self, shot: Shot, event: messages::Event) {
        let Some(records) = self.records.clone() else { return };
        let source_id = self.this.camera.id.clone();
        tokio::task::spawn_blocking(move || {
            let record = DetectionRecord {
                timestamp: SystemTime::now().into(),
                frame_id: shot.frame,
                frame_timestamp: UtcTime::from_millis(shot.at.as_millis()),
                source_id,
                predictions: shot.predictions,
                inference_time_ms: rounded(shot.inference.as_secs_f64() * 1000.0),
                event,
            };
            records.lock().unwrap_or_else(PoisonError::into_inner).write(&record, shot.jpeg.as_ref());
        });
    }

    fn cut(&mut self, cut: Cut) {
        let Some((label, jpeg, first)) = self.shots.cut(cut) else { return };
        let due = self.published.get(&label).is_none_or(|at| at.elapsed() >= SNAPSHOT_EVERY);
        if first || due {
            self.publish_snapshot(&label, jpeg);
        }
    }

    fn publish_snapshot(&mut self, label: &str, jpeg: Bytes) {
        if !self.this.detect.snapshots {
            return;
        }
        self.published.insert(label.to_owned(), Instant::now());
        if let Some(mqtt) = &self.this.mqtt {
            let topic = self.this.topics.snapshot(&self.this.camera.id, label);
            mqtt.publish_retained_bytes(topic, jpeg, Qos::AtMostOnce);
        }
    }

    /// Publishes how many of each label there are, where that has changed.
    fn count(&mut self) {
        let Some(scene) = &mut self.scene else { return };
        let mut changed = false;
        for Count { label, count } in scene.events.counts() {
            let before = scene.counts.get(&*label).copied();
            // A label beyond those announced begins when there is one.
            if before.unwrap_or(0) != count {
                scene.counts.insert(label.to_string(), count);
                self.this.publish(self.this.topics.count(&self.this.camera.id, &label), &count.to_string());
                changed = true;
            }
        }
        if changed {
            let counts = scene.counts.clone();
            self.this.report.send_modify(|report| report.counts = counts);
        }
    }

    fn moving(&mut self, moving: bool) {
        self.this.report.send_modify(|report| report.moving = Some(moving));
        if self.this.detect.motion {
            let topic = self.this.topics.motion(&self.this.camera.id);
            self.this.publish(topic, if moving { messages::ON } else { messages::OFF });
        }
    }

    fn persisted(&mut self, fragment: &FragmentSummary, number: FragmentNumber) {
        let Some(scene) = &mut self.scene else { return };
        for event in scene.live.persisted(fragment, number) {
            if let Some(mqtt) = &self.this.mqtt {
                mqtt.publish(self.this.topics.events(&self.this.camera.id), &event, Qos::AtLeastOnce);
            }
        }
    }

    fn tick(&mut self) {
        self.report_decoder();
        self.report_figures();
        // Tracks end by the time of pictures; when none come, nobody is left in front of the camera either.
        let lost_after = Duration::from_millis(self.this.detect.rules.lost_after_ms);
        if self.looked.elapsed() > lost_after + NO_PICTURES {
            self.finish_scene();
        }
        self.report_problem();
    }

    /// Says which decoder is used and why none before it; and what goes wrong, once.
    fn log_decoder(&self, decode: &DecodeReport) {
        let before = self.this.report.borrow();
        let before = before.decode.as_ref();
        let camera = &self.this.camera.id;
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
        self.this.report.send_modify(|report| report.decode = Some(decode));
    }

    fn report_figures(&mut self) {
        let (total, recent) = (self.latency.total().clone(), self.latency.window(Instant::now()));
        let crossings = self.scene.as_ref().map(|scene| scene.events.crossings()).unwrap_or_default();
        self.this.report.send_modify(|report| {
            (report.latency, report.recent_latency) = (total, recent);
            report.crossings = crossings;
        });
    }

    fn report_problem(&self) {
        let failing = self.this.report.borrow().decode.as_ref().and_then(|decode| {
            let found = decode.last_problem.as_ref().filter(|_| decode.stage != Stage::Running)?;
            Some(problem(Reason::DecoderFailed, found.to_string()))
        });
        let found = self.refused.clone().or(failing);
        self.this.report.send_if_modified(|report| {
            let problem = found.map(|problem| problem.again(report.problem.as_ref()));
            let changed = report.problem != problem;
            report.problem = problem;
            changed
        });
    }

    /// Ends every event.
    fn finish_scene(&mut self) {
        let Some(scene) = &mut self.scene else { return };
        let at = scene.last;
        let changes = scene.events.finish(at);
        // The tracker forgets by itself what it does not see, and goes on counting its tracks.
        if !changes.is_empty() {
            let clock = self.this.ingest.borrow().clock.unwrap_or(ClockSource::Receive);
            let frame = self.this.ingest.borrow().format.as_ref().map_or([0, 0], |f| [f.width, f.height]);
            self.tell(&changes, Moment { at, clock, frame });
        }
        self.count();
    }

    fn finish(&mut self) {
        self.tick();
        self.decoder = None;
        self.finish_scene();
        if self.this.report.borrow().moving == Some(true) {
            self.moving(false);
        }
    }
}

impl Seeing {
    fn publish(&self, topic: String, word: &str) {
        if let Some(mqtt) = &self.mqtt {
            mqtt.publish_retained_bytes(topic, Bytes::copy_from_slice(word.as_bytes()), Qos::AtMostOnce);
        }
    }
}
