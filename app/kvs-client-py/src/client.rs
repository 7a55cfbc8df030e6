//! The operations that consumers call before they read.

use kvs_client::kvs::api::{
    ApiName, FragmentSelector, FragmentSelectorType, GetDataEndpointInput, GetMediaForFragmentListInput,
    StartSelector, StartSelectorType, StreamId, TimestampRange,
};
use kvs_client::{Config, Endpoint, FragmentStream, static_credentials};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use tokio::runtime::Runtime;

use crate::KVSConnectionError;
use crate::reader::MediaReader;
use crate::wait::{runtime, wait};

/// A client of one region. Threads may share it.
#[pyclass(frozen, module = "kvs_client._native")]
pub(crate) struct Client {
    client: kvs_client::Client,
}

pub(crate) type Keys = (String, String, Option<String>);

/// One row of ListFragments: number, size in bytes, producer and server time in Unix seconds, length in ms.
type Row = (String, u64, f64, f64, u64);

#[pymethods]
impl Client {
    /// `endpoint_url`: of all planes, such as that of a server of one's own. `keys`: id, secret, session token; without
    /// them they come from where AWS programs look for them.
    #[new]
    #[pyo3(signature = (region, endpoint_url=None, keys=None))]
    fn new(
        py: Python<'_>,
        region: String,
        endpoint_url: Option<String>,
        keys: Option<Keys>,
    ) -> PyResult<Self> {
        Ok(Self { client: open(py, &region, endpoint_url.as_deref(), keys)? })
    }

    /// Where an operation on a stream is served; `api_name` such as GET_MEDIA.
    fn get_data_endpoint(&self, py: Python<'_>, stream: &str, api_name: &str) -> PyResult<String> {
        let input = GetDataEndpointInput { stream: stream_id(stream), api_name: api(api_name)? };
        let endpoint = self.call(py, &input.stream, self.client.get_data_endpoint(&input))?;
        Ok(endpoint.to_string())
    }

    /// Reads from a start selector on, as the service names and describes them.
    #[pyo3(signature = (stream, kind, after_fragment_number=None, start_timestamp=None, continuation_token=None))]
    fn get_media(
        &self,
        py: Python<'_>,
        stream: &str,
        kind: &str,
        after_fragment_number: Option<String>,
        start_timestamp: Option<f64>,
        continuation_token: Option<String>,
    ) -> PyResult<MediaReader> {
        let start_selector_type = selector_type(kind)?;
        let start =
            StartSelector { start_selector_type, after_fragment_number, start_timestamp, continuation_token };
        let (runtime, stream) = (runtime()?, stream_id(stream));
        let answer = self.call_on(py, &runtime, &stream, self.client.get_media(&stream, start))?;
        Ok(MediaReader::new(runtime, FragmentStream::new(answer)))
    }

    /// The given fragments, 1 to 1000 numbers.
    fn get_media_for_fragment_list(
        &self,
        py: Python<'_>,
        stream: &str,
        fragments: Vec<String>,
    ) -> PyResult<MediaReader> {
        let (runtime, stream) = (runtime()?, stream_id(stream));
        let input = GetMediaForFragmentListInput { stream: stream.clone(), fragments };
        let answer = self.call_on(py, &runtime, &stream, self.client.get_media_for_fragment_list(&input))?;
        Ok(MediaReader::new(runtime, FragmentStream::new(answer)))
    }

    /// All rows of a range of time, both ends included, in no order.
    fn list_fragments(
        &self,
        py: Python<'_>,
        stream: &str,
        by_server_time: bool,
        start: f64,
        end: f64,
    ) -> PyResult<Vec<Row>> {
        let stream = stream_id(stream);
        let selector = FragmentSelector {
            fragment_selector_type: if by_server_time {
                FragmentSelectorType::ServerTimestamp
            } else {
                FragmentSelectorType::ProducerTimestamp
            },
            timestamp_range: TimestampRange { start_timestamp: start, end_timestamp: end },
        };
        let rows = self.call(py, &stream, self.client.list_all_fragments(&stream, selector))?;
        let row = |row: kvs_client::kvs::api::Fragment| {
            (
                row.fragment_number,
                row.fragment_size_in_bytes,
                row.producer_timestamp,
                row.server_timestamp,
                row.fragment_length_in_milliseconds,
            )
        };
        Ok(rows.into_iter().map(row).collect())
    }
}

