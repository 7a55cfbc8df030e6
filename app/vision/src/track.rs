//! Boxes into tracks: the same object across pictures keeps its id.
//!
//! After ByteTrack (Zhang et al., 2022): boxes with a high score are given to the tracks first, by the best sum over
//! all pairs; then boxes with a low score rescue tracks that got none, for an object that is half hidden has a low
//! score long before it is gone. What differs, and why:
//!
//! * Time is real (producer timestamps), not counted in pictures: 2 to 30 fps and skipped pictures work alike.
//! * A pair is judged by the overlap of both boxes after widening them by the doubt of the prediction. With a settled
//!   track that is the plain overlap; at 2 fps, or after an occlusion, boxes that do not overlap can still pair, nearest
//!   first. Doubt also costs, so a track that is seen all the time keeps its box from one that is lost nearby.
//! * What an object looks like counts: where two cross, each box goes to the one of its colours, and whoever comes out
//!   from behind something is known again. The more doubtful the place, the more the looks must agree.
//! * The class of a track is what most of its boxes say, newer and surer ones counting more; a box of another class can
//!   continue a track at a discount, and one of the same kind without.
//!
//! ```text
//!              seen in confirm_hits pictures             not seen
//!  tentative -------------------------------> confirmed <--------> lost (keeps its id, predicted on)
//!      | not seen in 3 pictures and for 1 s                          | for longer than lost_after_ms,
//!      |                                                             | or should have left the picture by now
//!      +----------------------------> ended <------------------------+
//! ```
//!
//! A track is confirmed when it was seen with a high score in enough pictures and nothing spoke against it meanwhile: what is
//! seen in one picture of five is not. Boxes with a low score continue a confirmed track, but they use up what is believed of it: after a while of nothing better (1 s at
//! the lowest scores, many seconds just below `begin_score`) it counts as not seen, though it is still followed, and after
//! `lost_after_ms` it has ended. So an object that was seen well is told of while it is half hidden, and a cone that once
//! looked like a person is not told of for ever.
//!
//! Time that runs back (another recording, a camera that was set anew) ends all tracks; so does a gap longer than
//! `lost_after_ms`, as for each single track. Ids rise strictly and are never used again. Same boxes and times, in
//! whichever order the boxes of a picture come, give the same tracks.

mod belief;
mod kalman;
mod look;
#[cfg(test)]
mod tests;

use media::ProducerTimestamp;

use self::belief::{Belief, Strength};
use self::kalman::BoxFilter;
use self::look::Look;
use crate::assign::{Pair, assign};
use crate::{Detection, Picture, Point, Rect};

/// What of one class makes tracks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassRule {
    /// Boxes of other classes are ignored.
    pub wanted: bool,
    /// A box with at least this score begins a track, 0.0..=1.0.
    pub begin_score: f32,
    /// Boxes that cover less (or more) of the picture are ignored, 0.0..=1.0.
    pub min_area: f32,
    pub max_area: f32,
    /// Classes with the same number are of one kind, see [`crate::group::kinds`]; absent: that of the class.
    pub kind: Option<u16>,
}

impl Default for ClassRule {
    fn default() -> ClassRule {
        ClassRule { wanted: true, begin_score: 0.5, min_area: 0.0, max_area: 1.0, kind: None }
    }
}

/// How boxes become tracks.
#[derive(Clone, Debug, PartialEq)]
pub struct TrackerConfig {
    /// By class; classes beyond the end follow [`ClassRule::default`].
    pub classes: Vec<ClassRule>,
    /// Boxes below this score are noise, 0.0..=1.0. Those between it and the class's `begin_score` only continue a
    /// track.
    pub low_score: f32,
    /// Pictures in which an object is seen with a high score before its track is confirmed, at least 1.
    pub confirm_hits: u32,
    /// A track that is not seen for longer has ended, milliseconds.
    pub lost_after_ms: u64,
    /// Most tracks at a time, and twice this many boxes of a picture; those with the lowest scores are left out.
    pub max_tracks: usize,
}

impl Default for TrackerConfig {
    fn default() -> TrackerConfig {
        TrackerConfig {
            classes: Vec::new(),
            low_score: 0.1,
            confirm_hits: 3,
            lost_after_ms: 5_000,
            max_tracks: 500,
        }
    }
}

