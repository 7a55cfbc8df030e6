//! A camera of small pictures, upload and proof of a box and a KVS in memory, all on one paused clock.

mod network;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use aws_credential_types::Credentials as AwsCredentials;
use aws_credential_types::provider::future::ProvideCredentials as Provided;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use bytes::Bytes;
use clock::Clock;
use kvs::api::{
    CreateStreamInput, DeleteStreamInput, FragmentSelector, FragmentSelectorType, StreamId, TimestampRange,
    path, seconds,
};
use kvs::fragmenter::FragmentSummary;
use kvs::ledger::LossReason;
use kvs::proof::schedule::{ProofConfig, ProofMode, Verdict};
use kvs::{FragmentIds, RunId};
use kvs_client::{Client, Config, Endpoints, SharedDialler};
use kvs_edge::camera::Ending;
use kvs_edge::record::proof::{self, Proof, ProofReport};
use kvs_edge::record::records::{self, RecordKeeper, RecordReport};
use kvs_edge::record::{Orders, SharedLedger, UploadReport, Uploader};
use kvs_edge::watchdog::Pulses;
use kvs_local::{AckKind, Credentials, Fault, FaultKind, KvsLocal, Options, SentAck};
use media::{AccessUnit, Feed, ProducerTimestamp, VideoCodec, VideoFormat};
use rtsp::RtspSource;
use rtsp::source::IngestReport;
use store::testing::TestFiles;
use store::{ProofOptions, Proofs, RealFiles, Spool};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use network::Network;

/// Between two pictures; each fifth is a random access point.
const PICTURE_MS: u64 = 200;
const START_S: u64 = 1_795_186_073;
const STREAM: &str = "cam";

/// What differs from one test to the next.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) ack_timeout: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) window_bytes: u64,
    /// Of the box.
    pub(crate) access_key: String,
    pub(crate) secret: String,
    /// `None`: the stream does not exist.
    pub(crate) retention_h: Option<u32>,
    /// The clock of KVS, against the one of the box.
    pub(crate) clock_ahead: Duration,
    pub(crate) disk_limit_bytes: Option<u64>,
    /// Of what ListFragments names.
    pub(crate) list_lag: Duration,
    /// Whether the footage is read back and compared meanwhile, by a network that works.
    pub(crate) proof: ProofMode,
    /// Of the spool on disk; `None`: there is none.
    pub(crate) spool: Option<fn(&mut store::Options)>,
    /// Each minute is written down; beside the spool where there is one.
    pub(crate) records: bool,
    /// No answer of the spool is there at once.
    pub(crate) late_disk: bool,
    /// Of `[upload]`.
    pub(crate) upload: fn(&mut config::Upload),
    /// The credentials of the box last for so long, and there are new ones then.
    pub(crate) credentials_last: Option<Duration>,
    /// KVS is spoken to by TLS.
    pub(crate) tls: bool,
    /// Where media goes is asked for, and not configured.
    pub(crate) asks_endpoint: bool,
    /// Its id; a test that arms a fault has one of its own.
    pub(crate) camera: &'static str,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            ack_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(30),
            window_bytes: 64 << 20,
            access_key: Credentials::local().access_key,
            secret: Credentials::local().secret_key,
            retention_h: Some(24),
            clock_ahead: Duration::ZERO,
            disk_limit_bytes: None,
            list_lag: Duration::ZERO,
            proof: ProofMode::Off,
            spool: None,
            records: false,
            late_disk: false,
            upload: |_| (),
            credentials_last: None,
            tls: false,
            asks_endpoint: false,
            camera: "cam",
        }
    }
}

/// A fragment as KVS keeps it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stored {
    pub(crate) timecode_ms: u64,
    pub(crate) blocks: u64,
    pub(crate) cluster_bytes: u64,
    pub(crate) has_tag: bool,
}

