//! Which fragments in doubt KVS has: by the number that an ack named, else by their time, and then by their bytes.

use kvs::api::{StreamId, milliseconds};
use kvs::read::chunk::Chunk;
use kvs::upload::{Doubt, LookedUp};
use kvs::{FragmentId, FragmentNumber};
use kvs_client::{Client, Error, ServiceErrorKind};

use super::failure::failure_of;
use crate::readback::{self, ReadBackError};

/// What was learnt so far.
struct Look<'a> {
    client: &'a Client,
    stream: &'a StreamId,
    doubts: &'a [Doubt],
    found: Vec<(FragmentId, FragmentNumber)>,
    /// Numbers that could not be read although they may be there.
    unread: Vec<FragmentNumber>,
}

/// Looks for `doubts`. With `retention`, asks first whether the stream keeps anything; whoever may not describe the stream
/// finds out nothing there, and goes on.
pub(super) async fn look_up(
    client: &Client,
    stream: &StreamId,
    doubts: &[Doubt],
    retention: bool,
) -> LookedUp {
    if retention
        && let Ok(info) = client.describe_stream(stream).await
        && info.data_retention_in_hours == 0
    {
        return LookedUp::KeepsNothing;
    }
    let mut look = Look { client, stream, doubts, found: Vec::new(), unread: Vec::new() };
    match look.run().await {
        Ok(absent) => LookedUp::Answer { found: look.found, absent },
        Err(error) if error.service_kind() == Some(&ServiceErrorKind::NoDataRetention) => {
            LookedUp::KeepsNothing
        }
        // What was found is found.
        Err(error) if look.found.is_empty() => LookedUp::CouldNotAsk(failure_of(&error)),
        Err(error) => {
            tracing::warn!(error = health::chain(&error), "cannot ask for all fragments in doubt");
            LookedUp::Answer { found: look.found, absent: Vec::new() }
        }
    }
}

impl Look<'_> {
    /// Returns those that are not there.
    async fn run(&mut self) -> Result<Vec<FragmentId>, Error> {
        self.read(self.doubts.iter().filter_map(|doubt| doubt.number).collect()).await?;
        let open: Vec<_> = self.doubts.iter().filter(|doubt| !self.is_found(doubt)).collect();
        let times = || open.iter().map(|doubt| doubt.summary.timecode.as_millis());
        let (Some(from_ms), Some(to_ms)) = (times().min(), times().max()) else { return Ok(Vec::new()) };
        let rows = readback::list(self.client, self.stream, from_ms, to_ms).await?;
        let rows: Vec<(u64, FragmentNumber)> = rows
            .iter()
            .filter_map(|row| Some((milliseconds(row.producer_timestamp), row.fragment_number.parse().ok()?)))
            .collect();
        let asked: Vec<_> = self.doubts.iter().filter_map(|doubt| doubt.number).collect();
        let new = |(ms, number): &&(u64, FragmentNumber)| {
            times().any(|time| time == *ms) && (!asked.contains(number) || self.unread.contains(number))
        };
        let numbers = rows.iter().filter(new).map(|(_, number)| *number).collect();
        self.unread.clear();
        self.read(numbers).await?;
        let listed_unread = |doubt: &Doubt| {
            let ms = doubt.summary.timecode.as_millis();
            rows.iter().any(|(at, number)| *at == ms && self.unread.contains(number))
        };
        let absent = self.doubts.iter().filter(|doubt| !self.is_found(doubt) && !listed_unread(doubt));
        Ok(absent.map(|doubt| doubt.summary.id).collect())
    }

    fn is_found(&self, doubt: &Doubt) -> bool {
        self.found.iter().any(|(id, _)| *id == doubt.summary.id)
    }

    /// Reads these numbers and keeps what is identical. A refused batch is read one by one: a number that is not there
    /// must not hide the others.
    async fn read(&mut self, numbers: Vec<FragmentNumber>) -> Result<(), Error> {
        match readback::fetch(self.client, self.stream, numbers.clone()).await {
            Ok(chunks) => self.keep(&numbers, &chunks),
            Err(error) if is_about_numbers(&error) && numbers.len() > 1 => {
                for number in numbers {
                    match readback::fetch(self.client, self.stream, vec![number]).await {
                        Ok(chunks) => self.keep(&[number], &chunks),
                        Err(error) => self.refused(&[number], error)?,
                    }
                }
            }
            Err(error) => self.refused(&numbers, error)?,
        }
        Ok(())
    }

    fn refused(&mut self, numbers: &[FragmentNumber], error: ReadBackError) -> Result<(), Error> {
        match error {
            error if is_about_numbers(&error) => {} // not there
            ReadBackError::Client(error) => return Err(error),
            ReadBackError::Chunk(error) => {
                tracing::warn!(%error, "fragments in doubt cannot be read");
                self.unread.extend(numbers);
            }
        }
        Ok(())
    }

    fn keep(&mut self, asked: &[FragmentNumber], chunks: &[Chunk]) {
        for chunk in chunks {
            let Some((cluster, number)) =
                chunk.cluster.as_ref().filter(|_| chunk.complete).zip(chunk.start.number)
            else {
                continue;
            };
            let same = self.doubts.iter().find(|doubt| doubt.summary.sums == cluster.sums);
            if let Some(doubt) = same.filter(|doubt| !self.is_found(doubt)) {
                self.found.push((doubt.summary.id, number));
            }
        }
        // A cut answer says nothing about the rest.
        let read = |number: &&FragmentNumber| {
            !chunks.iter().any(|chunk| chunk.complete && chunk.start.number == Some(**number))
        };
        self.unread.extend(asked.iter().filter(read));
    }
}

/// The request was understood, and what it names is not there.
fn is_about_numbers(error: &ReadBackError) -> bool {
    let ReadBackError::Client(error) = error else { return false };
    matches!(
        error.service_kind(),
        Some(ServiceErrorKind::ResourceNotFound | ServiceErrorKind::InvalidArgument)
    )
}
