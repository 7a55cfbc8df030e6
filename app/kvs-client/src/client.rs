//! The client: what all operations share, and the operations on streams and fragments.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use kvs::api::{
    CreateStreamInput, CreateStreamOutput, DeleteStreamInput, DescribeStreamOutput, Fragment,
    FragmentSelector, GetDataEndpointInput, GetDataEndpointOutput, GetMediaForFragmentListInput,
    GetMediaInput, ListFragmentsInput, ListFragmentsOutput, ListStreamsInput, ListStreamsOutput,
    RetentionOperation, StartSelector, StreamId, StreamInfo, UpdateDataRetentionInput,
};
use serde::Deserialize;
use tokio_rustls::TlsConnector;

use crate::config::{Config, ConfigError};
use crate::credentials::CredentialsCache;
use crate::endpoint::{Endpoint, EndpointCache};
use crate::error::{Action, Error, ServiceErrorKind};
use crate::media_stream::MediaStream;
use crate::operation::Operation;
use crate::tls;

/// A client of one region and one set of credentials. Clones share everything; so do all its cameras.
///
/// No call retries by itself: [`Error::action`] says what to do, and the caller owns the back-off.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) tls: Option<TlsConnector>,
    pub(crate) credentials: CredentialsCache,
    control: Endpoint,
    data_endpoints: EndpointCache,
    /// The service's clock minus ours; 0 until the service refused a signature for its time.
    clock_offset_ms: AtomicI64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("config", &self.config)
            .field("control", &self.control)
            .finish_non_exhaustive()
    }
}

/// What [`Client::ensure_retention`] found and did, in hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// It was enough already.
    Kept {
        hours: u32,
    },
    Raised {
        from_hours: u32,
        to_hours: u32,
    },
}

/// The rows of several ListFragments pages, in no order.
#[derive(Clone, Debug, PartialEq)]
pub struct FragmentListing {
    pub fragments: Vec<Fragment>,
    /// Whether there are more than were asked for.
    pub truncated: bool,
}

/// UpdateDataRetention and DeleteStream answer with an object that says nothing.
#[derive(Deserialize)]
struct Empty {}

