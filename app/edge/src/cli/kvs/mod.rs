//! `kvs-edge kvs ...`: what a stream holds, read and taken apart, and files put into one.
//!
//! Results stand on standard output and nothing else does; words about the work, and how far it is, on standard error. Ctrl-C
//! ends the work with what is done kept whole, a second one at once.

mod account;
mod clip;
mod copy;
mod frames;
mod latency;
mod progress;
mod put;
mod read;
#[cfg(test)]
mod tests;
mod wav;

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use kvs_client::Client;
use kvs_client::kvs::api::{
    FragmentSelectorType, GetHlsStreamingSessionUrlInput, PlaybackMode, PlaybackRange, PlaybackSelector,
    StreamId, milliseconds,
};
use kvs_client::kvs::read::documents::Document;
use kvs_client::kvs::read::tree::tree;
use media::ProducerTimestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use account::{Account, Range, What};
use read::{Wanted, read, stored};

/// As a shell has it for SIGINT.
const INTERRUPTED: u8 = 130;
/// As a shell has it for SIGPIPE.
const CLOSED_PIPE: u8 = 141;

/// Exit codes: 0 done, 1 failed (the reason is the last line on standard error), 2 wrong usage, 130 stopped by Ctrl-C or SIGTERM
/// with what is done kept, 141 whoever read standard output has closed it.
#[derive(Subcommand)]
pub(crate) enum Kvs {
    /// List what is stored, by producer time: number, producer and server time, length in ms, bytes.
    List {
        #[command(flatten)]
        from: Account,
        #[command(flatten)]
        range: Range,
        #[arg(long)]
        json: bool,
    },
    /// Copy fragments as they are: one Matroska document after the other.
    Get {
        #[command(flatten)]
        what: What,
        /// A file; `-` is standard output.
        #[arg(long, short, default_value = "-")]
        output: PathBuf,
        /// Go on with a file that an earlier run left: what is in it is not fetched again.
        #[arg(long, requires = "output")]
        resume: bool,
    },
    /// Print the tags of each fragment, those of KVS too: number, name, value, separated by tabs.
    Tags {
        #[command(flatten)]
        what: What,
    },
    /// Print the element tree of each fragment: offset, size, name, value.
    Tree {
        #[command(flatten)]
        what: What,
        /// One JSON object for each element and line.
        #[arg(long)]
        json: bool,
    },
    /// Save each fragment as a Matroska file of its own, NUMBER.mkv, that any player opens.
    ///
    /// Can be repeated: of what is stored, files that are there are not fetched again.
    Save {
        #[command(flatten)]
        what: What,
        /// Created if it is not there.
        folder: PathBuf,
    },
    /// Decode pictures: JPEG files, or raw bytes for a pipe.
    Frames(frames::Frames),
    /// Save the sound of Amazon Connect: one WAV file for each side of each call, CONTACT-TIME-TRACK.wav.
    ///
    /// Tracks are found by their names. Each file is whole whenever this is stopped.
    Wav(wav::Wav),
    /// Fetch a range of time as one MP4 file, made by the service: 200 fragments or 100 MB at most.
    Clip(clip::Clip),
    /// Fetch pictures of a range of time, made by the service.
    Images(clip::Images),
    /// Print a URL that plays the stream by HLS until it expires. Whoever has it may watch.
    HlsUrl {
        #[command(flatten)]
        from: Account,
        #[command(flatten)]
        range: Range,
        /// Seconds that it is good for.
        #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(300..=43_200))]
        expires: u32,
    },
    /// Upload a Matroska file; each fragment that KVS has persisted is printed: number, time, length in ms.
    ///
    /// Fragments are cut as those of a camera. Can be repeated: what is stored under its time is not sent again, so that a
    /// second run completes what the first one could not.
    Put(put::Put),
    /// Measure how far behind the producer readers are: GetMedia and HLS at once, each with its default settings.
    ///
    /// From the time that the producer put on a picture to its arrival here, by this machine's clock: both clocks must agree.
    BenchLatency(latency::BenchLatency),
}

/// Why a command ended before its time.
#[derive(Debug)]
pub(crate) enum Failed {
    /// In words.
    Said(String),
    /// Nobody reads standard output any more.
    ClosedPipe,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said(text) => f.write_str(text),
            Self::ClosedPipe => f.write_str("standard output was closed"),
        }
    }
}

impl From<String> for Failed {
    fn from(text: String) -> Self {
        Self::Said(text)
    }
}

impl From<&str> for Failed {
    fn from(text: &str) -> Self {
        Self::Said(text.to_owned())
    }
}

/// Of standard output.
impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::Said(format!("standard output: {error}")),
        }
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a failed command")]
pub(crate) async fn run(command: Kvs) -> ExitCode {
    let stop = CancellationToken::new();
    let (Ok(mut interrupt), Ok(mut term)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        eprintln!("signals cannot be handled");
        return ExitCode::FAILURE;
    };
    let stopping = stop.clone();
    let signals = tokio::spawn(async move {
        let mut signalled = async || tokio::select! { _ = interrupt.recv() => (), _ = term.recv() => () };
        signalled().await;
        stopping.cancel();
        signalled().await;
        // The second one does not wait for anything to be completed.
        std::process::exit(INTERRUPTED.into());
    });
    let outcome = execute(command, &mut io::stdout(), &stop).await;
    signals.abort();
    match outcome {
        Err(Failed::ClosedPipe) => ExitCode::from(CLOSED_PIPE),
        Err(Failed::Said(text)) => {
            eprintln!("{}", text.trim_end());
            if stop.is_cancelled() { ExitCode::from(INTERRUPTED) } else { ExitCode::FAILURE }
        }
        Ok(()) if stop.is_cancelled() => ExitCode::from(INTERRUPTED),
        Ok(()) => ExitCode::SUCCESS,
    }
}

