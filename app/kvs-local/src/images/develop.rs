//! A movie's pictures as files: decoded by GStreamer, brought to their size, and coded as JPEG or PNG.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::Duration;

use decode::file::{FileError, Step, VideoFile};
use jpeg_encoder::ColorType;
use media::ProducerTimestamp;
use vision::Picture;
use vision::rgb::{self, Rgb};

/// Of waiting for a picture, before it is asked again whether one will come.
const LOOK: Duration = Duration::from_secs(1);

/// What a picture is handed out as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    /// 1 to 100; `None`: PNG.
    pub(super) jpeg_quality: Option<u8>,
    pub(super) size: Size,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// As it was sent.
    Own,
    /// In its shape.
    Height(u32),
    Stretched {
        width: u32,
        height: u32,
    },
}

/// What is wanted of a movie.
#[derive(Debug)]
pub(super) struct Develop {
    pub(super) form: Form,
    /// Pictures, by when they are shown: milliseconds behind the first.
    pub(super) wanted: BTreeSet<u64>,
}

impl Develop {
    /// The pictures that could be decoded; blocking, and seconds of work for a long movie. The error is one of this machine, not
    /// of the movie.
    pub(super) fn run(mut self, movie: &[u8]) -> Result<BTreeMap<u64, Vec<u8>>, String> {
        let here = |error: std::io::Error| format!("a temporary file: {error}");
        let mut file = tempfile::Builder::new().suffix(".mp4").tempfile().map_err(here)?;
        file.write_all(movie).map_err(here)?;
        let start = ProducerTimestamp::from_millis(0);
        let mut video = match VideoFile::open(file.path(), f64::INFINITY, start) {
            Ok(video) => video,
            Err(error) => return of_machine(&error).map_or(Ok(BTreeMap::new()), Err),
        };
        let mut found = BTreeMap::new();
        while !self.wanted.is_empty() {
            match video.poll(LOOK) {
                Ok(Step::Picture(picture)) => {
                    let at_ms = u64::try_from(picture.position.as_millis()).unwrap_or(u64::MAX);
                    if self.wanted.remove(&at_ms)
                        && let Some(image) = self.form.encode(&picture.frame.picture())
                    {
                        found.insert(at_ms, image);
                    }
                }
                Ok(Step::NotYet) => {}
                Ok(Step::End) => break,
                Err(error) => match of_machine(&error) {
                    Some(problem) => return Err(problem),
                    None => {
                        tracing::debug!(%error, "pictures that cannot be decoded");
                        break;
                    }
                },
            }
        }
        Ok(found)
    }
}

/// In words, if another movie would fare no better.
fn of_machine(error: &FileError) -> Option<String> {
    match error {
        FileError::Gstreamer(_) | FileError::File { .. } | FileError::NoElement { .. } => {
            Some(error.to_string())
        }
        // The file is ours, and of H.264 or H.265: what is missing is a plugin.
        FileError::NoDecoder { what, package, .. } => {
            Some(format!("GStreamer has nothing that reads {}; install {package}", what.join(", ")))
        }
        FileError::NoVideo { .. }
        | FileError::Damaged { .. }
        | FileError::CutShort { .. }
        | FileError::Silent { .. } => None,
    }
}

impl Form {
    fn encode(&self, picture: &Picture<'_>) -> Option<Vec<u8>> {
        let (width, height) = self.size.of(picture.width, picture.height);
        let rgb = rgb::resize(picture, width, height);
        match self.jpeg_quality {
            Some(quality) => jpeg(&rgb, quality),
            None => png(&rgb),
        }
    }
}

impl Size {
    fn of(self, width: usize, height: usize) -> (usize, usize) {
        match self {
            Self::Own => (width, height),
            Self::Height(wanted) => {
                let wanted = wanted as usize;
                (((width * wanted + height / 2) / height.max(1)).max(1), wanted)
            }
            Self::Stretched { width, height } => (width as usize, height as usize),
        }
    }
}

fn jpeg(rgb: &Rgb, quality: u8) -> Option<Vec<u8>> {
    let (width, height) = (u16::try_from(rgb.width).ok()?, u16::try_from(rgb.height).ok()?);
    let mut file = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut file, quality);
    encoder.encode(&rgb.bytes, width, height, ColorType::Rgb).ok()?;
    Some(file)
}

fn png(rgb: &Rgb) -> Option<Vec<u8>> {
    let (width, height) = (u32::try_from(rgb.width).ok()?, u32::try_from(rgb.height).ok()?);
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header().ok()?.write_image_data(&rgb.bytes).ok()?;
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_height_alone_keeps_the_shape() {
        assert_eq!(Size::Own.of(640, 360), (640, 360));
        assert_eq!(Size::Height(180).of(640, 360), (320, 180));
        assert_eq!(Size::Height(1).of(640, 360), (2, 1));
        assert_eq!(Size::Height(1).of(16, 2_000), (1, 1));
        assert_eq!(Size::Stretched { width: 10, height: 300 }.of(640, 360), (10, 300));
    }
}
