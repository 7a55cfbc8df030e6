//! Whose stream, and which part of it.

use std::path::PathBuf;

use clap::Args;
use clock::Clock;
use kvs_client::Client;
use kvs_client::kvs::api::{FragmentSelector, FragmentSelectorType, StreamId, TimestampRange, seconds};
use media::ProducerTimestamp;

use super::Failed;

/// Far behind any date that is asked for.
const LATEST_MS: u64 = 253_402_300_799_000;

/// Whose stream.
#[derive(Args)]
pub(crate) struct Account {
    /// The Kinesis video stream.
    #[arg(long)]
    pub(super) stream: Option<String>,
    /// Region, endpoints and keys are those of this configuration.
    #[arg(long, default_value_os_t = config::default_path())]
    pub(super) config: PathBuf,
    /// In place of a configuration: keys come from where AWS programs look for them.
    #[arg(long)]
    pub(super) region: Option<String>,
    /// Of all planes, such as that of kvs-local.
    #[arg(long, requires = "region")]
    pub(super) endpoint: Option<kvs_client::Endpoint>,
}

/// By producer time, both ends included; all that is stored without it.
#[derive(Args)]
pub(crate) struct Range {
    /// Such as 2026-11-20T14:47:53Z.
    #[arg(long, value_parser = time)]
    pub(super) from: Option<ProducerTimestamp>,
    #[arg(long, value_parser = time)]
    pub(super) to: Option<ProducerTimestamp>,
}

/// A range with both ends.
#[derive(Args)]
pub(crate) struct Closed {
    /// Such as 2026-11-20T14:47:53Z.
    #[arg(long, value_parser = time)]
    pub(super) from: ProducerTimestamp,
    #[arg(long, value_parser = time)]
    pub(super) to: ProducerTimestamp,
}

/// Which fragments.
#[derive(Args)]
pub(crate) struct What {
    #[command(flatten)]
    pub(super) account: Account,
    #[command(flatten)]
    pub(super) range: Range,
    /// What is uploaded now, in place of what is stored, until the producer stops.
    #[arg(long, conflicts_with_all = ["from", "to"])]
    pub(super) live: bool,
    /// At most so many.
    #[arg(long)]
    pub(super) count: Option<usize>,
    /// A file with Matroska documents, in place of a stream.
    #[arg(long, conflicts_with_all = ["stream", "live", "from", "to"])]
    pub(super) file: Option<PathBuf>,
}

pub(super) fn time(text: &str) -> Result<ProducerTimestamp, String> {
    let wrong = || format!("`{text}` is no date and time of RFC 3339, such as 2026-11-20T14:47:53Z");
    ProducerTimestamp::parse_rfc3339(text).ok_or_else(wrong)
}

impl Account {
    pub(super) async fn open(&self) -> Result<(Client, StreamId), Failed> {
        let stream = self.stream.as_deref().ok_or("name the stream: --stream NAME")?;
        let client = match &self.region {
            None => {
                let config = config::Config::load(&self.config).map_err(|errors| errors.to_string())?;
                let made =
                    kvs_edge::aws::client(&config.aws, &config::Upload::default(), Clock::system()).await;
                made.map_err(|error| health::chain(&error))?
            }
            Some(region) => {
                let credentials = kvs_client::default_credentials(region).await;
                let mut config = kvs_client::Config::new(region, credentials);
                config.endpoints.control.clone_from(&self.endpoint);
                Client::new(config).map_err(|error| health::chain(&error))?
            }
        };
        Ok((client, StreamId::name(stream)))
    }
}

impl Range {
    pub(super) fn selector(&self) -> Result<FragmentSelector, Failed> {
        let ms = |time: Option<ProducerTimestamp>, or: u64| time.map_or(or, ProducerTimestamp::as_millis);
        selector(ms(self.from, 0), ms(self.to, LATEST_MS))
    }
}

impl Closed {
    pub(super) fn selector(&self) -> Result<FragmentSelector, Failed> {
        selector(self.from.as_millis(), self.to.as_millis())
    }
}

pub(super) fn selector(from_ms: u64, to_ms: u64) -> Result<FragmentSelector, Failed> {
    if from_ms > to_ms {
        let [from, to] = [from_ms, to_ms].map(ProducerTimestamp::from_millis);
        return Err(format!("--from {from} lies behind --to {to}").into());
    }
    Ok(FragmentSelector {
        fragment_selector_type: FragmentSelectorType::ProducerTimestamp,
        timestamp_range: TimestampRange { start_timestamp: seconds(from_ms), end_timestamp: seconds(to_ms) },
    })
}
