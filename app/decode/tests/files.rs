//! Video files of every kind, made by ffmpeg from the pictures of the simulated scene.

mod support;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use camera_sim::ClipSpec;
use decode::file::{About, DynamicRange, FileError, FilePicture, Progress, Step, VideoFile};
use media::ProducerTimestamp;
use tempfile::TempDir;

const START_MS: u64 = 1_000;
/// No test depends on how long anything takes.
const DEADLINE_POLLS: u32 = 600;

struct Films {
    folder: TempDir,
    /// Pictures in the clip.
    count: usize,
}

impl Films {
    /// `scene.h264`: 320x192, 10 pictures a second, 4 s.
    fn new() -> Films {
        let spec = ClipSpec { bitrate_kbps: 500, ..ClipSpec::small() };
        let units = support::units(&spec);
        let mut stream = Vec::new();
        for picture in units.clip.pictures() {
            for nal in &picture.nal_units {
                stream.extend([0, 0, 0, 1]);
                stream.extend_from_slice(nal);
            }
        }
        let films = Films { folder: tempfile::tempdir().expect("a folder"), count: units.units.len() };
        fs::write(films.path("scene.h264"), stream).expect("written");
        films
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs ffmpeg in the folder; words are split at spaces.
    #[track_caller]
    fn ffmpeg(&self, arguments: &str) -> PathBuf {
        let words: Vec<&str> = arguments.split_whitespace().collect();
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.current_dir(self.folder.path()).args(["-v", "error", "-y"]).args(&words);
        let output = ffmpeg.output().expect("ffmpeg is installed");
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        self.path(words.last().expect("an output"))
    }

    /// The scene as it is in a container.
    fn copied(&self, name: &str) -> PathBuf {
        self.ffmpeg(&format!("-r 10 -i scene.h264 -c copy {name}"))
    }

    /// The first `part` of a file, from 0.0 to 1.0, as another one.
    fn cut(&self, of: &Path, part: f64, name: &str) -> PathBuf {
        let bytes = fs::read(of).expect("a file");
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of it")]
        let length = (bytes.len() as f64 * part) as usize;
        fs::write(self.path(name), &bytes[..length]).expect("written");
        self.path(name)
    }
}

/// All that comes out of a file, and how it ended.
struct Read {
    pictures: Vec<FilePicture>,
    about: About,
    progress: Progress,
    end: Result<(), FileError>,
}

impl Read {
    /// Number in the file, position in milliseconds, number in the picture's strip.
    fn seen(&self) -> Vec<(u64, u128, Option<u32>)> {
        let seen = |picture: &FilePicture| {
            let pixels = picture.frame.picture();
            let luma = pixels.luma();
            let index = camera_sim::read_frame_index(luma.bytes, luma.stride, pixels.width, pixels.height);
            (picture.number, picture.position.as_millis(), index)
        };
        self.pictures.iter().map(seen).collect()
    }

    fn positions_ms(&self) -> Vec<u128> {
        self.pictures.iter().map(|picture| picture.position.as_millis()).collect()
    }

