//! Descriptions of pipelines, as `gst-launch-1.0` takes them. Pure, so that those for absent hardware are tested too.

use media::VideoCodec;

use crate::bitstream::Stream;

/// Names of elements in the description.
pub(crate) const DECODER: &str = "decoder";
pub(crate) const SINK: &str = "pictures";

/// One pipeline. Two that are equal can stand in for each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Element name of the decoder.
    pub(crate) decoder: String,
    /// Name of its `appsrc`; GStreamer names the thread after it.
    pub(crate) source: String,
    pub(crate) description: String,
}

pub(crate) fn media_type(codec: VideoCodec) -> &'static str {
    match codec {
        VideoCodec::H264 => "video/x-h264",
        VideoCodec::H265 => "video/x-h265",
    }
}

fn parser(codec: VideoCodec) -> &'static str {
    match codec {
        VideoCodec::H264 => "h264parse",
        VideoCodec::H265 => "h265parse",
    }
}

/// Elements that a decoder needs beside itself.
pub(crate) fn helpers(decoder: &str, codec: VideoCodec) -> Vec<&'static str> {
    let mut helpers = vec!["appsrc", parser(codec), "appsink"];
    if decoder == JETSON {
        helpers.push("nvvidconv");
    }
    helpers
}

const JETSON: &str = "nvv4l2decoder";

/// What a decoder is to be told, each as (property, value); left out where its release does not have the property.
fn properties(decoder: &str, stream: &Stream) -> Vec<(&'static str, &'static str)> {
    let mut properties = vec![
        // Damage is part of a camera's life: no number of errors ends the pipeline (GStreamer before 1.18: ten).
        ("max-errors", "-1"),
        ("qos", "false"),
    ];
    if decoder.starts_with("avdec_") {
        properties.extend([
            ("max-threads", "1"),
            ("thread-type", "slice"),
            // "auto" asks the pipeline whether it is live; "strict" waits for a full picture buffer before the first
            // picture if the stream does not say how far it reorders.
            ("std-compliance", "normal"),
            // Pictures without a whole reference, known to be wrong, are not worth detecting in.
            ("output-corrupt", "false"),
        ]);
    }
    if decoder.starts_with("nvh26") {
        properties.push(("max-display-delay", "0"));
    }
    if decoder == JETSON && !stream.reorders {
        properties.push(("low-latency-mode", "true"));
    }
    properties
}

/// The pipeline for a stream. `camera` goes into the thread's name. `scale_to` is the box that the network wants to see
/// filled, used only where hardware scales. `has` answers whether an element has a property.
pub(crate) fn plan(
    camera: &str,
    decoder: &str,
    stream: &Stream,
    scale_to: Option<(u32, u32)>,
    has: &dyn Fn(&str, &str) -> bool,
) -> Plan {
    // What a description and a thread name (15 bytes) can hold.
    let name: String =
        camera.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).take(7).collect();
    let source = format!("dec-{name}");
    let input = media_type(stream.codec);
    let mut parts = vec![
        format!(
            "appsrc name={source} is-live=true format=time block=false max-bytes=0 emit-signals=false \
             caps=\"{input},stream-format=(string)byte-stream,alignment=(string)au\""
        ),
        parser(stream.codec).to_owned(),
    ];
    let mut element = format!("{decoder} name={DECODER}");
    for (property, value) in properties(decoder, stream) {
        if has(decoder, property) {
            element.push_str(&format!(" {property}={value}"));
        }
    }
    parts.push(element);
    if decoder == JETSON {
        // 1 is bilinear; the default is nearest. Downloads, makes NV12 of any sample format, and scales.
        parts.push("nvvidconv interpolation-method=1".to_owned());
        let (width, height) = content_size((stream.width, stream.height), scale_to);
        parts.push(format!(
            "video/x-raw,format=(string)NV12,width=(int){width},height=(int){height},\
             pixel-aspect-ratio=(fraction)1/1"
        ));
    } else if !stream.plain {
        let threads = if has("videoconvert", "n-threads") { " n-threads=1" } else { "" };
        parts.push(format!("videoconvert{threads} dither=none"));
    }
    // System memory: decoders of NVIDIA GPUs download by themselves if asked for it.
    parts.push(format!(
        "appsink name={SINK} sync=false async=false max-buffers=1 drop=true emit-signals=false \
         enable-last-sample=false qos=false caps=\"video/x-raw,format=(string){{ I420, NV12 }}\""
    ));
    Plan { decoder: decoder.to_owned(), source, description: parts.join(" ! ") }
}

