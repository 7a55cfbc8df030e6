//! The box's one detector: a thread that serves all cameras, and what watches over it.
//!
//! ```text
//!  Off --first camera--> Loading --model checked, measured--> Running --error, again and again--> Failed --+
//!                         ^   |                                  |                                         |
//!                         |   +--does not load-------------------+--one picture takes > 10 s (Stuck)-------+
//!                         +---------------------------------- back-off ------------------------------------+
//! ```
//!
//! Inference blocks, so it has a thread of its own. A thread cannot be ended from outside: one that hangs is left to
//! itself and another one takes its place; should the first ever come back, it finds that its turn is over and
//! ends. Cameras offer pictures and never wait; the newest one of a camera wins.
//!
//! A camera takes part while its [`CameraSlot`] lives. Who comes or goes changes the allowances of all ([`admission`]),
//! and nothing else: the model stays, and so do the pictures and results of the others.
//!
//! A model may come in several sizes. A camera then gets the one whose shape is nearest to that of its pictures, which
//! the first of them tells; a size is loaded when a camera needs it.

mod admission;
mod supervisor;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use clock::Clock;
use decode::Frame;
use detect::schedule::{Limits, Scheduler};
use detect::{Loaded, Timing};
use health::Problem;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use vision::Detection;
use vision::figures::{Histogram, Latencies};

use admission::Admission;
pub use admission::{Allowance, CameraDemand};
use supervisor::Supervisor;

/// One call of the backend that takes longer than this hangs. The slowest model that is of any use takes a second.
pub const HANG: Duration = Duration::from_secs(10);
/// What `recent` is about in figures.
pub const RECENT: Duration = Duration::from_secs(60);
/// Places for results in front of a camera's task.
const RESULT_PLACES: usize = 8;

/// What the detector found in one picture of one camera.
#[derive(Clone)]
pub struct Detections {
    pub frame: Arc<Frame>,
    pub detections: Vec<Detection>,
    /// Letterbox, network and boxes of this picture.
    pub inference: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetectorState {
    /// No camera was ever added, or none whose pictures are known where that matters: no model is loaded.
    Off,
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
    pub problem: Option<Problem>,
    /// What was loaded, by the number of the size.
    pub models: Arc<BTreeMap<usize, Arc<Model>>>,
    /// Of all cameras that take part, in the order of their ranks; without those for which the detector was not yet
    /// measured.
    pub allowances: Arc<Vec<Allowance>>,
    pub restarts: u32,
}

impl DetectorReport {
    pub fn allowance(&self, slot: SlotId) -> Option<&Allowance> {
        self.allowances.iter().find(|allowance| allowance.slot == slot)
    }

    /// What looks at the pictures of this camera.
    pub fn model_of(&self, slot: SlotId) -> Option<&Arc<Model>> {
        self.models.get(&self.allowance(slot)?.size)
    }
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

/// Loads the model in the size of this number; called on the detector's thread, again after each failure. With it comes
/// the digest of the file.
pub type Loader = Box<dyn Fn(usize) -> Result<(Loaded, String), String> + Send + Sync>;

/// What the detector is started with.
pub struct DetectorOptions {
    pub loader: Loader,
    /// Width and height of the inputs that the model comes in, in the loader's order. With one, or none said, all cameras
    /// have that one.
    pub sizes: Vec<(usize, usize)>,
    /// Of one core; 1.0 is all of it.
    pub core_share: f64,
    /// A picture that waited for longer is of no use any more.
    pub latency_budget: Duration,
    /// A call of the backend that takes longer hangs: [`HANG`].
    pub hang: Duration,
    pub clock: Clock,
}

/// Starts the detector, which loads its model once the first camera is added; it ends when `cancel` fires.
pub fn start(
    options: DetectorOptions,
    cancel: CancellationToken,
) -> (DetectorHandle, tokio::task::JoinHandle<()>) {
    let inner = Inner {
        scheduler: Scheduler::new(Limits { max_age: options.latency_budget, gather: Duration::ZERO }),
        slots: BTreeMap::new(),
        removed: Figures::default(),
        turn: 0,
        busy_since: None,
        stopped: false,
        loaded: BTreeSet::new(),
    };
    let report = DetectorReport {
        state: DetectorState::Off,
        since: options.clock.wall(),
        problem: None,
        models: Arc::default(),
        allowances: Arc::default(),
        restarts: 0,
    };
    let shared = Arc::new(Shared {
        inner: Mutex::new(inner),
        wake: Condvar::new(),
        admission: Mutex::new(Admission::new(options.core_share)),
        report: watch::Sender::new(report),
        needed: Notify::new(),
        clock: options.clock.clone(),
        sizes: options.sizes.clone(),
    });
    let supervisor = Supervisor::new(shared.clone(), options);
    (DetectorHandle { shared }, tokio::spawn(supervisor.run(cancel)))
}

/// The detector as the box has it; cheap to clone.
#[derive(Clone)]
pub struct DetectorHandle {
    shared: Arc<Shared>,
}

impl DetectorHandle {
    /// Lets a camera take part from now on, until the slot is dropped. The allowances of all are decided anew.
    pub fn add(&self, demand: CameraDemand) -> CameraSlot {
        let shared = self.shared.clone();
        let size = (shared.sizes.len() <= 1).then_some(0);
        let slot = Slot {
            results: None,
            size,
            min_score: demand.min_score,
            iou: demand.iou,
            counted: Arc::new(Mutex::new(Counted::default())),
        };
        let counted = slot.counted.clone();
        let id = shared.change_admission(|admission| {
            let id = admission.add(demand);
            if let Some(size) = size {
                admission.sized(id, size);
            }
            shared.lock().slots.insert(id, slot);
            id
        });
        shared.needed.notify_one();
        CameraSlot { shared, id, counted }
    }

