//! One stream: its description, its fragments, and who is connected.
//!
//! ```text
//!   begin() -> live --complete, retention > 0--> persist() -> stored on disk --retention--> gone
//!               |  \--complete, retention 0----> keep() ----> stored in memory --5 min----> gone
//!               \--broken or refused--> gone
//! ```
//! The lock is held for look-ups and insertions only, never while a file is touched.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clock::Clock;
use kvs::FragmentNumber;
use kvs::api::{StreamInfo, StreamStatus, seconds};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::footage::{Outline, Player};
use crate::ingest::Shape;
use crate::inspect::SentAck;
use crate::live::Live;
use crate::options::{Limits, Options};
use crate::rate::Rate;
use crate::store::{Disk, FoundStream, FragmentFile, FragmentMeta, StoreError, StreamRecord, save_record};

/// Sequence numbers that a session takes at once; seen as steps of about 1000 between sessions (facts 3.2).
const SEQUENCE_BLOCK: u64 = 1000;
/// Acks kept for inspection; older ones are forgotten.
const ACKS_KEPT: usize = 10_000;

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) name: String,
    pub(crate) arn: String,
    folder: PathBuf,
    disk: Arc<Disk>,
    ready_at: Instant,
    clock: Clock,
    state: Mutex<State>,
    /// Held while `record` is being rewritten on disk.
    editing: tokio::sync::Mutex<()>,
    changed: watch::Sender<()>,
    /// Fires when the stream is deleted.
    pub(crate) deleted: CancellationToken,
    pub(crate) put_media: Slots,
    pub(crate) get_media: Slots,
    pub(crate) fragment_lists: Slots,
    pub(crate) rates: Rates,
    outlines: Mutex<HashMap<(FragmentNumber, Player), Outline>>,
}

/// What all connections to one stream share.
#[derive(Debug)]
pub(crate) struct Rates {
    pub(crate) put_media_bytes: Rate,
    pub(crate) put_media_fragments: Rate,
    pub(crate) metadata_points: Rate,
    pub(crate) media_points: Rate,
}

#[derive(Debug)]
struct State {
    record: StreamRecord,
    stored: BTreeMap<FragmentNumber, Arc<Stored>>,
    live: BTreeMap<FragmentNumber, Arc<Live>>,
    /// Of the fragments in memory.
    memory_bytes: u64,
    /// When the producer last sent a byte.
    last_media: Instant,
    acks: VecDeque<SentAck>,
    /// Replaced when a test ends all GetMedia answers.
    get_media_end: CancellationToken,
}

/// A complete fragment.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) meta: FragmentMeta,
    pub(crate) place: Place,
    /// `None`: before this server started.
    pub(crate) since: Option<Instant>,
}

#[derive(Debug)]
pub(crate) enum Place {
    Disk(FragmentFile),
    /// Header, lead, then the pieces of cluster and trailer.
    Memory(Vec<Bytes>),
}

/// What GetMedia sends next.
#[derive(Clone, Debug)]
pub(crate) enum Available {
    Stored(Arc<Stored>),
    Live(Arc<Live>),
}

impl Available {
    pub(crate) fn number(&self) -> FragmentNumber {
        match self {
            Self::Stored(stored) => stored.meta.number,
            Self::Live(live) => live.number,
        }
    }
}

impl Stream {
    pub(crate) fn create(
        disk: Arc<Disk>,
        record: StreamRecord,
        options: &Options,
        delay: Duration,
    ) -> Result<Self, StoreError> {
        let folder = disk.create_stream(&record)?;
        Ok(Self::new(disk, FoundStream { folder, record, fragments: Vec::new() }, options, delay))
    }

