//! Reads refusals: type, message and request id, wherever the service or a gateway in front of it put them.

use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;

use crate::endpoint::Endpoint;
use crate::error::{Error, ServiceErrorKind};
use crate::operation::Operation;

/// Error bodies are some hundred bytes; of a longer one (a proxy's page) only the start matters.
pub(crate) const MAX_ERROR_BYTES: usize = 64 * 1024;

/// The body up to `limit` bytes; what lies beyond is not read. `idle` limits the wait for each piece.
///
/// The second value says whether the body was complete.
pub(crate) async fn read_start(body: &mut Incoming, limit: usize, idle: Duration) -> (Bytes, Completeness) {
    let mut start = BytesMut::new();
    while start.len() < limit {
        match tokio::time::timeout(idle, body.frame()).await {
            Err(_) => return (start.freeze(), Completeness::TimedOut),
            Ok(None) => return (start.freeze(), Completeness::Whole),
            Ok(Some(Err(error))) => return (start.freeze(), Completeness::Broken(error)),
            Ok(Some(Ok(frame))) => start.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
        }
    }
    (start.freeze(), Completeness::TooLong)
}

pub(crate) enum Completeness {
    Whole,
    TooLong,
    TimedOut,
    Broken(hyper::Error),
}

/// Every place that names the exception or its text; the trap answer wraps them in `Output`.
#[derive(Default, Deserialize)]
struct ErrorBody {
    #[serde(rename = "__type")]
    kind: Option<String>,
    #[serde(rename = "Message")]
    message: Option<String>,
    #[serde(rename = "message")]
    lower_message: Option<String>,
    #[serde(rename = "Output")]
    output: Option<Box<ErrorBody>>,
}

/// The error that an answer with a status other than 2xx means. `now` is the time the request was signed with.
pub(crate) fn service_error(
    operation: Operation,
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
    now: SystemTime,
) -> Error {
    let parsed: Option<ErrorBody> = serde_json::from_slice(body).ok();
    let is_json = parsed.is_some();
    let parsed = parsed.unwrap_or_default();
    let name = text(headers, &["x-amzn-errortype", "x-amz-errortype"]).map(str::to_owned).or(parsed.kind);
    let message = parsed.message.or(parsed.lower_message).unwrap_or_else(|| {
        if is_json {
            String::new()
        } else {
            String::from_utf8_lossy(&body[..body.len().min(400)]).into_owned()
        }
    });
    let server_time = text(headers, &["date"]).and_then(|date| httpdate::parse_http_date(date).ok());
    let mut kind = ServiceErrorKind::from_name(bare(name.as_deref().unwrap_or_default()));
    if is_clock_skew(&kind, &message, server_time, now) {
        kind = ServiceErrorKind::ClockSkew;
    } else if message.contains("security token included in the request is expired") {
        kind = ServiceErrorKind::ExpiredToken;
    }
    Error::Service {
        operation,
        kind,
        message: harmless(&message),
        status,
        request_id: request_id(headers),
        server_time,
    }
}

/// The service accepts 5 min; the AWS SDKs suspect the clock from 4 min on. A wrong key gives the same error
/// type, so either the message or the `Date` of the answer must point to the clock.
fn is_clock_skew(
    kind: &ServiceErrorKind,
    message: &str,
    server_time: Option<SystemTime>,
    now: SystemTime,
) -> bool {
    const SUSPECT: Duration = Duration::from_secs(4 * 60);
    let told = message.contains("Signature expired") || message.contains("Signature not yet current");
    let measured = server_time
        .is_some_and(|server| now.duration_since(server).unwrap_or_else(|error| error.duration()) > SUSPECT);
    told || (measured && *kind == ServiceErrorKind::InvalidSignature)
}

/// The 200 trap: the error hidden in the body of a successful answer, if there is one.
pub(crate) fn hidden_error(
    operation: Operation,
    endpoint: &Endpoint,
    headers: &HeaderMap,
    body: &[u8],
) -> Option<Error> {
    let parsed: ErrorBody = serde_json::from_slice(body).ok()?;
    let inner = match parsed.output {
        Some(output) => *output,
        None => parsed,
    };
    let exception = inner.kind?;
    Some(Error::UnknownOperation {
        operation,
        endpoint: endpoint.clone(),
        exception: harmless(bare(&exception)),
        message: harmless(&inner.message.or(inner.lower_message).unwrap_or_default()),
        request_id: request_id(headers),
    })
}

pub(crate) fn request_id(headers: &HeaderMap) -> Option<String> {
    text(headers, &["x-amzn-requestid", "x-amz-requestid", "x-amz-request-id"]).map(harmless)
}

fn text<'a>(headers: &'a HeaderMap, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|&name| headers.get(name)?.to_str().ok())
}

/// `com.amazon.coral.service#SomeException:http://internal...` -> `SomeException`.
fn bare(name: &str) -> &str {
    let name = name.split(':').next().unwrap_or_default();
    name.rsplit('#').next().unwrap_or_default().trim()
}

