//! Streams, signatures and connections, as far as outside clients do not cover them.

use std::time::Duration;

use kvs_local::{Clock, Credentials};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Rig, in_time, persisted};
use crate::mkv::{body, end_of_fragment};

#[tokio::test]
async fn a_wrong_path_is_answered_like_the_service_does() {
    let rig = Rig::new(1).await;
    for path in ["/PutMedia", "/putmedia", "/", "/getHlsStreamingSessionURL", "/putMedia/"] {
        let answer = rig.client.call(path, json!({})).await;
        assert_eq!(answer.status, 200);
        assert!(answer.headers.contains_key("x-amzn-requestid"));
        assert_eq!(answer.json()["Output"]["__type"], "com.amazon.coral.service#UnknownOperationException");
    }
    for body in ["{", "[]x", "{\"StreamName\": 7}", "\u{0}"] {
        let answer = rig.client.call_raw("/describeStream", body.as_bytes().to_vec()).await;
        assert_eq!(answer.status, 200, "{body}");
        assert_eq!(answer.json()["Output"]["__type"], "com.amazon.coral.service#SerializationException");
    }
    let error = rig.client.call("/createStream", json!({})).await.error();
    assert_eq!(error, (400, "InvalidArgumentException".to_owned()));
}

#[tokio::test]
async fn every_operation_wants_a_good_signature() {
    let rig = Rig::new(1).await;
    let mut wrong = rig.client.clone();
    wrong.credentials.secret_key.push('x');
    let mut unknown = rig.client.clone();
    unknown.credentials.access_key.push('x');
    let mut late = rig.client.clone();
    late.clock = Clock::simulated(Clock::system().wall() - Duration::from_secs(6 * 60));
    for path in [
        "/createStream",
        "/describeStream",
        "/listStreams",
        "/updateStream",
        "/deleteStream",
        "/getDataEndpoint",
        "/updateDataRetention",
        "/tagStream",
        "/untagStream",
        "/listTagsForStream",
        "/getMedia",
        "/listFragments",
        "/getMediaForFragmentList",
    ] {
        let call = async |client: &crate::client::Client| {
            let answer = client.call(path, json!({ "StreamName": "cam1" })).await;
            assert!(answer.json()["message"].is_string(), "the gateway writes it in lower case");
            answer.error()
        };
        assert_eq!(call(&wrong).await, (403, "InvalidSignatureException".to_owned()), "{path}");
        assert_eq!(call(&unknown).await, (403, "UnrecognizedClientException".to_owned()));
        assert_eq!(call(&late).await, (403, "InvalidSignatureException".to_owned()));
    }
    let refused = wrong.put_media_as("cam1", "ABSOLUTE", "0").await.err().expect("refused");
    assert_eq!(refused.error(), (403, "InvalidSignatureException".to_owned()));
    let refused = late.put_media_as("cam1", "ABSOLUTE", "0").await.err().expect("refused");
    assert!(refused.json()["message"].as_str().expect("text").starts_with("Signature expired: "));
    assert_eq!(rig.server.calls().values().sum::<u64>(), 0);
}

#[tokio::test]
async fn session_tokens_are_checked() {
    let token = Credentials::local().with_token("a/token+with==");
    let rig = Rig::with(1, |options| options.credentials = vec![token]).await;
    let input = json!({ "StreamName": "cam1" });
    assert_eq!(rig.client.call("/describeStream", input.clone()).await.status, 200);
    let mut other = rig.client.clone();
    other.credentials.session_token = Some("old".to_owned());
    assert_eq!(
        other.call("/describeStream", input.clone()).await.error(),
        (403, "ExpiredTokenException".to_owned())
    );
    other.credentials.session_token = None;
    assert_eq!(
        other.call("/describeStream", input).await.error(),
        (403, "UnrecognizedClientException".to_owned())
    );
}

#[tokio::test(start_paused = true)]
async fn a_new_stream_is_creating_for_as_long_as_told() {
    let rig = Rig::in_memory(1, |options| options.create_delay = Duration::from_secs(200)).await;
    let created = rig.client.call("/createStream", json!({ "StreamName": "new" })).await;
    let arn = created.json()["StreamARN"].as_str().expect("text").to_owned();
    assert!(arn.starts_with("arn:aws:kinesisvideo:us-west-2:111122223333:stream/new/"), "{arn}");
    let status = async || {
        let answer = rig.client.call("/describeStream", json!({ "StreamName": "new" })).await.json();
        answer["StreamInfo"]["Status"].as_str().expect("text").to_owned()
    };
    for _ in 0..2 {
        let refused = rig.client.put_media_as("new", "ABSOLUTE", "0").await;
        assert_eq!(refused.err().expect("refused").error(), (404, "ResourceNotFoundException".to_owned()));
        assert_eq!(status().await, "CREATING");
        rig.client.clock.sleep(Duration::from_secs(90)).await;
    }
    rig.client.clock.sleep(Duration::from_secs(20)).await;
    assert_eq!(status().await, "ACTIVE");
    assert!(rig.client.put_media_as("new", "ABSOLUTE", "0").await.is_ok());
}

