//! A plain client that signs on its own and can misbehave; every wait has a deadline.

use std::cell::Cell;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use kvs::FragmentNumber;
use kvs::ack::{Ack, AckEvent, AckParser};
use kvs_local::{Clock, Connector, Credentials, KvsLocal, Options};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

thread_local! {
    /// Nothing in a test takes longer unless it hangs. On paused time longer than every limit of the server.
    static DEADLINE: Cell<Duration> = const { Cell::new(Duration::from_secs(30)) };
}
/// What a connection in memory holds each way.
const BUFFER_BYTES: usize = 64 * 1024;
/// 2026-11-20T15:08:34Z, when servers in memory start.
pub(crate) const BEGIN_MS: u64 = 1_795_187_314_000;

pub(crate) async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    let deadline = DEADLINE.get();
    match tokio::time::timeout(deadline, work).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing within {deadline:?}"),
    }
}

/// A server with one stream `cam1`, and its folder.
pub(crate) struct Rig {
    pub(crate) server: KvsLocal,
    pub(crate) client: Client,
    pub(crate) folder: tempfile::TempDir,
}

impl Rig {
    /// Retention in hours.
    pub(crate) async fn new(retention: u32) -> Self {
        Self::with(retention, |_| {}).await
    }

    pub(crate) async fn with(retention: u32, change: impl FnOnce(&mut Options)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut options = Options::new(folder.path()).stream("cam1", retention);
        options.limits.get_media_idle_end = Some(Duration::ZERO);
        change(&mut options);
        let credentials = options.credentials[0].clone();
        let server = KvsLocal::start(options).await.expect("starts");
        let client = Client::new(server.address().expect("it listens"), credentials);
        Self { server, client, folder }
    }

    /// Connections in memory and a simulated clock: on paused time nothing depends on the machine.
    pub(crate) async fn in_memory(retention: u32, change: impl FnOnce(&mut Options)) -> Self {
        DEADLINE.set(Duration::from_secs(3 * 3600));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut options = Options::new(folder.path()).stream("cam1", retention);
        options.limits.get_media_idle_end = Some(Duration::ZERO);
        options.clock = Clock::simulated(UNIX_EPOCH + Duration::from_millis(BEGIN_MS));
        change(&mut options);
        let (credentials, clock) = (options.credentials[0].clone(), options.clock.clone());
        let server = KvsLocal::start_in_memory(options).await.expect("starts");
        let client = Client { way: Way::Memory(server.connector()), credentials, clock };
        Self { server, client, folder }
    }
}

#[derive(Clone)]
pub(crate) struct Client {
    way: Way,
    pub(crate) credentials: Credentials,
    /// Signs by it.
    pub(crate) clock: Clock,
}

#[derive(Clone)]
enum Way {
    Socket(SocketAddr),
    Memory(Connector),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// HTTP status and error type.
    pub(crate) fn error(&self) -> (u16, String) {
        let kind =
            self.headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok()).unwrap_or("none");
        (self.status, kind.to_owned())
    }
}

impl Client {
    pub(crate) fn new(address: SocketAddr, credentials: Credentials) -> Self {
        Self { way: Way::Socket(address), credentials, clock: Clock::system() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match &self.way {
            Way::Socket(address) => *address,
            Way::Memory(_) => panic!("this server does not listen"),
        }
    }

    async fn open_stream(&self) -> TokioIo<Box<dyn Stream>> {
        TokioIo::new(match &self.way {
            Way::Socket(address) => {
                Box::new(in_time("connect", TcpStream::connect(address)).await.expect("connects"))
            }
            Way::Memory(connector) => Box::new(connector.connect(BUFFER_BYTES).expect("it runs")),
        })
    }

    pub(crate) async fn connect<B>(&self) -> SendRequest<B>
    where
        B: Body<Data = Bytes, Error = Broken> + Send + 'static,
    {
        let stream = self.open_stream().await;
        let (sender, connection) = hyper::client::conn::http1::handshake(stream).await.expect("handshake");
        tokio::spawn(connection);
        sender
    }

    /// A signed request; PutMedia is signed as AWS's C SDK does, over nothing.
    pub(crate) fn request<B>(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        signed_body: &[u8],
        body: B,
    ) -> Request<B> {
        self.request_with(path, headers, &hash(signed_body), body)
    }

    /// The same with any text at the end of the canonical request.
    pub(crate) fn request_with<B>(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        payload_hash: &str,
        body: B,
    ) -> Request<B> {
        let date = amz_date(self.clock.wall_ms());
        let mut request = Request::post(path).body(body).expect("a request");
        let map = request.headers_mut();
        map.insert("host", HeaderValue::from_static("kvs-local.test"));
        map.insert("x-amz-date", HeaderValue::from_str(&date).expect("ASCII"));
        if let Some(token) = &self.credentials.session_token {
            map.insert("x-amz-security-token", HeaderValue::from_str(token).expect("ASCII"));
        }
        for (name, value) in headers {
            let name = HeaderName::try_from(*name).expect("a name");
            map.insert(name, HeaderValue::from_str(value).expect("ASCII"));
        }
        let mut names: Vec<&str> = map.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let list = names.join(";");
        let mut canonical = format!("POST\n{path}\n\n");
        for name in &names {
            canonical += &format!("{name}:{}\n", map[*name].to_str().expect("ASCII"));
        }
        canonical += &format!("\n{list}\n{payload_hash}");
        let scope = format!("{}/us-west-2/kinesisvideo/aws4_request", &date[..8]);
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
        let key = scope
            .split('/')
            .fold(format!("AWS4{}", self.credentials.secret_key).into_bytes(), |key, part| {
                hmac(&key, part.as_bytes())
            });
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={list}, Signature={}",
            self.credentials.access_key,
            hex(&hmac(&key, text.as_bytes()))
        );
        map.insert("authorization", HeaderValue::from_str(&authorization).expect("ASCII"));
        request
    }

