//! `[detect]` and `[camera.detect]`: first what a table says, then what follows from both tables together.

use std::collections::BTreeMap;
use std::time::Duration;

use vision::group;
use vision::rules::{LabelRule, Severity};

use super::shapes;
use super::values::{ID, file, ms, name_like, own_folder, seconds};
use crate::document::{At, Report, Section, brief};
use crate::{CameraDetect, Detect, DetectBackend, Model, models};

/// What a table says, with everything that it inherits.
#[derive(Clone)]
pub(super) struct Table {
    enabled: bool,
    /// Rules by label and `lost_after_ms` are not in here.
    detect: CameraDetect,
    lost_after_ms: Option<u64>,
    by_label: BTreeMap<String, LabelTable>,
}

/// What the tables of one label say; the rest is as for other labels.
#[derive(Clone, Default)]
struct LabelTable {
    /// Where the newest of these tables stands.
    at: usize,
    min_score: Option<f32>,
    min_area: Option<f32>,
    max_area: Option<f32>,
    severity: Option<Severity>,
}

impl Default for Table {
    fn default() -> Table {
        let (detect, by_label) = (CameraDetect::default(), BTreeMap::new());
        Table { enabled: true, detect, lost_after_ms: None, by_label }
    }
}

/// `[detect]`, and what the cameras inherit from it. Without the table that is what an installed model does, or nothing;
/// then with what would have to be installed.
pub(super) fn for_all(
    report: &mut Report,
    section: Section,
) -> (Option<Detect>, Option<Table>, Option<String>) {
    let folders = &report.environment.models;
    if !section.is_present() && models::installed(folders).is_none() {
        return (None, None, Some(format!("detection is off: {}", models::how_to_install(folders))));
    }
    let (detect, table) = present(report, section);
    (Some(detect), Some(table), None)
}

fn present(report: &mut Report, mut section: Section) -> (Detect, Table) {
    let default = Detect::default();
    let model = model(report, &mut section);
    let backends =
        [("auto", DetectBackend::Auto), ("rten", DetectBackend::Rten), ("ort", DetectBackend::Ort)];
    let backend = section.choice(report, "backend", &backends).unwrap_or_default();
    let onnxruntime_file = file(report, &mut section, "onnxruntime_file", "a readable libonnxruntime.so");
    if backend == DetectBackend::Rten && section.has("onnxruntime_file") {
        let at = section.at_key("backend").unwrap_or(section.at);
        let fix = "remove onnxruntime_file, or write backend = \"auto\" or \"ort\"";
        report.mistake(at, &section.path("backend"), "\"rten\" beside onnxruntime_file", "one of both", fix);
    }
    let threads = section.integer(report, "threads", 1..=64, default.threads as u64);
    let decoder = section.string(report, "decoder").filter(|decoder| decoder.value != "auto");
    let decoder = decoder.and_then(|name| name_like(report, &section, "decoder", name, 64, ID));
    let budget_ms = ms(default.latency_budget);
    let core_share = section.integer(report, "core_share", 1..=800, default.core_share_percent.into());
    let events_folder = own_folder(report, &mut section, "events_folder");
    if section.has("events_keep") && !section.has("events_folder") {
        let fix = "give events_folder too, or remove events_keep";
        section.missing(report, "events_folder", "a folder beside events_keep", fix);
    }
    let events_keep = section.integer(report, "events_keep", 1..=1_000_000, default.events_keep as u64);
    let detect = Detect {
        model,
        backend,
        onnxruntime_file,
        threads: usize::try_from(threads).unwrap_or(default.threads),
        decoder,
        latency_budget: Duration::from_millis(section.integer(
            report,
            "latency_budget_ms",
            50..=60_000,
            budget_ms,
        )),
        core_share_percent: u32::try_from(core_share).unwrap_or(default.core_share_percent),
        events_folder,
        events_keep: usize::try_from(events_keep).unwrap_or(default.events_keep),
        figures_every: seconds(report, &mut section, "figures_every_s", 1..=86_400, default.figures_every),
        camera: default.camera,
    };
    let mut inherited = Table::default();
    if matches!(detect.model, Model::NanoDet { .. }) {
        inherited.detect.rules.labels = models::LABELS.map(str::to_owned).to_vec();
    }
    let table = read_table(report, &mut section, &inherited);
    for conflict in conflicts(&table) {
        conflict.report(report, &section);
    }
    if let Model::NanoDet { folders } = &detect.model
        && table.enabled
        && models::installed(folders).is_none()
    {
        let at = section.at_key("model").unwrap_or(section.at);
        let (found, expected) = ("nothing to detect with", "an installed model, or another one");
        report.warning(at, &section.path("model"), found, expected, models::how_to_install(folders));
    }
    section.finish(report);
    (Detect { camera: settled(&table), ..detect }, table)
}

