//! The tag with which each of our clusters says what it is.
//!
//! The service cuts chunks at cluster starts, so a tag written after cluster n comes back inside chunk n (facts
//! 2.3, measured on captures). Whoever reads the stream can therefore check a fragment without our ledger: the
//! device and camera it came from, its place in the sequence, and the SHA-256 of its block payloads.
//!
//! ```text
//! KVS_EDGE_FRAGMENT = 1 dev=box-7f3a cam=dock-2 run=9f3c2a1b04 seq=18233 tc=1795186073633 n=50 sha256=0138...f6cf
//! ```
//!
//! The timecode stands in the value because readers differ in which cluster they attach a tag to.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::{FragmentId, RunId};

/// Name of the tag.
pub const NAME: &str = "KVS_EDGE_FRAGMENT";
/// Longest device or camera id: keeps the value under the 256 bytes that KVS allows.
pub const MAX_ID_BYTES: usize = 48;

const VERSION: &str = "1";

/// What one fragment says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FragmentIdentity {
    /// `[A-Za-z0-9_-]`, at most [`MAX_ID_BYTES`]; other characters are written as `_`.
    pub device: String,
    /// As `device`.
    pub camera: String,
    /// Its name. A tag from before runs had numbers has no `run`: then it is [`RunId::UNKNOWN`].
    pub id: FragmentId,
    /// The cluster's timecode: producer timestamp in ms.
    pub timecode_ms: u64,
    /// Blocks in the cluster, all tracks.
    pub blocks: u32,
    /// Over all block payloads in order.
    pub payload_sha256: Sha256Sum,
}

/// A SHA-256 sum; prints as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256Sum(pub [u8; 32]);

impl Sha256Sum {
    /// Sums one buffer.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Sha256Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Sha256Sum {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let wrong = || IdentityError::Field { key: "sha256" };
        let mut sum = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(wrong());
        }
        for (byte, pair) in sum.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(sum))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("fragment identity has version `{found}`, this program reads version 1")]
    Version { found: String },
    #[error("fragment identity has no valid `{key}`")]
    Field { key: &'static str },
}

impl fmt::Display for FragmentIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, camera, id: FragmentId { run, sequence }, timecode_ms, blocks, payload_sha256 } =
            self;
        let (device, camera) = (plain(device), plain(camera));
        write!(
            f,
            "{VERSION} dev={device} cam={camera} run={run} seq={sequence} tc={timecode_ms} n={blocks} \
             sha256={payload_sha256}"
        )
    }
}

fn plain(text: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    text.chars().take(MAX_ID_BYTES).map(allowed).collect()
}

impl FromStr for FragmentIdentity {
    type Err = IdentityError;

    /// Fields may come in any order, and unknown ones are left out: later versions may add some.
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let mut words = text.split_ascii_whitespace();
        let version = words.next().unwrap_or_default();
        if version != VERSION {
            return Err(IdentityError::Version { found: version.chars().take(16).collect() });
        }
        let value = |key: &'static str| {
            let found = words.clone().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            found.ok_or(IdentityError::Field { key })
        };
        fn number<N: FromStr>(key: &'static str, text: &str) -> Result<N, IdentityError> {
            text.parse().map_err(|_| IdentityError::Field { key })
        }
        let run = match value("run") {
            Ok(run) => run.parse().map_err(|_| IdentityError::Field { key: "run" })?,
            Err(_) => RunId::UNKNOWN,
        };
        Ok(Self {
            device: value("dev")?.to_owned(),
            camera: value("cam")?.to_owned(),
            id: FragmentId { run, sequence: number("seq", value("seq")?)? },
            timecode_ms: number("tc", value("tc")?)?,
            blocks: number("n", value("n")?)?,
            payload_sha256: value("sha256")?.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> FragmentIdentity {
        FragmentIdentity {
            device: "box-7f3a".to_owned(),
            camera: "dock-2".to_owned(),
            id: FragmentId { run: RunId::new(0x009f_3c2a_1b04), sequence: 18_233 },
            timecode_ms: 1_795_186_073_633,
            blocks: 50,
            payload_sha256: Sha256Sum::of(b"payload"),
        }
    }

    #[test]
    fn round_trip_within_the_limit_of_the_service() {
        let longest = FragmentIdentity {
            device: "d".repeat(200),
            camera: "c".repeat(200),
            id: FragmentId { run: RunId::new(u64::MAX), sequence: u64::MAX },
            timecode_ms: u64::MAX,
            blocks: u32::MAX,
            ..identity()
        };
        assert!(longest.to_string().len() <= crate::tag::MAX_VALUE_BYTES, "{}", longest.to_string().len());
        assert_eq!(identity().to_string().parse(), Ok(identity()));
    }

    #[test]
    fn a_tag_from_before_runs_had_numbers_is_read() {
        let old = identity().to_string().replace(" run=9f3c2a1b04", "");
        let read: FragmentIdentity = old.parse().expect("still readable");
        assert_eq!(read.id, FragmentId { run: RunId::UNKNOWN, sequence: 18_233 });
        let broken = identity().to_string().replace("run=9f", "run=xf").parse::<FragmentIdentity>();
        assert_eq!(broken, Err(IdentityError::Field { key: "run" }));
    }

    #[test]
    fn an_id_cannot_break_the_form() {
        let odd = FragmentIdentity { device: "a b=c\u{e9}".to_owned(), ..identity() };
        let read: FragmentIdentity = odd.to_string().parse().expect("still readable");
        assert_eq!(read.device, "a_b_c_");
    }

    #[test]
    fn wrong_values_are_named() {
        let text = identity().to_string();
        let error = |text: &str| text.parse::<FragmentIdentity>().unwrap_err();
        assert_eq!(error("2 dev=x"), IdentityError::Version { found: "2".to_owned() });
        assert_eq!(error(""), IdentityError::Version { found: String::new() });
        assert_eq!(error(&text.replace("n=50", "n=-1")), IdentityError::Field { key: "n" });
        assert_eq!(error(&text[..text.len() - 1]), IdentityError::Field { key: "sha256" });
        assert_eq!(error(&text.replace("cam=", "cat=")), IdentityError::Field { key: "cam" });
    }
}
