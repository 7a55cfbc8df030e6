//! What stands around a daemon that is shown or measured: simulated cameras, a local KVS with a stream for each, a
//! broker, and a folder with its configuration. All on loopback and on ports that the kernel picks.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use camera_sim::{CameraSim, ClipSpec};
use kvs_local::{Credentials, KvsLocal, Options};

use crate::broker::{Broker, BrokerError};

const REGION: &str = "local-1";

/// Cameras, cloud and broker; the streams have the names of the cameras: `cam0`, `cam1` and so on.
pub struct Rig {
    pub sim: CameraSim,
    pub kvs: KvsLocal,
    pub broker: Broker,
    device: String,
    folder: tempfile::TempDir,
}

/// What the cameras are.
#[derive(Clone, Debug)]
pub struct RigOptions {
    /// Id of the box, and part of the folder's name.
    pub device: String,
    pub cameras: usize,
    /// Scenes that are rendered; further cameras repeat them.
    pub scenes: usize,
    pub clip: ClipSpec,
}

/// Why the rig does not stand.
#[derive(Debug, thiserror::Error)]
pub enum RigError {
    #[error("the folder for configuration and fragments: {0}; look at TMPDIR")]
    Folder(std::io::Error),
    #[error("the simulated cameras: {0}")]
    Cameras(#[from] camera_sim::SimError),
    #[error("the local KVS: {0}")]
    Kvs(#[from] kvs_local::StartError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

impl Rig {
    pub async fn start(options: RigOptions) -> Result<Self, RigError> {
        let RigOptions { device, cameras, scenes, clip } = options;
        let folder = tempfile::Builder::new().prefix(&format!("kvs-edge-{device}-")).tempdir();
        let folder = folder.map_err(RigError::Folder)?;
        let mut kvs = Options::new(folder.path().join("kvs"));
        REGION.clone_into(&mut kvs.region);
        kvs.credentials = vec![Credentials::local()];
        for camera in 0..cameras {
            kvs = kvs.stream(name(camera), 24);
        }
        let sim = CameraSim::builder().clip(clip).cameras(cameras).distinct(scenes).start().await?;
        Ok(Self { sim, kvs: KvsLocal::start(kvs).await?, broker: Broker::start()?, device, folder })
    }

    /// A configuration as an installer would write it: box, cloud, broker and cameras. `settings` is the text of further
    /// sections, `of_each_camera` follows each `[[camera]]`.
    pub fn write_config(&self, settings: &str, of_each_camera: &str) -> Result<PathBuf, std::io::Error> {
        let keys = Credentials::local();
        write_secret(&self.folder().join("aws-key-id"), &keys.access_key)?;
        write_secret(&self.folder().join("aws-secret"), &keys.secret_key)?;
        let mut text = format!(
            "[device]\nid = \"{}\"\n\n\
             [aws]\nregion = \"{REGION}\"\nendpoint = \"{}\"\n\
             access_key_id_file = \"aws-key-id\"\nsecret_access_key_file = \"aws-secret\"\n\n\
             [mqtt]\nhost = \"127.0.0.1\"\nport = {}\n\n{settings}",
            self.device,
            self.kvs.endpoint(),
            self.broker.address().port(),
        );
        for camera in 0..self.sim.cameras() {
            let (id, url) = (name(camera), self.sim.url(camera));
            let _ = write!(text, "\n[[camera]]\nid = \"{id}\"\nurl = \"{url}\"\n{of_each_camera}");
        }
        let file = self.folder().join("kvs-edge.toml");
        std::fs::write(&file, text)?;
        Ok(file)
    }

    /// Where everything of this run lies; removed with the rig.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn region(&self) -> &'static str {
        REGION
    }

    /// What the local KVS takes.
    pub fn credentials(&self) -> Credentials {
        Credentials::local()
    }

    /// Ids of the cameras, in their order.
    pub fn cameras(&self) -> Vec<String> {
        (0..self.sim.cameras()).map(name).collect()
    }

    /// Ends cameras and cloud; the folder is removed unless it is to be kept.
    pub async fn stop(mut self, keep_folder: bool) {
        self.folder.disable_cleanup(keep_folder);
        self.sim.shutdown().await;
        self.kvs.shutdown().await;
    }
}

fn name(camera: usize) -> String {
    format!("cam{camera}")
}

fn write_secret(path: &Path, secret: &str) -> Result<(), std::io::Error> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(secret.as_bytes())
}
