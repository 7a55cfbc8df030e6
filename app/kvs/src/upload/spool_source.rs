//! Fragments in memory, and on disk where there is a spool: what is sent next is in memory, an outage waits on disk.
//!
//! ```text
//!            front: what the upload sees            hidden              tail
//!  oldest [ sent ][ sent ][ being sent ][ waits ] [ on disk only ... ] [ written ][ grows ] newest
//!             bytes in memory, or fetched when wanted    only counted     in memory
//!
//!  no spool, or no backlog: nothing is hidden, no tail; what grows is the last of the front and leaves as it arrives
//! ```
//!
//! A finished fragment is written at once, one after the other. What is on disk gives its bytes in memory up when they are
//! more than the limit: first what was sent and waits for its ack, then the newest, which is sent last. When the front is long, what comes is kept in the tail until it is
//! on disk, and hidden then; the front is filled again from the disk, in order. So the memory stays flat, however long an
//! outage lasts.
//!
//! Where not all footage is [wanted](SpoolSource::selective), it goes to disk as a local recording; what is wanted of it comes to
//! the front by its time.
//!
//! What the disk does not take stays in memory, as if there were no spool, and is offered again with the next fragment.
//!
//! **Without a clock.** What is recorded before the clock is set has times since boot ([`stamping`](crate::stamping)). It is written
//! like everything else, and leaves the memory then: nothing is sent, and nothing listed, until the [clock is
//! set](SpoolSource::stamp) and the disk has given it its time. Then it comes from there in order, in front of what is recorded
//! with real times. What the disk did not take is stamped in memory.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use media::ProducerTimestamp;
use media::mkv::write::cluster_start;

use super::selection::Selection;
use super::source::{FragmentSource, Held};
use super::spool::{Answer, Dropped, Place, Request, Spooled, Waiting, Whole};
use crate::FragmentId;
use crate::fragmenter::{FragmentEnd, FragmentStart, FragmentSummary, Part, StreamHeader};
use crate::stamping::{FootageClock, RunStamp, Trusted};

/// Fragments that the upload sees at once: more than can be in flight.
const FRONT: usize = 512;
/// The first look at what an earlier life left: it may have had all of a front in flight, and not have written down yet what
/// became of the last ones before it.
const FIRST_LOOK: usize = FRONT + 64;
/// Fetched ahead of the one that is being sent.
const AHEAD: usize = 8;
/// Pieces of what comes from disk.
const PIECE: usize = 64 << 10;

/// All bytes in memory as the camera's own buffers, and fragments of a spool.
#[derive(Debug)]
pub struct SpoolSource {
    front: VecDeque<Fragment>,
    hidden: Waiting,
    /// The last of the front, or of those that were there: what is hidden lies behind it.
    reached: Option<Place>,
    tail: VecDeque<Fragment>,
    /// Bytes of all clusters in memory, and the most of them while there is a disk to hold the rest.
    bytes: usize,
    limit: usize,
    spool: Option<Link>,
    /// Absent: all is wanted.
    selection: Option<Selection>,
    /// What the upload asked for last.
    wanted: Cell<Option<FragmentId>>,
}

/// What is under way between the source and its spool.
#[derive(Debug, Default)]
struct Link {
    writing: Option<FragmentId>,
    /// As a local recording.
    keeping: bool,
    /// The disk did not take the last one: it is offered again [later](SpoolSource::try_again).
    refused: bool,
    listing: bool,
    /// Done with since then: the list may have been made before that was known.
    released: Vec<FragmentId>,
    /// What waits could not be said; it is asked for again [later](SpoolSource::try_again).
    unlisted: bool,
    /// So what is recorded does not wait for what an earlier life left.
    open: bool,
    /// What an earlier life left has been listed.
    began: bool,
    reading: Vec<FragmentId>,
    /// The disk could not be read; it is asked again [later](SpoolSource::try_again).
    unread: bool,
    stamping: Stamping,
    /// Since the clock is set.
    trusted: Option<Trusted>,
    /// Of what is still in memory with times since boot.
    stamps: Vec<RunStamp>,
    /// What was told: to be done by the owner.
    news: Vec<News>,
}