pub(crate) struct Rig {
    pub(crate) kvs: KvsLocal,
    pub(crate) clock: Clock,
    clock_of_kvs: Clock,
    pub(crate) network: Network,
    pub(crate) ledger: SharedLedger,
    pub(crate) orders: Orders,
    pub(crate) report: watch::Receiver<UploadReport>,
    pub(crate) proof: watch::Receiver<ProofReport>,
    mode: ProofMode,
    pub(crate) pulses: Pulses,
    /// Pictures that the upload had no place for.
    pub(crate) dropped: u64,
    /// After the end.
    pub(crate) unconfirmed: Option<usize>,
    pictures: u64,
    feed: Option<mpsc::Sender<Feed>>,
    task: JoinSet<usize>,
    upload_ended: CancellationToken,
    proving: JoinSet<()>,
    /// What is written down.
    pub(crate) records: watch::Receiver<RecordReport>,
    pub(crate) proof_folder: Option<PathBuf>,
    proofs: Option<Proofs>,
    keys: Keys,
    format: Arc<VideoFormat>,
    camera: Arc<config::Camera>,
    client: Client,
    /// Of the box.
    pub(crate) disk: TestFiles,
    options: Option<store::Options>,
    late_disk: bool,
    pub(crate) spool: Option<Spool>,
    /// Somebody between the box and KVS, with a certificate of his own.
    _interceptor: Option<KvsLocal>,
    _folder: tempfile::TempDir,
}

/// Upload and proof of one life of the box.
struct Life {
    ledger: SharedLedger,
    orders: Orders,
    report: watch::Receiver<UploadReport>,
    proof: watch::Receiver<ProofReport>,
    pulses: Pulses,
    feed: mpsc::Sender<Feed>,
    task: JoinSet<usize>,
    upload_ended: CancellationToken,
    proving: JoinSet<()>,
    records: watch::Receiver<RecordReport>,
}

impl Life {
    fn begin(
        camera: &Arc<config::Camera>,
        client: Client,
        reader: Client,
        clock: &Clock,
        mode: ProofMode,
        (spool, proofs): (Option<Spool>, Option<Proofs>),
    ) -> Self {
        let records_client = reader.clone();
        let (pulses, ledger) = (Pulses::new(clock.clone()), SharedLedger::default());
        let (report, orders) = (watch::Sender::new(UploadReport::new(clock.wall())), Orders::default());
        let run = spool.as_ref().and_then(Spool::newest_run);
        let ids = FragmentIds::new(RunId::after(run, clock.wall_ms()));
        let uploader = Uploader {
            camera: camera.clone(),
            device: "box".to_owned(),
            ids: ids.clone(),
            client,
            clock: clock.clone(),
            ledger: ledger.clone(),
            report: report.clone(),
            pulse: pulses.add("upload"),
            spool,
            orders: orders.clone(),
        };
        let (_camera, reports) = watch::channel(IngestReport::new(clock.wall()));
        let (feed, pictures) = RtspSource::channel(reports);
        let mut task = JoinSet::new();
        task.spawn(uploader.supervise(pictures, Ending::default()));
        let (proof_report, proof) = watch::channel(ProofReport::new(clock.wall()));
        let upload_ended = CancellationToken::new();
        let mut proving = JoinSet::new();
        let reader = Proof {
            camera: camera.id.clone(),
            stream: StreamId::name(STREAM),
            config: ProofConfig { mode, ..ProofConfig::default() },
            play: None,
            decode: true,
            stop_grace: Duration::from_secs(10),
            client: reader,
            clock: clock.clone(),
            ledger: ledger.clone(),
            report: proof_report,
            upload_ended: upload_ended.clone(),
        };
        let (record_report, records) = watch::channel(RecordReport::default());
        let proof_ended = CancellationToken::new();
        let keeper = proofs.map(|proofs| RecordKeeper {
            device: "box".to_owned(),
            camera: camera.id.clone(),
            verify: config::Verify {
                mode: match mode {
                    ProofMode::Continuous => config::VerifyMode::Continuous,
                    ProofMode::Sampled => config::VerifyMode::Sampled,
                    ProofMode::Off => config::VerifyMode::Off,
                },
                ..config::Verify::default()
            },
            run: ids.run(),
            clock: clock.clone(),
            ledger: ledger.clone(),
            upload: report.subscribe(),
            proof: proof.clone(),
            proofs,
            client: records_client,
            stream: StreamId::name(STREAM),
            report: record_report,
            proof_ended: proof_ended.clone(),
        });
        proving.spawn(async move {
            proof::supervise(reader, Duration::from_secs(60), CancellationToken::new()).await;
            proof_ended.cancel();
        });
        if let Some(keeper) = keeper {
            proving.spawn(records::supervise(keeper, CancellationToken::new()));
        }
        let report = report.subscribe();
        Self { ledger, orders, report, proof, pulses, feed, task, upload_ended, proving, records }
    }
}

