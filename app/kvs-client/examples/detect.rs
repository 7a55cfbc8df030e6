//! Detects on a stream: decodes five pictures a second and says when something moves, and where.
//!
//! ```text
//! cargo run -p kvs-client --features decode --example detect -- REGION STREAM [ENDPOINT]
//! ```
//!
//! Keys come from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN. ENDPOINT is for a local server. What detects is
//! one function of two arrays (`moved`): a network that you have takes its place.

use std::error::Error;
use std::io::Write;

use kvs_client::frames::{Frame, FrameOptions, Frames, FramesError};
use kvs_client::kvs::api::StreamId;
use kvs_client::source::{Source, SourceOptions};
use kvs_client::{Client, Config, static_credentials};

/// Pixels; each block is judged by its mean.
const BLOCK: usize = 16;
/// Of 255: smaller changes are noise.
const CHANGE: u32 = 20;

fn main() -> Result<(), Box<dyn Error>> {
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
    let options = FrameOptions { target_fps: Some(5.0), ..FrameOptions::default() };
    let (client, stream) = (Client::new(config)?, StreamId::name(stream));
    detect(&client, &stream, &SourceOptions::default(), options, &mut std::io::stdout())
}

/// Ends with the source. It blocks: decoding and reading have threads of their own.
pub(crate) fn detect(
    client: &Client,
    stream: &StreamId,
    options: &SourceOptions,
    frame_options: FrameOptions,
    out: &mut impl Write,
) -> Result<(), Box<dyn Error>> {
    let frames = Frames::start(Source::new(client, stream, options)?, frame_options)?;
    let mut before: Option<Frame> = None;
    loop {
        match frames.read() {
            Ok(Some(frame)) => {
                if let Some((x, y)) = before.as_ref().and_then(|before| moved(before, &frame)) {
                    writeln!(out, "{} something moves at {x},{y}", frame.producer_timestamp)?;
                }
                before = Some(frame);
            }
            Ok(None) if frames.is_healthy() => {}
            Ok(None) => writeln!(out, "waiting: {}", frames.last_error().unwrap_or_default())?,
            Err(FramesError::Ended) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let figures = frames.figures();
    writeln!(out, "{} pictures, {} not decoded", figures.frames_read, figures.decode_errors)?;
    Ok(())
}

/// The middle of the block that changed most, in pixels.
fn moved(before: &Frame, now: &Frame) -> Option<(usize, usize)> {
    let columns = now.width / BLOCK;
    let blocks = means(now).into_iter().zip(means(before)).map(|(now, before)| now.abs_diff(before));
    let (at, change) = blocks.enumerate().max_by_key(|(_, change)| *change)?;
    let same_size = (before.width, before.height) == (now.width, now.height);
    let middle = |block: usize| block * BLOCK + BLOCK / 2;
    (same_size && change > CHANGE).then(|| (middle(at % columns), middle(at / columns)))
}

/// Of each block, row by row.
fn means(frame: &Frame) -> Vec<u32> {
    let (columns, rows) = (frame.width / BLOCK, frame.height / BLOCK);
    let mut sums = vec![0_u32; columns * rows];
    for (y, row) in frame.data.chunks_exact(3 * frame.width).take(rows * BLOCK).enumerate() {
        for (x, pixel) in row.as_chunks::<3>().0.iter().take(columns * BLOCK).enumerate() {
            sums[y / BLOCK * columns + x / BLOCK] += pixel.iter().map(|&byte| u32::from(byte)).sum::<u32>();
        }
    }
    sums.into_iter().map(|sum| sum / 3 / 256).collect()
}
