//! The service's error answers.

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

use crate::server::Body;

/// What a request is refused with; becomes an HTTP answer as the service writes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {message}")]
pub(crate) struct ServiceError {
    /// `ResourceNotFoundException`, ... or any other name that a fault asks for.
    pub(crate) kind: String,
    pub(crate) status: u16,
    pub(crate) message: String,
    shape: Shape,
}

/// The three body forms that the service has been seen to answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// `{"Message": ...}`, of the operations.
    Operation,
    /// `{"message": ...}`, of the gateway that checks signatures.
    Gateway,
    /// HTTP 200 and `{"Output":{"__type":...}}` (producer-c issues 250 and 289, aws-sdk-js issue 2093).
    Coral,
}

impl ServiceError {
    fn new(kind: &str, status: u16, message: impl Into<String>, shape: Shape) -> Self {
        Self { kind: kind.to_owned(), status, message: message.into(), shape }
    }

    pub(crate) fn operation(kind: &str, status: u16, message: impl Into<String>) -> Self {
        Self::new(kind, status, message, Shape::Operation)
    }

    pub(crate) fn gateway(kind: &str, status: u16, message: impl Into<String>) -> Self {
        Self::new(kind, status, message, Shape::Gateway)
    }

    pub(crate) fn invalid_argument(message: impl Into<String>) -> Self {
        Self::operation("InvalidArgumentException", 400, message)
    }

    pub(crate) fn stream_not_found(stream: &str) -> Self {
        let message = format!("The requested stream is not found or not active: {stream}");
        Self::operation("ResourceNotFoundException", 404, message)
    }

    pub(crate) fn connection_limit(message: impl Into<String>) -> Self {
        Self::operation("ConnectionLimitExceededException", 400, message)
    }

    pub(crate) fn client_limit(what: &str) -> Self {
        Self::operation("ClientLimitExceededException", 400, format!("Rate exceeded: {what}."))
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::operation("InternalFailure", 500, message)
    }

    pub(crate) fn unknown_operation() -> Self {
        Self::new("UnknownOperationException", 200, "", Shape::Coral)
    }

    pub(crate) fn serialization(message: impl Into<String>) -> Self {
        Self::new("SerializationException", 200, message, Shape::Coral)
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let body = match self.shape {
            Shape::Operation => serde_json::json!({ "Message": self.message }),
            Shape::Gateway => serde_json::json!({ "message": self.message }),
            Shape::Coral => serde_json::json!({
                "Output": {
                    "__type": format!("com.amazon.coral.service#{}", self.kind),
                    "message": if self.message.is_empty() { None } else { Some(&self.message) },
                },
                "Version": "1.0",
            }),
        };
        let mut response = Response::new(Body::full(body.to_string()));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.shape != Shape::Coral
            && let Ok(kind) = HeaderValue::from_str(&self.kind)
        {
            response.headers_mut().insert("x-amzn-errortype", kind);
        }
        response
    }
}
