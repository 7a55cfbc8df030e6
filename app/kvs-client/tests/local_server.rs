//! The whole client against a whole server: what is put comes back, and what is wrong is told.

mod peer;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use kvs::FragmentNumber;
use kvs::ack::{Ack, AckEvent};
use kvs::api::{
    CreateStreamInput, DeleteStreamInput, FragmentSelector, FragmentSelectorType,
    GetMediaForFragmentListInput, ListFragmentsInput, ListStreamsInput, StartSelector, StreamId,
    StreamStatus, TimestampRange,
};
use kvs_client::{
    Action, Client, Clock, Config, Error, MediaStream, PutMedia, PutMediaInput, Retention, ServiceErrorKind,
    SharedDialler, TimecodeType, kvs, static_credentials,
};
use kvs_local::{At, Fault, FaultKind, KvsLocal, Options};
use media::mkv::read::{EventKind, Limits, Parser};
use media::mkv::write::{Track, block_head, cluster_start, header};
use media::{VideoCodec, VideoFormat};
use peer::within;

const REGION: &str = "us-west-2";

/// 2026-11-20T15:08:34Z.
const BEGIN_MS: u64 = 1_795_187_314_000;
/// What a connection holds each way.
const BUFFER_BYTES: usize = 64 * 1024;

struct Server {
    local: KvsLocal,
    clock: Clock,
    _data: tempfile::TempDir,
}

/// `cam1` is there and keeps for a day.
async fn server() -> Server {
    server_with(|_| {}).await
}

async fn server_with(change: impl FnOnce(&mut Options)) -> Server {
    let data = tempfile::tempdir().unwrap();
    let mut options = Options::new(data.path()).stream("cam1", 24);
    let clock = Clock::simulated(UNIX_EPOCH + Duration::from_millis(BEGIN_MS));
    options.clock = clock.clone();
    change(&mut options);
    Server { local: KvsLocal::start_in_memory(options).await.unwrap(), clock, _data: data }
}

impl Server {
    fn config(&self) -> Config {
        let mut config = Config::new(REGION, static_credentials("AKIDKVSLOCAL", "kvs-local-secret", None));
        config.endpoints.control = Some(self.local.endpoint().parse().unwrap());
        config.clock = self.clock.clone();
        config.dialler = self.dialler(BUFFER_BYTES);
        config
    }

    fn dialler(&self, buffer_bytes: usize) -> SharedDialler {
        let connector = self.local.connector();
        SharedDialler::from_fn(move |_host, _port| std::future::ready(connector.connect(buffer_bytes)))
    }

    fn client(&self) -> Client {
        Client::new(self.config()).unwrap()
    }
}

fn cam1() -> StreamId {
    StreamId::name("cam1")
}

/// Head of a file, and its clusters: each 1 s long with two blocks, the first a key frame.
fn file(first_ms: u64, clusters: u64, block_bytes: usize) -> (Bytes, Vec<Bytes>) {
    let format = VideoFormat {
        codec: VideoCodec::H264,
        codec_private: Bytes::from_static(&[1, 0x42, 0xc0, 0x1e, 0xff, 0xe0, 0]),
        width: 640,
        height: 360,
        frame_rate: None,
    };
    let cluster = |n: u64| {
        let mut bytes = cluster_start(first_ms + n * 1000).to_vec();
        for (offset_ms, key_frame) in [(0, true), (500, false)] {
            let payload: Vec<u8> =
                (0..block_bytes).map(|at| (at * 31 + usize::try_from(n).unwrap()).to_le_bytes()[0]).collect();
            bytes.extend_from_slice(&block_head(1, offset_ms, key_frame, payload.len()));
            bytes.extend_from_slice(&payload);
        }
        Bytes::from(bytes)
    };
    (header([7; 16], "test", &[Track::Video(Arc::new(format))]), (0..clusters).map(cluster).collect())
}

fn put_input(stream: StreamId) -> PutMediaInput {
    PutMediaInput { stream, timecode_type: TimecodeType::Absolute, start_ms: BEGIN_MS, write_timeout: None }
}

