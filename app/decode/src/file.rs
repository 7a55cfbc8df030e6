//! Pictures of a video file, of any format that GStreamer reads.
//!
//! ```text
//!  filesrc ! decodebin --first video--> [rate, times] ! videoconvert ! videoflip ! appsink, 2 --> poll
//!                      --the rest, still coded--> fakesink (only its times are looked at)
//! ```
//!
//! * **Which pictures are taken depends on their times alone**, never on how fast they are asked for: the decoder waits
//!   for whoever asks, so memory stays flat and the same file always yields the same pictures.
//! * Times count from the first picture, in whole milliseconds, and strictly increase: of files without times, with
//!   jumps and with a variable frame rate too.
//! * What a phone notes about how it was held is followed: pictures come upright. Other sample formats (10 bit, 4:4:4, HDR)
//!   are converted to 8 bit 4:2:0; the brightness of HDR is not mapped, and [`About`] says so.
//! * Damage is part of a file's life: a picture that cannot be decoded, or is known to be wrong, is counted and left out.
//!   A file that ends long before its own header says is told as cut short. (AVI and MPEG-TS have no such word.)

mod intake;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use media::ProducerTimestamp;

use crate::choose::error_text;
use crate::frame::{Frame, Layout};
use crate::ledger::Entry;
use crate::pipeline::lock;
use crate::{DecodeError, init};
use intake::{Intake, watch};

/// Decoded pictures that wait for whoever asks.
const PLACES: u32 = 2;
/// Of waiting without one picture out of the decoder.
const SILENCE: Duration = Duration::from_secs(60);
/// A file that ends this long before its end, or this part of it, is cut short: headers round.
const SHORT_NS: u64 = 1_000_000_000;
const SHORT_PART: u64 = 50;

/// Elements of every pipeline, with the Debian package of each.
const ELEMENTS: [(&str, &str); 5] = [
    ("filesrc", "libgstreamer1.0-0"),
    ("decodebin", "gstreamer1.0-plugins-base"),
    ("videoconvert", "gstreamer1.0-plugins-base"),
    ("videoflip", "gstreamer1.0-plugins-good"),
    ("appsink", "gstreamer1.0-plugins-base"),
];

/// Why there are no (more) pictures of a file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error(transparent)]
    Gstreamer(#[from] DecodeError),
    #[error("{path}: {source}; expected a video file that this user may read")]
    File { path: PathBuf, source: std::io::Error },
    #[error("GStreamer has no element `{element}`; install the Debian package {package}")]
    NoElement { element: &'static str, package: &'static str },
    #[error("{path} holds no video, but {}", list(.holds))]
    NoVideo { path: PathBuf, holds: Vec<String> },
    #[error("{path}: GStreamer has nothing that reads {}; install the Debian package {package}", list(.what))]
    NoDecoder { path: PathBuf, what: Vec<String>, package: &'static str },
    #[error("{path} is damaged at {}, or no video file; GStreamer: {message}", seconds(*.at))]
    Damaged { path: PathBuf, at: Duration, message: String },
    #[error("{path} ends at {}, expected {} by its own header: it is cut short", seconds(*.at), seconds(*.expected))]
    CutShort { path: PathBuf, at: Duration, expected: Duration },
    #[error("{path}: no picture out of the decoder for {} s at {}", SILENCE.as_secs(), seconds(*.at))]
    Silent { path: PathBuf, at: Duration },
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "nothing that GStreamer knows".to_owned() } else { items.join(", ") }
}

fn seconds(at: Duration) -> String {
    format!("{:.1} s", at.as_secs_f64())
}

/// How the brightness of the pictures is coded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DynamicRange {
    #[default]
    Standard,
    /// SMPTE ST 2084.
    Pq,
    /// ARIB STD-B67.
    Hlg,
}

