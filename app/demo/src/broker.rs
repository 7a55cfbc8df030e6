//! The broker of the demo: rumqttd inside this process, MQTT 5.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rumqttd::local::{LinkRx, LinkTx};
use rumqttd::{ConnectionSettings, Notification, RouterConfig, ServerSettings};

/// A broker that lives as long as the process: rumqttd has no stop call.
pub struct Broker {
    address: SocketAddr,
    link: Mutex<Option<(LinkTx, LinkRx)>>,
}

/// What passed through the broker.
#[derive(Clone, Default)]
pub struct Seen {
    topics: Arc<Mutex<BTreeMap<String, Topic>>>,
}

#[derive(Default)]
struct Topic {
    messages: u64,
    newest: Bytes,
}

#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error("no free port for the broker: {0}")]
    Port(#[from] std::io::Error),
    #[error("the broker's inner link: {0}")]
    Link(String),
}

impl Broker {
    pub fn start() -> Result<Self, BrokerError> {
        // rumqttd cannot say which port it got, so a free one is looked for first.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
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
        let link = broker.link("demo-observer").map_err(|error| BrokerError::Link(error.to_string()))?;
        std::thread::Builder::new().name("mqtt-broker".to_owned()).spawn(move || {
            if let Err(error) = broker.start() {
                tracing::error!(%error, "the demo's broker ended");
            }
        })?;
        Ok(Self { address, link: Mutex::new(Some(link)) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Counts from now on what passes through under `filter`. Once.
    pub fn observe(&self, filter: &str) -> Result<Seen, BrokerError> {
        let wrong = |error: &dyn std::fmt::Display| BrokerError::Link(error.to_string());
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (mut sender, mut receiver) = link.ok_or_else(|| wrong(&"it is observed already"))?;
        sender.subscribe(filter).map_err(|error| wrong(&error))?;
        let seen = Seen::default();
        let topics = seen.topics.clone();
        std::thread::Builder::new().name("mqtt-observer".to_owned()).spawn(move || {
            let _keep = sender; // dropping it would end the subscription
            while let Ok(notification) = receiver.recv() {
                if let Some(Notification::Forward(forward)) = notification {
                    let topic = String::from_utf8_lossy(&forward.publish.topic).into_owned();
                    let mut topics = topics.lock().unwrap_or_else(PoisonError::into_inner);
                    let topic = topics.entry(topic).or_default();
                    topic.messages += 1;
                    topic.newest = forward.publish.payload;
                }
            }
        })?;
        Ok(seen)
    }
}

impl Seen {
    pub fn count(&self) -> u64 {
        self.all().values().sum()
    }

    /// Messages by topic.
    pub fn all(&self) -> BTreeMap<String, u64> {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        topics.iter().map(|(name, topic)| (name.clone(), topic.messages)).collect()
    }

    /// Body of the newest message on a topic.
    pub fn newest(&self, topic: &str) -> Option<Bytes> {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        topics.get(topic).map(|topic| topic.newest.clone())
    }
}
