//! `kvs-edge analyze` on footage of the simulated scene, in this process; and once as a process that gets a signal.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Weak};
use std::time::Duration;

use analytics::offline::Offline;
use camera_sim::{Clip, ClipSpec};
use clock::Clock;
use config::{CameraDetect, DetectBackend, Model};
use decode::Frame;
use decode::file::{Step, VideoFile};
use kvs_edge::analyze::{self, Ended, FileReport, Options, Told, Wanted};
use media::ProducerTimestamp;
use messages::{Event, EventKind};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use vision::event::ChangeKind;

const FPS: u32 = 10;
const PICTURES: u32 = 120;

/// A folder with `scene.mp4`: 640x360, 10 pictures a second, 12 s.
struct Films(TempDir);

impl Films {
    fn new() -> Films {
        let spec =
            ClipSpec { width: 640, height: 360, bitrate_kbps: 1_000, loop_seconds: 12, ..ClipSpec::small() };
        let clip =
            Clip::load(&spec, &camera_sim::default_cache_dir()).expect("GStreamer's encoders are installed");
        let mut stream = Vec::new();
        for nal in clip.pictures().iter().flat_map(|picture| &picture.nal_units) {
            stream.extend([0, 0, 0, 1]);
            stream.extend_from_slice(nal);
        }
        let films = Films(tempfile::tempdir().expect("a folder"));
        fs::write(films.path("scene.h264"), stream).expect("written");
        films.ffmpeg("-r 10 -i scene.h264 -c copy scene.mp4");
        films
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs ffmpeg in the folder; words are split at spaces.
    #[track_caller]
    fn ffmpeg(&self, arguments: &str) -> PathBuf {
        let words: Vec<&str> = arguments.split_whitespace().collect();
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.current_dir(self.0.path()).args(["-v", "error", "-y"]).args(&words);
        let output = ffmpeg.output().expect("ffmpeg is installed");
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        self.path(words.last().expect("an output"))
    }

    fn options(&self) -> Options {
        let settings =
            config::Detect { model: Model::Scene, backend: DetectBackend::Rten, ..config::Detect::default() };
        let mut detect = CameraDetect { fps: f64::from(FPS), ..CameraDetect::default() };
        detect.rules.label.min_score = 0.35;
        Options {
            settings,
            detect,
            device: "box".into(),
            start: "2026-11-30T12:00:00Z".parse().expect("a time"),
            wanted: Wanted { folder: self.path("out"), ..Wanted::default() },
            clock: Clock::system(),
        }
    }
}

/// Everything that one run left.
struct Outcome {
    reports: Vec<FileReport>,
    lines: String,
    notes: Vec<String>,
}

impl Outcome {
    #[track_caller]
    fn events(&self) -> Vec<Event> {
        let event = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.lines.lines().map(event).collect()
    }
}

fn analyze(files: &[PathBuf], options: &Options) -> Outcome {
    analyze_until(files, options, u64::MAX)
}

/// Stopped once so many pictures have been looked at.
fn analyze_until(files: &[PathBuf], options: &Options, pictures: u64) -> Outcome {
    let cancel = CancellationToken::new();
    let (mut lines, mut notes) = (Vec::new(), Vec::new());
    let mut told = |told: Told<'_>| match told {
        Told::Note { text, .. } => notes.push(text.to_owned()),
        Told::Goes { looked_at, .. } if looked_at >= pictures => cancel.cancel(),
        _ => {}
    };
    let reports = analyze::run(files, options, &mut lines, &mut told, &cancel).expect("files can be written");
    Outcome { reports, lines: String::from_utf8(lines).expect("text"), notes }
}

