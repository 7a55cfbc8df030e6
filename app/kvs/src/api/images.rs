//! Bodies of GetImages: pictures of a stream at given times.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{FragmentSelectorType, StreamId, seconds};

/// Seconds between the first and the last time of one request, at most.
pub const IMAGES_RANGE_SECONDS: u64 = 300;
/// The shortest sampling interval, in milliseconds.
pub const LEAST_SAMPLING_INTERVAL_MS: u64 = 200;
/// Pictures in one answer, whatever `MaxResults` says.
pub const IMAGES_PER_ANSWER: u32 = 25;
/// What `MaxResults` may be.
pub const IMAGES_RESULTS: std::ops::RangeInclusive<u32> = 1..=100;
/// Pixels, after scaling.
pub const IMAGE_WIDTH: std::ops::RangeInclusive<u32> = 1..=3_840;
/// See [`IMAGE_WIDTH`].
pub const IMAGE_HEIGHT: std::ops::RangeInclusive<u32> = 1..=2_160;
/// Of one picture in an answer, in Base64.
pub const IMAGE_CONTENT_BYTES: usize = 6_291_456;
/// The only key of `FormatConfig`; its value is a text, 1 to 100.
pub const JPEG_QUALITY: &str = "JPEGQuality";
/// JPEG quality where the request says none.
pub const DEFAULT_JPEG_QUALITY: u8 = 80;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ImageFormat {
    Jpeg,
    Png,
}

/// One picture for each time from the start on, `sampling_interval` apart, up to the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetImagesInput {
    #[serde(flatten)]
    pub stream: StreamId,
    /// Which time of a fragment counts.
    pub image_selector_type: FragmentSelectorType,
    /// Epoch seconds.
    pub start_timestamp: f64,
    /// Epoch seconds, at most [`IMAGES_RANGE_SECONDS`] behind the start.
    pub end_timestamp: f64,
    /// Milliseconds, at least [`LEAST_SAMPLING_INTERVAL_MS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling_interval: Option<u64>,
    pub format: ImageFormat,
    /// [`JPEG_QUALITY`] or nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub format_config: BTreeMap<String, String>,
    /// With the height: the picture is stretched to both. Never alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width_pixels: Option<u32>,
    /// Alone: the picture keeps its shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height_pixels: Option<u32>,
    /// See [`IMAGES_RESULTS`] and [`IMAGES_PER_ANSWER`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_results: Option<u32>,
    /// From the answer before, with the rest of the request as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

impl GetImagesInput {
    /// The pictures from `start_ms` to `end_ms` (since the epoch, of the time that `by` names), in their own size.
    pub fn new(
        stream: StreamId,
        by: FragmentSelectorType,
        start_ms: u64,
        end_ms: u64,
        format: ImageFormat,
    ) -> Self {
        Self {
            stream,
            image_selector_type: by,
            start_timestamp: seconds(start_ms),
            end_timestamp: seconds(end_ms),
            sampling_interval: None,
            format,
            format_config: BTreeMap::new(),
            width_pixels: None,
            height_pixels: None,
            max_results: None,
            next_token: None,
        }
    }

    /// JPEG quality, 1 to 100.
    #[must_use]
    pub fn with_jpeg_quality(mut self, quality: u8) -> Self {
        self.format_config.insert(JPEG_QUALITY.to_owned(), quality.to_string());
        self
    }
}

/// Why there is no picture of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ImageError {
    /// No footage of that time.
    NoMedia,
    /// There is footage, but no picture can be made of it: sound alone, or damage.
    MediaError,
}

/// A picture, or why there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Image {
    /// The time that was asked for; epoch seconds.
    pub time_stamp: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ImageError>,
    /// The JPEG or PNG file; Base64 on the wire.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "content")]
    pub image_content: Option<Vec<u8>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetImagesOutput {
    #[serde(default)]
    pub images: Vec<Image>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

mod content {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        content: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        content.as_ref().map(|bytes| BASE64_STANDARD.encode(bytes)).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        let text: Option<String> = Option::deserialize(deserializer)?;
        text.map(|text| BASE64_STANDARD.decode(text).map_err(serde::de::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_the_names_of_the_service() {
        let input = GetImagesInput {
            sampling_interval: Some(200),
            width_pixels: Some(64),
            height_pixels: Some(36),
            max_results: Some(2),
            ..GetImagesInput::new(
                StreamId::name("cam1"),
                FragmentSelectorType::ProducerTimestamp,
                1_500,
                2_000,
                ImageFormat::Jpeg,
            )
            .with_jpeg_quality(70)
        };
        let body = serde_json::to_value(&input).expect("plain data");
        let expected = serde_json::json!({
            "StreamName": "cam1", "ImageSelectorType": "PRODUCER_TIMESTAMP", "StartTimestamp": 1.5, "EndTimestamp": 2.0,
            "SamplingInterval": 200, "Format": "JPEG", "FormatConfig": { "JPEGQuality": "70" }, "WidthPixels": 64,
            "HeightPixels": 36, "MaxResults": 2,
        });
        assert_eq!(body, expected);
        assert_eq!(serde_json::from_value::<GetImagesInput>(body).expect("the same"), input);
    }

    #[test]
    fn a_picture_comes_out_of_base64_and_what_is_none_is_refused() {
        let answer =
            r#"{"Images":[{"TimeStamp":1.5,"ImageContent":"/9j/"},{"TimeStamp":2,"Error":"NO_MEDIA"}]}"#;
        let output: GetImagesOutput = serde_json::from_str(answer).expect("an answer");
        let [picture, none] = &output.images[..] else { panic!("{output:?}") };
        assert_eq!((picture.image_content.as_deref(), picture.error), (Some(&[0xFF, 0xD8, 0xFF][..]), None));
        assert_eq!((&none.image_content, none.error), (&None, Some(ImageError::NoMedia)));
        assert_eq!(serde_json::to_string(&output).expect("plain data"), answer.replace(":2,", ":2.0,"));
        let garbage = r#"{"Images":[{"TimeStamp":1.5,"ImageContent":"?"}]}"#;
        assert!(serde_json::from_str::<GetImagesOutput>(garbage).is_err());
    }
}
