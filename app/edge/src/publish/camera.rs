//! Bodies about one camera.

use std::time::{Duration, Instant, SystemTime};

use health::{Problem, Reason, Samples};
use kvs::ledger::Times;
use messages::{
    CloudMetrics, Fps, Gap, Stats, Status, Upload, UtcTime, Verify, VerifyMethod, Version, rounded,
};

use crate::camera::{AnalyticsView, CameraView};
use crate::record::proof::{Looked, ProofReport, Way};
use crate::record::{UploadState, reason_of_loss};
use crate::status::{CameraStatus, backlog};
use kvs::proof::schedule::Verdict;
use rtsp::source::IngestReport;

/// The state of a camera as an operator means it, with the most telling reason.
pub(super) fn status(view: &CameraView, status: &CameraStatus, now: SystemTime) -> Status {
    let (reason, detail) = told(status.health.problem.as_ref());
    Status {
        v: Version::default(),
        ts: now.into(),
        state: status.health.state.into(),
        since: status.since.into(),
        reason,
        detail,
        attempts: status.attempts,
        last_frame: view.ingest.borrow().last_frame.map(UtcTime::from),
    }
}

/// A problem as it stands in a body: its name, and what was found with what to change.
fn told(problem: Option<&Problem>) -> (Option<Reason>, Option<String>) {
    problem.map(|problem| (problem.reason, problem.to_string())).unzip()
}

/// Gaps with their times in one body; `gaps_24h` counts all.
const LISTED_GAPS: usize = 32;
/// What a gap says of its cause is cut there: a body lists many.
const GAP_DETAIL_BYTES: usize = 256;
/// Gaps of so long ago are still listed.
const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) fn upload(view: &CameraView, now: Instant, wall: SystemTime) -> Upload {
    let (camera, report) = (&view.config, view.upload.borrow());
    let (reason, detail) = told(report.told());
    let recent = |gap: &&kvs::ledger::Gap| now.saturating_duration_since(gap.noted) < DAY;
    let (gaps, gaps_24h, run) = view.ledger.with(|ledger| {
        let newest: Vec<_> = ledger.gaps().rev().filter(recent).take(LISTED_GAPS).map(gap).collect();
        let run = ledger.records().next_back().map(|record| record.id.run.to_string());
        (newest.into_iter().rev().collect(), ledger.gaps_within(DAY, now), run)
    });
    Upload {
        v: Version::default(),
        ts: wall.into(),
        state: upload_state(report.state),
        since: report.since.into(),
        stream: camera.stream.clone(),
        run,
        reason,
        detail,
        last_persisted: report.last_persisted.map(|(at, _)| UtcTime::from_millis(at.as_millis())),
        last_fragment: report.last_persisted.and_then(|(_, number)| Some(number?.to_string())),
        ack_delay_ms: report.ack_delay.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
        backlog_s: backlog(&report).as_secs_f64(),
        backlog_bytes: report.backlog.bytes as u64,
        fragments_sent: report.complete,
        fragments_persisted: report.persisted,
        fragments_lost: report.lost,
        sessions: Some(report.sessions),
        error_acks: Some(report.error_acks),
        gaps_24h: u32::try_from(gaps_24h).unwrap_or(u32::MAX),
        gaps,
        proof: proof(view),
    }
}

/// The newest record of what is proven.
fn proof(view: &CameraView) -> Option<messages::Proof> {
    let records = view.records.borrow();
    let last = records.last.as_ref()?;
    let summary = &last.summary;
    Some(messages::Proof {
        minute: UtcTime::from_millis(summary.minute_ms),
        verdict: verdict(summary.verdict),
        why: summary.why.clone(),
        expected: summary.expected,
        persisted: summary.persisted,
        listed: summary.listed,
        verified: summary.verified,
        gaps: summary.gaps.len() as u64,
        head: format!("{}:{}", last.head.n, last.head.sum),
        on_disk: records.is_on_disk,
    })
}

fn played(report: &ProofReport) -> Option<messages::Played> {
    let played = report.played.as_ref()?;
    Some(messages::Played {
        at: played.wall.into(),
        picture: UtcTime::from_millis(played.at.as_millis()),
        fragment: played.number.map(|number| number.to_string()),
        way: match played.way {
            Way::GetMedia => messages::PlayedWay::GetMedia,
            Way::Hls => messages::PlayedWay::Hls,
        },
        result: match played.result {
            Ok(Looked::Decoded) => messages::PlayedResult::Decoded,
            Ok(Looked::Parsed) => messages::PlayedResult::Parsed,
            Err(_) => messages::PlayedResult::Failed,
        },
        detail: played.result.as_ref().err().cloned(),
        latency_ms: played.latency_ms,
    })
}

