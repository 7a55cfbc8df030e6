//! Files that are written of one video file: their names, and their lives.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use analytics::EventChange;
use analytics::offline::Look;
use config::CameraDetect;

use super::best::BestShots;
use super::mot::Mot;
use super::report::FileReport;
use super::{AnalyzeError, LONGEST_STILL, Options};
use crate::overlay_video::{self, DrawnFile};

/// Which files are written beside the events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Where they go. It is made when it is not there.
    pub folder: PathBuf,
    /// `NAME.mot.txt`: tracks as MOTChallenge has results.
    pub mot: bool,
    /// `NAME.detections.mp4`: pictures with boxes.
    pub video: bool,
    /// `NAME.sheet.jpg`: best shots.
    pub sheet: bool,
    /// `NAME.report.json`: the report.
    pub report: bool,
    /// Files that are there already are written over.
    pub force: bool,
}

/// Paths of what is written of one file.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    mot: Option<PathBuf>,
    video: Option<PathBuf>,
    sheet: Option<PathBuf>,
    report: Option<PathBuf>,
}

/// Name of a file without folder and ending.
pub(super) fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// What is written of each of these files. Makes the folder; fails before anything is begun where a file would be lost.
pub(super) fn plan(inputs: &[PathBuf], wanted: &Wanted) -> Result<Vec<Files>, AnalyzeError> {
    let Wanted { folder, .. } = wanted;
    let mut taken: BTreeMap<PathBuf, &PathBuf> = BTreeMap::new();
    // Of what cannot be found nothing can be lost.
    let originals: Vec<PathBuf> = inputs.iter().filter_map(|input| input.canonicalize().ok()).collect();
    let mut planned = Vec::new();
    for input in inputs {
        let file = |on: bool, ending: &str| on.then(|| folder.join(format!("{}.{ending}", stem(input))));
        let files = Files {
            mot: file(wanted.mot, "mot.txt"),
            video: file(wanted.video, "detections.mp4"),
            sheet: file(wanted.sheet, "sheet.jpg"),
            report: file(wanted.report, "report.json"),
        };
        for file in [&files.mot, &files.video, &files.sheet, &files.report].into_iter().flatten() {
            if let Some(first) = taken.insert(file.clone(), input) {
                let (first, second) = (first.clone(), input.clone());
                return Err(AnalyzeError::Twice { file: file.clone(), first, second });
            }
            if file.canonicalize().is_ok_and(|file| originals.contains(&file)) {
                return Err(AnalyzeError::OverInput { file: file.clone() });
            }
            if !wanted.force && file.symlink_metadata().is_ok() {
                return Err(AnalyzeError::Exists { file: file.clone() });
            }
        }
        planned.push(files);
    }
    if !taken.is_empty() {
        let failed = |source| AnalyzeError::Write { file: folder.clone(), source };
        fs::create_dir_all(folder).map_err(failed)?;
    }
    if wanted.video {
        overlay_video::check_encoder()?;
    }
    Ok(planned)
}

/// What is being written of one file.
pub(super) struct Outputs {
    files: Files,
    force: bool,
    /// From the first picture on, as the video.
    mot: Option<Mot>,
    video: Option<DrawnFile>,
    sheet: Option<BestShots>,
    /// Of the video, and the position of its last picture.
    fps: f64,
    last: Option<Duration>,
}

impl Outputs {
    /// `title`: of the contact sheet.
    pub(super) fn new(files: Files, title: &str, options: &Options) -> Self {
        let force = options.wanted.force;
        let sheet =
            files.sheet.is_some().then(|| BestShots::new(title.to_owned(), options.start.as_millis()));
        let fps = options.detect.fps;
        Self { files, force, mot: None, video: None, sheet, fps, last: None }
    }

    /// The first picture is about to come. `rate`: pictures per second in the file.
    pub(super) fn begin(&mut self, detect: &CameraDetect, rate: Option<f64>) -> Result<(), AnalyzeError> {
        let created = self.files.mot.as_deref().map(|path| create(path, self.force));
        self.mot = created.transpose()?.map(Mot::new);
        self.fps = rate.map_or(detect.fps, |rate| rate.min(detect.fps));
        self.video = self.files.video.as_deref().map(|path| DrawnFile::new(path, detect, self.fps));
        Ok(())
    }