    /// One operation with a JSON body.
    pub(crate) async fn call(&self, path: &str, input: Value) -> Answer {
        self.call_raw(path, input.to_string().into_bytes()).await
    }

    pub(crate) async fn call_raw(&self, path: &str, body: Vec<u8>) -> Answer {
        let response = self.open(path, body).await;
        let (parts, body) = response.into_parts();
        let body = in_time(path, body.collect()).await.expect("a whole answer").to_bytes();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// What a player fetches, unsigned.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        let mut request = Request::get(path).body(Sent::whole(Vec::new())).expect("a request");
        request.headers_mut().insert("host", HeaderValue::from_static("kvs-local.test"));
        let response = in_time(path, self.connect().await.send_request(request)).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let body = in_time(path, body.collect()).await.expect("a whole answer").to_bytes();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// An operation, with its answer's body still to come.
    pub(crate) async fn open(&self, path: &str, body: Vec<u8>) -> Response<Incoming> {
        let request = self.request(path, &[], &body, Sent::whole(body.clone()));
        in_time(path, self.connect().await.send_request(request)).await.expect("an answer")
    }

    pub(crate) async fn get_media(&self, stream: &str, selector: Value) -> Reader {
        let input = json!({ "StreamName": stream, "StartSelector": selector });
        let response = self.open("/getMedia", input.to_string().into_bytes()).await;
        assert_eq!(response.status(), 200, "GetMedia");
        Reader { body: response.into_body(), bytes: Vec::new() }
    }

    /// The whole answer of GetMedia from the earliest fragment.
    pub(crate) async fn read_all(&self, stream: &str) -> Vec<u8> {
        self.get_media(stream, json!({ "StartSelectorType": "EARLIEST" }))
            .await
            .end()
            .await
            .expect("ends well")
    }

    pub(crate) async fn put_media(&self, stream: &str) -> PutMedia {
        self.put_media_as(stream, "ABSOLUTE", "0")
            .await
            .unwrap_or_else(|answer| panic!("PutMedia: {answer:?}"))
    }

    /// `Err`: what it was refused with.
    pub(crate) async fn put_media_as(
        &self,
        stream: &str,
        timecodes: &str,
        start: &str,
    ) -> Result<PutMedia, Answer> {
        self.put_media_with(&[
            ("x-amzn-stream-name", stream),
            ("x-amzn-fragment-timecode-type", timecodes),
            ("x-amzn-producer-start-timestamp", start),
            ("x-amzn-fragment-acknowledgment-required", "1"),
        ])
        .await
    }

    pub(crate) async fn put_media_with(&self, headers: &[(&str, &str)]) -> Result<PutMedia, Answer> {
        let (body, sent) = mpsc::channel(1);
        let headers = [headers, &[("transfer-encoding", "chunked"), ("connection", "keep-alive")]].concat();
        let request = self.request("/putMedia", &headers, b"", Sent(sent));
        let stream = self.open_stream().await;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(stream).await.expect("handshake");
        let connection = tokio::spawn(async move { drop(connection.await) });
        let response = in_time("PutMedia", sender.send_request(request)).await.expect("an answer");
        let (parts, answer) = response.into_parts();
        assert!(parts.headers.contains_key("x-amzn-requestid"));
        if parts.status != 200 {
            drop(body);
            let body = in_time("refusal", answer.collect()).await.expect("a whole answer").to_bytes();
            return Err(Answer { status: parts.status.as_u16(), headers: parts.headers, body });
        }
        Ok(PutMedia { body: Some(body), answer, parser: AckParser::default(), connection, _sender: sender })
    }

    /// Sends a body in one go and gives all acks.
    pub(crate) async fn put_whole(&self, stream: &str, body: &[u8]) -> Vec<Ack> {
        let mut session = self.put_media(stream).await;
        session.send(body).await;
        session.finish();
        session.rest().await
    }
}

/// A PutMedia that is open.
pub(crate) struct PutMedia {
    body: Option<mpsc::Sender<Result<Bytes, Broken>>>,
    answer: Incoming,
    parser: AckParser,
    connection: JoinHandle<()>,
    /// hyper's client ends the connection with it.
    _sender: SendRequest<Sent>,
}

impl PutMedia {
    /// In pieces of 10,000 bytes; stops silently when the server does not listen any more.
    pub(crate) async fn send(&self, bytes: &[u8]) {
        let body = self.body.as_ref().expect("still open");
        for piece in bytes.chunks(10_000) {
            let sent = in_time("send", body.send(Ok(Bytes::copy_from_slice(piece)))).await;
            if sent.is_err() {
                return;
            }
        }
    }

