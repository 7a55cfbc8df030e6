//! A Matroska file as the feed of an upload.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kvs_client::kvs::read::chunk::{ChunkStart, Event};
use kvs_client::kvs::read::contents::{BlockReader, Item};
use kvs_client::kvs::read::units::Units;
use kvs_client::kvs::tag;
use kvs_edge::record::UploadReport;
use media::mkv::elements::TrackInfo;
use media::{Feed, ProducerTimestamp, SourceMetrics, SourceState, UnitSource};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::plan::Plan;
use crate::cli::kvs::Failed;
use crate::cli::kvs::read::piece;

/// Of what is read and not persisted: the rest of the file waits for room.
const ROOM_BYTES: usize = 16 << 20;

/// Pictures and sound of a file, in order.
pub(super) struct FileUnits {
    path: PathBuf,
    file: File,
    reader: BlockReader,
    units: Units,
    /// Of the document that begins.
    tracks: Option<Arc<Vec<TrackInfo>>>,
    producer_timestamp_ms: Option<u64>,
    shift_ms: i64,
    at_end: bool,
    over: bool,
    cut: Option<String>,
}

impl FileUnits {
    pub(super) fn open(path: &Path, shift_ms: i64) -> Result<Self, Failed> {
        let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            reader: BlockReader::default(),
            units: Units::default(),
            tracks: None,
            producer_timestamp_ms: None,
            shift_ms,
            at_end: false,
            over: false,
            cut: None,
        })
    }

    /// How the file ends, where that is not in order.
    pub(super) fn cut(&self) -> Option<&str> {
        self.cut.as_deref()
    }

    /// `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Feed>, Failed> {
        loop {
            if let Some((item, _)) = self.units.next_item() {
                return Ok(Some(self.moved(item)));
            }
            if self.over {
                return Ok(None);
            }
            let named = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            let item = if self.at_end { self.reader.finish() } else { self.reader.next_item() };
            match item {
                Ok(Some(item)) => self.take(item).map_err(|error| named(&self.path, &error))?,
                Ok(None) if self.at_end => self.over = true,
                Ok(None) => {
                    let piece = piece(&mut self.file).map_err(|error| named(&self.path, &error))?;
                    self.at_end = piece.is_empty();
                    self.reader.push(piece);
                }
                Err(error) if error.is_cut() => (self.over, self.cut) = (true, Some(error.to_string())),
                Err(error) => return Err(format!("{}; expected Matroska", named(&self.path, &error)).into()),
            }
        }
    }

    fn take(&mut self, item: Item) -> Result<(), kvs_client::kvs::read::units::TrackError> {
        match item {
            Item::Tracks(tracks) => (self.tracks, self.producer_timestamp_ms) = (Some(tracks), None),
            Item::Tags { tags, behind: false } => {
                let said = tags.iter().find(|(name, _)| {
                    name == tag::PRODUCER_TIMESTAMP || name == tag::PRODUCER_TIMESTAMP_DOCUMENTED
                });
                let said = said.and_then(|(_, value)| tag::parse_seconds(value));
                self.producer_timestamp_ms = said.or(self.producer_timestamp_ms);
            }
            Item::Block(block) => {
                if let Some(tracks) = self.tracks.take() {
                    let producer_timestamp_ms = self.producer_timestamp_ms.take();
                    let (number, server_timestamp_ms) = (None, None);
                    self.units.take(Event::Start(ChunkStart {
                        number,
                        server_timestamp_ms,
                        producer_timestamp_ms,
                        tracks,
                    }))?;
                }
                self.units.take(Event::Block(block))?;
            }
            Item::Tags { .. } | Item::End => {}
        }
        Ok(())
    }

    fn moved(&self, item: Feed) -> Feed {
        let moved = |time: ProducerTimestamp| {
            ProducerTimestamp::from_millis(time.as_millis().saturating_add_signed(self.shift_ms))
        };
        match item {
            Feed::Video(mut unit) => {
                unit.timestamp = moved(unit.timestamp);
                Feed::Video(unit)
            }
            Feed::Audio(mut frame) => {
                frame.timestamp = moved(frame.timestamp);
                Feed::Audio(frame)
            }
            other => other,
        }
    }
}

/// What of a file is missing in KVS, as fast as it gets there.
pub(super) struct FileSource {
    units: FileUnits,
    plan: Arc<Plan>,
    left_out: bool,
    report: watch::Receiver<UploadReport>,
    stop: CancellationToken,
    metrics: SourceMetrics,
    over: bool,
}

impl FileSource {
    pub(super) fn open(
        path: &Path,
        plan: Arc<Plan>,
        report: watch::Receiver<UploadReport>,
        stop: CancellationToken,
    ) -> Result<Self, Failed> {
        let units = FileUnits::open(path, plan.shift_ms)?;
        Ok(Self {
            units,
            plan,
            left_out: false,
            report,
            stop,
            metrics: SourceMetrics::default(),
            over: false,
        })
    }

    /// A planned fragment begins.
    fn is_border(&self, item: &Feed) -> bool {
        matches!(item, Feed::Video(unit) if unit.random_access
            && self.plan.is_left_out(unit.timestamp.as_millis()).is_some())
    }

    /// `None`: this one is left out.
    fn wanted(&mut self, item: Feed) -> Option<Feed> {
        match &item {
            Feed::Video(unit) => {
                let before = self.left_out;
                if unit.random_access
                    && let Some(left_out) = self.plan.is_left_out(unit.timestamp.as_millis())
                {
                    self.left_out = left_out;
                }
                match (before, self.left_out) {
                    (_, false) => Some(item),
                    (false, true) => Some(Feed::Break),
                    (true, true) => None,
                }
            }
            Feed::Audio(frame) => (!self.plan.is_sound_left_out(frame.timestamp.as_millis())).then_some(item),
            _ => Some(item),
        }
    }
}

impl UnitSource for FileSource {
    async fn next(&mut self) -> Option<Feed> {
        let room = self.report.wait_for(|report| report.backlog.bytes < ROOM_BYTES);
        // Whoever stops it is not kept waiting, and nobody else lets go of the report.
        let _ = self.stop.run_until_cancelled(room).await;
        while !self.over {
            // The file was read before; what has become of it since ends it.
            let Ok(Some(item)) = self.units.next() else { break };
            // The fragment that is on its way becomes whole.
            if self.stop.is_cancelled() && self.is_border(&item) {
                break;
            }
            if let Some(item) = self.wanted(item) {
                self.metrics.count(&item);
                return Some(item);
            }
        }
        self.over = true;
        None
    }

    fn state(&self) -> SourceState {
        if self.over { SourceState::Disconnected } else { SourceState::Connected }
    }

    fn metrics(&self) -> SourceMetrics {
        self.metrics
    }
}
