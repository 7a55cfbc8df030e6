//! When which fragments are asked for, and what that shows. No IO.
//!
//! ```text
//!  kept --read live--> identical          (continuous: all; what is late is asked for by its number)
//!    |  --sample-----> identical          (sampled: a random one of those that came since, each `sample_every`)
//!    |  --list-------> listed             (both: all, each `list_every`, over bounded spans)
//!    +--late, and not there when asked for--> missing --found after all--> healed
//!
//!  identical --asked for again, one each `again_every`--> identical, corrupt, missing
//! ```
//!
//! One question at a time: the service takes 5 calls a second and stream. What is bad or late is asked for again at growing
//! intervals, for as long as even the shortest retention keeps it; what could not be proven by then is counted as unproven.

mod samples;

use std::time::{Duration, Instant};

use health::Backoff;
use serde::{Deserialize, Serialize};

use super::budget::Budget;
use super::fetches::{Fetched, Fetches};
use super::listing::{Listed, Listing, Span};
use super::records::Minute;
use super::verify::{self, Finding};
use crate::api::Fragment;
use crate::ledger::{Change, Ledger, Read, Record, Stage};
use crate::read::chunk::{Answer, Chunk};
use crate::read::{ReadFailure, ReadFailureKind};
use crate::{FragmentId, FragmentNumber};

/// How footage is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofMode {
    /// One lasting GetMedia reads everything back.
    Continuous,
    /// One fragment each `sample_every` is read back, all are listed.
    Sampled,
    Off,
}

#[derive(Clone, Debug)]
pub struct ProofConfig {
    pub mode: ProofMode,
    pub sample_every: Duration,
    /// Bytes that samples, plays and looks at single fragments may read back in an hour; `None`: as many as it takes.
    pub read_back_per_hour: Option<u64>,
    pub list_every: Duration,
    /// From the ack to "late": by then it should have been read back, and listed.
    pub late_after: Duration,
    /// The first sample and list come early, so that a new installation shows a verdict soon.
    pub first_look: Duration,
    /// Shortest time between two looks at one fragment.
    pub look_again: Duration,
    /// Fragments of one request.
    pub batch: usize,
    /// Producer time that one list covers; 5 fragments a second are at most 5 pages.
    pub span: Duration,
    /// From the ack; less than the shortest retention, so that what is not there is really missing.
    pub ask_for: Duration,
    /// One of those that were proven is looked at once more so often, as far as the budget allows, when it is at least so old: it
    /// may have been damaged since.
    pub again_every: Duration,
    pub again_after: Duration,
    /// How long a bad finding or a gap weighs on the verdict.
    pub memory: Duration,
    pub first_delay: Duration,
    pub longest_delay: Duration,
    pub slower_delay: Duration,
    /// Between attempts that only an operator's change can make succeed.
    pub operator_delay: Duration,
    /// How long a stop waits for what is still to be proven.
    pub stop_limit: Duration,
    /// From the beginning of a stop until what is not read back is asked for by its number.
    pub stop_patience: Duration,
}

impl Default for ProofConfig {
    fn default() -> Self {
        Self {
            mode: ProofMode::Sampled,
            sample_every: Duration::from_secs(60),
            read_back_per_hour: None,
            list_every: Duration::from_secs(60),
            late_after: Duration::from_secs(30),
            first_look: Duration::from_secs(10),
            look_again: Duration::from_secs(5),
            batch: 10,
            span: Duration::from_secs(15 * 60),
            ask_for: Duration::from_secs(50 * 60),
            again_every: Duration::from_secs(10 * 60),
            again_after: Duration::from_secs(10 * 60),
            memory: Duration::from_secs(60 * 60),
            first_delay: Duration::from_millis(500),
            longest_delay: Duration::from_secs(60),
            slower_delay: Duration::from_secs(2),
            operator_delay: Duration::from_secs(120),
            stop_limit: Duration::from_secs(4),
            stop_patience: Duration::from_secs(1),
        }
    }
}

/// What the driver asks the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// GetMediaForFragmentList: then [`Schedule::fetched`].
    Fetch(Vec<FragmentNumber>),
    /// ListFragments, to its last page: then [`Schedule::listed`].
    List(Span),
}

