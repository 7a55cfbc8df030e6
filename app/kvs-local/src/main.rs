//! `kvs-local`: the server as a program.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, value_parser};
use kvs_local::{Credentials, KvsLocal, Limits, Options, Tls};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// A server that speaks the Kinesis Video Streams protocol, for tests, demos and dry runs.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Address to listen on; port 0 lets the kernel choose
    #[arg(long, default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// Folder for streams and fragments
    #[arg(long)]
    data: PathBuf,
    #[arg(long, env = "AWS_REGION", default_value = "us-west-2")]
    region: String,
    #[arg(long, default_value = "111122223333")]
    account: String,
    /// Without it: AKIDKVSLOCAL
    #[arg(long, env = "AWS_ACCESS_KEY_ID", requires = "secret_key")]
    access_key: Option<String>,
    /// Without it: kvs-local-secret
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", hide_env_values = true, requires = "access_key")]
    secret_key: Option<String>,
    #[arg(long, env = "AWS_SESSION_TOKEN", hide_env_values = true, requires = "access_key")]
    session_token: Option<String>,
    /// Certificate chain, PEM; serves HTTPS only
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// What GetDataEndpoint answers, if not the address that the server listens on
    #[arg(long)]
    data_endpoint: Option<String>,
    /// Create this stream at start if it is not there; may be repeated
    #[arg(long = "create", value_name = "STREAM")]
    create: Vec<String>,
    /// Retention of streams made by --create, hours; 0 persists nothing
    #[arg(long, default_value_t = 24)]
    retention_hours: u32,
    /// Serve /admin/... without signatures: faults and inspection
    #[arg(long)]
    admin: bool,
    /// GetMedia passes on whole fragments only
    #[arg(long)]
    whole_fragments: bool,
    /// A new stream stays CREATING for so long
    #[arg(long, default_value_t = 0)]
    create_delay_ms: u64,
    /// ListFragments shows a fragment so long after its PERSISTED ack
    #[arg(long, default_value_t = 0)]
    list_lag_ms: u64,
    /// Refuse fragments whose producer time lies further ahead of this machine's clock (ERROR 4007)
    #[arg(long)]
    refuse_ahead_ms: Option<u64>,
    /// Bytes of fragments beyond which the disk counts as full
    #[arg(long)]
    disk_limit_bytes: Option<u64>,
    #[arg(long, default_value_t = Limits::default().fragment_bytes)]
    max_fragment_bytes: u64,
    #[arg(long, default_value_t = Limits::default().fragment_duration_ms)]
    max_fragment_duration_ms: u64,
    #[arg(long, default_value_t = Limits::default().put_media_age.as_secs())]
    put_media_age_s: u64,
    #[arg(long, default_value_t = Limits::default().put_media_idle_close.as_secs())]
    put_media_idle_s: u64,
    /// PutMedia sessions per stream; more than 1 interleaves them
    #[arg(long, default_value_t = Limits::default().put_media_per_stream)]
    put_media_per_stream: usize,
    #[arg(long, default_value_t = Limits::default().get_media_per_stream)]
    get_media_per_stream: usize,
    #[arg(long, default_value_t = Limits::default().get_media_age.as_secs())]
    get_media_age_s: u64,
    /// GetMedia ends so long after the producer's last byte
    #[arg(long, default_value_t = 3000)]
    get_media_idle_ms: u64,
    /// GetMedia does not end when the producer stops
    #[arg(long)]
    get_media_stays: bool,
    #[command(flatten)]
    rates: Rates,
}

/// Off unless asked for
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Rates and quotas, not enforced without their option")]
struct Rates {
    /// Every limit at the value that the service publishes; options given beside it count more
    #[arg(long)]
    service_limits: bool,
    /// Body bytes that PutMedia reads per second and stream [service: 12500000]
    #[arg(long, value_parser = value_parser!(u64).range(1..))]
    put_media_bytes_per_second: Option<u64>,
    /// Fragments that PutMedia reads per second and stream [service: 5]
    #[arg(long, value_parser = value_parser!(u32).range(1..))]
    put_media_fragments_per_second: Option<u32>,
    /// Bytes per second of each GetMedia answer [service: 25000000]
    #[arg(long, value_parser = value_parser!(u64).range(1..))]
    get_media_bytes_per_second: Option<u64>,
    /// Fragments per second of each GetMedia answer [service: 5]
    #[arg(long, value_parser = value_parser!(u32).range(1..))]
    get_media_fragments_per_second: Option<u32>,
    /// Bytes per second of each GetMediaForFragmentList answer [service: 25000000]
    #[arg(long, value_parser = value_parser!(u64).range(1..))]
    fragment_list_bytes_per_second: Option<u64>,
    /// Fragment-metadata points per second and stream; ListFragments costs its MaxResults [service: 10000]
    #[arg(long, value_parser = value_parser!(u32).range(1..))]
    metadata_points_per_second: Option<u32>,
    /// Fragment-media points per second and stream; GetMediaForFragmentList costs one per fragment [service: 500]
    #[arg(long, value_parser = value_parser!(u32).range(1..))]
    media_points_per_second: Option<u32>,
    /// Calls per second, operation and stream [service: 5]
    #[arg(long, value_parser = value_parser!(u32).range(1..))]
    calls_per_second: Option<u32>,
    /// Calls per second and control operation over all streams [service: 50]
    #[arg(long, value_parser = value_parser!(u32).range(1..))]
    account_calls_per_second: Option<u32>,
    /// The same for DescribeStream and GetDataEndpoint [service: 300]
    #[arg(long, value_parser = value_parser!(u32).range(1..))]
    account_lookups_per_second: Option<u32>,
    /// Streams that CreateStream makes at most [service: 10000]
    #[arg(long)]
    streams_per_account: Option<usize>,
}

