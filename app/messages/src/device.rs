//! What the box is, and how it does.

use serde::{Deserialize, Serialize};

use crate::{UtcTime, Version};

/// What the box is and runs; published at start, at a clean stop (with `stop_reason`) and when it changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Info {
    pub v: Version,
    pub ts: UtcTime,
    pub device: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// Of the hardware, from the device tree or the firmware.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub serial: Option<String>,
    /// Of kvs-edge.
    pub version: String,
    /// `PRETTY_NAME` of os-release.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub os: Option<String>,
    /// `IMAGE_VERSION` of os-release, where the system is an image.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub image_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub boot_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub boot_time: Option<UtcTime>,
    /// When this run of the daemon began.
    pub started: UtcTime,
    /// Why this run ended, in the last message before `offline`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stop_reason: Option<String>,
    pub cameras: Vec<InfoCamera>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InfoCamera {
    pub id: String,
    /// The KVS stream it is uploaded to.
    pub stream: String,
    pub enabled: bool,
}

/// The box now. Quantities that could not be read are absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    pub v: Version,
    pub ts: UtcTime,
    /// True when `checks` is empty.
    pub ok: bool,
    /// Everything that fails now, oldest first.
    pub checks: Vec<Check>,
    pub host: HostHealth,
    pub clock: ClockHealth,
    pub mqtt: MqttHealth,
    /// Time left before the watchdog would have fired, at its last feeding.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub watchdog_margin_ms: Option<u64>,
}

/// One failing check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Stable name for machines, such as `camera_stalled`.
    pub code: String,
    /// For people: what is wrong and what to do.
    pub text: String,
    pub since: UtcTime,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub camera: Option<String>,
}

/// Load of machine and process; percent of one core may exceed 100.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostHealth {
    /// Of all cores, 0 to 100, since the last sample.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cpu_percent: Option<f64>,
    /// Of this process in percent of one core, since the last sample.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub process_cpu_percent: Option<f64>,
    /// Resident memory of this process.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub process_rss_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub memory_total_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub memory_available_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub load_1m: Option<f64>,
    /// Hottest thermal zone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub temperature_c: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub disk_total_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub disk_free_bytes: Option<u64>,
    /// Of the machine.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub uptime_s: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClockHealth {
    /// Whether the system clock is disciplined; absent where the system does not say.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub synced: Option<bool>,
    /// System clock minus reference, where known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub offset_ms: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MqttHealth {
    /// Messages waiting for the broker.
    pub queue: u64,
    /// Messages given up since start because the queue was full.
    pub dropped: u64,
    pub reconnects: u64,
}
