//! What the daemon made of each picture of one camera, beside what the picture shows.
//!
//! Files in the manner of MOTChallenge, one row for each box: `picture, id, left, top, width, height, score, label,
//! visible`. Pictures are those that were looked at, counted from 1; sizes are pixels; `visible` is the part of the
//! object that can be seen, -1 for what the daemon made. The id of a box that is no track is -1.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use analytics::AnnotatedFrame;
use camera_sim::{Clip, Label, read_frame_index};
use messages::{Event, EventKind};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use vision::{Detection, Rect};

use crate::measured::Error;
use crate::truth::{Pass, Passes, rect};

#[derive(Clone, Copy, Default)]
pub(crate) struct Recorded {
    pub(crate) pictures: u64,
    /// Not in the files: the strip in the picture could not be read.
    pub(crate) unread: u64,
    /// Not in the files: this program was too slow.
    pub(crate) missed: u64,
}

/// Collects in memory until there are no more pictures, then writes `NAME.truth.csv`, `NAME.boxes.csv` (what the
/// detector gave), `NAME.tracks.csv` and `NAME.pictures.csv` (number, producer time in milliseconds).
pub(crate) async fn record(
    mut frames: broadcast::Receiver<AnnotatedFrame>,
    clip: Arc<Clip>,
    folder: &Path,
    name: &str,
) -> Result<Recorded, Error> {
    let mut record = Record::new(&clip)?;
    let mut recorded = Recorded::default();
    loop {
        match frames.recv().await {
            Ok(annotated) if record.add(&annotated)? => recorded.pictures += 1,
            Ok(_) => recorded.unread += 1,
            Err(RecvError::Lagged(pictures)) => recorded.missed += pictures,
            Err(RecvError::Closed) => break,
        }
    }
    let Record { truth, boxes, tracks, pictures, .. } = &record;
    for (what, rows) in [("truth", truth), ("boxes", boxes), ("tracks", tracks), ("pictures", pictures)] {
        std::fs::write(folder.join(format!("{name}.{what}.csv")), rows)?;
    }
    Ok(recorded)
}

struct Record<'a> {
    clip: &'a Clip,
    passes: Passes,
    /// Ids of the passes, in the order of their first sightings.
    ids: BTreeMap<Pass, usize>,
    number: u64,
    truth: Vec<u8>,
    boxes: Vec<u8>,
    tracks: Vec<u8>,
    pictures: Vec<u8>,
}

impl<'a> Record<'a> {
    fn new(clip: &'a Clip) -> Result<Self, Error> {
        let passes = Passes::new(clip.truth(), clip.spec().fps as usize)?;
        Ok(Self {
            clip,
            passes,
            ids: BTreeMap::new(),
            number: 0,
            truth: Vec::new(),
            boxes: Vec::new(),
            tracks: Vec::new(),
            pictures: Vec::new(),
        })
    }

    /// `false`: what the picture shows is not known.
    fn add(&mut self, annotated: &AnnotatedFrame) -> Result<bool, Error> {
        let picture = annotated.frame.picture();
        let luma = picture.luma();
        let index = read_frame_index(luma.bytes, luma.stride, picture.width, picture.height);
        let Some(index) = index.filter(|index| *index < self.clip.spec().pictures()) else {
            return Ok(false);
        };
        self.number += 1;
        let at_ms = annotated.frame.timestamp().as_millis();
        writeln!(self.pictures, "{},{at_ms}", self.number)?;
        let through_loops = self.through_loops(index, at_ms)?;
        let size = (picture.width, picture.height);
        for object in &self.clip.truth()[index as usize].objects {
            let pass = self.passes.of(object.track, through_loops)?;
            let next = self.ids.len() + 1;
            let id = *self.ids.entry(pass).or_insert(next);
            let label = match object.label {
                Label::Person => "person",
                Label::Vehicle => "vehicle",
            };
            let place = row(self.number, i64::try_from(id)?, &rect(object), size);
            writeln!(self.truth, "{place},1,{label},{:.3}", object.visible)?;
        }
        let label = |class: u16| annotated.model.labels.get(usize::from(class)).map_or("?", String::as_str);
        for Detection { class, score, rect } in &annotated.detections {
            let place = row(self.number, -1, rect, size);
            writeln!(self.boxes, "{place},{score:.3},{},-1", label(*class))?;
        }
        for track in annotated.tracks.iter().filter(|track| track.confirmed && track.seen_now) {
            let place = row(self.number, i64::try_from(track.id)?, &track.rect, size);
            writeln!(self.tracks, "{place},{:.3},{},-1", track.score, label(track.class))?;
        }
        Ok(true)
    }

    /// The number of a picture counted through all loops: the one nearest to its time of all that show `index`.
    fn through_loops(&self, index: u32, at_ms: u64) -> Result<i64, Error> {
        let (length, fps) = (i64::from(self.clip.spec().pictures()), i64::from(self.clip.spec().fps));
        let by_time = i64::try_from(at_ms)? * fps / 1000;
        let ahead = (i64::from(index) - by_time).rem_euclid(length);
        Ok(by_time + if ahead > length / 2 { ahead - length } else { ahead })
    }
}

#[expect(clippy::cast_precision_loss, reason = "sides of a picture")]
fn row(picture: u64, id: i64, rect: &Rect, (width, height): (usize, usize)) -> String {
    let (width, height) = (width as f32, height as f32);
    let Rect { x, y, w, h } = *rect;
    format!("{picture},{id},{:.2},{:.2},{:.2},{:.2}", x * width, y * height, w * width, h * height)
}

/// Writes `NAME.events.csv`: track, label, then in milliseconds of producer time the first sighting, the picture that
/// made it known, and the last sighting.
pub(crate) fn write_events(events: &[Event], folder: &Path, name: &str) -> Result<(), Error> {
    let mut known: BTreeMap<&str, (&Event, Option<&Event>)> = BTreeMap::new();
    for event in events.iter().filter(|event| event.camera == name) {
        match event.kind {
            EventKind::New => drop(known.entry(&event.id).or_insert((event, None))),
            EventKind::Update => {}
            EventKind::End => {
                let (_, end) = known.get_mut(event.id.as_str()).ok_or("an event ends that never began")?;
                *end = Some(event);
            }
        }
    }
    let mut rows = Vec::new();
    for (new, end) in known.values() {
        let end = end.ok_or_else(|| format!("event {} of {name} never ended", new.id))?;
        let last = end.end.ok_or("an end without its time")?;
        let (start, told, last) = (end.start.as_millis(), new.ts.as_millis(), last.as_millis());
        writeln!(rows, "{},{},{start},{told},{last}", end.track, end.label)?;
    }
    Ok(std::fs::write(folder.join(format!("{name}.events.csv")), rows)?)
}
