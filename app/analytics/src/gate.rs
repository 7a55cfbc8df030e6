//! Which decoded pictures go to the detector.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clock::Clock;
use config::CameraDetect;
use decode::Frame;
use tokio::sync::watch;
use vision::motion::{Motion, MotionConfig};

/// With the motion gate and nothing moving, a picture goes through the model this often.
const STILL: Duration = Duration::from_secs(1);

/// Decides on the decoder's thread whether a picture goes to the detector, and notices motion.
pub(crate) struct Gate {
    watches: bool,
    holds: bool,
    moving: watch::Sender<bool>,
    clock: Clock,
    inner: Mutex<(Motion, Option<Instant>)>,
}

impl Gate {
    pub(crate) fn new(detect: &CameraDetect, moving: watch::Sender<bool>, clock: Clock) -> Self {
        Self {
            watches: detect.motion || detect.motion_gate,
            holds: detect.motion_gate,
            moving,
            clock,
            inner: Mutex::new((Motion::new(MotionConfig::default()), None)),
        }
    }

    pub(crate) fn passes(&self, frame: &Frame) -> bool {
        if !self.watches {
            return true;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (motion, passed) = &mut *inner;
        motion.update(frame.timestamp(), &frame.picture());
        let moving = motion.is_moving();
        self.moving.send_if_modified(|before| std::mem::replace(before, moving) != moving);
        let passes = !self.holds || moving || passed.is_none_or(|at| self.clock.since(at) >= STILL);
        if passes {
            *passed = Some(self.clock.now());
        }
        passes
    }
}
