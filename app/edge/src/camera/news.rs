//! What the loopback hears of the upload, out of the ledger.

use kvs::FragmentNumber;
use kvs::fragmenter::FragmentSummary;
use kvs::ledger::{Change, Entry, Ledger};
use media::ProducerTimestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::record::SharedLedger;

/// What happened to a fragment. When the loopback's queue is full it is not told, and the fragment is not compared.
#[derive(Clone, Debug)]
pub enum News {
    /// The fragment begins; its bytes are on their way.
    Started(ProducerTimestamp),
    /// All bytes of the fragment are known.
    Complete(FragmentSummary),
    Persisted(FragmentSummary, Option<FragmentNumber>),
    /// It will never be there.
    Lost(ProducerTimestamp),
}

/// Tells until `recorded` fires, and then what is left.
pub(super) async fn of(ledger: SharedLedger, news: mpsc::Sender<News>, recorded: CancellationToken) -> usize {
    let mut watch = ledger.watch();
    let mut cursor = ledger.with(|ledger| ledger.cursor());
    loop {
        let last = recorded.run_until_cancelled(watch.changed()).await.is_none();
        let told: Vec<_> = ledger.with(|ledger| {
            let entries = ledger.read(&mut cursor).entries;
            entries.filter_map(|entry| told(ledger, entry)).collect()
        });
        told.into_iter().for_each(|told| drop(news.try_send(told)));
        if last {
            return 0;
        }
    }
}

fn told(ledger: &Ledger, entry: &Entry) -> Option<News> {
    match &entry.change {
        Change::Begun => Some(News::Started(entry.timecode)),
        Change::Complete(summary) => Some(News::Complete(summary.clone())),
        Change::Persisted { number, .. } => {
            Some(News::Persisted(ledger.get(entry.id)?.summary.clone()?, *number))
        }
        Change::Lost { .. } => Some(News::Lost(entry.timecode)),
        _ => None,
    }
}
