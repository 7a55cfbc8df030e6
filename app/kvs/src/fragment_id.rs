//! The name of a fragment: which run recorded it, and the how-manieth of that run it is.
//!
//! A run is one camera in one life of the process. Its number is drawn when the camera is first started, so that no two
//! fragments of a box ever share a name, also across restarts and power cuts. The sequence goes on when the camera is
//! restarted within the process: it has no hole unless a fragment is missing.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Number of a run, 40 bits; prints as ten hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(u64);

/// Name of a fragment; prints as `9f3c2a1b04-18233`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FragmentId {
    pub run: RunId,
    /// From 1, one more with each fragment of the run.
    pub sequence: u64,
}

/// Why a text names no run or fragment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("found `{found}`, expected RUN-SEQUENCE such as 9f3c2a1b04-18233")]
pub struct FragmentIdError {
    /// At most 32 characters of it.
    pub found: String,
}

/// Hands out the names of one run; clones count on together.
#[derive(Clone, Debug)]
pub struct FragmentIds {
    run: RunId,
    next: Arc<AtomicU64>,
}

impl RunId {
    const MASK: u64 = (1 << 40) - 1;
    /// Of fragments from before runs had numbers.
    pub const UNKNOWN: Self = Self(0);

    /// From a random number, of which 40 bits count; never [`UNKNOWN`](Self::UNKNOWN).
    pub fn new(random: u64) -> Self {
        Self((random & Self::MASK).max(1))
    }

    /// Likewise, and greater than `before`, so that names keep the order of recording. Where little room is left above it,
    /// any run will do: names are unique all the same.
    pub fn after(before: Option<Self>, random: u64) -> Self {
        /// So many runs are skipped at most.
        const STEP: u64 = 1 << 20;
        match before {
            Some(Self(before)) if before <= Self::MASK - STEP => Self(before + 1 + random % STEP),
            Some(_) => Self::new(random),
            // Half of all are left for those that come after.
            None => Self::new(random & (Self::MASK >> 1)),
        }
    }

    /// As a number, for files.
    pub fn as_u64(self) -> u64 {
        self.0
    }

    /// From [`as_u64`](Self::as_u64).
    pub fn from_u64(number: u64) -> Option<Self> {
        (number <= Self::MASK).then_some(Self(number))
    }
}

impl FragmentIds {
    pub fn new(run: RunId) -> Self {
        Self { run, next: Arc::new(AtomicU64::new(1)) }
    }

    pub fn run(&self) -> RunId {
        self.run
    }

    /// Another name than all before.
    pub fn next_id(&self) -> FragmentId {
        FragmentId { run: self.run, sequence: self.next.fetch_add(1, Ordering::Relaxed) }
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010x}", self.0)
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RunId {
    type Err = FragmentIdError;

    fn from_str(text: &str) -> Result<Self, FragmentIdError> {
        let digits = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let run = u64::from_str_radix(text, 16).ok().filter(|_| digits);
        run.map(Self).ok_or_else(|| wrong(text))
    }
}

impl fmt::Display for FragmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.run, self.sequence)
    }
}

impl fmt::Debug for FragmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for FragmentId {
    type Err = FragmentIdError;

    fn from_str(text: &str) -> Result<Self, FragmentIdError> {
        let (run, sequence) = text.split_once('-').ok_or_else(|| wrong(text))?;
        let plain = sequence.bytes().all(|byte| byte.is_ascii_digit());
        let sequence = sequence.parse().ok().filter(|_| plain).ok_or_else(|| wrong(text))?;
        Ok(Self { run: run.parse().map_err(|_| wrong(text))?, sequence })
    }
}

fn wrong(text: &str) -> FragmentIdError {
    FragmentIdError { found: text.chars().take(32).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_never_hand_out_a_name_twice() {
        let ids = FragmentIds::new(RunId::new(7));
        let after_a_restart = ids.clone();
        let names = [ids.next_id(), after_a_restart.next_id(), ids.next_id()];
        assert_eq!(names.map(|id| id.sequence), [1, 2, 3]);
        assert!(names.iter().all(|id| id.run == ids.run()));
    }

    #[test]
    fn a_later_run_has_the_greater_number() {
        let mut run = RunId::after(None, u64::MAX);
        for random in [0, 1, u64::MAX, 1 << 39] {
            let next = RunId::after(Some(run), random);
            assert!(next > run && next.as_u64() - run.as_u64() <= 1 << 20, "{run} {next}");
            assert_eq!(RunId::from_u64(next.as_u64()), Some(next));
            run = next;
        }
        let last = RunId::new(u64::MAX);
        assert_ne!(RunId::after(Some(last), 5), last);
        assert_eq!(RunId::from_u64(last.as_u64() + 1), None);
    }

    #[test]
    fn names_are_written_and_read() {
        let id = FragmentId { run: RunId::new(0x009f_3c2a_1b04), sequence: 18_233 };
        assert_eq!(id.to_string(), "9f3c2a1b04-18233");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(RunId::new(u64::MAX).to_string(), "ffffffffff");
        assert_ne!(RunId::new(0), RunId::UNKNOWN);
        for text in
            ["", "9f3c2a1b04", "9f3c2a1b04-", "9f3c2a1b04--1", "9f3c2a1b0-1", "+f3c2a1b04-1", "9f3c2a1b04-+1"]
        {
            assert_eq!(text.parse::<FragmentId>(), Err(FragmentIdError { found: text.to_owned() }));
        }
    }
}