/// The answer to "is my footage in the cloud as sent?".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that was due has been read back and is identical.
    Ok,
    /// Something is overdue.
    Late,
    /// Some footage is not in KVS and never will be; it is said which, and why.
    Gap,
    /// Something differs or is missing.
    Mismatch,
    /// Nothing to judge by yet, or verification is off.
    Unknown,
}

/// Footage of others, and of runs before this one, that was read back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OthersCounts {
    pub self_described: u64,
    pub misdescribed: u64,
    pub foreign: u64,
}

/// Decides for one stream.
#[derive(Debug)]
pub struct Schedule {
    config: ProofConfig,
    /// Nothing up to here is to be asked for any more.
    settled_to: Option<FragmentId>,
    fetches: Fetches,
    asking: Option<Asking>,
    next_sample: Instant,
    /// Of what was kept since then the next sample is taken.
    sampled_at: Option<Instant>,
    next_again: Instant,
    /// Asked for although it is proven.
    again: Option<FragmentId>,
    budget: Option<Budget>,
    next_list: Instant,
    /// A round of lists goes on behind this producer time.
    listed_to_ms: Option<u64>,
    fetching: Line,
    listing: Line,
    last_kept: Option<Instant>,
    others: OthersCounts,
    /// The newest fragment that is not what its own tag says.
    misdescribed: Option<(u64, Instant)>,
    stop: Option<Stop>,
    view: View,
}

#[derive(Clone, Copy, Debug)]
struct Asking {
    since: Instant,
    span: Option<Span>,
}

/// Calls of one kind: when the next may be made, and why not before.
#[derive(Debug)]
struct Line {
    backoff: Backoff,
    rest_until: Option<Instant>,
    failure: Option<ReadFailure>,
}

#[derive(Clone, Copy, Debug)]
struct Stop {
    since: Instant,
    by: Instant,
}

/// What the ledger showed when it was last looked through.
#[derive(Debug, Default)]
struct View {
    stale: bool,
    overdue: usize,
    is_bad: bool,
    /// To be asked for by number, earliest first.
    next_look: Option<Instant>,
    /// Kept and not listed.
    unlisted: usize,
    /// The newest that is kept and was never read back or looked at.
    newest: Option<FragmentId>,
    /// Likewise, those that were kept since the last sample, and those of the last whole minute, with their minutes.
    samples: Vec<(FragmentId, Minute, bool)>,
    /// When something becomes overdue, is given up, or weighs no more.
    changes_at: Option<Instant>,
    /// To be waited for at a stop.
    unproven: usize,
}

impl Schedule {
    pub fn new(config: ProofConfig, now: Instant) -> Self {
        let line = || Line {
            backoff: Backoff::new(config.first_delay, config.longest_delay, config.first_look),
            rest_until: None,
            failure: None,
        };
        Self {
            settled_to: None,
            fetches: Fetches::default(),
            asking: None,
            sampled_at: None,
            next_again: now + config.again_every,
            again: None,
            budget: config.read_back_per_hour.map(|per_hour| Budget::new(per_hour, now)),
            next_sample: now + config.sample_every.min(config.first_look),
            next_list: now + config.list_every.min(config.first_look),
            listed_to_ms: None,
            fetching: line(),
            listing: line(),
            last_kept: None,
            others: OthersCounts::default(),
            misdescribed: None,
            stop: None,
            view: View { stale: true, ..View::default() },
            config,
        }
    }

    /// What happened to the fragments since the last call. Returns true if KVS keeps footage again after a pause.
    pub fn follow(&mut self, read: Read<'_>) -> bool {
        let mut after_a_pause = false;
        self.view.stale |= read.missed > 0;
        for entry in read.entries {
            self.view.stale |= !matches!(entry.change, Change::Begun | Change::Complete(_));
            if matches!(entry.change, Change::Persisted { .. }) {
                let last = self.last_kept.replace(entry.at);
                let pause = |last| entry.at.saturating_duration_since(last) >= self.config.look_again;
                after_a_pause |= last.is_none_or(pause);
            }
        }
        if after_a_pause {
            self.fetching.kept();
            self.listing.kept();
        }
        after_a_pause
    }

