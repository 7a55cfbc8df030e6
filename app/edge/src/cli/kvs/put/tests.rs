//! `put` and a KVS in memory, on one paused clock: what gives up, when, and what is left for a second run.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, UNIX_EPOCH};

use kvs_client::{Config, Endpoints, SharedDialler, static_credentials};
use kvs_local::{AckKind, At, Credentials, Fault, FaultKind, KvsLocal, Options};

use super::*;

/// By AWS's own producer: five fragments of 2 s, 386 kB.
const RECORDING: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/kvssink-putmedia/ok_put_001.mkv");
const START_S: u64 = 1_795_186_100;

struct Rig {
    server: KvsLocal,
    client: Client,
    clock: Clock,
    /// No connection is opened any more.
    away: Arc<AtomicBool>,
    _folder: tempfile::TempDir,
}

/// Takes the lines, and does something when one has come.
struct Out<'a> {
    text: Vec<u8>,
    on_line: &'a mut (dyn FnMut() + Send),
}

impl io::Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (self.on_line)();
        Ok(())
    }
}

impl Rig {
    async fn start() -> Self {
        let (folder, clock) = (
            tempfile::tempdir().expect("a folder"),
            Clock::simulated(UNIX_EPOCH + Duration::from_secs(START_S)),
        );
        let mut options = Options::new(folder.path()).stream("cam", 24);
        options.clock = clock.clone();
        // The recording takes some seconds, so that something can happen meanwhile.
        options.limits.put_media_bytes_per_second = Some(100_000);
        let server = KvsLocal::start_in_memory(options).await.expect("a server");
        let keys = Credentials::local();
        let mut config =
            Config::new(server.region(), static_credentials(keys.access_key, keys.secret_key, None));
        let endpoint = server.endpoint().parse().ok();
        config.endpoints =
            Endpoints { control: endpoint.clone(), media: endpoint.clone(), archived: endpoint };
        config.clock = clock.clone();
        let (away, connector) = (Arc::new(AtomicBool::new(false)), server.connector());
        let is_away = away.clone();
        config.dialler = SharedDialler::from_fn(move |_, _| {
            let opened = match is_away.load(Ordering::Relaxed) {
                true => Err(io::ErrorKind::ConnectionRefused.into()),
                false => connector.connect(64 << 10),
            };
            async move { opened }
        });
        let client = Client::new(config).expect("a client");
        Self { server, client, clock, away, _folder: folder }
    }

    /// Puts the recording; the times that it printed.
    async fn put(
        &self,
        stop: &CancellationToken,
        on_line: &mut (dyn FnMut() + Send),
    ) -> (Result<(), String>, Vec<String>) {
        let job = Job::of(RECORDING.into(), None, false, &self.clock).expect("a file to send");
        let mut out = Out { text: Vec::new(), on_line };
        let stream = StreamId::name("cam");
        let outcome = job.run(self.client.clone(), stream, &self.clock, &mut out, stop).await;
        let text = String::from_utf8(out.text).expect("text");
        let times = text.lines().filter_map(|line| line.split('\t').nth(1)).map(str::to_owned).collect();
        (outcome.map_err(|error| error.to_string()), times)
    }

    /// Producer times of what KVS has, in order.
    async fn stored(&self) -> Vec<u64> {
        let fragments = self.server.fragments("cam").await.expect("the stream");
        let mut times: Vec<u64> = fragments.iter().map(|fragment| fragment.producer_ms).collect();
        times.sort_unstable();
        times
    }

    /// A second run sends the rest, and nothing twice.
    #[track_caller]
    fn is_completed(before: &[u64], (outcome, sent): (Result<(), String>, Vec<String>), after: &[u64]) {
        assert_eq!((outcome, sent.len(), after.len()), (Ok(()), 5 - before.len(), 5));
        assert_eq!(after.iter().collect::<BTreeSet<_>>().len(), 5, "each once: {after:?}");
    }
}

fn nothing() {}