impl Rig {
    pub(crate) async fn start(setting: Setting) -> Self {
        let start = UNIX_EPOCH + Duration::from_secs(START_S);
        let (clock, folder) = (Clock::simulated(start), tempfile::tempdir().expect("a folder"));
        let mut options = Options::new(folder.path());
        let clock_of_kvs = Clock::simulated(start + setting.clock_ahead);
        options.clock = clock_of_kvs.clone();
        options.disk_limit_bytes = setting.disk_limit_bytes;
        options.list_lag = setting.list_lag;
        if let Some(hours) = setting.retention_h {
            options = options.stream(STREAM, hours);
        }
        if let Some(life) = setting.credentials_last {
            options.credentials.extend(Keys::of_life(START_S * 1000, life));
        }
        if setting.tls {
            options.tls = Some(own_certificate(folder.path(), "ca.pem"));
        }
        let kvs = KvsLocal::start_in_memory(options).await.expect("a server");
        let network = Network::trusting(setting.tls.then(|| folder.path().join("ca.pem")));
        let interceptor = if setting.tls {
            let mut options = Options::new(folder.path().join("interceptor"));
            options.clock = clock.clone();
            options.tls = Some(own_certificate(folder.path(), "other.pem"));
            let server = KvsLocal::start_in_memory(options).await.expect("a server");
            *network.interceptor.lock().unwrap_or_else(PoisonError::into_inner) = Some(server.connector());
            Some(server)
        } else {
            None
        };
        let keys = match setting.credentials_last {
            Some(life) => Keys::lasting(clock.clone(), life),
            None => Keys::new(setting.access_key, setting.secret),
        };
        let client = client(&kvs, &clock, &network, keys.clone(), setting.asks_endpoint);

        let mut camera =
            config::Camera::new(setting.camera, "rtsp://192.0.2.10/stream1".parse().expect("a URL"));
        camera.stream = STREAM.to_owned();
        camera.upload.fragment = Duration::from_secs(1);
        camera.upload.ack_timeout = setting.ack_timeout;
        camera.upload.write_timeout = setting.write_timeout;
        camera.upload.window_bytes = setting.window_bytes;
        (setting.upload)(&mut camera.upload);
        let (camera, disk) = (Arc::new(camera), TestFiles::default());
        let options = setting.spool.map(|change| {
            let mut options = store::Options::new(folder.path().join("spool"), 1 << 30, 1);
            change(&mut options);
            options
        });
        let late_disk = setting.late_disk;
        let spool = options.clone().map(|options| open(options, late_disk, &disk, &clock));
        let reader = operator(&kvs, &clock_of_kvs, &network);
        let proof_folder =
            options.as_ref().filter(|_| setting.records).map(|options| options.folder.join("proofs"));
        let proofs = setting.records.then(|| open_proofs(proof_folder.clone()));
        let opened = (spool.clone(), proofs.clone());
        let life = Life::begin(&camera, client.clone(), reader, &clock, setting.proof, opened);
        let Life { ledger, orders, report, proof, pulses, feed, task, upload_ended, proving, records } = life;
        let codec_private = Bytes::from_static(b"\x01\x42\xc0\x1e\xff\xe1\x00\x00\x01\x00\x00");
        let codec = VideoCodec::H264;
        Self {
            kvs,
            clock,
            clock_of_kvs,
            network,
            ledger,
            orders,
            report,
            proof,
            mode: setting.proof,
            pulses,
            dropped: 0,
            unconfirmed: None,
            pictures: 0,
            feed: Some(feed),
            task,
            upload_ended,
            proving,
            records,
            proof_folder,
            proofs,
            keys,
            format: Arc::new(VideoFormat { codec, codec_private, width: 640, height: 480, frame_rate: None }),
            camera,
            client,
            disk,
            options,
            late_disk,
            spool,
            _interceptor: interceptor,
            _folder: folder,
        }
    }

    /// The process is killed; what it had in memory is gone.
    pub(crate) async fn kill(&mut self) {
        (self.feed, self.spool, self.proofs) = (None, None, None);
        self.task.shutdown().await;
        self.proving.shutdown().await;
    }

