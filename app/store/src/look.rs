//! A look into the folder of a spool from outside, also while a daemon has it. Nothing in it is changed, but by [`repair`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use kvs::RunId;
use kvs::fragmenter::{FragmentSummary, StreamHeader};
use kvs::stamping::RunStamp;
use kvs::upload::Settled;

use crate::files::{Files, RealFiles};
use crate::finding::Finding;
use crate::record::{FragmentMeta, Meta, SegmentHead};
use crate::seal::Keys;
use crate::segment::{self, Found, Next, Scan};
use crate::spool::{self, OpenError};
use crate::{Options, gone, index, stamps};

/// What a spool holds.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    pub cameras: Vec<CheckedCamera>,
    pub findings: Vec<Finding>,
    /// A daemon has it now: what is being written at this moment is not judged.
    pub in_use: bool,
}

/// What a spool holds of one camera.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckedCamera {
    pub name: String,
    pub segments: usize,
    pub bytes: u64,
    pub fragments: usize,
    /// Of these, those that KVS does not have, as far as it is written down.
    pub waiting: usize,
    /// Set aside: KVS will never take them. They are exported like all others.
    pub refused: usize,
    /// Of all, those that were recorded without a clock and have no time yet.
    pub undated: usize,
    /// Producer time of the first block and of the last, in ms, of those that have one.
    pub from_ms: Option<u64>,
    pub to_ms: Option<u64>,
}

/// A fragment as it was recorded.
#[derive(Debug)]
pub struct Footage {
    pub header: StreamHeader,
    pub summary: FragmentSummary,
    /// Its Cluster element.
    pub cluster: Bytes,
}

/// Reads everything in the spool in `folder` and compares it with its sums.
pub fn check(folder: &Path, keys: &Keys) -> io::Result<Checked> {
    let mut checked = Checked { in_use: is_in_use(folder), ..Checked::default() };
    let (cameras, index) = (folder.join("cameras"), folder.join("index.sqlite"));
    for entry in RealFiles.list(&cameras)? {
        if !entry.is_folder {
            checked.findings.push(Finding::foreign(cameras.join(&entry.name)));
            continue;
        }
        let mut camera = CheckedCamera { name: entry.name.clone(), ..CheckedCamera::default() };
        let (mut waiting, mut refused) = (BTreeSet::new(), BTreeSet::new());
        let stamps = stamps_of(folder, &entry.name)?;
        let mut locked = BTreeSet::new();
        let findings = walk(&cameras.join(&entry.name), keys, checked.in_use, &mut |item| {
            match item {
                Item::Segment { bytes } => {
                    camera.segments += 1;
                    camera.bytes += bytes;
                }
                Item::Record { path, found } => match found.meta {
                    Meta::Fragment(meta) => {
                        let summary = &meta.end.summary;
                        if segment::body_at(&RealFiles, path, keys, found.offset)?.is_none() {
                            return Ok(Some(Finding::unreadable(path.to_owned(), summary.id, None)));
                        }
                        camera.fragments += 1;
                        if !meta.local {
                            waiting.insert(summary.id);
                        }
                        let Some((from, to)) = times(summary, &stamps) else {
                            camera.undated += 1;
                            return Ok(None);
                        };
                        camera.from_ms = Some(camera.from_ms.map_or(from, |before| before.min(from)));
                        camera.to_ms = camera.to_ms.max(Some(to));
                    }
                    Meta::Settlements(settled) => {
                        for (id, settled) in settled {
                            match settled {
                                Settled::Wanted => {
                                    waiting.insert(id);
                                }
                                Settled::Persisted(_) => {
                                    waiting.remove(&id);
                                    refused.remove(&id);
                                }
                                Settled::Refused => {
                                    waiting.remove(&id);
                                    refused.insert(id);
                                }
                            }
                        }
                    }
                    // Once for each of its files.
                    Meta::Locked(id) if locked.insert(path.to_owned()) => {
                        return Ok(Some(Finding::locked(path.to_owned(), id)));
                    }
                    Meta::Locked(_) | Meta::Stamps(_) | Meta::Unknown => {}
                },
            }
            Ok(None)
        })?;
        camera.waiting = waiting.difference(&index::settled(&index, &entry.name, &waiting)).count();
        camera.refused = refused.len();
        checked.cameras.push(camera);
        checked.findings.extend(findings);
    }
    if index.exists()
        && let Err(error) = index::check(&index)
    {
        checked.findings.push(Finding::index_damaged(index, &error));
    }
    Ok(checked)
}

/// What came of handing footage out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handed {
    /// What could not be read.
    pub findings: Vec<Finding>,
    /// Fragments that were recorded without a clock: nobody can say yet whether they are of the time that was asked for.
    pub undated: usize,
}

