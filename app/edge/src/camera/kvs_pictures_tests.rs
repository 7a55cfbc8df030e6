//! The reader of a KVS camera with the configuration of an operator, KVS and all connections in memory, on paused time.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::UNIX_EPOCH;

use analytics::FeedItem;
use bytes::Bytes;
use kvs_client::{
    Config, Endpoints, PutMedia, PutMediaInput, SharedDialler, TimecodeType, static_credentials,
};
use kvs_local::{Connector, Credentials, KvsLocal, Options};
use media::mkv::write::{Track, block_head, cluster_start, header, tags};
use media::{VideoCodec, VideoFormat};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinHandle;

use super::*;
use crate::watchdog::Pulses;

/// 2026-11-20T15:08:34Z.
const BEGIN_MS: u64 = 1_795_187_314_000;
const S: Duration = Duration::from_secs(1);
const FRAGMENT_MS: u64 = 2_000;
/// Of one fragment: more than the branch has places for.
const PICTURES: u64 = 50;
const PICTURE_MS: u64 = FRAGMENT_MS / PICTURES;
/// What the decoder takes for one.
const DECODING: Duration = Duration::from_millis(8);
const BUFFER_BYTES: usize = 64 * 1024;
/// 640x360 of x264.
const AVCC: &[u8] = b"\x01\x64\x00\x1e\xff\xe1\x00\x1e\x67\x64\x00\x1e\xac\xd9\x40\xa0\x2f\xf9\x70\x16\xa0\xc0\xc0\xd4\xa0\x00\x00\x03\x00\x20\x00\x00\x07\x91\xe2\xc5\xb2\xc0\x01\x00\x05\x68\xeb\xec\xb2\x2c\xfd\xf8\xf8\x00";

/// What the branch gets: the number of a picture, or a break.
type Item = Option<u64>;

