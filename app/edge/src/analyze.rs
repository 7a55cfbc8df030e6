//! The analytics branch over video files: what `kvs-edge analyze` does.
//!
//! ```text
//!  decode::file --pictures by their times--> analytics::offline --> events: JSON lines, as on MQTT
//!  (GStreamer's threads)                     (this thread)     +--> tracks: MOTChallenge
//!                                                              +--> drawn pictures: MP4 (a process)
//!                                                              +--> best shots: contact sheet
//!                                                              +--> what was seen of each label
//! ```
//!
//! A file is begun with nothing known of its scene. Whatever happens to it (its end, damage, a stop), its events end,
//! and what was written of it is complete. Memory does not grow with its length: pictures are taken when the last one is done,
//! lines are written as they come, and of best shots a fixed number is kept.
//!
//! The rate of the MP4 file is constant, so a picture is shown until the time of the next one, for [`LONGEST_STILL`] at most.

mod best;
mod mot;
mod outputs;
mod report;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use analytics::EventChange;
use analytics::offline::{Look, Offline, OfflineError};
use clock::Clock;
use config::CameraDetect;
use decode::file::{About, DynamicRange, Step, VideoFile};
use media::ProducerTimestamp;
use messages::UtcTime;
use tokio_util::sync::CancellationToken;

use crate::overlay_video::VideoError;
use crate::publish::{self, Origin, Sequence};
use outputs::Outputs;
pub use outputs::Wanted;
use report::Tally;
pub use report::{Ended, FileReport, LabelReport, LineReport, ModelReport, ZoneReport};

/// A stop is noticed after this at the latest.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long the annotated video stands still at most where the file has no pictures.
const LONGEST_STILL: Duration = Duration::from_secs(10);

/// By what files are judged, and what is written of them.
#[derive(Clone, Debug)]
pub struct Options {
    /// Model, backend and threads.
    pub settings: config::Detect,
    /// Rate, labels, scores, zones and lines.
    pub detect: CameraDetect,
    /// Stands in each line.
    pub device: String,
    /// The time of each file's first picture.
    pub start: UtcTime,
    pub wanted: Wanted,
    pub clock: Clock,
}

/// What nothing further can be done after.
#[derive(Debug, thiserror::Error)]
pub enum AnalyzeError {
    #[error("{file} is there already; --force writes over it, --out DIR writes elsewhere")]
    Exists { file: PathBuf },
    #[error(
        "{file} would be written for {first} and for {second}; analyze one of them alone, with another --out DIR"
    )]
    Twice { file: PathBuf, first: PathBuf, second: PathBuf },
    #[error("{file} would be written over by what is found; name another folder by --out DIR")]
    OverInput { file: PathBuf },
    #[error("{file} cannot be written: {source}")]
    Write { file: PathBuf, source: io::Error },
    #[error("events cannot be written to standard output: {0}")]
    Events(io::Error),
    #[error(transparent)]
    Model(#[from] OfflineError),
    #[error(transparent)]
    Video(#[from] VideoError),
}

/// What happens on the way, for whoever watches.
#[derive(Debug)]
pub enum Told<'a> {
    Begins {
        file: &'a Path,
    },
    /// Something that may make the result other than expected.
    Note {
        file: &'a Path,
        text: &'a str,
    },
    Goes {
        position: Duration,
        duration: Option<Duration>,
        looked_at: u64,
        events: u64,
    },
    Ends(&'a FileReport),
}

/// Looks at one file after another; blocks for as long as that takes. Events go to `events`, a line each. Ends early once
/// `cancel` fires, with the file then in work as the last one.
///
/// Files that cannot be read are no error: see [`FileReport::ended`].
pub fn run(
    files: &[PathBuf],
    options: &Options,
    events: &mut dyn Write,
    told: &mut dyn FnMut(Told<'_>),
    cancel: &CancellationToken,
) -> Result<Vec<FileReport>, AnalyzeError> {
    let planned = outputs::plan(files, &options.wanted)?;
    let mut offline = Offline::new(&options.settings, options.clock.clone());
    let sequence = Sequence::default();
    let mut reports = Vec::new();
    for (path, files) in files.iter().zip(planned) {
        if cancel.is_cancelled() {
            break;
        }
        told(Told::Begins { file: path });
        let begun = options.clock.now();
        let mut run = Run {
            path,
            options,
            origin: origin(path, options),
            sequence: &sequence,
            events: &mut *events,
            outputs: Outputs::new(files, &outputs::stem(path), options),
            tally: Tally::default(),
            told: &mut *told,
        };
        let mut report = match run.file(&mut offline, cancel) {
            Ok(report) => report,
            Err(error) => {
                // What can be completed is; why it ends is told by the first error.
                let _ = run.outputs.finish();
                return Err(error);
            }
        };
        report.wall_s = rounded(options.clock.since(begun));
        run.outputs.write_report(&report)?;
        told(Told::Ends(&report));
        reports.push(report);
    }
    Ok(reports)
}

fn origin(path: &Path, options: &Options) -> Origin {
    // Nothing of it is in the cloud.
    let (stream, region) = (String::new(), String::new());
    Origin { device: options.device.clone(), camera: outputs::stem(path), stream, region }
}

fn rounded(duration: Duration) -> f64 {
    messages::rounded(duration.as_secs_f64())
}

/// One file in work.
struct Run<'a> {
    path: &'a Path,
    options: &'a Options,
    origin: Origin,
    sequence: &'a Sequence,
    events: &'a mut dyn Write,
    outputs: Outputs,
    tally: Tally,
    told: &'a mut dyn FnMut(Told<'_>),
}

