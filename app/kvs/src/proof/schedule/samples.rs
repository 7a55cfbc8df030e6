//! Which fragments are fetched by their numbers: those that are late or bad, a sample of what is new, and now and then one that
//! was proven before: it may have been damaged since.

use std::time::{Duration, Instant};

use super::{ProofMode, Schedule, minute_of};
use crate::ledger::{Ledger, Record, Stage};
use crate::proof::records::Minute;
use crate::{FragmentId, FragmentNumber};

impl Schedule {
    pub(super) fn plan_fetches(&mut self, ledger: &Ledger, random: f64, now: Instant) {
        let may_look = self.may_read(1, now);
        let due = |record: &Record| {
            let number = record.number.filter(|_| self.look_at(record).is_some_and(|at| at <= now))?;
            Some((record.id, number))
        };
        let looks = self.view.next_look.is_some_and(|at| at <= now) && may_look;
        let mut fragments: Vec<_> = if looks {
            ledger.records_after(self.settled_to).filter_map(due).take(self.config.batch).collect()
        } else {
            Vec::new()
        };
        if fragments.is_empty() && now >= self.next_sample && self.can_sample() {
            let chosen = self.choose(ledger, random).and_then(|id| ledger.get(id));
            let bytes = chosen.and_then(|record| Some(record.summary.as_ref()?.cluster_bytes)).unwrap_or(1);
            self.next_sample = now + self.config.sample_every;
            if self.may_read(bytes, now) {
                fragments.extend(chosen.and_then(|record| Some((record.id, record.number?))));
                (self.sampled_at, self.view.newest) = (Some(now), None);
                self.view.samples.clear();
            } else if let Some(budget) = &self.budget {
                self.next_sample = self.next_sample.max(budget.ready_at(bytes));
            }
        }
        if fragments.is_empty() && now >= self.next_again && self.can_look_again() {
            self.next_again = now + self.config.again_every;
            let chosen = self.choose_again(ledger, random, now);
            if let Some((id, number, bytes)) = chosen
                && self.may_read(bytes, now)
            {
                self.again = Some(id);
                fragments.push((id, number));
            }
        }
        self.fetches.add(&fragments, self.config.batch);
    }

    /// Whether what is proven is to be looked at once more, when its time has come.
    pub(super) fn can_look_again(&self) -> bool {
        self.config.mode != ProofMode::Off && self.stop.is_none() && self.last_kept.is_some()
    }

    /// Any that was found identical a while ago, and that even the shortest retention still keeps.
    fn choose_again(
        &self,
        ledger: &Ledger,
        random: f64,
        now: Instant,
    ) -> Option<(FragmentId, FragmentNumber, u64)> {
        let is_old = |record: &Record| {
            let age = record.times.persisted.map(|at| now.saturating_duration_since(at));
            age.is_some_and(|age| (self.config.again_after..self.config.ask_for).contains(&age))
        };
        let proven = |record: &&Record| record.stage == Stage::Identical && is_old(record);
        let all: Vec<_> = ledger.records().filter(proven).collect();
        let record = all.get(place(random, all.len()))?;
        Some((record.id, record.number?, record.summary.as_ref()?.cluster_bytes))
    }

    pub(super) fn can_sample(&self) -> bool {
        self.config.mode == ProofMode::Sampled && self.stop.is_none() && self.view.newest.is_some()
    }

    /// Any of the last whole minute, so that each minute has one; where samples are rarer, any of those that came since the
    /// last one; or the newest that was never looked at.
    fn choose(&self, ledger: &Ledger, random: f64) -> Option<FragmentId> {
        let newest = self.view.newest.and_then(|id| ledger.get(id)).map(minute_of);
        let each_minute = self.config.sample_every <= Duration::from_secs(60);
        let last = |minute: Minute| newest.is_some_and(|newest| newest.since(minute) == 1);
        let of = |wanted: &dyn Fn(&(FragmentId, Minute, bool)) -> bool| -> Vec<_> {
            self.view.samples.iter().filter(|one| wanted(one)).map(|(id, _, _)| *id).collect()
        };
        let mut samples = of(&|(_, minute, _)| each_minute && last(*minute));
        if samples.is_empty() {
            samples = of(&|(_, _, is_new)| *is_new);
        }
        samples.get(place(random, samples.len())).copied().or(self.view.newest)
    }
}

/// A place in a list of so many, by a number from 0 to below 1.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a place in a short list"
)]
fn place(random: f64, of: usize) -> usize {
    ((random.clamp(0.0, 1.0) * of as f64) as usize).min(of.saturating_sub(1))
}
