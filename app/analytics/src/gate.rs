//! Which decoded pictures go to the detector.

use std::sync::{Mutex, PoisonError};

use config::CameraDetect;
use decode::Frame;
use media::ProducerTimestamp;
use tokio::sync::watch;
use vision::motion::{Motion, MotionConfig};

/// With the motion gate and nothing moving, a picture goes through the model this often, by the producer's time.
const STILL_MS: u64 = 1_000;

/// Decides on the decoder's thread whether a picture goes to the detector, and notices motion.
pub(crate) struct Gate {
    watches: bool,
    holds: bool,
    moving: watch::Sender<bool>,
    inner: Mutex<(Motion, Option<ProducerTimestamp>)>,
}

impl Gate {
    pub(crate) fn new(detect: &CameraDetect, moving: watch::Sender<bool>) -> Self {
        Self {
            watches: detect.motion || detect.motion_gate,
            holds: detect.motion_gate,
            moving,
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
        // Where time ran back nothing is known of the last one.
        let since_ms = passed.and_then(|passed| frame.timestamp().checked_ms_since(passed));
        let passes = !self.holds || moving || since_ms.is_none_or(|ms| ms >= STILL_MS);
        if passes {
            *passed = Some(frame.timestamp());
        }
        passes
    }
}
