//! Streams made ready for recording, as often as one likes: what is right already stays as it is.

use std::time::Duration;

use kvs::api::{CreateStreamInput, StreamId, StreamInfo, StreamStatus};

use crate::client::{Client, Retention};
use crate::error::{Error, ServiceErrorKind};
use crate::operation::Operation;

/// What a new stream keeps, and one that kept nothing, if nobody says otherwise.
pub const DEFAULT_RETENTION_HOURS: u32 = 24;

/// A new stream is active after some seconds.
const ACTIVE_WITHIN: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What [`Client::provision_stream`] found and did.
#[derive(Clone, Debug, PartialEq)]
pub struct Provisioned {
    /// It was not there before.
    pub created: bool,
    /// How long it keeps footage now.
    pub retention: Retention,
    /// As it is now.
    pub info: StreamInfo,
}

impl Client {
    /// Creates the stream if it is missing, waits until it is active, and raises its retention to `retention_hours`
    /// where it is lower; `None`: only where it keeps nothing. It never lowers it, since that drops recordings.
    pub async fn provision_stream(
        &self,
        name: &str,
        retention_hours: Option<u32>,
    ) -> Result<Provisioned, Error> {
        let stream = StreamId::name(name);
        let wanted = retention_hours.unwrap_or(DEFAULT_RETENTION_HOURS);
        let created = match self.describe_stream(&stream).await {
            Ok(_) => false,
            Err(error) if error.service_kind() == Some(&ServiceErrorKind::ResourceNotFound) => {
                self.create(name, wanted).await?
            }
            Err(error) => return Err(error),
        };
        let info = self.wait_until_active(&stream).await?;
        let target = match retention_hours {
            None if info.data_retention_in_hours > 0 => 0,
            _ => wanted,
        };
        let retention = self.ensure_retention(&stream, target).await?;
        let info = match retention {
            Retention::Kept { .. } => info,
            Retention::Raised { .. } => self.describe_stream(&stream).await?,
        };
        Ok(Provisioned { created, retention, info })
    }

    /// `false`: somebody else was faster.
    async fn create(&self, name: &str, retention_hours: u32) -> Result<bool, Error> {
        let input = CreateStreamInput {
            stream_name: name.to_owned(),
            data_retention_in_hours: Some(retention_hours),
            ..Default::default()
        };
        match self.create_stream(&input).await {
            Ok(_) => Ok(true),
            Err(error) if error.service_kind() == Some(&ServiceErrorKind::ResourceInUse) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn wait_until_active(&self, stream: &StreamId) -> Result<StreamInfo, Error> {
        let clock = &self.shared.config.clock;
        let begin = clock.now();
        loop {
            let info = self.describe_stream(stream).await?;
            match info.status {
                StreamStatus::Active | StreamStatus::Updating => return Ok(info),
                _ if clock.since(begin) >= ACTIVE_WITHIN => {
                    return Err(Error::Timeout {
                        operation: Operation::DescribeStream,
                        endpoint: self.control().clone(),
                        what: "active stream",
                        after: ACTIVE_WITHIN,
                    });
                }
                _ => clock.sleep(LOOK_EVERY).await,
            }
        }
    }
}
