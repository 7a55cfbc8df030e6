//! The box's connection to its MQTT broker: an actor that owns the connection, and a handle that never waits.
//!
//! ```text
//!            +-- failed, back off ---------------------------------+
//!            v                                                     |
//!       Connecting --CONNACK--> Connected --connection lost--> Disconnected
//!            |  ^                   |
//!   refused  |  | back off, long    | cancelled: `offline` published, DISCONNECT
//!            v  |                   v
//!         Refused                Stopped
//! ```
//!
//! On every connection the newest value of each retained topic goes out, then `online`, then what waited. A broker that
//! is away costs nothing but queue space (limits in `outbox.rs`). Delivery is at least once for QoS 1: what was not
//! acknowledged when a connection broke is sent again.

mod link;
mod listen;
mod outbox;
mod tls;

use std::collections::{BTreeSet, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clock::Clock;
use health::{Backoff, Problem, Reason};
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use link::{Client, Failure, FailureKind, Link, Step};
pub use listen::{Heard, ListenError, Listener};
use messages::{MqttHealth, OFFLINE, ONLINE, Topics};
use outbox::{Message, Outbox};

/// Longest body. AWS IoT Core takes 128 KiB for a whole message.
pub const BODY_LIMIT_BYTES: usize = 100 * 1000;
/// How long a stop waits for the broker.
pub const STOP_GRACE: Duration = Duration::from_secs(5);
/// Messages handed to the connection and not yet acknowledged. Far below the 65535 packet ids, and below the receive
/// maximum of any broker we know (Mosquitto 20, AWS IoT Core 100).
const WINDOW: usize = 20;

/// A connection that lasted this long was a good one.
const HEALTHY: Duration = Duration::from_secs(60);
/// So many connections in a row that the broker accepted and soon closed are no accident. MQTT 3.1.1 has no word for the
/// reason, and rumqttc 0.25 does not read a DISCONNECT of MQTT 5 without properties, which is how Mosquitto writes it.
const HANGUPS: u32 = 3;
const FIX_UNREACHABLE: &str = "check mqtt.host and mqtt.port, and that the broker runs";
const FIX_HANGUP: &str = "another client probably uses the same mqtt.client_id: give each box its own device.id; if not, \
     the log of the broker has the reason";

/// What is promised about one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    AtMostOnce,
    /// Kept until the broker acknowledges it.
    AtLeastOnce,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    V5,
    V311,
}

/// Where the connection stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MqttState {
    /// An attempt is under way, the first or a later one.
    Connecting,
    Connected {
        protocol: Protocol,
    },
    /// No connection; the next attempt comes by itself.
    Disconnected(Problem),
    /// The broker does not want us, and trying again will not change that; tried again now and then all the same.
    Refused(Problem),
    /// Ended by the cancellation token.
    Stopped,
}

/// Publishes; cheap to clone. Nothing here waits or fails: what cannot be sent is kept or counted.
#[derive(Clone)]
pub struct MqttHandle {
    shared: Arc<Shared>,
    state: watch::Receiver<MqttState>,
}

