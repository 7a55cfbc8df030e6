//! A camera that is not ours: GStreamer's RTSP server with its encoders.

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use kvs_edge_tests::{Camera, Process, Rig, Stored, program, skip, within};
use media::{VideoCodec, nal};
use messages::{CameraState, ClockSource, Reason, Stats};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// GStreamer's server with further `NAME=PIPELINE` paths; `None` where there is no interpreter.
fn spawn(folder: &Path, port: u16, further: &[&str]) -> Option<Process> {
    let python = program("python3", "python3-gst-1.0")?;
    std::fs::create_dir_all(folder).expect("the folder can be made");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/data/gst_rtsp_server.py");
    let mut command = Command::new(python);
    command.arg(script).arg(port.to_string()).arg(folder).args(further);
    Some(Process::spawn("GStreamer", &mut command))
}

/// The server and its port; `None`, and a word to stderr, where GStreamer's parts are missing.
async fn server(folder: &Path, port: u16, further: &[&str]) -> Option<(Process, u16)> {
    let process = spawn(folder, port, further)?;
    let listens = tokio::select! {
        line = process.line("listens on") => line,
        status = process.ended() => {
            assert_eq!(status.code(), Some(77), "{:#?}", process.output());
            skip(&process.stdout().join(" "));
            return None;
        }
    };
    let port = listens.rsplit(' ').next().and_then(|port| port.parse().ok()).expect("the port");
    Some((process, port))
}

/// What the server answers to DESCRIBE of a path.
async fn describe(port: u16, path: &str) -> String {
    let request = format!("DESCRIBE rtsp://127.0.0.1:{port}/{path} RTSP/1.0\r\nCSeq: 1\r\n\r\n");
    within(&format!("answer to DESCRIBE of {path}"), async {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
        socket.write_all(request.as_bytes()).await.expect("it takes requests");
        let mut answer = [0; 64];
        let length = socket.read(&mut answer).await.expect("it answers");
        String::from_utf8_lossy(&answer[..length]).into_owned()
    })
    .await
}

#[tokio::test]
async fn a_server_of_gstreamer_names_every_element_it_lacks_and_why_it_refuses() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let lacks = "lacks=( no_such_element ! no_other_element ! rtph264pay name=pay0 )";
    let Some(process) = spawn(folder.path(), 0, &[lacks]) else { return };
    assert_eq!(process.ended().await.code(), Some(77));
    let said = process.stdout().join(" ");
    assert!(said.contains("no_such_element, no_other_element"), "{said}");
    assert!(said.contains("gstreamer1.0-x"), "{said}");

    let broken = "broken=( filesrc location=/no/such/file ! h264parse ! rtph264pay name=pay0 pt=96 )";
    let Some((process, port)) = server(folder.path(), 0, &[broken]).await else { return };
    let answer = describe(port, "broken").await;
    assert!(answer.starts_with("RTSP/1.0 503"), "{answer}");
    // The rig prints what its processes wrote when a test fails.
    process.line("/no/such/file").await;
    assert!(describe(port, "h264").await.starts_with("RTSP/1.0 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn footage_of_gstreamer_is_stored_as_its_encoders_made_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let Some((camera, port)) = server(&first, 0, &[]).await else { return };
    let at = |id: &str| Camera::at(id, format!("rtsp://127.0.0.1:{port}/{id}"));
    let Some(rig) = Rig::builder().camera(at("h264")).camera(at("h265")).start().await else { return };
    let ids = ["h264", "h265"];
    for id in ids {
        rig.online(id).await;
        let settled = |stats: &Stats| (8.0..=12.0).contains(&stats.fps.input) && stats.gop_frames == Some(10);
        let stats: Stats = rig.mqtt.wait(&rig.mqtt.topics.stats(id), settled).await;
        assert_eq!((stats.size, stats.lost_packets), (Some([320, 180]), 0));
        assert_eq!(stats.audio_codec.is_some(), id == "h265", "{stats:?}");
        // Its first sender report comes after seconds.
        let clock = |stats: &Stats| stats.clock == Some(ClockSource::Rtcp);
        rig.mqtt.wait::<Stats>(&rig.mqtt.topics.stats(id), clock).await;
        rig.fragments(id, 3).await;
    }
    // The camera loses its power, and comes back.
    let mark = rig.mqtt.mark();
    camera.signal("KILL");
    for id in ids {
        let lost = rig.status(mark, id, |status| status.state == CameraState::Offline).await;
        let reasons = [Reason::Disconnected, Reason::ConnectionRefused, Reason::ProtocolError];
        assert!(lost.reason.is_some_and(|reason| reasons.contains(&reason)), "{lost:?}");
    }
    let camera = server(&second, port, &[]).await;
    assert!(camera.is_some(), "its port is free again");
    for id in ids {
        rig.status(mark, id, |status| status.state == CameraState::Online).await;
        rig.more_fragments(id, 2).await;
    }
    rig.stop().await;

    for (id, codec) in [("h264", VideoCodec::H264), ("h265", VideoCodec::H265)] {
        let footage = rig.expect_everything_proven(id).await;
        let encoded = [&first, &second].map(|folder| slices(codec, &read(&folder.join(id))));
        check_untouched(id, codec, &footage.stored, &encoded);
        assert!(footage.stored.iter().all(Stored::starts_with_key), "{id}");
        let sound = footage.stored.iter().flat_map(|fragment| &fragment.blocks).any(|block| block.track == 2);
        assert_eq!(sound, id == "h265");
        assert_eq!(rig.decode_errors(id).await, "", "{id}");
    }
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Everything but parameter sets and delimiters, which are not part of the stored picture.
fn slices(codec: VideoCodec, annexb: &[u8]) -> Vec<Bytes> {
    let keep = |unit: &&[u8]| match (codec, nal::unit_type(codec, unit)) {
        (VideoCodec::H264, Some(kind)) => !(7..=9).contains(&kind),
        (VideoCodec::H265, Some(kind)) => !(32..=35).contains(&kind),
        _ => false,
    };
    nal::annexb(annexb).filter(keep).map(Bytes::copy_from_slice).collect()
}

/// The stored pictures are one run of what the first encoder made, then one of the second, without a gap.
fn check_untouched(id: &str, codec: VideoCodec, stored: &[Stored], encoded: &[Vec<Bytes>; 2]) {
    let blocks = stored.iter().flat_map(|fragment| &fragment.blocks).filter(|block| block.track == 1);
    let mut units = Vec::new();
    for block in blocks {
        let annexb = nal::length_prefixed_to_annexb(&block.payload).expect("lengths are right");
        units.extend(slices(codec, &annexb));
    }
    let mut rest = &units[..];
    for encoded in encoded {
        let start = rest.first().and_then(|unit| encoded.iter().position(|made| made == unit));
        let start = start.unwrap_or_else(|| panic!("{id}: a stored picture is none of the encoder's"));
        let same = rest.iter().zip(&encoded[start..]).take_while(|(back, made)| back == made).count();
        let head = |units: &[Bytes]| -> Vec<_> {
            units.iter().skip(same).take(4).map(|unit| (unit[0], unit.len())).collect()
        };
        assert!(
            same > 10,
            "{id}: only {same} units in a row are the encoder's, then {:?} for {:?} (first byte, length)",
            head(rest),
            head(&encoded[start..])
        );
        rest = &rest[same..];
    }
    assert!(rest.is_empty(), "{id}: {} of {} units are not the encoders'", rest.len(), units.len());
}
