//! The control plane: streams, their tags, retention and endpoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::Response;
use kvs::api::{
    CreateStreamInput, CreateStreamOutput, DeleteStreamInput, DescribeStreamOutput, GetDataEndpointInput,
    GetDataEndpointOutput, ListStreamsInput, ListStreamsOutput, ListTagsForStreamInput,
    ListTagsForStreamOutput, RetentionOperation, StreamId, TagStreamInput, UntagStreamInput,
    UpdateDataRetentionInput, UpdateStreamInput, path,
};
use serde_json::json;

use crate::errors::ServiceError;
use crate::server::{Body, json as answer, parse};
use crate::service::{Service, new_version};
use crate::store::{StoreError, StreamRecord};
use crate::stream::Stream;

const MAX_RETENTION_HOURS: u32 = 87_600;
const MAX_TAGS: usize = 50;
const MAX_TAG_KEY: usize = 128;
const MAX_TAG_VALUE: usize = 256;

impl From<StoreError> for ServiceError {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "store failed");
        Self::internal(error.to_string())
    }
}

pub(crate) async fn handle(
    service: &Service,
    path: &'static str,
    body: &[u8],
) -> Result<Response<Body>, ServiceError> {
    match path {
        path::CREATE_STREAM => create_stream(service, parse(body)?).await,
        path::DESCRIBE_STREAM => {
            let stream = called(service, path, &parse(body)?)?;
            answer(&DescribeStreamOutput { stream_info: stream.info() })
        }
        path::LIST_STREAMS => list_streams(service, parse(body)?),
        path::UPDATE_STREAM => update_stream(service, parse(body)?).await,
        path::DELETE_STREAM => delete_stream(service, parse(body)?).await,
        path::GET_DATA_ENDPOINT => {
            let input: GetDataEndpointInput = parse(body)?;
            called(service, path, &input.stream)?;
            let configured = service.options.data_endpoint.as_deref();
            let data_endpoint = configured.unwrap_or(service.endpoint()).to_owned();
            answer(&GetDataEndpointOutput { data_endpoint })
        }
        path::UPDATE_DATA_RETENTION => update_data_retention(service, parse(body)?).await,
        path::TAG_STREAM => tag_stream(service, parse(body)?).await,
        path::UNTAG_STREAM => untag_stream(service, parse(body)?).await,
        path::LIST_TAGS_FOR_STREAM => {
            let input: ListTagsForStreamInput = parse(body)?;
            let stream = called(service, path, &input.stream)?;
            answer(&ListTagsForStreamOutput { tags: stream.record().tags, next_token: None })
        }
        _ => Err(ServiceError::unknown_operation()),
    }
}

/// The stream that is meant, after counting the call and asking for faults.
fn called(service: &Service, path: &'static str, id: &StreamId) -> Result<Arc<Stream>, ServiceError> {
    let stream = service.stream(id)?;
    admit(service, path, &stream.name)?;
    Ok(stream)
}

/// Counts a call; an error if it is one too many or a fault refuses it.
pub(crate) fn admit(service: &Service, path: &'static str, stream: &str) -> Result<(), ServiceError> {
    service.count_call(path, stream)?;
    match service.faults.refusal(stream, None, path) {
        None => Ok(()),
        Some((kind, status)) => Err(ServiceError::operation(&kind, status, "Refused by an injected fault.")),
    }
}

async fn create_stream(service: &Service, input: CreateStreamInput) -> Result<Response<Body>, ServiceError> {
    admit(service, path::CREATE_STREAM, "")?;
    check_name(&input.stream_name)?;
    let retention_hours = input.data_retention_in_hours.unwrap_or(0);
    check_retention(retention_hours)?;
    check_tags(&input.tags)?;
    if let Some(limit) = service.options.limits.streams_per_account
        && service.find(&input.stream_name).is_none()
        && service.all().len() >= limit
    {
        let message = format!("The account has {limit} streams.");
        return Err(ServiceError::operation("AccountStreamLimitExceededException", 400, message));
    }
    let record = StreamRecord {
        device_name: input.device_name,
        media_type: input.media_type,
        kms_key_id: Some(input.kms_key_id.unwrap_or_else(|| {
            let (region, account) = (&service.options.region, &service.options.account);
            format!("arn:aws:kms:{region}:{account}:alias/aws/kinesisvideo")
        })),
        tags: input.tags,
        ..service.new_record(&input.stream_name, retention_hours)
    };
    let stream = service.create(record, service.options.create_delay).await?.ok_or_else(|| {
        let message = format!("The stream {} already exists.", input.stream_name);
        ServiceError::operation("ResourceInUseException", 400, message)
    })?;
    answer(&CreateStreamOutput { stream_arn: stream.arn.clone() })
}

