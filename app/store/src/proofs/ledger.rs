//! Rows of fragments, and where each proof record lies, in SQLite.
//!
//! The lines of the records are the truth. What is in here besides are the rows of fragments whose minutes may still change:
//! they are kept for a day, or as long as something of their minute waits, and when they are lost, minutes that were not proven
//! by then stay as their records say.

use std::path::{Path, PathBuf};

use kvs::cluster_sums::ClusterSums;
use kvs::identity::Sha256Sum;
use kvs::proof::records::{Cause, Head, Line, Minute, Row, RowState, RowTimes};
use kvs::{FragmentId, FragmentNumber, RunId};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row as SqlRow, params};

use crate::index::{self, IndexError, number, sql};

/// As [`crate::index`]: each step only adds, so that the release before goes on with the file.
const STEPS: [&str; 1] = ["
    CREATE TABLE camera (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE fragment (
        camera INTEGER NOT NULL,
        run INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        timecode_ms INTEGER NOT NULL,
        end_ms INTEGER NOT NULL,
        bytes INTEGER,
        blocks INTEGER,
        -- SHA-256 over its cluster as it was sent.
        payload BLOB,
        heads BLOB,
        -- What KVS calls it.
        number TEXT,
        -- 'waiting', 'persisted', or the name of what went wrong.
        state TEXT NOT NULL,
        text TEXT,
        -- Wall times.
        complete_ms INTEGER,
        sent_ms INTEGER,
        buffering_ms INTEGER,
        received_ms INTEGER,
        persisted_ms INTEGER,
        listed_ms INTEGER,
        identical_ms INTEGER,
        PRIMARY KEY (camera, run, sequence)
    ) WITHOUT ROWID;
    CREATE INDEX fragment_time ON fragment (camera, timecode_ms);
    CREATE TABLE record (
        camera INTEGER NOT NULL,
        n INTEGER NOT NULL,
        -- Of a record about minutes: the first, counted from 1970, and how many.
        minute INTEGER,
        minutes INTEGER,
        final INTEGER NOT NULL,
        -- Where its line lies.
        file INTEGER NOT NULL,
        offset INTEGER NOT NULL,
        length INTEGER NOT NULL,
        PRIMARY KEY (camera, n)
    ) WITHOUT ROWID;
    CREATE INDEX record_minute ON record (camera, minute);
    CREATE TABLE file (
        camera INTEGER NOT NULL,
        number INTEGER NOT NULL,
        scanned_to INTEGER NOT NULL,
        PRIMARY KEY (camera, number)
    ) WITHOUT ROWID;
    -- The newest record of each chain, and the oldest that was not removed for its age.
    CREATE TABLE chain (camera INTEGER PRIMARY KEY, first INTEGER NOT NULL, n INTEGER NOT NULL, sum BLOB NOT NULL);
    CREATE TABLE schema (oldest_reader INTEGER NOT NULL);
    INSERT INTO schema VALUES (1);
"];

const COLUMNS: &str =
    "run, sequence, timecode_ms, end_ms, bytes, blocks, payload, heads, number, state, text,
    complete_ms, sent_ms, buffering_ms, received_ms, persisted_ms, listed_ms, identical_ms";

/// Where a line lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: u64,
    pub(super) offset: u64,
    pub(super) length: u64,
}

pub(super) struct LedgerTables {
    db: Connection,
}

impl LedgerTables {
    pub(super) fn open(path: &Path) -> Result<Self, IndexError> {
        Self::with(index::database(path)?)
    }

    pub(super) fn anew(path: &Path) -> Result<(Self, Option<PathBuf>), IndexError> {
        let aside = index::put_aside(path);
        Ok((Self::open(path)?, aside))
    }

    pub(super) fn in_memory() -> Result<Self, IndexError> {
        Self::with(Connection::open_in_memory()?)
    }

    fn with(mut db: Connection) -> Result<Self, IndexError> {
        db.pragma_update(None, "temp_store", "MEMORY")?;
        index::upgrade(&mut db, &STEPS)?;
        Ok(Self { db })
    }

    pub(super) fn camera(&self, name: &str) -> Result<i64, IndexError> {
        self.db.execute("INSERT OR IGNORE INTO camera (name) VALUES (?1)", [name])?;
        Ok(self.db.query_row("SELECT id FROM camera WHERE name = ?1", [name], |row| row.get(0))?)
    }

    pub(super) fn cameras(&self) -> Result<Vec<(i64, String)>, IndexError> {
        let mut query = self.db.prepare("SELECT id, name FROM camera")?;
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(super) fn put(&mut self, camera: i64, rows: &[Row]) -> Result<(), IndexError> {
        let change = self.db.transaction()?;
        for row in rows {
            let known = change
                .prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM fragment WHERE camera = ?1 AND run = ?2 AND sequence = ?3"
                ))?
                .query_row(params![camera, sql(row.id.run.as_u64()), sql(row.id.sequence)], fragment)
                .optional()?;
            let row = known.map_or_else(|| row.clone(), |known| known.merge(row.clone()));
            let state = match row.state {
                RowState::Waiting => "waiting",
                RowState::Persisted => "persisted",
                RowState::Bad(cause) => cause.name(),
            };
            let times = row.times;
            change
                .prepare_cached(&format!(
                    "INSERT OR REPLACE INTO fragment (camera, {COLUMNS}) VALUES
                     (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)"
                ))?
                .execute(params![
                    camera,
                    sql(row.id.run.as_u64()),
                    sql(row.id.sequence),
                    sql(row.timecode_ms),
                    sql(row.end_ms),
                    row.bytes.map(sql),
                    row.blocks,
                    row.sums.map(|sums| sums.payload.0),
                    row.sums.map(|sums| sums.heads.0),
                    row.number.map(|number| number.to_string()),
                    state,
                    row.text,
                    times.complete.map(sql),
                    times.sent.map(sql),
                    times.buffering.map(sql),
                    times.received.map(sql),
                    times.persisted.map(sql),
                    times.listed.map(sql),
                    times.identical.map(sql),
                ])?;
        }
        change.commit()?;
        Ok(())
    }

    /// Fragments that begin in this time, oldest first.
    pub(super) fn between(&self, camera: i64, from_ms: u64, to_ms: u64) -> Result<Vec<Row>, IndexError> {
        let mut query = self.db.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM fragment WHERE camera = ?1 AND timecode_ms >= ?2 AND timecode_ms < ?3 ORDER BY timecode_ms"
        ))?;
        let rows = query.query_map(params![camera, sql(from_ms), sql(to_ms)], fragment)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(super) fn waiting_before(&self, camera: i64, run: RunId) -> Result<Vec<Row>, IndexError> {
        let mut query = self.db.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM fragment WHERE camera = ?1 AND run < ?2 AND state = 'waiting' ORDER BY timecode_ms"
        ))?;
        let rows = query.query_map(params![camera, sql(run.as_u64())], fragment)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(super) fn end_before(&self, camera: i64, ms: u64) -> Result<Option<u64>, IndexError> {
        let text = "SELECT end_ms FROM fragment WHERE camera = ?1 AND timecode_ms < ?2 ORDER BY timecode_ms DESC LIMIT 1";
        Ok(self
            .db
            .prepare_cached(text)?
            .query_row(params![camera, sql(ms)], |row| number(row, 0))
            .optional()?)
    }

    pub(super) fn first_from(&self, camera: i64, ms: u64) -> Result<Option<u64>, IndexError> {
        let text = "SELECT timecode_ms FROM fragment WHERE camera = ?1 AND timecode_ms >= ?2 ORDER BY timecode_ms LIMIT 1";
        Ok(self
            .db
            .prepare_cached(text)?
            .query_row(params![camera, sql(ms)], |row| number(row, 0))
            .optional()?)
    }

    /// Where the newest line about a minute lies.
    pub(super) fn newest(&self, camera: i64, minute: u64) -> Result<Option<Place>, IndexError> {
        let text = "SELECT file, offset, length FROM record
             WHERE camera = ?1 AND minute <= ?2 AND minute + minutes > ?2 ORDER BY n DESC LIMIT 1";
        let found =
            self.db.prepare_cached(text)?.query_row(params![camera, sql(minute)], place).optional()?;
        Ok(found)
    }

    /// A line lies there, and is the newest of its chain.
    pub(super) fn add(
        &mut self,
        camera: i64,
        line: &Line,
        at: Place,
        is_final: bool,
    ) -> Result<(), IndexError> {
        let summary = line.record.summary();
        let minute = summary.map(|summary| sql(Minute::of(summary.minute_ms).since(Minute::of(0))));
        let minutes = summary.map(|summary| sql(summary.minutes));
        let change = self.db.transaction()?;
        let n = sql(line.record.n);
        change
            .prepare_cached("INSERT OR REPLACE INTO record VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
            .execute(params![
                camera,
                n,
                minute,
                minutes,
                is_final,
                sql(at.file),
                sql(at.offset),
                sql(at.length)
            ])?;
        change
            .prepare_cached(
                "INSERT INTO chain VALUES (?1, ?2, ?2, ?3)
                 ON CONFLICT (camera) DO UPDATE SET n = excluded.n, sum = excluded.sum WHERE excluded.n >= chain.n",
            )?
            .execute(params![camera, n, line.sum.0])?;
        scanned(&change, camera, at.file, at.offset + at.length)?;
        change.commit()?;
        Ok(())
    }

    pub(super) fn scanned(&self, camera: i64, file: u64, to: u64) -> Result<(), IndexError> {
        Ok(scanned(&self.db, camera, file, to)?)
    }

    /// How far a file is in here.
    pub(super) fn scanned_to(&self, camera: i64, file: u64) -> Result<u64, IndexError> {
        let text = "SELECT scanned_to FROM file WHERE camera = ?1 AND number = ?2";
        let found = self.db.query_row(text, params![camera, sql(file)], |row| number(row, 0)).optional()?;
        Ok(found.unwrap_or(0))
    }

    /// The newest record of the chain, and the oldest that is to be there.
    pub(super) fn chain(&self, camera: i64) -> Result<Option<(u64, Head)>, IndexError> {
        let text = "SELECT first, n, sum FROM chain WHERE camera = ?1";
        Ok(self.db.query_row(text, [camera], head).optional()?)
    }

    /// The newest record whose line lies in one of the files there are.
    pub(super) fn newest_n(&self, camera: i64, file: u64) -> Result<Option<u64>, IndexError> {
        let text = "SELECT MAX(n) FROM record WHERE camera = ?1 AND file = ?2";
        Ok(self
            .db
            .query_row(text, params![camera, sql(file)], |row| row.get::<_, Option<i64>>(0))?
            .and_then(|n| u64::try_from(n).ok()))
    }

    pub(super) fn forget_file(&mut self, camera: i64, file: u64) -> Result<(), IndexError> {
        let change = self.db.transaction()?;
        for text in [
            "DELETE FROM record WHERE camera = ?1 AND file = ?2",
            "DELETE FROM file WHERE camera = ?1 AND number = ?2",
        ] {
            change.execute(text, params![camera, sql(file)])?;
        }
        change.commit()?;
        Ok(())
    }

    pub(super) fn begins_at(&self, camera: i64, first: u64) -> Result<(), IndexError> {
        self.db.execute("UPDATE chain SET first = ?2 WHERE camera = ?1", params![camera, sql(first)])?;
        Ok(())
    }

    /// Behind the newest minute that was written down, counted from 1970; and earlier ones that may still change.
    pub(super) fn open_minutes(&self, camera: i64) -> Result<(Option<u64>, Vec<u64>), IndexError> {
        let text = "SELECT MAX(minute + minutes) FROM record WHERE camera = ?1";
        let next: Option<i64> = self.db.query_row(text, [camera], |row| row.get(0))?;
        let mut query = self.db.prepare(
            "SELECT minute FROM record AS one WHERE camera = ?1 AND final = 0 AND minute IS NOT NULL
             AND NOT EXISTS (SELECT 1 FROM record WHERE camera = ?1 AND minute = one.minute AND n > one.n)
             ORDER BY minute DESC LIMIT 20000",
        )?;
        let minutes = query.query_map([camera], |row| number(row, 0))?;
        Ok((next.and_then(|next| u64::try_from(next).ok()), minutes.collect::<Result<_, _>>()?))
    }

    /// Rows of minutes before `before_ms` go, but for those of which something waits; before `at_last_ms` all.
    pub(super) fn forget_rows(
        &mut self,
        camera: i64,
        before_ms: u64,
        at_last_ms: u64,
    ) -> Result<(), IndexError> {
        self.db.execute(
            "DELETE FROM fragment WHERE camera = ?1 AND timecode_ms < ?2 AND (timecode_ms < ?3 OR timecode_ms / 60000 NOT IN
             (SELECT timecode_ms / 60000 FROM fragment WHERE camera = ?1 AND timecode_ms < ?2 AND state = 'waiting'))",
            params![camera, sql(before_ms), sql(at_last_ms)],
        )?;
        Ok(())
    }
}

