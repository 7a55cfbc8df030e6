//! The spool itself, without a thread: segments, the index, room.

mod error;
mod undated;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kvs::fragmenter::StreamHeader;
use kvs::upload::{Dropped, Place, Settled, Spooled, Waiting, Whole};
use kvs::{FragmentId, RunId};

pub use self::error::StoreError;
pub(crate) use self::error::io_error;
use crate::files::{Files, NewFile};
use crate::finding::Finding;
use crate::gone;
use crate::index::{Contents, Index, IndexError, IndexRow};
use crate::record::{self, Meta, SEGMENT_HEAD, SegmentHead};
use crate::seal::Keys;
use crate::segment::{self, Next, Scan};
use crate::{Options, WhenFull};

/// After a failed write the disk is left alone for so long, at first and at most.
const FIRST_REST: Duration = Duration::from_secs(2);
const LONGEST_REST: Duration = Duration::from_secs(60);
/// More is not held back for the next write.
const MOST_SETTLEMENTS: usize = 64;
/// More is not remembered while the disk takes nothing; KVS is asked for the rest.
const MOST_UNWRITTEN: usize = 16 << 10;

/// The spool of a box.
pub struct Store {
    files: Arc<dyn Files>,
    options: Options,
    keys: Keys,
    index: Index,
    cameras: BTreeMap<String, Camera>,
    /// Of one write; kept for the next.
    buffer: Vec<u8>,
    /// What had to make room and nobody was told of yet, by camera.
    dropped: Vec<(String, Dropped)>,
    /// Where that is written down, by camera.
    notes: Vec<(String, PathBuf)>,
    findings: Vec<Finding>,
    /// The last attempt to remove old segments failed, and that was told.
    cannot_tidy: bool,
    /// The latest time of any block.
    latest_ms: u64,
}

struct Camera {
    /// In the index.
    key: i64,
    folder: PathBuf,
    segments: BTreeMap<u64, Segment>,
    active: Option<Active>,
    next: u64,
    /// To be written with the next fragment.
    settled: Vec<(FragmentId, Settled)>,
    /// Of the next file of stamps.
    next_stamps: u64,
    /// The stream header that was read last: most fragments have the same.
    header: Option<Arc<StreamHeader>>,
    rest: Option<Rest>,
}

#[derive(Clone, Copy, Default)]
struct Segment {
    /// Of the file.
    bytes: u64,
    contents: Contents,
    /// It holds a fragment that KVS will never take, which is set aside: it stays as long as what waits does.
    has_refused: bool,
}

/// The segment that grows.
struct Active {
    number: u64,
    file: Box<dyn NewFile>,
}

#[derive(Clone, Copy)]
struct Rest {
    until: Instant,
    length: Duration,
}

impl Store {
    /// Opens what is there, and tells what was found on the way: see [`findings`](Self::findings).
    pub(crate) fn open(files: Arc<dyn Files>, options: Options, index: Index) -> Result<Self, StoreError> {
        let keys = options.key_file.as_deref().map(Keys::read).transpose()?.unwrap_or_default();
        let (cameras, buffer) = (BTreeMap::new(), Vec::new());
        let (dropped, notes) = (Vec::new(), Vec::new());
        let (findings, cannot_tidy, latest_ms) = (Vec::new(), false, 0);
        let mut store = Self {
            files,
            options,
            keys,
            index,
            cameras,
            buffer,
            dropped,
            notes,
            findings,
            cannot_tidy,
            latest_ms,
        };
        let folder = store.options.cameras();
        store.files.make_folder(&folder).map_err(io_error("make folder", &folder))?;
        for entry in store.files.list(&folder).map_err(io_error("list", &folder))? {
            if entry.is_folder {
                store.camera(&entry.name)?;
            } else {
                store.findings.push(Finding::foreign(folder.join(&entry.name)));
            }
        }
        for (_, name) in store.index.cameras()? {
            store.camera(&name)?;
        }
        store.scan()?;
        store.index.commit()?;
        Ok(store)
    }

