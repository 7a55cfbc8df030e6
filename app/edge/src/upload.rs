//! Drives [`kvs::put_media::PutMedia`] of one camera over real connections.
//!
//! ```text
//!  idle --fragment--> connecting --accepted--> sending --planned end--> connecting (at once)
//!                       ^   ^                     |
//!                       |   +-- reconcile <-------+ error, refusal, silence
//!                       +------ backing off <-----+
//! ```
//!
//! One task, one `select!`: pictures are taken in whatever the network does, so a slow uplink fills the window
//! and never the camera's socket. After a broken connection the fragments in doubt are looked up first
//! (ListFragments, then their bytes) so that what did arrive is not sent twice.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use health::Backoff;
use kvs::ack::Reaction;
use kvs::api::StreamId;
use kvs::fragmenter::{FragmentSummary, Fragmenter, FragmenterConfig, Part};
use kvs::put_media::{Backlog, CloseReason, Event, Output, PutMedia, PutMediaConfig, Unconfirmed};
use kvs::{FragmentIds, FragmentNumber};
use kvs_client::{Action, Client, PutMediaInput, ServiceErrorKind, TimecodeType};
use media::ProducerTimestamp;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::readback;
use health::Recent;
use health::{Problem, Reason};
use media::Feed;

const FIRST_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
const HEALTHY: Duration = Duration::from_secs(60);
/// Between attempts that only an operator's change can make succeed.
const OPERATOR_DELAY: Duration = Duration::from_secs(30);
/// Between attempts after the service asked for less.
const SLOWER_DELAY: Duration = Duration::from_secs(2);
/// From a PutMedia request to its 200.
const ACCEPT_LIMIT: Duration = Duration::from_secs(15);
/// For the orderly end of a session that has nothing more to say.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// Between two looks for missing acks.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// After a sender failed, for what the service has to say about it.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Lost fragments that are no further apart are one gap; the shortest fragment lasts a second.
const ONE_GAP_MS: u64 = 500;
/// The loop looks at the clock at least this often.
const TICK: Duration = Duration::from_millis(500);
/// Gaps kept for the report; older ones are only counted.
const GAPS: usize = 32;

/// What the loopback hears of the upload. It must never hold the upload up: when its queue is full the news is
/// dropped and counted, and the fragment is not compared.
#[derive(Clone, Debug)]
pub enum News {
    /// The fragment begins; its bytes are on their way.
    Started(ProducerTimestamp),
    /// All bytes of the fragment are known.
    Complete(FragmentSummary),
    Persisted(FragmentSummary, Option<FragmentNumber>),
    /// It will never be there.
    Lost(ProducerTimestamp),
}

/// What PutMedia of one camera does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadState {
    /// No connection wanted: the camera delivers nothing.
    Idle,
    Connecting,
    /// Media flows.
    Sending,
    /// Waiting before the next attempt.
    BackingOff,
    /// Will not heal without somebody's action: see the problem.
    Failed,
}

/// Where one camera's upload stands; counters run since start.
#[derive(Clone, Debug)]
pub struct UploadReport {
    pub state: UploadState,
    pub since: SystemTime,
    pub problem: Option<Problem>,
    /// Fragments completed by the fragmenter.
    pub complete: u64,
    pub persisted: u64,
    pub lost: u64,
    pub sessions: u64,
    pub error_acks: u64,
    pub last_persisted: Option<(ProducerTimestamp, Option<FragmentNumber>)>,
    pub ack_delay: Option<Duration>,
    pub backlog: Backlog,
    /// End of the newest complete fragment, producer time.
    pub newest: Option<ProducerTimestamp>,
    pub gaps: VecDeque<Gap>,
    pub gaps_total: u64,
    pub reconnects: Recent,
    pub forced_cuts: u64,
    pub news_dropped: u64,
}

/// Producer time that is not in KVS.
#[derive(Clone, Debug, PartialEq)]
pub struct Gap {
    pub start: ProducerTimestamp,
    pub end: ProducerTimestamp,
    pub reason: Reason,
    pub noted: SystemTime,
}

