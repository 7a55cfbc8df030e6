//! `kvs-edge bench`: the performance test of a daemon that runs.
//!
//! ```text
//!  /proc/PID, each interval ----+
//!                               +--> columns, summary --> criteria --> table, JSON, SVG, exit code
//!  the daemon's MQTT figures ---+
//! ```
//!
//! Looks from outside alone: processor and memory come from the kernel, everything else from what the daemon publishes
//! anyway, over a connection with a client id of our own. So what is measured is the daemon as it is used, and it is not
//! slowed by being measured.

mod criteria;
mod figures;
mod judge;
mod plot;
mod process;
mod report;
mod series;
#[cfg(test)]
mod tests;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use clock::Clock;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use config::{Config, ConfigErrors};
pub use criteria::LimitArguments;
use figures::Figures;
pub use judge::{Limit, LimitError};
use messages::{Topics, UtcTime};
pub use mqtt::ListenError;
use mqtt::{Heard, Listener};
pub use process::FindError;
use process::{Daemon, Sampler};
use report::Machine;
use series::{Column, Merge, Series};

/// A daemon that ended is waited for this long; a service manager brings it back sooner.
const BACK_WITHIN_S: f64 = 30.0;

const CPU: usize = 0;
const RSS: usize = 1;
const MACHINE: usize = 2;
const PROCESS: [Column; 3] =
    [("cpu_percent", Merge::Mean), ("rss_mib", Merge::Peak), ("machine_cpu_percent", Merge::Mean)];

/// How the bench is asked for.
#[derive(Args, Clone, Debug)]
pub struct BenchArguments {
    /// The file that the daemon runs with; says where its MQTT broker is.
    #[arg(long, default_value_os_t = config::default_path())]
    pub config: PathBuf,
    /// Seconds to measure; Ctrl-C ends sooner and judges what was measured.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub duration: u64,
    /// Process id of the daemon; looked for by its command line if absent.
    #[arg(long)]
    pub pid: Option<u32>,
    /// Where bench-TIME.json and bench-TIME.svg are written.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub out: PathBuf,
    /// Seconds between two samples of processor and memory, 0.1 to 60.
    #[arg(long, value_name = "S", default_value = "1", value_parser = interval)]
    pub interval_s: f64,
    /// MQTT client id of the bench; the daemon's with a suffix if absent.
    #[arg(long, value_name = "ID")]
    pub client_id: Option<String>,
    /// Print the report (without samples) as JSON instead of the table.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub limits: LimitArguments,
}

fn interval(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.1..=60.0).contains(number));
    number.ok_or_else(|| format!("found `{text}`, expected seconds from 0.1 to 60"))
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    #[error(
        "{}: no [mqtt] section, and the bench reads fps and latency from the daemon's MQTT messages; add [mqtt] with a \
         broker's host to the file and restart the daemon",
        config.display()
    )]
    NoMqtt { config: PathBuf },
    #[error(
        "--client-id is the daemon's own ({id}), and a broker lets only one client use it; choose another, or leave it \
         out"
    )]
    ClientId { id: String },
    #[error(transparent)]
    Find(#[from] FindError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("{} cannot be written: {source}; choose another folder with --out", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("the picture cannot be drawn: {0}")]
    Draw(#[from] plot::DrawError),
    #[error("signals cannot be handled: {0}")]
    Signals(std::io::Error),
}

/// What ended the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum EndedBy {
    Time,
    Signal,
    DaemonGone,
}

/// One end of the daemon; times in seconds since the start of the bench.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Crash {
    t_s: f64,
    pid: u32,
    /// Its own word, when it stopped in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<String>,
    /// When it was there again, and as which process.
    #[serde(skip_serializing_if = "Option::is_none")]
    back: Option<(f64, u32)>,
}

impl Crash {
    fn words(&self) -> String {
        let reason = self.stop_reason.as_deref().unwrap_or("without a word");
        let back = self.back.map_or("did not come back".to_owned(), |(at, pid)| {
            format!("came back after {at:.1} s as process {pid}")
        });
        format!("daemon: process {} ended after {:.1} s ({reason}) and {back}", self.pid, self.t_s)
    }
}

/// Everything measured.
struct Run {
    config: PathBuf,
    device: String,
    pid: u32,
    begun: UtcTime,
    ended: UtcTime,
    measured_s: f64,
    asked_s: u64,
    ended_by: EndedBy,
    process: Series<3>,
    crashes: Vec<Crash>,
    figures: Figures,
    /// Lost connections to the broker.
    interruptions: u64,
    /// Seconds between two reports of the cameras, and of the detector.
    health_s: u64,
    figures_s: u64,
}