    #[cfg(test)]
    pub(crate) fn into_index(self) -> Index {
        self.index
    }

    /// What was found since this was asked last.
    pub(crate) fn findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.findings)
    }

    /// What had to make room since this was asked last, by camera: it is lost.
    pub(crate) fn dropped(&mut self) -> Vec<(String, Dropped)> {
        std::mem::take(&mut self.dropped)
    }

    /// Whoever answers for this camera was told of all that was [dropped](Self::dropped).
    pub(crate) fn told(&mut self, name: &str) {
        let files = self.files.clone();
        let told = self.notes.extract_if(.., |(camera, _)| camera == name);
        // One that stays is told again at the next start.
        told.for_each(|(_, path)| drop(files.remove(&path)));
    }

    pub(crate) fn newest_run(&self) -> Option<RunId> {
        self.index.newest_run().ok().flatten()
    }

    /// Of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        let segments = self.cameras.values().flat_map(|camera| camera.segments.values());
        segments.map(|segment| segment.bytes).sum()
    }

    #[cfg(test)]
    pub(crate) fn write(&mut self, name: &str, fragment: &Whole, now: Instant) -> Result<Place, StoreError> {
        self.write_as(name, fragment, false, now)
    }

    /// Puts a fragment on disk with one write and one fsync; two fsyncs more where a segment begins, three where one has to go.
    /// `local`: as a recording that is not to be sent.
    pub(crate) fn write_as(
        &mut self,
        name: &str,
        fragment: &Whole,
        local: bool,
        now: Instant,
    ) -> Result<Place, StoreError> {
        self.camera(name)?;
        if let Some(rest) = self.cameras[name].rest.filter(|rest| now < rest.until) {
            let left_s = (rest.until - now).as_secs();
            return Err(StoreError::Resting { left_s });
        }
        let mut written = self.try_write(name, fragment, local);
        if written.as_ref().is_err_and(StoreError::is_no_space) && self.drop_one()? {
            written = self.try_write(name, fragment, local);
        }
        let camera = self.camera(name)?;
        camera.rest = match &written {
            Ok(_) | Err(StoreError::Full { .. }) => None,
            Err(_) => {
                let length = camera.rest.map_or(FIRST_REST, |rest| (rest.length * 2).min(LONGEST_REST));
                Some(Rest { until: now + length, length })
            }
        };
        self.tidy();
        written
    }

    fn try_write(&mut self, name: &str, fragment: &Whole, local: bool) -> Result<Place, StoreError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let settled = self.cameras[name].settled.len();
        if settled > 0 {
            record::write_settlements(&mut buffer, &self.cameras[name].settled, &self.keys);
        }
        let before = buffer.len() as u64;
        record::write_fragment(&mut buffer, fragment, local, self.latest_ms, &self.keys);
        let result = self
            .make_room(buffer.len() as u64)
            .and_then(|()| self.append(name, &buffer, true))
            .map(|place| Place { offset: place.offset + before, ..place });
        // A fragment of 50 MB shall not stay in memory for ever.
        buffer.shrink_to(self.options.segment_bytes.try_into().unwrap_or(usize::MAX));
        self.buffer = buffer;
        let place = result?;
        let summary = &fragment.end.summary;
        let stamp = self.stamp_of(name, summary)?;
        let row = undated::row(summary, place, local, stamp, self.latest_ms);
        let camera = self.camera(name)?;
        camera.settled.drain(..settled);
        let (key, to) = (camera.key, camera.segments.get(&place.segment).map_or(0, |segment| segment.bytes));
        let fresh = self.with_index(|index| {
            // In this order: what a commit between the two may cost is read from the segment again.
            let fresh = index.insert(key, &row)?;
            index.scanned(key, place.segment, to)?;
            Ok(fresh)
        })?;
        if fresh {
            let segment = self.camera(name)?.segments.entry(place.segment).or_default();
            segment.contents.fragments += 1;
            segment.contents.waiting += usize::from(!local);
            segment.contents.undated += usize::from(row.boot.is_some_and(|boot| !boot.dated));
            segment.contents.newest_ms = segment.contents.newest_ms.max(row.end_ms);
        }
        self.latest_ms = self.latest_ms.max(row.end_ms);
        Ok(place)
    }

    /// Appends to the camera's segment, or to a new one. Returns where it lies.
    fn append(&mut self, name: &str, bytes: &[u8], sync: bool) -> Result<Place, StoreError> {
        let (files, segment_bytes) = (self.files.clone(), self.options.segment_bytes);
        let sealed = self.keys.seals();
        let camera = self.camera(name)?;
        let length =
            |camera: &Camera, number| camera.segments.get(&number).map_or(0, |segment| segment.bytes);
        let active = camera.active.take();
        let fits = |active: &Active| length(camera, active.number) + bytes.len() as u64 <= segment_bytes;
        let (mut active, first) = match active.filter(fits) {
            Some(active) => (active, false),
            None => {
                let number = camera.next;
                // Whatever comes of it, no other segment has this number.
                camera.next += 1;
                let path = camera.folder.join(segment::name_of(number));
                let file = match files.create(&path) {
                    // Somebody removed the folder.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        files.make_folder(&camera.folder).and_then(|()| files.create(&path))
                    }
                    created => created,
                };
                let file = file.map_err(io_error("create", &path))?;
                (Active { number, file }, true)
            }
        };
        let (number, path) = (active.number, camera.folder.join(segment::name_of(active.number)));
        let before = length(camera, number);
        let written = if first {
            let mut whole = record::segment_head(number, sealed).to_vec();
            whole.extend_from_slice(bytes);
            active.file.append(&whole)
        } else {
            active.file.append(bytes)
        };
        let folder = camera.folder.clone();
        let written = written
            .map_err(io_error("write", &path))
            .and_then(|()| if sync { active.file.sync().map_err(io_error("sync", &path)) } else { Ok(()) })
            .and_then(|()| {
                if first { files.sync_folder(&folder).map_err(io_error("sync", &folder)) } else { Ok(()) }
            });
        if let Err(error) = written {
            // What this file holds behind `before` nobody knows: it is not written to again.
            let tidied = if first { files.remove(&path) } else { files.truncate(&path, before) };
            if tidied.is_err() {
                let bytes = before + bytes.len() as u64;
                camera.segments.entry(number).or_default().bytes = bytes;
            }
            return Err(error);
        }
        let offset = if first { SEGMENT_HEAD as u64 } else { before };
        camera.segments.entry(number).or_default().bytes = offset + bytes.len() as u64;
        camera.active = Some(active);
        Ok(Place { segment: number, offset })
    }

    /// A fragment need not be sent any more. On disk with the next fragment, or soon.
    pub(crate) fn settle(&mut self, name: &str, id: FragmentId, settled: Settled) -> Result<(), StoreError> {
        let key = self.camera(name)?.key;
        let Some(segment) = self.with_index(|index| index.settle(key, id, settled))? else { return Ok(()) };
        let camera = self.camera(name)?;
        if let Some(segment) = camera.segments.get_mut(&segment) {
            segment.has_refused |= settled == Settled::Refused;
            segment.contents.waiting = match settled {
                Settled::Wanted => segment.contents.waiting + 1,
                Settled::Persisted(_) | Settled::Refused => segment.contents.waiting.saturating_sub(1),
            };
        }
        camera.settled.push((id, settled));
        if camera.settled.len() > MOST_UNWRITTEN {
            camera.settled.remove(0);
        }
        if camera.settled.len().is_multiple_of(MOST_SETTLEMENTS) {
            self.flush_settlements(name)?;
        }
        self.tidy();
        Ok(())
    }

    /// Writes down what waits to be written with the next fragment, without an fsync: should it be lost, KVS is asked.
    pub(crate) fn flush(&mut self) -> Result<(), StoreError> {
        let names: Vec<_> = self.cameras.keys().cloned().collect();
        for name in names {
            self.flush_settlements(&name)?;
        }
        self.with_index(Index::commit)
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.index.is_dirty() || self.cameras.values().any(|camera| !camera.settled.is_empty())
    }

    fn flush_settlements(&mut self, name: &str) -> Result<(), StoreError> {
        let camera = self.camera(name)?;
        let settled = std::mem::take(&mut camera.settled);
        if settled.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        record::write_settlements(&mut bytes, &settled, &self.keys);
        let written = self.append(name, &bytes, false).map(drop);
        if written.is_err() {
            self.camera(name)?.settled = settled;
        }
        written
    }

    /// The cluster of a fragment; `None` where it is not there as it was written.
    pub(crate) fn read(&mut self, name: &str, id: FragmentId) -> Result<Option<Bytes>, StoreError> {
        let key = self.camera(name)?.key;
        let Some((row, _)) = self.with_index(|index| index.find(key, id))? else { return Ok(None) };
        let path = self.cameras[name].folder.join(segment::name_of(row.place.segment));
        match segment::body_at(&*self.files, &path, &self.keys, row.place.offset) {
            Ok(body) => self.dated_cluster(name, &row, body),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Io { what: "read", path, source }),
        }
    }

    /// What waits behind `after`, in order of recording, and how much is left behind that. Those whose records cannot be
    /// read any more are [dropped](Self::dropped).
    pub(crate) fn list(
        &mut self,
        name: &str,
        after: Option<Place>,
        most: usize,
    ) -> Result<(Vec<Spooled>, Waiting), StoreError> {
        let key = self.camera(name)?.key;
        let rows = self.with_index(|index| index.waiting(key, after, most))?;
        let last = rows.last().map(|row| row.place).or(after);
        let listed = self.read_rows(name, rows)?;
        let left = self.with_index(|index| index.count_waiting(key, last))?;
        Ok((listed, left))
    }

    /// Of the local recordings with a block in this stretch of time, the first `most` are to be sent from now on. Also
    /// returns how many more there are.
    pub(crate) fn recall(
        &mut self,
        name: &str,
        (from_ms, to_ms): (u64, u64),
        most: usize,
    ) -> Result<(Vec<Spooled>, usize), StoreError> {
        let key = self.camera(name)?.key;
        let mut rows = self.with_index(|index| index.local(key, from_ms, to_ms))?;
        let left = rows.len().saturating_sub(most);
        rows.truncate(most);
        for row in &rows {
            self.settle(name, row.id, Settled::Wanted)?;
        }
        Ok((self.read_rows(name, rows)?, left))
    }

    fn read_rows(&mut self, name: &str, rows: Vec<IndexRow>) -> Result<Vec<Spooled>, StoreError> {
        let mut listed = Vec::with_capacity(rows.len());
        for row in rows {
            let path = self.cameras[name].folder.join(segment::name_of(row.place.segment));
            let found = segment::read_at(&*self.files, &path, &self.keys, row.place.offset);
            let meta = match found {
                Ok(Some((_, Meta::Fragment(meta)))) if meta.end.summary.id == row.id => {
                    Ok(self.dated(name, *meta)?)
                }
                other => Err(other.err().map(|error| error.to_string())),
            };
            let meta = match meta {
                Ok(Some(meta)) => meta,
                other => {
                    self.findings.push(Finding::unreadable(path, row.id, other.err().flatten()));
                    self.give_up(name, &row)?;
                    continue;
                }
            };
            let camera = self.camera(name)?;
            let same = camera.header.clone().filter(|header| **header == meta.header);
            let header = same.unwrap_or_else(|| Arc::new(meta.header));
            camera.header = Some(header.clone());
            listed.push(Spooled { place: row.place, header, end: meta.end });
        }
        Ok(listed)
    }

    /// It cannot be read: nobody will ever get it.
    fn give_up(&mut self, name: &str, row: &IndexRow) -> Result<(), StoreError> {
        self.settle(name, row.id, Settled::Refused)?;
        let at = media::ProducerTimestamp::from_millis;
        let (start, end) = (at(row.timecode_ms), at(row.end_ms));
        let dropped = Dropped { id: row.id, place: row.place, start, end, bytes: row.bytes };
        self.dropped.push((name.to_owned(), dropped));
        Ok(())
    }

    /// Whoever is too old goes: local recordings after `keep`, what waits after `backlog`. Age is counted from the newest
    /// footage in the spool: a clock that is set ahead costs nothing, and without new footage nothing has to give way.
    fn tidy(&mut self) {
        let newest_ms = self.all_segments().map(|(_, _, segment)| segment.contents.newest_ms).max();
        let newest_ms = newest_ms.unwrap_or(0);
        let age = |segment: &Segment| Duration::from_millis(newest_ms - segment.contents.newest_ms);
        let (keep, backlog) = (self.options.keep, self.options.backlog);
        // How old it is nobody knows while it has no time.
        let is_over = |segment: &Segment| match segment.contents.waiting {
            _ if segment.contents.undated > 0 => false,
            0 if segment.has_refused => age(segment) > keep.max(backlog),
            0 => keep.is_zero() || age(segment) > keep,
            _ => age(segment) > backlog,
        };
        let over: Vec<_> = self
            .all_segments()
            .filter(|(camera, number, segment)| !camera.is_active(*number) && is_over(segment))
            .map(|(camera, number, _)| (camera.folder.clone(), number))
            .collect();
        let failed = over.into_iter().find_map(|(folder, number)| self.remove_segment(&folder, number).err());
        let told = std::mem::replace(&mut self.cannot_tidy, failed.is_some());
        self.findings.extend(failed.filter(|_| !told).map(|error| Finding::cannot_tidy(&error)));
    }

    fn make_room(&mut self, needed: u64) -> Result<(), StoreError> {
        while self.bytes() + needed > self.options.bytes {
            if !self.drop_one()? {
                return Err(StoreError::Full { bytes: self.bytes() });
            }
        }
        Ok(())
    }

    /// Gives one segment up: the oldest that is in KVS, else, where that is wanted, the oldest of all.
    fn drop_one(&mut self) -> Result<bool, StoreError> {
        let closed = || self.all_segments().filter(|(camera, number, _)| !camera.is_active(*number));
        let oldest = |waiting: bool| {
            closed()
                .filter(|(_, _, segment)| waiting || segment.contents.waiting == 0)
                .min_by_key(|(_, number, segment)| (segment.contents.newest_ms, *number))
                .map(|(camera, number, _)| (camera.folder.clone(), number))
        };
        let mut chosen = oldest(false);
        if chosen.is_none() && self.options.when_full == WhenFull::DropOldest {
            chosen = oldest(true);
        }
        if let Some((folder, number)) = chosen {
            self.remove_segment(&folder, number)?;
            return Ok(true);
        }
        // Nothing but segments that grow: the oldest of them ends here.
        if self.options.when_full == WhenFull::StopRecording {
            return Ok(false);
        }
        let growing = self.cameras.values_mut().filter(|camera| camera.active.is_some());
        let oldest = growing.min_by_key(|camera| {
            let number = camera.active.as_ref().map_or(0, |active| active.number);
            camera.segments.get(&number).map_or(0, |segment| segment.contents.newest_ms)
        });
        Ok(oldest.is_some_and(|camera| camera.active.take().is_some()))
    }

    fn all_segments(&self) -> impl Iterator<Item = (&Camera, u64, &Segment)> {
        self.cameras.values().flat_map(|camera| {
            camera.segments.iter().map(move |(number, segment)| (camera, *number, segment))
        })
    }

    /// What in it waits is told as dropped, once it is gone for good: it shall not come back after a power cut.
    fn remove_segment(&mut self, folder: &Path, number: u64) -> Result<(), StoreError> {
        let found = self.cameras.iter().find(|(_, camera)| camera.folder == folder);
        let Some((name, key)) = found.map(|(name, camera)| (name.clone(), camera.key)) else { return Ok(()) };
        let waiting = self.with_index(|index| index.waiting_in(key, number))?;
        let path = folder.join(segment::name_of(number));
        if !waiting.is_empty() {
            let note = folder.join(gone::name_of(number));
            // A full disk may not take even that, and has room only once the segment is gone.
            match gone::write(&*self.files, &note, &waiting) {
                Ok(()) => self.notes.push((name.clone(), note)),
                Err(_) => drop(self.files.remove(&note)),
            }
        }
        match self.files.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("remove", &path)(error));
            }
            _ => {}
        }
        self.camera(&name)?.segments.remove(&number);
        let synced = self.files.sync_folder(folder).map_err(io_error("sync", folder));
        let is_told = waiting.is_empty();
        self.dropped.extend(waiting.into_iter().map(|dropped| (name.clone(), dropped)));
        self.with_index(|index| index.forget_segment(key, number))?;
        if !is_told {
            self.with_index(Index::commit)?;
        }
        synced
    }

    /// The camera of this name, made where there is none.
    fn camera(&mut self, name: &str) -> Result<&mut Camera, StoreError> {
        if !self.cameras.contains_key(name) {
            let folder = self.options.cameras().join(name);
            self.files.make_folder(&folder).map_err(io_error("make folder", &folder))?;
            let key = self.with_index(|index| index.camera(name))?;
            let camera = Camera {
                key,
                folder,
                segments: BTreeMap::new(),
                active: None,
                next: 1,
                settled: Vec::new(),
                next_stamps: 1,
                header: None,
                rest: None,
            };
            self.cameras.insert(name.to_owned(), camera);
        }
        Ok(self.cameras.get_mut(name).expect("just made"))
    }

    /// An index that fails is replaced by one in memory, made from the segments: what is on disk stays known.
    fn with_index<T>(
        &mut self,
        use_it: impl Fn(&mut Index) -> Result<T, IndexError>,
    ) -> Result<T, StoreError> {
        let error = match use_it(&mut self.index) {
            Ok(result) => return Ok(result),
            Err(error) => error,
        };
        self.findings.push(Finding::index_in_memory(self.options.index(), &error));
        self.index = Index::in_memory()?;
        for (name, camera) in &mut self.cameras {
            camera.key = self.index.camera(name)?;
        }
        self.scan()?;
        Ok(use_it(&mut self.index)?)
    }

    /// Brings the index up to what the segments say.
    fn scan(&mut self) -> Result<(), StoreError> {
        for name in self.cameras.keys().cloned().collect::<Vec<_>>() {
            self.scan_camera(&name)?;
        }
        let newest_ms = self.all_segments().map(|(_, _, segment)| segment.contents.newest_ms).max();
        self.latest_ms = self.latest_ms.max(newest_ms.unwrap_or(0));
        Ok(())
    }

    fn scan_camera(&mut self, name: &str) -> Result<(), StoreError> {
        let (key, folder) = (self.cameras[name].key, self.cameras[name].folder.clone());
        self.read_stamps(name, key)?;
        let mut next = self.finish_removals(name, key, &folder)?;
        let mut known = self.index.segments(key)?;
        let mut segments = BTreeMap::new();
        for entry in self.files.list(&folder).map_err(io_error("list", &folder))? {
            let path = folder.join(&entry.name);
            if gone::number_of(&entry.name).is_some() {
                continue;
            }
            let Some(number) = segment::number_of(&entry.name).filter(|_| !entry.is_folder) else {
                self.findings.push(Finding::foreign(path));
                continue;
            };
            next = next.max(number + 1);
            // A later release may have left it: it stays.
            match segment::head_of(&*self.files, &path).map_err(io_error("read", &path))? {
                SegmentHead::Number(found) if found == number => self.expect_key(&path)?,
                SegmentHead::Version(version) => {
                    self.findings.push(Finding::later_segment(path, version));
                    known.remove(&number);
                    continue;
                }
                SegmentHead::Number(_) | SegmentHead::Damaged => {
                    // Its first write was never synced: nothing in it was ever called written.
                    if !known.contains_key(&number) && self.is_torn_start(&path)? {
                        self.findings.push(Finding::torn(path.clone(), 0, entry.bytes));
                        self.files.remove(&path).map_err(io_error("remove", &path))?;
                        continue;
                    }
                    self.findings.push(Finding::no_segment(path));
                    self.lose_segment(name, key, number)?;
                    known.remove(&number);
                    continue;
                }
            }
            let mut from = known.remove(&number).unwrap_or(0);
            let mut before = Vec::new();
            if from > entry.bytes {
                self.findings.push(Finding::shortened(path.clone(), from, entry.bytes));
                before = self.index.waiting_in(key, number)?;
                self.index.forget_segment(key, number)?;
                from = 0;
            }
            let bytes = self.scan_segment(key, number, &path, entry.bytes, from)?;
            for dropped in before {
                if self.index.find(key, dropped.id)?.is_none() {
                    self.dropped.push((name.to_owned(), dropped));
                }
            }
            segments.insert(number, Segment { bytes, ..Segment::default() });
        }
        for (number, _) in known {
            next = next.max(number + 1);
            if !self.index.waiting_in(key, number)?.is_empty() {
                self.findings.push(Finding::missing(folder.join(segment::name_of(number))));
            }
            self.lose_segment(name, key, number)?;
        }
        // What was settled and not written down yet.
        for (id, settled) in self.cameras[name].settled.clone() {
            self.index.settle(key, id, settled)?;
        }
        self.tidy_stamps(name, key)?;
        for (number, contents) in self.index.contents(key)? {
            segments.entry(number).or_insert_with(Segment::default).contents = contents;
        }
        for number in self.index.refused(key)? {
            segments.entry(number).and_modify(|segment| segment.has_refused = true);
        }
        let camera = self.camera(name)?;
        (camera.segments, camera.next) = (segments, next);
        Ok(())
    }

    /// What of a segment had to go is told, and the segment is removed if a power cut came first. Returns the number that the
    /// next segment may have.
    fn finish_removals(&mut self, name: &str, key: i64, folder: &Path) -> Result<u64, StoreError> {
        let mut next = self.cameras[name].next;
        for entry in self.files.list(folder).map_err(io_error("list", folder))? {
            let Some(number) = gone::number_of(&entry.name).filter(|_| !entry.is_folder) else { continue };
            let note = folder.join(&entry.name);
            next = next.max(number + 1);
            if self.notes.iter().any(|(_, known)| *known == note) {
                continue; // of this process
            }
            let found = gone::read(&*self.files, &note, number).map_err(io_error("read", &note))?;
            let Some(gone) = found else {
                self.files.remove(&note).map_err(io_error("remove", &note))?;
                continue;
            };
            let segment = folder.join(segment::name_of(number));
            match self.files.remove(&segment) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("remove", &segment)(error));
                }
                _ => {}
            }
            self.files.sync_folder(folder).map_err(io_error("sync", folder))?;
            self.index.forget_segment(key, number)?;
            self.dropped.extend(gone.into_iter().map(|dropped| (name.to_owned(), dropped)));
            self.notes.push((name.to_owned(), note));
        }
        Ok(next)
    }

    /// Without the key of what is on disk nothing is known of it: whoever made room might give up what KVS does not have.
    fn expect_key(&self, path: &Path) -> Result<(), StoreError> {
        let sealed = segment::key_of(&*self.files, path).map_err(io_error("read", path))?;
        match sealed.filter(|id| !self.keys.has(*id)) {
            Some(id) => Err(StoreError::Locked { path: path.to_owned(), id }),
            None => Ok(()),
        }
    }

    /// Whether a file begins as a first write that a power cut tore apart: empty, with zeros, or in the middle of the head.
    fn is_torn_start(&self, path: &Path) -> Result<bool, StoreError> {
        let start = self.files.read(path, 0, SEGMENT_HEAD).map_err(io_error("read", path))?;
        let ours = &record::segment_head(0, false)[..8];
        Ok(start.iter().all(|byte| *byte == 0) || start.starts_with(ours) || ours.starts_with(&start))
    }

    /// What the index knows of a segment is not there any more.
    fn lose_segment(&mut self, name: &str, key: i64, number: u64) -> Result<(), StoreError> {
        let lost = self.index.waiting_in(key, number)?;
        self.index.forget_segment(key, number)?;
        self.dropped.extend(lost.into_iter().map(|dropped| (name.to_owned(), dropped)));
        Ok(())
    }

    /// Takes what lies behind `from` into the index; a torn tail is cut off. Returns the length of the file.
    fn scan_segment(
        &mut self,
        key: i64,
        number: u64,
        path: &Path,
        length: u64,
        from: u64,
    ) -> Result<u64, StoreError> {
        let (files, keys) = (self.files.clone(), self.keys.clone());
        let mut scan = Scan::new(&*files, path, &keys, length, from);
        let mut good = scan.offset;
        let mut last = None;
        let mut torn = None;
        loop {
            match scan.next().map_err(io_error("read", path))? {
                Next::Record(segment::Found { meta: Meta::Locked(id), .. }) => {
                    return Err(StoreError::Locked { path: path.to_owned(), id });
                }
                Next::Record(found) => {
                    good = scan.offset;
                    if let Some(found) = last.replace(found) {
                        self.take(key, number, found)?;
                    }
                }
                Next::Damaged { from, to } => {
                    self.findings.push(Finding::damaged(path.to_owned(), from, to));
                    good = scan.offset;
                }
                Next::Torn { from } => torn = Some(from),
                Next::End => break,
            }
        }
        // Each record was synced before the next one was begun: only of the last one the body is in doubt.
        if let Some(found) = last {
            let body =
                segment::body_at(&*files, path, &keys, found.offset).map_err(io_error("read", path))?;
            if body.is_some() {
                self.take(key, number, found)?;
            } else {
                good = found.offset;
                torn = Some(found.offset);
            }
        }
        let mut bytes = length;
        if let Some(from) = torn {
            self.findings.push(Finding::torn(path.to_owned(), from, length));
            if files.truncate(path, from).is_ok() {
                bytes = from;
            }
            good = good.min(from);
        }
        self.index.scanned(key, number, good)?;
        Ok(bytes)
    }

    fn take(&mut self, key: i64, segment: u64, found: segment::Found) -> Result<(), StoreError> {
        match found.meta {
            Meta::Fragment(meta) => {
                let place = Place { segment, offset: found.offset };
                let after_ms = meta.undated.map_or(0, |undated| undated.after_ms);
                let summary = &meta.end.summary;
                let stamp = self.index.stamp_of(key, summary.id.run)?;
                self.index.insert(key, &undated::row(summary, place, meta.local, stamp, after_ms))?;
            }
            Meta::Settlements(settled) => {
                for (id, settled) in settled {
                    self.index.settle(key, id, settled)?;
                }
            }
            // Stamps have files of their own.
            Meta::Stamps(_) | Meta::Locked(_) | Meta::Unknown => {}
        }
        Ok(())
    }
}

impl Camera {
    fn is_active(&self, number: u64) -> bool {
        self.active.as_ref().is_some_and(|active| active.number == number)
    }
}
