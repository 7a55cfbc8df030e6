//! What can go wrong, and what a supervisor does about it.

use std::io;
use std::time::{Duration, SystemTime};

use aws_credential_types::provider::error::CredentialsError;
use kvs::ack::AckParseError;

use crate::dial::is_not_resolved;
use crate::endpoint::Endpoint;
use crate::operation::Operation;

/// Why an operation failed. No variant holds a key, a token or a signature.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The service refused the request.
    #[error("{operation} refused: {status} {kind}: {message}{}", request(request_id))]
    Service {
        /// Which operation.
        operation: Operation,
        /// Which refusal.
        kind: ServiceErrorKind,
        /// In the words of the service.
        message: String,
        /// HTTP status.
        status: u16,
        /// By it AWS finds the request in its logs, where it said one.
        request_id: Option<String>,
        /// The service's clock (header `Date`, resolution 1 s) when it refused.
        server_time: Option<SystemTime>,
    },
    /// Status 200, but the body says that the request was not understood. It comes for a path or host
    /// that does not offer the operation, and for malformed bodies and headers.
    #[error(
        "{operation} at {endpoint} not understood: 200 {exception}: {message}{}; is an endpoint override wrong?",
        request(request_id)
    )]
    UnknownOperation {
        /// Which operation.
        operation: Operation,
        /// Where it was sent, or is to be sent.
        endpoint: Endpoint,
        /// Such as `UnknownOperationException` or `SerializationException`.
        exception: String,
        /// In the words of the service.
        message: String,
        /// By it AWS finds the request in its logs, where it said one.
        request_id: Option<String>,
    },
    /// The provider of credentials has none, or takes too long.
    #[error("no credentials to sign with")]
    Credentials(#[source] CredentialsError),
    /// Name resolution or TCP failed, or the way through a proxy; see [`Error::is_not_resolved`].
    #[error("no connection to {endpoint}")]
    Connect {
        /// Where it was sent, or is to be sent.
        endpoint: Endpoint,
        /// What is behind it, in the words of the system or of a library.
        source: io::Error,
    },
    /// The peer's certificate or TLS dialect is not acceptable.
    #[error("TLS with {endpoint} refused; check its certificate, our CA file and this device's clock")]
    Tls {
        /// Where it was sent, or is to be sent.
        endpoint: Endpoint,
        /// What is behind it, in the words of the system or of a library.
        source: io::Error,
    },
    /// The peer says nothing.
    #[error("{operation} at {endpoint}: no {what} within {after:?}")]
    Timeout {
        /// Which operation.
        operation: Operation,
        /// Where it was sent, or is to be sent.
        endpoint: Endpoint,
        /// What is wrong, or was waited for.
        what: &'static str,
        /// How long that was waited for.
        after: Duration,
    },
    /// Media waits, but the socket took not one byte of it.
    #[error("{operation} at {endpoint}: nothing could be sent for {after:?}")]
    Stalled {
        /// Which operation.
        operation: Operation,
        /// Where it was sent, or is to be sent.
        endpoint: Endpoint,
        /// How long that was waited for.
        after: Duration,
    },
    /// The connection is gone, so nothing more can be sent; the other half of the session knows the reason.
    #[error("{operation} at {endpoint}: connection closed by the service while sending")]
    Closed {
        /// Which operation.
        operation: Operation,
        /// Where it was sent, or is to be sent.
        endpoint: Endpoint,
    },
    /// The connection broke before the answer was complete.
    #[error("{operation} at {endpoint}: connection broken{}", request(request_id))]
    Interrupted {
        /// Which operation.
        operation: Operation,
        /// Where it was sent, or is to be sent.
        endpoint: Endpoint,
        /// By it AWS finds the request in its logs, where it said one.
        request_id: Option<String>,
        /// What is behind it, in the words of the system or of a library.
        source: hyper::Error,
    },
    /// The answer is not what the operation answers.
    #[error("{operation} at {endpoint}: {what}{}", request(request_id))]
    BadResponse {
        /// Which operation.
        operation: Operation,
        /// Where it was sent, or is to be sent.
        endpoint: Endpoint,
        /// What is wrong, or was waited for.
        what: String,
        /// By it AWS finds the request in its logs, where it said one.
        request_id: Option<String>,
    },
    /// What PutMedia answers are no acknowledgements.
    #[error("PutMedia at {endpoint}: unreadable ack{}", request(request_id))]
    BadAck {
        /// Where it was sent, or is to be sent.
        endpoint: Endpoint,
        /// By it AWS finds the request in its logs, where it said one.
        request_id: Option<String>,
        /// What is behind it, in the words of the system or of a library.
        source: AckParseError,
    },
    /// The request cannot be written: a name with odd characters, a list that is too long.
    #[error("{operation} not sent: {what}")]
    BadRequest {
        /// Which operation.
        operation: Operation,
        /// What is wrong, or was waited for.
        what: String,
    },
}

