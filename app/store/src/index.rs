//! Where each fragment lies and what became of it, in SQLite.
//!
//! Everything in here can be derived from the segments, so nothing waits for it: rows are committed some at a time, in WAL with
//! `synchronous=NORMAL`, where a power cut costs the last commits and never the file. What the index does not know is read
//! from the segments behind `scanned_to`; an index that is lost, damaged or of a release that this one cannot read is set aside
//! and made anew.
//!
//! The schema changes by steps that only add; `oldest_reader` says which release still understands it. So the release before
//! goes on with the same file after a rollback.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use kvs::stamping::{BootId, Estimate, RunStamp, Stretch};
use kvs::upload::{Dropped, Place, Settled, Waiting};
use kvs::{FragmentId, RunId};
use media::ProducerTimestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, params};

/// Each step adds to the schema of the one before; the version of a file is the number of steps that it has.
const STEPS: [&str; 2] = [
    "
    CREATE TABLE camera (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE segment (
        camera INTEGER NOT NULL,
        number INTEGER NOT NULL,
        -- Bytes from its start whose records are in here.
        scanned_to INTEGER NOT NULL,
        PRIMARY KEY (camera, number)
    ) WITHOUT ROWID;
    CREATE TABLE fragment (
        camera INTEGER NOT NULL,
        segment INTEGER NOT NULL,
        offset INTEGER NOT NULL,
        run INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        timecode_ms INTEGER NOT NULL,
        end_ms INTEGER NOT NULL,
        -- Of its cluster.
        bytes INTEGER NOT NULL,
        -- 0 waits, 1 persisted, 2 refused for good, 3 a local recording.
        state INTEGER NOT NULL DEFAULT 0,
        -- What KVS calls it.
        number TEXT,
        PRIMARY KEY (camera, segment, offset)
    ) WITHOUT ROWID;
    CREATE UNIQUE INDEX fragment_name ON fragment (camera, run, sequence);
    CREATE INDEX fragment_waiting ON fragment (camera, segment, offset) WHERE state = 0;
    CREATE TABLE schema (oldest_reader INTEGER NOT NULL);
    INSERT INTO schema VALUES (1);
",
    "
    -- Of what was recorded without a clock: the boot, and times since it. Its state is 4, or 5 as a local recording, until it has
    -- its time; until then timecode_ms and end_ms are the latest real time before it. The release before leaves it alone.
    ALTER TABLE fragment ADD COLUMN boot BLOB;
    ALTER TABLE fragment ADD COLUMN boot_from_ms INTEGER;
    ALTER TABLE fragment ADD COLUMN boot_to_ms INTEGER;
    CREATE INDEX fragment_undated ON fragment (camera, run) WHERE boot IS NOT NULL;
    CREATE TABLE stamp (
        camera INTEGER NOT NULL,
        run INTEGER NOT NULL,
        -- To be added to times since boot.
        offset_ms INTEGER NOT NULL,
        estimated INTEGER NOT NULL,
        -- How much earlier it may have been; absent where nobody knows.
        earlier_ms INTEGER,
        PRIMARY KEY (camera, run)
    ) WITHOUT ROWID;
",
];

/// What an [`IndexRow`] is read from.
const COLUMNS: &str =
    "segment, offset, run, sequence, timecode_ms, end_ms, bytes, boot, boot_from_ms, boot_to_ms";

/// Rows that a power cut may cost the index; they are read from the segments again.
const COMMIT_EVERY: u32 = 32;

/// Why SQLite cannot be used as it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexError {
    #[error("the index of the spool: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the index of the spool is damaged: {0}")]
    Damaged(String),
    #[error("the index of the spool has schema {found}, this release reads up to {known}")]
    Later { found: usize, known: usize },
}

/// One fragment as the index keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexRow {
    pub(crate) id: FragmentId,
    pub(crate) place: Place,
    pub(crate) timecode_ms: u64,
    pub(crate) end_ms: u64,
    pub(crate) bytes: u64,
    /// A local recording, not to be sent.
    pub(crate) local: bool,
    /// It was recorded without a clock.
    pub(crate) boot: Option<BootTimes>,
}

