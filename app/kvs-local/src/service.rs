//! All streams of one server, and what every operation shares.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use kvs::api::{StreamId, StreamStatus, path};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::errors::ServiceError;
use crate::faults::Faults;
use crate::options::Options;
use crate::rate::Bucket;
use crate::session::Sessions;
use crate::store::{Disk, StoreError, StreamRecord};
use crate::stream::{Stream, blocking};

pub(crate) struct Service {
    pub(crate) options: Options,
    pub(crate) faults: Faults,
    pub(crate) disk: Arc<Disk>,
    /// Known once the socket is bound.
    pub(crate) endpoint: OnceLock<String>,
    /// Fires when the server stops: finish what is under way.
    pub(crate) stopping: CancellationToken,
    /// Fires when it must be over, finished or not.
    pub(crate) abort: CancellationToken,
    pub(crate) tasks: TaskTracker,
    pub(crate) sessions: Sessions,
    /// Held while pictures are decoded, so that many requests do not make many pipelines.
    #[cfg(feature = "images")]
    pub(crate) developing: tokio::sync::Mutex<()>,
    streams: Mutex<BTreeMap<String, Arc<Stream>>>,
    creating: tokio::sync::Mutex<()>,
    calls: Mutex<Calls>,
}

#[derive(Default)]
struct Calls {
    ever: BTreeMap<&'static str, u64>,
    /// By operation and stream, or no stream for those of the whole account.
    rates: HashMap<(&'static str, String), Bucket>,
}

impl Service {
    pub(crate) async fn open(options: Options) -> Result<Self, StoreError> {
        let (root, limit) = (options.data.clone(), options.disk_limit_bytes);
        let (disk, found) = blocking(move || Disk::open(&root, limit)).await?;
        let disk = Arc::new(disk);
        let streams = found
            .into_iter()
            .map(|found| Arc::new(Stream::new(disk.clone(), found, &options, Duration::ZERO)))
            .map(|stream| (stream.name.clone(), stream))
            .collect();
        let service = Self {
            faults: Faults::default(),
            disk,
            endpoint: OnceLock::new(),
            stopping: CancellationToken::new(),
            abort: CancellationToken::new(),
            tasks: TaskTracker::new(),
            sessions: Sessions::default(),
            #[cfg(feature = "images")]
            developing: tokio::sync::Mutex::default(),
            streams: Mutex::new(streams),
            creating: tokio::sync::Mutex::default(),
            calls: Mutex::default(),
            options,
        };
        for (name, retention_hours) in service.options.create_streams.clone() {
            if service.find(&name).is_none() {
                let record = service.new_record(&name, retention_hours);
                service.create(record, Duration::ZERO).await?;
            }
        }
        service.expire_all().await;
        Ok(service)
    }

    fn streams(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Stream>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.options.clock.wall_ms()
    }

    pub(crate) fn now(&self) -> Instant {
        self.options.clock.now()
    }

    pub(crate) fn endpoint(&self) -> &str {
        self.endpoint.get().map_or("", String::as_str)
    }

    pub(crate) fn new_record(&self, name: &str, retention_hours: u32) -> StreamRecord {
        let created_ms = self.now_ms();
        let (region, account) = (&self.options.region, &self.options.account);
        StreamRecord {
            name: name.to_owned(),
            arn: format!("arn:aws:kinesisvideo:{region}:{account}:stream/{name}/{created_ms:013}"),
            created_ms,
            version: new_version(),
            device_name: None,
            media_type: None,
            kms_key_id: None,
            retention_hours,
            tags: BTreeMap::new(),
            next_sequence: 1,
        }
    }

    /// `Ok(None)`: there is a stream of that name.
    pub(crate) async fn create(
        &self,
        record: StreamRecord,
        delay: Duration,
    ) -> Result<Option<Arc<Stream>>, StoreError> {
        let _creating = self.creating.lock().await;
        if self.find(&record.name).is_some() {
            return Ok(None);
        }
        let (disk, options) = (self.disk.clone(), self.options.clone());
        let stream = blocking(move || Stream::create(disk, record, &options, delay)).await?;
        let stream = Arc::new(stream);
        self.streams().insert(stream.name.clone(), stream.clone());
        Ok(Some(stream))
    }

