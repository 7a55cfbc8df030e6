//! JSON operations and media answers against a peer that the test plays: what is asked, and what is learnt.

mod peer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use kvs::api::{
    FragmentSelector, FragmentSelectorType, GetImagesInput, GetMediaForFragmentListInput, Image, ImageFormat,
    ListFragmentsInput, StartSelector, StreamId, TimestampRange,
};
use kvs_client::{
    Action, Client, Clock, Credentials, Error, MediaStream, Retention, ServiceErrorKind,
    SharedCredentialsProvider, kvs,
};
use peer::{Peer, Talk, within};
use serde_json::json;

fn cam1() -> StreamId {
    StreamId::name("cam1")
}

fn info(version: &str, hours: u32) -> String {
    let info = json!({
        "StreamName": "cam1", "StreamARN": "arn:x", "Version": version, "Status": "ACTIVE",
        "CreationTime": 1795186073.6, "DataRetentionInHours": hours,
    });
    json!({ "StreamInfo": info }).to_string()
}

fn refused(kind: &str) -> String {
    format!("x-amzn-ErrorType: {kind}\r\n")
}

#[tokio::test]
async fn the_error_in_a_successful_answer_is_an_error() {
    let peer = Peer::start().await;
    let trap =
        r#"{"Output":{"__type":"com.amazon.coral.service#UnknownOperationException"},"Version":"1.0"}"#;
    let (client, stream) = (peer.client(), cam1());
    let (error, _) =
        tokio::join!(client.describe_stream(&stream), peer.serve(200, "x-amzn-RequestId: r-9\r\n", trap));
    let error = error.unwrap_err();
    assert!(
        matches!(&error, Error::UnknownOperation { exception, .. } if exception == "UnknownOperationException")
    );
    assert_eq!((error.action(), error.request_id()), (Action::Stop, Some("r-9")));

    let (media, _) = tokio::join!(client.get_media(&stream, StartSelector::now()), peer.serve(200, "", trap));
    let error = within(media.unwrap().next_bytes()).await.unwrap_err();
    assert!(matches!(error, Error::UnknownOperation { .. }), "{error:?}");
}

#[tokio::test]
async fn an_unexpected_answer_is_named() {
    let peer = Peer::start().await;
    let (client, stream) = (peer.client(), cam1());
    for body in ["", "[]", r#"{"StreamInfo":{"StreamName":"cam1"}}"#, "<html>"] {
        let (error, _) = tokio::join!(client.describe_stream(&stream), peer.serve(200, "", body));
        let error = error.unwrap_err();
        assert!(matches!(error, Error::BadResponse { .. }), "{body}: {error:?}");
    }
    let input = ListFragmentsInput { stream: cam1(), ..Default::default() };
    let (empty, _) = tokio::join!(client.list_fragments(&input), peer.serve(200, "", "{}"));
    assert_eq!(empty.unwrap().fragments, []);
}

#[tokio::test]
async fn retention_is_raised_by_the_difference_and_never_lowered() {
    let peer = Peer::start().await;
    let (client, stream) = (peer.client(), cam1());
    let service = async {
        assert_eq!(peer.serve(200, "", &info("v1", 5)).await.0, "/describeStream");
        let (path, input) = peer.serve(400, &refused("VersionMismatchException"), "{}").await;
        assert_eq!((path.as_str(), input["CurrentVersion"].as_str()), ("/updateDataRetention", Some("v1")));
        peer.serve(200, "", &info("v2", 10)).await;
        peer.serve(200, "", "").await.1
    };
    let (retention, update) = tokio::join!(client.ensure_retention(&stream, 24), service);
    assert_eq!(retention.unwrap(), Retention::Raised { from_hours: 10, to_hours: 24 });
    let expected = json!({
        "StreamName": "cam1", "CurrentVersion": "v2", "Operation": "INCREASE_DATA_RETENTION",
        "DataRetentionChangeInHours": 14,
    });
    assert_eq!(update, expected);

    let info = info("v3", 48);
    let (retention, _) = tokio::join!(client.ensure_retention(&stream, 24), peer.serve(200, "", &info));
    assert_eq!(retention.unwrap(), Retention::Kept { hours: 48 });
}

