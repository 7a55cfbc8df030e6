//! The detector's thread, and the task that starts, watches and replaces it.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use decode::Frame;
use detect::capacity::BatchCost;
use detect::{Detector, Settings};
use health::{Backoff, Problem, Reason};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use vision::Detection;

use super::{DetectorOptions, DetectorState, Model, Shared, SlotId};
use crate::model::detector_of;

/// So many errors in a row, and the model is loaded anew.
pub(super) const ERRORS: u32 = 5;
const LOOK: Duration = Duration::from_millis(500);
/// A picture that is in the model when the daemon stops may take this long.
const STOP_LIMIT: Duration = Duration::from_secs(2);
/// The synthetic picture to measure with, how often, and for how long at most.
const MEASURED_SIZE: (usize, usize) = (1280, 720);
const ROUNDS: usize = 30;
const MEASURE: Duration = Duration::from_millis(500);
/// So many real pictures tell what one costs now.
const SEEN: usize = 30;

pub(super) struct Supervisor {
    shared: Arc<Shared>,
    options: Arc<DetectorOptions>,
}

/// Why a thread ended, or has to be replaced.
enum End {
    Stopped,
    Failed(String),
    Stuck,
}

impl Supervisor {
    pub(super) fn new(shared: Arc<Shared>, options: DetectorOptions) -> Self {
        Self { shared, options: Arc::new(options) }
    }

    pub(super) async fn run(self, cancel: CancellationToken) {
        while self.shared.lock().missing().is_none() {
            if cancel.run_until_cancelled(self.shared.needed.notified()).await.is_none() {
                return;
            }
        }
        let clock = self.shared.clock.clone();
        let mut backoff =
            Backoff::new(Duration::from_secs(1), Duration::from_secs(60), Duration::from_secs(60));
        let mut last: Option<Problem> = None;
        loop {
            backoff.up(clock.now());
            self.shared.set_state(DetectorState::Loading, None);
            let (state, reason, found) = match self.one_thread(&cancel).await {
                End::Stopped => return,
                End::Failed(found) => (DetectorState::Failed, Reason::DetectorFailed, found),
                End::Stuck => {
                    let found =
                        format!("no answer from the detector for {} s", self.options.hang.as_secs_f64());
                    (DetectorState::Stuck, Reason::DetectorStuck, found)
                }
            };
            let worked = self.shared.report.borrow().state == DetectorState::Running;
            let before = last.take().filter(|_| !worked);
            let problem = Problem::new(reason, found, clock.wall()).again(before.as_ref());
            let delay = backoff.failed(clock.now(), rand::random());
            tracing::error!(%problem, retry_in_ms = delay.as_millis(), "detection does not work");
            last = Some(problem.clone());
            self.shared.set_state(state, Some(problem));
            self.shared.report.send_modify(|report| report.restarts += 1);
            if cancel.run_until_cancelled(clock.sleep(delay)).await.is_none() {
                return;
            }
        }
    }

    async fn one_thread(&self, cancel: &CancellationToken) -> End {
        let clock = &self.shared.clock;
        let turn = {
            let mut inner = self.shared.lock();
            inner.turn += 1;
            inner.busy_since = None;
            inner.loaded.clear();
            inner.turn
        };
        let (ended, mut end) = oneshot::channel();
        let work = Work { turn, shared: self.shared.clone(), options: self.options.clone() };
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
                    let _ = tokio::time::timeout(STOP_LIMIT, &mut end).await;
                    return End::Stopped;
                }
                () = clock.beat(LOOK) => {
                    let mut inner = self.shared.lock();
                    if inner.busy_since.is_some_and(|since| clock.since(since) > self.options.hang) {
                        inner.turn += 1;
                        return End::Stuck;
                    }
                }
            }
        }
    }
}

impl Shared {
    fn set_state(&self, state: DetectorState, problem: Option<Problem>) {
        self.report.send_modify(|report| {
            if report.state != state {
                report.since = self.clock.wall();
            }
            (report.state, report.problem) = (state, problem);
        });
    }
}

/// Pictures of cameras that have the same size of the model, for one call of the backend.
type Batch = Vec<(SlotId, Arc<Frame>)>;

/// What is next on the detector's thread.
enum Task {
    /// This size of the model is needed.
    Load(usize),
    /// Pictures for this size of the model, and the overlap that all cameras agree on.
    Look(usize, Batch, f32),
}

/// What runs on the detector's thread.
struct Work {
    turn: u64,
    shared: Arc<Shared>,
    options: Arc<DetectorOptions>,
}

