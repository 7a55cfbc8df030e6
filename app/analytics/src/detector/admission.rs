//! Which camera gets how much of the detector: decided anew whenever one comes or goes, or the model was measured.

use std::collections::BTreeMap;
use std::time::SystemTime;

use detect::capacity::{BatchCost, Demand, Measured, admit};
use health::{Problem, Reason};

use super::SlotId;

/// What one camera wants of the detector.
#[derive(Clone, Debug, PartialEq)]
pub struct CameraDemand {
    /// Its id.
    pub camera: String,
    /// Where it stands in the configuration: a lower one is served before it, and among equals whoever came first.
    pub rank: usize,
    /// Pictures per second.
    pub fps: f64,
    /// Boxes below this score are not counted as detections.
    pub min_score: f32,
    /// Overlap beyond which boxes of one class are one.
    pub iou: f32,
}

impl CameraDemand {
    pub fn new(camera: &str, rank: usize, detect: &config::CameraDetect) -> Self {
        let by_label = detect.rules.by_label.values().map(|rule| rule.min_score);
        Self {
            camera: camera.to_owned(),
            rank,
            fps: detect.fps,
            // The least score that any label of the camera needs.
            min_score: by_label.fold(detect.rules.label.min_score, f32::min),
            iou: detect.iou,
        }
    }
}

/// What the detector has for one camera.
#[derive(Clone, Debug, PartialEq)]
pub struct Allowance {
    pub slot: SlotId,
    pub camera: String,
    /// Number of the model's size that looks at its pictures.
    pub size: usize,
    /// Pictures per second that it wants.
    pub wanted_fps: f64,
    /// Pictures per second that it may offer; 0: none.
    pub fps: f64,
    /// When that is less than it wants: why, and what would fit.
    pub problem: Option<Problem>,
}

pub(super) struct Admission {
    core_share: f64,
    demands: BTreeMap<SlotId, CameraDemand>,
    next: usize,
    /// Which size of the model a camera needs, once that is known.
    sizes: BTreeMap<SlotId, usize>,
    /// By size; empty until a model was measured.
    measured: BTreeMap<usize, Measured>,
    /// As decided last, for the times at which problems began.
    decided: Vec<Allowance>,
}

