//! Programs that are not ours: AWS's Python SDK, ffprobe and mkvinfo, a browser. What is not installed is named and left
//! out, unless `KVS_EDGE_TEST_REQUIRE_PEERS` is set.

mod hls_js;

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use kvs_local::{Options, Tls};
use media::mkv::write::{Track, block_head, cluster_start, header};
use media::{AudioFormat, VideoCodec, VideoFormat};
use serde_json::json;

use crate::client::{Rig, persisted};
use crate::film::{Film, HEIGHT, WIDTH};
use crate::mkv::{recorded, recording};

/// Debian's interpreter, for which Debian's boto3 is installed.
const PYTHON: &str = "/usr/bin/python3";

/// Runs to its end off the runtime's thread; `None`, and a word about it, if there is no such program.
async fn output(mut command: Command) -> Option<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("joined");
    if output.is_err() {
        absent(&name);
    }
    output.ok()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

async fn has_boto3() -> bool {
    let mut probe = Command::new(PYTHON);
    probe.args(["-c", "import boto3"]);
    let found = output(probe).await.is_some_and(|output| output.status.success());
    if !found {
        absent(&format!("boto3 for {PYTHON}"));
    }
    found
}

fn absent(what: &str) {
    assert!(std::env::var_os("KVS_EDGE_TEST_REQUIRE_PEERS").is_none(), "{what} is absent, and is required");
    println!("skipped: {what} absent");
}

/// `certificate`: of an HTTPS endpoint.
async fn drive_with_boto3(rig: &Rig, endpoint: &str, certificate: Option<&Path>, numbers: &[String]) {
    let mut command = Command::new(PYTHON);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/boto3_client.py"));
    command.arg(endpoint).arg(recording("ok_put_001.mkv")).arg("cam1").args(numbers);
    command.env("AWS_EC2_METADATA_DISABLED", "true").env("AWS_CONFIG_FILE", "/dev/null");
    if let Some(certificate) = certificate {
        command.env("AWS_CA_BUNDLE", certificate);
    }
    let output = output(command).await.expect("was there before");
    assert!(output.status.success(), "{}\n{:?}", text(&output), rig.server.calls());
    assert!(text(&output).contains("all operations as expected"));
}

/// Streams with one fragment each that cannot be played, named after what it is refused with.
const SPOILED: [&str; 4] = [
    "bad-UnsupportedStreamMediaTypeException",
    "bad-MissingCodecPrivateDataException",
    "bad-InvalidCodecPrivateDataException",
    "bad-InvalidMediaFrameException",
];

fn with_spoiled(options: &mut Options) {
    *options = SPOILED.iter().fold(options.clone(), |options, name| options.stream(*name, 24));
}

async fn put_spoiled(rig: &Rig) {
    let video = |record: &'static [u8]| {
        let (width, height) = (640, 360);
        let codec_private = Bytes::from_static(record);
        let format = VideoFormat { codec: VideoCodec::H264, codec_private, width, height, frame_rate: None };
        Track::Video(Arc::new(format))
    };
    let good = Film::h264(25, 0).track;
    let sound = Track::Audio(AudioFormat::pcmu(8_000, 1).into());
    let picture = b"\x00\x00\x00\x01\x65";
    let clips: [(&[Track], &[u8]); 4] = [
        // The pictures have to come first.
        (&[sound, good.clone()], picture),
        (&[video(b"")], picture),
        (&[video(b"\x00\x00\x00\x01\x67\x64")], picture),
        (&[good], b"\x00\x00\x00\x09\x65"),
    ];
    for (name, (tracks, block)) in SPOILED.iter().zip(clips) {
        let mut cluster = cluster_start(1_795_186_073_000).to_vec();
        for track in (1..).take(tracks.len()) {
            cluster.extend_from_slice(&block_head(track, 0, true, block.len()));
            cluster.extend_from_slice(block);
        }
        let head = header([7; 16], "test", tracks);
        let acks = rig.client.put_whole(name, &[&head[..], &cluster].concat()).await;
        assert_eq!(persisted(&acks).len(), 1, "{name}");
    }
}

#[tokio::test]
async fn boto3_drives_every_modelled_operation() {
    if !has_boto3().await {
        return;
    }
    let rig = Rig::with(24, with_spoiled).await;
    put_spoiled(&rig).await;
    let numbers = persisted(&rig.client.put_whole("cam1", &recorded("ok_put_001.mkv")).await);
    let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
    drive_with_boto3(&rig, &rig.server.endpoint(), None, &numbers).await;
    let calls = rig.server.calls();
    let operations = calls.keys().filter(|path| path.matches('/').count() == 1).count();
    assert_eq!(operations, 18, "every operation was called: {calls:?}");
}

#[tokio::test]
async fn boto3_does_the_same_over_https() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]);
    openssl.args(["-subj", "/CN=kvs-local", "-addext", "subjectAltName=IP:127.0.0.1"]);
    openssl.arg("-out").arg(&certificate).arg("-keyout").arg(&key);
    let Some(made) = output(openssl).await else { return };
    assert!(made.status.success(), "{}", text(&made));
    if !has_boto3().await {
        return;
    }
    // Our own client speaks no TLS: the fragments are put in by a plain server on the same folder before.
    let plain = Rig::with(24, with_spoiled).await;
    put_spoiled(&plain).await;
    let numbers = persisted(&plain.client.put_whole("cam1", &recorded("ok_put_001.mkv")).await);
    let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
    let Rig { server, folder: data, .. } = plain;
    server.shutdown().await;
    let read = |path: &Path| std::fs::read(path).expect("just made");
    let rig = Rig::with(24, |options| {
        options.data = data.path().to_owned();
        options.tls = Some(Tls { certificate_pem: read(&certificate), key_pem: read(&key) });
    })
    .await;
    let endpoint = rig.server.endpoint();
    assert!(endpoint.starts_with("https://127.0.0.1:"));
    drive_with_boto3(&rig, &endpoint, Some(&certificate), &numbers).await;
}