struct Rig {
    kvs: KvsLocal,
    clock: Clock,
    network: Network,
    report: watch::Receiver<IngestReport>,
    items: mpsc::UnboundedReceiver<(Instant, Item)>,
    fragments: mpsc::Receiver<Persisted>,
    left_out: watch::Receiver<u64>,
    pulses: Pulses,
    cancel: CancellationToken,
    reading: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Rig {
    /// KVS with the limits of the service and so many fragments.
    async fn kvs(fragments: u64) -> (KvsLocal, Clock, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Clock::simulated(UNIX_EPOCH + Duration::from_millis(BEGIN_MS));
        let mut options = Options::new(folder.path()).stream("yard", 24);
        options.clock = clock.clone();
        options.limits = kvs_local::Limits::service();
        let kvs = KvsLocal::start_in_memory(options).await.expect("starts");
        upload(&client(&kvs, &clock, &Network::default()), &clock, 0..fragments, Duration::ZERO).await;
        (kvs, clock, folder)
    }

    /// `camera`: lines behind its id, and `[camera.kvs]`.
    fn start((kvs, clock, folder): (KvsLocal, Clock, tempfile::TempDir), camera: &str) -> Self {
        let text = format!("[aws]\nregion = \"us-west-2\"\n[[camera]]\nid = \"yard\"\n{camera}\n");
        let config = config::Config::parse(text.as_bytes(), &config::Environment::default()).expect("good");
        let camera = config.cameras.into_iter().next().expect("one");
        let network = Network::default();
        let (report, report_view) = watch::channel(IngestReport::new(clock.wall()));
        let (feed, mut taken) = mpsc::channel(analytics::FEED_PLACES);
        let (left_out, left_out_view) = watch::channel(0);
        let (told, fragments) = mpsc::channel(analytics::PERSISTED_PLACES);
        let (decoded, items) = mpsc::unbounded_channel();
        let (pulses, cancel) = (Pulses::new(clock.clone()), CancellationToken::new());
        let pictures = KvsPictures {
            source: camera.kvs.clone().expect("a KVS stream"),
            camera: Arc::new(camera),
            client: client(&kvs, &clock, &network),
            clock: clock.clone(),
            report,
            pulse: pulses.add("reader of yard"),
            fragments: Some(told),
        };
        let fanout = Fanout::unrecorded().with_analytics(feed, left_out);
        let reading = tokio::spawn(pictures.run(fanout, cancel.clone()));
        let decoder = clock.clone();
        tokio::spawn(async move {
            while let Some(item) = taken.recv().await {
                let item = match item {
                    FeedItem::Picture(unit) => {
                        decoder.sleep(DECODING).await;
                        Some((unit.timestamp.as_millis() - BEGIN_MS) / PICTURE_MS)
                    }
                    FeedItem::Discontinuity => None,
                };
                let _ = decoded.send((decoder.now(), item));
            }
        });
        let report = report_view;
        let left_out = left_out_view;
        Self {
            kvs,
            clock,
            network,
            report,
            items,
            fragments,
            left_out,
            pulses,
            cancel,
            reading,
            _folder: folder,
        }
    }

    /// One fragment every two seconds, with a producer's own way to KVS.
    fn films(&self, fragments: std::ops::Range<u64>) -> JoinHandle<()> {
        let (client, clock) = (client(&self.kvs, &self.clock, &Network::default()), self.clock.clone());
        tokio::spawn(async move {
            upload(&client, &clock, fragments, Duration::from_millis(FRAGMENT_MS)).await;
        })
    }

    /// Items until this picture, with when they were decoded.
    async fn timed_until(&mut self, picture: u64) -> Vec<(Instant, Item)> {
        let mut items = Vec::new();
        while items.last().is_none_or(|(_, item)| *item != Some(picture)) {
            let next = tokio::time::timeout(S * 7_200, self.items.recv()).await;
            items.push(next.unwrap_or_else(|_| panic!("{picture} does not come")).expect("it runs"));
        }
        items
    }

    async fn until(&mut self, picture: u64) -> Vec<Item> {
        self.timed_until(picture).await.into_iter().map(|(_, item)| item).collect()
    }

    async fn state(&mut self, state: IngestState) -> IngestReport {
        let waiting = self.report.wait_for(|report| report.state == state);
        let report = tokio::time::timeout(S * 7_200, waiting).await;
        report.unwrap_or_else(|_| panic!("{state:?} does not come")).expect("it runs").clone()
    }

    /// The loop turned all the time: the watchdog was fed.
    fn is_alive(&self) -> bool {
        self.pulses.oldest().is_some_and(|(_, age)| age < S * 2)
    }

    async fn stop(mut self) {
        self.cancel.cancel();
        (&mut self.reading).await.expect("no crash");
        assert_eq!(self.report.borrow().state, IngestState::Stopped);
    }
}

fn pictures(fragments: std::ops::Range<u64>) -> Vec<Item> {
    (fragments.start * PICTURES..fragments.end * PICTURES).map(Some).collect()
}

fn last_of(fragment: u64) -> u64 {
    (fragment + 1) * PICTURES - 1
}

fn client(kvs: &KvsLocal, clock: &Clock, network: &Network) -> Client {
    let Credentials { access_key, secret_key, .. } = Credentials::local();
    let mut config = Config::new("us-west-2", static_credentials(&access_key, &secret_key, None));
    let endpoint = kvs.endpoint().parse().ok();
    config.endpoints = Endpoints { control: endpoint.clone(), media: endpoint.clone(), archived: endpoint };
    config.clock = clock.clone();
    let (network, connector) = (network.clone(), kvs.connector());
    config.dialler = SharedDialler::from_fn(move |_, _| std::future::ready(network.open(&connector)));
    Client::new(config).expect("a client")
}

/// In sessions of 20 minutes, with this pause behind each fragment.
async fn upload(client: &Client, clock: &Clock, fragments: std::ops::Range<u64>, pause: Duration) {
    let record = Bytes::from_static(AVCC);
    let format = VideoFormat::from_codec_private(VideoCodec::H264, record).expect("a record");
    let head = header([7; 16], "test", &[Track::Video(Arc::new(format))]);
    let input = PutMediaInput {
        stream: StreamId::name("yard"),
        timecode_type: TimecodeType::Absolute,
        start_ms: BEGIN_MS,
        write_timeout: None,
    };
    let fragments: Vec<u64> = fragments.collect();
    for session in fragments.chunks(600) {
        let PutMedia { mut sender, mut acks } = client.put_media(&input).await.expect("a session");
        let hearing =
            tokio::spawn(async move { while acks.next_ack().await.expect("it ends in order").is_some() {} });
        sender.send(head.clone()).await.expect("taken");
        for n in session {
            sender.send(fragment(*n)).await.expect("taken");
            clock.sleep(pause).await;
        }
        sender.finish().await.expect("ended");
        hearing.await.expect("read");
    }
}

fn fragment(n: u64) -> Bytes {
    let mut bytes = cluster_start(BEGIN_MS + n * FRAGMENT_MS).to_vec();
    for index in 0..PICTURES {
        let kind = if index == 0 { 0x65 } else { 0x41 };
        let data = [&[0, 0, 0, 10, kind, 0x88][..], &(n * PICTURES + index).to_be_bytes()].concat();
        let offset = i16::try_from(index * PICTURE_MS).expect("short");
        bytes.extend_from_slice(&block_head(1, offset, index == 0, data.len()));
        bytes.extend_from_slice(&data);
    }
    bytes.extend_from_slice(&tags(&[(kvs::tag::END_OF_FRAGMENT, "")]));
    bytes.into()
}

/// Between the box and KVS.
#[derive(Clone, Debug, Default)]
struct Network {
    is_down: Arc<AtomicBool>,
}

impl Network {
    fn down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::Relaxed);
    }

    fn check(&self) -> io::Result<()> {
        let is_down = self.is_down.load(Ordering::Relaxed);
        if is_down { Err(io::ErrorKind::NetworkUnreachable.into()) } else { Ok(()) }
    }

    fn open(&self, connector: &Connector) -> io::Result<impl kvs_client::ByteStream + use<>> {
        self.check()?;
        Ok(Link { inner: connector.connect(BUFFER_BYTES)?, network: self.clone() })
    }
}