struct Shared {
    /// Held only for the time of a push or pop.
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    outbox: Outbox,
    connections: u64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MqttHandle {
    /// Publishes a state: retained, and kept to be published again on every later connection until a newer one of the
    /// same topic replaces it.
    pub fn publish_retained(&self, topic: String, body: &impl Serialize, qos: Qos) {
        self.push(topic, body, qos, true);
    }

    /// Publishes an event or statistics: queued while there is no connection.
    pub fn publish(&self, topic: String, body: &impl Serialize, qos: Qos) {
        self.push(topic, body, qos, false);
    }

    /// Publishes a state that is not JSON, such as a picture or a word.
    pub fn publish_retained_bytes(&self, topic: String, body: Bytes, qos: Qos) {
        self.push_bytes(topic, Ok(body), qos, true);
    }

    /// Makes broker and box forget a state that was published retained: an empty message, as MQTT has it.
    pub fn clear_retained(&self, topic: &str) {
        self.shared.lock().outbox.clear(topic);
        self.shared.changed.notify_one();
    }

    /// Likewise every state below `prefix`, which ends with a slash.
    pub fn clear_retained_below(&self, prefix: &str) {
        let mut inner = self.shared.lock();
        for topic in inner.outbox.topics_below(prefix) {
            inner.outbox.clear(&topic);
        }
        drop(inner);
        self.shared.changed.notify_one();
    }

    fn push(&self, topic: String, body: &impl Serialize, qos: Qos, retain: bool) {
        let payload = serde_json::to_vec(body).map(Bytes::from).map_err(|error| error.to_string());
        self.push_bytes(topic, payload, qos, retain);
    }

    fn push_bytes(&self, topic: String, payload: Result<Bytes, String>, qos: Qos, retain: bool) {
        let short = payload.and_then(|payload| match payload.len() {
            0..=BODY_LIMIT_BYTES => Ok(payload),
            found => Err(format!("{found} bytes, {BODY_LIMIT_BYTES} are allowed")),
        });
        let mut inner = self.shared.lock();
        match short {
            Ok(payload) => inner.outbox.push(Message { topic, payload, qos, retain }),
            Err(error) => {
                inner.outbox.count_dropped();
                warn!(topic, error, "MQTT message not published");
            }
        }
        drop(inner);
        self.shared.changed.notify_one();
    }

    /// Where the connection stands now.
    pub fn state(&self) -> MqttState {
        self.state.borrow().clone()
    }

    /// To wait for a state.
    pub fn watch(&self) -> watch::Receiver<MqttState> {
        self.state.clone()
    }

    /// What is wrong with the connection now, since when, and what to change.
    pub fn problem(&self) -> Option<Problem> {
        match &*self.state.borrow() {
            MqttState::Disconnected(problem) | MqttState::Refused(problem) => Some(problem.clone()),
            MqttState::Connecting | MqttState::Connected { .. } | MqttState::Stopped => None,
        }
    }

    /// Numbers for the health report.
    pub fn health(&self) -> MqttHealth {
        let inner = self.shared.lock();
        MqttHealth {
            queue: inner.outbox.len() as u64,
            dropped: inner.outbox.dropped(),
            reconnects: inner.connections.saturating_sub(1),
        }
    }
}

/// The actor; see [`Mqtt::start`].
pub struct Mqtt {
    config: config::Mqtt,
    clock: Clock,
    availability: String,
    shared: Arc<Shared>,
    state: watch::Sender<MqttState>,
    cancel: CancellationToken,
    /// Topics that the broker refused once: said once.
    denied: BTreeSet<String>,
}

/// How one connection ended.
enum End {
    Stopped,
    Failed {
        failure: Failure,
        /// When there was a CONNACK.
        connected: Option<Instant>,
    },
}

impl Mqtt {
    /// Starts the actor on the current runtime. It ends when `cancel` fires: then it empties the queue, publishes
    /// `offline` and disconnects, all within [`STOP_GRACE`].
    pub fn start(
        config: config::Mqtt,
        topics: &Topics,
        clock: Clock,
        cancel: CancellationToken,
    ) -> (MqttHandle, JoinHandle<()>) {
        let (state, watch) = watch::channel(MqttState::Connecting);
        let shared = Arc::new(Shared { inner: Mutex::default(), changed: Notify::new() });
        let handle = MqttHandle { shared: shared.clone(), state: watch };
        let availability = topics.availability();
        let actor = Mqtt { config, clock, availability, shared, state, cancel, denied: BTreeSet::new() };
        (handle, tokio::spawn(actor.run()))
    }

