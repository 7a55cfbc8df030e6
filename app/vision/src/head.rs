//! Boxes out of the output tensor of a detector.
//!
//! Two layouts, both in pixels of the input tensor and told apart by shape:
//!
//! ```text
//!  scored (YOLOv8, v9, v11, RT-DETR)      [4 + classes, N]   rows: centre x, centre y, width, height, score per class
//!  end to end (YOLOv10, YOLO26)           [N, 6]             columns: left, top, right, bottom, score, class
//! ```
//!
//! A scored output has thousands of columns of which a few matter. It is read as it lies in memory, class by class in
//! blocks that stay in the cache; all else is done for the columns whose best score is high enough. A column's class is
//! the best of all classes, also of those that are not wanted: a truck does not become a bad car because only cars are.
//!
//! Numbers come from outside: scores that are not in 0.0..=1.0 and boxes that are not finite are ignored and counted.

use crate::Detection;
use crate::letterbox::Letterbox;
use crate::nms::best_first;

/// Detections that one picture may have before suppression; the best ones are kept. Bounds what a broken model, or a
/// threshold of zero, may cost.
pub const MAX_CANDIDATES: usize = 3_000;

/// Above one by no more than what half precision makes of it.
const HIGHEST_SCORE: f32 = 1.001;

/// Columns that are looked at together: their best scores and one row of classes stay in the first cache.
const BLOCK: usize = 1024;

