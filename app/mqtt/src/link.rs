//! One connection to the broker. The only file that knows rumqttc, whose two protocol versions are two sets of types.

use std::error::Error;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::{Proxy, ProxyAuth, ProxyType, TlsConfiguration, Transport, v5};

use super::outbox::Message;
use super::{Protocol, Qos, tls};
use messages::OFFLINE;

/// For each of: connecting, TLS and CONNACK together.
const CONNECT_TIMEOUT_S: u64 = 10;
/// Largest packet in either direction; every body of ours is at most [`super::BODY_LIMIT_BYTES`].
const PACKET_LIMIT_BYTES: u32 = 256 << 10;
/// Messages without acknowledgement; [`super::WINDOW`] allows fewer. rumqttc makes a table of this size, which for
/// MQTT 5 has 65535 places (13 MiB) unless it is told.
const INFLIGHT: u16 = 100;

/// Hands messages to a [`Link`].
pub(crate) enum Client {
    V5(v5::AsyncClient),
    V311(rumqttc::AsyncClient),
}

/// Drives the connection; must be polled for anything to happen.
pub(crate) enum Link {
    V5(Box<v5::EventLoop>),
    V311(Box<rumqttc::EventLoop>),
}

/// What happened on a link.
#[derive(Debug)]
pub(crate) enum Step {
    Connected,
    /// The oldest message handed over and not yet reported was written; the packet id is 0 for QoS 0.
    Sent(u16),
    /// The broker has it; `denied` holds its reason not to take it.
    Acked {
        packet_id: u16,
        denied: Option<String>,
    },
    /// The answer to a subscription; `denied` holds the number of the first filter refused, and the broker's reason.
    Subscribed {
        denied: Option<(usize, String)>,
    },
    /// A message of a subscription.
    Received {
        topic: String,
        payload: Bytes,
    },
    /// Our DISCONNECT was written.
    Disconnected,
    /// Nothing to act upon: pings and the like.
    Other,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// Will not heal by itself; what to change.
    Refused { fix: &'static str },
    /// The broker does not know this protocol version.
    Protocol,
    /// The connection ended, or was silent, between CONNECT and CONNACK. Old brokers answer MQTT 5 like this.
    Handshake,
    /// Heals by itself as far as we can tell.
    Network,
}

/// A link that has not connected yet, and its client, which takes up to `capacity` messages before it is polled. The
/// last will is [`OFFLINE`].
pub(crate) fn open(
    config: &config::Mqtt,
    will_topic: Option<&str>,
    protocol: Protocol,
    capacity: usize,
) -> Result<(Client, Link), Failure> {
    let transport = match &config.tls {
        None => Transport::Tcp,
        Some(tls) => Transport::tls_with_config(TlsConfiguration::Rustls(tls::client_config(tls)?)),
    };
    let proxy = config.proxy.as_ref().map(through).transpose()?;
    // rumqttc joins host and port with a colon.
    let host = if config.host.contains(':') { format!("[{}]", config.host) } else { config.host.clone() };
    let login = (config.username.as_ref()).map(|user| {
        (user.clone(), config.password.as_ref().map_or(String::new(), |p| p.expose().to_owned()))
    });
    match protocol {
        Protocol::V5 => {
            let mut options = v5::MqttOptions::new(&config.client_id, host, config.port);
            options.set_transport(transport).set_keep_alive(config.keep_alive).set_clean_start(true);
            options.set_connection_timeout(CONNECT_TIMEOUT_S);
            options.set_max_packet_size(Some(PACKET_LIMIT_BYTES));
            options.set_outgoing_inflight_upper_limit(INFLIGHT);
            if let Some(topic) = will_topic {
                let qos = v5::mqttbytes::QoS::AtLeastOnce;
                options.set_last_will(v5::mqttbytes::v5::LastWill::new(topic, OFFLINE, qos, true, None));
            }
            if let Some((user, password)) = login {
                options.set_credentials(user, password);
            }
            if let Some(proxy) = proxy {
                options.set_proxy(proxy);
            }
            let (client, link) = v5::AsyncClient::new(options, capacity);
            Ok((Client::V5(client), Link::V5(Box::new(link))))
        }
        Protocol::V311 => {
            let mut options = rumqttc::MqttOptions::new(&config.client_id, host, config.port);
            options.set_transport(transport).set_keep_alive(config.keep_alive).set_clean_session(true);
            options.set_max_packet_size(PACKET_LIMIT_BYTES as usize, PACKET_LIMIT_BYTES as usize);
            options.set_inflight(INFLIGHT);
            if let Some(topic) = will_topic {
                let qos = rumqttc::QoS::AtLeastOnce;
                options.set_last_will(rumqttc::LastWill::new(topic, OFFLINE, qos, true));
            }
            if let Some((user, password)) = login {
                options.set_credentials(user, password);
            }
            if let Some(proxy) = proxy {
                options.set_proxy(proxy);
            }
            let (client, mut link) = rumqttc::AsyncClient::new(options, capacity);
            let mut network = link.network_options();
            network.set_connection_timeout(CONNECT_TIMEOUT_S);
            link.set_network_options(network);
            Ok((Client::V311(client), Link::V311(Box::new(link))))
        }
    }
}

/// The way through a proxy that allows CONNECT; TLS to the broker runs inside.
fn through(way: &config::MqttProxy) -> Result<Proxy, Failure> {
    let url = &way.proxy.url;
    let fix = "correct proxy.url";
    let unusable =
        || Failure { kind: FailureKind::Refused { fix }, text: format!("{url} has no host or no port") };
    let ty = match url.scheme() {
        "https" => ProxyType::Https(TlsConfiguration::Rustls(tls::proxy_config(way.ca_file.as_deref())?)),
        _ => ProxyType::Http,
    };
    let auth = way.proxy.login.as_ref().map_or(ProxyAuth::None, |login| ProxyAuth::Basic {
        username: login.username.clone(),
        password: login.password.expose().to_owned(),
    });
    let addr = url.host_str().ok_or_else(unusable)?.to_owned();
    let port = url.port_or_known_default().ok_or_else(unusable)?;
    Ok(Proxy { ty, auth, addr, port })
}

/// What a proxy says that lets us in no further; the library only has it as text.
fn proxy_kind(error: &(dyn Error + 'static)) -> FailureKind {
    match text(error) {
        text if text.contains("407") => FailureKind::Refused {
            fix: "the proxy wants another login: check username and password_file in [proxy]",
        },
        text if text.contains("403") => {
            FailureKind::Refused { fix: "ask who runs the proxy to let mqtt.host with mqtt.port through" }
        }
        _ => tls_kind(error),
    }
}

/// Longest silence of a poll on a link that works: pings are steps too.
pub(crate) fn silence_limit(config: &config::Mqtt) -> Duration {
    config.keep_alive * 2 + Duration::from_secs(CONNECT_TIMEOUT_S * 2)
}

impl Client {
    /// False when the link has no room.
    pub(super) fn publish(&self, message: &Message) -> bool {
        let (topic, payload, retain) = (message.topic.clone(), message.payload.clone(), message.retain);
        match self {
            Client::V5(client) => {
                let qos = match message.qos {
                    Qos::AtMostOnce => v5::mqttbytes::QoS::AtMostOnce,
                    Qos::AtLeastOnce => v5::mqttbytes::QoS::AtLeastOnce,
                };
                client.try_publish(topic, qos, retain, payload).is_ok()
            }
            Client::V311(client) => {
                let qos = match message.qos {
                    Qos::AtMostOnce => rumqttc::QoS::AtMostOnce,
                    Qos::AtLeastOnce => rumqttc::QoS::AtLeastOnce,
                };
                client.try_publish(topic, qos, retain, payload).is_ok()
            }
        }
    }

    /// Asks for what is published under `filters`, with QoS 1; false when the link has no room.
    pub(crate) fn subscribe(&self, filters: &[String]) -> bool {
        match self {
            Client::V5(client) => {
                let qos = v5::mqttbytes::QoS::AtLeastOnce;
                let filters = filters.iter().map(|filter| v5::mqttbytes::v5::Filter::new(filter, qos));
                client.try_subscribe_many(filters).is_ok()
            }
            Client::V311(client) => {
                let qos = rumqttc::QoS::AtLeastOnce;
                let filters = filters.iter().map(|filter| rumqttc::SubscribeFilter::new(filter.clone(), qos));
                client.try_subscribe_many(filters).is_ok()
            }
        }
    }

    /// Ends the connection so that the broker does not publish the last will.
    pub(crate) fn disconnect(&self) -> bool {
        match self {
            Client::V5(client) => client.try_disconnect().is_ok(),
            Client::V311(client) => client.try_disconnect().is_ok(),
        }
    }
}

impl Link {
    /// Connects at the first call. Not safe to cancel, unless the link is dropped too.
    pub(crate) async fn poll(&mut self) -> Result<Step, Failure> {
        match self {
            Link::V5(link) => link.poll().await.map(step_v5).map_err(|error| failure_v5(&error)),
            Link::V311(link) => link.poll().await.map(step_v311).map_err(|error| failure_v311(&error)),
        }
    }
}

fn step_v5(event: v5::Event) -> Step {
    use v5::mqttbytes::v5::{Packet, PubAckReason, SubscribeReasonCode};
    match event {
        v5::Event::Incoming(Packet::ConnAck(_)) => Step::Connected,
        v5::Event::Incoming(Packet::PubAck(ack)) => Step::Acked {
            packet_id: ack.pkid,
            denied: (!matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers))
                .then(|| format!("{:?}", ack.reason)),
        },
        v5::Event::Incoming(Packet::SubAck(ack)) => Step::Subscribed {
            denied: (ack.return_codes.iter().enumerate())
                .find(|(_, code)| !matches!(code, SubscribeReasonCode::Success(_)))
                .map(|(number, code)| (number, format!("{code:?}"))),
        },
        v5::Event::Incoming(Packet::Publish(publish)) => Step::Received {
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            payload: publish.payload,
        },
        v5::Event::Outgoing(rumqttc::Outgoing::Publish(packet_id)) => Step::Sent(packet_id),
        v5::Event::Outgoing(rumqttc::Outgoing::Disconnect) => Step::Disconnected,
        _ => Step::Other,
    }
}

fn step_v311(event: rumqttc::Event) -> Step {
    match event {
        rumqttc::Event::Incoming(rumqttc::Packet::ConnAck(_)) => Step::Connected,
        rumqttc::Event::Incoming(rumqttc::Packet::PubAck(ack)) => {
            Step::Acked { packet_id: ack.pkid, denied: None }
        }
        rumqttc::Event::Incoming(rumqttc::Packet::SubAck(ack)) => Step::Subscribed {
            denied: (ack.return_codes.iter())
                .position(|code| *code == rumqttc::SubscribeReasonCode::Failure)
                .map(|number| (number, "Failure".to_owned())),
        },
        rumqttc::Event::Incoming(rumqttc::Packet::Publish(publish)) => {
            Step::Received { topic: publish.topic, payload: publish.payload }
        }
        rumqttc::Event::Outgoing(rumqttc::Outgoing::Publish(packet_id)) => Step::Sent(packet_id),
        rumqttc::Event::Outgoing(rumqttc::Outgoing::Disconnect) => Step::Disconnected,
        _ => Step::Other,
    }
}

const FIX_LOGIN: &str = "check mqtt.username and mqtt.password_file against the users of the broker";
const FIX_RIGHTS: &str =
    "check mqtt.username and mqtt.password_file, and that the broker lets this user and mqtt.client_id in";
const FIX_CLIENT_ID: &str = "give mqtt.client_id a value that the broker accepts and no other client uses";

fn failure_v5(error: &v5::ConnectionError) -> Failure {
    use v5::mqttbytes::v5::{ConnectReturnCode as Code, DisconnectReasonCode};
    use v5::{ConnectionError, StateError};
    let kind = match error {
        ConnectionError::ConnectionRefused(code) => match code {
            Code::RefusedProtocolVersion | Code::UnsupportedProtocolVersion => FailureKind::Protocol,
            Code::BadUserNamePassword | Code::BadAuthenticationMethod => {
                FailureKind::Refused { fix: FIX_LOGIN }
            }
            Code::NotAuthorized => FailureKind::Refused { fix: FIX_RIGHTS },
            Code::BadClientId | Code::ClientIdentifierNotValid => FailureKind::Refused { fix: FIX_CLIENT_ID },
            Code::Banned => FailureKind::Refused { fix: "ask whoever runs the broker to lift the ban" },
            Code::RetainNotSupported | Code::QoSNotSupported | Code::TopicNameInvalid => {
                FailureKind::Refused {
                    fix: "use a broker that takes retained QoS 1 messages below mqtt.prefix",
                }
            }
            Code::UseAnotherServer | Code::ServerMoved => {
                FailureKind::Refused { fix: "correct mqtt.host: the broker says it has moved" }
            }
            Code::ProtocolError | Code::MalformedPacket | Code::ImplementationSpecificError => {
                FailureKind::Protocol
            }
            _ => FailureKind::Network,
        },
        // A code that MQTT 5 does not have: the answer of another version.
        ConnectionError::MqttState(StateError::Deserialization(
            v5::mqttbytes::Error::InvalidConnectReturnCode(_),
        )) => FailureKind::Protocol,
        // Not named as its source, so the walk would end here.
        ConnectionError::MqttState(StateError::Deserialization(error)) => tls_kind(error),
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) => match reason_code {
            DisconnectReasonCode::SessionTakenOver => FailureKind::Refused {
                fix: "another client uses the same mqtt.client_id: give each box its own device.id",
            },
            DisconnectReasonCode::NotAuthorized => FailureKind::Refused { fix: FIX_RIGHTS },
            _ => FailureKind::Network,
        },
        ConnectionError::MqttState(StateError::ConnectionAborted) | ConnectionError::Timeout(_) => {
            FailureKind::Handshake
        }
        ConnectionError::Proxy(error) => proxy_kind(error),
        error => tls_kind(error),
    };
    Failure { kind, text: text(error) }
}