    #[track_caller]
    fn error(self) -> String {
        self.end.expect_err("it does not end well").to_string()
    }
}

fn read(path: &Path, rate: f64) -> Read {
    let start = ProducerTimestamp::from_millis(START_MS);
    let mut file = match VideoFile::open(path, rate, start) {
        Ok(file) => file,
        Err(error) => {
            let (about, progress) = (About::default(), Progress::default());
            return Read { pictures: Vec::new(), about, progress, end: Err(error) };
        }
    };
    let (mut pictures, mut polls) = (Vec::new(), 0);
    let end = loop {
        match file.poll(Duration::from_millis(100)) {
            Ok(Step::Picture(picture)) => pictures.push(picture),
            Ok(Step::NotYet) => polls += 1,
            Ok(Step::End) => break Ok(()),
            Err(error) => break Err(error),
        }
        assert!(polls < DEADLINE_POLLS, "{} pictures of {}", pictures.len(), path.display());
    };
    Read { pictures, about: file.about(), progress: file.progress(), end }
}

/// Reads to a good end.
#[track_caller]
fn whole(path: &Path, rate: f64) -> Read {
    let read = read(path, rate);
    if let Err(error) = &read.end {
        panic!("{error}, after {} pictures", read.pictures.len());
    }
    read
}

#[test]
fn every_picture_of_every_container_comes_once_in_order() {
    let films = Films::new();
    films.copied("scene.mp4");
    for name in
        ["scene.mp4", "scene.mkv", "scene.ts", "scene.avi", "scene.h264", "mjpeg.avi", "vp9.webm", "b.mp4"]
    {
        let path = match name {
            "scene.mp4" | "scene.h264" => films.path(name),
            "mjpeg.avi" => films.ffmpeg("-i scene.mp4 -c:v mjpeg -q:v 3 mjpeg.avi"),
            "vp9.webm" => {
                films.ffmpeg("-i scene.mp4 -c:v libvpx-vp9 -deadline realtime -cpu-used 8 vp9.webm")
            }
            "b.mp4" => films.ffmpeg("-i scene.mp4 -c:v libx264 -bf 2 b.mp4"),
            _ => films.copied(name),
        };
        let read = whole(&path, f64::INFINITY);
        let indices: Vec<_> = read.seen().into_iter().map(|(number, _, index)| (number, index)).collect();
        let expected: Vec<_> = (0..40).map(|index| (u64::from(index) + 1, Some(index))).collect();
        assert_eq!((indices, films.count), (expected, 40), "{name}");
        // A raw stream may have the rate of its parameter sets, or none.
        let step = if name.ends_with(".h264") { 40..=100 } else { 99..=101 };
        let positions = read.positions_ms();
        assert!(
            positions.windows(2).all(|pair| step.contains(&(pair[1] - pair[0]))),
            "{name}: {positions:?}"
        );
        assert_eq!(positions[0], 0, "{name}");
        assert_eq!(read.pictures[0].frame.timestamp().as_millis(), START_MS, "{name}");
        assert_eq!((read.about.coded, read.about.bits, read.progress.damaged), ((320, 192), 8, 0), "{name}");
    }
}

#[test]
fn pictures_are_picked_by_their_times_alone() {
    let films = Films::new();
    let path = films.copied("scene.mp4");
    let numbers =
        |rate: f64| whole(&path, rate).seen().iter().map(|(number, ..)| *number).collect::<Vec<_>>();
    let each = |step: usize| (1..=40).step_by(step).collect::<Vec<u64>>();
    assert_eq!(numbers(5.0), each(2));
    assert_eq!(numbers(1.0), each(10));
    assert_eq!(numbers(30.0), each(1), "no more than there are");
    assert_eq!(numbers(4.0), numbers(4.0));
}

#[test]
fn times_of_a_variable_rate_are_those_of_the_file() {
    let films = Films::new();
    films.copied("scene.mp4");
    for name in ["vfr.mkv", "vfr.mp4"] {
        // The first second whole, then every fifth picture.
        let select = "select='lt(n\\,10)+not(mod(n\\,5))'";
        let path = films.ffmpeg(&format!("-i scene.mp4 -vf {select} -vsync vfr -c:v libx264 -bf 0 {name}"));
        let expected: Vec<u32> = (0..10).chain((10..40).step_by(5)).collect();
        let read = whole(&path, f64::INFINITY);
        let found: Vec<_> = read.seen().iter().map(|(_, ms, index)| (*ms, *index)).collect();
        let expected: Vec<_> =
            expected.iter().map(|index| (u128::from(*index) * 100, Some(*index))).collect();
        assert_eq!(found, expected, "{name}");
        let picked: Vec<_> = whole(&path, 2.0).seen().iter().map(|(_, ms, _)| *ms).collect();
        assert_eq!(picked, [0, 500, 1000, 1500, 2000, 2500, 3000, 3500], "{name}");
    }
}

#[test]
fn a_phone_held_upright_has_upright_pictures() {
    let films = Films::new();
    let lying = films.copied("lying.mp4");
    // This makes ffmpeg say: a quarter counter-clockwise.
    let upright = films.ffmpeg("-i lying.mp4 -c copy -metadata:s:v rotate=90 upright.mp4");
    let (lying, upright) = (whole(&lying, 1.0), whole(&upright, 1.0));
    assert_eq!((lying.about.turned, upright.about.turned), (false, true));
    assert_eq!((upright.pictures.len(), upright.about.coded), (4, (320, 192)));
    for (lying, upright) in lying.pictures.iter().zip(&upright.pictures) {
        assert_eq!(upright.frame.source_size(), (192, 320));
        let (lying, upright) = (lying.frame.picture(), upright.frame.picture());
        let luma = |picture: &vision::Picture<'_>, x: usize, y: usize| {
            let plane = picture.luma();
            plane.bytes[y * plane.stride + x]
        };
        for (x, y) in (0..320).flat_map(|x| (0..192).map(move |y| (x, y))) {
            assert_eq!(luma(&lying, x, y), luma(&upright, y, 319 - x), "pixel {x}, {y}");
        }
    }
}