#[tokio::test]
async fn pages_of_fragments_are_followed_to_the_end() {
    let peer = Peer::start().await;
    let (client, stream) = (peer.client(), cam1());
    let page = |names: &[&str], token: Option<&str>| {
        let row = |name: &&str| {
            json!({ "FragmentNumber": name, "FragmentSizeInBytes": 1, "ProducerTimestamp": 1.5,
                    "ServerTimestamp": 2.5, "FragmentLengthInMilliseconds": 1000 })
        };
        json!({ "Fragments": names.iter().map(row).collect::<Vec<_>>(), "NextToken": token }).to_string()
    };
    let selector = FragmentSelector {
        fragment_selector_type: FragmentSelectorType::ServerTimestamp,
        timestamp_range: TimestampRange { start_timestamp: 1.0, end_timestamp: 2.0 },
    };
    let service = async {
        let first = peer.serve(200, "", &page(&["1", "2"], Some("t1"))).await.1;
        assert_eq!((&first["MaxResults"], first.get("NextToken")), (&json!(1000), None));
        let second = peer.serve(200, "", &page(&[], Some("t2"))).await.1;
        assert_eq!((&second["MaxResults"], &second["NextToken"]), (&json!(1000), &json!("t1")));
        assert_eq!(second["FragmentSelector"], first["FragmentSelector"]);
        peer.serve(200, "", &page(&["3"], None)).await;
    };
    let (listing, ()) = tokio::join!(client.list_all_fragments(&stream, selector.clone()), service);
    let listing = listing.unwrap();
    let names: Vec<_> = listing.iter().map(|row| row.fragment_number.as_str()).collect();
    assert_eq!(names, ["1", "2", "3"]);

    // A page that failed is asked for again, and a list without an end is told, not cut.
    let mut pages = client.fragment_pages(&stream, selector.clone());
    let service = async {
        peer.serve(200, "", &page(&["1"], Some("t1"))).await;
        peer.serve(400, &refused("ClientLimitExceededException"), "{}").await;
        assert_eq!(peer.serve(200, "", &page(&["2"], Some("t2"))).await.1["NextToken"], json!("t1"));
    };
    let asking = async {
        assert_eq!(pages.next_page().await.unwrap().map(|page| page.len()), Some(1));
        assert_eq!(pages.next_page().await.unwrap_err().action(), Action::RetrySlower);
        assert_eq!(pages.next_page().await.unwrap().map(|page| page.len()), Some(1));
    };
    tokio::join!(asking, service);
    let again = page(&["3"], Some("t2"));
    let (error, _) = tokio::join!(pages.next_page(), peer.serve(200, "", &again));
    assert!(error.unwrap_err().to_string().contains("the list has no end: the same NextToken twice"));
    let (error, ()) = tokio::join!(client.list_all_fragments(&stream, selector), async {
        for n in 0..100 {
            peer.serve(200, "", &page(&[], Some(&format!("t{n}")))).await;
        }
    });
    assert!(error.unwrap_err().to_string().contains("the list has no end: 100 empty pages"));
}

#[tokio::test]
async fn pages_of_pictures_are_followed_to_the_end() {
    let peer = Peer::start().await;
    let page = |content: &str, token: Option<&str>| {
        json!({ "Images": [{ "TimeStamp": 1.5, "ImageContent": content }], "NextToken": token }).to_string()
    };
    let client = peer.client();
    let by = FragmentSelectorType::ServerTimestamp;
    let input = GetImagesInput::new(cam1(), by, 1_500, 9_000, ImageFormat::Png);
    let mut pages = client.image_pages(input.clone());
    let service = async {
        let (path, asked) = peer.serve(200, "", &page("AQID", Some("t1"))).await;
        assert_eq!(path, "/getImages");
        let expected = json!({
            "StreamName": "cam1", "ImageSelectorType": "SERVER_TIMESTAMP", "StartTimestamp": 1.5, "EndTimestamp": 9.0,
            "Format": "PNG",
        });
        assert_eq!(asked, expected);
        peer.serve(400, &refused("ClientLimitExceededException"), "{}").await;
        assert_eq!(peer.serve(200, "", &page("BA==", None)).await.1["NextToken"], json!("t1"));
    };
    let asking = async {
        let content = |images: Vec<Image>| images[0].image_content.clone().expect("there");
        assert_eq!(pages.next_page().await.unwrap().map(content), Some(vec![1, 2, 3]));
        assert_eq!(pages.next_page().await.unwrap_err().action(), Action::RetrySlower);
        assert_eq!(pages.next_page().await.unwrap().map(content), Some(vec![4]));
        assert_eq!(pages.next_page().await.unwrap(), None);
    };
    tokio::join!(asking, service);
    let mut pages = client.image_pages(input);
    for n in 0..2 {
        let same = page("", Some("t1"));
        let (answer, _) = tokio::join!(pages.next_page(), peer.serve(200, "", &same));
        assert_eq!(answer.is_err(), n == 1, "{answer:?}");
    }
}

