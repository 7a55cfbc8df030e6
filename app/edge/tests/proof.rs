//! The proof of one camera against a KVS in memory, on paused time: what the archive does wrong is found, and whatever
//! happens to the proof, the upload goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use health::Reason;
use kvs::ack::AckEvent;
use kvs::api::{StreamId, path};
use kvs::fragmenter::{Fragmenter, FragmenterConfig, Part};
use kvs::ledger::LedgerLimits;
use kvs::proof::schedule::{ProofConfig, ProofMode, Verdict};
use kvs::{FragmentIds, RunId};
use kvs_client::{
    Client, Clock, Config, PutMediaInput, PutMediaSender, SharedDialler, TimecodeType, static_credentials,
};
use kvs_edge::record::SharedLedger;
use kvs_edge::record::proof::{Looked, Proof, ProofReport, Way, supervise};
use kvs_local::{Connector, Fault, FaultKind, KvsLocal, Options};
use media::{AccessUnit, ProducerTimestamp, VideoCodec, VideoFormat};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// 2026-11-20T15:08:34Z.
const BEGIN_MS: u64 = 1_795_187_314_000;
const BUFFER_BYTES: usize = 64 * 1024;
const S: Duration = Duration::from_secs(1);
const STUCK: Duration = Duration::from_secs(60);

fn mode(mode: ProofMode) -> ProofConfig {
    ProofConfig { mode, ..ProofConfig::default() }
}

fn plain_dialler(connector: Connector) -> SharedDialler {
    SharedDialler::from_fn(move |_, _| std::future::ready(connector.connect(BUFFER_BYTES)))
}

struct Rig {
    server: KvsLocal,
    clock: Clock,
    ledger: SharedLedger,
    report: watch::Receiver<ProofReport>,
    upload_ended: CancellationToken,
    proof: JoinHandle<()>,
    camera: Camera,
    _data: tempfile::TempDir,
}

/// What is left of a rig.
struct Stopped {
    server: KvsLocal,
    _data: tempfile::TempDir,
}

/// Makes fragments of a second and uploads them; acks go into the ledger.
struct Camera {
    fragmenter: Fragmenter,
    format: Arc<VideoFormat>,
    pictures: u64,
    clock: Clock,
    ledger: SharedLedger,
    sender: Option<PutMediaSender>,
    acks: JoinHandle<()>,
    has_header: bool,
    /// Real pictures, five to a random access point; without them they are noise.
    clip: Vec<AccessUnit>,
}

impl Camera {
    async fn start(client: &Client, clock: &Clock, ledger: &SharedLedger) -> Self {
        let input = PutMediaInput {
            stream: StreamId::name("cam1"),
            timecode_type: TimecodeType::Absolute,
            start_ms: clock.wall_ms(),
            write_timeout: None,
        };
        let mut put_media = client.put_media(&input).await.expect("accepted");
        put_media.acks.accepted().await.expect("accepted");
        let (acked, time) = (ledger.clone(), clock.clone());
        let acks = tokio::spawn(async move {
            while let Ok(Some(ack)) = put_media.acks.next_ack().await {
                let timecode_ms = ack.timecode_ms.and_then(|ms| u64::try_from(ms).ok()).unwrap_or_default();
                acked.with(|ledger| {
                    let Some(id) = ledger.at(timecode_ms).map(|record| record.id) else { return };
                    match ack.event {
                        AckEvent::Buffering => ledger.buffering(id, time.now()),
                        AckEvent::Received => ledger.received(id, ack.number, time.now()),
                        AckEvent::Persisted => ledger.persisted(id, ack.number, time.now()),
                        _ => {}
                    }
                });
            }
        });
        let fragmenter = Fragmenter::new(FragmenterConfig {
            fragment_ms: 1000,
            fragment_max_ms: 4000,
            ids: FragmentIds::new(RunId::new(7)),
            device: "box".to_owned(),
            camera: "cam".to_owned(),
            writing_app: "kvs-edge test".to_owned(),
            segment_uid: [7; 16],
        });
        let codec_private = Bytes::from_static(b"\x01\x42\xc0\x1e\xff\xe1\x00\x00\x01\x00\x00");
        let format =
            VideoFormat { codec: VideoCodec::H264, codec_private, width: 640, height: 480, frame_rate: None };
        Self {
            fragmenter,
            format: Arc::new(format),
            pictures: 0,
            clock: clock.clone(),
            ledger: ledger.clone(),
            sender: Some(put_media.sender),
            acks,
            has_header: false,
            clip: Vec::new(),
        }
    }

