//! What GStreamer's threads do with a file: which streams go where, which pictures are wanted, and when they are shown.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gst::glib::translate::IntoGlib;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_video as gst_video;
use media::ProducerTimestamp;

use super::{About, DynamicRange, nanoseconds, set};
use crate::pace::Pace;
use crate::pipeline::lock;

/// Between two pictures of a stream that does not say its rate.
const USUAL_INTERVAL_NS: u64 = 40_000_000;
/// A step back in time that is larger begins anew behind what was there; a smaller one is disorder.
const JUMP_NS: u64 = 1_000_000_000;
const NS_PER_MS: u64 = 1_000_000;

/// Shared with GStreamer's threads.
pub(super) struct Intake {
    start: ProducerTimestamp,
    pace: Pace,
    /// Wanted pictures on their way to the end, with their time in the pipeline.
    pub(super) due: VecDeque<(Option<gst::ClockTime>, Due)>,
    pub(super) decoded: u64,
    pub(super) damaged: u64,
    /// Time of the first picture in the stream's own terms.
    pub(super) first_ns: Option<u64>,
    /// Position of the last picture, and what is added behind jumps.
    pub(super) position_ns: Option<u64>,
    offset_ns: u64,
    /// Last timestamp given, milliseconds from the start.
    last_ms: Option<u64>,
    /// How far anything else in the file has come.
    pub(super) others_ns: u64,
    pub(super) linked: bool,
    pub(super) complete: bool,
    pub(super) about: About,
    pub(super) interval_ns: u64,
    /// What is in the file besides, and what nothing reads.
    pub(super) holds: BTreeSet<String>,
    pub(super) unknown: BTreeSet<String>,
}

#[derive(Clone, Copy)]
pub(super) struct Due {
    pub(super) number: u64,
    pub(super) at: ProducerTimestamp,
    pub(super) position: Duration,
}

/// Name and telling fields of caps: `audio/mpeg`, `video/x-h265`, `video/x-unknown (V_...)`.
fn kind(caps: &gst::CapsRef) -> String {
    let Some(structure) = caps.structure(0) else { return "an empty stream".to_owned() };
    let id = ["codec-id", "fourcc", "format"].iter().find_map(|field| structure.get::<String>(*field).ok());
    match id.filter(|_| structure.name().ends_with("unknown")) {
        Some(id) => format!("{} ({id})", structure.name()),
        None => structure.name().to_string(),
    }
}

/// Connects what decodebin finds.
pub(super) fn watch(
    pipeline: &gst::Pipeline,
    decodebin: &gst::Element,
    convert: &gst::Element,
    shared: &Arc<Mutex<Intake>>,
) {
    pipeline.connect_deep_element_added(|_, _, element| {
        // No number of damaged pictures ends the file (GStreamer before 1.18: ten), and none that is wrong is shown.
        set(element, "max-errors", "-1");
        set(element, "output-corrupt", "false");
    });
    // Sound and subtitles stay coded.
    decodebin.connect("autoplug-continue", false, |values| {
        let caps = values.get(2).and_then(|value| value.get::<gst::Caps>().ok());
        let name = caps.as_ref().and_then(|caps| caps.structure(0)).map(|structure| structure.name());
        let coded = |name: &gst::glib::GStr| {
            ["audio/", "text/", "subpicture/"].iter().any(|kind| name.starts_with(kind))
        };
        Some((!name.is_some_and(coded)).to_value())
    });
    let intake = shared.clone();
    decodebin.connect("unknown-type", false, move |values| {
        if let Some(caps) = values.get(2).and_then(|value| value.get::<gst::Caps>().ok()) {
            lock(&intake).unknown.insert(kind(&caps));
        }
        None
    });
    let intake = shared.clone();
    decodebin.connect_no_more_pads(move |_| lock(&intake).complete = true);
    let (intake, bin, convert) = (shared.clone(), pipeline.downgrade(), convert.downgrade());
    decodebin.connect_pad_added(move |_, pad| {
        let (Some(bin), Some(convert)) = (bin.upgrade(), convert.upgrade()) else { return };
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let is_video = caps.structure(0).is_some_and(|structure| structure.name() == "video/x-raw");
        let first = is_video && !std::mem::replace(&mut lock(&intake).linked, true);
        if first && let Some(input) = convert.static_pad("sink") {
            let taken = intake.clone();
            pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| match info.buffer() {
                Some(buffer) if !lock(&taken).takes(pad, buffer) => gst::PadProbeReturn::Drop,
                _ => gst::PadProbeReturn::Ok,
            });
            if let Err(error) = pad.link(&input) {
                let text = format!("{}: {error}", kind(&caps));
                bin.post_message(gst::message::Error::new(gst::StreamError::Format, &text)).ok();
            }
            return;
        }
        other(&intake, &bin, pad, &caps, is_video);
    });
}

