//! How a connection is opened. The client puts TLS on top by itself.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};

/// Bytes both ways: a socket, or two ends in memory.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// A connection being opened.
pub type Dialling<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn ByteStream>>> + Send + 'a>>;

/// The name of a host does not resolve. A [`Dialler`] that knows says so by an `io::Error` with this in it.
#[derive(Debug, thiserror::Error)]
#[error("{host} does not resolve: {source}")]
pub struct NotResolved {
    /// The name.
    pub host: String,
    /// In the words of the system.
    pub source: io::Error,
}

impl From<NotResolved> for io::Error {
    fn from(error: NotResolved) -> Self {
        Self::new(error.source.kind(), error)
    }
}

/// Whether it is a [`NotResolved`].
pub(crate) fn is_not_resolved(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<NotResolved>())
}

/// Opens connections. The client limits how long that may take, and drops the future when it took too long.
pub trait Dialler: Send + Sync {
    /// `host`: a name or an address, an IPv6 address without brackets.
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialling<'a>;
}

/// A dialler that clones share.
#[derive(Clone)]
pub struct SharedDialler(Arc<dyn Dialler>);

impl SharedDialler {
    /// Of any other kind.
    pub fn new(dialler: impl Dialler + 'static) -> Self {
        Self(Arc::new(dialler))
    }

    /// A dialler that asks `dial` for each connection.
    pub fn from_fn<F, O, S>(dial: F) -> Self
    where
        F: Fn(&str, u16) -> O + Send + Sync + 'static,
        O: Future<Output = io::Result<S>> + Send + 'static,
        S: ByteStream + 'static,
    {
        Self::new(FromFn(dial))
    }

    pub(crate) fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialling<'a> {
        self.0.dial(host, port)
    }
}

impl Default for SharedDialler {
    fn default() -> Self {
        Self::new(Tcp)
    }
}

impl fmt::Debug for SharedDialler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedDialler")
    }
}

/// TCP of this machine; small packets leave at once, since somebody waits for each.
#[derive(Clone, Copy, Debug)]
pub struct Tcp;

impl Dialler for Tcp {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialling<'a> {
        Box::pin(async move {
            let not_resolved = |source| NotResolved { host: host.to_owned(), source };
            let addresses = lookup_host((host, port)).await.map_err(not_resolved)?;
            let addresses: Vec<_> = addresses.collect();
            if addresses.is_empty() {
                return Err(not_resolved(io::Error::other("the name has no address")).into());
            }
            let socket = TcpStream::connect(&*addresses).await?;
            socket.set_nodelay(true)?;
            Ok(Box::new(socket) as Box<dyn ByteStream>)
        })
    }
}

struct FromFn<F>(F);

impl<F, O, S> Dialler for FromFn<F>
where
    F: Fn(&str, u16) -> O + Send + Sync,
    O: Future<Output = io::Result<S>> + Send + 'static,
    S: ByteStream + 'static,
{
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialling<'a> {
        let dialled = (self.0)(host, port);
        Box::pin(async move { Ok(Box::new(dialled.await?) as Box<dyn ByteStream>) })
    }
}