/// The keys that say with what things are found.
fn model(report: &mut Report, section: &mut Section) -> Model {
    #[derive(Clone, Copy, PartialEq)]
    enum Name {
        NanoDet,
        Scene,
    }
    let model_file = file(report, section, "model_file", "a readable ONNX file");
    let labels_file = file(report, section, "labels_file", "a readable file with a label in each line");
    if section.has("labels_file") && !section.has("model_file") {
        let fix = "give model_file too, or remove labels_file: the other models have their labels";
        section.missing(report, "model_file", "the model that these labels are for", fix);
    }
    let name = section.choice(report, "model", &[("nanodet", Name::NanoDet), ("scene", Name::Scene)]);
    if let Some(at) = section.at_key("model").filter(|_| section.has("model_file")) {
        let fix = "remove model, or model_file and labels_file";
        report.mistake(at, &section.path("model"), "model beside model_file", "one of both", fix);
    }
    let folder = section.string(report, "models_folder");
    if let Some(folder) = folder.as_ref().filter(|_| section.has("model_file") || name == Some(Name::Scene)) {
        let fix = "remove models_folder: it is where NanoDet-g is looked for";
        let found = "models_folder beside another model than \"nanodet\"";
        report.mistake(folder.at, &section.path("models_folder"), found, "one of both", fix);
    }
    if name == Some(Name::Scene) {
        let fix = "write model = \"nanodet\", or give model_file";
        let (at, path) = (section.at_key("model").unwrap_or(section.at), section.path("model"));
        let found = "\"scene\", which knows the drawn figures of the demo, no real people or vehicles";
        report.warning(at, &path, found, "a model for what the cameras see", fix);
        return Model::Scene;
    }
    if let Some(model) = model_file {
        return Model::File { model, labels: labels_file };
    }
    let environment = report.environment;
    let folders = folder.map(|folder| vec![environment.folder.join(folder.value)]);
    Model::NanoDet { folders: folders.unwrap_or_else(|| environment.models.clone()) }
}

/// `[camera.detect]`, present or not. `base` is absent when nothing is to be detected.
pub(super) fn for_camera(
    report: &mut Report,
    mut section: Section,
    base: Option<&Table>,
) -> Option<CameraDetect> {
    if base.is_none() && section.is_present() {
        let fix = "add the table [detect], which may be empty, above the first [[camera]], or install a model: `cargo xtask model`";
        report.warning(section.at, section.name(), "this table without [detect]", "both, or neither", fix);
    }
    let inherited = base.cloned().unwrap_or_default();
    let table = read_table(report, &mut section, &inherited);
    let known = conflicts(&inherited);
    for conflict in conflicts(&table).into_iter().filter(|conflict| !known.contains(conflict)) {
        conflict.report(report, &section);
    }
    let mut detect = settled(&table);
    detect.rules.zones = shapes::zones(report, &mut section, &detect.rules);
    detect.rules.lines = shapes::lines(report, &mut section, &detect.rules);
    section.finish(report);
    (base.is_some() && table.enabled).then_some(detect)
}