    /// What to ask now; `None` while a question is open. `random` from 0 to below 1 chooses samples.
    pub fn next_ask(&mut self, ledger: &mut Ledger, random: f64, now: Instant) -> Option<Ask> {
        if self.config.mode == ProofMode::Off || self.asking.is_some() {
            return None;
        }
        self.look_through(ledger, now);
        if self.fetching.is_free(now) {
            if self.fetches.is_empty() {
                self.plan_fetches(ledger, random, now);
            }
            if let Some(numbers) = self.fetches.next_batch() {
                self.asking = Some(Asking { since: now, span: None });
                return Some(Ask::Fetch(numbers));
            }
        }
        if self.listing.is_free(now) && now >= self.next_list && self.view.unlisted > 0 {
            let behind = |ms: &u64| self.listed_to_ms.is_none_or(|to_ms| *ms > to_ms);
            let times = self.to_list(ledger, now).filter(behind);
            if let Some(span) = Span::of(times, self.config.span) {
                self.asking = Some(Asking { since: now, span: Some(span) });
                return Some(Ask::List(span));
            }
            self.end_of_lists(now);
        }
        None
    }

    /// When [`next_ask`](Self::next_ask) or [`verdict`](Self::verdict) may return something else, as far as time decides.
    pub fn next_deadline(&self) -> Option<Instant> {
        let mut times = vec![self.view.changes_at, self.stop.map(|stop| stop.by)];
        if self.asking.is_none() {
            let sample = Some(self.next_sample).filter(|_| self.can_sample());
            let waiting = self.fetching.rest_until.filter(|_| !self.fetches.is_empty());
            let affordable = self.budget.as_ref().map(|budget| budget.ready_at(1));
            let look = self.view.next_look.map(|at| affordable.map_or(at, |affordable| at.max(affordable)));
            let fetches = [look, sample].map(|at| at.map(|at| self.fetching.at(at)));
            let again = Some(self.next_again).filter(|_| self.can_look_again());
            times.push(again.map(|at| self.fetching.at(at)));
            let list = Some(self.listing.at(self.next_list)).filter(|_| self.view.unlisted > 0);
            times.extend([waiting, list]);
            times.extend(fetches);
        }
        times.into_iter().flatten().min()
    }

    /// A chunk of the lasting GetMedia.
    pub fn read_live(&mut self, ledger: &mut Ledger, chunk: &Chunk, now: Instant) -> Option<Finding> {
        let finding = verify::note(ledger, chunk, Answer::GetMedia, None, now);
        self.found(finding.as_ref(), now);
        finding
    }

    /// The answer to [`Ask::Fetch`].
    pub fn fetched(
        &mut self,
        ledger: &mut Ledger,
        fetched: &Fetched,
        random: f64,
        now: Instant,
    ) -> Vec<Finding> {
        let since = self.asking.take().map_or(now, |asking| asking.since);
        let mut findings = Vec::new();
        let bytes = fetched.chunks.iter().filter_map(|chunk| Some(chunk.cluster.as_ref()?.bytes)).sum();
        self.read(bytes, now);
        for chunk in &fetched.chunks {
            let asked = chunk.start.number.and_then(|number| self.fetches.id(number));
            let finding = verify::note(ledger, chunk, Answer::FragmentList, asked, now);
            self.found(finding.as_ref(), now);
            findings.extend(finding);
        }
        let asked: Vec<_> = self.fetches.asked().collect();
        let answered = self.fetches.answered(fetched);
        // Whoever could not ask has not looked.
        if fetched.failure.as_ref().is_none_or(ReadFailure::is_about_fragments) {
            asked.into_iter().for_each(|id| ledger.looked(id, since));
        }
        let again = self.again.take();
        for id in answered.absent {
            if again == Some(id) {
                ledger.gone(id, now);
            } else if ledger.get(id).is_some_and(|record| self.is_late(record, since)) {
                ledger.missing(id, now);
            }
        }
        let failure = fetched.failure.as_ref();
        if again.and_then(|id| ledger.get(id)).is_some_and(Record::is_bad) {
            // It is to be followed again.
            self.settled_to = None;
        }
        // A fragment that is refused is a finding about that fragment.
        let failure = failure.filter(|failure| failure.kind != ReadFailureKind::Refused);
        self.fetching.answered(&self.config, failure, random, now);
        self.view.stale = true;
        findings
    }