    async fn run(mut self) {
        let auto = self.config.protocol == config::MqttProtocol::Auto;
        let mut protocol = match self.config.protocol {
            config::MqttProtocol::V311 => Protocol::V311,
            config::MqttProtocol::Auto | config::MqttProtocol::V5 => Protocol::V5,
        };
        // A refusal will not heal by itself soon; trying often would only fill the broker's log.
        let mut away = Backoff::new(Duration::from_millis(500), Duration::from_secs(30), HEALTHY);
        let mut refused = Backoff::new(Duration::from_secs(15), Duration::from_secs(300), HEALTHY);
        // What went wrong since the last good connection: said once, and it keeps its time.
        let mut before: Option<Problem> = None;
        // Whether `protocol` is a guess after the other one failed, or has worked.
        let (mut fell_back, mut proven) = (false, false);
        let mut hangups = 0;
        loop {
            self.state.send_replace(MqttState::Connecting);
            let (failure, connected) = match self.session(protocol).await {
                End::Stopped => break,
                End::Failed { failure, connected } => (failure, connected),
            };
            let Failure { mut kind, text } = failure;
            let hung_up =
                kind == FailureKind::Handshake && connected.is_some_and(|at| self.clock.since(at) < HEALTHY);
            hangups = if hung_up { hangups + 1 } else { 0 };
            if hangups >= HANGUPS {
                kind = FailureKind::Refused { fix: FIX_HANGUP };
            }
            if let Some(since) = connected {
                (proven, fell_back) = (true, false);
                away.up(since);
                refused.up(since);
                before = None;
            } else if auto && (kind == FailureKind::Protocol || (kind == FailureKind::Handshake && !proven)) {
                let other = if protocol == Protocol::V5 { Protocol::V311 } else { Protocol::V5 };
                info!(broker = self.config.host, refused = ?protocol, next = ?other, error = text, "MQTT version");
                protocol = other;
                // Once in each round, so that a broker which knows neither is not asked in a tight loop.
                if !std::mem::replace(&mut fell_back, true) {
                    continue;
                }
                fell_back = false;
            }
            if kind == FailureKind::Protocol {
                kind = FailureKind::Refused { fix: "set mqtt.protocol to a version that the broker speaks" };
            }
            let (reason, word) = match kind {
                FailureKind::Refused { .. } => (Reason::BrokerRefused, "MQTT refused"),
                _ => (Reason::BrokerUnreachable, "MQTT not connected"),
            };
            let fix = match kind {
                FailureKind::Refused { fix } => fix,
                _ => FIX_UNREACHABLE,
            };
            let problem =
                Problem::new(reason, text.clone(), self.clock.wall()).fix(fix).again(before.as_ref());
            if before.as_ref().is_none_or(|before| before.found != text) {
                let (broker, port) = (&self.config.host, self.config.port);
                warn!(broker, port, error = text, fix, "{word}");
            }
            before = Some(problem.clone());
            let state = match reason {
                Reason::BrokerRefused => MqttState::Refused(problem),
                _ => MqttState::Disconnected(problem),
            };
            let backoff = if matches!(kind, FailureKind::Refused { .. }) { &mut refused } else { &mut away };
            let wait = backoff.failed(self.clock.now(), rand::random());
            debug!(wait_ms = wait.as_millis(), error = text, "MQTT waits before the next attempt");
            self.state.send_replace(state);
            if self.cancel.run_until_cancelled(self.clock.sleep(wait)).await.is_none() {
                break;
            }
        }
        self.state.send_replace(MqttState::Stopped);
    }

    /// One connection, from connecting to its end.
    async fn session(&mut self, protocol: Protocol) -> End {
        let (client, mut link) = match link::open(&self.config, Some(&self.availability), protocol, WINDOW) {
            Ok(both) => both,
            Err(failure) => return End::Failed { failure, connected: None },
        };
        let mut window = Window::new(client);
        let mut connected = None;
        let end = loop {
            match self.step(&mut link, &mut window, connected.is_some()).await {
                None => break End::Stopped,
                Some(Err(failure)) => break End::Failed { failure, connected },
                Some(Ok(Step::Connected)) => {
                    connected = Some(self.clock.now());
                    {
                        let mut inner = self.shared.lock();
                        inner.connections += 1;
                        inner.outbox.connected(self.availability(ONLINE));
                    }
                    info!(broker = self.config.host, port = self.config.port, ?protocol, "MQTT connected");
                    self.state.send_replace(MqttState::Connected { protocol });
                }
                Some(Ok(Step::Sent(packet_id))) => window.sent(packet_id),
                Some(Ok(Step::Acked { packet_id, denied })) => {
                    if let (Some(message), Some(reason)) = (window.acked(packet_id), denied)
                        && self.denied.insert(message.topic.clone())
                    {
                        let fix = "let this user publish below its prefix in the broker's access rules";
                        warn!(topic = message.topic, reason, fix, "MQTT broker does not take a message");
                    }
                }
                Some(Ok(Step::Disconnected)) => break End::Stopped,
                // The daemon subscribes to nothing.
                Some(Ok(Step::Other | Step::Subscribed { .. } | Step::Received { .. })) => {}
            }
        };
        self.shared.lock().outbox.undelivered(window.into_undelivered());
        end
    }