/// Each event has one `new` at its begin and one `end` at its end; returns the ends.
#[track_caller]
fn lives(events: &[Event]) -> Vec<Event> {
    let mut by_id: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
    events.iter().for_each(|event| by_id.entry(&event.id).or_default().push(event));
    let end = |life: Vec<&Event>| {
        let kinds: Vec<_> = life.iter().map(|event| event.kind).collect();
        let middle = &kinds[1..kinds.len() - 1];
        let whole = kinds[0] == EventKind::New && kinds.last() == Some(&EventKind::End);
        assert!(whole && middle.iter().all(|kind| *kind == EventKind::Update), "{kinds:?}");
        (*life[life.len() - 1]).clone()
    };
    by_id.into_values().map(end).collect()
}

/// Rows of a file of MOTChallenge results: frame, id, box.
#[track_caller]
fn mot(path: &Path) -> Vec<(u32, u64, [f64; 4])> {
    let text = fs::read_to_string(path).expect("a file");
    assert!(text.ends_with('\n'), "whole lines");
    let row = |line: &str| {
        let columns: Vec<f64> = line.split(',').map(|word| word.parse().expect("a number")).collect();
        let [frame, id, x, y, w, h, score, rest @ ..] = &columns[..] else { panic!("{line}") };
        assert!(*score > 0.0 && *score <= 1.0 && rest == [-1.0; 3], "{line}");
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small whole numbers")]
        (*frame as u32, *id as u64, [*x, *y, *w, *h])
    };
    text.lines().map(row).collect()
}

/// Width, height and number of the pictures of a video that can be decoded.
#[track_caller]
fn played(path: &Path) -> (u32, u32, u64) {
    let mut ffprobe = Command::new("ffprobe");
    ffprobe.args(["-v", "error", "-count_frames", "-show_entries", "stream=width,height,nb_read_frames"]);
    let output = ffprobe.args(["-of", "csv=p=0"]).arg(path).output().expect("ffprobe is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    let words: Vec<&str> = text.trim().split(',').collect();
    let [width, height, count] = words[..] else {
        panic!("{}: {text} {}", path.display(), String::from_utf8_lossy(&output.stderr))
    };
    let side = |word: &str| word.parse().expect("a side");
    (side(width), side(height), count.parse().expect("a number"))
}

#[test]
fn events_tracks_video_and_sheet_of_a_file_agree_and_are_the_same_each_time() {
    let films = Films::new();
    let mut options = films.options();
    options.wanted = Wanted { mot: true, video: true, sheet: true, report: true, ..options.wanted.clone() };
    let first = analyze(&[films.path("scene.mp4")], &options);
    let [report] = &first.reports[..] else { panic!("one file") };
    assert_eq!((report.ended, report.error.as_deref()), (Ended::Whole, None));
    assert_eq!((report.decoded, report.looked_at), (PICTURES.into(), PICTURES.into()));

    let events = first.events();
    let ends = lives(&events);
    assert!(ends.len() >= 3, "people and vehicles walk through the scene: {report}");
    let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=events.len() as u64).collect::<Vec<_>>());
    let start_ms = options.start.as_millis();
    for event in &events {
        assert_eq!((&*event.device, &*event.camera, event.frame), ("box", "scene", [640, 360]));
        assert_eq!(event.clock, messages::ClockSource::File);
        assert!((start_ms..start_ms + 12_000).contains(&event.ts.as_millis()), "{:?}", event.ts);
    }
    assert_eq!(report.events, ends.len() as u64);
    assert_eq!(report.labels.iter().map(|label| label.events).sum::<u64>(), report.events);

    // Every event has a track, whose last row is the picture in which it was seen last.
    let rows = mot(&films.path("out/scene.mot.txt"));
    for end in &ends {
        let own: Vec<_> = rows.iter().filter(|(_, id, _)| *id == end.track).collect();
        let (frame, _, [x, y, w, h]) = own.last().expect("its rows");
        let seen_ms = start_ms + u64::from((frame - 1) * 1000 / FPS);
        assert_eq!(end.end.map(messages::UtcTime::as_millis), Some(seen_ms), "{end:?}");
        let found = [x / 640.0, y / 360.0, w / 640.0, h / 360.0];
        let close = found
            .iter()
            .zip(end.rect.0)
            .all(|(found, part)| (found.clamp(0.0, 1.0) - part.get()).abs() < 1e-3);
        assert!(close, "{found:?}, {:?}", end.rect);
    }
    let frames: BTreeSet<u32> = rows.iter().map(|(frame, ..)| *frame).collect();
    assert!(frames.iter().all(|frame| (1..=PICTURES).contains(frame)) && frames.len() > 60, "{frames:?}");

    assert_eq!(played(&films.path("out/scene.detections.mp4")), (640, 360, PICTURES.into()));
    let sheet = fs::read(films.path("out/scene.sheet.jpg")).expect("a sheet");
    assert_eq!((&sheet[..3], &sheet[sheet.len() - 2..]), (&[0xff, 0xd8, 0xff][..], &[0xff, 0xd9][..]));
    let json = fs::read(films.path("out/scene.report.json")).expect("a report");
    let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!((&json["ended"], &json["events"]), (&"whole".into(), &ends.len().into()));

    options.wanted = Wanted { folder: films.path("again"), video: false, ..options.wanted };
    let again = analyze(&[films.path("scene.mp4")], &options);
    assert_eq!(again.lines, first.lines);
    for name in ["scene.mot.txt", "scene.sheet.jpg"] {
        let [first, again] =
            ["out", "again"].map(|folder| fs::read(films.path(folder).join(name)).expect(name));
        assert!(first == again, "{name} differs");
    }
    // Half the pictures, by their times.
    options.detect.fps = 5.0;
    options.wanted.force = true;
    let half = analyze(&[films.path("scene.mp4")], &options);
    assert_eq!((half.reports[0].looked_at, half.reports[0].decoded), (60, PICTURES.into()));
    assert!(mot(&films.path("again/scene.mot.txt")).iter().all(|(frame, ..)| frame % 2 == 1));
}

