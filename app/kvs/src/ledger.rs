//! The one life of each fragment of a camera, and a log of it that others read.
//!
//! ```text
//!  recorded --complete--> sending --> received --> persisted --> listed --> identical
//!     |                      |            |            |            |
//!     |                      |            |            +- missing <-+   overdue, and not found by a look
//!     |                      |            |            +- corrupt <-+   read back and different
//!     +---------- lost <-----+------------+   window full, refused for good, the stage crashed
//! ```
//!
//! Stages climb; a stage never goes back except when a connection breaks (received or sending again). What ended badly heals
//! when a later look proves it: lost, missing and corrupt fragments that are found identical are identical. Listed and
//! identical are two kinds of evidence and come in either order. Duplicate is a mark beside the life: KVS holds it twice.
//!
//! Whoever wants to know what happened (proof, events, messages) holds a [`Cursor`] and reads the log at its own pace. The
//! log is bounded; a reader that fell behind is told how many entries it missed. Nothing in here waits for a reader.

mod gaps;
mod log;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, Instant};

use media::ProducerTimestamp;

use crate::ack::AckError;
use crate::fragmenter::FragmentSummary;
use crate::proof::listing::Misstated;
use crate::proof::verify::Mismatch;
use crate::{FragmentId, FragmentNumber};

pub use gaps::Gap;
pub use log::{Cursor, Read};

/// How much is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerLimits {
    /// Fragments; beyond it the oldest whose life is over goes, and if there is none, the oldest.
    pub fragments: usize,
    /// Entries of the log.
    pub log: usize,
    /// Gaps with their times; older ones are only counted.
    pub gaps: usize,
}

impl Default for LedgerLimits {
    /// An hour and more of fragments of two seconds.
    fn default() -> Self {
        Self { fragments: 4096, log: 8192, gaps: 256 }
    }
}

/// Where a fragment stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It grows, or is complete and waits for its turn.
    Recorded,
    /// A session has begun to send it.
    Sending,
    /// KVS has all of it and has not kept it yet.
    Received,
    /// KVS keeps it, by its ack or by a look.
    Persisted,
    /// ListFragments names it as it was sent.
    Listed,
    /// It was read back and is equal byte for byte.
    Identical,
    /// It is not in KVS and never will be: a gap.
    Lost(LossReason),
    /// KVS said that it keeps it, and it is not there.
    Missing,
    /// It was read back and is different.
    Corrupt(Mismatch),
}

/// Why a fragment will never be in KVS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LossReason {
    #[error("the memory window was full while KVS could not be reached")]
    WindowFull,
    #[error("the spool on disk was full, or it waited there too long, while KVS could not be reached")]
    SpoolFull,
    #[error("the disk did not return it as it was written")]
    SpoolDamaged,
    #[error("refused for good: {0}")]
    Refused(AckError),
    #[error("the upload crashed while it held this fragment")]
    Crashed,
    #[error("the daemon stopped before it was confirmed")]
    Stopped,
}

/// One fragment.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub id: FragmentId,
    pub timecode: ProducerTimestamp,
    /// What was put into it; absent while it grows.
    pub summary: Option<FragmentSummary>,
    pub stage: Stage,
    /// What KVS calls it, as soon as any ack or look says so.
    pub number: Option<FragmentNumber>,
    /// Another number under which KVS holds it too.
    pub duplicate: Option<FragmentNumber>,
    /// ListFragments states it otherwise than it was sent.
    pub misstated: Option<Misstated>,
    /// It can no longer be proven: nobody asks for it any more.
    pub unproven: bool,
    pub times: Times,
    /// It was read back before KVS said that it keeps it.
    early: Option<ReadBack>,
}

/// What reading a fragment back has shown. KVS hands a fragment out live that it may still fail to keep.
#[derive(Clone, Debug, PartialEq)]
struct ReadBack {
    number: Option<FragmentNumber>,
    at: Instant,
    mismatch: Option<Mismatch>,
}

