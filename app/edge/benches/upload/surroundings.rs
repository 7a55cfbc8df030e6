//! Cameras, KVS and broker around the daemon, all in this process and on ports that the kernel picks.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use camera_sim::{CameraSim, ClipSpec};
use demo::broker::{Broker, Seen};
use kvs_local::{Credentials, KvsLocal, Options};
use messages::{OFFLINE, Topics};
use serde::de::DeserializeOwned;

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
    pub(crate) async fn start(cameras: usize) -> Result<Self, Error> {
        let clip = ClipSpec {
            width: 1920,
            height: 1080,
            fps: 30,
            bitrate_kbps: 6000,
            gop: 60,
            loop_seconds: 10,
            ..ClipSpec::default()
        };
        let folder = tempfile::Builder::new().prefix("kvs-edge-bench-").tempdir()?;
        let mut options = Options::new(folder.path().join("kvs"));
        REGION.clone_into(&mut options.region);
        for camera in 0..cameras {
            options = options.stream(format!("cam{camera}"), 24);
        }
        let broker = Broker::start()?;
        let topics = Topics::new("kvs-edge", DEVICE);
        Ok(Self {
            sim: CameraSim::builder().clip(clip).cameras(cameras).distinct(1).start().await?,
            kvs: KvsLocal::start(options).await?,
            seen: broker.observe(&topics.everything())?,
            topics,
            broker,
            folder,
        })
    }

    /// A configuration with nothing unusual in it; `verify` is its `verify.mode`.
    pub(crate) fn write_config(&self, verify: &str) -> Result<PathBuf, Error> {
        let keys = Credentials::local();
        write_secret(&self.folder.path().join("aws-key-id"), &keys.access_key)?;
        write_secret(&self.folder.path().join("aws-secret"), &keys.secret_key)?;
        let mut text = format!(
            "[device]\nid = \"{DEVICE}\"\n\n\
             [aws]\nregion = \"{REGION}\"\nendpoint = \"{}\"\n\
             access_key_id_file = \"aws-key-id\"\nsecret_access_key_file = \"aws-secret\"\n\n\
             [mqtt]\nhost = \"127.0.0.1\"\nport = {}\n\n\
             [verify]\nmode = \"{verify}\"\n",
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

    pub(crate) async fn stop(self) {
        self.sim.shutdown().await;
        self.kvs.shutdown().await;
    }
}

fn write_secret(path: &Path, secret: &str) -> Result<(), Error> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(secret.as_bytes())?)
}
