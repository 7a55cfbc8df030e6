//! `kvs-edge analyze`: arguments, the progress bar, signals and the exit code.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use clock::Clock;
use config::{CameraDetect, Config, Environment, Model, models};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kvs_edge::analyze::{self, AnalyzeError, Ended, FileReport, Options, Told, Wanted};
use messages::UtcTime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// As a shell has it for SIGINT.
const INTERRUPTED: u8 = 130;
/// Pictures per second that can be asked for: of a file there may be more than of a camera.
const FPS: std::ops::RangeInclusive<f64> = 0.1..=240.0;

#[derive(Args)]
pub(crate) struct AnalyzeArguments {
    /// Video files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Look as a camera of this configuration does.
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// Which camera; may be left out where there is one.
    #[arg(long, requires = "config")]
    camera: Option<String>,
    /// Look with this model: nanodet (as `cargo xtask model` installs it; the default), scene, or a file.
    #[arg(long, value_name = "nanodet|scene|FILE.onnx")]
    model: Option<String>,
    /// Names of the classes of `--model FILE.onnx`, one a line, where it does not name them itself.
    #[arg(long, value_name = "FILE", requires = "model")]
    labels_file: Option<PathBuf>,
    /// Look for these labels only: person,vehicle.
    #[arg(long, value_delimiter = ',', value_name = "LABEL,...")]
    labels: Vec<String>,
    /// Pictures to look at per second of the file [default: the camera's, 5].
    #[arg(long)]
    fps: Option<f64>,
    /// Threads of one call of the model [default: the configuration's, 1].
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: Option<u8>,
    /// When the first picture of each file was taken [default: 1970-01-01T00:00:00Z].
    #[arg(long, value_name = "TIME")]
    start: Option<UtcTime>,
    /// Write NAME.mot.txt: tracks in pixels, as MOTChallenge has results.
    #[arg(long)]
    mot: bool,
    /// Write NAME.detections.mp4: the pictures with boxes, track numbers, zones and lines.
    #[arg(long)]
    video: bool,
    /// Write NAME.sheet.jpg: a contact sheet of the best shots, 48 at most.
    #[arg(long)]
    sheet: bool,
    /// Write NAME.report.json: what the table says, and more.
    #[arg(long)]
    report: bool,
    /// Where these files go.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Write over files that are there.
    #[arg(long)]
    force: bool,
}

pub(crate) async fn run(arguments: AnalyzeArguments) -> ExitCode {
    let options = match options(&arguments) {
        Ok(options) => options,
        Err(message) => return fail(&message),
    };
    let cancel = CancellationToken::new();
    let (Ok(mut interrupt), Ok(mut term)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return fail("signals cannot be handled");
    };
    let stop = cancel.clone();
    let signals = tokio::spawn(async move {
        let mut signalled = async || tokio::select! { _ = interrupt.recv() => (), _ = term.recv() => () };
        signalled().await;
        stop.cancel();
        signalled().await;
        // The second one does not wait for anything to be completed.
        std::process::exit(INTERRUPTED.into());
    });
    let work = tokio::task::spawn_blocking(move || {
        let bar = bar();
        let mut lines = Lines(io::stdout().is_terminal().then(|| bar.clone()));
        let mut told = |told: Told<'_>| tell(&bar, &told);
        analyze::run(&arguments.files, &options, &mut lines, &mut told, &cancel)
            .map(|reports| (reports, cancel.is_cancelled()))
    });
    let outcome = work.await;
    signals.abort();
    match outcome {
        Ok(Ok((reports, interrupted))) => code(&reports, interrupted),
        // Whoever read the events has seen enough.
        Ok(Err(AnalyzeError::Events(error))) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::FAILURE
        }
        Ok(Err(error)) => fail(&health::chain(&error)),
        Err(error) => fail(&error.to_string()),
    }
}

