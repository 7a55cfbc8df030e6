//! Encoding by a GStreamer command line that is fed raw pictures through a pipe.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::cache::{self, failed};
use super::{ClipError, ClipSpec, Codec, gdp};
use crate::scene::Scene;

/// Raised when the same options give other bytes than before.
pub(super) const VERSION: u32 = 1;

const LOOK_EVERY: Duration = Duration::from_millis(20);
/// An encoder that looks ahead at large pictures on a busy machine takes a few seconds to its first bytes.
const STILL_LIMIT: Duration = Duration::from_secs(60);
/// From an error to the end.
const FAILED_LIMIT: Duration = Duration::from_secs(2);

/// Which Debian package brings an element.
const PACKAGES: [(&str, &str); 10] = [
    ("x264enc", "gstreamer1.0-plugins-ugly"),
    ("x265enc", "gstreamer1.0-plugins-bad"),
    ("gdppay", "gstreamer1.0-plugins-bad"),
    ("rawvideoparse", "gstreamer1.0-plugins-bad"),
    ("rawaudioparse", "gstreamer1.0-plugins-bad"),
    ("h264parse", "gstreamer1.0-plugins-bad"),
    ("h265parse", "gstreamer1.0-plugins-bad"),
    ("videoflip", "gstreamer1.0-plugins-good"),
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
    let mut times: Vec<Option<u64>> = buffers.iter().map(|buffer| buffer.time_ns).collect();
    times.sort_unstable();
    let rank = |time| u32::try_from(times.partition_point(|other| *other < time)).unwrap_or(u32::MAX);
    let index: cache::Index =
        buffers.iter().map(|buffer| (rank(buffer.time_ns), buffer.payload.len())).collect();
    let video: Vec<u8> = buffers.iter().flat_map(|buffer| &stream[buffer.payload.clone()]).copied().collect();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, bytes).map_err(failed(&path))
    };
    write(&cache::video_name(spec.codec), &video)?;
    write(cache::INDEX, &serde_json::to_vec(&index).expect("numbers serialise"))?;
    fs::remove_file(&gdp_path).map_err(failed(&gdp_path))
}

fn video_pipeline(spec: &ClipSpec) -> String {
    let ClipSpec { width, height, fps, .. } = spec;
    let raw_bytes = width * height * 3 / 2;
    let source = format!(
        "fdsrc fd=0 blocksize={raw_bytes} ! rawvideoparse format=i420 width={width} height={height} framerate={fps}/1"
    );
    format!("{source} ! {} ! gdppay crc-header=false", encoder(spec))
}

/// From raw pictures to an Annex B byte stream, one access unit a buffer.
pub(super) fn encoder(spec: &ClipSpec) -> String {
    let ClipSpec { bitrate_kbps, gop, b_frames, .. } = spec;
    match spec.codec {
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
    }
}

/// Runs `gst-launch-1.0` with `pipeline ! filesink` into `output`; `feed` writes the input.
pub(super) fn run(
    pipeline: &str,
    output: &Path,
    feed: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), ClipError> {
    launch(None, pipeline, output, feed)
}

/// Likewise; with `input`, the pipeline begins with that file.
pub(super) fn launch(
    input: Option<&Path>,
    pipeline: &str,
    output: &Path,
    feed: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), ClipError> {
    let failure = |message: String| ClipError::Encode { pipeline: pipeline.to_owned(), message };
    let mut command = Command::new("gst-launch-1.0");
    // A pipeline description is split at spaces, as a shell would; a path is one argument of its own.
    let location = |path: &Path| {
        let mut argument = OsString::from("location=");
        argument.push(path);
        argument
    };
    command.arg("-q");
    if let Some(input) = input {
        command.arg("filesrc").arg(location(input)).arg("!");
    }
    command.args(pipeline.split_whitespace()).args(["!", "filesink"]);
    command.arg(location(output));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ClipError::NoGstLaunch,
        _ => failure(error.to_string()),
    })?;
    let mut child = KillOnDrop(child);
    let errors = child.0.stderr.take().expect("stderr is piped");
    // Read beside the writing, or a child with much to say would block.
    let failing = Arc::new(AtomicBool::new(false));
    let told = failing.clone();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        for line in BufReader::new(errors).split(b'\n').map_while(Result::ok) {
            text.push_str(&String::from_utf8_lossy(&line));
            text.push('\n');
            told.fetch_or(line.starts_with(b"ERROR"), Ordering::Relaxed);
        }
        text
    });
    let fed = feed(&mut child.0.stdin.take().expect("stdin is piped"));
    let ended = end(&mut child.0, output, &failing).map_err(|error| failure(error.to_string()))?;
    let Some(status) = ended else {
        drop(child);
        let text = reader.join().unwrap_or_default();
        let still = format!("it stood still for {} s", STILL_LIMIT.as_secs());
        return Err(failure(if text.is_empty() { still } else { text }));
    };
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

/// Waits until the program has ended; `None` when its output does not grow any more: after an error while it starts
/// gst-launch 1.22 now and then waits for ever.
fn end(child: &mut Child, output: &Path, failing: &AtomicBool) -> io::Result<Option<ExitStatus>> {
    let (mut still, mut size) = (Duration::ZERO, None);
    while still < if failing.load(Ordering::Relaxed) { FAILED_LIMIT } else { STILL_LIMIT } {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(LOOK_EVERY);
        let now = fs::metadata(output).ok().map(|metadata| metadata.len());
        still = if now == size { still + LOOK_EVERY } else { Duration::ZERO };
        size = now;
    }
    Ok(None)
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
