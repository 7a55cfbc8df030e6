//! kvs-local as the cloud, in this process or as one of its own, and what it has stored.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use kvs::api::{
    FragmentSelector, FragmentSelectorType, GetMediaForFragmentListInput, StartSelector, StreamId,
    TimestampRange,
};
use kvs::read::chunk::{Answer, Chunk, ChunkReader, Event};
use kvs_client::{Client, Config, static_credentials};
use kvs_local::{Credentials, KvsLocal};
use media::mkv::elements::TrackInfo;
use media::mkv::id;
use media::mkv::read::{EventKind, Limits, Parser};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::process::{Process, binary};
use crate::within;

pub const REGION: &str = "us-west-2";

/// Who plays the service.
pub enum Kvs {
    Local(KvsLocal),
    Process(KvsProcess),
}

impl Kvs {
    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> String {
        match self {
            Kvs::Local(local) => local.endpoint(),
            Kvs::Process(process) => process.endpoint.clone(),
        }
    }

    /// The server in this process, with its faults and its inside.
    ///
    /// # Panics
    /// When it is a process of its own.
    pub fn local(&self) -> &KvsLocal {
        match self {
            Kvs::Local(local) => local,
            Kvs::Process(_) => panic!("kvs-local is a process in this rig"),
        }
    }

    /// # Panics
    /// When it is not a process of its own.
    pub fn process(&mut self) -> &mut KvsProcess {
        match self {
            Kvs::Process(process) => process,
            Kvs::Local(_) => panic!("kvs-local is no process in this rig"),
        }
    }

    /// Everything stored in a stream, by fragment number; read by ListFragments and GetMediaForFragmentList.
    pub async fn stored(&self, stream: &str) -> Vec<Stored> {
        let client = streams_client(&self.endpoint());
        let stream = StreamId::name(stream);
        let numbers = list(&client, &stream).await;
        let mut stored = Vec::new();
        for numbers in numbers.chunks(1000) {
            let input = GetMediaForFragmentListInput { stream: stream.clone(), fragments: numbers.to_vec() };
            let mut answer =
                client.get_media_for_fragment_list(&input).await.expect("GetMediaForFragmentList answers");
            let mut reader = ChunkReader::new(Answer::FragmentList);
            let mut blocks = Vec::new();
            while let Some(bytes) = answer.next_bytes().await.expect("the answer is whole") {
                reader.push(bytes);
                while let Some(event) = reader.next_event().expect("the answer is Matroska") {
                    take(event, &mut blocks, &mut stored);
                }
            }
            while let Some(event) = reader.finish(true).expect("the answer is Matroska") {
                take(event, &mut blocks, &mut stored);
            }
        }
        stored.sort_by_key(Stored::number);
        stored
    }

    /// Start and end, in producer time, of the fragments stored in a stream from `since_ms` on, in order; `None` where the service
    /// does not say, because there is no such stream yet or because it is asked too often.
    pub async fn stretches(&self, stream: &str, since_ms: u64) -> Option<Vec<(u64, u64)>> {
        let fragment_selector_type = FragmentSelectorType::ProducerTimestamp;
        let (start_timestamp, end_timestamp) = (kvs::api::seconds(since_ms), 4e9);
        let timestamp_range = TimestampRange { start_timestamp, end_timestamp };
        let selector = FragmentSelector { fragment_selector_type, timestamp_range };
        let (client, stream) = (streams_client(&self.endpoint()), StreamId::name(stream));
        let listed = client.list_all_fragments(&stream, selector).await.ok()?;
        let stretch = |row: kvs::api::Fragment| {
            let start_ms = kvs::api::milliseconds(row.producer_timestamp);
            (start_ms, start_ms + row.fragment_length_in_milliseconds)
        };
        let mut stretches: Vec<_> = listed.into_iter().map(stretch).collect();
        stretches.sort_unstable();
        Some(stretches)
    }

    /// Producer time of the newest of them.
    pub async fn newest_ms(&self, stream: &str, since_ms: u64) -> Option<u64> {
        Some(self.stretches(stream, since_ms).await?.last()?.0)
    }

    /// What one GetMedia from the beginning gives, up to the newest fragment that was stored at its start.
    pub async fn get_media(&self, stream: &str) -> Bytes {
        let client = streams_client(&self.endpoint());
        let stream = StreamId::name(stream);
        let mut missing = list(&client, &stream).await.len();
        let mut media = client.get_media(&stream, StartSelector::earliest()).await.expect("GetMedia answers");
        let mut reader = ChunkReader::new(Answer::GetMedia);
        let mut all = Vec::new();
        // It would end by itself only seconds after the last media.
        let read = async {
            while missing > 0 {
                let bytes = media.next_bytes().await.expect("the answer is whole").expect("more fragments");
                all.extend_from_slice(&bytes);
                reader.push(bytes);
                while let Some(event) = reader.next_event().expect("the answer is Matroska") {
                    missing = missing.saturating_sub(usize::from(matches!(event, Event::End(_))));
                }
            }
        };
        within("all fragments from GetMedia", read).await;
        all.into()
    }
}

/// All fragment numbers of a stream, in order.
async fn list(client: &Client, stream: &StreamId) -> Vec<String> {
    let fragment_selector_type = FragmentSelectorType::ServerTimestamp;
    let timestamp_range = TimestampRange { start_timestamp: 0.0, end_timestamp: 4e9 };
    let selector = FragmentSelector { fragment_selector_type, timestamp_range };
    let listed = client.list_all_fragments(stream, selector).await.expect("ListFragments answers");
    let mut numbers: Vec<_> = listed.into_iter().map(|row| row.fragment_number).collect();
    numbers.sort();
    numbers
}

