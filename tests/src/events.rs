//! The proof of events: they are compared with the stored footage and what the simulated camera really showed.

use std::collections::{BTreeMap, HashMap};

use camera_sim::{Label, TruthBox};
use messages::{ClockSource, Event, EventKind};

use crate::cloud::{REGION, Stored};
use crate::footage::{Footage, PictureBack};
use crate::rig::Rig;

/// An event is right about a picture when its box and one of the truth share this much (intersection over union).
const SAME: f64 = 0.4;

/// The footage of one camera, and the events in it.
#[derive(Debug)]
pub struct FootageAndEvents {
    pub footage: Footage,
    /// In the order in which they began.
    pub lives: Vec<Life>,
}

/// All messages about one object, oldest first; the last of them may only tell where its clip is.
#[derive(Clone, Debug)]
pub struct Life {
    pub messages: Vec<Event>,
}

impl Life {
    pub fn first(&self) -> &Event {
        &self.messages[0]
    }

    pub fn end(&self) -> &Event {
        let end = self.messages.iter().find(|event| event.kind == EventKind::End);
        end.expect("it was checked that there is one")
    }
}

/// A stored picture that events may be about.
struct StoredPicture<'a> {
    back: PictureBack,
    size: [u32; 2],
    truth: &'a [TruthBox],
}

impl Rig {
    /// After [`Rig::stop`]: everything that [`Rig::expect_everything_proven`] demands, and each event began once,
    /// ended once, told times of stored pictures only, pointed to the stored fragment that shows its beginning, and
    /// the counts told the same; what it named was there.
    ///
    /// # Panics
    /// When that is not so.
    pub async fn expect_events_proven(&self, camera: &str) -> FootageAndEvents {
        let footage = self.expect_everything_proven(camera).await;
        let events: Vec<Event> = self.mqtt.bodies(&self.mqtt.topics.events(camera));
        assert!(
            events.windows(2).all(|two| two[0].seq < two[1].seq),
            "{camera}: not in the order of their numbers"
        );
        let mut order = Vec::new();
        let mut by_id: HashMap<String, Vec<Event>> = HashMap::new();
        for event in &events {
            let messages = by_id.entry(event.id.clone()).or_default();
            if messages.is_empty() {
                order.push(event.id.clone());
            }
            messages.push(event.clone());
        }
        let lives: Vec<Life> =
            order.iter().filter_map(|id| Some(Life { messages: by_id.remove(id)? })).collect();

        let sim = self.sim(camera).expect("a simulated camera");
        let clips = [Some(sim.clip(0).clone()), self.other_clip(camera).await];
        let pictures: HashMap<u64, StoredPicture<'_>> = footage
            .pictures
            .iter()
            .map(|back| {
                let clip = clips[usize::from(back.sent.switched)].as_ref().expect("it was played");
                let size = [clip.spec().width, clip.spec().height];
                let truth = &*clip.truth()[back.sent.index as usize].objects;
                (back.time_ms, StoredPicture { back: *back, size, truth })
            })
            .collect();
        let stream = self.stream_of(camera);
        for life in &lives {
            check_life(&life.messages);
            for event in &life.messages {
                check_event(event, camera, &stream, &pictures);
            }
            check_clip(life, &footage.stored, &pictures);
        }
        // A model of half a megabyte errs now and then, and how many pictures it saw is up to the machine: its share of
        // right ones is measured by the bench.
        let right = lives.iter().filter(|life| is_right(life.first(), &pictures)).count();
        assert!(
            right > 0 || lives.is_empty(),
            "{camera}: {right} of {} events began with what is there",
            lives.len()
        );
        self.check_counts(camera, &events);
        FootageAndEvents { footage, lives }
    }

    /// The counts go as the events do. All changes of one picture make one count, and one that a newer one overtakes
    /// on its way is left out.
    fn check_counts(&self, camera: &str, events: &[Event]) {
        for label in ["person", "vehicle"] {
            let told: Vec<usize> = self.mqtt.bodies(&self.mqtt.topics.count(camera, label));
            let mut expected = vec![0];
            let mut open: BTreeMap<&str, &str> = BTreeMap::new();
            for event in events.iter().filter(|event| !is_late(event)) {
                match event.kind {
                    EventKind::End => open.remove(&*event.id),
                    EventKind::New | EventKind::Update => open.insert(&event.id, &event.label),
                };
                expected.push(open.values().filter(|open| **open == label).count());
            }
            let mut rest = expected.iter();
            assert!(
                told.iter().all(|count| rest.any(|expected| expected == count)),
                "{camera}: count of {label}: {told:?} was told, the events say {expected:?}"
            );
            assert_eq!(told.last(), Some(&0), "{camera}: count of {label}: {told:?}");
        }
    }
}

/// Tells only where the clip of an event is.
fn is_late(event: &Event) -> bool {
    event.kind == EventKind::Update && event.end.is_some()
}

