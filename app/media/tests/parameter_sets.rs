//! Parameter sets of real encoders.
//!
//! Made with GStreamer 1.22 (x264 164, x265 3.5): `gst-launch-1.0 videotestsrc num-buffers=3 ! CAPS ! ENCODER ! filesink`,
//! where CAPS and ENCODER stand beside each case; the parameter sets were cut out of the byte stream.

mod support;

use bytes::Bytes;
use media::h264::{self, AvcC};
use media::h265::{self, HvcC};
use media::mkv::elements::tracks;
use media::mkv::read::EventKind;
use media::{FormatError, VideoCodec, VideoFormat, nal};

use support::{read, recorded, unhex};

/// 1920x1080, 25/1, x264enc bframes=0 speed-preset=ultrafast, profile=baseline.
const H264_1080: [&str; 2] = ["6742c028da01e0089f97016a020202800000030080000019478c1950", "68ce3c80"];
/// 640x360, 30/1, x264enc bframes=2, profile=high.
const H264_360_B: [&str; 2] = ["6764001eacd940a02ff97016a0c0c0d4a0000003002000000791e2c5b2c0", "68ebecb22c"];
/// 1280x720, 30000/1001, x264enc bframes=0, profile=main.
const H264_720: [&str; 2] = ["674d401fd9005005bb016a020202800001f480007530478c1924", "68ebccb2"];
/// 322x242, 15/1, I422_10LE, x264enc.
const H264_422: [&str; 2] = ["677a000db6cd9415087888fc05a83030320000030002000003003d1e28532c", "68ebecb22c"];

/// 1920x1080, 25/1, x265enc speed-preset=ultrafast.
const H265_1080: [&str; 3] = [
    "40010c01ffff016000000300900000030000030078959409",
    "420101016000000300900000030000030078a003c0801107cb965654a4c2fff000100016a020202080000003008000000c84",
    "4401c073c189",
];
/// 640x360, 30/1, x265enc option-string=bframes=0 speed-preset=ultrafast.
const H265_360: [&str; 3] = [
    "40010c01ffff01600000030090000003000003003fba0240",
    "42010101600000030090000003000003003fa005020171f2e5ba4a4c2fff000100016a0c0c0c08000003000800000300f040",
    "4401c073c189",
];
/// 650x362, 30000/1001, I420_10LE, x265enc speed-preset=ultrafast.
const H265_10BIT: [&str; 3] = [
    "40010c01ffff02200000030090000003000003003f959409",
    "42010102200000030090000003000003003fa005220171c9236595952930bffc00040005a83030302000007d20000ea601",
    "4401c073c189",
];

#[test]
fn h264_sps_tells_size_rate_and_reordering() {
    #[track_caller]
    fn check(sps: &str, size: (u32, u32), rate: f64, reorder: Option<u32>, chroma: (u8, u8)) {
        let sps = h264::Sps::parse(&unhex(sps)).unwrap();
        assert_eq!((sps.width, sps.height), size);
        assert_eq!(sps.frame_rate, Some(rate));
        assert_eq!(sps.max_num_reorder_frames, reorder);
        assert_eq!(sps.may_reorder(), reorder != Some(0));
        assert_eq!((sps.chroma_format_idc, sps.bit_depth_luma), chroma);
    }
    check(H264_1080[0], (1920, 1080), 25.0, Some(0), (1, 8));
    check(H264_360_B[0], (640, 360), 30.0, Some(2), (1, 8));
    check(H264_720[0], (1280, 720), 30_000.0 / 1_001.0, Some(0), (1, 8));
    check(H264_422[0], (322, 242), 15.0, Some(2), (2, 10));
}

#[test]
fn h265_sps_tells_size_rate_and_reordering() {
    #[track_caller]
    fn check(sps: &str, size: (u32, u32), rate: f64, may_reorder: bool, bit_depth: u8) {
        let sps = h265::Sps::parse(&unhex(sps)).unwrap();
        assert_eq!((sps.width, sps.height), size);
        assert_eq!(sps.frame_rate, Some(rate));
        assert_eq!(sps.may_reorder(), may_reorder, "{}", sps.max_num_reorder_pics);
        assert_eq!((sps.chroma_format_idc, sps.bit_depth_luma), (1, bit_depth));
    }
    check(H265_1080[1], (1920, 1080), 25.0, true, 8);
    check(H265_360[1], (640, 360), 30.0, false, 8);
    check(H265_10BIT[1], (650, 362), 30_000.0 / 1_001.0, true, 10);
}

#[test]
fn a_cut_sps_is_an_error_until_the_size_is_known_and_then_has_no_rate() {
    for (sps, parse) in [
        (
            H264_360_B[0],
            (|nal| h264::Sps::parse(nal).map(|sps| (sps.width, sps.frame_rate))) as fn(&[u8]) -> _,
        ),
        (H265_360[1], |nal| h265::Sps::parse(nal).map(|sps| (sps.width, sps.frame_rate))),
    ] {
        let sps = unhex(sps);
        let results: Vec<Result<(u32, Option<f64>), FormatError>> =
            (0..sps.len()).map(|end| parse(&sps[..end])).collect();
        let first_ok = results.iter().position(Result::is_ok).unwrap();
        assert!(results[..first_ok].iter().all(Result::is_err));
        assert_eq!(results[first_ok], Ok((640, None)));
        assert!(results[first_ok..].iter().all(|result| matches!(result, Ok((640, _)))));
    }
}

