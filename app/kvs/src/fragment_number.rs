//! The number that KVS gives each fragment, and what can be read out of it.
//!
//! 47 decimal digits; as an integer `1 << 156 | sequence << 92 | server_time_ms << 28 | random`. The layout is
//! not documented: it was found in every real GetMedia capture from 2017 to 2026, where the time part equals the
//! SERVER_TIMESTAMP tag exactly. Use it for diagnosis, never as the only proof.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const DIGITS: usize = 47;
const RANDOM_BITS: u32 = 28;

/// A fragment number. Ordered as KVS orders fragments of one stream.
///
/// Any 47-digit number that fits the known layout is representable and prints back unchanged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FragmentNumber {
    // The 157-bit value in two halves: u128 alone is 29 bits short.
    high: u64,
    low: u128,
}

/// `high` holds bits 92.. (the marker 1 << 64 and the sequence), `low` the 92 bits below.
const LOW_BITS: u32 = 92;
const TEN_POW_18: u128 = 1_000_000_000_000_000_000;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FragmentNumberError {
    #[error("fragment number `{found}` has {digits} characters, expected 47 decimal digits")]
    Length { found: String, digits: usize },
    #[error("fragment number `{found}` holds `{character}`, expected decimal digits only")]
    Digit { found: String, character: char },
    #[error("fragment number `{found}` is below 2^156, where the numbers of KVS begin")]
    Range { found: String },
}

impl FragmentNumber {
    /// `random28` is cut to 28 bits. Sequences from 1.7e18 on would print with a 48th digit; KVS is far from them.
    pub fn new(sequence: u64, server_time_ms: u64, random28: u32) -> Self {
        let random = u128::from(random28) & ((1 << RANDOM_BITS) - 1);
        Self { high: sequence, low: u128::from(server_time_ms) << RANDOM_BITS | random }
    }

    /// Whether fragments of the same upload session are missing between this one and `next`. A session takes numbers one
    /// after the other from blocks of about 1000 (seen in captures, undocumented): across blocks nothing can be said.
    pub fn misses_some_before(self, next: Self) -> bool {
        self.missing_before(next).is_some_and(|missing| missing > 0)
    }

    /// How many, where both are of one block and in order.
    pub fn missing_before(self, next: Self) -> Option<u64> {
        const BLOCK: u64 = 1_000;
        let block = |number: Self| number.sequence().saturating_sub(1) / BLOCK;
        let step = next.sequence().checked_sub(self.sequence())?;
        (block(self) == block(next)).then(|| step.saturating_sub(1))
    }

    /// Rises by exactly 1 from fragment to fragment inside one PutMedia session.
    pub fn sequence(self) -> u64 {
        self.high
    }

    /// When the service began to receive the fragment, in ms since the Unix epoch (the server timestamp).
    #[expect(clippy::cast_possible_truncation, reason = "92 - 28 bits are exactly 64")]
    pub fn server_time_ms(self) -> u64 {
        (self.low >> RANDOM_BITS) as u64
    }

    /// The low 28 bits, which look random in every capture.
    pub fn random28(self) -> u32 {
        (self.low & ((1 << RANDOM_BITS) - 1)) as u32
    }
}

/// Unsigned 192-bit arithmetic by 64-bit limbs, least significant first: all that parsing and printing need.
type Limbs = [u64; 3];

fn to_limbs(number: FragmentNumber) -> Limbs {
    // value = (1 << 64 | high) << 92 | low
    let (low64, above) = split(number.low);
    let middle = above | number.high << (LOW_BITS - 64);
    let top = number.high >> (128 - LOW_BITS) | 1 << (156 - 128);
    [low64, middle, top]
}

fn from_limbs(limbs: Limbs) -> Option<FragmentNumber> {
    if limbs[2] >> (156 - 128) != 1 {
        return None;
    }
    let low = u128::from(limbs[0]) | u128::from(limbs[1] & ((1 << (LOW_BITS - 64)) - 1)) << 64;
    let high = limbs[1] >> (LOW_BITS - 64) | limbs[2] << (128 - LOW_BITS);
    Some(FragmentNumber { high, low })
}

