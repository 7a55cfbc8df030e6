//! Detector backends behind one trait.
//!
//! ```text
//!  pictures --letterbox--> input tensor --Backend::run--> output tensor --head, nms--> detections
//! ```

pub mod backend;

pub use backend::{Backend, BackendError, Input, InputFormat, InputSpec, Output};
