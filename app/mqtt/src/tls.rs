//! The TLS side of `[mqtt.tls]`, on ring.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

use super::link::{Failure, FailureKind};
use config::MqttTls;

/// For a proxy that is spoken to by TLS: the system's authorities, and those of a file.
pub(super) fn proxy_config(extra: Option<&Path>) -> Result<Arc<ClientConfig>, Failure> {
    let mut roots = RootCertStore::empty();
    let _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = extra {
        let fix = "check aws.ca_file";
        for certificate in certificates(file, fix)? {
            roots.add(certificate).map_err(|error| failure(file, &error, fix))?;
        }
    }
    Ok(Arc::new(trusting(roots).with_no_client_auth()))
}

fn trusting(roots: RootCertStore) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports TLS 1.2 and 1.3")
        .with_root_certificates(roots)
}

/// Files are read anew for each connection, so certificates may be rotated while the daemon runs.
pub(super) fn client_config(tls: &MqttTls) -> Result<Arc<ClientConfig>, Failure> {
    let mut roots = RootCertStore::empty();
    match &tls.ca_file {
        Some(file) => {
            let fix = "check mqtt.tls.ca_file";
            for certificate in certificates(file, fix)? {
                roots.add(certificate).map_err(|error| failure(file, &error, fix))?;
            }
        }
        None => {
            for certificate in rustls_native_certs::load_native_certs().certs {
                // One odd certificate of the system is no reason to trust none.
                let _ = roots.add(certificate);
            }
            if roots.is_empty() {
                let fix = "install ca-certificates, or give mqtt.tls.ca_file";
                let text = "no certificate authority found on this system".to_owned();
                return Err(Failure { kind: FailureKind::Refused { fix }, text });
            }
        }
    }
    let alpn = || tls.alpn.iter().map(|alpn| alpn.clone().into_bytes()).collect();
    let builder = trusting(roots);
    let Some(client) = &tls.client else {
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = alpn();
        return Ok(Arc::new(config));
    };
    let fix = "check mqtt.tls.cert_file and mqtt.tls.key_file: both PEM, and of the same pair";
    let chain = certificates(&client.cert_file, fix)?;
    let key = PrivateKeyDer::from_pem_file(&client.key_file)
        .map_err(|error| failure(&client.key_file, &error, fix))?;
    let config = builder.with_client_auth_cert(chain, key);
    let mut config = config.map_err(|error| failure(&client.cert_file, &error, fix))?;
    config.alpn_protocols = alpn();
    Ok(Arc::new(config))
}

fn certificates(file: &Path, fix: &'static str) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|error| failure(file, &error, fix))?;
    if certificates.is_empty() {
        return Err(failure(file, &"no certificate in it", fix));
    }
    Ok(certificates)
}

fn failure(file: &Path, error: &dyn std::fmt::Display, fix: &'static str) -> Failure {
    Failure { kind: FailureKind::Refused { fix }, text: format!("{}: {error}", file.display()) }
}
