//! Which fragments in doubt KVS has, as the upload's driver asks.

use clock::Clock;
use health::Reason;
use kvs::api::StreamId;
use kvs::read::{ReadFailure, ReadFailureKind};
use kvs::upload::{Doubt, Failure, LookedUp, Retry};
use kvs_client::Client;

use super::ask;

/// Looks for `doubts`; the driver asks only when a list lags no more. With `retention`, asks first whether the stream keeps
/// anything; whoever may not describe the stream finds out nothing there, and goes on.
pub(super) async fn look_up(
    client: &Client,
    stream: &StreamId,
    clock: &Clock,
    doubts: &[Doubt],
    retention: bool,
) -> LookedUp {
    if retention
        && let Ok(info) = client.describe_stream(stream).await
        && info.data_retention_in_hours == 0
    {
        return LookedUp::KeepsNothing;
    }
    let fragments = doubts.iter().map(|doubt| (doubt.summary.clone(), doubt.number)).collect();
    let answer = ask::reconcile(client, stream, clock, fragments, clock.now()).await;
    match answer.failure {
        Some(failure) if failure.reason == Reason::StreamSettings => LookedUp::KeepsNothing,
        Some(failure) if answer.found.is_empty() => LookedUp::CouldNotAsk(of_upload(failure)),
        // What was found is found.
        Some(failure) => {
            tracing::warn!(error = failure.text, "cannot ask for all fragments in doubt");
            LookedUp::Answer { found: answer.found, absent: Vec::new() }
        }
        None => LookedUp::Answer { found: answer.found, absent: answer.absent },
    }
}

/// The upload cannot go on without this answer.
fn of_upload(failure: ReadFailure) -> Failure {
    let reason = match failure.reason {
        Reason::VerifyFailed => Reason::UploadFailed,
        reason => reason,
    };
    let retry = match failure.kind {
        ReadFailureKind::Operator => Retry::Operator,
        ReadFailureKind::Slower | ReadFailureKind::TooManyReaders => Retry::Slower,
        ReadFailureKind::Soon | ReadFailureKind::Refused | ReadFailureKind::Unreadable => Retry::Soon,
    };
    Failure { reason, text: failure.text, fix: failure.fix, retry }
}