    /// The answer to [`Ask::List`].
    pub fn listed(
        &mut self,
        ledger: &mut Ledger,
        rows: Result<Vec<Fragment>, ReadFailure>,
        random: f64,
        now: Instant,
    ) {
        let Some(Asking { since, span: Some(span) }) = self.asking.take() else { return };
        self.view.stale = true;
        let rows = match rows {
            Ok(rows) => rows,
            Err(failure) => {
                self.listed_to_ms = None;
                return self.listing.answered(&self.config, Some(&failure), random, now);
            }
        };
        self.listing.answered(&self.config, None, random, now);
        let listing = Listing::new(rows);
        let asked = |record: &&Record| span.contains(record.timecode.as_millis());
        let seconds: Vec<_> = ledger
            .records_after(self.settled_to)
            .filter(|record| asked(record) && record.is_kept())
            .filter_map(|record| Some((record.id, listing.second(record)?)))
            .collect();
        seconds.into_iter().for_each(|(id, second)| ledger.duplicate(id, second, now));
        let judged: Vec<_> = ledger
            .records_after(self.settled_to)
            .filter(|record| asked(record) && self.wants_list(record, now))
            .map(|record| (record.id, listing.judge(record), self.is_late(record, since)))
            .collect();
        for (id, listed, late) in judged {
            match listed {
                Listed::AsSent(number) => ledger.listed(id, number, now),
                Listed::Misstated(misstated) => ledger.misstated(id, misstated, now),
                // Listing trails the ack by about a second; only what is late is called missing.
                Listed::Absent if late => ledger.missing(id, now),
                Listed::Absent => {}
            }
        }
        self.listed_to_ms = Some(span.to_ms);
        let more = self.to_list(ledger, now).any(|ms| ms > span.to_ms);
        if !more {
            self.end_of_lists(now);
        }
    }

    /// The upload is over: what can still be proven within the time is.
    pub fn stop(&mut self, grace: Duration, now: Instant) {
        let by = now + grace.min(self.config.stop_limit);
        self.stop.get_or_insert(Stop { since: now, by });
        (self.next_list, self.listed_to_ms) = (now, None);
        self.view.stale = true;
    }

    /// True once a stop has nothing more to wait for, or no more time.
    pub fn is_done(&mut self, ledger: &mut Ledger, now: Instant) -> bool {
        let Some(stop) = self.stop else { return false };
        self.look_through(ledger, now);
        now >= stop.by
            || self.config.mode == ProofMode::Off
            || self.asking.is_none() && self.view.unproven == 0
    }

    pub fn verdict(&mut self, ledger: &mut Ledger, now: Instant) -> Verdict {
        if self.config.mode == ProofMode::Off {
            return Verdict::Unknown;
        }
        self.look_through(ledger, now);
        let weighs = |(_, at): (u64, Instant)| now.saturating_duration_since(at) < self.config.memory;
        if self.view.is_bad || self.misdescribed.is_some_and(weighs) {
            Verdict::Mismatch
        } else if ledger.gaps_within(self.config.memory, now) > 0 {
            Verdict::Gap
        } else if self.view.overdue > 0 {
            Verdict::Late
        } else if ledger.counts().identical > 0 {
            Verdict::Ok
        } else {
            Verdict::Unknown
        }
    }

    /// Fragments that should have been read back by now.
    pub fn overdue(&self) -> usize {
        self.view.overdue
    }

    pub fn others(&self) -> OthersCounts {
        self.others
    }

    /// Why the archive cannot be asked, as of the last attempt.
    pub fn failure(&self) -> Option<&ReadFailure> {
        self.fetching.failure.as_ref().or(self.listing.failure.as_ref())
    }

    /// Where the lasting GetMedia begins: with the oldest fragment that is still to be read back.
    pub fn read_from_ms(&self, ledger: &Ledger) -> Option<u64> {
        let open = |record: &&Record| {
            record.times.identical.is_none() && !record.is_bad() && !matches!(record.stage, Stage::Lost(_))
        };
        ledger.records_after(self.settled_to).find(open).map(|record| record.timecode.as_millis())
    }

