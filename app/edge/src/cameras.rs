//! The cameras of the box: one is added, removed or replaced while the others go on.
//!
//! ```text
//!  add ----> running --remove, replace--> stopping: ingest ends, the last fragment is completed and persisted
//!   ^                                         |      (within the camera's stop_grace, then it is ended at once)
//!   +------------------ replace --------------+----> gone
//! ```
//!
//! Each camera has its own tasks and its own way to end; no camera knows of another, and nobody knows one by a number.
//! Outputs watch the list of views, which has the order of the configuration file.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kvs::{FragmentIds, RunId};
use media::ProducerTimestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use store::Spool;

use crate::camera::{self, CameraView, Ending, Shared};

/// What a stop may take beyond `stop_grace`: TEARDOWN to the camera, the last look at what is verified.
const STOP_MARGIN: Duration = Duration::from_secs(5);

/// The views of all cameras, in order.
pub type Views = Arc<Vec<CameraView>>;

/// Why a change of the cameras was not made; nothing has changed then.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CamerasError {
    #[error("there is a camera `{id}` already; give the new one another id, or replace it")]
    Exists { id: String },
    #[error(
        "found camera `{id}` with stream `{stream}`, into which camera `{other}` records; give each its own"
    )]
    StreamTaken { id: String, stream: String, other: String },
    #[error("no camera `{id}`; there are: {known}")]
    Unknown { id: String, known: String },
}

/// Why a stretch of time is not uploaded on demand.
#[derive(Debug, thiserror::Error)]
pub enum UploadRangeError {
    #[error("there is no camera `{id}`")]
    Unknown { id: String },
    #[error(
        "all footage of camera `{id}` is uploaded anyway, or it is switched off: [upload] mode selects nothing"
    )]
    NothingToSelect { id: String },
    #[error("the stretch from {from} to {to} ends before it begins")]
    Backwards { from: ProducerTimestamp, to: ProducerTimestamp },
    #[error("camera `{id}` has too many stretches to upload already; ask again when some are done")]
    TooMany { id: String },
}

/// Orders a stretch of a camera's footage, see [`Cameras::upload_range`].
pub fn upload_range(
    cameras: &[CameraView],
    id: &str,
    (from, to): (ProducerTimestamp, ProducerTimestamp),
) -> Result<(), UploadRangeError> {
    let id = || id.to_owned();
    let view = cameras.iter().find(|view| view.config.id == id());
    let view = view.ok_or_else(|| UploadRangeError::Unknown { id: id() })?;
    if !view.config.enabled || view.config.upload.mode == config::UploadMode::Continuous {
        return Err(UploadRangeError::NothingToSelect { id: id() });
    }
    if from > to {
        return Err(UploadRangeError::Backwards { from, to });
    }
    let taken = view.orders.want(from, to);
    taken.then_some(()).ok_or_else(|| UploadRangeError::TooMany { id: id() })
}

/// All cameras of the box.
pub struct Cameras {
    shared: Shared,
    running: Vec<Running>,
    /// Names of fragments, by camera: they go on when a camera comes back in this life of the process.
    ids: BTreeMap<String, FragmentIds>,
    /// The greatest that is known, of this process and of what is on disk: names keep the order of recording.
    newest_run: Option<RunId>,
    views: watch::Sender<Views>,
    ending: Ending,
}

struct Running {
    view: CameraView,
    ending: Ending,
    /// Kept by who replaces it.
    rank: usize,
    /// The one task; it returns the number of fragments left unconfirmed at its end.
    task: JoinSet<usize>,
}

impl Cameras {
    pub fn new(shared: Shared) -> Self {
        let newest_run = shared.spool.as_ref().and_then(Spool::newest_run);
        Self {
            shared,
            running: Vec::new(),
            ids: BTreeMap::new(),
            newest_run,
            views: watch::Sender::default(),
            ending: Ending::default(),
        }
    }

    /// The cameras as they are now, and each change of them.
    pub fn views(&self) -> watch::Receiver<Views> {
        self.views.subscribe()
    }

    /// Fires when all cameras begin to stop.
    pub fn stopping(&self) -> CancellationToken {
        self.ending.stop.clone()
    }

    /// Starts one more camera, behind the others.
    pub fn add(&mut self, config: config::Camera) -> Result<(), CamerasError> {
        let place = self.running.len();
        self.admit(&config, None)?;
        let rank = self.running.last().map_or(0, |last| last.rank + 1);
        self.start(config, place, rank);
        Ok(())
    }

    /// Stops a camera and forgets it; returns the number of fragments left unconfirmed.
    pub async fn remove(&mut self, id: &str) -> Result<usize, CamerasError> {
        let place = self.find(id)?;
        let running = self.running.remove(place);
        let unconfirmed = running.stop().await;
        self.tell();
        Ok(unconfirmed)
    }