impl Default for UploadReport {
    fn default() -> Self {
        Self {
            state: UploadState::Idle,
            since: SystemTime::now(),
            problem: None,
            complete: 0,
            persisted: 0,
            lost: 0,
            sessions: 0,
            error_acks: 0,
            last_persisted: None,
            ack_delay: None,
            backlog: Backlog::default(),
            newest: None,
            gaps: VecDeque::new(),
            gaps_total: 0,
            reconnects: Recent::hour(),
            forced_cuts: 0,
            news_dropped: 0,
        }
    }
}

/// Everything that one upload needs from outside.
pub struct Uploader {
    pub camera: config::Camera,
    pub device: String,
    /// Names of the fragments, which go on after a restart of the camera.
    pub ids: FragmentIds,
    pub client: Client,
    pub news: mpsc::Sender<News>,
    /// Who else wants to know under which number a fragment is kept; a full queue loses the number for an event.
    pub persisted: Option<mpsc::Sender<(FragmentSummary, FragmentNumber)>>,
    pub report: watch::Sender<UploadReport>,
    /// Moved forward by the loop as long as it turns.
    pub pulse: crate::watchdog::Pulse,
}

type Looking = Pin<Box<dyn Future<Output = Result<Looked, readback::ReadBackError>> + Send>>;
type Connecting = Pin<Box<dyn Future<Output = Result<Connected, ConnectError>> + Send>>;

#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error(transparent)]
    Client(#[from] kvs_client::Error),
    #[error(
        "the stream keeps nothing (retention 0 h): no fragment is ever persisted; set its data retention"
    )]
    NoRetention,
}

struct Looked {
    asked: Vec<u64>,
    found: Vec<(u64, FragmentNumber)>,
}

struct Connected {
    put_media: kvs_client::PutMedia,
    /// Fragments of the last session that turned out to be there.
    found: Vec<(u64, FragmentNumber)>,
}

impl Uploader {
    /// Uploads until the feed ends, then completes and flushes within `stop_grace`; gives the number of
    /// fragments that are then still unconfirmed. `abort` ends it at once.
    pub async fn run(self, mut feed: mpsc::Receiver<Feed>, abort: CancellationToken) -> usize {
        let mut running = Running::new(self);
        abort.run_until_cancelled(running.run(&mut feed)).await;
        running.this.pulse.rest();
        running.media.backlog().fragments
    }
}

struct Running {
    this: Uploader,
    fragmenter: Fragmenter,
    media: PutMedia,
    connecting: Option<Connecting>,
    connection: Option<kvs_client::PutMedia>,
    /// The last session, ending in order; the service refuses the next one while it lives.
    closing: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// A look for fragments whose ack is missing while the session goes on.
    looking: Option<Looking>,
    /// The last session took fragments and kept none: the next one looks at the stream's settings first.
    keeps_nothing: bool,
    look_again_at: Option<Instant>,
    /// Bytes that the machine gave out and the connection has not taken yet.
    pending: Option<Bytes>,
    backoff: Backoff,
    retry_at: Option<tokio::time::Instant>,
    stop_by: Option<tokio::time::Instant>,
}

/// What woke the loop.
enum Wake {
    Feed(Option<Feed>),
    Connected(Box<Result<Connected, ConnectError>>),
    Closed,
    Looked(Result<Looked, readback::ReadBackError>),
    Sent(Result<(), kvs_client::Error>),
    Ack(Result<Option<kvs::ack::Ack>, kvs_client::Error>),
    Time,
}