#[test]
fn other_sample_formats_and_sizes_are_converted_and_named() {
    let films = Films::new();
    films.copied("scene.mp4");
    #[track_caller]
    fn check(read: &Read, size: (u32, u32), bits: u32, range: DynamicRange) {
        assert_eq!((read.about.coded, read.about.bits, read.about.dynamic_range), (size, bits, range));
        let [(.., first), ..] = read.seen()[..] else { panic!("no picture") };
        if size == (320, 192) {
            assert_eq!(first, Some(0), "the strip can still be read");
        }
        assert_eq!(read.pictures[0].frame.source_size(), size);
    }
    for (transfer, range) in [("smpte2084", DynamicRange::Pq), ("arib-std-b67", DynamicRange::Hlg)] {
        let path = films.ffmpeg(&format!(
            "-i scene.mp4 -t 1 -c:v libx265 -pix_fmt yuv420p10le -preset ultrafast -color_primaries bt2020 \
             -color_trc {transfer} -colorspace bt2020nc -x265-params log-level=error hdr.mp4"
        ));
        check(&whole(&path, 5.0), (320, 192), 10, range);
    }
    let path = films.ffmpeg("-i scene.mp4 -t 1 -c:v libx264 -pix_fmt yuv444p -preset ultrafast full.mp4");
    check(&whole(&path, 5.0), (320, 192), 8, DynamicRange::Standard);
    let path = films.ffmpeg("-i scene.mp4 -t 0.5 -vf scale=3840:2160 -c:v libx264 -preset ultrafast 4k.mp4");
    check(&whole(&path, 2.0), (3840, 2160), 8, DynamicRange::Standard);
    let path = films.ffmpeg("-i scene.mp4 -t 0.5 -vf scale=321:193 -c:v mjpeg -pix_fmt yuvj444p odd.avi");
    check(&whole(&path, 5.0), (321, 193), 8, DynamicRange::Standard);
}

#[test]
fn sound_is_left_alone_and_does_not_count_as_missing_pictures() {
    let films = Films::new();
    films.copied("scene.mp4");
    let path = films.ffmpeg("-i scene.mp4 -f lavfi -i sine=d=9 -c:v copy -c:a aac sound.mp4");
    let read = whole(&path, f64::INFINITY);
    assert_eq!((read.pictures.len(), read.about.other_videos), (40, 0));
    assert!(read.about.duration.is_some_and(|duration| duration.as_secs() >= 9), "{:?}", read.about);
    let codec = read.about.codec.expect("its name");
    assert!(codec.contains("H.264"), "{codec}");
    let path = films.ffmpeg("-i scene.mp4 -i scene.mp4 -map 0:v -map 1:v -c copy two.mkv");
    let read = whole(&path, f64::INFINITY);
    assert_eq!((read.pictures.len(), read.about.other_videos), (40, 1));
}

