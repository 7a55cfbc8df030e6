//! Names and number forms of the tags that KVS itself writes or reads (facts: GetMedia API page, producer SDK
//! sources, real captures).

/// 47 digits; opens each chunk.
pub const FRAGMENT_NUMBER: &str = "AWS_KINESISVIDEO_FRAGMENT_NUMBER";
/// `seconds.mmm` since the Unix epoch: when the service began to receive the fragment.
pub const SERVER_TIMESTAMP: &str = "AWS_KINESISVIDEO_SERVER_TIMESTAMP";
/// `seconds.mmm`: the cluster's timecode, absolute or relative as the producer chose.
pub const PRODUCER_TIMESTAMP: &str = "AWS_KINESISVIDEO_PRODUCER_TIMESTAMP";
/// The spellings that the GetMediaForFragmentList page documents; no capture has them, a reader takes both.
pub const SERVER_TIMESTAMP_DOCUMENTED: &str = "AWS_KINESISVIDEO_SERVER_SIDE_TIMESTAMP";
/// See [`SERVER_TIMESTAMP_DOCUMENTED`].
pub const PRODUCER_TIMESTAMP_DOCUMENTED: &str = "AWS_KINESISVIDEO_PRODUCER_SIDE_TIMESTAMP";
/// Integer milliseconds; closes a GetMedia chunk: server clock at send time minus the server timestamp.
pub const MILLIS_BEHIND_NOW: &str = "AWS_KINESISVIDEO_MILLIS_BEHIND_NOW";
/// Where the next GetMedia resumes; in every capture the chunk's own fragment number.
pub const CONTINUATION_TOKEN: &str = "AWS_KINESISVIDEO_CONTINUATION_TOKEN";
/// In-band failure of a GetMedia answer (text, and number 3002, 4000, 4500..4506, 5000).
pub const ERROR_CODE: &str = "AWS_KINESISVIDEO_ERROR_CODE";
/// See [`ERROR_CODE`].
pub const ERROR_ID: &str = "AWS_KINESISVIDEO_ERROR_ID";
/// Failure notice of GetMediaForFragmentList, beside the fragment number.
pub const EXCEPTION_ERROR_CODE: &str = "AWS_KINESISVIDEO_EXCEPTION_ERROR_CODE";
/// See [`EXCEPTION_ERROR_CODE`].
pub const EXCEPTION_MESSAGE: &str = "AWS_KINESISVIDEO_EXCEPTION_MESSAGE";
/// Sent by a producer with an empty value: the current fragment is complete now.
pub const END_OF_FRAGMENT: &str = "AWS_KINESISVIDEO_END_OF_FRAGMENT";
/// Tag names with this prefix are reserved to the service.
pub const RESERVED_PREFIX: &str = "AWS";

/// Limits of fragment metadata (KVS limits page).
pub const MAX_ITEMS_PER_FRAGMENT: usize = 10;
/// See [`MAX_ITEMS_PER_FRAGMENT`].
pub const MAX_NAME_BYTES: usize = 128;
/// See [`MAX_ITEMS_PER_FRAGMENT`].
pub const MAX_VALUE_BYTES: usize = 256;

/// `1511852109126` -> `1511852109.126`.
pub fn format_seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

/// Reads `seconds`, `seconds.m`, `.mm` or `.mmm` (further digits are cut); `None` if it is anything else.
pub fn parse_seconds(text: &str) -> Option<u64> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if seconds.is_empty() || !digits(seconds) || !digits(fraction) {
        return None;
    }
    let fraction_ms =
        fraction.bytes().chain([b'0'; 3]).take(3).fold(0, |ms, digit| ms * 10 + u64::from(digit - b'0'));
    seconds.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(fraction_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_round_trip_and_odd_forms() {
        for ms in [0, 7, 70, 999, 10_000, 1_511_852_109_126] {
            assert_eq!(parse_seconds(&format_seconds(ms)), Some(ms));
        }
        let cases =
            [("0.000", Some(0)), ("12", Some(12_000)), ("12.5", Some(12_500)), ("12.5678", Some(12_567))];
        for (text, expected) in cases {
            assert_eq!(parse_seconds(text), expected, "{text}");
        }
        for text in ["", ".5", "-1.0", "1.x", "1e3", "99999999999999999999", "18446744073709551.616"] {
            assert_eq!(parse_seconds(text), None, "{text}");
        }
    }
}