    fn availability(&self, state: &'static str) -> Message {
        let (topic, payload) = (self.availability.clone(), Bytes::from_static(state.as_bytes()));
        Message { topic, payload, qos: Qos::AtLeastOnce, retain: true }
    }

    /// Waits for the next step of the link and feeds it meanwhile. `None`: stop now.
    async fn step(
        &self,
        link: &mut Link,
        window: &mut Window,
        connected: bool,
    ) -> Option<Result<Step, Failure>> {
        let mut poll = pin!(link.poll());
        let silent = self.clock.now() + link::silence_limit(&self.config);
        loop {
            if connected {
                self.feed(window);
            }
            tokio::select! {
                step = &mut poll => return Some(step),
                () = self.shared.changed.notified() => {}
                () = self.cancel.cancelled(), if window.stop_by.is_none() => {
                    if !connected {
                        return None;
                    }
                    window.stop_by = Some(self.clock.now() + STOP_GRACE);
                }
                () = self.clock.sleep_until(window.stop_by.unwrap_or(silent).min(silent)) => {
                    if window.stop_by.is_some() {
                        warn!(broker = self.config.host, "MQTT broker did not take the last messages in time");
                        return None;
                    }
                    let text = format!("no sign of life from {}", self.config.host);
                    return Some(Err(Failure { kind: FailureKind::Network, text }));
                }
            }
        }
    }

    /// Hands over as much as the window takes; at a stop the last words follow.
    fn feed(&self, window: &mut Window) {
        while window.has_room() {
            let Some(message) = self.shared.lock().outbox.pop() else { break };
            window.hand_over(message);
        }
        if window.stop_by.is_some() && window.is_empty() && self.shared.lock().outbox.len() == 0 {
            match window.goodbye {
                Goodbye::None => {
                    window.hand_over(self.availability(OFFLINE));
                    window.goodbye = Goodbye::Offline;
                }
                Goodbye::Offline if window.client.disconnect() => window.goodbye = Goodbye::Disconnect,
                Goodbye::Offline | Goodbye::Disconnect => {}
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Goodbye {
    None,
    /// `offline` was handed over.
    Offline,
    Disconnect,
}

/// Messages between outbox and broker, of one connection.
struct Window {
    client: Client,
    /// Handed over, not yet written; in order.
    handed: VecDeque<Message>,
    /// QoS 1, written, not yet acknowledged.
    unacked: VecDeque<(u16, Message)>,
    /// Set once the daemon stops.
    stop_by: Option<Instant>,
    goodbye: Goodbye,
}

impl Window {
    fn new(client: Client) -> Window {
        Window {
            client,
            handed: VecDeque::new(),
            unacked: VecDeque::new(),
            stop_by: None,
            goodbye: Goodbye::None,
        }
    }

    fn is_empty(&self) -> bool {
        self.handed.is_empty() && self.unacked.is_empty()
    }

    fn has_room(&self) -> bool {
        self.handed.len() + self.unacked.len() < WINDOW
    }

    fn hand_over(&mut self, message: Message) {
        // Never without room: the client takes WINDOW messages, and there are never more.
        if self.client.publish(&message) {
            self.handed.push_back(message);
        } else {
            warn!(topic = message.topic, "MQTT message is not a valid publish");
        }
    }

    fn sent(&mut self, packet_id: u16) {
        if let Some(message) = self.handed.pop_front()
            && message.qos == Qos::AtLeastOnce
        {
            self.unacked.push_back((packet_id, message));
        }
    }

    fn acked(&mut self, packet_id: u16) -> Option<Message> {
        let index = self.unacked.iter().position(|(id, _)| *id == packet_id)?;
        self.unacked.remove(index).map(|(_, message)| message)
    }

    fn into_undelivered(self) -> impl DoubleEndedIterator<Item = Message> {
        self.unacked.into_iter().map(|(_, message)| message).chain(self.handed)
    }
}
