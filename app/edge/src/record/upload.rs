//! Moves the bytes of one camera's upload: [`kvs::upload::Driver`] decides, this does.
//!
//! ```text
//!  Feed --> fragmenter --parts--> driver --actions--> open, send, look up, close
//!                                   ^                      |
//!                              |    +----- what came of it-+
//!                              +-requests, answers-> spool on disk
//! ```
//!
//! With a spool the driver's source keeps what is finished on disk: its requests go to the thread of the spool, and what that
//! answers comes back as any other event.
//!
//! One task, one `select!`: pictures are taken in whatever the network does, so a slow uplink fills the window and never the
//! camera's socket. The task sleeps until something happens or the driver's next deadline comes.

use std::collections::BTreeSet;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clock::Clock;
use futures_util::FutureExt as _;
use health::Backoff;
use kvs::api::StreamId;
use kvs::fragmenter::{FragmentSummary, Fragmenter, FragmenterConfig, Part};
use kvs::ledger::LossReason;
use kvs::upload::{
    Action, Answer as SpoolAnswer, Driver, Event, FragmentSource as _, LookedUp, Loss, News, Rates, Request,
    Settled, SpoolSource, UploadConfig,
};
use kvs::{FragmentId, FragmentIds};
use kvs_client::{Client, Error, PutMedia, PutMediaAcks, PutMediaInput, PutMediaSender, TimecodeType};
use media::{Feed, UnitSource};
use store::{CameraSpool, Spool};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::SharedLedger;
use super::failure::failure_of;
use super::lookup::look_up;
use super::orders::Orders;
use super::report::UploadReport;
use crate::camera::Ending;
use crate::fault::{self, Stage};
use crate::watchdog::Pulse;

/// The pulse beats at least this often, although nothing happens.
const PULSE: Duration = Duration::from_secs(2);
/// For the orderly end of a session; the driver gives up at the same time.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// Of what is on disk, so much stays in memory at a time: a few fragments, so that an outage costs no memory. A fragment that
/// grows, or that the disk does not take, stays whatever it has.
const AT_HAND_BYTES: usize = 4 << 20;
/// How long an end waits until the last fragments are on disk.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// Everything that one upload needs from outside.
#[derive(Clone)]
pub struct Uploader {
    pub camera: Arc<config::Camera>,
    pub device: String,
    /// Names of the fragments, which go on after a restart.
    pub ids: FragmentIds,
    pub client: Client,
    pub clock: Clock,
    pub ledger: SharedLedger,
    pub report: watch::Sender<UploadReport>,
    /// Moved forward by the loop as long as it turns.
    pub pulse: Pulse,
    /// Absent: footage waits in memory only.
    pub spool: Option<Spool>,
    /// What is to be uploaded where not everything is.
    pub orders: Orders,
}

impl Uploader {
    /// Uploads until the feed ends, again after each crash, then completes and flushes within `stop_grace`; `abort` ends it
    /// at once. What is not confirmed at an end, and not on disk, is a gap in the ledger from then on. Returns how many
    /// fragments that are.
    pub async fn supervise(self, feed: impl UnitSource + 'static, ending: Ending) -> usize {
        let feed = Arc::new(Mutex::new(feed));
        let mut stored = BTreeSet::new();
        let mut backoff =
            Backoff::new(Duration::from_secs(1), Duration::from_secs(60), Duration::from_secs(60));
        loop {
            backoff.up(self.clock.now());
            let (uploader, feed, abort) = (self.clone(), feed.clone(), ending.abort.clone());
            let mut task = JoinSet::new();
            task.spawn(async move { uploader.run(&mut *feed.lock().await, abort).await });
            match task.join_next().await {
                Some(Err(crash)) => {
                    let lost = self.crashed();
                    let delay = backoff.failed(self.clock.now(), rand::random());
                    tracing::error!(camera = self.camera.id, error = %crash, lost, "the upload crashed, restarting it");
                    self.rest(delay, &ending).await;
                }
                Some(Ok(on_disk)) => {
                    stored = on_disk;
                    break;
                }
                None => break,
            }
        }
        if !stored.is_empty() {
            let (camera, fragments) = (&self.camera.id, stored.len());
            tracing::info!(camera, fragments, "these wait on disk for the next start");
        }
        let unconfirmed = self.abandon(|id| stored.contains(&id), &LossReason::Stopped);
        self.pulse.rest();
        unconfirmed
    }