#[test]
fn what_is_done_when_somebody_stops_is_complete() {
    let films = Films::new();
    let mut options = films.options();
    options.wanted = Wanted { mot: true, video: true, sheet: true, ..options.wanted.clone() };
    let files = [films.path("scene.mp4"), films.ffmpeg("-i scene.mp4 -c copy second.mp4")];
    let outcome = analyze_until(&files, &options, 50);
    let [report] = &outcome.reports[..] else { panic!("the second file is not begun") };
    assert_eq!((report.ended, report.looked_at, report.read_s < 12.0), (Ended::Interrupted, 50, true));
    let ends = lives(&outcome.events());
    assert!(!ends.is_empty() && report.events == ends.len() as u64, "{report}");
    assert!(report.to_string().contains("interrupted at 0:0"), "{report}");
    assert!(mot(&films.path("out/scene.mot.txt")).iter().all(|(frame, ..)| *frame <= 50));
    assert_eq!(played(&films.path("out/scene.detections.mp4")), (640, 360, 50));
    assert_eq!(report.outputs.len(), 3);
    assert!(!films.path("out/second.mot.txt").exists());
}

#[test]
fn a_file_that_cannot_be_read_says_why_and_the_next_one_is_looked_at() {
    let films = Films::new();
    let mut options = films.options();
    options.wanted = Wanted { mot: true, video: true, ..options.wanted.clone() };
    films.ffmpeg("-i scene.mp4 -c copy whole.mkv");
    let bytes = fs::read(films.path("whole.mkv")).expect("a file");
    fs::write(films.path("cut.mkv"), &bytes[..bytes.len() / 2]).expect("written");
    films.ffmpeg("-f lavfi -i sine=d=1 -c:a aac sound.mp4");
    let files = ["sound.mp4", "missing.mp4", "cut.mkv", "scene.mp4"].map(|name| films.path(name));
    let outcome = analyze(&files, &options);
    let [sound, missing, cut, scene] = &outcome.reports[..] else { panic!("four files") };
    let check = |report: &FileReport, expected: &str| {
        assert_eq!(report.ended, Ended::Broken);
        let error = report.error.as_deref().expect("why");
        assert!(error.contains(expected), "{error}");
    };
    check(sound, "holds no video, but audio/mpeg");
    check(missing, "missing.mp4: No such file");
    check(cut, "it is cut short");
    assert!(sound.outputs.is_empty() && !films.path("out/sound.mot.txt").exists());
    // Of the half there is all.
    assert!((30..90).contains(&cut.looked_at) && cut.events > 0, "{cut}");
    assert_eq!(played(&films.path("out/cut.detections.mp4")).2, cut.looked_at);
    assert_eq!((scene.ended, scene.looked_at), (Ended::Whole, PICTURES.into()));
    let events = outcome.events();
    lives(&events);
    let cameras: BTreeSet<&str> = events.iter().map(|event| &*event.camera).collect();
    assert_eq!(cameras, BTreeSet::from(["cut", "scene"]));
    // Nothing of one file is known in the next.
    assert!(events.iter().any(|event| event.camera == "scene" && event.track == 1));
}

