//! The installed wheel in the hands of Python, against real servers. `KVS_EDGE_TEST_WHEEL` names an interpreter that has it,
//! with numpy and boto3: `cargo xtask test` makes one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use kvs_client::kvs::ack::AckEvent;
use kvs_client::kvs::api::StreamId;
use kvs_client::{Client, Config, PutMedia, PutMediaInput, TimecodeType, static_credentials};
use kvs_local::{KvsLocal, Options};

const PIECE_BYTES: usize = 64 * 1024;
/// When the recording began.
const BEGIN_MS: u64 = 1_795_186_073_633;

struct Server {
    local: KvsLocal,
    _data: tempfile::TempDir,
}

impl Server {
    /// `film`: 150 pictures in 5 fragments. `idle_end`: how long after the producer GetMedia ends.
    async fn start(idle_end: Option<Duration>) -> Self {
        let data = tempfile::tempdir().expect("a temporary folder");
        let mut options = Options::new(data.path()).stream("film", 24).stream("empty", 24);
        options.limits.get_media_idle_end = idle_end;
        options.admin = true;
        let server = Self { local: KvsLocal::start(options).await.expect("it starts"), _data: data };
        server.put("film", "ok_put_001.mkv", 5).await;
        server
    }

    async fn put(&self, stream: &str, file: &str, fragments: usize) {
        let mut config =
            Config::new("us-west-2", static_credentials("AKIDKVSLOCAL", "kvs-local-secret", None));
        config.endpoints.control = Some(self.local.endpoint().parse().expect("a URL"));
        let client = Client::new(config).expect("a client");
        let input = PutMediaInput {
            stream: StreamId::name(stream),
            timecode_type: TimecodeType::Absolute,
            start_ms: BEGIN_MS,
            write_timeout: None,
        };
        let path = root().join("tests/data/kvssink-putmedia").join(file);
        let body = Bytes::from(std::fs::read(path).expect("a recording"));
        let PutMedia { mut sender, mut acks } = client.put_media(&input).await.expect("a session");
        let sending = async {
            for at in (0..body.len()).step_by(PIECE_BYTES) {
                let piece = body.slice(at..body.len().min(at + PIECE_BYTES));
                sender.send(piece).await.expect("taken");
            }
            sender.finish().await.expect("ended");
        };
        let hearing = async {
            let mut persisted = 0;
            while let Some(ack) = acks.next_ack().await.expect("an ack") {
                persisted += usize::from(matches!(ack.event, AckEvent::Persisted));
            }
            persisted
        };
        assert_eq!(tokio::join!(sending, hearing).1, fragments);
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs one module of `tests/python`.
fn check(module: &'static str) {
    let Some(python) = std::env::var_os("KVS_EDGE_TEST_WHEEL") else {
        assert!(
            std::env::var_os("KVS_EDGE_TEST_REQUIRE_PEERS").is_none(),
            "KVS_EDGE_TEST_WHEEL names nothing"
        );
        eprintln!("skipped: no Python with the wheel in KVS_EDGE_TEST_WHEEL; cargo xtask test");
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let ends = Server::start(Some(Duration::ZERO)).await;
        let stays = Server::start(None).await;
        let home = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new(python);
        command.args(["-B", "-m", "unittest", "-v", module]);
        command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python"));
        command.env("KVS_TEST_STAYS", stays.local.endpoint());
        // Found by whatever looks for it, boto3 too.
        command.env("AWS_ENDPOINT_URL", ends.local.endpoint()).env("AWS_DEFAULT_REGION", "us-west-2");
        command.env("AWS_ACCESS_KEY_ID", "AKIDKVSLOCAL").env("AWS_SECRET_ACCESS_KEY", "kvs-local-secret");
        command.env_remove("AWS_SESSION_TOKEN").env_remove("AWS_REGION").env_remove("AWS_PROFILE");
        command.env_remove("AWS_ENDPOINT_URL_KINESIS_VIDEO");
        command.env("AWS_EC2_METADATA_DISABLED", "true").env("HOME", home.path());
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("joined");
        let output = output.expect("Python starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{module}:\n{}\n{said}", String::from_utf8_lossy(&output.stdout));
        assert!(said.contains("\nOK") && !said.contains("Ran 0 tests"), "{said}");
        assert!(!said.contains("skipped"), "{said}");
    });
}

#[test]
fn fragments_come_by_callbacks_as_with_the_library_of_aws() {
    check("test_consumer");
}

#[test]
fn a_fragment_is_taken_apart() {
    check("test_fragments");
}

#[test]
fn scripts_for_the_library_of_aws_run_with_their_import_changed() {
    check("test_ported_consumer");
}
