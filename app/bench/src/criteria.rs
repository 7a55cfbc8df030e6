//! Which criteria there are, their defaults, and where in a run their values come from.

use clap::Args;

use crate::Run;
use crate::figures::{CameraFigures, camera_column};
use crate::judge::{Bound, Criterion, Found, Judged, Limit, judge};

/// Limits; each takes a number, or `off`.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Criteria (a number, or `off`)")]
pub struct LimitArguments {
    /// Ends and restarts of the daemon during the bench [default: 0]
    #[arg(long, value_name = "N")]
    pub max_crashes: Option<Limit>,
    /// Pictures per second through the model, mean of the slowest camera to a tenth; received ones without detection
    /// [default: 5]
    #[arg(long, value_name = "FPS")]
    pub min_fps: Option<Limit>,
    /// The same of the fastest camera [default: off]
    #[arg(long, value_name = "FPS")]
    pub max_fps: Option<Limit>,
    /// 95th percentile of one call of the model, in the worst set of figures [default: 100]
    #[arg(long, value_name = "MS")]
    pub max_inference_p95_ms: Option<Limit>,
    /// 95th percentile from a picture's time to MQTT, the worst that a camera reported [default: off]
    #[arg(long, value_name = "MS")]
    pub max_latency_p95_ms: Option<Limit>,
    /// Largest resident memory of the daemon [default: 1024]
    #[arg(long, value_name = "MIB")]
    pub max_memory_mib: Option<Limit>,
    /// Mean processor load of the daemon in percent of one core [default: off]
    #[arg(long, value_name = "PERCENT")]
    pub max_cpu_percent: Option<Limit>,
    /// Failed calls of the model [default: 0]
    #[arg(long, value_name = "N")]
    pub max_errors: Option<Limit>,
    /// Fragments lost for KVS, of all cameras [default: 0]
    #[arg(long, value_name = "N")]
    pub max_lost_fragments: Option<Limit>,
}

const MIB: f64 = (1 << 20) as f64;

pub(crate) fn mib(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "bytes of memory are far below 2^53")]
    let bytes = bytes as f64;
    bytes / MIB
}

/// Judges a run by all criteria, in the order in which they are shown.
pub(crate) fn judge_all(limits: &LimitArguments, run: &Run) -> Vec<Judged> {
    use Bound::{AtLeast, AtMost};
    let (slowest, fastest) = fps(run);
    let list = [
        ("max-crashes", "", AtMost, limits.max_crashes, Limit::At(0.0), crashes(run)),
        ("min-fps", "fps", AtLeast, limits.min_fps, Limit::At(5.0), slowest),
        ("max-fps", "fps", AtMost, limits.max_fps, Limit::Off, fastest),
        ("max-inference-p95-ms", "ms", AtMost, limits.max_inference_p95_ms, Limit::At(100.0), inference(run)),
        ("max-latency-p95-ms", "ms", AtMost, limits.max_latency_p95_ms, Limit::Off, latency(run)),
        ("max-memory-mib", "MiB", AtMost, limits.max_memory_mib, Limit::At(1024.0), memory(run)),
        ("max-cpu-percent", "%", AtMost, limits.max_cpu_percent, Limit::Off, cpu(run)),
        ("max-errors", "", AtMost, limits.max_errors, Limit::At(0.0), errors(run)),
        ("max-lost-fragments", "", AtMost, limits.max_lost_fragments, Limit::At(0.0), lost_fragments(run)),
    ];
    list.into_iter()
        .map(|(name, unit, bound, asked, default, found)| {
            judge(&Criterion { name, unit, bound, asked, default }, found)
        })
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "a count")]
fn count(value: u64, what: &str) -> Found {
    Found::Value(value as f64, what.to_owned())
}

fn nothing(what: &str, why: &str) -> Found {
    Found::Nothing(what.to_owned(), why.to_owned())
}

const NO_DETECTION: &str = "detection is off in this configuration";

fn crashes(run: &Run) -> Found {
    count(run.crashes.len() as u64, "ends and restarts of the daemon")
}