#[tokio::test(start_paused = true)]
async fn a_server_that_goes_away_is_waited_for_and_given_up_after_five_minutes() {
    let rig = Rig::start().await;
    let mut gone_at = None::<Instant>;
    let mut goes = || {
        if gone_at.is_none() {
            gone_at = Some(rig.clock.now());
            rig.away.store(true, Ordering::Relaxed);
            rig.server.faults().inject(Fault::any(FaultKind::CutPutMedia { after_bytes: 0 }));
        }
    };
    let (outcome, sent) = rig.put(&CancellationToken::new(), &mut goes).await;
    let error = outcome.expect_err("the server is away");
    let told = format!("{} fragments are stored, and are left out when this is run again", sent.len());
    assert!(error.contains("nothing was persisted for 5 minutes") && error.contains(&told), "{error}");
    let waited = rig.clock.now() - gone_at.expect("a fragment came");
    assert!(waited >= GIVE_UP && waited < GIVE_UP + Duration::from_secs(60), "{waited:?}");
    let before = rig.stored().await;
    assert!((1..5).contains(&sent.len()) && before.len() >= sent.len(), "{sent:?} {before:?}");

    rig.away.store(false, Ordering::Relaxed);
    let again = rig.put(&CancellationToken::new(), &mut nothing).await;
    Rig::is_completed(&before, again, &rig.stored().await);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_and_an_error_that_passes_lose_nothing() {
    for fault in [
        FaultKind::CutPutMedia { after_bytes: 150_000 },
        FaultKind::AckError { id: 5001, fragment: 2, at: At::Persist },
        FaultKind::AckError { id: 5000, fragment: 3, at: At::Start },
        FaultKind::DropAck { ack: Some(AckKind::Persisted), count: 1 },
    ] {
        let rig = Rig::start().await;
        rig.server.faults().inject(Fault::any(fault.clone()));
        let first = rig.put(&CancellationToken::new(), &mut nothing).await;
        assert_eq!(rig.server.faults().waiting(), [], "it happened");
        Rig::is_completed(&[], first, &rig.stored().await);
        let again = rig.put(&CancellationToken::new(), &mut nothing).await;
        assert_eq!(again, (Ok(()), vec![]), "{fault:?}: all is there");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fragment_that_is_refused_is_named_and_the_others_are_sent() {
    let rig = Rig::start().await;
    rig.server.faults().inject(Fault::any(FaultKind::AckError { id: 4002, fragment: 2, at: At::End }));
    let (outcome, sent) = rig.put(&CancellationToken::new(), &mut nothing).await;
    let error = outcome.expect_err("one was refused");
    assert!(error.starts_with("1 fragments were not taken; the first: 2026-11-20T14:47:5"), "{error}");
    let before = rig.stored().await;
    assert_eq!((sent.len(), before.len()), (4, 4), "{sent:?}");
    let again = rig.put(&CancellationToken::new(), &mut nothing).await;
    Rig::is_completed(&before, again, &rig.stored().await);
}

#[tokio::test(start_paused = true)]
async fn what_only_somebody_can_change_ends_it_at_once() {
    let refusal = FaultKind::RefusePutMedia {
        error_type: "AccessDeniedException".to_owned(),
        status: 403,
        count: 1_000,
    };
    for (fault, named) in [
        (refusal, "AccessDenied"),
        (FaultKind::AckError { id: 4008, fragment: 2, at: At::Start }, "STREAM_NOT_ACTIVE"),
    ] {
        let rig = Rig::start().await;
        let begun = rig.clock.now();
        rig.server.faults().inject(Fault::any(fault));
        let (outcome, sent) = rig.put(&CancellationToken::new(), &mut nothing).await;
        let error = outcome.expect_err(named);
        assert!(error.contains(named) && error.contains("fragments are stored"), "{error}");
        let waited = rig.clock.now() - begun;
        assert!(waited < GIVE_UP, "{named}: {waited:?}");
        rig.server.faults().clear();
        let before = rig.stored().await;
        assert!(before.len() < 5 && before.len() >= sent.len(), "{sent:?}");
        let again = rig.put(&CancellationToken::new(), &mut nothing).await;
        Rig::is_completed(&before, again, &rig.stored().await);
    }
}

#[tokio::test(start_paused = true)]
async fn ctrl_c_leaves_whole_fragments_and_the_next_run_goes_on() {
    let rig = Rig::start().await;
    // Before anything was sent.
    let stopped = CancellationToken::new();
    stopped.cancel();
    assert_eq!(rig.put(&stopped, &mut nothing).await, (Ok(()), vec![]));
    assert!(rig.stored().await.is_empty());
    // While fragments are on their way: these are waited for.
    let stop = CancellationToken::new();
    let (outcome, sent) = rig.put(&stop, &mut || stop.cancel()).await;
    let before = rig.stored().await;
    assert_eq!((outcome, sent.len()), (Ok(()), before.len()));
    assert!(!sent.is_empty());
    let again = rig.put(&CancellationToken::new(), &mut nothing).await;
    Rig::is_completed(&before, again, &rig.stored().await);
}

/// A file that is larger than what is sent ahead is left in the middle.
#[tokio::test]
async fn a_file_that_is_left_in_the_middle_is_left_behind_a_whole_fragment() {
    use media::{Feed, UnitSource};

    let mut plan = Plan::of(std::path::Path::new(RECORDING), &upload()).expect("a plan");
    plan.leave_out(&BTreeMap::new());
    let (_report, watched) = watch::channel(UploadReport::new(UNIX_EPOCH));
    let stop = CancellationToken::new();
    let mut source = FileSource::open(std::path::Path::new(RECORDING), Arc::new(plan), watched, stop.clone())
        .expect("opened");
    let mut pictures = Vec::new();
    while let Some(item) = source.next().await {
        let Feed::Video(unit) = item else { continue };
        pictures.push(unit);
        // In the second fragment.
        if pictures.len() == 40 {
            stop.cancel();
        }
    }
    let key_frames = pictures.iter().filter(|unit| unit.random_access).count();
    assert_eq!((pictures.len(), key_frames), (60, 2), "two fragments of 30 pictures");
}