fn list_streams(service: &Service, input: ListStreamsInput) -> Result<Response<Body>, ServiceError> {
    admit(service, path::LIST_STREAMS, "")?;
    let max_results = input.max_results.unwrap_or(10_000);
    if !(1..=10_000).contains(&max_results) {
        return Err(ServiceError::invalid_argument("MaxResults must be from 1 to 10000."));
    }
    let mut prefix = String::new();
    if let Some(condition) = input.stream_name_condition {
        if condition.comparison_operator.is_some_and(|operator| operator != "BEGINS_WITH") {
            return Err(ServiceError::invalid_argument("ComparisonOperator must be BEGINS_WITH."));
        }
        prefix = condition.comparison_value.unwrap_or_default();
    }
    let after = input.next_token.unwrap_or_default();
    let mut rest = service
        .all()
        .into_iter()
        .filter(|stream| stream.name.starts_with(&prefix) && (after.is_empty() || stream.name > after))
        .peekable();
    let page: Vec<_> = rest.by_ref().take(max_results as usize).map(|stream| stream.info()).collect();
    let next_token = rest.peek().and_then(|_| page.last()).map(|info| info.stream_name.clone());
    answer(&ListStreamsOutput { stream_info_list: page, next_token })
}

async fn update_stream(service: &Service, input: UpdateStreamInput) -> Result<Response<Body>, ServiceError> {
    let stream = called(service, path::UPDATE_STREAM, &input.stream)?;
    stream
        .edit(|record| {
            advance_version(record, &input.current_version)?;
            record.device_name = input.device_name.or(record.device_name.take());
            record.media_type = input.media_type.or(record.media_type.take());
            Ok::<_, ServiceError>(())
        })
        .await?;
    answer(&json!({}))
}

async fn delete_stream(service: &Service, input: DeleteStreamInput) -> Result<Response<Body>, ServiceError> {
    let stream = called(service, path::DELETE_STREAM, &input.stream)?;
    if input.current_version.is_some_and(|version| version != stream.record().version) {
        return Err(version_mismatch());
    }
    service.delete(&stream).await?;
    answer(&json!({}))
}

async fn update_data_retention(
    service: &Service,
    input: UpdateDataRetentionInput,
) -> Result<Response<Body>, ServiceError> {
    let stream = called(service, path::UPDATE_DATA_RETENTION, &input.stream)?;
    let change = input.data_retention_change_in_hours;
    if change == 0 {
        return Err(ServiceError::invalid_argument("DataRetentionChangeInHours must be at least 1."));
    }
    stream
        .edit(|record| {
            let hours = match input.operation {
                RetentionOperation::IncreaseDataRetention => record.retention_hours.checked_add(change),
                RetentionOperation::DecreaseDataRetention => record.retention_hours.checked_sub(change),
            };
            let out_of_range =
                || ServiceError::invalid_argument("Data retention must be from 0 to 87600 hours.");
            let hours = hours.ok_or_else(out_of_range)?;
            check_retention(hours)?;
            advance_version(record, &input.current_version)?;
            record.retention_hours = hours;
            Ok::<_, ServiceError>(())
        })
        .await?;
    stream.expire(&service.options.limits, service.now_ms()).await;
    answer(&json!({}))
}

async fn tag_stream(service: &Service, input: TagStreamInput) -> Result<Response<Body>, ServiceError> {
    let stream = called(service, path::TAG_STREAM, &input.stream)?;
    stream
        .edit(|record| {
            record.tags.extend(input.tags);
            check_tags(&record.tags)
        })
        .await?;
    answer(&json!({}))
}

async fn untag_stream(service: &Service, input: UntagStreamInput) -> Result<Response<Body>, ServiceError> {
    let stream = called(service, path::UNTAG_STREAM, &input.stream)?;
    if input.tag_key_list.is_empty() || input.tag_key_list.len() > MAX_TAGS {
        return Err(ServiceError::invalid_argument("TagKeyList must have 1 to 50 keys."));
    }
    stream
        .edit(|record| {
            record.tags.retain(|key, _| !input.tag_key_list.contains(key));
            Ok::<_, ServiceError>(())
        })
        .await?;
    answer(&json!({}))
}

fn advance_version(record: &mut StreamRecord, current: &str) -> Result<(), ServiceError> {
    if record.version != current {
        return Err(version_mismatch());
    }
    record.version = new_version();
    Ok(())
}

fn version_mismatch() -> ServiceError {
    let message = "The stream version that you specified is not the latest version. To get the latest version, use \
                   the DescribeStream API.";
    ServiceError::operation("VersionMismatchException", 400, message)
}

fn check_name(name: &str) -> Result<(), ServiceError> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if (1..=256).contains(&name.len()) && name.bytes().all(good) {
        return Ok(());
    }
    Err(ServiceError::invalid_argument("StreamName must be 1 to 256 of a-z, A-Z, 0-9, '_', '.', '-'."))
}

fn check_retention(hours: u32) -> Result<(), ServiceError> {
    if hours <= MAX_RETENTION_HOURS {
        return Ok(());
    }
    Err(ServiceError::invalid_argument("Data retention must be from 0 to 87600 hours."))
}

fn check_tags(tags: &BTreeMap<String, String>) -> Result<(), ServiceError> {
    if tags.len() > MAX_TAGS {
        let message = format!("{} tags, at most {MAX_TAGS} per stream.", tags.len());
        return Err(ServiceError::operation("TagsPerResourceExceededLimitException", 400, message));
    }
    let good = |(key, value): (&String, &String)| {
        let (key, value) = (key.chars().count(), value.chars().count());
        (1..=MAX_TAG_KEY).contains(&key) && value <= MAX_TAG_VALUE
    };
    if tags.iter().all(good) {
        return Ok(());
    }
    Err(ServiceError::invalid_argument("Tag keys have 1 to 128 characters, values up to 256."))
}