fn request(request_id: &Option<String>) -> String {
    request_id.as_ref().map(|id| format!(" (request {id})")).unwrap_or_default()
}

/// What a supervisor does after an [`Error`].
///
/// What the client itself holds (credentials, endpoint, clock offset) is already dropped or corrected when the
/// error arrives: except for `Stop`, each means "call again after a back-off", and tells what will be new then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// After a back-off.
    Retry,
    /// Too many calls or connections: retry after a longer pause.
    RetrySlower,
    /// The next call asks the credentials provider again.
    RefreshCredentials,
    /// The next call asks for the data endpoint again.
    RefreshEndpoint,
    /// This device's clock is off by more than the service accepts (5 min). The next call is signed with
    /// the service's time; the operator should still be told.
    FixClock {
        /// The service's clock when it refused.
        server_time: SystemTime,
    },
    /// Nothing changes until somebody changes a key, a permission, a stream or a configuration: report it, and
    /// ask again only after minutes.
    Stop,
}

impl Error {
    /// The service's name for this exchange, to be quoted in support cases.
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Self::Service { request_id, .. }
            | Self::UnknownOperation { request_id, .. }
            | Self::Interrupted { request_id, .. }
            | Self::BadResponse { request_id, .. }
            | Self::BadAck { request_id, .. } => request_id.as_deref(),
            _ => None,
        }
    }

    /// The kind of refusal, if the service refused.
    pub fn service_kind(&self) -> Option<&ServiceErrorKind> {
        match self {
            Self::Service { kind, .. } => Some(kind),
            _ => None,
        }
    }

    /// There is no connection because a name does not resolve: that of the service, or of the proxy.
    pub fn is_not_resolved(&self) -> bool {
        matches!(self, Self::Connect { source, .. } if is_not_resolved(source))
    }

    /// Which operation the service refused.
    pub fn operation(&self) -> Option<Operation> {
        match self {
            Self::Service { operation, .. } => Some(*operation),
            _ => None,
        }
    }

    /// What to do about it, so that nobody has to read its text.
    pub fn action(&self) -> Action {
        match self {
            Self::Service { kind, status, server_time, .. } => service_action(kind, *status, *server_time),
            Self::Credentials(_) => Action::RefreshCredentials,
            Self::Connect { .. } => Action::RefreshEndpoint,
            Self::Tls { .. } | Self::UnknownOperation { .. } | Self::BadRequest { .. } => Action::Stop,
            Self::Timeout { .. }
            | Self::Stalled { .. }
            | Self::Closed { .. }
            | Self::Interrupted { .. }
            | Self::BadResponse { .. }
            | Self::BadAck { .. } => Action::Retry,
        }
    }
}

fn service_action(kind: &ServiceErrorKind, status: u16, server_time: Option<SystemTime>) -> Action {
    use ServiceErrorKind as Kind;
    match kind {
        Kind::ClockSkew => server_time.map_or(Action::Stop, |server_time| Action::FixClock { server_time }),
        Kind::ExpiredToken | Kind::InvalidClientTokenId => Action::RefreshCredentials,
        Kind::InvalidEndpoint => Action::RefreshEndpoint,
        Kind::ClientLimitExceeded | Kind::ConnectionLimitExceeded | Kind::Throttling => Action::RetrySlower,
        Kind::ResourceInUse | Kind::VersionMismatch | Kind::InternalFailure | Kind::ServiceUnavailable => {
            Action::Retry
        }
        Kind::Other(_) if status == 429 => Action::RetrySlower,
        Kind::Other(_) if status >= 500 || status == 408 => Action::Retry,
        _ => Action::Stop,
    }
}

