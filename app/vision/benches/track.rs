//! Cost of following objects and of noticing motion: `cargo bench -p vision --bench track`. Wall time of one picture, the
//! best of a few rounds.

use std::hint::black_box;
use std::time::{Duration, Instant};

use media::ProducerTimestamp;
use vision::motion::{Motion, MotionConfig};
use vision::track::{Tracker, TrackerConfig};
use vision::{Colour, Detection, Matrix, Picture, Plane, Planes, Rect};

const ROUNDS: usize = 10;
const PICTURES: u16 = 50;

fn main() {
    let grey = |width: usize, height: usize| (vec![100; width * height], vec![128; width * height / 4]);
    println!("{:>6} {:>15} {:>15}", "boxes", "by places alone", "with their looks");
    let (luma, chroma) = grey(1280, 720);
    let picture = picture(1280, 720, &luma, &chroma);
    for (columns, rows) in [(5, 4), (10, 10), (100, 50)] {
        let [places, looks] = [None, Some(&picture)].map(|picture| tracking(columns, rows, picture));
        println!("{:>6} {places:>15.1?} {looks:>15.1?}", columns * rows);
    }
    let (luma, chroma) = grey(1920, 1080);
    let picture = self::picture(1920, 1080, &luma, &chroma);
    let motion = best(|| {
        let mut motion = Motion::new(MotionConfig::default());
        move |at| {
            black_box(motion.update(at, &picture));
        }
    });
    println!("motion of a 1080p picture {motion:.1?}");
}

/// `columns` x `rows` boxes that do not overlap, each moving to and fro.
fn tracking(columns: u16, rows: u16, picture: Option<&Picture<'_>>) -> Duration {
    let boxes = |step: u16| -> Vec<Detection> {
        let places = (0..columns * rows).map(|n| (n % columns, n / columns));
        let (wide, high) = (1.0 / f32::from(columns), 1.0 / f32::from(rows));
        let shift = 0.2 * wide * f32::from(step % 2);
        let rect = |(x, y)| Rect {
            x: f32::from(x) * wide + shift,
            y: f32::from(y) * high,
            w: 0.6 * wide,
            h: 0.8 * high,
        };
        places.map(|place| Detection { class: 0, score: 0.8, rect: rect(place) }).collect()
    };
    let pictures = [boxes(0), boxes(1)];
    best(|| {
        let mut tracker = Tracker::new(TrackerConfig::default());
        let mut turns = pictures.iter().cycle();
        move |at| {
            let boxes = turns.next().map_or(&[][..], Vec::as_slice);
            black_box(tracker.update(at, boxes, picture));
        }
    })
}

/// Time of a picture in the best round; each round begins anew.
fn best<F: FnMut(ProducerTimestamp)>(mut begin: impl FnMut() -> F) -> Duration {
    let round = |mut step: F| {
        #[expect(clippy::disallowed_methods, reason = "a bench has a clock")]
        let start = Instant::now();
        for n in 0..PICTURES {
            step(ProducerTimestamp::from_millis(1_000_000 + 100 * u64::from(n)));
        }
        start.elapsed() / u32::from(PICTURES)
    };
    (0..ROUNDS).map(|_| round(begin())).min().unwrap_or_default()
}

fn picture<'a>(width: usize, height: usize, luma: &'a [u8], chroma: &'a [u8]) -> Picture<'a> {
    let half = Plane { bytes: chroma, stride: width / 2 };
    let planes = Planes::I420 { y: Plane { bytes: luma, stride: width }, u: half, v: half };
    Picture::new(width, height, planes, Colour { matrix: Matrix::Bt709, full_range: false })
        .expect("planes fit")
}
