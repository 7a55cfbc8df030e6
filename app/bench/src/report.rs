//! The report of a run: as JSON, and as a table for the terminal.

use std::fmt::Write as _;

use clock::Clock;
use serde::Serialize;
use serde_json::{Value, json};

use crate::Run;
use crate::judge::{Bound, Judged, Verdict};
use messages::{UtcTime, Version};

/// Where the bench ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Machine {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) processor: Option<String>,
    pub(crate) cores: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_total_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) os: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kernel: Option<String>,
}

impl Machine {
    pub(crate) fn this(clock: &Clock) -> Machine {
        let identity = host::identity(clock);
        let trimmed = |path: &str| host::read(path).map(|text| text.trim().to_owned());
        Machine {
            model: identity.model,
            processor: host::read("/proc/cpuinfo").and_then(|text| processor(&text)),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_total_bytes: host::read("/proc/meminfo").and_then(|text| host::kib(&text, "MemTotal")),
            os: identity.os,
            kernel: trimmed("/proc/sys/kernel/osrelease"),
        }
    }

    fn words(&self) -> String {
        let mut words: Vec<String> = self.processor.iter().chain(&self.model).cloned().collect();
        words.push(format!("{} cores", self.cores));
        if let Some(bytes) = self.memory_total_bytes {
            words.push(format!("{:.1} GiB", crate::criteria::mib(bytes) / 1024.0));
        }
        words.extend(self.kernel.as_ref().map(|kernel| format!("Linux {kernel}")));
        words.join(", ")
    }
}

/// From /proc/cpuinfo: x86 says `model name`, some ARM kernels `Model` or `Hardware`, others nothing of use.
fn processor(cpuinfo: &str) -> Option<String> {
    ["model name", "Model", "Hardware"].iter().find_map(|wanted| {
        cpuinfo.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == *wanted).then(|| value.trim().to_owned()).filter(|value| !value.is_empty())
        })
    })
}

/// `20261120T140322Z`, for names of files.
pub(crate) fn stamp(at: UtcTime) -> String {
    let text = at.to_string();
    let whole = text.split('.').next().unwrap_or_default();
    let mut stamp: String = whole.chars().filter(|c| !"-:".contains(*c)).collect();
    stamp.push('Z');
    stamp
}

/// Everything but the samples.
pub(crate) fn summary(run: &Run, machine: &Machine, judged: &[Judged]) -> Value {
    let process = |column| run.process.summary(column);
    let figures = &run.figures;
    json!({
        "v": Version::default(),
        "program": concat!("kvs-edge bench ", env!("CARGO_PKG_VERSION")),
        "started": run.begun,
        "ended": run.ended,
        "duration_s": messages::rounded(run.measured_s),
        "asked_s": run.asked_s,
        "ended_by": run.ended_by,
        "config": run.config.display().to_string(),
        "device": run.device,
        "machine": machine,
        "daemon": { "version": figures.version, "pid": run.pid, "crashes": run.crashes },
        "passed": passed(judged),
        "criteria": judged,
        "process": {
            "cpu_percent": process(crate::CPU),
            "rss_mib": process(crate::RSS),
            "machine_cpu_percent": process(crate::MACHINE),
        },
        "detector": figures.detector.summary(),
        "cameras": figures.cameras.iter().map(|camera| camera.summary()).collect::<Vec<_>>(),
        "checks": figures.checks().collect::<Vec<_>>(),
        "mqtt": {
            "messages": figures.messages,
            "interruptions": run.interruptions,
            "unreadable": figures.unreadable,
            "first_unreadable": figures.first_unreadable,
        },
    })
}

/// The samples as columns.
pub(crate) fn samples(run: &Run) -> Value {
    let cameras: serde_json::Map<String, Value> =
        run.figures.cameras.iter().map(|camera| (camera.id.clone(), json!(camera.series))).collect();
    json!({ "process": run.process, "detector": run.figures.detector.series, "cameras": cameras })
}

pub(crate) fn passed(judged: &[Judged]) -> bool {
    !judged.iter().any(Judged::fails)
}

fn number(value: f64, unit: &str) -> String {
    let digits = usize::from(!unit.is_empty());
    format!("{value:.digits$} {unit}").trim_end().to_owned()
}

