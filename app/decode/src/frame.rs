//! A decoded picture as the decoder left it, mapped and not copied.

use gst_video::prelude::*;
use gstreamer as gst;
use gstreamer_video as gst_video;
use media::ProducerTimestamp;
use vision::{Colour, Matrix, Picture, Plane, Planes};

use crate::ledger::Entry;

/// One decoded picture. It holds a buffer of the decoder's pool, so keep few of them: the newest, and the one in work.
pub struct Frame {
    video: gst_video::VideoFrame<gst_video::video_frame::Readable>,
    timestamp: ProducerTimestamp,
    source: (u32, u32),
    colour: Colour,
}

impl Frame {
    /// Fails with what the picture is if it is neither I420 nor NV12, or cannot be mapped.
    pub(crate) fn new(buffer: gst::Buffer, layout: &Layout, entry: &Entry) -> Result<Frame, String> {
        let video = gst_video::VideoFrame::from_buffer_readable(buffer, &layout.info)
            .map_err(|_| format!("a buffer that cannot be mapped as {}", layout.info.format()))?;
        let (timestamp, source) = (entry.timestamp, entry.source);
        let colour = layout.colour(source.1);
        let frame = Frame { video, timestamp, source, colour };
        frame.try_picture()?;
        Ok(frame)
    }

    /// The picture, with the strides that the decoder chose.
    pub fn picture(&self) -> Picture<'_> {
        self.try_picture().expect("checked when the frame was made")
    }

    /// Exactly the producer timestamp of the access unit that this picture was coded in.
    pub fn timestamp(&self) -> ProducerTimestamp {
        self.timestamp
    }

    /// Width and height of the coded picture, in pixels. The decoded one is smaller where hardware has scaled it.
    pub fn source_size(&self) -> (u32, u32) {
        self.source
    }

    fn try_picture(&self) -> Result<Picture<'_>, String> {
        let plane = |index: u32| -> Result<Plane<'_>, String> {
            let stride = self
                .video
                .plane_stride()
                .get(index as usize)
                .and_then(|stride| usize::try_from(*stride).ok());
            match (self.video.plane_data(index), stride) {
                (Ok(bytes), Some(stride)) => Ok(Plane { bytes, stride }),
                _ => Err(format!("{} without plane {index}", self.video.format())),
            }
        };
        let planes = match self.video.format() {
            gst_video::VideoFormat::I420 => Planes::I420 { y: plane(0)?, u: plane(1)?, v: plane(2)? },
            gst_video::VideoFormat::Nv12 => Planes::Nv12 { y: plane(0)?, uv: plane(1)? },
            other => return Err(other.to_string()),
        };
        let (width, height) = (self.video.width() as usize, self.video.height() as usize);
        Picture::new(width, height, planes, self.colour).map_err(|error| error.to_string())
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (width, height) = (self.video.width(), self.video.height());
        write!(out, "Frame({} {width}x{height} at {})", self.video.format(), self.timestamp)
    }
}

/// What caps contain about a picture.
#[derive(Debug)]
pub(crate) struct Layout {
    info: gst_video::VideoInfo,
    /// The caps name a colorimetry; otherwise that of `info` is GStreamer's guess from the size.
    says_colour: bool,
}

impl Layout {
    pub(crate) fn of(caps: &gst::CapsRef) -> Result<Layout, String> {
        let info = gst_video::VideoInfo::from_caps(caps).map_err(|_| format!("caps `{caps}`"))?;
        let says_colour = caps.structure(0).is_some_and(|structure| structure.has_field("colorimetry"));
        Ok(Layout { info, says_colour })
    }

    /// Width and height.
    pub(crate) fn size(&self) -> (u32, u32) {
        (self.info.width(), self.info.height())
    }

    /// `coded_lines`: height of the coded picture. What is not said follows from it, as broadcast does: BT.601 up to 576
    /// lines, BT.709 above, limited range. BT.2020 is taken for BT.709, its nearest.
    fn colour(&self, coded_lines: u32) -> Colour {
        use gst_video::{VideoColorMatrix as From, VideoColorRange};
        let by_size = if coded_lines <= 576 { Matrix::Bt601 } else { Matrix::Bt709 };
        let said = self.info.colorimetry();
        let matrix = match said.matrix() {
            _ if !self.says_colour => by_size,
            From::Bt601 | From::Fcc => Matrix::Bt601,
            From::Bt709 | From::Bt2020 | From::Smpte240m => Matrix::Bt709,
            _ => by_size,
        };
        Colour { matrix, full_range: self.says_colour && said.range() == VideoColorRange::Range0_255 }
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;

    #[test]
    fn colour_is_what_the_caps_say_else_what_the_size_suggests() {
        crate::init().expect("GStreamer is installed");
        #[track_caller]
        fn check(height: u32, colorimetry: &str, coded_lines: u32, matrix: Matrix, full_range: bool) {
            let caps = format!(
                "video/x-raw,format=I420,width=320,height={height},framerate=25/1{}{colorimetry}",
                if colorimetry.is_empty() { "" } else { ",colorimetry=" }
            );
            let layout = Layout::of(&gst::Caps::from_str(&caps).expect("valid caps")).expect("raw video");
            assert_eq!(layout.colour(coded_lines), Colour { matrix, full_range }, "{caps}");
        }
        check(1080, "bt709", 1080, Matrix::Bt709, false);
        check(1080, "bt601", 1080, Matrix::Bt601, false);
        check(1080, "1:4:0:0", 1080, Matrix::Bt601, true); // JPEG's, as cameras with full range say it
        check(2160, "bt2020", 2160, Matrix::Bt709, false);
        check(1080, "", 1080, Matrix::Bt709, false);
        check(576, "", 576, Matrix::Bt601, false);
        check(360, "", 1080, Matrix::Bt709, false); // scaled by hardware
        check(480, "2:0:0:0", 480, Matrix::Bt601, false);
    }

    #[test]
    fn other_formats_are_refused_by_name() {
        crate::init().expect("GStreamer is installed");
        let caps = gst::Caps::from_str("video/x-raw,format=Y42B,width=32,height=32").expect("valid caps");
        let layout = Layout::of(&caps).expect("raw video");
        let entry = Entry { timestamp: ProducerTimestamp::from_millis(0), source: (32, 32), broken: false };
        let result = |size| Frame::new(gst::Buffer::with_size(size).expect("memory"), &layout, &entry);
        assert_eq!(result(32 * 32 * 2).expect_err("4:2:2"), "Y42B");
        assert!(result(10).is_err());
    }
}