    /// Picture `number` of the file has been looked at.
    pub(super) fn picture(
        &mut self,
        look: &Look,
        number: u64,
        position: Duration,
    ) -> Result<(), AnalyzeError> {
        if let Some(mot) = &mut self.mot {
            let failed = |source| write_error(self.files.mot.as_deref(), source);
            mot.picture(number, look.annotated.frame.source_size(), &look.annotated.tracks)
                .map_err(failed)?;
        }
        if let Some(video) = &mut self.video {
            // Pictures that the file does not have: the last one stays.
            let still = self.last.map_or(Duration::ZERO, |last| position.saturating_sub(last));
            for _ in 1..ticks(still.min(LONGEST_STILL), self.fps) {
                video.again()?;
            }
            video.add(&look.annotated, &super::report::clock(position))?;
        }
        self.last = Some(position);
        Ok(())
    }

    pub(super) fn better(&mut self, look: &Look) {
        if let Some(sheet) = &mut self.sheet {
            sheet.better(&look.better, &look.annotated);
        }
    }

    pub(super) fn change(&mut self, change: &EventChange) {
        if let Some(sheet) = &mut self.sheet {
            sheet.change(change);
        }
    }

    /// Completes all of them; returns those that there are.
    pub(super) fn finish(&mut self) -> Result<Vec<PathBuf>, AnalyzeError> {
        let mut written = Vec::new();
        written.extend(self.mot.take().and_then(|_| self.files.mot.clone()));
        if let Some(video) = self.video.take()
            && video.finish()? > 0
        {
            written.extend(self.files.video.clone());
        }
        if let Some(sheet) = self.sheet.take()
            && let Some(path) = &self.files.sheet
            && let Some(jpeg) = sheet.jpeg()
        {
            self.write(path, &jpeg)?;
            written.push(path.clone());
        }
        Ok(written)
    }

    pub(super) fn write_report(&self, report: &FileReport) -> Result<(), AnalyzeError> {
        let Some(path) = &self.files.report else { return Ok(()) };
        let failed = |error: serde_json::Error| write_error(Some(path), error.into());
        let mut json = serde_json::to_vec_pretty(report).map_err(failed)?;
        json.push(b'\n');
        self.write(path, &json)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), AnalyzeError> {
        let failed = |source| write_error(Some(path), source);
        create(path, self.force)?.write_all(bytes).map_err(failed)
    }
}

fn create(path: &Path, force: bool) -> Result<File, AnalyzeError> {
    let mut options = OpenOptions::new();
    options.write(true).truncate(force).create(force).create_new(!force);
    options.open(path).map_err(|source| write_error(Some(path), source))
}

fn write_error(path: Option<&Path>, source: std::io::Error) -> AnalyzeError {
    AnalyzeError::Write { file: path.unwrap_or(Path::new("")).to_owned(), source }
}

/// Steps of a video at this rate that fit into `duration`, rounded.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds, at some pictures each")]
fn ticks(duration: Duration, fps: f64) -> u64 {
    (duration.as_secs_f64() * fps).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_over_without_a_word() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let wanted = Wanted { folder: folder.path().to_owned(), mot: true, sheet: true, ..Wanted::default() };
        let check = |inputs: &[&str], wanted: &Wanted, expected: &str| {
            let inputs: Vec<_> = inputs.iter().map(|name| path(name)).collect();
            let error = plan(&inputs, wanted).map(|planned| planned.len()).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        };
        let planned = plan(&[path("a.mp4"), path("b.mp4")], &wanted).expect("two files");
        assert_eq!(planned[1].mot.as_deref(), Some(&*path("b.mot.txt")));
        assert_eq!(planned[1].video, None);
        check(&["a.mp4", "sub/a.avi"], &wanted, "a.mot.txt would be written for");
        fs::write(path("a.sheet.jpg"), "a user's own").expect("written");
        check(&["a.mp4"], &wanted, "a.sheet.jpg is there already; --force");
        let force = Wanted { force: true, ..wanted.clone() };
        assert!(plan(&[path("a.mp4")], &force).is_ok());
        // An input that is named like an output.
        fs::write(path("a.mot.txt"), "footage").expect("written");
        check(&["a.mp4", "a.mot.txt"], &force, "a.mot.txt would be written over");
    }

    #[test]
    fn a_video_has_the_time_of_its_file() {
        let check = |ms: u64, fps: f64, expected: u64| {
            assert_eq!(ticks(Duration::from_millis(ms), fps), expected, "{ms} ms at {fps}");
        };
        check(200, 5.0, 1);
        check(233, 5.0, 1);
        check(1_000, 5.0, 5);
        check(33, 29.97, 1);
        check(0, 5.0, 0);
    }
}
