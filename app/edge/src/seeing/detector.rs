//! The box's one detector: a thread that serves all cameras, and what watches over it.
//!
//! ```text
//!  Loading --model checked, measured--> Running --error, again and again--> Failed --back-off--> Loading
//!     |                                   |                                    ^
//!     +--does not load--------------------+----- one picture takes > 10 s -----+   (Stuck)
//! ```
//!
//! Inference blocks, so it has a thread of its own. A thread cannot be ended from outside: one that hangs is left to
//! itself and another one takes its place; should the first ever come back, it finds that its turn is over and
//! ends. Cameras offer pictures and never wait; the newest one of a camera wins.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use decode::Frame;
use detect::capacity::{Demand, Measured, admit};
use detect::schedule::{Limits, Scheduler};
use detect::{Detector, Loaded, Settings, Timing};
use health::Backoff;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use vision::Detection;
use vision::figures::{Histogram, Latencies};

/// One call of the backend that takes longer than this hangs. The slowest model that is of any use takes a second.
pub const HANG: Duration = Duration::from_secs(10);
/// So many errors in a row, and the model is loaded anew.
const ERRORS: u32 = 5;
const LOOK: Duration = Duration::from_millis(500);
/// The synthetic picture to measure with, how often, and for how long at most.
const MEASURED_SIZE: (usize, usize) = (1280, 720);
const ROUNDS: usize = 30;
const MEASURE: Duration = Duration::from_millis(500);
/// Boxes below this are noise; what lies between it and a camera's own scores only continues tracks.
const LOW_SCORE: f32 = 0.1;
/// Places for results in front of a camera's task.
const SEEN_PLACES: usize = 8;

/// What the detector saw in one picture of one camera.
#[derive(Clone)]
pub struct Seen {
    pub frame: Arc<Frame>,
    pub detections: Vec<Detection>,
    /// Letterbox, network and boxes of this picture.
    pub inference: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetectorState {
    Loading,
    Running,
    /// A call of the backend does not come back.
    Stuck,
    /// Does not load, or fails on every picture.
    Failed,
}

/// Where the detector stands.
#[derive(Clone, Debug)]
pub struct DetectorReport {
    pub state: DetectorState,
    pub since: SystemTime,
    /// Why it is not running.
    pub problem: Option<String>,
    /// What was loaded last.
    pub model: Option<Arc<Model>>,
    /// By the number of the camera; empty until the detector was measured.
    pub rooms: Arc<Vec<Room>>,
    pub restarts: u32,
}

/// What the detector has for one camera.
#[derive(Clone, Debug, PartialEq)]
pub struct Room {
    /// Pictures per second that it may offer; 0: none.
    pub fps: f64,
    /// When that is less than it wants: why, and what would fit.
    pub advice: Option<String>,
}

/// What others need to know of the loaded model.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    pub name: String,
    pub sha256: String,
    pub labels: Vec<String>,
    pub backend: &'static str,
    /// Why this backend, and none of those before it.
    pub because: String,
    /// Pixels.
    pub input: (usize, usize),
}

/// Counts and times of one camera, or of all.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub frames: u64,
    pub detections: u64,
    pub errors: u64,
    /// Offered, and replaced by a newer one or too old before its turn came.
    pub skipped: u64,
    /// For one picture: letterbox, network, boxes. Since start, and in the last minute.
    pub inference: Histogram,
    pub recent: Histogram,
}

/// What `recent` is about.
pub const RECENT: Duration = Duration::from_secs(60);

impl Figures {
    pub fn add(&mut self, other: &Self) {
        self.frames += other.frames;
        self.detections += other.detections;
        self.errors += other.errors;
        self.skipped += other.skipped;
        self.inference.merge(&other.inference);
        self.recent.merge(&other.recent);
    }
}

/// Loads the model; called on the detector's thread, again after each failure. With it comes the digest of the file.
pub type Loader = Box<dyn Fn() -> Result<(Loaded, String), String> + Send + Sync>;

/// What the cameras have of the detector; cheap to clone.
#[derive(Clone)]
pub struct DetectorHandle {
    shared: Arc<Shared>,
    report: watch::Receiver<DetectorReport>,
}

