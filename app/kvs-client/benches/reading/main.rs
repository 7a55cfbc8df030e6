//! What reading a stream costs, and how far behind it is. `cargo bench -p kvs-client --bench reading
//! [-- consumer|streams|latency|known]`.
//!
//! * `consumer`: one GetMedia answer of 138 fragments (201 MB) to callbacks; where `KVS_EDGE_TEST_CONSUMER_LIBRARY` names a checkout of
//!   AWS's consumer library for Python, beside it that one, on the same answer.
//! * `streams`: ten streams of 1080p30 (6 Mbit/s) read at once by GetMedia, without decoding; then decoded ones, more and more.
//! * `latency`: one producer, from the moment in which it has a coded picture to that in which a reader has it, GetMedia and HLS at
//!   once, each with its default settings, fragments of 2 s.
//! * `known`: the same by the length of the fragments, also where the service passes whole fragments on, and of a player that
//!   begins three fragments back (ffmpeg): where the figures come from that users report.
//!
//! The server and the producers run in this process, each reader in one of its own: only the readers are measured, by what Linux says
//! of them. Everything meets on loopback, and no limit is asserted.

mod film;
mod latency;
mod process;
mod reader;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kvs_client::{Client, Config, static_credentials};
use kvs_local::{KvsLocal, Options};

use film::{Film, noise};
use process::Process;

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// Of the answer that consumers read.
const FRAGMENTS: u64 = 138;
/// Readers that are measured without decoding.
const STREAMS: usize = 10;
/// Decoded streams, tried in this order for as long as all pictures come in time.
const DECODED: [usize; 6] = [1, 2, 3, 4, 6, 8];
const WARM_UP: Duration = Duration::from_secs(6);
const WINDOW: Duration = Duration::from_secs(15);

#[expect(clippy::print_stdout, reason = "the tables are what this is for")]
fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match words.as_slice() {
        ["read-consumer", endpoint] => runtime.block_on(reader::consumer(endpoint)),
        ["read-streams", endpoint, count, decode] => {
            reader::streams(&runtime, endpoint, count.parse()?, *decode == "decode")
        }
        ["consumer"] => runtime.block_on(consumer()),
        ["streams"] => runtime.block_on(streams()),
        ["latency"] => runtime.block_on(latency::ours()),
        ["known"] => runtime.block_on(latency::known()),
        [] if std::env::args().any(|argument| argument == "--bench") => runtime.block_on(async {
            consumer().await?;
            streams().await?;
            latency::ours().await?;
            latency::known().await
        }),
        _ => {
            println!("nothing is measured: this takes minutes, run it with cargo bench");
            Ok(())
        }
    }
}

pub(crate) fn client(endpoint: &str) -> Result<Client, Error> {
    let mut config = Config::new("us-west-2", static_credentials("AKIDKVSLOCAL", "kvs-local-secret", None));
    config.endpoints.control = Some(endpoint.parse()?);
    Ok(Client::new(config)?)
}

pub(crate) fn stream(n: usize) -> String {
    format!("cam{n}")
}

struct Server {
    local: KvsLocal,
    client: Client,
    _folder: tempfile::TempDir,
}

async fn server(streams: usize, change: impl FnOnce(&mut Options)) -> Result<Server, Error> {
    let folder = tempfile::tempdir()?;
    let mut options = Options::new(folder.path());
    for n in 0..streams {
        options = options.stream(stream(n), 24);
    }
    change(&mut options);
    let local = KvsLocal::start(options).await?;
    let client = client(&local.endpoint())?;
    Ok(Server { local, client, _folder: folder })
}

/// This same program as a reader.
fn child(arguments: &[&str]) -> Result<Child, Error> {
    let mut command = Command::new(std::env::current_exe()?);
    Ok(command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?)
}

/// Waits for its last word.
async fn output(child: Child) -> Result<String, Error> {
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await??;
    if !output.status.success() {
        return Err(format!("a reader failed: {}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[expect(clippy::print_stdout, reason = "the table is what this is for")]
async fn consumer() -> Result<(), Error> {
    // Its rates would make either reader wait, and nothing else.
    let server = server(1, |options| {
        options.limits.get_media_fragments_per_second = None;
        options.limits.get_media_bytes_per_second = None;
        options.limits.put_media_bytes_per_second = None;
        options.limits.put_media_fragments_per_second = None;
    })
    .await?;
    let bytes = noise(&server.client, &stream(0), FRAGMENTS).await?;
    let endpoint = server.local.endpoint();
    let mut rows = vec![("kvs-client, Consumer", output(child(&["read-consumer", &endpoint])?).await?)];
    match std::env::var_os("KVS_EDGE_TEST_CONSUMER_LIBRARY") {
        None => println!("AWS's library was left out: KVS_EDGE_TEST_CONSUMER_LIBRARY names no checkout"),
        Some(library) => {
            // Debian's interpreter, for which Debian's boto3 is installed.
            let mut python = Command::new("/usr/bin/python3");
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/reading/consumer.py");
            python.arg("-B").arg(script).arg(library).args([&endpoint, &stream(0)]);
            python.env("AWS_EC2_METADATA_DISABLED", "true").env("AWS_CONFIG_FILE", "/dev/null");
            rows.push(("AWS's Python library", output(python.stdout(Stdio::piped()).spawn()?).await?));
        }
    }
    println!("\none GetMedia answer, {FRAGMENTS} fragments, {bytes} bytes of media\n");
    println!("| reader | fragments | CPU of the whole process, s | peak memory, MiB |\n|---|---:|---:|---:|");
    for (reader, told) in rows {
        let cells: Vec<&str> = told.split_whitespace().collect();
        println!("| {reader} | {} |", cells.join(" | "));
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the table is what this is for")]
async fn streams() -> Result<(), Error> {
    let most = STREAMS.max(DECODED.into_iter().max().unwrap_or(0));
    let server = server(most, |_| {}).await?;
    let film = Film::load()?;
    println!(
        "\n| streams | decoded | CPU of the reader, % of a core | memory, MiB | pictures/s each | behind at the end, ms |"
    );
    println!("|---:|---|---:|---:|---:|---:|");
    for (count, decode) in
        std::iter::once((STREAMS, false)).chain(DECODED.into_iter().map(|count| (count, true)))
    {
        let mut producers = tokio::task::JoinSet::new();
        for n in 0..count {
            let (client, film) = (server.client.clone(), film.clone());
            producers.spawn(async move { film.play(&client, &stream(n), n as u64 * 97, 2).await });
        }
        let endpoint = server.local.endpoint();
        let how = if decode { "decode" } else { "plain" };
        let mut child = child(&["read-streams", &endpoint, &count.to_string(), how])?;
        let process = Process::of(child.id());
        tokio::time::sleep(WARM_UP).await;
        let begin = process.cpu_s()?;
        tokio::time::sleep(WINDOW).await;
        let used = process.cpu_s()? - begin;
        let memory = process.resident_mib()?;
        drop(child.stdin.take()); // it ends
        let told = output(child).await?;
        producers.shutdown().await;
        let mut cells = told.split_whitespace();
        let (rate, behind) = (cells.next().unwrap_or("-"), cells.next().unwrap_or("-"));
        let percent = 100.0 * used / WINDOW.as_secs_f64();
        let decoded = if decode { "yes" } else { "no" };
        println!("| {count} | {decoded} | {percent:.1} | {memory:.0} | {rate} | {behind} |");
        // The same streams go on with another session.
        tokio::time::sleep(Duration::from_secs(4)).await;
        if decode && rate.parse::<f64>().is_ok_and(|rate| rate < 29.0) {
            break;
        }
    }
    Ok(())
}