/// Low and high half.
#[expect(clippy::cast_possible_truncation, reason = "each half is exactly 64 bits")]
fn split(wide: u128) -> (u64, u64) {
    (wide as u64, (wide >> 64) as u64)
}

fn multiply_add(limbs: &mut Limbs, factor: u64, add: u64) -> bool {
    let mut carry = u128::from(add);
    for limb in limbs.iter_mut() {
        let wide = u128::from(*limb) * u128::from(factor) + carry;
        let (low, above) = split(wide);
        *limb = low;
        carry = u128::from(above);
    }
    carry == 0
}

fn divide(limbs: &mut Limbs, divisor: u128) -> u64 {
    let mut rest: u128 = 0;
    for limb in limbs.iter_mut().rev() {
        let wide = rest << 64 | u128::from(*limb);
        *limb = split(wide / divisor).0; // fits: the rest is below the divisor
        rest = wide % divisor;
    }
    split(rest).0
}

impl FromStr for FragmentNumber {
    type Err = FragmentNumberError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(character) = text.chars().find(|c| !c.is_ascii_digit()) {
            return Err(FragmentNumberError::Digit { found: shorten(text), character });
        }
        if text.len() != DIGITS {
            return Err(FragmentNumberError::Length { found: shorten(text), digits: text.len() });
        }
        let mut limbs = [0; 3];
        for digit in text.bytes() {
            if !multiply_add(&mut limbs, 10, u64::from(digit - b'0')) {
                return Err(FragmentNumberError::Range { found: text.to_owned() });
            }
        }
        from_limbs(limbs).ok_or_else(|| FragmentNumberError::Range { found: text.to_owned() })
    }
}

/// Outside text in an error message stays one short line.
fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}

impl fmt::Display for FragmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut limbs = to_limbs(*self);
        let low = divide(&mut limbs, TEN_POW_18);
        let middle = divide(&mut limbs, TEN_POW_18);
        let high = limbs[0]; // 47 digits: 11 are left
        write!(f, "{high}{middle:018}{low:018}")
    }
}

impl fmt::Debug for FragmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl TryFrom<String> for FragmentNumber {
    type Error = FragmentNumberError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<FragmentNumber> for String {
    fn from(number: FragmentNumber) -> Self {
        number.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, server_time_ms: u64) -> FragmentNumber {
        let number: FragmentNumber = text.parse().expect("a real fragment number");
        assert_eq!(number.server_time_ms(), server_time_ms, "{text}");
        assert_eq!(number.to_string(), text);
        let rebuilt = FragmentNumber::new(number.sequence(), number.server_time_ms(), number.random28());
        assert_eq!(rebuilt, number);
        number
    }

    /// From real GetMedia captures: the time part is the SERVER_TIMESTAMP tag of the same chunk.
    #[test]
    fn time_part_of_real_numbers_is_the_server_timestamp() {
        let first = check("91343852333181432392682062607743920146159169392", 1_511_852_109_126);
        let other = check("91343852333181432392682062609776234230823574155", 1_519_423_069_070);
        check("91343852338378294813695855977007281634605393997", 1_516_124_526_822);
        assert!(first < other);
    }

    #[test]
    fn extremes_keep_47_digits_and_order() {
        let least = FragmentNumber::new(0, 0, 0);
        let most = FragmentNumber::new(1 << 60, u64::MAX, u32::MAX);
        for number in [least, most] {
            assert_eq!(number.to_string().len(), DIGITS);
            assert_eq!(number.to_string().parse(), Ok(number));
        }
        assert!(least < FragmentNumber::new(0, 1, 0));
        assert!(FragmentNumber::new(0, u64::MAX, 9) < FragmentNumber::new(1, 0, 0));
        assert!(least.to_string() < most.to_string(), "fixed length: text order is number order");
    }

    #[test]
    fn wrong_text_is_refused_with_what_was_found() {
        let error = |text: &str| text.parse::<FragmentNumber>().unwrap_err().to_string();
        assert!(error("").contains("0 characters"));
        assert!(error("12x").contains("`x`"));
        assert!(error(&"0".repeat(47)).contains("below"));
        assert!(error(&"9".repeat(5_000)).len() < 200);
    }
}
