//! Dates as signatures and headers write them. Milliseconds since the Unix epoch, UTC.

/// `YYYYMMDDTHHMMSSZ`; `None` for any other form or a date that does not exist.
pub(crate) fn parse_basic(text: &str) -> Option<u64> {
    let bytes: &[u8; 16] = text.as_bytes().try_into().ok()?;
    if bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let number = |range: std::ops::Range<usize>| digits(&bytes[range]);
    from_parts(
        number(0..4)?,
        [number(4..6)?, number(6..8)?, number(9..11)?, number(11..13)?, number(13..15)?],
    )
}

/// `YYYY-MM-DDTHH:MM:SSZ`, with or without a fraction of 1 to 9 digits behind a point.
pub(crate) fn parse_extended(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (time, fraction) = match time.split_once('.') {
        Some((time, fraction)) => (time, Some(fraction)),
        None => (time, None),
    };
    let ms = match fraction.map(str::as_bytes) {
        None => 0,
        Some(fraction @ [_, ..]) if fraction.len() <= 9 => {
            digits(fraction)?;
            fraction.iter().chain(b"00").take(3).fold(0, |ms, digit| ms * 10 + u64::from(digit - b'0'))
        }
        Some(_) => return None,
    };
    let (date, time) = (date.as_bytes(), time.as_bytes());
    let ([_, _, _, _, b'-', _, _, b'-', _, _], [_, _, b':', _, _, b':', _, _]) = (date, time) else {
        return None;
    };
    let rest = [&date[5..7], &date[8..10], &time[0..2], &time[3..5], &time[6..8]].map(digits);
    let [Some(month), Some(day), Some(hour), Some(minute), Some(second)] = rest else { return None };
    Some(from_parts(digits(&date[..4])?, [month, day, hour, minute, second])? + ms)
}

fn digits(text: &[u8]) -> Option<u64> {
    text.iter()
        .try_fold(0_u64, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0')))
}

/// Month, day, hour, minute, second.
fn from_parts(year: u64, [month, day, hour, minute, second]: [u64; 5]) -> Option<u64> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let last_day = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let ok = year >= 1970 && (1..=12).contains(&month) && (1..=last_day).contains(&day);
    if !ok || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days from civil, with March as the first month (Howard Hinnant, "chrono-compatible date algorithms").
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000)
}

/// `YYYYMMDDTHHMMSSZ`.
pub(crate) fn format_basic(ms: u64) -> String {
    let (days, second) = (ms / 86_400_000, ms / 1000 % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_name_the_same_moments() {
        let cases = [
            (0, "19700101T000000Z", "1970-01-01T00:00:00Z"),
            (951_782_400_000, "20000229T000000Z", "2000-02-29T00:00:00.000Z"),
            (1_519_423_067_000, "20180223T215747Z", "2018-02-23T21:57:47Z"),
            (253_402_300_799_000, "99991231T235959Z", "9999-12-31T23:59:59Z"),
        ];
        for (ms, basic, extended) in cases {
            assert_eq!((parse_basic(basic), parse_extended(extended)), (Some(ms), Some(ms)));
            assert_eq!(format_basic(ms), basic);
        }
        for (fraction, ms) in [("9", 900), ("99", 990), ("997", 997), ("997999999", 997)] {
            let text = format!("2018-02-23T21:57:47.{fraction}Z");
            assert_eq!(parse_extended(&text), Some(1_519_423_067_000 + ms), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "Z",
            "2018-02-23T21:57:47,997Z",
            "2018-02-23T21:57:47.Z",
            "2018-02-23T21:57:47.0123456789Z",
            "2018-02-23T21:57:47.9x7Z",
            "2018-02-23T21:57:47.997",
            "2018-02-23 21:57:47.997Z",
            "2018-02-23T21:57Z",
            "2018-02-30T21:57:47Z",
            "2018-2-23T21:57:47Z",
            "1969-12-31T23:59:59Z",
            "2018-02-23T24:00:00Z",
            "+018-02-23T21:57:47Z",
            "2018-02-23T21:57:47.997+00:00",
        ] {
            assert_eq!(parse_extended(text), None, "{text}");
        }
        for text in ["20180230T000000Z", "20180223T000060Z ", "20180223T000061Z", "2018ab23T000000Z"] {
            assert_eq!(parse_basic(text), None, "{text}");
        }
    }
}
