//! The KVS client of the box, made from its configuration.

use clock::Clock;
use config::Secret;
use kvs_client::{Client, Endpoint, Endpoints, SharedCredentialsProvider};

#[derive(Debug, thiserror::Error)]
pub enum AwsError {
    #[error("aws.{key}: {source}")]
    Endpoint { key: &'static str, source: kvs_client::EndpointError },
    #[error(transparent)]
    Client(#[from] kvs_client::ConfigError),
}

/// One client for all cameras.
pub async fn client(aws: &config::Aws, upload: &config::Upload, clock: Clock) -> Result<Client, AwsError> {
    let credentials = match &aws.credentials {
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
    config.user_agent = concat!("kvs-edge/", env!("CARGO_PKG_VERSION")).to_owned();
    Ok(Client::new(config)?)
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