#[test]
fn pictures_of_every_shape_and_time_are_looked_at() {
    let films = Films::new();
    let mut options = films.options();
    options.wanted = Wanted { video: true, ..options.wanted.clone() };
    options.detect.fps = 5.0;
    // A phone held upright: the scene turned, in a file that says to turn it back.
    films.ffmpeg("-i scene.mp4 -vf transpose=1 -c:v libx264 turned.mp4");
    let files = [
        films.ffmpeg("-i turned.mp4 -c copy -metadata:s:v rotate=90 upright.mp4"),
        films.ffmpeg("-i turned.mp4 -c copy portrait.mp4"),
        films.ffmpeg("-i scene.mp4 -t 1 -vf scale=3840:2160 -c:v libx264 -preset ultrafast large.mp4"),
        // Two seconds, a gap of eight, two more.
        films.ffmpeg("-i scene.mp4 -vf select='lt(t\\,2)+gte(t\\,10)' -vsync vfr -c:v libx264 -bf 0 gap.mkv"),
        films.ffmpeg(
            "-i scene.mp4 -t 1 -c:v libx265 -pix_fmt yuv420p10le -preset ultrafast -color_primaries bt2020 \
             -color_trc smpte2084 -colorspace bt2020nc -x265-params log-level=error hdr.mp4",
        ),
    ];
    let outcome = analyze(&files, &options);
    let [upright, portrait, large, gap, hdr] = &outcome.reports[..] else { panic!("five files") };
    for report in &outcome.reports {
        assert_eq!(report.ended, Ended::Whole, "{report}");
    }
    assert_eq!((upright.size, upright.looked_at), ((640, 360), 60));
    assert!(upright.events >= 3, "people stand upright in it: {upright}");
    assert_eq!((portrait.size, large.size), ((360, 640), (3840, 2160)));
    assert_eq!(played(&films.path("out/portrait.detections.mp4")), (360, 640, 60));
    assert_eq!(played(&films.path("out/large.detections.mp4")), (1280, 720, 5));
    // Ten pictures before, ten behind, and the last one stays for the time between.
    assert_eq!((gap.looked_at, gap.read_s), (20, 11.9));
    assert_eq!(played(&films.path("out/gap.detections.mp4")).2, 60);
    let [note] = &outcome.notes[..] else { panic!("{:?}", outcome.notes) };
    assert!(note.contains("HDR (PQ, 10 bit)") && hdr.notes == [note.clone()], "{note}");
}

#[test]
fn the_motion_gate_counts_by_the_time_of_the_file() {
    let films = Films::new();
    let mut options = films.options();
    options.detect.motion_gate = true;
    let still = films.ffmpeg("-f lavfi -i color=gray:s=640x360:r=10:d=5 -c:v libx264 still.mp4");
    let [report] = &analyze(&[still], &options).reports[..] else { panic!("one file") };
    assert_eq!((report.decoded, report.looked_at, report.still), (50, 5, 45));
}

