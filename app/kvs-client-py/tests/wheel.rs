//! The installed wheel in the hands of Python, against real servers. `KVS_EDGE_TEST_WHEEL` names an interpreter that has it,
//! with numpy and boto3: `cargo xtask test` makes one.

mod film;

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use film::Film;
use kvs_client::{Client, Config, static_credentials};
use kvs_local::{KvsLocal, Options};
use tokio::sync::Notify;

struct Server {
    local: KvsLocal,
    client: Client,
    _data: tempfile::TempDir,
}

impl Server {
    /// With 150 pictures in 5 fragments of the stream `film`. `idle_end`: how long after the producer GetMedia ends.
    async fn start(film: &Film, idle_end: Option<Duration>) -> Self {
        let data = tempfile::tempdir().expect("a temporary folder");
        let mut options = Options::new(data.path());
        for stream in ["film", "live", "empty"] {
            options = options.stream(stream, 24);
        }
        options.limits.get_media_idle_end = idle_end;
        // A test begins before the server has noticed that the readers of the one before are gone.
        options.limits.get_media_per_stream = 100;
        options.admin = true;
        let local = KvsLocal::start(options).await.expect("it starts");
        let mut config =
            Config::new("us-west-2", static_credentials("AKIDKVSLOCAL", "kvs-local-secret", None));
        config.endpoints.control = Some(local.endpoint().parse().expect("a URL"));
        let client = Client::new(config).expect("a client");
        assert_eq!(film.upload(&client, "film").await, 5);
        Self { local, client, _data: data }
    }
}

/// The interpreter; `None`: nobody asked for it to be there.
fn python() -> Option<OsString> {
    let python = std::env::var_os("KVS_EDGE_TEST_WHEEL");
    if python.is_none() {
        assert!(
            std::env::var_os("KVS_EDGE_TEST_REQUIRE_PEERS").is_none(),
            "KVS_EDGE_TEST_WHEEL names nothing"
        );
        eprintln!("skipped: no Python with the wheel in KVS_EDGE_TEST_WHEEL; cargo xtask test");
    }
    python
}

/// Runs one module of `tests/python`.
fn check(module: &'static str) {
    let Some(python) = python() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let film = Film::recorded();
        let ends = Server::start(&film, Some(Duration::ZERO)).await;
        let stays = Server::start(&film, None).await;
        let begun = Arc::new(Notify::new());
        let camera = tokio::spawn({
            let (film, client, begun) = (film.clone(), stays.client.clone(), begun.clone());
            async move { film.repeat(&client, "live", &begun).await }
        });
        begun.notified().await;
        let home = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new(python);
        command.args(["-B", "-m", "unittest", "-v", module]);
        command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python"));
        command.env("KVS_TEST_STAYS", stays.local.endpoint()).env("KVS_TEST_FILM", film::path());
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
        assert!(!camera.is_finished(), "the camera went on all the time");
        camera.abort();
    });
}

/// What editors and type checkers are told is what is there: by mypy, in what is installed.
#[test]
fn types_are_those_of_the_module() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&python);
        command.args(["-B", "-m"]).args(arguments).current_dir(folder.path());
        let output = command.output().expect("Python starts");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    // Every name, parameter and default of the stub against the compiled module.
    let (fits, said) = run(&["mypy.stubtest", "kvs_client._native"]);
    assert!(fits && said.starts_with("Success: "), "{said}");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/typed.py");
    let script = script.to_str().expect("a path in UTF-8");
    let (fits, said) = run(&["mypy", "--strict", "-p", "kvs_client"]);
    assert!(fits, "{said}");
    let (fits, said) = run(&["mypy", "--strict", script]);
    assert!(fits, "{said}");
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
fn sources_give_frames_as_arrays() {
    check("test_sources");
}

#[test]
fn scripts_run_with_their_import_changed() {
    check("test_ported");
}

#[test]
fn the_reader_reads_reports_and_ends() {
    check("test_reader");
}
