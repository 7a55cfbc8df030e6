//! What an error of the KVS client means for an upload.

use health::Reason;
use kvs::upload::{Failure, Retry};
use kvs_client::kvs::api::StreamId;
use kvs_client::{Action, Client, Error, ServiceErrorKind};

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
        Error::Timeout { .. } => Reason::Timeout,
        _ => match error.service_kind() {
            Some(
                ServiceErrorKind::NotAuthorized
                | ServiceErrorKind::AccessDenied
                | ServiceErrorKind::ExpiredToken
                | ServiceErrorKind::InvalidClientTokenId
                | ServiceErrorKind::InvalidSignature
                | ServiceErrorKind::IncompleteSignature
                | ServiceErrorKind::MissingAuthenticationToken,
            ) => Reason::Credentials,
            Some(ServiceErrorKind::ClockSkew) => Reason::ClockSkew,
            Some(ServiceErrorKind::ResourceNotFound) => Reason::StreamMissing,
            Some(ServiceErrorKind::NoDataRetention) => Reason::StreamSettings,
            Some(
                ServiceErrorKind::ClientLimitExceeded
                | ServiceErrorKind::ConnectionLimitExceeded
                | ServiceErrorKind::Throttling,
            ) => Reason::Throttled,
            _ => Reason::UploadFailed,
        },
    }
}
