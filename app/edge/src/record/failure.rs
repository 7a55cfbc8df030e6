//! What an error of the KVS client means for an upload.

use std::io::ErrorKind;

use health::Reason;
use kvs::upload::{Failure, Retry};
use kvs_client::kvs::api::StreamId;
use kvs_client::{Action, Client, Error, Operation, ServiceErrorKind};

/// As the upload's driver takes it, with what to change about it.
pub fn failure_of(error: &Error, client: &Client, stream: &StreamId) -> Failure {
    let retry = match error.action() {
        Action::Stop => Retry::Operator,
        Action::RetrySlower => Retry::Slower,
        Action::Retry | Action::RefreshCredentials | Action::RefreshEndpoint | Action::FixClock { .. } => {
            Retry::Soon
        }
    };
    let failure = Failure::new(reason_of(error), health::chain(error), retry);
    error.advice(client, Some(stream)).into_iter().fold(failure, Failure::fix)
}

/// What dashboards call it.
pub fn reason_of(error: &Error) -> Reason {
    match error {
        Error::Credentials(_) => Reason::Credentials,
        Error::Connect { .. } if error.is_not_resolved() => Reason::DnsFailed,
        Error::Tls { .. } => Reason::TlsFailed,
        Error::Connect { source, .. } => match source.kind() {
            ErrorKind::ConnectionRefused => Reason::ConnectionRefused,
            ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => Reason::Unreachable,
            _ => Reason::UploadFailed,
        },
        Error::Timeout { .. } => Reason::Timeout,
        Error::Stalled { .. } => Reason::StaleConnection,
        _ => error.service_kind().map_or(Reason::UploadFailed, |kind| of_refusal(kind, error)),
    }
}

fn of_refusal(kind: &ServiceErrorKind, error: &Error) -> Reason {
    use ServiceErrorKind as Kind;
    match kind {
        Kind::ExpiredToken => Reason::TokenExpired,
        Kind::NotAuthorized
        | Kind::AccessDenied
        | Kind::InvalidClientTokenId
        | Kind::InvalidSignature
        | Kind::IncompleteSignature
        | Kind::MissingAuthenticationToken => Reason::Credentials,
        Kind::ClockSkew => Reason::ClockSkew,
        Kind::ResourceNotFound => Reason::StreamMissing,
        Kind::NoDataRetention => Reason::StreamSettings,
        Kind::InvalidEndpoint => Reason::EndpointChanged,
        Kind::ConnectionLimitExceeded if error.operation() == Some(Operation::PutMedia) => Reason::StreamBusy,
        Kind::ClientLimitExceeded | Kind::ConnectionLimitExceeded | Kind::Throttling => Reason::Throttled,
        Kind::AccountStreamLimitExceeded | Kind::DeviceStreamLimitExceeded => Reason::AccountLimit,
        _ => Reason::UploadFailed,
    }
}
