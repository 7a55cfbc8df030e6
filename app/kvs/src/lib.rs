//! Kinesis Video Streams without IO: what to send, what an answer means, and what is proven.
//!
//! ```text
//!  access units -> fragmenter -> window -> put_media -> bytes for PutMedia
//!                                   ^          ^
//!                                   +-- acks --+   ack (parser)
//!  GetMedia bytes -> chunk -> verify <- sent fragments
//! ```
//!
//! No socket, clock or random number is in here: bytes, events and `now` come in as arguments; bytes, events
//! and the next deadline go out. `kvs-client` and `kvs-local` put the sockets on, from opposite sides.

pub mod ack;
pub mod api;
mod fragment_number;
pub mod identity;
pub mod tag;

pub use fragment_number::{FragmentNumber, FragmentNumberError};