macro_rules! kinds {
    ($($(#[$about:meta])* $kind:ident = $($name:literal)|+,)*) => {
        /// Error types of the service (its model, and those of every AWS service).
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum ServiceErrorKind {
            $($(#[$about])* $kind,)*
            /// A type this client does not know, as the service spells it; empty if it named none.
            Other(String),
        }

        impl ServiceErrorKind {
            /// Reads the bare name, without namespace and suffix.
            pub(crate) fn from_name(name: &str) -> Self {
                match name {
                    $($($name)|+ => Self::$kind,)*
                    other => Self::Other(other.to_owned()),
                }
            }

            /// As the service spells it (the first, where it has several spellings).
            pub fn name(&self) -> &str {
                match self {
                    $(Self::$kind => [$($name),+][0],)*
                    Self::Other(name) => name,
                }
            }
        }
    };
}

kinds! {
    /// A value of the request is none that it takes.
    InvalidArgument = "InvalidArgumentException" | "ValidationException" | "ValidationError",
    /// Too many calls, bytes or fragments a second.
    ClientLimitExceeded = "ClientLimitExceededException",
    /// All connections of the stream for this operation are taken.
    ConnectionLimitExceeded = "ConnectionLimitExceededException",
    /// The stream is served elsewhere by now.
    InvalidEndpoint = "InvalidEndpointException",
    /// The credentials may not do this.
    NotAuthorized = "NotAuthorizedException",
    /// The credentials may not do this.
    AccessDenied = "AccessDeniedException" | "AccessDenied",
    /// Also: the stream is not active yet.
    ResourceNotFound = "ResourceNotFoundException",
    /// The stream is there, or not active.
    ResourceInUse = "ResourceInUseException",
    /// There is no such device.
    InvalidDevice = "InvalidDeviceException",
    /// The account has as many streams as it may.
    AccountStreamLimitExceeded = "AccountStreamLimitExceededException",
    /// The device has as many streams as it may.
    DeviceStreamLimitExceeded = "DeviceStreamLimitExceededException",
    /// The stream has 50 tags.
    TagsPerResourceExceededLimit = "TagsPerResourceExceededLimitException",
    /// Somebody else has changed the stream since its version was read.
    VersionMismatch = "VersionMismatchException",
    /// The stream keeps nothing, so that nothing of it is archived.
    NoDataRetention = "NoDataRetentionException",
    /// The footage is of a kind that cannot be played.
    UnsupportedStreamMediaType = "UnsupportedStreamMediaTypeException",
    /// The footage does not say how it is decoded.
    MissingCodecPrivateData = "MissingCodecPrivateDataException",
    /// What the footage says of its decoding cannot be read.
    InvalidCodecPrivateData = "InvalidCodecPrivateDataException",
    /// A picture of the footage cannot be read.
    InvalidMediaFrame = "InvalidMediaFrameException",
    /// The ARN or the name is none.
    InvalidResourceFormat = "InvalidResourceFormatException",
    /// The temporary credentials have expired.
    ExpiredToken = "ExpiredTokenException" | "ExpiredToken" | "RequestExpiredToken",
    /// The access key or the token is unknown.
    InvalidClientTokenId = "UnrecognizedClientException" | "InvalidClientTokenId"
        | "InvalidClientTokenIdException" | "InvalidAccessKeyId",
    /// The signature does not fit: wrong secret key, or something on the way changed the request.
    InvalidSignature = "InvalidSignatureException" | "SignatureDoesNotMatch" | "InvalidSignature",
    /// The signature lacks a part.
    IncompleteSignature = "IncompleteSignatureException" | "IncompleteSignature",
    /// There is no signature.
    MissingAuthenticationToken = "MissingAuthenticationTokenException" | "MissingAuthenticationToken",
    /// The signature's time is more than 5 min off (also told by the messages "Signature expired" and
    /// "Signature not yet current", whatever the type).
    ClockSkew = "RequestTimeTooSkewed" | "RequestExpired" | "RequestTimeTooSkewedException",
    /// Too many calls.
    Throttling = "ThrottlingException" | "Throttling" | "TooManyRequestsException",
    /// The service's own trouble.
    InternalFailure = "InternalFailure" | "InternalFailureException" | "InternalServerError"
        | "InternalServiceException" | "InternalServerException",
    /// The service has no time.
    ServiceUnavailable = "ServiceUnavailable" | "ServiceUnavailableException",
}

impl std::fmt::Display for ServiceErrorKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(name: &str, status: u16) -> Action {
        service_action(&ServiceErrorKind::from_name(name), status, Some(SystemTime::UNIX_EPOCH))
    }

    #[test]
    fn each_refusal_has_its_action() {
        let cases = [
            ("InvalidArgumentException", 400, Action::Stop),
            ("ClientLimitExceededException", 400, Action::RetrySlower),
            ("ConnectionLimitExceededException", 400, Action::RetrySlower),
            ("ThrottlingException", 400, Action::RetrySlower),
            ("InvalidEndpointException", 400, Action::RefreshEndpoint),
            ("NotAuthorizedException", 401, Action::Stop),
            ("AccessDeniedException", 403, Action::Stop),
            ("ResourceNotFoundException", 404, Action::Stop),
            ("ResourceInUseException", 400, Action::Retry),
            ("VersionMismatchException", 400, Action::Retry),
            ("ExpiredTokenException", 403, Action::RefreshCredentials),
            ("UnrecognizedClientException", 403, Action::RefreshCredentials),
            ("InvalidSignatureException", 403, Action::Stop),
            ("RequestTimeTooSkewed", 403, Action::FixClock { server_time: SystemTime::UNIX_EPOCH }),
            ("InternalFailure", 500, Action::Retry),
            ("", 503, Action::Retry),
            ("", 429, Action::RetrySlower),
            ("NeverHeardOfException", 400, Action::Stop),
        ];
        for (name, status, expected) in cases {
            assert_eq!(action(name, status), expected, "{name} {status}");
        }
        assert_eq!(service_action(&ServiceErrorKind::ClockSkew, 403, None), Action::Stop);
    }

    #[test]
    fn an_error_stays_small_enough_to_be_returned_by_value() {
        assert!(size_of::<Error>() <= 128, "{}", size_of::<Error>());
    }
}
