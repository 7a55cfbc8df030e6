//! From what the stages of a camera say to what an operator wants to know of it.

use crate::{Problem, Reason};

/// Whether the camera's picture arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CameraState {
    /// Pictures arrive and are uploaded.
    Online,
    /// Pictures arrive, something else is wrong.
    Degraded,
    /// No pictures.
    Offline,
    /// Switched off by configuration.
    Disabled,
}

/// Whether pictures come out of the camera's session.
#[derive(Clone, Debug, PartialEq)]
pub enum Pictures {
    /// They come, from a random access point on.
    Live,
    /// They come, but recording can only begin at the next random access point, and that takes too long.
    Waiting(Problem),
    /// None comes, and why; nothing is wrong yet while the first session is being opened.
    None(Option<Problem>),
}

/// What the stages of one camera say of themselves.
#[derive(Clone, Debug, PartialEq)]
pub struct CameraFacts {
    /// By configuration.
    pub enabled: bool,
    /// The daemon, or this camera, is being stopped.
    pub stopping: bool,
    pub pictures: Pictures,
    /// Everything else that is wrong, most telling first: footage comes before detection, because what is not detected
    /// now can still be looked at later.
    pub problems: Vec<Problem>,
    /// What somebody should look at although everything works.
    pub notices: Vec<Problem>,
}

/// The judgement of one camera.
#[derive(Clone, Debug, PartialEq)]
pub struct CameraHealth {
    pub state: CameraState,
    /// The most telling of the problems.
    pub problem: Option<Problem>,
    /// All checks that fail, the most telling first, one of each kind; notices are the last.
    pub checks: Vec<Problem>,
}

/// Judges one camera; `now` is wall time, for what begins here.
pub fn judge(facts: CameraFacts, now: std::time::SystemTime) -> CameraHealth {
    let CameraFacts { enabled, stopping, pictures, problems, notices } = facts;
    if !enabled {
        return CameraHealth { state: CameraState::Disabled, problem: None, checks: Vec::new() };
    }
    if stopping {
        let problem = Problem::new(Reason::Stopping, "the daemon stops", now);
        return CameraHealth { state: CameraState::Offline, problem: Some(problem), checks: Vec::new() };
    }
    let (state, first) = match pictures {
        Pictures::Live if problems.is_empty() => (CameraState::Online, None),
        Pictures::Live => (CameraState::Degraded, None),
        Pictures::Waiting(problem) => (CameraState::Degraded, Some(problem)),
        Pictures::None(Some(problem)) => (CameraState::Offline, Some(problem)),
        Pictures::None(None) => {
            (CameraState::Offline, Some(Problem::new(Reason::Starting, "no picture yet", now)))
        }
    };
    let mut checks: Vec<Problem> = Vec::new();
    let mut add = |problem: Problem| {
        if checks.iter().all(|check| check.reason != problem.reason) {
            checks.push(problem);
        }
    };
    first.into_iter().chain(problems).for_each(&mut add);
    notices.into_iter().for_each(&mut add);
    let problem = checks.first().filter(|_| state != CameraState::Online).cloned();
    CameraHealth { state, problem, checks }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn problem(reason: Reason) -> Problem {
        Problem::new(reason, "found", UNIX_EPOCH)
    }

    #[track_caller]
    fn check(pictures: Pictures, problems: &[Reason], state: CameraState, checks: &[Reason]) {
        let problems = problems.iter().copied().map(problem).collect();
        let facts = CameraFacts { enabled: true, stopping: false, pictures, problems, notices: Vec::new() };
        let health = judge(facts, UNIX_EPOCH);
        assert_eq!(health.state, state);
        assert_eq!(health.checks.iter().map(|check| check.reason).collect::<Vec<_>>(), checks);
        assert_eq!(health.problem.as_ref(), health.checks.first(), "the most telling one");
    }

    #[test]
    fn pictures_decide_the_state_and_the_first_problem_is_told() {
        use CameraState::{Degraded, Offline, Online};
        let (upload, detector) = (Reason::UploadFailed, Reason::DetectorFailed);
        check(Pictures::Live, &[], Online, &[]);
        check(Pictures::Live, &[upload, detector, upload], Degraded, &[upload, detector]);
        check(Pictures::Waiting(problem(Reason::LongGop)), &[upload], Degraded, &[Reason::LongGop, upload]);
        check(Pictures::None(None), &[], Offline, &[Reason::Starting]);
        check(Pictures::None(Some(problem(Reason::Stalled))), &[upload], Offline, &[Reason::Stalled, upload]);
    }

    #[test]
    fn a_notice_is_a_check_and_leaves_the_state_alone() {
        let facts = CameraFacts {
            enabled: true,
            stopping: false,
            pictures: Pictures::Live,
            problems: Vec::new(),
            notices: vec![problem(Reason::CameraClock)],
        };
        let health = judge(facts, UNIX_EPOCH);
        assert_eq!((health.state, health.problem), (CameraState::Online, None));
        assert_eq!(health.checks, [problem(Reason::CameraClock)]);
    }

    #[test]
    fn a_camera_that_is_off_or_being_stopped_has_no_problems() {
        let facts = |enabled, stopping| CameraFacts {
            enabled,
            stopping,
            pictures: Pictures::None(Some(problem(Reason::Stalled))),
            problems: vec![problem(Reason::UploadFailed)],
            notices: vec![problem(Reason::CameraClock)],
        };
        let off = judge(facts(false, true), UNIX_EPOCH);
        assert_eq!((off.state, off.problem, off.checks), (CameraState::Disabled, None, vec![]));
        let stopping = judge(facts(true, true), UNIX_EPOCH);
        assert_eq!((stopping.state, stopping.checks), (CameraState::Offline, vec![]));
        assert_eq!(stopping.problem.map(|problem| problem.reason), Some(Reason::Stopping));
    }
}