    /// Returns what is not confirmed and on disk.
    async fn run(&self, feed: &mut impl UnitSource, abort: CancellationToken) -> BTreeSet<FragmentId> {
        let mut running = Running::new(self);
        let ended = abort.run_until_cancelled(AssertUnwindSafe(running.run(feed)).catch_unwind()).await;
        if let Some(Err(panic)) = ended {
            // What was finished is still there, whatever the panic left half done: the next life finds it on disk.
            running.pass_on(self.clock.now());
            running.driver.source_mut().try_again();
            running.last_writes().await;
            std::panic::resume_unwind(panic);
        }
        running.last_writes().await;
        let source = running.driver.source();
        let unsettled =
            self.ledger.with(|ledger| ledger.unsettled().map(|record| record.id).collect::<Vec<_>>());
        unsettled.into_iter().filter(|id| source.is_stored(*id)).collect()
    }

    /// The upload is no more, and what it held in memory is lost. What of it is on disk the next one finds there: it tells
    /// what is lost.
    fn crashed(&self) -> usize {
        let lost = match self.spool {
            Some(_) => 0,
            None => self.abandon(|_| false, &LossReason::Crashed),
        };
        let wall = self.clock.wall();
        self.report.send_modify(|report| {
            report.crashes += 1;
            report.lose(&LossReason::Crashed, None, wall);
            report.enter(kvs::upload::UploadState::BackingOff, wall);
        });
        lost
    }

    /// What the upload held is lost, but for what is kept.
    fn abandon(&self, kept: impl Fn(FragmentId) -> bool, reason: &LossReason) -> usize {
        let now = self.clock.now();
        let lost = self.ledger.with(|ledger| ledger.abandon_but(kept, reason, now));
        self.report.send_modify(|report| {
            self.ledger.with(|ledger| report.count(ledger));
            report.backlog = kvs::upload::Backlog::default();
        });
        lost
    }

    /// Waiting is a sign of life too.
    async fn rest(&self, delay: Duration, ending: &Ending) {
        let until = self.clock.now() + delay;
        while self.clock.now() < until {
            self.pulse.beat();
            let next = until.min(self.clock.now() + PULSE);
            if ending.stop.run_until_cancelled(self.clock.sleep_until(next)).await.is_none() {
                return;
            }
        }
    }
}

struct Running<'a> {
    uploader: &'a Uploader,
    stream: StreamId,
    fragmenter: Fragmenter,
    driver: Driver,
    connection: Option<Connection>,
    /// Bytes that the driver gave out and the connection has not taken.
    pending: Option<Bytes>,
    opening: Job<Result<PutMedia, Error>>,
    looking: Job<LookedUp>,
    closing: Job<()>,
    spool: Option<CameraSpool>,
    stopping: bool,
}

/// Something under way beside the loop.
type Job<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

struct Connection {
    put_media: PutMedia,
    accepted: bool,
    sender_failed: bool,
    /// Its answer is over.
    ended: bool,
}

/// What woke the loop.
enum Wake {
    Feed(Option<Feed>),
    Opened(Box<Result<PutMedia, Error>>),
    LookedUp(LookedUp),
    Closed,
    Sent(Result<(), Error>),
    Answer(Result<Answer, Error>),
    Spool(SpoolAnswer),
    Orders,
    Time,
}

enum Answer {
    Accepted,
    Ack(kvs::ack::Ack),
    Over,
}

