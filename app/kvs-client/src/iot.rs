//! Credentials from the AWS IoT credentials provider: the device certificate is the identity, and what it gives lasts an hour.
//!
//! `GET https://ENDPOINT/role-aliases/ALIAS/credentials` with mutual TLS and the thing's name in `x-amzn-iot-thingname`. The
//! client keeps what it got, and asks again 5 minutes before it ends; while the provider cannot be reached, the old ones are
//! used up to their end. A session that runs goes on: only the next request is signed with the new ones.
//!
//! **Renewal of the device certificate** is done by whoever issued it (fleet provisioning, an agent, an operator), who replaces
//! the two files; they are read for each request, so the next one uses the new certificate without a restart.
//! [`certificate_end`] says when it is due.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use media::ProducerTimestamp;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Deserialize;

use crate::answer::{Completeness, read_start};
use crate::dial::{ByteStream, SharedDialler};
use crate::tls;

/// An answer has 2 kB.
const LIMIT_BYTES: usize = 64 << 10;
const LIMIT: Duration = Duration::from_secs(15);

/// Where and as whom to ask.
#[derive(Clone, Debug)]
pub struct IotProvider {
    /// `HOST` or `HOST:PORT`, as `aws iot describe-endpoint --endpoint-type iot:CredentialProvider` tells it.
    pub endpoint: String,
    /// Of IoT Core: which role is taken.
    pub role_alias: String,
    /// Of the device, as IoT Core knows it.
    pub thing_name: String,
    /// Certificate (chain) and private key of the device, PEM.
    pub cert_file: PathBuf,
    /// PEM, of that certificate.
    pub key_file: PathBuf,
    /// PEM, trusted besides the system's certificate authorities.
    pub extra_ca_pem: Option<PathBuf>,
    /// How connections are opened.
    pub dialler: SharedDialler,
}

/// Why the provider gave nothing. Never holds a key or a token.
#[derive(Debug, thiserror::Error)]
pub enum IotError {
    /// A certificate or key cannot be used.
    #[error("{path}: {reason}")]
    File {
        /// Its path.
        path: String,
        /// Why.
        reason: String,
    },
    /// Name resolution, TCP or TLS failed.
    #[error("IoT credentials provider {endpoint}: no connection: {source}")]
    Connect {
        /// Where it was asked.
        endpoint: String,
        /// In the words of the system or of a library.
        source: std::io::Error,
    },
    /// The exchange broke.
    #[error("IoT credentials provider {endpoint}: {source}")]
    Http {
        /// Where it was asked.
        endpoint: String,
        /// In the words of the system or of a library.
        source: hyper::Error,
    },
    /// It says nothing.
    #[error("IoT credentials provider {endpoint}: no answer within {} s", LIMIT.as_secs())]
    Timeout {
        /// Where it was asked.
        endpoint: String,
    },
    /// It says no.
    #[error("IoT credentials provider {endpoint} refused role alias `{alias}` for thing `{thing}`: {status} {message}; {}", fix(*status))]
    Refused {
        /// Where it was asked.
        endpoint: String,
        /// The role alias.
        alias: String,
        /// The name of the device.
        thing: String,
        /// Of HTTP.
        status: u16,
        /// In its words.
        message: String,
    },
    /// What it says cannot be read.
    #[error("IoT credentials provider {endpoint}: the answer is not one: {reason}")]
    Answer {
        /// Where it was asked.
        endpoint: String,
        /// Why.
        reason: String,
    },
}

fn fix(status: u16) -> &'static str {
    match status {
        403 => {
            "attach a policy with iot:AssumeRoleWithCertificate for the alias to an active certificate, and check the thing's name"
        }
        404 => "check the name of the role alias and the region of the endpoint",
        _ => "try again later",
    }
}

