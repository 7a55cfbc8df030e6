//! `kvs-edge kvs` as people run it: in a pipe, on a terminal, and ended by Ctrl-C.

use std::path::{Path, PathBuf};
use std::process::Command;

use kvs_client::kvs::api::StreamId;
use kvs_client::{Client, Config, PutMedia, PutMediaInput, PutMediaSender, TimecodeType, static_credentials};
use kvs_edge_tests::{Process, REGION, binary, eventually, program, within};
use kvs_local::{Credentials, Fault, FaultKind, KvsLocal, Options};

/// By AWS's own producer: five fragments of 2 s.
fn recording() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/kvssink-putmedia/ok_put_001.mkv")
}

struct Tools {
    folder: tempfile::TempDir,
    server: KvsLocal,
    client: Client,
}

impl Tools {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut options = Options::new(folder.path().join("kvs"));
        for stream in ["stored", "live", "put"] {
            options = options.stream(stream, 24);
        }
        let server = KvsLocal::start(options).await.expect("it starts");
        let keys = Credentials::local();
        let mut config = Config::new(REGION, static_credentials(keys.access_key, keys.secret_key, None));
        config.endpoints.control = Some(server.endpoint().parse().expect("a URL"));
        let client = Client::new(config).expect("a client");
        Self { folder, server, client }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("kvs-edge"));
        command.arg("kvs").args(arguments).args(["--region", REGION, "--endpoint", &self.server.endpoint()]);
        let keys = Credentials::local();
        command.env("AWS_ACCESS_KEY_ID", keys.access_key).env("AWS_SECRET_ACCESS_KEY", keys.secret_key);
        command.env_remove("AWS_SESSION_TOKEN").env("HOME", self.folder.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Process {
        Process::spawn(arguments[0], &mut self.command(arguments))
    }

    /// The whole recording, and nothing more.
    async fn store(&self) {
        let (mut sender, listens) = self.session("stored").await;
        sender.send(std::fs::read(recording()).expect("there").into()).await.expect("taken");
        sender.finish().await.expect("ended");
        within("the last ack", listens).await.expect("no panic");
    }

    /// A session whose acks are read, as long as there are any.
    async fn session(&self, stream: &str) -> (PutMediaSender, tokio::task::JoinHandle<()>) {
        let (stream, timecode_type) = (StreamId::name(stream), TimecodeType::Absolute);
        let input = PutMediaInput { stream, timecode_type, start_ms: 0, write_timeout: None };
        let PutMedia { sender, mut acks } = self.client.put_media(&input).await.expect("a session");
        (sender, tokio::spawn(async move { while let Ok(Some(_)) = acks.next_ack().await {} }))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_alone_on_standard_output_and_ctrl_c_ends_it_in_order() {
    let tools = Tools::start().await;
    tools.store().await;

    // In a pipe: no bar, not a word.
    let saved = tools.folder.path().join("saved");
    let save = ["save", "--stream", "stored", saved.to_str().expect("UTF-8")];
    let process = tools.run(&save);
    assert_eq!(process.ended().await.code(), Some(0), "{:?}", process.output());
    let printed = process.stdout();
    assert!(printed.len() == 5 && printed.iter().all(|path| Path::new(path).is_file()), "{printed:?}");
    assert_eq!(process.output().len(), 5, "nothing on standard error");

    // On a terminal: a bar there, and results where they were sent.
    let copied = tools.folder.path().join("copied.mkv");
    let Some(script) = program("script", "bsdutils") else { return };
    let mut inner = String::new();
    let command = tools.command(&["get", "--stream", "stored"]);
    for word in std::iter::once(command.get_program()).chain(command.get_args()) {
        inner.push_str(&format!("'{}' ", word.to_string_lossy()));
    }
    inner.push_str(&format!("> '{}'", copied.display()));
    let mut terminal = Command::new(script);
    terminal.args(["--quiet", "--return", "--command", &inner, "/dev/null"]).env("TERM", "xterm");
    terminal.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let process = Process::spawn("script", &mut terminal);
    assert_eq!(process.ended().await.code(), Some(0), "{:?}", process.output());
    let seen = process.output().concat();
    assert!(seen.contains("/5 fragments"), "{seen:?}");
    let documents = kvs_client::documents_of(std::fs::read(&copied).expect("there").into());
    assert_eq!(documents.expect("Matroska only").len(), 5);

    // Ctrl-C while a stream goes on for ever.
    let body = std::fs::read(recording()).expect("there");
    let cluster = [0x1F, 0x43, 0xB6, 0x75];
    let third = body.windows(4).enumerate().filter(|(_, four)| *four == cluster).nth(3).expect("five").0;
    let pictures = tools.folder.path().join("pictures");
    let live = ["--stream", "live", "--live"];
    let copy = tools.folder.path().join("live.mkv");
    let commands: [Vec<&str>; 3] = [
        [&["tags"][..], &live].concat(),
        [&["frames", "--jpeg", pictures.to_str().expect("UTF-8")][..], &live].concat(),
        [&["get", "--output", copy.to_str().expect("UTF-8")][..], &live].concat(),
    ];
    let processes = commands.map(|command| tools.run(&command));
    let reading = async || {
        let connections = tools.server.connections("live").expect("the stream");
        (connections.get_media == 3).then_some(())
    };
    eventually("three readers", reading).await;
    let (mut sender, _listens) = tools.session("live").await;
    // Three fragments, and the fourth begins.
    sender.send(body[..third + 2_000].to_vec().into()).await.expect("taken");
    processes[0].line("AWS_KINESISVIDEO_FRAGMENT_NUMBER").await;
    processes[1].line(".jpg").await;
    eventually("a fragment in the file", async || {
        let bytes = std::fs::metadata(&copy).map_or(0, |metadata| metadata.len());
        (bytes > 50_000).then_some(())
    })
    .await;
    for process in &processes {
        process.signal("INT");
    }
    for process in &processes {
        assert_eq!(process.ended().await.code(), Some(130), "{:?}", process.output());
    }
    let tags = processes[0].stdout();
    assert!(tags.iter().all(|line| line.split('\t').count() == 3), "{tags:?}");
    for path in processes[1].stdout() {
        let jpeg = std::fs::read(&path).expect("there");
        assert!(jpeg.starts_with(&[0xff, 0xd8]) && jpeg.ends_with(&[0xff, 0xd9]), "{path}");
    }
    let documents = kvs_client::documents_of(std::fs::read(&copy).expect("there").into());
    let documents = documents.expect("Matroska");
    assert!(
        !documents.is_empty() && documents.iter().all(|document| document.complete && document.blocks == 30)
    );
    drop(sender);

    // Ctrl-C while a file goes up slowly: what is printed is there, and the next run sends the rest.
    tools.server.faults().inject(Fault::on("put", FaultKind::SlowReader { pause_ms: 20 }));
    let file = recording();
    let put = ["put", "--stream", "put", file.to_str().expect("UTF-8")];
    let process = tools.run(&put);
    process.line("2026-11-20T14:47:53.633Z").await;
    process.signal("INT");
    assert_eq!(process.ended().await.code(), Some(130), "{:?}", process.output());
    let mut times: Vec<String> = times(&process);
    tools.server.faults().clear();
    let process = tools.run(&put);
    assert_eq!(process.ended().await.code(), Some(0), "{:?}", process.output());
    times.extend(self::times(&process));
    let stored = tools.server.fragments("put").await.expect("the stream");
    assert_eq!((times.len(), stored.len()), (5, 5), "each once: {times:?}");

    // What is wrong is the last line on standard error, and nothing is on standard output.
    let process = tools.run(&["get", "--stream", "nobody"]);
    assert_eq!(process.ended().await.code(), Some(1));
    assert_eq!(process.stdout(), Vec::<String>::new());
    let said = process.output();
    assert!(said.last().is_some_and(|line| line.contains("nobody")), "{said:?}");
}

/// Of fragments that were printed as persisted.
fn times(process: &Process) -> Vec<String> {
    let lines = process.stdout();
    lines.iter().filter_map(|line| line.split('\t').nth(1)).map(str::to_owned).collect()
}
