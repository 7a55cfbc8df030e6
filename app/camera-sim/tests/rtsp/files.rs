//! Video files of a user's own, made by GStreamer.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use camera_sim::{CameraSim, Clip, ClipError, ClipSpec, Codec, Fault};

use crate::client::{Options, Reader, play};
use crate::{small_clip, soon};

/// Runs a pipeline in `folder`.
fn gst(folder: &Path, pipeline: &str) {
    let mut command = Command::new("gst-launch-1.0");
    command.arg("-q").args(pipeline.split_whitespace()).current_dir(folder);
    let output = command.output().expect("gst-launch-1.0 runs");
    assert!(output.status.success(), "{pipeline}: {}", String::from_utf8_lossy(&output.stderr));
}

/// `pictures` pictures of 320x240 at 29.97 a second, a key picture every 6, in a container and as they left the encoder.
fn coded(folder: &Path, codec: Codec, b_frames: u32, pictures: u32, mux: &str) -> (PathBuf, PathBuf) {
    let encoder = match codec {
        Codec::H264 => {
            format!("x264enc aud=false key-int-max=6 bframes={b_frames} b-adapt=false byte-stream=true")
        }
        Codec::H265 => {
            format!("x265enc key-int-max=6 option-string=bframes={b_frames}:b-adapt=0:log-level=error")
        }
    };
    let name = codec.name();
    gst(
        folder,
        &format!(
            "videotestsrc pattern=ball num-buffers={pictures} \
             ! video/x-raw,format=I420,width=320,height=240,framerate=30000/1001 ! {encoder} \
             ! video/x-{name},stream-format=byte-stream,alignment=au ! tee name=t ! queue ! filesink location=raw \
             t. ! queue ! {name}parse ! {mux} ! filesink location=file"
        ),
    );
    (folder.join("file"), folder.join("raw"))
}

fn load(file: &Path, cache: &Path) -> Result<Arc<Clip>, ClipError> {
    Clip::load(&small_clip().of_file(file)?, cache)
}

/// What belongs to the pictures: neither parameter sets nor delimiters.
fn of_pictures<'a>(codec: Codec, nals: impl Iterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let stays = |nal: &&[u8]| match codec {
        Codec::H264 => !matches!(nal[0] & 0x1f, 7..=9),
        Codec::H265 => !matches!(nal[0] >> 1 & 0x3f, 32..=35),
    };
    nals.filter(stays).map(<[u8]>::to_vec).collect()
}

/// The NAL units of a byte stream.
fn split(stream: &[u8]) -> Vec<&[u8]> {
    let mut nals = Vec::new();
    let (mut start, mut at) = (None, 0);
    while at + 3 <= stream.len() {
        if stream[at..at + 3] == [0, 0, 1] {
            nals.extend(start.map(|start| &stream[start..at]));
            start = Some(at + 3);
            at += 3;
        } else {
            at += 1;
        }
    }
    nals.extend(start.map(|start| &stream[start..]));
    let trimmed = |nal: &&[u8]| nal.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    nals.into_iter().map(|nal| &nal[..trimmed(&nal)]).collect()
}

#[test]
fn h264_and_h265_of_a_file_are_played_byte_for_byte() {
    for (codec, b_frames, mux) in [
        (Codec::H264, 2, "mp4mux"),
        (Codec::H264, 0, "mpegtsmux"),
        (Codec::H264, 0, "identity"),
        (Codec::H265, 2, "matroskamux"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (file, raw) = coded(folder.path(), codec, b_frames, 20, mux);
        let clip = load(&file, &folder.path().join("cache")).unwrap();
        assert!(!clip.encoded(), "{mux}");
        let ClipSpec { width, height, fps, codec: found, .. } = *clip.spec();
        assert_eq!((found, width, height, fps, clip.pictures().len()), (codec, 320, 240, 30, 20), "{mux}");
        let raw = std::fs::read(raw).unwrap();
        let played = clip.pictures().iter().flat_map(|picture| picture.nal_units.iter().map(|nal| &nal[..]));
        assert!(of_pictures(codec, played) == of_pictures(codec, split(&raw).into_iter()), "{mux}");
        assert!(clip.pictures().iter().all(|picture| picture.vcl(codec).count() == 1), "{mux}: mixed up");
        let reordered = clip.pictures().iter().zip(0..).any(|(picture, position)| picture.index != position);
        assert_eq!(reordered, b_frames > 0, "{mux}");
        for key in clip.pictures().iter().filter(|picture| picture.random_access) {
            let sets = clip.parameter_sets();
            assert_eq!(&key.nal_units[..sets.len()], sets, "{mux}: parameter sets come first");
        }
    }
}

#[test]
fn other_codecs_are_encoded_once() {
    let check = |name: &str, source: &str| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        gst(folder.path(), &format!("videotestsrc num-buffers=15 ! {source} ! filesink location=made"));
        std::fs::rename(folder.path().join("made"), &file).unwrap();
        let cache = folder.path().join("cache");
        let inodes = || -> Vec<u64> {
            let folders = std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path());
            folders.map(|folder| std::fs::metadata(folder.join("video.h264")).unwrap().ino()).collect()
        };
        let clip = load(&file, &cache).unwrap();
        let (pictures, made) = (clip.pictures().len(), inodes());
        assert!(clip.encoded(), "{name}");
        let ClipSpec { width, height, fps, .. } = *clip.spec();
        assert_eq!((width, height, fps, pictures, made.len()), (320, 240, 10, 15, 1), "{name}");
        let again = load(&file, &cache).unwrap();
        assert_eq!(
            (again.access_unit(3).nal_units.clone(), inodes()),
            (clip.access_unit(3).nal_units.clone(), made)
        );

        // The same name with other contents is another clip.
        std::fs::File::options().append(true).open(&file).unwrap().set_len(clip.spec().gop.into()).unwrap();
        assert!(load(&file, &cache).is_err(), "{name}: cut to a few bytes");
    };
    // Odd sides are what H.264 in 4:2:0 cannot have.
    let raw = |width, height| format!("video/x-raw,width={width},height={height},framerate=10/1");
    check("an \"odd\" one's.avi", &format!("{} ! jpegenc ! avimux", raw(321, 241)));
    check("mpeg4.avi", &format!("{} ! avenc_mpeg4 ! avimux", raw(320, 240)));
    let sound = "mux. audiotestsrc num-buffers=20 ! vorbisenc ! matroskamux name=mux";
    check("with sound.mkv", &format!("{} ! jpegenc ! {sound}", raw(320, 240)));
    check(
        "raw, with B pictures.h264",
        &format!(
            "{} ! x264enc bframes=2 b-adapt=false ! video/x-h264,stream-format=byte-stream",
            raw(320, 240)
        ),
    );
}