/// `new`, any number of `update`, `end`, and perhaps the clip.
fn check_life(messages: &[Event]) {
    let kinds: Vec<_> = messages.iter().map(|event| event.kind).collect();
    let end = kinds.iter().position(|kind| *kind == EventKind::End);
    let end = end.unwrap_or_else(|| panic!("an event without end: {messages:#?}"));
    let updates = |kinds: &[EventKind]| kinds.iter().all(|kind| *kind == EventKind::Update);
    let in_order = kinds[0] == EventKind::New && end > 0 && updates(&kinds[1..end]);
    assert!(in_order && kinds.len() <= end + 2 && updates(&kinds[end + 1..]), "{messages:#?}");
    for two in messages.windows(2) {
        let [before, after] = two else { continue };
        let (was, is) = (before.clip.persisted, after.clip.persisted);
        assert!(was <= is && before.ts <= after.ts && before.top_score <= after.top_score, "{two:#?}");
        let lost = before.entered.iter().any(|zone| !after.entered.contains(zone));
        assert!(!lost && before.severity <= after.severity, "{two:#?}");
        assert!(before.crossed.len() <= after.crossed.len(), "{two:#?}");
        let same = |event: &Event| (event.start, event.track, event.camera.clone(), event.model.clone());
        assert_eq!(same(before), same(after), "{two:#?}");
        assert!(before.has_snapshot <= after.has_snapshot, "a snapshot is taken back: {two:#?}");
        if is_late(after) {
            // Everything else is as the end said.
            let EventKind::End = before.kind else { panic!("{two:#?}") };
            let (kind, seq, clip) = (before.kind, before.seq, before.clip.clone());
            assert_eq!(*before, Event { kind, seq, clip, ..after.clone() });
        }
    }
}

fn check_event(event: &Event, camera: &str, stream: &str, pictures: &HashMap<u64, StoredPicture<'_>>) {
    let place = (&*event.device, &*event.camera, &*event.clip.kvs_stream, &*event.clip.region);
    assert_eq!(place, ("box", camera, stream, REGION));
    assert_eq!((event.clock, event.replayed), (ClockSource::Rtcp, false), "{event:#?}");
    let times = [Some(event.ts), Some(event.start), event.end];
    for time in times.into_iter().flatten() {
        assert!(
            pictures.contains_key(&time.as_millis()),
            "{time} is the time of no stored picture: {event:#?}"
        );
    }
    assert!(event.start <= event.ts && event.end.is_none_or(|end| event.start <= end && end <= event.ts));
    assert_eq!(event.end.is_some(), event.kind == EventKind::End || is_late(event), "{event:#?}");
    assert_eq!(event.clip.producer_ts_ms, event.start.as_millis(), "{event:#?}");
    assert_eq!(event.clip.persisted, event.clip.fragment.is_some(), "{event:#?}");
    if event.kind != EventKind::End && !is_late(event) {
        assert_eq!(event.frame, pictures[&event.ts.as_millis()].size, "{event:#?}");
    }
    let [x, y, w, h] = event.rect.0.map(|part| part.get());
    assert!(w > 0.0 && h > 0.0 && x + w <= 1.0002 && y + h <= 1.0002, "{event:#?}");
    assert!(event.score <= event.top_score || event.score.get() - event.top_score.get() < 1e-4, "{event:#?}");
}

/// The fragment is there and holds the very picture that the event began with.
fn check_clip(life: &Life, stored: &[Stored], pictures: &HashMap<u64, StoredPicture<'_>>) {
    let last = life.messages.last().expect("it has a first one");
    let number = last.clip.fragment.clone().unwrap_or_else(|| panic!("it has no fragment: {last:#?}"));
    let numbers = life.messages.iter().filter_map(|event| event.clip.fragment.as_ref());
    assert!(numbers.into_iter().all(|found| *found == number), "{life:#?}");
    let fragment = stored.iter().position(|fragment| fragment.number() == number);
    let fragment = fragment.unwrap_or_else(|| panic!("fragment {number} is not stored: {last:#?}"));
    let holder = pictures[&last.clip.producer_ts_ms].back.fragment;
    assert_eq!(fragment, holder, "another fragment holds the picture: {last:#?}");
}

fn is_right(event: &Event, pictures: &HashMap<u64, StoredPicture<'_>>) -> bool {
    let found = event.rect.0.map(|part| part.get());
    let truth = pictures[&event.ts.as_millis()].truth;
    truth.iter().filter(|there| name(there.label) == event.label).any(|there| {
        let there = [there.x, there.y, there.w, there.h].map(f64::from);
        overlap(found, there) >= SAME
    })
}

fn name(label: Label) -> &'static str {
    match label {
        Label::Person => "person",
        Label::Vehicle => "vehicle",
    }
}

/// Intersection over union of two boxes with left, top, width, height.
fn overlap([ax, ay, aw, ah]: [f64; 4], [bx, by, bw, bh]: [f64; 4]) -> f64 {
    let common = |a: f64, aw: f64, b: f64, bw: f64| ((a + aw).min(b + bw) - a.max(b)).max(0.0);
    let both = common(ax, aw, bx, bw) * common(ay, ah, by, bh);
    both / (aw * ah + bw * bh - both)
}

/// Width and height of a JPEG.
///
/// # Panics
/// When it is none, or not whole.
pub fn jpeg_size(jpeg: &[u8]) -> (u16, u16) {
    assert!(
        jpeg.starts_with(&[0xff, 0xd8]) && jpeg.ends_with(&[0xff, 0xd9]),
        "no JPEG: {:?}",
        jpeg.get(..16)
    );
    let mut at = 2;
    loop {
        let segment = jpeg.get(at..at + 9).expect("a frame header before the end");
        let length = u16::from_be_bytes([segment[2], segment[3]]);
        // Start of frame: baseline to progressive.
        if segment[0] == 0xff && (0xc0..=0xc2).contains(&segment[1]) {
            let (height, width) =
                (u16::from_be_bytes([segment[5], segment[6]]), u16::from_be_bytes([segment[7], segment[8]]));
            return (width, height);
        }
        at += 2 + usize::from(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_is_intersection_over_union() {
        let check = |b, expected: f64| {
            let found = overlap([0.0, 0.0, 0.4, 0.2], b);
            assert!((found - expected).abs() < 1e-9, "{found}, expected {expected}");
        };
        check([0.0, 0.0, 0.4, 0.2], 1.0);
        check([0.2, 0.0, 0.4, 0.2], 1.0 / 3.0);
        check([0.5, 0.0, 0.4, 0.2], 0.0);
    }
}
