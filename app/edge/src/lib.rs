//! The kvs-edge daemon as a library; `main.rs` adds arguments, signals and the exit code. Read `camera.rs` first.

pub mod analyze;
pub mod app;
pub mod aws;
pub mod camera;
pub mod cameras;
pub mod fanout;
pub mod fault;
mod gather;
pub mod order_desk;
pub mod overlay_video;
pub mod probe;
pub mod publish;
pub mod record;
pub mod service_manager;
pub mod status;
pub mod wall_clock;
pub mod watchdog;
