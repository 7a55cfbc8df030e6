//! Which servers are trusted: those that the system trusts, and those of an extra PEM file.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsConnector;

use crate::config::ConfigError;

/// Reads certificate files, so it blocks for some milliseconds.
pub(crate) fn connector(extra_ca_pem: Option<&Path>) -> Result<TlsConnector, ConfigError> {
    let mut config = trusting(extra_ca_pem)?.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Likewise, with a certificate of our own.
pub(crate) fn connector_as(
    extra_ca_pem: Option<&Path>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<TlsConnector, ConfigError> {
    let config = trusting(extra_ca_pem)?.with_client_auth_cert(chain, key)?;
    Ok(TlsConnector::from(Arc::new(config)))
}

fn trusting(
    extra_ca_pem: Option<&Path>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, ConfigError> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    let _ = roots.add_parsable_certificates(native.certs); // systems carry some that rustls cannot use
    if let Some(path) = extra_ca_pem {
        add_file(&mut roots, path).map_err(|reason| ConfigError::CaFile { path: path.to_owned(), reason })?;
    }
    if roots.is_empty() {
        let problems: Vec<String> = native.errors.iter().map(ToString::to_string).collect();
        return Err(ConfigError::NoRoots { problems: problems.join("; ") });
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots))
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let mut found = 0;
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| e.to_string())? {
        roots.add(certificate.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
        found += 1;
    }
    if found == 0 { Err("it holds no certificate".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_certificate_file_is_named_with_its_reason() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let message = |path: &Path| connector(Some(path)).err().expect("refused").to_string();
        assert!(message(&path).contains("ca.pem: "), "absent: {}", message(&path));
        std::fs::write(&path, "not PEM").unwrap();
        assert!(message(&path).contains("it holds no certificate"), "{}", message(&path));
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        assert!(message(&path).contains("expected PEM"), "{}", message(&path));
    }
}
