//! A simulated RTSP camera with faults on demand and a rendered scene with ground truth.
pub mod scene;
