//! What the detector sees, drawn into an MP4 file: boxes with track ids, zones and lines.
//!
//! Drawing and encoding have a thread and a process (`gst-launch-1.0`) of their own. When they are behind, pictures are
//! left out, so the demo itself is not slowed down.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};

use tokio::task::JoinHandle;
use vision::overlay::{self, Mark};
use vision::rgb;

use crate::camera::CameraView;
use crate::seeing::Shown;
use config::CameraDetect;
use messages::UtcTime;

/// Pictures waiting to be drawn.
const PLACES: usize = 4;
/// Largest picture in the file.
const MAX_SIZE: (usize, usize) = (1280, 720);

#[derive(Debug, thiserror::Error)]
pub(super) enum VideoError {
    #[error("--save-video needs detection; leave out --detect-fps 0")]
    NoDetection,
    #[error("`gst-launch-1.0` does not start: {0}; install the Debian package gstreamer1.0-tools")]
    Encoder(std::io::Error),
    #[error("{path}: the encoder ended early: {message}")]
    Ended { path: PathBuf, message: String },
}

pub(super) struct Video {
    feed: JoinHandle<()>,
    writer: std::thread::JoinHandle<Result<u64, VideoError>>,
    path: PathBuf,
}

impl Video {
    pub(super) fn start(path: &Path, camera: &CameraView, fps: f64) -> Result<Self, VideoError> {
        let (Some(seeing), Some(detect)) = (&camera.seeing, &camera.config.detect) else {
            return Err(VideoError::NoDetection);
        };
        let mut shown = seeing.shown.subscribe();
        let (pictures, waiting) = sync_channel(PLACES);
        let feed = tokio::spawn(async move {
            loop {
                match shown.recv().await {
                    Ok(picture) => drop(pictures.try_send(picture)), // left out when the encoder is behind
                    Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
                }
            }
        });
        let (file, name, detect) = (path.to_owned(), camera.config.id.clone(), detect.clone());
        let writer = std::thread::Builder::new()
            .name("video".to_owned())
            .spawn(move || write(&waiting, &file, &name, &detect, fps))
            .map_err(VideoError::Encoder)?;
        Ok(Self { feed, writer, path: path.to_owned() })
    }

    /// Completes the file; for people, what is in it.
    pub(super) async fn finish(self) -> Result<String, VideoError> {
        self.feed.abort(); // lets go of the sender, which ends the writer
        let _ = self.feed.await;
        let path = self.path.clone();
        let ended = tokio::task::spawn_blocking(move || self.writer.join()).await;
        let crashed = || VideoError::Ended { path: path.clone(), message: "its thread crashed".to_owned() };
        let pictures = ended.map_err(|_| crashed())?.map_err(|_| crashed())??;
        Ok(format!("{} ({pictures} pictures)", path.display()))
    }
}

/// Draws and encodes until the sender is gone; the number of pictures written.
fn write(
    pictures: &Receiver<Shown>,
    path: &Path,
    camera: &str,
    detect: &CameraDetect,
    fps: f64,
) -> Result<u64, VideoError> {
    let ended = |message: String| VideoError::Ended { path: path.to_owned(), message };
    let mut encoder: Option<(Encoder, (usize, usize))> = None;
    let mut written = 0;
    for shown in pictures {
        let size = drawn_size(shown.frame.picture().width, shown.frame.picture().height);
        let mut picture = rgb::resize(&shown.frame.picture(), size.0, size.1);
        let header = format!("{camera}  {}", UtcTime::from_millis(shown.frame.timestamp().as_millis()));
        let confirmed = shown.tracks.iter().filter(|track| track.confirmed);
        let marks: Vec<_> = confirmed
            .map(|track| Mark {
                rect: track.rect,
                class: track.class,
                label: shown.model.labels.get(usize::from(track.class)).map_or("?", String::as_str),
                score: track.smoothed_score,
                track: Some(track.id),
                seen_now: track.seen_now,
            })
            .collect();
        let (zones, lines) = (&detect.rules.zones, &detect.rules.lines);
        overlay::draw(&mut picture, &overlay::Scene { header: &header, zones, lines, marks: &marks });
        let (encoder, first) = match &mut encoder {
            Some(started) => started,
            None => encoder.insert((Encoder::start(path, size, fps)?, size)),
        };
        // A file has one size; a camera that changes its own is drawn into the first one's.
        if *first == size {
            encoder.input.write_all(&picture.bytes).map_err(|error| ended(error.to_string()))?;
            written += 1;
        }
    }
    let Some((encoder, _)) = encoder else { return Ok(0) };
    encoder.finish().map_err(ended)?;
    Ok(written)
}

/// The size at which a picture is drawn: rows of whole words and even sides, as the encoder wants them.
fn drawn_size(width: usize, height: usize) -> (usize, usize) {
    let (most_width, most_height) = MAX_SIZE;
    let (mut drawn_width, mut drawn_height) = (width, height);
    if drawn_width > most_width {
        (drawn_width, drawn_height) = (most_width, height * most_width / width);
    }
    if drawn_height > most_height {
        (drawn_width, drawn_height) = (width * most_height / height, most_height);
    }
    ((drawn_width & !3).max(4), (drawn_height & !1).max(2))
}

/// A `gst-launch-1.0` that takes raw pictures on its standard input.
struct Encoder {
    child: Child,
    input: ChildStdin,
}

impl Encoder {
    fn start(path: &Path, (width, height): (usize, usize), fps: f64) -> Result<Self, VideoError> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0.1 to 30 by the arguments"
        )]
        let millihertz = (fps * 1000.0).round() as u32;
        let bytes = width * height * 3;
        let pipeline = format!(
            "fdsrc fd=0 blocksize={bytes} ! rawvideoparse format=rgb width={width} height={height} \
             framerate={millihertz}/1000 ! videoconvert ! x264enc speed-preset=veryfast pass=quant quantizer=23 \
             ! h264parse ! mp4mux faststart=true ! filesink"
        );
        let mut command = Command::new("gst-launch-1.0");
        command.arg("-q").args(pipeline.split_whitespace()).arg(format!("location={}", path.display()));
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(VideoError::Encoder)?;
        let input = child.stdin.take().expect("stdin is piped");
        Ok(Self { child, input })
    }

    /// Closes its input, upon which it completes the file.
    fn finish(self) -> Result<(), String> {
        let Self { child, input } = self;
        drop(input);
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}
