//! What the detector finds, drawn into an MP4 file: boxes with track ids, zones and lines. For whoever tunes them.
//!
//! Drawing and encoding have a thread and a process (`gst-launch-1.0`) of their own. When they are behind, pictures are
//! left out, so the daemon is not slowed down.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, sync_channel};

use analytics::AnnotatedFrame;
use config::{CameraDetect, Config};
use messages::UtcTime;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;
use vision::overlay::{self, Mark};
use vision::rgb::{self, Rgb};
use vision::rules::{Line, Zone};

use crate::camera::CameraView;

/// Pictures waiting to be drawn.
const PLACES: usize = 4;
/// Largest picture in the file.
const MAX_SIZE: (usize, usize) = (1280, 720);
const ENCODER: &str = "gst-launch-1.0";

#[derive(Debug, thiserror::Error)]
pub enum VideoError {
    #[error("--save-video {camera}: the configuration has no such camera; it has {}", .cameras.join(", "))]
    NoCamera { camera: String, cameras: Vec<String> },
    #[error(
        "--save-video {camera}: nothing is detected on this camera; install a detector (`cargo xtask model`) or name one in [detect], and leave enabled"
    )]
    NoDetection { camera: String },
    #[error("`{ENCODER}` does not start: {0}; install the Debian package gstreamer1.0-tools")]
    Encoder(std::io::Error),
    #[error("no thread to draw in: {0}")]
    Thread(std::io::Error),
    #[error("{path}: the encoder ended early: {message}")]
    Ended { path: PathBuf, message: String },
}

/// `CAMERA=FILE.mp4`, as an argument of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaveVideo {
    /// Id of the camera.
    pub camera: String,
    pub file: PathBuf,
}

impl FromStr for SaveVideo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').filter(|(camera, file)| !camera.is_empty() && !file.is_empty());
        let (camera, file) =
            parts.ok_or_else(|| format!("found `{text}`, expected CAMERA=FILE such as gate=gate.mp4"))?;
        Ok(Self { camera: camera.to_owned(), file: PathBuf::from(file) })
    }
}

impl SaveVideo {
    /// Finds out before anything runs whether this can be done.
    pub fn check(&self, config: &Config) -> Result<(), VideoError> {
        let camera = self.camera.clone();
        match config.cameras.iter().find(|camera| camera.id == self.camera) {
            None => {
                let cameras = config.cameras.iter().map(|camera| camera.id.clone()).collect();
                Err(VideoError::NoCamera { camera, cameras })
            }
            Some(found) if !found.enabled || found.detect.is_none() || config.detect.is_none() => {
                Err(VideoError::NoDetection { camera })
            }
            Some(_) => check_encoder(),
        }
    }
}

/// Whether there is something to encode with.
pub(crate) fn check_encoder() -> Result<(), VideoError> {
    let mut version = Command::new(ENCODER);
    version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    version.status().map(drop).map_err(VideoError::Encoder)
}

/// A file that is being written.
pub struct OverlayVideo {
    feed: JoinHandle<()>,
    writer: std::thread::JoinHandle<Result<u64, VideoError>>,
    path: PathBuf,
}