#[tokio::test]
async fn the_data_endpoint_is_asked_once_and_again_when_it_is_no_longer_right() {
    let (control, data) = (Peer::start().await, Peer::start().await);
    let mut config = control.config();
    (config.endpoints.media, config.endpoints.archived) = (None, None);
    let client = Client::new(config).unwrap();
    let answer = json!({ "DataEndpoint": data.endpoint.to_string() }).to_string();
    let input = ListFragmentsInput { stream: cam1(), ..Default::default() };

    let (listed, (path, asked), _) = tokio::join!(
        client.list_fragments(&input),
        control.serve(200, "", &answer),
        data.serve(200, "", "{}")
    );
    listed.unwrap();
    assert_eq!(path, "/getDataEndpoint");
    assert_eq!(asked, json!({ "StreamName": "cam1", "APIName": "LIST_FRAGMENTS" }));
    let (listed, _) = tokio::join!(client.list_fragments(&input), data.serve(200, "", "{}"));
    listed.unwrap();

    let invalid = refused("InvalidEndpointException");
    let (error, _) = tokio::join!(client.list_fragments(&input), data.serve(400, &invalid, "{}"));
    assert_eq!(error.unwrap_err().action(), Action::RefreshEndpoint);
    let gone = json!({ "DataEndpoint": nobody().await }).to_string();
    let (error, _) = tokio::join!(client.list_fragments(&input), control.serve(200, "", &gone));
    let error = error.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }) && error.action() == Action::RefreshEndpoint, "{error:?}");
    let (listed, _, _) = tokio::join!(
        client.list_fragments(&input),
        control.serve(200, "", &answer),
        data.serve(200, "", "{}")
    );
    listed.unwrap();
}

/// An endpoint at which nothing listens.
async fn nobody() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_wrong_clock_is_corrected_for_the_next_signature() {
    let peer = Peer::in_memory(4_096);
    let mut config = peer.config();
    // A device without a battery.
    config.clock = Clock::simulated(SystemTime::UNIX_EPOCH + Duration::from_secs(1));
    let client = Client::new(config).unwrap();
    let headers = format!("{}date: Sat, 21 Nov 2026 08:00:00 GMT\r\n", refused("InvalidSignatureException"));
    let body = r#"{"message":"Signature expired: 19700101T000001Z is now earlier than 20261121T075500Z"}"#;
    let stream = cam1();
    let (error, _) = tokio::join!(client.describe_stream(&stream), peer.serve(403, &headers, body));
    let server_time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_248_000);
    let error = error.unwrap_err();
    assert_eq!(error.service_kind(), Some(&ServiceErrorKind::ClockSkew));
    assert_eq!(error.action(), Action::FixClock { server_time });
    assert_eq!(client.service_time().unwrap().offset_ms, 1_795_247_999_000);

    let (described, date) = tokio::join!(client.describe_stream(&stream), async {
        let mut talk = peer.accept().await;
        talk.answer(200, "", &info("v1", 1)).await;
        talk.headers["x-amz-date"].clone()
    });
    described.unwrap();
    assert_eq!(date, "20261121T080000Z");
}

/// Hands out key1, key2, ... which last long.
#[derive(Debug, Default)]
struct Numbered(Arc<AtomicU32>);

impl aws_credential_types::provider::ProvideCredentials for Numbered {
    fn provide_credentials<'a>(&'a self) -> aws_credential_types::provider::future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let number = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        let end = Clock::system().wall() + Duration::from_secs(3600);
        let keys =
            Credentials::new(format!("key{number}"), "secret", Some("token".to_owned()), Some(end), "test");
        aws_credential_types::provider::future::ProvideCredentials::ready(Ok(keys))
    }
}

#[tokio::test]
async fn keys_that_the_service_calls_expired_are_not_used_again() {
    let peer = Peer::start().await;
    let mut config = peer.config();
    config.credentials = SharedCredentialsProvider::new(Numbered::default());
    let client = Client::new(config).unwrap();
    let stream = cam1();
    for (status, key) in [(200, "key1/"), (403, "key1/"), (200, "key2/")] {
        let serve = async {
            let mut talk = peer.accept().await;
            assert_eq!(talk.headers["x-amz-security-token"], "token");
            talk.answer(status, &refused("ExpiredTokenException"), &info("v1", 1)).await;
            talk.headers["authorization"].clone()
        };
        let (described, authorization) = tokio::join!(client.describe_stream(&stream), serve);
        assert!(authorization.contains(key), "{authorization}");
        assert_eq!(
            described.err().map(|error| error.action()),
            (status == 403).then_some(Action::RefreshCredentials)
        );
    }
}

