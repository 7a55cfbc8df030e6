//! The writer: golden bytes, the recorded element set, and readers that are not ours.

mod support;

use std::process::Command;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use media::mkv::ebml::Children;
use media::mkv::elements::{Info, TrackInfo, tracks};
use media::mkv::id;
use media::mkv::read::{Event, EventKind};
use media::mkv::write::{self, Track};
use media::{AudioFormat, VideoCodec, VideoFormat};

use support::{hex, read, recorded, shape, unhex};

/// The avcC and AudioSpecificConfig of `av_put_001.mkv`.
const AVCC: &str = "01f4000cffe1001c67f4000c90d968141fb016a0c0c0c80000030008000003 00f478a15501000468ce3192";
const AUDIO_CONFIG: &str = "1408";

fn formats() -> [Track; 2] {
    let video = VideoFormat::from_codec_private(VideoCodec::H264, unhex(AVCC)).unwrap();
    let audio = AudioFormat::aac(unhex(AUDIO_CONFIG)).unwrap();
    [Track::Video(Arc::new(video)), Track::Audio(Arc::new(audio))]
}

/// Written by hand from RFC 8794 and RFC 9559; ids, types and order as in `av_put_001.mkv`.
#[test]
fn header_bytes_are_golden() {
    let expected = "
        1a45dfa3 a3  4286 81 01  42f7 81 01  42f2 81 04  42f3 81 08  4282 88 6d6174726f736b61  4287 81 02  4285 81 02
        18538067 01ffffffffffffff
        1549a966 b1  73a4 90 000102030405060708090a0b0c0d0e0f  2ad7b1 88 00000000000f4240
                     7ba9 83 617070  4d80 83 617070  5741 83 617070
        1654ae6b 40a1
          ae e9  d7 81 01  73c5 88 0000000000000001  83 81 01  536e 8d 6b696e657369735f766964656f
                 86 8f 565f4d504547342f49534f2f415643  e0 87 b0 82 0140 ba 81 f0  63a2 ab
                 01f4000cffe1001c67f4000c90d968141fb016a0c0c0c8000003000800000300f478a15501000468ce3192
          ae b4  d7 81 02  73c5 88 0000000000000002  83 81 02  536e 85 617564696f
                 86 85 415f414143  e1 8d b5 88 40cf400000000000 9f 81 01  63a2 82 1408";
    let uid: [u8; 16] = std::array::from_fn(|index| u8::try_from(index).unwrap());
    assert_eq!(hex(&write::header(uid, "app", &formats())), hex(&unhex(expected)));
}

#[test]
fn cluster_block_and_tag_bytes_are_golden() {
    #[track_caller]
    fn check(written: Bytes, expected: &str) {
        assert_eq!(hex(&written), hex(&unhex(expected)));
    }
    check(write::cluster_start(1_795_186_150_278), "1f43b675 01ffffffffffffff e7 88 000001a1f96ecb86");
    check(write::block_head(1, 0, true, 0), "a3 84 81 0000 80");
    check(write::block_head(2, -1, false, 122), "a3 fe 82 ffff 00");
    check(write::block_head(1, 67, false, 123), "a3 407f 81 0043 00");
    check(write::block_head(127, i16::MAX, true, 1 << 20), "a3 300005 407f 7fff 80");
    check(
        write::tags(&[("AB", "c"), ("D", "")]),
        "1254c367 99 7373 96 67c8 89 45a3 82 4142 4487 81 63  67c8 87 45a3 81 44 4487 80",
    );
    // As the service closes a chunk of `output_get_media.mkv`, with its own 4-byte sizes.
    check(
        write::tags_fixed4(&[
            ("AWS_KINESISVIDEO_MILLIS_BEHIND_NOW", "15858"),
            ("AWS_KINESISVIDEO_CONTINUATION_TOKEN", "91343852333181432392682062607743920146159169392"),
        ]),
        "1254c367 100000a3 7373 1000009d 67c8 10000033 45a3 10000022
         4157535f4b494e45534953564944454f5f4d494c4c49535f424548494e445f4e4f57 4487 10000005 3135383538
         67c8 1000005e 45a3 10000023 4157535f4b494e45534953564944454f5f434f4e54494e554154494f4e5f544f4b454e
         4487 1000002f 3931333433383532333333313831343332333932363832303632363037373433393230313436313539313639333932",
    );
}

/// Ids of an element and all its descendants, indented by depth.
fn outline(id: u32, body: &[u8], depth: usize, out: &mut Vec<String>) {
    out.push(format!("{}{}", "  ".repeat(depth), media::mkv::name_of(id).unwrap()));
    if matches!(id, id::EBML | id::INFO | id::TRACKS | id::TRACK_ENTRY | id::VIDEO | id::AUDIO) {
        for child in Children::new(body) {
            let child = child.unwrap();
            outline(child.id, child.body, depth + 1, out);
        }
    }
}

fn header_outline(events: &[Event]) -> Vec<String> {
    let mut out = Vec::new();
    for event in events.iter().take_while(|event| !matches!(event.kind, EventKind::ClusterStart { .. })) {
        let header = media::mkv::ebml::parse_header(&event.raw).unwrap();
        outline(header.id, &event.raw[header.length..], 0, &mut out);
    }
    out
}

#[test]
fn the_written_header_has_exactly_the_elements_of_the_recorded_one() {
    let recorded = read(&recorded("av_put_001.mkv"));
    let written = read(&write::header([1; 16], "kvs-edge", &formats()));
    assert_eq!(header_outline(&written[..written.len() - 1]), header_outline(&recorded));
}

