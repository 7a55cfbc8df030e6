//! Streams and fragments on disk, so that what was acknowledged survives a crash.
//!
//! ```text
//! DATA/HASH-NAME/stream.json             the stream's description
//! DATA/HASH-NAME/fragments/NUMBER        one fragment, see `write_fragment`
//! DATA/HASH-NAME/fragments/.tmp-NUMBER   half written; removed at start
//! DATA/.deleted-*                        streams being removed; removed at start
//! DATA/lock                              locked by the server that runs; empty
//! ```
//! A file gets its final name only after its bytes are on the disk, and counts only after its folder is.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use kvs::FragmentNumber;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::folder_lock::FolderLock;
use crate::sigv4::to_hex;

const MAGIC: &[u8; 8] = b"KVSFRAG1";
/// The description of a fragment is about 300 bytes.
const MAX_META_BYTES: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("disk full: {used} bytes of fragments, {wanted} more wanted, the limit is {limit}")]
    Full { used: u64, wanted: u64, limit: u64 },
    #[error("{}: in use by another server", path.display())]
    InUse { path: PathBuf },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl StoreError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Full { .. } => true,
            Self::InUse { .. } => false,
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
        }
    }
}

/// A stream as it is described on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StreamRecord {
    pub(crate) name: String,
    pub(crate) arn: String,
    pub(crate) created_ms: u64,
    pub(crate) version: String,
    pub(crate) device_name: Option<String>,
    pub(crate) media_type: Option<String>,
    pub(crate) kms_key_id: Option<String>,
    pub(crate) retention_hours: u32,
    pub(crate) tags: BTreeMap<String, String>,
    /// Sequence numbers below are used or reserved by a session.
    pub(crate) next_sequence: u64,
}

/// A stored fragment without its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FragmentMeta {
    #[serde(with = "number_text")]
    pub(crate) number: FragmentNumber,
    pub(crate) producer_ms: u64,
    /// As in the cluster.
    pub(crate) timecode: u64,
    pub(crate) length_ms: u64,
    pub(crate) blocks: u64,
    /// Sizes of the four parts, in this order.
    pub(crate) header_bytes: u64,
    pub(crate) lead_bytes: u64,
    pub(crate) cluster_bytes: u64,
    pub(crate) trailer_bytes: u64,
}

impl FragmentMeta {
    pub(crate) fn server_ms(&self) -> u64 {
        self.number.server_time_ms()
    }

    /// Of everything that the producer sent.
    pub(crate) fn size_bytes(&self) -> u64 {
        [self.lead_bytes, self.cluster_bytes, self.trailer_bytes]
            .iter()
            .fold(self.header_bytes, |sum, part| sum.saturating_add(*part))
    }
}

mod number_text {
    use kvs::FragmentNumber;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        number: &FragmentNumber,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<FragmentNumber, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Where a fragment lies.
#[derive(Clone, Debug)]
pub(crate) struct FragmentFile {
    pub(crate) path: PathBuf,
    /// Of the first byte of the producer's header.
    pub(crate) offset: u64,
    pub(crate) file_bytes: u64,
}

/// The folder of all streams, and how full it is.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    limit_bytes: Option<u64>,
    used_bytes: AtomicU64,
    _lock: FolderLock,
}

/// A stream found at start.
#[derive(Debug)]
pub(crate) struct FoundStream {
    pub(crate) folder: PathBuf,
    pub(crate) record: StreamRecord,
    pub(crate) fragments: Vec<(FragmentMeta, FragmentFile)>,
}

impl Disk {
    /// Creates the folder if needed and locks it, removes what a crash left half done, and reads the rest.
    pub(crate) fn open(
        root: &Path,
        limit_bytes: Option<u64>,
    ) -> Result<(Self, Vec<FoundStream>), StoreError> {
        fs::create_dir_all(root).map_err(StoreError::io(root))?;
        let lock = FolderLock::take(root)
            .map_err(StoreError::io(root))?
            .ok_or_else(|| StoreError::InUse { path: root.to_owned() })?;
        let disk = Self { root: root.to_owned(), limit_bytes, used_bytes: AtomicU64::new(0), _lock: lock };
        let mut streams = Vec::new();
        for entry in fs::read_dir(root).map_err(StoreError::io(root))? {
            let entry = entry.map_err(StoreError::io(root))?;
            let path = entry.path();
            if entry.file_name().as_encoded_bytes().starts_with(b".deleted-") {
                fs::remove_dir_all(&path).map_err(StoreError::io(&path))?;
            } else if path.is_dir() {
                streams.extend(disk.open_stream(path)?);
            }
        }
        Ok((disk, streams))
    }

