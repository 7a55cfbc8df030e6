//! Keeps every MQTT message of the box.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use messages::Topics;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::within;

/// Messages printed when the awaited one does not come.
const PRINTED: usize = 12;

/// Above what the box sends; a larger packet would end the connection.
const PACKET_LIMIT_BYTES: u32 = 1 << 20;

#[derive(Clone, Debug)]
pub struct Message {
    pub topic: String,
    pub retained: bool,
    pub body: Bytes,
}

/// A subscriber to everything at one broker; it comes back by itself when the broker was away.
pub struct Observer {
    pub topics: Topics,
    messages: Arc<Mutex<Vec<Message>>>,
    changed: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl Observer {
    /// Returns once the broker has confirmed the subscription.
    pub async fn start(port: u16, topics: Topics) -> Observer {
        // Two with the same name would drive each other out.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("observer-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut options = MqttOptions::new(name, "127.0.0.1", port);
        options.set_keep_alive(Duration::from_secs(5)).set_clean_start(true);
        options.set_max_packet_size(Some(PACKET_LIMIT_BYTES));
        let (client, mut events) = AsyncClient::new(options, 16);
        let messages = Arc::new(Mutex::new(Vec::new()));
        let (sender, changed) = watch::channel(0);
        let (subscribed, mut ready) = watch::channel(false);
        let kept = messages.clone();
        let task = tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        let _ = client.try_subscribe("#", QoS::AtLeastOnce);
                    }
                    Ok(Event::Incoming(Packet::SubAck(_))) => {
                        subscribed.send_replace(true);
                    }
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let message = Message {
                            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                            retained: publish.retain,
                            body: publish.payload,
                        };
                        kept.lock().unwrap_or_else(PoisonError::into_inner).push(message);
                        sender.send_modify(|count| *count += 1);
                    }
                    Ok(_) => {}
                    // The broker is away; the next poll connects again.
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        });
        within("subscription of the observer", ready.wait_for(|ready| *ready)).await.expect("the task lives");
        Observer { topics, messages, changed, task }
    }

    /// Number of messages so far, for [`Observer::wait_after`].
    pub fn mark(&self) -> usize {
        self.lock().len()
    }

    pub fn all(&self) -> Vec<Message> {
        self.lock().clone()
    }

    /// Bodies on one topic, oldest first.
    ///
    /// # Panics
    /// When a body is not what the contract says.
    pub fn bodies<T: DeserializeOwned>(&self, topic: &str) -> Vec<T> {
        self.lock().iter().filter(|message| message.topic == topic).map(parse).collect()
    }

    /// The newest body on one topic.
    ///
    /// # Panics
    /// When there is none, or it is not what the contract says.
    pub fn last<T: DeserializeOwned>(&self, topic: &str) -> T {
        let messages = self.lock();
        let last = messages.iter().rfind(|message| message.topic == topic);
        parse(last.unwrap_or_else(|| panic!("nothing was published on {topic}")))
    }

    /// The newest body on one topic among the first `mark` messages.
    ///
    /// # Panics
    /// When it is not what the contract says.
    pub fn newest_before<T: DeserializeOwned>(&self, mark: usize, topic: &str) -> Option<T> {
        self.lock()[..mark].iter().rfind(|message| message.topic == topic).map(parse)
    }

    /// The first body on `topic`, from the start of the observer on, that pleases.
    ///
    /// # Panics
    /// When none comes within the deadline, or one is not what the contract says.
    pub async fn wait<T: DeserializeOwned>(&self, topic: &str, pleases: impl FnMut(&T) -> bool) -> T {
        self.wait_after(0, topic, pleases).await
    }

    /// The same among the messages that came after `mark`.
    pub async fn wait_after<T: DeserializeOwned>(
        &self,
        mark: usize,
        topic: &str,
        mut pleases: impl FnMut(&T) -> bool,
    ) -> T {
        let found = self.find_after(mark, topic, |message| Some(parse(message)).filter(|body| pleases(body)));
        match tokio::time::timeout(crate::DEADLINE, found).await {
            Ok(body) => body,
            Err(_) => panic!("no such message on {topic}; the last there: {:#?}", self.tail(topic)),
        }
    }

    /// The first message on `topic` after `mark` that pleases; for bodies that are not JSON.
    ///
    /// # Panics
    /// When none comes within the deadline.
    pub async fn wait_message(
        &self,
        mark: usize,
        topic: &str,
        mut pleases: impl FnMut(&Message) -> bool,
    ) -> Message {
        let found = self.find_after(mark, topic, |message| pleases(message).then(|| message.clone()));
        within(&format!("message on {topic}"), found).await
    }

    /// The first thing that `find` makes of a message on `topic` after `mark`, as soon as there is one.
    async fn find_after<T>(
        &self,
        mark: usize,
        topic: &str,
        mut find: impl FnMut(&Message) -> Option<T>,
    ) -> T {
        let mut changed = self.changed.clone();
        let mut next = mark;
        loop {
            changed.borrow_and_update();
            {
                let messages = self.lock();
                let mut new = messages.iter().skip(next).filter(|message| message.topic == topic);
                if let Some(found) = new.find_map(&mut find) {
                    return found;
                }
                next = messages.len();
            }
            changed.changed().await.expect("the observer's task lives");
        }
    }

    /// Raw text of a topic that is not JSON (`availability`).
    pub async fn wait_text(&self, mark: usize, topic: &str, text: &str) {
        let mut changed = self.changed.clone();
        let found = changed.wait_for(|_| {
            self.lock().iter().skip(mark).any(|message| message.topic == topic && message.body == text)
        });
        within(&format!("{text:?} on {topic}"), found).await.expect("the observer's task lives");
    }

    pub fn texts(&self, topic: &str) -> Vec<String> {
        let messages = self.lock();
        let texts = messages.iter().filter(|message| message.topic == topic);
        texts.map(|message| String::from_utf8_lossy(&message.body).into_owned()).collect()
    }

    fn tail(&self, topic: &str) -> Vec<String> {
        let texts = self.texts(topic);
        texts[texts.len().saturating_sub(PRINTED)..].to_vec()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Message>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn parse<T: DeserializeOwned>(message: &Message) -> T {
    serde_json::from_slice(&message.body).unwrap_or_else(|error| {
        panic!("{} is not as documented: {error}: {}", message.topic, String::from_utf8_lossy(&message.body))
    })
}