    fn found(&mut self, finding: Option<&Finding>, now: Instant) {
        match finding {
            Some(Finding::SelfDescribed { timecode_ms }) => {
                self.others.self_described += 1;
                self.misdescribed = self.misdescribed.filter(|(ms, _)| ms != timecode_ms);
            }
            Some(Finding::Misdescribed(mismatch)) => {
                self.others.misdescribed += 1;
                self.misdescribed = Some((mismatch.timecode_ms, now));
            }
            Some(Finding::Foreign { .. }) => self.others.foreign += 1,
            Some(Finding::Again(_)) | None => return,
            Some(_) => {}
        }
        self.view.stale = true;
    }

    /// Whether so many bytes may be read back now.
    pub fn may_read(&mut self, bytes: u64, now: Instant) -> bool {
        self.budget.as_mut().is_none_or(|budget| budget.allows(bytes, now))
    }

    /// When so many may be.
    pub fn may_read_at(&self, bytes: u64, now: Instant) -> Instant {
        self.budget.as_ref().map_or(now, |budget| budget.ready_at(bytes))
    }

    /// So many bytes were read back.
    pub fn read(&mut self, bytes: u64, now: Instant) {
        self.budget.iter_mut().for_each(|budget| budget.spend(bytes, now));
    }

    /// KVS has kept footage so lately that there is a live edge.
    pub fn is_live(&self, now: Instant) -> bool {
        self.last_kept.is_some_and(|at| now.saturating_duration_since(at) < self.config.late_after)
    }

    /// The next list begins at the front again.
    fn end_of_lists(&mut self, now: Instant) {
        let every = if self.stop.is_some() { self.config.first_delay } else { self.config.list_every };
        self.next_list = now + every.min(self.config.list_every);
        self.listed_to_ms = None;
    }

    fn to_list<'a>(&'a self, ledger: &'a Ledger, now: Instant) -> impl Iterator<Item = u64> + Clone + 'a {
        let times: Vec<_> = ledger
            .records_after(self.settled_to)
            .filter(|record| self.wants_list(record, now))
            .map(|record| record.timecode.as_millis())
            .collect();
        times.into_iter()
    }

    fn wants_list(&self, record: &Record, now: Instant) -> bool {
        record.is_kept() && record.times.listed.is_none() && !self.is_too_old(record, now)
    }

    fn wants_bytes(&self, record: &Record) -> bool {
        let all = self.config.mode == ProofMode::Continuous || record.times.looked.is_some();
        record.is_kept() && record.stage != Stage::Identical && (all || record.is_bad())
    }

    fn late_at(&self, record: &Record) -> Option<Instant> {
        record.times.persisted.map(|at| at + self.config.late_after)
    }

    fn is_late(&self, record: &Record, now: Instant) -> bool {
        self.late_at(record).is_some_and(|at| at <= now)
    }

    /// Even the shortest retention kept it until then.
    fn too_old_at(&self, record: &Record) -> Option<Instant> {
        record.times.persisted.map(|at| at + self.config.ask_for)
    }

    fn is_too_old(&self, record: &Record, now: Instant) -> bool {
        self.too_old_at(record).is_some_and(|at| at <= now)
    }

    /// When it is asked for by its number.
    fn look_at(&self, record: &Record) -> Option<Instant> {
        let persisted = record.times.persisted.filter(|_| self.wants_bytes(record))?;
        record.number?;
        // Each wait is as long as the fragment was old at the look before.
        let again = record
            .times
            .looked
            .map(|looked| looked + looked.saturating_duration_since(persisted).max(self.config.look_again));
        let doubted = record.times.doubted.filter(|_| record.is_bad());
        let at = match (doubted, again) {
            (Some(doubted), _) if record.times.looked.is_none_or(|looked| looked < doubted) => {
                // Not at once: whoever watches shall see it.
                doubted + self.config.look_again
            }
            (_, Some(again)) => again.max(persisted + self.config.late_after),
            (_, None) => persisted + self.config.late_after,
        };
        // At a stop there is no time to wait for the lasting answer; once is enough then.
        let Some(stop) = self.stop else { return Some(at) };
        let last = stop.since + self.config.stop_patience;
        let looked = record.times.looked.is_some_and(|looked| looked >= stop.since);
        (!looked || !record.is_bad()).then(|| {
            let soon = record.times.looked.filter(|_| looked).map(|looked| looked + self.config.first_delay);
            at.min(soon.unwrap_or(last).max(last))
        })
    }

