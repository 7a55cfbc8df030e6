use hyper::header::{HeaderName, HeaderValue};
use serde_json::Value;

use super::*;

const VECTORS: &str = include_str!("../../../tests/data/kvssink-putmedia/sigv4_vectors.json");
/// 20261120T150834Z, when the vectors were signed.
const SIGNED_MS: u64 = 1_795_187_314_000;

/// A request that can be altered before it is checked.
#[derive(Clone)]
struct Signed {
    credentials: Credentials,
    region: String,
    now_ms: u64,
    path: String,
    headers: HeaderMap,
    body: Option<Vec<u8>>,
}

impl Signed {
    fn check(&self) -> Result<(), (String, u16)> {
        let verifier = Verifier {
            credentials: std::slice::from_ref(&self.credentials),
            region: &self.region,
            now_ms: self.now_ms,
        };
        let payload = self.body.as_deref().map_or(Payload::Streamed, Payload::Body);
        let uri = self.path.parse().expect("a path");
        verifier
            .verify(&Method::POST, &uri, &self.headers, payload)
            .map_err(|error| (error.kind.trim_end_matches("Exception").to_owned(), error.status))
    }

    fn set(&mut self, name: &'static str, value: &str) {
        self.headers.insert(name, HeaderValue::from_str(value).expect("a header value"));
    }

    fn authorization(&self) -> String {
        self.headers["authorization"].to_str().expect("ASCII").to_owned()
    }

    /// Signs what is there, with `x-amz-date` from `now_ms`; `hash` as it stands in the canonical request.
    fn sign(&mut self, signed_headers: &str, hash: &str) {
        let date = dates::format_basic(self.now_ms);
        self.set("x-amz-date", &date);
        let (key, day, region) = (&self.credentials.access_key, &date[..8], &self.region);
        let unsigned = format!(
            "{ALGORITHM} Credential={key}/{day}/{region}/kinesisvideo/aws4_request, \
             SignedHeaders={signed_headers}, Signature={}",
            "0".repeat(64)
        );
        let claim = Claim::parse(&unsigned).expect("well formed");
        let uri = self.path.parse().expect("a path");
        let canonical =
            CanonicalRequest::new(&Method::POST, &uri, &self.headers, &claim).expect("headers are there");
        let request_hash = Sha256::new().chain_update(&canonical.0).chain_update(hash).finalize();
        let text = format!("{ALGORITHM}\n{date}\n{}\n{}", claim.scope(), to_hex(&request_hash));
        let key = signing_key(&self.credentials.secret_key, &claim);
        let signature = to_hex(&hmac(&key, text.as_bytes()).finalize().into_bytes());
        let authorization = unsigned.replace(&"0".repeat(64), &signature);
        self.set("authorization", &authorization);
    }
}

/// As recorded from AWS's own producer.
fn vectors() -> Vec<Signed> {
    let file: Value = serde_json::from_str(VECTORS).expect("JSON");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let credentials = Credentials::new(text(&file["access_key"]), text(&file["secret_key"]))
        .with_token(text(&file["session_token"]));
    let vectors = file["vectors"].as_array().expect("a list");
    let read = |vector: &Value| Signed {
        credentials: credentials.clone(),
        region: text(&file["region"]),
        now_ms: SIGNED_MS,
        path: text(&vector["path"]),
        headers: vector["headers"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|pair| {
                let (name, value) = (text(&pair[0]), text(&pair[1]));
                (HeaderName::try_from(name).expect("a name"), HeaderValue::try_from(value).expect("a value"))
            })
            .collect(),
        body: (vector["path"] != "/putMedia").then(|| text(&vector["body"]).into_bytes()),
    };
    vectors.iter().map(read).collect()
}

fn refused(kind: &str, status: u16) -> Result<(), (String, u16)> {
    Err((kind.to_owned(), status))
}

#[test]
fn requests_of_the_official_producer_are_accepted() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 4);
    for vector in vectors {
        assert_eq!(vector.check(), Ok(()), "{}", vector.path);
    }
}

#[test]
fn whatever_is_altered_is_noticed() {
    type Alter = fn(&mut Signed);
    let cases: [(&str, Alter, &str, u16); 14] = [
        ("secret key", |s| s.credentials.secret_key.push('x'), "InvalidSignature", 403),
        ("access key", |s| s.credentials.access_key.push('x'), "UnrecognizedClient", 403),
        ("region", |s| s.region = "eu-central-1".to_owned(), "InvalidSignature", 403),
        ("path", |s| s.path = "/getMedia".to_owned(), "InvalidSignature", 403),
        ("query", |s| s.path.push_str("?a=b"), "InvalidSignature", 403),
        ("signed header", |s| s.set("user-agent", "other"), "InvalidSignature", 403),
        ("signed header gone", |s| drop(s.headers.remove("user-agent")), "InvalidSignature", 403),
        ("token", |s| s.set("x-amz-security-token", "other"), "ExpiredToken", 403),
        ("token gone", |s| drop(s.headers.remove("x-amz-security-token")), "UnrecognizedClient", 403),
        ("token unexpected", |s| s.credentials.session_token = None, "UnrecognizedClient", 403),
        ("too old", |s| s.now_ms += WINDOW_MS + 1000, "InvalidSignature", 403),
        ("too new", |s| s.now_ms -= WINDOW_MS + 1000, "InvalidSignature", 403),
        ("no date", |s| drop(s.headers.remove("x-amz-date")), "IncompleteSignature", 400),
        ("no signature", |s| drop(s.headers.remove("authorization")), "MissingAuthenticationToken", 403),
    ];
    for vector in vectors() {
        for (what, alter, kind, status) in cases {
            let mut altered = vector.clone();
            alter(&mut altered);
            assert_eq!(altered.check(), refused(kind, status), "{what} of {}", vector.path);
        }
        if let Some(body) = &vector.body {
            let mut altered = vector.clone();
            altered.body = Some([body, &b" "[..]].concat());
            assert_eq!(altered.check(), refused("InvalidSignature", 403), "body of {}", vector.path);
        }
    }
}

