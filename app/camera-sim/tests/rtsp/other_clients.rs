//! A second client, so that the simulator does not only please retina.

use std::io::{ErrorKind, Write};

use camera_sim::{Audio, AuthKind, ClipSpec, Codec};

use crate::{sim, small_clip, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn ffprobe_reads_both_tracks_over_tcp_and_udp() {
    for (codec, audio, names) in [
        (Codec::H264, Audio::Aac, ["codec_name=h264", "codec_name=aac"]),
        (Codec::H265, Audio::Pcmu, ["codec_name=hevc", "codec_name=pcm_mulaw"]),
    ] {
        let spec = ClipSpec { codec, audio, ..small_clip() };
        let sim = sim().clip(spec).auth("admin", "secret", AuthKind::Digest).start().await.unwrap();
        for transport in ["tcp", "udp"] {
            let url = sim.url(0).replace("rtsp://", "rtsp://admin:secret@");
            let probe = tokio::task::spawn_blocking(move || {
                let mut command = std::process::Command::new("ffprobe");
                command.args(["-v", "error", "-analyzeduration", "1000000", "-rtsp_transport", transport]);
                command.args(["-show_streams", "-i", &url]);
                command.output()
            });
            let output = match soon(probe).await.unwrap() {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let required = std::env::var_os("KVS_EDGE_TEST_REQUIRE_PEERS").is_some();
                    assert!(!required, "no program `ffprobe`, and it is required");
                    let _ =
                        writeln!(std::io::stderr(), "skipped: no program `ffprobe` (Debian package ffmpeg)");
                    return;
                }
                output => output.unwrap(),
            };
            let text = String::from_utf8_lossy(&output.stdout);
            for name in names {
                assert!(
                    text.contains(name),
                    "{transport}: {text} {}",
                    String::from_utf8_lossy(&output.stderr)
                );
            }
            assert!(text.contains("width=320") && text.contains("height=180"), "{text}");
        }
    }
}