/// What was recorded without a clock, and its time.
#[derive(Clone, Copy, Debug, Default)]
enum Stamping {
    /// All that is on disk has its time.
    #[default]
    Done,
    /// The clock is not set yet.
    Waits,
    Due(Trusted),
    Asked(Trusted),
}

/// What the spool's answers mean for the upload.
#[derive(Clone, Debug)]
pub enum News {
    /// Fragments came from the disk. `doubtful`: an earlier life may have sent them.
    Recalled { fragments: Vec<FragmentId>, doubtful: bool },
    /// It waits on disk only, for as long as others are sent.
    Hidden(FragmentId),
    /// The disk does not return it.
    Unreadable(FragmentId),
    /// It had to make room on disk, and nobody else has it.
    Dropped(Dropped),
    /// So many fragments that were recorded without a clock have their time now.
    Stamped { exact: usize, estimated: usize },
}

#[derive(Debug)]
struct Fragment {
    id: FragmentId,
    timecode: ProducerTimestamp,
    clock: FootageClock,
    header: Arc<StreamHeader>,
    /// Absent: only on disk.
    pieces: Option<Vec<Bytes>>,
    bytes: usize,
    end: Option<FragmentEnd>,
    place: Option<Place>,
    /// It had to make room on disk, and stays in memory.
    evicted: bool,
}

impl SpoolSource {
    /// Without a spool.
    pub fn in_memory() -> Self {
        Self {
            front: VecDeque::new(),
            hidden: Waiting::default(),
            reached: None,
            tail: VecDeque::new(),
            bytes: 0,
            limit: usize::MAX,
            spool: None,
            selection: None,
            wanted: Cell::new(None),
        }
    }

    /// With a spool, and at most `limit` bytes in memory while that takes what comes.
    pub fn with_spool(limit: usize) -> Self {
        Self { limit, spool: Some(Link::default()), ..Self::in_memory() }
    }

    /// With a spool that keeps everything, of which only what is [wanted](Self::want) is sent.
    pub fn selective(limit: usize) -> Self {
        Self { selection: Some(Selection::default()), ..Self::with_spool(limit) }
    }

    /// Nothing is listed and sent before the [clock is set](Self::stamp).
    #[must_use]
    pub fn waiting_for_clock(mut self) -> Self {
        self.spool.iter_mut().for_each(|link| link.stamping = Stamping::Waits);
        self
    }

    /// The clock is set. What the fragmenter still makes with times since boot gets the same stamp.
    pub fn stamp(&mut self, trusted: Trusted) {
        if let Some(link) = self.spool.as_mut().filter(|link| matches!(link.stamping, Stamping::Waits)) {
            link.stamping = Stamping::Due(trusted);
            link.trusted = Some(trusted);
        }
    }

    pub fn is_selective(&self) -> bool {
        self.selection.is_some()
    }

    /// Footage of this stretch of time is to be sent, both ends included: what is on disk, and what is still to come.
    pub fn want(&mut self, from: ProducerTimestamp, to: ProducerTimestamp) {
        if let Some(selection) = &mut self.selection {
            selection.want((from.as_millis(), to.as_millis()));
        }
    }