/// Sends the file and gives all acks, in the order in which they came.
async fn put(client: &Client, header: &Bytes, clusters: &[Bytes]) -> Result<Vec<Ack>, Error> {
    let PutMedia { mut sender, mut acks } = client.put_media(&put_input(cam1())).await?;
    let sending = async {
        sender.send(header.clone()).await?;
        for cluster in clusters {
            sender.send(cluster.clone()).await?;
        }
        sender.finish().await
    };
    let hearing = async {
        let mut heard = Vec::new();
        while let Some(ack) = acks.next_ack().await? {
            heard.push(ack);
        }
        Ok(heard)
    };
    let (sent, heard) = within(async { tokio::join!(sending, hearing) }).await;
    let heard = heard?;
    sent?;
    Ok(heard)
}

fn numbers(acks: &[Ack], event: &AckEvent) -> Vec<FragmentNumber> {
    acks.iter().filter(|ack| ack.event == *event).map(|ack| ack.number.expect("a number")).collect()
}

/// Clusters as they stand in the answer, up to `count` of them, and the tags of the whole.
async fn clusters(
    media: &mut MediaStream,
    count: usize,
) -> Result<(Vec<Vec<u8>>, Vec<(String, String)>), Error> {
    let (mut parser, mut clusters, mut tags, mut inside) =
        (Parser::new(Limits::default()), Vec::new(), Vec::new(), false);
    let mut closed = 0;
    while let Some(bytes) = within(media.next_bytes()).await? {
        parser.push(bytes);
        while let Some(event) = parser.next_event().expect("well-formed") {
            match &event.kind {
                EventKind::ClusterStart { .. } => {
                    inside = true;
                    clusters.push(Vec::new());
                }
                EventKind::ClusterEnd => {
                    inside = false;
                    closed += 1;
                }
                EventKind::Element { id: media::mkv::id::TAGS } => {
                    tags.extend(media::mkv::elements::tags::parse(event.body()).expect("tags"));
                }
                _ => {}
            }
            if inside {
                clusters.last_mut().expect("one was opened").extend_from_slice(&event.raw);
            }
        }
        if closed == count {
            break;
        }
    }
    Ok((clusters, tags))
}

fn tag<'a>(tags: &'a [(String, String)], name: &str) -> Option<&'a str> {
    tags.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

