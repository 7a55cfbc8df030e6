//! Pictures that are not 8 bit 4:2:0 when they leave the decoder.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use decode::{Decoder, DecoderOptions, Frame, Preference};
use gst::prelude::*;
use gstreamer as gst;
use media::{AccessUnit, ProducerTimestamp, VideoCodec, VideoFormat};
use vision::Planes;

/// Ten grey pictures of 320x192 in this sample format, luma 64 of 255 in 8 bit.
fn units(codec: VideoCodec, format: &str) -> Vec<AccessUnit> {
    let (encoder, caps) = match codec {
        VideoCodec::H264 => ("x264enc bframes=0 key-int-max=5", "h264parse ! video/x-h264,stream-format=avc"),
        VideoCodec::H265 => {
            ("x265enc option-string=bframes=0:log-level=none", "h265parse ! video/x-h265,stream-format=hvc1")
        }
    };
    // ARGB 0xff383838: limited-range luma 64.
    let description = format!(
        "videotestsrc num-buffers=10 pattern=solid-color foreground-color=0xff383838 \
         ! video/x-raw,format={format},width=320,height=192,framerate=25/1 ! {encoder} ! {caps},alignment=au \
         ! appsink name=units sync=false"
    );
    let pipeline = gst::parse::launch(&description)
        .expect("encoders are installed")
        .downcast::<gst::Pipeline>()
        .unwrap();
    let sink = pipeline.by_name("units").unwrap().downcast::<gstreamer_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut units = Vec::new();
    while let Ok(sample) = sink.pull_sample() {
        let record = sample.caps().unwrap().structure(0).unwrap().get::<gst::Buffer>("codec_data").unwrap();
        let record = record.map_readable().unwrap().to_vec();
        let buffer = sample.buffer().unwrap();
        units.push(AccessUnit {
            data: buffer.map_readable().unwrap().to_vec().into(),
            timestamp: ProducerTimestamp::from_millis(units.len() as u64 * 40),
            random_access: !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT),
            format: Arc::new(VideoFormat::from_codec_private(codec, record.into()).unwrap()),
        });
    }
    pipeline.set_state(gst::State::Null).unwrap();
    assert_eq!(units.len(), 10);
    units
}

#[test]
fn other_sample_formats_are_converted() {
    decode::init().expect("GStreamer is installed");
    for (codec, format) in [
        (VideoCodec::H264, "I420"),
        (VideoCodec::H264, "Y42B"),
        (VideoCodec::H264, "Y444"),
        (VideoCodec::H264, "I420_10LE"),
        (VideoCodec::H265, "I420_10LE"),
        (VideoCodec::H265, "I422_10LE"),
    ] {
        let (to, frames) = mpsc::channel();
        let options = DecoderOptions {
            preference: Preference::Only(vec!["avdec_h264".into(), "avdec_h265".into()]),
            ..DecoderOptions::default()
        };
        let decoder = Decoder::start(options, move |frame: Arc<Frame>| to.send(frame).unwrap()).unwrap();
        units(codec, format).into_iter().for_each(|unit| decoder.push(unit));
        for n in 0..10 {
            let frame = frames
                .recv_timeout(Duration::from_secs(60))
                .unwrap_or_else(|_| panic!("{codec:?} {format}: picture {n}: {:?}", decoder.report()));
            assert_eq!(frame.timestamp(), ProducerTimestamp::from_millis(n * 40));
            let picture = frame.picture();
            assert!(matches!(picture.planes, Planes::I420 { .. } | Planes::Nv12 { .. }));
            assert_eq!((picture.width, picture.height), (320, 192));
            let grey = picture.luma().row(100, 320)[160];
            assert!(grey.abs_diff(64) <= 3, "{codec:?} {format}: luma {grey}");
        }
        assert_eq!(decoder.report().rebuilt, 0);
    }
}