#[test]
fn a_file_without_video_says_what_it_holds() {
    let films = Films::new();
    let path = films.ffmpeg("-f lavfi -i sine=d=1 -c:a aac sound.mp4");
    let error = read(&path, 5.0).error();
    assert!(error.contains("sound.mp4 holds no video, but audio/mpeg"), "{error}");
    fs::write(films.path("text.mp4"), "no video\n".repeat(100)).expect("written");
    let noise: Vec<u8> =
        (0..5_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0]).collect();
    fs::write(films.path("noise.mp4"), noise).expect("written");
    fs::write(films.path("empty.mp4"), []).expect("written");
    let check = |name: &str, expected: &str| {
        let error = read(&films.path(name), 5.0).error();
        assert!(error.contains(name) && error.contains(expected), "{error}");
    };
    check("text.mp4", "no video");
    check("noise.mp4", "no video file; GStreamer: ");
    check("empty.mp4", "the file is empty");
    check("missing.mp4", "No such file");
    let error = read(films.folder.path(), 5.0).error();
    assert!(error.contains("this is not a file"), "{error}");
}

#[test]
fn a_codec_that_nothing_reads_is_named_with_what_to_install() {
    let films = Films::new();
    let path = films.copied("scene.mkv");
    let mut bytes = fs::read(&path).expect("a file");
    let id = b"V_MPEG4/ISO/AVC";
    let at = bytes.windows(id.len()).position(|window| window == id).expect("the codec's name");
    bytes[at..at + id.len()].copy_from_slice(b"V_MPEG4/ISO/XYZ");
    fs::write(&path, bytes).expect("written");
    let error = read(&path, 5.0).error();
    assert!(error.contains("nothing that reads video/x-unknown (V_MPEG4/ISO/XYZ)"), "{error}");
    assert!(error.contains("Debian package gstreamer1.0-libav"), "{error}");
}

#[test]
fn a_file_that_is_cut_yields_what_is_there_and_says_where_it_ends() {
    let films = Films::new();
    films.copied("scene.mp4");
    films.ffmpeg("-i scene.mp4 -c copy -movflags +faststart front.mp4");
    films.copied("whole.mkv");
    for (of, name) in [("front.mp4", "cut.mp4"), ("whole.mkv", "cut.mkv")] {
        let path = films.cut(&films.path(of), 0.5, name);
        let read = read(&path, f64::INFINITY);
        let seen = read.seen();
        assert!((8..32).contains(&seen.len()), "{name}: {seen:?}");
        let rising = (0..).zip(&seen).all(|(n, (number, _, index))| *number == n + 1 && index.is_some());
        assert!(rising, "{name}: {seen:?}");
        let last = read.progress.position;
        match read.end {
            Err(FileError::CutShort { at, expected, .. }) => {
                assert_eq!((at, expected.as_secs_f64().round()), (last, 4.0), "{name}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    // The table of its pictures was at its end.
    let error = read(&films.cut(&films.path("scene.mp4"), 0.5, "headless.mp4"), 5.0).error();
    assert!(error.contains("headless.mp4 is damaged at 0.0 s"), "{error}");
}

#[test]
fn damage_in_the_middle_costs_pictures_and_not_the_rest() {
    let films = Films::new();
    let path = films.copied("scene.ts");
    let mut bytes = fs::read(&path).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 3_000].fill(0xff);
    fs::write(&path, bytes).expect("written");
    let read = read(&path, f64::INFINITY);
    assert!(read.end.is_ok(), "{:?}", read.end);
    let seen = read.seen();
    assert!(seen.len() < 40, "it cost something");
    assert_eq!(seen.last().map(|(.., index)| *index), Some(Some(39)), "{seen:?}");
}

#[test]
fn who_stops_in_the_middle_is_not_kept_waiting() {
    let films = Films::new();
    let path = films.copied("scene.mkv");
    let mut file = VideoFile::open(&path, f64::INFINITY, ProducerTimestamp::from_millis(0)).expect("a file");
    let mut pictures = 0;
    while pictures < 3 {
        pictures += u32::from(matches!(file.poll(Duration::from_secs(10)), Ok(Step::Picture(_))));
    }
    assert!(file.progress().decoded < 40, "the decoder waits for whoever asks");
    let path = path.as_os_str() == OsStr::new(file.path());
    assert!(path);
}
