//! Plays one fragment: fetches it as a consumer does, takes it apart, decodes its key picture, and measures its way from the
//! camera. `kvs::proof::play` decides when.

use std::time::{Duration, SystemTime};

use clock::Clock;
use decode::{DecodeError, Decoder, DecoderOptions};
use health::Reason;
use kvs::FragmentNumber;
use kvs::api::{StartSelector, StreamId};
use kvs::proof::play::{self, PlayError};
use kvs::read::chunk::{Answer, Block, Chunk, ChunkReader, Event};
use kvs::read::hls::{HlsConfig, Play};
use kvs::read::{ReadFailure, ReadFailureKind};
use kvs_client::Client;
use kvs_client::source::HlsSource;
use media::mkv::elements::TrackInfo;
use media::{AccessUnit, Feed, ProducerTimestamp, UnitSource as _};

use crate::record::ask;

/// For all of it: at the live edge a fragment comes within seconds.
const LIMIT: Duration = Duration::from_secs(60);
/// A live answer may begin with a fragment that was complete before: its way is not measured if another follows within this.
const NEXT_ONE: Duration = Duration::from_secs(12);
const DECODE_LIMIT: Duration = Duration::from_secs(10);

/// By which way it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    GetMedia,
    Hls,
}

/// How far its key picture was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    /// A decoder made a picture of it.
    Decoded,
    /// There is no decoder, on this box or in this process: its bytes are those of a key picture.
    Parsed,
}

/// A fragment that was played.
#[derive(Clone, Debug, PartialEq)]
pub struct Played {
    /// Time of its first picture.
    pub at: ProducerTimestamp,
    pub number: Option<FragmentNumber>,
    pub way: Way,
    /// From the camera (or receipt) to here: of its last picture by GetMedia, of its first by HLS.
    pub latency_ms: u64,
    /// Or why it cannot be played.
    pub result: Result<Looked, String>,
    pub wall: SystemTime,
}

/// What playing has shown, and what was read for it.
pub(super) struct Outcome {
    pub(super) played: Played,
    pub(super) chunks: Vec<Chunk>,
    pub(super) bytes: u64,
}

/// The first picture of a fragment that was read, and when its last one was here.
pub(super) struct Read {
    pub(super) tracks: std::sync::Arc<Vec<TrackInfo>>,
    pub(super) first: Option<Block>,
    pub(super) chunk: Chunk,
    pub(super) latency_ms: u64,
}

/// Fetches a fragment and plays it; `decode`: by GStreamer, which stays in this process then.
pub(super) async fn play(
    client: Client,
    stream: StreamId,
    clock: Clock,
    way: Way,
    decode: bool,
) -> Result<Outcome, ReadFailure> {
    let played = async {
        match way {
            Way::GetMedia => by_get_media(&client, &stream, &clock, decode).await,
            Way::Hls => by_hls(&client, &stream, &clock, decode).await,
        }
    };
    tokio::select! {
        outcome = played => outcome,
        () = clock.sleep(LIMIT) => {
            let text = format!("no fragment came within {} s", LIMIT.as_secs());
            Err(ReadFailure::new(Reason::VerifyFailed, text, ReadFailureKind::Soon))
        }
    }
}

/// Looks at what was read already.
pub(super) async fn look(read: Read, wall: SystemTime, decode: bool) -> Outcome {
    let (number, latency_ms) = (read.chunk.start.number, read.latency_ms);
    let timecode_ms = read.chunk.cluster.as_ref().map_or(0, |cluster| cluster.timecode_ms);
    let at = ProducerTimestamp::from_millis(timecode_ms);
    let result = match play::key_picture(&read.tracks, read.first.as_ref()) {
        Ok(unit) => look_at(unit, decode).await,
        Err(error) => Err(error.to_string()),
    };
    let played = Played { at, number, way: Way::GetMedia, latency_ms, result, wall };
    Outcome { played, chunks: Vec::new(), bytes: 0 }
}

