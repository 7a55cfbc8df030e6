//! What the daemon says over MQTT, received with a client id of our own beside the daemon's.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::Protocol;
use crate::link::{self, Client, Failure, FailureKind, Link, Step};

/// Until the first subscription stands, over both protocol versions.
const FIRST_LIMIT: Duration = Duration::from_secs(15);
/// Between a lost connection and the next attempt.
const AGAIN: Duration = Duration::from_secs(2);
/// Messages not yet read; when it is full, the connection waits. A daemon with 64 cameras says 200 at a time.
const PLACES: usize = 1024;

/// Why nothing can be heard.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("the broker {broker} refuses this reader (client id {client_id}): {text}; {fix}")]
    Refused { broker: String, client_id: String, text: String, fix: &'static str },
    #[error("no connection to the broker {broker}: {text}; check mqtt.host and mqtt.port, and that it runs")]
    Unreachable { broker: String, text: String },
    #[error(
        "the broker {broker} speaks neither MQTT 5 nor what mqtt.protocol asks for: {text}; correct mqtt.protocol"
    )]
    Protocol { broker: String, text: String },
    #[error(
        "the broker {broker} did not answer within {limit_s} s; check mqtt.host and mqtt.port, and that it runs"
    )]
    Silent { broker: String, limit_s: u64 },
    #[error(
        "the broker {broker} does not let this user read {filter} ({reason}); let it read below mqtt.prefix in the \
         broker's access rules"
    )]
    Denied { broker: String, filter: String, reason: String },
}

/// What is heard.
#[derive(Debug)]
pub enum Heard {
    Message {
        topic: String,
        payload: Bytes,
    },
    /// The connection was lost; the next message comes after a new subscription.
    Interrupted {
        why: String,
    },
}

/// A subscription that stands.
pub struct Listener {
    config: config::Mqtt,
    filters: Vec<String>,
    protocol: Protocol,
    /// Dropping it would end the link.
    client: Client,
    link: Link,
    /// What came before the broker had agreed to the subscription.
    early: Vec<Heard>,
}

/// Both ends of a link, and what came before the subscription stood.
type Subscribed = (Client, Link, Vec<Heard>);

impl Listener {
    /// Connects and subscribes; returns once the broker has agreed to every filter. `config.client_id` must not be the
    /// daemon's.
    pub async fn connect(config: config::Mqtt, filters: Vec<String>) -> Result<Listener, ListenError> {
        let broker = format!("{}:{}", config.host, config.port);
        let attempts: &[Protocol] = match config.protocol {
            config::MqttProtocol::Auto => &[Protocol::V5, Protocol::V311],
            config::MqttProtocol::V5 => &[Protocol::V5],
            config::MqttProtocol::V311 => &[Protocol::V311],
        };
        let work = async {
            let mut first = None;
            for protocol in attempts {
                let error = match subscribe(&config, &filters, *protocol).await {
                    Ok(subscribed) => return Ok((subscribed, *protocol)),
                    Err(error) => error,
                };
                match error {
                    Refusal::Failure(failure)
                        if matches!(failure.kind, FailureKind::Protocol | FailureKind::Handshake) =>
                    {
                        first.get_or_insert(failure);
                    }
                    error => return Err(explain(&config, &broker, &filters, error)),
                }
            }
            let failure = first.expect("there is at least one protocol, and it failed");
            Err(explain(&config, &broker, &filters, Refusal::Failure(failure)))
        };
        let silent = |_| ListenError::Silent { broker: broker.clone(), limit_s: FIRST_LIMIT.as_secs() };
        let ((client, link, early), protocol) = timeout(FIRST_LIMIT, work).await.map_err(silent)??;
        Ok(Listener { config, filters, protocol, client, link, early })
    }

    /// Hands everything on until `cancel`, and connects anew as often as it must.
    pub async fn run(mut self, heard: mpsc::Sender<Heard>, cancel: CancellationToken) {
        cancel.run_until_cancelled(self.hear(heard)).await;
        // The link is written to once more only if it is ready at once: a reader owes the broker no goodbye.
        if self.client.disconnect() {
            let _ = timeout(Duration::from_millis(200), async {
                while !matches!(self.link.poll().await, Ok(Step::Disconnected) | Err(_)) {}
            })
            .await;
        }
    }

    async fn hear(&mut self, heard: mpsc::Sender<Heard>) {
        let silence = link::silence_limit(&self.config);
        loop {
            for message in self.early.drain(..) {
                if heard.send(message).await.is_err() {
                    return;
                }
            }
            let why = match timeout(silence, self.link.poll()).await {
                Ok(Ok(Step::Received { topic, payload })) => {
                    if heard.send(Heard::Message { topic, payload }).await.is_err() {
                        return;
                    }
                    continue;
                }
                Ok(Ok(_)) => continue,
                Ok(Err(failure)) => failure.text,
                Err(_) => format!("no sign of life from {}", self.config.host),
            };
            if heard.send(Heard::Interrupted { why }).await.is_err() {
                return;
            }
            loop {
                sleep(AGAIN).await;
                let again = timeout(FIRST_LIMIT, subscribe(&self.config, &self.filters, self.protocol));
                if let Ok(Ok(subscribed)) = again.await {
                    (self.client, self.link, self.early) = subscribed;
                    break;
                }
            }
        }
    }

    pub fn channel() -> (mpsc::Sender<Heard>, mpsc::Receiver<Heard>) {
        mpsc::channel(PLACES)
    }
}

enum Refusal {
    Failure(Failure),
    /// Number of the filter, and the reason.
    Denied(usize, String),
}

async fn subscribe(
    config: &config::Mqtt,
    filters: &[String],
    protocol: Protocol,
) -> Result<Subscribed, Refusal> {
    let (client, mut link) = link::open(config, None, protocol, 2).map_err(Refusal::Failure)?;
    let mut early = Vec::new();
    loop {
        match link.poll().await.map_err(Refusal::Failure)? {
            Step::Connected => {
                // A fresh link has room.
                client.subscribe(filters);
            }
            Step::Subscribed { denied: None } => return Ok((client, link, early)),
            Step::Subscribed { denied: Some((filter, reason)) } => {
                return Err(Refusal::Denied(filter, reason));
            }
            Step::Received { topic, payload } => early.push(Heard::Message { topic, payload }),
            _ => {}
        }
    }
}

fn explain(config: &config::Mqtt, broker: &str, filters: &[String], refusal: Refusal) -> ListenError {
    let broker = broker.to_owned();
    match refusal {
        Refusal::Denied(filter, reason) => {
            let filter = filters.get(filter).cloned().unwrap_or_default();
            ListenError::Denied { broker, filter, reason }
        }
        Refusal::Failure(Failure { kind: FailureKind::Refused { fix }, text }) => {
            ListenError::Refused { broker, client_id: config.client_id.clone(), text, fix }
        }
        Refusal::Failure(Failure { kind: FailureKind::Protocol, text }) => {
            ListenError::Protocol { broker, text }
        }
        Refusal::Failure(Failure { text, .. }) => ListenError::Unreachable { broker, text },
    }
}
