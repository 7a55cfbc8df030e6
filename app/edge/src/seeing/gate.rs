//! Which decoded pictures go to the detector.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use decode::Frame;
use tokio::sync::watch;
use vision::motion::{Motion, MotionConfig};

use config::CameraDetect;

/// With the motion gate and nothing moving, a picture is looked at this often.
const STILL: Duration = Duration::from_secs(1);

/// Decides on the decoder's thread whether a picture goes to the detector, and notices motion.
pub(super) struct Gate {
    watches: bool,
    holds: bool,
    moving: watch::Sender<bool>,
    inner: Mutex<(Motion, Option<Instant>)>,
}

impl Gate {
    pub(super) fn new(detect: &CameraDetect, moving: watch::Sender<bool>) -> Self {
        Self {
            watches: detect.motion || detect.motion_gate,
            holds: detect.motion_gate,
            moving,
            inner: Mutex::new((Motion::new(MotionConfig::default()), None)),
        }
    }

    pub(super) fn passes(&self, frame: &Frame) -> bool {
        if !self.watches {
            return true;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (motion, passed) = &mut *inner;
        motion.update(frame.timestamp(), &frame.picture());
        let moving = motion.is_moving();
        self.moving.send_if_modified(|before| std::mem::replace(before, moving) != moving);
        let passes = !self.holds || moving || passed.is_none_or(|at| at.elapsed() >= STILL);
        if passes {
            *passed = Some(Instant::now());
        }
        passes
    }
}
