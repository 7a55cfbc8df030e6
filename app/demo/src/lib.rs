//! What the demo starts around the daemon.

pub mod broker;