    /// Ends the body properly.
    pub(crate) fn finish(&mut self) {
        self.body = None;
    }

    /// Drops the connection in the middle.
    pub(crate) fn hang_up(self) {
        self.connection.abort();
    }

    /// The next ack; `None` when the answer ended or broke off.
    pub(crate) async fn ack(&mut self) -> Option<Ack> {
        loop {
            if let Some(ack) = self.parser.next_ack().expect("acks parse") {
                return Some(ack);
            }
            let frame = in_time("ack", self.answer.frame()).await?.ok()?;
            self.parser.push(&frame.into_data().unwrap_or_default());
        }
    }

    pub(crate) async fn rest(&mut self) -> Vec<Ack> {
        let mut acks = Vec::new();
        while let Some(ack) = self.ack().await {
            acks.push(ack);
        }
        acks
    }

    /// The next ack alone, as a list.
    pub(crate) async fn rest_of_one(&mut self) -> Vec<Ack> {
        self.ack().await.into_iter().collect()
    }

    /// Bytes of the answer as they come.
    pub(crate) async fn raw(&mut self) -> Option<Bytes> {
        in_time("answer", self.answer.frame()).await?.ok()?.into_data().ok()
    }

    /// Reads acks until this one.
    pub(crate) async fn until(&mut self, event: &str) -> Ack {
        loop {
            let ack = self.ack().await.unwrap_or_else(|| panic!("answer ended before {event}"));
            if name(&ack) == event {
                return ack;
            }
        }
    }
}

/// `BUFFERING`, ..., `ERROR 4004`.
pub(crate) fn name(ack: &Ack) -> String {
    match &ack.event {
        AckEvent::Buffering => "BUFFERING".to_owned(),
        AckEvent::Received => "RECEIVED".to_owned(),
        AckEvent::Persisted => "PERSISTED".to_owned(),
        AckEvent::Idle => "IDLE".to_owned(),
        AckEvent::Error(error) => format!("ERROR {}", error.id),
        AckEvent::Unknown(name) => format!("unknown {name}"),
    }
}

pub(crate) fn names(acks: &[Ack]) -> Vec<String> {
    acks.iter().map(name).collect()
}

/// Numbers of the fragments that were acknowledged as kept.
pub(crate) fn persisted(acks: &[Ack]) -> Vec<FragmentNumber> {
    acks.iter().filter(|ack| ack.event == AckEvent::Persisted).filter_map(|ack| ack.number).collect()
}

/// An answer of GetMedia.
pub(crate) struct Reader {
    body: Incoming,
    pub(crate) bytes: Vec<u8>,
}

impl Reader {
    /// `Err`: broke off; what came is in `bytes`.
    pub(crate) async fn end(&mut self) -> Result<Vec<u8>, hyper::Error> {
        while self.more().await? {}
        Ok(std::mem::take(&mut self.bytes))
    }

    /// `false` at the end.
    pub(crate) async fn more(&mut self) -> Result<bool, hyper::Error> {
        let Some(frame) = in_time("media", self.body.frame()).await.transpose()? else { return Ok(false) };
        self.bytes.extend_from_slice(&frame.into_data().unwrap_or_default());
        Ok(true)
    }

    pub(crate) async fn until(&mut self, bytes: usize) {
        while self.bytes.len() < bytes {
            assert!(self.more().await.expect("no break"), "ended after {} bytes", self.bytes.len());
        }
    }
}

/// A request's body; an `Err` breaks the connection.
pub(crate) struct Sent(mpsc::Receiver<Result<Bytes, Broken>>);

#[derive(Debug, thiserror::Error)]
#[error("broken off by the test")]
pub(crate) struct Broken;

impl Sent {
    pub(crate) fn whole(body: Vec<u8>) -> Self {
        let (sender, receiver) = mpsc::channel(1);
        sender.try_send(Ok(body.into())).expect("room for one");
        Self(receiver)
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.0.poll_recv(context).map(|item| item.map(|bytes| bytes.map(Frame::data)))
    }
}

fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.chain_update(text).finalize().into_bytes().to_vec()
}

pub(crate) fn hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn amz_date(ms: u64) -> String {
    // Counted up year by year: slow, plain, and not the server's way.
    let (mut days, second) = (ms / 86_400_000, ms / 1000 % 86_400);
    let (mut year, mut month) = (1970, 0);
    let leap = |year: u64| {
        u64::from(year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)))
    };
    while days >= 365 + leap(year) {
        days -= 365 + leap(year);
        year += 1;
    }
    let lengths = [31, 28 + leap(year), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{:02}{:02}T{hour:02}{minute:02}{second:02}Z", month + 1, days + 1)
}
