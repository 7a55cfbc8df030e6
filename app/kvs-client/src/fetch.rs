//! What a session's URL leads to, fetched without a signature.
//!
//! Redirections are not followed: the service makes none, and the token would go wherever they lead.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use http::{Method, Request, Response, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;

use crate::answer::{self, Completeness};
use crate::client::Client;
use crate::connection;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::operation::Operation;

/// However slowly it comes.
const LIMIT: Duration = Duration::from_secs(60);

/// The host of a URL, and what is asked of it. `None`: it is none of http or https.
pub(crate) fn split_url(url: &str) -> Option<(Endpoint, String)> {
    let (scheme, rest) = url.split_once("://")?;
    let at = rest.find('/')?;
    let endpoint = format!("{scheme}://{}", &rest[..at]).parse().ok()?;
    Some((endpoint, rest[at..].to_owned()))
}

impl Client {
    /// The whole body, at most `limit_bytes`, and not empty. `expected`: how its content type may begin.
    pub(crate) async fn fetch(
        &self,
        operation: Operation,
        endpoint: &Endpoint,
        path_and_query: &str,
        expected: &[&str],
        limit_bytes: usize,
    ) -> Result<Bytes, Error> {
        let fetching = self.fetch_slowly(operation, endpoint, path_and_query, expected, limit_bytes);
        tokio::time::timeout(LIMIT, fetching).await.unwrap_or_else(|_| {
            let endpoint = endpoint.clone();
            Err(Error::Timeout { operation, endpoint, what: "whole answer", after: LIMIT })
        })
    }

    async fn fetch_slowly(
        &self,
        operation: Operation,
        endpoint: &Endpoint,
        path_and_query: &str,
        expected: &[&str],
        limit_bytes: usize,
    ) -> Result<Bytes, Error> {
        let response = self.get(operation, endpoint, path_and_query).await?;
        let (response, _connection) = response;
        let request_id = answer::request_id(response.headers());
        let bad = |what: String| Error::BadResponse {
            operation,
            endpoint: endpoint.clone(),
            what,
            request_id: request_id.clone(),
        };
        let status = response.status();
        if status.is_redirection() {
            return Err(bad(format!("a redirection ({status}), which is not followed")));
        }
        if !status.is_success() {
            return Err(self.refusal(operation, response, self.now()).await);
        }
        let idle = self.shared.config.timeouts.idle;
        let (head, mut body) = response.into_parts();
        let (body, completeness) = answer::read_start(&mut body, limit_bytes, idle).await;
        match completeness {
            Completeness::Whole => {}
            Completeness::TimedOut => {
                let endpoint = endpoint.clone();
                return Err(Error::Timeout { operation, endpoint, what: "rest of the answer", after: idle });
            }
            Completeness::Broken(source) => {
                return Err(Error::Interrupted { operation, endpoint: endpoint.clone(), request_id, source });
            }
            Completeness::TooLong => return Err(bad(format!("more than {limit_bytes} bytes"))),
        }
        if let Some(hidden) = answer::hidden_error(operation, endpoint, &head.headers, &body) {
            return Err(hidden);
        }
        let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.is_empty() && !expected.iter().any(|expected| kind.to_lowercase().starts_with(expected)) {
            return Err(bad(format!("content type {kind}, expected {}", expected.join(" or "))));
        }
        if body.is_empty() {
            return Err(bad("no byte".to_owned()));
        }
        Ok(body)
    }

    async fn get(
        &self,
        operation: Operation,
        endpoint: &Endpoint,
        path_and_query: &str,
    ) -> Result<(Response<Incoming>, connection::Connection), Error> {
        let unsendable = |what: String| Error::BadRequest { operation, what };
        let header = |text: &str| HeaderValue::try_from(text).map_err(|error| unsendable(error.to_string()));
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = Method::GET;
        // The text is a secret.
        *request.uri_mut() = Uri::try_from(path_and_query)
            .map_err(|_| unsendable("what the playlist names is no path with a query".to_owned()))?;
        request.headers_mut().insert(HOST, header(&endpoint.authority())?);
        request.headers_mut().insert(USER_AGENT, header(&self.shared.config.user_agent)?);
        let (mut sender, connection) = connection::open(self, endpoint, operation).await?;
        let (after, endpoint) = (self.shared.config.timeouts.head, endpoint.clone());
        match tokio::time::timeout(after, sender.send_request(request)).await {
            Ok(Ok(response)) => Ok((response, connection)),
            Ok(Err(source)) => Err(Error::Interrupted { operation, endpoint, request_id: None, source }),
            Err(_) => Err(Error::Timeout { operation, endpoint, what: "answer", after }),
        }
    }
}
