//! The KVS client of the box, made from its configuration.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use clock::Clock;
use kvs_client::{Client, Endpoint, Endpoints};

use config::Secret;

/// Key files are read again after this, so that they may be rotated while the box runs.
const KEYS_LAST: Duration = Duration::from_secs(300);

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
            SharedCredentialsProvider::new(KeyFiles {
                access_key_id: access_key_id.clone(),
                secret_access_key: secret_access_key.clone(),
                session_token: session_token.clone(),
            })
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

#[derive(Debug)]
struct KeyFiles {
    access_key_id: Secret,
    secret_access_key: Secret,
    session_token: Option<Secret>,
}

impl KeyFiles {
    fn read(&self) -> Result<Credentials, CredentialsError> {
        let read = |secret: &Secret| secret.reread().map_err(CredentialsError::provider_error);
        Ok(Credentials::new(
            read(&self.access_key_id)?.expose(),
            read(&self.secret_access_key)?.expose(),
            self.session_token.as_ref().map(read).transpose()?.map(|token| token.expose().to_owned()),
            Some(SystemTime::now() + KEYS_LAST),
            "key files",
        ))
    }
}

impl ProvideCredentials for KeyFiles {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(self.read())
    }
}