    pub(crate) fn new(disk: Arc<Disk>, found: FoundStream, options: &Options, delay: Duration) -> Self {
        let (limits, clock) = (&options.limits, options.clock.clone());
        let FoundStream { folder, record, fragments } = found;
        let stored = fragments
            .into_iter()
            .map(|(meta, file)| {
                (meta.number, Arc::new(Stored { meta, place: Place::Disk(file), since: None }))
            })
            .collect();
        let now = clock.now();
        Self {
            name: record.name.clone(),
            arn: record.arn.clone(),
            folder,
            disk,
            ready_at: now + delay,
            clock,
            state: Mutex::new(State {
                record,
                stored,
                live: BTreeMap::new(),
                memory_bytes: 0,
                last_media: now,
                acks: VecDeque::new(),
                get_media_end: CancellationToken::new(),
            }),
            editing: tokio::sync::Mutex::default(),
            changed: watch::Sender::new(()),
            deleted: CancellationToken::new(),
            put_media: Slots::new(limits.put_media_per_stream),
            get_media: Slots::new(limits.get_media_per_stream),
            fragment_lists: Slots::new(limits.fragment_list_per_stream),
            rates: Rates {
                put_media_bytes: Rate::new(limits.put_media_bytes_per_second, now),
                put_media_fragments: Rate::new(limits.put_media_fragments_per_second, now),
                metadata_points: Rate::new(limits.metadata_points_per_second, now),
                media_points: Rate::new(limits.media_points_per_second, now),
            },
            outlines: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn record(&self) -> StreamRecord {
        self.state().record.clone()
    }

    pub(crate) fn retention_hours(&self) -> u32 {
        self.state().record.retention_hours
    }

    pub(crate) fn status(&self) -> StreamStatus {
        if self.deleted.is_cancelled() {
            StreamStatus::Deleting
        } else if self.clock.now() < self.ready_at {
            StreamStatus::Creating
        } else {
            StreamStatus::Active
        }
    }

    pub(crate) fn info(&self) -> StreamInfo {
        let record = self.record();
        StreamInfo {
            device_name: record.device_name,
            stream_name: record.name,
            stream_arn: record.arn,
            media_type: record.media_type,
            kms_key_id: record.kms_key_id,
            version: record.version,
            status: self.status(),
            creation_time: seconds(record.created_ms),
            data_retention_in_hours: record.retention_hours,
        }
    }

    /// Changes the description, on disk first.
    pub(crate) async fn edit<T, E: From<StoreError>>(
        &self,
        change: impl FnOnce(&mut StreamRecord) -> Result<T, E>,
    ) -> Result<T, E> {
        let _editing = self.editing.lock().await;
        let mut record = self.record();
        let value = change(&mut record)?;
        let folder = self.folder.clone();
        let record = blocking(move || save_record(&folder, &record).map(|()| record)).await?;
        self.state().record = record;
        Ok(value)
    }

    /// The first of a block of sequence numbers that nobody else gets, even after a crash.
    pub(crate) async fn reserve_sequences(&self) -> Result<std::ops::Range<u64>, StoreError> {
        self.edit(|record| {
            let first = record.next_sequence;
            record.next_sequence += SEQUENCE_BLOCK;
            Ok(first..record.next_sequence)
        })
        .await
    }

    /// Makes the stream unreachable, then removes its data.
    pub(crate) async fn delete(self: &Arc<Self>) -> Result<(), StoreError> {
        self.deleted.cancel();
        self.changed.send_replace(());
        let _editing = self.editing.lock().await;
        let (disk, folder) = (self.disk.clone(), self.folder.clone());
        blocking(move || disk.delete_stream(&folder)).await
    }

    /// The producer sent something, or connected.
    pub(crate) fn touch(&self) {
        let now = self.clock.now();
        self.state().last_media = now;
    }

    pub(crate) fn last_media(&self) -> Instant {
        self.state().last_media
    }

    /// Wakes when a fragment begins, ends, is stored or is lost.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(crate) fn begin(&self, live: Arc<Live>) {
        self.state().live.insert(live.number, live);
        self.changed.send_replace(());
    }

    /// It broke off, or could not be stored.
    pub(crate) fn forget(&self, number: FragmentNumber) {
        self.state().live.remove(&number);
        self.changed.send_replace(());
    }

    /// Retention 0: stays in memory for a while.
    pub(crate) fn keep(&self, live: &Live, shape: Shape, limits: &Limits, now_ms: u64) {
        let meta = live.meta(shape);
        let (place, since) = (Place::Memory(live.parts()), Some(self.clock.now()));
        let stored = Arc::new(Stored { meta: meta.clone(), place, since });
        let mut state = self.state();
        state.live.remove(&meta.number);
        state.memory_bytes += meta.size_bytes();
        state.stored.insert(meta.number, stored);
        state.expire_memory(limits, now_ms);
        drop(state);
        self.changed.send_replace(());
    }

    /// Returns once the fragment is on disk for good. `Ok(false)`: the stream was deleted meanwhile.
    pub(crate) async fn persist(&self, live: &Live, shape: Shape) -> Result<bool, StoreError> {
        let (meta, parts) = (live.meta(shape), live.parts());
        let (disk, folder) = (self.disk.clone(), self.folder.clone());
        let written = blocking(move || {
            let file = disk.write_fragment(&folder, &meta, &parts)?;
            Ok((meta, file))
        })
        .await;
        if self.deleted.is_cancelled() {
            self.forget(live.number);
            return Ok(false);
        }
        match written {
            Ok((meta, file)) => {
                let (place, since) = (Place::Disk(file), Some(self.clock.now()));
                let stored = Stored { meta, place, since };
                let mut state = self.state();
                state.live.remove(&live.number);
                state.stored.insert(live.number, Arc::new(stored));
                drop(state);
                self.changed.send_replace(());
                Ok(true)
            }
            Err(error) => {
                self.forget(live.number);
                Err(error)
            }
        }
    }

    /// Removes what is older than the retention.
    pub(crate) async fn expire(&self, limits: &Limits, now_ms: u64) {
        let mut gone = Vec::new();
        {
            let mut state = self.state();
            state.expire_memory(limits, now_ms);
            let oldest_ms = now_ms.saturating_sub(u64::from(state.record.retention_hours) * 3_600_000);
            let keep_none = state.record.retention_hours == 0;
            state.stored.retain(|_, stored| match &stored.place {
                Place::Disk(file) if keep_none || stored.meta.server_ms() < oldest_ms => {
                    gone.push(file.clone());
                    false
                }
                _ => true,
            });
        }
        if gone.is_empty() {
            return;
        }
        tracing::info!(stream = %self.name, fragments = gone.len(), "retention passed, removed");
        let disk = self.disk.clone();
        blocking(move || gone.iter().for_each(|file| disk.remove_fragment(file))).await;
    }

    /// Removes one fragment. `false`: it was not there.
    pub(crate) async fn remove(&self, number: FragmentNumber) -> bool {
        let Some(stored) = self.state().remove(number) else { return false };
        if let Place::Disk(file) = &stored.place {
            let (disk, file) = (self.disk.clone(), file.clone());
            blocking(move || disk.remove_fragment(&file)).await;
        }
        true
    }

    /// The number of a new fragment. What looks random in the service's numbers says here whose it is, so that numbers
    /// of other streams are told apart from those whose fragment has gone.
    pub(crate) fn fragment_number(&self, sequence: u64, now_ms: u64) -> FragmentNumber {
        let hash = Sha256::new()
            .chain_update(&self.arn)
            .chain_update(sequence.to_be_bytes())
            .chain_update(now_ms.to_be_bytes())
            .finalize();
        let mark = hash.iter().take(4).fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        FragmentNumber::new(sequence, now_ms, mark)
    }

    /// Whether this stream has, or once had, a fragment of this number.
    pub(crate) fn has_given(&self, number: FragmentNumber) -> bool {
        number == self.fragment_number(number.sequence(), number.server_time_ms())
            || self.stored(number).is_some()
    }

    /// In place of the one of this number.
    pub(crate) fn put_instead(&self, stored: Stored) {
        self.state().stored.insert(stored.meta.number, Arc::new(stored));
    }

    pub(crate) fn stored(&self, number: FragmentNumber) -> Option<Arc<Stored>> {
        self.state().stored.get(&number).cloned()
    }

    /// In order of their numbers, those in memory too.
    pub(crate) fn all_stored(&self) -> Vec<Arc<Stored>> {
        self.state().stored.values().cloned().collect()
    }

    /// The first fragment behind `after` (or of all), stored or live, that `wanted` accepts.
    pub(crate) fn next_available(
        &self,
        after: Option<FragmentNumber>,
        wanted: impl Fn(&Available) -> bool,
    ) -> Option<Available> {
        use std::ops::Bound::{Excluded, Unbounded};
        let state = self.state();
        let range = (after.map_or(Unbounded, Excluded), Unbounded);
        let stored = state.stored.range(range).map(|(_, stored)| Available::Stored(stored.clone()));
        let live = state.live.range(range).map(|(_, live)| Available::Live(live.clone()));
        let (stored, live) =
            (stored.into_iter().find(|one| wanted(one)), live.into_iter().find(|one| wanted(one)));
        [stored, live].into_iter().flatten().min_by_key(Available::number)
    }

    /// The newest fragment that is wanted, stored or live.
    pub(crate) fn latest(&self, wanted: impl Fn(&Available) -> bool) -> Option<Available> {
        let state = self.state();
        let mut stored = state.stored.values().rev().map(|stored| Available::Stored(stored.clone()));
        let mut live = state.live.values().rev().map(|live| Available::Live(live.clone()));
        let (stored, live) = (stored.find(|one| wanted(one)), live.find(|one| wanted(one)));
        [stored, live].into_iter().flatten().max_by_key(Available::number)
    }

    /// What was found of a fragment when it was first played.
    pub(crate) fn outline(&self, number: FragmentNumber, player: Player) -> Option<Outline> {
        let outlines = self.outlines.lock().unwrap_or_else(PoisonError::into_inner);
        outlines.get(&(number, player)).cloned()
    }

    pub(crate) fn keep_outline(&self, player: Player, outline: Outline) {
        let stored: Vec<FragmentNumber> = self.state().stored.keys().copied().collect();
        let mut outlines = self.outlines.lock().unwrap_or_else(PoisonError::into_inner);
        // One for each kind of player, and some that have gone since.
        if outlines.len() > 2 * stored.len() + 100 {
            outlines.retain(|(number, _), _| stored.binary_search(number).is_ok());
        }
        outlines.insert((outline.number, player), outline);
    }

    pub(crate) fn log_ack(&self, ack: SentAck) {
        let mut state = self.state();
        if state.acks.len() == ACKS_KEPT {
            state.acks.pop_front();
        }
        state.acks.push_back(ack);
        drop(state);
        self.changed.send_replace(());
    }

    pub(crate) fn acks(&self) -> Vec<SentAck> {
        self.state().acks.iter().cloned().collect()
    }

    /// Fires when a test ends the answers that run now.
    pub(crate) fn get_media_end(&self) -> CancellationToken {
        self.state().get_media_end.clone()
    }

    pub(crate) fn end_get_media(&self) {
        std::mem::take(&mut self.state().get_media_end).cancel();
    }
}

impl State {
    fn remove(&mut self, number: FragmentNumber) -> Option<Arc<Stored>> {
        let stored = self.stored.remove(&number)?;
        if matches!(stored.place, Place::Memory(_)) {
            self.memory_bytes = self.memory_bytes.saturating_sub(stored.meta.size_bytes());
        }
        Some(stored)
    }