impl Client {
    fn call<T: Send>(
        &self,
        py: Python<'_>,
        stream: &StreamId,
        call: impl Future<Output = Result<T, kvs_client::Error>> + Send,
    ) -> PyResult<T> {
        self.call_on(py, &runtime()?, stream, call)
    }

    fn call_on<T: Send>(
        &self,
        py: Python<'_>,
        runtime: &Runtime,
        stream: &StreamId,
        call: impl Future<Output = Result<T, kvs_client::Error>> + Send,
    ) -> PyResult<T> {
        wait(py, runtime, call)?.map_err(|error| refused(&self.client, stream, &error))
    }
}

pub(crate) fn refused(client: &kvs_client::Client, stream: &StreamId, error: &kvs_client::Error) -> PyErr {
    let advice = error.advice(client, Some(stream));
    let advice = advice.map(|advice| format!("; {advice}")).unwrap_or_default();
    KVSConnectionError::new_err(format!("{}{advice}", health::chain(error)))
}

pub(crate) fn open(
    py: Python<'_>,
    region: &str,
    endpoint_url: Option<&str>,
    keys: Option<Keys>,
) -> PyResult<kvs_client::Client> {
    let credentials = match keys {
        Some((id, secret, token)) => static_credentials(id, secret, token),
        None => wait(py, &runtime()?, kvs_client::default_credentials(region))?,
    };
    let mut config = Config::new(region, credentials);
    config.user_agent = concat!("kvs-client-py/", env!("CARGO_PKG_VERSION")).to_owned();
    if let Some(url) = endpoint_url {
        let url = url.trim_end_matches('/');
        let endpoint: Endpoint = url
            .parse()
            .map_err(|error: kvs_client::EndpointError| PyValueError::new_err(error.to_string()))?;
        config.endpoints.control = Some(endpoint);
    }
    // Reads the system's certificates.
    py.detach(|| kvs_client::Client::new(config))
        .map_err(|error| PyValueError::new_err(health::chain(&error)))
}

/// By name, or by ARN where it is one.
pub(crate) fn stream_id(stream: &str) -> StreamId {
    if stream.starts_with("arn:") { StreamId::arn(stream) } else { StreamId::name(stream) }
}

fn api(name: &str) -> PyResult<ApiName> {
    Ok(match name {
        "PUT_MEDIA" => ApiName::PutMedia,
        "GET_MEDIA" => ApiName::GetMedia,
        "LIST_FRAGMENTS" => ApiName::ListFragments,
        "GET_MEDIA_FOR_FRAGMENT_LIST" => ApiName::GetMediaForFragmentList,
        "GET_HLS_STREAMING_SESSION_URL" => ApiName::GetHlsStreamingSessionUrl,
        "GET_DASH_STREAMING_SESSION_URL" => ApiName::GetDashStreamingSessionUrl,
        "GET_CLIP" => ApiName::GetClip,
        "GET_IMAGES" => ApiName::GetImages,
        found => {
            return Err(PyValueError::new_err(format!(
                "APIName `{found}`: expected one of the service's, such as GET_MEDIA"
            )));
        }
    })
}

pub(crate) fn selector_type(name: &str) -> PyResult<StartSelectorType> {
    Ok(match name {
        "NOW" => StartSelectorType::Now,
        "EARLIEST" => StartSelectorType::Earliest,
        "FRAGMENT_NUMBER" => StartSelectorType::FragmentNumber,
        "SERVER_TIMESTAMP" => StartSelectorType::ServerTimestamp,
        "PRODUCER_TIMESTAMP" => StartSelectorType::ProducerTimestamp,
        "CONTINUATION_TOKEN" => StartSelectorType::ContinuationToken,
        found => {
            return Err(PyValueError::new_err(format!(
                "start selector `{found}`: expected NOW, EARLIEST, FRAGMENT_NUMBER, SERVER_TIMESTAMP, \
                 PRODUCER_TIMESTAMP or CONTINUATION_TOKEN"
            )));
        }
    })
}