impl Client {
    /// Reads the system's certificates (blocking, some milliseconds) unless every endpoint is `http://`.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let default_control = Endpoint::control(&config.region)?; // checks the region in any case
        let control = config.endpoints.control.clone().unwrap_or(default_control);
        let overrides = [&config.endpoints.media, &config.endpoints.archived];
        let wants_tls = control.is_tls() || overrides.into_iter().flatten().any(Endpoint::is_tls);
        let tls =
            wants_tls.then(|| tls::connector(config.extra_ca_pem.as_deref().map(Path::new))).transpose()?;
        let credentials = CredentialsCache::new(config.credentials.clone(), config.timeouts.credentials);
        let shared = Shared {
            config,
            tls,
            credentials,
            control,
            data_endpoints: EndpointCache::default(),
            clock_offset_ms: AtomicI64::new(0),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The service's clock minus ours in ms, as learnt from refused signatures; 0 as long as none was.
    pub fn clock_offset_ms(&self) -> i64 {
        self.shared.clock_offset_ms.load(Ordering::Relaxed)
    }

    /// The service's time as far as known: the time for signatures.
    pub(crate) fn now(&self) -> SystemTime {
        let (now, offset_ms) = (self.shared.config.clock.now(), self.clock_offset_ms());
        let offset = Duration::from_millis(offset_ms.unsigned_abs());
        let shifted = if offset_ms < 0 { now.checked_sub(offset) } else { now.checked_add(offset) };
        shifted.unwrap_or(now)
    }

    pub async fn create_stream(&self, input: &CreateStreamInput) -> Result<CreateStreamOutput, Error> {
        self.control_call(Operation::CreateStream, input).await
    }

    pub async fn describe_stream(&self, stream: &StreamId) -> Result<StreamInfo, Error> {
        let output: DescribeStreamOutput = self.control_call(Operation::DescribeStream, stream).await?;
        Ok(output.stream_info)
    }

    /// One page.
    pub async fn list_streams(&self, input: &ListStreamsInput) -> Result<ListStreamsOutput, Error> {
        self.control_call(Operation::ListStreams, input).await
    }

    /// All recordings of the stream are unreadable at once.
    pub async fn delete_stream(&self, input: &DeleteStreamInput) -> Result<(), Error> {
        self.control_call::<_, Empty>(Operation::DeleteStream, input).await.map(drop)
    }

    /// Changes the retention by a difference; lowering it drops old recordings at once.
    /// [`Self::ensure_retention`] takes a target instead.
    pub async fn update_data_retention(&self, input: &UpdateDataRetentionInput) -> Result<(), Error> {
        self.control_call::<_, Empty>(Operation::UpdateDataRetention, input).await.map(drop)
    }

    /// Raises the retention to `target_hours` where it is lower. It never lowers it, since that drops
    /// recordings. (The AWS producer SDK sets it at creation only.)
    pub async fn ensure_retention(&self, stream: &StreamId, target_hours: u32) -> Result<Retention, Error> {
        const ATTEMPTS: u32 = 3; // somebody else may change the stream between our two calls
        for attempt in 1.. {
            let info = self.describe_stream(stream).await?;
            let hours = info.data_retention_in_hours;
            if hours >= target_hours {
                return Ok(Retention::Kept { hours });
            }
            let input = UpdateDataRetentionInput {
                stream: stream.clone(),
                current_version: info.version,
                operation: RetentionOperation::IncreaseDataRetention,
                data_retention_change_in_hours: target_hours - hours,
            };
            match self.update_data_retention(&input).await {
                Ok(()) => return Ok(Retention::Raised { from_hours: hours, to_hours: target_hours }),
                Err(error)
                    if error.service_kind() == Some(&ServiceErrorKind::VersionMismatch)
                        && attempt < ATTEMPTS => {}
                Err(error) => return Err(error),
            }
        }
        unreachable!("the loop ends by returning")
    }

    /// Asks the service where an operation on a stream is served. The other calls do this by themselves and
    /// keep the answer for 40 min.
    pub async fn get_data_endpoint(&self, input: &GetDataEndpointInput) -> Result<Endpoint, Error> {
        let operation = Operation::GetDataEndpoint;
        let output: GetDataEndpointOutput = self.control_call(operation, input).await?;
        let bad = |what| Error::BadResponse {
            operation,
            endpoint: self.shared.control.clone(),
            what,
            request_id: None,
        };
        let endpoint: Endpoint =
            output.data_endpoint.parse().map_err(|e: crate::EndpointError| bad(e.to_string()))?;
        if self.shared.control.is_tls() && !endpoint.is_tls() {
            return Err(bad(format!(
                "data endpoint {endpoint} is without TLS, the control endpoint is with"
            )));
        }
        Ok(endpoint)
    }

    /// One page.
    pub async fn list_fragments(&self, input: &ListFragmentsInput) -> Result<ListFragmentsOutput, Error> {
        self.data_call(Operation::ListFragments, &input.stream, input).await
    }

    /// Follows `NextToken` until the end or until `limit` fragments are there.
    ///
    /// Each page of up to 1000 rows counts as one of the 5 calls a second that a stream has.
    pub async fn list_all_fragments(
        &self,
        stream: &StreamId,
        selector: FragmentSelector,
        limit: usize,
    ) -> Result<FragmentListing, Error> {
        const MAX_PAGE: usize = 1000; // KVS limits page
        const MAX_EMPTY_PAGES: u32 = 100; // pages may be empty; a service that sends nothing else is broken
        let (mut fragments, mut next_token, mut empty_pages) = (Vec::new(), None, 0);
        while fragments.len() < limit {
            let page = MAX_PAGE.min(limit - fragments.len());
            let input = ListFragmentsInput {
                stream: stream.clone(),
                max_results: u32::try_from(page).ok(),
                next_token,
                fragment_selector: Some(selector.clone()),
            };
            let output = self.list_fragments(&input).await?;
            empty_pages = if output.fragments.is_empty() { empty_pages + 1 } else { 0 };
            fragments.extend(output.fragments);
            next_token = output.next_token.filter(|token| !token.is_empty());
            if next_token.is_none() {
                return Ok(FragmentListing { fragments, truncated: false });
            }
            if empty_pages == MAX_EMPTY_PAGES {
                break;
            }
        }
        fragments.truncate(limit);
        Ok(FragmentListing { fragments, truncated: true })
    }

    /// Media of a stream from `start` on, as it comes in; one Matroska document per fragment.
    ///
    /// The answer ends without any mark: when the producer stops, and after 40 to 45 min anyway. A stream
    /// has three such connections: drop the old [`MediaStream`] before the next call.
    pub async fn get_media(&self, stream: &StreamId, start: StartSelector) -> Result<MediaStream, Error> {
        let input = GetMediaInput { stream: stream.clone(), start_selector: start };
        self.media_call(Operation::GetMedia, stream, &input).await
    }

    /// The given fragments, 1..=1000 numbers, one Matroska document each.
    pub async fn get_media_for_fragment_list(
        &self,
        input: &GetMediaForFragmentListInput,
    ) -> Result<MediaStream, Error> {
        let operation = Operation::GetMediaForFragmentList;
        let count = input.fragments.len();
        if !(1..=1000).contains(&count) {
            return Err(Error::BadRequest {
                operation,
                what: format!("{count} fragments, expected 1..=1000"),
            });
        }
        self.media_call(operation, &input.stream, input).await
    }

    pub(crate) fn control(&self) -> &Endpoint {
        &self.shared.control
    }

    /// The endpoint of a data operation: overridden, kept from before, or asked for.
    pub(crate) async fn data_endpoint(
        &self,
        operation: Operation,
        stream: &StreamId,
    ) -> Result<Endpoint, Error> {
        let endpoints = &self.shared.config.endpoints;
        let fixed = match operation {
            Operation::PutMedia | Operation::GetMedia => &endpoints.media,
            _ => &endpoints.archived,
        };
        if let Some(endpoint) = fixed {
            return Ok(endpoint.clone());
        }
        let api_name = operation.api_name().expect("only data operations get here, and each has a name");
        if let Some(endpoint) = self.shared.data_endpoints.find(stream, api_name, Instant::now()) {
            return Ok(endpoint);
        }
        let endpoint =
            self.get_data_endpoint(&GetDataEndpointInput { stream: stream.clone(), api_name }).await?;
        self.shared.data_endpoints.keep(stream, api_name, endpoint.clone(), Instant::now());
        Ok(endpoint)
    }

    /// Draws the consequences of an error for the calls to come; see [`Action`].
    pub(crate) fn learn(&self, operation: Operation, stream: Option<&StreamId>, error: &Error) {
        match error.action() {
            Action::RefreshCredentials => self.shared.credentials.forget(),
            Action::FixClock { server_time } => {
                let ours = self.shared.config.clock.now();
                let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
                let offset_ms = match server_time.duration_since(ours) {
                    Ok(ahead) => millis(ahead),
                    Err(behind) => -millis(behind.duration()),
                };
                self.shared.clock_offset_ms.store(offset_ms, Ordering::Relaxed);
            }
            _ => {}
        }
        let moved = error.action() == Action::RefreshEndpoint
            || matches!(error, Error::Tls { .. } | Error::UnknownOperation { .. })
            || matches!(error, Error::Timeout { what: "connection", .. });
        if let (true, Some(stream), Some(api_name)) = (moved, stream, operation.api_name()) {
            self.shared.data_endpoints.forget(stream, api_name);
        }
    }
}