#[test]
fn a_model_that_is_not_there_ends_it_before_anything_is_written() {
    let films = Films::new();
    let mut options = films.options();
    options.wanted.mot = true;
    options.settings.model = Model::NanoDet { folders: vec![films.path("nowhere")] };
    let run = |options: &Options| {
        let mut lines = Vec::new();
        let cancel = CancellationToken::new();
        let ended = analyze::run(&[films.path("scene.mp4")], options, &mut lines, &mut |_| {}, &cancel);
        (ended.expect_err("no model").to_string(), lines.len(), films.path("out/scene.mot.txt").exists())
    };
    let (error, lines, written) = run(&options);
    assert!(error.contains("not installed") && error.contains("`cargo xtask model"), "{error}");
    assert_eq!((lines, written), (0, false));
    options.settings.model = Model::Scene;
    options.detect.rules.labels = vec!["giraffe".into()];
    let (error, ..) = run(&options);
    assert!(error.contains("`giraffe`") && error.contains("person"), "{error}");
}

#[test]
fn no_picture_is_kept_once_it_has_been_looked_at() {
    let films = Films::new();
    let options = films.options();
    let mut offline = Offline::new(&options.settings, Clock::system());
    let start = ProducerTimestamp::from_millis(0);
    let mut file = VideoFile::open(&films.path("scene.mp4"), f64::INFINITY, start).expect("a file");
    let (mut scene, mut events, mut pictures) = (None, 0, 0);
    let mut before: Weak<Frame> = Weak::new();
    loop {
        let frame = match file.poll(Duration::from_millis(100)).expect("a whole file") {
            Step::Picture(picture) => picture.frame,
            Step::NotYet => continue,
            Step::End => break,
        };
        assert!(before.upgrade().is_none(), "picture {pictures}");
        before = Arc::downgrade(&frame);
        let size = frame.source_size();
        let scene =
            scene.get_or_insert_with(|| offline.begin(size, &options.detect, "film").expect("a model"));
        let look = offline.look(scene, &frame).expect("a look").expect("no gate");
        events += look.changes.iter().filter(|change| change.kind == ChangeKind::New).count();
        pictures += 1;
    }
    assert!(pictures == PICTURES && events >= 3, "{events} events in {pictures} pictures");
}

/// A process whose output nobody needs any more.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn ctrl_c_leaves_whole_files_and_events_alone_on_standard_output() {
    let films = Films::new();
    // Longer than anybody waits.
    let long = films.ffmpeg("-stream_loop 500 -i scene.mp4 -c copy long.mp4");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvs-edge"));
    command
        .args(["analyze", "--model", "scene", "--video", "--mot", "--out"])
        .arg(films.path("out"))
        .arg(long);
    let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = Child(spawned.expect("the program starts"));
    let mut lines = BufReader::new(child.0.stdout.take().expect("a pipe"));
    let mut text = String::new();
    while text.lines().count() < 3 {
        assert!(lines.read_line(&mut text).expect("a line") > 0, "it ended early: {text}");
    }
    let kill = format!("kill -INT {}", child.0.id());
    let killed = Command::new("/bin/sh").args(["-c", &kill]).status().expect("a shell");
    assert!(killed.success());
    std::io::Read::read_to_string(&mut lines, &mut text).expect("the rest");
    let mut said = String::new();
    let stderr = child.0.stderr.as_mut().expect("a pipe");
    std::io::Read::read_to_string(stderr, &mut said).expect("text");
    assert_eq!(child.0.wait().expect("it ends").code(), Some(130), "{said}");
    let outcome = Outcome { reports: Vec::new(), lines: text, notes: Vec::new() };
    assert!(!lives(&outcome.events()).is_empty());
    assert!(said.contains("interrupted at") && !said.contains('\x1b'), "no bar where no terminal is: {said}");
    assert!(!mot(&films.path("out/long.mot.txt")).is_empty());
    assert!(played(&films.path("out/long.detections.mp4")).2 > 0);
}
