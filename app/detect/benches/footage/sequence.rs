//! A sequence of MOTChallenge: a folder with `seqinfo.ini`, `det/det.txt` and `gt/gt.txt`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use vision::track::{Tracker, TrackerConfig};
use vision::{Detection, Rect};

use crate::Error;

pub(crate) struct Sequence {
    name: String,
    size: (usize, usize),
    fps: f64,
    boxes: BTreeMap<u64, Vec<Detection>>,
    last: u64,
    truth: PathBuf,
}

impl Sequence {
    pub(crate) fn read(folder: &Path) -> Result<Sequence, Error> {
        let read = |name: &str| {
            let file = folder.join(name);
            fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))
        };
        let info = read("seqinfo.ini")?;
        let boxes = read("det/det.txt")?.lines().map(detection).collect::<Result<Vec<_>, Error>>()?;
        let size = (value(&info, "imWidth")?, value(&info, "imHeight")?);
        let name = folder.file_name().ok_or("a folder without a name")?.to_string_lossy().into_owned();
        let mut sequence = Sequence {
            name,
            size,
            fps: value(&info, "frameRate")?,
            last: value(&info, "seqLength")?,
            boxes: BTreeMap::new(),
            truth: folder.join("gt/gt.txt"),
        };
        let (width, height) = (size.0 as f32, size.1 as f32);
        for (picture, mut found) in boxes {
            let Rect { x, y, w, h } = found.rect;
            found.rect = Rect { x: x / width, y: y / height, w: w / width, h: h / height };
            sequence.boxes.entry(picture).or_default().push(found);
        }
        Ok(sequence)
    }

    /// Follows the boxes of every `every`th picture and writes what `judge.py` reads. Returns what to tell it.
    pub(crate) fn follow(&self, every: u64, folder: &Path) -> Result<String, Error> {
        let mut tracker = Tracker::new(TrackerConfig::default());
        let (mut boxes, mut tracks) = (String::new(), String::new());
        for number in (1..=self.last).filter(|number| number % every == 0) {
            let at = crate::at(number, self.fps);
            let found = self.boxes.get(&number).map_or(&[][..], Vec::as_slice);
            for detection in found.iter().filter(|found| found.score >= TrackerConfig::default().low_score) {
                boxes += &row(number, -1, &detection.rect, self.size, detection.score);
            }
            for track in crate::followed(&mut tracker, at, found, None) {
                tracks += &row(number, i64::try_from(track.id)?, &track.rect, self.size, 1.0);
            }
        }
        fs::write(folder.join(format!("{}.boxes.txt", self.name)), boxes)?;
        fs::write(folder.join(format!("{}.tracks.txt", self.name)), tracks)?;
        fs::copy(&self.truth, folder.join(format!("{}.truth.txt", self.name)))?;
        Ok(judged(&self.name, self.fps / every as f64, self.size))
    }
}

fn value<T: FromStr>(info: &str, key: &str) -> Result<T, Error> {
    let of_key = |line: &str| {
        let (_, value) = line.split_once('=').filter(|(name, _)| name.trim() == key)?;
        value.trim().parse().ok()
    };
    Ok(info.lines().find_map(of_key).ok_or_else(|| format!("seqinfo.ini without {key}"))?)
}

/// One line of `det.txt`; the box still in pixels.
fn detection(line: &str) -> Result<(u64, Detection), Error> {
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    let [picture, _, x, y, w, h, score, ..] = fields[..] else {
        return Err(format!("det.txt: found `{line}`, expected 7 columns or more").into());
    };
    let rect = Rect { x: x.parse()?, y: y.parse()?, w: w.parse()?, h: h.parse()? };
    Ok((picture.parse()?, Detection { class: 0, score: score.parse()?, rect }))
}

/// `picture, id, left, top, width, height, score` in pixels.
pub(crate) fn row(picture: u64, id: i64, rect: &Rect, (width, height): (usize, usize), score: f32) -> String {
    let (width, height) = (width as f32, height as f32);
    let Rect { x, y, w, h } = *rect;
    let (x, y, w, h) = (x * width, y * height, w * width, h * height);
    format!("{picture},{id},{x:.2},{y:.2},{w:.2},{h:.2},{score:.4}\n")
}

/// How `judge.py` is told of a sequence.
pub(crate) fn judged(name: &str, fps: f64, (width, height): (usize, usize)) -> String {
    format!("{name}={fps}={width}x{height}")
}