#[test]
fn units_of_another_type_are_refused() {
    assert_eq!(
        h264::Sps::parse(&unhex(H264_720[1])).unwrap_err().to_string(),
        "expected an H.264 SPS (type 7), found a NAL unit of type 8"
    );
    assert_eq!(
        h265::Sps::parse(&unhex(H265_360[0])).unwrap_err().to_string(),
        "expected an H.265 SPS (type 33), found a NAL unit of type 32"
    );
    let none: [&[u8]; 0] = [];
    assert_eq!(nal::avcc_from_sps_pps(&none, &none), Err(FormatError::NoSps { record: "avcC" }));
    assert_eq!(nal::hvcc_from_vps_sps_pps(&none, &none, &none), Err(FormatError::NoSps { record: "hvcC" }));
    assert!(nal::avcc_from_sps_pps(&[unhex(H264_720[1])], &[unhex(H264_720[0])]).is_err());
}

fn recorded_codec_private(name: &str) -> Bytes {
    let events = read(&recorded(name));
    tracks::parse(events[3].body()).unwrap()[0].codec_private.clone()
}

#[test]
fn recorded_records_survive_a_round_trip() {
    for name in ["ok_put_001.mkv", "av_put_001.mkv", "err_put_001.mkv"] {
        let record = recorded_codec_private(name);
        assert_eq!(AvcC::parse(&record).unwrap().to_bytes(), record, "{name}");
    }
    let record = recorded_codec_private("hevc_put_001.mkv");
    assert_eq!(HvcC::parse(&record).unwrap().to_bytes(), record);
}

#[test]
fn records_made_from_parameter_sets_give_the_format_back() {
    #[track_caller]
    fn check(codec: VideoCodec, record: Bytes, size: (u32, u32), rfc6381: &str) {
        let format = VideoFormat::from_codec_private(codec, record.clone()).unwrap();
        assert_eq!((format.width, format.height), size);
        assert_eq!(format.rfc6381(), rfc6381);
        assert_eq!(format.nal_length_size(), 4);
        for end in 0..record.len() {
            let _ = VideoFormat::from_codec_private(codec, record.slice(..end)); // must not panic
        }
    }
    let avcc = |sets: [&str; 2]| nal::avcc_from_sps_pps(&[unhex(sets[0])], &[unhex(sets[1])]).unwrap();
    check(VideoCodec::H264, avcc(H264_1080), (1920, 1080), "avc1.42c028");
    check(VideoCodec::H264, avcc(H264_360_B), (640, 360), "avc1.64001e");
    assert!(avcc(H264_360_B).ends_with(&[0xFD, 0xF8, 0xF8, 0]), "4:2:0, 8 bits, no extension");
    assert!(avcc(H264_422).ends_with(&[0xFE, 0xFA, 0xFA, 0]), "4:2:2, 10 bits, no extension");
    assert!(avcc(H264_720).ends_with(&unhex(H264_720[1])), "no such fields for the Main profile");
    assert_eq!(AvcC::parse(&avcc(H264_422)).unwrap().to_bytes(), avcc(H264_422));

    let hvcc = |sets: [&str; 3]| {
        nal::hvcc_from_vps_sps_pps(&[unhex(sets[0])], &[unhex(sets[1])], &[unhex(sets[2])]).unwrap()
    };
    check(VideoCodec::H265, hvcc(H265_1080), (1920, 1080), "hvc1.1.6.L120.90");
    check(VideoCodec::H265, hvcc(H265_10BIT), (650, 362), "hvc1.2.4.L63.90");
    assert_eq!(HvcC::parse(&hvcc(H265_10BIT)).unwrap().to_bytes(), hvcc(H265_10BIT));
}

#[test]
fn a_record_made_from_the_recorded_parameter_sets_equals_the_recorded_one() {
    let recorded = HvcC::parse(&recorded_codec_private("hevc_put_001.mkv")).unwrap();
    let units = |at: usize| &recorded.arrays[at].units[..];
    assert_eq!(HvcC::from_parameter_sets(units(0), units(1), units(2)), Ok(recorded.clone()));

    let recorded = AvcC::parse(&recorded_codec_private("ok_put_001.mkv")).unwrap();
    let own = AvcC::from_parameter_sets(&recorded.sps, &recorded.pps).unwrap();
    assert!(own.high.is_some(), "which kvssink leaves out");
    assert_eq!(AvcC { high: None, ..own }, recorded);
}

#[test]
fn recorded_pictures_are_random_access_points_where_the_key_flag_says_so() {
    for (name, codec) in [("ok_put_001.mkv", VideoCodec::H264), ("hevc_put_001.mkv", VideoCodec::H265)] {
        for event in read(&recorded(name)) {
            if let EventKind::Block { key_frame, .. } = event.kind {
                let payload = event.body();
                assert_eq!(nal::is_random_access(codec, payload), Ok(key_frame), "{name} byte {}", event.at);
                let annexb = nal::length_prefixed_to_annexb(payload).unwrap();
                assert_eq!(nal::annexb_to_length_prefixed(&annexb), payload, "{name} byte {}", event.at);
            }
        }
    }
}
