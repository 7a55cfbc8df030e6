//! PutMedia as a conversation: what is on the wire, in which order, and what each odd answer becomes.

mod peer;

use std::time::Duration;

use bytes::Bytes;
use kvs::FragmentNumber;
use kvs::ack::{Ack, AckEvent};
use kvs::api::StreamId;
use kvs_client::{Action, Error, PutMedia, PutMediaInput, ServiceErrorKind, TimecodeType, kvs};
use peer::{Peer, Talk, within};

fn input() -> PutMediaInput {
    PutMediaInput {
        stream: StreamId::name("cam1"),
        timecode_type: TimecodeType::Absolute,
        start_ms: 1_795_186_073_007,
        write_timeout: None,
    }
}

async fn begin(peer: &Peer) -> (PutMedia, Talk) {
    let client = peer.client();
    let input = input();
    let (begun, talk) = tokio::join!(client.put_media(&input), peer.accept());
    (begun.expect("a connection"), talk)
}

fn ack(event: AckEvent) -> Ack {
    Ack { event, timecode_ms: Some(7), number: Some(FragmentNumber::new(1, 1_795_186_073_633, 5)) }
}

#[tokio::test]
async fn the_head_is_what_the_service_wants_and_no_more_is_signed_than_a_proxy_keeps() {
    let (_session, talk) = begin(&Peer::start().await).await;
    assert_eq!(talk.request, "POST /putMedia HTTP/1.1");
    let expected = [
        ("transfer-encoding", "chunked"),
        ("x-amzn-fragment-acknowledgment-required", "1"),
        ("x-amzn-fragment-timecode-type", "ABSOLUTE"),
        ("x-amzn-producer-start-timestamp", "1795186073.007"),
        ("x-amzn-stream-name", "cam1"),
    ];
    for (name, value) in expected {
        assert_eq!(talk.headers.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(talk.headers["user-agent"].starts_with("kvs-client/"));
    let signed = "SignedHeaders=host;x-amz-date;x-amzn-fragment-acknowledgment-required;\
        x-amzn-fragment-timecode-type;x-amzn-producer-start-timestamp;x-amzn-stream-name,";
    assert!(talk.headers["authorization"].contains(signed), "{}", talk.headers["authorization"]);
}

#[tokio::test]
async fn acks_arrive_while_the_body_is_open_and_each_frame_leaves_at_once() {
    let (PutMedia { mut sender, mut acks }, mut talk) = begin(&Peer::start().await).await;
    talk.begin().await;
    within(acks.accepted()).await.unwrap();
    assert_eq!(acks.request_id(), Some("r-1"));
    for round in 0..20_usize {
        let frame = Bytes::from(vec![7; 1 + round * 5_000]);
        sender.send(frame.clone()).await.unwrap();
        assert_eq!(talk.chunk().await.as_deref(), Some(&frame[..]), "before the next frame is sent");
        let (buffering, persisted) = (ack(AckEvent::Buffering), ack(AckEvent::Persisted));
        let lines = format!("{}{}", buffering.to_line(), persisted.to_line());
        let (left, right) = lines.split_at(round * lines.len() / 20);
        if !left.is_empty() {
            talk.write_chunk(left).await; // split at a place that moves through both lines
        }
        talk.write_chunk(right).await;
        assert_eq!(within(acks.next_ack()).await.unwrap(), Some(buffering));
        assert_eq!(within(acks.next_ack()).await.unwrap(), Some(persisted));
    }
    let (finished, end) = tokio::join!(sender.finish(), talk.chunk());
    finished.unwrap();
    assert_eq!(end, None, "the body ends in order");
    talk.write_chunk(&ack(AckEvent::Received).to_line()).await;
    talk.end().await;
    assert_eq!(
        within(acks.next_ack()).await.unwrap(),
        Some(ack(AckEvent::Received)),
        "acks outlive the body"
    );
    assert_eq!(within(acks.next_ack()).await.unwrap(), None);
    assert_eq!(within(acks.next_ack()).await.unwrap(), None);
    talk.until_closed().await;
}

/// Sends until the connection is gone, then asks why.
async fn send_until_closed(session: PutMedia) -> Error {
    let PutMedia { mut sender, mut acks } = session;
    let frame = Bytes::from(vec![0; 100_000]);
    let closed = loop {
        if let Err(error) = within(sender.send(frame.clone())).await {
            break error;
        }
    };
    assert!(matches!(closed, Error::Closed { .. }), "{closed:?}");
    drop(sender);
    within(acks.next_ack()).await.expect_err("the reason")
}

#[tokio::test]
async fn a_refusal_while_media_is_under_way_comes_out_as_such_even_if_the_peer_hangs_up() {
    let peer = Peer::start().await;
    for _ in 0..50 {
        let (session, mut talk) = begin(&peer).await;
        let sending = tokio::spawn(send_until_closed(session));
        assert_eq!(talk.chunk().await.map(|chunk| chunk.len()), Some(100_000));
        let headers = "x-amzn-ErrorType: ResourceNotFoundException\r\nx-amzn-RequestId: r-2\r\n";
        talk.answer(404, headers, r#"{"Message":"no such stream"}"#).await;
        drop(talk); // with media unread, so the kernel resets the connection
        let error = sending.await.unwrap();
        let Error::Service { kind: ServiceErrorKind::ResourceNotFound, status: 404, message, .. } = &error
        else {
            panic!("{error:?}")
        };
        assert_eq!((message.as_str(), error.request_id()), ("no such stream", Some("r-2")));
        assert_eq!(error.action(), Action::Stop);
    }
}

/// The order in which a busy device meets it: the write fails before the runtime has seen that there is
/// something to read.
#[tokio::test]
async fn a_refusal_is_read_even_if_a_write_fails_first() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = Peer::start().await.config();
    config.endpoints.media = Some(format!("http://{}", listener.local_addr().unwrap()).parse().unwrap());
    let (hung_up, has_hung_up) = std::sync::mpsc::channel();
    let service = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            socket.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        socket.peek(&mut byte).unwrap(); // media lies there, unread, so that closing resets the connection
        socket.write_all(b"HTTP/1.1 403 Any\r\nx-amzn-ErrorType: AccessDeniedException\r\n\r\n").unwrap();
        drop(socket);
        hung_up.send(()).unwrap();
    });
    let PutMedia { mut sender, mut acks } =
        kvs_client::Client::new(config).unwrap().put_media(&input()).await.unwrap();
    sender.send(Bytes::from_static(b"media")).await.unwrap();
    for _ in 0..20 {
        tokio::task::yield_now().await; // lets the connection write, in this thread
    }
    has_hung_up.recv().unwrap(); // blocks the runtime: it cannot look at the socket
    let _ = sender.send(Bytes::from_static(b"more")).await; // closed, if it has seen the end already
    let error = within(acks.next_ack()).await.unwrap_err();
    assert_eq!(error.service_kind(), Some(&ServiceErrorKind::AccessDenied), "{error:?}");
    service.join().unwrap();
}