/// A connection, which breaks when the network does.
struct Link<S> {
    inner: S,
    network: Network,
}

impl<S: AsyncRead + Unpin> AsyncRead for Link<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.network.check()?;
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Link<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.network.check()?;
        Pin::new(&mut self.inner).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn a_live_stream_by_hls_reaches_the_branch_whole_and_at_most_twice_as_fast_as_it_was_filmed() {
    let mut rig = Rig::start(Rig::kvs(1).await, "source = \"hls\"");
    // It begins with the newest: what follows is filmed once it has begun.
    let mut found = rig.timed_until(last_of(0)).await;
    let camera = rig.films(1..20);
    found.extend(rig.timed_until(last_of(18)).await);
    let items: Vec<Item> = found.iter().map(|(_, item)| *item).collect();
    assert_eq!(items, pictures(0..19));
    assert_eq!(*rig.left_out.borrow(), 0);
    // As decoded; the branch was never more than a picture behind.
    let least = Duration::from_millis(PICTURE_MS / 2 - 1);
    let quick = found.windows(2).filter(|pair| pair[1].0 - pair[0].0 < least).count();
    assert_eq!(quick, 0, "closer than half of {PICTURE_MS} ms");
    let report = rig.report.borrow().clone();
    assert_eq!((report.state, report.problem), (IngestState::Live, None));
    assert_eq!((report.clock, report.transport), (Some(ClockSource::Producer), Some("hls")));
    assert_eq!((report.gop_frames, report.gop_ms), (Some(50), Some(2_000)));
    // Which picture is in which fragment.
    let stored = rig.kvs.fragments("yard").await.expect("the stream");
    for stored in &stored[..18] {
        let told = rig.fragments.try_recv().expect("told");
        assert_eq!(told.number.to_string(), stored.number);
        assert_eq!(told.end.checked_ms_since(told.start), Some(FRAGMENT_MS - PICTURE_MS));
    }
    camera.await.expect("filmed");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_range_is_played_as_fast_as_it_was_filmed_and_the_camera_stays_known() {
    let range = "[camera.kvs]\nfrom = \"2026-11-20T15:08:34Z\"\nto = \"2026-11-20T15:38:34Z\"";
    for source in ["hls", "fragment_list"] {
        let mut rig = Rig::start(Rig::kvs(10).await, &format!("source = \"{source}\"\n{range}"));
        let found = rig.timed_until(last_of(9)).await;
        let items: Vec<Item> = found.iter().map(|(_, item)| *item).collect();
        assert_eq!(items, pictures(0..10), "{source}");
        let lasted = found.last().expect("some").0 - found[0].0;
        // Timers count milliseconds.
        let expected = Duration::from_millis(10 * FRAGMENT_MS - PICTURE_MS);
        assert!(lasted.abs_diff(expected) <= Duration::from_millis(2), "{source}: {lasted:?}");
        let report = rig.state(IngestState::Stopped).await;
        assert_eq!(report.problem.map(|problem| problem.reason), Some(Reason::SessionEnded), "{source}");
        assert_eq!((report.clock, *rig.left_out.borrow()), (Some(ClockSource::Producer), 0), "{source}");
        rig.clock.sleep(S * 60).await;
        assert!(rig.is_alive(), "{source}");
        rig.stop().await;
    }
}

/// Far more errors in a row than the ten after which the library gives up by default.
#[tokio::test(start_paused = true)]
async fn an_hour_without_a_network_ends_no_live_stream() {
    for source in ["hls", "getmedia"] {
        let mut rig = Rig::start(Rig::kvs(1).await, &format!("source = \"{source}\""));
        let camera = rig.films(1..1_900);
        let before = rig.until(last_of(9)).await;
        assert!(before.ends_with(&pictures(2..10)), "{source}");
        rig.network.down(true);
        let report = rig.state(IngestState::BackingOff).await;
        let problem = report.problem.expect("it says why");
        assert_eq!(problem.reason, Reason::Unreachable, "{source}: {problem}");
        rig.clock.sleep(S * 3_600).await;
        let report = rig.report.borrow().clone();
        assert_eq!((report.state, report.transport), (IngestState::BackingOff, Some(source)));
        assert!(report.attempts > 50 && rig.is_alive(), "{source}: {}", report.attempts);
        rig.network.down(false);
        let report = rig.state(IngestState::Live).await;
        assert_eq!((report.problem, report.attempts), (None, 0), "{source}");
        // What was filmed meanwhile is not read again: it goes on with the newest, behind a break.
        let after = rig.until(last_of(1_890)).await;
        let gap = after.iter().rposition(Option::is_none).expect("a break");
        let first = after[gap + 1].expect("a picture") / PICTURES;
        assert!((1_790..1_880).contains(&first), "{source}: {first}");
        assert_eq!(after[gap + 1..], pictures(first..1_891), "{source}");
        assert_eq!(*rig.left_out.borrow(), 0, "{source}");
        camera.await.expect("filmed");
        rig.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_range_goes_on_behind_an_hour_without_a_network_where_it_was() {
    let range = "[camera.kvs]\nfrom = \"2026-11-20T15:08:34Z\"\nto = \"2026-11-20T16:08:34Z\"";
    for source in ["hls", "fragment_list"] {
        let mut rig = Rig::start(Rig::kvs(200).await, &format!("source = \"{source}\"\n{range}"));
        let mut found = rig.until(last_of(9)).await;
        rig.network.down(true);
        let report = rig.state(IngestState::BackingOff).await;
        assert_eq!(report.problem.map(|problem| problem.reason), Some(Reason::Unreachable), "{source}");
        rig.clock.sleep(S * 3_600).await;
        assert!(rig.report.borrow().attempts > 50 && rig.is_alive(), "{source}");
        rig.network.down(false);
        found.extend(rig.until(last_of(199)).await);
        found.retain(Option::is_some);
        assert_eq!(found, pictures(0..200), "{source}");
        assert_eq!(*rig.left_out.borrow(), 0, "{source}");
        rig.state(IngestState::Stopped).await;
        rig.stop().await;
    }
}

#[test]
fn a_fragment_is_told_once_another_one_has_begun() {
    let mut run = Run {
        fanout: Fanout::unrecorded(),
        pace: None,
        last: None,
        gop: None,
        open: None,
        untold: VecDeque::new(),
        begun: Clock::system().now(),
        resets: 0,
        errors: 0,
    };
    let (at, number) = (ProducerTimestamp::from_millis, |n| FragmentNumber::new(n, 1_000, 7));
    for (ms, n) in [(1_000, 1), (1_080, 1), (1_040, 1), (3_000, 2)] {
        run.note(at(ms), Some(number(n)));
    }
    let told = Persisted { start: at(1_000), end: at(1_080), number: number(1) };
    assert_eq!(run.untold, [told]);
    run.note(at(5_000), None);
    assert_eq!(run.untold.len(), 1, "what says nothing of its fragment is in none");
}