/// How to read a model's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    layout: Layout,
    classes: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[4 + classes, N]`; boxes overlap and need `nms::suppress`.
    Scored,
    /// `[N, 6]`; the model has suppressed already.
    EndToEnd,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error(
        "the model's output is [{rows}, {columns}], which is {classes} classes, but {labels} labels are given; \
         use the label file that belongs to this model, one name a line in the model's order"
    )]
    Labels { rows: usize, columns: usize, classes: usize, labels: usize },
    #[error(
        "the model's output is [{rows}, {columns}], which is [N, {columns}] turned round; export the model again \
         with output [4 + classes, N]"
    )]
    Turned { rows: usize, columns: usize },
    #[error(
        "the model's output is [{rows}, {columns}], which is that of YOLOv5 with a column for objectness; export the \
         model with a current ultralytics package, whose output is [4 + classes, N]"
    )]
    Objectness { rows: usize, columns: usize },
    #[error(
        "the model's output is [{rows}, {columns}] with {labels} labels; expected [{}, N] or [N, 6], the output of \
         an ultralytics detection model (not of segmentation, pose or classification)", 4 + labels
    )]
    Shape { rows: usize, columns: usize, labels: usize },
    #[error("{labels} labels, expected 1 to 65535; give a label file with one name a line")]
    LabelCount { labels: usize },
    #[error("the model gave an output of [{rows}, {columns}] with {values} values, expected {expected}")]
    Changed { rows: usize, columns: usize, values: usize, expected: &'static str },
}

/// From which score on a class is reported.
#[derive(Clone, Debug, PartialEq)]
pub struct Thresholds {
    /// By class; infinite where the class is not wanted.
    min_scores: Vec<f32>,
}

/// What of an output could not be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ignored {
    /// Scores that are not numbers in 0.0..=1.0, and class numbers without a label.
    pub scores: usize,
    /// Boxes with a score but with a place or size that is not a finite number.
    pub boxes: usize,
    /// Detections beyond `MAX_CANDIDATES`.
    pub surplus: usize,
}

impl Thresholds {
    /// The same score, 0.0..=1.0, for all of `classes`; below 0 is 0.
    pub fn new(classes: usize, min_score: f32) -> Thresholds {
        Thresholds { min_scores: vec![min_score.max(0.0); classes] }
    }

    /// Sets the score of one class. Classes that do not exist are ignored.
    pub fn set(&mut self, class: u16, min_score: f32) {
        if let Some(found) = self.min_scores.get_mut(usize::from(class)) {
            *found = min_score.max(0.0);
        }
    }

    /// Nothing of this class is reported.
    pub fn exclude(&mut self, class: u16) {
        self.set(class, f32::INFINITY);
    }

    fn passes(&self, class: u16, score: f32) -> bool {
        self.min_scores.get(usize::from(class)).is_some_and(|&min_score| score >= min_score)
    }

    fn lowest(&self) -> f32 {
        self.min_scores.iter().copied().fold(f32::INFINITY, f32::min)
    }
}

impl Head {
    /// Recognises the head of a model by one output, `[rows, columns]` without the batch, and by the number of labels
    /// in its label file. Six columns are the end-to-end form: no scored output has as few as six.
    pub fn detect(rows: usize, columns: usize, labels: usize) -> Result<Head, HeadError> {
        let classes = u16::try_from(labels).ok().filter(|&classes| classes > 0);
        let classes = classes.ok_or(HeadError::LabelCount { labels })?;
        let layout = if rows > 0 && columns == 6 {
            Layout::EndToEnd
        } else if rows == 4 + labels && columns > 0 {
            Layout::Scored
        } else if rows > 0 && columns == 4 + labels {
            return Err(HeadError::Turned { rows, columns });
        } else if rows > 0 && columns == 5 + labels {
            return Err(HeadError::Objectness { rows, columns });
        } else if rows > 4 && columns > rows {
            return Err(HeadError::Labels { rows, columns, classes: rows - 4, labels });
        } else {
            return Err(HeadError::Shape { rows, columns, labels });
        };
        Ok(Head { layout, classes })
    }

    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Reads the output of one picture, `[rows, columns]`, into `detections`, which it empties before. `letterbox` is
    /// the one that filled the input. What comes out lies within the picture, has an area and is in no order, at most
    /// `MAX_CANDIDATES`; the same input returns the same output.
    pub fn read(
        &self,
        values: &[f32],
        rows: usize,
        columns: usize,
        thresholds: &Thresholds,
        letterbox: &Letterbox,
        detections: &mut Vec<Detection>,
    ) -> Result<Ignored, HeadError> {
        detections.clear();
        let changed = |expected| HeadError::Changed { rows, columns, values: values.len(), expected };
        if rows.checked_mul(columns) != Some(values.len()) {
            return Err(changed("rows times columns"));
        }
        let mut ignored = Ignored::default();
        match self.layout {
            Layout::Scored if rows != 4 + usize::from(self.classes) => {
                return Err(changed("4 rows and one for each label, as when it was loaded"));
            }
            Layout::EndToEnd if columns != 6 => return Err(changed("6 columns, as when it was loaded")),
            Layout::Scored => scored(values, columns, thresholds, letterbox, detections, &mut ignored),
            Layout::EndToEnd => self.end_to_end(values, thresholds, letterbox, detections, &mut ignored),
        }
        if detections.len() > MAX_CANDIDATES {
            ignored.surplus = detections.len() - MAX_CANDIDATES;
            detections.select_nth_unstable_by(MAX_CANDIDATES, best_first);
            detections.truncate(MAX_CANDIDATES);
        }
        Ok(ignored)
    }

    fn end_to_end(
        &self,
        values: &[f32],
        thresholds: &Thresholds,
        letterbox: &Letterbox,
        detections: &mut Vec<Detection>,
        ignored: &mut Ignored,
    ) {
        for &[left, top, right, bottom, score, class] in values.as_chunks::<6>().0 {
            // Rows without a detection are zeros.
            if score < thresholds.lowest() {
                continue;
            }
            let Some(class) = self.class(class).filter(|_| score <= HIGHEST_SCORE) else {
                ignored.scores += 1;
                continue;
            };
            if thresholds.passes(class, score) {
                let size = [right - left, bottom - top];
                let centre = [left + size[0] / 2.0, top + size[1] / 2.0];
                push([centre[0], centre[1], size[0], size[1]], class, score, letterbox, detections, ignored);
            }
        }
    }

    /// A class number that came as a float.
    fn class(&self, value: f32) -> Option<u16> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within 16 bits")]
        let class = (value >= 0.0 && value < f32::from(self.classes)).then_some(value.round() as u16)?;
        (class < self.classes).then_some(class)
    }
}

/// `values` are `[4 + classes, columns]`.
fn scored(
    values: &[f32],
    columns: usize,
    thresholds: &Thresholds,
    letterbox: &Letterbox,
    detections: &mut Vec<Detection>,
    ignored: &mut Ignored,
) {
    let (boxes, scores) = values.split_at(4 * columns);
    let lowest = thresholds.lowest();
    let mut best = [0.0; BLOCK];
    for begin in (0..columns).step_by(BLOCK) {
        let best = &mut best[..BLOCK.min(columns - begin)];
        best.fill(f32::NEG_INFINITY);
        for row in scores.chunks_exact(columns) {
            ignored.scores += raise(best, &row[begin..begin + best.len()]);
        }
        for (at, &score) in best.iter().enumerate().filter(|(_, score)| **score >= lowest) {
            let column = begin + at;
            // The first of equals, as everywhere.
            let class = scores.chunks_exact(columns).position(|row| row[column] == score);
            let Some(class) = class.and_then(|class| u16::try_from(class).ok()) else { continue };
            if thresholds.passes(class, score) {
                let place = [0, 1, 2, 3].map(|row| boxes[row * columns + column]);
                push(place, class, score, letterbox, detections, ignored);
            }
        }
    }
}

/// Raises the best scores to those of one class; returns how many of these are not scores.
fn raise(best: &mut [f32], scores: &[f32]) -> usize {
    let mut bad = 0_u32;
    for (best, &score) in best.iter_mut().zip(scores) {
        let good = score <= HIGHEST_SCORE; // false for NaN
        bad += u32::from(!good);
        *best = if good && score > *best { score } else { *best };
    }
    bad as usize
}

/// `place` is centre x, centre y, width and height in pixels of the tensor.
fn push(
    place: [f32; 4],
    class: u16,
    score: f32,
    letterbox: &Letterbox,
    detections: &mut Vec<Detection>,
    ignored: &mut Ignored,
) {
    let [cx, cy, w, h] = place;
    if !place.iter().all(|value| value.is_finite()) {
        ignored.boxes += 1;
        return;
    }
    let rect = letterbox.to_picture(cx, cy, w, h);
    if rect.w > 0.0 && rect.h > 0.0 {
        detections.push(Detection { class, score: score.min(1.0), rect });
    }
}

#[cfg(test)]
mod tests;
