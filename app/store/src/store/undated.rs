//! Footage that was recorded without a clock, and how it gets its time: see [`kvs::stamping`] for the rule.

use std::collections::BTreeSet;

use bytes::Bytes;
use kvs::fragmenter::FragmentSummary;
use kvs::stamping::{self, FootageClock, RunStamp, Trusted};
use kvs::upload::Place;

use super::{Store, StoreError, io_error};
use crate::index::{BootTimes, Index, IndexRow};
use crate::record::FragmentMeta;
use crate::stamps::{self, StampFile};

impl Store {
    /// The clock is set: what was recorded without one gets its time, by one record that is on disk for good before anybody is
    /// told. Returns the stamps and for how many fragments each is.
    pub(crate) fn stamp(
        &mut self,
        name: &str,
        trusted: &Trusted,
    ) -> Result<Vec<(RunStamp, usize)>, StoreError> {
        let key = self.camera(name)?.key;
        let undated = self.with_index(|index| index.undated(key))?;
        if undated.is_empty() {
            return Ok(Vec::new());
        }
        let stretches: Vec<_> = undated.iter().map(|(stretch, _)| *stretch).collect();
        let stamps = stamping::stamp(&stretches, trusted);
        let folder = self.options.stamps(name);
        let camera = self.camera(name)?;
        let number = camera.next_stamps;
        // Whatever comes of it, no other file has this number.
        camera.next_stamps += 1;
        stamps::write(&*self.files, &folder, number, &stamps).map_err(io_error("write", &folder))?;
        for stamp in &stamps {
            self.with_index(|index| index.stamp(key, stamp))?;
        }
        self.with_index(Index::commit)?;
        let contents = self.with_index(|index| index.contents(key))?;
        let camera = self.camera(name)?;
        for (number, segment) in &mut camera.segments {
            segment.contents = contents.get(number).copied().unwrap_or_default();
        }
        Ok(stamps.into_iter().zip(undated.into_iter().map(|(_, fragments)| fragments)).collect())
    }

    /// The cameras of which something has no time yet.
    pub(crate) fn undated(&self) -> BTreeSet<String> {
        let undated = self
            .cameras
            .iter()
            .filter(|(_, camera)| camera.segments.values().any(|segment| segment.contents.undated > 0));
        undated.map(|(name, _)| name.clone()).collect()
    }

    /// What is written down of times, before the fragments are looked at.
    pub(super) fn read_stamps(&mut self, name: &str, key: i64) -> Result<(), StoreError> {
        let folder = self.options.stamps(name);
        let found = stamps::read(&*self.files, &folder).map_err(io_error("read", &folder))?;
        for stamp in found.iter().flat_map(|file| &file.stamps) {
            self.index.stamp(key, stamp)?;
        }
        let next = found.last().map_or(1, |file| file.number + 1);
        let camera = self.camera(name)?;
        camera.next_stamps = camera.next_stamps.max(next);
        Ok(())
    }

    /// Once they are known: times that nobody needs any more go.
    pub(super) fn tidy_stamps(&mut self, name: &str, key: i64) -> Result<(), StoreError> {
        let folder = self.options.stamps(name);
        for StampFile { path, stamps, .. } in
            stamps::read(&*self.files, &folder).map_err(io_error("read", &folder))?
        {
            let mut needed = false;
            for stamp in &stamps {
                needed |= self.index.has_boot_times(key, stamp.run)?;
            }
            if !needed {
                // One that stays is removed at the next start.
                drop(self.files.remove(&path));
                for stamp in &stamps {
                    self.index.forget_stamp(key, stamp.run)?;
                }
            }
        }
        Ok(())
    }

    /// The stamp of a fragment that has times since boot, once there is one.
    pub(super) fn stamp_of(
        &mut self,
        name: &str,
        summary: &FragmentSummary,
    ) -> Result<Option<RunStamp>, StoreError> {
        if !summary.clock.is_boot() {
            return Ok(None);
        }
        let key = self.camera(name)?.key;
        self.with_index(|index| index.stamp_of(key, summary.id.run))
    }

    /// With its time, where it was recorded without a clock. `None`: it is not one of ours.
    pub(super) fn dated(
        &mut self,
        name: &str,
        meta: FragmentMeta,
    ) -> Result<Option<FragmentMeta>, StoreError> {
        let Some(undated) = &meta.undated else { return Ok(Some(meta)) };
        let Some(stamp) = self.stamp_of(name, &meta.end.summary)? else { return Ok(None) };
        let end = stamp.end(&meta.end, &undated.heads);
        Ok(end.map(|end| FragmentMeta { end, undated: None, ..meta }))
    }

    /// The cluster that lies on disk, likewise.
    pub(super) fn dated_cluster(
        &mut self,
        name: &str,
        row: &IndexRow,
        cluster: Option<Bytes>,
    ) -> Result<Option<Bytes>, StoreError> {
        let (Some(boot), Some(cluster)) = (row.boot, &cluster) else { return Ok(cluster) };
        let key = self.camera(name)?.key;
        let stamp = self.with_index(|index| index.stamp_of(key, row.id.run))?;
        Ok(stamp.and_then(|stamp| stamp.cluster(cluster, boot.from_ms)))
    }
}

/// As the index keeps it: with its time, as far as that is known. `after_ms`: the latest real time before it.
pub(super) fn row(
    summary: &FragmentSummary,
    place: Place,
    local: bool,
    stamp: Option<RunStamp>,
    after_ms: u64,
) -> IndexRow {
    let (id, bytes) = (summary.id, summary.cluster_bytes);
    let (from_ms, to_ms) = (summary.timecode.as_millis(), summary.end().as_millis());
    let row = IndexRow { id, place, timecode_ms: from_ms, end_ms: to_ms, bytes, local, boot: None };
    let FootageClock::Boot(boot) = summary.clock else { return row };
    let (timecode_ms, end_ms) =
        stamp.map_or((after_ms, after_ms), |stamp| (stamp.utc_ms(from_ms), stamp.utc_ms(to_ms)));
    let boot = Some(BootTimes { boot, from_ms, to_ms, dated: stamp.is_some() });
    IndexRow { timecode_ms, end_ms, boot, ..row }
}

#[cfg(test)]
mod tests;
