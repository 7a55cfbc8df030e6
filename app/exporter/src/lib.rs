//! Figures for Prometheus, over HTTP.
//!
//! ```text
//!  whoever has figures --Collector--> Registry --GET /metrics--> Prometheus
//!  [`Sources`]: sources of KVS streams, under the names that dashboards have
//! ```
//!
//! Nothing is counted here: a scrape asks for the figures of that moment, so that there is one count of everything.

mod serve;
mod sources;

pub use prometheus_client::registry::Registry;
pub use serve::{Exporter, ExporterError};
pub use sources::Sources;
