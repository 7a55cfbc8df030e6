//! Bodies about the box itself.

use std::time::{Duration, SystemTime};

use health::Problem;
use messages::{Check, ClockHealth, Health, HostHealth, Info, InfoCamera, MqttHealth, Version};

use crate::camera::CameraView;
use crate::status::BoxStatus;

/// What the box is; does not change while the daemon runs.
#[derive(Clone, Debug)]
pub struct Device {
    pub id: String,
    pub name: Option<String>,
    /// When this run of the daemon began.
    pub started: SystemTime,
    pub identity: host::Identity,
}

impl Device {
    pub(super) fn info(&self, cameras: &[CameraView], stop_reason: Option<&str>, now: SystemTime) -> Info {
        let host::Identity { model, serial, os, image_version, boot_id, boot_time } = self.identity.clone();
        let camera = |view: &CameraView| InfoCamera {
            id: view.config.id.clone(),
            stream: view.config.stream.clone(),
            enabled: view.config.enabled,
        };
        Info {
            v: Version::default(),
            ts: now.into(),
            device: self.id.clone(),
            name: self.name.clone(),
            model,
            serial,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            os,
            image_version,
            boot_id,
            boot_time,
            started: self.started.into(),
            stop_reason: stop_reason.map(str::to_owned),
            cameras: cameras.iter().map(camera).collect(),
        }
    }
}

/// Everything that fails now, oldest first, with the load of the machine.
pub(super) fn health(
    status: &BoxStatus,
    host: HostHealth,
    mqtt: MqttHealth,
    watchdog_margin: Option<Duration>,
    now: SystemTime,
) -> Health {
    let of_box = status.problems.iter().map(|problem| check(problem, None));
    let of_cameras = status.cameras.iter().flat_map(|camera| {
        camera.health.checks.iter().map(|problem| check(problem, Some(camera.id.clone())))
    });
    let mut checks: Vec<_> = of_box.chain(of_cameras).collect();
    checks.sort_by_key(|check| check.since);
    Health {
        v: Version::default(),
        ts: now.into(),
        ok: checks.is_empty(),
        checks,
        host,
        clock: ClockHealth {
            synced: status.wall_clock.synced,
            // The witness's time is taken for the reference; on the wire stands how far the system is from it.
            offset_ms: status.wall_clock.offset_us.map(|us| -us as f64 / 1000.0),
        },
        mqtt,
        watchdog_margin_ms: watchdog_margin
            .map(|margin| u64::try_from(margin.as_millis()).unwrap_or(u64::MAX)),
    }
}

fn check(problem: &Problem, camera: Option<String>) -> Check {
    Check { code: problem.reason.to_string(), text: problem.to_string(), since: problem.since.into(), camera }
}
