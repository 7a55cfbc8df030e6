//! Targets of the crate `detect`.

use detect::{labels, onnx};

/// A model file, and the labels in its metadata; or the bytes are a label file. Nothing panics, errors have words, and
/// labels are distinct and not empty.
pub(crate) fn models(data: &[u8]) {
    let distinct = |labels: &[String]| {
        let mut sorted: Vec<_> = labels.iter().collect();
        sorted.sort();
        sorted.dedup();
        assert!(sorted.len() == labels.len() && labels.iter().all(|label| !label.is_empty()), "{labels:?}");
    };
    match onnx::read_header(data) {
        Ok(header) => {
            if let Some(Ok(labels)) = header.metadata("names").map(labels::parse_metadata) {
                distinct(&labels);
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    match labels::parse(data) {
        Ok(labels) => distinct(&labels),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