    /// What to ask the spool for; call until `None` after each input.
    pub fn next_request(&mut self) -> Option<Request> {
        let link = self.spool.as_mut()?;
        if let (Stamping::Due(trusted), false) = (link.stamping, link.unlisted) {
            link.stamping = Stamping::Asked(trusted);
            return Some(Request::Stamp(trusted));
        }
        let may_list = !link.listing && !link.unlisted && matches!(link.stamping, Stamping::Done);
        if !link.began && may_list {
            link.listing = true;
            return Some(Request::List { after: None, most: FIRST_LOOK });
        }
        if link.writing.is_none() && !link.refused {
            let mut all = self.front.iter().chain(&self.tail);
            let next = all.find(|fragment| fragment.place.is_none() && !fragment.evicted);
            // Once the clock is set, what has no time gets it first.
            let next = next.filter(|fragment| link.trusted.is_none() || !fragment.clock.is_boot());
            if let Some(whole) = next.and_then(Fragment::whole) {
                link.writing = Some(whole.id());
                let summary = &whole.end.summary;
                let (start, end) = (summary.timecode.as_millis(), summary.end().as_millis());
                let dated = !summary.clock.is_boot();
                let wanted =
                    self.selection.as_mut().is_none_or(|selection| dated && selection.wants(start, end));
                link.keeping = !wanted;
                return Some(if wanted { Request::Write(whole) } else { Request::Keep(whole) });
            }
        }
        if link.began && may_list && self.hidden.fragments > 0 && self.front.len() < FRONT / 2 {
            link.listing = true;
            return Some(Request::List { after: self.reached, most: FRONT - self.front.len() });
        }
        if let Some(selection) = self.selection.as_mut().filter(|_| link.began && may_list)
            && self.front.len() < FRONT / 2
            && let Some((from_ms, to_ms)) = selection.next_recall()
        {
            return Some(Request::Recall { from_ms, to_ms, most: FRONT - self.front.len() });
        }
        let wanted = self.wanted.get().filter(|_| !link.unread)?;
        let from = self.front.iter().position(|fragment| fragment.id == wanted)?;
        let link = self.spool.as_mut()?;
        let absent = |fragment: &&Fragment| fragment.pieces.is_none() && !link.reading.contains(&fragment.id);
        let next = self.front.iter().skip(from).take(AHEAD).find(absent)?;
        let under_way: usize = link.reading.len() * next.bytes;
        if next.id != wanted && self.bytes + under_way + next.bytes > self.limit {
            return None;
        }
        let id = next.id;
        link.reading.push(id);
        Some(Request::Read(id))
    }

