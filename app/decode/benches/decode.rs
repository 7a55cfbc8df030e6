//! CPU per decoded picture, all threads: ours against `gst-launch-1.0 ... ! avdec max-threads=1 ! fakesink` in the
//! same run, in turns, best of some rounds. Both decode the same bytes; starting up is subtracted.
//!
//! `cargo bench -p decode --bench decode`; the clips are rendered and encoded on the first run.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};

use camera_sim::{Clip, ClipSpec, Codec};
use decode::{Decoder, DecoderOptions, Preference};
use media::{AccessUnit, ProducerTimestamp, VideoCodec, VideoFormat, nal};

const ROUNDS: usize = 3;
/// Times that the clip is decoded in one round.
const LOOPS: u64 = 4;
const SECONDS: u32 = 10;

fn main() {
    println!(
        "CPU ms per picture, best of {ROUNDS} rounds of {LOOPS} x {SECONDS} s at 30/s, GOP 60, no B pictures\n"
    );
    println!("| clip | gst-launch | ours, every picture | ratio | ours, 10 a second | ratio |");
    println!("|---|---:|---:|---:|---:|---:|");
    let h264 = |width, height, bitrate_kbps| ClipSpec {
        width,
        height,
        bitrate_kbps,
        fps: 30,
        gop: 60,
        loop_seconds: SECONDS,
        ..ClipSpec::default()
    };
    let specs = [
        h264(1280, 720, 3000),
        h264(1920, 1080, 6000),
        ClipSpec { codec: Codec::H265, ..h264(1280, 720, 2000) },
    ];
    for spec in specs {
        let clip =
            Clip::load(&spec, &camera_sim::default_cache_dir()).expect("GStreamer's encoders are installed");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (once, often) = (folder.path().join("once"), folder.path().join("often"));
        write(&clip, &once, 1);
        write(&clip, &often, 1 + LOOPS);
        let units = units(&clip);
        let mut best = [f64::INFINITY; 3];
        for _ in 0..ROUNDS {
            let launch = gst_launch(&spec, &often) - gst_launch(&spec, &once);
            for (best, found) in
                best.iter_mut().zip([launch, ours(&units, f64::INFINITY), ours(&units, 10.0)])
            {
                *best = best.min(found);
            }
        }
        let pictures = LOOPS as f64 * f64::from(spec.pictures());
        let [launch, all, some] = best.map(|ms| ms / pictures);
        let (name, width, height) = (spec.codec.name(), spec.width, spec.height);
        let (all_ratio, some_ratio) = (all / launch, some / launch);
        println!(
            "| {name} {width}x{height} | {launch:.2} | {all:.2} | {all_ratio:.2} | {some:.2} | {some_ratio:.2} |"
        );
    }
}

/// User and system time in ms: (of this process, of its children that have ended). Linux counts in units of 10 ms.
fn cpu_ms() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let (_, fields) = stat.rsplit_once(')').expect("the name stands in brackets");
    let ticks: Vec<f64> =
        fields.split_whitespace().skip(11).take(4).map(|field| field.parse().expect("a number")).collect();
    ((ticks[0] + ticks[1]) * 10.0, (ticks[2] + ticks[3]) * 10.0)
}

fn write(clip: &Clip, path: &Path, times: u64) {
    let mut bytes = Vec::new();
    for picture in (0..times).flat_map(|_| clip.pictures()) {
        for nal in &picture.nal_units {
            bytes.extend([0, 0, 0, 1]);
            bytes.extend_from_slice(nal);
        }
    }
    std::fs::write(path, bytes).expect("the temporary folder can be written");
}

fn gst_launch(spec: &ClipSpec, path: &Path) -> f64 {
    let (parser, decoder) = match spec.codec {
        Codec::H264 => ("h264parse", "avdec_h264"),
        Codec::H265 => ("h265parse", "avdec_h265"),
    };
    let (_, before) = cpu_ms();
    let status = Command::new("gst-launch-1.0")
        .args(["-q", "filesrc", &format!("location={}", path.display()), "!", parser, "!", decoder])
        .args(["max-threads=1", "!", "fakesink", "sync=false"])
        .stdout(Stdio::null())
        .status();
    assert!(status.expect("gst-launch-1.0 is installed").success());
    cpu_ms().1 - before
}

fn units(clip: &Clip) -> Vec<AccessUnit> {
    let sets = clip.parameter_sets();
    let (codec, record) = match clip.spec().codec {
        Codec::H264 => (VideoCodec::H264, nal::avcc_from_sps_pps(&sets[..1], &sets[1..])),
        Codec::H265 => (VideoCodec::H265, nal::hvcc_from_vps_sps_pps(&sets[..1], &sets[1..2], &sets[2..])),
    };
    let record = record.expect("parameter sets of a real encoder");
    let format = Arc::new(VideoFormat::from_codec_private(codec, record).expect("a valid SPS"));
    let unit = |picture: &camera_sim::Picture| AccessUnit {
        data: nal::to_length_prefixed(&picture.nal_units),
        timestamp: ProducerTimestamp::from_millis(u64::from(picture.index) * 1000 / 30),
        random_access: picture.random_access,
        format: format.clone(),
    };
    clip.pictures().iter().map(unit).collect()
}

/// One loop to warm up, then CPU time of the rest.
fn ours(units: &[AccessUnit], rate: f64) -> f64 {
    let options = DecoderOptions {
        name: "bench".into(),
        rate,
        queue_units: 2 * units.len(),
        preference: Preference::Only(vec!["avdec_h264".into(), "avdec_h265".into()]),
        ..DecoderOptions::default()
    };
    let newest = Arc::new((Mutex::new(None), Condvar::new()));
    let to = newest.clone();
    let callback = move |frame: Arc<decode::Frame>| {
        *to.0.lock().expect("no panic") = Some(frame.timestamp());
        to.1.notify_one();
    };
    let decoder = Decoder::start(options, callback).expect("avdec is installed");
    let play = |round: u64| {
        let mut last = None;
        for unit in units {
            let later = unit.timestamp.checked_add_ms(round * u64::from(SECONDS) * 1000).expect("in range");
            decoder.push(AccessUnit { timestamp: later, ..unit.clone() });
            last = last.max(Some(later));
        }
        // At a tenth of a second the last one may not be handed on: one in front of it is.
        let due = last.and_then(|last| last.checked_sub_ms(200));
        drop(
            newest
                .1
                .wait_while(newest.0.lock().expect("no panic"), |newest| *newest < due)
                .expect("no panic"),
        );
    };
    play(0);
    let (before, _) = cpu_ms();
    (1..=LOOPS).for_each(play);
    let spent = cpu_ms().0 - before;
    let report = decoder.report();
    assert_eq!((report.damaged, report.dropped, report.unknown), (0, 0, 0), "{report:?}");
    spent
}