#[tokio::test]
async fn a_refusal_on_a_connection_that_stays_open_ends_both_halves() {
    let (PutMedia { mut sender, mut acks }, mut talk) = begin(&Peer::start().await).await;
    sender.send(Bytes::from_static(b"media")).await.unwrap();
    talk.chunk().await;
    talk.answer(400, "x-amzn-ErrorType: ConnectionLimitExceededException\r\n", "{}").await;
    let error = within(acks.accepted()).await.unwrap_err();
    assert_eq!(error.service_kind(), Some(&ServiceErrorKind::ConnectionLimitExceeded));
    assert_eq!(error.action(), Action::RetrySlower);
    talk.until_closed().await;
    while within(sender.send(Bytes::from_static(b"media"))).await.is_ok() {}
    assert_eq!(within(acks.next_ack()).await.unwrap(), None, "an error is told once");
}

/// The limit is the client's, or the session's own.
#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_noticed_by_the_sender() {
    for (of_session_s, expected_s) in [(None, 30), (Some(5), 5), (Some(600), 600)] {
        let peer = Peer::in_memory(4_096);
        let client = peer.client();
        let clock = kvs_client::Clock::system();
        let input = PutMediaInput { write_timeout: of_session_s.map(Duration::from_secs), ..input() };
        let (begun, talk) = tokio::join!(client.put_media(&input), peer.accept());
        let PutMedia { mut sender, acks: _acks } = begun.unwrap();
        let (frame, begin) = (Bytes::from(vec![0; 1_000_000]), clock.now());
        let error = loop {
            if let Err(error) = sender.send(frame.clone()).await {
                break error;
            }
        };
        let limit = Duration::from_secs(expected_s);
        assert!(matches!(error, Error::Stalled { after, .. } if after == limit), "{error:?}");
        assert_eq!(clock.since(begin), limit);
        assert_eq!(error.action(), Action::Retry);
        drop(sender);
        talk.until_closed().await;
    }
}

