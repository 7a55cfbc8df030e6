//! The RTP time of one track in one session, and how it is carried to UTC.

use super::{LEAST_US, Micros, Offsets, REPORTS};

/// Half of the time over which the smallest delay counts.
const DELAY_BUCKET_US: Micros = 15_000_000;
/// RTP time that runs ahead of arrival, or backwards, by more than this has jumped.
const JUMP_US: Micros = 1_500_000;
/// The RTP time of a sender report and that of the pictures around it differ by what coding and the way here take; more
/// than this is no latency.
const FIT_US: Micros = 3_000_000;

#[derive(Debug)]
pub(super) struct Track {
    rate_hz: i64,
    delay: SmallestDelay,
    /// `arrival - RTP` of the newest frame.
    latest_delay: Option<Micros>,
    /// `NTP - RTP` of reports that were believed.
    reports: Offsets,
    waiting: Option<Report>,
    refused: usize,
    /// How much later than its capture a frame arrives, as reports told; outlives sessions.
    latency: Micros,
    applied: Option<Applied>,
}

#[derive(Clone, Copy, Debug)]
struct Applied {
    /// UTC minus RTP time.
    offset: Micros,
    rtp: Micros,
    monotonic: Micros,
}

#[derive(Clone, Copy, Debug)]
struct Report {
    rtp: Micros,
    ntp: Micros,
    monotonic: Micros,
}

/// The smallest `arrival - RTP` of the last quarter to half minute.
#[derive(Debug, Default)]
struct SmallestDelay {
    since_rtp: Option<Micros>,
    current: Option<Micros>,
    previous: Option<Micros>,
}

impl Track {
    pub(super) fn new(rate_hz: u32) -> Self {
        Self {
            rate_hz: i64::from(if rate_hz == 0 { 90_000 } else { rate_hz }),
            delay: SmallestDelay::default(),
            latest_delay: None,
            reports: Offsets::default(),
            waiting: None,
            refused: 0,
            latency: 0,
            applied: None,
        }
    }

    pub(super) fn begin_session(&mut self, rate_hz: u32) {
        *self = Self { latency: self.latency, ..Self::new(rate_hz) };
    }

    /// Whether RTP time has jumped between the last frame and one with `rtp` that is here now.
    pub(super) fn is_jump(&self, rtp: Micros, monotonic: Micros) -> bool {
        self.applied.is_some_and(|last| {
            let rtp_passed = rtp.saturating_sub(last.rtp);
            let passed = monotonic.saturating_sub(last.monotonic).max(0);
            rtp_passed < -JUMP_US || rtp_passed > passed.saturating_add(JUMP_US)
        })
    }

    /// Whether a frame with `rtp` lies before the last one.
    pub(super) fn is_not_ahead(&self, rtp: Micros) -> bool {
        self.applied.is_some_and(|last| rtp <= last.rtp)
    }

    /// Where RTP time would be by now if it had gone on behind the last frame.
    pub(super) fn expected_rtp(&self, monotonic: Micros) -> Option<Micros> {
        let last = self.applied?;
        let passed = monotonic.saturating_sub(last.monotonic);
        Some(last.rtp.saturating_add(passed.max(LEAST_US)))
    }

    /// A frame with RTP time `rtp` is here.
    pub(super) fn arrived(&mut self, rtp: Micros, monotonic: Micros) {
        let delay = monotonic.saturating_sub(rtp);
        self.delay.add(rtp, delay);
        self.latest_delay = Some(delay);
    }

    /// RTP time `rtp` stands where `instead` would have stood.
    pub(super) fn move_origin(&mut self, instead: Micros, rtp: Micros) {
        if let Some(applied) = &mut self.applied {
            applied.offset = applied.offset.saturating_add(instead.saturating_sub(rtp));
            applied.rtp = rtp;
        }
        self.reports.clear();
        self.waiting = None;
        self.delay = SmallestDelay::default();
    }