    /// Gives a camera another configuration, `enabled = false` among them. The same one changes nothing; with another one
    /// the camera is stopped in order and started anew at its place. Returns the number of fragments left unconfirmed.
    pub async fn replace(&mut self, config: config::Camera) -> Result<usize, CamerasError> {
        let place = self.find(&config.id)?;
        if *self.running[place].view.config == config {
            return Ok(0);
        }
        self.admit(&config, Some(place))?;
        let running = self.running.remove(place);
        let rank = running.rank;
        let unconfirmed = running.stop().await;
        self.start(config, place, rank);
        Ok(unconfirmed)
    }

    /// Stops all cameras side by side; `hurry` gives up waiting for the cloud. Returns the number of fragments left
    /// unconfirmed.
    pub async fn stop(&mut self, hurry: CancellationToken) -> usize {
        self.ending.stop.cancel();
        let abort = self.ending.abort.clone();
        let mut stops = JoinSet::new();
        for running in std::mem::take(&mut self.running) {
            stops.spawn(running.stop());
        }
        let hurried = tokio::spawn(async move {
            hurry.cancelled().await;
            abort.cancel();
        });
        let unconfirmed = stops.join_all().await.into_iter().sum();
        hurried.abort();
        unconfirmed
    }

    /// Has the footage of a past or coming stretch of time uploaded, where the camera's footage is not uploaded anyway. What is
    /// not on disk any more is left out.
    pub fn upload_range(
        &self,
        id: &str,
        from: ProducerTimestamp,
        to: ProducerTimestamp,
    ) -> Result<(), UploadRangeError> {
        let views: Vec<_> = self.running.iter().map(|running| running.view.clone()).collect();
        upload_range(&views, id, (from, to))
    }

    fn start(&mut self, config: config::Camera, place: usize, rank: usize) {
        let mut task = JoinSet::new();
        let ending = self.ending.child();
        // One that could not be opened at the start may be open now.
        let on_disk = self.shared.spool.as_ref().and_then(Spool::newest_run);
        self.newest_run = self.newest_run.max(on_disk);
        let newest_run = &mut self.newest_run;
        let anew = || FragmentIds::new(*newest_run.insert(RunId::after(*newest_run, rand::random())));
        let ids = self.ids.entry(config.id.clone()).or_insert_with(anew).clone();
        let view = camera::start(config, rank, ids, &self.shared, &ending, &mut task);
        self.running.insert(place, Running { view, ending, rank, task });
        self.tell();
    }

    /// Whether there is room for a camera, `instead` of the one at that place.
    fn admit(&self, config: &config::Camera, instead: Option<usize>) -> Result<(), CamerasError> {
        for (place, other) in self.running.iter().enumerate() {
            let other = &other.view.config;
            if Some(place) == instead {
                continue;
            }
            if other.id == config.id {
                return Err(CamerasError::Exists { id: config.id.clone() });
            }
            // Any number may look at a stream; one records into it.
            if other.stream == config.stream && other.kvs.is_none() && config.kvs.is_none() {
                let (id, stream) = (config.id.clone(), config.stream.clone());
                return Err(CamerasError::StreamTaken { id, stream, other: other.id.clone() });
            }
        }
        Ok(())
    }

    fn find(&self, id: &str) -> Result<usize, CamerasError> {
        self.running.iter().position(|running| running.view.config.id == id).ok_or_else(|| {
            let known: Vec<_> = self.running.iter().map(|running| running.view.config.id.as_str()).collect();
            CamerasError::Unknown { id: id.to_owned(), known: known.join(", ") }
        })
    }

    fn tell(&self) {
        self.views.send_replace(Arc::new(self.running.iter().map(|running| running.view.clone()).collect()));
    }
}

impl Running {
    async fn stop(mut self) -> usize {
        self.ending.stop.cancel();
        let limit = self.view.config.upload.stop_grace + STOP_MARGIN;
        let in_order = tokio::time::timeout(limit, self.task.join_next()).await;
        let ended = match in_order {
            Ok(ended) => ended,
            Err(_) => {
                tracing::warn!(
                    camera = self.view.config.id,
                    limit_s = limit.as_secs(),
                    "not stopped in time"
                );
                self.ending.abort.cancel();
                self.task.join_next().await
            }
        };
        match ended {
            Some(Ok(unconfirmed)) => unconfirmed,
            Some(Err(error)) => {
                tracing::error!(camera = self.view.config.id, %error, "the camera's task crashed");
                0
            }
            None => 0, // a camera that is switched off has no task
        }
    }
}
