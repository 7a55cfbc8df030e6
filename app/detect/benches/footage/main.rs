//! How well people of a real clip are found and followed: `cargo bench -p detect --bench footage [-- --help]`.
//!
//! The clip is `vtest.avi` of Debian's package `opencv-doc` (79.5 s of a street corner, 10 pictures a second), the model
//! NanoDet-g as `cargo xtask model` installs it. Everything is what the daemon does to a picture, without the daemon:
//! letterbox, model, suppression, tracker, events, each with its defaults.
//!
//! * Ten pictures were labelled by hand (`app/vision/tests/footage`): persons found by boxes and by tracks, false ones.
//! * Events of persons, against the passes that a person counts.
//! * Where the whole clip's ground truth is given, MOTA and more by py-motmetrics, with ByteTrack beside us on the same
//!   boxes: `--truth gt.txt`, the one of sequence PETS09-S2L1 of MOTChallenge 2015, which is this clip. Its licence
//!   (CC BY-NC-SA 3.0) does not let us pass it on.
//! * `--sequence FOLDER`: any other sequence of MOTChallenge, by the boxes in its `det/det.txt`, places alone.
//!
//! Where the clip or the model is missing this says so and is skipped.

mod clip;
mod people;
mod sequence;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clock::Clock;
use detect::{BackendChoice, Detector, LabelSource, LoadOptions, ModelSource, Settings};
use media::ProducerTimestamp;
use vision::event::{ChangeKind, Events};
use vision::rules::Rules;
use vision::track::{Track, Tracker};
use vision::{Detection, Picture, Rect};

use clip::Clip;
use people::{Counted, LABELLED, PASSES};
use sequence::Sequence;

type Error = Box<dyn std::error::Error>;

const CLIP: &str = "/usr/share/doc/opencv-doc/examples/data/vtest.avi";
const LABELLED_CLIP: &str = "vtest";
const MODEL: &str = "nanodet-416x416.onnx";
/// Has motmetrics 1.4 and trackers 2.6.
const PYTHON: &str = "KVS_EDGE_BENCH_PYTHON";
/// What a camera of a street looks at. A box takes the best of all labels of the model, these or not.
const LABELS: [&str; 8] = ["person", "bicycle", "car", "motorcycle", "bus", "truck", "dog", "cat"];
/// `[detect] iou`, unless it is set.
const NMS_IOU: f32 = 0.5;

const USAGE: &str = "\
cargo bench -p detect --bench footage [-- ARGUMENTS]
  --model FILE       nanodet-416x416.onnx, if it is not where `cargo xtask model` installs it
  --clip FILE        vtest.avi, if it is not where Debian installs it; or another clip, with its --truth
  --truth FILE       gt.txt of MOTChallenge's PETS09-S2L1 (or of the other clip): judges the whole clip
  --every N          only every Nth picture
  --sequence FOLDER  a sequence of MOTChallenge by its own boxes; may be given more than once
  --keep FOLDER      keeps boxes, tracks and truth as MOTChallenge text
  --record FILE      writes boxes from a score of 0.2 on of every other picture, as app/vision/tests/footage has them";

#[derive(Default)]
struct Arguments {
    model: Option<PathBuf>,
    clip: Option<PathBuf>,
    truth: Option<PathBuf>,
    every: u64,
    sequences: Vec<PathBuf>,
    keep: Option<PathBuf>,
    record: Option<PathBuf>,
    bench: bool,
}

impl Arguments {
    fn parse() -> Result<Option<Arguments>, Error> {
        let mut found = Arguments { every: 1, ..Arguments::default() };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} without a value\n\n{USAGE}"));
            match word.as_str() {
                "--bench" => found.bench = true,
                "--help" | "-h" => return Ok(None),
                "--model" => found.model = Some(value()?.into()),
                "--clip" => found.clip = Some(value()?.into()),
                "--truth" => found.truth = Some(value()?.into()),
                "--every" => found.every = value()?.parse::<u64>()?.max(1),
                "--sequence" => found.sequences.push(value()?.into()),
                "--keep" => found.keep = Some(value()?.into()),
                "--record" => found.record = Some(value()?.into()),
                other => return Err(format!("found `{other}`\n\n{USAGE}").into()),
            }
        }
        Ok(Some(found))
    }
}

