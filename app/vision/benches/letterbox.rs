//! Cost of a picture on its way to the detector, beside GStreamer's elements for the same.
//!
//! Run with `cargo bench -p vision --bench letterbox`; needs Linux, and gst-launch-1.0 for the comparison. All numbers
//! are milliseconds of CPU for one picture, the mean of a round, the best of a few rounds in turns; "best" is the wall
//! time of the quickest single picture, which other load on the machine does not touch. Ours goes from I420 in memory to the
//! finished tensor of floats (0..1, planar) or bytes (RGB). GStreamer's goes to letterboxed RGB bytes, so that it still
//! lacks what makes floats of them; what its source and sink cost is measured and taken off. Last, one line for the way
//! back: the largest usual output read into boxes.

use std::fs;
use std::hint::black_box;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use vision::head::{Head, Thresholds};
use vision::letterbox::Letterbox;
use vision::{Colour, Matrix, Picture, Plane, Planes, nms};

const ROUNDS: usize = 5;
const PICTURES: u32 = 300;
/// In turns: too many for the inner cache, few enough for the outer one, as if a decoder had just written them. (The
/// source of the pipelines writes into one buffer again and again.)
const DISTINCT: u8 = 2;

fn main() {
    println!("ms of CPU per picture; GStreamer to RGB bytes, the ratio is that of our floats to it");
    println!(
        "{:>9} {:>8} | {:>10} {:>6} {:>10} | {:>25} {:>6} | {:>25} {:>6} |",
        "picture",
        "tensor",
        "our floats",
        "best",
        "our bytes",
        "videoconvert ! videoscale",
        "ratio",
        "videoscale ! videoconvert",
        "ratio"
    );
    for picture in [(1920, 1080), (1280, 720)] {
        for net in [(640, 640), (320, 192)] {
            compare(picture, net);
        }
    }
    heads();
}

fn compare(picture: (usize, usize), net: (usize, usize)) {
    let pictures: Vec<Vec<u8>> = (0..DISTINCT).map(|seed| textured(picture, seed)).collect();
    let mut letterbox = Letterbox::new(picture.0, picture.1, net.0, net.1).expect("usual sizes");
    let mut floats = vec![0.0; 3 * net.0 * net.1];
    let mut bytes = vec![0; 3 * net.0 * net.1];
    let routes = routes(picture, net);
    let (mut our_floats, mut our_bytes, mut quickest) = (f64::MAX, f64::MAX, Duration::MAX);
    let mut children = [f64::MAX; 3];
    for _ in 0..ROUNDS {
        our_floats = our_floats.min(cpu_of_thread(|n| {
            let picture = i420(picture, &pictures[n % pictures.len()]);
            quickest = quickest.min(time(|| {
                letterbox.fill_f32(&picture, black_box(&mut floats)).expect("sizes are right");
            }));
        }));
        our_bytes = our_bytes.min(cpu_of_thread(|n| {
            let picture = i420(picture, &pictures[n % pictures.len()]);
            letterbox.fill_u8(&picture, black_box(&mut bytes)).expect("sizes are right");
        }));
        for (best, route) in children.iter_mut().zip(&routes) {
            *best = best.min(cpu_of_child(route).unwrap_or(f64::MAX));
        }
    }
    let best_ms = quickest.as_secs_f64() * 1e3;
    print!("{:>9} {:>8} | {our_floats:>10.3} {best_ms:>6.3} {our_bytes:>10.3} |", size(picture), size(net));
    let [source, routes @ ..] = children;
    for route in routes {
        if route == f64::MAX {
            print!(" {:>25} {:>6} |", "no gst-launch-1.0", "-");
        } else {
            print!(" {:>25.3} {:>6.2} |", route - source, our_floats / (route - source));
        }
    }
    println!();
}

/// Pipelines without conversion, with colour first, with size first.
fn routes(picture: (usize, usize), net: (usize, usize)) -> [String; 3] {
    let source = format!(
        "videotestsrc num-buffers={PICTURES} ! video/x-raw,format=I420,width={},height={}",
        picture.0, picture.1
    );
    let sized = format!("width={},height={},pixel-aspect-ratio=1/1", net.0, net.1);
    [
        format!("{source} ! fakesink"),
        format!(
            "{source} ! videoconvert ! videoscale add-borders=true ! video/x-raw,format=RGB,{sized} ! fakesink"
        ),
        format!(
            "{source} ! videoscale add-borders=true ! video/x-raw,{sized} ! videoconvert ! video/x-raw,format=RGB ! fakesink"
        ),
    ]
}

