//! Times on the wire.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A UTC time with milliseconds; on the wire `2026-11-20T14:03:22.417Z`. Its default is 1970.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UtcTime(i64);

impl UtcTime {
    /// The last millisecond RFC 3339 can write (year 9999).
    const MAX_MS: i64 = 253_402_300_799_999;

    /// From milliseconds since the Unix epoch; later than the year 9999 becomes its last millisecond.
    pub fn from_millis(ms: u64) -> UtcTime {
        UtcTime(i64::try_from(ms).unwrap_or(Self::MAX_MS).min(Self::MAX_MS))
    }

    /// Milliseconds since the Unix epoch.
    pub fn as_millis(self) -> u64 {
        self.0.unsigned_abs()
    }
}

/// A time before 1970 (a clock that was never set) becomes 1970.
impl From<SystemTime> for UtcTime {
    fn from(time: SystemTime) -> UtcTime {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        UtcTime::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for UtcTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = OffsetDateTime::from_unix_timestamp(self.0.div_euclid(1000)).map_err(|_| fmt::Error)?;
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second(),
            self.0.rem_euclid(1000)
        )
    }
}

impl fmt::Debug for UtcTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an RFC 3339 time between 1970 and 9999")]
pub struct TimeError {
    pub text: String,
}

impl FromStr for UtcTime {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<UtcTime, TimeError> {
        let failed = || TimeError { text: text.chars().take(64).collect() };
        let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| failed())?;
        let ms = u64::try_from(at.unix_timestamp_nanos().div_euclid(1_000_000)).map_err(|_| failed())?;
        Ok(UtcTime::from_millis(ms))
    }
}

impl Serialize for UtcTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UtcTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<UtcTime, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc3339_utc_with_milliseconds() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_795_183_402_417, "2026-11-20T14:03:22.417Z"),
            (951_782_400_005, "2000-02-29T00:00:00.005Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(UtcTime::from_millis(ms).to_string(), text);
            assert_eq!(text.parse(), Ok(UtcTime::from_millis(ms)));
        }
        assert_eq!(UtcTime::from_millis(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
        let (local, utc) = ("2026-11-20T15:03:22.417+01:00", "2026-11-20T14:03:22.417Z");
        assert_eq!(local.parse::<UtcTime>(), utc.parse());
        assert!("1969-12-31T23:59:59Z".parse::<UtcTime>().is_err());
        assert!("yesterday".parse::<UtcTime>().is_err());
    }
}