/// Text from outside, fit for one line of a log. Refused signatures come with the canonical request or the
/// Authorization header, which hold session token and signature: cut there.
fn harmless(text: &str) -> String {
    const SECRET_FROM: [&str; 6] = [
        "the canonical string",
        "authorization=",
        "credential=",
        "signature=",
        "x-amz-security-token",
        "aws4-hmac",
    ];
    let lower = text.to_ascii_lowercase();
    let end = SECRET_FROM.iter().filter_map(|word| lower.find(word)).min().unwrap_or(text.len());
    let line: String = text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect();
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Action;

    const NOW: &str = "Sat, 21 Nov 2026 08:00:00 GMT";

    fn now() -> SystemTime {
        httpdate::parse_http_date(NOW).unwrap()
    }

    type Headers<'a> = &'a [(&'static str, &'a str)];

    fn refusal(status: u16, headers: Headers, body: &str) -> Error {
        let headers =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        service_error(Operation::PutMedia, status, &headers, body.as_bytes(), now())
    }

    #[test]
    fn type_message_and_request_id_are_found_in_all_their_places() {
        let typed = ("x-amzn-ErrorType", "ResourceNotFoundException");
        let suffixed =
            ("x-amz-ErrorType", "ResourceNotFoundException:http://internal.amazon.com/coral/com.amazon.x/");
        let namespaced =
            r#"{"__type":"com.amazonaws.kinesisvideo#ResourceNotFoundException","Message":"gone"}"#;
        let cases: [(Headers, &str, &str); 6] = [
            (&[typed], r#"{"Message":"gone"}"#, "gone"),
            (&[typed], r#"{"message":"gone"}"#, "gone"),
            (&[suffixed], r#"{"Message":"gone"}"#, "gone"),
            (&[], namespaced, "gone"),
            (&[typed], "", ""),
            (&[typed], "<html>gone\r\n\x1b[31m</html>", "<html>gone   [31m</html>"),
        ];
        for (headers, body, expected) in cases {
            let Error::Service { kind, message, status, .. } = refusal(404, headers, body) else { panic!() };
            assert_eq!((kind, message.as_str(), status), (ServiceErrorKind::ResourceNotFound, expected, 404));
        }
        for name in ["x-amzn-RequestId", "x-amz-RequestId", "x-amz-request-id"] {
            let error = refusal(500, &[(name, "0a1b-2c")], "");
            assert_eq!(error.request_id(), Some("0a1b-2c"));
            assert!(error.to_string().ends_with("(request 0a1b-2c)"), "{error}");
        }
    }

    #[test]
    fn a_wrong_clock_is_told_apart_from_a_wrong_key() {
        let invalid = ("x-amzn-ErrorType", "InvalidSignatureException");
        let (skewed, fine) = (("date", "Sat, 21 Nov 2026 08:06:00 GMT"), ("date", NOW));
        let expired = r#"{"message":"Signature expired: 20261121T075000Z is now earlier than 20261121T080100Z (20261121T080600Z - 5 min.)"}"#;
        let mismatch =
            r#"{"message":"The request signature we calculated does not match the signature you provided."}"#;
        let fix = Action::FixClock { server_time: now() + Duration::from_secs(360) };
        assert_eq!(refusal(403, &[invalid, skewed], expired).action(), fix);
        assert_eq!(refusal(403, &[invalid, skewed], mismatch).action(), fix);
        assert_eq!(refusal(403, &[invalid, fine], mismatch).action(), Action::Stop);
        assert_eq!(refusal(403, &[invalid], expired).action(), Action::Stop, "nothing to set the clock by");
        let future = r#"{"message":"Signature not yet current: 20261121T081500Z is still later than ..."}"#;
        assert_eq!(refusal(403, &[skewed], future).action(), fix);
    }

    #[test]
    fn an_expired_token_is_known_by_its_text_too() {
        let body = r#"{"message":"The security token included in the request is expired"}"#;
        assert_eq!(refusal(403, &[], body).action(), Action::RefreshCredentials);
        assert_eq!(
            refusal(403, &[("x-amzn-ErrorType", "ExpiredTokenException")], "{}").action(),
            Action::RefreshCredentials
        );
    }

    #[test]
    fn what_the_service_quotes_of_the_signature_is_not_repeated() {
        let quoted = "The request signature we calculated does not match. \n\nThe Canonical String for this request should have been\n'POST\n/putMedia\n\nx-amz-security-token:TOKEN'";
        let cases = [
            (quoted, "The request signature we calculated does not match."),
            (
                "requires 'Signature'. Authorization=AWS4-HMAC-SHA256 Credential=TOKEN",
                "requires 'Signature'.",
            ),
            ("bad header X-Amz-Security-Token: TOKEN", "bad header"),
        ];
        for (message, expected) in cases {
            let body = serde_json::json!({ "message": message }).to_string();
            let error = refusal(403, &[("x-amzn-ErrorType", "InvalidSignatureException")], &body);
            let Error::Service { message, .. } = &error else { panic!() };
            assert_eq!(message, expected);
            assert!(!format!("{error:?} {error}").contains("TOKEN"));
        }
    }

    #[test]
    fn the_error_hidden_in_a_successful_answer_is_found() {
        let endpoint: Endpoint = "https://s-1.example".parse().unwrap();
        let find =
            |body: &str| hidden_error(Operation::PutMedia, &endpoint, &HeaderMap::new(), body.as_bytes());
        let cases = [
            (
                r#"{"Output":{"__type":"com.amazon.coral.service#UnknownOperationException","message":null},"Version":"1.0"}"#,
                "UnknownOperationException",
            ),
            (
                r#"{"__type":"com.amazon.coral.service#SerializationException","Message":"no"}"#,
                "SerializationException",
            ),
            (
                r#"{"Output":{"__type":"com.amazon.coral.service#SerializationException"}}"#,
                "SerializationException",
            ),
        ];
        for (body, expected) in cases {
            let Some(Error::UnknownOperation { exception, .. }) = find(body) else { panic!("{body}") };
            assert_eq!(exception, expected);
        }
        for body in ["{}", "", "[]", "\x1a\x45\u{fffd}", r#"{"StreamInfo":{}}"#, r#"{"EventType":"IDLE"}"#] {
            assert!(find(body).is_none(), "{body}");
        }
    }
}