struct Shared {
    /// Held only for moments.
    inner: Mutex<Inner>,
    wake: Condvar,
}

struct Inner {
    scheduler: Scheduler<Arc<Frame>>,
    results: Vec<Option<mpsc::Sender<Seen>>>,
    counted: Vec<Counted>,
    /// A thread with another number has been replaced.
    turn: u64,
    busy_since: Option<Instant>,
    stopped: bool,
}

/// Of one camera; what the scheduler counts is not in it.
struct Counted {
    min_score: f32,
    frames: u64,
    detections: u64,
    errors: u64,
    inference: Latencies,
}

impl Counted {
    fn new(min_score: f32) -> Self {
        Self { min_score, frames: 0, detections: 0, errors: 0, inference: Latencies::new(RECENT) }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DetectorHandle {
    /// Hands in a camera's newest picture; an older one that still waits is skipped.
    pub fn offer(&self, camera: usize, frame: Arc<Frame>) {
        let older = self.shared.lock().scheduler.offer(camera, frame, Instant::now());
        self.shared.wake.notify_one();
        drop(older); // gives a picture back to the decoder, which takes its time
    }

    /// From now on a camera's results come here; a full queue loses them.
    pub fn results(&self, camera: usize) -> mpsc::Receiver<Seen> {
        let (results, receiver) = mpsc::channel(SEEN_PLACES);
        if let Some(place) = self.shared.lock().results.get_mut(camera) {
            *place = Some(results);
        }
        receiver
    }

    pub fn report(&self) -> watch::Receiver<DetectorReport> {
        self.report.clone()
    }

    /// Of one camera.
    pub fn figures(&self, camera: usize) -> Figures {
        let mut inner = self.shared.lock();
        let skipped = inner.scheduler.counters(camera).skipped();
        let Some(counted) = inner.counted.get_mut(camera) else { return Figures::default() };
        Figures {
            frames: counted.frames,
            detections: counted.detections,
            errors: counted.errors,
            skipped,
            inference: counted.inference.total().clone(),
            recent: counted.inference.window(Instant::now()),
        }
    }
}

/// What the detector is started with.
pub struct DetectorOptions {
    pub loader: Loader,
    /// The cameras, in the order of their numbers; those without detection want 0 fps.
    pub demands: Vec<Demand>,
    /// Likewise: boxes below this score are not counted as detections.
    pub min_scores: Vec<f32>,
    /// Of one core; 1.0 is all of it.
    pub core_share: f64,
    /// Overlap beyond which boxes of one class are one; a camera may want less.
    pub iou: f32,
    /// A picture that waited for longer is of no use any more.
    pub latency_budget: Duration,
    /// A call of the backend that takes longer hangs: [`HANG`].
    pub hang: Duration,
}

/// Starts the detector; it ends when `cancel` fires.
pub fn start(
    options: DetectorOptions,
    cancel: CancellationToken,
) -> (DetectorHandle, tokio::task::JoinHandle<()>) {
    let inner = Inner {
        scheduler: Scheduler::new(Limits { max_age: options.latency_budget, gather: Duration::ZERO }),
        results: vec![None; options.demands.len()],
        counted: options.min_scores.iter().copied().map(Counted::new).collect(),
        turn: 0,
        busy_since: None,
        stopped: false,
    };
    let shared = Arc::new(Shared { inner: Mutex::new(inner), wake: Condvar::new() });
    let (report, view) = watch::channel(DetectorReport {
        state: DetectorState::Loading,
        since: SystemTime::now(),
        problem: None,
        model: None,
        rooms: Arc::default(),
        restarts: 0,
    });
    let handle = DetectorHandle { shared: shared.clone(), report: view };
    let supervisor = Supervisor { shared, report, options: Arc::new(options) };
    (handle, tokio::spawn(supervisor.run(cancel)))
}

struct Supervisor {
    shared: Arc<Shared>,
    report: watch::Sender<DetectorReport>,
    options: Arc<DetectorOptions>,
}

/// Why a thread ended, or has to be replaced.
enum End {
    Stopped,
    Failed(String),
    Stuck,
}

impl Supervisor {
    async fn run(self, cancel: CancellationToken) {
        let mut backoff =
            Backoff::new(Duration::from_secs(1), Duration::from_secs(60), Duration::from_secs(60));
        loop {
            backoff.up(Instant::now());
            self.set_state(DetectorState::Loading, None);
            let (state, problem) = match self.one_thread(&cancel).await {
                End::Stopped => return,
                End::Failed(problem) => (DetectorState::Failed, problem),
                End::Stuck => {
                    let problem =
                        format!("no answer from the detector for {} s", self.options.hang.as_secs_f64());
                    (DetectorState::Stuck, problem)
                }
            };
            let delay = backoff.failed(Instant::now(), rand::random());
            tracing::error!(error = problem, retry_in_ms = delay.as_millis(), "detection does not work");
            self.set_state(state, Some(problem));
            self.report.send_modify(|report| report.restarts += 1);
            if cancel.run_until_cancelled(tokio::time::sleep(delay)).await.is_none() {
                return;
            }
        }
    }

    async fn one_thread(&self, cancel: &CancellationToken) -> End {
        let turn = {
            let mut inner = self.shared.lock();
            inner.turn += 1;
            inner.busy_since = None;
            inner.turn
        };
        let (ended, mut end) = oneshot::channel();
        let work = Work {
            turn,
            shared: self.shared.clone(),
            report: self.report.clone(),
            options: self.options.clone(),
        };
        let thread = std::thread::Builder::new().name("detector".to_owned()).spawn(move || {
            let _ = ended.send(work.run());
        });
        if let Err(error) = thread {
            return End::Failed(format!("no thread for the detector: {error}"));
        }
        loop {
            tokio::select! {
                ended = &mut end => return match ended {
                    Ok(Ok(())) => End::Stopped,
                    Ok(Err(problem)) => End::Failed(problem),
                    Err(_) => End::Failed("the detector crashed".to_owned()),
                },
                () = cancel.cancelled() => {
                    self.shared.lock().stopped = true;
                    self.shared.wake.notify_all();
                    // A picture under way takes its time; one that hangs is not waited for.
                    let _ = tokio::time::timeout(Duration::from_secs(2), &mut end).await;
                    return End::Stopped;
                }
                () = tokio::time::sleep(LOOK) => {
                    let mut inner = self.shared.lock();
                    if inner.busy_since.is_some_and(|since| since.elapsed() > self.options.hang) {
                        inner.turn += 1;
                        return End::Stuck;
                    }
                }
            }
        }
    }

    fn set_state(&self, state: DetectorState, problem: Option<String>) {
        set_state(&self.report, state, problem);
    }
}

fn set_state(report: &watch::Sender<DetectorReport>, state: DetectorState, problem: Option<String>) {
    report.send_modify(|report| {
        if report.state != state {
            report.since = SystemTime::now();
        }
        (report.state, report.problem) = (state, problem);
    });
}

/// What runs on the detector's thread.
struct Work {
    turn: u64,
    shared: Arc<Shared>,
    report: watch::Sender<DetectorReport>,
    options: Arc<DetectorOptions>,
}

impl Work {
    /// Until it is stopped or replaced; the error says why it cannot go on.
    fn run(self) -> Result<(), String> {
        let (loaded, sha256) = (self.options.loader)()?;
        for note in &loaded.notes {
            tracing::warn!(model = loaded.model, note, "the model could be better");
        }
        let input = loaded.backend.input();
        let model = Model {
            name: loaded.model,
            sha256,
            backend: loaded.chosen.backend,
            because: loaded.chosen.because,
            input: (input.width, input.height),
            labels: loaded.labels,
        };
        let mut settings = Settings::new(model.labels.len(), LOW_SCORE);
        settings.nms_iou = self.options.iou;
        let mut detector = Detector::new(loaded.backend, loaded.head, settings);
        let measured = detector.measure(MEASURED_SIZE, ROUNDS, MEASURE);
        self.introduce(model, &measured.map_err(|error| health::chain(&error))?);
        let mut found: Vec<Vec<Detection>> = Vec::new();
        let mut errors = 0;
        while let Some(batch) = self.next(input.max_batch.max(1)) {
            let pictures: Vec<_> = batch.iter().map(|(_, frame)| frame.picture()).collect();
            found.resize_with(pictures.len(), Vec::new);
            let outcome = detector.detect(&pictures, &mut found[..pictures.len()]);
            drop(pictures);
            let mut inner = self.shared.lock();
            if inner.turn != self.turn {
                return Ok(()); // given up long ago
            }
            inner.busy_since = None;
            match outcome {
                Ok(timing) => {
                    errors = 0;
                    inner.deliver(batch, &mut found, timing);
                }
                Err(error) => {
                    errors += 1;
                    for (camera, _) in &batch {
                        inner.counted[*camera].errors += 1;
                    }
                    drop(inner);
                    tracing::warn!(error = health::chain(&error), "a picture could not be looked at");
                    if errors >= ERRORS {
                        return Err(health::chain(&error));
                    }
                }
            }
        }
        Ok(())
    }

    /// Says what was loaded and which cameras fit.
    fn introduce(&self, model: Model, measured: &Measured) {
        let rooms = rooms(measured, &self.options.demands, self.options.core_share);
        tracing::info!(
            model = model.name,
            sha256 = model.sha256,
            backend = model.backend,
            because = model.because,
            labels = model.labels.join(","),
            input = format!("{}x{}", model.input.0, model.input.1),
            ms_per_picture = measured.picture().as_secs_f64() * 1000.0,
            "detector"
        );
        for (room, demand) in rooms.iter().zip(&self.options.demands) {
            if let Some(advice) = &room.advice {
                tracing::warn!(camera = demand.id, advice, fps = room.fps, "the detector has no room for it");
            }
        }
        self.report.send_modify(|report| {
            if report.model.as_deref() != Some(&model) {
                report.model = Some(Arc::new(model));
            }
            report.rooms = Arc::new(rooms);
        });
        set_state(&self.report, DetectorState::Running, None);
    }

    /// Waits for pictures. `None`: the turn of this thread is over.
    fn next(&self, max: usize) -> Option<Vec<(usize, Arc<Frame>)>> {
        let mut inner = self.shared.lock();
        loop {
            if inner.stopped || inner.turn != self.turn {
                return None;
            }
            let batch = inner.scheduler.take(Instant::now(), max);
            if !batch.is_empty() {
                inner.busy_since = Some(Instant::now());
                return Some(batch);
            }
            inner = self.shared.wake.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Inner {
    fn deliver(&mut self, batch: Vec<(usize, Arc<Frame>)>, found: &mut [Vec<Detection>], timing: Timing) {
        let each = timing.total() / u32::try_from(batch.len().max(1)).unwrap_or(1);
        for ((camera, frame), detections) in batch.into_iter().zip(found) {
            let counted = &mut self.counted[camera];
            counted.frames += 1;
            let counts = detections.iter().filter(|detection| detection.score >= counted.min_score).count();
            counted.detections += counts as u64;
            counted.inference.record(Instant::now(), each);
            let seen = Seen { frame, detections: std::mem::take(detections), inference: each };
            if let Some(results) = &self.results[camera] {
                let _ = results.try_send(seen); // a camera that is stopping
            }
        }
    }
}

/// The rate of each camera: what it wants where that fits, else what is left over by the cameras before it. Whoever
/// stands first in the configuration matters most.
fn rooms(measured: &Measured, demands: &[Demand], core_share: f64) -> Vec<Room> {
    let mut granted: Vec<Demand> = Vec::new();
    let mut rooms = Vec::new();
    for demand in demands {
        granted.push(demand.clone());
        let refused = admit(measured, &granted, core_share).refused.pop();
        let fps = refused.as_ref().map_or(demand.fps, |refused| refused.fits_at_fps.unwrap_or(0.0));
        if let Some(last) = granted.last_mut() {
            last.fps = fps;
        }
        rooms.push(Room { fps, advice: refused.map(|refused| refused.to_string()) });
    }
    rooms
}

#[cfg(test)]
mod tests;
