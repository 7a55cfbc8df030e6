//! The wheel beside AWS's consumer library for Python: the same answer, each in a process of its own; CPU time and memory of
//! that process. The table of app/README.md.
//!
//! `KVS_EDGE_BENCH_WHEEL` names an interpreter with the wheel, built for release, and boto3 (`cargo xtask bench` makes one).
//! `KVS_EDGE_TEST_CONSUMER_LIBRARY` names a folder with a clone of AWS's library; without it the rest is measured.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kvs_client::kvs::ack::AckEvent;
use kvs_client::kvs::api::StreamId;
use kvs_client::{Client, Clock, Config, PutMedia, PutMediaInput, TimecodeType, static_credentials};
use kvs_local::{KvsLocal, Options};
use media::mkv::write::{Track, block_head, cluster_start, header};
use media::{VideoCodec, VideoFormat};

/// As many as there are 2 s fragments in 276 s of 1080p30 at 5.8 Mbit/s.
const FRAGMENTS: u64 = 138;
const PICTURES: u64 = 60;
const PICTURE_MS: u64 = 33;
const FRAGMENT_MS: u64 = 2_000;
const KEY_PICTURE_BYTES: usize = 120_000;
const PICTURE_BYTES: usize = 22_650;

fn main() {
    // `cargo test` runs benches to see that they start.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let python =
        std::env::var_os("KVS_EDGE_BENCH_WHEEL").expect("KVS_EDGE_BENCH_WHEEL: see cargo xtask bench");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let data = tempfile::tempdir().expect("a temporary folder");
        let mut options = Options::new(data.path()).stream("film", 24);
        options.limits.get_media_idle_end = Some(Duration::ZERO);
        let local = KvsLocal::start(options).await.expect("it starts");
        upload(&local).await;
        let mut command = Command::new(python);
        command.arg("-B").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/consumer.py"));
        command.env("AWS_ENDPOINT_URL", local.endpoint()).env("AWS_DEFAULT_REGION", "us-west-2");
        command.env("AWS_ACCESS_KEY_ID", "AKIDKVSLOCAL").env("AWS_SECRET_ACCESS_KEY", "kvs-local-secret");
        command.env("AWS_EC2_METADATA_DISABLED", "true").env_remove("AWS_SESSION_TOKEN");
        command.env("KVS_EDGE_BENCH_FRAGMENTS", FRAGMENTS.to_string());
        let status = tokio::task::spawn_blocking(move || command.status()).await.expect("joined");
        assert!(status.expect("Python starts").success(), "see above");
    });
}

async fn upload(local: &KvsLocal) {
    let mut config = Config::new("us-west-2", static_credentials("AKIDKVSLOCAL", "kvs-local-secret", None));
    config.endpoints.control = Some(local.endpoint().parse().expect("a URL"));
    let client = Client::new(config).expect("a client");
    let begin_ms = Clock::system().wall_ms() - FRAGMENTS * FRAGMENT_MS;
    let input = PutMediaInput {
        stream: StreamId::name("film"),
        timecode_type: TimecodeType::Absolute,
        start_ms: begin_ms,
        write_timeout: None,
    };
    let PutMedia { mut sender, mut acks } = client.put_media(&input).await.expect("a session");
    let format = VideoFormat {
        codec: VideoCodec::H264,
        codec_private: Bytes::from_static(&[1, 0x42, 0xc0, 0x1e, 0xff, 0xe0, 0]),
        width: 1920,
        height: 1080,
        frame_rate: None,
    };
    let sending = async {
        sender.send(header([7; 16], "bench", &[Track::Video(Arc::new(format))])).await.expect("taken");
        for n in 0..FRAGMENTS {
            sender.send(fragment(n, begin_ms)).await.expect("taken");
        }
        sender.finish().await.expect("ended");
    };
    let hearing = async {
        let mut persisted = 0;
        while let Some(ack) = acks.next_ack().await.expect("an ack") {
            persisted += u64::from(ack.event == AckEvent::Persisted);
        }
        persisted
    };
    assert_eq!(tokio::join!(sending, hearing).1, FRAGMENTS);
}

fn fragment(n: u64, begin_ms: u64) -> Bytes {
    let mut bytes = cluster_start(begin_ms + n * FRAGMENT_MS).to_vec();
    // As noise, which is what coded pictures look like to who reads Matroska.
    let mut state = n | 1;
    for picture in 0..PICTURES {
        let length = if picture == 0 { KEY_PICTURE_BYTES } else { PICTURE_BYTES };
        let offset = i16::try_from(picture * PICTURE_MS).expect("short");
        bytes.extend_from_slice(&block_head(1, offset, picture == 0, length));
        bytes.extend((0..length).map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_be_bytes()[0]
        }));
    }
    bytes.into()
}