impl<'a> Running<'a> {
    fn new(uploader: &'a Uploader) -> Self {
        let upload = &uploader.camera.upload;
        let fragmenter = Fragmenter::new(FragmenterConfig {
            fragment_ms: millis(upload.fragment),
            fragment_max_ms: millis(upload.fragment_max),
            ids: uploader.ids.clone(),
            device: uploader.device.clone(),
            camera: uploader.camera.id.clone(),
            writing_app: concat!("kvs-edge ", env!("CARGO_PKG_VERSION")).to_owned(),
            segment_uid: rand::random(),
        });
        let window_bytes = usize::try_from(upload.window_bytes).unwrap_or(usize::MAX);
        let at_hand = window_bytes.min(AT_HAND_BYTES);
        let source = match &uploader.spool {
            Some(_) if upload.mode != config::UploadMode::Continuous => SpoolSource::selective(at_hand),
            Some(_) => SpoolSource::with_spool(at_hand),
            None => SpoolSource::in_memory(),
        };
        let config = UploadConfig {
            window_bytes,
            rotate_after: upload.rotate,
            ack_timeout: upload.ack_timeout,
            write_timeout: upload.write_timeout,
            stop_grace: upload.stop_grace,
            close_limit: CLOSE_LIMIT,
            uplink_bits: upload.uplink_max_kbps.map(|kbps| kbps.get() * 1000),
            ..UploadConfig::default()
        };
        Self {
            uploader,
            stream: StreamId::name(&uploader.camera.stream),
            fragmenter,
            driver: Driver::with_source(config, source),
            spool: uploader.spool.as_ref().map(|spool| spool.camera(&uploader.camera.id)),
            connection: None,
            pending: None,
            opening: None,
            looking: None,
            closing: None,
            stopping: false,
        }
    }

    async fn run(&mut self, feed: &mut impl UnitSource) {
        // Set again only when it is too late: waking early costs a poll, setting it for each picture costs more.
        let mut alarm = std::pin::pin!(tokio::time::sleep(PULSE));
        loop {
            self.uploader.pulse.beat();
            self.keep_quiet();
            self.act();
            // What comes from disk may be sent at once.
            while self.ask_spool() {
                self.act();
            }
            if self.driver.is_over() {
                return;
            }
            let mut wake_at = self.uploader.clock.now() + PULSE;
            if let Some(deadline) = self.driver.next_deadline() {
                wake_at = wake_at.min(deadline);
            }
            if alarm.is_elapsed() || wake_at < alarm.deadline().into_std() {
                alarm.as_mut().reset(wake_at.into());
            }
            let wake = {
                let (sending, listening) = match &mut self.connection {
                    Some(Connection { put_media, accepted, sender_failed, ended }) => {
                        let bytes = self.pending.clone().filter(|_| !*sender_failed);
                        let sending = bytes.map(|bytes| (&mut put_media.sender, bytes));
                        (sending, (!*ended).then_some((&mut put_media.acks, *accepted)))
                    }
                    None => (None, None),
                };
                tokio::select! {
                    unit = feed.next(), if !self.stopping => Wake::Feed(unit),
                    outcome = send(sending) => Wake::Sent(outcome),
                    outcome = listen(listening) => Wake::Answer(outcome),
                    outcome = finish(&mut self.opening) => Wake::Opened(Box::new(outcome)),
                    outcome = finish(&mut self.looking) => Wake::LookedUp(outcome),
                    () = finish(&mut self.closing) => Wake::Closed,
                    answer = next_answer(&mut self.spool) => Wake::Spool(answer),
                    () = self.uploader.orders.told() => Wake::Orders,
                    () = &mut alarm => Wake::Time,
                }
            };
            self.woken(wake);
        }
    }

    /// Whether this is a time of day at which nothing is uploaded.
    fn keep_quiet(&mut self) {
        if let Some(hours) = &self.uploader.camera.upload.quiet_hours {
            self.driver.pause(hours.contain(self.uploader.clock.wall_ms()));
        }
    }