/// Every answer tells the service's time, not only refusals.
#[tokio::test(start_paused = true)]
async fn each_answer_tells_the_service_s_time() {
    let peer = Peer::in_memory(4_096);
    let (mut config, server_time) =
        (peer.config(), SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_248_000));
    config.clock = Clock::simulated(server_time - Duration::from_secs(100));
    let (client, clock, stream) = (Client::new(config.clone()).unwrap(), config.clock, cam1());
    assert_eq!(client.service_time(), None);
    let date = "date: Sat, 21 Nov 2026 08:00:00 GMT\r\n";
    let begin = clock.now();
    let (described, _) = tokio::join!(client.describe_stream(&stream), async {
        let mut talk = peer.accept().await;
        clock.sleep(Duration::from_millis(2_500)).await;
        talk.answer(200, date, &info("v1", 1)).await;
    });
    described.unwrap();
    let known = client.service_time().unwrap();
    assert_eq!((known.now, known.offset_ms), (server_time, 97_500));
    assert_eq!((known.error, known.observed), (Duration::from_millis(3_500), clock.now()));
    assert_eq!(clock.since(begin), Duration::from_millis(2_500));
    assert!(known.is_off_by_more_than(Duration::from_secs(90)));

    // PutMedia and GetMedia tell it with their heads.
    for path in ["/putMedia", "/getMedia"] {
        let client = Client::new(kvs_client::Config { clock: clock.clone(), ..peer.config() }).unwrap();
        let asking = async {
            if path == "/getMedia" {
                client.get_media(&stream, StartSelector::now()).await.map(drop)
            } else {
                let input = kvs_client::PutMediaInput {
                    stream: stream.clone(),
                    timecode_type: kvs_client::TimecodeType::Absolute,
                    start_ms: 0,
                    write_timeout: None,
                };
                client.put_media(&input).await.unwrap().acks.accepted().await
            }
        };
        let (answered, ()) = tokio::join!(asking, async {
            let mut talk = peer.accept().await;
            assert!(talk.request.contains(path));
            talk.write(&format!("HTTP/1.1 200 OK\r\n{date}Transfer-Encoding: chunked\r\n\r\n")).await;
        });
        answered.unwrap();
        assert_eq!(client.service_time().unwrap().now, server_time, "{path}");
    }
}

async fn get_media(peer: &Peer) -> (MediaStream, Talk) {
    let client = peer.client();
    let stream = cam1();
    let serve = async {
        let mut talk = peer.accept().await;
        talk.begin().await;
        talk
    };
    let (media, talk) = tokio::join!(client.get_media(&stream, StartSelector::earliest()), serve);
    (media.unwrap(), talk)
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_lives_and_an_idle_limit_loses_nothing() {
    let (mut media, mut talk) = get_media(&Peer::in_memory(4_096)).await;
    assert_eq!(media.request_id().as_deref(), Some("r-1"));
    media.set_idle_limit(Some(Duration::from_secs(20)));
    for text in ["one", "two"] {
        let error = within(media.next_bytes()).await.unwrap_err();
        assert!(matches!(error, Error::Timeout { what: "media", .. }), "{error:?}");
        talk.write_chunk(text).await;
        media.set_idle_limit(None);
        assert_eq!(within(media.next_bytes()).await.unwrap().as_deref(), Some(text.as_bytes()));
        media.set_idle_limit(Some(Duration::from_secs(20)));
    }
    talk.end().await;
    media.set_idle_limit(None);
    assert_eq!(within(media.next_bytes()).await.unwrap(), None);
}

#[tokio::test]
async fn a_cut_answer_is_an_error_and_a_dropped_stream_closes() {
    let peer = Peer::start().await;
    let (mut media, mut talk) = get_media(&peer).await;
    talk.write("10\r\nhalf").await;
    drop(talk);
    assert_eq!(within(media.next_bytes()).await.unwrap().as_deref(), Some(&b"half"[..]));
    let error = within(media.next_bytes()).await.unwrap_err();
    assert!(matches!(error, Error::Interrupted { .. }), "{error:?}");
    assert_eq!((error.action(), error.request_id()), (Action::Retry, Some("r-1")));

    let (media, talk) = get_media(&peer).await;
    drop(media);
    talk.until_closed().await;
}

#[tokio::test]
async fn a_list_of_no_or_too_many_fragments_is_not_sent() {
    let client = Peer::start().await.client();
    for count in [0, 1001] {
        let input = GetMediaForFragmentListInput { stream: cam1(), fragments: vec!["1".to_owned(); count] };
        let error = within(client.get_media_for_fragment_list(&input)).await.unwrap_err();
        assert!(matches!(error, Error::BadRequest { .. }), "{error:?}");
    }
}