    pub fn report(&self) -> watch::Receiver<DetectorReport> {
        self.shared.report.subscribe()
    }

    /// Of all cameras, those that have been removed included.
    pub fn total(&self) -> Figures {
        let mut inner = self.shared.lock();
        let now = self.shared.clock.now();
        let mut total = inner.removed.clone();
        let ids: Vec<_> = inner.slots.keys().copied().collect();
        ids.into_iter().filter_map(|id| inner.figures(id, now)).for_each(|figures| total.add(&figures));
        total
    }
}

/// Number of a camera at the detector; none is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(usize);

/// A camera's place at the detector, which is free again once this is dropped.
pub struct CameraSlot {
    shared: Arc<Shared>,
    id: SlotId,
    counted: Arc<Mutex<Counted>>,
}

impl CameraSlot {
    pub fn id(&self) -> SlotId {
        self.id
    }

    /// The camera's pictures are of this width and height; to be told before they come, and whenever they change.
    pub fn pictures_are(&self, width: u32, height: u32) {
        let Some(size) = nearest(&self.shared.sizes, width, height) else { return };
        let changed = self.shared.change_admission(|admission| {
            let mut inner = self.shared.lock();
            let slot = inner.slots.get_mut(&self.id).filter(|slot| slot.size != Some(size));
            let changed = slot.map(|slot| slot.size = Some(size)).is_some();
            if changed {
                admission.sized(self.id, size);
            }
            changed
        });
        if changed {
            self.shared.needed.notify_one();
            self.shared.wake.notify_all();
        }
    }

    /// Where the decoder puts this camera's pictures.
    pub fn frames(&self) -> FrameSender {
        FrameSender { shared: self.shared.clone(), id: self.id }
    }

    /// From now on the camera's results come here; a full queue loses them.
    pub fn results(&self) -> mpsc::Receiver<Detections> {
        let (results, receiver) = mpsc::channel(RESULT_PLACES);
        if let Some(slot) = self.shared.lock().slots.get_mut(&self.id) {
            slot.results = Some(results);
        }
        receiver
    }

    pub fn report(&self) -> watch::Receiver<DetectorReport> {
        self.shared.report.subscribe()
    }