/// For people: what was measured, the criteria as a table, the verdict. Ends without a line break.
pub(crate) fn table(run: &Run, machine: &Machine, judged: &[Judged]) -> String {
    let mut text = format!("  machine    {}\n", machine.words());
    let version = run.figures.version.as_deref().unwrap_or("of unknown version");
    let _ = writeln!(text, "  daemon     kvs-edge {version}, device {}, process {}", run.device, run.pid);
    if let Some(detector) = run.figures.detector.summary() {
        let model = if detector.models.is_empty() { "no model" } else { &detector.models.join(" and ") };
        let backend = detector.backend.as_deref().unwrap_or("no backend");
        let _ = write!(
            text,
            "  detector   {model} on {backend}: {} pictures, {} boxes",
            detector.frames, detector.detections
        );
        if let Some(inference) = detector.inference_ms {
            let (mean, min, max) = (inference.mean, inference.min, inference.max);
            let _ = write!(text, ", inference mean {mean:.1} min {min:.1} max {max:.1} ms");
        }
        text.push('\n');
    }
    for (name, column, unit) in [("CPU", crate::CPU, "% of one core"), ("memory", crate::RSS, "MiB")] {
        if let Some(found) = run.process.summary(column) {
            let (mean, p95, max) = (found.mean, found.p95, found.max);
            let _ = writeln!(text, "  {name:<10} mean {mean:.1}  p95 {p95:.1}  max {max:.1} {unit}");
        }
    }
    text.push('\n');
    text.push_str(&rows(judged));
    for crash in &run.crashes {
        let _ = writeln!(text, "{}", crash.words());
    }
    for judged in judged.iter().filter(|judged| judged.verdict == Verdict::NotMeasured) {
        let why = judged.note.as_deref().unwrap_or_default();
        let _ = writeln!(text, "not measured: --{}: {why}", judged.criterion);
    }
    if run.interruptions > 0 {
        let _ = writeln!(
            text,
            "the connection to the broker was lost {} times: figures are missing",
            run.interruptions
        );
    }
    if let Some(first) = &run.figures.first_unreadable {
        let _ = writeln!(text, "{} messages could not be read, the first: {first}", run.figures.unreadable);
    }
    for check in run.figures.checks() {
        let _ = writeln!(text, "{}", check.words());
    }
    text.push_str(&verdict(run, judged));
    text
}

fn rows(judged: &[Judged]) -> String {
    let width = judged.iter().map(|judged| judged.what.chars().count()).max().unwrap_or(0).max(9);
    let mut text = format!("{:<width$}  {:>14}  {:>12}  verdict\n", "criterion", "limit", "found");
    for judged in judged {
        let sign = if judged.bound == Bound::AtLeast { ">=" } else { "<=" };
        let limit = judged.limit.map_or("-".into(), |limit| format!("{sign} {limit} {}", judged.unit));
        let limit = limit.trim_end();
        let found = judged.found.map_or("-".into(), |found| number(found, judged.unit));
        let verdict = match judged.verdict {
            Verdict::Passed => "pass",
            Verdict::Failed => "FAIL",
            Verdict::NotMeasured if judged.asked => "FAIL: not measured",
            Verdict::NotMeasured => "not measured",
            Verdict::Off => "not judged",
        };
        let _ = writeln!(text, "{:<width$}  {limit:>14}  {found:>12}  {verdict}", judged.what);
    }
    text
}

fn verdict(run: &Run, judged: &[Judged]) -> String {
    let names = |wanted: &dyn Fn(&Judged) -> bool| {
        let names = judged.iter().filter(|judged| wanted(judged)).map(|judged| judged.criterion);
        names.collect::<Vec<_>>().join(", ")
    };
    let failed = names(&Judged::fails);
    let open = names(&|judged| judged.verdict == Verdict::NotMeasured && !judged.fails());
    let mut text = if failed.is_empty() {
        let count = judged.iter().filter(|judged| judged.verdict == Verdict::Passed).count();
        format!("PASSED: {count} criteria")
    } else {
        format!("FAILED: {failed}")
    };
    if !open.is_empty() {
        let _ = write!(text, "; not measured: {open}");
    }
    let short = match run.ended_by {
        crate::EndedBy::Time => return text,
        crate::EndedBy::Signal => "interrupted",
        crate::EndedBy::DaemonGone => "the daemon did not come back",
    };
    let _ = write!(text, " ({short} after {:.1} s of {} s)", run.measured_s, run.asked_s);
    text
}
