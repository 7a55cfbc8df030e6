//! What the daemon published last about one camera.

use std::collections::BTreeMap;

use messages::{Stats, Status, Upload, Verify};

use crate::observer::Observer;

/// The newest bodies; what was not published yet is absent.
#[derive(Clone, Debug, Default)]
pub(crate) struct PublishedCamera {
    pub(crate) id: String,
    pub(crate) status: Option<Status>,
    pub(crate) stats: Option<Stats>,
    pub(crate) upload: Option<Upload>,
    pub(crate) verify: Option<Verify>,
    /// `ON` or `OFF`.
    pub(crate) motion: Option<String>,
    /// Objects in the picture now, by label.
    pub(crate) counts: BTreeMap<String, u64>,
}

impl PublishedCamera {
    pub(crate) fn of(id: &str, observer: &Observer) -> Self {
        let topics = observer.topics();
        Self {
            id: id.to_owned(),
            status: observer.newest(&topics.status(id)).ok(),
            stats: observer.newest(&topics.stats(id)).ok(),
            upload: observer.newest(&topics.upload(id)).ok(),
            verify: observer.newest(&topics.verify(id)).ok(),
            motion: observer.word(&topics.motion(id)),
            counts: observer.numbers(&format!("{}count/", topics.camera(id))),
        }
    }
}