#[test]
fn the_written_header_reads_back_as_what_was_asked_for() {
    let tracks_given = formats();
    let events = read(&write::header([9; 16], "kvs-edge 1", &tracks_given));
    let body =
        |wanted| events.iter().find(|event| event.kind == EventKind::Element { id: wanted }).unwrap().body();
    let info = Info::parse(body(id::INFO)).unwrap();
    assert_eq!((info.segment_uid, info.writing_app.as_str()), (Some([9; 16]), "kvs-edge 1"));
    let video = TrackInfo {
        number: 1,
        uid: 1,
        kind: 1,
        name: "kinesis_video".into(),
        codec_id: "V_MPEG4/ISO/AVC".into(),
        codec_private: unhex(AVCC),
        width: 320,
        height: 240,
        sample_rate: 0.0,
        channels: 0,
    };
    let audio = TrackInfo {
        number: 2,
        uid: 2,
        kind: 2,
        name: "audio".into(),
        codec_id: "A_AAC".into(),
        codec_private: unhex(AUDIO_CONFIG),
        width: 0,
        height: 0,
        sample_rate: 16_000.0,
        channels: 1,
    };
    assert_eq!(tracks::parse(body(id::TRACKS)).unwrap(), [video, audio]);
}

/// A recorded body written anew: our header and block heads around the recorded payloads, as the pieces to send.
fn rewritten(name: &str) -> Vec<Bytes> {
    let mut pieces = vec![write::header([3; 16], "kvs-edge", &formats())];
    for event in read(&recorded(name)) {
        match event.kind {
            EventKind::Timecode { ms } => pieces.push(write::cluster_start(ms)),
            EventKind::Block { track, offset, key_frame, .. } => {
                pieces.push(write::block_head(
                    u8::try_from(track).unwrap(),
                    offset,
                    key_frame,
                    event.body().len(),
                ));
                pieces.push(event.shared_body());
            }
            _ => {}
        }
    }
    pieces.push(write::tags(&[("SITE", "gate 4")]));
    pieces
}

#[test]
fn a_payload_is_sent_as_the_very_bytes_that_came_in() {
    let data = recorded("av_put_001.mkv");
    let payloads: Vec<Bytes> = read(&data)
        .into_iter()
        .filter(|event| matches!(event.kind, EventKind::Block { .. }))
        .map(|event| event.shared_body())
        .collect();
    let sent: Vec<Bytes> = payloads
        .iter()
        .flat_map(|payload| [write::block_head(1, 0, false, payload.len()), payload.clone()])
        .collect();
    for (pair, payload) in sent.chunks(2).zip(&payloads) {
        assert!(pair[0].len() <= 16);
        assert_eq!((pair[1].as_ptr(), pair[1].len()), (payload.as_ptr(), payload.len()));
        assert!(data.as_ptr_range().contains(&pair[1].as_ptr()), "the payload still lies in what was read");
    }
}

#[test]
fn a_rewritten_recording_keeps_every_block() {
    let pieces = rewritten("av_put_001.mkv");
    let whole: Bytes = pieces
        .iter()
        .fold(BytesMut::new(), |mut all, piece| {
            all.extend_from_slice(piece);
            all
        })
        .freeze();
    let blocks = |data: &Bytes| -> Vec<(EventKind, Bytes)> {
        let events = read(data).into_iter();
        events
            .filter_map(|event| match event.kind {
                EventKind::Block { .. } => Some((event.kind, event.shared_body())),
                EventKind::Timecode { .. } => Some((event.kind, Bytes::new())),
                _ => None,
            })
            .collect()
    };
    assert_eq!(blocks(&whole), blocks(&recorded("av_put_001.mkv")));
    assert!(shape(&read(&whole)).ends_with("b b ) Tags )end"));
}

/// The rewritten recording in a file, or `None` after saying that `tool` is missing.
fn file_for(tool: &str) -> Option<std::path::PathBuf> {
    if Command::new(tool)
        .arg("--version")
        .output()
        .or_else(|_| Command::new(tool).arg("-version").output())
        .is_err()
    {
        let required = std::env::var_os("KVS_EDGE_TEST_REQUIRE_PEERS").is_some();
        assert!(!required, "{tool} is not installed, and is required");
        eprintln!("skipped: {tool} is not installed");
        return None;
    }
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{tool}.mkv"));
    std::fs::write(&path, rewritten("av_put_001.mkv").concat()).unwrap();
    Some(path)
}

#[test]
fn ffprobe_reads_what_the_writer_wrote() {
    let Some(path) = file_for("ffprobe") else { return };
    let entries = "stream=codec_name,width,height,sample_rate,nb_read_packets";
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-count_packets", "-show_entries", entries, "-of", "csv"])
        .arg(path)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let expected = "stream,h264,320,240,90\nstream,aac,16000,92\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}

#[test]
fn mkvinfo_reads_what_the_writer_wrote() {
    let Some(path) = file_for("mkvinfo") else { return };
    let output =
        Command::new("mkvinfo").args(["--ui-language", "en_US", "-v", "-v"]).arg(path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let count = |what: &str| text.lines().filter(|line| line.contains(what)).count();
    assert_eq!((count("|+ Cluster at"), count("| + Simple block")), (3, 182));
    assert!(text.contains("V_MPEG4/ISO/AVC") && text.contains("A_AAC") && text.contains("gate 4"));
}