impl OverlayVideo {
    /// Draws this camera from now on; the file begins with its first picture.
    pub fn start(path: &Path, camera: &CameraView) -> Result<Self, VideoError> {
        let (Some(analytics), Some(detect)) = (&camera.analytics, &camera.config.detect) else {
            return Err(VideoError::NoDetection { camera: camera.config.id.clone() });
        };
        let mut frames = analytics.frames.subscribe();
        let (pictures, waiting) = sync_channel(PLACES);
        let feed = tokio::spawn(async move {
            loop {
                match frames.recv().await {
                    Ok(picture) => drop(pictures.try_send(picture)), // left out when the encoder is behind
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        });
        let (file, name, detect) = (path.to_owned(), camera.config.id.clone(), detect.clone());
        let writer = std::thread::Builder::new()
            .name("video".to_owned())
            .spawn(move || write(&waiting, &file, &name, &detect))
            .map_err(VideoError::Thread)?;
        Ok(Self { feed, writer, path: path.to_owned() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Completes the file; returns the number of pictures in it.
    pub async fn finish(self) -> Result<u64, VideoError> {
        self.feed.abort(); // lets go of the sender, which ends the writer
        let _ = self.feed.await;
        let path = self.path.clone();
        let ended = tokio::task::spawn_blocking(move || self.writer.join()).await;
        let crashed = || VideoError::Ended { path: path.clone(), message: "its thread crashed".to_owned() };
        ended.map_err(|_| crashed())?.map_err(|_| crashed())?
    }
}

/// Draws and encodes until the sender is gone; the number of pictures written.
fn write(
    pictures: &Receiver<AnnotatedFrame>,
    path: &Path,
    camera: &str,
    detect: &CameraDetect,
) -> Result<u64, VideoError> {
    let mut file = DrawnFile::new(path, detect, detect.fps);
    for annotated in pictures {
        let header = format!("{camera}  {}", UtcTime::from_millis(annotated.frame.timestamp().as_millis()));
        file.add(&annotated, &header)?;
    }
    file.finish()
}

/// An MP4 file that grows by one drawn picture after another, at a constant rate. It is there from the first picture on.
pub(crate) struct DrawnFile {
    path: PathBuf,
    fps: f64,
    zones: Vec<Zone>,
    lines: Vec<Line>,
    encoder: Option<Encoder>,
    /// Of the pictures in the file: one that comes in another size is drawn into the first one's.
    size: (usize, usize),
    /// The last picture as it was drawn.
    drawn: Rgb,
    written: u64,
}

impl DrawnFile {
    /// With the zones and lines of `detect`.
    pub(crate) fn new(path: &Path, detect: &CameraDetect, fps: f64) -> Self {
        Self {
            path: path.to_owned(),
            fps,
            zones: detect.rules.zones.clone(),
            lines: detect.rules.lines.clone(),
            encoder: None,
            size: (0, 0),
            drawn: Rgb::default(),
            written: 0,
        }
    }

    pub(crate) fn add(&mut self, annotated: &AnnotatedFrame, header: &str) -> Result<(), VideoError> {
        let picture = annotated.frame.picture();
        if self.encoder.is_none() {
            self.size = drawn_size(picture.width, picture.height);
            self.encoder = Some(Encoder::start(&self.path, self.size, self.fps)?);
        }
        self.drawn = rgb::resize(&picture, self.size.0, self.size.1);
        let confirmed = annotated.tracks.iter().filter(|track| track.confirmed);
        let labels = &annotated.model.labels;
        let marks: Vec<_> = confirmed
            .map(|track| Mark {
                rect: track.rect,
                class: track.class,
                label: labels.get(usize::from(track.class)).map_or("?", String::as_str),
                score: track.smoothed_score,
                track: Some(track.id),
                seen_now: track.seen_now,
            })
            .collect();
        let scene = overlay::Scene { header, zones: &self.zones, lines: &self.lines, marks: &marks };
        overlay::draw(&mut self.drawn, &scene);
        self.again()
    }

    /// The last picture once more.
    pub(crate) fn again(&mut self) -> Result<(), VideoError> {
        let Some(encoder) = &mut self.encoder else { return Ok(()) };
        if let Err(error) = encoder.input.write_all(&self.drawn.bytes) {
            // The encoder itself knows more.
            let said = self.encoder.take().and_then(|encoder| encoder.finish().err());
            let message = said.filter(|said| !said.is_empty()).unwrap_or_else(|| error.to_string());
            return Err(VideoError::Ended { path: self.path.clone(), message });
        }
        self.written += 1;
        Ok(())
    }

    /// Completes the file; the number of pictures in it. Without any there is no file.
    pub(crate) fn finish(self) -> Result<u64, VideoError> {
        let Some(encoder) = self.encoder else { return Ok(0) };
        encoder.finish().map_err(|message| VideoError::Ended { path: self.path, message })?;
        Ok(self.written)
    }
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
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0.1 to 30 by its check")]
        let millihertz = (fps * 1000.0).round() as u32;
        let bytes = width * height * 3;
        let pipeline = format!(
            "fdsrc fd=0 blocksize={bytes} ! rawvideoparse format=rgb width={width} height={height} \
             framerate={millihertz}/1000 ! videoconvert ! x264enc speed-preset=veryfast pass=quant quantizer=23 \
             ! h264parse ! mp4mux faststart=true ! filesink"
        );
        let mut command = Command::new(ENCODER);
        // In its descriptions a backslash escapes what follows.
        let location = format!("location={}", path.display()).replace('\\', r"\\");
        command.arg("-q").args(pipeline.split_whitespace()).arg(location);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        // Ctrl-C on the terminal is for the daemon, which then completes the file.
        command.process_group(0);
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
        Err(explained(String::from_utf8_lossy(&output.stderr).trim()))
    }
}

/// What the encoder said; where it misses an element, what to install.
fn explained(stderr: &str) -> String {
    const PACKAGES: [(&str, &str); 4] = [
        ("x264enc", "gstreamer1.0-plugins-ugly"),
        ("rawvideoparse", "gstreamer1.0-plugins-bad"),
        ("h264parse", "gstreamer1.0-plugins-bad"),
        ("mp4mux", "gstreamer1.0-plugins-good"),
    ];
    let missing = |(element, _): &&(&str, &str)| stderr.contains(&format!("no element \"{element}\""));
    match PACKAGES.iter().find(missing) {
        Some((element, package)) => {
            format!("GStreamer has no element `{element}`; install the Debian package {package}")
        }
        None => stderr.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_argument_names_a_camera_and_a_file() {
        let parsed = SaveVideo { camera: "gate".into(), file: "/tmp/a=b.mp4".into() };
        assert_eq!("gate=/tmp/a=b.mp4".parse(), Ok(parsed));
        for text in ["", "gate", "gate=", "=a.mp4"] {
            let error = text.parse::<SaveVideo>().expect_err("incomplete");
            assert_eq!(error, format!("found `{text}`, expected CAMERA=FILE such as gate=gate.mp4"));
        }
    }

    #[test]
    fn a_camera_that_is_not_there_or_detects_nothing_is_refused_before_anything_runs() {
        let environment = config::Environment::default();
        let file = |detect: &str| {
            let text = format!(
                "[device]\nid = \"box\"\n[aws]\nregion = \"us-west-2\"\n{detect}\n[[camera]]\nid = \"gate\"\nurl = \"rtsp://192.0.2.1/x\"\n"
            );
            Config::parse(text.as_bytes(), &environment).expect("a right configuration")
        };
        let error = |text: &str, config: &Config| {
            let video: SaveVideo = text.parse().expect("a camera and a file");
            video.check(config).expect_err(text).to_string()
        };
        let (without, with) = (file(""), file("[detect]"));
        let expected = "--save-video yard: the configuration has no such camera; it has gate";
        assert_eq!(error("yard=a.mp4", &with), expected);
        assert!(error("gate=a.mp4", &without).contains("install a detector"));
        let mut off = file("[detect]");
        off.cameras[0].enabled = false;
        assert!(error("gate=a.mp4", &off).contains("leave enabled"));
    }

    #[test]
    fn a_missing_element_is_named_with_its_package() {
        let said = explained("WARNING: erroneous pipeline: no element \"x264enc\"");
        assert_eq!(
            said,
            "GStreamer has no element `x264enc`; install the Debian package gstreamer1.0-plugins-ugly"
        );
        assert_eq!(explained("ERROR: the disk is full"), "ERROR: the disk is full");
    }

    #[test]
    fn drawn_sizes_fit_the_file_and_keep_their_shape() {
        for (size, drawn) in [
            ((640, 360), (640, 360)),
            ((1920, 1080), (1280, 720)),
            ((1080, 1920), (404, 720)),
            ((641, 361), (640, 360)),
            ((1, 1), (4, 2)),
        ] {
            assert_eq!(drawn_size(size.0, size.1), drawn, "{size:?}");
        }
    }
}
