//! The simulator as a whole.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clip::{Clip, ClipError, ClipSpec, default_cache_dir};
use crate::faults::{FaultPlan, Faults};
use crate::rtsp::auth::{Auth, AuthKind};
use crate::scene::FrameTruth;
use crate::server::{Camera, ClipStore, Shared, WallClock, serve};
use crate::stats::{CameraStats, Recorder};

#[derive(Debug, thiserror::Error)]
pub enum SimError {
    #[error(transparent)]
    Clip(#[from] ClipError),
    #[error("cannot listen on {address}: {source}")]
    Listen { address: String, source: std::io::Error },
    #[error("a simulator needs at least one camera")]
    NoCamera,
}

/// How to build a [`CameraSim`].
#[derive(Clone, Debug)]
pub struct CameraSimBuilder {
    clip: ClipSpec,
    cameras: usize,
    distinct: Option<usize>,
    auth: Option<(String, String, AuthKind)>,
    address: String,
    cache_dir: Option<PathBuf>,
    faults: FaultPlan,
}

impl CameraSimBuilder {
    /// The clip of the first camera; the others get the following seeds, or the same file.
    pub fn clip(mut self, clip: ClipSpec) -> Self {
        self.clip = clip;
        self
    }

    /// Number of cameras, `cam0` and on; 1 by default.
    pub fn cameras(mut self, cameras: usize) -> Self {
        self.cameras = cameras;
        self
    }

    /// At most so many different clips; further cameras show them again.
    pub fn distinct(mut self, clips: usize) -> Self {
        self.distinct = Some(clips);
        self
    }

    /// Demands user and password from every client.
    pub fn auth(mut self, user: &str, password: &str, kind: AuthKind) -> Self {
        self.auth = Some((user.to_owned(), password.to_owned(), kind));
        self
    }

    /// `127.0.0.1:0` by default: a free port.
    pub fn bind(mut self, address: impl Into<String>) -> Self {
        self.address = address.into();
        self
    }

    /// [`default_cache_dir`] by default.
    pub fn cache_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cache_dir = Some(folder.into());
        self
    }

    /// Faults of every camera from the start.
    pub fn faults(mut self, plan: FaultPlan) -> Self {
        self.faults = plan;
        self
    }

    /// Makes the clips that are not in the cache yet (seconds each), and begins to serve. Needs a tokio runtime
    /// with IO and time.
    pub async fn start(self) -> Result<CameraSim, SimError> {
        if self.cameras == 0 {
            return Err(SimError::NoCamera);
        }
        let clips = ClipStore::new(self.cache_dir.unwrap_or_else(default_cache_dir));
        let distinct = self.distinct.unwrap_or(self.cameras).max(1);
        let mut cameras = Vec::with_capacity(self.cameras);
        for number in 0..self.cameras {
            let mut spec = self.clip.clone();
            if spec.footage.is_none() {
                spec.seed += (number % distinct) as u64;
            }
            cameras.push(Camera {
                path: format!("cam{number}"),
                clip: clips.get(&spec).await?,
                faults: Faults::new(self.faults.clone()),
                recorder: Arc::new(Recorder::default()),
            });
        }
        let failed = |source| SimError::Listen { address: self.address.clone(), source };
        let listener = TcpListener::bind(&self.address).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        let auth = self.auth.map(|(user, password, kind)| Auth::new(&user, &password, kind));
        let shared = Arc::new(Shared { cameras, auth, clips, clock: WallClock::new() });
        let cancel = CancellationToken::new();
        let server = tokio::spawn(serve(listener, shared.clone(), cancel.clone()));
        Ok(CameraSim { shared, local_addr, cancel, server: Some(server) })
    }
}

/// Running cameras. Dropping it stops them.
pub struct CameraSim {
    shared: Arc<Shared>,
    local_addr: SocketAddr,
    cancel: CancellationToken,
    server: Option<JoinHandle<()>>,
}

/// All methods that take a camera's number panic when there is no such camera.
impl CameraSim {
    pub fn builder() -> CameraSimBuilder {
        CameraSimBuilder {
            clip: ClipSpec::default(),
            cameras: 1,
            distinct: None,
            auth: None,
            address: "127.0.0.1:0".to_owned(),
            cache_dir: None,
            faults: FaultPlan::default(),
        }
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    pub fn cameras(&self) -> usize {
        self.shared.cameras.len()
    }

    /// `rtsp://ADDRESS/camN`, without credentials. Faults go into its query.
    pub fn url(&self, camera: usize) -> String {
        format!("rtsp://{}/{}", self.local_addr, self.shared.cameras[camera].path)
    }

    /// The handle to a camera's faults.
    pub fn faults(&self, camera: usize) -> Faults {
        self.shared.cameras[camera].faults.clone()
    }

    pub fn stats(&self, camera: usize) -> CameraStats {
        self.shared.cameras[camera].recorder.snapshot()
    }

    /// Waits until a camera's numbers please the caller. It has no limit of its own: give it one.
    pub async fn wait_stats(&self, camera: usize, pleased: impl FnMut(&CameraStats) -> bool) -> CameraStats {
        self.shared.cameras[camera].recorder.wait(pleased).await
    }

    /// The clip that a camera plays to clients without clip options in their URL.
    pub fn clip(&self, camera: usize) -> &Arc<Clip> {
        &self.shared.cameras[camera].clip
    }

    /// Ground truth by presentation index within the loop; none of a file.
    pub fn ground_truth(&self, camera: usize) -> &[FrameTruth] {
        self.clip(camera).truth()
    }

    /// Makes or reads a variant of a clip in advance, so that the first client that asks for it need not wait.
    pub async fn preload(&self, spec: &ClipSpec) -> Result<Arc<Clip>, SimError> {
        Ok(self.shared.clips.get(spec).await?)
    }

    /// Closes all connections and the listening socket, and waits until that is done.
    pub async fn shutdown(mut self) {
        self.cancel.cancel();
        if let Some(server) = self.server.take() {
            let _ = server.await;
        }
    }
}

impl Drop for CameraSim {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