    /// Takes an answer of the spool.
    pub fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Written { id, place } => self.written(id, Some(place)),
            Answer::NotWritten { id } => self.written(id, None),
            Answer::Read { id, cluster } => self.read(id, cluster),
            Answer::NotRead { id } => {
                self.done_reading(id);
                self.spool.iter_mut().for_each(|link| link.unread = true);
            }
            Answer::Listed { fragments, left } => self.listed(fragments, left),
            Answer::NotListed => self.not_listed(),
            Answer::Recalled { fragments, left } => self.recalled(fragments, left),
            Answer::Stamped(stamps) => self.stamped(&stamps),
            Answer::NotStamped => self.not_stamped(),
            Answer::NotRecalled => {
                self.selection.iter_mut().for_each(|selection| selection.recalled(true));
                self.spool.iter_mut().for_each(|link| link.unlisted = true);
            }
            Answer::Dropped(dropped) => dropped.into_iter().for_each(|dropped| self.dropped(dropped)),
        }
    }

    /// What the disk did not take is offered again, and what it did not return asked for: with each fragment that is finished, and when a moment has passed.
    pub fn try_again(&mut self) {
        if let Some(link) = &mut self.spool {
            (link.refused, link.unlisted, link.unread) = (false, false, false);
        }
    }

    /// The spool has no place for this request.
    pub fn not_taken(&mut self, read: FragmentId) {
        self.done_reading(read);
    }

    /// What the answers mean for the upload.
    pub fn take_news(&mut self) -> Vec<News> {
        self.spool.as_mut().map(|link| std::mem::take(&mut link.news)).unwrap_or_default()
    }

    /// Whether it would survive the process.
    pub fn is_stored(&self, id: FragmentId) -> bool {
        let mut all = self.front.iter().chain(&self.tail);
        all.any(|fragment| fragment.id == id && fragment.place.is_some())
    }

    /// Something is being written: who ends may wait for it.
    pub fn is_writing(&self) -> bool {
        self.spool.as_ref().is_some_and(|link| link.writing.is_some())
    }

    fn news(&mut self, news: News) {
        if let Some(link) = &mut self.spool {
            link.news.push(news);
        }
    }

    /// Something waits behind the front, so what is recorded waits too.
    fn is_gated(&self) -> bool {
        let beginning = self.spool.as_ref().is_some_and(|link| !link.began && !link.open);
        beginning || self.selection.is_some() || self.hidden.fragments > 0 || !self.tail.is_empty()
    }

    fn written(&mut self, id: FragmentId, place: Option<Place>) {
        if let Some(link) = self.spool.as_mut().filter(|link| link.writing == Some(id)) {
            link.writing = None;
            link.refused = place.is_none();
        }
        let Some(place) = place else { return self.stamp_memory() };
        let undated = |fragment: &Fragment| fragment.id == id && fragment.clock.is_boot();
        if let Some(at) = self.tail.iter().position(undated) {
            // It gets its time on disk, and is listed then.
            let fragment = self.tail.remove(at);
            self.bytes -= fragment.as_ref().map_or(0, Fragment::in_memory);
            return;
        }
        if self.selection.is_some() {
            return self.selected(id, place);
        }
        if let Some(at) = self.place_of(id) {
            self.front[at].place = Some(place);
            // Where a list came late, what lies in between is still to be listed.
            if self.hidden.fragments == 0 {
                self.reached = self.reached.max(Some(place));
            }
        } else if let Some(fragment) = self.tail.iter_mut().find(|fragment| fragment.id == id) {
            fragment.place = Some(place);
        }
        self.hide();
        self.shed();
    }

    /// What is wanted goes to the front, by its time, and what is not is on disk now.
    fn selected(&mut self, id: FragmentId, place: Place) {
        let keeping = self.spool.as_ref().is_some_and(|link| link.keeping);
        let Some(at) = self.tail.iter().position(|fragment| fragment.id == id) else { return };
        let Some(mut fragment) = self.tail.remove(at) else { return };
        if keeping {
            self.bytes -= fragment.in_memory();
            return;
        }
        fragment.place = Some(place);
        self.insert(fragment);
        if self.hidden.fragments == 0 {
            self.reached = self.reached.max(Some(place));
        }
        self.news(News::Recalled { fragments: vec![id], doubtful: false });
        self.shed();
    }

    /// Into the front, by its time.
    fn insert(&mut self, fragment: Fragment) {
        let earlier = |other: &Fragment| other.timecode <= fragment.timecode;
        let at = self.front.iter().rposition(earlier).map_or(0, |last| last + 1);
        self.front.insert(at, fragment);
    }

    fn recalled(&mut self, fragments: Vec<Spooled>, left: usize) {
        self.selection.iter_mut().for_each(|selection| selection.recalled(left > 0));
        let mut recalled = Vec::new();
        for spooled in fragments {
            let fragment = Fragment::spooled(spooled);
            if self.get(fragment.id).is_none() {
                recalled.push(fragment.id);
                self.insert(fragment);
            }
        }
        self.news(News::Recalled { fragments: recalled, doubtful: false });
    }

    /// What of the tail is on disk needs no memory.
    fn hide(&mut self) {
        while self.tail.front().is_some_and(|fragment| fragment.place.is_some()) {
            let Some(fragment) = self.tail.pop_front() else { return };
            self.bytes -= fragment.in_memory();
            self.hidden.fragments += 1;
            self.hidden.bytes += fragment.bytes as u64;
            self.news(News::Hidden(fragment.id));
        }
    }

    /// Gives up bytes in memory that are on disk too: what was sent already, which nobody asks for again unless the session
    /// breaks, then the newest; never what is being sent.
    fn shed(&mut self) {
        let wanted = self.wanted.get();
        let sent = wanted.and_then(|id| self.place_of(id)).unwrap_or(0);
        let (limit, mut bytes) = (self.limit, self.bytes);
        let mut give_up = |fragment: &mut Fragment| {
            if bytes > limit && fragment.place.is_some() && wanted != Some(fragment.id) {
                bytes -= fragment.in_memory();
                fragment.pieces = None;
            }
        };
        let mut front = self.front.iter_mut();
        front.by_ref().take(sent).for_each(&mut give_up);
        front.chain(&mut self.tail).rev().for_each(give_up);
        self.bytes = bytes;
    }

    fn read(&mut self, id: FragmentId, cluster: Option<Bytes>) {
        let at = self.place_of(id);
        let wanted = at.map(|at| &mut self.front[at]).filter(|fragment| fragment.pieces.is_none());
        let cluster = cluster.filter(|cluster| wanted.as_ref().is_none_or(|one| cluster.len() == one.bytes));
        match (wanted, cluster) {
            (Some(fragment), Some(cluster)) => {
                fragment.pieces = Some(cut(&cluster));
                self.bytes += fragment.bytes;
            }
            // It is not asked for again: the owner gives it up.
            (Some(_), None) => return self.news(News::Unreadable(id)),
            (None, _) => {}
        }
        self.done_reading(id);
    }

    fn done_reading(&mut self, id: FragmentId) {
        if let Some(link) = &mut self.spool {
            link.reading.retain(|reading| *reading != id);
        }
    }

    fn listed(&mut self, fragments: Vec<Spooled>, left: Waiting) {
        let Some(link) = &mut self.spool else { return };
        let doubtful = !std::mem::replace(&mut link.began, true);
        link.listing = false;
        let released = std::mem::take(&mut link.released);
        let mut recalled = Vec::new();
        for spooled in fragments {
            let (id, place) = (spooled.end.summary.id, spooled.place);
            self.reached = Some(place);
            // The tail may be on disk already: it is hidden when that is told.
            if self.get(id).is_some() || released.contains(&id) {
                continue;
            }
            // Where the list came late, newer ones are here already.
            let newer = |fragment: &Fragment| fragment.place.map_or(!fragment.evicted, |other| other > place);
            let at = self.front.iter().rposition(|fragment| !newer(fragment)).map_or(0, |last| last + 1);
            self.front.insert(at, Fragment::spooled(spooled));
            recalled.push(id);
        }
        // What of the tail is on disk, and held up there by one that is not, is among those that are left.
        let behind = |place: Place| self.reached.is_none_or(|reached| place > reached);
        let mut left = left;
        for fragment in
            self.front.iter().chain(&self.tail).filter(|fragment| fragment.place.is_some_and(behind))
        {
            left.fragments = left.fragments.saturating_sub(1);
            left.bytes = left.bytes.saturating_sub(fragment.bytes as u64);
        }
        self.hidden = left;
        self.news(News::Recalled { fragments: recalled, doubtful });
        self.join();
    }

    fn not_listed(&mut self) {
        if let Some(link) = &mut self.spool {
            (link.listing, link.unlisted, link.open) = (false, true, true);
            link.released.clear();
        }
        self.join();
    }

    fn stamped(&mut self, stamps: &[(RunStamp, usize)]) {
        let count = |estimated: bool| {
            let of = stamps.iter().filter(|(stamp, _)| stamp.estimate.is_some() == estimated);
            of.map(|(_, fragments)| fragments).sum()
        };
        let (exact, estimated) = (count(false), count(true));
        if exact + estimated > 0 {
            self.news(News::Stamped { exact, estimated });
        }
        if let Some(link) = &mut self.spool {
            link.stamps = stamps.iter().map(|(stamp, _)| *stamp).collect();
            link.stamping = Stamping::Done;
        }
        self.date_runs();
        self.stamp_memory();
    }

    /// The disk takes no stamps now: what is in memory goes on without what is there.
    fn not_stamped(&mut self) {
        self.date_runs();
        if let Some(link) = &mut self.spool {
            if let Stamping::Asked(trusted) = link.stamping {
                link.stamping = Stamping::Due(trusted);
            }
            (link.unlisted, link.open) = (true, true);
        }
        self.stamp_memory();
        self.join();
    }

    /// A run of which nothing was on disk is of the present boot.
    fn date_runs(&mut self) {
        let Some(link) = &mut self.spool else { return };
        let Some(Trusted { offset_ms, .. }) = link.trusted else { return };
        for fragment in self.tail.iter().filter(|fragment| fragment.clock.is_boot()) {
            let run = fragment.id.run;
            if !link.stamps.iter().any(|stamp| stamp.run == run) {
                link.stamps.push(RunStamp { run, offset_ms, estimate: None });
            }
        }
    }

    /// It was begun before the clock was set, and ended since.
    fn stamp_late(&mut self) {
        let is_set = |link: &Link| link.trusted.is_some() && matches!(link.stamping, Stamping::Done);
        if self.spool.as_ref().is_some_and(is_set) {
            self.date_runs();
            self.stamp_memory();
        }
    }

    /// What was recorded without a clock and is in memory gets its time, once that is known.
    fn stamp_memory(&mut self) {
        let Some(link) = &mut self.spool else { return };
        let (stamps, writing) = (&link.stamps, link.writing);
        let mut recalled = Vec::new();
        for fragment in self.tail.iter_mut().filter(|fragment| fragment.clock.is_boot()) {
            let stamp = stamps.iter().find(|stamp| stamp.run == fragment.id.run);
            let Some(stamp) = stamp.filter(|_| fragment.end.is_some() && writing != Some(fragment.id)) else {
                continue;
            };
            match fragment.stamp(stamp) {
                Some(()) => recalled.push(fragment.id),
                None => link.news.push(News::Unreadable(fragment.id)),
            }
        }
        if !recalled.is_empty() && self.selection.is_none() {
            link.news.push(News::Recalled { fragments: recalled, doubtful: false });
        }
        if link.began && !link.listing {
            self.join();
        }
    }

    /// Nothing lies between front and tail any more. What has no time yet stays, and what comes behind it.
    fn join(&mut self) {
        if self.tail.iter().any(|fragment| fragment.clock.is_boot()) {
            return;
        }
        if self.hidden.fragments == 0 && self.front.len() < FRONT && self.selection.is_none() {
            self.front.append(&mut self.tail);
            let places = self.front.iter().filter_map(|fragment| fragment.place);
            self.reached = places.max().max(self.reached);
        }
    }

    fn dropped(&mut self, dropped: Dropped) {
        if let Some(at) = self.place_of(dropped.id) {
            let fragment = &mut self.front[at];
            (fragment.place, fragment.evicted) = (None, true);
            if fragment.pieces.is_some() {
                return; // in memory it goes on
            }
        } else if let Some(fragment) = self.tail.iter_mut().find(|fragment| fragment.id == dropped.id) {
            (fragment.place, fragment.evicted) = (None, true);
            if fragment.pieces.is_some() {
                return;
            }
        } else if self.reached.is_none_or(|reached| dropped.place > reached) {
            self.hidden.fragments = self.hidden.fragments.saturating_sub(1);
            self.hidden.bytes = self.hidden.bytes.saturating_sub(dropped.bytes);
        }
        self.news(News::Dropped(dropped));
        if self.hidden.fragments == 0 && self.spool.as_ref().is_some_and(|link| link.began && !link.listing) {
            self.join();
        }
    }

    fn place_of(&self, id: FragmentId) -> Option<usize> {
        // Of one run, and of runs in the order of their numbers, but for what an old clock or a full number range did.
        let at = self.front.binary_search_by_key(&id, |fragment| fragment.id).ok();
        at.or_else(|| self.front.iter().position(|fragment| fragment.id == id))
    }

    /// The one that grows: only the newest can.
    fn growing(&mut self) -> Option<&mut Fragment> {
        let newest = if self.tail.is_empty() { self.front.back_mut() } else { self.tail.back_mut() };
        newest.filter(|fragment| fragment.end.is_none())
    }
}