impl Run<'_> {
    fn file(
        &mut self,
        offline: &mut Offline,
        cancel: &CancellationToken,
    ) -> Result<FileReport, AnalyzeError> {
        let start = ProducerTimestamp::from_millis(self.options.start.as_millis());
        let mut report = FileReport::new(self.path, self.options.detect.fps);
        let mut reader = match VideoFile::open(self.path, self.options.detect.fps, start) {
            Ok(reader) => reader,
            Err(error) => {
                report.ended(Ended::Broken, Some(health::chain(&error)));
                return Ok(report);
            }
        };
        let mut scene = None;
        // The name and size of a file are what makes it another one.
        let length = std::fs::metadata(self.path).map_or(0, |metadata| metadata.len());
        let name = format!("{} {length}", self.origin.camera);
        let (ended, error) = loop {
            if cancel.is_cancelled() {
                break (Ended::Interrupted, None);
            }
            let picture = match reader.poll(LOOK_EVERY) {
                Ok(Step::Picture(picture)) => picture,
                Ok(Step::NotYet) => continue,
                Ok(Step::End) => break (Ended::Whole, None),
                Err(error) => break (Ended::Broken, Some(health::chain(&error))),
            };
            let frame = &picture.frame;
            let scene = match &mut scene {
                Some(scene) => scene,
                None => {
                    let begun = offline.begin(frame.source_size(), &self.options.detect, &name)?;
                    report.begins(frame.source_size(), begun.model(), &reader.about());
                    self.notes(&reader.about(), &mut report);
                    self.outputs.begin(&self.options.detect, reader.about().rate)?;
                    scene.insert(begun)
                }
            };
            match offline.look(scene, frame) {
                Ok(Some(look)) => {
                    self.outputs.picture(&look, picture.number, picture.position)?;
                    self.tally.counts(&scene.counts());
                    self.changes(&look)?;
                    report.looked_at += 1;
                }
                Ok(None) => report.still += 1,
                Err(OfflineError::Detect(error)) => break (Ended::Broken, Some(health::chain(&error))),
                Err(error) => return Err(error.into()),
            }
            let (about, progress) = (reader.about(), reader.progress());
            (self.told)(Told::Goes {
                position: progress.position,
                duration: about.duration,
                looked_at: report.looked_at,
                events: self.tally.begun(),
            });
        };
        if let Some(mut scene) = scene {
            let changes = scene.finish();
            self.tell(&changes)?;
            self.tally.crossings(&scene.crossings());
        }
        report.reads(&reader.progress());
        // Ends the decoder, which the files that are completed now need not wait for.
        drop(reader);
        report.outputs = self.outputs.finish()?;
        report.ended(ended, error);
        report.tallied(std::mem::take(&mut self.tally));
        Ok(report)
    }

    fn changes(&mut self, look: &Look) -> Result<(), AnalyzeError> {
        self.outputs.better(look);
        self.tell(&look.changes)
    }

    fn tell(&mut self, changes: &[EventChange]) -> Result<(), AnalyzeError> {
        for change in changes {
            self.tally.change(change);
            self.outputs.change(change);
            let event = publish::event(change, &self.origin, self.sequence.next(), false);
            let mut line = serde_json::to_vec(&event).map_err(|error| AnalyzeError::Events(error.into()))?;
            line.push(b'\n');
            self.events.write_all(&line).and_then(|()| self.events.flush()).map_err(AnalyzeError::Events)?;
        }
        Ok(())
    }

    /// What about this file may surprise.
    fn notes(&mut self, about: &About, report: &mut FileReport) {
        let mut notes = Vec::new();
        match about.dynamic_range {
            DynamicRange::Standard => {}
            range => {
                let name = if range == DynamicRange::Pq { "PQ" } else { "HLG" };
                notes.push(format!(
                    "HDR ({name}, {} bit): converted to 8 bit, its brightness is not mapped, so pictures look flat and less \
                     may be found",
                    about.bits
                ));
            }
        }
        if about.untimed {
            notes.push(
                "the file does not say when its pictures are shown; an even rate is assumed".to_owned(),
            );
        }
        if about.other_videos > 0 {
            notes.push(format!("{} more videos in the file are not looked at", about.other_videos));
        }
        if self.options.detect.key_frames_only {
            notes.push("key_frames_only is for cameras; of a file all pictures are decoded".to_owned());
        }
        for text in &notes {
            (self.told)(Told::Note { file: self.path, text });
        }
        report.notes = notes;
    }
}
