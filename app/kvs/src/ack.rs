//! What the service says of each fragment while PutMedia runs.
//!
//! On the wire: flat JSON objects, one a line, in a chunked body; lines arrive split or glued. The outer key
//! `Acknowledgement` and the event names in camel case stand only in the documentation; producer SDKs expect
//! what [`Ack::to_line`] writes (facts 2.4). Order: BUFFERING n, RECEIVED n, PERSISTED n, where PERSISTED n may
//! trail behind BUFFERING n+1. After an ERROR the service closes the connection.

use health::Reason;
use serde::Deserialize;
use serde_json::json;

use crate::FragmentNumber;

/// One acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    pub event: AckEvent,
    /// The cluster's timecode in ms as sent, absolute or relative. IDLE and some ERRORs have none (or -1).
    pub timecode_ms: Option<i64>,
    pub number: Option<FragmentNumber>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AckEvent {
    /// The service began to receive the fragment.
    Buffering,
    /// The whole fragment is in memory there.
    Received,
    /// The fragment is on disk there. Only this releases our copy.
    Persisted,
    Error(AckError),
    /// Nothing came for a while; the connection closes after 30 s without data.
    Idle,
    /// An event type that this version does not know, as the service spells it: nothing follows from it.
    Unknown(String),
}

/// Why the service refused a fragment or the session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("KVS refused with {id} {code}: {}", self.explanation())]
pub struct AckError {
    pub id: u32,
    /// As the service spells it; may be empty.
    pub code: String,
}

/// What a producer does about an error ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// New connection, send the fragment again.
    Resend,
    /// The connection only grew too old: as `Resend`, without counting a failure.
    Rotate,
    /// This fragment will never be accepted: record the gap, go on with the next one.
    Skip,
    /// The fragment is fine, its tags are not: send it without them.
    ResendWithoutTags,
    /// A declared track fell silent: send again under a header without it.
    ResendWithoutSilentTracks,
    /// Nothing helps until somebody changes the stream or its key: keep recording, ask again seldom.
    Stop,
}

/// (id, name, reaction, what to tell an operator); names as in the producer SDKs.
const ERRORS: &[(u32, &str, Reaction, &str)] = &[
    (4000, "STREAM_READ_ERROR", Reaction::Resend, "the service could not read our stream"),
    (
        4001,
        "MAX_FRAGMENT_SIZE_REACHED",
        Reaction::Skip,
        "fragment over 50 MB, lower the camera's bit rate or GOP",
    ),
    (4002, "MAX_FRAGMENT_DURATION_REACHED", Reaction::Skip, "fragment too long, lower fragment_max_ms"),
    (4003, "MAX_CONNECTION_DURATION_REACHED", Reaction::Rotate, "connection older than 45 minutes"),
    (
        4004,
        "FRAGMENT_TIMECODE_LESSER_THAN_PREVIOUS",
        Reaction::Skip,
        "timecode not after the previous fragment",
    ),
    (4005, "MORE_THAN_ALLOWED_TRACKS_FOUND", Reaction::Skip, "more than one track"),
    (4006, "INVALID_MKV_DATA", Reaction::Skip, "not valid Matroska"),
    (4007, "INVALID_PRODUCER_TIMESTAMP", Reaction::Skip, "bad producer timestamp, check the box's clock"),
    (4008, "STREAM_NOT_ACTIVE", Reaction::Stop, "the stream is deleted or not active"),
    (4009, "FRAGMENT_METADATA_LIMIT_REACHED", Reaction::ResendWithoutTags, "too many or too long tags"),
    (4010, "TRACK_NUMBER_MISMATCH", Reaction::Skip, "a block's track is not in the header"),
    (4011, "FRAMES_MISSING_FOR_TRACK", Reaction::ResendWithoutSilentTracks, "a declared track has no frame"),
    (4012, "MAX_TRACKS_EXCEEDED", Reaction::Skip, "more than 3 tracks"),
    (4500, "KMS_KEY_ACCESS_DENIED", Reaction::Stop, "no permission to use the stream's KMS key"),
    (4501, "KMS_KEY_DISABLED", Reaction::Stop, "the stream's KMS key is disabled"),
    (4502, "KMS_KEY_VALIDATION_ERROR", Reaction::Stop, "the stream's KMS key is not valid"),
    (4503, "KMS_KEY_UNAVAILABLE", Reaction::Resend, "the stream's KMS key is not available"),
    (4504, "KMS_KEY_INVALID_USAGE", Reaction::Stop, "the stream's KMS key is not for encryption"),
    (4505, "KMS_KEY_INVALID_STATE", Reaction::Stop, "the stream's KMS key is in a wrong state"),
    (4506, "KMS_KEY_NOT_FOUND", Reaction::Stop, "the stream's KMS key does not exist"),
    (5000, "INTERNAL_ERROR", Reaction::Resend, "internal error of the service"),
    (5001, "ARCHIVAL_ERROR", Reaction::Resend, "the service could not persist the fragment"),
];