impl Running {
    fn new(this: Uploader) -> Self {
        let upload = &this.camera.upload;
        let fragmenter = Fragmenter::new(FragmenterConfig {
            fragment_ms: millis(upload.fragment),
            fragment_max_ms: millis(upload.fragment_max),
            ids: this.ids.clone(),
            device: this.device.clone(),
            camera: this.camera.id.clone(),
            writing_app: concat!("kvs-edge ", env!("CARGO_PKG_VERSION")).to_owned(),
            segment_uid: rand::random(),
        });
        let media = PutMedia::new(PutMediaConfig {
            window_bytes: usize::try_from(upload.window_bytes).unwrap_or(usize::MAX),
            rotate_after: upload.rotate,
            ack_timeout: upload.ack_timeout,
            ..PutMediaConfig::default()
        });
        Self {
            this,
            fragmenter,
            media,
            connecting: None,
            connection: None,
            closing: None,
            looking: None,
            keeps_nothing: false,
            look_again_at: None,
            pending: None,
            backoff: Backoff::new(FIRST_DELAY, LONGEST_DELAY, HEALTHY),
            retry_at: None,
            stop_by: None,
        }
    }

    async fn run(&mut self, feed: &mut mpsc::Receiver<Feed>) {
        loop {
            self.this.pulse.beat();
            if !self.advance() {
                return;
            }
            let deadline = self.deadline();
            let wake = {
                let (sender, acks) = match &mut self.connection {
                    Some(connection) => (Some(&mut connection.sender), Some(&mut connection.acks)),
                    None => (None, None),
                };
                let pending = self.pending.clone();
                let stopping = self.stop_by.is_some();
                let connected = sender.is_some();
                tokio::select! {
                    unit = feed.recv(), if !stopping => Wake::Feed(unit),
                    outcome = optional(&mut self.connecting), if self.connecting.is_some() => Wake::Connected(Box::new(outcome)),
                    () = optional(&mut self.closing), if self.closing.is_some() => Wake::Closed,
                    outcome = optional(&mut self.looking), if self.looking.is_some() => Wake::Looked(outcome),
                    outcome = send(sender, pending), if self.pending.is_some() => Wake::Sent(outcome),
                    outcome = next_ack(acks), if connected => Wake::Ack(outcome),
                    () = tokio::time::sleep_until(deadline) => Wake::Time,
                }
            };
            match wake {
                Wake::Feed(unit) => self.take(unit),
                Wake::Connected(outcome) => self.connected(*outcome),
                Wake::Closed => self.closing = None,
                Wake::Looked(outcome) => self.looked(outcome),
                Wake::Sent(Ok(())) => self.pending = None,
                // The acks half knows why; what it has to say is waited for, but not for ever.
                Wake::Sent(Err(error)) => self.sender_failed(error).await,
                Wake::Ack(Ok(Some(ack))) => self.media.ack(&ack, Instant::now()),
                Wake::Ack(Ok(None)) => self.ended_by_service(),
                Wake::Ack(Err(error)) => self.failed(&error),
                Wake::Time => {}
            }
        }
    }

    /// Does all that can be done without waiting; false once the upload is finished.
    fn advance(&mut self) -> bool {
        self.tell();
        let now = Instant::now();
        if self.connection.is_some() && self.pending.is_none() {
            match self.media.next_bytes(now) {
                Output::Send(bytes) => self.pending = Some(bytes),
                Output::Wait => {}
                Output::Close(reason) => self.close(&reason),
            }
        }
        let due = self.retry_at.is_none_or(|at| at <= tokio::time::Instant::now());
        self.look_for_doubtful(now);
        let free = self.connection.is_none() && self.connecting.is_none() && self.closing.is_none();
        if free && due && self.media.wants_session() {
            self.connect();
        }
        let finished = self.media.is_empty() && self.connection.is_none() && self.closing.is_none();
        self.stop_by.is_none_or(|stop_by| !finished && tokio::time::Instant::now() < stop_by)
    }

