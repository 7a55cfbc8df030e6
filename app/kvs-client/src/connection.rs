//! One TCP connection, with TLS or without, for one exchange; it closes when its [`Connection`] is dropped.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use clock::Clock;
use http::Request;
use hyper::body::Body;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::{AbortHandle, JoinHandle};

use crate::client::{Client, Shared};
use crate::dial::ByteStream;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::operation::Operation;

/// Drives the socket in a task of its own; dropping this ends the task, and with it the socket, at once.
#[derive(Debug)]
pub(crate) struct Connection {
    task: JoinHandle<()>,
    pub(crate) progress: Progress,
}

impl Connection {
    /// A way to close it from elsewhere.
    pub(crate) fn abort_handle(&self) -> AbortHandle {
        self.task.abort_handle()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// When the socket last took some bytes.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    clock: Clock,
    made: Arc<Mutex<(u64, Instant)>>,
}

impl Progress {
    fn start(clock: &Clock) -> Self {
        Self { clock: clock.clone(), made: Arc::new(Mutex::new((0, clock.now()))) }
    }

    pub(crate) fn last(&self) -> Instant {
        self.written().1
    }

    /// Bytes since it was opened, and when the last of them were taken.
    pub(crate) fn written(&self) -> (u64, Instant) {
        *self.made.lock().expect("no panic while it is held")
    }

    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    fn made(&self, length: usize) {
        let mut made = self.made.lock().expect("no panic while it is held");
        *made = (made.0.saturating_add(length as u64), self.clock.now());
    }
}

/// Opens a connection on which one request can be sent.
pub(crate) async fn open<B>(
    client: &Client,
    endpoint: &Endpoint,
    operation: Operation,
) -> Result<(SendRequest<B>, Connection), Error>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let shared = &client.shared;
    let (progress, limit) = (Progress::start(&shared.config.clock), shared.config.timeouts.connect);
    let connecting = async {
        let socket = connect(shared, endpoint, progress.clone()).await?;
        let shaken = http1::Builder::new()
            .read_buf_exact_size(client.chunk_size)
            .handshake::<_, B>(TokioIo::new(socket))
            .await;
        shaken.map_err(|source| Error::Interrupted {
            operation,
            endpoint: endpoint.clone(),
            request_id: None,
            source,
        })
    };
    let (sender, driver) = tokio::time::timeout(limit, connecting).await.unwrap_or_else(|_| {
        Err(Error::Timeout { operation, endpoint: endpoint.clone(), what: "connection", after: limit })
    })?;
    // The error of a broken connection also comes out of the exchange that it breaks.
    let task = tokio::spawn(async move {
        let _ = driver.await;
    });
    Ok((sender, Connection { task, progress }))
}

async fn connect(
    shared: &Shared,
    endpoint: &Endpoint,
    progress: Progress,
) -> Result<Box<dyn ByteStream>, Error> {
    let failed = |source| Error::Connect { endpoint: endpoint.clone(), source };
    let dialled = shared.config.dialler.dial(endpoint.host(), endpoint.port()).await.map_err(failed)?;
    let tcp = Watched { inner: dialled, progress, write_error: None, read_ended: false };
    if !endpoint.is_tls() {
        return Ok(Box::new(tcp));
    }
    let refused = |source| Error::Tls { endpoint: endpoint.clone(), source };
    let no_tls = || refused(io::Error::other("this client was built for http:// endpoints only"));
    let name = ServerName::try_from(endpoint.host().to_owned()).map_err(|e| refused(io::Error::other(e)))?;
    match shared.tls.as_ref().ok_or_else(no_tls)?.connect(name, tcp).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(source) if source.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
            Err(refused(source))
        }
        Err(source) => Err(failed(source)),
    }
}

/// Notes progress, and lets a refusal be read although the peer has hung up.
///
/// A server that refuses a request answers and closes while our body is still under way. Our next write then
/// fails, and hyper would give up without reading the answer, which lies in the socket's buffer. So a failed
/// write waits until the reading side has seen the end.
struct Watched<S> {
    inner: S,
    progress: Progress,
    write_error: Option<io::Error>,
    read_ended: bool,
}

impl<S> Watched<S> {
    fn after_write(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(length)) => {
                if length > 0 {
                    self.progress.made(length);
                }
                Poll::Ready(Ok(length))
            }
            // Nobody wakes the writer; the end of the reading side does, as one task drives both.
            Poll::Ready(Err(error)) if !self.read_ended => {
                self.write_error = Some(error);
                Poll::Pending
            }
            other => other,
        }
    }

    /// What a write gives after one has failed.
    fn failed_before(&mut self) -> Option<Poll<io::Result<usize>>> {
        let error = self.write_error.as_ref()?;
        let copy = io::Error::new(error.kind(), error.to_string());
        Some(if self.read_ended { Poll::Ready(Err(copy)) } else { Poll::Pending })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
        match &read {
            Poll::Ready(Ok(())) if buffer.filled().len() == before && buffer.capacity() > before => {
                self.read_ended = true;
            }
            Poll::Ready(Err(_)) => self.read_ended = true,
            _ => {}
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(failed) = self.failed_before() {
            return failed;
        }
        let written = Pin::new(&mut self.inner).poll_write(cx, data);
        self.after_write(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(failed) = self.failed_before() {
            return failed;
        }
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, pieces);
        self.after_write(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// The request as hyper wants it: path only, headers as signed.
pub(crate) fn request<B>(operation: Operation, headers: http::HeaderMap, body: B) -> Request<B> {
    let mut request = Request::new(body);
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static(operation.path());
    *request.headers_mut() = headers;
    request
}