/// Hands out the fragments of a camera with a block from `from_ms` up to `to_ms`, in order of recording.
pub fn footage(
    folder: &Path,
    keys: &Keys,
    camera: &str,
    (from_ms, to_ms): (u64, u64),
    take: &mut dyn FnMut(Footage) -> io::Result<()>,
) -> io::Result<Handed> {
    let folder_of_camera = folder.join("cameras").join(camera);
    let stamps = stamps_of(folder, camera)?;
    let (mut seen, mut locked, mut undated) = (BTreeSet::new(), BTreeSet::new(), 0);
    let findings = walk(&folder_of_camera, keys, is_in_use(folder), &mut |item| {
        let Item::Record { path, found } = item else { return Ok(None) };
        if let Meta::Locked(id) = found.meta {
            return Ok(locked.insert(path.to_owned()).then(|| Finding::locked(path.to_owned(), id)));
        }
        let Meta::Fragment(meta) = found.meta else { return Ok(None) };
        let id = meta.end.summary.id;
        let Some((from, to)) = times(&meta.end.summary, &stamps) else {
            undated += usize::from(seen.insert(id));
            return Ok(None);
        };
        // One whose sync failed may have been written twice.
        if to < from_ms || from >= to_ms || !seen.insert(id) {
            return Ok(None);
        }
        let FragmentMeta { header, end, undated, .. } = *meta;
        let boot_ms = end.summary.timecode.as_millis();
        let body = segment::body_at(&RealFiles, path, keys, found.offset)?;
        let dated = match undated.zip(stamps.get(&id.run)) {
            Some((undated, stamp)) => stamp.end(&end, &undated.heads).and_then(|end| {
                let cluster = stamp.cluster(body.as_deref()?, boot_ms)?;
                Some((end.summary, cluster))
            }),
            None => body.map(|body| (end.summary, body)),
        };
        match dated {
            Some((summary, cluster)) => take(Footage { header, summary, cluster })?,
            None => return Ok(Some(Finding::unreadable(path.to_owned(), id, None))),
        }
        Ok(None)
    })?;
    Ok(Handed { findings, undated })
}

/// When a fragment begins and ends; `None`: it has no time yet.
fn times(summary: &FragmentSummary, stamps: &BTreeMap<RunId, RunStamp>) -> Option<(u64, u64)> {
    let (from, to) = (summary.timecode.as_millis(), summary.end().as_millis());
    if !summary.clock.is_boot() {
        return Some((from, to));
    }
    let stamp = stamps.get(&summary.id.run)?;
    Some((stamp.utc_ms(from), stamp.utc_ms(to)))
}

/// The times of what a camera recorded without a clock.
fn stamps_of(folder: &Path, camera: &str) -> io::Result<BTreeMap<RunId, RunStamp>> {
    let found = stamps::read(&RealFiles, &folder.join("stamps").join(camera))?;
    Ok(found.into_iter().flat_map(|file| file.stamps).map(|stamp| (stamp.run, stamp)).collect())
}

/// Cuts off what was never finished and makes the index anew, as a start does where it has to. Nobody else may have the spool.
pub fn repair(folder: &Path, key_file: Option<PathBuf>) -> Result<Vec<Finding>, OpenError> {
    let options = Options { bytes: u64::MAX, key_file, ..Options::new(folder, u64::MAX, 1) };
    spool::repair(&options)
}

enum Item<'a> {
    Segment { bytes: u64 },
    Record { path: &'a Path, found: Found },
}

/// Goes through all segments of a camera, and returns what is wrong with them.
fn walk(
    folder: &Path,
    keys: &Keys,
    in_use: bool,
    visit: &mut dyn FnMut(Item<'_>) -> io::Result<Option<Finding>>,
) -> io::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut segments = Vec::new();
    for entry in RealFiles.list(folder)? {
        if gone::number_of(&entry.name).is_some() {
            continue;
        }
        match segment::number_of(&entry.name).filter(|_| !entry.is_folder) {
            Some(_) => segments.push((folder.join(&entry.name), entry.bytes)),
            None => findings.push(Finding::foreign(folder.join(&entry.name))),
        }
    }
    let newest = segments.last().map(|(path, _)| path.clone());
    for (path, bytes) in segments {
        let grows = in_use && newest.as_ref() == Some(&path);
        match walk_segment((&path, bytes), keys, grows, &mut findings, visit) {
            // It had to make room meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    Ok(findings)
}

fn walk_segment(
    (path, bytes): (&PathBuf, u64),
    keys: &Keys,
    grows: bool,
    findings: &mut Vec<Finding>,
    visit: &mut dyn FnMut(Item<'_>) -> io::Result<Option<Finding>>,
) -> io::Result<()> {
    match segment::head_of(&RealFiles, path)? {
        SegmentHead::Number(_) => {}
        SegmentHead::Version(version) => {
            findings.push(Finding::later_segment(path.clone(), version));
            return Ok(());
        }
        SegmentHead::Damaged if grows => return Ok(()),
        SegmentHead::Damaged => {
            findings.push(Finding::no_segment(path.clone()));
            return Ok(());
        }
    }
    findings.extend(visit(Item::Segment { bytes })?);
    let mut scan = Scan::new(&RealFiles, path, keys, bytes, 0);
    loop {
        match scan.next()? {
            Next::Record(found) => {
                let is_last = scan.offset >= bytes;
                let finding = visit(Item::Record { path, found })?;
                findings.extend(finding.filter(|_| !(grows && is_last)));
            }
            Next::Damaged { from, to } => findings.push(Finding::damaged(path.clone(), from, to)),
            Next::Torn { .. } if grows => {}
            Next::Torn { from } => findings.push(Finding::torn(path.clone(), from, bytes)),
            Next::End => return Ok(()),
        }
    }
}

fn is_in_use(folder: &Path) -> bool {
    let Ok(lock) = File::open(folder.join("lock")) else { return false };
    matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock))
}
