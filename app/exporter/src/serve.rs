//! The page that Prometheus reads.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Of OpenMetrics 1.0, which Prometheus reads from 2.5 on.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves `GET /metrics` until it is dropped.
#[derive(Debug)]
pub struct Exporter {
    address: SocketAddr,
    server: JoinHandle<()>,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be served at {address}: {source}; choose another port or address")]
pub struct ExporterError {
    /// Where it should have been.
    pub address: SocketAddr,
    /// What the system says.
    pub source: std::io::Error,
}

impl Exporter {
    /// Listens at once, in the runtime of the caller; port 0 is any that is free. `registry` is asked at each scrape.
    pub async fn start(ip: IpAddr, port: u16, registry: Registry) -> Result<Self, ExporterError> {
        let address = SocketAddr::new(ip, port);
        let failed = |source| ExporterError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let router = Router::new().route("/metrics", get(metrics)).with_state(Arc::new(registry));
        let server = tokio::spawn(async move {
            // It returns with the listener alone, which lives as long as this.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, server })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn metrics(State(registry): State<Arc<Registry>>) -> impl IntoResponse {
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text)),
        Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}