    fn woken(&mut self, wake: Wake) {
        let now = self.uploader.clock.now();
        match wake {
            Wake::Feed(unit) => self.take(unit, now),
            Wake::Opened(outcome) => {
                self.opening = None;
                let put_media = match *outcome {
                    Ok(put_media) => put_media,
                    Err(error) => {
                        return self
                            .driver
                            .not_opened(failure_of(&error, &self.uploader.client, &self.stream), now);
                    }
                };
                let (accepted, sender_failed, ended) = (false, false, false);
                self.connection = Some(Connection { put_media, accepted, sender_failed, ended });
                self.driver.opened(now);
            }
            Wake::LookedUp(outcome) => {
                self.looking = None;
                self.driver.looked_up(outcome, now);
            }
            Wake::Closed => {
                self.closing = None;
                self.driver.closed();
            }
            Wake::Sent(Ok(())) => {
                self.pending = None;
                self.driver.taken(now);
            }
            // The answer says why; what it has to say is waited for, but not for ever.
            Wake::Sent(Err(error)) => {
                self.pending = None;
                self.connection.iter_mut().for_each(|connection| connection.sender_failed = true);
                self.driver.sender_failed(failure_of(&error, &self.uploader.client, &self.stream), now);
            }
            Wake::Answer(Ok(Answer::Accepted)) => {
                self.connection.iter_mut().for_each(|connection| connection.accepted = true);
                self.driver.accepted(now);
            }
            Wake::Answer(Ok(Answer::Ack(ack))) => self.driver.ack(&ack, now),
            Wake::Answer(Ok(Answer::Over)) => self.ended(Ok(()), now),
            Wake::Answer(Err(error)) => self.ended(Err(&error), now),
            Wake::Spool(answer) => {
                self.driver.source_mut().answer(answer);
                // Before the driver acts: what an earlier life may have sent is asked for, and not sent.
                self.take_all_news();
            }
            Wake::Orders => {
                for (from, to) in self.uploader.orders.take() {
                    self.driver.source_mut().want(from, to);
                }
            }
            Wake::Time => self.driver.source_mut().try_again(),
        }
    }

    /// Asks the spool what the source wants, and takes what has come. True if something did: the driver may go on.
    fn ask_spool(&mut self) -> bool {
        let Some(spool) = &mut self.spool else { return false };
        let mut came = false;
        loop {
            let source = self.driver.source_mut();
            while let Some(request) = source.next_request() {
                let read = if let Request::Read(id) = &request { Some(*id) } else { None };
                if !spool.ask(request) {
                    // The disk is far behind: asked for again when something has happened.
                    read.into_iter().for_each(|id| source.not_taken(id));
                    break;
                }
            }
            let Some(answer) = spool.try_next() else { break };
            source.answer(answer);
            came = true;
        }
        self.take_all_news() || came
    }

    /// True if there was something.
    fn take_all_news(&mut self) -> bool {
        let news = self.driver.source_mut().take_news();
        let some = !news.is_empty();
        news.into_iter().for_each(|news| self.take_news(news));
        some
    }

