//! What a server is started with.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clock::Clock;

/// Everything [`crate::KvsLocal::start`] needs; [`Options::new`] gives the service's own values.
#[derive(Clone, Debug)]
pub struct Options {
    /// Port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// Streams and fragments live here; created if it is not there. One server at a time.
    pub data: PathBuf,
    /// Who may call. A request signed with any other key is refused.
    pub credentials: Vec<Credentials>,
    pub region: String,
    /// Twelve digits; part of each stream's ARN.
    pub account: String,
    /// What GetDataEndpoint answers; `None`: the address the server listens on.
    pub data_endpoint: Option<String>,
    /// `Some`: HTTPS only.
    pub tls: Option<Tls>,
    pub limits: Limits,
    /// Created at start, with this retention in hours, unless they are there already.
    pub create_streams: Vec<(String, u32)>,
    /// How long a new stream stays CREATING. Zero: it is ACTIVE in the first answer.
    pub create_delay: Duration,
    /// GetMedia passes on a fragment's bytes while it is still being received; `false`: whole fragments only.
    pub stream_while_receiving: bool,
    /// ListFragments shows a fragment so long after its PERSISTED ack: AWS documents the list as eventually
    /// consistent, normally complete within a second.
    pub list_lag: Duration,
    /// A fragment whose producer time lies further ahead of the server's clock is refused (ERROR 4007). `None`: none is;
    /// what the service allows is not known.
    pub refuse_ahead: Option<Duration>,
    /// Bytes of fragments on disk, over all streams; beyond it the disk counts as full (ERROR 5001).
    pub disk_limit_bytes: Option<u64>,
    /// How often fragments past their retention are looked for; reading a stream also looks.
    pub maintenance_every: Duration,
    /// Serve `/admin/...` without signatures: faults and inspection. Never on a reachable address.
    pub admin: bool,
    /// Wall time dates fragments and judges signatures; monotonic time is for deadlines, rates and idle times.
    pub clock: Clock,
}

impl Options {
    /// Listens on a free port of 127.0.0.1 and accepts [`Credentials::local`] in `us-west-2`.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            data: data.into(),
            credentials: vec![Credentials::local()],
            region: "us-west-2".to_owned(),
            account: "111122223333".to_owned(),
            data_endpoint: None,
            tls: None,
            limits: Limits::default(),
            create_streams: Vec::new(),
            create_delay: Duration::ZERO,
            stream_while_receiving: true,
            list_lag: Duration::ZERO,
            refuse_ahead: None,
            disk_limit_bytes: None,
            maintenance_every: Duration::from_secs(60),
            admin: false,
            clock: Clock::system(),
        }
    }

    /// Adds a stream to create at start.
    #[must_use]
    pub fn stream(mut self, name: impl Into<String>, retention_hours: u32) -> Self {
        self.create_streams.push((name.into(), retention_hours));
        self
    }
}

/// One caller's key pair.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub access_key: String,
    pub secret_key: String,
    /// `Some`: requests must carry exactly this token. `None`: they must carry none.
    pub session_token: Option<String>,
    /// In ms since 1970; from then on requests are refused as expired.
    pub expires_ms: Option<u64>,
}

impl Credentials {
    pub fn new(access_key: impl Into<String>, secret_key: impl Into<String>) -> Self {
        Self {
            access_key: access_key.into(),
            secret_key: secret_key.into(),
            session_token: None,
            expires_ms: None,
        }
    }

    /// The pair of a server that was not told another one. It protects nothing.
    pub fn local() -> Self {
        Self::new("AKIDKVSLOCAL", "kvs-local-secret")
    }

    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.session_token = Some(token.into());
        self
    }

    /// They last until then, in ms since 1970.
    #[must_use]
    pub fn until(mut self, expires_ms: u64) -> Self {
        self.expires_ms = Some(expires_ms);
        self
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("access_key", &self.access_key).finish_non_exhaustive()
    }
}

