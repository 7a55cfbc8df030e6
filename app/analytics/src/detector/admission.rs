//! Which camera gets how much of the detector: decided anew whenever one comes or goes, or the model was measured.

use std::collections::BTreeMap;
use std::time::SystemTime;

use detect::capacity::{Demand, Measured, admit};
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
    /// Absent until a model was measured.
    measured: Option<Measured>,
    /// As decided last, for the times at which problems began.
    decided: Vec<Allowance>,
}

impl Admission {
    pub(super) fn new(core_share: f64) -> Self {
        Self { core_share, demands: BTreeMap::new(), next: 0, measured: None, decided: Vec::new() }
    }

    pub(super) fn add(&mut self, demand: CameraDemand) -> SlotId {
        let id = SlotId(self.next);
        self.next += 1;
        self.demands.insert(id, demand);
        id
    }

    pub(super) fn remove(&mut self, id: SlotId) {
        self.demands.remove(&id);
    }

    pub(super) fn measured(&mut self, measured: Measured) {
        self.measured = Some(measured);
    }

    /// The rate of each camera: what it wants where that fits, else what is left over by the cameras before it.
    pub(super) fn decide(&mut self, now: SystemTime) -> Vec<Allowance> {
        let Some(measured) = &self.measured else { return Vec::new() };
        let mut order: Vec<_> = self.demands.iter().collect();
        order.sort_by_key(|(id, demand)| (demand.rank, **id));
        let mut granted: Vec<Demand> = Vec::new();
        let mut allowances: Vec<Allowance> = Vec::new();
        for (&slot, demand) in order {
            granted.push(Demand { id: demand.camera.clone(), fps: demand.fps });
            let refused = admit(measured, &granted, self.core_share).refused.pop();
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
            allowances.push(Allowance { slot, camera, wanted_fps, fps, problem });
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

    fn rates(allowances: &[Allowance]) -> Vec<(&str, f64)> {
        allowances.iter().map(|allowance| (allowance.camera.as_str(), allowance.fps)).collect()
    }

    #[test]
    fn rates_go_to_the_first_cameras_first() {
        let check = |ms: u64, wanted: &[f64], expected: &[f64]| {
            let mut admission = Admission::new(0.8);
            for (rank, fps) in wanted.iter().enumerate() {
                admission.add(demand("c", rank, *fps));
            }
            assert_eq!(admission.decide(UNIX_EPOCH), [], "nothing is known of the model");
            admission.measured(measured(ms));
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
        admission.measured(measured(50));
        let at = |s| UNIX_EPOCH + Duration::from_secs(s);
        let first = admission.add(demand("first", 1, 10.0));
        let second = admission.add(demand("second", 2, 10.0));
        assert_eq!(rates(&admission.decide(at(1))), [("first", 10.0), ("second", 6.0)]);
        // One that stands in front of the others in the configuration is served before them.
        let replaced = admission.add(demand("replaced", 0, 5.0));
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
        assert_ne!(admission.add(demand("first", 1, 10.0)), first, "no number is used twice");
    }

    #[test]
    fn another_model_changes_the_rates() {
        let mut admission = Admission::new(0.8);
        admission.add(demand("gate", 0, 10.0));
        for (ms, fps) in [(200, 4.0), (20, 10.0), (400, 2.0)] {
            admission.measured(measured(ms));
            assert_eq!(rates(&admission.decide(UNIX_EPOCH)), [("gate", fps)]);
        }
    }
}