impl FragmentSource for SpoolSource {
    fn part(&mut self, part: Part) {
        match part {
            Part::Start(FragmentStart { id, timecode, clock, header, head, .. }) => {
                let newest = self.tail.back().or(self.front.back());
                // A name that does not follow would break the order; names of one run always do.
                if newest.is_some_and(|newest| newest.id.run == id.run && newest.id >= id) {
                    return;
                }
                let (bytes, pieces) = (head.len(), Some(vec![head]));
                self.bytes += bytes;
                let (end, place, evicted) = (None, None, false);
                let fragment = Fragment { id, timecode, clock, header, pieces, bytes, end, place, evicted };
                if clock.is_boot() || self.is_gated() || self.spool.is_some() && self.front.len() >= FRONT {
                    self.tail.push_back(fragment);
                } else {
                    self.front.push_back(fragment);
                }
            }
            Part::Block { head, payload } => {
                let length = head.len() + payload.len();
                if let Some(fragment) = self.growing() {
                    fragment.pieces.get_or_insert_default().extend([head, payload]);
                    fragment.bytes += length;
                    self.bytes += length;
                }
            }
            Part::End(end) => {
                if let Some(fragment) = self.growing().filter(|fragment| fragment.id == end.summary.id) {
                    fragment.end = Some(end);
                }
                self.stamp_late();
                self.try_again();
            }
        }
        if self.bytes > self.limit {
            self.shed();
        }
    }