/// One object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Track {
    pub id: u64,
    /// Index into the model's labels; what its boxes say on the whole.
    pub class: u16,
    /// Smoothed when seen now, else predicted; within the picture, without an area when predicted outside.
    pub rect: Rect,
    /// As the detector gave it when it was last seen.
    pub seen: Rect,
    /// Of the box it was last seen with, 0.0..=1.0.
    pub score: f32,
    /// Mean of its scores, newer ones counting more.
    pub smoothed_score: f32,
    pub top_score: f32,
    /// And believed to be there: see the module on boxes with low scores.
    pub seen_now: bool,
    /// Seen often enough to be believed. Stays once true.
    pub confirmed: bool,
    /// Pictures in which it was seen.
    pub hits: u32,
    pub first: ProducerTimestamp,
    pub last_seen: ProducerTimestamp,
    /// Parts of the picture a second.
    pub velocity: Point,
}

/// A tentative track ends when it is not seen in more pictures in a row, and for longer.
const TENTATIVE_MISSES: u32 = 2;
const TENTATIVE_LOST_MS: u64 = 1_000;
/// Least gain of a pair, for boxes with high and with low scores (ByteTrack: overlaps of 0.2 and 0.5).
const LEAST_GAIN: f32 = 0.08;
const LEAST_GAIN_LOW: f32 = 0.35;
/// Looks this far apart are a third as likely to be one object's; they never count for less than the least.
const OTHER_LOOK: f32 = 27.0;
const LEAST_LOOK: f32 = 0.05;
/// With a doubt of this, in sizes of the box, the looks alone can forbid a pair.
const LOOK_DECIDES: f32 = 0.5;
/// Of an unseen object that is still there, so much is expected within the picture.
const LEAST_INSIDE: f32 = 0.7;
/// A box of which others cover more does not tell what its object looks like.
const COVERED: f32 = 0.15;
/// Share of the newest look in the mean one, once there were enough.
const NEWEST_LOOK: f32 = 0.1;
/// Most that a box is widened by on each side, in sizes of the box.
const MOST_DOUBT: f64 = 1.5;
const OTHER_CLASS: f32 = 0.6;
const TENTATIVE: f32 = 0.8;
/// Two boxes with this overlap are the same object seen twice.
const DUPLICATE: f32 = 0.85;
/// Share of the newest score in the smoothed one, and what is kept of the older votes for a class.
const NEWEST: f32 = 0.3;
const KEPT_VOTES: f32 = 0.95;
/// By how much another class must have more votes before the track becomes one of it.
const NEW_CLASS_LEAD: f32 = 1.2;
const MOST_CLASSES: usize = 8;

/// Follows the objects of one camera.
#[derive(Clone, Debug)]
pub struct Tracker {
    config: TrackerConfig,
    now: Option<ProducerTimestamp>,
    next_id: u64,
    /// Between the last two pictures; 0: there were not two.
    step_s: f32,
    /// By rising id.
    states: Vec<State>,
    /// The same as they are told.
    tracks: Vec<Track>,
}

#[derive(Clone, Debug)]
struct State {
    track: Track,
    filter: BoxFilter,
    /// Seen with a high score in this many pictures.
    sure_hits: u32,
    /// Not seen in this many pictures in a row.
    missed: u32,
    /// Class and weight, at most [`MOST_CLASSES`].
    votes: Vec<(u16, f32)>,
    /// Mean look, and of how many.
    look: Option<(Look, u16)>,
    belief: Belief,
}

impl Tracker {
    pub fn new(config: TrackerConfig) -> Tracker {
        Tracker { config, now: None, next_id: 1, step_s: 0.0, states: Vec::new(), tracks: Vec::new() }
    }