/// The alarm about what is proven of a camera.
pub(super) fn alarm(view: &CameraView, code: String, since: SystemTime, now: SystemTime) -> messages::Alarm {
    let report = view.verify.borrow();
    let text = report.problem.as_ref().map(|problem| problem.to_string());
    messages::Alarm {
        v: Version::default(),
        ts: now.into(),
        code,
        severity: match report.verdict {
            Verdict::Gap | Verdict::Mismatch => messages::AlarmSeverity::Critical,
            _ => messages::AlarmSeverity::Warning,
        },
        text: text.unwrap_or_else(|| "footage is not proven to be in KVS".to_owned()),
        since: since.into(),
        camera: Some(view.config.id.clone()),
    }
}

fn gap(gap: &kvs::ledger::Gap) -> Gap {
    let time = |at: media::ProducerTimestamp| UtcTime::from_millis(at.as_millis());
    let mut detail = match &gap.because {
        Some(because) => format!("{}: {because}", gap.reason),
        None => gap.reason.to_string(),
    };
    if detail.len() > GAP_DETAIL_BYTES {
        detail.truncate(detail.floor_char_boundary(GAP_DETAIL_BYTES));
    }
    Gap {
        start: time(gap.start),
        end: Some(time(gap.end)),
        reason: reason_of_loss(&gap.reason),
        detail: Some(detail),
    }
}

pub(super) fn verify(view: &CameraView, now: SystemTime) -> Verify {
    let (camera, report) = (&view.config, view.verify.borrow());
    let (reason, detail) = told(report.problem.as_ref());
    let counts = report.counts;
    Verify {
        v: Version::default(),
        ts: now.into(),
        verdict: verdict(report.verdict),
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
        compared: counts.identical + counts.corrupt,
        identical: counts.identical,
        corrupt: counts.corrupt,
        missing: counts.missing,
        duplicate: counts.duplicate,
        listed: counts.listed,
        misstated: counts.misstated,
        unproven: counts.unproven,
        late: report.overdue as u64,
        delay: report.delay.percentiles().map(Into::into),
        proof: proof(view),
        played: played(&report),
        open_gaps: view.ledger.with(|ledger| ledger.gaps().filter(|gap| !gap.closed).map(gap).collect()),
    }
}

fn upload_state(state: UploadState) -> messages::UploadState {
    match state {
        UploadState::Idle => messages::UploadState::Idle,
        UploadState::Connecting => messages::UploadState::Connecting,
        UploadState::Sending => messages::UploadState::Sending,
        UploadState::BackingOff => messages::UploadState::BackingOff,
        UploadState::Failed => messages::UploadState::Failed,
    }
}

fn verdict(verdict: Verdict) -> messages::Verdict {
    match verdict {
        Verdict::Ok => messages::Verdict::Ok,
        Verdict::Late => messages::Verdict::Late,
        Verdict::Gap => messages::Verdict::Gap,
        Verdict::Mismatch => messages::Verdict::Mismatch,
        Verdict::Unknown => messages::Verdict::Unknown,
    }
}

/// Fragments of which the newest figures are made.
const NEWEST: usize = 60;

/// The stream under the names of CloudWatch.
pub(super) fn cloud(view: &CameraView) -> CloudMetrics {
    let (upload, verify) = (view.upload.borrow(), view.verify.borrow());
    let took = |from: fn(&Times) -> Option<Instant>, to: fn(&Times) -> Option<Instant>| {
        let mut samples = Samples::new(NEWEST);
        view.ledger.with(|ledger| {
            for record in ledger.records().rev().take(NEWEST) {
                let times = &record.times;
                if let (Some(from), Some(to)) = (from(times), to(times)) {
                    samples.add(to.saturating_duration_since(from).as_secs_f64() * 1000.0);
                }
            }
        });
        samples.percentiles().map(Into::into)
    };
    let opened = upload.sessions + upload.failures;
    #[expect(clippy::cast_precision_loss, reason = "a share of a few connections")]
    let success = (opened > 0).then(|| rounded(upload.sessions as f64 / opened as f64));
    CloudMetrics {
        incoming_bytes: upload.persisted_bytes,
        incoming_fragments: upload.persisted,
        incoming_frames: upload.persisted_frames,
        active_connections: u64::from(upload.state == UploadState::Sending),
        connection_errors: upload.failures,
        error_acks: upload.error_acks,
        success,
        buffering_ack: took(|times| Some(times.begun), |times| times.buffering),
        received_ack: took(|times| times.sent, |times| times.received),
        persisted_ack: took(|times| times.sent, |times| times.persisted),
        ingestion: took(|times| Some(times.begun), |times| times.received),
        persist: took(|times| times.complete, |times| times.persisted),
        outgoing_bytes: verify.read_bytes,
        outgoing_fragments: verify.read_fragments,
        millis_behind_now: verify.behind_ms,
    }
}

