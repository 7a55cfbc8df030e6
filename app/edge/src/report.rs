//! Turns the reports of the stages into MQTT messages: state topics when they change, figures at each interval.

use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::CancellationToken;

use crate::camera::{CameraView, SeeingView};
use crate::ingest::{IngestReport, IngestState};
use crate::loopback::{Verdict, VerifyReport};
use crate::seeing::worker::{self, Worker};
use crate::upload::{UploadReport, UploadState};
use crate::{host, upload};
use health::{Problem, Reason};
use messages::{
    CameraState, Check, Fps, Gap, Health, Stats, Status, Topics, Upload, UtcTime, Verify, VerifyMethod,
    Version, rounded,
};
use mqtt::{MqttHandle, Qos};

/// How soon a change of state is noticed.
const LOOK: Duration = Duration::from_millis(250);
/// State topics with moving figures in them are sent again at most this often without a change of state.
const REFRESH: Duration = Duration::from_secs(10);
/// A camera clock further off than this is worth a word.
const CLOCK_NOTICE_US: i64 = 1_000_000;
/// Lost packets are worth a word for this long.
const LOSS_NOTICE: Duration = Duration::from_secs(30);
/// Footage older than this that is not persisted makes the camera degraded.
const BACKLOG_NOTICE_S: f64 = 30.0;

/// Publishes what the cameras and the box do.
pub struct Reporter {
    pub mqtt: Option<MqttHandle>,
    pub topics: Topics,
    pub cameras: Vec<CameraView>,
    pub interval: Duration,
    pub watchdog_margin: tokio::sync::watch::Receiver<Option<Duration>>,
    /// Absent where nothing is to be detected.
    pub worker: Option<Worker>,
}

/// What was published last about one camera.
#[derive(Default)]
struct Published {
    status: Option<(CameraState, Option<Reason>, UtcTime)>,
    upload: Option<(messages::UploadState, Option<Reason>, u64)>,
    verify: Option<(messages::Verdict, Option<Reason>)>,
    refreshed: Option<Instant>,
    stats: Option<Counters>,
}

impl Reporter {
    /// Runs until `cancel`; the last states are published once more before it returns.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut published: Vec<Published> = self.cameras.iter().map(|_| Published::default()).collect();
        let mut checks = Checks::default();
        let mut sampler = host::Sampler::default();
        let mut detector = None;
        let mut next_figures = tokio::time::Instant::now() + self.interval.min(Duration::from_secs(2));
        loop {
            let last = cancel.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none();
            for (camera, published) in self.cameras.iter().zip(&mut published) {
                self.states(camera, published, last);
            }
            let figures_are_due = tokio::time::Instant::now() >= next_figures;
            if figures_are_due || last {
                next_figures = tokio::time::Instant::now() + self.interval;
                for (camera, published) in self.cameras.iter().zip(&mut published) {
                    self.stats(camera, published);
                }
                self.health(&mut checks, &mut sampler);
            }
            self.detector(&mut detector, figures_are_due || last);
            if last {
                return;
            }
        }
    }

    /// At each change of state, and when figures are due.
    fn detector(&mut self, published: &mut Option<UtcTime>, due: bool) {
        let Some(worker) = &mut self.worker else { return };
        worker.log();
        if due || *published != Some(worker.state_since()) {
            let message = worker.message();
            *published = Some(message.since);
            self.retained(self.topics.detector(), &message, Qos::AtMostOnce);
        }
    }

    fn states(&self, camera: &CameraView, published: &mut Published, force: bool) {
        let due = published.refreshed.is_none_or(|at| at.elapsed() >= REFRESH) || force;
        let id = &camera.config.id;
        let mut status = status(camera);
        // Ingest knows since when it is live, not since when that is degraded.
        status.since = match published.status {
            Some((state, _, since)) if state == status.state => since,
            Some(_) => status.ts,
            None => status.since,
        };
        if due || published.status.is_none_or(|p| (p.0, p.1) != (status.state, status.reason)) {
            published.status = Some((status.state, status.reason, status.since));
            self.retained(self.topics.status(id), &status, Qos::AtLeastOnce);
        }
        let upload = upload_message(&camera.config, &camera.upload.borrow());
        let seen = (upload.state, upload.reason, upload.fragments_lost);
        if due || published.upload != Some(seen) {
            published.upload = Some(seen);
            self.retained(self.topics.upload(id), &upload, Qos::AtLeastOnce);
        }
        let verify = verify_message(&camera.config, &camera.verify.borrow(), &camera.upload.borrow());
        let seen = (verify.verdict, verify.reason);
        if due || published.verify != Some(seen) {
            published.verify = Some(seen);
            self.retained(self.topics.verify(id), &verify, Qos::AtLeastOnce);
        }
        if due {
            published.refreshed = Some(Instant::now());
        }
    }

    fn stats(&self, camera: &CameraView, published: &mut Published) {
        let now = Instant::now();
        let ingest = camera.ingest.borrow();
        let counters = Counters::of(now, &ingest, camera.seeing.as_ref());
        if let Some(before) = published.stats.replace(counters) {
            let mut stats = stats(&ingest, &camera.verify.borrow(), before, counters);
            stats.detect = camera.seeing.as_ref().map(worker::stats);
            if let Some(mqtt) = &self.mqtt {
                mqtt.publish(self.topics.stats(&camera.config.id), &stats, Qos::AtMostOnce);
            }
        }
    }

    fn health(&self, checks: &mut Checks, sampler: &mut host::Sampler) {
        let found = self.cameras.iter().flat_map(failing).collect();
        let checks = checks.update(found);
        let mqtt = self.mqtt.as_ref().map(MqttHandle::health).unwrap_or_default();
        let health = Health {
            v: Version::default(),
            ts: SystemTime::now().into(),
            ok: checks.is_empty(),
            checks,
            host: sampler.sample(),
            clock: host::clock(),
            mqtt,
            watchdog_margin_ms: self
                .watchdog_margin
                .borrow()
                .map(|m| u64::try_from(m.as_millis()).unwrap_or(u64::MAX)),
        };
        self.retained(self.topics.health(), &health, Qos::AtMostOnce);
    }

    fn retained(&self, topic: String, body: &impl serde::Serialize, qos: Qos) {
        if let Some(mqtt) = &self.mqtt {
            mqtt.publish_retained(topic, body, qos);
        }
    }
}

