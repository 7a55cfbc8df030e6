//! Cameras, KVS and broker around the daemon, all in this process and on ports that the kernel picks.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use camera_sim::{CameraSim, ClipSpec};
use demo::broker::{Broker, Seen};
use kvs_local::{Credentials, KvsLocal, Options};
use messages::{Event, OFFLINE, Topics};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, MqttOptions};
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

use crate::Error;

const REGION: &str = "local-1";
const DEVICE: &str = "bench-box";

pub(crate) struct Surroundings {
    pub(crate) sim: CameraSim,
    pub(crate) kvs: KvsLocal,
    pub(crate) topics: Topics,
    broker: Broker,
    seen: Seen,
    folder: tempfile::TempDir,
}

impl Surroundings {
    /// Each camera shows a scene of its own.
    pub(crate) async fn start(cameras: usize, clip: ClipSpec) -> Result<Self, Error> {
        let folder = tempfile::Builder::new().prefix("kvs-edge-bench-").tempdir()?;
        let mut options = Options::new(folder.path().join("kvs"));
        REGION.clone_into(&mut options.region);
        for camera in 0..cameras {
            options = options.stream(format!("cam{camera}"), 24);
        }
        let broker = Broker::start()?;
        let topics = Topics::new("kvs-edge", DEVICE);
        Ok(Self {
            sim: CameraSim::builder().clip(clip).cameras(cameras).start().await?,
            kvs: KvsLocal::start(options).await?,
            seen: broker.observe(&topics.everything())?,
            topics,
            broker,
            folder,
        })
    }

    /// A configuration with nothing unusual in it besides `detect`, the text of its `[detect]` if it has one.
    pub(crate) fn write_config(&self, detect: &str) -> Result<PathBuf, Error> {
        let keys = Credentials::local();
        write_secret(&self.folder.path().join("aws-key-id"), &keys.access_key)?;
        write_secret(&self.folder.path().join("aws-secret"), &keys.secret_key)?;
        let mut text = format!(
            "[device]\nid = \"{DEVICE}\"\n\n\
             [aws]\nregion = \"{REGION}\"\nendpoint = \"{}\"\n\
             access_key_id_file = \"aws-key-id\"\nsecret_access_key_file = \"aws-secret\"\n\n\
             [mqtt]\nhost = \"127.0.0.1\"\nport = {}\n\n\
             [health]\ninterval_s = 1\n\n{detect}",
            self.kvs.endpoint(),
            self.broker.address().port(),
        );
        for camera in 0..self.sim.cameras() {
            write!(text, "\n[[camera]]\nid = \"cam{camera}\"\nurl = \"{}\"\n", self.sim.url(camera))?;
        }
        let file = self.folder.path().join("kvs-edge.toml");
        std::fs::write(&file, text)?;
        Ok(file)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The newest message on a topic.
    pub(crate) fn newest<T: DeserializeOwned>(&self, topic: &str) -> Result<T, Error> {
        let body = self.seen.newest(topic).ok_or_else(|| format!("nothing was published on {topic}"))?;
        Ok(serde_json::from_slice(&body)?)
    }

    /// Waits for the daemon's last message; all others came before it.
    pub(crate) async fn offline(&self) {
        let is_offline =
            || self.seen.newest(&self.topics.availability()).is_some_and(|body| body == OFFLINE.as_bytes());
        while !is_offline() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Subscribes to the events of all cameras as any other program would.
    pub(crate) async fn events(&self) -> Result<Events, Error> {
        let mut options = MqttOptions::new("bench", "127.0.0.1", self.broker.address().port());
        options.set_keep_alive(Duration::from_secs(5)).set_clean_start(true);
        let (client, mut packets) = AsyncClient::new(options, 16);
        client.subscribe(self.topics.events("+"), QoS::AtLeastOnce).await?;
        while !matches!(packets.poll().await?, rumqttc::v5::Event::Incoming(Packet::SubAck(_))) {}
        let kept = Arc::<Mutex<Vec<Event>>>::default();
        let events = kept.clone();
        let task = tokio::spawn(async move {
            let _keep = client;
            while let Ok(packet) = packets.poll().await {
                if let rumqttc::v5::Event::Incoming(Packet::Publish(publish)) = packet {
                    let event = serde_json::from_slice(&publish.payload);
                    events.lock().unwrap_or_else(PoisonError::into_inner).push(event?);
                }
            }
            Err("the connection to the broker broke".into())
        });
        Ok(Events { kept, task })
    }

    pub(crate) async fn stop(self) {
        self.sim.shutdown().await;
        self.kvs.shutdown().await;
    }
}

/// All events of the box, in the order of their coming.
pub(crate) struct Events {
    kept: Arc<Mutex<Vec<Event>>>,
    task: JoinHandle<Result<(), Error>>,
}

impl Events {
    /// Waits until as many have come as the box has sent, and gives them.
    pub(crate) async fn finish(self) -> Result<Vec<Event>, Error> {
        let count = || {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            (kept.len() as u64, kept.iter().map(|event| event.seq).max().unwrap_or(0))
        };
        // `seq` has no holes, so the highest is their number; the last ones need a moment.
        let (mut before, mut now) = ((u64::MAX, 0), count());
        while before != now || now.0 < now.1 {
            if self.task.is_finished() {
                return Err(self.task.await?.err().unwrap_or_else(|| "no more events".into()));
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
            (before, now) = (now, count());
        }
        self.task.abort();
        Ok(std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn write_secret(path: &Path, secret: &str) -> Result<(), Error> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(secret.as_bytes())?)
}
