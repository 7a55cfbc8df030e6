//! Copies a range of time to a folder, one Matroska file for each fragment; any player opens them.
//!
//! ```text
//! cargo run -p kvs-client --example copy_range -- REGION STREAM FROM TO FOLDER [ENDPOINT]
//! ```
//!
//! FROM and TO are like 2026-11-20T10:00:00Z, by the producer's clock, both included. Keys come from AWS_ACCESS_KEY_ID,
//! AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN. ENDPOINT is for a local server. A file that is there already is left as it is, so
//! that a copy that broke off is gone on with by the same command.

use std::error::Error;
use std::path::Path;

use kvs_client::kvs::api::{
    FragmentSelector, FragmentSelectorType, GetMediaForFragmentListInput, StreamId, TimestampRange, seconds,
};
use kvs_client::media::ProducerTimestamp;
use kvs_client::{Client, Config, FragmentStream, static_credentials};

/// Fragments in one call; KVS takes up to 1000.
const BATCH: usize = 100;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [region, stream, from, to, folder, endpoint @ ..] = arguments.as_slice() else {
        return Err("expected: REGION STREAM FROM TO FOLDER [ENDPOINT]".into());
    };
    let time = |text: &str| {
        let time = ProducerTimestamp::parse_rfc3339(text).map(ProducerTimestamp::as_millis);
        time.ok_or_else(|| format!("`{text}` is no time, expected one like 2026-11-20T10:00:00Z"))
    };
    let keys = static_credentials(
        std::env::var("AWS_ACCESS_KEY_ID")?,
        std::env::var("AWS_SECRET_ACCESS_KEY")?,
        std::env::var("AWS_SESSION_TOKEN").ok(),
    );
    let mut config = Config::new(region, keys);
    config.endpoints.control = endpoint.first().map(|text| text.parse()).transpose()?;
    let (client, stream) = (Client::new(config)?, StreamId::name(stream));
    let copied = copy(&client, &stream, time(from)?, time(to)?, Path::new(folder)).await?;
    println!("{copied} fragments copied to {folder}");
    Ok(())
}

/// Times in ms since the Unix epoch; returns how many files were written.
pub(crate) async fn copy(
    client: &Client,
    stream: &StreamId,
    from_ms: u64,
    to_ms: u64,
    folder: &Path,
) -> Result<usize, Box<dyn Error>> {
    let selector = FragmentSelector {
        fragment_selector_type: FragmentSelectorType::ProducerTimestamp,
        timestamp_range: TimestampRange { start_timestamp: seconds(from_ms), end_timestamp: seconds(to_ms) },
    };
    let mut rows = client.list_all_fragments(stream, selector).await?; // in no order
    rows.sort_by(|a, b| a.producer_timestamp.total_cmp(&b.producer_timestamp));
    std::fs::create_dir_all(folder)?;
    let file = |number: &str| folder.join(format!("{number}.mkv"));
    let numbers = rows.into_iter().map(|row| row.fragment_number);
    let wanted: Vec<String> = numbers.filter(|number| !file(number).exists()).collect();
    let mut copied = 0;
    for batch in wanted.chunks(BATCH) {
        let input = GetMediaForFragmentListInput { stream: stream.clone(), fragments: batch.to_vec() };
        let mut fragments = FragmentStream::new(client.get_media_for_fragment_list(&input).await?);
        while let Some(fragment) = fragments.next().await? {
            if let Some(failure) = fragment.failure() {
                eprintln!("{failure}"); // gone since it was listed
                continue;
            }
            let Some(number) = fragment.number.filter(|_| fragment.complete) else { continue };
            // Written aside first, so that a file of this name is always whole.
            let (aside, at) = (folder.join("part"), file(&number.to_string()));
            std::fs::write(&aside, fragment.bytes())?;
            std::fs::rename(aside, at)?;
            copied += 1;
        }
    }
    Ok(copied)
}