/// Milliseconds of CPU of this thread for one call, the mean of many, by the kernel's own account.
fn cpu_of_thread(mut run: impl FnMut(usize)) -> f64 {
    let before = nanoseconds_of_thread();
    for n in 0..PICTURES as usize {
        run(n);
    }
    (nanoseconds_of_thread() - before) / 1e6 / f64::from(PICTURES)
}

fn nanoseconds_of_thread() -> f64 {
    // proc(5): the first number is the time spent on the processor, up to the last tick.
    std::thread::yield_now();
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux with scheduler figures");
    text.split(' ').next().and_then(|time| time.parse().ok()).expect("a number first")
}

/// Milliseconds of CPU of a pipeline for one picture; `None` if it did not run.
fn cpu_of_child(pipeline: &str) -> Option<f64> {
    let before = seconds_of_children();
    let mut command = Command::new("gst-launch-1.0");
    command.arg("-q").args(pipeline.split(' ')).stdout(Stdio::null());
    let done = command.status().ok().filter(std::process::ExitStatus::success);
    done.map(|_| (seconds_of_children() - before) * 1e3 / f64::from(PICTURES))
}

fn seconds_of_children() -> f64 {
    // proc(5): fields 16 and 17, counted from behind the name; 100 ticks a second on every Linux port in use.
    let text = fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields = text.rsplit(')').next().expect("a name in brackets").split_whitespace();
    let ticks: f64 = fields.skip(13).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / 100.0
}

/// Edges and noise; conversions do not get faster by a flat picture.
fn textured((width, height): (usize, usize), seed: u8) -> Vec<u8> {
    let mut state = u32::from(seed) + 1;
    let sample = |at: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [noise, ..] = state.to_be_bytes();
        let [.., edge] = (at / 37).to_be_bytes();
        edge.wrapping_mul(13).wrapping_add(noise >> 3)
    };
    (0..width * height * 3 / 2).map(sample).collect()
}

fn i420((width, height): (usize, usize), bytes: &[u8]) -> Picture<'_> {
    let (y, chroma) = bytes.split_at(width * height);
    let (u, v) = chroma.split_at(chroma.len() / 2);
    let plane = |bytes, stride| Plane { bytes, stride };
    let planes = Planes::I420 { y: plane(y, width), u: plane(u, width / 2), v: plane(v, width / 2) };
    Picture::new(width, height, planes, Colour { matrix: Matrix::Bt709, full_range: false })
        .expect("planes fit")
}

fn size((width, height): (usize, usize)) -> String {
    format!("{width}x{height}")
}

/// 80 classes at 640x640: 8400 columns, of which 60 are boxes.
fn heads() {
    let (rows, columns) = (84, 8400);
    let mut values = vec![0.01_f32; rows * columns];
    for at in 0..60_u8 {
        let column = usize::from(at) * 139;
        for (row, value) in
            [f32::from(at % 8) * 80.0, f32::from(at / 8) * 80.0, 60.0, 90.0].into_iter().enumerate()
        {
            values[row * columns + column] = value;
        }
        values[(4 + usize::from(at % 5)) * columns + column] = 0.9;
    }
    let head = Head::detect(rows, columns, 80).expect("80 labels");
    let letterbox = Letterbox::new(1920, 1080, 640, 640).expect("usual sizes");
    let thresholds = Thresholds::new(80, 0.25);
    let mut detections = Vec::new();
    let mut best = Duration::MAX;
    for _ in 0..500 {
        best = best.min(time(|| {
            let read = head.read(black_box(&values), rows, columns, &thresholds, &letterbox, &mut detections);
            read.expect("the shape is right");
            nms::suppress(&mut detections, 0.6, 300);
        }));
    }
    println!(
        "output [{rows}, {columns}] to {} boxes: {:.3} ms, best of 500",
        detections.len(),
        best.as_secs_f64() * 1e3
    );
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn time(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}