#[derive(Deserialize)]
struct Answer {
    credentials: Keys,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Keys {
    access_key_id: String,
    secret_access_key: String,
    session_token: String,
    expiration: String,
}

#[derive(Deserialize)]
struct Refusal {
    message: Option<String>,
}

impl IotProvider {
    /// As [`Config`](crate::Config) takes it.
    pub fn shared(self) -> SharedCredentialsProvider {
        SharedCredentialsProvider::new(Provider(Arc::new(self)))
    }

    async fn ask(&self) -> Result<Credentials, IotError> {
        let endpoint = || self.endpoint.clone();
        let asked = tokio::time::timeout(LIMIT, self.ask_unlimited()).await;
        asked.unwrap_or_else(|_| Err(IotError::Timeout { endpoint: endpoint() }))
    }

    async fn ask_unlimited(&self) -> Result<Credentials, IotError> {
        let endpoint = || self.endpoint.clone();
        let (cert, key, ca) = (self.cert_file.clone(), self.key_file.clone(), self.extra_ca_pem.clone());
        let connector = tokio::task::spawn_blocking(move || {
            let (chain, key) = identity(&cert, &key)?;
            let failed = |reason: String| IotError::File { path: cert.display().to_string(), reason };
            tls::connector_as(ca.as_deref(), chain, key).map_err(|error| failed(error.to_string()))
        });
        let stopped = |error: tokio::task::JoinError| std::io::Error::other(error);
        let connect = |source| IotError::Connect { endpoint: endpoint(), source };
        let connector = connector.await.map_err(|error| connect(stopped(error)))??;
        let (host, port) = match self.endpoint.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()),
            None => (&*self.endpoint, Some(443)),
        };
        let (name, port) = match (ServerName::try_from(host.to_owned()), port) {
            (Ok(name), Some(port)) => (name, port),
            _ => return Err(connect(std::io::Error::other("expected HOST or HOST:PORT"))),
        };
        let socket: Box<dyn ByteStream> = self.dialler.dial(host, port).await.map_err(connect)?;
        let socket = connector.connect(name, socket).await.map_err(connect)?;
        let http = |source| IotError::Http { endpoint: endpoint(), source };
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.map_err(http)?;
        let request = Request::get(format!("/role-aliases/{}/credentials", self.role_alias))
            .header("host", host)
            .header("x-amzn-iot-thingname", &self.thing_name)
            .body(Empty::<Bytes>::new())
            .map_err(|error| connect(std::io::Error::other(error)))?;
        let exchange = async {
            let mut answer = sender.send_request(request).await.map_err(http)?;
            let status = answer.status();
            let (body, end) = read_start(answer.body_mut(), LIMIT_BYTES, LIMIT).await;
            Ok::<_, IotError>((status, body, matches!(end, Completeness::Whole)))
        };
        let mut exchange = std::pin::pin!(exchange);
        let (status, body, whole) = tokio::select! {
            answered = &mut exchange => answered?,
            // It drives the exchange, which knows what came of it however the connection ended.
            _ = connection => exchange.await?,
        };
        if status != StatusCode::OK {
            let refusal = serde_json::from_slice::<Refusal>(&body).ok().and_then(|refusal| refusal.message);
            return Err(IotError::Refused {
                endpoint: endpoint(),
                alias: self.role_alias.clone(),
                thing: self.thing_name.clone(),
                status: status.as_u16(),
                message: refusal.unwrap_or_default().chars().take(200).collect(),
            });
        }
        let bad = |reason: String| IotError::Answer { endpoint: endpoint(), reason };
        if !whole {
            return Err(bad("it was cut".to_owned()));
        }
        // What serde says of the place of a mistake holds no value of a key.
        let parsed: Answer = serde_json::from_slice(&body).map_err(|error| {
            bad(format!("no credentials at line {} column {}", error.line(), error.column()))
        })?;
        let keys = parsed.credentials;
        let end = ProducerTimestamp::parse_rfc3339(&keys.expiration)
            .ok_or_else(|| bad(format!("expiration {:.40?} is no time", keys.expiration)))?;
        let end = SystemTime::UNIX_EPOCH + Duration::from_millis(end.as_millis());
        Ok(Credentials::new(
            keys.access_key_id,
            keys.secret_access_key,
            Some(keys.session_token),
            Some(end),
            "IoT credentials provider",
        ))
    }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(cert_file: &Path, key_file: &Path) -> Result<Identity, IotError> {
    let failed = |path: &Path, reason: String| IotError::File { path: path.display().to_string(), reason };
    let chain = CertificateDer::pem_file_iter(cert_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| failed(cert_file, error.to_string()))?;
    if chain.is_empty() {
        return Err(failed(cert_file, "it holds no certificate".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| failed(key_file, error.to_string()))?;
    Ok((chain, key))
}

/// When the first certificate of a PEM file ends; `None` where it cannot be said.
pub fn certificate_end(cert_file: &Path) -> Option<SystemTime> {
    let certificate = CertificateDer::pem_file_iter(cert_file).ok()?.next()?.ok()?;
    not_after(&certificate)
}

/// RFC 5280, 4.1: Certificate { tbsCertificate { [0] version, serial, signature, issuer, validity { notBefore, notAfter } } }.
fn not_after(certificate: &[u8]) -> Option<SystemTime> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut fields, _) = element(certificate)?;
    if fields.first() == Some(&0xa0) {
        fields = element(fields)?.2;
    }
    for _ in ["serial", "signature", "issuer"] {
        fields = element(fields)?.2;
    }
    let (_, validity, _) = element(fields)?;
    let (_, _, rest) = element(validity)?;
    let (tag, text, _) = element(rest)?;
    let text = std::str::from_utf8(text).ok()?;
    // UTCTime has two digits of the year, from 1950 to 2049.
    let (year, rest) = match tag {
        0x17 => {
            let year: u32 = text.get(..2)?.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, text.get(2..)?)
        }
        0x18 => (text.get(..4)?.parse().ok()?, text.get(4..)?),
        _ => return None,
    };
    let part = |at: usize| rest.get(at..at + 2);
    let text = format!("{year:04}-{}-{}T{}:{}:{}Z", part(0)?, part(2)?, part(4)?, part(6)?, part(8)?);
    let end = ProducerTimestamp::parse_rfc3339(&text)?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_millis(end.as_millis()))
}