/// Times of a fragment since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BootTimes {
    pub(crate) boot: BootId,
    pub(crate) from_ms: u64,
    pub(crate) to_ms: u64,
    /// It has its time by now.
    pub(crate) dated: bool,
}

/// What a segment holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) fragments: usize,
    /// Of these, those that are to be sent.
    pub(crate) waiting: usize,
    /// Of all, those that have no time yet.
    pub(crate) undated: usize,
    /// The latest time of any of its blocks.
    pub(crate) newest_ms: u64,
}

pub(crate) struct Index {
    db: Connection,
    /// Changes since the last commit.
    pending: u32,
}

impl Index {
    /// The file at `path`, with the schema of this release. A damaged or later one is left as it is.
    pub(crate) fn open(path: &Path) -> Result<Self, IndexError> {
        let db = Connection::open(path)?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "NORMAL")?;
        Self::with(db)
    }

    /// Makes an index anew, and puts a file that is there already aside. Returns where it is now.
    pub(crate) fn anew(path: &Path) -> Result<(Self, Option<PathBuf>), IndexError> {
        let moved = put_aside(path);
        Ok((Self::open(path)?, moved))
    }

    /// For as long as this process lives: where the disk does not take one.
    pub(crate) fn in_memory() -> Result<Self, IndexError> {
        Self::with(Connection::open_in_memory()?)
    }

    fn with(db: Connection) -> Result<Self, IndexError> {
        db.pragma_update(None, "temp_store", "MEMORY")?;
        let found: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if found != "ok" {
            return Err(IndexError::Damaged(found));
        }
        let mut index = Self { db, pending: 0 };
        upgrade(&mut index.db, &STEPS)?;
        Ok(index)
    }

    /// Makes what was changed so far survive the process.
    pub(crate) fn commit(&mut self) -> Result<(), IndexError> {
        if std::mem::take(&mut self.pending) > 0 {
            self.db.execute_batch("COMMIT")?;
        }
        Ok(())
    }

    /// As a process that was killed leaves it.
    #[cfg(test)]
    pub(crate) fn killed(mut self) -> Self {
        if std::mem::take(&mut self.pending) > 0 {
            self.db.execute_batch("ROLLBACK").expect("a transaction is open");
        }
        self
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.pending > 0
    }

    fn change(&mut self, sql: &str, values: impl rusqlite::Params) -> Result<usize, IndexError> {
        if self.pending == 0 {
            self.db.execute_batch("BEGIN")?;
        }
        self.pending += 1;
        let changed = self.db.prepare_cached(sql)?.execute(values)?;
        if self.pending >= COMMIT_EVERY {
            self.commit()?;
        }
        Ok(changed)
    }

    pub(crate) fn camera(&mut self, name: &str) -> Result<i64, IndexError> {
        self.change("INSERT OR IGNORE INTO camera (name) VALUES (?1)", [name])?;
        Ok(self.db.query_row("SELECT id FROM camera WHERE name = ?1", [name], |row| row.get(0))?)
    }

    pub(crate) fn cameras(&self) -> Result<Vec<(i64, String)>, IndexError> {
        let mut query = self.db.prepare_cached("SELECT id, name FROM camera")?;
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// How far each segment of a camera is in here.
    pub(crate) fn segments(&self, camera: i64) -> Result<BTreeMap<u64, u64>, IndexError> {
        let mut query = self.db.prepare_cached("SELECT number, scanned_to FROM segment WHERE camera = ?1")?;
        let rows = query.query_map([camera], |row| Ok((number(row, 0)?, number(row, 1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(crate) fn contents(&self, camera: i64) -> Result<BTreeMap<u64, Contents>, IndexError> {
        let mut query = self.db.prepare_cached(
            "SELECT segment, COUNT(*), SUM(state IN (0, 4)), SUM(state >= 4), MAX(end_ms) FROM fragment
             WHERE camera = ?1 GROUP BY segment",
        )?;
        let rows = query.query_map([camera], |row| {
            let (fragments, waiting, undated) = (size(row, 1)?, size(row, 2)?, size(row, 3)?);
            let contents = Contents { fragments, waiting, undated, newest_ms: number(row, 4)? };
            Ok((number(row, 0)?, contents))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Segments with a fragment that KVS will never take.
    pub(crate) fn refused(&self, camera: i64) -> Result<BTreeSet<u64>, IndexError> {
        let mut query = self
            .db
            .prepare_cached("SELECT DISTINCT segment FROM fragment WHERE camera = ?1 AND state = 2")?;
        let rows = query.query_map([camera], |row| number(row, 0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(crate) fn scanned(&mut self, camera: i64, segment: u64, to: u64) -> Result<(), IndexError> {
        let sql_text = "INSERT INTO segment VALUES (?1, ?2, ?3)
             ON CONFLICT (camera, number) DO UPDATE SET scanned_to = excluded.scanned_to";
        self.change(sql_text, params![camera, sql(segment), sql(to)])?;
        Ok(())
    }

    pub(crate) fn forget_segment(&mut self, camera: i64, segment: u64) -> Result<(), IndexError> {
        for table in [
            "DELETE FROM segment WHERE camera = ?1 AND number = ?2",
            "DELETE FROM fragment WHERE camera = ?1 AND segment = ?2",
        ] {
            self.change(table, params![camera, sql(segment)])?;
        }
        Ok(())
    }

    /// False if there is one of this name already.
    pub(crate) fn insert(&mut self, camera: i64, row: &IndexRow) -> Result<bool, IndexError> {
        let sql_text = "INSERT OR IGNORE INTO fragment
             (camera, segment, offset, run, sequence, timecode_ms, end_ms, bytes, state, boot, boot_from_ms, boot_to_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
        let IndexRow { id, place, timecode_ms, end_ms, bytes, local, boot } = *row;
        let undated = boot.is_some_and(|boot| !boot.dated);
        let values = params![
            camera,
            sql(place.segment),
            sql(place.offset),
            sql(id.run.as_u64()),
            sql(id.sequence),
            sql(timecode_ms),
            sql(end_ms),
            sql(bytes),
            match (local, undated) {
                (false, false) => 0,
                (true, false) => 3,
                (false, true) => 4,
                (true, true) => 5,
            },
            boot.map(|boot| boot.boot.0.to_le_bytes()),
            boot.map(|boot| sql(boot.from_ms)),
            boot.map(|boot| sql(boot.to_ms)),
        ];
        Ok(self.change(sql_text, values)? > 0)
    }

    /// The segment in which one fragment fewer waits now, or one more that is wanted; `None` if nothing changes.
    pub(crate) fn settle(
        &mut self,
        camera: i64,
        id: FragmentId,
        settled: Settled,
    ) -> Result<Option<u64>, IndexError> {
        let Some((row, waits)) = self.find(camera, id)? else { return Ok(None) };
        let undated = row.boot.is_some_and(|boot| !boot.dated);
        if settled == Settled::Wanted {
            if row.local && !undated {
                let place = row.place;
                self.change(
                    "UPDATE fragment SET state = 0 WHERE camera = ?1 AND segment = ?2 AND offset = ?3",
                    params![camera, sql(place.segment), sql(place.offset)],
                )?;
            }
            return Ok((row.local && !undated).then_some(row.place.segment));
        }
        if !waits {
            return Ok(None);
        }
        let (state, number) = match settled {
            Settled::Wanted => (0, None),
            Settled::Persisted(number) => (1, number.map(|number| number.to_string())),
            Settled::Refused => (2, None),
        };
        let place = row.place;
        self.change(
            "UPDATE fragment SET state = ?4, number = ?5 WHERE camera = ?1 AND segment = ?2 AND offset = ?3",
            params![camera, sql(place.segment), sql(place.offset), state, number],
        )?;
        Ok(Some(place.segment))
    }

    /// A fragment, and whether it is to be sent.
    pub(crate) fn find(&self, camera: i64, id: FragmentId) -> Result<Option<(IndexRow, bool)>, IndexError> {
        let mut query = self.db.prepare_cached(&format!(
            "SELECT {COLUMNS}, state FROM fragment WHERE camera = ?1 AND run = ?2 AND sequence = ?3"
        ))?;
        let found = query.query_row(params![camera, sql(id.run.as_u64()), sql(id.sequence)], |row| {
            let state: i64 = row.get(10)?;
            let mut found = IndexRow { local: matches!(state, 3 | 5), ..index_row(row)? };
            found.boot.iter_mut().for_each(|boot| boot.dated = state < 4);
            Ok((found, state == 0))
        });
        Ok(found.optional()?)
    }

    /// What waits behind `after`, in order of recording.
    pub(crate) fn waiting(
        &self,
        camera: i64,
        after: Option<Place>,
        most: usize,
    ) -> Result<Vec<IndexRow>, IndexError> {
        let (segment, offset) = behind(after);
        let mut query = self.db.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM fragment
             WHERE camera = ?1 AND state = 0 AND (segment, offset) > (?2, ?3) ORDER BY segment, offset LIMIT ?4"
        ))?;
        let rows = query.query_map(params![camera, segment, offset, sql(most as u64)], index_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The local recordings with a block from `from_ms` to `to_ms`, in order of recording.
    pub(crate) fn local(&self, camera: i64, from_ms: u64, to_ms: u64) -> Result<Vec<IndexRow>, IndexError> {
        let mut query = self.db.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM fragment
             WHERE camera = ?1 AND state = 3 AND end_ms >= ?2 AND timecode_ms <= ?3 ORDER BY segment, offset"
        ))?;
        let rows = query.query_map(params![camera, sql(from_ms), sql(to_ms)], index_row)?;
        rows.map(|row| Ok(IndexRow { local: true, ..row? })).collect()
    }

    pub(crate) fn count_waiting(&self, camera: i64, after: Option<Place>) -> Result<Waiting, IndexError> {
        let (segment, offset) = behind(after);
        let mut query = self.db.prepare_cached(
            "SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM fragment
             WHERE camera = ?1 AND state = 0 AND (segment, offset) > (?2, ?3)",
        )?;
        Ok(query.query_row(params![camera, segment, offset], |row| {
            Ok(Waiting { fragments: size(row, 0)?, bytes: number(row, 1)? })
        })?)
    }

    /// What in a segment is to be sent. What has no time yet has the latest one before it.
    pub(crate) fn waiting_in(&self, camera: i64, segment: u64) -> Result<Vec<Dropped>, IndexError> {
        let mut query = self.db.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM fragment WHERE camera = ?1 AND state IN (0, 4) AND segment = ?2 ORDER BY offset"
        ))?;
        let rows = query.query_map(params![camera, sql(segment)], index_row)?;
        let dropped = |row: IndexRow| Dropped {
            id: row.id,
            place: row.place,
            start: ProducerTimestamp::from_millis(row.timecode_ms),
            end: ProducerTimestamp::from_millis(row.end_ms),
            bytes: row.bytes,
        };
        Ok(rows.map(|row| row.map(dropped)).collect::<Result<_, _>>()?)
    }

    /// What has no time yet, by run and in order of recording, and how many fragments that are.
    pub(crate) fn undated(&self, camera: i64) -> Result<Vec<(Stretch, usize)>, IndexError> {
        // Each start begins a new segment, so no two runs share one.
        let mut query = self.db.prepare_cached(
            "SELECT run, boot, MIN(boot_from_ms), MAX(boot_to_ms), MIN(end_ms), COUNT(*) FROM fragment
             WHERE camera = ?1 AND boot IS NOT NULL AND state >= 4 GROUP BY run ORDER BY MIN(segment), run",
        )?;
        let rows = query.query_map([camera], |row| {
            let run = RunId::from_u64(number(row, 0)?).unwrap_or(RunId::UNKNOWN);
            let (boot, from_ms, to_ms) = (boot_id(row, 1)?, number(row, 2)?, number(row, 3)?);
            let after_ms = number(row, 4)?;
            let boot = boot.unwrap_or(BootId::UNKNOWN);
            Ok((Stretch { run, boot, from_ms, to_ms, after_ms }, size(row, 5)?))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// All of a run has its time. The last stamp counts.
    pub(crate) fn stamp(&mut self, camera: i64, stamp: &RunStamp) -> Result<(), IndexError> {
        let (run, estimate) = (sql(stamp.run.as_u64()), stamp.estimate);
        let earlier_ms = estimate.and_then(|estimate| estimate.earlier_ms).map(sql);
        self.change(
            "INSERT OR REPLACE INTO stamp VALUES (?1, ?2, ?3, ?4, ?5)",
            params![camera, run, stamp.offset_ms, estimate.is_some(), earlier_ms],
        )?;
        self.change(
            "UPDATE fragment SET state = CASE state WHEN 4 THEN 0 WHEN 5 THEN 3 ELSE state END,
             timecode_ms = boot_from_ms + (SELECT offset_ms FROM stamp WHERE camera = ?1 AND run = ?2),
             end_ms = boot_to_ms + (SELECT offset_ms FROM stamp WHERE camera = ?1 AND run = ?2)
             WHERE camera = ?1 AND run = ?2 AND boot IS NOT NULL",
            params![camera, run],
        )?;
        Ok(())
    }

    pub(crate) fn stamp_of(&self, camera: i64, run: RunId) -> Result<Option<RunStamp>, IndexError> {
        let text = "SELECT run, offset_ms, estimated, earlier_ms FROM stamp WHERE camera = ?1 AND run = ?2";
        let mut query = self.db.prepare_cached(text)?;
        Ok(query.query_row(params![camera, sql(run.as_u64())], run_stamp).optional()?)
    }

    /// Whether anything of a run that was recorded without a clock is there.
    pub(crate) fn has_boot_times(&self, camera: i64, run: RunId) -> Result<bool, IndexError> {
        let text =
            "SELECT EXISTS (SELECT 1 FROM fragment WHERE camera = ?1 AND run = ?2 AND boot IS NOT NULL)";
        let mut query = self.db.prepare_cached(text)?;
        Ok(query.query_row(params![camera, sql(run.as_u64())], |row| row.get(0))?)
    }

    pub(crate) fn forget_stamp(&mut self, camera: i64, run: RunId) -> Result<(), IndexError> {
        let text = "DELETE FROM stamp WHERE camera = ?1 AND run = ?2";
        self.change(text, params![camera, sql(run.as_u64())])?;
        Ok(())
    }

    /// The greatest run of any fragment.
    pub(crate) fn newest_run(&self) -> Result<Option<RunId>, IndexError> {
        let run: Option<i64> = self.db.query_row("SELECT MAX(run) FROM fragment", [], |row| row.get(0))?;
        Ok(run.and_then(|run| u64::try_from(run).ok()).and_then(RunId::from_u64))
    }
}

/// Brings a file up to the newest schema. A later one that says that this release may read it stays as it is.
pub(crate) fn upgrade(db: &mut Connection, steps: &[&str]) -> Result<(), IndexError> {
    let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let found = usize::try_from(version).unwrap_or(usize::MAX);
    let known = steps.len();
    if found > known {
        let oldest: i64 = db.query_row("SELECT oldest_reader FROM schema", [], |row| row.get(0))?;
        let readable = usize::try_from(oldest).is_ok_and(|oldest| oldest <= known);
        return if readable { Ok(()) } else { Err(IndexError::Later { found, known }) };
    }
    for (done, step) in steps.iter().enumerate().skip(found) {
        let change = db.transaction()?;
        change.execute_batch(step)?;
        change.pragma_update(None, "user_version", sql((done + 1) as u64))?;
        change.commit()?;
    }
    Ok(())
}

/// The file at `path`, checked, without a schema yet. A damaged one is left as it is.
pub(crate) fn database(path: &Path) -> Result<Connection, IndexError> {
    let db = Connection::open(path)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "NORMAL")?;
    let found: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found == "ok" { Ok(db) } else { Err(IndexError::Damaged(found)) }
}

/// Puts a file that is there aside, with what SQLite keeps beside it. Returns where it is now.
pub(crate) fn put_aside(path: &Path) -> Option<PathBuf> {
    let aside = path.with_extension("sqlite.aside");
    let moved = std::fs::rename(path, &aside).is_ok().then_some(aside);
    for end in ["-wal", "-shm"] {
        let mut beside = path.as_os_str().to_owned();
        beside.push(end);
        // A write-ahead log without its file means nothing.
        let _ = std::fs::remove_file(beside);
    }
    moved
}

/// Whether the file at `path` can be used; nothing in it is changed.
pub(crate) fn check(path: &Path) -> Result<(), IndexError> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let found: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found == "ok" { Ok(()) } else { Err(IndexError::Damaged(found)) }
}

/// Those of `fragments` that the file at `path` knows to be in KVS or refused: a kill may cost the segments that word, but not the
/// index. Of a file that cannot be read, none.
pub(crate) fn settled(path: &Path, camera: &str, fragments: &BTreeSet<FragmentId>) -> BTreeSet<FragmentId> {
    let known = || -> Result<BTreeSet<FragmentId>, rusqlite::Error> {
        let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let mut query = db.prepare(
            "SELECT 1 FROM fragment JOIN camera ON camera.id = fragment.camera
             WHERE camera.name = ?1 AND run = ?2 AND sequence = ?3 AND state IN (1, 2)",
        )?;
        let mut settled = BTreeSet::new();
        for id in fragments {
            if query.exists(params![camera, sql(id.run.as_u64()), sql(id.sequence)])? {
                settled.insert(*id);
            }
        }
        Ok(settled)
    };
    known().unwrap_or_default()
}

fn behind(after: Option<Place>) -> (i64, i64) {
    after.map_or((-1, -1), |place| (sql(place.segment), sql(place.offset)))
}

fn index_row(row: &Row<'_>) -> rusqlite::Result<IndexRow> {
    let place = Place { segment: number(row, 0)?, offset: number(row, 1)? };
    let run = RunId::from_u64(number(row, 2)?).unwrap_or(RunId::UNKNOWN);
    let id = FragmentId { run, sequence: number(row, 3)? };
    let (timecode_ms, end_ms, bytes) = (number(row, 4)?, number(row, 5)?, number(row, 6)?);
    let (from_ms, to_ms) = (number(row, 8)?, number(row, 9)?);
    let boot = boot_id(row, 7)?.map(|boot| BootTimes { boot, from_ms, to_ms, dated: true });
    Ok(IndexRow { id, place, timecode_ms, end_ms, bytes, local: false, boot })
}

fn boot_id(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<BootId>> {
    let bytes: Option<[u8; 16]> = row.get(column)?;
    Ok(bytes.map(|bytes| BootId(u128::from_le_bytes(bytes))))
}

fn run_stamp(row: &Row<'_>) -> rusqlite::Result<RunStamp> {
    let run = RunId::from_u64(number(row, 0)?).unwrap_or(RunId::UNKNOWN);
    let earlier_ms: Option<i64> = row.get(3)?;
    let earlier_ms = earlier_ms.and_then(|ms| u64::try_from(ms).ok());
    let estimate = row.get::<_, bool>(2)?.then_some(Estimate { earlier_ms });
    Ok(RunStamp { run, offset_ms: row.get(1)?, estimate })
}

/// SQLite has signed numbers; ours are far below their end.
pub(crate) fn sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: Option<i64> = row.get(column)?;
    Ok(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(0))
}

fn size(row: &Row<'_>, column: usize) -> rusqlite::Result<usize> {
    Ok(usize::try_from(number(row, column)?).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(sequence: u64, offset: u64) -> IndexRow {
        let id = FragmentId { run: RunId::new(7), sequence };
        let place = Place { segment: 1, offset };
        IndexRow {
            id,
            place,
            timecode_ms: sequence * 1000,
            end_ms: sequence * 1000 + 800,
            bytes: 100,
            local: false,
            boot: None,
        }
    }

    #[test]
    fn an_older_file_is_brought_up_and_a_later_one_is_used_while_it_may_be() {
        let mut index = Index::in_memory().expect("it opens");
        let camera = index.camera("cam").expect("it is made");
        index.insert(camera, &row(1, 24)).expect("it is taken");
        index.commit().expect("it is kept");
        // The next release adds a column and a table; this one goes on.
        let step = "ALTER TABLE fragment ADD COLUMN seen INTEGER; CREATE TABLE later (x);";
        let next = [STEPS[0], STEPS[1], step];
        upgrade(&mut index.db, &next).expect("a step is added");
        upgrade(&mut index.db, &STEPS).expect("the release before goes on");
        assert!(index.insert(camera, &row(2, 200)).expect("it is taken"));
        assert_eq!(index.waiting(camera, None, 9).expect("rows").len(), 2);
        index.commit().expect("it is kept");
        index.db.execute_batch("UPDATE schema SET oldest_reader = 3").expect("it is changed");
        assert!(matches!(upgrade(&mut index.db, &STEPS), Err(IndexError::Later { found: 3, known: 2 })));
    }

    #[test]
    fn a_step_that_fails_leaves_the_file_as_it_was() {
        let mut index = Index::in_memory().expect("it opens");
        let broken = [STEPS[0], STEPS[1], "CREATE TABLE later (x); CREATE TABLE camera (x);"];
        assert!(upgrade(&mut index.db, &broken).is_err());
        let tables: i64 = index
            .db
            .query_row("SELECT COUNT(*) FROM sqlite_master WHERE name = 'later'", [], |row| row.get(0))
            .expect("it can be asked");
        assert_eq!(tables, 0);
        upgrade(&mut index.db, &STEPS).expect("as before");
    }

    #[test]
    fn what_waits_comes_in_order_and_once() {
        let mut index = Index::in_memory().expect("it opens");
        let camera = index.camera("cam").expect("it is made");
        for (sequence, offset) in [(3, 24), (1, 130), (2, 240)] {
            assert!(index.insert(camera, &row(sequence, offset)).expect("it is taken"));
        }
        assert!(!index.insert(camera, &row(1, 999)).expect("asked"), "each name once");
        let waiting = |index: &Index, after| -> Vec<u64> {
            let rows = index.waiting(camera, after, 9).expect("rows");
            rows.iter().map(|row| row.id.sequence).collect()
        };
        assert_eq!(waiting(&index, None), [3, 1, 2]);
        let id = row(1, 130).id;
        assert_eq!(index.settle(camera, id, Settled::Persisted(None)).expect("asked"), Some(1));
        assert_eq!(index.settle(camera, id, Settled::Persisted(None)).expect("asked"), None);
        assert_eq!(waiting(&index, None), [3, 2]);
        assert_eq!(waiting(&index, Some(row(3, 24).place)), [2]);
        let count = index.count_waiting(camera, Some(row(3, 24).place)).expect("asked");
        assert_eq!((count.fragments, count.bytes), (1, 100));
        let contents = index.contents(camera).expect("asked");
        assert_eq!(contents[&1], Contents { fragments: 3, waiting: 2, undated: 0, newest_ms: 3800 });
        assert_eq!(index.newest_run().expect("asked"), Some(RunId::new(7)));
        index.forget_segment(camera, 1).expect("it is forgotten");
        assert_eq!(waiting(&index, None), [0; 0]);
    }

    /// Recorded without a clock, in boot 5.
    fn undated(sequence: u64, offset: u64, local: bool) -> IndexRow {
        let (from_ms, to_ms) = (60_000 + sequence * 1000, 60_800 + sequence * 1000);
        let boot = Some(BootTimes { boot: BootId(5), from_ms, to_ms, dated: false });
        IndexRow { timecode_ms: 700, end_ms: 700, local, boot, ..row(sequence, offset) }
    }

    #[test]
    fn what_has_no_time_waits_for_it_and_is_sent_or_kept_then() {
        let mut index = Index::in_memory().expect("it opens");
        let camera = index.camera("cam").expect("it is made");
        for one in [undated(1, 24, false), undated(2, 200, true), undated(3, 300, false)] {
            assert!(index.insert(camera, &one).expect("it is taken"));
        }
        assert!(index.waiting(camera, None, 9).expect("rows").is_empty());
        assert_eq!(index.waiting_in(camera, 1).expect("rows").len(), 2, "they are lost with their segment");
        let contents = Contents { fragments: 3, waiting: 2, undated: 3, newest_ms: 700 };
        assert_eq!(index.contents(camera).expect("asked")[&1], contents);
        let stretch =
            Stretch { run: RunId::new(7), boot: BootId(5), from_ms: 61_000, to_ms: 63_800, after_ms: 700 };
        assert_eq!(index.undated(camera).expect("asked"), [(stretch, 3)]);
        let estimate = Some(Estimate { earlier_ms: Some(9) });
        let stamp = RunStamp { run: RunId::new(7), offset_ms: 1_000_000, estimate };
        index.stamp(camera, &RunStamp { offset_ms: 5, ..stamp }).expect("it is taken");
        index.stamp(camera, &stamp).expect("the last one counts");
        assert_eq!(index.stamp_of(camera, RunId::new(7)).expect("asked"), Some(stamp));
        let waiting = index.waiting(camera, None, 9).expect("rows");
        let times: Vec<_> = waiting.iter().map(|row| (row.timecode_ms, row.end_ms)).collect();
        assert_eq!(times, [(1_061_000, 1_061_800), (1_063_000, 1_063_800)]);
        assert_eq!(index.local(camera, 1_062_000, 1_062_000).expect("rows").len(), 1);
        assert_eq!(index.undated(camera).expect("asked"), []);
        index.forget_segment(camera, 1).expect("it is forgotten");
        assert!(!index.has_boot_times(camera, RunId::new(7)).expect("asked"), "nobody needs its stamp");
    }

    #[test]
    fn the_release_before_leaves_alone_what_has_no_time() {
        let mut index = Index::in_memory().expect("it opens");
        let camera = index.camera("cam").expect("it is made");
        index.insert(camera, &undated(1, 24, false)).expect("it is taken");
        index.insert(camera, &row(2, 200)).expect("it is taken");
        index.commit().expect("it is kept");
        upgrade(&mut index.db, &STEPS[..1]).expect("it goes on with this file");
        // As that release writes, and asks what waits.
        let insert = "INSERT OR IGNORE INTO fragment (camera, segment, offset, run, sequence, timecode_ms, end_ms, bytes, state)
             VALUES (?1, 2, 24, 8, 1, 5, 6, 7, 0)";
        index.db.execute(insert, [camera]).expect("it is taken");
        index.db.execute("INSERT INTO segment VALUES (?1, 2, 100)", [camera]).expect("it is taken");
        let text = "SELECT COUNT(*) FROM fragment WHERE camera = ?1 AND state = 0";
        let waiting: i64 = index.db.query_row(text, [camera], |row| row.get(0)).expect("it can be asked");
        assert_eq!(waiting, 2, "its own, and the one with a time");
        assert_eq!(index.undated(camera).expect("asked").len(), 1, "still there");
    }

    #[test]
    fn a_file_that_is_no_database_is_told_and_put_aside() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("index.sqlite");
        std::fs::write(&path, b"This is no database. ".repeat(100)).expect("written");
        assert!(Index::open(&path).is_err());
        let (mut index, aside) = Index::anew(&path).expect("a new one");
        assert!(aside.is_some_and(|aside| aside.exists()));
        index.camera("cam").expect("it works");
        index.commit().expect("it is kept");
        drop(index);
        let index = Index::open(&path).expect("it opens again");
        assert_eq!(index.cameras().expect("asked").len(), 1);
    }
}