/// When a fragment reached each rung; absent where it did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    pub begun: Instant,
    pub complete: Option<Instant>,
    /// All its bytes were handed to the connection.
    pub sent: Option<Instant>,
    /// Its acks, the first of each kind.
    pub buffering: Option<Instant>,
    pub received: Option<Instant>,
    pub persisted: Option<Instant>,
    pub listed: Option<Instant>,
    pub identical: Option<Instant>,
    /// Found missing, corrupt or misstated, for the first time.
    pub doubted: Option<Instant>,
    /// It was last asked for by its number.
    pub looked: Option<Instant>,
}

impl Record {
    /// Time of its last block, as far as it is known.
    pub fn end(&self) -> ProducerTimestamp {
        self.summary.as_ref().map_or(self.timecode, FragmentSummary::end)
    }

    /// Nothing more is to be sent of it.
    pub fn is_settled(&self) -> bool {
        !matches!(self.stage, Stage::Recorded | Stage::Sending | Stage::Received)
    }

    /// What was found of it is not what was sent.
    pub fn is_bad(&self) -> bool {
        matches!(self.stage, Stage::Missing | Stage::Corrupt(_)) || self.misstated.is_some()
    }

    /// KVS has said that it keeps it, whatever was found since.
    pub fn is_kept(&self) -> bool {
        self.times.persisted.is_some()
    }
}

/// Something that happened to a fragment.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub id: FragmentId,
    pub timecode: ProducerTimestamp,
    pub at: Instant,
    pub change: Change,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It begins; its bytes are on their way.
    Begun,
    Complete(FragmentSummary),
    /// With what it was called from the last byte sent to the ack.
    Persisted {
        number: Option<FragmentNumber>,
        end: ProducerTimestamp,
    },
    Listed,
    /// `delay`: from its completion to the last byte read back.
    Identical {
        delay: Duration,
        healed: bool,
    },
    Lost {
        end: ProducerTimestamp,
        reason: LossReason,
    },
    Missing,
    Corrupt(Mismatch),
    /// ListFragments states it otherwise.
    Misstated(Misstated),
    /// KVS holds it under this number too.
    Duplicate(FragmentNumber),
    /// It had to be forgotten or given up before its proof was complete.
    Unproven,
}

/// Numbers of fragments. Those of stages count what ever reached them; `missing`, `corrupt` and `misstated` what is so now, one
/// that is misstated and something else in both, and `bad` all of these, each once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub begun: u64,
    pub complete: u64,
    pub persisted: u64,
    pub listed: u64,
    /// Late and healed ones included.
    pub identical: u64,
    /// Of these, those that had been found missing or corrupt before.
    pub healed: u64,
    pub lost: u64,
    pub missing: u64,
    pub corrupt: u64,
    pub misstated: u64,
    pub bad: u64,
    pub duplicate: u64,
    /// Forgotten or given up before their proof was complete.
    pub unproven: u64,
}

/// The fragments of one camera, oldest first.
#[derive(Debug)]
pub struct Ledger {
    limits: LedgerLimits,
    records: BTreeMap<FragmentId, Record>,
    /// The newest fragment of each timecode.
    by_timecode: BTreeMap<u64, FragmentId>,
    counts: Counts,
    gaps: gaps::Gaps,
    log: log::Log,
}

impl Ledger {
    pub fn new(limits: LedgerLimits) -> Self {
        Self {
            limits,
            records: BTreeMap::new(),
            by_timecode: BTreeMap::new(),
            counts: Counts::default(),
            gaps: gaps::Gaps::new(limits.gaps),
            log: log::Log::new(limits.log),
        }
    }

    /// A fragment begins to grow. Each name begins once; again is no change.
    pub fn begin(&mut self, id: FragmentId, timecode: ProducerTimestamp, now: Instant) {
        if self.records.contains_key(&id) {
            return;
        }
        let times = Times {
            begun: now,
            complete: None,
            sent: None,
            buffering: None,
            received: None,
            persisted: None,
            listed: None,
            identical: None,
            doubted: None,
            looked: None,
        };
        let record = Record {
            id,
            timecode,
            summary: None,
            stage: Stage::Recorded,
            number: None,
            duplicate: None,
            misstated: None,
            unproven: false,
            times,
            early: None,
        };
        self.records.insert(id, record);
        self.by_timecode.insert(timecode.as_millis(), id);
        self.counts.begun += 1;
        self.tell(id, timecode, now, Change::Begun);
        self.forget();
    }

