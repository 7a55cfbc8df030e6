//! The daemon as a process against real peers. Each test is one run of it, with as many cameras and faults as can share
//! it; what needs no process is tested with the crates.

mod analytics;
mod bad_cameras;
mod broker;
mod camera_faults;
mod cloud_refusals;
mod demo;
mod detector;
mod harness;
mod kvs_source;
mod kvs_tools;
mod lifecycle;
mod main_path;
mod second_camera;
mod service_manager;
