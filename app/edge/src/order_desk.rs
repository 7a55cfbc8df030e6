//! Orders from outside the process: which footage is to be uploaded where not all of it is.
//!
//! ```text
//!  kvs-edge upload-range --> ORDERS/N.order --> desk, each two seconds --> the camera's upload
//!                        <-- ORDERS/N.answer <--
//! ```
//!
//! A file instead of a socket: it needs no rights but those on the folder of the spool, survives a restart of the daemon, and
//! an order that is given while nothing runs is taken at the next start. An order is a line of JSON; it is written under
//! another name and renamed, so that none is read by halves. It goes once the upload has it: what is on its way then is
//! remembered by the spool, and what the spool was not asked for yet when the box is killed is to be ordered again.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clock::Clock;
use media::ProducerTimestamp;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::cameras::UploadRangeError;

/// Between two looks at the folder.
const LOOK: Duration = Duration::from_secs(2);
/// An order has a hundred bytes.
const MOST_BYTES: u64 = 4096;
/// Answers that nobody has fetched, and half-written orders, go after this.
const FORGET: Duration = Duration::from_secs(3600);

/// A camera's footage of a time, both ends included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    pub camera: String,
    pub from_ms: u64,
    pub to_ms: u64,
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The upload has it.
    Taken,
    /// Why not, and what to change.
    Refused(String),
}

/// Where orders lie, in the folder of the spool.
pub fn folder(spool: &Path) -> PathBuf {
    spool.join("orders")
}

/// Gives an order, and returns where it lies. The folder is the daemon's, who makes it.
pub fn place(folder: &Path, order: &Order, name: u64) -> io::Result<PathBuf> {
    let (draft, path) =
        (folder.join(format!("{name:016x}.draft")), folder.join(format!("{name:016x}.order")));
    let text = serde_json::to_string(order).map_err(io::Error::other)?;
    std::fs::write(&draft, text + "\n")?;
    std::fs::rename(&draft, &path)?;
    Ok(path)
}

/// The answer to the order that lies there; it can be taken once.
pub fn fetch(order: &Path) -> Option<Answer> {
    let path = order.with_extension("answer");
    let answer = serde_json::from_str(&std::fs::read_to_string(&path).ok()?).ok()?;
    // The desk forgets it later where it cannot be removed.
    let _ = std::fs::remove_file(&path);
    Some(answer)
}

/// Takes orders until `stop`; `take` hands one to the camera's upload. The disk is asked on threads of its own.
pub async fn run(
    folder: PathBuf,
    clock: Clock,
    stop: CancellationToken,
    mut take: impl FnMut(&str, ProducerTimestamp, ProducerTimestamp) -> Result<(), UploadRangeError>,
) {
    // Made at the start, so that it belongs to the daemon whoever orders first.
    let made = folder.clone();
    let made = tokio::task::spawn_blocking(move || std::fs::create_dir_all(made)).await;
    if let Ok(Err(error)) = made {
        tracing::warn!(folder = %folder.display(), %error, "no orders can be taken");
    }
    let mut stuck = BTreeSet::new();
    loop {
        let (from, done, wall) = (folder.clone(), stuck.clone(), clock.wall());
        let found = tokio::task::spawn_blocking(move || look(&from, &done, wall)).await.unwrap_or_default();
        let answers: Vec<_> = found.into_iter().filter_map(|found| answer(found, &mut take)).collect();
        if !answers.is_empty() {
            let settled = tokio::task::spawn_blocking(move || settle_all(answers)).await;
            stuck.extend(settled.unwrap_or_default());
        }
        if stop.run_until_cancelled(clock.sleep(LOOK)).await.is_none() {
            return;
        }
    }
}

type Found = (PathBuf, io::Result<Order>);

/// What is ordered, but for what was taken already and cannot be removed.
fn look(folder: &Path, done: &BTreeSet<PathBuf>, wall: SystemTime) -> Vec<Found> {
    // While it cannot be read nobody can order, and whoever tries is told.
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut orders = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("order") if !done.contains(&path) => orders.push(path),
            Some("answer" | "draft") => forget(&path, wall),
            _ => {}
        }
    }
    orders.sort();
    orders.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

