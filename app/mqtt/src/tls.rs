//! The TLS side of `[mqtt.tls]`, on ring.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::link::{Failure, FailureKind};
use config::MqttTls;

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
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports TLS 1.2 and 1.3")
        .with_root_certificates(roots);
    let Some(client) = &tls.client else { return Ok(Arc::new(builder.with_no_client_auth())) };
    let fix = "check mqtt.tls.cert_file and mqtt.tls.key_file: both PEM, and of the same pair";
    let chain = certificates(&client.cert_file, fix)?;
    let key = PrivateKeyDer::from_pem_file(&client.key_file)
        .map_err(|error| failure(&client.key_file, &error, fix))?;
    let config = builder.with_client_auth_cert(chain, key);
    Ok(Arc::new(config.map_err(|error| failure(&client.cert_file, &error, fix))?))
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