#[expect(clippy::print_stdout, reason = "the tables are what this is for")]
fn main() -> Result<(), Error> {
    let Some(arguments) = Arguments::parse()? else {
        println!("{USAGE}");
        return Ok(());
    };
    if !arguments.bench {
        println!("nothing is measured: this takes a minute, run it with cargo bench");
        return Ok(());
    }
    let scratch = tempfile::tempdir()?;
    let folder = arguments.keep.as_deref().unwrap_or(scratch.path());
    fs::create_dir_all(folder)?;
    let mut judged = Vec::new();
    for source in &arguments.sequences {
        let sequence = Sequence::read(source)?;
        judged.push(sequence.follow(arguments.every, folder)?);
    }
    if arguments.sequences.is_empty() {
        let clip = arguments.clip.clone().unwrap_or_else(|| CLIP.into());
        let model = arguments.model.clone().or_else(installed);
        match model {
            _ if !clip.exists() => {
                println!("skipped: {} is missing; apt-get install opencv-doc", clip.display());
            }
            None => println!("skipped: {MODEL} is missing; run cargo xtask model"),
            Some(model) => {
                let name = clip.file_stem().ok_or("a clip without a name")?.to_string_lossy().into_owned();
                let whole = watch(&arguments, &clip, &name, &model, folder)?;
                if let Some(truth) = &arguments.truth {
                    fs::copy(truth, folder.join(format!("{name}.truth.txt")))?;
                    judged.push(whole);
                }
            }
        }
    }
    if judged.is_empty() {
        return Ok(());
    }
    let python = std::env::var_os(PYTHON)
        .ok_or_else(|| format!("{PYTHON} is not set: name a Python with motmetrics 1.4 and trackers 2.6"))?;
    let mut judge = Command::new(python);
    judge.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/footage/judge.py")).arg(folder);
    judge.args(judged);
    if judge.status()?.success() { Ok(()) } else { Err("judge.py failed".into()) }
}

/// Where `cargo xtask model` and the packages put it.
fn installed() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = variable("XDG_DATA_HOME").or_else(|| Some(variable("HOME")?.join(".local/share")));
    let folders = [
        variable("KVS_EDGE_MODELS"),
        data.map(|data| data.join("kvs-edge/models")),
        Some("/usr/share/kvs-edge/models".into()),
    ];
    folders.into_iter().flatten().map(|folder| folder.join(MODEL)).find(|file| file.is_file())
}