/// The state of a camera as an operator means it, with the most telling reason.
pub fn status(camera: &CameraView) -> Status {
    let (state, problem) = judge(camera);
    let ingest = camera.ingest.borrow();
    let (reason, detail) = told(problem.as_ref());
    Status {
        v: Version::default(),
        ts: SystemTime::now().into(),
        state,
        since: ingest.since.into(),
        reason,
        detail,
        attempts: ingest.attempts,
        last_frame: ingest.last_frame.map(UtcTime::from),
    }
}

fn problem_of(camera: &CameraView) -> Option<Problem> {
    judge(camera).1
}

fn judge(camera: &CameraView) -> (CameraState, Option<Problem>) {
    let ingest = camera.ingest.borrow();
    if !camera.config.enabled {
        (CameraState::Disabled, None)
    } else if ingest.state == IngestState::Live {
        let recorded = degraded(&camera.config, &ingest, &camera.upload.borrow(), &camera.verify.borrow());
        // Footage first: what is not seen now can still be looked at later.
        match recorded.or_else(|| camera.seeing.as_ref()?.report.borrow().problem.clone()) {
            Some(problem) => (CameraState::Degraded, Some(problem)),
            None => (CameraState::Online, None),
        }
    } else if let Some(problem) = waiting(&camera.config, &ingest) {
        (CameraState::Degraded, Some(problem))
    } else {
        let starting = || problem(Reason::Starting, "no picture yet");
        (CameraState::Offline, Some(ingest.problem.clone().unwrap_or_else(starting)))
    }
}

const FIX_GOP: &str = "set a GOP of 1 to 4 s in the camera";

fn problem(reason: Reason, found: impl Into<String>) -> Problem {
    Problem::new(reason, found, SystemTime::now())
}

/// A problem as it stands in a body: its name, and what was found with what to change.
fn told(problem: Option<&Problem>) -> (Option<Reason>, Option<String>) {
    problem.map(|problem| (problem.reason, problem.to_string())).unzip()
}

/// Pictures arrive, but only the next random access point can be recorded.
fn waiting(camera: &config::Camera, ingest: &IngestReport) -> Option<Problem> {
    if ingest.state != IngestState::WaitingForKey {
        return None;
    }
    let is_long = ingest.since.elapsed().unwrap_or_default() > camera.upload.fragment_max;
    let arrive = ingest.last_frame.is_some_and(|last| last > ingest.since);
    let long = || problem(Reason::LongGop, "pictures arrive, but no key frame to begin with").fix(FIX_GOP);
    recent_loss(ingest).or((is_long && arrive).then(long))
}

fn recent_loss(ingest: &IngestReport) -> Option<Problem> {
    let loss = ingest.loss.as_ref().filter(|loss| loss.at.elapsed() < LOSS_NOTICE)?;
    Some(problem(loss.reason, loss.text.clone()))
}

