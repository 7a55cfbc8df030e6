//! Fragments: as bytes, as what their tags say, as a tree.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use kvs_client::kvs::api::seconds;
use kvs_client::kvs::read::documents::{self, Documents};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict};

use crate::dom::{self, Text};
use crate::{HLSStreamError, KVSConnectionError};

/// One whole fragment: a Matroska document that stands alone.
#[pyclass(frozen, module = "kvs_client._native")]
pub(crate) struct Fragment {
    document: documents::Document,
    /// Made when it is asked for.
    text: Mutex<Option<Arc<Text>>>,
}

impl Fragment {
    pub(crate) fn new(document: documents::Document) -> Self {
        Self { document, text: Mutex::default() }
    }
}

#[pymethods]
impl Fragment {
    /// The number that KVS gave it, 47 digits.
    #[getter]
    fn number(&self) -> Option<String> {
        self.document.number.map(|number| number.to_string())
    }

    /// Unix seconds.
    #[getter]
    fn producer_timestamp(&self) -> Option<f64> {
        self.document.producer_timestamp_ms.map(seconds)
    }

    /// Unix seconds.
    #[getter]
    fn server_timestamp(&self) -> Option<f64> {
        self.document.server_timestamp_ms.map(seconds)
    }

    /// All of them, those of KVS too; of two with one name the last.
    #[getter]
    fn tags<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let tags = PyDict::new(py);
        for (name, value) in &self.document.tags {
            tags.set_item(name, value)?;
        }
        Ok(tags)
    }

    /// Why there is none: the service may say so inside its answer, in place of a fragment.
    #[getter]
    fn failure(&self) -> Option<String> {
        self.document.failure().map(|failure| failure.to_string())
    }

    /// Pictures and pieces of sound in it.
    #[getter]
    fn blocks(&self) -> u64 {
        self.document.blocks
    }

    #[getter]
    fn size_bytes(&self) -> usize {
        self.document.size_bytes()
    }

    /// A copy, which belongs to the caller.
    fn to_bytearray<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyByteArray>> {
        PyByteArray::new_with(py, self.document.size_bytes(), |place| {
            let mut rest = place;
            for piece in self.document.pieces() {
                let (here, behind) = rest.split_at_mut(piece.len());
                here.copy_from_slice(piece);
                rest = behind;
            }
            Ok(())
        })
    }

    /// The tree of its elements; each is looked at when it is asked for.
    fn document(&self) -> dom::Document {
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        let text = text.get_or_insert_with(|| Arc::new(Text::new(self.document.clone())));
        dom::Document::new(text.clone())
    }

    fn __len__(&self) -> usize {
        self.document.size_bytes()
    }

    fn __repr__(&self) -> String {
        let number = self.number().unwrap_or_else(|| "without a number".to_owned());
        format!("<Fragment {number}, {} bytes, {} blocks>", self.document.size_bytes(), self.document.blocks)
    }
}

/// Cuts bytes that somebody else reads into fragments, however they arrive.
#[pyclass(frozen, module = "kvs_client._native")]
pub(crate) struct FragmentParser {
    documents: Mutex<Documents>,
}

#[pymethods]
impl FragmentParser {
    #[new]
    fn new() -> Self {
        Self { documents: Mutex::default() }
    }

    /// Whole fragments that these bytes complete, mostly none.
    fn push(&self, bytes: &Bound<'_, PyBytes>) -> PyResult<Vec<Fragment>> {
        let mut documents = self.documents.lock().unwrap_or_else(PoisonError::into_inner);
        documents.push(Bytes::copy_from_slice(bytes.as_bytes()));
        let mut found = Vec::new();
        while let Some(document) = documents.next_document().map_err(unreadable)? {
            found.push(Fragment::new(document));
        }
        Ok(found)
    }

    /// The same after the last byte of an answer that ended in order. Raises KVSConnectionError where it ended too early.
    fn finish(&self) -> PyResult<Vec<Fragment>> {
        let mut documents = self.documents.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = Vec::new();
        while let Some(document) = documents.finish(true).map_err(unreadable)? {
            if !document.complete {
                return Err(cut(&document));
            }
            found.push(Fragment::new(document));
        }
        Ok(found)
    }
}

/// An answer that ended, in order, before its last fragment did.
pub(crate) fn cut(document: &documents::Document) -> PyErr {
    let number = document.number.map(|number| format!(" {number}")).unwrap_or_default();
    KVSConnectionError::new_err(format!(
        "the answer ended inside fragment{number}, after {} bytes of it",
        document.size_bytes()
    ))
}

fn unreadable(error: media::mkv::read::ReadError) -> PyErr {
    HLSStreamError::new_err(format!("the answer is no Matroska: {error}"))
}
