//! How far behind readers are: from the moment in which the producer has a coded picture to that in which a reader has it.
//!
//! The ways differ by what they wait for. GetMedia passes a fragment on as it is received, or whole where the service holds it
//! until then; HLS lists whole fragments only, and a player begins three of them behind the end of the list (RFC 8216 6.3.3),
//! and stays there since it shows pictures as fast as they were filmed.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clock::Clock;
use kvs_client::Client;
use kvs_client::kvs::api::{GetHlsStreamingSessionUrlInput, StreamId};
use kvs_client::source::{Source, SourceMode, SourceOptions, StreamSource};
use media::{Feed, UnitSource};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::film::Film;
use crate::{Error, server, stream};

/// Seconds.
const FRAGMENTS: [u64; 4] = [2, 4, 6, 8];
/// What a live playlist lists.
const LISTED: u64 = 5;
const WARM_UP: Duration = Duration::from_secs(6);
/// HLS has its latency in steps of whole fragments.
const WINDOW: Duration = Duration::from_secs(40);

/// Ages in ms, in order, and that of the first picture.
struct Ages {
    ages: Vec<u64>,
    first: u64,
}

impl Ages {
    fn at(&self, percent: usize) -> u64 {
        self.ages[(self.ages.len() * percent / 100).min(self.ages.len() - 1)]
    }

    fn seconds(&self) -> String {
        #[expect(clippy::cast_precision_loss, reason = "some thousands of milliseconds")]
        let seconds = |ms: u64| ms as f64 / 1_000.0;
        format!("{:.1} / {:.1}", seconds(self.at(50)), seconds(self.at(95)))
    }
}

/// GetMedia and HLS of one stream at once, each with its default settings.
#[expect(clippy::print_stdout, reason = "the table is what this is for")]
pub(crate) async fn ours() -> Result<(), Error> {
    let server = server(1, |_| {}).await?;
    let film = Film::load()?;
    let client = server.client.clone();
    let producer = tokio::spawn(async move { film.play(&client, &stream(0), 0, 2).await });
    let warm = Clock::system().now() + WARM_UP;
    let name = stream(0);
    let (get_media, hls) = tokio::try_join!(
        behind(&server.client, &name, SourceMode::GetMedia, warm),
        behind(&server.client, &name, SourceMode::Hls, warm)
    )?;
    producer.abort();
    println!(
        "\n| reader, default settings | pictures | p50, ms | p95, ms | worst, ms | age of the first picture, ms |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    for (name, ages) in [("GetMedia", get_media), ("HLS", hls)] {
        let (pictures, worst) = (ages.ages.len(), ages.at(100));
        println!("| {name} | {pictures} | {} | {} | {worst} | {} |", ages.at(50), ages.at(95), ages.first);
    }
    Ok(())
}

/// The figures that users report (GetMedia 1 to 3 s, HLS 10 to 30 s), under the conditions that make them.
#[expect(clippy::print_stdout, reason = "the table is what this is for")]
pub(crate) async fn known() -> Result<(), Error> {
    let streaming = server(FRAGMENTS.len(), |_| {}).await?;
    let whole = server(FRAGMENTS.len(), |options| options.stream_while_receiving = false).await?;
    let film = Film::load()?;
    let mut producers = JoinSet::new();
    for (n, seconds) in FRAGMENTS.into_iter().enumerate() {
        for client in [streaming.client.clone(), whole.client.clone()] {
            let film = film.clone();
            producers.spawn(async move { film.play(&client, &stream(n), n as u64 * 97, seconds).await });
        }
    }
    // Until each list is as long as it gets: a player begins in the middle of it.
    let listed = FRAGMENTS.into_iter().max().unwrap_or(0) * (LISTED + 1);
    tokio::time::sleep(Duration::from_secs(listed)).await;
    let warm = Clock::system().now() + WARM_UP;
    let mut rows = JoinSet::new();
    for (n, seconds) in FRAGMENTS.into_iter().enumerate() {
        let (streaming, whole, name) = (streaming.client.clone(), whole.client.clone(), stream(n));
        rows.spawn(async move {
            let (passed_on, held, hls, player) = tokio::try_join!(
                behind(&streaming, &name, SourceMode::GetMedia, warm),
                behind(&whole, &name, SourceMode::GetMedia, warm),
                behind(&whole, &name, SourceMode::Hls, warm),
                player(&whole, &name, warm)
            )?;
            let cells = [passed_on, held, hls, player].map(|ages| ages.seconds());
            Ok::<_, Error>((seconds, cells.join(" | ")))
        });
    }
    let mut rows = rows.join_all().await.into_iter().collect::<Result<Vec<_>, Error>>()?;
    rows.sort();
    producers.shutdown().await;
    println!(
        "\n| fragments | GetMedia, as it is received | GetMedia, whole fragments | HLS, `HlsSource` | HLS, a player (ffmpeg) |"
    );
    println!("|---:|---:|---:|---:|---:|");
    rows.iter().for_each(|(seconds, cells)| println!("| {seconds} s | {cells} |"));
    Ok(())
}