/// The keys that `[detect]` and `[camera.detect]` share.
fn read_table(report: &mut Report, section: &mut Section, base: &Table) -> Table {
    let CameraDetect { fps, key_frames_only, iou, snapshots, motion, motion_gate, rules } = &base.detect;
    let mut detect = CameraDetect {
        fps: section.number(report, "fps", 0.1..=30.0, *fps).map_or(*fps, |fps| fps.value),
        key_frames_only: section.boolean(report, "key_frames_only", *key_frames_only),
        iou: part(report, section, "iou", *iou).unwrap_or(*iou),
        snapshots: section.boolean(report, "snapshots", *snapshots),
        motion: section.boolean(report, "motion", *motion),
        motion_gate: section.boolean(report, "motion_gate", *motion_gate),
        rules: rules.clone(),
    };
    let rules = &mut detect.rules;
    if let Some(labels) = labels(report, section) {
        rules.labels = labels;
    }
    let own = read_label_table(report, section, &rules.label);
    rules.label = own.over(&rules.label);
    let confirm = section.integer(report, "confirm_frames", 1..=100, rules.confirm_frames.into());
    rules.confirm_frames = u32::try_from(confirm).unwrap_or(rules.confirm_frames);
    let inherited_ms = base.lost_after_ms.unwrap_or_else(|| lost_after_ms(&detect));
    let lost = section.integer_if(report, "lost_after_ms", 100..=600_000, inherited_ms).map(|ms| ms.value);
    let rules = &mut detect.rules;
    rules.stationary_after_ms =
        seconds_ms(report, section, "stationary_after_s", 1.0..=86_400.0, rules.stationary_after_ms);
    rules.update_every_ms = section.integer(report, "update_every_ms", 100..=600_000, rules.update_every_ms);
    let mut by_label = base.by_label.clone();
    for (name, mut section) in section.section(report, "label").named(report) {
        let name = label(report, section.name(), name);
        let mut own = read_label_table(report, &mut section, &rules.label);
        own.at = section.at;
        if let Some(name) = &name
            && !rules.labels.is_empty()
            && !rules.labels.iter().any(|wanted| group::covers(wanted, name) || group::covers(name, wanted))
        {
            let fix = "add it to labels, or remove the table";
            report.warning(section.at, section.name(), "a label that is not in labels", "one of those", fix);
        }
        section.finish(report);
        if let Some(name) = name {
            by_label.entry(name).or_default().take(own);
        }
    }
    let enabled = section.boolean(report, "enabled", base.enabled);
    Table { enabled, detect, lost_after_ms: lost.or(base.lost_after_ms), by_label }
}

fn read_label_table(report: &mut Report, section: &mut Section, base: &LabelRule) -> LabelTable {
    LabelTable {
        at: section.at,
        min_score: part(report, section, "min_score", base.min_score),
        min_area: part(report, section, "min_area", base.min_area),
        max_area: part(report, section, "max_area", base.max_area),
        severity: severity(report, section),
    }
}

impl LabelTable {
    fn take(&mut self, newer: LabelTable) {
        *self = LabelTable {
            at: newer.at,
            min_score: newer.min_score.or(self.min_score),
            min_area: newer.min_area.or(self.min_area),
            max_area: newer.max_area.or(self.max_area),
            severity: newer.severity.or(self.severity),
        }
    }

    fn over(&self, base: &LabelRule) -> LabelRule {
        LabelRule {
            min_score: self.min_score.unwrap_or(base.min_score),
            min_area: self.min_area.unwrap_or(base.min_area),
            max_area: self.max_area.unwrap_or(base.max_area),
            severity: self.severity.unwrap_or(base.severity),
        }
    }
}

fn settled(table: &Table) -> CameraDetect {
    let mut detect = table.detect.clone();
    detect.rules.lost_after_ms = table.lost_after_ms.unwrap_or_else(|| lost_after_ms(&detect));
    // What is said of a group is said of its labels, unless they say otherwise.
    let rule = |(name, own): (&String, &LabelTable)| {
        let group = group::group_of(name).and_then(|group| table.by_label.get(group));
        let base = group.map_or(detect.rules.label.clone(), |group| group.over(&detect.rules.label));
        (name.clone(), own.over(&base))
    };
    detect.rules.by_label = table.by_label.iter().map(rule).collect();
    detect
}

/// Longest time from one picture to the next while nothing is wrong; `None`: the camera's GOP.
fn interval_ms(detect: &CameraDetect) -> Option<u64> {
    // The gate lets one picture per second pass.
    let fps = if detect.motion_gate { detect.fps.min(1.0) } else { detect.fps };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "fps is at least 0.1")]
    (!detect.key_frames_only).then_some((1000.0 / fps).ceil() as u64)
}

/// Where nothing is said: five seconds, but three pictures at least.
fn lost_after_ms(detect: &CameraDetect) -> u64 {
    /// Two GOPs of nearly every camera.
    const KEY_FRAMES_MS: u64 = 10_000;
    let least = vision::rules::Rules::default().lost_after_ms;
    interval_ms(detect).map_or(KEY_FRAMES_MS, |interval| least.max(3 * interval))
}

