//! Kinesis Video Streams without IO: what to send, what an answer means, and what is proven.
//!
//! ```text
//!  access units -> fragmenter -> upload (window, session)    -> bytes for PutMedia
//!                                    ^
//!                                    +-- acks -- ack (parser)
//!  GetMedia bytes -> read (chunks) -> proof <- ledger (what was sent)
//! ```
//!
//! No socket, clock or random number is in here: bytes, events and `now` come in as arguments; bytes, events
//! and the next deadline go out. `kvs-client` and `kvs-local` put the sockets on, from opposite sides.

pub mod ack;
pub mod api;
pub mod cluster_sums;
mod fragment_id;
mod fragment_number;
pub mod fragmenter;
pub mod identity;
pub mod ledger;
pub mod proof;
pub mod read;
pub mod stamping;
pub mod tag;
#[cfg(test)]
mod testing;
pub mod upload;

pub use fragment_id::{FragmentId, FragmentIdError, FragmentIds, RunId};
pub use fragment_number::{FragmentNumber, FragmentNumberError};

/// The one moment from which tests count.
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "an Instant can be made in no other way")]
pub(crate) fn epoch() -> std::time::Instant {
    static EPOCH: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    *EPOCH.get_or_init(std::time::Instant::now)
}