/// The first element of some DER: tag, content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&short, rest) = rest.split_first()?;
    let (length, rest) = match short {
        0..=0x7f => (usize::from(short), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

struct Provider(Arc<IotProvider>);

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ProvideCredentials for Provider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let provider = self.0.clone();
        future::ProvideCredentials::new(async move {
            provider.ask().await.map_err(CredentialsError::provider_error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_read_and_damage_is_no_panic() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("device.pem");
        for (year, seconds) in [(2031, 1_925_164_800), (2055, 2_682_547_200_u64)] {
            let mut params = rcgen::CertificateParams::new(["thing".to_owned()]).expect("a name");
            params.not_after = rcgen::date_time_ymd(year, 1, 2);
            let key = rcgen::KeyPair::generate().expect("a key");
            let certificate = params.self_signed(&key).expect("a certificate");
            std::fs::write(&path, certificate.pem()).expect("written");
            let day = Duration::from_secs(86_400);
            let expected = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let end = certificate_end(&path).expect("it has an end");
            assert!(end >= expected - 3 * day && end <= expected + 3 * day, "{year}: {end:?}");
            let der = certificate.der().to_vec();
            for length in 0..der.len() {
                let _ = not_after(&der[..length]);
            }
            for at in 0..der.len() {
                let mut other = der.clone();
                other[at] ^= 0xff;
                let _ = not_after(&other);
            }
        }
        std::fs::write(&path, "no certificate").expect("written");
        assert_eq!(certificate_end(&path), None);
    }
}
