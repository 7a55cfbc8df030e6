//! Credentials from where every AWS program looks for them.

use aws_config::Region;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;

/// Environment, profile files, web identity, container, instance, in this order. What it finds is found on each
/// call; only what has an end is kept by the client.
pub async fn default_credentials(region: &str) -> SharedCredentialsProvider {
    let region = Region::new(region.to_owned());
    let http =
        aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let config = ProviderConfig::without_region().with_region(Some(region.clone())).with_http_client(http);
    SharedCredentialsProvider::new(
        DefaultCredentialsChain::builder().region(region).configure(config).build().await,
    )
}
