//! Encoding by a GStreamer command line that is fed raw pictures through a pipe.

use std::fs;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::cache::{self, failed};
use super::{ClipError, ClipSpec, Codec, gdp};
use crate::scene::Scene;

/// Raised when the same options give other bytes than before.
pub(super) const VERSION: u32 = 1;

/// Which Debian package brings an element.
const PACKAGES: [(&str, &str); 7] = [
    ("x264enc", "gstreamer1.0-plugins-ugly"),
    ("x265enc", "gstreamer1.0-plugins-bad"),
    ("gdppay", "gstreamer1.0-plugins-bad"),
    ("rawvideoparse", "gstreamer1.0-plugins-bad"),
    ("rawaudioparse", "gstreamer1.0-plugins-bad"),
    ("avenc_aac", "gstreamer1.0-libav"),
    ("aacparse", "gstreamer1.0-plugins-good"),
];

/// Renders and encodes all pictures; leaves video, index and ground truth in `folder`.
pub(super) fn video(spec: &ClipSpec, folder: &Path) -> Result<(), ClipError> {
    let gdp_path = folder.join("video.gdp");
    let truth_path = folder.join(cache::TRUTH);
    let mut truth_file = BufWriter::new(fs::File::create(&truth_path).map_err(failed(&truth_path))?);
    run(&video_pipeline(spec), &gdp_path, |pipe| {
        let mut scene = Scene::new(spec.scene());
        for index in 0..spec.pictures() {
            let (picture, truth) = scene.render(index);
            pipe.write_all(picture.as_bytes())?;
            serde_json::to_writer(&mut truth_file, &truth)?;
            truth_file.write_all(b"\n")?;
        }
        truth_file.flush()
    })?;

    let stream = fs::read(&gdp_path).map_err(failed(&gdp_path))?;
    let buffers = gdp::buffers(&stream).map_err(ClipError::Output)?;
    let mut times: Vec<u64> = buffers.iter().map(|(time, _)| *time).collect();
    times.sort_unstable();
    let rank = |time: &u64| u32::try_from(times.partition_point(|other| other < time)).unwrap_or(u32::MAX);
    let index: cache::Index = buffers.iter().map(|(time, payload)| (rank(time), payload.len())).collect();
    let video: Vec<u8> = buffers.iter().flat_map(|(_, payload)| *payload).copied().collect();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, bytes).map_err(failed(&path))
    };
    write(&cache::video_name(spec), &video)?;
    write(cache::INDEX, &serde_json::to_vec(&index).expect("numbers serialise"))?;
    fs::remove_file(&gdp_path).map_err(failed(&gdp_path))
}

fn video_pipeline(spec: &ClipSpec) -> String {
    let ClipSpec { width, height, fps, bitrate_kbps, gop, b_frames, .. } = spec;
    let raw_bytes = width * height * 3 / 2;
    let source = format!(
        "fdsrc fd=0 blocksize={raw_bytes} ! rawvideoparse format=i420 width={width} height={height} framerate={fps}/1"
    );
    let encoder = match spec.codec {
        // Parameter sets are repeated before each IDR, as cameras do.
        Codec::H264 => format!(
            "x264enc bitrate={bitrate_kbps} key-int-max={gop} bframes={b_frames} b-adapt=false aud=false \
             byte-stream=true speed-preset=veryfast option-string=scenecut=0:keyint={gop}:min-keyint={gop} \
             ! video/x-h264,profile=high,stream-format=byte-stream,alignment=au"
        ),
        Codec::H265 => format!(
            "x265enc bitrate={bitrate_kbps} key-int-max={gop} speed-preset=ultrafast \
             option-string=scenecut=0:keyint={gop}:min-keyint={gop}:bframes={b_frames}:b-adapt=0:open-gop={}:\
             repeat-headers=1:info=0:aud=0:log-level=error \
             ! video/x-h265,stream-format=byte-stream,alignment=au",
            u8::from(spec.open_gop)
        ),
    };
    format!("{source} ! {encoder} ! gdppay crc-header=false")
}

/// Runs `gst-launch-1.0` with `pipeline ! filesink` into `output`; `feed` writes the input.
pub(super) fn run(
    pipeline: &str,
    output: &Path,
    feed: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), ClipError> {
    let failure = |message: String| ClipError::Encode { pipeline: pipeline.to_owned(), message };
    let mut command = Command::new("gst-launch-1.0");
    // A pipeline description is split at spaces, as a shell would; the path is one argument of its own.
    command.arg("-q").args(pipeline.split_whitespace()).args(["!", "filesink"]);
    command.arg(format!("location={}", output.display()));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ClipError::NoGstLaunch,
        _ => failure(error.to_string()),
    })?;
    let mut child = KillOnDrop(child);
    let mut errors = child.0.stderr.take().expect("stderr is piped");
    // Read beside the writing, or a child with much to say would block.
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = errors.read_to_string(&mut text);
        text
    });
    let fed = feed(&mut child.0.stdin.take().expect("stdin is piped"));
    let status = child.0.wait().map_err(|error| failure(error.to_string()))?;
    let text = reader.join().unwrap_or_default();
    if let Some(element) = missing_element(&text) {
        let package = PACKAGES.iter().find(|(name, _)| *name == element);
        let package = package.map_or("that contains it", |(_, package)| package);
        return Err(ClipError::NoElement { element, package });
    }
    match fed {
        Ok(()) if status.success() => Ok(()),
        _ if !text.trim().is_empty() => Err(failure(text.trim().to_owned())),
        Ok(()) => Err(failure(format!("it ended with {status}"))),
        Err(error) => Err(failure(error.to_string())),
    }
}

fn missing_element(stderr: &str) -> Option<String> {
    let (_, rest) = stderr.split_once("no element \"")?;
    rest.split_once('"').map(|(name, _)| name.to_owned())
}

struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_element_is_named_with_its_package() {
        let text = "WARNING: erroneous pipeline: no element \"x265enc\"\n";
        assert_eq!(missing_element(text).as_deref(), Some("x265enc"));
        assert_eq!(missing_element("ERROR: something else"), None);
    }
}