/// As curl in AWS's producer does: it waits for 100 before it sends, and for acks while it sends.
#[tokio::test]
async fn expect_is_answered_before_the_answer_and_the_answer_before_media() {
    let rig = Rig::new(1).await;
    let headers = [
        ("connection", "keep-alive"),
        ("expect", "100-continue"),
        ("transfer-encoding", "chunked"),
        ("x-amzn-fragment-timecode-type", "ABSOLUTE"),
        ("x-amzn-producer-start-timestamp", "1795186073.633"),
        ("x-amzn-stream-name", "cam1"),
    ];
    let signed = rig.client.request("/putMedia", &headers, b"", ());
    let mut request = "POST /putMedia HTTP/1.1\r\n".to_owned();
    for (name, value) in signed.headers() {
        request += &format!("{name}: {}\r\n", value.to_str().expect("ASCII"));
    }
    let mut socket = TcpStream::connect(rig.client.address()).await.expect("connects");
    socket.write_all(format!("{request}\r\n").as_bytes()).await.expect("sent");
    let mut answer = String::new();
    read_until(&mut socket, &mut answer, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 100 Continue\r\n\r\n"), "{answer}");
    while !answer.contains("HTTP/1.1 200 OK\r\n") || answer.matches("\r\n\r\n").count() < 2 {
        read_until(&mut socket, &mut answer, "\r\n").await;
    }
    let lower = answer.to_lowercase();
    assert!(lower.contains("transfer-encoding: chunked") && lower.contains("x-amzn-requestid: "), "{answer}");

    let media = [body(&[1_000]), end_of_fragment()].concat();
    socket.write_all(format!("{:x}\r\n", media.len()).as_bytes()).await.expect("sent");
    socket.write_all(&[&media[..], b"\r\n"].concat()).await.expect("sent");
    read_until(&mut socket, &mut answer, "PERSISTED").await;
    let positions: Vec<_> =
        ["BUFFERING", "RECEIVED", "PERSISTED"].map(|event| answer.find(event).expect("told")).into();
    assert!(positions.is_sorted());
    assert!(answer.contains(r#""FragmentTimecode":1000"#), "{answer}");
    socket.write_all(b"0\r\n\r\n").await.expect("sent");
    read_until(&mut socket, &mut answer, "0\r\n\r\n").await;
}

async fn read_until(socket: &mut TcpStream, answer: &mut String, end: &str) {
    let before = answer.len();
    while !answer[before..].contains(end) {
        let mut bytes = [0; 4096];
        let length = in_time("answer", socket.read(&mut bytes)).await.expect("readable");
        assert_ne!(length, 0, "closed after {answer}");
        answer.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
}

/// A producer that does not ask before it sends must get to read why it was refused.
#[tokio::test]
async fn a_refusal_reaches_a_producer_that_is_sending() {
    let rig = Rig::new(1).await;
    let mut wrong = rig.client.clone();
    wrong.credentials.secret_key.push('x');
    let signed = wrong.request("/putMedia", &[("transfer-encoding", "chunked")], b"", ());
    let mut request = "POST /putMedia HTTP/1.1\r\n".to_owned();
    for (name, value) in signed.headers() {
        request += &format!("{name}: {}\r\n", value.to_str().expect("ASCII"));
    }
    let mut socket = TcpStream::connect(rig.client.address()).await.expect("connects");
    let media = vec![0; 4 << 20];
    let body = [format!("{request}\r\n{:x}\r\n", media.len()).as_bytes(), &media, b"\r\n0\r\n\r\n"].concat();
    in_time("send", socket.write_all(&body)).await.expect("all of it is read");
    let mut answer = String::new();
    read_until(&mut socket, &mut answer, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
}

#[tokio::test]
async fn what_is_no_http_at_all_harms_nobody() {
    let rig = Rig::new(1).await;
    for bytes in
        [&b"\x16\x03\x01\x02\x00"[..], b"GET", b"POST /putMedia HTTP/1.1\r\n\r\n", b"\0\0\0\0\r\n\r\n"]
    {
        let mut socket = TcpStream::connect(rig.client.address()).await.expect("connects");
        socket.write_all(bytes).await.expect("sent");
        socket.shutdown().await.expect("half closed");
        let mut answer = Vec::new();
        // Whatever it is, it ends.
        let _ = in_time("end", socket.read_to_end(&mut answer)).await;
    }
    assert_eq!(persisted(&rig.client.put_whole("cam1", &body(&[1_000])).await).len(), 1);
}
