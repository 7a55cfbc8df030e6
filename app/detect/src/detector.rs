//! Pictures in, boxes out: letterbox, backend, head and suppression, with the time that each took.

use std::time::Duration;

use clock::Clock;
use vision::head::{Head, HeadError, Ignored, Layout, Thresholds};
use vision::letterbox::{Letterbox, LetterboxError};
use vision::{Colour, Detection, Matrix, Picture, PictureError, Plane, Planes, nms};

use crate::backend::{Backend, BackendError, Input, InputFormat, InputSpec, Output};
use crate::capacity::{BatchCost, Measured};
use crate::load::Loaded;

/// Calls that are measured in any case.
const LEAST_ROUNDS: usize = 3;

/// What is reported, besides what the model sees.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Scores below which a class is not reported, and classes that are not reported at all.
    pub thresholds: Thresholds,
    /// Boxes of one class that overlap a better one by more are dropped, 0.0..=1.0.
    pub nms_iou: f32,
    /// Most detections of a picture; the best ones stay.
    pub max_detections: usize,
}

impl Settings {
    /// Everything from `min_score` on, with the usual suppression.
    pub fn new(classes: usize, min_score: f32) -> Settings {
        Settings { thresholds: Thresholds::new(classes, min_score), nms_iou: 0.6, max_detections: 300 }
    }
}

/// Where the time of one `detect` went, sums over its pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// Resize, colour, normalise.
    pub prepare: Duration,
    /// The backend.
    pub infer: Duration,
    /// Boxes out of the output, suppression.
    pub post: Duration,
    /// Calls of the backend.
    pub batches: u32,
}

