//! What a daemon publishes: the newest message of each topic, as any other program receives it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use messages::{Topics, Verify};
use mqtt::{Heard, ListenError, Listener};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A subscription to everything that one box publishes; ends when dropped.
pub struct Observer {
    topics: Topics,
    shared: Arc<Shared>,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    newest: Mutex<BTreeMap<String, Topic>>,
    changed: Notify,
}

#[derive(Default)]
struct Topic {
    messages: u64,
    newest: Vec<u8>,
    /// Of a verification: the most fragments that were told as different at any time. A bad verdict heals when later
    /// looks prove the footage; that there was one is not forgotten.
    most_corrupt: u64,
}

/// Why there is no body.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("nothing was published on {topic}")]
    Absent { topic: String },
    #[error("the message on {topic} is not what the contract says: {source}")]
    Unreadable { topic: String, source: serde_json::Error },
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Topic>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, heard: Heard) {
        match heard {
            Heard::Message { topic: name, payload } => {
                let mut topics = self.lock();
                let topic = topics.entry(name.clone()).or_default();
                topic.messages += 1;
                if name.ends_with("/verify")
                    && let Ok(verify) = serde_json::from_slice::<Verify>(&payload)
                {
                    topic.most_corrupt = topic.most_corrupt.max(verify.corrupt);
                }
                topic.newest = payload.to_vec();
                drop(topics);
                self.changed.notify_waiters();
            }
            Heard::Interrupted { why } => {
                tracing::warn!(why, "the connection to the broker was lost, messages may be missing");
            }
        }
    }
}

impl Observer {
    /// Subscribes to all that the box of `config` publishes; returns once the subscription stands.
    pub async fn connect(config: &config::Config, mut mqtt: config::Mqtt) -> Result<Self, ListenError> {
        let topics = Topics::new(&mqtt.prefix, &config.device.id);
        mqtt.client_id.push_str("-observer");
        let listener = Listener::connect(mqtt, vec![topics.everything()]).await?;
        let (sender, mut heard) = Listener::channel();
        let (stop, shared) = (CancellationToken::new(), Arc::<Shared>::default());
        let listening = listener.run(sender, stop.clone());
        let kept = shared.clone();
        let task = tokio::spawn(async move {
            let keep = async {
                while let Some(heard) = heard.recv().await {
                    kept.take(heard);
                }
            };
            tokio::join!(listening, keep);
        });
        Ok(Self { topics, shared, stop, task: Some(task) })
    }

    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// Messages on all topics.
    pub fn messages(&self) -> u64 {
        self.shared.lock().values().map(|topic| topic.messages).sum()
    }

    /// Messages by topic.
    pub fn by_topic(&self) -> BTreeMap<String, u64> {
        self.shared.lock().iter().map(|(name, topic)| (name.clone(), topic.messages)).collect()
    }

    /// The newest message on a topic, as the body that the contract says.
    pub fn newest<T: DeserializeOwned>(&self, topic: &str) -> Result<T, BodyError> {
        let bytes = self.bytes(topic).ok_or_else(|| BodyError::Absent { topic: topic.to_owned() })?;
        serde_json::from_slice(&bytes)
            .map_err(|source| BodyError::Unreadable { topic: topic.to_owned(), source })
    }

    /// The most fragments that a verification told as different at any time, healed or not.
    pub fn most_corrupt(&self, topic: &str) -> u64 {
        self.shared.lock().get(topic).map_or(0, |topic| topic.most_corrupt)
    }

    /// The newest message on a topic that holds a word.
    pub fn word(&self, topic: &str) -> Option<String> {
        self.bytes(topic).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The newest numbers on all topics that begin with `prefix`, by the rest of their names.
    pub fn numbers(&self, prefix: &str) -> BTreeMap<String, u64> {
        let topics = self.shared.lock();
        let below = topics.iter().filter_map(|(name, topic)| Some((name.strip_prefix(prefix)?, topic)));
        let number = |topic: &Topic| std::str::from_utf8(&topic.newest).ok()?.parse().ok();
        below.filter_map(|(name, topic)| Some((name.to_owned(), number(topic)?))).collect()
    }

    /// Waits until the newest message on `topic` is `word`.
    pub async fn wait_for(&self, topic: &str, word: &str) {
        loop {
            let mut changed = std::pin::pin!(self.shared.changed.notified());
            changed.as_mut().enable(); // what comes while the map is looked at is not missed
            if self.bytes(topic).is_some_and(|bytes| bytes == word.as_bytes()) {
                return;
            }
            changed.await;
        }
    }

    fn bytes(&self, topic: &str) -> Option<Vec<u8>> {
        self.shared.lock().get(topic).map(|topic| topic.newest.clone())
    }

    /// Ends the subscription in order.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