    fn take_news(&mut self, news: News) {
        let (now, own) = (self.uploader.clock.now(), self.uploader.ids.run());
        let ledger = &self.uploader.ledger;
        match news {
            News::Recalled { fragments, doubtful } => {
                let source = self.driver.source();
                // What was not wanted so far was never begun in the ledger.
                let counted = !source.is_selective();
                let ends =
                    fragments.iter().filter_map(|id| source.get(*id)?.end.map(|end| end.summary.clone()));
                ledger.with(|ledger| {
                    for summary in ends {
                        let id = summary.id;
                        ledger.recall(summary, counted && id.run == own, now);
                        ledger.interrupted(id);
                    }
                    if doubtful {
                        // What the upload before this one held in memory.
                        ledger.abandon_but(|id| source.get(id).is_some(), &LossReason::Crashed, now);
                    }
                });
                if doubtful {
                    if !fragments.is_empty() {
                        let (camera, count) = (&self.uploader.camera.id, fragments.len());
                        let behind = source.all().0 - count.min(source.all().0);
                        tracing::info!(
                            camera,
                            fragments = count,
                            behind,
                            "footage waits on disk from before"
                        );
                    }
                    self.driver.doubt_of_earlier(&fragments, true, now);
                } else {
                    let earlier: Vec<_> = fragments.into_iter().filter(|id| id.run != own).collect();
                    self.driver.doubt_of_earlier(&earlier, false, now);
                }
            }
            News::Stamped { exact, estimated } => {
                let camera = &self.uploader.camera.id;
                tracing::info!(
                    camera,
                    exact,
                    estimated,
                    "footage from before the clock was set has its time now"
                );
            }
            News::Hidden(id) => ledger.with(|ledger| ledger.shelve(id)),
            News::Unreadable(id) => {
                self.driver.give_up(id, LossReason::SpoolDamaged);
                self.settle(id, Settled::Refused);
            }
            News::Dropped(dropped) if self.driver.source().get(dropped.id).is_some() => {
                self.driver.give_up(dropped.id, LossReason::SpoolFull);
            }
            News::Dropped(dropped) => {
                let (id, start, end) = (dropped.id, dropped.start, dropped.end);
                let reason = LossReason::SpoolFull;
                ledger.with(|ledger| {
                    ledger.lost_on_disk((id, start), end, id.run == own, reason.clone(), now);
                });
                let bytes = usize::try_from(dropped.bytes).unwrap_or(usize::MAX);
                self.tell(Event::Lost(Loss { id, start, end, bytes, reason, because: None }), now);
            }
        }
    }

    fn settle(&self, id: FragmentId, settled: Settled) {
        if let Some(spool) = &self.spool {
            spool.ask(Request::Settle(id, settled));
        }
    }

    /// What is finished is on disk before the end, if that takes it.
    async fn last_writes(&mut self) {
        let clock = self.uploader.clock.clone();
        let until = clock.now() + LAST_WRITES;
        loop {
            self.ask_spool();
            if !self.driver.source().is_writing() {
                return;
            }
            tokio::select! {
                answer = next_answer(&mut self.spool) => self.driver.source_mut().answer(answer),
                () = clock.sleep_until(until) => return,
            }
        }
    }

    fn ended(&mut self, outcome: Result<(), &Error>, now: Instant) {
        self.connection.iter_mut().for_each(|connection| connection.ended = true);
        let outcome = outcome.map_err(|error| failure_of(error, &self.uploader.client, &self.stream));
        self.driver.ended(outcome, now);
    }

    fn take(&mut self, unit: Option<Feed>, now: Instant) {
        match unit {
            Some(Feed::Video(unit)) => self.fragmenter.video(&unit),
            Some(Feed::Audio(frame)) => self.fragmenter.audio(frame),
            Some(Feed::AudioTrack(format)) => self.fragmenter.announce_audio(format),
            Some(Feed::Break) => self.fragmenter.finish(),
            Some(Feed::NewTimeline) => self.fragmenter.new_timeline(rand::random()),
            None => {
                self.fragmenter.finish();
                self.stopping = true;
            }
        }
        self.pass_on(now);
        if self.stopping {
            self.driver.finish(now);
        }
    }

    /// What the fragmenter made, to the ledger and the driver.
    fn pass_on(&mut self, now: Instant) {
        while let Some(part) = self.fragmenter.next_part() {
            match &part {
                Part::Start(start) if !self.driver.source().is_selective() => {
                    self.uploader.ledger.with(|ledger| ledger.begin(start.id, start.timecode, now));
                }
                Part::End(end) => self.complete(&end.summary, now),
                Part::Start(_) | Part::Block { .. } => {}
            }
            let is_end = matches!(part, Part::End(_));
            self.driver.part(part);
            if is_end {
                fault::panic_point(Stage::Upload, &self.uploader.camera.id);
            }
        }
    }

    fn complete(&self, summary: &FragmentSummary, now: Instant) {
        if !self.driver.source().is_selective() {
            self.uploader.ledger.with(|ledger| ledger.complete(summary.clone(), now));
        }
        let forced_cuts = self.fragmenter.stats().forced_cuts;
        self.uploader.report.send_modify(|report| {
            report.complete += u64::from(!self.driver.source().is_selective());
            report.newest = Some(summary.end());
            report.forced_cuts = report.forced_cuts.max(forced_cuts);
            report.backlog = self.driver.backlog();
        });
    }

