//! Bodies of the JSON operations, as the client writes and the server reads them, and the other way round.
//!
//! Names and rules after the service's public model, API version 2017-09-30. Every operation is a POST to its
//! path; times are epoch seconds with a fraction.

mod images;
mod playback;

pub use images::*;
pub use playback::*;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::FragmentNumber;

/// Signing name of the service, on all planes.
pub const SERVICE: &str = "kinesisvideo";

/// Paths are case sensitive; a wrong one is answered with 200 and an error body.
pub mod path {
    pub const CREATE_STREAM: &str = "/createStream";
    pub const DESCRIBE_STREAM: &str = "/describeStream";
    pub const LIST_STREAMS: &str = "/listStreams";
    pub const UPDATE_STREAM: &str = "/updateStream";
    pub const DELETE_STREAM: &str = "/deleteStream";
    pub const GET_DATA_ENDPOINT: &str = "/getDataEndpoint";
    pub const UPDATE_DATA_RETENTION: &str = "/updateDataRetention";
    pub const TAG_STREAM: &str = "/tagStream";
    pub const UNTAG_STREAM: &str = "/untagStream";
    pub const LIST_TAGS_FOR_STREAM: &str = "/listTagsForStream";
    pub const PUT_MEDIA: &str = "/putMedia";
    pub const GET_MEDIA: &str = "/getMedia";
    pub const LIST_FRAGMENTS: &str = "/listFragments";
    pub const GET_MEDIA_FOR_FRAGMENT_LIST: &str = "/getMediaForFragmentList";
    pub const GET_HLS_STREAMING_SESSION_URL: &str = "/getHLSStreamingSessionURL";
    pub const GET_DASH_STREAMING_SESSION_URL: &str = "/getDASHStreamingSessionURL";
    pub const GET_CLIP: &str = "/getClip";
    pub const GET_IMAGES: &str = "/getImages";
}

/// Request headers of PutMedia (API page; the acknowledgement one is not documented, all SDKs send it).
pub mod header {
    pub const STREAM_NAME: &str = "x-amzn-stream-name";
    pub const STREAM_ARN: &str = "x-amzn-stream-arn";
    /// `ABSOLUTE` or `RELATIVE`.
    pub const FRAGMENT_TIMECODE_TYPE: &str = "x-amzn-fragment-timecode-type";
    /// Epoch seconds with a fraction; wanted even for ABSOLUTE.
    pub const PRODUCER_START_TIMESTAMP: &str = "x-amzn-producer-start-timestamp";
    pub const FRAGMENT_ACKNOWLEDGMENT_REQUIRED: &str = "x-amzn-fragment-acknowledgment-required";
}

/// A stream by name or by ARN, never both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StreamId {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_name: Option<String>,
    #[serde(rename = "StreamARN", skip_serializing_if = "Option::is_none")]
    pub stream_arn: Option<String>,
}

impl StreamId {
    pub fn name(name: impl Into<String>) -> Self {
        Self { stream_name: Some(name.into()), stream_arn: None }
    }