/// Measures, writes both files, prints, and judges.
pub async fn run(arguments: BenchArguments) -> ExitCode {
    match bench(&arguments, Path::new("/proc"), &Clock::system()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tell(&format!("kvs-edge bench: {}\n", error.to_string().trim_end()));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the answer of the command")]
fn say(text: &str) {
    println!("{text}");
}

/// A closed terminal is no reason to end.
fn tell(text: &str) {
    let mut err = std::io::stderr();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

async fn bench(arguments: &BenchArguments, proc: &Path, clock: &Clock) -> Result<bool, BenchError> {
    let config = Config::load(&arguments.config)?;
    let Some(mut mqtt) = config.mqtt.clone() else {
        return Err(BenchError::NoMqtt { config: arguments.config.clone() });
    };
    let client_id = arguments
        .client_id
        .clone()
        .unwrap_or_else(|| format!("{}-bench-{}", mqtt.client_id, std::process::id()));
    if client_id == mqtt.client_id {
        return Err(BenchError::ClientId { id: client_id });
    }
    mqtt.client_id = client_id;
    let daemon = match arguments.pid {
        Some(pid) => process::take(proc, pid)?,
        None => process::find(proc, &arguments.config)?,
    };
    // Before the hours of measuring, not after.
    check_folder(&arguments.out)?;
    let topics = Topics::new(&mqtt.prefix, &config.device.id);
    let listener = Listener::connect(mqtt, Figures::filters(&topics)).await?;

    let run = measure(arguments, proc, clock, &config, daemon, topics, listener).await?;
    let judged = criteria::judge_all(&arguments.limits, &run);
    let machine = Machine::this(clock);
    let mut report = report::summary(&run, &machine, &judged);
    let stem = arguments.out.join(format!("bench-{}", report::stamp(run.begun)));
    let (json, svg) = (stem.with_extension("json"), stem.with_extension("svg"));
    write(&svg, plot::draw(&run, &judged)?.as_bytes())?;
    if arguments.json {
        say(&format!("{report:#}"));
    } else {
        say(&report::table(&run, &machine, &judged));
        say(&format!("report   {}\npicture  {}", json.display(), svg.display()));
    }
    report["samples"] = report::samples(&run);
    write(&json, format!("{report}\n").as_bytes())?;
    Ok(report::passed(&judged))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), BenchError> {
    std::fs::write(path, bytes).map_err(|source| BenchError::Write { path: path.to_owned(), source })
}

fn check_folder(folder: &Path) -> Result<(), BenchError> {
    let probe = folder.join(format!(".bench-{}", std::process::id()));
    let tried = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&probe, b""))
        .and_then(|()| std::fs::remove_file(&probe));
    tried.map_err(|source| BenchError::Write { path: folder.to_owned(), source })
}

/// The daemon as far as we see it.
enum Life {
    Lives(Sampler),
    /// Seconds from the start of the bench.
    Gone {
        since_s: f64,
    },
}

async fn measure(
    arguments: &BenchArguments,
    proc: &Path,
    clock: &Clock,
    config: &Config,
    daemon: Daemon,
    topics: Topics,
    listener: Listener,
) -> Result<Run, BenchError> {
    let mut term = signal(SignalKind::terminate()).map_err(BenchError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(BenchError::Signals)?;
    let begun = UtcTime::from(clock.wall());
    let start = clock.now();
    let mut run = Run {
        config: arguments.config.clone(),
        device: config.device.id.clone(),
        pid: daemon.pid,
        begun,
        ended: begun,
        measured_s: 0.0,
        asked_s: arguments.duration,
        ended_by: EndedBy::Time,
        process: Series::new(PROCESS),
        crashes: Vec::new(),
        figures: Figures::new(config, topics, begun),
        interruptions: 0,
        health_s: config.health.interval.as_secs(),
        figures_s: config.detect.as_ref().map_or(0, |detect| detect.figures_every.as_secs()),
    };
    let mut progress = Progress::new(arguments);
    progress.note(&format!("measuring process {} for {} s", daemon.pid, arguments.duration));

    let (sender, mut heard) = Listener::channel();
    let stop = CancellationToken::new();
    let listening: JoinHandle<()> = tokio::spawn(listener.run(sender, stop.clone()));
    let mut tick = tokio::time::interval(Duration::from_secs_f64(arguments.interval_s));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let end = clock.sleep_until(start + Duration::from_secs(arguments.duration));
    let mut end = std::pin::pin!(end);
    let mut life = Life::Lives(Sampler::new(proc, daemon));
    run.ended_by = loop {
        tokio::select! {
            _ = tick.tick() => {
                let at_s = clock.since(start).as_secs_f64();
                life = run.look(life, proc, at_s);
                if matches!(&life, Life::Gone { since_s } if at_s - since_s >= BACK_WITHIN_S) {
                    break EndedBy::DaemonGone;
                }
                progress.show(&run, at_s);
            }
            Some(heard) = heard.recv() => run.hear(heard, clock.since(start).as_secs_f64(), &mut progress),
            () = &mut end => break EndedBy::Time,
            _ = term.recv() => break EndedBy::Signal,
            _ = interrupt.recv() => break EndedBy::Signal,
        }
    };
    run.measured_s = clock.since(start).as_secs_f64();
    run.ended = clock.wall().into();
    if let Life::Lives(sampler) = &mut life
        && sampler.sample().is_none()
    {
        run.died(sampler.daemon.pid, run.measured_s);
    }
    // What was said before the end and not read yet.
    while let Ok(heard) = heard.try_recv() {
        run.hear(heard, run.measured_s, &mut progress);
    }
    stop.cancel();
    let _ = listening.await;
    progress.end();
    run.explain_crashes();
    Ok(run)
}

impl Run {
    fn look(&mut self, life: Life, proc: &Path, at_s: f64) -> Life {
        match life {
            Life::Lives(mut sampler) => match sampler.sample() {
                Some(taken) => {
                    let rss = taken.rss_bytes.map(criteria::mib);
                    self.process.push(at_s, [taken.cpu_percent, rss, taken.machine_cpu_percent]);
                    Life::Lives(sampler)
                }
                None => {
                    self.died(sampler.daemon.pid, at_s);
                    Life::Gone { since_s: at_s }
                }
            },
            Life::Gone { since_s } => match process::find(proc, &self.config) {
                Ok(daemon) => {
                    if let Some(crash) = self.crashes.last_mut() {
                        crash.back = Some((at_s, daemon.pid));
                    }
                    Life::Lives(Sampler::new(proc, daemon))
                }
                Err(_) => Life::Gone { since_s },
            },
        }
    }

    fn died(&mut self, pid: u32, t_s: f64) {
        self.crashes.push(Crash { t_s, pid, stop_reason: None, back: None });
        // No curve goes on from one life to the next.
        self.process.push(t_s, [None; 3]);
        self.figures.interrupt(t_s);
    }

    /// What the daemon said last before each of its ends.
    fn explain_crashes(&mut self) {
        let mut stops = self.figures.stops.iter().peekable();
        for crash in &mut self.crashes {
            // Its word and its end are seen up to an interval apart.
            while let Some((_, reason)) = stops.next_if(|(at_s, _)| *at_s <= crash.t_s + 1.0) {
                crash.stop_reason = Some(reason.clone());
            }
        }
    }

    fn hear(&mut self, heard: Heard, at_s: f64, progress: &mut Progress) {
        match heard {
            Heard::Message { topic, payload } => self.figures.take(&topic, &payload, at_s),
            Heard::Interrupted { why } => {
                self.interruptions += 1;
                progress.note(&format!("the connection to the broker was lost: {why}"));
            }
        }
    }
}

/// One line on standard error that is written over, where that is a terminal.
struct Progress {
    live: bool,
    duration: u64,
    drawn: bool,
}

impl Progress {
    fn new(arguments: &BenchArguments) -> Progress {
        Progress { live: std::io::stderr().is_terminal(), duration: arguments.duration, drawn: false }
    }

    fn note(&mut self, text: &str) {
        self.end();
        tell(&format!("kvs-edge bench: {text}\n"));
    }

    fn show(&mut self, run: &Run, at_s: f64) {
        if !self.live {
            return;
        }
        let [cpu, rss, _] = run.process.newest().map_or([None; 3], |row| row.values);
        let [fps, _, p95, ..] = run.figures.detector.series.newest().map_or([None; 5], |row| row.values);
        let mut line = format!("\r{at_s:>6.0} s of {} s", self.duration);
        for (name, value, unit) in
            [("CPU", cpu, "%"), ("memory", rss, "MiB"), ("model", fps, "fps"), ("inference p95", p95, "ms")]
        {
            if let Some(value) = value {
                line.push_str(&format!("   {name} {value:.1} {unit}"));
            }
        }
        tell(&format!("{line}\x1b[K"));
        self.drawn = true;
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.drawn) {
            tell("\r\x1b[K");
        }
    }
}
