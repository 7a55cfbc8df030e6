//! Signature version 4, checked as strictly and as leniently as the service does.
//!
//! The canonical request is rebuilt from `SignedHeaders` alone, hop-by-hop headers included and with the bytes
//! as received. Producers differ in the payload hash of PutMedia: AWS's C SDK signs the hash of an empty body,
//! the Java SDK the words UNSIGNED-PAYLOAD, and neither says so in a header.

use hmac::{Hmac, KeyInit, Mac};
use hyper::{HeaderMap, Method, Uri};
use sha2::{Digest, Sha256};

use crate::dates;
use crate::errors::ServiceError;
use crate::options::Credentials;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The general AWS page says 15 minutes; the service refuses beyond 5 (producer-sdk-cpp issue 1099).
const WINDOW_MS: u64 = 5 * 60 * 1000;
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// What the signature may cover.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Payload<'a> {
    Body(&'a [u8]),
    /// PutMedia: the body is not part of the signature.
    Streamed,
}

/// The one who checks: its keys, region and time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verifier<'a> {
    pub(crate) credentials: &'a [Credentials],
    pub(crate) region: &'a str,
    pub(crate) now_ms: u64,
}

impl Verifier<'_> {
    /// Whether the request was signed by one of our credentials, for this service and region, within 5 minutes.
    pub(crate) fn verify(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        payload: Payload<'_>,
    ) -> Result<(), ServiceError> {
        let authorization = headers.get("authorization").ok_or_else(|| {
            ServiceError::gateway("MissingAuthenticationTokenException", 403, "Missing Authentication Token")
        })?;
        let authorization =
            authorization.to_str().map_err(|_| incomplete("Authorization is not plain ASCII."))?;
        let claim = Claim::parse(authorization)?;
        self.check_scope(&claim)?;

        let credentials = self
            .credentials
            .iter()
            .find(|credentials| credentials.access_key == claim.access_key)
            .ok_or_else(invalid_token)?;
        check_token(credentials, headers, self.now_ms)?;

        let date = headers
            .get("x-amz-date")
            .and_then(|value| value.to_str().ok())
            .ok_or_else(|| incomplete("Authorization header requires existence of 'X-Amz-Date' header."))?;
        let signed_ms = dates::parse_basic(date)
            .ok_or_else(|| incomplete("Date must be in ISO-8601 'basic format', YYYYMMDD'T'HHMMSS'Z'."))?;
        if !date.starts_with(claim.date) {
            return Err(mismatch(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date.",
            ));
        }
        self.check_age(date, signed_ms)?;

        let key = signing_key(&credentials.secret_key, &claim);
        let canonical = CanonicalRequest::new(method, uri, headers, &claim)?;
        if payload_hashes(headers, payload).iter().any(|hash| canonical.is_signed(&key, date, hash, &claim)) {
            return Ok(());
        }
        Err(mismatch(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
             Access Key and signing method. Consult the service documentation for details.",
        ))
    }

    fn check_scope(&self, claim: &Claim<'_>) -> Result<(), ServiceError> {
        if claim.region != self.region {
            let message =
                format!("Credential should be scoped to a valid region, not '{}'.", excerpt(claim.region));
            return Err(mismatch(message));
        }
        if claim.service != kvs::api::SERVICE {
            return Err(mismatch(format!(
                "Credential should be scoped to correct service: '{}'.",
                kvs::api::SERVICE
            )));
        }
        Ok(())
    }

    fn check_age(&self, date: &str, signed_ms: u64) -> Result<(), ServiceError> {
        let now = dates::format_basic(self.now_ms);
        let (earliest, latest) =
            (self.now_ms.saturating_sub(WINDOW_MS), self.now_ms.saturating_add(WINDOW_MS));
        if signed_ms < earliest {
            let bound = dates::format_basic(earliest);
            return Err(mismatch(format!(
                "Signature expired: {date} is now earlier than {bound} ({now} - 5 min.)"
            )));
        }
        if signed_ms > latest {
            let bound = dates::format_basic(latest);
            return Err(mismatch(format!(
                "Signature not yet current: {date} is still later than {bound} ({now} + 5 min.)"
            )));
        }
        Ok(())
    }
}