/// A peer that takes a little now and then is slow, not stuck.
#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_slowly_is_no_stall() {
    let peer = Peer::in_memory(4_096);
    let (client, input) = (peer.client(), input());
    let (begun, mut talk) = tokio::join!(client.put_media(&input), peer.accept());
    let PutMedia { mut sender, acks: _acks } = begun.unwrap();
    let sending = async {
        for _ in 0..20 {
            sender.send(Bytes::from(vec![7; 4_096])).await.unwrap();
        }
        sender.finish().await.unwrap();
    };
    let reading = async {
        let mut chunks = 0;
        while talk.chunk().await.is_some() {
            chunks += 1;
            tokio::time::sleep(Duration::from_secs(29)).await;
        }
        chunks
    };
    assert_eq!(tokio::join!(sending, reading).1, 20);
}

#[tokio::test]
async fn answers_that_are_no_acks_are_told_apart() {
    let trap =
        r#"{"Output":{"__type":"com.amazon.coral.service#UnknownOperationException"},"Version":"1.0"}"#;
    let half = ack(AckEvent::Buffering).to_line().replace("}\n", "");
    let cases =
        [("<html>", false, "BadAck"), (trap, true, "UnknownOperation"), (half.as_str(), true, "BadResponse")];
    for (text, end, expected) in cases {
        let (mut session, mut talk) = begin(&Peer::start().await).await;
        talk.begin().await;
        talk.write_chunk(text).await;
        if end {
            talk.end().await;
        }
        let error = within(session.acks.next_ack()).await.unwrap_err();
        assert!(format!("{error:?}").starts_with(expected), "{error:?}");
        assert_eq!(error.request_id(), Some("r-1"));
    }
}

#[tokio::test]
async fn a_cut_connection_is_an_error_not_an_end() {
    let (mut session, mut talk) = begin(&Peer::start().await).await;
    talk.begin().await;
    talk.write_chunk(&ack(AckEvent::Idle).to_line()).await;
    within(session.acks.next_ack()).await.unwrap();
    drop(talk);
    let error = within(session.acks.next_ack()).await.unwrap_err();
    assert!(matches!(error, Error::Interrupted { .. }), "{error:?}");
    assert_eq!((error.action(), error.request_id()), (Action::Retry, Some("r-1")));

    let (mut session, talk) = begin(&Peer::start().await).await;
    drop(talk);
    let error = within(session.acks.next_ack()).await.unwrap_err();
    assert!(matches!(error, Error::Interrupted { .. }), "without any answer: {error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_service_is_a_timeout() {
    let peer = Peer::in_memory(4_096);
    let (client, input) = (peer.client(), input());
    let clock = kvs_client::Clock::system();
    let begin = clock.now();
    let (begun, _talk) = tokio::join!(client.put_media(&input), peer.accept());
    let error = begun.unwrap().acks.next_ack().await.unwrap_err();
    assert_eq!(clock.since(begin), Duration::from_secs(20));
    assert!(matches!(error, Error::Timeout { what: "answer", .. }), "{error:?}");
}

#[tokio::test]
async fn waiting_for_an_ack_can_be_cancelled_without_losing_one() {
    let (mut session, mut talk) = begin(&Peer::start().await).await;
    let cancelled = tokio::time::timeout(Duration::ZERO, session.acks.next_ack()).await;
    assert!(cancelled.is_err());
    talk.begin().await;
    let line = ack(AckEvent::Buffering).to_line();
    talk.write_chunk(&line[..40]).await;
    within(session.acks.accepted()).await.unwrap();
    for _ in 0..10 {
        assert!(tokio::time::timeout(Duration::ZERO, session.acks.next_ack()).await.is_err());
        tokio::task::yield_now().await;
    }
    talk.write_chunk(&line[40..]).await;
    assert_eq!(within(session.acks.next_ack()).await.unwrap(), Some(ack(AckEvent::Buffering)));
}

#[tokio::test]
async fn dropping_either_half_closes_the_connection() {
    let peer = Peer::start().await;
    let (PutMedia { sender, acks }, talk) = begin(&peer).await;
    drop(sender);
    talk.until_closed().await;
    drop(acks);

    let (PutMedia { mut sender, acks }, talk) = begin(&peer).await;
    drop(acks);
    talk.until_closed().await;
    while within(sender.send(Bytes::from_static(b"media"))).await.is_ok() {}
}

#[tokio::test]
async fn a_stream_that_cannot_be_named_in_a_header_is_refused_here() {
    let peer = Peer::start().await;
    let both = StreamId { stream_name: Some("a".to_owned()), stream_arn: Some("b".to_owned()) };
    for stream in
        [StreamId::name("a\r\nb: c"), StreamId::name(""), StreamId::name("ä"), StreamId::default(), both]
    {
        let input = PutMediaInput { stream, ..input() };
        let error = within(peer.client().put_media(&input)).await.unwrap_err();
        assert!(matches!(error, Error::BadRequest { .. }), "{error:?}");
    }
}