    /// One ack can be missing among others: ask for the fragment instead of waiting for the session to end.
    fn look_for_doubtful(&mut self, now: Instant) {
        if self.looking.is_some()
            || self.connection.is_none()
            || self.look_again_at.is_some_and(|at| at > now)
        {
            return;
        }
        let doubtful: Vec<_> =
            self.media.doubtful(now).into_iter().map(|doubt| Arc::new(doubt.summary)).collect();
        if doubtful.is_empty() {
            return;
        }
        self.look_again_at = Some(now + LOOK_EVERY);
        let (client, stream) = (self.this.client.clone(), StreamId::name(&self.this.camera.stream));
        self.looking = Some(Box::pin(async move {
            let found = readback::find_identical(&client, &stream, &doubtful).await?;
            Ok(Looked { asked: doubtful.iter().map(|summary| summary.id.sequence).collect(), found })
        }));
    }

    fn looked(&mut self, outcome: Result<Looked, readback::ReadBackError>) {
        self.looking = None;
        let camera = &self.this.camera.id;
        match outcome {
            Ok(Looked { asked, found }) => {
                tracing::info!(
                    camera,
                    acks_missing = asked.len(),
                    there = found.len(),
                    "looked for missing acks"
                );
                for (sequence, number) in &found {
                    self.media.confirm(*sequence, *number, Instant::now());
                }
                asked.into_iter().filter(|asked| found.iter().all(|(there, _)| there != asked)).for_each(
                    |sequence| {
                        self.media.not_there(sequence);
                    },
                );
            }
            // The acks may still come; a session without any is ended by the ack timeout.
            Err(error) => {
                tracing::warn!(
                    camera,
                    error = health::chain(&error),
                    "cannot ask for fragments without an ack"
                )
            }
        }
    }

    fn deadline(&self) -> tokio::time::Instant {
        let media = self.media.next_timeout().map(tokio::time::Instant::from_std);
        let mut deadline = tokio::time::Instant::now() + TICK;
        for at in [media, self.retry_at, self.stop_by].into_iter().flatten() {
            deadline = deadline.min(at.max(tokio::time::Instant::now() + Duration::from_millis(1)));
        }
        deadline
    }

    fn take(&mut self, unit: Option<Feed>) {
        match unit {
            Some(Feed::Video(unit)) => self.fragmenter.video(&unit),
            Some(Feed::Audio(frame)) => self.fragmenter.audio(frame),
            Some(Feed::AudioTrack(format)) => self.fragmenter.announce_audio(format),
            Some(Feed::Break) => self.fragmenter.finish(),
            Some(Feed::NewTimeline) => self.fragmenter.new_timeline(rand::random()),
            None => {
                self.fragmenter.finish();
                self.stop_by = Some(tokio::time::Instant::now() + self.this.camera.upload.stop_grace);
                self.retry_at = self.retry_at.map(|_| tokio::time::Instant::now());
            }
        }
        while let Some(part) = self.fragmenter.next_part() {
            match &part {
                Part::Start(start) => self.news(News::Started(start.timecode)),
                Part::End(end) => self.complete(&end.summary),
                Part::Block { .. } => {}
            }
            self.media.part(part);
        }
        if self.stop_by.is_some() {
            self.media.finish();
        }
    }

    fn complete(&mut self, summary: &FragmentSummary) {
        let end = summary.timecode.as_millis() + summary.duration_ms;
        let forced_cuts = self.fragmenter.stats().forced_cuts;
        self.this.report.send_modify(|report| {
            report.complete += 1;
            report.newest = Some(ProducerTimestamp::from_millis(end));
            report.forced_cuts = forced_cuts;
        });
        self.news(News::Complete(summary.clone()));
    }

