//! Signature Version 4, as the AWS producer SDKs put it on Kinesis Video Streams requests.
//!
//! Signed are `host`, `x-amz-date`, the session token and whatever headers the request already holds; what a
//! proxy may rewrite (`connection`, `transfer-encoding`, `user-agent`) is added after signing. The body of
//! PutMedia is not part of its signature: it is signed as if empty, the form of the AWS C SDKs.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use http::{HeaderMap, HeaderValue};

use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::operation::Operation;

/// Adds `host`, `x-amz-date`, `authorization` and, for temporary keys, `x-amz-security-token` to `headers`.
pub(crate) fn add_signature(
    operation: Operation,
    endpoint: &Endpoint,
    headers: &mut HeaderMap,
    body: &[u8],
    credentials: &Credentials,
    region: &str,
    now: SystemTime,
) -> Result<(), Error> {
    let error = |what: String| Error::BadRequest { operation, what: format!("it cannot be signed: {what}") };
    let host = HeaderValue::try_from(endpoint.authority()).map_err(|e| error(e.to_string()))?;
    headers.insert(http::header::HOST, host);

    let identity = credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(kvs::api::SERVICE)
        .time(now)
        .settings(SigningSettings::default())
        .build()
        .map_err(|e| error(e.to_string()))?
        .into();
    let signed = {
        let mut texts = Vec::with_capacity(headers.len());
        for (name, value) in headers.iter() {
            let value = value.to_str().map_err(|_| error(format!("header {name} is not ASCII")))?;
            texts.push((name.as_str(), value));
        }
        let uri = format!("{endpoint}{}", operation.path());
        SignableRequest::new("POST", uri, texts.into_iter(), SignableBody::Bytes(body))
            .and_then(|request| sign(request, &params))
            .map_err(|e| error(e.to_string()))?
    };
    for header in signed.into_parts().0.into_parts().0 {
        let mut value = HeaderValue::try_from(header.value()).map_err(|e| error(e.to_string()))?;
        value.set_sensitive(header.sensitive() || header.name() == "authorization");
        headers.insert(header.name(), value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    /// Signs like botocore, given the headers that are to be signed, and prints its Authorization header.
    const BOTOCORE: &str = r#"
import datetime, json, sys
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
import botocore.auth
task = json.load(sys.stdin)
class Fixed(datetime.datetime):
    @classmethod
    def utcnow(cls): return cls.utcfromtimestamp(task["time"])
    @classmethod
    def now(cls, tz=None): return cls.fromtimestamp(task["time"], tz)
botocore.auth.datetime = type("clock", (), {"datetime": Fixed})
if hasattr(botocore.auth, "get_current_datetime"):
    botocore.auth.get_current_datetime = lambda *a, **k: Fixed.utcfromtimestamp(task["time"])
request = AWSRequest("POST", task["url"], headers=task["headers"], data=task["body"].encode())
SigV4Auth(Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", task["token"]),
          "kinesisvideo", "eu-central-1").add_auth(request)
print(request.headers["Authorization"])
"#;

    type Headers<'a> = &'a [(&'static str, &'a str)];

    fn credentials(token: Option<&str>) -> Credentials {
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        Credentials::new("AKIDEXAMPLE", secret, token.map(str::to_owned), None, "test")
    }

    fn ours(
        endpoint: &str,
        operation: Operation,
        headers: Headers,
        body: &str,
        token: Option<&str>,
    ) -> HeaderMap {
        let mut map: HeaderMap =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_186_073);
        let endpoint = endpoint.parse().unwrap();
        add_signature(
            operation,
            &endpoint,
            &mut map,
            body.as_bytes(),
            &credentials(token),
            "eu-central-1",
            now,
        )
        .unwrap();
        map
    }

    fn botocores(url: &str, headers: Headers, body: &str, token: Option<&str>) -> Option<String> {
        use std::io::Write;
        let headers: serde_json::Map<_, _> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        let task = serde_json::json!({
            "url": url, "headers": headers, "body": body, "token": token, "time": 1_795_186_073,
        });
        let mut child = Command::new("/usr/bin/python3")
            .args(["-W", "ignore", "-c", BOTOCORE])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .ok()?;
        child.stdin.take()?.write_all(task.to_string().as_bytes()).ok()?;
        let output = child.wait_with_output().ok()?;
        let problem = String::from_utf8_lossy(&output.stderr).into_owned();
        if problem.contains("No module named 'botocore'") {
            return None;
        }
        assert!(output.status.success(), "{problem}");
        Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }

    #[test]
    fn botocore_computes_the_same_signature() {
        let put_media = [
            ("x-amzn-stream-name", "cam_1.main-A"),
            ("x-amzn-fragment-timecode-type", "ABSOLUTE"),
            ("x-amzn-producer-start-timestamp", "1795186073.633"),
            ("x-amzn-fragment-acknowledgment-required", "1"),
        ];
        let json = [("content-type", "application/json")];
        let arn = [("x-amzn-stream-arn", "arn:aws:kinesisvideo:eu-central-1:123456789012:stream/cam 1/1")];
        let cases: [(&str, Operation, Headers, &str, Option<&str>); 5] = [
            (
                "https://s-1a2b.kinesisvideo.eu-central-1.amazonaws.com",
                Operation::PutMedia,
                &put_media,
                "",
                None,
            ),
            (
                "https://s-1a2b.kinesisvideo.eu-central-1.amazonaws.com",
                Operation::PutMedia,
                &put_media,
                "",
                Some("tok/en+=="),
            ),
            ("http://127.0.0.1:8080", Operation::PutMedia, &arn, "", None),
            (
                "https://kinesisvideo.eu-central-1.amazonaws.com",
                Operation::DescribeStream,
                &json,
                r#"{"StreamName":"ä"}"#,
                Some("t"),
            ),
            ("http://[::1]:8080", Operation::ListFragments, &json, "{}", None),
        ];
        for (endpoint, operation, headers, body, token) in cases {
            let Some(expected) = botocores(&format!("{endpoint}{}", operation.path()), headers, body, token)
            else {
                let required = std::env::var_os("KVS_EDGE_TEST_REQUIRE_PEERS").is_some();
                assert!(!required, "/usr/bin/python3 with botocore is missing, and is required");
                eprintln!("skipped: /usr/bin/python3 with botocore is missing (Debian: python3-botocore)");
                return;
            };
            let ours = ours(endpoint, operation, headers, body, token);
            assert_eq!(ours["authorization"].to_str().unwrap(), expected, "{operation} at {endpoint}");
        }
    }

    #[test]
    fn debug_output_of_signed_headers_shows_neither_token_nor_signature() {
        let endpoint = "https://s-1.example";
        let headers = ours(endpoint, Operation::PutMedia, &[], "", Some("sessionTokenValue"));
        let text = format!("{headers:?}");
        assert!(text.contains("x-amz-date"));
        assert!(!text.contains("sessionTokenValue") && !text.contains("Signature="), "{text}");
    }
}