impl Rates {
    fn limits(self) -> Limits {
        let base = if self.service_limits { Limits::service() } else { Limits::default() };
        Limits {
            put_media_bytes_per_second: self.put_media_bytes_per_second.or(base.put_media_bytes_per_second),
            put_media_fragments_per_second: self
                .put_media_fragments_per_second
                .or(base.put_media_fragments_per_second),
            get_media_bytes_per_second: self.get_media_bytes_per_second.or(base.get_media_bytes_per_second),
            get_media_fragments_per_second: self
                .get_media_fragments_per_second
                .or(base.get_media_fragments_per_second),
            fragment_list_bytes_per_second: self
                .fragment_list_bytes_per_second
                .or(base.fragment_list_bytes_per_second),
            metadata_points_per_second: self.metadata_points_per_second.or(base.metadata_points_per_second),
            media_points_per_second: self.media_points_per_second.or(base.media_points_per_second),
            calls_per_second: self.calls_per_second.or(base.calls_per_second),
            account_calls_per_second: self.account_calls_per_second.or(base.account_calls_per_second),
            account_lookups_per_second: self.account_lookups_per_second.or(base.account_lookups_per_second),
            streams_per_account: self.streams_per_account.or(base.streams_per_account),
            ..base
        }
    }
}

impl Arguments {
    fn options(self) -> Result<Options, String> {
        let read =
            |path: &PathBuf| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
        let tls = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => {
                Some(Tls { certificate_pem: read(certificate)?, key_pem: read(key)? })
            }
            _ => None,
        };
        let credentials = match (self.access_key, self.secret_key) {
            (Some(access_key), Some(secret_key)) => {
                Credentials { access_key, secret_key, session_token: self.session_token, expires_ms: None }
            }
            _ => Credentials::local(),
        };
        let limits = Limits {
            fragment_bytes: self.max_fragment_bytes,
            fragment_duration_ms: self.max_fragment_duration_ms,
            put_media_age: Duration::from_secs(self.put_media_age_s),
            put_media_idle_close: Duration::from_secs(self.put_media_idle_s),
            put_media_per_stream: self.put_media_per_stream,
            get_media_per_stream: self.get_media_per_stream,
            get_media_age: Duration::from_secs(self.get_media_age_s),
            get_media_idle_end: (!self.get_media_stays)
                .then(|| Duration::from_millis(self.get_media_idle_ms)),
            ..self.rates.limits()
        };
        Ok(Options {
            listen: self.listen,
            credentials: vec![credentials],
            region: self.region,
            account: self.account,
            data_endpoint: self.data_endpoint,
            tls,
            limits,
            create_streams: self.create.into_iter().map(|name| (name, self.retention_hours)).collect(),
            create_delay: Duration::from_millis(self.create_delay_ms),
            stream_while_receiving: !self.whole_fragments,
            list_lag: Duration::from_millis(self.list_lag_ms),
            refuse_ahead: self.refuse_ahead_ms.map(Duration::from_millis),
            disk_limit_bytes: self.disk_limit_bytes,
            admin: self.admin,
            ..Options::new(self.data)
        })
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), String> {
    let listen = |kind| signal(kind).map_err(|error| format!("signals: {error}"));
    let (mut interrupted, mut terminated) =
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let server = KvsLocal::start(arguments.options()?).await.map_err(|error| error.to_string())?;
    println!("{}", server.endpoint());
    tokio::select! {
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
    server.shutdown().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(arguments: &[&str]) -> Result<Limits, clap::Error> {
        let arguments = Arguments::try_parse_from([&["kvs-local", "--data", "data"], arguments].concat())?;
        Ok(arguments.options().expect("no files to read").limits)
    }

    #[test]
    fn one_switch_sets_the_limits_of_the_service_and_an_option_beside_it_counts_more() {
        let text = |limits: &Limits| format!("{limits:?}");
        assert_eq!(text(&limits(&[]).expect("good")), text(&Limits::default()));
        assert_eq!(text(&limits(&["--service-limits"]).expect("good")), text(&Limits::service()));
        let mixed = limits(&["--service-limits", "--media-points-per-second", "7"]).expect("good");
        assert_eq!(mixed.media_points_per_second, Some(7));
        assert_eq!(mixed.metadata_points_per_second, Some(10_000));
        assert_eq!(limits(&["--calls-per-second", "3"]).expect("good").calls_per_second, Some(3));
        assert!(limits(&["--calls-per-second", "0"]).is_err());
    }
}
