//! What is kept of one fragment until its minute is proven.

use std::time::Instant;

use crate::cluster_sums::ClusterSums;
use crate::ledger::{self, Change, LossReason, Stage};
use crate::{FragmentId, FragmentNumber};

use super::summary::Cause;

/// One fragment. What is not known is absent; a later row of the same fragment adds to it, see [`Row::merge`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub id: FragmentId,
    pub timecode_ms: u64,
    /// Time of its last block.
    pub end_ms: u64,
    /// Of its cluster.
    pub bytes: Option<u64>,
    pub blocks: Option<u32>,
    /// Over its cluster as it was sent.
    pub sums: Option<ClusterSums>,
    pub number: Option<FragmentNumber>,
    pub state: RowState,
    /// What was found, in words, where that is bad.
    pub text: Option<String>,
    pub times: RowTimes,
}

/// What became of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowState {
    /// Nothing yet.
    Waiting,
    /// KVS keeps it.
    Persisted,
    /// It is not in KVS, or not as it was sent.
    Bad(Cause),
}

/// Wall times in ms at which it reached each step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowTimes {
    pub complete: Option<u64>,
    /// Its last byte was handed to the connection.
    pub sent: Option<u64>,
    /// Its acks, the first of each kind.
    pub buffering: Option<u64>,
    pub received: Option<u64>,
    /// KVS keeps it, by its ack or by a look.
    pub persisted: Option<u64>,
    pub listed: Option<u64>,
    /// It was read back and is equal byte for byte.
    pub identical: Option<u64>,
}

impl Row {
    /// As the ledger has it. `wall_ms`: wall time at a moment.
    pub fn of(record: &ledger::Record, wall_ms: &dyn Fn(Instant) -> u64) -> Self {
        let at = |moment: Option<Instant>| moment.map(wall_ms);
        let times = &record.times;
        let (state, text) = match (&record.stage, &record.misstated) {
            (Stage::Lost(reason), _) => lost(reason),
            (Stage::Missing, _) => (RowState::Bad(Cause::Missing), None),
            (Stage::Corrupt(mismatch), _) => (RowState::Bad(Cause::Corrupt), Some(mismatch.to_string())),
            (_, Some(misstated)) => (RowState::Bad(Cause::Misstated), Some(misstated.to_string())),
            _ if record.is_kept() => (RowState::Persisted, None),
            _ => (RowState::Waiting, None),
        };
        let summary = record.summary.as_ref();
        Self {
            id: record.id,
            timecode_ms: record.timecode.as_millis(),
            end_ms: record.end().as_millis(),
            bytes: summary.map(|summary| summary.cluster_bytes),
            blocks: summary.map(|summary| summary.blocks),
            sums: summary.map(|summary| summary.sums),
            number: record.number,
            state,
            text,
            times: RowTimes {
                complete: at(times.complete),
                sent: at(times.sent),
                buffering: at(times.buffering),
                received: at(times.received),
                persisted: at(times.persisted),
                listed: at(times.listed),
                identical: at(times.identical),
            },
        }
    }

    /// What one entry of the log says of a fragment that the ledger has forgotten since. `None`: nothing.
    pub fn of_entry(entry: &ledger::Entry, wall_ms: &dyn Fn(Instant) -> u64) -> Option<Self> {
        let at = Some(wall_ms(entry.at));
        let timecode_ms = entry.timecode.as_millis();
        let mut row = Self {
            id: entry.id,
            timecode_ms,
            end_ms: timecode_ms,
            bytes: None,
            blocks: None,
            sums: None,
            number: None,
            state: RowState::Waiting,
            text: None,
            times: RowTimes::default(),
        };
        match &entry.change {
            Change::Begun | Change::Duplicate(_) | Change::Unproven => return None,
            Change::Complete(summary) => {
                row.end_ms = summary.end().as_millis();
                (row.bytes, row.blocks) = (Some(summary.cluster_bytes), Some(summary.blocks));
                (row.sums, row.times.complete) = (Some(summary.sums), at);
            }
            Change::Persisted { number, end } => {
                (row.state, row.number, row.end_ms) = (RowState::Persisted, *number, end.as_millis());
                row.times.persisted = at;
            }
            Change::Listed => (row.state, row.times.listed) = (RowState::Persisted, at),
            Change::Identical { .. } => (row.state, row.times.identical) = (RowState::Persisted, at),
            Change::Lost { end, reason } => {
                row.end_ms = end.as_millis();
                (row.state, row.text) = lost(reason);
            }
            Change::Missing => row.state = RowState::Bad(Cause::Missing),
            Change::Corrupt(mismatch) => {
                (row.state, row.text) = (RowState::Bad(Cause::Corrupt), Some(mismatch.to_string()));
            }
            Change::Misstated(misstated) => {
                (row.state, row.text) = (RowState::Bad(Cause::Misstated), Some(misstated.to_string()));
            }
        }
        Some(row)
    }

    /// What `newer` says is added. A life of the process that has only just recalled the fragment from the disk does not undo
    /// what an earlier one knew of it.
    #[must_use]
    pub fn merge(self, newer: Self) -> Self {
        let (old, new) = (self.times, newer.times);
        let silent = newer.state == RowState::Waiting;
        Self {
            id: self.id,
            timecode_ms: self.timecode_ms,
            end_ms: self.end_ms.max(newer.end_ms),
            bytes: newer.bytes.or(self.bytes),
            blocks: newer.blocks.or(self.blocks),
            sums: newer.sums.or(self.sums),
            number: newer.number.or(self.number),
            state: if silent { self.state } else { newer.state },
            text: if silent { self.text } else { newer.text },
            times: RowTimes {
                complete: old.complete.or(new.complete),
                sent: new.sent.or(old.sent),
                buffering: new.buffering.or(old.buffering),
                received: new.received.or(old.received),
                persisted: old.persisted.or(new.persisted),
                listed: old.listed.or(new.listed),
                identical: old.identical.or(new.identical),
            },
        }
    }

    /// KVS keeps it as it was sent, as far as anybody has looked.
    pub fn is_persisted(&self) -> bool {
        self.state == RowState::Persisted
    }

    /// It was compared with what is in KVS, byte for byte.
    pub fn is_identical(&self) -> bool {
        self.is_persisted() && self.times.identical.is_some()
    }
}

fn lost(reason: &LossReason) -> (RowState, Option<String>) {
    let cause = match reason {
        LossReason::WindowFull => Cause::WindowFull,
        LossReason::SpoolFull => Cause::SpoolFull,
        LossReason::SpoolDamaged => Cause::SpoolDamaged,
        LossReason::Refused(_) => Cause::Refused,
        LossReason::Crashed => Cause::Crashed,
        LossReason::Stopped => Cause::Stopped,
    };
    (RowState::Bad(cause), Some(reason.to_string()))
}
