//! The bytes of records, and how each holds on to the one before.
//!
//! ```text
//!  line:  SHA-256 of the body in 64 hexadecimal digits, a space, the body, a line feed
//!  body:  one JSON object without a line feed:  {"v":1,"n":18,"prev":"...","chain":"box/cam","at_ms":...,"kind":"minute",...}
//! ```
//!
//! The sum is over the bytes of the body as they stand there, and `prev` is the sum of the line before (64 zeros in the first).
//! So a chain is checked without knowing what any field means, by `sha256sum` if need be, and by releases before and after this
//! one. `n` counts the lines of a chain from 0.
//!
//! What a chain shows by itself: a changed, removed, added or moved line. What it cannot show by itself: that its newest lines
//! are gone, or that all of it was written anew. For that compare its head with what somebody else was told: the sum of the
//! newest line stands in every `verify` message.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Summary;
use crate::identity::Sha256Sum;

/// Longest line that is read.
pub const MOST_BYTES: usize = 64 << 10;
const HEX: usize = 64;
const VERSION: u32 = 1;

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub v: u32,
    pub n: u64,
    /// Sum of the line before.
    pub prev: String,
    /// `DEVICE/CAMERA`.
    pub chain: String,
    /// Wall time at which it was written.
    pub at_ms: u64,
    #[serde(flatten)]
    pub entry: Entry,
}

/// Why a line was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Entry {
    /// The chain begins here.
    Begin { text: String },
    /// What is known of a minute. `amends`: an earlier line about it, which counts no more.
    Minute {
        #[serde(skip_serializing_if = "Option::is_none", default)]
        amends: Option<u64>,
        #[serde(flatten)]
        summary: Box<Summary>,
    },
    /// What stood between the line before and this one is gone, or cannot be read.
    Break { text: String },
    /// Of a later release.
    #[serde(other)]
    Unknown,
}

impl Record {
    /// The minute that it is about.
    pub fn summary(&self) -> Option<&Summary> {
        match &self.entry {
            Entry::Minute { summary, .. } => Some(summary),
            _ => None,
        }
    }

    pub fn amends(&self) -> Option<u64> {
        match &self.entry {
            Entry::Minute { amends, .. } => *amends,
            _ => None,
        }
    }
}

/// The newest line of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub n: u64,
    pub sum: Sha256Sum,
}

/// One line as it stands in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// As it is written in front of the body.
    pub sum: Sha256Sum,
    pub record: Record,
    pub body: String,
}

/// What every line says, whatever its entry is.
#[derive(Deserialize)]
struct Place {
    v: u32,
    n: u64,
    prev: String,
    chain: String,
    at_ms: u64,
}

/// Why bytes are no line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    #[error("the line has {found} bytes, expected a sum of {HEX} hexadecimal digits, a space and a record")]
    Short { found: usize },
    #[error("the line has {found} bytes, the longest has {MOST_BYTES}")]
    Long { found: usize },
    #[error("the line is not text")]
    NotText,
    #[error("the line begins with no sum")]
    NoSum,
    #[error("the record cannot be read: {0}")]
    Body(String),
}

impl Line {
    /// Reads a line, without its line feed. Whether its sum is right is another question: see [`is_whole`](Self::is_whole).
    pub fn parse(bytes: &[u8]) -> Result<Self, LineError> {
        if bytes.len() > MOST_BYTES {
            return Err(LineError::Long { found: bytes.len() });
        }
        let text = std::str::from_utf8(bytes).map_err(|_| LineError::NotText)?;
        let (sum, body) = text.split_once(' ').ok_or(LineError::Short { found: bytes.len() })?;
        let sum = sum.parse().map_err(|_| LineError::NoSum)?;
        let record = match serde_json::from_str(body) {
            Ok(record) => record,
            // What a later release says of a minute in other words.
            Err(error) => {
                let place = serde_json::from_str::<Place>(body);
                let Place { v, n, prev, chain, at_ms } =
                    place.map_err(|_| LineError::Body(error.to_string()))?;
                Record { v, n, prev, chain, at_ms, entry: Entry::Unknown }
            }
        };
        Ok(Self { sum, record, body: body.to_owned() })
    }

    /// Its sum is that of its body.
    pub fn is_whole(&self) -> bool {
        Sha256Sum::of(self.body.as_bytes()) == self.sum
    }

    pub fn head(&self) -> Head {
        Head { n: self.record.n, sum: self.sum }
    }

    /// As it is written, with its line feed.
    pub fn to_bytes(&self) -> Vec<u8> {
        format!("{} {}\n", self.sum, self.body).into_bytes()
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.sum, self.body)
    }
}

/// The end of a chain, to which lines are added.
#[derive(Clone, Debug)]
pub struct Chain {
    name: String,
    head: Option<Head>,
}

impl Chain {
    /// `head`: its newest line; `None` where there is none yet.
    pub fn new(name: impl Into<String>, head: Option<Head>) -> Self {
        Self { name: name.into(), head }
    }

    pub fn head(&self) -> Option<Head> {
        self.head
    }

    /// The next line. It is in the chain once [`add`](Self::add) was called, when it is on disk.
    pub fn next(&self, entry: Entry, at_ms: u64) -> Line {
        let n = self.head.map_or(0, |head| head.n + 1);
        let prev = self.head.map_or(Sha256Sum([0; 32]), |head| head.sum).to_string();
        let record = Record { v: VERSION, n, prev, chain: self.name.clone(), at_ms, entry };
        let body = serde_json::to_string(&record).expect("a record has nothing that JSON cannot say");
        Line { sum: Sha256Sum::of(body.as_bytes()), record, body }
    }

    pub fn add(&mut self, line: &Line) {
        self.head = Some(line.head());
    }

    /// Lines up to this one were known, and are gone: the next one shall not have a number of theirs.
    pub fn skip_to(&mut self, n: u64) {
        if let Some(head) = &mut self.head {
            head.n = head.n.max(n);
        } else {
            self.head = Some(Head { n, sum: Sha256Sum([0; 32]) });
        }
    }
}