/// Pictures arrive, but something that matters does not work.
fn degraded(
    camera: &config::Camera,
    ingest: &IngestReport,
    upload: &UploadReport,
    verify: &VerifyReport,
) -> Option<Problem> {
    let failing = matches!(upload.state, UploadState::BackingOff | UploadState::Failed);
    if let Some(problem) = upload.problem.clone().filter(|_| failing || backlog_s(upload) > BACKLOG_NOTICE_S)
    {
        return Some(problem);
    }
    if matches!(verify.verdict, Verdict::Mismatch | Verdict::Late) {
        let reason =
            if verify.verdict == Verdict::Late { Reason::VerifyLate } else { Reason::VerifyMismatch };
        let found =
            verify.problem.as_ref().map_or("footage is not read back as sent", |problem| &problem.found);
        return Some(problem(reason, found));
    }
    if let Some(loss) = recent_loss(ingest) {
        return Some(loss);
    }
    if ingest.clock_is_wrong {
        let seconds = ingest.clock_offset_us.unwrap_or_default() / 1_000_000;
        let found = format!("the camera's clock is off by {seconds} s, receive time is used");
        return Some(problem(Reason::CameraClock, found).fix("set NTP in the camera"));
    }
    let fragment_max_ms = camera.upload.fragment_max.as_millis();
    if upload.forced_cuts > 0 && ingest.gop_ms.is_none_or(|ms| u128::from(ms) > fragment_max_ms) {
        let found = "key frames are further apart than a fragment may be long";
        return Some(problem(Reason::LongGop, found).fix(FIX_GOP));
    }
    None
}

/// Producer time between the oldest fragment that is not persisted and now.
pub fn backlog_s(upload: &UploadReport) -> f64 {
    let (Some(oldest), Some(newest)) = (upload.backlog.oldest, upload.newest) else { return 0.0 };
    Duration::from_millis(newest.as_millis().saturating_sub(oldest.as_millis())).as_secs_f64()
}

fn upload_message(camera: &config::Camera, report: &UploadReport) -> Upload {
    let (reason, detail) = told(report.problem.as_ref());
    let day = Duration::from_secs(24 * 3600);
    let recent = |gap: &&upload::Gap| gap.noted.elapsed().unwrap_or_default() < day;
    let gaps: Vec<_> = report.gaps.iter().filter(recent).map(gap).collect();
    Upload {
        v: Version::default(),
        ts: SystemTime::now().into(),
        state: report.state.into(),
        since: report.since.into(),
        stream: camera.stream.clone(),
        reason,
        detail,
        last_persisted: report.last_persisted.map(|(at, _)| UtcTime::from_millis(at.as_millis())),
        last_fragment: report.last_persisted.and_then(|(_, number)| Some(number?.to_string())),
        ack_delay_ms: report.ack_delay.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
        backlog_s: backlog_s(report),
        backlog_bytes: report.backlog.bytes as u64,
        fragments_sent: report.complete,
        fragments_persisted: report.persisted,
        fragments_lost: report.lost,
        gaps_24h: u32::try_from(gaps.len()).unwrap_or(u32::MAX),
        gaps,
    }
}

fn gap(gap: &upload::Gap) -> Gap {
    let time = |at: media::ProducerTimestamp| UtcTime::from_millis(at.as_millis());
    Gap { start: time(gap.start), end: Some(time(gap.end)), reason: gap.reason }
}

fn verify_message(camera: &config::Camera, report: &VerifyReport, upload: &UploadReport) -> Verify {
    let (reason, detail) = told(report.problem.as_ref());
    let counts = report.counts;
    Verify {
        v: Version::default(),
        ts: SystemTime::now().into(),
        verdict: report.verdict.into(),
        since: report.since.into(),
        method: match camera.verify.mode {
            config::VerifyMode::Continuous => VerifyMethod::Continuous,
            config::VerifyMode::Sampled => VerifyMethod::Sampled,
            config::VerifyMode::Off => VerifyMethod::Off,
        },
        reason,
        detail,
        last_fragment: report.last_identical.and_then(|(_, number)| Some(number?.to_string())),
        last_verified: report.last_identical.map(|(at, _)| UtcTime::from_millis(at.as_millis())),
        compared: counts.identical + counts.late + counts.corrupt,
        identical: counts.identical + counts.late,
        corrupt: counts.corrupt,
        missing: counts.missing.saturating_sub(counts.late) + report.unlisted,
        duplicate: counts.duplicate.max(report.listed_twice),
        listed: report.listed,
        late: report.overdue as u64,
        delay: report.delay.percentiles().map(Into::into),
        open_gaps: upload.gaps.iter().map(gap).collect(),
    }
}

impl From<UploadState> for messages::UploadState {
    fn from(state: UploadState) -> messages::UploadState {
        match state {
            UploadState::Idle => messages::UploadState::Idle,
            UploadState::Connecting => messages::UploadState::Connecting,
            UploadState::Sending => messages::UploadState::Sending,
            UploadState::BackingOff => messages::UploadState::BackingOff,
            UploadState::Failed => messages::UploadState::Failed,
        }
    }
}