    /// Oldest first, until both the age and the size are within bounds.
    fn expire_memory(&mut self, limits: &Limits, now_ms: u64) {
        let buffer_ms = u64::try_from(limits.buffer_age.as_millis()).unwrap_or(u64::MAX);
        let oldest_ms = now_ms.saturating_sub(buffer_ms);
        loop {
            let oldest = self.stored.values().find(|stored| matches!(stored.place, Place::Memory(_)));
            let too_much = self.memory_bytes > limits.buffer_bytes;
            let Some(number) = oldest
                .filter(|stored| too_much || stored.meta.server_ms() < oldest_ms)
                .map(|stored| stored.meta.number)
            else {
                return;
            };
            self.remove(number);
        }
    }
}

/// Connections of one kind to one stream.
#[derive(Debug)]
pub(crate) struct Slots {
    free: Arc<Semaphore>,
    limit: usize,
    taken_ever: AtomicU64,
}

impl Slots {
    fn new(limit: usize) -> Self {
        let limit = limit.min(Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(limit)), limit, taken_ever: AtomicU64::new(0) }
    }

    /// `None` if all stay taken for the time of `grace`.
    pub(crate) async fn take(&self, grace: Duration) -> Option<OwnedSemaphorePermit> {
        let permit = tokio::time::timeout(grace, self.free.clone().acquire_owned()).await.ok()?.ok()?;
        self.taken_ever.fetch_add(1, Ordering::Relaxed);
        Some(permit)
    }

    pub(crate) fn open(&self) -> usize {
        self.limit - self.free.available_permits().min(self.limit)
    }

    pub(crate) fn ever(&self) -> u64 {
        self.taken_ever.load(Ordering::Relaxed)
    }
}

/// Runs file work off the runtime's threads.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
