//! Matroska as Kinesis Video Streams uses it: writing a PutMedia body, reading it and GetMedia answers back.

pub mod ebml;
pub mod elements;
pub mod id;
pub mod lacing;
pub mod read;
pub mod write;

pub use id::name_of;