    fn held(&self) -> impl DoubleEndedIterator<Item = Held<'_>> + ExactSizeIterator {
        self.front.iter().map(Fragment::held)
    }

    fn behind(&self) -> impl Iterator<Item = Held<'_>> {
        self.tail.iter().map(Fragment::held)
    }

    fn get(&self, id: FragmentId) -> Option<Held<'_>> {
        let seen = self.place_of(id).map(|at| &self.front[at]);
        seen.or_else(|| self.tail.iter().find(|fragment| fragment.id == id)).map(Fragment::held)
    }

    fn piece(&self, id: FragmentId, index: usize) -> Option<Bytes> {
        self.wanted.set(Some(id));
        self.front[self.place_of(id)?].pieces.as_ref()?.get(index).cloned()
    }

    fn release(&mut self, id: FragmentId) -> Option<usize> {
        let fragment = match self.place_of(id) {
            Some(at) => self.front.remove(at)?,
            None => self.tail.remove(self.tail.iter().position(|fragment| fragment.id == id)?)?,
        };
        self.bytes -= fragment.in_memory();
        self.done_reading(id);
        self.spool.iter_mut().filter(|link| link.listing).for_each(|link| link.released.push(id));
        if self.spool.as_ref().is_some_and(|link| link.began && !link.listing) {
            self.join();
        }
        Some(fragment.bytes)
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn all(&self) -> (usize, usize) {
        // What is not wanted waits for the disk alone.
        let tail = || self.tail.iter().filter(|_| self.selection.is_none());
        let here: usize = self.front.iter().chain(tail()).map(|fragment| fragment.bytes).sum();
        let hidden = usize::try_from(self.hidden.bytes).unwrap_or(usize::MAX);
        (self.front.len() + tail().count() + self.hidden.fragments, here.saturating_add(hidden))
    }
}