/// Certificate chain and key, PEM.
#[derive(Clone)]
pub struct Tls {
    pub certificate_pem: Vec<u8>,
    pub key_pem: Vec<u8>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// KVS limits page, PutMedia and GetMedia API pages; the sources differ in places, see each field.
///
/// Rates are off (`None`) by default, so that tests run at full speed; [`Limits::service`] turns all on. Each
/// lets one second's worth pass at once and is spread evenly from then on; 0 counts as 1. How the service
/// measures its seconds is not known. Where a rate slows a connection down instead of refusing it, the reaction
/// is ours: the pages give the number only.
///
/// Not here: the shortest fragment (1 s on the limits page, ack MIN_FRAGMENT_DURATION_REACHED). That ack has no
/// documented id and fragments of 0.5 s are reported as accepted, so to refuse them would be a guess.
#[derive(Clone, Debug)]
pub struct Limits {
    /// 50 MB; ERROR 4001.
    pub fragment_bytes: u64,
    /// 20 s by the limits page (10 s by the older API page), between first and last block; ERROR 4002.
    pub fragment_duration_ms: u64,
    /// 3; ERROR 4012.
    pub tracks: usize,
    /// 10 items; ERROR 4009.
    pub metadata_items: usize,
    /// 128; ERROR 4009.
    pub metadata_name_bytes: usize,
    /// 256; ERROR 4009.
    pub metadata_value_bytes: usize,
    /// About 45 minutes; users saw 2699 s again and again. ERROR 4003.
    pub put_media_age: Duration,
    /// Nothing arrived for this long: an IDLE ack, again each time it passes. The service's interval is not
    /// known.
    pub put_media_idle_ack: Duration,
    /// 30 s without a byte: the connection is closed, an open fragment is lost.
    pub put_media_idle_close: Duration,
    /// 1, the newest is refused; a larger number interleaves the sessions as the service once did.
    pub put_media_per_stream: usize,
    /// 3.
    pub get_media_per_stream: usize,
    /// 5.
    pub fragment_list_per_stream: usize,
    /// A caller over a connection limit waits this long for a slot before it is refused, so that a client
    /// that closes and opens at once does not race with our notice of the close.
    pub connection_grace: Duration,
    /// GetMedia ends without a mark at 40 to 45 minutes.
    pub get_media_age: Duration,
    /// GetMedia ends this long after the producer's last byte (3 s seen); `None`: it stays.
    pub get_media_idle_end: Option<Duration>,
    /// Retention 0: what GetMedia can still read, 200 MB ...
    pub buffer_bytes: u64,
    /// ... or 5 minutes, whichever is less.
    pub buffer_age: Duration,
    /// PutMedia, per stream; the service has 12,500,000 (limits page: per stream, API page: per session).
    /// Beyond it the body is read more slowly, which the producer feels as back-pressure. The service's own
    /// reaction is not known.
    pub put_media_bytes_per_second: Option<u64>,
    /// PutMedia, per stream; the service has 5 (limits page, API page). Beyond it the body is read more slowly,
    /// as above; users report that short fragments are throttled.
    pub put_media_fragments_per_second: Option<u32>,
    /// Each GetMedia answer; the service has 25,000,000 (limits page; API page: per session). Paced.
    pub get_media_bytes_per_second: Option<u64>,
    /// Each GetMedia answer; the service has 5 (limits page: the most that it sends). Paced.
    pub get_media_fragments_per_second: Option<u32>,
    /// Each GetMediaForFragmentList answer; the service has 25,000,000 (limits page; API page: per session).
    /// Paced.
    pub fragment_list_bytes_per_second: Option<u64>,
    /// Fragment-metadata points per stream; the service has 10,000 (limits page). ListFragments costs its
    /// MaxResults, a playlist the most that it may list, GetImages 400 and one for each picture. Beyond: ClientLimitExceededException.
    pub metadata_points_per_second: Option<u32>,
    /// Fragment-media points per stream; the service has 500 (limits page). A media fragment of a session costs one,
    /// GetMediaForFragmentList one for each fragment asked for, which may be 1000 at once: a call that costs more than a second's worth
    /// passes when nothing is spent, and the next one when all of it is back (ours, the page does not say).
    /// Beyond: ClientLimitExceededException.
    pub media_points_per_second: Option<u32>,
    /// Calls per operation and stream, control plane and media; the service has 5 (limits page, and API page for
    /// GetMediaForFragmentList). Beyond: ClientLimitExceededException.
    pub calls_per_second: Option<u32>,
    /// URLs of HLS sessions, and as many of DASH sessions, per stream; the service has 25 (limits page; in its older versions
    /// 1 after a burst of 5). Beyond: ClientLimitExceededException.
    pub session_urls_per_second: Option<u32>,
    /// Playlists, and as many initialisation fragments, of one session; the service has 5 (limits page). Beyond:
    /// ClientLimitExceededException.
    pub session_playlists_per_second: Option<u32>,
    /// Media fragments of one session; the service has 20 (limits page). Beyond: ClientLimitExceededException.
    pub session_fragments_per_second: Option<u32>,
    /// Calls per control operation over all streams, DescribeStream and GetDataEndpoint excepted; the service
    /// has 50 (limits page). Beyond: ClientLimitExceededException.
    pub account_calls_per_second: Option<u32>,
    /// Calls of DescribeStream over all streams, and as many of GetDataEndpoint; the service has 300 (limits
    /// page). Beyond: ClientLimitExceededException.
    pub account_lookups_per_second: Option<u32>,
    /// Streams that CreateStream makes at most, those there already counted; the service has 10,000 (limits
    /// page; less in its older versions). Beyond: AccountStreamLimitExceededException.
    pub streams_per_account: Option<usize>,
}

impl Limits {
    /// Every limit at the service's published value.
    pub fn service() -> Self {
        Self {
            put_media_bytes_per_second: Some(12_500_000),
            put_media_fragments_per_second: Some(5),
            get_media_bytes_per_second: Some(25_000_000),
            get_media_fragments_per_second: Some(5),
            fragment_list_bytes_per_second: Some(25_000_000),
            metadata_points_per_second: Some(10_000),
            media_points_per_second: Some(500),
            calls_per_second: Some(5),
            session_urls_per_second: Some(25),
            session_playlists_per_second: Some(5),
            session_fragments_per_second: Some(20),
            account_calls_per_second: Some(50),
            account_lookups_per_second: Some(300),
            streams_per_account: Some(10_000),
            ..Self::default()
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fragment_bytes: 50_000_000,
            fragment_duration_ms: 20_000,
            tracks: 3,
            metadata_items: kvs::tag::MAX_ITEMS_PER_FRAGMENT,
            metadata_name_bytes: kvs::tag::MAX_NAME_BYTES,
            metadata_value_bytes: kvs::tag::MAX_VALUE_BYTES,
            put_media_age: Duration::from_secs(45 * 60),
            put_media_idle_ack: Duration::from_secs(5),
            put_media_idle_close: Duration::from_secs(30),
            put_media_per_stream: 1,
            get_media_per_stream: 3,
            fragment_list_per_stream: 5,
            connection_grace: Duration::from_millis(300),
            get_media_age: Duration::from_secs(40 * 60),
            get_media_idle_end: Some(Duration::from_secs(3)),
            buffer_bytes: 200_000_000,
            buffer_age: Duration::from_secs(5 * 60),
            put_media_bytes_per_second: None,
            put_media_fragments_per_second: None,
            get_media_bytes_per_second: None,
            get_media_fragments_per_second: None,
            fragment_list_bytes_per_second: None,
            metadata_points_per_second: None,
            media_points_per_second: None,
            calls_per_second: None,
            session_urls_per_second: None,
            session_playlists_per_second: None,
            session_fragments_per_second: None,
            account_calls_per_second: None,
            account_lookups_per_second: None,
            streams_per_account: None,
        }
    }
}