    /// Does all that the driver wants, and tells what happened.
    fn act(&mut self) {
        let now = self.uploader.clock.now();
        if let Some(connection) = &self.connection {
            let (written, at) = connection.put_media.sender.written();
            self.driver.socket(written, at);
        }
        while let Some(action) = self.driver.poll(now, rand::random()) {
            self.execute(action);
        }
        let mut told = false;
        while let Some(event) = self.driver.next_event() {
            self.uploader.ledger.with(|ledger| event.note(ledger, now));
            match &event {
                Event::Persisted { summary, number, .. } => {
                    self.settle(summary.id, Settled::Persisted(*number))
                }
                Event::FoundAfterLoss { id, number } => self.settle(*id, Settled::Persisted(Some(*number))),
                Event::Lost(Loss { id, reason: LossReason::Refused(_), .. }) => {
                    self.settle(*id, Settled::Refused)
                }
                _ => {}
            }
            self.tell(event, now);
            told = true;
        }
        let state = self.driver.state();
        if told || self.uploader.report.borrow().state != state {
            let wall = self.uploader.clock.wall();
            self.uploader.report.send_modify(|report| {
                self.uploader.ledger.with(|ledger| report.count(ledger));
                report.enter(state, wall);
                report.in_doubt(self.driver.parked(), wall);
                report.backlog = self.driver.backlog();
            });
        }
    }

    fn execute(&mut self, action: Action) {
        let (client, stream, clock) =
            (self.uploader.client.clone(), self.stream.clone(), self.uploader.clock.clone());
        match action {
            Action::Reconcile { fragments, retention } => {
                self.looking =
                    Some(Box::pin(
                        async move { look_up(&client, &stream, &clock, &fragments, retention).await },
                    ));
            }
            Action::LookUp { fragments } => {
                self.looking =
                    Some(Box::pin(async move { look_up(&client, &stream, &clock, &fragments, false).await }));
            }
            Action::Open => {
                let start_ms = self.uploader.clock.wall_ms();
                let (timecode_type, write_timeout) =
                    (TimecodeType::Absolute, Some(self.uploader.camera.upload.write_timeout));
                self.opening = Some(Box::pin(async move {
                    let input = PutMediaInput { stream, timecode_type, start_ms, write_timeout };
                    client.put_media(&input).await
                }));
            }
            Action::Send(bytes) => self.send(bytes),
            Action::CloseInOrder => {
                self.looking = None;
                let connection = self.connection.take();
                self.closing = connection.map(|connection| Box::pin(end_in_order(connection.put_media)) as _);
            }
            Action::Drop => {
                (self.opening, self.looking, self.closing) = (None, None, None);
                (self.connection, self.pending) = (None, None);
            }
        }
    }

    /// Hands over at once what there is a place for.
    fn send(&mut self, bytes: Bytes) {
        let now = self.uploader.clock.now();
        let Some(connection) = self.connection.as_mut().filter(|connection| !connection.sender_failed) else {
            return;
        };
        match connection.put_media.sender.try_send(bytes) {
            Ok(None) => self.driver.taken(now),
            Ok(waits) => self.pending = waits,
            Err(error) => {
                connection.sender_failed = true;
                self.driver.sender_failed(failure_of(&error, &self.uploader.client, &self.stream), now);
            }
        }
    }

