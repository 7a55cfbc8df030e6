//! The kvs-edge daemon as a library; `main.rs` adds arguments, signals and the exit code.

pub mod config;
pub mod host;
pub mod messages;
pub mod mqtt;
pub mod probe;
