//! Strictly increasing milliseconds, whatever the candidates are.

use std::collections::BTreeSet;

use super::{LEAST_US, Micros};

/// A picture may come before at most so many that are shown earlier (`max_num_reorder_frames`, H.264 E.2.1, H.265 7.4.3.2): more
/// pictures in a row behind the highest RTP time are a jump back.
const MOST_REORDERED: u32 = 16;
/// Stamps so far behind the newest one are no longer told apart from it; no picture is placed further back.
const LOOK_BACK_MS: i64 = 2_000;

/// The stamps of the present timeline.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Of pictures and sounds; the present session or step began behind it.
    floor_ms: Option<i64>,
    highest_ms: Option<i64>,
    /// Monotonic time at which the picture with `highest_ms` came.
    highest_at: Micros,
    /// The last pictures', down to `LOOK_BACK_MS`.
    taken: BTreeSet<i64>,
    sound_ms: Option<i64>,
    /// Of this session.
    highest_rtp: Option<Micros>,
    behind: u32,
}

impl Order {
    pub(super) fn begin_session(&mut self) {
        self.floor_ms = self.highest_ms.max(self.sound_ms);
        self.highest_rtp = None;
        self.behind = 0;
    }

    pub(super) fn new_timeline(&mut self) {
        *self = Order { highest_rtp: self.highest_rtp, behind: self.behind, ..Order::default() };
    }

    /// The RTP time has another origin from here on.
    pub(super) fn rtp_jumped(&mut self) {
        self.floor_ms = self.highest_ms;
        self.highest_rtp = None;
        self.behind = 0;
    }

    /// Everything before the present session lies up to here.
    pub(super) fn floor_us(&self) -> Option<Micros> {
        self.floor_ms.map(|ms| ms.saturating_mul(1000))
    }

    /// Monotonic time since the newest picture.
    pub(super) fn since_highest(&self, now: Micros) -> Micros {
        now.saturating_sub(self.highest_at).max(0)
    }

    /// Where RTP time would be by now if it had gone on behind the newest picture.
    pub(super) fn expected_rtp(&self, now: Micros) -> Option<Micros> {
        Some(self.highest_rtp?.saturating_add(self.since_highest(now).max(LEAST_US)))
    }

    /// Whether reordering does not explain that a picture with this RTP time comes behind others: too many have done so,
    /// or it is a random access point, which is shown behind all that came before it.
    pub(super) fn is_jump_back(&self, rtp: Micros, random_access: bool) -> bool {
        (random_access || self.behind >= MOST_REORDERED)
            && self.highest_rtp.is_some_and(|highest| rtp <= highest)
    }

    /// The millisecond for the picture with RTP time `rtp`, as near to `wanted_ms` as order allows.
    pub(super) fn picture(&mut self, rtp: Micros, wanted_ms: i64, now: Micros) -> i64 {
        let ahead = self.highest_rtp.is_none_or(|highest| rtp > highest);
        let lowest = match (ahead, self.highest_ms) {
            (true, highest) => highest.map_or(0, |highest| highest + 1),
            (false, highest) => highest.unwrap_or(0).saturating_sub(LOOK_BACK_MS),
        };
        let mut ms = wanted_ms.max(lowest).max(self.floor_ms.map_or(0, |floor| floor + 1));
        while self.taken.contains(&ms) {
            ms += 1;
        }
        if ahead {
            (self.highest_rtp, self.behind) = (Some(rtp), 0);
        } else {
            self.behind = self.behind.saturating_add(1);
        }
        if self.highest_ms.is_none_or(|highest| ms > highest) {
            (self.highest_ms, self.highest_at) = (Some(ms), now);
            self.taken = self.taken.split_off(&ms.saturating_sub(LOOK_BACK_MS));
        }
        self.taken.insert(ms);
        ms
    }

    /// The millisecond for the next audio frame.
    pub(super) fn sound(&mut self, wanted_ms: i64) -> i64 {
        let after = self.sound_ms.max(self.floor_ms);
        let ms = wanted_ms.max(after.map_or(0, |after| after + 1));
        self.sound_ms = Some(ms);
        ms
    }
}