    /// All of it is known. One that was not begun (a reader of another's footage) begins now.
    pub fn complete(&mut self, summary: FragmentSummary, now: Instant) {
        self.begin(summary.id, summary.timecode, now);
        let Some(record) = self.records.get_mut(&summary.id).filter(|record| record.summary.is_none()) else {
            return;
        };
        record.times.complete = Some(now);
        record.summary = Some(summary.clone());
        let (id, timecode) = (record.id, record.timecode);
        self.counts.complete += 1;
        self.tell(id, timecode, now, Change::Complete(summary));
    }

    /// A fragment is complete that was recorded without a clock: it is counted, and begins once it has its time and is
    /// [recalled](Self::recall).
    pub fn complete_undated(&mut self) {
        self.counts.begun += 1;
        self.counts.complete += 1;
    }

    /// Such a fragment is lost, and nobody knows of when it was.
    pub fn lost_undated(&mut self) {
        self.counts.lost += 1;
    }

    /// A session begins to send it, for the first time or again.
    pub fn sending(&mut self, id: FragmentId) {
        self.climb(id, Stage::Sending);
    }

    /// Its last byte was handed to the connection.
    pub fn sent(&mut self, id: FragmentId, now: Instant) {
        if let Some(record) = self.records.get_mut(&id) {
            record.times.sent = Some(now);
        }
    }

    /// KVS has begun to take it.
    pub fn buffering(&mut self, id: FragmentId, now: Instant) {
        if let Some(record) = self.records.get_mut(&id) {
            record.times.buffering.get_or_insert(now);
        }
    }

    /// KVS has received all of it.
    pub fn received(&mut self, id: FragmentId, number: Option<FragmentNumber>, now: Instant) {
        self.climb(id, Stage::Received);
        if let Some(record) = self.records.get_mut(&id) {
            record.number = number.or(record.number);
            record.times.received.get_or_insert(now);
        }
    }

    /// Its connection broke: what was not persisted may be there or not.
    pub fn interrupted(&mut self, id: FragmentId) {
        if let Some(record) = self.records.get_mut(&id)
            && matches!(record.stage, Stage::Sending | Stage::Received)
        {
            record.stage = Stage::Recorded;
            record.times.sent = None;
        }
    }

    /// KVS keeps it: by its ack, or because it was found there. One that was given up is not lost after all.
    pub fn persisted(&mut self, id: FragmentId, number: Option<FragmentNumber>, now: Instant) {
        let Some(record) = self.records.get_mut(&id) else { return };
        record.number = number.or(record.number);
        if record.times.persisted.is_some() {
            return;
        }
        record.times.persisted = Some(now);
        let was_lost = matches!(record.stage, Stage::Lost(_));
        if was_lost || !record.is_settled() {
            record.stage = Stage::Persisted;
        }
        let (timecode, end, number) = (record.timecode, record.end(), record.number);
        if was_lost {
            self.counts.lost -= 1;
            self.gaps.heal(timecode);
        }
        self.counts.persisted += 1;
        self.gaps.persisted(timecode);
        self.tell(id, timecode, now, Change::Persisted { number, end });
        let early = self.records.get_mut(&id).and_then(|record| record.early.take());
        // What was shown under another number is not what is kept.
        let same = |read: &ReadBack| read.number.is_none() || number.is_none() || read.number == number;
        match early.filter(same) {
            Some(ReadBack { mismatch: Some(mismatch), at, .. }) => self.corrupt(id, number, mismatch, at),
            Some(ReadBack { at, .. }) => self.identical(id, number, at),
            None => {}
        }
    }

    /// ListFragments names it with the number, size, length and times that were sent.
    pub fn listed(&mut self, id: FragmentId, number: FragmentNumber, now: Instant) {
        let Some(record) = self.records.get_mut(&id).filter(|record| record.times.listed.is_none()) else {
            return;
        };
        let was_bad = record.is_bad();
        record.times.listed = Some(now);
        record.number.get_or_insert(number);
        let misstated = record.misstated.take().is_some();
        let missing = record.stage == Stage::Missing;
        let identical = record.times.identical.is_some();
        match record.stage {
            Stage::Missing if identical => record.stage = Stage::Identical,
            Stage::Persisted | Stage::Missing => record.stage = Stage::Listed,
            _ => {}
        }
        let (timecode, is_bad) = (record.timecode, record.is_bad());
        self.count_bad(was_bad, is_bad);
        self.counts.missing -= u64::from(missing);
        self.counts.misstated -= u64::from(misstated);
        self.counts.healed += u64::from(missing && identical);
        self.counts.listed += 1;
        self.tell(id, timecode, now, Change::Listed);
    }