fn incomplete(message: &str) -> ServiceError {
    ServiceError::gateway("IncompleteSignatureException", 400, message)
}

fn mismatch(message: impl Into<String>) -> ServiceError {
    ServiceError::gateway("InvalidSignatureException", 403, message)
}

/// Type and status as producers log them (producer-sdk-java issues 90 and 103).
fn invalid_token() -> ServiceError {
    let message = "The security token included in the request is invalid.";
    ServiceError::gateway("UnrecognizedClientException", 403, message)
}

/// The token counts whether or not it is signed: the C SDK sends it unsigned.
fn check_token(credentials: &Credentials, headers: &HeaderMap, now_ms: u64) -> Result<(), ServiceError> {
    let sent = headers.get("x-amz-security-token").map(|value| value.as_bytes());
    let is_over = credentials.expires_ms.is_some_and(|end| end <= now_ms);
    match (&credentials.session_token, sent) {
        (None, None) => Ok(()),
        (Some(token), Some(sent)) if !is_over && Sha256::digest(token) == Sha256::digest(sent) => Ok(()),
        (Some(_), Some(_)) => Err(ServiceError::gateway(
            "ExpiredTokenException",
            403,
            "The security token included in the request is expired",
        )),
        _ => Err(invalid_token()),
    }
}

/// The Authorization header, taken apart.
#[derive(Debug)]
struct Claim<'a> {
    access_key: &'a str,
    date: &'a str,
    region: &'a str,
    service: &'a str,
    signed_headers: &'a str,
    signature: Vec<u8>,
}

impl<'a> Claim<'a> {
    fn parse(authorization: &'a str) -> Result<Self, ServiceError> {
        let rest = authorization
            .strip_prefix(ALGORITHM)
            .filter(|rest| rest.starts_with(' '))
            .ok_or_else(|| incomplete("Unsupported AWS 'algorithm', expected AWS4-HMAC-SHA256."))?;
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for part in rest.split(',') {
            match part.trim().split_once('=') {
                Some(("Credential", value)) => credential = Some(value),
                Some(("SignedHeaders", value)) => signed_headers = Some(value),
                Some(("Signature", value)) => signature = Some(value),
                _ => {}
            }
        }
        let missing = |name| incomplete(&format!("Authorization header requires '{name}' parameter."));
        let credential = credential.ok_or_else(|| missing("Credential"))?;
        let signed_headers = signed_headers.ok_or_else(|| missing("SignedHeaders"))?;
        let signature = signature.ok_or_else(|| missing("Signature"))?;

        let scope: Vec<&str> = credential.split('/').collect();
        let [access_key, date, region, service, "aws4_request"] = scope[..] else {
            return Err(incomplete(
                "Credential must have exactly 5 slash-delimited elements, ending in aws4_request.",
            ));
        };
        if !signed_headers.split(';').any(|name| name == "host") {
            return Err(mismatch("'Host' must be a 'SignedHeader' in the AWS Authorization."));
        }
        let signature =
            from_hex(signature).ok_or_else(|| incomplete("Signature must be 64 hexadecimal digits."))?;
        Ok(Self { access_key, date, region, service, signed_headers, signature })
    }

    fn scope(&self) -> String {
        format!("{}/{}/{}/aws4_request", self.date, self.region, self.service)
    }
}

/// Everything of the canonical request that stands in front of the payload hash.
struct CanonicalRequest(Vec<u8>);

