//! From coded pictures to fragments that are in KVS and proven: the drivers around `kvs::upload` and `kvs::proof`.
//!
//! ```text
//!  Feed --> upload (fragmenter, kvs::upload::Driver) <--bytes, acks--> PutMedia
//!              |  begins, complete, sent, persisted, lost
//!              v
//!           SharedLedger, one per camera: outlives the restart of any stage
//!              ^  listed, identical, missing, corrupt
//!              |
//!           proof
//!              +--> records: each minute of it, for good, in store
//! ```

pub mod ask;
mod failure;
mod lookup;
mod orders;
pub mod proof;
pub mod records;
mod report;
mod upload;

use std::sync::{Arc, Mutex, PoisonError};

use kvs::ledger::{Cursor, Ledger, LedgerLimits};
use tokio::sync::watch;

pub use failure::{failure_of, reason_of};
pub use orders::{AroundEvents, Orders};
pub use report::{UploadReport, UploadState, reason_of_loss};
pub use upload::Uploader;

/// The ledger of one camera, shared by those who write the lives of its fragments and those who read them.
#[derive(Clone, Debug)]
pub struct SharedLedger {
    ledger: Arc<Mutex<Ledger>>,
    /// Where the log ends.
    end: Arc<watch::Sender<Cursor>>,
}

impl SharedLedger {
    pub fn new(limits: LedgerLimits) -> Self {
        let ledger = Ledger::new(limits);
        let end = Arc::new(watch::Sender::new(ledger.cursor()));
        Self { ledger: Arc::new(Mutex::new(ledger)), end }
    }

    /// Reads or changes it; whoever [watches](Self::watch) wakes if the log grew. Not to be held for long: others wait.
    pub fn with<T>(&self, use_it: impl FnOnce(&mut Ledger) -> T) -> T {
        // A panic of somebody in here leaves the lives of fragments as they were told last.
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let result = use_it(&mut ledger);
        let end = ledger.cursor();
        drop(ledger);
        self.end.send_if_modified(|known| std::mem::replace(known, end) != end);
        result
    }

    /// Changes when there is more to read.
    pub fn watch(&self) -> watch::Receiver<Cursor> {
        self.end.subscribe()
    }
}

impl Default for SharedLedger {
    fn default() -> Self {
        Self::new(LedgerLimits::default())
    }
}

#[cfg(test)]
mod tests {
    use kvs::ledger::{Change, LossReason};
    use kvs::{FragmentId, RunId};
    use media::ProducerTimestamp;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn readers_wake_when_the_log_grows_and_only_then() {
        let ledger = SharedLedger::default();
        let (mut watch, now) = (ledger.watch(), clock::Clock::system().now());
        let mut cursor = ledger.with(|ledger| ledger.cursor());
        let id = FragmentId { run: RunId::new(1), sequence: 1 };
        ledger.with(|ledger| ledger.sending(id));
        assert!(!watch.has_changed().expect("it lives"));
        let writer = ledger.clone();
        let crashed = std::thread::spawn(move || {
            writer.with(|ledger| ledger.begin(id, ProducerTimestamp::from_millis(5), now));
            writer.with(|_| panic!("while it was held"));
        });
        assert!(crashed.join().is_err());
        watch.changed().await.expect("it lives");
        ledger.with(|ledger| ledger.abandon(&LossReason::Crashed, now));
        let changes = ledger.with(|ledger| {
            ledger.read(&mut cursor).entries.map(|entry| entry.change.clone()).collect::<Vec<_>>()
        });
        assert!(matches!(&changes[..], [Change::Begun, Change::Lost { reason: LossReason::Crashed, .. }]));
    }
}