impl AckError {
    /// With the name that belongs to `id`; empty for an id that we do not know.
    pub fn from_id(id: u32) -> Self {
        Self { id, code: known(id).map_or("", |row| row.1).to_owned() }
    }

    /// Every error id that this program knows, in order.
    pub fn known_ids() -> impl Iterator<Item = u32> {
        ERRORS.iter().map(|row| row.0)
    }

    /// An id that we do not know is answered like an internal error: send again.
    pub fn reaction(&self) -> Reaction {
        known(self.id).map_or(Reaction::Resend, |row| row.2)
    }

    /// What dashboards call it.
    pub fn health_reason(&self) -> Reason {
        match self.id {
            4008 => Reason::StreamMissing,
            4500..=4506 => Reason::EncryptionKey,
            _ if self.reaction() == Reaction::Skip => Reason::FragmentRefused,
            _ => Reason::UploadFailed,
        }
    }

    /// Not part of normal operation. An old connection is, and so is a stop just before the first sound of a
    /// fragment: those are answered without anybody having to know.
    pub fn needs_attention(&self) -> bool {
        !matches!(self.reaction(), Reaction::Rotate | Reaction::ResendWithoutSilentTracks)
    }

    fn explanation(&self) -> &'static str {
        known(self.id).map_or("an error id that this version does not know", |row| row.3)
    }
}

fn known(id: u32) -> Option<&'static (u32, &'static str, Reaction, &'static str)> {
    ERRORS.iter().find(|row| row.0 == id)
}

impl Ack {
    /// The line as the service sends it, newline included.
    pub fn to_line(&self) -> String {
        let mut line = json!({ "EventType": self.event.name() });
        if let Some(timecode_ms) = self.timecode_ms {
            line["FragmentTimecode"] = timecode_ms.into();
        }
        if let Some(number) = self.number {
            line["FragmentNumber"] = number.to_string().into();
        }
        if let AckEvent::Error(error) = &self.event {
            line["ErrorId"] = error.id.into();
            line["ErrorCode"] = error.code.as_str().into();
        }
        format!("{line}\n")
    }
}

impl AckEvent {
    fn name(&self) -> &str {
        match self {
            Self::Buffering => "BUFFERING",
            Self::Received => "RECEIVED",
            Self::Persisted => "PERSISTED",
            Self::Error(_) => "ERROR",
            Self::Idle => "IDLE",
            Self::Unknown(name) => name,
        }
    }
}

/// The ack stream cannot be understood any more; reset the connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AckParseError {
    #[error("ack stream, byte {at}: found `{found}`, expected `{{` of a JSON object")]
    NotAnObject { at: u64, found: String },
    #[error("ack stream, byte {at}: an ack of more than {MAX_ACK_BYTES} bytes")]
    TooLong { at: u64 },
    #[error("ack stream, byte {at}: {reason}, found `{found}`")]
    Field { at: u64, reason: String, found: String },
}

/// Acks are about 150 bytes; a longer object is not one.
const MAX_ACK_BYTES: usize = 16 * 1024;
/// Of an unknown event type; the known ones have 9.
const MAX_NAME_CHARS: usize = 32;

/// Cuts the body of a PutMedia answer into acks, however its bytes are split.
#[derive(Debug, Default)]
pub struct AckParser {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were already looked at without finding the end of the object.
    scanned: usize,
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// Offset in the body of `buffer[0]`.
    at: u64,
}