    pub fn arn(arn: impl Into<String>) -> Self {
        Self { stream_name: None, stream_arn: Some(arn.into()) }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateStreamInput {
    /// 1..=256 characters of `[a-zA-Z0-9_.-]`.
    pub stream_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
    /// `video/h264`, `video/h265`, `video/h264,audio/aac`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
    /// 0: nothing is persisted. Else 1..=87600.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_retention_in_hours: Option<u32>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateStreamOutput {
    #[serde(rename = "StreamARN")]
    pub stream_arn: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum StreamStatus {
    Creating,
    Active,
    Updating,
    Deleting,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StreamInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
    pub stream_name: String,
    #[serde(rename = "StreamARN")]
    pub stream_arn: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
    /// 20 random alphanumerics; wanted back by every change.
    pub version: String,
    pub status: StreamStatus,
    /// Epoch seconds.
    pub creation_time: f64,
    pub data_retention_in_hours: u32,
}

/// DescribeStream takes a [`StreamId`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeStreamOutput {
    pub stream_info: StreamInfo,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListStreamsInput {
    /// 1..=10000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_results: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_name_condition: Option<StreamNameCondition>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StreamNameCondition {
    /// `BEGINS_WITH` is the only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison_operator: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison_value: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListStreamsOutput {
    pub stream_info_list: Vec<StreamInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateStreamInput {
    #[serde(flatten)]
    pub stream: StreamId,
    pub current_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteStreamInput {
    #[serde(flatten)]
    pub stream: StreamId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_version: Option<String>,
}

/// Data endpoints are handed out per stream and per operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ApiName {
    PutMedia,
    GetMedia,
    ListFragments,
    GetMediaForFragmentList,
    GetHlsStreamingSessionUrl,
    GetDashStreamingSessionUrl,
    GetClip,
    GetImages,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetDataEndpointInput {
    #[serde(flatten)]
    pub stream: StreamId,
    #[serde(rename = "APIName")]
    pub api_name: ApiName,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetDataEndpointOutput {
    pub data_endpoint: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RetentionOperation {
    IncreaseDataRetention,
    DecreaseDataRetention,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateDataRetentionInput {
    #[serde(flatten)]
    pub stream: StreamId,
    pub current_version: String,
    pub operation: RetentionOperation,
    /// A difference, not a target; >= 1.
    pub data_retention_change_in_hours: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TagStreamInput {
    #[serde(flatten)]
    pub stream: StreamId,
    pub tags: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UntagStreamInput {
    #[serde(flatten)]
    pub stream: StreamId,
    pub tag_key_list: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListTagsForStreamInput {
    #[serde(flatten)]
    pub stream: StreamId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListTagsForStreamOutput {
    pub tags: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// Where GetMedia begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StartSelectorType {
    /// The latest chunk.
    Now,
    Earliest,
    /// The first fragment after `after_fragment_number`.
    FragmentNumber,
    /// The fragment that contains, or is next at, `start_timestamp`.
    ServerTimestamp,
    /// See `ServerTimestamp`.
    ProducerTimestamp,
    /// After the chunk that carried the token.
    ContinuationToken,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StartSelector {
    pub start_selector_type: StartSelectorType,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_fragment_number: Option<String>,
    /// Epoch seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_timestamp: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continuation_token: Option<String>,
}

impl StartSelector {
    fn of(start_selector_type: StartSelectorType) -> Self {
        Self {
            start_selector_type,
            after_fragment_number: None,
            start_timestamp: None,
            continuation_token: None,
        }
    }

    pub fn now() -> Self {
        Self::of(StartSelectorType::Now)
    }

    pub fn earliest() -> Self {
        Self::of(StartSelectorType::Earliest)
    }

    pub fn after(number: FragmentNumber) -> Self {
        let after_fragment_number = Some(number.to_string());
        Self { after_fragment_number, ..Self::of(StartSelectorType::FragmentNumber) }
    }

    pub fn continuation(token: impl Into<String>) -> Self {
        Self { continuation_token: Some(token.into()), ..Self::of(StartSelectorType::ContinuationToken) }
    }

    pub fn server_timestamp_ms(ms: u64) -> Self {
        Self { start_timestamp: Some(seconds(ms)), ..Self::of(StartSelectorType::ServerTimestamp) }
    }

    pub fn producer_timestamp_ms(ms: u64) -> Self {
        Self { start_timestamp: Some(seconds(ms)), ..Self::of(StartSelectorType::ProducerTimestamp) }
    }
}

/// Milliseconds to the number that JSON bodies carry; exact to the millisecond until far beyond the year 9999.
#[expect(clippy::cast_precision_loss, reason = "2^53 ms is the year 287396")]
pub fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// The other way round; negative times and NaN become 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "float casts saturate")]
pub fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1000.0).round() as u64
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetMediaInput {
    #[serde(flatten)]
    pub stream: StreamId,
    pub start_selector: StartSelector,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FragmentSelectorType {
    ProducerTimestamp,
    ServerTimestamp,
}

/// Epoch seconds, both ends inclusive; a fragment counts by its start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TimestampRange {
    pub start_timestamp: f64,
    pub end_timestamp: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct FragmentSelector {
    pub fragment_selector_type: FragmentSelectorType,
    pub timestamp_range: TimestampRange,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListFragmentsInput {
    #[serde(flatten)]
    pub stream: StreamId,
    /// 1..=1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_results: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fragment_selector: Option<FragmentSelector>,
}

/// One row of ListFragments; rows come in no order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Fragment {
    pub fragment_number: String,
    pub fragment_size_in_bytes: u64,
    /// Epoch seconds.
    pub producer_timestamp: f64,
    /// Epoch seconds.
    pub server_timestamp: f64,
    pub fragment_length_in_milliseconds: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListFragmentsOutput {
    #[serde(default)]
    pub fragments: Vec<Fragment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetMediaForFragmentListInput {
    #[serde(flatten)]
    pub stream: StreamId,
    /// 1..=1000 numbers.
    pub fragments: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_the_names_of_the_service() {
        let text = |value: serde_json::Value| value.to_string();
        let input = GetMediaInput { stream: StreamId::name("cam1"), start_selector: StartSelector::now() };
        let body = text(serde_json::to_value(input).expect("plain data"));
        assert_eq!(body, r#"{"StartSelector":{"StartSelectorType":"NOW"},"StreamName":"cam1"}"#);

        let input = GetDataEndpointInput {
            stream: StreamId::arn("arn:x"),
            api_name: ApiName::GetHlsStreamingSessionUrl,
        };
        let body = text(serde_json::to_value(input).expect("plain data"));
        assert_eq!(body, r#"{"APIName":"GET_HLS_STREAMING_SESSION_URL","StreamARN":"arn:x"}"#);
    }

    #[test]
    fn times_survive_the_float_form_to_the_millisecond() {
        for ms in [0, 1, 999, 1_795_186_073_633, 253_402_300_799_999] {
            assert_eq!(milliseconds(seconds(ms)), ms);
        }
        assert_eq!([milliseconds(-1.0), milliseconds(f64::NAN)], [0, 0]);
    }
}