/// The largest size of a picture's shape that fits into `limit`: even sides, never larger than the picture.
fn content_size((width, height): (u32, u32), limit: Option<(u32, u32)>) -> (u32, u32) {
    let Some((limit_width, limit_height)) = limit else { return (width, height) };
    let part = (f64::from(limit_width) / f64::from(width.max(1)))
        .min(f64::from(limit_height) / f64::from(height.max(1)))
        .min(1.0);
    let side = |pixels: u32, limit: u32| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0..=u32::MAX, `part` is 0..=1"
        )]
        let scaled = (f64::from(pixels) * part / 2.0).round() as u32 * 2;
        scaled.min(limit / 2 * 2).max(2)
    };
    (side(width, limit_width), side(height, limit_height))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Stream =
        Stream { codec: VideoCodec::H264, width: 1920, height: 1080, plain: true, reorders: false };

    fn parts(camera: &str, decoder: &str, stream: &Stream, scale_to: Option<(u32, u32)>) -> Vec<String> {
        let plan = plan(camera, decoder, stream, scale_to, &|_, _| true);
        plan.description.split(" ! ").map(str::to_owned).collect()
    }

    #[test]
    fn a_jetson_scales_in_hardware() {
        let parts = parts("gate", "nvv4l2decoder", &PLAIN, Some((640, 640)));
        assert_eq!(parts.len(), 6, "{parts:?}");
        assert!(parts[0].starts_with("appsrc name=dec-gate is-live=true"));
        assert_eq!(parts[1], "h264parse");
        assert_eq!(parts[2], "nvv4l2decoder name=decoder max-errors=-1 qos=false low-latency-mode=true");
        assert_eq!(parts[3], "nvvidconv interpolation-method=1");
        assert_eq!(
            parts[4],
            "video/x-raw,format=(string)NV12,width=(int)640,height=(int)360,pixel-aspect-ratio=(fraction)1/1"
        );
        assert!(parts[5].starts_with("appsink name=pictures sync=false"));
    }

    #[test]
    fn a_jetson_keeps_its_order_where_pictures_are_reordered() {
        let parts = parts("gate", "nvv4l2decoder", &Stream { reorders: true, ..PLAIN }, None);
        assert!(!parts[2].contains("low-latency"), "{}", parts[2]);
        assert!(parts[4].contains("width=(int)1920,height=(int)1080"), "{}", parts[4]);
    }

    #[test]
    fn a_gpu_hands_out_system_memory() {
        let h265 = Stream { codec: VideoCodec::H265, ..PLAIN };
        let parts = parts("gate", "nvh265dec", &h265, Some((640, 640)));
        assert_eq!(parts[1], "h265parse");
        assert_eq!(parts[2], "nvh265dec name=decoder max-errors=-1 qos=false max-display-delay=0");
        assert!(parts[3].contains("caps=\"video/x-raw,format"), "{}", parts[3]);
    }

    #[test]
    fn a_converter_stands_only_where_it_is_needed() {
        assert_eq!(parts("gate", "avdec_h264", &PLAIN, Some((320, 192))).len(), 4);
        let parts = parts("gate", "avdec_h264", &Stream { plain: false, ..PLAIN }, None);
        assert_eq!(parts[3], "videoconvert n-threads=1 dither=none");
    }

    #[test]
    fn properties_that_an_old_release_lacks_are_left_out() {
        let plan = plan("gate", "avdec_h264", &PLAIN, None, &|_, property| property == "max-threads");
        assert!(
            plan.description.contains(" ! avdec_h264 name=decoder max-threads=1 ! "),
            "{}",
            plan.description
        );
    }

    #[test]
    fn no_camera_name_breaks_the_description() {
        let plan = plan("Tür \"1\" ! filesink", "avdec_h264", &PLAIN, None, &|_, _| true);
        assert_eq!(plan.source, "dec-Tr1file");
        assert!(plan.source.len() + ":src".len() <= 15);
    }

    #[test]
    fn content_has_even_sides_within_its_limit() {
        assert_eq!(content_size((1920, 1080), Some((640, 640))), (640, 360));
        assert_eq!(content_size((1280, 720), Some((320, 192))), (320, 180));
        assert_eq!(content_size((1080, 1920), Some((640, 640))), (360, 640));
        assert_eq!(content_size((704, 576), Some((640, 640))), (640, 524));
        assert_eq!(content_size((320, 192), Some((640, 640))), (320, 192));
        assert_eq!(content_size((4096, 2), Some((64, 64))), (64, 2));
        assert_eq!(content_size((1920, 1080), Some((0, 0))), (2, 2));
        assert_eq!(content_size((1920, 1080), None), (1920, 1080));
    }
}
