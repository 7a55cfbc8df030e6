//! What a camera has done so far.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// Pictures that are remembered per camera; older ones are forgotten.
const REMEMBERED: usize = 8192;

/// A picture that has left the camera for one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentPicture {
    /// Counts the sessions of the camera from 1.
    pub session: u64,
    /// Pictures since 1970 in presentation order: of the rendered scene the capture time is `number / fps` seconds.
    pub number: u64,
    /// Presentation index within the loop, for [`Clip::access_unit`](crate::Clip::access_unit).
    pub index: u32,
    /// Capture time in ms since 1970, rounded down.
    pub capture_utc_ms: u64,
    pub size_bytes: usize,
    pub packets: u32,
    /// How many of its packets were lost on purpose.
    pub packets_dropped: u32,
    /// Came from the other clip of a parameter switch.
    pub switched: bool,
}

#[derive(Clone, Debug, Default)]
pub struct CameraStats {
    /// Sessions that play now.
    pub playing: usize,
    /// Sessions that ever played.
    pub sessions: u64,
    pub pictures: u64,
    /// RTP packets of all tracks, the dropped ones included.
    pub packets: u64,
    pub packets_dropped: u64,
    pub packets_reordered: u64,
    /// Pictures that were left out because a client did not read fast enough.
    pub pictures_skipped: u64,
    pub sender_reports: u64,
    /// OPTIONS, GET_PARAMETER and SET_PARAMETER of playing sessions, answered or not.
    pub keepalives: u64,
    pub teardowns: u64,
    /// Answers with status 401.
    pub unauthorized: u64,
    /// The most recent pictures, oldest first.
    pub sent: VecDeque<SentPicture>,
}

#[derive(Default)]
pub(crate) struct Recorder {
    stats: Mutex<CameraStats>,
    changed: Notify,
}

impl Recorder {
    pub(crate) fn record(&self, change: impl FnOnce(&mut CameraStats)) {
        change(&mut self.stats.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_waiters();
    }

    pub(crate) fn picture(&self, picture: SentPicture) {
        self.record(|stats| {
            stats.pictures += 1;
            stats.packets += u64::from(picture.packets);
            stats.packets_dropped += u64::from(picture.packets_dropped);
            if stats.sent.len() == REMEMBERED {
                stats.sent.pop_front();
            }
            stats.sent.push_back(picture);
        });
    }

    pub(crate) fn snapshot(&self) -> CameraStats {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the numbers please the caller.
    pub(crate) async fn wait(&self, mut pleased: impl FnMut(&CameraStats) -> bool) -> CameraStats {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
                if pleased(&stats) {
                    return stats.clone();
                }
            }
            changed.await;
        }
    }
}
