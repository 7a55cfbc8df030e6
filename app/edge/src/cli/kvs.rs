//! `kvs-edge kvs ...`: what a stream holds, read and taken apart.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytes::Bytes;
use clap::{Args, Subcommand};
use clock::Clock;
use kvs_client::consumer::save_mkv;
use kvs_client::kvs::api::{
    Fragment, FragmentSelector, FragmentSelectorType, GetHlsStreamingSessionUrlInput,
    GetMediaForFragmentListInput, PlaybackMode, PlaybackRange, PlaybackSelector, StartSelector, StreamId,
    TimestampRange, milliseconds, seconds,
};
use kvs_client::kvs::read::documents::Document;
use kvs_client::kvs::read::tree::tree;
use kvs_client::{Client, FragmentStream, documents_of};
use media::ProducerTimestamp;

/// Fragments in one answer.
const BATCH: usize = 100;
/// Far behind any date that is asked for.
const LATEST_MS: u64 = 253_402_300_799_000;

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
}

/// Whose stream.
#[derive(Args)]
pub(crate) struct Account {
    /// The Kinesis video stream.
    #[arg(long)]
    stream: Option<String>,
    /// Region, endpoints and keys are those of this configuration.
    #[arg(long, default_value_os_t = config::default_path())]
    config: PathBuf,
    /// In place of a configuration: keys come from where AWS programs look for them.
    #[arg(long)]
    region: Option<String>,
    /// Of all planes, such as that of kvs-local.
    #[arg(long, requires = "region")]
    endpoint: Option<kvs_client::Endpoint>,
}

/// By producer time, both ends included; all that is stored without it.
#[derive(Args)]
pub(crate) struct Range {
    /// Such as 2026-11-20T14:47:53Z.
    #[arg(long, value_parser = time)]
    from: Option<ProducerTimestamp>,
    #[arg(long, value_parser = time)]
    to: Option<ProducerTimestamp>,
}

/// Which fragments.
#[derive(Args)]
pub(crate) struct What {
    #[command(flatten)]
    account: Account,
    #[command(flatten)]
    range: Range,
    /// What is uploaded now, in place of what is stored, until the producer stops.
    #[arg(long, conflicts_with_all = ["from", "to"])]
    live: bool,
    /// At most so many.
    #[arg(long)]
    count: Option<usize>,
    /// A file with Matroska documents, in place of a stream.
    #[arg(long, conflicts_with_all = ["stream", "live", "from", "to"])]
    file: Option<PathBuf>,
}

fn time(text: &str) -> Result<ProducerTimestamp, String> {
    let wrong = || format!("`{text}` is no date and time of RFC 3339, such as 2026-11-20T14:47:53Z");
    ProducerTimestamp::parse_rfc3339(text).ok_or_else(wrong)
}

/// A failure in words.
type Failed = String;