impl CanonicalRequest {
    fn new(method: &Method, uri: &Uri, headers: &HeaderMap, claim: &Claim<'_>) -> Result<Self, ServiceError> {
        let mut text = Vec::with_capacity(512);
        let path = encode_path(uri.path());
        for line in [method.as_str(), &path, &canonical_query(uri.query().unwrap_or(""))] {
            text.extend_from_slice(line.as_bytes());
            text.push(b'\n');
        }
        for name in claim.signed_headers.split(';') {
            let mut values = headers.get_all(name).into_iter().peekable();
            if name.bytes().any(|byte| byte.is_ascii_uppercase()) || values.peek().is_none() {
                return Err(mismatch(format!("Signed header '{}' is not in the request.", excerpt(name))));
            }
            text.extend_from_slice(name.as_bytes());
            text.push(b':');
            for (index, value) in values.enumerate() {
                if index > 0 {
                    text.push(b',');
                }
                push_collapsed(&mut text, value.as_bytes());
            }
            text.push(b'\n');
        }
        text.push(b'\n');
        text.extend_from_slice(claim.signed_headers.as_bytes());
        text.push(b'\n');
        Ok(Self(text))
    }

    /// Compares in constant time.
    fn is_signed(&self, key: &[u8], date: &str, payload_hash: &[u8], claim: &Claim<'_>) -> bool {
        let request_hash = Sha256::new().chain_update(&self.0).chain_update(payload_hash).finalize();
        let text = format!("{ALGORITHM}\n{date}\n{}\n{}", claim.scope(), to_hex(&request_hash));
        hmac(key, text.as_bytes()).verify_slice(&claim.signature).is_ok()
    }
}

/// What may stand at the end of the canonical request. A hash in the header that is not the body's is not
/// tried, so an altered body is refused.
fn payload_hashes(headers: &HeaderMap, payload: Payload<'_>) -> Vec<Vec<u8>> {
    let declared = headers.get("x-amz-content-sha256").map(|value| value.as_bytes().to_vec());
    match payload {
        Payload::Body(body) => {
            let hash = to_hex(&Sha256::digest(body)).into_bytes();
            match declared {
                None => vec![hash],
                Some(declared) if declared == hash || declared == UNSIGNED_PAYLOAD.as_bytes() => {
                    vec![declared]
                }
                Some(_) => Vec::new(),
            }
        }
        Payload::Streamed => {
            let usual = [EMPTY_SHA256, UNSIGNED_PAYLOAD].map(|hash| hash.as_bytes().to_vec());
            declared.into_iter().chain(usual).collect()
        }
    }
}

fn signing_key(secret_key: &str, claim: &Claim<'_>) -> Vec<u8> {
    let first = format!("AWS4{secret_key}").into_bytes();
    [claim.date, claim.region, claim.service, "aws4_request"]
        .iter()
        .fold(first, |key, part| hmac(&key, part.as_bytes()).finalize().into_bytes().to_vec())
}

fn hmac(key: &[u8], text: &[u8]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length").chain_update(text)
}

/// Trims, and makes one space of several.
fn push_collapsed(text: &mut Vec<u8>, value: &[u8]) {
    let mut last = b' ';
    for &byte in value.trim_ascii() {
        if byte != b' ' || last != b' ' {
            text.push(byte);
        }
        last = byte;
    }
}

/// Encodes each segment once more, as all services but S3 want it; `/` stays.
fn encode_path(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    path.bytes()
        .for_each(|byte| if byte == b'/' { encoded.push('/') } else { push_encoded(&mut encoded, byte) });
    encoded
}

fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (encode_once(name), encode_once(value)))
        .collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// Decodes what is percent-encoded and encodes by the rules of the signature, so that both spellings of a
/// character give one text.
fn encode_once(text: &str) -> String {
    let (bytes, mut encoded, mut at) = (text.as_bytes(), String::with_capacity(text.len()), 0);
    while at < bytes.len() {
        let decoded = match bytes[at..] {
            [b'%', high, low, ..] => hex_value(high).zip(hex_value(low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        push_encoded(&mut encoded, decoded.unwrap_or(bytes[at]));
        at += if decoded.is_some() { 3 } else { 1 };
    }
    encoded
}

fn push_encoded(text: &mut String, byte: u8) {
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        text.push(char::from(byte));
    } else {
        text.push_str(&format!("%{byte:02X}"));
    }
}

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    if bytes.len() != 64 {
        return None;
    }
    bytes.chunks(2).map(|pair| Some(hex_value(pair[0])? << 4 | hex_value(pair[1])?)).collect()
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn excerpt(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
#[path = "sigv4_tests.rs"]
mod tests;
