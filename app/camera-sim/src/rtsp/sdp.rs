//! Session descriptions (RFC 4566) of a clip.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::clip::{Audio, Clip, Codec};
use crate::faults::ForeignCodec;

pub(crate) const VIDEO_TYPE: u8 = 96;
pub(crate) const AAC_TYPE: u8 = 97;
/// Static payload type of PCMU (RFC 3551).
pub(crate) const PCMU_TYPE: u8 = 0;

/// What a description leaves out or pretends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shape {
    pub no_sprop: bool,
    pub audio_only: bool,
    pub foreign: Option<ForeignCodec>,
}

/// The description of one camera; its tracks are `trackID=0` (video) and `trackID=1` (audio).
pub(crate) fn describe(clip: &Clip, shape: Shape) -> String {
    let mut sdp = String::from(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=camera-sim\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n\
         a=control:*\r\na=range:npt=now-\r\n",
    );
    if !shape.audio_only {
        video(&mut sdp, clip, shape);
    }
    if let Some(audio) = clip.audio() {
        let (payload_type, map) = match audio.codec {
            Audio::Aac => (AAC_TYPE, "mpeg4-generic"),
            _ => (PCMU_TYPE, "PCMU"),
        };
        let channels = if audio.codec == Audio::Aac { "/1" } else { "" };
        let _ = write!(
            sdp,
            "m=audio 0 RTP/AVP {payload_type}\r\na=rtpmap:{payload_type} {map}/{}{channels}\r\n",
            audio.sample_rate
        );
        if audio.codec == Audio::Aac {
            let config: String = audio.config.iter().map(|byte| format!("{byte:02x}")).collect();
            let _ = write!(
                sdp,
                "a=fmtp:{payload_type} streamtype=5;profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;\
                 indexdeltalength=3;config={config}\r\n"
            );
        }
        sdp.push_str("a=control:trackID=1\r\n");
    }
    sdp
}

fn video(sdp: &mut String, clip: &Clip, shape: Shape) {
    let spec = clip.spec();
    let sets: Vec<String> = clip.parameter_sets().iter().map(|set| STANDARD.encode(set)).collect();
    match (shape.foreign, spec.codec) {
        // Static payload type 26 needs no map (RFC 3551).
        (Some(ForeignCodec::Jpeg), _) => sdp.push_str("m=video 0 RTP/AVP 26\r\na=rtpmap:26 JPEG/90000\r\n"),
        (Some(ForeignCodec::Vp8), _) => {
            let _ = write!(sdp, "m=video 0 RTP/AVP {VIDEO_TYPE}\r\na=rtpmap:{VIDEO_TYPE} VP8/90000\r\n");
        }
        (None, Codec::H264) => {
            let _ = write!(sdp, "m=video 0 RTP/AVP {VIDEO_TYPE}\r\na=rtpmap:{VIDEO_TYPE} H264/90000\r\n");
            let _ = write!(sdp, "a=fmtp:{VIDEO_TYPE} packetization-mode=1");
            if let (false, [sps, ..]) = (shape.no_sprop, clip.parameter_sets()) {
                let profile: String = sps.iter().skip(1).take(3).map(|byte| format!("{byte:02X}")).collect();
                let _ = write!(sdp, ";profile-level-id={profile};sprop-parameter-sets={}", sets.join(","));
            }
            sdp.push_str("\r\n");
        }
        (None, Codec::H265) => {
            let _ = write!(sdp, "m=video 0 RTP/AVP {VIDEO_TYPE}\r\na=rtpmap:{VIDEO_TYPE} H265/90000\r\n");
            if let (false, [vps, sps, pps]) = (shape.no_sprop, &sets[..]) {
                let _ =
                    write!(sdp, "a=fmtp:{VIDEO_TYPE} sprop-vps={vps};sprop-sps={sps};sprop-pps={pps}\r\n");
            }
        }
    }
    let _ = write!(sdp, "a=framerate:{}\r\na=control:trackID=0\r\n", spec.fps);
}