/// What a file turned out to be; complete once the first picture has come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct About {
    /// In GStreamer's words: "H.264 (High Profile)".
    pub codec: Option<String>,
    /// Width and height of the coded pictures.
    pub coded: (u32, u32),
    /// Bits of a sample.
    pub bits: u32,
    pub dynamic_range: DynamicRange,
    /// By the header; some formats have none, and of some it is an estimate.
    pub duration: Option<Duration>,
    /// Pictures per second by the header; absent where the rate varies.
    pub rate: Option<f64>,
    /// Its header says that the pictures have to be turned or mirrored.
    pub turned: bool,
    /// It does not say when its pictures are shown: 25 per second are assumed, or the rate of the header.
    pub untimed: bool,
    /// Videos besides the first, which are not looked at.
    pub other_videos: u32,
}

/// What came of waiting.
#[derive(Debug)]
pub enum Step {
    Picture(FilePicture),
    /// Nothing in this time.
    NotYet,
    /// The whole file has been read.
    End,
}

/// One picture of a file.
#[derive(Clone, Debug)]
pub struct FilePicture {
    /// Its timestamp is the position behind the given start.
    pub frame: Arc<Frame>,
    /// Number among all pictures of the file that could be decoded, from 1.
    pub number: u64,
    /// Behind the first picture.
    pub position: Duration,
}

/// How far a file has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Pictures out of the decoder, wanted or not.
    pub decoded: u64,
    /// Of these, known to be wrong and left out.
    pub damaged: u64,
    /// Position of the last one.
    pub position: Duration,
}

/// A file that is being read. Dropping it ends that.
pub struct VideoFile {
    path: PathBuf,
    pipeline: gst::Pipeline,
    bus: gst::Bus,
    sink: gst_app::AppSink,
    shared: Arc<Mutex<Intake>>,
    layout: Option<(gst::Caps, Layout)>,
    codec: Option<String>,
    turned: bool,
    duration: Option<gst::ClockTime>,
    /// Waited for nothing, and how many pictures there were when that began.
    silent: (Duration, u64),
    /// How often nothing was found at work.
    dead: u32,
}