    /// The index of the spool is gone.
    pub(crate) fn lose_index(&self) {
        let Some(options) = &self.options else { return };
        for name in ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm"] {
            // The last two come and go.
            let _ = std::fs::remove_file(options.folder.join(name));
        }
    }

    /// The box starts, with what is on its disk.
    pub(crate) fn begin_again(&mut self) {
        let late_disk = self.late_disk;
        self.spool = self.options.clone().map(|options| open(options, late_disk, &self.disk, &self.clock));
        let (client, reader) = (self.client.clone(), operator(&self.kvs, &self.clock_of_kvs, &self.network));
        self.proofs = self.proof_folder.clone().map(|folder| open_proofs(Some(folder)));
        let opened = (self.spool.clone(), self.proofs.clone());
        let life = Life::begin(&self.camera, client, reader, &self.clock, self.mode, opened);
        let Life { ledger, orders, report, proof, pulses, feed, task, upload_ended, proving, records } = life;
        self.records = records;
        self.orders = orders;
        (self.ledger, self.report, self.proof, self.pulses) = (ledger, report, proof, pulses);
        (self.feed, self.task, self.proving) = (Some(feed), task, proving);
        (self.upload_ended, self.unconfirmed) = (upload_ended, None);
    }

    /// The camera delivers pictures for so long.
    pub(crate) async fn film(&mut self, seconds: u64) {
        self.film_pictures(seconds * 1000 / PICTURE_MS).await;
    }

    pub(crate) async fn film_pictures(&mut self, pictures: u64) {
        for _ in 0..pictures {
            let (n, at_ms) = (self.pictures, START_S * 1000 + self.pictures * PICTURE_MS);
            self.pictures += 1;
            let mut data = vec![0, 0, 1, 0x2c]; // 300 bytes follow
            data.extend(n.to_be_bytes());
            data.resize(304, 0x55);
            let unit = AccessUnit {
                data: data.into(),
                timestamp: ProducerTimestamp::from_millis(at_ms),
                random_access: n.is_multiple_of(5),
                format: self.format.clone(),
            };
            let feed = self.feed.as_ref().expect("not ended");
            self.dropped += u64::from(feed.try_send(Feed::Video(unit)).is_err());
            self.clock.sleep(Duration::from_millis(PICTURE_MS)).await;
        }
    }

    pub(crate) fn inject(&self, kind: FaultKind) {
        self.kvs.faults().inject(Fault::on(STREAM, kind));
    }

    pub(crate) fn acks(&self, kind: AckKind) -> Vec<SentAck> {
        let acks = self.kvs.acks(STREAM).expect("the stream");
        acks.into_iter().filter(|ack| ack.event == kind).collect()
    }

    pub(crate) fn sessions(&self) -> u64 {
        self.kvs.connections(STREAM).expect("the stream").put_media_ever
    }

    /// Calls that ask the archive for fragments or a list of them.
    pub(crate) fn looks(&self) -> u64 {
        let paths = [path::LIST_FRAGMENTS, path::GET_MEDIA_FOR_FRAGMENT_LIST];
        paths.iter().filter_map(|path| self.kvs.calls().get(*path).copied()).sum()
    }

    /// The operator mends what was wrong.
    pub(crate) async fn make_right(&self) {
        self.keys.correct();
        let operator = operator(&self.kvs, &self.clock_of_kvs, &self.network);
        let stream = CreateStreamInput {
            stream_name: STREAM.to_owned(),
            data_retention_in_hours: Some(24),
            ..CreateStreamInput::default()
        };
        // It may be there already.
        let _ = operator.create_stream(&stream).await;
        operator.ensure_retention(&StreamId::name(STREAM), 24).await.expect("it can be changed");
    }

    /// Whether the box gets new credentials when the old ones end.
    pub(crate) fn renew_keys(&self, renew: bool) {
        self.keys.renew(renew);
    }

    /// Somebody deletes the stream, with all that is in it.
    pub(crate) async fn delete_stream(&self) {
        let operator = operator(&self.kvs, &self.clock_of_kvs, &self.network);
        let input = DeleteStreamInput { stream: StreamId::name(STREAM), current_version: None };
        operator.delete_stream(&input).await.expect("it can be deleted");
    }

    /// What `kvs-edge spool export` finds on the disk of the box, and how much of it `kvs-edge spool check` calls set aside.
    pub(crate) fn disk_footage(&self) -> (Vec<u64>, usize) {
        let folder = &self.options.as_ref().expect("a spool").folder;
        for path in self.disk.paths() {
            let mut bytes = Vec::new();
            self.disk.damage(&path, |found| bytes.clone_from(found));
            std::fs::create_dir_all(path.parent().expect("in a folder")).expect("made");
            std::fs::write(&path, bytes).expect("written");
        }
        let mut times = Vec::new();
        let findings =
            store::footage(folder, &store::Keys::default(), "cam", (0, u64::MAX), &mut |footage| {
                times.push(footage.summary.timecode.as_millis());
                Ok(())
            });
        assert!(findings.expect("it can be read").findings.is_empty());
        let checked = store::check(folder, &store::Keys::default()).expect("it can be read");
        (times, checked.cameras.iter().map(|camera| camera.refused).sum())
    }

    /// Nobody is told what is in the stream, until faults are cleared.
    pub(crate) fn refuse_looks(&self) {
        for path in [path::LIST_FRAGMENTS, path::GET_MEDIA_FOR_FRAGMENT_LIST] {
            self.inject(FaultKind::Refuse {
                path: path.to_owned(),
                error_type: "InternalFailure".to_owned(),
                status: 500,
                count: 1_000_000,
            });
        }
    }

    /// How often the service was asked where a stream is served.
    pub(crate) fn endpoint_calls(&self) -> u64 {
        self.kvs.calls().get(path::GET_DATA_ENDPOINT).copied().unwrap_or_default()
    }

    pub(crate) async fn remove_all_stored(&self) -> u64 {
        let stored = self.kvs.fragments(STREAM).await.expect("the stream");
        for fragment in &stored {
            self.kvs.delete_fragment(STREAM, &fragment.number).await.expect("it is there");
        }
        stored.len() as u64
    }

    /// The camera ends, and the upload with it.
    pub(crate) async fn end_upload(&mut self) {
        self.feed = None;
        self.unconfirmed = Some(self.task.join_next().await.expect("one task").expect("no crash at the end"));
        self.upload_ended.cancel();
    }

    /// The camera ends, and upload and proof with it; returns what is stored.
    pub(crate) async fn end(&mut self) -> Vec<Stored> {
        self.end_upload().await;
        while let Some(ended) = self.proving.join_next().await {
            ended.expect("no crash at the end");
        }
        self.clock.sleep(Duration::from_secs(5)).await; // a list may lag
        let listed = self.listed().await;
        let mut all = Vec::new();
        for fragment in self.kvs.fragments(STREAM).await.expect("the stream") {
            // A stream without retention has some in memory that it does not keep.
            if !listed.contains(&fragment.number) {
                continue;
            }
            let (_, _, behind) = self.kvs.fragment(STREAM, &fragment.number).await.expect("it is there");
            let name = kvs::identity::NAME.as_bytes();
            all.push(Stored {
                timecode_ms: fragment.timecode,
                blocks: fragment.blocks,
                cluster_bytes: fragment.cluster_bytes,
                has_tag: behind.windows(name.len()).any(|bytes| bytes == name),
            });
        }
        all.sort();
        all
    }

    /// Numbers of what KVS keeps.
    async fn listed(&self) -> Vec<String> {
        let fragment_selector_type = FragmentSelectorType::ProducerTimestamp;
        let (start_timestamp, end_timestamp) = (seconds(0), seconds((START_S + 100_000) * 1000));
        let timestamp_range = TimestampRange { start_timestamp, end_timestamp };
        let selector = FragmentSelector { fragment_selector_type, timestamp_range };
        let rows = operator(&self.kvs, &self.clock_of_kvs, &self.network)
            .list_all_fragments(&StreamId::name(STREAM), selector)
            .await;
        rows.expect("it can be listed").into_iter().map(|row| row.fragment_number).collect()
    }

    /// Ends; each picture is stored exactly once, as it was recorded, and the ledger knows that.
    pub(crate) async fn expect_all_kept(&mut self) -> Vec<Stored> {
        let stored = self.expect_all_kept_but_proof().await;
        self.expect_proven(&stored);
        stored
    }

    /// Likewise; how much of it was read back is another question.
    pub(crate) async fn expect_all_kept_but_proof(&mut self) -> Vec<Stored> {
        let stored = self.end().await;
        let kept: Vec<_> =
            stored.iter().map(|one| (one.timecode_ms, one.blocks, one.cluster_bytes)).collect();
        let recorded = self.summaries(|_| true);
        let recorded: Vec<_> = recorded
            .iter()
            .map(|one| (one.timecode.as_millis(), u64::from(one.blocks), one.cluster_bytes))
            .collect();
        assert_eq!(kept, recorded, "stored against recorded");
        assert_eq!(stored.iter().map(|one| one.blocks).sum::<u64>(), self.pictures - self.dropped);
        let counts = self.ledger.with(|ledger| ledger.counts());
        assert_eq!((counts.persisted, counts.lost), (recorded.len() as u64, 0));
        assert_eq!((self.unconfirmed, self.dropped), (Some(0), 0));
        let gaps = self.ledger.with(|ledger| ledger.gaps().count());
        assert_eq!(gaps, 0);
        stored
    }

    /// After the end: where footage is read back, all that is stored was found identical, and nothing is missed.
    pub(crate) fn expect_proven(&self, stored: &[Stored]) {
        let report = self.proof.borrow();
        let counts = report.counts;
        let bad = [counts.missing, counts.corrupt, counts.misstated, counts.duplicate, counts.healed];
        assert_eq!(bad, [0; 5], "missing, corrupt, misstated, duplicate, healed: {report:#?}");
        let now = self.clock.now();
        let has_gap = self.ledger.with(|ledger| ledger.gaps_within(Duration::from_secs(3600), now)) > 0;
        let (verdict, identical) = match self.mode {
            ProofMode::Off => (Verdict::Unknown, 0),
            _ if has_gap => (Verdict::Gap, stored.len() as u64),
            ProofMode::Continuous | ProofMode::Sampled => (Verdict::Ok, stored.len() as u64),
        };
        assert_eq!((report.verdict, counts.identical), (verdict, identical), "{report:#?}");
        assert_eq!((report.overdue, report.problem.is_some()), (0, verdict == Verdict::Gap), "{report:#?}");
    }

    /// Timecodes of what the ledger calls lost.
    pub(crate) fn lost(&self) -> Vec<u64> {
        let lost = |record: &&kvs::ledger::Record| matches!(record.stage, kvs::ledger::Stage::Lost(_));
        self.ledger
            .with(|ledger| ledger.records().filter(lost).map(|record| record.timecode.as_millis()).collect())
    }

    /// Exactly `lost` is not stored; gaps say so, and why, and hold nothing else.
    pub(crate) fn expect_gaps(&self, stored: &[Stored], reason: &LossReason, lost: &[u64]) {
        let recorded: Vec<_> = self.summaries(|_| true).iter().map(|one| one.timecode.as_millis()).collect();
        let kept: Vec<_> = stored.iter().map(|one| one.timecode_ms).collect();
        let missing: Vec<_> = recorded.iter().copied().filter(|ms| !kept.contains(ms)).collect();
        assert_eq!(missing, lost);
        assert_eq!(kept.len() + lost.len(), recorded.len(), "nothing is stored twice");
        assert_eq!(self.lost(), lost);
        let gaps: Vec<_> = self.ledger.with(|ledger| ledger.gaps().cloned().collect());
        assert!(gaps.iter().all(|gap| gap.reason == *reason), "{gaps:?}");
        let inside = |ms: &u64| {
            let at = ProducerTimestamp::from_millis(*ms);
            gaps.iter().any(|gap| gap.start <= at && at <= gap.end)
        };
        assert!(lost.iter().all(inside), "{lost:?} {gaps:?}");
        assert!(!kept.iter().any(inside), "{gaps:?}");
        let ends =
            self.summaries(|record| record.timecode.as_millis() == *lost.last().expect("some are lost"));
        assert_eq!(gaps.last().map(|gap| gap.end), ends.first().map(FragmentSummary::end));
        self.expect_proven(stored);
    }

    pub(crate) fn summaries(&self, wanted: impl Fn(&kvs::ledger::Record) -> bool) -> Vec<FragmentSummary> {
        self.ledger.with(|ledger| {
            ledger
                .records()
                .filter(|record| wanted(record))
                .filter_map(|record| record.summary.clone())
                .collect()
        })
    }
}