/// What the index at `path` says of each chain: camera, oldest, newest. Nothing in it is changed.
pub(super) fn heads(path: &Path) -> Result<Vec<(String, u64, Head)>, IndexError> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut query =
        db.prepare("SELECT first, n, sum, name FROM chain JOIN camera ON camera.id = chain.camera")?;
    let rows = query.query_map([], |row| {
        let (first, head) = head(row)?;
        Ok((row.get(3)?, first, head))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn scanned(db: &Connection, camera: i64, file: u64, to: u64) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO file VALUES (?1, ?2, ?3) ON CONFLICT (camera, number) DO UPDATE SET scanned_to = excluded.scanned_to",
    )?
    .execute(params![camera, sql(file), sql(to)])?;
    Ok(())
}

fn place(row: &SqlRow<'_>) -> rusqlite::Result<Place> {
    Ok(Place { file: number(row, 0)?, offset: number(row, 1)?, length: number(row, 2)? })
}

fn head(row: &SqlRow<'_>) -> rusqlite::Result<(u64, Head)> {
    Ok((number(row, 0)?, Head { n: number(row, 1)?, sum: Sha256Sum(row.get(2)?) }))
}

fn fragment(row: &SqlRow<'_>) -> rusqlite::Result<Row> {
    let run = RunId::from_u64(number(row, 0)?).unwrap_or(RunId::UNKNOWN);
    let at = |column| {
        Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.and_then(|ms| u64::try_from(ms).ok()))
    };
    let sums = row.get::<_, Option<[u8; 32]>>(6)?.zip(row.get::<_, Option<[u8; 32]>>(7)?);
    let state: String = row.get(9)?;
    Ok(Row {
        id: FragmentId { run, sequence: number(row, 1)? },
        timecode_ms: number(row, 2)?,
        end_ms: number(row, 3)?,
        bytes: at(4)?,
        blocks: row.get(5)?,
        sums: sums
            .map(|(payload, heads)| ClusterSums { payload: Sha256Sum(payload), heads: Sha256Sum(heads) }),
        number: row.get::<_, Option<String>>(8)?.and_then(|text| text.parse::<FragmentNumber>().ok()),
        state: match state.as_str() {
            "waiting" => RowState::Waiting,
            "persisted" => RowState::Persisted,
            name => RowState::Bad(Cause::of(name)),
        },
        text: row.get(10)?,
        times: RowTimes {
            complete: at(11)?,
            sent: at(12)?,
            buffering: at(13)?,
            received: at(14)?,
            persisted: at(15)?,
            listed: at(16)?,
            identical: at(17)?,
        },
    })
}
