//! Requests in, responses out.

use std::fmt::Write as _;

use bytes::{Buf, Bytes, BytesMut};

/// A request head longer than this is refused.
const MAX_HEAD_BYTES: usize = 16 * 1024;
const MAX_BODY_BYTES: usize = 64 * 1024;

/// What arrives on the connection: requests, and interleaved packets between them.
#[derive(Debug, PartialEq)]
pub(crate) enum Incoming {
    Request(Request),
    /// An interleaved packet, usually a receiver report.
    Packet {
        channel: u8,
        payload: Bytes,
    },
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Request {
    pub method: String,
    pub uri: String,
    headers: Vec<(String, String)>,
}

#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("request line is `{0}`, expected `METHOD rtsp://... RTSP/1.0`")]
    Line(String),
    #[error("header line `{0}` has no colon")]
    Header(String),
    #[error("request is larger than the limit of {0} bytes")]
    TooLarge(usize),
    #[error("request head is not UTF-8")]
    NotText,
}

impl Request {
    /// A header by its name in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Takes the next complete message out of `buffer`; `None` when more bytes are needed.
    pub(crate) fn parse(buffer: &mut BytesMut) -> Result<Option<Incoming>, RequestError> {
        // Some clients send empty lines between requests.
        while matches!(buffer.first(), Some(b'\r' | b'\n')) {
            buffer.advance(1);
        }
        if buffer.first() == Some(&b'$') {
            let [_, channel, high, low, ..] = buffer[..] else { return Ok(None) };
            let length = usize::from(u16::from_be_bytes([high, low]));
            if buffer.len() < 4 + length {
                return Ok(None);
            }
            buffer.advance(4);
            return Ok(Some(Incoming::Packet { channel, payload: buffer.split_to(length).freeze() }));
        }
        let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
            return if buffer.len() > MAX_HEAD_BYTES {
                Err(RequestError::TooLarge(MAX_HEAD_BYTES))
            } else {
                Ok(None)
            };
        };
        let head = std::str::from_utf8(&buffer[..end]).map_err(|_| RequestError::NotText)?;
        let request = Request::parse_head(head)?;
        let body = match request.header("Content-Length").map(str::parse::<usize>) {
            None => 0,
            Some(Ok(length)) if length <= MAX_BODY_BYTES => length,
            Some(_) => return Err(RequestError::TooLarge(MAX_BODY_BYTES)),
        };
        if buffer.len() < end + 4 + body {
            return Ok(None);
        }
        buffer.advance(end + 4 + body);
        Ok(Some(Incoming::Request(request)))
    }

    fn parse_head(head: &str) -> Result<Request, RequestError> {
        let mut lines = head.split("\r\n");
        let line = lines.next().unwrap_or_default();
        let wrong = || RequestError::Line(line.chars().take(200).collect());
        let mut words = line.split(' ');
        let (Some(method), Some(uri), Some("RTSP/1.0"), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(wrong());
        };
        let mut headers = Vec::new();
        for line in lines {
            let (name, value) = line.split_once(':').ok_or_else(|| RequestError::Header(line.to_owned()))?;
            headers.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        Ok(Request { method: method.to_owned(), uri: uri.to_owned(), headers })
    }
}

/// Path and query of a request URI, without scheme, host and slashes at the ends of the path.
pub(crate) fn path_and_query(uri: &str) -> (&str, &str) {
    let rest =
        uri.split_once("://").map_or(uri, |(_, rest)| rest.split_once('/').map_or("", |(_, path)| path));
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    (path.trim_matches('/'), query.trim_end_matches('/'))
}

pub(crate) struct Response {
    text: String,
    body: String,
}

impl Response {
    pub(crate) fn new(status: u16, request: &Request) -> Response {
        let reason = match status {
            200 => "OK",
            400 => "Bad Request",
            401 => "Unauthorized",
            404 => "Not Found",
            405 => "Method Not Allowed",
            454 => "Session Not Found",
            455 => "Method Not Valid in This State",
            461 => "Unsupported Transport",
            _ => "Internal Server Error",
        };
        let mut response = Response { text: format!("RTSP/1.0 {status} {reason}\r\n"), body: String::new() };
        if let Some(sequence) = request.header("CSeq") {
            response = response.header("CSeq", sequence);
        }
        response.header("Server", "camera-sim")
    }

    pub(crate) fn header(mut self, name: &str, value: impl std::fmt::Display) -> Response {
        let _ = write!(self.text, "{name}: {value}\r\n");
        self
    }

    pub(crate) fn body(self, kind: &str, body: String) -> Response {
        let mut response = self.header("Content-Type", kind).header("Content-Length", body.len());
        response.body = body;
        response
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        (self.text + "\r\n" + &self.body).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_and_packets_are_told_apart_however_they_are_cut() {
        let stream = b"OPTIONS rtsp://h/cam0 RTSP/1.0\r\nCSeq: 1\r\n\r\n$\x01\0\x02ab\r\n\
            GET_PARAMETER * RTSP/1.0\r\ncseq:2\r\nContent-Length: 3\r\n\r\nxyz";
        for cut in 0..stream.len() {
            let mut buffer = BytesMut::new();
            let mut seen = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                buffer.extend_from_slice(part);
                while let Some(incoming) = Request::parse(&mut buffer).unwrap() {
                    seen.push(match incoming {
                        Incoming::Request(request) => {
                            format!("{} {} {:?}", request.method, request.uri, request.header("CSeq"))
                        }
                        Incoming::Packet { channel, payload } => format!("{channel} {payload:?}"),
                    });
                }
            }
            assert_eq!(
                seen,
                [r#"OPTIONS rtsp://h/cam0 Some("1")"#, r#"1 b"ab""#, r#"GET_PARAMETER * Some("2")"#],
                "cut at {cut}"
            );
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let parse = |text: &str| Request::parse(&mut BytesMut::from(text)).unwrap_err();
        assert_eq!(parse("GET / HTTP/1.1\r\n\r\n"), RequestError::Line("GET / HTTP/1.1".into()));
        assert_eq!(parse("OPTIONS * RTSP/1.0\r\nno colon\r\n\r\n"), RequestError::Header("no colon".into()));
        assert_eq!(parse(&"x".repeat(20_000)), RequestError::TooLarge(MAX_HEAD_BYTES));
        let long = "OPTIONS * RTSP/1.0\r\nContent-Length: 99999999\r\n\r\n";
        assert_eq!(parse(long), RequestError::TooLarge(MAX_BODY_BYTES));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = Request::parse(&mut buffer) {}
        }
    }

    #[test]
    fn paths_are_found_with_and_without_query() {
        assert_eq!(path_and_query("rtsp://h:1/cam0?drop=1"), ("cam0", "drop=1"));
        assert_eq!(path_and_query("rtsp://h/cam0/trackID=1"), ("cam0/trackID=1", ""));
        assert_eq!(path_and_query("rtsp://h/cam0/"), ("cam0", ""));
        assert_eq!(path_and_query("rtsp://h"), ("", ""));
        assert_eq!(path_and_query("*"), ("*", ""));
    }
}