/// Ages of the pictures from `warm` on.
struct Noted {
    clock: Clock,
    warm: Instant,
    first: Option<u64>,
    ages: Vec<u64>,
}

impl Noted {
    fn new(warm: Instant) -> Self {
        Self { clock: Clock::system(), warm, first: None, ages: Vec::new() }
    }

    fn note(&mut self, taken_ms: u64) {
        let age = self.clock.wall_ms().saturating_sub(taken_ms);
        self.first.get_or_insert(age);
        if self.clock.now() >= self.warm {
            self.ages.push(age);
        }
    }

    fn finish(mut self, who: &str, last_error: Option<String>) -> Result<Ages, Error> {
        self.ages.sort_unstable();
        match self.first {
            Some(first) if !self.ages.is_empty() => Ok(Ages { ages: self.ages, first }),
            _ => Err(format!("{who}: no picture came; {last_error:?}").into()),
        }
    }
}

/// Of a source with default settings.
async fn behind(client: &Client, stream: &str, mode: SourceMode, warm: Instant) -> Result<Ages, Error> {
    let mut noted = Noted::new(warm);
    let clock = Clock::system();
    let mut source = Source::new(client, &StreamId::name(stream), &SourceOptions::new(mode))?;
    loop {
        let item = tokio::select! {
            () = clock.sleep_until(warm + WINDOW) => break,
            item = source.next() => item,
        };
        match item {
            Some(Feed::Video(unit)) => noted.note(unit.timestamp.as_millis()),
            Some(_) => {}
            None => break,
        }
    }
    noted.finish(mode.name(), source.last_error())
}

/// Of ffmpeg with its defaults, showing pictures as fast as they were filmed.
async fn player(client: &Client, stream: &str, warm: Instant) -> Result<Ages, Error> {
    let input = GetHlsStreamingSessionUrlInput {
        stream: StreamId::name(stream),
        expires: Some(43_200),
        ..GetHlsStreamingSessionUrlInput::default()
    };
    let url = client.get_hls_streaming_session_url(&input).await?;
    // `-re`: as a screen does. framecrc: a line for each picture, with its time behind the start that ffmpeg tells at first.
    let arguments = ["-nostdin", "-nostats", "-hide_banner", "-re", "-i", &url];
    let output = ["-map", "0:v:0", "-c", "copy", "-flush_packets", "1", "-f", "framecrc", "-"];
    let mut command = Command::new("ffmpeg");
    command.args(arguments).args(output).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let (told, mut times) = mpsc::channel(64);
    let pictures = lines(child.stdout.take().ok_or("no output")?, told.clone());
    let words = lines(child.stderr.take().ok_or("no output")?, told);
    let (mut noted, mut ticks, mut start_ms) = (Noted::new(warm), (1_u64, 1_000_u64), None);
    let clock = Clock::system();
    loop {
        let line = tokio::select! {
            () = clock.sleep_until(warm + WINDOW) => break,
            line = times.recv() => line,
        };
        let Some(line) = line else { break };
        if let Some(base) = line.strip_prefix("#tb 0: ") {
            let (of, seconds) = base.split_once('/').ok_or("no time base")?;
            ticks = (of.trim().parse()?, seconds.trim().parse()?);
        } else if let Some((_, start)) = line.split_once(", start: ") {
            let start: f64 = start.split(',').next().unwrap_or_default().parse()?;
            start_ms = Some(kvs_client::kvs::api::milliseconds(start));
        } else if let (Some(start_ms), Some(fields)) = (start_ms, line.strip_prefix("0, ")) {
            // Decoding time, time of showing, duration, size, sum.
            let time: u64 = fields.split(',').nth(1).ok_or("no time")?.trim().parse()?;
            noted.note(start_ms + time * ticks.0 * 1_000 / ticks.1);
        }
    }
    drop(times);
    child.kill()?;
    child.wait()?;
    for reading in [pictures, words] {
        reading.join().map_err(|_| "a reader of ffmpeg's output crashed")?;
    }
    noted.finish("ffmpeg", None)
}

/// Lines of a process, until nobody wants them.
fn lines(from: impl Read + Send + 'static, told: mpsc::Sender<String>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if told.blocking_send(line).is_err() {
                break;
            }
        }
    })
}
