//! `kvs_client`, the Python package: what of it must be fast, or already exists in Rust. What Python's users touch, with the
//! names that they know, is in `python/kvs_client`.
//!
//! ```text
//!  python/kvs_client: Session, sources, KvsConsumerLibrary, ...   names, defaults, habits
//!  Client -> MediaReader -> Fragment -> Document, Element        one answer, taken apart
//!            FragmentParser ---^                                 the same of bytes that somebody else reads
//!  Source --kvs_client::frames--> bytearray -> numpy             decoded pictures of a stream
//!  MetricsServer --exporter--> /metrics                          figures of sources, for Prometheus
//!  pictures, jpegs                                               of a fragment
//! ```
//!
//! Decisions:
//! * **Nothing runs behind Python's back here.** A reader has a runtime of its own that turns while somebody waits for it, on
//!   the thread that waits: no hand-over between threads for each piece, nothing that a fork could break.
//! * **Whoever waits holds no interpreter lock**, and looks ten times a second whether a signal is pending, so that Ctrl-C
//!   ends any wait.
//! * **No numpy at build time**: pictures are written once into a `bytearray`, over which numpy lays an array. numpy itself is
//!   imported with the first picture.

mod client;
mod dom;
mod elements;
mod fragment;
mod metrics;
mod pictures;
mod reader;
mod source;
mod wait;

use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;

create_exception!(
    kvs_client,
    FrameSourceError,
    PyException,
    "Reading a stream failed for good. The base of all errors of this package but wrong arguments."
);
create_exception!(
    kvs_client,
    KVSConnectionError,
    FrameSourceError,
    "The service was not reached, or refused: the message says which call, why, and what to change."
);
create_exception!(
    kvs_client,
    HLSStreamError,
    FrameSourceError,
    "What came could not be read: a playlist, a segment, a fragment."
);

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("FrameSourceError", py.get_type::<FrameSourceError>())?;
    module.add("KVSConnectionError", py.get_type::<KVSConnectionError>())?;
    module.add("HLSStreamError", py.get_type::<HLSStreamError>())?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<client::Client>()?;
    module.add_class::<reader::MediaReader>()?;
    module.add_class::<fragment::Fragment>()?;
    module.add_class::<fragment::FragmentParser>()?;
    module.add_class::<dom::Document>()?;
    module.add_class::<dom::Element>()?;
    module.add_class::<source::Source>()?;
    module.add_class::<metrics::MetricsServer>()?;
    module.add_function(wrap_pyfunction!(pictures::pictures, module)?)?;
    module.add_function(wrap_pyfunction!(pictures::jpegs, module)?)?;
    Ok(())
}
