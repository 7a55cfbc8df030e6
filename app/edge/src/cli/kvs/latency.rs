//! `bench-latency`: how far behind the producer readers are, by both ways at once.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use clock::Clock;
use kvs_client::Client;
use kvs_client::kvs::api::StreamId;
use kvs_client::source::{Source, SourceMode, SourceOptions, StreamSource};
use media::{Feed, UnitSource};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::account::Account;
use super::progress::Progress;
use super::{Failed, write};

#[derive(Args)]
pub(crate) struct BenchLatency {
    #[command(flatten)]
    account: Account,
    /// How long is measured.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Seconds before that, in which readers catch up with the live edge.
    #[arg(long, default_value_t = 15)]
    warm_up: u64,
    /// Ends sooner, once each has measured so many pictures.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pictures: Option<u64>,
    #[arg(long)]
    json: bool,
}

/// From the time that the producer put on a picture to its arrival here, by this machine's clock.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    mode: &'static str,
    pictures: usize,
    /// From the first call to the first picture.
    first_picture_ms: Option<u64>,
    /// How old that was.
    first_picture_age_ms: Option<i64>,
    p50_ms: Option<i64>,
    p95_ms: Option<i64>,
    worst_ms: Option<i64>,
    error: Option<String>,
}

pub(super) async fn run(
    bench: BenchLatency,
    out: &mut impl Write,
    stop: &CancellationToken,
) -> Result<(), Failed> {
    let BenchLatency { account, seconds, warm_up, pictures, json } = bench;
    let (client, stream) = account.open().await?;
    let (clock, progress) = (Clock::system(), Progress::endless("s"));
    let warm = clock.now() + Duration::from_secs(warm_up);
    let pictures = pictures.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    let until = Until { warm, end: warm + Duration::from_secs(seconds), pictures };
    let watch = async {
        let mut turns = tokio::time::interval(Duration::from_secs(1));
        loop {
            turns.tick().await;
            progress.advance(format_args!("of {} s", warm_up + seconds));
        }
    };
    let rows = async {
        tokio::join!(
            measure(&client, &stream, SourceMode::GetMedia, until, &clock, stop),
            measure(&client, &stream, SourceMode::Hls, until, &clock, stop)
        )
    };
    let (get_media, hls) = tokio::select! {
        rows = rows => rows,
        () = watch => unreachable!("it has no end"),
    };
    drop(progress);
    let rows = [get_media?, hls?];
    if json {
        for row in &rows {
            let line = serde_json::to_string(row).map_err(|error| error.to_string())?;
            write(out, format_args!("{line}"))?;
        }
    } else {
        write(out, format_args!("read with default settings, producer to here, ms"))?;
        write(
            out,
            format_args!(
                "{:<10} {:>9} {:>8} {:>8} {:>8} {:>24}",
                "", "pictures", "p50", "p95", "worst", "first picture, its age"
            ),
        )?;
        for row in &rows {
            let ms = |value: Option<i64>| value.map_or("-".to_owned(), |ms| ms.to_string());
            let first = row.first_picture_ms.map_or("-".to_owned(), |ms| ms.to_string());
            let first = format!("{first}, {}", ms(row.first_picture_age_ms));
            let [p50, p95, worst] = [row.p50_ms, row.p95_ms, row.worst_ms].map(ms);
            let Row { mode, pictures, .. } = row;
            write(out, format_args!("{mode:<10} {pictures:>9} {p50:>8} {p95:>8} {worst:>8} {first:>24}"))?;
        }
    }
    let silent: Vec<String> = rows
        .iter()
        .filter(|row| row.pictures == 0)
        .map(|row| format!("{}: {}", row.mode, row.error.as_deref().unwrap_or("no picture came")))
        .collect();
    if silent.is_empty() || stop.is_cancelled() { Ok(()) } else { Err(silent.join("; ").into()) }
}

/// What is measured: from `warm` on, up to the first of both ends.
#[derive(Clone, Copy)]
struct Until {
    warm: std::time::Instant,
    end: std::time::Instant,
    pictures: usize,
}

async fn measure(
    client: &Client,
    stream: &StreamId,
    mode: SourceMode,
    until: Until,
    clock: &Clock,
    stop: &CancellationToken,
) -> Result<Row, Failed> {
    let begun = clock.now();
    let options = SourceOptions::new(mode);
    let mut source = Source::new(client, stream, &options).map_err(|error| error.to_string())?;
    let (mut ages, mut first) = (Vec::new(), None);
    while ages.len() < until.pictures {
        let next = tokio::select! {
            () = clock.sleep_until(until.end) => break,
            () = stop.cancelled() => break,
            next = source.next() => next,
        };
        let Some(item) = next else { break };
        let Feed::Video(unit) = item else { continue };
        let (now, wall_ms) = (clock.now(), i64::try_from(clock.wall_ms()).unwrap_or(i64::MAX));
        let age = wall_ms.saturating_sub(i64::try_from(unit.timestamp.as_millis()).unwrap_or(i64::MAX));
        first.get_or_insert((now.saturating_duration_since(begun), age));
        if now >= until.warm {
            ages.push(age);
        }
    }
    ages.sort_unstable();
    let at = |part: usize| ages.get((ages.len() * part / 100).min(ages.len().saturating_sub(1))).copied();
    Ok(Row {
        mode: match mode {
            SourceMode::Hls => "HLS",
            _ => "GetMedia",
        },
        pictures: ages.len(),
        first_picture_ms: first.map(|(after, _)| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
        first_picture_age_ms: first.map(|(_, age)| age),
        p50_ms: at(50),
        p95_ms: at(95),
        worst_ms: ages.last().copied(),
        error: source.last_error(),
    })
}
