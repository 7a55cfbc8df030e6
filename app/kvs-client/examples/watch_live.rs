//! Watches a stream live: says of each picture when it was taken, how large it is, and how old.
//!
//! ```text
//! cargo run -p kvs-client --example watch_live -- REGION STREAM [ENDPOINT]
//! ```
//!
//! Keys come from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN. ENDPOINT is for a local server, such as
//! http://127.0.0.1:8080. It runs until Ctrl-C, whatever happens to the connection.

use std::error::Error;
use std::io::Write;

use kvs_client::kvs::api::StreamId;
use kvs_client::media::{Feed, UnitSource};
use kvs_client::source::{Source, SourceOptions, StreamSource};
use kvs_client::{Client, Config, static_credentials};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [region, stream, endpoint @ ..] = arguments.as_slice() else {
        return Err("expected: REGION STREAM [ENDPOINT]".into());
    };
    let keys = static_credentials(
        std::env::var("AWS_ACCESS_KEY_ID")?,
        std::env::var("AWS_SECRET_ACCESS_KEY")?,
        std::env::var("AWS_SESSION_TOKEN").ok(),
    );
    let mut config = Config::new(region, keys);
    config.endpoints.control = endpoint.first().map(|text| text.parse()).transpose()?;
    let mut options = SourceOptions::default(); // GetMedia from NOW on; `SourceMode::Hls` is the same by HLS
    options.get_media.max_reconnect_attempts = None; // for ever
    watch(&Client::new(config)?, &StreamId::name(stream), &options, &mut std::io::stdout()).await
}

/// Ends with the source.
pub(crate) async fn watch(
    client: &Client,
    stream: &StreamId,
    options: &SourceOptions,
    out: &mut impl Write,
) -> Result<(), Box<dyn Error>> {
    let mut source = Source::new(client, stream, options)?;
    while let Some(item) = source.next().await {
        match item {
            Feed::Video(unit) => {
                let origin = source.origin().unwrap_or_default();
                let fragment = origin.number.map_or("-".to_owned(), |number| number.to_string());
                let latency_ms = source.figures().latency_ms.unwrap_or(0);
                let (width, height) = (unit.format.width, unit.format.height);
                writeln!(
                    out,
                    "{} {width}x{height} {} bytes{} fragment {fragment} {latency_ms} ms old",
                    unit.timestamp,
                    unit.data.len(),
                    if unit.random_access { " key" } else { "" },
                )?;
            }
            Feed::Break => writeln!(out, "pictures are missing here")?,
            Feed::NewTimeline => writeln!(out, "the producer's time has begun anew")?,
            Feed::Audio(_) | Feed::AudioTrack(_) => {}
        }
    }
    match source.last_error() {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}
