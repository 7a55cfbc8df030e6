//! The broker of the demo: rumqttd inside this process, MQTT 5.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rumqttd::{ConnectionSettings, RouterConfig, ServerSettings};

/// Attempts to reach the broker's port before it counts as not started, and the time between two.
const ATTEMPTS: u32 = 500;
const BETWEEN: Duration = Duration::from_millis(10);

/// A broker that lives as long as the process: rumqttd has no stop call.
pub struct Broker {
    address: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error("no free port for the broker: {0}")]
    Port(std::io::Error),
    #[error("no thread for the broker: {0}")]
    Thread(std::io::Error),
    #[error(
        "the broker does not listen on {address}: {source}; another program may have taken the port, try again"
    )]
    Silent { address: SocketAddr, source: std::io::Error },
}

impl Broker {
    /// Returns once connections are accepted.
    pub fn start() -> Result<Self, BrokerError> {
        // rumqttd cannot say which port it got, so a free one is looked for first.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = free.map_err(BrokerError::Port)?;
        let connections = ConnectionSettings {
            connection_timeout_ms: 10_000,
            max_payload_size: 128 * 1024,
            max_inflight_count: 200,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        };
        let server = ServerSettings {
            name: "demo".to_owned(),
            listen: address,
            tls: None,
            next_connection_delay_ms: 1,
            connections,
        };
        let router = RouterConfig {
            max_connections: 100,
            max_outgoing_packet_count: 200,
            max_segment_size: 4 << 20,
            max_segment_count: 10,
            ..RouterConfig::default()
        };
        let servers = Some(HashMap::from([("demo".to_owned(), server)]));
        let config = rumqttd::Config { router, v5: servers, ..rumqttd::Config::default() };
        let mut broker = rumqttd::Broker::new(config);
        let run = move || {
            if let Err(error) = broker.start() {
                tracing::error!(%error, "the demo's broker ended");
            }
        };
        std::thread::Builder::new().name("mqtt-broker".to_owned()).spawn(run).map_err(BrokerError::Thread)?;
        reach(address).map_err(|source| BrokerError::Silent { address, source })?;
        Ok(Self { address })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn reach(address: SocketAddr) -> Result<(), std::io::Error> {
    for _ in 1..ATTEMPTS {
        if TcpStream::connect(address).is_ok() {
            return Ok(());
        }
        std::thread::sleep(BETWEEN);
    }
    TcpStream::connect(address).map(drop)
}