    /// ListFragments states it otherwise than it was sent. It heals when a later list names it rightly.
    pub fn misstated(&mut self, id: FragmentId, misstated: Misstated, now: Instant) {
        let Some(record) = self.records.get_mut(&id) else { return };
        if record.times.listed.is_some() || record.misstated.as_ref() == Some(&misstated) {
            return;
        }
        record.times.doubted.get_or_insert(now);
        let was_bad = record.is_bad();
        let first = record.misstated.replace(misstated.clone()).is_none();
        let timecode = record.timecode;
        self.count_bad(was_bad, true);
        self.counts.misstated += u64::from(first);
        self.tell(id, timecode, now, Change::Misstated(misstated));
    }

    /// It was read back and is equal, byte for byte. The first time counts, and only once KVS keeps it.
    pub fn identical(&mut self, id: FragmentId, number: Option<FragmentNumber>, now: Instant) {
        let Some(record) = self.records.get_mut(&id).filter(|record| record.stage != Stage::Identical) else {
            return;
        };
        if !record.is_kept() {
            record.early = Some(ReadBack { number, at: now, mismatch: None });
            return;
        }
        let (first, was_bad) = (record.times.identical.is_none(), record.is_bad());
        record.times.identical.get_or_insert(now);
        record.number = record.number.or(number);
        let before = std::mem::replace(&mut record.stage, Stage::Identical);
        let healed = record.times.doubted.is_some();
        let since = record.times.complete.unwrap_or(record.times.begun);
        let delay = now.saturating_duration_since(since);
        let (timecode, is_bad) = (record.timecode, record.is_bad());
        self.count_bad(was_bad, is_bad);
        self.uncount(&before, true);
        self.counts.identical += u64::from(first);
        self.counts.healed += u64::from(healed);
        self.tell(id, timecode, now, Change::Identical { delay, healed });
    }

    /// It was read back and is different. What was proven once stays proven; it counts once KVS keeps it.
    pub fn corrupt(
        &mut self,
        id: FragmentId,
        number: Option<FragmentNumber>,
        mismatch: Mismatch,
        now: Instant,
    ) {
        let Some(record) = self.records.get_mut(&id) else { return };
        if !record.is_kept() {
            record.early = Some(ReadBack { number, at: now, mismatch: Some(mismatch) });
            return;
        }
        if matches!(record.stage, Stage::Identical | Stage::Corrupt(_)) {
            return;
        }
        record.times.doubted.get_or_insert(now);
        let was_bad = record.is_bad();
        let before = std::mem::replace(&mut record.stage, Stage::Corrupt(mismatch.clone()));
        let timecode = record.timecode;
        self.count_bad(was_bad, true);
        self.uncount(&before, true);
        self.counts.corrupt += 1;
        self.tell(id, timecode, now, Change::Corrupt(mismatch));
    }

    /// Likewise, although it may have been proven before: it was damaged since.
    pub fn spoiled(
        &mut self,
        id: FragmentId,
        number: Option<FragmentNumber>,
        mismatch: Mismatch,
        now: Instant,
    ) {
        self.doubt_proven(id);
        self.corrupt(id, number, mismatch, now);
    }

    /// It is not to be found, although it may have been proven before: it was removed since.
    pub fn gone(&mut self, id: FragmentId, now: Instant) {
        self.doubt_proven(id);
        self.missing(id, now);
    }

    fn doubt_proven(&mut self, id: FragmentId) {
        if let Some(record) = self.records.get_mut(&id)
            && record.stage == Stage::Identical
        {
            record.stage = if record.times.listed.is_some() { Stage::Listed } else { Stage::Persisted };
        }
    }