fn code(reports: &[FileReport], interrupted: bool) -> ExitCode {
    if interrupted {
        ExitCode::from(INTERRUPTED)
    } else if reports.iter().all(|report| report.ended == Ended::Whole) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn options(arguments: &AnalyzeArguments) -> Result<Options, String> {
    let (mut settings, mut detect, device) = match &arguments.config {
        Some(path) => of_camera(path, arguments.camera.as_deref())?,
        None => defaults(),
    };
    if let Some(model) = &arguments.model {
        settings.model = model_of(model, arguments.labels_file.clone())?;
        // What NanoDet-g is asked for by default is of its labels.
        if !matches!(settings.model, Model::NanoDet { .. }) && detect.rules.labels == models::LABELS {
            detect.rules.labels.clear();
        }
    }
    if !arguments.labels.is_empty() {
        detect.rules.labels.clone_from(&arguments.labels);
    }
    if let Some(fps) = arguments.fps {
        if !FPS.contains(&fps) {
            return Err(format!("--fps {fps}: expected {} to {}", FPS.start(), FPS.end()));
        }
        detect.fps = fps;
        // As of a camera: three pictures without it, at least.
        let interval = Duration::from_secs_f64(1.0 / fps);
        let three = u64::try_from((3 * interval).as_millis()).unwrap_or(u64::MAX);
        detect.rules.lost_after_ms = detect.rules.lost_after_ms.max(three);
    }
    if let Some(threads) = arguments.threads {
        settings.threads = threads.into();
    }
    let wanted = Wanted {
        folder: arguments.out.clone(),
        mot: arguments.mot,
        video: arguments.video,
        sheet: arguments.sheet,
        report: arguments.report,
        force: arguments.force,
    };
    let start = arguments.start.unwrap_or_default();
    Ok(Options { settings, detect, device, start, wanted, clock: Clock::system() })
}

/// What a camera has without a word in its configuration, where NanoDet-g is installed.
fn defaults() -> (config::Detect, CameraDetect, String) {
    let folders = Environment::of(Path::new("")).models;
    let settings = config::Detect { model: Model::NanoDet { folders }, ..config::Detect::default() };
    let mut detect = CameraDetect::default();
    detect.rules.labels = models::LABELS.map(str::to_owned).to_vec();
    (settings, detect, "analyze".to_owned())
}

fn of_camera(path: &Path, id: Option<&str>) -> Result<(config::Detect, CameraDetect, String), String> {
    let config = Config::load(path).map_err(|errors| errors.to_string())?;
    let ids: Vec<_> = config.cameras.iter().map(|camera| camera.id.as_str()).collect();
    let ids = ids.join(", ");
    let camera = match (id, config.cameras.as_slice()) {
        (Some(id), cameras) => cameras
            .iter()
            .find(|camera| camera.id == id)
            .ok_or_else(|| format!("--camera {id}: {} has no such camera; it has {ids}", path.display()))?,
        (None, [only]) => only,
        (None, _) => {
            return Err(format!("{} has several cameras; add --camera with one of {ids}", path.display()));
        }
    };
    let off = || match &config.advice {
        Some(advice) => format!("nothing is detected on camera {}: {advice}", camera.id),
        None => format!(
            "nothing is detected on camera {}; remove enabled = false from its [camera.detect] or [detect]",
            camera.id
        ),
    };
    let (settings, detect) = config.detect.clone().zip(camera.detect.clone()).ok_or_else(off)?;
    Ok((settings, detect, config.device.id))
}

fn model_of(name: &str, labels: Option<PathBuf>) -> Result<Model, String> {
    match name {
        "nanodet" | "scene" if labels.is_some() => {
            Err(format!("--labels-file beside --model {name}: that model has its labels, leave it out"))
        }
        "nanodet" => Ok(Model::NanoDet { folders: Environment::of(Path::new("")).models }),
        "scene" => Ok(Model::Scene),
        file => Ok(Model::File { model: file.into(), labels }),
    }
}

/// Events, one line at a time; where they go to a terminal the bar steps aside.
struct Lines(Option<ProgressBar>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.0 {
            Some(bar) => bar.suspend(|| io::stdout().write(bytes)),
            None => io::stdout().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

/// On standard error, where that is a terminal.
fn bar() -> ProgressBar {
    let target = if io::stderr().is_terminal() {
        ProgressDrawTarget::stderr_with_hz(4)
    } else {
        ProgressDrawTarget::hidden()
    };
    let style = ProgressStyle::with_template("{prefix} [{bar:30}] {percent:>3} %  {msg}  {eta} left");
    let bar = ProgressBar::with_draw_target(Some(1), target);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar
}

#[expect(clippy::print_stderr, reason = "standard output has the events, and nothing else")]
fn tell(bar: &ProgressBar, told: &Told<'_>) {
    match told {
        Told::Begins { file } => {
            bar.reset();
            bar.set_prefix(file.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
        Told::Note { file, text } => bar.suspend(|| eprintln!("note: {}: {text}", file.display())),
        Told::Goes { position, duration, looked_at, events } => {
            let milliseconds = |at: &Duration| u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
            bar.set_length(duration.as_ref().map_or(0, milliseconds).max(milliseconds(position)));
            bar.set_position(milliseconds(position));
            bar.set_message(format!("{looked_at} pictures, {events} events"));
        }
        Told::Ends(report) => {
            bar.finish_and_clear();
            eprint!("{report}");
        }
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a failed command")]
fn fail(text: &str) -> ExitCode {
    eprintln!("{}", text.trim_end());
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: AnalyzeArguments,
    }

    fn options_of(words: &[&str]) -> Result<Options, String> {
        let line = Line::try_parse_from(["analyze", "a.mp4"].iter().chain(words));
        options(&line.map_err(|error| error.to_string())?.arguments)
    }

    #[test]
    fn without_a_configuration_it_looks_as_a_camera_without_a_word_does() {
        let plain = options_of(&[]).expect("nothing is wrong");
        assert!(matches!(plain.settings.model, Model::NanoDet { .. }));
        assert_eq!(
            (plain.detect.fps, &plain.detect.rules.labels[..]),
            (5.0, &models::LABELS.map(str::to_owned)[..])
        );
        let scene =
            options_of(&["--model", "scene", "--fps", "0.2", "--threads", "2"]).expect("nothing is wrong");
        assert_eq!((&scene.settings.model, scene.settings.threads), (&Model::Scene, 2));
        assert!(scene.detect.rules.labels.is_empty(), "all that this model knows");
        assert_eq!((scene.detect.fps, scene.detect.rules.lost_after_ms), (0.2, 15_000));
        let own =
            options_of(&["--labels", "person,vehicle", "--start", "2026-11-30T12:00:00Z"]).expect("right");
        assert_eq!(own.detect.rules.labels, ["person", "vehicle"]);
        assert_eq!(own.start.to_string(), "2026-11-30T12:00:00.000Z");
        for (words, expected) in [
            (&["--fps", "0"][..], "--fps 0: expected 0.1 to 240"),
            (&["--model", "scene", "--labels-file", "a.labels"], "that model has its labels"),
            (&["--camera", "gate"], "--config"),
            (&["--start", "noon"], "RFC 3339"),
        ] {
            let error = options_of(words).map(|options| options.device).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_camera_of_the_configuration_is_named_where_there_are_several() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let camera = |id: &str| format!("[[camera]]\nid = \"{id}\"\nurl = \"rtsp://192.0.2.1/{id}\"\n");
        let base =
            "[device]\nid = \"box\"\n[aws]\nregion = \"us-west-2\"\n[detect]\nmodel = \"scene\"\nfps = 7\n";
        let gate = camera("gate") + "[camera.detect]\nmin_score = 0.7\nlabels = [\"person\"]\n";
        let path = file.path().to_str().expect("a plain path");
        let with = |text: &str, words: &[&str]| {
            std::fs::write(path, text).expect("written");
            options_of(&[&["--config", path][..], words].concat())
        };
        let one = with(&format!("{base}{gate}"), &[]).expect("one camera");
        assert_eq!((&*one.device, one.detect.fps, one.detect.rules.label.min_score), ("box", 7.0, 0.7));
        assert_eq!(
            (one.settings.model, &one.detect.rules.labels[..]),
            (Model::Scene, &["person".to_owned()][..])
        );
        let off = camera("yard") + "[camera.detect]\nenabled = false\n";
        let two = format!("{base}{gate}{off}");
        assert_eq!(with(&two, &["--camera", "gate"]).expect("named").detect.rules.label.min_score, 0.7);
        let error =
            |words: &[&str]| with(&two, words).map(|options| options.device).expect_err("no such camera");
        assert!(error(&[]).contains("add --camera with one of gate, yard"), "{}", error(&[]));
        let unknown = error(&["--camera", "door"]);
        assert!(unknown.contains("no such camera; it has gate, yard"), "{unknown}");
        let off = error(&["--camera", "yard"]);
        assert!(off.contains("nothing is detected on camera yard; remove enabled = false"), "{off}");
    }
}
