//! The exporter, for sources of Python.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use exporter::{Exporter, Registry, Sources};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use tokio::sync::oneshot;

use crate::source::Source;
use crate::wait::runtime;

/// Serves `/metrics` by a thread of its own until it is closed.
#[pyclass(frozen, module = "kvs_client._native")]
pub(crate) struct MetricsServer {
    port: u16,
    running: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

#[pymethods]
impl MetricsServer {
    /// `sources`: each with the id of its camera. Port 0: any that is free.
    #[new]
    fn new(py: Python<'_>, sources: Vec<(String, Py<Source>)>, host: &str, port: u16) -> PyResult<Self> {
        let address: IpAddr = host.parse().map_err(|_| {
            PyValueError::new_err(format!(
                "host is `{host}`, expected an address such as 127.0.0.1 or 0.0.0.0"
            ))
        })?;
        let figures = move || {
            sources.iter().map(|(camera_id, source)| (camera_id.clone(), source.get().figures())).collect()
        };
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Sources::new(figures)));
        let runtime = runtime()?;
        py.detach(|| {
            let exporter = runtime.block_on(Exporter::start(address, port, registry));
            let exporter = exporter.map_err(|error| PyOSError::new_err(error.to_string()))?;
            let port = exporter.address().port();
            let (close, closed) = oneshot::channel();
            let serve = move || {
                runtime.block_on(async {
                    let _ = closed.await; // closed or dropped
                    drop(exporter);
                });
            };
            let thread = std::thread::Builder::new().name("kvs-metrics".to_owned()).spawn(serve)?;
            Ok(Self { port, running: Mutex::new(Some((close, thread))) })
        })
    }

    #[getter]
    fn port(&self) -> u16 {
        self.port
    }

    fn close(&self, py: Python<'_>) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((close, thread)) = running {
            let _ = close.send(());
            // Its panic was printed where it happened.
            py.detach(|| thread.join()).unwrap_or_default();
        }
    }
}