    /// KVS said that it keeps it, and looks do not find it. One that was read back and never listed may have gone since.
    pub fn missing(&mut self, id: FragmentId, now: Instant) {
        let Some(record) = self.records.get_mut(&id) else { return };
        let unlisted = record.times.listed.is_none();
        match record.stage {
            Stage::Persisted | Stage::Listed => {}
            Stage::Identical if unlisted => {}
            _ => return,
        }
        record.times.doubted.get_or_insert(now);
        let was_bad = record.is_bad();
        record.stage = Stage::Missing;
        let timecode = record.timecode;
        self.count_bad(was_bad, true);
        self.counts.missing += 1;
        self.tell(id, timecode, now, Change::Missing);
    }

    /// KVS holds it under `second` too, beside the number of its ack. Told once.
    pub fn duplicate(&mut self, id: FragmentId, second: FragmentNumber, now: Instant) {
        let fresh = |record: &&mut Record| record.duplicate.is_none() && record.number != Some(second);
        let Some(record) = self.records.get_mut(&id).filter(fresh) else { return };
        record.duplicate = Some(second);
        let timecode = record.timecode;
        self.counts.duplicate += 1;
        self.tell(id, timecode, now, Change::Duplicate(second));
    }

    /// It is asked for by its number.
    pub fn looked(&mut self, id: FragmentId, now: Instant) {
        if let Some(record) = self.records.get_mut(&id) {
            record.times.looked = Some(now);
        }
    }

    /// Its proof was not complete in time, and nobody asks for it any more. Told once.
    pub fn unproven(&mut self, id: FragmentId, now: Instant) {
        let Some(record) = self.records.get_mut(&id).filter(|record| !record.unproven) else { return };
        record.unproven = true;
        let timecode = record.timecode;
        self.counts.unproven += 1;
        self.tell(id, timecode, now, Change::Unproven);
    }

    /// It will never be there; `end` is the time of its last block, as far as it is known.
    pub fn lost(&mut self, id: FragmentId, end: ProducerTimestamp, reason: LossReason, now: Instant) {
        self.lost_because(id, end, reason, None, now);
    }

    /// Likewise; `because` says what lies behind the reason, such as why KVS could not be reached.
    pub fn lost_because(
        &mut self,
        id: FragmentId,
        end: ProducerTimestamp,
        reason: LossReason,
        because: Option<&str>,
        now: Instant,
    ) {
        let Some(record) = self.records.get_mut(&id).filter(|record| !record.is_settled()) else { return };
        record.stage = Stage::Lost(reason.clone());
        let (timecode, end) = (record.timecode, end.max(record.end()));
        self.counts.lost += 1;
        self.gaps.lost(timecode, end, reason.clone(), because, now);
        self.tell(id, timecode, now, Change::Lost { end, reason });
    }

    /// It waits on disk, and need not be remembered here until it is [recalled](Self::recall).
    pub fn shelve(&mut self, id: FragmentId) {
        let Some(record) = self.records.get(&id).filter(|record| record.stage == Stage::Recorded) else {
            return;
        };
        let timecode_ms = record.timecode.as_millis();
        self.records.remove(&id);
        if self.by_timecode.get(&timecode_ms) == Some(&id) {
            self.by_timecode.remove(&timecode_ms);
        }
    }

    /// It comes back from the disk. `counted`: it was complete in this life before, and is not counted again.
    pub fn recall(&mut self, summary: FragmentSummary, counted: bool, now: Instant) {
        if self.records.contains_key(&summary.id) {
            return;
        }
        self.complete(summary, now);
        self.counts.begun -= u64::from(counted);
        self.counts.complete -= u64::from(counted);
    }

    /// It waited on disk and is lost there. `counted`: it was complete in this life.
    pub fn lost_on_disk(
        &mut self,
        (id, start): (FragmentId, ProducerTimestamp),
        end: ProducerTimestamp,
        counted: bool,
        reason: LossReason,
        now: Instant,
    ) {
        if !self.records.contains_key(&id) {
            self.begin(id, start, now);
            self.counts.begun -= u64::from(counted);
        }
        self.lost(id, end, reason, now);
    }

    /// Everything that is not settled is lost: whoever held it is no more. Returns how many fragments that are.
    pub fn abandon(&mut self, reason: &LossReason, now: Instant) -> usize {
        self.abandon_but(|_| false, reason, now)
    }