fn open(options: store::Options, late: bool, disk: &TestFiles, clock: &Clock) -> Spool {
    let spool = Spool::start_inline(options, Arc::new(disk.clone()), clock.clone());
    if late { spool.late() } else { spool }
}

fn open_proofs(folder: Option<PathBuf>) -> Proofs {
    match folder {
        Some(folder) => Proofs::open(ProofOptions::new(folder), Arc::new(RealFiles)).expect("it opens"),
        None => Proofs::in_memory().expect("in memory"),
    }
}

/// Another caller, with the right key and a network that works.
fn operator(kvs: &KvsLocal, clock: &Clock, network: &Network) -> Client {
    let Credentials { access_key, secret_key, .. } = Credentials::local();
    let network = Network::trusting(network.ca.clone());
    client(kvs, clock, &network, Keys::new(access_key, secret_key), false)
}

/// A certificate for KVS in memory, which is its own authority: that one is written to a file.
fn own_certificate(folder: &Path, file: &str) -> kvs_local::Tls {
    let own = rcgen::generate_simple_self_signed(["kvs-local.invalid".to_owned()]).expect("a certificate");
    std::fs::write(folder.join(file), own.cert.pem()).expect("it can be written");
    kvs_local::Tls { certificate_pem: own.cert.pem().into(), key_pem: own.signing_key.serialize_pem().into() }
}

