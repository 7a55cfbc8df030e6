//! One JSON file per event on disk, for sites that collect files instead of messages.
//!
//! `FOLDER/CAMERA/START-ID.json`, with the best shot beside it as `.jpg`. A file appears whole or not at all. Of each
//! camera the newest `events_keep` are kept. A disk that is full or broken costs the files and nothing else.

use std::collections::VecDeque;
use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use messages::DetectionRecord;

/// The files of one camera.
pub(super) struct Records {
    folder: PathBuf,
    keep: usize,
    /// Names without ending, oldest first; absent until the folder was read.
    names: Option<VecDeque<String>>,
    failing: bool,
}

impl Records {
    /// The folder is read and made with the first file.
    pub(super) fn new(folder: &Path, camera: &str, keep: usize) -> Self {
        Self { folder: folder.join(camera), keep: keep.max(1), names: None, failing: false }
    }

    /// Writes one event; blocks on the disk. Logs a failure once.
    pub(super) fn write(&mut self, record: &DetectionRecord, jpeg: Option<&Bytes>) {
        // Colons are no good in file names elsewhere; the names sort by time.
        let name = format!("{}-{}", record.event.start.to_string().replace(':', ""), record.event.id);
        let mut names = self.names.take().unwrap_or_else(|| earlier(&self.folder));
        match self.try_write(&name, record, jpeg) {
            Ok(()) => {
                self.failing = false;
                names.push_back(name);
                while names.len() > self.keep {
                    let Some(oldest) = names.pop_front() else { break };
                    for ending in ["json", "jpg"] {
                        let _ = std::fs::remove_file(self.folder.join(format!("{oldest}.{ending}")));
                    }
                }
            }
            Err(error) if !std::mem::replace(&mut self.failing, true) => {
                tracing::warn!(folder = %self.folder.display(), %error, "events are not written to disk");
            }
            Err(_) => {}
        }
        self.names = Some(names);
    }

    fn try_write(
        &self,
        name: &str,
        record: &DetectionRecord,
        jpeg: Option<&Bytes>,
    ) -> Result<(), std::io::Error> {
        std::fs::create_dir_all(&self.folder)?;
        if let Some(jpeg) = jpeg {
            whole(&self.folder.join(format!("{name}.jpg")), jpeg)?;
        }
        let mut json = serde_json::to_vec_pretty(record)?;
        json.push(b'\n');
        whole(&self.folder.join(format!("{name}.json")), &json)
    }
}

/// What earlier runs left.
fn earlier(folder: &Path) -> VecDeque<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| Some(name.strip_suffix(".json")?.to_owned()))
        .collect();
    names.sort_unstable();
    names.into()
}

/// Under another name first, so that nobody reads half a file.
fn whole(path: &Path, bytes: &[u8]) -> Result<(), std::io::Error> {
    let part = path.with_extension("part");
    let written = std::fs::File::create(&part).and_then(|mut file| file.write_all(bytes));
    let done = written.and_then(|()| std::fs::rename(&part, path));
    if done.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use messages::{
        BoxParts, Clip, ClockSource, Event, EventKind, EventModel, Part, Severity, UtcTime, Version,
    };

    fn record(start_ms: u64) -> DetectionRecord {
        let start = UtcTime::from_millis(start_ms);
        let event = Event {
            v: Version::default(),
            seq: 1,
            replayed: false,
            kind: EventKind::End,
            id: format!("ID{start_ms}"),
            device: "box".into(),
            camera: "gate".into(),
            ts: start,
            clock: ClockSource::Rtcp,
            label: "person".into(),
            score: Part::new(0.5),
            top_score: Part::new(0.5),
            track: 1,
            rect: BoxParts::default(),
            frame: [2, 2],
            zones: Vec::new(),
            entered: Vec::new(),
            stationary: false,
            severity: Severity::Detection,
            crossed: Vec::new(),
            has_snapshot: false,
            start,
            end: Some(start),
            model: EventModel::default(),
            clip: Clip {
                kvs_stream: String::new(),
                region: String::new(),
                producer_ts_ms: start_ms,
                fragment: None,
                persisted: false,
            },
        };
        DetectionRecord {
            timestamp: start,
            frame_id: 1,
            frame_timestamp: start,
            source_id: "gate".into(),
            predictions: Vec::new(),
            inference_time_ms: 1.0,
            event,
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).expect("the folder is there").flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_newest_files_are_kept_across_restarts() {
        let folder = tempfile::tempdir().expect("a folder");
        for start_ms in [1_000, 2_000, 3_000] {
            Records::new(folder.path(), "gate", 2)
                .write(&record(start_ms), Some(&Bytes::from_static(b"jpeg")));
        }
        let found = names(&folder.path().join("gate"));
        assert_eq!(
            found,
            [
                "1970-01-01T000002.000Z-ID2000.jpg",
                "1970-01-01T000002.000Z-ID2000.json",
                "1970-01-01T000003.000Z-ID3000.jpg",
                "1970-01-01T000003.000Z-ID3000.json",
            ]
        );
        let text = std::fs::read(folder.path().join("gate").join(&found[3])).expect("the file");
        assert_eq!(serde_json::from_slice::<DetectionRecord>(&text).expect("JSON"), record(3_000));
    }

    #[test]
    fn a_folder_that_cannot_be_made_costs_the_files_only() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut records = Records::new(file.path(), "gate", 2);
        records.write(&record(1_000), None);
        assert!(records.failing && records.names.is_some_and(|names| names.is_empty()));
    }
}
