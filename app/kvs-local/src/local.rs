//! The server as its owner holds it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem};
use sha2::{Digest, Sha256};
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{self, ServerConfig, crypto::ring};

use crate::faults::Faults;
use crate::fragment_reader::{payload_offset, whole};
use crate::inspect::{Connections, SentAck, StoredFragment};
use crate::options::{Options, Tls};
use crate::server;
use crate::service::Service;
use crate::sigv4::to_hex;
use crate::store::{FragmentFile, StoreError};
use crate::stream::{Place, Stored, Stream, blocking};

/// How long `shutdown` waits for what is under way.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(5);

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("data folder {}: {reason}", path.display())]
    Data { path: PathBuf, reason: String },
    #[error("data folder {}: another server runs on it; stop that one or choose another folder", path.display())]
    InUse { path: PathBuf },
    #[error("certificate or key: {0}")]
    Pem(#[from] pem::Error),
    #[error("certificate or key: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why a stored fragment could not be looked at or damaged.
#[derive(Debug, thiserror::Error)]
pub enum FragmentError {
    #[error("no stream `{stream}`")]
    NoStream { stream: String },
    #[error("stream `{stream}` has no stored fragment {number}")]
    NoFragment { stream: String, number: String },
    #[error("fragment {number}: {source}")]
    Io { number: String, source: io::Error },
}

/// A running server, and the only one on its data folder. Dropped, it stops at once, and the folder is free when
/// its tasks have noticed; after [`KvsLocal::shutdown`], the gentle way, it is free on return.
#[derive(Debug)]
pub struct KvsLocal {
    service: Handle,
    address: Option<SocketAddr>,
    tls: Option<Acceptor>,
}

/// Opens connections in memory to one server. Nothing of it depends on the machine: with a client on the same runtime
/// and paused time, a session of minutes takes milliseconds.
///
/// ```text
/// client --write--> buffer of the chosen size --read--> server      and the same back
/// ```
#[derive(Clone, Debug)]
pub struct Connector {
    service: Weak<Service>,
    tls: Option<Acceptor>,
}

impl Connector {
    /// A new connection. Each direction holds `buffer_bytes` that the other end has not read; then its writer waits, as
    /// with a socket. Refused once the server stops.
    pub fn connect(&self, buffer_bytes: usize) -> io::Result<DuplexStream> {
        let service = self.service.upgrade().filter(|service| !service.stopping.is_cancelled());
        let service = service.ok_or(io::ErrorKind::ConnectionRefused)?;
        let (ours, theirs) = tokio::io::duplex(buffer_bytes);
        server::accept(&service, ours, self.tls.as_ref().map(|acceptor| acceptor.0.clone()));
        Ok(theirs)
    }
}

#[derive(Clone)]
struct Acceptor(TlsAcceptor);

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acceptor")
    }
}

/// So that `KvsLocal` has a short `Debug`.
#[derive(Clone)]
struct Handle(Arc<Service>);

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.endpoint())
    }
}

