//! What somebody can change about an error: a permission, a stream, a clock, another program.

use kvs::api::StreamId;

use crate::client::Client;
use crate::error::{Error, ServiceErrorKind};
use crate::operation::Operation;

impl Error {
    /// What to change, in one sentence for an operator; `None` where waiting is all there is to do. `stream`: what the
    /// call was about.
    pub fn advice(&self, client: &Client, stream: Option<&StreamId>) -> Option<String> {
        use ServiceErrorKind as Kind;
        let region = &client.shared.config.region;
        let name = stream.and_then(name).unwrap_or("NAME");
        match self {
            Self::Service { operation, kind, message, .. } => match kind {
                Kind::AccessDenied | Kind::NotAuthorized => Some(format!(
                    "allow the action kinesisvideo:{} on {} in the IAM policy of this box's key",
                    operation.name(),
                    resource(*operation, region, stream, message)
                )),
                Kind::ResourceNotFound => Some(format!(
                    "stream {name} does not exist in {region} or is not active yet: create it with `kvs-edge provision \
                     streams`, or correct the camera's stream or aws.region"
                )),
                Kind::NoDataRetention => Some(format!(
                    "stream {name} keeps nothing: set its retention with `kvs-edge provision streams \
                     --retention-hours 24`"
                )),
                Kind::ClockSkew => skew(client),
                Kind::ConnectionLimitExceeded => Some(connection_limit(*operation, name)),
                Kind::ClientLimitExceeded | Kind::Throttling => Some(call_limit(*operation, name)),
                Kind::AccountStreamLimitExceeded => {
                    Some("delete streams that nobody needs, or ask AWS for a higher quota".to_owned())
                }
                Kind::ExpiredToken => {
                    Some("the session token has expired: whoever rotates the keys must replace it".to_owned())
                }
                Kind::InvalidClientTokenId => Some(
                    "AWS does not know the access key: replace it, or correct the session token that belongs to it"
                        .to_owned(),
                ),
                Kind::InvalidSignature => {
                    Some("the secret key does not belong to the access key: replace both".to_owned())
                }
                Kind::InvalidArgument | Kind::InvalidResourceFormat => {
                    Some("correct the stream's name in the configuration".to_owned())
                }
                _ => None,
            },
            Self::Credentials(_) => Some(
                "give this box keys: [aws.credentials] in the configuration, or the environment, or a role".to_owned(),
            ),
            Self::Connect { endpoint, .. } if self.is_not_resolved() => Some(format!(
                "look at this box's name server (resolvectl status), and whether it knows {}",
                endpoint.host()
            )),
            Self::Connect { endpoint, .. } => {
                Some(format!("look at the network: route and firewall to {endpoint}"))
            }
            Self::Tls { .. } => Some(
                "a proxy that opens TLS needs its authority in aws.ca_file; a certificate that is not valid yet, or no \
                 longer, needs the right time on this box"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

fn name(stream: &StreamId) -> Option<&str> {
    // arn:aws:kinesisvideo:REGION:ACCOUNT:stream/NAME/CREATED
    let of_arn = || stream.stream_arn.as_deref()?.split('/').nth(1);
    stream.stream_name.as_deref().or_else(of_arn)
}

/// The resource for a policy: the stream's ARN, or a pattern with what is known of it.
fn resource(operation: Operation, region: &str, stream: Option<&StreamId>, message: &str) -> String {
    if operation == Operation::ListStreams {
        return "*".to_owned();
    }
    if let Some(arn) = stream.and_then(|stream| stream.stream_arn.clone()) {
        return arn;
    }
    // AWS often says: User: arn:aws:iam::ACCOUNT:user/NAME is not authorized to perform: ...
    let account = message.split("::").skip(1).find_map(|rest| {
        let account = rest.split(':').next()?;
        (account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit())).then_some(account)
    });
    let partition = match region {
        _ if region.starts_with("cn-") => "aws-cn",
        _ if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    };
    let name = stream.and_then(name).unwrap_or("*");
    format!("arn:{partition}:kinesisvideo:{region}:{}:stream/{name}/*", account.unwrap_or("*"))
}

fn skew(client: &Client) -> Option<String> {
    let offset_ms = client.service_time()?.offset_ms;
    let seconds = (offset_ms.unsigned_abs() + 500) / 1000;
    let direction = if offset_ms > 0 { "behind" } else { "ahead of" };
    Some(format!(
        "this box's clock is {seconds} s {direction} the service's: set it, or let NTP (UDP port 123) through; until then \
         requests are signed with the service's time"
    ))
}

fn connection_limit(operation: Operation, name: &str) -> String {
    match operation {
        Operation::PutMedia => format!(
            "somebody else sends to stream {name}, which takes one PutMedia at a time: look for a second box or program \
             with this stream's name; a session that broke is given up by the service within 30 s"
        ),
        Operation::GetMedia => format!(
            "three GetMedia readers of stream {name} are there already: close other players, consoles and consumers"
        ),
        _ => format!(
            "all connections for {operation} of stream {name} are in use: close other players, consoles and consumers"
        ),
    }
}

fn call_limit(operation: Operation, name: &str) -> String {
    if operation.api_name().is_none() {
        return format!(
            "{operation} is called too often in this account and region: look for other boxes, scripts and consoles that \
             do, or set aws.data_endpoint"
        );
    }
    format!(
        "{operation} of stream {name} is called too often: its limits are shared by all who read or send it, so look for \
         other boxes, players, consoles and scripts"
    )
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use clock::Clock;

    use super::*;
    use crate::config::{Config, static_credentials};

    fn client(region: &str, clock: Clock) -> Client {
        let mut config = Config::new(region, static_credentials("AKID", "secret", None));
        config.endpoints.control = Some("http://kvs.invalid".parse().expect("an endpoint"));
        Client::new(Config { clock, ..config }).expect("built")
    }

    fn refused(operation: Operation, kind: ServiceErrorKind, message: &str) -> Error {
        let message = message.to_owned();
        Error::Service { operation, kind, message, status: 400, request_id: None, server_time: None }
    }

    fn advice(operation: Operation, kind: ServiceErrorKind, message: &str, stream: &StreamId) -> String {
        let client = client("eu-central-1", Clock::system());
        refused(operation, kind, message).advice(&client, Some(stream)).expect("there is something to do")
    }

    #[test]
    fn a_missing_permission_is_named_as_a_policy_names_it() {
        use ServiceErrorKind::{AccessDenied, NotAuthorized};
        let (cam1, arn) = (
            StreamId::name("cam1"),
            "arn:aws:kinesisvideo:eu-central-1:123456789012:stream/cam1/1795186073633",
        );
        let said =
            "User: arn:aws:iam::123456789012:user/box is not authorized to perform: kinesisvideo:PutMedia";
        let cases = [
            (
                Operation::PutMedia,
                AccessDenied,
                "",
                &cam1,
                "kinesisvideo:PutMedia on arn:aws:kinesisvideo:eu-central-1:*:stream/cam1/* ",
            ),
            (
                Operation::PutMedia,
                AccessDenied,
                said,
                &cam1,
                "kinesisvideo:PutMedia on arn:aws:kinesisvideo:eu-central-1:123456789012:stream/cam1/* ",
            ),
            (
                Operation::GetDataEndpoint,
                NotAuthorized,
                "",
                &StreamId::arn(arn),
                "kinesisvideo:GetDataEndpoint on arn:aws:kinesisvideo:eu-central-1:123456789012:stream/cam1/1795186073633 ",
            ),
            (Operation::ListStreams, AccessDenied, "", &cam1, "kinesisvideo:ListStreams on * "),
        ];
        for (operation, kind, message, stream, expected) in cases {
            let found = advice(operation, kind, message, stream);
            assert!(found.contains(expected), "{found}");
        }
        for (region, partition) in [("cn-north-1", "arn:aws-cn:"), ("us-gov-west-1", "arn:aws-us-gov:")] {
            let error = refused(Operation::GetMedia, AccessDenied, "");
            let found = error.advice(&client(region, Clock::system()), Some(&cam1)).expect("there is");
            assert!(found.contains(partition), "{found}");
        }
    }

    #[test]
    fn each_refusal_that_somebody_can_end_says_what_to_do() {
        use ServiceErrorKind as Kind;
        let cases = [
            (Operation::PutMedia, Kind::ResourceNotFound, "`kvs-edge provision streams`"),
            (
                Operation::ListFragments,
                Kind::NoDataRetention,
                "`kvs-edge provision streams --retention-hours 24`",
            ),
            (Operation::PutMedia, Kind::ConnectionLimitExceeded, "somebody else sends to stream cam1"),
            (Operation::GetMedia, Kind::ConnectionLimitExceeded, "three GetMedia readers of stream cam1"),
            (Operation::ListFragments, Kind::ClientLimitExceeded, "shared by all who read or send it"),
            (Operation::DescribeStream, Kind::ClientLimitExceeded, "too often in this account"),
        ];
        for (operation, kind, expected) in cases {
            let found = advice(operation, kind, "", &StreamId::name("cam1"));
            assert!(found.contains(expected), "{found}");
        }
        let later = refused(Operation::PutMedia, Kind::InternalFailure, "");
        assert_eq!(later.advice(&client("eu-central-1", Clock::system()), None), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_skew_is_told_in_seconds_and_direction() {
        let noon = "Sat, 21 Nov 2026 12:00:00 GMT";
        let service = httpdate::parse_http_date(noon).expect("a date");
        let cases: [(SystemTime, &str); 3] = [
            (service - Duration::from_secs(600), "is 600 s behind the service's"),
            (service + Duration::from_millis(3_600_400), "is 3600 s ahead of the service's"),
            (UNIX_EPOCH, "is 1795262400 s behind the service's"),
        ];
        for (wall, expected) in cases {
            let client = client("eu-central-1", Clock::simulated(wall));
            let error = refused(Operation::PutMedia, ServiceErrorKind::ClockSkew, "");
            assert_eq!(error.advice(&client, None), None, "nothing to measure by");
            let headers = [(http::header::DATE, noon.parse().expect("ASCII"))].into_iter().collect();
            client.note_answer(&headers, client.shared.config.clock.now());
            let found = error.advice(&client, None).expect("known");
            assert!(found.contains(expected), "{found}");
        }
    }
}