    /// What others may see of this camera's figures, also after it has been removed.
    pub fn figures(&self) -> FiguresView {
        FiguresView { shared: self.shared.clone(), id: self.id, counted: self.counted.clone() }
    }
}

impl Drop for CameraSlot {
    fn drop(&mut self) {
        let waited = self.shared.change_admission(|admission| {
            admission.remove(self.id);
            self.shared.lock().remove(self.id, self.shared.clock.now())
        });
        drop(waited); // returns a picture to the decoder, which takes its time
    }
}

/// Hands pictures of one camera to the detector.
#[derive(Clone)]
pub struct FrameSender {
    shared: Arc<Shared>,
    id: SlotId,
}

impl FrameSender {
    /// The newest picture; an older one that still waits is skipped. Never waits.
    pub fn offer(&self, frame: Arc<Frame>) {
        let mut inner = self.shared.lock();
        if !inner.slots.contains_key(&self.id) {
            return;
        }
        let older = inner.scheduler.offer(self.id.0, frame, self.shared.clock.now());
        drop(inner);
        self.shared.wake.notify_one();
        drop(older); // returns a picture to the decoder, which takes its time
    }
}

/// Figures of one camera.
#[derive(Clone)]
pub struct FiguresView {
    shared: Arc<Shared>,
    id: SlotId,
    counted: Arc<Mutex<Counted>>,
}

impl FiguresView {
    pub fn figures(&self) -> Figures {
        let now = self.shared.clock.now();
        let of_slot = self.shared.lock().figures(self.id, now);
        of_slot.unwrap_or_else(|| lock(&self.counted).figures(None, now))
    }
}

struct Shared {
    /// Held only for moments, and never while a report is sent.
    inner: Mutex<Inner>,
    wake: Condvar,
    /// Held while a change of the cameras or of the model is worked out and published. Locked before `inner`.
    admission: Mutex<Admission>,
    report: watch::Sender<DetectorReport>,
    /// A camera needs a model.
    needed: Notify,
    clock: Clock,
    /// As in [`DetectorOptions::sizes`].
    sizes: Vec<(usize, usize)>,
}

struct Inner {
    scheduler: Scheduler<Arc<Frame>>,
    slots: BTreeMap<SlotId, Slot>,
    /// Figures of those that are gone.
    removed: Figures,
    /// A thread with another number has been replaced.
    turn: u64,
    busy_since: Option<Instant>,
    stopped: bool,
    /// Sizes of the model that the thread whose turn it is has.
    loaded: BTreeSet<usize>,
}

struct Slot {
    results: Option<mpsc::Sender<Detections>>,
    /// Which size of the model it needs; absent: not known yet.
    size: Option<usize>,
    /// Boxes below this score are not counted as detections.
    min_score: f32,
    /// Overlap beyond which boxes of one class are one for this camera.
    iou: f32,
    counted: Arc<Mutex<Counted>>,
}

/// Of one camera; what the scheduler counts is not in it while the camera takes part.
struct Counted {
    frames: u64,
    detections: u64,
    errors: u64,
    /// At the time of the removal.
    skipped: u64,
    inference: Latencies,
}

impl Default for Counted {
    fn default() -> Self {
        Self { frames: 0, detections: 0, errors: 0, skipped: 0, inference: Latencies::new(RECENT) }
    }
}

impl Counted {
    fn figures(&mut self, skipped: Option<u64>, now: Instant) -> Figures {
        Figures {
            frames: self.frames,
            detections: self.detections,
            errors: self.errors,
            skipped: skipped.unwrap_or(self.skipped),
            inference: self.inference.total().clone(),
            recent: self.inference.window(now),
        }
    }
}

/// Whoever panics with the lock leaves nothing half-done in what it guards.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// Changes who takes part, or what a picture costs, and publishes what each camera may offer from now on.
    fn change_admission<T>(&self, change: impl FnOnce(&mut Admission) -> T) -> T {
        let mut admission = lock(&self.admission);
        let changed = change(&mut admission);
        let allowances = admission.decide(self.clock.wall());
        self.report.send_if_modified(|report| {
            let differs = *report.allowances != allowances;
            if differs {
                report.allowances = Arc::new(allowances);
            }
            differs
        });
        changed
    }
}

/// Number of the size whose shape is nearest to that of a picture, where there is a choice.
pub(crate) fn nearest(sizes: &[(usize, usize)], width: u32, height: u32) -> Option<usize> {
    if sizes.len() < 2 || width == 0 || height == 0 {
        return None;
    }
    let shape = f64::from(width) / f64::from(height);
    // Twice as wide is as far off as half as wide.
    let distance = |&(width, height): &(usize, usize)| (as_f64(width) / as_f64(height) / shape).ln().abs();
    let by_distance = |(_, a): &(usize, f64), (_, b): &(usize, f64)| a.total_cmp(b);
    sizes.iter().map(distance).enumerate().min_by(by_distance).map(|(number, _)| number)
}

fn as_f64(side: usize) -> f64 {
    u32::try_from(side).map_or(f64::MAX, f64::from)
}

impl Inner {
    /// A size of the model that a camera needs and that is not loaded yet.
    fn missing(&self) -> Option<usize> {
        self.slots.values().filter_map(|slot| slot.size).find(|size| !self.loaded.contains(size))
    }

    fn figures(&mut self, id: SlotId, now: Instant) -> Option<Figures> {
        let skipped = self.scheduler.counters(id.0).skipped();
        Some(lock(&self.slots.get(&id)?.counted).figures(Some(skipped), now))
    }

    /// Returns what must be dropped without the lock.
    fn remove(&mut self, id: SlotId, now: Instant) -> Option<Arc<Frame>> {
        let slot = self.slots.remove(&id)?;
        let (counters, waited) = self.scheduler.withdraw(id.0).unzip();
        let mut counted = lock(&slot.counted);
        counted.skipped = counters.unwrap_or_default().skipped();
        let figures = counted.figures(None, now);
        self.removed.add(&Figures { recent: Histogram::default(), ..figures });
        waited.flatten()
    }

    /// Overlap beyond which boxes of one class are one for all cameras; each camera may want less.
    fn iou(&self) -> f32 {
        self.slots.values().map(|slot| slot.iou).fold(0.0, f32::max)
    }

    fn deliver(
        &mut self,
        batch: Vec<(SlotId, Arc<Frame>)>,
        found: &mut [Vec<Detection>],
        timing: Timing,
        now: Instant,
    ) {
        let each = timing.total() / u32::try_from(batch.len().max(1)).unwrap_or(1);
        for ((id, frame), detections) in batch.into_iter().zip(found) {
            // A camera that was removed meanwhile has no use for it.
            let Some(slot) = self.slots.get(&id) else { continue };
            let mut counted = lock(&slot.counted);
            counted.frames += 1;
            let counts = detections.iter().filter(|detection| detection.score >= slot.min_score).count();
            counted.detections += counts as u64;
            counted.inference.record(now, each);
            let found = Detections { frame, detections: std::mem::take(detections), inference: each };
            if let Some(results) = &slot.results {
                let _ = results.try_send(found); // a camera that is stopping
            }
        }
    }
}
