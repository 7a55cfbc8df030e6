//! A fragment while it is being received: one writer, any number of readers that share its bytes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use kvs::FragmentNumber;
use tokio::sync::watch;

use crate::ingest::Shape;
use crate::store::FragmentMeta;

/// How a fragment's reception ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LiveEnd {
    Complete(Shape),
    /// The connection broke, or the fragment was refused. It is not kept.
    Dropped,
}

#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) number: FragmentNumber,
    pub(crate) producer_ms: u64,
    pub(crate) timecode: u64,
    pub(crate) header: Bytes,
    pub(crate) lead: Bytes,
    received: Mutex<Received>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Received {
    /// Concatenated: the cluster and what follows it. Whole elements each.
    pieces: Vec<Bytes>,
    end: Option<LiveEnd>,
}

impl Live {
    pub(crate) fn new(
        number: FragmentNumber,
        producer_ms: u64,
        timecode: u64,
        header: Bytes,
        lead: Bytes,
    ) -> Self {
        let received = Mutex::default();
        Self { number, producer_ms, timecode, header, lead, received, changed: watch::Sender::new(()) }
    }

    fn received(&self) -> MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, piece: Bytes) {
        self.received().pieces.push(piece);
        self.changed.send_replace(());
    }

    /// The first end counts.
    pub(crate) fn end(&self, end: LiveEnd) {
        self.received().end.get_or_insert(end);
        self.changed.send_replace(());
    }

    pub(crate) fn is_complete(&self) -> bool {
        matches!(self.received().end, Some(LiveEnd::Complete(_)))
    }

    /// Pieces from the `position`-th on, and how it ended if it did.
    pub(crate) fn after(&self, position: usize) -> (Vec<Bytes>, Option<LiveEnd>) {
        let received = self.received();
        (received.pieces.get(position..).unwrap_or_default().to_vec(), received.end)
    }

    /// To wait for more: subscribe, look, then wait.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// As it will be stored.
    pub(crate) fn meta(&self, shape: Shape) -> FragmentMeta {
        FragmentMeta {
            number: self.number,
            producer_ms: self.producer_ms,
            timecode: self.timecode,
            length_ms: shape.length_ms,
            blocks: shape.blocks,
            header_bytes: self.header.len() as u64,
            lead_bytes: self.lead.len() as u64,
            cluster_bytes: shape.cluster_bytes,
            trailer_bytes: shape.trailer_bytes,
        }
    }

    /// Header, lead, then the pieces.
    pub(crate) fn parts(&self) -> Vec<Bytes> {
        let mut parts = vec![self.header.clone(), self.lead.clone()];
        parts.extend(self.received().pieces.iter().cloned());
        parts
    }
}
