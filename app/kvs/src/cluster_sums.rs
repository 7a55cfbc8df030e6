//! What a cluster is proven by: two SHA-256 sums that together cover every byte once.
//!
//! The heads (all of the Cluster element but the block payloads) say how long each payload is. Two clusters with equal
//! sums are therefore equal byte for byte, and no byte is hashed twice: hashing is a quarter of what an upload costs.

use sha2::{Digest, Sha256};

use crate::identity::Sha256Sum;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClusterSums {
    /// Over the block payloads in order, all tracks.
    pub payload: Sha256Sum,
    /// Over everything else of the Cluster element, its own id and size included.
    pub heads: Sha256Sum,
}

/// Sums a cluster as it grows.
#[derive(Clone, Debug, Default)]
pub struct ClusterHasher {
    payload: Sha256,
    heads: Sha256,
    bytes: u64,
}

impl ClusterHasher {
    pub fn head(&mut self, bytes: &[u8]) {
        self.heads.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    pub fn payload(&mut self, bytes: &[u8]) {
        self.payload.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// The sums, and the length of the Cluster element in bytes.
    pub fn finish(self) -> (ClusterSums, u64) {
        let sum = |hasher: Sha256| Sha256Sum(hasher.finalize().into());
        (ClusterSums { payload: sum(self.payload), heads: sum(self.heads) }, self.bytes)
    }
}

impl ClusterSums {
    /// Where two clusters differ, both sums of that half; `None` when they are equal.
    pub fn difference(&self, other: &Self) -> Option<(Sha256Sum, Sha256Sum)> {
        let halves = [(self.payload, other.payload), (self.heads, other.heads)];
        halves.into_iter().find(|(ours, theirs)| ours != theirs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(pieces: &[(&str, &str)]) -> ClusterSums {
        let mut hasher = ClusterHasher::default();
        for (head, payload) in pieces {
            hasher.head(head.as_bytes());
            hasher.payload(payload.as_bytes());
        }
        let (sums, bytes) = hasher.finish();
        assert_eq!(
            bytes,
            pieces.iter().map(|(head, payload)| head.len() + payload.len()).sum::<usize>() as u64
        );
        sums
    }

    #[test]
    fn each_half_is_told_apart() {
        let sent = sums(&[("head 3 ", "abc"), ("head 2 ", "de")]);
        assert_eq!(sent.payload, Sha256Sum::of(b"abcde"));
        assert_eq!(sent.heads, Sha256Sum::of(b"head 3 head 2 "));
        assert_eq!(sent.difference(&sent), None);
        let payload = sums(&[("head 3 ", "abX"), ("head 2 ", "de")]);
        assert_eq!(sent.difference(&payload), Some((sent.payload, payload.payload)));
        // The same payload bytes, cut elsewhere: the heads say so.
        let cut = sums(&[("head 2 ", "ab"), ("head 3 ", "cde")]);
        assert_eq!(sent.difference(&cut), Some((sent.heads, cut.heads)));
    }
}
