//! Connections, HTTP, and which operation answers which path.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::header::{ACCESS_CONTROL_ALLOW_ORIGIN, DATE, EXPECT, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use kvs::api::path;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::errors::ServiceError;
use crate::service::Service;
use crate::sigv4::{Payload, Verifier};
use crate::{admin, archive, clip, control, dash, get_media, hls, put_media, session};

/// 1000 fragment numbers are 50 kB.
const MAX_REQUEST_BYTES: usize = 1 << 20;
/// 9999-12-31T23:59:59Z, the last that the header `Date` can say.
const LATEST_DATE_MS: u64 = 253_402_300_799_000;
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// The answer breaks off here: the connection closes without the end of the body.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the answer was broken off")]
pub(crate) struct BrokenOff;

/// An answer's body, whole or as it comes.
#[derive(Debug)]
pub(crate) enum Body {
    Full(Option<Bytes>),
    Channel(mpsc::Receiver<Result<Bytes, BrokenOff>>),
}

impl Body {
    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        Self::Full(Some(bytes.into()).filter(|bytes: &Bytes| !bytes.is_empty()))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Channel(receiver) => {
                receiver.poll_recv(context).map(|item| item.map(|bytes| bytes.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Channel(_) => SizeHint::default(),
        }
    }
}

/// How an operation ends the connection that it came by.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connection {
    /// At once, without finishing the answer.
    pub(crate) abort: CancellationToken,
    /// When the answer is out.
    pub(crate) close: CancellationToken,
}