impl Fragment {
    fn spooled(Spooled { place, header, end }: Spooled) -> Self {
        let FragmentSummary { id, timecode, clock, cluster_bytes, .. } = end.summary;
        let bytes = usize::try_from(cluster_bytes).unwrap_or(usize::MAX);
        let (end, place) = (Some(end), Some(place));
        Self { id, timecode, clock, header, pieces: None, bytes, end, place, evicted: false }
    }

    /// It was recorded without a clock, and this is its time.
    fn stamp(&mut self, stamp: &RunStamp) -> Option<()> {
        let whole = self.whole()?;
        let end = stamp.end(&whole.end, &whole.heads())?;
        let summary = &end.summary;
        (self.timecode, self.clock) = (summary.timecode, summary.clock);
        *self.pieces.as_mut()?.first_mut()? = cluster_start(summary.timecode.as_millis());
        self.end = Some(end);
        Some(())
    }

    fn held(&self) -> Held<'_> {
        let Self { id, timecode, header, bytes, end, .. } = self;
        let pieces = self.pieces.as_ref().map_or_else(|| bytes.div_ceil(PIECE), Vec::len);
        let (end, stored) = (end.as_ref(), self.place.is_some());
        Held { id: *id, timecode: *timecode, header, bytes: *bytes, pieces, end, stored }
    }

    fn in_memory(&self) -> usize {
        if self.pieces.is_some() { self.bytes } else { 0 }
    }

    /// Once it is complete.
    fn whole(&self) -> Option<Whole> {
        let (end, pieces) = (self.end.clone()?, self.pieces.clone()?);
        Some(Whole { header: self.header.clone(), pieces, end })
    }
}

fn cut(cluster: &Bytes) -> Vec<Bytes> {
    let ends = |start: usize| (start + PIECE).min(cluster.len());
    (0..cluster.len()).step_by(PIECE).map(|start| cluster.slice(start..ends(start))).collect()
}

#[cfg(test)]
#[path = "spool_source_clock_tests.rs"]
mod clock_tests;
#[cfg(test)]
#[path = "spool_source_tests.rs"]
mod tests;