/// `None`: it stays, and is looked at again.
fn answer(
    (path, order): Found,
    take: &mut impl FnMut(&str, ProducerTimestamp, ProducerTimestamp) -> Result<(), UploadRangeError>,
) -> Option<(PathBuf, Answer)> {
    let answer = match order {
        Ok(Order { camera, from_ms, to_ms }) => {
            let (from, to) = (ProducerTimestamp::from_millis(from_ms), ProducerTimestamp::from_millis(to_ms));
            match take(&camera, from, to) {
                Ok(()) => {
                    tracing::info!(camera, %from, %to, "footage is ordered");
                    Answer::Taken
                }
                // There is a place soon.
                Err(UploadRangeError::TooMany { .. }) => return None,
                Err(error) => Answer::Refused(error.to_string()),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Answer::Refused(error.to_string()),
        Err(_) => return None,
    };
    if let Answer::Refused(why) = &answer {
        tracing::warn!(order = %path.display(), error = why, "an order is refused");
    }
    Some((path, answer))
}

/// Returns orders that cannot be removed.
fn settle_all(answers: Vec<(PathBuf, Answer)>) -> Vec<PathBuf> {
    let settle = |(path, answer): (PathBuf, Answer)| {
        let error = settle(&path, &answer).err()?;
        tracing::warn!(order = %path.display(), %error, "an order cannot be answered");
        path.exists().then_some(path)
    };
    answers.into_iter().filter_map(settle).collect()
}

fn read(path: &Path) -> io::Result<Order> {
    if std::fs::metadata(path)?.len() > MOST_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the order is too long"));
    }
    let text = std::fs::read(path)?;
    serde_json::from_slice(&text).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("the order cannot be read: {error}"))
    })
}

/// The order goes whatever happens: one that stayed would be taken again and again.
fn settle(order: &Path, answer: &Answer) -> io::Result<()> {
    let text = serde_json::to_string(answer).map_err(io::Error::other)?;
    let draft = order.with_extension("draft");
    let written = std::fs::write(&draft, text + "\n")
        .and_then(|()| std::fs::rename(&draft, order.with_extension("answer")));
    std::fs::remove_file(order).and(written)
}

/// By the file's own time; nothing else depends on it.
fn forget(path: &Path, wall: SystemTime) {
    let made = std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let age = made.and_then(|made| wall.duration_since(made).ok());
    if age.is_some_and(|age| age > FORGET) {
        // It is tried again.
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(camera: &str) -> Order {
        Order { camera: camera.to_owned(), from_ms: 1_000, to_ms: 2_000 }
    }

    #[test]
    fn orders_are_taken_once_and_answered() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("orders");
        assert!(place(&folder, &order("gate"), 1).is_err(), "the daemon makes it");
        std::fs::create_dir(&folder).expect("made");
        let mut taken = Vec::new();
        let mut full = true;
        let first = place(&folder, &order("gate"), 1).expect("written");
        let second = place(&folder, &order("nobody"), 2).expect("written");
        std::fs::write(folder.join("3.order"), "{\"camera\":5}").expect("written");
        std::fs::write(folder.join("4.order"), vec![b' '; 5000]).expect("written");
        std::fs::write(folder.join("notes.txt"), "not ours").expect("written");
        for _ in 0..3 {
            let mut take = |camera: &str, from: ProducerTimestamp, to: ProducerTimestamp| {
                if camera != "gate" {
                    return Err(UploadRangeError::Unknown { id: camera.to_owned() });
                }
                if std::mem::take(&mut full) {
                    return Err(UploadRangeError::TooMany { id: camera.to_owned() });
                }
                taken.push((from.as_millis(), to.as_millis()));
                Ok(())
            };
            let found = look(&folder, &BTreeSet::new(), SystemTime::UNIX_EPOCH);
            let answers = found.into_iter().filter_map(|found| answer(found, &mut take)).collect();
            assert!(settle_all(answers).is_empty());
        }
        assert_eq!(taken, [(1_000, 2_000)], "once there was a place, and once");
        assert_eq!(fetch(&first), Some(Answer::Taken));
        assert!(matches!(fetch(&second), Some(Answer::Refused(why)) if why.contains("nobody")));
        assert_eq!(fetch(&first), None, "it was fetched");
        for (name, says) in [("3.order", "cannot be read"), ("4.order", "too long")] {
            let Some(Answer::Refused(why)) = fetch(&folder.join(name)) else { panic!("{name}") };
            assert!(why.contains(says), "{why}");
        }
        assert_eq!(std::fs::read_dir(&folder).expect("it is there").count(), 1, "what is not ours stays");
    }
}
