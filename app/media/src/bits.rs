//! Reads bit fields and Exp-Golomb codes, most significant bit first.

/// Why a bit field could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BitsError {
    #[error("data ends at bit {at}, {needs} more bits are needed")]
    End { at: usize, needs: u32 },
    #[error("the Exp-Golomb code at bit {at} has more than 31 leading zeros")]
    LongCode { at: usize },
}

/// Position in a byte slice, counted in bits.
#[derive(Clone, Debug)]
pub(crate) struct BitReader<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(data: &'a [u8]) -> BitReader<'a> {
        BitReader { data, at: 0 }
    }

    pub(crate) fn bit(&mut self) -> Result<bool, BitsError> {
        let byte = self.data.get(self.at / 8).ok_or(BitsError::End { at: self.at, needs: 1 })?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Ok(bit == 1)
    }

    /// Unsigned field of `count` bits, at most 32.
    pub(crate) fn u(&mut self, count: u32) -> Result<u32, BitsError> {
        debug_assert!(count <= 32);
        self.require(count)?;
        let mut value = 0;
        for _ in 0..count {
            value = value << 1 | u32::from(self.bit()?);
        }
        Ok(value)
    }

    pub(crate) fn skip(&mut self, count: u32) -> Result<(), BitsError> {
        self.require(count)?;
        self.at += count as usize;
        Ok(())
    }

    /// ue(v), ITU-T H.264 9.1.
    pub(crate) fn ue(&mut self) -> Result<u32, BitsError> {
        let start = self.at;
        let mut zeros = 0;
        while !self.bit()? {
            zeros += 1;
            if zeros > 31 {
                return Err(BitsError::LongCode { at: start });
            }
        }
        Ok((1u32 << zeros) - 1 + self.u(zeros)?)
    }

    /// se(v), ITU-T H.264 9.1.1.
    pub(crate) fn se(&mut self) -> Result<i64, BitsError> {
        let code = i64::from(self.ue()?);
        Ok(if code % 2 == 1 { (code + 1) / 2 } else { -(code / 2) })
    }

    fn require(&self, count: u32) -> Result<(), BitsError> {
        let left = self.data.len() * 8 - self.at;
        if left < count as usize {
            return Err(BitsError::End { at: self.at, needs: count });
        }
        Ok(())
    }
}

/// Payload of a NAL unit without its emulation prevention bytes: 00 00 03 becomes 00 00 (ITU-T H.264 7.4.1).
pub(crate) fn unescape(nal: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(nal.len());
    let mut zeros = 0;
    for &byte in nal {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_golomb_codes_follow_table_9_2() {
        // 1 010 011 00100 00101, then padding
        let data = [0b1010_0110, 0b0100_0010, 0b1000_0000];
        let mut bits = BitReader::new(&data);
        let codes: Vec<u32> = (0..5).map(|_| bits.ue().unwrap()).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4]);
        let mut bits = BitReader::new(&data);
        let codes: Vec<i64> = (0..5).map(|_| bits.se().unwrap()).collect();
        assert_eq!(codes, [0, 1, -1, 2, -2]);
    }

    #[test]
    fn largest_code_is_read_and_a_longer_one_refused() {
        let largest = [0, 0, 0, 1, 0xFF, 0xFF, 0xFF, 0xFE]; // 31 zeros, 1, 31 ones
        assert_eq!(BitReader::new(&largest).ue(), Ok(u32::MAX - 1));
        assert_eq!(BitReader::new(&[0; 9]).ue(), Err(BitsError::LongCode { at: 0 }));
    }

    #[test]
    fn end_of_data_is_an_error_not_a_zero() {
        let mut bits = BitReader::new(&[0xFF]);
        assert_eq!(bits.u(6), Ok(63));
        assert_eq!(bits.u(3), Err(BitsError::End { at: 6, needs: 3 }));
        assert_eq!(bits.skip(u32::MAX), Err(BitsError::End { at: 6, needs: u32::MAX }));
    }

    #[test]
    fn emulation_prevention_is_removed() {
        assert_eq!(unescape(&[0, 0, 3, 1, 0, 0, 3, 0, 0, 3]), [0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(unescape(&[0, 3, 0, 0, 1]), [0, 3, 0, 0, 1]);
    }
}