    /// Uploads for `seconds`, a fragment each.
    async fn film(&mut self, seconds: u64) {
        for n in 0..seconds * 5 {
            self.picture(n % 5 == 0, S / 5).await;
        }
    }

    /// Uploads fragments of one picture, two seconds apart.
    async fn film_slowly(&mut self, fragments: u64) {
        for _ in 0..fragments {
            self.picture(true, S * 2).await;
        }
    }

    async fn picture(&mut self, random_access: bool, behind: Duration) {
        let n = self.pictures;
        self.pictures += 1;
        let mut data = format!("\0\0\x04\0{n:014}").into_bytes();
        data.resize(4 + 1024, b'x');
        let timestamp = ProducerTimestamp::from_millis(self.clock.wall_ms());
        let (mut data, mut format) = (Bytes::from(data), self.format.clone());
        let mut random_access = random_access;
        if !self.clip.is_empty() {
            let unit = &self.clip[usize::try_from(n).expect("few") % self.clip.len()];
            (data, format, random_access) = (unit.data.clone(), unit.format.clone(), unit.random_access);
        }
        self.fragmenter.video(&AccessUnit { data, timestamp, random_access, format });
        self.send().await;
        self.clock.sleep(behind).await;
    }

    async fn send(&mut self) {
        while let Some(part) = self.fragmenter.next_part() {
            let now = self.clock.now();
            let mut pieces = Vec::new();
            match part {
                Part::Start(start) => {
                    self.ledger.with(|ledger| {
                        ledger.begin(start.id, start.timecode, now);
                        ledger.sending(start.id);
                    });
                    if !std::mem::replace(&mut self.has_header, true) {
                        pieces.push(start.header.bytes.clone());
                    }
                    pieces.push(start.head);
                }
                Part::Block { head, payload } => pieces.extend([head, payload]),
                Part::End(end) => {
                    self.ledger.with(|ledger| ledger.complete(end.summary, now));
                    pieces.push(end.tag);
                }
            }
            for piece in pieces {
                self.sender.as_mut().expect("not finished").send(piece).await.expect("KVS takes it");
            }
        }
    }

    /// The last fragment is complete, and its ack is there.
    async fn finish(&mut self) {
        self.fragmenter.finish();
        self.send().await;
        self.sender.take().expect("finished once").finish().await.expect("KVS takes it");
        (&mut self.acks).await.expect("the acks are read to their end");
    }
}

impl Rig {
    async fn start(config: ProofConfig) -> Self {
        Self::with(config, |_| {}, plain_dialler, STUCK).await
    }

    /// Each ten minutes a fragment is played, by this way.
    async fn playing(config: ProofConfig, way: Way) -> Self {
        Self::all(config, Some((S * 600, way)), |_| {}, plain_dialler, STUCK).await
    }

    /// `dialler`: what the proof dials with.
    async fn with(
        config: ProofConfig,
        change: impl FnOnce(&mut Options),
        dialler: impl FnOnce(Connector) -> SharedDialler,
        stuck_after: Duration,
    ) -> Self {
        Self::all(config, None, change, dialler, stuck_after).await
    }

