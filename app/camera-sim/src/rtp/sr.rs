//! Clocks, and the RTCP sender report that ties them together (RFC 3550 6.4.1).

/// Seconds from 1900 (NTP) to 1970 (Unix).
const NTP_TO_UNIX_S: u64 = 2_208_988_800;

/// The RTP clock of one track: runs with UTC from a random start, so a sender report and every picture agree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RtpClock {
    pub rate: u32,
    /// Added to every timestamp.
    pub offset: u32,
}

impl RtpClock {
    /// `utc_ns` since 1970. Rounded down to a tick; wraps around as RTP does.
    #[expect(clippy::cast_possible_truncation, reason = "RTP time is modulo 2^32")]
    pub(crate) fn at(&self, utc_ns: u64) -> u32 {
        let ticks = u128::from(utc_ns) * u128::from(self.rate) / 1_000_000_000;
        (ticks as u32).wrapping_add(self.offset)
    }

    /// The time after `count` units since 1970, of which `per_second` make a second; exact where a unit is a whole
    /// number of ticks.
    #[expect(clippy::cast_possible_truncation, reason = "RTP time is modulo 2^32")]
    pub(crate) fn at_count(&self, count: u64, per_second: u64) -> u32 {
        let ticks = u128::from(count) * u128::from(self.rate) / u128::from(per_second);
        (ticks as u32).wrapping_add(self.offset)
    }
}

/// 32.32 fixed point seconds since 1900, modulo the NTP era.
pub(crate) fn ntp(utc_ns: u64) -> u64 {
    let seconds = (utc_ns / 1_000_000_000).wrapping_add(NTP_TO_UNIX_S);
    let fraction = ((u128::from(utc_ns % 1_000_000_000)) << 32) / 1_000_000_000;
    seconds << 32 | u64::try_from(fraction).unwrap_or(0)
}

pub(crate) struct SenderReport {
    pub ssrc: u32,
    pub ntp: u64,
    pub rtp: u32,
    pub packets: u32,
    pub octets: u32,
}

impl SenderReport {
    /// A compound packet: the report, and the source description that RFC 3550 6.1 demands, with `cname` of at
    /// most 255 bytes.
    pub(crate) fn to_bytes(&self, cname: &str) -> Vec<u8> {
        let mut bytes = vec![0x80, 200, 0, 6];
        bytes.extend(self.ssrc.to_be_bytes());
        bytes.extend(self.ntp.to_be_bytes());
        for word in [self.rtp, self.packets, self.octets] {
            bytes.extend(word.to_be_bytes());
        }
        let mut items = vec![1, u8::try_from(cname.len()).unwrap_or(0)];
        items.extend(cname.as_bytes().iter().take(usize::from(items[1])));
        // At least one zero ends the list, and the chunk ends at a word border.
        items.resize(items.len() / 4 * 4 + 4, 0);
        let words = u16::try_from(items.len() / 4 + 1).unwrap_or(u16::MAX);
        bytes.extend([0x81, 202]);
        bytes.extend(words.to_be_bytes());
        bytes.extend(self.ssrc.to_be_bytes());
        bytes.extend(items);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ntp_time_counts_from_1900() {
        assert_eq!(ntp(0), NTP_TO_UNIX_S << 32);
        assert_eq!(ntp(1_500_000_000) - ntp(0), (1 << 32) + (1 << 31));
        // 2020-01-01 00:00:00 UTC is 0xe1b65f80 in NTP seconds.
        assert_eq!(ntp(1_577_836_800_000_000_000) >> 32, 0xe1b6_5f80);
    }

    #[test]
    fn rtp_time_runs_with_utc_and_wraps() {
        let clock = RtpClock { rate: 90_000, offset: u32::MAX };
        let base = 1_700_000_000_000_000_000;
        assert_eq!(clock.at(base + 40_000_000).wrapping_sub(clock.at(base)), 3600);
        let hours_14 = 14 * 3600 * 1_000_000_000;
        let expected = 14_u64 * 3600 * 90_000 % (1 << 32);
        assert_eq!(u64::from(clock.at(base + hours_14).wrapping_sub(clock.at(base))), expected);
        assert_eq!(clock.at(0), u32::MAX);
    }

    #[test]
    fn a_report_is_laid_out_as_in_the_rfc() {
        let report =
            SenderReport { ssrc: 0x0a0b_0c0d, ntp: 0x0102_0304_0506_0708, rtp: 9, packets: 10, octets: 11 };
        let expected = [
            0x80, 200, 0, 6, 0x0a, 0x0b, 0x0c, 0x0d, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 9, 0, 0, 0, 10, 0, 0,
            0, 11, //
            0x81, 202, 0, 3, 0x0a, 0x0b, 0x0c, 0x0d, 1, 3, b'c', b'a', b'm', 0, 0, 0,
        ];
        assert_eq!(report.to_bytes("cam"), expected);
    }
}