fn client(kvs: &KvsLocal, clock: &Clock, network: &Network, keys: Keys, asks_endpoint: bool) -> Client {
    let mut config = Config::new(kvs.region(), SharedCredentialsProvider::new(keys));
    let endpoint = kvs.endpoint().parse().ok();
    let media = endpoint.clone().filter(|_| !asks_endpoint);
    config.endpoints = Endpoints { control: endpoint.clone(), media, archived: endpoint };
    config.extra_ca_pem.clone_from(&network.ca);
    config.clock = clock.clone();
    let (network, connector) = (network.clone(), kvs.connector());
    config.dialler = SharedDialler::from_fn(move |_, _| {
        let opened = network.open(&connector);
        async move { opened }
    });
    Client::new(config).expect("a client")
}

/// Key and secret of the box; they can be corrected.
#[derive(Clone, Debug)]
struct Keys(Arc<Mutex<(String, String)>>, Option<(Clock, Duration)>, Arc<AtomicBool>);

impl Keys {
    fn new(access_key: String, secret: String) -> Self {
        Self(Arc::new(Mutex::new((access_key, secret))), None, Arc::default())
    }

    /// Others all the time, each of which lasts for so long.
    fn lasting(clock: Clock, life: Duration) -> Self {
        Self(Arc::default(), Some((clock, life)), Arc::default())
    }