/// Values that are good alone, not together.
#[derive(PartialEq)]
struct Conflict {
    key: &'static str,
    /// A label and where its table stands, where it is about one.
    label: Option<(String, usize)>,
    found: String,
    expected: String,
    fix: String,
}

impl Conflict {
    fn report(self, report: &mut Report, section: &Section) {
        let (path, at) = match &self.label {
            Some((name, at)) => (format!("{}.label.{}.{}", section.name(), brief(name), self.key), Some(*at)),
            None => (section.path(self.key), section.at_key(self.key)),
        };
        report.mistake(at.unwrap_or(section.at), &path, self.found, self.expected, self.fix);
    }
}

fn conflicts(table: &Table) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    let detect = settled(table);
    let areas = |rule: &LabelRule, label: Option<(String, usize)>| {
        let LabelRule { min_area, max_area, .. } = *rule;
        (min_area > max_area).then(|| Conflict {
            key: "max_area",
            label,
            found: format!("{max_area}, below min_area = {min_area}"),
            expected: "at least min_area".into(),
            fix: "nothing could be between them: raise max_area or lower min_area".into(),
        })
    };
    let general = areas(&detect.rules.label, None);
    if general.is_none() {
        let of_label = |(name, own): (&String, &LabelTable)| {
            areas(detect.rules.by_label.get(name)?, Some((name.clone(), own.at)))
        };
        conflicts.extend(table.by_label.iter().filter_map(of_label));
    }
    conflicts.extend(general);
    if let (Some(lost_ms), Some(interval)) = (table.lost_after_ms, interval_ms(&detect))
        && lost_ms < interval
    {
        conflicts.push(Conflict {
            key: "lost_after_ms",
            label: None,
            found: format!("{lost_ms}, less than the {interval} ms from one picture to the next"),
            expected: "time for several pictures".into(),
            fix: format!("write lost_after_ms = {}, or raise fps", lost_after_ms(&detect)),
        });
    }
    conflicts
}

/// The key `labels`. `None`: absent or wrong.
pub(super) fn labels(report: &mut Report, section: &mut Section) -> Option<Vec<String>> {
    let path = section.path("labels");
    let mut names: Vec<String> = Vec::new();
    let mut good = true;
    for (i, name) in section.strings(report, "labels")?.into_iter().enumerate() {
        let at = name.at;
        let Some(name) = label(report, &format!("{path}[{i}]"), name) else {
            good = false;
            continue;
        };
        if names.contains(&name) {
            let found = format!("{:?} again", brief(&name));
            report.mistake(at, &path, found, "each label once", "remove one of them");
        } else {
            names.push(name);
        }
    }
    good.then_some(names)
}

/// A label as models have them; whether this one has it is known once it is loaded.
fn label(report: &mut Report, path: &str, name: At<String>) -> Option<String> {
    if (1..=64).contains(&name.value.len()) && !name.value.chars().any(char::is_control) {
        return Some(name.value);
    }
    let found = format!("{:?}", brief(&name.value));
    let fix = "copy it from the model's list of labels, which `kvs-edge` logs when it loads the model";
    report.mistake(name.at, path, found, "a label of 1 to 64 bytes", fix);
    None
}

pub(super) fn severity(report: &mut Report, section: &mut Section) -> Option<Severity> {
    let severities = [("detection", Severity::Detection), ("alert", Severity::Alert)];
    section.choice(report, "severity", &severities)
}

/// A part of one. `None`: absent or wrong.
#[expect(clippy::cast_possible_truncation, reason = "f32 is finer than anything seen in a picture")]
fn part(report: &mut Report, section: &mut Section, key: &'static str, default: f32) -> Option<f32> {
    // By its digits, so that a default of 0.1 is not told as 0.10000000149.
    let told = default.to_string().parse().unwrap_or(f64::from(default));
    section.number(report, key, 0.0..=1.0, told).map(|number| number.value as f32)
}

/// Seconds with a fraction, as milliseconds.
pub(super) fn seconds_ms(
    report: &mut Report,
    section: &mut Section,
    key: &'static str,
    range: std::ops::RangeInclusive<f64>,
    default_ms: u64,
) -> u64 {
    let default = Duration::from_millis(default_ms);
    let given = section.number(report, key, range, default.as_secs_f64());
    given.map_or(default_ms, |seconds| ms(Duration::from_secs_f64(seconds.value)))
}
