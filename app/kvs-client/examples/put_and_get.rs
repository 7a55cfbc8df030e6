//! Sends a Matroska file to a stream and reads it back:
//!
//! ```text
//! cargo run -p kvs-client --example put_and_get -- REGION STREAM in.mkv out.mkv [ENDPOINT]
//! ```
//!
//! Keys come from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN. ENDPOINT is for a local server,
//! such as http://127.0.0.1:8080. The file needs H.264 or H.265 and one cluster per group of pictures; its timecodes
//! count from now.

use std::error::Error;

use bytes::Bytes;
use kvs_client::kvs::ack::AckEvent;
use kvs_client::kvs::api::{CreateStreamInput, StartSelector, StreamId};
use kvs_client::{
    Client, Clock, Config, PutMedia, PutMediaInput, ServiceErrorKind, TimecodeType, static_credentials,
};
use tokio::io::AsyncWriteExt;

const PIECE_BYTES: usize = 64 * 1024;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [region, stream, input, output, endpoint @ ..] = arguments.as_slice() else {
        return Err("expected: REGION STREAM in.mkv out.mkv [ENDPOINT]".into());
    };
    let token = std::env::var("AWS_SESSION_TOKEN").ok();
    let credentials = static_credentials(
        std::env::var("AWS_ACCESS_KEY_ID")?,
        std::env::var("AWS_SECRET_ACCESS_KEY")?,
        token,
    );
    let mut config = Config::new(region, credentials);
    config.endpoints.control = endpoint.first().map(|text| text.parse()).transpose()?;
    let client = Client::new(config)?;

    let create = CreateStreamInput {
        stream_name: stream.clone(),
        data_retention_in_hours: Some(1),
        ..Default::default()
    };
    match client.create_stream(&create).await {
        Err(error) if error.service_kind() == Some(&ServiceErrorKind::ResourceInUse) => {}
        other => println!("created {}", other?.stream_arn),
    }
    let stream = StreamId::name(stream);
    let first = put(&client, &stream, Bytes::from(tokio::fs::read(input).await?)).await?;
    let Some(first) = first else { return Err("nothing was persisted".into()) };

    // From the first fragment on, found by the time at which the service began to receive it.
    let start = StartSelector::server_timestamp_ms(first.server_time_ms());
    let mut media = client.get_media(&stream, start).await?;
    media.set_idle_limit(Some(std::time::Duration::from_secs(5))); // a live answer has no end of its own
    let mut file = tokio::fs::File::create(output).await?;
    while let Ok(Some(bytes)) = media.next_bytes().await {
        file.write_all(&bytes).await?;
    }
    file.flush().await?;
    Ok(())
}

/// Sends `file`; gives the number of its first fragment.
async fn put(
    client: &Client,
    stream: &StreamId,
    file: Bytes,
) -> Result<Option<kvs_client::kvs::FragmentNumber>, Box<dyn Error>> {
    let start_ms = Clock::system().wall_ms();
    let (stream, timecode_type) = (stream.clone(), TimecodeType::Relative);
    let input = PutMediaInput { stream: stream.clone(), timecode_type, start_ms, write_timeout: None };
    let PutMedia { mut sender, mut acks } = client.put_media(&input).await?;
    let sending = async {
        for at in (0..file.len()).step_by(PIECE_BYTES) {
            sender.send(file.slice(at..file.len().min(at + PIECE_BYTES))).await?;
        }
        sender.finish().await
    };
    let hearing = async {
        let mut first = None;
        while let Some(ack) = acks.next_ack().await? {
            println!("{:?} {:?} {:?}", ack.event, ack.timecode_ms, ack.number);
            match ack.event {
                AckEvent::Persisted => first = first.or(ack.number),
                AckEvent::Error(error) => return Err(error.into()),
                _ => {}
            }
        }
        Ok::<_, Box<dyn Error>>(first)
    };
    let (sent, heard) = tokio::join!(sending, hearing);
    let first = heard?; // first, since it knows why a sender failed
    sent?;
    Ok(first)
}