impl Timing {
    pub fn total(&self) -> Duration {
        self.prepare + self.infer + self.post
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    #[error("{pictures} pictures, but room for the detections of {outputs}")]
    Outputs { pictures: usize, outputs: usize },
    #[error("a picture of {width}x{height}: {source}")]
    Letterbox { width: usize, height: usize, source: LetterboxError },
    #[error(transparent)]
    Picture(#[from] PictureError),
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error("{backend}: {source}")]
    Head { backend: &'static str, source: HeadError },
}

/// Picture sizes that are remembered. Each has tables of a few kilobytes; cameras have one or two sizes each.
const MAX_LETTERBOXES: usize = 64;

/// A loaded model with everything around it. Belongs to one thread.
pub struct Detector {
    backend: Box<dyn Backend>,
    spec: InputSpec,
    head: Head,
    settings: Settings,
    /// For each picture size that was seen, the one used last at the end.
    letterboxes: Vec<Letterbox>,
    input: InputBuffer,
    output: Output,
    ignored: Ignored,
    clock: Clock,
}

/// Grows to the largest batch and stays.
enum InputBuffer {
    F32(Vec<f32>),
    U8(Vec<u8>),
}

impl Detector {
    /// `clock` measures how long its work takes.
    pub fn new(backend: Box<dyn Backend>, head: Head, settings: Settings, clock: Clock) -> Detector {
        let spec = backend.input();
        let input = match spec.format {
            InputFormat::F32Nchw => InputBuffer::F32(Vec::new()),
            InputFormat::U8Nhwc => InputBuffer::U8(Vec::new()),
        };
        Detector {
            backend,
            spec,
            head,
            settings,
            letterboxes: Vec::new(),
            input,
            output: Output::default(),
            ignored: Ignored::default(),
            clock,
        }
    }

    /// With everything from `min_score` on; see `Settings::new`.
    pub fn of(loaded: Loaded, min_score: f32, clock: Clock) -> Detector {
        let settings = Settings::new(loaded.labels.len(), min_score);
        Detector::new(loaded.backend, loaded.head, settings, clock)
    }

    pub fn backend(&self) -> &'static str {
        self.backend.name()
    }

    pub fn input(&self) -> InputSpec {
        self.spec
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// What could not be used of the model's outputs, since the start.
    pub fn ignored(&self) -> Ignored {
        self.ignored
    }

    /// Detects in any number of pictures of any sizes, in batches as large as the model takes. `outputs[n]` gets what
    /// is in `pictures[n]`, best first; it is emptied before. After an error all outputs are empty: nothing of this call
    /// may be used.
    pub fn detect(
        &mut self,
        pictures: &[Picture<'_>],
        outputs: &mut [Vec<Detection>],
    ) -> Result<Timing, DetectError> {
        outputs.iter_mut().for_each(Vec::clear);
        if pictures.len() != outputs.len() {
            return Err(DetectError::Outputs { pictures: pictures.len(), outputs: outputs.len() });
        }
        let mut timing = Timing::default();
        let batch = self.spec.max_batch.max(1);
        let mut result = Ok(());
        for (pictures, outputs) in pictures.chunks(batch).zip(outputs.chunks_mut(batch)) {
            result = self.detect_batch(pictures, outputs, &mut timing);
            if result.is_err() {
                break;
            }
        }
        if let Err(error) = result {
            outputs.iter_mut().for_each(Vec::clear);
            return Err(error);
        }
        Ok(timing)
    }

    fn detect_batch(
        &mut self,
        pictures: &[Picture<'_>],
        outputs: &mut [Vec<Detection>],
        timing: &mut Timing,
    ) -> Result<(), DetectError> {
        let start = self.clock.now();
        let len = self.spec.picture_len();
        for (at, picture) in pictures.iter().enumerate() {
            let letterbox = letterbox(&mut self.letterboxes, self.spec, picture)?;
            match &mut self.input {
                InputBuffer::F32(buffer) => {
                    buffer.resize(pictures.len() * len, 0.0);
                    letterbox.fill_f32(picture, &mut buffer[at * len..][..len])
                }
                InputBuffer::U8(buffer) => {
                    buffer.resize(pictures.len() * len, 0);
                    letterbox.fill_u8(picture, &mut buffer[at * len..][..len])
                }
            }
            .map_err(|source| letterbox_error(picture, source))?;
        }
        let prepared = self.clock.now();
        let input = match &self.input {
            InputBuffer::F32(buffer) => Input::F32(buffer),
            InputBuffer::U8(buffer) => Input::U8(buffer),
        };
        self.backend.run(input, pictures.len(), &mut self.output)?;
        let inferred = self.clock.now();
        let Output { values, rows, columns } = &self.output;
        for ((picture, values), out) in pictures.iter().zip(values.chunks_exact(rows * columns)).zip(outputs)
        {
            let letterbox = letterbox(&mut self.letterboxes, self.spec, picture)?;
            let ignored = self
                .head
                .read(values, *rows, *columns, &self.settings.thresholds, letterbox, out)
                .map_err(|source| DetectError::Head { backend: self.backend.name(), source })?;
            self.ignored.scores += ignored.scores;
            self.ignored.boxes += ignored.boxes;
            self.ignored.surplus += ignored.surplus;
            let iou = match self.head.layout() {
                Layout::Scored => self.settings.nms_iou,
                // Suppressed by the model; only ordered and cut to length.
                Layout::EndToEnd => 1.0,
            };
            nms::suppress(out, iou, self.settings.max_detections);
        }
        timing.prepare += prepared - start;
        timing.infer += inferred - prepared;
        timing.post += self.clock.since(inferred);
        timing.batches += 1;
        Ok(())
    }

    /// What a picture of `width` x `height` costs, by batch sizes 1, 2, 4 ... `max_batch`, on a synthetic picture.
    /// Takes at most about `limit` and at most `rounds` calls per batch size; but [`LEAST_ROUNDS`] in any case, so that
    /// the median is not the one call in which the machine was busy with something else.
    pub fn measure(
        &mut self,
        (width, height): (usize, usize),
        rounds: usize,
        limit: Duration,
    ) -> Result<Measured, DetectError> {
        let (bytes, chroma) = (synthetic(width, height), vec![128; width.div_ceil(2) * height.div_ceil(2)]);
        let half = Plane { bytes: &chroma, stride: width.div_ceil(2) };
        let planes = Planes::I420 { y: Plane { bytes: &bytes, stride: width }, u: half, v: half };
        let colour = Colour { matrix: Matrix::Bt709, full_range: false };
        let picture = Picture::new(width, height, planes, colour)?;
        let sizes: Vec<usize> = std::iter::successors(Some(1), |size| Some(size * 2))
            .take_while(|&size| size <= self.spec.max_batch)
            .collect();
        let share = limit / u32::try_from(sizes.len()).unwrap_or(u32::MAX).max(1);
        let mut by_batch = Vec::new();
        for batch in sizes {
            let pictures = vec![picture; batch];
            let mut outputs = vec![Vec::new(); batch];
            let mut calls = Vec::new();
            let start = self.clock.now();
            // The first call fills caches and buffers.
            self.detect(&pictures, &mut outputs)?;
            while calls.len() < LEAST_ROUNDS || (calls.len() < rounds && self.clock.since(start) < share) {
                calls.push(self.detect(&pictures, &mut outputs)?.total());
            }
            by_batch.extend(BatchCost::of(batch, &mut calls));
        }
        Ok(Measured { by_batch, input: (self.spec.width, self.spec.height) })
    }
}

/// Luma with edges and texture, `width` x `height`.
fn synthetic(width: usize, height: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(width * height);
    for y in 0..height {
        bytes.extend((0..width).map(|x| u8::try_from(((x * 3) ^ (y * 5)) % 200 + 20).unwrap_or(128)));
    }
    bytes
}

fn letterbox<'a>(
    letterboxes: &'a mut Vec<Letterbox>,
    spec: InputSpec,
    picture: &Picture<'_>,
) -> Result<&'a mut Letterbox, DetectError> {
    match letterboxes.iter().position(|letterbox| letterbox.takes(picture)) {
        Some(at) => {
            let last = letterboxes.len() - 1;
            letterboxes[at..=last].rotate_left(1);
        }
        None => {
            let new = Letterbox::new(picture.width, picture.height, spec.width, spec.height)
                .map_err(|source| letterbox_error(picture, source))?;
            if letterboxes.len() == MAX_LETTERBOXES {
                letterboxes.remove(0);
            }
            letterboxes.push(new);
        }
    }
    let last = letterboxes.len() - 1;
    Ok(&mut letterboxes[last])
}

fn letterbox_error(picture: &Picture<'_>, source: LetterboxError) -> DetectError {
    DetectError::Letterbox { width: picture.width, height: picture.height, source }
}