impl Admission {
    pub(super) fn new(core_share: f64) -> Self {
        Self {
            core_share,
            demands: BTreeMap::new(),
            next: 0,
            sizes: BTreeMap::new(),
            measured: BTreeMap::new(),
            decided: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, demand: CameraDemand) -> SlotId {
        let id = SlotId(self.next);
        self.next += 1;
        self.demands.insert(id, demand);
        id
    }

    pub(super) fn remove(&mut self, id: SlotId) {
        self.demands.remove(&id);
        self.sizes.remove(&id);
    }

    /// The camera's pictures go through this size of the model.
    pub(super) fn sized(&mut self, id: SlotId, size: usize) {
        self.sizes.insert(id, size);
    }

    pub(super) fn measured(&mut self, size: usize, measured: Measured) {
        self.measured.insert(size, measured);
    }

    /// What pictures have cost lately. Clearly less than was measured is right: the machine had other work then, as it has
    /// when it starts. More changes nothing: what is late is skipped and counted, and nobody loses its rate for it.
    pub(super) fn seen(&mut self, size: usize, cost: BatchCost) {
        let measured = self.measured.get_mut(&size).and_then(|measured| measured.by_batch.first_mut());
        if let Some(measured) =
            measured.filter(|known| known.batch == cost.batch && cost.p50 * 5 < known.p50 * 4)
        {
            *measured = cost;
        }
    }

    /// The rate of each camera: what it wants where that fits, else what is left over by the cameras before it.
    pub(super) fn decide(&mut self, now: SystemTime) -> Vec<Allowance> {
        let known = |(&slot, demand)| {
            let size = *self.sizes.get(&slot)?;
            Some((slot, demand, size, self.measured.get(&size)?))
        };
        let mut order: Vec<_> = self.demands.iter().filter_map(known).collect();
        order.sort_by_key(|(slot, demand, ..)| (demand.rank, *slot));
        let mut granted: Vec<Demand> = Vec::new();
        let mut allowances: Vec<Allowance> = Vec::new();
        for (slot, demand, size, measured) in order {
            granted.push(Demand { id: &demand.camera, fps: demand.fps, measured });
            let refused = admit(&granted, self.core_share).refused.pop();
            let fps = refused.as_ref().map_or(demand.fps, |refused| refused.fits_at_fps.unwrap_or(0.0));
            if let Some(last) = granted.last_mut() {
                last.fps = fps;
            }
            let before = self.decided.iter().find(|before| before.slot == slot);
            let before = before.and_then(|before| before.problem.as_ref());
            let problem = refused.map(|refused| {
                let problem = Problem::new(Reason::DetectorOverloaded, refused.found(), now);
                problem.fix(refused.fix()).again(before)
            });
            if let Some(problem) = problem.as_ref().filter(|problem| Some(*problem) != before) {
                tracing::warn!(camera = demand.camera, %problem, fps, "the detector has no time for it");
            }
            let (camera, wanted_fps) = (demand.camera.clone(), demand.fps);
            allowances.push(Allowance { slot, camera, size, wanted_fps, fps, problem });
        }
        self.decided.clone_from(&allowances);
        allowances
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn measured(ms: u64) -> Measured {
        let time = Duration::from_millis(ms);
        let cost = detect::capacity::BatchCost { batch: 1, p50: time, p95: time, rounds: 1 };
        Measured { by_batch: vec![cost], input: (320, 192) }
    }

    fn demand(camera: &str, rank: usize, fps: f64) -> CameraDemand {
        CameraDemand { camera: camera.into(), rank, fps, min_score: 0.5, iou: 0.5 }
    }

    /// Of a camera whose pictures go through the only size of a model.
    fn add(admission: &mut Admission, demand: CameraDemand) -> SlotId {
        let id = admission.add(demand);
        admission.sized(id, 0);
        id
    }

    fn rates(allowances: &[Allowance]) -> Vec<(&str, f64)> {
        allowances.iter().map(|allowance| (allowance.camera.as_str(), allowance.fps)).collect()
    }

    #[test]
    fn rates_go_to_the_first_cameras_first() {
        let check = |ms: u64, wanted: &[f64], expected: &[f64]| {
            let mut admission = Admission::new(0.8);
            for (rank, fps) in wanted.iter().enumerate() {
                add(&mut admission, demand("c", rank, *fps));
            }
            assert_eq!(admission.decide(UNIX_EPOCH), [], "nothing is known of the model");
            admission.measured(0, measured(ms));
            let allowances = admission.decide(UNIX_EPOCH);
            let found: Vec<_> = allowances.iter().map(|allowance| allowance.fps).collect();
            assert_eq!(found, expected, "{ms} ms, {wanted:?}");
            for (allowance, wanted) in allowances.iter().zip(wanted) {
                assert_eq!(allowance.problem.is_some(), allowance.fps < *wanted);
            }
        };
        check(5, &[10.0, 10.0], &[10.0, 10.0]);
        check(50, &[10.0, 10.0, 5.0], &[10.0, 6.0, 0.0]);
        check(50, &[0.0, 20.0], &[0.0, 16.0]);
    }

    #[test]
    fn who_comes_or_goes_changes_the_rates_of_all() {
        let mut admission = Admission::new(0.8);
        admission.measured(0, measured(50));
        let at = |s| UNIX_EPOCH + Duration::from_secs(s);
        let first = add(&mut admission, demand("first", 1, 10.0));
        let second = add(&mut admission, demand("second", 2, 10.0));
        assert_eq!(rates(&admission.decide(at(1))), [("first", 10.0), ("second", 6.0)]);
        // One that stands in front of the others in the configuration is served before them.
        let replaced = add(&mut admission, demand("replaced", 0, 5.0));
        let decided = admission.decide(at(2));
        assert_eq!(rates(&decided), [("replaced", 5.0), ("first", 10.0), ("second", 1.0)]);
        let problem = decided[2].problem.clone().expect("it is not as it wants");
        assert_eq!((problem.reason, problem.since), (Reason::DetectorOverloaded, at(1)));
        assert_eq!(
            problem.to_string(),
            "camera second: detection at 10 fps takes 50 % of the detector's time, 5 % are left; it would fit at 1 fps, \
             or with a model of 224x160 input, or with a smaller model or a faster backend"
        );
        admission.remove(first);
        assert_eq!(rates(&admission.decide(at(3))), [("replaced", 5.0), ("second", 10.0)]);
        admission.remove(replaced);
        admission.remove(second);
        assert_eq!(admission.decide(at(4)), []);
        assert_ne!(add(&mut admission, demand("first", 1, 10.0)), first, "no number is used twice");
    }

    #[test]
    fn another_model_changes_the_rates() {
        let mut admission = Admission::new(0.8);
        add(&mut admission, demand("gate", 0, 10.0));
        for (ms, fps) in [(200, 4.0), (20, 10.0), (400, 2.0)] {
            admission.measured(0, measured(ms));
            assert_eq!(rates(&admission.decide(UNIX_EPOCH)), [("gate", fps)]);
        }
    }

    #[test]
    fn a_measurement_on_a_busy_machine_is_corrected_by_what_pictures_cost() {
        let mut admission = Admission::new(0.8);
        for rank in 0..2 {
            add(&mut admission, demand("c", rank, 5.0));
        }
        admission.measured(0, measured(160));
        let fps = |admission: &mut Admission| {
            admission.decide(UNIX_EPOCH).iter().map(|allowance| allowance.fps).collect::<Vec<_>>()
        };
        assert_eq!(fps(&mut admission), [5.0, 0.0]);
        let cost = |ms| measured(ms).by_batch[0];
        for (seen, expected) in [(130, 0.0), (100, 3.0), (40, 5.0), (400, 5.0)] {
            admission.seen(0, cost(seen));
            assert_eq!(fps(&mut admission), [5.0, expected], "{seen} ms");
        }
        admission.seen(0, BatchCost { batch: 4, ..cost(1) });
        admission.seen(1, cost(1));
        assert_eq!(
            admission.measured[&0].picture(),
            Duration::from_millis(40),
            "of a picture alone, of this size"
        );
    }

    #[test]
    fn a_camera_has_its_rate_once_the_size_of_its_model_was_measured() {
        let mut admission = Admission::new(0.8);
        let (wide, square) =
            (admission.add(demand("wide", 0, 10.0)), admission.add(demand("square", 1, 10.0)));
        admission.measured(1, measured(50));
        assert_eq!(admission.decide(UNIX_EPOCH), [], "nobody knows the cameras' pictures");
        admission.sized(wide, 1);
        admission.sized(square, 0);
        assert_eq!(rates(&admission.decide(UNIX_EPOCH)), [("wide", 10.0)]);
        admission.measured(0, measured(20));
        let decided = admission.decide(UNIX_EPOCH);
        assert_eq!(rates(&decided), [("wide", 10.0), ("square", 10.0)]);
        assert_eq!([decided[0].size, decided[1].size], [1, 0]);
        admission.remove(wide);
        assert_eq!(rates(&admission.decide(UNIX_EPOCH)), [("square", 10.0)]);
    }
}
