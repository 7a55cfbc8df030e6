//! Which decoder works on this machine.
//!
//! Present is not enough: a driver may be missing behind an installed element. So each candidate is brought to READY,
//! where elements open their devices.

use gst::prelude::*;
use gstreamer as gst;
use media::VideoCodec;

use crate::{DecodeError, init, plan};

/// How long a candidate may take to open its device, if it says that it needs time.
const READY_LIMIT: gst::ClockTime = gst::ClockTime::from_seconds(5);

/// Decoders for a codec, best first, each with what brings it.
const H264: [(&str, &str); 4] = [
    ("nvv4l2decoder", "a Jetson with NVIDIA's GStreamer plugins"),
    ("nvh264dec", "an NVIDIA GPU and the Debian package gstreamer1.0-plugins-bad"),
    ("avdec_h264", "the Debian package gstreamer1.0-libav"),
    ("openh264dec", "the Debian package gstreamer1.0-plugins-bad"),
];
const H265: [(&str, &str); 4] = [
    ("nvv4l2decoder", "a Jetson with NVIDIA's GStreamer plugins"),
    ("nvh265dec", "an NVIDIA GPU and the Debian package gstreamer1.0-plugins-bad"),
    ("avdec_h265", "the Debian package gstreamer1.0-libav"),
    ("libde265dec", "the Debian package gstreamer1.0-plugins-bad"),
];

/// Which decoders may be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Preference {
    /// The best one that works: hardware, then software.
    #[default]
    Automatic,
    /// The first of these elements that works and takes the codec, nothing else. Any decoder that GStreamer has will do:
    /// `["avdec_h264", "avdec_h265"]`, `["vah264dec"]`.
    Only(Vec<String>),
}

/// A decoder that is not used, and why: "is not installed; it needs ..."
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    pub name: String,
    pub reason: String,
}

/// The decoder to use, and those before it that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Name of the GStreamer element.
    pub chosen: String,
    pub skipped: Vec<Skipped>,
}

/// Tries the decoders for `codec` in turn. Opens devices: milliseconds for software, longer for hardware.
///
/// Fails when none works, with every reason, or when `preference` names an element that is no H.264 or H.265 decoder.
pub fn choose(codec: VideoCodec, preference: &Preference) -> Result<Choice, DecodeError> {
    choose_except(codec, preference, &[], &|_| {})
}

/// The same without those that failed in use. `tries` is told each name before its device is opened.
pub(crate) fn choose_except(
    codec: VideoCodec,
    preference: &Preference,
    failed: &[Skipped],
    tries: &dyn Fn(&str),
) -> Result<Choice, DecodeError> {
    check_names(preference)?;
    let known = match codec {
        VideoCodec::H264 => H264,
        VideoCodec::H265 => H265,
    };
    let candidates: Vec<&str> = match preference {
        Preference::Automatic => known.iter().map(|(name, _)| *name).collect(),
        Preference::Only(names) => names.iter().map(String::as_str).collect(),
    };
    let mut skipped = Vec::new();
    for name in candidates {
        let needs = known.iter().find(|(known, _)| *known == name).map(|(_, needs)| *needs);
        let result = match failed.iter().find(|failed| failed.name == name) {
            Some(failed) => Err(failed.reason.clone()),
            None => {
                tries(name);
                try_out(codec, name, needs)
            }
        };
        match result {
            Ok(()) => return Ok(Choice { chosen: name.to_owned(), skipped }),
            Err(reason) => skipped.push(Skipped { name: name.to_owned(), reason }),
        }
    }
    Err(DecodeError::NoDecoder { codec: codec_name(codec), skipped })
}

/// Whether each name is that of a decoder for H.264 or H.265 on this machine.
pub(crate) fn check_names(preference: &Preference) -> Result<(), DecodeError> {
    init()?;
    let Preference::Only(names) = preference else { return Ok(()) };
    let decodes = |factory: &gst::ElementFactory| {
        factory.has_type(gst::ElementFactoryType::DECODER)
            && [VideoCodec::H264, VideoCodec::H265].iter().any(|codec| takes(factory, *codec))
    };
    for name in names {
        if !gst::ElementFactory::find(name).is_some_and(|factory| decodes(&factory)) {
            let all =
                gst::ElementFactory::factories_with_type(gst::ElementFactoryType::DECODER, gst::Rank::NONE);
            let mut available: Vec<String> = all
                .iter()
                .filter(|factory| decodes(factory))
                .map(|factory| factory.name().to_string())
                .collect();
            available.sort();
            return Err(DecodeError::UnknownDecoder { name: name.clone(), available });
        }
    }
    Ok(())
}