    /// Hands the machine's events to the report, the log and the loopback.
    fn tell(&mut self) {
        while let Some(event) = self.media.next_event() {
            let camera = &self.this.camera.id;
            match event {
                Event::Persisted { summary, number, ack_delay } => {
                    self.backoff.up(Instant::now());
                    self.keeps_nothing = false;
                    self.this.report.send_modify(|report| {
                        report.persisted += 1;
                        report.last_persisted = Some((summary.timecode, number));
                        report.ack_delay = Some(ack_delay);
                        report.problem = None;
                    });
                    if let (Some(persisted), Some(number)) = (&self.this.persisted, number) {
                        let _ = persisted.try_send((summary.clone(), number));
                    }
                    self.news(News::Persisted(summary, number));
                }
                Event::Lost { sequence, timecode, end, bytes, reason } => {
                    tracing::error!(camera, fragment = sequence, at = %timecode, bytes, error = %reason, "footage lost");
                    self.lost(timecode, end, &reason);
                    self.news(News::Lost(timecode));
                }
                Event::Refused(error) => {
                    if error.needs_attention() {
                        tracing::warn!(camera, error = %error, "error ack");
                    } else {
                        tracing::info!(camera, error = %error, "the session ends");
                    }
                    self.this.report.send_modify(|report| report.error_acks += 1);
                }
                Event::StrayAck(ack) => tracing::warn!(camera, ?ack, "ack for nothing that we sent"),
            }
        }
        let backlog = self.media.backlog();
        self.this.report.send_if_modified(|report| {
            let changed = report.backlog != backlog;
            report.backlog = backlog;
            changed
        });
    }

    fn lost(&self, start: ProducerTimestamp, end: ProducerTimestamp, reason: &kvs::put_media::LossReason) {
        let (reason, text) = match reason {
            kvs::put_media::LossReason::WindowFull => (Reason::BacklogFull, reason.to_string()),
            kvs::put_media::LossReason::Refused(_) => (Reason::UploadFailed, reason.to_string()),
        };
        self.this.report.send_modify(|report| {
            report.lost += 1;
            // Why KVS could not be reached says more than that the window is full.
            if reason != Reason::BacklogFull || report.problem.is_none() {
                report.problem = Some(Problem::new(reason, text, SystemTime::now()));
            }
            // Lost fragments in a row are one gap.
            let follows =
                |gap: &Gap| gap.start <= start && start.as_millis() <= gap.end.as_millis() + ONE_GAP_MS;
            if let Some(gap) = report.gaps.back_mut().filter(|gap| gap.reason == reason && follows(gap)) {
                gap.end = gap.end.max(end);
                return;
            }
            report.gaps_total += 1;
            if report.gaps.len() == GAPS {
                report.gaps.pop_front();
            }
            report.gaps.push_back(Gap { start, end, reason, noted: SystemTime::now() });
        });
    }

    fn news(&self, news: News) {
        if self.this.news.try_send(news).is_err() {
            self.this.report.send_modify(|report| report.news_dropped += 1);
        }
    }

    fn connect(&mut self) {
        self.retry_at = None;
        self.set_state(UploadState::Connecting);
        let client = self.this.client.clone();
        let stream = StreamId::name(&self.this.camera.stream);
        let doubtful = self.media.unconfirmed();
        let camera = self.this.camera.id.clone();
        let write_timeout = Some(self.this.camera.upload.write_timeout);
        let connecting = connect(client, stream, doubtful, self.keeps_nothing, camera, write_timeout);
        self.connecting = Some(Box::pin(connecting));
    }

    fn connected(&mut self, outcome: Result<Connected, ConnectError>) {
        self.connecting = None;
        let now = Instant::now();
        match outcome {
            Ok(Connected { put_media, found }) => {
                for (sequence, number) in found {
                    self.media.confirm(sequence, number, now);
                }
                self.media.connected(now);
                self.connection = Some(put_media);
                self.this.report.send_modify(|report| report.sessions += 1);
                self.set_state(UploadState::Sending);
            }
            Err(ConnectError::Client(error)) => self.failed(&error),
            Err(error @ ConnectError::NoRetention) => {
                self.give_up(Reason::StreamSettings, error.to_string(), OPERATOR_DELAY);
            }
        }
    }