/// ffprobe counts the pictures of HLS in both containers, of DASH and of a clip, and decodes them.
async fn play(rig: &Rig, frames: u32) {
    let now_s = kvs::api::seconds(rig.client.clock.wall_ms());
    let times = json!({ "StartTimestamp": now_s - 3600.0, "EndTimestamp": now_s + 3600.0 });
    let selector = json!({ "FragmentSelectorType": "SERVER_TIMESTAMP", "TimestampRange": times });
    let clip = rig.folder.path().join("clip.mp4");
    let input = json!({ "StreamName": "cam1", "ClipFragmentSelector": selector });
    std::fs::write(&clip, rig.client.call("/getClip", input).await.body).expect("written");
    let mut played = vec![clip.to_string_lossy().into_owned()];
    for (path, name, container) in [
        ("/getHLSStreamingSessionURL", "HLS", "FRAGMENTED_MP4"),
        ("/getHLSStreamingSessionURL", "HLS", "MPEG_TS"),
        ("/getDASHStreamingSessionURL", "DASH", ""),
    ] {
        let mut input = json!({ "StreamName": "cam1", "PlaybackMode": "ON_DEMAND" });
        input[format!("{name}FragmentSelector")] = selector.clone();
        if !container.is_empty() {
            input["ContainerFormat"] = json!(container);
            input["DiscontinuityMode"] = json!("ON_DISCONTINUITY");
        }
        let answer = rig.client.call(path, input).await.json();
        played.push(answer[format!("{name}StreamingSessionURL")].as_str().expect("a URL").to_owned());
    }
    for url in played {
        let mut ffprobe = Command::new("ffprobe");
        ffprobe.args(["-v", "error", "-count_frames", "-select_streams", "v:0", "-of", "csv=p=0"]);
        // Names of segments end in a query.
        if !url.ends_with(".mp4") && url.contains("/hls/") {
            ffprobe.args(["-allowed_extensions", "ALL", "-extension_picky", "0"]);
        }
        ffprobe.args(["-show_entries", "stream=nb_read_frames"]).arg(&url);
        if let Some(output) = output(ffprobe).await {
            let found = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or("").to_owned();
            assert_eq!(found.trim_end_matches(','), frames.to_string(), "{url}: {}", text(&output));
            assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{url}");
        }
    }
}

#[tokio::test]
async fn ffmpeg_decodes_the_jpeg_of_a_time_and_it_is_the_picture_that_was_shown_then() {
    let (rig, film) = (Rig::new(24).await, Film::h264(50, 2));
    film.put(&rig, 0, 5_000).await;
    let input = json!({
        "StreamName": "cam1", "ImageSelectorType": "PRODUCER_TIMESTAMP", "StartTimestamp": 6.0, "EndTimestamp": 6.0,
        "Format": "JPEG",
    });
    let image = rig.client.call("/getImages", input).await.json()["Images"][0]["ImageContent"].take();
    let image = BASE64_STANDARD.decode(image.as_str().expect("a picture")).expect("Base64");
    let file = rig.folder.path().join("image.jpg");
    std::fs::write(&file, image).expect("written");
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-i"]).arg(&file).args(["-f", "rawvideo", "-pix_fmt", "gray", "-"]);
    let Some(output) = output(ffmpeg).await else { return };
    let (width, height) = (WIDTH as usize, HEIGHT as usize);
    assert_eq!(output.stdout.len(), width * height, "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(camera_sim::read_frame_index(&output.stdout, width, width, height), Some(25));
}

#[tokio::test]
async fn ffprobe_and_mkvinfo_read_the_answer() {
    for (file, frames) in [("ok_put_001.mkv", 150), ("hevc_put_001.mkv", 90), ("av_put_001.mkv", 90)] {
        let rig = Rig::new(24).await;
        rig.client.put_whole("cam1", &recorded(file)).await;
        let answer = rig.folder.path().join("answer.mkv");
        std::fs::write(&answer, rig.client.read_all("cam1").await).expect("written");

        let mut ffprobe = Command::new("ffprobe");
        ffprobe.args(["-v", "error", "-count_frames", "-select_streams", "v:0", "-of", "csv=p=0"]);
        ffprobe.args(["-show_entries", "stream=nb_read_frames"]).arg(&answer);
        if let Some(output) = output(ffprobe).await {
            let found = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            assert_eq!(found, frames.to_string(), "{file}: {}", text(&output));
        }

        play(&rig, frames).await;

        let mut mkvinfo = Command::new("mkvinfo");
        mkvinfo.arg("-v").arg(&answer);
        if let Some(output) = output(mkvinfo).await {
            let found = text(&output);
            assert!(found.contains("AWS_KINESISVIDEO_FRAGMENT_NUMBER"), "{found}");
            assert!(found.contains("AWS_KINESISVIDEO_CONTINUATION_TOKEN"), "{found}");
        }
    }
}