    /// Without that, only the first ones come, as if they lasted.
    fn renew(&self, renew: bool) {
        self.2.store(!renew, Ordering::Relaxed);
    }

    /// As the service knows them.
    fn of_life(start_ms: u64, life: Duration) -> Vec<Credentials> {
        let life_ms = u64::try_from(life.as_millis()).expect("small");
        let key = |n: u64| {
            Credentials::new(format!("key{n}"), "secret")
                .with_token(format!("token{n}"))
                .until(start_ms + (n + 1) * life_ms)
        };
        (0..200).map(key).collect()
    }

    fn correct(&self) {
        let Credentials { access_key, secret_key, .. } = Credentials::local();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (access_key, secret_key);
    }
}

impl ProvideCredentials for Keys {
    fn provide_credentials<'a>(&'a self) -> Provided<'a>
    where
        Self: 'a,
    {
        if let Some((clock, life)) = &self.1 {
            let start = UNIX_EPOCH + Duration::from_secs(START_S);
            let past = clock.wall().duration_since(start).unwrap_or_default();
            if self.2.load(Ordering::Relaxed) {
                let token = Some("token0".to_owned());
                return Provided::ready(Ok(AwsCredentials::new("key0", "secret", token, None, "test")));
            }
            let n = u32::try_from(past.as_millis() / life.as_millis()).expect("small");
            let token = Some(format!("token{n}"));
            let end = start + *life * (n + 1);
            return Provided::ready(Ok(AwsCredentials::new(
                format!("key{n}"),
                "secret",
                token,
                Some(end),
                "test",
            )));
        }
        let (access_key, secret) = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Provided::ready(Ok(AwsCredentials::new(access_key, secret, None, None, "test")))
    }
}
