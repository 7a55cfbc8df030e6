//! The KVS client of the box, made from its configuration.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clock::Clock;
use config::Secret;
use kvs_client::{
    Client, Endpoint, Endpoints, IotProvider, Proxy, ProxyLogin, SharedCredentialsProvider, SharedDialler,
};

#[derive(Debug, thiserror::Error)]
pub enum AwsError {
    #[error("aws.{key}: {source}")]
    Endpoint { key: &'static str, source: kvs_client::EndpointError },
    #[error("proxy.url: {url} has no host or no port")]
    Proxy { url: url::Url },
    #[error(transparent)]
    Client(#[from] kvs_client::ConfigError),
}

/// The certificate of the box shall be renewed so long before its end.
const RENEW_BEFORE_END: Duration = Duration::from_secs(30 * 86_400);

/// What somebody should know about the certificate by which the box gets its credentials; `None`: it lasts.
pub fn certificate_advice(aws: &config::Aws, now: SystemTime) -> Option<String> {
    let config::Credentials::Iot(iot) = &aws.credentials else { return None };
    let path = iot.certificate.cert_file.display();
    let fix = "replace cert_file and key_file of [aws.iot] by a new pair; no restart is needed";
    let Some(end) = kvs_client::iot::certificate_end(&iot.certificate.cert_file) else {
        return Some(format!("aws.iot.cert_file: {path} holds no certificate that can be read; {fix}"));
    };
    match end.duration_since(now) {
        Ok(left) if left > RENEW_BEFORE_END => None,
        Ok(left) => {
            Some(format!("aws.iot.cert_file: {path} ends in {} days; {fix}", left.as_secs() / 86_400))
        }
        Err(_) => Some(format!("aws.iot.cert_file: {path} has ended; {fix}")),
    }
}

/// One client for all cameras.
pub async fn client(aws: &config::Aws, upload: &config::Upload, clock: Clock) -> Result<Client, AwsError> {
    let dialler = match &aws.proxy {
        Some(proxy) => through(proxy, aws.ca_file.clone())?.dialler(SharedDialler::default())?,
        None => SharedDialler::default(),
    };
    let credentials = match &aws.credentials {
        config::Credentials::Iot(iot) => {
            let provider = IotProvider {
                endpoint: iot.endpoint.clone(),
                role_alias: iot.role_alias.clone(),
                thing_name: iot.thing_name.clone(),
                cert_file: iot.certificate.cert_file.clone(),
                key_file: iot.certificate.key_file.clone(),
                extra_ca_pem: iot.ca_file.clone(),
                dialler: dialler.clone(),
            };
            provider.shared()
        }
        config::Credentials::Default => kvs_client::default_credentials(&aws.region).await,
        config::Credentials::Files { access_key_id, secret_access_key, session_token } => {
            keys(access_key_id, secret_access_key, session_token.as_ref())
        }
    };
    let endpoint = |key, url: &Option<url::Url>| {
        let text = url.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned());
        text.map(|text| text.parse::<Endpoint>())
            .transpose()
            .map_err(|source| AwsError::Endpoint { key, source })
    };
    let data = endpoint("data_endpoint", &aws.data_endpoint)?;
    let mut config = kvs_client::Config::new(&aws.region, credentials);
    config.endpoints =
        Endpoints { control: endpoint("endpoint", &aws.endpoint)?, media: data.clone(), archived: data };
    config.extra_ca_pem.clone_from(&aws.ca_file);
    config.timeouts.write_stall = upload.write_timeout;
    config.clock = clock;
    config.dialler = dialler;
    config.user_agent = concat!("kvs-edge/", env!("CARGO_PKG_VERSION")).to_owned();
    Ok(Client::new(config)?)
}

fn through(proxy: &config::Proxy, extra_ca_pem: Option<PathBuf>) -> Result<Proxy, AwsError> {
    let unusable = || AwsError::Proxy { url: proxy.url.clone() };
    // As the URL has it an IPv6 address is in brackets.
    let host = proxy.url.host_str().ok_or_else(unusable)?.trim_matches(['[', ']']).to_owned();
    let port = proxy.url.port_or_known_default().ok_or_else(unusable)?;
    let login = proxy.login.as_ref().map(|login| ProxyLogin {
        username: login.username.clone(),
        password: login.password.expose().to_owned(),
    });
    Ok(Proxy {
        tls: proxy.url.scheme() == "https",
        host,
        port,
        login,
        except: proxy.except.clone(),
        extra_ca_pem,
    })
}

/// From their files, which may be replaced while the box runs; keys without a file stay what they are.
fn keys(id: &Secret, secret: &Secret, token: Option<&Secret>) -> SharedCredentialsProvider {
    let files = (id.file(), secret.file(), token.map(Secret::file));
    match files {
        (Some(id), Some(secret), None) => kvs_client::key_files(id, secret, None),
        (Some(id), Some(secret), Some(Some(token))) => {
            kvs_client::key_files(id, secret, Some(token.to_owned()))
        }
        _ => kvs_client::static_credentials(
            id.expose(),
            secret.expose(),
            token.map(|token| token.expose().to_owned()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use config::{ClientCertificate, Credentials, Environment, Iot};

    use super::*;

    #[test]
    fn a_certificate_that_cannot_be_read_is_told_and_other_credentials_need_none() {
        let least =
            "[aws]\nregion = \"eu-west-1\"\n[[camera]]\nid = \"gate\"\nurl = \"rtsp://192.0.2.1/a\"\n";
        let mut aws =
            config::Config::parse(least.as_bytes(), &Environment::default()).expect("it is good").aws;
        assert_eq!(certificate_advice(&aws, SystemTime::UNIX_EPOCH), None);
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("box.pem");
        std::fs::write(&file, "no certificate").expect("written");
        aws.credentials = Credentials::Iot(Iot {
            endpoint: "iot.invalid".to_owned(),
            role_alias: "alias".to_owned(),
            thing_name: "box".to_owned(),
            certificate: ClientCertificate { cert_file: file.clone(), key_file: file },
            ca_file: None,
        });
        let advice = certificate_advice(&aws, SystemTime::UNIX_EPOCH).expect("it is told");
        assert!(advice.contains("box.pem") && advice.contains("replace"), "{advice}");
    }
}