    async fn all(
        config: ProofConfig,
        play: Option<(Duration, Way)>,
        change: impl FnOnce(&mut Options),
        dialler: impl FnOnce(Connector) -> SharedDialler,
        stuck_after: Duration,
    ) -> Self {
        let data = tempfile::tempdir().expect("a folder");
        let mut options = Options::new(data.path()).stream("cam1", 24);
        let clock = Clock::simulated(UNIX_EPOCH + Duration::from_millis(BEGIN_MS));
        options.clock = clock.clone();
        change(&mut options);
        let server = KvsLocal::start_in_memory(options).await.expect("starts");
        let client = |dialler: SharedDialler| {
            let mut config =
                Config::new("us-west-2", static_credentials("AKIDKVSLOCAL", "kvs-local-secret", None));
            config.endpoints.control = Some(server.endpoint().parse().expect("an endpoint"));
            (config.clock, config.dialler) = (clock.clone(), dialler);
            Client::new(config).expect("a client")
        };
        let ledger = SharedLedger::new(LedgerLimits::default());
        let (report, view) = watch::channel(ProofReport::new(clock.wall()));
        let upload_ended = CancellationToken::new();
        let proof = Proof {
            camera: "cam".to_owned(),
            stream: StreamId::name("cam1"),
            config,
            play,
            decode: true,
            stop_grace: S * 10,
            client: client(dialler(server.connector())),
            clock: clock.clone(),
            ledger: ledger.clone(),
            report,
            upload_ended: upload_ended.clone(),
        };
        let camera = Camera::start(&client(plain_dialler(server.connector())), &clock, &ledger).await;
        let proof = tokio::spawn(supervise(proof, stuck_after, CancellationToken::new()));
        Self { server, clock, ledger, report: view, upload_ended, proof, camera, _data: data }
    }

    fn inject(&self, kind: FaultKind) {
        self.server.faults().inject(Fault::on("cam1", kind));
    }

    fn refuse(&self, path: &str, error_type: &str, count: u64) {
        let (path, error_type) = (path.to_owned(), error_type.to_owned());
        self.inject(FaultKind::Refuse { path, error_type, status: 400, count });
    }

    /// Waits for a report; paused time passes meanwhile.
    async fn wait(&mut self, what: &str, is_it: impl Fn(&ProofReport) -> bool) -> ProofReport {
        let waited = tokio::time::timeout(S * 3 * 3600, self.report.wait_for(|report| is_it(report))).await;
        let waited = waited.map(|report| report.expect("somebody reports").clone());
        waited.unwrap_or_else(|_| panic!("{what}: {:#?}", self.report.borrow()))
    }

    /// The upload ends, then the proof; the last report.
    async fn stop(mut self) -> (ProofReport, Stopped) {
        self.camera.finish().await;
        self.upload_ended.cancel();
        self.proof.await.expect("it ends in order");
        let report = self.report.borrow().clone();
        (report, Stopped { server: self.server, _data: self._data })
    }

    fn calls(&self, path: &str) -> u64 {
        self.server.calls().iter().find(|(called, _)| **called == path).map_or(0, |(_, count)| *count)
    }

    async fn numbers(&self) -> Vec<String> {
        let stored = self.server.fragments("cam1").await.expect("they can be read");
        stored.into_iter().map(|fragment| fragment.number).collect()
    }
}