impl Work {
    /// Until it is stopped or replaced; the error says why it cannot go on.
    fn run(self) -> Result<(), String> {
        let mut detectors: BTreeMap<usize, Detector> = BTreeMap::new();
        let mut found: Vec<Vec<Detection>> = Vec::new();
        let mut errors = 0;
        let mut seen: BTreeMap<usize, Vec<Duration>> = BTreeMap::new();
        while let Some(task) = self.next(&detectors) {
            let (size, batch, iou) = match task {
                Task::Load(size) => {
                    detectors.insert(size, self.load(size)?);
                    continue;
                }
                Task::Look(size, batch, iou) => (size, batch, iou),
            };
            let Some(detector) = detectors.get_mut(&size) else { continue };
            if detector.settings().nms_iou != iou {
                detector.set_settings(Settings { nms_iou: iou, ..detector.settings().clone() });
            }
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
                    let alone = batch.len() == 1;
                    inner.deliver(batch, &mut found, timing, self.shared.clock.now());
                    drop(inner);
                    if alone {
                        self.seen(size, seen.entry(size).or_default(), timing.total());
                    }
                }
                Err(error) => {
                    errors += 1;
                    for (id, _) in &batch {
                        if let Some(slot) = inner.slots.get(id) {
                            super::lock(&slot.counted).errors += 1;
                        }
                    }
                    drop(inner);
                    tracing::warn!(error = health::chain(&error), "the model failed on a picture");
                    if errors >= ERRORS {
                        return Err(health::chain(&error));
                    }
                }
            }
        }
        Ok(())
    }

    /// A picture alone took so long.
    fn seen(&self, size: usize, times: &mut Vec<Duration>, time: Duration) {
        times.push(time);
        if times.len() < SEEN {
            return;
        }
        if let Some(cost) = BatchCost::of(1, times) {
            self.shared.change_admission(|admission| admission.seen(size, cost));
        }
        times.clear();
    }

    /// Loads and measures the model in one of its sizes, and tells everybody.
    fn load(&self, size: usize) -> Result<Detector, String> {
        let loaded = (self.options.loader)(size)?;
        let iou = self.shared.lock().iou();
        let (mut detector, model) = detector_of(loaded, iou, self.shared.clock.clone());
        let measured = detector.measure(MEASURED_SIZE, ROUNDS, MEASURE);
        self.introduce(size, model, measured.map_err(|error| health::chain(&error))?);
        Ok(detector)
    }

    /// Publishes what was loaded and which cameras fit.
    fn introduce(&self, size: usize, model: Model, measured: detect::capacity::Measured) {
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
        {
            let mut inner = self.shared.lock();
            if inner.turn != self.turn {
                return; // given up long ago
            }
            inner.loaded.insert(size);
        }
        self.shared.report.send_modify(|report| {
            // Who holds the same one goes on with it.
            if report.models.get(&size).is_none_or(|known| **known != model) {
                Arc::make_mut(&mut report.models).insert(size, Arc::new(model));
            }
        });
        self.shared.change_admission(|admission| admission.measured(size, measured));
        self.shared.set_state(DetectorState::Running, None);
    }

    /// Waits for something to do. `None`: the turn of this thread is over.
    fn next(&self, detectors: &BTreeMap<usize, Detector>) -> Option<Task> {
        let mut inner = self.shared.lock();
        loop {
            if inner.stopped || inner.turn != self.turn {
                return None;
            }
            if let Some(size) = inner.missing() {
                return Some(Task::Load(size));
            }
            let now = self.shared.clock.now();
            if let Some((size, batch)) = inner.take(now, detectors) {
                inner.busy_since = Some(now);
                return Some(Task::Look(size, batch, inner.iou()));
            }
            inner = self.shared.wake.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl super::Inner {
    /// The pictures whose turn it is, of cameras with one size of the model, as many as that takes at once.
    fn take(&mut self, now: Instant, detectors: &BTreeMap<usize, Detector>) -> Option<(usize, Batch)> {
        let max = match detectors.len() {
            0 => return None,
            1 => detectors.values().map(|detector| detector.input().max_batch).sum(),
            // Those that wait need not be of one size.
            _ => 1,
        };
        loop {
            let taken = self.scheduler.take(now, max.max(1));
            let size_of = |number: usize| self.slots.get(&SlotId(number)).and_then(|slot| slot.size);
            let (first, _) = *taken.first().as_ref()?;
            // Of a camera whose pictures nobody told of, none can be looked at.
            let Some(size) = size_of(*first) else { continue };
            let batch = taken.into_iter().filter(|(number, _)| size_of(*number) == Some(size));
            return Some((size, batch.map(|(number, frame)| (SlotId(number), frame)).collect()));
        }
    }
}