fn last_day() -> FragmentSelector {
    let now = kvs::api::seconds(BEGIN_MS);
    FragmentSelector {
        fragment_selector_type: FragmentSelectorType::ServerTimestamp,
        timestamp_range: TimestampRange { start_timestamp: now - 86_400.0, end_timestamp: now + 60.0 },
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_put_comes_back_byte_for_byte_by_every_way_there_is() {
    let server = server().await;
    let client = server.client();
    let first_ms = BEGIN_MS;
    let (header, sent) = file(first_ms, 4, 70_000);
    let acks = put(&client, &header, &sent).await.unwrap();
    let persisted = numbers(&acks, &AckEvent::Persisted);
    assert_eq!(persisted.len(), 4, "{acks:?}");
    assert_eq!(numbers(&acks, &AckEvent::Buffering), persisted);
    assert_eq!(numbers(&acks, &AckEvent::Received), persisted);

    let mut media = client.get_media(&cam1(), StartSelector::earliest()).await.unwrap();
    let (found, tags) = clusters(&mut media, 4).await.unwrap();
    assert!(found == sent, "clusters differ");
    let token = tag(&tags, kvs::tag::CONTINUATION_TOKEN).expect("a token").to_owned();
    drop(media);

    let starts = [
        ("after the first", StartSelector::after(persisted[0])),
        ("token of the first", StartSelector::continuation(token)),
        // By server time all four overlap, as they were sent faster than they play: the earliest counts.
        ("server time of the first", StartSelector::server_timestamp_ms(persisted[0].server_time_ms())),
        ("producer time of the second", StartSelector::producer_timestamp_ms(first_ms + 1000)),
    ];
    for (what, start) in starts {
        let mut media = client.get_media(&cam1(), start).await.unwrap();
        let (found, tags) = clusters(&mut media, 1).await.unwrap();
        let number = tag(&tags, kvs::tag::FRAGMENT_NUMBER).unwrap().parse::<FragmentNumber>().unwrap();
        let expected = usize::from(!what.starts_with("server"));
        assert!((number, &found[0][..]) == (persisted[expected], &sent[expected][..]), "{what}: {number}");
    }

    let listing = client.list_all_fragments(&cam1(), last_day()).await.unwrap();
    let mut listed: Vec<FragmentNumber> =
        listing.iter().map(|row| row.fragment_number.parse().unwrap()).collect();
    listed.sort();
    assert_eq!(listed, persisted);

    let wanted = [persisted[3], persisted[1]].map(|number| number.to_string()).to_vec();
    let input = GetMediaForFragmentListInput { stream: cam1(), fragments: wanted };
    let mut media = client.get_media_for_fragment_list(&input).await.unwrap();
    let (mut found, _) = clusters(&mut media, usize::MAX).await.unwrap(); // this answer has an end
    found.sort_by_key(|cluster| sent.iter().position(|sent| sent == cluster));
    assert!(found == [&sent[1][..], &sent[3][..]], "clusters differ");

    let asked = server.local.calls()["/getDataEndpoint"];
    assert_eq!(asked, 4, "once for each data operation, however often it was used");
}

#[tokio::test(start_paused = true)]
async fn live_media_is_read_while_it_is_put() {
    let server = server().await;
    let client = server.client();
    let (header, sent) = file(BEGIN_MS, 2, 1_000);
    let PutMedia { mut sender, mut acks } = client.put_media(&put_input(cam1())).await.unwrap();
    sender.send(header).await.unwrap();
    sender.send(sent[0].clone()).await.unwrap();
    let first = within(acks.next_ack()).await.unwrap().expect("an ack");
    assert_eq!(first.event, AckEvent::Buffering);
    let mut media = client.get_media(&cam1(), StartSelector::now()).await.unwrap();
    sender.send(sent[1].clone()).await.unwrap();
    sender.finish().await.unwrap();
    let (found, _) = clusters(&mut media, 1).await.unwrap();
    assert!(sent.iter().any(|cluster| *cluster == found[0]), "one of the two");
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_created_described_raised_listed_and_deleted() {
    let server = server().await;
    let client = server.client();
    let create = CreateStreamInput {
        stream_name: "cam2".to_owned(),
        media_type: Some("video/h264".to_owned()),
        data_retention_in_hours: Some(2),
        ..Default::default()
    };
    let arn = client.create_stream(&create).await.unwrap().stream_arn;
    let again = client.create_stream(&create).await.unwrap_err();
    assert_eq!(again.service_kind(), Some(&ServiceErrorKind::ResourceInUse));
    for stream in [StreamId::name("cam2"), StreamId::arn(&arn)] {
        let info = client.describe_stream(&stream).await.unwrap();
        assert_eq!((info.stream_arn.as_str(), info.status), (arn.as_str(), StreamStatus::Active));
        assert_eq!(info.data_retention_in_hours, 2);
    }
    let stream = StreamId::arn(&arn);
    let raised = client.ensure_retention(&stream, 5).await.unwrap();
    assert_eq!(raised, Retention::Raised { from_hours: 2, to_hours: 5 });
    assert_eq!(client.ensure_retention(&stream, 3).await.unwrap(), Retention::Kept { hours: 5 });

    let streams = client.list_streams(&ListStreamsInput::default()).await.unwrap().stream_info_list;
    let mut names: Vec<_> = streams.iter().map(|info| info.stream_name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["cam1", "cam2"]);
    client.delete_stream(&DeleteStreamInput { stream: stream.clone(), current_version: None }).await.unwrap();
    let error = client.describe_stream(&stream).await.unwrap_err();
    assert_eq!(error.service_kind(), Some(&ServiceErrorKind::ResourceNotFound));
    assert!(error.request_id().is_some(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn keys_that_do_not_fit_are_refused() {
    let server = server().await;
    let cases = [
        ("AKIDKVSLOCAL", "wrong", ServiceErrorKind::InvalidSignature, Action::Stop),
        (
            "AKIDNOBODY",
            "kvs-local-secret",
            ServiceErrorKind::InvalidClientTokenId,
            Action::RefreshCredentials,
        ),
    ];
    for (id, secret, kind, action) in cases {
        let mut config = server.config();
        config.credentials = static_credentials(id, secret, None);
        config.endpoints.media = config.endpoints.control.clone();
        let client = Client::new(config).unwrap();
        let error = client.describe_stream(&cam1()).await.unwrap_err();
        assert_eq!((error.service_kind(), error.action()), (Some(&kind), action), "{error}");
        let mut session = client.put_media(&put_input(cam1())).await.unwrap();
        let error = within(session.acks.next_ack()).await.unwrap_err();
        assert_eq!((error.service_kind(), error.action()), (Some(&kind), action), "{error}");
        assert!(!format!("{error:?}").contains(secret));
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_with_a_wrong_clock_is_told_so_and_works_at_the_next_call() {
    let server = server().await;
    for hours in [-1000_i64, 1] {
        let mut config = server.config();
        let shift = Duration::from_secs(hours.unsigned_abs() * 3600);
        let right = server.clock.wall();
        config.clock = Clock::simulated(if hours < 0 { right - shift } else { right + shift });
        config.endpoints.media = config.endpoints.control.clone();
        let client = Client::new(config).unwrap();
        let mut session = client.put_media(&put_input(cam1())).await.unwrap();
        let error = within(session.acks.next_ack()).await.unwrap_err();
        let Action::FixClock { server_time } = error.action() else { panic!("{error:?}") };
        assert_eq!(server_time, server.clock.wall());
        let known = client.service_time().unwrap();
        assert_eq!((known.now, known.offset_ms), (server_time, -hours * 3_600_000));
        client.describe_stream(&cam1()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_stream_is_named_whether_endpoints_are_asked_for_or_fixed() {
    let server = server().await;
    let missing = put_input(StreamId::name("nobody"));
    let error = server.client().put_media(&missing).await.unwrap_err();
    assert_eq!(
        (error.service_kind(), error.action()),
        (Some(&ServiceErrorKind::ResourceNotFound), Action::Stop)
    );

    let mut config = server.config();
    config.endpoints.media = config.endpoints.control.clone();
    let client = Client::new(config).unwrap();
    let mut session = client.put_media(&missing).await.unwrap();
    let error = within(session.acks.accepted()).await.unwrap_err();
    assert_eq!(
        (error.service_kind(), error.action()),
        (Some(&ServiceErrorKind::ResourceNotFound), Action::Stop)
    );
    let error = client.get_media(&missing.stream, StartSelector::now()).await.unwrap_err();
    assert_eq!(error.service_kind(), Some(&ServiceErrorKind::ResourceNotFound));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_keeps_nothing_has_no_list() {
    let server = server_with(|options| *options = options.clone().stream("live", 0)).await;
    let input = ListFragmentsInput {
        stream: StreamId::name("live"),
        fragment_selector: Some(last_day()),
        ..Default::default()
    };
    let error = server.client().list_fragments(&input).await.unwrap_err();
    let kind = error.service_kind();
    let expected = [ServiceErrorKind::NoDataRetention, ServiceErrorKind::ResourceNotFound];
    assert!(kind.is_some_and(|kind| expected.contains(kind)), "{error}");
    assert_eq!(error.action(), Action::Stop);
}

#[tokio::test(start_paused = true)]
async fn a_second_put_media_is_refused_and_the_first_goes_on() {
    let server = server().await;
    let client = server.client();
    let mut first = client.put_media(&put_input(cam1())).await.unwrap();
    within(first.acks.accepted()).await.unwrap();
    let mut second = client.put_media(&put_input(cam1())).await.unwrap();
    let error = within(second.acks.accepted()).await.unwrap_err();
    assert_eq!(error.service_kind(), Some(&ServiceErrorKind::ConnectionLimitExceeded));
    let (header, sent) = file(BEGIN_MS, 1, 1_000);
    first.sender.send(header).await.unwrap();
    first.sender.send(sent[0].clone()).await.unwrap();
    assert_eq!(within(first.acks.next_ack()).await.unwrap().map(|ack| ack.event), Some(AckEvent::Buffering));
}

#[tokio::test(start_paused = true)]
async fn an_error_ack_comes_before_the_end_and_a_cut_is_no_end() {
    let server = server().await;
    let client = server.client();
    let (header, sent) = file(BEGIN_MS, 3, 1_000);
    server
        .local
        .faults()
        .inject(Fault::on("cam1", FaultKind::AckError { id: 4002, fragment: 2, at: At::default() }));
    let PutMedia { mut sender, mut acks } = client.put_media(&put_input(cam1())).await.unwrap();
    for piece in std::iter::once(&header).chain(&sent) {
        let _ = sender.send(piece.clone()).await; // the service may close at any of them
    }
    let error = loop {
        let ack = within(acks.next_ack()).await.unwrap().expect("the error comes first");
        if let AckEvent::Error(error) = ack.event {
            break error;
        }
    };
    assert_eq!(error.id, 4002);
    drop((sender, acks));

    server.local.faults().inject(Fault::on("cam1", FaultKind::CutGetMedia { after_bytes: 700 }));
    let mut media = client.get_media(&cam1(), StartSelector::earliest()).await.unwrap();
    let error = clusters(&mut media, 1).await.unwrap_err();
    assert!(matches!(error, Error::Interrupted { .. }), "{error:?}");
    assert_eq!(error.action(), Action::Retry);
}

#[tokio::test(start_paused = true)]
async fn a_private_certificate_works_once_it_is_trusted() {
    let own = rcgen::generate_simple_self_signed(["kvs-local.invalid".to_owned()]).unwrap();
    let (certificate_pem, key_pem) = (own.cert.pem(), own.signing_key.serialize_pem());
    let tls = kvs_local::Tls { certificate_pem: certificate_pem.clone().into(), key_pem: key_pem.into() };
    let server = server_with(|options| options.tls = Some(tls)).await;
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, certificate_pem).unwrap();

    let mut config = server.config();
    config.extra_ca_pem = Some(ca);
    let client = Client::new(config.clone()).unwrap();
    let (header, sent) = file(BEGIN_MS, 3, 300_000);
    let acks = put(&client, &header, &sent).await.unwrap();
    assert_eq!(numbers(&acks, &AckEvent::Persisted).len(), 3);
    let mut media = client.get_media(&cam1(), StartSelector::earliest()).await.unwrap();
    assert!(clusters(&mut media, 3).await.unwrap().0 == sent, "clusters differ");

    let other = rcgen::generate_simple_self_signed(["kvs-local.invalid".to_owned()]).unwrap();
    let wrong = directory.path().join("other.pem");
    std::fs::write(&wrong, other.cert.pem()).unwrap();
    config.extra_ca_pem = Some(wrong);
    let error = Client::new(config.clone()).unwrap().describe_stream(&cam1()).await.unwrap_err();
    assert!(matches!(error, Error::Tls { .. }) && error.action() == Action::Stop, "{error:?}");
    assert!(!error.to_string().is_empty() && std::error::Error::source(&error).is_some());

    let plain = server.local.endpoint().replace("https", "http").parse().unwrap();
    config.endpoints.control = Some(plain);
    let error = Client::new(config).unwrap().describe_stream(&cam1()).await.unwrap_err();
    assert!(
        matches!(error, Error::Interrupted { .. } | Error::Service { .. }),
        "plain HTTP to TLS: {error:?}"
    );
}