    /// The machine wants the connection closed.
    fn close(&mut self, reason: &CloseReason) {
        tracing::debug!(camera = self.this.camera.id, reason = %reason, "PutMedia ends");
        self.keeps_nothing |= matches!(reason, CloseReason::NotPersisted { .. });
        if reason.is_failure() {
            let operator =
                matches!(reason, CloseReason::Refused(error) if error.reaction() == Reaction::Stop);
            self.give_up(
                Reason::UploadFailed,
                reason.to_string(),
                if operator { OPERATOR_DELAY } else { Duration::ZERO },
            );
        } else {
            self.closing = self.connection.take().map(|connection| Box::pin(end_in_order(connection)) as _);
            self.drop_connection();
            if matches!(reason, CloseReason::Refused(_)) {
                // Whatever makes the service say so each time, it is not asked without end.
                self.retry_at = Some(tokio::time::Instant::now() + FIRST_DELAY);
            }
            self.set_state(UploadState::Idle);
        }
    }

    fn ended_by_service(&mut self) {
        if self.media.is_empty() {
            self.drop_connection();
            self.set_state(UploadState::Idle);
        } else if let Output::Close(reason) = self.media.next_bytes(Instant::now()) {
            self.close(&reason); // it told us why, by an error ack
        } else {
            self.give_up(
                Reason::UploadFailed,
                "KVS ended the session without a reason".to_owned(),
                Duration::ZERO,
            );
        }
    }

    async fn sender_failed(&mut self, error: kvs_client::Error) {
        self.pending = None;
        let Some(connection) = &mut self.connection else { return };
        let until = tokio::time::Instant::now() + LAST_WORDS;
        loop {
            match tokio::time::timeout_at(until, connection.acks.next_ack()).await {
                Ok(Ok(Some(ack))) => self.media.ack(&ack, Instant::now()),
                Ok(Ok(None)) => return self.ended_by_service(),
                Ok(Err(reason)) => return self.failed(&reason),
                Err(_) => return self.failed(&error),
            }
        }
    }

    fn failed(&mut self, error: &kvs_client::Error) {
        let least = match error.action() {
            Action::Stop => OPERATOR_DELAY,
            Action::RetrySlower => SLOWER_DELAY,
            _ => Duration::ZERO,
        };
        self.give_up(reason_of(error), health::chain(error), least);
    }

    /// Drops the connection and tries again later.
    fn give_up(&mut self, reason: Reason, detail: String, least: Duration) {
        self.drop_connection();
        let now = Instant::now();
        let mut delay = self.backoff.failed(now, rand::random()).max(least);
        if self.stop_by.is_some() {
            delay = delay.min(FIRST_DELAY);
        }
        tracing::warn!(
            camera = self.this.camera.id,
            stream = self.this.camera.stream,
            error = detail,
            retry_in_ms = delay.as_millis(),
            "upload interrupted"
        );
        self.retry_at = Some(tokio::time::Instant::now() + delay);
        self.this.report.send_modify(|report| {
            report.problem = Some(Problem::new(reason, detail, SystemTime::now()));
            report.reconnects.add(now);
        });
        self.set_state(if least >= OPERATOR_DELAY { UploadState::Failed } else { UploadState::BackingOff });
    }

    fn drop_connection(&mut self) {
        self.connection = None;
        self.connecting = None;
        self.looking = None; // connecting asks again, for all that is in doubt
        self.pending = None;
        self.media.disconnected();
    }

    fn set_state(&self, state: UploadState) {
        self.this.report.send_if_modified(|report| {
            let changed = report.state != state;
            if changed {
                report.state = state;
                report.since = SystemTime::now();
            }
            changed
        });
    }
}

