//! One answer of GetMedia or GetMediaForFragmentList, in the hands of Python.

use std::sync::{Arc, Mutex, PoisonError};

use kvs_client::{FragmentStream, FragmentStreamError};
use pyo3::prelude::*;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::fragment::{self, Fragment};
use crate::wait::wait;
use crate::{HLSStreamError, KVSConnectionError};

/// The media of one answer, fragment by fragment.
///
/// `for fragment in reader`. Closing it, from any thread, ends the wait of whoever reads.
#[pyclass(frozen, module = "kvs_client._native")]
pub(crate) struct MediaReader {
    /// Whoever reads has it meanwhile; `None` once it is over or closed.
    open: Mutex<Option<Open>>,
    closed: watch::Sender<bool>,
}

struct Open {
    runtime: Arc<Runtime>,
    fragments: FragmentStream,
}

impl MediaReader {
    pub(crate) fn new(runtime: Runtime, fragments: FragmentStream) -> Self {
        let open = Open { runtime: Arc::new(runtime), fragments };
        Self { open: Mutex::new(Some(open)), closed: watch::Sender::new(false) }
    }

    fn take(&self) -> Option<Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, open: Open) {
        // Looked at under the lock: whoever closes it takes what was put before, or is seen here.
        let mut place = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if !*self.closed.borrow() {
            *place = Some(open);
        }
    }
}

#[pymethods]
impl MediaReader {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    /// The next whole fragment, the last one of the answer included; `None` at its end, or when it was closed.
    ///
    /// Raises KVSConnectionError when the answer broke off, HLSStreamError when it is no Matroska.
    fn next_fragment(&self, py: Python<'_>) -> PyResult<Option<Fragment>> {
        let Some(mut open) = self.take() else { return Ok(None) };
        let mut closed = self.closed.subscribe();
        let runtime = open.runtime.clone();
        let mut cut = None;
        loop {
            let outcome = wait(py, &runtime, async {
                tokio::select! {
                    biased;
                    _ = closed.wait_for(|closed| *closed) => None,
                    next = open.fragments.next() => Some(next),
                }
            });
            let next = match outcome {
                Ok(Some(next)) => next,
                Ok(None) => return Ok(None),
                // Nothing is lost by a signal whose handler raised.
                Err(raised) => {
                    self.put(open);
                    return Err(raised);
                }
            };
            return match next {
                // What was cut off stands alone no longer. If the connection broke, the reason follows.
                Ok(Some(document)) if !document.complete => {
                    cut = Some(fragment::cut(&document));
                    continue;
                }
                Ok(Some(document)) => {
                    self.put(open);
                    Ok(Some(Fragment::new(document)))
                }
                Ok(None) => cut.map_or(Ok(None), Err),
                Err(FragmentStreamError::Call(error)) => {
                    Err(KVSConnectionError::new_err(health::chain(&error)))
                }
                Err(error @ FragmentStreamError::Matroska(_)) => {
                    Err(HLSStreamError::new_err(health::chain(&error)))
                }
            };
        }
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Fragment>> {
        self.next_fragment(py)
    }

    /// Ends the connection. What was not read is gone.
    fn close(&self) {
        self.closed.send_replace(true);
        drop(self.take());
    }

    fn __enter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, _exception: &Bound<'_, pyo3::types::PyTuple>) {
        self.close();
    }
}