impl AckParser {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole ack; `None` when more bytes are needed. After an error the parser stays in it.
    pub fn next_ack(&mut self) -> Result<Option<Ack>, AckParseError> {
        if self.depth == 0 {
            self.skip_blank();
            match self.buffer.first() {
                None => return Ok(None),
                Some(b'{') => {}
                Some(_) => {
                    return Err(AckParseError::NotAnObject { at: self.at, found: excerpt(&self.buffer) });
                }
            }
        }
        let Some(length) = self.find_end() else {
            let too_long = self.buffer.len() > MAX_ACK_BYTES;
            return if too_long { Err(AckParseError::TooLong { at: self.at }) } else { Ok(None) };
        };
        let ack = read(&self.buffer[..length], self.at)?;
        self.consume(length);
        Ok(Some(ack))
    }

    /// Whether the bytes so far end between two acks.
    pub fn is_at_border(&self) -> bool {
        self.buffer.iter().all(u8::is_ascii_whitespace)
    }

    fn skip_blank(&mut self) {
        let blank = self.buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.consume(blank);
    }

    fn consume(&mut self, length: usize) {
        self.buffer.drain(..length);
        self.scanned = 0;
        self.at += length as u64;
    }

    /// Length of the object at the start of the buffer, once its closing brace is there.
    fn find_end(&mut self) -> Option<usize> {
        while let Some(&byte) = self.buffer.get(self.scanned) {
            self.scanned += 1;
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                b'{' if !self.in_string => self.depth += 1,
                b'}' if !self.in_string => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Some(self.scanned);
                    }
                }
                _ => {}
            }
        }
        None
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wire {
    event_type: String,
    fragment_timecode: Option<i64>,
    fragment_number: Option<String>,
    error_code: Option<String>,
    error_id: Option<u32>,
}

fn read(object: &[u8], at: u64) -> Result<Ack, AckParseError> {
    let field = |reason: String| AckParseError::Field { at, reason, found: excerpt(object) };
    let wire: Wire = serde_json::from_slice(object).map_err(|error| field(error.to_string()))?;
    let event = match wire.event_type.to_ascii_uppercase().as_str() {
        "BUFFERING" => AckEvent::Buffering,
        "RECEIVED" => AckEvent::Received,
        "PERSISTED" => AckEvent::Persisted,
        "IDLE" => AckEvent::Idle,
        "ERROR" => {
            let id = wire.error_id.ok_or_else(|| field("ERROR without ErrorId".to_owned()))?;
            AckEvent::Error(AckError { id, code: wire.error_code.unwrap_or_default() })
        }
        _ => AckEvent::Unknown(wire.event_type.chars().take(MAX_NAME_CHARS).collect()),
    };
    let number = wire.fragment_number.filter(|text| !text.is_empty()).map(|text| text.parse()).transpose();
    let number = number.map_err(|error: crate::FragmentNumberError| field(error.to_string()))?;
    Ok(Ack { event, timecode_ms: wire.fragment_timecode.filter(|&ms| ms >= 0), number })
}