    /// Takes the boxes of one picture and returns all tracks, lost and tentative ones too, by rising id. Boxes that
    /// are not finite, have no area in the picture or are not wanted are ignored. `picture` is what the boxes were
    /// found in; without it objects are followed by their places alone.
    pub fn update(
        &mut self,
        at: ProducerTimestamp,
        detections: &[Detection],
        picture: Option<&Picture<'_>>,
    ) -> &[Track] {
        let elapsed_ms = self.now.map_or(Some(0), |now| at.checked_ms_since(now));
        let step_ms = elapsed_ms.unwrap_or(0);
        self.step_s = step_ms as f32 / 1_000.0;
        match elapsed_ms {
            Some(ms) => self.predict(at, ms),
            None => self.states.clear(),
        }
        self.now = Some(at);

        let boxes = self.usable(detections, picture);
        let high = boxes.partition_point(|found| found.sure);
        let mut open: Vec<usize> = (0..self.states.len()).collect();
        let mut unused = self.associate(at, &boxes[..high], &mut open, LEAST_GAIN);
        open.retain(|&n| self.states[n].track.confirmed);
        self.associate(at, &boxes[high..], &mut open, LEAST_GAIN_LOW);

        for state in self.states.iter_mut().filter(|state| !state.track.confirmed && state.missed > 0) {
            state.belief.miss(self.step_s);
        }
        self.states.retain(|state| {
            let unseen_ms = at.checked_ms_since(state.track.last_seen).unwrap_or(0);
            let believed =
                state.track.confirmed || state.missed <= TENTATIVE_MISSES || unseen_ms <= TENTATIVE_LOST_MS;
            believed && !state.has_left()
        });
        self.drop_duplicates();
        unused.retain(|found| !self.is_tracked(&found.detection.rect));
        for found in unused {
            self.begin(at, &found);
        }
        self.tracks.clear();
        self.tracks.extend(self.states.iter().map(|state| state.track));
        &self.tracks
    }

    /// As of the last update.
    pub fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    /// Ends what has not been seen for too long and moves the others to where they should be.
    fn predict(&mut self, at: ProducerTimestamp, elapsed_ms: u64) {
        let limit_ms = self.config.lost_after_ms;
        self.states
            .retain(|state| at.checked_ms_since(state.track.last_seen).is_some_and(|ms| ms <= limit_ms));
        let seconds = elapsed_ms as f64 / 1_000.0;
        for state in &mut self.states {
            state.filter.predict(seconds);
            state.track.seen_now = false;
            state.track.rect = clipped(&state.filter.rect());
            state.missed += 1;
        }
    }

    /// What counts of `detections`: the sure ones first, each part by falling score.
    fn usable(&self, detections: &[Detection], picture: Option<&Picture<'_>>) -> Vec<Candidate> {
        let mut boxes: Vec<Candidate> = Vec::with_capacity(detections.len());
        for Detection { class, score, rect } in detections {
            let finite = [rect.x, rect.y, rect.w, rect.h].iter().all(|value| value.is_finite());
            let rect = clipped(rect);
            let rule = self.config.classes.get(usize::from(*class)).copied().unwrap_or_default();
            let area = rect.area();
            let sure = *score >= rule.begin_score;
            if finite
                && rule.wanted
                && area > 0.0
                && (rule.min_area..=rule.max_area).contains(&area)
                && (sure || *score >= self.config.low_score)
            {
                let detection = Detection { class: *class, score: score.min(1.0), rect };
                let kind = rule.kind.unwrap_or(*class);
                let strength = Strength::new(detection.score, rule.begin_score);
                boxes.push(Candidate { detection, kind, sure, strength, look: None, covered: false });
            }
        }
        boxes.sort_by(Candidate::order);
        boxes.truncate(2 * self.config.max_tracks);
        if let Some(picture) = picture {
            for n in 0..boxes.len() {
                let rect = boxes[n].detection.rect;
                boxes[n].look = Some(Look::of(picture, &rect));
                let mut others = boxes.iter().enumerate().filter(|(other, _)| *other != n);
                boxes[n].covered =
                    others.any(|(_, other)| rect.shared(&other.detection.rect) > COVERED * rect.area());
            }
        }
        boxes
    }

    /// Assigns boxes to the tracks numbered in `open`, which keeps those that got none. Returns the boxes left over.
    fn associate(
        &mut self,
        at: ProducerTimestamp,
        boxes: &[Candidate],
        open: &mut Vec<usize>,
        least: f32,
    ) -> Vec<Candidate> {
        let mut pairs = Vec::new();
        for (row, &n) in open.iter().enumerate() {
            let target = Target::new(&self.states[n], self.kind(self.states[n].track.class));
            for (column, found) in boxes.iter().enumerate() {
                if let Some(gain) = target.gain(found, least) {
                    pairs.push(Pair { row, column, gain });
                }
            }
        }
        let mut used = vec![false; boxes.len()];
        let mut done = vec![false; open.len()];
        for Pair { row, column, .. } in assign(open.len(), boxes.len(), &pairs) {
            self.states[open[row]].take(at, self.step_s, &boxes[column], self.config.confirm_hits);
            (done[row], used[column]) = (true, true);
        }
        let mut row = 0..;
        open.retain(|_| !done[row.next().expect("endless")]);
        boxes.iter().zip(used).filter(|(_, used)| !used).map(|(found, _)| *found).collect()
    }