impl KvsLocal {
    /// Locks and reads the data folder, binds and serves, on the runtime that this is called on.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let wanted = options.listen;
        let mut server = Self::open(options).await?;
        let listen_error = |source| StartError::Listen { address: wanted, source };
        let listener = TcpListener::bind(wanted).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        server.address = Some(address);
        server.serve(&address.to_string());
        let (service, tls) = (&server.service.0, server.tls.clone().map(|acceptor| acceptor.0));
        service.tasks.spawn(server::run(service.clone(), listener, tls));
        tracing::info!(endpoint = service.endpoint(), "kvs-local listens");
        Ok(server)
    }

    /// The same without a socket: only [`Self::connector`] leads to it, and GetDataEndpoint names a host that does not
    /// exist.
    pub async fn start_in_memory(options: Options) -> Result<Self, StartError> {
        let server = Self::open(options).await?;
        server.serve("kvs-local.invalid");
        Ok(server)
    }

    async fn open(options: Options) -> Result<Self, StartError> {
        let tls = options.tls.as_ref().map(acceptor).transpose()?.map(Acceptor);
        let path = options.data.clone();
        let service = Service::open(options).await.map_err(|error| match error {
            StoreError::InUse { path } => StartError::InUse { path },
            other => StartError::Data { path, reason: other.to_string() },
        })?;
        Ok(Self { service: Handle(Arc::new(service)), address: None, tls })
    }

    fn serve(&self, host: &str) {
        let (service, scheme) = (&self.service.0, if self.tls.is_some() { "https" } else { "http" });
        service.endpoint.get_or_init(|| format!("{scheme}://{host}"));
        let (maintained, every) = (service.clone(), service.options.maintenance_every);
        service.tasks.spawn(async move { maintain(&maintained, every).await });
    }

    /// Opens connections in memory, also to a server that listens.
    pub fn connector(&self) -> Connector {
        Connector { service: Arc::downgrade(&self.service.0), tls: self.tls.clone() }
    }

    /// `http://127.0.0.1:PORT`; for all planes.
    pub fn endpoint(&self) -> String {
        self.service.0.endpoint().to_owned()
    }

    /// `None`: started in memory.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    pub fn region(&self) -> &str {
        &self.service.0.options.region
    }

    /// The list that faults are injected into.
    pub fn faults(&self) -> &Faults {
        &self.service.0.faults
    }

    /// Stops accepting, ends all sessions, waits until fragments under way are on disk.
    pub async fn shutdown(self) {
        let service = &self.service.0;
        service.stopping.cancel();
        service.tasks.close();
        if tokio::time::timeout(SHUTDOWN_DEADLINE, service.tasks.wait()).await.is_err() {
            tracing::warn!("connections still open, dropped");
        }
    }

    /// Removes what is past its retention, now.
    pub async fn expire(&self) {
        self.service.0.expire_all().await;
    }

    /// Names of all streams, in order.
    pub fn streams(&self) -> Vec<String> {
        self.service.0.all().iter().map(|stream| stream.name.clone()).collect()
    }

    /// Stored fragments in order of their numbers, hashed as they lie there now.
    pub async fn fragments(&self, stream: &str) -> Result<Vec<StoredFragment>, FragmentError> {
        fragments(&*self.stream(stream)?).await
    }

    /// The producer's bytes of one stored fragment: (header and tags in front, cluster, what follows it).
    pub async fn fragment(&self, stream: &str, number: &str) -> Result<(Bytes, Bytes, Bytes), FragmentError> {
        let stored = stored(&*self.stream(stream)?, number)?;
        whole(&stored).await.map_err(io_error(number))
    }

    /// Flips a payload byte of the fragment on disk, so that its size and structure stay. In memory (retention
    /// 0) nothing can be damaged.
    pub async fn corrupt_fragment(&self, stream: &str, number: &str) -> Result<(), FragmentError> {
        corrupt_fragment(&*self.stream(stream)?, number).await
    }

    /// As if it had never been persisted.
    pub async fn delete_fragment(&self, stream: &str, number: &str) -> Result<(), FragmentError> {
        delete_fragment(&*self.stream(stream)?, number).await
    }

    /// Cuts the cluster off in the middle of its media, as a store that lost a part of it.
    pub async fn truncate_fragment(&self, stream: &str, number: &str) -> Result<(), FragmentError> {
        let (stream, number) = (self.stream(stream)?, number.to_owned());
        let one = stored(&stream, &number)?;
        let (front, cluster, trailer) = whole(&one).await.map_err(io_error(&number))?;
        let cut = cluster.slice(..cluster.len() / 2);
        put_instead(&stream, &one, [front, cut, trailer]).await
    }

    /// Exchanges the clusters of two fragments, and what belongs to them; each keeps its number and times.
    pub async fn swap_fragments(&self, stream: &str, a: &str, b: &str) -> Result<(), FragmentError> {
        let stream = self.stream(stream)?;
        let (one, two) = (stored(&stream, a)?, stored(&stream, b)?);
        let (front_a, cluster_a, trailer_a) = whole(&one).await.map_err(io_error(a))?;
        let (front_b, cluster_b, trailer_b) = whole(&two).await.map_err(io_error(b))?;
        put_instead(&stream, &one, [front_a, cluster_b, trailer_b]).await?;
        put_instead(&stream, &two, [front_b, cluster_a, trailer_a]).await
    }

    /// Acks as they were sent, oldest first.
    pub fn acks(&self, stream: &str) -> Result<Vec<SentAck>, FragmentError> {
        Ok(self.stream(stream)?.acks())
    }

    /// Fires when a fragment of the stream begins, ends, is stored or is lost, and when an ack is sent. To wait
    /// for something: subscribe, look, then wait.
    pub fn changes(&self, stream: &str) -> Result<watch::Receiver<()>, FragmentError> {
        Ok(self.stream(stream)?.subscribe())
    }

    pub fn connections(&self, stream: &str) -> Result<Connections, FragmentError> {
        Ok(connections(&*self.stream(stream)?))
    }

    /// How often each path was called with a good signature or session token.
    pub fn calls(&self) -> BTreeMap<&'static str, u64> {
        self.service.0.calls()
    }

    /// Ends the GetMedia answers of this stream that run now, without a mark, as the service does after 40
    /// minutes.
    pub fn end_get_media(&self, stream: &str) -> Result<(), FragmentError> {
        self.stream(stream)?.end_get_media();
        Ok(())
    }

    /// Bytes that fragments take on disk.
    pub fn disk_used_bytes(&self) -> u64 {
        self.service.0.disk.used_bytes()
    }

    fn stream(&self, stream: &str) -> Result<Arc<Stream>, FragmentError> {
        find(&self.service.0, stream)
    }
}