    /// Likewise, but for those that are `kept`.
    pub fn abandon_but(
        &mut self,
        kept: impl Fn(FragmentId) -> bool,
        reason: &LossReason,
        now: Instant,
    ) -> usize {
        let lost = self.unsettled().filter(|record| !kept(record.id));
        let held: Vec<_> = lost.map(|record| (record.id, record.end())).collect();
        for (id, end) in &held {
            self.lost(*id, *end, reason.clone(), now);
        }
        held.len()
    }

    pub fn get(&self, id: FragmentId) -> Option<&Record> {
        self.records.get(&id)
    }

    /// The newest fragment with this timecode.
    pub fn at(&self, timecode_ms: u64) -> Option<&Record> {
        self.records.get(self.by_timecode.get(&timecode_ms)?)
    }

    /// All fragments that are remembered, oldest first.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.records.values()
    }

    /// Those behind `id`, oldest first; all without one.
    pub fn records_after(&self, id: Option<FragmentId>) -> impl DoubleEndedIterator<Item = &Record> {
        let from = id.map_or(Bound::Unbounded, Bound::Excluded);
        self.records.range((from, Bound::Unbounded)).map(|(_, record)| record)
    }

    /// Those of which something is still to be sent, or whose ack is awaited; oldest first.
    pub fn unsettled(&self) -> impl Iterator<Item = &Record> {
        self.records.values().filter(|record| !record.is_settled())
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Lost fragments in a row are one gap. The newest are kept with their times, oldest first.
    pub fn gaps(&self) -> impl DoubleEndedIterator<Item = &Gap> {
        self.gaps.iter()
    }

    /// Gaps that began to be noted less than `within` ago, those that are no longer kept with their times included.
    pub fn gaps_within(&self, within: Duration, now: Instant) -> u64 {
        self.gaps.within(within, now)
    }

    /// A reader of what happens from now on.
    pub fn cursor(&self) -> Cursor {
        self.log.end()
    }

    /// A reader of everything that is still in the log.
    pub fn cursor_at_start(&self) -> Cursor {
        self.log.start()
    }

    /// The entries behind `cursor`, which moves to the end.
    pub fn read(&self, cursor: &mut Cursor) -> Read<'_> {
        self.log.read(cursor)
    }

    fn climb(&mut self, id: FragmentId, stage: Stage) {
        let Some(record) = self.records.get_mut(&id) else { return };
        let rank = |stage: &Stage| match stage {
            Stage::Recorded => 0,
            Stage::Sending => 1,
            Stage::Received => 2,
            _ => 3,
        };
        if rank(&record.stage) < rank(&stage) {
            record.stage = stage;
        }
    }

    fn count_bad(&mut self, before: bool, now: bool) {
        self.counts.bad = self.counts.bad + u64::from(now) - u64::from(before);
    }

    /// What was found wrong is not any more.
    fn uncount(&mut self, before: &Stage, proven: bool) {
        match before {
            Stage::Missing if proven => self.counts.missing -= 1,
            Stage::Corrupt(_) if proven => self.counts.corrupt -= 1,
            _ => {}
        }
    }

    fn tell(&mut self, id: FragmentId, timecode: ProducerTimestamp, at: Instant, change: Change) {
        self.log.push(Entry { id, timecode, at, change });
    }

    /// Makes room: the oldest whose life is over goes first; nothing goes that still has to be sent.
    fn forget(&mut self) {
        while self.records.len() > self.limits.fragments {
            let done = |record: &&Record| matches!(record.stage, Stage::Identical | Stage::Lost(_));
            let settled = |record: &&Record| record.is_settled();
            let records = || self.records.values();
            let Some(oldest) = records().find(done).or_else(|| records().find(settled)) else { return };
            let (id, timecode) = (oldest.id, oldest.timecode);
            let unproven = !done(&oldest) && !oldest.unproven && oldest.times.listed.is_none();
            let at = oldest.times.persisted.unwrap_or(oldest.times.begun);
            self.records.remove(&id);
            if self.by_timecode.get(&timecode.as_millis()) == Some(&id) {
                self.by_timecode.remove(&timecode.as_millis());
            }
            if unproven {
                self.counts.unproven += 1;
                self.tell(id, timecode, at, Change::Unproven);
            }
        }
    }
}

#[cfg(test)]
mod tests;
