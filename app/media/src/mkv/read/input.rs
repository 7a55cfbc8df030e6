//! The bytes in front of the reader: slices of what was pushed, and the one element that straddles two pushes.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// What a straddling element takes at once; a larger one grows with the bytes that arrive, whatever size it claims.
const CARRY_BYTES: usize = 16 << 10;

/// The bytes that are pushed and not yet taken: `carry`, then `chunk`, then `queue`.
///
/// `carry` is the beginning of one element whose end had not arrived, and never holds a byte beyond that element. Its memory
/// is taken `CARRY_BYTES` at a time, for several elements, so that small pushes do not mean an allocation each.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// Offset of the first byte of this in the whole input.
    pub(super) position: u64,
    carry: BytesMut,
    chunk: Bytes,
    queue: VecDeque<Bytes>,
}

impl Input {
    pub(super) fn push(&mut self, bytes: Bytes) {
        if self.chunk.is_empty() && self.queue.is_empty() {
            self.chunk = bytes;
        } else if !bytes.is_empty() {
            self.queue.push_back(bytes);
        }
    }

    /// The contiguous bytes at the current position; may be fewer than are there, see `join`.
    pub(super) fn head(&self) -> &[u8] {
        if self.carry.is_empty() { &self.chunk } else { &self.carry }
    }

    /// Bytes that can be taken without joining. Only asked when nothing is carried.
    pub(super) fn available(&mut self) -> usize {
        debug_assert!(self.carry.is_empty());
        self.refill();
        self.chunk.len()
    }

    /// Makes the next `length` bytes contiguous; false if they are not all there.
    pub(super) fn join(&mut self, length: usize) -> bool {
        while self.head().len() < length {
            if !self.refill() {
                return false;
            }
            if self.carry.is_empty() && self.chunk.len() >= length {
                return true;
            }
            if self.carry.is_empty() && self.carry.capacity() < length.min(CARRY_BYTES) {
                self.carry = BytesMut::with_capacity(CARRY_BYTES);
            }
            let missing = length - self.carry.len();
            let piece = self.chunk.split_to(missing.min(self.chunk.len()));
            self.carry.extend_from_slice(&piece);
        }
        true
    }

    /// Takes the next `length` bytes, which must be contiguous.
    #[inline]
    pub(super) fn take(&mut self, length: usize) -> Bytes {
        if length == 0 {
            return Bytes::new();
        }
        self.position += length as u64;
        if self.carry.is_empty() {
            return self.chunk.split_to(length);
        }
        debug_assert_eq!(self.carry.len(), length, "only the element at the current position is carried");
        self.carry.split().freeze()
    }

    /// Whether `chunk` has bytes, taking the next one from the queue if need be.
    fn refill(&mut self) -> bool {
        if self.chunk.is_empty()
            && let Some(next) = self.queue.pop_front()
        {
            self.chunk = next;
        }
        !self.chunk.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(chunks: &[&'static [u8]]) -> Input {
        let mut input = Input::default();
        for chunk in chunks {
            input.push(Bytes::from_static(chunk));
        }
        input
    }

    #[test]
    fn bytes_of_one_push_are_taken_without_a_copy() {
        let data = Bytes::from(vec![1, 2, 3, 4]);
        let mut input = Input::default();
        input.push(data.clone());
        assert!(input.join(3));
        assert_eq!(input.take(3).as_ptr(), data.as_ptr());
        assert_eq!((input.head(), input.position), (&[4][..], 3));
    }

    #[test]
    fn only_what_straddles_is_joined() {
        let mut input = input(&[&[1, 2], &[3], &[4, 5, 6]]);
        assert!(input.join(1));
        assert_eq!(input.take(1), [1][..]);
        assert!(input.join(3));
        assert_eq!(input.head(), [2, 3, 4]);
        assert_eq!(input.take(3), [2, 3, 4][..]);
        assert_eq!(input.head(), [5, 6], "the rest lies where it was pushed");
    }

    #[test]
    fn what_was_pushed_first_stays_first_when_a_push_was_taken_to_its_end() {
        let mut input = input(&[&[1, 2], &[3, 4]]);
        assert!(input.join(2));
        assert_eq!(input.take(2), [1, 2][..]);
        input.push(Bytes::from_static(&[5, 6]));
        assert!(input.join(3));
        assert_eq!(input.take(3), [3, 4, 5][..]);
        assert!(input.join(1));
        assert_eq!(input.take(1), [6][..]);
    }

    #[test]
    fn what_is_missing_may_come_later() {
        let mut input = input(&[&[1], &[]]);
        assert!(!input.join(2));
        assert!(!input.join(2));
        input.push(Bytes::from_static(&[2, 3]));
        assert!(input.join(2));
        assert_eq!(input.take(2), [1, 2][..]);
        assert_eq!(input.available(), 1);
    }
}