fn failure_v311(error: &rumqttc::ConnectionError) -> Failure {
    use rumqttc::{ConnectReturnCode as Code, ConnectionError, StateError};
    let kind = match error {
        ConnectionError::ConnectionRefused(code) => match code {
            Code::RefusedProtocolVersion => FailureKind::Protocol,
            Code::BadUserNamePassword => FailureKind::Refused { fix: FIX_LOGIN },
            Code::NotAuthorized => FailureKind::Refused { fix: FIX_RIGHTS },
            Code::BadClientId => FailureKind::Refused { fix: FIX_CLIENT_ID },
            Code::Success | Code::ServiceUnavailable => FailureKind::Network,
        },
        ConnectionError::MqttState(StateError::ConnectionAborted) | ConnectionError::NetworkTimeout => {
            FailureKind::Handshake
        }
        ConnectionError::Proxy(error) => proxy_kind(error),
        error => tls_kind(error),
    };
    Failure { kind, text: text(error) }
}

/// TLS errors are buried in I/O errors.
fn tls_kind(error: &(dyn Error + 'static)) -> FailureKind {
    use rustls::AlertDescription as Alert;
    let mut error = Some(error);
    while let Some(current) = error {
        let rustls_error = (current.downcast_ref::<rustls::Error>())
            .or_else(|| current.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref::<rustls::Error>());
        if let Some(error) = rustls_error {
            return FailureKind::Refused {
                fix: match error {
                    rustls::Error::InvalidCertificate(_) => {
                        "check mqtt.host against the names in the broker's certificate, and mqtt.tls.ca_file"
                    }
                    rustls::Error::AlertReceived(
                        Alert::CertificateRequired
                        | Alert::UnknownCA
                        | Alert::BadCertificate
                        | Alert::CertificateUnknown
                        | Alert::CertificateExpired
                        | Alert::CertificateRevoked
                        | Alert::HandshakeFailure
                        | Alert::AccessDenied,
                    ) => "the broker wants another client certificate: check mqtt.tls.cert_file and key_file",
                    rustls::Error::AlertReceived(Alert::NoApplicationProtocol) => {
                        "the broker wants another mqtt.tls.alpn: its documentation names it"
                    }
                    _ => "check that mqtt.port is a TLS port, and remove [mqtt.tls] if it is not",
                },
            };
        }
        error = current.source();
    }
    FailureKind::Network
}

/// The whole chain on one line, without repeating what an outer error already says.
fn text(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let inner = error.to_string();
        if !text.contains(&inner) {
            text = format!("{text}: {inner}");
        }
        source = error.source();
    }
    text
}