async fn execute(
    command: Kvs,
    out: &mut (impl Write + Send),
    stop: &CancellationToken,
) -> Result<(), Failed> {
    match command {
        Kvs::List { from, range, json } => {
            let (client, stream) = from.open().await?;
            list(&client, &stream, &range, json, out).await
        }
        Kvs::Get { output, resume: true, .. } if output == Path::new("-") => {
            Err("--resume goes on with a file: name it by --output".into())
        }
        Kvs::Get { what, output, .. } if output == Path::new("-") => copy::to_output(what, out, stop).await,
        Kvs::Get { what, output, resume } => copy::to_file(what, &output, resume, stop).await,
        Kvs::Tags { what } => {
            let wanted = Wanted { empty: true, ..Wanted::all(what, stop) };
            read(wanted, |document| print_tags(document, out)).await.map(drop)
        }
        Kvs::Tree { what, json } => {
            let wanted = Wanted { empty: true, ..Wanted::all(what, stop) };
            read(wanted, |document| print_tree(document, json, out)).await.map(drop)
        }
        Kvs::Save { what, folder } => copy::save(what, &folder, out, stop).await,
        Kvs::Frames(frames) => frames::run(frames, out, stop).await,
        Kvs::Wav(wav) => wav::run(wav, out, stop).await,
        Kvs::Clip(clip) => clip::clip(clip, out, stop).await,
        Kvs::Images(images) => clip::images(images, out, stop).await,
        Kvs::HlsUrl { from, range, expires } => {
            let (client, stream) = from.open().await?;
            let input = hls_input(&stream, &range, expires)?;
            let url = client.get_hls_streaming_session_url(&input).await;
            let url = url.map_err(|error| told(&error, &client, &stream))?;
            write(out, format_args!("{url}"))
        }
        Kvs::Put(put) => put::run(put, out, stop).await,
        Kvs::BenchLatency(bench) => latency::run(bench, out, stop).await,
    }
}

fn told(error: &kvs_client::Error, client: &Client, stream: &StreamId) -> Failed {
    let advice = error.advice(client, Some(stream)).map(|advice| format!("; {advice}")).unwrap_or_default();
    format!("{}{advice}", health::chain(error)).into()
}

/// One line of the result. Who reads along sees it at once.
fn write(out: &mut impl Write, line: fmt::Arguments<'_>) -> Result<(), Failed> {
    Ok(writeln!(out, "{line}").and_then(|()| out.flush())?)
}

async fn list(
    client: &Client,
    stream: &StreamId,
    range: &Range,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failed> {
    for fragment in stored(client, stream, range.selector()?).await? {
        let time = |seconds: f64| ProducerTimestamp::from_millis(milliseconds(seconds));
        if json {
            let text = serde_json::to_string(&fragment).map_err(|error| error.to_string())?;
            writeln!(out, "{text}")?;
        } else {
            writeln!(
                out,
                "{}\t{}\t{}\t{}\t{}",
                fragment.fragment_number,
                time(fragment.producer_timestamp),
                time(fragment.server_timestamp),
                fragment.fragment_length_in_milliseconds,
                fragment.fragment_size_in_bytes
            )?;
        }
    }
    Ok(out.flush()?)
}

fn print_tags(document: &Document, out: &mut impl Write) -> Result<(), Failed> {
    let number = document.number.map_or("-".to_owned(), |number| number.to_string());
    for (name, value) in &document.tags {
        writeln!(out, "{number}\t{name}\t{value}")?;
    }
    Ok(out.flush()?)
}

fn print_tree(document: &Document, json: bool, out: &mut impl Write) -> Result<(), Failed> {
    let (elements, error) = tree(document.bytes());
    for element in elements {
        if json {
            let line = serde_json::to_string(&element).map_err(|error| error.to_string())?;
            writeln!(out, "{line}")?;
        } else {
            writeln!(out, "{element}")?;
        }
    }
    out.flush()?;
    error.map_or(Ok(()), |error| Err(error.to_string().into()))
}

/// A range on demand, or else live.
fn hls_input(
    stream: &StreamId,
    range: &Range,
    expires: u32,
) -> Result<GetHlsStreamingSessionUrlInput, Failed> {
    let times = range.selector()?.timestamp_range;
    let timestamp_range = (range.from.is_some() || range.to.is_some()).then_some(PlaybackRange {
        start_timestamp: Some(times.start_timestamp),
        end_timestamp: Some(times.end_timestamp),
    });
    let mode = if timestamp_range.is_some() { PlaybackMode::OnDemand } else { PlaybackMode::Live };
    Ok(GetHlsStreamingSessionUrlInput {
        stream: stream.clone(),
        playback_mode: Some(mode),
        fragment_selector: Some(PlaybackSelector {
            fragment_selector_type: Some(FragmentSelectorType::ProducerTimestamp),
            timestamp_range,
        }),
        expires: Some(expires),
        ..GetHlsStreamingSessionUrlInput::default()
    })
}
