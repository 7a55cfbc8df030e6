//! Detector backends behind one trait, and who of the cameras gets them when.
//!
//! ```text
//!  pictures --letterbox--> input tensor --Backend::run--> output tensor --head, nms--> detections
//!     ^                                                                                (Detector)
//!     +-- Scheduler: newest picture of each camera, fair, not too old
//! ```
//!
//! `load` finds and checks the model and picks the backend, `Detector` does the work, `capacity` computes how many cameras
//! that is enough for. Here are files, libraries and the clock; what is arithmetic is in `vision`. No thread is started
//! but those of the backends.

pub mod backend;
pub mod capacity;
pub mod detector;
pub mod labels;
#[cfg(feature = "ort")]
mod library;
pub mod load;
pub mod model;
pub mod onnx;
#[cfg(feature = "ort")]
mod ort;
mod pixels;
mod rten;
pub mod schedule;

pub use backend::{Backend, BackendError, Input, InputFormat, InputSpec, Output};
pub use capacity::{Admission, Demand, Measured, Refused, admit};
pub use detector::{DetectError, Detector, Settings, Timing};
pub use load::{BackendChoice, Chosen, LabelSource, LoadError, LoadOptions, Loaded, ModelSource, load};
#[cfg(feature = "ort")]
pub use ort::LibraryError;
pub use schedule::{Counters, Limits, Scheduler};