#[test]
fn what_is_no_video_file_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    gst(folder.path(), "audiotestsrc num-buffers=10 ! wavenc ! filesink location=sound.wav");
    let (film, _) = coded(folder.path(), Codec::H264, 0, 12, "mp4mux");
    let film = std::fs::read(film).unwrap();
    std::fs::write(at("cut.mp4"), &film[..film.len() / 2]).unwrap();
    std::fs::write(at("empty.mp4"), []).unwrap();
    std::fs::write(at("letter.mp4"), "Dear Sir or Madam").unwrap();
    for (name, expected) in [
        ("missing.mp4", "No such file"),
        (".", "not a file"),
        ("sound.wav", "no video"),
        ("cut.mp4", "damaged"),
        ("empty.mp4", "is empty"),
        ("letter.mp4", "damaged, or no video file"),
    ] {
        let error = load(&at(name), &at("cache")).unwrap_err().to_string();
        assert!(
            error.contains(expected) && error.contains(folder.path().to_str().unwrap()),
            "{name}: {error}"
        );
    }
    let left: Vec<_> = std::fs::read_dir(at("cache")).unwrap().collect();
    assert!(left.is_empty(), "something was left behind: {left:?}");
}

#[tokio::test]
async fn stamps_go_on_over_the_end_of_a_loop_of_any_length() {
    let folder = tempfile::tempdir().unwrap();
    // 0.2336 s
    let (file, _) = coded(folder.path(), Codec::H264, 0, 7, "mp4mux");
    let cache = folder.path().join("cache");
    let spec = small_clip().of_file(&file).unwrap();
    let sim = CameraSim::builder().clip(spec).cameras(2).cache_dir(&cache).start().await.unwrap();
    let clip = sim.clip(0);
    assert!(Arc::ptr_eq(clip, sim.clip(1)), "one file, one clip");
    let mut reader = Reader::new(soon(play(&sim.url(0), &Options::default())).await.unwrap());
    let pictures = soon(reader.pictures(40)).await;
    let stats = soon(sim.wait_stats(0, |stats| stats.pictures >= 40)).await;
    let mut before = None;
    for (received, sent) in pictures.iter().zip(&stats.sent) {
        let ticks = received.frame.timestamp().timestamp();
        // 3003 ticks; the container may have rounded to its own clock.
        assert!(
            before.is_none_or(|before| (3000..=3006).contains(&(ticks - before))),
            "{before:?}, then {ticks}"
        );
        before = Some(ticks);
        assert!((received.capture_utc_s() * 1000.0 - sent.capture_utc_ms as f64).abs() < 2.0, "{sent:?}");
        let slices = of_pictures(Codec::H264, received.nal_units().into_iter());
        let of_file = clip.access_unit(sent.index).nal_units.iter().map(|nal| &nal[..]);
        assert!(slices == of_pictures(Codec::H264, of_file), "{sent:?}");
    }
    let indices: Vec<u32> = stats.sent.iter().map(|sent| sent.index).collect();
    assert!(indices.windows(2).all(|pair| pair[1] == (pair[0] + 1) % 7), "{indices:?}");
    let now = clock::Clock::system().wall().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - pictures[39].capture_utc_s()).abs() < 30.0, "capture time is not of today");
    sim.shutdown().await;
}

#[tokio::test]
async fn a_file_has_the_faults_of_the_scene() {
    let folder = tempfile::tempdir().unwrap();
    let (file, _) = coded(folder.path(), Codec::H264, 2, 20, "mp4mux");
    let spec = small_clip().of_file(&file).unwrap();
    let sim = CameraSim::builder().clip(spec).cache_dir(folder.path().join("cache")).start().await.unwrap();
    let mut reader = Reader::new(soon(play(&sim.url(0), &Options::default())).await.unwrap());
    soon(reader.pictures(2)).await;
    assert_eq!(reader.dimensions(), Some((320, 240)));
    sim.faults(0).inject(Fault::SwitchParameters);
    soon(async {
        while reader.dimensions() != Some((160, 120)) {
            reader.pictures(1).await;
        }
    })
    .await;

    // Another GOP has to be encoded.
    let url = format!("{}?gop=3&drop=0.5", sim.url(0));
    let mut reader = Reader::new(soon(play(&url, &Options::default())).await.unwrap());
    soon(sim.wait_stats(0, |stats| stats.packets_dropped > 0)).await;
    sim.faults(0).inject(Fault::HangUp);
    soon(reader.end()).await;
    sim.shutdown().await;
}