    pub(crate) async fn delete(&self, stream: &Arc<Stream>) -> Result<(), StoreError> {
        let _creating = self.creating.lock().await;
        let removed = self.streams().remove(&stream.name);
        match removed {
            Some(stream) => stream.delete().await,
            None => Ok(()),
        }
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<Stream>> {
        self.streams().get(name).cloned()
    }

    /// In order of their names.
    pub(crate) fn all(&self) -> Vec<Arc<Stream>> {
        self.streams().values().cloned().collect()
    }

    /// By name or ARN, whatever its status.
    pub(crate) fn stream(&self, id: &StreamId) -> Result<Arc<Stream>, ServiceError> {
        match (&id.stream_name, &id.stream_arn) {
            (Some(name), None) => self.find(name).ok_or_else(|| ServiceError::stream_not_found(name)),
            (None, Some(arn)) => self
                .all()
                .into_iter()
                .find(|stream| stream.arn == *arn)
                .ok_or_else(|| ServiceError::stream_not_found(arn)),
            _ => Err(ServiceError::invalid_argument(
                "Either streamName or streamARN must be specified, not both.",
            )),
        }
    }

    /// The same, and ACTIVE.
    pub(crate) fn active_stream(&self, id: &StreamId) -> Result<Arc<Stream>, ServiceError> {
        let stream = self.stream(id)?;
        match stream.status() {
            StreamStatus::Active | StreamStatus::Updating => Ok(stream),
            _ => Err(ServiceError::stream_not_found(&stream.name)),
        }
    }

    pub(crate) async fn expire_all(&self) {
        for stream in self.all() {
            stream.expire(&self.options.limits, self.now_ms()).await;
        }
    }

    /// Counts a call; an error if it is one too many for the stream (none: an empty name) or for the account.
    pub(crate) fn count_call(&self, path: &'static str, stream: &str) -> Result<(), ServiceError> {
        let limits = &self.options.limits;
        let of_stream = match path {
            path::GET_HLS_STREAMING_SESSION_URL | path::GET_DASH_STREAMING_SESSION_URL => {
                limits.session_urls_per_second
            }
            _ => limits.calls_per_second.filter(|_| !stream.is_empty()),
        };
        let of_account = match path {
            path::PUT_MEDIA
            | path::GET_MEDIA
            | path::LIST_FRAGMENTS
            | path::GET_MEDIA_FOR_FRAGMENT_LIST
            | path::GET_HLS_STREAMING_SESSION_URL
            | path::GET_DASH_STREAMING_SESSION_URL
            | path::GET_CLIP
            | path::GET_IMAGES => None,
            path::DESCRIBE_STREAM | path::GET_DATA_ENDPOINT => limits.account_lookups_per_second,
            _ => limits.account_calls_per_second,
        };
        let now = self.now();
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        *calls.ever.entry(path).or_default() += 1;
        for (limit, whose, of) in [(of_stream, stream, "stream"), (of_account, "", "account")] {
            let Some(limit) = limit else { continue };
            let rate = calls.rates.entry((path, whose.to_owned()));
            if !rate.or_insert_with(|| Bucket::new(limit.into(), now)).take(1, now) {
                return Err(ServiceError::client_limit(&format!(
                    "{limit} calls of {path} per second and {of}"
                )));
            }
        }
        Ok(())
    }

    /// Counts a request of a player.
    pub(crate) fn count_fetch(&self, path: &'static str) {
        *self.calls.lock().unwrap_or_else(PoisonError::into_inner).ever.entry(path).or_default() += 1;
    }

    /// Path of each operation and how often it was called with a good signature or session token.
    pub(crate) fn calls(&self) -> BTreeMap<&'static str, u64> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).ever.clone()
    }
}

/// 20 alphanumerics.
pub(crate) fn new_version() -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    (0..20).map(|_| char::from(LETTERS[rand::random_range(0..LETTERS.len())])).collect()
}