/// Enough of outside bytes to recognise them, printable.
fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number() -> FragmentNumber {
        FragmentNumber::new(1, 1_795_186_073_633, 7)
    }

    fn acks() -> Vec<Ack> {
        let about = |event| Ack { event, timecode_ms: Some(1_795_186_073_633), number: Some(number()) };
        let mut acks =
            vec![about(AckEvent::Buffering), about(AckEvent::Received), about(AckEvent::Persisted)];
        acks.push(Ack { event: AckEvent::Idle, timecode_ms: None, number: None });
        acks.extend(AckError::known_ids().map(|id| about(AckEvent::Error(AckError::from_id(id)))));
        acks.push(about(AckEvent::Error(AckError { id: 4999, code: "a \"}{\" b\\".to_owned() })));
        acks
    }

    fn parse(pieces: impl Iterator<Item = Vec<u8>>) -> Result<Vec<Ack>, AckParseError> {
        let mut parser = AckParser::default();
        let mut found = Vec::new();
        for piece in pieces {
            parser.push(&piece);
            while let Some(ack) = parser.next_ack()? {
                found.push(ack);
            }
        }
        assert!(parser.is_at_border());
        Ok(found)
    }

    #[test]
    fn any_split_and_any_glue_gives_the_same_acks() {
        let lines: String = acks().iter().map(Ack::to_line).collect();
        for glued in [lines.clone(), lines.replace('\n', ""), lines.replace('\n', "\r\n  ")] {
            for size in [1, 2, 3, 7, 64, 150, 4096, glued.len()] {
                let pieces = glued.as_bytes().chunks(size).map(<[u8]>::to_vec);
                assert_eq!(parse(pieces), Ok(acks()), "pieces of {size}");
            }
        }
    }

    #[test]
    fn odd_but_meaningful_forms_are_understood() {
        let one = |line: &str| parse(std::iter::once(line.as_bytes().to_vec())).map(|acks| acks[0].clone());
        let error = |id| AckEvent::Error(AckError { id, code: String::new() });
        let cases = [
            (
                r#"{"EventType":"ERROR","FragmentTimecode":-1,"FragmentNumber":"","ErrorId":5000}"#,
                error(5000),
            ),
            (r#"{"EventType":"Buffering"}"#, AckEvent::Buffering),
            (r#"{"EventType":"IDLE","New":{"deep":[{}]}}"#, AckEvent::Idle),
            (r#"{"EventType":"LATER"}"#, AckEvent::Unknown("LATER".to_owned())),
        ];
        for (line, event) in cases {
            assert_eq!(one(line), Ok(Ack { event, timecode_ms: None, number: None }), "{line}");
        }
    }

    #[test]
    fn garbage_is_an_error_with_its_place() {
        let error = |text: &str| parse(std::iter::once(text.as_bytes().to_vec())).unwrap_err().to_string();
        assert!(error("\n<html>").contains("byte 1: found `<html>`"));
        assert!(error("{\"EventType\":\"ERROR\"}").contains("without ErrorId"));
        assert!(error("{\"EventType\":\"IDLE\",\"FragmentNumber\":\"12\"}").contains("expected 47"));
        assert!(error(&format!("{{\"{}", "x".repeat(20_000))).contains("more than"));
        assert!(error("{\"EventType\":\"IDLE\"}}").contains("byte 20"));
    }

    /// What the official producer does (facts 2.4), and what this one does where that only says that something is wrong: an
    /// over-long tag and a silent track are left out, and a key or stream that somebody has to mend is asked for seldom.
    #[test]
    fn each_error_has_its_reaction() {
        use Reaction::{Resend, ResendWithoutSilentTracks, ResendWithoutTags, Rotate, Skip, Stop};
        let expected = [
            (4000, Resend),
            (4001, Skip),
            (4002, Skip),
            (4003, Rotate),
            (4004, Skip),
            (4005, Skip),
            (4006, Skip),
            (4007, Skip),
            (4008, Stop),
            (4009, ResendWithoutTags),
            (4010, Skip),
            (4011, ResendWithoutSilentTracks),
            (4012, Skip),
            (4500, Stop),
            (4501, Stop),
            (4502, Stop),
            // A key that is not available now may be later.
            (4503, Resend),
            (4504, Stop),
            (4505, Stop),
            (4506, Stop),
            (5000, Resend),
            (5001, Resend),
        ];
        let found: Vec<_> = AckError::known_ids().map(|id| (id, AckError::from_id(id).reaction())).collect();
        assert_eq!(found, expected);
        let reason = |id| AckError::from_id(id).health_reason();
        assert_eq!((reason(4008), reason(4506)), (Reason::StreamMissing, Reason::EncryptionKey));
        assert_eq!((reason(4002), reason(5001)), (Reason::FragmentRefused, Reason::UploadFailed));
    }

    #[test]
    fn each_error_has_a_name_and_an_explanation() {
        for id in AckError::known_ids() {
            let error = AckError::from_id(id);
            assert!(!error.code.is_empty());
            assert!(error.to_string().contains(&id.to_string()));
        }
        assert_eq!(AckError::from_id(4003).reaction(), Reaction::Rotate);
        assert_eq!(AckError::from_id(9999).reaction(), Reaction::Resend);
    }
}