    pub(super) fn keep_report(&mut self, rtp: i64, ntp: Micros, monotonic: Micros) {
        self.waiting = Some(Report { rtp: self.micros(rtp), ntp, monotonic });
    }

    /// Holds the waiting report against the frames: `NTP - monotonic` if its RTP time is theirs, and else how far it is
    /// off, unless it may just be ahead of a jump. `None` when there is nothing to say.
    pub(super) fn judge_report(&mut self) -> Option<Result<Micros, Micros>> {
        let (smallest, latest) = (self.delay.smallest()?, self.latest_delay?);
        let report = self.waiting.take()?;
        let delay = report.monotonic.saturating_sub(report.rtp);
        let early = smallest.saturating_sub(FIT_US).saturating_sub(delay);
        let late = delay.saturating_sub(latest.max(smallest).saturating_add(FIT_US));
        if early <= 0 && late <= 0 {
            self.refused = 0;
            self.reports.push(report.ntp.saturating_sub(report.rtp));
            return Some(Ok(report.ntp.saturating_sub(report.monotonic)));
        }
        self.refused += 1;
        if self.refused == REPORTS {
            self.reports.clear();
        }
        let named = self.reports.is_empty() || self.refused > 1;
        named.then(|| Err(latest.saturating_sub(delay)))
    }

    pub(super) fn forget_reports(&mut self) {
        self.reports.clear();
        self.waiting = None;
    }

    /// UTC minus RTP time, by the camera's reports of this session.
    pub(super) fn by_reports(&self) -> Option<Micros> {
        self.reports.median()
    }

    /// Monotonic minus RTP time, by the fastest frames.
    pub(super) fn by_arrival(&self) -> Micros {
        self.delay.smallest().unwrap_or(0)
    }

    pub(super) fn latency(&self) -> Micros {
        self.latency
    }

    pub(super) fn learn_latency(&mut self, camera: Option<Micros>, by_reports: Micros) {
        if let Some(camera) = camera {
            let arrived = self.by_arrival().saturating_add(camera);
            self.latency = arrived.saturating_sub(by_reports).clamp(-FIT_US, FIT_US);
        }
    }

    /// UTC minus RTP time, as the last stamp had it.
    pub(super) fn applied(&self) -> Option<Micros> {
        self.applied.map(|applied| applied.offset)
    }

    pub(super) fn apply(&mut self, offset: Micros, rtp: Micros, monotonic: Micros) {
        self.applied = Some(Applied { offset, rtp, monotonic });
    }

    /// Goes towards `target`, by at most 5 % of the RTP time that passed.
    pub(super) fn slew_to(&mut self, target: Micros, rtp: Micros, monotonic: Micros) {
        let offset = match self.applied {
            None => target,
            Some(last) => {
                let most = rtp.saturating_sub(last.rtp).clamp(0, JUMP_US) / 20;
                let difference = target.saturating_sub(last.offset);
                last.offset.saturating_add(difference.clamp(-most, most))
            }
        };
        self.apply(offset, rtp, monotonic);
    }

    pub(super) fn step(&mut self, by: Micros) {
        if let Some(applied) = &mut self.applied {
            applied.offset = applied.offset.saturating_add(by);
        }
    }

    /// RTP time in microseconds.
    pub(super) fn micros(&self, ticks: i64) -> Micros {
        let wide = i128::from(ticks) * 1_000_000 / i128::from(self.rate_hz);
        i64::try_from(wide).unwrap_or(if ticks < 0 { i64::MIN } else { i64::MAX })
    }
}

impl SmallestDelay {
    fn add(&mut self, rtp: Micros, delay: Micros) {
        let since = *self.since_rtp.get_or_insert(rtp);
        if rtp.saturating_sub(since) >= DELAY_BUCKET_US {
            self.previous = self.current.take();
            self.since_rtp = Some(rtp);
        }
        self.current = Some(self.current.map_or(delay, |smallest| smallest.min(delay)));
    }

    fn smallest(&self) -> Option<Micros> {
        [self.previous, self.current].into_iter().flatten().min()
    }
}
