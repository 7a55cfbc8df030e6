//! What the box says over MQTT: topic names and JSON bodies, version 1.
//!
//! Rules of the contract: every body has `v`; times are RFC 3339 UTC with milliseconds; readers ignore fields they do
//! not know; a field whose value is not known is absent (null in an event, whose form came first); a change that breaks
//! readers raises `v`. Topics never hold more than seven slashes (the limit of AWS IoT Core).

mod camera;
mod cloud;
mod detector;
mod device;
mod event;
mod proof;
mod times;

pub use health::Reason;
use serde::{Deserialize, Serialize};

pub use camera::*;
pub use cloud::*;
pub use detector::*;
pub use device::*;
pub use event::*;
pub use proof::*;
pub use times::{TimeError, UtcTime};

/// Version of every body in this file, its field `v`.
pub const VERSION: u32 = 1;

/// The two payloads of [`Topics::availability`]; nothing else is ever published there.
pub const ONLINE: &str = "online";
pub const OFFLINE: &str = "offline";

/// The two payloads of [`Topics::motion`].
pub const ON: &str = "ON";
pub const OFF: &str = "OFF";

/// The names of all topics of one box: `PREFIX/DEVICE/...`.
///
/// Prefix, device and camera ids are checked by the configuration: one level each, no wildcard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    base: String,
}

impl Topics {
    pub fn new(prefix: &str, device: &str) -> Topics {
        Topics { base: format!("{prefix}/{device}") }
    }

    /// `online` or `offline`; QoS 1, retained, last will.
    pub fn availability(&self) -> String {
        format!("{}/availability", self.base)
    }

    /// [`Info`]; QoS 1, retained.
    pub fn info(&self) -> String {
        format!("{}/info", self.base)
    }

    /// [`Health`]; QoS 0, retained, every `health.interval_s`.
    pub fn health(&self) -> String {
        format!("{}/health", self.base)
    }

    /// What every topic of one camera begins with.
    pub fn camera(&self, camera: &str) -> String {
        format!("{}/cam/{camera}/", self.base)
    }

    /// [`Status`]; QoS 1, retained, at each change.
    pub fn status(&self, camera: &str) -> String {
        format!("{}/cam/{camera}/status", self.base)
    }

    /// [`Stats`]; QoS 0, not retained, every `health.interval_s`.
    pub fn stats(&self, camera: &str) -> String {
        format!("{}/cam/{camera}/stats", self.base)
    }

    /// [`Upload`]; QoS 1, retained.
    pub fn upload(&self, camera: &str) -> String {
        format!("{}/cam/{camera}/upload", self.base)
    }

    /// [`Verify`]; QoS 1, retained.
    pub fn verify(&self, camera: &str) -> String {
        format!("{}/cam/{camera}/verify", self.base)
    }

    /// [`Alarm`]; QoS 1, retained while it lasts, cleared by an empty payload.
    pub fn alarm(&self, code: &str) -> String {
        format!("{}/alarm/{code}", self.base)
    }

    /// The code of the alarm about what is proven of a camera: one level, so that `alarm/+` has all.
    pub fn proof_alarm(&self, camera: &str) -> String {
        format!("proof-{camera}")
    }

    /// [`Event`]; QoS 1, not retained.
    pub fn events(&self, camera: &str) -> String {
        format!("{}/cam/{camera}/events", self.base)
    }

    /// How many objects of a label are in the picture now, an integer; QoS 0, retained, at each change.
    pub fn count(&self, camera: &str, label: &str) -> String {
        format!("{}/cam/{camera}/count/{}", self.base, level(label))
    }

    /// [`ON`] or [`OFF`]; QoS 0, retained, at each change.
    pub fn motion(&self, camera: &str) -> String {
        format!("{}/cam/{camera}/motion", self.base)
    }

    /// The best picture of the newest event of a label, JPEG; QoS 0, retained.
    pub fn snapshot(&self, camera: &str, label: &str) -> String {
        format!("{}/cam/{camera}/snapshot/{}", self.base, level(label))
    }

    /// [`Detector`]; QoS 0, retained, at each change of its state and every `detect.figures_every_s`.
    pub fn detector(&self) -> String {
        format!("{}/detector", self.base)
    }

    /// The subscription that receives everything of this box.
    pub fn everything(&self) -> String {
        format!("{}/#", self.base)
    }
}

/// Most bytes of a label in a topic: with the longest ids AWS IoT Core's limit of 256 bytes is kept.
const LABEL_BYTES: usize = 64;

/// A label, which comes from a model and may be any text, as one level of a topic: `/`, wildcards and control
/// characters become `_`. Spaces stay.
fn level(label: &str) -> String {
    let mut name = String::new();
    for c in label.chars() {
        let c = if c.is_control() || "/+#".contains(c) { '_' } else { c };
        if name.len() + c.len_utf8() > LABEL_BYTES {
            break;
        }
        name.push(c);
    }
    if name.is_empty() { "_".to_owned() } else { name }
}

/// The fixed field `v`: writes [`VERSION`], reads any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version(pub u32);

impl Default for Version {
    fn default() -> Version {
        Version(VERSION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_stay_within_seven_slashes() {
        let topics = Topics::new("kvs-edge", "box-7f3a");
        assert_eq!(topics.availability(), "kvs-edge/box-7f3a/availability");
        assert_eq!(topics.status("dock-2"), "kvs-edge/box-7f3a/cam/dock-2/status");
        assert_eq!(topics.alarm(&topics.proof_alarm("dock-2")), "kvs-edge/box-7f3a/alarm/proof-dock-2");
        assert_eq!(topics.detector(), "kvs-edge/box-7f3a/detector");
        assert_eq!(topics.events("dock-2"), "kvs-edge/box-7f3a/cam/dock-2/events");
        assert_eq!(topics.motion("dock-2"), "kvs-edge/box-7f3a/cam/dock-2/motion");
        assert_eq!(topics.count("dock-2", "person"), "kvs-edge/box-7f3a/cam/dock-2/count/person");
        assert_eq!(topics.snapshot("dock-2", "person"), "kvs-edge/box-7f3a/cam/dock-2/snapshot/person");
        for topic in
            [topics.info(), topics.health(), topics.stats("c"), topics.upload("c"), topics.verify("c")]
        {
            assert!(topic.matches('/').count() <= 7, "{topic}");
        }
    }

    #[test]
    fn any_label_is_one_level() {
        for (label, expected) in [
            ("traffic light", "traffic light"),
            ("a/b+c#d\0e", "a_b_c_d_e"),
            ("", "_"),
            ("f\u{fc}\u{df}e", "f\u{fc}\u{df}e"),
        ] {
            assert_eq!(level(label), expected);
        }
        let long = "\u{fc}".repeat(200);
        let topics = Topics::new(&"p".repeat(64), &"d".repeat(48));
        assert!(topics.snapshot(&"c".repeat(48), &long).len() <= 256);
        assert_eq!(level(&long).chars().count(), 32);
    }
}