    /// Of two tracks on one object, both seen now, the older stays.
    fn drop_duplicates(&mut self) {
        let mut kept: Vec<Rect> = Vec::new();
        self.states.retain(|state| {
            let twice =
                state.track.seen_now && kept.iter().any(|rect| rect.iou(&state.track.seen) > DUPLICATE);
            if state.track.seen_now && !twice {
                kept.push(state.track.seen);
            }
            !twice
        });
    }

    fn kind(&self, class: u16) -> u16 {
        self.config.classes.get(usize::from(class)).and_then(|rule| rule.kind).unwrap_or(class)
    }

    fn is_tracked(&self, rect: &Rect) -> bool {
        self.states.iter().any(|state| state.track.seen_now && state.track.seen.iou(rect) > DUPLICATE)
    }

    fn begin(&mut self, at: ProducerTimestamp, found: &Candidate) {
        let Detection { class, score, rect } = found.detection;
        // Asked again for each: boxes of this very picture may be duplicates of each other.
        if self.states.len() >= self.config.max_tracks || self.is_tracked(&rect) {
            return;
        }
        let track = Track {
            id: self.next_id,
            class,
            rect,
            seen: rect,
            score,
            smoothed_score: score,
            top_score: score,
            seen_now: true,
            confirmed: self.config.confirm_hits <= 1,
            hits: 1,
            first: at,
            last_seen: at,
            velocity: Point::default(),
        };
        let (filter, votes) = (BoxFilter::new(&rect), vec![(class, score)]);
        // A covered one is better than none, and soon forgotten.
        let look = found.look.map(|look| (look, 1));
        self.states.push(State {
            track,
            filter,
            sure_hits: 1,
            missed: 0,
            votes,
            look,
            belief: Belief::begun(),
        });
        self.next_id += 1;
    }
}

impl State {
    fn has_left(&self) -> bool {
        let expected = self.filter.rect();
        !self.track.seen_now && clipped(&expected).area() < LEAST_INSIDE * expected.area()
    }

    fn take(&mut self, at: ProducerTimestamp, step_s: f32, found: &Candidate, confirm_hits: u32) {
        let Detection { class, score, rect } = found.detection;
        self.filter.correct(&rect, found.sure);
        self.missed = 0;
        self.belief.see(found.strength, step_s);
        if !self.belief.holds() {
            self.track.rect = clipped(&self.filter.rect());
            return;
        }
        self.sure_hits = self.sure_hits.saturating_add(u32::from(found.sure));
        self.vote(class, score);
        self.learn(found);
        let track = &mut self.track;
        let filtered = self.filter.rect();
        track.rect = clipped(&if found.sure { halfway(&filtered, &rect) } else { filtered });
        track.seen = rect;
        track.velocity = self.filter.velocity();
        track.score = score;
        track.smoothed_score += NEWEST * (score - track.smoothed_score);
        track.top_score = track.top_score.max(score);
        track.seen_now = true;
        track.confirmed |= self.sure_hits >= confirm_hits && self.belief.confirms();
        track.hits = track.hits.saturating_add(1);
        track.last_seen = at;
    }

    fn learn(&mut self, found: &Candidate) {
        let Some(newer) = found.look.filter(|_| found.sure && !found.covered) else { return };
        let (look, count) = self.look.get_or_insert((newer, 0));
        *count = count.saturating_add(1);
        look.approach(&newer, f32::from(*count).recip().max(NEWEST_LOOK));
    }

    fn vote(&mut self, class: u16, score: f32) {
        for (_, weight) in &mut self.votes {
            *weight *= KEPT_VOTES;
        }
        match self.votes.iter_mut().find(|(voted, _)| *voted == class) {
            Some((_, weight)) => *weight += score,
            None => {
                if self.votes.len() == MOST_CLASSES {
                    // The winner is at the front, see below.
                    let least =
                        (1..MOST_CLASSES).min_by(|&a, &b| self.votes[a].1.total_cmp(&self.votes[b].1));
                    self.votes.remove(least.expect("more than one"));
                }
                self.votes.push((class, score));
            }
        }
        let mut best = 0;
        for n in 1..self.votes.len() {
            let lead = if best == 0 { NEW_CLASS_LEAD } else { 1.0 };
            if self.votes[n].1 > lead * self.votes[best].1 {
                best = n;
            }
        }
        self.votes.swap(0, best);
        self.track.class = self.votes[0].0;
    }
}

