//! Where requests go: one host per plane, and for the data planes one per stream and operation, which the
//! service hands out and which is kept for a while.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use http::Uri;
use kvs::api::{ApiName, StreamId};

use crate::config::ConfigError;

/// Scheme, host and port; never a path, since the service has none and a prefix would break the signature.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    tls: bool,
    host: String,
    port: u16,
}

/// The text is not an [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("endpoint `{found}`: expected https://HOST, http://HOST or either with :PORT, and nothing behind it")]
pub struct EndpointError {
    found: String,
}

impl Endpoint {
    /// The control endpoint of a region (KVS endpoints page).
    pub fn control(region: &str) -> Result<Self, ConfigError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if region.is_empty() || region.len() > 40 || !region.bytes().all(allowed) {
            return Err(ConfigError::Region { found: region.to_owned() });
        }
        let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
        Ok(Self { tls: true, host: format!("kinesisvideo.{region}.amazonaws.com{suffix}"), port: 443 })
    }

    /// Whether it is `https://`.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// 443 with TLS, 80 without, unless the URL has another one.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// As in the `Host` header: the port only if it is not the scheme's own.
    pub(crate) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == default_port(self.tls) { host } else { format!("{host}:{}", self.port) }
    }
}

fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let error = || EndpointError { found: text.to_owned() };
        let uri: Uri = text.parse().map_err(|_| error())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(error()),
        };
        let authority = uri.authority().ok_or_else(error)?;
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none() && !text.contains(['@', '#']);
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let port = match (
            authority.port_u16(),
            authority.as_str().rsplit_once("]").map_or(authority.as_str(), |s| s.1),
        ) {
            (Some(port), _) => port,
            (None, rest) if rest.contains(':') => return Err(error()),
            (None, _) => default_port(tls),
        };
        if !bare || host.is_empty() || port == 0 {
            return Err(error());
        }
        Ok(Self { tls, host, port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The service wants data endpoints asked again about every 45 min; the AWS producer SDK keeps them for 40.
const KEEP: Duration = Duration::from_secs(40 * 60);

/// Data endpoints already asked for. Entries that grew too old leave when the next one comes, so there are
/// never more than streams in use, times operations.
#[derive(Debug, Default)]
pub(crate) struct EndpointCache {
    entries: Mutex<HashMap<(String, ApiName), (Endpoint, Instant)>>,
}

impl EndpointCache {
    pub(crate) fn find(&self, stream: &StreamId, api: ApiName, now: Instant) -> Option<Endpoint> {
        let entries = self.entries.lock().expect("no panic while it is held");
        let (endpoint, since) = entries.get(&(key(stream), api))?;
        (now.saturating_duration_since(*since) < KEEP).then(|| endpoint.clone())
    }

    pub(crate) fn keep(&self, stream: &StreamId, api: ApiName, endpoint: Endpoint, now: Instant) {
        let mut entries = self.entries.lock().expect("no panic while it is held");
        entries.retain(|_, (_, since)| now.saturating_duration_since(*since) < KEEP);
        entries.insert((key(stream), api), (endpoint, now));
    }

    pub(crate) fn forget(&self, stream: &StreamId, api: ApiName) {
        self.entries.lock().expect("no panic while it is held").remove(&(key(stream), api));
    }
}

/// Names hold no colon, ARNs do: the two cannot meet.
fn key(stream: &StreamId) -> String {
    stream.stream_arn.clone().or_else(|| stream.stream_name.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_written_in_one_form() {
        let cases = [
            (
                "https://s-1a2b.kinesisvideo.eu-central-1.amazonaws.com",
                "s-1a2b.kinesisvideo.eu-central-1.amazonaws.com",
            ),
            ("https://Example.COM:443/", "example.com"),
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://127.0.0.1:80", "127.0.0.1"),
            ("https://[::1]:9443", "[::1]:9443"),
            ("http://[::1]", "[::1]"),
        ];
        for (text, authority) in cases {
            let endpoint: Endpoint = text.parse().expect(text);
            assert_eq!(endpoint.authority(), authority);
            assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
        }
    }

    #[test]
    fn anything_but_scheme_host_and_port_is_refused() {
        for text in [
            "",
            "kinesisvideo.eu-central-1.amazonaws.com",
            "ftp://host",
            "https://",
            "https://host/path",
            "https://host?query",
            "https://user:secret@host",
            "https://host:0",
            "https://host:65536",
            "https://host:",
            "http://ho st",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_control_endpoint_follows_the_region() {
        let of = |region| Endpoint::control(region).map(|endpoint| endpoint.to_string());
        assert_eq!(of("eu-central-1").unwrap(), "https://kinesisvideo.eu-central-1.amazonaws.com");
        assert_eq!(of("cn-north-1").unwrap(), "https://kinesisvideo.cn-north-1.amazonaws.com.cn");
        for region in ["", "eu.evil.example/", "EU-CENTRAL-1"] {
            assert!(of(region).is_err(), "{region}");
        }
    }

    #[test]
    fn an_endpoint_is_kept_for_forty_minutes_per_stream_and_operation() {
        let (t0, cache) = (clock::Clock::system().now(), EndpointCache::default());
        let (cam1, cam2) = (StreamId::name("cam1"), StreamId::name("cam2"));
        let endpoint: Endpoint = "https://s-1.example".parse().unwrap();
        cache.keep(&cam1, ApiName::PutMedia, endpoint.clone(), t0);
        assert_eq!(
            cache.find(&cam1, ApiName::PutMedia, t0 + KEEP - Duration::from_millis(1)),
            Some(endpoint.clone())
        );
        assert_eq!(cache.find(&cam1, ApiName::PutMedia, t0 + KEEP), None);
        assert_eq!(cache.find(&cam1, ApiName::GetMedia, t0), None);
        assert_eq!(cache.find(&cam2, ApiName::PutMedia, t0), None);

        cache.keep(&cam2, ApiName::PutMedia, endpoint, t0 + KEEP);
        assert_eq!(cache.entries.lock().unwrap().len(), 1, "what grew too old is dropped");
        cache.forget(&cam2, ApiName::PutMedia);
        assert_eq!(cache.find(&cam2, ApiName::PutMedia, t0 + KEEP), None);
    }
}