impl From<Verdict> for messages::Verdict {
    fn from(verdict: Verdict) -> messages::Verdict {
        match verdict {
            Verdict::Ok => messages::Verdict::Ok,
            Verdict::Late => messages::Verdict::Late,
            Verdict::Mismatch => messages::Verdict::Mismatch,
            Verdict::Unknown => messages::Verdict::Unknown,
        }
    }
}

/// What rates are made of.
#[derive(Clone, Copy)]
struct Counters {
    at: Instant,
    frames: u64,
    bytes: u64,
    dropped: u64,
    /// Decoded, looked at, skipped; absent where nothing is to be detected.
    seeing: Option<[u64; 3]>,
}

impl Counters {
    fn of(at: Instant, ingest: &IngestReport, seeing: Option<&SeeingView>) -> Self {
        let seeing = seeing.map(|seeing| {
            let decoded = seeing.report.borrow().decode.as_ref().map_or(0, |decode| decode.decoded);
            let figures = seeing.detector.figures(seeing.number);
            [decoded, figures.frames, figures.skipped + *seeing.left_out.borrow()]
        });
        Self { at, frames: ingest.frames, bytes: ingest.bytes, dropped: ingest.dropped_frames, seeing }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts within one interval")]
fn stats(ingest: &IngestReport, verify: &VerifyReport, before: Counters, now: Counters) -> Stats {
    let window_s = now.at.duration_since(before.at).as_secs_f64().max(0.001);
    let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / window_s;
    let format = ingest.format.as_ref();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive rate")]
    let bitrate_bps = (rate(now.bytes, before.bytes) * 8.0) as u64;
    let seeing = |n: usize| Some(rounded(rate(now.seeing?[n], before.seeing?[n])));
    Stats {
        v: Version::default(),
        ts: SystemTime::now().into(),
        window_s,
        fps: Fps {
            input: rate(now.frames, before.frames),
            dropped: rate(now.dropped, before.dropped),
            decoded: seeing(0),
            inferred: seeing(1),
            skipped: seeing(2),
        },
        bitrate_bps,
        gop_frames: ingest.gop_frames,
        gop_s: ingest.gop_ms.map(|ms| Duration::from_millis(ms).as_secs_f64()),
        codec: format.map(|format| format.rfc6381()),
        size: format.map(|format| [format.width, format.height]),
        audio_codec: ingest.audio.as_ref().map(|audio| audio.codec_id().to_owned()),
        transport: ingest.transport.map(str::to_owned),
        clock: ingest.clock.map(Into::into),
        clock_offset_ms: ingest.clock_offset_us.map(|us| us as f64 / 1000.0),
        lost_packets: ingest.lost_packets,
        dropped_frames: ingest.dropped_frames,
        reconnects_1h: ingest.reconnects.count(now.at),
        stalls_1h: ingest.stalls.count(now.at),
        latency: verify.latency.percentiles().map(Into::into),
        detect: None,
    }
}

/// Keeps since when each check fails.
#[derive(Default)]
struct Checks {
    failing: Vec<(String, Problem)>,
}

impl Checks {
    /// `found` by camera; what fails still has the time at which it began.
    fn update(&mut self, found: Vec<(String, Problem)>) -> Vec<Check> {
        let before = std::mem::take(&mut self.failing);
        self.failing = found
            .into_iter()
            .map(|(camera, problem)| {
                let same = before.iter().find(|(of, old)| (of, old.reason) == (&camera, problem.reason));
                let problem = problem.again(same.map(|(_, old)| old));
                (camera, problem)
            })
            .collect();
        let mut checks: Vec<_> = self.failing.iter().map(check).collect();
        checks.sort_by_key(|check| check.since);
        checks
    }
}

fn check((camera, problem): &(String, Problem)) -> Check {
    Check {
        code: problem.reason.to_string(),
        text: problem.to_string(),
        since: problem.since.into(),
        camera: Some(camera.clone()),
    }
}

fn failing(camera: &CameraView) -> Vec<(String, Problem)> {
    let mut found: Vec<_> = problem_of(camera).into_iter().collect();
    let skew_us = camera.ingest.borrow().clock_offset_us.filter(|us| us.abs() > CLOCK_NOTICE_US);
    if let Some(skew_us) = skew_us
        && found.iter().all(|problem| problem.reason != Reason::CameraClock)
    {
        let text = format!("the camera's clock is off by {} ms", skew_us / 1000);
        found.push(problem(Reason::CameraClock, text).fix("set NTP in the camera"));
    }
    found.into_iter().map(|problem| (camera.config.id.clone(), problem)).collect()
}