/// A box that counts.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    detection: Detection,
    kind: u16,
    /// Its score may begin a track.
    sure: bool,
    strength: Strength,
    /// `None`: there is no picture.
    look: Option<Look>,
    /// Another box covers a part of it.
    covered: bool,
}

impl Candidate {
    /// Total, so that the order in which the detector lists boxes does not matter.
    fn order(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
        let key = |Rect { x, y, w, h }: Rect| [x, y, w, h].map(f32::to_bits); // none is negative
        let (Detection { rect, .. }, other) = (a.detection, b.detection);
        b.sure
            .cmp(&a.sure)
            .then(other.score.total_cmp(&a.detection.score))
            .then_with(|| key(rect).cmp(&key(other.rect)))
            .then(a.detection.class.cmp(&other.class))
    }
}

/// Where a track is expected.
struct Target {
    rect: Rect,
    widened: Rect,
    by: f32,
    kind: u16,
    worth: f32,
    look: Option<Look>,
    /// 0.0..=1.0: how much the looks have to say about whether a pair is possible at all.
    look_decides: f32,
}

impl Target {
    fn new(state: &State, kind: u16) -> Target {
        let doubt = state.filter.doubt().min(MOST_DOUBT);
        #[expect(clippy::cast_possible_truncation, reason = "parts of the picture need no f64")]
        let (by, doubt) = ((doubt * state.filter.size()) as f32, doubt as f32);
        let worth = (1.0 + doubt).sqrt().recip() * if state.track.confirmed { 1.0 } else { TENTATIVE };
        let rect = state.filter.rect();
        Target {
            rect,
            widened: widened(&rect, by),
            by,
            kind,
            worth,
            look: state.look.map(|(look, _)| look),
            look_decides: (doubt / LOOK_DECIDES).min(1.0),
        }
    }

    /// 0.0..=1.0: overlap of the widened boxes, less for another size, kind or look, and for doubt. `None`: below
    /// `least`, for which the look counts only as much as the place is in doubt.
    fn gain(&self, found: &Candidate, least: f32) -> Option<f32> {
        let detection = &found.detection;
        let overlap = self.widened.iou(&widened(&detection.rect, self.by));
        if overlap <= 0.0 {
            return None;
        }
        let ratio = |a: f32, b: f32| a.min(b) / a.max(b);
        let alike = ratio(self.rect.w, detection.rect.w) * ratio(self.rect.h, detection.rect.h);
        let class = if self.kind == found.kind { 1.0 } else { OTHER_CLASS };
        let place = overlap * alike.max(0.0).sqrt() * self.worth * class;
        let look = self.look.zip(found.look).map_or(1.0, |(mine, other)| {
            (-(mine.distance(&other) / OTHER_LOOK).powi(2)).exp().max(LEAST_LOOK)
        });
        (place * look.powf(self.look_decides) >= least).then_some(place * look)
    }
}

/// The filter follows an object that has just come or turned a little late; what the detector sees trembles.
fn halfway(a: &Rect, b: &Rect) -> Rect {
    let [x, y, w, h] = [(a.x, b.x), (a.y, b.y), (a.w, b.w), (a.h, b.h)].map(|(a, b)| f32::midpoint(a, b));
    Rect { x, y, w, h }
}

fn widened(rect: &Rect, by: f32) -> Rect {
    Rect { x: rect.x - by, y: rect.y - by, w: rect.w + 2.0 * by, h: rect.h + 2.0 * by }
}

/// The part within the picture; nothing of what is not finite.
fn clipped(rect: &Rect) -> Rect {
    let (x, y) = (rect.x.clamp(0.0, 1.0), rect.y.clamp(0.0, 1.0));
    let (right, bottom) = ((rect.x + rect.w).clamp(0.0, 1.0), (rect.y + rect.h).clamp(0.0, 1.0));
    Rect { x, y, w: (right - x).max(0.0), h: (bottom - y).max(0.0) }
}