async fn by_get_media(
    client: &Client,
    stream: &StreamId,
    clock: &Clock,
    decode: bool,
) -> Result<Outcome, ReadFailure> {
    let failed = |error: kvs_client::Error| ask::failure_of_read(&error, client, stream);
    let mut answer = client.get_media(stream, StartSelector::now()).await.map_err(failed)?;
    let mut reader = ChunkReader::new(Answer::GetMedia);
    let (mut first, mut latency_ms, mut bytes) = (None, 0, 0);
    let (mut read, mut chunks) = (None, Vec::new());
    let mut until = None;
    while chunks.len() < 2 {
        let more = async {
            match until {
                Some(until) => tokio::select! {
                    more = answer.next_bytes() => more,
                    () = clock.sleep_until(until) => Ok(None),
                },
                None => answer.next_bytes().await,
            }
        };
        let more = match more.await {
            Ok(more) => more,
            // What came before is whole.
            Err(_) if read.is_some() => None,
            Err(error) => return Err(failed(error)),
        };
        let Some(more) = more else { break };
        bytes += more.len() as u64;
        reader.push(more);
        while let Some(event) = reader.next_event().map_err(ask::unreadable)? {
            match event {
                Event::Block(block) => {
                    let now_ms = clock.wall_ms();
                    latency_ms = now_ms.saturating_sub(u64::try_from(block.time_ms).unwrap_or(0));
                    if block.track == 1 {
                        first.get_or_insert(block);
                    }
                }
                Event::End(chunk) if chunk.complete && chunk.cluster.is_some() => {
                    chunks.push(chunk.clone());
                    let tracks = chunk.start.tracks.clone();
                    read = Some(Read { tracks, first: first.take(), chunk, latency_ms });
                    until = Some(clock.now() + NEXT_ONE);
                }
                Event::Failure(failure) => {
                    let kind = ReadFailureKind::Soon;
                    return Err(ReadFailure::new(Reason::VerifyFailed, failure.to_string(), kind));
                }
                Event::Start(_) | Event::End(_) => first = None,
            }
        }
    }
    let Some(read) = read else {
        let text = "GetMedia ended before one fragment was whole";
        return Err(ReadFailure::new(Reason::VerifyFailed, text, ReadFailureKind::Soon));
    };
    // The connection is one of three: not held while a picture is decoded.
    drop(answer);
    let outcome = look(read, clock.wall(), decode).await;
    Ok(Outcome { chunks, bytes, ..outcome })
}

async fn by_hls(
    client: &Client,
    stream: &StreamId,
    clock: &Clock,
    decode: bool,
) -> Result<Outcome, ReadFailure> {
    let failed = |text: String| ReadFailure::new(Reason::VerifyFailed, text, ReadFailureKind::Soon);
    let config = HlsConfig { max_consecutive_errors: Some(3), sound: false, ..HlsConfig::default() };
    let source = HlsSource::new(client, stream, Play::Live, config);
    let mut source = source.map_err(|error| failed(error.to_string()))?;
    let unit = loop {
        match source.next().await {
            Some(Feed::Video(unit)) if unit.random_access => break unit,
            Some(_) => {}
            None => {
                let error = source.last_error().map(|error| health::chain(error));
                return Err(failed(error.unwrap_or_else(|| "the HLS session ended".to_owned())));
            }
        }
    };
    let at = unit.timestamp;
    let latency_ms = clock.wall_ms().saturating_sub(at.as_millis());
    let number = source.origin().and_then(|origin| origin.number);
    let bytes = source.hls_metrics().bytes_received;
    drop(source);
    let result = match play::check(&unit) {
        Ok(()) => look_at(unit, decode).await,
        Err(error) => Err(PlayError::to_string(&error)),
    };
    let played = Played { at, number, way: Way::Hls, latency_ms, result, wall: clock.wall() };
    Ok(Outcome { played, chunks: Vec::new(), bytes })
}

/// GStreamer works on threads of its own, and is waited for on one.
async fn look_at(unit: AccessUnit, decode: bool) -> Result<Looked, String> {
    if !decode {
        return Ok(Looked::Parsed);
    }
    let looked = tokio::task::spawn_blocking(move || decoded(unit)).await;
    looked.unwrap_or_else(|crash| Err(format!("the decoder crashed: {crash}")))
}

fn decoded(unit: AccessUnit) -> Result<Looked, String> {
    let (made, pictures) = std::sync::mpsc::sync_channel(1);
    let options = DecoderOptions { name: "play".to_owned(), ..DecoderOptions::default() };
    let decoder = Decoder::start(options, move |frame| {
        // The first one is enough.
        let _ = made.try_send(frame.source_size());
    });
    // A box without GStreamer has looked at the bytes.
    let Ok(decoder) = decoder else { return Ok(Looked::Parsed) };
    let (codec, size) = (unit.format.codec_id(), (unit.format.width, unit.format.height));
    decoder.push(unit);
    decoder.finish(DECODE_LIMIT);
    let report = decoder.report();
    match pictures.try_recv() {
        Ok(found) if found == size => Ok(Looked::Decoded),
        Ok((width, height)) => {
            let (expected_width, expected_height) = size;
            Err(format!(
                "the decoder made a picture of {width}x{height}, expected {expected_width}x{expected_height}"
            ))
        }
        Err(_) => match report.last_problem {
            Some(DecodeError::NoDecoder { .. } | DecodeError::Init { .. }) => Ok(Looked::Parsed),
            Some(problem) => Err(format!("the key picture ({codec}) does not decode: {problem}")),
            None => Err(format!("the decoder made no picture of the key picture ({codec})")),
        },
    }
}
