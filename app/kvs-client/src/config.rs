//! What a [`Client`](crate::Client) needs to know, with the reason of each default.

use std::path::PathBuf;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use clock::Clock;

use crate::dial::SharedDialler;
use crate::endpoint::{Endpoint, EndpointError};

/// Settings of a client. Start from [`Config::new`] and change fields.
#[derive(Clone, Debug)]
pub struct Config {
    /// Such as `eu-central-1`; part of the signature and of the default control endpoint.
    pub region: String,
    /// Who signs. Asked before each signature, and again when the service calls the keys expired.
    pub credentials: SharedCredentialsProvider,
    /// Instead of the service's own.
    pub endpoints: Endpoints,
    /// PEM file with further trusted certificates, beside those of the system; for a server with a private one.
    pub extra_ca_pem: Option<PathBuf>,
    /// How long is waited for what.
    pub timeouts: Timeouts,
    /// Header `User-Agent` of each request.
    pub user_agent: String,
    /// Signatures, expiry and deadlines ask it. A wrong wall time is corrected for by what the service says.
    pub clock: Clock,
    /// TCP unless a test, or a way through a proxy, brings another one.
    pub dialler: SharedDialler,
}

impl Config {
    /// With every default.
    pub fn new(region: impl Into<String>, credentials: SharedCredentialsProvider) -> Self {
        Self {
            region: region.into(),
            credentials,
            endpoints: Endpoints::default(),
            extra_ca_pem: None,
            timeouts: Timeouts::default(),
            user_agent: concat!("kvs-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            clock: Clock::system(),
            dialler: SharedDialler::default(),
        }
    }
}

/// A provider of fixed keys; `session_token` belongs to temporary ones.
pub fn static_credentials(
    access_key_id: impl Into<String>,
    secret_access_key: impl Into<String>,
    session_token: Option<String>,
) -> SharedCredentialsProvider {
    SharedCredentialsProvider::new(Credentials::new(
        access_key_id,
        secret_access_key,
        session_token,
        None,
        "static",
    ))
}

/// Fixed endpoints; `None` means the service's own.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    /// Streams and GetDataEndpoint; else `kinesisvideo.REGION.amazonaws.com`.
    pub control: Option<Endpoint>,
    /// PutMedia and GetMedia; else asked from the service by GetDataEndpoint.
    pub media: Option<Endpoint>,
    /// ListFragments, GetMediaForFragmentList, GetImages and URLs of sessions; else asked from the service by GetDataEndpoint.
    pub archived: Option<Endpoint>,
}

/// Deadlines. Each restarts with the thing it waits for; none limits how long a stream may run.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Name resolution, TCP and TLS together.
    pub connect: Duration,
    /// From the request to the head of the answer.
    pub head: Duration,
    /// Between two pieces of a JSON answer. Media answers have their own, optional limit:
    /// [`MediaStream::set_idle_limit`](crate::MediaStream::set_idle_limit).
    pub idle: Duration,
    /// How long the socket of a PutMedia may take not one byte while some wait (30 s as in the AWS producer SDK),
    /// unless [`PutMediaInput::write_timeout`](crate::PutMediaInput) says otherwise for one session.
    pub write_stall: Duration,
    /// For the credentials provider, which may ask another service.
    pub credentials: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            head: Duration::from_secs(20),
            idle: Duration::from_secs(20),
            write_stall: Duration::from_secs(30),
            credentials: Duration::from_secs(15),
        }
    }
}

/// Why a client cannot be built from a [`Config`].
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// [`Config::region`] cannot be one.
    #[error(
        "region `{found}` is not one: expected lower-case letters, digits and hyphens as in `eu-central-1`"
    )]
    Region {
        /// What it is.
        found: String,
    },
    /// It cannot be made of the region.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// [`Config::extra_ca_pem`] cannot be used.
    #[error("certificate file {}: {reason}; expected PEM with at least one certificate", path.display())]
    CaFile {
        /// Its path.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The system trusts nobody.
    #[error("no trusted root certificate found on this system ({problems}); install `ca-certificates`")]
    NoRoots {
        /// Where certificates were looked for, and what was found.
        problems: String,
    },
    /// The TLS library refuses its settings.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_never_shows_a_secret() {
        let credentials =
            static_credentials("AKIDEXAMPLE", "verySecretKey", Some("sessionTokenValue".to_owned()));
        let text = format!("{:#?}", Config::new("eu-central-1", credentials));
        assert!(text.contains("eu-central-1"), "{text}");
        assert!(!text.contains("verySecretKey") && !text.contains("sessionTokenValue"), "{text}");
    }
}