/// Asks first what of the last session is there, then opens the next one.
async fn connect(
    client: Client,
    stream: StreamId,
    doubtful: Vec<Unconfirmed>,
    keeps_nothing: bool,
    camera: String,
    write_timeout: Option<Duration>,
) -> Result<Connected, ConnectError> {
    // Whoever may not describe the stream finds out nothing here, and goes on.
    if keeps_nothing
        && let Ok(info) = client.describe_stream(&stream).await
        && info.data_retention_in_hours == 0
    {
        return Err(ConnectError::NoRetention);
    }
    let found = if doubtful.is_empty() {
        Vec::new()
    } else {
        let summaries: Vec<_> = doubtful.into_iter().map(|doubt| Arc::new(doubt.summary)).collect();
        match readback::find_identical(&client, &stream, &summaries).await {
            Ok(found) => {
                tracing::info!(
                    camera,
                    in_doubt = summaries.len(),
                    there = found.len(),
                    "reconciled after a break"
                );
                found
            }
            Err(readback::ReadBackError::Client(error))
                if error.service_kind() == Some(&ServiceErrorKind::NoDataRetention) =>
            {
                return Err(ConnectError::NoRetention);
            }
            Err(error) => {
                // Sending again can make a duplicate, which the verifier names; not sending could make a gap.
                tracing::warn!(
                    camera,
                    error = health::chain(&error),
                    "cannot ask what arrived, sending all again"
                );
                Vec::new()
            }
        }
    };
    let start_ms = u64::try_from(
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis(),
    );
    let start_ms = start_ms.unwrap_or(u64::MAX);
    let input = PutMediaInput { stream, timecode_type: TimecodeType::Absolute, start_ms, write_timeout };
    let mut put_media = client.put_media(&input).await?;
    let accepted = tokio::time::timeout(ACCEPT_LIMIT, put_media.acks.accepted()).await;
    match accepted {
        Ok(outcome) => outcome?,
        // Some proxies hold the head back until the first ack; sending decides.
        Err(_) => tracing::debug!(camera, "no answer yet to PutMedia"),
    }
    Ok(Connected { put_media, found })
}

/// Ends the body and waits for the end of the answer, so that the service knows that this session is over.
async fn end_in_order(mut connection: kvs_client::PutMedia) {
    let end = async {
        connection.sender.finish().await?;
        while connection.acks.next_ack().await?.is_some() {}
        Ok::<_, kvs_client::Error>(())
    };
    if let Ok(Err(error)) = tokio::time::timeout(CLOSE_LIMIT, end).await {
        tracing::debug!(error = health::chain(&error), "PutMedia did not end in order");
    }
}

/// For a branch of `select!` that is switched off while there is no future.
pub(crate) async fn optional<T>(future: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn send(
    sender: Option<&mut kvs_client::PutMediaSender>,
    bytes: Option<Bytes>,
) -> Result<(), kvs_client::Error> {
    match (sender, bytes) {
        (Some(sender), Some(bytes)) => sender.send(bytes).await,
        _ => std::future::pending().await,
    }
}

async fn next_ack(
    acks: Option<&mut kvs_client::PutMediaAcks>,
) -> Result<Option<kvs::ack::Ack>, kvs_client::Error> {
    match acks {
        Some(acks) => acks.next_ack().await,
        None => std::future::pending().await,
    }
}

/// What dashboards call it.
pub fn reason_of(error: &kvs_client::Error) -> Reason {
    match error {
        kvs_client::Error::Credentials(_) => Reason::Credentials,
        kvs_client::Error::Timeout { .. } => Reason::Timeout,
        _ => match error.service_kind() {
            Some(
                ServiceErrorKind::NotAuthorized
                | ServiceErrorKind::AccessDenied
                | ServiceErrorKind::ExpiredToken
                | ServiceErrorKind::InvalidClientTokenId
                | ServiceErrorKind::InvalidSignature
                | ServiceErrorKind::IncompleteSignature
                | ServiceErrorKind::MissingAuthenticationToken,
            ) => Reason::Credentials,
            Some(ServiceErrorKind::ClockSkew) => Reason::ClockSkew,
            Some(ServiceErrorKind::ResourceNotFound) => Reason::StreamMissing,
            Some(ServiceErrorKind::NoDataRetention) => Reason::StreamSettings,
            Some(
                ServiceErrorKind::ClientLimitExceeded
                | ServiceErrorKind::ConnectionLimitExceeded
                | ServiceErrorKind::Throttling,
            ) => Reason::Throttled,
            _ => Reason::UploadFailed,
        },
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
