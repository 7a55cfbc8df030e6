//! The bytes of GetMedia, GetMediaForFragmentList and GetClip as they come.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::answer::{self, MAX_ERROR_BYTES};
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::operation::Operation;

/// Media on its way in. Dropping it closes the connection at once.
///
/// A quiet stream is not an error: without an idle limit it may stay silent for as long as the service
/// keeps the connection.
#[derive(Debug)]
pub struct MediaStream {
    operation: Operation,
    endpoint: Endpoint,
    headers: HeaderMap,
    body: Incoming,
    idle_limit: Option<Duration>,
    state: State,
    /// How long the rest of such an error body is waited for.
    error_idle: Duration,
    _connection: Connection,
}

#[derive(Debug)]
enum State {
    Fresh,
    Media,
    /// A Matroska document starts with 1A 45 DF A3, an MP4 file with a length, so a brace starts an error in disguise: the body so far.
    NotMedia(Vec<u8>),
}

impl MediaStream {
    pub(crate) fn new(
        operation: Operation,
        endpoint: Endpoint,
        response: Response<Incoming>,
        connection: Connection,
        error_idle: Duration,
    ) -> Self {
        let (head, body) = response.into_parts();
        Self {
            operation,
            endpoint,
            headers: head.headers,
            body,
            idle_limit: None,
            state: State::Fresh,
            error_idle,
            _connection: connection,
        }
    }

    /// Makes a silence of this length an [`Error::Timeout`].
    pub fn set_idle_limit(&mut self, limit: Option<Duration>) {
        self.idle_limit = limit;
    }

    /// By it AWS finds the request in its logs.
    pub fn request_id(&self) -> Option<String> {
        answer::request_id(&self.headers)
    }

    /// The next bytes, never empty; `None` at the end of the answer, which says nothing about the stream.
    /// A cut connection is [`Error::Interrupted`]. Safe to cancel: nothing is lost.
    pub async fn next_bytes(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let disguised = matches!(self.state, State::NotMedia(_));
            let limit = if disguised { Some(self.error_idle) } else { self.idle_limit };
            let frame = match limit {
                None => self.body.frame().await,
                Some(after) => match tokio::time::timeout(after, self.body.frame()).await {
                    Ok(frame) => frame,
                    Err(_) if disguised => None,
                    Err(_) => {
                        let (operation, endpoint) = (self.operation, self.endpoint.clone());
                        return Err(Error::Timeout { operation, endpoint, what: "media", after });
                    }
                },
            };
            let bytes = match frame {
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(), // or else trailers
                Some(Err(source)) if !disguised => {
                    return Err(Error::Interrupted {
                        operation: self.operation,
                        endpoint: self.endpoint.clone(),
                        request_id: self.request_id(),
                        source,
                    });
                }
                Some(Err(_)) | None => {
                    let State::NotMedia(body) = &self.state else { return Ok(None) };
                    return Err(self.not_media(body));
                }
            };
            match &mut self.state {
                _ if bytes.is_empty() => {}
                State::Fresh if bytes[0] == b'{' => self.state = State::NotMedia(bytes.to_vec()),
                State::NotMedia(body) if body.len() > MAX_ERROR_BYTES => return Err(self.not_media(&[])),
                State::NotMedia(body) => body.extend_from_slice(&bytes),
                State::Fresh | State::Media => {
                    self.state = State::Media;
                    return Ok(Some(bytes));
                }
            }
        }
    }

    fn not_media(&self, body: &[u8]) -> Error {
        answer::hidden_error(self.operation, &self.endpoint, &self.headers, body).unwrap_or_else(|| {
            Error::BadResponse {
                operation: self.operation,
                endpoint: self.endpoint.clone(),
                what: "expected media, found a JSON object".to_owned(),
                request_id: self.request_id(),
            }
        })
    }
}