#[test]
fn the_window_is_five_minutes_on_both_sides() {
    for offset in [WINDOW_MS, 0] {
        let mut vector = vectors().remove(0);
        vector.now_ms = SIGNED_MS + offset;
        assert_eq!(vector.check(), Ok(()));
        vector.now_ms = SIGNED_MS - offset;
        assert_eq!(vector.check(), Ok(()));
    }
}

#[test]
fn authorization_in_any_broken_form_is_refused_without_panic() {
    let good = vectors().remove(0);
    let text = good.authorization();
    let mut broken: Vec<String> = (0..text.len()).map(|length| text[..length].to_owned()).collect();
    for (from, to) in [
        ("kinesisvideo", "s3"),
        ("aws4_request", "aws5_request"),
        ("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256x"),
        ("us-west-2/", ""),
        ("20261120", "20261121"),
        ("20261120", "x"),
        ("host;", ""),
        ("user-agent", "User-Agent"),
        ("user-agent", "x-not-sent"),
        ("Signature=8", "Signature=9"),
        ("Signature=8", "Signature=g"),
    ] {
        broken.push(text.replace(from, to));
    }
    for authorization in broken {
        let mut altered = good.clone();
        altered.set("authorization", authorization.trim());
        let (_, status) = altered.check().expect_err(&authorization);
        assert!([400, 403].contains(&status), "{authorization}");
    }
    let mut altered = good.clone();
    altered
        .headers
        .insert("authorization", HeaderValue::from_bytes(b"AWS4-HMAC-SHA256 \xff").expect("opaque"));
    assert_eq!(altered.check(), refused("IncompleteSignature", 400));
    for date in [
        "",
        "20261120T150834",
        "2026112øT150834Z",
        "20261320T150834Z",
        "20261120T250834Z",
        "00000000T000000Z",
    ] {
        let mut altered = good.clone();
        altered.set("x-amz-date", date);
        assert!(altered.check().is_err(), "{date}");
    }
}

#[test]
fn put_media_may_be_signed_over_nothing_or_be_unsigned() {
    for (hash, declared) in [
        (EMPTY_SHA256, None),
        (UNSIGNED_PAYLOAD, None),
        (UNSIGNED_PAYLOAD, Some(UNSIGNED_PAYLOAD)),
        (EMPTY_SHA256, Some(EMPTY_SHA256)),
    ] {
        let mut request = vectors().remove(3);
        if let Some(declared) = declared {
            request.set("x-amz-content-sha256", declared);
        }
        request.sign("host;x-amz-date;x-amzn-stream-name", hash);
        assert_eq!(request.check(), Ok(()), "{hash} {declared:?}");
    }
    // A library adds a query to PutMedia; it is signed like any other.
    let mut request = vectors().remove(3);
    request.path = "/putMedia?X-Amz-Expires=60&b=%2f&a=1".to_owned();
    request.sign("host;x-amz-date", EMPTY_SHA256);
    assert_eq!(request.check(), Ok(()));
    request.path = "/putMedia?X-Amz-Expires=61&b=%2f&a=1".to_owned();
    assert_eq!(request.check(), refused("InvalidSignature", 403));
}

#[test]
fn a_declared_body_hash_must_be_the_bodys() {
    let mut request = vectors().remove(0);
    let body = request.body.clone().expect("has a body");
    let hash = to_hex(&Sha256::digest(&body));
    request.set("x-amz-content-sha256", &hash);
    request.sign("host;x-amz-content-sha256;x-amz-date", &hash);
    assert_eq!(request.check(), Ok(()));
    request.body = Some(b"{}".to_vec());
    assert_eq!(request.check(), refused("InvalidSignature", 403));
}

#[test]
fn values_are_trimmed_collapsed_and_joined() {
    let mut request = vectors().remove(0);
    request.set("x-a", "  one   two  ");
    request.headers.append("x-a", HeaderValue::from_static("three"));
    let claim_text = request.authorization().replace("user-agent", "x-a");
    let claim = Claim::parse(&claim_text).expect("well formed");
    let uri = "/a%20b?z=1&A=%7e&a=".parse().expect("a path");
    let canonical =
        CanonicalRequest::new(&Method::POST, &uri, &request.headers, &claim).expect("headers are there");
    let text = String::from_utf8(canonical.0).expect("ASCII");
    assert_eq!(
        text,
        "POST\n/a%2520b\nA=~&a=&z=1\nhost:127.0.0.1\nx-a:one two,three\nx-amz-date:20261120T150834Z\n\n\
         host;x-a;x-amz-date\n"
    );
}

#[test]
fn dates_round_trip() {
    for (text, ms) in [
        ("19700101T000000Z", 0),
        ("20000229T235959Z", 951_868_799_000),
        ("20261120T150834Z", SIGNED_MS),
        ("99991231T235959Z", 253_402_300_799_000),
    ] {
        assert_eq!(dates::parse_basic(text), Some(ms), "{text}");
        assert_eq!(dates::format_basic(ms), text);
    }
}