/// A stream that nobody looks at.
fn other(
    intake: &Arc<Mutex<Intake>>,
    bin: &gst::Pipeline,
    pad: &gst::Pad,
    caps: &gst::CapsRef,
    is_video: bool,
) {
    {
        let mut intake = lock(intake);
        intake.about.other_videos += u32::from(is_video);
        intake.holds.insert(kind(caps));
    }
    let seen = intake.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        if let Some(buffer) = info.buffer()
            && let Some(at) = stream_time(pad, buffer)
        {
            let end = at.saturating_add(buffer.duration().map_or(0, gst::ClockTime::nseconds));
            let mut intake = lock(&seen);
            intake.others_ns = intake.others_ns.max(end);
        }
        gst::PadProbeReturn::Drop
    });
    let sink = gst::ElementFactory::make("fakesink").property("sync", false).property("async", false).build();
    // Without one the stream goes nowhere, which decodebin bears.
    if let Ok(sink) = sink
        && bin.add(&sink).is_ok()
        && let Some(input) = sink.static_pad("sink")
    {
        let _ = pad.link(&input);
        let _ = sink.sync_state_with_parent();
    }
}

/// Position in the file, nanoseconds.
fn stream_time(pad: &gst::Pad, buffer: &gst::BufferRef) -> Option<u64> {
    let pts = buffer.pts().or_else(|| buffer.dts())?;
    let segment = pad.sticky_event::<gst::event::Segment>(0);
    let time = segment.and_then(|event| {
        event.segment().downcast_ref::<gst::ClockTime>().and_then(|segment| segment.to_stream_time(pts))
    });
    Some(time.unwrap_or(pts).nseconds())
}

impl Intake {
    pub(super) fn new(rate: f64, start: ProducerTimestamp) -> Intake {
        Intake {
            start,
            pace: Pace::new(rate),
            due: VecDeque::new(),
            decoded: 0,
            damaged: 0,
            first_ns: None,
            position_ns: None,
            offset_ns: 0,
            last_ms: None,
            others_ns: 0,
            linked: false,
            complete: false,
            about: About::default(),
            interval_ns: USUAL_INTERVAL_NS,
            holds: BTreeSet::new(),
            unknown: BTreeSet::new(),
        }
    }

    /// A picture came out of the decoder. Whether it is wanted.
    fn takes(&mut self, pad: &gst::Pad, buffer: &gst::Buffer) -> bool {
        if self.decoded == 0
            && let Some(caps) = pad.current_caps()
        {
            self.learn(&caps);
        }
        self.decoded += 1;
        let position_ns = self.position(stream_time(pad, buffer));
        if buffer.flags().contains(gst::BufferFlags::CORRUPTED) {
            self.damaged += 1;
            return false;
        }
        let ms = self.last_ms.map_or(0, |last| last + 1).max(position_ns / NS_PER_MS);
        let Some(at) = self.start.checked_add_ms(ms) else { return false };
        if !self.pace.wants(at) {
            return false;
        }
        self.last_ms = Some(ms);
        let due = Due { number: self.decoded, at, position: Duration::from_nanos(position_ns) };
        self.due.push_back((buffer.pts(), due));
        true
    }

    /// The position of a picture whose stream says this time: never before that of the last one.
    fn position(&mut self, time_ns: Option<u64>) -> u64 {
        let next = self.position_ns.map_or(0, |last| last.saturating_add(self.interval_ns));
        let Some(time) = time_ns else {
            self.about.untimed = true;
            self.position_ns = Some(next);
            return next;
        };
        let first = *self.first_ns.get_or_insert(time);
        let said = time.saturating_add(self.offset_ns).saturating_sub(first);
        let position = match self.position_ns {
            Some(last) if said.saturating_add(JUMP_NS) < last => {
                self.offset_ns = self.offset_ns.saturating_add(next - said);
                next
            }
            last => said.max(last.unwrap_or(0)),
        };
        self.position_ns = Some(position);
        position
    }

    fn learn(&mut self, caps: &gst::CapsRef) {
        let Ok(info) = gst_video::VideoInfo::from_caps(caps) else { return };
        self.about.coded = (info.width(), info.height());
        self.about.bits = info.format_info().depth().first().copied().unwrap_or(8);
        // By number: the names are of GStreamer 1.18.
        self.about.dynamic_range = match info.colorimetry().transfer().into_glib() {
            14 => DynamicRange::Pq,
            15 => DynamicRange::Hlg,
            _ => DynamicRange::Standard,
        };
        let (number, of) = (info.fps().numer(), info.fps().denom());
        if number > 0 && of > 0 {
            let rate = f64::from(number) / f64::from(of);
            self.about.rate = Some(rate);
            self.interval_ns = nanoseconds(Duration::from_secs_f64(1.0 / rate));
        }
    }
}
