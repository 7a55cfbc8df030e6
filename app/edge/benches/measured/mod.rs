//! What both benches of the whole daemon share: cameras, cloud and broker around it, what a process takes of the machine,
//! what became of the pictures, and what was published.

pub(crate) mod process;
mod stored;

use std::path::PathBuf;
use std::time::Duration;

use camera_sim::ClipSpec;
use config::Config;
use demo::daemon::Daemon;
use demo::observer::Observer;
use demo::rig::{Rig, RigOptions};
use messages::{OFFLINE, Percentiles, Stats, Upload};

pub(crate) use process::{Memory, Process};
pub(crate) use stored::{Stored, stored};

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// A rig with the configuration of a daemon, and a subscription to what that publishes.
pub(crate) struct Bench {
    pub(crate) rig: Rig,
    pub(crate) file: PathBuf,
    pub(crate) config: Config,
    pub(crate) observer: Observer,
}

impl Bench {
    /// `scenes` are rendered, further cameras repeat them. `settings`: sections beside box, cloud, broker and cameras.
    pub(crate) async fn start(
        cameras: usize,
        scenes: usize,
        clip: ClipSpec,
        settings: &str,
    ) -> Result<Self, Error> {
        let rig = Rig::start(RigOptions { device: "bench".to_owned(), cameras, scenes, clip }).await?;
        let file = rig.write_config(settings, "")?;
        let config = Config::load(&file)?;
        let observer = Observer::connect(&config, config.mqtt.clone().ok_or("no [mqtt]")?).await?;
        Ok(Self { rig, file, config, observer })
    }

    /// Waits until every camera plays.
    pub(crate) async fn all_play(&self) -> Result<(), Error> {
        for camera in 0..self.rig.sim.cameras() {
            let playing = self.rig.sim.wait_stats(camera, |stats| stats.sessions > 0);
            tokio::time::timeout(Duration::from_secs(20), playing).await?;
        }
        Ok(())
    }

    /// The daemon completes its last fragments, publishes its last figures and ends; all of them are received.
    pub(crate) async fn end(&self, mut daemon: Daemon) -> Result<(), Error> {
        daemon.terminate();
        daemon.finish(Duration::from_secs(20)).await?;
        self.last_message().await
    }

    /// Waits for a daemon's last message; all others came before it.
    pub(crate) async fn last_message(&self) -> Result<(), Error> {
        let availability = self.observer.topics().availability();
        let offline = self.observer.wait_for(&availability, OFFLINE);
        Ok(tokio::time::timeout(Duration::from_secs(10), offline).await?)
    }

    pub(crate) async fn stop(self) {
        self.observer.stop().await;
        self.rig.stop(false).await;
    }
}

/// What became of the pictures of all cameras, by what lies in KVS and what the daemon published last. Sums.
#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) stored: Stored,
    pub(crate) lost_packets: u64,
    pub(crate) dropped_frames: u64,
    pub(crate) fragments: u64,
    pub(crate) persisted: u64,
    pub(crate) lost: u64,
    read_back: Vec<Percentiles>,
    detection: Vec<Percentiles>,
}

impl Figures {
    pub(crate) async fn of(bench: &Bench) -> Result<Self, Error> {
        let (mut figures, topics) = (Self::default(), bench.observer.topics());
        for (number, camera) in bench.rig.cameras().iter().enumerate() {
            figures.stored += stored(&bench.rig, number).await?;
            let stats: Stats = bench.observer.newest(&topics.stats(camera))?;
            let upload: Upload = bench.observer.newest(&topics.upload(camera))?;
            figures.lost_packets += stats.lost_packets;
            figures.dropped_frames += stats.dropped_frames;
            figures.fragments += upload.fragments_sent;
            figures.persisted += upload.fragments_persisted;
            figures.lost += upload.fragments_lost;
            figures.read_back.extend(stats.latency);
            figures.detection.extend(stats.detect.and_then(|detect| detect.latency));
        }
        Ok(figures)
    }

    /// From the camera's clock to the same picture read back, of the camera with the median p50.
    pub(crate) fn read_back_latency(&self) -> Option<Percentiles> {
        median(&self.read_back)
    }

    /// From the camera's clock to the messages about that picture, of the camera with the median p50.
    pub(crate) fn detection_latency(&self) -> Option<Percentiles> {
        median(&self.detection)
    }
}

fn median(latencies: &[Percentiles]) -> Option<Percentiles> {
    let mut sorted = latencies.to_vec();
    sorted.sort_by(|a, b| a.p50_ms.total_cmp(&b.p50_ms));
    sorted.get(sorted.len() / 2).copied()
}