    fn look_through(&mut self, ledger: &mut Ledger, now: Instant) {
        let changed = self.view.stale || self.view.changes_at.is_some_and(|at| at <= now);
        if !changed {
            return;
        }
        let mut view = View::default();
        let mut given_up = Vec::new();
        let mut settled = true;
        for record in ledger.records_after(self.settled_to) {
            let open = self.look_into(record, &mut view, &mut given_up, now);
            settled &= !open;
            if settled {
                self.settled_to = Some(record.id);
            }
        }
        self.view = view;
        for id in given_up {
            ledger.unproven(id, now);
        }
    }

    /// Adds one fragment to the view; false if nothing is to be asked about it any more.
    fn look_into(
        &self,
        record: &Record,
        view: &mut View,
        given_up: &mut Vec<FragmentId>,
        now: Instant,
    ) -> bool {
        if matches!(record.stage, Stage::Lost(_)) {
            return false;
        }
        if !record.is_kept() {
            return true;
        }
        let mut wakes = |at: Option<Instant>| {
            view.changes_at = [view.changes_at, at.filter(|at| *at > now)].into_iter().flatten().min();
        };
        let forgiven_at = record.times.doubted.filter(|_| record.is_bad()).map(|at| at + self.config.memory);
        let weighs = forgiven_at.is_some_and(|at| at > now);
        wakes(forgiven_at);
        view.is_bad |= weighs;
        let (bytes, list) = (self.wants_bytes(record), record.times.listed.is_none());
        if !bytes && !list {
            return weighs;
        }
        if self.is_too_old(record, now) {
            given_up.extend((!record.is_bad()).then_some(record.id));
            return weighs;
        }
        wakes(self.too_old_at(record));
        wakes(self.late_at(record).filter(|_| bytes));
        view.overdue += usize::from(bytes && !record.is_bad() && self.is_late(record, now));
        view.unlisted += usize::from(list);
        if record.times.identical.is_none() && record.times.looked.is_none() && record.number.is_some() {
            view.newest = Some(record.id);
            let is_new = record.times.persisted > self.sampled_at;
            let minute = minute_of(record);
            // Those of older minutes are chosen no more.
            view.samples.retain(|(_, before, is_new)| *is_new || minute.since(*before) <= 1);
            view.samples.push((record.id, minute, is_new));
        }
        view.next_look = [view.next_look, self.look_at(record)].into_iter().flatten().min();
        let seen = |stop: Stop| record.times.looked.is_some_and(|looked| looked >= stop.since);
        let waits = !record.is_bad() || !self.stop.is_some_and(seen);
        view.unproven += usize::from(waits);
        true
    }
}

fn minute_of(record: &Record) -> Minute {
    Minute::of(record.timecode.as_millis())
}

impl Line {
    fn is_free(&self, now: Instant) -> bool {
        self.rest_until.is_none_or(|until| now >= until)
    }

    fn at(&self, at: Instant) -> Instant {
        self.rest_until.map_or(at, |until| until.max(at))
    }

    /// Whatever failed while nothing was kept is tried again at once, except what only others can change.
    fn kept(&mut self) {
        let held = |failure: &ReadFailure| failure.kind == ReadFailureKind::Operator;
        if !self.failure.as_ref().is_some_and(held) {
            self.rest_until = None;
        }
    }

    fn answered(&mut self, config: &ProofConfig, failure: Option<&ReadFailure>, random: f64, now: Instant) {
        self.failure = failure.cloned();
        let Some(failure) = failure else {
            self.backoff.up(now);
            self.rest_until = None;
            return;
        };
        let least = match failure.kind {
            ReadFailureKind::Operator => config.operator_delay,
            ReadFailureKind::Slower | ReadFailureKind::TooManyReaders => config.slower_delay,
            _ => Duration::ZERO,
        };
        self.rest_until = Some(now + self.backoff.failed(now, random).max(least));
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