#[track_caller]
fn expect_all(report: &ProofReport, fragments: u64) {
    let counts = report.counts;
    assert_eq!(
        (report.verdict, counts.persisted, counts.listed, counts.identical),
        (Verdict::Ok, fragments, fragments, fragments),
        "{report:#?}"
    );
    assert_eq!(
        (counts.missing, counts.corrupt, counts.misstated, counts.duplicate),
        (0, 0, 0, 0),
        "{report:#?}"
    );
    assert_eq!((report.overdue, &report.problem), (0, &None), "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn everything_is_read_back_live_and_listed() {
    let mut rig = Rig::start(mode(ProofMode::Continuous)).await;
    rig.camera.film(30).await;
    let (report, stopped) = rig.stop().await;
    expect_all(&report, 30);
    assert_eq!((report.readers, report.failures), (1, 0));
    assert!(report.latency.percentiles().is_some() && report.delay.percentiles().is_some());
    assert_eq!(
        stopped.server.connections("cam1").expect("it is there").fragment_list_ever,
        0,
        "nothing was late"
    );
}

#[tokio::test(start_paused = true)]
async fn samples_are_read_back_and_everything_is_listed() {
    let mut rig = Rig::start(mode(ProofMode::Sampled)).await;
    rig.camera.film(200).await;
    let (report, stopped) = rig.stop().await;
    let counts = report.counts;
    assert_eq!((report.verdict, counts.listed, counts.identical), (Verdict::Ok, 200, 4), "{report:#?}");
    assert_eq!(stopped.server.calls().get(path::GET_MEDIA), None, "sampling needs no lasting connection");
    assert!(stopped.server.calls()[path::LIST_FRAGMENTS] <= 6, "{:?}", stopped.server.calls());
}

#[tokio::test(start_paused = true)]
async fn the_reader_resumes_rotates_and_skips_what_it_cannot_read() {
    let cases: [(&str, Option<FaultKind>); 6] = [
        ("cut", Some(FaultKind::CutGetMedia { after_bytes: 20_000 })),
        ("ended", None),
        ("skipped", Some(FaultKind::SkipChunk { count: 1 })),
        ("twice", Some(FaultKind::DuplicateChunk { count: 1 })),
        ("expired credentials", Some(refusal(path::GET_MEDIA, "ExpiredTokenException"))),
        ("a token that is none any more", Some(refusal(path::GET_MEDIA, "InvalidArgumentException"))),
    ];
    for (name, fault) in cases {
        let mut rig = Rig::start(mode(ProofMode::Continuous)).await;
        rig.camera.film(10).await;
        fault.into_iter().for_each(|fault| rig.inject(fault));
        if !matches!(name, "skipped" | "twice") {
            rig.server.end_get_media("cam1").expect("it is there");
        }
        rig.camera.film(60).await;
        assert!(rig.server.faults().waiting().is_empty(), "{name}");
        let (report, _) = rig.stop().await;
        println!("{name}");
        expect_all(&report, 70);
        assert_eq!(report.readers > 1, !matches!(name, "skipped" | "twice"), "{name}");
    }
}

fn refusal(path: &str, error_type: &str) -> FaultKind {
    FaultKind::Refuse { path: path.to_owned(), error_type: error_type.to_owned(), status: 400, count: 1 }
}

#[tokio::test(start_paused = true)]
async fn a_reader_is_renewed_before_the_service_ends_it() {
    let mut rig = Rig::with(
        mode(ProofMode::Continuous),
        |options| options.limits.put_media_age = S * 7200,
        plain_dialler,
        STUCK,
    )
    .await;
    rig.camera.film_slowly(19 * 60 + 15).await;
    let (report, _) = rig.stop().await;
    expect_all(&report, 19 * 60 + 15);
    assert_eq!((report.readers, report.failures), (2, 0), "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_answer_is_told_and_the_store_proves_it_right() {
    let mut rig = Rig::start(mode(ProofMode::Continuous)).await;
    rig.camera.film(5).await;
    rig.inject(FaultKind::CorruptChunk { count: 1 });
    let mut reports = rig.report.clone();
    let told = tokio::spawn(async move {
        reports.wait_for(|report| report.verdict == Verdict::Mismatch).await.expect("it is told").clone()
    });
    rig.camera.film(10).await;
    let told = told.await.expect("it is told");
    let problem = told.problem.expect("it is said what is wrong");
    assert_eq!(problem.reason, Reason::VerifyMismatch);
    assert!(problem.found.contains("sha256"), "{problem}");
    let (report, _) = rig.stop().await;
    expect_all(&report, 15);
    assert_eq!(report.counts.healed, 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_from_the_store_is_found_in_both_modes() {
    for by in [ProofMode::Sampled, ProofMode::Continuous] {
        let mut rig = Rig::start(mode(by)).await;
        rig.camera.film(5).await;
        let numbers = rig.numbers().await;
        rig.server.delete_fragment("cam1", &numbers[1]).await.expect("it is there");
        rig.camera.film(100).await;
        let report = rig.wait("gone", |report| report.counts.missing == 1).await;
        assert_eq!(report.verdict, Verdict::Mismatch, "{report:#?}");
        let problem = report.problem.expect("it is said what is wrong");
        assert!(problem.found.contains("not to be found"), "{problem}");
        let (report, _) = rig.stop().await;
        assert_eq!((report.verdict, report.counts.missing), (Verdict::Mismatch, 1), "{report:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sample_finds_what_is_damaged_in_the_store() {
    // Between two pictures, when each fragment is damaged already: any of them may be the sample.
    let config = ProofConfig { first_look: S * 10 + S / 2, ..mode(ProofMode::Sampled) };
    let mut rig = Rig::start(config).await;
    rig.camera.film(2).await;
    for number in rig.numbers().await {
        rig.server.corrupt_fragment("cam1", &number).await.expect("it is there");
    }
    for _ in 0..13 {
        // The picture that begins a fragment ends the one before.
        rig.camera.picture(true, S / 5).await;
        let newest = rig.numbers().await.pop().expect("there are some");
        rig.server.corrupt_fragment("cam1", &newest).await.expect("it is there");
        for _ in 0..4 {
            rig.camera.picture(false, S / 5).await;
        }
    }
    let report = rig.report.borrow().clone();
    assert_eq!((report.verdict, report.counts.corrupt), (Verdict::Mismatch, 1), "{report:#?}");
    assert!(report.problem.is_some_and(|problem| problem.found.contains("sha256")));
    let (report, _) = rig.stop().await;
    assert_eq!(report.verdict, Verdict::Mismatch, "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_list_that_lags_blames_nobody() {
    let lags = |options: &mut Options| options.list_lag = S * 20;
    for by in [ProofMode::Sampled, ProofMode::Continuous] {
        let mut rig = Rig::with(mode(by), lags, plain_dialler, STUCK).await;
        rig.camera.film(150).await;
        let counts = rig.report.borrow().counts;
        assert!(counts.listed > 60, "{counts:#?}");
        let (report, _) = rig.stop().await;
        let counts = report.counts;
        assert_eq!((report.verdict, counts.missing, counts.healed), (Verdict::Ok, 0, 0), "{report:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_denied_read_back_is_its_own_problem_and_is_not_asked_for_without_end() {
    let mut rig = Rig::start(mode(ProofMode::Continuous)).await;
    rig.refuse(path::GET_MEDIA, "AccessDeniedException", 1000);
    rig.camera.film(600).await;
    let tries = rig.calls(path::GET_MEDIA);
    assert!((2..=6).contains(&tries), "each two minutes: {tries}");
    let report = rig.report.borrow().clone();
    let problem = report.problem.clone().expect("it is told");
    assert_eq!((problem.reason, report.needs_somebody), (Reason::VerifyFailed, true), "{problem}");
    assert!(problem.to_string().contains("kinesisvideo:GetMedia on"), "{problem}");
    assert!(report.counts.identical > 500, "what is late is read by its number: {report:#?}");
    rig.server.faults().clear();
    rig.camera.film(130).await;
    let report = rig.wait("healed", |report| report.problem.is_none()).await;
    assert!(!report.needs_somebody);
    expect_all(&rig.stop().await.0, 730);
}

#[tokio::test(start_paused = true)]
async fn readers_that_others_hold_are_waited_for() {
    let mut rig = Rig::start(mode(ProofMode::Continuous)).await;
    rig.refuse(path::GET_MEDIA, "ConnectionLimitExceededException", 3);
    rig.camera.film(300).await;
    let tries = rig.calls(path::GET_MEDIA);
    assert_eq!(tries, 4, "each minute, and then it stays");
    expect_all(&rig.stop().await.0, 300);
}

#[tokio::test(start_paused = true)]
async fn what_the_retention_has_taken_is_not_missing() {
    let keep_an_hour = |options: &mut Options| {
        options.create_streams = vec![("cam1".to_owned(), 1)];
        options.limits.put_media_age = S * 3600 * 5;
        options.limits.put_media_idle_close = S * 3600;
    };
    let mut rig = Rig::with(mode(ProofMode::Sampled), keep_an_hour, plain_dialler, STUCK).await;
    // Lists fail for as long as the first fragments are kept.
    rig.refuse(path::LIST_FRAGMENTS, "InternalFailure", 100_000);
    rig.camera.film(60).await;
    for _ in 0..20 {
        // A camera with long pauses.
        rig.clock.sleep(S * 200).await;
        rig.camera.film(1).await;
    }
    rig.server.expire().await;
    rig.server.faults().clear();
    rig.camera.film(120).await;
    let (report, _) = rig.stop().await;
    let counts = report.counts;
    assert_eq!((counts.missing, counts.corrupt), (0, 0), "{report:#?}");
    assert!(counts.unproven >= 59, "and it is counted what nobody could look at: {report:#?}");
    assert_eq!(report.verdict, Verdict::Ok, "{report:#?}");
}

/// Dials as everybody, except that dial number `at` does something else first.
fn odd_dialler(
    connector: Connector,
    at: impl Fn(u64) -> bool + Send + Sync + 'static,
    act: impl Fn() + Send + Sync + 'static,
) -> SharedDialler {
    let dialled = AtomicU64::new(0);
    SharedDialler::from_fn(move |_, _| {
        if at(dialled.fetch_add(1, Ordering::SeqCst)) {
            act();
        }
        std::future::ready(connector.connect(BUFFER_BYTES))
    })
}

#[tokio::test(start_paused = true)]
async fn a_proof_that_panics_begins_anew_and_costs_no_footage() {
    for at in 0..4 {
        let odd = move |connector| odd_dialler(connector, move |n| n == at, || panic!("a bug in the proof"));
        let mut rig = Rig::with(mode(ProofMode::Continuous), |_| {}, odd, STUCK).await;
        rig.camera.film(60).await;
        let persisted = rig.ledger.with(|ledger| ledger.counts().persisted);
        assert_eq!(persisted, 59, "the upload knows nothing of it");
        let (report, _) = rig.stop().await;
        expect_all(&report, 60);
        assert_eq!(report.failures, 1, "it did panic: {report:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_proof_that_panics_each_time_costs_no_footage() {
    let odd = |connector| odd_dialler(connector, |_| true, || panic!("a bug in the proof"));
    let mut rig = Rig::with(mode(ProofMode::Continuous), |_| {}, odd, STUCK).await;
    rig.camera.film(600).await;
    let failures = rig.report.borrow().failures;
    assert!((5..40).contains(&failures), "with growing pauses: {failures}");
    let (report, stopped) = rig.stop().await;
    assert_eq!((report.counts.identical, report.counts.missing), (0, 0));
    assert_eq!(stopped.server.fragments("cam1").await.expect("they can be read").len(), 600);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_never_answers_a_read_costs_no_footage_and_is_asked_anew() {
    for silent in [1, 2, 5] {
        // Of so many connections the other end takes what fits, and says nothing.
        let far_ends = std::sync::Mutex::new(Vec::new());
        let odd = move |connector: Connector| {
            SharedDialler::from_fn(move |_, _| {
                let mut far_ends = far_ends.lock().expect("nobody panics with it");
                let connection = if far_ends.len() < silent {
                    let (near, far) = tokio::io::duplex(BUFFER_BYTES);
                    far_ends.push(far);
                    Ok(near)
                } else {
                    connector.connect(BUFFER_BYTES)
                };
                std::future::ready(connection)
            })
        };
        let mut rig = Rig::with(mode(ProofMode::Continuous), |_| {}, odd, STUCK).await;
        rig.camera.film(300).await;
        let persisted = rig.ledger.with(|ledger| ledger.counts().persisted);
        assert_eq!(persisted, 299, "the upload knows nothing of it");
        let (report, _) = rig.stop().await;
        assert!(report.failures >= 1, "{report:#?}");
        expect_all(&report, 300);
    }
}

/// In real time, and with threads: paused time goes on only when no task is busy, and one that stands still is busy for
/// ever. It hands on what its thread had to do for others, above all their timers: here only the proof stands still. A proof
/// that lives and is taken for dead on a slow machine makes another failure, and the next one goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_proof_that_stands_still_is_left_behind() {
    let (let_go, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let odd = move |connector| {
        odd_dialler(
            connector,
            |n| n == 0,
            move || {
                let held = held.lock().expect("nobody else comes here");
                tokio::task::block_in_place(|| held.recv()).expect_err("nobody sends");
            },
        )
    };
    let config = ProofConfig { first_look: S / 10, ..mode(ProofMode::Sampled) };
    let mut rig = Rig::with(config, |_| {}, odd, S).await;
    for _ in 0..3 {
        // A second of producer time, in none of ours.
        rig.camera.picture(true, Duration::ZERO).await;
        rig.clock.step_to(rig.clock.wall() + S);
    }
    let mut grown = rig.ledger.watch();
    while rig.ledger.with(|ledger| ledger.counts().persisted) < 2 {
        let grown = tokio::time::timeout(STUCK, grown.changed()).await;
        grown.expect("the upload knows nothing of it").expect("the ledger is there");
    }
    let report = rig.wait("another proof takes over", |report| report.counts.identical > 0).await;
    assert!(report.failures >= 1, "{report:#?}");
    drop(let_go);
    rig.camera.finish().await;
}

/// Real pictures: 25 a second, each fifth a random access point.
fn clip() -> Vec<AccessUnit> {
    let spec = camera_sim::ClipSpec {
        width: 320,
        height: 192,
        fps: 25,
        bitrate_kbps: 500,
        gop: 5,
        loop_seconds: 2,
        seed: 3,
        ..camera_sim::ClipSpec::default()
    };
    let clip =
        camera_sim::Clip::load(&spec, &camera_sim::default_cache_dir()).expect("encoders are installed");
    let sets = clip.parameter_sets();
    let record = media::nal::avcc_from_sps_pps(&sets[..1], &sets[1..]).expect("parameter sets");
    let format = Arc::new(VideoFormat::from_codec_private(VideoCodec::H264, record).expect("a valid SPS"));
    let unit = |picture: &camera_sim::Picture| AccessUnit {
        data: media::nal::to_length_prefixed(&picture.nal_units),
        timestamp: ProducerTimestamp::from_millis(0),
        random_access: picture.random_access,
        format: format.clone(),
    };
    clip.pictures().iter().map(unit).collect()
}

#[tokio::test(start_paused = true)]
async fn a_fragment_is_read_back_decoded_and_its_way_measured() {
    let cases = [
        (ProofMode::Sampled, Way::GetMedia),
        (ProofMode::Continuous, Way::GetMedia),
        (ProofMode::Sampled, Way::Hls),
    ];
    for (by, way) in cases {
        let mut rig = Rig::playing(mode(by), way).await;
        rig.camera.clip = clip();
        rig.camera.film(90).await;
        let report = rig.wait("played", |report| report.played.is_some()).await;
        let played = report.played.clone().expect("just seen");
        // GStreamer is a part of the machine on which this runs.
        assert_eq!((played.result.clone(), played.way), (Ok(Looked::Decoded), way), "{played:?}");
        let number = played.number.expect("KVS names it");
        let known = rig.ledger.with(|ledger| ledger.records().any(|record| record.number == Some(number)));
        assert!(known, "it is one of ours: {played:?}");
        // A fragment lasts a second; by HLS it waits for those of its playlist.
        assert!(played.latency_ms < 30_000, "{played:?}");
        if by == ProofMode::Continuous {
            assert_eq!(rig.calls(path::GET_MEDIA), 1, "what is read anyhow is played");
        }
        let (report, _) = rig.stop().await;
        assert_eq!((report.verdict, &report.problem), (Verdict::Ok, &None), "{report:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fragment_that_cannot_be_played_is_told_although_it_is_identical() {
    for by in [ProofMode::Sampled, ProofMode::Continuous] {
        let mut rig = Rig::playing(mode(by), Way::GetMedia).await;
        rig.camera.film(60).await;
        let report = rig.wait("told", |report| report.problem.is_some()).await;
        assert_eq!((report.verdict, report.needs_somebody), (Verdict::Ok, true), "{report:#?}");
        let problem = report.problem.expect("just seen");
        assert_eq!(problem.reason, Reason::DecoderFailed);
        assert!(problem.to_string().contains("cannot be played"), "{problem}");
        // The camera is mended: that is seen at the change of format.
        rig.camera.finish().await;
        rig.upload_ended.cancel();
        rig.proof.await.expect("it ends in order");
    }
}

/// What somebody does to a fragment in the store.
const DEEDS: [&str; 4] = ["corrupted", "deleted", "truncated", "swapped"];

/// The sabotage number: a hundred of four hundred fragments.
#[tokio::test(start_paused = true)]
async fn of_a_hundred_sabotaged_fragments_each_is_reported_and_no_other_is_blamed() {
    let patient = |options: &mut Options| {
        options.limits.put_media_age = S * 3600 * 9;
        options.limits.put_media_idle_close = S * 3600 * 9;
    };
    // Paused time runs on while the store reads its disk, hours of it on a busy machine.
    let config = ProofConfig { ask_for: S * 3600 * 9, memory: S * 3600 * 20, ..mode(ProofMode::Continuous) };
    let mut rig = Rig::with(config, patient, plain_dialler, STUCK).await;
    let reads = [path::GET_MEDIA, path::GET_MEDIA_FOR_FRAGMENT_LIST, path::LIST_FRAGMENTS];
    reads.iter().for_each(|path| rig.refuse(path, "InternalFailure", 1_000_000));
    rig.camera.film(400).await;
    let numbers = rig.numbers().await;
    assert!(numbers.len() >= 399);
    let mut sabotaged = std::collections::BTreeMap::new();
    for (at, deed) in DEEDS.iter().enumerate() {
        let own = (0..25).map(|n| n * 15 + 3 + at * 3).map(|n| numbers[n].clone());
        let own: Vec<_> = own.collect();
        for (n, number) in own.iter().enumerate() {
            let done = match *deed {
                "corrupted" => rig.server.corrupt_fragment("cam1", number).await,
                "deleted" => rig.server.delete_fragment("cam1", number).await,
                "truncated" => rig.server.truncate_fragment("cam1", number).await,
                // With the next of its kind; the last one with the first, which is another one by then.
                _ if n % 2 == 0 => rig.server.swap_fragments("cam1", number, &own[(n + 1) % 25]).await,
                _ => Ok(()),
            };
            done.expect("it is there");
            sabotaged.insert(number.clone(), *deed);
        }
    }
    assert_eq!(sabotaged.len(), 100);
    rig.server.faults().clear();
    rig.wait("all are found", |report| report.counts.identical >= 299 && report.counts.bad >= 100).await;
    // Looks go on: nothing heals, and nobody else is blamed.
    rig.camera.film(300).await;
    rig.wait("the others are proven", |report| report.counts.identical >= 590).await;
    let (good, missed, blamed) = rig.ledger.with(|ledger| {
        let (mut good, mut missed, mut blamed) = (0, Vec::new(), Vec::new());
        for record in ledger.records().filter(|record| record.is_kept()) {
            let deed = record.number.and_then(|number| sabotaged.get(&number.to_string()));
            match (deed, record.is_bad()) {
                (Some(deed), false) => missed.push((*deed, record.clone())),
                (None, true) => blamed.push(record.clone()),
                (None, false) => good += u64::from(record.times.identical.is_some()),
                (Some(_), true) => {}
            }
        }
        (good, missed, blamed)
    });
    assert!(missed.is_empty(), "not reported: {missed:#?}");
    assert!(blamed.is_empty(), "wrongly blamed: {blamed:#?}");
    assert!(good >= 590, "and all others are proven: {good}");
    let report = rig.report.borrow().clone();
    assert_eq!((report.verdict, report.counts.bad), (Verdict::Mismatch, 100), "{report:#?}");
    drop(rig.stop().await);
}
