//! The way between the box and KVS, with what can happen on it.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use kvs_client::{ByteStream, NotResolved};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What either direction of a connection holds.
const BUFFER: usize = 8 << 10;

/// Between the box and KVS.
#[derive(Clone, Debug, Default)]
pub(crate) struct Network {
    down: Arc<AtomicBool>,
    nameless: Arc<AtomicBool>,
    intercepted: Arc<AtomicBool>,
    pub(super) interceptor: Arc<Mutex<Option<kvs_local::Connector>>>,
    /// Whom the box trusts.
    pub(super) ca: Option<PathBuf>,
    crash: Arc<AtomicBool>,
    /// One for each connection.
    frozen: Arc<Mutex<Vec<Arc<AtomicBool>>>>,
}

impl Network {
    /// One on which nothing happens yet; `ca` is whom those who use it trust beside the system's.
    pub(super) fn trusting(ca: Option<PathBuf>) -> Self {
        Self { ca, ..Self::default() }
    }

    /// No new connection comes up, and those that are up pass nothing on.
    pub(crate) fn down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
        self.freeze();
    }

    /// Whether names resolve.
    pub(crate) fn names(&self, resolve: bool) {
        self.nameless.store(!resolve, Ordering::Relaxed);
    }

    /// New connections end at somebody who opens TLS on the way, with a certificate that the box does not trust.
    pub(crate) fn intercepted(&self, intercepted: bool) {
        self.intercepted.store(intercepted, Ordering::Relaxed);
    }

    /// Whatever is connected now takes and gives no more bytes, as behind a proxy that hangs.
    pub(crate) fn freeze(&self) {
        let connections = self.frozen.lock().unwrap_or_else(PoisonError::into_inner);
        connections.iter().for_each(|frozen| frozen.store(true, Ordering::Relaxed));
    }

    /// The next attempt to connect panics.
    pub(crate) fn crash_next(&self) {
        self.crash.store(true, Ordering::Relaxed);
    }

    pub(super) fn open(&self, connector: &kvs_local::Connector) -> io::Result<impl ByteStream + use<>> {
        assert!(!self.crash.swap(false, Ordering::Relaxed), "a bug, as the test wants it");
        if self.down.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::NetworkUnreachable.into());
        }
        if self.nameless.load(Ordering::Relaxed) {
            let source = io::Error::other("Temporary failure in name resolution");
            return Err(NotResolved { host: "kvs-local.invalid".to_owned(), source }.into());
        }
        let interceptor = self.interceptor.lock().unwrap_or_else(PoisonError::into_inner);
        let interceptor = interceptor.as_ref().filter(|_| self.intercepted.load(Ordering::Relaxed));
        let inner = interceptor.unwrap_or(connector).connect(BUFFER)?;
        let frozen = Arc::new(AtomicBool::new(false));
        self.frozen.lock().unwrap_or_else(PoisonError::into_inner).push(frozen.clone());
        Ok(Freezable { inner, frozen })
    }
}

struct Freezable<S> {
    inner: S,
    frozen: Arc<AtomicBool>,
}

impl<S> Freezable<S> {
    fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::Relaxed)
    }
}

/// A frozen one wakes nobody: whoever waits needs a limit.
impl<S: AsyncRead + Unpin> AsyncRead for Freezable<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_frozen() { Poll::Pending } else { Pin::new(&mut self.inner).poll_read(cx, buffer) }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Freezable<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_frozen() { Poll::Pending } else { Pin::new(&mut self.inner).poll_write(cx, data) }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_frozen() { Poll::Pending } else { Pin::new(&mut self.inner).poll_flush(cx) }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_frozen() { Poll::Pending } else { Pin::new(&mut self.inner).poll_shutdown(cx) }
    }
}
