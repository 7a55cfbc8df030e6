//! The client: what all operations share, and the operations on streams and fragments.

use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use kvs::api::{
    ApiName, CreateStreamInput, CreateStreamOutput, DeleteStreamInput, DescribeStreamOutput, Fragment,
    FragmentSelector, GetClipInput, GetDataEndpointInput, GetDataEndpointOutput,
    GetHlsStreamingSessionUrlInput, GetHlsStreamingSessionUrlOutput, GetImagesInput, GetImagesOutput,
    GetMediaForFragmentListInput, GetMediaInput, ListFragmentsInput, ListFragmentsOutput, ListStreamsInput,
    ListStreamsOutput, RetentionOperation, StartSelector, StreamId, StreamInfo, UpdateDataRetentionInput,
};
use serde::Deserialize;
use tokio_rustls::TlsConnector;

use crate::config::{Config, ConfigError};
use crate::credentials::CredentialsCache;
use crate::endpoint::{Endpoint, EndpointCache};
use crate::error::{Action, Error, ServiceErrorKind};
use crate::fragment_pages::FragmentPages;
use crate::image_pages::ImagePages;
use crate::media_stream::MediaStream;
use crate::operation::Operation;
use crate::service_time::{ServiceClock, ServiceTime};
use crate::tls;

/// A client of one region and one set of credentials. Clones share everything; so do all its cameras.
///
/// No call retries by itself: [`Error::action`] says what to do, and the caller owns the back-off.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    /// Bytes that are read at once; `None`: as many as the HTTP library thinks right.
    pub(crate) chunk_size: Option<usize>,
}

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) tls: Option<TlsConnector>,
    pub(crate) credentials: CredentialsCache,
    control: Endpoint,
    data_endpoints: EndpointCache,
    pub(crate) service_clock: ServiceClock,
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
        /// That it has.
        hours: u32,
    },
    /// It was less.
    Raised {
        /// What it was.
        from_hours: u32,
        /// What it is now.
        to_hours: u32,
    },
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
            service_clock: ServiceClock::default(),
        };
        Ok(Self { shared: Arc::new(shared), chunk_size: None })
    }

    /// The same client, whose connections read so many bytes at once. At least 8192 are taken, so that the head of an
    /// answer fits.
    #[must_use]
    pub fn with_chunk_size(&self, bytes: usize) -> Self {
        Self { shared: self.shared.clone(), chunk_size: Some(bytes.max(8_192)) }
    }

    /// The service's clock, as its answers tell it; `None` until the first one. This machine's wall clock can be judged
    /// by it.
    pub fn service_time(&self) -> Option<ServiceTime> {
        self.shared.service_clock.read(&self.shared.config.clock)
    }

    /// The time for signatures.
    pub(crate) fn now(&self) -> SystemTime {
        self.shared.service_clock.signing_time(&self.shared.config.clock)
    }

    /// Learns from the head of an answer that came just now to a request sent at `sent`.
    pub(crate) fn note_answer(&self, headers: &http::HeaderMap, sent: Instant) {
        self.shared.service_clock.note(headers, sent, &self.shared.config.clock);
    }

    /// The stream is there at once, and ACTIVE some seconds later (API_CreateStream).
    pub async fn create_stream(&self, input: &CreateStreamInput) -> Result<CreateStreamOutput, Error> {
        self.control_call(Operation::CreateStream, input).await
    }

    /// Its name, ARN, status, version and retention (API_DescribeStream); at most 5 calls a second for each stream.
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

    /// All rows, in no order: follows `NextToken` to the end. Give it a bounded time range, or take
    /// [`Self::fragment_pages`].
    ///
    /// Each page of up to 1000 rows counts as one of the 5 calls a second that a stream has.
    pub async fn list_all_fragments(
        &self,
        stream: &StreamId,
        selector: FragmentSelector,
    ) -> Result<Vec<Fragment>, Error> {
        let (mut pages, mut fragments) = (self.fragment_pages(stream, selector), Vec::new());
        while let Some(page) = pages.next_page().await? {
            fragments.extend(page);
        }
        Ok(fragments)
    }

    /// The rows of ListFragments page by page, for lists that are too long to be held.
    pub fn fragment_pages(&self, stream: &StreamId, selector: FragmentSelector) -> FragmentPages {
        FragmentPages::new(self.clone(), stream.clone(), selector)
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

    /// A range of time as one MP4 file, as it comes in: the first 100 MB or 200 fragments of those that begin in it.
    pub async fn get_clip(&self, input: &GetClipInput) -> Result<MediaStream, Error> {
        self.media_call(Operation::GetClip, &input.stream, input).await
    }

    /// A URL that plays what is archived, without a signature, until it expires: it is a secret, and never part of an
    /// error.
    pub async fn get_hls_streaming_session_url(
        &self,
        input: &GetHlsStreamingSessionUrlInput,
    ) -> Result<String, Error> {
        let operation = Operation::GetHlsStreamingSessionUrl;
        let output: GetHlsStreamingSessionUrlOutput = self.data_call(operation, &input.stream, input).await?;
        Ok(output.url)
    }

    /// Pictures of the stream at given times, as JPEG or PNG files: one page, of at most
    /// [`IMAGES_PER_ANSWER`](kvs::api::IMAGES_PER_ANSWER). [`Self::image_pages`] follows `NextToken` to the end.
    ///
    /// The service makes the pictures while this waits, so that the head of the answer may take three times
    /// [`Timeouts::head`](crate::Timeouts::head).
    pub async fn get_images(&self, input: &GetImagesInput) -> Result<GetImagesOutput, Error> {
        self.data_call(Operation::GetImages, &input.stream, input).await
    }

    /// The pictures of GetImages page by page, from where `input` begins.
    pub fn image_pages(&self, input: GetImagesInput) -> ImagePages {
        ImagePages::new(self.clone(), input)
    }

    /// Where lists of this stream are served, as far as known.
    pub(crate) fn archived_endpoint(&self, stream: &StreamId) -> Endpoint {
        let found = || {
            self.shared.data_endpoints.find(stream, ApiName::ListFragments, self.shared.config.clock.now())
        };
        self.shared
            .config
            .endpoints
            .archived
            .clone()
            .or_else(found)
            .unwrap_or_else(|| self.shared.control.clone())
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
        if let Some(endpoint) =
            self.shared.data_endpoints.find(stream, api_name, self.shared.config.clock.now())
        {
            return Ok(endpoint);
        }
        let endpoint =
            self.get_data_endpoint(&GetDataEndpointInput { stream: stream.clone(), api_name }).await?;
        self.shared.data_endpoints.keep(stream, api_name, endpoint.clone(), self.shared.config.clock.now());
        Ok(endpoint)
    }

    /// Draws the consequences of an error for the calls to come; see [`Action`].
    pub(crate) fn learn(&self, operation: Operation, stream: Option<&StreamId>, error: &Error) {
        // Whatever the reason of a 403, somebody may have replaced the keys since: looking costs little.
        if error.action() == Action::RefreshCredentials || matches!(error, Error::Service { status: 403, .. })
        {
            self.shared.credentials.forget();
        }
        let moved = error.action() == Action::RefreshEndpoint
            || matches!(error, Error::Tls { .. } | Error::UnknownOperation { .. })
            || matches!(error, Error::Timeout { what: "connection", .. });
        if let (true, Some(stream), Some(api_name)) = (moved, stream, operation.api_name()) {
            self.shared.data_endpoints.forget(stream, api_name);
        }
    }
}