/// Of the slowest and of the fastest camera.
fn fps(run: &Run) -> (Found, Found) {
    let wanted = run.figures.detector.wanted;
    let (column, what) = if wanted {
        (camera_column::FPS_INFERRED, "pictures through the model")
    } else {
        (camera_column::FPS_IN, "pictures received (no detection)")
    };
    let cameras = run.figures.cameras.iter().filter(|camera| camera.detect.is_some() || !wanted);
    let mut means: Vec<(f64, &CameraFigures)> = Vec::new();
    for camera in cameras {
        let Some(summary) = camera.series.summary(column) else {
            let why = format!("no figures of {} came: {}", camera.id, hint(run, run.health_s));
            return (Found::Nothing(what.into(), why.clone()), Found::Nothing(what.into(), why));
        };
        means.push((summary.mean, camera));
    }
    let by_mean = |a: &&(f64, _), b: &&(f64, _)| f64::total_cmp(&a.0, &b.0);
    let found = |end: &str, of: Option<&(f64, &CameraFigures)>| match of {
        None => nothing(what, "no camera is enabled"),
        Some((mean, camera)) => {
            let gate = matches!(camera.detect, Some((_, true)));
            let note = if gate { ", fewer while nothing moves" } else { "" };
            let set = camera.detect.map_or(String::new(), |(fps, _)| format!(", set to {fps}{note}"));
            // A window holds whole pictures: finer than a tenth, a camera at its set rate is above or below it by chance.
            Found::Value((mean * 10.0).round() / 10.0, format!("{what}, {end} camera ({}{set})", camera.id))
        }
    };
    (found("slowest", means.iter().min_by(by_mean)), found("fastest", means.iter().max_by(by_mean)))
}

/// Why figures that come each `every_s` did not.
fn hint(run: &Run, every_s: u64) -> String {
    if run.measured_s < 2.0 * every_s as f64 {
        return format!("they come every {every_s} s, so measure for {} s at least", 2 * every_s);
    }
    let state = run.figures.detector.newest.as_ref();
    let problem = state.and_then(|newest| Some((newest.reason?, newest.detail.clone().unwrap_or_default())));
    match problem {
        Some((reason, detail)) => format!("the detector says {reason:?}: {detail}"),
        None => "does the daemon run with this file, and does it reach the broker?".to_owned(),
    }
}

fn inference(run: &Run) -> Found {
    let what = "inference p95, worst set of figures";
    match run.figures.detector.worst_p95_ms() {
        Some(p95) => Found::Value(p95, what.to_owned()),
        None if !run.figures.detector.wanted => nothing(what, NO_DETECTION),
        None => Found::Nothing(
            what.to_owned(),
            format!("no figures of the detector came: {}", hint(run, run.figures_s)),
        ),
    }
}

fn latency(run: &Run) -> Found {
    let what = "picture to MQTT p95";
    if !run.figures.detector.wanted {
        return nothing(what, NO_DETECTION);
    }
    let worst = (run.figures.cameras.iter())
        .filter_map(|camera| Some((camera.series.summary(camera_column::LATENCY_P95)?.max, &camera.id)))
        .max_by(|a, b| f64::total_cmp(&a.0, &b.0));
    match worst {
        Some((p95, camera)) => Found::Value(p95, format!("{what}, worst of {camera}")),
        None => {
            Found::Nothing(what.to_owned(), format!("no camera reported one: {}", hint(run, run.health_s)))
        }
    }
}

fn memory(run: &Run) -> Found {
    let what = "largest resident memory";
    match run.process.summary(crate::RSS) {
        Some(summary) => Found::Value(summary.max, what.to_owned()),
        None => nothing(what, "/proc/PID/status could not be read"),
    }
}

fn cpu(run: &Run) -> Found {
    let what = "mean CPU, of one core";
    match run.process.summary(crate::CPU) {
        Some(summary) => Found::Value(summary.mean, what.to_owned()),
        None => nothing(what, "it needs two samples"),
    }
}

fn errors(run: &Run) -> Found {
    let what = "failed calls of the model";
    match run.figures.detector.errors() {
        Some(errors) => count(errors, what),
        None if !run.figures.detector.wanted => nothing(what, NO_DETECTION),
        None => Found::Nothing(
            what.to_owned(),
            format!("no figures of the detector came: {}", hint(run, run.figures_s)),
        ),
    }
}

fn lost_fragments(run: &Run) -> Found {
    let what = "fragments lost for KVS";
    let mut sum = 0;
    for camera in &run.figures.cameras {
        match camera.fragments_lost() {
            Some(lost) => sum += lost,
            None => {
                let why = format!("the upload of {} was not heard of; measure longer", camera.id);
                return Found::Nothing(what.to_owned(), why);
            }
        }
    }
    count(sum, what)
}
