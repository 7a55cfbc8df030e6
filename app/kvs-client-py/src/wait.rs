//! Waiting on behalf of Python.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use tokio::runtime::{Builder, Runtime};

/// How soon Ctrl-C is noticed by whoever waits.
pub(crate) const SIGNALS: Duration = Duration::from_millis(100);

/// One that turns on the thread of whoever waits.
pub(crate) fn runtime() -> PyResult<Runtime> {
    let built = Builder::new_current_thread().enable_all().build();
    built.map_err(|error| PyOSError::new_err(format!("no event loop can be made: {error}")))
}

/// Waits without the interpreter's lock; an exception of a signal handler, such as KeyboardInterrupt, ends it.
pub(crate) fn wait<T: Send>(
    py: Python<'_>,
    runtime: &Runtime,
    future: impl Future<Output = T> + Send,
) -> PyResult<T> {
    py.detach(|| {
        runtime.block_on(async {
            let mut future = pin!(future);
            loop {
                match tokio::time::timeout(SIGNALS, &mut future).await {
                    Ok(value) => return Ok(value),
                    Err(_) => Python::attach(|py| py.check_signals())?,
                }
            }
        })
    })
}