/// Runs the whole clip, prints what the labelled pictures and the events say, and writes `NAME.boxes.txt` and
/// `NAME.tracks.txt`. Returns what to tell `judge.py` of it.
#[expect(clippy::print_stdout, reason = "the tables are what this is for")]
fn watch(
    arguments: &Arguments,
    clip: &Path,
    name: &str,
    model: &Path,
    folder: &Path,
) -> Result<String, Error> {
    let options = LoadOptions { backend: BackendChoice::Auto, ..LoadOptions::default() };
    let loaded = detect::load(&ModelSource::File(model.to_owned()), &LabelSource::Model, &options)?;
    let labels = loaded.labels.clone();
    let person = labels.iter().position(|label| label == "person").ok_or("a model without `person`")?;
    let person = u16::try_from(person)?;
    let rules = Rules { labels: LABELS.map(str::to_owned).to_vec(), ..Rules::default() };
    let thresholds = rules.thresholds(&labels);
    let settings = Settings { thresholds, nms_iou: NMS_IOU, ..Settings::new(labels.len(), 0.0) };
    let mut detector = Detector::new(loaded.backend, loaded.head, settings, Clock::system());
    let mut tracker = Tracker::new(rules.tracker(&labels));
    let mut events = Events::new(rules.clone(), &labels)?;
    let people = if name == LABELLED_CLIP { people::read()? } else { BTreeMap::new() };

    let mut clip = Clip::open(clip)?;
    let clip_fps = clip.fps;
    let fps = clip_fps / arguments.every as f64;
    let (mut boxes, mut tracks, mut record) = (String::new(), String::new(), String::new());
    let (mut by_boxes, mut by_tracks) = (Counted::default(), Counted::default());
    let (mut number, mut pictures, mut size) = (0_u64, 0, (0, 0));
    let mut told: BTreeSet<u64> = BTreeSet::new();
    let mut of_persons = 0;
    let mut found = [Vec::new()];
    while let Some(picture) = clip.next()? {
        number += 1;
        if !number.is_multiple_of(arguments.every) {
            continue;
        }
        pictures += 1;
        size = (picture.width, picture.height);
        let at = at(number, clip_fps);
        detector.detect(&[picture], &mut found)?;
        let detections = &found[0];
        let seen = followed(&mut tracker, at, detections, Some(&picture));
        let outcome = events.update(at, tracker.tracks());
        for change in outcome.changes.iter().filter(|change| change.kind == ChangeKind::New) {
            told.insert(change.event.track);
            of_persons += usize::from(change.event.class == person);
        }

        let persons: Vec<(f32, Rect)> = detections
            .iter()
            .filter(|found| found.class == person)
            .map(|found| (found.score, found.rect))
            .collect();
        for (score, rect) in &persons {
            boxes += &sequence::row(number, -1, rect, size, *score);
            if number.is_multiple_of(2) && *score >= people::RECORDED {
                record += &people::record(number, rect, size, *score);
            }
        }
        let seen: Vec<Track> = seen.into_iter().filter(|track| track.class == person).collect();
        for track in &seen {
            tracks += &sequence::row(number, i64::try_from(track.id)?, &track.rect, size, 1.0);
        }
        if let Some(people) = people.get(&number) {
            let strong: Vec<Rect> =
                persons.iter().filter(|(score, _)| *score >= 0.5).map(|(_, rect)| *rect).collect();
            by_boxes.add(people, &strong, size);
            by_tracks.add(people, &seen.iter().map(|track| track.rect).collect::<Vec<_>>(), size);
        }
    }
    fs::write(folder.join(format!("{name}.boxes.txt")), boxes)?;
    fs::write(folder.join(format!("{name}.tracks.txt")), tracks)?;
    if let Some(file) = &arguments.record {
        fs::write(file, record)?;
    }

    println!("{pictures} pictures at {fps:.1} per second, {} on {}\n", MODEL, detector.backend());
    println!("{} events, {of_persons} of them of persons", told.len());
    if name == LABELLED_CLIP {
        println!("a person counts {PASSES} passes of persons, and 2 parked vehicles\n");
        println!("{LABELLED} labelled pictures | persons | found | of these | false | per picture");
        println!("---|---:|---:|---:|---:|---:");
        println!("boxes from 0.5 on | {}\ntracks | {}\n", by_boxes.row(), by_tracks.row());
    }
    Ok(sequence::judged(name, fps, size))
}

/// The time of a picture, counted from 1.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "milliseconds of minutes")]
fn at(number: u64, fps: f64) -> ProducerTimestamp {
    ProducerTimestamp::from_millis(1_000_000 + (number as f64 * 1_000.0 / fps) as u64)
}

/// What is told of one picture: confirmed tracks that are seen in it.
fn followed(
    tracker: &mut Tracker,
    at: ProducerTimestamp,
    detections: &[Detection],
    picture: Option<&Picture<'_>>,
) -> Vec<Track> {
    let tracks = tracker.update(at, detections, picture);
    tracks.iter().filter(|track| track.confirmed && track.seen_now).copied().collect()
}