fn take(event: Event, blocks: &mut Vec<StoredBlock>, stored: &mut Vec<Stored>) {
    match event {
        Event::Start(_) => blocks.clear(),
        Event::Block(block) => blocks.push(StoredBlock {
            track: block.track,
            time_ms: u64::try_from(block.time_ms).expect("times are after 1970"),
            key_frame: block.key_frame,
            payload: block.payload,
        }),
        Event::End(chunk) => stored.push(Stored { chunk, blocks: std::mem::take(blocks) }),
        Event::Failure(failure) => panic!("a listed fragment cannot be read: {failure}"),
    }
}

/// One stored fragment.
#[derive(Clone, Debug)]
pub struct Stored {
    pub chunk: Chunk,
    pub blocks: Vec<StoredBlock>,
}

#[derive(Clone, Debug)]
pub struct StoredBlock {
    pub track: u64,
    pub time_ms: u64,
    pub key_frame: bool,
    pub payload: Bytes,
}

impl Stored {
    pub fn number(&self) -> String {
        self.chunk.start.number.map(|number| number.to_string()).unwrap_or_default()
    }

    pub fn timecode_ms(&self) -> u64 {
        self.chunk.cluster.as_ref().map_or(0, |cluster| cluster.timecode_ms)
    }

    pub fn tracks(&self) -> &[TrackInfo] {
        &self.chunk.start.tracks
    }

    /// Width and height as the header says.
    pub fn size(&self) -> (u32, u32) {
        let video = self.tracks().iter().find(|track| track.number == 1);
        video.map_or((0, 0), |track| (track.width, track.height))
    }

    /// Starts with a random access point.
    pub fn starts_with_key(&self) -> bool {
        self.blocks.iter().find(|block| block.track == 1).is_some_and(|block| block.key_frame)
    }
}

/// Cuts a GetMedia answer where the tracks change: programs that read Matroska take a file with one set of them.
///
/// # Panics
/// When it is no Matroska.
pub fn documents(media: &Bytes) -> Vec<Bytes> {
    let mut parser = Parser::new(Limits::default());
    parser.push(media.clone());
    let mut parts: Vec<(Bytes, Vec<u8>)> = Vec::new();
    let (mut document, mut tracks) = (Vec::new(), Bytes::new());
    while let Some(event) = parser.finish().expect("Matroska up to its end") {
        document.extend_from_slice(&event.raw);
        match event.kind {
            EventKind::Element { id: id::TRACKS } => tracks = event.raw,
            EventKind::DocumentEnd => {
                let document = std::mem::take(&mut document);
                match parts.last_mut() {
                    Some((same, part)) if *same == tracks => part.extend(document),
                    _ => parts.push((tracks.clone(), document)),
                }
            }
            _ => {}
        }
    }
    parts.into_iter().map(|(_, part)| part.into()).collect()
}

/// A client with the keys of kvs-local.
fn streams_client(endpoint: &str) -> Client {
    let keys = Credentials::local();
    let mut config = Config::new(REGION, static_credentials(keys.access_key, keys.secret_key, None));
    config.endpoints.control = Some(endpoint.parse().expect("kvs-local gives its address"));
    Client::new(config).expect("a client from good settings")
}

/// `target/debug/kvs-local` with `/admin`, to be killed and started again on its folder and port.
pub struct KvsProcess {
    pub process: Process,
    pub endpoint: String,
    data: PathBuf,
    arguments: Vec<String>,
}

impl KvsProcess {
    pub async fn start(data: &Path, arguments: Vec<String>) -> KvsProcess {
        let (process, endpoint) = spawn(data, "127.0.0.1:0", &arguments).await;
        KvsProcess { process, endpoint, data: data.to_owned(), arguments }
    }

    /// kill -9, at once.
    pub async fn kill(&self) {
        self.process.signal("KILL");
        self.process.ended().await;
    }

    /// Starts again on the same address and folder.
    pub async fn start_again(&mut self) {
        let address = self.endpoint.trim_start_matches("http://").to_owned();
        (self.process, _) = spawn(&self.data, &address, &self.arguments).await;
    }

    /// `GET`, `POST` or `DELETE` of `/admin/PATH` with a JSON body; the JSON answer.
    pub async fn admin(&self, method: &str, path: &str, body: &serde_json::Value) -> serde_json::Value {
        let address = self.endpoint.trim_start_matches("http://");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = format!(
            "{method} /admin/{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = within("answer of /admin", async {
            let mut socket = tokio::net::TcpStream::connect(address).await.expect("kvs-local listens");
            socket.write_all(request.as_bytes()).await.expect("kvs-local takes requests");
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await.expect("kvs-local answers");
            answer
        })
        .await;
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        assert!(head.starts_with("HTTP/1.1 200"), "{method} {path}: {answer}");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{method} {path}: {error}: {answer}"))
    }
}

async fn spawn(data: &Path, listen: &str, arguments: &[String]) -> (Process, String) {
    let mut command = Command::new(binary("kvs-local"));
    for name in ["AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
        command.env_remove(name);
    }
    command.args(["--listen", listen, "--region", REGION, "--admin", "--data"]).arg(data).args(arguments);
    let process = Process::spawn("kvs-local", &mut command);
    let line = process.line("http://127.0.0.1:").await;
    let endpoint = line.split_whitespace().find_map(|word| {
        let at = word.find("http://")?;
        Some(word[at..].trim_end_matches(['"', '/']).to_owned())
    });
    (process, endpoint.expect("the line holds it"))
}

/// A port that is free now, for peers that cannot be told "any".
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    listener.and_then(|listener| listener.local_addr()).expect("loopback has free ports").port()
}