impl Drop for KvsLocal {
    fn drop(&mut self) {
        self.service.0.stopping.cancel();
        self.service.0.abort.cancel();
    }
}

async fn maintain(service: &Service, every: Duration) {
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while service.stopping.run_until_cancelled(ticks.tick()).await.is_some() {
        service.expire_all().await;
    }
}

fn acceptor(tls: &Tls) -> Result<TlsAcceptor, StartError> {
    let chain = CertificateDer::pem_slice_iter(&tls.certificate_pem).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(&tls.key_pem)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

pub(crate) fn find(service: &Service, stream: &str) -> Result<Arc<Stream>, FragmentError> {
    service.find(stream).ok_or_else(|| FragmentError::NoStream { stream: stream.to_owned() })
}

pub(crate) fn connections(stream: &Stream) -> Connections {
    Connections {
        put_media: stream.put_media.open(),
        get_media: stream.get_media.open(),
        fragment_list: stream.fragment_lists.open(),
        put_media_ever: stream.put_media.ever(),
        get_media_ever: stream.get_media.ever(),
        fragment_list_ever: stream.fragment_lists.ever(),
    }
}

pub(crate) async fn fragments(stream: &Stream) -> Result<Vec<StoredFragment>, FragmentError> {
    let mut fragments = Vec::new();
    for stored in stream.all_stored() {
        let meta = &stored.meta;
        let number = meta.number.to_string();
        let (_, cluster, _) = whole(&stored).await.map_err(io_error(&number))?;
        fragments.push(StoredFragment {
            number,
            server_ms: meta.server_ms(),
            producer_ms: meta.producer_ms,
            timecode: meta.timecode,
            length_ms: meta.length_ms,
            blocks: meta.blocks,
            size_bytes: meta.size_bytes(),
            cluster_bytes: cluster.len() as u64,
            cluster_sha256: to_hex(&Sha256::digest(&cluster)),
        });
    }
    Ok(fragments)
}

pub(crate) async fn corrupt_fragment(stream: &Stream, number: &str) -> Result<(), FragmentError> {
    let stored = stored(stream, number)?;
    let Place::Disk(file) = &stored.place else { return Err(no_fragment(stream, number)) };
    let (front, cluster, _) = whole(&stored).await.map_err(io_error(number))?;
    let at = payload_offset(&stored.meta, &front, &cluster).unwrap_or(cluster.len() / 2);
    let (path, position) = (file.path.clone(), file.offset + (front.len() + at) as u64);
    let byte = cluster.get(at).map_or(0, |byte| byte ^ 0xff);
    blocking(move || {
        use std::os::unix::fs::FileExt;
        std::fs::OpenOptions::new().write(true).open(path)?.write_all_at(&[byte], position)
    })
    .await
    .map_err(io_error(number))
}

/// The fragment now has these parts, for as long as this server runs; the file that it was stays beside them.
async fn put_instead(
    stream: &Stream,
    one: &Stored,
    [front, cluster, trailer]: [Bytes; 3],
) -> Result<(), FragmentError> {
    let number = one.meta.number.to_string();
    let Place::Disk(file) = &one.place else { return Err(no_fragment(stream, &number)) };
    let (path, mut meta) = (file.path.with_extension("damaged"), one.meta.clone());
    (meta.cluster_bytes, meta.trailer_bytes) = (cluster.len() as u64, trailer.len() as u64);
    let bytes = [front, cluster, trailer].concat();
    let file = FragmentFile { path: path.clone(), offset: 0, file_bytes: bytes.len() as u64 };
    blocking(move || std::fs::write(path, bytes)).await.map_err(io_error(&number))?;
    stream.put_instead(Stored { meta, place: Place::Disk(file), since: one.since });
    Ok(())
}

pub(crate) async fn delete_fragment(stream: &Stream, number: &str) -> Result<(), FragmentError> {
    let parsed = number.parse().map_err(|_| no_fragment(stream, number))?;
    if stream.remove(parsed).await { Ok(()) } else { Err(no_fragment(stream, number)) }
}

fn stored(stream: &Stream, number: &str) -> Result<Arc<Stored>, FragmentError> {
    let parsed = number.parse().ok();
    parsed.and_then(|number| stream.stored(number)).ok_or_else(|| no_fragment(stream, number))
}

fn no_fragment(stream: &Stream, number: &str) -> FragmentError {
    FragmentError::NoFragment { stream: stream.name.clone(), number: number.to_owned() }
}

fn io_error(number: &str) -> impl FnOnce(io::Error) -> FragmentError {
    let number = number.to_owned();
    move |source| FragmentError::Io { number, source }
}
