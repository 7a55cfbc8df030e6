//! The kvs-edge daemon as a library; `main.rs` adds arguments, signals and the exit code. Read `camera.rs` first.

pub mod app;
pub mod aws;
pub mod bench;
pub mod camera;
mod clock;
#[cfg(feature = "demo")]
pub mod demo;
pub mod fanout;
pub mod health;
pub mod host;
pub mod ingest;
pub mod loopback;
pub mod probe;
pub mod readback;
pub mod report;
mod rtsp;
pub mod seeing;
pub mod upload;
mod watched;