impl VideoFile {
    /// Begins to read; pictures come out of [`poll`](Self::poll). `rate`: pictures to hand on per second of the file's time,
    /// every picture if that is no positive finite number. `start`: the timestamp of position zero.
    pub fn open(path: &Path, rate: f64, start: ProducerTimestamp) -> Result<VideoFile, FileError> {
        let failed = |source| FileError::File { path: path.to_owned(), source };
        // Whether it can be read is not to be found out by GStreamer.
        let metadata = std::fs::File::open(path).and_then(|file| file.metadata()).map_err(failed)?;
        if !metadata.is_file() {
            return Err(failed(std::io::Error::other("this is not a file")));
        }
        if metadata.len() == 0 {
            return Err(failed(std::io::Error::other("the file is empty")));
        }
        init()?;
        let shared = Arc::new(Mutex::new(Intake::new(rate, start)));
        let pipeline = gst::Pipeline::new();
        let [source, decodebin, convert, flip, sink] = elements()?;
        source.set_property("location", path);
        for element in [&convert, &flip] {
            set(element, "qos", "false");
        }
        set(&convert, "dither", "none");
        set(&flip, "video-direction", "auto");
        let sink = sink.downcast::<gst_app::AppSink>().expect("appsink is an AppSink");
        sink.set_property("sync", false);
        sink.set_property("max-buffers", PLACES);
        sink.set_property("enable-last-sample", false);
        sink.set_property("qos", false);
        let formats = ["I420", "NV12"].map(|format| format.to_send_value());
        let caps = gst::Caps::builder("video/x-raw").field("format", gst::List::new(formats)).build();
        sink.set_caps(Some(&caps));
        let broken =
            |message: String| FileError::Damaged { path: path.to_owned(), at: Duration::ZERO, message };
        let all = [&source, &decodebin, &convert, &flip, sink.upcast_ref()];
        pipeline.add_many(all).map_err(|error| broken(error.to_string()))?;
        gst::Element::link_many([&convert, &flip, sink.upcast_ref()])
            .and_then(|()| source.link(&decodebin))
            .map_err(|error| broken(error.to_string()))?;
        watch(&pipeline, &decodebin, &convert, &shared);
        let bus = pipeline.bus().ok_or_else(|| broken("a pipeline without a bus".to_owned()))?;
        let file = VideoFile {
            path: path.to_owned(),
            pipeline,
            bus,
            sink,
            shared,
            layout: None,
            codec: None,
            turned: false,
            duration: None,
            silent: (Duration::ZERO, 0),
            dead: 0,
        };
        // An error also stands on the bus, with more words, and is told by `poll`.
        let _ = file.pipeline.set_state(gst::State::Playing);
        Ok(file)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn about(&self) -> About {
        let duration = self.duration.map(Duration::from);
        let about = lock(&self.shared).about.clone();
        About { codec: self.codec.clone(), turned: self.turned, duration, ..about }
    }

    pub fn progress(&self) -> Progress {
        let intake = lock(&self.shared);
        let position = Duration::from_nanos(intake.position_ns.unwrap_or_default());
        Progress { decoded: intake.decoded, damaged: intake.damaged, position }
    }

    /// Waits for the next picture, for this long at most. After an error or the end there is none.
    pub fn poll(&mut self, wait: Duration) -> Result<Step, FileError> {
        let sample = self.sink.try_pull_sample(gst::ClockTime::from_nseconds(nanoseconds(wait)));
        let error = self.read_bus();
        let Some(sample) = sample else { return self.nothing(wait, error) };
        if self.duration.is_none() {
            self.duration = self.pipeline.query_duration::<gst::ClockTime>();
        }
        self.silent = (Duration::ZERO, 0);
        if let Some(message) = error {
            // What had been decoded before it still comes.
            self.bus.post(gst::message::Error::new(gst::StreamError::Failed, &message)).ok();
        }
        self.picture(&sample).map(Step::Picture)
    }

    fn nothing(&mut self, wait: Duration, error: Option<String>) -> Result<Step, FileError> {
        let progress = self.progress();
        let (path, at) = (self.path.clone(), progress.position);
        let (linked, complete, unknown, holds) = {
            let intake = lock(&self.shared);
            let texts = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>();
            (intake.linked, intake.complete, texts(&intake.unknown), texts(&intake.holds))
        };
        if !linked && (complete || error.is_some()) {
            if let Some(what) = unknown.iter().find(|what| what.starts_with("video/")) {
                return Err(FileError::NoDecoder { path, what: vec![what.clone()], package: package(what) });
            }
            if complete || !holds.is_empty() {
                return Err(FileError::NoVideo { path, holds });
            }
            if let Some(what) = unknown.first() {
                return Err(FileError::NoDecoder { path, package: package(what), what: unknown });
            }
        }
        if let Some(message) = error {
            return Err(FileError::Damaged { path, at, message });
        }
        if self.sink.is_eos() {
            return self.end(at);
        }
        if !linked && !self.reads() {
            self.dead += 1;
            if self.dead > 1 {
                let message = "its parts cannot be told apart".to_owned();
                return Err(FileError::Damaged { path, at, message });
            }
        }
        let (waited, before) = self.silent;
        self.silent =
            if before == progress.decoded { (waited + wait, before) } else { (wait, progress.decoded) };
        if self.silent.0 >= SILENCE {
            return Err(FileError::Silent { path, at });
        }
        Ok(Step::NotYet)
    }

    /// Whether any element still works on the file. decodebin (1.22) may lose the error of a demultiplexer that fails while it
    /// is being plugged in; all that is left of it is a thread that rests.
    fn reads(&self) -> bool {
        let works = |pad: &gst::Pad| pad.task_state() == gst::TaskState::Started;
        let elements = self.pipeline.iterate_recurse().into_iter().flatten();
        elements.into_iter().any(|element| element.pads().iter().any(works))
    }

    fn end(&self, at: Duration) -> Result<Step, FileError> {
        let intake = lock(&self.shared);
        let path = self.path.clone();
        if intake.decoded == 0 {
            let message = "not one picture could be decoded".to_owned();
            return Err(FileError::Damaged { path, at, message });
        }
        let last = intake.first_ns.unwrap_or_default().saturating_add(intake.position_ns.unwrap_or_default());
        let ends = last.saturating_add(intake.interval_ns).max(intake.others_ns);
        if let Some(duration) = self.duration.map(gst::ClockTime::nseconds)
            && ends + SHORT_NS.max(duration / SHORT_PART) < duration
        {
            let expected = Duration::from_nanos(duration);
            return Err(FileError::CutShort { path, at, expected });
        }
        Ok(Step::End)
    }

    /// Takes what GStreamer has said, so that nothing piles up; returns the first error.
    fn read_bus(&mut self) -> Option<String> {
        let mut error = None;
        while let Some(message) = self.bus.pop() {
            match message.view() {
                gst::MessageView::Error(_) => error = error.or_else(|| Some(error_text(&message))),
                gst::MessageView::Tag(tag) => {
                    let tags = tag.tags();
                    if let Some(codec) = tags.get::<gst::tags::VideoCodec>() {
                        self.codec = Some(codec.get().to_owned());
                    }
                    if let Some(orientation) = tags.get::<gst::tags::ImageOrientation>() {
                        self.turned = orientation.get() != "rotate-0";
                    }
                }
                _ => {}
            }
        }
        error
    }

    fn picture(&mut self, sample: &gst::Sample) -> Result<FilePicture, FileError> {
        let at = self.progress().position;
        let wrong = |found: String| FileError::Damaged {
            path: self.path.clone(),
            at,
            message: format!("a picture that cannot be read: {found}"),
        };
        let (Some(buffer), Some(caps)) = (sample.buffer_owned(), sample.caps_owned()) else {
            return Err(wrong("a sample without picture or format".to_owned()));
        };
        let due = {
            let mut intake = lock(&self.shared);
            let place = intake.due.iter().position(|(pts, _)| *pts == buffer.pts());
            place.and_then(|place| intake.due.drain(..=place).next_back())
        };
        let (_, due) = due.ok_or_else(|| wrong("its time is that of no picture".to_owned()))?;
        if self.layout.as_ref().is_none_or(|(known, _)| *known != caps) {
            let layout = Layout::of(&caps).map_err(wrong)?;
            self.layout = Some((caps, layout));
        }
        let (_, layout) = self.layout.as_ref().expect("just set");
        let entry = Entry { timestamp: due.at, source: layout.size(), broken: false };
        let frame = Arc::new(Frame::new(buffer, layout, &entry).map_err(wrong)?);
        Ok(FilePicture { frame, number: due.number, position: due.position })
    }
}

impl Drop for VideoFile {
    fn drop(&mut self) {
        // An error here means that an element could not be stopped in order; there is nothing left to do with it.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn elements() -> Result<[gst::Element; 5], FileError> {
    let made = ELEMENTS.map(|(element, package)| {
        gst::ElementFactory::make(element).build().map_err(|_| FileError::NoElement { element, package })
    });
    let [a, b, c, d, e] = made;
    Ok([a?, b?, c?, d?, e?])
}

/// Leaves out what the release of GStreamer does not have.
fn set(element: &gst::Element, property: &str, value: &str) {
    if element.has_property(property) {
        element.set_property_from_str(property, value);
    }
}

/// Which Debian package is likely to read such a stream.
fn package(caps: &str) -> &'static str {
    const BY_KIND: [(&str, &str); 10] = [
        ("video/quicktime", "gstreamer1.0-plugins-good"),
        ("video/x-matroska", "gstreamer1.0-plugins-good"),
        ("video/webm", "gstreamer1.0-plugins-good"),
        ("video/x-msvideo", "gstreamer1.0-plugins-good"),
        ("video/x-flv", "gstreamer1.0-plugins-good"),
        ("video/x-vp", "gstreamer1.0-plugins-good"),
        ("video/mpegts", "gstreamer1.0-plugins-bad"),
        ("video/x-av1", "gstreamer1.0-plugins-bad"),
        ("application/mxf", "gstreamer1.0-plugins-bad"),
        ("application/ogg", "gstreamer1.0-plugins-base"),
    ];
    let known = BY_KIND.iter().find(|(kind, _)| caps.starts_with(kind));
    known.map_or("gstreamer1.0-libav", |(_, package)| package)
}