    /// Into the report and the log.
    fn tell(&self, event: Event, now: Instant) {
        let (camera, wall) = (&self.uploader.camera.id, self.uploader.clock.wall());
        let report = |change: &mut dyn FnMut(&mut UploadReport)| self.uploader.report.send_modify(change);
        match event {
            Event::SessionBegun => report(&mut |report| report.sessions += 1),
            Event::SessionEnded(reason) => tracing::debug!(camera, %reason, "PutMedia ends"),
            Event::Persisted { summary, number, ack_delay } => {
                report(&mut |report| {
                    report.persisted_bytes += summary.cluster_bytes;
                    report.persisted_frames += u64::from(summary.blocks);
                    report.last_persisted = Some((summary.timecode, number));
                    report.ack_delay = Some(ack_delay);
                    report.problem = None;
                });
            }
            Event::FoundAfterLoss { id, number } => {
                tracing::info!(camera, fragment = %id, %number, "found after it was given up");
            }
            Event::Lost(Loss { id, start, bytes, reason, because, .. }) => {
                let because = because.as_deref();
                tracing::error!(camera, fragment = %id, at = %start, bytes, error = %reason, because, "footage lost");
                report(&mut |report| report.lose(&reason, because, wall));
            }
            Event::Refused(error) => {
                if error.needs_attention() {
                    tracing::warn!(camera, %error, "error ack");
                } else {
                    tracing::info!(camera, %error, "the session ends");
                }
                report(&mut |report| report.error_acks += 1);
            }
            Event::StrayAck(ack) => tracing::warn!(camera, ?ack, "ack for nothing that we sent"),
            Event::UnknownAck(name) => tracing::warn!(camera, name, "ack of an unknown kind, ignored"),
            Event::LookedUp { asked, found, unknown } => {
                tracing::info!(camera, asked, found, unknown, "looked for fragments without an ack");
            }
            Event::CouldNotAsk(failure) => {
                tracing::warn!(camera, error = failure.text, "cannot ask what is in KVS");
            }
            Event::Pace(rates) => {
                let found = rates.map(|Rates { carried, recorded }| {
                    let (carried, recorded) = (carried / 1000, recorded / 1000);
                    format!(
                        "the uplink carries {carried} kbit/s of {recorded} kbit/s that the camera delivers"
                    )
                });
                match &found {
                    Some(found) => tracing::warn!(camera, error = found, "the uplink is too slow"),
                    None => tracing::info!(camera, "the uplink carries what the camera delivers again"),
                }
                report(&mut |report| report.slow_link(found.clone(), wall));
            }
            Event::Failed { failure, retry_in } => {
                let (stream, retry_in_ms) = (&self.uploader.camera.stream, millis(retry_in));
                tracing::warn!(camera, stream, error = failure.text, retry_in_ms, "upload interrupted");
                report(&mut |report| {
                    report.failures += 1;
                    report.fail(&failure, wall);
                    report.reconnects.add(now);
                });
            }
            Event::Sending(_)
            | Event::Sent(_)
            | Event::Buffering(_)
            | Event::Received { .. }
            | Event::Interrupted(_) => {}
        }
    }
}

/// Ends the body and waits for the end of the answer, so that the service knows that this session is over.
async fn end_in_order(connection: PutMedia) {
    let PutMedia { sender, mut acks } = connection;
    let end = async {
        sender.finish().await?;
        while acks.next_ack().await?.is_some() {}
        Ok::<_, Error>(())
    };
    if let Ok(Err(error)) = tokio::time::timeout(CLOSE_LIMIT, end).await {
        tracing::debug!(error = health::chain(&error), "PutMedia did not end in order");
    }
}

/// For a branch of `select!` that sleeps while there is nothing under way.
async fn finish<T>(job: &mut Job<T>) -> T {
    match job {
        Some(job) => job.await,
        None => std::future::pending().await,
    }
}

async fn next_answer(spool: &mut Option<CameraSpool>) -> SpoolAnswer {
    match spool {
        Some(spool) => spool.next().await,
        None => std::future::pending().await,
    }
}

async fn send(sending: Option<(&mut PutMediaSender, Bytes)>) -> Result<(), Error> {
    match sending {
        Some((sender, bytes)) => sender.send(bytes).await,
        None => std::future::pending().await,
    }
}

async fn listen(listening: Option<(&mut PutMediaAcks, bool)>) -> Result<Answer, Error> {
    match listening {
        Some((acks, false)) => acks.accepted().await.map(|()| Answer::Accepted),
        Some((acks, true)) => Ok(acks.next_ack().await?.map_or(Answer::Over, Answer::Ack)),
        None => std::future::pending().await,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
