//! One request with a JSON body, up to the head of its answer, and the answers that are JSON themselves.
//!
//! Each call opens a connection: calls are rare, and a stale pooled connection is one more thing to go wrong.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use kvs::api::{IMAGE_CONTENT_BYTES, IMAGES_PER_ANSWER, StreamId};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::answer::{self, Completeness, MAX_ERROR_BYTES};
use crate::client::Client;
use crate::connection::{self, Connection};
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::media_stream::MediaStream;
use crate::operation::Operation;
use crate::sign;

/// ListStreams with 10000 rows is the longest answer, about 4 MB.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// GetImages: as many pictures as an answer has, each as long as it may be, and what stands around them.
const MAX_IMAGES_BYTES: usize = IMAGES_PER_ANSWER as usize * (IMAGE_CONTENT_BYTES + 256) + 8 * 1024;
/// Pictures are made while the caller waits.
const IMAGES_TAKE_LONGER: u32 = 3;

impl Client {
    pub(crate) async fn control_call<I: Serialize, O: DeserializeOwned>(
        &self,
        operation: Operation,
        input: &I,
    ) -> Result<O, Error> {
        let answer = self.json_call(operation, self.control(), input).await;
        answer.inspect_err(|error| self.learn(operation, None, error))
    }

    pub(crate) async fn data_call<I: Serialize, O: DeserializeOwned>(
        &self,
        operation: Operation,
        stream: &StreamId,
        input: &I,
    ) -> Result<O, Error> {
        let endpoint = self.data_endpoint(operation, stream).await?;
        let answer = self.json_call(operation, &endpoint, input).await;
        answer.inspect_err(|error| self.learn(operation, Some(stream), error))
    }

    pub(crate) async fn media_call<I: Serialize>(
        &self,
        operation: Operation,
        stream: &StreamId,
        input: &I,
    ) -> Result<MediaStream, Error> {
        let endpoint = self.data_endpoint(operation, stream).await?;
        let (response, connection) = self
            .exchange(operation, &endpoint, input)
            .await
            .inspect_err(|error| self.learn(operation, Some(stream), error))?;
        Ok(MediaStream::new(operation, endpoint, response, connection, self.shared.config.timeouts.idle))
    }

    async fn json_call<I: Serialize, O: DeserializeOwned>(
        &self,
        operation: Operation,
        endpoint: &Endpoint,
        input: &I,
    ) -> Result<O, Error> {
        let (response, _connection) = self.exchange(operation, endpoint, input).await?;
        let (head, mut body) = response.into_parts();
        let request_id = answer::request_id(&head.headers);
        let idle = self.shared.config.timeouts.idle;
        let most = if operation == Operation::GetImages { MAX_IMAGES_BYTES } else { MAX_ANSWER_BYTES };
        let (body, completeness) = answer::read_start(&mut body, most, idle).await;
        let endpoint = endpoint.clone();
        match completeness {
            Completeness::Whole => {}
            Completeness::TimedOut => {
                return Err(Error::Timeout { operation, endpoint, what: "rest of the answer", after: idle });
            }
            Completeness::Broken(source) => {
                return Err(Error::Interrupted { operation, endpoint, request_id, source });
            }
            Completeness::TooLong => {
                let what = format!("answer of more than {most} bytes");
                return Err(Error::BadResponse { operation, endpoint, what, request_id });
            }
        }
        if let Some(hidden) = answer::hidden_error(operation, &endpoint, &head.headers, &body) {
            return Err(hidden);
        }
        let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
        serde_json::from_slice(text).map_err(|error| {
            let what = format!("unexpected answer: {error}");
            Error::BadResponse { operation, endpoint, what, request_id }
        })
    }

    /// Sends the request; a refusal comes out as an error, anything else with its body still to be read.
    async fn exchange<I: Serialize>(
        &self,
        operation: Operation,
        endpoint: &Endpoint,
        input: &I,
    ) -> Result<(Response<Incoming>, Connection), Error> {
        let body = serde_json::to_vec(input).map_err(|error| Error::BadRequest {
            operation,
            what: format!("it cannot be written: {error}"),
        })?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let signed_at = self.sign(operation, endpoint, &mut headers, &body).await?;

        let config = &self.shared.config;
        let (mut sender, connection) = connection::open(self, endpoint, operation).await?;
        let request = connection::request(operation, headers, Full::new(Bytes::from(body)));
        let patience = if operation == Operation::GetImages { IMAGES_TAKE_LONGER } else { 1 };
        let (head, sent) = (config.timeouts.head * patience, config.clock.now());
        let response = match tokio::time::timeout(head, sender.send_request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(source)) => {
                let endpoint = endpoint.clone();
                return Err(Error::Interrupted { operation, endpoint, request_id: None, source });
            }
            Err(_) => {
                let endpoint = endpoint.clone();
                return Err(Error::Timeout { operation, endpoint, what: "answer", after: head });
            }
        };
        self.note_answer(response.headers(), sent);
        if response.status().is_success() {
            return Ok((response, connection));
        }
        Err(self.refusal(operation, response, signed_at).await)
    }

    /// Adds everything that every request has. Gives the time of the signature.
    pub(crate) async fn sign(
        &self,
        operation: Operation,
        endpoint: &Endpoint,
        headers: &mut HeaderMap,
        body: &[u8],
    ) -> Result<std::time::SystemTime, Error> {
        let config = &self.shared.config;
        let credentials = self.shared.credentials.load(self.now(), config.clock.now()).await?;
        let now = self.now();
        sign::add_signature(operation, endpoint, headers, body, &credentials, &config.region, now)?;
        let user_agent =
            HeaderValue::try_from(config.user_agent.as_str()).map_err(|_| Error::BadRequest {
                operation,
                what: format!("user agent {:?} cannot be a header", config.user_agent),
            })?;
        headers.insert(USER_AGENT, user_agent);
        Ok(now)
    }

    /// Reads the body of a refusal as far as it comes.
    pub(crate) async fn refusal(
        &self,
        operation: Operation,
        response: Response<Incoming>,
        signed_at: std::time::SystemTime,
    ) -> Error {
        let (head, mut body) = response.into_parts();
        let idle = self.shared.config.timeouts.idle;
        let (body, _) = answer::read_start(&mut body, MAX_ERROR_BYTES, idle).await;
        answer::service_error(operation, head.status.as_u16(), &head.headers, &body, signed_at)
    }
}