/// Accepts until the server stops.
pub(crate) async fn run(service: Arc<Service>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    loop {
        let accepted = tokio::select! {
            () = service.stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => {
                // Each ack is a small packet that somebody waits for.
                match socket.set_nodelay(true) {
                    Ok(()) => accept(&service, socket, tls.clone()),
                    Err(error) => tracing::debug!(%error, "connection ended"),
                }
            }
            Err(error) => {
                // Out of file descriptors, mostly: others must close first.
                tracing::warn!(%error, "no connection accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Serves one connection, of whatever kind, in a task of its own.
pub(crate) fn accept(
    service: &Arc<Service>,
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    tls: Option<TlsAcceptor>,
) {
    let serving = service.clone();
    service.tasks.spawn(async move {
        if let Err(error) = greet(serving, socket, tls).await {
            tracing::debug!(%error, "connection ended");
        }
    });
}

async fn greet(
    service: Arc<Service>,
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    tls: Option<TlsAcceptor>,
) -> std::io::Result<()> {
    match tls {
        None => serve(service, socket).await,
        Some(tls) => match tokio::time::timeout(HANDSHAKE_DEADLINE, tls.accept(socket)).await {
            Ok(socket) => serve(service, socket?).await,
            Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
        },
    }
}

async fn serve(
    service: Arc<Service>,
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> std::io::Result<()> {
    let connection = Connection::default();
    let handler = {
        let (service, connection) = (service.clone(), connection.clone());
        service_fn(move |request| {
            let (service, connection) = (service.clone(), connection.clone());
            async move { Ok::<_, Infallible>(respond(&service, request, connection).await) }
        })
    };
    let http = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(socket), handler);
    let mut http = std::pin::pin!(http);
    let mut closing = false;
    loop {
        tokio::select! {
            ended = http.as_mut() => return ended.map_err(std::io::Error::other),
            () = connection.abort.cancelled() => return Ok(()),
            () = service.abort.cancelled() => return Ok(()),
            () = connection.close.cancelled(), if !closing => {
                closing = true;
                http.as_mut().graceful_shutdown();
            }
            () = service.stopping.cancelled(), if !closing => {
                closing = true;
                http.as_mut().graceful_shutdown();
            }
        }
    }
}

async fn respond(
    service: &Arc<Service>,
    request: Request<Incoming>,
    connection: Connection,
) -> Response<Body> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = match route(service, request, connection).await {
        Ok(response) => response,
        Err(error) => {
            tracing::info!(%method, path, %error, "refused");
            let mut refusal = error.into_response();
            if is_session(&path) {
                // A player in a web page learns the reason only if it may read the answer.
                refusal.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            }
            refusal
        }
    };
    let id = request_id();
    let id = HeaderValue::from_str(&id).expect("a request id is plain ASCII");
    response.headers_mut().insert("x-amzn-requestid", id);
    // Clients with a wrong clock learn the right time from here: it must be the one that signatures are held to.
    let now = UNIX_EPOCH + Duration::from_millis(service.now_ms().min(LATEST_DATE_MS));
    let date = HeaderValue::from_str(&httpdate::fmt_http_date(now)).expect("a date is plain ASCII");
    response.headers_mut().insert(DATE, date);
    response
}

/// What a session's URL leads to.
fn is_session(path: &str) -> bool {
    ["/hls/v1/", "/dash/v1/"].iter().any(|prefix| path.starts_with(prefix))
}

/// In the form of a random UUID.
fn request_id() -> String {
    let id = format!("{:032x}", rand::random::<u128>());
    [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-")
}

async fn route(
    service: &Arc<Service>,
    request: Request<Incoming>,
    connection: Connection,
) -> Result<Response<Body>, ServiceError> {
    if service.options.admin && request.uri().path().starts_with("/admin/") {
        let (parts, body) = request.into_parts();
        return admin::handle(service, &parts.method, parts.uri.path(), &collect(body).await?).await;
    }
    if request.method() == Method::GET && request.uri().path().starts_with("/hls/v1/") {
        return hls::handle(service, request.uri()).await;
    }
    if request.method() == Method::GET && request.uri().path().starts_with("/dash/v1/") {
        return dash::handle(service, request.uri()).await;
    }
    let operation = match request.method() {
        &Method::POST => operation(request.uri().path()),
        _ => None,
    };
    let path = operation.ok_or_else(ServiceError::unknown_operation)?;
    if path == path::PUT_MEDIA {
        return put_media(service, request, connection).await;
    }
    let (parts, body) = request.into_parts();
    let body = collect(body).await?;
    let request = Request::from_parts(parts, ());
    verify(service, &request, Payload::Body(&body))?;
    match path {
        path::GET_MEDIA => get_media::handle(service, &body, connection).await,
        path::LIST_FRAGMENTS => archive::list_fragments(service, &body).await,
        path::GET_MEDIA_FOR_FRAGMENT_LIST => {
            get_media::handle_fragment_list(service, &body, connection).await
        }
        path::GET_HLS_STREAMING_SESSION_URL => session::open_hls(service, &body).await,
        path::GET_DASH_STREAMING_SESSION_URL => session::open_dash(service, &body).await,
        path::GET_CLIP => clip::get_clip(service, &body).await,
        #[cfg(feature = "images")]
        path::GET_IMAGES => crate::images::get_images(service, &body).await,
        _ => control::handle(service, path, &body).await,
    }
}

async fn put_media(
    service: &Arc<Service>,
    request: Request<Incoming>,
    connection: Connection,
) -> Result<Response<Body>, ServiceError> {
    let (parts, body) = request.into_parts();
    let request = Request::from_parts(parts, ());
    let opened = match verify(service, &request, Payload::Streamed) {
        Ok(()) => put_media::open(service, request.headers()).await,
        Err(error) => Err(error),
    };
    match opened {
        Ok(opened) => Ok(put_media::begin(service, opened, body, connection).await),
        Err(error) => {
            // One that asks before it sends gets its answer anyway.
            if !request.headers().contains_key(EXPECT) {
                service.tasks.spawn(put_media::linger(body));
            }
            Err(error)
        }
    }
}

/// The operation of exactly this path: case counts.
fn operation(found: &str) -> Option<&'static str> {
    const ALL: &[&str] = &[
        path::CREATE_STREAM,
        path::DESCRIBE_STREAM,
        path::LIST_STREAMS,
        path::UPDATE_STREAM,
        path::DELETE_STREAM,
        path::GET_DATA_ENDPOINT,
        path::UPDATE_DATA_RETENTION,
        path::TAG_STREAM,
        path::UNTAG_STREAM,
        path::LIST_TAGS_FOR_STREAM,
        path::PUT_MEDIA,
        path::GET_MEDIA,
        path::LIST_FRAGMENTS,
        path::GET_MEDIA_FOR_FRAGMENT_LIST,
        path::GET_HLS_STREAMING_SESSION_URL,
        path::GET_DASH_STREAMING_SESSION_URL,
        path::GET_CLIP,
        #[cfg(feature = "images")]
        path::GET_IMAGES,
    ];
    ALL.iter().copied().find(|path| *path == found)
}

fn verify<B>(service: &Service, request: &Request<B>, payload: Payload<'_>) -> Result<(), ServiceError> {
    let options = &service.options;
    let verifier =
        Verifier { credentials: &options.credentials, region: &options.region, now_ms: service.now_ms() };
    verifier.verify(request.method(), request.uri(), request.headers(), payload)
}

async fn collect(body: Incoming) -> Result<Bytes, ServiceError> {
    let whole = tokio::time::timeout(REQUEST_DEADLINE, Limited::new(body, MAX_REQUEST_BYTES).collect()).await;
    match whole {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) => Err(ServiceError::invalid_argument(format!("Request body: {error}"))),
        Err(_) => Err(ServiceError::invalid_argument("Request body: did not end in time")),
    }
}

/// Reads the body of an operation. A missing field is an argument error, anything else is no JSON of ours.
pub(crate) fn parse<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<T, ServiceError> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| {
        let text = error.to_string();
        let bad_value =
            error.is_data() && (text.contains("missing field") || text.contains("unknown variant"));
        if bad_value { ServiceError::invalid_argument(text) } else { ServiceError::serialization(text) }
    })
}

pub(crate) fn json(value: &impl serde::Serialize) -> Result<Response<Body>, ServiceError> {
    let text = serde_json::to_vec(value).map_err(|error| ServiceError::internal(error.to_string()))?;
    let mut response = Response::new(Body::full(text));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    Ok(response)
}