    fn open_stream(&self, folder: PathBuf) -> Result<Option<FoundStream>, StoreError> {
        let path = folder.join("stream.json");
        let record = match fs::read(&path) {
            Ok(text) => serde_json::from_slice::<StreamRecord>(&text).map_err(io::Error::other),
            Err(error) => Err(error),
        };
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "no readable stream here, left alone");
                return Ok(None);
            }
        };
        let fragments = folder.join("fragments");
        let mut found = Vec::new();
        for entry in fs::read_dir(&fragments).map_err(StoreError::io(&fragments))? {
            let path = entry.map_err(StoreError::io(&fragments))?.path();
            let half_written =
                path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b".tmp-"));
            if half_written {
                tracing::info!(path = %path.display(), "removed a half-written fragment");
                fs::remove_file(&path).map_err(StoreError::io(&path))?;
                continue;
            }
            match read_fragment_meta(&path) {
                Ok((meta, file)) => {
                    self.used_bytes.fetch_add(file.file_bytes, Ordering::Relaxed);
                    found.push((meta, file));
                }
                Err(error) => tracing::warn!(path = %path.display(), %error, "damaged fragment, left out"),
            }
        }
        Ok(Some(FoundStream { folder, record, fragments: found }))
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// The folder of a new stream, made and described durably.
    pub(crate) fn create_stream(&self, record: &StreamRecord) -> Result<PathBuf, StoreError> {
        // Names may be `..`, and longer than a file name can be.
        let hash = to_hex(&Sha256::digest(&record.name)[..8]);
        let start: String = record.name.chars().take(100).collect();
        let folder = self.root.join(format!("{hash}-{start}"));
        let fragments = folder.join("fragments");
        fs::create_dir_all(&fragments).map_err(StoreError::io(&fragments))?;
        save_record(&folder, record)?;
        sync_folder(&self.root)?;
        Ok(folder)
    }

    /// The data is unreachable at once, even if the process dies half way.
    pub(crate) fn delete_stream(&self, folder: &Path) -> Result<(), StoreError> {
        let grave = self.root.join(format!(".deleted-{:016x}", rand::random::<u64>()));
        fs::rename(folder, &grave).map_err(StoreError::io(folder))?;
        sync_folder(&self.root)?;
        let fragments = grave.join("fragments");
        let freed = fs::read_dir(&fragments)
            .map_err(StoreError::io(&fragments))?
            .flatten()
            .filter_map(|entry| entry.metadata().ok())
            .fold(0, |sum, metadata| sum + metadata.len());
        fs::remove_dir_all(&grave).map_err(StoreError::io(&grave))?;
        self.free(freed);
        Ok(())
    }

    /// Writes a fragment durably: magic, length of the description (4 bytes, big endian), the description as
    /// JSON, then header, lead, cluster and trailer as the producer sent them.
    pub(crate) fn write_fragment(
        &self,
        folder: &Path,
        meta: &FragmentMeta,
        parts: &[Bytes],
    ) -> Result<FragmentFile, StoreError> {
        let description = serde_json::to_vec(meta).expect("plain data serialises");
        let offset = (MAGIC.len() + 4 + description.len()) as u64;
        let file_bytes = offset + meta.size_bytes();
        self.reserve(file_bytes)?;
        let fragments = folder.join("fragments");
        let (path, temporary) =
            (fragments.join(meta.number.to_string()), fragments.join(format!(".tmp-{}", meta.number)));
        let length = u32::try_from(description.len()).expect("a description is short").to_be_bytes();
        let front = [MAGIC.as_slice(), &length, &description];
        let written = write_durably(&temporary, front.into_iter().chain(parts.iter().map(|part| &part[..])))
            .and_then(|()| fs::rename(&temporary, &path).map_err(StoreError::io(&path)))
            .and_then(|()| sync_folder(&fragments));
        if let Err(error) = written {
            // Whichever of the two is there; a fragment that got no PERSISTED ack must not come back.
            let _ = fs::remove_file(&temporary);
            let _ = fs::remove_file(&path);
            self.free(file_bytes);
            return Err(error);
        }
        Ok(FragmentFile { path, offset, file_bytes })
    }

    /// A file that is gone already is fine.
    pub(crate) fn remove_fragment(&self, file: &FragmentFile) {
        match fs::remove_file(&file.path) {
            Ok(()) => self.free(file.file_bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %file.path.display(), %error, "fragment not removed"),
        }
    }

    fn reserve(&self, wanted: u64) -> Result<(), StoreError> {
        let limit = self.limit_bytes.unwrap_or(u64::MAX);
        self.used_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(wanted).filter(|sum| *sum <= limit)
            })
            .map(|_| ())
            .map_err(|used| StoreError::Full { used, wanted, limit })
    }

    fn free(&self, bytes: u64) {
        let lower = |used: u64| Some(used.saturating_sub(bytes));
        let _ = self.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lower);
    }
}

/// Replaces the description of a stream: the old one or the new one is there, whatever happens.
pub(crate) fn save_record(folder: &Path, record: &StreamRecord) -> Result<(), StoreError> {
    let (path, temporary) = (folder.join("stream.json"), folder.join(".tmp-stream.json"));
    let text = serde_json::to_vec_pretty(record).expect("plain data serialises");
    write_durably(&temporary, [&text[..]])?;
    fs::rename(&temporary, &path).map_err(StoreError::io(&path))?;
    sync_folder(folder)
}

fn write_durably<'a>(path: &Path, parts: impl IntoIterator<Item = &'a [u8]>) -> Result<(), StoreError> {
    let write = || {
        let mut file = BufWriter::with_capacity(256 * 1024, File::create(path)?);
        parts.into_iter().try_for_each(|part| file.write_all(part))?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    };
    write().map_err(StoreError::io(path))
}

fn sync_folder(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(StoreError::io(path))
}

fn read_fragment_meta(path: &Path) -> io::Result<(FragmentMeta, FragmentFile)> {
    let mut file = File::open(path)?;
    let mut front = [0; 12];
    file.read_exact(&mut front)?;
    let (magic, length) = front.split_at(MAGIC.len());
    let length = length.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
    if magic != MAGIC || length > MAX_META_BYTES {
        return Err(io::Error::other("not a fragment file"));
    }
    let mut description = vec![0; length];
    file.read_exact(&mut description)?;
    let meta: FragmentMeta = serde_json::from_slice(&description).map_err(io::Error::other)?;
    let offset = (front.len() + length) as u64;
    let (found, expected) = (file.metadata()?.len(), offset.saturating_add(meta.size_bytes()));
    if found != expected {
        return Err(io::Error::other(format!("{found} bytes found, {expected} expected")));
    }
    Ok((meta, FragmentFile { path: path.to_owned(), offset, file_bytes: found }))
}