#[expect(clippy::print_stderr, reason = "the last word of a failed command")]
pub(crate) async fn run(command: Kvs) -> ExitCode {
    match execute(command, &mut io::stdout().lock()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn execute(command: Kvs, out: &mut impl Write) -> Result<(), Failed> {
    match command {
        Kvs::List { from, range, json } => {
            let (client, stream) = from.open().await?;
            list(&client, &stream, &range, json, out).await
        }
        Kvs::Get { what, output } if output == Path::new("-") => {
            // Who reads along sees each fragment when it is there.
            let write = |document: &Document| out.write_all(&document.bytes()).and_then(|()| out.flush());
            read(what, |_| true, write).await.map(drop)
        }
        Kvs::Get { what, output } => {
            let named = |error: io::Error| format!("{}: {error}", output.display());
            let mut file = std::fs::File::create(&output).map_err(named)?;
            read(what, |_| true, |document| file.write_all(&document.bytes())).await.map(drop)
        }
        Kvs::Tags { what } => read(what, |_| true, |document| print_tags(document, out)).await.map(drop),
        Kvs::Tree { what, json } => {
            read(what, |_| true, |document| print_tree(document, json, out)).await.map(drop)
        }
        Kvs::Save { what, folder } => {
            std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
            let path = |number: &str| folder.join(format!("{number}.mkv"));
            let mut unnumbered = 0;
            let missing = |number: &str| !path(number).exists();
            let save = |document: &Document| {
                let name = document.number.map(|number| number.to_string()).unwrap_or_else(|| {
                    unnumbered += 1;
                    format!("document-{unnumbered}")
                });
                let file = path(&name);
                save_mkv(document, &file)?;
                writeln!(out, "{}", file.display())
            };
            read(what, missing, save).await.map(drop)
        }
        Kvs::HlsUrl { from, range, expires } => {
            let (client, stream) = from.open().await?;
            let input = hls_input(&stream, &range, expires);
            let url = client.get_hls_streaming_session_url(&input).await;
            let url = url.map_err(|error| told(&error, &client, &stream))?;
            writeln!(out, "{url}").map_err(|error| error.to_string())
        }
    }
}

impl Account {
    async fn open(&self) -> Result<(Client, StreamId), Failed> {
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
    fn selector(&self) -> FragmentSelector {
        let ms =
            |time: Option<ProducerTimestamp>, or: u64| seconds(time.map_or(or, ProducerTimestamp::as_millis));
        FragmentSelector {
            fragment_selector_type: FragmentSelectorType::ProducerTimestamp,
            timestamp_range: TimestampRange {
                start_timestamp: ms(self.from, 0),
                end_timestamp: ms(self.to, LATEST_MS),
            },
        }
    }
}

fn told(error: &kvs_client::Error, client: &Client, stream: &StreamId) -> Failed {
    let advice = error.advice(client, Some(stream)).map(|advice| format!("; {advice}")).unwrap_or_default();
    format!("{}{advice}", health::chain(error))
}

/// In the order of their producer times.
async fn stored(client: &Client, stream: &StreamId, range: &Range) -> Result<Vec<Fragment>, Failed> {
    let listed = client.list_all_fragments(stream, range.selector()).await;
    let mut fragments = listed.map_err(|error| told(&error, client, stream))?;
    fragments.sort_by(|one, other| {
        let key = |fragment: &Fragment| {
            (milliseconds(fragment.producer_timestamp), fragment.fragment_number.clone())
        };
        key(one).cmp(&key(other))
    });
    Ok(fragments)
}

async fn list(
    client: &Client,
    stream: &StreamId,
    range: &Range,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failed> {
    for fragment in stored(client, stream, range).await? {
        let time = |seconds: f64| ProducerTimestamp::from_millis(milliseconds(seconds));
        let written = if json {
            let text = serde_json::to_string(&fragment).map_err(|error| error.to_string())?;
            writeln!(out, "{text}")
        } else {
            writeln!(
                out,
                "{}\t{}\t{}\t{}\t{}",
                fragment.fragment_number,
                time(fragment.producer_timestamp),
                time(fragment.server_timestamp),
                fragment.fragment_length_in_milliseconds,
                fragment.fragment_size_in_bytes
            )
        };
        written.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Hands on the fragments, each whole; returns how many. `wanted` says by its number whether a stored one is fetched.
async fn read(
    what: What,
    wanted: impl Fn(&str) -> bool,
    mut take: impl FnMut(&Document) -> io::Result<()>,
) -> Result<usize, Failed> {
    let (mut found, most) = (0, what.count.unwrap_or(usize::MAX));
    let mut hand_on = |document: &Document| -> Result<bool, Failed> {
        if !document.complete {
            let number = document.number.map_or("a fragment".to_owned(), |number| number.to_string());
            return Err(format!("the answer broke off inside {number}"));
        }
        take(document).map_err(|error| error.to_string())?;
        found += 1;
        Ok(found < most)
    };
    if let Some(file) = &what.file {
        let bytes: Bytes =
            std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?.into();
        for document in documents_of(bytes).map_err(|error| format!("{}: {error}", file.display()))? {
            if !hand_on(&document)? {
                break;
            }
        }
        return Ok(found);
    }
    let (client, stream) = what.account.open().await?;
    let call = |error: kvs_client::Error| told(&error, &client, &stream);
    if what.live {
        let answer = client.get_media(&stream, StartSelector::now()).await.map_err(call)?;
        let mut fragments = FragmentStream::new(answer);
        while let Some(document) = fragments.next().await.map_err(|error| health::chain(&error))? {
            if !hand_on(&document)? {
                break;
            }
        }
        return Ok(found);
    }
    let stored = stored(&client, &stream, &what.range).await?;
    let numbers: Vec<String> = stored
        .into_iter()
        .map(|fragment| fragment.fragment_number)
        .filter(|number| wanted(number))
        .take(most)
        .collect();
    for batch in numbers.chunks(BATCH) {
        let input = GetMediaForFragmentListInput { stream: stream.clone(), fragments: batch.to_vec() };
        let answer = client.get_media_for_fragment_list(&input).await.map_err(call)?;
        let mut fragments = FragmentStream::new(answer);
        while let Some(document) = fragments.next().await.map_err(|error| health::chain(&error))? {
            if document.blocks == 0 {
                let number = document.number.map_or("one".to_owned(), |number| number.to_string());
                return Err(format!("fragment {number} is not there any more"));
            }
            hand_on(&document)?;
        }
    }
    Ok(found)
}

fn print_tags(document: &Document, out: &mut impl Write) -> io::Result<()> {
    let number = document.number.map_or("-".to_owned(), |number| number.to_string());
    document.tags.iter().try_for_each(|(name, value)| writeln!(out, "{number}\t{name}\t{value}"))
}

fn print_tree(document: &Document, json: bool, out: &mut impl Write) -> io::Result<()> {
    let (elements, error) = tree(document.bytes());
    for element in elements {
        if json {
            writeln!(out, "{}", serde_json::to_string(&element)?)?;
        } else {
            writeln!(out, "{element}")?;
        }
    }
    error.map_or(Ok(()), |error| Err(io::Error::other(error)))
}

/// A range on demand, or else live.
fn hls_input(stream: &StreamId, range: &Range, expires: u32) -> GetHlsStreamingSessionUrlInput {
    let timestamp_range = (range.from.is_some() || range.to.is_some()).then(|| {
        let times = range.selector().timestamp_range;
        PlaybackRange {
            start_timestamp: Some(times.start_timestamp),
            end_timestamp: Some(times.end_timestamp),
        }
    });
    let mode = if timestamp_range.is_some() { PlaybackMode::OnDemand } else { PlaybackMode::Live };
    GetHlsStreamingSessionUrlInput {
        stream: stream.clone(),
        playback_mode: Some(mode),
        fragment_selector: Some(PlaybackSelector {
            fragment_selector_type: Some(FragmentSelectorType::ProducerTimestamp),
            timestamp_range,
        }),
        expires: Some(expires),
        ..GetHlsStreamingSessionUrlInput::default()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use kvs_client::{PutMedia, PutMediaInput, TimecodeType};
    use kvs_local::{KvsLocal, Options};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: Kvs,
    }

    /// A stream with a recording of AWS's own producer: five fragments; and a configuration that leads to it.
    struct Rig {
        folder: tempfile::TempDir,
        server: KvsLocal,
    }

    impl Rig {
        async fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let options = Options::new(folder.path().join("kvs")).stream("cam1", 24);
            let server = KvsLocal::start(options).await.expect("starts");
            for (name, text) in [("id", "AKIDKVSLOCAL"), ("secret", "kvs-local-secret")] {
                std::fs::write(folder.path().join(name), text).expect("written");
            }
            let text = format!(
                "[device]\nid = \"box\"\n[aws]\nregion = \"us-west-2\"\nendpoint = \"{}\"\naccess_key_id_file = \"id\"\n\
                 secret_access_key_file = \"secret\"\n[mqtt]\nhost = \"127.0.0.1\"\n\
                 [[camera]]\nid = \"cam1\"\nurl = \"rtsp://127.0.0.1:1/\"\nstream = \"cam1\"\n",
                server.endpoint()
            );
            std::fs::write(folder.path().join("kvs-edge.toml"), text).expect("written");
            let rig = Self { folder, server };
            let account = Account {
                stream: Some("cam1".to_owned()),
                config: rig.folder.path().join("kvs-edge.toml"),
                region: None,
                endpoint: None,
            };
            let (client, stream) = account.open().await.expect("a client");
            let input = PutMediaInput {
                stream,
                timecode_type: TimecodeType::Absolute,
                start_ms: 0,
                write_timeout: None,
            };
            let PutMedia { mut sender, mut acks } = client.put_media(&input).await.expect("a session");
            let path =
                concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/kvssink-putmedia/ok_put_001.mkv");
            sender.send(std::fs::read(path).expect("the recording").into()).await.expect("taken");
            sender.finish().await.expect("ended");
            while acks.next_ack().await.expect("in order").is_some() {}
            rig
        }

        async fn run(&self, arguments: &str) -> Result<Vec<u8>, Failed> {
            let config = self.folder.path().join("kvs-edge.toml").to_string_lossy().into_owned();
            let line = format!("kvs {arguments}").replace("FOLDER", &self.folder.path().to_string_lossy());
            let mut words: Vec<&str> = line.split(' ').collect();
            words.extend(["--config", &config]);
            let mut out = Vec::new();
            execute(Line::try_parse_from(words).expect("a command").command, &mut out).await.map(|()| out)
        }

        async fn text(&self, arguments: &str) -> String {
            String::from_utf8(self.run(arguments).await.expect("done")).expect("text")
        }
    }

    #[tokio::test]
    async fn a_stream_is_listed_copied_taken_apart_saved_and_played() {
        let rig = Rig::new().await;
        let list = rig.text("list --stream cam1").await;
        let rows: Vec<Vec<&str>> = list.lines().map(|line| line.split('\t').collect()).collect();
        assert_eq!((rows.len(), rows[0][1]), (5, "2026-11-20T14:47:53.633Z"), "{list}");
        let part = rig
            .text("list --json --stream cam1 --from 2026-11-20T14:47:55.633Z --to 2026-11-20T14:47:58Z")
            .await;
        assert_eq!((part.lines().count(), part.contains(rows[1][0])), (2, true), "{part}");

        let copied: Bytes = rig.run("get --stream cam1").await.expect("done").into();
        let documents = documents_of(copied.clone()).expect("Matroska");
        let numbers: Vec<String> =
            documents.iter().filter_map(|one| one.number).map(|n| n.to_string()).collect();
        assert_eq!(numbers, rows.iter().map(|row| row[0]).collect::<Vec<_>>());
        let few = rig.run("get --stream cam1 --count 2").await.expect("done");
        assert!(copied.starts_with(&few) && documents_of(few.into()).expect("Matroska").len() == 2);

        let tags = rig.text("tags --stream cam1").await;
        let named = format!("{}\tAWS_KINESISVIDEO_FRAGMENT_NUMBER\t{}", numbers[4], numbers[4]);
        assert!(tags.lines().any(|line| line == named), "{tags}");

        let saved = rig.text("save FOLDER/saved --stream cam1").await;
        assert_eq!(saved.lines().count(), 5);
        std::fs::remove_file(saved.lines().next().expect("one")).expect("there");
        let again = rig.text("save FOLDER/saved --stream cam1").await;
        assert_eq!(
            again.lines().collect::<Vec<_>>(),
            [saved.lines().next().expect("one")],
            "what was missing"
        );
        let one = std::fs::read(again.trim()).expect("there");
        assert_eq!(one, documents[0].bytes());

        let tree = rig.text(&format!("tree --file FOLDER/saved/{}.mkv", numbers[0])).await;
        for line in ["  TrackEntry", "CodecID: V_MPEG4/ISO/AVC", "    Block: track 1, +0, key frame"] {
            assert!(tree.contains(line), "{line}: {tree}");
        }
        let blocks = tree.lines().filter(|line| line.contains("Block: track 1")).count();
        assert_eq!(blocks as u64, documents[0].blocks);
        let json = rig.text(&format!("tree --json --file FOLDER/saved/{}.mkv", numbers[0])).await;
        assert_eq!(json.lines().count(), tree.lines().count());
        let first: serde_json::Value = serde_json::from_str(json.lines().next().expect("one")).expect("JSON");
        assert_eq!((first["name"].as_str(), first["offset"].as_u64()), (Some("EBML"), Some(0)));

        let url =
            rig.text("hls-url --stream cam1 --from 2026-11-20T14:47:53Z --to 2026-11-20T15:00:00Z").await;
        assert!(
            url.starts_with(&format!("{}/hls/v1/getHLSMasterPlaylist.m3u8?", rig.server.endpoint())),
            "{url}"
        );
    }

    #[tokio::test]
    async fn what_is_not_there_is_named() {
        let rig = Rig::new().await;
        let error = rig.run("list --stream nobody").await.expect_err("no stream");
        assert!(error.contains("ResourceNotFoundException") && error.contains("nobody"), "{error}");
        assert_eq!(rig.run("list").await.expect_err("no name"), "name the stream: --stream NAME");
        let error = rig.run("tree --file FOLDER/secret").await.expect_err("no Matroska");
        assert!(error.contains("secret: "), "{error}");
        let none = rig.run("get --stream cam1 --from 2030-01-01T00:00:00Z").await.expect("nothing in it");
        assert_eq!(none, b"");
    }
}
