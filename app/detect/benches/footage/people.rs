//! The pictures that were labelled by hand, and who of them was found.

use std::collections::BTreeMap;
use std::path::Path;

use vision::Rect;

use crate::Error;

/// Labelled pictures.
pub(crate) const LABELLED: usize = 10;
/// Who a person counts in the whole clip; whoever leaves and comes back counts twice.
pub(crate) const PASSES: usize = 21;
/// Least score of a box that is recorded.
pub(crate) const RECORDED: f32 = 0.2;
/// Whoever is less visible is neither wanted nor wrong.
const CLEAR: f32 = 0.6;
const MIN_IOU: f32 = 0.5;

pub(crate) struct Person {
    /// In pixels.
    rect: Rect,
    clear: bool,
}

/// By picture, counted from 1.
pub(crate) fn read() -> Result<BTreeMap<u64, Vec<Person>>, Error> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vision/tests/footage/people.csv");
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut people: BTreeMap<u64, Vec<Person>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(',').collect();
        let [picture, _pass, x, y, w, h, visible] = fields[..] else { return Err(line.into()) };
        let rect = Rect { x: x.parse()?, y: y.parse()?, w: w.parse()?, h: h.parse()? };
        let clear = visible.parse::<f32>()? >= CLEAR;
        people.entry(picture.parse()?).or_default().push(Person { rect, clear });
    }
    Ok(people)
}

/// One row of `boxes.csv`.
pub(crate) fn record(picture: u64, rect: &Rect, size: (usize, usize), score: f32) -> String {
    let Rect { x, y, w, h } = pixels(rect, size);
    format!("{picture},{x:.0},{y:.0},{w:.0},{h:.0},{:.0}\n", score * 100.0)
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Counted {
    pictures: usize,
    wanted: usize,
    found: usize,
    wrong: usize,
}

impl Counted {
    /// Each box belongs to at most one person, the best overlaps first.
    pub(crate) fn add(&mut self, people: &[Person], boxes: &[Rect], size: (usize, usize)) {
        let boxes: Vec<Rect> = boxes.iter().map(|rect| pixels(rect, size)).collect();
        let mut pairs: Vec<(f32, usize, usize)> = Vec::new();
        for (n, person) in people.iter().enumerate() {
            let fit = boxes.iter().enumerate().map(|(m, rect)| (person.rect.iou(rect), n, m));
            pairs.extend(fit.filter(|(iou, ..)| *iou >= MIN_IOU));
        }
        pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (mut taken, mut used) = (vec![false; people.len()], vec![false; boxes.len()]);
        for (_, n, m) in pairs {
            if !taken[n] && !used[m] {
                (taken[n], used[m]) = (true, true);
            }
        }
        self.pictures += 1;
        self.wanted += people.iter().filter(|person| person.clear).count();
        self.found += people.iter().zip(taken).filter(|(person, taken)| person.clear && *taken).count();
        self.wrong += used.iter().filter(|used| !**used).count();
    }

    /// Persons, found, share, false ones, per picture.
    pub(crate) fn row(&self) -> String {
        let Counted { pictures, wanted, found, wrong } = *self;
        let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        format!("{wanted} | {found} | {:.3} | {wrong} | {:.2}", share(found, wanted), share(wrong, pictures))
    }
}

fn pixels(rect: &Rect, (width, height): (usize, usize)) -> Rect {
    let (width, height) = (width as f32, height as f32);
    Rect { x: rect.x * width, y: rect.y * height, w: rect.w * width, h: rect.h * height }
}