/// What rates are made of.
#[derive(Clone, Copy)]
pub(super) struct Counters {
    at: Instant,
    frames: u64,
    bytes: u64,
    dropped: u64,
    /// Decoded, looked at, skipped; absent where nothing is to be detected.
    analytics: Option<[u64; 3]>,
}

impl Counters {
    pub(super) fn of(at: Instant, ingest: &IngestReport, analytics: Option<&AnalyticsView>) -> Self {
        let analytics = analytics.map(|analytics| {
            let decoded = analytics.report.borrow().decode.as_ref().map_or(0, |decode| decode.decoded);
            let figures = analytics.figures.figures();
            [decoded, figures.frames, figures.skipped + *analytics.left_out.borrow()]
        });
        Self { at, frames: ingest.frames, bytes: ingest.bytes, dropped: ingest.dropped_frames, analytics }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts within one interval")]
pub(super) fn stats(
    ingest: &IngestReport,
    verify: &ProofReport,
    before: Counters,
    now: Counters,
    wall: SystemTime,
) -> Stats {
    let window_s = now.at.duration_since(before.at).as_secs_f64().max(0.001);
    let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / window_s;
    let format = ingest.format.as_ref();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive rate")]
    let bitrate_bps = (rate(now.bytes, before.bytes) * 8.0) as u64;
    let analytics = |n: usize| Some(rounded(rate(now.analytics?[n], before.analytics?[n])));
    Stats {
        v: Version::default(),
        ts: wall.into(),
        window_s,
        fps: Fps {
            input: rate(now.frames, before.frames),
            dropped: rate(now.dropped, before.dropped),
            decoded: analytics(0),
            inferred: analytics(1),
            skipped: analytics(2),
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
        clock_drift_ppm: ingest.clock_drift_ppm,
        frames: Some(ingest.frames),
        lost_packets: ingest.lost_packets,
        dropped_frames: ingest.dropped_frames,
        reconnects_1h: ingest.reconnects.count(now.at),
        stalls_1h: ingest.stalls.count(now.at),
        latency: verify.latency.percentiles().map(Into::into),
        latency_samples: Some(verify.latency.total()),
        cloud: None,
        detect: None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::UNIX_EPOCH;

    use kvs::ledger::LossReason;
    use kvs::{FragmentId, RunId};
    use media::ProducerTimestamp;
    use rtsp::source::IngestState;
    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::record::{SharedLedger, UploadReport};
    use crate::status::{BoxStatus, Judge};

    /// A camera with these reports.
    fn view(ingest: watch::Receiver<IngestReport>, upload: UploadReport, verify: ProofReport) -> CameraView {
        CameraView {
            config: Arc::new(config::Camera::new("cam", "rtsp://192.0.2.10/".parse().expect("a URL"))),
            ingest,
            upload: watch::channel(upload).1,
            ledger: SharedLedger::default(),
            orders: Default::default(),
            verify: watch::channel(verify).1,
            records: watch::channel(Default::default()).1,
            analytics: None,
        }
    }

    /// The state is judged four times a second, and published whenever it is due.
    #[tokio::test(start_paused = true)]
    async fn a_camera_that_fails_between_two_looks_is_not_online_with_a_failed_attempt() {
        let clock = clock::Clock::simulated(UNIX_EPOCH);
        let ingest = watch::Sender::new(IngestReport::new(UNIX_EPOCH));
        let view = view(ingest.subscribe(), UploadReport::new(UNIX_EPOCH), ProofReport::new(UNIX_EPOCH));
        ingest.send_modify(|report| report.state = IngestState::Live);
        let (_cameras, cameras) = watch::channel(Arc::new(vec![view.clone()]));
        let (_wall, wall_clock) = watch::channel(Default::default());
        let judge = Judge::new(cameras, None, wall_clock, clock, CancellationToken::new());
        let (status_in, mut judged) = watch::channel(Arc::default());
        let judging = tokio::spawn(judge.run(status_in));
        let body = |judged: &Arc<BoxStatus>| {
            let body = status(&view, &judged.cameras[0], UNIX_EPOCH);
            (body.state, body.attempts)
        };
        let before = judged.wait_for(|status| !status.cameras.is_empty()).await.expect("it judges").clone();
        assert_eq!(body(&before), (messages::CameraState::Online, 0));
        ingest.send_modify(|report| (report.state, report.attempts) = (IngestState::BackingOff, 1));
        assert_eq!(body(&before), (messages::CameraState::Online, 0), "both as of one look");
        judged.changed().await.expect("it judges");
        assert_eq!(body(&judged.borrow()), (messages::CameraState::Offline, 1));
        judging.abort();
    }

    #[test]
    fn what_upload_and_proof_report_is_published_with_reason_finding_and_fix() {
        let at = ProducerTimestamp::from_millis;
        let mut recorded = UploadReport::new(UNIX_EPOCH);
        let problem = Problem::new(Reason::StreamMissing, "no stream `cam`", UNIX_EPOCH);
        recorded.problem = Some(problem.fix("create it"));
        (recorded.state, recorded.sessions, recorded.error_acks) = (UploadState::Failed, 3, 2);
        (recorded.complete, recorded.persisted, recorded.lost) = (9, 6, 1);
        recorded.backlog.bytes = 70_000;
        (recorded.backlog.oldest, recorded.newest) = (Some(at(10_000)), Some(at(16_500)));
        let mut proven = ProofReport::new(UNIX_EPOCH);
        let found = "fragment 7 read back with another sha256";
        proven.problem = Some(Problem::new(Reason::VerifyMismatch, found, UNIX_EPOCH));
        (proven.verdict, proven.overdue) = (Verdict::Mismatch, 4);
        (proven.counts.identical, proven.counts.corrupt, proven.counts.missing) = (5, 1, 2);
        (proven.counts.listed, proven.counts.duplicate, proven.counts.unproven) = (8, 3, 7);
        let view = view(watch::channel(IngestReport::new(UNIX_EPOCH)).1, recorded, proven);

        let body = upload(&view, clock::Clock::system().now(), UNIX_EPOCH);
        assert_eq!((body.state, body.reason), (messages::UploadState::Failed, Some(Reason::StreamMissing)));
        assert_eq!(body.detail.as_deref(), Some("no stream `cam`; create it"));
        assert_eq!((body.fragments_sent, body.fragments_persisted, body.fragments_lost), (9, 6, 1));
        assert_eq!((body.backlog_bytes, body.sessions, body.error_acks), (70_000, Some(3), Some(2)));
        assert!((body.backlog_s - 6.5).abs() < 1e-9, "{body:?}");

        let body = verify(&view, UNIX_EPOCH);
        assert_eq!((body.verdict, body.reason), (messages::Verdict::Mismatch, Some(Reason::VerifyMismatch)));
        assert_eq!((body.detail.as_deref(), body.method), (Some(found), VerifyMethod::Sampled));
        assert_eq!((body.identical, body.corrupt, body.missing, body.compared), (5, 1, 2, 6));
        assert_eq!((body.listed, body.duplicate, body.unproven, body.late), (8, 3, 7, 4));
    }

    #[test]
    fn the_newest_record_is_told_and_an_alarm_says_what_is_wrong() {
        let mut proven = ProofReport::new(UNIX_EPOCH);
        let found = "footage from 5 to 9 is not in KVS";
        (proven.verdict, proven.read_fragments, proven.read_bytes) = (Verdict::Gap, 4, 4000);
        proven.problem = Some(Problem::new(Reason::BacklogFull, found, UNIX_EPOCH));
        proven.played = Some(crate::record::proof::Played {
            at: ProducerTimestamp::from_millis(7000),
            number: None,
            way: Way::Hls,
            latency_ms: 900,
            result: Err("no picture".to_owned()),
            wall: UNIX_EPOCH,
        });
        let mut uploaded = UploadReport::new(UNIX_EPOCH);
        (uploaded.persisted, uploaded.persisted_bytes, uploaded.persisted_frames) = (6, 6000, 300);
        (uploaded.sessions, uploaded.failures, uploaded.state) = (3, 1, UploadState::Sending);
        let mut view = view(watch::channel(IngestReport::new(UNIX_EPOCH)).1, uploaded, proven);
        assert_eq!(
            upload(&view, clock::Clock::system().now(), UNIX_EPOCH).proof,
            None,
            "nothing is written down"
        );
        let summary = kvs::proof::records::Summary {
            minute_ms: 60_000,
            minutes: 1,
            verdict: Verdict::Gap,
            why: Some("no room".to_owned()),
            expected: 30,
            persisted: 28,
            listed: 27,
            verified: 1,
            bytes: 5,
            footage: String::new(),
            gaps: Vec::new(),
            ack_ms: None,
            persist_ms: None,
            read_ms: None,
            played: None,
        };
        let head = kvs::proof::records::Head { n: 18, sum: kvs::identity::Sha256Sum([0xab; 32]) };
        let last = Some(crate::record::records::LastRecord { summary, head, at: UNIX_EPOCH });
        let records = crate::record::records::RecordReport { last, is_on_disk: true, ..Default::default() };
        view.records = watch::channel(records).1;
        let body = verify(&view, UNIX_EPOCH);
        let told = body.proof.expect("it is told");
        assert_eq!(
            (told.verdict, told.minute.as_millis(), told.on_disk),
            (messages::Verdict::Gap, 60_000, true)
        );
        assert_eq!((told.expected, told.persisted, told.listed, told.verified), (30, 28, 27, 1));
        assert_eq!(told.head, format!("18:{}", "ab".repeat(32)));
        let played = body.played.expect("it is told");
        assert_eq!((played.result, played.way), (messages::PlayedResult::Failed, messages::PlayedWay::Hls));
        assert_eq!((played.detail.as_deref(), played.latency_ms), (Some("no picture"), 900));
        let alarm = alarm(&view, "proof-cam".to_owned(), UNIX_EPOCH, UNIX_EPOCH);
        assert_eq!((alarm.severity, alarm.text.as_str()), (messages::AlarmSeverity::Critical, found));
        let figures = cloud(&view);
        assert_eq!(
            (figures.incoming_fragments, figures.incoming_bytes, figures.incoming_frames),
            (6, 6000, 300)
        );
        assert_eq!((figures.active_connections, figures.success), (1, Some(0.75)));
        assert_eq!((figures.outgoing_fragments, figures.outgoing_bytes), (4, 4000));
    }

    #[test]
    fn gaps_are_counted_beyond_those_that_are_listed_and_closed_ones_are_not_open() {
        let now = clock::Clock::system().now();
        let ingest = watch::channel(IngestReport::new(UNIX_EPOCH)).1;
        let view = view(ingest, UploadReport::new(UNIX_EPOCH), ProofReport::new(UNIX_EPOCH));
        let fragment = |sequence| {
            let id = FragmentId { run: RunId::new(7), sequence };
            (id, ProducerTimestamp::from_millis(sequence * 10_000))
        };
        view.ledger.with(|ledger| {
            for (id, at) in (1..=50).map(fragment) {
                ledger.begin(id, at, now);
                let because = if id.sequence == 49 { &*"ü".repeat(900) } else { "connection refused" };
                ledger.lost_because(id, at, LossReason::WindowFull, Some(because), now);
            }
        });
        let body = upload(&view, now, UNIX_EPOCH);
        assert_eq!((body.gaps_24h, body.gaps.len()), (50, LISTED_GAPS));
        let newest = body.gaps.last().expect("some are listed");
        assert_eq!(newest.start.as_millis(), 500_000);
        let detail = "the memory window was full while KVS could not be reached: connection refused";
        assert_eq!(newest.detail.as_deref(), Some(detail));
        let long = body.gaps[LISTED_GAPS - 2].detail.as_deref().expect("it is told");
        assert_eq!(long.len(), GAP_DETAIL_BYTES - 1, "cut between characters: {long}");
        assert_eq!(verify(&view, UNIX_EPOCH).open_gaps.len(), 50);
        view.ledger.with(|ledger| {
            let (id, at) = fragment(51);
            ledger.begin(id, at, now);
            ledger.persisted(id, None, now);
        });
        assert_eq!(verify(&view, UNIX_EPOCH).open_gaps, [], "footage behind them is kept");
        let later = now + DAY + Duration::from_secs(1);
        let body = upload(&view, later, UNIX_EPOCH);
        assert_eq!((body.gaps_24h, body.gaps.len()), (0, 0), "a day later");
    }
}