fn takes(factory: &gst::ElementFactory, codec: VideoCodec) -> bool {
    factory.can_sink_any_caps(&gst::Caps::new_empty_simple(plan::media_type(codec)))
}

/// `Err` with the reason why this decoder cannot be used.
fn try_out(codec: VideoCodec, name: &str, needs: Option<&str>) -> Result<(), String> {
    let Some(factory) = gst::ElementFactory::find(name) else {
        return Err(format!("is not installed; it needs {}", needs.unwrap_or("its plugin")));
    };
    if !takes(&factory, codec) {
        return Err(format!("does not decode {}", codec_name(codec)));
    }
    for helper in plan::helpers(name, codec) {
        if gst::ElementFactory::find(helper).is_none() {
            return Err(format!("needs the element `{helper}`, which is not installed"));
        }
    }
    let element = factory.create().build().map_err(|error| format!("cannot be made: {error}"))?;
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    let opened = match element.set_state(gst::State::Ready) {
        Ok(gst::StateChangeSuccess::Async) => {
            element.state(READY_LIMIT).0.is_ok_and(|success| success != gst::StateChangeSuccess::Async)
        }
        other => other.is_ok(),
    };
    let message = bus.pop_filtered(&[gst::MessageType::Error]).map(|message| error_text(&message));
    let closed = element.set_state(gst::State::Null);
    element.set_bus(None);
    match (opened, closed) {
        (true, Ok(_)) => Ok(()),
        _ => Err(format!(
            "does not open its device: {}",
            message.unwrap_or_else(|| "it gives no reason".to_owned())
        )),
    }
}

/// What an error message says, on one line. Of what GStreamer adds for its developers, the words without the place in its sources.
pub(crate) fn error_text(message: &gst::Message) -> String {
    let gst::MessageView::Error(error) = message.view() else { return String::new() };
    let debug = error.debug();
    let words = debug.as_ref().and_then(|debug| debug.split_once('\n')).map(|(_place, words)| words.trim());
    let text = match words.filter(|words| !words.is_empty()) {
        Some(words) => format!("{} ({words})", error.error()),
        None => error.error().to_string(),
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub(crate) fn codec_name(codec: VideoCodec) -> &'static str {
    match codec {
        VideoCodec::H264 => "H.264",
        VideoCodec::H265 => "H.265",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(names: &[&str]) -> Preference {
        Preference::Only(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn each_decoder_passed_over_has_its_reason() {
        for (codec, software) in [(VideoCodec::H264, "avdec_h264"), (VideoCodec::H265, "avdec_h265")] {
            let Choice { chosen, skipped } =
                choose(codec, &Preference::Automatic).expect("software is installed");
            assert!(skipped.iter().all(|skipped| !skipped.reason.is_empty()));
            // A machine with hardware stops there.
            assert!(chosen == software || chosen.starts_with("nv"), "{chosen}");
            if chosen == software {
                assert_eq!(
                    skipped.iter().map(|skipped| &skipped.name[..2]).collect::<Vec<_>>(),
                    ["nv", "nv"]
                );
            }
        }
    }

    #[test]
    fn a_named_decoder_is_used_or_the_reason_told() {
        let choice = choose(VideoCodec::H264, &only(&["openh264dec"])).expect("installed");
        assert_eq!(choice, Choice { chosen: "openh264dec".into(), skipped: vec![] });
        let choice = choose(VideoCodec::H265, &only(&["avdec_h264", "avdec_h265"])).expect("installed");
        assert_eq!(choice.chosen, "avdec_h265");
        assert_eq!(choice.skipped[0].reason, "does not decode H.265");
        let error =
            choose(VideoCodec::H265, &only(&["avdec_h264"])).expect_err("the wrong codec").to_string();
        assert_eq!(error, "no decoder for H.265 works: `avdec_h264` does not decode H.265");
    }

    #[test]
    fn an_unknown_name_is_answered_with_those_that_there_are() {
        for name in ["avdec_h246", "fakesink", "avdec_mjpeg", "", "no such \" name"] {
            let error = choose(VideoCodec::H264, &only(&[name])).expect_err("no such decoder");
            let text = error.to_string();
            assert!(text.contains(&format!("`{name}`")) && text.contains("avdec_h264, "), "{text}");
        }
    }

    #[test]
    fn a_decoder_that_failed_in_use_gives_way_to_the_next() {
        let failed = [Skipped { name: "avdec_h264".into(), reason: "failed 3 times".into() }];
        let preference = only(&["avdec_h264", "openh264dec"]);
        let choice =
            choose_except(VideoCodec::H264, &preference, &failed, &|_| {}).expect("the second works");
        assert_eq!(choice, Choice { chosen: "openh264dec".into(), skipped: failed.to_vec() });
    }
}
